"""``mnist``, ``cifar10`` and ``cifar100``: still images, which every time step shows anew.

Pixels are 0 .. 15, the upper four bits of those in the files: chips add input times weight in 24 bits and have 13 for
a bias. With 0 .. 255 a small network fell from 43 to 12 % on CIFAR-10 when lowered to such integers.

They are read whole: MNIST takes 47 MB of memory, the others 154 MB.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from netx_export.reading import opened, read_text

from .cifar10 import CLASSES, read_parts
from .dataset import DataError, Dataset, as_labels, from_images
from .stored import located

_LARGEST = 1 << 28  # bytes that a file of MNIST may unpack to; the largest has 47 MB
_PIXELS = 3 * 32 * 32
_DROPPED = 4  # bits of a pixel
_MNIST = {"train": "train", "test": "t10k"}
_MNIST_EXPECTED = "MNIST/raw/{0}(.gz), as torchvision.datasets.MNIST(root, download=True) leaves it"
_CIFAR_EXPECTED = (
    "{0}/{1}, the binary version (the Python version is pickled, and not read) of "
    "https://www.cs.toronto.edu/~kriz/cifar.html, or {2}*.npz with x and y"
)


def open_mnist(split: str, root: str | os.PathLike[str] | None, *_: object) -> Dataset:
    """Open MNIST, 60,000 and 10,000 grey digits of 28 x 28 pixels, channels first: (N, 1, 28, 28).

    `root` holds ``MNIST/raw`` as torchvision has it, with the files of LeCun et al. packed or not, or the files.
    """
    images, labels = read_mnist(split, root, "mnist")
    return from_images(images[:, None] >> _DROPPED, labels, classes=10, name="mnist", split=split)


def read_mnist(split: str, root: str | os.PathLike[str] | None, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return MNIST's images, (N, 28, 28) uint8, and labels, (N,) uint8; `name` is what to call it in messages."""
    files = (f"{_MNIST[split]}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1"))
    images, labels = (_idx(_mnist_file(root, file, name), axes) for file, axes in zip(files, (3, 1), strict=True))
    return images, labels


def _mnist_file(root: str | os.PathLike[str] | None, file: str, name: str) -> Path:
    patterns = [folder + file + ending for folder in ("MNIST/raw/", "raw/", "") for ending in (".gz", "")]
    return located(name, root, patterns, _MNIST_EXPECTED.format(file))[0]


def _idx(path: Path, axes: int) -> np.ndarray:
    """Return the array of bytes of an IDX file: zeros, type, number of axes; big-endian lengths; the bytes."""
    try:
        with opened(path, DataError) as file, gzip.open(file) if path.suffix == ".gz" else file as unpacked:
            raw = unpacked.read(_LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged ({error}): delete it and get it again") from None
    start = 4 + 4 * axes
    shape = tuple(np.frombuffer(raw[4:start], ">u4").tolist()) if len(raw) >= start else ()
    sizes = shape[1:] == (28, 28)[: axes - 1]
    if raw[:4] != bytes([0, 0, 8, axes]) or not sizes or len(raw) - start != math.prod(shape):
        raise DataError(
            f"{path}: {len(raw):,} bytes, lengths {shape}; must be a whole IDX file of bytes, "
            f"{'(N, 28, 28)' if axes == 3 else '(N,)'}: delete it and get it again"
        )
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def open_cifar10(split: str, root: str | os.PathLike[str] | None, *_: object) -> Dataset:
    """Open CIFAR-10, 50,000 and 10,000 photographs of 32 x 32 pixels, channels first: (N, 3, 32, 32).

    `root` holds ``cifar-10-batches-bin`` or is that folder, with ``data_batch_*.bin`` (any of them) and
    ``test_batch.bin``; or it holds ``train*.npz`` and ``test*.npz`` as for ``cifar10-camera``.
    """
    file = {"train": "data_batch_*.bin", "test": "test_batch.bin"}[split]
    return _cifar("cifar10", split, root, "cifar-10-batches-bin", file, 1)


def open_cifar100(split: str, root: str | os.PathLike[str] | None, *_: object) -> Dataset:
    """Open CIFAR-100 with its fine labels; otherwise as CIFAR-10.

    `root` holds ``cifar-100-binary`` or is that folder, with ``train.bin`` and ``test.bin``; where it has
    ``fine_label_names.txt`` too, the classes are called so. Or it holds ``train*.npz`` and ``test*.npz``.
    """
    return _cifar("cifar100", split, root, "cifar-100-binary", f"{split}.bin", 2)


def _cifar(
    name: str, split: str, root: str | os.PathLike[str] | None, folder: str, file: str, label_bytes: int
) -> Dataset:
    patterns = (f"{folder}/{file}", file, f"{split}*.npz")
    paths = located(name, root, patterns, _CIFAR_EXPECTED.format(folder, file, split))
    classes = CLASSES if name == "cifar10" else _names(paths[0].with_name("fine_label_names.txt"))
    if paths[0].suffix == ".npz":
        parts, labels, classes = read_parts(paths, classes, colours=True)
        images = np.concatenate(parts).transpose(0, 3, 1, 2)
    else:
        images, labels = _binary(paths, label_bytes, len(classes))
    return from_images(images >> _DROPPED, labels, classes=classes, name=name, split=split)


def _names(path: Path) -> tuple[str, ...]:
    """Return the classes of CIFAR-100 from their file; their numbers, if it is not there."""
    if not path.is_file():
        return tuple(map(str, range(100)))
    names = tuple(read_text(path, DataError).split())
    if len(names) != 100:
        raise DataError(f"{path}: names {len(names)} classes; must name 100, one a line")
    return names


def _binary(paths: Sequence[Path], label_bytes: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images (N, 3, 32, 32) and labels of files of records: labels, the last of which counts, and pixels."""
    images, labels = [], []
    for path in paths:
        with opened(path, DataError) as file:
            raw = np.fromfile(file, np.uint8)
        record = label_bytes + _PIXELS
        if len(raw) == 0 or len(raw) % record:
            raise DataError(
                f"{path}: {len(raw):,} bytes; must be a whole number of records of {record:,}, at least one: the file "
                "is damaged, take it from the archive again"
            )
        records = raw.reshape(-1, record)
        labels.append(as_labels(records[:, label_bytes - 1].tolist(), len(records), classes, where=str(path)))
        images.append(records[:, label_bytes:].reshape(-1, 3, 32, 32))
    return np.concatenate(images), np.concatenate(labels)
