"""Rules of Loihi and its boards."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from hw_profiles.case import BOARD, Case, Finding, Rule
from hw_profiles.families.loihi import place_on_loihi
from hw_profiles.placement import RESOURCES
from netx_export.bounds import bounds, largest_input, share
from netx_export.connections import waits
from netx_export.network import Dense, Neuron


def fan_in(case: Case) -> Iterator[Finding]:
    """The current stays within the state bits when all inputs of one sign are active, or else on the training data.

    Hidden layers get binary spikes. The first layer with neurons gets what becomes of `input_payload` before it, where
    given; else the rule notes the largest payload that fits. A current that decays slowly piles up. Where it could
    leave the bits, but did not over the training data (`u_measured`), there is a warning with both numbers.
    """
    bits, shift = case.value("state_bits"), case.value("state_shift")
    first = True
    for bound in bounds(case.network, 0, case.input_payload or 1, case.time_steps):
        layer, quantity = bound.layer, "worst-case current"
        if not isinstance(layer.neuron, Neuron):
            continue  # of neurons that send values `sigma_delta` speaks
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
            largest = largest_input(case.network, case.time_steps, state_max=most, shift=shift)
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
    for layer, _ in case.spiking[-1:]:
        measured = layer.v_measured
        if case.network.readout != "voltage" or measured is None or bits is None:
            continue
        if measured > (most := (1 << (bits - 1)) - 1):
            remedy = "it saturates, and larger answers look alike: train with a smaller weight scale"
            finding = case.broken("state_bits", "measured voltage of the readout", measured, most, remedy, layer.name)
            yield dataclasses.replace(finding, severity="warning")


def readout_threshold(case: Case) -> Iterator[Finding]:
    """The neurons of a voltage readout, which must never spike, have a threshold that holds on hardware too."""
    shift = case.value("state_shift")
    for layer, neuron in case.spiking[-1:]:
        if case.network.readout != "voltage":
            continue
        threshold, quantity = int(np.min(neuron.threshold)), "threshold of the readout"
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
    used = sum(math.prod(layer.shape) for layer in case.network.spiking)
    for name, held in _relayed(case).items():
        steps = "a time step" if held[0] == 1 else f"{held[0]} time steps"
        remedy = f"they hold its spikes {steps} for a shortcut"
        yield Finding("note", "relay neurons", held[1], None, remedy, name)
        used += held[1]
    remedy = "use fewer channels, larger strides, or a larger board"
    yield from case.at_most(("neurons_per_core", *BOARD), "neurons", used, remedy)
    yield from _split(case, "neurons")


def _relayed(case: Case) -> dict[str, tuple[int, int]]:
    """For each layer that a shortcut leaves: how long its spikes are held, and the relay neurons that do it."""
    return {name: (wait, wait * math.prod(case.network[name].shape)) for name, wait in waits(case.network).items()}


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
    profile = case.profile.model_copy(update={"facts": facts})
    return dataclasses.replace(case, profile=profile, placement=place_on_loihi(case.network, profile))


def synapses(case: Case) -> Iterator[Finding]:
    """Stored weights, each counted once, are within what the chips hold (where that is known)."""
    if case.value("synapses_per_chip") is not None:
        both = [w for layer, own in case.weighted for w in (own, layer.recurrent if isinstance(layer, Dense) else None)]
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


RULES: tuple[Rule, ...] = (
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
)
OF_TRAINING: frozenset[Rule] = frozenset((fan_in, saturation, readout_threshold, synapses, threshold_profiles))
