"""Networks of usual size, whose dense layer has thousands of inputs: from training to Lava."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from mtt_lava import Run, Settings, export, load_run, prove, train
from mtt_lava.data import Dataset, from_events
from netx_export import NetxWarning
from netx_export.bounds import bounds
from netx_export.network import STATE_MAX

WIDE = {
    2704: [
        {"type": "conv", "channels": 8, "kernel": 5, "stride": 2},
        {"type": "conv", "channels": 16, "kernel": 5, "stride": 2},
        {"type": "dense", "features": 64},
        {"type": "dense", "features": 3},
    ],
    2048: [
        {"type": "conv", "channels": 16, "kernel": 3, "stride": 2, "padding": 1},
        {"type": "conv", "channels": 32, "kernel": 3, "stride": 2, "padding": 1},
        {"type": "pool", "kernel": 2},
        {"type": "dense", "features": 3},
    ],
}


def bars(n: int) -> Dataset:
    """Recordings of 64 x 64 pixels in which a bar, of one of three places, moves to the right."""
    rng = np.random.default_rng(0)
    recordings, labels = [], np.arange(n) % 3
    for label in labels:
        events = np.zeros(600, dtype=[("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", bool)])
        events["t"] = np.sort(rng.integers(0, 10_000, 600))
        events["x"] = events["t"] * 60 // 10_000 + rng.integers(0, 4, 600)
        events["y"] = 20 * label + rng.integers(0, 20, 600)
        events["p"] = rng.random(600) < 0.5
        recordings.append(events)
    return from_events(recordings, labels, sensor_size=(64, 64, 2), duration=10_000, classes=3, name="bars")


@pytest.fixture(scope="module", params=list(WIDE))
def wide(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Run, Dataset]:
    """A trained network, and how many inputs its first dense layer has."""
    model = {"name": f"wide{request.param}", "input": [2, 64, 64], "layers": WIDE[request.param]}
    settings = Settings.make(model, data="bars", epochs=2, time_steps=4, batch=10, augment=False)
    folder = tmp_path_factory.mktemp("wide") / "run"
    data = bars(60)
    train(settings, folder, data, progress=False)
    return request.param, load_run(folder), data


@pytest.mark.lava
def test_wide_networks_export_and_run_as_trained(wide: tuple[int, Run, Dataset], tmp_path: Path):
    """A dense layer of thousands of inputs is written, and fires on `fast` and Lava as it was trained to."""
    _, run, data = wide
    export(run, tmp_path / "wide.net")
    for backend in ("fast", "lava"):
        (proof,) = prove(run, [4], backend, samples=3, dataset=data, progress=False)
        assert proof.exact, proof
        assert proof.spikes > 0


def test_scales_hold_the_bound_or_what_the_data_reaches_is_written(wide: tuple[int, Run, Dataset], tmp_path: Path):
    """Behind the first layer no current can wrap, or the file says how large it got over the training data."""
    inputs, run, _ = wide
    network, _ = export(run, tmp_path / "wide.net")
    assert inputs in {layer.in_shape[0] for layer in network if layer.kind == "dense"}
    with h5py.File(tmp_path / "wide.net") as file:
        for bound in list(bounds(network))[1:]:
            if bound.layer.neuron is None or bound.current() <= STATE_MAX:
                continue
            entry = next(group for group in file["layer"].values() if group.attrs.get("name") == bound.layer.name)
            assert 0 < entry.attrs["u_measured"] <= STATE_MAX < entry.attrs["u_bound"]


def test_what_scales_cannot_hold_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where weights keep all their bits and the bound fails, the measured margin is stored, written and warned of."""
    monkeypatch.setattr("mtt_lava.training.phases.SLACK", 1e9)
    model = {"name": "wide", "input": [2, 64, 64], "layers": WIDE[2704]}
    settings = Settings.make(model, data="bars", epochs=2, time_steps=4, batch=10, augment=False)
    run = train(settings, tmp_path / "run", bars(60), progress=False)
    assert "dense1" in run.measured
    assert load_run(tmp_path / "run").measured == run.measured
    u, v = run.measured["dense1"]
    assert 0 < u <= STATE_MAX
    with pytest.warns(NetxWarning, match=f"{u:,}|{u}"):
        network, report = export(run, tmp_path / "wide.net")
    layer = next(layer for layer in network if layer.name == "dense1")
    assert (layer.u_measured, layer.v_measured) == (u, v)
    assert report.fits


def test_a_wide_layer_is_announced_before_training():
    """Settings name the layers whose current 24 bits might not hold, and what will be done about it."""
    model = {"name": "wide", "input": [2, 64, 64], "layers": WIDE[2704]}
    lines = Settings.make(model, data="bars").adaptations()
    assert any("layer 3" in line and "2,704 inputs" in line for line in lines)
    assert not any("layer 2" in line for line in lines)
    assert not any(
        "inputs" in line
        for line in Settings.make(model, data="bars", profile="speck2e", allow_unfit=True).adaptations()
    )
