"""Networks of others as a graph of simple parts, and what our models make of it.

Whatever the source (modules of PyTorch, sinabs, snnTorch, SLAYER; nodes of NIR; our own integers), it becomes `Node`s
first. `assemble` makes a model and floating-point weights of these, with thresholds of 1, or refuses by the node's
name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from mtt_lava.model import Model, load_model
from netx_export.network import DECAY_UNITY, INPUT, Shape, conv_shape
from netx_export.text import UserError

Pair = tuple[int, int]


class ImportedError(UserError):
    """A network of others that cannot become one of ours, or not as it is. One clear line."""


@dataclass(frozen=True)
class Weights:
    """A convolution (outputs, inputs / groups, height, width), or a matrix (outputs, inputs), without neurons.

    With 0 groups one kernel (1, 1, height, width) is that of every channel.
    """

    weight: np.ndarray
    bias: np.ndarray | None = None
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1


@dataclass(frozen=True)
class Norm:
    """A factor and an offset a channel, as batch norms have them in evaluation."""

    gain: np.ndarray
    offset: np.ndarray


@dataclass(frozen=True)
class Pool:
    """A pool: ``sum``, ``average``, ``max``, which of spikes is one where any came in, or ``any``, which is that."""

    kind: str
    kernel: Pair
    stride: Pair


@dataclass(frozen=True)
class Flatten:
    """(C, H, W) as (F,), channels slowest."""


@dataclass(frozen=True)
class Relu:
    """The activation of an ANN, to be replaced by neurons."""


@dataclass(frozen=True)
class Cells:
    """Spiking neurons.

    Parameters
    ----------
    threshold : numpy.ndarray or float
        In units of the weights; one for all, one a channel or one a neuron.
    current_decay, voltage_decay : float
        What a time step takes of the current and of the voltage, 0..1.
    reset : {"zero", "subtract"}
    gain : numpy.ndarray or float
        What the neurons multiply their input with.
    back : numpy.ndarray, optional
        Weights (neurons, neurons) by which they feed themselves one time step later.
    spiking : bool
        Else they integrate, and their voltage is the answer.
    differs : tuple of str
        What ours do otherwise.
    """

    threshold: np.ndarray | float = 1.0
    current_decay: float = 1.0
    voltage_decay: float = 0.0
    reset: str = "zero"
    gain: np.ndarray | float = 1.0
    back: np.ndarray | None = None
    spiking: bool = True
    differs: tuple[str, ...] = ()


AnyPart = Weights | Norm | Pool | Flatten | Relu | Cells


class Node(NamedTuple):
    """A part, what messages call it, and the names of what comes in."""

    name: str
    part: AnyPart
    inputs: tuple[str, ...]


@dataclass
class Tensors:
    """Trained values of a layer of a model: the threshold is 1.

    Attributes
    ----------
    weight : numpy.ndarray
        As `mtt_lava.model.Model` has its shape.
    bias : numpy.ndarray or None
        Added to the current in every time step, one an output.
    back : numpy.ndarray or None
        Recurrent weights.
    whole : float or None
        With this factor weights and biases are integers, and so is the threshold: they are those of a chip already.
    """

    weight: np.ndarray
    bias: np.ndarray | None = None
    back: np.ndarray | None = None
    whole: float | None = None


@dataclass
class Imported:
    """A model, and the values of its layers.

    Attributes
    ----------
    model : Model
    tensors : dict of str to Tensors
        Of the layers with weights, by name.
    reset : {"zero", "subtract"} or None
        Of its neurons; None where it has none: an ANN.
    maxima : tuple of str
        Pools that tell whether any spike came in; the others sum.
    differs : list of str
        What our network does otherwise, a line each.
    notes : list of str
        What became what.
    profile : str or None
        Hardware profile that the source names.
    """

    model: Model
    tensors: dict[str, Tensors]
    source: str
    reset: str | None = None
    maxima: tuple[str, ...] = ()
    differs: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    profile: str | None = None


@dataclass(frozen=True)
class _Value:
    """What a node gives: the output of a layer, times a factor; ``bare`` while it has no neurons."""

    layer: str
    shape: Shape
    factor: float = 1.0
    bare: bool = False


class _Assembly:
    def __init__(self, nodes: Sequence[Node], shape: Shape, source: str) -> None:
        self.source = source
        self.values = {INPUT: _Value(INPUT, shape)}
        self.users = Counter(name for node in nodes for name in node.inputs)
        self.layers: list[dict[str, Any]] = []
        self.names: list[str] = []
        self.of: dict[str, str] = {}
        self.tensors: dict[str, Tensors] = {}
        self.cells: tuple[str, Cells | Relu] | None = None
        self.maxima: list[str] = []
        self.differs: list[str] = []
        self.notes: list[str] = []
        self.taken = {each for each in (_called(node.name) for node in nodes) if each is not None}

    # -------------------------------------------------------------------------------------------- layers

    def layer(self, node: str, kind: str, inputs: Sequence[str], **fields: Any) -> str:
        """Add a layer of the model; its name."""
        default = f"{kind}{1 + sum(layer['type'] == kind for layer in self.layers)}"
        own = _called(node)
        name = own if own is not None and own not in self.names else default
        while name in self.names or (name in self.taken and name != own):
            name = f"{default}.{len(self.layers) + 1}"
        # What a model says by itself is not written.
        layer: dict[str, Any] = {"type": kind} if name == default else {"name": name, "type": kind}
        if kind == "add":
            layer["inputs"] = list(inputs)
        elif inputs[0] != (self.names[-1] if self.names else INPUT):
            layer["input"] = inputs[0]
        self.layers.append(layer | fields)
        self.names.append(name)
        self.of[name] = node
        return name

    def fields(self, name: str) -> dict[str, Any]:
        return self.layers[self.names.index(name)]

    # -------------------------------------------------------------------------------------------- parts

    def take(self, node: Node) -> None:
        before = [self.values[name] for name in node.inputs]
        if not before:
            raise ImportedError("nothing feeds it")
        part = node.part
        if isinstance(part, Cells | Relu):
            self.values[node.name] = self.neurons(node, part, before)
            return
        value = before[0] if len(before) == 1 else self.sum(node, before)
        alone = len(before) > 1 or self.users[node.inputs[0]] == 1
        if isinstance(part, Flatten):
            self.values[node.name] = replace(value, shape=(int(np.prod(value.shape)),))
        elif isinstance(part, Norm):
            self.values[node.name] = self.norm(part, value, alone)
        elif value.bare:
            raise ImportedError(
                f"comes behind {self.of[value.layer]}, which has weights and no neurons: put neurons between"
            )
        elif isinstance(part, Pool):
            self.values[node.name] = self.pool(node, part, value)
        else:
            self.values[node.name] = self.weights(node, part, value)

    def weights(self, node: Node, part: Weights, value: _Value) -> _Value:
        if part.groups == 0:
            part = replace(part, weight=np.repeat(part.weight, value.shape[0], axis=0), groups=value.shape[0])
        shape, weight = value.shape, part.weight * value.factor
        if weight.ndim == 2:
            if weight.shape[1] != np.prod(shape):
                raise ImportedError(f"takes {weight.shape[1]}, and {shape} comes in")
            if len(shape) == 3 and shape[1:] != (1, 1):
                raise ImportedError(f"takes the last axis of {shape}: put a Flatten before it")
        elif len(shape) != 3:
            raise ImportedError(f"takes (C, H, W), and {shape} comes in")
        elif weight.shape[1] * part.groups != shape[0]:
            raise ImportedError(f"takes {weight.shape[1] * part.groups} channels, and {shape[0]} come in")
        elif (part.groups, part.padding, weight.shape[2:]) == (1, (0, 0), shape[1:]):
            # Over all of its input: a matrix.
            weight = weight.reshape(len(weight), -1)
        bias = None if part.bias is None or not np.any(part.bias) else np.array(part.bias, np.float64)
        if weight.ndim == 2:
            out: Shape = (len(weight),)
            name = self.layer(node.name, "dense", [value.layer], features=len(weight), neuron=False)
        else:
            geometry = {key: getattr(part, key) for key in ("stride", "padding", "dilation")}
            out = conv_shape(shape, len(weight), weight.shape[2:], *geometry.values())
            if min(out) < 1:
                raise ImportedError(f"its kernel {weight.shape[2:]} is larger than its input {shape}")
            defaults = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
            said = {key: value for key, value in (geometry | {"groups": part.groups}).items() if value != defaults[key]}
            fields = {"channels": len(weight), "kernel": weight.shape[2:], **said}
            name = self.layer(node.name, "conv", [value.layer], **fields, neuron=False)
        self.tensors[name] = Tensors(weight, bias)
        return _Value(name, out, bare=True)

    def norm(self, part: Norm, value: _Value, alone: bool) -> _Value:
        if not value.bare or not alone or value.layer not in self.tensors:
            raise ImportedError("a norm is folded into the convolution or matrix right before it, and there is none")
        tensors = self.tensors[value.layer]
        if len(part.gain) != len(tensors.weight):
            raise ImportedError(f"has {len(part.gain)} channels, and {value.shape} comes in")
        bias = 0 if tensors.bias is None else tensors.bias
        bias = bias * part.gain + part.offset
        weight = tensors.weight * _rows(part.gain, tensors.weight)
        self.tensors[value.layer] = Tensors(weight, bias if np.any(bias) else None)
        return value

    def pool(self, node: Node, part: Pool, value: _Value) -> _Value:
        if len(value.shape) != 3:
            raise ImportedError(f"takes (C, H, W), and {value.shape} comes in")
        if part.kernel == part.stride == (1, 1):
            return value
        shape = conv_shape(value.shape, value.shape[0], part.kernel, part.stride)
        if min(shape) < 1:
            raise ImportedError(f"its kernel {part.kernel} is larger than its input {value.shape}")
        more = {} if part.stride == part.kernel else {"stride": part.stride}
        name = self.layer(node.name, "pool", [value.layer], kernel=part.kernel, **more)
        if part.kind in ("max", "any"):
            if part.kind == "max" and (isinstance(self.cells and self.cells[1], Relu) or value.layer == INPUT):
                raise ImportedError("takes the largest of values, and no layer here does: use an average pool")
            if part.kind == "max" and (value.factor != 1 or not self._spikes(value.layer)):
                raise ImportedError("takes the largest of sums, and no layer here does: use an average pool")
            self.maxima.append(name)
        factor = 1 / float(np.prod(part.kernel)) if part.kind == "average" else 1.0
        return _Value(name, shape, value.factor * factor)

    def _spikes(self, name: str) -> bool:
        """Whether a layer sends single spikes."""
        kind = self.fields(name)["type"]
        return kind in ("conv", "dense") or name in self.maxima or (kind == "add" and "neuron" not in self.fields(name))

    def sum(self, node: Node, values: list[_Value]) -> _Value:
        """The sum of what comes in, without neurons."""
        for value in values:
            if value.bare:
                raise ImportedError(
                    f"sums {self.of[value.layer]}, which has no neurons, and is none itself: put neurons behind the sum"
                )
        if len({value.shape for value in values}) > 1:
            raise ImportedError(f"sums different shapes: {', '.join(str(value.shape) for value in values)}")
        if len({value.factor for value in values}) > 1 or INPUT in {value.layer for value in values}:
            raise ImportedError("sums averages with spikes, or the input with spikes: put weights and neurons between")
        name = self.layer(f"{node.name}.sum", "add", [value.layer for value in values], neuron=False)
        return _Value(name, values[0].shape, values[0].factor)

    # -------------------------------------------------------------------------------------------- neurons

    def neurons(self, node: Node, part: Cells | Relu, before: list[_Value]) -> _Value:
        self._check_alike(node.name, part)
        if isinstance(part, Cells):
            self.differs += [f"{node.name}: {text}" for text in part.differs]
        threshold, gain = (part.threshold, part.gain) if isinstance(part, Cells) else (1.0, 1.0)
        factor = np.asarray(gain, np.float64) / np.asarray(threshold, np.float64)
        if not np.all(np.isfinite(factor)) or not np.all(factor > 0):
            raise ImportedError("threshold and gain must be above 0")
        back = part.back if isinstance(part, Cells) else None
        if len(before) > 1:
            return self._summing(node, part, factor, gain, threshold, before)
        value = before[0]
        if isinstance(part, Cells) and not part.spiking:
            if (part.current_decay, part.voltage_decay) != (1, 0):
                raise ImportedError("integrate with a leak, and do not spike: only those without a leak are an answer")
            if not value.bare:
                raise ImportedError("integrate, behind no weights of their own: put a matrix before them")
            self._scale(value, factor, self._whole(self.tensors[value.layer], gain, threshold, part))
            return value
        if not value.bare or self.users[node.inputs[0]] > 1:
            value = self._alone(node, value)
        whole = self._whole(self.tensors[value.layer], gain, threshold, part)
        self._scale(value, factor, whole)
        name = value.layer
        self.fields(name).pop("neuron")
        if back is not None:
            if self.fields(name)["type"] != "dense":
                raise ImportedError("feed themselves: only those behind a matrix may")
            self.fields(name)["recurrent"] = True
            of = factor if whole is None else np.asarray(1 / whole)
            self.tensors[name].back = np.asarray(back, np.float64) * _rows(np.broadcast_to(of, len(back)), back)
        return replace(value, bare=False)

    def _check_alike(self, name: str, part: Cells | Relu) -> None:
        """All neurons of a network are of one kind here."""
        if isinstance(part, Cells):
            for what in ("current_decay", "voltage_decay"):
                if not 0 <= getattr(part, what) <= 1:
                    raise ImportedError(f"{what} {getattr(part, what):g}: must be 0..1")
        if isinstance(part, Cells) and not part.spiking:
            return
        if self.cells is None:
            self.cells = name, part
            return
        other, first = self.cells
        if isinstance(part, Relu) or isinstance(first, Relu):
            if type(part) is not type(first):
                raise ImportedError(f"one of {name} and {other} spikes, and the other is a ReLU: use one kind")
            return
        for what in ("current_decay", "voltage_decay"):
            one, two = getattr(part, what), getattr(first, what)
            if round(one * DECAY_UNITY) != round(two * DECAY_UNITY):
                raise ImportedError(
                    f"{what} is {one:g}, and {two:g} in {other}: all neurons of a network leak alike here"
                )
        if part.reset != first.reset:
            raise ImportedError(f"resets to {part.reset}, and {other} to {first.reset}: a network has one reset here")

    def _alone(self, node: Node, value: _Value) -> _Value:
        """Neurons behind no weights of their own: a weight of 1 from each input, or a pool with them."""
        if value.bare:
            raise ImportedError(f"and other parts take what {self.of[value.layer]} gives: only its neurons may")
        if len(value.shape) == 1:
            weight = np.eye(value.shape[0]) * value.factor
            name = self.layer(node.name, "dense", [value.layer], features=len(weight), neuron=False)
        else:
            weight = np.full((value.shape[0], 1, 1, 1), value.factor)
            fields: dict[str, Any] = {"channels": len(weight), "kernel": (1, 1), "groups": len(weight)}
            name = self.layer(node.name, "conv", [value.layer], **fields, neuron=False)
        self.tensors[name] = Tensors(weight)
        self.notes.append(f"{node.name}: stands behind no weights: {name} has a weight for each")
        return _Value(name, value.shape, bare=True)

    def _summing(
        self, node: Node, part: Cells | Relu, factor: np.ndarray, gain: Any, threshold: Any, before: list[_Value]
    ) -> _Value:
        """Neurons that sum what several weights give."""
        if isinstance(part, Cells) and part.back is not None:
            raise ImportedError("feed themselves and sum several inputs: only those behind one matrix may")
        shapes = {value.shape for value in before}
        if len(shapes) > 1:
            raise ImportedError(f"sum different shapes: {', '.join(map(str, shapes))}")
        taken = []
        for source, value in zip(node.inputs, before, strict=True):
            if value.bare and self.users[source] > 1:
                raise ImportedError(f"and other parts take what {self.of[value.layer]} gives: only its neurons may")
            scaled = value
            if not value.bare and not (np.all(factor * value.factor == 1) and value.layer != INPUT):
                scaled = self._alone(node, value)
            taken.append(scaled)
        weighted = [value for value in taken if value.bare]
        if not weighted:
            raise ImportedError("sum spikes without weights: put a convolution or matrix before one of them")
        wholes = {self._whole(self.tensors[value.layer], gain, threshold, part) for value in weighted}
        for value in weighted:
            # Integers stay integers only where all are: the threshold is one.
            self._scale(value, factor, wholes.copy().pop() if len(wholes) == 1 else None)
        return _Value(self.layer(node.name, "add", [value.layer for value in taken]), before[0].shape)

    def _scale(self, value: _Value, factor: np.ndarray, whole: float | None) -> None:
        """Weights in units of the threshold; with `whole` of that integer."""
        tensors = self.tensors[value.layer]
        if whole is not None:
            factor = np.asarray(1 / whole)
        if factor.size > 1:
            of = np.broadcast_to(factor, value.shape) if factor.shape == value.shape else factor
            rows = of.reshape(len(tensors.weight), -1) if of.size % len(tensors.weight) == 0 else of.reshape(1, -1)
            if len(rows) != len(tensors.weight) or not (rows == rows[:, :1]).all():
                raise ImportedError(
                    f"threshold or gain of shape {factor.shape} differ from neuron to neuron of {value.shape}: one a "
                    f"channel is read"
                )
            factor = rows[:, 0]
        weight = tensors.weight * (_rows(factor, tensors.weight) if factor.ndim else factor)
        bias = None if tensors.bias is None else tensors.bias * factor
        self.tensors[value.layer] = Tensors(weight, bias, None, whole)

    @staticmethod
    def _whole(tensors: Tensors, gain: Any, threshold: Any, part: Cells | Relu) -> float | None:
        """The threshold as an integer, where weights and biases are integers too."""
        levels = np.unique(threshold)
        if not isinstance(part, Cells) or len(levels) > 1 or not np.all(np.asarray(gain) == 1):
            return None
        # States are integers: v > 2.5 is v > 2.
        level = float(np.floor(levels[0] * (1 + 1e-9))) if part.reset == "zero" else float(levels[0])
        values = [each for each in (tensors.weight, tensors.bias, part.back) if each is not None]
        integers = all(np.array_equal(each, np.rint(each)) for each in values)
        return level if integers and level >= 1 and level == round(level) else None

    # -------------------------------------------------------------------------------------------- end

    def end(self, output: str, name: str) -> Imported:
        value = self.values[output]
        if value.factor != 1 or not self.layers or (len(value.shape) == 3 and value.shape[1:] != (1, 1)):
            raise ImportedError("the last layer must be a matrix, with neurons or without: its outputs are the classes")
        readout = "count"
        if value.bare:
            readout = "voltage"
            self.fields(value.layer).pop("neuron")
        decays = {}
        if self.cells is not None and isinstance(self.cells[1], Cells):
            decays = {what: getattr(self.cells[1], what) for what in ("current_decay", "voltage_decay")}
            self._note_decays(decays)
        shape = self.values[INPUT].shape
        content = {"name": name, "input": list(shape), "readout": readout, "layers": self.layers, "neuron": decays}
        model = load_model(content)
        reset = self.cells[1].reset if self.cells is not None and isinstance(self.cells[1], Cells) else None
        return Imported(model, self.tensors, self.source, reset, tuple(self.maxima), self.differs, self.notes)

    def _note_decays(self, decays: dict[str, float]) -> None:
        """Leaks are those of the chip's arithmetic, whose rounding others do not have."""
        for what, value in decays.items():
            if abs(value - round(value * DECAY_UNITY) / DECAY_UNITY) > 1e-7:
                self.notes.append(f"{what} {value:.6g} is {round(value * DECAY_UNITY)} / {DECAY_UNITY} here")
        if 0 < decays["current_decay"] < 1:
            self.notes.append(f"currents, which decay, are truncated to a {DECAY_UNITY}th of the threshold")


def _called(node: str) -> str | None:
    """The name of a layer as its node has it; None where that is a mere number, or none for a model."""
    fits = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}", node) and re.search("[A-Za-z]", node)
    return node if fits and node != INPUT else None


def _rows(factor: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """One factor an output, to be multiplied with weights."""
    return np.asarray(factor).reshape(-1, *(1,) * (weight.ndim - 1))


def assemble(nodes: Sequence[Node], shape: Shape, source: str, name: str, output: str | None = None) -> Imported:
    """The model that nodes are, and its weights.

    Parameters
    ----------
    nodes : sequence of Node
        In an order in which inputs stand before their users; ``"input"`` is the network's.
    shape : tuple of int
        Of the input, (C, H, W) or (F,).
    source : str
        What messages start with.
    name : str
        Of the model.
    output : str, optional
        The node that answers; default: the last.

    Raises
    ------
    ImportedError
        The first node that our models cannot be, and why.
    """
    if not nodes:
        raise ImportedError(f"{source}: has no layers")
    made = _Assembly(nodes, shape, source)
    for node in nodes:
        try:
            made.take(node)
        except ImportedError as error:
            raise ImportedError(f"{source}: {node.name}: {error}") from None
    output = nodes[-1].name if output is None else output
    try:
        return made.end(output, name)
    except ImportedError as error:
        raise ImportedError(f"{source}: {output}: {error}") from None
