"""``cifar10-dvs``: CIFAR10-DVS, 10,000 recordings of moving pictures by a DVS128 (Li et al., Front. Neurosci. 2017).

The original is AEDAT 2.0, which tonic 1.7.0 cannot read (``tonic.io.read_dvs_128`` fails on every file); tonic's own
copy is AEDAT 4, which is read here as all ``.aedat4`` files are, since the reader that tonic calls ends the process on
damaged ones. The tests compare the two.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from netx_export.reading import opened

from .cifar10 import CLASSES
from .dataset import DataError, Dataset
from .files import read_file
from .stored import in_folders, in_window, located

SENSOR_SIZE = (128, 128, 2)
DURATION = 1_300_000
"""Microseconds from a recording's first event on: about as long as recordings are. What comes later is left out."""

_EXPECTED = (
    "CIFAR10DVS/<class>/*.aedat4 (tonic's) or *.aedat (the original), unpacked from "
    "https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671"
)
_PATTERNS = ("CIFAR10DVS/*/*.aedat4", "CIFAR10DVS/*/*.aedat", "*/*.aedat4", "*/*.aedat")
_SPECIAL = 100  # one event in so many may be no event of a pixel


def open_split(split: str, root: str | os.PathLike[str] | None, seed: int, cache: Path | None) -> Dataset:
    """Open CIFAR10-DVS: of each class nine tenths train and one tests, which ones is settled by `seed`.

    `root` holds ``CIFAR10DVS/<class>/*.aedat4`` (tonic's copy, which needs the extra ``recordings``) or
    ``CIFAR10DVS/<class>/*.aedat`` (the original), or is itself the folder of the classes; any number of recordings.
    """
    paths = located("cifar10-dvs", root, _PATTERNS, _EXPECTED)
    return in_folders("cifar10-dvs", paths, CLASSES, _read, SENSOR_SIZE, DURATION, split, seed, cache)


def _read(path: Path) -> np.ndarray:
    events = _aedat2(path) if path.suffix == ".aedat" else read_file(path)
    return in_window(events, SENSOR_SIZE, str(path), DURATION, start="first-event")


def _aedat2(path: Path) -> np.ndarray:
    """Return the events of an AEDAT 2.0 file of a DVS128: big-endian pairs of an address and microseconds.

    The address holds, from the lowest bit on, polarity (0 is ON), 7 bits of the column and 7 of the row as the chip
    counts them. The camera lay on its side: as others who use this data set do, turned so that pictures are upright.
    """
    with opened(path, DataError) as file:
        raw = file.read()
    if not raw.startswith(b"#!AER-DAT2"):
        raise DataError(f"{path}: does not start with #!AER-DAT2.0; must be an AEDAT 2.0 file")
    at = 0
    while raw[at : at + 1] == b"#":
        at = raw.find(b"\n", at) + 1 or len(raw)
    if at == len(raw) or (len(raw) - at) % 8:
        raise DataError(
            f"{path}: {len(raw) - at} bytes after the header; must be a whole number of 8-byte events, at least one: "
            "the file is damaged, take it from the archive again"
        )
    address, t = np.frombuffer(raw, ">u4", offset=at).reshape(-1, 2).astype(np.int64).T
    pixel = address < 1 << 15  # others are marks of the camera
    if np.count_nonzero(~pixel) * _SPECIAL > len(pixel):
        raise DataError(f"{path}: an address is {address.max()}; must be below {1 << 15}, those of a DVS128")
    address, t = address[pixel], t[pixel]
    events = np.empty(len(t), [("x", np.int64), ("y", np.int64), ("t", np.int64), ("p", np.int64)])
    events["x"], events["y"] = 127 - (address >> 8), 127 - (address >> 1 & 127)
    events["t"], events["p"] = t, 1 - (address & 1)
    return events
