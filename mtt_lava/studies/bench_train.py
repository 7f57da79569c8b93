"""Time and memory of a training step, beside what no training can do without: the convolutions."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from mtt_lava.data import Dataset, from_events
from mtt_lava.model import Conv, Dense, Model, Pool, load_model
from mtt_lava.neuron import slayer
from mtt_lava.run import RunError, Settings
from mtt_lava.studies import peers
from mtt_lava.studies.parts import machine
from mtt_lava.studies.peer_steps import PEERS, Job, Neurons, measured, step_of
from mtt_lava.training import Trainer, memory_kept, phases
from mtt_lava.training.engine import Engine
from netx_export.text import table, unknown

PARTS = ("vgg", "small", "growth")
"""What `steps` measures: a VGG of six convolutions, the paper's network for N-MNIST, and that with T."""
GROWTH = (2, 4, 8, 16, 32, 64)
"""Numbers of time steps for the growth with T."""
T = 10
SMALLER = 10
"""So many times as often is the small network measured."""
LEAST, MOST = 3, 60.0
"""A way whose repeats would take longer than MOST seconds gets as many as fit in, but LEAST at least."""
BATCH = {"vgg": 8, "small": 25}
PROFILES = {"zero": "loihi2", "subtract": "speck2e"}
NORMS = ("centred", "batch", "scale")
PAIRS = {"draws": "antithetic", "configurations": 2, "sandwich": False}
"""The cheapest way to draw configurations that covers the range; see `mtt bench mixing` for what it keeps."""
BARE = ("bare convolutions", "bare convolutions, channels last")
_Way = Callable[[bool], tuple[float, "float | None"]]
"""Takes a step; its milliseconds and, if so asked, the megabytes of its peak (`peer_steps.measured`)."""
_Maker = Callable[[], _Way]


@dataclass(frozen=True)
class Step:
    """A training step of one network in one way.

    Attributes
    ----------
    part, name : str
    milliseconds : float
        Median of the repeats.
    ratio : float
        To the bare convolutions, in the memory layout in which they are quicker.
    peak_mb : float or None
        Most memory held beyond what was held before the step, by the process or, of PyTorch's, on the GPU; None where
        Linux does not say.
    repeats : int
    """

    part: str
    name: str
    milliseconds: float
    ratio: float
    peak_mb: float | None
    repeats: int


@dataclass(frozen=True)
class Steps:
    """What `steps` found.

    Attributes
    ----------
    steps : list of Step
    growth : dict of str to dict of int to float
        For every way, for every number of time steps, milliseconds.
    repeats : int
        Asked for on the VGG.
    load : float
        Load average at the start.
    device : str
    peers : dict of str to str
        Versions of the peers, of their PyTorch and Python; empty without peers.
    fewer : list of str
        What was repeated less often, being slow, and how often.
    """

    steps: list[Step]
    growth: dict[str, dict[int, float]]
    repeats: int
    load: float
    device: str
    peers: dict[str, str]
    fewer: list[str]

    def __repr__(self) -> str:
        return f"<Steps: {len(self.steps)} ways to train, {len(self.growth)} at several T>"

    def rows(self) -> list[dict[str, Any]]:
        """One a network and way, for a table."""
        return [asdict(step) for step in self.steps]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        growth = {name: {str(t): ms for t, ms in of.items()} for name, of in self.growth.items()}
        on = {"machine": machine(), "threads": torch.get_num_threads(), "load": self.load, "device": self.device}
        how = {"peers": self.peers, "repeats": self.repeats, "fewer": self.fewer}
        return on | how | {"steps": self.rows(), "growth": growth}

    def __str__(self) -> str:
        lines: list[str] = []
        for part in dict.fromkeys(step.part for step in self.steps):
            head = [_title(part), "ms a step", "x bare", "peak MB"]
            rows = [
                [s.name, f"{s.milliseconds:,.1f}", f"{s.ratio:.2f}", "" if s.peak_mb is None else f"{s.peak_mb:,.0f}"]
                for s in self.steps
                if s.part == part
            ]
            lines += [*table([head, *rows], left=1), ""]
        if self.growth:
            head = [f"{_title('growth')}; ms a step", *(f"T={t}" for t in GROWTH)]
            rows = [[name, *(f"{ms:.1f}" for ms in of.values())] for name, of in self.growth.items()]
            lines += [*table([head, *rows], left=1), ""]
        if self.peers:
            lines.append(f"peers: {', '.join(f'{name} {version}' for name, version in self.peers.items())}")
        counts = [f"{self.repeats} in turns (of {SMALLER * self.repeats} on the small network)", *self.fewer]
        lines.append(
            f"forward, backward and optimiser; random input and weights; medians of {', of '.join(counts)}; x bare: to "
            "the convolutions, pools and dense layer alone in the quicker layout; "
            f"on {self.device} of: {machine()}, {torch.get_num_threads()} threads; load average at the start "
            f"{self.load:.1f}"
        )
        return "\n".join(lines)


def _times(part: str, repeats: int) -> int:
    return repeats if part == "vgg" else SMALLER * repeats


def _title(part: str) -> str:
    return f"{_model(part).name}, batch {BATCH.get(part, BATCH['small'])}" + (f", T = {T}" if part != "growth" else "")


def _model(part: str) -> Model:
    if part != "vgg":
        return load_model("nmnist-3c1fc")
    layers: list[dict[str, Any]] = []
    for pair in ((32, 64), (128, 128), (256, 256)):
        layers += [{"type": "conv", "channels": channels, "kernel": 3, "padding": 1} for channels in pair]
        layers.append({"type": "pool", "kernel": 2})
    return load_model({"name": "vgg6", "input": [2, 32, 32], "layers": [*layers, {"type": "dense", "features": 10}]})


def _recordings(model: Model, count: int) -> Dataset:
    """Events everywhere, at all times: some 10 % of the pixels of a frame have one."""
    rng = np.random.default_rng(0)
    channels, height, width = model.input
    size = channels * height * width * T // 10
    events = np.zeros((count, size), [(name, np.int64) for name in "xytp"])
    for name, high in (("x", width), ("y", height), ("t", 100_000), ("p", channels)):
        events[name] = rng.integers(0, high, (count, size))
    labels = rng.integers(0, 10, count)
    return from_events(
        list(events), labels, sensor_size=(width, height, channels), duration=100_000, classes=10, name="random"
    )


class _Spike(torch.autograd.Function):
    """The paper's neuron written down as it stands: a step, and a triangle in its stead."""

    @staticmethod
    def forward(ctx: Any, distance: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(distance)
        return (distance > 0).float()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        (distance,) = ctx.saved_tensors
        return gradients[0] * (1 - distance.abs()).clamp(min=0)


class _Loop(torch.nn.Module):
    """Leaky integrate-and-fire neurons over (T * N, ...), a time step after the other."""

    def forward(self, current: torch.Tensor) -> torch.Tensor:
        current = current.unflatten(0, (T, -1))
        v, spikes = torch.zeros_like(current[0]), []
        for now in current:
            v = 0.5 * v + now
            spikes.append(_Spike.apply(v - 1))
            v = v * (1 - spikes[-1].detach())
        return torch.stack(spikes).flatten(0, 1)


def _job(part: str, device: str) -> Job:
    """The network as it is made everywhere but in our own steps and SLAYER's."""
    model, layers = _model(part), []
    for part_ in model.parts():
        layer: Any = part_.layer
        if isinstance(layer, Conv):
            layers.append(["conv", part_.before[0], layer.channels, layer.kernel, layer.stride, layer.padding])
        elif isinstance(layer, Pool):
            layers.append(["pool", layer.kernel, layer.stride])
        else:
            layers.append(["dense", int(np.prod(part_.before)), layer.features])
    return Job(layers, list(model.input), T, BATCH[part], torch.get_num_threads(), device)


def _plain(job: Job, neurons: Neurons | None) -> _Way:
    """A step of PyTorch's own layers over all samples and time steps as images."""
    return partial(measured, step_of(job, neurons), job.device)


def _slayer(part: str, device: str, time_steps: int = T) -> _Way:
    """A step of SLAYER's own blocks as they come: 8-bit weights, no norm, neurons behind pools and outputs too.

    Its pools round sizes up, where others round down: on the small network it has somewhat more to do.
    """
    model, cuba = _model(part), slayer.block.cuba
    neuron = {"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 0.5}
    blocks = torch.nn.Sequential()
    for each in model.parts():
        layer: Any = each.layer
        if isinstance(layer, Conv):
            geometry = (layer.kernel, layer.stride, layer.padding)
            blocks.append(cuba.Conv(neuron, each.before[0], layer.channels, *geometry, delay_shift=False))
        elif isinstance(layer, Pool):
            blocks.append(cuba.Pool(neuron, layer.kernel, layer.stride, delay_shift=False))
        elif isinstance(layer, Dense):
            blocks.append(cuba.Flatten())
            features = blocks(torch.zeros(1, *model.input, 1)).shape[1]
            blocks.append(cuba.Dense(neuron, features, layer.features, delay_shift=False))
    blocks.to(device)
    batch = BATCH.get(part, BATCH["small"])
    x = (torch.rand(batch, *model.input, time_steps) < 0.1).float().to(device)
    labels = torch.randint(10, (batch,), device=device)
    optimiser = torch.optim.AdamW(blocks.parameters())

    def step() -> None:
        optimiser.zero_grad()
        F.cross_entropy(blocks(x).mean(-1), labels).backward()
        optimiser.step()

    return partial(measured, step, device)


def _ours(
    part: str,
    device: str,
    norm: str,
    reset: str,
    method: str = "sdt",
    quantised: bool = False,
    time_steps: int = T,
    **more: Any,
) -> _Way:
    """A step of `mtt_lava.training`, every time with the next configurations of its sampler."""
    model, batch = _model(part), BATCH.get(part, BATCH["small"])
    values: dict[str, Any] = {
        "norm": norm,
        "profile": PROFILES[reset],
        "method": method,
        "time_steps": time_steps,
        "batch": batch,
    }
    settings = Settings.make(model, data="random", epochs=2, allow_unfit=True, **values | more)
    engine = Engine(accelerator=torch.device(device).type)
    engine.device = torch.device(device)
    trainer = Trainer(settings, None, _recordings(model, batch), progress=False, engine=engine)
    if quantised:
        phases.lower(trainer)
    trainer.network.train()
    x, labels = trainer.batch(torch.arange(batch))
    done = 0

    def step() -> None:
        nonlocal done
        trainer.step(x, labels, trainer.samplers[quantised].draw(done))
        done += 1

    return partial(measured, step, device)


def _ways(part: str, device: str) -> dict[str, _Maker]:
    """What makes the steps to measure, by name; the first two are the bare ones."""
    job, ways = _job(part, device), dict[str, _Maker]()
    for kind, neurons in {"bare convolutions": None, "ANN": lambda _: torch.nn.ReLU()}.items():
        ways[kind] = partial(_plain, job, neurons)
        ways[f"{kind}, channels last"] = partial(_plain, job._replace(channels_last=True), neurons)
    ways["PyTorch loop"] = partial(_plain, job, lambda _: _Loop())
    ways["SLAYER blocks"] = partial(_slayer, part, device)
    for reset, profile in PROFILES.items():
        ours = partial(_ours, part, device)
        ways |= {f"{profile}, float, {norm}": partial(ours, norm, reset) for norm in NORMS}
        ways[f"{profile}, quantised"] = partial(ours, "centred", reset, quantised=True)
        ways[f"{profile}, float, centred, MTT"] = partial(ours, "centred", reset, "mtt")
        ways[f"{profile}, quantised, MTT"] = partial(ours, "centred", reset, "mtt", quantised=True)
        ways[f"{profile}, float, centred, MTT in pairs"] = partial(ours, "centred", reset, "mtt", **PAIRS)
        packed = partial(ours, "centred", reset, "mtt", packed=True, **PAIRS)
        ways[f"{profile}, float, centred, MTT in packed pairs"] = packed
    return ways


def _peer_ways(part: str, device: str, children: Sequence[peers.Peer], torch_version: str) -> dict[str, _Maker]:
    """The bare convolutions in the peers' PyTorch, which can be another; and the peers."""
    if not children:
        return {}
    job = _job(part, device)
    bare = partial(children[0].step, job._replace(neurons=False))
    ways: dict[str, _Maker] = {f"bare convolutions, PyTorch {torch_version}": lambda: bare}
    for child in children:
        ways[child.name] = partial(partial, child.step, job)
    return ways


def _interleaved(ways: dict[str, _Way], repeats: int, bar: tqdm) -> dict[str, tuple[float, float | None, int]]:
    """Median milliseconds, peak megabytes and repeats of every step; in turns, so that other load meets all alike."""
    peaks: dict[str, float | None] = {}
    times: dict[str, list[float]] = {name: [] for name in ways}
    count: dict[str, int] = {}
    for name, way in ways.items():
        way(False)  # compiles, and allocates what stays
        milliseconds, peaks[name] = way(True)
        count[name] = min(repeats, max(LEAST, int(1000 * MOST / milliseconds)))
        bar.update()
    for turn in range(repeats):
        for name, way in ways.items():
            if turn < count[name]:
                times[name].append(way(False)[0])
            bar.update()
    return {name: (statistics.median(of), peaks[name], len(of)) for name, of in times.items()}


def _device(name: str) -> str:
    """Refuse what PyTorch does not see."""
    there = ["cpu"]
    if torch.cuda.is_available():
        there += ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if name not in there:
        raise RunError(f"no device {name!r}: PyTorch sees {', '.join(there)}")
    return name


def steps(
    only: Sequence[str] = PARTS,
    repeats: int = 5,
    device: str = "cpu",
    peers_python: str | None = None,
    match: str = "",
    progress: bool = True,
) -> Steps:
    """Measure training steps.

    Parameters
    ----------
    only : sequence of str
        Of `PARTS`.
    repeats : int
        Of every step, in turns; the small network's ten times as many, of what is very slow fewer.
    device : str
        ``cpu``, ``cuda`` or ``cuda:N``.
    peers_python : str, optional
        A Python that has some of `peer_steps.PEERS`, whose steps are measured too.
    match : str
        Only ways with this in their names, and the bare ones.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Steps

    Raises
    ------
    mtt_lava.run.RunError
        A part that there is not, a device that PyTorch does not see, a Python without peers, or a peer that failed.
    """
    for part in only:
        if part not in PARTS:
            raise RunError(unknown("part of bench train", part, PARTS))
    device = _device(device)
    versions = {} if peers_python is None else peers.found(peers_python)
    load, found, fewer = os.getloadavg()[0], list[Step](), list[str]()
    growth: dict[str, dict[int, float]] = {}
    with ExitStack() as stack:
        stack.enter_context(memory_kept())
        if device != "cpu":
            stack.enter_context(torch.cuda.device(device))
        children = [
            stack.enter_context(peers.Peer(peers_python, name))
            for name in PEERS
            if peers_python is not None and name in versions
        ]
        for part in (part for part in PARTS if part in only):
            torch.manual_seed(0)
            times = _times(part, repeats)
            if part == "growth":
                makers: dict[str, _Maker] = {
                    f"{profile}, float, centred|{t}": partial(_ours, part, device, "centred", reset, time_steps=t)
                    for reset, profile in PROFILES.items()
                    for t in GROWTH
                }
                makers |= {f"SLAYER blocks|{t}": partial(_slayer, part, device, t) for t in GROWTH}
            else:
                ways = _ways(part, device) | _peer_ways(part, device, children, versions.get("torch", ""))
                makers = {name: make for name, make in ways.items() if match in name or name in BARE}
            total = (1 + times) * len(makers)
            with tqdm(total=total, desc=part, unit="step", disable=not progress) as bar:
                taken = _interleaved({name: make() for name, make in makers.items()}, times, bar)
            fewer += [f"{n.replace('|', ' at T = ')} {of[2]} ({part})" for n, of in taken.items() if of[2] < times]
            if part == "growth":
                for key, (ms, *_) in taken.items():
                    name, _, t = key.partition("|")
                    growth.setdefault(name, {})[int(t)] = ms
                continue
            bare = min(taken[name][0] for name in BARE)
            found += [Step(part, name, ms, ms / bare, peak, count) for name, (ms, peak, count) in taken.items()]
    return Steps(found, growth, repeats, load, device, versions, fewer)
