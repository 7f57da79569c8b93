"""Data sets of event recordings: one interface for all, and their frames.

>>> train = open_dataset("digits-dvs", split="train")  # doctest: +SKIP
>>> x, y = frames(train, time_steps=10)  # (1500, 2, 34, 34, 10) counts, (1500,) labels  # doctest: +SKIP
"""

from __future__ import annotations

import os
from pathlib import Path

from netx_export.text import meant

from .binning import bin_events, frames
from .cache import cache_folder
from .dataset import (
    EVENT_DTYPE,
    DataError,
    Dataset,
    check_seed,
    check_split,
    from_events,
    from_images,
    from_tonic,
    picture,
)
from .parts import folds, join, split, subset

__all__ = [
    "DATASETS",
    "EVENT_DTYPE",
    "DataError",
    "Dataset",
    "bin_events",
    "cache_folder",
    "folds",
    "frames",
    "from_events",
    "from_images",
    "from_tonic",
    "join",
    "open_dataset",
    "picture",
    "split",
    "subset",
]

DATASETS = ("digits-dvs", "nmnist", "cifar10-camera")
"""The names that `open_dataset` knows."""


def open_dataset(
    name: str,
    *,
    split: str,
    root: str | os.PathLike[str] | None = None,
    seed: int = 0,
    cache: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Open a data set by its name.

    Parameters
    ----------
    name : str
        ``digits-dvs``, ``nmnist`` or ``cifar10-camera``; or data of your own: a folder of recordings (folders train and
        test, or a share held out, with a folder for each class and in it files .npy, .npz, .csv, .h5, N-MNIST's .bin,
        or, with the extra ``recordings``, .aedat4, .dat, .raw, .es; see `mtt_lava.data.files.read_file`), which may
        hold a file data.toml; a path of such a ``.toml`` file (see `mtt_lava.data.own.Description`); or
        ``module:function``, called with ``split="train"`` (and `root`, if given), which returns a `Dataset`.
        ``digits-dvs`` is built in: scikit-learn's 1,797 handwritten digits before a simulated event camera; 1,500
        train, 297 test. ``nmnist`` is real. ``cifar10-camera`` is simulated, not recorded: CIFAR-10's photographs,
        which you provide, before the same camera with 32 x 32 pixels.
    split : {"train", "test"}
    root : path, optional
        For ``nmnist``. In this order: ``root/NMNIST/Train/<digit>/*.bin`` (any number of them; ``Test`` for the test
        split); ``root/NMNIST/train.zip`` (``test.zip``), unpacked into the cache; else tonic downloads
        into `root`, 1.2 GB. Default: a folder in the cache. For ``cifar10-camera``, which needs it: a folder with
        ``train*.npz`` or ``test*.npz``, for the split, strung together in order of their names: arrays x,
        (N, 32, 32, 3) or (N, 32, 32) uint8; y, (N,) integers; and, optional, classes, their names. For a ``.toml``
        file: the folder that its paths start from; default: its own.
    seed : int
        Of the simulated camera and its noise. The images and their order are the same for all seeds.
    cache : path, optional
        Folder for derived data. Default: ``$MTT_CACHE``, or ``mtt-lava`` in the user's cache folder.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        If there is no such data set or split, or its files are absent and cannot be downloaded, or are damaged.
    """
    check_split(split)
    folder = Path(cache).expanduser() if cache is not None else None
    if name == "digits-dvs":
        from .digits import open_digits

        if root is not None:
            raise DataError("digits-dvs is built in and takes no root; leave it out")
        check_seed(seed)
        return open_digits(split, int(seed), folder)
    if name == "nmnist":
        from .nmnist import open_nmnist

        return open_nmnist(split, root, folder)
    if name == "cifar10-camera":
        from .cifar10 import open_cifar10

        check_seed(seed)
        return open_cifar10(split, root, int(seed), folder)
    from .own import is_own, open_own

    if is_own(name):
        return open_own(name, split, root, folder)
    raise DataError(
        f"no data set {name!r}; there are {', '.join(DATASETS)}{meant(name, DATASETS)}, "
        "or give a folder of recordings, a .toml file or module:function"
    )
