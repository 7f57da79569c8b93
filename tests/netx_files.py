"""NetX files that tests change by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from netx_export.files import seal


@contextmanager
def edited(path: Path) -> Iterator[h5py.File]:
    """Open a file that `netx_export.write` made; its digest then says what it holds."""
    with h5py.File(path, "r+") as file:
        yield file
    seal(path)
