"""The bound of the current: against brute force, and all who use it against one another."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import chains, networks

from hw_profiles import check, load
from netx_export import netx
from netx_export.bounds import bounds, largest_input, largest_sum, pile_up
from netx_export.network import (
    STATE_MAX,
    Conv,
    Dense,
    Flatten,
    Layer,
    Network,
    NetworkError,
    Neuron,
    Pool,
)
from netx_export.quantise import weight_scale
from netx_export.simulation import PAYLOAD_MAX, check_inputs


def dense(weight: list[list[int]], decay: int = 4096) -> Dense:
    array = np.array(weight)
    neuron = Neuron(100, decay)
    return Dense(in_shape=(array.shape[1],), shape=(array.shape[0],), weight=array, neuron=neuron, name="fc")


@settings(max_examples=100, deadline=None)
@given(network=chains(), data=st.data())
def test_no_input_passes_the_bound(network: Network, data: st.DataObject) -> None:
    """Whatever comes in, no sum and no current of any layer is beyond its bound."""
    low, high = data.draw(st.sampled_from([(0, 1), (0, 3), (-1, 1), (-4, 2)]))
    steps = data.draw(st.integers(1, 5))
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    inputs = generator.integers(low, high, size=(4, *network.in_shape, steps), endpoint=True)
    inputs[0], inputs[1] = low, high
    for record, bound in zip(reference.simulate(network, inputs), bounds(network, low, high, steps), strict=True):
        if bound.layer.neuron is None:
            assert bound.least <= record["spikes"].min()
            assert record["spikes"].max() <= bound.most
            assert np.abs(record["spikes"]).max() <= bound.terms
        else:
            assert record["u_before"].max() <= bound.current()


@settings(deadline=None)
@given(
    rows=st.lists(st.lists(st.integers(-256, 254), min_size=3, max_size=3), min_size=1, max_size=4),
    high=st.integers(1, 3),
    low=st.integers(-3, 0),
    pooled=st.booleans(),
)
def test_an_input_reaches_the_bound(rows: list[list[int]], high: int, low: int, pooled: bool) -> None:
    """Of all inputs of a dense layer that forgets at once, also behind a pool, one drives u to just its bound."""
    layers: list[Layer] = [dense(rows)]
    if pooled:
        layers[:0] = [Pool(in_shape=(3, 1, 2), shape=(3, 1, 1), kernel=(1, 2)), Flatten(in_shape=(3, 1, 1), shape=(3,))]
    values = product((low, high), repeat=3)
    inputs = np.array([np.repeat(each, 1 + pooled).reshape(layers[0].in_shape) for each in values])[..., None]
    record = reference.simulate(Network(tuple(layers)), inputs)[-1]
    assert record["u_before"].max() == list(bounds(layers, low, high))[-1].current()


@given(decay=st.integers(1, 4096), steps=st.integers(1, 400), step=st.integers(0, 1 << 14))
def test_a_pile_is_that_of_the_neuron(decay: int, steps: int, step: int) -> None:
    """A constant input comes as near to the bound as truncation lets it, and not beyond."""
    bound = math.floor(step * pile_up(decay, steps))  # type: ignore[operator]
    current = 0
    for _ in range(steps):
        current = current * (4096 - decay) // 4096 + step
    lost = sum((1 - decay / 4096) ** k for k in range(steps))
    assert bound - lost - 1 <= current <= bound <= step * 4096 / decay


@given(decay=st.integers(1, 4096), payload=st.integers(1, 1000), steps=st.none() | st.integers(1, 50))
def test_largest_sum_is_the_largest(decay: int, payload: int, steps: int | None) -> None:
    """Weights that add up to it stay within 24 bits, one more does not."""
    most = largest_sum(decay, payload, steps)
    for total, fits in ((most, True), (most + 1, False)):
        (bound,) = bounds([dense([[total]], decay)], 0, payload, steps)
        assert (bound.current() <= STATE_MAX) is fits


def test_a_sum_without_a_bound_is_refused() -> None:
    """A current that never decays has a largest sum only for a number of time steps."""
    assert largest_sum(0, time_steps=2) == (STATE_MAX + 1) // 128 - 1
    with pytest.raises(NetworkError, match="give time_steps, or a current decay"):
        largest_sum(0)
    with pytest.raises(NetworkError, match="payload is 0; give at least 1"):
        largest_sum(payload=0)


@settings(max_examples=100, deadline=None)
@given(network=chains(), decay=st.sampled_from([1, 2, 100, 4096]))
def test_all_users_agree(network: Network, decay: int) -> None:
    """What `check` calls a violation is what the range check refuses and the largest input says, layer by layer."""
    layers = [_with_decay(layer, decay) for layer in network]
    network = Network(tuple(layers))
    spiking = [bound for bound in bounds(network) if bound.layer.neuron is not None]
    wrong = {bound.layer.name for bound in spiking if bound.current() > STATE_MAX}
    found = {f.layer for f in check(network, load("loihi2")).of("violation") if f.rule == "fan_in"}
    assert found == wrong
    if wrong:
        first = next(bound.layer.name for bound in spiking if bound.layer.name in wrong)
        with pytest.raises(NetworkError, match=rf"\({first}\)"):
            netx.check_input_range(network, 1, signed=False)
    else:
        netx.check_input_range(network, 1, signed=False)
    largest = largest_input(network)
    for payload in () if not largest else (largest, largest + 1):
        bound = next(b for b in bounds(network, 0, payload) if b.layer.neuron is not None)
        findings = check(network, load("loihi2"), input_payload=payload).of("violation")
        named = any(f.rule == "fan_in" and f.layer == bound.layer.name for f in findings)
        assert named == (bound.current() > STATE_MAX) == (payload > largest)


def _with_decay(layer: Layer, decay: int) -> Layer:
    return layer if layer.neuron is None else replace(layer, neuron=replace(layer.neuron, current_decay=decay))


@settings(max_examples=60, deadline=None)
@given(network=networks(wraps=True), decay=st.sampled_from([0, 1, 2, 4096]))
def test_what_is_not_written_is_what_does_not_fit(
    network: Network, decay: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The writer refuses the hidden layers that `check` complains of, and no other."""
    first = network.spiking[0]
    layers = tuple(_with_decay(layer, decay if layer is not first else 4096) for layer in network)
    network = Network(layers, readout=network.readout)
    findings = check(network, load("loihi2")).findings
    complaints = [f for f in findings if f.rule == "fan_in" and f.severity in ("violation", "not checked")]
    path = Path(tmp_path_factory.mktemp("net")) / "a.net"
    if complaints:
        with pytest.raises(NetworkError, match=rf"\({complaints[0].layer}\): .* the current u can reach"):
            netx.write(network, path)
    else:
        netx.write(network, path)


@pytest.mark.parametrize("high", [1, 255, 1 << 20])
def test_input_that_32_bits_cannot_add_up_is_refused_by_the_same_bound(high: int) -> None:
    """The simulators refuse the input whose bound in one step passes 32 bits, and take the largest one below."""
    network = Network((Flatten(in_shape=(1, 1, 4), shape=(4,)), dense([[254, -2, 254, 254]])))
    inputs = np.full((1, 1, 1, 4, 1), high)
    bound = list(bounds(network, 0, high))[-1]
    if bound.change * 64 <= PAYLOAD_MAX:
        check_inputs(network, inputs)
    else:
        with pytest.raises(NetworkError, match=f"by {bound.change * 64} in a time step"):
            check_inputs(network, inputs)


def test_sums_without_neurons_in_24_bits() -> None:
    """What a convolution without neurons passes on is what 24 bits keep of it."""
    sums = Conv(in_shape=(1, 1, 1), shape=(1, 1, 1), weight=np.array([[[[254]]]]), name="sums")
    network = [sums, Flatten(in_shape=(1, 1, 1), shape=(1,)), dense([[1]])]
    assert list(bounds(network, 0, 1 << 10))[-1].high == 254 << 10
    last = list(bounds(network, 0, 1 << 20))[-1]
    assert (last.low, last.high) == (-STATE_MAX - 1, STATE_MAX)


@settings(deadline=None)
@given(
    inputs=st.integers(1, 3000),
    seed=st.integers(0, 2**32 - 1),
    decay=st.sampled_from([4096, 1024, 40]),
    payload=st.sampled_from([1, 3]),
    step=st.sampled_from([1, 2]),
)
def test_scaled_weights_stay_within_the_bound(inputs: int, seed: int, decay: int, payload: int, step: int) -> None:
    """With what `largest_sum` allows rounded weights never wrap; the scale is left where it fits, else kept large."""
    weight = np.random.default_rng(seed).normal(0.02, 0.05, (3, inputs)).astype(np.float32)
    most = largest_sum(decay, payload)
    free = weight_scale(weight, weight_step=step)
    scale = weight_scale(weight, weight_step=step, reach_max=most)
    integers = [step * np.round(weight * np.float32(scale / step)).astype(int) for scale in (scale, free)]
    bound, unlimited = (next(bounds([dense(weights.tolist(), decay)], 0, payload)) for weights in integers)
    assert bound.current() <= STATE_MAX
    if unlimited.change // payload <= 0.999 * most:
        assert scale == free
    else:
        # No smaller than rounding asks for: every weight up by half a step.
        assert scale >= 0.99 * min(free, (most - step * inputs) / max(np.abs(weight).sum(axis=1).max(), 1e-9))


def test_a_sum_beside_which_the_threshold_vanishes_is_refused() -> None:
    """Weights whose sum leaves the threshold no integer are refused, with the sum and what is allowed."""
    with pytest.raises(
        NetworkError, match=r"fc: .* add up to 800 times threshold 1; .* at most 300 the threshold would"
    ):
        weight_scale(np.full((1, 1600), 0.5), name="fc", reach_max=300)
