"""The measurements that the README quotes: what they count is right; how fast anything is, is not tested."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_training import bars, make

from mtt_lava import Settings
from mtt_lava.cli import main
from mtt_lava.run import RunError, load_settings
from mtt_lava.studies import bench_train, mixing, peers, simulators
from mtt_lava.studies.peer_steps import Job
from mtt_lava.studies.recipe import recipe


def tiny() -> simulators.SimulatorComparison:
    return simulators.simulators(
        widths=(1,), size=16, time_steps=8, samples=(6,), lava_samples=(2,), lava_seconds=0, repeats=1
    )


@pytest.mark.lava
@pytest.mark.slow
def test_simulators_are_compared_on_the_same_spikes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """No bit differs, layers spike, ratios are those of the samples a second, text and JSON say the same."""
    result = tiny()
    monkeypatch.setattr(simulators, "simulators", lambda: result)
    assert main(["bench", "simulate", "--json", str(tmp_path / "a.json")]) == 0
    printed = capsys.readouterr().out
    content = json.loads((tmp_path / "a.json").read_text())
    (network,) = content["networks"]
    assert network["title"] == "16x16x2, conv 8 3x3 stride 2, conv 16 3x3 stride 2, dense 10"
    assert network["title"] in printed
    assert content["machine"] in printed
    speeds = network["simulators"]
    assert tuple(speeds) == simulators.SIMULATORS
    assert all(0.02 < rate < 0.6 for rate in network["rates"])
    assert [speed["mismatches"] for speed in speeds.values()] == [None, 0, 0, 0, 0]
    for name in ("bare convolutions", "SLAYER forward", "fast"):
        assert speeds[name]["steps_per_second"] == pytest.approx(8 * speeds[name]["samples_per_second"])
        assert speeds[name]["samples"] == 6
        assert f"fast / {name}" in network["ratios"] or name == "fast"
    fast, slayer = (speeds[name]["samples_per_second"] for name in ("fast", "SLAYER forward"))
    assert network["ratios"]["fast / SLAYER forward"] == pytest.approx(fast / slayer)
    for name in ("lava", "lava --stock"):
        assert speeds[name]["with_startup"] > 0
        assert speeds[name]["peak_mb"] > 20, "eleven processes"


def test_mismatches_are_counted(monkeypatch: pytest.MonkeyPatch):
    """A simulator whose spikes differ shows in the number of mismatching bits."""

    def wrong(*_: object, record: tuple[str, ...] = (), **__: object) -> simulators.lava_backend.Simulation:
        return simulators.lava_backend.Simulation(
            np.zeros(1), np.zeros(1), {"spikes.conv1": np.ones((2, 3)), "spikes.dense1": np.ones((2, 1))}
        )

    monkeypatch.setattr(simulators.lava_backend, "simulate", wrong)
    checked = {"spikes.conv1": np.ones((2, 3)), "spikes.dense1": np.array([[1], [0]])}
    speed = simulators._lava_speed(Path("no.net"), np.zeros((9, 1, 4)), 0, 1, checked, stock=False)
    assert speed.mismatches == 1


def test_peak_memory_counts_what_was_held_for_a_moment():
    """100 MB that are freed at once still count; 50 MB, more than the allocator keeps for itself, less than 60."""
    for megabytes in (100, 50):
        with simulators.PeakMemory() as memory:
            np.ones(megabytes << 17).sum()
        if memory.megabytes is None:
            pytest.skip("the system does not tell the peak of memory")
        assert 0.9 * megabytes < memory.megabytes < megabytes + 10


@pytest.mark.slow
def test_bench_depth_tells_the_living_from_the_dead(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """A row a network with its accuracy, what lowering cost and what is dead; a second call trains nothing."""
    few = ["--depths", "3", "--profiles", "speck2e", "--methods", "sdt", "--samples", "60", "--epochs", "2"]
    few += ["--distil", "1"]  # of which SDT, which does not mix, takes none
    command = ["bench", "depth", "--out", str(tmp_path / "runs"), *few, "--json", str(tmp_path / "a.json")]
    assert main(command) == 0
    first = capsys.readouterr().out
    content = json.loads((tmp_path / "a.json").read_text())
    (network,) = content["networks"]
    assert (network["depth"], network["profile"], network["method"]) == (3, "speck2e", "sdt")
    assert network["weights"] == 9 * (2 * 8 + 8 * 16 + 16 * 32) + 10 * 32 * 16
    assert network["point"]["time_steps"] is None
    never = [name for name, spikes in network["point"]["spikes"].items() if not spikes]
    assert network["dead"][: len(never)] == never
    assert f"{100 * network['point']['accuracy']:.1f}" in first
    monkeypatch.setattr("mtt_lava.studies.parts.train", lambda *_, **__: pytest.fail("trained again"))
    assert main(command) == 0
    assert capsys.readouterr().out == first


def test_bench_depth_refuses_what_it_cannot_stack(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """One line names the depths there are."""
    assert main(["bench", "depth", "--out", str(tmp_path), "--depths", "4"]) == 2
    assert capsys.readouterr().err == "mtt: error: no stack of 4 convolutions: use one of 3, 5, 7, 9\n"


def test_bench_train_measures_the_same_step_in_many_ways(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Ratios are to the quicker of the bare ones; text and JSON say the same; both phases take a step."""
    result = bench_train.steps(["small"], 1, match="speck2e, quantised", progress=False)
    found = {step.name: step for step in result.steps}
    bare = min(found[name].milliseconds for name in ("bare convolutions", "bare convolutions, channels last"))
    assert list(found)[2:] == ["speck2e, quantised", "speck2e, quantised, MTT"]
    assert all(step.ratio == step.milliseconds / bare for step in result.steps)
    monkeypatch.setattr(bench_train, "steps", lambda *_: result)
    assert main(["bench", "train", "--only", "small", "--json", str(tmp_path / "a.json")]) == 0
    printed, content = capsys.readouterr().out, json.loads((tmp_path / "a.json").read_text())
    assert [step["name"] for step in content["steps"]] == list(found)
    assert all(name in printed for name in (*found, content["machine"]))


def test_bench_train_knows_its_parts(capsys: pytest.CaptureFixture[str]):
    """What it does not measure is refused in one line."""
    assert main(["bench", "train", "--only", "vgg,smal"]) == 2
    assert "part of bench train 'smal' is unknown" in capsys.readouterr().err


def test_bench_train_measures_slayers_own_blocks():
    """They are the unmodified ones, and slower than the convolutions alone."""
    result = bench_train.steps(["small"], 1, match="SLAYER", progress=False)
    blocks = result.steps[-1]
    assert blocks.name == "SLAYER blocks"
    assert blocks.ratio > 1
    assert blocks.repeats == bench_train.SMALLER
    assert result.fewer == []


def test_slow_ways_are_repeated_less_often(monkeypatch: pytest.MonkeyPatch):
    """What would take more than its share of time is measured a few times, and the last line says how often."""
    monkeypatch.setattr(bench_train, "MOST", 0)
    result = bench_train.steps(["small"], 1, match="PyTorch loop", progress=False)
    assert [step.repeats for step in result.steps] == [bench_train.LEAST] * 3
    assert f", of PyTorch loop {bench_train.LEAST} (small)" in str(result).splitlines()[-1]


def python_with(peer: str, tmp_path: Path, code: str) -> Path:
    """A Python that has a module in the place of a peer."""
    (tmp_path / f"{peer}-1.0.0.dist-info").mkdir()
    (tmp_path / f"{peer}-1.0.0.dist-info" / "METADATA").write_text(f"Name: {peer}\nVersion: 1.0.0\n")
    (tmp_path / peer).mkdir()
    (tmp_path / peer / "__init__.py").write_text(code)
    (tmp_path / peer / "surrogate.py").write_text("atan = int")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nshift\nPYTHONPATH="{tmp_path}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return python


LEAKY = """
import torch

print("libraries talk")

class Leaky(torch.nn.Module):
    def __init__(self, **options):
        super().__init__()

    def reset_mem(self):
        pass

    def forward(self, current):
        return current.relu()
"""


def test_bench_train_measures_peers_in_their_own_python(tmp_path: Path):
    """Beside ours, with the versions found; the child is gone behind."""
    python = str(python_with("snntorch", tmp_path, LEAKY))
    result = bench_train.steps(["small"], 1, peers_python=python, match="snntorch", progress=False)
    assert [step.name for step in result.steps] == [*bench_train.BARE, "snntorch"]
    assert result.steps[-1].milliseconds > 0
    assert "snntorch 1.0.0" in str(result)
    assert result.to_dict()["peers"]["snntorch"] == "1.0.0"
    job = Job([["conv", 2, 3, 3, 1, 1], ["dense", 48, 10]], [2, 4, 4], 2, 3, 1, "cpu")
    with peers.Peer(python, "snntorch") as peer:
        assert peer.step(job)[0] > 0
        assert peer._child.poll() is None
    assert peer._child.poll() is not None


@pytest.mark.parametrize(
    ("code", "reason"),
    [("raise ImportError('for Python 4 only')", "for Python 4 only"), ("import os; os._exit(3)", "3")],
)
def test_a_peer_that_dies_is_one_line(tmp_path: Path, code: str, reason: str):
    """Its last words, or its exit code."""
    python = str(python_with("snntorch", tmp_path, code))
    with (
        peers.Peer(python, "snntorch") as peer,
        pytest.raises(RunError, match=f"snntorch in {python} stopped: .*{reason}$"),
    ):
        peer.step(Job([["conv", 2, 3, 3, 1, 1], ["dense", 48, 10]], [2, 4, 4], 2, 3, 1, "cpu"))
    assert peer._child.poll() is not None


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--device", "cuda:99"], "no device 'cuda:99': PyTorch sees cpu"),
        (["--device", "tpu"], "no device 'tpu': PyTorch sees cpu"),
        (["--peers", "no-such-python"], "--peers no-such-python: no such program"),
        (["--peers", "true"], "--peers true: there are no peers"),
        (["--peers", sys.executable], "there are no peers: install torch and any of spikingjelly, snntorch, sinabs"),
    ],
)
def test_bench_train_refuses_what_is_not_there(capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str):
    """A device, a program, peers: one line, exit code 2."""
    assert main(["bench", "train", *arguments]) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert error.count("\n") == 1


# ------------------------------------------------------------------------------------------------ mixing


def mixed(accuracies: dict[str, list[float]], milliseconds: dict[str, float]) -> mixing.Mixing:
    """As if trained in two folds, of 100 and of 300 recordings, at T = 1, 2 and 10."""

    def points(values: list[float], samples: int) -> list[Any]:
        at = zip((1, 2, 10), values, strict=True)
        return [SimpleNamespace(time_steps=t, score=SimpleNamespace(accuracy=a), samples=samples) for t, a in at]

    folds = {name: [points([v - 0.3 for v in of], 100), points([v + 0.1 for v in of], 300)]
             for name, of in accuracies.items()}  # fmt: skip
    return mixing.Mixing(Settings.make("nmnist-3c1fc", data="digits-dvs"), folds, (0,), milliseconds)


def test_the_cheapest_way_to_mix_is_as_good_from_two_time_steps_on():
    """Cost is that of a step to SDT's; what is lost at T = 1 does not count, what is lost anywhere else does."""
    reference = [0.80, 0.81, 0.82]
    result = mixed(
        {
            "sdt": [0.2, 0.4, 0.9],
            "independent:3": reference,
            "antithetic:2": [0.5, 0.805, 0.83],
            "independent:1": [0.8, 0.81, 0.79],
        },
        {"sdt": 10.0, "independent:3": 17.0, "antithetic:2": 11.0, "independent:1": 6.0},
    )
    np.testing.assert_allclose(result.pooled("independent:3"), reference)
    assert result.cheapest == "antithetic:2"
    assert result.cost("antithetic:2") == pytest.approx(1.1)
    assert result.loss("antithetic:2") == pytest.approx(0.005)
    assert result.loss("independent:1") == pytest.approx(0.03)
    result.milliseconds["antithetic:2"] = 18.0
    assert result.cheapest == "independent:3"


def test_ways_to_mix_have_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A way, a number, and whether the ends are among them; anything else is refused in a line."""
    assert mixing.overrides("antithetic:2+ends") == {
        "method": "mtt", "draws": "antithetic", "configurations": 2, "sandwich": True, "shared": False, "packed": False
    }  # fmt: skip
    assert mixing.overrides("independent:4+shared") == {
        "method": "mtt", "draws": "independent", "configurations": 4, "sandwich": False, "shared": True,
        "packed": False
    }  # fmt: skip
    assert mixing.overrides("antithetic:2+packed")["packed"]
    arguments = ["bench", "mixing", "--data", "digits-dvs", "--out", str(tmp_path / "m"), "--samplers"]
    for name, words in (
        ("paired:2", "sampler 'paired:2': give sdt, or independent|antithetic|stratified:S[+ends][+shared][+packed]"),
        ("antithetic:0", "sampler 'antithetic:0': give"),
        ("antithetic:2+packed+packed", "sampler 'antithetic:2+packed+packed': give"),
        ("stratified:1+ends", "configurations is 1: with sandwich it must be at least 2"),
    ):
        assert main([*arguments, name]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


@pytest.mark.slow
def test_bench_mixing_goes_on_where_it_was_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """What is trained already is not trained again; accuracies are the same, times are measured anew."""
    arguments = ["bench", "mixing", "--data", "digits-dvs", "--samplers", "antithetic:2", "--folds", "2", "--epochs"]
    arguments += ["2", "--samples", "100", "--time-steps", "4", "--out", str(tmp_path / "m"), "--json"]
    contents = []
    for number in range(2):
        assert main([*arguments, str(tmp_path / f"{number}.json")]) == 0
        assert "the cheapest that loses at most 1 point" in capsys.readouterr().out
        contents.append(json.loads((tmp_path / f"{number}.json").read_text())["samplers"])
    assert list(contents[0]) == ["sdt", "independent:3", "antithetic:2"]
    assert [of["folds"] for of in contents[0].values()] == [of["folds"] for of in contents[1].values()]


def test_bench_recipe_changes_one_thing_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Every change alone against the recipe as it is, fold by fold; a second call trains nothing and says the same."""
    monkeypatch.setattr("mtt_lava.studies.parts.folds", lambda *_: [(bars(30), bars(12, "test"))] * 2)
    settings = make(epochs=4, profile="speck2e")
    changes = {"finer=2+spike_penalty=0.1": {"finer": "2", "spike_penalty": "0.1"}, "loss=steps": {"loss": "steps"}}
    found = recipe(settings, tmp_path / "out", changes, (1, 4), 2, progress=False)
    stored = [load_settings(tmp_path / "out" / "1" / name.replace(" ", "-")) for name in found.points]
    assert [(s.finer, s.spike_penalty, s.loss) for s in stored] == [(1, 0, "mean"), (2, 0.1, "mean"), (1, 0, "steps")]
    assert found.columns == ["T=1", "T=4", "event"]
    gained, error = found.gain("loss=steps")
    each = found.shares("loss=steps") - found.shares("as it is")
    np.testing.assert_allclose(gained, each.mean(0))
    np.testing.assert_allclose(error, each.std(0, ddof=1) / 2**0.5)
    monkeypatch.setattr("mtt_lava.studies.parts.train", lambda *_, **__: pytest.fail("trained again"))
    again = recipe(settings, tmp_path / "out", changes, (1, 4), 2, progress=False)
    assert json.dumps(again.to_dict()) == json.dumps(found.to_dict())
    assert "over 24 recordings of digits-dvs, 2 folds" in str(again)
    assert "nan" not in str(again)
    alone = dataclasses.replace(again, points={name: parts[:1] for name, parts in again.points.items()})
    assert "one fold only" in str(alone)
    assert "nan" not in str(alone)
    assert (tmp_path / "out" / "recipe.png").stat().st_size > 5_000
    for text, words in (
        ("finr=4", "'finr=4' is no change: give FIELD=VALUE of the settings"),
        ("finer", "'finer' is no change"),
        ("seed=3", "seed is the same for all ways that are compared"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["bench", "recipe", "--data", "digits-dvs", "--change", text, "--out", str(tmp_path / "x")])
        assert ended.value.code == 2
        assert words in capsys.readouterr().err
