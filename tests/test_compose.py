"""Networks in somebody's own Lava script, between processes of their own, fire as they do on `fast`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import netx_export
from netx_export import Add, Conv, Dense, Flatten, Network, NetworkError, Neuron, netx, to_lava
from netx_export.lava.child import kill_group
from netx_export.network import Layer
from netx_export.simulation import simulate

TEXT = (Path(netx_export.__file__).parent / "FORMAT.md").read_text()
SCRIPT = re.search(r"## In Lava, between.*?```python\n(.*?)```", TEXT, flags=re.DOTALL).group(1)  # type: ignore[union-attr]
N, T = 3, 8


def first(graph: bool) -> Network:
    """A chain of convolutions with biases; or one with a shortcut of the input into a sum of currents."""
    rng = np.random.default_rng(1)
    fields = {"in_shape": (2, 4, 5), "shape": (2, 4, 5), "padding": (1, 1)}

    def weight() -> np.ndarray:
        return 2 * rng.integers(-30, 45, (2, 2, 3, 3))

    neuron = Neuron(250, 1000, 300, bias=np.array([5, 90]))
    a = Conv(name="a", weight=weight(), neuron=neuron, **fields)
    b = Conv(name="b", weight=weight(), neuron=None if graph else Neuron(300, 4096, 100), **fields)
    if not graph:
        return Network((a, b))
    short = Conv(name="short", inputs=("input",), weight=weight(), **fields)
    end = Add(name="sum", inputs=("b", "short"), in_shape=(2, 4, 5), shape=(2, 4, 5), neuron=Neuron(300, 2000, 0))
    return Network((a, b, short, end))


def second(kind: str) -> Network:
    """Dense layers: plain, or what holds spikes for later: delays, recurrent synapses."""
    rng = np.random.default_rng(2)
    weight, back = 2 * rng.integers(-20, 40, (6, 40)), 2 * rng.integers(-60, 100, (6, 6))
    delay = rng.integers(0, 4, (6, 40)) if kind == "delay" else None
    recurrent = back if kind == "recurrent" else None
    more = {"delay": delay, "recurrent": recurrent}
    layers: list[Layer] = [
        Dense(name="in", in_shape=(40,), shape=(6,), weight=weight, neuron=Neuron(300, bias=np.arange(6) * 30), **more),
        Dense(name="out", in_shape=(6,), shape=(4,), weight=2 * rng.integers(-30, 60, (4, 6)), neuron=Neuron(90)),
    ]
    return Network(tuple(layers))


def composed(script: str, folder: Path) -> np.ndarray:
    """What a script saves, as (N, F, T); Lava's processes end with it."""
    (folder / "script.py").write_text(script)
    process = subprocess.Popen([sys.executable, "script.py"], cwd=folder, start_new_session=True)
    try:
        assert process.wait(timeout=200) == 0
    finally:
        kill_group(process.pid)
    spikes: np.ndarray = np.load(folder / "spikes.npy")
    return spikes.transpose(1, 0, 2)


def sensed(samples: int, steps: int) -> np.ndarray:
    """What the script's sensor sends, (N, C, H, W, T)."""
    rows = [(np.random.default_rng(1 + t).random((5, 4, 2)) < 0.3).astype(int) for t in range(samples * steps)]
    return np.stack(rows).reshape(samples, steps, 5, 4, 2).transpose(0, 4, 3, 2, 1)


@pytest.mark.lava
@pytest.mark.filterwarnings("ignore::netx_export.netx.NetxWarning")
@pytest.mark.parametrize(
    ("graph", "kind"), [(False, "plain"), (True, "recurrent"), (False, "delay")], ids=["chain", "graph", "delays"]
)
def test_the_script_of_the_format_fires_as_fast(graph: bool, kind: str, tmp_path: Path) -> None:
    """A source of one's own, two files in a row, three samples: every spike, and none leaks into the next."""
    netx.write(first(graph), tmp_path / "first.net")
    netx.write(second(kind), tmp_path / "second.net")
    between = simulate(tmp_path / "first.net", sensed(N, T), "fast", progress=False).spikes
    wanted = simulate(tmp_path / "second.net", between.reshape(N, 40, T), "fast", progress=False).spikes
    assert 0 < between.mean() < 1
    assert 0 < wanted.mean() < 1
    np.testing.assert_array_equal(composed(SCRIPT, tmp_path), wanted)


@pytest.mark.lava
@pytest.mark.filterwarnings("ignore::netx_export.netx.NetxWarning")
def test_without_time_steps_there_is_one_sample(tmp_path: Path) -> None:
    """The same script, its input one sample of all time steps, which starts from rest although there are biases."""
    netx.write(first(True), tmp_path / "first.net")
    netx.write(second("plain"), tmp_path / "second.net")
    inputs = sensed(1, N * T)
    between = simulate(tmp_path / "first.net", inputs, "fast", progress=False).spikes
    wanted = simulate(tmp_path / "second.net", between.reshape(1, 40, N * T), "fast", progress=False).spikes
    script = SCRIPT.replace('.net", T', '.net"')
    assert script.count(", T") == SCRIPT.count(", T") - 2
    got = composed(script, tmp_path)  # (N, F, T) of one sample
    np.testing.assert_array_equal(got.transpose(1, 0, 2).reshape(1, 4, N * T), wanted)


def test_what_lava_cannot_run_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line, before Lava is imported; so is a Python that has none."""
    flat = Flatten(in_shape=(1, 2, 2), shape=(4,))
    layer = Dense(name="one", in_shape=(4,), shape=(2,), weight=np.full((2, 4), 2), neuron=Neuron(1))
    netx.write(Network((flat, layer)), tmp_path / "a.net")
    with pytest.raises(NetworkError, match="time_steps 0 must be at least 1"):
        to_lava(tmp_path / "a.net", 0)
    with pytest.raises(NetworkError, match=r"layer one of .* Lava computes with 32 bits"):
        to_lava(tmp_path / "a.net", largest=1 << 28)
    netx.write(Network((flat, layer), reset="subtract"), tmp_path / "b.net")
    with pytest.raises(NetworkError, match="its neurons reset by subtraction"):
        to_lava(tmp_path / "b.net")
    monkeypatch.setitem(sys.modules, "lava.magma.core.process.process", None)
    with pytest.raises(NetworkError, match="this Python has no Lava"):
        to_lava(tmp_path / "a.net")
