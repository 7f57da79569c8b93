"""The real readers of NIR run our files, spike for spike, and write files that we read.

``MTT_LAVA_NIR_PYTHONS`` names the Pythons that have them, as ``norse=/a/bin/python,sinabs=/b/bin/python``. ``python
tests/test_nir_readers.py`` prints the table: reader by kind of network.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from nir_files import clocked, hard_reset, small, soft_reset
from strategies import spike_inputs

from netx_export import NetworkError, nir
from netx_export.network import Network
from netx_export.text import table

VARIABLE = "MTT_LAVA_NIR_PYTHONS"
PYTHONS = dict(pair.split("=", 1) for pair in os.environ.get(VARIABLE, "").split(",") if "=" in pair)
NAMES = [name for name in nir.READERS if name != "nir"]
KINDS = (
    *("chain", "bias", "threshold a neuron", "kernel that is not square", "feeds itself"),
    *("sum of spikes", "sum of currents", "forgets at once", "never decays", "leaks"),
)
Case = tuple[Network, np.ndarray]
"""A network and its input (N, ..., T)."""


def python_of(reader: str) -> str:
    """The Python that has a reader; without one the test is skipped."""
    if reader not in PYTHONS:
        pytest.skip(f"{VARIABLE} names no Python for {reader}")
    return PYTHONS[reader]


def differences(reader: str, cases: list[Case], folder: Path, python: str) -> list[str]:
    """For each case ``exact``, or how many spikes differ, or why it was refused; here, or there."""
    answers = {}
    job: dict[str, np.ndarray] = {}
    files: dict[int, str] = {}
    leaky = set()
    for i, (network, inputs) in enumerate(cases):
        try:
            notes = nir.write(network, folder / f"{i}.nir", reader, allow_inexact=True)
            leaky |= {i} if "floating point there" in "".join(notes) else set()
        except NetworkError as error:
            answers[i] = f"refused ({error})"
            continue
        job[f"input{len(files)}"] = inputs
        files[i] = str(folder / f"{i}.nir")
    if files:
        np.savez(folder / "job.npz", files=np.array(list(files.values())), **job)
        runner = Path(__file__).with_name("nir_runner.py")
        command = [python, str(runner), reader, str(folder / "job.npz"), str(folder / "out.npz")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-2000:]
        with np.load(folder / "out.npz") as out:
            for place, i in enumerate(files):
                found = {name.partition("/")[2]: out[name] for name in out.files if name.startswith(f"{place}/")}
                answers[i] = ("refused; with --allow-inexact " if i in leaky else "") + _compared(*cases[i], found)
    return [answers[i] for i in range(len(cases))]


def _compared(network: Network, inputs: np.ndarray, found: dict[str, np.ndarray]) -> str:
    if "error" in found:
        return f"fails there: {found['error']}"
    expected = (hard_reset if network.reset == "zero" else soft_reset)(network, inputs)
    assert expected is not None
    total = sum(int(spikes.sum()) for spikes in expected.values())
    wrong = 0
    for name, spikes in expected.items():
        answer = found["".join(c if c.isalnum() or c == "_" else "_" for c in name) + "_neuron"]
        if answer.shape != spikes.shape:
            return f"{name} has the shape {answer.shape}, not {spikes.shape}"
        wrong += int((answer != spikes).sum())
    return f"{wrong} of {total} spikes differ" if wrong else f"exact ({total} spikes)"


def kinds(reader: str, reset: str) -> list[Case]:
    """A network of every kind, and 20 samples of 10 time steps."""
    inputs = (np.random.default_rng(0).random((20, 2, 6, 6, 10)) < 0.3).astype(np.int64)
    return [(replace(small(kind), reset=reset), inputs) for kind in KINDS]


EXPECTED = {
    "sinabs": {"subtract": "chain, bias, threshold a neuron, kernel that is not square, sum of spikes"},
    "norse": {
        "zero": "chain, bias, threshold a neuron, kernel that is not square, feeds itself, sum of spikes, "
        "forgets at once"
    },
    "snntorch": {
        "zero": "chain, bias, kernel that is not square, sum of spikes, sum of currents, forgets at once, never decays"
    },
    "spikingjelly": {
        "zero": "chain, bias, kernel that is not square, feeds itself, sum of spikes, sum of currents, "
        "forgets at once, never decays"
    },
}
"""What each computes exactly; everything else, but for what leaks or, in Norse, never decays, is refused."""


@pytest.mark.slow
@pytest.mark.parametrize("reader", NAMES)
def test_what_a_reader_computes_is_exact_or_refused(reader: str, tmp_path: Path) -> None:
    python = python_of(reader)
    for reset in ("zero", "subtract"):
        found = differences(reader, kinds(reader, reset), tmp_path, python)
        exact = [kind for kind, answer in zip(KINDS, found, strict=True) if answer.startswith("exact")]
        refused = [kind for kind, answer in zip(KINDS, found, strict=True) if answer.startswith("refused")]
        expected = [kind for kind in EXPECTED[reader].get(reset, "").split(", ") if kind]
        assert exact == expected, found
        assert set(KINDS) == {*exact, *refused}, found


@pytest.mark.slow
@pytest.mark.parametrize("reader", NAMES)
def test_random_networks_fire_the_same(reader: str, tmp_path: Path) -> None:
    """Integrate-and-fire networks of any graph that is written: the same spikes in every layer."""
    python = python_of(reader)
    cases: list[Case] = []

    @settings(max_examples=60, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(clocked(reader).flatmap(lambda network: spike_inputs(network).map(lambda x: (network, x))))
    def draw(case: Case) -> None:
        spikes = (hard_reset if case[0].reset == "zero" else soft_reset)(*case)
        # By subtraction neurons fire any number of times a time step; with so few, sums stay exact in float32.
        if spikes is not None and max(count.max() for count in spikes.values()) <= 2000:
            cases.append(case)

    draw()
    found = differences(reader, cases, tmp_path, python)
    ran = [answer for answer in found if not answer.startswith("refused")]
    assert len(ran) >= 20, found
    known = ("exact", "refused")
    assert not [pair for pair in zip(cases, found, strict=True) if not pair[1].startswith(known)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reader", "options"),
    [
        ("sinabs", {"reset": "subtract"}),
        ("norse", {"reset": "zero"}),
        ("snntorch", {"dt": 1e-4}),
        ("spikingjelly", {"dt": 1e-4}),
    ],
)
def test_what_a_reader_writes_is_read(reader: str, options: dict[str, Any], tmp_path: Path) -> None:
    """A network with integer weights that it writes fires here what it fires there."""
    path, out = tmp_path / "a.nir", tmp_path / "out.npz"
    runner = Path(__file__).with_name("nir_runner.py")
    command = [python_of(reader), str(runner), reader, "--write", str(path), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    network = nir.read(path, **options)
    with np.load(out) as content:
        inputs, spikes = content["inputs"].astype(int), content["spikes"]
    found = (hard_reset if network.reset == "zero" else soft_reset)(network, inputs)
    assert found is not None
    np.testing.assert_array_equal(found[network.spiking[-1].name], spikes)
    assert spikes.sum() > 20


def main() -> None:
    """Print the table."""
    from tempfile import TemporaryDirectory

    rows = [["reader", "reset", *KINDS]]
    with TemporaryDirectory() as folder:
        for reader in [name for name in NAMES if name in PYTHONS]:
            for reset in ("zero", "subtract"):
                found = differences(reader, kinds(reader, reset), Path(folder), PYTHONS[reader])
                rows.append([reader, reset, *(answer.partition(" (")[0] for answer in found)])
    print("\n".join(table([list(column) for column in zip(*rows, strict=True)], left=1)))


if __name__ == "__main__":
    sys.exit(main())
