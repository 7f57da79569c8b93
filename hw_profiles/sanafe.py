"""SANA-FE, a simulator of Loihi 1 with its network on chip, as a second opinion on what a sample costs.

The mapped network and the measured input spikes go to SANA-FE, which lets the neurons fire by itself. Needs the package
``sanafe`` (optional: ``pip install 'mtt-lava[sanafe]'``).
"""

from __future__ import annotations

import contextlib
import io
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hw_profiles.energy import Cost
from hw_profiles.geometry import Geometry, as_map, per_neuron, slices
from hw_profiles.groups import groups
from hw_profiles.placement import Placement
from hw_profiles.profile import ProfileError
from netx_export.connections import connections
from netx_export.network import INPUT, Dense, Layer, Network, Neuron
from netx_export.text import table

CONNECTIONS_MAX = 3_000_000
"""SANA-FE keeps every synapse by itself: more of them take it minutes and gigabytes."""
INPUT_UNITS = 1024
"""Inputs of a core; two on one unit give wrong spikes silently."""


@dataclass(frozen=True)
class Opinion:
    """What SANA-FE says of one sample, beside what `hw_profiles.cost` says of it.

    Attributes
    ----------
    ours : Cost
        Of the same sample.
    synapses, neurons, network : float
        Energy in pJ: of synaptic operations; of neurons; of messages and hops.
    time : float
        us, until the last layer has answered.
    messages, hops : int
        Those of the input included.
    spikes, measured : tuple of int
        Of each layer with neurons, as SANA-FE's neurons fired, and as was measured.
    """

    ours: Cost
    synapses: float
    neurons: float
    network: float
    time: float
    messages: int
    hops: int
    spikes: tuple[int, ...]
    measured: tuple[int, ...]

    @property
    def same_spikes(self) -> bool:
        """Whether SANA-FE's neurons fired as often as was measured."""
        return self.spikes == self.measured

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self) | {"ours": self.ours.to_dict()}

    @property
    def _sent(self) -> float:
        return sum(layer.messages or 0 for layer in self.ours.layers)

    def _ours(self, *names: str) -> float | None:
        values = [self.ours.energy[name].value for name in names]
        return None if None in values else sum(value or 0 for value in values)

    def __str__(self) -> str:
        ours, step = self.ours, self.ours.time_step.value
        rows = [
            ("", "here", "SANA-FE"),
            ("synaptic operations, pJ", _text(self._ours("synaptic operations")), _text(self.synapses)),
            ("neurons, pJ", _text(self._ours("neuron updates")), _text(self.neurons)),
            ("messages and hops, pJ", _text(self._ours("spikes within a tile", "hops")), _text(self.network)),
            ("total, pJ", _text(self._ours("total")), _text(self.synapses + self.neurons + self.network)),
            ("time, us", _text(None if step is None else step * (ours.time_steps or 0) / 1000), _text(self.time)),
            ("messages", _text(self._sent), _text(self.messages)),
            ("hops", _text(sum(sum(layer.hops or ()) for layer in ours.layers)), _text(self.hops)),
            ("spikes", _text(sum(self.measured)), _text(sum(self.spikes))),
        ]
        why = [f"- {line}" for line in self._why()]
        return "\n".join(
            ["second opinion on the first sample alone: SANA-FE", *table(rows, left=1), "why they differ:", *why]
        )

    def _why(self) -> Iterator[str]:
        if not self.same_spikes:
            yield f"its neurons fired otherwise, layer by layer: {self.spikes}, measured {self.measured}"

        def each(energy: float | None, count: float) -> str:
            return f"{(energy or 0) / max(count, 1):.1f} pJ"

        synops, updates = self.ours.synops, sum(layer.updates or 0 for layer in self.ours.layers)
        yield (
            f"a synaptic operation takes {each(self.synapses, synops)} there, calibrated on hardware, and "
            f"{each(self._ours('synaptic operations'), synops)} here, the least in simulations before silicon"
        )
        yield (
            f"a neuron takes {each(self.neurons, updates)} a time step there, making its spikes included, and "
            f"{each(self._ours('neuron updates'), updates)} here, on average"
        )
        yield (
            f"a message takes {each(self.network, self.messages)} there, to write it and for its hops, and "
            f"{each(self._ours('spikes within a tile', 'hops'), self._sent)} here"
        )
        yield f"it also sends the input, from cores of its own: {self.messages:,} messages instead of {self._sent:,.0f}"
        yield "its time includes the network on chip and the barrier after every time step, ours the busiest core only"


def _text(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.0f}"


def sanafe(network: Network, placement: Placement, inputs: np.ndarray, ours: Cost) -> Opinion:
    """Let SANA-FE simulate one sample on Loihi 1.

    Parameters
    ----------
    network : netx_export.network.Network
    placement : Placement
        On one chip of Loihi 1.
    inputs : numpy.ndarray
        (C, H, W, T) or (F, T), 0 or 1.
    ours : Cost
        Of this sample: what to compare with.

    Raises
    ------
    ProfileError
        The package is missing, or SANA-FE cannot represent the network: what, and why.
    """
    try:
        import sanafe as simulator
    except ImportError:
        raise ProfileError("the package sanafe is not installed: pip install 'mtt-lava[sanafe]'") from None
    active = _check(network, placement, inputs)
    held = groups(network)
    number = {group.index: np.zeros(as_map(group.layer.shape), int) for group in held}
    for core in placement.cores:
        for part in core.parts:
            number[part.layer][slices(part.span)] = core.number
    architecture = simulator.load_loihi()
    cores = [core for tile in architecture.tiles for core in tile.cores]
    free = len(placement.cores)
    if free + -(-len(active) // INPUT_UNITS) > len(cores):
        raise ProfileError(f"SANA-FE: {free} cores and {len(active):,} inputs do not fit a chip of {len(cores)} cores")
    net = simulator.Network()
    source = net.create_neuron_group("input", max(len(active), 1))
    trains = inputs.reshape(-1, inputs.shape[-1])
    for i, flat in enumerate(active):
        spikes = [int(s) for s in trains[flat]]
        unit = f"loihi_inputs[{i % INPUT_UNITS}]"
        source[i].set_attributes(soma_hw_name=unit, model_attributes={"spikes": spikes})
    if not len(active):
        source[0].set_attributes(soma_hw_name="loihi_inputs[0]", model_attributes={"spikes": [0]})
    made = {INPUT: (source, np.asarray(active))}
    for index, layer, feeds in ((group.index, group.layer, group.feeds) for group in held):
        assert isinstance(layer.neuron, Neuron)
        size = math.prod(layer.shape)
        kept = 1 - int(np.max(layer.neuron.voltage_decay)) / 4096
        group = net.create_neuron_group(
            f"layer{index}",
            size,
            model_attributes={"leak_decay": kept, "reset": 0.0, "reset_mode": "hard"},
            soma_hw_name="loihi_lif",
            default_synapse_hw_name="loihi_dense_synapse" if isinstance(layer, Dense) else "loihi_conv_synapse",
            log_spikes=True,
        )
        thresholds = per_neuron(layer, layer.neuron.threshold)
        for i in range(size):
            group[i].set_attributes(model_attributes={"threshold": float(thresholds[i])})
        for feed in feeds:
            before, chosen = made[feed.source]
            if len(chosen):
                pairs, weights = _connections(feed.synapses, chosen)
                before.connect_neurons_sparse(group, {"w": weights.tolist()}, list(map(tuple, pairs.tolist())))
        made[layer.name] = (group, np.arange(size))
        # In order of the cores: SANA-FE keeps the order of mapping within a core.
        where = number[index].ravel()
        for i in np.argsort(where, kind="stable").tolist():
            group[i].map_to_core(cores[where[i]])
    for i in range(max(len(active), 1)):
        source[i].map_to_core(cores[free + i // INPUT_UNITS])
    steps, depth = inputs.shape[-1], max(map(network.depth, (layer.name for layer in network.spiking)))
    with contextlib.redirect_stdout(io.StringIO()):  # it counts its steps there
        chip = simulator.SpikingChip(architecture)
        chip.load(net)
        # A step more for every layer, so that the last input gets through.
        result = chip.sim(steps + depth, spike_trace=True, perf_trace=True)
    fired = Counter(spike.group_name for step in result["spike_trace"] for spike in step)
    energy = {name: 1e12 * value for name, value in result["energy"].items()}
    return Opinion(
        ours,
        energy["synapse"],
        energy["dendrite"] + energy["soma"],
        energy["network"],
        1e6 * result["sim_time"],
        int(result["packets_sent"]),
        int(sum(result["perf_trace"]["hops"])),
        tuple(fired[f"layer{index}"] for index in number),
        tuple(round(layer.spikes) for layer in ours.layers),
    )


def _check(network: Network, placement: Placement, inputs: np.ndarray) -> np.ndarray:
    """The inputs that spike at all, by flat index; or why SANA-FE cannot run this."""
    if placement.profile.family != "loihi" or placement.profile.facts.synapse_layout.value != "chunks":
        raise ProfileError(f"SANA-FE models Loihi 1, not {placement.profile.name}")
    if not placement.complete or placement.chips != 1:
        raise ProfileError("SANA-FE models one chip: the network is not placed on one")
    if ((inputs != 0) & (inputs != 1)).any():
        raise ProfileError("SANA-FE: graded input cannot be represented; give 0 and 1")
    count = 0
    if any(way.source == INPUT and way.wait for way in connections(network)):
        raise ProfileError("SANA-FE: a shortcut from the input, which the host sends later, cannot be represented")
    for layer in network.layers:
        neuron = layer.neuron
        if neuron is None:
            continue
        what = ""
        if not isinstance(neuron, Neuron):
            what = f"{neuron.kind} neurons"
        elif np.any(np.asarray(neuron.current_decay) != 4096):
            what = "a current that lasts longer than a time step"
        elif neuron.bias is not None and np.any(neuron.bias):
            what = "biases"
        elif np.ptp(np.asarray(neuron.voltage_decay)):
            what = "different decays in a layer"
        elif any(getattr(layer, name, None) is not None for name in ("delay", "recurrent")):
            what = "delays and recurrence"
        if what:
            raise ProfileError(f"SANA-FE: layer {layer.name}: {what} cannot be represented")
    for feed in (feed for group in groups(network) for feed in group.feeds):
        count += feed.synapses.weights * math.prod(feed.synapses.shape[1:])
    if count > CONNECTIONS_MAX:
        raise ProfileError(
            f"SANA-FE keeps every synapse: {count:,} are more than {CONNECTIONS_MAX:,}; use a smaller net"
        )
    return np.flatnonzero(inputs.reshape(-1, inputs.shape[-1]).any(axis=1))


def _connections(layer: Layer, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(source, target) pairs and weights, sources counted among the `chosen` inputs."""
    place = np.full(math.prod(layer.in_shape), -1)
    place[chosen] = np.arange(len(chosen))
    assert layer.weight is not None
    if isinstance(layer, Dense):
        target, source = np.indices(layer.weight.shape).reshape(2, -1)
        weight = layer.weight.ravel()
    else:
        geometry = Geometry(layer)
        (y, i), (x, j) = (np.nonzero(axis.target >= 0) for axis in geometry.axes)
        row, column = geometry.axes[0].target[y, i], geometry.axes[1].target[x, j]
        out, fan = np.indices(layer.weight.shape[:2]).reshape(2, -1)
        channel = out // geometry.group * geometry.fan + fan
        o, a, b = np.ix_(range(len(out)), range(len(y)), range(len(x)))
        source = np.ravel_multi_index((channel[o], y[a], x[b]), layer.in_shape).ravel()
        target = np.ravel_multi_index((out[o], row[a], column[b]), layer.shape).ravel()
        weight = layer.weight[out[o], fan[o], i[a], j[b]].ravel()
    kept = place[source] >= 0
    return np.stack([place[source[kept]], target[kept]], axis=1), weight[kept].astype(float)
