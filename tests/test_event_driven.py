"""From training with soft reset to the chip without a clock: the same weights, both ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from strategies import assert_same
from test_training import bars, make

import hw_profiles
from mtt_lava import Run, evaluate, export, export_speck, prove, to_network, train
from mtt_lava.cli import main
from mtt_lava.data import from_images, join, subset
from mtt_lava.evaluation import evaluate_events, spike_difference, table, to_events
from mtt_lava.run import RunError, load_run, load_settings
from mtt_lava.studies.order import orders
from mtt_lava.studies.paper import paper
from mtt_lava.studies.parts import folds
from mtt_lava.training import train_base
from netx_export import netx
from netx_export.event import backend as event_backend


@pytest.fixture(scope="module")
def speck(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run for Speck that has learned the bars."""
    settings = make(profile="speck2e", epochs=30)
    return train(settings, tmp_path_factory.mktemp("runs") / "speck", bars(120), progress=False)


def test_the_profile_selects_neuron_weights_and_readout(speck: Run) -> None:
    """Soft reset, counted output spikes, bare pools, weights in -128..127 that use their eight bits."""
    network = to_network(speck)
    assert (network.reset, network.readout, speck.settings.input_max) == ("subtract", "count", None)
    assert [layer.kind for layer in network] == ["conv", "pool", "flatten", "dense"]
    for layer in network.spiking:
        assert layer.weight is not None
        assert layer.weight.min() >= -128
        assert layer.weight.max() <= 127
        assert max(-layer.weight.min(), layer.weight.max()) >= 100
        assert np.any(layer.weight % 2)


def test_it_is_exported_as_a_script(speck: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command and the function write the same, with the NetX file beside it."""
    path = tmp_path / "bars.py"
    assert main(["export", str(speck.folder), str(path), "--for", "speck"]) == 0
    assert "fits speck2e" in capsys.readouterr().out
    written = path.read_bytes()
    path.unlink()
    network, report = export_speck(speck, path)
    assert report.fits
    assert path.read_bytes() == written
    assert_same(netx.read(tmp_path / "bars.net"), network)


def test_what_the_order_of_events_is_worth(speck: Run) -> None:
    """Each order is compared with that of the simulator; what is printed says so."""
    test, network = bars(60, "test"), to_network(speck)
    result = orders(speck, test, [0, 1], progress=False)
    assert [row["order"] for row in result.rows()] == [None, 0, 1]
    assert result.scores[None].accuracy == evaluate_events(speck, test, progress=False).accuracy
    options = {"chip": hw_profiles.load("speck2e").event_rules(), "progress": False}
    counts = [event_backend.simulate(network, to_events(test), order=order, **options).counts for order in (None, 0)]
    assert result.differences[0] == spike_difference(*counts)
    assert result.changed[0] == 0 or np.any(counts[0] != counts[1])
    assert "random, seed 1" in str(result)
    assert result.to_dict()["samples"] == 60
    with pytest.raises(RunError, match="its readout is a voltage"):
        orders(train(make(profile="loihi2", epochs=2), None, bars(), progress=False), bars(12, "test"))


def test_without_a_clock_it_answers_as_trained(speck: Run) -> None:
    """Accuracy event by event, with 8-bit weights and 16-bit states, and with weights before rounding."""
    test = bars(60, "test")
    assert evaluate(speck, [4], test, progress=False)[0].accuracy >= 0.95
    assert evaluate_events(speck, test, progress=False).accuracy >= 0.95
    assert evaluate_events(speck, test, quantised=False, progress=False).accuracy >= 0.95


@pytest.mark.parametrize("readout", ["count", "voltage"])
def test_a_network_that_says_nothing_is_never_right(readout: str) -> None:
    """Its first layer never fires, so no output spikes or all voltages are equal: accuracy 0, not class 0's share."""
    settings = make(profile="speck2e" if readout == "count" else "loihi2", epochs=2)
    run, test = train(settings, None, bars(), progress=False), bars(12, "test")
    assert run.network.model.readout == readout
    run.network.weighted[0].neuron.threshold_mantissa = 32_000
    results: list[Any] = evaluate(run, [1, 4], test, event_driven=readout == "count", progress=False)
    if readout == "voltage":
        results += prove(run, [4], "fast", dataset=test, progress=False)
    for result in results:
        assert (result.accuracy, result.score.silent, result.score.tied) == (0, 1, 0)
    assert 0 in test.labels


def test_the_clocked_network_approaches_the_event_driven_one(speck: Run) -> None:
    """The spike difference falls as T grows; operations of the first layer are the same, each event once."""
    *clocked, event = evaluate(speck, [1, 4, 16, 256], bars(60, "test"), event_driven=True, progress=False)
    differences = [point.spike_difference for point in clocked]
    assert differences == sorted(differences, reverse=True)
    assert differences[-1] < 0.5 * differences[1]
    assert event.time_steps is None
    assert {point.synops["conv1"] for point in clocked} == {event.synops["conv1"]}
    lines = table([*clocked, event]).splitlines()
    assert lines[5].split()[0] == "event"
    assert lines[0].split()[-1] == "SD"


def test_the_exported_file_runs_as_the_run(speck: Run, tmp_path: Path) -> None:
    """The .net file and the run give the same counts; the chip's check passes."""
    test = bars(12, "test")
    _, report = export(speck, tmp_path / "a.net")
    assert report.fits
    chip = hw_profiles.load("speck2e").event_rules()
    result = event_backend.simulate(tmp_path / "a.net", to_events(test), chip=chip, progress=False)
    np.testing.assert_array_equal(result.readout, evaluate_events(speck, test, progress=False).readout)
    assert netx.read(tmp_path / "a.net").info["profile"] == "speck2e"


def test_synaptic_operations_are_counted_alike(speck: Run) -> None:
    """One frame with one event: the clocked count of the first layer is the number of neurons in the kernel's reach."""
    events = to_events(bars(12, "test"))
    first = to_network(speck).layers[0]
    only = event_backend.Network((first,), reset="subtract")
    result = event_backend.simulate(only, events, progress=False)
    point = evaluate(speck, [3], bars(12, "test"), progress=False)[0]
    assert point.synops["conv1"] == pytest.approx(result.synops_per_layer[:, 0].mean())
    # Without a clock what the simulator counted is what the spikes of every neuron say.
    chip = hw_profiles.load("speck2e").event_rules()
    run = event_backend.simulate(to_network(speck), events, chip=chip, progress=False)
    point = evaluate_events(speck, bars(12, "test"), progress=False)
    np.testing.assert_allclose(list(point.synops.values()), run.synops_per_layer.mean(0))


def test_spike_difference_is_the_papers() -> None:
    """sum |s0 - s| / sum s0; nothing against nothing is 0, something against nothing infinite."""
    zero = np.zeros((2, 3))
    assert spike_difference(np.array([[4, 0], [1, 5]]), np.array([[3, 1], [1, 5]])) == 0.2
    assert spike_difference(zero, zero) == 0
    assert spike_difference(zero, zero + 1) == float("inf")


def test_still_images_have_no_events() -> None:
    """Refused with the reason."""
    images = from_images(np.zeros((3, 1, 8, 8), np.uint8), [0, 1, 2], classes=3)
    with pytest.raises(RunError, match="still images have no events"):
        to_events(images)


def test_a_base_and_its_fine_tuning_are_one_run(tmp_path: Path) -> None:
    """First phase alone, then the second from it, give the weights of an unbroken run; twice is once."""
    settings, data = make(profile="speck2e", method="sdt"), bars()
    for _ in range(2):
        train_base(settings, tmp_path / "base", data, progress=False)
    apart = train(settings, tmp_path / "run", data, base=tmp_path / "base", progress=False)
    whole = train(settings, None, data, progress=False)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, apart.network.state_dict()[name]), name


def test_folds_hold_every_recording_once() -> None:
    """Test parts are disjoint and together everything, classes evenly; training data is the rest."""
    cut = folds("digits-dvs", None, 5)
    sizes = [len(test) for _, test in cut]
    assert sum(sizes) == 1797
    assert max(sizes) - min(sizes) <= 1
    totals = sum(np.bincount(test.labels, minlength=10) for _, test in cut)
    for training, test in cut:
        assert len(training) + len(test) == 1797
        assert np.abs(np.bincount(test.labels, minlength=10) - totals / 5).max() <= 1
    assert len({test.fingerprint for _, test in cut}) == 5
    with pytest.raises(RunError, match="folds is 1"):
        folds("digits-dvs", None, 1)


def test_bench_paper_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table over all folds; a second call trains nothing and says the same, whatever accuracy it had stored."""
    cut = [(bars(30), bars(9, "test"))] * 2
    monkeypatch.setattr("mtt_lava.studies.parts.folds", lambda *_: cut)
    settings = make(profile="speck2e", epochs=4)
    first = paper(settings, tmp_path / "out", ("sdt", "mtt"), (1, 8), 2, progress=False)
    monkeypatch.setattr("mtt_lava.studies.parts.train", lambda *_, **__: pytest.fail("trained again"))
    monkeypatch.setattr("mtt_lava.studies.paper.evaluate", lambda *_, **__: pytest.fail("evaluated again"))
    path = tmp_path / "out" / "0" / "mtt" / "points.npz"
    with np.load(path) as file:
        arrays = dict(file)
    names = ("time_steps", "samples", "spikes", "synops", "spike_difference", "neurobench")
    old = [{name: point[name] for name in names} | {"accuracy": 2.0} for point in json.loads(str(arrays["points"]))]
    np.savez(path, **(arrays | {"points": np.array(json.dumps(old))}))
    again = paper(settings, tmp_path / "out", ("sdt", "mtt"), (1, 8), 2, progress=False)
    assert str(first) == str(again)
    assert first.columns == ["T=1", "T=4", "T=8", "event", "event, float"]
    assert json.dumps(first.to_dict()) == json.dumps(again.to_dict())
    assert (tmp_path / "out" / "paper.png").stat().st_size > 10_000
    rows = [line.split() for line in str(first).splitlines()]
    assert rows[6] == ["method", "in", "%", *" ".join(first.columns).split()]
    silent = [f"{100 * share:.2f}" for share in first.to_dict()["methods"]["mtt"]["silent"].values()]
    assert rows[9] == ["mtt", "silent", *silent]


def test_bench_paper_penalises_spikes_of_mixtures_and_of_sdt_apart(tmp_path: Path, monkeypatch: Any) -> None:
    """SDT stays as it is, once more with the penalty in a row of its own; all start from one base without it."""
    monkeypatch.setattr("mtt_lava.studies.parts.folds", lambda *_: [(bars(30), bars(9, "test"))] * 2)
    settings = make(profile="speck2e", epochs=4, spike_penalty=0.3)
    result = paper(settings, tmp_path / "out", ("sdt", "sdt-sparse", "mtt"), (1,), 2, progress=False)
    used = {name: load_settings(tmp_path / "out" / "1" / name) for name in ("base", "sdt", "sdt-sparse", "mtt")}
    assert {name: (s.method, s.spike_penalty) for name, s in used.items()} == {
        "base": ("sdt", 0.0),
        "sdt": ("sdt", 0.0),
        "sdt-sparse": ("sdt", 0.3),
        "mtt": ("mtt", 0.3),
    }
    assert [line.split()[0] for line in str(result).splitlines()[1:6:2]] == ["sdt", "sdt-sparse", "mtt"]
    with pytest.raises(
        RunError, match=r"method 'mtt-sparse' is unknown .*sparse\?\); there is: sdt, sdt-sparse, nmt, mtt"
    ):
        paper(settings, tmp_path / "other", ("mtt-sparse",), (1,), 2, progress=False)


def test_bench_paper_with_seeds_uses_the_data_set_s_own_split(tmp_path: Path, monkeypatch: Any) -> None:
    """Once a seed, each with its own base; the accuracy is the mean over seeds on the same test data."""
    splits = {"train": bars(30), "test": bars(9, "test")}
    monkeypatch.setattr("mtt_lava.studies.parts.open_dataset", lambda *_, split, **__: splits[split])
    settings = make(profile="speck2e", epochs=4)
    result = paper(settings, tmp_path / "out", ("sdt", "mtt"), (1,), seeds=(3, 5), progress=False)
    for seed in (3, 5):
        for name in ("base", "sdt", "mtt"):
            assert load_settings(tmp_path / "out" / f"seed{seed}" / name).seed == seed
    assert [row["seed"] for row in result.rows() if row["method"] == "mtt" and row["at"] == "event"] == [3, 5]
    assert result.pooled("mtt") == pytest.approx(result.shares("mtt").mean(0))
    assert "9 test recordings of digits-dvs, mean of 2 seeds (+- standard deviation of seeds)" in str(result)
    assert result.to_dict()["seeds"] == [3, 5]
    few = settings.model_copy(update={"samples": 20, "distil": 1.0})
    given: dict[str, Any] = {"seeds": (3,), "more": 6, "progress": False}
    result = paper(few, tmp_path / "more", ("sdt",), (1,), **given)
    assert "15 test recordings of digits-dvs (6 of them training recordings that no run saw)" in str(result)
    run = load_run(tmp_path / "more" / "seed3" / "sdt")
    assert run.settings.distil == 0  # it does not mix
    expected = evaluate(run, [1], join(splits["test"], subset(splits["train"], range(20, 26))), progress=False)
    assert result.points["sdt"][0][0].score == expected[0].score
    # What was stored is of other recordings.
    result = paper(few, tmp_path / "more", ("sdt",), (1,), seeds=(3,), progress=False)
    assert result.points["sdt"][0][0].samples == 9
    with pytest.raises(RunError, match="folds leave no recording unseen"):
        paper(few, tmp_path / "none", ("sdt",), (1,), more=6, progress=False)


def test_evaluate_event_shows_both(speck: Run, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    """`mtt evaluate --backend event` puts clocked and event-driven side by side, and into the JSON."""
    monkeypatch.setattr("mtt_lava.data.open_dataset", lambda *_, **__: bars(12, "test"))
    assert speck.folder is not None
    assert load_run(speck.folder).network.reset == "subtract"
    out = tmp_path / "points.json"
    arguments = ["evaluate", str(speck.folder), "--time-steps", "1,4", "--backend", "event", "--json", str(out)]
    assert main(arguments) == 0
    assert "event" in capsys.readouterr().out
    points = json.loads(out.read_text())["time_steps"]
    assert [point["time_steps"] for point in points] == [1, 4, None]
    assert points[0]["spike_difference"] >= 0
