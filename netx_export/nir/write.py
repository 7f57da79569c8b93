"""Networks written as NIR files, for one reader each."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from netx_export.bounds import bounds, share
from netx_export.network import (
    INPUT,
    STATE_MAX,
    STATE_SHIFT,
    Add,
    Conv,
    Layer,
    Network,
    NetworkError,
    Neuron,
    Windowed,
)
from netx_export.netx.hdf5 import creating
from netx_export.nir.graph import BETWEEN, VALUES, Graph, lower
from netx_export.nir.readers import find

FORMAT = 1
"""Version of what we put into a file beside NIR's own."""
FLOAT_MAX = 1 << 24
"""Up to here float32 holds every integer."""
KEPT = ("weight_scale", "u_measured", "v_measured")


def write(
    network: Network, path: str | os.PathLike[str], reader: str = "nir", *, allow_inexact: bool = False
) -> tuple[str, ...]:
    """Write a network as NIR, so that a reader computes the same spikes, sample for sample and step for step.

    Weights stay the integers they are, in float32; a threshold that resets to zero is half an integer higher, so that
    it does not matter whether a reader compares with > or >=. Other values of nodes are what the reader wants
    (`netx_export.nir.READERS`). Metadata of the graph hold what NIR has no place for; `read` gives the same network.

    Parameters
    ----------
    network : Network
    path : path-like
        Written whole or not at all.
    reader : str
        Who is to import it: ``"sinabs"`` (resets by subtraction), ``"norse"``, ``"snntorch"``, ``"spikingjelly"`` (to
        zero), or ``"nir"``: NIR's own definition in discrete time, with forward Euler at a dt of 0.1 ms.
    allow_inexact : bool
        Write neurons whose decay a reader does not truncate to integers, too.

    Returns
    -------
    tuple of str
        What is to be known of this file, a line each; it stands in the file's metadata as well.

    Raises
    ------
    NetworkError
        Something that NIR cannot hold, or that the reader would compute otherwise: layer, value, what to do.

    Examples
    --------
    >>> from netx_export import nir, read
    >>> notes = nir.write(read("digits.net"), "digits.nir", "norse")  # doctest: +SKIP
    """
    target = find(reader)
    graph = lower(network, target, allow_inexact)
    notes = tuple(_notes(network, graph))
    import h5py

    text = h5py.string_dtype()
    with creating(path) as file:
        file.create_dataset("version", data=target.version, dtype=text)
        node = file.create_group("node")
        node.create_dataset("type", data="NIRGraph", dtype=text)
        node.create_dataset("edges", data=np.array(graph.edges, dtype=object), dtype=text)
        metadata = node.create_group("metadata")
        said = {"mtt_lava": _json(network, graph), "reset": network.reset, "notes": "\n".join(notes)}
        for name, value in said.items():
            metadata.create_dataset(name, data=value, dtype=text)
        # In order: some readers go through the nodes as they come, and give up where inputs stand behind their users.
        nodes = node.create_group("nodes", track_order=True)
        for name, fields in graph.nodes.items():
            entry = nodes.create_group(name)
            for field, value in fields.items():
                entry.create_dataset(field, data=value, dtype=text if isinstance(value, str) else None)
    return notes


def _json(network: Network, graph: Graph) -> str:
    """What NIR's nodes do not say, as a text."""
    content = {
        "format": FORMAT,
        "reader": graph.reader.name,
        "dt": graph.reader.dt,
        "readout": network.readout,
        "info": network.info,
        "layers": [_record(layer, graph) for layer in network],
    }
    try:
        return json.dumps(content, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise NetworkError(f"{network.source}: info holds what JSON cannot: {error}") from None


def _record(layer: Layer, graph: Graph) -> dict[str, Any]:
    record: dict[str, Any] = {"name": layer.name, "kind": layer.kind, "inputs": layer.inputs}
    record |= {"nodes": graph.parts.get(layer.name, {})}
    record |= {name: value for name in KEPT if (value := getattr(layer, name)) is not None}
    if isinstance(layer, Conv):
        record["groups"] = layer.groups
    if isinstance(layer.neuron, Neuron):
        per = {name: _per(getattr(layer.neuron, name)) for name in (*VALUES, "bias")}
        record |= {"axes": {name: axes for name, axes in per.items() if axes is not None}, "added": layer.neuron.added}
    return record


def _per(value: int | np.ndarray | None) -> int | None:
    """Axes of a value of neurons: none, channels, or those of the neurons."""
    return None if value is None else np.ndim(value)


def _notes(network: Network, graph: Graph) -> Iterator[str]:
    reader, where = graph.reader, network.source
    yield from (f"{where}: {text}" for text in graph.differs)
    neurons = any(layer.neuron is not None for layer in network)
    if neurons and network.reset == "zero":
        yield f"{where}: thresholds are {BETWEEN} higher than here: states are integers, so > and >= are the same"
    if neurons and network.reset == "subtract":
        yield (
            f"{where}: neurons fire floor(v / threshold) times a time step, lose that many thresholds, and stay at or "
            f"above -threshold; NIR has no word for it"
            + ("" if reader.name == "sinabs" else ": a reader that does not know this metadata resets to zero")
        )
    if network.readout == "voltage" and network.spiking:
        last = network.spiking[-1].name
        yield f"{where}: the answer is the voltage of {last}'s neurons, and the file's output is their spikes"
    if graph.zeros:
        yield (
            f"{where}: {', '.join(graph.zeros)}: weights of 0, which add nothing; by their edges {reader.name} runs a "
            f"merge behind all that it merges"
        )
    kernels = [layer.window.weight.shape[2:] for layer in network if isinstance(layer, Windowed)]
    if any(height != width for height, width in kernels):
        yield f"{where}: kernels that are not square: nir 1.0.8 reads them with nir.read(path, type_check=False) only"
    if neurons:
        yield from _range(network) if network.reset == "zero" else _counts(network)


def _counts(network: Network) -> Iterator[str]:
    """Where neurons fire several times a time step: from which layer on float32 may not hold the sums."""
    largest = network.info.get("input_max")
    high = {INPUT: largest if type(largest) is int else 1}
    for layer in network:
        payloads = [high[name] for name in layer.inputs]
        most = sum(payloads) if isinstance(layer, Add) else next(bounds([layer], 0, payloads[0])).terms
        if layer.neuron is not None:
            bias = 0 if layer.neuron.bias is None else int(np.abs(layer.neuron.bias).max())
            most += bias + int(np.max(layer.neuron.threshold))
        if most > FLOAT_MAX:
            yield (
                f"{network.source}: layer {layer.name}: with all inputs active its sums can reach {most}, and readers' "
                f"float32 holds integers to {FLOAT_MAX}: beyond, spikes can differ"
            )
            return
        high[layer.name] = most if layer.neuron is None else most // int(np.min(layer.neuron.threshold))


def _range(network: Network) -> Iterator[str]:
    """How long states stay within their bits, which they have in no other program."""
    most, least = STATE_MAX >> STATE_SHIFT, None
    largest = network.info.get("input_max")
    for bound in bounds(network, 0, largest if type(largest) is int else 1):
        neuron = bound.layer.neuron
        if neuron is None:
            continue
        bias = 0 if neuron.bias is None else max(0, -int(neuron.bias.min()))
        change = (bound.current() + (bias << STATE_SHIFT)) / (1 << STATE_SHIFT)
        steps = int(most // change) if change else None
        if steps is not None and (least is None or steps < least[0]):
            least = steps, bound.layer
    if least is None:
        return
    steps, layer = least
    measured = [one.v_measured for one in network.spiking if one.v_measured is not None]
    seen = f"; over the training data |v| reached {share(max(measured))}" if measured else ""
    yield (
        f"{network.source}: u and v have 24 bits here and no bounds in NIR: spikes are the same as long as none leaves "
        f"them, to which no input can bring it within {steps} time steps (layer {layer.name}){seen}"
    )
