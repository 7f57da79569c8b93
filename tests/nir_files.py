"""What the tests of NIR share: networks that readers can run, what they must fire, and an interpreter of files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import reference
from hypothesis import strategies as st
from strategies import chains, graphs, networks

from netx_export.network import (
    INPUT,
    STATE_MAX,
    Add,
    Dense,
    Layer,
    Network,
    Neuron,
)
from netx_export.nir import READERS


@st.composite
def clocked(
    draw: st.DrawFn, reader: str = "nir", of: st.SearchStrategy[Network] | None = None, leaky: bool = False
) -> Network:
    """A random network whose neurons integrate and fire, or leak, mostly such that the reader takes it."""
    target = READERS[reader]
    if of is None:
        of = networks(synapses="recurrent" if target.recurrent else "plain") | chains() | graphs()
    network = draw(of)
    layers: list[Layer] = []
    for layer in network:
        if layer.neuron is not None:
            decays = (draw(st.integers(1, 4096)), draw(st.integers(0, 4096))) if leaky else (4096, 0)
            bias = layer.neuron.bias
            one_each = draw(st.sampled_from((None, np.arange(layer.shape[0]) - 1)))
            threshold = draw(st.sampled_from((1, 7, 30, 120)))
            if bias is None and not target.uniform and draw(st.integers(0, 3)) == 0:
                threshold = threshold + np.arange(np.prod(layer.shape)).reshape(layer.shape) % 5
            neuron = Neuron(threshold, *decays, None if isinstance(layer, Add) or leaky else one_each)
            layer = replace(layer, neuron=neuron)
        if isinstance(layer, Dense):
            layer = replace(layer, delay=None, recurrent_delay=None)
            layer = layer if target.recurrent else replace(layer, recurrent=None)
        layers.append(layer)
    return replace(network, layers=tuple(layers), reset=target.resets[0])


# ------------------------------------------------------------------------------------------------ what it must fire


def hard_reset(network: Network, inputs: np.ndarray) -> dict[str, np.ndarray] | None:
    """Spikes of layers with neurons, by the reference; None where a state leaves its bits."""
    records = dict(zip((layer.name for layer in network), reference.simulate(network, inputs), strict=True))
    named = {layer.name: records[layer.name] for layer in network.spiking}
    if any(max(record["u_before"].max(), record["v_before"].max()) > STATE_MAX for record in named.values()):
        return None
    return {name: record["spikes"] for name, record in named.items()}


def soft_reset(network: Network, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """The same of integrate-and-fire neurons that reset by subtraction, as `mtt_lava.neuron` trains them."""
    given, fired = {INPUT: inputs.astype(np.int64)}, {}
    for layer in network:
        out = np.zeros((len(inputs), *layer.shape, inputs.shape[-1]), np.int64)
        v = np.zeros(out.shape[:-1], np.int64)
        for t in range(inputs.shape[-1]):
            total = sum(reference.synapses(layer, given[name], t) for name in layer.inputs)
            if layer.neuron is None:
                out[..., t] = total
                continue
            threshold = reference.each(layer, layer.neuron.threshold)
            v = v + total + reference.each(layer, 0 if layer.neuron.bias is None else layer.neuron.bias)
            out[..., t] = np.maximum(v // threshold, 0)
            v = np.maximum(v - threshold * out[..., t], -threshold)
        given[layer.name] = out
        if layer.neuron is not None:
            fired[layer.name] = out
    return fired


# ------------------------------------------------------------------------------------------------ interpreter


def interpret(path: Path, inputs: np.ndarray, dt: float, above: bool, reset: str) -> dict[str, np.ndarray]:
    """What every node of a NIR file gives, (N, ..., T): NIR's equations by forward Euler, in 64-bit floating point.

    Parameters
    ----------
    path : Path
        The file; nodes in an order that runs.
    inputs : numpy.ndarray
        (N, ..., T)
    dt : float
        Seconds a time step.
    above : bool
        Whether neurons spike where v > threshold; else where v >= threshold. (By subtraction it is >=.)
    reset : {"zero", "subtract"}
    """
    with h5py.File(path) as file:
        nodes = {name: {field: v[()] for field, v in node.items()} for name, node in file["node/nodes"].items()}
        edges = [(a.decode(), b.decode()) for a, b in file["node/edges"][()]]
    found: dict[str, list[np.ndarray]] = {name: [] for name in nodes}
    states: dict[str, tuple[Any, Any]] = dict.fromkeys(nodes, (0.0, 0.0))
    for t in range(inputs.shape[-1]):
        for name, node in nodes.items():
            if node["type"] == b"Input":
                found[name].append(inputs[..., t].astype(np.float64))
                continue
            # What comes from behind is of the step before.
            sources = [found[one] for one, other in edges if other == name]
            terms = [source[-1] for source in sources if source]
            states[name], out = _node(node, sum(terms), states[name], dt, above, reset)
            found[name].append(out)
    return {name: np.stack(steps, -1) for name, steps in found.items()}


def _node(
    node: dict[str, Any], x: Any, state: tuple[Any, Any], dt: float, above: bool, reset: str
) -> tuple[tuple[Any, Any], np.ndarray]:
    kind = node["type"].decode()
    if kind == "Output":
        return state, x
    if kind == "Flatten":
        return state, x.reshape(len(x), -1)
    if kind == "Scale":
        return state, x * node["scale"]
    if kind in ("Linear", "Affine"):
        return state, x @ node["weight"].astype(np.float64).T + node.get("bias", 0)
    if kind == "SumPool2d":
        ones = np.ones((x.shape[1], 1, *node["kernel_size"]))
        return state, _convolved(x, ones, node["stride"], node["padding"], (1, 1), x.shape[1])
    if kind == "Conv2d":
        out = _convolved(x, node["weight"], *(node[name] for name in ("stride", "padding", "dilation", "groups")))
        return state, out + node["bias"][:, None, None]
    u, v = state
    if kind == "CubaLIF":
        u = u + dt / node["tau_syn"] * (node["w_in"] * x - u)
        v = v + dt / node["tau_mem"] * (node["v_leak"] - v + node["r"] * u)
    elif kind == "LIF":
        v = v + dt / node["tau"] * (node["v_leak"] - v + node["r"] * x)
    else:
        assert kind == "IF"
        v = v + x  # r is 1, or 1 / dt: what a reader wants
        assert np.all(node["r"] == 1) or np.allclose(node["r"] * dt, 1)
    if reset == "subtract":
        spikes = np.maximum(np.floor(v / node["v_threshold"]), 0)
        return (u, np.maximum(v - spikes * node["v_threshold"], -node["v_threshold"])), spikes
    spikes = (v > node["v_threshold"]) if above else (v >= node["v_threshold"])
    return (u, np.where(spikes, 0, v)), spikes.astype(np.float64)


def _convolved(x: np.ndarray, weight: np.ndarray, stride: Any, padding: Any, dilation: Any, groups: int) -> np.ndarray:
    x = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)))
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, weight.shape[2:], strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(x, reach, axis=(2, 3))
    windows = windows[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]
    parts = zip(np.split(windows, groups, axis=1), np.split(weight.astype(np.float64), groups), strict=True)
    return np.concatenate([np.einsum("nchwij,ocij->nohw", part, kernel) for part, kernel in parts], axis=1)
