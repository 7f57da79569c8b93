"""Where training runs: on which device, in how many processes that share each mini-batch, and where numbers are logged.

One device needs PyTorch alone. Several, on this machine or by torchrun on many, and loggers are Lightning Fabric's.
"""

from __future__ import annotations

import ctypes
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import torch

from mtt_lava import together
from mtt_lava.run import RunError
from netx_export.text import UserError, unknown

ACCELERATORS = ("auto", "cpu", "cuda")
LOGGERS = ("csv", "tensorboard")
LOGS = "logs"
"""Folder of the loggers' files in a run folder."""
_Result = TypeVar("_Result")


@contextmanager
def memory_kept() -> Iterator[None]:
    """Let what is freed stay with the process (glibc), so that a step takes what the last one gave back.

    Else the system takes back what is large, and clears it again when it is next asked for: a tenth of a step.
    """

    def tell(trim: int, mmap: int) -> None:
        with suppress(OSError, AttributeError):
            libc = ctypes.CDLL(None)
            libc.mallopt(-1, trim)
            libc.mallopt(-3, mmap)
            libc.malloc_trim(0)

    tell(1 << 30, 1 << 30)
    try:
        yield
    finally:
        tell(64 << 20, 32 << 20)  # where glibc's own adjustment ends, which has stopped now that it has been told


class Engine:
    """A device, and the processes of one training.

    Parameters
    ----------
    devices : int
        How many of this machine; each but the first gets a process of its own, which starts the same program anew and
        ends with the training. Under torchrun, which has started them, 1 stands for what it was told.
    accelerator : {"auto", "cpu", "cuda"}
        "auto": GPUs where PyTorch sees any.
    log : sequence of str
        Of `LOGGERS`.
    folder : pathlib.Path, optional
        Run folder; the loggers' files go to its folder `LOGS`.

    Attributes
    ----------
    device : torch.device
    rank, processes : int
        Which of how many processes this is; they may be on several machines.

    Raises
    ------
    RunError
        A device that there is not, an unknown logger, or a package that is missing.
    """

    def __init__(
        self, devices: int = 1, accelerator: str = "auto", log: Sequence[str] = (), folder: Path | None = None
    ) -> None:
        if accelerator not in ACCELERATORS:
            raise RunError(unknown("accelerator", accelerator, ACCELERATORS))
        for name in log:
            if name not in LOGGERS:
                raise RunError(unknown("logger", name, LOGGERS))
        if log and folder is None:
            raise RunError("loggers write into the run folder: name one")
        if devices < 1:
            raise RunError(f"devices is {devices}; give at least 1")
        seen = torch.cuda.device_count()
        if accelerator == "cuda" and not seen:
            raise RunError("accelerator 'cuda': PyTorch sees no GPU here")
        self.kind = "cuda" if seen and accelerator != "cpu" else "cpu"
        self.rank, self.processes, self._fabric = 0, 1, None
        nodes, started = 1, "TORCHELASTIC_RUN_ID" in os.environ
        if started:
            here, everywhere = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
            if devices not in (1, here):
                raise RunError(f"devices is {devices}, but torchrun has started {here} processes here: leave it out")
            devices, nodes = here, everywhere // here
        if self.kind == "cuda" and devices > seen:
            raise RunError(f"devices is {devices}, but PyTorch sees {seen} GPUs here")
        if devices == 1 and not started and not log:
            self.device = torch.device(self.kind)
            return
        self._fabric = fabric = _fabric(self.kind, devices, nodes, log, folder)
        if devices * nodes > 1:
            if torch.distributed.is_initialized():
                raise RunError("this process has trained on several devices already: start another program")
            fabric.launch()
        self.device, self.rank, self.processes = fabric.device, fabric.global_rank, fabric.world_size
        together.join(self.processes)

    def __repr__(self) -> str:
        return f"<Engine: {self.device}, process {self.rank + 1} of {self.processes}>"

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def first_does(self, action: Callable[[], _Result]) -> _Result | None:
        """What the first process finds; the others wait for it, get None, and end in silence where it fails."""
        result, error = None, None
        if self.first:
            try:
                result = action()
            except (UserError, OSError) as raised:
                error = raised
        (failed,) = together.summed(torch.tensor([float(error is not None)], device=self.device)).tolist()
        if error is not None:
            raise error
        if failed:
            raise SystemExit(2)
        return result

    def mine(self, chosen: torch.Tensor) -> torch.Tensor:
        """The part of a mini-batch that this process runs."""
        return chosen[self.rank :: self.processes]

    def summed(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of these values over all processes; on the CPU."""
        return together.summed(values.to(self.device)).cpu() if self.processes > 1 else values

    def synchronise(self, parameters: Sequence[torch.Tensor], more: Sequence[float]) -> list[float]:
        """Sum up gradients over processes in one message, and more numbers with them, which are returned."""
        if self.processes == 1:
            return [*more]
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([*(g.flatten() for g in gradients), torch.tensor(more, device=self.device)])
        *parts, numbers = together.summed(flat).split([*(g.numel() for g in gradients), len(more)])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
        return [float(x) for x in numbers]

    def same(self, network: torch.nn.Module) -> None:
        """Give every process the first one's tensors: what is computed in each may differ in the last digit."""
        if self.processes > 1:
            for value in network.state_dict().values():
                torch.distributed.broadcast(value, 0)

    def log(self, values: dict[str, float], step: int) -> None:
        """Hand numbers to the loggers."""
        if self._fabric is not None and self.first:
            self._fabric.log_dict(values, step)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Let the loggers write what they hold, and the processes part; all but the first end."""
        if self._fabric is None:
            return
        for logger in self._fabric.loggers if self.first else ():
            logger.finalize("success")
        together.join(1)
        if kind is None and self.processes > 1:
            torch.distributed.barrier()
            if self.kind == "cuda":  # Gloo, on CPUs, waits for ever for the others, which have gone
                torch.distributed.destroy_process_group()
            if not self.first:
                raise SystemExit(0)


def _fabric(kind: str, devices: int, nodes: int, log: Sequence[str], folder: Path | None) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from lightning_fabric import Fabric
            from lightning_fabric.loggers import CSVLogger, TensorBoardLogger

            logging.getLogger("lightning_fabric").setLevel(logging.ERROR)  # who starts whom is for nobody
            makers: dict[str, Any] = {"csv": CSVLogger, "tensorboard": TensorBoardLogger}
            assert folder is not None or not log
            loggers = [makers[name](str(folder / LOGS), name=name) for name in log]  # type: ignore[operator]
            return Fabric(accelerator=kind, devices=devices, num_nodes=nodes, loggers=loggers)
    except ImportError as error:
        raise RunError(
            f"several devices and loggers need the extra `training` (pip install 'mtt-lava[training]'): {error}"
        ) from None
