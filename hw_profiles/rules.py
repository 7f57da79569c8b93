"""Whether a network fits a chip: named rules, one small function each, all of their findings at once.

A rule compares what a layer needs with one fact of the profile. A limit that is unknown is reported as
"not checked"; one that is an estimate or disputed gives a warning. Layers are placed on cores (`placement`), and
what no core can hold is a violation.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from hw_profiles.geometry import NetworkLike
from hw_profiles.mapping import place
from hw_profiles.placement import RESOURCES, Placement
from hw_profiles.profile import Fact, Profile, ProfileError
from hw_profiles.speck import core_layers
from netx_export.bounds import bounds, largest_input, share

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

    network: NetworkLike
    profile: Profile
    time_steps: int | None = None
    input_payload: int | None = None

    @property
    def layers(self) -> Sequence[Any]:
        return self.network.layers

    @property
    def spiking(self) -> list[Any]:
        """The layers with neurons."""
        return [layer for layer in self.layers if layer.neuron is not None]

    @cached_property
    def placement(self) -> Placement:
        """Which core each neuron goes to."""
        return place(self.network, self.profile)

    @property
    def weighted(self) -> list[Any]:
        """The layers with weights."""
        return [layer for layer in self.layers if layer.weight is not None]

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


_ADDED = (
    "the file has no neurons here, and lava-dl adds these, which never spike: export the layer with neurons that fit, "
    "or leave it out and compute it off the chip"
)


# Rules of every chip ---------------------------------------------------------------------------------------


def structure(case: Case) -> Iterator[Finding]:
    """Layers are of known kinds, and have neurons where the chip needs them."""
    encoder = getattr(case.network, "encoder", None)
    if encoder is not None:
        remedy = "are not placed: the input is taken to be their spikes; on the chip they need room of their own"
        yield Finding("note", "input neurons", math.prod(encoder.shape), None, remedy)
    for layer in case.layers:
        if layer.kind == "average":
            yield Finding(
                "note", "mean over outputs", None, None, "is taken off the chip, from its output spikes", layer.name
            )
        elif layer.kind not in ("conv", "dense", "pool", "flatten"):
            yield Finding("not checked", f"layer of kind {layer.kind!r}", None, None, "the rules know none", layer.name)
        elif layer.kind == "pool":
            yield from case.allowed(
                "pool_without_neuron",
                "sum pool without neurons",
                "write it as a grouped convolution with neurons",
                layer.name,
            )
        elif layer.kind != "flatten" and layer.neuron is None:
            yield Finding("violation", "weights without neurons", None, None, "give the layer neurons", layer.name)


def weights(case: Case) -> Iterator[Finding]:
    """Weights are in range, and multiples of the chip's step (even with mixed sign)."""
    step = case.value("weight_step")
    for layer in case.weighted:
        for quantity, weight in (("weight", layer.weight), ("recurrent weight", getattr(layer, "recurrent", None))):
            if weight is None:
                continue
            low, high = int(weight.min()), int(weight.max())
            remedy = "lower the layer's weight scale and threshold together"
            yield from case.at_most("weight_max", quantity, high, remedy, layer.name)
            yield from case.at_least("weight_min", quantity, low, remedy, layer.name)
            if step is None:
                yield case.unknown("weight_step", quantity, None, layer.name)
            elif odd := int(np.count_nonzero(weight % step)):
                yield case.broken(
                    "weight_step",
                    f"{odd:,} of {weight.size:,} {quantity}s",
                    None,
                    step,
                    f"quantise to multiples of {step}",
                    layer.name,
                    "not multiples of",
                )


def weight_exponent(case: Case) -> Iterator[Finding]:
    """The power of two that a layer's weights have in common is within range (NetX files have none: 0)."""
    for layer in case.weighted:
        exponent = int(getattr(layer, "weight_exponent", 0))
        if exponent:
            remedy = "rescale weights and threshold together"
            yield from case.at_most("weight_exponent_max", "weight exponent", exponent, remedy, layer.name)
            yield from case.at_least("weight_exponent_min", "weight exponent", exponent, remedy, layer.name)


def _remedy(layer: Any, remedy: str) -> str:
    return _ADDED if getattr(layer.neuron, "added", False) else remedy


def threshold(case: Case) -> Iterator[Finding]:
    """The threshold fits its mantissa."""
    for layer in case.spiking:
        remedy = _remedy(layer, "lower the layer's weight scale and threshold together")
        low, high = int(np.min(layer.neuron.threshold)), int(np.max(layer.neuron.threshold))
        yield from case.at_most("threshold_max", "threshold", high, remedy, layer.name)
        if low < 0:
            yield Finding("violation", "threshold", low, 0, "use a positive threshold", layer.name, "<")


def decays(case: Case) -> Iterator[Finding]:
    """Decays are within the range of their registers."""
    for layer in case.spiking:
        for name in ("current_decay", "voltage_decay"):
            used, text = getattr(layer.neuron, name), name.replace("_", " ")
            if case.value("clocked") is False:
                remedy = (
                    "train integrate-and-fire neurons (current decay 4096, voltage decay 0): nothing decays by a clock"
                )
            else:
                remedy = f"train with a {text} within the chip's range"
            remedy = _remedy(layer, remedy)
            yield from case.at_most(f"{name}_max", text, int(np.max(used)), remedy, layer.name)
            yield from case.at_least(f"{name}_min", text, int(np.min(used)), remedy, layer.name)


def refractory(case: Case) -> Iterator[Finding]:
    """Refractory periods are within range (1, no pause, needs nothing)."""
    for layer in case.spiking:
        steps = getattr(layer.neuron, "refractory", 1)
        if np.any(np.asarray(steps) != 1):
            remedy = "train with a refractory period within the chip's range"
            yield from case.at_most("refractory_max", "refractory period", int(np.max(steps)), remedy, layer.name)
            yield from case.at_least("refractory_min", "refractory period", int(np.min(steps)), remedy, layer.name)


def bias(case: Case) -> Iterator[Finding]:
    """Biases are allowed, and fit mantissa and exponent."""
    for layer in case.spiking:
        values = layer.neuron.bias
        if values is None or not np.any(values):
            continue
        if case.value("bias_allowed") is not True:
            remedy = "train bias-free (bias removal and fine-tuning): without a clock no step adds a bias"
            yield from case.allowed("bias_allowed", "bias", remedy, layer.name)
            continue
        bits, remedy = case.value("bias_mantissa_bits"), "lower the layer's weight scale, or remove the bias"
        if bits is None:
            yield case.unknown("bias_mantissa_bits", "bias", None, layer.name)
        else:
            low, high, most = int(values.min()), int(values.max()), 2 ** (bits - 1) - 1
            if high > most:
                yield case.broken("bias_mantissa_bits", "bias", high, most, remedy, layer.name)
            if low < -most - 1:
                yield case.broken("bias_mantissa_bits", "bias", low, -most - 1, remedy, layer.name, "<")
        exponent = layer.neuron.bias_exponent
        yield from case.at_most("bias_exponent_max", "bias exponent", exponent, "use a smaller exponent", layer.name)
        if exponent < 0:
            yield Finding("violation", "bias exponent", exponent, 0, "use exponents from 0", layer.name, "<")


def delay(case: Case) -> Iterator[Finding]:
    """Synaptic delays are within range."""
    for layer in case.layers:
        for name in ("delay", "recurrent_delay"):
            delays = getattr(layer, name, None)
            if delays is not None and np.any(delays):
                quantity, remedy = name.replace("_", " "), "train with shorter delays"
                yield from case.at_most("delay_max", quantity, int(np.max(delays)), remedy, layer.name)


def recurrence(case: Case) -> Iterator[Finding]:
    """A layer feeds itself only where the chip can do it."""
    for layer in case.layers:
        if getattr(layer, "recurrent", None) is not None:
            remedy = "unroll or remove the recurrent synapse: the chip only feeds forward"
            yield from case.allowed("recurrence", "recurrent synapse", remedy, layer.name)


def payload(case: Case) -> Iterator[Finding]:
    """The input's values fit the bits a spike carries (hidden layers send binary spikes)."""
    if case.value("clocked") is False:
        # Without time steps a count of n is n events, one after the other.
        return
    if case.input_payload is None:
        fact = case.fact("payload_bits")
        if fact.value is not None and fact.value < 24:
            most = (1 << fact.value) - 1
            remedy = f"this chip's spikes carry values up to {most:,}: say what the input's largest is, or clip it"
            source, first = ", ".join(fact.source), case.layers[0].name
            yield Finding("not checked", "input payload", None, None, remedy, first, "", source, fact.status)
        return
    bits, most = int(case.input_payload).bit_length(), case.value("payload_bits")
    remedy = "clip the input to what a spike carries, or bin it into more time steps"
    if case.time_steps is not None and most is not None and bits > most:
        steps = math.ceil(case.time_steps * case.input_payload / ((1 << most) - 1))
        remedy += f" ({steps:,} where events spread evenly)"
    yield from case.at_most("payload_bits", "input payload bits", bits, remedy, case.layers[0].name)


def placement(case: Case) -> Iterator[Finding]:
    """Every neuron has its core."""
    if case.placement.reason:
        yield Finding("not checked", "placement on cores", None, None, case.placement.reason)
    if case.profile.family != "loihi":
        return  # `core_memory` and `assignment` say what finds no core
    # What a single neuron exceeds, the rule of that resource says.
    limits = {name: case.value(fact) for name, fact in RESOURCES["loihi"].items()}
    for demand in case.placement.demands:
        over = any(limit is not None and demand.least[name] > limit for name, limit in limits.items())
        if not demand.parts and not over:
            yield Finding("violation", "placement on cores", None, None, "no way to split it fits", demand.name)


def reset(case: Case) -> Iterator[Finding]:
    """Neurons reset after a spike as the chip's can."""
    wanted = getattr(case.network, "reset", "zero")
    possible = case.fact("resets")
    if possible.value is None:
        yield case.unknown("resets", f"reset by {wanted}", None)
    elif wanted not in possible.value:
        remedy = f"train with --profile {case.profile.name}, whose neurons are then trained"
        source, limit = ", ".join(possible.source), " or ".join(possible.value)
        yield Finding("violation", "reset by", wanted, limit, remedy, "", "is not", source, possible.status)


def reset_interval(case: Case) -> Iterator[Finding]:
    """Where hardware resets neurons only every 2^n time steps, the number of time steps is one of these."""
    steps = case.time_steps
    if steps is None or case.value("reset_interval_power_of_two") is not True or steps & (steps - 1) == 0:
        return
    below = 1 << (steps.bit_length() - 1)
    remedy = f"on hardware use {below} or {2 * below}, blank time steps included; the simulation takes any"
    fact = case.fact("reset_interval_power_of_two")
    source = ", ".join(fact.source)
    yield Finding("warning", "time steps", steps, "a power of two", remedy, "", "is not", source, fact.status)


# Loihi -----------------------------------------------------------------------------------------------------


def fan_in(case: Case) -> Iterator[Finding]:
    """The current stays within the state bits when all inputs of one sign are active, or else on the training data.

    Hidden layers get binary spikes. The first layer with neurons gets what becomes of `input_payload` before it, where
    given; else the rule notes the largest payload that fits. A current that decays slowly piles up. Where it could
    leave the bits, but did not over the training data (`u_measured`), there is a warning with both numbers.
    """
    bits, shift = case.value("state_bits"), case.value("state_shift")
    first = True
    for bound in bounds(case.layers, 0, case.input_payload or 1, case.time_steps):
        layer, quantity = bound.layer, "worst-case current"
        if layer.neuron is None:
            continue
        if bits is None or shift is None:
            yield case.unknown("state_bits" if bits is None else "state_shift", quantity, None, layer.name)
            continue
        most, used = (1 << (bits - 1)) - 1, bound.current(shift)
        measured = layer.u_measured
        if measured is not None and measured > most:
            remedy = f"the training data itself makes it wrap beyond {bits} bits: train with a smaller weight scale"
            yield case.broken("state_bits", "measured current", measured, most, remedy, layer.name)
        elif measured is not None and used > most:
            worst = "unbounded" if used == math.inf else int(used)
            remedy = f"over the training data it reached {share(measured, most)}; on other data it could wrap"
            finding = case.broken("state_bits", quantity, worst, most, remedy, layer.name)
            yield dataclasses.replace(finding, severity="warning")
        elif used == math.inf:
            remedy = "the current never decays: give the number of time steps"
            yield Finding("not checked", quantity, None, None, remedy, layer.name)
        elif used > most:
            remedy = "lower the layer's weight scale and threshold together, or its fan-in"
            remedy += f"; beyond {bits} bits the current wraps"
            yield case.broken("state_bits", quantity, int(used), most, remedy, layer.name)
        elif first and case.input_payload is None:
            largest = largest_input(case.layers, case.time_steps, state_max=most, shift=shift)
            if largest is not None:
                yield Finding(
                    "note",
                    "largest input payload that cannot overflow",
                    largest,
                    None,
                    "keep inputs within it",
                    layer.name,
                )
        first = False


def saturation(case: Case) -> Iterator[Finding]:
    """The voltage that is read out stays within the state bits over the training data, where that was measured."""
    bits = case.value("state_bits")
    for layer in case.spiking[-1:]:
        measured = layer.v_measured
        if getattr(case.network, "readout", "count") != "voltage" or measured is None or bits is None:
            continue
        if measured > (most := (1 << (bits - 1)) - 1):
            remedy = "it saturates, and larger answers look alike: train with a smaller weight scale"
            finding = case.broken("state_bits", "measured voltage of the readout", measured, most, remedy, layer.name)
            yield dataclasses.replace(finding, severity="warning")


def readout_threshold(case: Case) -> Iterator[Finding]:
    """The neurons of a voltage readout, which must never spike, have a threshold that holds on hardware too."""
    shift = case.value("state_shift")
    for layer in case.spiking[-1:]:
        if getattr(case.network, "readout", "count") != "voltage":
            continue
        threshold, quantity = int(np.min(layer.neuron.threshold)), "threshold of the readout"
        largest = case.value("threshold_max")
        most = case.fact("readout_threshold_max")
        if most.value is not None and threshold > most.value:
            remedy = f"one as large spiked on hardware in others' work, {most.value:,} less: export with"
            remedy += f" --readout-threshold {most.value} if v stays below it"
            source = ", ".join(most.source)
            yield Finding("note", quantity, threshold, most.value, remedy, layer.name, ">", source, most.status)
        if shift is None:
            continue
        measured, reached = layer.v_measured, threshold << shift
        if measured is None and largest is not None and threshold < largest:
            remedy = f"it spikes where v passes {reached:,}; v was not measured over the training data"
            yield Finding("not checked", quantity, threshold, None, remedy, layer.name)
        elif measured is not None and measured > reached:
            remedy = f"over the training data |v| reached {measured:,}; past {reached:,} it spikes and its v is lost"
            yield Finding("warning", quantity, threshold, None, remedy, layer.name)


def neurons(case: Case) -> Iterator[Finding]:
    """All neurons together fit all cores together; a layer of more than a core has room for is split."""
    used = sum(math.prod(layer.shape) for layer in case.spiking)
    remedy = "use fewer channels, larger strides, or a larger board"
    yield from case.at_most(("neurons_per_core", *BOARD), "neurons", used, remedy)
    yield from _split(case, "neurons")


def synapse_memory(case: Case) -> Iterator[Finding]:
    """A core has memory for the synapses of at least one neuron; shared weights count once a core."""
    if case.value("weight_bits") is None:
        yield case.unknown("weight_bits", "synapse memory", None)
    else:
        yield from _shared(case, "synapse memory")


def input_axons(case: Case) -> Iterator[Finding]:
    """A core has input axons for what its neurons see: one a pixel (convolution) or one a neuron (dense)."""
    yield from _shared(case, "input axons")


def output_axons(case: Case) -> Iterator[Finding]:
    """A core has output axons for the cores its neurons feed; a shared (population) axon takes two."""
    yield from _shared(case, "output axons")


_FEWER = {
    "synapse memory": "use fewer inputs a neuron: fewer channels, a smaller kernel, a pool before it",
    "input axons": "use a smaller input: larger strides or a pool before it",
    "output axons": "make the layer after it smaller",
}


def _shared(case: Case, resource: str) -> Iterator[Finding]:
    """A resource that the layers on a core share: a single neuron must not exceed it."""
    fact, demands = RESOURCES["loihi"][resource], case.placement.demands
    if case.value(fact) is None and demands:
        yield case.unknown(fact, resource, max(demand.whole[resource] for demand in demands))
        return
    for demand in demands:
        quantity = f"{resource} of a single neuron"
        yield from case.at_most(fact, quantity, demand.least[resource], _FEWER[resource], demand.name)
    yield from _split(case, resource)


def _split(case: Case, resource: str) -> Iterator[Finding]:
    """Notes of the layers that are split because of this resource, the one of which a core has the least for them."""
    limits = {name: case.value(fact) for name, fact in RESOURCES["loihi"].items()}
    for demand in case.placement.demands:
        shares = {name: demand.whole[name] / limit for name, limit in limits.items() if limit}
        if demand.parts > 1 and shares and max(shares, key=lambda name: shares[name]) == resource:
            fact = case.fact(RESOURCES["loihi"][resource])
            used, remedy = demand.whole[resource], f"split over {demand.parts:,} cores"
            source = ", ".join(fact.source)
            yield Finding("note", resource, used, fact.value, remedy, demand.name, ">", source, fact.status)


def cores(case: Case) -> Iterator[Finding]:
    """The board has a core for every part of every layer."""
    used, remedy = len(case.placement.cores), "use fewer channels, larger strides, or a larger board"
    for finding in case.at_most(BOARD, "cores", used, remedy):
        # An estimated limit of a core must not make the board too small for sure.
        if finding.severity == "violation" and (sure := _without_estimates(case)) is not None:
            warning = next(sure.at_most(BOARD, "cores", len(sure.placement.cores), remedy), None)
            if warning is None or warning.severity == "warning":
                finding = dataclasses.replace(finding, severity="warning", remedy=f"{remedy} (a limit is an estimate)")
        yield finding


def _without_estimates(case: Case) -> Case | None:
    """The case on a chip whose cores have no limit where the profile only estimates one."""
    estimates = [f for f in RESOURCES["loihi"].values() if case.fact(f).status == "estimate"]
    if not estimates:
        return None
    unknown = {f: case.fact(f).model_copy(update={"value": None, "status": "unknown"}) for f in estimates}
    facts = case.profile.facts.model_copy(update=unknown)
    return dataclasses.replace(case, profile=case.profile.model_copy(update={"facts": facts}))


def synapses(case: Case) -> Iterator[Finding]:
    """Stored weights, each counted once, are within what the chips hold (where that is known)."""
    if case.value("synapses_per_chip") is not None:
        both = [w for layer in case.weighted for w in (layer.weight, getattr(layer, "recurrent", None))]
        count = sum(int(np.count_nonzero(weight)) for weight in both if weight is not None)
        remedy = "use fewer weights, or a larger board"
        yield from case.at_most(("synapses_per_chip", "chips"), "stored synapses", count, remedy)


def threshold_profiles(case: Case) -> Iterator[Finding]:
    """A core has registers for the different thresholds on it."""
    yield from _different(case, "threshold_profiles_per_core", "different thresholds on a core", "thresholds")


def synapse_formats(case: Case) -> Iterator[Finding]:
    """A core has registers for the different formats of synapse lists on it."""
    yield from _different(case, "synapse_formats_per_core", "different synapse formats on a core", "formats")


def _different(case: Case, fact: str, quantity: str, what: str) -> Iterator[Finding]:
    if case.value(fact) is None:
        return  # no limit known on any chip but Loihi 1
    for core in case.placement.cores:
        count = len(frozenset().union(*(getattr(part, what) for part in core.parts)))
        remedy = "give a layer's neurons fewer different ones"
        yield from case.at_most(fact, quantity, count, remedy, ", ".join(core.layers))


# Speck -----------------------------------------------------------------------------------------------------


SMALLER = {
    "kernel_memory": "use fewer channels or a smaller kernel (sizes round up to powers of two)",
    "neuron_memory": "use fewer channels, a larger stride or a pool before it (sizes round up to powers of two)",
    "bias_memory": "use fewer channels or no bias",
}
"""How to need less of each memory of a core."""


def core_memory(case: Case) -> Iterator[Finding]:
    """Every layer finds one core with enough kernel, neuron and bias memory."""
    sizes = {name: case.value(name) for name in SMALLER}
    for core in core_layers(case.layers):
        layer = core.layer.name
        words = {RESOURCES["speck"][name]: used for name, used in core.used.items()}
        too_big = False
        for name, used in words.items():
            quantity = name.replace("_", " ")
            if sizes[name] is None:
                yield case.unknown(name, quantity, used, layer)
            elif used > max(sizes[name]):
                too_big = True
                yield case.broken(name, quantity, used, max(sizes[name]), SMALLER[name], layer)
        # Each may fit on some core, but kernels on one and neurons on another.
        known = [name for name in words if sizes[name] is not None]
        fits = [words[name] <= np.array(sizes[name]) for name in known]
        if known and not too_big and not np.logical_and.reduce(fits).any():
            need = ", ".join(f"{name.replace('_', ' ')} {words[name]:,}" for name in known)
            yield case.broken(known[0], need, None, "any one core", SMALLER[known[0]], layer, "do not fit on")


def assignment(case: Case) -> Iterator[Finding]:
    """All layers find different cores (each that fits on any at all; what fits on none `core_memory` says)."""
    for layers, numbers in case.placement.rivals:
        if len(layers) > (case.value("cores_per_chip") or 0):
            continue  # `core_count` says it
        remedy = f"only cores {', '.join(map(str, numbers))} have the memory: make one of the layers smaller"
        fact = case.fact("kernel_memory")
        source, quantity = ", ".join(fact.source), f"layers {', '.join(layers)} compete for cores:"
        yield Finding("violation", quantity, len(layers), len(numbers), remedy, "", ">", source, fact.status)


def core_count(case: Case) -> Iterator[Finding]:
    """There is a core for every layer."""
    remedy = "use fewer layers: each takes a core of its own"
    yield from case.at_most("cores_per_chip", "layers", len(core_layers(case.layers)), remedy)


def feature_maps(case: Case) -> Iterator[Finding]:
    """Channels, heights and widths are within what a core takes in and puts out."""
    for core in core_layers(case.layers):
        name = core.layer.name
        remedy = "pool or stride earlier"
        yield from case.at_most("input_size_max", "input height or width", max(core.in_shape[1:]), remedy, name)
        yield from case.at_most("output_size_max", "output height or width", max(core.shape[1:]), remedy, name)
        for quantity, channels in (("input channels", core.in_shape[0]), ("output channels", core.shape[0])):
            yield from case.at_most("channels_max", quantity, channels, "use fewer channels", name)


def kernels(case: Case) -> Iterator[Finding]:
    """Kernel, stride, padding, groups and dilation are what a core can do."""
    for core in core_layers(case.layers):
        layer, name = core.layer, core.layer.name
        conv = layer.kind == "conv"
        remedy = "use a smaller kernel" if conv else "pool before it: the kernel of a dense layer is its input"
        yield from case.at_most("kernel_max", "kernel height or width", max(core.kernel), remedy, name)
        if core.kernel[0] != core.kernel[1] and case.value("kernel_square") is not False:
            quantity = f"kernel {core.kernel[0]}x{core.kernel[1]}, not square"
            if case.value("kernel_square") is None:
                yield case.unknown("kernel_square", quantity, None, name)
            else:
                yield case.broken("kernel_square", quantity, None, None, "use a square one (pad it with zeros)", name)
        if layer.kind != "conv":
            continue
        for size in sorted(set(layer.stride)):
            yield from case.one_of("strides", "stride", size, "use one of these", name)
        yield from case.at_most("padding_max", "padding", max(layer.padding), "use less padding", name)
        remedy = "write a sum pool as a pool layer, other groups as a full convolution with zeros"
        yield from case.at_most("groups_max", "groups", layer.groups, remedy, name)
        dilation = max(getattr(layer, "dilation", (1, 1)))
        yield from case.at_most("dilation_max", "dilation", dilation, "write it as a larger kernel with zeros", name)


def pools(case: Case) -> Iterator[Finding]:
    """Sum pools are of a size that a core can do at its output, or the camera before the first core.

    Pools in a row multiply. A stride is equal to the size; a core's pool is square.
    """
    row: tuple[int, int] = (1, 1)
    fact = "camera_pools"
    for layer, after in zip(case.layers, [*case.layers[1:], None], strict=True):
        if layer.kind != "pool":
            row = (1, 1)
            fact = "pools" if layer.weight is not None else fact
            continue
        row = (row[0] * layer.kernel[0], row[1] * layer.kernel[1])
        if tuple(layer.stride) != tuple(layer.kernel) or any(layer.padding):
            quantity = f"pool {layer.kernel} with stride {layer.stride} and padding {layer.padding}"
            remedy = "use a stride equal to the size and no padding"
            yield case.broken(fact, quantity, None, None, remedy, layer.name)
        if after is not None and after.kind == "pool":
            continue
        camera = fact == "camera_pools"
        if row[0] != row[1] and not camera:
            yield case.broken(fact, f"pool {row[0]}x{row[1]}, not square", None, None, "use a square one", layer.name)
        where = "pool of the input" if camera else "pool"
        remedy = "use one of these, or a strided convolution"
        if camera:
            remedy += ": no core pools its input, only the camera does"
        for size in sorted(set(row)):
            yield from case.one_of(fact, where, size, remedy, layer.name)


def camera(case: Case) -> Iterator[Finding]:
    """What is pooled before the first core can come from the camera, whose own layer does it."""
    first = next((layer for layer in case.layers if layer.kind != "flatten"), None)
    if first is None or first.kind != "pool":
        return
    remedy = "begin with a convolution, of stride 2 or 4 if need be: only the camera's own layer pools the input"
    channels, *size = first.in_shape
    yield from case.at_most("camera_channels", "channels of a pooled input", channels, remedy, first.name)
    yield from case.at_most("camera_size", "height or width of a pooled input", max(size), remedy, first.name)


def single_events(case: Case) -> Iterator[Finding]:
    """The membrane voltage stays within the state bits, or its loss is said.

    Events arrive one by one and a neuron spikes as soon as it can, so it never passes its threshold by more
    than one weight; from below it is clamped. The chip takes any threshold that fits (`threshold`): where one weight
    more does not, the neuron still spikes, and what v would have kept beyond its bits is lost.
    """
    bits = case.value("state_bits")
    for layer in case.spiking:
        if layer.weight is None:
            continue
        threshold = int(np.max(layer.neuron.threshold))
        used = threshold + max(0, int(np.max(layer.weight)))
        quantity = "threshold plus largest weight"
        if bits is None:
            yield case.unknown("state_bits", quantity, used, layer.name)
        elif used > (most := (1 << (bits - 1)) - 1):
            remedy = "lower the layer's weight scale and threshold together"
            if threshold > most:  # out of reach: it never spikes
                yield case.broken("state_bits", quantity, used, most, remedy, layer.name)
                continue
            lost = f"a spike can lose {used - most:,} of v, which saturates (in simulation; on the chip unknown): "
            finding = case.broken("state_bits", quantity, used, most, lost + remedy, layer.name)
            yield dataclasses.replace(finding, severity="warning")


def outputs(case: Case) -> Iterator[Finding]:
    """The chip's readout has a class for every output; a network with more loads, and is read otherwise."""
    last = case.layers[-1]
    remedy = "the chip's readout names no more: read the last core's events, or use fewer classes"
    for finding in case.at_most("outputs_max", "outputs", math.prod(last.shape), remedy, last.name):
        severity: Severity = "warning" if finding.severity == "violation" else finding.severity
        yield dataclasses.replace(finding, severity=severity)


Rule = Callable[[Case], Iterator[Finding]]

COMMON: tuple[Rule, ...] = (
    structure,
    weights,
    weight_exponent,
    threshold,
    decays,
    refractory,
    bias,
    delay,
    recurrence,
    payload,
    reset,
    reset_interval,
    placement,
)
RULES: dict[str, tuple[Rule, ...]] = {
    "loihi": (
        *COMMON,
        fan_in,
        saturation,
        readout_threshold,
        neurons,
        synapse_memory,
        input_axons,
        output_axons,
        cores,
        synapses,
        threshold_profiles,
        synapse_formats,
    ),
    "speck": (
        *COMMON,
        single_events,
        core_count,
        core_memory,
        assignment,
        feature_maps,
        kernels,
        pools,
        camera,
        outputs,
    ),
}
"""The rules of each family."""
OF_TRAINING: frozenset[Rule] = frozenset(
    (
        *(weights, weight_exponent, threshold, bias, delay),
        *(fan_in, saturation, readout_threshold, synapses, threshold_profiles, single_events),
    )
)
"""Rules about what training decides; the others are about shapes and the kind of neuron, known before it."""

_ORDER: tuple[Severity, ...] = ("violation", "warning", "not checked", "note")


def check(
    network: NetworkLike,
    profile: Profile,
    time_steps: int | None = None,
    input_payload: int | None = None,
    *,
    trained: bool = True,
) -> Report:
    """Check a network against a profile.

    Parameters
    ----------
    network : netx_export.network.Network, or anything with such layers
        Integers as the chip has them.
    profile : Profile
    time_steps : int, optional
        How many time steps a sample takes.
    input_payload : int, optional
        Largest value in the input (1: binary spikes).
    trained : bool
        False: weights, thresholds and biases are not known yet; the rules about them (`OF_TRAINING`) are left out.

    Returns
    -------
    Report
        All findings of all rules; ``report.fits``, ``str(report)``, ``report.to_dict()``.

    Raises
    ------
    ProfileError
        `time_steps` or `input_payload` is not positive.
    """
    for name, value in (("time_steps", time_steps), ("input_payload", input_payload)):
        if value is not None and value < 1:
            raise ProfileError(f"{name} must be at least 1, got {value}")
    case = Case(network, profile, time_steps, input_payload)
    rules = [rule for rule in RULES[profile.family] if trained or rule not in OF_TRAINING]
    findings = [dataclasses.replace(finding, rule=rule.__name__) for rule in rules for finding in rule(case)]
    findings.sort(key=lambda finding: _ORDER.index(finding.severity))
    return Report(str(getattr(network, "source", "network")), profile.name, tuple(findings), case.placement)
