"""The integer network description: a graph of layers in a chip's own integers.

Exporter, NetX reader and writer, simulators and hardware checks all share it. It knows no file format,
no training framework and no simulator.

The neuron of every layer follows, per time step, with integers and truncation toward zero
(Loihi's CUBA neuron; lava-nc ``fixed_pt`` models)::

    u <- trunc(u * (4096 - current_decay) / 4096) + 64 * (weight @ input)    wraps at 24 bits
    v <- trunc(v * (4096 - voltage_decay) / 4096) + u + bias * 2**bias_exponent    saturates at +-(2**23 - 1)
    spike where v > threshold * 64, strictly; there v <- 0

What a layer emits in a step reaches the layers it feeds in the same step, whatever the way. A delay of d steps makes an
input arrive d steps later; recurrent input is what the layer itself emitted one step before, or, delayed, d + 1 steps
before. A layer without neurons passes its sums on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, TypeVar

import numpy as np

from netx_export.text import UserError

Shape = tuple[int, ...]
T = TypeVar("T")

INPUT = "input"
"""What layers call the input of the network."""

STATE_BITS = 24
"""Width of u and v."""
STATE_MAX = (1 << (STATE_BITS - 1)) - 1
"""Largest u and v that neither wraps nor saturates."""
STATE_SHIFT = 6
"""Synaptic input, threshold and (through its exponent) bias are shifted left by this much."""
DECAY_UNITY = 4096
"""A decay of this much forgets everything in one time step."""
THRESHOLD_MAX = (1 << 17) - 1
"""Largest threshold mantissa (17 bits)."""
BIAS_MIN, BIAS_MAX = -(1 << 12), (1 << 12) - 1
"""Bias mantissa, 13 bits signed."""
WEIGHT_MIN, WEIGHT_MAX = -256, 254
"""Eight bits with sign: even integers in this range."""
DELAY_MAX = 62
"""Longest synaptic delay in time steps (6 bits)."""


class NetworkError(UserError):
    """A network, or a file that should hold one, is not what it must be. One clear line."""


@dataclass(frozen=True, eq=False)
class Neuron:
    """The neurons of one layer.

    Parameters
    ----------
    threshold : int or numpy.ndarray
        Threshold mantissa; a neuron spikes when v > threshold * 64. Chips hold 0..131071; from 131072 on
        (lava-dl's readout layers) v cannot pass it, and below 0 a neuron at rest spikes.
    current_decay, voltage_decay : int or numpy.ndarray
        0 (nothing is forgotten) .. 4096 (everything is). Integrate-and-fire is (4096, 0).
    bias : numpy.ndarray, optional
        Integer mantissas, added in every time step.
    bias_exponent : int
        NetX always uses 6.
    added : bool
        Whether no file has these neurons: lava-dl puts them, which never spike, where a dense layer has none.

    Notes
    -----
    Arrays hold one integer a channel, (C,), or one a neuron, (C, H, W) or (F,).
    """

    threshold: int | np.ndarray
    current_decay: int | np.ndarray = DECAY_UNITY
    voltage_decay: int | np.ndarray = 0
    bias: np.ndarray | None = None
    bias_exponent: int = STATE_SHIFT
    added: bool = False

    def __repr__(self) -> str:
        values = {name: getattr(self, name) for name in ("threshold", "current_decay", "voltage_decay", "bias")}
        texts = (
            f"{name} {f'array {value.shape}' if isinstance(value, np.ndarray) else value}"
            for name, value in values.items()
        )
        return f"<Neuron: {', '.join(texts)}>"


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Layer:
    """What all layers have: a name, where their input comes from, and the shape of input and output, (C, H, W) or (F,).

    In a network names are unique: records, files, placements and messages call a layer by its name. ``inputs`` are the
    names of the layers whose output comes in, or ``"input"``. Left out, a name is the kind and its number among the
    layers of that kind, and the input the layer written before.

    Raises
    ------
    NetworkError
        If weights are not integers or the shapes do not fit together.
    """

    kind: ClassVar[str] = ""
    may_spike: ClassVar[bool] = True
    """Whether layers of this kind can have neurons."""

    in_shape: Shape
    shape: Shape
    name: str = ""
    inputs: tuple[str, ...] = ()
    neuron: Neuron | None = None
    weight: np.ndarray | None = None
    weight_scale: float | None = None
    """Integers a unit of trained weight, where known (weight = trained weight * weight_scale)."""
    u_measured: int | None = None
    """Largest |u| over the training data, where measured: before it would have wrapped."""
    v_measured: int | None = None
    """The same of v: before it would have saturated, or a spike reset it."""

    def __repr__(self) -> str:
        name = f" {self.name}" if self.name else ""
        neurons = "" if self.neuron is None else ", with neurons"
        return f"<{type(self).__name__}{name}: {self.in_shape} to {self.shape}, {self.weights:,} weights{neurons}>"

    @property
    def weights(self) -> int:
        """Number of stored weights."""
        return 0 if self.weight is None else int(self.weight.size)

    def __post_init__(self) -> None:
        if self.neuron is not None and not self.may_spike:
            raise self._error(f"a {self.kind} layer has no neurons: give them to a conv, dense or add layer behind it")
        for what, most in (("u_measured", self.u_measured), ("v_measured", self.v_measured)):
            if most is not None and (self.neuron is None or most < 0):
                raise self._error(f"{what} {most} is not the largest absolute state of neurons")
        for what, shape in (("input", self.in_shape), ("output", self.shape)):
            if len(shape) not in (1, 3) or min(shape) < 1:
                raise self._error(f"{what} shape {shape} is neither (C, H, W) nor (F,)")
        for what in () if self.neuron is None else ("threshold", "current_decay", "voltage_decay", "bias"):
            array = getattr(self.neuron, what)
            if isinstance(array, np.ndarray):
                _integers(self, what, array, None)
                if array.shape not in (self.shape, self.shape[:1]):
                    what = what.replace("_", " ")
                    raise self._error(
                        f"{what} of shape {array.shape} is not one a channel or one a neuron of {self.shape}"
                    )

    def _error(self, text: str) -> NetworkError:
        return NetworkError(f"layer {self.name or self.kind}: {text}")

    def _expect_shape(self, shape: Shape) -> None:
        if self.shape != shape:
            raise self._error(f"gives {shape}, not the shape {self.shape} it claims")

    def _expect_maps(self) -> None:
        if len(self.in_shape) != 3:
            raise self._error(f"takes (C, H, W), not {self.in_shape}")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Conv(Layer):
    """Convolution; weight (out channels, in channels / groups, kernel height, width); pairs are (height, width)."""

    kind: ClassVar[str] = "conv"

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._expect_maps()
        out, fan, *kernel = _integers(self, "weight", self.weight, 4).shape
        if min(self.stride + self.dilation) < 1 or min(self.padding) < 0 or self.groups < 1:
            raise self._error("stride, dilation and groups must be at least 1, padding at least 0")
        if self.in_shape[0] % self.groups or out % self.groups or fan * self.groups != self.in_shape[0]:
            raise self._error(
                f"weights for {out} output and {fan} x {self.groups} groups input channels "
                f"do not fit {self.in_shape[0]} input channels"
            )
        self._expect_shape(conv_shape(self.in_shape, out, kernel, self.stride, self.padding, self.dilation))


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Dense(Layer):
    """Fully connected; weight and delay (in time steps) (outputs, inputs), recurrent ones (outputs, outputs)."""

    kind: ClassVar[str] = "dense"

    recurrent: np.ndarray | None = None
    delay: np.ndarray | None = None
    recurrent_delay: np.ndarray | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.in_shape) != 1:
            raise self._error(f"takes a flat input, not {self.in_shape}: put a flatten layer before it")
        outputs, inputs = _integers(self, "weight", self.weight, 2).shape
        if inputs != self.in_shape[0]:
            raise self._error(f"weights for {inputs} inputs do not fit an input of {self.in_shape[0]}")
        self._expect_shape((outputs,))
        if self.recurrent is not None and _integers(self, "recurrent", self.recurrent, 2).shape != (outputs, outputs):
            raise self._error(f"recurrent weights of shape {self.recurrent.shape} are not {(outputs, outputs)}")
        if self.recurrent is not None and self.neuron is None:
            raise self._error("has recurrent weights, but no neurons whose spikes could come back")
        if self.recurrent_delay is not None and self.recurrent is None:
            raise self._error("has recurrent delays, but no recurrent weights")
        for what, delay, weight in (
            ("delay", self.delay, self.weight),
            ("recurrent delay", self.recurrent_delay, self.recurrent),
        ):
            if delay is None or weight is None:
                continue
            if _integers(self, what, delay, 2).shape != weight.shape:
                raise self._error(f"{what}s of shape {delay.shape} are not {weight.shape}")
            if delay.min() < 0:
                raise self._error(f"{what} {delay.min()} is negative")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Pool(Layer):
    """Sum pool without a neuron: what comes in leaves in the same time step."""

    kind: ClassVar[str] = "pool"
    may_spike: ClassVar[bool] = False

    kernel: tuple[int, int] = (2, 2)
    stride: tuple[int, int] = (2, 2)
    padding: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._expect_maps()
        if min(self.kernel + self.stride) < 1 or min(self.padding) < 0:
            raise self._error("kernel and stride must be at least 1, padding at least 0")
        self._expect_shape(conv_shape(self.in_shape, self.in_shape[0], self.kernel, self.stride, self.padding))


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Flatten(Layer):
    """(C, H, W) to (C*H*W,), channels slowest."""

    kind: ClassVar[str] = "flatten"
    may_spike: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._expect_shape((int(np.prod(self.in_shape)),))


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Average(Layer):
    """Mean over groups of neighbouring inputs, channels slowest, without a neuron; kept in integers as their sum."""

    kind: ClassVar[str] = "average"
    may_spike: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        size = int(np.prod(self.in_shape))
        if len(self.shape) != 1 or size % self.shape[0]:
            raise self._error(f"cannot average {size} inputs into {self.shape}: give a number that divides them")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Add(Layer):
    """Sum of several inputs of one shape, the only layer with more than one; what comes in, it takes 1 : 1.

    With neurons it is a residual sum of currents: its inputs are layers without neurons (on Loihi several synapses into
    one neuron), all in the same unit. Without neurons it is a sum of spikes, which the next layer weights.
    """

    kind: ClassVar[str] = "add"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._expect_shape(self.in_shape)


@dataclass(frozen=True, eq=False)
class Encoder:
    """Neurons before the first layer, which make spikes of values: the values are their biases in every time step.

    Parameters
    ----------
    neuron : Neuron
    shape : tuple of int
    number : int
        Number of the group in the file.
    """

    neuron: Neuron
    shape: Shape
    number: int = 0

    def __repr__(self) -> str:
        return f"<Encoder {self.shape}>"


@dataclass(frozen=True, eq=False)
class Network:
    """A graph of layers and what is known of its origin.

    Parameters
    ----------
    layers : sequence of Layer
        In an order in which every input stands before its users; the last gives the answer, and every other layer
        feeds another. A layer's ``in_shape`` is the shape of each of its inputs. In the network names and inputs are
        filled in where they were left out.
    readout : str
        ``"count"``: the answer is the spike count of the last layer's neurons over the time steps.
        ``"voltage"``: it is their membrane voltage after the last time step; their threshold is never passed.
    reset : str
        What a spike does to v: ``"zero"`` (Loihi's CUBA neuron, all of NetX), or ``"subtract"``: v loses its threshold
        and never falls below the negative threshold; only event-driven chips do so.
    info : dict
        Where it comes from: model, profile, time_steps, ... (JSON values only).
    source : str
        What to call it in messages (a file name).
    groups : tuple of int
        Number of each layer's group in the file, by default 1, 2, ...: files that we write state the shape of their
        input in group 0.
    encoder : Encoder, optional
        Neurons that stand before the first layer in files of others. They run only where values are encoded; else the
        input is the spikes that enter the first layer.

    Raises
    ------
    NetworkError
        Names that are not unique, inputs that are not there, that do not stand before their users or do not fit.
    """

    layers: tuple[Layer, ...]
    readout: str = "count"
    reset: str = "zero"
    info: dict[str, Any] = field(default_factory=dict)
    source: str = "network"
    groups: tuple[int, ...] = ()
    encoder: Encoder | None = None

    def __post_init__(self) -> None:
        if not self.layers:
            raise NetworkError(f"{self.source}: has no layers")
        if self.readout not in ("count", "voltage"):
            raise NetworkError(f"{self.source}: readout {self.readout!r} is neither 'count' nor 'voltage'")
        if self.reset not in ("zero", "subtract"):
            raise NetworkError(f"{self.source}: reset {self.reset!r} is neither 'zero' nor 'subtract'")
        if len(self.groups) not in (0, len(self.layers)):
            raise NetworkError(f"{self.source}: {len(self.groups)} numbers of groups for {len(self.layers)} layers")
        object.__setattr__(self, "layers", tuple(_linked(self.layers)))
        self._check_names()
        self._check_inputs()
        behind = zip(self.tail, self.layers[-len(self.tail) - 1 :], strict=False)
        if self.readout == "voltage" and self.spiking and any(one.inputs != (before.name,) for one, before in behind):
            raise NetworkError(
                f"{self.source}: a voltage readout is that of one layer with neurons, and what stands behind "
                f"{self.spiking[-1].name} takes something else too"
            )

    def _check_names(self) -> None:
        names = [INPUT]
        for layer in self.layers:
            if layer.name in names:
                raise NetworkError(f"{self.source}: two layers are called {layer.name!r}; give each a name of its own")
            names.append(layer.name)

    def _check_inputs(self) -> None:
        shapes: dict[str, Shape] = {}
        for layer in self.layers:
            where = f"{self.source}: layer {layer.name}"
            if len(set(layer.inputs)) != len(layer.inputs) or (len(layer.inputs) > 1) != isinstance(layer, Add):
                raise NetworkError(
                    f"{where}: has the inputs {', '.join(layer.inputs)}; an add takes two or more different ones, a "
                    f"layer of another kind one"
                )
            for name in layer.inputs:
                if name not in shapes and name != INPUT:
                    known = name in (other.name for other in self.layers)
                    wrong = "stands behind it" if known else "is no layer"
                    raise NetworkError(f"{where}: its input {name!r} {wrong}; inputs stand before their users")
                if shapes.setdefault(name, layer.in_shape) != layer.in_shape:
                    what = "the input" if name == INPUT else f"layer {name} before it"
                    raise NetworkError(f"{where} takes {layer.in_shape}, but {what} gives {shapes[name]}")
            shapes[layer.name] = layer.shape
        for layer in self.layers[:-1]:
            if not self.users(layer.name):
                raise NetworkError(f"{self.source}: layer {layer.name} feeds nothing; only the last layer may")

    @property
    def in_shape(self) -> Shape:
        """Shape of the input, (C, H, W) or (F,)."""
        return self.layers[0].in_shape

    @property
    def shape(self) -> Shape:
        """Shape of the output, (C, H, W) or (F,)."""
        return self.layers[-1].shape

    @property
    def spiking(self) -> tuple[Layer, ...]:
        """The layers that have neurons, in order."""
        return tuple(layer for layer in self.layers if layer.neuron is not None)

    @property
    def tail(self) -> tuple[Layer, ...]:
        """The layers behind the last one with neurons."""
        last = max((i for i, layer in enumerate(self.layers) if layer.neuron is not None), default=-1)
        return self.layers[last + 1 :]

    @property
    def numbers(self) -> tuple[int, ...]:
        """The number of each layer's group in the file."""
        return self.groups or tuple(range(1, len(self.layers) + 1))

    @property
    def is_chain(self) -> bool:
        """Whether every layer's only input is the layer written before."""
        names = [INPUT, *(layer.name for layer in self.layers)]
        return all(layer.inputs == (before,) for layer, before in zip(self.layers, names, strict=False))

    def __repr__(self) -> str:
        weights = sum(layer.weights for layer in self.layers)
        what = f"{len(self.layers)} layers, {self.in_shape} to {self.shape}, {weights:,} weights"
        return f"<Network {self.source}: {what}, readout {self.readout}>"

    def rows(self) -> list[dict[str, Any]]:
        """One a layer, for a table (``pandas.DataFrame(network.rows())``); layers are counted from 1."""
        return [
            {
                "layer": number,
                "name": layer.name,
                "kind": layer.kind,
                "shape": list(layer.shape),
                "weights": layer.weights,
                "neurons": 0 if layer.neuron is None else int(np.prod(layer.shape)),
                "group": f"layer/{group}",
            }
            for number, (layer, group) in enumerate(zip(self.layers, self.numbers, strict=True), 1)
        ]

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def __getitem__(self, name: str) -> Layer:
        """The layer of that name."""
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Layer]:
        return {layer.name: layer for layer in self.layers}

    @cached_property
    def _users(self) -> dict[str, tuple[Layer, ...]]:
        users: dict[str, list[Layer]] = {}
        for layer in self.layers:
            for name in layer.inputs:
                users.setdefault(name, []).append(layer)
        return {name: tuple(layers) for name, layers in users.items()}

    @cached_property
    def _depths(self) -> dict[str, int]:
        depths = {INPUT: 0}
        for layer in self.layers:
            depths[layer.name] = max(depths[name] for name in layer.inputs) + (layer.neuron is not None)
        return depths

    def users(self, name: str) -> tuple[Layer, ...]:
        """The layers that take what the layer of that name, or ``"input"``, gives; in order."""
        return self._users.get(name, ())

    def depth(self, name: str) -> int:
        """Layers with neurons on the longest way from the input to the layer of that name, it included.

        In Lava, where each answers one time step later, the step in which what comes in at step 0 leaves the layer.
        """
        return self._depths[name]

    def walk(self, start: T, step: Callable[[Layer, list[T]], T]) -> T:
        """Go through the layers in order.

        Parameters
        ----------
        start : T
            What the input of the network is.
        step : callable
            Makes of a layer, and of what its inputs gave, what the layer gives.

        Returns
        -------
        T
            What the last layer gives. What others gave is let go with their last user.
        """
        given = {INPUT: start}
        left = {name: len(users) for name, users in self._users.items()}
        for layer in self.layers:
            inputs = [given[name] for name in layer.inputs]
            for name in layer.inputs:
                left[name] -= 1
                if not left[name]:
                    del given[name]
            given[layer.name] = step(layer, inputs)
            del inputs
        return given[self.layers[-1].name]


def _linked(layers: Sequence[Layer]) -> Iterator[Layer]:
    """The layers, with the names and inputs that were left out."""
    taken = {layer.name for layer in layers}
    counts: dict[str, int] = {}
    before = INPUT
    for layer in layers:
        name = layer.name
        while not name or (not layer.name and name in taken):
            counts[layer.kind] = counts.get(layer.kind, 0) + 1
            name = f"{layer.kind}{counts[layer.kind]}"
        inputs = layer.inputs or (before,)
        filled = (name, inputs) == (layer.name, layer.inputs)
        yield layer if filled else replace(layer, name=name, inputs=inputs)
        before = name


def _integers(layer: Layer, field: str, array: np.ndarray | None, ndim: int | None) -> np.ndarray:
    if array is None:
        raise layer._error(f"has no {field}")
    if not np.issubdtype(array.dtype, np.integer):
        raise layer._error(f"{field} is {array.dtype}, not an integer array: quantise it first")
    if array.size == 0 or (ndim is not None and array.ndim != ndim):
        raise layer._error(f"{field} of shape {array.shape} is empty or not of rank {ndim}")
    return array


def conv_shape(
    in_shape: Sequence[int],
    channels: int,
    kernel: Sequence[int],
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
) -> Shape:
    """Shape (C, H, W) that a convolution or pool makes of (C, H, W); pairs are (height, width)."""
    size = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(in_shape[1:], kernel, stride, padding, dilation, strict=True)
    ]
    return (channels, *size)
