"""Data sets of events: what every data set keeps to, binning and its cache, digits-dvs,
cifar10-camera, nmnist, parts of data sets, and users' mistakes."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import sys
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtt_lava.data import (
    DATASETS,
    EVENT_DTYPE,
    DataError,
    Dataset,
    bin_events,
    cache_folder,
    cifar10,
    digits,
    folds,
    frames,
    from_events,
    from_images,
    from_tonic,
    join,
    open_dataset,
    picture,
    split,
    subset,
)
from mtt_lava.data import simulated as camera_blocks
from mtt_lava.data.camera import Camera, record

SHARED = Path(__file__).parents[1].parent / "shared" / "data" / "nmnist_small"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="shared/data/nmnist_small is not here")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTT_CACHE", str(tmp_path / "cache"))


def recording(*events: tuple[int, int, int, int]) -> np.ndarray:
    """Return a recording of (x, y, t, p)."""
    return np.array(list(events), dtype=EVENT_DTYPE)


def small_dataset(n: int = 3, seed: int = 0, **changes: object) -> Dataset:
    """Return `n` random recordings of 50 events on a 5 x 4 sensor, 1,000 microseconds."""
    rng = np.random.default_rng(seed)
    recordings = []
    for _ in range(n):
        events = np.zeros(50, dtype=EVENT_DTYPE)
        events["x"], events["y"] = rng.integers(5, size=50), rng.integers(4, size=50)
        events["t"], events["p"] = np.sort(rng.integers(1000, size=50)), rng.integers(2, size=50)
        recordings.append(events)
    given: dict = {"sensor_size": (5, 4, 2), "duration": 1000, "classes": 3, **changes}
    return from_events(recordings, np.arange(n) % 3, **given)


def write_bin(path: Path, *events: tuple[int, int, int, int]) -> None:
    """Write (x, y, t, p) as an N-MNIST file: 8 bits x, 8 bits y, 1 bit p, 23 bits t, big endian."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(bytes([x, y]) + (p << 23 | t).to_bytes(3, "big") for x, y, t, p in events))


def nmnist_folder(root: Path) -> Path:
    """Write six tiny N-MNIST recordings, three a split, under `root`."""
    for part in ("Train", "Test"):
        for digit in (0, 4, 9):
            write_bin(root / "NMNIST" / part / str(digit) / "00001.bin", (digit, 33, 10, 0), (33, 2, 314_999, 1))
    return root


def zipped(root: Path, source: Path) -> Path:
    """Pack the recordings under `source` as the archives that N-MNIST comes in, under `root`."""
    (root / "NMNIST").mkdir(parents=True)
    for part in ("Train", "Test"):
        with zipfile.ZipFile(root / "NMNIST" / f"{part.lower()}.zip", "w") as archive:
            for path in sorted((source / "NMNIST" / part).rglob("*.bin")):
                archive.write(path, path.relative_to(source / "NMNIST"))
    return root


def tree(folder: Path) -> dict[str, bytes]:
    """Return all files under `folder`."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# ---------------------------------------------------------------------------------------------- binning

events_strategy = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 1500), st.integers(0, 1)), min_size=1, max_size=60
)


@given(events_strategy, st.integers(1, 40), st.integers(1, 1200))
def test_binning_loses_no_event_and_moves_none(events, time_steps, duration):
    """Every event is counted once, in its pixel, polarity and frame, as counting one by one in exact integers does."""
    expected = np.zeros((2, 4, 5, time_steps), dtype=int)
    for x, y, t, p in events:
        step = next((k for k in range(time_steps) if t * time_steps < (k + 1) * duration), time_steps - 1)
        expected[p, y, x, step] += 1
    counts = bin_events(recording(*events), (5, 4, 2), time_steps, duration)
    assert counts.sum() == len(events)
    np.testing.assert_array_equal(counts, expected)


@given(events_strategy, st.integers(1, 12), st.integers(1, 6), st.integers(1, 1200))
def test_coarser_frames_are_sums_of_finer(events, time_steps, group, duration):
    """T frames are the sums of groups of the T * k frames of the same recording; one frame is the sum of all."""
    recorded = recording(*events)
    fine = bin_events(recorded, (5, 4, 2), time_steps * group, duration)
    coarse = bin_events(recorded, (5, 4, 2), time_steps, duration)
    np.testing.assert_array_equal(fine.reshape(2, 4, 5, time_steps, group).sum(-1), coarse)
    np.testing.assert_array_equal(bin_events(recorded, (5, 4, 2), 1, duration)[..., 0], coarse.sum(-1))


def test_frames_have_equal_duration_and_a_closed_end():
    """A frame holds its first microsecond and not its last; what comes after the window falls into the last frame."""
    times = (0, 99, 100, 299, 300, 399, 400, 5000)
    counts = bin_events(recording(*[(0, 0, t, 1) for t in times]), (1, 1, 2), 4, 400)
    np.testing.assert_array_equal(counts[1, 0, 0], [2, 1, 1, 4])


@settings(max_examples=25, deadline=None)
@given(events_strategy, st.sampled_from([1, 2, 4, 5, 10, 20]))
def test_binning_equals_tonic_where_a_frame_is_a_whole_number_of_microseconds(events, time_steps):
    """tonic's ToFrame, told our window, gives the same frames for events inside it."""
    from tonic.transforms import ToFrame

    events = sorted((e for e in events if e[2] < 1000), key=lambda e: e[2]) or [(0, 0, 0, 0)]
    to_frame = ToFrame(sensor_size=(5, 4, 2), time_window=1000 // time_steps, start_time=0, end_time=1000)
    expected = np.moveaxis(to_frame(recording(*events)), 0, -1)
    np.testing.assert_array_equal(bin_events(recording(*events), (5, 4, 2), time_steps, 1000), expected)


def test_frames_are_in_the_axis_order_of_networks():
    """Frames are (N, P, H, W, T); channel 1 is ON; labels stay with their recordings."""
    data = from_events([recording((4, 1, 50, 1))], [2], sensor_size=(5, 4, 2), duration=100, classes=3)
    counts, labels = frames(data, 10)
    assert counts.shape == (1, 2, 4, 5, 10)
    assert np.argwhere(counts).tolist() == [[0, 1, 1, 4, 5]]
    assert labels.tolist() == [2]
    assert labels.dtype == np.int64


@pytest.mark.parametrize(("events", "dtype"), [(255, np.uint8), (256, np.uint16), (65_536, np.uint32)])
def test_counts_take_the_smallest_type_that_holds_them(events, dtype):
    """A count of 255 is kept in 8 bits, 256 in 16, 65,536 in 32; none wraps."""
    crowded = np.zeros(events, dtype=EVENT_DTYPE)
    crowded["t"] = np.arange(events) % 5
    data = from_events([crowded, crowded[:1]], [0, 0], sensor_size=(1, 1, 1), duration=10, classes=1)
    counts, _ = frames(data, 2)
    assert counts.dtype == dtype
    assert counts[:, 0, 0, 0, 0].tolist() == [events, 1]


@pytest.mark.parametrize("time_steps", [0, -1, 2.5, "10", True, None])
def test_time_steps_must_be_a_whole_number(time_steps):
    """Anything else is refused with the value in the message."""
    with pytest.raises(DataError, match=f"time_steps is {time_steps!r}; must be a whole number, at least 1"):
        frames(small_dataset(), time_steps)


# ---------------------------------------------------------------------------------------------- cache


def cache_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def counting_reads(data: Dataset) -> list[int]:
    """Make `data` note which recordings are read."""
    read: list[int] = []

    class Watched(list):
        def __getitem__(self, i):
            read.append(i)
            return super().__getitem__(i)

    object.__setattr__(data, "events", Watched(data.events))
    return read


def test_frames_are_binned_once():
    """The second call takes the frames from disk, reads no recording, and gives the same."""
    data = small_dataset()
    read = counting_reads(data)
    first, _ = frames(data, 7)
    assert read == [0, 1, 2]
    second, _ = frames(data, 7)
    assert read == [0, 1, 2]
    assert second.dtype == first.dtype
    np.testing.assert_array_equal(first, second)
    assert second.flags.writeable


def test_cache_false_keeps_nothing(tmp_path):
    """With cache=False no file is written or read."""
    data = small_dataset()
    read = counting_reads(data)
    frames(data, 7, cache=False)
    frames(data, 7, cache=False)
    assert read == [0, 1, 2] * 2
    assert not (tmp_path / "cache").exists()


def test_other_data_other_frames():
    """Frames of other events, window, split or T are never taken for each other's."""
    variants = [
        (small_dataset(), 7),
        (small_dataset(), 8),
        (small_dataset(seed=1), 7),
        (small_dataset(duration=2000), 7),
        (small_dataset(sensor_size=(6, 4, 2)), 7),
        (small_dataset(split="test"), 7),
        (small_dataset(name="../other name/"), 7),
    ]
    for data, time_steps in variants:
        np.testing.assert_array_equal(frames(data, time_steps)[0], frames(data, time_steps, cache=False)[0])
    assert len(cache_files(cache_folder())) == len(variants)
    for data, time_steps in variants:
        np.testing.assert_array_equal(frames(data, time_steps)[0], frames(data, time_steps, cache=False)[0])


@pytest.mark.parametrize("damage", ["empty", "cut", "header", "recording", "starts", "checks", "noise", "pickle"])
def test_damaged_cache_files_are_built_again(damage, caplog):
    """Whatever happened to a cache file, the frames are right, nothing is said, and the file is good again."""
    data = small_dataset()
    expected, _ = frames(data, 7)
    (file,) = cache_files(cache_folder())
    good = file.read_bytes()
    places = {"header": good.index(b"largest") + 10, "recording": 1200}
    places |= {"starts": len(good) - 20, "checks": len(good) - 2}
    if damage == "pickle":
        np.savez(file.open("wb"), frames=np.array([{"an": "object"}], dtype=object))
    elif damage in places:
        at = places[damage]
        file.write_bytes(good[:at] + bytes([good[at] ^ 255]) + good[at + 1 :])
    else:
        file.write_bytes({"empty": b"", "cut": good[: len(good) // 2], "noise": b"not such a file"}[damage])
    np.testing.assert_array_equal(frames(data, 7)[0], expected)
    read = counting_reads(data)
    np.testing.assert_array_equal(frames(data, 7)[0], expected)
    assert read == []
    assert not caplog.records


def test_unwritable_cache_costs_one_line(tmp_path, monkeypatch, caplog):
    """Where the cache folder cannot be made, frames still come, with one line of warning in all."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MTT_CACHE", str(tmp_path / "file" / "cache"))
    data = small_dataset()
    expected, _ = frames(data, 7, cache=False)
    for time_steps in (7, 7, 8):
        frames(data, time_steps)
    np.testing.assert_array_equal(frames(data, 7)[0], expected)
    (record,) = caplog.records
    assert "cannot be written" in record.getMessage()
    assert "\n" not in record.getMessage()
    assert tree(tmp_path) == {"file": b""}


def test_cache_folder_follows_the_environment(monkeypatch):
    """MTT_CACHE comes before XDG_CACHE_HOME, which comes before ~/.cache."""
    monkeypatch.setenv("MTT_CACHE", "/one")
    monkeypatch.setenv("XDG_CACHE_HOME", "/two")
    monkeypatch.setenv("HOME", "/three")
    assert cache_folder() == Path("/one")
    monkeypatch.delenv("MTT_CACHE")
    assert cache_folder() == Path("/two/mtt-lava")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path("/three/.cache/mtt-lava")


def test_a_cache_folder_of_ones_own_is_used_for_all(tmp_path):
    """open_dataset(cache=...) puts recordings and frames there and nothing elsewhere."""
    root = zipped(tmp_path / "packed", nmnist_folder(tmp_path / "plain"))
    data = open_dataset("nmnist", split="test", root=root, cache=tmp_path / "mine")
    frames(data, 3)
    assert {path.relative_to(tmp_path / "mine").parts[0] for path in cache_files(tmp_path / "mine")} == {
        "frames",
        "nmnist-unpacked",
    }
    assert not (tmp_path / "cache").exists()


# ---------------------------------------------------------------------------------------------- own recordings


def test_own_recordings_become_a_dataset():
    """Integer fields of any width and order are taken; events come out in order of time, in tonic's types."""
    raw = np.array([(1, 20, 2, 1), (0, 10, 3, 0)], dtype=[("p", "u1"), ("t", "u4"), ("x", "i8"), ("y", "u2")])
    data = from_events([raw], [1], sensor_size=(5, 4, 2), duration=100, classes=["cat", "dog"], split="test")
    assert (len(data), data.split, data.classes, data.static) == (1, "test", ("cat", "dog"), False)
    assert data.events[0].dtype == EVENT_DTYPE
    assert data.events[0].tolist() == [(3, 0, 10, False), (2, 1, 20, True)]


GOOD = recording((0, 0, 0, 1))


@pytest.mark.parametrize(
    ("recordings", "labels", "changes", "message"),
    [
        ([GOOD, recording((5, 0, 0, 1))], [0, 0], {}, r"mine: recording 1: x is 5; must be 0\.\.4"),
        ([recording((0, -1, 0, 1))], [0], {}, r"recording 0: y is -1; must be 0\.\.3"),
        ([recording((0, 0, -7, 1))], [0], {}, "recording 0: t is -7; must be 0 or later"),
        ([GOOD, recording((0, 0, 0, 0))], [0, 0], {"sensor_size": (5, 4, 1)}, "sensor_size has one polarity: pass two"),
        ([recording()], [0], {}, "recording 0: no events; a recording must have at least one"),
        ([np.zeros((3, 5))], [0], {}, "no field x, y, t, p; must be a structured array with fields x, y, t, p"),
        ([GOOD[["x", "y", "t"]]], [0], {}, "no field p"),
        (
            [np.full(1, 0.5, dtype=[("x", int), ("y", int), ("t", float), ("p", int)])],
            [0],
            {},
            r"t is of type float64, such as 0\.5; must be whole numbers of microseconds",
        ),
        ([GOOD], [0, 1], {}, "mine: 1 recordings but 2 labels"),
        ([GOOD], [3], {}, r"label of recording 0 is 3; must be 0\.\.2"),
        ([GOOD], [-1], {}, "label of recording 0 is -1"),
        ([GOOD], ["cat"], {}, "must be one integer a recording"),
        ([], [], {}, "mine: no recordings"),
        ([GOOD], [0], {"split": "validation"}, "split 'validation' is unknown; there is: train, test"),
        ([GOOD], [0], {"duration": 0}, "duration is 0; must be a whole number of microseconds, at least 1"),
        ([GOOD], [0], {"sensor_size": (5, 4, 3)}, r"sensor_size is \(5, 4, 3\); must be"),
    ],
)
def test_mistakes_in_own_recordings_are_named(recordings, labels, changes, message):
    """The message says which recording, which field, the value and what is allowed."""
    given: dict = {"sensor_size": (5, 4, 2), "duration": 100, "classes": 3, "name": "mine", **changes}
    with pytest.raises(DataError, match=message) as caught:
        from_events(recordings, labels, **given)
    assert "\n" not in str(caught.value)


def test_any_tonic_dataset_can_be_plugged_in(tmp_path):
    """from_tonic takes sensor size, classes and recordings from tonic's own object."""
    import tonic

    class NMNIST(tonic.datasets.NMNIST):
        def _check_exists(self) -> bool:
            return True

    source = NMNIST(str(nmnist_folder(tmp_path)), train=True)
    data = from_tonic(source, duration=315_000)
    opened = open_dataset("nmnist", split="train", root=tmp_path)
    assert (data.name, data.sensor_size, data.classes[4]) == ("nmnist", (34, 34, 2), "4 - four")
    for ours, theirs in zip(frames(data, 5), frames(opened, 5), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_source_without_classes_has_to_be_told():
    """from_tonic asks for what it cannot know."""
    with pytest.raises(DataError, match="pass classes="):
        from_tonic([(GOOD, 0)], duration=100)


def test_picture_shows_on_red_and_off_blue():
    """White where nothing happened; the most active ON pixel red, OFF blue; rows are y."""
    image = picture(recording((1, 0, 0, 1), (1, 0, 1, 1), (2, 3, 5, 0), (2, 3, 6, 0)), (5, 4, 2))
    assert image.shape == (4, 5, 3)
    assert image.dtype == np.uint8
    red, blue = image[0, 1].astype(int), image[3, 2].astype(int)
    assert red[0] > 2 * red[2]
    assert blue[2] > 2 * blue[0]
    assert np.all(np.delete(image.reshape(-1, 3), [1, 17], axis=0) == 255)
    assert np.all(picture(recording(), (5, 4, 2)) == 255)


# ---------------------------------------------------------------------------------------------- open_dataset


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "cifar11", "split": "train"}, "no data set 'cifar11'; there are digits-dvs, nmnist"),
        ({"name": "digits-dvs", "split": "val"}, "split 'val' is unknown; there is: train, test"),
        ({"name": "digits-dvs", "split": "test", "seed": -1}, "seed is -1; must be a whole number, 0 or more"),
        ({"name": "digits-dvs", "split": "test", "seed": 0.5}, "seed is 0.5"),
        ({"name": "digits-dvs", "split": "test", "root": "x"}, "digits-dvs is built in and takes no root"),
        ({"name": "cifar10-camera", "split": "test", "root": "x", "seed": -2}, "seed is -2"),
        ({"name": "cifar10-camera", "split": "test"}, "no root; pass as root the folder that holds train"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    """open_dataset says what is wrong and what there is."""
    with pytest.raises(DataError, match=message):
        open_dataset(**arguments)


def test_opening_is_light():
    """Importing the data module, or digits-dvs, loads neither torch nor tonic."""
    import subprocess
    import sys

    code = (
        "import sys, mtt_lava.data.digits as d; d.record(d.load()[0], [0], seed=0, sensor=(34, 34)); "
        "print([m for m in ('torch', 'tonic', 'lava', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_data_set_is_a_module_and_a_line(monkeypatch: pytest.MonkeyPatch):
    """One more name in the table opens what its module makes, and is offered where a name is wrong."""
    asked = []

    def open_split(*arguments: object) -> str:
        asked.append(arguments)
        return "opened"

    monkeypatch.setitem(sys.modules, "tests.mine", SimpleNamespace(open_split=open_split))
    monkeypatch.setitem(DATASETS, "mine", "tests.mine")
    assert open_dataset("mine", split="train", root="r", seed=3, cache="c") == "opened"
    assert asked == [("train", "r", 3, Path("c"))]
    with pytest.raises(DataError, match=r"there are digits-dvs, .*, mine \(did you mean mine\?\)"):
        open_dataset("mines", split="test")


# ---------------------------------------------------------------------------------------------- digits-dvs


record_digits = functools.partial(record, sensor=(34, 34))


@pytest.fixture(scope="module")
def digits_test(tmp_path_factory) -> Dataset:
    return open_dataset("digits-dvs", split="test", cache=tmp_path_factory.mktemp("digits"))


def test_digits_are_split_1500_to_297(digits_test):
    """The test split is the last 297 of scikit-learn's digits, with their labels, all ten classes in it."""
    from sklearn.datasets import load_digits

    target = load_digits().target
    assert len(digits_test) == len(digits_test.events) == len(target) - 1500 == 297
    np.testing.assert_array_equal(digits_test.labels, target[1500:])
    assert set(digits_test.labels) == set(range(10))
    assert (digits_test.sensor_size, digits_test.duration, digits_test.static) == ((34, 34, 2), 300_000, False)


def test_digits_keep_to_the_sensor_and_the_clock(digits_test):
    """Events lie on the sensor and in the window, are in order of time, and have stamps of a microsecond."""
    for events in digits_test.events:
        assert events.dtype == EVENT_DTYPE
        assert events["x"].min() >= 0
        assert max(events["x"].max(), events["y"].max()) <= 33
        assert events["t"].min() >= 0
        assert events["t"].max() < 300_000
        assert np.all(np.diff(events["t"]) >= 0)
    stamps = np.concatenate([events["t"] for events in digits_test.events])
    assert np.unique(stamps % 1250, return_counts=True)[1].max() < 3 * len(stamps) / 1250


@pytest.mark.parametrize("threshold", [0.165, 0.02])
def test_no_pixel_fires_within_its_refractory_time(threshold):
    """Between two events of a pixel, noise among them, pass 1,700 microseconds, however small the threshold."""
    images, _ = digits.load()
    for events in record_digits(images, range(16), seed=0, camera=Camera(threshold=threshold)):
        pixel = events["y"].astype(int) * 34 + events["x"]
        order = np.lexsort((events["t"], pixel))
        same = np.diff(pixel[order]) == 0
        assert np.diff(events["t"][order])[same].min() >= 1699  # stamps are cut to whole microseconds


@pytest.mark.parametrize("camera", [{"step": 2000.0}, {"step": 1300.0}, {"step": 0.0}, {"refractory": 100.0}])
def test_the_camera_cannot_be_blind_for_less_than_a_step(camera):
    """Steps longer than the refractory time, or that do not fill the window, are refused."""
    with pytest.raises(DataError, match="step must divide 300000 and be no longer than refractory"):
        Camera(**camera)


def test_digits_depend_on_the_seed_alone(digits_test, tmp_path):
    """The same seed gives the same events again without the cache; another seed gives others, of the same digits."""
    again = open_dataset("digits-dvs", split="test", cache=tmp_path / "again")
    for one, other in zip(digits_test.events, again.events, strict=True):
        np.testing.assert_array_equal(one, other)
    images, _ = digits.load()
    other_seed = record_digits(images, [1500], seed=1)[0]
    assert not np.array_equal(other_seed, again.events[0])
    close = [bin_events(e, (34, 34, 2), 3, 300_000).ravel() for e in (other_seed, again.events[0], again.events[1])]
    assert np.corrcoef(close)[0, 1] > 0.8 > np.corrcoef(close)[0, 2]


def test_a_recording_does_not_depend_on_the_others(digits_test):
    """A subset in any order is the same subset of the whole."""
    images, _ = digits.load()
    indices = [1796, 1503, 1500, 1640]
    for index, events in zip(indices, record_digits(images, indices, seed=0), strict=True):
        np.testing.assert_array_equal(events, digits_test.events[index - 1500])


def test_digits_recordings_index_like_a_list(digits_test):
    """Negative indices and slices work, an index beyond the end is an IndexError."""
    np.testing.assert_array_equal(digits_test.events[-1], digits_test.events[296])
    assert len(digits_test.events[5:8]) == 3
    with pytest.raises(IndexError):
        digits_test.events[297]


def test_three_saccades(digits_test):
    """The rate of events has three bursts, as many of each polarity, with rests of near silence between."""
    times = np.concatenate([events["t"] for events in digits_test.events])
    rate = np.histogram(times, np.arange(0, 300_001, 10_000))[0]
    middles, rests = rate[[4, 5, 14, 15, 24, 25]], rate[[0, 9, 10, 19, 20, 29]]
    assert middles.min() > 5 * rests.max()
    on = np.mean(np.concatenate([events["p"] for events in digits_test.events]))
    assert 0.45 < on < 0.55


def test_a_bright_edge_moving_right_leads_on_and_trails_off():
    """In the first two saccades ink moves to the right: its right edge sends ON events, its left edge OFF."""
    images, labels = digits.load()
    zeros = np.flatnonzero(labels == 0)[:10]
    late = [e[(e["t"] > 100_000) & (e["t"] < 200_000)] for e in record_digits(images, list(zeros), seed=0)]
    for events in late:
        on_x, off_x = events["x"][events["p"]].mean(), events["x"][~events["p"]].mean()
        assert on_x > off_x


def test_a_blank_image_gives_noise_alone():
    """Nothing to see: 0.2 events a pixel and second of both polarities, all over the sensor."""
    blank = np.zeros((20, 8, 8), dtype=np.float32)
    counts = np.array([len(e) for e in record_digits(blank, range(20), seed=0)])
    expected = 0.2 * 34 * 34 * 0.3
    assert abs(counts.mean() - expected) < 5 * np.sqrt(expected / 20)


@pytest.mark.slow
def test_digits_can_be_learned():
    """A linear classifier of the events of each saccade, trained on half the data, is right beyond 85 %."""
    from sklearn.linear_model import LogisticRegression

    images, labels = digits.load()
    chosen = np.concatenate([np.arange(0, 1500, 3), np.arange(1500, 1797, 2)])
    x = np.stack([bin_events(e, (34, 34, 2), 3, 300_000) for e in record_digits(images, list(chosen), seed=0)])
    x, y = np.log1p(x.reshape(len(x), -1).astype(np.float32)), labels[chosen]
    train = chosen < 1500
    model = LogisticRegression(C=0.01, max_iter=40, tol=0.01).fit(x[train], y[train])
    assert model.score(x[~train], y[~train]) > 0.85


# ---------------------------------------------------------------------------------------------- the camera


def test_digits_stay_as_they_are(digits_test):
    """Number and place of the events of some digits are pinned, and their times but for what a computer rounds."""
    images, _ = digits.load()
    recordings = record_digits(images, [0, 1, 700, 1499, 1500, 1796], seed=0)
    # Not the events themselves: the last digit of a stamp differs between computers.
    counts = hashlib.sha256(b"".join(bin_events(e, (34, 34, 2), 1, 300_000).tobytes() for e in recordings))
    assert counts.hexdigest() == "168433fd620380ba8430658879f22bd5a4b1b47e805bfdb8f8ed82aa3778602c"
    times = [680_892_568, 526_133_754, 615_339_828, 567_774_952, 539_252_638, 613_200_657]
    assert [int(e["t"].sum()) for e in recordings] == pytest.approx(times, abs=100)
    assert digits_test.fingerprint == "0d83898d10b9fd6e"  # so recordings and frames in users' caches are found


@pytest.mark.parametrize(
    ("shape", "sensor"), [((5, 9), (12, 7)), ((9, 5), (7, 12)), ((1, 2), (3, 2)), ((40, 3), (5, 5))]
)
@pytest.mark.parametrize("border", ["dark", "edge"])
def test_the_camera_takes_images_of_any_size(shape, sensor, border):
    """Images and sensors need be neither square nor of one size; the events lie on the sensor."""
    images = np.random.default_rng(0).random((2, *shape), dtype=np.float32)
    for events in record(images, [0, 1], seed=0, sensor=sensor, camera=Camera(pitch=1.0, noise=50.0), border=border):
        assert events["x"].min() >= 0
        assert events["y"].min() >= 0
        assert events["x"].max() < sensor[0]
        assert events["y"].max() < sensor[1]


def test_a_transposed_image_has_transposed_contours():
    """Columns go with x and rows with y: a bright row gives its events along x, a bright column along y."""
    images = np.zeros((2, 20, 20), dtype=np.float32)
    images[0, 10], images[1, :, 10] = 1, 1
    camera = Camera(pitch=1.0, noise=0.0)
    row, column = record(images, [0, 1], seed=0, sensor=(20, 20), camera=camera, border="edge")
    assert np.ptp(row["x"]) == np.ptp(column["y"]) == 19
    assert np.ptp(row["y"]) < 12 > np.ptp(column["x"])


def test_a_bright_image_with_edges_gives_noise_alone_where_black_would_make_a_contour():
    """Beyond the border lies the image's edge, however far the camera sees; or, on black, its outline is seen."""
    white = np.ones((4, 6, 8), dtype=np.float32)
    camera = Camera(pitch=1.0, noise=0.0)
    assert sum(len(e) for e in record(white, range(4), seed=0, sensor=(30, 30), camera=camera, border="edge")) == 0
    assert min(len(e) for e in record(white, range(4), seed=0, sensor=(30, 30), camera=camera)) > 50


def test_a_recording_follows_its_number():
    """A part of the images, told where it starts, has the recordings of the whole."""
    images = np.random.default_rng(0).random((6, 8, 8), dtype=np.float32)
    whole = record(images, range(6), seed=3, sensor=(8, 8))
    for one, other in zip(whole[4:], record(images[4:], range(2), seed=3, sensor=(8, 8), first=4), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((2, 8, 8), dtype=np.uint8)}, "images of type uint8"),
        ({"images": np.zeros((8, 8))}, r"shape \(8, 8\); must be floats, \(N, H, W\)"),
        ({"sensor": (300, 8)}, r"sensor is \(300, 8\); must be \(columns, rows\), 1 to 256 each"),
        ({"sensor": (8, 0)}, r"sensor is \(8, 0\)"),
        ({"border": "mirror"}, "border is 'mirror'; must be dark or edge"),
    ],
)
def test_the_camera_says_what_it_cannot_see(changes, message):
    """Images, sensors and borders of another kind are refused with their value."""
    given: dict = {"images": np.zeros((2, 8, 8)), "indices": [0], "seed": 0, "sensor": (8, 8), **changes}
    with pytest.raises(DataError, match=message):
        record(**given)


# ---------------------------------------------------------------------------------------------- cifar10-camera


def write_cifar(path: Path, n: int = 3, seed: int = 0, **changes: object) -> Path:
    """Write `n` smooth random images as cifar10-camera wants them."""
    rng = np.random.default_rng(seed)
    x = np.kron(rng.integers(256, size=(n, 4, 4, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {"x": x, "y": np.arange(n) % 10, **changes}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def cifar_folder(root: Path) -> Path:
    """Write two train files and one test file under `root`."""
    write_cifar(root / "train_2.npz", 2, seed=2)
    write_cifar(root / "train_1.npz", 3, seed=1)
    write_cifar(root / "test.npz", 2, seed=3)
    write_cifar(root / "other.npz", 5)
    return root


@pytest.fixture
def blocks_of_two(monkeypatch) -> list[int]:
    """Make blocks of two recordings, and note the number of the first image of each that is simulated."""
    simulated: list[int] = []

    def watched(*args, **kwargs):
        if "first" in kwargs:
            simulated.append(kwargs["first"])
        return record(*args, **kwargs)

    monkeypatch.setattr(camera_blocks, "BLOCK", 2)
    monkeypatch.setattr(camera_blocks, "record", watched)
    return simulated


def test_cifar10_files_are_strung_together(tmp_path):
    """Train and test files are told apart by name, taken in order of name, and their images keep their order."""
    root = cifar_folder(tmp_path)
    train, test = (open_dataset("cifar10-camera", split=s, root=root) for s in ("train", "test"))
    assert train.labels.tolist() == [0, 1, 2, 0, 1]
    assert test.labels.tolist() == [0, 1]
    assert train.classes[:2] == ("airplane", "automobile")
    assert (train.sensor_size, train.duration, train.static) == ((32, 32, 2), 300_000, False)
    assert (len(train.events), len(train.events[1:3])) == (5, 2)
    first, second = (np.load(root / f"train_{i}.npz")["x"] for i in (1, 2))
    grey = np.concatenate([first, second]) @ np.array([0.299, 0.587, 0.114]) / 255
    expected = record(grey, range(5), seed=0, sensor=(32, 32), camera=cifar10.CAMERA, border="edge")
    for i in (0, 2, 3, -1):
        # Not event for event: these greys differ in their last digits.
        ours, theirs = (bin_events(e[i], (32, 32, 2), 3, 300_000).ravel() for e in (train.events, expected))
        assert np.corrcoef(ours, theirs)[0, 1] > 0.99
        assert 1000 < len(train.events[i]) < 10_000
    with pytest.raises(IndexError):
        train.events[5]


def test_cifar10_grey_images_and_classes_are_taken(tmp_path):
    """Images without colours, and names of other classes, come through; grey is grey in colours too."""
    grey = np.full((2, 32, 32), 77, dtype=np.uint8)
    grey[:, 10:20, 10:20] = 200
    write_cifar(tmp_path / "a" / "test.npz", 2, x=grey, classes=["cat", "dog"])
    write_cifar(tmp_path / "b" / "test.npz", 2, x=np.repeat(grey[..., None], 3, axis=3))
    one, other = (open_dataset("cifar10-camera", split="test", root=tmp_path / name) for name in "ab")
    assert one.classes == ("cat", "dog")
    for ours, theirs in zip(one.events, other.events, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_cifar10_is_simulated_when_asked_for_and_once(tmp_path, blocks_of_two):
    """Opening simulates nothing, a recording its block alone; the next time blocks come from disk, the same."""
    root = cifar_folder(tmp_path)
    data = open_dataset("cifar10-camera", split="train", root=root)
    assert blocks_of_two == []
    chosen = subset(data, [2, 3])
    assert blocks_of_two == []
    events = list(chosen.events)
    assert blocks_of_two == [2]
    assert len(cache_files(cache_folder())) == 1
    again = open_dataset("cifar10-camera", split="train", root=root)
    np.testing.assert_array_equal(again.events[2], events[0])
    assert blocks_of_two == [2]
    assert len(list(again.events)) == 5
    assert blocks_of_two == [2, 0, 4]
    elsewhere = open_dataset("cifar10-camera", split="train", root=root, cache=tmp_path / "mine")
    for one, other in zip(again.events, elsewhere.events, strict=True):
        np.testing.assert_array_equal(one, other)


def test_other_images_or_seeds_give_other_recordings(tmp_path, blocks_of_two):
    """Recordings of other images or another seed are never taken from the cache; the same block of more images is."""
    root = cifar_folder(tmp_path)
    data = open_dataset("cifar10-camera", split="train", root=root)
    seeded = open_dataset("cifar10-camera", split="train", root=root, seed=1)
    assert data.fingerprint != seeded.fingerprint
    assert not np.array_equal(data.events[0], seeded.events[0])
    write_cifar(root / "train_2.npz", 4, seed=9)
    changed = open_dataset("cifar10-camera", split="train", root=root)
    assert changed.fingerprint not in (data.fingerprint, seeded.fingerprint)
    del blocks_of_two[:]
    assert len(list(changed.events)) == 7
    assert blocks_of_two == [2, 4, 6]
    np.testing.assert_array_equal(changed.events[1], data.events[1])


def test_train_and_test_noise_differ(tmp_path):
    """The same image as a train and as a test image has other noise."""
    for name in ("train", "test"):
        write_cifar(tmp_path / f"{name}.npz", 1)
    train, test = (open_dataset("cifar10-camera", split=s, root=tmp_path) for s in ("train", "test"))
    assert not np.array_equal(train.events[0], test.events[0])


X = np.zeros((2, 32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": None}, "no array x; must hold x and y"),
        ({"y": None}, "no array y"),
        ({"x": X.astype(float)}, r"x of type float64, shape \(2, 32, 32, 3\); must be uint8, \(N, 32, 32, 3\) or"),
        ({"x": X.transpose(0, 3, 1, 2)}, r"shape \(2, 3, 32, 32\)"),
        ({"x": X[:0], "y": []}, "no recordings"),
        ({"y": [0]}, "2 recordings but 1 labels"),
        ({"y": 3}, "2 recordings but 1 labels"),
        ({"y": [0, 10]}, r"label of recording 1 is 10; must be 0\.\.9"),
        ({"y": [0.0, 1.0]}, "must be one integer a recording"),
        ({"y": [0, 1], "classes": ["cat"]}, r"label of recording 1 is 1; must be 0\.\.0"),
        ({"x": np.array([None, None])}, "not a whole .npz file of numbers .holds Python objects"),
    ],
)
def test_mistakes_in_cifar10_files_are_named(tmp_path, changes, message):
    """The message names the file, what is wrong with it and what it must be."""
    path = write_cifar(tmp_path / "train.npz", 2, **changes)
    with pytest.raises(DataError, match=message) as caught:
        open_dataset("cifar10-camera", split="train", root=tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["empty", "cut", "flip", "npy"])
def test_damaged_cifar10_files_are_named(tmp_path, damage):
    """A file that is cut off, damaged inside or of something else is named in one line."""
    path = write_cifar(tmp_path / "train.npz")
    good = path.read_bytes()
    contents = {"empty": b"", "cut": good[: len(good) // 2], "flip": good[:300] + bytes([good[300] ^ 255]) + good[301:]}
    if damage == "npy":
        with path.open("wb") as file:
            np.save(file, X)
    else:
        path.write_bytes(contents[damage])
    with pytest.raises(DataError, match=r"train\.npz: is not a whole \.npz file") as caught:
        open_dataset("cifar10-camera", split="train", root=tmp_path)
    assert "\n" not in str(caught.value)


def test_cifar10_files_of_two_data_sets_are_not_mixed(tmp_path):
    """Files that name other classes than each other are refused."""
    write_cifar(tmp_path / "train_1.npz", 1, classes=["cat", "dog"])
    write_cifar(tmp_path / "train_2.npz", 1, classes=["dog", "cat"])
    with pytest.raises(DataError, match=r"train_2\.npz differ in classes"):
        open_dataset("cifar10-camera", split="train", root=tmp_path)


def test_absent_cifar10_files_are_explained(tmp_path):
    """The message says what the folder must hold, and that torchvision's pickles are not read."""
    (tmp_path / "cifar-10-batches-py").mkdir()
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match=r"no test\*\.npz; must be a folder that holds train\*\.npz") as caught:
            open_dataset("cifar10-camera", split="test", root=root)
        assert "cifar-10-batches-py is pickled, and pickles are not read" in str(caught.value)
        assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------- parts of a data set


def labelled(labels: list[int]) -> Dataset:
    """Return a data set with these labels; the stamp of a recording's one event is its index."""
    recordings = [recording((0, 0, i, 1)) for i in range(len(labels))]
    return from_events(recordings, labels, sensor_size=(1, 1, 2), duration=4000, classes=5)


def numbers(data: Dataset) -> list[int]:
    """Return the indices of the recordings of a part of `labelled`."""
    return [int(events["t"][0]) for events in data.events]


labels_strategy = st.lists(st.integers(0, 4), min_size=2, max_size=60)


@settings(deadline=None)
@given(labels_strategy, st.data())
def test_a_subset_has_the_recordings_asked_for_in_that_order(labels, data):
    """Recordings and labels of a subset, and of a subset of it, are those of the indices; all else is as it was."""
    whole = labelled(labels)
    indices = data.draw(st.lists(st.integers(0, len(labels) - 1), min_size=1, max_size=20))
    part = subset(whole, indices)
    assert numbers(part) == indices
    assert part.labels.tolist() == [labels[i] for i in indices]
    assert len(part) == len(part.events) == len(indices)
    again = data.draw(st.lists(st.integers(0, len(indices) - 1), min_size=1, max_size=20))
    assert numbers(subset(part, np.array(again))) == [indices[i] for i in again]
    kept = ("name", "split", "sensor_size", "classes", "duration", "static", "cache")
    assert all(getattr(part, name) == getattr(whole, name) for name in kept)


def test_a_subset_reads_what_it_is_asked_for():
    """Neither subset nor split reads a recording; indexing a part reads that one."""
    data = small_dataset(9)
    read = counting_reads(data)
    part = subset(data, range(4, 8))
    rest, held = split(data, 0.5)
    assert (len(part), len(rest) + len(held)) == (4, 9)
    assert read == []
    part.events[1], part.events[-1]
    assert read == [5, 7]
    assert len(part.events[1:3]) == 2
    with pytest.raises(IndexError):
        part.events[4]


def test_parts_never_share_frames():
    """Fingerprints differ with the indices, their order and the data set; so each part has its own cached frames."""
    parts = [subset(d, i) for d in (small_dataset(6), small_dataset(6, seed=1)) for i in ([0, 1], [1, 0], [0, 1, 2])]
    parts += [subset(parts[2], [0, 1]), small_dataset(6)]
    assert len({part.fingerprint for part in parts}) == len(parts)
    for _ in range(2):
        for part in parts:
            np.testing.assert_array_equal(frames(part, 3)[0], frames(part, 3, cache=False)[0])
    assert subset(small_dataset(6), range(2)).fingerprint == subset(small_dataset(6), np.arange(2)).fingerprint


def test_long_subsets_are_told_apart():
    """Index lists that differ in their middle alone have other fingerprints."""
    data = labelled([0, 1] * 2000)
    indices = np.arange(3000)
    other = indices.copy()
    other[1500] = 3500
    assert subset(data, indices).fingerprint != subset(data, other).fingerprint


def test_still_images_have_parts():
    """A subset of a static data set is one, with the frames of its images."""
    images = np.arange(6 * 4).reshape(6, 1, 2, 2)
    part = subset(from_images(images, [0, 1] * 3, classes=2), [4, 1])
    assert part.static
    x, y = frames(part, 3)
    np.testing.assert_array_equal(x[..., 2], images[[4, 1]])
    assert y.tolist() == [0, 1]


@settings(deadline=None)
@given(labels_strategy, st.floats(0.01, 0.99), st.integers(0, 5))
def test_a_split_holds_out_a_share_of_every_class(labels, share, seed):
    """Each recording is in one part, in order; of n of a class round(share * n) are held, 1 to n - 1 if n is over 1."""
    whole = labelled(labels)
    if max(np.bincount(labels)) < 2:
        with pytest.raises(DataError, match="no class has two recordings"):
            split(whole, share, seed=seed)
        return
    rest, held = split(whole, share, seed=seed)
    assert sorted(numbers(rest) + numbers(held)) == list(range(len(labels)))
    assert numbers(rest) == sorted(numbers(rest))
    assert numbers(held) == sorted(numbers(held))
    for label in set(labels):
        n = labels.count(label)
        expected = min(max(round(share * n), 1), n - 1)  # 0 of a class of one
        assert np.count_nonzero(held.labels == label) == expected
    again_rest, again = split(whole, share, seed=seed)
    assert (numbers(again), again.fingerprint) == (numbers(held), held.fingerprint)
    assert again_rest.fingerprint == rest.fingerprint != held.fingerprint


def test_another_seed_holds_out_others():
    """The seed settles which recordings are held out."""
    data = labelled([0, 1] * 50)
    assert len({tuple(numbers(split(data, 0.2, seed=seed)[1])) for seed in range(5)}) == 5


@settings(deadline=None)
@given(labels_strategy, st.integers(2, 6), st.integers(0, 5))
def test_folds_hold_out_every_recording_once(labels, count, seed):
    """The held parts make up the whole; they differ by at most one in size, and in the size of each class."""
    count = min(count, len(labels))
    whole = labelled(labels)
    parts = folds(whole, count, seed=seed)
    assert sorted(n for _, held in parts for n in numbers(held)) == list(range(len(labels)))
    for rest, held in parts:
        assert sorted(numbers(rest) + numbers(held)) == list(range(len(labels)))
    sizes = np.array([np.bincount(held.labels, minlength=5) for _, held in parts])
    assert np.ptp(sizes, axis=0).max() <= 1
    assert np.ptp(sizes.sum(1)) <= 1


def test_a_replaced_data_set_has_frames_of_its_own(digits_test):
    """Whatever dataclasses.replace puts into a data set, and wherever it is from, frames are of the events it has."""
    one, other = small_dataset(6), small_dataset(6, seed=1)
    still, moved = (from_images(np.full((6, 2, 4, 5), i), [0] * 6, classes=3) for i in range(2))
    events = [
        *(one.events, other.events, subset(one, range(6)).events, subset(other, [5, 4, 3, 2, 1, 0]).events),
        *(join(subset(one, [0, 1, 2]), subset(other, [3, 4, 5])).events, tuple(one.events[::-1])),
        [recording[::2] for recording in one.events],
    ]
    for _ in range(2):
        for each in events:
            data = dataclasses.replace(one, events=each)
            np.testing.assert_array_equal(frames(data, 3)[0], frames(data, 3, cache=False)[0])
    assert dataclasses.replace(one, events=other.events).fingerprint == other.fingerprint != one.fingerprint
    assert dataclasses.replace(still, events=moved.events).fingerprint == moved.fingerprint != still.fingerprint
    renamed = dataclasses.replace(digits_test, name="other", split="train", labels=digits_test.labels[::-1])
    assert renamed.fingerprint == digits_test.fingerprint
    part = dataclasses.replace(digits_test, events=digits_test.events[:3], labels=digits_test.labels[:3])
    assert len(frames(part, 2)[0]) == 3
    with pytest.raises(TypeError, match="fingerprint"):
        dataclasses.replace(one, fingerprint="mine")


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2), st.integers(0, 49), st.integers(0, 4), st.integers(0, 999))
def test_recordings_changed_in_place_are_binned_again(which, event, x, t):
    """Frames are of the events as they are now, in parts of the data set too."""
    data = small_dataset()
    part = subset(data, [2, 1, 0])
    before = data.fingerprint, part.fingerprint
    old = data.events[which][event].item()
    frames(data, 4), frames(part, 4)
    data.events[which]["x"][event], data.events[which]["t"][event] = x, t
    for each in (data, part):
        np.testing.assert_array_equal(frames(each, 4)[0], frames(each, 4, cache=False)[0])
    assert (before == (data.fingerprint, part.fingerprint)) == (old == data.events[which][event].item())


def test_a_sequence_that_knows_its_fingerprint_is_not_read():
    """Recordings read from disk may say what they are; frames in the cache are then found without reading any."""
    data = small_dataset()
    read = counting_reads(data)
    data.events.fingerprint = "mine"
    frames(data, 4), frames(data, 4)
    assert (read, data.fingerprint) == ([0, 1, 2], "mine")


@settings(deadline=None)
@given(st.lists(labels_strategy, min_size=1, max_size=4), st.data())
def test_joined_data_sets_are_one(all_labels, data):
    """Recordings and labels follow each other, by index, slice and from the end; nothing beyond."""
    parts = [labelled(labels) for labels in all_labels]
    whole = join(*parts)
    assert numbers(whole) == [i for labels in all_labels for i in range(len(labels))]
    assert whole.labels.tolist() == [label for labels in all_labels for label in labels]
    index = data.draw(st.integers(-len(whole), len(whole) - 1))
    np.testing.assert_array_equal(whole.events[index], list(whole.events)[index])
    assert len(whole.events[1:3]) == len(list(whole.events)[1:3])
    with pytest.raises(IndexError):
        whole.events[len(whole)]


def test_joined_images_are_images():
    """Static data sets join to a static one."""
    one, other = (from_images(np.full((2, 1, 2, 2), i), [0, 1], classes=2) for i in range(2))
    assert frames(join(one, other), 1)[0][:, 0, 0, 0, 0].tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"duration": 2000}, "duration is 1000 and 2000; must be the same"), ({"sensor_size": (6, 4, 2)}, "sensor_size")],
)
def test_data_sets_of_different_kinds_do_not_join(changes, message):
    """What differs is named; and nothing at all is refused."""
    with pytest.raises(DataError, match=message):
        join(small_dataset(), small_dataset(**changes))
    with pytest.raises(DataError, match="no data sets"):
        join()


@settings(deadline=None)
@given(labels_strategy, st.floats(0.01, 0.99), st.integers(0, 3), st.data())
def test_groups_stay_together(labels, share, seed, data):
    """Nobody is in both parts of a split, or of a fold; every recording is held out once; neither part is empty."""
    whole = labelled(labels)
    groups = data.draw(st.lists(st.sampled_from("abcdef"), min_size=len(labels), max_size=len(labels)))
    different = len(set(groups))
    if different < 2:
        for cut in (split, folds):
            with pytest.raises(DataError, match="events: 1 groups; there must be at least 2"):
                cut(whole, 2 if cut is folds else share, groups=groups)
        return
    count = data.draw(st.integers(2, different))
    parts = [split(whole, share, seed=seed, groups=groups)]
    cross = folds(whole, count, seed=seed, groups=np.array(groups))
    for rest, held in [*parts, *cross]:
        assert sorted(numbers(rest) + numbers(held)) == list(range(len(labels)))
        assert not {groups[i] for i in numbers(rest)} & {groups[i] for i in numbers(held)}
        assert len(rest) > 0 < len(held)
    assert sorted(n for _, held in cross for n in numbers(held)) == list(range(len(labels)))
    again = folds(whole, count, seed=seed, groups=groups)
    assert [held.fingerprint for _, held in again] == [held.fingerprint for _, held in cross]


def test_even_groups_give_even_parts():
    """Twelve people with four recordings of each class: a third of them, and folds of three."""
    labels, groups = [0, 1, 2] * 48, [i // 12 for i in range(144)]
    whole = labelled(labels)
    _, held = split(whole, 1 / 3, groups=groups)
    assert np.bincount(held.labels).tolist() == [16, 16, 16]
    for _, held in folds(whole, 4, groups=groups):
        assert np.bincount(held.labels).tolist() == [12, 12, 12]
    assert len({tuple(numbers(split(whole, 1 / 3, seed=seed, groups=groups)[1])) for seed in range(5)}) > 1


@settings(deadline=None)
@given(labels_strategy, st.integers(2, 6))
def test_folds_without_a_seed_follow_the_order(labels, count):
    """Sorted by class, every count-th recording is in a fold: the folds of bench paper as they always were."""
    count = min(count, len(labels))
    fold = np.zeros(len(labels), int)
    fold[np.argsort(labels, kind="stable")] = np.arange(len(labels)) % count
    for k, (rest, held) in enumerate(folds(labelled(labels), count, seed=None)):
        assert numbers(held) == np.flatnonzero(fold == k).tolist()
        assert numbers(rest) == np.flatnonzero(fold != k).tolist()


@pytest.mark.slow
def test_bench_paper_has_the_folds_it_always_had(digits_test):
    """Both splits in a row, sorted by class, every fifth recording: the same ones in each fold."""
    from mtt_lava.studies import paper

    whole = join(*(open_dataset("digits-dvs", split=part) for part in ("train", "test")))
    fold = np.zeros(1797, int)
    fold[np.argsort(whole.labels, kind="stable")] = np.arange(1797) % 5
    for k, (training, test) in enumerate(paper.folds("digits-dvs", None, 5)):
        assert (training.split, test.split) == ("train", "test")
        for part, chosen in ((training, np.flatnonzero(fold != k)), (test, np.flatnonzero(fold == k))):
            np.testing.assert_array_equal(part.labels, whole.labels[chosen])
            assert len(part.events) == len(chosen)
            for i in (0, len(chosen) // 2, -1):
                np.testing.assert_array_equal(part.events[i], whole.events[chosen[i]])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: subset(d, []), "must be whole numbers in a row, at least one"),
        (lambda d: subset(d, 3), r"shape \(\); must be whole numbers in a row, at least one, such as range\(2000\)"),
        (lambda d: subset(d, [0.5]), "indices of type float64"),
        (lambda d: subset(d, [True, False, True]), "indices of type bool"),
        (lambda d: subset(d, [0, 3]), r"events: index 3; must be 0\.\.2"),
        (lambda d: subset(d, [0, -1]), "index -1"),
        (lambda d: split(d, 0), "share is 0; must be between 0 and 1"),
        (lambda d: split(d, 1.0), r"share is 1\.0"),
        (lambda d: split(d, float("nan")), "share is nan"),
        (lambda d: split(d, "half"), "share is 'half'"),
        (lambda d: split(d, 0.5, seed=-1), "seed is -1"),
        (lambda d: split(d, 0.5), "no class has two recordings"),
        (lambda d: split(d, 0.5, groups=[1]), "1 groups for 3 recordings; there must be one each"),
        (lambda d: folds(d, 3, groups=[1, 1, 2]), "2 groups; there must be at least 3"),
        (lambda d: folds(d, 1), r"count is 1; must be a whole number, 2\.\.3"),
        (lambda d: folds(d, 4), "count is 4"),
        (lambda d: folds(d, 2, seed=0.5), r"seed is 0\.5"),
    ],
)
def test_parts_that_cannot_be_made_are_named(make, message):
    """The message says the value and what is allowed."""
    with pytest.raises(DataError, match=message) as caught:
        make(labelled([0, 1, 2]))
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------- nmnist


@pytest.fixture
def offline(monkeypatch) -> None:
    def refuse(*_args, **_kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


@pytest.mark.usefixtures("offline")
def test_nmnist_opens_a_few_unpacked_recordings(tmp_path):
    """tonic's minimum of 10,000 files does not count; x, y, t, p and the label are as written, nothing is added."""
    root = nmnist_folder(tmp_path / "data")
    before = tree(root)
    data = open_dataset("nmnist", split="train", root=root)
    assert data.labels.tolist() == [0, 4, 9]
    assert data.events[1].tolist() == [(4, 33, 10, False), (33, 2, 314_999, True)]
    counts, labels = frames(data, 3)
    assert labels.tolist() == [0, 4, 9]
    assert np.argwhere(counts[1]).tolist() == [[0, 33, 4, 0], [1, 2, 33, 2]]
    assert tree(root) == before


@pytest.mark.usefixtures("offline")
def test_nmnist_opens_archives_and_leaves_their_folder_alone(tmp_path):
    """From the zip files alone come the same frames; they are unpacked once, into the cache."""
    plain = nmnist_folder(tmp_path / "plain")
    packed = zipped(tmp_path / "packed", plain)
    before = tree(packed)
    for part in ("train", "test"):
        expected, _ = frames(open_dataset("nmnist", split=part, root=plain), 4)
        data = open_dataset("nmnist", split=part, root=packed)
        np.testing.assert_array_equal(frames(data, 4)[0], expected)
    assert tree(packed) == before
    stamps = {p: p.stat().st_mtime_ns for p in (cache_folder() / "nmnist-unpacked").rglob("*")}
    assert len([p for p in stamps if p.suffix == ".bin"]) == 6
    open_dataset("nmnist", split="train", root=packed)
    assert {p: p.stat().st_mtime_ns for p in (cache_folder() / "nmnist-unpacked").rglob("*")} == stamps


@pytest.mark.usefixtures("offline")
def test_another_archive_is_unpacked_anew(tmp_path):
    """A replaced zip file is not mistaken for the one that was unpacked before."""
    packed = zipped(tmp_path / "packed", nmnist_folder(tmp_path / "plain"))
    open_dataset("nmnist", split="train", root=packed)
    with zipfile.ZipFile(packed / "NMNIST" / "train.zip", "a") as archive:
        archive.write(tmp_path / "plain" / "NMNIST" / "Train" / "4" / "00001.bin", "Train/7/00002.bin")
    assert open_dataset("nmnist", split="train", root=packed).labels.tolist() == [0, 4, 7, 9]


@pytest.mark.usefixtures("offline")
def test_archives_open_without_a_cache(tmp_path, monkeypatch, caplog):
    """Where the cache cannot be written, the archive is unpacked for as long as it is needed, with a warning."""
    packed = zipped(tmp_path / "packed", nmnist_folder(tmp_path / "plain"))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MTT_CACHE", str(tmp_path / "file" / "no"))
    data = open_dataset("nmnist", split="train", root=packed)
    assert frames(data, 2, cache=False)[0].sum() == 6
    assert [r.getMessage().count("cannot be written") for r in caplog.records] == [1]


@pytest.mark.usefixtures("offline")
def test_changed_recordings_are_binned_again(tmp_path):
    """Frames of a file that was changed are not taken from the cache."""
    root = nmnist_folder(tmp_path)
    assert frames(open_dataset("nmnist", split="test", root=root), 1)[0].sum() == 6
    write_bin(root / "NMNIST" / "Test" / "4" / "00001.bin", *[(1, 1, t, 1) for t in range(5)])
    assert frames(open_dataset("nmnist", split="test", root=root), 1)[0].sum() == 9


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("exists", [True, False])
def test_absent_and_offline_is_one_clear_line_and_leaves_nothing(tmp_path, exists):
    """The message says what was looked for, where, and how to get it; no file and no folder is left."""
    root = tmp_path / "data"
    if exists:
        root.mkdir()
    with pytest.raises(DataError) as caught:
        open_dataset("nmnist", split="test", root=root)
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        f"{root}/NMNIST holds neither Test/<digit>/*.bin nor test.zip",
        "no network",
        "https://",
        "pass as root",
    ):
        assert part in message
    assert root.exists() == exists
    assert not list(tmp_path.rglob("*.*"))


def test_a_broken_download_leaves_nothing(tmp_path, monkeypatch):
    """A download that stops half-way leaves no file that would be taken for the data next time."""
    import tonic

    def stop_half_way(self) -> None:
        folder = Path(self.location_on_system)
        folder.mkdir(parents=True)
        (folder / "train.zip").write_bytes(b"PK half of it")
        raise ConnectionResetError("connection reset")

    monkeypatch.setattr(tonic.datasets.NMNIST, "download", stop_half_way)
    with pytest.raises(DataError, match="connection reset"):
        open_dataset("nmnist", split="train", root=tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_download_ends_up_where_the_user_wants_it(tmp_path, monkeypatch):
    """What tonic downloads lies in the root afterwards, and opens from there without a network."""
    import tonic

    packed = zipped(tmp_path / "packed", nmnist_folder(tmp_path / "plain"))

    def download(self) -> None:
        folder = Path(self.location_on_system)
        folder.mkdir(parents=True)
        (folder / "train.zip").write_bytes((packed / "NMNIST" / "train.zip").read_bytes())
        with zipfile.ZipFile(folder / "train.zip") as archive:
            archive.extractall(folder)

    monkeypatch.setattr(tonic.datasets.NMNIST, "download", download)
    root = tmp_path / "data"
    assert open_dataset("nmnist", split="train", root=root).labels.tolist() == [0, 4, 9]
    assert sorted(path.name for path in root.iterdir()) == ["NMNIST"]
    assert sorted(path.name for path in (root / "NMNIST").iterdir()) == ["Train", "train.zip"]
    monkeypatch.setattr(tonic.datasets.NMNIST, "download", lambda self: pytest.fail("downloaded twice"))
    assert open_dataset("nmnist", split="train", root=root).labels.tolist() == [0, 4, 9]


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("4/00002.bin", b"", "00002.bin: 0 bytes; must be a whole number of 5-byte events"),
        ("4/00002.bin", b"1234567", "00002.bin: 7 bytes; must be"),
        ("4/00002.bin", bytes([34, 0, 0, 0, 1]), r"00002.bin: x is 34; must be 0\.\.33"),
        ("4/00002.bin", bytes([0, 200, 0, 0, 1]), r"00002.bin: y is 200; must be 0\.\.33"),
        ("4/00002.bin", bytes([0, 240, 0, 0, 1]), "00002.bin: no events"),
        ("14/00002.bin", bytes(5), "14/00002.bin: must be in one of the folders 0 to 9"),
        ("00002.bin", bytes(5), "00002.bin: must be in one of the folders 0 to 9"),
    ],
)
def test_damaged_recordings_are_named(tmp_path, name, content, message):
    """The message names the file; no frames are kept."""
    root = nmnist_folder(tmp_path / "data")
    path = root / "NMNIST" / "Train" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        frames(open_dataset("nmnist", split="train", root=root), 5)
    assert str(path) in str(caught.value)
    assert not list(cache_folder().rglob("*.npz"))


@pytest.mark.usefixtures("offline")
def test_a_recording_that_has_gone_is_named(tmp_path):
    """A file removed after opening is named when it is read."""
    data = open_dataset("nmnist", split="train", root=nmnist_folder(tmp_path))
    path = tmp_path / "NMNIST" / "Train" / "4" / "00001.bin"
    path.unlink()
    with pytest.raises(DataError, match=r"00001\.bin: cannot be read"):
        frames(data, 5)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("damage", ["cut", "flip", "other"])
def test_damaged_archives_are_named(tmp_path, damage):
    """A zip file that is cut off, damaged inside or of something else is named, and nothing of it stays unpacked."""
    packed = zipped(tmp_path / "packed", nmnist_folder(tmp_path / "plain"))
    archive = packed / "NMNIST" / "train.zip"
    good = archive.read_bytes()
    if damage == "cut":
        archive.write_bytes(good[: len(good) // 2])
    elif damage == "flip":
        place = good.index(b"Train/9/00001.bin") + len(b"Train/9/00001.bin") + 1
        archive.write_bytes(good[:place] + bytes([good[place] ^ 255]) + good[place + 1 :])
    else:
        with zipfile.ZipFile(archive, "w") as other:
            other.writestr("photos/cat.jpg", b"x")
    with pytest.raises(DataError, match=r"train\.zip: (damaged zip file|no member like Train/0/00001\.bin)"):
        open_dataset("nmnist", split="train", root=packed)
    assert not cache_files(cache_folder())


@pytest.mark.usefixtures("offline")
def test_the_folder_inside_the_root_is_explained(tmp_path):
    """Who passes the folder NMNIST itself is told to pass the one above."""
    root = nmnist_folder(tmp_path)
    with pytest.raises(DataError, match="pass as root the folder that holds NMNIST"):
        open_dataset("nmnist", split="train", root=root / "NMNIST")


@pytest.mark.usefixtures("offline")
@needs_shared
def test_real_recordings_open_from_archives_and_from_folders(tmp_path):
    """100 real test recordings from the zip file and unpacked: the same events, as many as the data's README says."""
    data = open_dataset("nmnist", split="test", root=SHARED)
    with zipfile.ZipFile(SHARED / "NMNIST" / "test.zip") as archive:
        archive.extractall(tmp_path / "plain" / "NMNIST")
    plain = open_dataset("nmnist", split="test", root=tmp_path / "plain")
    assert np.bincount(data.labels).tolist() == [8, 14, 8, 11, 14, 7, 10, 15, 2, 11]
    counts = np.array([len(events) for events in data.events])
    assert (round(counts.mean()), counts.min(), counts.max()) == (3856, 1069, 6326)
    x, y = frames(data, 10)
    assert x.shape == (100, 2, 34, 34, 10)
    assert x.dtype == np.uint8
    np.testing.assert_array_equal(x.sum((1, 2, 3, 4), dtype=int), counts)
    np.testing.assert_array_equal(frames(plain, 10)[0], x)
    np.testing.assert_array_equal(plain.labels, y)


@pytest.mark.usefixtures("offline")
@needs_shared
def test_digits_resemble_real_recordings(digits_test):
    """The simulated camera's recordings are near N-MNIST's in number, polarity, spread and course of events."""
    real = open_dataset("nmnist", split="test", root=SHARED)

    def measures(data: Dataset) -> dict[str, float]:
        counts, _ = frames(data, 1, cache=False)
        times = np.concatenate([events["t"] for events in data.events]) / data.duration
        # Of each third of the window, the middle against the ends.
        rate = np.histogram(times, 30)[0].reshape(3, 10).mean(0)
        return {
            "events a recording": float(np.mean([len(events) for events in data.events])),
            "part of ON events": float(np.mean(np.concatenate([events["p"] for events in data.events]))),
            "part of pixels and polarities with events": float((counts > 0).mean()),
            "most events of a pixel and polarity": float(np.median(counts.max((1, 2, 3, 4)))),
            "rate between saccades / in them": float(rate[[0, 9]].mean() / rate[[4, 5]].mean()),
        }

    ours, theirs = measures(digits_test), measures(real)
    for name in ours:
        print(f"{name:45s} digits-dvs {ours[name]:8.2f}   nmnist_small {theirs[name]:8.2f}")
    assert 0.8 < ours["events a recording"] / theirs["events a recording"] < 1.25
    assert abs(ours["part of ON events"] - theirs["part of ON events"]) < 0.05
    names = ("part of pixels and polarities with events", "most events of a pixel and polarity")
    assert all(0.6 < ours[name] / theirs[name] < 1.6 for name in names)
    assert max(measure["rate between saccades / in them"] for measure in (ours, theirs)) < 0.35
