"""The measurements that the README quotes: what they count is right; how fast anything is, is not tested."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mtt_lava.cli import main
from mtt_lava.studies import bench


def tiny() -> bench.SimulatorComparison:
    return bench.simulators(
        widths=(1,), size=16, time_steps=8, samples=(6,), lava_samples=(2,), lava_seconds=0, repeats=1
    )


@pytest.mark.lava
@pytest.mark.slow
def test_simulators_are_compared_on_the_same_spikes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """No bit differs, layers spike, ratios are those of the samples a second, text and JSON say the same."""
    result = tiny()
    monkeypatch.setattr(bench, "simulators", lambda: result)
    assert main(["bench", "simulate", "--json", str(tmp_path / "a.json")]) == 0
    printed = capsys.readouterr().out
    content = json.loads((tmp_path / "a.json").read_text())
    (network,) = content["networks"]
    assert network["title"] == "16x16x2, conv 8 3x3 stride 2, conv 16 3x3 stride 2, dense 10"
    assert network["title"] in printed
    assert content["machine"] in printed
    speeds = network["simulators"]
    assert tuple(speeds) == bench.SIMULATORS
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

    def wrong(*_: object, record: tuple[str, ...] = (), **__: object) -> bench.lava_backend.Simulation:
        return bench.lava_backend.Simulation(
            np.zeros(1), np.zeros(1), {"spikes.conv1": np.ones((2, 3)), "spikes.dense1": np.ones((2, 1))}
        )

    monkeypatch.setattr(bench.lava_backend, "simulate", wrong)
    checked = {"spikes.conv1": np.ones((2, 3)), "spikes.dense1": np.array([[1], [0]])}
    speed = bench._lava_speed(Path("no.net"), np.zeros((9, 1, 4)), 0, 1, checked, stock=False)
    assert speed.mismatches == 1


def test_peak_memory_counts_what_was_held_for_a_moment():
    """100 MB that are freed at once still count; 50 MB, more than the allocator keeps for itself, less than 60."""
    for megabytes in (100, 50):
        with bench.PeakMemory() as memory:
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
    monkeypatch.setattr(bench, "train", lambda *_, **__: pytest.fail("trained again"))
    assert main(command) == 0
    assert capsys.readouterr().out == first


def test_bench_depth_refuses_what_it_cannot_stack(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """One line names the depths there are."""
    assert main(["bench", "depth", "--out", str(tmp_path), "--depths", "4"]) == 2
    assert capsys.readouterr().err == "mtt: error: no stack of 4 convolutions: use one of 3, 5, 7, 9\n"
