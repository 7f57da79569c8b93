"""What a data set of events is, and how to make one of your own recordings."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from netx_export.text import short, unknown

from .events import (
    EVENT_DTYPE,
    Clock,
    DataError,
    Start,
    Unit,
    as_duration,
    as_recording,
    as_sensor_size,
    check_columns,
)

__all__ = ["EVENT_DTYPE", "DataError", "Dataset", "from_events", "from_images", "from_tonic", "picture"]

SPLITS = ("train", "test")
_MOST_CLASSES = 1 << 16
_HASHED = 1 << 12  # images, or events, made bytes of at once


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
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
        Recording i, dtype `EVENT_DTYPE`, in order of time. May be read from disk when asked for; such a sequence
        had better have a `fingerprint` of its own, a string, or all is read to make one. Of a static data set:
        image i, (P, H, W).
    labels : numpy.ndarray
        (N,) int64.
    duration : int
        Microseconds. The recording window is 0 <= t < duration and the same for every recording of the data set, so
        that a time step means the same everywhere. Later events are counted as if they came at its very end.
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
    static: bool = False
    cache: Path | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        what = "images" if self.static else f"recordings of {self.duration:,} us"
        size = " x ".join(map(str, self.sensor_size))
        return f"<Dataset {self.name} {self.split}: {len(self):,} {what}, {size}, {len(self.classes)} classes>"

    @property
    def fingerprint(self) -> str:
        """What the events are told apart by: derived data is cached under it."""
        # Of the events as they are now: a stored one would outlive dataclasses.replace, and changes in place.
        return fingerprint_of(self.events)


def from_events(
    recordings: Iterable[np.ndarray],
    labels: Iterable[int],
    *,
    sensor_size: tuple[int, int, int],
    duration: int,
    classes: int | Sequence[str],
    start: Start = 0,
    unit: Unit = "us",
    unwrap: bool | int = False,
    columns: str | None = None,
    name: str = "events",
    split: str = "train",
    cache: Path | None = None,
) -> Dataset:
    """Make a data set of recordings in memory.

    Parameters
    ----------
    recordings : iterable of numpy.ndarray
        Structured arrays with fields x, y, t and p (0 and 1, or -1 and 1), as tonic has them, or by their usual
        other names, such as ``on`` for p; or (N, 4) with `columns`. At least one event each. Put in order of time
        where they are not. Times are of any integer type, of a type with a unit (which then counts), or, in seconds
        or milliseconds, floats.
    labels : iterable of int
        One a recording, 0 .. number of classes - 1.
    sensor_size : tuple of int
        (W, H, P), P 1 or 2, the same for all recordings.
    duration : int
        Microseconds of the recording window, see `Dataset`; or a timedelta. Give train and test split the same.
    classes : int or sequence of str
        The classes' names, or how many there are.
    start : "first-event" or 0
        Where a recording's window starts: with its first event, whatever its time, or at time 0.
    unit : {"us", "ns", "ms", "s"}
        Of the recordings' times.
    unwrap : bool or int
        Read on where a counter of 32 or 31 bits ran over (or of so many bits); else such recordings are refused.
    columns : str, optional
        What the columns of (N, 4) arrays are, such as "txyp".
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
        Says which recording, which field, the value and what is allowed. So it does where more than 1 % of a
        recording's events come after the window, or all (of five or more) in under 5 % of it: its times then are in
        another unit, or do not start at 0. And where all recordings lie in a corner of the sensor.
    """
    check_name(name)
    named = ((f"{name}: recording {i}", each) for i, each in enumerate(as_list(recordings, name, "recordings")))
    clock = Clock(as_duration(duration, name), start, unit, unwrap)
    return from_named(named, labels, sensor_size, clock, columns, classes, name, split, cache)


def from_named(
    recordings: Iterable[tuple[str, Any]],
    labels: Iterable[int],
    sensor_size: tuple[int, int, int],
    clock: Clock,
    columns: str | None,
    classes: int | Sequence[str],
    name: str,
    split: str,
    cache: Path | None,
) -> Dataset:
    """Make a data set of recordings in memory, each with what to call it in messages; see `from_events`."""
    check_split(split)
    sensor_size = as_sensor_size(sensor_size, name)
    clock.check(name)
    check_columns(columns, name)
    names = as_classes(classes, name)
    events = [as_recording(recording, sensor_size, where, clock, columns) for where, recording in recordings]
    label_array = as_labels(as_list(labels, name, "labels"), len(events), len(names), where=name)
    if sensor_size[2] == 1:
        events = _one_polarity(events, name)
    _check_corner(events, sensor_size, name)
    return Dataset(
        name=name,
        split=split,
        sensor_size=sensor_size,
        classes=names,
        events=events,
        labels=label_array,
        duration=clock.duration,
        cache=cache,
    )


def _one_polarity(events: list[np.ndarray], name: str) -> list[np.ndarray]:
    """Return recordings of a sensor that has one polarity, whichever it is called, with p 0."""
    for i, recording in enumerate(events):
        other = np.flatnonzero(recording["p"] != events[0]["p"][0])
        if len(other):
            raise DataError(
                f"{name}: recording {i}: p is {int(recording['p'][other[0]])}, and it is "
                f"{int(events[0]['p'][0])} in recording 0; sensor_size has one polarity: pass two, "
                "or set p to 0 to count both as one"
            )
    for recording in events:
        recording["p"] = False
    return events


def _check_corner(events: list[np.ndarray], sensor_size: tuple[int, int, int], name: str) -> None:
    """Refuse recordings that were cropped or made smaller, and would be a picture in a corner."""
    width, height, polarities = sensor_size
    if sum(map(len, events)) < width * height:
        return
    columns = 1 + max(int(recording["x"].max()) for recording in events)
    rows = 1 + max(int(recording["y"].max()) for recording in events)
    if 2 * columns <= width and 2 * rows <= height:
        raise DataError(
            f"{name}: all recordings lie in columns 0..{columns - 1} and rows 0..{rows - 1} of {width} x {height}: "
            f"pass the sensor_size that they were cropped to, such as ({columns}, {rows}, {polarities})"
        )


def from_tonic(
    dataset: Any,
    *,
    duration: int,
    split: str = "train",
    classes: int | Sequence[str] | None = None,
    sensor_size: tuple[int, int, int] | None = None,
    start: Start = 0,
    unit: Unit = "us",
    unwrap: bool | int = False,
    columns: str | None = None,
    name: str | None = None,
    cache: Path | None = None,
) -> Dataset:
    """Make a data set of one of tonic's, or of anything else that yields (events, label).

    All of it is read into memory (13 bytes an event). Parameters as in `from_events`; `classes` and `sensor_size`
    default to what the data set itself says. After a transform that crops or downsamples, pass the size it leaves.

    Examples
    --------
    >>> from_tonic(tonic.datasets.POKERDVS("data"), duration=30_000)  # doctest: +SKIP
    """
    name = name or type(dataset).__name__.lower()
    classes = classes if classes is not None else getattr(dataset, "classes", None)
    if classes is None:
        raise DataError(f"{name}: does not say what its classes are; pass classes=, their names or their number")
    if sensor_size is None:
        resizing = [each for each in _transforms(dataset) if _resizes(each)]
        if resizing:
            raise DataError(
                f"{name}: its transform {type(resizing[0]).__name__} changes the size; "
                "pass sensor_size=(columns, rows, polarities) as it leaves them"
            )
        sensor_size = as_sensor_size(getattr(dataset, "sensor_size", None), name)
    events, labels = [], []
    for i in range(len(dataset)):
        try:
            recording, label = dataset[i]
        except (TypeError, ValueError) as error:
            raise DataError(f"{name}: recording {i} is no pair of events and label ({error})") from None
        events.append(recording)
        labels.append(label)
    return from_events(
        events,
        labels,
        sensor_size=sensor_size,
        duration=duration,
        classes=classes,
        start=start,
        unit=unit,
        unwrap=unwrap,
        columns=columns,
        name=name,
        split=split,
        cache=cache,
    )


def _transforms(dataset: Any) -> list[Any]:
    found = [each for name in ("transform", "transforms") if (each := getattr(dataset, name, None)) is not None]
    for each in found:  # grows while it is read: tonic's Compose holds others
        if isinstance(each, Sequence):
            found += each
        elif isinstance(inner := getattr(each, "transforms", None), Sequence):
            found += inner
    return found


def _resizes(transform: Any) -> bool:
    """Whether a transform of tonic's moves events to a sensor of another size."""
    factor = getattr(transform, "spatial_factor", 1)
    sizes = [getattr(transform, name, None) for name in ("size", "target_size")]
    return sizes != [None, None] or np.any(np.asarray(factor) != 1).item()


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
    check_name(name)
    if not isinstance(images, np.ndarray) or isinstance(images, np.ma.MaskedArray):
        raise DataError(f"{name}: images are a {type(images).__name__}; must be an array, such as numpy.stack makes")
    if images.ndim != 4 or images.dtype.kind not in "iu" or 0 in images.shape or images.min() < 0:
        raise DataError(
            f"{name}: images of type {images.dtype}, shape {images.shape}; "
            "must be integers from 0 on, (samples, channels, height, width)"
        )
    names = as_classes(classes, name)
    _, channels, height, width = images.shape
    return Dataset(
        name=name,
        split=split,
        sensor_size=(width, height, channels),
        classes=names,
        events=images,  # type: ignore[arg-type]
        labels=as_labels(as_list(labels, name, "labels"), len(images), len(names), where=name),
        duration=1,
        static=True,
    )


def fingerprint_of(events: Sequence[np.ndarray]) -> str:
    """Return the fingerprint that a sequence of recordings has, or else one of all that is in it."""
    known = getattr(events, "fingerprint", None)
    if isinstance(known, str):
        return known
    content = hashlib.sha256()
    for recording in [events] if isinstance(events, np.ndarray) else events:
        recording = np.atleast_1d(recording)
        content.update(f"{recording.dtype} {recording.shape} ".encode())
        for start in range(0, len(recording), _HASHED):  # without a copy of all
            content.update(np.ascontiguousarray(recording[start : start + _HASHED]).tobytes())
    return content.hexdigest()


def check_name(name: str) -> None:
    """Raise `DataError` unless `name` is a text."""
    if not isinstance(name, str) or not name:
        raise DataError(f"name is {short(name)}; must be a text")


def as_list(values: Any, where: str, what: str) -> list[Any]:
    """Return what an iterable holds, or raise `DataError`."""
    if isinstance(values, np.ma.MaskedArray):
        raise DataError(f"{where}: {what} are a masked array; must be a plain one")
    try:
        return list(values)
    except TypeError:
        raise DataError(f"{where}: {what} are {short(values)}; must be a list or another iterable") from None


def check_split(split: str) -> None:
    """Raise `DataError` unless `split` is one."""
    if split not in SPLITS:
        raise DataError(unknown("split", split, SPLITS))


def check_seed(seed: int) -> int:
    """Return `seed` as Python has it, or raise `DataError` unless it is one."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise DataError(f"seed is {seed!r}; must be a whole number, 0 or more")
    return int(seed)


def as_classes(classes: Any, where: str) -> tuple[str, ...]:
    """Return the classes' names, or raise `DataError`; a mapping of names to labels, as tonic has some, is taken."""
    if isinstance(classes, int | np.integer) and not isinstance(classes, bool) and 1 <= classes <= _MOST_CLASSES:
        return tuple(map(str, range(classes)))
    if isinstance(classes, Mapping) and sorted(classes.values(), key=str) == sorted(range(len(classes)), key=str):
        classes = sorted(classes, key=classes.__getitem__)
    if not isinstance(classes, Sequence | np.ndarray) or isinstance(classes, str | bytes) or len(classes) == 0:
        raise DataError(f"{where}: classes is {str(classes)[:60]!r}; must be their names, or their number, at least 1")
    return tuple(name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in classes)


def as_labels(labels: Sequence[int], recordings: int, classes: int, where: str) -> np.ndarray:
    """Return `labels` as an int64 array, or say what is wrong with them."""
    try:
        array = np.asarray(labels)
    except ValueError:
        raise DataError(f"{where}: labels differ in shape; must be one integer a recording") from None
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
