"""Training: Algorithm 1, the way to integers, seeds, and runs that are stopped and resumed."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tqdm import tqdm

from mtt_lava import Run, Settings, evaluate, load_run, to_network, train, training
from mtt_lava.augmentation import draw, geometric
from mtt_lava.data import Dataset, frames, from_events, from_images
from mtt_lava.evaluation import table
from mtt_lava.run import LOCK, LOGIT_SCALE, RunError, locked, save_state
from mtt_lava.spiking import _ConvSynapse
from mtt_lava.temporal import transform
from mtt_lava.training import checkpoint, phases

MODEL = {
    "name": "tiny",
    "input": [2, 8, 8],
    "layers": [
        {"type": "conv", "channels": 4, "kernel": 3, "stride": 2, "padding": 1},
        {"type": "pool", "kernel": 2},
        {"type": "dense", "features": 3},
    ],
}


def bars(n: int = 60, split: str = "train") -> Dataset:
    """Three classes: events in a band at the left, at the top, or along the diagonal, over 100 ms."""
    rng = np.random.default_rng(0 if split == "train" else 1)
    dtype = [("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", bool)]
    recordings, labels = [], [i % 3 for i in range(n)]
    for label in labels:
        count = int(rng.integers(80, 120))
        along, across = rng.integers(0, 8, count), rng.integers(0, 3, count)
        events = np.zeros(count, dtype)
        events["x"], events["y"] = [(across, along), (along, across), (along, np.clip(along + across - 1, 0, 7))][label]
        events["t"], events["p"] = np.sort(rng.integers(0, 100_000, count)), rng.integers(0, 2, count)
        recordings.append(events)
    return from_events(recordings, labels, sensor_size=(8, 8, 2), duration=100_000, classes=3, name="bars", split=split)


def make(**values: Any) -> Settings:
    fixed = {"data": "digits-dvs", "time_steps": 4, "epochs": 6, "batch": 20, "augment": False}
    return Settings.make(MODEL, **(fixed | values))


def weights(run: Run) -> dict[str, torch.Tensor]:
    return run.network.state_dict()


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that has learned the bars."""
    settings = make(epochs=30)
    return train(settings, tmp_path_factory.mktemp("runs") / "bars", bars(120), progress=False)


def test_it_learns_and_runs_at_any_t(learned: Run):
    """The quantised network classifies new recordings, at its own T and at others."""
    points = evaluate(learned, [2, 4, 20], bars(60, "test"), progress=False)
    assert all(point.accuracy > 0.9 for point in points), table(points)
    assert all(point.spikes["conv1"] > point.spikes["pool1"] > 0 for point in points)


def test_stages_run_at_time_steps_of_their_own(learned: Run):
    """The same T everywhere is that T; others are what training runs; what cannot be is refused."""
    data = bars(60, "test")
    alike, own, plain = evaluate(learned, [(4, 4), (4, 2), 4], data, progress=False)
    assert (alike.score, alike.spikes, alike.label) == (plain.score, plain.spikes, "4-4")
    inputs = torch.from_numpy(frames(data, 4)[0]).float()
    with torch.no_grad():
        wanted = learned.network(inputs, (4, 2))
    np.testing.assert_array_equal(own.readout, wanted.numpy())
    assert own.accuracy > 0.6
    assert (own.synops, own.activity, own.to_dict()["stages"]) == ({}, None, [4, 2])
    with pytest.raises(RunError, match="time steps 4-2-1: tiny has 2 stages: give 2 numbers, at least 1 each"):
        evaluate(learned, [(4, 2, 1)], data, progress=False)


def test_a_run_folder_holds_the_run(learned: Run):
    """Settings, weights and metrics come back from the folder; nothing else is in it."""
    folder = learned.folder
    assert folder is not None
    assert sorted(p.name for p in folder.iterdir()) == ["metrics.jsonl", "settings.json", "weights.safetensors"]
    again = load_run(folder)
    assert again.settings == learned.settings
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(learned).items())
    data = bars(30, "test")
    assert evaluate(again, [3], data, progress=False) == evaluate(learned, [3], data, progress=False)
    lines = again.metrics
    assert [line["epoch"] for line in lines] == list(range(1, 31))
    assert [line["phase"] for line in lines] == ["float"] * 15 + ["quantised"] * 15
    assert lines[-1]["loss"] < lines[0]["loss"]


def test_eight_bits_are_used(learned: Run):
    """Weights are even integers of the chip's range, near its ends, and thresholds fit 17 bits."""
    for layer in to_network(learned):
        if layer.weight is not None and layer.name != "pool1":
            assert np.all(layer.weight % 2 == 0)
            assert layer.weight.min() >= -256
            assert layer.weight.max() <= 254
            assert np.abs(layer.weight).max() > 128
        if layer.neuron is not None:
            assert 1 <= layer.neuron.threshold < 1 << 17


def test_older_folders_keep_the_logit_scale_that_they_were_trained_with(tmp_path: Path):
    """Those from before it was a setting had 10; others keep theirs."""
    folder = tmp_path / "run"
    Run(make(), make().build()).save(folder)
    assert load_run(folder).settings.logit_scale == LOGIT_SCALE
    content = json.loads((folder / "settings.json").read_text())
    del content["logit_scale"]
    (folder / "settings.json").write_text(json.dumps(content))
    assert load_run(folder).settings == make(logit_scale=10.0)


@pytest.mark.parametrize("way", [None, "shared", "packed", "sharper"])
def test_a_mini_batch_is_algorithm_1(way: str | None, monkeypatch: pytest.MonkeyPatch):
    """One optimiser step follows the mean of the gradients of s configurations, of all its recordings or of a part."""
    shared = way == "shared"
    # Packed, weights would be centred on the mean input of all configurations.
    ways: dict[str | None, dict[str, Any]] = {
        None: {}, "shared": {"shared": True}, "packed": {"packed": True, "norm": "scale"},
        "sharper": {"logit_scale": 10.0},
    }  # fmt: skip
    values = ways[way]
    scale = values.get("logit_scale", LOGIT_SCALE)
    trainer = training.Trainer(make(configurations=3, **values), None, bars(20), progress=False)
    network, steps = trainer.network, []
    network.train()
    expected = [torch.zeros_like(p) for p in network.parameters()]
    x, labels = trainer.batch(torch.randperm(20, generator=torch.Generator().manual_seed(0)), None)
    parts = [slice(0, 7), slice(7, 14), slice(14, 20)] if shared else [slice(None)] * 3
    for t, part in zip(trainer.samplers[0].draw(0), parts, strict=True):
        network.zero_grad()
        F.cross_entropy(network(x[part], t) * scale / t[-1], labels[part]).backward()
        for total, p in zip(expected, network.parameters(), strict=True):
            total += 0 if p.grad is None else p.grad * (len(labels[part]) / 20 if shared else 1 / 3)

    def step() -> None:
        steps.append([torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in network.parameters()])

    monkeypatch.setattr(trainer.optimiser, "step", step)
    trainer.epoch(tqdm(disable=True))
    assert len(steps) == 1
    torch.testing.assert_close(steps[0], expected)


@pytest.mark.parametrize("profile", ["loihi2", "speck2e"])
def test_the_penalty_is_mean_spikes_of_hidden_neurons(profile: str):
    """A recording's spikes a neuron, mean over a layer, then over layers; the readout's spikes do not count."""
    trainer = training.Trainer(make(profile=profile, spike_penalty=1.0), None, bars(20), progress=False)
    x, _ = trainer.batch(torch.arange(20), None)
    spikes: list[torch.Tensor] = []
    trainer.network(x, (4, 4), spikes)
    hidden = spikes[: 2 if profile == "loihi2" else 1]  # Pools have neurons there; here the readout spikes instead.
    expected = sum(float(layer.sum()) / 20 / layer[0, ..., 0].numel() for layer in hidden) / len(hidden)
    assert expected > 0
    assert float(trainer._spikes(spikes, (4, 4))) == pytest.approx(expected)


def test_copies_are_divided_out_of_the_penalty():
    """A still image shown twice as long fires twice as often, and costs the same."""
    images = np.full((20, 2, 8, 8), 3)
    data = from_images(images, [i % 3 for i in range(20)], classes=3)
    trainer = training.Trainer(make(profile="speck2e", spike_penalty=1.0), None, data, progress=False)
    x, _ = trainer.batch(torch.arange(20), None)
    costs = []
    for t in (200, 400):
        spikes: list[torch.Tensor] = []
        trainer.network(x, (t, 1), spikes)
        costs.append(float(trainer._spikes(spikes, (t, 1))))
    assert costs[0] > 0
    assert costs[1] == pytest.approx(costs[0], rel=0.05)


def test_copies_count_from_the_recording_on():
    """Frames that are copied multiply what comes into a stage and all after it; summing them does not."""
    trainer = training.Trainer(make(profile="speck2e"), None, bars(20), progress=False)
    assert trainer.network.stages == [0, 0, 1]
    assert trainer._copies((1, 4)) == [1, 1, 4]
    assert trainer._copies((4, 2)) == [1, 1, 1]
    assert [trainer._span(t) for t in ((4, 4), (1, 4), (4, 2))] == [4, 16, 4]


def test_a_row_is_moved_along_itself_only():
    """What lies away from its ends stays in it, whatever the turn and the shift down."""
    frames = torch.zeros(2, 50, 1, 1, 101)
    frames[..., 40:61] = 1
    generator = torch.Generator().manual_seed(0)
    moved = geometric(frames, draw(5, 50, generator))
    assert moved.sum((0, 2, 3, 4)).min() > 0.85 * 2 * 21
    assert not torch.equal(moved, frames)


def test_a_spike_penalty_saves_spikes():
    """The same training with it fires less, and still learns; no recording goes without an answer for it."""
    settings = [make(profile="speck2e", epochs=30, spike_penalty=weight) for weight in (0.0, 1.0)]
    runs = [train(one, None, bars(120), progress=False) for one in settings]
    points = [evaluate(run, [4], bars(60, "test"), progress=False)[0] for run in runs]
    assert points[1].spikes["conv1"] < 0.8 * points[0].spikes["conv1"]
    assert points[1].accuracy > 0.9


@pytest.mark.parametrize("method", ["sdt", "nmt", "mtt"])
def test_finer_frames_add_one_configuration(method: str):
    """Mixtures train finer * T time steps too, on the recordings' own finer frames; all others see them summed."""
    plain, finer = (training.Trainer(make(method=method, finer=n), None, bars(20), progress=False) for n in (1, 3))
    mixed = method != "sdt"
    assert finer.samplers[1].draw(5) == plain.samplers[1].draw(5) + [(12, 12)] * mixed
    x = [trainer.batch(torch.arange(20), None)[0] for trainer in (plain, finer)]
    assert x[1].shape[-1] == (12 if mixed else 4)
    torch.testing.assert_close(transform(x[1], 4), x[0])
    finer.epoch(tqdm(disable=True))


@pytest.mark.parametrize("biases", ["none", "scaled"])
def test_a_stopped_run_resumes_to_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, biases: str):
    """Stopped in either phase and resumed, a run ends with the very weights of an unbroken one."""
    settings = make(biases=biases, norm="batch", augment=True, finer=2, spike_penalty=0.1)
    whole = train(settings, None, bars(), progress=False)
    real = training.Trainer.epoch
    for killed in (0, 2, 5):
        folder = tmp_path / str(killed)

        def epoch(self: Any, bar: Any, killed: int = killed) -> Any:
            if self.done == killed:
                raise KeyboardInterrupt
            return real(self, bar)

        monkeypatch.setattr(training.Trainer, "epoch", epoch)
        with pytest.raises(KeyboardInterrupt):
            train(settings, folder, bars(), progress=False)
        monkeypatch.setattr(training.Trainer, "epoch", real)
        if killed:
            with pytest.raises(RunError, match="training has not ended: go on with mtt train --resume"):
                load_run(folder)
        resumed = train(settings, folder, bars(), resume=True, progress=False)
        for name, value in weights(whole).items():
            assert torch.equal(value, weights(resumed)[name]), (killed, name)
        assert len(load_run(folder).metrics) == 6


def test_seeds_fix_results():
    """The same seed gives the same weights, another seed others."""
    runs = [train(make(epochs=2, seed=seed, augment=True), None, bars(), progress=False) for seed in (1, 1, 2)]
    name = "blocks.0.synapse.weight"
    assert torch.equal(weights(runs[0])[name], weights(runs[1])[name])
    assert not torch.equal(weights(runs[0])[name], weights(runs[2])[name])


def test_a_learned_quantised_bias_survives_the_folder(tmp_path: Path):
    """Biases kept for still images are saved, and lowered to mantissas that do not depend on T."""
    rng = np.random.default_rng(0)
    labels = [i % 3 for i in range(60)]
    images = rng.integers(0, 2, (60, 2, 8, 8))
    for image, label in zip(images, labels, strict=True):
        image[:, label * 2 : label * 2 + 3] += 3
    data = from_images(images, labels, classes=3)
    run = train(make(norm="batch", biases="kept", epochs=30), tmp_path / "run", data, progress=False)
    loaded = load_run(tmp_path / "run")
    assert len(loaded.network.biases) == 2
    biases = [[layer.neuron.bias for layer in to_network(loaded, t).spiking if layer.name != "pool1"] for t in (4, 40)]
    assert np.abs(biases[0][0]).max() > 0
    np.testing.assert_array_equal(biases[0][0], biases[1][0])
    points = evaluate(run, [4, 40], data, progress=False)
    assert min(p.accuracy for p in points) > 0.9, table(points)


def test_calibration_uses_the_training_t_only():
    """After calibration the norms hold statistics of T alone, whatever configurations came before."""
    trainer = training.Trainer(make(norm="batch"), None, bars(20), progress=False)
    trainer.network.train()
    for t in (1, 2, 3):
        trainer.network(trainer.batch(torch.arange(20), None)[0], (t, t))
    phases.calibrate(trainer)
    x, _ = trainer.batch(torch.arange(20), None)
    current = trainer.network.blocks[0].synapse(x.movedim(-1, 0).contiguous().movedim(0, -1))
    torch.testing.assert_close(trainer.network.blocks[0].neuron.norm.mean, current.mean((0, 2, 3, 4)))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"method": "bptt"}, "'nmt', 'mtt', 'accumulate', 'online' or 'online-nmt' (got 'bptt')"),
        ({"epochs": 1}, "epochs: Input should be greater than or equal to 2 (got 1)"),
        ({"t_min": 9}, "time steps 9..4 are no range: need 1 <= t_min <= t_max"),
        ({"configurations": 1}, "configurations is 1: with sandwich it must be at least 2"),
        ({"biases": "kept"}, "biases 'kept' come from norm 'batch'; norm is 'centred'"),
        ({"profile": "speck2e", "norm": "batch", "biases": "scaled"}, "profile speck2e has no biases"),
        ({"profile": "loihi9"}, "loihi9"),
        ({"spike_penalty": -1.0}, "spike_penalty: Input should be greater than or equal to 0 (got -1.0)"),
        ({"validate_on": 1.0}, "validate_on: must be a share from 0 to below 1, or test (got 1.0)"),
        (
            {"validate_on": "train"},
            "validate_on: must be a share from 0 to below 1, or test (got 'train')",
        ),
        ({"finer": 0}, "finer: Input should be greater than 0 (got 0)"),
        ({"finer": 2, "input_form": "trim"}, "finer 2 bins recordings into more frames than T"),
        ({"colour": 3}, "colour: field 'colour' is unknown; there is: model, data, root"),
    ],
)
def test_impossible_settings_are_refused_at_once(values: dict[str, Any], words: str):
    """The message names the field, the value and what is allowed."""
    with pytest.raises(ValueError) as error:
        make(**values)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"biases": "kept", "norm": "batch"}, "biases 'kept' with event data (bars)"),
        ({"data": "mars-dvs"}, "mars-dvs"),
        ({"batch": 2, "method": "mtt", "shared": True}, "a batch has 2 recordings, which 3 configurations share out"),
        ({"packed": True, "shared": True}, "same frames, but with shared each has its own: leave packed out"),
        ({"packed": True, "method": "accumulate"}, "but with method 'accumulate' each has its own: leave packed out"),
    ],
)
def test_settings_that_do_not_fit_the_data_are_refused(values: dict[str, Any], words: str, tmp_path: Path):
    """Before anything is trained or written."""
    with pytest.raises(ValueError) as error:
        train(make(**values), tmp_path / "run", None if "data" in values else bars(), progress=False)
    assert words in str(error.value)
    assert not (tmp_path / "run").exists()


def test_models_that_do_not_fit_the_data_are_refused(tmp_path: Path):
    """Wrong input shape and wrong number of classes."""
    with pytest.raises(RunError, match=r"model tiny takes input \[2, 8, 8\], but digits-dvs gives \[2, 34, 34\]"):
        train(make(), tmp_path / "a", progress=False)
    layers = [*MODEL["layers"][:-1], {"type": "dense", "features": 4}]
    settings = Settings.make(MODEL | {"layers": layers}, data="digits-dvs")
    with pytest.raises(RunError, match="has 4 outputs, but bars has 3 classes"):
        train(settings, tmp_path / "b", bars(), progress=False)


def test_run_folders_are_not_overwritten(learned: Run, tmp_path: Path):
    """Neither a run, nor somebody's folder; and only the same run is resumed."""
    folder = learned.folder
    assert folder is not None
    with pytest.raises(RunError, match="holds a run already"):
        train(learned.settings, folder, bars(), progress=False)
    with pytest.raises(RunError, match="its run has ended"):
        train(learned.settings, folder, bars(), resume=True, progress=False)
    with pytest.raises(RunError, match="its run has other settings"):
        train(make(seed=5), folder, bars(), resume=True, progress=False)
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(RunError, match="exists and is not an empty folder"):
        train(make(), tmp_path, bars(), progress=False)
    with pytest.raises(RunError, match="has no run to resume"):
        train(make(), tmp_path / "new", bars(), resume=True, progress=False)


def test_damaged_run_folders_are_refused(learned: Run, tmp_path: Path):
    """Every damage gives one line that names the file."""
    folder = learned.folder
    assert folder is not None

    def copy(name: str, **changed: bytes | None) -> Path:
        target = tmp_path / name
        target.mkdir()
        for path in folder.iterdir():
            content = changed.get(path.stem, path.read_bytes())
            if content is not None:
                (target / path.name).write_bytes(content)
        return target

    settings = json.loads((folder / "settings.json").read_text())
    newer = json.dumps(settings | {"format_version": 99}).encode()
    other = json.loads(json.dumps(settings))
    other["model"]["layers"][0]["channels"] = 8
    tensors = (folder / "weights.safetensors").read_bytes()
    for name, changed, words in [
        ("a", {"settings": b"{"}, "settings.json: is not valid JSON"),
        ("b", {"settings": newer}, "format version 99"),
        ("c", {"settings": None}, "not a run folder"),
        ("d", {"weights": tensors[: len(tensors) // 2]}, "weights.safetensors: damaged"),
        ("e", {"weights": None}, "weights.safetensors: cannot be read: No such file"),
        ("f", {"settings": json.dumps(other).encode()}, "holds another network than settings.json"),
        ("g", {"settings": b"[]"}, "settings.json: damaged"),
    ]:
        with pytest.raises(RunError) as error:
            load_run(copy(name, **changed))
        assert words in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("profile", ["loihi1", "loihi2"])
def test_the_profile_decides_weights_and_payload(profile: str):
    """Both Loihis hold 8-bit weights where signs are mixed; Loihi 1's spikes are binary, so is its input."""
    settings = make(profile=profile, epochs=2)
    assert settings.weight_bits == 8
    assert settings.input_max == (1 if profile == "loihi1" else None)
    run = train(settings, None, bars(), progress=False)
    assert run.network.weight_bits == 8
    assert to_network(run).info["input_max"] == settings.input_max


def test_a_diverged_training_says_so(tmp_path: Path):
    """Weights that are no numbers any more end the run with a remedy."""
    with pytest.raises(ValueError, match="lower the learning rate"):
        train(make(learning_rate=1e30), tmp_path / "run", bars(), progress=False)


# ------------------------------------------------------------------------------------------------ networks that live


def deep(convolutions: int) -> dict[str, Any]:
    """A plain stack, 8 channels wide, for the bars."""
    conv = {"type": "conv", "channels": 8, "kernel": 3, "padding": 1}
    layers = [conv] * convolutions
    layers[2:2] = [{"type": "pool", "kernel": 2}]
    return {"name": f"deep{convolutions}", "input": [2, 8, 8], "layers": [*layers, {"type": "dense", "features": 3}]}


@pytest.mark.parametrize(
    ("method", "profile"),
    [
        *(("mtt", profile) for profile in ("loihi2", "speck2e")),
        pytest.param("mtt", "loihi1", marks=pytest.mark.slow),
        *(pytest.param("sdt", profile, marks=pytest.mark.slow) for profile in ("loihi1", "loihi2")),
        ("sdt", "speck2e"),
    ],
)
def test_a_deep_network_lives_on_every_chip(profile: str, method: str):
    """Seven convolutions learn the bars; every layer fires, every class is answered, nothing is silent."""
    settings = Settings.make(deep(7), data="bars", profile=profile, method=method, time_steps=6, epochs=10, batch=20)
    run = train(settings, None, bars(180), progress=False)
    event_driven = profile == "speck2e"
    points = evaluate(run, [6], bars(60, "test"), event_driven=event_driven, progress=False)
    for point in points:
        assert all(point.spikes.values()), point.spikes
        assert min(point.score.wins) > 0.1, point.score
        assert point.score.silent == 0
    assert points[0].accuracy > 0.8


def test_a_network_trained_with_centred_weights_has_nothing_to_remove():
    """Lowering folds what training saw: before weights are rounded, no spike changes."""
    trainer = training.Trainer(make(profile="speck2e", epochs=4), None, bars(), progress=False)
    trainer.epochs_until(2)
    phases.calibrate(trainer)
    trainer.network.eval()
    x, full = trainer.batch(torch.arange(30), None)[0], (4, 4)
    before: list[torch.Tensor] = []
    after: list[torch.Tensor] = []
    trainer.network(x, full, before)
    trainer.network.fold_norms(False)
    trainer.network(x, full, after)
    changed = sum(int((a != b).sum()) for a, b in zip(before, after, strict=True))
    assert changed <= 1e-3 * sum(a.numel() for a in before)  # sums of floats in another order
    assert all(block.synapse.centring is None for block in trainer.network.weighted)


def test_what_inputs_carry_stands_for_a_bias():
    """The weights found come to 1 on inputs that are alike: of a convolution, of one in groups, of a dense layer."""
    conv = phases.Moments(_ConvSynapse(2, 4, 3))
    conv.add(torch.tensor([1.0, 3.0]).view(1, 2, 1, 1, 1).expand(5, 2, 6, 6, 4))
    carrier = conv.constant(1e-9)
    assert 9 * (carrier[0] + 3 * carrier[1]).item() == pytest.approx(1, rel=1e-4)
    grouped = phases.Moments(_ConvSynapse(4, 4, 3, groups=2))
    grouped.add(torch.full((2, 4, 5, 5, 3), 0.5))
    np.testing.assert_allclose(grouped.constant(1e-9), [1 / 9, 1 / 9], rtol=1e-4)  # two channels, nine taps of 0.5
    dense = phases.Moments(make().build().weighted[1].synapse)
    dense.add(torch.full((5, 16, 4), 0.25))
    assert dense.constant(1e-9).item() == pytest.approx(1 / 4, rel=1e-4)


def test_absorbed_biases_lose_less_than_removed_ones():
    """With a batch norm, accuracy after lowering is higher where weights stand for its biases."""
    lowered = {}
    for biases in ("absorbed", "none"):
        settings = Settings.make(
            deep(5), data="bars", profile="speck2e", method="sdt", norm="batch", biases=biases, time_steps=6, epochs=8,
            batch=20,
        )  # fmt: skip
        trainer = training.Trainer(settings, None, bars(180), progress=False)
        trainer.epochs_until(4)
        lowered[biases] = phases.lower(trainer)["lowered"]
    assert lowered["absorbed"]["before"] == lowered["none"]["before"]
    assert lowered["absorbed"]["after"] > lowered["none"]["after"]


def kill(trainer: Any) -> None:
    """Make every neuron silent for good."""
    for block in trainer.network.weighted:
        block.neuron._threshold = 1e9


def test_a_dead_network_stops_with_remedies(capsys: pytest.CaptureFixture[str]):
    """Training says at once what never fired, and stops after several epochs without an answer."""
    trainer = training.Trainer(make(profile="speck2e", epochs=20), None, bars(), progress=True)
    kill(trainer)
    with pytest.raises(RunError, match=r"after epoch 3 no output has answered .* 3 epochs .* ln\(3\) = 1.099") as error:
        trainer.epochs_until(9)
    assert "\n" not in str(error.value)
    assert "silent_epochs 0" in str(error.value)
    said = capsys.readouterr().err
    assert said.count("never fired: conv1, outputs 0, 1, 2") == 1
    assert [json.loads(line)["silent"] for line in trainer.lines] == [1.0, 1.0]


def test_a_dead_network_goes_on_where_asked():
    """With silent_epochs 0 the same training runs to its end, and its accuracy is 0."""
    trainer = training.Trainer(make(profile="speck2e", epochs=20, silent_epochs=0), None, bars(), progress=False)
    kill(trainer)
    trainer.epochs_until(5)
    assert json.loads(trainer.lines[-1])["accuracy"] == 0


def test_a_loss_that_has_run_away_stops_training():
    """Where every spike begets many, layer by layer, the loss leaves all that it was; training does not go on so."""
    trainer = training.Trainer(make(profile="speck2e", epochs=20), None, bars(), progress=False)
    trainer.epochs_until(2)
    for block in trainer.network.weighted:
        block.neuron._threshold *= 1e-3
    with pytest.raises(RunError, match=r"^epoch 6: training diverged: for 3 epochs .* above 10 times") as error:
        trainer.epochs_until(9)
    assert "\n" not in str(error.value)
    assert "silent_epochs 0" in str(error.value)


def test_a_penalty_is_no_divergence():
    """A loss that is large from the start, and does not grow, is what was asked for."""
    trainer = training.Trainer(make(profile="speck2e", epochs=8, spike_penalty=1000.0), None, bars(), progress=False)
    trainer.epochs_until(5)
    losses = [json.loads(line)["loss"] for line in trainer.lines]
    assert losses[0] > 10 * math.log(3)
    assert len(losses) == 5


def test_a_live_network_is_not_called_dead(learned: Run):
    """The last epochs name nothing that never fired."""
    assert learned.metrics[-1]["never_fired"] == []
    assert learned.metrics[-1]["silent"] == 0


def test_validation_holds_recordings_out(tmp_path: Path):
    """Accuracy on a held-out share after every epoch; the trained part is the rest, and seeds fix both."""
    runs = [train(make(validate_on=0.2), tmp_path / str(i), bars(100), progress=False) for i in range(2)]
    assert [m["validation"] for m in runs[0].metrics] == [m["validation"] for m in runs[1].metrics]
    assert all(set(m["validation"]) == {"accuracy", "silent", "tied"} for m in runs[0].metrics)
    trainer = training.Trainer(make(validate_on=0.2), None, bars(100), progress=False)
    assert len(trainer.labels) + len(trainer.held) == 100
    assert set(np.bincount(trainer.held.labels)) == {7}


def test_validation_changes_nothing_else():
    """A run with recordings of one's own to validate on has the weights of one without."""
    plain = train(make(), None, bars(60), progress=False)
    watched = train(make(), None, bars(60), validation=bars(30, "test"), progress=False)
    for name, value in weights(plain).items():
        assert torch.equal(value, weights(watched)[name]), name


def test_fewer_samples_are_the_first(tmp_path: Path):
    """`samples` trains on the first recordings, and refuses nothing where there are fewer."""
    assert len(training.Trainer(make(samples=25), None, bars(60), progress=False).labels) == 25
    assert len(training.Trainer(make(samples=999), None, bars(60), progress=False).labels) == 60


def test_the_first_phase_can_have_a_method_of_its_own():
    """float_method sdt runs T alone until weights are quantised, then the mixture."""
    settings = make(method="mtt", float_method="sdt", finer=2)
    trainer = training.Trainer(settings, None, bars(60), progress=False)
    assert trainer.samplers[0].draw(0) == [(4, 4)]
    assert len(trainer.samplers[1].draw(0)) == settings.configurations + 1
    assert settings.frames == 8


def test_lowering_reports_accuracy_before_and_after(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """One line on stderr, and the metrics of the epoch that follows."""
    run = train(make(), tmp_path / "run", bars(60), progress=True)
    (line,) = [m for m in run.metrics if "lowered" in m]
    assert line["epoch"] == 4
    assert 0 <= line["lowered"]["after"] <= 1
    assert "lowered to the chip's integers: accuracy on 60 training samples" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ folders and data


def test_two_trainings_cannot_share_a_folder(tmp_path: Path):
    """The second is refused in one line while the first has the folder; nothing of the first is lost."""
    with locked(tmp_path / "run"), pytest.raises(RunError, match="another process is training in it"):
        train(make(), tmp_path / "run", bars(), progress=False)
    train(make(), tmp_path / "run", bars(), progress=False)
    load_run(tmp_path / "run")


def test_what_a_killed_training_left_half_written_is_in_nobodys_way(tmp_path: Path):
    """A folder that holds temporary files of ours alone is as good as empty, and they go."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".settings.json.abc123.json").write_text("{")
    (folder / LOCK).touch()
    train(make(), folder, bars(), progress=False)
    assert {path.name for path in folder.iterdir()} == {"settings.json", "weights.safetensors", "metrics.jsonl"}


def test_a_refused_training_leaves_no_folder(tmp_path: Path):
    """An error before the first epoch does not make the folder."""
    with pytest.raises(RunError, match="has no run to resume"):
        train(make(), tmp_path / "run", bars(), resume=True, progress=False)
    assert not (tmp_path / "run").exists()


def test_a_run_is_resumed_with_the_same_recordings_and_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Other recordings, labels, classes or window are refused; threads, on which sums depend, are as at the start."""
    monkeypatch.setattr(training.Trainer, "run", lambda self: self.epochs_until(1))
    train(make(), tmp_path / "run", bars(60), progress=False)
    with pytest.raises(RunError, match="was trained on other recordings"):
        train(make(), tmp_path / "run", bars(90), resume=True, progress=False)
    same = bars(60)
    for change in ({"labels": same.labels[::-1]}, {"classes": ("a", "b", "c")}, {"duration": 200_000}):
        with pytest.raises(RunError, match="was trained on other recordings, labels, classes or duration: give the s"):
            train(make(), tmp_path / "run", replace(same, **change), resume=True, progress=False)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        train(make(), tmp_path / "run", bars(60), resume=True, progress=False)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(threads)


def test_a_run_knows_the_data_it_was_trained_on(learned: Run):
    """Other classes, or recordings of another shape, are refused by name."""
    others = replace(bars(9, "test"), classes=("left", "top", "diagonal"))
    with pytest.raises(RunError, match="its classes are left, top, diagonal; the run was trained on 0, 1, 2"):
        evaluate(learned, [4], others, progress=False)
    larger = replace(bars(9, "test"), sensor_size=(10, 8, 2))
    with pytest.raises(RunError, match=r"gives \[2, 8, 10\]; the run takes \[2, 8, 8\]"):
        evaluate(learned, [4], larger, progress=False)


def test_settings_that_declare_a_huge_network_take_no_memory(
    learned: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """They are compared with the file of weights before a network of that size is made."""
    assert learned.folder is not None
    copied = Path(shutil.copytree(learned.folder, tmp_path / "run"))
    content = json.loads((copied / "settings.json").read_text())
    content["model"]["layers"][0]["channels"] = 1 << 16
    (copied / "settings.json").write_text(json.dumps(content))
    monkeypatch.setattr(Settings, "build", lambda _: pytest.fail("the network was made"))
    with pytest.raises(RunError, match=r"holds another network than settings.json: [\d,]+ bytes, not [\d,]+"):
        load_run(copied)


@pytest.mark.parametrize("change", [{"epochs": "two"}, {"epochs": 10**6}, {"threads": "x"}, None])
def test_a_damaged_checkpoint_is_one_line(tmp_path: Path, change: dict[str, object] | None):
    """What the trainer itself keeps in a checkpoint is checked too."""
    settings = Settings.make(
        {"name": "t", "input": [4], "layers": [{"type": "dense", "features": 2}]}, data="digits-dvs", epochs=2
    )
    info = {"epochs": 1, "threads": 1} | (change or {})
    tensors = {"optimiser.0.step.more": torch.ones(1)} if change is None else {}
    save_state(tmp_path / "checkpoint.safetensors", settings.build(), tensors, info)
    trainer = SimpleNamespace(folder=tmp_path, settings=settings, network=settings.build(), data="")
    trainer.new_optimiser = lambda: torch.optim.AdamW(trainer.network.parameters())
    with pytest.raises(RunError, match=r"checkpoint\.safetensors: damaged") as error:
        checkpoint.restore(trainer)  # type: ignore[arg-type]
    assert len(str(error.value)) < 300
