"""Recordings in files: one a file, as NumPy, HDF5, text, N-MNIST and event cameras have them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from netx_export.reading import LARGEST, opened, read_npy, read_npz

from .camera_files import ENDINGS, read_camera_file
from .events import ALIASES, DataError

_NAMES = {name for names in ALIASES.values() for name in names}


def read_file(path: Path) -> np.ndarray:
    """Return the events of a recording, as they are in its file.

    Parameters
    ----------
    path : Path
        ``.npy`` (a structured array, or N x 4), ``.npz`` (that, or arrays x, y, t, p), ``.csv`` (with or without a
        line of names), ``.h5`` (a compound data set, N x 4, or data sets x, y, t, p in one group), ``.bin``
        (N-MNIST), or ``.aedat4``, ``.dat``, ``.raw``, ``.es`` (see `mtt_lava.data.camera_files.read_camera_file`).

    Raises
    ------
    DataError
        If it is of another kind, damaged, or holds pickled objects.
    """
    reader = READERS.get(path.suffix.lower())
    if path.suffix.lower() in _CONVERT:
        raise DataError(f"{path}: {path.suffix} is not read: {_CONVERT[path.suffix.lower()]}")
    if reader is None:
        raise DataError(f"{path}: not a recording that can be read; there are {', '.join(READERS)}: convert it to one")
    opened(path, DataError).close()
    try:
        return reader(path)
    except DataError as error:
        raise DataError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())[:120]
        raise DataError(f"{path}: cannot be read ({reason})") from None
    except Exception as error:  # whatever NumPy, zipfile and h5py say of damaged and foreign files
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DataError(f"{path}: damaged, or no {path.suffix} file of events ({reason})") from None


def _npy(path: Path) -> np.ndarray:
    return read_npy(path, DataError)


def _npz(path: Path) -> np.ndarray:
    stored = read_npz(path, DataError)
    if len(stored) == 1:
        return stored.popitem()[1]
    return _beside({name: values for name, values in stored.items() if name.lower() in _NAMES})


def _bin(path: Path) -> np.ndarray:
    raw = np.fromfile(path, np.uint8)
    if len(raw) == 0 or len(raw) % 5:
        raise DataError(f"{len(raw)} bytes; must be a whole number of 5-byte events, at least one")
    x, y, high, middle, low = raw.reshape(-1, 5).astype(np.int64).T
    over = y == 240  # no event: the counter of 13 of the time's bits ran over
    t = ((high & 127) << 16 | middle << 8 | low) + (np.cumsum(over) << 13)
    return _beside({"x": x[~over], "y": y[~over], "t": t[~over], "p": (high >> 7)[~over]})


def _csv(path: Path) -> np.ndarray:
    with path.open(encoding="utf-8-sig") as file:
        skipped, first = 0, ""
        for line in file:
            if (first := line.strip()) and not first.startswith(("#", "%")):
                break
            skipped += 1
    separator = next((mark for mark in ",;\t" if mark in first), None)
    words = [word.strip().strip("\"'") for word in first.split(separator)]
    header = not _is_number(words[0])
    if not header:
        return _table(path, separator, skipped, None)
    used = [i for i, word in enumerate(words) if word.lower() in _NAMES]
    if not used:
        raise DataError(f"its columns are {', '.join(words)[:80]}; must be x, y, t, p")
    columns = _table(path, separator, skipped + 1, used)
    return _beside({words[i]: columns[:, place] for place, i in enumerate(used)})


def _table(path: Path, separator: str | None, skipped: int, used: list[int] | None) -> np.ndarray:
    more: dict[str, Any] = {"delimiter": separator, "skiprows": skipped, "usecols": used, "ndmin": 2}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # with which NumPy would cut fractions off
            # A float would not hold a date in nanoseconds.
            return np.loadtxt(path, np.int64, encoding="utf-8-sig", **more)
    except (ValueError, DeprecationWarning):
        return np.loadtxt(path, np.float64, encoding="utf-8-sig", **more)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _h5(path: Path) -> np.ndarray:
    import h5py

    with h5py.File(path, "r") as file:
        found: dict[str, dict[str, Any]] = {}
        whole: list[Any] = []

        def look(name: str, item: Any) -> None:
            if not isinstance(item, h5py.Dataset):
                return
            group, _, own = name.rpartition("/")
            if item.dtype.names or (item.ndim == 2 and item.shape[1] == 4):
                whole.append(item)
            elif own.lower() in _NAMES and item.ndim == 1:
                found.setdefault(group, {})[own] = item

        file.visititems(look)  # follows no link to elsewhere
        apart = [group for group in found.values() if len(group) >= 3]
        if len(whole) + len(apart) != 1:
            raise DataError(
                f"holds {len(whole) + len(apart)} tables of events; must hold one: a compound data set, N x 4, or "
                "data sets x, y, t, p in one group"
            )
        items = whole or list(apart[0].values())
        if any(item.external or item.is_virtual for item in items):
            raise DataError("its events are in other files; must be in this one")
        if sum(item.size * item.dtype.itemsize for item in items) > LARGEST:
            raise DataError(f"declares more than {LARGEST >> 30} GiB of events; must be a recording a file")
        return np.asarray(whole[0][()]) if whole else _beside({name: item[()] for name, item in apart[0].items()})


def _beside(columns: dict[str, np.ndarray]) -> np.ndarray:
    """Return arrays of one length as the fields of one."""
    lengths = {name: values.shape for name, values in columns.items()}
    if len(set(lengths.values())) != 1 or len(next(iter(lengths.values()))) != 1:
        shown = ", ".join(f"{name} {shape}" for name, shape in lengths.items()) or "no array x, y, t or p"
        raise DataError(f"holds {shown[:100]}; must be x, y, t, p of one length")
    joined = np.empty(next(iter(lengths.values())), [(name, values.dtype) for name, values in columns.items()])
    for name, values in columns.items():
        joined[name] = values
    return joined


READERS: dict[str, Callable[[Path], np.ndarray]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".bin": _bin,
    ".csv": _csv,
    ".h5": _h5,
    ".hdf5": _h5,
    **dict.fromkeys(ENDINGS, read_camera_file),
}
"""What is read, by the ending of a file's name."""

_CONVERT = {
    ".aedat": "what it means depends on the camera; convert it to .aedat4 or .npy (jAER reads it)",
}
"""What there is no well-kept reader of, and what to do."""
