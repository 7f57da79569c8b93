"""Any set of images before the simulated event camera: recordings simulated in blocks when asked for, and kept.

Where many blocks are about to be read (`expect`), other processes simulate them side by side: each is this module,
run as a program, so that it needs nothing of the script that wanted it, and ends with it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from netx_export.reading import read_toml

from .cache import cache_folder, cached, digest
from .camera import VERSION, Camera, Recordings, check_view, known_path, packed, record
from .dataset import DataError, Dataset, as_classes, as_labels, as_list, check_name, check_seed, check_split

BLOCK = 500
"""Recordings simulated, and kept on disk, together, at most; fewer where they are large."""
SETUP = "camera.toml"
"""What is said of the camera in the folder of an image set, if anything is."""
_LARGE = 600_000 * 300_000  # pixels times microseconds of a block at most
_HELD = 8  # blocks in memory: some 15 MB each
_TOGETHER = 4  # blocks that one process simulates, which takes half a second to start
_FIRST = {"train": 0, "test": 1 << 20}  # the noise of a test recording is that of no train recording


@dataclass(frozen=True)
class View:
    """A camera, and what it is shown.

    Parameters
    ----------
    camera : Camera
    sensor : (int, int)
        Columns and rows, 1 to 256 each.
    path : {"saccades", "loop"}
        How an image moves; see `mtt_lava.data.camera`.
    border : {"dark", "edge"}
        What lies around an image: black, or its outermost pixels again and again.
    """

    camera: Camera
    sensor: tuple[int, int]
    path: str = "saccades"
    border: Literal["dark", "edge"] = "edge"

    def __post_init__(self) -> None:
        check_view(**self.options)

    @property
    def options(self) -> dict[str, Any]:
        """As `mtt_lava.data.camera.record` takes them."""
        return {"camera": self.camera, "sensor": self.sensor, "path": self.path, "border": self.border}

    @property
    def duration(self) -> int:
        """Microseconds of a recording."""
        return known_path(self.path).duration


def grey(images: np.ndarray) -> np.ndarray:
    """Return images as intensities 0..1, (N, H, W) float32.

    Parameters
    ----------
    images : numpy.ndarray
        (N, H, W) or, in colours, (N, H, W, 3), uint8; or (N, H, W) floats, which stay what they are.
    """
    if images.dtype.kind == "f":
        return images.astype(np.float32)
    if images.ndim == 4:
        # In whole numbers, so that the images are the same on every machine.
        return (images @ np.array([299, 587, 114], dtype=np.int32)).astype(np.float32) / np.float32(255_000)
    return images.astype(np.float32) / np.float32(255)


class Simulated(Sequence[np.ndarray]):
    """Recordings of images, simulated in blocks when asked for.

    Parameters
    ----------
    images : sequence
        An array as `grey` takes it; or something whose slices are one, and that has ``content(start, stop)``, a text
        that tells some of its images from others.
    view : View
    name, split, seed
        See `camera_dataset`.
    folder : path
        Where blocks are kept.
    key : tuple
        What recordings of the same images with other settings are told apart by.
    """

    def __init__(
        self, images: Any, view: View, name: str, split: str, seed: int, folder: Path, key: tuple[Any, ...]
    ) -> None:
        self._images, self._view, self._name, self._split = images, view, name, split
        self._seed, self._folder, self._key = seed, folder, key
        width, height = view.sensor
        self._size = min(BLOCK, max(16, _LARGE // (width * height * view.duration)))
        self._path = functools.cache(self._path_of)
        self._block = functools.lru_cache(_HELD)(self._simulated)
        self.fingerprint = digest(name, VERSION, split, seed, *key, self._content(0, len(images)))

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        block, place = divmod(range(len(self))[index], self._size)
        return self._block(block * self._size)[place]

    def expect(self, indices: Iterable[int]) -> None:
        """Simulate the blocks of these recordings that are not in the cache, side by side, if there are several."""
        starts = sorted({index // self._size * self._size for index in indices})
        missing = [start for start in starts if not self._path(start).exists()]
        processes = min(len(os.sched_getaffinity(0)), len(missing))
        if processes > 1:
            together = max(1, min(_TOGETHER, len(missing) // processes))
            jobs = [missing[i : i + together] for i in range(0, len(missing), together)]
            with suppress(OSError):  # no space, or no process: they are simulated when they are read
                _side_by_side(jobs, self._start, processes)

    def _content(self, start: int, stop: int) -> str:
        if not isinstance(self._images, np.ndarray):
            content: str = self._images.content(start, stop)
            return content
        found = hashlib.sha256()
        for some in range(start, stop, BLOCK):
            found.update(grey(self._images[some : min(some + BLOCK, stop)]).tobytes())
        return found.hexdigest()

    def _path_of(self, start: int) -> Path:
        content = self._content(start, min(start + self._size, len(self)))
        key = digest(VERSION, *self._key, self._seed, self._first(start), content)
        return self._folder / f"{self._split}-{start}-seed{self._seed}-{key}.npz"

    def _simulated(self, start: int) -> Recordings:
        images = self._images[start : start + self._size]
        return Recordings(*_kept(self._path(start), images, self._view, self._seed, self._first(start), self._name))

    def _first(self, start: int) -> int:
        return _FIRST[self._split] + start

    def _start(self, starts: list[int], folder: str) -> subprocess.Popen[bytes]:
        """Start a process that simulates blocks; `folder` holds its images."""
        blocks = []
        for start in starts:
            images = os.path.join(folder, f"{start}.npy")
            np.save(images, self._images[start : start + self._size])
            path = os.fspath(self._path(start).absolute())
            blocks.append({"path": path, "images": images, "first": self._first(start)})
        view = {name: value for name, value in self._view.options.items() if name != "camera"}
        job = {"blocks": blocks, "view": view, "camera": dataclasses.asdict(self._view.camera), "seed": self._seed}
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        environment = {**os.environ, **threads, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        file = os.path.join(folder, "job.json")
        Path(file).write_text(json.dumps(job))
        command = [sys.executable, "-m", __name__, file]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)


def _kept(path: Path, images: np.ndarray, view: View, seed: int, first: int, name: str) -> tuple[np.ndarray, ...]:
    """Return a block as `Recordings` takes it; from the cache, if it is there."""

    def simulate() -> tuple[np.ndarray, ...]:
        shown = range(len(images))
        return packed(record(grey(images), shown, seed=seed, first=first, name=name, **view.options))

    return cached(path, ("events", "ends"), simulate)


def _side_by_side(jobs: list[list[int]], start: Any, processes: int) -> None:
    """Run jobs in so many processes at a time; what one could not do is done where it is read, and says why there."""
    from tqdm import tqdm

    waiting = jobs[::-1]
    running: dict[subprocess.Popen[bytes], tuple[list[int], str]] = {}
    total = sum(map(len, jobs))
    with (
        ExitStack() as ending,
        tqdm(total=total, desc="simulating", unit="block", delay=3, leave=False, disable=None) as bar,
    ):
        while waiting or running:
            while waiting and len(running) < processes:
                job = waiting.pop()
                folder = ending.enter_context(tempfile.TemporaryDirectory(prefix="mtt-"))
                process = start(job, folder)
                ending.callback(process.wait)
                ending.callback(process.kill)  # first
                running[process] = job, folder
            time.sleep(0.05)
            for process in [process for process in running if process.poll() is not None]:
                job, folder = running.pop(process)
                assert process.stdin is not None
                process.stdin.close()
                for path in Path(folder).iterdir():
                    path.unlink()
                bar.update(len(job))
                if process.returncode:
                    waiting.clear()


def expect(events: Sequence[np.ndarray], indices: Iterable[int] | None = None) -> None:
    """Say that these recordings (default: all) are about to be read; those that have to be made are, side by side."""
    made = getattr(events, "expect", None)
    if made is not None:
        made(range(len(events)) if indices is None else indices)


def camera_dataset(
    images: np.ndarray,
    labels: Iterable[int],
    *,
    classes: int | Sequence[str],
    sensor: tuple[int, int] | None = None,
    camera: Camera | None = None,
    path: str = "saccades",
    border: Literal["dark", "edge"] = "edge",
    seed: int = 0,
    name: str = "camera",
    split: str = "train",
    cache: Path | None = None,
) -> Dataset:
    """Make a data set of what a simulated event camera sees of images. Simulated, not recorded.

    Recordings are simulated in blocks when they are asked for, on all cores where many are, and kept in the cache.

    Parameters
    ----------
    images : numpy.ndarray
        (N, H, W), or (N, H, W, 3) in colours, uint8; or (N, H, W) floats, 0..1.
    labels, classes, name, split, cache
        As in `mtt_lava.data.from_events`.
    sensor : (int, int), optional
        Columns and rows of the camera, 1 to 256 each. Default: (W, H).
    camera : Camera, optional
        Thresholds, noise and more. Default: a pixel of the image on one of the sensor.
    path : {"saccades", "loop"}
        How an image moves: as in N-MNIST, 300 ms; or as in CIFAR10-DVS, 1.2 s. See `mtt_lava.data.camera`.
    border : {"dark", "edge"}
        What lies around an image: black, or its outermost pixels again and again.
    seed : int
        Settles the thresholds of the camera, and the noise of each recording.

    Returns
    -------
    Dataset
        The same on every machine for the same arguments.

    Raises
    ------
    DataError
        Says which argument, its value and what is allowed.

    Examples
    --------
    >>> images = np.zeros((3, 28, 28), np.uint8)
    >>> images[:, 10:20, 10:20] = 255
    >>> camera_dataset(images, [0, 1, 1], classes=2, sensor=(34, 34), path="loop")
    <Dataset camera train: 3 recordings of 1,200,000 us, 34 x 34 x 2, 2 classes>
    """
    check_split(split)
    check_name(name)
    seed = check_seed(seed)
    if not isinstance(images, np.ndarray) or isinstance(images, np.ma.MaskedArray):
        raise DataError(f"{name}: images are a {type(images).__name__}; must be an array, such as numpy.stack makes")
    colours = images.ndim == 4 and images.shape[-1] == 3 and images.dtype == np.uint8
    plain = images.ndim == 3 and (images.dtype == np.uint8 or images.dtype.kind == "f")
    if not (colours or plain) or 0 in images.shape:
        raise DataError(
            f"{name}: images of type {images.dtype}, shape {images.shape}; must be uint8, (N, H, W) or (N, H, W, 3), "
            "or floats, (N, H, W)"
        )
    if images.dtype.kind == "f" and not (images.min() >= 0 and images.max() <= 1):
        raise DataError(f"{name}: images from {images.min():g} to {images.max():g}; floats must be in 0..1")
    view = View(camera or Camera(pitch=1.0), sensor or (images.shape[2], images.shape[1]), path, border)
    names = as_classes(classes, name)
    array = as_labels(as_list(labels, name, "labels"), len(images), len(names), where=name)
    return seen(images, array, names, view, seed, name, split, cache)


def seen(
    images: Any,
    labels: np.ndarray,
    classes: tuple[str, ...],
    view: View,
    seed: int,
    name: str,
    split: str,
    cache: Path | None,
    key: tuple[Any, ...] | None = None,
) -> Dataset:
    """Make a data set of images that are known to be right; see `camera_dataset` and `Simulated`."""
    folder = (cache or cache_folder()) / ("camera" if key is None else name)
    key = (view.camera, view.sensor, view.path, view.border) if key is None else key
    return Dataset(
        name=name,
        split=split,
        sensor_size=(*view.sensor, 2),
        classes=classes,
        events=Simulated(images, view, name, split, seed, folder, key),
        labels=labels,
        duration=view.duration,
        cache=cache,
    )


def set_up(root: Path, usual: View) -> View:
    """Return what ``camera.toml`` in `root` says: sensor, path, border and the fields of `Camera`; else `usual`.

    Raises
    ------
    DataError
        If the file says something else.
    """
    file = root / SETUP
    if not file.is_file():
        return usual
    said = read_toml(file, DataError)
    known = ["sensor", "path", "border", *(field.name for field in dataclasses.fields(Camera))]
    for name, value in said.items():
        if name not in known:
            raise DataError(f"{file}: {name[:40]!r} is unknown; there is: {', '.join(known)}")
        if name == "sensor":
            right = isinstance(value, list) and [type(size) for size in value] == [int, int]
        else:
            right = isinstance(value, str) if name in known[:3] else type(value) in (int, float)
        if not right:
            what = {"sensor": "[columns, rows]", "path": "a text", "border": "a text"}.get(name, "a number")
            raise DataError(f"{file}: {name} is {str(value)[:40]!r}; must be {what}")
    try:
        camera = dataclasses.replace(usual.camera, **{n: float(v) for n, v in said.items() if n not in known[:3]})
        rest = {name: value for name, value in said.items() if name in known[1:3]}
        return dataclasses.replace(usual, camera=camera, sensor=tuple(said.get("sensor", usual.sensor)), **rest)
    except DataError as error:
        raise DataError(f"{file}: {error}") from None


def _work() -> None:
    """Life of a process that simulates blocks: it does not outlive the one that started it, whose pipe then ends."""
    job = json.loads(Path(sys.argv[1]).read_text())

    def end_with_parent() -> None:
        sys.stdin.buffer.read()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    camera = Camera(**job["camera"])
    view = View(camera, tuple(job["view"]["sensor"]), job["view"]["path"], job["view"]["border"])
    for block in job["blocks"]:
        images = np.load(block["images"], allow_pickle=False)
        _kept(Path(block["path"]), images, view, job["seed"], block["first"], "")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    _work()
