"""From trained weights to a chip's integers."""

from __future__ import annotations

import numpy as np

from netx_export.network import THRESHOLD_MAX, NetworkError


def weight_scale(weight: np.ndarray, threshold: float = 1.0, weight_bits: int = 8, name: str = "layer") -> float:
    """Integers a unit of weight, chosen so that the layer's largest weight uses all bits.

    Weights and threshold are multiplied by it alike, which changes nothing that an integrate-and-fire neuron with
    hard reset does. Stored weights are even where signs are mixed (Loihi drops the lowest of nine bits), so eight bits
    reach from -256 to 254.

    Parameters
    ----------
    weight : numpy.ndarray
        Trained weights of one layer.
    threshold : float
        Trained threshold, in the unit of the weights.
    weight_bits : int
        Bits of a stored weight, sign included.
    name : str
        What to call the layer in messages.

    Returns
    -------
    float
        The scale; below `THRESHOLD_MAX` / threshold, so that the threshold fits its 17-bit mantissa.

    Raises
    ------
    NetworkError
        Weights that are not finite, or a threshold that would vanish beside them.

    Examples
    --------
    >>> weight_scale(np.array([-0.5, 0.25]))
    512.0
    """
    weight = np.asarray(weight, dtype=np.float64)
    if not np.isfinite(weight).all():
        raise NetworkError(f"{name}: has weights that are not finite; training diverged: lower the learning rate")
    steps = 1 << (weight_bits - 1)
    # The most negative integer is one step further from zero than the most positive.
    reach = max(weight.max(initial=0) / (steps - 1), -weight.min(initial=0) / steps) / 2
    limit = THRESHOLD_MAX / threshold
    scale = limit if reach == 0 else min(1 / reach, limit)
    if round(scale * threshold) < 1:
        raise NetworkError(
            f"{name}: its largest weight is {np.abs(weight).max():g} times threshold {threshold:g}; "
            f"scaled to {weight_bits} bits the threshold would be 0: train with smaller weights"
        )
    return float(scale)
