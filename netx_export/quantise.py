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
    reach_max: float | None = None,
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
    reach_max : float, optional
        Largest sum that the integer weights of one sign into one neuron (one index of the first axis) may have:
        `netx_export.bounds.largest_sum` says with which the 24 bits of the current cannot wrap, whatever the input. By
        default sums are not looked at. Training goes on after rounding, and can make them larger again.

    Returns
    -------
    float
        The scale; at most `threshold_max` / threshold, so that the threshold fits its mantissa (Loihi: 17 bits), and
        small enough for `reach_max`.

    Raises
    ------
    NetworkError
        Weights that are not finite, or a threshold that would vanish beside them or beside their sums.

    Examples
    --------
    >>> weight_scale(np.array([-0.5, 0.25]))
    512.0
    >>> weight_scale(np.array([[0.5, 0.5, 0.5, 0.5]]), reach_max=256.0)
    128.0
    """
    weight = np.asarray(weight, dtype=np.float64)
    if not np.isfinite(weight).all():
        raise NetworkError(f"{name}: has weights that are not finite; training diverged: lower the learning rate")
    steps = 1 << (weight_bits - 1)
    # The most negative integer is one step further from zero than the most positive.
    largest = max(weight.max(initial=0) / (steps - 1), -weight.min(initial=0) / steps) / weight_step
    limit = threshold_max / threshold
    scale = limit if largest == 0 else min(1 / largest, limit)
    if round(scale * threshold) < 1:
        raise NetworkError(
            f"{name}: its largest weight is {np.abs(weight).max():g} times threshold {threshold:g}; "
            f"scaled to {weight_bits} bits the threshold would be 0: train with smaller weights"
        )
    if reach_max is None:
        return float(scale)
    while (reach := _reach(weight, scale, weight_step)) > reach_max:
        # By a half per mille at least: rounding can keep the sum where it is.
        scale *= min(reach_max / reach, 0.9995)
        if round(scale * threshold) < 1:
            raise NetworkError(
                f"{name}: weights of one sign into a neuron add up to {_reach(weight, 1, 0):g} times threshold "
                f"{threshold:g}; with integers that add up to at most {reach_max:g} the threshold would be 0: use "
                f"fewer inputs, or smaller weights"
            )
    return float(scale)


def _reach(weight: np.ndarray, scale: float, step: int) -> float:
    """Largest sum of one sign into a neuron, of weights scaled and rounded to multiples of a step (0: not rounded)."""
    size = np.abs(weight.reshape(len(weight), -1)) * scale
    if step:
        # What lies halfway may be rounded up, by training in 32 bits too.
        size = step * np.floor(size / step + 0.5001)
    positive = weight.reshape(size.shape) > 0
    return float(max(np.where(positive, size, 0).sum(axis=1).max(), np.where(positive, 0, size).sum(axis=1).max()))
