"""The script in FORMAT.md, which loads an exported file in Lava without this package, gives the same spikes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import netx_export
from mtt_lava import Run, Settings, SpikingNetwork, load_model, to_network
from netx_export import netx
from netx_export.lava.child import kill_group
from netx_export.network import Network
from netx_export.quantise import weight_scale
from netx_export.simulation import simulate

TEXT = (Path(netx_export.__file__).parent / "FORMAT.md").read_text()
SCRIPT = re.search(r"## In Lava, without.*?```python\n(.*?)```", TEXT, flags=re.DOTALL).group(1)  # type: ignore[union-attr]
RESETS = ", reset_interval=T, reset_offset=1"
CONV = [
    {"type": "conv", "channels": 3, "kernel": 3, "padding": 1},
    {"type": "pool", "kernel": 2},
    {"type": "dense", "features": 5},
]


def exported(biases: str, layers: list[dict[str, Any]], path: Path) -> Network:
    """A lowered network with random weights and biases, and its file."""
    model = {"name": "m", "input": [2, 6, 4], "readout": "count", "layers": layers}
    choices = {"norm": "batch", "biases": biases}
    run = Run(Settings.make(model, data="digits-dvs", **choices), SpikingNetwork(load_model(model)))
    torch.manual_seed(1)
    for block in run.network.weighted:
        block.synapse.weight.data = torch.randn_like(block.synapse.weight)
        torch.nn.init.normal_(block.neuron.norm.offset, std=0.3)
    run.network.fold_norms(biases != "none")
    run.network.quantise([weight_scale(block.synapse.weight.detach().numpy()) for block in run.network.weighted], 8)
    network = to_network(run, 7)
    netx.write(network, path)
    return network


def by_hand(script: str, folder: Path) -> np.ndarray:
    """What a script saves as spikes; Lava's processes end with it."""
    process = subprocess.Popen([sys.executable, "-c", script], cwd=folder, start_new_session=True)
    try:
        assert process.wait(timeout=120) == 0
    finally:
        kill_group(process.pid)
    spikes: np.ndarray = np.load(folder / "spikes.npy")
    return spikes


@pytest.mark.lava
@pytest.mark.filterwarnings("ignore::netx_export.netx.NetxWarning")
@pytest.mark.parametrize(
    ("biases", "layers"), [("kept", CONV), ("scaled", CONV), ("scaled", CONV[2:])], ids=["kept", "scaled", "dense"]
)
def test_the_script_gives_the_same_spikes(biases: str, layers: list[dict[str, Any]], tmp_path: Path) -> None:
    """Several samples of counts through biases kept and scaled: not a spike differs, and does without the resets."""
    network = exported(biases, layers, tmp_path / "digits.net")
    assert any(layer.neuron.bias is not None and layer.neuron.bias.any() for layer in network.spiking if layer.neuron)
    inputs = np.random.default_rng(2).integers(0, 4, (3, 2, 6, 4, 7))
    np.save(tmp_path / "input.npy", inputs)
    wanted = simulate(tmp_path / "digits.net", inputs, "fast", progress=False).spikes
    assert 0 < wanted.mean() < 1
    np.testing.assert_array_equal(by_hand(SCRIPT, tmp_path), wanted)
    if biases == "kept":
        assert RESETS in SCRIPT
        assert (by_hand(SCRIPT.replace(RESETS, ""), tmp_path) != wanted).any()


@pytest.mark.filterwarnings("ignore::netx_export.netx.NetxWarning")
def test_the_line_of_an_export_has_the_numbers(tmp_path: Path) -> None:
    """T, shapes and latency of this network; nothing for one that Lava cannot run."""
    network = exported("scaled", CONV, tmp_path / "digits.net")
    line = netx.in_lava(network, "digits.net")
    assert "Network('digits.net', input_message_bits=32, reset_interval=7, reset_offset=1)" in line
    assert "(4, 6, 2, N*T); run N*T + 3 steps; sample n answers in rows n*T + 3 .. (n+1)*T + 2" in line
    assert "\n" not in line
    dense = exported("kept", CONV[2:], tmp_path / "dense.net")
    assert "(48, N*T); run N*T + 1 steps" in netx.in_lava(dense, "dense.net")
    assert netx.in_lava(Network(dense.layers, reset="subtract"), "dense.net") == ""
