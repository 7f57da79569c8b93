"""``dvs-gesture``: DVS128 Gesture, 11 gestures of 29 people in three lights (Amir et al., CVPR 2017).

Read as published, ``.aedat`` files that hold a person's gestures one after the other, with a table of when each
starts; or as cut by tonic, a ``.npy`` file a gesture, times in milliseconds.

The window is the first 6 s of a gesture, about as long as one lasts, from its first event on; what comes later (of
those that go on for longer) is left out, rather than heaped up in the last frame. The paper bins this data into
T = 40 frames, here of 150 ms each. Its "radius 39" is taken for how far the number of time steps of a stage may lie
from 40 in training, 1 .. 40, and so for no property of the data.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from netx_export.reading import opened, read_npy, read_text

from .cache import digest
from .dataset import DataError, Dataset, as_labels
from .stored import Stored, in_window, located, stamp

SENSOR_SIZE = (128, 128, 2)
DURATION = 6_000_000
CLASSES = (
    "Hand clapping",
    "Right hand wave",
    "Left hand wave",
    "Right arm cw",
    "Right arm ccw",
    "Left arm cw",
    "Left arm ccw",
    "Arm roll",
    "Air drums",
    "Air guitar",
    "Other gestures",
)
"""As tonic calls them; cw is clockwise. The published tables count them from 1."""

_EXPECTED = (
    "DvsGesture/trials_to_{0}.txt and the files it names, of http://research.ibm.com/dvsgesture, or "
    "tonic's DVSGesture/ibmGesture{1}/<user>/<label>.npy"
)
_HEADER = struct.Struct("<2h6i")  # of a packet of AEDAT 3.1
_HEADER_END = b"#!END-HEADER\r\n"
_LONGEST_HEADER = 1 << 16  # bytes
_POLARITY = 1  # packets of events of pixels


class _Gesture(NamedTuple):
    """Where a gesture lies: its file, and from when to when (us; None: all of it)."""

    path: Path
    start: int | None = None
    end: int | None = None


def open_split(split: str, root: str | os.PathLike[str] | None, _: int, cache: Path | None) -> Dataset:
    """Open DVS128 Gesture in its published split, by people; it leaves nothing to a seed.

    `root` holds ``DVSGesture/ibmGestureTrain/<user>/<label>.npy`` (``ibmGestureTest``), as tonic cuts it, or
    ``DvsGesture/trials_to_train.txt`` (``trials_to_test.txt``) with the files it names and their tables; or is itself
    the folder ``DVSGesture`` or ``DvsGesture``.
    """
    cut, listed = f"ibmGesture{split.title()}/*/*.npy", f"trials_to_{split}.txt"
    patterns = (f"DVSGesture/{cut}", cut, f"DvsGesture/{listed}", listed)
    found = located("dvs-gesture", root, patterns, _EXPECTED.format(split, split.title()))
    if found[0].suffix == ".npy":
        labelled = [(_Gesture(path), _label(path.stem, path, 0)) for path in found]
    else:
        labelled = [each for path in _listed(found[0]) for each in _table(path)]
    places = [gesture for gesture, _ in labelled]
    labels = as_labels([label for _, label in labelled], len(places), len(CLASSES), where=str(found[0]))
    stamps = {path: stamp(path) for path in {gesture.path for gesture in places}}
    return Dataset(
        name="dvs-gesture",
        split=split,
        sensor_size=SENSOR_SIZE,
        classes=CLASSES,
        events=Stored(places, _read, digest(*((*stamps[path], start, end) for path, start, end in places))),
        labels=labels,
        duration=DURATION,
        cache=cache,
    )


def _label(text: str, path: Path, first: int) -> int:
    """Return a label, counted from 0, that a file counts from `first`."""
    if not text.isascii() or not text.isdigit() or not first <= int(text[:9]) < first + len(CLASSES):
        raise DataError(f"{path}: its gesture is {text[:20]!r}; must be {first}..{first + len(CLASSES) - 1}")
    return int(text) - first


def _listed(path: Path) -> list[Path]:
    """Return the files of recordings that a list names."""
    names = [line.strip() for line in read_text(path, DataError).splitlines() if line.strip()]
    stray = next((name for name in names if Path(name).name != name or not name.endswith(".aedat")), None)
    if stray is not None or not names:
        raise DataError(f"{path}: names {stray or 'no files'!r:.60}; must name .aedat files beside it, one a line")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}: names {twice:.60} twice; must name each once")
    return [path.with_name(name) for name in names]


def _table(path: Path) -> list[tuple[_Gesture, int]]:
    """Return the gestures of a recording, and their labels, as its table has them."""
    table = path.with_name(f"{path.stem}_labels.csv")
    found = []
    for line in read_text(table, DataError).splitlines()[1:]:
        words = [word.strip() for word in line.split(",")]
        if words == [""]:
            continue
        if len(words) != 3 or not all(word.isascii() and word.isdigit() and len(word) < 16 for word in words):
            raise DataError(f"{table}: a line is {line[:60]!r}; must be class,startTime_usec,endTime_usec in numbers")
        start, end = int(words[1]), int(words[2])
        if start >= end:
            raise DataError(f"{table}: a gesture lasts from {start} to {end} us; must end later than it starts")
        found.append((_Gesture(path, start, end), _label(words[0], table, 1)))
    if not found:
        raise DataError(f"{table}: no gestures; must have lines class,startTime_usec,endTime_usec after the first")
    return found


def _read(gesture: _Gesture) -> np.ndarray:
    path, start, end = gesture
    if start is None or end is None:
        return in_window(read_npy(path, DataError), SENSOR_SIZE, str(path), DURATION, "first-event", "ms", "xypt")
    return in_window(_aedat3(path, start, end), SENSOR_SIZE, f"{path} from {start} us", DURATION, "first-event")


def _aedat3(path: Path, start: int, end: int) -> np.ndarray:
    """Return the events from `start` to before `end` (us) of an AEDAT 3.1 file, without reading the others.

    After a header of text, packets: type, source, bytes of an event, where in it the time is, how often the counter of
    the time ran over, and three numbers of events: there is room for, used, valid. Packets are in order of time.
    """
    parts = [np.empty((0, 2), np.int64)]
    with opened(path, DataError) as file:
        if not file.readline(64).startswith(b"#!AER-DAT3.1"):
            raise DataError(f"{path}: does not start with #!AER-DAT3.1; must be an AEDAT 3.1 file")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
            at = raw.find(_HEADER_END, 0, _LONGEST_HEADER) + len(_HEADER_END)
            if at < len(_HEADER_END):
                raise DataError(f"{path}: its header has no end; must be an AEDAT 3.1 file")
            while at < len(raw):
                kind, size, ran_over, room, used = _packet(raw, at, path)
                body = at + _HEADER.size
                at = body + size * room
                if kind != _POLARITY or used == 0:
                    continue
                offset = ran_over << 31
                (first,), (last,) = (struct.unpack_from("<I", raw, body + 8 * i + 4) for i in (0, used - 1))
                if offset + first >= end:
                    break
                if offset + last >= start:
                    words = np.frombuffer(raw[body : body + 8 * used], "<u4").astype(np.int64).reshape(-1, 2)
                    words[:, 1] += offset
                    parts.append(words)
    words = np.concatenate(parts)
    words = words[(words[:, 1] >= start) & (words[:, 1] < end) & (words[:, 0] & 1 == 1)]
    events = np.empty(len(words), [("x", np.int64), ("y", np.int64), ("t", np.int64), ("p", np.int64)])
    data, events["t"] = words.T
    events["x"], events["y"], events["p"] = data >> 17, data >> 2 & 0x7FFF, data >> 1 & 1
    return events


def _packet(raw: mmap.mmap, at: int, path: Path) -> tuple[int, int, int, int, int]:
    """Return type, bytes of an event, overflows of the time, room and used events of the packet at a byte."""
    there = len(raw) - at - _HEADER.size
    if there >= 0:
        kind, _, size, _, ran_over, room, used, _ = _HEADER.unpack_from(raw, at)
        fits = size > 0 and 0 <= used <= room and size * room <= there and ran_over >= 0
        if fits and (kind != _POLARITY or size == 8):
            return kind, size, ran_over, room, used
    raise DataError(f"{path}: no whole packet at byte {at} of {len(raw)}: the file is damaged, get it again")
