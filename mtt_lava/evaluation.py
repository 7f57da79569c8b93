"""How a trained run answers at any number of time steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

import hw_profiles
from hw_profiles.neurobench import of_events
from mtt_lava.data import EVENT_DTYPE, Dataset, open_frames
from mtt_lava.deploy import to_network
from mtt_lava.run import Run, RunError, open_split
from mtt_lava.scoring import Score, score
from netx_export import text
from netx_export.activity import event_totals, recordable
from netx_export.event.backend import Events, EventSimulation
from netx_export.event.backend import simulate as simulate_events
from netx_export.network import Network
from netx_export.tally import tally

BATCH_FRAMES = 2000
"""Frames run at once: bounds the memory at any T."""
PART_EVENTS = 1 << 22
"""Events run at once without a clock, unless a single recording has more."""


@dataclass(frozen=True)
class Point:
    """One number of time steps, or one for every stage, or none: event-driven.

    Attributes
    ----------
    time_steps : int or None
        None without a clock; of the first stage where stages have their own.
    score : Score
        Accuracy, and the shares of samples without an answer or with several.
    spikes : dict of str to float
        Mean number of spikes a sample, for every layer whose neurons spike.
    synops : dict of str to float
        Mean number of synaptic operations a sample, for every layer with neurons that trained weights feed: pairs of a
        spike and a neuron within the kernel's reach. A sum of currents has those of all that feed it. Empty where
        stages have time steps of their own: between them spikes are added up or copied, which no chip here does.
    readout : numpy.ndarray
        (N, classes): spike counts or voltages. Not in the JSON.
    activity : hw_profiles.Activity or None
        Mean spikes of every neuron: what a chip's cost is computed from; None where stages have time steps of their
        own. Not in the JSON.
    spike_difference : float or None
        From the event-driven run: ``sum |s0 - s| / sum s0`` over the output spike counts, s0 the event-driven ones.
    stages : tuple of int or None
        Time steps of every stage, where they have their own.
    neurobench : hw_profiles.NeuroBench or None
        The network in NeuroBench's vocabulary; connections are the layers with trained weights. None where stages have
        time steps of their own.
    """

    time_steps: int | None
    score: Score
    spikes: dict[str, float]
    synops: dict[str, float]
    readout: np.ndarray = field(repr=False, compare=False)
    spike_difference: float | None = None
    activity: hw_profiles.Activity | None = field(default=None, repr=False, compare=False)
    stages: tuple[int, ...] | None = None
    neurobench: hw_profiles.NeuroBench | None = None

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
        """Its time steps, or ``event`` without a clock; ``8-4-2`` of stages."""
        return "event" if self.time_steps is None else "-".join(map(str, self.stages or [self.time_steps]))

    @property
    def name(self) -> str:
        """``T = 10``, or ``event``."""
        return "event" if self.time_steps is None else f"T = {self.label}"

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
            "stages": None if self.stages is None else list(self.stages),
            "neurobench": None if self.neurobench is None else self.neurobench.to_dict(),
        }


def spike_difference(reference: np.ndarray, other: np.ndarray) -> float:
    """Spike difference ``SD(s0, s) = sum |s0 - s| / sum s0`` of the paper.

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


def run_network(
    run: Run, inputs: torch.Tensor, spikes: bool = False, stages: Sequence[int] | None = None
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Readout, and on demand the spikes of every layer, of the trained network at the T of its inputs.

    Parameters
    ----------
    run : Run
    inputs : torch.Tensor
        (N, C, H, W, T) or (N, F, T), any integer or float type.
    spikes : bool
        Also return the spikes.
    stages : sequence of int, optional
        Time steps of every stage; default: the T of the inputs everywhere.

    Returns
    -------
    readout : torch.Tensor
        (N, classes), see `SpikingNetwork.forward`.
    spikes : list of torch.Tensor
        One (N, C, H, W, T) or (N, F, T) a layer with spiking neurons; empty unless asked for.
    """
    recorded: list[torch.Tensor] | None = [] if spikes else None
    with torch.no_grad(), run.at(inputs.shape[-1]):
        return run.network(inputs.float(), stages, recorded), recorded or []


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
    return _joined([dataset.events[i] for i in (range(len(dataset)) if chosen is None else chosen)])


def _joined(recordings: Sequence[np.ndarray]) -> Events:
    joined = np.concatenate([np.zeros(0, EVENT_DTYPE), *recordings])
    sample = np.repeat(np.arange(len(recordings)), [len(recording) for recording in recordings])
    t, p, y, x = (joined[name].astype(np.int64) for name in ("t", "p", "y", "x"))
    return Events(sample, t, p, y, x, len(recordings))


def event_parts(dataset: Dataset, most: int) -> Iterator[Events]:
    """All recordings as input of the event-driven simulator, in parts that bound the memory.

    Parameters
    ----------
    dataset : Dataset
        Event recordings.
    most : int
        Recordings in a part, which also ends behind `PART_EVENTS` events.
    """
    to_events(dataset, [])  # refuses still images
    part: list[np.ndarray] = []
    count = 0
    for i in range(len(dataset)):
        part.append(dataset.events[i])
        count += len(part[-1])
        if len(part) == most or count >= PART_EVENTS or i == len(dataset) - 1:
            yield _joined(part)
            part, count = [], 0


def event_rules(run: Run) -> dict[str, Any]:
    """What the event-driven simulator is told of the chip of a run: nothing of one with a clock."""
    chip = run.settings.chip
    return {"chip": chip.event_rules()} if chip.facts.clocked.value is False else {}


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
    dataset = dataset or open_split(run.settings)
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
            else np.zeros(0)
            if layer.weight is None
            else layer.weight / scale
            for (layer, block), scale in zip(layers, scales, strict=True)
        ]
        more["thresholds"] = [layer.neuron.threshold / scale for (layer, _), scale in zip(layers, scales, strict=True)]  # type: ignore[union-attr]
    else:
        more |= event_rules(run)
    arrived, spikes, readouts = np.zeros(network.in_shape), [np.zeros(layer.shape) for layer in network.spiking], []
    for events in event_parts(dataset, recordable(network, 8)):
        result: EventSimulation = simulate_events(
            network, events, reset=network.reset, record=("spikes",), progress=progress, **more
        )
        came, fired = event_totals(network, events, result)
        arrived += came
        spikes = [total + each for total, each in zip(spikes, fired, strict=True)]
        readouts.append(result.readout)
    n = len(dataset)
    activity = hw_profiles.Activity(None, arrived / n, [each / n for each in spikes])
    difference = 0.0 if network.readout == "count" else None
    metrics = of_events(network, activity, run.settings.chip, run.network.weighted_names)
    return _point(run, network, activity, np.concatenate(readouts), dataset.labels, metrics, difference)


def _point(
    run: Run,
    network: Network,
    activity: hw_profiles.Activity,
    readout: np.ndarray,
    labels: np.ndarray,
    metrics: hw_profiles.NeuroBench | None,
    difference: float | None = None,
) -> Point:
    layers, weighted = [layer.name for layer in network.spiking], run.network.weighted_names
    spikes = {name: float(each.sum()) for name, each in zip(layers, activity.spikes, strict=True)}
    synops = dict(zip(layers, hw_profiles.synaptic_operations(network, activity), strict=True))
    return Point(
        activity.time_steps,
        score(readout, labels, network.readout),
        {name: spikes[name] for name in run.network.spiking_names},
        {each.name: synops[each.name] for each in network.spiking if each.name in weighted or len(each.inputs) > 1},
        readout,
        difference,
        activity,
        neurobench=metrics,
    )


def evaluate(
    run: Run,
    time_steps: Sequence[int | Sequence[int]],
    dataset: Dataset | None = None,
    *,
    event_driven: bool = False,
    progress: bool = True,
) -> list[Point]:
    """Accuracy and mean spike counts at each number of time steps, and without a clock.

    Parameters
    ----------
    run : Run
    time_steps : sequence of int or of sequence of int
        Numbers of time steps to run at, one for all stages or one for each: then the temporal transformations of
        training stand between the stages, which no chip here has.
    dataset : Dataset, optional
        Default: the test split of the data that the run was trained on.
    event_driven : bool
        Also run it without a clock (`evaluate_events`): the last point, from which the others have a spike difference.
    progress : bool
        Show a progress bar.

    Returns
    -------
    list of Point

    Raises
    ------
    RunError
        Another number of time steps than there are stages, or stages with a T of their own and biases that are
        rescaled by T.

    Examples
    --------
    >>> for point in evaluate(load_run("runs/nmnist"), [2, 10, 100]):  # doctest: +SKIP
    ...     print(point.time_steps, point.accuracy)
    """
    dataset = dataset or open_split(run.settings)
    run.check_data(dataset)
    points = []
    for each in time_steps:
        if isinstance(each, Sequence):
            _check_stages(run, each)
    total = sum(len(dataset) for _ in time_steps)
    with tqdm(total=total, desc="evaluate", unit="sample", disable=not progress, delay=3) as bar:
        for each in time_steps:
            stages = tuple(each) if isinstance(each, Sequence) else None
            t = each[0] if isinstance(each, Sequence) else each
            reader = open_frames(dataset, t)
            network = to_network(run, t)
            # A graded spike is one message; without a clock, or with soft reset, a count is so many events.
            one_each = network.reset == "zero"
            most = run.settings.input_max or reader.largest
            arrived, sums = np.zeros(network.in_shape), [np.zeros(layer.shape) for layer in network.spiking]
            counter, readouts = hw_profiles.NeuroBenchCounter(network, run.network.weighted_names), []
            for part in reader.parts(most=max(1, BATCH_FRAMES // max(stages or [t]))):
                inputs = np.moveaxis(reader.take(part), 0, -1)
                readout, spikes = run_network(run, torch.from_numpy(inputs.astype(np.float32)), True, stages)
                readouts.append(readout.numpy())
                layers = [layer.numpy() for layer in spikes]
                # Where stages have time steps of their own, nothing here is one network in integers.
                found = (
                    counter.add(np.minimum(inputs, most), layers)
                    if stages is None
                    else [tally(layer).sums for layer in layers]
                )
                arrived += (inputs != 0 if one_each else inputs).sum((0, -1))
                # The neurons of a voltage readout, the last, do not spike.
                for total_of, each_sum in zip(sums, found, strict=False):
                    total_of += each_sum
                bar.update(len(part))
            n = len(reader)
            graded = one_each and run.settings.input_max != 1 and reader.largest > 1
            activity = hw_profiles.Activity(t, arrived / n, [each / n for each in sums], graded)
            own = stages is not None
            metrics = None if own else counter.result(run.settings.chip)
            point = _point(run, network, activity, np.concatenate(readouts), reader.labels, metrics)
            points.append(replace(point, stages=stages, synops={}, activity=None) if own else point)
    if event_driven:
        reference = evaluate_events(run, dataset, progress=progress)
        if reference.spike_difference is not None:
            points = [replace(p, spike_difference=spike_difference(reference.readout, p.readout)) for p in points]
        points.append(reference)
    return points


def _check_stages(run: Run, stages: Sequence[int]) -> None:
    wanted = run.network.n_stages
    if len(stages) != wanted or min(stages) < 1:
        raise RunError(
            f"time steps {'-'.join(map(str, stages)) or 'of no stage'}: {run.settings.model.name} has {wanted} stages: "
            f"give {wanted} numbers, at least 1 each"
        )
    if run.settings.biases == "scaled" and len(set(stages)) > 1:
        raise RunError("biases 'scaled' are rescaled by one T: stages cannot have time steps of their own")


def synops_table(points: Sequence[Point]) -> str:
    """Synaptic operations of every layer as a table for people."""
    names = list(points[-1].synops)
    rows = [[p.label, *(f"{p.synops[n]:,.0f}" if p.synops else "" for n in names)] for p in points]
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
            f"{sum(p.synops.values()):,.0f}" if p.synops else "",
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
