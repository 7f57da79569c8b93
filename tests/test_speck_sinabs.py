"""Scripts for Speck: what they hold, what is refused, and that sinabs computes what `event` does.

``MTT_LAVA_NIR_PYTHONS=sinabs=/a/bin/python`` names the Python that has sinabs, for the slow tests.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from speck_networks import random_events, speck_networks

import hw_profiles
from hw_profiles import write_speck
from netx_export.event.backend import Events, simulate
from netx_export.network import Network

SPECK = hw_profiles.load("speck2e")


def drawn(count: int) -> list[tuple[Network, Events]]:
    """Random networks and events."""
    cases = []

    @settings(max_examples=count, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(speck_networks(), st.integers(0, 2**32 - 1))
    def draw(network: Network, seed: int) -> None:
        cases.append((network, random_events(network, seed)))

    draw()
    return cases


def answers(cases: list[tuple[Network, Events]], folder: Path, python: str) -> list[tuple[np.ndarray, Any]]:
    """What the scripts of the networks make of the events in sinabs, and of the chip."""
    job: dict[str, Any] = {"scripts": []}
    for i, (network, events) in enumerate(cases):
        write_speck(network, folder / f"script{i}.py")
        job["scripts"].append(str(folder / f"script{i}.py"))
        job |= {f"{i}/{name}": getattr(events, name) for name in ("sample", "c", "y", "x")}
    np.savez(folder / "job.npz", **job)
    runner = Path(__file__).with_name("speck_runner.py")
    command = [python, str(runner), str(folder / "job.npz"), str(folder / "out.npz")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(folder / "out.npz") as out:
        return [(out[f"{i}/events"], json.loads(str(out[f"{i}/chip"]))) for i in range(len(cases))]
