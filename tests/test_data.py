"""Data sets of events: what every data set keeps to, binning and its cache, digits-dvs, nmnist, and users' mistakes."""

from __future__ import annotations

import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtt_lava.data import (
    EVENT_DTYPE,
    DataError,
    Dataset,
    bin_events,
    cache_folder,
    digits,
    frames,
    from_events,
    from_tonic,
    open_dataset,
    picture,
)

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
    for split in ("Train", "Test"):
        for digit in (0, 4, 9):
            write_bin(root / "NMNIST" / split / str(digit) / "00001.bin", (digit, 33, 10, 0), (33, 2, 314_999, 1))
    return root


def zipped(root: Path, source: Path) -> Path:
    """Pack the recordings under `source` as the archives that N-MNIST comes in, under `root`."""
    (root / "NMNIST").mkdir(parents=True)
    for split in ("Train", "Test"):
        with zipfile.ZipFile(root / "NMNIST" / f"{split.lower()}.zip", "w") as archive:
            for path in sorted((source / "NMNIST" / split).rglob("*.bin")):
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
        (small_dataset(duration=500), 7),
        (small_dataset(sensor_size=(6, 4, 2)), 7),
        (small_dataset(split="test"), 7),
        (small_dataset(name="../other name/"), 7),
    ]
    for data, time_steps in variants:
        np.testing.assert_array_equal(frames(data, time_steps)[0], frames(data, time_steps, cache=False)[0])
    assert len(cache_files(cache_folder())) == len(variants)
    for data, time_steps in variants:
        np.testing.assert_array_equal(frames(data, time_steps)[0], frames(data, time_steps, cache=False)[0])


@pytest.mark.parametrize("damage", ["empty", "cut", "flip", "noise", "pickle"])
def test_damaged_cache_files_are_built_again(damage, caplog):
    """Whatever happened to a cache file, the frames are right, nothing is said, and the file is good again."""
    data = small_dataset()
    expected, _ = frames(data, 7)
    (file,) = cache_files(cache_folder())
    good = file.read_bytes()
    middle = good.index(b"frames.npy") + 60
    if damage == "pickle":
        np.savez(file, frames=np.array([{"an": "object"}], dtype=object))
    else:
        file.write_bytes(
            {
                "empty": b"",
                "cut": good[: len(good) // 2],
                "flip": good[:middle] + bytes([good[middle] ^ 255]) + good[middle + 1 :],
                "noise": b"not a zip file",
            }[damage]
        )
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
        ([GOOD], [0], {"sensor_size": (5, 4, 1)}, r"p is 1; must be 0\.\.0"),
        ([recording()], [0], {}, "recording 0: no events; a recording must have at least one"),
        ([np.zeros((3, 4))], [0], {}, "no field x, y, t, p; must be a structured array with fields x, y, t, p"),
        ([GOOD[["x", "y", "t"]]], [0], {}, "no field p"),
        (
            [np.zeros(1, dtype=[("x", int), ("y", int), ("t", float), ("p", int)])],
            [0],
            {},
            "t is of type float64; must be whole numbers of microseconds",
        ),
        ([GOOD], [0, 1], {}, "mine: 1 recordings but 2 labels"),
        ([GOOD], [3], {}, r"label of recording 0 is 3; must be 0\.\.2"),
        ([GOOD], [-1], {}, "label of recording 0 is -1"),
        ([GOOD], ["cat"], {}, "must be one integer a recording"),
        ([], [], {}, "mine: no recordings"),
        ([GOOD], [0], {"split": "validation"}, "split is 'validation'; must be one of train, test"),
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
        ({"name": "cifar10", "split": "train"}, "no data set 'cifar10'; there are digits-dvs, nmnist"),
        ({"name": "digits-dvs", "split": "val"}, "split is 'val'; must be one of train, test"),
        ({"name": "digits-dvs", "split": "test", "seed": -1}, "seed is -1; must be a whole number, 0 or more"),
        ({"name": "digits-dvs", "split": "test", "seed": 0.5}, "seed is 0.5"),
        ({"name": "digits-dvs", "split": "test", "root": "x"}, "digits-dvs is built in and takes no root"),
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
        "import sys, mtt_lava.data.digits as d; d.record(d.load()[0], [0], seed=0); "
        "print([m for m in ('torch', 'tonic', 'lava', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------------------------------------- digits-dvs


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
    for events in digits.record(images, range(16), seed=0, camera=digits.Camera(threshold=threshold)):
        pixel = events["y"].astype(int) * 34 + events["x"]
        order = np.lexsort((events["t"], pixel))
        same = np.diff(pixel[order]) == 0
        assert np.diff(events["t"][order])[same].min() >= 1699  # stamps are cut to whole microseconds


@pytest.mark.parametrize("camera", [{"step": 2000.0}, {"step": 1300.0}, {"step": 0.0}, {"refractory": 100.0}])
def test_the_camera_cannot_be_blind_for_less_than_a_step(camera):
    """Steps longer than the refractory time, or that do not fill the window, are refused."""
    with pytest.raises(DataError, match="step must divide 300000 and be no longer than refractory"):
        digits.Camera(**camera)


def test_digits_depend_on_the_seed_alone(digits_test, tmp_path):
    """The same seed gives the same events again without the cache; another seed gives others, of the same digits."""
    again = open_dataset("digits-dvs", split="test", cache=tmp_path / "again")
    for one, other in zip(digits_test.events, again.events, strict=True):
        np.testing.assert_array_equal(one, other)
    images, _ = digits.load()
    other_seed = digits.record(images, [1500], seed=1)[0]
    assert not np.array_equal(other_seed, again.events[0])
    close = [bin_events(e, (34, 34, 2), 3, 300_000).ravel() for e in (other_seed, again.events[0], again.events[1])]
    assert np.corrcoef(close)[0, 1] > 0.8 > np.corrcoef(close)[0, 2]


def test_a_recording_does_not_depend_on_the_others(digits_test):
    """A subset in any order is the same subset of the whole."""
    images, _ = digits.load()
    indices = [1796, 1503, 1500, 1640]
    for index, events in zip(indices, digits.record(images, indices, seed=0), strict=True):
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
    late = [e[(e["t"] > 100_000) & (e["t"] < 200_000)] for e in digits.record(images, list(zeros), seed=0)]
    for events in late:
        on_x, off_x = events["x"][events["p"]].mean(), events["x"][~events["p"]].mean()
        assert on_x > off_x


def test_a_blank_image_gives_noise_alone():
    """Nothing to see: 0.2 events a pixel and second of both polarities, all over the sensor."""
    blank = np.zeros((20, 8, 8), dtype=np.float32)
    counts = np.array([len(e) for e in digits.record(blank, range(20), seed=0)])
    expected = 0.2 * 34 * 34 * 0.3
    assert abs(counts.mean() - expected) < 5 * np.sqrt(expected / 20)


def test_digits_can_be_learned():
    """A linear classifier of the events of each saccade, trained on half the data, is right beyond 85 %."""
    from sklearn.linear_model import LogisticRegression

    images, labels = digits.load()
    chosen = np.concatenate([np.arange(0, 1500, 3), np.arange(1500, 1797, 2)])
    x = np.stack([bin_events(e, (34, 34, 2), 3, 300_000) for e in digits.record(images, list(chosen), seed=0)])
    x, y = np.log1p(x.reshape(len(x), -1).astype(np.float32)), labels[chosen]
    train = chosen < 1500
    model = LogisticRegression(C=0.01, max_iter=40, tol=0.01).fit(x[train], y[train])
    assert model.score(x[~train], y[~train]) > 0.85


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
    for split in ("train", "test"):
        expected, _ = frames(open_dataset("nmnist", split=split, root=plain), 4)
        data = open_dataset("nmnist", split=split, root=packed)
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
        f"{root}/NMNIST/Test/<digit>/*.bin",
        f"{root}/NMNIST/test.zip",
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
