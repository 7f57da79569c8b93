"""How fast the simulators are, side by side: bare sums of the same shapes, SLAYER, ours, and Lava."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mtt_lava.studies.parts import machine
from netx_export import network as description
from netx_export import netx
from netx_export.fast import backend as fast_backend
from netx_export.lava import backend as lava_backend
from netx_export.text import table

SIMULATORS = ("bare convolutions", "SLAYER forward", "fast", "lava", "lava --stock")
"""What `simulators` measures; the first are PyTorch's sums of the same shapes, without neurons."""
BATCHES = (8, 32, 128)
"""Samples a batch that bare convolutions and SLAYER are tried with, the best counts; `fast` chooses its own."""
DENSITY = 0.1
"""Share of ones in the random input; N-MNIST and digits-dvs have some 5 to 10 % at T = 16."""


@dataclass(frozen=True)
class Speed:
    """What one simulator needed for one network.

    Attributes
    ----------
    samples_per_second, steps_per_second : float or None
        Best of the repeats, warm-up and Lava's start-up excluded. A time step is one of one sample.
    with_startup : float or None
        Samples per second of the longest run of Lava, start-up included.
    startup : float or None
        Seconds from the call to the first time step of Lava.
    samples : int
        Samples of a run.
    peak_mb : float or None
        Most memory held beyond what the process held before, child processes included; None where Linux does not say.
    mismatches : int or None
        Bits, over all layers and time steps, that differ from `fast`; None where there are no spikes.
    """

    samples_per_second: float | None
    steps_per_second: float | None
    with_startup: float | None
    startup: float | None
    samples: int
    peak_mb: float | None
    mismatches: int | None


@dataclass(frozen=True)
class Speeds:
    """One network in all simulators.

    Attributes
    ----------
    title : str
    time_steps : int
    density : float
        Share of ones in the input.
    rates : list of float
        Share of ones in the spikes of every layer: `fast` depends on it, the others do not.
    simulators : dict of str to Speed
    """

    title: str
    time_steps: int
    density: float
    rates: list[float]
    simulators: dict[str, Speed]

    @property
    def ratios(self) -> dict[str, float | None]:
        """How many times as many samples a second, Lava without its start-up."""

        def ratio(one: str, other: str) -> float | None:
            a, b = (self.simulators[name].samples_per_second for name in (one, other))
            return a / b if a and b else None

        pairs = [*(("fast", name) for name in SIMULATORS if name != "fast"), ("lava", "lava --stock")]
        return {f"{one} / {other}": ratio(one, other) for one, other in pairs}

    def __str__(self) -> str:
        head = ["", "samples/s", "time steps/s", "start-up s", "with it samples/s", "peak MB", "mismatching bits"]
        rows = [
            [
                name,
                *map(_number, (s.samples_per_second, s.steps_per_second, s.startup, s.with_startup, s.peak_mb)),
                "" if s.mismatches is None else f"{s.mismatches:,}",
            ]
            for name, s in self.simulators.items()
        ]
        lines = [
            f"{self.title}; T = {self.time_steps}; {self.density:.0%} of the inputs and "
            f"{', '.join(f'{rate:.0%}' for rate in self.rates)} of the layers' outputs are spikes"
        ]
        lines += table([head, *rows], left=1)
        return "\n".join([*lines, *(f"{name}: {_number(value)} times" for name, value in self.ratios.items())])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


@dataclass(frozen=True)
class SimulatorComparison:
    """What `simulators` found."""

    networks: list[Speeds]
    load: float

    def __repr__(self) -> str:
        return f"<SimulatorComparison of {', '.join(SIMULATORS)} on {len(self.networks)} networks>"

    def rows(self) -> list[dict[str, Any]]:
        """One a network and simulator, for a table."""
        return [
            {"network": speeds.title, "simulator": name} | asdict(speed)
            for speeds in self.networks
            for name, speed in speeds.simulators.items()
        ]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        networks = [asdict(speeds) | {"ratios": speeds.ratios} for speeds in self.networks]
        return {"machine": machine(), "load": self.load, "networks": networks}

    def __str__(self) -> str:
        note = f"on the CPU of: {machine()}; load average at the start {self.load:.1f}"
        return "\n\n".join([*map(str, self.networks), note])


def simulators(
    widths: Sequence[int] = (1, 8),
    size: int = 34,
    time_steps: int = 16,
    samples: Sequence[int] = (256, 32),
    lava_samples: Sequence[int] = (4, 1),
    lava_seconds: float = 2.5,
    repeats: int = 5,
) -> SimulatorComparison:
    """Run SLAYER, `fast` and Lava on the same networks, all on the CPU, and compare.

    Parameters
    ----------
    widths : sequence of int
        The network is conv 8 w, conv 16 w (3x3, stride 2), dense 10, for each w.
    size : int
        Height and width of the input, which has two channels.
    time_steps : int
    samples : sequence of int
        For each width: samples of a run of all but Lava.
    lava_samples : sequence of int
        For each width: samples of a short run of Lava.
    lava_seconds : float
        So much longer must a second run of Lava take, with more samples; the difference of both gives its speed.
    repeats : int
        Of everything but Lava, in turns, so that other load on the machine meets all; Lava runs twice on the first
        network, once on others.

    Returns
    -------
    SimulatorComparison
    """
    load = os.getloadavg()[0]
    speeds = [
        _speeds(width, size, time_steps, number, repeats, lava, lava_seconds, 1 if index else 2)
        for index, (width, number, lava) in enumerate(zip(widths, samples, lava_samples, strict=True))
    ]
    return SimulatorComparison(speeds, load)


def _network(width: int, size: int) -> description.Network:
    """Random weights of mean 0, and thresholds with which every layer fires in some 10 % of its time steps."""
    rng = np.random.default_rng(0)
    layers: list[description.Layer] = []
    shape: tuple[int, ...] = (2, size, size)

    def common(fan_in: int, *weight_shape: int) -> dict[str, Any]:
        largest = min(30, (1 << 16) // fan_in)  # so that the sum stays in 24 bits
        weight = 2 * rng.integers(-largest, largest, weight_shape, endpoint=True)
        threshold = round(0.4 * float(weight.std()) * fan_in**0.5)
        return {"weight": weight, "neuron": description.Neuron(threshold)}

    for channels in (8 * width, 16 * width):
        out = description.conv_shape(shape, channels, (3, 3), (2, 2), (0, 0), (1, 1))
        values = common(9 * shape[0], channels, shape[0], 3, 3)
        layers.append(description.Conv(in_shape=shape, shape=out, stride=(2, 2), **values))
        shape = out
    flat = int(np.prod(shape))
    layers.append(description.Flatten(in_shape=shape, shape=(flat,)))
    layers.append(description.Dense(in_shape=(flat,), shape=(10,), **common(flat, 10, flat)))
    title = f"{size}x{size}x2, conv {8 * width} 3x3 stride 2, conv {16 * width} 3x3 stride 2, dense 10"
    return description.Network(tuple(layers), readout="count", source=title)


def _slayer(network: description.Network) -> list[torch.nn.Module]:
    """SLAYER's own blocks as they come, with weights and thresholds that make them spike the same."""
    from mtt_lava.neuron import slayer

    cuba = slayer.block.cuba
    blocks: list[torch.nn.Module] = []
    for layer in network:
        if isinstance(layer, description.Flatten):
            blocks.append(cuba.Flatten())
            continue
        assert layer.neuron is not None
        assert isinstance(layer, (description.Conv, description.Dense))
        assert layer.weight is not None
        neuron = {"threshold": float(layer.neuron.threshold) / 64, "current_decay": 1.0, "voltage_decay": 0.0}
        if isinstance(layer, description.Conv):
            block = cuba.Conv(neuron, layer.in_shape[0], layer.shape[0], 3, layer.stride, 0, delay_shift=False)
        else:
            block = cuba.Dense(neuron, layer.in_shape[0], layer.shape[0], delay_shift=False)
        weight = torch.from_numpy(layer.weight).float() / 64
        block.synapse.weight.data = weight.reshape(block.synapse.weight.shape)
        blocks.append(block.eval())
    return blocks


def _bare(network: description.Network, images: torch.Tensor) -> torch.Tensor:
    """The convolutions and the matrix product alone, over N * T images."""
    for layer in network:
        if isinstance(layer, description.Conv):
            images = torch.nn.functional.conv2d(images, _weights(layer), stride=layer.stride)
        elif isinstance(layer, description.Dense):
            images = torch.nn.functional.linear(images.flatten(1), _weights(layer))
    return images


@lru_cache
def _weights(layer: description.Conv | description.Dense) -> torch.Tensor:
    return torch.from_numpy(layer.weight).float()


@torch.no_grad()
def _speeds(
    width: int,
    size: int,
    steps: int,
    number: int,
    repeats: int,
    few: int,
    lava_seconds: float,
    lava_repeats: int,
) -> Speeds:
    network = _network(width, size)
    inputs = (np.random.default_rng(1).random((number, 2, size, size, steps)) < DENSITY).astype(np.int8)
    blocks = _slayer(network)
    floats = torch.from_numpy(inputs).float()
    images = floats.permute(0, 4, 1, 2, 3).reshape(-1, 2, size, size).contiguous()

    def forward(batch: torch.Tensor) -> list[torch.Tensor]:
        spikes = []
        for block in blocks:
            batch = block(batch)
            spikes.append(batch)
        return spikes

    def bare(batch: int) -> None:
        for part in images.split(batch * steps):
            _bare(network, part)

    def through_slayer(batch: int) -> None:
        for part in floats.split(batch):
            forward(part)

    def fast() -> None:
        fast_backend.simulate(network, inputs, progress=False, device="cpu")

    runs: dict[str, list[Callable[[], None]]] = {
        "bare convolutions": [partial(bare, batch) for batch in BATCHES],
        "SLAYER forward": [partial(through_slayer, batch) for batch in BATCHES],
        "fast": [fast],
    }
    checked = fast_backend.simulate(network, inputs[:few], record=("spikes",), progress=False, device="cpu").record
    through = [spikes.numpy() for spikes, layer in zip(forward(floats[:few]), network, strict=True) if layer.neuron]
    wrong = sum(int((a != b).sum()) for a, b in zip(through, checked.values(), strict=True))

    # The first round is the warm-up and says what memory it takes.
    peaks: dict[str, float | None] = {}
    best: dict[str, list[float]] = {name: [np.inf] * len(ways) for name, ways in runs.items()}
    for name, ways in runs.items():
        peak = []
        for run in ways:
            with PeakMemory() as memory:
                run()
            peak.append(memory.megabytes)
        peaks[name] = None if None in peak else max(p for p in peak if p is not None)
    for _ in range(repeats):
        for name, ways in runs.items():
            for index, run in enumerate(ways):
                best[name][index] = min(best[name][index], _seconds(run))
    mismatches = {"SLAYER forward": wrong, "fast": 0}
    speeds = {
        name: Speed(
            number / min(best[name]), number * steps / min(best[name]), None, None, number, peaks[name],
            mismatches.get(name),
        )
        for name in runs
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="mtt-") as folder:
        path = Path(folder) / "bench.net"
        netx.write(network, path)
        for name in SIMULATORS[len(runs) :]:
            speeds[name] = _lava_speed(path, inputs, lava_seconds, lava_repeats, checked, stock=name.endswith("stock"))
    rates = [float(spikes.mean()) for spikes in checked.values()]
    return Speeds(network.source, steps, float(inputs.mean()), rates, speeds)


def _lava_speed(
    path: Path, inputs: np.ndarray, longer: float, repeats: int, checked: dict[str, np.ndarray], *, stock: bool
) -> Speed:
    short = len(next(iter(checked.values())))

    def run(count: int) -> float:
        some = inputs.take(range(count), axis=0, mode="wrap")
        return _seconds(lambda: lava_backend.simulate(path, some, progress=False, stock=stock))

    with PeakMemory() as memory:
        record = lava_backend.simulate(path, inputs[:short], record=("spikes",), progress=False, stock=stock).record
    wrong = sum(int((record[name] != spikes).sum()) for name, spikes in checked.items())
    long = 8 * short
    low, high = run(short), run(long)
    while high - low < longer and long < 1000 * short:
        long = round(long * min(8, 1.5 + 1.5 * longer / max(high - low, 0.1)))
        high = run(long)
    for _ in range(repeats - 1):
        low, high = min(low, run(short)), min(high, run(long))
    rate = (long - short) / (high - low) if high > low else None
    startup = low - short / rate if rate else None
    return Speed(rate, rate and rate * inputs.shape[-1], long / high, startup, long, memory.megabytes, wrong)


def _seconds(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


class PeakMemory:
    """Measures the most memory that this process takes and all its children take beyond what they held (Linux).

    ``megabytes`` is None where the system does not say.
    """

    def __enter__(self) -> PeakMemory:
        self.megabytes: float | None = None
        self._children, self._children_before = 0, _children_hold()
        self._over = threading.Event()
        try:
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts from now
            self._before: int | None = _kilobytes("/proc/self/status", "VmRSS")
        except OSError:
            self._before = None
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self._before is not None:
            own = max(0, _kilobytes("/proc/self/status", "VmHWM") - self._before)
            self.megabytes = (own + self._children) / 1024

    def _watch(self) -> None:
        while not self._over.wait(0.2):
            self._children = max(self._children, _children_hold() - self._children_before)


def _kilobytes(file: str, field: str) -> int:
    return next(int(line.split()[1]) for line in Path(file).read_text().splitlines() if line.startswith(f"{field}:"))


def _children_hold() -> int:
    return sum(map(_held, _descendants(os.getpid())))


def _held(process: int) -> int:
    try:
        return _kilobytes(f"/proc/{process}/smaps_rollup", "Pss")  # what processes share counts once
    except (OSError, StopIteration):  # it has ended
        return 0


def _descendants(process: int) -> list[int]:
    found: list[int] = []
    for tasks in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, tasks.read_text().split()):
                found += [child, *_descendants(child)]
    return found
