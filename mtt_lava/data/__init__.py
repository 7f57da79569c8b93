"""Data sets of event recordings: one interface for all, and their frames.

>>> train = open_dataset("digits-dvs", split="train")  # doctest: +SKIP
>>> x, y = frames(train, time_steps=10)  # (1500, 2, 34, 34, 10) counts, (1500,) labels  # doctest: +SKIP
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

from netx_export.text import meant

from .binning import bin_events, frames
from .cache import cache_folder, cache_limit
from .camera import Camera
from .dataset import (
    EVENT_DTYPE,
    DataError,
    Dataset,
    check_split,
    from_events,
    from_images,
    from_tonic,
    picture,
)
from .parts import folds, join, split, subset
from .reader import FrameReader, open_frames
from .simulated import camera_dataset

__all__ = [
    "DATASETS",
    "EVENT_DTYPE",
    "Camera",
    "DataError",
    "Dataset",
    "FrameReader",
    "bin_events",
    "cache_folder",
    "cache_limit",
    "camera_dataset",
    "folds",
    "frames",
    "from_events",
    "from_images",
    "from_tonic",
    "join",
    "open_dataset",
    "open_frames",
    "picture",
    "split",
    "subset",
]

DATASETS = {
    "digits-dvs": "mtt_lava.data.digits",
    "nmnist": "mtt_lava.data.nmnist",
    "cifar10-camera": "mtt_lava.data.cifar10",
    "mnist-camera": "mtt_lava.data.camera_sets:open_mnist_camera",
    "pictures-camera": "mtt_lava.data.camera_sets:open_pictures",
    "cifar10-dvs": "mtt_lava.data.cifar10_dvs",
    "dvs-gesture": "mtt_lava.data.dvs_gesture",
    "n-caltech101": "mtt_lava.data.ncaltech101",
    "shd": "mtt_lava.data.heidelberg:open_shd",
    "ssc": "mtt_lava.data.heidelberg:open_ssc",
    "mnist": "mtt_lava.data.images:open_mnist",
    "cifar10": "mtt_lava.data.images:open_cifar10",
    "cifar100": "mtt_lava.data.images:open_cifar100",
}
"""The names that `open_dataset` knows, and whose function it calls: ``open_split``, if no other is named."""


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
        Of `DATASETS`, whose modules say what they are; or data of your own: a folder of recordings (folders train and
        test, or a share held out, with a folder for each class and in it files .npy, .npz, .csv, .h5, N-MNIST's .bin,
        or, with the extra ``recordings``, .aedat4, .dat, .raw, .es; see `mtt_lava.data.files.read_file`), which may
        hold a file data.toml; a path of such a ``.toml`` file (see `mtt_lava.data.own.Description`); or
        ``module:function``, called with ``split="train"`` (and `root`, if given), which returns a `Dataset`.
    split : {"train", "test"}
    root : path, optional
        For data sets that you provide, or that are downloaded: see their modules. For a ``.toml`` file: the folder
        that its paths start from; default: its own.
    seed : int
        Of the simulated camera and its noise: the images and their order are the same for all seeds. Of data sets
        that are published without a split (cifar10-dvs, n-caltech101): which recordings test.
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
    if name in DATASETS:
        module, _, function = DATASETS[name].partition(":")
        opened: Dataset = getattr(import_module(module), function or "open_split")(split, root, seed, folder)
        return opened
    from .own import is_own, open_own

    if is_own(name):
        return open_own(name, split, root, folder)
    raise DataError(
        f"no data set {name!r}; there are {', '.join(DATASETS)}{meant(name, DATASETS)}, "
        "or give a folder of recordings, a .toml file or module:function"
    )
