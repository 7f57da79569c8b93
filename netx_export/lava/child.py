"""The child process in which Lava runs: ``python -m netx_export.lava.child JOB SOCKET``.

Started by `netx_export.lava.backend` as the leader of a session of its own. JOB is a folder with ``job.json``, a list
of runs, and a folder for the arrays of each. SOCKET is the number of an inherited socket, which every process of the
job holds: the parent reads its end when the last of them has gone, the guard reads a byte when the parent cleans up,
and the end when the parent was killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from netx_export.files import replacing

SHARED_MEMORY = Path("/dev/shm")
"""Where POSIX shared memory and semaphores have their names (Linux)."""


def kill_group(leader: int) -> bool:
    """Kill what is left of the process group that `leader` led; whether there was anything."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def remove_shared_memory(name: str) -> None:
    """Remove the shared memory and semaphores of the run called `name`."""
    if SHARED_MEMORY.is_dir():
        for pattern in (f"{name}*", f"sem.{name}*"):
            for segment in SHARED_MEMORY.glob(pattern):
                segment.unlink(missing_ok=True)


def main(job: Path, socket: int) -> None:
    """Do the runs of the job."""
    runs = json.loads((job / "job.json").read_text())
    if os.fork() == 0:
        _guard(job, socket, runs[0]["name"])
    _name_shared_memory(runs[0]["name"])
    try:
        for number, settings in enumerate(runs):
            last = number == len(runs) - 1
            # Lava is imported once, and runs once in a process.
            if not last and not _in_fork():
                continue
            network = _build(job / str(number), settings)
            _run(job, network, settings)
            if not last:
                os._exit(0)
    except BaseException:
        _fail(job, traceback.format_exc())


def _in_fork() -> bool:
    """Whether this is a new process; the old one goes on when the new one has ended."""
    load()
    process = os.fork()
    if process and os.waitpid(process, 0)[1]:
        os._exit(1)  # it has told why
    return process == 0


def load() -> None:
    """Import Lava and lava-dl's loader."""
    # lava-dl's loader takes one function from SLAYER, for resonate-and-fire neurons, which do not come here, and names
    # one of torch's types: to import them, and torchvision, takes longer than all the rest.
    _stand_in("lava.lib.dl.slayer.neuron.rf", neuron_params=None)
    _stand_in("torch", tensor=object, Tensor=type("Tensor", (), {}))
    from lava.lib.dl import netx  # noqa: F401


def _guard(job: Path, socket: int, name: str) -> NoReturn:
    """Wait in a process of its own, and leave nothing behind should the parent be killed."""
    os.setpgid(0, 0)  # kill_group is not for the guard
    leader = os.getppid()
    parent_cleans_up = os.read(socket, 1) != b""
    if not parent_cleans_up:
        for _ in range(100):
            if not kill_group(leader):
                break
            time.sleep(0.02)  # killed processes stay in the group until init has noticed
        remove_shared_memory(name)
        shutil.rmtree(job, ignore_errors=True)
    os._exit(0)


def _name_shared_memory(name: str) -> None:
    """Make multiprocessing give shared memory and semaphores names that start with `name`, to be found by."""
    from multiprocessing import process, shared_memory

    shared_memory._SHM_NAME_PREFIX = f"/{name}-"  # type: ignore[attr-defined]
    shared_memory._SHM_SAFE_NAME_LENGTH = len(name) + 2 + 8  # type: ignore[attr-defined]
    process.current_process()._config["semprefix"] = f"/{name}"  # type: ignore[attr-defined]


def _fail(job: Path, report: str) -> NoReturn:
    """Hand the parent a traceback and end at once: the other processes wait for each other for ever."""
    with replacing(job / "error.txt") as file:
        file.write_text(report)
    os._exit(1)


def _stand_in(name: str, **attributes: object) -> None:
    """Make imports find a module that has nothing but `attributes`."""
    sys.modules[name] = module = ModuleType(name)
    module.__dict__.update(attributes)


def _build(folder: Path, settings: dict[str, Any]) -> Any:
    """Connect the network of a run with processes that feed and record it; any of its processes, to run it by."""
    load()
    return _build_graph(folder, settings) if "graph" in settings else _build_chain(folder, settings)


def _build_chain(folder: Path, settings: dict[str, Any]) -> Any:
    """Have lava-dl's own loader make the network of its file."""
    from lava.lib.dl import netx
    from lava.proc.conv.process import Conv
    from lava.proc.dense.process import DelayDense

    from netx_export.lava.processes.arrays import ArraySource, BiasSource, BufferReset

    time_steps: int = settings["time_steps"]
    in_shape, graded = tuple(settings["in_shape"]), settings["graded"]
    network = netx.hdf5.Network(
        settings["network"],
        num_layers=settings["num_layers"],
        skip_layers=settings["skip_layers"],
        input_shape=in_shape,
        input_message_bits=settings["message_bits"],
        reset_interval=None if graded else time_steps,
        reset_offset=1,
    )
    network.net_config.f.close()
    feeding = _feeding(folder, settings)
    layers = network.layers
    if settings["encode"] and graded:  # values come to these neurons as their input, in the same time step
        encoder, *layers = layers
        ArraySource(**feeding, shape=in_shape).s_out.connect(encoder.neuron.a_in)
        encoder.neuron.proc_params["starts"] = [1, time_steps]
    elif settings["encode"]:
        encoder, *layers = layers
        BiasSource(**feeding, var=encoder.neuron.bias_mant)
        nothing = {"counts": str(folder / "counts.encoder.npy"), "first": 0, "steps": 0, "cut": False, "varies": True}
        for name, value in () if settings["stock"] else nothing.items():
            encoder.neuron.proc_params[name] = value
    else:
        ArraySource(**feeding, shape=in_shape).s_out.connect(network.inp)
    for index, layer in enumerate(layers):
        # Every layer takes a time step: the neurons of layer `index` get input step t in step t + index + 1.
        first = index + 2 + (settings["encode"] and not graded)
        conv = isinstance(layer.synapse, Conv)
        if graded:
            layer.neuron.proc_params["starts"] = [first, time_steps]
        elif conv and not settings["stock"]:
            layer.synapse.proc_params["uncut"] = True
        out = (network if layer is network.out_layer else layer).out
        _record(folder, settings, index, layer.neuron, out, first, cut=conv)
        # The synapse has read the last input of a sample one step before the neurons get it.
        if isinstance(layer.synapse, DelayDense):
            BufferReset(var=layer.synapse.a_buff, keep=1, first=first - 2, interval=time_steps)
        if hasattr(layer, "synapse_rec"):
            BufferReset(var=layer.synapse_rec.a_buff, keep=0, first=first - 1, interval=time_steps)
    return network


def _build_graph(folder: Path, settings: dict[str, Any]) -> Any:
    """Make the processes of a plan (`netx_export.lava.graph`), and connect them."""
    import numpy as np

    from netx_export.lava.making import make_process
    from netx_export.lava.processes.arrays import ArraySource

    time_steps: int = settings["time_steps"]
    made: list[Any] = []
    inputs: list[Any] = []
    outputs: list[Any] = []
    with np.load(folder / "graph.npz", allow_pickle=False) as arrays:
        for number, (kind, time, numbers, names) in enumerate(settings["graph"]):
            given = {name: arrays[f"{number}.{name}"] for name in names}
            if kind == "source":
                process: Any = ArraySource(**_feeding(folder, settings), shape=tuple(settings["in_shape"]), wait=time)
                ports = None, process.s_out
            else:
                process, *both = make_process(kind, time, numbers, given, time_steps)
                ports = both[0], both[1]
            if kind == "neurons":
                _record(folder, settings, numbers["layer"], process, process.s_out, time + 1, cut=numbers["cut"])
            made.append(process)
            inputs.append(ports[0])
            outputs.append(ports[1])
    for source, target, flat in settings["connections"]:
        out = outputs[source]
        (out.transpose([2, 1, 0]).flatten() if flat else out).connect(inputs[target])
    return made[0]


def _feeding(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "path": str(folder / "input.npy"),
        "progress": str(folder.parent / "progress.npy"),
        "steps_before": settings["steps_before"],
    }


def _record(
    folder: Path, settings: dict[str, Any], index: int, neuron: Any, out: Any, first: int, *, cut: bool
) -> None:
    """Have a layer's neurons counted, and recorded from time step `first` on; `cut` as in their model that counts."""
    from netx_export.lava.processes.arrays import SpikeSink, StateSink

    if not settings["stock"]:
        counting = {"first": first, "steps": settings["rows"], "cut": cut, "varies": False}
        for name, value in (counting | {"counts": str(folder / f"counts.{index}.npy")}).items():
            neuron.proc_params[name] = value
    for what in settings["record"][index]:
        path = str(folder / f"{what}.{index}.npy")
        if what == "spikes":
            out.connect(SpikeSink(path=path, shape=out.shape, first=first).a_in)
        elif what == "readout":
            time_steps, answer = settings["time_steps"], getattr(neuron, settings["answer"])
            StateSink(path=path, var=answer, first=first - 1 + time_steps, every=time_steps)
        else:
            StateSink(path=path, var=getattr(neuron, what), first=first)


def _run(job: Path, network: Any, settings: dict[str, Any]) -> None:
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg
    from lava.proc.conv.process import Conv
    from lava.proc.lif.process import LIFReset
    from lava.proc.sdn.process import Delta, Sigma, SigmaDelta

    from netx_export.lava import channels as lava_channels
    from netx_export.lava.processes.conv import PySparseConvModel
    from netx_export.lava.processes.neuron import PyCountingLifModel
    from netx_export.lava.processes.sigma_delta import PyStartingDelta, PyStartingSigma, PyStartingSigmaDelta

    models = {Delta: PyStartingDelta, Sigma: PyStartingSigma, SigmaDelta: PyStartingSigmaDelta}
    if not settings["stock"]:
        lava_channels.install()
        models |= {Conv: PySparseConvModel, LIFReset: PyCountingLifModel}
    run_cfg = Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=models)
    over = threading.Event()
    threading.Thread(target=_watch_workers, args=(job, network, over), daemon=True).start()
    try:
        network.run(condition=RunSteps(num_steps=settings["steps"]), run_cfg=run_cfg)
    except BaseException:
        _fail(job, _worker_tracebacks(network) or traceback.format_exc())
    over.set()
    network.stop()


def _watch_workers(job: Path, network: Any, over: threading.Event) -> None:
    """End everything when one of Lava's processes ends before the run does: the others would wait for it for ever."""
    while not over.wait(0.05):
        with contextlib.suppress(ChildProcessError):
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is not None and not over.wait(0.2):  # by then its traceback has arrived
                how = "status" if ended.si_code == os.CLD_EXITED else "signal"
                killed = f"process {ended.si_pid} of Lava ended with {how} {ended.si_status} before the run was over\n"
                _fail(job, _worker_tracebacks(network) or killed)


def _worker_tracebacks(network: Any) -> str:
    actors = network.runtime._messaging_infrastructure.actors if network.runtime else []
    return "\n".join(actor.exception[1] for actor in actors if actor.exception)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
