"""A network that answers while events arrive: its state is kept from one portion of events to the next.

However a recording is cut into portions, the answer after the last of them is, bit for bit, that of one run over all
of it: `netx_export.event.backend.simulate` is a session that is given each recording in one push.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from queue import Empty
from typing import Any, NamedTuple

import numpy as np

from netx_export.event.events import LATEST, Events, check_events
from netx_export.event.plan import NEURONS, ChipRules, Program
from netx_export.files import save_arrays
from netx_export.network import Network, NetworkError
from netx_export.reading import read_npz
from netx_export.simulation import linear
from netx_export.text import unknown

CHUNK = 1 << 15
"""Events that a layer is given at a time."""
GRAPH_EVENTS = 1 << 20
"""A graph is given so many events at a time that none of its layers emits many more than this."""
LOG = 1 << 10
"""Output events that a new log has room for."""


class State(NamedTuple):
    """All that a session remembers.

    ``last`` and ``ready`` are when each neuron was last updated and from when on it takes events again; ``spikes``
    how many events it emitted; ``tally`` of each layer its events, synaptic operations, saturations and largest |v|;
    ``counts`` and ``first`` how many events each output emitted, and when its first. ``faded`` are counts that fade
    with the time constant ``fade``, as of ``faded_t``. Of the log of output events ``marks[0]`` are in use and
    ``marks[1]`` were taken; ``marks[2]`` is how many there were. Arrays that nobody asked for are empty.
    """

    v: np.ndarray
    last: np.ndarray
    ready: np.ndarray
    spikes: np.ndarray
    tally: np.ndarray
    counts: np.ndarray
    first: np.ndarray
    faded: np.ndarray
    faded_t: np.ndarray
    fade: np.ndarray
    log_output: np.ndarray
    log_t: np.ndarray
    marks: np.ndarray


class Buffers(NamedTuple):
    """What layers emit while events run through them: layer i from ``start[i]`` to ``start[i + 1]``.

    ``at`` and ``ends`` say how far each layer is. ``hit`` and ``times`` are the neurons that an event made spike.
    """

    where: np.ndarray
    t: np.ndarray
    cause: np.ndarray
    start: np.ndarray
    at: np.ndarray
    ends: np.ndarray
    hit: np.ndarray
    times: np.ndarray
    heads: np.ndarray


class Inbox(NamedTuple):
    """Events as they came, and their index (H, W, C)."""

    t: np.ndarray
    c: np.ndarray
    y: np.ndarray
    x: np.ndarray
    where: np.ndarray


class _Workspace:
    """Memory that one push after the other uses, of any session of a program; one a thread."""

    def __init__(self, program: Program, state: State) -> None:
        from netx_export.compiled import entry
        from netx_export.event.kernels import place, run_chain, run_graph

        rows = program.tables.rows
        self.graph = not program.network.is_chain
        places = CHUNK + rows["room"]
        size = max(math.prod(plan.layer.shape) for plan in program.plans)
        start = np.concatenate([[0], np.cumsum(places)])
        total, layers = int(start[-1]), len(rows)
        cause = np.zeros(total if self.graph else 0, np.int32)
        at, ends, heads = (np.zeros(layers + 2, np.int64) for _ in range(3))
        hit, times = np.zeros(size + 1, np.int32), np.zeros(size + 1, np.int32)
        self.buffers = Buffers(
            np.zeros(total, np.int32), np.zeros(total, np.int64), cause, start, at, ends, hit, times, heads
        )
        t, c, y, x = np.zeros((4, CHUNK), np.int64)
        self.inbox = Inbox(t, c, y, x, np.zeros(CHUNK, np.int32))
        self.causes = np.arange(CHUNK if self.graph else 0, dtype=np.int32)
        inbox = self.inbox
        self.place = entry(place, inbox, 0, program.in_shape, 0)
        # The log grows and time goes on, but types stay.
        some = (program.tables, state, self.buffers, inbox.where, inbox.t)
        self.run = entry(run_graph, *some, self.causes, 0, 0) if self.graph else entry(run_chain, *some, 0, 0)

    def grow(self, layer: int, least: int) -> None:
        """Give a layer's buffer twice the room, or more, and keep what all of them hold."""
        old = self.buffers
        sizes = np.diff(old.start)
        sizes[layer] = max(2 * sizes[layer], least)
        start = np.concatenate([[0], np.cumsum(sizes)])
        new = [np.zeros(int(start[-1]), column.dtype) for column in (old.where, old.t, old.cause)]
        for column, more in zip((old.where, old.t, old.cause), new, strict=True):
            for at, (a, b) in enumerate(zip(old.start[:-1], old.start[1:], strict=True)):
                more[start[at] : start[at] + b - a] = column[a:b]
        self.buffers = old._replace(where=new[0], t=new[1], cause=new[2], start=start)


@dataclass(frozen=True, eq=False)
class Answer:
    """What a session answers at a moment.

    Attributes
    ----------
    t : int
        The moment in microseconds; -1 before the first event.
    readout : numpy.ndarray
        (outputs,): events that each output emitted, int64; with a fading session what is left of them, float64; of
        a readout of voltages v of the last layer.
    winners : tuple of int
        The outputs with the largest value: none where it is silent, several where they are tied.
    """

    t: int
    readout: np.ndarray
    winners: tuple[int, ...]

    @property
    def output(self) -> int | None:
        """The one output that leads; None where the network is silent or several are tied, which is no answer."""
        return self.winners[0] if len(self.winners) == 1 else None

    @property
    def silent(self) -> bool:
        """Whether no output emitted anything (a readout of voltages: all are equal)."""
        return not self.winners

    @property
    def tied(self) -> bool:
        """Whether several outputs lead."""
        return len(self.winners) > 1

    @property
    def margin(self) -> float:
        """By how much the first output leads the second."""
        ordered = np.sort(self.readout)
        return float(ordered[-1] - ordered[-2]) if len(ordered) > 1 else float(ordered[-1])

    def __str__(self) -> str:
        said = "silent" if self.silent else "tied: " if self.tied else "output "
        return f"t = {self.t:,} us: {said}{', '.join(map(str, self.winners))}"


class Session:
    """A network that answers at any moment while events arrive.

    Parameters
    ----------
    network : Network, path or Program
        Or its NetX file; or ``another.program``, which many sessions share: a session then takes only its neurons'
        states, a few bytes each.
    chip : ChipRules, optional
        As for `netx_export.event.backend.simulate`: ``hw_profiles.load("speck2e").event_rules()``.
    window : int, optional
        Microseconds: an answer counts only the output events of that time before it. These counts are exact: output
        events of the run over all events so far, with a time in (t - window, t]. Neurons keep their voltages, which
        end of themselves below the threshold; to forget those too, give `time_constant`, or `reset`.
    fade : float, optional
        Microseconds: every output event counts less and less, exp(-age / fade). What is kept depends on the output
        events alone, so that portions change nothing, not in the last bit.
    record : sequence of str
        ``"events"``: keep output events until `take`; ``"spikes"``: count those of every neuron.
    **options
        reset, clamp, dtype, weights, thresholds, time_constant (the neurons' own leak), refractory, latency: as for
        `netx_export.event.backend.simulate`.

    Attributes
    ----------
    program : Program
        What sessions share.
    state : State
    t : int
        Time of the last event in microseconds; -1 before the first.
    events : int
        How many events were pushed.

    Raises
    ------
    NetworkError
        The network or an option is not what it must be.

    Notes
    -----
    Sessions of one program may be used by several threads at once, a session by one at a time.

    Examples
    --------
    >>> from netx_export import Dense, Network, Neuron
    >>> weight = np.array([[3], [1]])
    >>> network = Network((Dense(in_shape=(1,), shape=(2,), weight=weight, neuron=Neuron(3)),), reset="subtract")
    >>> session = Session(network)
    >>> for t in (10, 20):
    ...     emitted = session.push({"t": np.array([t]), "c": np.array([0])})
    >>> str(session.answer())
    't = 20 us: output 0'
    """

    def __init__(
        self,
        network: Network | str | os.PathLike[str] | Program,
        chip: ChipRules | None = None,
        *,
        window: int | None = None,
        fade: float | None = None,
        record: Sequence[str] = (),
        **options: Any,
    ) -> None:
        for what in record:
            if what not in ("events", "spikes"):
                raise NetworkError(unknown("record", what, ("events", "spikes")))
        if isinstance(network, Program):
            if chip is not None or options:
                raise NetworkError(f"{', '.join(options) or 'chip'}: that is settled by the program; leave it out")
            self.program = network
        else:
            self.program = Program(network, chip=chip, **options)
        voltage = self.program.network.readout == "voltage"
        for name, value in (("window", window), ("fade", fade)):
            if value is not None and not 0 < value <= LATEST:
                raise NetworkError(f"{name} is {value!r:.40}; give microseconds above 0")
            if value is not None and voltage:
                raise NetworkError(f"{name}: {self.program.network.source} reads out voltages: give time_constant")
        if window is not None and fade is not None:
            raise NetworkError("window and fade are two ways to forget: leave out one of them")
        self.window, self.record = window, tuple(record)
        self.state = self._new_state(fade)
        self.t, self.events = -1, 0

    def __repr__(self) -> str:
        return f"<Session of {self.program.network.source}: {self.events:,} events, {self.answer()}>"

    def _new_state(self, fade: float | None) -> State:
        tables, network = self.program.tables, self.program.network
        rows, neurons, outputs = tables.rows, len(tables.threshold), math.prod(network.shape)
        leaks, rests = bool(rows["time_constant"].any()), bool(rows["refractory"].any() or rows["counting"].any())
        log = LOG if self.window is not None or "events" in self.record else 0
        state = State(
            v=np.zeros(neurons, tables.weight.dtype),
            last=np.zeros(neurons if leaks else 0, np.int64),
            ready=np.zeros(neurons if leaks or rests else 0, np.int64),
            spikes=np.zeros(neurons if "spikes" in self.record else 0, np.int64),
            tally=np.zeros((len(rows), 4), np.int64),
            counts=np.zeros(outputs, np.int64),
            first=np.zeros(outputs, np.int64),
            faded=np.zeros(outputs if fade is not None else 0),
            faded_t=np.zeros(outputs if fade is not None else 0, np.int64),
            fade=np.full(1, fade or 0.0, np.float64),
            log_output=_log(log)[0],
            log_t=_log(log)[1],
            marks=np.zeros(3, np.int64),
        )
        _forget(state)
        return state

    # ------------------------------------------------------------------------------------------------ events

    def push(self, events: Any) -> int:
        """Run events, now.

        Parameters
        ----------
        events : Events, structured array or mapping
            Whole numbers t (microseconds; not before those pushed already), c (or p), y, x, as in `Events`, whose
            ``sample`` is not looked at. Of a flat input y and x may be left out.

        Returns
        -------
        int
            Output events that these caused.

        Raises
        ------
        NetworkError
            An event is not what it must be; then none was run, and the session stands where it stood.
        """
        columns = _columns(events)
        count = len(columns[0])
        if count and self.program.whole and self.events:
            raise NetworkError(
                "this network has latencies and sums of spikes, where what is late could meet what is early of the "
                "next portion: push all events at once, or leave out the latency"
            )
        before = int(self.state.marks[2])
        space = self._borrow()
        try:
            since = max(self.t, 0)
            for start in range(0, count if count > CHUNK else 0, CHUNK):
                since = self._place(space, columns, start, min(start + CHUNK, count), since)
            # Nothing is run before all is known to be right.
            if self.program.whole:
                where, t = check_events(self.program.network, _as_events(columns), ())[1:]
                self._run(space, where, np.require(t, requirements=["C", "W"]), count)
            else:
                for start in range(0, count, CHUNK):
                    stop = min(start + CHUNK, count)
                    self._place(space, columns, start, stop, max(self.t, 0))
                    self._run(space, space.inbox.where, space.inbox.t, stop - start)
        finally:
            self.program.idle.put(space)
        return int(self.state.marks[2]) - before

    def _place(self, space: _Workspace, columns: tuple[np.ndarray, ...], start: int, stop: int, since: int) -> int:
        """Check events, none before `since`, and put them into the inbox with their index; the time of the last."""
        inbox, count = space.inbox, stop - start
        for column, into in zip(columns, inbox, strict=False):
            into[:count] = column[start:stop]
        at = space.place(inbox, count, self.program.in_shape, since)
        if at == count:
            return int(inbox.t[count - 1])
        check_events(self.program.network, _as_events(columns), ())
        raise NetworkError(
            f"events: t is {columns[0][start + at]} at event {start + at}, and t {since} was pushed already: push "
            "events in the order of time, or reset the session"
        )

    def run_checked(self, where: np.ndarray, t: np.ndarray) -> None:
        """Run events that `check_events` has checked: their index (H, W, C) and time."""
        t = np.require(t, requirements=["C", "W"])  # read-only is another type there
        space = self._borrow()
        try:
            if self.program.whole:
                self._run(space, where, t, len(t))
            else:
                for start in range(0, len(t), CHUNK):
                    stop = min(start + CHUNK, len(t))
                    self._run(space, where[start:stop], t[start:stop], stop - start)
        finally:
            self.program.idle.put(space)

    def _run(self, space: _Workspace, where: np.ndarray, t: np.ndarray, count: int) -> None:
        if count == 0:
            return
        if space.graph:
            self._run_graph(space, where, t, count)
        else:
            depth = -1
            while (depth := space.run(self.program.tables, self.state, space.buffers, where, t, count, depth)) >= 0:
                self._make_room()
        self.events += count
        self.t = int(t[count - 1])

    def _run_graph(self, space: _Workspace, where: np.ndarray, t: np.ndarray, count: int) -> None:
        tables, layers, stop = self.program.tables, len(self.program.plans), 0
        if self.program.whole and len(space.causes) < count:
            space.causes = np.arange(count, dtype=np.int32)
        # How many events of the input go through at once: a few, then as many as keep the buffers small.
        chunk = max(1, CHUNK >> 7)
        while (start := stop) < count:
            stop = count if self.program.whole else min(start + chunk, count)
            space.buffers.at.fill(0)
            space.buffers.ends.fill(0)
            some, layer = (where[start:stop], t[start:stop], space.causes), 0
            while (layer := space.run(tables, self.state, space.buffers, *some, stop - start, layer)) <= layers:
                if layer == layers:
                    self._make_room()
                else:
                    space.grow(layer, int(space.buffers.ends[layer] + tables.rows["room"][layer]))
            most = int(space.buffers.ends[:layers].max())
            chunk = max(1, min(chunk * 2 if most < GRAPH_EVENTS // 4 else chunk * GRAPH_EVENTS // most, CHUNK))

    def _make_room(self) -> None:
        """Drop what the log need not hold any more; where it is still more than half full, let it grow."""
        log, marks = self.state.log_t, self.state.marks
        end = keep = int(marks[0])
        if self.window is not None:
            keep = int(np.searchsorted(log[:end], log[end - 1] - self.window, side="right"))
        if "events" in self.record:
            keep = min(keep, int(marks[1]))
        output = self.state.log_output
        if 2 * (end - keep) > len(log):
            more, times = _log(2 * len(log))
            self.state = self.state._replace(log_output=more, log_t=times)
        self.state.log_output[: end - keep] = output[keep:end]
        self.state.log_t[: end - keep] = log[keep:end]
        marks[:2] = end - keep, max(0, int(marks[1]) - keep)

    def _borrow(self) -> _Workspace:
        try:
            return self.program.idle.get_nowait()
        except Empty:
            return _Workspace(self.program, self.state)

    # ------------------------------------------------------------------------------------------------ answers

    def answer(self, at: int | None = None) -> Answer:
        """The answer of this moment.

        Parameters
        ----------
        at : int, optional
            Of a session that forgets: the moment in microseconds, not before what it has seen. Default: the time of
            the last event, of the input or the output.
        """
        state = self.state
        end = int(state.marks[0])
        now = self.t if end == 0 else max(self.t, int(state.log_t[end - 1]))
        if len(state.faded):
            now = max(now, int(state.faded_t.max()))
        if at is not None:
            if at < now:
                raise NetworkError(f"at is {at}: the session has seen t {now} already; give a later time, or none")
            now = int(at)
        if self.window is not None:
            begin = int(np.searchsorted(state.log_t[:end], now - self.window, side="right"))
            readout = np.bincount(state.log_output[begin:end], minlength=len(state.counts))
        elif len(state.faded):
            readout = state.faded * np.exp(-(now - state.faded_t) / state.fade[0])
        else:
            readout = self.readout()
        largest = readout.max()
        quiet = largest == (readout.min() if self.program.network.readout == "voltage" else 0)
        winners = () if quiet else tuple(np.flatnonzero(readout == largest).tolist())
        return Answer(now, readout, winners)

    def readout(self) -> np.ndarray:
        """(outputs,): all output events so far, or v of the last layer's neurons; nothing forgotten."""
        network, state = self.program.network, self.state
        if network.readout != "voltage":
            return state.counts.copy()
        plan = next(plan for plan in reversed(self.program.plans) if plan.neurons)
        v = np.zeros((1, *network.spiking[-1].shape), np.float32 if self.program.dtype == "float32" else np.int64)
        v.reshape(-1)[plan.order] = state.v[len(state.v) - v.size :]
        return linear(network.tail, v).ravel()

    def take(self) -> tuple[np.ndarray, np.ndarray]:
        """Output events since the last time it was asked: times in microseconds, and outputs; see `record`."""
        if "events" not in self.record:
            raise NetworkError('output events were not kept: make the session with record=("events",)')
        marks = self.state.marks
        some = slice(int(marks[1]), int(marks[0]))
        taken = self.state.log_t[some].copy(), self.state.log_output[some].astype(np.int64)
        marks[1] = marks[0]
        if self.window is None:
            marks[:2] = 0
        return taken

    @property
    def tally(self) -> np.ndarray:
        """(layers with neurons, 4) int64: events emitted, synaptic operations, saturations of v, and largest |v|."""
        return self.state.tally[self.program.tables.rows["kind"] == NEURONS]

    # ------------------------------------------------------------------------------------------------ states

    def reset(self) -> None:
        """Forget everything: the session is as new."""
        _forget(self.state)
        self.t, self.events = -1, 0

    @property
    def _about(self) -> str:
        """What has to be the same for a state to be this session's."""
        return f"{self.program.digest} {self.window} {self.state.fade[0]} {' '.join(sorted(self.record))}"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state to a NumPy .npz file, whole or not at all; `restore` takes it up again."""
        arrays = dict(self.state._asdict())
        end = int(self.state.marks[0])
        arrays |= {"log_output": self.state.log_output[:end], "log_t": self.state.log_t[:end]}
        arrays |= {"clock": np.array([self.t, self.events]), "network": np.array(self._about)}
        save_arrays(path, arrays, compress=False)

    def restore(self, path: str | os.PathLike[str]) -> Session:
        """Take up a state that `save` wrote, of a session of the same network and options.

        Returns
        -------
        Session
            This one.

        Raises
        ------
        NetworkError
            No such file, a damaged one, or the state of another network or of other options; then nothing changed.
        """
        arrays = read_npz(path, NetworkError)
        clock, about = arrays.pop("clock", None), arrays.pop("network", None)
        if clock is None or about is None or set(arrays) != set(State._fields):
            raise NetworkError(f"{path}: holds no state of a session: give a file that Session.save wrote")
        if str(about) != self._about:
            same = str(about).split(" ")[0] == self.program.digest
            what = "other options (window, fade, record)" if same else "another network, or of other rules or options"
            raise NetworkError(f"{path}: is the state of a session with {what}: make the session as that one was made")
        whole = clock.dtype == np.int64 and clock.shape == (2,) and clock[0] <= LATEST and clock[1] >= 0
        log = len(self.state.log_t)
        for name, now in self.state._asdict().items():
            found = arrays[name]
            held = found.ndim == 1 and len(found) == arrays["marks"].ravel()[0] if name.startswith("log_") else True
            shape = found.shape if name.startswith("log_") and log else now.shape
            whole = whole and found.dtype == now.dtype and found.shape == shape and bool(held)
        if not (whole and self._possible(State(**arrays))):
            raise NetworkError(f"{path}: is no whole state of a session (its arrays do not fit): save it anew")
        state = State(**arrays)
        if log:
            end, output, t = len(state.log_t), *_log(max(log, len(state.log_t)))
            output[:end], t[:end] = state.log_output, state.log_t
            state = state._replace(log_output=output, log_t=t)
        self.state = state
        self.t, self.events = map(int, clock)
        return self

    def _possible(self, state: State) -> bool:
        """Whether compiled loops, which check nothing, can run on it: no neuron may be due to spike without end."""
        rows, limit = self.program.tables.rows, self.program.tables.limit
        rests = [(row["neurons"], row["refractory"]) for row in rows if row["kind"] == NEURONS]
        for (start, refractory), stop in zip(rests, [*(start for start, _ in rests[1:]), len(limit)], strict=True):
            if not refractory and not (state.v[start:stop] < limit[start:stop]).all():
                return False
        end, taken, _ = state.marks
        outputs = state.log_output
        ordered = bool((np.diff(state.log_t) >= 0).all()) if len(state.log_t) else True
        inside = len(outputs) == 0 or (outputs.min() >= 0 and outputs.max() < len(state.counts))
        return bool(ordered and inside and 0 <= taken <= end and end == len(outputs))


def _log(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Room for output events: outputs and times."""
    return np.zeros(size, np.int32), np.zeros(size, np.int64)


def _forget(state: State) -> None:
    for array in (state.v, state.last, state.spikes, state.tally, state.counts, state.faded, state.faded_t):
        array.fill(0)
    state.ready.fill(-1)
    state.first.fill(-1)
    state.marks.fill(0)


def _columns(events: Any) -> tuple[np.ndarray, ...]:
    """The columns t, c, y, x of events in any form, flat arrays of whole numbers of one length."""
    if isinstance(events, Events):
        found = [events.t, events.c, events.y, events.x]
    else:
        names = (events.dtype.names or ()) if isinstance(events, np.ndarray) else getattr(events, "keys", tuple)()
        if "t" not in names or not {"c", "p"} & set(names):
            raise NetworkError(
                "events: give netx_export.event.Events, or a structured array or mapping with t, c (or p), y and x"
            )
        found = [events["t"], events["c" if "c" in names else "p"]]
        found += [events[name] if name in names else np.zeros(len(found[0]), np.int64) for name in ("y", "x")]
    columns = tuple(column.view(np.uint8) if column.dtype == bool else column for column in map(np.asarray, found))
    for name, column in zip("tcyx", columns, strict=True):
        if column.dtype.kind not in "iu" or column.ndim != 1:
            raise NetworkError(f"events: {name} is {column.dtype} of shape {column.shape}; give a flat integer array")
        if len(column) != len(columns[0]):
            raise NetworkError(f"events: {name} has {len(column)} entries, t has {len(columns[0])}; give as many")
    return columns


def _as_events(columns: tuple[np.ndarray, ...]) -> Events:
    t, c, y, x = columns
    return Events(np.zeros(len(t), np.int64), t, c, y, x, 1)
