"""Compiled loops on disk: what one process leaves there, another can run."""

import subprocess
import sys
from pathlib import Path

import pytest

LOOP = """
def total(x):
    of = x[0]
    for i in range(1, len(x)):
        of += x[i]
    return of
"""
TWO_AT_ONCE = """
import numpy as np
from {module} import {name} as compiled
from loop import total

first, second = compiled(total), compiled(total)
ours, theirs = first._cache._cache_file, second._cache._cache_file
save, looked = ours._save_data, theirs._load_index()


def late(name, data):
    # Another process looked into the index before we wrote to it, and compiles for other arguments meanwhile.
    theirs._load_index = lambda: dict(looked)
    second._cache.load_overload = lambda *_: None
    second(np.arange(3, dtype=np.int32))
    save(name, data)


ours._save_data = late
first(np.arange(3, dtype=np.float64))
"""
A_THIRD = """
import numpy as np
from {module} import {name} as compiled
from loop import total

print(compiled(total)(np.arange(100, dtype=np.int32)), compiled(total)(np.arange(100, dtype=np.float64)))
"""


def outcome(folder: Path, module: str, name: str) -> str:
    """What a third process gets for sums of 0 to 99 after two have compiled at once for different arrays."""
    (folder / "loop.py").write_text(LOOP)
    for script in (TWO_AT_ONCE, A_THIRD):
        text = script.format(module=module, name=name)
        command = [sys.executable, "-c", text]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0 or script is A_THIRD, done.stderr
    return done.stdout.strip()


def test_processes_that_compile_at_once_leave_each_other_s_code_alone(tmp_path: Path) -> None:
    assert outcome(tmp_path, "netx_export.compiled", "compiled") == "4950 4950.0"


@pytest.mark.slow
def test_numba_alone_mixes_the_code_up(tmp_path: Path) -> None:
    """Why `compiled` names its files itself; when this fails, Numba has mended it."""
    (tmp_path / "plain.py").write_text("from numba import njit\nalone = njit(cache=True)\n")
    assert outcome(tmp_path, "plain", "alone") != "4950 4950.0"
