"""Published data sets by name, on files in their true formats that are written here: layouts, splits, laziness,
what is damaged or absent. Where tonic reads the same files, both must agree."""

from __future__ import annotations

import gzip
import importlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import dataset_files as files
import h5py
import numpy as np
import pytest
from dataset_files import FEW, IMAGES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtt_lava.cli import main
from mtt_lava.data import (
    DATASETS,
    EVENT_DTYPE,
    DataError,
    Dataset,
    cifar10_dvs,
    dvs_gesture,
    frames,
    heidelberg,
    images,
    ncaltech101,
    open_dataset,
)
from mtt_lava.data.show import summary

SHARED = Path(__file__).parents[1].parent / "shared" / "data"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTT_CACHE", str(tmp_path / "cache"))


RECORDED = {
    "cifar10-dvs": files.cifar10_dvs,
    "dvs-gesture": files.dvs_gesture,
    "n-caltech101": files.n_caltech101,
    "shd": files.heidelberg,
    "ssc": files.ssc,
}
STILL = {"mnist": files.mnist, "cifar10": files.cifar10, "cifar100": files.cifar100}
ORIGINAL = {"cifar10-dvs": files.cifar10_dvs_original, "dvs-gesture": files.dvs_gesture_original}
LAYOUTS = [*RECORDED.items(), *STILL.items(), *ORIGINAL.items()]
NAMES = [*RECORDED, *STILL]


def module(name: str):
    return importlib.import_module(DATASETS[name].partition(":")[0])


def events_of(data: Dataset) -> list[list[tuple]]:
    return [data.events[i].tolist() for i in range(len(data))]


def refusal(name: str, root: Path | None, split: str = "train") -> str:
    """The one line that says why a data set cannot be opened or read."""
    with pytest.raises(DataError) as caught:
        frames(open_dataset(name, split=split, root=root), 2, cache=False)
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 300
    return said


def one(root: Path, pattern: str) -> Path:
    return sorted(root.rglob(pattern))[0]


# ------------------------------------------------------------------------------------------------ all of them


@pytest.mark.parametrize(("name", "make"), LAYOUTS)
def test_both_splits_open_from_their_published_layout(name: str, make: Callable, tmp_path: Path):
    """Sensor, classes, labels and events are as a data set has to have them, and frames count all of them."""
    root = make(tmp_path)
    train, test = (open_dataset(name, split=split, root=root) for split in ("train", "test"))
    assert (train.split, test.split, train.name) == ("train", "test", name)
    assert (train.classes, train.sensor_size, train.duration) == (test.classes, test.sensor_size, test.duration)
    for data in (train, test):
        counts, labels = frames(data, 4)
        width, height, channels = data.sensor_size
        assert counts.shape == (len(data), channels, height, width, 4)
        assert labels.dtype == np.int64
        assert labels.max() < len(data.classes)
        if not data.static:
            assert all(data.events[i].dtype == EVENT_DTYPE for i in range(len(data)))
            assert counts.sum() == sum(len(data.events[i]) for i in range(len(data)))
            assert summary(data).late == 0


@pytest.mark.parametrize(("name", "make"), [*RECORDED.items(), *ORIGINAL.items()])
def test_opening_reads_no_recording(name: str, make: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A recording is read when it is asked for, alone, each time; none is held."""
    root = make(tmp_path)
    read, reader = [], module(name)._read
    monkeypatch.setattr(module(name), "_read", lambda *place: read.append(place) or reader(*place))
    data = open_dataset(name, split="train", root=root)
    assert (len(data), read) == (2, [])
    assert data.fingerprint
    frames(data, 2)
    assert len(read) == len(set(read)) == 2
    frames(data, 3)
    assert read[:2] == read[2:]
    frames(data, 3)
    assert len(read) == 4
    assert len(data.events[0:2]) == 2
    assert data.events[-1].tolist() == data.events[1].tolist()
    with pytest.raises(IndexError):
        data.events[2]


@pytest.mark.parametrize(("name", "make"), [*RECORDED.items(), *ORIGINAL.items()])
def test_changed_files_have_frames_of_their_own(name: str, make: Callable, tmp_path: Path):
    """The fingerprint follows the files, without reading them."""
    root = make(tmp_path)
    before = open_dataset(name, split="train", root=root).fingerprint
    assert open_dataset(name, split="train", root=root).fingerprint == before
    for path in [each for each in root.rglob("*") if each.suffix in (".aedat4", ".aedat", ".npy", ".bin", ".h5")]:
        path.touch()
    assert open_dataset(name, split="train", root=root).fingerprint != before


@pytest.mark.parametrize("name", NAMES)
def test_absent_files_are_explained(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """One line says what was expected, and where to get it; so it does at the command line, which ends with 2."""
    said = refusal(name, tmp_path)
    assert said.startswith(f"{name}: {tmp_path} must hold ")
    assert "http" in said or "torchvision" in said
    assert "…" not in said
    assert refusal(name, None).startswith(f"{name}: no root; pass as root the folder that holds ")
    assert refusal(name, tmp_path / "none")
    assert main(["data", name, "--root", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def used(root: Path) -> list[Path]:
    """Files of the train split, and of those without a split, that are no list of names or classes."""
    others = ("Test", "_test", "t10k", "user24", "test.", "fine_label_names")
    return [
        path
        for path in sorted(root.rglob("*"))
        if path.is_file() and not any(each in str(path.relative_to(root)) for each in others)
    ]


def problems(name: str, root: Path) -> list[str]:
    """What is wrong with a data set; which split a recording is in may be up to the seed."""
    said = []
    for split in ("train", "test"):
        try:
            frames(open_dataset(name, split=split, root=root), 2, cache=False)
        except DataError as error:
            said.append(str(error))
    return said


@pytest.mark.parametrize(("name", "make"), LAYOUTS)
def test_whatever_happens_to_a_file_is_one_line(name: str, make: Callable, tmp_path: Path):
    """Files that are empty, cut, of something else or gone never end in a traceback, and are named."""
    root = make(tmp_path)
    paths = used(root)
    for path in (paths[0], paths[-1]):
        good = path.read_bytes()
        contents = [b"", good[:-1]]
        if path.suffix == ".bin":  # has nothing but its size to be known by
            contents += [good + b"x"]
        elif path.suffix in (".csv", ".txt"):
            contents = [b"", good[: len(good) // 2], b"\xff\xfe" + good, good + good]
        else:
            contents += [good[: len(good) // 2], b"\x89PNG\r\n\x1a\n" * 40, good[:40] * 99]
        for content in contents:
            path.write_bytes(content)
            said = problems(name, root)
            assert said, (path, content[:20])
            assert all("\n" not in each for each in said)
            assert any(path.name.partition(".")[0] in each for each in said), said
        path.write_bytes(good)
    assert not problems(name, root)


@pytest.mark.parametrize(("name", "make"), [*RECORDED.items(), *ORIGINAL.items()])
def test_files_that_have_gone_are_named(name: str, make: Callable, tmp_path: Path):
    """A recording removed after opening is named when it is read."""
    data = open_dataset(name, split="train", root=make(tmp_path))
    for path in used(tmp_path):
        path.unlink()
    with pytest.raises(DataError, match=r"cannot be read") as caught:
        data.events[0]
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "make"),
    [each for each in LAYOUTS if each[0] not in ("shd", "ssc") and each[1] is not files.cifar10_dvs],
)
def test_one_wrong_byte_is_no_traceback(name: str, make: Callable, tmp_path: Path):
    """Whatever a byte says, a file is read, or refused in one line. (HDF5 and AEDAT 4 have tests of their own.)"""
    root = make(tmp_path)
    rng = np.random.default_rng(0)
    paths = used(root)
    for path in (paths[0], paths[-1]):
        good = path.read_bytes()
        for _ in range(25):
            bad = bytearray(good)
            bad[rng.integers(min(len(good), 400))] = rng.integers(256)
            path.write_bytes(bad)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert all("\n" not in each for each in problems(name, root))
        path.write_bytes(good)


# ------------------------------------------------------------------------------------------------ CIFAR10-DVS

on_128 = st.lists(
    st.tuples(st.integers(0, 127), st.integers(0, 127), st.integers(0, 2_000_000), st.integers(0, 1)),
    min_size=1,
    max_size=30,
).map(lambda events: sorted(events, key=lambda event: event[2]))
few_examples = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def within(events: list[tuple[int, int, int, int]], duration: int) -> list[tuple]:
    """Events from the first on, and before the end of the window."""
    first = events[0][2]
    return [(x, y, t - first, bool(p)) for x, y, t, p in events if t - first < duration]


@few_examples
@given(on_128, st.sampled_from([".aedat4", ".aedat"]), st.sampled_from([0, 1_431_000_000]))
def test_cifar10_dvs_has_the_events_of_its_files(tmp_path: Path, events: list, ending: str, start: int):
    """Both formats, wherever their time starts: the first event is at 0; what comes after the window is left out."""
    later = [(x, y, t + start, p) for x, y, t, p in events]
    path = tmp_path / f"one{ending}"
    (files.write_aedat4 if ending == ".aedat4" else files.write_aedat2)(path, later)
    assert cifar10_dvs._read(path).tolist() == within(later, cifar10_dvs.DURATION)


def test_cifar10_dvs_is_what_tonic_reads(tmp_path: Path):
    """The reader that tonic calls and ours give the same events of the same file."""
    from tonic.io import read_aedat4

    path = files.write_aedat4(tmp_path / "one.aedat4", FEW)
    theirs = read_aedat4(str(path))
    theirs.dtype.names = ["t", "x", "y", "p"]  # as tonic.datasets.CIFAR10DVS does
    ours = cifar10_dvs._read(path)
    for field in "xyp":
        np.testing.assert_array_equal(ours[field], theirs[field])
    np.testing.assert_array_equal(ours["t"], theirs["t"] - theirs["t"][0])


def test_marks_of_the_camera_are_no_events(tmp_path: Path):
    """Addresses of no pixel are passed over where they are few, and refused where the file is another camera's."""
    path = files.write_aedat2(tmp_path / "one.aedat", FEW * 40, marks=1)
    assert len(cifar10_dvs._read(path)) == 120
    files.write_aedat2(path, FEW, marks=1)
    with pytest.raises(DataError, match=r"one\.aedat: an address is 32768; must be below 32768, those of a DVS128"):
        cifar10_dvs._read(path)


def test_a_counter_of_time_that_ran_over_is_read_on(tmp_path: Path):
    """AEDAT 2.0 counts microseconds in 32 bits."""
    start = (1 << 32) - 500_000
    path = files.write_aedat2(tmp_path / "one.aedat", [(x, y, (t + start) % (1 << 32), p) for x, y, t, p in FEW])
    assert cifar10_dvs._read(path)["t"].tolist() == [0, 1_000, 899_000]


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(2, 40), min_size=10, max_size=10), st.integers(0, 1000))
def test_cifar10_dvs_is_split_nine_to_one(tmp_path_factory, counts: list[int], seed: int):
    """Of each class a tenth tests; no recording is in both splits, all are in one; the seed alone settles which."""
    root = tmp_path_factory.mktemp("split")
    for name, count in zip(cifar10_dvs.CLASSES, counts, strict=True):
        (root / name).mkdir()
        for i in range(count):
            (root / name / f"cifar10_{name}_{i}.aedat4").touch()

    def chosen(split: str, seed: int) -> tuple[Dataset, set[Path]]:
        data = open_dataset("cifar10-dvs", split=split, root=root, seed=seed)
        return data, {data.events._events._places[i] for i in data.events._indices}

    (train, trains), (test, tests) = (chosen(split, seed) for split in ("train", "test"))
    assert not trains & tests
    assert len(trains | tests) == len(train) + len(test) == sum(counts)
    for label, count in enumerate(counts):
        held = int(np.count_nonzero(test.labels == label))
        assert held == min(max(round(count / 10), 1), count - 1)
    assert chosen("test", seed)[1] == tests
    if min(counts) > 8:
        assert chosen("test", seed + 1)[1] != tests
    assert open_dataset("cifar10-dvs", split="test", root=root, seed=seed).fingerprint == test.fingerprint


@pytest.mark.parametrize("name", ["cifar10-dvs", "n-caltech101"])
def test_a_seed_must_be_a_number(name: str, tmp_path: Path):
    """It is refused with its value."""
    with pytest.raises(DataError, match="seed is -1"):
        open_dataset(name, split="train", root=RECORDED[name](tmp_path), seed=-1)


def test_folders_of_no_class_are_named(tmp_path: Path):
    """A recording in another folder is refused rather than left out."""
    root = files.cifar10_dvs(tmp_path)
    files.write_aedat4(root / "CIFAR10DVS" / "plane" / "a.aedat4", FEW)
    assert "plane/a.aedat4: must be in a folder named for its class: airplane, automobile" in refusal(
        "cifar10-dvs", root
    )


@pytest.mark.skipif(not (SHARED / "tonic_test_samples").is_dir(), reason="shared/data/tonic_test_samples is not here")
def test_recordings_of_another_camera_are_named(tmp_path: Path):
    """A real recording of 320 x 240 pixels is none of this data set."""
    content = (SHARED / "tonic_test_samples" / "sample.aedat4").read_bytes()
    for i in (0, 1):
        files.put(tmp_path / "CIFAR10DVS" / "cat" / f"{i}.aedat4", content)
    assert "cat/" in (said := refusal("cifar10-dvs", tmp_path))
    assert "; must be 0..127" in said


# ------------------------------------------------------------------------------------------------ DVS128 Gesture


@few_examples
@given(on_128, st.integers(0, 5))
def test_cut_gestures_have_the_events_of_their_files(tmp_path: Path, events: list, scale: int):
    """Milliseconds become microseconds; the window is the first 6 s."""
    later = [(x, y, t // 1000 * 1000 * scale + 77_000, p) for x, y, t, p in events]
    path = files.write_npy(tmp_path / "0.npy", later)
    assert dvs_gesture._read(dvs_gesture._Gesture(path)).tolist() == within(later, dvs_gesture.DURATION)


def test_cut_gestures_are_what_tonic_reads(tmp_path: Path):
    """tonic's own class and ours give the same events, labels and classes."""
    import tonic

    class DVSGesture(tonic.datasets.DVSGesture):
        def _check_exists(self) -> bool:
            return True

    theirs = DVSGesture(str(files.dvs_gesture(tmp_path)), train=True)
    ours = open_dataset("dvs-gesture", split="train", root=tmp_path)
    assert list(ours.classes) == theirs.classes
    assert (ours.sensor_size, sorted(ours.labels)) == (theirs.sensor_size, sorted(theirs.targets))
    for i in range(2):
        (events, label), own = theirs[i], ours.events[ours.labels.tolist().index(theirs.targets[i])]
        assert label in (0, 10)
        for field in "xyp":
            np.testing.assert_array_equal(own[field], events[field])
        np.testing.assert_array_equal(own["t"], events["t"] - events["t"][0])


@few_examples
@given(
    on_128, st.integers(0, 2_000_000), st.integers(1, 1_000_000), st.integers(1, 9), st.sampled_from([1 << 31, 99_999])
)
def test_gestures_are_cut_from_their_recording(tmp_path: Path, events, start, length, room, wrap):
    """Those from the start on, before the end, wherever packets and overflows of the time fall."""
    import mtt_lava.data.dvs_gesture as module

    path = files.write_aedat3(tmp_path / "u.aedat", events, room)
    kept = [event for event in events if start <= event[2] < start + length]
    assert [tuple(each) for each in module._aedat3(path, start, start + length).tolist()] == [
        (x, y, t, p) for x, y, t, p in kept
    ]


def test_time_goes_on_where_its_counter_ran_over(tmp_path: Path):
    """A packet says how often 31 bits ran over."""
    turn = 1 << 31
    events = [(1, 2, turn - 10, 1), (3, 4, turn + 10, 0), (5, 6, turn + 900, 1)]
    path = files.write_aedat3(tmp_path / "u.aedat", events)
    found = dvs_gesture._read(dvs_gesture._Gesture(path, turn - 20, turn + 500))
    assert found.tolist() == [(1, 2, 0, True), (3, 4, 20, False)]


def test_gestures_of_the_original_layout(tmp_path: Path):
    """Labels count from 1 in the tables; a gesture is the stretch that its line says."""
    data = open_dataset("dvs-gesture", split="test", root=files.dvs_gesture_original(tmp_path))
    assert data.labels.tolist() == [0, 10]
    assert [data.classes[label] for label in data.labels] == ["Hand clapping", "Other gestures"]
    assert events_of(data) == [within(FEW, dvs_gesture.DURATION)] * 2
    inside = open_dataset("dvs-gesture", split="test", root=tmp_path / "DvsGesture")
    assert events_of(inside) == events_of(data)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("user01_lab_labels.csv", "a,b,c\n12,1,2\n", r"_labels.csv: its gesture is '12'; must be 1..11"),
        ("user01_lab_labels.csv", "a,b,c\n0,1,2\n", "its gesture is '0'; must be 1..11"),
        ("user01_lab_labels.csv", "a,b,c\n1,9,9\n", "lasts from 9 to 9 us; must end later than it starts"),
        ("user01_lab_labels.csv", "a,b,c\n1,x,9\n", "a line is '1,x,9'; must be class,startTime_usec,endTime_usec"),
        ("user01_lab_labels.csv", "a,b,c\n", "_labels.csv: no gestures; must have lines class,"),
        ("user01_lab_labels.csv", "a,b,c\n1,1,2\n", "user01_lab.aedat from 1 us: no events"),
        ("trials_to_train.txt", "user99.aedat\n", "user99_labels.csv: cannot be read"),
        ("trials_to_train.txt", "../user01_lab.aedat\n", "names '../user01_lab.aedat'; must name .aedat files beside"),
        ("trials_to_train.txt", "user01_lab.aedat\n" * 2, "names user01_lab.aedat twice; must name each once"),
        ("trials_to_train.txt", "\n", "trials_to_train.txt: names 'no files'; must name"),
    ],
)
def test_mistakes_in_tables_of_gestures_are_named(tmp_path: Path, file: str, content: str, message: str):
    """File, value and what is allowed."""
    root = files.dvs_gesture_original(tmp_path)
    (root / "DvsGesture" / file).write_text(content)
    assert message in refusal("dvs-gesture", root)


@pytest.mark.parametrize("name", ["11.npy", "-1.npy", "wave.npy"])
def test_gestures_of_no_label_are_named(tmp_path: Path, name: str):
    """A file is called for its label."""
    root = files.dvs_gesture(tmp_path)
    files.write_npy(root / "DVSGesture" / "ibmGestureTrain" / "user02_led" / name, FEW)
    assert f"{name}: its gesture is {name[:-4]!r}; must be 0..10" in refusal("dvs-gesture", root)


def test_pickled_gestures_are_not_read(tmp_path: Path):
    """Python objects are refused."""
    root = files.dvs_gesture(tmp_path)
    np.save(one(root, "ibmGestureTrain/*/0.npy"), np.array([{"an": "object"}], dtype=object))
    assert "0.npy: is not a whole .npy file of numbers" in refusal("dvs-gesture", root)


# ------------------------------------------------------------------------------------------------ N-Caltech101


def test_n_caltech101_is_what_tonic_reads(tmp_path: Path):
    """tonic's own class and ours move each recording to the left and to the top."""
    import tonic

    class NCALTECH101(tonic.datasets.NCALTECH101):
        def _check_exists(self) -> bool:
            return True

    files.n_caltech101(tmp_path / "NCALTECH101")
    theirs = NCALTECH101(str(tmp_path))
    data = open_dataset("n-caltech101", split="train", root=tmp_path)
    assert data.classes == ("BACKGROUND_Google", "yin_yang")
    assert data.labels.tolist() == [0, 1]
    events, _ = theirs[0]
    for field in "xytp":
        np.testing.assert_array_equal(data.events[0][field], events[field])
    assert data.events[0]["x"].tolist() == [0, 6, 1]
    assert data.events[0]["y"].tolist() == [0, 0, 83]


@few_examples
@given(
    st.lists(
        st.tuples(st.integers(0, 239), st.integers(0, 179), st.integers(0, 400_000), st.integers(0, 1)), min_size=1
    )
)
def test_n_caltech101_keeps_its_clock(tmp_path: Path, events: list):
    """Time is that of the file, in its order; what comes after the window is left out, or refused if it is all."""
    path = files.write_bin(tmp_path / "one.bin", events)
    first = min(t for _, _, t, _ in events)
    if first >= ncaltech101.DURATION:
        with pytest.raises(DataError, match=rf"its first event is at {first} us; must be in the window of 315000 us"):
            ncaltech101._read(path)
        return
    found = ncaltech101._read(path)
    left, top = (min(event[axis] for event in events) for axis in (0, 1))
    expected = [(x - left, y - top, t, bool(p)) for x, y, t, p in events if t < ncaltech101.DURATION]
    assert found.tolist() == sorted(expected, key=lambda event: event[2])


def test_pixels_beyond_the_sensor_are_named(tmp_path: Path):
    """A byte could hold more columns than the sensor has."""
    root = files.n_caltech101(tmp_path)
    for path in root.rglob("*.bin"):
        files.write_bin(path, [(240, 0, 0, 1)])
    assert "image_0001.bin: x is 240; must be 0..239" in refusal("n-caltech101", root).replace("0002", "0001")


# ------------------------------------------------------------------------------------------------ SHD and SSC

spikes = st.lists(
    st.tuples(st.integers(0, 1399).map(lambda ms: ms / 1000), st.integers(0, 699)), min_size=1, max_size=20
)


@few_examples
@given(st.lists(spikes, min_size=1, max_size=4))
def test_spikes_become_events_of_one_row(tmp_path: Path, recordings: list):
    """Seconds in 16 bits become whole microseconds; units are columns; polarity is 0."""
    pairs = [([t for t, _ in each], [unit for _, unit in each]) for each in recordings]
    path = files.write_spikes(tmp_path / "shd_train.h5", pairs, [0] * len(pairs))
    data = open_dataset("shd", split="train", root=tmp_path)
    for i, (times, units) in enumerate(pairs):
        stamps = np.rint(np.array(times, np.float16).astype(float) * 1e6).astype(int).tolist()
        expected = sorted(zip(units, stamps, strict=True), key=lambda event: event[1])
        assert data.events[i].tolist() == [(unit, 0, t, False) for unit, t in expected if t < heidelberg.DURATION]
    assert path.exists()


@pytest.mark.parametrize("name", ["shd", "ssc"])
def test_spikes_are_what_tonic_reads(name: str, tmp_path: Path):
    """tonic's own class and ours agree on units, times (tonic cuts microseconds, we round), labels and classes."""
    import tonic

    kind = getattr(tonic.datasets, name.upper())
    mine = type(name.upper(), (kind,), {"_check_exists": lambda self: True})
    RECORDED[name](tmp_path)
    theirs = mine(str(tmp_path), **({"train": True} if name == "shd" else {"split": "train"}))
    data = open_dataset(name, split="train", root=tmp_path)
    assert data.classes == tuple(each.decode() for each in theirs.classes)
    assert (data.sensor_size, len(data)) == (theirs.sensor_size, len(theirs))
    for i in range(len(data)):
        events, label = theirs[i]
        assert label == data.labels[i]
        np.testing.assert_array_equal(data.events[i]["x"], events["x"])
        np.testing.assert_allclose(data.events[i]["t"], events["t"], atol=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file["labels"].__setitem__(1, 20), "label of recording 1 is 20; must be 0..19"),
        (
            lambda file: file["spikes/units"].__setitem__(0, [0, 1, 700]),
            "0: its units are 0 to 700; must be 0..699",
        ),
        (lambda file: file["spikes/units"].__setitem__(0, [0, 1]), "recording 0: 3 times but 2 units"),
        (lambda file: file["spikes/times"].__setitem__(1, [-1]), "recording 1: a time is -1.0 s; must be 0 or later"),
        (
            lambda file: file["spikes/times"].__setitem__(1, [np.nan]),
            "1: a time is nan s; must be 0 or later",
        ),
        (
            lambda file: file["spikes/times"].__setitem__(1, [1.5]),
            "recording 1: its first event is at 1500000 us; must",
        ),
        (lambda file: [file[f"spikes/{name}"].__setitem__(1, []) for name in ("times", "units")], "1: no events"),
        (lambda file: file.__delitem__("labels"), "labels is no list of its kind; must be an HDF5 file with"),
        (lambda file: file.__delitem__("spikes"), "spikes/times is no list of its kind"),
        (lambda file: file.__delitem__("extra/keys"), "extra/keys is no list of its kind"),
        (lambda file: _replace(file, "labels", np.zeros(3, int)), "2 recordings but 3 labels"),
        (lambda file: _replace(file, "labels", np.zeros(2)), "labels is no list of its kind"),
        (lambda file: _replace(file, "spikes/times", np.zeros(2)), "spikes/times is no list of its kind"),
        (lambda file: _replace(file, "labels", h5py.ExternalLink("other.h5", "labels")), "labels"),
    ],
)
def test_mistakes_in_files_of_spikes_are_named(tmp_path: Path, change: Callable, message: str):
    """File, recording, value and what is allowed."""
    root = files.heidelberg(tmp_path)
    with h5py.File(tmp_path / "SHD" / "other.h5", "w") as other:
        other["labels"] = np.zeros(2, int)
    with h5py.File(tmp_path / "SHD" / "shd_train.h5", "a") as file:
        change(file)
    assert message in (said := refusal("shd", root))
    assert str(tmp_path / "SHD" / "shd_train.h5") in said


def test_files_of_spikes_that_would_be_read_for_ever_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """HDF5 stays where an object of its heap says that it has no bytes; the child that reads has a limit of time."""
    monkeypatch.setattr(heidelberg, "_SECONDS", 1)
    path = files.heidelberg(tmp_path) / "SHD" / "shd_train.h5"
    content = bytearray(path.read_bytes())
    at = content.index(b"GCOL") + 16
    number = int.from_bytes(content[at : at + 2], "little")
    while number:
        at += 16 + (int.from_bytes(content[at + 8 : at + 16], "little") + 7) // 8 * 8
        number = int.from_bytes(content[at : at + 2], "little")
    content[at + 8 : at + 16] = bytes(8)
    path.write_bytes(content)
    assert f"{path}: recording 0: damaged: reading it took longer than 1 s" in refusal("shd", tmp_path)


def test_files_of_spikes_that_end_their_reader_are_named(tmp_path: Path):
    """Damage at random, some of which ends a process that reads it with HDF5: here it is a line, and the next read
    works."""
    path = files.heidelberg(tmp_path) / "SHD" / "shd_train.h5"
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in [1889, *rng.integers(len(good), size=60)]:
        bad = bytearray(good)
        bad[place] = 0 if place == 1889 else rng.integers(256)
        path.write_bytes(bad)
        assert all("\n" not in each for each in problems("shd", tmp_path))
    path.write_bytes(good)
    assert not problems("shd", tmp_path)


def _replace(file: h5py.File, name: str, value: object) -> None:
    del file[name]
    file[name] = value


MODEL = """
name = "spoken"
input = [1, 1, 700]
[[layers]]
type = "dense"
features = 16
[[layers]]
type = "dense"
features = 20
"""


def test_spikes_of_one_row_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """From the file to a trained run and its evaluation, and in numbers and a picture, at the command line."""
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        labels = np.arange(40) % 2 * 19
        recordings = [(np.sort(rng.random(200)), rng.integers(300, size=200) + 20 * label) for label in labels]
        files.write_spikes(tmp_path / f"shd_{part}.h5", recordings, labels)
    (tmp_path / "spoken.toml").write_text(MODEL)
    root = ["--root", str(tmp_path)]
    assert main(["data", "shd", *root, "--split", "test", "--picture", str(tmp_path / "shd.png")]) == 0
    said = capsys.readouterr().out
    assert "40 recordings of 700 x 1 pixels, 1 polarity; window 1,400,000 us" in said
    assert "ON" not in said
    settings = ["--no-augment", "--epochs", "2", "--time-steps", "4", "--allow-unfit", "--out", str(tmp_path / "run")]
    assert main(["train", str(tmp_path / "spoken.toml"), "--data", "shd", *root, *settings]) in (0, 1)
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run"), "--backend", "event"]) == 0
    assert "event" in capsys.readouterr().out


RECURRENT = """
name = "spoken"
input = [1, 1, 700]
[[layers]]
type = "dense"
features = 24
recurrent = true
[[layers]]
type = "dense"
features = 20
"""


def test_a_recurrent_network_on_spikes_of_one_row_goes_to_the_chip(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Trained with mixed time steps it tells two words at any T, its file fires the same, and the check has its say."""
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        labels = np.arange(60) % 2 * 19
        recordings = [(np.sort(rng.random(150)), rng.integers(300, size=150) + 20 * label) for label in labels]
        files.write_spikes(tmp_path / f"shd_{part}.h5", recordings, labels)
    (tmp_path / "spoken.toml").write_text(RECURRENT)
    run, net = str(tmp_path / "run"), str(tmp_path / "a.net")
    settings = ["--no-augment", "--epochs", "12", "--time-steps", "6", "--batch", "10", "--out", run]
    assert main(["train", str(tmp_path / "spoken.toml"), "--data", "shd", "--root", str(tmp_path), *settings]) == 0
    capsys.readouterr()
    assert main(["evaluate", run, "--backend", "fast", "--time-steps", "3,6,12", "--json"]) == 0
    for point in json.loads(capsys.readouterr().out)["time_steps"]:
        assert sum(point["mismatches"].values()) == 0
        assert point["accuracy"] > 0.8
    assert main(["export", run, net]) == 0
    assert main(["check", net, "--profile", "loihi2"]) == 0


def test_the_gesture_network_goes_to_the_chip(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """From cut gestures in their published layout to a file that fires the same, a quarter as wide."""
    rng = np.random.default_rng(0)
    for part in ("Train", "Test"):
        for label, at in ((0, 20), (10, 80)):
            for user in ("user01_lab", "user02_led"):
                x, y = (np.clip(rng.normal(at, 8, 400).astype(int), 0, 127) for _ in range(2))
                events = list(zip(x, y, np.sort(rng.integers(0, 6_000_000, 400)), rng.integers(0, 2, 400), strict=True))
                files.write_npy(tmp_path / "DVSGesture" / f"ibmGesture{part}" / user / f"{label}.npy", events)
    run, net = str(tmp_path / "run"), str(tmp_path / "a.net")
    settings = ["--width", "0.25", "--epochs", "2", "--time-steps", "4", "--batch", "2", "--silent-epochs", "0"]
    base = ["train", "dvs-gesture", "--data", "dvs-gesture", "--root", str(tmp_path), "--out", run, *settings]
    assert main([*base, "--allow-unfit"]) == 0
    capsys.readouterr()
    assert main(["evaluate", run, "--backend", "fast", "--time-steps", "2,4", "--json"]) == 0
    for point in json.loads(capsys.readouterr().out)["time_steps"]:
        assert sum(point["mismatches"].values()) == 0
    assert main(["export", run, net]) in (0, 1)
    assert Path(net).exists()


# ------------------------------------------------------------------------------------------------ still images


def test_mnist_is_what_its_files_say(tmp_path: Path):
    """Packed or not, under MNIST/raw or beside one another; pixels lose their lower four bits."""
    data = open_dataset("mnist", split="test", root=files.mnist(tmp_path / "a"))
    expected = np.arange(3 * 28 * 28).reshape(3, 1, 28, 28).astype(np.uint8) >> 4
    np.testing.assert_array_equal(np.asarray(data.events), expected)
    assert (data.labels.tolist(), data.sensor_size, data.static) == ([7, 0, 9], (28, 28, 1), True)
    (tmp_path / "b").mkdir()
    for path in (tmp_path / "a").rglob("*.gz"):
        (tmp_path / "b" / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    other = open_dataset("mnist", split="test", root=tmp_path / "b")
    np.testing.assert_array_equal(np.asarray(other.events), expected)
    counts, _ = frames(other, 5)
    assert counts.shape == (3, 1, 28, 28, 5)
    assert np.all(counts == counts[..., :1])


@pytest.mark.skipif(not (SHARED / "mnist").is_dir(), reason="shared/data/mnist is not here")
def test_real_mnist_is_what_torchvision_reads(tmp_path: Path):
    """All of the 10,000 test digits and their labels."""
    from torchvision.datasets import mnist as theirs

    data = open_dataset("mnist", split="test", root=SHARED / "mnist")
    for kind, read, ours in (
        ("images-idx3", theirs.read_image_file, np.asarray(data.events)[:, 0]),
        ("labels-idx1", theirs.read_label_file, data.labels),
    ):
        packed = SHARED / "mnist" / "MNIST" / "raw" / f"t10k-{kind}-ubyte.gz"
        path = files.put(tmp_path / kind, gzip.decompress(packed.read_bytes()))
        expected = read(str(path)).numpy()
        np.testing.assert_array_equal(ours, expected >> 4 if kind == "images-idx3" else expected)


@pytest.mark.parametrize(
    ("kind", "array", "message"),
    [
        (
            "images-idx3",
            np.zeros((2, 28, 27), np.uint8),
            "lengths (2, 28, 27); must be a whole IDX file of bytes, (N, 28",
        ),
        ("images-idx3", np.zeros((2, 28, 28), np.uint8), "mnist: 2 recordings but 3 labels"),
        ("images-idx3", np.zeros(3, np.uint8), "must be a whole IDX file of bytes, (N, 28, 28)"),
        ("labels-idx1", np.array([0, 1, 10], np.uint8), "label of recording 2 is 10; must be 0..9"),
        ("labels-idx1", np.zeros((3, 1), np.uint8), "must be a whole IDX file of bytes, (N,)"),
    ],
)
def test_mistakes_in_mnist_are_named(tmp_path: Path, kind: str, array: np.ndarray, message: str):
    """File, what it holds and what it must hold."""
    root = files.mnist(tmp_path)
    files.write_idx(root / "MNIST" / "raw" / f"train-{kind}-ubyte.gz", array)
    assert message in refusal("mnist", root)


def test_what_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No more is unpacked than a file of MNIST could hold."""
    monkeypatch.setattr(images, "_LARGEST", 1000)
    assert "1,001 bytes" in refusal("mnist", files.mnist(tmp_path))


def test_cifar10_is_what_its_files_say(tmp_path: Path):
    """Batches in order of their names, red, green, blue; the folder itself may be the root; .npz gives the same."""
    root = files.cifar10(tmp_path / "bin")
    for where in (root, root / "cifar-10-batches-bin"):
        data = open_dataset("cifar10", split="train", root=where)
        np.testing.assert_array_equal(np.asarray(data.events), IMAGES >> 4)
        assert data.labels.tolist() == [0, 3, 9, 4]
        assert (data.classes[0], data.classes[9], data.sensor_size) == ("airplane", "truck", (32, 32, 3))
    np.savez(tmp_path / "train1.npz", x=IMAGES[:2].transpose(0, 2, 3, 1), y=[0, 3])
    np.savez(tmp_path / "train2.npz", x=IMAGES[2:].transpose(0, 2, 3, 1), y=[9, 4])
    other = open_dataset("cifar10", split="train", root=tmp_path)
    np.testing.assert_array_equal(np.asarray(other.events), np.asarray(data.events))
    assert other.labels.tolist() == data.labels.tolist()
    np.savez(tmp_path / "train1.npz", x=IMAGES[:2, 0], y=[0, 3])
    assert "train1.npz: x of type uint8, shape (2, 32, 32); must be uint8, (N, 32, 32, 3)" in refusal(
        "cifar10", tmp_path
    )


def test_cifar100_has_fine_labels(tmp_path: Path):
    """The second of two labels counts; the classes are called as their file says, or by number."""
    root = files.cifar100(tmp_path)
    data = open_dataset("cifar100", split="train", root=root)
    assert (data.labels.tolist(), data.classes[99], len(data.classes)) == ([99, 0, 1, 2], "kind_99", 100)
    np.testing.assert_array_equal(np.asarray(data.events), IMAGES >> 4)
    names = one(root, "fine_label_names.txt")
    names.write_text("apple\n")
    assert "fine_label_names.txt: names 1 classes; must name 100, one a line" in refusal("cifar100", root)
    names.unlink()
    assert open_dataset("cifar100", split="test", root=root).classes[50] == "50"


def test_labels_out_of_range_and_pickles_are_named(tmp_path: Path):
    """A label byte may be anything; who has the Python version alone is told to get the other."""
    root = files.cifar10(tmp_path)
    path = files.write_cifar(root / "cifar-10-batches-bin" / "data_batch_2.bin", IMAGES[:1], [10])
    assert f"{path}: label of recording 0 is 10; must be 0..9" in refusal("cifar10", root)
    files.put(tmp_path / "py" / "cifar-10-batches-py" / "data_batch_1", b"\x80\x02}q\x00.")
    said = refusal("cifar10", tmp_path / "py")
    assert "the binary version (the Python version is pickled, and not read) of https://" in said
