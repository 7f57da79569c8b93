"""One contract for every backend: any graph, computed as the plain reference computes it, or refused by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import graphs, spike_inputs
from test_fast import EVERYTHING, assert_equals_reference, fast, on_torch, run_unchecked

from netx_export.event import backend as event_backend
from netx_export.event.backend import Events
from netx_export.network import Add, Average, Conv, Dense, Flatten, Layer, Network, NetworkError, Neuron, Pool
from netx_export.simulation import check_inputs


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
        assert seen[what] > seen["graphs"] // 5, seen


# ------------------------------------------------------------------------------------------------ kinds of layers

MAP, FLAT = (2, 4, 4), (32,)
NEURON = Neuron(3)


def one(kind: type[Layer], neuron: Neuron | None) -> Network:
    """A layer of this kind, with neurons or without, between layers that every backend runs."""
    first = Conv(in_shape=MAP, shape=MAP, weight=np.full((2, 2, 1, 1), 4), neuron=NEURON, name="first")
    shape = FLAT if kind is Dense else MAP
    common: dict[str, Any] = {"name": "it", "inputs": ("first",), "in_shape": shape, "shape": shape, "neuron": neuron}
    layers: list[Layer] = [first]
    if kind is Dense:
        layers.append(Flatten(in_shape=MAP, shape=FLAT, name="flat"))
        layers.append(Dense(**common | {"inputs": ("flat",)}, weight=np.full((32, 32), 2)))
    elif kind is Conv:
        layers.append(Conv(**common, weight=np.full((2, 2, 1, 1), 4)))
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
    layers.append(Dense(in_shape=shape, shape=(2,), weight=weight, neuron=NEURON, name="last"))
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
        (Dense, False): "dense layer without neurons",
        (Average, False): "average layer",
        (Add, True): "adds up currents",
    },
}


@pytest.mark.parametrize("backend", [compiled, torch_path, event], ids=["fast", "torch", "event"])
@pytest.mark.parametrize("with_neurons", [True, False], ids=["neurons", "plain"])
@pytest.mark.parametrize("kind", Layer.__subclasses__())
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
