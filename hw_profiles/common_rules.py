"""Rules of every chip: one small function each, which yields what it finds.

A rule compares what a layer needs with one fact of the profile. A limit that is unknown is reported as
"not checked"; one that is an estimate or disputed gives a warning.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from hw_profiles.case import Case, Finding, Rule
from hw_profiles.placement import RESOURCES
from netx_export.connections import meets_no_neurons
from netx_export.network import MESSAGE_BITS, Add, Average, Conv, Dense, Flatten, Neuron, Pool, SigmaDelta

_ADDED = (
    "the file has no neurons here, and lava-dl adds these, which never spike: export the layer with neurons that fit, "
    "or leave it out and compute it off the chip"
)


# Rules of every chip ---------------------------------------------------------------------------------------


def structure(case: Case) -> Iterator[Finding]:
    """Layers are of known kinds, and have neurons where the chip needs them."""
    encoder = case.network.encoder
    if encoder is not None:
        remedy = "are not placed: the input is taken to be their spikes; on the chip they need room of their own"
        yield Finding("note", "input neurons", math.prod(encoder.shape), None, remedy)
    for layer in case.layers:
        if isinstance(layer, Average):
            yield Finding(
                "note", "mean over outputs", None, None, "is taken off the chip, from its output spikes", layer.name
            )
        elif not isinstance(layer, (Conv, Dense, Pool, Flatten, Add)):
            yield Finding("not checked", f"layer of kind {layer.kind!r}", None, None, "the rules know none", layer.name)
        elif isinstance(layer, Pool):
            yield from case.allowed(
                "pool_without_neuron",
                "sum pool without neurons",
                "write it as a grouped convolution with neurons",
                layer.name,
            )
        elif meets_no_neurons(case.network, layer):
            yield Finding("violation", "weights without neurons", None, None, "give the layer neurons", layer.name)


def weights(case: Case) -> Iterator[Finding]:
    """Weights are in range, and multiples of the chip's step (even with mixed sign)."""
    step = case.value("weight_step")
    for layer, own in case.weighted:
        recurrent = layer.recurrent if isinstance(layer, Dense) else None
        for quantity, weight in (("weight", own), ("recurrent weight", recurrent)):
            if weight is None:
                continue
            low, high = int(weight.min()), int(weight.max())
            remedy = _rescaled(case)
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
                    f"train with --profile {case.profile.name}, or quantise to multiples of {step}",
                    layer.name,
                    "not multiples of",
                )


def _rescaled(case: Case) -> str:
    return f"train with --profile {case.profile.name}, or lower the layer's weight scale and threshold together"


def weight_exponent(case: Case) -> Iterator[Finding]:
    """The power of two that a layer's weights have in common is within range (NetX files have none: 0)."""
    for layer, _ in case.weighted:
        exponent = int(getattr(layer, "weight_exponent", 0))
        if exponent:
            remedy = "rescale weights and threshold together"
            yield from case.at_most("weight_exponent_max", "weight exponent", exponent, remedy, layer.name)
            yield from case.at_least("weight_exponent_min", "weight exponent", exponent, remedy, layer.name)


def _remedy(neuron: Neuron, remedy: str) -> str:
    return _ADDED if neuron.added else remedy


def threshold(case: Case) -> Iterator[Finding]:
    """The threshold fits its mantissa."""
    for layer, neuron in case.spiking:
        remedy = _remedy(neuron, _rescaled(case))
        low, high = int(np.min(neuron.threshold)), int(np.max(neuron.threshold))
        yield from case.at_most("threshold_max", "threshold", high, remedy, layer.name)
        if low < 0:
            yield Finding("violation", "threshold", low, 0, "use a positive threshold", layer.name, "<")


def decays(case: Case) -> Iterator[Finding]:
    """Decays are within the range of their registers."""
    for layer, neuron in case.spiking:
        for name in ("current_decay", "voltage_decay"):
            used, text = getattr(neuron, name), name.replace("_", " ")
            if case.value("clocked") is False:
                remedy = (
                    "train integrate-and-fire neurons (current decay 4096, voltage decay 0): nothing decays by a clock"
                )
            else:
                remedy = f"train with a {text} within the chip's range"
            remedy = _remedy(neuron, remedy)
            yield from case.at_most(f"{name}_max", text, int(np.max(used)), remedy, layer.name)
            yield from case.at_least(f"{name}_min", text, int(np.min(used)), remedy, layer.name)


def refractory(case: Case) -> Iterator[Finding]:
    """Refractory periods are within range (1, no pause, needs nothing)."""
    for layer, neuron in case.spiking:
        steps = getattr(neuron, "refractory", 1)
        if np.any(np.asarray(steps) != 1):
            remedy = "train with a refractory period within the chip's range"
            yield from case.at_most("refractory_max", "refractory period", int(np.max(steps)), remedy, layer.name)
            yield from case.at_least("refractory_min", "refractory period", int(np.min(steps)), remedy, layer.name)


def bias(case: Case) -> Iterator[Finding]:
    """Biases are allowed, and fit mantissa and exponent."""
    for layer, neuron in case.spiking:
        values = neuron.bias
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
        exponent = neuron.bias_exponent
        yield from case.at_most("bias_exponent_max", "bias exponent", exponent, "use a smaller exponent", layer.name)
        if exponent < 0:
            yield Finding("violation", "bias exponent", exponent, 0, "use exponents from 0", layer.name, "<")


def sigma_delta(case: Case) -> Iterator[Finding]:
    """The chip has neurons that send values, whose thresholds and biases fit their states."""
    bits = case.value("state_bits")
    for layer, neuron in case.graded:
        remedy = "train spiking neurons, or take a chip that has these"
        yield from case.allowed("sigma_delta", f"{neuron.kind} neurons", remedy, layer.name)
        if case.value("sigma_delta") is not True or not isinstance(neuron, SigmaDelta) or bits is None:
            continue
        most = ((1 << (bits - 1)) - 1) >> neuron.shift
        bias = 0 if neuron.bias is None else int(np.abs(neuron.bias).max())
        for quantity, used in (("threshold", neuron.threshold), ("bias", bias)):
            if used > most:
                remedy = "lower the layer's weight scale, threshold and bias together"
                yield case.broken("state_bits", quantity, used, most, remedy, layer.name)
    if case.graded and case.value("sigma_delta") is True:
        remedy = f"have no bound beforehand: mtt simulate says where they left {bits} and {MESSAGE_BITS} bits"
        yield Finding("not checked", "sums and messages of sigma-delta neurons", None, None, remedy)


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
            remedy = (
                f"this chip's spikes carry values up to {most:,}: say what the input's largest is (--input-payload), "
                "or clip it"
            )
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
    wanted = case.network.reset
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


RULES: tuple[Rule, ...] = (
    structure,
    weights,
    weight_exponent,
    threshold,
    decays,
    refractory,
    bias,
    sigma_delta,
    delay,
    recurrence,
    payload,
    reset,
    reset_interval,
    placement,
)
OF_TRAINING: frozenset[Rule] = frozenset((weights, weight_exponent, threshold, bias, delay))
"""Rules about what training decides; the others are about shapes and the kind of neuron, known before it."""
