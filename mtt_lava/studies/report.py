"""A run on one page: what it answers, what it does inside, what it weighs, and whether it fits."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import hw_profiles
from mtt_lava.data import Dataset, open_frames, subset
from mtt_lava.deploy import to_network
from mtt_lava.evaluation import Point, evaluate, run_network, table
from mtt_lava.page import block, grid, heading, image, page, paragraph, rows
from mtt_lava.pictures import (
    axes_or_new,
    plot_accuracy,
    plot_answers,
    plot_confusion,
    plot_placement,
    plot_raster,
    plot_rates,
    plot_traces,
    plot_weights,
    png,
)
from mtt_lava.proof import Proof, prove
from mtt_lava.run import Run, Settings, open_split
from mtt_lava.studies.parts import machine
from mtt_lava.studies.sweep import Sweep, weigh
from netx_export import layer_table
from netx_export.fast.backend import simulate
from netx_export.files import replacing
from netx_export.network import STATE_SHIFT, Network

PROVED = 20
"""Samples that are compared spike by spike."""
MOST_WEIGHTS = 12
"""Layers whose weights are drawn; of a deeper network the first ones."""
PACKAGES = ("mtt-lava", "lava-dl", "lava-nc", "torch", "numpy", "numba", "h5py")


@dataclass(frozen=True)
class RunReport:
    """What `report` found.

    Attributes
    ----------
    page : pathlib.Path
    points : list of Point
        At each T; then, of event recordings, without a clock.
    sweep : Sweep
        What they cost on the chip, and whether the network fits it.
    proof : Proof or None
        Of the exported network on the fast simulator; None where it has no clock to run by.
    """

    page: Path
    points: list[Point]
    sweep: Sweep
    proof: Proof | None

    def __repr__(self) -> str:
        return f"<RunReport {self.page}: {self.verdict}>"

    def __str__(self) -> str:
        return f"{table(self.points)}\n{self.verdict}\nPage: {self.page}"

    @property
    def verdict(self) -> str:
        """In a few sentences: does it fit, does it hold at other T, does it fire the same?"""
        chip = self.sweep.report
        clocked = [point for point in self.points if point.time_steps is not None]
        best = max(clocked, key=lambda point: point.accuracy)
        least = min(clocked, key=lambda point: point.accuracy)
        said = [f"{'Fits' if chip.fits else 'Does not fit'} {chip.profile}."]
        said.append(
            f"Best {best.accuracy:.1%} at {best.name}, lowest {least.accuracy:.1%} at {least.name}, of "
            f"{best.samples:,} samples."
        )
        said += [f"Without a clock {p.accuracy:.1%} (simulated)." for p in self.points if p.time_steps is None]
        if self.proof is not None:
            wrong = sum(self.proof.mismatches.values())
            said.append(
                f"The exported file on the fast simulator, {self.proof.score.samples} samples at T = "
                f"{self.proof.time_steps}: {wrong} of {self.proof.bits:,} bits differ from the trained network."
            )
        return " ".join(said)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        proof = None if self.proof is None else self.proof.to_dict()
        return {"page": str(self.page), "verdict": self.verdict, "proof": proof, "sweep": self.sweep.to_dict()} | {
            "points": [point.to_dict() for point in self.points]
        }


def report(
    run: Run,
    out: str | Path,
    time_steps: Sequence[int] | None = None,
    profile: str | None = None,
    dataset: Dataset | None = None,
    *,
    samples: int | None = None,
    command: str = "",
    progress: bool = True,
) -> RunReport:
    """Evaluate a run and write a page of it, one HTML file that needs nothing beside it.

    Parameters
    ----------
    run : Run
    out : path
        File to write.
    time_steps : sequence of int, optional
        Default: 1, 2, 4, ... and T of training, to four times it.
    profile : str, optional
        Hardware profile, as it is now; default: that of training, as it was then.
    dataset : Dataset, optional
        Default: the test split of the data that the run was trained on.
    samples : int, optional
        Only the first so many.
    command : str
        That made the page, to stand in it.
    progress : bool
        Show progress bars.

    Returns
    -------
    RunReport

    Examples
    --------
    >>> print(report(load_run("runs/digits"), "report.html").verdict)  # doctest: +SKIP
    """
    dataset = dataset or open_split(run.settings)
    dataset = dataset if samples is None else subset(dataset, range(min(samples, len(dataset))))
    trained_at, chip = run.settings.time_steps, hw_profiles.load(profile or run.settings.chip)
    steps = sorted({*(time_steps or _usual(trained_at)), trained_at})
    points = evaluate(run, steps, dataset, event_driven=not dataset.static, progress=progress)
    priced = [point for point in points if point.time_steps is not None or chip.facts.clocked.value is False]
    sweep = weigh(run, priced, chip, dataset.classes)
    clocked = run.network.reset == "zero"
    proof = prove(run, [trained_at], "fast", PROVED, dataset, progress=progress)[0] if clocked else None
    result = RunReport(Path(out), points, sweep, proof)
    with replacing(result.page) as temporary:
        temporary.write_text(_page(run, result, dataset, command), encoding="utf-8")
    return result


def _usual(trained_at: int) -> list[int]:
    """Powers of two up to four times T."""
    return [2**i for i in range((4 * trained_at).bit_length()) if 2**i <= 4 * trained_at]


def _page(run: Run, found: RunReport, dataset: Dataset, command: str) -> str:
    network, settings = to_network(run), run.settings
    own = next(point for point in found.points if point.time_steps == settings.time_steps)
    title = f"{settings.model.name} on {settings.data}, {settings.method.upper()}"
    inside, said = _inside(run, network, dataset)
    neurons = {layer.name: int(np.prod(layer.shape)) for layer in network.spiking}
    return page(
        title,
        heading(title),
        paragraph(found.verdict),
        heading("Accuracy", 2),
        grid(
            image(png(_accuracy(found, settings.method, settings.time_steps)), "Accuracy against T"),
            image(png(plot_answers(found.points)), "Shares of right, wrong, silent and tied samples"),
            image(png(plot_confusion(own.score, dataset.classes, own.name)), "Which class was taken for which"),
            image(png(plot_rates(found.points, neurons)), "Spikes of each layer"),
        ),
        paragraph(
            "Shaded: the standard error over samples. A silent sample is wrong, a tie among k outputs counts 1/k. "
            + ("The event-driven run is a simulation." if not dataset.static else "Still images have no events.")
        ),
        block(table(found.points)),
        heading("Inside, one sample", 2),
        grid(*inside),
        *([paragraph(said)] if said else []),
        heading("Weights", 2),
        grid(*_weights(run), small=True),
        block(layer_table(network)),
        heading("On the chip", 2),
        grid(
            image(png(plot_placement(found.sweep.report.placement)), "The chip with its cores filled"),
            image(png(found.sweep.plot()), "Accuracy against what it costs"),
        ),
        block(found.sweep),
        block(found.sweep.report),
        heading("Made by", 2),
        rows([*([("command", command)] if command else []), *_versions()]),
        heading("Settings", 2),
        paragraph("Those that are not the default, and the data."),
        rows(_chosen(settings)),
    )


def _chosen(settings: Settings) -> list[tuple[str, object]]:
    """Settings that somebody chose."""
    values, fields = settings.model_dump(mode="json", exclude={"model", "chip"}), Settings.model_fields
    return [(name, value) for name, value in values.items() if value != fields[name].default]


def _accuracy(found: RunReport, method: str, trained_at: int) -> Any:
    clocked = [point for point in found.points if point.time_steps is not None]
    events = [point.accuracy for point in found.points if point.time_steps is None]
    curve = [point.time_steps or 0 for point in clocked], np.array([[point.accuracy for point in clocked]])
    without = {method: np.array(events)} if events else None
    axes = axes_or_new(None, (5, 3.4))
    return plot_accuracy({method: curve}, trained_at, "Accuracy at any T", without, clocked[0].samples, axes)


def _inside(run: Run, network: Network, dataset: Dataset) -> tuple[list[str], str]:
    """Spikes of one sample, voltages of the busiest neurons, and a sentence."""
    reader = open_frames(dataset, run.settings.time_steps)
    counts = np.minimum(np.moveaxis(reader.take(np.array([0])), 0, -1), run.settings.input_max or reader.largest)
    _, layers = run_network(run, torch.from_numpy(counts.astype(np.float32)), True)
    fired = dict(zip(run.network.spiking_names, (layer[0].numpy() for layer in layers), strict=False))
    label = dataset.classes[int(dataset.labels[0])]
    shown = [image(png(plot_raster(fired, f"Spikes of the first sample ({label})")), "Which neurons fire when")]
    if run.network.reset != "zero":
        return shown, "Voltages are recorded by the clocked simulators, which do not run neurons of this chip."
    result, voltages = simulate(network, counts, record=("v",), progress=False), {}
    for layer in (each for each in network.spiking if each.name in fired):
        v = result.record[f"v.{layer.name}"][0].reshape(-1, counts.shape[-1])
        at = int(fired[layer.name].reshape(len(v), -1).sum(-1).argmax())
        assert layer.neuron is not None
        threshold = np.ravel(np.broadcast_to(layer.neuron.threshold, len(v)))
        voltages[layer.name] = (v[at], int(threshold[at]) << STATE_SHIFT)
    return [*shown, image(png(plot_traces(voltages)), "Membrane voltages against the threshold")], ""


def _weights(run: Run) -> list[str]:
    drawn = []
    for name, block_ in list(zip(run.network.weighted_names, run.network.weighted, strict=True))[:MOST_WEIGHTS]:
        quantiser = block_.synapse.pre_hook_fx
        trained = block_.synapse.weight.detach().numpy() * quantiser.weight_scale
        integers = quantiser(block_.synapse.weight, descale=True).detach().numpy()
        drawn.append(image(png(plot_weights(trained, integers, name)), f"Weights of {name}"))
    return drawn


def _versions() -> list[tuple[str, str]]:
    found = [("python", platform.python_version()), ("machine", machine())]
    for name in PACKAGES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:  # Lava's, where another Python has it
            continue
    return found
