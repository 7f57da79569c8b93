"""Models as data.

A model is a list of layers, written in Python or in a TOML file::

    name = "nmnist-3c1fc"
    input = [2, 34, 34]          # channels, height, width
    readout = "voltage"
    [[layers]]
    type = "conv"
    channels = 8
    kernel = 3
    stride = 2
    [[layers]]
    type = "pool"
    kernel = 2
    [[layers]]
    type = "dense"
    features = 10

What SLAYER makes of it is in `mtt_lava.spiking`; nothing here needs torch.
"""

from __future__ import annotations

import math
import os
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from netx_export.network import conv_shape
from netx_export.reading import check_plain, read_toml
from netx_export.text import UserError, field_error, meant, table


class ModelError(UserError):
    """A model that is not what it must be. One clear line."""


_TWICE = pydantic.BeforeValidator(lambda value: (value, value) if isinstance(value, int) else value)
Pair = Annotated[tuple[pydantic.PositiveInt, pydantic.PositiveInt], _TWICE]
Padding = Annotated[tuple[pydantic.NonNegativeInt, pydantic.NonNegativeInt], _TWICE]
LARGEST_LAYER = 1 << 30
"""Neurons or trained weights of a layer; its padded input is bounded alike."""


class _Part(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Conv(_Part):
    """A convolution and its neurons; pairs are (height, width), a single number stands for both."""

    type: Literal["conv"] = "conv"
    channels: pydantic.PositiveInt
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Padding = (0, 0)
    dilation: Pair = (1, 1)
    groups: pydantic.PositiveInt = 1


class Dense(_Part):
    """All inputs to all outputs, and neurons; what comes as (C, H, W) is flattened, channels slowest."""

    type: Literal["dense"] = "dense"
    features: pydantic.PositiveInt


class Pool(_Part):
    """Sum pool; its stride is its kernel unless given.

    On a chip whose pools need neurons it is a SLAYER pool block: one spike where any came in.
    """

    type: Literal["pool"] = "pool"
    kernel: Pair
    stride: Pair | None = None


class NeuronSpec(_Part):
    """Neurons of all layers; decays 0 (nothing is forgotten) .. 1. Integrate-and-fire is (1, 0); threshold is 1.

    Surrogate gradients: `mtt_lava.neuron.SURROGATES`; that of soft-reset neurons is always the same.
    """

    current_decay: Annotated[float, pydantic.Field(ge=0, le=1)] = 1.0
    voltage_decay: Annotated[float, pydantic.Field(ge=0, le=1)] = 0.0
    surrogate: Literal["laplace", "triangular", "exponential"] = "laplace"
    width: Annotated[float, pydantic.Field(gt=0)] = 1.0


class Model(_Part):
    """A network as data.

    Parameters
    ----------
    name : str
        For people and files.
    input : tuple of int
        (C, H, W) or (F,).
    layers : list
        `Conv`, `Dense` and `Pool` (or dictionaries with their fields and ``type``); the last is dense.
    readout : {"voltage", "count"}
        The last layer's neurons integrate without spiking, or spike and are counted.
    neuron : NeuronSpec
        Neurons of all layers; those of a voltage readout never leak.
    """

    name: str
    input: tuple[pydantic.PositiveInt, ...]
    layers: tuple[Annotated[Conv | Dense | Pool, pydantic.Field(discriminator="type")], ...]
    readout: Literal["voltage", "count"] = "voltage"
    neuron: NeuronSpec = NeuronSpec()

    @property
    def weights(self) -> int:
        """Number of trained synaptic weights."""
        return sum(self.layer_weights())

    @property
    def names(self) -> list[str]:
        """A name for every layer: its type and its number among the layers of that type."""
        types = [layer.type for layer in self.layers]
        return [f"{kind}{types[: i + 1].count(kind)}" for i, kind in enumerate(types)]

    def layer_weights(self) -> list[int]:
        """Number of trained synaptic weights of every layer; pools have none."""
        counts = []
        for layer, before in zip(self.layers, self.shapes(), strict=False):
            if isinstance(layer, Dense):
                counts.append(layer.features * math.prod(before))
            elif isinstance(layer, Conv):
                counts.append(layer.channels * before[0] // layer.groups * math.prod(layer.kernel))
            else:
                counts.append(0)
        return counts

    def shapes(self) -> list[tuple[int, ...]]:
        """Shape of the input and of every layer's output.

        Raises
        ------
        ModelError
            A layer that does not fit what comes before it.
        """
        if len(self.input) not in (1, 3):
            raise ModelError(f"model {self.name}: input is {list(self.input)}; it must be [C, H, W] or [F]")
        if not self.layers or self.layers[-1].type != "dense":
            raise ModelError(f"model {self.name}: the last layer must be dense: its neurons are the classes")
        shapes: list[tuple[int, ...]] = [self.input]
        _bounded(f"model {self.name}: input", math.prod(self.input), "values")
        for number, layer in enumerate(self.layers, 1):
            shape = shapes[-1]
            where = f"model {self.name}: layer {number} ({layer.type})"
            if isinstance(layer, Dense):
                _bounded(where, layer.features * math.prod(shape), "weights")
                shapes.append((layer.features,))
                continue
            if len(shape) != 3:
                raise ModelError(f"{where} needs an input of channels, height and width, but gets {list(shape)}")
            if isinstance(layer, Pool):
                out = conv_shape(shape, shape[0], layer.kernel, layer.stride or layer.kernel)
            else:
                for what, channels in (("input", shape[0]), ("output", layer.channels)):
                    if channels % layer.groups:
                        raise ModelError(
                            f"{where}: {channels} {what} channels cannot be cut into {layer.groups} groups"
                        )
                out = conv_shape(shape, layer.channels, layer.kernel, layer.stride, layer.padding, layer.dilation)
            if min(out) < 1:
                raise ModelError(f"{where}: its kernel is larger than its input {list(shape)}")
            if isinstance(layer, Conv):
                _bounded(where, layer.channels * shape[0] // layer.groups * math.prod(layer.kernel), "weights")
                padded = (size + 2 * padding for size, padding in zip(shape[1:], layer.padding, strict=True))
                _bounded(where, shape[0] * math.prod(padded), "padded inputs")
            _bounded(where, math.prod(out), "neurons")
            shapes.append(out)
        return shapes


def _bounded(where: str, number: int, what: str) -> None:
    if number > LARGEST_LAYER:
        raise ModelError(f"{where}: {number:,} {what}; at most {LARGEST_LAYER:,}")


def describe(model: Model) -> str:
    """Its layers as a table for people: shapes and trained weights."""
    rows = [["layer", "type", "gives", "weights"]]
    shapes, counts = model.shapes(), model.layer_weights()
    for number, (layer, shape, count) in enumerate(zip(model.layers, shapes[1:], counts, strict=True), 1):
        rows.append([str(number), layer.type, "x".join(map(str, shape)), f"{count:,}" if count else ""])
    neuron = ", ".join(f"{name} {value}" for name, value in model.neuron.model_dump().items())
    head = f"{model.name}: input {'x'.join(map(str, model.input))}, {model.weights:,} weights, readout {model.readout}"
    return "\n".join([head, *table(rows, left=2), f"neurons: {neuron}"])


def _one_line(error: pydantic.ValidationError, source: str) -> ModelError:
    first = error.errors()[0]
    parts: dict[Any, type[_Part]] = {part.model_fields["type"].default: part for part in (Conv, Dense, Pool)}
    parts["neuron"] = NeuronSpec
    owner = next((parts[name] for name in first["loc"][:-1] if name in parts), Model)
    return ModelError(f"{source}: {field_error(first, owner.model_fields)}")


def model_names() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.name[: -len(".toml")] for path in (resources.files(__package__) / "models").iterdir())


def load_model(name: str | Path | dict[str, Any]) -> Model:
    """The model of that name, of a TOML file, or of a dictionary.

    Raises
    ------
    ModelError
        No such model or file, TOML that cannot be read, a field that is missing, unknown or out of range.

    Examples
    --------
    >>> load_model("nmnist-3c1fc").name
    'nmnist-3c1fc'
    """
    source = "model"
    if not isinstance(name, dict):
        source = str(name)
        if source in model_names():
            path = str(resources.files(__package__) / "models" / f"{source}.toml")
        elif os.path.exists(source):
            path = source
        else:
            hint = meant(source, model_names())
            raise ModelError(
                f"no model {source!r}{hint}: use one of {', '.join(model_names())}, or the path of a TOML file"
            )
        name = read_toml(path, ModelError)
    check_plain(name, source, ModelError)
    try:
        model = Model.model_validate(name)
    except pydantic.ValidationError as error:
        raise _one_line(error, source) from None
    model.shapes()
    return model
