"""From a trained run to Lava: the exported file, the proof bit by bit, and spikes pinned for ever."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import reference
import torch

import hw_profiles
from mtt_lava import Run, Settings, SpikingNetwork, export, load_model, prove, to_network
from mtt_lava.data import from_events
from mtt_lava.proof import Proof
from mtt_lava.scoring import score
from netx_export import Conv, Dense, Flatten, Network, NetworkError, Neuron, layer_table, read, write
from netx_export.simulation import simulate

MODEL = {
    "name": "small",
    "input": [2, 8, 8],
    "readout": "count",
    "neuron": {"current_decay": 0.25, "voltage_decay": 0.125},
    "layers": [
        {"type": "conv", "channels": 3, "kernel": 3, "padding": 1},
        {"type": "pool", "kernel": 2},
        {"type": "dense", "features": 48},
    ],
}
PINNED = {
    "conv": "4e01475d67093961959995429d8fb9d6c3456e0d8abb9e873061600e45ddb5d2",
    "grouped": "bce462f2ecf36f1bbaed126d3ea1df6274a2a28b0a2f72b969d3730ea8d9003a",
    "dense": "85f86c4e4323f07cc0bb24582d084262e71cee8f8344d954e2f14f2c745bce2f",
}
"""SHA-256 of what every layer did: spikes, then u, then v after every step, int32, (N, C, H, W, T) in C order."""


def small_run() -> Run:
    """A small quantised network with random weights."""
    run = Run(Settings.make(MODEL, data="digits-dvs"), SpikingNetwork(load_model(MODEL), norm=None))
    rng = np.random.default_rng(2025)
    for block in run.network.weighted:
        block.synapse.weight.data = torch.from_numpy(rng.uniform(-0.4, 0.4, block.synapse.weight.shape)).float()
    run.network.quantise([640.0, 640.0], 8)
    return run


def pinned_network() -> Network:
    """A convolution, a grouped one and a dense layer, each with its own threshold and decays."""
    rng = np.random.default_rng(2025)

    def weight(low: int, high: int, *shape: int) -> np.ndarray:
        return 2 * rng.integers(low, high, shape)

    # Every output has the same weights in another order: none is silent, none always fires.
    balanced = 2 * np.stack([rng.permutation(np.arange(-20, 28) // 4) for _ in range(6)])
    layers = (
        Conv(
            name="conv", in_shape=(2, 8, 8), shape=(3, 8, 8), weight=weight(-90, 128, 3, 2, 3, 3), padding=(1, 1),
            neuron=Neuron(611, 1001, 333),
        ),
        Conv(
            name="grouped", in_shape=(3, 8, 8), shape=(3, 4, 4), weight=weight(5, 40, 3, 1, 2, 2),
            stride=(2, 2), groups=3, neuron=Neuron(301, 2047, 129),
        ),
        Flatten(name="flatten", in_shape=(3, 4, 4), shape=(48,)),
        Dense(name="dense", in_shape=(48,), shape=(6,), weight=balanced, neuron=Neuron(61, 1500, 257)),
    )  # fmt: skip
    return Network(layers, source="pinned")


def pinned_input() -> np.ndarray:
    """Graded input, (4, 2, 8, 8, 64)."""
    rng = np.random.default_rng(1503)
    return rng.integers(1, 4, (4, 2, 8, 8, 64)) * (rng.random((4, 2, 8, 8, 64)) < 0.05)


def digest(spikes: np.ndarray, u: np.ndarray, v: np.ndarray) -> str:
    return hashlib.sha256(np.stack([spikes, u, v]).astype("<i4").tobytes()).hexdigest()


def digest_of(record: dict[str, np.ndarray]) -> str:
    return digest(*(record[what] for what in ("spikes", "u", "v")))


def digests(network: Network, inputs: np.ndarray) -> list[str]:
    """Of every layer with neurons, as the plain NumPy reference runs it."""
    records = zip(reference.simulate(network, inputs), network, strict=True)
    return [digest_of(record) for record, layer in records if layer.neuron is not None]


@pytest.mark.lava
def test_lava_fires_the_pinned_spikes(tmp_path: Path):
    """Loihi-simulation regression: spikes and states of a file on Lava are those of the day this was written."""
    network = pinned_network()
    write(network, tmp_path / "pinned.net")
    record = simulate(tmp_path / "pinned.net", pinned_input(), record=("spikes", "u", "v"), progress=False).record
    done = {}
    for layer in network.spiking:
        done[layer.name] = digest(*(record[f"{what}.{layer.name}"] for what in ("spikes", "u", "v")))
    assert done == PINNED


def changed_by_one(network: Network) -> Iterator[tuple[str, Network]]:
    """Every network that differs in one weight, threshold or decay by one."""
    for i, layer in enumerate(network):
        if layer.neuron is None:
            continue
        assert layer.weight is not None
        changes = []
        for index in np.ndindex(layer.weight.shape):
            weight = layer.weight.copy()
            weight[index] += 1
            changes.append((f"{layer.name} weight {index}", replace(layer, weight=weight)))
        for field in ("threshold", "current_decay", "voltage_decay"):
            value = getattr(layer.neuron, field)
            neuron = replace(layer.neuron, **{field: value - 1 if value == 4096 else value + 1})
            changes.append((f"{layer.name} {field}", replace(layer, neuron=neuron)))
        for what, other in changes:
            yield what, Network((*network.layers[:i], other, *network.layers[i + 1 :]), readout=network.readout)


@pytest.mark.slow
def test_the_pins_tell_every_change_by_one():
    """No weight, threshold or decay can change by one without changing what is pinned."""
    inputs = pinned_input()
    network = pinned_network()
    records = reference.simulate(network, inputs)
    assert dict(zip(PINNED, digests(network, inputs), strict=True)) == PINNED
    for position, layer in enumerate(network):
        if layer.neuron is None:
            continue
        before = records[position - 1]["spikes"] if position else inputs
        wanted = digest_of(records[position])
        for what, other in changed_by_one(Network((replace(layer, inputs=()),), readout=network.readout)):
            assert digests(other, before) != [wanted], f"{what} may change unnoticed"


@pytest.mark.lava
def test_the_proof_finds_nothing_and_finds_a_wrong_weight(monkeypatch: pytest.MonkeyPatch):
    """Every spike on Lava is the trained network's, for both readouts' values too; one wrong weight shows."""
    from mtt_lava import deploy

    rng = np.random.default_rng(0)
    events = np.zeros((4, 600), [("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", bool)])
    for field, size in (("x", 8), ("y", 8), ("p", 2), ("t", 50_000)):
        events[field] = rng.integers(0, size, events.shape)
    data = from_events(list(events), [0, 1, 2, 3], sensor_size=(8, 8, 2), duration=50_000, classes=48)
    run = small_run()
    run.settings = run.settings.model_copy(update={"model": load_model(MODEL | {"readout": "voltage"})})
    network = SpikingNetwork(run.settings.model, norm=None)
    network.load_state_dict(run.network.state_dict())
    network.quantise(run.network.weight_scales, 8)
    run.network = network
    (proof,) = prove(run, [7], dataset=data, progress=False)
    assert proof.exact, proof
    assert proof.spikes > 1000
    assert proof.samples == 4
    assert proof.bits == 4 * 7 * (192 + 48)

    real = deploy.to_network

    def wrong(*arguments: object, **options: object) -> Network:
        network = real(*arguments, **options)
        last = network.layers[-1]
        assert isinstance(last, Dense)
        assert last.weight is not None
        last.weight[0, np.argmax(last.weight[0] < 200)] += 2
        return network

    monkeypatch.setattr(deploy, "to_network", wrong)
    (proof,) = prove(run, [7], samples=2, dataset=data, progress=False)
    assert not proof.exact
    assert proof.mismatches["readout"] > 0
    assert "in {'readout'" in str(proof)


def test_the_file_says_where_it_comes_from(tmp_path: Path):
    """Model, profile, T, readout and weight scales come back from the file, and the network as it was."""
    run = small_run()
    network, report = export(run, tmp_path / "a.net", profile="loihi1", time_steps=20)
    again = read(tmp_path / "a.net")
    assert again.info == network.info
    assert {"model": "small", "profile": "loihi1", "time_steps": 20, "method": "mtt"}.items() <= again.info.items()
    assert [layer.weight_scale for layer in again] == [640.0, 64.0, None, 640.0]
    assert report.profile == "loihi1"
    assert report.fits
    table = layer_table(again)
    assert all(name in table for name in ("conv1", "pool1", "dense1", "640", "threshold"))


def test_a_network_that_does_not_fit_is_reported(tmp_path: Path):
    """The report of an export names what the chip cannot do."""
    _, report = export(small_run(), tmp_path / "a.net", profile="speck2e")
    assert not report.fits
    assert "speck2e" in str(report)


def test_wide_pools_stay_within_lavas_groups():
    """Lava holds at most 127 groups: a pool of more channels is written with groups of several, and sums the same."""
    layers = [{"type": "pool", "kernel": 2}, {"type": "dense", "features": 2}]
    model = load_model({"name": "wide", "input": [256, 4, 4], "layers": layers})
    run = Run(Settings.make(model, data="digits-dvs"), SpikingNetwork(model, norm=None))
    run.network.quantise([64.0], 8)
    pool = to_network(run).layers[0]
    assert pool.groups == 64
    x = np.random.default_rng(0).integers(0, 2, (1, 256, 4, 4, 3))
    record = reference.simulate(Network((pool,)), x)[0]["spikes"]
    np.testing.assert_array_equal(record, x.reshape(1, 256, 2, 2, 2, 2, 3).sum((3, 5)) > 0)


def test_unquantised_networks_and_unknown_profiles_are_refused(tmp_path: Path):
    """With what to do, and without a file."""
    run = Run(Settings.make(MODEL, data="digits-dvs"), SpikingNetwork(load_model(MODEL)))
    with pytest.raises(ValueError, match="not quantised: train it to its end first"):
        export(run, tmp_path / "a.net")
    with pytest.raises(hw_profiles.ProfileError, match="loihi7"):
        export(small_run(), tmp_path / "a.net", profile="loihi7")
    assert list(tmp_path.iterdir()) == []


def test_a_layer_that_can_wrap_is_not_exported(tmp_path: Path):
    """SLAYER knows no 24 bits: fan-in 700 at weight 254 is refused, naming the layer."""
    layers = [{"type": "dense", "features": 700}, {"type": "dense", "features": 2}]
    model = load_model({"name": "heavy", "input": [4], "layers": layers})
    run = Run(Settings.make(model, data="digits-dvs"), SpikingNetwork(model, norm=None))
    for block in run.network.weighted:
        block.synapse.weight.data.fill_(1.0)
    run.network.quantise([254.0, 254.0], 8)
    with pytest.raises(NetworkError, match="dense2"):
        export(run, tmp_path / "a.net")
    assert list(tmp_path.iterdir()) == []


def test_a_proof_reads_well():
    """One line with T, samples, accuracy, silent and tied samples and mismatches; the JSON holds them all."""
    answers = score(np.array([[0, 0], [1, 1], [0, 2], [0, 2]]), np.array([0, 0, 1, 1]), "count")
    proof = Proof(16, answers, 12345, 1000000, {"conv1": 0, "readout": 0})
    assert str(proof) == (
        "T = 16, 4 samples: accuracy 62.5%, silent 25.0%, tied 25.0%, 0 mismatching of 1,000,000 bits (12,345 spikes)"
    )
    assert proof.to_dict() == {
        "time_steps": 16,
        **answers.to_dict(),
        "spikes": 12345,
        "bits": 1000000,
        "mismatches": {"conv1": 0, "readout": 0},
    }
