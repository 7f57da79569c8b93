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
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from netx_files import edited
from safetensors.torch import load, save

from mtt_lava.run import Run, RunError, Settings, load_run, save_state
from netx_export import netx
from netx_export.files import DIGEST, is_whole, read_whole, replacing, save_arrays, seal, sealed
from netx_export.network import Dense, Network, NetworkError, Neuron
from netx_export.netx import hdf5

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
        "from netx_export import read; from netx_export.netx import hdf5\n"
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
        "from netx_export import read; from netx_export.netx import hdf5\n"
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


# ------------------------------------------------------------------------------------------------ that claim too much


def claims(file: h5py.File, name: str, shape: tuple[int, ...], **options: object) -> None:
    del file[name]
    file.create_dataset(name, shape, "int8", **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: claims(f, "layer/1/weight", (1 << 20, 1 << 20)), "layer/1/weight: claims the shape"),
        (lambda f: claims(f, "layer/1/weight", (1 << 15, 1 << 15), chunks=True), "layer/1/weight: claims the shape"),
        (lambda f: claims(f, "layer/1/weight", (4, 4), chunks=(1 << 15, 1 << 15), maxshape=(None, None)), "claims"),
        (lambda f: claims(f, "layer/1/weight", (1 << 26,), compression="gzip", chunks=(1 << 24,)), "claims the shape"),
        (lambda f: f["layer/0/shape"].__setitem__(..., 2**31 - 1), "layer/0/shape: is .* of all layers are not read"),
        (lambda f: f["layer/1/shape"].__setitem__(..., 1 << 25), "layer/1/shape: is .* of all layers are not read"),
    ],
)
def test_declared_sizes_are_bounded(change: Callable[[h5py.File], None], message: str, path: Path) -> None:
    """A small file cannot ask for gigabytes: neither the process nor the child that reads grows."""
    with edited(path) as file:
        change(file)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(NetworkError, match=message):
        netx.read(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB
    refusal(path)


def test_what_compresses_well_is_read(path: Path) -> None:
    """Large, compressed and plain: 2 MiB of zeros and a few numbers."""
    weight = np.zeros((2, 1 << 19), np.int16)
    weight[:, :3] = [[2, 4, 6], [8, 10, 12]]
    with edited(path) as file:
        del file["layer/1/weight"]
        file.create_dataset("layer/1/weight", data=weight, compression="gzip", shuffle=True)
    assert path.stat().st_size < 1 << 16
    with pytest.warns(netx.NetxWarning, match="ignores the input shape"):
        np.testing.assert_array_equal(netx.read(path).layers[0].weight, weight)


def test_values_never_written_are_zeros(path: Path) -> None:
    """As HDF5 has it, where they are few."""
    with edited(path) as file:
        file.create_dataset("layer/1/bias", (2,), "int16")
    neuron = netx.read(path).layers[0].neuron
    assert neuron is not None
    np.testing.assert_array_equal(neuron.bias, [0, 0])  # type: ignore[arg-type]


def test_one_long_text_shared_by_many_is_read_once(path: Path) -> None:
    """HDF5 stores a text once, however many refer to it: a data set of several texts is not read."""
    with edited(path) as file:
        del file["layer/1/neuron/type"]
        file["layer/1/neuron/type"] = ["CUBA", "CUBA"]
    assert "layer/1/neuron/type: holds 2 texts, not one" in refusal(path)


def test_groups_within_themselves_end(path: Path) -> None:
    """A hard link from a group to one above it is no endless descent."""
    with edited(path) as file:
        file["layer/1/again"] = file["layer"]
    assert "groups in each other" in refusal(path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("neuron/gradedSpike", np.array([(1, 2.0)], [("a", "i4"), ("b", "f4")]), "neither numbers nor a text"),
        ("neuron/refDelay", "soon", "holds a text, not numbers"),
        ("neuron/vThMant", 1 + 2j, "holds complex128, neither numbers"),
        ("weight", "heavy", "holds a text"),
        ("shape", h5py.Empty("i4"), "has shape None"),
        ("neuron/type", "CUBA" * 500, "holds|cannot be represented"),
        ("type", b"\xff\xfe", "not a text in ASCII"),
    ],
)
def test_fields_of_other_types(field: str, value: object, message: str, path: Path) -> None:
    """One short line names the field."""
    with edited(path) as file:
        if field in file["layer/1"]:
            del file[f"layer/1/{field}"]
        file[f"layer/1/{field}"] = value
    with pytest.raises(NetworkError, match=f"layer/1/{field}: .*{message}"):
        netx.read(path)
    refusal(path)


def test_types_that_nothing_needs_are_passed_over(path: Path) -> None:
    """What lava-dl does not read may be of any type."""
    with edited(path) as file:
        file.create_dataset("note", data=[np.arange(3), np.arange(2)], dtype=h5py.vlen_dtype("i4"))
    assert netx.read(path).layers[0].name == "only"


# ------------------------------------------------------------------------------------------------ a bit that changed


def flipped(content: bytes, seed: int, count: int) -> list[tuple[int, bytes]]:
    """Copies with one bit changed, at places spread over the file."""
    rng, copies = random.Random(seed), []
    for _ in range(count):
        place = rng.randrange(8 * len(content))
        copy = bytearray(content)
        copy[place // 8] ^= 1 << place % 8
        copies.append((place, bytes(copy)))
    return copies


def test_a_flipped_bit_in_a_net_is_noticed(path: Path) -> None:
    """Every one of 300, wherever it is, and every one of the digest and of what says that there is one."""
    whole = path.read_bytes()
    for place, copy in flipped(whole, 0, 300):
        path.write_bytes(copy)
        with pytest.raises(NetworkError):
            assert netx.read(path) is None, f"bit {place} changed, and nothing was noticed"
    at = whole.index(DIGEST[:15].encode())
    for name, start, size in (("digest", at, 80), ("version", whole.index(b"format_version"), 60)):
        for place in range(8 * start, 8 * (start + size)):
            copy = bytearray(whole)
            copy[place // 8] ^= 1 << place % 8
            assert is_whole(bytes(copy)) is not True, (name, place)
    path.write_bytes(whole.replace(DIGEST[:15].encode(), b"mtt-lava md5 0 "))
    assert "it has no digest" in refusal(path)


def test_older_files_without_digest_are_read(path: Path) -> None:
    """Files of format version 1, and those of lava-dl; not ours without the digest that version 2 promises."""
    with h5py.File(path, "r+") as file:
        attributes = dict(file.attrs)
        old = path.with_name("old.net")
        with h5py.File(old, "w") as copy:
            file.copy("layer", copy)
            for name in ("format", "readout", "info"):
                copy.attrs[name] = attributes[name]
            copy.attrs["format_version"] = 1
    assert netx.read(old).layers[0].name == "only"
    with h5py.File(old, "r+") as file:
        file.attrs["format_version"] = 2
    assert "it has no digest" in refusal(old)
    with h5py.File(old, "r+") as file:
        file.attrs["format"] = [1, 2]  # not our text: a file of others
    assert netx.read(old).layers[0].name == "only"


def test_a_digest_is_found_whatever_else_the_file_holds(tmp_path: Path) -> None:
    """Names and information may hold texts like it."""
    like = sealed(DIGEST.encode()).decode()
    netx.write(replace(network(), info={"note": like, "other": DIGEST}), tmp_path / "a.net")
    assert netx.read(tmp_path / "a.net").info["note"] == like


def trained(folder: Path, classes: tuple[str, ...] = ("a", "b", "c")) -> Run:
    """A run folder; the network is not trained, which nothing here depends on."""
    model = {"name": "tiny", "input": [1, 4, 4], "layers": [{"type": "dense", "features": 3}]}
    settings = Settings.make(model, data="digits-dvs", time_steps=2)
    run = Run(settings, settings.build())
    run.classes = classes
    run.network.fold_norms(False)
    run.network.quantise((500.0,), settings.weight_bits, settings.weight_step, (None,))
    run.save(folder)
    return run


def test_a_flipped_bit_in_the_weights_is_noticed(tmp_path: Path) -> None:
    """Every one of 300; the whole file gives the weights."""
    run, path = trained(tmp_path / "run", ("a", "b", DIGEST)), tmp_path / "run/weights.safetensors"
    loaded = load_run(tmp_path / "run")
    assert loaded.classes == run.classes
    for name, value in run.network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], value), name
    for place, copy in flipped(path.read_bytes(), 1, 300):
        path.write_bytes(copy)
        with pytest.raises(RunError, match=r"weights\.safetensors: damaged") as caught:
            assert load_run(tmp_path / "run") is None, f"bit {place} changed, and nothing was noticed"
        assert "\n" not in str(caught.value)


def test_older_weights_without_digest_are_read(tmp_path: Path) -> None:
    """Files of before; not those whose version promises a digest."""
    trained(tmp_path / "run")
    path = tmp_path / "run/weights.safetensors"
    content = path.read_bytes()
    tensors, size = load(content), int.from_bytes(content[:8], "little")
    info = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["info"])
    del info["digest"]
    path.write_bytes(save(tensors, {"info": json.dumps(info)}))
    with pytest.raises(RunError, match="it has no digest"):
        load_run(tmp_path / "run")
    del info["format_version"]
    path.write_bytes(save(tensors, {"info": json.dumps(info)}))
    assert load_run(tmp_path / "run").classes == ("a", "b", "c")
    for wrong in ("[]", "{}", "3", json.dumps(info | {"classes": 3}), json.dumps(info | {"weight_scales": "x"})):
        path.write_bytes(save(tensors, {"info": wrong}))
        with pytest.raises(RunError, match=r"weights\.safetensors: damaged"):
            load_run(tmp_path / "run")


# ------------------------------------------------------------------------------------------------ full disks

FULL = """
import contextlib, io, resource, sys
from mtt_lava.cli import export_main, main
run, net, inputs, out, before = sys.argv[1:]
simulate = ["simulate", net, inputs, "--backend", "fast", "--output"]
with contextlib.redirect_stdout(io.StringIO()):
    with contextlib.redirect_stderr(io.StringIO()):
        main([*simulate, before])  # Numba keeps what it compiled on a disk, too
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))  # all that fits on this disk
    print(export_main([run, f"{out}/a.net"]), file=sys.stderr)
    print(main([*simulate, f"{out}/a.npz"]), file=sys.stderr)
"""


@pytest.mark.slow
def test_a_full_disk_costs_one_line(tmp_path: Path) -> None:
    """`mtt-export` and `mtt simulate` end with the file, the reason and status 2; nothing is left.

    They did with SIGSEGV and a traceback, so a process of their own runs them: the time is SLAYER's import.
    """
    trained(tmp_path / "run")
    out, net, inputs = tmp_path / "out", tmp_path / "a.net", tmp_path / "in.npy"
    out.mkdir()
    weight = 2 * np.arange(1, 241).reshape(80, 3) % 250
    netx.write(Network((Dense(in_shape=(3,), shape=(80,), weight=weight, neuron=Neuron(9)),)), net)
    np.save(inputs, np.random.default_rng(0).integers(0, 2, (30, 3, 40)))
    paths = tmp_path / "run", net, inputs, out, tmp_path / "before.npz"
    arguments = [sys.executable, "-W", "ignore", "-c", FULL, *map(str, paths)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip() and "sample/s" not in line]  # nor progress
    assert lines[1::2] == ["2", "2"], done.stderr
    assert lines[0].startswith("mtt-export: error: ")
    assert lines[0].endswith(f"File too large: '{out / 'a.net'}'")
    assert lines[2].endswith(f"File too large: '{out / 'a.npz'}'")
    assert list(out.iterdir()) == []


def test_a_write_that_fails_names_the_file(tmp_path: Path) -> None:
    """Whatever writes: text, arrays through NumPy, which says neither which file nor why."""
    run = trained(tmp_path / "run")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        for write in (
            lambda path: path.write_text("x" * 5000),
            lambda path: np.save(path, np.arange(5000)),
        ):
            with pytest.raises(OSError, match=r"'.*b\.npy'"), replacing(tmp_path / "b.npy") as temporary:
                write(temporary.with_suffix(".npy"))
        with pytest.raises(OSError, match=r"'.*b\.npz'"):
            save_arrays(tmp_path / "b.npz", {"a": np.random.default_rng(0).random(5000)})
        with pytest.raises(OSError, match=r"'.*c\.net'"):
            netx.write(network(), tmp_path / "c.net")
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
        with pytest.raises(OSError, match=r"'.*d\.safetensors'"):
            save_state(tmp_path / "d.safetensors", run.network, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == ["run"]
