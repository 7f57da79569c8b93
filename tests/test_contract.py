"""One contract for every backend: any graph, computed as the plain reference computes it, or refused by name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st
from strategies import assert_same, chains, graphs, networks, sigma_deltas, spike_inputs
from test_fast import EVERYTHING, assert_equals_reference, fast, on_torch, run_unchecked

from netx_export import netx
from netx_export.event import backend as event_backend
from netx_export.event.backend import Events
from netx_export.lava import backend as lava_backend
from netx_export.limits import OF_MESSAGES, Limits
from netx_export.network import (
    KINDS,
    Add,
    AnyNeuron,
    Conv,
    ConvT,
    Dense,
    Flatten,
    Layer,
    Network,
    NetworkError,
    Neuron,
    Pool,
    Sigma,
    SigmaDelta,
)
from netx_export.simulation import Simulation, check_inputs

MAP, FLAT = (2, 4, 4), (32,)
NEURON = Neuron(3)


def check_graph(data: st.DataObject, backend: Callable[..., Any], seen: Counter[str]) -> None:
    network = data.draw(graphs())
    largest = data.draw(st.sampled_from((1, 1, 7)))
    inputs = data.draw(spike_inputs(network, largest=largest))
    if data.draw(st.booleans()):
        inputs *= np.random.default_rng(0).choice([-1, 1], size=inputs.shape)
    try:
        check_inputs(network, inputs)
    except NetworkError:
        assume(False)
    result = backend(network, inputs, record=EVERYTHING)
    assert_equals_reference(network, inputs, result)
    seen["graphs"] += 1
    seen["branches"] += not network.is_chain
    seen["merges of three"] += any(len(layer.inputs) > 2 for layer in network)
    seen["spikes come out"] += bool(result.spikes.any())


@pytest.mark.parametrize("count", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_graphs_equal_the_reference(count: int) -> None:
    """Spikes, u, v and limits of every layer of random graphs, on the CPU's compiled code and on PyTorch's."""
    seen: Counter[str] = Counter()

    @settings(max_examples=count, deadline=None)
    @given(data=st.data(), backend=st.sampled_from((fast, fast, on_torch)))
    def run(data: st.DataObject, backend: Callable[..., Any]) -> None:
        check_graph(data, backend, seen)

    run()
    for what in ("branches", "merges of three", "spikes come out"):
        assert seen[what] > seen["graphs"] // 10, seen


# ------------------------------------------------------------------------------------------------ sigma-delta


def states_of(network: Network) -> tuple[str, ...]:
    """All that can be recorded of a network."""
    return ("spikes", *network.states)


def assert_values_equal_reference(network: Network, inputs: np.ndarray, result: Simulation) -> None:
    """Messages, readout, every state and the limits are those of the plain NumPy reading of the rule."""
    expected = dict(zip((layer.name for layer in network), reference.simulate(network, inputs), strict=True))
    limits = {}
    names = []
    for layer in network.spiking:
        assert layer.neuron is not None
        record = expected[layer.name]
        for what in ("spikes", *layer.neuron.states):
            names.append(f"{what}.{layer.name}")
            np.testing.assert_array_equal(result.record[names[-1]], record[what], err_msg=names[-1])
        sent = record["spikes"] if isinstance(layer.neuron, SigmaDelta) else np.zeros(1, int)
        most = [int(np.abs(states).max()) for states in (record["sigma"], sent)]
        beyond = [int((np.abs(record["sigma"]) >= 1 << 23).sum()), int((sent != sent.astype(np.int16)).sum())]
        limits[layer.name] = Limits(most[0], most[1], beyond[0], beyond[1], OF_MESSAGES)
    assert list(result.record) == names
    assert result.limits == limits
    assert bool(result.limits_text()) == any(x.wraps or x.saturations for x in limits.values())
    last = expected[network.layers[-1].name]
    np.testing.assert_array_equal(result.spikes, last["spikes"])
    assert result.fired == np.count_nonzero(last["spikes"])
    if network.readout == "count":
        np.testing.assert_array_equal(result.readout, last["spikes"].sum(-1).reshape(len(inputs), -1))
    elif network.layers[-1].neuron is not None:
        state = last[network.layers[-1].neuron.answer]
        np.testing.assert_array_equal(result.readout, state[..., -1].reshape(len(inputs), -1))


def values_for(data: st.DataObject, network: Network, samples: int = 2) -> np.ndarray:
    """Messages of either sign for a network."""
    largest = data.draw(st.sampled_from((1, 7, 300, 4096, 100_000)))
    inputs = data.draw(spike_inputs(network, samples=samples, largest=largest))
    return inputs * np.random.default_rng(0).choice([-1, 1], size=inputs.shape)


@pytest.mark.parametrize("count", [60, pytest.param(300, marks=pytest.mark.slow)])
def test_sigma_delta_networks_equal_the_reference(count: int) -> None:
    """Messages and states of every layer of random chains and graphs, on the CPU's compiled code and on PyTorch's."""
    seen: Counter[str] = Counter()

    @settings(max_examples=count, deadline=None)
    @given(data=st.data(), backend=st.sampled_from((fast, on_torch)))
    def run(data: st.DataObject, backend: Callable[..., Any]) -> None:
        some = data.draw(st.sampled_from((chains(), networks(wraps=True), graphs())))
        network = data.draw(some.flatmap(sigma_deltas))
        if not network.spiking:
            return
        inputs = values_for(data, network)
        try:
            result = backend(network, inputs, record=states_of(network))
        except NetworkError as error:
            seen["beyond"] += bool(re.search(r": layer \w+: messages came to a sum of \d+; Lava's process", str(error)))
            seen["other errors"] += "messages came to a sum" not in str(error)
            return
        assert_values_equal_reference(network, inputs, result)
        seen["networks"] += 1
        seen["graphs"] += not network.is_chain
        seen["messages come out"] += bool(result.spikes.any())
        seen["sums come out"] += isinstance(network.layers[-1].neuron, Sigma)
        seen["residues stay"] += any(a.any() for name, a in result.record.items() if name.startswith("residue"))
        seen["24 bits left"] += any(x.wraps for x in (result.limits or {}).values())

    run()
    print(dict(seen))
    assert seen["beyond"] < seen["networks"]
    assert not seen["other errors"]
    for what in ("graphs", "messages come out", "sums come out", "residues stay"):
        assert seen[what] > seen["networks"] // 20, seen


def random_values(count: int) -> list[tuple[Network, np.ndarray]]:
    """Random sigma-delta networks that can be written, with inputs; always the same ones."""
    drawn: list[tuple[Network, np.ndarray]] = []

    @settings(max_examples=count, database=None, derandomize=True)
    @given(data=st.data())
    def draw(data: st.DataObject) -> None:
        network = data.draw(networks(synapses="plain", wraps=True).flatmap(sigma_deltas))
        if "act" not in network.states:  # a lone layer that sends sums, of which not all can be recorded
            reject()
        inputs = values_for(data, network, samples=3)
        try:
            fast(network, inputs)
        except NetworkError:
            reject()
        drawn.append((network, inputs))

    draw()
    return drawn[-count:]


@pytest.mark.lava
@pytest.mark.parametrize("every", [10, pytest.param(1, marks=pytest.mark.slow)])
def test_sigma_delta_networks_equal_lava(every: int, tmp_path: Path) -> None:
    """Written, read and loaded by lava-dl, Lava's own models give the same messages, states, readout and limits."""
    runs = []
    for number, (network, inputs) in enumerate(random_values(100)[::every]):
        path = tmp_path / f"{number}.net"
        netx.write(network, path)
        assert_same(netx.read(path), network)
        runs.append((path, inputs))
    values = 0
    record = states_of(netx.read(runs[0][0]))
    results = lava_backend.simulate_each(runs, record=record, progress=False)
    stocks = lava_backend.simulate_each(runs[:2], record=record, progress=False, stock=True)
    for (path, inputs), lavas in zip([*runs, *runs[:2]], [*results, *stocks], strict=True):
        ours = fast(netx.read(path), inputs, record=record)
        assert ours.record.keys() == lavas.record.keys()
        pairs = [(ours.spikes, lavas.spikes), (ours.readout, lavas.readout)]
        for one_, other in [*pairs, *((ours.record[name], lavas.record[name]) for name in ours.record)]:
            np.testing.assert_array_equal(one_, other, strict=True)
            values += np.count_nonzero(one_)
        assert lavas.limits is None or ours.limits == lavas.limits
    assert values > 1000
    assert [result.limits for result in stocks] == [None, None]


def test_sums_beyond_what_lava_holds_are_refused(tmp_path: Path) -> None:
    """A dense layer of small weights, which NetX shifts by six bits, holds less than 32 bits; Lava is not started."""
    layer = Dense(in_shape=(1,), shape=(1,), weight=np.array([[2]]), neuron=Sigma())
    network = Network((layer,), readout="voltage")
    most = (1 << 31 - 6) - 1
    for backend in (fast, on_torch):
        result = backend(network, np.array([[[most // 2]]]))
        assert result.readout.tolist() == [[most // 2 * 2]]
        with pytest.raises(NetworkError, match=f"layer dense1: messages came to a sum of {most + 1}; "):
            backend(network, np.array([[[most // 2 + 1]]]))
    netx.write(network, tmp_path / "a.net")
    with pytest.raises(NetworkError, match=f"layer dense1: messages came to a sum of {most + 1}; "):
        lava_backend.simulate(tmp_path / "a.net", np.array([[[most // 2 + 1]]]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"neuron": NEURON}, "layer last: has spiking neurons, and others are sigma-delta"),
        ({"recurrent": np.full((2, 2), 2)}, "layer last: has recurrent weights, which sigma-delta neurons do not run"),
        ({"delay": np.full((2, 32), 1)}, "layer last: has delays, which sigma-delta neurons do not run with"),
        ({"delay": np.full((2, 32), 1), "neuron": None}, "layer last: has delays, which sigma-delta neurons do not"),
    ],
)
def test_what_sigma_delta_networks_do_not_hold_is_named(changes: dict[str, Any], message: str) -> None:
    """Spiking neurons, recurrence and delays: one line with the layer's name."""
    first, flat, last = one(Flatten, None, SigmaDelta(3)).layers
    with pytest.raises(NetworkError, match=message):
        Network((first, flat, replace(last, **changes)))


def test_graphs_of_sigma_delta_neurons_are_refused_on_lava(tmp_path: Path) -> None:
    """By the layer's name, before Lava is started; the file is read and runs on `fast`."""
    network = one(Pool, None, SigmaDelta(3))
    netx.write(network, tmp_path / "a.net")
    inputs = np.ones((1, *MAP, 2), int)
    read = netx.read(tmp_path / "a.net")
    assert_same(read, network)
    assert_values_equal_reference(read, inputs, fast(read, inputs, record=states_of(read)))
    with pytest.raises(NetworkError, match=r"layer first \(conv\): Lava runs sigma-delta neurons only in files that"):
        lava_backend.simulate(tmp_path / "a.net", inputs)


# ------------------------------------------------------------------------------------------------ kinds of layers


def one(kind: type[Layer], neuron: AnyNeuron | None, others: AnyNeuron = NEURON) -> Network:
    """A layer of this kind, with neurons or without, between layers that every backend runs."""
    first = Conv(in_shape=MAP, shape=MAP, weight=np.full((2, 2, 1, 1), 4), neuron=others, name="first")
    shape = FLAT if kind is Dense else MAP
    common: dict[str, Any] = {"name": "it", "inputs": ("first",), "in_shape": shape, "shape": shape, "neuron": neuron}
    layers: list[Layer] = [first]
    if kind is Dense:
        layers.append(Flatten(in_shape=MAP, shape=FLAT, name="flat"))
        layers.append(Dense(**common | {"inputs": ("flat",)}, weight=np.full((32, 32), 2)))
    elif kind in (Conv, ConvT):
        layers.append(kind(**common, weight=np.full((2, 2, 1, 1), 4)))
    elif kind is Pool:
        layers.append(Pool(**common | {"shape": (2, 2, 2)}))
    elif kind is Add:
        layers.append(replace(first, name="second", inputs=("input",)))
        layers.append(Add(**common | {"inputs": ("first", "second")}))
    else:
        layers.append(kind(**common | {"shape": FLAT if kind is Flatten else (8,)}))
    shape = layers[-1].shape
    if len(shape) == 3:
        layers.append(Flatten(in_shape=shape, shape=(int(np.prod(shape)),), name="last.flat", inputs=("it",)))
        shape = layers[-1].shape
    weight = np.full((2, *shape), 2)
    layers.append(Dense(in_shape=shape, shape=(2,), weight=weight, neuron=others, name="last"))
    return Network(tuple(layers), source="one")


def event(network: Network, inputs: np.ndarray) -> None:
    sample, c, y, x, t = np.nonzero(inputs)
    order = np.lexsort((t, sample))
    event_backend.simulate(network, Events(*(a[order] for a in (sample, t, c, y, x))), progress=False)


def compiled(network: Network, inputs: np.ndarray) -> None:
    assert_equals_reference(network, inputs, run_unchecked(fast, network, inputs))


def torch_path(network: Network, inputs: np.ndarray) -> None:
    assert_equals_reference(network, inputs, run_unchecked(on_torch, network, inputs))


REFUSED = {
    "event": {
        (Conv, False): "conv layer without neurons",
        (ConvT, False): "convT layer without neurons",
        (Dense, False): "dense layer without neurons",
        (Add, True): "adds up currents",
    },
}


@pytest.mark.parametrize("backend", [compiled, torch_path, event], ids=["fast", "torch", "event"])
@pytest.mark.parametrize("with_neurons", [True, False], ids=["neurons", "plain"])
@pytest.mark.parametrize("kind", list(KINDS.values()))
def test_every_kind_is_run_or_refused_by_name(
    kind: type[Layer], with_neurons: bool, backend: Callable[..., Any]
) -> None:
    """No backend passes over a kind of layer, or fails in the midst of one that it cannot run."""
    if with_neurons and not kind.may_spike:
        with pytest.raises(NetworkError, match=f"^layer it: a {kind.kind} layer has no neurons"):
            one(kind, NEURON)
        return
    network = one(kind, NEURON if with_neurons else None)
    inputs = (np.random.default_rng(0).random((2, *MAP, 5)) < 0.5).astype(np.int8)
    reason = REFUSED.get(backend.__name__, {}).get((kind, with_neurons))
    if reason is None:
        backend(network, inputs)
        return
    with pytest.raises(NetworkError, match=f"^one: layer it: .*{reason}"):
        backend(network, inputs)


@pytest.mark.parametrize("with_neurons", [True, False], ids=["neurons", "plain"])
@pytest.mark.parametrize("kind", list(KINDS.values()))
def test_every_kind_of_a_sigma_delta_network_is_run_or_refused_by_name(kind: type[Layer], with_neurons: bool) -> None:
    """The compiled code and PyTorch's run them all; the event-driven simulator names the first layer with neurons."""
    neuron = SigmaDelta(5, np.array([3, -2] if kind is not Dense else [1] * 32))
    if with_neurons and not kind.may_spike:
        return
    network = one(kind, neuron if with_neurons else None, SigmaDelta(5))
    inputs = np.random.default_rng(0).integers(-300, 300, (2, *MAP, 5))
    for backend in (fast, on_torch):
        assert_values_equal_reference(network, inputs, backend(network, inputs, record=states_of(network)))
    with pytest.raises(NetworkError, match=r"^one: layer first: has sigma-delta neurons, which send values in time"):
        event(network, abs(inputs))
