"""``cifar10-camera``: CIFAR-10's photographs seen by a simulated event camera. Simulated, not recorded.

A grey image (0.299 R + 0.587 G + 0.114 B) of 32 x 32 pixels is shown to a camera of 32 x 32 pixels, one on one; see
`mtt_lava.data.camera`. What the saccades bring into sight beyond the image's border is its outermost pixels again:
a black border would be the strongest contour of all.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from netx_export.reading import read_npz

from .cache import cache_folder, cached, digest
from .camera import DURATION, VERSION, Camera, Recordings, packed, record
from .dataset import DataError, Dataset, as_labels

SENSOR_SIZE = (32, 32, 2)
CAMERA = Camera(pitch=1.0)
"""The camera of ``digits-dvs`` otherwise. Of the first 2,000 train images it gives 4,100 events a recording, 1,700 to
6,800 for the middle nine tenths; N-MNIST has 3,900 on 34 x 34 pixels."""
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""What the labels mean where the files do not say."""

_BLOCK = 500  # recordings simulated, and kept on disk, together
_HELD = 8  # blocks in memory: some 15 MB each
_FIRST = {"train": 0, "test": 1 << 20}  # the noise of a test recording is that of no train recording
_EXPECTED = (
    "train*.npz and test*.npz with arrays x, (N, 32, 32, 3) or (N, 32, 32) uint8, and y, (N,) integers "
    "(torchvision's cifar-10-batches-py is pickled, and pickles are not read)"
)


class _Simulated(Sequence[np.ndarray]):
    """Recordings of `images`, (N, 32, 32) in 0..1, simulated in blocks when asked for."""

    def __init__(self, images: np.ndarray, split: str, seed: int, folder: Path) -> None:
        content = hashlib.sha256(images.tobytes()).hexdigest()
        self.fingerprint = digest("cifar10-camera", VERSION, split, seed, CAMERA, content)
        self._images = images

        def block(start: int) -> Recordings:
            part = images[start : start + _BLOCK]
            first = _FIRST[split] + start
            content = hashlib.sha256(part.tobytes()).hexdigest()
            path = folder / f"{split}-{start}-seed{seed}-{digest(VERSION, CAMERA, seed, first, content)}.npz"
            return Recordings(
                *cached(
                    path,
                    ("events", "ends"),
                    lambda: packed(
                        record(
                            part,
                            range(len(part)),
                            seed=seed,
                            sensor=SENSOR_SIZE[:2],
                            camera=CAMERA,
                            border="edge",
                            first=first,
                            name="cifar10-camera",
                        )
                    ),
                )
            )

        self._block = functools.lru_cache(_HELD)(block)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        start, place = divmod(range(len(self))[index], _BLOCK)
        return self._block(start * _BLOCK)[place]


def open_cifar10(split: str, root: str | os.PathLike[str] | None, seed: int, cache: Path | None) -> Dataset:
    """Open ``cifar10-camera``; recordings are simulated in blocks of 500 when asked for and kept in the cache."""
    if root is None:
        raise DataError(f"cifar10-camera: no root; pass as root the folder that holds {_EXPECTED}")
    root = Path(root).expanduser()
    paths = sorted(path for path in root.glob(f"{split}*.npz") if path.is_file())
    if not paths:
        raise DataError(f"{root}: no {split}*.npz; must be a folder that holds {_EXPECTED}")
    parts = [_load(path) for path in paths]
    images = np.concatenate([images for images, _, _ in parts])
    names = {classes for _, _, classes in parts if classes}
    if len(names) > 1:
        raise DataError(f"{root}: the {split}*.npz differ in classes; they must be of one data set")
    classes = names.pop() if names else CLASSES
    labels = np.concatenate(
        [as_labels(y, len(x), len(classes), where=str(path)) for path, (x, y, _) in zip(paths, parts, strict=True)]
    )
    return Dataset(
        name="cifar10-camera",
        split=split,
        sensor_size=SENSOR_SIZE,
        classes=classes,
        events=_Simulated(images, split, seed, (cache or cache_folder()) / "cifar10-camera"),
        labels=labels,
        duration=DURATION,
        cache=cache,
    )


def _load(path: Path) -> tuple[np.ndarray, list[int], tuple[str, ...]]:
    """Return a file's images as grey, float32 in 0..1, its labels, and its classes if it names them."""
    stored = read_npz(path, DataError, ("x", "y", "classes"))
    missing = [name for name in ("x", "y") if name not in stored]
    if missing:
        raise DataError(f"{path}: no array {', '.join(missing)}; must hold x and y")
    x, y = stored["x"], np.atleast_1d(stored["y"]).tolist()
    classes = tuple(map(str, np.atleast_1d(stored["classes"]))) if "classes" in stored else ()
    if x.dtype != np.uint8 or x.shape[1:] not in ((32, 32), (32, 32, 3)):
        raise DataError(f"{path}: x of type {x.dtype}, shape {x.shape}; must be uint8, (N, 32, 32, 3) or (N, 32, 32)")
    if x.ndim == 4:
        # In whole numbers, so that the images are the same on every machine.
        grey = (x @ np.array([299, 587, 114], dtype=np.int32)).astype(np.float32) / np.float32(255_000)
    else:
        grey = x.astype(np.float32) / np.float32(255)
    return grey, y, classes
