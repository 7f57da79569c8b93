"""Scripts for Speck: what they hold, what is refused, and that sinabs computes what `event` does.

``MTT_LAVA_NIR_PYTHONS=sinabs=/a/bin/python`` names the Python that has sinabs, for the slow tests.
"""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from speck_networks import random_events, speck_networks
from test_nir_readers import python_of

import hw_profiles
from hw_profiles import write_speck
from netx_export import NetworkError, read
from netx_export.connections import connections
from netx_export.event.backend import COLUMNS, Events, simulate
from netx_export.network import Add, Average, Conv, Dense, Flatten, Layer, Network, Neuron, Pool

SPECK = hw_profiles.load("speck2e")
NMNIST = Path(__file__).parents[2] / "shared/data/nmnist_small"
Case = tuple[Network, Events]


def expected(network: Network, events: Events) -> np.ndarray:
    """Output events of `event`, (n, 5): sample, t, channel, row, column."""
    found = simulate(network, events, chip=SPECK.event_rules(), record=["events"], progress=False).events
    assert found is not None
    return np.stack([getattr(found, name) for name in COLUMNS], 1)


def drawn(count: int) -> list[Case]:
    """Random networks and events, without those in which an event becomes thousands."""
    cases: list[Case] = []

    @settings(max_examples=2 * count, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(speck_networks(), st.integers(0, 2**32 - 1))
    def draw(network: Network, seed: int) -> None:
        events = random_events(network, seed)
        if simulate(network, events, progress=False).spikes_per_layer.max() <= 2000 and len(cases) < count:
            cases.append((network, events))

    draw()
    return cases


# ------------------------------------------------------------------------------------------------ without sinabs


class Neurons(torch.nn.Module):
    """As sinabs documents its IAFSqueeze with MultiSpike and MembraneSubtract: (T, C, H, W) currents to spikes."""

    def __init__(self, batch_size: int, spike_threshold: Any, min_v_mem: Any, spike_fn: str, reset_fn: str) -> None:
        super().__init__()
        assert (batch_size, spike_fn, reset_fn) == (1, "several spikes", "by subtraction")
        self.threshold, self.lowest, self.v = float(spike_threshold), float(min_v_mem), torch.zeros(())

    def forward(self, currents: torch.Tensor) -> torch.Tensor:
        spikes = torch.zeros_like(currents)
        for t, current in enumerate(currents):
            v = self.v + current
            spikes[t] = (v / self.threshold).floor().clamp(min=0)
            self.v = (v - spikes[t] * self.threshold).clamp(min=self.lowest)
        return spikes


class SumPool(torch.nn.AvgPool2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * self.kernel_size[0] * self.kernel_size[1]  # type: ignore[index]


@pytest.fixture
def sinabs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What scripts take of sinabs, written down anew, so that they run here; that it is so, the slow tests say."""
    package, layers, activation = (ModuleType(f"sinabs{end}") for end in ("", ".layers", ".activation"))
    layers.IAFSqueeze, layers.SumPool2d = Neurons, SumPool  # type: ignore[attr-defined]
    layers.Merge = type("Merge", (torch.nn.Module,), {"forward": lambda self, one, other: one + other})  # type: ignore
    activation.MultiSpike, activation.MembraneSubtract = "several spikes", lambda: "by subtraction"  # type: ignore

    def rest(module: torch.nn.Module) -> None:
        for each in module.modules():
            if isinstance(each, Neurons):
                each.v = torch.zeros(())

    package.reset_states, package.layers = rest, layers  # type: ignore[attr-defined]
    for module in (package, layers, activation):
        monkeypatch.setitem(sys.modules, module.__name__, module)


@given(speck_networks(), st.integers(0, 2**32 - 1))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_script_runs_the_network(tmp_path: Path, sinabs: None, network: Network, seed: int) -> None:
    """Counts and order of output events of files of recordings are those of `event`; twice, from rest each time."""
    events = random_events(network, seed, count=20)
    if simulate(network, events, progress=False).spikes_per_layer.max() > 500:
        return
    path = tmp_path / "net.py"
    write_speck(network, path)
    assert path.read_text().isascii()
    script = runpy.run_path(str(path))
    source, target = tmp_path / "events.npz", tmp_path / "output.npz"
    np.savez(source, **{name: getattr(events, name) for name in COLUMNS})
    for _ in range(2):
        script["run_file"](source, target)
        with np.load(target) as output:
            np.testing.assert_array_equal(np.stack([output[name] for name in COLUMNS], 1), expected(network, events))
    # In time steps it is a network too, and every layer has the core of the placement.
    run = script["Network"]()
    assert run(torch.ones(3, *script["INPUT"])).shape[1:] == (*network.shape, 1, 1)[:3]
    cores = {name: conv.core for name, *_, module in run.table for conv in module.children() if hasattr(conv, "core")}
    assert cores == cores_of(network)


def cores_of(network: Network) -> dict[str, int]:
    """The core of every layer."""
    return {part.name: core.number for core in hw_profiles.place(network, SPECK).cores for part in core.parts}


def test_weights_of_another_file_are_refused(tmp_path: Path, sinabs: None, chain: Network) -> None:
    """A script runs with the file that was written with it, and with no other."""
    write_speck(chain, tmp_path / "net.py")
    script = runpy.run_path(str(tmp_path / "net.py"))
    np.testing.assert_array_equal(read(tmp_path / "net.net")["fc"].weight, chain["fc"].weight)
    script["Network"]()
    with (tmp_path / "net.net").open("ab") as file:
        file.write(b"x")
    with pytest.raises(SystemExit, match="not the file that this script was written with"):
        script["Network"]()


def test_recordings_without_events(tmp_path: Path, sinabs: None, chain: Network) -> None:
    """No events give no events."""
    write_speck(chain, tmp_path / "net.py")
    np.savez(tmp_path / "events.npz", **{name: np.zeros(0, int) for name in COLUMNS})
    runpy.run_path(str(tmp_path / "net.py"))["run_file"](tmp_path / "events.npz", tmp_path / "output.npz")
    with np.load(tmp_path / "output.npz") as output:
        assert [len(output[name]) for name in COLUMNS] == [0] * 5


# ------------------------------------------------------------------------------------------------ what is refused

MAPS, HALF = (2, 4, 4), (2, 2, 2)


def conv(source: str, name: str, threshold: Any = 9, weight: int = 5, shape: tuple[int, ...] = MAPS) -> Conv:
    """A convolution of one pixel, which keeps the shape."""
    values = np.full((shape[0], shape[0], 1, 1), weight)
    return Conv(in_shape=shape, shape=shape, weight=values, neuron=Neuron(threshold), inputs=(source,), name=name)


def pool(source: str, name: str) -> Pool:
    return Pool(in_shape=MAPS, shape=HALF, inputs=(source,), name=name)


def summed(*inputs: str, shape: tuple[int, ...] = MAPS) -> Add:
    return Add(in_shape=shape, shape=shape, inputs=inputs, name="sum")


def ended(*layers: Layer) -> Network:
    """These layers, and a dense one behind them."""
    last = layers[-1]
    flat = (int(np.prod(last.shape)),)
    end = (
        Flatten(in_shape=last.shape, shape=flat, inputs=(last.name,), name="flat"),
        Dense(in_shape=flat, shape=(3,), weight=np.full((3, *flat), 4), neuron=Neuron(9), inputs=("flat",), name="fc"),
    )
    return bare(*layers, *end)


def bare(*layers: Layer) -> Network:
    return Network(layers, reset="subtract", source="n")


@pytest.fixture
def chain() -> Network:
    """A convolution and a dense layer."""
    return ended(conv("input", "a"))


A = conv("input", "a")
ROW = (A, *(conv(chr(97 + i), chr(98 + i)) for i in range(9)))
TWO_WAYS = (A, pool("a", "p"), pool("a", "q"), summed("p", "q", shape=HALF), conv("sum", "b", shape=HALF))
POOLED = (pool("input", "p"), conv("p", "a", shape=HALF), conv("input", "b"), pool("b", "q"))
CAMERA = (*POOLED, summed("q", "a", shape=HALF), conv("sum", "c", shape=HALF))
REFUSED: list[tuple[Network, str]] = [
    (replace(ended(A), reset="zero"), "n: its neurons reset to zero"),
    (replace(ended(A), readout="voltage"), "n: its answer is a voltage"),
    (ended(replace(A, neuron=Neuron(9, bias=np.array([1, 0])))), "n does not fit speck2e: a: bias: train bias-free"),
    (ended(*ROW), "layers 11 > 9: use fewer layers"),
    (ended(conv("input", "a", np.array([9, 8]))), "layer a: threshold 8..9 differs from neuron to neuron"),
    (ended(conv("input", "a", 0)), "layer a: threshold 0: .* use 1"),
    (ended(conv("input", "a", 32_700, 100)), "layer a: threshold 32700 plus largest weight 100 > 32767"),
    (ended(A, summed("a", "input"), conv("sum", "b")), "layer sum: adds up the input itself"),
    (ended(*TWO_WAYS), "layer b: a reaches it in two ways"),
    (ended(*CAMERA), "layer b: the camera pools the input alike for all cores"),
    (bare(A, pool("a", "p")), "layer p: nothing on the chip does what stands behind"),
    (bare(*ended(A), Average(in_shape=(3,), shape=(1,), name="m")), "layer m: sinabs has no average for the chip"),
]


@pytest.mark.parametrize(("network", "message"), REFUSED)
def test_what_is_not_exact_is_refused(network: Network, message: str, tmp_path: Path) -> None:
    """By name, and nothing is written."""
    with pytest.raises(NetworkError, match=message):
        write_speck(network, tmp_path / "net.py")
    assert not list(tmp_path.iterdir())


def test_other_boards_and_names_are_refused(chain: Network, tmp_path: Path) -> None:
    with pytest.raises(hw_profiles.ProfileError, match="profile dynapcnn: sinabs loads boards of speck2e and speck2f"):
        write_speck(chain, tmp_path / "net.py", "dynapcnn")
    for name in ("my-net.py", "net.net"):
        with pytest.raises(NetworkError, match=f"{name}: a script's name is a word that Python can import, and .py"):
            write_speck(chain, tmp_path / name)
    write_speck(chain, tmp_path / "net.py", "speck2f")
    assert "--board speck2fdevkit:0" in (tmp_path / "net.py").read_text()


# ------------------------------------------------------------------------------------------------ in sinabs


def answers(cases: list[Case], folder: Path) -> list[tuple[np.ndarray, Any]]:
    """What the scripts of the networks make of the events in sinabs, and of the chip."""
    python = python_of("sinabs")
    job: dict[str, Any] = {"scripts": []}
    for i, (network, events) in enumerate(cases):
        write_speck(network, folder / f"script{i}.py")
        job["scripts"].append(str(folder / f"script{i}.py"))
        job |= {f"{i}/{name}": getattr(events, name) for name in ("sample", "c", "y", "x")}
    np.savez(folder / "job.npz", **job)
    runner = Path(__file__).with_name("speck_runner.py")
    command = [python, str(runner), str(folder / "job.npz"), str(folder / "out.npz")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
    with np.load(folder / "out.npz") as out:
        return [(out[f"{i}/events"], json.loads(str(out[f"{i}/chip"]))) for i in range(len(cases))]


def assert_runs(case: Case, found: np.ndarray) -> int:
    """Fail unless the output events of sinabs are those of `event`, in number and in order; how many there are."""
    network, events = case
    starts = np.searchsorted(events.sample, np.arange(events.n))
    times = events.t[starts[found[:, 0]] + found[:, 1]]
    np.testing.assert_array_equal(np.column_stack([found[:, 0], times, found[:, 2:]]), expected(network, events))
    return len(found)


def assert_on_chip(network: Network, found: Any) -> None:
    """Fail unless sinabs maps the network onto the chip as it is: weights, thresholds, and who sends where."""
    assert found["differing"] == 0
    cores = cores_of(network)
    assert sorted(int(core) for core in found["cores"]) == sorted(cores.values())
    sends: dict[str, list[tuple[int, int]]] = {name: [] for name in ("input", *cores)}
    for way in connections(network):
        size = int(np.prod([layer.kernel[0] for layer in way.path if isinstance(layer, Pool)]))
        sends[way.source].append((cores[way.target], size))
    if any(size > 1 for _, size in sends["input"]):
        assert sorted((core, found["pools"][0]) for core in found["camera"]) == sorted(sends["input"])
    else:
        assert not found["camera"]
    for name, number in cores.items():
        layer, core = network[name], found["cores"][str(number)]
        assert layer.weight is not None
        assert layer.neuron is not None
        weight = np.swapaxes(np.array(core["weights"]), 2, 3)  # samna has columns first
        np.testing.assert_array_equal(weight.reshape(layer.weight.shape), layer.weight)
        assert (core["threshold_high"], core["threshold_low"]) == (layer.neuron.threshold, -int(layer.neuron.threshold))
        assert not any(np.any(core[name]) for name in ("return_to_zero", "leak_enable", "biases"))
        assert not np.any(core["neurons_initial_value"])
        assert sorted((to["layer"], to["pooling"]) for to in core["destinations"]) == sorted(sends[name])


@pytest.mark.slow
def test_random_networks_in_sinabs(tmp_path: Path) -> None:
    """100 of them, sums of two and three cores among them: the same events in the same order, and the same chip."""
    cases = drawn(100)
    assert len(cases) == 100
    found = answers(cases, tmp_path)
    outputs = [assert_runs(case, events) for case, (events, _) in zip(cases, found, strict=True)]
    for (network, _), (_, chip) in zip(cases, found, strict=True):
        assert_on_chip(network, chip)
    merged = [n for n, (network, _) in zip(outputs, cases, strict=True) if any(isinstance(x, Add) for x in network)]
    assert sum(n > 0 for n in outputs) > 50
    assert sum(n > 0 for n in merged) > 15


@pytest.mark.slow
@pytest.mark.skipif(not NMNIST.is_dir(), reason="shared/data/nmnist_small is not here")
@pytest.mark.parametrize("model", ["nmnist-3c1fc", "nmnist-sum2"])
def test_n_mnist_in_sinabs(model: str, tmp_path: Path) -> None:
    """A trained network on all test digits: the same output events, in number and in order."""
    from mtt_lava import Settings, train
    from mtt_lava.data import open_dataset
    from mtt_lava.deploy import to_network
    from mtt_lava.evaluation import to_events

    python_of("sinabs")
    settings = Settings.make(model, data="nmnist", root=str(NMNIST), profile="speck2e", epochs=8, norm="scale")
    network = to_network(train(settings, tmp_path / "run"))
    events = to_events(open_dataset("nmnist", split="test", root=NMNIST))
    ((found, chip),) = answers([(network, events)], tmp_path)
    assert_on_chip(network, chip)
    fired = assert_runs((network, events), found)
    print(f"{model}: {fired} output events of {events.n} digits")
    assert events.n == 100
    assert fired > 500
