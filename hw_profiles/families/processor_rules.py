"""Rules of processors: a program computes the neurons, so that only weights and memory limit what can run.

What the chip's memory holds besides (the program, lists of spikes, tables) is not counted: a network that fits may
still be too large.
"""

from __future__ import annotations

from collections.abc import Iterator

from hw_profiles import common_rules
from hw_profiles.case import Case, Finding, Rule
from hw_profiles.neurobench import footprint


def memory(case: Case) -> Iterator[Finding]:
    """Weights, biases and states are within the memory of all cores together."""
    remedy = "use fewer weights or neurons; the program and its tables need room too"
    names = ("memory_per_core", "cores_per_chip", "chips")
    used = footprint(case.network, case.profile)
    if used is not None:
        yield from case.at_most(names, "bytes of weights and states", round(used), remedy)
        return
    yield case.unknown("state_bits", "bytes of states", None)
    bits = case.value("weight_bits")
    if bits is not None:
        stored = sum(layer.weights for layer in case.layers) * bits // 8
        yield from case.at_most(names, "bytes of weights", stored, remedy)


RULES: tuple[Rule, ...] = (common_rules.weights, common_rules.sigma_delta, common_rules.payload, memory)
