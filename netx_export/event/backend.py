"""Event-driven simulation: no clock, no time steps; every event runs through the network as soon as it arrives.

Rules, the same for every chip without a clock:

- Input events come in order of time, ties in the order given; what one of them causes runs to its end before the next.
- In a layer, an event updates the neurons within its kernel's reach in ascending order of (channel, row, column), each
  once: v += weight. A neuron that reaches its threshold emits at once and resets: ``subtract`` takes the threshold
  from v for every event emitted, as long as v >= threshold, and v never falls below the negative threshold;
  ``zero`` spikes where v > threshold (or >=, where the profile says so) and sets v to 0.
- A pool without neurons passes every event on.
- Leak, where a time constant is given: v falls exponentially in the time that passed since its last update.
- Refractory time: what reaches a neuron within that time after its spike is lost, and it emits one event at a time.
- Latency: what a layer emits leaves it that much later (the second mode); a layer's events keep their order, so that
  a time-ordered queue and a run layer by layer are the same for a chain of layers.
- A sum of spikes (`Add` without neurons) passes on the events of its inputs in the order (time, index of the input
  event that caused them, number of the input), those of one input as they come.

A layer's neurons depend on nothing but the ordered events of what feeds it. So the simulator runs a bounded chunk
of events through one layer after the other, with that layer's weights and states in the cache.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, as_completed, wait
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from netx_export import limits
from netx_export.event.events import COLUMNS, Events, check_events, load_events
from netx_export.event.plan import ChipRules, Program
from netx_export.event.session import Session
from netx_export.files import save_arrays
from netx_export.limits import Limits
from netx_export.network import Network, NetworkError
from netx_export.text import unknown

__all__ = ["COLUMNS", "ChipRules", "EventSimulation", "Events", "Simulator", "load_events", "simulate"]


@dataclass(frozen=True, eq=False)
class EventSimulation:
    """What a network answered.

    Parameters
    ----------
    counts : numpy.ndarray
        (N, outputs) int64: output events.
    readout : numpy.ndarray
        (N, outputs): counts, or (readout ``"voltage"``) v of the last layer's neurons after the last event.
    spikes_per_layer, synops_per_layer : numpy.ndarray
        (N, layers with neurons) int64: events emitted, and pairs of an event and a neuron within its kernel's reach.
    first_spike : numpy.ndarray
        (N, outputs) int64: time of each output's first event in microseconds; -1 without one.
    events : Events or None
        The output events, if recorded.
    record : dict of str to numpy.ndarray
        If recorded: ``spikes.<layer>``, how many events each neuron emitted, (N, C, H, W) or (N, F) int64, where
        <layer> is the layer's name.
    limits : dict of str to Limits
        How far v of every layer with neurons went, and how often it saturated, by the layer's name. v is followed
        only where 16 bits can be too few: else ``v_max`` is None and nothing saturates. There is no u.
    """

    counts: np.ndarray
    readout: np.ndarray
    spikes_per_layer: np.ndarray
    synops_per_layer: np.ndarray
    first_spike: np.ndarray
    events: Events | None = None
    record: dict[str, np.ndarray] = field(default_factory=dict)
    limits: dict[str, Limits] = field(default_factory=dict)

    def __repr__(self) -> str:
        fired, synops = int(self.counts.sum()), int(self.synops_per_layer.sum())
        return f"<EventSimulation: {len(self.counts)} samples, {fired:,} output events, {synops:,} synaptic operations>"

    def limits_text(self) -> str:
        """One line that says in which layers v saturated; nothing where it did in none."""
        return limits.text(self.limits)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to a NumPy .npz file, whole or not at all.

        Recorded events are ``events.<column>``, ``limits`` is a text, a JSON object.
        """
        arrays = {name: value for name, value in self.__dict__.items() if name not in ("events", "record", "limits")}
        arrays |= self.record
        if self.events is not None:
            arrays |= {f"events.{name}": getattr(self.events, name) for name in COLUMNS}
        arrays["limits"] = np.array(limits.to_json(self.limits))
        save_arrays(path, arrays)


def simulate(
    network: Network | str | os.PathLike[str],
    events: Events,
    *,
    reset: str | None = None,
    clamp: bool | None = None,
    chip: ChipRules | None = None,
    dtype: str | None = None,
    weights: Sequence[np.ndarray] | None = None,
    thresholds: Sequence[float] | None = None,
    time_constant: float | Sequence[float] = 0.0,
    refractory: int = 0,
    latency: int | Sequence[int] = 0,
    order: int | None = None,
    record: Sequence[str] = (),
    threads: int | None = None,
    progress: bool = True,
) -> EventSimulation:
    """Run a network event by event; see the module for the rules.

    Parameters
    ----------
    network : Network or path
        Conv, dense, pool, flatten layers and sums of spikes, without biases, delays and recurrence; or its NetX file.
    events : Events
    reset : {"zero", "subtract"}, optional
        Default: the chip's; without a chip, the network's.
    clamp : bool, optional
        Whether v never falls below the negative threshold (those of a voltage readout always may). Default: with reset
        ``"subtract"`` only.
    chip : ChipRules, optional
        Reset, whether v = threshold spikes already, and 16-bit saturating states:
        ``hw_profiles.load("speck2e").event_rules()``.
    dtype : {"int32", "int16", "float32"}, optional
        Of the states. Integers are exact: int16 saturates, as Speck's do, and int32 stays above -2**30. float32 is
        exact below 2**24. Default: int32, what the chip has, or float32 where there are float weights or a leak.
    weights, thresholds : sequence, optional
        Instead of those of the layers with neurons, in order: weights before quantisation.
    time_constant : float or sequence of float
        Of the leak, in microseconds, of all or each of the layers with neurons; 0: none.
    refractory : int
        Microseconds.
    latency : int or sequence of int
        Microseconds, of all or each of the layers with neurons.
    order : int, optional
        Seed of another order in which a layer emits what one event causes, drawn once for all its neurons: in which a
        chip has them is not known. Default: (channel, row, column).
    record : sequence of str
        ``"events"``: keep the output events; ``"spikes"``: count those of every neuron.
    threads : int, optional
        CPU threads; default: one a core that this process may use.
    progress : bool
        Show a bar on stderr, after three seconds.

    Returns
    -------
    EventSimulation

    Raises
    ------
    NetworkError
        The file, the events or an option is not what it must be.
    """
    simulator = Simulator(
        network,
        reset=reset,
        clamp=clamp,
        chip=chip,
        dtype=dtype,
        weights=weights,
        thresholds=thresholds,
        time_constant=time_constant,
        refractory=refractory,
        latency=latency,
        order=order,
    )
    return simulator.run(events, record=record, threads=threads, progress=progress)


class Simulator(Program):
    """A network made ready to run, once for many runs; parameters as those of `simulate`."""

    def run(
        self, events: Events, *, record: Sequence[str] = (), threads: int | None = None, progress: bool = True
    ) -> EventSimulation:
        """Run events; see `simulate`."""
        for what in record:
            if what not in ("events", "spikes"):
                raise NetworkError(unknown("record", what, ("events", "spikes")))
        return _run(self, events, record, threads, progress)


def _run(
    program: Program, events: Events, record: Sequence[str], threads: int | None, progress: bool
) -> EventSimulation:
    network = program.network
    starts, where, times = check_events(network, events, record)
    n, layers = len(starts) - 1, len(network.spiking)
    size = math.prod(network.shape)
    result = EventSimulation(
        np.zeros((n, size), np.int64),
        np.zeros((n, size), np.float32 if program.dtype == "float32" else np.int64),
        np.zeros((n, layers), np.int64),
        np.zeros((n, layers), np.int64),
        np.full((n, size), -1, np.int64),
        record={
            f"spikes.{layer.name}": np.zeros((n, *layer.shape), np.int64)
            for layer in network.spiking
            if "spikes" in record
        },
    )
    recorded: list[tuple[np.ndarray, np.ndarray]] = [_NOTHING] * n
    saturations = np.zeros((n, layers), np.int64)
    peaks = np.zeros_like(saturations)
    spiking = [(plan, int(row["neurons"])) for plan, row in zip(program.plans, program.tables.rows, strict=True)]
    spiking = [(plan, first) for plan, first in spiking if plan.neurons]

    idle: SimpleQueue[Session] = SimpleQueue()

    def run(sample: int) -> None:
        # Sessions are made once a thread: fresh memory costs the system more time than a small recording.
        try:
            session = idle.get_nowait()
        except Empty:
            session = Session(program, record=record)
        part = slice(starts[sample], starts[sample + 1])
        session.run_checked(where[part], times[part])
        result.counts[sample], result.first_spike[sample] = session.state.counts, session.state.first
        result.readout[sample] = session.readout()
        tally = session.tally.T
        result.spikes_per_layer[sample], result.synops_per_layer[sample] = tally[:2]
        saturations[sample], peaks[sample] = tally[2:]
        for (plan, first), counts in zip(spiking, result.record.values(), strict=False):
            counts[sample].reshape(-1)[plan.order] = session.state.spikes[first : first + len(plan.order)]
        if "events" in record:
            when, outputs = session.take()
            recorded[sample] = outputs, when
        session.reset()
        idle.put(session)

    _spread(run, n, threads or len(os.sched_getaffinity(0)), progress)
    watched = [plan.counting for plan, _ in spiking]
    reached = zip(watched, peaks.max(axis=0, initial=0).tolist(), saturations.sum(axis=0).tolist(), strict=True)
    found = [Limits(None, v_max if seen else None, 0, times) for seen, v_max, times in reached]
    names = [layer.name for layer in network.spiking]
    result = replace(result, limits=dict(zip(names, found, strict=True)))
    if "events" not in record:
        return result
    sample = np.repeat(np.arange(n), [len(outputs) for outputs, _ in recorded])
    outputs = np.concatenate([outputs for outputs, _ in recorded] or [_NOTHING[0]])
    when = np.concatenate([when for _, when in recorded] or [_NOTHING[1]])
    shape = network.shape
    c, y, x = np.unravel_index(outputs, shape) if len(shape) == 3 else (outputs, 0 * outputs, 0 * outputs)
    return replace(result, events=Events(sample, when, c, y, x, n))


_NOTHING = (np.zeros(0, np.int64), np.zeros(0, np.int64))


def _spread(run: Any, n: int, threads: int, progress: bool) -> None:
    """`run` for every sample, on so many threads; a few at a time, since what hands them out needs a core too."""
    from tqdm import tqdm

    size = max(1, n // (32 * threads))

    def some(start: int) -> int:
        samples = range(start, min(start + size, n))
        for sample in samples:
            run(sample)
        return len(samples)

    with (
        tqdm(total=n, desc="event", unit="sample", disable=not progress, delay=3) as bar,
        ThreadPoolExecutor(max(1, min(threads, n))) as pool,
    ):
        waiting = [pool.submit(some, start) for start in range(0, n, size)]
        try:
            if not wait(waiting, 1, FIRST_COMPLETED).done:
                bar.refresh()  # the first run compiles, and long recordings take long
            for done in as_completed(waiting):
                bar.update(done.result())
        except BaseException:
            for one in waiting:
                one.cancel()
            raise
