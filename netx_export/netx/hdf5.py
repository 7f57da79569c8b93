"""HDF5 files as plain data: written in memory, with a digest, and read by a process that may hang or end.

Files of other people can make the HDF5 library loop for ever, out of reach of Ctrl-C, end the process, or read any file
as weights. So no file is opened here: its bytes go to one child process (`netx_export.netx.hdf5_child`), which has
limits of time and memory, starts with the first file (half a second of computing) and serves this process to its end
(some milliseconds a file).
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from netx_export.files import DIGEST, is_whole, read_whole, replacing, sealed

if TYPE_CHECKING:
    import h5py

CONTENT_MAX = 1 << 28
"""Most bytes of a file, and of what is in it with 8 bytes a number: 33,554,432 numbers."""
CPU_SECONDS = 10
"""Computing time after which a file counts as one that never ends."""
PATIENCE = 120.0
"""Seconds without a word from the child, which may have to wait for a processor."""
HEAD = struct.Struct("<Q")


class HDF5Error(ValueError):
    """A file that cannot be read, or not safely: what is wrong, without its name."""


@dataclass(frozen=True)
class Unreadable:
    """In place of a value that is neither numbers nor a text, or is damaged."""

    reason: str


@dataclass(frozen=True)
class Group:
    """A group of an HDF5 file: attributes, and members by their names (groups and values).

    Values are arrays (NumPy scalars where they have no axes), of integers, floating point or bytes, and texts.
    """

    attributes: dict[str, Any]
    members: dict[str, Any]

    def get(self, path: str) -> Any:
        """The member at a path of names with ``/`` between them; None where there is none."""
        item: Any = self
        for name in path.split("/"):
            item = item.members.get(name) if isinstance(item, Group) else None
        return item


@contextmanager
def creating(path: str | os.PathLike[str]) -> Iterator[h5py.File]:
    """Yield an HDF5 file in memory; write it to `path`, with its digest, when the block ends well.

    On a full disk the HDF5 library ends the process (SIGSEGV, when it closes the file).
    """
    import h5py

    with h5py.File(os.path.basename(path), "w", driver="core", backing_store=False) as file:
        # The first thing in it, so that no other text in the file can be taken for it.
        file.attrs["digest"] = np.bytes_(DIGEST)
        yield file
        file.flush()
        content = sealed(file.id.get_file_image())
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def load(path: str | os.PathLike[str], *, texts: bool = False) -> tuple[Group, bool]:
    """Everything that stands in an HDF5 file, and whether the file has a digest.

    Parameters
    ----------
    path : path-like
        The file.
    texts : bool
        Whether arrays of texts are read too, as arrays of objects; else they are `Unreadable`.

    Raises
    ------
    HDF5Error
        The file is missing, no regular one, too large, damaged (its digest says so, or it cannot be read within the
        limits of time and memory), has links or is stored in other files.
    """
    try:
        content = read_whole(path, CONTENT_MAX)
    except FileNotFoundError:
        raise HDF5Error("no such file") from None
    except OSError as error:
        raise HDF5Error(f"not a readable HDF5 file ({error.strerror or error})") from None
    whole = is_whole(content)
    if whole is False:
        raise HDF5Error(
            "is damaged: its digest is not that of its content (if it was changed on purpose: netx_export.files.seal)"
        )
    if not content:
        raise HDF5Error("not a readable HDF5 file (it is empty)")
    return _reader.load(content, texts), whole is True


def receive(connection: socket.socket) -> bytearray:
    """A message; empty where the other side is gone."""
    head = _receive(connection, HEAD.size)
    return _receive(connection, HEAD.unpack(head)[0]) if head else head


def _receive(connection: socket.socket, size: int) -> bytearray:
    content = bytearray(size)
    view = memoryview(content)
    while view:
        count = connection.recv_into(view)
        if not count:
            return bytearray()
        view = view[count:]
    return content


class _Ended(Exception):
    """The child process is gone; `status` is its exit status, a signal negative."""

    def __init__(self, status: int) -> None:
        self.status = status


class _Reader:
    """The child process, started when it is needed."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.child: subprocess.Popen[bytes] | None = None
        self.connection: socket.socket | None = None
        self.texts = False

    def load(self, content: bytes, texts: bool) -> Group:
        with self.lock:
            self.texts = texts
            served = self.child is not None
            try:
                try:
                    return self._ask(content)
                except _Ended as ended:
                    if ended.status == -signal.SIGXCPU or not served:
                        raise
                    return self._ask(content)  # an earlier file did that, or somebody killed it
            except _Ended as ended:
                if ended.status == -signal.SIGXCPU:
                    raise HDF5Error(f"is damaged: reading it did not end within {CPU_SECONDS} s") from None
                raise HDF5Error("is damaged: the HDF5 library fails on it, or needs too much memory") from None

    def end(self) -> int:
        """End the child; its exit status."""
        assert self.child is not None
        assert self.connection is not None
        self.connection.close()
        self.child.kill()
        status = self.child.wait()
        self.child = self.connection = None
        return status

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        package = str(Path(__file__).parents[2])
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")])),
            "HDF5_PLUGIN_PRELOAD": "::",  # no plug-ins
            "OPENBLAS_NUM_THREADS": "1",
        }
        ours.settimeout(PATIENCE)
        with theirs:
            self.connection = ours
            self.child = subprocess.Popen(
                [sys.executable, "-m", "netx_export.netx.hdf5_child", str(CPU_SECONDS)],
                env=environment,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for this process
            )
        if not receive(self.connection):
            status = self.end()
            raise HDF5Error(
                f"cannot be read: the process that opens HDF5 files ended at its start with status {status}; what is "
                f"wrong says: python -c 'import h5py'"
            )

    def _ask(self, content: bytes) -> Group:
        try:
            if self.child is None:
                self._start()
            assert self.connection is not None
            self.connection.sendall(HEAD.pack(len(content)))
            self.connection.sendall(content)
            tree = json.loads(self._receive())
            if "refused" in tree:
                raise HDF5Error(tree["refused"])
            return self._group(tree)
        except HDF5Error:
            raise
        except TimeoutError:
            self.end()
            raise HDF5Error(f"cannot be read: no answer within {PATIENCE:.0f} s; try again") from None
        except (EOFError, ConnectionError):
            raise _Ended(self.end()) from None
        except BaseException:  # Ctrl-C: the answer would be taken for that to the next question
            if self.child is not None:
                self.end()
            raise

    def _receive(self) -> bytearray:
        assert self.connection is not None
        message = receive(self.connection)
        if not message:
            raise EOFError
        return message

    def _group(self, tree: dict[str, Any]) -> Group:
        parts = ({name: self._value(value) for name, value in tree[of].items()} for of in ("attributes", "members"))
        return Group(*parts)

    def _value(self, found: dict[str, Any]) -> Any:
        if "members" in found:
            return self._group(found)
        if "unreadable" in found:
            return Unreadable(found["unreadable"])
        if "text" in found:
            return found["text"]
        if "texts" in found:
            texts = found["texts"]
            if not self.texts:
                return Unreadable(f"holds {len(texts)} texts, not one")
            return np.array(texts, dtype=object).reshape(found["shape"])
        return np.frombuffer(self._receive(), found["dtype"]).reshape(found["shape"])[()]


_reader = _Reader()


def _end_reader() -> None:
    if _reader.child is not None:
        _reader.end()


atexit.register(_end_reader)
# A forked process has no child process of its own yet; the one of its parent belongs to that.
os.register_at_fork(after_in_child=_reader.__init__)  # type: ignore[misc]
