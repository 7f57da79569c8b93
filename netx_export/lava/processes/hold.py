"""A process that passes on what comes, as many time steps later as told."""

from collections import deque
from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol


class Hold(AbstractProcess):
    """Sends in time step t what came in time step t - `wait`; zeros before. With a wait of 0, in the same step."""

    def __init__(self, *, shape: tuple[int, ...], wait: int) -> None:
        super().__init__(shape=shape, wait=wait)
        self.a_in = InPort(shape=shape)
        self.s_out = OutPort(shape=shape)


@implements(proc=Hold, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyHold(PyLoihiProcessModel):
    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)

    def __init__(self, proc_params: dict[str, Any]) -> None:
        super().__init__(proc_params)
        self.held = deque([np.zeros(proc_params["shape"], np.int32)] * proc_params["wait"])

    def run_spk(self) -> None:
        self.held.append(self.a_in.recv())
        self.s_out.send(self.held.popleft())
