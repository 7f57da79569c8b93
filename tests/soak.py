"""Many simulations one after the other, side by side, and on a cluster that loses a worker: does anything pile up?

``python tests/soak.py --runs 1000`` prints, for every backend, what the process holds after the first runs and after
the last ones; ``--only many-fast,together,cluster`` runs a part. Exit code 1 if something grew or differs.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from netx_export import netx, simulate
from netx_export.event.backend import Events
from netx_export.network import Conv, Dense, Flatten, Network, Neuron
from netx_export.passing import PREFIX

T, STEPS, AT_ONCE = 6, 8, 10
GROWTH = 16 << 20
"""Bytes of resident memory that a thousand runs may add; allocators keep some of what they once had."""
LEAST = 20
"""Runs before the first look: what is compiled, imported and kept is there by then."""


@dataclass(frozen=True)
class Held:
    """What this process holds, and what of ours lies about."""

    memory: int
    descriptors: int
    threads: int
    children: int
    shared_memory: int
    folders: int

    @classmethod
    def now(cls) -> Held:
        """Of Linux's /proc, /dev/shm and the temporary folder."""
        time.sleep(0.5)  # threads of the last run may still be ending
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        me, children = os.getpid(), 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            except OSError:  # it has just ended
                continue
            children += int(parent) == me and state != "Z"
        return cls(
            int(status["VmRSS"].split()[0]) << 10,
            len(os.listdir("/proc/self/fd")),
            int(status["Threads"]),
            children,
            sum("netx" in name for name in os.listdir("/dev/shm")),
            sum(name.startswith(PREFIX) for name in os.listdir(tempfile.gettempdir())),
        )

    def grown(self, before: Held) -> list[str]:
        """What there is more of than before, in words."""
        more = {each.name: getattr(self, each.name) - getattr(before, each.name) for each in fields(self)}
        return [f"{name} +{n:,}" for name, n in more.items() if n > (GROWTH if name == "memory" else 0)]


def network(reset: str = "zero") -> Network:
    """A small one of two layers that spike."""
    rng = np.random.default_rng(0)
    conv, dense = 2 * rng.integers(-20, 21, (3, 2, 3, 3)), 2 * rng.integers(-20, 21, (4, 48))
    layers = (
        Conv(in_shape=(2, 6, 6), shape=(3, 4, 4), weight=conv, neuron=Neuron(60)),
        Flatten(in_shape=(3, 4, 4), shape=(48,)),
        Dense(in_shape=(48,), shape=(4,), weight=dense, neuron=Neuron(200)),
    )
    return Network(layers, "count", reset)


def inputs(samples: int) -> np.ndarray:
    """The same for everyone."""
    return np.random.default_rng(1).integers(0, 4, (samples, 2, 6, 6, T))


def once(backend: str, folder: str, samples: int = 2) -> np.ndarray:
    """A run; its readout."""
    path = Path(folder) / ("event.net" if backend == "event" else "clocked.net")
    if backend != "event":
        return simulate(path, inputs(samples), backend, progress=False).readout
    from netx_export.event.backend import simulate as by_events

    sample, c, y, x, t = np.nonzero(inputs(samples))
    order = np.lexsort((t, sample))
    events = Events(*(array[order] for array in (sample, t, c, y, x)), samples)
    return by_events(netx.read(path), events, progress=False).readout


def many(backend: str, folder: str, runs: int) -> dict[str, Any]:
    """One after the other, and what is held before and after."""
    wanted = once(backend, folder)
    first = min(LEAST, max(1, runs // 10))
    for _ in range(first):
        once(backend, folder)
    before, start = Held.now(), time.perf_counter()
    wrong = sum(not np.array_equal(once(backend, folder), wanted) for _ in range(runs))
    seconds, after = time.perf_counter() - start, Held.now()
    faults = after.grown(before) + ([f"{wrong} runs differ"] if wrong else [])
    held = {"before": asdict(before), "after": asdict(after)}
    return {"runs": runs, "seconds": round(seconds, 1), **held, "faults": faults}


def together(folder: str) -> dict[str, Any]:
    """Ten at once, from threads and from processes, of every backend."""
    faults, start = [], time.perf_counter()
    for backend in ("fast", "event", "lava"):
        wanted = once(backend, folder)
        makers: dict[str, Callable[[], Any]] = {
            "threads": lambda: ThreadPoolExecutor(AT_ONCE),
            "processes": lambda: ProcessPoolExecutor(AT_ONCE, get_context("spawn")),
        }
        for name, make in makers.items():
            with make() as pool:
                jobs = [pool.submit(once, backend, folder) for _ in range(AT_ONCE)]
                wrong = sum(not np.array_equal(job.result(), wanted) for job in jobs)
            faults += [f"{backend} from {name}: {wrong} of {AT_ONCE} differ"] if wrong else []
    return {"runs": 6 * AT_ONCE, "seconds": round(time.perf_counter() - start, 1), "faults": faults}


def cluster(folder: str, samples: int) -> dict[str, Any]:
    """So many samples over four worker processes, one of which is killed on the way."""
    import threading

    from distributed import LocalCluster

    path, given = Path(folder) / "clocked.net", inputs(samples)
    wanted = simulate(path, given, "fast", progress=False).readout
    start = time.perf_counter()
    with LocalCluster(n_workers=4, threads_per_worker=1, dashboard_address=":0", silence_logs=50) as workers:
        pids = [worker.pid for worker in workers.workers.values()]
        threading.Timer(1.0, os.kill, (pids[0], signal.SIGKILL)).start()
        got = simulate(path, given, "fast", scheduler=workers.scheduler_address, progress=False).readout
        now = [worker.pid for worker in workers.workers.values()]
    faults = [] if np.array_equal(got, wanted) else ["results differ"]
    faults += [] if pids[0] not in now else ["the worker was not killed"]
    return {"samples": samples, "seconds": round(time.perf_counter() - start, 1), "faults": faults}


def parts(folder: str, runs: int, samples: int) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """What there is to run, by name."""
    for backend in ("fast", "event", "lava"):
        yield f"many-{backend}", lambda backend=backend: many(backend, folder, runs)
    yield "together", lambda: together(folder)
    yield "cluster", lambda: cluster(folder, samples)


def main(arguments: list[str] | None = None) -> int:
    """Run the parts; the exit code says whether all held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, metavar="N", help="of each backend (default 1000)")
    parser.add_argument("--samples", type=int, default=10_000, metavar="N", help="over the cluster (default 10000)")
    parser.add_argument("--only", metavar="PART,...", help="many-fast, many-event, many-lava, together, cluster")
    parser.add_argument("--json", metavar="FILE", type=Path)
    args = parser.parse_args(arguments)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        netx.write(network(), Path(folder) / "clocked.net")
        netx.write(network("subtract"), Path(folder) / "event.net")
        for name, run in parts(folder, args.runs, args.samples):
            if args.only is None or name in args.only.split(","):
                found[name] = run()
                print(f"{name}: {json.dumps(found[name])}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")
    return int(any(each["faults"] for each in found.values()))


if __name__ == "__main__":
    sys.exit(main())
