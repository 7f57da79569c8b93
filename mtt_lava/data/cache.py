"""Where derived data is kept, and how: results that can be had again at any time, so nothing here is ever missed.

What is kept is bounded: after every new file those used longest ago go, until the rest is within `cache_limit`.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import logging
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from netx_export.files import replacing
from netx_export.reading import read_npz
from netx_export.text import UserError

from .events import DataError

_log = logging.getLogger(__name__)

LIMIT = 20_000_000_000
"""Bytes that derived data takes on disk at most, where ``$MTT_CACHE_LIMIT`` says nothing else."""
_BOUNDED = ("frames", "camera", "digits-dvs", "cifar10-camera")
"""Folders in the cache whose files are ours alone; a cache folder that somebody chose may hold other things."""
_OURS = re.compile(r".*-[0-9a-f]{16}\.(npz|safetensors)(\..*)?")  # and what a killed process left half written
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", re.IGNORECASE)


def cache_folder() -> Path:
    """Return ``$MTT_CACHE``, or ``mtt-lava`` in ``$XDG_CACHE_HOME`` or in ``~/.cache``. It need not exist."""
    if own := os.environ.get("MTT_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mtt-lava"


def cache_limit() -> int:
    """Return how many bytes derived data may take on disk: ``$MTT_CACHE_LIMIT``, such as ``50GB``, or `LIMIT`.

    Raises
    ------
    DataError
        If the variable is no such size.

    Examples
    --------
    >>> import os
    >>> os.environ["MTT_CACHE_LIMIT"] = "1.5 GB"
    >>> cache_limit()
    1500000000
    >>> del os.environ["MTT_CACHE_LIMIT"]
    """
    given = os.environ.get("MTT_CACHE_LIMIT", "").strip()
    if not given:
        return LIMIT
    found = _SIZE.fullmatch(given)
    if found is None:
        raise DataError(f"MTT_CACHE_LIMIT is {given[:40]!r}; must be a size, such as 20000000000, 500MB or 20GB")
    return int(float(found[1]) * 1000 ** " KMGT".index(found[2].upper() or " "))


def in_use(handle: int) -> None:
    """Keep the file of an open descriptor in the cache until it is closed, and take note that it is used now."""
    with suppress(OSError):  # some file systems know no locks
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    with suppress(OSError):
        os.utime(handle)


def bound(folder: Path) -> None:
    """Remove what was used longest ago from a cache folder until it is within `cache_limit`; never what is in use.

    Raises
    ------
    DataError
        If ``$MTT_CACHE_LIMIT`` is no size.
    """
    found = []
    for path in (path for name in _BOUNDED for path in (folder / name).glob("*")):
        with suppress(OSError):  # another process may have removed it
            status = path.stat()
            if _OURS.fullmatch(path.name) and path.is_file():
                found.append((status.st_mtime_ns, status.st_size, path))
    spare = cache_limit() - sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if spare >= 0:
            return
        if _removed(path):
            spare += size


def _removed(path: Path) -> bool:
    """Remove a file unless a process has it open by `in_use`."""
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        finally:
            os.close(handle)
    except OSError:
        return False
    return True


def digest(*parts: object) -> str:
    """Return 16 hex digits that stand for `parts`, told apart by what they print as."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:16]


def cached(path: Path, names: tuple[str, ...], build: Callable[[], tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    """Return the arrays called `names` from the npz file `path`; build and write them if it is not there or damaged.

    Every array of an npz file carries a CRC, so damage anywhere in it shows. A folder that cannot be written
    costs one line of warning, and the work of building again next time.
    """
    try:
        stored = read_npz(path, UserError, names)
        arrays = tuple(stored[name] for name in names)
        with suppress(OSError):
            os.utime(path)  # used now: see `bound`
        return arrays
    except (UserError, KeyError):
        pass
    cache_limit()  # a wrong one is said before the work
    arrays = build()
    try:
        with replacing(path) as temporary:
            np.savez(temporary, **dict(zip(names, arrays, strict=True)))
        bound(path.parent.parent)
    except OSError as error:
        warn_unwritable(path.parent, str(error.strerror or error))
    return arrays


@functools.cache
def warn_unwritable(folder: Path, reason: str) -> None:
    """Say once a folder that nothing can be kept there."""
    _log.warning("%s cannot be written (%s): going on without a cache; set MTT_CACHE to another folder", folder, reason)
