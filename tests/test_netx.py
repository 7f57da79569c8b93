"""NetX HDF5 files: what is written, what is read, and what lava-dl makes of it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import secrets
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from netx_files import edited, in_lava
from strategies import assert_same, networks

from netx_export import netx
from netx_export.fast import backend as fast_backend
from netx_export.lava import backend as lava_backend
from netx_export.network import (
    AnyNeuron,
    Average,
    Conv,
    Dense,
    Flatten,
    Layer,
    Network,
    NetworkError,
    Neuron,
    Pool,
    Sigma,
    SigmaDelta,
    conv_shape,
)

IF = Neuron(100)


def dense(weight: Any, neuron: AnyNeuron | None = IF, **fields: Any) -> Dense:
    """A dense layer from its weights."""
    array = np.array(weight)
    return Dense(in_shape=(array.shape[1],), shape=(array.shape[0],), weight=array, neuron=neuron, **fields)


def conv(weight: np.ndarray, in_shape: tuple[int, ...], neuron: Neuron | None = IF, **fields: Any) -> Conv:
    """A conv layer from its weights."""
    geometry = [fields.get(name, default) for name, default in (("stride", (1, 1)), ("padding", (0, 0)))]
    shape = conv_shape(in_shape, len(weight), weight.shape[2:], *geometry, fields.get("dilation", (1, 1)))
    return Conv(in_shape=in_shape, shape=shape, weight=weight, neuron=neuron, **fields)


def small(**fields: Any) -> Network:
    """Conv, flatten, dense."""
    first = conv(2 * np.arange(-6, 12).reshape(2, 1, 3, 3), (1, 5, 4), padding=(0, 1), name="first", weight_scale=32.0)
    flatten = Flatten(in_shape=first.shape, shape=(24,), name="flat")
    last = dense(2 * np.arange(-30, 42).reshape(3, 24), Neuron(131071, 4096, 0, np.array([1, -2, 3])), name="last")
    return Network((first, flatten, last), **fields)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a test writes its file."""
    return tmp_path / "net.net"


def written(network: Network, path: Path, changes: dict[str, Any] | None = None) -> Path:
    """Write a network, then put other values into its datasets (None deletes one)."""
    netx.write(network, path)
    with edited(path) as file:
        for field, value in (changes or {}).items():
            if field in file:
                del file[field]
            if value is not None:
                file[field] = value
    return path


# ---------------------------------------------------------------------------------------------- round trip


@settings(max_examples=60, deadline=None)
@given(network=networks())
def test_what_is_written_is_read_back(network: Network, tmp_path_factory: pytest.TempPathFactory) -> None:
    """read(write(network)) is the network, attributes and all."""
    path = tmp_path_factory.mktemp("net") / "a.net"
    netx.write(network, path)
    assert_same(netx.read(path), network)


def test_same_network_same_bytes(tmp_path: Path) -> None:
    """Writing is deterministic."""
    netx.write(small(), tmp_path / "a.net")
    netx.write(small(), tmp_path / "b.net")
    assert (tmp_path / "a.net").read_bytes() == (tmp_path / "b.net").read_bytes()


def test_refusal_leaves_the_old_file(path: Path) -> None:
    """A network that cannot be written leaves what was there, and nothing beside it."""
    path.write_text("old")
    with pytest.raises(NetworkError):
        netx.write(Network((dense([[0]]),)), path)
    assert path.read_text() == "old"
    assert os.listdir(path.parent) == ["net.net"]


def test_reading_leaves_the_file_closed(path: Path) -> None:
    """A file can be opened for writing after it was read, and after reading it failed."""
    written(small(), path, {"layer/1/stride": None})
    with pytest.raises(NetworkError):
        netx.read(path)
    h5py.File(path, "r+").close()


# ---------------------------------------------------------------------------------------------- traps when writing

EVEN = 2 * np.ones((2, 2), int)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        # 1: layers that lava-dl refuses
        (lambda: Network((*small().layers[:2],)), r"2 \(flat\): a flatten at the end is ignored"),
        (
            lambda: Network((dense(EVEN), Flatten(in_shape=(2,), shape=(2,)), dense(EVEN))),
            "fails on that; leave it out",
        ),
        # 6: dense weights that the loader changes
        (lambda: Network((dense(0 * EVEN),)), "all weights are 0"),
        (lambda: Network((dense([[-2, 0]]),)), r"turn weight -2 at \(0, 0\) into -1"),
        (lambda: Network((dense([[-128, -128]]),)), r"turn weight -128 at \(0, 0\) into 0"),
        (lambda: Network((dense([[-256, -254]]),)), r"turn weight -256 at \(0, 0\) into -254"),
        (lambda: Network((dense([[2]], recurrent=np.array([[-256]])),)), r"turn weight -256 at \(0, 0\) into -255"),
        # 7: eight bits with sign
        (lambda: Network((dense([[256, 2]]),)), r"weight 256 is not an even integer in -256\.\.254"),
        (lambda: Network((dense([[-258, 2]]),)), "weight -258 is not an even"),
        (lambda: Network((dense([[3, 2]]),)), "weight 3 is not an even"),
        (lambda: Network((dense([[2]], recurrent=np.array([[7]])),)), "recurrent weight 7 is not an even"),
        (lambda: Network((conv(np.full((1, 1, 1, 1), 256), (1, 2, 2), name="c"),)), r"1 \(c\): weight 256 is not"),
        (lambda: Network((conv(np.full((1, 1, 1, 1), -3), (1, 2, 2)),)), "weight -3 is not an even"),
        # Lava keeps a conv layer's numbers in 8 bits
        (lambda: Network((conv(np.full((128, 1, 1, 1), 2), (128, 1, 1), groups=128),)), "groups 128 .* merge groups"),
        (lambda: Network((conv(np.full((1, 1, 128, 1), 2), (1, 128, 1)),)), "kernel size 128 is more than 127"),
        (lambda: Network((conv(np.full((1, 1, 1, 1), 2), (1, 2, 2), stride=(1, 128)),)), "stride 128"),
        # 5 and others: what is clamped or dropped
        (lambda: Network((dense(EVEN, delay=63 * EVEN // 2),)), "delay 63 is more than 62"),
        (
            lambda: Network((dense(EVEN, recurrent=EVEN, delay=0 * EVEN, recurrent_delay=0 * EVEN),)),
            r"turn weight 2 at \(0, 0\) into 128, because it forgets the weight exponent",
        ),
        (lambda: Network((dense(64 * EVEN, recurrent=EVEN, delay=EVEN),)), "recurrent delays are not the delays"),
        (
            lambda: Network((dense(64 * EVEN, recurrent=EVEN, recurrent_delay=EVEN),)),
            "recurrent delays are not the delays",
        ),
        (lambda: Network((dense(EVEN, None),)), "no layer has neurons"),
        (lambda: Network((dense(EVEN, Neuron(131072)),)), r"threshold 131072 is not an integer in 0\.\.131071"),
        (lambda: Network((dense(EVEN, Neuron(-1)),)), "threshold -1"),
        (lambda: Network((dense(EVEN, Neuron(1.5)),)), r"threshold 1\.5"),  # type: ignore[arg-type]
        (lambda: Network((dense(EVEN, Neuron(1, 4097)),)), r"current decay 4097 is not an integer in 0\.\.4096"),
        (lambda: Network((dense(EVEN, Neuron(1, 1, -1)),)), "voltage decay -1"),
        (lambda: Network((dense(EVEN, Neuron(1, bias=np.array([0, 4096]))),)), r"bias 4096 .* -4096\.\.4095"),
        (lambda: Network((dense(EVEN, Neuron(1, bias=np.array([0, -4097]))),)), "bias -4097"),
        (lambda: Network((dense(EVEN, Neuron(1, bias=np.array([0, 1]), bias_exponent=5)),)), "bias exponent 5"),
        (lambda: replace(small(), info={"a": np.ones(2)}), "info holds what JSON cannot"),
        (lambda: replace(small(), info={"a": float("nan")}), "info holds what JSON cannot"),
        (lambda: replace(small(), info={"a": "x" * 70_000}), "at most 60000 fit"),
    ],
)
def test_what_lava_would_change_is_refused(network: Any, message: str, path: Path) -> None:
    """Each network that lava-dl would run differently is refused: layer, value, what is allowed."""
    with pytest.raises(NetworkError, match=message) as caught:
        netx.write(network(), path)
    assert "\n" not in str(caught.value)
    assert not path.exists()


def wide(fan_in: int, **fields: Any) -> Network:
    """A hidden layer with this many inputs of weight 254."""
    first = dense(np.full((fan_in, 1), 2), name="first")
    return Network((first, dense(np.full((1, fan_in), 254), name="second", **fields)))


def test_hidden_layer_that_can_wrap_is_refused(path: Path) -> None:
    """Trap 8: 516 inputs of weight 254 stay within 24 bits, 517 do not; leaky currents add up."""
    netx.write(wide(516), path)
    with pytest.raises(NetworkError, match=r"2 \(second\): .* u can reach 8404352, beyond 8388607"):
        netx.write(wide(517), path)
    netx.write(wide(129, neuron=Neuron(1, 1024)), path)
    for neuron in (Neuron(1, 1000), Neuron(1, 0)):
        with pytest.raises(NetworkError, match="can reach"):
            netx.write(wide(129, neuron=neuron), path)
    with pytest.raises(NetworkError, match="can reach"):
        netx.write(wide(516, recurrent=np.array([[254]])), path)


WIDE = {"u_measured": 1_234_567, "v_measured": 9_000_000}


def test_a_measured_layer_that_could_wrap_is_written(path: Path) -> None:
    """Where the data keeps u within 24 bits the file is written, with both numbers; they are read back."""
    network = wide(517, **WIDE)
    with pytest.warns(netx.NetxWarning) as caught:
        netx.write(network, path)
    (text,) = (str(warning.message) for warning in caught)
    assert "layer 2 (second): with all inputs active the current u can reach 8404352, beyond 8388607" in text
    assert text.endswith("over the training data it reached 1,234,567 (15 % of the range)")
    with h5py.File(path) as file:
        assert dict(file["layer/2"].attrs) == {"name": "second", "u_bound": 8404352, **WIDE}
        assert dict(file["layer/1"].attrs) == {"name": "first"}
    assert_same(netx.read(path), network)
    with pytest.warns(netx.NetxWarning, match="can reach inf"):
        netx.write(wide(1, neuron=Neuron(1, 0), **WIDE), path)
    assert netx.read(path).layers[1].u_measured == WIDE["u_measured"]


@pytest.mark.parametrize("first", [True, False])
def test_a_layer_that_wrapped_over_the_training_data_is_refused(first: bool, path: Path) -> None:
    """A measurement beyond 24 bits is refused in any layer, whatever the bound, and says what to do."""
    network = small()
    which = 0 if first else 2
    layers = list(network.layers)
    layers[which] = replace(layers[which], u_measured=(1 << 23) - 1)
    netx.write(Network(tuple(layers)), path)
    before = path.read_bytes()
    layers[which] = replace(layers[which], u_measured=1 << 23)
    name = rf"{which + 1} \({layers[which].name}\)"
    with pytest.raises(
        NetworkError, match=rf"{name}: over the .* reached 8388608, beyond 8388607 .* itself .* reach_max"
    ):
        netx.write(Network(tuple(layers)), path)
    assert path.read_bytes() == before
    netx.write(Network(tuple(layers)), path, allow_wrap=True)


def test_measurements_change_no_file_that_needs_none(tmp_path: Path) -> None:
    """Where the bound holds the file is byte for byte that of a network which nobody has measured."""
    netx.write(small(), tmp_path / "a.net")
    layers = [replace(layer, u_measured=5, v_measured=6) if layer.neuron else layer for layer in small()]
    netx.write(Network(tuple(layers)), tmp_path / "b.net")
    assert (tmp_path / "a.net").read_bytes() == (tmp_path / "b.net").read_bytes()


def test_a_first_layer_is_judged_by_the_largest_input_trained_with(path: Path) -> None:
    """With the file's input_max the first layer can pass 24 bits; measured, it is written with its numbers."""
    network = Network((dense([[254, 254]], u_measured=77),), info={"input_max": 259})
    with pytest.warns(netx.NetxWarning, match=r"1 \(dense1\): .* reach 8420608, .* reached 77 \(0 % of the range\)"):
        netx.write(network, path)
    assert netx.read(path).layers[0].u_measured == 77
    netx.write(Network(network.layers), path)
    assert netx.read(path).layers[0].u_measured is None


def test_a_voltage_readout_that_saturated_is_written_with_a_warning(path: Path) -> None:
    """A voltage beyond 24 bits in the layer that is read out is said, with the number; in hidden layers it is not."""
    layers = (dense(EVEN, v_measured=1 << 23, name="hidden"), dense(EVEN, v_measured=1 << 23, name="out"))
    netx.write(Network(layers), path)
    with pytest.warns(netx.NetxWarning) as caught:
        netx.write(Network(layers, readout="voltage"), path)
    (text,) = (str(warning.message) for warning in caught)
    assert "2 (out): over the training data the voltage read out reached 8388608, and saturates at 8388607" in text
    assert [layer.v_measured for layer in netx.read(path)] == [None, 1 << 23]


@pytest.mark.parametrize("value", [-1, 1.5, "much"])
def test_measurements_that_are_none_are_refused(value: Any, path: Path) -> None:
    """An attribute that is no integer from 0 on is refused with its name."""
    netx.write(small(), path)
    with edited(path) as file:
        file["layer/1"].attrs["u_measured"] = value
    with pytest.raises(NetworkError, match="layer/1: attribute u_measured is"):
        netx.read(path)
    with pytest.raises(NetworkError, match="layer flat: u_measured 3 is not"):
        replace(small().layers[1], u_measured=3)


def test_layer_table_shows_what_was_measured() -> None:
    """Where a layer was measured there is a column with the largest current and its share; else there is none."""
    assert "measured" not in netx.layer_table(wide(2))
    lines = netx.layer_table(wide(517, **WIDE)).splitlines()
    assert [lines[0].endswith("largest u measured"), lines[2].endswith("1,234,567 (15 % of the range)")] == [True, True]


def test_wrapping_can_be_allowed(path: Path) -> None:
    """With allow_wrap the file is written, and holds the network."""
    netx.write(wide(517), path, allow_wrap=True)
    assert_same(netx.read(path), wide(517))


def test_input_range_is_checked_through_the_layers() -> None:
    """Counts and signed input count against the 24 bits; behind a sum pool they add up; the message says the bound."""
    network = Network((dense([[254, -254]]),))
    netx.check_input_range(network, 516, signed=False)
    netx.check_input_range(network, 258)
    with pytest.raises(NetworkError, match=r"1 \(dense1\): inputs up to 259 can drive .* 8420608, beyond 8388607"):
        netx.check_input_range(network, 259)
    pooled = Network((Pool(in_shape=(1, 2, 2), shape=(1, 1, 1)), conv(np.full((1, 1, 1, 1), 254), (1, 1, 1))))
    netx.check_input_range(pooled, 129)
    with pytest.raises(NetworkError, match="inputs up to 520"):
        netx.check_input_range(pooled, 130)
    unleaky = Network((dense([[254]], Neuron(1, 0)),))
    netx.check_input_range(unleaky, 1, time_steps=516)
    with pytest.raises(NetworkError, match="beyond 8388607"):
        netx.check_input_range(unleaky, 1, time_steps=517)
    with pytest.raises(NetworkError, match="to inf"):
        netx.check_input_range(unleaky, 1)


# ---------------------------------------------------------------------------------------------- the loader's weights


@pytest.fixture(scope="module")
def lava_utils() -> tuple[ModuleType, ModuleType]:
    """NetX's utils, loaded from its file (its package would import all of Lava), and lava-nc's weight utils."""
    pytest.importorskip("lava.utils", reason="Lava runs on Python 3.10 only")
    import lava
    import lava.utils.weightutils as weightutils

    spec = importlib.util.spec_from_file_location("netx_utils", Path(lava.__path__[0], "lib/dl/netx/utils.py"))
    assert spec is not None
    assert spec.loader is not None
    utils = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(utils)
    return utils, weightutils


def lava_stored(lava_utils: tuple[ModuleType, ModuleType], parts: list[np.ndarray]) -> tuple[list[np.ndarray], int]:
    """Weights that Lava's dense models multiply with, and the shift of their sum, by lava-dl's and lava-nc's code."""
    utils, weightutils = lava_utils
    with np.errstate(divide="ignore"):
        shifted, bits, exponent, _ = utils.optimize_weight_bits(np.hstack(parts))
    stored = []
    for part in np.split(shifted, [parts[0].shape[1]], axis=1) if len(parts) > 1 else [shifted]:
        sign = weightutils.determine_sign_mode(part)
        part = weightutils.clip_weights(part, sign, num_bits=8)
        stored.append(weightutils.truncate_weights(part, sign, bits))
    return stored, exponent


notable = sorted({sign * (1 << k) + d for k in range(10) for sign in (1, -1) for d in (-1, 0, 1)} | {0, 100, -100})
matrices = (
    st.integers(1, 4)
    .flatmap(
        lambda n: st.lists(
            st.lists(st.sampled_from(notable) | st.integers(-300, 300), min_size=n, max_size=n), min_size=1, max_size=3
        )
    )
    .map(np.array)
)


@settings(max_examples=400, deadline=None)
@given(
    weight=matrices,
    recurrent=st.booleans(),
    delayed=st.booleans(),
    sign=st.sampled_from((0, 1, -1)),
    even=st.booleans(),
    data=st.data(),
)
@example(weight=np.array([[-1, 0]]), recurrent=False, delayed=False, sign=0, even=False, data=None)
@example(weight=np.array([[-256, -255]]), recurrent=False, delayed=False, sign=0, even=False, data=None)
@example(weight=np.array([[-200, 0, -199]]), recurrent=False, delayed=False, sign=0, even=False, data=None)
@example(weight=np.array([[300, 1]]), recurrent=False, delayed=False, sign=0, even=False, data=None)
def test_loaded_weights_are_lavas(
    weight: np.ndarray,
    recurrent: bool,
    delayed: bool,
    sign: int,
    even: bool,
    data: Any,
    lava_utils: tuple[ModuleType, ModuleType],
) -> None:
    """`loaded_dense_weight` does to any weights what lava-dl's loader and lava-nc's dense model do to them.

    With delays and recurrent weights the sum is not shifted back: lava-dl's RecurrentDense passes no exponent on.
    """
    parts = [weight]
    if recurrent:
        rows = len(weight)
        values = st.lists(st.sampled_from(notable), min_size=rows * rows, max_size=rows * rows)
        parts.append(np.array(data.draw(values)).reshape(rows, rows))
    parts = [(sign * np.abs(p) if sign else p) // (2 if even else 1) * (2 if even else 1) for p in parts]
    try:
        stored, exponent = lava_stored(lava_utils, parts)
    except OverflowError:
        with pytest.raises(NetworkError, match="all weights are 0"):
            netx.loaded_dense_weight(*parts, delayed=delayed)
        return
    if delayed and recurrent:
        exponent = 0
    unit = 1 << max(-exponent, 0)
    if any(np.any(part % unit) for part in stored):
        with pytest.raises(NetworkError, match="fractions"):
            netx.loaded_dense_weight(*parts, delayed=delayed)
        return
    loaded = netx.loaded_dense_weight(*parts, delayed=delayed)
    for ours, theirs in zip(loaded, [*stored, None], strict=False):
        if theirs is not None:
            np.testing.assert_array_equal(ours, theirs // unit * (1 << max(exponent, 0)))


def test_loaded_weights_of_narrow_integers() -> None:
    """Weights kept in 8 bits are not overflowed on the way."""
    weight = np.array([[-128, 126, 2]], dtype=np.int8)
    np.testing.assert_array_equal(netx.loaded_dense_weight(weight)[0], weight)


# ---------------------------------------------------------------------------------------------- lava-dl loads it

LOAD = """
import json, sys
import numpy as np
from lava.lib.dl.netx import hdf5

def of(variable):
    return np.broadcast_to(np.asarray(variable.init), variable.shape).astype(int)

found = []
for path in sys.argv[1:]:
    network = hdf5.Network(path)
    layers = []
    for block in network.layers:
        synapse, neuron = block.synapse, block.neuron
        one = {
            name: np.broadcast_to(np.asarray(variable.init), block.shape).astype(int).T.tolist()
            for name, variable in (("u", neuron.du), ("v", neuron.dv), ("th", neuron.vth))
        }
        one["bias"] = of(neuron.bias_mant).T.tolist()
        one["exponent"] = int(np.max(of(neuron.bias_exp)))
        one["shape"] = [int(n) for n in block.shape[::-1]]
        if hasattr(synapse, "kernel_size"):
            one["weight"] = of(synapse.weight).transpose(0, 3, 2, 1)[:, :, ::-1, ::-1].tolist()
            one["input"] = [int(n) for n in synapse.input_shape[::-1]]
            for name in ("stride", "padding", "dilation"):
                one[name] = of(getattr(synapse, name))[::-1].tolist()
            one["groups"] = int(synapse.groups.init)
        else:
            shift = -int(synapse.proc_params.get("weight_exp", 0))
            one["weight"] = (of(synapse.weights) >> shift).tolist()
            one["delay"] = of(synapse.delays).tolist() if hasattr(synapse, "delays") else None
            if hasattr(block, "synapse_rec"):
                one["recurrent"] = (of(block.synapse_rec.weights) >> shift).tolist()
                one["late"] = of(block.synapse_rec.delays).tolist() if hasattr(block.synapse_rec, "delays") else None
        layers.append(one)
    found.append(layers)
print("LOADED" + json.dumps(found))
"""


def expected_in_lava(network: Network) -> Iterator[dict[str, Any]]:
    """What lava-dl should hold for each layer with neurons."""
    import reference

    for layer in network.spiking:
        neuron = layer.neuron
        assert neuron is not None
        assert layer.weight is not None
        values = {"u": np.asarray(neuron.current_decay) - 1, "v": neuron.voltage_decay, "th": neuron.threshold}
        values["bias"] = 0 if neuron.bias is None else neuron.bias
        one = {name: reference.each(layer, value).tolist() for name, value in values.items()}
        one |= {"exponent": 6, "shape": list(layer.shape)}
        one["weight"] = layer.weight.tolist()
        if isinstance(layer, Conv):
            one |= {"input": list(layer.in_shape), "groups": layer.groups}
            one |= {name: list(getattr(layer, name)) for name in ("stride", "padding", "dilation")}
        elif isinstance(layer, Dense):
            one["delay"] = None if layer.delay is None else layer.delay.tolist()
            if layer.recurrent is not None:
                one["recurrent"] = layer.recurrent.tolist()
                one["late"] = None if layer.recurrent_delay is None else layer.recurrent_delay.tolist()
        yield one


@pytest.mark.lava
def test_lava_loads_what_was_written(tmp_path: Path) -> None:
    """lava-dl's own loader takes the files as they are and holds the network's integers, shapes and pairs."""
    drawn: list[Network] = [small()]

    @settings(max_examples=25, deadline=None, database=None)
    @given(network=networks())
    def collect(network: Network) -> None:
        drawn.append(network)

    collect()
    paths = [str(tmp_path / f"{i}.net") for i in range(len(drawn))]
    for network, path in zip(drawn, paths, strict=True):
        netx.write(network, path)
    done = in_lava(LOAD, *paths)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.split("LOADED")[1])
    for network, layers in zip(drawn, found, strict=True):
        assert layers == list(expected_in_lava(network))


# ---------------------------------------------------------------------------------------------- files of lava-dl


@pytest.fixture(scope="module")
def slayer_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A file that SLAYER wrote, as lava-dl's tutorials export: conv, flatten, dense with delay, dense; and its net."""
    import torch
    from lava.lib.dl import slayer

    torch.manual_seed(0)
    parameters = {"threshold": 1.25, "current_decay": 0.25, "voltage_decay": 0.03, "scale": 1 << 6}
    normed = {**parameters, "norm": slayer.neuron.norm.MeanOnlyBatchNorm}
    blocks = torch.nn.ModuleList(
        [
            slayer.block.cuba.Conv(dict(normed), 2, 4, (3, 2), stride=(2, 1), padding=(1, 0), groups=2, weight_scale=2),
            slayer.block.cuba.Flatten(),
            slayer.block.cuba.Dense(dict(parameters), 4 * 3 * 6, 5, weight_norm=True, delay=True),
            slayer.block.cuba.Recurrent(dict(parameters), 5, 4),
            slayer.block.cuba.Affine(dict(parameters), 4, 3),
        ]
    )
    spikes = (torch.rand(3, 2, 5, 7, 6) < 0.4).float()
    for _ in range(2):
        signal = spikes
        for block in blocks:
            signal = block(signal)
    blocks[2].delay.delay.data = torch.rand(5) * 9
    blocks[0].neuron.norm.running_mean.data = torch.tensor([2.0, 0.0, -4.0, 6.0]) / 64
    path = tmp_path_factory.mktemp("slayer") / "slayer.net"
    with h5py.File(path, "w") as file:
        layer = file.create_group("layer")
        for number, block in enumerate(blocks):
            block.export_hdf5(layer.create_group(f"{number}"))
    return path, blocks


@pytest.mark.filterwarnings("ignore::netx_export.netx.NetxWarning")
def test_slayer_file_is_read(slayer_file: tuple[Path, Any]) -> None:
    """Weights, decays, threshold, bias and delays are those of the SLAYER blocks; the affine readout never spikes."""
    path, blocks = slayer_file
    network = netx.read(path, in_shape=(2, 5, 7))
    assert [layer.kind for layer in network] == ["conv", "flatten", "dense", "dense", "dense"]
    assert [layer.name for layer in network] == ["conv0", "flatten1", "dense2", "dense_rec3", "dense4"]
    assert network.readout == "voltage"
    assert network.source == str(path)
    first, flatten, delayed, recurrent, last = network.layers
    assert isinstance(first, Conv)
    assert isinstance(delayed, Dense)
    assert isinstance(recurrent, Dense)
    assert (first.shape, first.stride, first.padding, first.dilation, first.groups) == (
        (4, 3, 6),
        (2, 1),
        (1, 0),
        (1, 1),
        2,
    )
    assert flatten.shape == (72,)
    for layer, weight, block in (
        (first, first.weight, blocks[0].synapse),
        (delayed, delayed.weight, blocks[2].synapse),
        (recurrent, recurrent.weight, blocks[3].input_synapse),
        (recurrent, recurrent.recurrent, blocks[3].recurrent_synapse),
        (last, last.weight, blocks[4].synapse),
    ):
        assert weight is not None
        hooked = block.pre_hook_fx(block.weight, descale=True).detach().numpy()
        np.testing.assert_array_equal(weight, hooked.reshape(weight.shape))
        neuron = layer.neuron
        assert neuron is not None
        assert (neuron.current_decay, neuron.voltage_decay) == (1024, 123)
    assert [layer.neuron.threshold for layer in network.spiking if layer.neuron] == [80, 80, 80, (1 << 18) - 1]
    assert first.neuron is not None
    np.testing.assert_array_equal(first.neuron.bias, blocks[0].neuron.norm.bias.numpy().ravel())
    floor = np.floor(blocks[2].delay.delay.detach().numpy())
    np.testing.assert_array_equal(delayed.delay, np.repeat(floor[:, None], 72, axis=1))


@pytest.mark.filterwarnings("ignore::netx_export.netx.NetxWarning")
def test_slayer_file_can_be_written_again(slayer_file: tuple[Path, Any], path: Path) -> None:
    """What SLAYER wrote survives our writing it, once the readout's threshold fits 17 bits."""
    network = netx.read(slayer_file[0], in_shape=(2, 5, 7))
    last = network.layers[-1]
    assert last.neuron is not None
    network = replace(
        network,
        layers=(*network.layers[:-1], replace(last, neuron=replace(last.neuron, threshold=131071))),
        groups=(),
    )
    netx.write(network, path)
    assert_same(netx.read(path), network)


def test_conv_file_without_input_shape_asks_for_it(slayer_file: tuple[Path, Any]) -> None:
    """A conv file that does not state its input's shape says how to give it; a wrong one does not fit."""
    with pytest.raises(NetworkError, match=r"layer/0/type: .* give --in-shape C,H,W \(in Python in_shape=\(C"):
        netx.read(slayer_file[0])
    with pytest.raises(NetworkError, match=r"slayer\.net: layer/0: layer conv0: gives \(4, 3, 7\)"):
        netx.read(slayer_file[0], in_shape=(2, 5, 8))


def foreign(path: Path, *layers: dict[str, Any]) -> Path:
    """A file as lava-dl would write it: one dict of fields a layer."""
    with h5py.File(path, "w") as file:
        for number, fields in enumerate(layers):
            group = file.create_group(f"layer/{number}")
            for field, value in fields.items():
                group[field] = value
    return path


NEURON = {"neuron/type": "LOIHI", "neuron/iDecay": 1024, "neuron/vDecay": 128, "neuron/vThMant": 80}
DENSE = {"type": "dense", "shape": np.array([2, 1, 1]), "weight": np.array([[2.0, -4.0, 6.0], [8, 10, 12]]), **NEURON}
SDNN = {"neuron/type": "SDNN", "neuron/vThMant": 3, "neuron/iDecay": None, "neuron/vDecay": None}
CONV = {
    "type": np.array([b"conv"]),
    "shape": [2, 2, 1],
    "weight": np.full((2, 1, 2, 3, 1), 4.0),
    "stride": 1,
    "padding": 0,
    "dilation": np.array([1, 1]),
    "groups": 1,
    **NEURON,
}
IMAGE = {"type": "input", "shape": [1, 3, 3]}
SQUARE = DENSE | {"weight": np.array([[2.0, -4.0], [6, 8]])}
RECURRENT = SQUARE | {"type": "dense_rec", "weight_rec": np.array([[2, 4], [-8, 6]])}
POOL = {"type": "pool", "shape": [1, 2, 2], "kernelSize": [2, 2], "stride": [2, 2], "padding": 0, "weight": 2, **NEURON}


def test_quirks_of_lava_files(path: Path) -> None:
    """Flat weights, scalar strides, one-number pairs, float integers, trailing axes, text as array or scalar."""
    network = netx.read(
        foreign(
            path,
            IMAGE,
            CONV,
            {"type": "flatten", "shape": [4, 1, 1]},
            DENSE | {"shape": [2], "weight": np.arange(8.0), "bias": np.float32(5), "delay": np.array([1.0, 2.0])},
        )
    )
    first, _, last = network.layers
    assert isinstance(first, Conv)
    assert isinstance(last, Dense)
    assert (first.in_shape, first.stride, first.padding, first.weight.shape) == (
        (1, 3, 3),
        (1, 1),
        (0, 0),
        (2, 1, 2, 3),
    )  # type: ignore[union-attr]
    assert last.neuron is not None
    np.testing.assert_array_equal(last.weight, np.arange(8).reshape(2, 4))
    np.testing.assert_array_equal(last.neuron.bias, [5, 5])
    np.testing.assert_array_equal(last.delay, [[1] * 4, [2] * 4])
    assert network.readout == "count"


@pytest.mark.parametrize(
    ("delay", "expected"),
    [
        (3, [[3, 3, 3], [3, 3, 3]]),
        ([1, 2], [[1, 1, 1], [2, 2, 2]]),
        ([1, 2, 3], [[1, 2, 3], [1, 2, 3]]),
        ([[0, 1, 2], [3, 4, 5]], [[0, 1, 2], [3, 4, 5]]),
    ],
)
def test_delays_of_any_shape(delay: Any, expected: list[list[int]], path: Path) -> None:
    """One delay for all, one an output, one an input, one a synapse, as lava-dl spreads them."""
    layer = netx.read(foreign(path, DENSE | {"delay": delay})).layers[0]
    assert isinstance(layer, Dense)
    np.testing.assert_array_equal(layer.delay, expected)


def test_dense_input_shape_is_inferred(path: Path) -> None:
    """A dense layer says how wide its input is; an input entry may state it with trailing ones."""
    assert netx.read(foreign(path, DENSE)).in_shape == (3,)
    assert netx.read(foreign(path, {"type": "input", "shape": [3, 1, 1]}, DENSE)).in_shape == (3,)
    assert netx.read(foreign(path, {"type": "flatten", "shape": [3, 1, 1]}, DENSE)).in_shape == (3,)


def test_dense_without_neuron_integrates(path: Path) -> None:
    """lava-dl gives it a neuron whose u never leaks, whose v follows u, and that never spikes."""
    without = {field: value for field, value in DENSE.items() if not field.startswith("neuron")}
    network = netx.read(foreign(path, without))
    neuron = network.layers[0].neuron
    assert neuron is not None
    assert (neuron.threshold, neuron.current_decay, neuron.voltage_decay) == (1 << 17, 0, 4096)
    assert network.readout == "voltage"


def test_bias_of_each_neuron_is_in_the_order_of_lava(path: Path) -> None:
    """A conv bias for each neuron is stored (W, H, C) and read as (C, H, W)."""
    bias = np.arange(4).reshape(2, 2, 1)
    neuron = netx.read(foreign(path, IMAGE, CONV | {"bias": bias.T})).layers[0].neuron
    assert neuron is not None
    np.testing.assert_array_equal(neuron.bias, bias)


@pytest.mark.parametrize(
    ("fields", "warning", "weight", "delay"),
    [
        ({"weight": np.array([[-2, 0, -4]] * 2)}, "changes these weights", [-2, 0, -3], None),
        ({"weight": np.array([[300, -300, 2]] * 2)}, "changes these weights", [254, -256, 2], None),
        ({"delay": 99}, r"clamps delays to 0\.\.62", [2, -4, 6], 62),
        ({"delay": [-1, 99]}, r"clamps delays to 0\.\.62", [2, -4, 6], 62),
        ({"delay": [1.5, 0]}, r"delay: lava-dl cuts 1\.5 to 1", [2, -4, 6], 1),
        ({"weight": np.array([[2.9, -4.9, 6]] * 2)}, r"weight: lava-dl cuts 2\.9 to 2", [2, -4, 6], None),
        ({"neuron/gradedSpike": True}, "makes graded spikes binary", [2, -4, 6], None),
        ({"neuron/refDelay": 2}, "knows no refractory delay", [2, -4, 6], None),
        ({"neuron/weight_exp": [3, 3]}, "does not read the weight exponent of a norm", [2, -4, 6], None),
        ({"neuron/wgtExp": 2}, "wgtExp: lava-dl does not read the weight exponent", [2, -4, 6], None),
    ],
)
def test_what_lava_changes_is_read_as_it_runs(
    fields: dict[str, Any], warning: str, weight: list[int], delay: int | None, path: Path
) -> None:
    """Clipped weights and clamped delays are read as lava-dl runs them, with a warning that names the layer."""
    with pytest.warns(netx.NetxWarning, match=f"layer/0/.*{warning}") as caught:
        layer = netx.read(foreign(path, DENSE | fields)).layers[0]
    assert isinstance(layer, Dense)
    assert layer.weight is not None
    assert layer.weight[0].tolist() == weight
    assert (None if layer.delay is None else layer.delay.max()) == delay
    assert caught[0].filename == __file__


def test_integers_of_few_bits_are_read_as_lava_keeps_them(path: Path) -> None:
    """Biases lose what is above 16 bits; thresholds are shifted by 6 in the file's own type; negative ones run."""
    fields = {"bias": np.array([40000.7, -1.5]), "neuron/vThMant": np.array([2000, -3], np.int16)}
    with pytest.warns(netx.NetxWarning) as caught:
        neuron = netx.read(foreign(path, DENSE | fields)).layers[0].neuron
    assert [str(warning.message).partition("layer/0/")[2] for warning in caught] == [
        "bias: lava-dl cuts 40000.7 to 40000; quantise before export",
        "bias: lava-dl makes 40000 -25536, in too few bits; read as it runs this",
        "neuron/vThMant: lava-dl makes 2000 -48, in too few bits; read as it runs this",
    ]
    assert neuron is not None
    np.testing.assert_array_equal(neuron.bias, [-25536, -1])
    np.testing.assert_array_equal(neuron.threshold, [-48, -3])


def test_values_spread_over_maps_as_numpy_does(path: Path) -> None:
    """A neuron's values and a bias may have any shape that NumPy spreads to Lava's (W, H, C)."""
    fields = {"neuron/vThMant": [[5], [7]], "neuron/iDecay": [[[1, 2]]], "bias": np.array([[3], [4]])}
    neuron = netx.read(foreign(path, IMAGE, CONV | fields)).layers[0].neuron
    assert neuron is not None
    np.testing.assert_array_equal(neuron.threshold, [[[5], [7]], [[5], [7]]])
    np.testing.assert_array_equal(neuron.current_decay, [[[1], [1]], [[2], [2]]])
    np.testing.assert_array_equal(neuron.bias, [[[3], [4]], [[3], [4]]])


def test_delays_of_recurrent_layers(path: Path) -> None:
    """Both synapses have them, and weights that lava-dl scales up for its 8 bits and never down again."""
    with pytest.warns(netx.NetxWarning, match="layer/0/weight: lava-dl's loader changes these weights"):
        layer = netx.read(foreign(path, RECURRENT | {"delay": [1, 2]})).layers[0]
    assert isinstance(layer, Dense)
    np.testing.assert_array_equal(layer.weight, 16 * RECURRENT["weight"])
    np.testing.assert_array_equal(layer.recurrent, 16 * RECURRENT["weight_rec"])
    np.testing.assert_array_equal(layer.delay, [[1, 1], [2, 2]])
    np.testing.assert_array_equal(layer.recurrent_delay, [[1, 1], [2, 2]])


def test_entries_that_lava_passes_over(path: Path) -> None:
    """Input entries behind a layer stand for nothing, with a warning unknown types too; layers keep their numbers."""
    with pytest.warns(netx.NetxWarning, match="layer/3/type: lava-dl passes over the unknown layer type 'foo'"):
        network = netx.read(foreign(path, {"type": "input"}, DENSE, IMAGE, {"type": "foo"}, SQUARE, IMAGE))
    assert [layer.name for layer in network] == ["dense1", "dense4"]
    assert network.numbers == (1, 4)


def test_the_last_input_entry_counts(path: Path) -> None:
    """Of several at the start, lava-dl takes the last one's shape."""
    assert netx.read(foreign(path, {"type": "input", "shape": [9]}, IMAGE, {"type": "input"}, CONV)).numbers == (3,)


@pytest.mark.parametrize("flatten", [[], [{"type": "flatten"}]])
def test_dense_layer_at_the_start_takes_what_it_takes(flatten: list[Any], path: Path) -> None:
    """lava-dl does not look at the shape of the input there; a warning says where it is another."""
    with pytest.warns(netx.NetxWarning, match=r"is for 3 inputs: lava-dl ignores the input shape \(9,\)|\(1, 3, 3\)"):
        network = netx.read(foreign(path, IMAGE, *flatten, DENSE))
    assert network.in_shape == (3,)
    assert len(network.layers) == 1
    assert netx.read(foreign(path, {"type": "input", "shape": [3, 1]}, DENSE)).in_shape == (3,)


def test_flatten_comes_before_the_next_dense_layer(path: Path) -> None:
    """As lava-dl does it: not before a conv layer, and not at all at the end; a warning says so."""
    point = CONV | {"weight": np.full((2, 2, 1, 1), 4.0)}
    last = DENSE | {"weight": np.full((2, 4), 4)}
    flatten = {"type": "flatten"}
    with pytest.warns(netx.NetxWarning, match="layer/2/type: lava-dl flattens only where a dense layer comes next"):
        network = netx.read(foreign(path, IMAGE, CONV, flatten, point, last))
    assert [layer.kind for layer in network] == ["conv", "conv", "flatten", "dense"]
    assert network.numbers == (1, 3, 2, 4)
    with pytest.warns(netx.NetxWarning, match="layer/2/type: lava-dl flattens only where a dense layer comes next"):
        assert netx.read(foreign(path, IMAGE, CONV, flatten)).shape == (2, 2, 1)


def test_what_lava_does_not_run_can_be_refused(path: Path) -> None:
    """For a Lava run, pool layers are refused by name, with what to do."""
    for layers, message in (
        (
            [IMAGE, POOL | {"shape": [1, 2, 2]}],
            "layer/1/type: lava-dl's loader runs no pool layer; write the file",
        ),
    ):
        netx.read(foreign(path, *layers))
        with pytest.raises(NetworkError, match=rf"net\.net: {message}.* --backend fast$"):
            netx.read(path, for_lava=True)


def test_delays_of_conv_layers_are_dropped(path: Path) -> None:
    """lava-dl drops them, so they are not read, and a warning says so."""
    with pytest.warns(netx.NetxWarning, match="layer/1/delay: lava-dl drops the delays"):
        netx.read(foreign(path, IMAGE, CONV | {"delay": [1, 2]}))


def test_decays_and_thresholds_of_each_neuron(path: Path) -> None:
    """Different ones a neuron or, in maps, a channel are arrays, (W, H, C) in the file; equal ones are one number."""
    each = np.array([[[1], [2]], [[3], [4]]])
    fields = {"neuron/vThMant": [80, 90], "neuron/iDecay": each.transpose(2, 1, 0), "neuron/vDecay": [7, 7]}
    neuron = netx.read(foreign(path, IMAGE, CONV | fields)).layers[0].neuron
    assert neuron is not None
    np.testing.assert_array_equal(neuron.threshold, [80, 90])
    np.testing.assert_array_equal(neuron.current_decay, each)
    assert neuron.voltage_decay == 7


def test_numbers_of_the_groups(path: Path) -> None:
    """A network knows the number of each layer's group, with an input entry in the file or without."""
    assert list(netx.read(foreign(path, IMAGE, CONV)).numbers) == [1]
    assert list(netx.read(foreign(path, CONV), in_shape=(1, 3, 3)).numbers) == [0]
    netx.write(small(), path)
    assert netx.read(path).numbers == small().numbers == (1, 2, 3)


def sigma_delta(path: Path, *layers: dict[str, Any]) -> Path:
    return foreign(path, *({k: v for k, v in layer.items() if v is not None} for layer in layers))


def test_sigma_delta_files_are_read(path: Path) -> None:
    """Input, threshold, bias and sums at the end; the readout is what the last layer has added up."""
    network = netx.read(
        sigma_delta(
            path,
            IMAGE,
            CONV | SDNN | {"bias": [5.0, -40000.0], "neuron/activation": "relu"},
            {"type": "flatten", "shape": [4, 1, 1]},
            DENSE | SDNN | {"weight": np.full((2, 4), 2), "neuron/sigma_output": False},  # its value says nothing
        )
    )
    first, _, last = network.layers
    assert isinstance(first.neuron, SigmaDelta)
    assert (first.neuron.threshold, first.neuron.spike_exponent, first.neuron.state_exponent) == (3, 6, 6)
    assert first.neuron.bias is not None
    assert first.neuron.bias.tolist() == [5, -40000]
    assert isinstance(last.neuron, Sigma)
    assert (network.readout, network.graded, network.states) == ("voltage", True, ("sigma", "act", "residue"))
    network = netx.read(sigma_delta(path, DENSE | SDNN))
    assert (network.readout, network.encoder) == ("count", None)


def test_what_lava_makes_of_sigma_delta_fields_is_said(path: Path) -> None:
    """Lava's 32 bits keep 20 of a bias and a threshold, and the loader knows one activation."""
    layer = DENSE | SDNN | {"bias": [1 << 19, 1], "neuron/activation": "identity", "neuron/vThMant": (1 << 20) + 5}
    layer |= {"neuron/weight_exp": 2}
    with pytest.warns(netx.NetxWarning) as caught:
        neuron = netx.read(sigma_delta(path, layer)).layers[0].neuron
    assert isinstance(neuron, SigmaDelta)
    assert (neuron.threshold, neuron.bias.tolist()) == (5, [-(1 << 19), 1])  # type: ignore[union-attr]
    texts = " | ".join(str(each.message) for each in caught)
    for part in ("bias: lava-dl makes 524288 -524288", "vThMant: lava-dl makes 1048581 5", "always computes relu"):
        assert part in texts
    assert "neuron/weight_exp: lava-dl does not read the weight exponent of a norm" in texts


def test_sigma_delta_networks_that_no_file_holds(tmp_path: Path) -> None:
    """Exponents, thresholds and biases that NetX cannot state: the layer, the value, what is allowed."""
    layer = Dense(in_shape=(1,), shape=(2,), weight=np.array([[2], [4]]))
    cases = (
        (SigmaDelta(1, spike_exponent=0), "spike exponent 0 is not an integer in 6..6; lava-dl's loader gives no"),
        (SigmaDelta(-1), "threshold -1 is not an integer in 0..131071"),
        (SigmaDelta(1, np.array([0, 40000])), "bias 40000 is not an integer in -32768..32767"),
    )
    for neuron, message in cases:
        with pytest.raises(NetworkError, match=f"layer 1 \\(dense1\\): {message}"):
            netx.write(Network((replace(layer, neuron=neuron),)), tmp_path / "a.net")
    with pytest.raises(NetworkError, match="layer dense1: sigma-delta neurons add up what comes without a bound known"):
        netx.check_input_range(Network((replace(layer, neuron=SigmaDelta(1)),)), 1)


def test_sigma_delta_blocks_of_slayer_are_read(path: Path) -> None:
    """What SLAYER's own blocks write: an input, a convolution, a flatten, a dense layer, sums."""
    import torch
    from lava.lib.dl.slayer.block import sigma_delta as block

    torch.manual_seed(1)
    neuron = {"threshold": 0.1, "activation": torch.nn.functional.relu}
    blocks = torch.nn.ModuleList(
        [
            block.Input(neuron),
            block.Conv(neuron, 2, 3, 3, stride=2, weight_scale=2),
            block.Flatten(),
            block.Dense(neuron, 12, 5, weight_scale=2),
            block.Output(neuron, 5, 2, weight_scale=2),
        ]
    )
    signal = torch.rand(1, 2, 5, 6, 7)
    for each in blocks:
        signal = each(signal)
    with h5py.File(path, "w") as file:
        for number, each in enumerate(blocks):
            each.export_hdf5(file.create_group(f"layer/{number}"))
    with pytest.warns(netx.NetxWarning, match="the input is the messages that enter the first synapse"):
        network = netx.read(path)
    assert [type(layer.neuron) for layer in network] == [SigmaDelta, type(None), SigmaDelta, Sigma]
    assert network.encoder is not None
    assert isinstance(network.encoder.neuron, SigmaDelta)
    assert network.encoder.neuron.threshold == 6  # 0.1 of 64


def test_pool_and_average_are_read(path: Path) -> None:
    """What lava-dl refuses: a pool is a conv layer with a group a channel, an average sums up at the end."""
    image = {"type": "input", "shape": [2, 5, 4]}
    pool = POOL | {"shape": [2, 3, 2], "weight": np.full((1, 1, 2, 2), 6.0)}
    network = netx.read(foreign(path, image, pool, {"type": "average", "shape": [4, 1, 1]}))
    first, last = network.layers
    assert isinstance(first, Conv)
    assert isinstance(last, Average)
    assert (first.groups, first.shape, first.padding) == (2, (2, 3, 2), (1, 0))
    assert (last.in_shape, last.shape) == ((2, 3, 2), (4,))
    # The last row of five has no partner: SLAYER appends one of zeros.
    assert first.weight is not None
    np.testing.assert_array_equal(first.weight[1, 0], [[0, 0], [6, 6], [6, 6]])


def test_pool_is_slayers(path: Path) -> None:
    """A pool that SLAYER wrote spikes as SLAYER's own, with maps that the kernel divides and others."""
    import reference
    import torch
    from lava.lib.dl import slayer

    torch.manual_seed(1)
    parameters = {"threshold": 1.0, "current_decay": 0.3, "voltage_decay": 0.1, "scale": 1 << 6}
    spikes = (torch.rand(2, 3, 5, 6, 12) < 0.5).float()
    block = slayer.block.cuba.Pool(dict(parameters), 2, weight_scale=0.5, delay_shift=False)
    with torch.no_grad():
        expected = block(spikes).numpy()
    with h5py.File(path, "w") as file:
        block.export_hdf5(file.create_group("layer/0"))
    network = netx.read(path, in_shape=(3, 5, 6))
    assert network.shape == (3, 3, 3)
    result = reference.simulate(network, spikes.numpy().astype(int))
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(result[0]["spikes"], expected)


@pytest.mark.parametrize("kind", ["recurrent", "mean-only norm"])
def test_where_slayer_itself_differs(kind: str, path: Path) -> None:
    """SLAYER's recurrent state and batch means make its spikes others, and the same where the warning says so."""
    import reference
    import torch
    from lava.lib.dl import slayer

    torch.manual_seed(1)
    cuba = {"threshold": 1.0, "current_decay": 0.25, "voltage_decay": 0.03, "scale": 1 << 6}
    spikes = (torch.rand(4, 6, 40) < 0.3).float()
    with torch.no_grad():
        if kind == "recurrent":
            block = slayer.block.cuba.Recurrent(cuba, 6, 5, weight_scale=3, delay_shift=False).eval()
            same, other = block(spikes), block(spikes)
        else:
            cuba["norm"] = slayer.neuron.norm.MeanOnlyBatchNorm
            block = slayer.block.cuba.Dense(cuba, 6, 5, weight_scale=3, delay_shift=False)
            other, same = block(spikes), block.eval()(spikes)
    with h5py.File(path, "w") as file:
        block.export_hdf5(file.create_group("layer/0"))
    with pytest.warns(netx.NetxWarning, match=r"only the first call|only after eval\(\)"):
        network = netx.read(path)
    ours = reference.simulate(network, spikes.numpy().astype(int))[-1]["spikes"]
    assert 0 < ours.mean() < 1
    np.testing.assert_array_equal(ours, same.numpy())
    assert (ours != other.numpy()).any()


def test_a_pool_written_anew_is_a_convolution_that_lava_runs(path: Path) -> None:
    """What the refusal advises: the file written from what was read has the same layers, and Lava's loader takes it."""
    network = netx.read(foreign(path, {"type": "input", "shape": [2, 5, 4]}, POOL | {"shape": [2, 3, 2]}))
    netx.write(network, path)
    assert_same(netx.read(path, for_lava=True), network)


# ---------------------------------------------------------------------------------------------- what cannot be read


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([{"type": "input"}], "holds no layer but the input"),
        ([IMAGE | {"neuron/type": "LOIHI"}, CONV], "layer/0/neuron/vThMant: is missing"),
        ([IMAGE | NEURON | {"weight": [1, 2]}, CONV], "layer/0/weight: is more than one number, .* loader fails"),
        ([IMAGE | NEURON, IMAGE | NEURON, CONV], "layer/1/neuron: lava-dl connects nothing to an input with neurons"),
        ([IMAGE | {"shape": [3, 3]}, CONV], r"layer/1: layer conv1: input shape \(3, 3\) is neither"),
        ([DENSE, {"type": "input", "shape": [2], **NEURON}, SQUARE], "layer/1/neuron: lava-dl connects nothing to"),
        ([{"type": "foo"}, DENSE], "layer/0/type: layer type 'foo' cannot be represented"),
        ([DENSE, {"type": "dense_comp"}], "layer/1/type: layer type 'dense_comp' cannot be represented"),
        ([DENSE, {"type": "flatten"}, SQUARE], "layer/1/type: what it should flatten is flat"),
        ([IMAGE, {"type": "convT"}], "layer/1/type: layer type 'convT' cannot be represented; conv, .*, average can"),
        ([IMAGE, {"type": "average", "shape": [2]}], r"cannot average 9 inputs into \(2,\)"),
        ([IMAGE, {"type": "average", "shape": [3]}, DENSE], "layer/2/type: nothing can follow an average"),
        ([{"type": "average", "shape": [3]}], "layer/0/type: the file does not state the shape"),
        ([POOL], r"layer/0/type: the file does not state the shape of its input; give --in-shape"),
        ([IMAGE, POOL | {"delay": 1}], "layer/1/delay: delays of a pool layer"),
        ([IMAGE, POOL | {"weight": [1, 2, 3]}], r"weight: has shape \(3,\), not the kernel's, \(2, 2\)"),
        ([IMAGE, POOL | {"shape": [1, 3, 3]}], r"layer/1: layer pool1: gives \(1, 2, 2\), not the shape \(1, 3, 3\)"),
        ([IMAGE | SDNN, CONV], "input neurons are sigma-delta, and the others spiking: give all one kind"),
        ([IMAGE | NEURON, CONV | SDNN], "input neurons are spiking, and the others sigma-delta: give all one kind"),
        ([DENSE, SQUARE | SDNN], "layer dense0: has spiking neurons, and others are sigma-delta"),
        ([RECURRENT | SDNN], "layer dense_rec0: has recurrent weights, which sigma-delta neurons do not run with"),
        ([DENSE | SDNN | {"delay": 1}], "layer dense0: has delays, which sigma-delta neurons do not run with"),
        ([DENSE | SDNN | {"neuron/vThMant": [1, 2]}], r"layer/0/neuron/vThMant: has shape \(2,\); sigma-delta neurons"),
        ([DENSE | SDNN | {"neuron/vThMant": None}], "layer/0/neuron/vThMant: is missing"),
        ([DENSE | SDNN | {"neuron/messageBits": 16}], "layer/0/neuron/messageBits: message bits do not run"),
        ([IMAGE | SDNN | {"neuron/messageBits": 16}, CONV | SDNN], "layer/0/neuron/messageBits: message bits do not"),
        ([DENSE | SDNN | {"neuron/sigma_output": True, "bias": [1, 2]}], "layer/0/bias: a layer with sigma output has"),
        ([IMAGE, POOL | SDNN], "layer/1/neuron/type: a pool with sigma-delta neurons cannot be represented"),
        ([DENSE | {"neuron/type": "RF_PHASE"}], "'RF_PHASE' cannot .* loader fails on it too without complex weights"),
        ([DENSE | {"neuron/type": "ALIF"}], "'ALIF' cannot be .*, and lava-dl's loader fails on it too$"),
        ([CONV | {"neuron/type": "foo"}], "layer/0/type: the file does not state"),
        ([DENSE | {"type": 3}], "layer/0/type: holds 3, not a text"),
        ([DENSE | {"neuron/messageBits": 0}], "layer/0/neuron/messageBits: message bits do not run"),
        ([DENSE | {"neuron/iDecay": [1, 2, 3]}], r"layer/0/neuron/iDecay: has shape \(3,\), not one .* \(2,\)"),
        ([DENSE | {"neuron/vThMant": [1.0, 2.0]}], "layer/0/neuron/vThMant: holds float64, not integers"),
        ([DENSE | {"neuron/iDecay": 4097}], r"iDecay: is 4097, not in 0\.\.4096"),
        ([DENSE | {"neuron/iDecay": -1}], "iDecay: is -1"),
        ([DENSE | {"weight": np.ones((2, 3)) / 3}], "layer/0/weight: all weights are 0, or were cut to 0"),
        ([DENSE | {"weight": np.full((2, 3), np.nan)}], "weight: holds nan"),
        ([DENSE | {"weight": np.full((2, 3), 2.0**40)}], "weight: holds a number beyond 32 bits"),
        ([DENSE | {"weight": np.ones((3, 3))}], r"weight: has shape \(3, 3\), not \(2, inputs\)"),
        ([DENSE | {"weight": np.ones(7)}], r"weight: has shape \(7,\)"),
        ([DENSE | {"weight": np.zeros((2, 3))}], "weight: all weights are 0"),
        ([DENSE | {"weight": np.array([[-1, 0, 0], [0, 0, 0]])}], "weight: Lava clips the weights to fractions"),
        ([DENSE | {"weight": np.ones((0, 3))}], r"weight: has shape \(0, 3\), so no values"),
        ([DENSE | {"weight": "many"}], "weight: holds .*, not numbers"),
        ([DENSE | {"weight": None, "weight/real": 1, "weight/imag": 1}], "complex weights, .* cannot be"),
        ([DENSE | {"bias": [1, 2, 3]}], r"bias: has shape \(3,\)"),
        ([DENSE | {"delay": [1, 2, 3, 4]}], r"delay: has shape \(4,\), which does not fit"),
        ([DENSE | {"delay": -1}], "delay: holds -1"),
        ([RECURRENT | {"weight": np.ones((2, 3)), "delay": 1}], "layer/0/delay: .* 2 x 2 recurrent synapses .* fails"),
        ([RECURRENT | {"weight_rec": np.ones(4)}], r"weight_rec: has shape \(4,\)"),
        ([DENSE | {"type": "dense_rec"}], "layer/0/weight_rec: is missing"),
        ([IMAGE, CONV, DENSE], "layer/2: layer dense2: takes a flat input, .* put a flatten layer before it"),
        ([IMAGE, CONV | {"shape": [2, 2, 2]}], r"layer/1: layer conv1: gives \(2, 2, 1\), not the shape \(2, 2, 2\)"),
        ([IMAGE, CONV | {"weight": np.ones((2, 1, 2))}], r"weight: has shape \(2, 1, 2\)"),
        ([IMAGE, CONV | {"stride": [1, 2, 3]}], r"stride: is \[1, 2, 3\], not one or two"),
        ([IMAGE, CONV | {"stride": 0}], "stride: is 0, not"),
        ([IMAGE, CONV | {"stride": [1]}], r"stride: is \[1\], not one or two"),
        ([IMAGE, CONV | {"stride": 1.0}], "stride: holds float64, not integers"),
        ([IMAGE, CONV | {"groups": [1]}], r"groups: has shape \(1,\)"),
        ([IMAGE, CONV | {"bias": 1}], r"bias: has shape \(\), and lava-dl takes \(2,\) or \(1, 2, 2\)"),
        ([IMAGE, CONV | {"groups": 128}], r"groups: is 128, not in 1\.\.127"),
        ([IMAGE, CONV | {"bias": [1, 2, 3]}], r"bias: has shape \(3,\)"),
        ([IMAGE, {k: v for k, v in CONV.items() if k != "neuron/vThMant"}], "layer/1/neuron/vThMant: is missing"),
    ],
)
def test_what_cannot_be_represented_is_named(layers: list[dict[str, Any]], message: str, path: Path) -> None:
    """One line names the file, the layer, the field, the value and what is possible."""
    layers = [{field: value for field, value in layer.items() if value is not None} for layer in layers]
    with pytest.raises(NetworkError, match=message) as caught:
        netx.read(foreign(path, *layers))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_every_missing_field_is_named(path: Path) -> None:
    """Whatever field that lava-dl reads is taken from a file, the message names it."""
    needed = ["type", "shape", "weight", "neuron/type", "neuron/iDecay", "neuron/vDecay", "neuron/vThMant"]
    for field in [*needed, "stride", "padding", "dilation", "groups"]:
        with pytest.raises(NetworkError, match=f"layer/1/{field}: is missing"):
            netx.read(written(small(), path, {f"layer/1/{field}": None}))


def test_what_is_no_netx_file(tmp_path: Path) -> None:
    """A missing, empty, foreign or truncated file, a folder, a gap in the layers: one line each."""
    good = written(small(), tmp_path / "good.net")
    bad = tmp_path / "bad.net"
    with pytest.raises(NetworkError, match=r"bad\.net: no such file"):
        netx.read(bad)
    with pytest.raises(NetworkError, match="not a readable HDF5 file"):
        netx.read(tmp_path)
    for content in (b"", b"{}", b"\x89HDF\r\n\x1a\n"):
        bad.write_bytes(content)
        with pytest.raises(NetworkError, match="not a readable HDF5 file"):
            netx.read(bad)
    bad.write_bytes(good.read_bytes()[:-1000])
    with pytest.raises(NetworkError, match="is damaged: its digest is not that of its content"):
        netx.read(bad)
    with h5py.File(bad, "w") as file:
        file["weights"] = 3
    with pytest.raises(NetworkError, match="no group 'layer'"):
        netx.read(bad)
    with edited(good) as file:
        del file["layer/2"]
    with pytest.raises(NetworkError, match=r"group layer/2 is missing; layers are numbered 0\.\.2"):
        netx.read(good)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damage_never_passes_as_another_error(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A file cut short, or with bytes overwritten, reads as a network or gives one line."""
    path = tmp_path_factory.getbasetemp() / "damaged.net"
    netx.write(small(info={"model": "small"}), path)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    else:
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with contextlib.suppress(NetworkError):
        netx.read(path)


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("format_version", 4, "format version 4 is newer than 3, .* update"),
        ("format_version", "one", "format_version is 'one', not a positive integer"),
        ("readout", "argmax", "readout 'argmax' is neither"),
        ("info", "{", "attribute info is not a JSON object"),
        ("info", "[]", "attribute info is not a JSON object"),
        ("info", '{"time_steps": "16"}', "attribute info: time_steps is '16', not an integer from 1 on"),
        ("info", '{"input_max": [1, 2]}', r"attribute info: input_max is \[1, 2\], not an integer from 1 on"),
        ("info", '{"profile": 2}', "attribute info: profile is 2, not a text"),
        ("info", "[" * 30000, "attribute info is not a JSON object"),
    ],
)
def test_attributes_that_cannot_be(attribute: str, value: Any, message: str, path: Path) -> None:
    """Our own attributes are checked, and a newer version of the format is not guessed at."""
    written(small(), path)
    with edited(path) as file:
        file.attrs[attribute] = value
    with pytest.raises(NetworkError, match=message):
        netx.read(path)


def test_input_shape_asked_for_must_be_the_files(path: Path) -> None:
    """in_shape is checked against a file that states its input's shape."""
    written(small(), path)
    assert netx.read(path, in_shape=(1, 5, 4)).in_shape == (1, 5, 4)
    with pytest.raises(NetworkError, match=r"is \(1, 5, 4\), but the input shape asked for is \(1, 4, 5\)"):
        netx.read(path, in_shape=(1, 4, 5))


# ---------------------------------------------------------------------------------------------- against Lava itself

POINT = CONV | {"weight": np.full((2, 2, 1, 1), 40.5)}
FLATTEN = {"type": "flatten"}
UNUSUAL: dict[str, tuple[dict[str, Any], ...]] = {
    "late recurrence": (RECURRENT | {"delay": [[1.5, 2], [3, 99]], "neuron/vThMant": [500, 90]}, SQUARE),
    "late recurrence, no positive weight": (
        RECURRENT | {"weight": [[-2, 0], [-4, -4]], "weight_rec": [[-64, 0], [0, -2]], "bias": 3, "delay": 1},
    ),
    "entries in between": (
        *(IMAGE, FLATTEN, CONV, {"type": "input", "shape": [9]}, {"type": "foo"}),
        *(POINT | {"bias": np.array([40000.7, -3])}, FLATTEN, {"type": "input"}, DENSE | {"weight": np.full(8, 30.0)}),
        *({"type": "input"}, SQUARE | {"neuron/vThMant": -3}, FLATTEN),
    ),
    "another input than stated": (IMAGE, FLATTEN, DENSE | {"neuron/vThMant": np.array([1, 2000], np.int16)}),
    "values spread over maps": (
        IMAGE,
        CONV | {"neuron/vThMant": [[1, 90], [30, 5]], "neuron/iDecay": [[[1, 90]]], "bias": [[5], [90]]},
        FLATTEN,
    ),
    "clipped": (DENSE | {"weight": np.array([[300, -300, 2], [2, 4, 6]])},),
    "average": (IMAGE, CONV, {"type": "average", "shape": [2, 1, 1]}),
    "input neurons": (*({"type": "input"}, IMAGE | NEURON, CONV, FLATTEN), DENSE | {"weight": np.full(8, 30.0)}),
    "no neuron": ({field: value for field, value in DENSE.items() if not field.startswith("neuron")},),
}


@pytest.mark.lava
@pytest.mark.filterwarnings("ignore::netx_export.netx.NetxWarning")
def test_unusual_files_run_as_they_are_read(tmp_path: Path) -> None:
    """Spikes, u and v of what lava-dl's loader makes of them are those of the network read."""
    rng = np.random.default_rng(0)
    runs = []
    for name, layers in UNUSUAL.items():
        path = foreign(tmp_path / f"{name}.net", *layers)
        runs.append((path, rng.integers(0, 2, (3, *netx.read(path).in_shape, 7))))
    everything = ("spikes", "u", "v")
    for (path, inputs), lavas in zip(
        runs, lava_backend.simulate_each(runs, record=everything, progress=False), strict=True
    ):
        ours = fast_backend.simulate(path, inputs, record=everything, progress=False, device="cpu")
        assert list(ours.record.values())[-2].any(), path  # u of the last layer
        np.testing.assert_array_equal(ours.spikes, lavas.spikes, err_msg=path.name)
        np.testing.assert_array_equal(ours.readout, lavas.readout, err_msg=path.name)
        assert ours.record.keys() == lavas.record.keys()
        for record in ours.record:
            np.testing.assert_array_equal(ours.record[record], lavas.record[record], err_msg=f"{path.name} {record}")


ENCODING: dict[str, tuple[dict[str, Any], ...]] = {
    "maps": (IMAGE | NEURON | {"weight": 3, "bias": [4.0], "neuron/vThMant": np.arange(9).reshape(3, 3, 1)}, CONV),
    "channels": (
        {"type": "input", "shape": [2, 2, 3], **NEURON, "neuron/vThMant": [3, 9], "neuron/vDecay": [0, 4096]},
        FLATTEN,
        DENSE | {"weight": np.arange(24.0).reshape(2, 12)},
        {"type": "average", "shape": [1]},
    ),
    "flat": ({"type": "input"}, {"type": "input", "shape": [3], **NEURON}, DENSE),
}


def encoded_by_reference(network: Network, values: np.ndarray) -> np.ndarray:
    """Input neurons by the plain reading of the neuron's rule, with the values as their bias."""
    import reference

    assert network.encoder is not None
    spikes = np.zeros_like(values)
    for sample, step in np.ndindex(len(values), values.shape[-1]):
        if step == 0:
            u = v = np.zeros(network.in_shape, np.int64)
        neuron = replace(network.encoder.neuron, bias=values[sample, ..., step])
        layer = Layer(in_shape=network.in_shape, shape=network.in_shape, neuron=neuron)
        u, v, spikes[sample, ..., step], *_ = reference.neuron_step(layer, u, v, np.zeros_like(u))
    return spikes


@pytest.mark.lava
@pytest.mark.parametrize("stock", [False, True], ids=["sparse", "stock"])
def test_input_neurons_run_on_values(stock: bool, tmp_path: Path) -> None:
    """Values are the input neurons' biases in every step; spikes, u and v behind them are those of the NumPy rule."""
    rng = np.random.default_rng(3)
    paths = [foreign(tmp_path / f"{name}.net", *layers) for name, layers in ENCODING.items()]
    with pytest.warns(netx.NetxWarning, match=r"/neuron: the input is the spikes .* give --encode"):
        networks = [netx.read(path) for path in paths]
    runs = [
        (path, rng.integers(-9, 60, (3, *network.in_shape, 7)) * rng.choice([1, 68], (3, *network.in_shape, 7)))
        for path, network in zip(paths, networks, strict=True)
    ]
    everything = ("spikes", "u", "v")
    lavas = lava_backend.simulate_each(runs, record=everything, progress=False, encode=True, stock=stock)
    for (path, values), network, lava in zip(runs, networks, lavas, strict=True):
        spikes = encoded_by_reference(network, values)
        assert 0.1 < spikes.mean() < 0.9
        options: dict[str, Any] = {"record": everything, "progress": False, "device": "cpu"}
        ours = fast_backend.simulate(path, values, encode=True, **options)
        fed = fast_backend.simulate(network, spikes, **options)
        assert ours.spikes.any()
        for other in (fed, lava):
            np.testing.assert_array_equal(ours.spikes, other.spikes, err_msg=path.name)
            np.testing.assert_array_equal(ours.readout, other.readout, err_msg=path.name)
            assert ours.record.keys() == other.record.keys()
            for record in ours.record:
                np.testing.assert_array_equal(ours.record[record], other.record[record], err_msg=f"{path} {record}")
        assert fed.limits == ours.limits == (ours.limits if stock else lava.limits)


def test_values_and_spikes_are_not_mixed_up(path: Path) -> None:
    """Values without --encode, --encode without input neurons, values beyond 13 bits: refused, with the remedy."""
    foreign(path, {"type": "input", "shape": [3], **NEURON}, DENSE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", netx.NetxWarning)
        network = netx.read(path)
    values = np.full((1, 3, 4), 2)
    for refused, options, message in (
        (network, {}, r"holds values 2\.\.2; .* takes spikes, 0 and 1, behind its input neurons; .* give --encode"),
        (network, {"encode": True, "inputs": values * 2048}, r"holds values 4096\.\.4096; .* are -4096\.\.4095"),
        (replace(network, encoder=None), {"encode": True}, "has no input neurons to run on values; leave --encode out"),
    ):
        with pytest.raises(NetworkError, match=message):
            fast_backend.simulate(refused, **({"inputs": values, "progress": False} | options))
    with pytest.raises(NetworkError, match="input neurons are not written"):
        netx.write(network, path)
    foreign(path, {"type": "input", "shape": [4], **NEURON}, DENSE)
    with pytest.raises(NetworkError, match=r"layer/0/shape: input neurons \(4,\) do not fit the first layer's"):
        netx.read(path, encode=True)


ATTEMPT = """
import os, sys, traceback
import numpy as np
from netx_export.lava import child as lava_child
lava_child.load()
from lava.lib.dl import netx
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.io.source import RingBuffer

def attempt(path):
    network = netx.hdf5.Network(path, reset_interval=4, reset_offset=1)
    source = RingBuffer(data=np.ones((*network.inp.shape, 4)))
    source.s_out.connect(network.inp)
    network.run(condition=RunSteps(num_steps=4), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
    ran = [isinstance(layer.neuron.v.get(), np.ndarray) for layer in network.layers]  # else it is the initial 0
    network.stop()
    return "ran" if all(ran) else "ran a part"

for path in sys.argv[2:]:
    sys.stdout.flush()
    if os.fork() == 0:
        os.setpgid(0, 0)
        lava_child._name_shared_memory(sys.argv[1])
        try:
            said = attempt(path)
        except BaseException as error:
            said = type(error).__name__
        print("ATTEMPT", said, flush=True)
        os.kill(0, 9)
    process, _ = os.wait()
    lava_child.kill_group(process)
    lava_child.remove_shared_memory(sys.argv[1])
"""
FAILING = [
    ((POOL,), "NotImplementedError"),
    (({"type": "average", "shape": [1]},), "NotImplementedError"),
    ((DENSE, {"type": "concat"}), "NotImplementedError"),
    ((DENSE, {"type": "convT"}), "NotImplementedError"),
    ((DENSE, {"type": "unpool"}), "NotImplementedError"),
    ((DENSE, {"type": "dense_comp"}), "AttributeError"),
    (({"type": "foo"}, DENSE), "UnboundLocalError"),
    # What comes in between is not connected to what was before, and Lava leaves out one side.
    ((DENSE, {"type": "input", "shape": [2], **NEURON}, SQUARE), "ran a part"),
    ((DENSE, FLATTEN, SQUARE), "TransposeShapeError"),
    ((IMAGE, CONV, DENSE | {"weight": np.ones((2, 4))}), "AssertionError"),
    ((DENSE | {"neuron/messageBits": 0},), "TypeError"),
    ((DENSE | {"weight": np.zeros((2, 3))},), "OverflowError"),
    ((DENSE | {"weight": np.ones((3, 3))},), "RuntimeError"),
    ((DENSE | {"weight": np.ones((2, 3, 1))},), "ValueError"),
    ((DENSE | {"delay": -1},), "ValueError"),
    ((DENSE | {"delay": [1]},), "RuntimeError"),
    ((RECURRENT | {"weight": np.ones((2, 3)), "delay": 1},), "ValueError"),
    ((RECURRENT | {"weight_rec": np.ones(4)},), "ValueError"),
    ((DENSE | {"bias": [1, 2, 3]},), "ValueError"),
    ((DENSE | {"neuron/vThMant": 80.0},), "RuntimeError"),
    ((DENSE | {"neuron/iDecay": 80.0},), "RuntimeError"),
    ((DENSE | {"neuron/iDecay": [1, 2, 3]},), "RuntimeError"),
    ((DENSE | {"neuron/vThMant": [[1]]},), "RuntimeError"),
    ((DENSE | {"shape": [2.0]},), "ValueError"),
    ((IMAGE | {"shape": [3, 3]}, CONV), "ValueError"),
    ((IMAGE, CONV | {"stride": 1.0}), "ValueError"),
    ((IMAGE, CONV | {"stride": [1]}), "IndexError"),
    ((IMAGE, CONV | {"groups": [1]}), "IndexError"),
    ((IMAGE, CONV | {"groups": 1.0}), "ValueError"),
    ((IMAGE, CONV | {"bias": 1}), "IndexError"),
    ((IMAGE, CONV | {"bias": [1, 2, 3]}), "RuntimeError"),
    ((IMAGE, CONV | {"bias": np.ones((1, 1, 2))}), "RuntimeError"),
    ((IMAGE, {k: v for k, v in CONV.items() if not k.startswith("neuron")}), "KeyError"),
]


@pytest.mark.lava
@pytest.mark.filterwarnings("ignore::netx_export.netx.NetxWarning")
def test_what_is_refused_fails_in_lava(tmp_path: Path) -> None:
    """Files that cannot be read, or not for Lava, do not run in Lava either, or not with all of their layers."""
    paths = [foreign(tmp_path / f"{number}.net", *layers) for number, (layers, _) in enumerate(FAILING)]
    for path in paths:
        with pytest.raises(NetworkError):
            netx.read(path, for_lava=True)
    done = in_lava(ATTEMPT, f"netx-{secrets.token_hex(6)}", *map(str, paths))
    said = [line.partition("ATTEMPT ")[2] for line in done.stdout.splitlines() if "ATTEMPT " in line]
    assert said == [expected for _, expected in FAILING], done.stderr


# ---------------------------------------------------------------------------------------------- document and table


def test_every_field_is_documented(path: Path) -> None:
    """FORMAT.md lists exactly the fields and attributes that files hold."""
    full = dense([[2, 2, 2]], recurrent=np.array([[2]]))
    delayed = dense([[2]], delay=np.array([[1]]))
    network = small()
    network = replace(network, layers=(*network.layers, full, delayed))
    found = set()

    def visit(name: str, item: Any) -> None:
        name = re.sub(r"^(layer|graph)/\d+", r"\1/N", name)
        if name.partition("graph/N/")[2] not in ("inputs", "delay_rec"):
            name = name.replace("graph/N", "layer/N")
        if isinstance(item, h5py.Dataset):
            found.add(name)
        found.update(f"{name}@{attribute}" for attribute in item.attrs)

    clockless = Network((replace(full, recurrent=None),), reset="subtract")
    graph = Network((replace(full, recurrent_delay=np.array([[1]])), dense([[2]], neuron=None)))
    values = Network((dense([[2]], SigmaDelta(1)), dense([[2]], Sigma())))
    for written_network in (network, clockless, wide(517, **WIDE), graph, values):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", netx.NetxWarning)  # the last one is wide
            netx.write(written_network, path)
        with h5py.File(path) as file:
            found.update(f"@{attribute}" for attribute in file.attrs)
            file.visititems(visit)
    text = (Path(netx.__file__).parents[1] / "FORMAT.md").read_text()
    assert set(re.findall(r"^\| `([^`]+)` \|", text, flags=re.MULTILINE)) == found


def test_layer_table() -> None:
    """One line a layer, and the total; bits count the sign and not the lowest bit, which is always 0."""
    lines = netx.layer_table(small()).splitlines()
    assert lines[0].split("  ")[0] == "layer"
    assert [line.split() for line in lines[1:]] == [
        ["first", "conv", "2x3x4", "18", "5", "100", "-12", "..", "22"],
        ["flat", "flatten", "24", "0"],
        ["last", "dense", "3", "72", "7", "131071", "-60", "..", "82"],
        ["total", "90"],
    ]
    full = Network((dense([[254, -256]]), dense([[3]], recurrent=np.array([[-5]]))))
    assert [line.split()[4] for line in netx.layer_table(full).splitlines()[1:3]] == ["8", "4"]
