"""Lava's own processes run graphs bit for bit as the network description says, and what they cannot run is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from strategies import graphs, spike_inputs
from test_graph_files import residual

from netx_export import netx
from netx_export.fast import backend as fast_backend
from netx_export.lava import backend as lava_backend
from netx_export.lava.graph import PROCESSES_MAX, Plan
from netx_export.network import (
    INPUT,
    Add,
    Average,
    Conv,
    ConvT,
    Dense,
    Flatten,
    Layer,
    Network,
    NetworkError,
    Neuron,
    Pool,
    conv_shape,
)
from netx_export.simulation import Simulation, simulate

EVERYTHING = ("spikes", "u", "v")
Run = tuple[Network, np.ndarray]


def drawn(form: str, count: int) -> list[Run]:
    """Random graphs that Lava can run, no chains, and inputs for them: always the same ones."""
    runs: dict[tuple[Any, ...], Run] = {}

    @settings(
        max_examples=20 * count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(network=graphs(form), data=st.data())
    def collect(network: Network, data: st.DataObject) -> None:
        if network.is_chain:
            return
        network = replace(network, reset="zero")
        largest = data.draw(st.sampled_from((1, 1, 5)))
        inputs = data.draw(spike_inputs(network, samples=2, steps=data.draw(st.integers(1, 5)), largest=largest))
        if any(isinstance(layer, ConvT) for layer in network):
            with pytest.raises(NetworkError, match=r"\((convT\): Lava has no process|pool|average|conv|dense)"):
                Plan(network, inputs)
            return
        try:
            Plan(network, inputs)
        except NetworkError:
            assert form == "any"
            return
        runs[tuple((layer.kind, layer.inputs, layer.neuron is None) for layer in network)] = network, inputs

    collect()
    # What Hypothesis draws first is small.
    return list(runs.values())[-count:]


def assert_equal_everywhere(network: Network, inputs: np.ndarray, lava: Simulation, path: Path) -> None:
    """Spikes, u, v and limits of every layer in Lava are those of `fast` and of the plain reference."""
    fast = fast_backend.simulate(path, inputs, record=EVERYTHING, progress=False, device="cpu")
    expected = dict(zip((layer.name for layer in network), reference.simulate(network, inputs), strict=True))
    np.testing.assert_array_equal(lava.spikes, expected[network.layers[-1].name]["spikes"])
    assert lava.spikes.dtype == fast.spikes.dtype
    np.testing.assert_array_equal(lava.readout, fast.readout)
    assert lava.record.keys() == fast.record.keys() == {f"{w}.{x.name}" for w in EVERYTHING for x in network.spiking}
    for record, values in lava.record.items():
        what, _, name = record.partition(".")
        np.testing.assert_array_equal(values, expected[name][what], err_msg=f"{record} of {network.layers}")
        np.testing.assert_array_equal(values, fast.record[record], err_msg=f"{record} of {network.layers}")
    assert lava.limits in (None, fast.limits)


def assert_runs(runs: Sequence[Run], folder: Path, **options: Any) -> None:
    """All in one child process that imports Lava once."""
    files = []
    for number, (network, inputs) in enumerate(runs):
        netx.write(network, folder / f"{number}.net", allow_wrap=True)
        files.append((folder / f"{number}.net", inputs))
    lavas = lava_backend.simulate_each(files, record=EVERYTHING, progress=False, time_limit=600, **options)
    for (network, inputs), lava, (path, _) in zip(runs, lavas, files, strict=True):
        assert_equal_everywhere(network, inputs, lava, path)


def assert_random_graphs(folder: Path, **counts: int) -> None:
    runs = [run for form, count in counts.items() for run in drawn(form, count)]
    assert len(runs) == sum(counts.values())
    assert_runs(runs, folder)


@pytest.mark.lava
def test_random_graphs_equal_fast_and_the_reference(tmp_path: Path) -> None:
    """Branches, strides, pools, shortcuts over several layers, merges of two and three, of currents and of spikes."""
    assert_random_graphs(tmp_path, currents=2, spikes=2, any=1)


@pytest.mark.lava
@pytest.mark.slow
def test_fifty_random_graphs_equal_fast_and_the_reference(tmp_path: Path) -> None:
    """The same of many; each needs up to fifty processes, so some seconds."""
    assert_random_graphs(tmp_path, currents=20, spikes=15, any=15)


def conv(name: str, source: str, in_shape: tuple[int, ...], channels: int, rng: Any, **fields: Any) -> Conv:
    """A convolution of 3 x 3 pixels that keeps the size of maps."""
    weight = 2 * rng.integers(-30, 45, (channels, in_shape[0], 3, 3))
    fields = {"neuron": Neuron(int(rng.integers(50, 400)), 1000, 300), "padding": (1, 1)} | fields
    shape = (channels, *in_shape[1:])
    return Conv(name=name, inputs=(source,), in_shape=in_shape, shape=shape, weight=weight, **fields)


def block(in_shape: tuple[int, ...], rng: Any) -> list[Layer]:
    """Stem and one residual block with biases a neuron, whose shortcut has no weights."""
    a, b = (conv(name, source, in_shape, in_shape[0], rng) for name, source in (("a", "stem"), ("b", "a")))
    bias = rng.integers(-40, 60, in_shape)
    add = Add(name="sum", inputs=("b", "stem"), in_shape=in_shape, shape=in_shape, neuron=Neuron(60, 2000, 9, bias))
    return [conv("stem", "input", in_shape, in_shape[0], rng), a, replace(b, neuron=None), add]


def special(rng: Any) -> dict[str, Network]:
    """What random graphs do not hold, or seldom."""
    shape = (2, 4, 3)
    stem, a, b, add = block(shape, rng)
    flat = Flatten(name="flat", in_shape=shape, shape=(24,))
    weight = 2 * rng.integers(-30, 45, (5, 24))
    out = Dense(name="out", in_shape=(24,), shape=(5,), weight=weight, neuron=Neuron(131071, 4096, 0))
    delayed = replace(
        out,
        neuron=Neuron(70, 3000, 100, np.arange(5)),
        delay=rng.integers(0, 4, (5, 24)),
        recurrent=2 * rng.integers(-9, 20, (5, 5)),
        recurrent_delay=rng.integers(0, 3, (5, 5)),
    )
    pool = Pool(name="pool", in_shape=shape, shape=(2, 2, 2), kernel=(2, 1), stride=(2, 2))
    many = (130, 2, 2)
    wide: list[Layer] = [conv("stem", "input", (1, 2, 2), 130, rng)]
    wide += [conv("a", "stem", many, 130, rng), conv("b", "a", many, 130, rng, neuron=None)]
    wide.append(Add(name="sum", inputs=("b", "stem"), in_shape=many, shape=many, neuron=Neuron(300)))
    wide.append(Pool(name="pool", in_shape=many, shape=(130, 1, 1)))
    wide.append(Flatten(name="flat", in_shape=(130, 1, 1), shape=(130,)))
    wide.append(
        Dense(name="out", in_shape=(130,), shape=(3,), weight=2 * rng.integers(-9, 20, (3, 130)), neuron=Neuron(900))
    )
    first, second = (
        Dense(name=name, inputs=(source,), in_shape=(6,), shape=(6,), weight=square, neuron=neuron)
        for name, source, square, neuron in (
            ("one", "input", 2 * rng.integers(-9, 30, (6, 6)), Neuron(30)),
            ("two", "one", 2 * rng.integers(-9, 30, (6, 6)), None),
        )
    )
    flat_sum = Add(name="sum", inputs=("two", "one", "input"), in_shape=(6,), shape=(6,), neuron=Neuron(40))
    means = Average(name="means", inputs=("sum",), in_shape=(6,), shape=(3,))
    last = Dense(name="last", in_shape=(3,), shape=(2,), weight=2 * rng.integers(1, 30, (2, 3)), neuron=Neuron(60))
    bare = replace(stem, neuron=None)
    small, flattened = conv("c", "pool", (2, 2, 2), 2, rng), Flatten(in_shape=(2, 2, 2), shape=(8,))
    return {
        "a voltage readout": Network((stem, a, b, add, flat, out), readout="voltage"),
        "delays and recurrent synapses": Network((stem, a, b, add, flat, delayed)),
        "the input itself in a sum of currents": Network((stem, a, b, replace(add, inputs=("b", "input")), flat, out)),
        "pools and averages behind the last neurons": Network(
            (stem, a, b, add, pool, Average(in_shape=(2, 2, 2), shape=(4,)))
        ),
        "more channels than groups": Network(tuple(wide)),
        "flat sums and averages": Network((first, second, flat_sum, means, last)),
        "conv without neurons before conv": Network((bare, a, b, replace(add, inputs=("b", "a")))),
        "a chain with a pool": Network((stem, pool, small, flattened)),
    }


@pytest.mark.lava
@pytest.mark.parametrize("stock", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["sparse", "stock"])
def test_every_kind_of_layer_runs(stock: bool, tmp_path: Path) -> None:
    """Each case by its name, on graded and signed inputs, three samples back to back."""
    rng = np.random.default_rng(7)
    runs = [(network, rng.integers(-2, 4, (3, *network.in_shape, 4))) for network in special(rng).values()]
    assert_runs(runs, tmp_path, stock=stock)
    fired = [reference.simulate(network, inputs) for network, inputs in runs]
    for (network, _), records in zip(runs, fired, strict=True):
        for layer, record in zip(network, records, strict=True):
            silent = layer.neuron is None or network.readout == "voltage" or layer.name == "out"
            assert silent or record["spikes"].any(), f"{layer} of {network.layers}"


def resnet(rng: Any, width: int = 4) -> Network:
    """ResNet-18 for images of 32 x 32, narrow, with random weights and thresholds that let some of the spikes pass."""
    layers: list[Layer] = []

    def put(name: str, source: str, in_shape: tuple[int, ...], channels: int, kernel: int, stride: int) -> Conv:
        fan, strides, padding = in_shape[0] * kernel**2, (stride, stride), (kernel // 2, kernel // 2)
        layer = Conv(
            name=name,
            inputs=(source,),
            in_shape=in_shape,
            shape=conv_shape(in_shape, channels, (kernel, kernel), strides, padding),
            weight=2 * rng.integers(-25, 27, (channels, in_shape[0], kernel, kernel)),
            stride=strides,
            padding=padding,
            neuron=Neuron(int(5 * fan**0.5), 4096, 300),
        )
        layers.append(layer)
        return layer

    last: Layer = put("stem", "input", (3, 32, 32), width, 3, 1)
    for stage in range(4):
        for number in range(2):
            name, stride, channels = f"res{stage}{number}", 2 if stage and not number else 1, width << stage
            first = put(f"{name}a", last.name, last.shape, channels, 3, stride)
            put(f"{name}b", first.name, first.shape, channels, 3, 1)
            layers[-1] = replace(layers[-1], neuron=None)
            shortcut = last.name
            if last.shape != first.shape:
                shortcut = put(f"{name}s", last.name, last.shape, channels, 1, stride).name
                layers[-1] = replace(layers[-1], neuron=None)
            neuron = Neuron(int(6 * (9 * channels) ** 0.5), 4096, 300)
            inputs = (f"{name}b", shortcut)
            last = Add(name=name, inputs=inputs, in_shape=first.shape, shape=first.shape, neuron=neuron)
            layers.append(last)
    channels = last.shape[0]
    layers.append(Pool(in_shape=last.shape, shape=(channels, 1, 1), kernel=(4, 4), stride=(4, 4)))
    layers.append(Flatten(in_shape=(channels, 1, 1), shape=(channels,)))
    weight = 2 * rng.integers(-20, 30, (10, channels))
    layers.append(Dense(in_shape=(channels,), shape=(10,), weight=weight, neuron=Neuron(131071, 4096, 0)))
    return Network(tuple(layers), readout="voltage")


@pytest.mark.lava
@pytest.mark.slow
def test_a_narrow_resnet_18_equals_fast_and_the_reference(tmp_path: Path) -> None:
    """Eighteen layers with neurons, eight of them sums, relays over two layers: one image, T = 4."""
    rng = np.random.default_rng(0)
    network, inputs = resnet(rng), rng.integers(0, 2, (1, 3, 32, 32, 4))
    assert len(network.spiking) == 18
    assert_runs([(network, inputs)], tmp_path)
    for layer, record in zip(network, reference.simulate(network, inputs), strict=True):
        if layer.neuron is not None and layer.kind != "dense":
            assert 0 < record["spikes"].mean() < 0.9, layer


@pytest.mark.lava
def test_workers_give_the_same(tmp_path: Path) -> None:
    """Samples spread over two processes."""
    netx.write(residual(), tmp_path / "a.net")
    inputs = np.random.default_rng(0).integers(0, 2, (4, 1, 4, 4, 3))
    options: dict[str, Any] = {"record": EVERYTHING, "progress": False}
    one, two = (simulate(tmp_path / "a.net", inputs, "lava", workers=n, **options) for n in (None, 2))
    np.testing.assert_array_equal(one.spikes, two.spikes)
    assert one.limits == two.limits
    for name, values in one.record.items():
        np.testing.assert_array_equal(values, two.record[name], err_msg=name)


# ---------------------------------------------------------------------------------------------- plans


def test_a_shortcut_is_held_by_a_relay_and_the_input_by_a_later_source() -> None:
    """What comes over a shorter way waits as many steps as the longer one has layers more."""
    plan = Plan(residual(), np.ones((1, 1, 4, 4, 3), int))
    assert [(each.kind, each.time) for each in plan.processes if each.kind in ("source", "relay", "neurons")] == [
        ("source", 0),
        ("neurons", 1),
        ("neurons", 2),
        ("relay", 2),
        ("neurons", 3),
        ("neurons", 5),  # a pool is a synapse, too
    ]
    assert plan.late == 5
    shape = (2, 4, 3)
    stem, a, b, add = block(shape, np.random.default_rng(0))
    plan = Plan(Network((stem, a, b, replace(add, inputs=("b", "input")))), np.ones((1, *shape, 3), int))
    assert [each.time for each in plan.processes if each.kind == "source"] == [0, 2]


def changed(number: int, **fields: Any) -> Network:
    """The residual network with another layer of this number."""
    layers = list(residual().layers)
    layers[number] = replace(layers[number], **fields)
    return replace(residual(), layers=tuple(layers))


def twice() -> Network:
    """A sum of spikes that holds the same spikes twice."""
    shape = (2, 4, 3)
    rng = np.random.default_rng(0)
    first, second = (conv(name, source, shape, 2, rng) for name, source in (("one", "input"), ("two", "one")))
    inner = Add(name="inner", inputs=("one", "two"), in_shape=shape, shape=shape)
    outer = Add(name="outer", inputs=("one", "inner"), in_shape=shape, shape=shape)
    return Network((first, second, inner, outer, conv("last", "outer", shape, 2, rng)))


def long_way() -> Network:
    """A shortcut over so many layers that its relays are too many processes."""
    rng = np.random.default_rng(0)
    names = [f"c{n}" for n in range(120)]
    layers = [conv(name, before, (1, 2, 2), 1, rng) for name, before in zip(names, [INPUT, *names], strict=False)]
    layers.append(replace(conv("end", names[-1], (1, 2, 2), 1, rng), neuron=None))
    add = Add(name="sum", inputs=("end", "c0"), in_shape=(1, 2, 2), shape=(1, 2, 2), neuron=Neuron(9))
    return Network((*layers, add))


RNG = np.random.default_rng(0)
SPIKES = np.ones((1, 1, 4, 4, 2), int)


@pytest.mark.parametrize(
    ("network", "inputs", "message"),
    [
        (
            lambda: changed(2, weight=np.full((1, 1, 3, 3), 3)),
            SPIKES,
            r"layer b \(conv\): Lava does not run it: weight 3",
        ),
        (lambda: changed(6, weight=np.full((4, 4), 256)), SPIKES, r"layer out \(dense\): .* weight 256 is not an even"),
        (lambda: changed(6, recurrent=np.full((4, 4), 3)), SPIKES, r"layer out \(dense\): .* recurrent weight 3"),
        (
            lambda: Network((*residual().layers[:3], replace(residual().layers[3], neuron=None))),
            SPIKES,
            r"layer b \(conv\): without neurons, behind the last ones, .* --backend fast",
        ),
        (twice, np.ones((1, 2, 4, 3, 2), int), r"layer outer \(add\): takes the same by two ways without neurons"),
        (long_way, np.ones((1, 1, 2, 2, 2), int), rf"layer \w+ \(\w+\): .* more than {PROCESSES_MAX} processes"),
        (
            lambda: Network((replace(residual().layers[4], inputs=()), conv("c", "pool", (1, 2, 2), 1, RNG))),
            SPIKES << 22,
            r"layer pool \(pool\): its sums can reach 16777216, beyond the 24 bits",
        ),
        (
            lambda: changed(0, weight=np.full((1, 1, 3, 3), 254)),
            SPIKES << 15,
            r"layer stem \(conv\): its sums can reach \d+, and Lava computes with 32 bits",
        ),
    ],
)
def test_what_lava_cannot_run_is_refused_by_name(
    network: Callable[[], Network], inputs: np.ndarray, message: str
) -> None:
    """In one line, with the layer and its kind, before Lava is started."""
    with pytest.raises(NetworkError, match=message) as caught:
        Plan(network(), inputs)
    assert len(str(caught.value)) <= 300


def test_refusals_come_before_lava_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also values for input neurons, which a graph has none of."""
    monkeypatch.setattr(lava_backend, "_supervise", lambda *_: pytest.fail("Lava was started"))
    netx.write(changed(7, name="mean"), tmp_path / "a.net")
    with pytest.raises(NetworkError, match="has no input neurons to run on values; leave --encode out"):
        simulate(tmp_path / "a.net", SPIKES, "lava", encode=True)
    netx.write(Network((*residual().layers[:3],)), tmp_path / "b.net")
    with pytest.raises(NetworkError, match=r"b\.net: layer b \(conv\): without neurons, behind the last ones"):
        simulate(tmp_path / "b.net", SPIKES, "lava")


def test_long_and_branching_ways_without_neurons_are_planned() -> None:
    """Neither the depth nor the number of ways through layers without neurons, which double with each sum, matters."""
    shape = (1, 2, 2)

    def pool(name: str, source: str) -> Pool:
        return Pool(name=name, inputs=(source,), in_shape=shape, shape=shape, kernel=(1, 1), stride=(1, 1))

    first, inputs = conv("c", "input", shape, 1, RNG), np.ones((1, *shape, 2), int)
    layers: list[Layer] = [first]
    for n in range(240):
        layers.append(pool(f"p{n}", layers[-1].name))
    plan = Plan(Network((*layers, conv("last", "p239", shape, 1, RNG))), inputs)
    assert plan.late == 242
    layers = [first]
    for n in range(12):
        before = layers[-1].name
        layers += [pool(f"{side}{n}", before) for side in "ab"]
        layers.append(Add(name=f"s{n}", inputs=(f"a{n}", f"b{n}"), in_shape=shape, shape=shape))
    plan = Plan(Network((*layers, conv("last", "s11", shape, 1, RNG))), inputs)
    assert plan.late == 14
