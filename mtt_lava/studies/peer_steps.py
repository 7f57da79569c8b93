"""Training steps of plain PyTorch and of other libraries' neurons; as a program, those that another Python has.

Imports PyTorch only, and a peer when asked, so that it runs in an environment without this package. Started without
an argument it prints as JSON which peers there are. With a peer's name it answers every line of JSON on stdin, a `Job`,
with a line that says how long a step of it took; it ends where stdin does.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

PEERS = ("spikingjelly", "snntorch", "sinabs", "norse")
"""Names of packages; in this order they are measured."""
KEPT = 0.5
"""Of the membrane voltage, from one time step to the next."""


class Job(NamedTuple):
    """What a step is made of.

    Attributes
    ----------
    layers : list of list
        ``["conv", inputs, outputs, kernel, stride, padding]``, ``["pool", kernel, stride]`` or
        ``["dense", inputs, outputs]``.
    input : list of int
        (C, H, W).
    time_steps, batch : int
    threads : int
        Of the CPU.
    device : str
        As PyTorch names it.
    neurons : bool
        Batch norm and neurons after every convolution; without, the layers alone.
    channels_last : bool
    """

    layers: list[list[Any]]
    input: list[int]
    time_steps: int
    batch: int
    threads: int
    device: str
    neurons: bool = True
    channels_last: bool = False


Neurons = Callable[[Job], torch.nn.Module]
"""Makes neurons that take and give (T * N, C, H, W)."""


def stack(job: Job, neurons: Neurons | None) -> torch.nn.Sequential:
    """Layers over images; with batch norm and `neurons` after convolutions."""
    modules: list[torch.nn.Module] = []
    for kind, *numbers in job.layers:
        if kind == "conv":
            modules.append(torch.nn.Conv2d(*numbers, bias=False))  # type: ignore[misc]
            modules += [] if neurons is None else [torch.nn.BatchNorm2d(numbers[1]), neurons(job)]
        elif kind == "pool":
            modules.append(torch.nn.AvgPool2d(*numbers))
        else:
            modules += [torch.nn.Flatten(), torch.nn.Linear(*numbers, bias=False)]  # type: ignore[misc]
    return torch.nn.Sequential(*modules)


def step_of(job: Job, neurons: Neurons | None, time_axis: int = 0) -> Callable[[], None]:
    """A step over all samples and time steps as images: forward, backward and AdamW.

    There are T * N images, or N * T where the `time_axis` is 1; the loss is the cross entropy of the mean over time.
    """
    layout = torch.channels_last if job.channels_last else torch.contiguous_format
    network = stack(job, neurons).to(job.device, memory_format=layout)  # type: ignore[call-overload]
    images = (torch.rand(job.time_steps * job.batch, *job.input) < 0.1).float().to(job.device, memory_format=layout)
    labels = torch.randint(10, (job.batch,), device=job.device)
    optimiser = torch.optim.AdamW(network.parameters())
    shape = (job.batch, job.time_steps) if time_axis else (job.time_steps, job.batch)

    def step() -> None:
        optimiser.zero_grad()
        F.cross_entropy(network(images).unflatten(0, shape).mean(time_axis), labels).backward()
        optimiser.step()

    return step


def measured(step: Callable[[], None], device: str, peak: bool = False) -> tuple[float, float | None]:
    """Milliseconds of a step; and with `peak` the most megabytes held beyond what was held before.

    Those are of PyTorch's memory on a GPU, of the process on a CPU, and None where the system does not say.
    """
    gpu, before = device.startswith("cuda"), None
    if peak and gpu:
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    elif peak:
        with suppress(OSError):
            with suppress(AttributeError):  # glibc: what has been freed goes back, so that the peak is seen from below
                ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts from now
            before = _held("VmRSS")
    if gpu:
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    step()
    if gpu:
        torch.cuda.synchronize(device)
    milliseconds = 1000 * (time.perf_counter() - start)
    if before is None:
        return milliseconds, None
    return milliseconds, max(0, (torch.cuda.max_memory_allocated(device) if gpu else _held("VmHWM")) - before) / 2**20


def _held(field: str) -> int:
    """Bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


class _OverTime(torch.nn.Module):
    """What works on (T, N, ...), for (T * N, ...)."""

    def __init__(self, time_steps: int, neurons: torch.nn.Module) -> None:
        super().__init__()
        self.time_steps, self.neurons = time_steps, neurons

    def forward(self, current: torch.Tensor) -> torch.Tensor:
        """Spikes of currents."""
        spikes: torch.Tensor = self.neurons(current.unflatten(0, (self.time_steps, -1)))
        return spikes.flatten(0, 1)


class _Called(torch.nn.Module):
    """A module called in another way than on its input alone."""

    def __init__(self, module: torch.nn.Module, call: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.module, self.call = module, call

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As `call` has it."""
        return self.call(self.module, x)


def _spikingjelly(job: Job) -> torch.nn.Module:
    """All time steps in one call, for which it has its own kernels on a GPU; a triangle for the spike."""
    base = "spikingjelly.activation_based"
    neuron, surrogate = import_module(f"{base}.neuron"), import_module(f"{base}.surrogate")
    reset = import_module(f"{base}.functional").reset_net
    lif = neuron.LIFNode(
        tau=1 / (1 - KEPT),
        decay_input=False,
        surrogate_function=surrogate.PiecewiseQuadratic(),
        detach_reset=True,
        step_mode="m",
    )

    def call(module: torch.nn.Module, current: torch.Tensor) -> torch.Tensor:
        reset(module)
        spikes: torch.Tensor = module(current)
        return spikes

    return _OverTime(job.time_steps, _Called(lif, call))


def _snntorch(job: Job) -> torch.nn.Module:
    """A time step after the other; its neurons over all time steps at once have no reset."""
    surrogate = import_module("snntorch.surrogate")
    leaky = import_module("snntorch").Leaky(
        beta=KEPT, spike_grad=surrogate.atan(), reset_mechanism="zero", init_hidden=True
    )

    def call(module: Any, current: torch.Tensor) -> torch.Tensor:
        module.reset_mem()
        return torch.stack([module(now) for now in current])

    return _OverTime(job.time_steps, _Called(leaky, call))


def _sinabs(job: Job) -> torch.nn.Module:
    """Its layer over (N * T, ...); it has no triangle, its exponential stands for the spike."""
    layers, activation = import_module("sinabs.layers"), import_module("sinabs.activation")
    lif = layers.LIFSqueeze(
        tau_mem=-1 / math.log(KEPT),
        batch_size=job.batch,
        spike_fn=activation.SingleSpike,
        reset_fn=activation.MembraneReset(),
        norm_input=False,
    ).requires_grad_(False)

    def call(module: Any, current: torch.Tensor) -> torch.Tensor:
        module.reset_states()
        spikes: torch.Tensor = module(current)
        return spikes

    return _Called(lif, call)


def _norse(job: Job) -> torch.nn.Module:
    """Its cell without a synaptic current, lifted over time; a triangle for the spike."""
    norse, tensor = import_module("norse.torch"), torch.as_tensor
    parameters = norse.LIFBoxParameters(tau_mem_inv=tensor(1000 * (1 - KEPT)), method="triangle", alpha=tensor(1.0))
    lif = norse.Lift(norse.LIFBoxCell(parameters, dt=0.001))
    return _OverTime(job.time_steps, _Called(lif, lambda module, current: module(current)[0]))


MAKERS: dict[str, Neurons] = dict(zip(PEERS, (_spikingjelly, _snntorch, _sinabs, _norse), strict=True))


def _found() -> dict[str, str]:
    """Versions: of Python, PyTorch, and the peers there are."""
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    for peer in PEERS:
        with suppress(PackageNotFoundError):
            versions[peer] = version(peer)
    return versions


def _serve(peer: str) -> None:
    """Answer jobs with the milliseconds of a step and, where ``peak`` is asked for, megabytes."""
    # What libraries print must not stand between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    steps: dict[str, Callable[[], None]] = {}
    for line in sys.stdin:
        content = json.loads(line)
        peak, job = content.pop("peak"), Job(**content)
        key = json.dumps(content)
        if key not in steps:
            torch.set_num_threads(job.threads)
            torch.manual_seed(0)
            steps[key] = step_of(job, MAKERS[peer] if job.neurons else None, int(peer == "sinabs"))
        milliseconds, megabytes = measured(steps[key], job.device, peak)
        print(json.dumps([milliseconds, megabytes]), file=answers, flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _serve(sys.argv[1])
    else:
        print(json.dumps(_found()))
