"""What a data set of events is, and how to make one of your own recordings."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

EVENT_DTYPE = np.dtype([("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", bool)])
"""An event, in the fields and types of ``tonic.io.events_struct``: column, row, microseconds, polarity (1 is ON)."""

SPLITS = ("train", "test")


class DataError(ValueError):
    """A data set, or a file of one, is not there or not what it must be. One clear line."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Dataset:
    """One split of a labelled data set of event recordings.

    Parameters
    ----------
    name : str
    split : str
        "train" or "test".
    sensor_size : tuple of int
        (W, H, P) as in tonic: columns, rows, polarities.
    classes : tuple of str
        What label 0, 1, ... means.
    events : sequence of numpy.ndarray
        Recording i, dtype `EVENT_DTYPE`, in order of time. May be read from disk when asked for. Of a static data
        set: image i, (P, H, W).
    labels : numpy.ndarray
        (N,) int64.
    duration : int
        Microseconds. The recording window is 0 <= t < duration and the same for every recording of the data set, so
        that a time step means the same everywhere. Later events are counted as if they came at its very end.
    fingerprint : str
        Changes whenever the events may have changed; derived data is cached under it.
    static : bool
        True for still images, which have no time of their own: every time step shows the same.
    cache : Path, optional
        Folder for derived data; None: `mtt_lava.data.cache_folder`.
    """

    name: str
    split: str
    sensor_size: tuple[int, int, int]
    classes: tuple[str, ...]
    events: Sequence[np.ndarray]
    labels: np.ndarray
    duration: int
    fingerprint: str
    static: bool = False
    cache: Path | None = None

    def __len__(self) -> int:
        return len(self.labels)


def from_events(
    recordings: Iterable[np.ndarray],
    labels: Iterable[int],
    *,
    sensor_size: tuple[int, int, int],
    duration: int,
    classes: int | Sequence[str],
    name: str = "events",
    split: str = "train",
    cache: Path | None = None,
) -> Dataset:
    """Make a data set of recordings in memory.

    Parameters
    ----------
    recordings : iterable of numpy.ndarray
        Structured arrays with integer fields x, y, t (microseconds from the start of the recording) and p, as
        tonic has them; at least one event each. Put in order of time where they are not.
    labels : iterable of int
        One a recording, 0 .. number of classes - 1.
    sensor_size : tuple of int
        (W, H, P), P 1 or 2.
    duration : int
        Microseconds of the recording window, see `Dataset`. Give train and test split the same.
    classes : int or sequence of str
        The classes' names, or how many there are.
    name : str
    split : str
        "train" or "test".
    cache : Path, optional
        Folder for cached frames.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        Says which recording, which field, the value and what is allowed.
    """
    check_split(split)
    width, height, polarities = sensor_size = (int(sensor_size[0]), int(sensor_size[1]), int(sensor_size[2]))
    if min(width, height) < 1 or polarities not in (1, 2):
        raise DataError(f"{name}: sensor_size is {sensor_size}; must be (columns, rows, 1 or 2 polarities)")
    if duration != int(duration) or duration < 1:
        raise DataError(f"{name}: duration is {duration}; must be a whole number of microseconds, at least 1")
    names = tuple(map(str, range(classes))) if isinstance(classes, int) else tuple(map(str, classes))
    events = [
        as_recording(recording, sensor_size, where=f"{name}: recording {i}") for i, recording in enumerate(recordings)
    ]
    label_array = as_labels(list(labels), len(events), len(names), where=name)
    content = hashlib.sha256()
    for recording in events:
        content.update(recording.tobytes())
        content.update(b"|")
    return Dataset(
        name=name,
        split=split,
        sensor_size=sensor_size,
        classes=names,
        events=events,
        labels=label_array,
        duration=int(duration),
        fingerprint=content.hexdigest(),
        cache=cache,
    )


def from_tonic(
    dataset: Any,
    *,
    duration: int,
    split: str = "train",
    classes: int | Sequence[str] | None = None,
    name: str | None = None,
    cache: Path | None = None,
) -> Dataset:
    """Make a data set of one of tonic's, or of anything else that yields (events, label) and has a `sensor_size`.

    All of it is read into memory (13 bytes an event). Parameters as in `from_events`; `classes` defaults to what
    the data set itself says.

    Examples
    --------
    >>> from_tonic(tonic.datasets.POKERDVS("data"), duration=30_000)  # doctest: +SKIP
    """
    name = name or type(dataset).__name__.lower()
    classes = classes if classes is not None else getattr(dataset, "classes", None)
    if classes is None:
        raise DataError(f"{name}: does not say what its classes are; pass classes=, their names or their number")
    pairs = [dataset[i] for i in range(len(dataset))]
    return from_events(
        [events for events, _ in pairs],
        [label for _, label in pairs],
        sensor_size=dataset.sensor_size,
        duration=duration,
        classes=classes,
        name=name,
        split=split,
        cache=cache,
    )


def from_images(
    images: np.ndarray,
    labels: Iterable[int],
    *,
    classes: int | Sequence[str],
    name: str = "images",
    split: str = "train",
) -> Dataset:
    """Make a data set of still images.

    Parameters
    ----------
    images : numpy.ndarray
        (N, C, H, W), integers from 0 on: what a pixel's input spike carries in every time step.
    labels, classes, name, split
        As in `from_events`.

    Returns
    -------
    Dataset
        A static one; `sensor_size` is (W, H, C).

    Raises
    ------
    DataError
        Says which field, the value and what is allowed.
    """
    check_split(split)
    if images.ndim != 4 or images.dtype.kind not in "iu" or 0 in images.shape or images.min() < 0:
        raise DataError(
            f"{name}: images of type {images.dtype}, shape {images.shape}; "
            "must be integers from 0 on, (samples, channels, height, width)"
        )
    names = tuple(map(str, range(classes))) if isinstance(classes, int) else tuple(map(str, classes))
    _, channels, height, width = images.shape
    return Dataset(
        name=name,
        split=split,
        sensor_size=(width, height, channels),
        classes=names,
        events=images,  # type: ignore[arg-type]
        labels=as_labels(list(labels), len(images), len(names), where=name),
        duration=1,
        fingerprint=hashlib.sha256(images.tobytes()).hexdigest(),
        static=True,
    )


def check_split(split: str) -> None:
    """Raise `DataError` unless `split` is one."""
    if split not in SPLITS:
        raise DataError(f"split is {split!r}; must be one of {', '.join(SPLITS)}")


def check_seed(seed: int) -> None:
    """Raise `DataError` unless `seed` is one."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise DataError(f"seed is {seed!r}; must be a whole number, 0 or more")


def as_labels(labels: Sequence[int], recordings: int, classes: int, where: str) -> np.ndarray:
    """Return `labels` as an int64 array, or say what is wrong with them."""
    array = np.asarray(labels)
    if len(array) != recordings:
        raise DataError(f"{where}: {recordings} recordings but {len(array)} labels; there must be one each")
    if recordings == 0:
        raise DataError(f"{where}: no recordings; there must be at least one")
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(f"{where}: labels of type {array.dtype}, shape {array.shape}; must be one integer a recording")
    if array.min() < 0 or array.max() >= classes:
        i = int(np.flatnonzero((array < 0) | (array >= classes))[0])
        raise DataError(f"{where}: label of recording {i} is {array[i]}; must be 0..{classes - 1}")
    return array.astype(np.int64)


def as_recording(events: np.ndarray, sensor_size: tuple[int, int, int], where: str) -> np.ndarray:
    """Return `events` as a recording of dtype `EVENT_DTYPE` in order of time, or say what is wrong with it.

    Raises
    ------
    DataError
        If there are no events, or fields are missing, not integer or out of the sensor's range.
    """
    fields = getattr(events, "dtype", np.dtype(float)).names or ()
    missing = [field for field in EVENT_DTYPE.names or () if field not in fields]
    if missing:
        raise DataError(f"{where}: no field {', '.join(missing)}; must be a structured array with fields x, y, t, p")
    if len(events) == 0:
        raise DataError(f"{where}: no events; a recording must have at least one")
    recording = np.empty(len(events), dtype=EVENT_DTYPE)
    for field, limit in zip(("x", "y", "p", "t"), (*sensor_size, None), strict=True):
        values = events[field]
        if values.dtype.kind not in "iub":
            unit = " of microseconds" if field == "t" else ""
            raise DataError(f"{where}: {field} is of type {values.dtype}; must be whole numbers{unit}")
        low, high = int(values.min()), int(values.max())
        if low < 0 or (limit is not None and high >= limit):
            allowed = "0 or later" if limit is None else f"0..{limit - 1}"
            raise DataError(f"{where}: {field} is {low if low < 0 else high}; must be {allowed}")
        recording[field] = values
    if np.any(np.diff(recording["t"]) < 0):
        recording = recording[np.argsort(recording["t"], kind="stable")]
    return recording


def picture(recording: np.ndarray, sensor_size: tuple[int, int, int]) -> np.ndarray:
    """Return the events of a recording, or of a part of one, as a picture to look at.

    Parameters
    ----------
    recording : numpy.ndarray
        Events with fields x, y, p.
    sensor_size : tuple of int
        (W, H, P).

    Returns
    -------
    numpy.ndarray
        (H, W, 3) uint8, RGB: white where nothing happened, the more ON events the more red, OFF blue.
    """
    width, height, _ = sensor_size
    place = recording["p"].astype(np.intp) * height * width + recording["y"].astype(np.intp) * width + recording["x"]
    counts = np.bincount(place, minlength=2 * height * width).reshape(2, height, width, 1)
    off, on = counts / max(int(counts.max()), 1)
    # Each polarity takes away the light of the other colours, as ink does.
    light = (1 - on * (1 - np.array([214, 40, 40]) / 255)) * (1 - off * (1 - np.array([29, 78, 216]) / 255))
    rgb: np.ndarray = np.round(255 * light).astype(np.uint8)
    return rgb
