"""Compiled loops of the neuron (`mtt_lava.neuron`): all time steps in one pass over memory, forward and backward.

A pass goes from synaptic input to spikes, or from the gradient of the spikes to that of the synaptic input: decay of
the current, the norm's factor and offset, voltage, saturation, threshold, reset and surrogate. Nothing in between is
stored: backward computes the voltages again, a few neurons at a time, in the first caches.

Arrays are float32, (T, M): time, then everything else, in whatever order it lies in memory. The channel of neuron m is
``m // inner % channels``: `inner` is 1 where channels lie next to each other, else the size of a map. They compute what
`mtt_lava.neuron` does in PyTorch: forward bit for bit where there is no norm, everything else within rounding.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch

from netx_export.compiled import compiled

BLOCK = 2048
"""Neurons at a time, at most."""
CACHED = 1 << 15
"""Values of all time steps of a block: they stay in the second cache."""
EPS = float(np.finfo(np.float32).eps)
SMALL = 1 << 18
"""Values below which a second thread costs more than it gives."""


class Dynamics(NamedTuple):
    """Constants of a layer's neurons, as the loops take them.

    Attributes
    ----------
    threshold : float
    kept, passed_on : float
        What a time step leaves of the voltage, and of the current.
    unit : float
        Chip integers a unit of current and voltage.
    limit : float
        Where the voltage saturates.
    exact, subtract : bool
        Chip arithmetic; soft reset.
    width : float
        Half the surrogate's width.
    surrogate : int
        Its number in `KINDS`; soft reset has one only.
    """

    threshold: Any
    kept: Any
    passed_on: Any
    unit: Any
    limit: Any
    exact: Any
    subtract: Any
    width: Any
    surrogate: Any


KINDS = {"triangular": 0, "exponential": 1, "laplace": 2, "rectangular": 3}


# ------------------------------------------------------------------------------------------------ of a block


@compiled
def _blocks(steps, inner, channels):  # type: ignore[no-untyped-def]
    """Neurons of a block, and whether all blocks meet the same channels: then these are laid out once."""
    block = max(64, min(BLOCK, CACHED // steps // 64 * 64))
    alike = inner == 1 and 0 < channels <= block
    return (block // channels * channels if alike else block), alike


@compiled
def _spread(of, start, inner, out):  # type: ignore[no-untyped-def]
    """Each neuron's value of its channel."""
    size, channels = len(out), len(of)
    channel, left, i = start // inner % channels, inner - start % inner, 0
    while i < size:
        # Loops, and no slices: there are few channels, and a slice costs as much as eight values.
        if inner == 1:
            n = min(channels - channel, size - i)
            for j in range(n):
                out[i + j] = of[channel + j]
            channel = 0
        else:
            n, value = min(left, size - i), of[channel]
            for j in range(n):
                out[i + j] = value
            left, channel = inner, (channel + 1) % channels
        i += n


@compiled
def _add(one, two, totals):  # type: ignore[no-untyped-def]
    """Sums over time of a block's neurons, to those of all blocks so far."""
    for i in range(len(one)):
        totals[0, i] += one[i]
        totals[1, i] += two[i]


@compiled
def _collect(totals, start, inner, sums):  # type: ignore[no-untyped-def]
    """Add each neuron's totals to the sums of its channel, and forget them."""
    size, channels = totals.shape[1], sums.shape[1]
    for k in range(2):
        channel, left, i = start // inner % channels, inner - start % inner, 0
        while i < size:
            if inner == 1:
                n = min(channels - channel, size - i)
                for j in range(n):
                    sums[k, channel + j] += totals[k, i + j]
                channel = 0
            else:
                n, total = min(left, size - i), 0.0
                for j in range(n):
                    total += totals[k, i + j]
                sums[k, channel] += total
                left, channel = inner, (channel + 1) % channels
            i += n
    totals[:] = 0


@compiled
def _filter(now, state, out, passed_on, unit):  # type: ignore[no-untyped-def]
    """A time step of the decaying current, in integers as SLAYER has it, exact or not."""
    for i in range(len(out)):
        state[i] = np.trunc(state[i] * passed_on) + np.trunc(np.float64(now[i]) * unit)
        out[i] = np.float32(state[i] / unit)


@compiled
def _advance(state, now, voltage, spikes, d):  # type: ignore[no-untyped-def]
    """A time step: current to voltage before the reset, spikes, and the state behind it."""
    zero, one, threshold, limit, size = np.float32(0), np.float32(1), d.threshold, d.limit, len(now)
    if d.kept != 1:
        if d.exact:
            # A 24-bit state times a 12-bit factor does not fit float32.
            for i in range(size):
                state[i] = np.float32(np.trunc(np.float64(state[i]) * (d.unit * d.kept)) / d.unit)
        else:
            kept = np.float32(d.kept)
            for i in range(size):
                state[i] = state[i] * kept
    if d.subtract:
        # As many spikes as thresholds, each taken from the voltage, which stays above the negative one.
        for i in range(size):
            v = state[i] + now[i]
            n = max(np.floor(v / threshold), zero)
            voltage[i] = v
            spikes[i] = n
            state[i] = max(v - threshold * n, -threshold)
    elif d.exact:
        for i in range(size):
            v = min(max(state[i] + now[i], -limit), limit)
            above = v > threshold
            voltage[i] = v
            spikes[i] = one if above else zero
            state[i] = zero if above else v
    else:
        for i in range(size):
            v = state[i] + now[i]
            above = v > threshold
            voltage[i] = v
            spikes[i] = one if above else zero
            state[i] = zero if above else v


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
def _retreat(g, v, after, out, d):  # type: ignore[no-untyped-def]
    """A time step back: the gradient of the spikes, and what the next step left, to that of the current.

    `after` is the gradient of the voltage behind the reset, from the next time step.
    """
    zero, one, half = np.float32(0), np.float32(1), np.float32(0.5)
    threshold, kept, size, width = d.threshold, np.float32(d.kept), len(out), d.width
    peak = np.float32(1 / width)
    if d.subtract:
        per_threshold = np.float32(1 / threshold)
        for i in range(size):
            slope = _falling(max(threshold - v[i], zero) * peak)
            x = g[i] * (slope * per_threshold) + (after[i] * (one - slope) if v[i] > -threshold else zero)
            out[i] = x
            after[i] = x * kept
    elif d.surrogate == 0:
        for i in range(size):
            slope = max(peak - abs(v[i] - threshold) * peak * peak, zero)
            x = g[i] * slope + (after[i] if v[i] <= threshold else zero)
            out[i] = x
            after[i] = x * kept
    elif d.surrogate == 1:
        per_tau, height = np.float32(1 / (100 * width)), np.float32(0.1 / (200 * width))
        for i in range(size):
            # SLAYER lets the gradient pass through a reset; the paper's recursion stops there.
            x = g[i] * (height * _falling(abs(v[i] - threshold) * per_tau)) + after[i]
            out[i] = x
            after[i] = x * kept
    elif d.surrogate == 2:
        for i in range(size):
            slope = peak * _falling(abs(v[i] - threshold) * peak)
            x = g[i] * slope + (after[i] * max(one - slope * threshold, zero) if v[i] <= threshold else zero)
            out[i] = x
            after[i] = x * kept
    else:
        for i in range(size):
            slope = half * peak if abs(v[i] - threshold) <= width else zero
            x = g[i] * slope + (after[i] if v[i] <= threshold else zero)
            out[i] = x
            after[i] = x * kept


# ------------------------------------------------------------------------------------------------ passes


@compiled
def _moments(part, begin, end, current, inner, middle, d, sums):  # type: ignore[no-untyped-def]
    """Per channel the sums of the filtered current less `middle`, and of its squares."""
    block, alike = _blocks(len(current), inner, len(middle))
    state, filtered = np.empty(block, np.float64), np.empty(block, np.float32)
    low, one, two = np.empty(block, np.float32), np.empty(block, np.float32), np.empty(block, np.float32)
    totals = np.zeros((2, block))
    for start in range(begin, end, block):
        size = min(block, end - start)
        if start == begin or not alike:
            _spread(middle, start, inner, low[:size])
        state[:size] = 0
        one[:size] = 0
        two[:size] = 0
        for t in range(len(current)):
            now = current[t, start : start + size]
            if d.passed_on != 0:
                _filter(now, state, filtered[:size], d.passed_on, d.unit)
                now = filtered[:size]
            for i in range(size):
                x = now[i] - low[i]
                one[i] += x
                two[i] += x * x
        _add(one[:size], two[:size], totals)
        if not alike or start + block >= end:
            _collect(totals, start, inner, sums[part])


@compiled
def _forward(part, begin, end, current, inner, gain, shift, d, spikes):  # type: ignore[no-untyped-def]
    """Spikes of synaptic input, times `gain` and plus `shift` of its channel where there are any."""
    block, alike = _blocks(len(current), inner, len(gain))
    integers, state, voltage = np.empty(block, np.float64), np.empty(block, np.float32), np.empty(block, np.float32)
    a, b, y = np.empty(block, np.float32), np.empty(block, np.float32), np.empty(block, np.float32)
    for start in range(begin, end, block):
        size = min(block, end - start)
        if len(gain) and (start == begin or not alike):
            _spread(gain, start, inner, a[:size])
            _spread(shift, start, inner, b[:size])
        integers[:size] = 0
        state[:size] = 0
        for t in range(len(current)):
            now = current[t, start : start + size]
            if d.passed_on != 0:
                _filter(now, integers, y[:size], d.passed_on, d.unit)
                now = y[:size]
            if len(gain):
                for i in range(size):
                    y[i] = now[i] * a[i] + b[i]
                now = y[:size]
            _advance(state, now, voltage, spikes[t, start : start + size], d)


@compiled
def _backward(part, begin, end, gradient, current, inner, gain, shift, middle, last, d, out, sums):  # type: ignore[no-untyped-def]
    """Gradient of the spikes to that of the synaptic input; or, unless `last`, of the normalised current only.

    And, where there is a gain, per channel the sums of the gradient of the normalised current, and of its products with
    the filtered current less `middle`.
    """
    steps, (block, alike) = len(current), _blocks(len(current), inner, len(gain))
    integers, state, fired = np.empty(block, np.float64), np.empty(block, np.float32), np.empty(block, np.float32)
    a, b, y = np.empty(block, np.float32), np.empty(block, np.float32), np.empty(block, np.float32)
    low, one, two = np.empty(block, np.float32), np.empty(block, np.float32), np.empty(block, np.float32)
    voltages = np.empty((steps, block), np.float32)
    filtered = np.empty((steps if d.passed_on != 0 else 0, block), np.float32)
    totals = np.zeros((2, block))
    for start in range(begin, end, block):
        size = min(block, end - start)
        if len(gain) and (start == begin or not alike):
            _spread(gain, start, inner, a[:size])
            _spread(shift, start, inner, b[:size])
            _spread(middle, start, inner, low[:size])
        integers[:size] = 0
        state[:size] = 0
        for t in range(steps):
            now = current[t, start : start + size]
            if d.passed_on != 0:
                _filter(now, integers, filtered[t, :size], d.passed_on, d.unit)
                now = filtered[t, :size]
            if len(gain):
                for i in range(size):
                    y[i] = now[i] * a[i] + b[i]
                now = y[:size]
            _advance(state, now, voltages[t], fired, d)
        one[:size] = 0
        two[:size] = 0
        state[:size] = 0
        y[:size] = 0
        for t in range(steps - 1, -1, -1):
            result = out[t, start : start + size]
            _retreat(gradient[t, start : start + size], voltages[t], state, result, d)
            if len(gain):
                now = current[t, start : start + size] if d.passed_on == 0 else filtered[t, :size]
                for i in range(size):
                    one[i] += result[i]
                    two[i] += result[i] * (now[i] - low[i])
                if last:
                    for i in range(size):
                        result[i] *= a[i]
            if last and d.passed_on != 0:
                _gather(result, y, d.passed_on)
        if len(gain):
            _add(one[:size], two[:size], totals)
            if not alike or start + block >= end:
                _collect(totals, start, inner, sums[part])


@compiled
def _finish(part, begin, end, current, inner, gain, slope, level, d, out):  # type: ignore[no-untyped-def]
    """What `backward` left, through a norm of the batch's own moments: out = gain * out + slope * current + level."""
    steps, (block, alike) = len(current), _blocks(len(current), inner, len(gain))
    a, b, c = np.empty(block, np.float32), np.empty(block, np.float32), np.empty(block, np.float32)
    integers, y = np.empty(block, np.float64), np.empty(block, np.float32)
    for start in range(begin, end, block):
        size = min(block, end - start)
        if start == begin or not alike:
            _spread(gain, start, inner, a[:size])
            _spread(slope, start, inner, b[:size])
            _spread(level, start, inner, c[:size])
        integers[:size] = 0
        for t in range(steps):
            now, result = current[t, start : start + size], out[t, start : start + size]
            if d.passed_on != 0:
                _filter(now, integers, y[:size], d.passed_on, d.unit)
                now = y[:size]
            for i in range(size):
                result[i] = a[i] * result[i] + (b[i] * now[i] + c[i])
        if d.passed_on != 0:
            y[:size] = 0
            for t in range(steps - 1, -1, -1):
                _gather(out[t, start : start + size], y, d.passed_on)


@compiled
def _gather(result, after, passed_on):  # type: ignore[no-untyped-def]
    """Gradient of the filtered current to that of the synaptic input; `after` is that of the next time step."""
    factor = np.float32(passed_on)
    for i in range(len(result)):
        after[i] = result[i] + factor * after[i]
        result[i] = after[i]


@compiled
def pool(part, begin, end, x, out, kernel, stride):  # type: ignore[no-untyped-def]
    """Sums over windows of images (N, H, W, C)."""
    _, height, width, channels = out.shape
    for n in range(begin, end):
        for i in range(height):
            for a in range(kernel[0]):
                for b in range(kernel[1]):
                    for j in range(width):
                        row, column = i * stride[0] + a, j * stride[1] + b
                        if a + b == 0:
                            for c in range(channels):
                                out[n, i, j, c] = x[n, row, column, c]
                        else:
                            for c in range(channels):
                                out[n, i, j, c] += x[n, row, column, c]


@compiled
def unpool(part, begin, end, gradient, out, kernel, stride):  # type: ignore[no-untyped-def]
    """Gradient of the sums to that of the images."""
    _, height, width, channels = gradient.shape
    apart = kernel == stride
    for n in range(begin, end):
        if not apart or height * stride[0] < out.shape[1] or width * stride[1] < out.shape[2]:
            out[n] = 0
        for i in range(height):
            for a in range(kernel[0]):
                for b in range(kernel[1]):
                    for j in range(width):
                        row, column = i * stride[0] + a, j * stride[1] + b
                        if apart:
                            for c in range(channels):
                                out[n, row, column, c] = gradient[n, i, j, c]
                        else:
                            for c in range(channels):
                                out[n, row, column, c] += gradient[n, i, j, c]


# ------------------------------------------------------------------------------------------------ weights


@compiled
def centre(weight, lift, mean, share, out):  # type: ignore[no-untyped-def]
    """Weights (groups, outputs, inputs, kernel) less their mean weighted by `share`, plus so many deviations.

    `share` takes each input's share of the mean input (groups, inputs), spread over the kernel. Returns the deviation.
    """
    groups, outputs, inputs, kernel = weight.shape
    one, two = 0.0, 0.0
    for g in range(groups):
        total = 0.0
        for i in range(inputs):
            total += mean[g, i] + EPS  # a layer that nothing reaches is centred evenly
        for i in range(inputs):
            share[g, i] = (mean[g, i] + EPS) / (total * kernel)
        for o in range(outputs):
            for i in range(inputs):
                for k in range(kernel):
                    one += weight[g, o, i, k]
                    two += weight[g, o, i, k] * weight[g, o, i, k]
    size = weight.size
    std = np.sqrt(max(two - one * one / size, 0.0) / max(size - 1, 1))
    for g in range(groups):
        for o in range(outputs):
            middle = 0.0
            for i in range(inputs):
                of = np.float32(0)
                for k in range(kernel):
                    of += weight[g, o, i, k]
                middle += of * share[g, i]
            level = np.float32(lift[g * outputs + o] * std - middle)
            for i in range(inputs):
                for k in range(kernel):
                    out[g, o, i, k] = weight[g, o, i, k] + level
    return std


@compiled
def uncentre(gradient, share, std, out, of_lift):  # type: ignore[no-untyped-def]
    """Gradient of what `centre` gives to that of the weights, and of the lift."""
    groups, outputs, inputs, kernel = gradient.shape
    for g in range(groups):
        for o in range(outputs):
            total = 0.0
            for i in range(inputs):
                for k in range(kernel):
                    total += gradient[g, o, i, k]
            of_lift[g * outputs + o] = total * std
            for i in range(inputs):
                level = np.float32(total * share[g, i])
                for k in range(kernel):
                    out[g, o, i, k] = gradient[g, o, i, k] - level


# ------------------------------------------------------------------------------------------------ on threads


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


def ready(x: torch.Tensor) -> bool:
    """Whether the loops take it."""
    return x.device.type == "cpu" and x.dtype == torch.float32


def passes(x: torch.Tensor) -> ModuleType | None:
    """The module whose `moments`, `forward`, `backward` and `finish` take it; None: PyTorch does the same, slower.

    That is this one, or on a GPU `mtt_lava.kernels_gpu`.
    """
    if ready(x):
        return sys.modules[__name__]
    return _on_gpu() if x.is_cuda and x.dtype == torch.float32 else None


@lru_cache(maxsize=1)
def _on_gpu() -> ModuleType | None:
    """`mtt_lava.kernels_gpu`, once it has run; else a warning, once, of what it lacks."""
    try:
        from mtt_lava import kernels_gpu

        kernels_gpu.probe()
    # Triton, a C compiler for it, a GPU that it knows: whatever is amiss, there is a way without.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        warnings.warn(f"neurons run in plain PyTorch, slower: Triton does not work here ({reason})", stacklevel=2)
        return None
    return kernels_gpu


def parts(steps: int, size: int) -> int:
    """On how many threads a pass runs."""
    return min(torch.get_num_threads() if steps * size >= SMALL else 1, math.ceil(size / 16)) or 1


def run(kernel: Callable[..., None], count: int, size: int, *arguments: Any, whole: int = 16) -> None:
    """Run a pass over `size` neurons, shared out by the `whole` among `count` threads, of which this is one."""
    if count == 1:
        return kernel(0, 0, size, *arguments)
    each = math.ceil(size / count / whole) * whole
    bounds = [(part, min(part * each, size), min((part + 1) * each, size)) for part in range(count)]
    others = [_pool(count).submit(kernel, *bound, *arguments) for bound in bounds[1:]]
    kernel(*bounds[0], *arguments)
    for done in others:
        done.result()


def array(x: torch.Tensor) -> np.ndarray:
    """What `passes` takes and gives for channels: here a NumPy array."""
    return x.detach().numpy()


def single(x: np.ndarray) -> np.ndarray:
    """In float32."""
    return x.astype(np.float32)


def tensor(x: np.ndarray) -> torch.Tensor:
    """A tensor again, in float32."""
    return torch.from_numpy(single(x))


def moments(current: torch.Tensor, inner: int, middle: np.ndarray, d: Dynamics) -> np.ndarray:
    """Sums of the filtered current less `middle`, and of its squares.

    Parameters
    ----------
    current : torch.Tensor
        Synaptic input (T, M), float32.
    inner : int
        The channel of neuron m is ``m // inner % channels``.
    middle : np.ndarray
        One a channel, (C,) float32.
    d : Dynamics

    Returns
    -------
    np.ndarray
        (2, C), float64.
    """
    count, size = parts(*current.shape), current.shape[1]
    sums = np.zeros((count, 2, len(middle)))
    run(_moments, count, size, current.numpy(), inner, middle, d, sums)
    return sums.sum(0)


def forward(
    current: torch.Tensor, inner: int, gain: np.ndarray, shift: np.ndarray, d: Dynamics, spikes: torch.Tensor
) -> None:
    """Write spikes (T, M) of synaptic input (T, M); `gain` and `shift` (C,) of the filtered current may be empty."""
    arguments = current.numpy(), inner, gain, shift, d, spikes.numpy()
    run(_forward, parts(*current.shape), current.shape[1], *arguments)


def backward(
    gradient: torch.Tensor,
    current: torch.Tensor,
    inner: int,
    gain: np.ndarray,
    shift: np.ndarray,
    middle: np.ndarray,
    last: bool,
    d: Dynamics,
    out: torch.Tensor,
) -> np.ndarray:
    """Write to `out` the gradient of the synaptic input; or, unless `last`, of the normalised current only.

    Parameters
    ----------
    gradient, current, out : torch.Tensor
        (T, M), float32: gradient of the spikes, synaptic input, result.
    inner : int
    gain, shift, middle : np.ndarray
        (C,) float32, as those of `forward` and `moments`; or empty.
    last : bool
        Whether nothing but gain and filter is left to go through, else `finish` follows.
    d : Dynamics

    Returns
    -------
    np.ndarray
        (2, C), float64: sums of the gradient of the normalised current, and of its products with the filtered current
        less `middle`.
    """
    count, size = parts(*current.shape), current.shape[1]
    sums = np.zeros((count, 2, len(gain)))
    arrays = gradient.numpy(), current.numpy(), inner, gain, shift, middle
    run(_backward, count, size, *arrays, last, d, out.numpy(), sums)
    return sums.sum(0)


def finish(
    current: torch.Tensor,
    inner: int,
    gain: np.ndarray,
    slope: np.ndarray,
    level: np.ndarray,
    d: Dynamics,
    out: torch.Tensor,
) -> None:
    """Take `out` (T, M) of `backward` through a norm of the batch's own moments; per channel a line of the current.

    It becomes gain * out + slope * current + level, and goes through the filter.
    """
    arguments = current.numpy(), inner, gain, slope, level, d, out.numpy()
    run(_finish, parts(*current.shape), current.shape[1], *arguments)


def run_images(kernel: Callable[..., None], x: torch.Tensor, out: torch.Tensor, *geometry: tuple[int, int]) -> None:
    """Run a pass from images to images (N, C, H, W), channels innermost in memory."""
    arrays = [each.detach().permute(0, 2, 3, 1).numpy() for each in (x, out)]
    run(kernel, min(parts(1, x.numel()), len(x)), len(x), *arrays, *geometry, whole=1)
