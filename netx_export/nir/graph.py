"""A network as a graph of NIR nodes: layer by layer, exactly, or refused by the layer's name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import singledispatch
from types import SimpleNamespace
from typing import Any

import numpy as np

from netx_export.bounds import Bound, bounds
from netx_export.network import (
    DECAY_UNITY,
    INPUT,
    STATE_MAX,
    STATE_SHIFT,
    Add,
    Average,
    Conv,
    Dense,
    Flatten,
    Layer,
    Network,
    NetworkError,
    Neuron,
    Pool,
)
from netx_export.nir.readers import Reader

NEVER = 2.0**60
"""Time steps a time constant has that stands for no decay: 1 - 1 / NEVER is 1 in 64 bits."""
BETWEEN = 0.5
"""Added to a threshold: for integers v > n + 0.5 and v >= n + 0.5 are v > n, and readers compare in both ways."""
DECAYS = ("current_decay", "voltage_decay")
VALUES = ("threshold", *DECAYS)

Node = dict[str, Any]
"""Fields of a node, ``type`` among them: texts, numbers and arrays."""


@dataclass
class Graph:
    """Nodes by name in an order in which inputs stand before their users, and edges between them.

    Attributes
    ----------
    nodes, edges
        As NIR has them.
    parts : dict
        For each layer its nodes: what each is (``conv``, ``neuron``, ...), and its name.
    differs : list of str
        In what a reader computes something else, in a line a layer. Empty: every spike is the same while states stay
        within their bits.
    zeros : list of str
        Nodes that add nothing, and by which a reader runs others in the right order.
    """

    reader: Reader
    nodes: dict[str, Node] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)
    parts: dict[str, dict[str, str]] = field(default_factory=dict)
    differs: list[str] = field(default_factory=list)
    zeros: list[str] = field(default_factory=list)

    def put(self, layer: Layer, part: str, node: Node, sources: Sequence[str]) -> str:
        """Add a node of a layer; its name, which is one for PyTorch, too."""
        stem = f"{re.sub('[^A-Za-z0-9_]', '_', layer.name)}_{part}"
        name, number = stem, 1
        while name in self.nodes:
            number += 1
            name = f"{stem}_{number}"
        self.nodes[name] = node
        self.edges += [(source, name) for source in sources]
        self.parts.setdefault(layer.name, {})[part] = name
        return name


def lower(network: Network, reader: Reader, allow_inexact: bool = False) -> Graph:
    """The network as NIR nodes for a reader.

    Raises
    ------
    NetworkError
        For the first layer that the reader would compute otherwise, or NIR cannot hold.
    """
    where = network.source
    if network.encoder is not None:
        raise NetworkError(f"{where}: input neurons are not written: spikes enter the first layer; leave them out")
    if network.reset not in reader.resets:
        can = {"subtract": "sinabs or nir", "zero": "norse, snntorch, spikingjelly or nir"}[network.reset]
        raise NetworkError(
            f"{where}: its neurons reset {_RESETS[network.reset]}, and {reader.name} imports all as neurons that reset "
            f"{_RESETS[reader.resets[0]]}: write it for {can}"
        )
    graph = Graph(reader)
    graph.nodes[INPUT] = {"type": "Input", "shape": np.array(network.in_shape)}
    gives = {INPUT: INPUT}
    largest = network.info.get("input_max")
    for bound in bounds(network, 0, largest if type(largest) is int else 1):
        layer = bound.layer
        sources = [gives[name] for name in layer.inputs]
        try:
            _check_sums(bound)
            if layer.neuron is not None:
                _check_neuron(layer, network.reset, reader)
            ends = _synapses(layer, graph, sources)
            gives[layer.name] = _neurons(layer, graph, ends, network.reset, allow_inexact)
        except NetworkError as error:
            raise NetworkError(f"{where}: layer {layer.name}: {error}") from None
    graph.nodes["output"] = {"type": "Output", "shape": np.array(network.shape)}
    graph.edges.append((gives[network.layers[-1].name], "output"))
    if reader.depth_first:
        _order(network, graph)
    return graph


def _order(network: Network, graph: Graph) -> None:
    """Let ``nirtorch.load`` run every node behind what feeds it.

    It goes depth first, by the order of edges, so that it comes to a merge by the first of its ways, and takes inputs
    that are missing from the last time step. There a node of zeros leads to the start of a way that was not gone yet,
    which is then gone first, and gets nothing by it.
    """
    feedback = {parts["recurrent"] for parts in graph.parts.values() if "recurrent" in parts}
    owners = {name: layer for layer, parts in graph.parts.items() for name in parts.values()}
    for _ in range(len(graph.nodes)):
        place, parent = _depth_first(graph)
        edges = [(one, other) for one, other in graph.edges if one not in feedback]
        late = [(place[other], one, other) for one, other in edges if place[one] > place[other]]
        if not late:
            if graph.zeros:
                graph.nodes = dict(sorted(graph.nodes.items(), key=lambda item: place[item[0]]))
            return
        first, start, merge = min(late)
        while missing := [one for one, other in edges if other == start and place[one] > first]:
            start = missing[0]
        source = next(one for one, other in edges if other == start)
        zeros = _zeros(_gives(network, graph, parent[merge]), _gives(network, graph, source), graph.reader)
        if zeros is None:
            break
        _lead(graph, parent[merge], zeros, start)
    merged, missed = owners.get(merge, merge), owners.get(start, start)
    raise NetworkError(
        f"{network.source}: layer {merged}: {graph.reader.name} runs it before what feeds it ({missed}), one time step "
        f"late: let only one of the ways that merge have layers of its own"
    )


def _depth_first(graph: Graph) -> tuple[dict[str, int], dict[str, str]]:
    """Where ``nirtorch.load`` runs each node, and which one it comes from."""
    after: dict[str, list[str]] = {}
    for one, other in graph.edges:
        after.setdefault(one, []).append(other)
    place: dict[str, int] = {}
    parent: dict[str, str] = {}
    stack = [(INPUT, INPUT)]
    while stack:
        name, before = stack.pop()
        if name not in place:
            place[name], parent[name] = len(place), before
            stack += [(each, name) for each in reversed(after.get(name, []))]
    return place, parent


def _gives(network: Network, graph: Graph, name: str) -> tuple[int, ...]:
    """Shape of what a node gives."""
    if name == INPUT:
        return network.in_shape
    if graph.nodes[name]["type"] == "Flatten":
        return (int(np.prod(graph.nodes[name]["input_type"])),)
    return next(network[layer].shape for layer, parts in graph.parts.items() if name in parts.values())


def _zeros(shape: tuple[int, ...], wanted: tuple[int, ...], reader: Reader) -> list[Node] | None:
    """Nodes that make zeros of one shape of any of another; None where there are none."""
    if len(wanted) == 1:
        size = int(np.prod(shape))
        flat: list[Node] = []
        if len(shape) == 3:
            flat = [{"type": "Flatten", "input_type": np.array(shape), "start_dim": -3, "end_dim": -1}]
        return [*flat, _linear(np.zeros((wanted[0], size), np.int64), reader)]
    if len(shape) == 1:
        return None
    # A square kernel, because NIR 1.0.8 checks others wrongly. Rounding by a stride of 2 gives any height and width.
    pairs = list(zip(shape[1:], wanted[1:], strict=True))
    kernel = max(1, *(size - 2 * n + 1 for size, n in pairs))
    padding = tuple((2 * n - 1 + kernel - size) // 2 for size, n in pairs)
    weight = np.zeros((wanted[0], shape[0], kernel, kernel), np.int64)
    return [_conv2d(SimpleNamespace(in_shape=shape, stride=(2, 2), padding=padding), weight)]


def _lead(graph: Graph, before: str, zeros: list[Node], start: str) -> None:
    """Lead from a node to another by nodes of zeros, before anything else that it leads to."""
    at = next(i for i, (one, _) in enumerate(graph.edges) if one == before)
    for node in zeros:
        name, number = "zeros", 1
        while name in graph.nodes:
            number += 1
            name = f"zeros_{number}"
        graph.nodes[name] = node
        graph.zeros.append(name)
        graph.edges.insert(at, (before, name))
        before, at = name, at + 1
    graph.edges.insert(at, (before, start))


_RESETS = {"zero": "to zero", "subtract": "by subtraction"}


def _check_sums(bound: Bound) -> None:
    """Currents that wrap at 24 bits do so in no other program."""
    if bound.layer.neuron is None and isinstance(bound.layer, Conv) and bound.change > STATE_MAX:
        raise NetworkError(f"its sums can reach {bound.change}, and beyond {STATE_MAX} they wrap here, and not in NIR")


def _check_neuron(layer: Layer, reset: str, reader: Reader) -> None:
    neuron = layer.neuron
    assert neuron is not None
    if not isinstance(neuron, Neuron):
        raise NetworkError(f"sends values, with {neuron.kind} neurons: NIR has none such")
    if reset == "subtract" and np.min(neuron.threshold) < 1:
        raise NetworkError(f"threshold {np.min(neuron.threshold)}: a reset by subtraction needs 1 or more")
    if neuron.bias_exponent != STATE_SHIFT:
        raise NetworkError(f"bias exponent {neuron.bias_exponent}: only {STATE_SHIFT} is written, biases in weights")
    for name in VALUES if reader.uniform else ():
        values = np.unique(getattr(neuron, name))
        if len(values) > 1:
            raise NetworkError(
                f"{name} {values[0]}..{values[-1]} differs from neuron to neuron, and {reader.name} takes one value a "
                f"layer: write it for norse or nir"
            )
    if neuron.bias is None:
        return
    if isinstance(layer, Add):
        raise NetworkError("an add with biases: NIR sums by its edges, which have none")
    if len(layer.shape) == 3 and neuron.bias.shape == layer.shape != layer.shape[:1]:
        raise NetworkError(f"bias of shape {neuron.bias.shape} is one a neuron, and NIR's Conv2d has one a channel")
    if np.any(np.asarray(neuron.current_decay) != DECAY_UNITY):
        raise NetworkError(
            f"biases enter v here, and in NIR the current, which here decays by less than {DECAY_UNITY} a time step: "
            f"leave one of them out"
        )


# ------------------------------------------------------------------------------------------------ synapses


@singledispatch
def _synapses(layer: Layer, graph: Graph, sources: list[str]) -> list[str]:
    """Put what stands before a layer's neurons; what feeds these, or whoever comes next."""
    raise NetworkError(f"a {layer.kind} layer: NIR has none; files of NetX graphs (.net) have")


@_synapses.register
def _conv(layer: Conv, graph: Graph, sources: list[str]) -> list[str]:
    assert layer.weight is not None
    bias = None if layer.neuron is None else layer.neuron.bias
    return [graph.put(layer, "conv", _conv2d(layer, ungrouped(layer.weight, layer.groups), bias), sources)]


def _conv2d(layer: Any, weight: np.ndarray, bias: np.ndarray | None = None) -> Node:
    pairs = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}
    return {
        "type": "Conv2d",
        "input_shape": np.array(layer.in_shape[1:]),
        "weight": weight.astype(np.float32),
        **{name: np.array(getattr(layer, name, pair)) for name, pair in pairs.items()},
        # Of groups even NIR's own check of shapes (1.0.8) knows nothing.
        "groups": 1,
        "bias": np.zeros(len(weight), np.float32) if bias is None else bias.astype(np.float32),
    }


def ungrouped(weight: np.ndarray, groups: int) -> np.ndarray:
    """Weights (out, in / groups, ...) of a grouped convolution as those of a full one, (out, in, ...)."""
    out, fan = weight.shape[:2]
    full = np.zeros((out, fan * groups, *weight.shape[2:]), weight.dtype)
    for group in range(groups):
        rows = slice(group * out // groups, (group + 1) * out // groups)
        full[rows, group * fan : (group + 1) * fan] = weight[rows]
    return full


@_synapses.register
def _dense(layer: Dense, graph: Graph, sources: list[str]) -> list[str]:
    assert layer.weight is not None
    reader = graph.reader
    if layer.recurrent is not None and not reader.recurrent:
        raise NetworkError(
            f"feeds itself, which {reader.name} does not import: write it for norse, spikingjelly or nir"
        )
    if layer.recurrent_delay is not None:
        raise NetworkError("has recurrent delays, for which NIR has no node: leave them out")
    if layer.delay is not None:
        if not reader.delays:
            raise NetworkError(f"has delays, which {reader.name} does not import: write it for nir")
        if (layer.delay != layer.delay[:1]).any():
            raise NetworkError("has delays of its own for every synapse, and NIR's Delay has one for every input")
        sources = [graph.put(layer, "delay", {"type": "Delay", "delay": layer.delay[0] * reader.dt}, sources)]
    bias = None if layer.neuron is None else layer.neuron.bias
    return [graph.put(layer, "linear", _linear(layer.weight, reader, bias), sources)]


def _linear(weight: np.ndarray, reader: Reader, bias: np.ndarray | None = None) -> Node:
    node = {"type": "Linear", "weight": weight.astype(np.float32)}
    if bias is None and not reader.affine:
        return node
    bias = np.zeros(len(weight)) if bias is None else bias
    return node | {"type": "Affine", "bias": bias.astype(np.float32)}


@_synapses.register
def _pool(layer: Pool, graph: Graph, sources: list[str]) -> list[str]:
    if graph.reader.plain:
        # Norse and sinabs would take a mean and multiply it; others know no SumPool2d.
        node = _conv2d(layer, ungrouped(layer.window.weight, layer.window.groups))
    else:
        node = {"type": "SumPool2d", "kernel_size": np.array(layer.kernel)}
        node |= {name: np.array(getattr(layer, name)) for name in ("stride", "padding")}
    return [graph.put(layer, "pool", node, sources)]


@_synapses.register(Flatten)
def _flatten(layer: Layer, graph: Graph, sources: list[str]) -> list[str]:
    # Counted from the end: whether or not axes for samples and time stand before.
    node: Node = {"type": "Flatten", "input_type": np.array(layer.in_shape)}
    node |= {"start_dim": -len(layer.in_shape), "end_dim": -1}
    return [graph.put(layer, "flatten", node, sources)]


@_synapses.register
def _average(layer: Average, graph: Graph, sources: list[str]) -> list[str]:
    if len(layer.in_shape) == 3:
        sources = _flatten(layer, graph, sources)
    size = int(np.prod(layer.in_shape)) // layer.shape[0]
    weight = np.repeat(np.eye(layer.shape[0], dtype=np.int64), size, axis=1)
    return [graph.put(layer, "linear", _linear(weight, graph.reader), sources)]


@_synapses.register
def _add(layer: Add, graph: Graph, sources: list[str]) -> list[str]:
    if layer.neuron is not None:
        return sources
    ones = np.eye(layer.shape[0], dtype=np.int64)
    if not graph.reader.plain:
        node: Node = {"type": "Scale", "scale": np.ones(layer.shape, np.float32)}
    elif len(layer.shape) == 1:
        node = _linear(ones, graph.reader)
    else:
        node = _conv2d(layer, ones[:, :, None, None])
    return [graph.put(layer, "sum", node, sources)]


# ------------------------------------------------------------------------------------------------ neurons


def _neurons(layer: Layer, graph: Graph, sources: list[str], reset: str, allow_inexact: bool) -> str:
    """Put a layer's neurons, if it has some, and what they feed themselves; what gives the layer's output."""
    neuron, reader = layer.neuron, graph.reader
    if neuron is None:
        return sources[0]
    values = {name: each(layer, getattr(neuron, name)).astype(np.float64) for name in VALUES}
    node: Node = {"v_threshold": values["threshold"] + (BETWEEN if reset == "zero" else 0)}
    zeros = np.zeros(layer.shape)
    if reader.explicit and reset == "zero":
        node["v_reset"] = zeros
    syn, mem = (values[name] / DECAY_UNITY for name in DECAYS)
    if (syn == 1).all() and (mem == 0).all():
        if reader.resistance:
            node |= {"type": "IF", "r": np.full(layer.shape, reader.resistance)}
        else:
            tau = np.full(layer.shape, NEVER)
            node |= {"type": "LIF", "tau": tau * reader.dt, "r": tau, "v_leak": zeros}
    else:
        assert isinstance(neuron, Neuron)
        _check_leak(layer, graph, neuron, allow_inexact)
        # Forward Euler, as Norse, snnTorch and SpikingJelly take it: what decays loses dt / tau a time step, and the
        # factors before what comes in are 1 / that, so that weights stay integers.
        steps = [np.where(lost > 0, 1 / np.where(lost > 0, lost, 1), NEVER) for lost in (syn, mem)]
        node |= {"type": "CubaLIF", "tau_syn": steps[0] * reader.dt, "tau_mem": steps[1] * reader.dt}
        node |= {"r": steps[1], "w_in": steps[0], "v_leak": zeros}
    name = graph.put(layer, "neuron", node, sources)
    if isinstance(layer, Dense) and layer.recurrent is not None:
        back = graph.put(layer, "recurrent", _linear(layer.recurrent, reader), [name])
        graph.edges.append((back, name))
    return name


def _check_leak(layer: Layer, graph: Graph, neuron: Neuron, allow_inexact: bool) -> None:
    """Decays of 0 and 4096 are exact; others are truncated to integers here, and nowhere else."""
    reader = graph.reader
    decays = {name: np.unique(getattr(neuron, name)) for name in DECAYS}
    text = " and ".join(f"{name} {found[0]}..{found[-1]}" for name, found in decays.items())
    if not reader.leaky:
        raise NetworkError(f"{text}: {reader.name} imports integrate-and-fire neurons only ({DECAY_UNITY} and 0)")
    exact = (0, DECAY_UNITY) if reader.ever else (DECAY_UNITY,)
    if np.isin(np.concatenate(list(decays.values())), exact).all():
        return
    why = "states are truncated to integers here, and decay as floating point there"
    if not allow_inexact:
        raise NetworkError(f"{text}: {why}, so that spikes can differ; --allow-inexact writes it all the same")
    graph.differs.append(f"layer {layer.name}: {text}: {why}: spikes can differ")


def each(layer: Layer, value: int | np.ndarray) -> np.ndarray:
    """One value for all, one a channel or one a neuron, as one a neuron."""
    array = np.asarray(value)
    if len(layer.shape) == 3 and array.shape == layer.shape[:1] != layer.shape:
        array = array[:, None, None]
    return np.broadcast_to(array, layer.shape)
