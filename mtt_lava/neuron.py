"""SLAYER's CUBA neuron, quicker and with a choice of surrogate gradient; and what may normalise its current.

The neuron computes what `lava.lib.dl.slayer.neuron.cuba.Neuron` computes, bit for bit once weights are quantised, and
saturates the membrane voltage at 24 bits as Loihi does and SLAYER does not. It works with time as the slowest
dimension in memory, so that a convolution over all time steps at once needs no copy; the shapes that users see stay
SLAYER's (N, C, H, W, T) and (N, C, T).
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from typing import Any

import torch

from mtt_lava import kernels
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


def _on_cpu(x: torch.Tensor) -> bool:
    """Whether the compiled loops of `mtt_lava.kernels` take it; elsewhere PyTorch does the same, slower."""
    return x.device.type == "cpu" and x.dtype == torch.float32


class _Fire(torch.autograd.Function):
    """Voltage dynamics, threshold and hard reset over all time steps: current (T, ...) to spikes (T, ...)."""

    @staticmethod
    def forward(
        ctx: Any, current: torch.Tensor, threshold: float, kept: float, exact: bool, surrogate: str, width: float
    ) -> torch.Tensor:
        current = current.contiguous()
        voltage = torch.empty_like(current)
        ctx.threshold, ctx.kept, ctx.surrogate, ctx.width = threshold, kept, surrogate, width
        ctx.save_for_backward(voltage)
        if _on_cpu(current):
            spikes = torch.empty_like(current)
            kernels.fire("zero", current, voltage, spikes, threshold, kept, STATE_UNIT, VOLTAGE_MAX, exact)
            return spikes
        v = torch.zeros_like(current[0])
        for t, now in enumerate(current):
            v = torch.add(_decayed(v, kept, exact), now, out=voltage[t])
            if exact:
                v.clamp_(-VOLTAGE_MAX, VOLTAGE_MAX)
            v = v * (v <= threshold)
        return (voltage > threshold).to(current.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = gradients
        (voltage,) = ctx.saved_tensors
        if _on_cpu(gradient):
            result = kernels.slope("zero", gradient, voltage, ctx.threshold, ctx.kept, ctx.width, ctx.surrogate)
            return result, None, None, None, None, None
        below = voltage <= ctx.threshold
        distance = (voltage - ctx.threshold).abs_()
        passed: torch.Tensor | None = below
        if ctx.surrogate == "laplace":
            slope = distance.mul_(-1 / ctx.width).exp_().div_(ctx.width)
            passed = (1 - slope * ctx.threshold).clamp_(min=0) * below
        elif ctx.surrogate == "triangular":
            slope = distance.mul_(-1 / ctx.width**2).add_(1 / ctx.width).clamp_(min=0)
        elif ctx.surrogate == "exponential":
            # SLAYER's constants (neuron/cuba.py): scale 0.1, tau 100 thresholds.
            passed, tau = None, 100 * ctx.width
            slope = distance.mul_(-1 / tau).exp_().mul_(0.1 / 2 / tau)
        else:
            slope = (distance <= ctx.width).to(distance.dtype).mul_(0.5 / ctx.width)
        result = slope.mul_(gradient)
        for t in range(len(result) - 2, -1, -1):
            after = result[t + 1]
            # SLAYER lets the gradient pass through a reset; the paper's recursion stops there.
            result[t].add_(after if passed is None else after * passed[t], alpha=ctx.kept)
        return result, None, None, None, None, None


class _FireSubtract(torch.autograd.Function):
    """As `_Fire`, but a neuron fires as many spikes in a time step as thresholds are in its voltage, and loses those;
    what is left never falls below the negative threshold. The clocked picture of a neuron that emits one event at
    a time as soon as v >= threshold (Speck; the paper's appendix on event-driven chips)."""

    @staticmethod
    def forward(
        ctx: Any, current: torch.Tensor, threshold: float, kept: float, exact: bool, width: float
    ) -> torch.Tensor:
        current = current.contiguous()
        voltage, spikes = torch.empty_like(current), torch.empty_like(current)
        ctx.save_for_backward(voltage)
        ctx.threshold, ctx.kept, ctx.width = threshold, kept, width
        if _on_cpu(current):
            kernels.fire("subtract", current, voltage, spikes, threshold, kept, STATE_UNIT, VOLTAGE_MAX, exact)
            return spikes
        v = torch.zeros_like(current[0])
        for t, now in enumerate(current):
            v = torch.add(_decayed(v, kept, exact), now, out=voltage[t])
            # Integers below 2**24, or float32 as it comes: the quotient of a whole multiple is exact.
            n = torch.div(v, threshold, out=spikes[t]).floor_().clamp_(min=0)
            v = (v - threshold * n).clamp_(min=-threshold)
        return spikes

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = gradients
        (voltage,) = ctx.saved_tensors
        if _on_cpu(gradient):
            result = kernels.slope("subtract", gradient, voltage, ctx.threshold, ctx.kept, ctx.width)
            return result, None, None, None, None
        # d(spikes) / d(v / threshold): 1 above the threshold, where it is a staircase of that mean slope; below it the
        # paper's single exponential, which no neuron is too silent to feel. Through the reset the same slope takes
        # from v what it gave to the spikes, so that a charge counts once, whatever the number of time steps.
        slope = ((voltage - ctx.threshold) / ctx.width).clamp_(max=0).exp_()
        free = voltage > -ctx.threshold
        result = torch.empty_like(gradient)
        after = torch.zeros_like(gradient[0])
        for t in range(len(result) - 1, -1, -1):
            torch.mul(gradient[t], slope[t] / ctx.threshold, out=result[t])
            result[t].add_(after * (1 - slope[t]) * free[t])
            after = result[t] * ctx.kept
        return result, None, None, None, None


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
            state = torch.zeros_like(synaptic[..., 0])
            synaptic = leaky_integrator.dynamics(synaptic, self.current_decay.round(), state, self.s_scale)
        if self.norm is not None:
            synaptic = self.norm(synaptic)
        return synaptic.movedim(-1, 0)

    @property
    def _voltage_kept(self) -> float:
        """Factor that a time step leaves of the voltage."""
        return 1 - round(self.voltage_decay.item()) / STATE_UNIT

    def _fire(self, current: torch.Tensor) -> torch.Tensor:
        """Spikes (T, N, ...) of dendritic current."""
        constants = self._threshold, self._voltage_kept, self.exact
        width = self.width * self._threshold
        if self.reset == "subtract":
            return _FireSubtract.apply(current, *constants, width)
        return _Fire.apply(current, *constants, self.surrogate, width)

    def current(self, synaptic: torch.Tensor) -> torch.Tensor:
        """Dendritic current (N, ..., T) of synaptic input (N, ..., T): what a layer without neurons passes on."""
        return self._current(synaptic).movedim(0, -1)

    def forward(self, synaptic: torch.Tensor) -> torch.Tensor:
        """Spikes (0 or 1; soft reset: how many) of synaptic input (N, C, H, W, T) or (N, C, T)."""
        return self._fire(self._current(synaptic)).movedim(0, -1)

    def count(self, synaptic: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Spikes (N, C, T) of synaptic input (N, C, T), and their number (N, C), the answer of a count readout.

        To the gradient of the number in training is added that of the charge that came in, in thresholds: what an
        output that fires nothing has to go by, and all that its last spike leaves over.
        """
        current = self._current(synaptic)
        spikes = self._fire(current)
        number = spikes.sum(0)
        if self.training:
            charge = current.sum(0) / self._threshold
            number = number + (charge - charge.detach())
        return spikes.movedim(0, -1), number

    def integrate(self, synaptic: torch.Tensor) -> torch.Tensor:
        """Membrane voltage (N, ...) after the last time step of neurons that never spike."""
        current = self._current(synaptic)
        kept = self._voltage_kept
        if kept == 1 and not self.exact:
            return current.sum(0)
        v = torch.zeros_like(current[0])
        for now in current:
            v = _decayed(v, kept, self.exact) + now
            if self.exact:
                v = v.clamp(-VOLTAGE_MAX, VOLTAGE_MAX)
        return v


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

    @property
    def _rate(self) -> float:
        return 1 / self.batches if self.momentum is None and self.batches else self.momentum or 0.0

    @property
    def gain(self) -> torch.Tensor:
        """What folding multiplies the weights with, one a channel."""
        return (self.weight / (self.power + self.eps).sqrt()).detach()

    @property
    def bias(self) -> torch.Tensor:
        """What folding leaves to add to the current, one a channel."""
        if self.offset is None:
            return torch.zeros_like(self.gain)
        return (self.offset - self.mean * self.gain).detach()


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
            self.batches += 1
            rate = 1 / self.batches if self.momentum is None or self.batches == 1 else self.momentum
            self.mean.lerp_(mean, rate)
        groups = len(mean) // weight.shape[1]
        # One row a group of outputs; a layer that nothing reaches is centred evenly.
        share = mean.view(groups, -1) + torch.finfo(mean.dtype).eps
        share = share / share.sum(1, keepdim=True)
        by_group = weight.reshape(groups, -1, *weight.shape[1:])
        middle = by_group.flatten(3).mean(-1) * share.unsqueeze(1)
        middle = middle.sum(-1).view(-1) - self.lift * weight.detach().std()
        return weight - middle.view(-1, *(1,) * (weight.dim() - 1))


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

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add the bias to (N, C, ..., T)."""
        bias = self.value * self.per_step
        if self.weight_scale is not None:
            wanted = bias * (self.weight_scale / WEIGHT_UNIT)
            # Straight through: the forward value is what the chip adds, the gradient that of the bias.
            bias = wanted + (self.integers / WEIGHT_UNIT - wanted).detach()
        return x + bias.view(1, -1, *(1,) * (x.dim() - 2))
