"""NIR files as a graph of parts: those of others with their floating-point values, ours with the integers they hold."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mtt_lava.imports.graph import AnyPart, Cells, Flatten, Imported, ImportedError, Node, Pool, Weights, assemble
from netx_export import network as description
from netx_export import nir
from netx_export.network import DECAY_UNITY, INPUT, Layer, Network, NetworkError, Neuron

UNSAID = (
    "a NIR file does not say all that its program does: snnTorch with a reset by subtraction, LIF and SingleSpike of "
    "sinabs and LIFCell of Norse fire otherwise than their files say; compare some samples, or import the modules"
)
"""To whoever imports a file that others wrote; measured in docs/imports.md."""


def from_nir(path: str | os.PathLike[str], dt: float | None = None, reset: str | None = None) -> Imported:
    """The network of a NIR file, as NIR defines its nodes in discrete time, by forward Euler.

    Parameters
    ----------
    path : path
    dt : float, optional
        Seconds a time step, for time constants.
    reset : {"zero", "subtract"}, optional
        Where nodes have no ``v_reset``.

    Raises
    ------
    ImportedError
        A file that is none, or a node that our networks cannot be: its name, and why.
    """
    source = os.fspath(path)
    try:
        graph = nir.load_graph(path)
        if graph.ours is None:
            return _foreign(graph, source, dt, reset)
        if dt is not None or reset is not None:
            raise ImportedError(f"{source}: says itself what --dt and --reset would: leave them out")
        return of_network(nir.read(path))
    except NetworkError as error:
        raise ImportedError(str(error)) from None


# ------------------------------------------------------------------------------------------------ files of others


def _foreign(graph: nir.Loaded, source: str, dt: float | None, reset: str | None) -> Imported:
    if dt is not None and not 0 < dt < math.inf:
        raise ImportedError(f"--dt {dt}: must be above 0, in seconds")
    ordered = nir.ordered(graph.nodes, graph.edges, source, KNOWN)
    nodes: list[Node] = []
    names: dict[str, str] = {}
    for name in ordered.order:
        node, before = ordered.nodes[name], tuple(names.get(one, one) for one in ordered.sources[name])
        if node["type"] == "Input":
            shape = tuple(int(n) for n in np.ravel(node["shape"]))
            names[name] = INPUT
            continue
        if node["type"] == "Output":
            if len(before) != 1:
                raise ImportedError(f"{source}: node {name!r}: is fed by {len(before)} nodes, and by one it must be")
            output = before[0]
            continue
        back = [ordered.nodes[one] for one, of in ordered.feedback.items() if of == name]
        try:
            part = _part(node, back, dt, reset)
        except (ImportedError, NetworkError) as error:
            raise ImportedError(f"{source}: node {name!r}: {error}") from None
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise ImportedError(f"{source}: node {name!r}: its fields are not those of NIR ({error!r:.80})") from None
        nodes.append(Node(name, part, before))
    if not nodes or output == INPUT:
        raise ImportedError(f"{source}: has no layers between input and output")
    found = assemble(nodes, shape, source, Path(source).stem, output)
    found.notes.append(UNSAID)
    return found


def _part(node: nir.Node, back: list[nir.Node], dt: float | None, reset: str | None) -> AnyPart:
    kind = node["type"]
    if kind in ("Linear", "Affine"):
        weight = _floats(node["weight"])
        if weight.ndim != 2:
            raise ImportedError(f"weight of shape {weight.shape}: must be (outputs, inputs)")
        return Weights(weight, _floats(node["bias"]) if kind == "Affine" else None)
    if kind == "Flatten":
        if int(node["end_dim"]) not in (-1, 2, 3) or int(node["start_dim"]) not in (-3, 0, 1):
            raise ImportedError(f"flattens axes {int(node['start_dim'])} to {int(node['end_dim'])}: all are")
        return Flatten()
    if kind == "Conv2d":
        padding = node["padding"]
        if isinstance(padding, bytes | str):
            raise ImportedError(f"padding {padding!r:.20}: only numbers are read")
        weight, bias = _floats(node["weight"]), _floats(node["bias"])
        stride, around, dilation = (nir.pair(node[field]) for field in ("stride", "padding", "dilation"))
        return Weights(weight, bias if bias.ndim else None, stride, around, dilation, int(node["groups"]))
    if kind in ("SumPool2d", "AvgPool2d"):
        if np.any(node["padding"]):
            raise ImportedError(f"padding {nir.pair(node['padding'])}: pools here have none")
        name = {"SumPool2d": "sum", "AvgPool2d": "average"}[kind]
        return Pool(name, nir.pair(node["kernel_size"]), nir.pair(node["stride"]))
    return _cells(node, back, dt, reset)


KNOWN = (
    *("Input", "Output", "Conv2d", "Linear", "Affine", "SumPool2d", "AvgPool2d", "Flatten"),
    *("IF", "LIF", "CubaLIF", "I"),
)


def _floats(value: Any) -> np.ndarray:
    array = np.asarray(value, np.float64)
    if not np.isfinite(array).all():
        raise ImportedError("holds values that are no numbers")
    return array


def _cells(node: nir.Node, back: list[nir.Node], dt: float | None, reset: str | None) -> Cells:
    gain = nir.gain(node, dt)
    if node["type"] == "I":
        return Cells(gain=gain, spiking=False)
    if "v_reset" in node:
        if np.any(node["v_reset"]):
            raise ImportedError(f"v_reset {np.ravel(node['v_reset'])[0]:.6g}: only 0 is read")
        reset = "zero"
    if reset is None:
        raise ImportedError("has no v_reset: give --reset subtract (as sinabs) or zero (as Norse)")
    current, voltage = nir.decayed(node, dt or 1.0)
    decays = []
    for what, value in (("tau_syn", current), ("tau", voltage)):
        level = np.unique(value)
        if len(level) > 1:
            raise ImportedError(f"{what} differs from neuron to neuron: all neurons of a network leak alike here")
        if not 0 <= level[0] <= 1 + 1e-6:
            raise ImportedError(f"{what} is {1 / level[0]:.3g} time steps of {dt} s: give a smaller --dt")
        decays.append(min(1.0, float(level[0])))
    weights = None
    if back:
        if len(back) > 1:
            raise ImportedError("feeds itself in several ways: one Linear is read")
        if np.any(back[0].get("bias", 0)):
            raise ImportedError("feeds itself with biases: put them into those of the weights before")
        weights = _floats(back[0]["weight"])
    return Cells(_floats(node["v_threshold"]), decays[0], decays[1], reset, gain, weights)


# ------------------------------------------------------------------------------------------------ networks of ours


def of_network(network: Network) -> Imported:
    """A network in integers, whose weights, biases and thresholds stay what they are.

    Raises
    ------
    ImportedError
        A layer that is not trained here.
    """
    nodes: list[Node] = []
    # What sums spikes without neurons is what feeds its users.
    names: dict[str, tuple[str, ...]] = {INPUT: (INPUT,)}
    for layer in network:
        inputs = tuple(one for name in layer.inputs for one in names[name])
        if isinstance(layer, description.Add) and layer.neuron is None:
            names[layer.name] = inputs
            continue
        try:
            pool = _spiking_pool(layer)
            if pool is not None or not isinstance(layer, description.Add):
                nodes.append(Node(layer.name, pool or _synapses(layer), inputs))
                inputs = (layer.name,)
            if layer.neuron is not None and pool is None:
                called = layer.name if isinstance(layer, description.Add) else f"{layer.name} neurons"
                last = layer is network.layers[-1] and network.readout == "voltage"
                nodes.append(Node(called, _integers(layer, network.reset, spiking=not last), inputs))
        except ImportedError as error:
            raise ImportedError(f"{network.source}: layer {layer.name}: {error}") from None
        names[layer.name] = (nodes[-1].name,)
    found = assemble(nodes, network.in_shape, network.source, network.info.get("model") or Path(network.source).stem)
    return replace(found, profile=network.info.get("profile"))


def _spiking_pool(layer: Layer) -> Pool | None:
    """A pool with neurons of its own that spike where any spike came in, as ours are written."""
    neuron = layer.neuron
    if not isinstance(layer, description.Conv) or not isinstance(neuron, Neuron) or layer.weight is None:
        return None
    alike = len(np.unique(layer.weight)) == 1 and layer.groups == layer.in_shape[0] == layer.shape[0]
    values = [np.unique(value).tolist() for value in (neuron.current_decay, neuron.voltage_decay)]
    any_fires = alike and np.max(neuron.threshold) < layer.weight.flat[0]
    plain = neuron.bias is None and layer.padding == (0, 0) and layer.dilation == (1, 1)
    if any_fires and plain and values == [[DECAY_UNITY], [0]]:
        return Pool("any", layer.weight.shape[2:], layer.stride)  # type: ignore[arg-type]
    return None


def _synapses(layer: Layer) -> AnyPart:
    if isinstance(layer, description.Flatten):
        return Flatten()
    if isinstance(layer, description.Pool):
        if layer.padding != (0, 0):
            raise ImportedError(f"padding {layer.padding}: pools of models have none")
        return Pool("sum", layer.kernel, layer.stride)
    if layer.weight is None or not isinstance(layer, description.Conv | description.Dense):
        raise ImportedError(f"layers of kind {layer.kind} are not made a run")
    bias = layer.neuron.bias if isinstance(layer.neuron, Neuron) else None
    if bias is not None and bias.ndim > 1:
        raise ImportedError("has a bias for each neuron, and training one a channel")
    weight = layer.weight.astype(np.float64)
    if isinstance(layer, description.Dense):
        if layer.delay is not None or layer.recurrent_delay is not None:
            raise ImportedError("has delays, which training does not have here")
        return Weights(weight, bias)
    return Weights(weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)


def _integers(layer: Layer, reset: str, spiking: bool) -> Cells:
    neuron = layer.neuron
    if not isinstance(neuron, Neuron):
        raise ImportedError("sends values with neurons that are not trained here")
    if layer.neuron is not None and neuron.bias is not None and isinstance(layer, description.Add):
        raise ImportedError("an add with biases is not made a run")
    decays = []
    for name in ("current_decay", "voltage_decay"):
        values = np.unique(getattr(neuron, name))
        if len(values) > 1:
            raise ImportedError(f"{name} {values[0]}..{values[-1]}: all neurons of a network leak alike here")
        decays.append(float(values[0]) / DECAY_UNITY)
    recurrent = layer.recurrent if isinstance(layer, description.Dense) else None
    back = None if recurrent is None else recurrent.astype(np.float64)
    # The voltage of neurons that never spike has no threshold: its unit is that of training.
    threshold = np.asarray(neuron.threshold if spiking else round(layer.weight_scale or 64), np.float64)
    return Cells(threshold, decays[0], decays[1], reset, back=back, spiking=spiking)
