"""Simulation at the speed of compiled code, bit for bit what Lava's fixed-point models compute.

On a CPU, integers only: `netx_export.fast_kernels` follows the spikes of a sample through one layer after the other,
each for all time steps, on as many threads as there are cores. On a GPU, `netx_export.fast_torch`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, as_completed, wait
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from netx_export.bounds import bounds
from netx_export.limits import add_counts, from_counts
from netx_export.network import (
    DECAY_UNITY,
    STATE_BITS,
    STATE_MAX,
    STATE_SHIFT,
    Conv,
    Dense,
    Flatten,
    Layer,
    Network,
    NetworkError,
    Pool,
    Shape,
)
from netx_export.simulation import RECORDABLE, Simulation, check_inputs, check_record, encoded, read_for

BUFFER_BYTES = 64 << 20
"""What one thread may hold of spikes that travel between layers, unless a single sample needs more."""


def simulate(
    network: Network | str | os.PathLike[str],
    inputs: np.ndarray,
    *,
    record: Sequence[str] = (),
    progress: bool = True,
    chunk: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    encode: bool = False,
) -> Simulation:
    """Run a network in compiled integer code.

    Every sample starts from rest, and time step t of every result answers input time step t, as in
    `netx_export.lava_backend`, of which the results are bit for bit. Beside inputs and results, memory holds one chunk
    of samples a thread.

    Parameters
    ----------
    network : Network or path
        The network, or the NetX HDF5 file it is read from.
    inputs : numpy.ndarray
        Integers, (N, C, H, W, T) or (N, F, T). Values other than 0 and 1 are graded spikes.
    record : sequence of str
        Any of ``"spikes"``, ``"u"``, ``"v"``: record these for every layer with neurons (see `Simulation`).
    progress : bool
        Show a bar on stderr, after the first second.
    chunk : int, optional
        Samples a thread simulates at a time; by default as many as `BUFFER_BYTES` hold, at most 64.
    threads : int, optional
        Number of CPU threads; by default one a core this process may use.
    device : str, optional
        ``"cpu"``, or a GPU by PyTorch's name for it (``"cuda"``, ``"cuda:1"``); by default a GPU if PyTorch sees one.
    encode : bool
        `inputs` are values for the file's input neurons, their biases in every time step, instead of the spikes that
        enter the first layer.

    Returns
    -------
    Simulation

    Raises
    ------
    NetworkError
        The file, the input or an option is not what it must be.
    """
    if not isinstance(network, Network):
        network = read_for(network, inputs, encode=encode)
    if encode:
        inputs = encoded(network, inputs)
    check_inputs(network, inputs)
    check_record(record)
    for name, number in (("chunk", chunk), ("threads", threads)):
        if number is not None and number < 1:
            raise NetworkError(f"{name} is {number}; give at least 1")
    if not network.spiking:
        raise NetworkError(f"{network.source}: no layer has neurons, so there is nothing to run")
    results = Results(network, inputs.shape[0], inputs.shape[-1], record)
    if device is None:
        device = "cuda" if _sees_gpu() else "cpu"
    if device != "cpu":
        from netx_export.fast_torch import run

        run(network, inputs, results, device=device, chunk=chunk, progress=progress)
    else:
        _run(network, inputs, results, chunk, threads or len(os.sched_getaffinity(0)), progress)
    return results.simulation()


def _sees_gpu() -> bool:
    """Whether PyTorch sees a GPU; its import, of seconds, is spared where there is no driver."""
    if "torch" not in sys.modules and not any(Path(p).exists() for p in ("/proc/driver/nvidia", "/dev/kfd")):
        return False
    import torch

    return torch.cuda.is_available()


class Results:
    """Arrays for all samples, which chunks of samples are put into."""

    def __init__(self, network: Network, samples: int, steps: int, record: Sequence[str]) -> None:
        self.network = network
        numbered = [(n, layer) for n, layer in zip(network.numbers, network, strict=True) if layer.neuron is not None]
        last = numbered[-1][1]
        self.tail = network.layers[network.layers.index(last) + 1 :]
        graded = any(not isinstance(layer, Flatten) for layer in self.tail)
        self.spikes = np.zeros((samples, *network.shape, steps), np.int32 if graded else np.int8)
        self.what = tuple(record)
        self.record = {
            f"{what}.{number}": np.zeros((samples, *layer.shape, steps), np.int8 if what == "spikes" else np.int32)
            for number, layer in numbered
            for what in RECORDABLE
            if what in record
        }
        self.voltage = np.zeros((samples, *last.shape), np.int32) if network.readout == "voltage" else None
        self.counts = np.zeros((len(numbered), 4), np.int64)

    def simulation(self) -> Simulation:
        readout = self.spikes.sum(axis=-1, dtype=np.int64)
        if self.voltage is not None:
            readout = linear(self.tail, self.voltage)
        readout = readout.reshape(len(self.spikes), -1).astype(np.int64)
        return Simulation(self.spikes, readout, self.record, from_counts(self.network, self.counts))


def linear(layers: Sequence[Layer], signal: np.ndarray) -> np.ndarray:
    """What layers without neurons make of (N, *in_shape), int64."""
    signal = signal.astype(np.int64)
    for layer in layers:
        if isinstance(layer, Pool):
            (height, width), (down, right) = layer.padding, layer.stride
            signal = np.pad(signal, ((0, 0), (0, 0), (height, height), (width, width)))
            rows, columns = down * (layer.shape[1] - 1) + 1, right * (layer.shape[2] - 1) + 1
            windows = product(range(layer.kernel[0]), range(layer.kernel[1]))
            signal = sum(
                (signal[:, :, y : y + rows : down, x : x + columns : right] for y, x in windows),
                start=np.zeros((), np.int64),
            )
        else:
            signal = signal.reshape(len(signal), *layer.shape, -1).sum(axis=-1)
    return signal


# ------------------------------------------------------------------------------------------------ compiled code


@dataclass
class _Plan:
    """A layer as `fast_kernels.run_layer` takes it."""

    layer: Layer
    number: int
    synapses: tuple[Any, ...]
    neurons: tuple[Any, ...]
    order: np.ndarray
    range: int
    """For inputs of 0 and 1; see `_ranges`."""


def _order(shape: Shape) -> np.ndarray:
    """For each index of events, channels fastest, the index in a (C, H, W) or (F,) array."""
    order = np.arange(np.prod(shape), dtype=np.int32)
    return order if len(shape) == 1 else np.ascontiguousarray(order.reshape(shape).transpose(1, 2, 0)).ravel()


def _plans(network: Network, steps: int) -> Iterator[_Plan]:
    order, range_ = _order(network.in_shape), _ranges(network, 0, 1, steps)
    for number, layer in zip(network.numbers, network, strict=True):
        if isinstance(layer, Flatten):
            continue  # events keep their indices, and `order` still says which (C, H, W) they are
        synapses = _maps(layer) if isinstance(layer, (Conv, Pool)) else _matrix(layer, order)
        order = _order(layer.shape)
        yield _Plan(layer, number, synapses, _neurons(layer, order), order, range_[layer])


def _ranges(network: Network, low: int, high: int, steps: int) -> dict[Layer, int]:
    """How far the states of each layer could go, whatever the input.

    0: they stay within 24 bits; 2: a time step could make the current go round 24 bits more than once; 1: neither.
    """
    ranges = {}
    for bound in bounds(network, low, high, steps):
        neuron = bound.layer.neuron
        bias = 0 if neuron is None or neuron.bias is None else int(np.abs(neuron.bias).max()) << neuron.bias_exponent
        calm = steps * (bound.current() + bias) <= STATE_MAX
        ranges[bound.layer] = 0 if calm else 1 + (bound.change << STATE_SHIFT >= 1 << STATE_BITS)
    return ranges


def _int32(array: np.ndarray) -> np.ndarray:
    """What 32 bits keep, contiguous."""
    return np.ascontiguousarray(array, np.int64).astype(np.int32)


def _maps(layer: Conv | Pool) -> tuple[Any, ...]:
    channels, height, width = layer.in_shape
    outputs, rows, columns = layer.shape
    if isinstance(layer, Conv):
        weight, groups, dilation = layer.weight, layer.groups, layer.dilation
        assert weight is not None
    else:
        weight, groups, dilation = np.ones((channels, 1, *layer.kernel), np.int32), channels, (1, 1)
    fan = outputs // groups
    kernel = weight.shape[2:]
    y, x, i, j = np.ogrid[:rows, :columns, : kernel[0], : kernel[1]]
    above = y * layer.stride[0] + i * dilation[0] - layer.padding[0]
    left = x * layer.stride[1] + j * dilation[1] - layer.padding[1]
    inside = (above >= 0) & (above < height) & (left >= 0) & (left < width)
    pixel = (above * width + left)[inside]
    by_pixel = np.argsort(pixel, kind="stable")
    target = np.broadcast_to((y * columns + x) * outputs, inside.shape)[inside][by_pixel]
    at = np.broadcast_to((i * kernel[1] + j) * channels * fan, inside.shape)[inside][by_pixel]
    # (height, width, group, input channel within it, output channel within it)
    spread = weight.reshape(groups, fan, channels // groups, *kernel).transpose(3, 4, 0, 2, 1)
    none = np.zeros(0, np.int32)
    event = np.arange(channels * height * width)
    return (
        _int32(event // channels),
        _int32(event % channels),
        np.concatenate([[0], np.cumsum(np.bincount(pixel, minlength=height * width))]),
        np.ascontiguousarray(target),
        np.ascontiguousarray(at),
        _int32(spread.reshape(-1)),
        fan,
        np.repeat(np.arange(groups) * fan, channels // groups),
        none,
        1,
        none,
        none,
        STATE_BITS if isinstance(layer, Conv) else 32,
    )


def _matrix(layer: Layer, order: np.ndarray) -> tuple[Any, ...]:
    outputs = layer.shape[0]
    delay = recurrent = recurrent_delay = np.zeros(0, np.int32)
    depth = 1
    if isinstance(layer, Dense):
        weight = layer.weight
        assert weight is not None
        if layer.delay is not None:
            delay, depth = _int32(layer.delay[:, order].T.reshape(-1)), int(layer.delay.max()) + 1
        if layer.recurrent is not None:
            recurrent = _int32(layer.recurrent.T.reshape(-1))
        if layer.recurrent_delay is not None:
            recurrent_delay = _int32(layer.recurrent_delay.T.reshape(-1))
            depth = max(depth, int(layer.recurrent_delay.max()) + 1)
    else:  # an average: each output is the sum of its inputs
        weight = np.repeat(np.eye(outputs, dtype=np.int32), len(order) // outputs, axis=1)
    index = np.arange(len(order))
    return (
        _int32(0 * index),
        _int32(index),
        np.array([0, 1]),
        np.array([0]),
        np.array([0]),
        _int32(weight[:, order].T.reshape(-1)),
        outputs,
        0 * index,
        delay,
        depth,
        recurrent,
        recurrent_delay,
        32,
    )


def _neurons(layer: Layer, order: np.ndarray) -> tuple[Any, ...]:
    neuron = layer.neuron
    none = np.zeros(len(order), np.int32)
    if neuron is None:
        return False, False, none, none, none, none

    def each(value: int | np.ndarray | None) -> np.ndarray:
        array = np.asarray(0 if value is None else value, np.int64)
        array = array.reshape(array.shape + (1,) * (len(layer.shape) - array.ndim if array.ndim else 0))
        return np.broadcast_to(array, layer.shape).ravel()[order]

    keep = [DECAY_UNITY - each(decay) for decay in (neuron.current_decay, neuron.voltage_decay)]
    instant = not keep[0].any() and bool((keep[1] == DECAY_UNITY).all())  # integrate-and-fire
    bias = each(neuron.bias) << neuron.bias_exponent
    threshold = np.clip(each(neuron.threshold) << STATE_SHIFT, -(1 << 31), (1 << 31) - 1)
    return True, instant, _int32(keep[0]), _int32(keep[1]), _int32(bias), _int32(threshold)


def _run(
    network: Network, inputs: np.ndarray, results: Results, chunk: int | None, threads: int, progress: bool
) -> None:
    from tqdm import tqdm

    plans = list(_plans(network, inputs.shape[-1]))
    samples, steps = inputs.shape[0], inputs.shape[-1]
    if chunk is None:
        travelling = max(int(np.prod(plan.layer.in_shape)) + len(plan.order) for plan in plans)
        fitting = BUFFER_BYTES // (8 * steps * travelling)
        chunk = max(1, min(fitting, 64, -(-samples // threads)))
    parts = [slice(n, min(n + chunk, samples)) for n in range(0, samples, chunk)]
    pool = ThreadPoolExecutor(min(threads, len(parts)))
    try:
        with tqdm(total=samples, desc="fast", unit="sample", delay=1, leave=False, disable=not progress) as bar:
            started = {pool.submit(_run_chunk, plans, inputs[part], results, part): part for part in parts}
            if not wait(started, 1, FIRST_COMPLETED).done:
                bar.refresh()  # the first run compiles, and large samples take long
            for done in as_completed(started):
                add_counts(results.counts, done.result())
                bar.update(started[done].stop - started[done].start)
    finally:
        pool.shutdown(cancel_futures=True)


def _run_chunk(plans: Sequence[_Plan], inputs: np.ndarray, results: Results, part: slice) -> np.ndarray:
    """Simulate some samples into `results`; the counts of `Limits` are returned, as other threads have theirs."""
    from netx_export import fast_kernels

    run_layer: Any = fast_kernels.run_layer
    samples, steps = inputs.shape[0], inputs.shape[-1]
    flat = np.ascontiguousarray(inputs).reshape(samples, -1, steps)
    flat = flat.view(np.uint8) if flat.dtype == bool else flat
    events = _Events.empty(flat.size, samples * steps)
    inverse = np.argsort(_order(inputs.shape[1:-1])).astype(np.int32)
    if not fast_kernels.collect(flat, inverse, events.where, events.value, events.start):
        events.value, ranges = events.value[:0], {plan.layer: plan.range for plan in plans}
    else:
        ranges = _ranges(results.network, int(flat.min()), int(flat.max()), steps)
    counts = np.zeros_like(results.counts)
    rows = iter(counts)
    for plan in plans:
        spiking = plan.layer.neuron is not None
        out = _Events.empty(samples * steps * len(plan.order), samples * steps, graded=not spiking)
        recorded = {
            what: _flat(results.record[f"{what}.{plan.number}"], part) if what in results.what and spiking else _NOTHING
            for what in RECORDABLE
        }
        last = _NOTHING[:, :, 0]
        if results.voltage is not None and plan.layer is results.network.spiking[-1]:
            last = results.voltage[part].reshape(samples, -1)
        run_layer(
            samples,
            steps,
            events.where,
            events.value,
            events.start,
            *plan.synapses,
            *plan.neurons,
            ranges[plan.layer],
            out.where,
            out.value,
            out.start,
            plan.order,
            recorded["u"],
            recorded["v"],
            last,
            next(rows) if spiking else counts[0],
        )
        if len(recorded["spikes"]):
            fast_kernels.spread(out.where, out.value, out.start, plan.order, recorded["spikes"])
        events = out
    fast_kernels.spread(events.where, events.value, events.start, plans[-1].order, _flat(results.spikes, part))
    return counts


def _flat(array: np.ndarray, part: slice) -> np.ndarray:
    return array[part].reshape(part.stop - part.start, -1, array.shape[-1])


_NOTHING = np.zeros((0, 1, 1), np.int32)


@dataclass
class _Events:
    """Spikes of a chunk of samples, as `fast_kernels` has them."""

    where: np.ndarray
    value: np.ndarray
    start: np.ndarray

    @classmethod
    def empty(cls, most: int, steps: int, graded: bool = True) -> _Events:
        # Memory is taken up page by page as events come.
        return cls(
            np.empty(most + 1, np.int32), np.empty(most if graded else 0, np.int32), np.empty(steps + 1, np.int64)
        )
