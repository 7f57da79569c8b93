"""Values of NIR nodes as those of the network description."""

from __future__ import annotations

from typing import Any

import numpy as np

from netx_export.network import DECAY_UNITY, NetworkError
from netx_export.nir.graph import Node


def decayed(node: Node, dt: float) -> tuple[np.ndarray, np.ndarray]:
    """What a time step takes of current and voltage of neurons with these time constants, forward Euler: 0..1."""
    if node["type"] == "IF":
        return np.array(1.0), np.array(0.0)
    taus = [node["tau_syn"], node["tau_mem"]] if node["type"] == "CubaLIF" else [np.array(dt), node["tau"]]
    current, voltage = (dt / np.asarray(tau, np.float64) for tau in taus)
    return current, voltage


def decays(node: Node, dt: float) -> tuple[np.ndarray, np.ndarray]:
    """Current and voltage decay (0..4096) of a neuron's time constants, forward Euler; rounded."""
    current, voltage = (np.rint(DECAY_UNITY * part).astype(np.int64) for part in decayed(node, dt))
    return current, voltage


def gain(node: Node, dt: float | None) -> np.ndarray:
    """What a unit of input adds to v, forward Euler.

    Raises
    ------
    NetworkError
        The time step is not known, or r is no number that programs write; a leak to another voltage than 0.
    """
    r = np.asarray(node["r"], np.float64)
    if node["type"] in ("IF", "I"):
        if (r == 1).all() or (dt is not None and np.allclose(r * dt, 1)):
            return np.ones(())
        raise NetworkError(f"r {r.flat[0]:.6g} is neither 1 nor 1 / dt; dt is {dt or 'not given: --dt SECONDS'}")
    if dt is None:
        raise NetworkError("has time constants, and the file does not say the time step: give --dt SECONDS")
    if np.any(node["v_leak"]):
        raise NetworkError(f"v_leak {np.ravel(node['v_leak'])[0]:.6g}: only 0 is read")
    if node["type"] == "LIF":
        return r * dt / np.asarray(node["tau"], np.float64)
    taus = np.asarray(node["tau_syn"], np.float64) * np.asarray(node["tau_mem"], np.float64)
    return r * np.asarray(node["w_in"], np.float64) * dt**2 / taus


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
