"""The backend `fast` computes, bit for bit, what Lava computes; whatever the network, input, chunk or device."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from strategies import denses, networks, neurons, spike_inputs

from netx_export import netx
from netx_export.fast import backend as fast_backend
from netx_export.lava import backend as lava_backend
from netx_export.limits import Limits, measured, merged
from netx_export.network import Average, Conv, Dense, Flatten, Layer, Network, NetworkError, Neuron, Pool
from netx_export.simulation import Simulation, check_inputs, simulate

EVERYTHING = ("spikes", "u", "v")
LIMIT = 1 << 23


def fast(network: Network, inputs: np.ndarray, **options: Any) -> Simulation:
    """A run on the CPU that shows no bar."""
    return fast_backend.simulate(network, inputs, **({"progress": False, "device": "cpu"} | options))


def on_torch(network: Network, inputs: np.ndarray, chunk: int | None = None, **options: Any) -> Simulation:
    """The code for GPUs, run on the CPU."""
    from netx_export.fast import on_torch as fast_torch

    results = fast_backend.Results(network, inputs.shape[0], inputs.shape[-1], options.get("record", ()))
    fast_torch.run(network, inputs, results, device="cpu", chunk=chunk, progress=False)
    return results.simulation()


def assert_equals_reference(network: Network, inputs: np.ndarray, result: Simulation) -> None:
    """Spikes, readout, and u, v and spikes of every layer are those of the plain NumPy reading of the rule."""
    expected = reference.simulate(network, inputs)
    np.testing.assert_array_equal(result.spikes, expected[-1]["spikes"])
    spiking = [(layer.name, record) for layer, record in zip(network, expected, strict=True) if "u" in record]
    assert set(result.record) == {f"{what}.{name}" for what in EVERYTHING for name, _ in spiking}
    for name, record in spiking:
        for what in EVERYTHING:
            np.testing.assert_array_equal(result.record[f"{what}.{name}"], record[what], err_msg=f"{what}.{name}")
    assert result.readout.dtype == np.int64
    if network.readout == "count":
        np.testing.assert_array_equal(result.readout, expected[-1]["spikes"].sum(-1).reshape(len(inputs), -1))
    elif network.layers[-1].neuron is not None:
        np.testing.assert_array_equal(result.readout, expected[-1]["v"][..., -1].reshape(len(inputs), -1))
    assert result.limits == expected_limits(network, expected)
    assert bool(result.limits_text()) == any(x.wraps or x.saturations for x in result.limits.values())


def expected_limits(network: Network, expected: list[dict[str, np.ndarray]]) -> dict[str, Limits]:
    """Largest states and how many were beyond 24 bits, of what the reference recorded."""
    before = [[record["u_before"], record["v_before"]] for record in expected if "u" in record]
    maxima = [[int(states.max()) for states in both] for both in before]
    beyond = [[int((states >= LIMIT).sum()) for states in both] for both in before]
    names = [layer.name for layer in network.spiking]
    return {name: Limits(*a, *b) for name, a, b in zip(names, maxima, beyond, strict=True)}


# ---------------------------------------------------------------------------------------------- random networks


@st.composite
def pooled(draw: st.DrawFn, network: Network) -> Network:
    """The network, sometimes with other recurrent delays, behind a pool without neurons or before an average."""
    layers: list[Layer] = list(network.layers)
    for i, layer in enumerate(layers):
        if isinstance(layer, Dense) and layer.recurrent is not None and draw(st.booleans()):
            longest = draw(st.sampled_from((0, 3, 20)))
            late = np.random.default_rng(i).integers(0, longest, size=layer.recurrent.shape, endpoint=True)
            layers[i] = replace(layer, recurrent_delay=late)
    if len(network.in_shape) == 3 and draw(st.booleans()):
        channels, height, width = network.in_shape
        kernel, stride, padding = draw(st.sampled_from((((2, 2), (2, 2), (0, 0)), ((3, 2), (2, 1), (1, 2)))))
        in_size = [(n - 1) * s + k - 2 * p for n, k, s, p in zip((height, width), kernel, stride, padding, strict=True)]
        if min(in_size) > 0:
            shape = (channels, *in_size)
            layers.insert(
                0,
                Pool(in_shape=shape, shape=network.in_shape, kernel=kernel, stride=stride, padding=padding),
            )
    if draw(st.integers(0, 4)) == 0:
        size = int(np.prod(network.shape))
        outputs = draw(st.sampled_from([n for n in range(1, size + 1) if size % n == 0]))
        layers.append(Average(in_shape=network.shape, shape=(outputs,)))
    linked = tuple(replace(layer, inputs=()) for layer in layers)
    return replace(network, layers=linked, groups=draw(st.sampled_from(((), tuple(range(2, 2 + len(layers)))))))


@settings(max_examples=150, deadline=None)
@given(data=st.data(), backend=st.sampled_from((fast, fast, on_torch)))
def test_random_networks_equal_reference(data: st.DataObject, backend: Any) -> None:
    """Spikes, u and v in every layer and step, of any network, with binary and graded input of either sign."""
    network = data.draw(networks(wraps=True).flatmap(pooled))
    inputs = data.draw(spike_inputs(network, largest=data.draw(st.sampled_from((1, 1, 9, 3000)))))
    if data.draw(st.booleans()):
        inputs *= np.random.default_rng(0).choice([-1, 1], size=inputs.shape)
    assert_equals_reference(network, inputs, backend(network, inputs, record=EVERYTHING))


@settings(max_examples=100, deadline=None)
@given(data=st.data(), backend=st.sampled_from((fast, on_torch)))
def test_extremes_equal_reference(data: st.DataObject, backend: Any) -> None:
    """Where u wraps, v saturates, a conv's sum leaves 24 bits and a sum 32 bits, all goes on as the rule says."""
    inputs = data.draw(st.integers(1, 4))
    layer: Layer = data.draw(
        denses(inputs, synapses=data.draw(st.sampled_from(("plain", "recurrent", "delay", "both"))))
    )
    if data.draw(st.booleans()):
        assert isinstance(layer, Dense)
        assert layer.weight is not None
        shape = (*layer.shape, 1, 1)
        weight = layer.weight[:, :, None, None]
        layer = Conv(in_shape=(inputs, 1, 1), shape=shape, weight=weight, neuron=data.draw(neurons(shape)))
    assert layer.neuron is not None
    # (2**23 - 1) / 64 and around it, where one more input wraps or saturates
    around = st.sampled_from((LIMIT // 64, 2 * LIMIT // 64, 3 * LIMIT // 64, LIMIT, 1 << 25, (1 << 31) - 4))
    values = st.tuples(around, st.integers(-3, 3), st.sampled_from((1, -1))).map(lambda x: x[2] * (x[0] + x[1]))
    drawn = data.draw(st.lists(values | st.integers(-2, 2), min_size=2 * inputs * 5, max_size=2 * inputs * 5))
    if data.draw(st.booleans()):
        layer = replace(layer, weight=np.sign(layer.weight))  # so that input reaches u unscaled
    threshold = data.draw(st.sampled_from((0, (1 << 17) - 1, 1 << 17)))
    bias = data.draw(st.sampled_from((-4096, 4095, 32767))) * np.ones(layer.shape[:1], int)
    layer = replace(layer, neuron=replace(layer.neuron, threshold=threshold, bias=bias))
    network = Network((layer,), readout="voltage")
    signal = np.array(drawn).reshape(2, *layer.in_shape, 5)
    assert_equals_reference(network, signal, run_unchecked(backend, network, signal))


def run_unchecked(backend: Any, network: Network, inputs: np.ndarray) -> Simulation:
    """A run in which sums may leave even the 32 bits that a user's input must not leave."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast_backend, "check_inputs", lambda network, inputs: None)
        return backend(network, inputs, record=EVERYTHING)


def test_extremes_are_reached() -> None:
    """u wraps from 2**23 + 64 to the other end, and v stops at 2**23 - 1 on both sides."""
    layer = Dense(in_shape=(1,), shape=(1,), weight=np.array([[1]]), neuron=Neuron(1 << 17, 4096, 0))
    inputs = np.array([[[LIMIT // 64, LIMIT // 64 + 1, -LIMIT // 64 + 1, -LIMIT // 64]]])
    result = fast(Network((layer,)), inputs, record=EVERYTHING)
    assert result.record["u.dense1"].ravel().tolist() == [LIMIT, 64 - LIMIT, 64 - LIMIT, LIMIT]
    assert result.record["v.dense1"].ravel().tolist() == [LIMIT - 1, 63, 127 - LIMIT, 127]


def random_runs(count: int) -> list[tuple[Network, np.ndarray]]:
    """Random networks that can be written, with inputs that Lava can be fed; always the same ones."""
    drawn: list[tuple[Network, np.ndarray]] = []

    @settings(max_examples=count, database=None, derandomize=True)
    @given(data=st.data())
    def draw(data: st.DataObject) -> None:
        network = data.draw(networks(wraps=True))
        largest, steps = data.draw(st.sampled_from((1, 1, 1, 7, 3000, 100_000))), data.draw(st.sampled_from((1, 6, 15)))
        inputs = data.draw(spike_inputs(network, samples=3, steps=steps, largest=largest))
        if largest > 1 and data.draw(st.booleans()):
            inputs *= np.random.default_rng(0).choice([-1, 1], size=inputs.shape)
        try:
            check_inputs(network, inputs)
        except NetworkError:
            reject()
        drawn.append((network, inputs))

    draw()
    return drawn[-count:]


@pytest.mark.lava
@pytest.mark.parametrize("every", [10, pytest.param(1, marks=pytest.mark.slow)])
def test_random_networks_equal_lava(every: int, tmp_path: Path) -> None:
    """Lava itself gives the same spikes, u, v and readout: on 200 random networks, by default on a tenth of them."""
    runs = []
    drawn = random_runs(200)
    # A recurrent layer with delays is rare: one of them at least.
    rare = [run for run in drawn if any(getattr(layer, "recurrent_delay", None) is not None for layer in run[0])][:1]
    for number, (network, inputs) in enumerate([*drawn[::every], *rare]):
        netx.write(network, tmp_path / f"{number}.net", allow_wrap=True)
        runs.append((tmp_path / f"{number}.net", inputs))
    assert len(runs) == 200 // every + 1
    seen: Counter[str] = Counter()
    for run, lavas in zip(runs, lava_backend.simulate_each(runs, record=EVERYTHING, progress=False), strict=True):
        ours = simulate(*run, "fast", record=EVERYTHING, progress=False, device="cpu")
        assert ours.record.keys() == lavas.record.keys()
        pairs = [(ours.spikes, lavas.spikes), (ours.readout, lavas.readout)]
        pairs += [(ours.record[name], lavas.record[name]) for name in ours.record]
        for one, other in pairs:
            assert (one.shape, one.dtype) == (other.shape, other.dtype)
            seen["values"] += one.size
            seen["mismatches"] += int((one != other).sum())
        assert ours.limits == lavas.limits
        seen.update(kinds(netx.read(run[0]), ours))
    print(dict(seen))
    assert seen["mismatches"] == 0
    assert min(seen[kind] for kind in ("conv", "dense", "recurrent", "delay", "both", "large", "spiking")) > 0, seen


def kinds(network: Network, result: Simulation) -> Iterator[str]:
    """What a run shows, for a test to know that it is not all of one kind."""
    for layer in network.spiking:
        yield layer.kind
        if isinstance(layer, Dense):
            recurrent, delayed = layer.recurrent is not None, layer.delay is not None and bool(layer.delay.any())
            yield "both" if recurrent and delayed else "recurrent" if recurrent else "delay" if delayed else "plain"
    yield from ("spiking" for name, array in result.record.items() if name[0] == "s" and 0 < array.mean() < 1)
    yield from ("large" for name, array in result.record.items() if abs(array.astype(int)).max() > LIMIT // 2)


# ---------------------------------------------------------------------------------------------- ways to run


def maps_network(readout: str = "count") -> Network:
    """Two conv layers, a flatten and a dense layer, that spike."""
    rng = np.random.default_rng(3)
    return Network(
        (
            Conv(
                in_shape=(2, 7, 6),
                shape=(4, 4, 3),
                weight=2 * rng.integers(-30, 45, (4, 2, 3, 2)),
                stride=(2, 2),
                padding=(1, 0),
                neuron=Neuron(200, 1000, 100),
            ),
            Conv(
                in_shape=(4, 4, 3), shape=(3, 4, 3), weight=2 * rng.integers(-30, 45, (3, 4, 1, 1)), neuron=Neuron(90)
            ),
            Flatten(in_shape=(3, 4, 3), shape=(36,)),
            Dense(in_shape=(36,), shape=(5,), weight=2 * rng.integers(-30, 45, (5, 36)), neuron=Neuron(200)),
        ),
        readout=readout,
    )


def maps_inputs(samples: int = 7, dtype: Any = np.int64) -> np.ndarray:
    """Binary inputs for it."""
    return (np.random.default_rng(4).random((samples, 2, 7, 6, 9)) < 0.3).astype(dtype)


def assert_same(a: Simulation, b: Simulation) -> None:
    """Equal in values and types."""
    for one, other in ((a.spikes, b.spikes), (a.readout, b.readout), *((a.record[k], b.record[k]) for k in a.record)):
        np.testing.assert_array_equal(one, other, strict=True)
    assert a.record.keys() == b.record.keys()


@pytest.mark.parametrize("backend", [fast, on_torch])
@pytest.mark.parametrize("readout", ["count", "voltage"])
def test_chunks_and_threads_change_nothing(backend: Any, readout: str) -> None:
    """Any chunk size and number of threads gives the same arrays, in the order of the samples."""
    network, inputs = maps_network(readout), maps_inputs()
    expected = fast(network, inputs, record=EVERYTHING, threads=1)
    assert 0.05 < expected.spikes.mean() < 0.95
    for chunk in (1, 2, 3, 7, 100):
        assert_same(backend(network, inputs, record=EVERYTHING, chunk=chunk, threads=3), expected)
    assert_same(backend(network, inputs, record=EVERYTHING), expected)


def test_samples_come_out_as_if_alone() -> None:
    """No sample depends on the others; nothing of one is left when the next starts."""
    network, inputs = maps_network("voltage"), maps_inputs()
    together = fast(network, inputs, chunk=4)
    for n in range(len(inputs)):
        alone = fast(network, inputs[n : n + 1])
        np.testing.assert_array_equal(together.spikes[n], alone.spikes[0])
        np.testing.assert_array_equal(together.readout[n], alone.readout[0])


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int8, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
def test_any_integer_type(dtype: Any) -> None:
    """Inputs of any integer type, contiguous or not, number of time steps a multiple of anything or not."""
    network = maps_network()
    for steps in (8, 9):
        inputs = maps_inputs()[..., :steps]
        for array in (inputs.astype(dtype), np.asfortranarray(inputs.astype(dtype)), inputs.astype(dtype)[:, :, ::1]):
            assert_same(fast(network, array), fast(network, inputs))


def test_inputs_can_be_read_only_and_stay_unchanged() -> None:
    """Inputs mapped from a file need not be writable."""
    inputs = maps_inputs()
    inputs.flags.writeable = False
    copy = inputs.copy()
    assert_same(fast(maps_network(), inputs), fast(maps_network(), copy))
    np.testing.assert_array_equal(inputs, copy)


def test_memory_is_one_chunk_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many samples there are, a chunk is no larger than the buffer allows."""
    sizes = []
    run_chunk = fast_backend._run_chunk

    def spy(plans: Any, inputs: np.ndarray, results: Any, part: slice) -> np.ndarray:
        sizes.append(len(inputs))
        return run_chunk(plans, inputs, results, part)

    monkeypatch.setattr(fast_backend, "_run_chunk", spy)
    # 84 inputs and 48 neurons, 9 steps, 8 bytes an event, room for 3 samples
    monkeypatch.setattr(fast_backend, "BUFFER_BYTES", 3 * 8 * 9 * (84 + 48) + 5)
    fast(maps_network(), maps_inputs(20))
    assert sorted(sizes) == [2, 3, 3, 3, 3, 3, 3]
    sizes.clear()
    monkeypatch.setattr(fast_backend, "BUFFER_BYTES", 1)
    fast(maps_network(), maps_inputs(3))
    assert sizes == [1, 1, 1]


def test_record_holds_what_was_asked_for() -> None:
    """Names are the layers', spikes int8 and states int32, shaped like the layers."""
    network = maps_network()
    result = fast(network, maps_inputs(), record=["v"])
    assert {name: (array.shape, array.dtype) for name, array in result.record.items()} == {
        "v.conv1": ((7, 4, 4, 3, 9), np.int32),
        "v.conv2": ((7, 3, 4, 3, 9), np.int32),
        "v.dense1": ((7, 5, 9), np.int32),
    }
    assert fast(network, maps_inputs()).record == {}
    spikes = fast(network, maps_inputs(), record=["spikes"])
    np.testing.assert_array_equal(spikes.record["spikes.dense1"], spikes.spikes, strict=True)


def test_average_of_voltages() -> None:
    """Behind a pool and an average, the readout "voltage" is the sum of the voltages of each group."""
    first = Conv(
        in_shape=(1, 4, 4), shape=(2, 4, 4), weight=np.array([[[[3]]], [[[-5]]]]), neuron=Neuron(1 << 17, 4096, 0)
    )
    pool = Pool(in_shape=(2, 4, 4), shape=(2, 2, 2))
    network = Network((first, pool, Average(in_shape=(2, 2, 2), shape=(4,))), readout="voltage")
    inputs = np.random.default_rng(0).integers(0, 4, (3, 1, 4, 4, 5))
    total = inputs.sum(-1).reshape(3, 2, 8).sum(-1)  # upper and lower half of the map
    expected = 64 * np.concatenate([3 * total, -5 * total], axis=1)
    for backend in (fast, on_torch):
        np.testing.assert_array_equal(backend(network, inputs).readout, expected)


@pytest.mark.parametrize("bits", [24, 53])
def test_floating_point_switches_before_it_rounds(bits: int) -> None:
    """The code for GPUs adds up in 32 bits while sums stay below 2**24, then in 64, and refuses from 2**53 on."""
    import torch

    layer = Dense(in_shape=(2,), shape=(1,), weight=np.array([[1, 1]]), neuron=Neuron(1 << 17))
    inputs = np.array([[[(1 << 24) - 1], [2]]])  # 2**24 + 1 has no 32-bit float
    network = Network((layer,))
    assert_equals_reference(network, inputs, on_torch(network, inputs, record=EVERYTHING))
    from netx_export.fast import on_torch as fast_torch

    if bits == 24:
        assert fast_torch._float(1 << 24, network, layer) == torch.float32
        assert fast_torch._float((1 << 24) + 1, network, layer) == torch.float64
    else:
        assert fast_torch._float(1 << 53, network, layer) == torch.float64
        with pytest.raises(NetworkError, match="layer dense1: sums can reach 9007199254740993, beyond"):
            fast_torch._float((1 << 53) + 1, network, network.layers[0])


def test_torch_is_left_as_it_was() -> None:
    """Switches of PyTorch that make sums inexact are off during a run and as before after it."""
    import torch

    from netx_export.fast import on_torch as fast_torch

    torch.set_float32_matmul_precision("medium")
    try:
        with fast_torch.exact():
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cudnn.enabled
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.backends.cudnn.enabled
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.skipif("not __import__('torch').cuda.is_available()", reason="PyTorch sees no GPU")
def test_gpu_equals_reference() -> None:
    """A GPU gives the same integers."""
    network, inputs = maps_network(), maps_inputs()
    assert_equals_reference(network, inputs, fast(network, inputs, record=EVERYTHING, device="cuda"))


# ---------------------------------------------------------------------------------------------- users


def test_without_a_gpu_torch_is_not_imported(tmp_path: Path) -> None:
    """A run on the CPU imports neither Lava nor torch."""
    netx.write(maps_network(), tmp_path / "a.net")
    program = (
        "import sys, numpy as np\n"
        "from netx_export.simulation import simulate\n"
        f"simulate({str(tmp_path / 'a.net')!r}, np.ones((1, 2, 7, 6, 3), int), 'fast', device='cpu', progress=False)\n"
        "sys.exit(', '.join(m for m in ('lava', 'torch') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr.strip() == ""


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        (np.zeros((1, 2, 7, 6, 4)), {}, r"holds float64; give a NumPy array of integers \(N, C=2, H=7, W=6, T\)"),
        (np.zeros((1, 2, 6, 7, 4), int), {}, r"has shape \(1, 2, 6, 7, 4\)"),
        (np.zeros((0, 2, 7, 6, 4), int), {}, "at least one sample"),
        (np.full((1, 2, 7, 6, 1), 1 << 31), {}, "a graded spike has 32 bits with sign"),
        (np.full((1, 2, 7, 6, 1), -(1 << 20)), {}, r"values -1048576..-1048576 can change the current u in layer conv"),
        (maps_inputs(), {"record": ["w"]}, "record 'w' is unknown; there is: spikes, u, v"),
        (maps_inputs(), {"chunk": 0}, "chunk is 0; give at least 1"),
        (maps_inputs(), {"threads": -1}, "threads is -1"),
        (maps_inputs(), {"device": "tpu"}, "device 'tpu' cannot be used"),
    ],
)
def test_what_users_do_wrong(inputs: np.ndarray, options: dict[str, Any], message: str) -> None:
    """Wrong type, shape, range or option: one clear line."""
    with pytest.raises(NetworkError, match=message) as caught:
        fast(maps_network(), inputs, **options)
    assert "\n" not in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    """A missing, truncated, damaged or foreign file: one clear line."""
    good, bad = tmp_path / "good.net", tmp_path / "bad.net"
    netx.write(maps_network(), good)
    content = good.read_bytes()
    inputs = maps_inputs()
    assert_same(simulate(good, inputs, "fast", progress=False), fast(maps_network(), inputs))
    for broken in (None, b"", b"no HDF5", content[:3000], content.replace(b"CUBA", b"CUBE")):
        if broken is not None:
            bad.write_bytes(broken)
        with pytest.raises(NetworkError, match=r"bad\.net: ") as caught:
            simulate(bad, inputs, "fast", progress=False)
        assert "\n" not in str(caught.value)


def test_network_without_neurons() -> None:
    """Nothing could answer."""
    network = Network((Pool(in_shape=(1, 4, 4), shape=(1, 2, 2)),))
    with pytest.raises(NetworkError, match="no layer has neurons"):
        fast(network, np.ones((1, 1, 4, 4, 1), int))


# ---------------------------------------------------------------------------------------------- limits


def wide_network(inputs: int) -> Network:
    """A hidden layer of so many inputs of the largest weight, and a voltage readout behind it."""
    first = Dense(in_shape=(1,), shape=(inputs,), weight=np.full((inputs, 1), 2), neuron=Neuron(1), name="first")
    second = Dense(in_shape=(inputs,), shape=(1,), weight=np.full((1, inputs), 254), neuron=Neuron(131071), name="out")
    return Network((first, second), readout="voltage")


def test_what_was_measured_lets_a_wide_layer_be_written(tmp_path: Path) -> None:
    """From a run's limits to the file: where the data keeps u within 24 bits it is written, else refused."""
    network = wide_network(600)
    quiet, loud = (fast(network, np.array([[values]])) for values in ([0, 0, 0], [0, 1, 1]))
    assert quiet.limits == {"first": Limits(0, 0), "out": Limits(0, 0)}
    bound = 600 * 254 * 64
    # The voltage of the first spike, wrapped, is below 0, and saturates with the second.
    assert loud.limits == {"first": Limits(128, 128), "out": Limits(bound, 2 * (2 * LIMIT - bound), 2, 1)}
    assert loud.limits_text() == (
        "u was beyond its bits and wrapped: out 2 times, up to 9,753,600 | "
        "v was beyond its bits and saturated: out 1 time, up to 14,047,232"
    )
    with pytest.warns(netx.NetxWarning, match="over the training data it reached 0"):
        netx.write(measured(network, quiet.limits or {}), tmp_path / "a.net")
    with pytest.raises(NetworkError, match="the current u reached 9753600"):
        netx.write(measured(network, loud.limits or {}), tmp_path / "b.net")


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_limits_of_parts_are_those_of_the_whole(data: st.DataObject) -> None:
    """Merged in any cut, limits are those of one run; what is unknown of a part is unknown of all."""
    network = data.draw(networks(wraps=True))
    inputs = data.draw(spike_inputs(network, samples=4, largest=data.draw(st.sampled_from((1, 3000)))))
    cut = data.draw(st.integers(1, 3))
    parts = [fast(network, part).limits for part in (inputs[:cut], inputs[cut:])]
    assert merged(*parts) == fast(network, inputs, chunk=data.draw(st.integers(1, 4))).limits
    assert merged(parts[0], None) is None


def test_the_command_line_says_what_wrapped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`mtt simulate` ends with a line about wraps and saturations, where there were any."""
    from mtt_lava.cli import main

    netx.write(wide_network(600), tmp_path / "a.net", allow_wrap=True)
    for value, lines in ((0, 1), (1, 2)):
        np.save(tmp_path / "in.npy", np.array([[[value]]]))
        command = ["simulate", str(tmp_path / "a.net"), str(tmp_path / "in.npy"), "--backend", "fast"]
        assert main([*command, "--output", str(tmp_path / "out.npz")]) == 0
        said = capsys.readouterr().out.splitlines()
        assert len(said) == lines
    assert said[1] == "u was beyond its bits and wrapped: out 1 time, up to 9,753,600"
