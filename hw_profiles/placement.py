"""Where the neurons of a network go on a chip or board, and what that takes of every core."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hw_profiles.geometry import Span
from hw_profiles.profile import Profile
from netx_export.text import table

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
        return not self.reason and not self.unplaced

    @property
    def unplaced(self) -> tuple[str, ...]:
        """Names of the layers without a core, where others may have one."""
        placed = {part.layer for core in self.cores for part in core.parts}
        return tuple(demand.name for demand in self.demands if demand.layer not in placed)

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
        lost = ", ".join(self.unplaced)
        return "\n".join([text + (f"; not placed: {lost}" if lost else ""), *self._table()])

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
        return [f"  {line}" for line in table(rows, left=2)]

    def __repr__(self) -> str:
        return f"<Placement on {self.profile.name}: {str(self).splitlines()[0]}>"

    def rows(self) -> list[dict[str, Any]]:
        """One a core in use, for a table (``pandas.DataFrame(placement.rows())``)."""
        return [{"core": core.number, "layers": ", ".join(core.layers)} | core.used for core in self.cores]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "complete": self.complete,
            "reason": self.reason,
            "unplaced": list(self.unplaced),
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
                        {"layer": part.name}
                        | dict(zip(("channels", "rows", "columns"), map(list, part.span), strict=True))
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
