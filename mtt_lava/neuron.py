"""SLAYER's CUBA neuron, quicker and with a choice of surrogate gradient; and what may normalise its current.

The neuron computes what `lava.lib.dl.slayer.neuron.cuba.Neuron` computes, bit for bit once weights are quantised, and
saturates the membrane voltage at 24 bits as Loihi does and SLAYER does not. It works with time as the slowest
dimension in memory, so that a convolution over all time steps at once needs no copy; the shapes that users see stay
SLAYER's (N, C, H, W, T) and (N, C, T).
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from mtt_lava import kernels, together
from mtt_lava.lowering import WEIGHT_UNIT
from netx_export.text import unknown

with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    # SLAYER reports a missing Prophesee toolbox and a missing CUDA, which no user of ours asked for.
    warnings.simplefilter("ignore")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from lava.lib.dl import slayer
    from lava.lib.dl.slayer.neuron.dynamics import leaky_integrator

SURROGATES = ("laplace", "triangular", "exponential", "rectangular")
"""Derivatives that stand in for that of a spike, d = |v - threshold| and w half their width: exp(-d / w) / w, the
paper's triangle max(0, 1 - d / w) / w, SLAYER's 0.1 / (2 tau) * exp(-d / tau) with tau = 100 w, and 1 / (2 w) where
d <= w. Through time ``laplace`` follows the reset too: what a current gave to a spike it does not give again to the
next, else gradients grow from layer to layer; and it is 0 nowhere, so that what has gone silent can come back."""

STATE_UNIT = 4096
"""Chip integers a unit of SLAYER's current and voltage: 2**12."""
VOLTAGE_MAX = (2**23 - 1) / STATE_UNIT
"""Where the chip's membrane voltage saturates, in SLAYER's units."""


def _decayed(state: torch.Tensor, kept: float, exact: bool) -> torch.Tensor:
    """One time step of decay; in chip arithmetic (truncated toward zero) where `exact`."""
    if kept == 1:
        return state
    if not exact:
        return state * kept
    # A 24-bit state times a 12-bit factor does not fit float32.
    return (state.double() * (STATE_UNIT * kept)).trunc().div(STATE_UNIT).to(state.dtype)


def _emitted(voltage: torch.Tensor, threshold: float, reset: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Spikes of the voltage before the reset, and the voltage behind it.

    Soft reset: a neuron fires as many spikes in a time step as thresholds are in its voltage, and loses those; what is
    left never falls below the negative threshold. The clocked picture of a neuron that emits one event at a time as
    soon as v >= threshold (Speck; the paper's appendix on event-driven chips).
    """
    if reset == "subtract":
        # Integers below 2**24, or float32 as it comes: the quotient of a whole multiple is exact. For a number, and no
        # tensor, PyTorch multiplies by its reciprocal on a GPU, where it is not.
        spikes = torch.div(voltage, voltage.new_full((), threshold)).floor_().clamp_(min=0)
        return spikes, (voltage - threshold * spikes).clamp_(min=-threshold)
    above = voltage > threshold
    return above.to(voltage.dtype), voltage.masked_fill(above, 0)


def _slopes(
    voltage: torch.Tensor, threshold: float, reset: str, surrogate: str, width: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """What stands in for the derivatives of spikes, and of the voltage behind the reset, to the voltage before it."""
    if reset == "subtract":
        # d(spikes) / d(v / threshold): 1 above the threshold, where it is a staircase of that mean slope; below it the
        # paper's single exponential, which no neuron is too silent to feel. Through the reset the same slope takes
        # from v what it gave to the spikes, so that a charge counts once, whatever the number of time steps.
        slope = ((voltage - threshold) / width).clamp_(max=0).exp_()
        return slope / threshold, (1 - slope) * (voltage > -threshold)
    below = voltage <= threshold
    distance = (voltage - threshold).abs_()
    if surrogate == "laplace":
        slope = distance.mul_(-1 / width).exp_().div_(width)
        return slope, (1 - slope * threshold).clamp_(min=0) * below
    if surrogate == "triangular":
        return distance.mul_(-1 / width**2).add_(1 / width).clamp_(min=0), below
    if surrogate == "exponential":
        # SLAYER's constants (neuron/cuba.py): scale 0.1, tau 100 thresholds. It lets the gradient pass through a reset;
        # the paper's recursion stops there.
        tau = 100 * width
        return distance.mul_(-1 / tau).exp_().mul_(0.1 / 2 / tau), torch.ones_like(below)
    return (distance <= width).to(distance.dtype).mul_(0.5 / width), below


def _fired(
    current: torch.Tensor, kept: float, exact: bool, threshold: float, reset: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Spikes of dendritic current (T, ...), and the voltage before the resets."""
    voltage, spikes = torch.empty_like(current), torch.empty_like(current)
    v = torch.zeros_like(current[0])
    for t, now in enumerate(current):
        before = torch.add(_decayed(v, kept, exact), now, out=voltage[t])
        if exact and reset == "zero":
            before.clamp_(-VOLTAGE_MAX, VOLTAGE_MAX)
        spikes[t], v = _emitted(before, threshold, reset)
    return spikes, voltage


class _Fire(torch.autograd.Function):
    """Dendritic current (T, ...) to spikes (T, ...), both resets, in PyTorch: reference, and where no passes are."""

    @staticmethod
    def forward(
        ctx: Any, current: torch.Tensor, kept: float, exact: bool, threshold: float, reset: str, *surrogate: Any
    ) -> torch.Tensor:
        spikes, voltage = _fired(current, kept, exact, threshold, reset)
        ctx.save_for_backward(voltage)
        ctx.kept, ctx.rest = kept, (threshold, reset, *surrogate)
        return spikes

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        slope, passed = _slopes(*ctx.saved_tensors, *ctx.rest)
        result = slope.mul_(gradients[0])
        for t in range(len(result) - 2, -1, -1):
            result[t].add_(result[t + 1] * passed[t], alpha=ctx.kept)
        return result, *[None] * 6


class _Step(torch.autograd.Function):
    """Threshold and reset in one time step: voltage before it to spikes and voltage after it, as above."""

    @staticmethod
    def forward(
        ctx: Any, voltage: torch.Tensor, threshold: float, reset: str, surrogate: str, width: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.constants = threshold, reset, surrogate, width
        ctx.save_for_backward(voltage)
        return _emitted(voltage, threshold, reset)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        of_spikes, of_voltage = gradients
        slope, passed = _slopes(*ctx.saved_tensors, *ctx.constants)
        return of_spikes * slope + of_voltage * passed, None, None, None, None


class _Batch(NamedTuple):
    """How the moments of a batch make the factor of its norm: `Norm` in training."""

    guess: torch.Tensor
    centred: bool
    eps: float


class _Compiled(torch.autograd.Function):
    """Synaptic input (T, N, C, ...) to spikes in the same order of memory, by what `kernels.passes` has for its device.

    Gain and shift are one a channel, or None; with a batch they are the norm's weight and offset. The time steps are
    those of several runs, `lengths` of each (none: of one): every run starts from nothing, and has moments of its own.
    Returns the moments too: for every run mean, power, and of how many values a channel they are.
    """

    @staticmethod
    def forward(
        ctx: Any,
        synaptic: torch.Tensor,
        gain: torch.Tensor | None,
        shift: torch.Tensor | None,
        batch: _Batch | None,
        dynamics: kernels.Dynamics,
        lengths: Sequence[int],
    ) -> tuple[torch.Tensor, ...]:
        passes: Any = kernels.passes(synaptic)
        lengths = lengths or (len(synaptic),)
        synaptic, inner = _dense(synaptic)
        current, channels = _flat(synaptic, inner), synaptic.shape[2] if gain is not None else 0
        # One a channel, in arrays of the passes' own kind: NumPy's where it is quicker at so few numbers.
        weight = passes.array(synaptic.new_empty(0) if gain is None else gain)
        offset = 0 * weight if shift is None else passes.array(shift)
        spikes = torch.empty_like(synaptic)
        norms, found = [], list[torch.Tensor]()
        for now, out in zip(current.split(lengths), _flat(spikes, inner).split(lengths), strict=True):
            factor, level, middle, scale = weight, offset, 0 * weight, None
            if batch is not None:
                middle = passes.array(batch.guess) if batch.centred else middle
                sums = passes.moments(now, inner, middle, dynamics)
                (mean, power), number = _of_all(sums, now.numel() / channels)
                power = (power - mean * mean).clip(0) if batch.centred else power
                scale = 1 / (power + batch.eps) ** 0.5
                factor = passes.single(weight * scale)
                if batch.centred:
                    middle = passes.single(middle + mean)
                    level = level - middle * factor
                found += passes.tensor(middle), passes.tensor(power), torch.tensor(number)
            passes.forward(now, inner, factor, level, dynamics, out)
            norms.append((factor, level, middle, scale))
        ctx.save_for_backward(synaptic)
        ctx.constants, ctx.batch, ctx.norms = (passes, inner, dynamics), batch, norms
        ctx.has, ctx.lengths = (gain is not None, shift is not None), lengths
        ctx.mark_non_differentiable(*found)
        return (spikes, *found)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (synaptic,), (passes, inner, dynamics), batch = ctx.saved_tensors, ctx.constants, ctx.batch
        gradient, result = gradients[0], torch.empty_like(synaptic)
        if gradient.stride() != synaptic.stride():
            gradient = torch.empty_like(synaptic).copy_(gradient)
        arrays = (_flat(x, inner).split(ctx.lengths) for x in (gradient, synaptic, result))
        of_gain, of_shift = 0.0, 0.0
        for after, current, out, (factor, level, middle, scale) in zip(*arrays, ctx.norms, strict=True):
            constants = (inner, factor, level, middle, batch is None, dynamics)
            sums = passes.backward(after, current, *constants, out)
            of_level, of_factor = sums
            if batch is not None:
                # The moments are the batch's own: what they pass on is linear in the current.
                (level_mean, factor_mean), _ = _of_all(sums, current.numel() / len(factor))
                slope = -factor * scale * scale * factor_mean
                constant = -factor * level_mean - slope * middle if batch.centred else 0 * slope
                passes.finish(current, inner, factor, passes.single(slope), passes.single(constant), dynamics, out)
                of_factor = of_factor * scale
            of_gain, of_shift = of_gain + of_factor, of_shift + of_level
        of = (passes.tensor(of) if has else None for of, has in zip((of_gain, of_shift), ctx.has, strict=True))
        return result, *of, None, None, None


def _of_all(sums: Any, number: float) -> tuple[Any, float]:
    """Means of sums over so many values, in NumPy or PyTorch; of all processes, where there are several."""
    if together.several():
        here = torch.as_tensor(sums).flatten()
        total = together.summed(torch.cat([here, here.new_tensor([number])]))
        number = float(total[-1])
        whole = total[:-1].view(sums.shape)
        sums = whole if isinstance(sums, torch.Tensor) else whole.numpy()
    return sums / number, number


def _dense(x: torch.Tensor) -> tuple[torch.Tensor, int]:
    """(T, N, C, ...) without gaps, and how many neighbours in memory are of one channel; channels may lie innermost."""
    if x.dim() > 3 and not x.is_contiguous() and x.movedim(2, -1).is_contiguous():
        return x, 1
    return x.contiguous(), math.prod(x.shape[3:])


def _flat(x: torch.Tensor, inner: int) -> torch.Tensor:
    """(T, everything else), in the order of memory, of what `_dense` gives."""
    x = x.detach()
    return (x.movedim(2, -1) if inner == 1 and x.dim() > 3 else x).reshape(len(x), -1)


class Neuron(slayer.neuron.cuba.Neuron):
    """CUBA neurons of one layer.

    Parameters
    ----------
    threshold, current_decay, voltage_decay : float
        As SLAYER's: decays 0 (nothing is forgotten) .. 1. Integrate-and-fire is (1, 0).
    surrogate : {"laplace", "triangular", "exponential", "rectangular"}
        Surrogate gradient of a spike, see `SURROGATES`.
    width : float
        Its half width w, in thresholds.
    reset : {"zero", "subtract"}
        Hard reset after one spike a time step at most; or soft reset: as many spikes as thresholds (v >= threshold),
        each of which is subtracted, and v clamped at -threshold. Its surrogate is always the paper's single exponential
        below the threshold, exp(-d / w), and 1 above it.

    Attributes
    ----------
    exact : bool
        Compute in the chip's integers (weights must be quantised); else in plain float32.
    carried : dict of str to torch.Tensor, or None
        Where there is one, neurons go on from the states in it, leave theirs there, and no gradient goes back through
        them: that of a time step goes through its own spikes only (`mtt_lava.spiking.SpikingNetwork.carrying`).
    """

    def __init__(
        self,
        threshold: float = 1.0,
        current_decay: float = 1.0,
        voltage_decay: float = 0.0,
        surrogate: str = "laplace",
        width: float = 1.0,
        reset: str = "zero",
    ) -> None:
        super().__init__(threshold, current_decay, voltage_decay)
        if surrogate not in SURROGATES:
            raise ValueError(unknown("surrogate gradient", surrogate, SURROGATES))
        self.surrogate = surrogate
        self.width = width
        self.reset = reset
        self.exact = False
        self.carried: dict[str, torch.Tensor] | None = None

    def _start(self, name: str, like: torch.Tensor) -> torch.Tensor:
        """A state to start from: 0, or what was carried on."""
        return torch.zeros_like(like) if self.carried is None else self.carried.get(name, torch.zeros_like(like))

    def _leave(self, **states: torch.Tensor) -> None:
        if self.carried is not None:
            self.carried |= {name: state.detach() for name, state in states.items()}

    @property
    def threshold_mantissa(self) -> int:
        """The chip's threshold."""
        return round(self._threshold * WEIGHT_UNIT)

    @threshold_mantissa.setter
    def threshold_mantissa(self, value: int) -> None:
        self._threshold = value / WEIGHT_UNIT

    def _current(self, synaptic: torch.Tensor) -> torch.Tensor:
        """Synaptic input (N, ..., T) to dendritic current (T, N, ...), filtered and normalised."""
        decay = self.current_decay.item()
        if decay < STATE_UNIT:
            state = self._start("current", synaptic[..., 0])
            synaptic = leaky_integrator.dynamics(synaptic, self.current_decay.round(), state, self.s_scale)
            self._leave(current=synaptic[..., -1])
        if self.norm is not None:
            synaptic = self.norm(synaptic)
        return synaptic.movedim(-1, 0)

    @property
    def _current_kept(self) -> float:
        """Factor that a time step leaves of the current."""
        return 1 - round(self.current_decay.item()) / STATE_UNIT

    @property
    def _voltage_kept(self) -> float:
        """Factor that a time step leaves of the voltage."""
        return 1 - round(self.voltage_decay.item()) / STATE_UNIT

    def _fire(self, synaptic: torch.Tensor, lengths: Sequence[int] = ()) -> torch.Tensor:
        """Spikes (T, N, ...) of synaptic input (N, ..., T); of several runs of these `lengths` where they are given."""
        frames, norm = synaptic.movedim(-1, 0), self.norm
        # The compiled loops start from nothing, and follow the gradient through all time steps.
        if self.carried is not None or kernels.passes(frames) is None or not isinstance(norm, Norm | Bias | None):
            if len(lengths) > 1:
                return torch.cat([self._fire(run) for run in synaptic.split(lengths, -1)])
            return self._fire_current(self._current(synaptic))
        passed_on = self._current_kept
        if isinstance(norm, Norm) and norm.training:
            batch = _Batch(norm.mean, norm.centred, norm.eps)
            given = frames, norm.weight, norm.offset, batch, self._dynamics(passed_on), lengths
            spikes, *found = _Compiled.apply(*given)
            for mean, power, number in zip(*[iter(found)] * 3, strict=True):
                norm.see(mean, power, number.item())
            return spikes
        gain, shift = (None, None) if norm is None else norm.line()
        return self._fire_compiled(frames, passed_on, gain, shift, lengths)

    def _fire_current(self, current: torch.Tensor) -> torch.Tensor:
        """Spikes (T, N, ...) of dendritic current (T, N, ...)."""
        if self.carried is not None:
            return self._fire_apart(current)
        if kernels.passes(current) is not None:
            return self._fire_compiled(current, 0.0)
        constants = self._voltage_kept, self.exact, self._threshold, self.reset
        return _Fire.apply(current, *constants, self.surrogate, self.width * self._threshold)

    def _fire_apart(self, current: torch.Tensor) -> torch.Tensor:
        """As above from the carried voltage on; the gradient of a time step stays in it."""
        v, sent = self._start("voltage", current[0]), []
        for now in current:
            before = _decayed(v, self._voltage_kept, self.exact) + now
            if self.exact and self.reset == "zero":
                before = before.clamp(-VOLTAGE_MAX, VOLTAGE_MAX)
            spikes, v = _Step.apply(before, self._threshold, self.reset, self.surrogate, self.width * self._threshold)
            v = v.detach()
            sent.append(spikes)
        self._leave(voltage=v)
        return torch.stack(sent)

    def _fire_compiled(
        self,
        frames: torch.Tensor,
        passed_on: float,
        gain: torch.Tensor | None = None,
        shift: torch.Tensor | None = None,
        lengths: Sequence[int] = (),
    ) -> torch.Tensor:
        (spikes,) = _Compiled.apply(frames, gain, shift, None, self._dynamics(passed_on), lengths)
        return spikes

    def _dynamics(self, passed_on: float) -> kernels.Dynamics:
        """What the compiled loops are told; `passed_on` is what a time step leaves of the current."""
        float32, surrogate = np.float32, kernels.KINDS[self.surrogate]
        constants = float32(self._threshold), self._voltage_kept, passed_on, float(STATE_UNIT), float32(VOLTAGE_MAX)
        width = float32(self.width * self._threshold)
        return kernels.Dynamics(*constants, self.exact, self.reset == "subtract", width, surrogate)

    def current(self, synaptic: torch.Tensor) -> torch.Tensor:
        """Dendritic current (N, ..., T) of synaptic input (N, ..., T): what a layer without neurons passes on."""
        return self._current(synaptic).movedim(0, -1)

    def forward(self, synaptic: torch.Tensor, lengths: Sequence[int] = ()) -> torch.Tensor:
        """Spikes (0 or 1; soft reset: how many) of synaptic input (N, C, H, W, T) or (N, C, T).

        With `lengths`, time steps of several runs lie one behind the other; each starts from nothing.
        """
        return self._fire(synaptic, lengths).movedim(0, -1)

    def recur(self, synaptic: torch.Tensor, feedback: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Spikes (N, F, T) of synaptic input (N, F, T) and of what they themselves feed back, one time step later.

        Parameters
        ----------
        synaptic : torch.Tensor
        feedback : callable
            Synaptic input (N, F) of spikes (N, F). It joins the current behind the norm, where weights are not yet
            quantised; then there is no norm.
        """
        kept = self._current_kept
        width, bias = self.width * self._threshold, 0.0
        if self.exact:
            steps = synaptic.movedim(-1, 0)
            if self.norm is not None:
                bias = self.norm(torch.zeros_like(synaptic[..., :1]))[..., 0]
        else:
            steps = self._current(synaptic)
        u, v, spikes = (self._start(name, steps[0]) for name in ("fed", "voltage", "spikes"))
        sent = []
        for now in steps:
            back = _decayed(u, kept, self.exact) + feedback(spikes)
            # The integers of both decay together; in plain float32 the input has been filtered before.
            u, current = (back + now, back + now + bias) if self.exact else (back, back + now)
            before = _decayed(v, self._voltage_kept, self.exact) + current
            if self.exact and self.reset == "zero":
                before = before.clamp(-VOLTAGE_MAX, VOLTAGE_MAX)
            spikes, v = _Step.apply(before, self._threshold, self.reset, self.surrogate, width)
            sent.append(spikes)
        self._leave(fed=u, voltage=v, spikes=spikes)
        return torch.stack(sent).movedim(0, -1)

    def count(self, synaptic: torch.Tensor, each: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """Spikes (N, C, T) of synaptic input (N, C, T), and their number (N, C), the answer of a count readout.

        To the gradient of the number in training is added that of the charge that came in, in thresholds: what an
        output that fires nothing has to go by, and all that its last spike leaves over. With `each` the number is that
        of every time step, (T, N, C), each with the gradient of its own charge.
        """
        current = self._current(synaptic)
        spikes = self._fire_current(current)
        number = spikes if each else spikes.sum(0)
        if self.training:
            charge = (current if each else current.sum(0)) / self._threshold
            number = number + (charge - charge.detach())
        return spikes.movedim(0, -1), number

    def integrate(self, synaptic: torch.Tensor, each: bool = False) -> torch.Tensor:
        """Membrane voltage (N, ...) after the last time step of neurons that never spike.

        With `each`, what every time step adds to it, (T, N, ...): the current, but where the voltage saturates.
        """
        current = self._current(synaptic)
        kept = self._voltage_kept
        if kept == 1 and not self.exact and self.carried is None:
            return current if each else current.sum(0)
        v, added = self._start("voltage", current[0]), []
        for now in current:
            before = v
            v = _decayed(v, kept, self.exact) + now
            if self.exact:
                v = v.clamp(-VOLTAGE_MAX, VOLTAGE_MAX)
            added.append(v - before)
        self._leave(voltage=v)
        return torch.stack(added) if each else v


class Norm(torch.nn.Module):
    """Batch norm of the dendritic current over samples, space and time.

    Parameters
    ----------
    channels : int
        Number of channels or features.
    centred : bool
        Subtract the mean and learn an offset (batch norm as everyone knows it), or only scale (divide by the root
        of the mean square): what a network that must do without biases can keep.

    Attributes
    ----------
    momentum : float or None
        Weight of a new batch in the running statistics; None averages all batches since `reset` alike.
    """

    eps = 1e-5

    def __init__(self, channels: int, centred: bool = True) -> None:
        super().__init__()
        self.centred = centred
        self.weight = torch.nn.Parameter(torch.ones(channels))
        self.offset = torch.nn.Parameter(torch.zeros(channels)) if centred else None
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("power", torch.ones(channels))
        self.momentum: float | None = 0.1
        self.batches = 0

    def reset(self, momentum: float | None) -> None:
        """Forget the running statistics."""
        self.mean.zero_()
        self.power.fill_(1)
        self.momentum, self.batches = momentum, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise (N, C, ..., T)."""
        frames = x.movedim(-1, 0)
        flat = frames.reshape(-1, *frames.shape[2:])
        if self.training and together.several():
            return self._of_all(flat).view(frames.shape).movedim(0, -1)
        self.batches += self.training
        if self.centred:
            flat = torch.nn.functional.batch_norm(
                flat, self.mean, self.power, self.weight, self.offset, self.training, self._rate, self.eps
            )
        else:
            power = self.power
            if self.training:
                power = flat.square().mean([d for d in range(flat.dim()) if d != 1])
                self.power.lerp_(power.detach(), self._rate)
            flat = flat * (self.weight / (power + self.eps).sqrt()).view(1, -1, *(1,) * (flat.dim() - 2))
        return flat.view(frames.shape).movedim(0, -1)

    def _of_all(self, flat: torch.Tensor) -> torch.Tensor:
        """Normalise (N, C, ...) by the moments over the mini-batch of all processes."""
        dims = [d for d in range(flat.dim()) if d != 1]
        sums = torch.stack([flat.sum(dims, dtype=torch.float64), flat.square().sum(dims, dtype=torch.float64)])
        number = torch.full_like(sums[:1], flat.numel() / flat.shape[1])
        mean, power, number = together.summed(torch.cat([sums, number])) / together.summed(number)
        mean = mean if self.centred else torch.zeros_like(mean)
        power = (power - mean * mean).float()
        self.see(mean.detach().float(), power.detach(), number[0].item() * flat.numel() / flat.shape[1])
        gain = self.weight / (power + self.eps).sqrt()
        shape = (1, -1, *(1,) * (flat.dim() - 2))
        out = (flat - mean.float().view(shape)) * gain.view(shape)
        return out if self.offset is None else out + self.offset.view(shape)

    def see(self, mean: torch.Tensor, power: torch.Tensor, number: float) -> None:
        """Take the moments of a batch of so many values a channel into the running statistics."""
        self.batches += 1
        if self.centred:
            self.mean.lerp_(mean, self._rate)
            power = power * (number / max(number - 1, 1))
        self.power.lerp_(power, self._rate)

    def line(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Factor and offset a channel, in evaluation."""
        gain = self.weight / (self.power + self.eps).sqrt()
        return gain, None if self.offset is None else self.offset - self.mean * gain

    @property
    def _rate(self) -> float:
        return 1 / self.batches if self.momentum is None and self.batches else self.momentum or 0.0

    @property
    def gain(self) -> torch.Tensor:
        """What folding multiplies the weights with, one a channel."""
        return self.line()[0].detach()

    @property
    def bias(self) -> torch.Tensor:
        """What folding leaves to add to the current, one a channel."""
        gain, offset = self.line()
        return torch.zeros_like(gain) if offset is None else offset.detach()


class Centring(torch.nn.Module):
    """Weights centred on the mean input of their layer, so that the mean current is what a learnt lift makes it.

    Spikes have no sign, and what comes into a neuron is much alike for all samples. Uncentred, this common part is
    most of the current of a deep layer, and tells samples apart no longer. Batch norm subtracts it as a bias, which a
    chip without biases cannot; here it leaves by the weights, and nothing need be removed after training. It is
    weight standardisation (Qiao et al., arXiv 1903.10520) with the mean taken over what comes in.

    Parameters
    ----------
    inputs, outputs : int
        Channels or features.

    Attributes
    ----------
    momentum : float or None
        Weight of a new batch in the running mean; None averages all batches since `reset` alike.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(inputs))
        self.lift = torch.nn.Parameter(torch.zeros(outputs))
        self.momentum: float | None = 0.1
        self.batches = 0

    def reset(self, momentum: float | None) -> None:
        """Forget the running mean."""
        self.mean.zero_()
        self.momentum, self.batches = momentum, 0

    def forward(self, weight: torch.Tensor, x: torch.Tensor | None) -> torch.Tensor:
        """Centred weights (outputs, inputs / groups, ...) for input (N, C, ...), None in evaluation."""
        mean = self.mean
        if self.training and x is not None:
            mean = x.detach().mean([d for d in range(x.dim()) if d != 1])
            if together.several():
                number = torch.full_like(mean[:1], x.numel() / x.shape[1])
                total = together.summed(torch.cat([mean * number, number]))
                mean = total[:-1] / total[-1]
            self.batches += 1
            rate = 1 / self.batches if self.momentum is None or self.batches == 1 else self.momentum
            self.mean.lerp_(mean, rate)
        return _Centred.apply(weight, self.lift, mean)


class _Centred(torch.autograd.Function):
    """Weights (outputs, inputs / groups, ...) less their mean weighted by the inputs', plus the lift."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, lift: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        ctx.groups = mean.numel() // weight.shape[1]
        if kernels.ready(weight):
            weight = weight.contiguous()
            out, share = torch.empty_like(weight), torch.empty(ctx.groups, weight.shape[1])
            given = _grouped(weight, ctx.groups), lift.detach().numpy(), mean.numpy().reshape(share.shape)
            ctx.std = kernels.centre(*given, share.numpy(), _grouped(out, ctx.groups))
            ctx.save_for_backward(share)
            return out
        # One column a group of outputs; a layer that nothing reaches is centred evenly.
        share = mean.view(ctx.groups, -1, 1) + kernels.EPS
        share = (share / (share.sum(1, keepdim=True) * weight[0, 0].numel())).expand(-1, -1, weight[0, 0].numel())
        share = share.reshape(ctx.groups, -1, 1)
        std = weight.std() if weight.numel() > 1 else torch.zeros_like(weight[..., 0].sum())
        middle = (weight.reshape(ctx.groups, -1, share.shape[1]) @ share).view(-1)
        ctx.save_for_backward(share, std)
        return weight - middle.addcmul_(lift, std, value=-1).view(-1, *(1,) * (weight.dim() - 1))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        share, *std = ctx.saved_tensors
        gradient = gradients[0]
        if not std:
            gradient = gradient.contiguous()
            out, of_lift = torch.empty_like(gradient), torch.empty(len(gradient))
            arrays = share.numpy(), ctx.std, _grouped(out, ctx.groups), of_lift.numpy()
            kernels.uncentre(_grouped(gradient, ctx.groups), *arrays)
            return out, of_lift, None
        total = gradient.flatten(1).sum(1)
        rows = gradient.reshape(ctx.groups, -1, share.shape[1])
        of_weight = torch.baddbmm(rows, total.view(ctx.groups, -1, 1), share.transpose(1, 2), alpha=-1)
        return of_weight.view(gradient.shape), total * std[0], None


def _grouped(weight: torch.Tensor, groups: int) -> np.ndarray:
    """(groups, outputs of one, inputs of one, kernel) of contiguous weights (outputs, inputs of a group, ...)."""
    return weight.detach().numpy().reshape(groups, len(weight) // groups, weight.shape[1], -1)


class Bias(torch.nn.Module):
    """A bias on the current, one a channel, added in every time step.

    Attributes
    ----------
    per_step : float
        Factor on the bias: T_train / T where the input's total charge does not grow with T (event data), else 1.
    weight_scale : float or None
        Chip integers a unit, once quantised; the bias then is a multiple of one integer.
    """

    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        self.value = torch.nn.Parameter(value.clone())
        self.per_step = 1.0
        self.weight_scale: float | None = None

    @property
    def integers(self) -> torch.Tensor:
        """Bias mantissas of the chip (quantised networks only)."""
        assert self.weight_scale is not None
        return (self.value.detach() * (self.per_step * self.weight_scale)).round()

    def line(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Factor and offset a channel: 1, and the bias."""
        bias = self.value * self.per_step
        if self.weight_scale is not None:
            wanted = bias * (self.weight_scale / WEIGHT_UNIT)
            # Straight through: the forward value is what the chip adds, the gradient that of the bias.
            bias = wanted + (self.integers / WEIGHT_UNIT - wanted).detach()
        return torch.ones_like(bias), bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add the bias to (N, C, ..., T)."""
        return x + self.line()[1].view(1, -1, *(1,) * (x.dim() - 2))
