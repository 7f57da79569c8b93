"""The Python in which Lava runs.

Lava's last release needs Python 3.10 and PyTorch 2.3; nothing else here does. Where this Python has no Lava, its child
process runs in another: ``MTT_LAVA_PYTHON``, or the environment that ``mtt lava setup`` makes once.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec
from pathlib import Path

from netx_export.network import NetworkError

VARIABLE = "MTT_LAVA_PYTHON"
NEEDED = ("lava-nc", "lava-dl", "numpy", "scipy", "h5py", "setuptools")
"""What Lava's child imports, of what this package needs."""


def environment() -> Path:
    """Folder of the environment that `setup` makes: ``mtt-lava/lava`` where programs of this user keep their data."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "mtt-lava" / "lava"


def interpreter() -> str:
    """Path of the Python that runs Lava: that of ``MTT_LAVA_PYTHON``, this one, or that of `setup`, the first there is.

    Raises
    ------
    NetworkError
        There is none, or ``MTT_LAVA_PYTHON`` is no program.
    """
    named = os.environ.get(VARIABLE)
    if named:
        found = shutil.which(named)
        if found is None:
            raise NetworkError(f"{VARIABLE} is {named!r}, no program: name a Python that has lava-nc and lava-dl")
        return found
    # The package lava of SLAYER alone has no magma, which is what runs.
    if find_spec("lava") is not None and find_spec("lava.magma") is not None:
        return sys.executable
    own = environment() / "bin" / "python"
    if own.exists():
        return str(own)
    raise NetworkError(
        f"Lava runs on Python 3.10 only, and this is {sys.version_info.major}.{sys.version_info.minor}: make an "
        f"environment for it with mtt lava setup, or name a Python that has it in {VARIABLE}; or use --backend fast"
    )


def setup(python: str | None = None) -> Path:
    """Make the environment for Lava, with uv; its downloads take some 3 GB.

    Parameters
    ----------
    python : str, optional
        A Python 3.10; default: what uv finds, or downloads.

    Returns
    -------
    Path
        The environment's Python. One that was there before is replaced once the new one is whole.

    Raises
    ------
    NetworkError
        There is no uv, or it failed: its own last line.
    """
    uv = shutil.which("uv")
    if uv is None:
        raise NetworkError("mtt lava setup needs uv, and there is none: pip install uv")
    try:
        wanted = [each for each in requires("mtt-lava") or () if each.startswith(NEEDED)]
    except PackageNotFoundError:
        raise NetworkError("mtt lava setup: this package is not installed, so what Lava needs is not known") from None
    place = environment()
    new = place.with_name(f"{place.name}.new")
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(new, ignore_errors=True)
    try:
        _run(uv, "venv", "--relocatable", "--python", python or "3.10", str(new))
        _run(uv, "pip", "install", "--python", str(new / "bin" / "python"), *wanted)
        shutil.rmtree(place, ignore_errors=True)
        new.rename(place)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return place / "bin" / "python"


def _run(*command: str) -> None:
    """Run uv, whose bars go to the terminal where there is one."""
    shown = None if sys.stderr.isatty() else subprocess.PIPE
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=shown, text=True)
    if done.returncode:
        reason = ((done.stderr or "").strip().splitlines() or ["see above"])[-1].strip()
        raise NetworkError(f"{Path(command[0]).name} {command[1]} failed: {reason}")
