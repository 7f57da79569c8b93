"""Placement on cores, against a count of every neuron, pixel and synapse one by one."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import networks

from hw_profiles import Profile, load, place
from hw_profiles.families.loihi import INDEX_BITS, loihi1_axon_bits
from hw_profiles.families.speck import core_layers
from hw_profiles.placement import RESOURCES, Core, Part
from netx_export.network import Conv, Dense, Flatten, Network, Neuron


def limited(name: str, **limits: Any) -> Profile:
    """A profile with other limits, None for unknown ones."""
    profile = load(name)
    facts = {
        fact: getattr(profile.facts, fact).model_copy(update={"value": value, "status": "documented"})
        for fact, value in limits.items()
    }
    return profile.model_copy(update={"facts": profile.facts.model_copy(update=facts)})


def indices(part: Part) -> list[tuple[int, int, int]]:
    """Channel, row and column of every neuron."""
    return list(itertools.product(*(range(*span) for span in part.span)))


def taps(layer: Conv, row: int, column: int) -> dict[tuple[int, int], tuple[int, int]]:
    """Input pixels of one output pixel, and the tap of the kernel each goes through."""
    found = {}
    for i, j in np.ndindex(*layer.weight.shape[2:]):  # type: ignore[union-attr]
        y = row * layer.stride[0] + i * layer.dilation[0] - layer.padding[0]
        x = column * layer.stride[1] + j * layer.dilation[1] - layer.padding[1]
        if 0 <= y < layer.in_shape[1] and 0 <= x < layer.in_shape[2]:
            found[y, x] = (i, j)
    return found


def synapses_by_hand(layer: Conv | Dense, part: Part) -> tuple[int, int]:
    """Input axons and bits of synaptic memory of a part."""
    delayed = isinstance(layer, Dense) and any(d is not None and d.any() for d in (layer.delay, layer.recurrent_delay))
    delay_bits = 6 if delayed else 0
    if isinstance(layer, Dense):
        axons = layer.in_shape[0] + (0 if layer.recurrent is None else layer.shape[0])
        return axons, axons * loihi1_axon_bits(part.neurons, delay_bits=delay_bits)
    height, width = (stop - start for start, stop in part.span[1:])
    reached: dict[tuple[int, int], dict[tuple[int, int], tuple[int, int]]] = {}
    for row, column in itertools.product(range(*part.span[1]), range(*part.span[2])):
        for pixel, tap in taps(layer, row, column).items():
            at = (row - part.span[1][0], column - part.span[2][0])
            reached.setdefault(pixel, {})[tap] = at
    channels = part.span[0][1] - part.span[0][0]
    last = 0
    for outputs in reached.values():
        first = min(row for row, _ in outputs.values()) * width + min(column for _, column in outputs.values())
        last = max(
            last, *((channels - 1) * height * width + row * width + column - first for row, column in outputs.values())
        )
    index_bits = min(bits for bits in INDEX_BITS if 2**bits > last)
    shared = {frozenset(outputs) for outputs in reached.values()}
    fan = layer.weight.shape[1]  # type: ignore[union-attr]
    memory = sum(loihi1_axon_bits(len(way) * fan * channels, index_bits=index_bits) for way in shared)
    return len(reached), memory


def feeds(layer: Conv, part: Part) -> set[tuple[int, int, int]]:
    """Input neurons that a part of a convolution sees."""
    fan, group = layer.weight.shape[1], layer.shape[0] // layer.groups  # type: ignore[union-attr]
    seen = set()
    for channel, row, column in indices(part):
        for (y, x), c in itertools.product(taps(layer, row, column), range(fan)):
            seen.add((channel // group * fan + c, y, x))
    return seen


def output_axons_by_hand(network: Network, part: Part, parts: list[Part]) -> int:
    """Output axons of a part: for every part it feeds two a pixel (convolution) or one a neuron (dense)."""
    spiking = [i for i, layer in enumerate(network.layers) if layer.neuron is not None]
    total = 0
    for other in parts:
        layer = network.layers[other.layer]
        after = spiking.index(other.layer) == spiking.index(part.layer) + 1
        if isinstance(layer, Conv) and after:
            seen = feeds(layer, other)
            total += 2 * len({at[1:] for at in indices(part) if at in seen})
        elif isinstance(layer, Dense) and after:
            total += part.neurons
        if isinstance(layer, Dense) and layer.recurrent is not None and other.layer == part.layer:
            total += part.neurons
    return total


def assert_placed_once(network: Network, cores: tuple[Core, ...], lost: set[int]) -> None:
    for i, layer in enumerate(network.layers):
        if layer.neuron is not None:
            here = np.zeros((*layer.shape, 1, 1)[:3], int)
            for core in cores:
                for part in core.parts:
                    if part.layer == i:
                        here[tuple(slice(*span) for span in part.span)] += 1
            assert (here == (0 if i in lost else 1)).all(), layer.name


few = st.none() | st.integers(1, 60)


@given(networks(), few, few, few, few | st.integers(60, 400))
def test_no_core_exceeds_a_limit_and_every_neuron_is_placed_once(
    network: Network, neurons: int | None, axons: int | None, words: int | None, out: int | None
) -> None:
    """On random chips: each neuron on one core, uses as counted one by one, none above the limits."""
    memory = None if words is None else 64 * words
    values = dict(zip(RESOURCES["loihi"], (neurons, memory, axons, out), strict=True))
    facts = {RESOURCES["loihi"][name]: value for name, value in values.items()}
    placement = place(network, limited("loihi1", **facts))
    parts = [part for core in placement.cores for part in core.parts]
    lost = {demand.layer for demand in placement.demands if not demand.parts}
    assert_placed_once(network, placement.cores, lost)
    assert placement.complete is not bool(lost)
    assert [core.number for core in placement.cores] == list(range(len(placement.cores)))
    for part in parts:
        layer = network.layers[part.layer]
        assert isinstance(layer, Conv | Dense)
        assert part.used["neurons"] == len(indices(part))
        assert (part.used["input axons"], part.used["synapse memory"]) == synapses_by_hand(layer, part)
        if not lost:
            assert part.used["output axons"] == output_axons_by_hand(network, part, parts)
    for core in placement.cores:
        for name, limit in core.limits.items():
            assert limit is None or core.used[name] <= limit
        assert len(frozenset().union(*(part.thresholds for part in core.parts))) <= 8 or len(core.parts) == 1
    for demand in placement.demands:
        if not demand.parts:
            assert any(value is not None and demand.least[name] > value for name, value in values.items())
    assert json.loads(json.dumps(placement.to_dict())) == placement.to_dict()


@given(networks())
def test_the_demand_of_a_single_neuron_is_the_largest_of_all_neurons(network: Network) -> None:
    """Input axons and memory that no split can lessen."""
    for demand in place(network, load("loihi1")).demands:
        layer = network.layers[demand.layer]
        assert isinstance(layer, Conv | Dense)
        each = [
            synapses_by_hand(layer, Part(0, "", tuple((i, i + 1) for i in at), {}))
            for at in np.ndindex(*(*layer.shape, 1, 1)[:3])
        ]
        assert demand.least["input axons"] == max(axons for axons, _ in each)
        assert demand.least["synapse memory"] == max(memory for _, memory in each)


@given(networks(), st.integers(1, 40), st.integers(1, 60))
def test_no_split_into_fewer_parts_would_do(network: Network, neurons: int, axons: int) -> None:
    """The last layer goes on as few cores as any cut into even ranges allows."""
    profile = limited("loihi1", neurons_per_core=neurons, input_axons_per_core=axons, output_axons_per_core=None)
    demand = place(network, profile).demands[-1]
    layer = network.layers[demand.layer]
    assert isinstance(layer, Conv | Dense)
    shape = (*layer.shape, 1, 1)[:3]
    for counts in itertools.product(*(range(1, size + 1) for size in shape)):
        if math.prod(counts) >= (demand.parts or math.inf):
            continue
        spans = itertools.product(
            *([(i * size // n, (i + 1) * size // n) for i in range(n)] for size, n in zip(shape, counts, strict=True))
        )
        parts = [Part(0, "", span, {}) for span in spans]
        recurrent = isinstance(layer, Dense) and layer.recurrent is not None
        assert recurrent or any(p.neurons > neurons or synapses_by_hand(layer, p)[0] > axons for p in parts)


def test_shared_weights_by_hand() -> None:
    """8 channels of 17 x 17 from 2 of 34 x 34, kernel 3, stride 2, padding 1, as if on a single core of Loihi 1.

    Along each axis an even pixel meets the map through tap 1, an odd one through taps 0 and 2, the last one through 2.
    """
    weight = np.full((8, 2, 3, 3), 2)
    conv = Conv(in_shape=(2, 34, 34), shape=(8, 17, 17), weight=weight, stride=(2, 2), padding=(1, 1), neuron=Neuron(1))
    (demand,) = place(Network((conv,)), load("loihi1")).demands
    # So 4 ways with one tap in the plane, 4 with two, 1 with four: lists of 2 x 8 synapses a tap, of 8 bits and 11 of
    # index, which reaches 7 * 289 + 17 + 1.
    one, two, four = (loihi1_axon_bits(n * 16, index_bits=11) for n in (1, 2, 4))
    assert (one, two, four) == (64 * math.ceil((16 * 19 + 10) / 64), 64 * math.ceil((32 * 19 + 10) / 64), 1280)
    assert demand.whole["synapse memory"] == 4 * one + 4 * two + four
    assert demand.whole["input axons"] == 34 * 34
    assert demand.whole["neurons"] == 2312
    assert demand.parts == 3


def test_a_convolution_sends_to_the_tiles_that_see_it() -> None:
    """Of four pixels one tile sees the first three, the other the last three: each half takes 2 x 3 axons."""
    one = np.full((1, 1, 1, 1), 2)
    first = Conv(in_shape=(1, 4, 1), shape=(1, 4, 1), weight=one, neuron=Neuron(1), name="a")
    second = Conv(in_shape=(1, 4, 1), shape=(1, 2, 1), weight=np.full((1, 1, 3, 1), 2), neuron=Neuron(1), name="b")
    placement = place(Network((first, second)), limited("loihi1", input_axons_per_core=3))
    parts = {str(part): part.used for core in placement.cores for part in core.parts}
    assert {name: (used["input axons"], used["output axons"]) for name, used in parts.items()} == {
        "a[0:1,0:2,0:1]": (2, 6),
        "a[0:1,2:4,0:1]": (2, 6),
        "b[0:1,0:1,0:1]": (3, 0),
        "b[0:1,1:2,0:1]": (3, 0),
    }


# Speck -----------------------------------------------------------------------------------------------------

words = st.sampled_from([16, 32, 64, 128])


@given(
    st.lists(st.tuples(words, words), min_size=1, max_size=4),
    st.lists(st.tuples(st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 4, 8])), min_size=1, max_size=4),
)
def test_speck_is_placed_where_any_assignment_is(sizes: list[tuple[int, int]], shapes: list[tuple[int, int]]) -> None:
    """Brute force over all assignments of layers to cores finds one exactly where the matching does."""
    kernels, neurons = zip(*sizes, strict=True)
    profile = limited(
        "speck2e", cores_per_chip=len(sizes), kernel_memory=kernels, neuron_memory=neurons, bias_memory=kernels
    )
    layers: list[Any] = []
    shape: tuple[int, ...] = (1, 4, 4)
    for i, (channels, size) in enumerate(shapes):
        side = min(size, shape[1])
        out = (channels, side, side)
        kernel = shape[1] - side + 1
        weight = np.ones((channels, shape[0], kernel, kernel), int)
        layers.append(Conv(in_shape=shape, shape=out, weight=weight, neuron=Neuron(1), name=f"conv{i}"))
        shape = out
    placement = place(Network(tuple(layers), reset="subtract"), profile)
    wanted = core_layers(Network(tuple(layers)))

    def fits(layer: int, core: int) -> bool:
        return wanted[layer].kernel_words <= kernels[core] and wanted[layer].neuron_words <= neurons[core]

    possible = len(layers) <= len(sizes) and any(
        all(fits(layer, core) for layer, core in enumerate(cores))
        for cores in itertools.permutations(range(len(sizes)), len(layers))
    )
    assert placement.complete is possible
    used = [core.number for core in placement.cores]
    assert len(set(used)) == len(used)
    for core in placement.cores:
        (part,) = core.parts
        assert fits(part.layer, core.number)
        assert all(core.used[name] <= limit for name, limit in core.limits.items() if limit is not None)
    if possible:
        assert_placed_once(Network(tuple(layers), reset="subtract"), placement.cores, set())
    for names, few_cores in placement.rivals:
        assert len(names) > len(few_cores)
        for name in names:
            layer = int(name.removeprefix("conv"))
            assert {core for core in range(len(sizes)) if fits(layer, core)} <= set(few_cores)


@pytest.mark.parametrize("family", ["loihi1", "speck2e"])
def test_table_names_cores_layers_and_shares(family: str) -> None:
    """The placement in words: how many cores, and what is on them."""
    flat = Flatten(in_shape=(1, 1, 4), shape=(4,))
    conv = Conv(in_shape=(1, 1, 4), shape=(1, 1, 4), weight=np.full((1, 1, 1, 1), 2), neuron=Neuron(1), name="conv")
    dense = Dense(in_shape=(4,), shape=(2,), weight=np.full((2, 4), 2), neuron=Neuron(1), name="fc")
    text = str(place(Network((conv, flat, dense)), load(family)))
    if family == "loihi1":
        assert text.splitlines()[0] == "1 of 128 cores in use"
        assert text.splitlines()[2].split() == [
            "0",
            "conv,",
            "fc",
            "6",
            "(1%)",
            "320",
            "(0%)",
            "8",
            "(0%)",
            "4",
            "(0%)",
        ]
    else:
        assert text.splitlines()[0] == "2 of 9 cores in use"
