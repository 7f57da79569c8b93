"""Data of one's own by name: recordings in files, folders of them, descriptions in TOML, functions; and `mtt data`."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import sys
from pathlib import Path

import camera_formats
import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtt_lava.data import EVENT_DTYPE, DataError, Dataset, camera_files, open_dataset
from mtt_lava.data.files import READERS, read_file

DATA = Path(__file__).parents[1].parent / "shared" / "data"
SHARED = DATA / "nmnist_small"
SAMPLES = DATA / "tonic_test_samples"
TINY = 'name = "tiny"\ninput = [2, 4, 5]\n[[layers]]\ntype = "dense"\nfeatures = 2\n'


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTT_CACHE", str(tmp_path / "cache"))


def recorded(seed: int = 0, count: int = 30, last: int = 999) -> np.ndarray:
    """Return a recording on 5 x 4 pixels that fills sensor and time."""
    rng = np.random.default_rng(seed)
    events = np.zeros(count, EVENT_DTYPE)
    events["x"], events["y"] = rng.integers(5, size=count), rng.integers(4, size=count)
    events["t"], events["p"] = np.sort(rng.integers(last, size=count)), rng.integers(2, size=count)
    events[0], events[-1] = (0, 3, 0, 1), (4, 0, last, 0)
    return events


def write_npz(path: Path, events: np.ndarray) -> None:
    np.savez(path, **{name: events[name] for name in EVENT_DTYPE.names})


def write_csv(path: Path, events: np.ndarray) -> None:
    np.savetxt(path, np.array(events.tolist()), "%d", ",", header="x,y,t,on", comments="")


def write_h5(path: Path, events: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        for name in EVENT_DTYPE.names:
            file[f"dvs/{name}"] = events[name]
        file["dvs/duration"], file["labels"] = 7, np.arange(3)


def write_bin(path: Path, events: np.ndarray) -> None:
    x, y, t, p = (events[name].astype(int) for name in EVENT_DTYPE.names)
    last = p << 23 | t
    path.write_bytes(np.stack([x, y, last >> 16, last >> 8 & 255, last & 255], 1).astype(np.uint8).tobytes())


CAMERAS = {
    ".aedat4": camera_formats.aedat4,
    ".dat": camera_formats.dat,
    ".raw": camera_formats.evt3,
    ".es": camera_formats.es,
}

WRITERS = {
    ".npy": np.save,
    ".npz": write_npz,
    ".csv": write_csv,
    ".h5": write_h5,
    ".hdf5": write_h5,
    ".bin": write_bin,
    **{
        suffix: lambda path, events, write=write: path.write_bytes(write(events, (5, 4)))
        for suffix, write in CAMERAS.items()
    },
}


def folder(root: Path, suffix: str = ".npy", splits: tuple[str, ...] = ("train", "test")) -> Path:
    """Write three recordings of each of two classes for each split; the one with the longest is a training one."""
    seed = 0
    for split in splits:
        for label in ("10", "9"):
            for i in range(3):
                path = root / split / label / f"{i}{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                WRITERS[suffix](path, recorded(seed, last=1999 if seed == 0 else 999))
                seed += 1
    return root


# ---------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("suffix", READERS)
def test_every_kind_of_file_gives_the_same_events(tmp_path, suffix):
    """What is written in any format that is read comes back event for event, through a folder of it."""
    data = open_dataset(str(folder(tmp_path / "mine", suffix)), split="test")
    assert (data.name, data.split, data.classes, data.sensor_size) == ("mine", "test", ("9", "10"), (5, 4, 2))
    assert (data.duration, data.labels.tolist()) == (2000, [0, 0, 0, 1, 1, 1])
    for got, seed in zip(data.events, (9, 10, 11, 6, 7, 8), strict=True):
        np.testing.assert_array_equal(got, recorded(seed))


def test_all_readers_have_tests():
    """The table of formats is complete."""
    assert set(WRITERS) == set(READERS)


@pytest.mark.parametrize("header", ["x,y,t,p", "t;p;x;y", "Timestamp x y polarity", "n,x,y,t,p,what", None])
def test_text_files_are_read_with_and_without_names(tmp_path, header):
    """Separators, comments, more columns and fractions of a second are taken; without names, the order is asked for."""
    order = {"x,y,t,p": "xytp", "t;p;x;y": "tpxy", None: "txyp", "n,x,y,t,p,what": "nxytpw"}.get(header, "txyp")
    mark = "," if header is None else next((m for m in ",;" if m in header), " ")
    values = {"x": (1, 2), "y": (3, 0), "t": ("1700000000.000001", "1700000000.5"), "p": (0, 1), "n": (8, 9), "w": "ab"}
    rows = [mark.join(str(values[c][i]) for c in order) for i in range(2)]
    text = "\n".join(["# made by a camera", *([header] if header else []), *rows])
    (tmp_path / "d" / "a").mkdir(parents=True)
    (tmp_path / "d" / "a" / "r.csv").write_text(text)
    describe = 'duration = 1_000_000\nstart = "first-event"\nunit = "s"\nsensor_size = [5, 4, 2]\n'
    (tmp_path / "d" / "data.toml").write_text(describe + ('train = "."\ncolumns = "txyp"' if not header else ""))
    (tmp_path / "d" / "a" / "s.csv").write_text(text)
    data = open_dataset(str(tmp_path / "d"), split="train")
    assert data.events[0].tolist() == [(1, 3, 0, False), (2, 0, 499_999, True)]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 10**18), min_size=1, max_size=5))
def test_dates_in_nanoseconds_keep_every_digit_in_text(tmp_path, times):
    """Whole numbers in text are read as such."""
    path = tmp_path / "r.csv"
    path.write_text("t,x,y,p\n" + "\n".join(f"{t},1,2,0" for t in times))
    assert read_file(path)["t"].tolist() == times


def test_bin_files_are_read_as_tonic_does(tmp_path):
    """Counters that ran over among them."""
    from tonic.io import events_struct, read_mnist_file

    raw = np.random.default_rng(0).integers(0, 256, 500, dtype=np.uint8)
    raw[1::5] = np.where(np.arange(100) % 9, raw[1::5] % 34, 240)
    (tmp_path / "r.bin").write_bytes(raw.tobytes())
    ours, theirs = read_file(tmp_path / "r.bin"), read_mnist_file(str(tmp_path / "r.bin"), events_struct)
    for name in EVENT_DTYPE.names:
        np.testing.assert_array_equal(ours[name], theirs[name])


def huge(path: Path) -> None:
    np.lib.format.write_array_header_1_0(
        file := path.open("wb"), {"descr": "<i8", "fortran_order": False, "shape": (10**12, 4)}
    )
    file.close()


def two_tables(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["a"], file["b"] = recorded(), recorded()


def two_cameras(path: Path) -> None:
    path.write_bytes(camera_formats.aedat4(recorded(), (5, 4), cameras=2))


def elsewhere(path: Path) -> None:
    with h5py.File(path, "w") as file:
        for name in "xytp":
            file.create_dataset(name, (10,), "i8", external=[("/etc/passwd", 0, 80)])


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("r.mat", b"MATLAB", r"not a recording that can be read; there are \.npy, .*, \.h5, \.hdf5, \.aedat4, \.dat"),
        ("r.aedat", b"#!AER-DAT3.1\r\n", r"\.aedat is not read: .*; convert it to \.aedat4 or \.npy"),
        ("r.aedat4", b"#!AER-DAT4.0\r\n", r"damaged, or no \.aedat4 file of events"),
        ("r.aedat4", two_cameras, "holds events of 2 cameras; must be one"),
        ("r.dat", b"about", r"damaged, or no \.dat file of events"),
        ("r.dat", b"% Version 2\n\x0e\x08" + bytes(8), r"holds trigger events; must be"),
        ("r.raw", b"", r"damaged, or no \.raw file of events .*no version"),
        (
            "r.raw",
            b"% evt 2.1\n% geometry 5x4\n% end\n" + bytes(8),
            r"version evt2\.1; must be EVT 2 or EVT 3: convert",
        ),
        ("r.raw", b"% evt 3.0\n% geometry 5x4\n% end\n", "no events"),
        ("r.es", b"Event Stream\x02\0\0\x04\x05\0\x04\0", "holds color events; must be those of a DVS or ATIS"),
        ("r.es", b"Event Stream\x02\0\0\x01\x05\0\x04\0\x02\x09\0\0\0", r"damaged, or no \.es .*x=9"),
        ("README.md", b"about", "not a recording that can be read"),
        ("r.npy", b"", r"is not a whole \.npy file"),
        ("r.npy", b"\x93NUMPY\x01\x00v\x00{'descr", "is not a whole .npy file"),
        ("r.npy", lambda p: np.save(p, np.array([{}], object)), "is not a whole .npy file .*objects"),
        ("r.npy", huge, "is not a whole .npy file .*declares"),
        ("r.npy", lambda p: np.save(p, np.zeros((5, 3))), r"shape \(5, 3\): no field"),
        ("r.npy", lambda p: np.save(p, np.ones((5, 4))), 'pass columns="xytp"'),
        ("r.npz", b"PK", "is not a whole .npz"),
        ("r.npz", lambda p: np.savez(p, a=1, b=2), "holds no array x, y, t or p; must be x, y, t, p of one length"),
        ("r.npz", lambda p: np.savez(p, x=[1], y=[1, 2], t=[1], p=[1]), r"holds x \(1,\), y \(2,\)"),
        ("r.npz", lambda p: np.savez(p, x=np.array([{}], object), y=[1], t=[1], p=[1]), "is not a whole .npz"),
        ("r.bin", b"1234567", "7 bytes; must be a whole number of 5-byte events"),
        ("r.bin", bytes([0, 240, 0, 0, 1]), "no events"),
        ("r.csv", b"", "no field|damaged|columns"),
        ("r.csv", b"x,y,t,p\n1,2,three,0", "damaged, or no .csv"),
        ("r.csv", b"x,y,t,p\n1,2,3", "damaged, or no .csv"),
        ("r.csv", b"a,b\n1,2", "its columns are a, b; must be x, y, t, p"),
        ("r.csv", b"\xff\xfe\x00\x01", "damaged, or no .csv"),
        ("r.h5", b"\x89HDF\r\n", "r.h5: cannot be read"),
        ("r.h5", two_tables, "holds 2 tables of events; must hold one"),
        ("r.h5", elsewhere, "its events are in other files"),
    ],
)
def test_files_that_are_no_recordings_are_named(tmp_path, name, write, message):
    """The message names the file and what is wrong, in one line of at most 300 characters beside the path."""
    path = folder(tmp_path / "mine") / "train" / "9" / name
    write(path) if callable(write) else path.write_bytes(write)
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(str(tmp_path / "mine"), split="train")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value).replace(str(tmp_path), "")) < 300


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([".npy", ".npz", ".bin", ".csv", ".dat", ".raw", ".es"]), st.data())
def test_damaged_files_are_read_or_named(tmp_path, suffix, data):
    """A file with bytes changed, cut off or added gives events or a DataError, whatever the bytes."""
    path = tmp_path / f"r{suffix}"
    WRITERS[suffix](path, recorded(count=8))
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, max(len(raw) - 1, 0)))
        raw[place : place + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    path.write_bytes(raw)
    with contextlib.suppress(DataError):
        read_file(path)


# ---------------------------------------------------------------------------------------------- files of cameras

needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="shared/data/tonic_test_samples is not here")
FORMATS = {
    "aedat4": (".aedat4", camera_formats.aedat4, (1 << 50) - 1),
    "dat": (".dat", camera_formats.dat, (1 << 32) - 1),
    "dat as N-CARS": (".dat", lambda events, size: camera_formats.dat(events, size, stated=False), (1 << 32) - 1),
    "evt2": (".raw", camera_formats.evt2, (1 << 34) - 1),
    "evt3": (".raw", camera_formats.evt3, 1 << 26),  # over its counter of 24 bits, three times
    "es": (".es", camera_formats.es, 1 << 20),
    "es of an ATIS": (".es", lambda events, size: camera_formats.es(events, size, kind=2), 1 << 20),
}


@pytest.mark.parametrize("form", FORMATS)
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_files_of_cameras_are_read_event_for_event(tmp_path, form, data):
    """Any events, on any sensor, written as the format's specification has it, come back as they were."""
    suffix, write, latest = FORMATS[form]
    width, height = data.draw(st.tuples(st.integers(1, 1280), st.integers(1, 720)))
    one = st.tuples(st.integers(0, width - 1), st.integers(0, height - 1), st.integers(0, latest), st.booleans())
    events = np.array(data.draw(st.lists(one, min_size=1, max_size=40)), EVENT_DTYPE)
    events = events[np.argsort(events["t"], kind="stable")]
    path = tmp_path / f"r{suffix}"
    path.write_bytes(write(events, (width, height)))
    read = read_file(path)
    for name in EVENT_DTYPE.names:
        np.testing.assert_array_equal(read[name], events[name])


@needs_samples
def test_a_recording_of_a_dvxplorer_is_read_as_tonic_does(tmp_path):
    """AEDAT 4 with compression: every event, and UNIX stamps count from the first event where that is said."""
    from tonic.io import read_aedat4

    read, theirs = read_file(SAMPLES / "sample.aedat4"), read_aedat4(str(SAMPLES / "sample.aedat4"))
    assert len(read) == 111_954
    for ours, other in zip("xytp", ("x", "y", "t", "on"), strict=True):
        np.testing.assert_array_equal(read[ours], theirs[other])
    (tmp_path / "d" / "train" / "hand").mkdir(parents=True)
    (tmp_path / "d" / "train" / "hand" / "r.aedat4").symlink_to(SAMPLES / "sample.aedat4")
    (tmp_path / "d" / "data.toml").write_text('train = "train"\ntest = "train"')
    with pytest.raises(
        DataError,
        match=r'r\.aedat4: its events run from 1605537493718345 to 1605537494308262 us, long .*start="first-event"',
    ):
        open_dataset(str(tmp_path / "d"), split="train")
    (tmp_path / "d" / "data.toml").write_text('train = "train"\ntest = "train"\nstart = "first-event"')
    data = open_dataset(str(tmp_path / "d"), split="train")
    assert (data.sensor_size, data.duration) == ((320, 240, 2), 589_918)
    np.testing.assert_array_equal(data.events[0]["t"], np.sort(theirs["t"] - theirs["t"].min()))


@needs_samples
def test_a_recording_of_n_cars_is_read_as_tonic_does():
    """DAT without a version or a size in it: every event."""
    import expelliarmus

    wizard = expelliarmus.Wizard(encoding="dat")
    wizard.set_file(SAMPLES / "sample_ncars.dat")
    theirs, read = wizard.read(), read_file(SAMPLES / "sample_ncars.dat")
    assert len(read) == 2009
    for name in "xytp":
        np.testing.assert_array_equal(read[name], theirs[name])


@needs_samples
def test_aedat_is_refused_by_name(tmp_path, capsys):
    """AEDAT 2 says what to convert it to."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "r.aedat").write_bytes((SAMPLES / "sample_aedat_header.aedat").read_bytes())
    assert mtt("data", tmp_path) == 2
    assert "r.aedat: .aedat is not read: " in capsys.readouterr().err


@pytest.mark.parametrize("suffix", CAMERAS)
def test_without_the_extra_its_name_is_said(tmp_path, monkeypatch, suffix):
    """Where faery is not installed, a line says how to install it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    WRITERS[suffix](tmp_path / f"r{suffix}", recorded())
    with pytest.raises(DataError, match=rf"r{suffix}: {suffix} files .* not installed: uv sync --extra recordings, or"):
        read_file(tmp_path / f"r{suffix}")


def test_a_file_that_ends_its_reader_is_named_and_the_next_is_read(tmp_path):
    """A file that declares 2 ** 31 events, and a reader killed, cost one line."""
    good, bad = tmp_path / "good.dat", tmp_path / "bad.aedat4"
    WRITERS[".dat"](good, recorded())
    raw = bytearray(camera_formats.aedat4(recorded(), (5, 4)))
    place = raw.index(b"EVTS", raw.index(b"</dv>"))
    raw[place + 28 : place + 32] = b"\xff\xff\xff\x7f"  # the number of events
    bad.write_bytes(raw)
    for _ in range(2):
        with pytest.raises(DataError, match=r"bad\.aedat4: damaged, or no \.aedat4 file of events"):
            read_file(bad)
        assert len(read_file(good)) == 30
    os.kill(camera_files._started().pid, signal.SIGKILL)
    with contextlib.suppress(DataError):
        read_file(good)
    ended = camera_files._started()
    ended.kill()
    ended.wait()
    assert len(read_file(good)) == 30
    assert ended.stdin.closed
    assert ended.stdout.closed


def test_a_reader_that_hangs_is_stopped(tmp_path, monkeypatch):
    """What takes longer than its limit is ended, and named."""
    os.mkfifo(tmp_path / "r.dat")  # to open it takes until somebody writes; read_file refuses it
    monkeypatch.setattr(camera_files, "_SECONDS", 1)
    with pytest.raises(DataError, match="damaged: reading it took longer than 1 s"):
        camera_files.read_camera_file(tmp_path / "r.dat")
    with pytest.raises(DataError, match="is not a regular file"):
        read_file(tmp_path / "r.dat")


# ---------------------------------------------------------------------------------------------- folders


def test_folders_of_classes_alone_are_split(tmp_path):
    """Where there are no folders train and test, a fifth of each class is for testing, always the same."""
    root = tmp_path / "mine"
    for label in ("cat", "dog"):
        (root / label).mkdir(parents=True)
        for i in range(10):
            np.save(root / label / f"{i}.npy", recorded(i))
    train, test = (open_dataset(str(root), split=split) for split in ("train", "test"))
    assert (len(train), len(test), test.labels.tolist()) == (16, 4, [0, 0, 1, 1])
    assert (test.classes, test.duration, test.sensor_size) == (("cat", "dog"), 1000, (5, 4, 2))
    (root / "data.toml").write_text("test_share = 0.5\nseed = 1")
    train, test = (open_dataset(str(root), split=split) for split in ("train", "test"))
    assert (len(train), len(test)) == (10, 10)
    contents = [events.tobytes() for part in (train, test) for events in part.events]
    assert sorted(contents) == sorted(recorded(i).tobytes() for i in range(10) for _ in "ab")


def test_both_splits_have_the_same_sensor_and_clock(tmp_path):
    """What the recordings of either split need is what both get."""
    root = folder(tmp_path / "mine")
    one = recorded()
    one["x"][3] = 7
    np.save(root / "test" / "9" / "0.npy", one)
    train, test = (open_dataset(str(root), split=split) for split in ("train", "test"))
    assert train.sensor_size == test.sensor_size == (8, 4, 2)
    assert train.duration == test.duration == 2000


def test_a_folder_whose_time_does_not_start_at_nought_asks_for_the_origin(tmp_path):
    """Slices of a long recording are not taken for late events; once it is said, they are read."""
    root = folder(tmp_path / "mine")
    late = recorded()
    late["t"] += 10_000
    np.save(root / "train" / "9" / "0.npy", late)
    with pytest.raises(
        DataError, match=r'0\.npy: its events run from 10000 to 10999 us, long .*start="first-event".* \(in .*toml'
    ):
        open_dataset(str(root), split="test")
    (root / "data.toml").write_text('start = "first-event"')
    assert open_dataset(str(root), split="train").events[0]["t"][-1] == 999


@pytest.mark.skipif(not SHARED.is_dir(), reason="shared/data/nmnist_small is not here")
def test_a_folder_of_real_recordings_is_the_data_set(tmp_path):
    """N-MNIST's own folders, given as a folder, are nmnist event for event."""
    import zipfile

    with zipfile.ZipFile(SHARED / "NMNIST" / "test.zip") as archive:
        archive.extractall(tmp_path / "NMNIST")
    (tmp_path / "NMNIST" / "data.toml").write_text('test = "Test"\nsensor_size = [34, 34, 2]\nduration = 340_000')
    ours = open_dataset(str(tmp_path / "NMNIST"), split="test")
    real = open_dataset("nmnist", split="test", root=tmp_path)
    assert ours.labels.tolist() == real.labels.tolist()
    for one, other in zip(ours.events, real.events, strict=True):
        np.testing.assert_array_equal(one, other)


# ---------------------------------------------------------------------------------------------- descriptions


def test_a_description_says_where_and_how(tmp_path):
    """Paths from the file's folder or from root, files and patterns, classes in order, name, window and sensor."""
    folder(tmp_path / "far" / "recordings")
    text = """
name = "gestures"
path = "recordings"
classes = ["left", "right", "none"]
sensor_size = [6, 4, 2]
duration = 4000
[train]
right = ["train/9/*.npy", "test/9/1.npy"]
left = ["train/10/0.npy"]
[test]
right = ["test/10/*.npy"]
"""
    (tmp_path / "far" / "mine.toml").write_text(text)
    (tmp_path / "near.toml").write_text(text)
    for name, root in ((tmp_path / "far" / "mine.toml", None), (tmp_path / "near.toml", tmp_path / "far")):
        train, test = (open_dataset(str(name), split=split, root=root) for split in ("train", "test"))
        assert (train.name, train.sensor_size, train.duration) == ("gestures", (6, 4, 2), 4000)
        assert (train.classes, train.labels.tolist()) == (("left", "right", "none"), [0, 1, 1, 1, 1])
        assert test.labels.tolist() == [1, 1, 1]
        np.testing.assert_array_equal(train.events[0], recorded(0, last=1999))
        np.testing.assert_array_equal(train.events[1], recorded(10))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "not valid TOML"),
        ("frames = 5", "frames: .*; there are name, path, train, test, classes, sensor_size"),
        ('duration = "long"', "duration is 'long'; must be a whole number"),
        ("duration = 0", "duration is 0; must be a whole number of microseconds"),
        ("duration = nan", "duration is nan"),
        ("sensor_size = [5, 4]", r"sensor_size is \(5, 4\); must be"),
        ("sensor_size = [3, 4, 2]", r"x is 4; must be 0\.\.2"),
        ('start = "begin"', "start is 'begin'; must be"),
        ("start = [0]", r"start is \[0\]"),
        ("unit = [1]", r"unit is \[1\]"),
        ("unwrap = []", r"unwrap is \[\]"),
        ('columns = "xy"', "columns is 'xy'"),
        ("duration = 2_000_000", r'under 5 % of .*: pass unit="ms".* \(in .*mine\.toml\)'),
        ('classes = ["9"]', "its class is none of classes: 9"),
        ('classes = ["9", "9", "10"]', "a name comes twice"),
        ('train = "nowhere"', "nowhere: no such folder"),
        ('train = "test/9"', r"test/9/.\.npy: must be in a folder named for its class"),
        ('path = "train/9/.."\ntest = "empty"', "empty: no recordings; must hold a folder a class"),
        ('test = "test"', "says of no train recordings: give train = a folder"),
        ('train = {a = ["no/*.npy"]}', r"no/\*\.npy: no such files"),
        ('train = {a = ["no.npy"]}', r"no\.npy: cannot be read: No such file"),
        ("test_share = 2", "test_share: "),
    ],
)
def test_descriptions_that_cannot_be_are_named(tmp_path, text, message):
    """One line with the file, the field, the value and what is allowed."""
    folder(tmp_path)
    (tmp_path / "train" / "empty").mkdir()
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(str(tmp_path / "mine.toml"), split="train")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "nowhere/at/all",
            "nowhere/at/all: no such folder; give a folder of recordings, a .toml file or module:function",
        ),
        ("nowhere.toml", "nowhere.toml: cannot be read"),
        ("digits_dvs", r"no data set 'digits_dvs'; .* \(did you mean digits-dvs\?\), or give a folder of recordings"),
        ("no_module_of_ours:f", "No module named 'no_module_of_ours'; must be module:function"),
        ("json:no_function", "module json has no function no_function"),
        ("json:__name__", "module json has no function __name__"),
        ("json:dumps", r"json:dumps: cannot be called with split \(missing a required argument: 'obj'\)"),
        ("os:abort", r"os:abort: cannot be called with split \("),
        ("~nobody-we-know/data", "no such folder"),
    ],
)
def test_names_of_nothing_are_named(name, message):
    """A name that is neither a data set nor data says what names can be."""
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(name, split="train")
    assert "\n" not in str(caught.value)


def test_binary_files_are_no_descriptions(tmp_path):
    """Bytes that are no text are no TOML."""
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="is not UTF-8 text"):
        open_dataset(str(tmp_path / "mine.toml"), split="train")


def test_a_function_of_ones_own_is_called_with_the_split(tmp_path, monkeypatch):
    """module:function, from the folder one is in, gives the data set; root is passed on where given."""
    (tmp_path / "my_recordings.py").write_text(
        "from mtt_lava.data import open_dataset\n"
        "def plain(split):\n    return open_dataset('mine', split=split)\n"
        "def rooted(split, root):\n    return open_dataset(root, split=split)\n"
        "def wrong(split):\n    return [split]\n"
    )
    folder(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    for name, root in (("my_recordings:plain", None), ("my_recordings:rooted", "mine")):
        data = open_dataset(name, split="test", root=root)
        assert isinstance(data, Dataset)
        assert (data.split, len(data)) == ("test", 6)
    with pytest.raises(DataError, match="my_recordings:wrong: returned a list; must return a mtt_lava"):
        open_dataset("my_recordings:wrong", split="test")
    assert sys.path == before
    with pytest.raises(DataError, match="mine: a folder takes no root"):
        open_dataset("mine", split="test", root="x")


# ---------------------------------------------------------------------------------------------- mtt data


def mtt(*arguments: object) -> int:
    from mtt_lava.cli import main

    return main([str(argument) for argument in arguments])


def test_mtt_data_has_help_with_an_example(capsys):
    """--help says what can be named."""
    with pytest.raises(SystemExit) as stop:
        mtt("data", "--help")
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert all(words in text for words in ("Example: mtt data digits-dvs", "module:function", "sensor_size", ".h5"))


def test_mtt_data_shows_what_is_in_a_data_set(tmp_path, capsys):
    """Recordings, events and lengths of each split, and of each class, in words and as JSON."""
    root = folder(tmp_path / "mine")
    assert mtt("data", root) == 0
    text = capsys.readouterr().out
    for words in (
        "mine train: 6 recordings of 5 x 4 pixels, 2 polarities; window 2,000 us",
        "mine test: 6 recordings",
        "events a recording: 30, from 30 to 30;",
        "first to last event: 1,166 us, from 999 to 1,999",
        "class  recordings  events a recording",
    ):
        assert words in text
    assert mtt("data", root, "--json", "--split", "train") == 0
    shown = json.loads(capsys.readouterr().out)
    assert list(shown["splits"]) == ["train"]
    one = shown["splits"]["train"]
    assert (one["recordings"], one["events"], one["sensor_size"]) == ({"9": 3, "10": 3}, {"9": 30, "10": 30}, [5, 4, 2])
    share = np.mean([event for seed in range(6) for event in recorded(seed)["p"]])
    assert one["on"] == pytest.approx(share)
    assert one["late"] == 0


def test_mtt_data_draws_and_writes(tmp_path, capsys):
    """The picture is one; the frames and events are those of the test recordings, cut where asked."""
    from mtt_lava.data import frames, subset
    from netx_export.event.backend import load_events
    from netx_export.simulation import load_inputs

    root = folder(tmp_path / "mine")
    paths = {name: tmp_path / "out" / name for name in ("p.png", "input.npy", "events.npz")}
    options = ["--picture", paths["p.png"], "--write-input", paths["input.npy"], "--write-events", paths["events.npz"]]
    assert mtt("data", root, *options, "--time-steps", 3, "--samples", 4) == 0
    out = capsys.readouterr().out
    assert f"{paths['input.npy']}: test frames, (N, C, H, W, T) = (4, 2, 4, 5, 3)" in out
    assert f"{paths['events.npz']}: 120 events of 4 test recordings" in out
    assert paths["p.png"].read_bytes().startswith(b"\x89PNG")
    data = subset(open_dataset(str(root), split="test"), range(4))
    counts, _ = frames(data, 3)
    np.testing.assert_array_equal(load_inputs(paths["input.npy"]), counts)
    events = load_events(paths["events.npz"])
    assert events.n == 4
    again = np.zeros((4, 2, 4, 5, 3), int)
    np.add.at(again, (events.sample, events.c, events.y, events.x, events.t * 3 // 2000), 1)
    np.testing.assert_array_equal(again, counts)
    assert mtt("data", root, "--write-input", paths["input.npy"], "--time-steps", 1, "--input-max", 1) == 0
    whole, _ = frames(open_dataset(str(root), split="test"), 1)
    assert whole.max() > 1
    np.testing.assert_array_equal(load_inputs(paths["input.npy"]), np.minimum(whole, 1))


@pytest.mark.parametrize("suffix", CAMERAS)
def test_mtt_data_takes_files_of_cameras(tmp_path, capsys, suffix):
    """A folder of any camera's files is shown, drawn and written as the same events in NumPy's files are."""
    found = {}
    for kind in (suffix, ".npy"):
        out = tmp_path / kind
        options = ["--picture", out / "p.png", "--write-input", out / "i.npy", "--write-events", out / "e.npz"]
        assert mtt("data", folder(out / "mine", kind), *options, "--json") == 0
        shown = json.loads(capsys.readouterr().out)["splits"]
        with np.load(out / "e.npz") as events:
            written = {name: events[name].tolist() for name in events.files}
        found[kind] = shown, written, np.load(out / "i.npy").tolist(), (out / "p.png").read_bytes()
    assert found[suffix] == found[".npy"]


def test_what_mtt_data_writes_runs_in_the_simulators(tmp_path, capsys):
    """Frames run on the fast simulator and events on the event-driven one, in a network of that input."""
    from netx_export.network import Dense, Flatten, Network, Neuron
    from netx_export.netx import write

    root = folder(tmp_path / "mine")
    net, out = tmp_path / "a.net", tmp_path / "out.npz"
    weight = 2 * np.random.default_rng(0).integers(-8, 9, (3, 40))
    flatten = Flatten(in_shape=(2, 4, 5), shape=(40,), name="flat")
    write(Network((flatten, Dense(in_shape=(40,), shape=(3,), name="fc", weight=weight, neuron=Neuron(8)))), net)
    options = ["--write-input", tmp_path / "input.npy", "--write-events", tmp_path / "events.npz"]
    assert mtt("data", root, *options, "--time-steps", 5) == 0
    assert mtt("simulate", net, tmp_path / "input.npy", "--backend", "fast", "--output", out) == 0
    assert np.load(out)["spikes"].shape == (6, 3, 5)
    assert mtt("simulate", net, tmp_path / "events.npz", "--backend", "event", "--output", out) == 0
    assert np.load(out)["counts"].shape == (6, 3)


def test_still_images_are_shown_too(tmp_path, monkeypatch, capsys):
    """Images have no events: they are counted and drawn, and frames are written, but no events."""
    (tmp_path / "my_images.py").write_text(
        "import numpy as np\nfrom mtt_lava.data import from_images\n"
        "def images(split):\n"
        "    return from_images(np.ones((4, 1, 3, 5), int), [0, 1, 1, 1], classes=['$a', 'b$'], split=split)\n"
    )
    monkeypatch.chdir(tmp_path)
    assert mtt("data", "my_images:images", "--picture", "p.png", "--write-input", "i.npy", "--time-steps", 2) == 0
    assert "images train: 4 images of 5 x 3 pixels, 1 channels" in capsys.readouterr().out
    assert np.load("i.npy").shape == (4, 1, 3, 5, 2)
    assert mtt("data", "my_images:images", "--write-events", "e.npz") == 2
    assert "still images have no events" in capsys.readouterr().err
    assert not Path("e.npz").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere/at/all"], "no such folder"),
        (["digits"], "did you mean digits-dvs?"),
        (["digits-dvs", "--write-input", "x.npz"], "x.npz: must end in .npy"),
        (["digits-dvs", "--write-events", "x.npy"], "x.npy: must end in .npz"),
        (["digits-dvs", "--root", "x"], "takes no root"),
    ],
)
def test_mtt_data_says_what_is_wrong(arguments, message, capsys):
    """One line, exit code 2."""
    assert mtt("data", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_own_data_trains_and_is_evaluated_by_name(tmp_path, capsys, monkeypatch):
    """A folder is data of mtt train; the run knows it; another folder may be named for evaluation."""
    root = folder(tmp_path / "mine")
    (tmp_path / "tiny.toml").write_text(TINY, encoding="utf-8")
    run = tmp_path / "run"
    options = ["--epochs", 2, "--time-steps", 2, "--silent-epochs", 0, "--no-augment", "--method", "sdt"]
    assert mtt("train", tmp_path / "tiny.toml", "--data", root, *options, "--out", run) == 0
    capsys.readouterr()
    assert mtt("evaluate", run) == 0
    own = capsys.readouterr().out
    other = folder(tmp_path / "other")
    assert mtt("evaluate", run, "--data", other) == 0
    assert capsys.readouterr().out == own
    assert mtt("evaluate", run, "--data", "nowhere/else") == 2


def test_a_run_folder_does_not_start_code(tmp_path, capsys, monkeypatch):
    """A run trained on module:function imports nothing by itself, wherever it is read; where it is named, it counts."""
    from mtt_lava import evaluate, load_run, prove, sweep
    from mtt_lava.run import RunError

    folder(tmp_path / "mine")
    (tmp_path / "our_functions.py").write_text(
        "from pathlib import Path\nfrom mtt_lava.data import open_dataset\n"
        "Path('imported').touch()\n"
        "def recordings(split):\n    return open_dataset('./mine', split=split)\n"
    )
    (tmp_path / "tiny.toml").write_text(TINY, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    options = ["--epochs", 2, "--time-steps", 2, "--silent-epochs", 0, "--no-augment", "--method", "sdt"]
    assert mtt("train", "tiny.toml", "--data", "our_functions:recordings", *options, "--out", "run") == 0
    (tmp_path / "imported").unlink()
    del sys.modules["our_functions"]
    run = load_run("run")
    for command in (["evaluate", "run"], ["evaluate", "run", "--backend", "fast"], ["sweep", "run", "--out", "s"]):
        capsys.readouterr()
        assert mtt(*command, "--time-steps", 2) == 2
        error = capsys.readouterr().err
        assert "trained on 'our_functions:recordings', which is code, " in error
        assert len(error.splitlines()) == 1
        assert len(error) < 300
    for measure in (evaluate, prove, sweep):
        with pytest.raises(RunError, match="name the data yourself, with --data module:function or as dataset"):
            measure(run, [2])
    assert not (tmp_path / "imported").exists()
    assert mtt("evaluate", "run", "--data", "our_functions:recordings") == 0
    named = capsys.readouterr().out
    assert (tmp_path / "imported").exists()
    assert mtt("evaluate", "run", "--data", "./mine") == 0
    assert capsys.readouterr().out == named
    assert len(evaluate(run, [2], open_dataset("mine", split="test"), progress=False)) == 1
