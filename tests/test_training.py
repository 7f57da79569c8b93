"""Training: Algorithm 1, the way to integers, seeds, and runs that are stopped and resumed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mtt_lava import Run, Settings, evaluate, load_run, to_network, train, training
from mtt_lava.data import Dataset, from_events, from_images
from mtt_lava.evaluation import table
from mtt_lava.run import RunError
from mtt_lava.temporal import transform

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


def test_a_mini_batch_is_algorithm_1(monkeypatch: pytest.MonkeyPatch):
    """One optimiser step follows the mean of the gradients of s configurations."""
    trainer = training._Trainer(make(configurations=3), None, bars(20), progress=False)
    network, steps = trainer.network, []
    network.train()
    expected = [torch.zeros_like(p) for p in network.parameters()]
    x, labels = trainer._batch(torch.randperm(20, generator=torch.Generator().manual_seed(0)), None)
    for t in trainer.sampler.draw(0):
        network.zero_grad()
        F.cross_entropy(network(x, t) * 10 / t[-1], labels).backward()
        for total, p in zip(expected, network.parameters(), strict=True):
            total += 0 if p.grad is None else p.grad / 3

    def step() -> None:
        steps.append([torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in network.parameters()])

    monkeypatch.setattr(trainer.optimiser, "step", step)
    trainer.epoch(training.tqdm(disable=True))
    assert len(steps) == 1
    torch.testing.assert_close(steps[0], expected)


@pytest.mark.parametrize("profile", ["loihi2", "speck2e"])
def test_the_penalty_is_mean_spikes_of_hidden_neurons(profile: str):
    """A recording's spikes a neuron, mean over a layer, then over layers; the readout's spikes do not count."""
    trainer = training._Trainer(make(profile=profile, spike_penalty=1.0), None, bars(20), progress=False)
    x, _ = trainer._batch(torch.arange(20), None)
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
    trainer = training._Trainer(make(profile="speck2e", spike_penalty=1.0), None, data, progress=False)
    x, _ = trainer._batch(torch.arange(20), None)
    costs = []
    for t in (200, 400):
        spikes: list[torch.Tensor] = []
        trainer.network(x, (t, 1), spikes)
        costs.append(float(trainer._spikes(spikes, (t, 1))))
    assert costs[0] > 0
    assert costs[1] == pytest.approx(costs[0], rel=0.05)


def test_copies_count_from_the_recording_on():
    """Frames that are copied multiply what comes into a stage and all after it; summing them does not."""
    trainer = training._Trainer(make(profile="speck2e"), None, bars(20), progress=False)
    assert trainer._copies((1, 4)) == [1, 4]
    assert trainer._copies((4, 2)) == [1, 1]
    assert trainer._copies((2, 4, 1, 3)) == [1, 2, 2, 6]
    assert [trainer._span(t) for t in ((4, 4), (1, 4), (4, 2))] == [4, 16, 4]


def test_a_spike_penalty_saves_spikes():
    """The same training with it fires less, and still learns. (0.3 leaves some recordings without an answer.)"""
    settings = [make(profile="speck2e", epochs=30, spike_penalty=weight) for weight in (0.0, 0.1)]
    runs = [train(one, None, bars(120), progress=False) for one in settings]
    points = [evaluate(run, [4], bars(60, "test"), progress=False)[0] for run in runs]
    assert points[1].spikes["conv1"] < 0.8 * points[0].spikes["conv1"]
    assert points[1].accuracy > 0.9


@pytest.mark.parametrize("method", ["sdt", "nmt", "mtt"])
def test_finer_frames_add_one_configuration(method: str):
    """Mixtures train finer * T time steps too, on the recordings' own finer frames; all others see them summed."""
    plain, finer = (training._Trainer(make(method=method, finer=n), None, bars(20), progress=False) for n in (1, 3))
    mixed = method != "sdt"
    assert finer.sampler.draw(5) == plain.sampler.draw(5) + [(12, 12)] * mixed
    x = [trainer._batch(torch.arange(20), None)[0] for trainer in (plain, finer)]
    assert x[1].shape[-1] == (12 if mixed else 4)
    torch.testing.assert_close(transform(x[1], 4), x[0])
    finer.epoch(training.tqdm(disable=True))


@pytest.mark.parametrize("biases", ["none", "scaled"])
def test_a_stopped_run_resumes_to_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, biases: str):
    """Stopped in either phase and resumed, a run ends with the very weights of an unbroken one."""
    settings = make(biases=biases, norm="batch", augment=True, finer=2, spike_penalty=0.1)
    whole = train(settings, None, bars(), progress=False)
    real = training._Trainer.epoch
    for killed in (0, 2, 5):
        folder = tmp_path / str(killed)

        def epoch(self: Any, bar: Any, killed: int = killed) -> Any:
            if self.done == killed:
                raise KeyboardInterrupt
            return real(self, bar)

        monkeypatch.setattr(training._Trainer, "epoch", epoch)
        with pytest.raises(KeyboardInterrupt):
            train(settings, folder, bars(), progress=False)
        monkeypatch.setattr(training._Trainer, "epoch", real)
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
    trainer = training._Trainer(make(norm="batch"), None, bars(20), progress=False)
    trainer.network.train()
    for t in (1, 2, 3):
        trainer.network(trainer._batch(torch.arange(20), None)[0], (t, t))
    trainer.calibrate()
    x, _ = trainer._batch(torch.arange(20), None)
    current = trainer.network.blocks[0].synapse(x.movedim(-1, 0).contiguous().movedim(0, -1))
    torch.testing.assert_close(trainer.network.blocks[0].neuron.norm.mean, current.mean((0, 2, 3, 4)))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"method": "bptt"}, "method: Input should be 'sdt', 'nmt' or 'mtt' (got 'bptt')"),
        ({"epochs": 1}, "epochs: Input should be greater than or equal to 2 (got 1)"),
        ({"t_min": 9}, "time steps 9..4 are no range: need 1 <= t_min <= t_max"),
        ({"configurations": 2}, "configurations is 2: with sandwich it must be at least 3"),
        ({"biases": "kept"}, "biases 'kept' come from norm 'batch'; norm is 'scale'"),
        ({"profile": "speck2e", "norm": "batch", "biases": "scaled"}, "profile speck2e has no biases"),
        ({"profile": "loihi9"}, "loihi9"),
        ({"spike_penalty": -1.0}, "spike_penalty: Input should be greater than or equal to 0 (got -1.0)"),
        ({"finer": 0}, "finer: Input should be greater than 0 (got 0)"),
        ({"finer": 2, "input_form": "trim"}, "finer 2 bins recordings into more frames than T"),
        ({"colour": 3}, "colour: Extra inputs are not permitted"),
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
    with pytest.raises(RunError, match="has 4 outputs, but digits-dvs has 3 classes"):
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
        ("a", {"settings": b"{"}, "settings.json: damaged"),
        ("b", {"settings": newer}, "format version 99"),
        ("c", {"settings": None}, "not a run folder"),
        ("d", {"weights": tensors[: len(tensors) // 2]}, "weights.safetensors: damaged"),
        ("e", {"weights": None}, "weights.safetensors: no such file"),
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
