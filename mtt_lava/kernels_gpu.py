"""Kernels of the neuron for GPUs, in Triton: what the loops of `mtt_lava.kernels` do on the CPU, in the same passes.

A program computes `BLOCK` neurons through all time steps. The number of time steps is known when it runs, and not when
it is compiled: Mixed Time-step Training has another in every batch. The integers of the chip's arithmetic are the same
as on the CPU, and so is plain float32 without a norm: decays are computed in float64, the quotient of the soft reset is
rounded as IEEE has it, and no product is fused with a sum. Nothing is added up in an order that varies.

Memory: of forward only the synaptic input is kept. Backward writes the voltages, computed again, where the gradient
will be, and reads each before it puts its gradient there: beside the result there are two sums a neuron. PyTorch's way
keeps the voltages, and the current too where there is a norm; in backward it holds the slopes beside the result.

There was no GPU where this was written. It ran in Triton's interpreter (3.8, against PyTorch: `tests/test_neuron.py`),
and was compiled to machine code of compute capabilities 8.0 and 9.0 (by 2.3.1 and 3.8). On a GPU it has not run, and
`BLOCK` is a guess.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from mtt_lava.kernels import Dynamics

BLOCK = 512
"""Neurons of a program: four a thread, which one access to memory brings."""
_compiled = triton.jit(do_not_specialize=["steps"])


# ------------------------------------------------------------------------------------------------ of a time step


@triton.jit
def _whole(x):  # type: ignore[no-untyped-def]
    """Truncated toward zero; what is no number stays none."""
    return tl.where(x < 0, tl.math.ceil(x), tl.math.floor(x))


@triton.jit
def _filter(now, state, passed_on, UNIT: tl.constexpr):  # type: ignore[no-untyped-def]
    """The decaying current, in integers as SLAYER has it: they, and the current."""
    state = _whole(state * passed_on) + _whole(now.to(tl.float64) * UNIT)
    return state, (state * (1 / UNIT)).to(tl.float32)


@triton.jit
def _advance(  # type: ignore[no-untyped-def]
    state,
    now,
    threshold,
    kept,
    limit,
    UNIT: tl.constexpr,
    LEAKY: tl.constexpr,
    EXACT: tl.constexpr,
    SUBTRACT: tl.constexpr,
):
    """Current to voltage before the reset, spikes, and the state behind it."""
    if LEAKY and EXACT:
        # A 24-bit state times a 12-bit factor does not fit float32; the factor does.
        state = (_whole(state.to(tl.float64) * (kept * UNIT)) * (1 / UNIT)).to(tl.float32)
    elif LEAKY:
        state = state * kept
    v = state + now
    if SUBTRACT:
        spikes = tl.math.floor(tl.math.div_rn(v, threshold + tl.zeros_like(v)))
        spikes = tl.where(spikes < 0, 0.0, spikes)
        state = v - spikes * threshold
        state = tl.where(state < -threshold, -threshold, state)
    else:
        if EXACT:
            v = tl.where(v > limit, limit, tl.where(v < -limit, -limit, v))
        above = v > threshold
        spikes = above.to(tl.float32)
        state = tl.where(above, 0.0, v)
    return v, spikes, state


@triton.jit
def _retreat(g, v, after, threshold, width, SUBTRACT: tl.constexpr, SURROGATE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Gradient of the spikes, and `after` of the voltage behind the reset, to that of the current."""
    distance = tl.abs(v - threshold)
    if SUBTRACT:
        slope = tl.exp(tl.where(v < threshold, -distance, 0.0) / width)
        x = g * (slope / threshold) + tl.where(v > -threshold, after * (1 - slope), 0.0)
    elif SURROGATE == 0:
        slope = (1 - distance / width) / width
        x = g * tl.where(slope > 0, slope, 0.0) + tl.where(v <= threshold, after, 0.0)
    elif SURROGATE == 1:
        # SLAYER lets the gradient pass through a reset; the paper's recursion stops there.
        x = g * (tl.exp(-distance / (100 * width)) * 0.1 / (200 * width)) + after
    elif SURROGATE == 2:
        slope = tl.exp(-distance / width) / width
        passed = 1 - slope * threshold
        x = g * slope + tl.where((v <= threshold) & (passed > 0), after * passed, 0.0)
    else:
        x = g * tl.where(distance <= width, 0.5 / width, 0.0) + tl.where(v <= threshold, after, 0.0)
    return x


# ------------------------------------------------------------------------------------------------ passes


@_compiled
def _moments(  # type: ignore[no-untyped-def]
    current, middle, ones, twos, steps, size, inner, channels, passed_on, UNIT: tl.constexpr, FILTERED: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Per neuron the sums of the filtered current less `middle`, and of its squares."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    low = tl.load(middle + at // inner % channels, mask=inside, other=0.0)
    integers = tl.zeros([BLOCK], tl.float64)
    one = tl.zeros([BLOCK], tl.float32)
    two = tl.zeros([BLOCK], tl.float32)
    for _t in range(steps):
        now = tl.load(current + at, mask=inside, other=0.0)
        if FILTERED:
            integers, now = _filter(now, integers, passed_on, UNIT)
        one += now - low
        two += (now - low) * (now - low)
        current += size
    tl.store(ones + at, one, mask=inside)
    tl.store(twos + at, two, mask=inside)


@_compiled
def _forward(  # type: ignore[no-untyped-def]
    current, spikes, gain, shift, steps, size, inner, channels, threshold, kept, limit, passed_on, UNIT: tl.constexpr,
    FILTERED: tl.constexpr, LEAKY: tl.constexpr, EXACT: tl.constexpr, SUBTRACT: tl.constexpr, NORMED: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Spikes of synaptic input, times `gain` and plus `shift` of its channel where `NORMED`."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    if NORMED:
        a = tl.load(gain + at // inner % channels, mask=inside, other=0.0)
        b = tl.load(shift + at // inner % channels, mask=inside, other=0.0)
    integers = tl.zeros([BLOCK], tl.float64)
    state = tl.zeros([BLOCK], tl.float32)
    for _t in range(steps):
        now = tl.load(current + at, mask=inside, other=0.0)
        if FILTERED:
            integers, now = _filter(now, integers, passed_on, UNIT)
        if NORMED:
            now = now * a + b
        _v, fired, state = _advance(state, now, threshold, kept, limit, UNIT, LEAKY, EXACT, SUBTRACT)
        tl.store(spikes + at, fired, mask=inside)
        current += size
        spikes += size


@_compiled
def _backward(  # type: ignore[no-untyped-def]
    gradient, current, out, gain, shift, middle, ones, twos, steps, size, inner, channels, threshold, kept, limit,
    passed_on, width, UNIT: tl.constexpr, FILTERED: tl.constexpr, LEAKY: tl.constexpr, EXACT: tl.constexpr,
    SUBTRACT: tl.constexpr, SURROGATE: tl.constexpr, NORMED: tl.constexpr, LAST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradient of the spikes to that of the synaptic input; or, unless `LAST`, of the normalised current only.

    And, where `NORMED`, per neuron the sums of the gradient of the normalised current, and of its products with the
    filtered current less `middle`.
    """
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    if NORMED:
        a = tl.load(gain + at // inner % channels, mask=inside, other=0.0)
        b = tl.load(shift + at // inner % channels, mask=inside, other=0.0)
        low = tl.load(middle + at // inner % channels, mask=inside, other=0.0)
    integers = tl.zeros([BLOCK], tl.float64)
    state = tl.zeros([BLOCK], tl.float32)
    for _t in range(steps):
        now = tl.load(current + at, mask=inside, other=0.0)
        if FILTERED:
            integers, now = _filter(now, integers, passed_on, UNIT)
        if NORMED:
            now = now * a + b
        v, _fired, state = _advance(state, now, threshold, kept, limit, UNIT, LEAKY, EXACT, SUBTRACT)
        tl.store(out + at, v, mask=inside)
        current += size
        gradient += size
        out += size
    # Which thread reads what another wrote is the compiler's choice.
    tl.debug_barrier()
    after = tl.zeros([BLOCK], tl.float32)
    gathered = tl.zeros([BLOCK], tl.float32)
    one = tl.zeros([BLOCK], tl.float32)
    two = tl.zeros([BLOCK], tl.float32)
    for _t in range(steps):
        current -= size
        gradient -= size
        out -= size
        g = tl.load(gradient + at, mask=inside, other=0.0)
        v = tl.load(out + at, mask=inside, other=0.0)
        x = _retreat(g, v, after, threshold, width, SUBTRACT, SURROGATE)
        after = x * kept
        if NORMED:
            one += x
            if not FILTERED:
                two += x * (tl.load(current + at, mask=inside, other=0.0) - low)
                if LAST:
                    x = x * a
        elif FILTERED:
            gathered = x + gathered * passed_on
            x = gathered
        tl.store(out + at, x, mask=inside)
    if NORMED:
        if FILTERED:
            # The filtered current is not kept: it is known from the first time step on only.
            tl.debug_barrier()
            integers = tl.zeros([BLOCK], tl.float64)
            for _t in range(steps):
                integers, now = _filter(tl.load(current + at, mask=inside, other=0.0), integers, passed_on, UNIT)
                two += tl.load(out + at, mask=inside, other=0.0) * (now - low)
                current += size
                out += size
            if LAST:
                for _t in range(steps):
                    out -= size
                    gathered = tl.load(out + at, mask=inside, other=0.0) * a + gathered * passed_on
                    tl.store(out + at, gathered, mask=inside)
        tl.store(ones + at, one, mask=inside)
        tl.store(twos + at, two, mask=inside)


@_compiled
def _finish(  # type: ignore[no-untyped-def]
    current, out, gain, slope, level, steps, size, inner, channels, passed_on, UNIT: tl.constexpr,
    FILTERED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """What `_backward` left, through a norm of the batch's own moments: out = gain * out + slope * current + level."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    a = tl.load(gain + at // inner % channels, mask=inside, other=0.0)
    b = tl.load(slope + at // inner % channels, mask=inside, other=0.0)
    c = tl.load(level + at // inner % channels, mask=inside, other=0.0)
    integers = tl.zeros([BLOCK], tl.float64)
    for _t in range(steps):
        now = tl.load(current + at, mask=inside, other=0.0)
        if FILTERED:
            integers, now = _filter(now, integers, passed_on, UNIT)
        x = a * tl.load(out + at, mask=inside, other=0.0) + (b * now + c)
        tl.store(out + at, x, mask=inside)
        current += size
        out += size
    if FILTERED:
        tl.debug_barrier()
        gathered = tl.zeros([BLOCK], tl.float32)
        for _t in range(steps):
            out -= size
            gathered = tl.load(out + at, mask=inside, other=0.0) + gathered * passed_on
            tl.store(out + at, gathered, mask=inside)


# ------------------------------------------------------------------------------------------------ on tensors


def _run(kernel: Any, tensors: tuple[torch.Tensor, ...], inner: int, channels: int, d: Dynamics, **more: Any) -> None:
    """Run a kernel on tensors of which the first is (T, M), with what it wants to know of the neurons."""
    steps, size = tensors[0].shape
    known = {"threshold": float(d.threshold), "kept": float(d.kept), "limit": float(d.limit), "width": float(d.width)}
    known |= {"passed_on": float(d.passed_on), "UNIT": d.unit, "FILTERED": d.passed_on != 0, "LEAKY": d.kept != 1}
    known |= {"EXACT": d.exact, "SUBTRACT": d.subtract, "SURROGATE": d.surrogate, "NORMED": channels > 0, **more}
    wanted = {name: value for name, value in known.items() if name in kernel.arg_names}
    with torch.cuda.device_of(tensors[0]):
        kernel[((size + BLOCK - 1) // BLOCK,)](
            *tensors, steps, size, inner, max(channels, 1), **wanted, BLOCK=BLOCK, enable_fp_fusion=False
        )


def _by_channel(sums: torch.Tensor, inner: int, channels: int) -> torch.Tensor:
    """Sums (2, M) of neurons to those of their channels (2, C), float64."""
    return sums.view(2, -1, channels, inner).sum((1, 3)).double()


def array(x: torch.Tensor) -> torch.Tensor:
    """What `mtt_lava.kernels.passes` takes and gives for channels: here a tensor, which stays on its GPU."""
    return x.detach()


def single(x: torch.Tensor) -> torch.Tensor:
    """In float32."""
    return x.float()


tensor = single


def moments(current: torch.Tensor, inner: int, middle: torch.Tensor, d: Dynamics) -> torch.Tensor:
    """As `mtt_lava.kernels.moments`."""
    sums = current.new_empty(2, current.shape[1])
    _run(_moments, (current, middle, *sums), inner, len(middle), d)
    return _by_channel(sums, inner, len(middle))


def forward(
    current: torch.Tensor, inner: int, gain: torch.Tensor, shift: torch.Tensor, d: Dynamics, spikes: torch.Tensor
) -> None:
    """As `mtt_lava.kernels.forward`."""
    _run(_forward, (current, spikes, gain, shift), inner, len(gain), d)


def backward(
    gradient: torch.Tensor,
    current: torch.Tensor,
    inner: int,
    gain: torch.Tensor,
    shift: torch.Tensor,
    middle: torch.Tensor,
    last: bool,
    d: Dynamics,
    out: torch.Tensor,
) -> torch.Tensor:
    """As `mtt_lava.kernels.backward`."""
    channels = len(gain)
    sums = current.new_empty(2, current.shape[1] if channels else 0)
    _run(_backward, (gradient, current, out, gain, shift, middle, *sums), inner, channels, d, LAST=last)
    return _by_channel(sums, inner, channels) if channels else sums.double()


def finish(
    current: torch.Tensor,
    inner: int,
    gain: torch.Tensor,
    slope: torch.Tensor,
    level: torch.Tensor,
    d: Dynamics,
    out: torch.Tensor,
) -> None:
    """As `mtt_lava.kernels.finish`."""
    _run(_finish, (current, out, gain, slope, level), inner, len(gain), d)


def probe() -> None:
    """Run the neuron once, to find out whether Triton works here.

    Raises
    ------
    Exception
        Whatever Triton, its compiler or the driver raises.
    """
    x = torch.zeros(1, 1, device="cuda")
    none = x.new_empty(0)
    forward(x, 1, none, none, Dynamics(1.0, 1.0, 0.0, 4096.0, 1.0, False, False, 1.0, 0), torch.empty_like(x))
