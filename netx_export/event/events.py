"""Input events of the event-driven simulator, their file, and what they must be."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from netx_export.network import Network, NetworkError
from netx_export.reading import read_npz
from netx_export.text import short

COLUMNS = ("sample", "t", "c", "y", "x")
"""What an event is: sample, time in microseconds, channel, row and column."""
LATEST = 1 << 60
"""Microseconds: latencies can still be added in 64 bits."""
EMPTY_BYTES = 1 << 28
"""Results of recordings without events may take this much: events may declare any number of them."""


@dataclass(frozen=True, eq=False)
class Events:
    """Input events of N recordings.

    Parameters
    ----------
    sample, t, c, y, x : numpy.ndarray
        Integers, one an event, sorted by sample, then t (microseconds). For a flat input of F features, c is the
        feature, and y and x are 0.
    samples : int, optional
        N; recordings may be empty. Default: the largest sample and one.
    """

    sample: np.ndarray
    t: np.ndarray
    c: np.ndarray
    y: np.ndarray
    x: np.ndarray
    samples: int | None = None

    def __repr__(self) -> str:
        return f"<Events: {len(self.t):,} of {self.n:,} recordings>"

    @property
    def n(self) -> int:
        """Number of recordings."""
        return (int(np.max(self.sample)) + 1 if len(self.sample) else 0) if self.samples is None else self.samples


def load_events(path: str | os.PathLike[str]) -> Events:
    """Read events from a NumPy .npz file with the arrays sample, t, c, y, x, and optionally the number ``samples``.

    Raises
    ------
    NetworkError
        No such file, or not one of these.
    """
    arrays = read_npz(path, NetworkError, (*COLUMNS, "samples"))
    missing = [name for name in COLUMNS if name not in arrays]
    if missing:
        raise NetworkError(f"{path}: has no array {missing[0]!r}; give {', '.join(COLUMNS)}")
    sample, t, c, y, x = (arrays[name] for name in COLUMNS)
    samples = arrays.get("samples")
    if samples is not None and (samples.size != 1 or samples.dtype.kind not in "iu"):
        raise NetworkError(f"{path}: samples is {samples.dtype} of shape {samples.shape}; give one whole number")
    return Events(sample, t, c, y, x, None if samples is None else int(samples.item()))


def check_events(network: Network, events: Events, record: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each recording starts, and every event's index (H, W, C) and time; or one line for what is wrong."""
    shape = network.in_shape if len(network.in_shape) == 3 else (network.in_shape[0], 1, 1)
    try:
        columns = [np.asarray(getattr(events, name)) for name in COLUMNS]
    except (ValueError, TypeError):
        raise NetworkError("events: a column is no array; give flat integer arrays") from None
    for name, column in zip(COLUMNS, columns, strict=True):
        if column.dtype.kind not in "iu" or column.ndim != 1:
            raise NetworkError(f"events: {name} is {column.dtype} of shape {column.shape}; give a flat integer array")
        if len(column) != len(columns[0]):
            raise NetworkError(f"events: {name} has {len(column)} entries, sample has {len(columns[0])}; give as many")
    sample, t, *place = columns
    n = events.n
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or not 0 <= n < LATEST:
        raise NetworkError(f"events: samples is {short(n)}; give a whole number from 0 on")
    n = int(n)
    neurons = sum(math.prod(layer.shape) for layer in network.spiking) if "spikes" in record else 0
    each = 8 * (3 * math.prod(network.shape) + 4 * len(network.spiking) + neurons)
    # Which are empty takes a sort to tell: only where they could be too many.
    empty = n - len(np.unique(sample)) if n * each > EMPTY_BYTES else 0
    if empty * each > EMPTY_BYTES:
        raise NetworkError(
            f"events: {n:,} recordings, {empty:,} of them without events; at most {EMPTY_BYTES // each:,} may be empty "
            f"for this network: number the recordings from 0 on"
        )
    for name, column, most in (("sample", sample, n), *zip("cyx", place, shape, strict=True)):
        if len(column) and (column.min() < 0 or column.max() >= most):
            at = int(np.argmax((column < 0) | (column >= most)))
            raise NetworkError(f"events: {name} is {column[at]} at event {at}; {network.source} takes 0..{most - 1}")
    if len(t) and (int(t.min()) < 0 or int(t.max()) > LATEST):
        at = int(np.argmax((t < 0) | (t > LATEST)))
        raise NetworkError(f"events: t is {t[at]} at event {at}; give microseconds, 0..{LATEST}")
    sample, t = sample.astype(np.int64, copy=False), t.astype(np.int64, copy=False)
    back = (sample[1:] < sample[:-1]) | ((t[1:] < t[:-1]) & (sample[1:] == sample[:-1]))
    if back.any():
        at = int(np.argmax(back)) + 1
        raise NetworkError(
            f"events: not in order at event {at} (sample {sample[at]}, t {t[at]} after sample {sample[at - 1]}, "
            f"t {t[at - 1]}); sort by sample, then t: numpy.lexsort((t, sample))"
        )
    c, y, x = (column.astype(np.int32) for column in place)
    index = (y * shape[2] + x) * shape[0] + c
    return np.searchsorted(sample, np.arange(n + 1)), index, t
