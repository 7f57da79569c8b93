"""Lava runs a file as the network description says, refuses wrong input, and leaves nothing behind however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import reference
from netx_files import edited, in_lava

from netx_export import netx
from netx_export.lava import backend as lava_backend
from netx_export.lava.interpreter import interpreter
from netx_export.lava.interpreter import setup as make_environment
from netx_export.limits import UNCOUNTED, Limits, from_counts
from netx_export.network import Conv, Dense, Flatten, Network, NetworkError, Neuron
from netx_export.simulation import Simulation, SimulationError, check_inputs, load_inputs, simulate


def random_weight(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return 2 * rng.integers(-30, 45, shape)


def conv_network(rng: np.random.Generator, readout: str) -> Network:
    """Rectangular maps, stride, padding, groups, decays, biases a channel and a neuron; a readout that never fires."""
    return Network(
        (
            Conv(
                in_shape=(2, 7, 5),
                shape=(4, 4, 3),
                weight=random_weight(rng, 4, 2, 3, 3),
                stride=(2, 2),
                padding=(1, 1),
                neuron=Neuron(300, 1000, 200, bias=np.array([3, -2, 400, 0])),
            ),
            Conv(
                in_shape=(4, 4, 3),
                shape=(4, 3, 3),
                weight=random_weight(rng, 4, 2, 2, 3),
                padding=(0, 1),
                groups=2,
                neuron=Neuron(150, 4096, 0, bias=rng.integers(-50, 100, (4, 3, 3))),
            ),
            Flatten(in_shape=(4, 3, 3), shape=(36,)),
            Dense(
                in_shape=(36,),
                shape=(5,),
                weight=random_weight(rng, 5, 36),
                neuron=Neuron(131071 if readout == "voltage" else 200, 4096, 0),
            ),
        ),
        readout=readout,
    )


def without_input_entry(path: Path) -> None:
    """Make a file what SLAYER writes: without the entry that states the shape of the input."""
    with edited(path) as file:
        del file["layer/0"]
        for number in range(1, len(file["layer"]) + 1):
            file.move(f"layer/{number}", f"layer/{number - 1}")


def dense_network() -> Network:
    """One neuron that passes on what it gets."""
    layer = Dense(in_shape=(1,), shape=(1,), weight=np.array([[64]]), neuron=Neuron(1))
    return Network((layer,), source="one neuron")


def assert_equals_reference(network: Network, inputs: np.ndarray, result: Simulation) -> None:
    expected = reference.simulate(network, inputs)
    np.testing.assert_array_equal(result.spikes, expected[-1]["spikes"])
    last = expected[-1]["v"][..., -1] if network.readout == "voltage" else expected[-1]["spikes"].sum(-1)
    np.testing.assert_array_equal(result.readout, last.reshape(len(inputs), -1))
    assert result.readout.dtype == np.int64
    for name, recorded in result.record.items():
        what, layer = name.split(".")
        number = [each.name for each in network].index(layer)
        np.testing.assert_array_equal(recorded, expected[number][what], err_msg=name)
    if result.limits is not None:
        before = [[np.abs(each[name]) for name in ("u_before", "v_before")] for each in expected if "u" in each]
        counts = [[*(x.max() for x in both), *((x >= 1 << 23).sum() for x in both)] for both in before]
        assert result.limits == from_counts(network, counts)


@pytest.mark.smoke
@pytest.mark.lava
@pytest.mark.parametrize("stock", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["sparse", "stock"])
def test_graded_input_biases_and_voltage_readout_equal_reference(tmp_path: Path, stock: bool) -> None:
    """Spikes, u and v of every layer, and the voltage readout, are those of the plain NumPy reading of the rule."""
    rng = np.random.default_rng(1)
    network = conv_network(rng, "voltage")
    netx.write(network, tmp_path / "a.net")
    inputs = rng.integers(-3, 9, (3, 2, 7, 5, 6))
    result = simulate(tmp_path / "a.net", inputs, progress=False, record=("spikes", "u", "v"), stock=stock)
    assert result.record["spikes.conv1"].any()
    assert result.record["spikes.conv2"].any()
    names = ("conv1", "conv2", "dense1")
    assert set(result.record) == {f"{what}.{name}" for what in ("spikes", "u", "v") for name in names}
    assert_equals_reference(network, inputs, result)
    assert (result.limits is None) is stock
    assert (result.limits_text() == UNCOUNTED) is stock


@pytest.mark.lava
@pytest.mark.parametrize("steps", [1, 7])
def test_wraps_and_saturations_are_counted(steps: int, tmp_path: Path) -> None:
    """Where u wraps, v saturates and a conv's sums leave 24 bits, Lava counts what the plain NumPy reading does."""
    rng = np.random.default_rng(5)
    conv = Conv(
        name="conv",
        in_shape=(2, 3, 3),
        shape=(2, 3, 3),
        weight=np.abs(random_weight(rng, 2, 2, 3, 3)) + 2,
        padding=(1, 1),
        neuron=Neuron(131071, 1000, 0, bias=np.array([4000, -4000])),
    )
    flat = Flatten(in_shape=(2, 3, 3), shape=(18,))
    wide = Dense(
        in_shape=(18,), shape=(1000,), weight=random_weight(rng, 1000, 18), neuron=Neuron(0, 4096, 0), name="hidden"
    )
    weight = np.full((3, 1000), 254) * np.array([1, -1, 1])[:, None]
    out = Dense(in_shape=(1000,), shape=(3,), weight=weight, neuron=Neuron(131071, 4096, 0), name="fc")
    network = Network((conv, flat, wide, out), readout="voltage")
    netx.write(network, tmp_path / "a.net", allow_wrap=True)
    inputs = rng.integers(0, 2, (4, 2, 3, 3, steps))
    inputs[1] *= 2000
    inputs[2:] = ((1 << 25) - 1) // (90 * 18)
    inputs[3] *= rng.choice([-1, 1], inputs[3].shape)
    result = simulate(tmp_path / "a.net", inputs, progress=False, record=("u", "v"))
    assert_equals_reference(network, inputs, result)
    assert result.limits is not None
    assert list(result.limits) == ["conv", "hidden", "fc"]
    assert result.limits["conv"].wraps > 0
    assert result.limits["conv"].u_max >= 1 << 29  # type: ignore[operator]
    assert result.limits["fc"].wraps > 0
    assert any(each.saturations for each in result.limits.values())
    assert result.limits_text().startswith("u was beyond its bits and wrapped: conv")


@pytest.mark.lava
@pytest.mark.parametrize("workers", [None, 2])
def test_files_without_input_entry_take_the_shape_of_the_input(workers: int | None, tmp_path: Path) -> None:
    """On both backends, also in workers; the spikes are those of the file that states the shape."""
    rng = np.random.default_rng(8)
    network = conv_network(rng, "count")
    netx.write(network, tmp_path / "a.net")
    without_input_entry(tmp_path / "a.net")
    network = replace(network, groups=(0, 1, 2, 3))
    inputs = rng.integers(0, 2, (2, 2, 7, 5, 5))
    with pytest.raises(NetworkError, match="give --in-shape"):
        netx.read(tmp_path / "a.net")
    for backend in ("fast", "lava") if workers is None else ("fast",):
        result = simulate(tmp_path / "a.net", inputs, backend, progress=False, workers=workers)
        assert result.spikes.any()
        assert_equals_reference(network, inputs, result)
        with pytest.raises(NetworkError, match=r"not the shape .* \(for an input of shape \(2, 5, 7\): the"):
            simulate(tmp_path / "a.net", inputs.swapaxes(2, 3), backend)


@pytest.mark.lava
def test_a_leading_flatten_takes_maps_where_the_file_states_no_shape(tmp_path: Path) -> None:
    """Flatten and dense without an input entry run on (C, H, W) as on what is flat."""
    rng = np.random.default_rng(9)
    dense = Dense(in_shape=(12,), shape=(3,), weight=random_weight(rng, 3, 12), neuron=Neuron(40))
    network = Network((Flatten(in_shape=(2, 3, 2), shape=(12,)), dense))
    netx.write(network, tmp_path / "a.net")
    without_input_entry(tmp_path / "a.net")
    network = replace(network, groups=(0, 1))
    inputs = rng.integers(0, 2, (2, 2, 3, 2, 5))
    for backend in ("fast", "lava"):
        for given in (inputs, inputs.reshape(2, 12, 5)):
            result = simulate(tmp_path / "a.net", given, backend, progress=False)
            assert_equals_reference(network, inputs, result)


@pytest.mark.lava
def test_samples_of_one_time_step_are_independent(tmp_path: Path) -> None:
    """T = 1, shorter than the pipeline: every sample is answered as if it came alone."""
    rng = np.random.default_rng(2)
    network = conv_network(rng, "count")
    netx.write(network, tmp_path / "a.net")
    inputs = rng.integers(0, 2, (6, 2, 7, 5, 1))
    result = simulate(tmp_path / "a.net", inputs, progress=False)
    assert result.spikes.any()
    assert not result.spikes.all()
    assert_equals_reference(network, inputs, result)


@pytest.mark.lava
def test_spikes_under_way_do_not_reach_the_next_sample(tmp_path: Path) -> None:
    """Delays longer than a sample and recurrent synapses, in neurons that biases keep firing, start from rest."""
    rng = np.random.default_rng(3)
    bias = np.arange(8) * 3

    def dense(inputs: int, **synapses: np.ndarray) -> Dense:
        weight = random_weight(rng, 8, inputs)
        return Dense(in_shape=(inputs,), shape=(8,), weight=weight, neuron=Neuron(60, 300, 100, bias=bias), **synapses)

    network = Network(
        (
            dense(6, delay=rng.integers(0, 6, (8, 6))),
            dense(8, delay=rng.integers(0, 9, (8, 8))),
            dense(8, recurrent=random_weight(rng, 8, 8)),
        )
    )
    netx.write(network, tmp_path / "a.net", allow_wrap=True)
    inputs = rng.integers(0, 2, (5, 6, 4))
    result = simulate(tmp_path / "a.net", inputs, progress=False, record=("spikes",))
    assert all(result.record[f"spikes.dense{number}"].any() for number in (1, 2, 3))
    assert_equals_reference(network, inputs, result)


CONV_MODELS = """
import json
import numpy as np
from lava.proc.conv.models import PyConvModelFixed
from lava.proc.conv.utils import conv, output_shape
from netx_export.lava.processes.conv import PySparseConvModel

class Port:
    def recv(self):
        return self.data
    def send(self, data):
        self.data = data.copy()

def answers(model, settings, inputs):
    for name, value in settings.items():
        setattr(model, name, value.copy())
    model.s_in, model.a_out = Port(), Port()
    for data in inputs:
        model.s_in.data = data
        model.run_spk()
        yield model.a_out.data

rng = np.random.default_rng(0)
seen = dict(cases=0, clamped=0, edge=0, graded=0, binary=0)
while seen["cases"] < 400:
    size, kernel = rng.integers(1, 10, 2), rng.integers(1, 5, 2)
    stride, padding, dilation = rng.integers(1, 4, 2), rng.integers(0, 4, 2), rng.integers(1, 4, 2)
    if (dilation * (kernel - 1) >= size + 2 * padding).any():
        continue
    groups, fan_in, fan_out = rng.integers(1, 4, 3)
    in_shape = (*size, fan_in * groups)
    shape = (fan_out * groups, *kernel, fan_in)
    weight = rng.integers(-256, 255, shape) * (rng.random(shape) < rng.choice([0, 0.5, 1]))
    weight.flat[rng.integers(weight.size)] = 1
    out_shape = output_shape(in_shape, len(weight), kernel, stride, padding, dilation)
    bits = rng.choice([0, 8, 32])
    # Up to sums of 32 bits; a lone weight of 1 passes on values around the ends of 24 bits.
    ends = [end + n for end in (-(1 << 23), 1 << 23) for n in (-1, 0, 1)]
    largest = rng.choice([1, 9, 1 << 15, ((1 << 31) - 1) // max(1, np.abs(weight).sum())])
    inputs = rng.integers(-largest, largest, (4, *in_shape), endpoint=True)
    inputs = rng.choice(ends, inputs.shape) if np.abs(weight).sum() == 1 else inputs * rng.integers(0, 2, inputs.shape)
    numbers = dict(kernel_size=kernel, stride=stride, padding=padding, dilation=dilation, groups=[groups])
    settings = {name: np.array(value, np.int8) for name, value in numbers.items()}
    settings |= {"num_message_bits": np.array([bits], np.int8), "weight": weight.astype(np.int32)}
    settings["a_buf"] = rng.integers(-9, 9, out_shape, dtype=np.int32)
    inputs = inputs.astype(np.int32)
    stock, sparse = (list(answers(m({}), settings, inputs)) for m in (PyConvModelFixed, PySparseConvModel))
    for a, b in zip(stock, sparse, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype and (a == b).all(), (in_shape, weight.shape, numbers, bits)
    # The answer to an input leaves one time step later.
    last = inputs[-2] if bits else inputs[-2] != 0
    sums = conv(last, weight, kernel, stride, padding, dilation, groups)
    seen["cases"] += 1
    seen["graded" if bits else "binary"] += 1
    seen["clamped"] += bool((sums != stock[-1]).any())
    seen["edge"] += bool(np.isin(sums, [1 << 23, -(1 << 23) - 1]).any())
print(json.dumps(seen))
"""


@pytest.mark.lava
def test_sparse_conv_model_equals_lavas_own() -> None:
    """For any shape and input, binary and graded, up to the ends of 24 and of 32 bits, it sends what Lava's sends."""
    done = in_lava(CONV_MODELS)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["cases"] == seen["binary"] + seen["graded"] == 400
    assert min(seen.values()) > 10, seen


# ---------------------------------------------------------------------------------------------- however a run ends

CHILD = """
import os, signal, sys, time
from pathlib import Path
import netx_export.lava.child as child

folder, parent = Path({folder!r}), os.getppid()
(folder / "leader").write_text(str(os.getpid()))
(folder / "job").write_text(sys.argv[1])

def misbehave(name):
    (folder / "segments").write_text("".join(str(p) for p in Path("/dev/shm").glob(name + "*")))
    {action}

def build(arrays, settings, build=child._build):
    network = build(arrays, settings)
    (folder / "name").write_text(settings["name"])
    from lava.proc.lif.models import PyLifResetModelBitAcc as Model
    def run_spk(self, run_spk=Model.run_spk):
        if self.time_step == 3 and {early}:
            misbehave(settings["name"])
        run_spk(self)
        if self.time_step == 3:
            misbehave(settings["name"])
    Model.run_spk = run_spk
    return network

child._build = build
child.main(Path(sys.argv[1]), int(sys.argv[2]))
"""


def misbehaving(folder: Path, action: str, early: bool = True) -> list[str]:
    """Command of a child process in which a neuron process does `action` in time step 3."""
    netx.write(dense_network(), folder / "a.net")
    script = folder / "child.py"
    script.write_text(CHILD.format(folder=str(folder), action=action, early=early))
    return [interpreter(), str(script)]


def left_behind(folder: Path, within: float = 2.0) -> list[str]:
    """What is left of a run after `within` seconds: killed processes may take a moment to go."""
    until = time.monotonic() + within
    while (left := remains(folder)) and time.monotonic() < until:
        time.sleep(0.02)
    return left


def remains(folder: Path) -> list[str]:
    """Processes of the child's session, its shared memory and its files that exist now."""
    leader = (folder / "leader").read_text()
    left = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # it has just ended
            continue
        if session == leader and state != "Z":
            left.append(f"process {stat.parent.name}")
    if (folder / "name").exists():
        name = (folder / "name").read_text()
        left += [entry for entry in os.listdir("/dev/shm") if name in entry]
    job = Path((folder / "job").read_text())
    return left + ([str(job)] if job.exists() else [])


needs_linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in Linux's /proc")
BROKEN = 'raise ValueError("broken on purpose")'


@needs_linux
@pytest.mark.lava
@pytest.mark.parametrize(
    ("action", "early", "error", "message"),
    [
        pytest.param(BROKEN, True, SimulationError, "Lava failed: ValueError: broken on purpose", id="before-send"),
        pytest.param(BROKEN, False, SimulationError, "Lava failed: ValueError: broken on purpose", id="after-send"),
        pytest.param("os.kill(os.getpid(), 9)", True, SimulationError, "ended with signal 9", id="kill-worker"),
        pytest.param("os.kill(os.getppid(), 9)", True, SimulationError, "ended by SIGKILL", id="kill-child"),
        pytest.param("os.kill(parent, 2); time.sleep(1e4)", True, KeyboardInterrupt, "", id="ctrl-c"),
    ],
)
def test_failure_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str, early: bool, error: type, message: str
) -> None:
    """Errors in and ends of Lava's processes end the run at once, with one line (and the traceback), and all of it."""
    command = misbehaving(tmp_path, action, early)
    monkeypatch.setattr(lava_backend, "_command", lambda job, inherited: [*command, str(job), str(inherited)])
    with pytest.raises(error) as caught:
        simulate(tmp_path / "a.net", np.ones((1, 1, 1000), int), progress=False, time_limit=60)
    assert message in str(caught.value).split("\n")[0]
    if action == BROKEN:
        assert "Traceback" in str(caught.value)
    assert left_behind(tmp_path) == []
    assert (tmp_path / "segments").read_text(), "there was no shared memory to leave behind"


@needs_linux
@pytest.mark.lava
def test_failure_in_one_of_several_runs_ends_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error in a run's own process is told, and neither the processes of that run nor the rest go on."""
    command = misbehaving(tmp_path, BROKEN)
    monkeypatch.setattr(lava_backend, "_command", lambda job, inherited: [*command, str(job), str(inherited)])
    with pytest.raises(SimulationError, match=r"^Lava failed: ValueError: broken on purpose"):
        lava_backend.simulate_each([(tmp_path / "a.net", np.ones((1, 1, 9), int))] * 3, progress=False, time_limit=60)
    assert left_behind(tmp_path) == []


@needs_linux
@pytest.mark.lava
def test_time_limit_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run over its time limit, still starting or standing in time step 3, is ended with one clear line."""
    command = misbehaving(tmp_path, "time.sleep(1e4)")
    monkeypatch.setattr(lava_backend, "_command", lambda job, inherited: [*command, str(job), str(inherited)])
    start = time.monotonic()
    message = r"^Lava took longer than the time limit of 1 s: [0-3] of 1001 time steps"
    with pytest.raises(SimulationError, match=message):
        simulate(tmp_path / "a.net", np.ones((1, 1, 1000), int), progress=False, time_limit=1)
    assert time.monotonic() - start < 10
    assert left_behind(tmp_path) == []


def test_standstill_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a time limit, a run that stops going on is ended all the same."""
    netx.write(dense_network(), tmp_path / "a.net")
    program = "import sys, time, numpy as n; n.load(sys.argv[1] + '/progress.npy', 'r+')[0] = 3; time.sleep(1e4)"
    monkeypatch.setattr(lava_backend, "_command", lambda job, inherited: [sys.executable, "-c", program, str(job)])
    monkeypatch.setattr(lava_backend, "STALL_SECONDS", 1.5)
    with pytest.raises(SimulationError, match=r"^Lava did no time step for 1.5 s: 3 of 1001 were done"):
        simulate(tmp_path / "a.net", np.ones((1, 1, 1000), int), progress=False)


@needs_linux
@pytest.mark.lava
def test_killed_parent_leaves_nothing(tmp_path: Path) -> None:
    """SIGKILL of the process that asked for the run ends the run and removes its shared memory and files."""
    command = misbehaving(tmp_path, "os.kill(parent, 9); time.sleep(1e4)")
    program = (
        "import numpy as np\n"
        "from netx_export.lava import backend as lava_backend\n"
        f"lava_backend._command = lambda job, inherited: [*{command!r}, str(job), str(inherited)]\n"
        f"lava_backend.simulate({str(tmp_path / 'a.net')!r}, np.ones((1, 1, 1000), int), progress=False)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == -signal.SIGKILL
    assert left_behind(tmp_path, within=10) == []
    assert (tmp_path / "segments").read_text(), "there was no shared memory to leave behind"


# ---------------------------------------------------------------------------------------------- without Lava


def test_parent_stays_light() -> None:
    """Asking for a Lava run imports neither Lava nor torch."""
    program = (
        "import sys, netx_export.simulation, netx_export.lava.backend\n"
        "sys.exit(', '.join(m for m in ('lava', 'torch', 'h5py', 'tqdm', 'matplotlib') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr.strip() == ""


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.zeros((1, 2, 7, 5)), r"holds float64; give a NumPy array of integers \(N, C=2, H=7, W=5, T\)"),
        ([[1]], "holds list; give a NumPy array"),
        (np.zeros((2, 7, 5, 4), int), r"has shape \(2, 7, 5, 4\); network takes \(N, C=2, H=7, W=5, T\)"),
        (np.zeros((1, 2, 5, 7, 4), int), r"has shape \(1, 2, 5, 7, 4\)"),
        (np.zeros((0, 2, 7, 5, 4), int), "at least one sample and one time step"),
        (np.zeros((1, 2, 7, 5, 0), int), "at least one sample and one time step"),
        (np.full((1, 2, 7, 5, 1), 1 << 31), "holds values 2147483648..2147483648; a graded spike has 32 bits"),
    ],
)
def test_wrong_inputs_are_refused_in_one_line(inputs: np.ndarray, message: str) -> None:
    """Type, axes, emptiness and range of the input are checked, and the message says what is wanted."""
    with pytest.raises(NetworkError, match=message) as caught:
        check_inputs(conv_network(np.random.default_rng(0), "count"), inputs, "x.npy")
    assert str(caught.value).startswith("x.npy: ")
    assert "\n" not in str(caught.value)


def end_with(path: Path, readout: str, **fields: object) -> None:
    """Put a layer in place of the last two of `conv_network`."""
    netx.write(conv_network(np.random.default_rng(0), readout), path)
    with edited(path) as file:
        del file["layer/4"], file["layer/3"]
        for field, value in fields.items():
            file[f"layer/3/{field}"] = value


def test_pools_that_lava_does_not_run_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line before Lava starts: the file, the layer, what to do; `fast`, which it names, runs the file."""
    path = tmp_path / "a.net"
    pool = {"type": "pool", "shape": [4, 1, 1], "kernelSize": 3, "stride": 3, "padding": 0, "weight": 2}
    neuron = {"neuron/type": "CUBA", "neuron/iDecay": 4096, "neuron/vDecay": 0, "neuron/vThMant": 10}
    end_with(path, "count", **pool, **neuron)
    monkeypatch.setattr(lava_backend, "_supervise", lambda *_: pytest.fail("Lava was started"))
    inputs = np.ones((1, 2, 7, 5, 3), int)
    with pytest.raises(NetworkError, match=r"a\.net: layer/3/type: lava-dl's loader runs no pool layer") as caught:
        simulate(path, inputs, "lava", progress=False)
    assert str(caught.value).endswith("or run this file with --backend fast")
    assert "\n" not in str(caught.value)
    assert simulate(path, inputs, "fast", progress=False, device="cpu").spikes.shape == (1, 4, 1, 1, 3)


@pytest.mark.lava
@pytest.mark.parametrize("readout", ["count", "voltage"])
def test_averages_are_taken_of_what_lava_runs(readout: str, tmp_path: Path) -> None:
    """lava-dl's loader refuses the layer: Lava runs what is before it; spikes and voltages are summed."""
    end_with(tmp_path / "a.net", readout, type="average", shape=[4, 1, 1])
    inputs = np.random.default_rng(1).integers(0, 2, (3, 2, 7, 5, 6))
    ours, lavas = (simulate(tmp_path / "a.net", inputs, backend, progress=False) for backend in ("fast", "lava"))
    assert ours.spikes.shape == (3, 4, 6)
    assert ours.spikes.any()
    assert ours.readout.any()
    assert ours.spikes.dtype == lavas.spikes.dtype
    np.testing.assert_array_equal(ours.spikes, lavas.spikes)
    np.testing.assert_array_equal(ours.readout, lavas.readout)
    assert ours.limits == lavas.limits


def test_input_beyond_lavas_integers_is_refused(tmp_path: Path) -> None:
    """Graded input that Lava would add up in too few bits is refused before Lava starts; 64 * 64 * x < 2**31.

    A dense weight of 1 is added up as 128, and so x may be half of what 64 * 1 * x < 2**31 would allow.
    """
    netx.write(dense_network(), tmp_path / "a.net")
    with pytest.raises(NetworkError, match=r"values 0..524288 .* by 2147483648 in a time step"):
        simulate(tmp_path / "a.net", np.full((1, 1, 1), 1 << 19), progress=False)
    with edited(tmp_path / "a.net") as file:
        file["layer/1/weight"][...] = 1
    with pytest.raises(NetworkError, match=r"values 0..16777216 .* by 2147483648 in a time step"):
        simulate(tmp_path / "a.net", np.full((1, 1, 1), 1 << 24), progress=False)


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    """A backend or a record that does not exist is refused by its name."""
    netx.write(dense_network(), tmp_path / "a.net")
    with pytest.raises(NetworkError, match="backend 'brian' is unknown; there is: fast, lava"):
        simulate(tmp_path / "a.net", np.ones((1, 1, 1), int), backend="brian")
    with pytest.raises(NetworkError, match="record 'w' is unknown; there is: spikes, u, v"):
        simulate(tmp_path / "a.net", np.ones((1, 1, 1), int), record=["w"])


def test_input_files(tmp_path: Path) -> None:
    """An array is read as it is; missing, damaged, pickled and .npz files are refused in one line."""
    array = np.arange(6).reshape(1, 2, 3)
    np.save(tmp_path / "good.npy", array)
    np.testing.assert_array_equal(load_inputs(tmp_path / "good.npy"), array)
    (tmp_path / "short.npy").write_bytes((tmp_path / "good.npy").read_bytes()[:-8])
    (tmp_path / "empty.npy").touch()
    (tmp_path / "text.npy").write_text("1 2 3")
    with (tmp_path / "object.npy").open("wb") as file:  # its header says that a pickle follows
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": (1,)})
        file.write(bytes(8))
    np.savez(tmp_path / "several.npz", array)
    for name, message in {
        "missing.npy": "cannot be read: No such file",
        "short.npy": "not a whole .npy file",
        "empty.npy": "not a whole .npy file",
        "text.npy": "not a whole .npy file",
        "object.npy": "not a whole .npy file",
        "several.npz": "holds several arrays",
        "": "is not a regular file",
    }.items():
        with pytest.raises(NetworkError, match=message) as caught:
            load_inputs(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_result_is_saved_whole(tmp_path: Path) -> None:
    """The .npz file holds spikes, readout and what was recorded, without pickles, under exactly the given name."""
    result = Simulation(np.ones((1, 2, 3), np.int8), np.array([[3, 3]]), {"v.conv1": np.zeros((1, 2, 3), np.int32)})
    result = replace(result, limits={"fc": Limits(5, 6, 0, 1)})
    result.save(tmp_path / "out")
    with np.load(tmp_path / "out", allow_pickle=False) as saved:
        assert set(saved) == {"spikes", "readout", "v.conv1", "limits"}
        assert json.loads(saved["limits"].item()) == {"fc": {"u_max": 5, "v_max": 6, "wraps": 0, "saturations": 1}}
    Simulation(result.spikes, result.readout).save(tmp_path / "out")
    with np.load(tmp_path / "out", allow_pickle=False) as saved:
        assert json.loads(saved["limits"].item()) is None
        np.testing.assert_array_equal(saved["spikes"], result.spikes)
    assert os.listdir(tmp_path) == ["out"]


# ---------------------------------------------------------------------------------------------- where Lava runs


def test_the_interpreter_named_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is named must be there; else this Python where it has Lava, else that of the environment made for it."""
    other = tmp_path / "mtt-lava" / "lava" / "bin" / "python"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("MTT_LAVA_PYTHON", str(other))
    with pytest.raises(NetworkError, match=r"MTT_LAVA_PYTHON is '.*', no program"):
        interpreter()
    other.parent.mkdir(parents=True)
    other.symlink_to(sys.executable)
    assert interpreter() == str(other)
    monkeypatch.delenv("MTT_LAVA_PYTHON")
    monkeypatch.setattr("netx_export.lava.interpreter.find_spec", lambda name: None)
    assert interpreter() == str(other)
    other.unlink()
    with pytest.raises(NetworkError, match=r"Lava runs on Python 3.10 only, .* mtt lava setup, .* --backend fast"):
        interpreter()
    monkeypatch.setattr("netx_export.lava.interpreter.find_spec", lambda name: name)
    assert interpreter() == sys.executable


UV = """#!/bin/sh
echo "$@" >> {log}
{action}
"""


@pytest.mark.parametrize("fails", [False, True])
def test_setup_makes_an_environment_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """With a uv that only notes what it is asked: one with what Lava needs; the old one stays if it fails."""
    action = "echo 'error: no such host' >&2; exit 3" if fails else 'for last; do :; done; mkdir -p "$last/bin"'
    uv = tmp_path / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text(UV.format(log=tmp_path / "log", action=f'if [ "$1" = venv ]; then :; {action}; fi'))
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", f"{uv.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    place = tmp_path / "data" / "mtt-lava" / "lava"
    place.mkdir(parents=True)
    (place / "old").touch()
    if fails:
        with pytest.raises(NetworkError, match=r"^uv venv failed: error: no such host$"):
            make_environment()
        assert (place / "old").exists()
    else:
        assert make_environment("python3.10") == place / "bin" / "python"
        made, installed = (tmp_path / "log").read_text().splitlines()
        assert "--python python3.10" in made
        assert "lava-nc==" in installed
        assert "lava-dl==" in installed
        assert not (place / "old").exists()
    assert not place.with_name("lava.new").exists()


def test_setup_without_uv_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NetworkError, match="needs uv"):
        make_environment()
