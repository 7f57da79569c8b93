"""Rules of Akida 1.0: convolutions and dense layers of few bits, each of whose outputs depends on its input alone."""

from __future__ import annotations

import math
from collections.abc import Iterator

from hw_profiles import common_rules
from hw_profiles.case import Case, Finding, Rule
from netx_export.network import INPUT, Conv, Dense, Flatten, Layer, Pool


def state(case: Case) -> Iterator[Finding]:
    """Nothing is kept from one input to the next: a spiking network is itself there only in a single time step.

    Then a neuron is a step of its input: an activation of 1 bit.
    """
    if case.value("keeps_state") is not False:
        return
    if case.time_steps is None:
        remedy = "the chip keeps no state: say how many time steps a sample takes; only 1 is the same there"
        yield Finding("not checked", "time steps", None, None, remedy)
    elif case.time_steps > 1:
        remedy = "run it at T = 1, all events in one frame: the chip keeps no state between inputs"
        yield case.broken("keeps_state", "time steps", case.time_steps, 1, remedy)
    for layer in case.layers:
        if getattr(layer, "recurrent", None) is not None or getattr(layer, "delay", None) is not None:
            yield case.broken("keeps_state", "recurrent synapse or delay", None, None, "remove it", layer.name)


def _first(case: Case, layer: Layer) -> bool:
    return layer.inputs == (INPUT,)


def layers(case: Case) -> Iterator[Finding]:
    """Kernels, strides and padding are among those of the chip; it has no sum pools, and chains of layers only."""
    for layer in case.layers:
        if isinstance(layer, Pool):
            remedy = "the chip pools by the largest or by the mean of all: use a strided convolution"
            yield Finding("violation", "sum pool", None, None, remedy, layer.name)
        elif not isinstance(layer, (Conv, Dense, Flatten)):
            remedy = "the rules know only convolutions and dense layers of this chip"
            yield Finding("not checked", f"layer of kind {layer.kind!r}", None, None, remedy, layer.name)
        elif isinstance(layer, Dense):
            used = math.prod(layer.in_shape)
            yield from case.at_most("dense_inputs_max", "inputs", used, "pool or stride earlier", layer.name)
        if not isinstance(layer, Conv):
            continue
        kernel, before = layer.window.weight.shape[2:], "input_" if _first(case, layer) else ""
        if kernel[0] != kernel[1]:
            yield Finding("violation", f"kernel {kernel[0]}x{kernel[1]}, not square", None, None, "pad it", layer.name)
        yield from case.one_of(f"{before}kernels", "kernel", max(kernel), "use one of these", layer.name)
        yield from case.one_of(f"{before}strides", "stride", max(layer.stride), "use one of these", layer.name)
        if before:
            channels = layer.in_shape[0]
            yield from case.one_of("input_channels", "channels of the input", channels, "use one of these", layer.name)
        elif layer.padding != tuple((size - 1) // 2 for size in kernel):
            remedy = "use half of the kernel: only padding 'same' is possible here"
            yield Finding("violation", f"padding {layer.padding}", None, None, remedy, layer.name)
        yield from case.at_most("groups_max", "groups", layer.groups, "use a full convolution", layer.name)
        yield from case.at_most("dilation_max", "dilation", max(layer.dilation), "use a larger kernel", layer.name)


def weight_bits(case: Case) -> Iterator[Finding]:
    """Weights need no more bits, with sign, than the chip has for them; the first layer may have more."""
    for layer, weight in case.weighted:
        own = case.fact("input_weight_bits").value is not None and _first(case, layer) and isinstance(layer, Conv)
        low, high = int(weight.min()), int(weight.max())
        bits = max(max(high, 0).bit_length(), max(-low - 1, 0).bit_length()) + 1
        remedy = "train with fewer bits, or scale weights and threshold down together"
        yield from case.at_most("input_weight_bits" if own else "weight_bits", "weight bits", bits, remedy, layer.name)


RULES: tuple[Rule, ...] = (state, layers, weight_bits, common_rules.sigma_delta, common_rules.payload)
OF_TRAINING: frozenset[Rule] = frozenset((weight_bits,))
