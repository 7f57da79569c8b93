"""``cifar10-camera``: CIFAR-10's photographs seen by a simulated event camera. Simulated, not recorded.

A grey image (0.299 R + 0.587 G + 0.114 B) of 32 x 32 pixels is shown to a camera of 32 x 32 pixels, one on one; see
`mtt_lava.data.camera`. What the saccades bring into sight beyond the image's border is its outermost pixels again:
a black border would be the strongest contour of all.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from netx_export.reading import read_npz

from .camera import Camera
from .dataset import DataError, Dataset, as_labels, check_seed
from .simulated import View, seen, set_up

SENSOR_SIZE = (32, 32, 2)
CAMERA = Camera(pitch=1.0)
"""The camera of ``digits-dvs`` otherwise. Of the first 2,000 train images it gives 4,100 events a recording, 1,700 to
6,800 for the middle nine tenths; N-MNIST has 3,900 on 34 x 34 pixels."""
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""What the labels mean where the files do not say."""

_EXPECTED = (
    "train*.npz and test*.npz with arrays x, (N, 32, 32, 3) or (N, 32, 32) uint8, and y, (N,) integers "
    "(torchvision's cifar-10-batches-py is pickled, and pickles are not read)"
)


def open_split(split: str, root: str | os.PathLike[str] | None, seed: int, cache: Path | None) -> Dataset:
    """Open ``cifar10-camera``; recordings are simulated in blocks of 500 when asked for and kept in the cache.

    The files of `root`, which you provide, are ``train*.npz`` or ``test*.npz``, for the split, strung together in
    order of their names: arrays x, (N, 32, 32, 3) or (N, 32, 32) uint8; y, (N,) integers; and, optional, classes,
    their names. A file ``camera.toml`` there may set up another camera (`mtt_lava.data.simulated.set_up`).
    """
    seed = check_seed(seed)
    if root is None:
        raise DataError(f"cifar10-camera: no root; pass as root the folder that holds {_EXPECTED}")
    root = Path(root).expanduser()
    paths = sorted(path for path in root.glob(f"{split}*.npz") if path.is_file())
    if not paths:
        raise DataError(f"{root}: no {split}*.npz; must be a folder that holds {_EXPECTED}")
    parts, labels, classes = read_parts(paths, CLASSES)
    usual = View(CAMERA, SENSOR_SIZE[:2])
    view = set_up(root, usual)
    # Recordings of the usual camera have always been told apart by its fields alone.
    key = (CAMERA,) if view == usual else None
    images = parts[0] if len(parts) == 1 else np.concatenate(_alike(parts))
    return seen(images, labels, classes, view, seed, "cifar10-camera", split, cache, key)


def _alike(parts: list[np.ndarray]) -> list[np.ndarray]:
    """Return images of several files in colours if some are: grey is grey in colours too."""
    colours = any(x.ndim == 4 for x in parts)
    return [np.repeat(x[..., None], 3, axis=3) if colours and x.ndim == 3 else x for x in parts]


def read_parts(
    paths: Sequence[Path], classes: tuple[str, ...], colours: bool = False
) -> tuple[list[np.ndarray], np.ndarray, tuple[str, ...]]:
    """Return images of each .npz file, uint8; the labels of all, int64; and their classes.

    Parameters
    ----------
    paths : sequence of Path
        Files with arrays x, y and, optional, classes; see `open_split`.
    classes : tuple of str
        What the labels mean where the files do not say.
    colours : bool
        Images are (N, 32, 32, 3); else they may be grey as well, (N, 32, 32).

    Raises
    ------
    DataError
        If a file is not so, or they differ in classes.
    """
    stored = [read_npz(path, DataError, ("x", "y", "classes")) for path in paths]
    shapes = ((32, 32, 3),) if colours else ((32, 32), (32, 32, 3))
    names = set()
    for path, arrays in zip(paths, stored, strict=True):
        missing = [name for name in ("x", "y") if name not in arrays]
        if missing:
            raise DataError(f"{path}: no array {', '.join(missing)}; must hold x and y")
        x = arrays["x"]
        if x.dtype != np.uint8 or x.shape[1:] not in shapes:
            allowed = "(N, 32, 32, 3)" + ("" if colours else " or (N, 32, 32)")
            raise DataError(f"{path}: x of type {x.dtype}, shape {x.shape}; must be uint8, {allowed}")
        if "classes" in arrays:
            names.add(tuple(map(str, np.atleast_1d(arrays["classes"]))))
    if len(names) > 1:
        raise DataError(
            f"{paths[0].parent}: the files {paths[0].name} to {paths[-1].name} differ in classes; "
            "they must be of one data set"
        )
    classes = names.pop() if names else classes
    labels = [
        as_labels(np.atleast_1d(arrays["y"]).tolist(), len(arrays["x"]), len(classes), where=str(path))
        for path, arrays in zip(paths, stored, strict=True)
    ]
    return [arrays["x"] for arrays in stored], np.concatenate(labels), classes
