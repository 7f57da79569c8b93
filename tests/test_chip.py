"""What a chip decides before training, and what a run keeps of it afterwards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_deploy import MODEL as SMALL
from test_deploy import small_run
from test_training import MODEL, bars, make

import hw_profiles
from mtt_lava import (
    Run,
    Settings,
    SpikingNetwork,
    evaluate,
    export,
    load_model,
    load_run,
    prove,
    sweep,
    to_network,
    train,
    training,
)
from mtt_lava.cli import export_main, main
from mtt_lava.evaluation import run_network
from mtt_lava.lowering import untrained
from mtt_lava.run import RunError, load_settings
from netx_export import read
from netx_export.simulation import simulate

# Before training ---------------------------------------------------------------------------------------------


def conv(channels: int, kernel: int = 3, **more: Any) -> dict[str, Any]:
    return {"type": "conv", "channels": channels, "kernel": kernel} | more


def of(*layers: dict[str, Any], size: int = 32, features: int = 10) -> dict[str, Any]:
    """A model with a dense layer at the end."""
    return {"name": "mine", "input": [2, size, size], "layers": [*layers, {"type": "dense", "features": features}]}


def pool(kernel: int) -> dict[str, Any]:
    return {"type": "pool", "kernel": kernel}


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (of(conv(8, padding=1), pool(3)), ["pool1: pool 3 not in 1, 2, 4, 8", "or a strided convolution"]),
        (of(pool(8), conv(8)), ["pool1: pool of the input 8 not in 1, 2, 4", "only the camera does"]),
        (of(conv(8, 17), pool(4)), ["conv1: kernel height or width 17 > 16", "use a smaller kernel"]),
        (of(conv(4, stride=3)), ["conv1: stride 3 not in 1, 2, 4, 8"]),
        (of(conv(4, padding=8, stride=2), pool(4)), ["conv1: padding 8 > 7"]),
        (of(conv(1), pool(8), size=80), ["conv1: output height or width 78 > 64", "pool or stride earlier"]),
        (of(conv(300, stride=2, padding=1), pool(4)), ["conv1: neuron memory 76,800 > 65,536", "use fewer channels"]),
        (of(*[conv(4, padding=1)] * 9, pool(4)), ["layers 10 > 9", "use fewer layers"]),
        (of(conv(4), conv(4, dilation=2), pool(4)), ["conv2: dilation 2 > 1"]),
    ],
    ids=["pool", "camera", "kernel", "stride", "padding", "map", "memory", "cores", "dilation"],
)
def test_what_no_weights_would_fit_is_refused_before_training(model: dict[str, Any], words: list[str]) -> None:
    """One line with layer, value, what is allowed and what to do; trained all the same only where that is asked for."""
    with pytest.raises(RunError) as error:
        Settings.make(model, data="bars", profile="speck2e")
    text = str(error.value)
    assert text.startswith("mine does not fit profile speck2e: ")
    assert all(word in text for word in words), text
    assert len(text) < 300
    assert "\n" not in text
    lines = Settings.make(model, data="bars", profile="speck2e", allow_unfit=True).adaptations()
    assert any(line.startswith("fit: ") and words[0] in line for line in lines)
    assert not any(line.startswith("fit: ") for line in Settings.make(model, data="bars").adaptations())


def test_a_model_too_large_for_loihi_is_refused_before_training() -> None:
    """More neurons than the chip has are refused there, and not on a board that has them."""
    model = {"name": "huge", "input": [1, 200, 200], "layers": [conv(4, 1), pool(10), {"type": "dense", "features": 2}]}
    with pytest.raises(RunError, match=r"huge does not fit profile loihi1: .*161,602 > 131,072"):
        Settings.make(model, data="bars", profile="loihi1")
    Settings.make(model, data="bars", profile="nahuku-32")


def test_doubts_are_said_before_training() -> None:
    """More outputs than Speck's readout names, and a decay that only one source allows, are lines, not refusals."""
    lines = Settings.make(of(conv(4, padding=1), pool(4), features=16), data="bars", profile="speck2e").adaptations()
    assert sum("dense1: outputs 16 > 15" in line for line in lines) == 1
    lines = Settings.make(MODEL | {"neuron": {"voltage_decay": 1.0}}, data="bars").adaptations()
    assert any("conv1: voltage decay 4,096 > 4,095" in line and "sources disagree" in line for line in lines)


@pytest.mark.parametrize("profile", ["loihi1", "loihi2", "speck2e"])
@pytest.mark.parametrize("model", [MODEL, SMALL, "nmnist-3c1fc"], ids=["tiny", "small", "nmnist"])
def test_the_untrained_network_is_the_lowered_one_but_for_what_training_decides(model: Any, profile: str) -> None:
    """Same layers, shapes, decays and placement: what is checked before training is what is exported after it."""
    if profile == "speck2e" and model is SMALL:
        model = SMALL | {"neuron": {}}  # without a clock nothing decays
    settings = Settings.make(model, data="bars", profile=profile, allow_unfit=True)
    network = settings.build()
    network.fold_norms(False)
    network.quantise([64.0] * len(network.weighted), settings.weight_bits, settings.weight_step)
    lowered = to_network(Run(settings, network))
    facts = settings.chip.facts
    early = untrained(settings.model, not facts.pool_without_neuron.value, facts.reset.value or "", False)
    assert (early.readout, early.reset) == (lowered.readout, lowered.reset)
    for one, other in zip(early, lowered, strict=True):
        assert (type(one), one.name, one.in_shape, one.shape) == (type(other), other.name, other.in_shape, other.shape)
        assert (one.weight is None) == (other.weight is None)
        if one.weight is not None and other.weight is not None:
            assert one.weight.shape == other.weight.shape
        if one.neuron is not None and other.neuron is not None:
            for decay in ("current_decay", "voltage_decay"):
                assert getattr(one.neuron, decay) == getattr(other.neuron, decay)
    places = [hw_profiles.place(each, settings.chip) for each in (early, lowered)]
    used = [[(core.number, core.layers, core.used) for core in place.cores] for place in places]
    assert used[0] == used[1]


# A run keeps its chip ----------------------------------------------------------------------------------------

TOML = """title = "mine"
extends = "loihi2"
[sources]
me = "my own measurement"
[facts]
weight_max = { value = 126, unit = "weight", source = ["me"], status = "measured" }
weight_min = { value = -128, unit = "weight", source = ["me"], status = "measured" }
"""


def edit(path: Path) -> None:
    path.write_text(TOML.replace("126", "30").replace("-128", "-32"))


GONE: list[Callable[[Path], None]] = [edit, Path.unlink, lambda path: path.write_text("no TOML")]


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a profile, and a run trained for it."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "mine.toml").write_text(TOML)
    train(make(profile=str(folder / "mine.toml"), epochs=2), folder / "run", bars(20), progress=False)
    return folder


def moved(mine: Path, folder: Path) -> tuple[Path, Path]:
    """A copy of a run whose profile is at another place: the run folder, and the profile's file."""
    shutil.copytree(mine / "run", folder / "run")
    settings = folder / "run" / "settings.json"
    content = json.loads(settings.read_text())
    profile = folder / "mine.toml"
    profile.write_text(TOML)
    settings.write_text(json.dumps(content | {"profile": str(profile)}))
    return folder / "run", profile


@pytest.mark.parametrize("change", GONE, ids=["edited", "deleted", "broken"])
def test_a_trained_run_does_not_change_with_its_profiles_file(
    mine: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    """Edited, deleted or broken, the file changes no evaluation, export, check or sweep."""
    folder, profile = moved(mine, tmp_path)
    data = bars(20, "test")

    def results() -> list[Any]:
        run = load_run(folder)
        network, report = export(run, tmp_path / "a.net")
        found: list[Any] = [point.to_dict() for point in evaluate(run, [1, 4], data, progress=False)]
        found += [str(report), report.to_dict(), [layer.weight for layer in network if layer.weight is not None]]
        return [*found, sweep(run, [4], None, data, progress=False).to_dict()]

    before = results()
    change(profile)
    for one, other in zip(before, results(), strict=True):
        np.testing.assert_equal(one, other)
    assert load_run(folder).settings.chip.facts.weight_max.value == 126


def test_a_profile_named_at_export_is_the_one_of_now(mine: Path, tmp_path: Path) -> None:
    """`--profile X` means X as its file is, though the run keeps its own."""
    folder, profile = moved(mine, tmp_path)
    edit(profile)
    run = load_run(folder)
    assert export(run, tmp_path / "a.net")[1].fits
    _, report = export(run, tmp_path / "a.net", str(profile))
    assert any("> 30" in str(finding) for finding in report.of("violation"))


def test_an_event_driven_run_keeps_its_chip(tmp_path: Path) -> None:
    """Without a clock, too: states and reset are those that the run keeps."""
    profile = tmp_path / "mine.toml"
    profile.write_text('title = "mine"\nextends = "speck2e"\n')
    train(make(profile=str(profile), epochs=2), tmp_path / "run", bars(20), progress=False)
    profile.unlink()
    points = evaluate(load_run(tmp_path / "run"), [4], bars(20, "test"), event_driven=True, progress=False)
    assert points[-1].time_steps is None


def test_settings_come_back_with_all_facts(mine: Path) -> None:
    """The folder's facts are the profile's, with sources and statuses; only what is stated is written."""
    settings = load_settings(mine / "run")
    assert settings.chip == hw_profiles.load(mine / "mine.toml")
    stored = json.loads((mine / "run" / "settings.json").read_text())["chip"]
    assert stored["facts"]["weight_max"]["source"] == ["me"]
    assert "kernel_memory" not in stored["facts"]


@pytest.mark.parametrize("name", hw_profiles.names())
def test_every_profile_survives_settings(name: str) -> None:
    """JSON brings every shipped profile back as it is; those that training knows too little of are refused."""
    if hw_profiles.load(name).facts.reset.value is None:
        with pytest.raises(RunError, match=f"profile {name}: does not say how its neurons reset: .* train for another"):
            make(profile=name)
        return
    settings = make(profile=name)
    again = hw_profiles.Profile.model_validate(json.loads(settings.model_dump_json())["chip"])
    assert again == settings.chip == hw_profiles.load(name)


def test_older_folders_load_with_the_profile_of_their_name(mine: Path, tmp_path: Path) -> None:
    """Folders from before facts were kept state a profile's name only."""
    folder, profile = moved(mine, tmp_path)
    content = json.loads((folder / "settings.json").read_text())
    del content["chip"], content["allow_unfit"]
    (folder / "settings.json").write_text(json.dumps(content))
    edit(profile)
    assert load_run(folder).settings.chip.facts.weight_max.value == 30
    profile.unlink()
    with pytest.raises(hw_profiles.ProfileError, match="cannot be read"):
        load_run(folder)


@pytest.mark.parametrize("chip", [3, {}, {"name": "x"}, {"facts": 3}, {"facts": {"chips": {"value": "y" * 999}}}])
def test_damaged_facts_get_one_line(mine: Path, tmp_path: Path, chip: Any) -> None:
    """Whatever stands in place of the facts."""
    folder, _ = moved(mine, tmp_path)
    content = json.loads((folder / "settings.json").read_text())
    if isinstance(chip, dict) and chip:
        chip = content["chip"] | chip
        chip.pop("name" if "facts" not in chip else "title")
    (folder / "settings.json").write_text(json.dumps(content | {"chip": chip}))
    with pytest.raises(RunError) as error:
        load_run(folder)
    assert len(str(error.value)) < 300
    assert "\n" not in str(error.value)


def test_a_run_that_does_not_fit_still_loads(tmp_path: Path) -> None:
    """Whether it fits is asked before training; a run from before the question was asked opens."""
    model = of(conv(4, padding=1), pool(2), pool(4), pool(2), size=64, features=3)
    settings = Settings.make(model, data="bars", profile="speck2e", allow_unfit=True)
    run = Run(settings, settings.build())
    run.save(tmp_path / "run")
    content = json.loads((tmp_path / "run" / "settings.json").read_text())
    (tmp_path / "run" / "settings.json").write_text(json.dumps(content | {"allow_unfit": False}))
    assert load_run(tmp_path / "run").settings.profile == "speck2e"


@pytest.mark.parametrize("change", GONE, ids=["edited", "deleted", "broken"])
def test_a_stopped_run_goes_on_with_the_chip_that_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], change: Callable[[Path], None]
) -> None:
    """Whatever became of the profile's file, the result is that of an unbroken run; that it changed is said."""
    profile, folder = tmp_path / "mine.toml", tmp_path / "run"
    profile.write_text(TOML)
    settings = make(profile=str(profile), epochs=4)
    whole = train(settings, None, bars(), progress=False)

    class Stopped(Exception):
        pass

    real = training.Trainer.save

    def stop(self: Any) -> None:
        real(self)
        if self.done == 1:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(training.Trainer, "save", stop)
        with pytest.raises(Stopped):
            train(settings, folder, bars(), progress=False)
    change(profile)
    if change is edit:
        settings = make(profile=str(profile), epochs=4)  # made anew, from the edited file
        assert settings.chip.facts.weight_max.value == 30
    resumed = train(settings, folder, bars(), resume=True, progress=True)
    assert "the run keeps the facts that it began with" in capsys.readouterr().err
    assert resumed.settings.chip.facts.weight_max.value == 126
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name


def test_the_command_line_resumes_without_the_profiles_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`mtt train --resume` reads the facts from the run folder; without a run there the file is needed."""
    profile, folder = tmp_path / "mine.toml", tmp_path / "run"
    profile.write_text(TOML)
    arguments = ["train", "nmnist-3c1fc", "--data", "digits-dvs", "--samples", "40", "--epochs", "2", "--time-steps"]
    arguments += ["2", "--profile", str(profile), "--out", str(folder)]

    def stop(self: Any, end: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.Trainer, "epochs_until", stop)
        assert main(arguments) == 130
    profile.unlink()
    assert main(arguments) == 2
    assert main([*arguments, "--resume"]) == 0
    assert load_run(folder).settings.chip.facts.weight_max.value == 126


# Lowering ----------------------------------------------------------------------------------------------------


def scaled_run() -> Run:
    """A quantised network with biases that depend on T, and random weights."""
    settings = make(norm="batch", biases="scaled", profile="loihi1")
    run = Run(settings, settings.build())
    for block in run.network.weighted:
        torch.nn.init.normal_(block.neuron.norm.offset, std=0.3)
    run.network.fold_norms(True)
    run.network.quantise([100.0, 100.0], 8)
    run.classes = ("0", "1", "2")
    return run


def state(run: Run) -> dict[str, Any]:
    """All that a run holds, copied."""
    network = run.network
    content = {f"weight {name}": value.clone().numpy() for name, value in network.state_dict().items()}
    content |= {f"bias {i}": (bias.per_step, bias.integers.numpy()) for i, bias in enumerate(network.biases)}
    blocks = [block for block in network.blocks if hasattr(block, "neuron")]
    content |= {f"threshold {i}": block.neuron.threshold_mantissa for i, block in enumerate(blocks)}
    content |= {f"mode {name}": module.training for name, module in network.named_modules()}
    content |= {"settings": run.settings.model_dump(), "measured": dict(run.measured), "classes": run.classes}
    return content | {"quantised": (network.weight_scales, network.weight_bits, network.weight_step)}


def test_lowering_leaves_the_run_as_it_is(tmp_path: Path) -> None:
    """Weights, biases, thresholds, mode and settings are the same after everything that lowers it, at any T."""
    run, data = scaled_run(), bars(6, "test")
    before = state(run)
    assert np.abs(before["bias 0"][1]).max() > 0
    used: list[tuple[str, Callable[[], Any]]] = [
        ("to_network", lambda: to_network(run, 8)),
        ("export", lambda: export(run, tmp_path / "a.net", "loihi2", 8)),
        ("prove", lambda: prove(run, [1, 8], "fast", dataset=data, progress=False)),
        ("evaluate", lambda: evaluate(run, [1, 8], data, progress=False)),
        ("sweep", lambda: sweep(run, [1, 8], "loihi1", data, progress=False)),
    ]
    for name, use in used:
        use()
        np.testing.assert_equal(state(run), before, err_msg=name)
    # A lowered network shares no memory with the run.
    for layer in to_network(run):
        if layer.weight is not None:
            layer.weight[...] = 0
    np.testing.assert_equal(state(run), before)


def test_export_at_one_t_changes_nothing_at_another(tmp_path: Path) -> None:
    """Export for T = 4, then evaluate at T = 10: as evaluate alone; and the file of T = 10 has biases of its own."""
    data = bars(9, "test")
    alone = evaluate(scaled_run(), [10], data, progress=False)[0]
    run = scaled_run()
    four, _ = export(run, tmp_path / "4.net", time_steps=4)
    after = evaluate(run, [10], data, progress=False)[0]
    np.testing.assert_array_equal(alone.readout, after.readout)
    assert alone.to_dict() == after.to_dict()
    ten, _ = export(run, tmp_path / "10.net", time_steps=10)
    assert not np.array_equal(four.layers[0].neuron.bias, ten.layers[0].neuron.bias)  # type: ignore[union-attr]
    (proof,) = prove(run, [10], "fast", dataset=data, progress=False)
    assert proof.exact


# The threshold of a readout ----------------------------------------------------------------------------------


def voltage_run(measured: int | None) -> Run:
    """A small quantised network read by voltage."""
    model = load_model(SMALL | {"readout": "voltage"})
    run = Run(Settings.make(model, data="digits-dvs"), SpikingNetwork(model, norm=None))
    run.network.load_state_dict(small_run().network.state_dict())
    run.network.quantise([640.0, 640.0], 8)
    if measured is not None:
        run.measured = {"dense1": (1, measured)}
    return run


def test_a_readout_threshold_that_holds_changes_no_answer(tmp_path: Path) -> None:
    """2^16 in the file, the trained network's voltages from the simulator, and no spike of the readout."""
    inputs = np.random.default_rng(0).integers(0, 2, (3, 2, 8, 8, 6))
    run = voltage_run(None)
    readout, _ = run_network(run, torch.from_numpy(inputs))
    wanted = (readout.double() * 4096).round().long().numpy()
    run.measured = {"dense1": (1, int(np.abs(wanted).max()))}
    before = state(run)
    network, report = export(run, tmp_path / "a.net", readout_threshold=65_536)
    np.testing.assert_equal(state(run), before)
    assert read(tmp_path / "a.net").layers[-1].neuron.threshold == network.layers[-1].neuron.threshold == 65_536  # type: ignore[union-attr]
    assert (
        [layer.neuron.threshold for layer in network.spiking[:-1]]
        == [  # type: ignore[union-attr]
            layer.neuron.threshold
            for layer in to_network(run).spiking[:-1]  # type: ignore[union-attr]
        ]
    )
    assert not [finding for finding in report.findings if finding.rule == "readout_threshold"]
    result = simulate(tmp_path / "a.net", inputs, "fast", record=("spikes",), progress=False)
    np.testing.assert_array_equal(result.readout, wanted)
    assert not result.record["spikes.dense1"].any()


def test_a_readout_threshold_that_would_spike_is_refused_and_the_refusal_is_right(tmp_path: Path) -> None:
    """At what the message asks for nothing changes; just below, the simulated readout spikes and its answer is lost."""
    inputs = np.ones((1, 2, 8, 8, 6), int)
    run = voltage_run(None)
    path = tmp_path / "a.net"
    export(run, path)
    record = simulate(path, inputs, "fast", record=("v", "spikes"), progress=False).record
    highest = int(record["v.dense1"].max())
    run.measured = {"dense1": (1, highest)}
    least = -(-highest // 64)
    with pytest.raises(RunError, match=rf"\|v\| reached {highest}: use {least} or more"):
        export(run, path, readout_threshold=least - 1)
    export(run, path, readout_threshold=least)
    assert not simulate(path, inputs, "fast", record=("spikes",), progress=False).record["spikes.dense1"].any()
    run.measured = {}
    _, report = export(run, path, readout_threshold=least - 1)
    assert [f.severity for f in report.findings if f.rule == "readout_threshold"] == ["not checked"]
    assert simulate(path, inputs, "fast", record=("spikes",), progress=False).record["spikes.dense1"].any()


@pytest.mark.parametrize(
    ("run", "threshold", "words"),
    [
        (voltage_run, 0, "readout threshold 0: must be 1..131071"),
        (voltage_run, 131_072, "readout threshold 131072: must be 1..131071"),
        (voltage_run, -5, "readout threshold -5: must be"),
        (lambda _: small_run(), 65_536, "counts spikes, and its threshold is trained: leave it out"),
    ],
)
def test_a_readout_threshold_that_cannot_be_is_refused(
    tmp_path: Path, run: Callable[[int], Run], threshold: int, words: str
) -> None:
    """Out of range, or for a readout that has none to choose: one line, and no file."""
    with pytest.raises(RunError) as error:
        export(run(5), tmp_path / "a.net", readout_threshold=threshold)
    assert words in str(error.value)
    assert not (tmp_path / "a.net").exists()


def test_the_command_line_takes_a_readout_threshold(
    mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`mtt-export --readout-threshold N`: in the file, and no note of silicon any more; without it the note stands."""
    path = tmp_path / "a.net"
    assert export_main([str(mine / "run"), str(path)]) == 0
    assert "threshold of the readout 131,071 > 65,536: one as large spiked on hardware" in capsys.readouterr().out
    assert export_main([str(mine / "run"), str(path), "--readout-threshold", "65536"]) == 0
    assert "spiked on hardware" not in capsys.readouterr().out
    assert read(path).layers[-1].neuron.threshold == 65_536  # type: ignore[union-attr]
    assert export_main([str(mine / "run"), str(path), "--readout-threshold", "131072"]) == 2
    assert "must be 1..131071" in capsys.readouterr().err
