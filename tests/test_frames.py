"""Frames read when they are asked for: what is kept of them, what stays in memory, and the bounds of both."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.numpy import load_file
from test_training import bars, make, weights

from mtt_lava import early_exit, evaluate, evaluation, prove, train
from mtt_lava.data import (
    EVENT_DTYPE,
    DataError,
    Dataset,
    cache,
    cache_folder,
    cache_limit,
    frames,
    from_events,
    from_images,
    open_frames,
    reader,
)
from mtt_lava.data.reader import _packed
from mtt_lava.data.scatter import scatter
from mtt_lava.training import Trainer
from mtt_lava.training.batches import Ahead


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTT_CACHE", str(tmp_path / "cache"))


def kept() -> list[str]:
    return sorted(path.name for path in cache_folder().rglob("*") if path.is_file())


def named(name: str, n: int = 5) -> Dataset:
    """A data set with frames of its own in the cache."""
    data = bars(n)
    return dataclasses.replace(data, name=name, events=[event[: 20 + len(name)] for event in data.events])


# ------------------------------------------------------------------------------------------------ what is read


@given(st.data())
def test_any_recordings_in_any_order_are_those_of_frames(tmp_path_factory, data: Any):
    """Packed, held in memory, or all at once: the counts are the same, and those of no other recording."""
    folder = tmp_path_factory.mktemp("cache")
    n, time_steps = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 5))
    width, height, polarities = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 2)))
    recordings = []
    for _ in range(n):
        count = data.draw(st.integers(1, 600))
        rng = np.random.default_rng(data.draw(st.integers(0, 9)))
        made = np.zeros(count, EVENT_DTYPE)
        made["x"], made["y"] = rng.integers(0, width, count), rng.integers(0, height, count)
        made["t"], made["p"] = np.sort(rng.integers(0, 100, count)), rng.integers(0, polarities, count)
        recordings.append(made)
    size = (width, height, polarities)
    events = dataclasses.replace(bars(n), events=recordings, sensor_size=size, duration=100, cache=folder)
    whole, _ = frames(events, time_steps, cache=False)
    chosen = data.draw(st.lists(st.integers(0, n - 1), max_size=8))
    for hold in (False, True):
        opened = open_frames(events, time_steps, hold=hold)
        assert (opened.shape, opened.largest, opened.held) == (whole.shape, whole.max(), hold)
        assert opened.dtype == (np.uint8 if whole.max() < 256 else np.int32)
        np.testing.assert_array_equal(np.moveaxis(opened.take(chosen), 0, -1), whole[chosen])
    parts = list(opened.parts(most=data.draw(st.integers(1, 7))))
    assert np.concatenate(parts).tolist() == list(range(n))


@given(arrays.arrays(np.int64, (3, 7), elements=st.integers(0, 2000)))
def test_a_count_beyond_a_byte_is_several(counts: np.ndarray):
    """255 and 256, and multiples, come back as they went."""
    raw = _packed(counts, np.dtype(np.uint16))
    assert len(raw) % 4 == 0
    ends = np.frombuffer(raw, np.uint32, 3)
    places = np.frombuffer(raw, np.uint16, ends[-1], 12)
    made = np.zeros((3, 1, 7), np.int32)
    scatter(made, 0, ends, places, np.frombuffer(raw, np.uint8, ends[-1], 12 + places.nbytes))
    np.testing.assert_array_equal(made[:, 0], counts)


def test_a_large_sensor_has_wider_numbers():
    """Pixels beyond the 65,536th of a frame are told apart from those before."""
    made = np.zeros(2, EVENT_DTYPE)
    made["x"] = [5, 299]
    made["y"] = [0, 299]
    data = from_events([made], [0], sensor_size=(300, 300, 1), duration=10, classes=1)
    assert np.argwhere(open_frames(data, 2).take([0])).tolist() == [[0, 0, 0, 0, 5], [0, 0, 0, 299, 299]]


def test_still_images_are_not_copied():
    """Every time step shows the same; only those asked for are made numbers of, and wide ones in 32 bits."""
    images = np.random.default_rng(0).integers(0, 300, (6, 2, 3, 4))
    opened = open_frames(from_images(images, [0] * 6, classes=1), 3, hold=True)
    assert (opened.held, opened.largest, opened.dtype) == (False, images.max(), np.int32)
    np.testing.assert_array_equal(opened.take([4, 1]), np.stack([images[[4, 1]]] * 3))


def test_the_file_is_one_of_safetensors():
    """Other programs can read it: recordings, where each starts, and a check of each."""
    open_frames(bars(7), 4)
    (name,) = kept()
    stored = load_file(cache_folder() / "frames" / name)
    assert {key: (value.dtype.name, value.shape[0]) for key, value in stored.items() if key != "recordings"} == {
        "starts": ("int64", 8),
        "checks": ("uint32", 7),
    }
    assert stored["starts"][-1] <= len(stored["recordings"])


def test_a_file_that_is_damaged_while_it_is_read_is_made_again(caplog: pytest.LogCaptureFixture):
    """What comes is right, and nothing is said."""
    data = bars(7)
    expected, _ = frames(data, 4, cache=False)
    opened = open_frames(data, 4)
    path = cache_folder() / "frames" / kept()[0]
    with path.open("r+b") as file:
        file.seek(1200)
        file.write(bytes(400))
    for _ in range(2):
        np.testing.assert_array_equal(np.moveaxis(opened.take(range(7)), 0, -1), expected)
    with path.open("r+b") as file:
        file.truncate(1100)
    np.testing.assert_array_equal(np.moveaxis(opened.take(range(7)), 0, -1), expected)
    assert not caplog.records


# ------------------------------------------------------------------------------------------------ results stay


@pytest.mark.parametrize("method", ["sdt", "mtt"])
def test_training_is_the_same_whatever_stays_in_memory(method: str, monkeypatch: pytest.MonkeyPatch):
    """Weights, and what is measured after every epoch, do not tell frames in memory from packed ones."""
    chosen = make(method=method, augment=True, validate_on=0.2)
    runs = []
    for limit in (1 << 30, 0):
        monkeypatch.setattr(reader, "HELD", limit)
        runs.append(train(chosen, None, bars(80), progress=False))
    for name, value in weights(runs[0]).items():
        assert torch.equal(value, weights(runs[1])[name]), name
    assert runs[0].measured == runs[1].measured


def test_parts_make_no_difference(monkeypatch: pytest.MonkeyPatch):
    """What evaluation, proofs and early exit find does not depend on how much is run at once."""
    chips: list[dict[str, Any]] = [{}, {"profile": "speck2e"}]
    clocked, free = (train(make(epochs=8, **chip), None, bars(60), progress=False) for chip in chips)
    data = bars(40, "test")

    def found() -> list[Any]:
        points = evaluate(clocked, [2, 8], data, progress=False)
        points.append(evaluation.evaluate_events(free, data, progress=False))
        exits = [early_exit.early_exit(clocked, 8, "margin", 0.02, data, progress=False)]
        exits.append(early_exit.early_exit_events(free, 0.02, data, progress=False))
        proofs = prove(clocked, [3], "fast", dataset=data, progress=False)
        return [points, [each.readout.tolist() for each in points], proofs, [each.to_dict() for each in exits]]

    whole = found()
    monkeypatch.setattr("netx_export.activity.RECORD_BYTES", 5000)
    monkeypatch.setattr(evaluation, "BATCH_FRAMES", 20)
    monkeypatch.setattr(evaluation, "PART_EVENTS", 300)
    parts = found()
    assert parts[:3] == whole[:3]
    for one, other in zip(parts[3], whole[3], strict=True):
        for name, value in one.items():
            assert value == pytest.approx(other[name]) if isinstance(value, float) else value == other[name], name


def test_the_time_that_data_takes_is_kept(tmp_path: Path):
    """After every epoch the share of its steps' time for which mini-batches were waited for."""
    run = train(make(), tmp_path / "run", bars(60), progress=False)
    assert all(0 <= line["waited"] <= 1 for line in run.metrics)


def test_a_slow_reader_is_waited_for(monkeypatch: pytest.MonkeyPatch):
    """Where making a mini-batch takes most of the time, the share says so."""
    real = Trainer.batch

    def slow(self: Any, *arguments: Any) -> Any:
        import time

        time.sleep(0.2)
        return real(self, *arguments)

    trainer = Trainer(make(epochs=2), None, bars(60), progress=False)
    monkeypatch.setattr(Trainer, "batch", slow)
    trainer.epochs_until(1)
    assert '"waited": 0.' in trainer.lines[0]
    assert float(trainer.lines[0].split('"waited": ')[1].split(",")[0]) > 0.3


def test_what_ends_the_making_of_a_mini_batch_ends_training(monkeypatch: pytest.MonkeyPatch):
    """An error in the other thread comes out as it is, in the step that needed the mini-batch."""
    trainer = Trainer(make(epochs=2), None, bars(60), progress=False)

    def broken(*_: Any) -> Any:
        raise DataError("recording 3: gone")

    monkeypatch.setattr(Trainer, "batch", broken)
    with pytest.raises(DataError, match="recording 3: gone"):
        trainer.epochs_until(1)
    with Ahead() as ahead:
        ahead.start(lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ahead.get()


# ------------------------------------------------------------------------------------------------ the bounded cache


def test_what_was_used_longest_ago_goes_first(monkeypatch: pytest.MonkeyPatch):
    """A new file makes room for itself; reading counts as use."""
    for age, name in enumerate(["a", "bb", "ccc"]):
        open_frames(named(name), 4)
        (path,) = (cache_folder() / "frames").glob(f"{name}-*")
        os.utime(path, (1000 + age, 1000 + age))
    size = path.stat().st_size
    open_frames(named("a"), 4)
    monkeypatch.setenv("MTT_CACHE_LIMIT", str(3 * size + size // 2))
    open_frames(named("dddd"), 4)
    assert [name.split("-")[0] for name in kept()] == ["a", "ccc", "dddd"]


def test_what_is_in_use_stays(monkeypatch: pytest.MonkeyPatch):
    """However small the limit, frames that are open stay; once closed they go with the next new file."""
    monkeypatch.setenv("MTT_CACHE_LIMIT", "0")
    opened = open_frames(named("a"), 4)
    open_frames(named("bb"), 4)
    assert [name.split("-")[0] for name in kept()] == ["a", "bb"]
    expected, _ = frames(named("a"), 4, cache=False)
    np.testing.assert_array_equal(np.moveaxis(opened.take(range(5)), 0, -1), expected)
    del opened
    open_frames(named("ccc"), 4)
    assert [name.split("-")[0] for name in kept()] == ["ccc"]


def test_nothing_else_is_removed(monkeypatch: pytest.MonkeyPatch):
    """A cache folder may hold other things: only derived files in folders of ours go."""
    monkeypatch.setenv("MTT_CACHE_LIMIT", "0")
    others = ["frames/notes.txt", "frames/mine.npz", "results/run-0123456789abcdef.npz", "frames-0123456789abcdef.npz"]
    for name in others:
        (cache_folder() / name).parent.mkdir(parents=True, exist_ok=True)
        (cache_folder() / name).write_bytes(b"mine")
    abandoned = cache_folder() / "frames" / ".a-train-T4-0123456789abcdef.safetensors.x1.safetensors"
    abandoned.write_bytes(b"half written by a process that was killed")
    open_frames(named("a"), 4)
    assert all((cache_folder() / name).exists() for name in others)
    assert not abandoned.exists()


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [("", cache.LIMIT), ("1000", 1000), ("20GB", 20_000_000_000), ("0.5 k", 500), ("3mb", 3_000_000)],
)
def test_the_limit_is_a_size(text: str, bytes_: int, monkeypatch: pytest.MonkeyPatch):
    """Bytes, or with a unit; without the variable 20 GB."""
    monkeypatch.setenv("MTT_CACHE_LIMIT", text)
    assert cache_limit() == bytes_


@pytest.mark.parametrize("text", ["much", "-1", "20 XB", "1e9", "12,5GB"])
def test_a_limit_that_is_none_is_said_before_the_work(text: str, monkeypatch: pytest.MonkeyPatch):
    """One line that names the variable, its value and what is allowed; no recording was read for it."""
    monkeypatch.setenv("MTT_CACHE_LIMIT", text)
    with pytest.raises(DataError, match=r"MTT_CACHE_LIMIT is .*; must be a size, such as 20000000000, 500MB or 20GB"):
        open_frames(bars(5), 4)
    assert kept() == []


# ------------------------------------------------------------------------------------------------ memory

LARGE = '''
import resource
import sys
from collections.abc import Sequence

import numpy as np

from mtt_lava import Settings, train
from mtt_lava.data import EVENT_DTYPE, Dataset


class Made(Sequence):
    """Recordings of 500 events, each made when it is asked for."""

    fingerprint = "made"

    def __len__(self):
        return 20_000

    def __getitem__(self, i):
        rng = np.random.default_rng(i)
        events = np.zeros(500, EVENT_DTYPE)
        events["x"], events["y"] = rng.integers(0, 64, 500), rng.integers(0, 64, 500)
        events["t"], events["p"] = np.sort(rng.integers(0, 1000, 500)), rng.integers(0, 2, 500)
        return events


data = Dataset(name="made", split="train", sensor_size=(64, 64, 2), classes=("a", "b", "c"), events=Made(),
               labels=np.arange(20_000) % 3, duration=1000)
model = {"name": "tiny", "input": [2, 64, 64],
         "layers": [{"type": "pool", "kernel": 8}, {"type": "dense", "features": 3}]}
settings = Settings.make(model, data="digits-dvs", time_steps=10, epochs=2, batch=100, method="sdt", augment=False)
run = train(settings, sys.argv[1], data, progress=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, run.metrics[-1]["waited"])
'''


@pytest.mark.slow
def test_training_on_20000_recordings_takes_less_than_2_gb(tmp_path: Path):
    """Their frames are 1.6 GB; two mini-batches, or 16 MB, are in memory at a time. Imports alone take 0.65 GB."""
    done = subprocess.run(
        [sys.executable, "-c", LARGE, str(tmp_path / "run")], capture_output=True, text=True, timeout=480
    )
    assert done.returncode == 0, done.stderr
    kilobytes, waited = done.stdout.split()
    print(f"peak memory {int(kilobytes) / 1e6:.2f} GB, {float(waited):.1%} of the time waited for data")
    assert int(kilobytes) < 2_000_000
