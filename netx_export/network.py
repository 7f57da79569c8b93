"""The integer network description: a graph of layers in a chip's own integers.

Exporter, NetX reader and writer, simulators and hardware checks all share it. It knows no file format,
no training framework and no simulator.

Neurons are a family, `AnyNeuron`; those of a network are of one kind. `Neuron`, which sends spikes, follows, per time
step, with integers and truncation toward zero (Loihi's CUBA neuron; lava-nc ``fixed_pt`` models)::

    u <- trunc(u * (4096 - current_decay) / 4096) + 64 * (weight @ input)    wraps at 24 bits
    v <- trunc(v * (4096 - voltage_decay) / 4096) + u + bias * 2**bias_exponent    saturates at +-(2**23 - 1)
    spike where v > threshold * 64, strictly; there v <- 0

What a layer emits in a step reaches the layers it feeds in the same step, whatever the way. A delay of d steps makes an
input arrive d steps later; recurrent input is what the layer itself emitted one step before, or, delayed, d + 1 steps
before. A layer without neurons passes its sums on.

`SigmaDelta` and `Sigma` send values, and the rule of theirs stands with them. Sums into them are cut to 24 bits by a
`Conv`, as Lava's process does; no other sum may leave 32 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, TypeVar

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


MESSAGE_BITS = 16
"""Bits with sign of a sigma-delta neuron's message, which lava-dl's loader asks of the chip."""


class NetworkError(UserError):
    """A network, or a file that should hold one, is not what it must be. One clear line."""


class AnyNeuron:
    """The neurons of one layer, of any kind: what all who record, answer or count need to know of them."""

    kind: ClassVar[str]
    """What messages call them."""
    states: ClassVar[tuple[str, ...]]
    """States that can be recorded, by the names that Lava's process models give them; 32-bit integers."""
    answer: ClassVar[str]
    """The state that the readout ``"voltage"`` takes after the last time step."""
    graded: ClassVar[bool]
    """Whether they send any value instead of 0 and 1."""
    threshold: int | np.ndarray
    bias: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Neuron(AnyNeuron):
    """The CUBA neurons of one layer; the rule stands at the top of this module.

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

    kind: ClassVar[str] = "CUBA"
    states: ClassVar[tuple[str, ...]] = ("u", "v")
    answer: ClassVar[str] = "v"
    graded: ClassVar[bool] = False

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


@dataclass(frozen=True, eq=False)
class SigmaDelta(AnyNeuron):
    """The sigma-delta neurons of one layer, which send what has changed, as values.

    Parameters
    ----------
    threshold : int
        Changes below it are kept back. In units of 2 ** (spike_exponent + state_exponent) of the states.
    bias : numpy.ndarray, optional
        Integers in that unit; one a channel, (C,), or one a neuron, (C, H, W) or (F,).
    spike_exponent, state_exponent : int
        Bits behind the point of messages, and more of them in states. lava-dl's loader always gives 6 and 6.

    Notes
    -----
    Per time step, in integers of 32 bits that wrap (`PySigmaDeltaModelFixed` of lava-nc 0.10.0)::

        sigma   <- sigma + weight @ input
        value    = max(sigma + bias * 2**(spike_exponent + state_exponent), 0)
        delta    = value - act + residue
        sent     = delta where |delta| >= threshold * 2**(spike_exponent + state_exponent), else 0
        residue <- delta - sent;  act <- value
        message  = sent >> state_exponent

    A message of 0 is none. All states start from 0, as every sample does. On the chip states have 24 bits and messages,
    as lava-dl's loader asks for them, `MESSAGE_BITS`; Lava's model holds more, and `netx_export.limits` counts it.
    """

    kind: ClassVar[str] = "sigma-delta"
    states: ClassVar[tuple[str, ...]] = ("sigma", "act", "residue")
    answer: ClassVar[str] = "act"
    graded: ClassVar[bool] = True

    threshold: int = 0
    bias: np.ndarray | None = None
    spike_exponent: int = STATE_SHIFT
    state_exponent: int = STATE_SHIFT

    @property
    def shift(self) -> int:
        """Bits by which threshold and bias are shifted into the unit of the states."""
        return self.spike_exponent + self.state_exponent


@dataclass(frozen=True, eq=False)
class Sigma(AnyNeuron):
    """Neurons that add up what comes, and send the sum in every time step: what sigma-delta networks end with.

    ``sigma <- sigma + weight @ input`` in 32 bits that wrap, and sigma is the message (`PySigmaModelFixed` of lava-nc).
    They have neither threshold nor bias.
    """

    kind: ClassVar[str] = "sigma"
    states: ClassVar[tuple[str, ...]] = ("sigma",)
    answer: ClassVar[str] = "sigma"
    graded: ClassVar[bool] = True

    threshold: int = field(default=0, init=False)
    bias: None = field(default=None, init=False)


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
    neuron: AnyNeuron | None = None
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
        for what, array in () if self.neuron is None else vars(self.neuron).items():
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


class Window(NamedTuple):
    """What an input of a `Windowed` layer meets."""

    weight: np.ndarray
    """(Out channels, in channels / groups, kernel height, width)."""
    dilation: tuple[int, int]
    groups: int


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Windowed(Layer):
    """From maps to maps: an input reaches the outputs in a window, each through another tap of a kernel.

    Simulators and chips build their tables from `window` and `taps` alone. Pairs are (height, width).
    """

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._expect_maps()
        out, fan, *kernel = _integers(self, "weight", self.window.weight, 4).shape
        dilation, groups = self.window.dilation, self.window.groups
        if min(*self.stride, *dilation, *kernel) < 1 or min(self.padding) < 0 or groups < 1:
            raise self._error("kernel, stride, dilation and groups must be at least 1, padding at least 0")
        if self.in_shape[0] % groups or out % groups or fan * groups != self.in_shape[0]:
            raise self._error(
                f"weights for {out} output and {fan} x {groups} groups input channels "
                f"do not fit {self.in_shape[0]} input channels"
            )
        self._expect_shape(self._gives(self.in_shape, out, kernel, self.stride, self.padding, dilation))

    @property
    def window(self) -> Window:
        """Kernel, dilation and groups."""
        raise NotImplementedError

    @staticmethod
    def _gives(in_shape: Sequence[int], channels: int, *geometry: Sequence[int]) -> Shape:
        return conv_shape(in_shape, channels, *geometry)

    def taps(self, axis: int) -> np.ndarray:
        """The output that each input reaches through each tap of the kernel, along rows (0) or columns (1).

        Returns
        -------
        numpy.ndarray
            (inputs, kernel), -1 where it reaches none. Inputs in order reach outputs in order.
        """
        at = np.arange(self.in_shape[1 + axis])[:, None]
        target, rest = np.divmod(at + self.padding[axis] - self._offsets(axis), self.stride[axis])
        return np.where((rest == 0) & (target >= 0) & (target < self.shape[1 + axis]), target, -1)

    def _offsets(self, axis: int) -> np.ndarray:
        """How far the taps of the kernel are from its first."""
        return self.window.dilation[axis] * np.arange(self.window.weight.shape[2 + axis])


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Weighted(Windowed):
    """Windowed, with weights (out channels, in channels / groups, kernel height, width)."""

    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def window(self) -> Window:
        """Kernel, dilation and groups."""
        return Window(_integers(self, "weight", self.weight, 4), self.dilation, self.groups)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Conv(Weighted):
    """Convolution; weight (out channels, in channels / groups, kernel height, width); pairs are (height, width)."""

    kind: ClassVar[str] = "conv"


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ConvT(Weighted):
    """Transposed convolution: an input reaches the outputs from its position times the stride on, padding cut off.

    Its weights lie as those of `Conv`, outputs first. Lava has no process that computes it.
    """

    kind: ClassVar[str] = "convT"

    @staticmethod
    def _gives(in_shape: Sequence[int], channels: int, *geometry: Sequence[int]) -> Shape:
        return transposed_shape(in_shape, channels, *geometry)

    def taps(self, axis: int) -> np.ndarray:
        """As `Windowed.taps`."""
        at = self.stride[axis] * np.arange(self.in_shape[1 + axis])[:, None]
        target = at - self.padding[axis] + self._offsets(axis)
        return np.where((target >= 0) & (target < self.shape[1 + axis]), target, -1)


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
class Pool(Windowed):
    """Sum pool without a neuron: what comes in leaves in the same time step."""

    kind: ClassVar[str] = "pool"
    may_spike: ClassVar[bool] = False

    kernel: tuple[int, int] = (2, 2)
    stride: tuple[int, int] = (2, 2)

    def __post_init__(self) -> None:
        if min(self.kernel + self.stride) < 1:
            raise self._error("kernel and stride must be at least 1")
        super().__post_init__()

    @property
    def window(self) -> Window:
        """A kernel of ones for every channel."""
        channels = self.in_shape[0]
        return Window(np.broadcast_to(np.int32(1), (channels, 1, *self.kernel)), (1, 1), channels)


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


KINDS: dict[str, type[Layer]] = {cls.kind: cls for cls in (Conv, ConvT, Dense, Pool, Flatten, Average, Add)}
"""Every kind of layer, by the name that files and messages give it."""


@dataclass(frozen=True, eq=False)
class Encoder:
    """Neurons before the first layer, which make spikes or messages of values.

    The values are the biases of CUBA neurons in every time step. Of `SigmaDelta` neurons, which have no bias here and
    no ReLU, they are what is to be sent: times 2 ** (spike_exponent + state_exponent) they take the place of ``value``
    (`PyDeltaModelFixed` of lava-nc).

    Parameters
    ----------
    neuron : Neuron or SigmaDelta
    shape : tuple of int
    number : int
        Number of the group in the file.
    """

    neuron: Neuron | SigmaDelta
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
        ``"count"``: the answer is the spike count of the last layer's neurons over the time steps; of sigma-delta
        neurons the sum of their messages. ``"voltage"``: it is their membrane voltage after the last time step, where
        their threshold is never passed; of other kinds the state they `answer` with.
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
        self._check_neurons()
        for one, before in zip(self.tail, self.layers[-len(self.tail) - 1 :], strict=False):
            if self.readout == "voltage" and self.spiking and (one.inputs != (before.name,) or one.weight is not None):
                wrong = "has weights" if one.weight is not None else "takes something else too"
                raise NetworkError(
                    f"{self.source}: a voltage readout is that of one layer with neurons, and {one.name}, behind "
                    f"{self.spiking[-1].name}, {wrong}"
                )

    def _check_names(self) -> None:
        names = {INPUT}
        for layer in self.layers:
            if layer.name in names:
                raise NetworkError(f"{self.source}: two layers are called {layer.name!r}; give each a name of its own")
            names.add(layer.name)

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
                    known = name in self._by_name
                    wrong = "stands behind it" if known else "is no layer"
                    raise NetworkError(f"{where}: its input {name!r} {wrong}; inputs stand before their users")
                if shapes.setdefault(name, layer.in_shape) != layer.in_shape:
                    what = "the input" if name == INPUT else f"layer {name} before it"
                    raise NetworkError(f"{where} takes {layer.in_shape}, but {what} gives {shapes[name]}")
            shapes[layer.name] = layer.shape
        for layer in self.layers[:-1]:
            if not self.users(layer.name):
                raise NetworkError(f"{self.source}: layer {layer.name} feeds nothing; only the last layer may")

    def _check_neurons(self) -> None:
        """Spikes and values do not mix, and values know neither delays nor recurrence."""
        for layer in self.layers if self.graded else ():
            wrong = ""
            if layer.neuron is not None and not layer.neuron.graded:
                wrong = "has spiking neurons, and others are sigma-delta: give all the same kind"
            elif isinstance(layer, Dense) and layer.recurrent is not None:
                wrong = "has recurrent weights, which sigma-delta neurons do not run with: remove them"
            elif isinstance(layer, Dense) and layer.delay is not None and np.any(layer.delay):
                wrong = "has delays, which sigma-delta neurons do not run with: remove them"
            elif self.reset != "zero":
                wrong = f"has sigma-delta neurons, which know no reset by {self.reset!r}"
            if wrong:
                raise NetworkError(f"{self.source}: layer {layer.name}: {wrong}")
        if self.encoder is not None and self.spiking and self.encoder.neuron.graded != self.graded:
            kinds = ("spiking", "sigma-delta")
            one, other = kinds[self.encoder.neuron.graded], kinds[self.graded]
            raise NetworkError(f"{self.source}: input neurons are {one}, and the others {other}: give all one kind")

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
    def graded(self) -> bool:
        """Whether its neurons send values instead of spikes."""
        return any(layer.neuron is not None and layer.neuron.graded for layer in self.layers)

    @property
    def states(self) -> tuple[str, ...]:
        """What can be recorded of its neurons besides what they send."""
        kinds = [layer.neuron for layer in self.layers if layer.neuron is not None]
        return tuple(dict.fromkeys(name for neuron in kinds for name in neuron.states))

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


def transposed_shape(
    in_shape: Sequence[int],
    channels: int,
    kernel: Sequence[int],
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
) -> Shape:
    """Shape (C, H, W) that a transposed convolution makes of (C, H, W); pairs are (height, width)."""
    size = [
        (n - 1) * s - 2 * p + d * (k - 1) + 1
        for n, k, s, p, d in zip(in_shape[1:], kernel, stride, padding, dilation, strict=True)
    ]
    return (channels, *size)


def channels_fastest(shape: Shape) -> np.ndarray:
    """For each index into (H, W, C), which the simulators count neurons by, the index into (C, H, W)."""
    order = np.arange(np.prod(shape))
    return order if len(shape) == 1 else np.ascontiguousarray(order.reshape(shape).transpose(1, 2, 0)).ravel()
