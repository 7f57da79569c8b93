"""Real time measured: how right an answer is at any moment, with a clock and without, when it can be given, what it
costs until then, and how fast events may come.
"""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import hw_profiles
from mtt_lava.data import Dataset, open_frames
from mtt_lava.data.events import EVENT_DTYPE
from mtt_lava.deploy import to_network
from mtt_lava.early_exit import early_exit_events, readouts_of_steps
from mtt_lava.evaluation import event_rules, to_events
from mtt_lava.pictures import plot_realtime, save_picture
from mtt_lava.run import Run, RunError
from mtt_lava.scoring import score
from mtt_lava.sources import Packet, Source, played
from mtt_lava.stream import Fit, Latencies, Queue, Stream
from mtt_lava.studies.parts import machine
from netx_export.activity import event_totals
from netx_export.event import Events, Session
from netx_export.event.backend import simulate
from netx_export.text import table

MOMENTS = 30
"""Moments of a recording at which the network without a clock is asked."""
GESTURE = 60_000
"""Events a second of the stream from 128 x 128 pixels, made at random: DVS128 Gesture's own files are not at hand."""
SPEEDS = (25, 50, 100, 150, 200, 250, 300, 400, 600, 800)
"""Times true speed at which a stream is tried."""
_TRIED = 2.0  # seconds that a stream is tried at a speed
_LATE = 0.01  # seconds: where 1 in 100 answers takes longer, it does not keep up


@dataclass(frozen=True)
class Curve:
    """How right the answers of a run are as a recording goes on.

    Attributes
    ----------
    run : str
    time_steps : int or None
        None: without a clock.
    elapsed : numpy.ndarray
        Microseconds from the start of the recording window.
    accuracy, silent : numpy.ndarray
        At these: shares of the recordings. A silent answer is wrong, a tie among k counts 1/k.
    """

    run: str
    time_steps: int | None
    elapsed: np.ndarray
    accuracy: np.ndarray
    silent: np.ndarray


@dataclass(frozen=True)
class Decision:
    """When a run without a clock can answer.

    Attributes
    ----------
    run : str
    margins : tuple of float
        By how many events an output has to lead, chosen for each half of the data on the other.
    latency : numpy.ndarray
        (N,) microseconds.
    accuracy, full : float
        Of these answers, and of those at the end.
    energy : dict of str to (Figure, Figure)
        For each profile of a sample until it answers, and to the end.
    synops : (float, float)
        The same of synaptic operations.
    """

    run: str
    margins: tuple[float, ...]
    latency: np.ndarray
    accuracy: float
    full: float
    energy: dict[str, tuple[hw_profiles.Figure, hw_profiles.Figure]]
    synops: tuple[float, float]


@dataclass(frozen=True)
class Pace:
    """How fast a stream may come.

    Attributes
    ----------
    stream : str
    events_per_second : float
        At true speed.
    kept : int
        Times true speed, of those tried, up to which nothing was dropped and 99 % of the answers came within 10 ms; 0:
        not even the slowest.
    latency : Latencies
        At true speed.
    """

    stream: str
    events_per_second: float
    kept: int
    latency: Latencies


@dataclass(frozen=True)
class RealTime:
    """What `realtime` found."""

    data: str
    curves: list[Curve]
    decisions: list[Decision]
    paces: list[Pace]
    hour: dict[str, float]

    def __repr__(self) -> str:
        return f"<RealTime: {len(self.curves)} curves on {self.data}>"

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        curves = [
            {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in curve.__dict__.items()}
            for curve in self.curves
        ]
        decisions = []
        for each in self.decisions:
            energy = {name: [pair[0].value, pair[1].value] for name, pair in each.energy.items()}
            plain = each.__dict__ | {"latency": each.latency.tolist(), "margins": [*each.margins], "energy_pJ": energy}
            decisions.append({name: value for name, value in plain.items() if name != "energy"})
        paces = [each.__dict__ | {"latency": each.latency.to_dict()} for each in self.paces]
        content = {"machine": machine(), "data": self.data, "curves": curves, "decisions": decisions}
        return content | {"paces": paces, "hour": self.hour}

    def __str__(self) -> str:
        end = max(float(curve.elapsed[-1]) for curve in self.curves)
        marks = np.linspace(end / 6, end, 6)
        rows = [["run", "", *(f"{mark / 1000:.0f} ms" for mark in marks)]]
        for curve in self.curves:
            name = "event" if curve.time_steps is None else f"T = {curve.time_steps}"
            # What was answered last before that moment; before its first time step a clock has said nothing.
            at = np.searchsorted(curve.elapsed, marks * (1 + 1e-9), side="right") - 1
            rows.append([curve.run, name, *("-" if i < 0 else f"{100 * curve.accuracy[i]:.1f}" for i in at)])
        lines = ["accuracy in % at a moment of the recording", *table(rows, left=2), ""]
        head = ["answer by margin", "margin", "ms, mean", "99 %", "accuracy in %", "to the end", "synops", "to the end"]
        rows = [head]
        for d in self.decisions:
            times = (d.latency.mean() / 1000, np.percentile(d.latency, 99) / 1000)
            share = (100 * d.accuracy, 100 * d.full)
            margins = "; ".join(f"{m:g}" for m in d.margins)
            row = [d.run, margins, *(f"{t:.0f}" for t in times), *(f"{s:.1f}" for s in share)]
            rows.append([*row, *(f"{s:,.0f}" for s in d.synops)])
        lines += table(rows, left=1)
        for d in self.decisions:
            for name, (until, full) in d.energy.items():
                lines.append(f"{d.run} on {name}: energy until the answer {until}; to the end {full}")
        rows = [["one core", "events/s", "kept up to", "latency at true speed"]]
        for p in self.paces:
            rows.append([p.stream, f"{p.events_per_second:,.0f}", f"{p.kept} x", str(p.latency)])
        lines += ["", *table(rows, left=1)]
        if self.hour:
            h = self.hour
            lines.append(
                f"{h['hours']:.2f} hours of stream, {h['events']:,.0f} events, in {h['seconds']:.0f} s: memory "
                f"{h['before_mb']:.0f} MB after a tenth, {h['after_mb']:.0f} MB at the end"
            )
        return "\n".join([*lines, f"{self.data}; silent answers are wrong, a tie among k counts 1/k; {machine()}"])


def _event_curve(run: Run, dataset: Dataset, name: str) -> Curve:
    network = to_network(run)
    events = to_events(dataset)
    result = simulate(network, events, reset=network.reset, record=("events",), progress=False, **event_rules(run))
    assert result.events is not None
    out, classes = result.events, result.counts.shape[1]
    elapsed = np.linspace(dataset.duration / MOMENTS, dataset.duration, MOMENTS).astype(np.int64)
    counts = np.zeros((len(dataset), MOMENTS, classes), np.int64)
    shape = (*network.shape, 1, 1)[:3]
    output = np.ravel_multi_index((out.c, out.y, out.x), shape)
    when = np.minimum(np.searchsorted(elapsed, out.t), MOMENTS - 1)  # the few after the window count at its end
    np.add.at(counts, (out.sample, when, output), 1)
    scores = [score(counts[:, : i + 1].sum(1), dataset.labels, "count") for i in range(MOMENTS)]
    accuracy, silent = np.array([s.accuracy for s in scores]), np.array([s.silent for s in scores])
    return Curve(name, None, elapsed, accuracy, silent)


def _clocked_curve(run: Run, dataset: Dataset, time_steps: int, name: str) -> Curve:
    frames = open_frames(dataset, time_steps)
    most = run.settings.input_max or frames.largest
    counts = np.minimum(np.moveaxis(frames.take(np.arange(len(dataset))), 0, -1), most)
    readouts = readouts_of_steps(run, counts)
    kind = run.network.model.readout
    scores = [score(readouts[..., t], dataset.labels, kind) for t in range(time_steps)]
    elapsed = dataset.duration * np.arange(1, time_steps + 1) / time_steps
    accuracy, silent = np.array([s.accuracy for s in scores]), np.array([s.silent for s in scores])
    return Curve(name, time_steps, elapsed, accuracy, silent)


def _decision(run: Run, dataset: Dataset, loss: float, profiles: Sequence[str], name: str) -> Decision:
    found = early_exit_events(run, loss, dataset, progress=False)
    network, whole = to_network(run), to_events(dataset)
    seen = whole.t <= found.steps[whole.sample]
    columns = {column: getattr(whole, column)[seen] for column in ("sample", "t", "c", "y", "x")}
    activities, n = [], len(dataset)
    for events in (Events(**columns, samples=n), whole):
        result = simulate(network, events, reset=network.reset, record=("spikes",), progress=False, **event_rules(run))
        arrived, spikes = event_totals(network, events, result)
        activities.append(hw_profiles.Activity(None, arrived / n, [each / n for each in spikes]))
    chips = {chip.name: chip for chip in (run.settings.chip, *map(hw_profiles.load, profiles))}
    energy = {}
    for chip in chips.values():
        until, full = (hw_profiles.cost(network, activity, chip).energy["total"] for activity in activities)
        energy[chip.name] = (until, full)
    synops = [float(sum(hw_profiles.synaptic_operations(network, activity))) for activity in activities]
    return Decision(
        name, found.thresholds, found.steps, found.score.accuracy, found.full.accuracy, energy, (synops[0], synops[1])
    )


# ------------------------------------------------------------------------------------------------ pace


@contextmanager
def _one_core() -> Iterator[None]:
    """This process, and all threads that it starts, on one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def _repeated(recording: np.ndarray, seconds: float) -> np.ndarray:
    """A recording again and again until it is so long."""
    length = int(recording["t"][-1]) + 1
    times = max(1, int(np.ceil(seconds * 1e6 / length)))
    joined = np.tile(recording, times)
    joined["t"] += np.repeat(np.arange(times) * length, len(recording))
    return joined[: int(np.searchsorted(joined["t"], seconds * 1e6))]


def _pace(
    make: Callable[[], Session], fit: Callable[[], Fit], recording: np.ndarray, name: str, seconds: float
) -> Pace:
    def run(speed: int, length: float) -> Stream:
        events = _repeated(recording, length)
        # So long that a millisecond passes between two packets: a camera sends no more of them as it sees more.
        packets = played([events], speed, 1000 * speed, threading.Event())
        stream = Stream(make(), Source(name, packets), fit(), Queue())
        for _ in stream:
            pass
        return stream

    with _one_core():
        run(SPEEDS[0], SPEEDS[0] * _TRIED)
        true = run(1, seconds)
        kept = 0
        for speed in SPEEDS:
            stream = run(speed, speed * _TRIED)
            if stream.report.dropped or (stream.report.latencies.percentile(99) or 0.0) > _LATE:
                break
            kept = speed
    length = (int(recording["t"][-1]) + 1) / 1e6
    return Pace(name, len(recording) / length, kept, true.report.latencies)


def _joined(dataset: Dataset) -> np.ndarray:
    """All recordings, one after the other."""
    parts, at = [], 0
    for i in range(len(dataset)):
        part = dataset.events[i].copy()
        part["t"] += at - part["t"][0]
        at = int(part["t"][-1]) + 1
        parts.append(part)
    return np.concatenate(parts)


def _gesture(seconds: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    count = int(GESTURE * seconds)
    events = np.zeros(count, EVENT_DTYPE)
    events["t"] = np.sort(rng.integers(0, int(seconds * 1e6), count))
    for field, size in (("x", 128), ("y", 128), ("p", 2)):
        events[field] = rng.integers(0, size, count)
    return events


def an_hour(session: Session, recording: np.ndarray, hours: float = 1.0) -> dict[str, float]:
    """So long a stream, as fast as it can be run; what memory the process takes after a tenth of it, and at the end.

    Returns
    -------
    dict
        hours, seconds, events, before_mb and after_mb: resident memory at those moments.
    """
    length = int(recording["t"][-1]) + 1
    turns = max(10, int(np.ceil(hours * 3600e6 / length)))

    def packets() -> Iterator[Packet]:
        for turn in range(turns):
            events = recording.copy()
            events["t"] += turn * length
            yield Packet(events)

    def resident() -> float:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize() / 1e6

    stream = Stream(session, Source("hour", packets(), waits=True))
    begin, before = time.perf_counter(), 0.0
    for _ in stream:
        if not before and stream.report.events > turns * len(recording) / 10:
            before = resident()
    report = stream.report
    if report.dropped or report.run != report.events - report.outside:
        raise RunError(f"an hour of stream: {report.dropped:,} events were dropped, and none may be")
    seconds = time.perf_counter() - begin
    found = {"hours": report.stream_seconds / 3600, "seconds": seconds, "events": float(report.events)}
    return found | {"before_mb": before, "after_mb": resident()}


def realtime(
    runs: Sequence[Run],
    dataset: Dataset,
    out: Path,
    time_steps: Sequence[int] = (2, 4, 10),
    loss: float = 0.005,
    profiles: Sequence[str] = ("loihi1",),
    seconds: float = 10.0,
    hours: float = 1.0,
) -> RealTime:
    """Measure runs on the recordings of a data set, at every moment of them.

    Parameters
    ----------
    runs : sequence of Run
        With a count readout, of any method.
    dataset : Dataset
    out : pathlib.Path
        Folder of the picture.
    time_steps : sequence of int
        With a clock: so many over the recording window.
    loss : float
        Accuracy that an early answer may lose; see `mtt_lava.early_exit.early_exit_events`.
    profiles : sequence of str
        Chips whose energy is estimated, beside that of each run.
    seconds, hours : float
        Length of the streams at true speed, and of the long one (0: none).

    Returns
    -------
    RealTime

    Raises
    ------
    RunError
        A run reads out voltages, or the data has no events.
    """
    names = [run.settings.method.upper() for run in runs]
    names = [f"{name} {i}" if names.count(name) > 1 else name for i, name in enumerate(names)]
    curves, decisions = [], []
    for run, name in zip(runs, names, strict=True):
        decisions.append(_decision(run, dataset, loss, profiles, name))
        curves.append(_event_curve(run, dataset, name))
        curves += [_clocked_curve(run, dataset, t, name) for t in time_steps]
    run = runs[-1]
    network, chip = to_network(run), event_rules(run).get("chip")
    program = Session(network, chip, reset=network.reset).program
    window = dataset.duration

    def session() -> Session:
        return Session(program, window=window)

    shape = (*network.in_shape, 1, 1)[:3]
    recorded = _joined(dataset)
    paces = [_pace(session, lambda: Fit(network.in_shape), recorded, dataset.name, seconds)]
    by = -(-128 // min(shape[1:]))
    if len(network.in_shape) == 3:
        name = f"random, 128 x 128, pooled by {by}"
        paces.append(_pace(session, lambda: Fit(network.in_shape, pool=by), _gesture(2.0), name, seconds))
    hour = an_hour(session(), recorded, hours) if hours else {}
    found = RealTime(dataset.name, curves, decisions, paces, hour)
    out.mkdir(parents=True, exist_ok=True)
    save_picture(_drawn(found), out / "realtime.png")
    return found


def _drawn(found: RealTime) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(found.decisions) + 1, 4), layout="constrained")
    every = figure.subplots(1, len(found.decisions), sharey=True, squeeze=False)[0]
    for axes, decision in zip(every, found.decisions, strict=True):
        curves = {c.time_steps: (c.elapsed, c.accuracy) for c in found.curves if c.run == decision.run}
        plot_realtime(curves, float(decision.latency.mean()), decision.run, axes)
    return every
