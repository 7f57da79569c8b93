"""Rules of Speck and its relatives."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from hw_profiles.case import Case, Finding, Rule, Severity
from hw_profiles.families.speck import core_layers
from hw_profiles.placement import RESOURCES
from netx_export.connections import connections
from netx_export.network import INPUT, Add, Conv, Flatten, Network, Pool

SMALLER = {
    "kernel_memory": "use fewer channels or a smaller kernel (sizes round up to powers of two)",
    "neuron_memory": "use fewer channels, a larger stride or a pool before it (sizes round up to powers of two)",
    "bias_memory": "use fewer channels or no bias",
}
"""How to need less of each memory of a core."""


def core_memory(case: Case) -> Iterator[Finding]:
    """Every layer finds one core with enough kernel, neuron and bias memory."""
    sizes = {name: case.value(name) for name in SMALLER}
    for core in core_layers(case.network):
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
    yield from case.at_most("cores_per_chip", "layers", len(core_layers(case.network)), remedy)


def feature_maps(case: Case) -> Iterator[Finding]:
    """Channels, heights and widths are within what a core takes in and puts out."""
    for core in core_layers(case.network):
        name = core.layer.name
        remedy = "pool or stride earlier"
        yield from case.at_most("input_size_max", "input height or width", max(core.in_shape[1:]), remedy, name)
        yield from case.at_most("output_size_max", "output height or width", max(core.shape[1:]), remedy, name)
        for quantity, channels in (("input channels", core.in_shape[0]), ("output channels", core.shape[0])):
            yield from case.at_most("channels_max", quantity, channels, "use fewer channels", name)


def kernels(case: Case) -> Iterator[Finding]:
    """Kernel, stride, padding, groups and dilation are what a core can do."""
    for core in core_layers(case.network):
        layer, name = core.layer, core.layer.name
        remedy = "pool before it: the kernel of a dense layer is its input"
        remedy = "use a smaller kernel" if isinstance(layer, Conv) else remedy
        yield from case.at_most("kernel_max", "kernel height or width", max(core.kernel), remedy, name)
        if core.kernel[0] != core.kernel[1] and case.value("kernel_square") is not False:
            quantity = f"kernel {core.kernel[0]}x{core.kernel[1]}, not square"
            if case.value("kernel_square") is None:
                yield case.unknown("kernel_square", quantity, None, name)
            else:
                yield case.broken("kernel_square", quantity, None, None, "use a square one (pad it with zeros)", name)
        if not isinstance(layer, Conv):
            continue
        for size in sorted(set(layer.stride)):
            yield from case.one_of("strides", "stride", size, "use one of these", name)
        yield from case.at_most("padding_max", "padding", max(layer.padding), "use less padding", name)
        remedy = "write a sum pool as a pool layer, other groups as a full convolution with zeros"
        yield from case.at_most("groups_max", "groups", layer.groups, remedy, name)
        dilation = max(layer.dilation)
        yield from case.at_most("dilation_max", "dilation", dilation, "write it as a larger kernel with zeros", name)


def pools(case: Case) -> Iterator[Finding]:
    """Sum pools are of a size that a core can do at its output, or the camera before the first core.

    Pools in a row multiply. A stride is equal to the size; a core's pool is square.
    """
    for layer in case.layers:
        if not isinstance(layer, Pool):
            continue
        row, camera = _row(case.network, layer)
        fact = "camera_pools" if camera else "pools"
        if layer.stride != layer.kernel or any(layer.padding):
            quantity = f"pool {layer.kernel} with stride {layer.stride} and padding {layer.padding}"
            remedy = "use a stride equal to the size and no padding"
            yield case.broken(fact, quantity, None, None, remedy, layer.name)
        users = case.network.users(layer.name)
        if users and all(isinstance(user, Pool) for user in users):
            continue
        if row[0] != row[1] and not camera:
            yield case.broken(fact, f"pool {row[0]}x{row[1]}, not square", None, None, "use a square one", layer.name)
        where = "pool of the input" if camera else "pool"
        remedy = "use one of these, or a strided convolution"
        if camera:
            remedy += ": no core pools its input, only the camera does"
        for size in sorted(set(row)):
            yield from case.one_of(fact, where, size, remedy, layer.name)


def _row(network: Network, layer: Pool) -> tuple[tuple[int, int], bool]:
    """Size of a pool times those of the pools that it follows, and whether all of that pools the input."""
    row = layer.kernel
    before = layer.inputs[0]
    while before != INPUT:
        other = network[before]
        if isinstance(other, Pool):
            row = (row[0] * other.kernel[0], row[1] * other.kernel[1])
        elif not isinstance(other, Flatten):
            return row, False
        before = other.inputs[0]
    return row, True


def camera(case: Case) -> Iterator[Finding]:
    """What is pooled before the first core can come from the camera, whose own layer does it."""
    for layer in case.layers:
        if not isinstance(layer, Pool) or layer.inputs != (INPUT,):
            continue
        remedy = "begin with a convolution, of stride 2 or 4 if need be: only the camera's own layer pools the input"
        channels, *size = layer.in_shape
        yield from case.at_most("camera_channels", "channels of a pooled input", channels, remedy, layer.name)
        yield from case.at_most("camera_size", "height or width of a pooled input", max(size), remedy, layer.name)


def merges(case: Case) -> Iterator[Finding]:
    """Several cores can send to one, which adds up their events; it does not add up currents."""
    for layer in case.layers:
        if not isinstance(layer, Add):
            continue
        if layer.neuron is not None:
            remedy = "the chip adds up events: train with neuron = false in the add, and neurons in what it adds"
            yield Finding("violation", "sum of currents", None, None, remedy, layer.name)
            continue
        users = list(case.network.users(layer.name))
        users += [one for user in users if isinstance(user, Flatten) for one in case.network.users(user.name)]
        wrong = [user.name for user in users if user.weight is None and not isinstance(user, Flatten)]
        if wrong or not users:
            remedy = f"it goes into {wrong[0]}" if wrong else "nothing weights it"
            remedy += ": a sum of events stands right before a conv or dense layer, whose core does it"
            yield Finding("violation", "sum of events", None, None, remedy, layer.name)


def destinations(case: Case) -> Iterator[Finding]:
    """A core sends to few others."""
    targets: dict[str, set[str]] = {}
    for way in connections(case.network):
        targets.setdefault(way.source, set()).add(way.target)
    for source, reached in targets.items():
        remedy = f"it feeds {', '.join(sorted(reached))}: let shortcuts start at different layers"
        if source != INPUT and len(reached) > 1:
            yield from case.at_most("destinations_per_core", "destinations of a core", len(reached), remedy, source)


def single_events(case: Case) -> Iterator[Finding]:
    """The membrane voltage stays within the state bits, or its loss is said.

    Events arrive one by one and a neuron spikes as soon as it can, so it never passes its threshold by more
    than one weight; from below it is clamped. The chip takes any threshold that fits (`threshold`): where one weight
    more does not, the neuron still spikes, and what v would have kept beyond its bits is lost.
    """
    bits = case.value("state_bits")
    for layer, neuron in case.spiking:
        if layer.weight is None:
            continue
        threshold = int(np.max(neuron.threshold))
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
    remedy = "the chip's readout names no more: read the last core's events, or use fewer classes"
    for last, _ in case.spiking[-1:]:  # a mean over several of them is taken off the chip
        for finding in case.at_most("outputs_max", "outputs", math.prod(last.shape), remedy, last.name):
            severity: Severity = "warning" if finding.severity == "violation" else finding.severity
            yield dataclasses.replace(finding, severity=severity)


RULES: tuple[Rule, ...] = (
    single_events,
    core_count,
    core_memory,
    assignment,
    feature_maps,
    kernels,
    pools,
    camera,
    merges,
    destinations,
    outputs,
)
OF_TRAINING: frozenset[Rule] = frozenset((single_events,))
