"""Models of Lava's sigma-delta neurons that start every sample from rest, which Lava's own do not, and count.

A run configuration has to name them; Lava's compiler does not find them by itself.
"""

from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from lava.proc.sdn.models import PyDeltaModelFixed, PySigmaDeltaModelFixed, PySigmaModelFixed
from lava.proc.sdn.process import Delta, Sigma, SigmaDelta

BEYOND = 1 << 23, 1 << 15
"""What neither the 24 bits of the chip's states nor the 16 bits of its messages hold, nor anything further from 0."""


class Starting:
    """Sets the states to 0 before the first time step of every sample; else all is computed by Lava's own model.

    The process's parameters: ``starts``, the first of these time steps and how many there are from one to the next;
    ``counts``, where given, a .npy file for the largest |sigma| and |message| and how often they were `BEYOND` bits;
    ``first`` and ``steps``, the time steps that count.
    """

    states: tuple[str, ...] = ()
    sigma: Any
    time_step: Any
    proc_params: Any

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.starts = self.proc_params["starts"]
        counts = self.proc_params.get("counts")
        self.counts: Any = None if counts is None else np.load(counts, mmap_mode="r+")
        self.sent: Any = None

    def run_spk(self) -> None:
        first, interval = self.starts
        if self.time_step >= first and (self.time_step - first) % interval == 0:
            for name in self.states:
                setattr(self, name, np.zeros_like(getattr(self, name)))
        super().run_spk()  # type: ignore[misc]
        params = self.proc_params
        if self.counts is not None and 0 <= self.time_step - params["first"] < params["steps"]:
            self._count(0, self.sigma)
            if self.sent is not None:
                self._count(1, self.sent)

    def _count(self, which: int, states: np.ndarray) -> None:
        values = states.astype(np.int64)
        self.counts[which] = max(self.counts[which], np.abs(values).max())
        least = (1 - BEYOND[0], -BEYOND[1])[which]  # -2**23 is counted as beyond, as of other neurons
        self.counts[2 + which] += np.count_nonzero((values >= BEYOND[which]) | (values < least))


@implements(proc=Delta, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyStartingDelta(Starting, PyDeltaModelFixed):
    """Input neurons."""

    states = ("act", "residue")


@implements(proc=Sigma, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyStartingSigma(Starting, PySigmaModelFixed):
    """Neurons that send sigma."""

    states = ("sigma",)


@implements(proc=SigmaDelta, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyStartingSigmaDelta(Starting, PySigmaDeltaModelFixed):
    """Neurons of hidden layers."""

    states = ("sigma", "act", "residue")

    def dynamics(self, a_in_data: np.ndarray) -> np.ndarray:
        sent = super().dynamics(a_in_data)
        self.sent = np.right_shift(sent, self.state_exp)
        return sent
