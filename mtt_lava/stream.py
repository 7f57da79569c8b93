"""Answers while events arrive: what a source sends, through a bounded queue, into a session; and what became of it."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

import hw_profiles
from mtt_lava.sources import Packet, Source, StreamError
from netx_export.event import Answer, Session
from netx_export.network import Network
from netx_export.result import Activity
from netx_export.text import unknown

POLICIES = ("oldest", "thin", "error")
"""What is done when the queue is full: drop the oldest events, drop every second one of all, or end."""
JUMP = 100_000
"""Microseconds: a clock that steps back further was set anew; single events that come later than others are late."""
_RATIO = 1.01  # of the borders of a histogram


class Latencies:
    """Times in seconds, in a histogram of fixed size: percentiles within one per cent, the largest exactly.

    Examples
    --------
    >>> found = Latencies()
    >>> for milliseconds in (1, 2, 3):
    ...     found.add(milliseconds / 1000)
    >>> round(found.percentile(50), 4), found.worst
    (0.002, 0.003)
    """

    def __init__(self) -> None:
        self.counts = np.zeros(2800, np.int64)  # from 1 us to over an hour
        self.count, self.worst = 0, 0.0

    def add(self, seconds: float, times: int = 1) -> None:
        """Note a time."""
        place = math.ceil(math.log(max(seconds, 1e-6) / 1e-6, _RATIO))
        self.counts[min(place, len(self.counts) - 1)] += times
        self.count += times
        self.worst = max(self.worst, seconds)

    def percentile(self, percent: float) -> float | None:
        """The time that so many per cent do not pass; None without any."""
        if not self.count:
            return None
        place = int(np.searchsorted(np.cumsum(self.counts), math.ceil(self.count * percent / 100)))
        return min(1e-6 * _RATIO**place, self.worst)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it, in milliseconds."""
        found = {"median_ms": self.percentile(50), "p99_ms": self.percentile(99)}
        found["worst_ms"] = self.worst if self.count else None
        return {"count": self.count} | {name: None if s is None else 1000 * s for name, s in found.items()}

    def __str__(self) -> str:
        if not self.count:
            return "no answers"
        times = (self.percentile(50), self.percentile(99), self.worst)
        return "median {:.3f} ms, 99 % {:.3f} ms, worst {:.3f} ms".format(*(1000 * (t or 0.0) for t in times))


class Queue:
    """Packets that wait to be run, at most so many events.

    Parameters
    ----------
    room : int
        Events.
    when_full : str
        Of `POLICIES`.
    """

    def __init__(self, room: int = 100_000, when_full: str = "oldest") -> None:
        if when_full not in POLICIES:
            raise StreamError(unknown("what to do when the queue is full", when_full, POLICIES))
        if room < 1:
            raise StreamError(f"a queue of {room} events: give at least 1")
        self.room, self.when_full = room, when_full
        self.dropped = self.waiting = 0
        self._packets: deque[tuple[float, Packet]] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._error: BaseException | None = None

    def put(self, packet: Packet, waits: bool = False) -> bool:
        """Add events that arrived now; `waits`: not before there is room. Returns False where nobody wants more."""
        arrived = time.perf_counter()
        with self._changed:
            if waits:
                while self.waiting and self.waiting + len(packet.events) > self.room and not self._ended:
                    self._changed.wait()
                arrived = time.perf_counter()
            if self._ended:
                return False
            self._packets.append((arrived, packet))
            self.waiting += len(packet.events)
            if not waits and self.waiting > self.room:
                self._make_room()
            self._changed.notify_all()
            return True

    def _make_room(self) -> None:
        over = self.waiting
        if self.when_full == "error":
            raise StreamError(
                f"events come faster than they are run: {over:,} wait, and the queue has room for {self.room:,}; use a "
                "larger one, or drop some (oldest, thin)"
            )
        while self.when_full == "thin" and self.waiting > self.room:
            at, kept = 0, deque[tuple[float, Packet]]()
            for arrived, packet in self._packets:
                some = packet.events[at % 2 :: 2]
                at += len(packet.events)
                kept.append((arrived, packet._replace(events=some)))
            self._packets = kept
            self.waiting = sum(len(packet.events) for _, packet in kept)
        while self.waiting > self.room:
            arrived, packet = self._packets.popleft()
            excess = self.waiting - self.room
            rest = packet.events[excess:]
            self.waiting -= min(excess, len(packet.events))
            if len(rest):
                self._packets.appendleft((arrived, packet._replace(events=rest)))
            elif packet.fresh and self._packets:  # that a recording starts is not lost with its first events
                later, following = self._packets[0]
                self._packets[0] = later, following._replace(fresh=True)
        self.dropped += over - self.waiting

    def end(self, error: BaseException | None = None) -> None:
        """Nothing more comes."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def take(self) -> list[tuple[float, Packet]]:
        """All that wait, at least one, of one recording; nothing when the source has ended well.

        Raises
        ------
        StreamError
            What the source ended by, once all that came before was taken.
        """
        with self._changed:
            while not self._packets and not self._ended:
                self._changed.wait(0.2)  # so that Ctrl-C is noticed
            if not self._packets and self._error is not None:
                raise self._error
            taken: list[tuple[float, Packet]] = []
            while self._packets and (not taken or not self._packets[0][1].fresh):
                taken.append(self._packets.popleft())
            self.waiting -= sum(len(packet.events) for _, packet in taken)
            self._changed.notify_all()
            return taken


@dataclass
class Fit:
    """A larger sensor cut and made smaller, event by event, to what a network takes; then the same in its axes.

    Parameters
    ----------
    in_shape : tuple of int
        Of the network: channels, rows, columns; with one channel both polarities go into it. Or F features, which
        are the sensor's columns.
    crop : tuple of int, optional
        Column and row of the upper left corner, columns and rows: what is outside is not seen.
    pool : int
        So many columns and rows become one; every event passes.
    downsample : int
        The same, but of as many events as a pixel covers pixels (N * N), of one polarity, one passes, the last.
    """

    in_shape: tuple[int, ...]
    crop: tuple[int, int, int, int] | None = None
    pool: int = 1
    downsample: int = 1
    outside: int = 0
    thinned: int = 0

    def __post_init__(self) -> None:
        if self.crop is not None and (min(self.crop) < 0 or min(self.crop[2:]) < 1):
            raise StreamError(f"crop {self.crop}: give column, row, columns, rows, as 32,32,64,64")
        if min(self.pool, self.downsample) < 1 or (self.pool > 1 and self.downsample > 1):
            raise StreamError(f"pool {self.pool}, downsample {self.downsample}: give one of them, at least 1")
        if self.in_shape[0] > 2 and len(self.in_shape) == 3:
            raise StreamError(f"the network takes {self.in_shape[0]} channels, and a camera has two polarities")
        self._seen = np.zeros(math.prod(self.shape), np.int64)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns."""
        if len(self.in_shape) == 1:
            return 1, 1, self.in_shape[0]
        channels, rows, columns = self.in_shape
        return channels, rows, columns

    def __call__(self, events: np.ndarray) -> dict[str, np.ndarray]:
        """Events t, c, y, x as a session takes them; what does not fit is counted and left out."""
        x, y = events["x"].astype(np.int64), events["y"].astype(np.int64)
        by = self.pool * self.downsample
        channels, rows, columns = self.shape
        left, top, wide, high = self.crop or (0, 0, columns * by, rows * by)
        x, y = x - left, y - top
        inside = (x >= 0) & (y >= 0) & (x < min(wide, columns * by)) & (y < min(high, rows * by))
        if not inside.all():
            self.outside += int((~inside).sum())
            x, y, events = x[inside], y[inside], events[inside]
        c = events["p"].astype(np.int64) if channels == 2 else np.zeros(len(x), np.int64)
        t, x, y = events["t"], x // by, y // by
        if self.downsample > 1 and len(t):
            passed = self._passed((c * rows + y) * columns + x)
            self.thinned += int((~passed).sum())
            t, c, y, x = t[passed], c[passed], y[passed], x[passed]
        if len(self.in_shape) == 1:
            c, x = x, c
        return {"t": np.ascontiguousarray(t), "c": c, "y": y, "x": x}

    def _passed(self, place: np.ndarray) -> np.ndarray:
        """Which events are the last of so many of their pixel, those of earlier packets counted."""
        order = np.argsort(place, kind="stable")
        pixel, first, count = np.unique(place[order], return_index=True, return_counts=True)
        rank = np.arange(len(place)) - np.repeat(first, count) + np.repeat(self._seen[pixel], count) + 1
        every = self.downsample**2
        passed = np.empty(len(place), bool)
        passed[order] = rank % every == 0
        self._seen[pixel] = (self._seen[pixel] + count) % every
        return passed


class Clocked:
    """The same weights with a clock, on `fast`: at each answer, T time steps over the last microseconds.

    Parameters
    ----------
    network : Network
        With neurons that reset to zero, as those of chips with a clock.
    time_steps : int
    window : int
        Microseconds that the T time steps share.

    Raises
    ------
    NetworkError
        `fast` does not run the network.
    """

    def __init__(self, network: Network, time_steps: int, window: int) -> None:
        self.network, self.time_steps, self.window = network, time_steps, window
        self._largest = network.info.get("input_max") or np.iinfo(np.int32).max
        self.reset()
        self.answer()  # refuses what cannot be run, and compiles
        self.synops()

    def reset(self) -> None:
        """Forget everything."""
        self._parts: deque[dict[str, np.ndarray]] = deque()
        self.t = -1

    def push(self, events: dict[str, np.ndarray]) -> None:
        """Keep events; those that no later answer sees go."""
        if len(events["t"]):
            self._parts.append(events)
            self.t = int(events["t"][-1])
        while self._parts and self._parts[0]["t"][-1] <= self.t - self.window:
            self._parts.popleft()

    def frames(self) -> np.ndarray:
        """(1, *in_shape, T): events of (t - window, t]."""
        shape = (*self.network.in_shape, 1, 1)[:3]
        size = math.prod(shape)
        counts = np.zeros(size * self.time_steps, np.int64)
        for part in self._parts:
            age = self.t - part["t"]
            seen = age < self.window
            step = self.time_steps - 1 - age[seen] * self.time_steps // self.window
            place = (part["c"][seen] * shape[1] + part["y"][seen]) * shape[2] + part["x"][seen]
            counts += np.bincount(place * self.time_steps + step, minlength=len(counts))
        frames = np.minimum(counts, self._largest).astype(np.int32)
        return frames.reshape(1, *self.network.in_shape, self.time_steps)

    def answer(self, frames: np.ndarray | None = None) -> Answer:
        """The answer of this moment, or of these frames; from nothing but the window."""
        readout = self._run(frames).readout[0]
        largest = readout.max()
        quiet = largest == (readout.min() if self.network.readout == "voltage" else 0)
        return Answer(self.t, readout, () if quiet else tuple(np.flatnonzero(readout == largest).tolist()))

    def synops(self, frames: np.ndarray | None = None) -> float:
        """Synaptic operations of such an answer."""
        frames = self.frames() if frames is None else frames
        result = self._run(frames, ("spikes",))
        spikes = [result.record[f"spikes.{layer.name}"][0].sum(-1) for layer in self.network.spiking]
        activity = Activity(self.time_steps, (frames[0] != 0).sum(-1), spikes, bool(frames.max(initial=0) > 1))
        return float(sum(hw_profiles.synaptic_operations(self.network, activity)))

    def _run(self, frames: np.ndarray | None, record: Sequence[str] = ()) -> Any:
        from netx_export.fast.backend import simulate

        frames = self.frames() if frames is None else frames
        return simulate(self.network, frames, threads=1, progress=False, device="cpu", record=record)


class _Beside:
    """A clock that answers beside a session, once a time step, on a thread of its own; a step that it has no time for
    is missed.
    """

    def __init__(self, clocked: Clocked) -> None:
        self.clocked, self.latencies = clocked, Latencies()
        self.due = self.answers = self.same = 0
        self.synops: list[float] = []
        self._step = 0
        self._pool = ThreadPoolExecutor(1)
        self._running: Future[None] | None = None

    def see(self, events: dict[str, np.ndarray], answer: Answer) -> None:
        self.clocked.push(events)
        step = self.clocked.t * self.clocked.time_steps // self.clocked.window
        if step == self._step:
            return
        self._step = step
        self.due += 1
        if self._running is None or self._running.done():
            self._running = self._pool.submit(self._answer, self.clocked.frames(), answer, time.perf_counter())

    def _answer(self, frames: np.ndarray, answer: Answer, asked: float) -> None:
        other = self.clocked.answer(frames)
        self.latencies.add(time.perf_counter() - asked)
        self.same += other.winners == answer.winners
        self.answers += 1
        if self.answers % 10 == 1 and len(self.synops) < 1000:  # another run, so not after each
            self.synops.append(self.clocked.synops(frames))

    def end(self) -> dict[str, Any]:
        """What became of it."""
        self._pool.shutdown()
        if self._running is not None:
            self._running.result()
        found = {"time_steps": self.clocked.time_steps, "window": self.clocked.window, "latencies": self.latencies}
        found |= {"due": self.due, "answers": self.answers, "same": self.same / max(1, self.answers)}
        return found | {"synops": float(np.mean(self.synops)) if self.synops else 0.0}


@dataclass
class Report:
    """What became of a stream.

    Attributes
    ----------
    source : str
    recordings : list of Answer
        The last answer of every recording, of the last thousand of them.
    played : int
        How many recordings there were.
    events, dropped, outside, thinned, late, jumps : int
        Events that came; of these, dropped as the queue was full, outside of what the network sees, left out by
        downsampling, and late; how often the clock was set back.
    stream_seconds, seconds, busy_seconds : float
        Length of the stream by its own clock; how long it took; of this, computing.
    latencies : Latencies
        From a packet's arrival to the answer that has seen all of it.
    synops : int
        Synaptic operations.
    chip : str
        How much of the profile's chip that is.
    clocked : dict
        With a clock beside it: time steps, window, latencies of its answers (from the end of a time step on), how many
        were due and given, how many of them were alike, and synaptic operations an answer.
    """

    source: str
    recordings: list[Answer] = field(default_factory=list)
    played: int = 0
    events: int = 0
    dropped: int = 0
    outside: int = 0
    thinned: int = 0
    late: int = 0
    jumps: int = 0
    stream_seconds: float = 0.0
    seconds: float = 0.0
    busy_seconds: float = 0.0
    latencies: Latencies = field(default_factory=Latencies)
    synops: int = 0
    chip: str = "no profile"
    clocked: dict[str, Any] = field(default_factory=dict)

    def end(self, answer: Answer) -> None:
        """Note the last answer of a recording."""
        self.recordings.append(answer)
        del self.recordings[:-1000]
        self.played += 1

    @property
    def run(self) -> int:
        """Events that were run."""
        return self.events - self.dropped - self.outside - self.thinned - self.late

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        plain = {name: value for name, value in self.__dict__.items() if isinstance(value, int | float | str)}
        answers = [
            {"t": a.t, "output": a.output, "winners": [*a.winners], "readout": a.readout.tolist()}
            for a in self.recordings
        ]
        clocked = {name: v.to_dict() if isinstance(v, Latencies) else v for name, v in self.clocked.items()}
        return plain | {"run": self.run, "latency": self.latencies.to_dict(), "clocked": clocked, "answers": answers}

    def __str__(self) -> str:
        pace = f"{self.stream_seconds / self.seconds:,.1f} times real time" if self.seconds else ""
        rate = f"; {self.run / self.busy_seconds:,.0f} events a second of computing" if self.busy_seconds else ""
        lines = [
            f"{self.source}: {self.events:,} events, {self.stream_seconds:,.3f} s in {self.seconds:,.3f} s, {pace}",
            f"run {self.run:,}; dropped {self.dropped:,} (queue full), outside {self.outside:,}, left out by "
            f"downsampling {self.thinned:,}, late {self.late:,}; clock set back {self.jumps:,} times",
            f"latency of {self.latencies.count:,} packets: {self.latencies}{rate}",
        ]
        rate = f"{self.synops / (self.stream_seconds or math.inf):,.0f} a second of stream"
        lines.append(f"{self.synops:,} synaptic operations, {rate}; {self.chip}")
        if self.clocked:
            c = self.clocked
            lines.append(
                f"with a clock, T = {c['time_steps']} over {c['window']:,} us: {c['answers']:,} of {c['due']:,} "
                f"answers, one a time step, {c['latencies']}; {c['synops']:,.0f} synaptic operations each; "
                f"{c['same']:.1%} alike"
            )
        shown = self.recordings[-10:]
        lines += [f"recording {self.played - len(shown) + i}: {each}" for i, each in enumerate(shown)]
        return "\n".join(lines)


class Stream:
    """A source, run through a session as its events arrive.

    Parameters
    ----------
    session : Session
    source : Source
        See `mtt_lava.sources.open_source`.
    fit : Fit, optional
        Default: the sensor is the network's.
    queue : Queue, optional
    clocked : Clocked, optional
        Answers beside the session.
    profile : Profile, optional
        The chip that synaptic operations are compared with.
    warn : callable
        Is told, in one line, of what went wrong and was put right.

    Examples
    --------
    >>> stream = Stream(Session("digits.net"), open_source("events.npz"))  # doctest: +SKIP
    >>> for answer in stream:  # doctest: +SKIP
    ...     print(answer)
    >>> print(stream.report)  # doctest: +SKIP
    """

    def __init__(
        self,
        session: Session,
        source: Source,
        fit: Fit | None = None,
        queue: Queue | None = None,
        clocked: Clocked | None = None,
        profile: hw_profiles.Profile | None = None,
        warn: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.session, self.source, self.profile, self.warn = session, source, profile, warn
        self.fit = fit or Fit(session.program.network.in_shape)
        self.queue = queue or Queue()
        self.report = Report(source.name)
        self.seen: Callable[[Stream, dict[str, np.ndarray], Answer], None] | None = None
        self._offset = 0
        self._beside = None if clocked is None else _Beside(clocked)
        session.push({name: np.zeros(0, np.int64) for name in "tcyx"})  # compiles now, not when events arrive

    def _read(self) -> None:
        error: BaseException | None = None
        try:
            for packet in self.source.packets:
                if not self.queue.put(packet, self.source.waits):
                    return
                self.report.events += len(packet.events)
        except BaseException as reason:
            error = reason
        self.queue.end(error)

    def __iter__(self) -> Iterator[Answer]:
        """The answer after every portion that was run; the report grows meanwhile.

        Raises
        ------
        StreamError
            The source broke off, or the queue was full and that is an error. What came before was run.
        """
        threading.Thread(target=self._read, daemon=True).start()
        start, report = time.perf_counter(), self.report
        answer: Answer | None = None
        work = -self.session.tally[:, 1]  # of each layer, without that of the session now
        try:
            while taken := self.queue.take():
                begin = time.perf_counter()
                events = taken[0][1].events
                if len(taken) > 1:
                    events = np.concatenate([packet.events for _, packet in taken])
                if taken[0][1].fresh and answer is not None:  # a state that was restored goes on
                    report.end(answer)
                    work += self.session.tally[:, 1]
                    self.session.reset()
                    self._offset = 0
                    if self._beside is not None:
                        self._beside.clocked.reset()
                given = self.fit(self._in_order(events))
                if len(given["t"]):
                    before = self.session.t if self.session.t >= 0 else int(given["t"][0])
                    self.session.push(given)
                    report.stream_seconds += (self.session.t - before) / 1e6
                answer = self.session.answer()
                now = time.perf_counter()
                for arrived, _ in taken:
                    report.latencies.add(now - arrived)
                report.busy_seconds += now - begin
                report.dropped, report.outside, report.thinned = self.queue.dropped, self.fit.outside, self.fit.thinned
                if self._beside is not None:
                    self._beside.see(given, answer)
                report.synops = int((work + self.session.tally[:, 1]).sum())
                report.seconds = time.perf_counter() - start
                if self.seen is not None:
                    self.seen(self, given, answer)
                yield answer
        finally:
            self.queue.end()
            self.source.stop.set()
            report.seconds = time.perf_counter() - start
            report.dropped = self.queue.dropped
            if self._beside is not None:
                report.clocked = self._beside.end()
            if answer is not None:
                report.end(answer)
            report.chip = self._share((work + self.session.tally[:, 1]) / (report.stream_seconds or math.inf))

    def _in_order(self, events: np.ndarray) -> np.ndarray:
        """Events in the order of a clock that only goes on: a jump is made up for, single late ones are left out."""
        if not len(events):
            return events
        events = events.copy()
        events["t"] += self._offset
        t = events["t"]
        last = self.session.t
        if last < 0:
            if t[0] < 0:
                self._offset -= int(t[0])
                t -= t[0]
            last = int(t[0])
        top, shift = last, 0
        for a, b in pairwise([0, *(1 + np.flatnonzero(np.diff(t) < -JUMP)).tolist(), len(t)]):
            back = top - (int(t[a]) + shift)
            if back > JUMP:
                shift += back
                self._offset += back
                self.report.jumps += 1
                if self.report.jumps == 1:
                    self.warn(f"the clock of {self.source.name} was set back by {back:,} us; time goes on from there")
            t[a:b] += shift
            top = max(top, int(t[a:b].max()))
        late = t < np.maximum.accumulate(np.concatenate([[last], t]))[:-1]
        if late.any():
            if not self.report.late:
                self.warn(f"events of {self.source.name} come later than others; those are left out and counted")
            self.report.late += int(late.sum())
            events = events[~late]
        return events

    def _share(self, rates: np.ndarray) -> str:
        """What synaptic operations a second, of every layer, are of what the chip's busiest core can do."""
        if self.profile is None:
            return "no profile"
        fact, network = self.profile.facts.throughput, self.session.program.network
        placement = hw_profiles.place(network, self.profile)
        if fact.value is None or not placement.complete:
            return f"what {self.profile.name} can do is unknown"
        names = [layer.name for layer in network.spiking]
        work = {
            core.number: sum(rates[names.index(part.name)] for part in core.parts if part.name in names)
            for core in placement.cores
        }
        busiest = max(float(rate) / fact.value[core] for core, rate in work.items())
        known = f"{fact.status}, {', '.join(fact.source)}"
        return f"{busiest:.2%} of what {self.profile.name}'s busiest core can do ({known})"
