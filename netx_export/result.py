"""What runs have in common, whatever the backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Activity:
    """What a network did in one sample, on average.

    Parameters
    ----------
    time_steps : int or None
        None without a clock.
    inputs : numpy.ndarray
        Shape of the network's input: events of every input (a graded spike is one).
    spikes : sequence of numpy.ndarray
        For every layer with neurons, in its shape: spikes of every neuron.
    graded : bool
        Whether inputs carry other values than 0 and 1.
    """

    time_steps: int | None
    inputs: np.ndarray
    spikes: Sequence[np.ndarray]
    graded: bool = False

    def __repr__(self) -> str:
        time = "without a clock" if self.time_steps is None else f"T = {self.time_steps}"
        fired = ", ".join(f"{layer.sum():,.0f}" for layer in self.spikes)
        return f"<Activity {time}: {self.inputs.sum():,.0f} input events, {fired} spikes a sample by layer>"
