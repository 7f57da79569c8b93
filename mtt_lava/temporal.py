"""Temporal structure: how many time steps each stage of a network runs, and what stands between stages.

Source of the method: Du, Wu, Deng, Gu, "Temporal Flexibility in Spiking Neural Networks", ICLR 2025 (arXiv 2503.17394).
Time is the last axis everywhere: NCHWT or NCT, SLAYER's order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from netx_export.text import unknown

if TYPE_CHECKING:
    import torch

from netx_export.text import UserError

METHODS = ("sdt", "nmt", "mtt")
"""Standard direct training, naive mixture (one random T for all stages), Mixed Time-step Training."""

FORMS = ("group", "fraction", "trim")
"""How a temporal transformation goes down and up: grouping (the paper's default), overlap of fractions, trim."""


class TemporalError(UserError):
    """A time step count, range or configuration that cannot be."""


def borders(few: int, many: int) -> list[int]:
    """Group borders b_0..b_few that cut `many` frames into `few` groups: b_k = round(k * many / few - 1e-5).

    Examples
    --------
    >>> borders(3, 5)
    [0, 2, 3, 5]
    """
    if not 1 <= few <= many:
        raise TemporalError(f"cannot cut {many} frames into {few} groups: need 1 <= groups <= frames")
    return [round(k * many / few - 1e-5) for k in range(few + 1)]


def matrix(t_in: int, t_out: int, form: str = "group") -> np.ndarray:
    """The transformation of `t_in` frames into `t_out` frames as a matrix (t_in, t_out); frames @ matrix.

    Parameters
    ----------
    t_in, t_out : int
        Numbers of time steps, at least 1.
    form : {"group", "fraction", "trim"}
        ``group``: down, output frame k is the sum of a group of input frames; up, input frame k is copied to a
        group of output frames. ``fraction``: both time axes have the same length; going down each input frame is
        shared out by overlap (columns of the sum), going up each output frame is the mean of what it overlaps.
        ``trim``: the first `t_out` frames; going up as ``group``.

    Returns
    -------
    numpy.ndarray
        float32. Going down every row of ``group`` and ``fraction`` sums to 1 (no spike is lost); going up every
        column sums to 1 (frames are copied).

    Raises
    ------
    TemporalError
        A number below 1, or an unknown form.
    """
    if t_in < 1 or t_out < 1:
        raise TemporalError(f"cannot turn {t_in} time steps into {t_out}: both must be at least 1")
    if form not in FORMS:
        raise TemporalError(unknown("form of a temporal transformation", form, FORMS))
    if form == "fraction":
        # In units of 1 / (t_in * t_out) of the whole, so that it is exact: an input frame is t_out units long and
        # an output frame t_in units.
        start_in, start_out = np.arange(t_in)[:, None] * t_out, np.arange(t_out)[None, :] * t_in
        overlap = np.minimum(start_in + t_out, start_out + t_in) - np.maximum(start_in, start_out)
        return (np.maximum(overlap, 0) / min(t_in, t_out)).astype(np.float32)
    result = np.zeros((t_in, t_out), dtype=np.float32)
    if form == "trim" and t_out <= t_in:
        result[np.arange(t_out), np.arange(t_out)] = 1
    elif t_in >= t_out:
        b = borders(t_out, t_in)
        for k in range(t_out):
            result[b[k] : b[k + 1], k] = 1
    else:
        b = borders(t_in, t_out)
        for k in range(t_in):
            result[k, b[k] : b[k + 1]] = 1
    return result


def transform(x: torch.Tensor, t_out: int, form: str = "group") -> torch.Tensor:
    """The temporal transformation module (TTM): turn the frames of `x` into `t_out` frames.

    Has no parameters, works on any device, is differentiable, and is the identity where the numbers are equal.

    Parameters
    ----------
    x : torch.Tensor
        Frames, time on the last axis: (N, C, H, W, T) or (N, C, T).
    t_out : int
        Number of time steps wanted, at least 1.
    form : {"group", "fraction", "trim"}
        See `matrix`.

    Returns
    -------
    torch.Tensor
        As `x`, with `t_out` on the last axis.

    Examples
    --------
    Five frames into three are summed by groups, three into five are copied (paper, section 4):

    >>> import torch
    >>> transform(torch.tensor([[[1.0, 2, 4, 8, 16]]]), 3)
    tensor([[[ 3.,  4., 24.]]])
    >>> transform(torch.tensor([[[1.0, 2, 4]]]), 5)
    tensor([[[1., 1., 2., 4., 4.]]])
    """
    import torch  # not above: samplers and settings need none

    t_in = x.shape[-1]
    if t_in == t_out:
        return x
    frames = x.movedim(-1, 0)
    weights = torch.from_numpy(matrix(t_in, t_out, form)).to(x)
    # One small matrix product with time first: the layout the networks work in, so nothing is copied.
    return (weights.T @ frames.reshape(t_in, -1)).reshape(t_out, *frames.shape[1:]).movedim(0, -1)


@dataclass(frozen=True)
class Sampler:
    """Draws the temporal configurations of training, one list for each mini-batch.

    Parameters
    ----------
    method : {"sdt", "nmt", "mtt"}
        SDT: every stage runs `t_max` time steps. NMT: one random number for all stages. MTT: every stage its own.
    blocks : int
        Number of blocks in the network.
    t_min, t_max : int
        Range drawn from, uniformly, both ends included.
    configurations : int
        Temporal configurations a mini-batch (s in the paper; 3). SDT has one.
    group : int
        Blocks a stage (g in the paper): neighbours share their number of time steps.
    hold_first : bool
        The first stage keeps `t_max` (the paper's event-driven experiments).
    sandwich : bool
        The first configuration of every mini-batch is `t_max` everywhere, the second `t_min` everywhere, the rest are
        drawn. Not in the paper: it is the sandwich rule of slimmable networks (Yu and Huang, ICCV 2019), and serves
        both ends of the range, where stages drawn apart hardly ever agree.
    seed : int
        Fixes the whole sequence.
    finer : int
        Above 1, NMT and MTT run one configuration more of every mini-batch, ``finer * t_max`` everywhere: the nearest
        that time steps come to a network without a clock. Not in the paper.

    Raises
    ------
    TemporalError
        Unknown method, or a number out of range.
    """

    method: str
    blocks: int
    t_min: int = 1
    t_max: int = 10
    configurations: int = 3
    group: int = 1
    hold_first: bool = False
    sandwich: bool = False
    seed: int = 0
    finer: int = 1

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise TemporalError(unknown("training method", self.method, METHODS))
        if not 1 <= self.t_min <= self.t_max:
            raise TemporalError(f"time steps {self.t_min}..{self.t_max} are no range: need 1 <= t_min <= t_max")
        for name in ("blocks", "configurations", "group", "finer"):
            if getattr(self, name) < 1:
                raise TemporalError(f"{name} is {getattr(self, name)}: must be at least 1")
        if self.sandwich and self.method != "sdt" and self.configurations < 3:
            raise TemporalError(
                f"configurations is {self.configurations}: with sandwich it must be at least 3, or none would be random"
            )

    def draw(self, step: int) -> list[tuple[int, ...]]:
        """Configurations for training step `step`: time steps of every block. Depends on seed and step only."""
        full = (self.t_max,) * self.blocks
        if self.method == "sdt":
            return [full]
        generator = np.random.default_rng((self.seed, step))
        stages = -(-self.blocks // self.group)
        drawn = [full, (self.t_min,) * self.blocks] if self.sandwich else []
        while len(drawn) < self.configurations:
            size = 1 if self.method == "nmt" else stages
            steps = np.resize(generator.integers(self.t_min, self.t_max, size=size, endpoint=True), stages)
            if self.hold_first:
                steps[0] = self.t_max
            drawn.append(tuple(int(t) for t in np.repeat(steps, self.group)[: self.blocks]))
        if self.finer > 1:
            drawn.append((self.finer * self.t_max,) * self.blocks)
        return drawn
