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
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, as_completed, wait
from dataclasses import dataclass, field, replace
from itertools import product
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from netx_export import limits
from netx_export.files import save_arrays
from netx_export.limits import Limits
from netx_export.network import (
    DECAY_UNITY,
    INPUT,
    Add,
    Average,
    Dense,
    Flatten,
    Layer,
    Network,
    NetworkError,
    Neuron,
    Pool,
    Windowed,
    channels_fastest,
)
from netx_export.netx import read
from netx_export.reading import read_npz
from netx_export.simulation import linear
from netx_export.text import short, unknown

COLUMNS = ("sample", "t", "c", "y", "x")
"""What an event is: sample, time in microseconds, channel, row and column."""
CHUNK = 1 << 15
"""Events that a layer is given at a time."""
GRAPH_EVENTS = 1 << 20
"""A graph is given so many events at a time that none of its layers emits many more than this."""
LOWEST = -(1 << 30)
"""Where integer states without a clamp stay: no sum of 32 bits can then wrap."""
DTYPES = ("int32", "int16", "float32")
LATEST = 1 << 60
"""Microseconds: latencies can still be added in 64 bits."""
EMPTY_BYTES = 1 << 28
"""Results of recordings without events may take this much: events may declare any number of them."""


@dataclass(frozen=True, eq=False)
class Events:
    """Input events of N recordings.

    Parameters
    ----------
    sample, t, c, y, x : numpy.ndarray
        Integers, one an event, sorted by sample, then t (microseconds). For a flat input of F features, c is the
        feature, and y and x are 0.
    samples : int, optional
        N; recordings may be empty. Default: the largest sample and one.
    """

    sample: np.ndarray
    t: np.ndarray
    c: np.ndarray
    y: np.ndarray
    x: np.ndarray
    samples: int | None = None

    def __repr__(self) -> str:
        return f"<Events: {len(self.t):,} of {self.n:,} recordings>"

    @property
    def n(self) -> int:
        """Number of recordings."""
        return (int(np.max(self.sample)) + 1 if len(self.sample) else 0) if self.samples is None else self.samples


@dataclass(frozen=True)
class ChipRules:
    """What the neurons of a chip without a clock do; `hw_profiles.Profile.event_rules` says it of a profile.

    Parameters
    ----------
    name : str
        What to call it in messages.
    resets : tuple of str
        What a spike can do to v: ``"zero"``, ``"subtract"``; empty where that is not known.
    reset : str, optional
        What it does unless another is asked for.
    strict : bool, optional
        Whether a spike needs v > threshold, not v >= threshold.
    state_bits : int, optional
        Width of v.
    """

    name: str
    resets: tuple[str, ...] = ()
    reset: str | None = None
    strict: bool | None = None
    state_bits: int | None = None


def load_events(path: str | os.PathLike[str]) -> Events:
    """Read events from a NumPy .npz file with the arrays sample, t, c, y, x, and optionally the number ``samples``.

    Raises
    ------
    NetworkError
        No such file, or not one of these.
    """
    arrays = read_npz(path, NetworkError, (*COLUMNS, "samples"))
    missing = [name for name in COLUMNS if name not in arrays]
    if missing:
        raise NetworkError(f"{path}: has no array {missing[0]!r}; give {', '.join(COLUMNS)}")
    sample, t, c, y, x = (arrays[name] for name in COLUMNS)
    samples = arrays.get("samples")
    if samples is not None and (samples.size != 1 or samples.dtype.kind not in "iu"):
        raise NetworkError(f"{path}: samples is {samples.dtype} of shape {samples.shape}; give one whole number")
    return Events(sample, t, c, y, x, None if samples is None else int(samples.item()))


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


class Simulator:
    """A network made ready to run, once for many runs; parameters as those of `simulate`."""

    def __init__(
        self,
        network: Network | str | os.PathLike[str],
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
    ) -> None:
        self.network = network if isinstance(network, Network) else read(network)
        self._rules = _rules(self.network, reset, clamp, chip, dtype, weights is not None or _any(time_constant))
        self._plans = list(_plans(self.network, self._rules, weights, thresholds, time_constant, refractory, latency))
        if order is not None:
            random = np.random.default_rng(order)
            self._plans = [replace(plan, key=random.permutation(plan.key)) for plan in self._plans]

    def run(
        self, events: Events, *, record: Sequence[str] = (), threads: int | None = None, progress: bool = True
    ) -> EventSimulation:
        """Run events; see `simulate`."""
        for what in record:
            if what not in ("events", "spikes"):
                raise NetworkError(unknown("record", what, ("events", "spikes")))
        return _run(self.network, self._plans, self._rules.dtype, events, record, threads, progress)


def _run(
    network: Network,
    plans: list[_Plan],
    dtype: str,
    events: Events,
    record: Sequence[str],
    threads: int | None,
    progress: bool,
) -> EventSimulation:
    starts, index, times = _check_events(network, events, record)
    n = len(starts) - 1
    out_shape = network.shape
    size, order = math.prod(out_shape), plans[-1].order
    # What is late could meet, at a sum, what is early of the next chunk.
    whole = not network.is_chain and any(plan.times[2] for plan in plans)
    result = EventSimulation(
        np.zeros((n, size), np.int64),
        np.zeros((n, size), np.float32 if dtype == "float32" else np.int64),
        np.zeros((n, len(network.spiking)), np.int64),
        np.zeros((n, len(network.spiking)), np.int64),
        np.full((n, size), -1, np.int64),
        record={
            f"spikes.{layer.name}": np.zeros((n, *layer.shape), np.int64)
            for layer in network.spiking
            if "spikes" in record
        },
    )
    recorded: list[tuple[np.ndarray, np.ndarray]] = [_NOTHING] * n
    saturations = np.zeros((n, len(network.spiking)), np.int64)
    peaks = np.zeros_like(saturations)

    idle: SimpleQueue[list[_State]] = SimpleQueue()

    def run(sample: int) -> None:
        # States are made once a thread: fresh memory costs the system more time than a small recording.
        try:
            chain = idle.get_nowait()
        except Empty:
            chain = [_State(plan, "spikes" in record) for plan in plans]
        parts = []
        stop, chunk = starts[sample], CHUNK if network.is_chain else CHUNK >> 7
        while (at := stop) < starts[sample + 1]:
            stop = starts[sample + 1] if whole else min(at + chunk, starts[sample + 1])
            if network.is_chain:
                leaving = _through(chain, index[at:stop], times[at:stop], stop - at)
            else:
                gone, when, most = _through_graph(chain, index[at:stop], times[at:stop])
                leaving = iter(((gone, when),))
                chunk = max(1, min(chunk * 2 if most < GRAPH_EVENTS // 4 else chunk * GRAPH_EVENTS // most, CHUNK))
            for where, when in leaving:
                outputs = order[where]
                result.counts[sample] += np.bincount(outputs, minlength=size)
                seen = result.first_spike[sample]
                times_seen = seen.copy()
                times_seen[outputs[::-1]] = when[::-1]  # of several events of an output the last one written stays
                seen[:] = np.where(seen < 0, times_seen, seen)
                if "events" in record:
                    parts.append((outputs, when.copy()))
        states = [state for state in chain if state.plan.layer.neuron is not None]
        for layer, state in enumerate(states):
            result.spikes_per_layer[sample, layer], result.synops_per_layer[sample, layer] = state.tally[:2]
            peaks[sample, layer], saturations[sample, layer] = state.peak[0], state.tally[2]
        for state, counts in zip(states, result.record.values(), strict=False):
            counts[sample].reshape(-1)[state.plan.order] = state.counts
        if network.readout == "voltage":
            v = np.zeros((1, *network.spiking[-1].shape), result.readout.dtype)
            v.reshape(-1)[states[-1].plan.order] = states[-1].v
            result.readout[sample] = linear(network.tail, v).ravel()
        else:
            result.readout[sample] = result.counts[sample]
        if parts:
            recorded[sample] = (np.concatenate([a for a, _ in parts]), np.concatenate([b for _, b in parts]))
        for state in states:
            state.reset()
        idle.put(chain)

    _spread(run, n, threads or len(os.sched_getaffinity(0)), progress)
    watched = [plan.counting for plan in plans if plan.layer.neuron is not None]
    reached = zip(watched, peaks.max(axis=0, initial=0).tolist(), saturations.sum(axis=0).tolist(), strict=True)
    found = [Limits(None, v_max if seen else None, 0, times) for seen, v_max, times in reached]
    names = [layer.name for layer in network.spiking]
    result = replace(result, limits=dict(zip(names, found, strict=True)))
    if "events" not in record:
        return result
    sample = np.repeat(np.arange(n), [len(where) for where, _ in recorded])
    where = np.concatenate([where for where, _ in recorded] or [_NOTHING[0]])
    when = np.concatenate([when for _, when in recorded] or [_NOTHING[1]])
    c, y, x = np.unravel_index(where, out_shape) if len(out_shape) == 3 else (where, 0 * where, 0 * where)
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


# ------------------------------------------------------------------------------------------------ rules and input


@dataclass(frozen=True)
class _Rules:
    reset: str
    clamp: bool
    strict: bool
    dtype: str


def _any(value: float | Sequence[float]) -> bool:
    return bool(np.any(np.asarray(value) != 0))


def _rules(
    network: Network, reset: str | None, clamp: bool | None, chip: ChipRules | None, dtype: str | None, floats: bool
) -> _Rules:
    strict: bool | None = None
    if chip is not None:
        if not isinstance(chip, ChipRules):
            raise NetworkError(f"chip {short(chip)}: give ChipRules: hw_profiles.load(name).event_rules()")
        if reset is not None and chip.resets and reset not in chip.resets:
            raise NetworkError(f"reset {reset!r}: profile {chip.name} can reset by {', '.join(chip.resets)} only")
        reset, strict = reset or chip.reset, chip.strict
        if chip.state_bits == 16 and not floats:
            dtype = dtype or "int16"
    reset = reset or network.reset
    if reset not in ("zero", "subtract"):
        raise NetworkError(unknown("reset", reset, ("zero", "subtract")))
    dtype = dtype or ("float32" if floats else "int32")
    if dtype not in DTYPES:
        raise NetworkError(unknown("dtype", dtype, DTYPES))
    if floats and dtype != "float32":
        raise NetworkError(f"dtype {dtype!r}: float weights and leaks need float32 states")
    clamp = reset == "subtract" if clamp is None else clamp
    return _Rules(reset, clamp, (reset == "zero") if strict is None else strict and reset == "zero", dtype)


def _check_events(network: Network, events: Events, record: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each recording starts, and every event's index (H, W, C) and time; or one line for what is wrong."""
    shape = network.in_shape if len(network.in_shape) == 3 else (network.in_shape[0], 1, 1)
    try:
        columns = [np.asarray(getattr(events, name)) for name in COLUMNS]
    except (ValueError, TypeError):
        raise NetworkError("events: a column is no array; give flat integer arrays") from None
    for name, column in zip(COLUMNS, columns, strict=True):
        if column.dtype.kind not in "iu" or column.ndim != 1:
            raise NetworkError(f"events: {name} is {column.dtype} of shape {column.shape}; give a flat integer array")
        if len(column) != len(columns[0]):
            raise NetworkError(f"events: {name} has {len(column)} entries, sample has {len(columns[0])}; give as many")
    sample, t, *place = columns
    n = events.n
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or not 0 <= n < LATEST:
        raise NetworkError(f"events: samples is {short(n)}; give a whole number from 0 on")
    n = int(n)
    neurons = sum(math.prod(layer.shape) for layer in network.spiking) if "spikes" in record else 0
    each = 8 * (3 * math.prod(network.shape) + 4 * len(network.spiking) + neurons)
    # Which are empty takes a sort to tell: only where they could be too many.
    empty = n - len(np.unique(sample)) if n * each > EMPTY_BYTES else 0
    if empty * each > EMPTY_BYTES:
        raise NetworkError(
            f"events: {n:,} recordings, {empty:,} of them without events; at most {EMPTY_BYTES // each:,} may be empty "
            f"for this network: number the recordings from 0 on"
        )
    for name, column, most in (("sample", sample, n), *zip("cyx", place, shape, strict=True)):
        if len(column) and (column.min() < 0 or column.max() >= most):
            at = int(np.argmax((column < 0) | (column >= most)))
            raise NetworkError(f"events: {name} is {column[at]} at event {at}; {network.source} takes 0..{most - 1}")
    if len(t) and (int(t.min()) < 0 or int(t.max()) > LATEST):
        at = int(np.argmax((t < 0) | (t > LATEST)))
        raise NetworkError(f"events: t is {t[at]} at event {at}; give microseconds, 0..{LATEST}")
    sample, t = sample.astype(np.int64, copy=False), t.astype(np.int64, copy=False)
    back = (sample[1:] < sample[:-1]) | ((t[1:] < t[:-1]) & (sample[1:] == sample[:-1]))
    if back.any():
        at = int(np.argmax(back)) + 1
        raise NetworkError(
            f"events: not in order at event {at} (sample {sample[at]}, t {t[at]} after sample {sample[at - 1]}, "
            f"t {t[at - 1]}); sort by sample, then t: numpy.lexsort((t, sample))"
        )
    c, y, x = (column.astype(np.int32) for column in place)
    index = (y * shape[2] + x) * shape[0] + c
    return np.searchsorted(sample, np.arange(n + 1)), index, t


# ------------------------------------------------------------------------------------------------ layers


@dataclass(frozen=True, eq=False)
class _Plan:
    """A layer as the compiled loops take it.

    ``order`` turns the index of one of its events into one in (C, H, W), or (F,). ``inputs`` are the names of what has
    plans (flatten layers have none), each with what turns its index into that of this layer, where they differ.
    """

    layer: Layer
    inputs: tuple[tuple[str, np.ndarray | None], ...]
    order: np.ndarray
    tables: tuple[Any, ...]
    neurons: tuple[Any, ...] = ()
    room: int = 0
    counting: bool = False
    key: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    times: tuple[float, int, int] = (0.0, 0, 0)


def _plans(
    network: Network,
    rules: _Rules,
    weights: Sequence[np.ndarray] | None,
    thresholds: Sequence[float] | None,
    time_constant: float | Sequence[float],
    refractory: int,
    latency: int | Sequence[int],
) -> Iterator[_Plan]:
    spiking = network.spiking
    if not spiking:
        raise NetworkError(f"{network.source}: no layer has neurons, so there is nothing to run")
    each: dict[str, list[Any]] = {}
    for name, value in (
        ("weights", weights),
        ("thresholds", thresholds),
        ("time_constant", time_constant),
        ("latency", latency),
    ):
        alike = value is None or isinstance(value, int | float)
        each[name] = [value] * len(spiking) if alike else list(value)  # type: ignore[arg-type]
        if len(each[name]) != len(spiking):
            raise NetworkError(f"{name}: {len(each[name])} values for {len(spiking)} layers with neurons; give as many")
        if name in ("time_constant", "latency") and min(each[name]) < 0:
            raise NetworkError(f"{name} is {min(each[name])}; give microseconds from 0 on")
    if refractory < 0:
        raise NetworkError(f"refractory is {refractory}; give microseconds from 0 on")
    sources, number = {INPUT: (INPUT, channels_fastest(network.in_shape))}, 0
    for layer in network:
        fed = [sources[name] for name in layer.inputs]
        names, orders = tuple(name for name, _ in fed), [order for _, order in fed]
        if isinstance(layer, Flatten):
            sources[layer.name] = fed[0]  # events keep their index, and its order says which (C, H, W) it is
            continue
        if isinstance(layer, Pool | Average):
            reach, target = _windows(layer) if isinstance(layer, Pool) else _shares(layer, orders[0])
            room = int(np.diff(reach).max(initial=0))
            plan = _Plan(layer, ((names[0], None),), channels_fastest(layer.shape), (reach, target), room=room)
        elif isinstance(layer, Add) and layer.neuron is None:
            alike = all(np.array_equal(order, orders[0]) for order in orders)
            inputs = [(name, None if alike else order) for name, order in zip(names, orders, strict=True)]
            plan = _Plan(layer, tuple(inputs), orders[0] if alike else np.arange(math.prod(layer.shape)), ())
        else:
            values = {name: each[name][number] for name in each}
            number += layer.neuron is not None
            plan = _plan(network, layer, rules, names[0], orders[0], refractory, **values)
        sources[layer.name] = (layer.name, plan.order)
        yield plan


def _plan(
    network: Network,
    layer: Layer,
    rules: _Rules,
    source: str,
    order: np.ndarray,
    refractory: int,
    weights: np.ndarray | None,
    thresholds: float | None,
    time_constant: float,
    latency: int,
) -> _Plan:
    def refused(what: str) -> NetworkError:
        return NetworkError(f"{network.source}: layer {layer.name}: {what}")

    neuron = layer.neuron
    if neuron is not None and not isinstance(neuron, Neuron):
        raise refused(f"has {neuron.kind} neurons, which send values in time steps: use --backend fast")
    if isinstance(layer, Add):
        raise refused(
            "adds up currents, which chips without a clock do not: train it to add up spikes (neuron = false in the "
            "add, and neurons in what it adds)"
        )
    if not isinstance(layer, (Windowed, Dense)) or neuron is None or layer.weight is None:
        raise refused(f"a {layer.kind} layer{'' if neuron else ' without neurons'} has no event-driven form")
    if neuron.bias is not None and np.any(neuron.bias != 0):
        raise refused("has biases, and without a clock there is no step to add them in: train with --biases none")
    if isinstance(layer, Dense) and (layer.recurrent is not None or (layer.delay is not None and layer.delay.any())):
        raise refused("has recurrence or delays, which are counted in time steps: use --backend fast")
    if np.any(np.asarray(neuron.current_decay) != DECAY_UNITY):
        raise refused("its current decays from step to step, which needs a clock: use --backend fast, or decay 4096")
    if np.any(np.asarray(neuron.voltage_decay) != 0) and not time_constant:
        raise refused("its voltage decays a share each time step: give a time_constant in microseconds instead")
    if weights is not None and weights.shape != layer.weight.shape:
        raise refused(f"weights of shape {weights.shape} instead of {layer.weight.shape}")
    dtype = np.dtype(rules.dtype)
    weight = np.asarray(layer.weight if weights is None else weights)
    if dtype.kind == "i" and weight.size and np.abs(weight.astype(np.int64)).max() > np.iinfo(np.int16).max:
        raise refused(f"weight {np.abs(weight).max()} is more than 16 bits hold")
    if isinstance(layer, Windowed):
        tables = _window_tables(layer, weight.astype(dtype))
    else:
        rows = np.ascontiguousarray(weight.T[order]).astype(dtype)
        inputs, outputs = rows.shape
        one = np.ones(1, np.int32)
        tables = (inputs, np.array([0, 1], np.int32), 0 * one, 0 * one, outputs * one, np.zeros(inputs, np.int32))
        tables += (rows.ravel(), outputs)
    out_order = channels_fastest(layer.shape)
    threshold = np.asarray(neuron.threshold if thresholds is None else thresholds)
    if threshold.shape == layer.shape[:1] and len(layer.shape) == 3:
        threshold = threshold.reshape(-1, 1, 1)
    full = np.broadcast_to(threshold, layer.shape).ravel()[out_order]
    least = full.min()
    if rules.reset == "subtract" and least <= 0:
        raise refused(f"threshold {least} is not above 0: with reset 'subtract' it would spike for ever")
    never = np.iinfo(np.int32).max - 1 if dtype.kind == "i" else np.inf
    if network.readout == "voltage" and layer is network.spiking[-1]:
        full = np.full(full.shape, never)  # a voltage readout never spikes
    elif dtype == np.int16 and full.max() > np.iinfo(np.int16).max - 1:
        raise refused(f"threshold {full.max()} does not fit 16-bit states: use int32 states, or smaller weights")
    wide = np.dtype(np.int32) if dtype.kind == "i" else dtype
    full = full.astype(wide)
    limit = full
    if rules.strict:
        limit = full + 1 if dtype.kind == "i" else np.nextafter(full, np.float32(np.inf))
    high = {"int16": 32767, "int32": 1 << 30, "float32": np.inf}[rules.dtype]
    lowest = {"int16": -32768, "int32": LOWEST, "float32": -np.inf}[rules.dtype]
    silent = network.readout == "voltage" and layer is network.spiking[-1]
    clamped = rules.clamp and not silent
    low = -full if clamped else np.full(full.shape, lowest)
    uniform = bool((full == full[0]).all())
    largest = max(float(weight.max(initial=0)), 0.0)
    most = 1 if rules.reset == "zero" or refractory else int(2 + largest // max(float(least), 1e-9))
    room = min(most * int(max(tables[4].max(initial=0), 1)) * int(np.diff(tables[1]).max(initial=1)), 1 << 26)
    # Bits that no event can pass are not watched: it would take time.
    counting = dtype == np.int16 and (not clamped or refractory > 0 or int(limit.max()) - 1 + largest > high)
    neurons = (full, limit, low.astype(wide), wide.type(high), counting, clamped, uniform, rules.reset == "subtract")
    return _Plan(
        layer,
        ((source, None),),
        out_order,
        tables,
        neurons,
        room,
        counting,
        out_order.astype(np.int32),
        (float(time_constant), refractory, int(latency)),
    )


def _windows(layer: Pool) -> tuple[np.ndarray, np.ndarray]:
    """For every input index (H, W, C) of a pool, the outputs (H, W, C) that it belongs to: reach, target."""
    channels, columns = layer.shape[0], layer.shape[2]
    reach: list[int] = [0]
    target: list[int] = []
    for down, across in product(_reached(layer, 0), _reached(layer, 1)):
        pixels = [(r * columns + s) * channels for (r, _), (s, _) in product(down, across)]
        reach += [reach[-1] + (c + 1) * len(pixels) for c in range(channels)]
        target += [pixel + c for c in range(channels) for pixel in pixels]
    return np.array(reach, np.int32), np.array(target, np.int32)


def _shares(layer: Average, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same of an average: every input belongs to one output."""
    return np.arange(len(order) + 1, dtype=np.int32), (order // (len(order) // layer.shape[0])).astype(np.int32)


def _reached(layer: Windowed, axis: int) -> list[list[tuple[int, int]]]:
    """For every input along an axis the outputs that it reaches, ascending, and the tap that it meets there."""
    return [sorted((out, tap) for tap, out in enumerate(row) if out >= 0) for row in layer.taps(axis).tolist()]


def _window_tables(layer: Windowed, weight: np.ndarray) -> tuple[Any, ...]:
    """Where an event adds which weights.

    Weights lie as (in channel, kernel row, kernel column reversed, out channel of its group): with one group, outputs
    that are neighbours in a row often meet neighbours of the kernel, so that one slice has their weights.
    """
    channels, outputs, groups = layer.in_shape[0], layer.shape[0], layer.window.groups
    fan, size = outputs // groups, channels // groups
    kernel_rows, kernel_columns = weight.shape[2:]
    by_group = weight.reshape(groups, fan, size, kernel_rows, kernel_columns)
    laid = np.ascontiguousarray(by_group.transpose(0, 2, 3, 4, 1)[..., ::-1, :])
    across = [_runs(hits, groups == 1) for hits in _reached(layer, 1)]
    reach, target, kernel, length = [0], [], [], []
    for down, runs in product(_reached(layer, 0), across):
        for (r, i), (s, j, count) in product(down, runs):
            target.append((r * layer.shape[2] + s) * outputs)
            kernel.append((i * kernel_columns + (kernel_columns - 1 - j)) * fan)
            length.append(count * fan)
        reach.append(len(target))
    first = np.arange(channels, dtype=np.int32) // size * fan
    arrays = [np.array(a, np.int32) for a in (reach, target, kernel, length)]
    return (channels, *arrays, first, laid.ravel(), kernel_rows * kernel_columns * fan)


def _runs(hits: list[tuple[int, int]], joined: bool) -> list[tuple[int, int, int]]:
    """Output, tap, and how many outputs in a row meet one tap less each."""
    runs: list[tuple[int, int, int]] = []
    for out, tap in hits:
        start, first, count = runs[-1] if runs else (0, 0, 0)
        if joined and count and (out, tap) == (start + count, first - count):
            runs[-1] = start, first, count + 1
        else:
            runs.append((out, tap, 1))
    return runs


class _State:
    """A layer's neurons while a recording runs, and the buffer of what they emit."""

    def __init__(self, plan: _Plan, counting: bool) -> None:
        self.plan, self.counting = plan, counting
        self.tally = np.zeros(3, np.int64)
        self.cause: np.ndarray | None = None
        if plan.layer.neuron is None:
            places = CHUNK * plan.room
            self.where, self.t = np.empty(places, np.int32), np.empty(places, np.int64)
            return
        size = math.prod(plan.layer.shape)
        weight = plan.tables[6]
        self.v = np.zeros(size, weight.dtype)
        self.peak = np.zeros(1, np.int64)
        self.counts = np.zeros(size if counting else 0, np.int64)
        leaks, refractory, _ = plan.times
        self.last = np.zeros(size if leaks else 0, np.int64)
        self.ready = np.full(size if refractory else 0, -1, np.int64)
        if (leaks or plan.counting) and not refractory:
            self.ready = np.full(size, -1, np.int64)
        self.hit, self.times = np.zeros(size + 1, np.int32), np.zeros(size, np.int32)
        places = CHUNK + plan.room
        self.where, self.t = np.empty(places, np.int32), np.empty(places, np.int64)

    def reset(self) -> None:
        """Make ready for another recording."""
        for state in (self.tally, self.peak, self.v, self.counts, self.last):
            state.fill(0)
        self.ready.fill(-1)

    def run_all(
        self, where: np.ndarray, t: np.ndarray, cause: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Run events, each caused by an event of the network's input; the same of what the layer emits."""
        count, position = len(where), 0
        if self.plan.layer.neuron is None:
            _, total = self.run(where, t, 0, count)
            reach = self.plan.tables[0]
            return self.where[:total].copy(), self.t[:total].copy(), np.repeat(cause, np.diff(reach)[where])
        if self.cause is None:
            self.cause = np.empty(len(self.where), np.int32)
        parts = [(where[:0], t[:0], cause[:0])]
        while position < count:
            position, total = self.run(where, t, position, count)
            parts.append((self.where[:total].copy(), self.t[:total].copy(), cause[self.cause[:total]]))
        where, t, cause = (np.concatenate(each) for each in zip(*parts, strict=True))
        return where, t, cause

    def run(self, where: np.ndarray, t: np.ndarray, begin: int, count: int) -> tuple[int, int]:
        from netx_export.event.kernels import pass_on, run_layer

        plan = self.plan
        if plan.layer.neuron is None:
            places = count * plan.room
            if places > len(self.where):
                self.where, self.t = np.empty(places, np.int32), np.empty(places, np.int64)
            reach, target = plan.tables
            return count, pass_on(where, t, count, reach, target, self.where, self.t)
        leak, refractory, latency = plan.times
        out = (self.hit, self.times, self.where, self.t, self.cause, self.tally, self.peak)
        times = (plan.key, self.last, self.ready, leak, refractory, latency)
        arguments = (where, t, begin, count, plan.room, *plan.tables, self.v, *plan.neurons, *times, *out)
        position, total = run_layer(*arguments)
        if self.counting:
            self.counts += np.bincount(self.where[:total], minlength=len(self.counts))
        return position, total


def _through(
    chain: list[_State], where: np.ndarray, t: np.ndarray, count: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Run events through the layers of `chain`; what leaves the last one, in parts."""
    if not chain:
        yield where[:count], t[:count]
        return
    state, position = chain[0], 0
    while position < count:
        position, total = state.run(where, t, position, count)
        if total:
            yield from _through(chain[1:], state.where, state.t, total)


def _through_graph(states: list[_State], where: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Run events through the layers of a graph; what leaves the last one, and the most that left any."""
    most = 0
    events = {INPUT: (where, t, np.arange(len(where), dtype=np.int32))}
    last = {name: state for state in states for name, _ in state.plan.inputs}
    for state in states:
        name = state.plan.layer.name
        fed = [(events[source], turn) for source, turn in state.plan.inputs]
        events = {source: each for source, each in events.items() if last[source] is not state}
        if isinstance(state.plan.layer, Add):
            wheres = [where if turn is None else turn[where].astype(np.int32) for (where, _, _), turn in fed]
            where, t, cause = (np.concatenate(parts) for parts in zip(*(each for each, _ in fed), strict=True))
            order = np.lexsort((cause, t))  # stable: the first input first, and each as it comes
            events[name] = np.concatenate(wheres)[order], t[order], cause[order]
        else:
            events[name] = state.run_all(*fed[0][0])
        most = max(most, len(events[name][0]))
    where, t, _ = events[states[-1].plan.layer.name]
    return where, t, most
