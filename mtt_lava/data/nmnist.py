"""``nmnist``: N-MNIST, opened by ``tonic.datasets.NMNIST`` from what is there, or downloaded by it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import sys
import tempfile
import zipfile
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np

from netx_export.reading import check_members
from netx_export.text import short

from .cache import cache_folder, digest, warn_unwritable
from .dataset import DataError, Dataset, as_labels
from .events import as_recording
from .stored import Stored, stamp

SENSOR_SIZE = (34, 34, 2)
DURATION = 315_000
"""Microseconds: three saccades of 105 ms, the clock by which tonic's (and the authors') code stabilises the digits.
Recordings end at 297-336 ms; of the events of 1,000 of them 0.2 % come after 300 ms and 0.00005 % after 315 ms."""

_FOLDERS = {"train": "Train", "test": "Test"}
_MEMBER = re.compile(r"(Train|Test)/[0-9]/[^/]+\.bin")
_DIGITS = tuple(str(digit) for digit in range(10))
_EVENT_BYTES = 5
_LARGEST_MEMBER = 1 << 24  # bytes; recordings have some 20,000
_TIMEOUT = 30  # seconds without an answer from the server


def _read(source: Any, index: int) -> np.ndarray:
    """Return a recording of a ``tonic.datasets.NMNIST``."""
    path = Path(source.data[index])
    size = stamp(path)[1]
    if size == 0 or size % _EVENT_BYTES:
        raise DataError(
            f"{path}: {size} bytes; must be a whole number of {_EVENT_BYTES}-byte events, at least one: "
            "the file is damaged, take it from the archive again"
        )
    events, _ = source[index]
    return as_recording(events, SENSOR_SIZE, where=str(path))


def open_split(split: str, root: str | os.PathLike[str] | None, _: int, cache: Path | None) -> Dataset:
    """Open N-MNIST, which leaves nothing to a seed.

    In this order: ``root/NMNIST/Train/<digit>/*.bin`` (any number of them; ``Test`` for the test split);
    ``root/NMNIST/train.zip`` (``test.zip``), unpacked into the cache; else tonic downloads into `root`, 1.2 GB.
    Default: a folder in the cache.
    """
    root = Path(root).expanduser() if root is not None else (cache or cache_folder()) / "nmnist"
    folder = _FOLDERS[split]
    archive = root / "NMNIST" / f"{split}.zip"
    keep: object = None
    if not _holds_recordings(root / "NMNIST" / folder):
        if not archive.is_file():
            if (root / folder).is_dir() or (root / archive.name).is_file():
                raise DataError(
                    f"{root}: has {folder} or {archive.name} itself; pass as root the folder that holds NMNIST"
                )
            _download(root, split)
        if not _holds_recordings(root / "NMNIST" / folder):
            root, keep = _unpacked(archive, cache)

    source = _tonic_nmnist(root, split)
    labels = as_labels(source.targets, len(source), len(_DIGITS), where=str(root / "NMNIST" / folder))
    return Dataset(
        name="nmnist",
        split=split,
        sensor_size=SENSOR_SIZE,
        classes=_DIGITS,
        events=Stored(range(len(source)), partial(_read, source), digest(*map(stamp, source.data)), keep),
        labels=labels,
        duration=DURATION,
        cache=cache,
    )


def _holds_recordings(folder: Path) -> bool:
    return any(path.is_file() for path in folder.glob("*/*.bin"))


def _tonic_nmnist(root: Path, split: str) -> Any:
    """Open what is unpacked in ``root/NMNIST`` with tonic, however few recordings there are."""
    import tonic

    class NMNIST(tonic.datasets.NMNIST):  # tonic looks in a folder of the class's name
        def _check_exists(self) -> bool:
            # tonic wants at least 10,000 files, else it downloads; a part of the data set is fine here.
            return True

    folder = root / "NMNIST" / _FOLDERS[split]
    # tonic takes the last letter of a folder's name for the label, whatever the folder.
    stray = [path for path in folder.rglob("*.bin") if path.is_file() and path.parent.name not in _DIGITS]
    if stray:
        raise DataError(f"{stray[0]}: must be in one of the folders 0 to 9 of {folder}; move it or remove it")
    return NMNIST(str(root), train=split == "train")


def _unpacked(archive: Path, cache: Path | None) -> tuple[Path, object]:
    """Unpack `archive` into the cache, once; return the folder to open and, where it is a passing one, its keeper."""
    target = (cache or cache_folder()) / "nmnist-unpacked" / digest(archive.resolve(), *stamp(str(archive))[1:])
    if target.is_dir():
        return target, None
    keep: tempfile.TemporaryDirectory[str] | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        keep = tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        warn_unwritable(target.parent, str(error.strerror or error))
        keep = tempfile.TemporaryDirectory(prefix="mtt-nmnist-")
        _unzip(archive, Path(keep.name) / "NMNIST")
        return Path(keep.name), keep
    with keep:
        whole = Path(keep.name) / "whole"
        _unzip(archive, whole / "NMNIST")
        try:
            whole.rename(target)
        except OSError:
            # Another process was quicker: its folder holds the same.
            if not target.is_dir():
                raise
    return target, None


def _unzip(archive: Path, folder: Path) -> None:
    from tqdm import tqdm

    try:
        with zipfile.ZipFile(archive) as packed:
            infos = {info.filename: info for info in packed.infolist()}
            members = [name for name in infos if _MEMBER.fullmatch(name)]
            check_members([infos[name] for name in members], archive.stat().st_size)
            large = max((infos[name].file_size for name in members), default=0)
            if large > _LARGEST_MEMBER:
                raise ValueError(f"a recording of {large:,} bytes; at most {_LARGEST_MEMBER:,}")
            for name in tqdm(members, desc=f"unpacking {archive.name}", delay=3, leave=False, disable=None):
                packed.extract(name, folder)
    except OSError as error:
        raise DataError(f"{archive}: cannot be unpacked into {folder} ({error.strerror or error})") from None
    except Exception as error:  # whatever zipfile says of damaged and foreign files
        raise DataError(f"{archive}: damaged zip file ({short(str(error), 100)}); delete it and get it again") from None
    if not members:
        raise DataError(f"{archive}: no member like Train/0/00001.bin or Test/0/00001.bin; not an N-MNIST archive")


def _download(root: Path, split: str) -> None:
    """Let tonic download and unpack one split, then move it into place: whole or not at all."""
    there = root.is_dir()
    archive = root / "NMNIST" / f"{split}.zip"
    timeout = socket.getdefaulttimeout()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".nmnist-") as temporary:
            import tonic

            socket.setdefaulttimeout(_TIMEOUT)
            with contextlib.redirect_stdout(sys.stderr):
                tonic.datasets.NMNIST(temporary, train=split == "train")
            archive.parent.mkdir(exist_ok=True)
            for part in (_FOLDERS[split], archive.name):
                os.replace(Path(temporary) / "NMNIST" / part, archive.with_name(part))
    except (OSError, HTTPException, RuntimeError, zipfile.BadZipFile) as error:
        # urllib's URLError is an OSError; tonic raises RuntimeError for a wrong checksum.
        if not there and root.is_dir() and not any(root.iterdir()):
            shutil.rmtree(root)
        raise DataError(
            f"nmnist: {archive.parent} holds neither {_FOLDERS[split]}/<digit>/*.bin nor {archive.name}, and tonic "
            f"could not download it ({short(str(error) or type(error).__name__, 40)}); get the archives from "
            "https://www.garrickorchard.com/datasets/n-mnist and pass as root the folder that holds NMNIST"
        ) from None
    finally:
        socket.setdefaulttimeout(timeout)
