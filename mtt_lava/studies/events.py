"""Speed of the event-driven simulator, and how far that is from a bare vector add."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from mtt_lava.studies.parts import machine
from netx_export import network as description
from netx_export.event import backend as event_backend
from netx_export.text import table

DURATION = 300_000
"""Microseconds of an N-MNIST recording."""
DTYPES = ("float32", "int16", "int32")


@dataclass(frozen=True)
class Rate:
    """One network with one type of states.

    Attributes
    ----------
    network, dtype : str
    synops_per_second : float
        On one core, best of the repeats.
    add_per_second : float
        Additions per second of ``v[slice] += w[slice]`` alone, with slices as long as the median of the network's and
        arrays of the same size: no events, no threshold, no choice of what to add.
    speed_up : float
        Of two threads over one (1 where the machine has one core).
    real_time : float
        Microseconds of recording simulated in a microsecond on one core.
    synops : int
        Synaptic operations of a recording.
    """

    network: str
    dtype: str
    synops_per_second: float
    add_per_second: float
    speed_up: float
    real_time: float
    synops: int


@dataclass(frozen=True)
class Rates:
    """What `events` found."""

    rates: list[Rate]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"machine": machine(), "rates": [asdict(rate) for rate in self.rates]}

    def __str__(self) -> str:
        head = ["network", "states", "synops/s, one core", "bare add/s", "share", "two cores", "x real time"]
        rows = [
            [
                *(r.network, r.dtype, f"{r.synops_per_second / 1e6:,.0f} M", f"{r.add_per_second / 1e6:,.0f} M"),
                *(f"{r.synops_per_second / r.add_per_second:.2f}", f"x{r.speed_up:.2f}", f"{r.real_time:,.0f}"),
            ]
            for r in self.rates
        ]
        lines = table([head, *rows])
        return "\n".join([*lines, f"random weights and events, N-MNIST's length and number of events; {machine()}"])


def _network(
    name: str, shape: tuple[int, ...], parts: Sequence[tuple[str, int, int]], seed: int
) -> description.Network:
    """Layers of (kind, channels or kernel, stride) with random weights."""
    rng = np.random.default_rng(seed)
    layers: list[description.Layer] = []
    for kind, size, stride in parts:
        if kind == "pool":
            out = description.conv_shape(shape, shape[0], (size, size), (size, size))
            layers.append(description.Pool(in_shape=shape, shape=out, kernel=(size, size), stride=(size, size)))
        elif kind == "conv":
            out = description.conv_shape(shape, size, (3, 3), (stride, stride), (1, 1))
            weight = rng.integers(-20, 21, (size, shape[0], 3, 3))
            layers.append(
                description.Conv(
                    in_shape=shape,
                    shape=out,
                    weight=weight,
                    stride=(stride, stride),
                    padding=(1, 1),
                    neuron=description.Neuron(1),
                )
            )
        else:
            if len(shape) == 3:
                layers.append(description.Flatten(in_shape=shape, shape=(int(np.prod(shape)),)))
                shape = layers[-1].shape
            out = (size,)
            weight = rng.integers(-20, 21, (size, shape[0]))
            layers.append(description.Dense(in_shape=shape, shape=out, weight=weight, neuron=description.Neuron(1)))
        shape = out
    return _balanced(description.Network(tuple(layers), reset="subtract", source=name))


def _balanced(network: description.Network, each: int = 4000) -> description.Network:
    """Thresholds, layer after layer, with which every layer emits about as many events as the recording has."""
    recording = _events(network.in_shape, 1, each)
    layers = list(network)
    for at, layer in enumerate(layers):
        if layer.neuron is None:
            continue
        low, high = 1, 1 << 14
        while high - low > 1:
            middle = (low + high) // 2
            layers[at] = replace(layer, neuron=description.Neuron(middle))
            head = description.Network(tuple(layers[: at + 1]), reset="subtract")
            emitted = event_backend.simulate(head, recording, dtype="float32", progress=False).spikes_per_layer[0, -1]
            low, high = (middle, high) if emitted >= each else (low, middle)
        layers[at] = replace(layer, neuron=description.Neuron(low))
    return replace(network, layers=tuple(layers))


def networks() -> dict[str, description.Network]:
    """The networks measured: the paper's for N-MNIST, and its VGG9 for CIFAR10-DVS on 128x128."""
    small = [("conv", 8, 2), ("pool", 2, 1), ("conv", 16, 1), ("pool", 2, 1), ("conv", 16, 1), ("dense", 10, 1)]
    large: list[tuple[str, int, int]] = [("pool", 4, 1)]
    for number, channels in enumerate((64, 128, 256, 256, 512, 512, 512, 512)):
        large.append(("conv", channels, 1))
        if number % 2:
            large.append(("pool", 2, 1))
    return {
        "nmnist-3c1fc": _network("nmnist-3c1fc", (2, 34, 34), small, 0),
        "VGG9": _network("VGG9", (2, 128, 128), [*large, ("dense", 10, 1)], 0),
    }


def _events(shape: tuple[int, ...], samples: int, each: int) -> event_backend.Events:
    rng = np.random.default_rng(1)
    n = samples * each
    t = np.sort(rng.integers(0, DURATION, (samples, each)), axis=1).ravel()
    c, y, x = (rng.integers(0, size, n) for size in shape)
    return event_backend.Events(np.repeat(np.arange(samples), each), t, c, y, x)


def _best(action: Callable[[], Any], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times)


def _adds_per_second(network: description.Network, dtype: str, repeats: int) -> float:
    """Bare ``v += w`` over slices of the most worked layer's length and arrays of its size."""
    from mtt_lava.studies.event_loops import add_slices

    layers = [layer for layer in network if isinstance(layer, description.Conv)]
    layer = layers[len(layers) // 2]
    assert layer.weight is not None
    v = np.zeros(int(np.prod(layer.shape)), dtype)
    w = np.ones(layer.weight.size, dtype)
    length = min(layer.weight.shape[3] * layer.shape[0], len(v), len(w))
    rng = np.random.default_rng(2)
    targets = rng.integers(0, len(v) - length + 1, 100_000)
    kernels = rng.integers(0, len(w) // length, 100_000) * length
    add_slices(v, w, targets, kernels, length)
    return 100_000 * length / _best(lambda: add_slices(v, w, targets, kernels, length), repeats)


def events(samples: Sequence[int] = (400, 8), each: Sequence[int] = (4000, 4000), repeats: int = 5) -> Rates:
    """Measure every network with every type of states.

    Parameters
    ----------
    samples, each : sequence of int
        For each network: recordings, and events of one.
    repeats : int
        The best counts.

    Returns
    -------
    Rates
    """
    rates = []
    for (name, network), count, size in zip(networks().items(), samples, each, strict=True):
        recorded = _events(network.in_shape, count, size)
        for dtype in DTYPES:
            ready = event_backend.Simulator(network, dtype=dtype)

            def run(threads: int, ready: Any = ready, recorded: Any = recorded) -> Any:
                return ready.run(recorded, threads=threads, progress=False)

            synops = int(run(1).synops_per_layer.sum())
            one, two = _best(lambda: run(1), repeats), _best(lambda: run(2), repeats)
            rates.append(
                Rate(
                    name,
                    dtype,
                    synops / one,
                    _adds_per_second(network, dtype, repeats),
                    one / two,
                    count * DURATION / 1e6 / one,
                    synops // count,
                )
            )
    return Rates(rates)
