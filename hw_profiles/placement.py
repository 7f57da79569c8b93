"""Layers on cores: where each neuron of a network goes, and what that takes of every core.

Loihi: cores share layers. A layer that needs more of a resource than a core has is split, a convolution by channels
and by tiles of its map, into as few parts as possible; then parts of small layers share cores. A convolution's weights
are stored once a core; pixels that several parts see take an input axon on each of them.

Speck: one layer a core, cores of different sizes: a matching of layers and cores.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, cast

import numpy as np

from hw_profiles.profile import Profile

Shape = tuple[int, ...]
Range = tuple[int, int]
"""From, and up to but without."""
Span = tuple[Range, ...]
"""Ranges of channels, rows and columns."""


class NeuronLike(Protocol):
    """Neurons of a layer; integers as the chip has them, arrays where not the same for all.

    ``refractory``, in time steps, may be missing: 1, no pause.
    """

    @property
    def threshold(self) -> int | np.ndarray: ...
    @property
    def current_decay(self) -> int | np.ndarray: ...
    @property
    def voltage_decay(self) -> int | np.ndarray: ...
    @property
    def bias(self) -> np.ndarray | None: ...
    @property
    def bias_exponent(self) -> int: ...


class LayerLike(Protocol):
    """A layer of integers; ``kind`` is "conv", "dense", "pool", "flatten" or "average", and says what else.

    conv: weight (out channels, in channels / groups, height, width), stride, padding, dilation, groups;
    dense: weight (outputs, inputs), recurrent (outputs, outputs), delay (outputs, inputs);
    pool: kernel, stride, padding. ``weight_exponent`` may be missing: 0.
    """

    @property
    def kind(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def in_shape(self) -> Shape: ...
    @property
    def shape(self) -> Shape: ...
    @property
    def weight(self) -> np.ndarray | None: ...
    @property
    def neuron(self) -> NeuronLike | None: ...


class NetworkLike(Protocol):
    """A chain of layers."""

    @property
    def layers(self) -> Sequence[Any]: ...


RESOURCES: dict[str, dict[str, str]] = {
    "loihi": {
        "neurons": "neurons_per_core",
        "synapse memory": "synapse_memory_per_core",
        "input axons": "input_axons_per_core",
        "output axons": "output_axons_per_core",
    },
    "speck": {"kernel memory": "kernel_memory", "neuron memory": "neuron_memory", "bias memory": "bias_memory"},
}
"""What a core has so much of, by family, and the fact that says how much."""

POPULATION_SLOTS = 2
"""Output axons that a 32-bit population axon takes (nengo-loihi). A 16-bit one takes 1, but holds fewer atoms and axons
and wants neurons aligned by four; it is never assumed."""
INDEX_BITS = (0, 6, 7, 8, 9, 10, 11, 12)
"""Widths of the index of a synapse in a sparse list (nengo-loihi)."""


@dataclass(frozen=True)
class Part:
    """Neurons of one layer on one core: channels x rows x columns (a dense layer's neurons are channels).

    Attributes
    ----------
    layer : int
        Index among the network's layers.
    name : str
        Of the layer.
    span : tuple of (int, int)
        Channels, rows and columns: from, and up to but without.
    used : mapping of str to int
        What it takes of each of `RESOURCES`; memory in the unit of the fact.
    """

    layer: int
    name: str
    span: Span
    used: Mapping[str, int]
    thresholds: frozenset[int] = frozenset()
    formats: frozenset[tuple[int, int, int]] = frozenset()
    """Formats of its synapse lists: layer, index bits, delay bits."""

    @property
    def neurons(self) -> int:
        """Number of its neurons."""
        return math.prod(stop - start for start, stop in self.span)

    def __str__(self) -> str:
        return f"{self.name}[{','.join(f'{a}:{b}' for a, b in self.span)}]"


@dataclass(frozen=True)
class Core:
    """A core in use.

    Attributes
    ----------
    number : int
        On the board, chip after chip, from 0.
    parts : tuple of Part
    limits : mapping of str to int or None
        What the core has of each resource; None where unknown.
    """

    number: int
    parts: tuple[Part, ...]
    limits: Mapping[str, int | None]

    @property
    def used(self) -> dict[str, int]:
        """What its parts take of each resource."""
        return {name: sum(part.used[name] for part in self.parts) for name in self.limits}

    @property
    def utilisation(self) -> dict[str, float | None]:
        """Share of each resource in use; None where the limit is unknown."""
        return {name: share(used, self.limits[name]) for name, used in self.used.items()}

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers on it, in order."""
        return tuple(dict.fromkeys(part.name for part in self.parts))


def share(used: int, limit: int | None) -> float | None:
    """Used of the limit; None where there is no limit known."""
    return None if limit is None else used / limit if limit else math.inf if used else 0.0


@dataclass(frozen=True)
class Demand:
    """What one layer needs.

    Attributes
    ----------
    layer : int
        Index among the network's layers.
    name : str
    whole : mapping of str to int
        On a single core.
    least : mapping of str to int
        On the core of the most demanding of its smallest possible parts.
    parts : int
        Number of parts it was split into; 0 where even the smallest is too large.
    """

    layer: int
    name: str
    whole: Mapping[str, int]
    least: Mapping[str, int]
    parts: int


@dataclass(frozen=True)
class Placement:
    """Where everything goes.

    Attributes
    ----------
    profile : Profile
    cores : tuple of Core
        The cores in use, as far as placed; the board may have fewer than are needed.
    demands : tuple of Demand
        One a layer with neurons.
    rivals : tuple of (layers, cores)
        Speck: sets of layers, by name, that fit only on these cores, by number, which are fewer.
    reason : str
        Why nothing was placed; empty where it was tried.
    """

    profile: Profile
    cores: tuple[Core, ...] = ()
    demands: tuple[Demand, ...] = ()
    rivals: tuple[tuple[tuple[str, ...], tuple[int, ...]], ...] = ()
    reason: str = ""

    @property
    def complete(self) -> bool:
        """Whether every neuron has its core (that the board has enough of them is another matter)."""
        return not self.reason and not self.rivals and all(demand.parts for demand in self.demands)

    @property
    def available(self) -> int | None:
        """Cores of the board; None where unknown."""
        facts = self.profile.facts
        cores, chips = facts.cores_per_chip.value, facts.chips.value
        return None if cores is None or chips is None else cores * chips

    @property
    def chips(self) -> int | None:
        """Chips in use; None where unknown."""
        cores = self.profile.facts.cores_per_chip.value
        return None if not cores else max((core.number // cores + 1 for core in self.cores), default=0)

    def __str__(self) -> str:
        if self.reason:
            return f"not placed: {self.reason}"
        available = "" if self.available is None else f" of {self.available:,}"
        text = f"{len(self.cores):,}{available} cores in use"
        if self.chips is not None and (self.profile.facts.chips.value or 1) > 1:
            text += f", {self.chips:,} of {self.profile.facts.chips.value:,} chips"
        lost = [demand.name for demand in self.demands if not demand.parts]
        lost += [name for names, _ in self.rivals for name in names]
        return "\n".join([text + (f"; not placed: {', '.join(lost)}" if lost else ""), *self._table()])

    def _table(self) -> list[str]:
        """Cores with the same layers in one line: the largest use, and its share."""
        if not self.cores:
            return []
        names = list(self.cores[0].limits)
        rows = [["cores", "layers", *names]]
        for layers, cores in _runs(self.cores):
            row = [_numbers(core.number for core in cores), ", ".join(layers)]
            for name in names:
                used, limit = max(((core.used[name], core.limits[name] or 0) for core in cores), key=lambda pair: pair)
                part = share(used, limit or None)
                row.append(f"{used:,}" + ("" if part is None else f" ({part:.0%})"))
            rows.append(row)
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        return [
            "  "
            + "  ".join(
                cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "complete": self.complete,
            "reason": self.reason,
            "cores_used": len(self.cores),
            "cores_available": self.available,
            "chips_used": self.chips,
            "cores": [
                {
                    "core": core.number,
                    "used": core.used,
                    "limits": dict(core.limits),
                    "utilisation": core.utilisation,
                    "parts": [
                        dict(
                            zip(
                                ("layer", "channels", "rows", "columns"),
                                (part.name, *map(list, part.span)),
                                strict=True,
                            )
                        )
                        for part in core.parts
                    ],
                }
                for core in self.cores
            ],
            "rivals": [{"layers": list(layers), "cores": list(cores)} for layers, cores in self.rivals],
        }


def _runs(cores: Sequence[Core]) -> Iterator[tuple[tuple[str, ...], list[Core]]]:
    for layers, run in itertools.groupby(cores, key=lambda core: core.layers):
        yield layers, list(run)


def _numbers(numbers: Iterator[int]) -> str:
    first, *rest = numbers
    return f"{first}-{rest[-1]}" if rest else str(first)


def place(network: NetworkLike, profile: Profile) -> Placement:
    """Place a network on the cores of a chip or board.

    Parameters
    ----------
    network : netx_export.network.Network, or anything with such layers
    profile : Profile

    Returns
    -------
    Placement
        As far as it goes: what fits nowhere is in its ``demands`` and ``rivals``. No core holds more than its limits.
    """
    for layer in network.layers:
        if layer.kind not in ("conv", "dense", "pool", "flatten", "average"):
            return Placement(profile, reason=f"{layer.name} is a layer of kind {layer.kind!r}, which is unknown")
        if layer.kind in ("conv", "dense") and layer.neuron is None:
            return Placement(profile, reason=f"{layer.name} has no neurons")
        if layer.kind == "pool" and profile.family == "loihi":
            return Placement(profile, reason=f"{layer.name} is a pool without neurons: write it as a convolution")
    return (_place_on_speck if profile.family == "speck" else _place_on_loihi)(network.layers, profile)


# Loihi -----------------------------------------------------------------------------------------------------


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


@dataclass(frozen=True)
class _Reach:
    """Which inputs a tile of outputs sees, along one axis.

    Attributes
    ----------
    inputs : numpy.ndarray
        Their positions, ascending.
    taps : Counter
        Of the different ways in which an input meets the tile (which taps of the kernel), how many have so many taps.
        Inputs that meet it in the same way share their weights.
    spread : int
        Largest distance between two outputs of one input.
    """

    inputs: np.ndarray
    taps: Counter[int]
    spread: int


class Axis:
    """One axis of a convolution: which outputs an input reaches."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, padding: int, dilation: int) -> None:
        self.inputs, self.outputs, self.stride, self.padding = inputs, outputs, stride, padding
        self.span = (kernel - 1) * dilation
        at = np.arange(inputs)[:, None] + padding - dilation * np.arange(kernel)
        target = at // stride
        self.target = np.where((at % stride == 0) & (target >= 0) & (target < outputs), target, -1)
        """(inputs, kernel): the output that an input reaches through each tap of the kernel; -1: none."""
        self._tiles: dict[int, list[_Reach]] = {}

    def taps(self, tile: Range) -> np.ndarray:
        """(inputs,): how many outputs of the tile each input reaches."""
        return ((self.target >= tile[0]) & (self.target < tile[1])).sum(1)

    @property
    def matrix(self) -> np.ndarray:
        """(inputs, outputs): 1 where an input reaches an output."""
        matrix = np.zeros((len(self.target), self.outputs))
        at, tap = np.nonzero(self.target >= 0)
        matrix[at, self.target[at, tap]] = 1
        return matrix

    def reach(self, tile: Range) -> _Reach:
        """What a tile of outputs sees."""
        low = max(0, tile[0] * self.stride - self.padding)
        target = self.target[low : max(low, (tile[1] - 1) * self.stride - self.padding + self.span + 1)]
        met = (target >= tile[0]) & (target < tile[1])
        seen = met.any(axis=1)
        met, target = met[seen], target[seen]
        if not len(met):
            return _Reach(np.zeros(0, int), Counter(), 0)
        ways = np.unique(met, axis=0)
        most = np.where(met, target, -1).max(axis=1)
        least = np.where(met, target, tile[1]).min(axis=1)
        return _Reach(np.flatnonzero(seen) + low, Counter(ways.sum(axis=1).tolist()), int((most - least).max()))

    def widest(self) -> _Reach:
        """What the output sees that sees the most inputs."""
        reached = self.target[self.target >= 0]
        most = int(np.bincount(reached).argmax()) if len(reached) else 0
        return self.reach((most, most + 1))

    def tiles(self, count: int) -> list[_Reach]:
        """What each of so many tiles sees."""
        if count not in self._tiles:
            self._tiles[count] = [self.reach(tile) for tile in even(self.outputs, count)]
        return self._tiles[count]


def even(size: int, count: int) -> list[Range]:
    """`size` things cut into `count` ranges whose sizes differ by 1 at most."""
    return [(i * size // count, (i + 1) * size // count) for i in range(count)]


def _counts(size: int) -> Iterator[int]:
    """Numbers of ranges that give different sizes of the largest."""
    count = 1
    while True:
        yield count
        largest = -(-size // count)
        if largest == 1:
            return
        count = -(-size // (largest - 1))


class Geometry:
    """Which neurons the inputs of a conv or dense layer reach.

    Attributes
    ----------
    conv : bool
        The other attributes are those of a convolution only.
    axes : list of Axis
        Rows and columns.
    groups, fan, group : int
        Groups, and input and output channels of one.
    """

    def __init__(self, layer: Any) -> None:
        self.conv = layer.kind == "conv"
        if self.conv:
            kernel, dilation = layer.weight.shape[2:], getattr(layer, "dilation", (1, 1))
            sizes = zip(layer.in_shape[1:], layer.shape[1:], kernel, layer.stride, layer.padding, dilation, strict=True)
            self.axes = [Axis(*size) for size in sizes]
            self.groups, self.fan, self.group = layer.groups, layer.weight.shape[1], layer.shape[0] // layer.groups

    def sources_of(self, channels: Range) -> Range:
        """Input channels that a range of output channels gets."""
        return channels[0] // self.group * self.fan, ((channels[1] - 1) // self.group + 1) * self.fan


class _Target:
    """A layer with neurons on Loihi, and what its parts take of a core."""

    def __init__(self, index: int, layer: Any, profile: Profile) -> None:
        self.index, self.layer, self.name = index, layer, layer.name
        self.shape = cast(tuple[int, int, int], (*layer.shape, 1, 1)[:3])
        facts = profile.facts
        self.chunks = facts.synapse_layout.value == "chunks"
        self.weight_bits = facts.weight_bits.value or 0
        delays = [getattr(layer, name, None) for name in ("delay", "recurrent_delay")]
        delayed = any(delay is not None and np.any(delay) for delay in delays)
        self.delay_bits = (facts.delay_max.value or 0).bit_length() if delayed else 0
        self.geometry = Geometry(layer)
        self.sources = math.prod(layer.in_shape)
        self.recurrent = getattr(layer, "recurrent", None) is not None

    def synapses(self, channels: int, rows: _Reach | None, columns: _Reach | None, tile: Shape) -> dict[str, int]:
        """Input axons, memory and format of a part's synapses."""
        if not self.geometry.conv:
            axons = self.sources + (self.shape[0] if self.recurrent else 0)
            return {"input axons": axons, "synapse memory": axons * self._bits(channels, 0), "index": 0}
        assert rows is not None
        assert columns is not None
        # A sparse list: neurons are numbered channels slowest, an index counts from the first one reached.
        last = (channels - 1) * math.prod(tile) + rows.spread * tile[1] + columns.spread
        index = next((bits for bits in INDEX_BITS if 1 << bits > last), last.bit_length())
        fan = self.geometry.fan
        if self.chunks:
            memory = sum(
                n * m * self._bits(a * b * fan * channels, index)
                for a, n in rows.taps.items()
                for b, m in columns.taps.items()
            )
        else:
            memory = self._bits(fan * channels * math.prod(self.layer.weight.shape[2:]), index)
        return {"input axons": len(rows.inputs) * len(columns.inputs), "synapse memory": memory, "index": index}

    def _bits(self, synapses: int, index_bits: int) -> int:
        if self.chunks:
            return loihi1_axon_bits(synapses, self.weight_bits, self.delay_bits, index_bits=index_bits)
        return synapses * (self.weight_bits + self.delay_bits)

    def smallest(self, after: _Split | None) -> dict[str, int]:
        """The most that a single neuron takes, given how the layer after it is cut."""
        rows, columns = (axis.widest() for axis in self.geometry.axes) if self.geometry.conv else (None, None)
        axons = after.most_axons([[(i, i + 1) for i in range(n)] for n in self.shape]) if after else 0
        # However a layer that feeds itself is cut: parts x their neurons are all neurons at least.
        axons += self.shape[0] if self.recurrent else 0
        return {**self.synapses(1, rows, columns, (1, 1)), "neurons": 1, "output axons": axons}


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
    def reaches(self) -> tuple[list[Any], list[Any]]:
        """What each range of rows and columns sees."""
        geometry = self.target.geometry
        if not geometry.conv:
            return [None], [None]
        return geometry.axes[0].tiles(self.counts[1]), geometry.axes[1].tiles(self.counts[2])

    def used(self, at: Shape, after: _Split | None) -> dict[str, int]:
        """What one part takes, given how the layer after it is cut."""
        ranges = [self.ranges[axis][i] for axis, i in enumerate(at)]
        sizes = [stop - start for start, stop in ranges]
        rows, columns = self.reaches
        used = self.target.synapses(sizes[0], rows[at[1]], columns[at[2]], tuple(sizes[1:]))
        used["neurons"] = math.prod(sizes)
        used["output axons"] = self.parts * used["neurons"] if self.target.recurrent else 0
        if after is not None:
            used["output axons"] += after.most_axons([[r] for r in ranges])
        return used

    def most(self, after: _Split | None) -> dict[str, int]:
        """The most that any part takes."""
        # Parts of the same sizes that see as much take the same: one of each will do.
        kinds = []
        for axis, ranges in enumerate(self.ranges):
            seen: dict[Any, int] = {}
            for i, (start, stop) in enumerate(ranges):
                reach = self.reaches[axis - 1][i] if axis else None
                sees = () if reach is None else (len(reach.inputs), reach.spread, *sorted(reach.taps.items()))
                seen.setdefault((stop - start, *sees), i)
            kinds.append(list(seen.values()))
        each = [self.used(at, None) for at in itertools.product(*kinds)]
        most = {name: max(used[name] for used in each) for name in RESOURCES["loihi"]}
        if after is not None:
            most["output axons"] += after.most_axons(self.ranges)
        return most

    def most_axons(self, ranges: Sequence[Sequence[Range]]) -> int:
        """Output axons to reach all parts of this layer from neurons of the one before.

        Parameters
        ----------
        ranges : sequence of sequence of Range
            Of channels, rows and columns of the layer before: the part made of those that need the most counts.
        """
        if not self.target.geometry.conv:
            return math.prod(max(stop - start for start, stop in some) for some in ranges) * self.parts
        fed = [self.target.geometry.sources_of(part) for part in self.ranges[0]]
        feeding = max(sum(low < stop and start < high for low, high in fed) for start, stop in ranges[0])
        pixels = 1
        for reaches, some in zip(self.reaches, ranges[1:], strict=True):
            ends = np.array(some)
            # An axon for every part that sees the pixel.
            seen = [np.diff(np.searchsorted(reach.inputs, ends), axis=1) for reach in reaches]
            pixels *= int(np.sum(seen, axis=0).max())
        return feeding * pixels * POPULATION_SLOTS

    @property
    def repeats(self) -> tuple[int, int]:
        """How often inputs arrive, and how often weights are stored: what the choice among equal splits goes by."""
        rows, columns = self.reaches
        if not self.target.geometry.conv:
            return self.parts, 1
        inputs = self.counts[0] * sum(len(r.inputs) for r in rows) * sum(len(c.inputs) for c in columns)
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


def _place_on_loihi(layers: Sequence[Any], profile: Profile) -> Placement:
    limits = {name: getattr(profile.facts, fact).value for name, fact in RESOURCES["loihi"].items()}
    targets = [_Target(i, layer, profile) for i, layer in enumerate(layers) if layer.neuron is not None]
    demands: list[Demand] = []
    parts: list[Part] = []
    after: _Split | None = None
    # Backwards: the output axons of a layer depend on how the one after it is cut.
    for target in reversed(targets):
        whole, least = _Split(target, (1, 1, 1)), target.smallest(after)
        found = None if _over(least, limits) else _fewest_parts(target, limits, after)
        if found is not None:
            parts += _parts(found, after)
        needs = {name: least[name] for name in limits}
        demands.append(Demand(target.index, target.name, whole.most(after), needs, found.parts if found else 0))
        after = found or whole
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


def per_neuron(layer: Any, value: int | np.ndarray) -> np.ndarray:
    """One number for all neurons, one a channel or one a neuron, as one a neuron, (neurons,)."""
    array = np.asarray(value)
    if array.ndim == 1:
        array = array.reshape(-1, *(1,) * (len(layer.shape) - 1))
    return np.broadcast_to(array, layer.shape).ravel()


def _order(part: Part) -> tuple[Any, ...]:
    return part.layer, part.span


def _smaller(fact: Any) -> int | None:
    return None if fact.value is None else min(fact.value, fact.disputed or fact.value)


def _over(used: Mapping[str, int], limits: Mapping[str, int | None]) -> bool:
    return any(limit is not None and used[name] > limit for name, limit in limits.items())


def _fewest_parts(target: _Target, limits: Mapping[str, int | None], after: _Split | None) -> _Split | None:
    """The split into the fewest parts that fit; among equals the one that repeats the fewest inputs and weights."""
    neurons = limits["neurons"]
    bound = 1 if neurons is None else -(-math.prod(target.shape) // neurons)
    choices = sorted(itertools.product(*(_counts(size) for size in target.shape)), key=math.prod)
    for count, group in itertools.groupby(choices, key=math.prod):
        if count >= bound:
            splits = (_Split(target, counts) for counts in group)
            fitting = [split for split in splits if not _over(split.most(after), limits)]
            if fitting:
                return min(fitting, key=lambda split: split.repeats)
    return None


def _parts(split: _Split, after: _Split | None) -> Iterator[Part]:
    target = split.target
    thresholds = per_neuron(target.layer, target.layer.neuron.threshold).reshape(target.shape)
    for at in itertools.product(*(range(count) for count in split.counts)):
        used = split.used(at, after)
        index = used.pop("index")
        span = tuple(split.ranges[axis][i] for axis, i in enumerate(at))
        mine = thresholds[tuple(slice(*one) for one in span)]
        formats = frozenset({(target.index, index, target.delay_bits)})
        yield Part(target.index, target.name, span, used, frozenset(np.unique(mine).tolist()), formats)


# Speck -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CoreLayer:
    """What one Speck core does: a convolution with neurons, before the sum pool that may follow.

    A dense layer is a convolution whose kernel covers its input.
    """

    index: int
    layer: Any
    in_shape: tuple[int, int, int]
    shape: tuple[int, int, int]
    """Shape of the neurons."""
    kernel: tuple[int, int]

    @property
    def kernel_words(self) -> int:
        """Kernel memory, c * 2^(ceil(log2(kx * ky)) + ceil(log2 f))."""
        return self.in_shape[0] << (_log2(math.prod(self.kernel)) + _log2(self.shape[0]))

    @property
    def neuron_words(self) -> int:
        """Neuron memory, f * 2^(ceil(log2 fy) + ceil(log2 fx))."""
        return self.shape[0] << (_log2(self.shape[1]) + _log2(self.shape[2]))

    @property
    def bias_words(self) -> int:
        """Bias memory: one a channel, or none."""
        bias = self.layer.neuron.bias
        return self.shape[0] if bias is not None and np.any(bias) else 0

    @property
    def used(self) -> dict[str, int]:
        """All three, by resource."""
        words = (self.kernel_words, self.neuron_words, self.bias_words)
        return dict(zip(RESOURCES["speck"], words, strict=True))


def _log2(n: int) -> int:
    """ceil(log2 n), exactly."""
    return (n - 1).bit_length()


def core_layers(layers: Sequence[Any]) -> list[CoreLayer]:
    """What each core does; a pool takes no core, it belongs to the core or input before it."""
    cores: list[CoreLayer] = []
    image: Shape = ()
    for index, layer in enumerate(layers):
        if layer.kind == "flatten":
            image = layer.in_shape
        elif layer.kind == "conv" and layer.neuron is not None:
            cores.append(CoreLayer(index, layer, layer.in_shape, layer.shape, tuple(layer.weight.shape[2:])))
        elif layer.kind == "dense" and layer.neuron is not None:
            shape = cast(tuple[int, int, int], image or (*layer.in_shape, 1, 1))
            cores.append(CoreLayer(index, layer, shape, (layer.shape[0], 1, 1), shape[1:]))
        if layer.kind != "flatten":
            image = ()
    return cores


def _place_on_speck(layers: Sequence[Any], profile: Profile) -> Placement:
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import maximum_bipartite_matching

    number = profile.facts.cores_per_chip.value
    if number is None:
        return Placement(profile, reason="the profile does not know cores_per_chip")
    sizes = {name: getattr(profile.facts, fact).value for name, fact in RESOURCES["speck"].items()}
    wanted = core_layers(layers)
    fits = np.ones((len(wanted), number), bool)
    for row, core in zip(fits, wanted, strict=True):
        for name, used in core.used.items():
            if sizes[name] is not None:
                row &= used <= np.array(sizes[name])
    # The matching takes the first core that does: the smallest first leaves the large ones to those who need them.
    order = np.argsort([sum(size[i] for size in sizes.values() if size is not None) for i in range(number)])
    chosen = maximum_bipartite_matching(csr_matrix(fits[:, order]), perm_type="column")
    demands = tuple(
        Demand(c.index, c.layer.name, c.used, c.used, int(row.any())) for c, row in zip(wanted, fits, strict=True)
    )
    cores = []
    for core, column in zip(wanted, chosen, strict=True):
        if column < 0:
            continue
        at = int(order[column])
        part = Part(core.index, core.layer.name, tuple((0, size) for size in core.shape), core.used)
        limits = {name: None if size is None else size[at] for name, size in sizes.items()}
        cores.append(Core(at, (part,), limits))
    left = [i for i, column in enumerate(chosen) if column < 0 and fits[i].any()]
    rivals = tuple(
        (tuple(wanted[i].layer.name for i in sorted(some)), tuple(sorted(few)))
        for some, few in _competing(fits, {i: int(order[c]) for i, c in enumerate(chosen) if c >= 0}, left)
    )
    return Placement(profile, tuple(sorted(cores, key=lambda core: core.number)), demands, rivals)


def _competing(fits: np.ndarray, placed: dict[int, int], left: list[int]) -> Iterator[tuple[set[int], set[int]]]:
    """For layers left over: the set of layers that all want the same, fewer cores (Hall's condition)."""
    holder = {core: layer for layer, core in placed.items()}
    done: set[int] = set()
    for start in left:
        if start in done:
            continue
        some, few, open_ = {start}, set[int](), [start]
        while open_:
            for core in np.flatnonzero(fits[open_.pop()]).tolist():
                if core not in few:
                    # The matching is largest, so this core is taken, by a layer that then competes too.
                    few.add(core)
                    some.add(holder[core])
                    open_.append(holder[core])
        done |= some
        yield some, few
