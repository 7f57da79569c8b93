"""What the data sets in files share: where they lie, and recordings that are read when asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .cache import digest
from .dataset import Dataset, as_labels
from .events import Clock, DataError, Start, Unit, as_recording
from .parts import split as split_off

HELD_OUT = 0.1
"""Share of the recordings of each class that test, where a data set is published without a split."""


class Stored(Sequence[np.ndarray]):
    """Recordings that `read` reads from their places when asked for; none is held.

    Parameters
    ----------
    places : sequence
        What `read` is called with, one a recording: paths, or numbers.
    read : callable
        Returns a recording, dtype `EVENT_DTYPE`.
    fingerprint : str
        Another one where the recordings are others.
    keep : object
        Has to last as long as the recordings are needed, such as a temporary folder.
    """

    def __init__(
        self, places: Sequence[Any], read: Callable[[Any], np.ndarray], fingerprint: str, keep: object = None
    ) -> None:
        self.fingerprint = fingerprint
        self._places = places
        self._read = read
        self._keep = keep

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self._read(place) for place in self._places[index]]
        return self._read(self._places[index])


@dataclass(frozen=True)
class _Published(Clock):
    """The clock of a published data set, whose recordings may be shorter or longer than the window."""

    def microseconds(self, t: np.ndarray, where: str) -> np.ndarray:
        return self.convert(t, where)[0]


def stamp(path: str | os.PathLike[str]) -> tuple[str, int, int]:
    """Return what tells one state of a file from another without reading it."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    return os.path.abspath(path), status.st_size, status.st_mtime_ns


def located(name: str, root: str | os.PathLike[str] | None, patterns: Sequence[str], expected: str) -> list[Path]:
    """Return the files in `root` of the first of `patterns` that has any, in order of their names.

    Raises
    ------
    DataError
        Says what was expected, if there is none.
    """
    if root is None:
        raise DataError(f"{name}: no root; pass as root the folder that holds {expected}")
    folder = Path(root).expanduser()
    for pattern in patterns:
        if found := sorted(path for path in folder.glob(pattern) if path.is_file()):
            return found
    raise DataError(f"{name}: {folder} must hold {expected}")


def in_window(
    events: np.ndarray,
    sensor_size: tuple[int, int, int],
    where: str,
    duration: int,
    start: Start = 0,
    unit: Unit = "us",
    columns: str | None = None,
) -> np.ndarray:
    """Return as a recording what of `events` lies in 0 <= t < duration; see `mtt_lava.data.from_events`.

    Raises
    ------
    DataError
        If the events are no recording (see `mtt_lava.data.events.as_recording`), or none is in the window.
    """
    clock = _Published(duration, start, unit, unwrap=True)
    recording = as_recording(events, sensor_size, where, clock, columns)
    first = int(recording["t"][0])
    if first >= duration:
        raise DataError(f"{where}: its first event is at {first} us; must be in the window of {duration} us")
    if sensor_size[2] == 1:
        recording["p"] = False
    inside: np.ndarray = recording[: np.searchsorted(recording["t"], duration)]
    return inside


def in_folders(
    name: str,
    paths: Sequence[Path],
    classes: tuple[str, ...],
    read: Callable[[Path], np.ndarray],
    sensor_size: tuple[int, int, int],
    duration: int,
    split: str,
    seed: int,
    cache: Path | None,
) -> Dataset:
    """Return one split of recordings that lie in a folder for each class and are published without a split.

    Of each class a tenth (`HELD_OUT`, rounded), chosen by `seed`, is the test split, the others train.
    """
    stray = next((path for path in paths if path.parent.name not in classes), None)
    if stray is not None:
        raise DataError(f"{stray}: must be in a folder named for its class: {', '.join(classes)[:80]}")
    number = {each: label for label, each in enumerate(classes)}
    whole = Dataset(
        name=name,
        split=split,
        sensor_size=sensor_size,
        classes=classes,
        events=Stored(paths, read, digest(*map(stamp, paths))),
        labels=as_labels([number[path.parent.name] for path in paths], len(paths), len(classes), where=name),
        duration=duration,
        cache=cache,
    )
    rest, held = split_off(whole, HELD_OUT, seed=seed)
    return rest if split == "train" else held
