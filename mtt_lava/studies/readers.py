"""What programs that import NIR compute exactly: our files, run by themselves, spike for spike."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from mtt_lava.run import RunError
from mtt_lava.studies import nir_runner
from netx_export import fast, nir
from netx_export.fast.on_torch import synapses
from netx_export.network import Add, Conv, Dense, Flatten, Layer, Network, NetworkError, Neuron, Pool
from netx_export.text import table

VARIABLE = "MTT_LAVA_NIR_PYTHONS"
"""Names the Pythons that have the programs, as ``norse=/a/bin/python,sinabs=/b/bin/python``."""
NAMES = tuple(name for name in nir.READERS if name != "nir")
RESETS = {"zero": "reset to zero (Loihi)", "subtract": "reset by subtraction (Speck)"}
INEXACT = "refused; with --allow-inexact "
KINDS = (
    *("chain", "bias", "threshold a neuron", "kernel that is not square", "feeds itself"),
    *("sum of spikes", "sum of currents", "sum of flat ways", "forgets at once", "never decays", "leaks"),
)
"""Of networks: see `small`."""


@dataclass(frozen=True)
class Case:
    """A network, its input (N, ..., T), and what its layers with neurons fire, by name."""

    network: Network
    inputs: np.ndarray
    spikes: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Readers:
    """What `readers` found.

    Attributes
    ----------
    versions : dict of str to str
        Of the programs that ran.
    found : dict of (str, str) to dict of str to str
        For reader and reset what became of each kind of network: ``exact``, ``refused``, both with more behind it; how
        many spikes differ; or ``not run``, where no Python of the reader was named.
    """

    versions: dict[str, str]
    found: dict[tuple[str, str], dict[str, str]]

    def __repr__(self) -> str:
        return f"<Readers: {', '.join(f'{name} {number}' for name, number in self.versions.items()) or 'none run'}>"

    def rows(self) -> list[dict[str, str]]:
        """One a reader, reset and kind of network, for a table."""
        return [
            {"reader": reader, "version": self.versions.get(reader, ""), "reset": reset, "kind": kind, "answer": answer}
            for (reader, reset), of in self.found.items()
            for kind, answer in of.items()
        ]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"versions": self.versions, "answers": self.rows()}

    def __str__(self) -> str:
        names = [f"{reader} {self.versions.get(reader, '')}".strip() for reader in NAMES]
        lines = [["", *names]]
        for reset, text in RESETS.items():
            lines.append([text, *("" for _ in NAMES)])
            lines += [[f"  {kind}", *(_cell(self.found[reader, reset][kind]) for reader in NAMES)] for kind in KINDS]
        return "\n".join(table(lines, left=1))


def _cell(answer: str) -> str:
    return "--allow-inexact" if answer.startswith(INEXACT) else answer.partition(" (")[0]


def readers(pythons: Mapping[str, str] | None = None) -> Readers:
    """Run a network of every kind, with both resets, in every program that imports NIR.

    Parameters
    ----------
    pythons : mapping of str to str, optional
        For a reader of `netx_export.nir.READERS` the Python that has it. Default: those of the environment variable
        `VARIABLE`.

    Returns
    -------
    Readers

    Raises
    ------
    RunError
        A Python is not there, or lacks the reader.
    """
    pythons = named() if pythons is None else pythons
    versions: dict[str, str] = {}
    found = {}
    with TemporaryDirectory() as folder:
        for reader in NAMES:
            cases = [case for reset in RESETS for case in kinds(reset)]
            answers, version = compare(reader, cases, Path(folder), pythons.get(reader))
            if version:
                versions[reader] = version
            for number, reset in enumerate(RESETS):
                part = answers[number * len(KINDS) : (number + 1) * len(KINDS)]
                found[reader, reset] = dict(zip(KINDS, part, strict=True))
    return Readers(versions, found)


def named(text: str | None = None) -> dict[str, str]:
    """The Pythons of a text as that of `VARIABLE`, or of it.

    Raises
    ------
    RunError
        It is something else.
    """
    text = os.environ.get(VARIABLE, "") if text is None else text
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    for name, equals, python in pairs:
        if name not in NAMES or not equals or not python:
            raise RunError(f"{name}{equals}{python}: give READER=PYTHON,..., with readers of {', '.join(NAMES)}")
    return {name: python for name, _, python in pairs}


def compare(reader: str, cases: Sequence[Case], folder: Path, python: str | None) -> tuple[list[str], str]:
    """For each case ``exact``, how many spikes differ, or why it was refused; here, or there; and the version there."""
    answers: dict[int, str] = {}
    job: dict[str, np.ndarray] = {}
    files: dict[int, str] = {}
    leaky = set()
    for i, case in enumerate(cases):
        try:
            notes = nir.write(case.network, folder / f"{i}.nir", reader, allow_inexact=True)
            leaky |= {i} if "floating point there" in "".join(notes) else set()
        except NetworkError as error:
            answers[i] = f"refused ({error})"
            continue
        job[f"input{len(files)}"] = case.inputs
        files[i] = str(folder / f"{i}.nir")
    version = ""
    if files and python is not None:
        np.savez(folder / "job.npz", files=np.array(list(files.values())), **job)
        with np.load(_ran(python, reader, folder)) as out:
            version = str(out["version"])
            for place, i in enumerate(files):
                found = {name.partition("/")[2]: out[name] for name in out.files if name.startswith(f"{place}/")}
                answers[i] = _compared(cases[i], found)
    return [(INEXACT if i in leaky else "") + answers.get(i, "not run") for i in range(len(cases))], version


def _ran(python: str, reader: str, folder: Path) -> Path:
    """The answer to a job, of the Python that has the reader."""
    program = shutil.which(python)
    if program is None:
        raise RunError(f"{reader}={python}: no such program: name the Python of an environment with {reader}")
    out = folder / "out.npz"
    command = [program, "-I", nir_runner.__file__, reader, str(folder / "job.npz"), str(out)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise RunError(f"{reader}={python} did not run: {last}")
    return out


def _compared(case: Case, found: Mapping[str, np.ndarray]) -> str:
    if "error" in found:
        return f"fails there: {found['error']}"
    total = sum(int(spikes.sum()) for spikes in case.spikes.values())
    wrong = 0
    for name, spikes in case.spikes.items():
        answer = found["".join(c if c.isalnum() or c == "_" else "_" for c in name) + "_neuron"]
        if answer.shape != spikes.shape:
            return f"{name} has the shape {answer.shape}, not {spikes.shape}"
        wrong += int((answer != spikes).sum())
    return f"{wrong} of {total} spikes differ" if wrong else f"exact ({total} spikes)"


# ------------------------------------------------------------------------------------------------ networks


def kinds(reset: str) -> list[Case]:
    """A network of every kind, and 20 samples of 10 time steps."""
    inputs = (np.random.default_rng(0).random((20, 2, 6, 6, 10)) < 0.3).astype(np.int64)
    networks = [replace(small(kind), reset=reset) for kind in KINDS]
    return [Case(network, inputs, fired(network, inputs)) for network in networks]


def fired(network: Network, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """What the layers with neurons fire; by subtraction as they are trained, floor(v / threshold) times a step."""
    if network.reset == "zero":
        result = fast.backend.simulate(network, inputs, record=["spikes"], progress=False)
        return {layer.name: result.record[f"spikes.{layer.name}"] for layer in network.spiking}
    found = {}

    def step(layer: Layer, signals: list[torch.Tensor]) -> torch.Tensor:
        if isinstance(layer, Flatten):
            return signals[0].flatten(2)
        sums = synapses(layer, signals, torch.float64)
        if not isinstance(layer.neuron, Neuron):
            return sums
        threshold, bias = (
            torch.from_numpy(np.array(nir.graph.each(layer, 0 if value is None else value)))
            for value in (layer.neuron.threshold, layer.neuron.bias)
        )
        v, spikes = torch.zeros_like(sums[:, 0]), torch.zeros_like(sums)
        for t in range(sums.shape[1]):
            v += sums[:, t] + bias
            spikes[:, t] = v.div(threshold, rounding_mode="floor").clamp(min=0)
            v = torch.maximum(v - spikes[:, t] * threshold, -threshold)
        found[layer.name] = np.moveaxis(spikes.numpy(), 1, -1)
        return spikes

    network.walk(torch.from_numpy(np.moveaxis(inputs, -1, 1)), step)
    return found


def small(kind: str) -> Network:
    """A small network by name: ``chain``, ``residual`` or ``everything``, and those of the table of readers."""
    random = np.random.default_rng(0)

    def weight(*shape: int) -> np.ndarray:
        return 2 * random.integers(-6, 9, size=shape)

    channels = np.array([3, 0, -2, 1]) if kind == "everything" else None
    maps, halved = (4, 6, 6), (4, 3, 3)
    common: dict[str, Any] = {"in_shape": halved, "shape": halved, "padding": (1, 1)}
    layers: list[Layer] = [
        Conv(
            in_shape=(2, 6, 6),
            shape=maps,
            weight=weight(4, 2, 3, 3),
            padding=(1, 1),
            neuron=Neuron(20, bias=channels),
            name="c1",
        ),
        Pool(in_shape=maps, shape=halved, name="pool"),
        Conv(
            **common,
            weight=weight(4, 2, 3, 3),
            groups=2,
            neuron=Neuron(15, 4096, 4096) if kind == "everything" else Neuron(15),
            name="g.1",
        ),
    ]
    if kind == "everything":
        short = {"weight": weight(4, 4, 1, 1), "padding": (0, 0), "inputs": ("pool",), "name": "short"}
        layers.append(Conv(**common | short))
        layers.append(Add(in_shape=halved, shape=halved, inputs=("g.1", "short"), name="sum"))
    if kind in ("residual", "sum of currents"):
        one = {"weight": weight(4, 4, 1, 1), "padding": (0, 0)}
        layers.append(Conv(**common, weight=weight(4, 4, 3, 3), name="a", inputs=("g.1",)))
        layers.append(Conv(**common | one, name="b", inputs=("g.1",)))
        layers.append(Add(in_shape=halved, shape=halved, inputs=("a", "b"), neuron=Neuron(20), name="add"))
    if kind == "sum of spikes":
        layers.append(Conv(**common, weight=weight(4, 4, 3, 3), neuron=Neuron(15), name="a", inputs=("g.1",)))
        layers.append(Add(in_shape=halved, shape=halved, inputs=("a", "g.1"), name="add"))
    if kind == "sum of flat ways":
        for way in "ab":
            layers.append(Conv(**common, weight=weight(4, 4, 3, 3), neuron=Neuron(15), name=f"{way}1", inputs=("g.1",)))
            layers.append(Flatten(in_shape=halved, shape=(36,), name=f"{way}2", inputs=(f"{way}1",)))
            end: dict[str, Any] = {"weight": weight(5, 36), "neuron": Neuron(20), "name": way, "inputs": (f"{way}2",)}
            layers.append(Dense(in_shape=(36,), shape=(5,), **end))
        layers.append(Add(in_shape=(5,), shape=(5,), inputs=("a", "b"), name="add"))
        layers.append(Dense(in_shape=(5,), shape=(5,), weight=weight(5, 5), neuron=Neuron(20), name="d"))
        return Network(tuple(layers), source=kind)
    if kind == "kernel that is not square":
        layers.append(Conv(in_shape=halved, shape=(4, 3, 1), weight=weight(4, 4, 1, 3), neuron=Neuron(15), name="r"))
    layers.append(Flatten(in_shape=layers[-1].shape, shape=(int(np.prod(layers[-1].shape)),), name="f"))
    decays = {"forgets at once": (4096, 4096), "never decays": (0, 0), "leaks": (1500, 700)}.get(kind, (4096, 0))
    each = kind in ("everything", "threshold a neuron")
    bias = np.array([1, 2, 3, 4, 5]) if kind in ("everything", "bias") else None
    neuron = Neuron(np.array([10, 20, 30, 40, 50]) if each else 20, *decays, bias)
    back = weight(5, 5) if kind in ("everything", "feeds itself") else None
    flat = layers[-1].shape
    layers.append(Dense(in_shape=flat, shape=(5,), weight=weight(5, *flat), neuron=neuron, recurrent=back, name="d"))
    return Network(tuple(layers), source=kind)
