"""Simulation at the speed of compiled code, bit for bit what Lava's fixed-point models compute.

On a CPU, integers only: `netx_export.fast.kernels` follows the spikes of a sample through one layer after the other,
each for all time steps, on as many threads as there are cores. On a GPU, `netx_export.fast.on_torch`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, as_completed, wait
from pathlib import Path
from typing import Any

import numpy as np

from netx_export.fast.plan import GradedRecorded, Plan, Recorded, Spikes, last_users, plans, ranges, travelling
from netx_export.limits import add_counts, from_counts
from netx_export.network import (
    INPUT,
    Network,
    NetworkError,
    channels_fastest,
)
from netx_export.simulation import (
    Simulation,
    answer_type,
    check_inputs,
    check_record,
    check_sums,
    encoded,
    linear,
    read_for,
    recorded,
    spike_type,
)

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
    `netx_export.lava.backend`, of which the results are bit for bit. Beside inputs and results, memory holds one chunk
    of samples a thread.

    Parameters
    ----------
    network : Network or path
        The network, or the NetX HDF5 file it is read from.
    inputs : numpy.ndarray
        Integers, (N, C, H, W, T) or (N, F, T). Values other than 0 and 1 are graded spikes.
    record : sequence of str
        Any of ``"spikes"``, ``"u"``, ``"v"``, or of sigma-delta neurons ``"spikes"``, ``"sigma"``, ``"act"``,
        ``"residue"``: record these for every layer that has them (see `Simulation`).
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
    check_record(record, network)
    for name, number in (("chunk", chunk), ("threads", threads)):
        if number is not None and number < 1:
            raise NetworkError(f"{name} is {number}; give at least 1")
    if not network.spiking:
        raise NetworkError(f"{network.source}: no layer has neurons, so there is nothing to run")
    results = Results(network, inputs.shape[0], inputs.shape[-1], record)
    if device is None:
        device = "cuda" if _sees_gpu() else "cpu"
    if device != "cpu":
        from netx_export.fast.on_torch import run

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
        layers, last = network.spiking, network.spiking[-1]
        self.spikes = np.zeros((samples, *network.shape, steps), answer_type(network))
        self.what = tuple(record)
        self.record = {
            f"{what}.{layer.name}": np.zeros(
                (samples, *layer.shape, steps), spike_type(network) if what == "spikes" else np.int32
            )
            for layer in layers
            for what in recorded(layer, record)
        }
        self.voltage = np.zeros((samples, *last.shape), np.int32) if network.readout == "voltage" else None
        self.counts = np.zeros((len(layers), 4), np.int64)

    def simulation(self) -> Simulation:
        readout = self.spikes.sum(axis=-1, dtype=np.int64)
        if self.voltage is not None:
            readout = linear(self.network.tail, self.voltage)
        readout = readout.reshape(len(self.spikes), -1).astype(np.int64)
        limits = from_counts(self.network, self.counts)
        return Simulation(self.spikes, readout, self.record, limits, self.network.graded)


def _run(
    network: Network, inputs: np.ndarray, results: Results, chunk: int | None, threads: int, progress: bool
) -> None:
    from tqdm import tqdm

    chain = list(plans(network))
    samples, steps = inputs.shape[0], inputs.shape[-1]
    if chunk is None:
        fitting = BUFFER_BYTES // (8 * steps * travelling(chain))
        chunk = max(1, min(fitting, 64, -(-samples // threads)))
    parts = [slice(n, min(n + chunk, samples)) for n in range(0, samples, chunk)]
    pool = ThreadPoolExecutor(min(threads, len(parts)))
    try:
        with tqdm(total=samples, desc="fast", unit="sample", delay=1, leave=False, disable=not progress) as bar:
            started = {pool.submit(_run_chunk, chain, inputs[part], results, part): part for part in parts}
            if not wait(started, 1, FIRST_COMPLETED).done:
                bar.refresh()  # the first run compiles, and large samples take long
            for done in as_completed(started):
                add_counts(results.counts, done.result())
                bar.update(started[done].stop - started[done].start)
    finally:
        pool.shutdown(cancel_futures=True)


def _run_chunk(chain: Sequence[Plan], inputs: np.ndarray, results: Results, part: slice) -> np.ndarray:
    """Simulate some samples into `results`; the counts of `Limits` are returned, as other threads have theirs."""
    from netx_export.fast import kernels as fast_kernels

    run_layer, run_graded = fast_kernels.run_layer, fast_kernels.run_graded
    samples, steps = inputs.shape[0], inputs.shape[-1]
    flat = np.ascontiguousarray(inputs).reshape(samples, -1, steps)
    flat = flat.view(np.uint8) if flat.dtype == bool else flat
    first = _events(flat.size, samples * steps)
    low, high = 0, 1
    if fast_kernels.collect(flat, np.argsort(channels_fastest(inputs.shape[1:-1])).astype(np.int32), first):
        low, high = int(flat.min()), int(flat.max())
    else:
        first = first._replace(value=first.value[:0])
    reach = ranges(results.network, low, high, steps)
    counts = np.zeros_like(results.counts)
    rows = iter(counts)
    events, last = {INPUT: first}, last_users(chain)
    for plan in chain:
        name, spiking = plan.layer.name, plan.layer.neuron is not None
        graded = results.network.graded or not spiking
        out = _events(samples * steps * plan.neurons.size, samples * steps, graded=graded)
        traces = {what: _flat(results.record[f"{what}.{name}"], part) for what in recorded(plan.layer, results.what)}
        final = _NOTHING[:, :, 0]
        if results.voltage is not None and plan.layer is results.network.spiking[-1]:
            final = results.voltage[part].reshape(samples, -1)
        to: Any = GradedRecorded if results.network.graded else Recorded
        to = to(*(traces.get(what, _NOTHING) for what in to._fields[:-1]), final)
        fed = tuple((events[source], synapses) for source, synapses in plan.inputs)
        seen = next(rows) if spiking else np.zeros(4, np.int64)
        if results.network.graded:
            largest = run_graded(samples, steps, fed, plan.neurons, out, plan.order, to, seen)
            check_sums(results.network, plan.layer, int(largest))
        else:
            run_layer(
                samples, steps, fed, plan.feedback, plan.depth, plan.neurons, reach[name], out, plan.order, to, seen
            )
        if "spikes" in traces:
            fast_kernels.spread(out, plan.order, traces["spikes"])
        events[name] = out
        events = {name: each for name, each in events.items() if last.get(name) is not plan.layer}
    fast_kernels.spread(out, chain[-1].order, _flat(results.spikes, part))
    return counts


def _flat(array: np.ndarray, part: slice) -> np.ndarray:
    return array[part].reshape(part.stop - part.start, -1, array.shape[-1])


_NOTHING = np.zeros((0, 1, 1), np.int32)


def _events(most: int, steps: int, graded: bool = True) -> Spikes:
    """Room for spikes; memory is taken up page by page as they come."""
    return Spikes(
        np.empty(most + 1, np.int32), np.empty(most if graded else 0, np.int32), np.empty(steps + 1, np.int64)
    )
