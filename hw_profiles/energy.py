"""What a network's measured spikes cost on a chip: operations, messages, energy and time.

Every figure carries the status of the chip's numbers that it rests on, and has no value where the chip's number is
unknown. Sums of energy are therefore lower bounds where a part of them is unknown.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hw_profiles.families import place
from hw_profiles.geometry import Geometry, Span, as_map, slices
from hw_profiles.groups import Feed, Group, groups
from hw_profiles.placement import Part, Placement
from hw_profiles.profile import Fact, Profile, ProfileError
from netx_export.network import INPUT, Dense, Flatten, Layer, Network, Pool
from netx_export.result import Activity
from netx_export.text import table

ARITHMETIC = {"float32": (4.6, 0.9), "int8": (0.23, 0.03)}
"""pJ of a multiply-accumulate and of an addition, 45 nm, 0.9 V (Horowitz, ISSCC 2014): what papers compare with."""


@dataclass(frozen=True)
class Figure:
    """One number, and how it is known.

    Attributes
    ----------
    value : float or None
        None: the chip's number is unknown.
    unit : str
    status : str
        As a fact's; the most doubtful of the facts behind it.
    source : str
        Keys of the profile's sources.
    note : str
        What it leaves out.
    """

    value: float | None
    unit: str
    status: str
    source: str = ""
    note: str = ""

    def __str__(self) -> str:
        known = "unknown" if self.value is None else f"{_short(self.value)} {self.unit}"
        origin = ", ".join(part for part in (self.source, self.status) if part)
        return f"{known} [{origin}]" + (f" ({self.note})" if self.note else "")


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == 0 else f"{value:.3g}"


@dataclass(frozen=True)
class LayerCost:
    """Operations of one layer with neurons in one sample, on average.

    Attributes
    ----------
    name : str
    synops : float
        Synaptic operations: pairs of an incoming spike and a neuron within the kernel's reach.
    macs : int
        Multiply-accumulates of the same layer in a network that is no spiking one; where neurons send values, of as
        many frames as there are time steps.
    spikes : float
        Of neurons that send values, the messages that are not 0: each costs its synapses what a spike does.
    updates : float or None
        Updates of neurons, one a neuron and time step; None without a clock.
    messages : float or None
        Spikes it sends, each once for every part of a layer that sees it; None where not placed.
    hops : tuple of (float, float) or None
        Hops of these between tiles of a chip, east-west and north-south; None where not placed or the mesh is unknown.
    between_chips : float or None
        Messages to another chip, whose hops are unknown.
    """

    name: str
    synops: float
    macs: int
    spikes: float
    updates: float | None
    messages: float | None
    hops: tuple[float, float] | None
    between_chips: float | None


@dataclass(frozen=True)
class Cost:
    """What a sample costs on a chip.

    Attributes
    ----------
    network, profile : str
    time_steps : int or None
    layers : tuple of LayerCost
    energy : dict of str to Figure
        Of synaptic operations, neuron updates, spikes within a tile, hops, messages between chips; ``total``: the sum
        of what is known.
    time_step, latency : Figure
        Shortest time step that the busiest core allows, and time from the first input to the last output.
    arithmetic : dict of str to (float, float)
        pJ of the multiply-accumulates of the same network without spikes, and of this one's synaptic operations as
        additions (multiply-accumulates where what comes is graded), 45 nm; for comparison with papers only.
    """

    network: str
    profile: str
    time_steps: int | None
    layers: tuple[LayerCost, ...]
    energy: dict[str, Figure]
    time_step: Figure
    latency: Figure
    arithmetic: dict[str, tuple[float, float]]

    @property
    def spikes(self) -> float:
        """Spikes of all layers."""
        return sum(layer.spikes for layer in self.layers)

    @property
    def synops(self) -> float:
        """Synaptic operations of all layers."""
        return sum(layer.synops for layer in self.layers)

    def __repr__(self) -> str:
        return f"<Cost of {str(self).splitlines()[0]}: energy {self.energy['total']}>"

    def rows(self) -> list[dict[str, Any]]:
        """One a layer with neurons, for a table (``pandas.DataFrame(cost.rows())``)."""
        return [dataclasses.asdict(layer) for layer in self.layers]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        plain = dataclasses.asdict(self)
        plain["layers"] = [layer | {"hops": layer["hops"] and list(layer["hops"])} for layer in plain["layers"]]
        plain["arithmetic"] = {name: list(pair) for name, pair in self.arithmetic.items()}
        return plain

    def __str__(self) -> str:
        rows = [["layer", "spikes", "synops", "updates", "messages", "hops", "MACs without spikes"]]
        for layer in self.layers:
            hops = None if layer.hops is None else sum(layer.hops)
            numbers = (layer.spikes, layer.synops, layer.updates, layer.messages, hops, layer.macs)
            rows.append([layer.name, *("" if n is None else f"{n:,.0f}" for n in numbers)])
        time = "without a clock" if self.time_steps is None else f"at T = {self.time_steps}"
        lines = [f"{self.network} on {self.profile} {time}, mean of a sample", *table(rows, left=1)]
        named = [*((f"energy of {name}", figure) for name, figure in self.energy.items() if name != "total")]
        named += [("energy in total", self.energy["total"])]
        named += [("time step", self.time_step)] if self.time_steps is not None else []
        named += [("latency", self.latency)]
        width = max(len(name) for name, _ in named)
        lines += [f"{name.ljust(width)}  {figure}" for name, figure in named]
        for name, (dense, spiking) in self.arithmetic.items():
            ratio = f", {dense / spiking:.1f} times as much" if spiking else ""
            lines.append(
                f"arithmetic alone, 45 nm, {name}: {_short(spiking / 1000)} nJ; without spikes "
                f"{_short(dense / 1000)} nJ{ratio}"
            )
        return "\n".join(lines)


def synaptic_operations(network: Network, activity: Activity) -> list[float]:
    """Synaptic operations of a sample in each layer with neurons; needs no chip."""
    spikes = _spikes(network, activity)
    return [
        sum(_operations(Geometry(feed.synapses), _arriving(feed, spikes), _whole(group.layer)) for feed in group.feeds)
        + _fed_back(group.layer, spikes[group.layer.name]) * group.layer.shape[0]
        for group in groups(network, relays=False)
    ]


def cost(network: Network, activity: Activity, profile: Profile, placement: Placement | None = None) -> Cost:
    """What a network's measured spikes cost on a chip.

    Parameters
    ----------
    network : netx_export.network.Network
    activity : Activity
        From any backend: see `netx_export.activity`.
    profile : Profile
    placement : Placement, optional
        Default: `hw_profiles.place`.

    Returns
    -------
    Cost

    Raises
    ------
    ProfileError
        The activity is not that of this network.

    Notes
    -----
    Loihi: energy of each operation, and time of the busiest core, from Davies et al. 2018 (simulated before silicon);
    without barrier synchronisation, idle power, host and input. Speck: no figures of energy; time from an estimated
    throughput of each core.
    """
    placement = placement or place(network, profile)
    shapes = [layer.shape for layer in network.spiking]
    if [np.shape(s) for s in activity.spikes] != shapes or np.shape(activity.inputs) != network.layers[0].in_shape:
        got = [np.shape(activity.inputs), *(np.shape(s) for s in activity.spikes)]
        raise ProfileError(f"activity of shapes {got} is not that of layers {[network.layers[0].in_shape, *shapes]}")
    held = groups(network, relays=profile.facts.clocked.value is not False)
    parts = {
        group.index: [(core.number, p) for core in placement.cores for p in core.parts if p.layer == group.index]
        for group in held
    }
    geometries = {feed: Geometry(feed.synapses) for group in held for feed in group.feeds}
    spikes = _spikes(network, activity)
    work = {core.number: np.zeros(3) for core in placement.cores}
    steps = activity.time_steps
    frames = steps or 1 if network.graded else 1
    layers = []
    for group in held:
        layer = group.layer
        maps = spikes[group.held or layer.name].reshape(as_map(layer.shape))
        events = {feed: _arriving(feed, spikes, group) for feed in group.feeds}
        back = _fed_back(layer, maps)

        def operations(span: Span, of: dict[Feed, np.ndarray], back: float) -> float:
            return sum(_operations(geometries[feed], some, span) for feed, some in of.items()) + back * _size(span[0])

        for core, part in parts[group.index]:
            active = float(maps[slices(part.span)].sum())
            idle = 0 if steps is None else part.neurons * steps - active
            work[core] += (operations(part.span, events, back), active, idle)
        targets: list[tuple[int, Part, Feed | None]] = []
        if isinstance(layer, Dense) and layer.recurrent is not None:
            targets += [(core, part, None) for core, part in parts[group.index]]
        for other in held:
            for feed in other.feeds:
                if feed.source == layer.name:
                    targets += [(core, part, feed) for core, part in parts[other.index]]
        mine = parts[group.index]
        sent = _messages(profile, maps, mine, targets, geometries) if placement.complete else (None, None, None)
        ones = {feed: np.ones(feed.synapses.in_shape) for feed in group.feeds}
        layers.append(
            LayerCost(
                layer.name,
                operations(_whole(layer), events, back),
                frames * round(operations(_whole(layer), ones, _fed_back(layer, np.ones(layer.shape)))),
                float(maps.sum()),
                None if steps is None else float(maps.size * steps),
                *sent,
            )
        )
    energy = _energy(profile, layers)
    depth = max(map(network.depth, (layer.name for layer in network.spiking)), default=0)
    time_step, latency = _times(profile, steps, depth, work if placement.complete else {})
    return Cost(
        network.source,
        profile.name,
        steps,
        tuple(layers),
        energy,
        time_step,
        latency,
        {
            name: _arithmetic(layers, (activity.graded or network.graded, network.graded), *pair)
            for name, pair in ARITHMETIC.items()
        },
    )


def _spikes(network: Network, activity: Activity) -> dict[str, np.ndarray]:
    """Events of the input and of every layer with neurons, in its shape."""
    named = zip(network.spiking, activity.spikes, strict=True)
    return {INPUT: np.asarray(activity.inputs, float)} | {layer.name: np.asarray(s, float) for layer, s in named}


def _arriving(feed: Feed, spikes: dict[str, np.ndarray], group: Group | None = None) -> np.ndarray:
    """What arrives at the weights of a feed, in the shape of their input; pools without neurons pass events on."""
    if feed.way is None:  # into a relay
        assert group is not None
        return spikes[group.held]
    events = spikes[feed.way.source]
    for layer in feed.way.path:
        if layer.weight is not None or layer.neuron is not None:
            break
        if isinstance(layer, Pool):
            rows, columns = (axis.matrix for axis in Geometry(layer).axes)
            events = np.einsum("cyx,yr,xs->crs", events, rows, columns)
        elif isinstance(layer, Flatten):
            events = events.reshape(layer.shape)
    return events


def _whole(layer: Layer) -> Span:
    return tuple((0, size) for size in as_map(layer.shape))


def _size(span: tuple[int, int]) -> int:
    return span[1] - span[0]


def _fed_back(layer: Layer, spikes: np.ndarray) -> float:
    """Spikes that reach each neuron of a layer from the layer itself."""
    return float(np.sum(spikes)) if isinstance(layer, Dense) and layer.recurrent is not None else 0.0


def _operations(geometry: Geometry, events: np.ndarray, span: Span) -> float:
    """Synaptic operations of incoming events in a part of a layer."""
    if not geometry.windowed:
        return float(events.sum()) * _size(span[0])
    by_group = events.reshape(geometry.groups, geometry.fan, *events.shape[1:]).sum(1)
    first = np.arange(geometry.groups) * geometry.group
    wide = np.clip(np.minimum(first + geometry.group, span[0][1]) - np.maximum(first, span[0][0]), 0, None)
    down, across = (axis.taps(tile) for axis, tile in zip(geometry.axes, span[1:], strict=True))
    return float(np.einsum("gyx,g,y,x->", by_group, wide, down, across))


def _messages(
    profile: Profile,
    maps: np.ndarray,
    parts: Sequence[tuple[int, Part]],
    targets: Sequence[tuple[int, Part, Feed | None]],
    geometries: dict[Feed, Geometry],
) -> tuple[float, tuple[float, float] | None, float | None]:
    """Messages of a layer's spikes, their hops, and those that leave a chip."""
    mesh = _Mesh(profile)
    total, away, hops = 0.0, 0.0, np.zeros(2)
    for other, target, feed in targets:
        # A convolution's part sees a piece of the map; to a dense one, and to a core of Speck, everything is sent.
        some_of_it = feed is not None and geometries[feed].windowed and profile.family == "loihi"
        geometry = geometries[feed] if feed is not None and some_of_it else None
        if geometry is not None:
            fed = geometry.sources_of(target.span[0])
            down, across = (axis.taps(tile) > 0 for axis, tile in zip(geometry.axes, target.span[1:], strict=True))
        for core, part in parts:
            some = maps[slices(part.span)]
            if geometry is not None:
                start, rows, columns = part.span[0][0], slice(*part.span[1]), slice(*part.span[2])
                some = some[max(fed[0] - start, 0) : max(fed[1] - start, 0), down[rows]][:, :, across[columns]]
            count = float(some.sum())
            total += count
            distance = mesh.distance(core, other)
            if distance is None:
                away += count
            else:
                hops += count * np.array(distance)
    if not mesh.known:
        return total, None, None
    return total, (float(hops[0]), float(hops[1])), away


class _Mesh:
    """Tiles of a chip, numbered north to south, column after column, as SANA-FE does."""

    def __init__(self, profile: Profile) -> None:
        facts = profile.facts
        self.cores = facts.cores_per_chip.value or 1
        self.each, self.height = facts.cores_per_tile.value or 1, facts.tiles_north_south.value or 1
        self.known = None not in (facts.cores_per_tile.value, facts.tiles_north_south.value)

    def distance(self, a: int, b: int) -> tuple[int, int] | None:
        """Hops east-west and north-south between two cores; None between chips."""
        if a // self.cores != b // self.cores:
            return None
        (ax, ay), (bx, by) = (divmod(core % self.cores // self.each, self.height) for core in (a, b))
        return abs(ax - bx), abs(ay - by)


def _figure(profile: Profile, unit: str, terms: Sequence[tuple[float | None, str]]) -> Figure:
    """Sum of counts times facts."""
    facts: list[Fact[float]] = [getattr(profile.facts, fact) for _, fact in terms]
    source = ", ".join(dict.fromkeys(key for fact in facts for key in fact.source))
    if any(count is None for count, _ in terms) or any(fact.value is None for fact in facts):
        status = "unknown" if any(fact.value is None for fact in facts) else "not placed"
        return Figure(None, unit, status, source)
    value = sum((count or 0) * (fact.value or 0) for (count, _), fact in zip(terms, facts, strict=True))
    return Figure(value, unit, facts[0].status, source, facts[0].note)


def _sum(values: Sequence[float | None]) -> float | None:
    return None if any(value is None for value in values) else sum(value or 0 for value in values)


def _energy(profile: Profile, layers: Sequence[LayerCost]) -> dict[str, Figure]:
    spikes = sum(layer.spikes for layer in layers)
    updates = _sum([layer.updates for layer in layers])
    messages = _sum([layer.messages for layer in layers])
    hops = [_sum([None if layer.hops is None else layer.hops[i] for layer in layers]) for i in range(2)]
    energy = {"synaptic operations": _figure(profile, "pJ", [(sum(x.synops for x in layers), "energy_synapse")])}
    if updates is not None:
        terms = [(spikes, "energy_neuron_active"), (updates - spikes, "energy_neuron_inactive")]
        energy["neuron updates"] = _figure(profile, "pJ", terms)
    energy["spikes within a tile"] = _figure(profile, "pJ", [(messages, "energy_spike_tile")])
    energy["hops"] = _figure(profile, "pJ", [(hops[0], "energy_hop_east_west"), (hops[1], "energy_hop_north_south")])
    away = _sum([layer.between_chips for layer in layers])
    if away:
        energy["messages between chips"] = Figure(None, "pJ", "unknown", "", f"{away:,.0f} of them; no public figure")
    known = [figure for figure in energy.values() if figure.value is not None]
    missing = [name for name, figure in energy.items() if figure.value is None]
    total = sum(figure.value or 0 for figure in known) if known else None
    note = "at least: without " + ", ".join([*missing, "idle power, host and input"]) if known else ""
    basis = (known or list(energy.values()))[0]
    energy["total"] = Figure(total, "pJ", basis.status, basis.source, note)
    return energy


def _times(profile: Profile, steps: int | None, depth: int, work: dict[int, np.ndarray]) -> tuple[Figure, Figure]:
    facts = profile.facts
    if steps is None:
        if facts.throughput.value is not None and work:
            busiest = max(float(done[0]) / facts.throughput.value[core] for core, done in work.items())
            source, note = ", ".join(facts.throughput.source), "the busiest core at its estimated throughput"
            return Figure(None, "ns", "unknown"), Figure(busiest * 1e6, "us", facts.throughput.status, source, note)
        return Figure(None, "ns", "unknown"), Figure(None, "us", "unknown")
    names = ("time_synapse", "time_neuron_active", "time_neuron_inactive")
    values = [getattr(facts, name).value for name in names]
    floor = facts.time_step_min
    if None not in values and work:
        value = max(float(done @ np.array(values)) for done in work.values()) / steps
        status, source = facts.time_synapse.status, ", ".join(facts.time_synapse.source)
        note = "the busiest core; without barrier synchronisation"
    elif floor.value is not None:
        value, status, source = floor.value, floor.status, ", ".join(floor.source)
        note = f"shortest possible; {floor.note}"
    else:
        return Figure(None, "ns", "unknown"), Figure(None, "us", "unknown")
    step = Figure(value, "ns", status, source, note)
    # Every layer answers one time step after its input.
    return step, Figure((steps + depth) * value / 1000, "us", status, source, f"{steps} + {depth} time steps")


def _arithmetic(layers: Sequence[LayerCost], graded: tuple[bool, bool], mac: float, add: float) -> tuple[float, float]:
    """`graded`: whether the first layer, and whether the others get values."""
    return sum(layer.macs for layer in layers) * mac, sum(
        layer.synops * (mac if graded[i > 0] else add) for i, layer in enumerate(layers)
    )
