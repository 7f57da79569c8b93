"""``n-caltech101``: N-Caltech101, 8,709 recordings of pictures on a screen (Orchard et al., Front. Neurosci. 2015).

Recordings differ in size. As in ``tonic.datasets.NCALTECH101``, each is moved to the left and to the top, so that its
first column and row are 0; it stays in a sensor of 240 x 180 pixels, which all fit.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from .dataset import Dataset
from .events import as_recording
from .files import read_file
from .stored import in_folders, in_window, located

SENSOR_SIZE = (240, 180, 2)
DURATION = 315_000
"""Microseconds: three saccades of 105 ms, as of N-MNIST, by the same camera. What comes later is left out."""

_EXPECTED = (
    "Caltech101/<class>/*.bin, unpacked from Caltech101.zip of https://www.garrickorchard.com/datasets/n-caltech101"
)
_PATTERNS = ("NCALTECH101/Caltech101/*/*.bin", "Caltech101/*/*.bin", "*/*.bin")


def open_split(split: str, root: str | os.PathLike[str] | None, seed: int, cache: Path | None) -> Dataset:
    """Open N-Caltech101: of each class nine tenths train and one tests, which ones is settled by `seed`.

    `root` holds ``NCALTECH101/Caltech101/<class>/*.bin`` or ``Caltech101/<class>/*.bin``, or is itself the folder of
    the classes. The classes are the folders that are there, 101 if all are.
    """
    paths = located("n-caltech101", root, _PATTERNS, _EXPECTED)
    classes = tuple(sorted({path.parent.name for path in paths}))
    return in_folders("n-caltech101", paths, classes, _read, SENSOR_SIZE, DURATION, split, seed, cache)


def _read(path: Path) -> np.ndarray:
    # A byte holds columns and rows to 255; those beyond the sensor are refused, before they are moved.
    events = as_recording(read_file(path), SENSOR_SIZE, str(path))
    for name in ("x", "y"):
        events[name] -= events[name].min()
    return in_window(events, SENSOR_SIZE, str(path), DURATION)
