"""Simulations spread over processes give what one process gives, whatever happens to a worker."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtt_lava.cli import main
from netx_export import netx, spread
from netx_export.backends import BACKENDS
from netx_export.network import Conv, Dense, Flatten, Network, NetworkError, Neuron
from netx_export.passing import PREFIX, passing_folder
from netx_export.simulation import Simulation, SimulationError, simulate
from netx_export.spread import Job, run_chunk

SAMPLES = 23
EVERYTHING = ("u", "v", "spikes")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small network of two layers that spike."""
    folder = tmp_path_factory.mktemp("spread")
    rng = np.random.default_rng(0)
    layers = (
        Conv(
            in_shape=(2, 6, 6),
            shape=(3, 4, 4),
            weight=2 * rng.integers(-20, 21, (3, 2, 3, 3)),
            neuron=Neuron(60, voltage_decay=100),
        ),
        Flatten(in_shape=(3, 4, 4), shape=(48,)),
        Dense(in_shape=(48,), shape=(4,), weight=2 * rng.integers(-20, 21, (4, 48)), neuron=Neuron(200)),
    )
    netx.write(Network(layers, readout="count"), folder / "small.net")
    return folder


@pytest.fixture(scope="module")
def inputs() -> np.ndarray:
    """Samples no two of which are equal, so that one at another's place would show."""
    inputs = np.random.default_rng(1).integers(-1, 4, (SAMPLES, 2, 6, 6, 5))
    assert len(np.unique(inputs.reshape(SAMPLES, -1), axis=0)) == SAMPLES
    return inputs


@pytest.fixture(scope="module")
def alone(folder: Path, inputs: np.ndarray) -> Simulation:
    """What one process computes."""
    result = simulate(folder / "small.net", inputs, "fast", record=EVERYTHING, progress=False)
    for name in ("conv1", "dense1"):
        assert len(np.unique(result.record[f"v.{name}"].reshape(SAMPLES, -1), axis=0)) == SAMPLES
        assert 0.02 < result.record[f"spikes.{name}"].mean() < 0.98
    return result


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A Dask cluster of two worker processes."""
    distributed = pytest.importorskip("distributed", reason="needs the extra `cluster`")
    import dask

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", host="127.0.0.1", silence_logs=50
        ) as cluster,
    ):
        yield cluster


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"fast": 3, "lava": 2}
    monkeypatch.setattr(
        spread, "BACKENDS", {name: replace(BACKENDS[name], samples=n, chunks=1) for name, n in small.items()}
    )


def assert_equal(result: Simulation, alone: Simulation) -> None:
    for name in ("spikes", "readout"):
        np.testing.assert_array_equal(getattr(result, name), getattr(alone, name))
        assert getattr(result, name).dtype == getattr(alone, name).dtype
    assert set(result.record) == set(alone.record)
    assert result.limits == alone.limits
    assert alone.limits
    for name, array in alone.record.items():
        np.testing.assert_array_equal(result.record[name], array, err_msg=name)
        assert result.record[name].dtype == array.dtype


def assert_no_process_left() -> None:
    """Workers end at once, those killed too."""
    until = time.monotonic() + 5
    while left := [p for p in multiprocessing.active_children() if "Dask" not in p.name]:
        assert time.monotonic() < until, left
        time.sleep(0.05)


# What runs in a worker in place of run_chunk; the job's name says where to keep notes.


def notes(job: Job) -> Path:
    return Path(job.options["device"].removeprefix("notes:"))


def honest(job: Job, inputs: np.ndarray) -> Simulation:
    return run_chunk(Job(job.name, job.content, job.backend, {**job.options, "device": "cpu"}), inputs)


def dies_once(job: Job, inputs: np.ndarray) -> Simulation:
    """The worker is killed in the middle of the third chunk; others go on."""
    with (notes(job) / "log").open("a") as log:
        log.write("chunk\n")
    if len((notes(job) / "log").read_text().splitlines()) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return honest(job, inputs)


def dies_always(job: Job, inputs: np.ndarray) -> Simulation:
    """A chunk that kills whoever takes it: it holds the value 3 first."""
    if inputs[0, 0, 0, 0, 0] == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    nothing = np.zeros((len(inputs), 1))
    return Simulation(nothing, nothing)


def lasts(job: Job, inputs: np.ndarray) -> Simulation:
    with passing_folder():
        (notes(job) / f"pid-{os.getpid()}").touch()
        time.sleep(60)
    return honest(job, inputs)


# ------------------------------------------------------------------------------------------------ on this machine


def test_workers_give_what_one_process_gives(folder: Path, inputs: np.ndarray, alone: Simulation):
    """Spikes, readout and all records, in order; and no process stays."""
    result = simulate(folder / "small.net", inputs, "fast", workers=2, record=EVERYTHING, progress=False)
    assert_equal(result, alone)
    assert_no_process_left()


def test_a_killed_worker_loses_nothing(
    folder: Path, inputs: np.ndarray, alone: Simulation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Its chunk runs again: one chunk more than there are, every sample once, same result."""
    monkeypatch.setattr(spread, "run_chunk", dies_once)
    options = {"record": EVERYTHING, "progress": False, "device": f"notes:{tmp_path}"}
    assert_equal(simulate(folder / "small.net", inputs, "fast", workers=2, **options), alone)
    assert len((tmp_path / "log").read_text().splitlines()) == 8 + 1
    assert_no_process_left()


def test_a_chunk_that_always_kills_is_an_error(folder: Path, inputs: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    """One line that says which samples, in bounded time, with nothing left."""
    inputs = inputs.copy()
    inputs[:, 0, 0, 0, 0] = 0
    inputs[12, 0, 0, 0, 0] = 3
    monkeypatch.setattr(spread, "run_chunk", dies_always)
    with pytest.raises(SimulationError, match=r"^samples 12\.\.14: .* was killed by SIGKILL, 3 times .*$"):
        simulate(folder / "small.net", inputs, "fast", workers=2, progress=False)
    assert_no_process_left()


def test_an_interrupt_leaves_no_process(
    folder: Path, inputs: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Ctrl-C ends workers that are busy, at once."""
    monkeypatch.setattr(spread, "run_chunk", lasts)

    def interrupt() -> None:
        while len(list(tmp_path.glob("pid-*"))) < 2:
            time.sleep(0.02)
        signal.raise_signal(signal.SIGINT)

    watcher = threading.Thread(target=interrupt, daemon=True)
    watcher.start()
    with pytest.raises(KeyboardInterrupt):
        simulate(folder / "small.net", inputs, "fast", workers=2, device=f"notes:{tmp_path}", progress=False)
    assert_no_process_left()
    for note in tmp_path.glob("pid-*"):
        assert not Path(f"/proc/{note.name.removeprefix('pid-')}").exists()


def test_workers_end_with_a_killed_parent(folder: Path, inputs: np.ndarray, tmp_path: Path):
    """SIGKILL of the parent leaves no worker, busy as they are, no temporary folder, and nothing on the terminal."""
    np.save(tmp_path / "in.npy", inputs)
    script = (
        "import sys, numpy, test_spread\n"
        "from netx_export import spread\n"
        "if __name__ == '__main__':\n"
        "    spread.run_chunk = test_spread.lasts\n"
        "    spread.simulate = None\n"
        "    spread.spread(sys.argv[1], numpy.load(sys.argv[2]), 'fast', workers=2, device='notes:' + sys.argv[3])\n"
    )
    (tmp_path / "script.py").write_text(script)
    arguments = [str(tmp_path / "script.py"), str(folder / "small.net"), str(tmp_path / "in.npy"), str(tmp_path)]
    (tmp_path / "temporary").mkdir()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    environment["TMPDIR"] = str(tmp_path / "temporary")
    with (tmp_path / "errors").open("w") as errors:
        parent = subprocess.Popen([sys.executable, *arguments], env=environment, stderr=errors)
    try:
        until = time.monotonic() + 60
        while len(workers := list(tmp_path.glob("pid-*"))) < 2:
            assert parent.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
    finally:
        parent.kill()
        parent.wait()
    until = time.monotonic() + 5
    while left := [note for note in workers if alive(int(note.name.removeprefix("pid-")))]:
        assert time.monotonic() < until, left
        time.sleep(0.05)
    assert (tmp_path / "errors").read_text() == ""  # of leaked semaphores too
    assert list((tmp_path / "temporary").iterdir()) == []


def alive(pid: int) -> bool:
    """Whether there is such a process, other than one that only waits to be collected."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_scripts_without_a_main_guard_are_told(folder: Path, inputs: np.ndarray, tmp_path: Path):
    """Workers import the script; where that asks for workers again the last line says what to do."""
    np.save(tmp_path / "in.npy", inputs)
    (tmp_path / "script.py").write_text(
        "import sys, numpy\nfrom netx_export.simulation import simulate\n"
        "simulate(sys.argv[1], numpy.load(sys.argv[2]), 'fast', workers=2)\n"
    )
    arguments = [str(tmp_path / "script.py"), str(folder / "small.net"), str(tmp_path / "in.npy")]
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "below `if __name__ == '__main__':`" in done.stderr.splitlines()[-1]


def killed_at_start(pipe: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_workers_killed_at_their_start(
    folder: Path, inputs: np.ndarray, alone: Simulation, monkeypatch: pytest.MonkeyPatch
):
    """One is tried again; where all are killed the message names the kill, and does not speak of scripts."""
    serve, started = spread._serve, []

    class First(spread._Worker):
        def __init__(self) -> None:
            started.append(self)
            monkeypatch.setattr(spread, "_serve", killed_at_start if len(started) == 1 else serve)
            super().__init__()

    with monkeypatch.context() as patch:
        patch.setattr(spread, "_Worker", First)
        result = simulate(folder / "small.net", inputs, "fast", workers=2, record=EVERYTHING, progress=False)
    assert_equal(result, alone)
    assert len(started) == 3
    monkeypatch.setattr(spread, "_serve", killed_at_start)
    with pytest.raises(
        SimulationError, match=r"^a worker process was killed by SIGKILL while it started, 3 times .*fewer"
    ):
        simulate(folder / "small.net", inputs, "fast", workers=2, progress=False)
    assert_no_process_left()


def test_folders_of_killed_processes_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The next folder's maker removes them; those in use and those of others stay."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / f"{PREFIX}mine").mkdir()
    script = "import os, signal; from netx_export.passing import passing_folder\n"
    script += "with passing_folder(): os.kill(os.getpid(), signal.SIGKILL)"
    subprocess.run([sys.executable, "-c", script], env={**os.environ, "TMPDIR": str(tmp_path)}, check=False)
    assert len(list(tmp_path.iterdir())) == 2
    with passing_folder() as first, passing_folder() as second:
        assert set(tmp_path.iterdir()) == {first, second, tmp_path / f"{PREFIX}mine"}
    assert list(tmp_path.iterdir()) == [tmp_path / f"{PREFIX}mine"]


def test_errors_of_users(folder: Path, inputs: np.ndarray):
    """What one process refuses is refused before any worker starts, in the same words; numbers of workers too."""
    path = folder / "small.net"
    for wrong, options in ((inputs[:, :1], {}), (inputs.astype(float), {}), (inputs, {"record": ["w"]})):
        messages = []
        for more in ({}, {"workers": 2}, {"scheduler": "tcp://127.0.0.1:1"}):
            with pytest.raises(NetworkError) as error:
                simulate(path, wrong, "fast", **options, **more)
            messages.append(str(error.value))
        assert len(set(messages)) == 1
    for options, words in (
        ({"workers": 0}, "workers is 0; give at least 1"),
        ({"workers": 1, "scheduler": "a:1"}, "either a number of workers or the address"),
        ({"workers": 1, "time_limit": 3}, "backend 'fast' has no option 'time_limit'"),
        ({"workers": 1, "threads": 0}, "threads is 0; give at least 1"),
    ):
        with pytest.raises(NetworkError, match=words):
            simulate(path, inputs, "fast", **options)
    assert_no_process_left()


@pytest.mark.lava
@pytest.mark.slow
def test_lava_on_workers(folder: Path, inputs: np.ndarray):
    """Every worker supervises its own Lava; the result is that of `fast`."""
    inputs = abs(inputs[:4])
    result = simulate(folder / "small.net", inputs, "lava", workers=2, record=EVERYTHING, progress=False)
    assert_equal(result, simulate(folder / "small.net", inputs, "fast", record=EVERYTHING, progress=False))
    assert_no_process_left()


def test_the_command_line(folder: Path, inputs: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """`mtt simulate` with --workers writes the file it writes without; contradictions are refused in one line."""
    np.save(tmp_path / "in.npy", inputs)
    command = ["simulate", str(folder / "small.net"), str(tmp_path / "in.npy"), "--backend", "fast"]
    for name, more in (("a.npz", []), ("b.npz", ["--workers", "2"])):
        assert main([*command, "--record", "u,spikes", "--output", str(tmp_path / name), *more]) == 0
    with np.load(tmp_path / "a.npz") as alone, np.load(tmp_path / "b.npz") as spread_out:
        assert (
            list(alone)
            == list(spread_out)
            == [
                *("spikes", "readout", "spikes.conv1", "u.conv1", "spikes.dense1", "u.dense1", "limits"),
            ]
        )
        for name in alone:
            np.testing.assert_array_equal(alone[name], spread_out[name])
    capsys.readouterr()
    for more, words in (
        (["--workers", "2", "--scheduler", "tcp://a:1"], "not allowed with argument"),
        (["--workers", "two"], "invalid int value: 'two'"),
        (["--workers", "0"], "workers is 0; give at least 1"),
        (["--time-limit", "3"], "backend 'fast' has no option 'time_limit'"),
        (["--stock"], "backend 'fast' has no option 'stock'"),
    ):
        try:
            code = main([*command, "--output", str(tmp_path / "c.npz"), *more])
        except SystemExit as stop:
            code = stop.code
        assert code == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert words in line
    assert not (tmp_path / "c.npz").exists()


# ------------------------------------------------------------------------------------------------ on a Dask cluster


def test_a_cluster_gives_what_one_process_gives(
    cluster: Any, folder: Path, inputs: np.ndarray, alone: Simulation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """One of two workers is killed in the middle: every sample is there, none twice, all equal."""
    address = cluster.scheduler_address
    options = {"record": EVERYTHING, "progress": False, "scheduler": address}
    assert_equal(simulate(folder / "small.net", inputs, "fast", **options), alone)
    monkeypatch.setattr(spread, "run_chunk", dies_once)
    result = simulate(folder / "small.net", inputs, "fast", device=f"notes:{tmp_path}", **options)
    assert_equal(result, alone)
    assert len((tmp_path / "log").read_text().splitlines()) > 8


def test_a_chunk_that_kills_the_cluster_is_an_error(
    cluster: Any, folder: Path, inputs: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    """Dask gives up what dying workers had to do; one line says which samples."""
    inputs = inputs[:6].copy()
    inputs[:, 0, 0, 0, 0] = 0
    inputs[3, 0, 0, 0, 0] = 3
    monkeypatch.setattr(spread, "run_chunk", dies_always)
    with pytest.raises(SimulationError, match=r"^samples \d+\.\.\d+: every Dask worker .* died.*$"):
        simulate(folder / "small.net", inputs, "fast", scheduler=cluster.scheduler_address, progress=False)


def test_a_scheduler_that_does_not_answer(folder: Path, inputs: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    """Nobody there, a server that says nothing, nonsense and nothing: one line within a bounded time."""
    pytest.importorskip("distributed", reason="needs the extra `cluster`")
    monkeypatch.setattr(spread, "CONNECT_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        free = socket.create_server(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        silence = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        for address in (f"tcp://127.0.0.1:{port}", silence, "foo://a:1", "nonsense", ""):
            started = time.monotonic()
            with pytest.raises(SimulationError, match=r"^no Dask scheduler answers at '.*': .+$") as error:
                simulate(folder / "small.net", inputs, "fast", scheduler=address, progress=False)
            assert "\n" not in str(error.value)
            assert time.monotonic() - started < 10


def test_a_cluster_without_workers(folder: Path, inputs: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    """Nothing waits for ever for a worker to come."""
    distributed = pytest.importorskip("distributed", reason="needs the extra `cluster`")
    monkeypatch.setattr(spread, "NO_WORKER_SECONDS", 0.5)
    with (
        distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster,
        pytest.raises(SimulationError, match=r"has had no worker for 0\.5 s"),
    ):
        simulate(folder / "small.net", inputs, "fast", scheduler=cluster.scheduler_address, progress=False)


def test_without_dask_it_is_said_how_to_install_it(folder: Path, inputs: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    """The extra is optional."""
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(SimulationError, match=r"needs Dask, .*--extra cluster"):
        simulate(folder / "small.net", inputs, "fast", scheduler="tcp://127.0.0.1:1", progress=False)
