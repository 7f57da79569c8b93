"""NetX files that others published: they run alike on every backend, and spike as was recorded with them."""

from __future__ import annotations

import json
import re
import sysconfig
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from netx_files import in_lava

from mtt_lava.cli import main
from netx_export import netx
from netx_export.fast import backend as fast_backend
from netx_export.lava import backend as lava_backend
from netx_export.network import AnyNeuron, Conv, Dense, Encoder, Network, Sigma, SigmaDelta
from netx_export.simulation import Simulation, encoded, simulate

SHIPPED = Path(sysconfig.get_paths()["purelib"]) / "tests/lava/lib/dl/netx"
"""Test files that the lava-dl package installs."""
CASES = Path(__file__).parents[2] / "shared/cases"
FILES = ("tiny.net", "mnist.net", "gts/pilotnet_lif/network.net", "gts/ntidigits/ntidigits.net")
SIGMA_DELTA = ("gts/pilotnet_sdnn/network.net", "gts/pilotnet_sdnn/square_network.net")
EVERYTHING = ("spikes", "u", "v")
VALUES = ("spikes", "sigma", "act", "residue")

pytestmark = pytest.mark.filterwarnings("ignore::netx_export.netx.NetxWarning")


def shipped(name: str) -> Path:
    if not (SHIPPED / name).exists():
        pytest.skip(f"this lava-dl package has no {name}")
    return SHIPPED / name


def published(name: str) -> np.ndarray:
    """An array, Lava's (W, H, C, ...) turned round to (C, H, W, ...) by the caller."""
    array: np.ndarray = np.load(shipped(name))
    return array.astype(np.int64)


def assert_alike(one: Simulation, other: Simulation) -> None:
    np.testing.assert_array_equal(one.spikes, other.spikes)
    np.testing.assert_array_equal(one.readout, other.readout)
    assert one.record.keys() == other.record.keys()
    for name, array in one.record.items():
        np.testing.assert_array_equal(array, other.record[name], err_msg=name)
    assert one.limits == other.limits


def test_tiny_spikes_as_published() -> None:
    """lava-dl's own test: values as the input neurons' biases; input spikes and output are those recorded."""
    path = shipped("tiny.net")
    bias = published("gts/tinynet/input_bias.npy").transpose(2, 1, 0)
    values = np.repeat(bias[None, ..., None], 16, axis=-1)
    given = published("gts/tinynet/input.npy")
    np.testing.assert_array_equal(encoded(netx.read(path), values)[..., :15], given[..., 1:])
    result = simulate(path, values, "fast", encode=True, progress=False)
    wanted = published("gts/tinynet/output.npy")
    assert wanted.any()
    np.testing.assert_array_equal(result.spikes[..., :15], wanted[..., 1:])


def test_pilotnet_spikes_as_published() -> None:
    """Input spikes, and u and spikes of every layer, are those recorded on Loihi; v too, where no neuron spiked."""
    path = shipped("gts/pilotnet_lif/network.net")
    image = published("gts/pilotnet_lif/image.npy").transpose(2, 1, 0)
    values = np.repeat(image[None, ..., None], 16, axis=-1)  # the recording was reset after 16 steps
    result = simulate(path, values, "fast", encode=True, record=EVERYTHING, progress=False)
    given = published("gts/pilotnet_lif/input-s.npy").transpose(2, 1, 0, 3)[..., :16]
    np.testing.assert_array_equal(encoded(netx.read(path), values)[0], given)
    spiked = simulate(path, given[None], "fast", record=EVERYTHING, progress=False)
    assert_alike(spiked, result)
    # What is published of the last layer is of another recording: it does not follow from the layer before.
    names = [*(f"conv-{i}" for i in range(5)), *(f"fc-{i}" for i in range(3))]
    layers = [*(f"conv{i}" for i in range(1, 6)), *(f"dense{i}" for i in range(7, 10))]
    for late, (layer, name) in enumerate(zip(layers, names, strict=True), start=1):
        ours = {what: result.record[f"{what}.{layer}"][0] for what in EVERYTHING}
        theirs = {}
        for what, ending in (("u", "-u"), ("v", "-v"), ("spikes", "")):
            array = published(f"gts/pilotnet_lif/{name}{ending}.npy")
            theirs[what] = array.transpose(*range(array.ndim - 2, -1, -1), array.ndim - 1)[..., late : late + 16]
        steps = theirs["u"].shape[-1]
        assert theirs["spikes"].any()
        for what in ("u", "spikes"):
            np.testing.assert_array_equal(ours[what][..., :steps], theirs[what], err_msg=f"{name} {what}")
        # The chip keeps a mark in v of a neuron that has just spiked.
        quiet = theirs["spikes"] == 0
        np.testing.assert_array_equal(ours["v"][..., :steps][quiet], theirs["v"][quiet], err_msg=name)


def test_ntidigits_spikes_as_published() -> None:
    """3,000 time steps through axonal delays: every output spike is the one recorded, four steps earlier."""
    path = shipped("gts/ntidigits/ntidigits.net")
    inputs = published("gts/ntidigits/input.npy")[None, None, None]
    wanted = published("gts/ntidigits/output.npy")
    result = simulate(path, inputs, "fast", record=("spikes",), progress=False)
    np.testing.assert_array_equal(result.record["spikes.dense4"][0][:, :-4], wanted[:, 4:])
    assert not wanted[:, :4].any()
    sums = wanted[:, 4:].reshape(11, 22, -1).sum(axis=1)
    np.testing.assert_array_equal(result.spikes[0][:, :-4], sums)


@pytest.mark.lava
@pytest.mark.parametrize("encode", [False, True], ids=["spikes", "values"])
def test_shipped_files_run_alike_on_lava(encode: bool) -> None:
    """Every CUBA and LOIHI file: spikes, u, v, readout and limits of `fast` are Lava's, on spikes and on values."""
    rng = np.random.default_rng(4)
    runs = []
    for path in map(shipped, FILES):
        network = netx.read(path)
        shape = (2, *network.in_shape, 30 if network.in_shape == (1, 1, 64) else 5)
        if not encode:
            runs.append((path, rng.integers(0, 2, shape)))
        elif network.encoder is not None:
            runs.append((path, rng.integers(-60, 150, shape)))
    assert len(runs) == (3 if encode else 4)
    results = lava_backend.simulate_each(runs, record=EVERYTHING, progress=False, encode=encode)
    for (path, inputs), lavas in zip(runs, results, strict=True):
        ours = simulate(path, inputs, "fast", record=EVERYTHING, progress=False, encode=encode)
        assert any(array.any() for name, array in ours.record.items() if name.startswith("spikes")), path
        assert_alike(ours, lavas)


def late(messages: np.ndarray) -> np.ndarray:
    """What synapses of Lava get in a time step: the messages of the one before."""
    return np.concatenate([np.zeros_like(messages[..., :1]), messages[..., :-1]], axis=-1)


def as_lava_starts(network: Network, messages: np.ndarray) -> dict[str, Simulation]:
    """Each layer by itself, all from the first time step of Lava on, as in recordings without resets.

    Lava, which resets no sigma-delta neurons, lets deep layers answer to their biases before any input reaches them.
    """
    results, layers = {}, []
    for layer in network:
        layers.append(replace(layer, inputs=()))
        if layer.neuron is not None:
            part = Network(tuple(layers))
            results[layer.name] = fast_backend.simulate(
                part, late(messages), record=("spikes", "sigma"), progress=False, device="cpu"
            )
            messages, layers = results[layer.name].spikes, []
    return results


def test_sigma_delta_pilotnet_answers_as_published() -> None:
    """lava-dl's own tests: output of nine steps of one image, the messages that enter, and sigma in every step."""
    network = netx.read(shipped("gts/pilotnet_sdnn/network.net"))
    image = published("gts/pilotnet_sdnn/input.npy").transpose(2, 1, 0, 3)[None]
    messages = encoded(network, np.repeat(image, 20, axis=-1))
    given = published("gts/pilotnet_sdnn/act0.npy").transpose(2, 1, 0, 3)[None]
    np.testing.assert_array_equal(messages[..., 0], given[..., 0])
    assert not messages[..., 1:].any()
    results = as_lava_starts(network, messages[..., :9])
    wanted = published("gts/pilotnet_sdnn/output.npy")
    assert np.count_nonzero(wanted) == 8
    np.testing.assert_array_equal(results["dense9"].spikes[0], wanted)
    np.testing.assert_array_equal(results["dense9"].record["sigma.dense9"][0], wanted)
    square = netx.read(shipped("gts/pilotnet_sdnn/square_network.net"))
    for one, messages, ending in ((network, given, ""), (square, given[:, :, :33, :33], "_square")):
        results = as_lava_starts(one, messages)
        for number in range(1, 3 if one is network else 5):
            wanted = published(f"gts/pilotnet_sdnn/sigma{number}{ending}.npy").transpose(2, 1, 0, 3)
            assert wanted.any()
            np.testing.assert_array_equal(results[f"conv{number}"].record[f"sigma.conv{number}"][0], wanted)


def test_sigma_delta_blocks_answer_as_published() -> None:
    """lava-dl's own tests of an input, a convolution and sums; of the convolution it compares one time step."""

    def array(name: str) -> np.ndarray:
        return published(f"gts/tinynet_sdnn/{name}.npy")

    kernel = array("layer1_kernel")[:, ::-1, ::-1].transpose(0, 3, 2, 1)
    neuron = SigmaDelta(20, array("layer1_bias"))
    conv = Conv(in_shape=(3, 16, 16), shape=(24, 6, 6), weight=kernel, stride=(2, 2), neuron=neuron)
    network = Network((conv,), encoder=Encoder(SigmaDelta(20), conv.in_shape))
    values = array("input_bias").transpose(2, 1, 0)[..., None] * np.sin(2 * np.pi * np.arange(15) / 15)
    np.testing.assert_array_equal(encoded(network, values.astype(int)[None])[0], array("input").transpose(2, 1, 0, 3))
    result = fast_backend.simulate(Network((conv,)), np.zeros((1, 3, 16, 16, 1), int), progress=False)
    wanted = array("layer1").transpose(2, 1, 0, 3)
    assert np.count_nonzero(wanted[..., 0]) == 144
    np.testing.assert_array_equal(result.spikes[0, ..., 0], wanted[..., 0])
    dense = Dense(in_shape=(864,), shape=(100,), weight=array("layer2_weight"), neuron=Sigma())
    spikes = array("layer1").reshape(864, 16) != 0  # the test gives its block no message bits
    result = fast_backend.simulate(Network((dense,)), late(spikes.astype(int))[None], progress=False)
    np.testing.assert_array_equal(result.spikes[0], array("layer2"))


@pytest.mark.lava
@pytest.mark.parametrize("encode", [False, True], ids=["messages", "values"])
def test_sigma_delta_files_run_alike_on_lava(encode: bool) -> None:
    """Every sigma-delta file: messages, states, readout and limits of `fast` are Lava's, in every step of samples."""
    rng = np.random.default_rng(5)
    image = published("gts/pilotnet_sdnn/input.npy").transpose(2, 1, 0, 3)
    runs = []
    for path in map(shipped, SIGMA_DELTA):
        height, width = netx.read(path).in_shape[1:]
        # Frames that change in places, and, in the second sample, everywhere.
        changed = rng.integers(-30, 30, (2, 3, height, width, 6)) * (rng.random((2, 3, height, width, 6)) < 0.1)
        values = image[None, :, :height, :width] + changed
        values[1, ..., 3:] = rng.integers(-52, 64, values[1, ..., 3:].shape)
        runs.append((path, values if encode else encoded(netx.read(path), values)))
    results = lava_backend.simulate_each(runs, record=VALUES, progress=False, encode=encode)
    for (path, inputs), lavas in zip(runs, results, strict=True):
        ours = simulate(path, inputs, "fast", record=VALUES, progress=False, encode=encode)
        assert all(array.any() for name, array in ours.record.items() if name.startswith(("spikes.conv", "sigma")))
        assert_alike(ours, lavas)


STOCK = """
import sys
import numpy as np
from lava.lib.dl import netx
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc import io

path, exponent, given, out = sys.argv[1:]
network = netx.hdf5.Network(net_config=path, spike_exp=int(exponent))
data = np.load(given)
source, sink = io.source.RingBuffer(data=data), io.sink.RingBuffer(shape=network.out_layer.shape, buffer=data.shape[-1])
source.s_out.connect(network.in_layer.neuron.a_in)
network.out_layer.out.connect(sink.a_in)
network.run(condition=RunSteps(num_steps=data.shape[-1]), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
np.save(out, sink.data.get())
network.stop()
"""


@pytest.mark.lava
@pytest.mark.parametrize("exponent", [6, 0])
@pytest.mark.parametrize("name", SIGMA_DELTA)
def test_sigma_delta_files_run_as_lava_itself_does(name: str, exponent: int, tmp_path: Path) -> None:
    """Without any of our processes, as lava-dl's own tests run them, on frames that change: the same messages."""
    network = netx.read(shipped(name))
    rng = np.random.default_rng(6)
    values = rng.integers(-52, 64, (*network.in_shape, 14)) * (rng.random((*network.in_shape, 14)) < 0.9)
    np.save(tmp_path / "in.npy", values.transpose(2, 1, 0, 3).astype(np.int32))
    done = in_lava(STOCK, str(shipped(name)), str(exponent), str(tmp_path / "in.npy"), str(tmp_path / "out.npy"))
    assert done.returncode == 0, done.stderr

    def with_exponent(neuron: AnyNeuron | None) -> AnyNeuron | None:
        return replace(neuron, spike_exponent=exponent) if isinstance(neuron, SigmaDelta) else neuron

    layers = tuple(replace(layer, neuron=with_exponent(layer.neuron)) for layer in network)
    assert network.encoder is not None
    encoder = replace(network.encoder, neuron=with_exponent(network.encoder.neuron))  # type: ignore[arg-type]
    network = replace(network, layers=layers, encoder=encoder)
    messages = encoded(network, values[None])
    results = as_lava_starts(network, messages)
    theirs = np.load(tmp_path / "out.npy")
    ours = results[network.layers[-1].name].spikes[0]
    assert np.count_nonzero(theirs) > 10
    np.testing.assert_array_equal(ours, theirs.transpose(*range(theirs.ndim - 2, -1, -1), theirs.ndim - 1))


def test_sigma_delta_files_are_checked_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Loihi 2 has such neurons; others say which layer has what they do not. Each message that is not 0 is counted."""
    path = shipped(SIGMA_DELTA[1])
    assert main(["check", str(path), "--profile", "loihi2"]) == 0
    out = capsys.readouterr().out
    assert "not checked  sums and messages of sigma-delta neurons: have no bound beforehand" in out
    for chip in ("loihi1", "speck2f"):
        assert main(["check", str(path), "--profile", chip]) == 1
        assert "conv4: sigma-delta neurons: train spiking neurons, or take a chip that has" in capsys.readouterr().out
    messages = published("gts/pilotnet_sdnn/act0.npy").transpose(2, 1, 0, 3)[None, :, :33, :33]
    np.save(tmp_path / "in.npy", messages)
    assert main(["cost", str(path), str(tmp_path / "in.npy"), "--profile", "loihi2", "--json", "-"]) == 0
    layers = json.loads(capsys.readouterr().out)["cost"]["layers"]
    record = simulate(path, messages, "fast", record=("spikes",), progress=False).record
    assert [layer["spikes"] for layer in layers] == [np.count_nonzero(array) for array in record.values()]
    # Padding and strides leave some taps of a kernel out: nine by as many channels is the most.
    assert 0 < layers[3]["synops"] <= 9 * 64 * layers[2]["spikes"]
    out = ["--output", str(tmp_path / "out.npz"), "--backend", "fast", "--record", "sigma"]
    assert main(["simulate", str(path), str(tmp_path / "in.npy"), *out]) == 0
    assert f"{layers[3]['spikes']:.0f} output messages" in capsys.readouterr().out


@pytest.mark.lava
def test_what_slayer_exports_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The files of SLAYER's own exporter run from the command line, on fast and lava, and are checked."""
    if not CASES.exists():
        pytest.skip("no ../shared/cases")
    rng = np.random.default_rng(0)
    shapes = {"conv_dense": (2, 5, 7), "input_flat_dense": (2, 6, 6), "affine": (20,), "recurrent": (6,)}
    for name, shape in shapes.items():
        path, file = CASES / f"slay_{name}.net", tmp_path / "in.npy"
        for options in ([], ["--encode"]) if name == "input_flat_dense" else ([],):
            np.save(file, rng.integers(0, 99 if options else 2, (2, *shape, 6)))
            for backend in ("fast", "lava"):
                out = ["--backend", backend, "--output", str(tmp_path / f"{backend}.npz"), "--record", "u,v,spikes"]
                assert main(["simulate", str(path), str(file), *out, *options]) == 0, name
            with np.load(tmp_path / "fast.npz") as fast, np.load(tmp_path / "lava.npz") as lava:
                for array in fast.files:
                    np.testing.assert_array_equal(fast[array], lava[array], err_msg=f"{name} {array}")
            assert main(["cost", str(path), str(file), "--profile", "loihi2", *options]) == 0
        assert main(["check", str(path), "--profile", "loihi2", "--in-shape", ",".join(map(str, shape))]) in (0, 1)
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        main(["check", str(CASES / "slay_input_flat_dense.net"), "--profile", "loihi2"])
    assert "the input is the spikes that enter the first synapse; to run" in capsys.readouterr().err


def test_weight_exponent_of_a_foreign_file_is_said() -> None:
    """`neuron/wgtExp` of 2 in the case file gives a warning that names it."""
    path = CASES / "803_wgtExp.net"
    if not path.exists():
        pytest.skip("no ../shared/cases")
    with pytest.warns(netx.NetxWarning, match=re.escape("layer/0/neuron/wgtExp: lava-dl does not read")):
        netx.read(path)
