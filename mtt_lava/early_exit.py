"""Early exit: an answer as soon as it is sure enough, after fewer time steps or microseconds.

Source of the idea for spiking networks: Li, Geller, Kim, Panda, "SEENN" (NeurIPS 2023, arXiv 2304.01230), whose SEENN-I
exits by confidence. How sure is sure enough is chosen for a wanted loss of accuracy, on recordings other than those it
is then used on: some that the run neither trained on nor is tested on, or the halves of the data, or the folds of a
study, for each other.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import hw_profiles
from mtt_lava.data import Dataset, open_frames
from mtt_lava.deploy import export, to_network
from mtt_lava.evaluation import event_parts, event_rules
from mtt_lava.neuron import STATE_UNIT
from mtt_lava.run import LOGIT_SCALE, Run, RunError, open_split
from mtt_lava.scoring import Score, score
from netx_export import simulation, text
from netx_export.activity import recordable
from netx_export.event.backend import simulate as simulate_events
from netx_export.network import Network
from netx_export.result import Activity
from netx_export.simulation import linear

RULES = ("confidence", "entropy", "margin")
"""The largest class probability, by the softmax of the readout averaged over time as training has it (SEENN-I); 1 less
the entropy of the same, as a share of its most; how far the first output leads, in spikes or thresholds."""
UNSEEN = "training recordings that the run did not see"
CANDIDATES = 200
"""Thresholds tried at most."""


def certainty(readouts: np.ndarray, rule: str, unit: float = 1.0, scale: float = LOGIT_SCALE) -> np.ndarray:
    """How sure an answer is after every time step.

    Parameters
    ----------
    readouts : numpy.ndarray
        (N, classes, T): spike counts so far, or voltages.
    rule : str
        Of `RULES`.
    unit : float
        What the readout counts in: spikes, or the threshold.
    scale : float
        Of the logits, as in training (`Settings.logit_scale`); for confidence and entropy.

    Returns
    -------
    numpy.ndarray
        (N, T); confidence and entropy in 0..1.

    Raises
    ------
    RunError
        An unknown rule.

    Examples
    --------
    >>> certainty(np.array([[[1, 3], [0, 1]]]), "margin")
    array([[1., 2.]])
    """
    if rule not in RULES:
        raise RunError(text.unknown("rule of early exit", rule, RULES))
    readouts = readouts / unit
    if rule == "margin":
        ordered = np.sort(readouts, axis=1)
        return np.asarray(ordered[:, -1] - (ordered[:, -2] if ordered.shape[1] > 1 else 0), float)
    logits = scale * readouts / np.arange(1, readouts.shape[2] + 1)
    logits -= logits.max(1, keepdims=True)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    if rule == "confidence":
        return shares.max(1)
    entropy = -(shares * np.log(np.maximum(shares, 1e-300))).sum(1)
    return 1 - entropy / np.log(max(readouts.shape[1], 2))


def exits(sure: np.ndarray, threshold: float) -> np.ndarray:
    """The first time step, counted from 1, after which an answer is as sure as `threshold`; else the last. (N,)."""
    enough = sure >= threshold
    return np.where(enough.any(1), enough.argmax(1), sure.shape[1] - 1) + 1


def at(readouts: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Readouts (N, classes) at each sample's own time step, counted from 1."""
    return np.take_along_axis(readouts, (steps - 1)[:, None, None], 2)[..., 0]


def choose(readouts: np.ndarray, labels: np.ndarray, sure: np.ndarray, loss: float, kind: str) -> float:
    """The lowest threshold from which on no higher one loses more than `loss` accuracy against the last time step."""
    wanted = score(readouts[..., -1], labels, kind).accuracy - loss
    best = float("inf")
    tried = np.unique(sure)
    for threshold in tried[np.linspace(0, len(tried) - 1, min(CANDIDATES, len(tried))).round().astype(int)][::-1]:
        if score(at(readouts, exits(sure, threshold)), labels, kind).accuracy < wanted - 1e-12:
            break
        best = float(threshold)
    return best


class Course(NamedTuple):
    """What a run would answer at each of K moments, time steps or leads of an output, had it to answer then.

    Attributes
    ----------
    readouts : numpy.ndarray
        (N, classes, K); the last is the answer without early exit.
    sure : callable
        By a rule, (N, K): see `certainty`.
    labels : numpy.ndarray
        (N,)
    kind : str
        Readout, "count" or "voltage".
    taken : numpy.ndarray
        (N, K) time steps or microseconds until then.
    differing : int or None
        How many of the readouts are not the trained network's; None where it has no such moments.
    spent : callable
        ``spent(*ways)`` is, for each way to exit, after so many time steps each (N,), what the samples cost: energy in
        nJ a sample or None, and synaptic operations or None.
    """

    readouts: np.ndarray
    sure: Callable[[str], np.ndarray]
    labels: np.ndarray
    kind: str
    taken: np.ndarray
    differing: int | None
    spent: Callable[..., list[tuple[float | None, float | None]]]


@dataclass(frozen=True)
class EarlyExit:
    """What early exit takes and leaves.

    Attributes
    ----------
    rule : str
    loss : float
        Of accuracy, that thresholds were chosen for.
    thresholds : tuple of float
        That each part of the data has, chosen on the others; or the one that was chosen on unseen recordings.
    parts : str
        What the parts are: halves, or the folds of a study; or the recordings that the run did not see in training.
    chosen_on : int
        How many recordings a threshold was chosen on: at least so many.
    time_steps : int or None
        At most; None without a clock.
    steps : numpy.ndarray
        (N,) time steps that each sample took; without a clock the microseconds.
    score, full : Score
        With early exit, and without.
    backend : str
    energy : tuple of float or None
        nJ a sample with early exit and without, by the profile of the run; None where it has no figures.
    synops : tuple of float or None
        Synaptic operations a sample, with and without.
    differing : int or None
        How many of all answers, one a sample and time step, the backend gives otherwise than the trained network; None
        without a clock.
    """

    rule: str
    loss: float
    thresholds: tuple[float, ...]
    parts: str
    chosen_on: int
    time_steps: int | None
    steps: np.ndarray
    score: Score
    full: Score
    backend: str
    energy: tuple[float, float] | None
    synops: tuple[float, float] | None
    differing: int | None

    def __repr__(self) -> str:
        return f"<EarlyExit by {self.rule}: {self.steps.mean():.2f} of {self.time_steps or 'all'}, {self.score}>"

    @property
    def choice(self) -> str:
        """How thresholds were chosen, in words."""
        loses = f"the threshold that loses at most {100 * self.loss:.1f} points on"
        if self.parts == UNSEEN:
            return f"{loses} {self.chosen_on:,} {UNSEEN}"
        return f"each of the {self.parts} has {loses} the rest"

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        clock = self.time_steps is not None
        taken = {"mean": float(self.steps.mean()), "median": float(np.median(self.steps))}
        shares = np.bincount(self.steps, minlength=(self.time_steps or 0) + 1)[1:] / len(self.steps) if clock else None
        return {
            "rule": self.rule,
            "loss": self.loss,
            "thresholds": list(self.thresholds),
            "parts": self.parts,
            "chosen_on": self.chosen_on,
            "backend": self.backend,
            "time_steps" if clock else "microseconds": taken,
            "exits": None if shares is None else shares.tolist(),
            "accuracy": self.score.accuracy,
            "accuracy_full": self.full.accuracy,
            "silent": self.score.silent,
            "energy_nj": self.energy,
            "synops": self.synops,
            "differing": self.differing,
        }

    def __str__(self) -> str:
        clock = self.time_steps is not None
        taken = f"{self.steps.mean():.2f} time steps on average" if clock else _latencies(self.steps)
        whole = f"T = {self.time_steps}" if clock else "the end"
        lines = [
            f"early exit by {self.rule} ({self.backend}): {taken}; accuracy {self.score.accuracy:.2%}, "
            f"{self.full.accuracy:.2%} at {whole} ({self.score.samples} samples)"
        ]
        if self.synops is not None:
            lines.append(f"synaptic operations a sample {self.synops[0]:,.0f}, {self.synops[1]:,.0f} without")
        if self.energy is not None:
            lines.append(f"energy a sample {self.energy[0]:,.1f} nJ, {self.energy[1]:,.1f} without (lower bound)")
        chosen = ", ".join(f"{threshold:.4g}" for threshold in self.thresholds)
        lines.append(f"sure enough: from {chosen} on; {self.choice}")
        if self.differing is not None and self.time_steps is not None:
            answers = self.score.samples * self.time_steps
            lines.append(f"{self.differing} of {answers:,} answers, one a time step, differ from the trained network's")
        return "\n".join(lines)


def _latencies(microseconds: np.ndarray) -> str:
    median, late = np.percentile(microseconds, [50, 90]) / 1000
    return f"answer after {median:.1f} ms (median; 90 % within {late:.1f} ms)"


def _halves(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every second sample of each class, and the others."""
    order = np.argsort(labels, kind="stable")
    return np.sort(order[::2]), np.sort(order[1::2])


def leave(
    courses: Sequence[Course],
    rule: str,
    loss: float,
    time_steps: int | None,
    backend: str,
    unseen: Course | None = None,
) -> EarlyExit:
    """Choose for each course on all others how sure is sure enough; for the halves of a single one on each other.

    Parameters
    ----------
    courses : sequence of Course
        Of recordings that no other has: folds.
    rule, loss, time_steps, backend
        See `EarlyExit`.
    unseen : Course, optional
        With a single course, of the same run, of recordings neither trained on nor in that: choose on them.
    """
    most = max(course.taken.shape[1] for course in courses)
    each = ((course.readouts, course.sure(rule), course.taken) for course in courses)
    readouts, sure, taken = (
        np.concatenate([_longer(part, most) for part in parts]) for parts in zip(*each, strict=True)
    )
    labels, kind = np.concatenate([course.labels for course in courses]), courses[0].kind
    ends, everything = np.cumsum([len(course.labels) for course in courses]), np.arange(len(labels))
    own = np.split(everything, ends[:-1])
    if unseen is not None:
        parts, chosen_on = [everything], [(unseen.readouts, unseen.labels, unseen.sure(rule))]
    else:
        parts = own if len(courses) > 1 else [*_halves(labels)]
        rests = [np.setdiff1d(everything, use) for use in parts]
        chosen_on = [(readouts[rest], labels[rest], sure[rest]) for rest in rests]
    thresholds = [choose(*given, loss, kind) for given in chosen_on]
    steps = np.zeros(len(labels), np.int64)
    for use, threshold in zip(parts, thresholds, strict=True):
        steps[use] = exits(sure[use], threshold)
    shares = np.array([len(some) / len(labels) for some in own])
    ways = steps, np.full(len(labels), most)
    costs = [
        course.spent(*(np.minimum(way[some], course.taken.shape[1]) for way in ways))
        for course, some in zip(courses, own, strict=True)
    ]
    differing = [course.differing for course in courses]
    energy, synops = ([[spent[i] for spent in of] for of in costs] for i in (0, 1))
    return EarlyExit(
        rule,
        loss,
        tuple(thresholds),
        UNSEEN if unseen is not None else "folds" if len(courses) > 1 else "halves",
        min(len(some) for _, some, _ in chosen_on),
        time_steps,
        np.take_along_axis(taken, (steps - 1)[:, None], 1)[:, 0],
        score(at(readouts, steps), labels, kind),
        score(readouts[..., -1], labels, kind),
        backend,
        _mean(energy, shares),
        _mean(synops, shares),
        None if None in differing else sum(each or 0 for each in differing),
    )


def _longer(values: np.ndarray, most: int) -> np.ndarray:
    """With its last moment until there are `most`: courses without a clock differ in their largest lead."""
    return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, most - values.shape[-1])], mode="edge")


def _mean(values: Sequence[Sequence[float | None]], shares: np.ndarray) -> tuple[float, float] | None:
    """Over courses, of a pair; None where one has no figure."""
    if any(value is None for pair in values for value in pair):
        return None
    first, second = shares @ np.array(values, float)
    return float(first), float(second)


def early_exit(
    run: Run,
    time_steps: int,
    rule: str = "confidence",
    loss: float = 0.005,
    dataset: Dataset | None = None,
    *,
    unseen: Dataset | None = None,
    backend: str = "fast",
    workers: int | None = None,
    progress: bool = True,
) -> EarlyExit:
    """Let every sample answer once it is sure enough.

    Parameters
    ----------
    run : Run
    time_steps : int
        At most.
    rule : str
        Of `RULES`.
    loss : float
        Accuracy that may be lost, 0..1.
    dataset : Dataset, optional
        Default: the test split of the data that the run was trained on. At least two samples.
    unseen : Dataset, optional
        Recordings neither trained on nor in `dataset`, to choose the threshold on (see `mtt_lava.run.unseen`); the
        more, the nearer the loss is to what was wanted. Default: the halves of `dataset` choose for each other.
    backend : str
        A clocked one, on which the exported network runs: ``"fast"`` or ``"lava"``.
    workers : int, optional
        Spread the samples over so many processes.
    progress : bool
        Show a progress bar.

    Returns
    -------
    EarlyExit

    Raises
    ------
    RunError
        An unknown rule, too few samples, a loss that is none.

    Notes
    -----
    A network at T time steps spends its t-th on the t-th of T equal parts of a recording. What it costs up to its exit
    is counted exactly: spikes of later steps are left out.
    """
    dataset = dataset or open_split(run.settings)
    check(rule, loss, len(dataset))
    measure = partial(course_of, run, time_steps, backend=backend, workers=workers, progress=progress)
    other = None if unseen is None else measure(unseen)
    return leave([measure(dataset)], rule, loss, time_steps, backend, other)


def course_of(
    run: Run,
    time_steps: int,
    dataset: Dataset,
    *,
    backend: str = "fast",
    workers: int | None = None,
    progress: bool = True,
) -> Course:
    """What a run answers after each time step; see `early_exit`."""
    run.check_data(dataset)
    network = to_network(run, time_steps)
    if network.reset != "zero":
        raise RunError(f"{run.settings.profile} has no clock: exit by the lead of an output (--backend event)")
    reader = open_frames(dataset, time_steps)
    largest = min(run.settings.input_max or reader.largest, reader.largest)
    last, voltage = network.spiking[-1], network.readout == "voltage"
    parts = [*reader.parts(most=recordable(network, time_steps))]
    folder = tempfile.TemporaryDirectory(prefix="mtt-")
    path = Path(folder.name) / "run.net"
    export(run, path, time_steps=time_steps)
    options: dict[str, Any] = {"workers": workers, "record": ("spikes", "v") if voltage else ("spikes",)}

    @lru_cache(1)  # where there is one part, it runs once
    def simulated(number: int, _folder: Any = folder) -> tuple[np.ndarray, simulation.Simulation]:
        counts = np.minimum(np.moveaxis(reader.take(parts[number]), 0, -1), largest)
        return counts, simulation.simulate(path, counts, backend, progress=progress, **options)

    readouts, differing = [], 0
    for number in range(len(parts)):
        counts, result = simulated(number)
        readouts.append(_readouts(network, result))
        differing += int((readouts[-1] != readouts_of_steps(run, counts)).any(1).sum())
    joined = np.concatenate(readouts)
    outputs = int(np.prod(last.shape)) / joined.shape[1]
    assert last.neuron is not None
    unit = float(np.max(last.neuron.threshold)) * outputs if voltage else outputs
    graded = run.settings.input_max != 1 and largest > 1

    def spent(*ways: np.ndarray) -> list[tuple[float | None, float | None]]:
        found = [_Spent(run, network, steps, graded) for steps in ways]
        for number, part in enumerate(parts):
            for each in found:
                each.add(part, *simulated(number))
        return [each.cost() for each in found]

    taken = np.broadcast_to(np.arange(1, time_steps + 1), (len(joined), time_steps))
    sure = partial(certainty, joined, unit=unit, scale=run.settings.logit_scale)
    return Course(joined, sure, reader.labels, network.readout, taken, differing, spent)


def _readouts(network: Network, result: simulation.Simulation) -> np.ndarray:
    """What is read out after each time step, (N, classes, T)."""
    last, voltage = network.spiking[-1], network.readout == "voltage"
    states = result.record[f"v.{last.name}"] if voltage else result.spikes.cumsum(-1, dtype=np.int64)
    n, time_steps = len(states), states.shape[-1]
    each = [linear(network.tail, states[..., t]) if voltage else states[..., t] for t in range(time_steps)]
    return np.stack([one.reshape(n, -1) for one in each], axis=-1)


def readouts_of_steps(run: Run, counts: np.ndarray) -> np.ndarray:
    """What the trained network reads out after each time step, in the chip's integers: (N, classes, T)."""
    with torch.no_grad(), run.at(counts.shape[-1]):
        added = run.network(torch.from_numpy(counts.astype(np.float32)), each=True)
    unit = STATE_UNIT if run.network.model.readout == "voltage" else 1
    return (added.double().cumsum(0).movedim(0, -1).numpy() * unit).round().astype(np.int64)


class _Spent:
    """What a network spends where each sample takes so many time steps, from all that ran, a part at a time."""

    def __init__(self, run: Run, network: Network, steps: np.ndarray, graded: bool) -> None:
        self.run, self.network, self.steps, self.graded = run, network, steps, graded
        self.totals: dict[int, list[np.ndarray]] = {}

    def add(self, part: np.ndarray, counts: np.ndarray, result: simulation.Simulation) -> None:
        """Count the samples numbered `part`, up to the exit of each."""
        for t in np.unique(self.steps[part]):
            some = self.steps[part] == t
            sums = [(counts[some][..., :t] != 0).sum((0, -1))]
            records = (result.record[f"spikes.{layer.name}"] for layer in self.network.spiking)
            sums += [spikes[some][..., :t].sum((0, -1)) for spikes in records]
            before = self.totals.get(int(t))
            self.totals[int(t)] = sums if before is None else [a + b for a, b in zip(before, sums, strict=True)]

    def cost(self) -> tuple[float | None, float]:
        """Energy in nJ and synaptic operations a sample."""
        chip = self.run.settings.chip
        placement, energy, synops, known = hw_profiles.place(self.network, chip), 0.0, 0.0, True
        for t, sums in sorted(self.totals.items()):
            n = int((self.steps == t).sum())
            arrived, *spikes = (each / n for each in sums)
            cost = hw_profiles.cost(self.network, Activity(t, arrived, spikes, self.graded), chip, placement)
            total, share = cost.energy["total"].value, n / len(self.steps)
            known, synops = known and total is not None, synops + share * cost.synops
            energy += share * (total or 0.0) / 1000
        return energy if known else None, synops


def early_exit_events(
    run: Run,
    loss: float = 0.005,
    dataset: Dataset | None = None,
    *,
    unseen: Dataset | None = None,
    progress: bool = True,
) -> EarlyExit:
    """The same without a clock: an answer as soon as one output leads by enough events.

    Parameters
    ----------
    run : Run
        With a count readout.
    loss, dataset, unseen, progress
        See `early_exit`.

    Returns
    -------
    EarlyExit
        ``steps`` are microseconds from the start of the recording window; a sample that never leads by enough answers
        at the window's end.

    Raises
    ------
    RunError
        See `early_exit`; a readout of voltages.
    """
    dataset = dataset or open_split(run.settings)
    check("margin", loss, len(dataset))
    other = None if unseen is None else course_of_events(run, unseen, progress=progress)
    return leave([course_of_events(run, dataset, progress=progress)], "margin", loss, None, "event", other)


def course_of_events(run: Run, dataset: Dataset, *, progress: bool = True) -> Course:
    """What a run answers when an output first leads by 1 event, by 2, ..., and at the end; see `early_exit_events`."""
    run.check_data(dataset)
    network = to_network(run)
    if network.readout != "count":
        raise RunError("without a clock an answer is a count of events: train with readout 'count'")
    options = {"reset": network.reset, "record": ("events",), "progress": progress, **event_rules(run)}
    found: list[list[Any]] = [[], [], [], []]
    for events in event_parts(dataset, len(dataset)):
        result = simulate_events(network, events, **options)
        assert result.events is not None
        columns = (*_leads(result.events, network, events.n), [*result.readout])
        for column, more in zip(found, columns, strict=True):
            column += more
    times, leads, winners, answers = found
    readout, labels = np.stack(answers), dataset.labels
    classes = readout.shape[1]
    most = max((int(lead.max()) for lead in leads if len(lead)), default=0)
    readouts = np.repeat(readout[..., None], most + 1, axis=-1)
    when = np.full((len(labels), most + 1), dataset.duration)
    for i, (time, lead, winner) in enumerate(zip(times, leads, winners, strict=True)):
        for margin in range(1, most + 1):
            first = int((lead >= margin).argmax()) if len(lead) and lead.max() >= margin else None
            if first is not None:
                readouts[i, :, margin - 1] = np.eye(classes, dtype=readouts.dtype)[winner[first]]
                when[i, margin - 1] = time[first]
    margins = np.broadcast_to(np.arange(1.0, most + 2), when.shape)
    return Course(readouts, lambda _: margins, labels, "count", when, None, lambda *ways: [(None, None)] * len(ways))


def _leads(events: Any, network: Network, samples: int) -> tuple[list[Any], list[Any], list[Any]]:
    """For every sample, at each of its output events: its time, the lead of the first class, and which that is."""
    shape = (*network.spiking[-1].shape, 1, 1)[:3]
    output = (np.asarray(events.c) * shape[1] + events.y) * shape[2] + events.x
    classes = int(np.prod(network.shape))
    output = output * classes // int(np.prod(shape))  # an average has several outputs a class, side by side
    times, leads, winners = [], [], []
    for i in range(samples):
        mine = np.asarray(events.sample) == i
        counts = np.eye(classes, dtype=np.int64)[output[mine]].cumsum(0)
        ordered = np.sort(counts, axis=1) if len(counts) else counts
        times.append(np.asarray(events.t)[mine])
        leads.append(ordered[:, -1] - (ordered[:, -2] if classes > 1 else 0))
        winners.append(counts.argmax(1) if len(counts) else np.zeros(0, int))
    return times, leads, winners


def check(rule: str, loss: float, samples: int) -> None:
    """Raise `RunError` for a rule, a loss or a number of samples that cannot be."""
    if rule not in RULES:
        raise RunError(text.unknown("rule of early exit", rule, RULES))
    if not 0 <= loss < 1:
        raise RunError(f"loss of accuracy is {loss:g}; give 0 to below 1 (0.005 is half a point)")
    if samples < 2:
        raise RunError(f"early exit needs at least 2 samples to choose and use a threshold on; there is {samples}")
