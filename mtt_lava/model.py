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

Layers follow one another unless they say where their input comes from. A residual block adds a shortcut to the current
of its last neurons::

    [[layers]]
    name = "res1.a"
    type = "conv"
    channels = 32
    kernel = 3
    stride = 2
    padding = 1
    block = "res1"                       # layers of one block share their number of time steps
    [[layers]]
    name = "res1.b"
    type = "conv"
    channels = 32
    kernel = 3
    padding = 1
    neuron = false                       # passes its current on
    block = "res1"
    [[layers]]
    name = "res1.short"
    type = "conv"
    input = "stem"
    channels = 32
    kernel = 1
    stride = 2
    neuron = false
    block = "res1"
    [[layers]]
    name = "res1"
    type = "add"
    inputs = ["res1.b", "res1.short"]    # a layer with neurons here would be an identity shortcut
    block = "res1"

What SLAYER makes of it is in `mtt_lava.spiking`; nothing here needs torch.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

import pydantic

from netx_export.network import INPUT, Shape, conv_shape, transposed_shape
from netx_export.reading import check_plain, read_toml
from netx_export.text import UserError, field_error, meant, short, table


class ModelError(UserError):
    """A model that is not what it must be. One clear line."""


_TWICE = pydantic.BeforeValidator(lambda value: (value, value) if isinstance(value, int) else value)
Pair = Annotated[tuple[pydantic.PositiveInt, pydantic.PositiveInt], _TWICE]
Padding = Annotated[tuple[pydantic.NonNegativeInt, pydantic.NonNegativeInt], _TWICE]
LARGEST_LAYER = 1 << 30
"""Neurons or trained weights of a layer; its padded input is bounded alike."""


class _Part(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Layer(_Part):
    """What every layer can say.

    Parameters
    ----------
    name : str
        Default: the type and its number among the layers of that type.
    input : str, optional
        Name of the layer whose output comes in, or ``"input"``; default: the layer written before.
    block : str, optional
        Layers of one block share their number of time steps. Default: every conv and dense layer is a block, a pool is
        in that of its input, what an add sums without neurons is in that of the add.
    """

    name: Annotated[str, pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=40)] | None = None
    input: str | None = None
    block: Annotated[str, pydantic.Field(min_length=1, max_length=40)] | None = None

    def gives(self, before: Shape) -> Shape:
        """Shape of the output for this shape of an input."""
        raise NotImplementedError

    def weight_shape(self, before: Shape) -> Shape:
        """Shape of the trained weights, outputs first; empty without any."""
        return ()

    def scaled(self, wide: Callable[[int, int], int]) -> _Layer:
        """The layer with another number of outputs: `wide` of theirs, and of the groups they are in."""
        return self


class _Weighted(_Layer):
    """A kernel with trained weights, and neurons; pairs are (height, width), a single number stands for both."""

    channels: pydantic.PositiveInt
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Padding = (0, 0)
    dilation: Pair = (1, 1)
    groups: pydantic.PositiveInt = 1
    neuron: bool = True

    def gives(self, before: Shape) -> Shape:
        return conv_shape(before, self.channels, self.kernel, self.stride, self.padding, self.dilation)

    def weight_shape(self, before: Shape) -> Shape:
        return (self.channels, before[0] // self.groups, *self.kernel)

    def scaled(self, wide: Callable[[int, int], int]) -> _Layer:
        return self.model_copy(update={"channels": wide(self.channels, self.groups)})


class Conv(_Weighted):
    """A convolution and its neurons. Without neurons it passes its current on to an `Add`."""

    type: Literal["conv"] = "conv"


class ConvT(_Weighted):
    """A transposed convolution and its neurons; Lava has no process for it, chips without a clock may."""

    type: Literal["convT"] = "convT"

    def gives(self, before: Shape) -> Shape:
        return transposed_shape(before, self.channels, self.kernel, self.stride, self.padding, self.dilation)


class Dense(_Layer):
    """All inputs to all outputs, and neurons; what comes as (C, H, W) is flattened, channels slowest.

    Without neurons it passes its current on to an `Add`. Recurrent ones also get what they themselves sent in the time
    step before, all from all, through trained weights.
    """

    type: Literal["dense"] = "dense"
    features: pydantic.PositiveInt
    neuron: bool = True
    recurrent: bool = False

    def gives(self, before: Shape) -> Shape:
        return (self.features,)

    def weight_shape(self, before: Shape) -> Shape:
        return (self.features, math.prod(before))

    def scaled(self, wide: Callable[[int, int], int]) -> _Layer:
        return self.model_copy(update={"features": wide(self.features, 1)})


class Add(_Layer):
    """The sum of several layers of one shape.

    With neurons it sums currents: what comes in has no neurons, or its spikes come in with weight 1 (an identity
    shortcut). Without neurons it sums spikes, which the next layer weights: what chips that sum events can do.
    """

    type: Literal["add"] = "add"
    inputs: Annotated[tuple[str, ...], pydantic.Field(min_length=2, max_length=16)]
    input: None = None
    neuron: bool = True

    def gives(self, before: Shape) -> Shape:
        return before


class Pool(_Layer):
    """Sum pool; its stride is its kernel unless given.

    On a chip whose pools need neurons it is a SLAYER pool block: one spike where any came in.
    """

    type: Literal["pool"] = "pool"
    kernel: Pair
    stride: Pair | None = None

    def gives(self, before: Shape) -> Shape:
        return conv_shape(before, before[0], self.kernel, self.stride or self.kernel)


class Average(_Layer):
    """The last layer: each class is the mean of a group of neighbouring outputs of the dense layer before it.

    A chip's integers, and its outputs counted off the chip, hold the sum.
    """

    type: Literal["average"] = "average"
    features: pydantic.PositiveInt

    def gives(self, before: Shape) -> Shape:
        return (self.features,)


AnyLayer = Conv | ConvT | Dense | Pool | Add | Average
"""What a model is made of."""


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
        `Conv`, `ConvT`, `Dense`, `Pool`, `Add` and `Average`, or dictionaries with their fields and ``type``; the last
        is dense, or an average behind a dense one.
    readout : {"voltage", "count"}
        The last layer's neurons integrate without spiking, or spike and are counted.
    neuron : NeuronSpec
        Neurons of all layers; those of a voltage readout never leak.
    """

    name: str
    input: tuple[pydantic.PositiveInt, ...]
    layers: tuple[Annotated[AnyLayer, pydantic.Field(discriminator="type")], ...]
    readout: Literal["voltage", "count"] = "voltage"
    neuron: NeuronSpec = NeuronSpec()

    @property
    def weights(self) -> int:
        """Number of trained synaptic weights."""
        return sum(self.layer_weights())

    @property
    def names(self) -> list[str]:
        """A name for every layer: its own, or its type and its number among the layers of that type."""
        types = [layer.type for layer in self.layers]
        numbered = (f"{kind}{types[: i + 1].count(kind)}" for i, kind in enumerate(types))
        return [layer.name or name for layer, name in zip(self.layers, numbered, strict=True)]

    @property
    def classes(self) -> int:
        """Number of classes: features of the last layer."""
        return self.layers[-1].gives(())[0]

    def layer_weights(self) -> list[int]:
        """Number of trained synaptic weights of every layer; pools and adds have none."""
        parts = [(part.layer, part.layer.weight_shape(part.before)) for part in self.parts()]
        back = [isinstance(layer, Dense) and layer.recurrent and layer.features**2 for layer, _ in parts]
        return [(math.prod(shape) if shape else 0) + more for (_, shape), more in zip(parts, back, strict=True)]

    def stages(self) -> list[int]:
        """Number of every layer's stage: layers of one block share it, and their number of time steps."""
        parts = {part.name: part for part in self.parts()}
        adds = {name: part for part in parts.values() if isinstance(part.layer, Add) for name in part.inputs}

        def key(name: str) -> str | None:
            if name == INPUT:
                return None
            layer, _, inputs, *_ = parts[name]
            if layer.block is not None:
                return f"block {layer.block}"
            if name in adds and not sends_spikes(layer):
                add = adds[name]
                return key(add.name) if add.layer.block is not None else f"layer {add.name}"
            if isinstance(layer, Add) and any(not sends_spikes(parts[each].layer) for each in inputs):
                return f"layer {name}"
            return key(inputs[0]) if isinstance(layer, Pool | Add | Average) else f"layer {name}"

        numbers: dict[str, int] = {}
        # A pool of the input itself is in the first stage.
        return [0 if one is None else numbers.setdefault(one, len(numbers)) for one in map(key, parts)]

    def shapes(self) -> list[Shape]:
        """Shape of the input and of every layer's output; see `parts`."""
        return [self.input, *(part.shape for part in self.parts())]

    def parts(self) -> list[Part]:
        """The layers, each with its name, its inputs' names, and the shapes of an input and of the output.

        Raises
        ------
        ModelError
            A layer that does not fit what comes into it.
        """
        if len(self.input) not in (1, 3):
            raise ModelError(f"model {self.name}: input is {list(self.input)}; it must be [C, H, W] or [F]")
        *_, answering = (None, *(layer for layer in self.layers[-2:] if not isinstance(layer, Average)))
        if not isinstance(answering, Dense) or not answering.neuron:
            raise ModelError(
                f"model {self.name}: the last layer must be dense, with neurons: its neurons are the classes (or "
                f"several of them each, with an average behind)"
            )
        if answering.recurrent:
            raise ModelError(f"model {self.name}: the last dense layer feeds nothing back: leave recurrent out")
        _bounded(f"model {self.name}: input", math.prod(self.input), "values")
        parts: list[Part] = []
        known, silent = {INPUT: self.input}, set[str]()
        before = INPUT
        for number, (layer, name) in enumerate(zip(self.layers, self.names, strict=True), 1):
            title = layer.type if layer.name is None else f"{layer.type} {layer.name}"
            where = f"model {self.name}: layer {number} ({title})"
            if name in known:
                raise ModelError(f"{where}: another layer is called {name}: give each a name of its own")
            inputs = layer.inputs if isinstance(layer, Add) else (layer.input or before,)
            for each in inputs:
                if each not in known:
                    hint = meant(each, list(known))
                    raise ModelError(f"{where}: its input {short(each)!r} is no layer before it{hint}")
            shapes = [known[each] for each in inputs]
            if isinstance(layer, Average):
                self._check_average(where, layer, number, inputs[0] == before, shapes[0])
            elif isinstance(layer, Add):
                self._check_add(where, layer, [each for each in inputs if each in silent], shapes)
            elif inputs[0] in silent:
                raise ModelError(f"{where}: its input {inputs[0]} has no neurons: only an add takes its current")
            known[name] = self._shape(where, layer, shapes[0])
            parts.append(Part(layer, name, tuple(inputs), shapes[0], known[name]))
            if not sends_spikes(layer):
                silent.add(name)
            before = name
        used = {name for part in parts for name in part.inputs}
        for number, part in enumerate(parts[:-1], 1):
            if part.name not in used:
                raise ModelError(f"model {self.name}: layer {number} ({part.name}) feeds no other: leave it out")
        return parts

    def _check_average(self, where: str, layer: Average, number: int, next_to: bool, before: Shape) -> None:
        if number < len(self.layers) or not next_to:
            raise ModelError(f"{where}: an average stands behind the last dense layer only")
        if before[0] % layer.features:
            raise ModelError(f"{where}: {before[0]} outputs cannot be shared out among {layer.features} classes")

    @staticmethod
    def _check_add(where: str, layer: Add, silent: list[str], shapes: list[Shape]) -> None:
        if len(set(layer.inputs)) < len(layer.inputs):
            raise ModelError(f"{where}: names an input twice")
        if len(set(shapes)) > 1:
            texts = ", ".join(f"{name} {list(s)}" for name, s in zip(layer.inputs, shapes, strict=True))
            raise ModelError(f"{where}: its inputs differ in shape: {texts}")
        if not layer.neuron and silent:
            raise ModelError(f"{where}: without neurons it sums spikes, but {silent[0]} has none: give either neurons")
        if layer.neuron and not silent:
            raise ModelError(
                f"{where}: all its inputs are spikes: put a conv or dense layer without neurons on one, or leave the "
                f"add's own out (neuron = false)"
            )

    @staticmethod
    def _shape(where: str, layer: AnyLayer, before: Shape) -> Shape:
        if isinstance(layer, _Weighted | Pool) and len(before) != 3:
            raise ModelError(f"{where} needs an input of channels, height and width, but gets {list(before)}")
        if isinstance(layer, _Weighted):
            for what, channels in (("input", before[0]), ("output", layer.channels)):
                if channels % layer.groups:
                    raise ModelError(f"{where}: {channels} {what} channels cannot be cut into {layer.groups} groups")
            padded = (size + 2 * padding for size, padding in zip(before[1:], layer.padding, strict=True))
            _bounded(where, before[0] * math.prod(padded), "padded inputs")
        out = layer.gives(before)
        if min(out) < 1:
            raise ModelError(f"{where}: its kernel is larger than its input {list(before)}")
        _bounded(where, math.prod(layer.weight_shape(before)), "weights")
        _bounded(where, math.prod(out), "neurons")
        return out

    def scaled(self, width: float) -> Model:
        """The model with so many times the channels and features, at least one; the classes stay.

        Raises
        ------
        ModelError
            A width that is not above 0, or with which groups or shapes no longer fit.
        """
        if not 0 < width < math.inf:
            raise ModelError(f"width is {width}: must be above 0")

        def wide(number: int, groups: int) -> int:
            return groups * max(1, round(number * width / groups))

        layers = tuple(layer.scaled(wide) for layer in self.layers[:-1])
        model = self.model_copy(update={"name": f"{self.name} x {width:g}", "layers": (*layers, self.layers[-1])})
        model.parts()
        return model


def sends_spikes(layer: AnyLayer) -> bool:
    """Whether a layer sends spikes, or sums of them; else it passes a current on."""
    return isinstance(layer, Pool | Add | Average) or layer.neuron


class Part(NamedTuple):
    """A layer in its model."""

    layer: AnyLayer
    name: str
    inputs: tuple[str, ...]
    before: Shape
    shape: Shape


def _bounded(where: str, number: int, what: str) -> None:
    if number > LARGEST_LAYER:
        raise ModelError(f"{where}: {number:,} {what}; at most {LARGEST_LAYER:,}")


def describe(model: Model) -> str:
    """Its layers as a table for people: shapes and trained weights."""
    parts = model.parts()
    chain = all(part.inputs == (before,) for part, before in zip(parts, [INPUT, *model.names], strict=False))
    rows = [["layer", "type", *([] if chain else ["name", "input"]), "gives", "weights"]]
    for number, (part, count) in enumerate(zip(parts, model.layer_weights(), strict=True), 1):
        gives, linked = "x".join(map(str, part.shape)), [part.name, ", ".join(part.inputs)]
        rows.append([str(number), part.layer.type, *([] if chain else linked), gives, f"{count:,}" if count else ""])
    neuron = ", ".join(f"{name} {value}" for name, value in model.neuron.model_dump().items())
    head = f"{model.name}: input {'x'.join(map(str, model.input))}, {model.weights:,} weights, readout {model.readout}"
    return "\n".join([head, *table(rows, left=2 if chain else 4), f"neurons: {neuron}"])


def _one_line(error: pydantic.ValidationError, source: str) -> ModelError:
    first = error.errors()[0]
    parts: dict[Any, type[_Part]] = {part.model_fields["type"].default: part for part in get_args(AnyLayer)}
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
