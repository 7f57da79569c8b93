"""NIR files read as networks in integers: those of `write`, exactly, and those of others that hold integers."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from netx_export.network import (
    INPUT,
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
    Shape,
    conv_shape,
)
from netx_export.netx.fields import NetxWarning
from netx_export.netx.hdf5 import Group, HDF5Error, Unreadable, load
from netx_export.nir.foreign import How, foreign
from netx_export.nir.graph import DECAYS, Graph, Node, lower
from netx_export.nir.readers import find
from netx_export.nir.values import decays, integers, pair
from netx_export.nir.write import FORMAT, KEPT
from netx_export.text import short


class Loaded(NamedTuple):
    """What a NIR file holds: nodes and edges as plain values, and of `write` its metadata."""

    nodes: dict[str, Node]
    edges: list[tuple[str, str]]
    ours: str | None
    reset: str | None


def load_graph(path: str | os.PathLike[str]) -> Loaded:
    """The nodes and edges of a NIR file, which is opened in a process of its own, as NetX files are.

    Raises
    ------
    NetworkError
        The file is missing, damaged, or no NIR graph.
    """
    source = os.fspath(path)
    try:
        file, _ = load(source, texts=True)
    except HDF5Error as error:
        raise NetworkError(f"{source}: {error}") from None
    if _text(file.get("node/type")) != "NIRGraph":
        raise NetworkError(f"{source}: node/type is not 'NIRGraph': not a NIR graph")
    graph = file.get("node")
    said = (_text(file.get(f"node/metadata/{name}")) for name in ("mtt_lava", "reset"))
    return Loaded(_nodes(graph, source), _edges(graph, source), *said)


def read(
    path: str | os.PathLike[str],
    *,
    dt: float | None = None,
    reset: str | None = None,
    bits: int | None = None,
    allow_inexact: bool = False,
) -> Network:
    """Read a NIR file as a network in integers.

    A file that `write` has written gives the network that it was given; every value of its nodes is compared. Other
    files are read where their weights are integers, or are rounded to integers with `bits`; the network is what NIR
    defines, by forward Euler, with v > threshold.

    Parameters
    ----------
    path : path-like
        The file. It is opened in a process of its own, as NetX files are.
    dt : float, optional
        Seconds a time step, for files of others with time constants, delays or resistances; ours say it.
    reset : {"zero", "subtract"}, optional
        For files of others whose nodes have no v_reset: what sinabs writes resets by subtraction.
    bits : int, optional
        Bits, sign included, to round floating-point weights to, with a scale a layer: spikes can differ.
    allow_inexact : bool
        Read neurons of others that decay by other than 0 or 4096 / 4096 a time step, which truncate to integers here.

    Returns
    -------
    Network

    Raises
    ------
    NetworkError
        The file is missing, damaged, or holds what the network description cannot: node, value, what to do.

    Warns
    -----
    NetxWarning
        What `bits` and `allow_inexact` changed; it stands in ``info["imported"]``, too.
    """
    source = os.fspath(path)
    if dt is not None and not 0 < dt < math.inf:
        raise NetworkError(f"--dt {dt}: must be above 0, in seconds")
    if bits is not None and not 2 <= bits <= 8:
        raise NetworkError(f"--bits {bits}: must be 2..8, sign included")
    nodes, edges, ours, reset_there = load_graph(path)
    if ours is None:
        found = foreign(nodes, edges, source, How(dt, reset, bits, allow_inexact))
        for change in found.info.get("imported", ()):
            warnings.warn(f"{source}: {change}", NetxWarning, stacklevel=2)
        return found
    for name, value in (("--dt", dt), ("--reset", reset), ("--bits", bits), ("--allow-inexact", allow_inexact or None)):
        if value is not None:
            raise NetworkError(f"{source}: says itself what {name} would: leave it out")
    try:
        content = json.loads(ours)
        if content["format"] != FORMAT:
            raise NetworkError(f"{source}: is of format {content['format']!r}; this version reads {FORMAT}: update it")
        layers = tuple(_layers(content["layers"], nodes, content["dt"]))
        found = Network(layers, content["readout"], reset_there or "zero", content["info"], source)
        written = lower(found, find(content["reader"]), allow_inexact=True)
    except NetworkError as error:
        raise error if str(error).startswith(source) else NetworkError(f"{source}: {error}") from None
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError, MemoryError) as error:
        raise NetworkError(
            f"{source}: node/metadata/mtt_lava does not fit the nodes ({type(error).__name__}: {short(str(error))}): "
            f"write the file anew, or remove node/metadata to read it as one of others"
        ) from None
    _compare(written, nodes, edges, source)
    return found


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value if isinstance(value, str) else None


def _nodes(graph: Group, source: str) -> dict[str, Node]:
    """The nodes of a graph, as plain values; those of a graph in it as ``nodes`` and ``edges``."""
    group = graph.get("nodes")
    if not isinstance(group, Group) or not group.members:
        raise NetworkError(f"{source}: node/nodes: there are none: not a NIR graph")
    nodes: dict[str, Node] = {}
    for name, entry in group.members.items():
        kind = _text(entry.get("type")) if isinstance(entry, Group) else None
        if kind is None:
            raise NetworkError(f"{source}: node {name!r} has no type: not a NIR graph")
        nodes[name] = {"type": kind}
        if kind == "NIRGraph":
            nodes[name] |= {"nodes": _nodes(entry, source), "edges": _edges(entry, source)}
            continue
        for field, value in entry.members.items():
            if field in ("type", "metadata"):
                continue
            if isinstance(value, Unreadable):
                raise NetworkError(f"{source}: node {name!r}: {field}: {value.reason}")
            nodes[name][field] = value
    return nodes


def _edges(graph: Group, source: str) -> list[tuple[str, str]]:
    edges = graph.get("edges")
    if not isinstance(edges, np.ndarray) or edges.ndim != 2 or edges.shape[1] != 2 or edges.dtype.kind not in "OS":
        raise NetworkError(f"{source}: node/edges are not pairs of names: not a NIR graph")
    texts = [[_text(name) or "" for name in pair] for pair in edges.tolist()]
    return [(one, other) for one, other in texts]


def _compare(written: Graph, nodes: dict[str, Node], edges: list[tuple[str, str]], source: str) -> None:
    """Refuse a file of ours whose nodes are not those of the network that its metadata and weights say."""
    for name in written.nodes.keys() | nodes.keys():
        one, other = written.nodes.get(name, {}), nodes.get(name, {})
        for field in one.keys() | other.keys():
            if not np.array_equal(one.get(field, ()), other.get(field, ())):
                raise NetworkError(
                    f"{source}: node {name!r}: {field} is not what its metadata say: it was changed after mtt-export; "
                    f"write it anew, or remove node/metadata to read it as one of others"
                )
    if sorted(written.edges) != sorted(edges):
        raise NetworkError(f"{source}: node/edges are not what its metadata say: it was changed; write it anew")


# ------------------------------------------------------------------------------------------------ files of ours


def _layers(records: list[dict[str, Any]], nodes: dict[str, Node], dt: float) -> Iterator[Layer]:
    shapes: dict[str, Shape] = {INPUT: tuple(int(n) for n in nodes[INPUT]["shape"])}
    for record in records:
        kind, name, parts = record["kind"], record["name"], record["nodes"]
        before = shapes[record["inputs"][0]]
        part = {what: nodes[node] for what, node in parts.items()}
        common: dict[str, Any] = {"name": name, "inputs": tuple(record["inputs"]), "in_shape": before}
        common |= {field: record[field] for field in KEPT if field in record}
        common["neuron"] = _neuron(record, part, dt) if "neuron" in part else None
        layer = _READ[kind](record, part, common, dt)
        if "neuron" in part and part["neuron"]["v_threshold"].shape != layer.shape:
            raise NetworkError(f"node {parts['neuron']!r}: its values do not have the shape {layer.shape} of its input")
        shapes[name] = layer.shape
        yield layer


def _conv(record: dict[str, Any], part: dict[str, Node], common: dict[str, Any], dt: float) -> Layer:
    node, groups = part["conv"], record["groups"]
    weight = integers(node["weight"])
    out, fan = len(weight), common["in_shape"][0] // groups
    # Written as a full convolution; _compare looks for the zeros.
    firsts = (i * groups // out * fan for i in range(out))
    weight = np.stack([row[first : first + fan] for row, first in zip(weight, firsts, strict=True)])
    pairs: dict[str, Any] = {name: pair(node[name]) for name in ("stride", "padding", "dilation")}
    shape = conv_shape(common["in_shape"], out, weight.shape[2:], *pairs.values())
    return Conv(shape=shape, weight=weight, groups=groups, **pairs, **common)


def _dense(record: dict[str, Any], part: dict[str, Node], common: dict[str, Any], dt: float) -> Layer:
    weight = integers(part["linear"]["weight"])
    delay = recurrent = None
    if "delay" in part:
        delay = np.broadcast_to(np.rint(part["delay"]["delay"] / dt).astype(np.int64), weight.shape).copy()
    if "recurrent" in part:
        recurrent = integers(part["recurrent"]["weight"])
    return Dense(shape=weight.shape[:1], weight=weight, delay=delay, recurrent=recurrent, **common)


def _pool(record: dict[str, Any], part: dict[str, Node], common: dict[str, Any], dt: float) -> Layer:
    node = part["pool"]
    kernel = pair(node["kernel_size"] if "kernel_size" in node else node["weight"].shape[2:])
    pairs: dict[str, Any] = {"stride": pair(node["stride"]), "padding": pair(node["padding"])}
    channels = common["in_shape"][0]
    if "weight" in node and len(node["weight"]) != channels:
        raise NetworkError(f"layer {common['name']}: pools {len(node['weight'])} channels, not {channels}")
    return Pool(
        shape=conv_shape(common["in_shape"], channels, kernel, *pairs.values()), kernel=kernel, **pairs, **common
    )


def _flatten(record: dict[str, Any], part: dict[str, Node], common: dict[str, Any], dt: float) -> Layer:
    return Flatten(shape=(int(np.prod(common["in_shape"])),), **common)


def _average(record: dict[str, Any], part: dict[str, Node], common: dict[str, Any], dt: float) -> Layer:
    weight = part["linear"]["weight"]
    if weight.shape[1] != np.prod(common["in_shape"]):
        raise NetworkError(f"layer {common['name']}: averages {weight.shape[1]} values of {common['in_shape']}")
    return Average(shape=weight.shape[:1], **common)


def _add(record: dict[str, Any], part: dict[str, Node], common: dict[str, Any], dt: float) -> Layer:
    if "sum" in part:
        node, shape = part["sum"], common["in_shape"]
        if node["scale"].shape != shape if "scale" in node else len(node["weight"]) != shape[0]:
            raise NetworkError(f"layer {common['name']}: its node does not fit the shape {shape} of what it sums")
    return Add(shape=common["in_shape"], **common)


_READ = {"conv": _conv, "dense": _dense, "pool": _pool, "flatten": _flatten, "average": _average, "add": _add}


def _neuron(record: dict[str, Any], part: dict[str, Node], dt: float) -> Neuron:
    node, axes = part["neuron"], record["axes"]
    threshold = np.floor(node["v_threshold"]).astype(np.int64)
    values = {"threshold": threshold, **dict(zip(DECAYS, decays(node, dt), strict=True))}
    bias = None
    if "bias" in axes:
        synapse = part["conv"] if "conv" in part else part["linear"]
        bias = integers(synapse["bias"])
    reduced: dict[str, Any] = {name: _reduced(value, axes[name], threshold.shape) for name, value in values.items()}
    return Neuron(
        **reduced,
        bias=bias if bias is None or axes["bias"] == 1 else bias.reshape(threshold.shape),
        added=record["added"],
    )


def _reduced(value: np.ndarray, axes: int, shape: Shape) -> int | np.ndarray:
    """A value of each neuron as it was: one, one a channel, or one a neuron."""
    value = np.broadcast_to(value, shape)
    if axes == 0:
        return int(value.flat[0])
    return value.copy() if axes == len(shape) else value.reshape(len(value), -1)[:, 0].copy()
