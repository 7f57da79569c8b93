"""Augmentations: what each does to frames, that nothing else decides about them, and what is refused."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_long_runs import Stopped, stop_after
from test_training import bars, make, weights

from mtt_lava import Settings, load_run, train
from mtt_lava.augmentation import (
    AUGMENTATIONS,
    PIXEL_MAX,
    AugmentationError,
    Step,
    augment,
    chances,
    cutout,
    draw,
    drop,
    flip,
    parse,
    roll,
    time,
    written,
)
from mtt_lava.cli import parsers
from mtt_lava.cli.parsing import parse as parse_words
from mtt_lava.cli.training import settings_of
from mtt_lava.data import Dataset, from_images
from mtt_lava.run import RunError, load_settings
from mtt_lava.training import Trainer

EVENTS = "geometric,flip,roll:3,cutout:2,drop:0.3,time:0.4"
amounts = {
    "roll": st.integers(1, 40),
    "cutout": st.integers(1, 40),
    "drop": st.floats(0.01, 0.99),
    "time": st.floats(0.01, 0.99),
    "autoaugment": st.sampled_from(["cifar10", "imagenet", "svhn"]),
}
steps = st.sampled_from(sorted(AUGMENTATIONS)).flatmap(
    lambda name: st.builds(Step, st.just(name), amounts.get(name, st.none()))
)


def frames(t: int, n: int, channels: int, height: int, width: int, seed: int = 0, top: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, top, (t, n, channels, height, width), generator=generator).float()


@settings(deadline=None)
@given(
    step=steps,
    t=st.integers(1, 7),
    n=st.integers(1, 4),
    size=st.tuples(*[st.integers(1, 9)] * 2),
    seed=st.integers(0, 99),
)
def test_a_recording_is_changed_by_itself_alone(step: Step, t: int, n: int, size: tuple[int, int], seed: int):
    """Counts stay counts of the same shape, the given frames stay, and each comes out as it does without the others."""
    image = AUGMENTATIONS[step.name].data == "images"
    x = frames(1 if image else t, n, 3, *size, seed, 16 if image else 4)
    kept, state = x.clone(), torch.get_rng_state()
    drawn = draw(chances([step]), n, torch.Generator().manual_seed(seed))
    out = augment(x, drawn, [step])
    assert out.shape == x.shape
    assert torch.equal(x, kept)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(out, out.round())
    assert out.min() >= 0
    assert out.max() <= (PIXEL_MAX if image else 3 * t)
    for i in range(n):  # as a process sees its part of a mini-batch
        assert torch.equal(augment(x[:, i : i + 1], drawn[:, i : i + 1], [step]), out[:, i : i + 1])


@given(n=st.integers(1, 30), seed=st.integers(0, 99))
def test_flip_turns_whole_samples(n: int, seed: int):
    """Each is as it was or turned round, in all frames and channels alike."""
    x, drawn = frames(3, n, 2, 4, 5, seed), draw(1, n, torch.Generator().manual_seed(seed))
    out = flip(x, drawn)
    for i in range(n):
        assert torch.equal(out[:, i], x[:, i].flip(-1) if drawn[0, i] < 0 else x[:, i])


@given(amount=st.integers(1, 9), seed=st.integers(0, 99))
def test_roll_loses_nothing_and_goes_so_far(amount: int, seed: int):
    """A lone event is at most `amount` pixels away, round the edges, in every frame the same way."""
    x = torch.zeros(2, 20, 1, 30, 40)
    x[..., 0, 0] = 1
    out = roll(x, draw(2, 20, torch.Generator().manual_seed(seed)), amount)
    assert torch.equal(out[0], out[1])
    _, rows, columns = (each.squeeze() for each in out[0, :, 0].nonzero().split(1, 1))
    for at, size in ((rows, 30), (columns, 40)):
        assert torch.minimum(at, size - at).max() <= amount


def test_roll_reaches_every_shift_as_often():
    """From -2 to 2, a fifth of the samples each."""
    x = torch.zeros(1, 5000, 1, 5, 5)
    x[..., 2, 2] = 1
    out = roll(x, draw(2, 5000, torch.Generator().manual_seed(0)), 2)
    assert (out.mean((0, 1, 2)) - 1 / 25).abs().max() < 0.01


@given(amount=st.integers(1, 12), seed=st.integers(0, 99))
def test_cutout_blanks_a_square(amount: int, seed: int):
    """What is gone is a rectangle of at most that side, smaller at the borders only, and there is always one."""
    x = torch.ones(2, 20, 3, 7, 9)
    out = cutout(x, draw(2, 20, torch.Generator().manual_seed(seed)), amount)
    assert (out == out[:1, :, :1]).all()
    for image in out[0, :, 0]:
        gone = (image == 0).nonzero()
        sides = gone.max(0).values - gone.min(0).values + 1
        assert len(gone) == sides.prod()
        for axis, size in enumerate((7, 9)):
            borders = gone[:, axis].min() == 0 or gone[:, axis].max() == size - 1
            assert sides[axis] == amount or (borders and sides[axis] < amount)


@given(share=st.floats(0.05, 0.95), seed=st.integers(0, 20))
def test_drop_loses_events_one_by_one(share: float, seed: int):
    """The share that is left is as the probability says, and no pixel gains."""
    x = frames(5, 4, 2, 12, 12, seed, 20)
    out = drop(x, draw(1, 4, torch.Generator().manual_seed(seed)), share)
    assert (out <= x).all()
    assert float(out.sum() / x.sum()) == pytest.approx(1 - share, abs=0.02)


@pytest.mark.parametrize("shift", [-0.9, -0.35, 0.04, 0.5, 1.0])
def test_time_moves_by_parts_of_a_frame(shift: float):
    """Events go that far on average; those inside are all there, those pushed out are lost."""
    x = torch.zeros(20, 2, 1, 9, 9)
    x[10] = 50
    drawn = torch.tensor([[shift, shift], [0.3, -0.7]])
    out = time(x, drawn, 0.25)
    assert out.sum() == x.sum()
    middle = (out.sum((1, 2, 3, 4)) * torch.arange(20)).sum() / out.sum()
    assert float(middle) - 10 == pytest.approx(shift * 0.25 * 20, abs=0.05)
    x[:] = 1
    lost = 1 - float(time(x, drawn, 0.25).mean())
    assert lost == pytest.approx(abs(shift) * 0.25, abs=0.03)


def test_autoaugment_follows_the_chance_alone():
    """The same chance gives the same picture, whatever the global source of chance says; others give others."""
    x = frames(1, 8, 3, 16, 16, top=16)
    same = torch.zeros(1, 8)
    images = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        images.append(augment(x[:, :1].expand(-1, 8, -1, -1, -1), same, parse("autoaugment:cifar10")))
    assert torch.equal(*images)
    assert all(torch.equal(images[0][:, 0], images[0][:, i]) for i in range(8))
    drawn = draw(1, 8, torch.Generator().manual_seed(0))
    assert not torch.equal(augment(x, drawn, parse("autoaugment:svhn")), x)


@given(st.lists(steps, max_size=5, unique_by=lambda step: step.name))
def test_lists_are_written_as_they_are_read(given_steps: list[Step]):
    """Text of a list reads as the list again, but for digits of its numbers; and is stored as one text."""
    text = written(given_steps)
    again = parse(text)
    assert [step.name for step in again] == [step.name for step in given_steps]
    assert written(again) == text
    assert make(augment=text).augment == make(augment=text.split(",")).augment == text


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("flop", "augmentation 'flop' is unknown (did you mean flip?); there is: geometric, flip, roll"),
        ("roll", "roll:PIXELS must be pixels, a whole number from 1 on (got 'roll')"),
        ("roll:0", "roll:PIXELS must be pixels, a whole number from 1 on (got 'roll:0')"),
        ("roll:2.5", "(got 'roll:2.5')"),
        ("flip:3", "flip takes no amount (got 'flip:3')"),
        ("drop:1", "drop:P must be a number between 0 and 1 (got 'drop:1')"),
        ("drop:nan", "(got 'drop:nan')"),
        ("time:-0.1", "time:SHARE must be a number between 0 and 1 (got 'time:-0.1')"),
        ("autoaugment:mnist", "must be one of cifar10, imagenet, svhn (got 'autoaugment:mnist')"),
        ("flip,flip", "flip is named twice"),
        ("none,flip", "none stands alone, or not at all"),
        ("flip,", "augmentation '' is unknown"),
        ("", "augmentation '' is unknown"),
        (7, "augment: must be a list of augmentations, as text with commas (got 7)"),
        ([3], "augmentation '3' is unknown"),
    ],
)
def test_impossible_lists_are_refused(value: Any, words: str):
    """In one line that names the setting, what was given and what is allowed."""
    with pytest.raises(RunError) as error:
        make(augment=value)
    assert words in str(error.value)
    assert "training settings: augment: " in str(error.value)
    assert "\n" not in str(error.value)


def pictures(channels: int = 2) -> Dataset:
    rng = np.random.default_rng(0)
    return from_images(rng.integers(0, 16, (60, channels, 8, 8)), [i % 3 for i in range(60)], classes=3)


@pytest.mark.parametrize(
    ("augment", "data", "words"),
    [
        ("flip,drop:0.1", pictures(), "augment: drop:0.1 is for events, and images has still images: leave it out"),
        ("time:0.1", pictures(), "augment: time:0.1 is for events"),
        ("autoaugment:cifar10", bars(), "autoaugment:cifar10 is for images, and bars has events: leave it out"),
        ("autoaugment:cifar10", pictures(), "is for grey or coloured images, and images has 2 channels"),
    ],
)
def test_what_is_not_for_the_data_is_refused(augment: str, data: Dataset, words: str, tmp_path: Path):
    """Before anything is trained or written."""
    with pytest.raises(AugmentationError) as error:
        train(make(augment=augment), tmp_path / "run", data, progress=False)
    assert words in str(error.value)
    assert not (tmp_path / "run").exists()


def test_without_torchvision_autoaugment_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    """In one line, when training begins."""
    monkeypatch.setitem(sys.modules, "torchvision.transforms", None)
    with pytest.raises(AugmentationError, match=r"autoaugment needs torchvision \(pip install torchvision"):
        Trainer(make(augment="autoaugment:cifar10"), None, pictures(3), progress=False)


COLOURED = {
    "name": "coloured",
    "input": [3, 8, 8],
    "layers": [{"type": "conv", "channels": 4, "kernel": 3, "stride": 2}, {"type": "dense", "features": 3}],
}


@pytest.mark.parametrize("augment", [EVENTS, "flip,roll:2,cutout:3,autoaugment:cifar10"])
def test_stopped_within_an_epoch_they_go_on(augment: str, tmp_path: Path):
    """Drawn by the epoch's own source of chance: a broken run ends with the weights of a whole one; seeds differ."""
    images = "autoaugment" in augment

    def run(folder: Path | None, seed: int = 0, **more: Any) -> Any:
        values: Any = {"epochs": 4, "time_steps": 4, "batch": 20, "augment": augment, "seed": seed}
        made = Settings.make(COLOURED, data="pictures", **values) if images else make(**values)
        return train(made, folder, pictures(3) if images else bars(), progress=False, **more)

    whole, other = run(None), run(None, 1)
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 7)
        with pytest.raises(Stopped):
            run(tmp_path / "run")
    resumed = run(tmp_path / "run", resume=True)
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(whole).items())
    assert not all(torch.equal(value, weights(other)[name]) for name, value in weights(whole).items())
    assert load_run(tmp_path / "run").settings.augment == augment


@pytest.mark.parametrize(("stored", "means"), [(True, "geometric"), (False, "none")])
def test_older_folders_have_true_and_false(stored: bool, means: str, tmp_path: Path):
    """Their settings read as what they meant, and are the same as settings of today."""
    train(make(augment=means, epochs=2), tmp_path / "run", bars(), progress=False)
    path = tmp_path / "run" / "settings.json"
    content = json.loads(path.read_text())
    assert content["augment"] == means
    path.write_text(json.dumps(content | {"augment": stored}))
    assert load_settings(tmp_path / "run") == make(augment=means, epochs=2) == make(augment=stored, epochs=2)


@pytest.mark.parametrize(
    ("flags", "value"),
    [("", "geometric"), ("--no-augment", "none"), ("--augment none", "none"), ("--augment drop:.10", "drop:0.1")],
)
def test_flags(flags: str, value: str):
    """The list, or none at all; the default stays."""
    words = ["train", "nmnist-3c1fc", "--data", "digits-dvs", "--out", "out", *flags.split()]
    assert settings_of(parse_words(parsers()[0], words)).augment == value
