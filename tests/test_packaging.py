"""What a release is made of: its version, and a wheel that works with nothing of this repository beside it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from mtt_lava import __version__

ROOT = Path(__file__).parents[1]
needs_uv = pytest.mark.skipif(shutil.which("uv") is None, reason="there is no uv to build and install with")

USER = """
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hw_profiles import check, load
from mtt_lava import Settings, evaluate, export, train
from netx_export import simulate


def deploy(folder: Path) -> float:
    run = train(Settings.make("nmnist-3c1fc", data="digits-dvs", epochs=2, samples=50), folder / "run")
    network, report = export(run, folder / "digits.net")
    result = simulate(folder / "digits.net", np.zeros((1, *network.in_shape, 4), dtype=np.int64))
    voltages: NDArray[np.int64] = result.readout
    fits: bool = report.fits and check(network, load("loihi1")).fits
    return evaluate(run, [1, 2])[0].accuracy if fits else float(voltages.sum())
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Its output; an error shows all of it."""
    done = subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_version_stands_in_one_place():
    """And the citation and the changelog know it."""
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert "version =" not in (ROOT / "pyproject.toml").read_text().split("[project]")[1].split("[")[0]


@pytest.mark.slow
def test_a_users_script_is_checked_by_their_mypy(tmp_path: Path):
    """Types reach who uses them (py.typed): a right script passes a strict check, a wrong one does not."""
    (tmp_path / "deploy.py").write_text(USER)
    command = (sys.executable, "-m", "mypy", "--strict", "--ignore-missing-imports", "--follow-imports=silent")
    run(*command, "deploy.py", cwd=tmp_path)
    (tmp_path / "wrong.py").write_text(USER.replace("evaluate(run, [1, 2])", "evaluate(run, 'all')"))
    done = subprocess.run([*command, "wrong.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert 'Argument 2 to "evaluate"' in done.stdout


@needs_uv
@pytest.mark.slow
def test_the_wheel_runs_in_a_bare_environment(tmp_path: Path):
    """Built from the source distribution, which holds the tests too; trained, exported and checked with it."""
    source = tmp_path / "source"
    run("git", "clone", "--quiet", ROOT, source, cwd=tmp_path)
    run("uv", "build", "--out-dir", tmp_path / "dist", cwd=source)
    (wheel,), (archive,) = (tmp_path / "dist").glob("*.whl"), (tmp_path / "dist").glob("*.tar.gz")
    assert __version__ in wheel.name
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
    for name in ("mtt_lava/models/nmnist-3c1fc.toml", "hw_profiles/profiles/loihi2.toml", "netx_export/py.typed"):
        assert name in names
    assert not [name for name in names if name.startswith(("tests", "notebooks"))]
    with tarfile.open(archive) as file:
        assert f"{archive.name.removesuffix('.tar.gz')}/tests/test_packaging.py" in file.getnames()
    run("uv", "venv", "--python", sys.executable, tmp_path / "bare", cwd=source)
    python = tmp_path / "bare" / "bin" / "python"
    run("uv", "pip", "install", "--quiet", "--python", python, wheel, cwd=source)
    mtt = python.with_name("mtt")
    assert __version__ in run(mtt, "--version", cwd=tmp_path)
    arguments = ("--data", "digits-dvs", "--samples", "50", "--epochs", "2", "--time-steps", "4", "--out", "digits")
    run(mtt, "train", "nmnist-3c1fc", *arguments, cwd=tmp_path)
    run(python.with_name("mtt-export"), "digits", "digits.net", cwd=tmp_path)
    assert "fits" in run(mtt, "check", "digits.net", "--profile", "loihi2", cwd=tmp_path)
