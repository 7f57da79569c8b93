"""The compiled loop that makes frames of what is kept of them; on its own, since Numba takes long to load."""

from __future__ import annotations

import numpy as np

from netx_export.compiled import compiled


@compiled
def scatter(frames: np.ndarray, recording: int, ends: np.ndarray, places: np.ndarray, counts: np.ndarray) -> None:
    """Add counts to a recording's frames, in place.

    Parameters
    ----------
    frames : numpy.ndarray
        (T, N, pixels), an integer type that holds the sums.
    recording : int
        Which of the N.
    ends : numpy.ndarray
        (T,): where in the next two each frame ends.
    places, counts : numpy.ndarray
        Pixel, and what to add to it.
    """
    start = 0
    for t in range(len(ends)):
        for k in range(start, ends[t]):
            frames[t, recording, places[k]] += counts[k]
        start = ends[t]
