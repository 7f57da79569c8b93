"""Damaged, foreign and hostile input for every reader: each answers, or refuses in one line under 300 characters.

``python tests/fuzz.py --cases 20000`` prints the counts; ``--reader npy --seed 123`` repeats one case. A case follows
from its reader's name and its seed alone. Cases run in child processes, which may hang, crash or fill the memory.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import re
import resource
import select
import signal
import struct
import subprocess
import sys
import tempfile
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

FAULTS = ("hang", "traceback", "memory", "crash", "message")
OUTCOMES = ("read", "refused", *FAULTS)
"""What a case can come to; "message": refused, but not in one line under 300 characters."""
HANG_SECONDS = 10.0
MEMORY = 1 << 30
"""Bytes by which a case may raise what its process holds."""
CHUNK = 250
"""Cases a child process runs at most."""
Files = dict[str, bytes]

# ------------------------------------------------------------------------------------------------ mutations

NUMBERS = (0, 1, -1, 2, 7, 127, 255, 4096, 65_535, 2**24, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 10**26)
ODD = (*NUMBERS, 0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"), True, None, "", "x" * 4000, "é\n\x1b[2J", "1")


def odd(rng: random.Random, depth: int = 0) -> Any:
    """A value of another kind, or an extreme one."""
    if depth < 2 and rng.random() < 0.3:
        if rng.random() < 0.5:
            return [odd(rng, depth + 1) for _ in range(rng.choice((0, 1, 2, 3, 100)))]
        return {rng.choice(("a", "type", "value", "", "é")): odd(rng, depth + 1) for _ in range(rng.randrange(3))}
    if depth == 0 and rng.random() < 0.03:
        deep: Any = []
        for _ in range(rng.choice((25, 200, 900))):
            deep = [deep]
        return deep
    return rng.choice(ODD)


def mutated_bytes(rng: random.Random, data: bytes) -> bytes:
    """Bits, bytes and numbers changed; parts lost, doubled, swapped, put in."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5, 20))):
        if not out:
            break
        # Headers are short, and matter more than what follows.
        at = rng.randrange(min(len(out), rng.choice((16, 128, 1024, len(out)))))
        to = min(len(out), at + rng.choice((1, 2, 4, 8, 64, 1000)))
        kind = rng.randrange(8)
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at] = rng.choice((0, 255, 127, 128, 10, 34, 39, 40, rng.randrange(256)))
        elif kind == 2:
            del out[at:to]
        elif kind == 3:
            out[at:at] = out[at:to]
        elif kind == 4:
            other = rng.randrange(len(out))
            out[at:to], part = out[other : other + to - at], out[at:to]
            out[other : other + len(part)] = part
        elif kind == 5:
            out[at:at] = rng.randbytes(to - at)
        elif kind == 6:
            out[at : at + 8] = struct.pack(rng.choice("<>") + "Q", rng.choice(NUMBERS) % 2**64)[: rng.choice((2, 4, 8))]
        else:
            del out[at:]
    return bytes(out)


def mutated_text(rng: random.Random, data: bytes) -> bytes:
    """Numbers and words of a text replaced by odd ones; lines lost, doubled, moved; text that nests."""
    text = data.decode(errors="surrogateescape")
    for _ in range(rng.choice((1, 1, 2, 4))):
        kind, lines = rng.randrange(5), text.splitlines(keepends=True) or [""]
        at = rng.randrange(len(lines))
        if kind == 0:  # a number that a check of types lets pass
            found = list(re.finditer(r"(?<![\w\"])-?\d[\d_]*(?![\w\"])", text))
            if found:
                match = rng.choice(found)
                text = f"{text[: match.start()]}{rng.choice(NUMBERS)}{text[match.end() :]}"
        elif kind == 1:
            found = list(re.finditer(r"-?\d[\d_.]*|\"[^\"\n]*\"|true|false|[\[({][^\[\](){}\n]*[\])}]", text))
            if found:
                match, value = rng.choice(found), odd(rng)
                try:
                    new = json.dumps(value) if rng.random() < 0.8 else str(value)
                except RecursionError:
                    new = "[" * 900
                text = text[: match.start()] + new + text[match.end() :]
        elif kind == 2:
            del lines[at]
            text = "".join(lines)
        elif kind == 3:
            lines.insert(rng.randrange(len(lines)), lines[at])
            text = "".join(lines)
        else:
            piece = rng.choice(
                ("[" * 2000, "{" * 2000, "a." * 3000, "'", '"""', "\0", "=", "0x" + "f" * 5000, "\n[a]\n")
            )
            place = rng.randrange(len(text) + 1)
            text = text[:place] + piece + text[place:]
    return text.encode(errors="surrogateescape")


def mutated_header(rng: random.Random, data: bytes) -> bytes:
    """A .npy file whose header says something else."""
    start, end = 10, 10 + struct.unpack("<H", data[8:10])[0]
    header = data[start:end].rstrip().decode()
    found = list(re.finditer(r"-?\d+|'[^']*'|True|False|\([^()]*\)", header))
    for match in rng.sample(found, min(len(found), rng.choice((1, 1, 2)))):
        value = rng.choice((*ODD, (), (1, 2), "|O", "<U0", "V0", "<f8", "<M8[us]", "<c16", "(3,)<i8", 2**40))
        header = header.replace(match.group(), repr(value) if rng.random() < 0.9 else "(" * 300, 1)
    return data[:8] + struct.pack("<H", len(header) % 2**16) + header.encode(errors="replace") + data[end:]


def mutated_safetensors(rng: random.Random, data: bytes) -> bytes:
    """A safetensors file whose header says something else, or whose values are odd."""
    end = 8 + struct.unpack("<Q", data[:8])[0]
    if rng.random() < 0.3:
        body = bytearray(data)
        at = rng.randrange(end, len(body) - 4)
        body[at : at + 4] = struct.pack("<I", rng.choice((0x7FC00000, 0x7F800000, 0xFF7FFFFF, 0, 1)))
        return bytes(body)
    header = json.loads(data[8:end])
    if rng.random() < 0.4:
        info = json.loads(header["__metadata__"]["info"])
        change(rng, info)
        header["__metadata__"]["info"] = json.dumps(info)
    else:
        change(rng, header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if rng.random() < 0.9 else rng.choice(NUMBERS) % 2**64) + text + data[end:]


def change(rng: random.Random, content: Any) -> None:
    """Change, take away or add something, anywhere in tables and lists."""
    while True:
        keys = list(content) if isinstance(content, dict) else list(range(len(content)))
        if not keys:
            return
        key = rng.choice(keys)
        if isinstance(content[key], dict | list) and content[key] and rng.random() < 0.7:
            content = content[key]
            continue
        kind = rng.randrange(4)
        if kind == 0:
            del content[key]
        elif kind == 1 and isinstance(content, dict):
            content[rng.choice(("other", "", f"{key}.x"))] = content.pop(key)
        else:
            content[key] = content[rng.choice(keys)] if kind == 2 else odd(rng)
        return


def mutated_zip(rng: random.Random, data: bytes) -> bytes:
    """A zip file with members of other names, contents and ways of packing, or with false sizes."""
    if rng.random() < 0.3:  # numbers in the records of members, which tell sizes, methods and places
        out = bytearray(data)
        places = [match.start() for match in re.finditer(b"PK\1\2|PK\3\4|PK\5\6", data)]
        at = rng.choice(places) + rng.choice((6, 8, 10, 14, 18, 20, 22, 24, 26, 28, 30, 42))
        value = struct.pack("<Q", rng.choice(NUMBERS) % 2**64)[: rng.choice((2, 4))]
        out[at : at + len(value)] = value
        return bytes(out)
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(packed, "w") as new, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in old.namelist():
            content = old.read(name)
            if rng.random() < 0.4:
                content = (mutated_header if name.endswith(".npy") and rng.random() < 0.7 else mutated_bytes)(
                    rng, content
                )
            if rng.random() < 0.15:
                stray = f"../{name}", f"/{name}", name.upper(), "a" * 300, name.replace("0", "é"), name + "/"
                name = rng.choice(stray)
            if rng.random() < 0.05:
                content = bytes(1 << 24)
            methods = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2
            new.writestr(name, content, rng.choice(methods))
    return packed.getvalue()


def mutated_hdf5(rng: random.Random, data: bytes) -> bytes:
    """An HDF5 file in which some data sets and attributes are other ones."""
    import h5py

    file_like = io.BytesIO(data)
    with h5py.File(file_like, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        for name in rng.sample(names, min(len(names), rng.choice((1, 1, 2, 4)))):
            if name not in file:
                continue
            item, kind = file[name], rng.randrange(5)
            if kind == 0:
                del file[name]
            elif kind == 1:
                file[f"{name}x"] = item
                del file[name]
            elif kind == 2 and item.attrs:
                item.attrs[rng.choice(list(item.attrs))] = as_hdf5(rng)
            elif isinstance(item, h5py.Dataset):
                value: Any = as_hdf5(rng)
                if kind == 3 and item.size:
                    value = np.resize(item[()], rng.choice(((0,), (1,), (3, 5), (2, 2, 2, 2, 2, 2), item.shape[:-1])))
                del file[name]
                file[name] = value
    return file_like.getvalue()


def as_hdf5(rng: random.Random) -> Any:
    """Something that h5py can write."""
    import h5py

    pair = np.zeros(2, [("a", "i4"), ("b", "f8")])
    more = (
        h5py.Empty("f4"),
        pair,
        np.zeros((3, 0)),
        np.full(5, np.nan),
        np.array([b"a", b"\xff"]),
        np.zeros(4, complex),
    )
    value = rng.choice((*ODD, *more))
    return 2.0**80 if isinstance(value, int) and value >= 2**63 else (value or 0) if value is None else value


STRUCTURED: dict[str, Callable[[random.Random, bytes], bytes]] = {
    ".npy": mutated_header,
    ".npz": mutated_zip,
    ".zip": mutated_zip,
    ".toml": mutated_text,
    ".json": mutated_text,
    ".jsonl": mutated_text,
    ".csv": mutated_text,
    ".safetensors": mutated_safetensors,
    ".net": mutated_hdf5,
    ".h5": mutated_hdf5,
}


def mutated(rng: random.Random, name: str, data: bytes) -> bytes:
    """Half of the mutations know the format, half do not."""
    structured = STRUCTURED.get(Path(name).suffix)
    if structured is not None and rng.random() < 0.5:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = structured(rng, data)
        if rng.random() < 0.8:
            return data
    return mutated_bytes(rng, data)


# ------------------------------------------------------------------------------------------------ readers


def saved(save: Callable[..., Any], *args: Any, **more: Any) -> bytes:
    """What a function of NumPy writes."""
    buffer = io.BytesIO()
    save(buffer, *args, **more)
    return buffer.getvalue()


EVENTS = np.zeros(40, [("x", "i2"), ("y", "i2"), ("t", "i8"), ("p", "?")])
EVENTS["x"], EVENTS["y"], EVENTS["t"] = np.arange(40) % 8, np.arange(40) % 7, 1000 * np.arange(40)


@cache
def network() -> Any:
    """A small network."""
    from netx_export.network import Conv, Dense, Flatten, Network, Neuron

    rng = np.random.default_rng(0)
    neuron = Neuron(60)
    conv = Conv(in_shape=(2, 8, 8), shape=(3, 6, 6), weight=2 * rng.integers(-20, 21, (3, 2, 3, 3)), neuron=neuron)
    flat = Flatten(in_shape=(3, 6, 6), shape=(108,))
    dense = Dense(in_shape=(108,), shape=(4,), weight=2 * rng.integers(-20, 21, (4, 108)), neuron=Neuron(200))
    return Network((conv, flat, dense), readout="count")


@cache
def graph() -> Any:
    """A small network with a shortcut, a pool, and recurrent synapses with delays."""
    from dataclasses import replace

    from netx_export.network import Add, Dense, Flatten, Network, Neuron, Pool

    first, *_ = network()
    pool = Pool(name="pool", in_shape=(3, 6, 6), shape=(3, 3, 3))
    flat = Flatten(in_shape=(3, 3, 3), shape=(27,))
    add = Add(name="add", inputs=("conv1", "again"), in_shape=(3, 6, 6), shape=(3, 6, 6), neuron=Neuron(2))
    again = replace(first, name="again", inputs=("input",), neuron=None)
    synapses = {"weight": np.full((27, 27), 2), "recurrent": np.full((27, 27), 4)}
    delays = {"delay": np.full((27, 27), 3), "recurrent_delay": np.full((27, 27), 5)}
    last = Dense(in_shape=(27,), shape=(27,), neuron=Neuron(9, bias=np.arange(27)), **synapses, **delays)
    return Network((first, again, add, pool, flat, last))


@cache
def sigma_delta() -> Any:
    """A small network whose neurons send values."""
    from dataclasses import replace

    from netx_export.network import Network, Sigma, SigmaDelta

    conv, flat, dense = network()
    neuron = SigmaDelta(3, np.array([1, -2, 3]))
    return Network((replace(conv, neuron=neuron), flat, replace(dense, neuron=Sigma())), readout="voltage")


def npy_files() -> list[Files]:
    shape = (2, 2, 8, 8, 3)
    types = np.int8, np.uint64, np.float32
    return [{"in.npy": saved(np.save, np.arange(768).reshape(shape).astype(dtype) % 2)} for dtype in types]


def read_npy(folder: Path) -> None:
    from netx_export.fast.backend import simulate
    from netx_export.simulation import check_inputs, load_inputs

    inputs = load_inputs(folder / "in.npy")
    check_inputs(network(), inputs, "in.npy")
    if inputs.size < 1 << 16:
        simulate(network(), inputs, progress=False)


def events_files() -> list[Files]:
    columns = {"sample": np.repeat(np.arange(4), 10), "t": EVENTS["t"] % 10_000, "c": EVENTS["p"].astype(int)}
    columns |= {"y": EVENTS["y"], "x": EVENTS["x"]}
    saves = np.savez, np.savez_compressed
    return [{"in.npz": saved(save, samples=samples, **columns)} for save in saves for samples in (4, 6, 10_000_000)]


def read_events(folder: Path) -> None:
    from netx_export.event.backend import load_events, simulate

    simulate(network(), load_events(folder / "in.npz"), record=("spikes", "events"), progress=False)


def sessions() -> list[Any]:
    from netx_export.event import Session

    return [Session(network(), record=("events",)), Session(network(), window=2000), Session(network(), fade=2000.0)]


def state_files() -> list[Files]:
    columns = {"t": np.sort(EVENTS["t"] % 10_000), "c": EVENTS["p"].astype(int), "y": EVENTS["y"], "x": EVENTS["x"]}
    found = []
    for session in sessions():
        session.push(columns)
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            session.save(Path(folder) / "in.npz")
            found.append({"in.npz": (Path(folder) / "in.npz").read_bytes()})
    return found


def read_state(folder: Path) -> None:
    from netx_export import NetworkError

    for session in sessions():
        try:
            session.restore(folder / "in.npz")
        except NetworkError as error:
            if "other options" in str(error):
                continue
            raise
        moment = max(session.t, 0)
        session.push({"t": moment + np.arange(5), "c": np.arange(5) % 2, "y": np.arange(5), "x": np.arange(5)})
        session.answer()
        return


def net_files() -> list[Files]:
    import h5py

    from netx_export import netx

    found = []
    for each in (network(), graph(), sigma_delta()):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "in.net"
            netx.write(each, path)
            found.append({"in.net": path.read_bytes()})
            if each is sigma_delta():  # and as others write it, with input neurons
                with h5py.File(path, "r+") as file:
                    del file.attrs["format"]
                    file["layer/0/neuron/type"], file["layer/0/neuron/vThMant"] = b"SDNN", 0
                found.append({"in.net": path.read_bytes()})
    shared = Path(__file__).parents[2] / "shared" / "cases"
    return found + [{"in.net": path.read_bytes()} for path in sorted(shared.glob("slay_*.net"))]


def read_net(folder: Path) -> None:
    import netx_export

    netx_export.read(folder / "in.net", None)


def model_files() -> list[Files]:
    folder = Path(__file__).parents[1] / "mtt_lava" / "models"
    texts = [path.read_bytes() for path in sorted(folder.glob("*.toml"))]
    text = 'name = "all"\ninput = [2, 6, 6]\n'
    for layer in LAYERS:
        fields = {key: [*value] if isinstance(value, tuple) else value for key, value in layer.items()}
        text += "[[layers]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in fields.items())
    return [{"in.toml": each} for each in (*texts, text.encode())]


LAYERS: tuple[dict[str, Any], ...] = (
    {"type": "convT", "name": "first", "channels": 2, "kernel": 3},
    {"type": "conv", "name": "way", "channels": 2, "kernel": 1, "neuron": False, "block": "one"},
    {"type": "add", "name": "sum", "inputs": ("way", "first"), "block": "one"},
    {"type": "pool", "kernel": 4},
    {"type": "dense", "features": 4, "recurrent": True},
    {"type": "dense", "features": 6},
    {"type": "average", "features": 3},
)
"""One of every kind."""


def read_model(folder: Path) -> None:
    from mtt_lava.model import describe, load_model

    describe(load_model(folder / "in.toml"))


def profile_files() -> list[Files]:
    import hw_profiles
    from hw_profiles.profile import FOLDER

    return [{"in.toml": (FOLDER / f"{name}.toml").read_bytes()} for name in hw_profiles.names()]


def read_profile(folder: Path) -> None:
    import hw_profiles

    profile = hw_profiles.load(folder / "in.toml")
    hw_profiles.describe(profile)
    str(hw_profiles.check(network(), profile))


@cache
def run_files() -> list[Files]:
    from mtt_lava.run import Run, Settings

    chain = ({"type": "conv", "channels": 2, "kernel": 3}, {"type": "dense", "features": 3})
    found = []
    for layers, norm, more in ((chain, "centred", {}), (chain, "batch", {"biases": "kept"}), (LAYERS, "centred", {})):
        model = {"name": "tiny", "input": [2, 6, 6], "layers": layers}
        settings = Settings.make(model, data="digits-dvs", norm=norm, **more)
        net = settings.build()
        net.fold_norms("biases" in more)
        net.quantise([60.0] * len(net.weighted), 8)
        run = Run(settings, net)
        run.measured, run.classes = {"conv1": (5, 9)}, ("a", "b", "c")
        with tempfile.TemporaryDirectory() as folder:
            run.save(folder)
            files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        found.append(files | {"metrics.jsonl": b'{"epoch": 1, "loss": 0.5}\n' * 3})
    return found


def read_run(folder: Path) -> None:
    from mtt_lava.deploy import to_network
    from mtt_lava.run import load_run

    run = load_run(folder)
    len(run.metrics)
    to_network(run)


def nmnist_files() -> list[Files]:
    one = np.stack([EVENTS["x"], EVENTS["y"], 128 * EVENTS["p"], EVENTS["t"] >> 8 & 255, EVENTS["t"] & 255], 1)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for digit in range(3):
            archive.writestr(f"Train/{digit}/0000{digit}.bin", one.astype(np.uint8).tobytes())
    return [{"NMNIST/train.zip": packed.getvalue()}]


def read_nmnist(folder: Path) -> None:
    from mtt_lava.data import frames, open_dataset

    frames(open_dataset("nmnist", split="train", root=folder, cache=folder / "cache"), 2)


def own_files() -> list[Files]:
    import h5py

    columns = {name: EVENTS[name] for name in EVENTS.dtype.names}
    rows = np.stack([values.astype(np.int64) for values in columns.values()], 1)
    text = b"x,y,t,p\n" + b"".join(b"%d,%d,%d,%d\n" % tuple(row) for row in rows)
    table = io.BytesIO()
    with h5py.File(table, "w") as file:
        file["events"] = EVENTS
    archive = io.BytesIO(nmnist_files()[0]["NMNIST/train.zip"])
    kinds = {
        "npy": saved(np.save, EVENTS),
        "npz": saved(np.savez_compressed, **columns),
        "csv": text,
        "h5": table.getvalue(),
        "bin": zipfile.ZipFile(archive).read("Train/0/00000.bin"),
    }
    return [{f"{label}/{i}.{kind}": data for label in "ab" for i in (1, 2)} for kind, data in kinds.items()]


def description_files() -> list[Files]:
    text = b'name = "mine"\nsensor_size = [8, 7, 2]\nduration = 40_000\nstart = "first-event"\nunit = "us"\n'
    text += b"unwrap = false\n"
    text += b'classes = ["a", "b"]\ntest_share = 0.5\nseed = 1\n[train]\na = ["a/*.npy"]\nb = ["b/1.npy", "b/2.npy"]\n'
    recording = saved(np.save, EVENTS)
    return [{"data.toml": text, **{f"{label}/{i}.npy": recording for label in "ab" for i in (1, 2)}}]


def read_own(folder: Path) -> None:
    from mtt_lava.data import frames, open_dataset

    frames(open_dataset(str(folder), split="train", cache=folder / ".cache"), 2)


def cifar_files() -> list[Files]:
    images = np.arange(2 * 32 * 32 * 3).reshape(2, 32, 32, 3).astype(np.uint8)
    return [{"train.npz": saved(save, x=images, y=[0, 9])} for save in (np.savez, np.savez_compressed)]


def read_cifar(folder: Path) -> None:
    from mtt_lava.data import open_dataset

    open_dataset("cifar10-camera", split="train", root=folder, cache=folder / ".cache")


def odd_array(rng: random.Random, array: np.ndarray) -> Any:
    """An array of another type, shape, layout or content, or no array."""
    kind = rng.randrange(8)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if kind == 0:
                return odd(rng)
            if kind == 1:
                return array.astype(
                    rng.choice(("O", "f8", "f2", "c16", "U5", "S3", "M8[us]", "m8[ns]", "u8", "i1", "V8"))
                )
            if kind == 2:
                return np.resize(array, rng.choice(((), (0,), (1,), (3, 0), (40, 4), (2, 3, 4), (5, 5, 5, 5))))
            if kind == 3 and array.dtype.names:
                fields = [(name, rng.choice(("i8", "O", "f4", "U3", "(2,)i4", "m8[us]", "u8", "?"))) for name in "xytp"]
                return np.zeros(40, rng.sample(fields, rng.randrange(1, 5)))
            if kind == 4 and array.dtype.names:
                changed, field = array.copy(), rng.choice(array.dtype.names)
                changed[field][rng.randrange(len(changed))] = rng.choice((-1, 100, 2**15 - 1, 2**62))
                return changed
            if kind == 5:
                return array.tolist() if rng.random() < 0.5 else [array, array[:1]]
            if kind == 6:
                return np.ma.masked_all_like(array) if rng.random() < 0.5 else array[::-2]
            return np.array([odd(rng, 2) for _ in range(rng.randrange(5))], object)
        except (TypeError, ValueError, OverflowError):
            return None


def read_arrays(rng: random.Random) -> None:
    """`from_events`, `from_images` and inputs of a simulation, with one to three arguments that are odd."""
    from mtt_lava.data import frames, from_events, from_images
    from netx_export.event.backend import Events
    from netx_export.event.backend import simulate as without_clock
    from netx_export.simulation import check_inputs

    def chosen(arguments: dict[str, Any]) -> dict[str, Any]:
        for name in rng.sample(list(arguments), rng.choice((1, 1, 2, 3))):
            value = arguments[name]
            if isinstance(value, list) and rng.random() < 0.7:
                item = np.asarray(value[0])
                value[rng.randrange(len(value))] = odd_array(rng, item) if item.ndim else odd(rng)
            else:
                arguments[name] = odd_array(rng, value) if isinstance(value, np.ndarray) else odd(rng)
        return arguments

    which = rng.randrange(4)
    if which == 0:
        given = {"recordings": [EVENTS] * 3, "labels": [0, 1, 2], "sensor_size": (8, 7, 2), "duration": 40_000}
        frames(
            from_events(**chosen({**given, "classes": 3, "start": 0, "unit": "us", "unwrap": False, "name": "n"})), 2
        )
    elif which == 1:
        given = {
            "images": np.ones((3, 1, 4, 4), np.uint8),
            "labels": [0, 1, 2],
            "classes": ["a", "b", "c"],
            "name": "n",
        }
        frames(from_images(**chosen(given)), 2)
    elif which == 2:
        check_inputs(network(), odd_array(rng, np.ones((2, 2, 8, 8, 3), np.int64)))
    else:
        columns = {name: np.zeros(5, np.int64) for name in ("sample", "t", "c", "y", "x")}
        without_clock(network(), Events(**chosen({**columns, "samples": 1})), progress=False)


FILE_READERS: dict[str, tuple[Callable[[], list[Files]], Callable[[Path], None]]] = {
    "npy": (npy_files, read_npy),
    "events": (events_files, read_events),
    "state": (state_files, read_state),
    "net": (net_files, read_net),
    "model": (model_files, read_model),
    "profile": (profile_files, read_profile),
    "run": (run_files, read_run),
    "nmnist": (nmnist_files, read_nmnist),
    "own": (own_files, read_own),
    "description": (description_files, read_own),
    "cifar10": (cifar_files, read_cifar),
}
"""Name of a reader: what makes valid inputs, and what reads a folder with one."""
READERS = (*FILE_READERS, "arrays")


@cache
def valid(reader: str) -> list[Files]:
    """The inputs that are mutated."""
    return FILE_READERS[reader][0]()


def warm_up(reader: str) -> None:
    """Read a valid input: imports and compilation take seconds, and what is mutated had better be valid."""
    if reader == "arrays":
        for seed in range(8):
            with suppress(Exception):
                run_case(reader, seed)
    else:
        read_files(reader, valid(reader)[0])


def run_case(reader: str, seed: int) -> None:
    """Run one case."""
    if seed < 0:
        warm_up(reader)
        return
    rng = random.Random(f"{reader} {seed}")
    if reader == "arrays":
        read_arrays(rng)
        return
    files = dict(rng.choice(valid(reader)))
    descriptions = [name for name in files if reader == "description" and name.endswith(".toml")]
    changed = rng.choice(descriptions or list(files))
    files[changed] = mutated(rng, changed, files[changed])
    read_files(reader, files)


def read_files(reader: str, files: Files) -> None:
    """Write files into a folder of their own and have them read."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        for name, content in files.items():
            (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / name).write_bytes(content)
        FILE_READERS[reader][1](Path(folder))


# ------------------------------------------------------------------------------------------------ children


def outcome(reader: str, seed: int) -> tuple[str, str]:
    """Run one case in this process: what it came to, and the message."""
    with suppress(OSError):  # forget the peak of what ran before (Linux)
        Path("/proc/self/clear_refs").write_text("5")
    before = held()
    try:
        run_case(reader, seed)
        result = "read", ""
    except Exception as error:
        ours = type(error).__module__.partition(".")[0] in ("mtt_lava", "netx_export", "hw_profiles")
        text = str(error)
        if not ours and not isinstance(error, OSError):
            last = "".join(traceback.format_tb(error.__traceback__)[-2:])
            result = "traceback", f"{type(error).__name__}: {text[:200]}\n{last}"
        else:
            result = "refused" if 0 < len(text) < 300 and text.isprintable() else "message", text[:500]
    return ("memory", f"{held() - before:,} bytes more") if held() - before > MEMORY else result


def held() -> int:
    """The most memory that this process has held, in bytes."""
    try:
        return 1024 * int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text()).group(1))  # type: ignore[union-attr]
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: in bytes


def child(reader: str) -> None:
    """Run the cases whose seeds come in, one a line; answer each by a line of JSON."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    warnings.simplefilter("ignore")
    warm_up(reader)
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        answers.write(json.dumps(outcome(reader, int(line))) + "\n")
        answers.flush()


def run_cases(reader: str, seeds: range) -> Iterator[tuple[int, str, str]]:
    """Run cases in children; a new one after each that hung, crashed or took too much memory."""
    process: subprocess.Popen[str] | None = None
    try:
        for seed in seeds:
            if process is None:
                command = [sys.executable, __file__, "--child", reader]
                pipes: dict[str, Any] = {
                    "stdin": subprocess.PIPE,
                    "stdout": subprocess.PIPE,
                    "stderr": subprocess.DEVNULL,
                }
                # One thread: so that a child's time does not depend on what else runs.
                environment = {**os.environ, "OMP_NUM_THREADS": "1"}
                process = subprocess.Popen(command, text=True, env=environment, **pipes)
                assert process.stdout is not None
                if process.stdout.readline() != "ready\n":
                    raise RuntimeError(f"the child for {reader} does not start: {' '.join(command)}")
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{seed}\n")
            process.stdin.flush()
            there, _, _ = select.select([process.stdout], [], [], HANG_SECONDS)
            answer = process.stdout.readline() if there else ""
            if answer:
                result, text = json.loads(answer)
            elif there:
                code = process.wait()
                result, text = "crash", f"{signal.Signals(-code).name if code < 0 else f'exit code {code}'}"
            else:
                result, text = "hang", f"no answer within {HANG_SECONDS:g} s"
            yield seed, result, text
            if result in ("hang", "crash", "memory"):
                _end(process)
                process = None
    finally:
        if process is not None:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def fuzz(
    cases: int, readers: tuple[str, ...] = READERS, first: int = 0, jobs: int = 2, say: Callable[[str], None] = print
) -> dict[str, Counter[str]]:
    """Run so many cases, evenly over the readers; say every fault, and return the counts of each reader."""
    counts: dict[str, Counter[str]] = {reader: Counter() for reader in readers}
    each = [cases // len(readers) + (i < cases % len(readers)) for i in range(len(readers))]
    chunks = [
        (reader, range(start, min(start + CHUNK, first + number)))
        for reader, number in zip(readers, each, strict=True)
        for start in range(first, first + number, CHUNK)
    ]

    def run(chunk: tuple[str, range]) -> None:
        for seed, result, text in run_cases(*chunk):
            counts[chunk[0]][result] += 1
            if result in FAULTS:
                say(f"--reader {chunk[0]} --seed {seed}: {result}: {text}")

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(run, chunks))
    return counts


def main() -> int:
    """Run the command; exit code 1 where there was a fault."""
    parser = argparse.ArgumentParser(prog="python tests/fuzz.py", description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000, help="how many, over all readers")
    parser.add_argument("--reader", action="append", choices=READERS, help="only this one; may be repeated")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--seed", type=int, help="run this case alone, in this process; -1: the valid input")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="child processes at a time")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    parser.add_argument("--child", choices=READERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child)
        return 0
    readers = tuple(args.reader or READERS)
    if args.seed is not None:
        result, text = outcome(readers[0], args.seed)
        print(f"{result}: {text}")
        return int(result in FAULTS)
    counts = fuzz(args.cases, readers, args.first, args.jobs, lambda line: print(line, file=sys.stderr, flush=True))
    total = sum(counts.values(), Counter())
    if args.json:
        print(json.dumps({name: {kind: found[kind] for kind in OUTCOMES} for name, found in counts.items()}, indent=2))
    else:
        from netx_export.text import table

        rows = [["reader", "cases", *OUTCOMES]]
        for name, found in (*counts.items(), ("all", total)):
            rows.append([name, f"{sum(found.values()):,}", *(f"{found[kind]:,}" for kind in OUTCOMES)])
        print("\n".join(table(rows, left=1)))
    return int(any(total[kind] for kind in FAULTS))


if __name__ == "__main__":
    sys.exit(main())
