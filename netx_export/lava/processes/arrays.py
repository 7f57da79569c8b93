"""Processes between Lava and .npy files.

Time steps count from 1, as Lava's do. An array's first axis is time; its other axes are Lava's, (W, H, C) or (F,).
Memory-mapped files carry the data: Lava itself hands over Vars value by value, 16 to 33 us each.
"""

from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort, PyRefPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort, RefPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.process.variable import Var
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol


class ArraySource(AbstractProcess):
    """Sends row t - 1 - `wait` of the array at `path` in time step t, and zeros before the first and behind the last.

    The number of time steps done, with `steps_before` this run, is kept in the one-element array at `progress`.
    """

    def __init__(self, *, path: str, progress: str, steps_before: int, shape: tuple[int, ...], wait: int = 0) -> None:
        super().__init__(path=path, progress=progress, steps_before=steps_before, shape=shape, wait=wait)
        self.s_out = OutPort(shape=shape)


@implements(proc=ArraySource, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyArraySource(PyLoihiProcessModel):
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)

    def __init__(self, proc_params: dict[str, Any]) -> None:
        super().__init__(proc_params)
        self.rows = np.load(proc_params["path"], mmap_mode="r")
        self.done = np.load(proc_params["progress"], mmap_mode="r+")
        self.steps_before, self.wait = proc_params["steps_before"], proc_params["wait"]
        self.blank = np.zeros(self.rows.shape[1:], self.rows.dtype)

    def run_spk(self) -> None:
        self.done[0] = self.steps_before + self.time_step - 1
        row = self.time_step - 1 - self.wait
        self.s_out.send(self.rows[row] if 0 <= row < len(self.rows) else self.blank)


class BiasSource(AbstractProcess):
    """Makes row t - 1 of the array at `path` the bias of neurons in time step t + 1; progress as in `ArraySource`."""

    def __init__(self, *, path: str, progress: str, steps_before: int, var: Var) -> None:
        super().__init__(path=path, progress=progress, steps_before=steps_before)
        self.state = RefPort(shape=var.shape)
        self.state.connect_var(var)


@implements(proc=BiasSource, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyBiasSource(PyLoihiProcessModel):
    state: PyRefPort = LavaPyType(PyRefPort.VEC_DENSE, np.int32)

    def __init__(self, proc_params: dict[str, Any]) -> None:
        super().__init__(proc_params)
        self.rows = np.load(proc_params["path"], mmap_mode="r")
        self.done = np.load(proc_params["progress"], mmap_mode="r+")
        self.steps_before = proc_params["steps_before"]

    def post_guard(self) -> bool:
        self.done[0] = self.steps_before + self.time_step - 1
        return self.time_step <= len(self.rows)

    def run_post_mgmt(self) -> None:
        self.state.write(self.rows[self.time_step - 1])
        self.state.wait()


class SpikeSink(AbstractProcess):
    """Writes what arrives in time step `first` + k to row k of the array at `path`."""

    def __init__(self, *, path: str, shape: tuple[int, ...], first: int) -> None:
        super().__init__(path=path, shape=shape, first=first)
        self.a_in = InPort(shape=shape)


@implements(proc=SpikeSink, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PySpikeSink(PyLoihiProcessModel):
    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)

    def __init__(self, proc_params: dict[str, Any]) -> None:
        super().__init__(proc_params)
        self.rows = np.load(proc_params["path"], mmap_mode="r+")
        self.first = proc_params["first"]

    def run_spk(self) -> None:
        data = self.a_in.recv()
        row = self.time_step - self.first
        if 0 <= row < len(self.rows):
            self.rows[row] = data


class StateSink(AbstractProcess):
    """Writes a Var, as it is at the end of time step `first` + k * `every`, to row k of the array at `path`."""

    def __init__(self, *, path: str, var: Var, first: int, every: int = 1) -> None:
        super().__init__(path=path, first=first, every=every)
        self.state = RefPort(shape=var.shape)
        self.state.connect_var(var)


@implements(proc=StateSink, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyStateSink(PyLoihiProcessModel):
    state: PyRefPort = LavaPyType(PyRefPort.VEC_DENSE, np.int32)

    def __init__(self, proc_params: dict[str, Any]) -> None:
        super().__init__(proc_params)
        self.rows = np.load(proc_params["path"], mmap_mode="r+")
        self.first = proc_params["first"]
        self.every = proc_params["every"]

    def post_guard(self) -> bool:
        row, rest = divmod(self.time_step - self.first, self.every)
        return rest == 0 and 0 <= row < len(self.rows)

    def run_post_mgmt(self) -> None:
        self.rows[(self.time_step - self.first) // self.every] = self.state.read()


class BufferReset(AbstractProcess):
    """Forgets, at the end of every time step `first` + k * `interval`, what a synapse holds for later time steps.

    Lava resets neurons, not synapses: spikes under way in delays or recurrent synapses would reach the next sample.

    Parameters
    ----------
    var : Var
        Input not yet delivered, (neurons,) or (neurons, delays + 1).
    keep : int
        Number of columns of (neurons, delays + 1) that are due within the sample, and stay.
    """

    def __init__(self, *, var: Var, keep: int, first: int, interval: int) -> None:
        super().__init__(keep=keep, first=first, interval=interval)
        self.state = RefPort(shape=var.shape)
        self.state.connect_var(var)


@implements(proc=BufferReset, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyBufferReset(PyLoihiProcessModel):
    state: PyRefPort = LavaPyType(PyRefPort.VEC_DENSE, np.int32)

    def __init__(self, proc_params: dict[str, Any]) -> None:
        super().__init__(proc_params)
        self.keep = proc_params["keep"]
        self.first = proc_params["first"]
        self.interval = proc_params["interval"]

    def post_guard(self) -> bool:
        return (self.time_step - self.first) % self.interval == 0

    def run_post_mgmt(self) -> None:
        buffer = self.state.read()
        buffer[..., self.keep :] = 0
        self.state.write(buffer)
        self.state.wait()
