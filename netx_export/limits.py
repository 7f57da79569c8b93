"""How far the states of neurons went in a simulation, and how often their bits were too few."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np

from netx_export.network import MESSAGE_BITS, STATE_BITS, Layer, Network

UNCOUNTED = "wraps of u and saturations of v were not counted: Lava's own models (stock) do not"
OF_SPIKES, OF_MESSAGES = ("u", "v"), ("sigma", "message")


@dataclass(frozen=True)
class Limits:
    """The states of one layer's neurons, over all samples, neurons and time steps.

    Attributes
    ----------
    u_max : int or None
        Largest |u| that a neuron would have had before it wrapped. None: neurons without a current (event-driven).
    v_max : int or None
        Largest |v| that a neuron would have had before it saturated, or a spike reset it. None: not followed, as it
        cannot pass its bits (event-driven).
    wraps : int
        How many times u was beyond what its bits hold, in neurons times time steps.
    saturations : int
        The same of v.
    of : (str, str)
        What they are of. Of sigma-delta neurons: ``("sigma", "message")``, of 24 and 16 bits on the chip
        (`netx_export.network.MESSAGE_BITS`); Lava's model, and so the simulators, neither wrap nor saturate there. What
        `netx_export.network.Sigma` sends is sigma itself, and not counted again.

    Notes
    -----
    Lava keeps a u of just 2**23 as it is, in one bit too many; it is counted as beyond.
    """

    u_max: int | None
    v_max: int | None
    wraps: int = 0
    saturations: int = 0
    of: tuple[str, str] = OF_SPIKES

    def __or__(self, other: Limits) -> Limits:
        """Of the runs of both."""
        u_max, v_max = _larger(self.u_max, other.u_max), _larger(self.v_max, other.v_max)
        return Limits(u_max, v_max, self.wraps + other.wraps, self.saturations + other.saturations, self.of)


def _larger(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else max(one, other)


def from_counts(network: Network, counts: Iterable[Iterable[int]]) -> dict[str, Limits]:
    """Limits of rows u_max, v_max, wraps, saturations, one a layer with neurons."""
    of = OF_MESSAGES if network.graded else OF_SPIKES
    limits = {}
    for layer, row in zip(network.spiking, counts, strict=True):
        u_max, v_max, wraps, saturations = map(int, row)
        limits[layer.name] = Limits(u_max, v_max, wraps, saturations, of)
    return limits


def add_counts(total: np.ndarray, counts: np.ndarray) -> None:
    """Take the counts (..., 4) of further runs into those of others."""
    np.maximum(total[..., :2], counts[..., :2], out=total[..., :2])
    total[..., 2:] += counts[..., 2:]


def merged(one: Mapping[str, Limits] | None, other: Mapping[str, Limits] | None) -> dict[str, Limits] | None:
    """Limits of two runs of the same network together; unknown where those of one are."""
    return None if one is None or other is None else {key: limits | other[key] for key, limits in one.items()}


def measured(network: Network, limits: Mapping[str, Limits]) -> Network:
    """The network with what a run over the training data measured: `Layer.u_measured` and `Layer.v_measured`."""
    if network.graded:
        return network
    layers = [layer if layer.neuron is None else _measured(layer, limits[layer.name]) for layer in network]
    return replace(network, layers=tuple(layers))


def _measured(layer: Layer, limits: Limits) -> Layer:
    return replace(layer, u_measured=limits.u_max, v_measured=limits.v_max)


def text(limits: Mapping[str, Limits] | None) -> str:
    """One line that says which layers wrapped or saturated; nothing where none did.

    Examples
    --------
    >>> text({"conv1": Limits(9, 9), "fc": Limits(9_000_000, 5, wraps=2)})
    'u was beyond its bits and wrapped: fc 2 times, up to 9,000,000'
    """
    if limits is None:
        return UNCOUNTED
    wrapped = [f"{key} {_times(x.wraps)}, up to {x.u_max:,}" for key, x in limits.items() if x.wraps]
    saturated = [f"{key} {_times(x.saturations)}, up to {x.v_max:,}" for key, x in limits.items() if x.saturations]
    both = "u was beyond its bits and wrapped: ", "v was beyond its bits and saturated: "
    if any(each.of == OF_MESSAGES for each in limits.values()):
        held = "which Lava's model holds and the chip does not"
        both = f"sigma was beyond {STATE_BITS} bits, {held}: ", f"messages were beyond {MESSAGE_BITS} bits, {held}: "
    parts = [both[0] + "; ".join(wrapped)] if wrapped else []
    parts += [both[1] + "; ".join(saturated)] if saturated else []
    return " | ".join(parts)


def _times(number: int) -> str:
    return f"{number:,} time" + ("" if number == 1 else "s")


def to_json(limits: Mapping[str, Limits] | None) -> str:
    """As JSON: an object of objects, or null where unknown."""
    return json.dumps(None if limits is None else {key: _plain(each) for key, each in limits.items()})


def _plain(limits: Limits) -> dict[str, object]:
    return {name: value for name, value in asdict(limits).items() if name != "of" or limits.of != OF_SPIKES}
