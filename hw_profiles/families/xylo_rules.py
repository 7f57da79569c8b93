"""Rules of Xylo: one core of neurons, each with weights of its own, which a convolution there is unrolled into."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from hw_profiles import common_rules
from hw_profiles.case import Case, Finding, Rule
from hw_profiles.geometry import met
from hw_profiles.groups import groups
from netx_export.network import DECAY_UNITY, INPUT, NetworkError


def size(case: Case) -> Iterator[Finding]:
    """There are input channels, hidden neurons and outputs enough, and at least two layers of neurons."""
    used = math.prod(case.network.in_shape)
    yield from case.at_most("inputs_max", "input channels", used, "pool the input before the chip: it has few channels")
    if not case.spiking:
        return  # `structure` says it
    *hidden, last = [layer for layer, _ in case.spiking]
    used = sum(math.prod(layer.shape) for layer in hidden)
    yield from case.at_most("hidden_neurons", "hidden neurons", used, "use fewer neurons")
    yield from case.at_most("outputs_max", "outputs", math.prod(last.shape), "use fewer classes", last.name)
    if not hidden:
        remedy = "the chip's mapper wants hidden neurons and outputs: add a layer"
        yield Finding("violation", "layers of neurons", 1, 2, remedy, last.name, "<")
    if getattr(last, "recurrent", None) is not None:
        yield Finding("violation", "recurrent outputs", None, None, "only hidden neurons feed back", last.name)


def projections(case: Case) -> Iterator[Finding]:
    """The input reaches, and the outputs take from, as few hidden neurons as the chip can connect them with."""
    fed = {way.target for way in case.ways if way.source == INPUT}
    used = sum(math.prod(case.network[name].shape) for name in fed)
    yield from case.at_most("input_projection_max", "neurons that the input reaches", used, "use a smaller first layer")
    last = {layer.name for layer, _ in case.spiking[-1:]}
    sources = {way.source for way in case.ways if way.target in last} - {INPUT}
    used = sum(math.prod(case.network[name].shape) for name in sources)
    remedy = "use a smaller last hidden layer"
    yield from case.at_most("output_projection_max", "neurons that feed outputs", used, remedy)


def fan_out(case: Case) -> Iterator[Finding]:
    """No hidden neuron feeds more synapses than it has; weights of 0 need none."""
    most: dict[str, np.ndarray] = {}
    try:
        held = groups(case.network, relays=False)
    except NetworkError:
        return  # `structure` says it
    for group in held:
        for feed in group.feeds:
            if feed.source != INPUT and feed.synapses.weight is not None:
                reached = met(feed.synapses, feed.synapses.weight != 0).ravel()
                most[feed.source] = most.get(feed.source, 0) + reached
        back = getattr(group.layer, "recurrent", None)
        if back is not None:
            most[group.layer.name] = most.get(group.layer.name, 0) + (back != 0).sum(0)
    for name, reached in most.items():
        remedy = "use fewer neurons behind it, or prune: weights of 0 take no synapse"
        yield from case.at_most("fan_out_max", "synapses from one neuron", int(reached.max()), remedy, name)


def shifts(case: Case) -> Iterator[Finding]:
    """A state loses itself shifted right: decays are 4096 / 2^n."""
    fact = case.fact("decay_shift")
    for layer, neuron in case.spiking if fact.value else ():
        for name in ("current_decay", "voltage_decay"):
            used, text, source = np.unique(getattr(neuron, name)), name.replace("_", " "), ", ".join(fact.source)
            ends = sorted({0, DECAY_UNITY} & set(used.tolist()))
            wrong = [int(one) for one in used if int(one) & (int(one) - 1)]
            if wrong:
                remedy = "train with a decay that is a power of two"
                yield Finding(
                    "violation", text, wrong[0], "4096 / 2^n", remedy, layer.name, "is not", source, fact.status
                )
            elif ends:
                remedy = "a state that keeps or forgets everything at once is no shift: try it in the chip's simulator"
                yield Finding("not checked", text, ends[0], None, remedy, layer.name, "", source, fact.status)


RULES: tuple[Rule, ...] = (
    common_rules.structure,
    common_rules.weights,
    common_rules.threshold,
    common_rules.bias,
    common_rules.sigma_delta,
    common_rules.delay,
    common_rules.recurrence,
    common_rules.payload,
    common_rules.reset,
    size,
    projections,
    fan_out,
    shifts,
)
OF_TRAINING: frozenset[Rule] = frozenset((fan_out,))
