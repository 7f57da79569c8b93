"""One simulation spread over several processes: on this machine, or on a Dask cluster.

Samples are independent, so chunks of them are. A chunk travels as an array and the NetX file as its bytes, so a worker
needs this package and nothing else. A chunk whose worker dies runs again on another.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Collection, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import reduce
from multiprocessing import connection
from pathlib import Path
from typing import Any

import numpy as np

from netx_export.backends import BACKENDS
from netx_export.limits import Limits, merged
from netx_export.network import Network, NetworkError
from netx_export.netx import NetxWarning
from netx_export.passing import passing_folder, remove_abandoned, remove_mine
from netx_export.simulation import Simulation, SimulationError, check_inputs, check_record, read_for, simulate
from netx_export.text import UserError

CHUNK_BYTES = 16 << 20
"""Inputs and results of a chunk of samples take about this much, unless a single sample needs more."""
ATTEMPTS = 3
"""A chunk that ends so many worker processes of ours fails; on Dask, its ``allowed-failures`` counts."""
CONNECT_SECONDS = 10.0
"""A Dask scheduler must answer within this time."""
NO_WORKER_SECONDS = 60.0
"""A Dask cluster may be without a worker for this long."""

Finished = Generator[tuple[slice, Simulation], None, None]
"""Chunks as they come back, in any order."""


@dataclass(frozen=True)
class Job:
    """What is the same for all chunks: the NetX file, and how to simulate it."""

    name: str
    content: bytes
    backend: str
    options: dict[str, Any]


def run_chunk(job: Job, inputs: np.ndarray) -> Simulation:
    """Simulate some samples; this runs in a worker."""
    with passing_folder() as folder:
        path = folder / job.name
        path.write_bytes(job.content)
        return simulate(path, inputs, job.backend, progress=False, **job.options)


def spread(
    path: str | os.PathLike[str],
    inputs: np.ndarray,
    backend: str,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    progress: bool = True,
    time_limit: float | None = None,
    record: Sequence[str] = (),
    **options: Any,
) -> Simulation:
    """Run the network of a NetX file in several processes; the result is that of one process, bit for bit.

    Parameters
    ----------
    path : path
        NetX HDF5 file; workers need no access to it.
    inputs : numpy.ndarray
        Integers, (N, C, H, W, T) or (N, F, T). A few chunks of them are under way at a time.
    backend : str
        See `netx_export.simulation.simulate`.
    workers : int, optional
        Number of processes on this machine. They share its cores, and end with this call and with this process,
        however it ends.
    scheduler : str, optional
        Instead of `workers`: address of the scheduler of a running Dask cluster, such as ``tcp://host:8786``. Its
        workers must have this package, in the same version. They may come and go.
    progress : bool
        Show a bar on stderr, after the first second.
    time_limit : float, optional
        Seconds that everything may take.
    record : sequence of str
        See `netx_export.simulation.simulate`.
    **options
        Go to the backend.

    Raises
    ------
    NetworkError
        The file, the input or an option is not what it must be.
    SimulationError
        A backend failed, a chunk ended one worker after the other, time ran out, or there is no cluster.
    """
    from tqdm import tqdm

    if (workers is None) == (scheduler is None):
        raise NetworkError("give either a number of workers or the address of a Dask scheduler")
    if workers is not None and workers < 1:
        raise NetworkError(f"workers is {workers}; give at least 1")
    encode = bool(options.get("encode"))
    network = read_for(path, inputs, encode=encode)
    check_inputs(network, inputs, encode=encode)
    check_record(record, network)
    if time_limit is not None:
        options["time_limit"] = time_limit  # so that it ends on other machines too
    if backend == "fast":
        # A Dask worker gets as many chunks at a time as it has threads.
        cores = len(os.sched_getaffinity(0)) // workers if workers is not None else 1
        options.setdefault("threads", max(1, cores))
    job = Job(Path(path).name, Path(path).read_bytes(), backend, {"record": tuple(record), **options})
    chunks = _Chunks(network, inputs, job)
    over = _Deadline(time_limit)
    finished = _on_processes(job, chunks, workers, over) if workers else _on_dask(job, chunks, str(scheduler), over)
    whole: dict[str, np.ndarray] = {}
    limits: list[dict[str, Limits] | None] = []
    with (
        closing(finished),
        tqdm(total=len(inputs), desc=backend, unit="sample", delay=1, leave=False, disable=not progress) as bar,
    ):
        for samples, result in finished:
            for name, array in {"spikes": result.spikes, "readout": result.readout, **result.record}.items():
                if name not in whole:
                    whole[name] = np.empty((len(inputs), *array.shape[1:]), array.dtype)
                whole[name][samples] = array
            limits.append(result.limits)
            bar.update(samples.stop - samples.start)
    limits_ = reduce(merged, limits)
    return Simulation(whole.pop("spikes"), whole.pop("readout"), whole, limits_, network.graded)


class _Chunks:
    """The inputs, cut."""

    def __init__(self, network: Network, inputs: np.ndarray, job: Job) -> None:
        self.inputs = inputs
        # The narrowest type travels fastest.
        self.dtype = np.promote_types(np.min_scalar_type(inputs.min()), np.min_scalar_type(inputs.max()))
        values = int(np.prod(network.shape)) + sum(
            4 * int(np.prod(layer.shape)) * len(job.options["record"]) for layer in network.spiking
        )
        sample = int(np.prod(network.in_shape)) * self.dtype.itemsize + values
        backend = BACKENDS[job.backend]
        self.a_worker = backend.chunks
        self.most = max(1, min(backend.samples, CHUNK_BYTES // (sample * inputs.shape[-1])))

    def slices(self, workers: int) -> list[slice]:
        samples = len(self.inputs)
        size = min(self.most, -(-samples // (workers * self.a_worker)))
        return [slice(n, min(n + size, samples)) for n in range(0, samples, size)]

    def __getitem__(self, samples: slice) -> np.ndarray:
        return self.inputs[samples].astype(self.dtype)


class _Deadline:
    def __init__(self, time_limit: float | None) -> None:
        self.time_limit = time_limit
        self.started = time.monotonic()

    def check(self) -> None:
        if self.time_limit is not None and time.monotonic() - self.started > self.time_limit:
            raise SimulationError(f"the simulation took longer than the time limit of {self.time_limit:g} s")


def _numbers(samples: slice) -> str:
    return f"samples {samples.start}..{samples.stop - 1}"


# ------------------------------------------------------------------------------------------------ on this machine


def _on_processes(job: Job, chunks: _Chunks, number: int, over: _Deadline) -> Finished:
    slices = chunks.slices(number)
    waiting = [(samples, 1) for samples in reversed(slices)]
    workers = [_Worker() for _ in slices[:number]]
    finished, failed_starts = 0, 0
    try:
        while finished < len(slices):
            heard = connection.wait([worker.pipe for worker in workers], timeout=0.5)
            over.check()
            for worker in [worker for worker in workers if worker.pipe in heard]:
                task = worker.task
                try:
                    answer = worker.pipe.recv()
                except (EOFError, OSError):
                    workers.remove(worker)
                    ended = worker.end(died=True)
                    if not worker.started:
                        failed_starts += 1
                        _check_start(ended, failed_starts)
                    if task is not None:
                        samples, attempt = task
                        if attempt == ATTEMPTS:
                            raise SimulationError(
                                f"{_numbers(samples)}: the worker process that simulated them {ended}, {ATTEMPTS} times"
                                f"{_remedy(ended)}"
                            ) from None
                        waiting.append((samples, attempt + 1))
                    workers.append(_Worker())
                    continue
                worker.started, worker.task = True, None
                if waiting and not isinstance(answer, Exception):
                    worker.give(job, chunks, waiting.pop())
                if isinstance(answer, Exception):
                    raise answer
                if task is not None:
                    finished += 1
                    yield task[0], answer
    finally:
        for worker in workers:
            worker.end()
        remove_abandoned()  # those of the killed


def _check_start(ended: str, times: int) -> None:
    """Refuse to try once more to start a worker: the script starts workers itself, or something kills them."""
    if "killed" not in ended:
        raise SimulationError(
            f"a worker process {ended} before it had anything to do (see above for why); a script must ask for workers "
            f"below `if __name__ == '__main__':`"
        )
    if times >= ATTEMPTS:
        raise SimulationError(f"a worker process {ended} while it started, {times} times{_remedy(ended)}")


def _remedy(ended: str) -> str:
    return " (by the system, for want of memory?); try fewer workers" if "SIGKILL" in ended else ""


class _Worker:
    """A process of ours that simulates the chunk it was given last. Pipes, unlike queues, need no semaphores."""

    def __init__(self) -> None:
        # Not by fork, which copies the locks of threads.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.started = False
        self.task: tuple[slice, int] | None = None
        self._process = context.Process(target=_serve, args=(theirs,))
        self._process.start()
        theirs.close()  # so that its death ends the pipe

    def give(self, job: Job, chunks: _Chunks, task: tuple[slice, int]) -> None:
        self.task = task
        with suppress(OSError):  # it has just died, which the pipe will say
            self.pipe.send((run_chunk, job, chunks[task[0]]))

    def end(self, died: bool = False) -> str:
        """Kill it, whatever it does; return how it ended."""
        self._process.join(5 if died else 0)  # its pipe has ended, and it is about to
        self._process.kill()
        self._process.join()
        self.pipe.close()
        code = self._process.exitcode or 0
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _serve(pipe: connection.Connection) -> None:
    """Life of a worker: Ctrl-C is for the parent to handle, and the worker does not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore", NetxWarning)  # the parent has read the file too
    threading.Thread(target=_end_with_parent, daemon=True).start()
    pipe.send(None)
    while True:
        run, job, inputs = pipe.recv()
        try:
            answer = run(job, inputs)
        except (UserError, SimulationError) as error:
            answer = error
        except Exception as error:
            answer = SimulationError(f"a worker failed: {type(error).__name__}: {error}\n{traceback.format_exc()}")
        pipe.send(answer)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    remove_mine()
    os.kill(os.getpid(), signal.SIGKILL)


# ------------------------------------------------------------------------------------------------ on a Dask cluster


def _on_dask(job: Job, chunks: _Chunks, address: str, over: _Deadline) -> Finished:
    try:
        import dask
        import distributed
    except ImportError:
        raise SimulationError(
            "a scheduler needs Dask, which is not installed: uv sync --extra cluster, or pip install distributed"
        ) from None
    # Chunks are sent with their tasks, of which the scheduler keeps few at a time: so no worker's death can lose one.
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1GB"}):
        client = _connect(distributed, address)
        with client, client.as_current():
            try:
                yield from _with_client(client, job, chunks, over)
            except (OSError, distributed.client.FutureCancelledError) as error:
                raise SimulationError(f"the Dask scheduler at {address!r} was lost: {error}") from None


def _connect(distributed: Any, address: str) -> Any:
    # A client would wait for ever for a server that takes connections and is no scheduler, and noisily.
    async def identity() -> None:
        arguments = distributed.Security().get_connection_args("client")
        async with distributed.rpc(address, connection_args=arguments) as scheduler:
            await asyncio.wait_for(scheduler.identity(), CONNECT_SECONDS)

    try:
        with ThreadPoolExecutor(1) as thread:  # a notebook's own thread runs an event loop already
            thread.submit(lambda: asyncio.run(identity())).result()
        return distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except asyncio.TimeoutError:
        reason = f"not within {CONNECT_SECONDS:g} s"
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
    except Exception:  # such as MemoryError, at what a web server answers
        reason = "what answers is none"
    raise SimulationError(f"no Dask scheduler answers at {address!r}: {reason}")


def _with_client(client: Any, job: Job, chunks: _Chunks, over: _Deadline) -> Finished:
    import distributed

    waiting: Iterator[slice] | None = None
    # As a task, the job is made again should the worker that holds it die; scattered data would be lost.
    shared = client.submit(_same, job, pure=False)
    running: dict[Any, slice] = {}
    seen_worker = time.monotonic()
    while True:
        threads = sum(client.nthreads().values())
        if threads:
            seen_worker = time.monotonic()
            if waiting is None:
                waiting = iter(chunks.slices(threads))
            while len(running) < 2 * threads and (samples := next(waiting, None)) is not None:
                running[client.submit(run_chunk, shared, chunks[samples], pure=False)] = samples
            if not running:
                return
        elif time.monotonic() - seen_worker > NO_WORKER_SECONDS:
            raise SimulationError(f"the Dask cluster has had no worker for {NO_WORKER_SECONDS:g} s")
        _wait(distributed, running)
        over.check()
        for future in [future for future in running if future.done()]:
            samples = running.pop(future)
            yield samples, _result(distributed, future, samples)


def _wait(distributed: Any, futures: Collection[Any]) -> None:
    if not futures:
        time.sleep(0.2)
    with suppress(distributed.TimeoutError):
        distributed.wait(list(futures), timeout=1, return_when="FIRST_COMPLETED")


def _result(distributed: Any, future: Any, samples: slice) -> Simulation:
    try:
        return future.result()
    except distributed.KilledWorker:
        raise SimulationError(
            f"{_numbers(samples)}: every Dask worker that had them to simulate died (for want of memory?)"
        ) from None
    except ImportError as error:
        raise SimulationError(f"the Dask workers cannot run this package; install the same version: {error}") from None


def _same(job: Job) -> Job:
    return job
