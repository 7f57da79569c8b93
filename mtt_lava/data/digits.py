"""``digits-dvs``: scikit-learn's handwritten digits seen by a simulated event camera.

The 1,797 digits of `sklearn.datasets.load_digits` (8 x 8 pixels, 17 grey levels) are shown, on black and enlarged
2.5 times, to a 34 x 34 pixel event camera; see `mtt_lava.data.camera`.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from .cache import cache_folder, cached, digest
from .camera import DURATION, VERSION, Camera, Recordings, packed, record
from .dataset import DataError, Dataset, check_seed

SENSOR_SIZE = (34, 34, 2)
TRAIN = 1500
"""The first 1,500 digits train, the last 297 test. scikit-learn keeps the order of the source, in which digits of
one writer follow each other: the test digits are mostly by other hands."""


def load() -> tuple[np.ndarray, np.ndarray]:
    """Return the digits, (1797, 8, 8) in 0..1, and their labels, (1797,)."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return (digits.images / 16).astype(np.float32), digits.target.astype(np.int64)


def open_split(split: str, root: str | os.PathLike[str] | None, seed: int, cache: Path | None) -> Dataset:
    """Open ``digits-dvs``; the recordings are simulated once (seconds) and kept in the cache."""
    if root is not None:
        raise DataError("digits-dvs is built in and takes no root; leave it out")
    seed = check_seed(seed)
    images, labels = load()
    indices = range(TRAIN) if split == "train" else range(TRAIN, len(images))
    fingerprint = digest("digits-dvs", VERSION, split, seed, Camera())
    path = (cache or cache_folder()) / "digits-dvs" / f"{split}-seed{seed}-{fingerprint}.npz"
    events, ends = cached(
        path,
        ("events", "ends"),
        lambda: packed(record(images, indices, seed=seed, sensor=SENSOR_SIZE[:2], name="digits-dvs")),
    )
    return Dataset(
        name="digits-dvs",
        split=split,
        sensor_size=SENSOR_SIZE,
        classes=tuple(str(digit) for digit in range(10)),
        events=Recordings(events, ends, fingerprint=fingerprint),
        labels=labels[indices.start : indices.stop],
        duration=DURATION,
        cache=cache,
    )
