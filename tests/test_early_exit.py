"""Early exit: how sure an answer is, thresholds that are not chosen on what they are used on, what is saved."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from test_training import bars, make

import hw_profiles
from mtt_lava import evaluate, load_run, to_network, train
from mtt_lava.cli import main
from mtt_lava.data import folds, split, subset
from mtt_lava.early_exit import (
    RULES,
    _halves,
    at,
    certainty,
    choose,
    course_of,
    course_of_events,
    early_exit,
    early_exit_events,
    exits,
    leave,
)
from mtt_lava.evaluation import to_events
from mtt_lava.run import LOGIT_SCALE, RunError, unseen
from mtt_lava.scoring import score
from mtt_lava.studies.exits import leaving
from mtt_lava.training import Trainer
from netx_export.event.backend import simulate as simulate_events

counted = arrays(
    np.int64, st.tuples(st.integers(2, 12), st.integers(2, 4), st.integers(1, 6)), elements=st.integers(0, 3)
)


@given(counted, st.sampled_from(RULES))
def test_certainty_is_of_the_answer_so_far(spikes: np.ndarray, rule: str):
    """It does not change with the order of classes, lies in its range, and is least where all outputs are alike."""
    readouts = spikes.cumsum(-1)
    sure = certainty(readouts, rule)
    assert sure.shape == (len(readouts), readouts.shape[2])
    np.testing.assert_allclose(certainty(readouts[:, ::-1], rule), sure, atol=1e-12)
    softer = certainty(readouts, rule, scale=LOGIT_SCALE / 2)
    np.testing.assert_allclose(softer, sure if rule == "margin" else certainty(readouts / 2, rule), atol=1e-12)
    alike = certainty(np.repeat(readouts[:, :1], readouts.shape[1], axis=1), rule)
    assert (sure >= alike - 1e-9).all()
    assert alike == pytest.approx({"margin": 0.0, "entropy": 0.0, "confidence": 1 / readouts.shape[1]}[rule])
    if rule != "margin":
        assert sure.max() <= 1 + 1e-9


@given(counted, st.floats(0, 4))
def test_an_exit_is_the_first_time_step_that_is_sure(spikes: np.ndarray, threshold: float):
    """Before it none is; where none is at all, the last time step answers."""
    sure = certainty(spikes.cumsum(-1), "margin")
    for row, step in zip(sure, exits(sure, threshold), strict=True):
        expected = next((t for t, value in enumerate(row, 1) if value >= threshold), len(row))
        assert step == expected


@settings(deadline=None)
@given(counted, st.sampled_from(RULES), st.sampled_from([0.0, 0.1, 0.5]), st.integers(0, 99))
def test_the_chosen_threshold_loses_what_is_allowed(spikes: np.ndarray, rule: str, loss: float, seed: int):
    """At it and at every higher one; it is the lowest such."""
    readouts = spikes.cumsum(-1)
    labels = np.random.default_rng(seed).integers(0, readouts.shape[1], len(readouts))
    sure = certainty(readouts, rule)

    def lost(threshold: float) -> float:
        right = score(at(readouts, exits(sure, threshold)), labels, "count").accuracy
        return score(readouts[..., -1], labels, "count").accuracy - right

    threshold = choose(readouts, labels, sure, loss, "count")
    tried = np.unique(sure)
    assert all(lost(other) <= loss + 1e-9 for other in tried[tried >= threshold])
    below = tried[tried < threshold]
    assert not len(below) or lost(below[-1]) > loss - 1e-9


@given(st.lists(st.integers(0, 3), min_size=2, max_size=40))
def test_halves_share_no_sample_and_every_class_evenly(labels: list[int]):
    """Each sample is in one half; a class is spread evenly, to within one."""
    first, second = _halves(np.array(labels))
    assert sorted([*first, *second]) == list(range(len(labels)))
    assert abs(len(first) - len(second)) <= 1
    for label in set(labels):
        counts = [sum(labels[i] == label for i in half) for half in (first, second)]
        assert abs(counts[0] - counts[1]) <= 1


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One of voltages, one of counts, and one without a clock."""
    folder = tmp_path_factory.mktemp("runs")
    models = {"voltage": make(epochs=16, samples=90), "event": make(epochs=16, profile="speck2e")}
    return {name: train(each, folder / name, bars(90), progress=False) for name, each in models.items()}


@pytest.mark.parametrize("rule", RULES)
def test_a_run_exits_early(runs: dict[str, Any], rule: str):
    """Fewer time steps and operations; without early exit the answers are those of evaluate."""
    data = bars(60, "test")
    found = early_exit(runs["voltage"], 8, rule, 0.02, data, progress=False)
    (point,) = evaluate(runs["voltage"], [8], data, progress=False)
    assert found.full == point.score
    assert found.differing == 0
    assert 1 <= found.steps.min() <= found.steps.max() <= 8
    assert found.steps.mean() < 8
    assert found.score.accuracy > found.full.accuracy - 0.15
    assert found.synops is not None
    operations = hw_profiles.synaptic_operations(to_network(runs["voltage"], 8), point.activity)
    assert found.synops[1] == pytest.approx(sum(operations), rel=1e-6)
    assert found.synops[0] < found.synops[1]
    assert sum(found.to_dict()["exits"]) == pytest.approx(1)
    assert "time steps on average" in str(found)


@pytest.mark.lava
def test_on_lava_every_answer_is_the_trained_network_s(runs: dict[str, Any]):
    """After each time step; so samples leave when they leave elsewhere."""
    data = bars(12, "test")
    given = (runs["voltage"], 4, "margin", 0.1, data)
    on = {backend: early_exit(*given, backend=backend, progress=False) for backend in ("fast", "lava")}
    assert [each.differing for each in on.values()] == [0, 0]
    np.testing.assert_array_equal(on["lava"].steps, on["fast"].steps)
    assert "0 of 48 answers, one a time step, differ" in str(on["lava"])


def test_in_parts_every_sample_runs_once_more_for_all_costs(runs: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    """Answers and costs are those of all samples at once; each part is simulated for its answers, and for its costs."""
    import mtt_lava.early_exit as module

    data, real, ran = bars(60, "test"), module.simulation.simulate, []
    whole = early_exit(runs["voltage"], 8, "margin", 0.02, data, progress=False)
    neurons = sum(int(np.prod(layer.shape)) for layer in to_network(runs["voltage"], 8).spiking)
    monkeypatch.setattr("netx_export.activity.RECORD_BYTES", 20 * 8 * neurons)
    monkeypatch.setattr(module.simulation, "simulate", lambda *a, **k: ran.append(len(a[1])) or real(*a, **k))
    parted = early_exit(runs["voltage"], 8, "margin", 0.02, data, progress=False)
    assert ran == [20] * 6
    np.testing.assert_array_equal(parted.steps, whole.steps)
    assert (parted.score, parted.thresholds) == (whole.score, whole.thresholds)
    assert parted.synops == pytest.approx(whole.synops)


def test_nothing_may_be_lost_where_nothing_is_allowed(runs: dict[str, Any]):
    """A loss of 0 on one half is one of 0 there: both halves used on themselves lose nothing."""
    data = bars(60, "test")
    found = early_exit(runs["voltage"], 8, "confidence", 0.0, data, progress=False)
    assert found.loss == 0
    assert found.score.accuracy >= found.full.accuracy - 0.1


def test_without_a_clock_it_answers_within_the_recording(runs: dict[str, Any]):
    """The first moment that an output leads by so many events, counted one by one."""
    run, data = runs["event"], bars(60, "test")
    found = early_exit_events(run, 0.02, data, progress=False)
    assert found.time_steps is None
    assert found.steps.max() <= data.duration
    assert np.median(found.steps) < data.duration
    more = {"chip": run.settings.chip.event_rules()}
    network = to_network(run)
    result = simulate_events(network, to_events(data), reset="subtract", record=("events",), progress=False, **more)
    sample, times, outputs = (np.asarray(getattr(result.events, name)) for name in ("sample", "t", "c"))
    for i in _halves(data.labels)[0][:10]:
        counts, when = np.zeros(3, int), data.duration
        for t, c in zip(times[sample == i], outputs[sample == i], strict=True):
            counts[c] += 1
            ordered = np.sort(counts)
            if ordered[-1] - ordered[-2] >= found.thresholds[0]:
                when = t
                break
        assert found.steps[i] == when
    assert "ms (median" in str(found)


def test_the_command(runs: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any):
    """evaluate --exit on both kinds of backend; JSON; refusals in a line."""
    monkeypatch.setattr(
        "mtt_lava.data.open_dataset", lambda *_, split, **__: bars({"train": 100}.get(split, 30), split)
    )
    voltage, event = (str(runs[name].folder) for name in ("voltage", "event"))
    base = ["--data", "digits-dvs", "--exit"]
    assert main(["evaluate", voltage, *base, "entropy", "--time-steps", "4,8", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)["exits"]
    assert [len(each["exits"]) for each in content] == [4, 8]
    assert main(["evaluate", event, *base, "margin", "--backend", "event"]) == 0
    assert "early exit by margin (event)" in capsys.readouterr().out
    assert main(["evaluate", voltage, *base, "margin", "--exit-unseen", "10"]) == 0
    assert "points on 10 training recordings that the run did not see" in capsys.readouterr().out
    for arguments, words in (
        ([voltage, *base, "luck"], "rule of early exit 'luck' is unknown; there is: confidence, entropy, margin"),
        ([voltage, *base, "margin", "--exit-loss", "-1"], "loss of accuracy is -0.01; give 0 to below 1"),
        ([event, *base, "margin"], "speck2e has no clock: exit by the lead of an output (--backend event)"),
        ([event, *base, "entropy", "--backend", "event"], "only the lead of an output tells: --exit margin"),
        ([voltage, *base, "margin", "--backend", "event"], "an answer is a count of events"),
        ([voltage, *base, "margin", "--samples", "1"], "needs at least 2 samples"),
        (
            [voltage, *base, "margin", "--exit-unseen", "11"],
            "10 training recordings were not trained on, and 11 are wanted",
        ),
    ):
        assert main(["evaluate", *arguments]) == 2
        assert words in capsys.readouterr().err


@pytest.mark.parametrize(("profile", "rules"), [("loihi2", RULES), ("speck2e", ("margin",))])
def test_folds_choose_thresholds_for_each_other(profile: str, rules: tuple[str, ...], tmp_path: Path, monkeypatch: Any):
    """Each by all recordings of the others, and by none of its own; a second call trains nothing."""
    cut = [(bars(60), test) for _, test in folds(bars(90, "test"), 3, seed=None)]
    monkeypatch.setattr("mtt_lava.studies.parts.folds", lambda *_: cut)
    given = make(epochs=8, profile=profile)
    result = leaving(given, tmp_path / "out", 4, 0.02, 3, progress=False)
    assert tuple(result.found) == rules
    runs = [load_run(tmp_path / "out" / str(i)) for i in range(3)]
    courses = [
        course_of(run, 4, test, progress=False) if profile == "loihi2" else course_of_events(run, test, progress=False)
        for run, (_, test) in zip(runs, cut, strict=True)
    ]
    for rule, (found,) in result.found.items():
        assert found.score.samples == 90
        assert len(found.thresholds) == 3
        alone = leave([courses[1], courses[2]], rule, 0.02, 4, "fast")
        # What the first fold has comes from the others alone: its own labels do not matter.
        changed = [courses[0]._replace(labels=(courses[0].labels + 1) % 3), *courses[1:]]
        assert leave(changed, rule, 0.02, 4, "fast").thresholds[0] == found.thresholds[0]
        assert len(alone.thresholds) == 2
        if profile == "loihi2":
            assert found.synops is not None
            assert found.synops[0] <= found.synops[1]
    monkeypatch.setattr("mtt_lava.studies.parts.train", lambda *_, **__: pytest.fail("trained again"))
    again = leaving(given, tmp_path / "out", 4, 0.02, 3, progress=False)
    assert json.dumps(again.to_dict()) == json.dumps(result.to_dict())
    assert "over 90 recordings of digits-dvs, 3 folds; each of the folds has" in str(again)


def test_seeds_choose_by_halves(tmp_path: Path, monkeypatch: Any):
    """On the data set's own split every seed is one result, whose halves choose for each other."""
    monkeypatch.setattr("mtt_lava.studies.parts.open_dataset", lambda *_, split, **__: bars(40, split))
    result = leaving(make(epochs=4), tmp_path / "out", None, 0.02, seeds=(1, 2), progress=False)
    assert [row["seed"] for row in result.rows()] == [1, 2] * 3
    assert all(len(each.thresholds) == 2 for each in result.found["margin"])
    assert "mean of seeds 1, 2" in str(result)


def test_a_threshold_is_chosen_on_what_the_run_did_not_see(runs: dict[str, Any]):
    """It is that of the unseen recordings whatever the test data are, and all of these have it."""
    run, data, rest = runs["voltage"], bars(60, "test"), subset(bars(170), range(90, 170))
    found = early_exit(run, 8, "margin", 0.02, data, unseen=rest, progress=False)
    course = course_of(run, 8, rest, progress=False)
    threshold = choose(course.readouts, rest.labels, course.sure("margin"), 0.02, "voltage")
    assert found.thresholds == (threshold,)
    assert (found.chosen_on, found.to_dict()["chosen_on"]) == (80, 80)
    own = course_of(run, 8, data, progress=False)
    np.testing.assert_array_equal(found.steps, exits(own.sure("margin"), threshold))
    assert "2.0 points on 80 training recordings that the run did not see" in str(found)
    free = early_exit_events(runs["event"], 0.02, data, unseen=rest, progress=False)
    assert len(free.thresholds) == 1
    assert free.chosen_on == 80


def test_unseen_recordings_are_behind_those_trained_on_and_those_held_out():
    """In this order, none of them trained on; more than there are is refused, and so are folds, which leave none."""
    data = bars(90)
    given = make(samples=60, validate_on=0.1, seed=3)
    used, held = split(subset(data, range(60)), 0.1, seed=3)
    found = unseen(given, data, 36)
    assert len(used) + len(held) == 60
    # What training takes is the rest.
    np.testing.assert_array_equal(Trainer(given, None, data, progress=False).labels, used.labels)
    for recording, label, other in zip(found.events, found.labels, [*range(60, 90), None], strict=False):
        expected = held if other is None else data
        np.testing.assert_array_equal(recording, expected.events[other or 0])
        assert label == expected.labels[other or 0]
    with pytest.raises(RunError, match="36 training recordings were not trained on, and 37 are wanted: take fewer"):
        unseen(given, data, 37)
    with pytest.raises(RunError, match="0 training recordings were not trained on"):
        unseen(make(), data, 1)
    with pytest.raises(RunError, match="unseen recordings are for seeds"):
        leaving(make(), Path("nowhere"), held=3)


def test_seeds_choose_on_unseen_recordings(tmp_path: Path, monkeypatch: Any):
    """One threshold a seed; that of its own run."""
    monkeypatch.setattr("mtt_lava.studies.parts.open_dataset", lambda *_, split, **__: bars(70, split))
    result = leaving(make(epochs=4, samples=40), tmp_path / "out", None, 0.02, seeds=(1, 2), held=30, progress=False)
    assert [each.chosen_on for of in result.found.values() for each in of] == [30] * 6
    run, rest = load_run(tmp_path / "out" / "seed2"), subset(bars(70), range(40, 70))
    course = course_of(run, run.settings.time_steps, rest, progress=False)
    threshold = choose(course.readouts, rest.labels, course.sure("entropy"), 0.02, "voltage")
    assert result.found["entropy"][1].thresholds == (threshold,)
    assert "points on 30 training recordings that the run did not see" in str(result)


def test_rules_are_named():
    """Anything else is refused."""
    with pytest.raises(RunError, match="there is: confidence, entropy, margin"):
        certainty(np.zeros((1, 2, 3)), "luck")
