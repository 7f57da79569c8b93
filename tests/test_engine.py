"""Where training runs: several processes as one, devices and loggers that there are not."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_training import bars, make

from mtt_lava import load_run, together, train
from mtt_lava.neuron import Centring, Neuron, Norm
from mtt_lava.run import RunError
from mtt_lava.training.engine import Engine

MTT = [sys.executable, "-c", "import sys; from mtt_lava.cli import main; sys.exit(main())"]
MODEL = """
name = "tiny"
input = [2, 34, 34]
[[layers]]
type = "conv"
channels = 4
kernel = 3
stride = 2
padding = 1
[[layers]]
type = "pool"
kernel = 2
[[layers]]
type = "dense"
features = 10
"""


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """A short training, but for its folder."""
    model = tmp_path / "tiny.toml"
    model.write_text(MODEL)
    options = "--data digits-dvs --samples 75 --epochs 4 --time-steps 4 --batch 25 --accelerator cpu"
    return ["train", str(model), *options.split()]


def run(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, **options)


def script(folder: Path) -> str:
    """A program as the console script is one, which processes can start anew."""
    path = folder / "mtt.py"
    path.write_text("import sys\nfrom mtt_lava.cli import main\nsys.exit(main())\n")
    return str(path)


def check_equal(one: Path, other: Path) -> None:
    """Losses and accuracies of two runs are the same within rounding, epoch by epoch, and so are their weights."""
    for a, b in zip(load_run(one).metrics, load_run(other).metrics, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)
        assert a["accuracy"] == pytest.approx(b["accuracy"], abs=0.02)
        assert a["never_fired"] == b["never_fired"]
    a, b = (load_run(folder).network.state_dict() for folder in (one, other))
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], rtol=1e-2, atol=1e-2)


@pytest.mark.slow
def test_two_processes_train_as_one(arguments: list[str], tmp_path: Path):
    """Each has half of every mini-batch: losses, accuracies and weights are those of one process with all of it."""
    program, folder = script(tmp_path), tmp_path / "two"
    assert run(*MTT, *arguments, "--out", str(tmp_path / "one")).returncode == 0
    done = run(sys.executable, program, *arguments, "--out", str(folder), "--devices", "2", "--log", "csv,tensorboard")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("2,632 weights") == 1
    check_equal(tmp_path / "one", folder)
    with (folder / "logs" / "csv" / "version_0" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["loss"]) for row in rows if row["loss"]]
    epochs = [float(row["epoch_loss"]) for row in rows if row["epoch_loss"]]
    np.testing.assert_allclose(np.reshape(losses, (4, 3)).mean(1), epochs, rtol=1e-6)
    np.testing.assert_allclose(epochs, [line["loss"] for line in load_run(folder).metrics])
    assert list((folder / "logs" / "tensorboard" / "version_0").glob("events*"))
    again = run(sys.executable, program, *arguments, "--out", str(folder), "--devices", "2")
    assert again.returncode == 2
    assert again.stderr.count("holds a run already") == 1
    assert "Traceback" not in again.stderr


@pytest.mark.slow
@pytest.mark.parametrize("method", ["online-nmt", "accumulate --finer 2 --loss steps", "mtt --shared"])
def test_two_processes_train_as_one_by_other_methods_too(method: str, arguments: list[str], tmp_path: Path):
    """Borders, drawn time steps and what is done to each recording are the same in both."""
    arguments += ["--method", *method.split(), "--augment", "flip,roll:3,cutout:5,drop:0.2,time:0.1"]
    for devices in ("1", "2"):
        folder = str(tmp_path / devices)
        done = run(sys.executable, script(tmp_path), *arguments, "--out", folder, "--devices", devices)
        assert done.returncode == 0, done.stderr
    check_equal(tmp_path / "1", tmp_path / "2")


@pytest.mark.slow
def test_torchrun_starts_them_too(arguments: list[str], tmp_path: Path):
    """The same under torchrun, without a word about devices."""
    assert run(*MTT, *arguments, "--out", str(tmp_path / "one")).returncode == 0
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = run(*launcher, script(tmp_path), *arguments, "--out", str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr
    check_equal(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on(arguments: list[str], tmp_path: Path):
    """SIGKILL again and again, in the middle of epochs too: the weights in the end are those of an unbroken run."""
    every_step = "import mtt_lava.training.loop as l; l.CHECKPOINT_SECONDS = -1; "
    program = [*MTT[:2], every_step + MTT[2]]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run(*program, *arguments, "--out", str(whole)).returncode == 0
    rng, resume = np.random.default_rng(0), []
    for _ in range(5):
        process = subprocess.Popen([*program, *arguments, "--out", str(broken), *resume], stderr=subprocess.PIPE)
        while process.poll() is None and not (broken / "checkpoint.safetensors").exists():
            time.sleep(0.01)
        before = (broken / "checkpoint.safetensors").stat().st_mtime_ns
        while process.poll() is None and (broken / "checkpoint.safetensors").stat().st_mtime_ns == before:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        resume = ["--resume"]
        if (broken / "weights.safetensors").exists():
            break
    else:
        assert run(*program, *arguments, "--out", str(broken), "--resume").returncode == 0
    a, b = (load_run(folder) for folder in (whole, broken))
    for name, value in a.network.state_dict().items():
        assert torch.equal(value, b.network.state_dict()[name]), name
    times = ("seconds", "waited")
    strip = [[{k: v for k, v in line.items() if k not in times} for line in each.metrics] for each in (a, b)]
    assert strip[0] == strip[1]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"devices": 0}, "devices is 0; give at least 1"),
        ({"accelerator": "tpu"}, "accelerator 'tpu' is unknown (did you mean cpu?); there is: auto, cpu, cuda"),
        ({"log": ["wandb"]}, "logger 'wandb' is unknown; there is: csv, tensorboard"),
        ({"log": ["csv"], "out": None}, "loggers write into the run folder: name one"),
        ({"accelerator": "cuda"}, "PyTorch sees no GPU here"),
    ],
)
def test_what_there_is_not_is_refused(
    values: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """In one line, before anything is written."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(RunError) as error:
        train(make(), dataset=bars(), progress=False, **{"out": tmp_path / "run"} | values)
    assert words in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Loggers and several devices need an extra."""
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(RunError, match=r"need the extra `training` \(pip install 'mtt-lava\[training\]'\)"):
        train(make(), tmp_path / "run", bars(), progress=False, log=["csv"])


# ------------------------------------------------------------------------------------------------ halves as a whole


class Halves:
    """In place of other processes: each call's values are added to those of the same call of a run before."""

    def __init__(self) -> None:
        self.other: list[torch.Tensor] = []
        self.kept: list[torch.Tensor] = []

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        self.kept.append(values.detach().clone())
        return values + self.other[len(self.kept) - 1] if len(self.kept) <= len(self.other) else values


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(1, 4),
    st.booleans(),
    st.integers(0, 99),
    st.sampled_from(["norm", "centring"]),
)
def test_statistics_of_parts_are_those_of_the_whole(first: int, second: int, centred: bool, seed: int, what: str):
    """Norms and centring see the mean over all processes, however unevenly a mini-batch is shared out."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(first + second, 3, 4, 4, 5, generator=generator)

    def outputs(x: torch.Tensor) -> tuple[torch.Tensor, torch.nn.Module]:
        if what == "centring":
            module: Any = Centring(3, 2)
            return module(torch.linspace(0, 1, 6).view(2, 3), x.movedim(-1, 0).flatten(0, 1)), module
        module = Norm(3, centred)
        return module(x), module

    whole, module = outputs(x)
    halves = Halves()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(together, "several", lambda: True)
        patch.setattr(together, "summed", halves)
        outputs(x[first:])
        halves.other, halves.kept = halves.kept, []
        part, other = outputs(x[:first])
    torch.testing.assert_close(part, whole[:first] if what == "norm" else whole, rtol=1e-4, atol=1e-5)
    for name, value in module.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("centred", [True, False])
def test_compiled_neurons_see_all_processes_too(centred: bool):
    """Spikes of a part are those it has in the whole, and so are the norm's running statistics."""
    x = torch.rand(6, 3, 4, 4, 5, generator=torch.Generator().manual_seed(0)) * 4

    def outputs(x: torch.Tensor) -> tuple[torch.Tensor, Norm]:
        neuron = Neuron()
        neuron.norm = Norm(3, centred)
        return neuron(x), neuron.norm

    whole, norm = outputs(x)
    halves = Halves()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(together, "several", lambda: True)
        patch.setattr(together, "summed", halves)
        outputs(x[2:])
        halves.other, halves.kept = halves.kept, []
        part, other = outputs(x[:2])
    assert (part != whole[:2]).float().mean() < 0.01
    torch.testing.assert_close(other.mean, norm.mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(other.power, norm.power, rtol=1e-4, atol=1e-5)


def test_an_engine_alone_needs_no_fabric():
    """One device is PyTorch's own, and gives back what it is given."""
    engine = Engine(accelerator="cpu")
    assert repr(engine) == "<Engine: cpu, process 1 of 1>"
    assert engine.synchronise([], (1.5,)) == [1.5]
    assert engine.first_does(lambda: 3) == 3
    assert json.dumps(engine.mine(torch.arange(4)).tolist()) == "[0, 1, 2, 3]"
