"""NeuroBench's vocabulary: against plain counts in NumPy, and against NeuroBench's own harness."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import graphs, networks
from test_training import bars, frames, make

from hw_profiles import NeuroBenchCounter, load
from hw_profiles.groups import groups
from hw_profiles.neurobench import footprint
from mtt_lava import evaluate, to_network, train
from mtt_lava.evaluation import run_network
from netx_export import Add, Conv, Dense, Flatten, Network, NetworkError, Neuron, Pool, write
from netx_export.network import ConvT, Layer
from netx_export.simulation import simulate
from netx_export.tally import tally

VARIABLE = "MTT_NEUROBENCH_PYTHON"
"""Names a Python that has neurobench 2.3.0."""


def matrix(layer: Layer) -> np.ndarray:
    """(2, outputs, inputs): how often each input meets each output, by any weight, and by one that is not 0."""
    assert layer.weight is not None
    found = np.zeros((2, int(np.prod(layer.shape)), int(np.prod(layer.in_shape))), int)
    if isinstance(layer, Dense):
        return np.stack([np.ones_like(layer.weight), layer.weight != 0])
    assert isinstance(layer, Conv | ConvT)
    channels, straight = layer.shape[0] // layer.groups, isinstance(layer, Conv)
    # A transposed convolution is one from its outputs to its inputs.
    near, far = (layer.shape, layer.in_shape) if straight else (layer.in_shape, layer.shape)
    for o, k, i, j in np.ndindex(*layer.weight.shape):
        c = o // channels * layer.weight.shape[1] + k
        for row, column in np.ndindex(*near[1:]):
            y = row * layer.stride[0] + i * layer.dilation[0] - layer.padding[0]
            x = column * layer.stride[1] + j * layer.dilation[1] - layer.padding[1]
            if 0 <= y < far[1] and 0 <= x < far[2]:
                out, into = ((o, row, column), (c, y, x)) if straight else ((o, y, x), (c, row, column))
                at = np.ravel_multi_index(out, layer.shape), np.ravel_multi_index(into, layer.in_shape)
                found[0][at] += 1
                found[1][at] += int(layer.weight[o, k, i, j] != 0)
    return found


def passed(network: Network, name: str, sent: dict[str, np.ndarray]) -> np.ndarray:
    """What comes from a layer, (N, T, ...), one pixel after the other."""
    if name in sent:
        return np.moveaxis(sent[name], -1, 1)
    layer = network[name]
    inputs = [passed(network, each, sent) for each in layer.inputs]
    if isinstance(layer, Add):
        return sum(inputs[1:], inputs[0])
    if isinstance(layer, Flatten):
        return inputs[0].reshape(*inputs[0].shape[:2], -1)
    assert isinstance(layer, Pool)
    out = np.zeros((*inputs[0].shape[:2], *layer.shape), int)
    (down, right), (high, wide) = layer.stride, layer.kernel
    for row, column in np.ndindex(*layer.shape[1:]):
        window = inputs[0][..., row * down : row * down + high, column * right : column * right + wide]
        out[..., row, column] = window.sum((-1, -2))
    return out


def plain(network: Network, inputs: np.ndarray, spikes: list[np.ndarray]) -> dict[str, Any]:
    """The metrics, counted as their definitions read."""
    sent = {"input": inputs} | {layer.name: each for layer, each in zip(network.spiking, spikes, strict=True)}
    zeros = total = macs = acs = dense = 0
    for layer in network:
        if layer.weight is None:
            continue
        ways = [(matrix(layer), passed(network, layer.inputs[0], sent))]
        if isinstance(layer, Dense) and layer.recurrent is not None:
            back = np.stack([np.ones_like(layer.recurrent), layer.recurrent != 0])
            ways.append((back, np.moveaxis(sent[layer.name], -1, 1)))
            zeros, total = zeros + int((layer.recurrent == 0).sum()), total + layer.recurrent.size
        zeros, total = zeros + int((layer.weight == 0).sum()), total + layer.weight.size
        for (every, met), came in ways:
            rows = (came != 0).reshape(-1, every.shape[1])
            count = int((rows @ met.T).sum())
            dense += int((np.ones_like(rows, int) @ every.T).sum())
            if set(np.unique(came).tolist()) <= {-1, 0, 1}:
                acs += count
            else:
                macs += count
    n = len(inputs)
    return {
        "connection_sparsity": zeros / total,
        "activation_sparsity": float(np.mean(np.concatenate([each.ravel() == 0 for each in spikes]))),
        "synaptic_operations": {"Effective_MACs": macs / n, "Effective_ACs": acs / n, "Dense": dense / n},
    }


def thinned(network: Network, seed: int) -> Network:
    """The network with half of its weights 0."""
    rng = np.random.default_rng(seed)
    layers = []
    for layer in network:
        weight = None if layer.weight is None else layer.weight * rng.integers(0, 2, layer.weight.shape)
        layers.append(layer if weight is None else type(layer)(**vars(layer) | {"weight": weight}))
    return Network(tuple(layers), network.readout, network.reset)


@settings(max_examples=30, deadline=None)
@given(networks() | graphs("currents") | graphs("spikes"), st.integers(0, 2**31), st.sampled_from((1, 3)))
def test_metrics_are_plain_counts(network: Network, seed: int, largest: int) -> None:
    """Of random networks with half of their weights 0: all kinds of kernels, pools, sums, recurrence."""
    network, rng = thinned(network, seed), np.random.default_rng(seed)

    def signal(shape: tuple[int, ...], most: int) -> np.ndarray:
        return rng.integers(0, most + 1, (2, *shape, 3)) * rng.integers(0, 2, (2, *shape, 3))

    counter, parts = NeuroBenchCounter(network), []
    for _ in range(2):
        parts.append((signal(network.in_shape, largest), [signal(layer.shape, 1) for layer in network.spiking]))
        try:
            counter.add(*parts[-1])
        except NetworkError:
            with pytest.raises(NetworkError):
                groups(network)  # chips refuse it too
            return
    inputs = np.concatenate([each for each, _ in parts])
    spikes = [np.concatenate(each) for each in zip(*(each for _, each in parts), strict=True)]
    found, wanted = counter.result(load("loihi2")).to_dict(), plain(network, inputs, spikes)
    del found["footprint"]
    assert found["synaptic_operations"] == wanted.pop("synaptic_operations")
    del found["synaptic_operations"]
    assert found == pytest.approx(wanted, abs=1e-12)


def test_the_footprint_is_what_the_chip_holds() -> None:
    """By hand: weights of 8 bits; on Loihi u and v of 24 bits and biases of 13, delays of 6; on Speck one v of 16."""
    weight = np.full((3, 4), 2)
    layer = Dense(in_shape=(4,), shape=(3,), weight=weight, neuron=Neuron(1, bias=np.array([1, 2, 3])))
    assert footprint(Network((layer,)), load("loihi2")) == (12 * 8 + 3 * 2 * 24 + 3 * 13) / 8
    back = np.full((3, 3), 2)
    layer = Dense(in_shape=(4,), shape=(3,), weight=weight, delay=weight, neuron=Neuron(1), recurrent=back)
    assert footprint(Network((layer,)), load("loihi1")) == ((12 + 9) * 8 + 12 * 6 + 3 * 2 * 24) / 8
    layer = Dense(in_shape=(4,), shape=(3,), weight=weight, neuron=Neuron(1))
    assert footprint(Network((layer,), reset="subtract"), load("speck2e")) == 12 + 3 * 2


def test_weights_behind_weights_are_refused_by_name() -> None:
    """The harness would call these MACs of sums, which no chip computes."""
    first = Dense(in_shape=(2,), shape=(2,), weight=np.full((2, 2), 2), name="first")
    last = Dense(in_shape=(2,), shape=(1,), weight=np.full((1, 2), 2), neuron=Neuron(1), name="last")
    counter = NeuroBenchCounter(Network((first, last)))
    with pytest.raises(NetworkError, match="layer first: its sums meet weights again"):
        counter.add(np.zeros((1, 2, 1), int), [np.zeros((1, 1, 1), int)])


@pytest.mark.parametrize("profile", ["loihi2", "speck2e"])
def test_evaluate_says_it_of_a_run(profile: str) -> None:
    """From what the trained network fired, of layers with trained weights; without a clock each event is one."""
    run, data = train(make(profile=profile, epochs=2), None, bars(), progress=False), bars(8, "test")
    speck = profile == "speck2e"
    points = evaluate(run, [4], data, event_driven=speck, progress=False)
    network, inputs = to_network(run, 4), frames(data, 4)[0]
    most = run.settings.input_max or inputs.max()
    spikes = [each.numpy().astype(int) for each in run_network(run, torch.from_numpy(inputs), True)[1]]
    if network.readout == "voltage":
        spikes.append(np.zeros((8, *network.shape, 4), int))
    wanted = plain(network, np.minimum(inputs, most), spikes)["synaptic_operations"]
    found = points[0].to_dict()["neurobench"]
    trained = [network[name] for name in run.network.weighted_names]
    if speck:
        assert found["synaptic_operations"] == wanted
        event = points[-1].neurobench
        assert event is not None
        assert (event.activation_sparsity, event.dense, event.effective_macs) == (None, None, 0)
        assert points[-1].activity is not None
        sparsity = event.connection_sparsity
        assert 0 < event.effective_acs <= sum(points[-1].synops.values())
    else:  # pools with neurons have weights, all 1, which nobody trained
        assert found["synaptic_operations"]["Dense"] < wanted["Dense"]
        sparsity = found["connection_sparsity"]
    zeros = sum(int((layer.weight == 0).sum()) for layer in trained)  # type: ignore[union-attr]
    assert sparsity == zeros / sum(layer.weights for layer in trained)
    assert found["footprint"] == footprint(network, run.settings.chip)


CASES = {"spikes": (1, ()), "counts": (3, ()), "pool": (1, ("pool",)), "sum": (1, ("sum", "pool"))}
"""Largest input, and what sums up spikes between layers: counts and sums are multiply-accumulates."""


def twin_network(between: tuple[str, ...]) -> Network:
    """A strided convolution, a grouped one, what sums spikes, and a dense layer; a third of weights are 0."""
    rng = np.random.default_rng(1)

    def weight(*shape: int) -> np.ndarray:
        return 2 * rng.integers(-20, 40, shape) * (rng.random(shape) < 2 / 3)

    first = Conv(
        name="first", in_shape=(2, 9, 8), shape=(4, 5, 8), weight=weight(4, 2, 3, 3), stride=(2, 1), padding=(1, 1),
        neuron=Neuron(90),
    )  # fmt: skip
    second = Conv(
        name="second", in_shape=(4, 5, 8), shape=(4, 5, 8), weight=weight(4, 2, 3, 3), padding=(1, 1), groups=2,
        neuron=Neuron(70),
    )  # fmt: skip
    maps = (4, 2, 4) if "pool" in between else (4, 5, 8)
    size = int(np.prod(maps))
    layers: list[Layer] = []
    if "sum" in between:
        layers.append(Add(name="sum", in_shape=(4, 5, 8), shape=(4, 5, 8), inputs=("second", "first")))
    if "pool" in between:
        layers.append(Pool(name="pool", in_shape=(4, 5, 8), shape=maps))
    end = (
        Flatten(name="flatten", in_shape=maps, shape=(size,)),
        Dense(name="last", in_shape=(size,), shape=(5,), weight=weight(5, size), neuron=Neuron(110)),
    )
    return Network((first, second, *layers, *end))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_harness_counts_the_same(case: str, tmp_path: Path) -> None:
    """All six metrics of a plain PyTorch twin, by NeuroBench 2.3.0 in a Python of its own; and it fires the same."""
    python = os.environ.get(VARIABLE)
    if not python:
        pytest.skip(f"{VARIABLE} names no Python that has neurobench 2.3.0")
    largest, between = CASES[case]
    network, rng = twin_network(between), np.random.default_rng(2)
    inputs = rng.integers(1, largest + 1, (6, *network.in_shape, 7)) * (rng.random((6, *network.in_shape, 7)) < 0.2)
    write(network, tmp_path / "a.net")
    result = simulate(tmp_path / "a.net", inputs, "fast", record=("spikes",), progress=False)
    counter = NeuroBenchCounter(network)
    counter.add(inputs, list(result.record.values()))
    found = counter.result(load("speck2e")).to_dict()
    assert (found["synaptic_operations"]["Effective_MACs"] > 0) == (case != "spikes")
    values = ("kernel", "stride", "padding", "dilation", "groups")
    described = [
        {"name": each.name, "kind": each.kind, "inputs": each.inputs, "shape": each.shape,
         "threshold": None if each.neuron is None else each.neuron.threshold, "in_channels": each.in_shape[0]}
        | {name: getattr(each, name) for name in values if hasattr(each, name)}
        for each in network
    ]  # fmt: skip
    weights = {str(i): layer.weight for i, layer in enumerate(network) if layer.weight is not None}
    np.savez(tmp_path / "network.npz", layers=np.array(json.dumps(described)), **weights)
    np.save(tmp_path / "inputs.npy", inputs)
    script = str(Path(__file__).parent / "neurobench_twin.py")
    command = [python, script, str(tmp_path / "network.npz"), str(tmp_path / "inputs.npy")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    wanted = json.loads(done.stdout.splitlines()[-1])
    assert wanted.pop("output spikes") == result.spikes.sum() > 0
    found["connection_sparsity"] = round(found["connection_sparsity"], 4)  # as the harness does
    assert found == wanted


@given(
    st.sampled_from([(3,), (2, 3, 4)]),
    st.sampled_from([np.float32, np.int32, np.int64, np.uint8, bool]),
    st.permutations(range(3)),
    st.integers(0, 99),
)
def test_a_tally_is_sums_and_counts(shape: tuple[int, ...], kind: type, memory: list[int], seed: int) -> None:
    """In whatever order samples, time and channels lie in memory."""
    generator = np.random.default_rng(seed)
    signal = generator.integers(0, 2 + seed % 2, (2, *shape, 5)).astype(kind)
    axes = [0, 1, signal.ndim - 1]
    order = [axes[i] for i in memory]
    signal = np.moveaxis(np.ascontiguousarray(np.moveaxis(signal, order, (0, 1, -1))), (0, 1, -1), order)
    found = tally(signal)
    np.testing.assert_array_equal(found.sums, signal.sum((0, -1), dtype=np.float64))
    np.testing.assert_array_equal(found.spikes, np.count_nonzero(signal, (0, -1)))
    assert found.graded == bool((signal.astype(int) > 1).any())
