"""Where events come from while they arrive: recordings played at their own speed, folders being written, sockets."""

from __future__ import annotations

import json
import math
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mtt_lava.data.events import EVENT_DTYPE, as_recording
from mtt_lava.data.files import READERS, read_file
from netx_export.event.events import COLUMNS, LATEST, load_events
from netx_export.text import UserError

ANY_SENSOR = (1 << 15, 1 << 15, 2)
_LARGEST = (LATEST, (1 << 15) - 1, (1 << 15) - 1, 1)  # t, x, y, p
AT_ONCE = 1 << 15
"""Events that are taken from a socket or a recording at a time."""
MAGIC = b"MTTE"
WIRE = np.dtype([("t", "<i8"), ("x", "<u2"), ("y", "<u2"), ("p", "u1")])
"""An event on the wire, 13 bytes: time in microseconds, column, row, polarity (1: ON)."""
MOST = 1 << 28
"""Events that a packet may declare."""
SETTLED = 0.5
"""Seconds for which a file in a folder has to stay as it is before it is read."""
SILENT = 5.0
"""Seconds without a sign of life after which the reader of AEDAT 4 is given up."""


class StreamError(UserError):
    """A source of events broke off, or is not what it must be. One clear line."""


class Packet(NamedTuple):
    """Events that arrived together, dtype `EVENT_DTYPE`; and whether a new recording starts with them."""

    events: np.ndarray
    fresh: bool = False


@dataclass
class Source:
    """What sends events.

    Attributes
    ----------
    name : str
    packets : iterator of Packet
        They come when they arrive.
    waits : bool
        Whether it holds its events back while the queue is full: recordings played as fast as possible do.
    stop : threading.Event
        Ends the wait for the next packet, and with it the source.
    """

    name: str
    packets: Iterator[Packet]
    waits: bool = False
    stop: threading.Event = field(default_factory=threading.Event)


def open_source(name: str, *, speed: float = 1.0, packet: int = 1000, idle: float | None = None) -> Source:
    """Open a source by its name.

    Parameters
    ----------
    name : str
        A recording (see `mtt_lava.data.files.read_file`); EVENTS.npz with the arrays sample, t, c, y, x, whose samples
        are played one after the other; a folder, whose recordings are read as they appear, in order of their names;
        ``tcp://HOST:PORT``, which is connected to and sends `WIRE`; ``dv://HOST:PORT``, which sends AEDAT 4 and is
        read by dv-processing (extra ``live``); ``camera://``, the first event camera at this machine that dv-processing
        finds, or ``camera://SERIAL``.
    speed : float
        Of recordings: 1 is true speed, 2 twice as fast; 0 as fast as they can be run.
    packet : int
        Microseconds of a recording that arrive together.
    idle : float, optional
        Seconds without news after which a folder is done with. Default: never.

    Raises
    ------
    StreamError, DataError, NetworkError
        There is no such source.
    """
    stop = threading.Event()
    if not 0 <= speed < math.inf or packet < 1:
        raise StreamError(f"speed {speed:g}, packet {packet} us: give a speed from 0 on and at least 1 us")
    kind, sign, address = name.partition("://")
    if kind == "camera" and sign:
        return Source(name, _dv(name, [address], stop), stop=stop)
    if sign:
        if kind not in ("tcp", "dv"):
            raise StreamError(f"{name}: no such source; there are tcp://HOST:PORT, dv://HOST:PORT and camera://")
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
            raise StreamError(f"{name}: give {kind}://HOST:PORT, as {kind}://127.0.0.1:7777")
        given = _tcp(name, host, int(port), stop) if kind == "tcp" else _dv(name, [host, int(port)], stop)
        return Source(name, given, stop=stop)
    path = Path(name)
    if path.is_dir():
        return Source(name, _folder(path, speed, packet, idle, stop), speed == 0, stop)
    if not path.exists():
        raise StreamError(f"{name}: no such recording or folder")
    return Source(name, played(_recordings(path), speed, packet, stop), speed == 0, stop)


# ------------------------------------------------------------------------------------------------ recordings


def _recordings(path: Path) -> list[np.ndarray]:
    """The recordings of a file: one, or those of an EVENTS.npz."""
    if path.suffix == ".npz" and _holds(path, "sample.npy"):
        events = load_events(path)
        columns = [np.asarray(getattr(events, name)) for name in COLUMNS]
        if any(c.dtype.kind not in "iu" or c.ndim != 1 or len(c) != len(columns[0]) for c in columns):
            raise StreamError(f"{path}: {', '.join(COLUMNS)} must be flat arrays of whole numbers, as many of each")
        if (events.sample[1:] < events.sample[:-1]).any():
            raise StreamError(f"{path}: its samples are not in order: sort by sample, then t")
        joined = np.zeros(len(events.t), EVENT_DTYPE)
        for name, column, most in zip("txyp", (events.t, events.x, events.y, events.c), _LARGEST, strict=True):
            wrong = (column < 0) | (column > most)
            if wrong.any():
                raise StreamError(f"{path}: {name} is {column[wrong][0]}; a camera has 0..{most}")
            joined[name] = column
        order = np.searchsorted(events.sample, np.arange(events.n + 1))
        return [joined[a:b] for a, b in pairwise(order) if b > a]
    return [as_recording(read_file(path), ANY_SENSOR, where=str(path))]


def _holds(path: Path, member: str) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return member in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False  # whoever reads it says why


def played(recordings: list[np.ndarray], speed: float, packet: int, stop: threading.Event) -> Iterator[Packet]:
    """Recordings, one after the other, each packet at the time at which its last event would have come."""
    for recording in recordings:
        t, first = recording["t"], True
        # The last event of each part: of a packet's time, and, as fast as possible, of so many events.
        last = np.append(np.diff((t - t[0]) // packet) > 0, True) if speed else np.ones(len(t), bool)
        ends = 1 + np.flatnonzero(last)
        ends = ends if speed else np.append(ends[AT_ONCE - 1 : -1 : AT_ONCE], ends[-1])
        begin = time.perf_counter()
        for a, b in pairwise([0, *ends.tolist()]):
            if speed:
                due = begin + int(t[b - 1] - t[0]) / 1e6 / speed
                if stop.wait(max(0.0, due - time.perf_counter())):
                    return
            yield Packet(recording[a:b], first)
            first = False


def _folder(folder: Path, speed: float, packet: int, idle: float | None, stop: threading.Event) -> Iterator[Packet]:
    """Recordings that appear in a folder, each once it is whole: renamed into place, or settled."""
    done: set[Path] = set()
    seen: dict[Path, tuple[int, int]] = {}
    end, news = -1, time.perf_counter()
    while not stop.is_set():
        here = sorted(path for path in folder.iterdir() if path.suffix.lower() in READERS and path.name[0] != ".")
        for path in here:
            if path in done:
                continue
            status = path.stat()
            now = (status.st_size, status.st_mtime_ns)
            if seen.get(path) != now or time.time() - status.st_mtime < SETTLED:
                seen[path] = now
                break  # in the order of their names: what follows waits
            done.add(path)
            for recording in _recordings(path):
                # Files of a camera that writes one after the other are one recording; time that starts again is not.
                for events, first in played([recording], speed, packet, stop):
                    yield Packet(events, first and int(events["t"][0]) < end)
                end = int(recording["t"][-1])
            news = time.perf_counter()
        if idle is not None and time.perf_counter() - news > idle:
            return
        stop.wait(0.05)


# ------------------------------------------------------------------------------------------------ sockets


def pack(events: np.ndarray) -> bytes:
    """Events as a packet of the wire: ``MTTE``, their number (uint32, little-endian), and 13 bytes each, see `WIRE`.

    A packet without events says that the source ends well.

    Examples
    --------
    >>> pack(np.zeros(0, WIRE))
    b'MTTE\\x00\\x00\\x00\\x00'
    """
    wire = np.zeros(len(events), WIRE)
    for name in ("t", "x", "y", "p"):
        wire[name] = events[name]
    return MAGIC + np.uint32(len(events)).astype("<u4").tobytes() + wire.tobytes()


def _tcp(name: str, host: str, port: int, stop: threading.Event) -> Iterator[Packet]:
    try:
        connection = socket.create_connection((host, port), timeout=10)
    except OSError as error:
        raise StreamError(f"{name}: cannot be connected to ({error.strerror or error})") from None
    with connection:
        connection.settimeout(None)
        yield from _unpacked(name, connection.fileno(), stop, lambda: None)


def _unpacked(name: str, file: int, stop: threading.Event, heard: Callable[[], None]) -> Iterator[Packet]:
    """Packets of the wire, as they come, a large one in parts; `heard` is called when anything came."""
    while True:
        head = _read(name, file, 8, stop, heard)
        if stop.is_set():
            return
        if head[:4] != MAGIC:
            raise StreamError(f"{name}: sends {head!r}, no packet of events (these start with MTTE and their number)")
        count = int.from_bytes(head[4:], "little")
        if count == 0:
            return
        if count > MOST:
            raise StreamError(f"{name}: a packet declares {count:,} events; at most {MOST:,}")
        for start in range(0, count, AT_ONCE):
            size = min(AT_ONCE, count - start) * WIRE.itemsize
            wire = np.frombuffer(_read(name, file, size, stop, heard), WIRE)
            if stop.is_set():
                return
            # int16 would turn what no sensor has into something that one has.
            wrong = (wire["x"] >= ANY_SENSOR[0]) | (wire["y"] >= ANY_SENSOR[1]) | (wire["p"] > 1)
            wrong |= (wire["t"] < -LATEST) | (wire["t"] > LATEST)
            if wrong.any():
                raise StreamError(f"{name}: sends an event that no camera has: {wire[wrong][0].item()} (t, x, y, p)")
            events = np.zeros(len(wire), EVENT_DTYPE)
            for column in ("t", "x", "y", "p"):
                events[column] = wire[column]
            yield Packet(events)


def _read(name: str, file: int, size: int, stop: threading.Event, heard: Callable[[], None]) -> bytes:
    parts, left = [], size
    while left and not stop.is_set():
        if not select.select([file], [], [], 0.1)[0]:
            continue
        try:
            some = os.read(file, left)
        except OSError as error:
            raise StreamError(f"{name}: broke off ({error.strerror or error}); what came before was run") from None
        if not some:
            raise StreamError(f"{name}: broke off without a last packet that says so; what came before was run")
        heard()
        parts.append(some)
        left -= len(some)
    return b"".join(parts)


def serve(
    recording: np.ndarray, port: int = 0, *, speed: float = 1.0, packet: int = 1000
) -> tuple[int, threading.Thread]:
    """Send a recording to the first who connects to a port of this machine's loopback; for tests and as an example.

    Returns
    -------
    port : int
    thread : threading.Thread
        Runs until all is sent.
    """
    server = socket.create_server(("127.0.0.1", port))

    def send() -> None:
        with server, suppress(OSError):  # who reads may go away
            connection, _ = server.accept()
            with connection:
                for each in played([recording], speed, packet, threading.Event()):
                    connection.sendall(pack(each.events))
                connection.sendall(pack(recording[:0]))

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return int(server.getsockname()[1]), thread


# ------------------------------------------------------------------------------------------------ AEDAT 4


def _dv(name: str, where: list[str | int], stop: threading.Event) -> Iterator[Packet]:
    """AEDAT 4 over TCP, or a camera, by dv-processing in a child: what is no AEDAT 4 makes it wait for ever."""
    import importlib.util

    if importlib.util.find_spec("dv_processing") is None:
        raise StreamError(f"{name}: is read by dv-processing, which is not installed: uv sync --extra live")
    child = subprocess.Popen(
        [sys.executable, "-m", __name__, json.dumps(where)],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert child.stdout is not None
    assert child.stderr is not None
    done = threading.Event()
    last = [time.perf_counter()]

    def heard() -> None:
        last[0] = time.perf_counter()

    def watch() -> None:
        while not done.wait(0.2):
            if time.perf_counter() - last[0] > SILENT:
                child.kill()

    threading.Thread(target=watch, daemon=True).start()
    try:
        for each in _unpacked(name, child.stdout.fileno(), stop, heard):
            if each.events["t"][0] >= 0:  # else a sign of life
                yield each
    except StreamError:
        said = b""
        if child.wait() != -signal.SIGKILL:
            said = child.stderr.read()
        reason = " ".join(said.decode(errors="replace").split())[:150] or "sends no AEDAT 4 that dv-processing can read"
        raise StreamError(f"{name}: {reason}") from None
    finally:
        done.set()
        child.kill()
        child.wait()
        child.stdout.close()
        child.stderr.close()


def _dv_child(*where: str | int) -> None:
    """In the child: events of a host and port's first camera, or of the camera with this serial number, or any, as
    packets of the wire; one with t = -1 as a sign of life."""
    import dv_processing

    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no packet
    alive = np.zeros(1, WIRE)
    alive["t"] = -1
    try:
        if len(where) == 2:
            reader = dv_processing.io.NetworkReader(*where)
        else:
            reader = dv_processing.io.camera.open(*filter(None, where))
    except (IndexError, RuntimeError) as error:  # without any camera, the former
        if len(where) == 1:
            sys.exit(f"no camera that dv-processing can open{f', {where[0]}' if where[0] else ''}")
        sys.exit(f"cannot be read ({str(error).split(' [')[0][:100]})")
    said = 0.0
    while True:
        batch = reader.getNextEventBatch()
        if batch is None:
            if not reader.isRunning():
                sys.exit("broke off; what came before was run")
            if time.perf_counter() - said > SILENT / 10:
                out.write(pack(alive))
                out.flush()
                said = time.perf_counter()
            time.sleep(0.0005)
            continue
        found = batch.numpy()
        events = np.zeros(len(found), WIRE)
        for into, name in (("t", "timestamp"), ("x", "x"), ("y", "y"), ("p", "polarity")):
            events[into] = found[name]
        if len(events):
            out.write(pack(events))
            out.flush()


if __name__ == "__main__":
    _dv_child(*json.loads(sys.argv[1]))
