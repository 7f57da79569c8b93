"""What neurons sent, counted over samples and time steps in one pass over memory."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from netx_export.compiled import compiled


class Tally(NamedTuple):
    """Counts of `tally`.

    Attributes
    ----------
    sums : numpy.ndarray
        What each neuron sent in all, float64, shaped like the layer.
    spikes : numpy.ndarray
        How often it sent anything, int64.
    graded : bool
        Whether any value was other than -1, 0 and 1.
    """

    sums: np.ndarray
    spikes: np.ndarray
    graded: bool


def tally(signal: np.ndarray) -> Tally:
    """Count what a layer sent.

    Parameters
    ----------
    signal : numpy.ndarray
        (N, C, H, W, T) or (N, F, T) numbers or truth values, in any order of memory; quickest where time is slowest
        and channels come last or first, as the networks here leave it.

    Examples
    --------
    >>> tally(np.array([[[0, 2, 1], [0, 0, 1]]]))
    Tally(sums=array([3., 1.]), spikes=array([2, 1]), graded=True)
    """
    frames, shape = np.moveaxis(signal, -1, 0), signal.shape[1:-1]
    last = len(shape) == 3 and not frames.flags.c_contiguous
    flat = (np.moveaxis(frames, 2, -1) if last else frames).reshape(-1, math.prod(shape))
    counts: list[np.ndarray] = [np.zeros(flat.shape[1]), np.zeros(flat.shape[1], np.int64)]
    graded = bool(_count(flat.view(np.uint8) if flat.dtype == bool else flat, *counts))
    if last:
        counts = [np.moveaxis(each.reshape(*shape[1:], shape[0]), -1, 0) for each in counts]
    sums, spikes = (each.reshape(shape) for each in counts)
    return Tally(sums, spikes, graded)


@compiled
def _count(frames: Any, sums: Any, spikes: Any) -> Any:
    graded = 0
    for now in frames:
        for m in range(len(now)):
            value = now[m]
            sums[m] += value
            spikes[m] += value != 0
            graded |= (value != 0) & (value != 1) & (value != -1)
    return graded
