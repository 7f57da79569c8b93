"""Temporary folders that do not outlive their process for long, even one that is killed."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "mtt-lava-passing-"
_LOCK = "held-by-its-process"
_mine: set[Path] = set()


@contextmanager
def passing_folder() -> Iterator[Path]:
    """Yield a new temporary folder; it goes with the block, or else with the next folder that any process makes."""
    remove_abandoned()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    _mine.add(folder)
    try:
        # Locked before it has its name: nobody takes it for abandoned.
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (folder / "lock").rename(folder / _LOCK)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _mine.discard(folder)


def remove_abandoned() -> None:
    """Remove the folders whose processes have ended without it: the lock of a process goes with it."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{_LOCK}"):
        with suppress(OSError), path.open() as lock:  # another user's, or just removed
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path.parent, ignore_errors=True)


def remove_mine() -> None:
    """Remove this process's folders, which is about to kill itself."""
    for folder in tuple(_mine):
        shutil.rmtree(folder, ignore_errors=True)
