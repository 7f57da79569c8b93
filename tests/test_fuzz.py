"""Hostile and damaged input: one line, quickly, without the memory it declares."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import fuzz
import pytest

from netx_export.text import UserError

CASES = Path(__file__).parents[2] / "shared" / "cases"


def faults(cases: int, readers: tuple[str, ...]) -> list[str]:
    """What went wrong, one text a case; every case is counted."""
    said: list[str] = []
    counts = fuzz.fuzz(cases, readers, say=said.append)
    assert sum(sum(found.values()) for found in counts.values()) == cases
    assert all(found["refused"] for found in counts.values())
    return said


@pytest.mark.parametrize("reader", [reader for reader in fuzz.READERS if reader != "net"])
@pytest.mark.filterwarnings("ignore")
def test_quick_fuzz(reader: str):
    """A few mutations for every reader, in this process: read, or refused in one line under 300 characters."""
    fuzz.warm_up(reader)
    found = [(seed, *fuzz.outcome(reader, seed)) for seed in range(40)]
    assert [case for case in found if case[1] in fuzz.FAULTS] == []
    assert "refused" in {result for _, result, _ in found}


def test_the_command_counts_every_case(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Cases run in children, and their counts come as JSON; no fault is exit code 0."""
    arguments = ["--cases", "30", "--reader", "profile", "--json"]
    monkeypatch.setattr("sys.argv", ["fuzz.py", *arguments])
    assert fuzz.main() == 0
    counts = json.loads(capsys.readouterr().out)["profile"]
    assert sum(counts.values()) == 30
    assert list(counts) == list(fuzz.OUTCOMES)


@pytest.mark.slow
def test_long_fuzz():
    """The 20,000 cases of the command: no hang, no traceback, no memory above 1 GB, no crash."""
    assert faults(20_000, fuzz.READERS) == []


def test_the_harness_sees_faults():
    """A traceback, a message of two lines and memory are told from a refusal, in a process that has held little."""
    code = """
import fuzz
import numpy as np
from netx_export.text import UserError

def refuses(reader, seed):
    if seed == 0:
        raise KeyError("x")
    if seed == 1:
        raise OSError("two\\nlines")
    if seed == 2:
        raise UserError("no")
    np.ones(fuzz.MEMORY // 8 + (1 << 22))

fuzz.run_case = refuses
print(*(fuzz.outcome("npy", seed)[0] for seed in range(4)))
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["traceback", "message", "refused", "memory"]


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ("import time; print('ready', flush=True); input(); time.sleep(60)", "hang"),
        ("import os; print('ready', flush=True); input(); os.kill(os.getpid(), 11)", "crash"),
    ],
)
def test_children_that_hang_or_crash_are_counted(
    script: str, outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The next case gets a new child."""
    (tmp_path / "child.py").write_text(script)
    monkeypatch.setattr(fuzz, "__file__", str(tmp_path / "child.py"))
    monkeypatch.setattr(fuzz, "HANG_SECONDS", 0.3)
    assert [(seed, result) for seed, result, _ in fuzz.run_cases("npy", range(2))] == [(0, outcome), (1, outcome)]


@pytest.mark.skipif(not CASES.is_dir(), reason="needs the cases beside the repository")
@pytest.mark.parametrize(
    ("name", "reader", "target"),
    [
        *((name, "npy", "in.npy") for name in ("header_insert.npy", "shape_huge.npy", "typeerror.npy")),
        ("ten_million_samples.npz", "events", "in.npz"),
        *((name, "profile", "in.toml") for name in ("deep_profile.toml", "state_bits_2e31.toml")),
        *((name, "model", "in.toml") for name in ("kernel0.toml", "not_utf8.toml")),
    ],
)
def test_cases_that_broke_something(name: str, reader: str, target: str):
    """Each is refused in one line, at once, without memory."""
    fuzz.warm_up(reader)
    before, started = fuzz.held(), time.monotonic()
    with pytest.raises(UserError) as error:
        fuzz.read_files(reader, {target: (CASES / name).read_bytes()})
    assert time.monotonic() - started < 5
    assert fuzz.held() - before < 1 << 28
    assert len(str(error.value)) < 300
    assert str(error.value).isprintable()
