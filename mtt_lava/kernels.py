"""Compiled loops of the neuron (`mtt_lava.neuron`): all time steps in one pass over memory, forward and backward.

Arrays are float32, (T, M): time, then everything else. They compute what the functions of the same names in
`mtt_lava.neuron` do in PyTorch: forward bit for bit, backward within rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numba import njit

compiled = njit(nogil=True, cache=True, error_model="numpy")
BLOCK = 2048
"""Neurons at a time: their voltages stay in the first cache while time goes on."""
SMALL = 1 << 15
"""Values below which a second thread costs more than it gives."""


@compiled
def _decayed(v, kept, unit, exact):  # type: ignore[no-untyped-def]
    # A 24-bit state times a 12-bit factor does not fit float32.
    return np.float32(np.trunc(np.float64(v) * (unit * kept)) / unit) if exact else np.float32(v * np.float32(kept))


@compiled
def fire_zero(current, voltage, spikes, begin, end, threshold, kept, unit, limit, exact):  # type: ignore[no-untyped-def]
    """Hard reset: current to voltage before the reset, and spikes."""
    zero, one = np.float32(0), np.float32(1)
    state = np.empty(BLOCK, np.float32)
    for start in range(begin, end, BLOCK):
        size = min(BLOCK, end - start)
        state[:size] = 0
        for t in range(len(current)):
            now, out, fired = current[t, start : start + size], voltage[t, start : start + size], spikes[t]
            fired = fired[start : start + size]
            if kept != 1:
                for i in range(size):
                    state[i] = _decayed(state[i], kept, unit, exact)
            for i in range(size):
                v = state[i] + now[i]
                if exact:
                    v = min(max(v, -limit), limit)
                out[i] = v
                above = v > threshold
                fired[i] = one if above else zero
                state[i] = zero if above else v


@compiled
def fire_subtract(current, voltage, spikes, begin, end, threshold, kept, unit, limit, exact):  # type: ignore[no-untyped-def]
    """Soft reset: as many spikes as thresholds, each taken from the voltage, which stays above the negative one."""
    zero = np.float32(0)
    state = np.empty(BLOCK, np.float32)
    for start in range(begin, end, BLOCK):
        size = min(BLOCK, end - start)
        state[:size] = 0
        for t in range(len(current)):
            now, out, fired = current[t, start : start + size], voltage[t, start : start + size], spikes[t]
            fired = fired[start : start + size]
            if kept != 1:
                for i in range(size):
                    state[i] = _decayed(state[i], kept, unit, exact)
            for i in range(size):
                v = state[i] + now[i]
                out[i] = v
                n = max(np.floor(v / threshold), zero)
                fired[i] = n
                state[i] = max(v - threshold * n, -threshold)


@compiled
def _falling(x):  # type: ignore[no-untyped-def]
    """exp(-x) for x >= 0, to five digits: a short series and eight squarings, which fill vector registers."""
    y = np.float32(min(x, np.float32(32.0)) * np.float32(-1 / 256))
    y = np.float32(1) + y * (np.float32(1) + y * (np.float32(0.5) + y * np.float32(1 / 6)))
    y *= y
    y *= y
    y *= y
    y *= y
    y *= y
    y *= y
    y *= y
    return y * y


@compiled
def slope_zero(gradient, voltage, result, begin, end, threshold, kept, width, kind):  # type: ignore[no-untyped-def]
    """Gradient of the spikes to that of the current, hard reset; kinds as `mtt_lava.neuron.SURROGATES`."""
    zero, one, kept, peak = np.float32(0), np.float32(1), np.float32(kept), np.float32(1 / width)
    per_tau, height = np.float32(1 / (100 * width)), np.float32(0.1 / (200 * width))
    after = np.empty(BLOCK, np.float32)
    for start in range(begin, end, BLOCK):
        size = min(BLOCK, end - start)
        after[:size] = 0
        for t in range(len(gradient) - 1, -1, -1):
            g, v = gradient[t, start : start + size], voltage[t, start : start + size]
            out = result[t, start : start + size]
            if kind == 0:
                for i in range(size):
                    slope = max(peak - abs(v[i] - threshold) * peak * peak, zero)
                    out[i] = g[i] * slope + (kept * after[i] if v[i] <= threshold else zero)
                    after[i] = out[i]
            elif kind == 1:
                for i in range(size):
                    slope = height * _falling(abs(v[i] - threshold) * per_tau)
                    # SLAYER lets the gradient pass through a reset; the paper's recursion stops there.
                    out[i] = g[i] * slope + kept * after[i]
                    after[i] = out[i]
            elif kind == 2:
                for i in range(size):
                    slope = peak * _falling(abs(v[i] - threshold) * peak)
                    through = kept * after[i] * max(one - slope * threshold, zero) if v[i] <= threshold else zero
                    out[i] = g[i] * slope + through
                    after[i] = out[i]
            else:
                for i in range(size):
                    slope = np.float32(0.5) * peak if abs(v[i] - threshold) <= width else zero
                    out[i] = g[i] * slope + (kept * after[i] if v[i] <= threshold else zero)
                    after[i] = out[i]


@compiled
def slope_subtract(gradient, voltage, result, begin, end, threshold, kept, width):  # type: ignore[no-untyped-def]
    """Gradient of the spikes to that of the current, soft reset."""
    zero, one, kept = np.float32(0), np.float32(1), np.float32(kept)
    per_width, per_threshold = np.float32(1 / width), np.float32(1 / threshold)
    after = np.empty(BLOCK, np.float32)
    for start in range(begin, end, BLOCK):
        size = min(BLOCK, end - start)
        after[:size] = 0
        for t in range(len(gradient) - 1, -1, -1):
            g, v = gradient[t, start : start + size], voltage[t, start : start + size]
            out = result[t, start : start + size]
            for i in range(size):
                slope = _falling(max(threshold - v[i], zero) * per_width)
                through = after[i] * (one - slope) if v[i] > -threshold else zero
                x = g[i] * (slope * per_threshold) + through
                out[i] = x
                after[i] = x * kept


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


_FIRE: dict[str, Callable[..., None]] = {"zero": fire_zero, "subtract": fire_subtract}
_SLOPE: dict[str, Callable[..., None]] = {"zero": slope_zero, "subtract": slope_subtract}
_KINDS = {"triangular": 0, "exponential": 1, "laplace": 2, "rectangular": 3}


def fire(
    reset: str,
    current: torch.Tensor,
    voltage: torch.Tensor,
    spikes: torch.Tensor,
    threshold: float,
    kept: float,
    unit: int,
    limit: float,
    exact: bool,
) -> None:
    """Fill in voltage before the reset, and spikes, of contiguous current (T, ...)."""
    numbers = (np.float32(threshold), float(kept), float(unit), np.float32(limit), bool(exact))
    _run(_FIRE[reset], (current, voltage, spikes), numbers)


def slope(
    reset: str,
    gradient: torch.Tensor,
    voltage: torch.Tensor,
    threshold: float,
    kept: float,
    width: float,
    surrogate: str | None = None,
) -> torch.Tensor:
    """The gradient of the current (T, ...) from that of the spikes; soft reset has one surrogate only."""
    gradient = gradient.contiguous()
    result = torch.empty_like(gradient)
    kind = () if surrogate is None else (_KINDS[surrogate],)
    numbers = (np.float32(threshold), float(kept), np.float32(width), *kind)
    _run(_SLOPE[reset], (gradient, voltage, result), numbers)
    return result


def _run(kernel: Callable[..., None], arrays: Sequence[torch.Tensor], numbers: tuple[Any, ...]) -> None:
    """Run a kernel on (T, ...) float32 tensors of the CPU, its neurons shared out among PyTorch's threads."""
    flat = [array.view(len(array), -1).numpy() for array in arrays]
    steps, size = flat[0].shape
    threads = torch.get_num_threads() if steps * size >= SMALL else 1
    part = -(-size // threads // 16) * 16 or size
    bounds = [(start, min(start + part, size)) for start in range(0, size, part)]
    if len(bounds) == 1:
        kernel(*flat, 0, size, *numbers)
        return
    for done in [_pool(threads).submit(kernel, *flat, *bound, *numbers) for bound in bounds]:
        done.result()
