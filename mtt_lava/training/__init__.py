"""Training: Algorithm 1 of the paper, then the way to the chip's integers.

First phase: surrogate-gradient training with normalised currents, a backward pass for every temporal configuration and
one optimiser step a mini-batch. Then calibration of the norms, what becomes of biases, folding of the norms and
quantisation (`mtt_lava.training.phases`). Second phase: the same training through the quantised forward.

Every random choice depends on the seed and the number of the epoch or step only, so that a run that was stopped goes
on exactly as it would have, and on several devices as on one.
"""

from mtt_lava.training.engine import memory_kept
from mtt_lava.training.loop import Trainer, train, train_base

__all__ = ["Trainer", "memory_kept", "train", "train_base"]
