"""NetX files that tests change by hand, or load in Lava."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from netx_export.files import seal
from netx_export.lava.interpreter import interpreter


def in_lava(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program in the Python that has Lava, which also finds this package."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [interpreter(), "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, start_new_session=True)


@contextmanager
def edited(path: Path) -> Iterator[h5py.File]:
    """Open a file that `netx_export.write` made; its digest then says what it holds."""
    with h5py.File(path, "r+") as file:
        yield file
    seal(path)
