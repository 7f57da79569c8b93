"""Recordings in the formats of event cameras, read by faery, in a child process that damaged files may bring down.

faery (and any other reader of AEDAT 4) trusts what a file declares: damaged ones end its process or ask for any
memory. The child has a limit of both, and is started anew where it ended. It reads HDF5 files of spikes too, for
`mtt_lava.data.heidelberg`: their lists of arrays are where damage ends HDF5, or makes it read for ever.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .events import DataError

_DTYPE = np.dtype([("x", "<u2"), ("y", "<u2"), ("t", "<u8"), ("p", "u1")])
_BASE_BYTES = 1 << 30  # what the child may take, and
_MORE_BYTES = 128  # so many times the file: EVT 3 packs 12 events, 156 bytes here, into 2 at the densest
_SECONDS = 60  # and as many more as the file has megabytes

_lock = threading.Lock()
_child: subprocess.Popen[bytes] | None = None


def read_camera_file(path: Path) -> np.ndarray:
    """Return the events of a recording as the camera saw them: row 0 at the top, polarity 1 is ON.

    Parameters
    ----------
    path : Path
        ``.aedat4`` (iniVation; times are UNIX microseconds), ``.dat`` (Prophesee DAT 2, N-CARS), ``.raw``
        (Prophesee EVT 2 and EVT 3) or ``.es`` (Event Stream; DVS, or ATIS without its exposures).

    Returns
    -------
    numpy.ndarray
        Fields x, y, t (microseconds, as in the file), p.

    Raises
    ------
    DataError
        If faery is not installed, or the file is damaged, of another version, or holds no or several cameras.
    """
    if importlib.util.find_spec("faery") is None:
        raise DataError(
            f"{path.suffix} files are read by faery, which is not installed: uv sync --extra recordings, or pip "
            "install faery"
        )
    return ask_child(path, None, _SECONDS + (path.stat().st_size >> 20))[1]


def ask_child(path: Path, item: str | int | None, seconds: int) -> tuple[dict[str, Any], np.ndarray]:
    """Let the child read a file.

    Parameters
    ----------
    path : Path
    item : str or int or None
        None: all events. Of a file of spikes: "labels", or the number of a recording.
    seconds : int
        The longest that it may take.

    Returns
    -------
    answer : dict
        For "labels": labels and classes.
    events : numpy.ndarray
        Fields x, y, t (microseconds), p; for "labels" none.

    Raises
    ------
    DataError
        If the file is damaged or foreign.
    """
    with _lock:
        try:
            return _ask(path, item, seconds)
        except BaseException as error:
            # Also when interrupted: what the child still says belongs to no later question.
            if not isinstance(error, DataError):
                _stop()
            raise


def _ask(path: Path, item: str | int | None, seconds: int) -> tuple[dict[str, Any], np.ndarray]:
    child = _started()
    assert child.stdin is not None
    assert child.stdout is not None
    question = [str(path.resolve()), item, seconds, _BASE_BYTES + _MORE_BYTES * path.stat().st_size]
    with contextlib.suppress(BrokenPipeError):  # then its end says more
        child.stdin.write(json.dumps(question).encode() + b"\n")
        child.stdin.flush()
    head = child.stdout.readline()
    if head.endswith(b"\n"):
        answer = json.loads(head)
        if "error" in answer:
            raise DataError(answer["error"])
        raw = child.stdout.read(answer["events"] * _DTYPE.itemsize)
        if len(raw) == answer["events"] * _DTYPE.itemsize:
            return answer, np.frombuffer(raw, _DTYPE)
    child.wait()
    status = _stop()
    if status == -signal.SIGALRM:
        raise DataError(f"damaged: reading it took longer than {seconds} s")
    raise DataError(f"damaged, or no {path.suffix} file of events: its reader broke down (exit status {status})")


def _started() -> subprocess.Popen[bytes]:
    global _child
    if _child is None or _child.poll() is not None:
        _stop()  # of one that has ended since, the pipes are still open
        _child = subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=Path(__file__).parents[2],  # so that this package is found, and nothing from where the user is
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # each thread would take memory
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for us
        )
    return _child


def _stop() -> int:
    """End the child; return how it ended."""
    global _child
    child, _child = _child, None
    if child is None:
        return 0
    with contextlib.suppress(BrokenPipeError), child:
        child.kill()
    return child.wait()


atexit.register(_stop)


# ------------------------------------------------------------------------------------------------ in the child


def _aedat4(path: Path) -> Iterator[np.ndarray]:
    import faery

    with faery.aedat.Decoder(path) as decoder:
        cameras = {track.id for track in decoder.tracks() if track.data_type == "events"}
        if len(cameras) != 1:
            raise DataError(f"holds events of {len(cameras)} cameras; must be one")
        yield from (packet for track, packet in decoder if track.id in cameras)


def _dat(path: Path) -> Iterator[np.ndarray]:
    import faery

    # For files that state neither: the size does not matter here, and N-CARS says 2.
    with faery.dat.Decoder(path, (1 << 14, 1 << 14), "dat2") as decoder:
        if decoder.event_type not in ("2d", "cd"):
            raise DataError(f"holds {decoder.event_type} events; must be of a camera's change detection (cd)")
        yield from decoder


def _raw(path: Path) -> Iterator[np.ndarray]:
    import faery

    with faery.evt.Decoder(path, (1 << 11, 1 << 11), None) as decoder:
        if decoder.version not in ("evt2", "evt3"):
            raise DataError(f"is of version {decoder.version}; must be EVT 2 or EVT 3: convert it to one, or to .dat")
        yield from (packet["events"] for packet in decoder if "events" in packet)


def _es(path: Path) -> Iterator[np.ndarray]:
    import faery

    with faery.es.Decoder(path, 0) as decoder:
        if decoder.event_type not in ("dvs", "atis"):
            raise DataError(f"holds {decoder.event_type} events; must be those of a DVS or ATIS")
        for packet in decoder:
            if decoder.event_type == "atis":
                packet = packet[~packet["exposure"]]
            packet["y"] = decoder.dimensions[1] - 1 - packet["y"]  # the format counts rows from the bottom
            yield packet


_READERS: dict[str, Callable[[Path], Iterator[np.ndarray]]] = {
    ".aedat4": _aedat4,
    ".dat": _dat,
    ".raw": _raw,
    ".es": _es,
}
ENDINGS = tuple(_READERS)


def _read(path: Path) -> np.ndarray:
    packets = list(_READERS[path.suffix.lower()](path))
    events = np.empty(sum(map(len, packets)), _DTYPE)
    start = 0
    for packet in packets:
        part = events[start : start + len(packet)]
        for name in ("x", "y", "t"):
            part[name] = packet[name]
        part["p"] = packet[next(name for name in packet.dtype.names if name in ("on", "payload", "polarity"))] > 0
        start += len(packet)
    return events


def _serve() -> None:
    """Read the files whose names come in; answer each with a line of JSON, and the bytes of its events."""
    import resource

    from . import heidelberg

    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no answer
    for line in sys.stdin.buffer:
        name, item, seconds, limit = json.loads(line)
        path = Path(name)
        answer: dict[str, Any] = {}
        events = np.empty(0, _DTYPE)
        try:
            _, hard = resource.getrlimit(resource.RLIMIT_AS)
            with contextlib.suppress(ValueError, OSError):  # a lower limit of others stays
                resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
            signal.alarm(seconds)
            if item is None:
                events = _read(path)
            elif item == "labels":
                answer |= heidelberg.labels_in(path)
            else:
                columns = heidelberg.recording_in(path, item)
                events = np.zeros(len(columns["t"]), _DTYPE)
                events["x"], events["t"] = columns["x"], columns["t"]
            answer["events"] = len(events)
        except DataError as error:
            answer["error"] = str(error)
        except BaseException as error:  # a panic of Rust is no Exception
            said = "".join(letter if letter.isprintable() else " " for letter in str(error))
            reason = " ".join(said.split())[:120] or type(error).__name__
            answer["error"] = f"damaged, or no {path.suffix} file of events ({reason})"
        signal.alarm(0)
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.write(events.tobytes())
        answers.flush()


if __name__ == "__main__":
    _serve()
