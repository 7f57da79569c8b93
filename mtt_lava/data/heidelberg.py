"""``shd`` and ``ssc``: Spiking Heidelberg Digits and Spiking Speech Commands (Cramer et al., IEEE TNNLS 2020).

Spoken words as spikes of the 700 channels of a model of the inner ear: sensors of one row, 700 x 1, of one polarity.
A file holds a split: data sets spikes/times (seconds) and spikes/units of one array a recording, labels, and
extra/keys, what the labels mean. It stays on disk; the arrays of a recording are read when asked for, in a child
process (see `mtt_lava.data.camera_files`).
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .cache import digest
from .camera_files import ask_child
from .dataset import DataError, Dataset, as_classes, as_labels
from .stored import Stored, in_window, located, stamp

if TYPE_CHECKING:
    import h5py

SENSOR_SIZE = (700, 1, 1)
DURATION = 1_400_000
"""Microseconds: the longest of SHD last some 1.37 s, those of SSC 1 s. What comes later is left out."""

_SECONDS = 20  # for the labels, or a recording
_LATEST = 1 << 20  # seconds
_KINDS = {"spikes/times": ("O", "f"), "spikes/units": ("O", "iu"), "labels": ("iu", ""), "extra/keys": ("OS", "")}
"""Kinds of the data sets' types, and of what the arrays in them hold."""
_EXPECTED = "{0}_{1}.h5, unpacked from {0}_{1}.h5.gz of https://zenkelab.org/datasets"


def open_shd(split: str, root: str | os.PathLike[str] | None, _: int, cache: Path | None) -> Dataset:
    """Open SHD, 20 spoken digits; `root` holds ``shd_train.h5`` (``shd_test.h5``), or ``SHD`` with it in."""
    return _open("shd", split, root, cache)


def open_ssc(split: str, root: str | os.PathLike[str] | None, _: int, cache: Path | None) -> Dataset:
    """Open SSC, 35 commands; `root` holds ``ssc_train.h5`` (``ssc_test.h5``), or ``SSC`` with it in.

    Its third file, ``ssc_valid.h5``, is neither of our splits and is not read.
    """
    return _open("ssc", split, root, cache)


def _open(name: str, split: str, root: str | os.PathLike[str] | None, cache: Path | None) -> Dataset:
    folder = name.upper()
    patterns = (f"{folder}/{name}_{split}.h5", f"{name}_{split}.h5")
    path = located(name, root, patterns, _EXPECTED.format(name, split))[0]
    answer, _ = _ask(path, "labels")
    labels = as_labels(answer["labels"], answer["recordings"], len(answer["classes"]), where=str(path))
    return Dataset(
        name=name,
        split=split,
        sensor_size=SENSOR_SIZE,
        classes=tuple(answer["classes"]),
        events=Stored(range(len(labels)), functools.partial(_read, path), digest(*stamp(path))),
        labels=labels,
        duration=DURATION,
        cache=cache,
    )


def _read(path: Path, index: int) -> np.ndarray:
    return in_window(_ask(path, index)[1], SENSOR_SIZE, f"{path}: recording {index}", DURATION)


def _ask(path: Path, item: str | int) -> tuple[dict[str, Any], np.ndarray]:
    stamp(path)  # the child may have the file open still, whether it has gone or not
    try:
        return ask_child(path, item, _SECONDS)
    except DataError as error:
        where = f"{path}: recording {item}" if isinstance(item, int) else path
        raise DataError(f"{where}: {error}") from None


# ------------------------------------------------------------------------------------------------ in the child


def labels_in(path: Path) -> dict[str, Any]:
    """Return the labels, the classes and the number of recordings of a file."""
    sets = _sets(path)
    times, units = len(sets["spikes/times"]), len(sets["spikes/units"])
    if times != units:
        raise DataError(f"holds {times} spikes/times but {units} spikes/units; there must be one each a recording")
    classes = as_classes(sets["extra/keys"][()].tolist(), "extra/keys")
    return {"labels": sets["labels"][()].tolist(), "classes": classes, "recordings": times}


def recording_in(path: Path, index: int) -> dict[str, np.ndarray]:
    """Return columns x and times t, whole microseconds, of a recording of a file."""
    sets = _sets(path)
    times, units = sets["spikes/times"][index].astype(np.float64), sets["spikes/units"][index]
    if len(times) != len(units):
        raise DataError(f"{len(times)} times but {len(units)} units; there must be one each")
    odd = times[~((times >= 0) & (times < _LATEST))]
    if len(odd):
        raise DataError(f"a time is {odd[0]} s; must be 0 or later, below {_LATEST}")
    if len(units) and not 0 <= units.min() <= units.max() < SENSOR_SIZE[0]:
        raise DataError(f"its units are {units.min()} to {units.max()}; must be 0..{SENSOR_SIZE[0] - 1}")
    return {"x": units, "t": np.rint(times * 1e6)}


_held: tuple[tuple[str, int, int], Any] | None = None  # the file that is open, and in which state it was opened


def _sets(path: Path) -> dict[str, h5py.Dataset]:
    """Return the data sets of a file, which stays open until another one, or another state of it, is asked for."""
    global _held
    import h5py

    state = stamp(path)
    if _held is None or _held[0] != state:
        if _held is not None:
            _held[1].close()  # before it is opened anew: HDF5 would go on with what it knows of the old state
            _held = None
        # Without a lock, which would keep others from writing the file as long as it is open here.
        _held = state, h5py.File(path, "r", locking=False)
    file, sets = _held[1], {}
    for name, (kinds, within) in _KINDS.items():
        each = file.get(name)
        good = isinstance(each, h5py.Dataset) and each.ndim == 1 and each.dtype.kind in kinds
        base = h5py.check_vlen_dtype(each.dtype) if good else None
        if not good or (within and (not isinstance(base, np.dtype) or base.kind not in within)):
            raise DataError(
                f"{name} is no list of its kind; must be an HDF5 file with spikes/times and spikes/units (an array a "
                "recording), labels (integers) and extra/keys (texts)"
            )
        if each.external or each.is_virtual or each.file.filename != file.filename:
            raise DataError(f"{name} is in another file; must be in this one")
        sets[name] = each
    return sets
