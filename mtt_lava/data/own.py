"""Data of your own by name: a folder of recordings, a TOML file that describes one, or a function of yours."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydantic

from netx_export.reading import read_toml
from netx_export.text import first_problem

from .dataset import Dataset, from_named
from .events import Clock, DataError, Start, Unit, as_duration, as_sensor_size, as_whole, check_columns, fields_of
from .files import READERS, read_file
from .parts import split as split_off

DESCRIPTION = "data.toml"
"""The description in a folder of recordings, if there is one."""

_FUNCTION = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)")
_ANY_SENSOR = (1 << 15, 1 << 15, 2)
_LATE = 10  # a first event after this part of the window says that time does not start at 0


class Description(pydantic.BaseModel):
    """What a TOML file says of a data set; all of it is optional.

    Parameters
    ----------
    name : str, optional
        Default: that of the file, or of the folder.
    path : str
        Folder that the other paths are in, from the file's own on.
    train, test : str or dict of str to list of str, optional
        A folder with a folder for each class; or for each class, files or patterns such as "a/*.npy". Default: the
        folders train and test (or Train and Test). Where neither is, `path` has the folders of the classes, and
        the share `test_share` of each class, by the seed, is for testing; so it is where only `train` is given.
    classes : list of str, optional
        Names of the folders in the order of the labels. Default: in the order of numbers or letters.
    sensor_size : (int, int, int), optional
        Columns, rows, polarities. Default: what the recordings of both splits fill.
    duration : int, optional
        Microseconds of the recording window. Default: that of the longest recording of both splits.
    start, unit, unwrap, columns
        As in `mtt_lava.data.from_events`.
    test_share : float
    seed : int
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str | None = pydantic.Field(default=None, min_length=1, max_length=100)
    path: str = "."
    train: str | dict[str, list[str]] | None = None
    test: str | dict[str, list[str]] | None = None
    classes: list[str] | None = None
    sensor_size: list[int] | None = None
    duration: Any = None
    start: Any = 0
    unit: Any = "us"
    unwrap: Any = False
    columns: str | None = None
    test_share: float = pydantic.Field(default=0.2, gt=0, lt=1)
    seed: pydantic.NonNegativeInt = 0


def is_function(name: str) -> bool:
    """Whether `name` is ``module:function``, which `open_dataset` imports and calls."""
    return _FUNCTION.fullmatch(name) is not None


def is_own(name: str) -> bool:
    """Whether `name` names data of one's own, there or not."""
    return is_function(name) or name.endswith(".toml") or "/" in name or os.path.isdir(name)


def open_own(name: str, split: str, root: str | os.PathLike[str] | None, cache: Path | None) -> Dataset:
    """Open data by the name of a folder, of a TOML file or of a function; see `mtt_lava.data.open_dataset`."""
    if function := _FUNCTION.fullmatch(name):
        return _call(name, *function.groups(), split=split, root=root)
    path = Path(os.path.expanduser(name))
    if path.suffix == ".toml":
        start = Path(os.path.expanduser(root)) if root is not None else path.parent
        return _open(_described(path), path, start, split, cache)
    if not path.is_dir():
        raise DataError(f"{name}: no such folder; give a folder of recordings, a .toml file or module:function")
    if root is not None:
        raise DataError(f"{name}: a folder takes no root; leave it out")
    file = path / DESCRIPTION
    return _open(_described(file) if file.exists() else Description(), file, path, split, cache)


def _call(name: str, module: str, function: str, *, split: str, root: object) -> Dataset:
    sys.path.insert(0, os.getcwd())  # as python -m has it
    try:
        found = getattr(importlib.import_module(module), function, None)
    except ImportError as error:
        raise DataError(f"{name}: {error}; must be module:function, the module in this folder or installed") from None
    finally:
        sys.path.remove(os.getcwd())
    if not callable(found):
        raise DataError(f"{name}: module {module} has no function {function}")
    given = {"split": split} if root is None else {"split": split, "root": root}
    try:
        inspect.signature(found).bind(**given)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: cannot be called with {' and '.join(given)} ({error})") from None
    data = found(**given)
    if not isinstance(data, Dataset):
        raise DataError(f"{name}: returned a {type(data).__name__}; must return a mtt_lava.data.Dataset")
    return data


def _described(path: Path) -> Description:
    try:
        return Description.model_validate(read_toml(path, DataError))
    except pydantic.ValidationError as error:
        unknown = error.errors()[0]["type"] == "extra_forbidden"
        known = f"; there are {', '.join(Description.model_fields)}" if unknown else ""
        raise DataError(f"{path}: {first_problem(error)}{known}") from None


def _open(description: Description, file: Path, root: Path, split: str, cache: Path | None) -> Dataset:
    name = description.name or (file.parent.resolve().name if file.name == DESCRIPTION else file.stem)
    try:
        splits = _splits(description, root / description.path)
    except OSError as error:  # such as names that are too long
        raise DataError(f"{file}: its paths cannot be read ({error.strerror or error}): {error.filename}") from None
    whole = list(splits) == ["train"]
    if not whole and split not in splits:
        raise DataError(f"{file if file.exists() else root}: says of no {split} recordings: give {split} = a folder")
    classes = description.classes or _in_order({label for files in splits.values() for label, _ in files})
    if len(set(classes)) < len(classes):
        raise DataError(f"{file}: classes: a name comes twice in {', '.join(classes)[:100]}")
    for files in splits.values():
        stray = next((path for label, path in files if label not in classes), None)
        if stray is not None:
            raise DataError(f"{stray}: its class is none of classes: {', '.join(classes)[:100]}")
    chosen = splits["train" if whole else split]
    # What is not said of sensor and duration has to be the same for both splits.
    told = description.duration is not None and description.sensor_size is not None
    try:
        read = _read_all([path for files in ([chosen] if told else splits.values()) for _, path in files], name)
        data = _made(description, read, chosen, classes, name, split, cache)
    except DataError as error:
        raise DataError(f"{error} (in {file.name})" if "pass " in str(error) else str(error)) from None
    if whole:
        rest, held = split_off(data, description.test_share, seed=description.seed)
        return rest if split == "train" else held
    return data


def _made(
    description: Description,
    read: dict[Path, np.ndarray],
    files: list[tuple[str, Path]],
    classes: list[str],
    name: str,
    split: str,
    cache: Path | None,
) -> Dataset:
    start: Start = description.start
    unit: Unit = description.unit
    clock = Clock(1, start, unit, description.unwrap)
    clock.check(name)
    check_columns(description.columns, name)
    size = description.sensor_size
    sensor = as_sensor_size(size, name) if size is not None else _filled(read, description.columns)
    if description.duration is not None:
        duration = as_duration(description.duration, name)
    else:
        duration = _longest(read, clock, sensor, description.columns)
    return from_named(
        ((str(path), read[path]) for _, path in files),
        [classes.index(label) for label, _ in files],
        sensor,
        Clock(duration, start, unit, description.unwrap),
        description.columns,
        classes,
        name,
        split,
        cache,
    )


def _splits(description: Description, folder: Path) -> dict[str, list[tuple[str, Path]]]:
    """Return (class, file) of every recording of each split; "train" alone is yet to be split."""
    given: dict[str, Any] = {"train": description.train, "test": description.test}
    given = {split: where for split, where in given.items() if where is not None}
    if not given:
        names = [(split, name) for split in ("train", "test") for name in (split, split.title())]
        given = {split: name for split, name in names if (folder / name).is_dir()}
    return {split: _files(where, folder) for split, where in (given or {"train": "."}).items()}


def _files(where: str | Mapping[str, list[str]], folder: Path) -> list[tuple[str, Path]]:
    if isinstance(where, str):
        base = folder / where
        if not base.is_dir():
            raise DataError(f"{base}: no such folder")
        loose = next((p for p in base.iterdir() if p.suffix.lower() in READERS and p.is_file()), None)
        if loose is not None:
            raise DataError(f"{loose}: must be in a folder named for its class")
        found = {
            each.name: [path for path in each.rglob("*") if path.is_file() and not path.name.startswith(".")]
            for each in base.iterdir()
            if each.is_dir() and not each.name.startswith(".")
        }
    else:
        found = {
            label: [path for one in patterns for path in _matching(folder, one)] for label, patterns in where.items()
        }
        base = folder
    files = [(label, path) for label in _in_order(set(found)) for path in sorted(found[label])]
    if not files:
        raise DataError(f"{base}: no recordings; must hold a folder a class, with files {', '.join(READERS)}")
    return files


def _matching(folder: Path, pattern: str) -> list[Path]:
    path = folder / pattern
    if "*" not in pattern and "?" not in pattern:
        return [path]
    try:
        found = [one for one in Path(path.anchor or ".").glob(str(path.relative_to(path.anchor))) if one.is_file()]
    except ValueError as error:
        raise DataError(f"{path}: no pattern ({error})") from None
    if not found:
        raise DataError(f"{path}: no such files")
    return found


def _in_order(names: set[str]) -> list[str]:
    """Return names in the order of numbers, where they are, else of letters."""
    return sorted(names, key=(lambda name: (int(name), name)) if all(map(str.isdecimal, names)) else None)


def _read_all(paths: list[Path], name: str) -> dict[Path, np.ndarray]:
    from tqdm import tqdm

    return {path: read_file(path) for path in tqdm(paths, desc=f"reading {name}", delay=3, leave=False, disable=None)}


def _filled(read: dict[Path, np.ndarray], columns: str | None) -> tuple[int, int, int]:
    """Return the sensor that all recordings fill."""
    sizes = {"x": 1, "y": 1}
    for path, raw in read.items():
        found = fields_of(raw, _ANY_SENSOR, str(path), columns)
        for field in sizes:
            sizes[field] = max(sizes[field], 1 + int(as_whole(found[field], field, str(path)).max()))
    return as_sensor_size((sizes["x"], sizes["y"], 2), "recordings")


def _longest(read: dict[Path, np.ndarray], clock: Clock, sensor: tuple[int, int, int], columns: str | None) -> int:
    """Return the duration of the longest recording in microseconds; refuse a time that does not start at 0."""
    ends, starts, said = {}, {}, {}
    for path, raw in read.items():
        times, *said[path] = clock.convert(fields_of(raw, sensor, str(path), columns)["t"], str(path))
        starts[path], ends[path] = int(times.min()), int(times.max())
    duration = 1 + max(ends.values())
    for path, start in starts.items():
        if start * _LATE > duration:
            first, last, unit = said[path]
            raise DataError(
                f"{path}: its events run from {first} to {last} {unit}, long after the time 0: "
                'pass start="first-event", or the duration of the window'
            )
    return as_duration(duration, "recordings")
