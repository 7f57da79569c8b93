"""A model of Lava's neurons that counts what their bits are too few for.

A run configuration has to name it; Lava's compiler does not find it by itself.
"""

from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from lava.proc.conv.utils import signed_clamp
from lava.proc.lif.models import PyLifResetModelBitAcc
from lava.proc.lif.process import LIFReset

MOST = (1 << 23) - 1


@implements(proc=LIFReset, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyCountingLifModel(PyLifResetModelBitAcc):
    """Computes what `PyLifResetModelBitAcc` does, and how far u and v went before they were cut.

    The process's parameters: ``counts``, a .npy file for u_max, v_max, wraps and saturations; ``first`` and ``steps``,
    the time steps that count; ``cut``, whether what comes is still to be cut to the 24 bits of a conv process;
    ``varies``, whether the bias changes while it runs.
    """

    def __init__(self, proc_params: dict[str, Any]) -> None:
        super().__init__(proc_params)
        self.counts = np.load(proc_params["counts"], mmap_mode="r+")
        self.first, self.steps, self.cut = (proc_params[name] for name in ("first", "steps", "cut"))
        self.varies = proc_params["varies"]

    def scale_bias(self) -> None:
        if self.varies or not self.isbiasscaled:
            super().scale_bias()

    def subthr_dynamics(self, activation_in: np.ndarray) -> None:
        counts = 0 <= self.time_step - self.first < self.steps
        kept = self._kept(self.u, self.du + self.ds_offset)
        fed = activation_in.astype(np.int64) << self.act_shift
        if self._count(0, kept + fed, counts):
            # As Lava does, in 32 bits, where one turn round 24 bits is all there is, and 2**23 itself stays.
            sums = signed_clamp(activation_in, 24) if self.cut else activation_in
            u = kept.astype(np.int32) + (sums.astype(np.int32) << self.act_shift)
            u = np.where(u > MOST + 1, u - 2 * (MOST + 1), np.where(u <= -MOST - 1, u + 2 * (MOST + 1), u))
        else:
            u = kept + fed
        self.u[:] = u
        v = self._kept(self.v, self.dv + self.dm_offset).astype(np.int32) + self.u + self.effective_bias
        self.v[:] = np.clip(v, -MOST, MOST) if self._count(1, v, counts) else v

    def _kept(self, state: np.ndarray, decay: np.ndarray) -> np.ndarray:
        """What a time step leaves of a state, truncated toward zero."""
        if np.all(decay == 0):
            return state.astype(np.int64)
        if np.all(decay == self.decay_unity):
            return np.zeros(state.shape, np.int64)
        product = np.int64(state) * (self.decay_unity - np.int64(decay))
        return np.sign(product) * (np.abs(product) >> self.decay_shift)

    def _count(self, which: int, state: np.ndarray, counts: bool) -> bool:
        """Count a state (0: u, 1: v) that is yet to be cut, if it `counts`; whether it must be."""
        size = max(int(state.max()), -int(state.min()))
        if counts:
            self.counts[which] = max(self.counts[which], size)
            if size > MOST:
                self.counts[2 + which] += np.count_nonzero(np.abs(np.int64(state)) > MOST)
        return size > MOST
