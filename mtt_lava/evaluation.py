"""How a trained run answers at any number of time steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

import hw_profiles
from mtt_lava.data import Dataset, frames
from mtt_lava.deploy import to_network
from mtt_lava.run import Run, RunError, open_test_split
from mtt_lava.scoring import Score, score
from netx_export import text
from netx_export.activity import event_activity
from netx_export.event.backend import Events, EventSimulation
from netx_export.event.backend import simulate as simulate_events
from netx_export.network import Network

BATCH_FRAMES = 2000
"""Frames run at once: bounds the memory at any T."""


@dataclass(frozen=True)
class Point:
    """One number of time steps, or none: event-driven.

    Attributes
    ----------
    time_steps : int or None
        None without a clock.
    score : Score
        Accuracy, and the shares of samples without an answer or with several.
    spikes : dict of str to float
        Mean number of spikes a sample, for every layer whose neurons spike.
    synops : dict of str to float
        Mean number of synaptic operations a sample, for every layer with trained weights: pairs of a spike and a
        neuron within the kernel's reach.
    readout : numpy.ndarray
        (N, classes): spike counts or voltages. Not in the JSON.
    activity : hw_profiles.Activity or None
        Mean spikes of every neuron: what a chip's cost is computed from. Not in the JSON.
    spike_difference : float or None
        From the event-driven run: sum |s0 - s| / sum s0 over the output spike counts, s0 the event-driven ones.
    """

    time_steps: int | None
    score: Score
    spikes: dict[str, float]
    synops: dict[str, float]
    readout: np.ndarray = field(repr=False, compare=False)
    spike_difference: float | None = None
    activity: hw_profiles.Activity | None = field(default=None, repr=False, compare=False)

    @property
    def accuracy(self) -> float:
        """Share of samples classified rightly; see `Score`."""
        return self.score.accuracy

    @property
    def samples(self) -> int:
        """How many were classified."""
        return self.score.samples

    @property
    def label(self) -> str:
        """Its time steps, or ``event`` without a clock."""
        return "event" if self.time_steps is None else str(self.time_steps)

    @property
    def name(self) -> str:
        """``T = 10``, or ``event``."""
        return "event" if self.time_steps is None else f"T = {self.time_steps}"

    def __repr__(self) -> str:
        return f"<Point {self.name}: {self.score}, {sum(self.spikes.values()):,.0f} spikes a sample>"

    def row(self) -> dict[str, Any]:
        """Its numbers side by side, for a table (``pandas.DataFrame([point.row() for point in points])``)."""
        values = {name: getattr(self.score, name) for name in ("samples", "accuracy", "silent", "tied")}
        spikes = {f"spikes.{name}": number for name, number in self.spikes.items()}
        synops = {f"synops.{name}": number for name, number in self.synops.items()}
        return {"T": self.label, **values, **spikes, **synops, "spike_difference": self.spike_difference}

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "time_steps": self.time_steps,
            **self.score.to_dict(),
            "spikes": self.spikes,
            "synops": self.synops,
            "spike_difference": self.spike_difference,
        }


def spike_difference(reference: np.ndarray, other: np.ndarray) -> float:
    """Spike difference SD(s0, s) = sum |s0 - s| / sum s0 of the paper.

    Parameters
    ----------
    reference, other : numpy.ndarray
        Output spike counts s0 and s, (N, classes).

    Returns
    -------
    float
        0 if neither fired; infinite if only `other` did.

    Examples
    --------
    >>> spike_difference(np.array([4, 0]), np.array([3, 1]))
    0.5
    """
    difference, total = np.abs(reference - other).sum(), reference.sum()
    if total == 0:
        return 0.0 if difference == 0 else float("inf")
    return float(difference / total)


def run_network(run: Run, inputs: torch.Tensor, spikes: bool = False) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Readout, and on demand the spikes of every layer, of the trained network at the T of its inputs.

    Parameters
    ----------
    run : Run
    inputs : torch.Tensor
        (N, C, H, W, T) or (N, F, T), any integer or float type.
    spikes : bool
        Also return the spikes.

    Returns
    -------
    readout : torch.Tensor
        (N, classes), see `SpikingNetwork.forward`.
    spikes : list of torch.Tensor
        One (N, C, H, W, T) or (N, F, T) a layer with spiking neurons; empty unless asked for.
    """
    recorded: list[torch.Tensor] | None = [] if spikes else None
    with torch.no_grad(), run.at(inputs.shape[-1]):
        return run.network(inputs.float(), spikes=recorded), recorded or []


def to_events(dataset: Dataset, chosen: Sequence[int] | None = None) -> Events:
    """Recordings as input of the event-driven simulator.

    Parameters
    ----------
    dataset : Dataset
        Event recordings.
    chosen : sequence of int, optional
        Which; default: all.

    Raises
    ------
    RunError
        Still images, which have no events.
    """
    if dataset.static:
        raise RunError(f"{dataset.name}: still images have no events: use a data set of event recordings")
    recordings = [dataset.events[i] for i in (range(len(dataset)) if chosen is None else chosen)]
    joined = np.concatenate(recordings)
    sample = np.repeat(np.arange(len(recordings)), [len(recording) for recording in recordings])
    t, p, y, x = (joined[name].astype(np.int64) for name in ("t", "p", "y", "x"))
    return Events(sample, t, p, y, x, len(recordings))


def evaluate_events(
    run: Run, dataset: Dataset | None = None, *, quantised: bool = True, progress: bool = True
) -> Point:
    """The trained network without a clock: every event runs through it at once, in order of time.

    Parameters
    ----------
    run : Run
    dataset : Dataset, optional
        Default: the test split of the data that the run was trained on.
    quantised : bool
        The chip's integers, with the state width of the profile; or the trained weights before rounding.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Point
    """
    dataset = dataset or open_test_split(run.settings)
    run.check_data(dataset)
    network = to_network(run)
    more: dict[str, Any] = {}
    if not quantised:
        # Layers of pools with neurons have no trained weights; theirs stay.
        trained = dict(zip(run.network.names, run.network.blocks, strict=True))
        layers = [(layer, trained[layer.name]) for layer in network.spiking]
        scales = [layer.weight_scale or 1.0 for layer, _ in layers]
        more["weights"] = [
            block.synapse.weight.detach().numpy().reshape(layer.weight.shape)  # type: ignore[union-attr]
            if block in run.network.weighted
            else layer.weight / scale  # type: ignore[operator]
            for (layer, block), scale in zip(layers, scales, strict=True)
        ]
        more["thresholds"] = [layer.neuron.threshold / scale for (layer, _), scale in zip(layers, scales, strict=True)]  # type: ignore[union-attr]
    elif run.settings.chip.facts.clocked.value is False:
        more["chip"] = run.settings.chip.event_rules()
    events = to_events(dataset)
    result: EventSimulation = simulate_events(
        network, events, reset=network.reset, record=("spikes",), progress=progress, **more
    )
    activity = event_activity(network, events, result)
    return _point(run, network, activity, result.readout, dataset.labels, 0.0 if network.readout == "count" else None)


def _point(
    run: Run,
    network: Network,
    activity: hw_profiles.Activity,
    readout: np.ndarray,
    labels: np.ndarray,
    difference: float | None = None,
) -> Point:
    layers = [layer.name for layer in network.spiking]
    spikes = {name: float(each.sum()) for name, each in zip(layers, activity.spikes, strict=True)}
    synops = dict(zip(layers, hw_profiles.synaptic_operations(network, activity), strict=True))
    return Point(
        activity.time_steps,
        score(readout, labels, network.readout),
        {name: spikes[name] for name in run.network.spiking_names},
        {name: synops[name] for name in run.network.weighted_names},
        readout,
        difference,
        activity,
    )


def evaluate(
    run: Run,
    time_steps: Sequence[int],
    dataset: Dataset | None = None,
    *,
    event_driven: bool = False,
    progress: bool = True,
) -> list[Point]:
    """Accuracy and mean spike counts at each number of time steps, and without a clock.

    Parameters
    ----------
    run : Run
    time_steps : sequence of int
        Numbers of time steps to run at.
    dataset : Dataset, optional
        Default: the test split of the data that the run was trained on.
    event_driven : bool
        Also run it without a clock (`evaluate_events`): the last point, from which the others have a spike difference.
    progress : bool
        Show a progress bar.

    Returns
    -------
    list of Point

    Examples
    --------
    >>> for point in evaluate(load_run("runs/nmnist"), [2, 10, 100]):  # doctest: +SKIP
    ...     print(point.time_steps, point.accuracy)
    """
    dataset = dataset or open_test_split(run.settings)
    run.check_data(dataset)
    points = []
    total = sum(len(dataset) for _ in time_steps)
    with tqdm(total=total, desc="evaluate", unit="sample", disable=not progress, delay=3) as bar:
        for t in time_steps:
            counts, labels = frames(dataset, t)
            network = to_network(run, t)
            # A graded spike is one message; without a clock, or with soft reset, a count is so many events.
            one_each = network.reset == "zero"
            arrived, sums = np.zeros(network.in_shape), [np.zeros(layer.shape) for layer in network.spiking]
            readouts = []
            batch = max(1, BATCH_FRAMES // t)
            for start in range(0, len(labels), batch):
                inputs = counts[start : start + batch]
                readout, spikes = run_network(run, torch.from_numpy(inputs.astype(np.float32)), spikes=True)
                readouts.append(readout.numpy())
                arrived += (inputs != 0 if one_each else inputs).sum((0, -1))
                # The neurons of a voltage readout, the last, do not spike.
                for each, layer in zip(sums, spikes, strict=False):
                    each += layer.sum((0, -1)).numpy()
                bar.update(len(inputs))
            n = len(labels)
            graded = one_each and run.settings.input_max != 1 and bool(counts.max() > 1)
            activity = hw_profiles.Activity(t, arrived / n, [each / n for each in sums], graded)
            points.append(_point(run, network, activity, np.concatenate(readouts), labels))
    if event_driven:
        reference = evaluate_events(run, dataset, progress=progress)
        if reference.spike_difference is not None:
            points = [replace(p, spike_difference=spike_difference(reference.readout, p.readout)) for p in points]
        points.append(reference)
    return points


def synops_table(points: Sequence[Point]) -> str:
    """Synaptic operations of every layer as a table for people."""
    names = list(points[0].synops)
    rows = [[p.label, *(f"{p.synops[n]:,.0f}" for n in names)] for p in points]
    return "\n".join(["synaptic operations a sample", *text.table([["T", *names], *rows])])


def table(points: Sequence[Point]) -> str:
    """Points as a table for people."""
    names = list(points[0].spikes)
    head = ["T", "accuracy", "silent", "tied", *names, "synops"]
    rows = [
        [
            p.label,
            *(f"{share:.1%}" for share in (p.accuracy, p.score.silent, p.score.tied)),
            *(f"{p.spikes[n]:.1f}" for n in names),
            f"{sum(p.synops.values()):,.0f}",
        ]
        for p in points
    ]
    if any(p.spike_difference is not None for p in points):
        head.append("SD")
        for row, p in zip(rows, points, strict=True):
            row.append("" if p.spike_difference is None else f"{p.spike_difference:.1%}")
    notes = [
        f"({points[0].samples} samples: silent ones are wrong, a tie among k outputs counts 1/k; then mean spikes a",
        "sample, synaptic operations a sample" + (", spike difference from event)" if "SD" in head else ")"),
    ]
    return "\n".join([*text.table([head, *rows]), *notes])
