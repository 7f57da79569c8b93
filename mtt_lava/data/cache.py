"""Where derived data is kept, and how: results that can be had again at any time, so nothing here is ever missed."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from netx_export.files import replacing
from netx_export.reading import read_npz
from netx_export.text import UserError

_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Return ``$MTT_CACHE``, or ``mtt-lava`` in ``$XDG_CACHE_HOME`` or in ``~/.cache``. It need not exist."""
    if own := os.environ.get("MTT_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mtt-lava"


def digest(*parts: object) -> str:
    """Return 16 hex digits that stand for `parts`, told apart by what they print as."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:16]


def cached(
    path: Path, names: tuple[str, ...], build: Callable[[], tuple[np.ndarray, ...]], compress: bool = False
) -> tuple[np.ndarray, ...]:
    """Return the arrays called `names` from the npz file `path`; build and write them if it is not there or damaged.

    Every array of an npz file carries a CRC, so damage anywhere in it shows. A folder that cannot be written
    costs one line of warning, and the work of building again next time.
    """
    try:
        stored = read_npz(path, UserError, names)
        return tuple(stored[name] for name in names)
    except (UserError, KeyError):
        pass
    arrays = build()
    try:
        with replacing(path) as temporary:
            (np.savez_compressed if compress else np.savez)(temporary, **dict(zip(names, arrays, strict=True)))
    except OSError as error:
        warn_unwritable(path.parent, str(error.strerror or error))
    return arrays


@functools.cache
def warn_unwritable(folder: Path, reason: str) -> None:
    """Say once a folder that nothing can be kept there."""
    _log.warning("%s cannot be written (%s): going on without a cache; set MTT_CACHE to another folder", folder, reason)
