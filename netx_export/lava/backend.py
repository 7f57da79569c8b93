"""Simulation on Lava's CPU models of Loihi, in a supervised child process.

Lava waits for ever when one of its processes fails, and leaves processes and shared memory behind when it is killed.
So it runs in a session of its own (`netx_export.lava.child`), which this module ends in every case; should this process
itself be killed, a guard in that session does it.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from netx_export.fast import backend as fast_backend
from netx_export.lava.child import kill_group, remove_shared_memory
from netx_export.lava.graph import Plan
from netx_export.lava.interpreter import interpreter
from netx_export.limits import from_counts
from netx_export.network import Average, Flatten, Network, NetworkError
from netx_export.netx.fields import is_graph
from netx_export.netx.read import holds_graph
from netx_export.passing import passing_folder
from netx_export.simulation import (
    Simulation,
    SimulationError,
    answer_type,
    check_inputs,
    check_record,
    is_graded,
    linear,
    read_for,
    recorded,
    spike_type,
)

STALL_SECONDS = 600.0
"""A run without a time limit ends with an error when no time step is done for this long."""


def simulate(
    path: str | os.PathLike[str],
    inputs: np.ndarray,
    *,
    time_limit: float | None = None,
    progress: bool = True,
    record: Sequence[str] = (),
    stock: bool = False,
    encode: bool = False,
) -> Simulation:
    """Run the network of a NetX file on Lava (``Loihi2SimCfg(select_tag="fixed_pt")``), all samples in one run.

    Every sample starts from rest: neurons are reset, and spikes under way in delays and recurrent synapses are
    forgotten. Layers are aligned: time step t of every result answers input time step t.

    Parameters
    ----------
    path : path
        NetX HDF5 file. Of a chain lava-dl's own loader makes the network; a graph is built from Lava's own processes
        (`netx_export.lava.graph`).
    inputs : numpy.ndarray
        Integers, (N, C, H, W, T) or (N, F, T). Values other than 0 and 1 are fed as graded spikes.
    time_limit : float, optional
        Seconds the run may take, start of Lava (some 3 s) included. Without it there is no limit, except that a run
        in which no time step is done for ten minutes is ended.
    progress : bool
        Show a bar on stderr, after the first second.
    record : sequence of str
        Any of ``"spikes"``, ``"u"``, ``"v"``, or of sigma-delta neurons ``"spikes"``, ``"sigma"``, ``"act"``,
        ``"residue"``: record these for every layer that has them (see `Simulation`).
    stock : bool
        Run Lava as it is, without the quicker model of convolutions (`netx_export.lava.processes.conv`), the
        quicker channels (`netx_export.lava.channels`) and the neurons that count (`netx_export.lava.processes.neuron`):
        the same integers, several times slower, and no ``limits``.
    encode : bool
        `inputs` are values for the file's input neurons, their biases in every time step, instead of the spikes that
        enter the first layer.

    Raises
    ------
    NetworkError
        The file or the input is not what it must be, or has a layer that lava-dl's loader, or of a graph Lava's own
        processes, do not run.
    SimulationError
        Lava failed, was killed or took too long. No process and no shared memory is left, here as in every other case.
    """
    return simulate_each(
        [(path, inputs)], time_limit=time_limit, progress=progress, record=record, stock=stock, encode=encode
    )[0]


def simulate_each(
    runs: Sequence[tuple[str | os.PathLike[str], np.ndarray]],
    *,
    time_limit: float | None = None,
    progress: bool = True,
    record: Sequence[str] = (),
    stock: bool = False,
    encode: bool = False,
) -> list[Simulation]:
    """Run several NetX files, each on an input of its own, one after the other in a child that imports Lava once.

    Parameters, results and errors are those of `simulate`; the time limit is for all together.
    """
    name = f"netx-{secrets.token_hex(6)}"
    with passing_folder() as job:
        np.save(job / "progress.npy", np.zeros(1, np.int64))
        networks = [read_for(path, inputs, for_lava=True, encode=encode) for path, inputs in runs]
        settings: list[dict[str, Any]] = []
        steps = 0
        for number, (network, (_, inputs)) in enumerate(zip(networks, runs, strict=True)):
            run = _prepare(job / str(number), network, inputs, record, encode)
            settings.append(run | {"name": name, "steps_before": steps, "stock": stock})
            steps += run["steps"]
        (job / "job.json").write_text(json.dumps(settings))
        _supervise(job, name, steps, time_limit, progress)
        return [
            _results(job / str(number), network, len(inputs), record, stock)
            for number, (network, (_, inputs)) in enumerate(zip(networks, runs, strict=True))
        ]


def _is_graph_file(network: Network) -> bool:
    """Whether the file of a network holds a graph; a chain with an average at its end looks like one."""
    return is_graph(network) and (not network.is_chain or holds_graph(network.source))


def _prepare(folder: Path, network: Network, inputs: np.ndarray, record: Sequence[str], encode: bool) -> dict[str, Any]:
    """Make the folder through which the child gets the input of a run and gives its results; the run's settings."""
    check_record(record, network)
    check_inputs(network, inputs, encode=encode)
    samples, time_steps = inputs.shape[0], inputs.shape[-1]
    layers = network.spiking
    if not layers:
        raise NetworkError(f"{network.source}: no layer has neurons, so there is nothing to run")
    if network.graded:  # Lava would go on with sums that its processes cannot hold; these are refused by name there
        fast_backend.simulate(network, inputs, encode=encode, progress=False, device="cpu")
    plan = Plan(network, inputs) if _is_graph_file(network) else None
    wanted = [recorded(layer, record) for layer in layers]
    if "spikes" not in wanted[-1]:
        wanted[-1].append("spikes")
    if network.readout == "voltage":
        wanted[-1].append("readout")
    folder.mkdir()
    rows = _to_lava(inputs, flat=plan is None and isinstance(network.layers[0], Flatten) and not encode)
    np.save(folder / "input.npy", rows)
    for index, layer in enumerate(layers):
        for what in wanted[index]:
            shape = (samples if what == "readout" else samples * time_steps, *reversed(layer.shape))
            dtype = spike_type(network) if what == "spikes" else np.int32
            np.lib.format.open_memmap(folder / f"{what}.{index}.npy", mode="w+", dtype=dtype, shape=shape)
        np.save(folder / f"counts.{index}.npy", np.zeros(4, np.int64))
    if encode:
        np.save(folder / "counts.encoder.npy", np.zeros(4, np.int64))
    assert layers[-1].neuron is not None
    settings = {
        "in_shape": rows.shape[1:],
        "time_steps": time_steps,
        "rows": samples * time_steps,
        "record": wanted,
        "answer": layers[-1].neuron.answer,
    }
    if plan is not None:
        arrays = {f"{i}.{name}": array for i, each in enumerate(plan.processes) for name, array in each.arrays.items()}
        np.savez(folder / "graph.npz", **arrays)
        return settings | {
            "graph": [(each.kind, each.time, each.numbers, list(each.arrays)) for each in plan.processes],
            "connections": plan.connections,
            "steps": samples * time_steps + plan.late,
        }
    encoder, last = network.encoder, network.layers[-1]
    return settings | {
        "network": os.path.abspath(network.source),
        "message_bits": 32 if network.graded or is_graded(inputs) else 0,
        "encode": encode,
        "graded": network.graded,
        # Of an input entry with neurons lava-dl makes a layer to which nothing can be connected.
        "skip_layers": 0 if encode or encoder is None else encoder.number + 1,
        # An average, which its loader refuses, is taken of what is before it.
        "num_layers": network.numbers[-1] if isinstance(last, Average) else None,
        "steps": samples * time_steps + len(layers) + encode,
    }


def _results(folder: Path, network: Network, samples: int, record: Sequence[str], stock: bool) -> Simulation:
    """What a run has left in its folder."""

    def result(what: str, index: int) -> np.ndarray:
        return _from_lava(np.load(folder / f"{what}.{index}.npy"), samples)

    layers = network.spiking
    last = len(layers) - 1
    spikes = result("spikes", last)
    voltage = result("readout", last)[..., 0] if network.readout == "voltage" else None
    traces = {
        f"{what}.{layer.name}": result(what, index)
        for index, layer in enumerate(layers)
        for what in recorded(layer, record)
    }
    counts = None if stock else [np.load(folder / f"counts.{index}.npy") for index in range(len(layers))]
    limits = None if counts is None else from_counts(network, counts)
    tail = network.tail
    if tail:
        each = linear(tail, np.moveaxis(spikes, -1, 1).reshape(-1, *spikes.shape[1:-1]))
        each = np.moveaxis(each.reshape(samples, -1, *network.shape), 1, -1)
        spikes = np.ascontiguousarray(each, answer_type(network))
        voltage = None if voltage is None else linear(tail, voltage)
    readout = spikes.sum(axis=-1, dtype=np.int64) if voltage is None else voltage
    return Simulation(spikes, readout.reshape(samples, -1).astype(np.int64), traces, limits, network.graded)


def _to_lava(inputs: np.ndarray, flat: bool) -> np.ndarray:
    """(N, C, H, W, T) to (N*T, W, H, C), or (N*T, C*H*W) if `flat`; (N, F, T) to (N*T, F)."""
    if flat:
        inputs = inputs.reshape(len(inputs), -1, inputs.shape[-1])
    rows = inputs.transpose(0, *range(inputs.ndim - 1, 0, -1))
    return np.ascontiguousarray(rows.reshape(-1, *rows.shape[2:]), np.int32)


def _from_lava(rows: np.ndarray, samples: int) -> np.ndarray:
    """(N*T, W, H, C) to (N, C, H, W, T); (N*T, F) to (N, F, T)."""
    array = rows.reshape(samples, -1, *rows.shape[1:])
    return np.ascontiguousarray(array.transpose(0, *range(array.ndim - 1, 0, -1)))


def _command(job: Path, inherited: int) -> list[str]:
    return [interpreter(), "-m", "netx_export.lava.child", str(job), str(inherited)]


def _supervise(job: Path, name: str, steps: int, time_limit: float | None, progress: bool) -> None:
    """Run the job in a child process to its end; leave no process and no shared memory, whatever happens."""
    from tqdm import tqdm

    ours, theirs = socket.socketpair()
    # Only this package is the child's own: what is installed beside it may be for another Python.
    (job / "path").mkdir()
    (job / "path" / "netx_export").symlink_to(Path(__file__).parents[1])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(job / "path"), os.environ.get("PYTHONPATH")])),
        "TMPDIR": str(job),  # multiprocessing's sockets
    }
    started = time.monotonic()
    with ours, (job / "log.txt").open("wb") as log:
        with theirs:
            child = subprocess.Popen(
                _command(job, theirs.fileno()),
                cwd=job,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        try:
            done = np.load(job / "progress.npy", mmap_mode="r")
            seen, moved, said = 0, started, False
            with tqdm(
                total=steps, desc="starting Lava", unit="step", delay=1, leave=False, disable=not progress
            ) as bar:
                while child.poll() is None:
                    time.sleep(0.05)
                    now, step = time.monotonic(), int(done[0])
                    if step > seen:
                        if seen == 0:
                            bar.unpause()  # the start of Lava says nothing about the time left
                            bar.set_description("Lava", refresh=False)
                        bar.update(step - seen)
                        seen, moved = step, now
                    elif not said and now - started > 1:
                        said = True
                        bar.refresh()
                    if time_limit is not None and now - started > time_limit:
                        raise SimulationError(
                            f"Lava took longer than the time limit of {time_limit:g} s: "
                            f"{step} of {steps} time steps were done"
                        )
                    if time_limit is None and now - moved > STALL_SECONDS:
                        raise SimulationError(
                            f"Lava did no time step for {STALL_SECONDS:g} s: {step} of {steps} were done"
                        )
        finally:
            child.kill()
            status = child.wait()
            kill_group(child.pid)
            remove_shared_memory(name)
            with contextlib.suppress(OSError):  # there is no guard any more
                ours.sendall(b".")
            # Readable, with the end, when the last process that holds the other side has gone.
            select.select([ours], [], [], 10)
            for _ in range(10):
                if not kill_group(child.pid):
                    break
                time.sleep(0.02)  # Python's resource tracker does not hold it; init may be slow to collect the dead
            remove_shared_memory(name)
    if status:
        raise SimulationError(_reason(job, status))


def _reason(job: Path, status: int) -> str:
    """One line and the traceback."""
    if status < 0:
        line = f"the child process in which Lava ran was ended by {signal.Signals(-status).name}"
        report = (job / "log.txt").read_text(errors="replace")
    else:
        error = job / "error.txt"
        report = (error if error.exists() else job / "log.txt").read_text(errors="replace")
        last = report.strip().splitlines()[-1:] or ["no message"]
        line = f"Lava failed: {last[0]}"
    return f"{line}\n\n{report}".strip()
