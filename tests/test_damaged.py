"""Damaged and hostile files, and full disks: one line, in bounded time and memory, and nothing half-written."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from netx_files import edited
from safetensors.torch import load, save

from mtt_lava.run import Run, RunError, Settings, load_run
from netx_export import hdf5, netx
from netx_export.files import DIGEST, is_whole, read_whole, replacing, save_arrays, seal, sealed
from netx_export.network import Dense, Network, NetworkError, Neuron

CASES = Path(__file__).parents[2] / "shared/cases"
SECRET = np.arange(6, dtype=np.int16).reshape(2, 3)
"""What another file holds, and nobody should be able to read as weights."""


def network() -> Network:
    """One dense layer."""
    weight = 2 * np.arange(1, 7).reshape(2, 3)
    return Network((Dense(in_shape=(3,), shape=(2,), weight=weight, neuron=Neuron(9), name="only"),), source="net")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A whole file."""
    netx.write(network(), tmp_path / "a.net")
    return tmp_path / "a.net"


def refusal(path: Path) -> str:
    """The one line that reading gives."""
    with pytest.raises(NetworkError) as caught:
        netx.read(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    assert len(line) < 300 + len(str(path))
    return line.removeprefix(f"{path}: ")


# ------------------------------------------------------------------------------------------------ that never end


def endless(path: Path) -> None:
    """Give the heap of texts a free space of 0 bytes, behind which the HDF5 library goes on from there for ever."""
    content = bytearray(path.read_bytes())
    heap = content.index(b"GCOL")
    size = int.from_bytes(content[heap + 8 : heap + 16], "little")
    at = heap + 16
    while int.from_bytes(content[at : at + 2], "little"):
        at += 16 + -(-int.from_bytes(content[at + 8 : at + 16], "little") // 8) * 8
    assert at < heap + size
    content[at + 8 : at + 16] = bytes(8)
    path.write_bytes(content)
    seal(path)


def test_a_file_that_never_ends_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever made it, with a right digest: the child that reads it has a limit of computing time; the next read works.

    Takes as long as the shortest limit, 1 s.
    """
    whole = path.read_bytes()
    monkeypatch.setattr(hdf5, "CPU_SECONDS", 1)
    monkeypatch.setattr(hdf5, "_reader", hdf5._Reader())
    endless(path)
    assert is_whole(path.read_bytes())
    assert "reading it did not end" in refusal(path)
    path.write_bytes(whole)
    assert netx.read(path).layers[0].name == "only"
    hdf5._reader.end()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hang.net", "hang_1112.net"])
def test_files_that_hung_are_refused(name: str) -> None:
    """Those that were found (10 s of computing each)."""
    if not (CASES / name).exists():
        pytest.skip(f"shared/cases/{name} is not here")
    assert "reading it did not end within 10 s" in refusal(CASES / name)


def test_ctrl_c_ends_reading(path: Path) -> None:
    """At once, while the child computes for ever; and the child ends too."""
    endless(path)
    code = (
        "import os, signal, sys, threading\n"
        "from netx_export import hdf5, read\n"
        "def stop():\n"
        "    while hdf5._reader.child is None: pass\n"
        "    print(hdf5._reader.child.pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "threading.Timer(3, stop).start()\n"
        "try: read(sys.argv[1])\n"
        "except KeyboardInterrupt: print('stopped', hdf5._reader.child)\n"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
    pid, said = done.stdout.splitlines()
    assert said == "stopped None", done.stderr
    assert time.monotonic() - started < hdf5.CPU_SECONDS
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    """A pipe, a device and a folder, at once, as a network and as weights."""
    os.mkfifo(tmp_path / "pipe.net")
    assert "is no regular file" in refusal(tmp_path / "pipe.net")
    assert "is no regular file" in refusal(Path("/dev/zero"))
    assert "directory" in refusal(tmp_path)
    with pytest.raises(OSError, match="is no regular file"):
        read_whole(tmp_path / "pipe.net")


def test_the_child_may_die(path: Path) -> None:
    """Killed between two files, or gone with a file before: the next one is read by a new one."""
    assert netx.read(path).layers[0].name == "only"
    child = hdf5._reader.child
    assert child is not None
    child.kill()
    child.wait()
    assert netx.read(path).layers[0].name == "only"


def test_the_child_ends_with_its_parent(path: Path) -> None:
    """Also where the parent is killed."""
    code = (
        "import os, signal, sys\n"
        "from netx_export import hdf5, read\n"
        "read(sys.argv[1]); print(hdf5._reader.child.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL
    for _ in range(100):
        try:
            os.kill(int(done.stdout), 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("the child lives on")


def test_a_forked_process_has_a_child_of_its_own(path: Path) -> None:
    """Two processes that ask one child would get each other's answers."""
    netx.read(path)
    ours = hdf5._reader.child
    pid = os.fork()
    if pid == 0:
        alone = hdf5._reader.child is None
        right = netx.read(path).layers[0].name == "only"
        hdf5._reader.end()
        os._exit(0 if alone and right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    netx.read(path)
    assert hdf5._reader.child is ours


# ------------------------------------------------------------------------------------------------ that lead elsewhere


def external_storage(file: h5py.File, other: Path) -> None:
    raw = other.with_suffix(".raw")
    raw.write_bytes(SECRET.tobytes())
    del file["layer/1/weight"]
    file.create_dataset("layer/1/weight", (2, 3), "int16", external=[(str(raw), 0, 12)])


def external_link(file: h5py.File, other: Path) -> None:
    del file["layer/1/weight"]
    file["layer/1/weight"] = h5py.ExternalLink(str(other), "secret")


def external_group(file: h5py.File, other: Path) -> None:
    del file["layer/1"]
    file["layer/1"] = h5py.ExternalLink(str(other), "/")


def soft_link(file: h5py.File, other: Path) -> None:
    file["elsewhere"] = h5py.ExternalLink(str(other), "/")
    del file["layer/1/weight"]
    file["layer/1/weight"] = h5py.SoftLink("/elsewhere/secret")


def virtual(file: h5py.File, other: Path) -> None:
    del file["layer/1/weight"]
    layout = h5py.VirtualLayout((2, 3), "int16")
    layout[:] = h5py.VirtualSource(str(other), "secret", (2, 3))
    file.create_virtual_dataset("layer/1/weight", layout)


@pytest.mark.parametrize(
    ("lead", "message"),
    [
        (external_storage, "layer/1/weight: is stored outside, in .*secret.raw"),
        (external_link, "layer/1/weight: is an external link"),
        (external_group, "layer/1: is an external link"),
        (soft_link, "(elsewhere|weight): is an? (external|soft) link"),
        (virtual, "layer/1/weight: is a virtual data set"),
    ],
)
def test_no_other_file_is_read_as_weights(lead: Callable[[h5py.File, Path], None], message: str, path: Path) -> None:
    """External storage, links and virtual data sets are refused by name, before anything is read."""
    other = path.with_name("secret.h5")
    with h5py.File(other, "w") as file:
        file["secret"] = SECRET
    with edited(path) as file:
        lead(file, other)
    with pytest.raises(NetworkError, match=message):
        netx.read(path)
    refusal(path)


def test_the_leads_do_lead_there(path: Path) -> None:
    """Without the refusal h5py would read the other file: the test above tries what it says."""
    other = path.with_name("secret.h5")
    with h5py.File(other, "w") as file:
        file["secret"] = SECRET
    for lead in (external_storage, external_link, soft_link, virtual):
        netx.write(network(), path)
        with edited(path) as file:
            lead(file, other)
        with h5py.File(path) as file:
            np.testing.assert_array_equal(file["layer/1/weight"], SECRET, err_msg=lead.__name__)
