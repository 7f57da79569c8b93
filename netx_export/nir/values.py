"""Values of NIR nodes as those of the network description."""

from __future__ import annotations

from typing import Any

import numpy as np

from netx_export.network import DECAY_UNITY, NetworkError
from netx_export.nir.graph import Node


def decays(node: Node, dt: float) -> tuple[np.ndarray, np.ndarray]:
    """Current and voltage decay (0..4096) of a neuron's time constants, forward Euler; rounded."""
    if node["type"] == "IF":
        return np.array(DECAY_UNITY), np.array(0)
    taus = [node["tau_syn"], node["tau_mem"]] if node["type"] == "CubaLIF" else [np.array(dt), node["tau"]]
    current, voltage = (DECAY_UNITY * dt / np.asarray(tau, np.float64) for tau in taus)
    return np.rint(current).astype(np.int64), np.rint(voltage).astype(np.int64)


def integers(array: Any) -> np.ndarray:
    """Whole numbers of a floating-point array, as int64.

    Raises
    ------
    NetworkError
        There are others.
    """
    array = np.asarray(array)
    with np.errstate(invalid="ignore"):
        whole = np.isfinite(array) & (array == np.rint(array)) & (np.abs(array) < 1 << 31)
    if not whole.all():
        raise NetworkError(f"holds {array[~whole].flat[0]:.6g}, not integers")
    return array.astype(np.int64)


def pair(value: Any) -> tuple[int, int]:
    """(Height, width) of a field that has one number for both, or two."""
    one, other = np.broadcast_to(np.asarray(value), (2,)).tolist()
    return int(one), int(other)
