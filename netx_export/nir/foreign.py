"""NIR graphs of others (snnTorch, Norse, sinabs, SpikingJelly) as networks in integers, or refused by node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from netx_export.network import (
    DECAY_UNITY,
    INPUT,
    Add,
    Conv,
    Dense,
    Flatten,
    Layer,
    Network,
    NetworkError,
    Neuron,
    Pool,
    Shape,
    conv_shape,
)
from netx_export.nir.graph import Node
from netx_export.nir.values import decays, gain, integers, pair
from netx_export.quantise import weight_scale

NEURONS = ("IF", "LIF", "CubaLIF")
MATRICES = ("Linear", "Affine")
KNOWN = ("Input", "Output", "Conv2d", *MATRICES, "SumPool2d", "Flatten", *NEURONS)


@dataclass(frozen=True)
class How:
    """What a file of others does not say.

    Parameters
    ----------
    dt : float, optional
        Seconds a time step.
    reset : {"zero", "subtract"}, optional
        Where nodes have no v_reset.
    bits : int, optional
        Round floating-point weights to so many bits; by default they are refused.
    allow_inexact : bool
        Read decays that the network description truncates to integers.
    """

    dt: float | None = None
    reset: str | None = None
    bits: int | None = None
    allow_inexact: bool = False


@dataclass
class _Walk:
    """The layers so far."""

    nodes: dict[str, Node]
    sources: dict[str, list[str]]
    source: str
    how: How
    layers: dict[str, Layer] = field(default_factory=dict)
    gives: dict[str, str] = field(default_factory=dict)
    """Layer that a node belongs to."""
    shapes: dict[str, Shape] = field(default_factory=dict)
    scales: dict[str, float] = field(default_factory=dict)
    """Integers a unit of weight, of layers that have weights."""
    biases: dict[str, np.ndarray] = field(default_factory=dict)
    """What is added to a layer's sums, until it has neurons."""
    resets: set[str] = field(default_factory=set)
    changes: list[str] = field(default_factory=list)
    """What is read otherwise than it stands there."""


class Ordered(NamedTuple):
    """A graph that can be gone through.

    Attributes
    ----------
    nodes : dict
        Those of graphs in it too.
    sources : dict
        For every node the names of what feeds it, without feedback.
    order : list of str
        Inputs stand before their users; without feedback.
    feedback : dict
        Matrices that give neurons what these emitted, and those neurons.
    """

    nodes: dict[str, Node]
    sources: dict[str, list[str]]
    order: list[str]
    feedback: dict[str, str]


def ordered(nodes: dict[str, Node], edges: list[tuple[str, str]], source: str, known: Sequence[str]) -> Ordered:
    """The nodes of a graph in an order that runs.

    Raises
    ------
    NetworkError
        A node of no `known` type, no or several inputs or outputs, an edge from or to nowhere, a circle.
    """
    nodes, edges = _unfolded(nodes, edges)
    for name, node in nodes.items():
        if node["type"] not in known:
            raise NetworkError(
                f"{source}: node {name!r}: is a {node['type']}, which is not read; these are: {', '.join(known)}"
            )
    for kind in ("Input", "Output"):
        found = [name for name, node in nodes.items() if node["type"] == kind]
        if len(found) != 1:
            raise NetworkError(f"{source}: has {len(found)} {kind} nodes, and one is read")
    feedback = dict(_feedback(nodes, edges))
    sources: dict[str, list[str]] = {name: [] for name in nodes}
    for one, other in edges:
        if one not in nodes or other not in nodes:
            raise NetworkError(f"{source}: node/edges: {one!r} to {other!r}: there is no such node")
        if one not in feedback and other not in feedback:
            sources[other].append(one)
    return Ordered(nodes, sources, _order(sources, feedback, source), feedback)


def foreign(nodes: dict[str, Node], edges: list[tuple[str, str]], source: str, how: How) -> Network:
    """The network that nodes and edges are; ``info["imported"]`` says what is otherwise (`netx_export.nir.read`)."""
    found = ordered(nodes, edges, source, KNOWN)
    nodes, feedback = found.nodes, found.feedback
    walk = _Walk(nodes, found.sources, source, how)
    for name in found.order:
        try:
            _take(walk, name, feedback)
        except NetworkError as error:
            raise NetworkError(f"{source}: node {name!r}: {error}") from None
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise NetworkError(f"{source}: node {name!r}: its fields are not those of NIR ({error!r:.80})") from None
    for name in walk.biases:
        raise NetworkError(f"{source}: node {name!r}: has biases, and no neurons of its own: leave them out")
    for name, layer in list(walk.layers.items())[:-1]:
        if not any(name in other.inputs for other in walk.layers.values()):
            raise NetworkError(f"{source}: node {name!r}: feeds nothing, and {type(layer).__name__} is no output")
    if not walk.layers:
        raise NetworkError(f"{source}: has no layers between input and output")
    info = {"imported": walk.changes} if walk.changes else {}
    return Network(tuple(walk.layers.values()), reset=(walk.resets or {"zero"}).pop(), info=info, source=source)


def _unfolded(nodes: dict[str, Node], edges: list[tuple[str, str]]) -> tuple[dict[str, Node], list[tuple[str, str]]]:
    """The same without graphs in it (snnTorch writes one for neurons that feed themselves)."""
    flat: dict[str, Node] = {}
    for name, node in nodes.items():
        if node["type"] != "NIRGraph":
            flat[name] = node
            continue
        inside, links = _unfolded(node["nodes"], node["edges"])
        ends = {one: inner["type"] for one, inner in inside.items() if inner["type"] in ("Input", "Output")}
        flat |= {f"{name}.{one}": inner for one, inner in inside.items() if one not in ends}
        first = [f"{name}.{b}" for a, b in links if ends.get(a) == "Input"]
        last = [f"{name}.{a}" for a, b in links if ends.get(b) == "Output"]
        edges = [
            (one, other)
            for a, b in edges
            for one in (last if a == name else [a])
            for other in (first if b == name else [b])
        ]
        edges += [(f"{name}.{a}", f"{name}.{b}") for a, b in links if a not in ends and b not in ends]
    return flat, edges


def _feedback(nodes: dict[str, Node], edges: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Matrices that give neurons what these emitted, and those neurons."""
    for name, node in nodes.items():
        before, after = [a for a, b in edges if b == name], [b for a, b in edges if a == name]
        if node["type"] in MATRICES and before == after and len(before) == 1:
            yield name, before[0]


def _order(sources: dict[str, list[str]], feedback: dict[str, str], source: str) -> list[str]:
    """Nodes in an order in which inputs stand before their users; the output last."""
    left = {name: set(before) for name, before in sources.items() if name not in feedback}
    order: list[str] = []
    while left:
        ready = [name for name, before in left.items() if not before & left.keys()]
        if not ready:
            raise NetworkError(f"{source}: node {next(iter(left))!r}: is in a circle that is no Linear of its neurons")
        order += ready
        for name in ready:
            del left[name]
    return order


def _take(walk: _Walk, name: str, feedback: dict[str, str]) -> None:
    node, kind = walk.nodes[name], walk.nodes[name]["type"]
    if kind == "Input":
        walk.gives[name], walk.shapes[INPUT] = INPUT, tuple(np.asarray(node["shape"]).ravel().tolist())
        return
    before = [walk.gives[one] for one in walk.sources[name]]
    if not before:
        raise NetworkError("nothing feeds it")
    shape = walk.shapes[before[0]]
    for one in before:
        if walk.shapes[one] != shape:
            raise NetworkError(f"is fed {shape} by {before[0]} and {walk.shapes[one]} by {one}")
    if kind == "Output":
        if len(before) != 1:
            raise NetworkError("is fed by several nodes: put one before it")
        return
    if kind in NEURONS:
        layer = _with_neurons(walk, name, before, [one for one, of in feedback.items() if of == name])
    else:
        if len(before) > 1:
            total = Add(in_shape=shape, shape=shape, name=f"{name}.sum", inputs=tuple(before))
            walk.layers[total.name] = total
            before = [total.name]
        common: dict[str, Any] = {"name": name, "inputs": (before[0],), "in_shape": shape}
        layer = _layer(walk, name, common)
    walk.layers[layer.name] = layer
    walk.gives[name] = layer.name
    walk.shapes[layer.name] = layer.shape


def _layer(walk: _Walk, name: str, common: dict[str, Any]) -> Layer:
    """A layer without neurons."""
    node, shape = walk.nodes[name], common["in_shape"]
    kind = node["type"]
    if kind == "Flatten":
        start, end = (int(node[field]) for field in ("start_dim", "end_dim"))
        # Some count an axis of samples, which NIR has not.
        if len(shape) == 3 and (start not in (-3, 0, 1) or end not in (-1, 2, 3)):
            raise NetworkError(f"flattens axes {start} to {end} of {shape}: all, or those after the first, are read")
        return Flatten(shape=(int(np.prod(shape)),), **common)
    if kind in MATRICES:
        weight = np.asarray(node["weight"])
        if weight.ndim != 2 or (weight.shape[1],) != shape:
            raise NetworkError(f"weight of shape {weight.shape} does not fit an input of {shape}")
        return Dense(shape=weight.shape[:1], weight=_whole(walk, name), **common)
    if len(shape) != 3:
        raise NetworkError(f"takes (C, H, W), not {shape}")
    if isinstance(node["padding"], str):
        raise NetworkError(f"padding {node['padding']!r:.20}: only numbers are read")
    pairs: dict[str, Any] = {field: pair(node[field]) for field in ("stride", "padding")}
    if kind == "SumPool2d":
        kernel = pair(node["kernel_size"])
        return Pool(shape=conv_shape(shape, shape[0], kernel, *pairs.values()), kernel=kernel, **pairs, **common)
    weight, pairs["dilation"] = np.asarray(node["weight"]), pair(node["dilation"])
    out = conv_shape(shape, len(weight), weight.shape[2:], *pairs.values())
    return Conv(shape=out, weight=_whole(walk, name), groups=int(node["groups"]), **pairs, **common)


def _whole(walk: _Walk, name: str) -> np.ndarray:
    """Weights as integers; their scale and biases are kept for the neurons."""
    node, bits = walk.nodes[name], walk.how.bits
    weight = np.asarray(node["weight"], np.float64)
    bias = np.asarray(node["bias"], np.float64) if "bias" in node else np.zeros(len(weight))
    scale, step = 1.0, 1
    try:
        integers(weight), integers(bias)
    except NetworkError as error:
        if bits is None:
            raise NetworkError(
                f"weight or bias {error}: --bits 8 rounds them to 8 bits (in Python bits=8); spikes can then differ"
            ) from None
        users = [other for other, before in walk.sources.items() if name in before]
        if len(users) != 1 or walk.nodes[users[0]]["type"] not in NEURONS or len(walk.sources[users[0]]) != 1:
            raise NetworkError("floating-point weights without neurons of their own: no scale to round by") from None
        neuron = walk.nodes[users[0]]
        threshold = float(np.max(neuron["v_threshold"] / gain(neuron, walk.how.dt)))
        scale, step = weight_scale(weight, threshold, bits, name), 2
        off = np.abs(step * np.rint(weight * scale / step) / scale - weight).max() / np.abs(weight).max()
        walk.changes.append(
            f"node {name!r}: weights are rounded to {bits} bits, by at most {100 * off:.2g} % of the largest: "
            f"spikes can differ"
        )
    walk.scales[name] = scale
    if bias.any():
        walk.biases[name] = bias * scale
    return integers(step * np.rint(weight * scale / step))


# ------------------------------------------------------------------------------------------------ neurons


def _with_neurons(walk: _Walk, name: str, before: list[str], back: list[str]) -> Layer:
    """The layer before, with these neurons; or the sum of several."""
    node, layer = walk.nodes[name], walk.layers.get(before[0])
    alone = len(before) == 1 and all(
        other == name or walk.gives.get(one) != before[0] for other, sources in walk.sources.items() for one in sources
    )
    if len(before) > 1:
        shape = walk.shapes[before[0]]
        layer = Add(in_shape=shape, shape=shape, name=name, inputs=tuple(before))
    elif not isinstance(layer, Conv | Dense) or layer.neuron is not None or not alone:
        raise NetworkError("are neurons behind no weights of their own: put a Conv2d, Linear or Affine before them")
    assert layer is not None
    scale = walk.scales.get(layer.name, 1.0)
    fields: dict[str, Any] = {"neuron": _neuron(walk, node, layer, scale)}
    if scale != 1:
        fields["weight_scale"] = scale
    if back:
        if len(back) > 1 or not isinstance(layer, Dense):
            raise NetworkError("feed themselves in ways that are not read: one Linear, behind a Linear or Affine")
        weight = np.asarray(walk.nodes[back[0]]["weight"], np.float64) * scale
        if np.any(walk.nodes[back[0]].get("bias", 0)):
            raise NetworkError(f"feed themselves through {back[0]!r}, which has biases: put them into the input's")
        fields["recurrent"] = integers(weight if scale == 1 else 2 * np.rint(weight / 2))
    return replace(layer, **fields)


def _neuron(walk: _Walk, node: Node, layer: Layer, scale: float) -> Neuron:
    how = walk.how
    factor = gain(node, how.dt)
    if not (factor > 0).all():
        raise NetworkError(f"takes {factor.min():.6g} times its input: only factors above 0 are read")
    reset = how.reset
    if "v_reset" in node:
        if np.any(node["v_reset"]):
            raise NetworkError(f"v_reset {np.ravel(node['v_reset'])[0]:.6g}: only 0 is read")
        reset = "zero"
    if reset is None:
        raise NetworkError("has no v_reset: give --reset subtract (as sinabs) or zero (as Norse)")
    walk.resets.add(reset)
    if len(walk.resets) > 1:
        raise NetworkError("resets to zero, and others by subtraction: a network has one reset")
    threshold = np.asarray(node["v_threshold"], np.float64) / factor * scale
    if scale != 1:
        threshold = np.rint(threshold)
    elif reset == "zero":
        threshold = np.floor(threshold + 1e-9 * np.abs(threshold))  # v is an integer: v > 2.5 is v > 2
    current, voltage = decays(node, how.dt or 1.0)
    for what, value in (("tau_syn", current), ("tau", voltage)):
        if not ((value >= 0) & (value <= DECAY_UNITY)).all():
            raise NetworkError(f"{what} is shorter than dt {how.dt}: give a smaller --dt")
        if not np.isin(value, (0, DECAY_UNITY)).all() and not how.allow_inexact:
            raise NetworkError(f"{_leaks(what, value)}; --allow-inexact reads it all the same")
        if not np.isin(value, (0, DECAY_UNITY)).all():
            walk.changes.append(f"node {layer.name!r}: its neurons' {_leaks(what, value)}")
    bias = walk.biases.pop(layer.name, None)
    if bias is not None:
        if np.any(current != DECAY_UNITY):
            raise NetworkError("biases enter a current that decays, and here v: leave one of them out")
        bias = integers(np.rint(bias) if scale != 1 else bias)
    values = [_values(value, layer.shape) for value in (integers(threshold), current, voltage)]
    return Neuron(values[0], values[1], values[2], bias)


def _leaks(what: str, value: np.ndarray) -> str:
    return (
        f"{what} of {DECAY_UNITY / value.max():.4g} time steps: states decay as floating point there, and are "
        f"truncated to integers here: spikes can differ"
    )


def _values(value: np.ndarray, shape: Shape) -> int | np.ndarray:
    if (value == value.flat[0]).all():
        return int(value.flat[0])
    if value.shape != shape:
        raise NetworkError(f"values of shape {value.shape} are not one a neuron of {shape}")
    return value
