"""Any image set before the simulated camera: MNIST, pictures, arrays; paths, blocks, and how near it is to N-MNIST."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import dataset_files as files
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mtt_lava.cli import main
from mtt_lava.data import (
    Camera,
    DataError,
    Dataset,
    cache_folder,
    camera,
    camera_dataset,
    frames,
    from_images,
    join,
    open_dataset,
    simulated,
    subset,
)
from mtt_lava.data.camera import PATHS, record
from mtt_lava.data.compare import alike, compare

DATA = Path(__file__).parents[1].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not (DATA / "nmnist_small").is_dir(), reason="shared/data is not here")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTT_CACHE", str(tmp_path / "cache"))


def squares(n: int = 3, size: int = 12, seed: int = 0) -> np.ndarray:
    """Bright squares on black, (n, size, size) uint8."""
    rng = np.random.default_rng(seed)
    images = np.zeros((n, size, size), np.uint8)
    for image in images:
        x, y = rng.integers(1, size - 6, 2)
        image[y : y + 5, x : x + 5] = rng.integers(128, 256)
    return images


def seen(images: np.ndarray, **options: Any) -> Dataset:
    return camera_dataset(images, [0] * len(images), classes=2, **options)


def events(data: Dataset) -> list[bytes]:
    return [recording.tobytes() for recording in data.events]


def pictures(root: Path, layout: dict[str, int], size: tuple[int, int] = (20, 16), ending: str = ".png") -> Path:
    """Write pictures of noise; `layout` says how many there are in each folder."""
    rng = np.random.default_rng(0)
    for folder, count in layout.items():
        (root / folder).mkdir(parents=True)
        for i in range(count):
            blocks = np.kron(rng.integers(256, size=(size[1] // 4, size[0] // 4, 3)), np.ones((4, 4, 1)))
            Image.fromarray(blocks.astype(np.uint8)).save(root / folder / f"{i}{ending}")
    return root


# ------------------------------------------------------------------------------------------------ arrays and paths


@pytest.mark.parametrize("path", sorted(PATHS))
def test_every_path_closes(path: str):
    """It ends where it began, and its recordings fill its duration."""
    way = PATHS[path]
    assert way.corners[0] == way.corners[-1]
    places = way.places(round(way.duration / 1250))
    assert np.abs(places).max() <= way.reach
    np.testing.assert_allclose(places[0], places[-1])
    data = seen(squares(), path=path, border="dark")
    assert data.duration == way.duration
    for recording in data.events:
        assert 0 <= recording["t"].min() < recording["t"].max() < way.duration
        assert recording["t"].max() > 0.9 * way.duration


def test_the_loop_is_four_legs_at_45_degrees():
    """All of one length, at constant speed, six times."""
    way = PATHS["loop"]
    legs = np.diff(np.array(way.corners), axis=0)
    assert legs.shape == (24, 2)
    assert set(np.abs(legs).ravel()) == {2.5}
    speed = np.linalg.norm(np.diff(way.places(960), axis=0), axis=1)
    np.testing.assert_allclose(speed, speed[0])


def test_the_same_image_in_any_form_gives_the_same_events():
    """Grey in 8 bits, the same in colours, and as floats."""
    images = squares()
    colours = np.repeat(images[..., None], 3, axis=3)
    floats = images.astype(np.float32) / np.float32(255)
    assert events(seen(images)) == events(seen(colours)) == events(seen(floats))


def test_how_many_are_simulated_at_once_makes_no_difference(monkeypatch: pytest.MonkeyPatch):
    """Large sensors are simulated one recording at a time, to bound the memory; the events are the same."""
    whole = [record(squares(5) / 255, range(5), seed=0, sensor=(14, 14), path=path) for path in sorted(PATHS)]
    monkeypatch.setattr(camera, "_SEEN", 1)
    for path, expected in zip(sorted(PATHS), whole, strict=True):
        again = record(squares(5) / 255, range(5), seed=0, sensor=(14, 14), path=path)
        assert [each.tobytes() for each in again] == [each.tobytes() for each in expected]


def test_settings_make_the_difference():
    """Sensor, path, border, thresholds, noise and seed: each gives other recordings, kept apart in the cache."""
    choices: list[dict[str, Any]] = [
        {},
        {"sensor": (14, 10)},
        {"path": "loop"},
        {"border": "dark"},
        {"camera": Camera(pitch=1.0, threshold=0.3)},
        {"camera": Camera(pitch=1.0, noise=5.0)},
        {"seed": 1},
        {"split": "test"},
    ]
    found = [events(seen(squares(), **choice)) for choice in choices]
    assert all(a != b for i, a in enumerate(found) for b in found[:i])
    assert len({seen(squares(), **choice).fingerprint for choice in choices}) == len(choices)
    assert [events(seen(squares(), **choice)) for choice in choices] == found


@settings(max_examples=15)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 12), st.integers(1, 12), st.sampled_from(sorted(PATHS)))
def test_images_and_sensors_of_any_size_meet(
    tmp_path_factory: pytest.TempPathFactory, width: int, height: int, columns: int, rows: int, path: str
):
    """Events lie on the sensor, in order of time, in the window."""
    images = np.random.default_rng(width).integers(0, 256, (2, height, width)).astype(np.uint8)
    noisy, folder = Camera(pitch=1.0, noise=100.0), tmp_path_factory.mktemp("cache")
    for recording in seen(images, sensor=(columns, rows), path=path, camera=noisy, cache=folder).events:
        assert recording["x"].max() < columns
        assert recording["y"].max() < rows
        assert np.all(np.diff(recording["t"]) >= 0)


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (squares().tolist(), {}, "images are a list; must be an array"),
        (squares().astype(np.int64), {}, r"images of type int64, shape \(3, 12, 12\); must be uint8"),
        (squares()[0], {}, r"shape \(12, 12\)"),
        (squares()[:0], {}, r"shape \(0, 12, 12\)"),
        (squares() / 100 * (200 / squares().max()), {}, r"images from 0 to 2\.?\d*; floats must be in 0\.\.1"),
        (np.full((1, 2, 2), np.nan), {}, "floats must be in 0..1"),
        (squares(), {"path": "circle"}, "path 'circle' is unknown; there is: saccades, loop"),
        (squares(), {"border": "white"}, "border is 'white'; must be dark or edge"),
        (squares(), {"sensor": (300, 10)}, r"sensor is \(300, 10\); must be \(columns, rows\), 1 to 256 each"),
        (squares(), {"seed": -1}, "seed is -1"),
        (squares(), {"split": "val"}, "split 'val' is unknown"),
        (squares(), {"classes": 0}, "classes is '0'"),
    ],
)
def test_mistakes_are_named(images: Any, options: dict[str, Any], message: str):
    """One line says which argument, its value and what is allowed; nothing is simulated for it."""
    with pytest.raises(DataError, match=message) as caught:
        camera_dataset(images, [0] * len(images), **{"classes": 2, **options})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0.0}, "threshold is 0"),
        ({"mismatch": 0.4}, "mismatch is 0.4"),
        ({"background": 1.0}, "background is 1"),
        ({"pitch": -1.0}, "pitch is -1"),
        ({"noise": float("nan")}, "noise is nan"),
    ],
)
def test_a_camera_that_cannot_be_is_refused(options: dict[str, float], message: str):
    """Each field says what it may be."""
    with pytest.raises(DataError, match=message):
        Camera(**options)


# ------------------------------------------------------------------------------------------------ blocks


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulated, "BLOCK", 4)
    monkeypatch.setattr(simulated.os, "sched_getaffinity", lambda _: {0, 1})


def blocks() -> list[int]:
    """The first recording of each block in the cache."""
    return sorted(int(path.name.split("-")[1]) for path in (cache_folder() / "camera").glob("*.npz"))


@pytest.mark.usefixtures("small_blocks")
def test_side_by_side_gives_what_one_process_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Other processes simulate what is about to be read: the same events, bit by bit, and nothing is left to do."""
    images = squares(14)
    alone = events(seen(images, cache=tmp_path / "alone"))
    data = seen(images)
    simulated.expect(data.events)
    assert blocks() == [0, 4, 8, 12]
    monkeypatch.setattr(simulated, "record", lambda *_, **__: pytest.fail("simulated again"))
    assert events(data) == alone


@pytest.mark.usefixtures("small_blocks")
def test_only_what_is_read_is_simulated():
    """A part of a data set, or of several, has its own blocks made, before its frames are."""
    one, other = seen(squares(14)), seen(squares(14, seed=1), name="other")
    part = subset(join(one, other), [1, 2, 9, 15, 27])
    frames(part, 2)
    assert blocks() == [0, 0, 8, 12]


@pytest.mark.usefixtures("small_blocks")
def test_what_another_process_cannot_do_is_done_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where it fails, or nothing can be kept, recordings are simulated as they are read."""
    images = squares(9)
    alone = events(seen(images, cache=tmp_path / "alone"))
    monkeypatch.setattr(simulated.sys, "executable", "/bin/false")
    data = seen(images)
    simulated.expect(data.events)
    assert blocks() == []
    assert events(data) == alone


def test_large_recordings_have_small_blocks():
    """So that a block is some 15 MB whatever the sensor and the path."""
    small = seen(squares(1), sensor=(34, 34))
    large = seen(squares(1), sensor=(128, 128), path="loop")
    assert (small.events._size, large.events._size) == (500, 16)


# ------------------------------------------------------------------------------------------------ mnist-camera


def test_mnist_digits_are_seen(tmp_path: Path):
    """Both splits, from the files that ``mnist`` is read from."""
    root = files.mnist(tmp_path)
    for split in ("train", "test"):
        still, data = (open_dataset(name, split=split, root=root) for name in ("mnist", "mnist-camera"))
        assert (data.name, data.sensor_size, data.duration) == ("mnist-camera", (34, 34, 2), 300_000)
        assert data.labels.tolist() == still.labels.tolist()
        assert data.classes == still.classes
        assert len(list(data.events)) == len(still)


SETUP = """
sensor = [20, 16]
path = "loop"
border = "edge"
threshold = 0.3
noise = 0
"""


@pytest.mark.parametrize("name", ["mnist-camera", "cifar10-camera", "pictures-camera"])
def test_a_file_sets_the_camera_up(name: str, tmp_path: Path):
    """Sensor, path, border and the camera's own settings, beside the images."""
    if name == "pictures-camera":
        root = pictures(tmp_path, {"train/a": 2, "train/b": 1, "test/a": 1})
    elif name == "mnist-camera":
        root = files.mnist(tmp_path)
    else:
        root = tmp_path
        np.savez(root / "train.npz", x=np.repeat(squares(2, 32)[..., None], 3, 3), y=[0, 1])
    plain = open_dataset(name, split="train", root=root)
    (root / "camera.toml").write_text(SETUP)
    data = open_dataset(name, split="train", root=root)
    assert (data.sensor_size, data.duration) == ((20, 16, 2), 1_200_000)
    assert data.fingerprint != plain.fingerprint
    assert max(int(recording["x"].max()) for recording in data.events) < 20


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sensor = 34", r"sensor is '34'; must be \[columns, rows\]"),
        ("sensor = [34, 34, 2]", "sensor is"),
        ("sensor = [0, 34]", r"sensor is \(0, 34\)"),
        ("thresold = 1", "'thresold' is unknown; there is: sensor, path, border, threshold"),
        ("threshold = '1'", "threshold is '1'; must be a number"),
        ("noise = true", "noise is 'True'; must be a number"),
        ("path = 3", "path is '3'; must be a text"),
        ("path = 'circle'", "path 'circle' is unknown"),
        ("step = 7000", "step is 7000"),
        ("step =", "is not valid TOML"),
    ],
)
def test_mistakes_in_the_set_up_are_named(text: str, message: str, tmp_path: Path):
    """The file, the field, its value and what is allowed."""
    (files.mnist(tmp_path) / "camera.toml").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        open_dataset("mnist-camera", split="test", root=tmp_path)
    assert "camera.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------ pictures-camera


def test_pictures_in_folders_are_seen(tmp_path: Path):
    """A folder a class, in order of their names; PNG and JPEG, of any size."""
    root = pictures(tmp_path / "p", {"train/cat": 3, "train/ant": 2, "test/cat": 1})
    pictures(root, {"test/ant": 2}, size=(8, 40), ending=".jpg")
    train, test = (open_dataset("pictures-camera", split=split, root=root) for split in ("train", "test"))
    assert (train.classes, train.labels.tolist(), test.labels.tolist()) == (("ant", "cat"), [0, 0, 1, 1, 1], [0, 0, 1])
    assert train.sensor_size == (64, 64, 2)
    assert all(len(recording) > 100 for recording in (*train.events, *test.events))
    again = open_dataset("pictures-camera", split="train", root=root)
    assert again.fingerprint == train.fingerprint
    assert events(again) == events(train)


def test_pictures_without_a_split_are_split(tmp_path: Path):
    """A tenth of each class tests, which ones by the seed; every picture is in one of both."""
    root = pictures(tmp_path, {"a": 10, "b": 20})
    train, test = (open_dataset("pictures-camera", split=split, root=root) for split in ("train", "test"))
    assert (np.bincount(train.labels).tolist(), np.bincount(test.labels).tolist()) == ([9, 18], [1, 2])
    assert (train.split, test.split) == ("train", "test")
    other = open_dataset("pictures-camera", split="test", root=root, seed=1)
    assert other.fingerprint != test.fingerprint


def test_another_picture_is_another_recording(tmp_path: Path):
    """A picture that is replaced is simulated again."""
    root = pictures(tmp_path, {"train/a": 2, "test/a": 1})
    before = events(open_dataset("pictures-camera", split="train", root=root))
    Image.fromarray(squares(1, 40)[0]).save(root / "train" / "a" / "0.png")
    after = events(open_dataset("pictures-camera", split="train", root=root))
    assert (before[0] != after[0], before[1] == after[1]) == (True, True)


def test_mistakes_with_pictures_are_named(tmp_path: Path):
    """No root, no pictures, one half alone, a file that is no picture or is cut off."""
    with pytest.raises(DataError, match="pictures-camera: no root; pass as root the folder that holds folders train"):
        open_dataset("pictures-camera", split="train")
    with pytest.raises(DataError, match="has no pictures"):
        open_dataset("pictures-camera", split="train", root=tmp_path)
    root = pictures(tmp_path, {"train/a": 2})
    with pytest.raises(DataError, match="has train alone"):
        open_dataset("pictures-camera", split="train", root=root)
    pictures(root, {"test/a": 1})
    for damage in (b"no picture", (root / "train/a/0.png").read_bytes()[:60]):
        (root / "train/a/1.png").write_bytes(damage)
        with pytest.raises(DataError, match=r"1\.png: is no whole PNG or JPEG picture") as caught:
            frames(open_dataset("pictures-camera", split="train", root=root), 2)
        assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------ beside N-MNIST


def test_as_many_of_each_class_are_compared():
    """The first of each class, as many as there are of the other; other classes, or fewer, are refused."""
    many = dataclasses.replace(seen(squares(8)), labels=np.array([0, 1, 0, 1, 0, 1, 0, 1]))
    few = dataclasses.replace(seen(squares(3), name="few"), labels=np.array([1, 1, 0]))
    assert alike(many, few).labels.tolist() == [0, 1, 1]
    found = compare(many, few)
    assert found.recordings == (3, 3)
    assert found.names == ("camera", "few")
    assert {row["measure"] for row in found.rows()} >= {"events a recording", "share of ON events"}
    assert "events a recording" in str(found)
    with pytest.raises(DataError, match="camera has 4" if len(few) > len(many) else "few: 1 recordings of class 0"):
        compare(few, many)
    with pytest.raises(DataError, match="differ in classes"):
        compare(many, camera_dataset(squares(), [0, 0, 0], classes=3))
    still = from_images(np.zeros((2, 1, 4, 4), np.uint8), [0, 1], classes=2)
    with pytest.raises(DataError, match="still images have no events to compare"):
        compare(many, still)


@needs_shared
def test_the_camera_is_near_nmnist(capsys: pytest.CaptureFixture[str]):
    """The same digits, recorded and simulated: event rate and polarity balance within a tenth, in every third too."""
    arguments = ["data", "mnist-camera", "--root", str(DATA / "mnist"), "--split", "test", "--beside", "nmnist"]
    assert main([*arguments, "--beside-root", str(DATA / "nmnist_small")]) == 0
    print(capsys.readouterr().out)
    ours, theirs = (
        open_dataset(name, split="test", root=DATA / root)
        for name, root in (("mnist-camera", "mnist"), ("nmnist", "nmnist_small"))
    )
    found = compare(ours, theirs).measures
    one, other = found["thousand events a second"]
    assert 0.85 < one / other < 1.15
    one, other = found["share of ON events"]
    assert abs(one - other) < 0.03
    for n in (1, 2, 3):
        one, other = found[f"share of events in third {n}"]
        assert abs(one - other) < 0.06
