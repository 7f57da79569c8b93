"""NetX files that others published: they run alike on every backend, and spike as was recorded with them."""

from __future__ import annotations

import re
import sysconfig
import warnings
from pathlib import Path

import numpy as np
import pytest

from mtt_lava.cli import main
from netx_export import netx
from netx_export.lava import backend as lava_backend
from netx_export.network import NetworkError
from netx_export.simulation import Simulation, encoded, simulate

SHIPPED = Path(sysconfig.get_paths()["purelib"]) / "tests/lava/lib/dl/netx"
"""Test files that the lava-dl package installs."""
CASES = Path(__file__).parents[2] / "shared/cases"
FILES = ("tiny.net", "mnist.net", "gts/pilotnet_lif/network.net", "gts/ntidigits/ntidigits.net")
SIGMA_DELTA = ("gts/pilotnet_sdnn/network.net", "gts/pilotnet_sdnn/square_network.net")
EVERYTHING = ("spikes", "u", "v")

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


@pytest.mark.parametrize("name", SIGMA_DELTA)
def test_sigma_delta_files_say_so(name: str) -> None:
    """Not that something else is wrong with them."""
    with pytest.raises(NetworkError, match="'SDNN' are sigma-delta neurons"):
        netx.read(shipped(name))


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
