"""Every picture that the package draws, of made-up numbers, for the gallery (`conf.py`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import hw_profiles
from mtt_lava import pictures
from mtt_lava.data import open_dataset
from mtt_lava.data.show import plot_classes
from mtt_lava.scoring import score
from netx_export.network import Conv, Network, Neuron

STEPS = [1, 2, 4, 10, 20, 100]
ONE, OTHER = np.array([0.3, 0.7, 0.92, 0.95, 0.94, 0.9]), np.array([0.9, 0.93, 0.94, 0.95, 0.95, 0.95])


def _points() -> Any:
    def point(t: int, accuracy: float) -> Any:
        scored = SimpleNamespace(silent=0.1 / t, tied=0.05)
        return SimpleNamespace(
            label=str(t), accuracy=accuracy, score=scored, spikes={"conv1": 40.0 * t, "conv2": 9.0 * t}
        )

    return [point(t, accuracy) for t, accuracy in zip(STEPS, ONE, strict=True)]


def _placement() -> Any:
    rng = np.random.default_rng(0)
    layers = (
        Conv(
            in_shape=(2, 66, 66), shape=(32, 64, 64), weight=2 * rng.integers(-9, 9, (32, 2, 3, 3)), neuron=Neuron(60)
        ),
        Conv(
            in_shape=(32, 64, 64), shape=(8, 62, 62), weight=2 * rng.integers(-9, 9, (8, 32, 3, 3)), neuron=Neuron(60)
        ),
    )
    return hw_profiles.place(Network(layers, readout="count"), hw_profiles.load("loihi1"))


def _voltages() -> Any:
    v = np.cumsum(np.random.default_rng(0).integers(-5, 30, (2, 12)), 1) % 64
    return {"conv1": (v[0], 64), "conv2": (v[1], 64)}


def _draw() -> dict[Callable[..., Any], Any]:
    rng = np.random.default_rng(0)
    two = {"sdt": (STEPS, ONE + rng.normal(0, 0.01, (3, 6))), "mtt": (STEPS, OTHER + rng.normal(0, 0.01, (3, 6)))}
    events = {"sdt": np.array([0.85, 0.87, 0.84]), "mtt": np.array([0.94, 0.95, 0.95])}
    readout, labels = rng.integers(0, 9, (200, 4)), rng.integers(0, 4, 200)
    readout[np.arange(200), labels] += 5
    elapsed = np.linspace(0, 100_000, 20)
    curves = {None: (elapsed, 0.95 * (1 - np.exp(-elapsed / 30_000))), 4: (np.arange(1, 5) * 25_000.0, ONE[:4])}
    gains = {
        "finer=4": (np.array([0.01, 0.0, 0.02]), np.full(3, 0.006)),
        "draws=antithetic": (np.full(3, -0.01), np.full(3, 0.004)),
    }
    spikes = {"conv1": rng.random((8, 10, 10, 12)) < 0.1, "conv2": rng.random((50, 12)) < 0.2}
    weights = rng.normal(0, 60, 2000)
    return {
        pictures.plot_accuracy: pictures.plot_accuracy(two, 10, "Two methods, three seeds", events),
        pictures.plot_answers: pictures.plot_answers(_points()),
        pictures.plot_confusion: pictures.plot_confusion(
            score(readout, labels, "count"), ["a", "b", "c", "d"], "T = 10"
        ),
        pictures.plot_rates: pictures.plot_rates(_points(), {"conv1": 400, "conv2": 200}),
        pictures.plot_raster: pictures.plot_raster(spikes),
        pictures.plot_traces: pictures.plot_traces(_voltages()),
        pictures.plot_weights: pictures.plot_weights(weights, 2 * np.round(weights / 2), "conv1"),
        pictures.plot_placement: pictures.plot_placement(_placement()),
        pictures.plot_sweep: pictures.plot_sweep(
            ["T=1", "T=2", "T=4"],
            [20.0, 35.0, 60.0],
            [0.7, 0.9, 0.85],
            [True, True, False],
            "energy a sample, nJ",
            "a chip",
        ),
        pictures.plot_recipe: pictures.plot_recipe(gains, ["1", "10", "event"], "a network"),
        pictures.plot_realtime: pictures.plot_realtime(curves, 40_000, "a network"),
        plot_classes: plot_classes(open_dataset("digits-dvs", split="test")),
    }


def write(folder: Path) -> list[Callable[..., Any]]:
    """Write a PNG for each function, called as it is; returns them."""
    drawn = _draw()
    for function, axes in drawn.items():
        pictures.save_picture(axes, folder / f"{function.__name__}.png")
    return list(drawn)
