"""The real readers of NIR run our files, spike for spike, and write files that we read.

``MTT_LAVA_NIR_PYTHONS`` names the Pythons that have them, as ``norse=/a/bin/python,sinabs=/b/bin/python``. ``mtt bench
readers`` prints the table: reader by kind of network.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from nir_files import clocked, hard_reset, soft_reset
from strategies import graphs, spike_inputs

from mtt_lava.run import RunError
from mtt_lava.studies.readers import (
    KINDS,
    NAMES,
    RESETS,
    VARIABLE,
    Case,
    Readers,
    compare,
    fired,
    kinds,
    named,
    readers,
    small,
)
from netx_export import nir
from netx_export.network import Network

PYTHONS = named()


def python_of(reader: str) -> str:
    """The Python that has a reader; without one the test is skipped."""
    if reader not in PYTHONS:
        pytest.skip(f"{VARIABLE} names no Python for {reader}")
    return PYTHONS[reader]


EXPECTED = {
    "sinabs": {
        "subtract": "chain, bias, threshold a neuron, kernel that is not square, sum of spikes, sum of currents"
    },
    "norse": {
        "zero": "chain, bias, threshold a neuron, kernel that is not square, feeds itself, sum of spikes, "
        "sum of currents, forgets at once"
    },
    "snntorch": {
        "zero": "chain, bias, kernel that is not square, sum of spikes, sum of currents, sum of flat ways, "
        "forgets at once, never decays"
    },
    "spikingjelly": {
        "zero": "chain, bias, kernel that is not square, feeds itself, sum of spikes, sum of currents, "
        "sum of flat ways, forgets at once, never decays"
    },
}
"""What each computes exactly; everything else, but for what leaks or, in Norse, never decays, is refused."""


def expected(network: Network, inputs: np.ndarray) -> dict[str, np.ndarray] | None:
    """What layers fire, by plain NumPy; None where a state leaves its bits."""
    return (hard_reset if network.reset == "zero" else soft_reset)(network, inputs)


@pytest.mark.parametrize("reset", RESETS)
def test_what_they_are_compared_with(reset: str) -> None:
    """The networks of the table fire what they should, each of them something."""
    for case in kinds(reset):
        should = expected(case.network, case.inputs)
        assert should is not None
        assert case.spikes.keys() == should.keys()
        for name, spikes in should.items():
            np.testing.assert_array_equal(case.spikes[name], spikes)
            assert spikes.any(), (case.network.source, name)


def test_without_readers_the_table_says_what_is_refused() -> None:
    """A line a kind of network, a column a reader and reset; what is written, and whether the reader was run."""
    table = readers({})
    assert repr(table) == "<Readers: none run>"
    for reader, reset in table.found:
        exact = [kind for kind in EXPECTED[reader].get(reset, "").split(", ") if kind]
        for kind, answer in table.found[reader, reset].items():
            assert answer == "not run" or answer.startswith("refused")
            assert answer == "not run" or kind not in exact
    lines = str(table).splitlines()
    assert lines[0].split() == list(NAMES)
    assert [line.strip().split("  ")[0] for line in lines[1:]] == [
        row for text in RESETS.values() for row in (text, *KINDS)
    ]


@pytest.mark.parametrize(
    ("pythons", "message"),
    [
        ("norse", "norse: give READER=PYTHON,..., with readers of sinabs, norse, snntorch, spikingjelly"),
        ("nrose=python", "nrose=python: give READER=PYTHON"),
        ("norse=nosuch", "norse=nosuch: no such program: name the Python of an environment with norse"),
    ],
)
def test_pythons_that_are_not_there(pythons: str, message: str) -> None:
    with pytest.raises(RunError, match=message):
        readers(named(pythons))


def test_a_python_without_the_reader_is_named(tmp_path: Path) -> None:
    """By what it ends with."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho ModuleNotFoundError: no norse >&2\nexit 1\n")
    python.chmod(0o755)
    network = small("chain")
    inputs = np.zeros((1, 2, 6, 6, 1), np.int64)
    with pytest.raises(RunError, match=r"norse=.*python did not run: ModuleNotFoundError: no norse"):
        compare("norse", [Case(network, inputs, fired(network, inputs))], tmp_path, str(python))


@pytest.fixture(scope="module")
def table() -> Readers:
    """The table, with those readers that are there."""
    return readers()


@pytest.mark.slow
@pytest.mark.parametrize("reader", NAMES)
def test_what_a_reader_computes_is_exact_or_refused(reader: str, table: Readers) -> None:
    python_of(reader)
    assert table.versions[reader]
    for reset in RESETS:
        found = table.found[reader, reset]
        exact = [kind for kind in EXPECTED[reader].get(reset, "").split(", ") if kind]
        assert [kind for kind, answer in found.items() if answer.startswith("exact")] == exact, found
        assert all(answer.startswith(("exact", "refused")) for answer in found.values()), found


@pytest.mark.slow
@pytest.mark.parametrize("reader", NAMES)
def test_random_networks_fire_the_same(reader: str, tmp_path: Path) -> None:
    """Integrate-and-fire networks of any graph that is written: the same spikes in every layer."""
    python = python_of(reader)
    cases: list[Case] = []

    @settings(max_examples=80, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(
        (clocked(reader) | clocked(reader, graphs("any"))).flatmap(
            lambda network: spike_inputs(network).map(lambda x: (network, x))
        )
    )
    def draw(case: tuple[Network, np.ndarray]) -> None:
        spikes = expected(*case)
        # By subtraction neurons fire any number of times a time step; with so few, sums stay exact in float32.
        if spikes is not None and max(count.max() for count in spikes.values()) <= 2000:
            cases.append(Case(*case, spikes))

    draw()
    found, _ = compare(reader, cases, tmp_path, python)
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
    writer = Path(__file__).with_name("nir_writer.py")
    command = [python_of(reader), str(writer), reader, str(path), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    network = nir.read(path, **options)
    with np.load(out) as content:
        inputs, spikes = content["inputs"].astype(int), content["spikes"]
    found = expected(network, inputs)
    assert found is not None
    np.testing.assert_array_equal(found[network.spiking[-1].name], spikes)
    assert spikes.sum() > 20
