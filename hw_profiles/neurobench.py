"""A network in NeuroBench's vocabulary, so that its numbers stand beside those of others.

Definitions are those of NeuroBench's harness, version 2.3.0 (``neurobench.metrics``: ``static/footprint.py``,
``static/connection_sparsity.py``, ``workload/activation_sparsity.py``, ``workload/synaptic_operations.py``,
``utils/layers/macs.py``; Yik et al., Nature Communications, 2025, arXiv:2304.04640). Wrapping
the training network itself counts too much: its blocks hold copies and norms that no chip has. Here the network in
integers is counted, as the harness counts a plain PyTorch twin of it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hw_profiles.geometry import met
from hw_profiles.profile import Profile
from netx_export.network import DECAY_UNITY, INPUT, Add, AnyNeuron, Dense, Layer, Network, NetworkError
from netx_export.result import Activity
from netx_export.simulation import linear

if TYPE_CHECKING:
    from netx_export.tally import Tally


@dataclass(frozen=True)
class NeuroBench:
    """What the harness calls these; means of a sample where they depend on data.

    Attributes
    ----------
    footprint : float or None
        Bytes: weights, delays, biases and neuron states, each as wide as the chip holds it. Without what layers or
        cores share (thresholds, decays) and without tables of routes. None: the profile does not know a width.
    connection_sparsity : float
        Share, 0..1, of weights that are 0.
    activation_sparsity : float or None
        Share, 0..1, of what neurons send that is 0, over neurons, time steps and samples. None without time steps.
    effective_macs, effective_acs : float
        Pairs of an input that is not 0 and a weight that is not 0. Those of a layer whose input is ever something else
        than 0, 1 and -1 are multiply-accumulates, the others accumulations.
    dense : float or None
        Pairs of an input and a weight, zero or not. None without time steps.
    """

    footprint: float | None
    connection_sparsity: float
    activation_sparsity: float | None
    effective_macs: float
    effective_acs: float
    dense: float | None

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> NeuroBench:
        """What `to_dict` gave."""
        shares = ("footprint", "connection_sparsity", "activation_sparsity")
        operations = content["synaptic_operations"]
        counts = (operations[name] for name in ("Effective_MACs", "Effective_ACs", "Dense"))
        return cls(*(content[name] for name in shares), *counts)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it, with the names of the harness."""
        return {
            "footprint": self.footprint,
            "connection_sparsity": self.connection_sparsity,
            "activation_sparsity": self.activation_sparsity,
            "synaptic_operations": {
                "Effective_MACs": self.effective_macs,
                "Effective_ACs": self.effective_acs,
                "Dense": self.dense,
            },
        }


class NeuroBenchCounter:
    """Counts what a network did, samples after samples.

    Parameters
    ----------
    network : netx_export.network.Network
    layers : collection of str, optional
        Names of the layers whose weights are connections; default: all that have weights. The harness passes over
        pools, so name the others where pools are written as convolutions.

    Notes
    -----
    The harness tells accumulations by the values of one call of a layer; the result is the same where all samples and
    time steps go through it in one call. A spike that comes back to its own layer is counted once, even in the last
    step.
    """

    def __init__(self, network: Network, layers: Collection[str] | None = None) -> None:
        self.network = network
        self.weighted = _weighted(network, layers)
        self._events = {layer.name: np.zeros(layer.in_shape, np.int64) for layer in self.weighted}
        back = [layer for layer in self.weighted if _recurrent(layer) is not None]
        self._back = {layer.name: np.zeros(layer.shape, np.int64) for layer in back}
        self._graded = dict.fromkeys([*self._events, *(f"{name} back" for name in self._back)], False)
        self._values = self._nonzero = self._samples = self._steps = 0

    def add(self, inputs: np.ndarray, spikes: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Count some samples.

        Parameters
        ----------
        inputs : numpy.ndarray
            What reached the network, (N, C, H, W, T) or (N, F, T).
        spikes : sequence of numpy.ndarray
            Of every layer with neurons, in order, shaped like it; without the last where it is read as voltage.

        Returns
        -------
        list of numpy.ndarray
            For each of `spikes` what every neuron sent, summed over these samples and their time steps.

        Raises
        ------
        netx_export.network.NetworkError
            Sums meet weights twice without neurons between.
        """
        from netx_export.tally import tally  # not above: Numba takes a second to import

        named = zip([layer.name for layer in self.network.spiking], spikes, strict=False)
        signals = {INPUT: inputs, **dict(named)}
        tallies = {name: tally(signal) for name, signal in signals.items()}
        self._samples += len(inputs)
        self._steps += len(inputs) * inputs.shape[-1]
        sent = [name for name in signals if name != INPUT]
        for name in sent:
            self._values += signals[name].size
            self._nonzero += int(tallies[name].spikes.sum())
        for layer in self.weighted:
            before = layer.inputs[0]
            if before not in tallies:
                tallies[before] = tally(_sent(self.network, before, signals))
            self._count(self._events[layer.name], layer.name, tallies[before])
            if layer.name in self._back and layer.name in tallies:
                self._count(self._back[layer.name], f"{layer.name} back", tallies[layer.name])
        return [tallies[name].sums for name in sent]

    def _count(self, events: np.ndarray, key: str, found: Tally) -> None:
        events += found.spikes.reshape(events.shape)
        self._graded[key] |= found.graded

    def result(self, profile: Profile) -> NeuroBench:
        """Means over all samples counted, at least one, and the footprint on a chip."""
        effective, every = {}, 0
        for layer in self.weighted:
            weight, back = _weight(layer), _recurrent(layer)
            effective[layer.name] = int((met(layer, weight != 0) * self._events[layer.name]).sum())
            every += int(met(layer, np.ones_like(weight, bool)).sum())
            if back is not None:
                effective[f"{layer.name} back"] = int(((back != 0).sum(0) * self._back[layer.name]).sum())
                every += back.size
        macs = sum(count for name, count in effective.items() if self._graded[name])
        return NeuroBench(
            footprint(self.network, profile),
            connection_sparsity(self.weighted),
            (self._values - self._nonzero) / self._values if self._values else 0.0,
            macs / self._samples,
            (sum(effective.values()) - macs) / self._samples,
            every * self._steps / self._samples,
        )


def of_events(
    network: Network, activity: Activity, profile: Profile, layers: Collection[str] | None = None
) -> NeuroBench:
    """The same without a clock: every event is one, and there are no time steps in which nothing could be sent.

    Parameters
    ----------
    network : netx_export.network.Network
    activity : Activity
    profile : Profile
    layers : collection of str, optional
        See `NeuroBenchCounter`.
    """
    weighted = _weighted(network, layers)
    spikes = {layer.name: each for layer, each in zip(network.spiking, activity.spikes, strict=True)}
    signals = {name: np.asarray(each)[None, ..., None] for name, each in {INPUT: activity.inputs, **spikes}.items()}
    arrived = ((layer, _sent(network, layer.inputs[0], signals)[0, ..., 0]) for layer in weighted)
    acs = sum(float((met(layer, _weight(layer) != 0) * events).sum()) for layer, events in arrived)
    return NeuroBench(footprint(network, profile), connection_sparsity(weighted), None, 0.0, acs, None)


def _weighted(network: Network, layers: Collection[str] | None) -> list[Layer]:
    return [layer for layer in network if layer.weight is not None and (layers is None or layer.name in layers)]


def _sent(network: Network, name: str, signals: dict[str, np.ndarray]) -> np.ndarray:
    """What a layer sends, (N, *shape, T); layers without neurons, which pass on what comes, are added to `signals`."""
    if name not in signals:
        layer = network[name]
        if layer.weight is not None:
            raise NetworkError(f"layer {name}: its sums meet weights again without neurons between: give it neurons")
        before = [_sent(network, each, signals) for each in layer.inputs]
        if isinstance(layer, Add):
            signals[name] = np.sum(before, 0)
        else:
            n, *_, steps = before[0].shape
            # Time is slowest in memory where the trained network gives it: nothing is copied.
            frames = np.moveaxis(before[0], -1, 0).reshape(steps * n, *layer.in_shape)
            signals[name] = np.moveaxis(linear([layer], frames).reshape(steps, n, *layer.shape), 0, -1)
    return signals[name]


def footprint(network: Network, profile: Profile) -> float | None:
    """Bytes of a network as a chip holds it; see `NeuroBench`."""
    facts = profile.facts
    parts: list[tuple[int, int | None]] = []
    for layer in network:
        weights = [each for each in (layer.weight, _recurrent(layer)) if each is not None]
        parts += [(each.size, facts.weight_bits.value) for each in weights]
        delays = [getattr(layer, name, None) for name in ("delay", "recurrent_delay")]
        longest = facts.delay_max.value
        bits = None if longest is None else longest.bit_length()
        parts += [(each.size, bits) for each in delays if each is not None and np.any(each)]
        if layer.neuron is None:
            continue
        parts.append((_states(layer.neuron, profile) * math.prod(layer.shape), facts.state_bits.value))
        if layer.neuron.bias is not None and np.any(layer.neuron.bias):
            parts.append((layer.neuron.bias.size, facts.bias_mantissa_bits.value))
    if any(bits is None for _, bits in parts):
        return None
    return sum(count * (bits or 0) for count, bits in parts) / 8


def _states(neuron: AnyNeuron, profile: Profile) -> int:
    """How many numbers a neuron keeps from one step to the next; no u where no current can last."""
    return len(neuron.states) - ("u" in neuron.states and profile.facts.current_decay_min.value == DECAY_UNITY)


def connection_sparsity(layers: Sequence[Layer]) -> float:
    """Share of the weights of layers that are 0; 0.0 where they have none."""
    held = [each for layer in layers for each in (layer.weight, _recurrent(layer)) if each is not None]
    total = sum(each.size for each in held)
    return sum(int((each == 0).sum()) for each in held) / total if total else 0.0


def _weight(layer: Layer) -> np.ndarray:
    assert layer.weight is not None
    return layer.weight


def _recurrent(layer: Layer) -> Any:
    return layer.recurrent if isinstance(layer, Dense) else None
