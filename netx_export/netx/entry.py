"""One layer's group in a NetX file, read field by field."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from netx_export.network import (
    NetworkError,
    Shape,
)
from netx_export.netx.fields import CONV_NUMBER_MAX, NEURONS_MAX
from netx_export.netx.hdf5 import Group, Unreadable

TOO_MANY = f"more than {NEURONS_MAX:,} outputs of all layers are not read"


def brief(value: Any) -> str:
    """A value from a file, for a message."""
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def attribute(item: Group, name: str) -> Any:
    value = item.attributes.get(name)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


class Entry:
    """One layer's group in a file; what it raises, and notes of changes, names file, layer and field.

    `form` is the group it stands in, ``"layer"`` (a chain) or ``"graph"``; `foreign`, whether others wrote the file.
    """

    def __init__(
        self, group: Group, source: str, number: int, changes: list[str], *, form: str = "layer", foreign: bool = True
    ) -> None:
        self.group, self.source, self.number, self.changes = group, source, number, changes
        self.form, self.foreign = form, foreign

    @property
    def in_graph(self) -> bool:
        return self.form == "graph"

    def error(self, field: str, text: str) -> NetworkError:
        return NetworkError(f"{self.source}: {self.form}/{self.number}/{field}: {text}")

    def warn(self, field: str, text: str) -> None:
        """Note what lava-dl makes of a field of a chain; a graph, which it does not run, may hold nothing like it."""
        if self.in_graph:
            raise self.error(field, f"holds what no graph may: {text.partition(';')[0]}")
        self.changes.append(f"{self.source}: {self.form}/{self.number}/{field}: {text}")

    def __contains__(self, field: str) -> bool:
        return self.group.get(field) is not None

    def value(self, field: str) -> Any:
        """Content of a data set: a NumPy array or scalar, or a text."""
        value = self.group.get(field)
        if value is None:
            raise self.error(field, "is missing")
        if isinstance(value, Group):
            raise self.error(field, "is a group, not a data set")
        if isinstance(value, Unreadable):
            raise self.error(field, value.reason)
        return value

    def text(self, field: str) -> str:
        value = self.value(field)
        value = value.ravel()[0] if isinstance(value, np.ndarray) else value
        if isinstance(value, str):
            value = value.encode("utf-8", "surrogateescape")
        if not isinstance(value, bytes) or not value.isascii():
            raise self.error(field, f"holds {brief(value)}, not a text in ASCII")
        return value.decode("ascii")

    def numbers(self, field: str, kinds: str = "biuf") -> Any:
        """Numbers as they stand in the file."""
        value = self.value(field)
        if isinstance(value, str) or value.dtype.kind not in kinds:
            held = "a text" if isinstance(value, str) else value.dtype
            raise self.error(field, f"holds {held}, not {'numbers' if 'f' in kinds else 'integers'}")
        return value

    def array(self, field: str, cut: bool = False) -> np.ndarray:
        """Integers as int64; with `cut`, from floating point too, of which NetX cuts off the fractions."""
        value = np.asarray(self.numbers(field, "biuf" if cut else "biu"))
        if value.dtype.kind == "f":
            if not np.all(np.isfinite(value)):
                raise self.error(field, f"holds {value[~np.isfinite(value)].flat[0]!s}, not a number")
            fractions = value[value != np.trunc(value)]
            if fractions.size:
                self.warn(field, f"lava-dl cuts {fractions[0]!s} to {int(fractions[0])}; quantise before export")
            value = np.trunc(value)
        if value.min() < -(2**31) or value.max() >= 2**31:
            raise self.error(field, "holds a number beyond 32 bits")
        return value.astype(np.int64)

    def number_in(self, field: str, low: int, high: int) -> int:
        array = self.array(field)
        if array.shape:
            raise self.error(field, f"has shape {array.shape}; lava-dl takes one number for the whole layer")
        value = int(array)
        if not low <= value <= high:
            raise self.error(field, f"is {value}, not in {low}..{high}")
        return value

    def per_neuron(self, field: str, array: np.ndarray, shape: Shape) -> np.ndarray:
        """One number for all, one a channel, (C,), or one a neuron, from what NumPy spreads to NetX's (W, H, C)."""
        try:
            each = np.broadcast_to(array, shape[::-1])
        except ValueError:
            raise self.error(
                field, f"has shape {array.shape}, not one value or what spreads to {shape[::-1]}"
            ) from None
        if array.shape == shape[:1]:
            return array
        return array.reshape(()) if array.size == 1 and array.shape != each.shape else each.transpose().copy()

    def pair(self, field: str, low: int) -> tuple[int, int]:
        """(height, width), from a pair or one number for both."""
        array = self.array(field)
        values = array.ravel().tolist()
        if array.shape not in ((), (2,)) or min(values) < low or max(values) > CONV_NUMBER_MAX:
            raise self.error(field, f"is {brief(array.tolist())}, not one or two integers in {low}..{CONV_NUMBER_MAX}")
        return values[0], values[-1]

    def shape(self) -> Shape:
        shape = tuple(self.array("shape").ravel().tolist())
        if min(shape) < 1:
            raise self.error("shape", f"is {brief(shape)}, with a size below 1")
        if math.prod(shape) > NEURONS_MAX:
            raise self.error("shape", f"is {brief(shape)}: {TOO_MANY}")
        return shape
