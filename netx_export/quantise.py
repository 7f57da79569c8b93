"""From trained weights to a chip's integers."""

from __future__ import annotations

import numpy as np

from netx_export.network import THRESHOLD_MAX, NetworkError


def weight_scale(
    weight: np.ndarray,
    threshold: float = 1.0,
    weight_bits: int = 8,
    name: str = "layer",
    *,
    weight_step: int = 2,
    threshold_max: int = THRESHOLD_MAX,
) -> float:
    """Integers a unit of weight, chosen so that the layer's largest weight uses all bits.

    Weights and threshold are multiplied by it alike, which changes nothing that an integrate-and-fire neuron
    does. Loihi's weights are even where signs are mixed (it drops the lowest of nine bits), so eight bits reach from
    -256 to 254; with a step of 1 from -128 to 127.

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
    weight_step : int
        Stored weights are multiples of it.
    threshold_max : int
        Largest threshold the chip can hold.

    Returns
    -------
    float
        The scale; at most `threshold_max` / threshold, so that the threshold fits its mantissa (Loihi: 17 bits).

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
    reach = max(weight.max(initial=0) / (steps - 1), -weight.min(initial=0) / steps) / weight_step
    limit = threshold_max / threshold
    scale = limit if reach == 0 else min(1 / reach, limit)
    if round(scale * threshold) < 1:
        raise NetworkError(
            f"{name}: its largest weight is {np.abs(weight).max():g} times threshold {threshold:g}; "
            f"scaled to {weight_bits} bits the threshold would be 0: train with smaller weights"
        )
    return float(scale)
