"""Layers on the cores of Loihi.

A layer that needs more of a resource than a core has is split, a convolution by channels and by tiles of its map, into
as few parts as possible; then parts of small layers share cores. A convolution's weights are stored once a core; pixels
that several parts see take an input axon on each of them. All connections that feed a group of neurons count. Spikes
that would arrive too early, over a shortcut, are held by relay neurons, one group a time step; the input's own are sent
later by the host.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from hw_profiles.geometry import Geometry, Range, Reach, Shape, as_map, even, per_neuron, slices
from hw_profiles.groups import Group, groups
from hw_profiles.placement import RESOURCES, Core, Demand, Part, Placement
from hw_profiles.profile import Profile
from netx_export.connections import meets_no_neurons
from netx_export.network import Layer, Network, NetworkError, Pool

POPULATION_SLOTS = 2
"""Output axons that a 32-bit population axon takes (nengo-loihi). A 16-bit one takes 1, but holds fewer atoms and axons
and wants neurons aligned by four; it is never assumed."""
INDEX_BITS = (0, 6, 7, 8, 9, 10, 11, 12)
"""Widths of the index of a synapse in a sparse list (nengo-loihi)."""


def loihi1_axon_bits(
    synapses: int, weight_bits: int = 8, delay_bits: int = 0, tag_bits: int = 0, index_bits: int = 0
) -> int:
    """Synaptic memory of one input axon on Loihi 1.

    Parameters
    ----------
    synapses : int
        Synapses the axon has on the core.
    weight_bits, delay_bits, tag_bits : int
        Stored bits of a synapse: weights take 0, 1, 2, 3, 4, 5, 6 or 8.
    index_bits : int
        0 for a dense list; 6..12 for a sparse one.

    Returns
    -------
    int
        Bits. Synapses come in chunks of at most 64, each with a header of 10 bits, in words of 64 bits.

    Notes
    -----
    Source: nengo-loihi, ``SynapseConfig.bits_per_axon``.
    """
    full, rest = divmod(synapses, 64)
    bits = weight_bits + delay_bits + tag_bits + index_bits

    def chunk(n: int) -> int:
        return 64 * -(-(n * bits + 10) // 64) if n else 0

    return full * chunk(64) + chunk(rest)


def _counts(size: int) -> Iterator[int]:
    """Numbers of ranges that give different sizes of the largest."""
    count = 1
    while True:
        yield count
        largest = -(-size // count)
        if largest == 1:
            return
        count = -(-size // (largest - 1))


Users: TypeAlias = "Sequence[tuple[_Split, int]]"
"""The cuts of the groups that a group feeds, each with the number of its feed."""


class _Target:
    """A group of neurons on Loihi, and what its parts take of a core."""

    def __init__(self, group: Group, profile: Profile) -> None:
        layer = group.layer
        self.index, self.layer, self.name, self.feeds = group.index, layer, layer.name, group.feeds
        self.shape = as_map(layer.shape)
        facts = profile.facts
        self.chunks = facts.synapse_layout.value == "chunks"
        self.weight_bits = facts.weight_bits.value or 0
        of = [feed.synapses for feed in self.feeds]
        delays = [getattr(each, name, None) for each in of for name in ("delay", "recurrent_delay")]
        delayed = any(delay is not None and np.any(delay) for delay in delays)
        self.delay_bits = (facts.delay_max.value or 0).bit_length() if delayed else 0
        self.geometries = [Geometry(each) for each in of]
        self.recurrent = getattr(layer, "recurrent", None) is not None

    def synapses(self, channels: int, reaches: Sequence[tuple[Any, Any]], tile: Shape) -> dict[str, int]:
        """Input axons, memory and format of a part's synapses, given the rows and columns that it sees of each feed."""
        total = {"input axons": 0, "synapse memory": 0, "index": 0}
        stored = set()
        for feed, geometry, reach in zip(self.feeds, self.geometries, reaches, strict=True):
            used = self._synapses(feed.synapses, geometry, channels, *reach, tile)
            total["input axons"] += used["input axons"]
            total["index"] = max(total["index"], used["index"])
            # Spikes that are summed before the weights share these: other axons to the same synapses.
            total["synapse memory"] += 0 if feed.synapses.name in stored else used["synapse memory"]
            stored.add(feed.synapses.name)
        if self.recurrent:
            total["input axons"] += self.shape[0]
            total["synapse memory"] += self.shape[0] * self._bits(channels, 0)
        return total

    def _synapses(
        self, layer: Layer, geometry: Geometry, channels: int, rows: Reach | None, columns: Reach | None, tile: Shape
    ) -> dict[str, int]:
        if not geometry.windowed:
            axons = math.prod(layer.in_shape)
            return {"input axons": axons, "synapse memory": axons * self._bits(channels, 0), "index": 0}
        assert rows is not None
        assert columns is not None
        assert layer.weight is not None
        # A sparse list: neurons are numbered channels slowest, an index counts from the first one reached.
        last = (channels - 1) * math.prod(tile) + rows.spread * tile[1] + columns.spread
        index = next((bits for bits in INDEX_BITS if 1 << bits > last), last.bit_length())
        fan = geometry.fan
        if self.chunks:
            memory = sum(
                n * m * self._bits(a * b * fan * channels, index)
                for a, n in rows.taps.items()
                for b, m in columns.taps.items()
            )
        else:
            memory = self._bits(fan * channels * math.prod(layer.weight.shape[2:]), index)
        return {"input axons": len(rows.inputs) * len(columns.inputs), "synapse memory": memory, "index": index}

    def _bits(self, synapses: int, index_bits: int) -> int:
        if self.chunks:
            return loihi1_axon_bits(synapses, self.weight_bits, self.delay_bits, index_bits=index_bits)
        return synapses * (self.weight_bits + self.delay_bits)

    def smallest(self, users: Users) -> dict[str, int]:
        """The most that a single neuron takes, given how what it feeds is cut."""
        widest = [tuple(axis.widest() for axis in g.axes) if g.windowed else (None, None) for g in self.geometries]
        axons = sum(user.most_axons([[(i, i + 1) for i in range(n)] for n in self.shape], feed) for user, feed in users)
        # However a layer that feeds itself is cut: parts x their neurons are all neurons at least.
        axons += self.shape[0] if self.recurrent else 0
        return {**self.synapses(1, widest, (1, 1)), "neurons": 1, "output axons": axons}  # type: ignore[arg-type]


class _Split:
    """A layer cut into parts: all combinations of ranges of channels, rows and columns."""

    def __init__(self, target: _Target, counts: Shape) -> None:
        self.target, self.counts = target, counts
        self.ranges = [even(size, count) for size, count in zip(target.shape, counts, strict=True)]

    @property
    def parts(self) -> int:
        """Number of parts."""
        return math.prod(self.counts)

    @cached_property
    def reaches(self) -> list[tuple[list[Any], list[Any]]]:
        """What each range of rows and columns sees of each feed."""
        return [
            (geometry.axes[0].tiles(self.counts[1]), geometry.axes[1].tiles(self.counts[2]))
            if geometry.windowed
            else ([None], [None])
            for geometry in self.target.geometries
        ]

    def used(self, at: Shape, users: Users) -> dict[str, int]:
        """What one part takes, given how what it feeds is cut."""
        ranges = [self.ranges[axis][i] for axis, i in enumerate(at)]
        sizes = [stop - start for start, stop in ranges]
        seen = [(rows[at[1]], columns[at[2]]) for rows, columns in self.reaches]
        used = self.target.synapses(sizes[0], seen, tuple(sizes[1:]))
        used["neurons"] = math.prod(sizes)
        used["output axons"] = self.parts * used["neurons"] if self.target.recurrent else 0
        used["output axons"] += sum(user.most_axons([[r] for r in ranges], feed) for user, feed in users)
        return used

    def most(self, users: Users) -> dict[str, int]:
        """The most that any part takes."""
        # Parts of the same sizes that see as much take the same: one of each will do.
        kinds = []
        for axis, ranges in enumerate(self.ranges):
            seen: dict[Any, int] = {}
            for i, (start, stop) in enumerate(ranges):
                of = [both[axis - 1][i] for both in self.reaches] if axis else []
                sees = [(len(r.inputs), r.spread, *sorted(r.taps.items())) for r in of if r is not None]
                seen.setdefault((stop - start, *sees), i)
            kinds.append(list(seen.values()))
        each = [self.used(at, ()) for at in itertools.product(*kinds)]
        most = {name: max(used[name] for used in each) for name in RESOURCES["loihi"]}
        most["output axons"] += sum(user.most_axons(self.ranges, feed) for user, feed in users)
        return most

    def most_axons(self, ranges: Sequence[Sequence[Range]], feed: int) -> int:
        """Output axons to reach all parts of this group from neurons of the source of this feed.

        Parameters
        ----------
        ranges : sequence of sequence of Range
            Of channels, rows and columns of the layer before: the part made of those that need the most counts.
        """
        geometry = self.target.geometries[feed]
        if not geometry.windowed:
            return math.prod(max(stop - start for start, stop in some) for some in ranges) * self.parts
        fed = [geometry.sources_of(part) for part in self.ranges[0]]
        feeding = max(sum(low < stop and start < high for low, high in fed) for start, stop in ranges[0])
        pixels = 1
        for reaches, some in zip(self.reaches[feed], ranges[1:], strict=True):
            ends = np.array(some)
            # An axon for every part that sees the pixel.
            seen = [np.diff(np.searchsorted(reach.inputs, ends), axis=1) for reach in reaches]
            pixels *= int(np.sum(seen, axis=0).max())
        return feeding * pixels * POPULATION_SLOTS

    @property
    def repeats(self) -> tuple[int, int]:
        """How often inputs arrive, and how often weights are stored: what the choice among equal splits goes by."""
        if not any(geometry.windowed for geometry in self.target.geometries):
            return self.parts, 1
        inputs = sum(
            self.counts[0] * sum(len(r.inputs) for r in rows) * sum(len(c.inputs) for c in columns)
            for (rows, columns), geometry in zip(self.reaches, self.target.geometries, strict=True)
            if geometry.windowed
        )
        return inputs, self.counts[1] * self.counts[2]


@dataclass
class _Room:
    """A core being filled."""

    parts: list[Part] = field(default_factory=list)
    used: Counter[str] = field(default_factory=Counter)
    thresholds: set[int] = field(default_factory=set)
    formats: set[tuple[int, int, int]] = field(default_factory=set)

    def takes(self, part: Part, limits: Mapping[str, int | None], profiles: int | None, formats: int | None) -> bool:
        if any(limit is not None and self.used[name] + part.used[name] > limit for name, limit in limits.items()):
            return False
        more = ((self.thresholds | part.thresholds, profiles), (self.formats | part.formats, formats))
        return not self.parts or all(limit is None or len(together) <= limit for together, limit in more)

    def add(self, part: Part) -> None:
        self.parts.append(part)
        self.used.update(part.used)
        self.thresholds |= part.thresholds
        self.formats |= part.formats


def place_on_loihi(network: Network, profile: Profile) -> Placement:
    """Split the groups of neurons where they must be, and pack the parts; see `hw_profiles.place`."""
    for layer in network:
        if isinstance(layer, Pool):
            raise NetworkError(f"{layer.name} is a pool without neurons: write it as a convolution")
        if meets_no_neurons(network, layer):
            raise NetworkError(f"{layer.name} has no neurons")
    limits = {name: getattr(profile.facts, fact).value for name, fact in RESOURCES["loihi"].items()}
    targets = [_Target(group, profile) for group in groups(network)]
    demands: list[Demand] = []
    parts: list[Part] = []
    cuts: dict[str, list[tuple[_Split, int]]] = {}
    # Backwards: the output axons of a group depend on how what it feeds is cut.
    for target in reversed(targets):
        users = cuts.get(target.name, [])
        whole, least = _Split(target, (1, 1, 1)), target.smallest(users)
        found = None if _over(least, limits) else _fewest_parts(target, limits, users)
        if found is not None:
            parts += _parts(found, users)
        needs = {name: least[name] for name in limits}
        demands.append(Demand(target.index, target.name, whole.most(users), needs, found.parts if found else 0))
        for number, feed in enumerate(target.feeds):
            cuts.setdefault(feed.source, []).append((found or whole, number))
    rooms: list[_Room] = []
    known = {name: limit for name, limit in limits.items() if limit}
    parts.sort(key=lambda part: -max([part.used[name] / limit for name, limit in known.items()], default=0.0))
    most = [_smaller(getattr(profile.facts, f"{what}_per_core")) for what in ("threshold_profiles", "synapse_formats")]
    for part in parts:
        room = next((room for room in rooms if room.takes(part, limits, most[0], most[1])), None)
        if room is None:
            rooms.append(room := _Room())
        room.add(part)
    for room in rooms:
        room.parts.sort(key=_order)
    rooms.sort(key=lambda room: _order(room.parts[0]))
    cores = tuple(Core(number, tuple(room.parts), limits) for number, room in enumerate(rooms))
    return Placement(profile, cores, tuple(reversed(demands)))


def _order(part: Part) -> tuple[Any, ...]:
    return part.layer, part.span


def _smaller(fact: Any) -> int | None:
    return None if fact.value is None else min(fact.value, fact.disputed or fact.value)


def _over(used: Mapping[str, int], limits: Mapping[str, int | None]) -> bool:
    return any(limit is not None and used[name] > limit for name, limit in limits.items())


def _fewest_parts(target: _Target, limits: Mapping[str, int | None], users: Users) -> _Split | None:
    """The split into the fewest parts that fit; among equals the one that repeats the fewest inputs and weights."""
    neurons = limits["neurons"]
    bound = 1 if neurons is None else -(-math.prod(target.shape) // neurons)
    choices = sorted(itertools.product(*(_counts(size) for size in target.shape)), key=math.prod)
    for count, group in itertools.groupby(choices, key=math.prod):
        if count >= bound:
            splits = (_Split(target, counts) for counts in group)
            fitting = [split for split in splits if not _over(split.most(users), limits)]
            if fitting:
                return min(fitting, key=lambda split: split.repeats)
    return None


def _parts(split: _Split, users: Users) -> Iterator[Part]:
    target = split.target
    assert target.layer.neuron is not None
    thresholds = per_neuron(target.layer, target.layer.neuron.threshold).reshape(target.shape)
    for at in itertools.product(*(range(count) for count in split.counts)):
        used = split.used(at, users)
        index = used.pop("index")
        span = tuple(split.ranges[axis][i] for axis, i in enumerate(at))
        mine = thresholds[slices(span)]
        formats = frozenset({(target.index, index, target.delay_bits)})
        yield Part(target.index, target.name, span, used, frozenset(np.unique(mine).tolist()), formats)
