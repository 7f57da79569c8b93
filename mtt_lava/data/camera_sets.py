"""``mnist-camera`` and ``pictures-camera``: images that you provide, before a simulated event camera.

A file ``camera.toml`` beside them may set the camera up: sensor, path, border, and the fields of
`mtt_lava.data.camera.Camera`, as in::

    sensor = [64, 64]    # columns and rows
    path = "loop"        # as CIFAR10-DVS moves its images; else "saccades", as N-MNIST
    threshold = 0.2
    noise = 0.0

From Python, `mtt_lava.data.camera_dataset` takes any array of images.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .cache import digest
from .camera import Camera
from .dataset import DataError, Dataset, as_labels, check_seed
from .images import read_mnist
from .parts import split as split_off
from .simulated import View, seen, set_up
from .stored import HELD_OUT, stamp

MNIST = View(Camera(pitch=1.0), (34, 34), border="dark")
"""As N-MNIST has it: a pixel of MNIST on one of 34 x 34, black around."""
PICTURES = View(Camera(pitch=1.0), (64, 64))
_ENDINGS = (".png", ".jpg", ".jpeg")
_EXPECTED = "folders train and test, or neither, with a folder for each class, and pictures (.png, .jpg, .jpeg) in it"


def open_mnist_camera(split: str, root: str | os.PathLike[str] | None, seed: int, cache: Path | None) -> Dataset:
    """Open ``mnist-camera``; `root` as for ``mnist``, and perhaps with a ``camera.toml``."""
    seed = check_seed(seed)
    images, labels = read_mnist(split, root, "mnist-camera")
    assert root is not None
    classes = tuple(map(str, range(10)))
    array = as_labels(labels.tolist(), len(images), len(classes), where="mnist-camera")
    return seen(images, array, classes, set_up(Path(root).expanduser(), MNIST), seed, "mnist-camera", split, cache)


def open_pictures(split: str, root: str | os.PathLike[str] | None, seed: int, cache: Path | None) -> Dataset:
    """Open ``pictures-camera``: pictures of any sizes, read when they are shown to the camera.

    The middle of a picture, as wide and high as the sensor is, is brought to its size, a pixel on one of the sensor.

    `root` holds ``train/<class>/*.png`` and ``test/<class>/*.png``, or ``.jpg``; or ``<class>/*.png``, of which a tenth
    of each class, by `seed`, is the test split. Folders are taken in order of their names, as are pictures.
    """
    seed = check_seed(seed)
    if root is None:
        raise DataError(f"pictures-camera: no root; pass as root the folder that holds {_EXPECTED}")
    root = Path(root).expanduser()
    halves = [half for half in ("train", "test") if (root / half).is_dir()]
    if len(halves) == 1:
        raise DataError(f"{root}: has {halves[0]} alone; must hold {_EXPECTED}")
    classes = sorted({folder.name for half in halves or [""] for folder in _folders(root / half)})
    top = root / split if halves else root
    paths = [path for name in classes for path in sorted((top / name).glob("*")) if path.suffix.lower() in _ENDINGS]
    if not paths:
        raise DataError(f"{top}: has no pictures; {root} must hold {_EXPECTED}")
    number = {name: label for label, name in enumerate(classes)}
    labels = np.array([number[path.parent.name] for path in paths], np.int64)
    view = set_up(root, PICTURES)
    pixels = _Pictures(paths, view.sensor)
    if halves:
        return seen(pixels, labels, tuple(classes), view, seed, "pictures-camera", split, cache)
    whole = seen(pixels, labels, tuple(classes), view, seed, "pictures-camera", "train", cache)
    rest, held = split_off(whole, HELD_OUT, seed=seed)
    return rest if split == "train" else _renamed(held)


def _renamed(held: Dataset) -> Dataset:
    from dataclasses import replace

    return replace(held, split="test")


def _folders(top: Path) -> list[Path]:
    return [path for path in top.glob("*") if path.is_dir() and not path.name.startswith(".")]


class _Pictures:
    """Pictures in files, read when asked for, all brought to one size: slices are (n, H, W, 3) uint8."""

    def __init__(self, paths: Sequence[Path], size: tuple[int, int]) -> None:
        self._paths, self._size = paths, size

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, some: slice) -> np.ndarray:
        return np.stack([self._read(path) for path in self._paths[some]])

    def content(self, start: int, stop: int) -> str:
        return digest(self._size, *map(stamp, self._paths[start:stop]))

    def _read(self, path: Path) -> np.ndarray:
        from PIL import Image, ImageOps

        try:
            with Image.open(path, formats=("PNG", "JPEG")) as picture:
                return np.asarray(ImageOps.fit(picture.convert("RGB"), self._size, Image.Resampling.BICUBIC))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(f"{path}: is no whole PNG or JPEG picture ({str(error)[:100]})") from None
