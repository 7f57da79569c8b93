"""What rules look at, and what they say."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from hw_profiles.placement import Placement
from hw_profiles.profile import Fact, Profile
from netx_export.connections import Connection, connections
from netx_export.network import AnyNeuron, Layer, Network, Neuron

BOARD = ("cores_per_chip", "chips")
"""A core's limit times these is the board's."""

Severity = Literal["violation", "warning", "not checked", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing a rule has to say.

    Attributes
    ----------
    rule : str
        Name of the rule.
    severity : {"violation", "warning", "not checked", "note"}
        Only violations keep a network from fitting.
    layer : str
        Name of the layer; empty where it is about the network.
    quantity, used, limit
        What is limited, how much the network needs, how much there is (None: unknown).
    relation : str
        How used stands to limit, to read as "weight 300 > 254".
    source, status : str
        Where the limit comes from and how well it is known.
    remedy : str
        What to do.
    """

    severity: Severity
    quantity: str
    used: int | float | str | None
    limit: int | float | str | None
    remedy: str
    layer: str = ""
    relation: str = ">"
    source: str = ""
    status: str = ""
    rule: str = ""

    def __str__(self) -> str:
        where = f"{self.layer}: " if self.layer else ""
        text = where + self.quantity
        if self.used is not None:
            text += f" {_plain(self.used)}"
        if self.limit is not None:
            text += f" {self.relation} {_plain(self.limit)}"
        origin = f" [{self.source}, {self.status}]" if self.source else ""
        return f"{text}: {self.remedy}{origin}"


def _plain(value: int | float | str) -> str:
    return value if isinstance(value, str) else f"{value:,}"


@dataclass(frozen=True)
class Report:
    """What `check` found.

    Attributes
    ----------
    network, profile : str
        Their names.
    findings : tuple of Finding
        All findings, violations first.
    placement : Placement
        Which core each neuron goes to.
    """

    network: str
    profile: str
    findings: tuple[Finding, ...]
    placement: Placement

    @property
    def fits(self) -> bool:
        """Whether no rule is violated; `complete` says whether every rule could be checked."""
        return not self.of("violation")

    @property
    def complete(self) -> bool:
        """Whether nothing was left unchecked."""
        return not self.of("not checked")

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        """The findings of one severity."""
        return tuple(finding for finding in self.findings if finding.severity == severity)

    def __str__(self) -> str:
        if not self.fits:
            head = f"{self.network} does not fit {self.profile}: {_count(len(self.of('violation')), 'violation')}"
        else:
            head = f"{self.network} fits {self.profile}"
            head += "" if self.complete else f" as far as checked ({len(self.of('not checked'))} not checked)"
        width = max((len(f.severity) for f in self.findings), default=0)
        return "\n".join([head, *(f"  {f.severity.ljust(width)}  {f}" for f in self.findings), str(self.placement)])

    def __repr__(self) -> str:
        return f"<Report: {str(self).splitlines()[0]}>"

    def rows(self) -> list[dict[str, Any]]:
        """One a finding, for a table (``pandas.DataFrame(report.rows())``)."""
        return [dataclasses.asdict(finding) for finding in self.findings]

    def to_dict(self) -> dict[str, Any]:
        """The report in JSON values."""
        return {
            "network": self.network,
            "profile": self.profile,
            "fits": self.fits,
            "complete": self.complete,
            "findings": self.rows(),
            "placement": self.placement.to_dict(),
        }


def _count(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")


@dataclass(frozen=True)
class Case:
    """What the rules look at."""

    network: Network
    profile: Profile
    placement: Placement
    """Which core each neuron goes to."""
    time_steps: int | None = None
    input_payload: int | None = None

    @property
    def layers(self) -> tuple[Layer, ...]:
        return self.network.layers

    @property
    def spiking(self) -> list[tuple[Layer, Neuron]]:
        """The layers with neurons that spike, and these."""
        return [(layer, layer.neuron) for layer in self.layers if isinstance(layer.neuron, Neuron)]

    @property
    def graded(self) -> list[tuple[Layer, AnyNeuron]]:
        """The layers with neurons that send values, and these."""
        return [(layer, layer.neuron) for layer in self.layers if layer.neuron is not None and layer.neuron.graded]

    @property
    def ways(self) -> tuple[Connection, ...]:
        """What feeds the layers with neurons."""
        return connections(self.network)

    @property
    def weighted(self) -> list[tuple[Layer, np.ndarray]]:
        """The layers with weights, and these."""
        return [(layer, layer.weight) for layer in self.layers if layer.weight is not None]

    def fact(self, name: str) -> Fact[Any]:
        """The profile's fact of that name."""
        fact: Fact[Any] = getattr(self.profile.facts, name)
        return fact

    def value(self, name: str) -> Any:
        """The value of a fact, None where unknown."""
        return self.fact(name).value

    def at_most(
        self, names: str | Sequence[str], quantity: str, used: int, remedy: str, layer: str = ""
    ) -> Iterator[Finding]:
        """Compare with a fact, or with the product of several (a core's limit, cores, chips)."""
        names = (names,) if isinstance(names, str) else names
        for name in names:
            if self.value(name) is None:
                yield self.unknown(name, quantity, used, layer)
                return
        facts = [self.fact(name) for name in names]
        limit = low = high = 1
        for fact in facts:
            value: Any = fact.value
            other: Any = value if fact.disputed is None else fact.disputed
            limit, low, high = limit * value, low * min(value, other), high * max(value, other)
        if used > low:
            # The most doubtful of the facts speaks for the limit.
            doubts = [n for n, f in zip(names, facts, strict=True) if f.status == "estimate"]
            doubts += [n for n, f in zip(names, facts, strict=True) if f.disputed is not None]
            name = (doubts or names)[0]
            yield self.broken(
                name, quantity, used, limit if used > limit else low, remedy, layer, disputed=used <= high
            )

    def at_least(self, name: str, quantity: str, used: int, remedy: str, layer: str = "") -> Iterator[Finding]:
        """Compare with a fact from above."""
        limit = self.value(name)
        if limit is None:
            yield self.unknown(name, quantity, used, layer)
        elif used < limit:
            yield self.broken(name, quantity, used, limit, remedy, layer, "<")

    def one_of(self, name: str, quantity: str, used: int, remedy: str, layer: str = "") -> Iterator[Finding]:
        """Compare with a fact that lists what is possible."""
        allowed = self.value(name)
        if allowed is None:
            yield self.unknown(name, quantity, used, layer)
        elif used not in allowed:
            yield self.broken(name, quantity, used, ", ".join(map(str, allowed)), remedy, layer, "not in")

    def allowed(self, name: str, quantity: str, remedy: str, layer: str = "") -> Iterator[Finding]:
        """What the network has is allowed only where the fact is true."""
        allowed = self.value(name)
        if allowed is None:
            yield self.unknown(name, quantity, None, layer)
        elif not allowed:
            yield self.broken(name, quantity, None, None, remedy, layer)

    def broken(
        self,
        name: str,
        quantity: str,
        used: int | str | None,
        limit: int | str | None,
        remedy: str,
        layer: str = "",
        relation: str = ">",
        disputed: bool = False,
    ) -> Finding:
        """A limit that rests on a fact is passed: a violation, or a warning where the limit is doubtful."""
        fact = self.fact(name)
        severity: Severity = "violation"
        if fact.status == "estimate":
            severity, remedy = "warning", f"{remedy} (the limit is an estimate)"
        elif disputed:
            severity, remedy = "warning", f"{remedy} (sources disagree on {name}: {fact.value:,} or {fact.disputed:,})"
        source = ", ".join(fact.source)
        return Finding(severity, quantity, used, limit, remedy, layer, relation, source, fact.status)

    def unknown(self, name: str, quantity: str, used: int | None, layer: str = "") -> Finding:
        """A fact is unknown."""
        fact = self.fact(name)
        remedy, source = f"the profile does not know {name}", ", ".join(fact.source)
        return Finding("not checked", quantity, used, None, remedy, layer, "", source, fact.status)


Rule: TypeAlias = Callable[[Case], Iterator[Finding]]
