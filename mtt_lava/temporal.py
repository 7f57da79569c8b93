"""Temporal structure: how many time steps each stage of a network runs, and what stands between stages.

Source of the method: Du, Wu, Deng, Gu, "Temporal Flexibility in Spiking Neural Networks", ICLR 2025 (arXiv 2503.17394).
Time is the last axis everywhere: NCHWT or NCT, SLAYER's order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from netx_export.text import UserError, unknown

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Method:
    """A training method: which numbers of time steps a mini-batch runs.

    Parameters
    ----------
    title : str
    colour : str
        In pictures.
    draw : callable, optional
        ``draw(generator, stages, t_min, t_max)`` returns the time steps of every stage in one temporal configuration.
        Without it, every mini-batch has a single configuration: T everywhere.
    accumulates : bool
        What is drawn sums the input's frames by groups of random sizes (`random_borders`).
    online : bool
        Time step by time step, each with a loss and a backward pass of its own (`mtt_lava.training.loop.Trainer.step`).
    """

    title: str
    colour: str
    draw: Callable[[np.random.Generator, int, int, int], np.ndarray] | None = None
    accumulates: bool = False
    online: bool = False

    @property
    def mixes(self) -> bool:
        """Whether it trains several numbers of time steps."""
        return self.draw is not None

    @property
    def uniform(self) -> bool:
        """Whether all stages must run the same number of time steps."""
        return self.accumulates or self.online


def _same(generator: np.random.Generator, stages: int, t_min: int, t_max: int) -> np.ndarray:
    return np.resize(generator.integers(t_min, t_max, size=1, endpoint=True), stages)


def _apart(generator: np.random.Generator, stages: int, t_min: int, t_max: int) -> np.ndarray:
    return generator.integers(t_min, t_max, size=stages, endpoint=True)


METHODS = {
    "sdt": Method("standard direct training", "#c44e52"),
    "nmt": Method("naive mixture (a random T for all stages)", "#dd8452", _same),
    "mtt": Method("Mixed Time-step Training (one for each)", "#4c72b0", _apart),
    "accumulate": Method("a random T for all, frames summed at random borders", "#55a868", _same, accumulates=True),
    "online": Method("standard training, online: memory does not grow with T", "#8172b3", online=True),
    "online-nmt": Method("naive mixture, online", "#937860", _same, online=True),
}
"""All of them, by name; commands and settings choose by it. The last three are what the paper names as other forms that
the idea carries over to: input frames accumulated at random, and T varied in online training."""

DRAWS = ("independent", "antithetic", "stratified")
"""How the configurations of a mini-batch are drawn together: each for itself (the paper); in pairs, whose numbers of
time steps mirror each other in the middle of the range; one from each of equal parts of it, stage by stage."""

FORMS = ("group", "fraction", "trim", "mean")
"""How a temporal transformation goes down and up: grouping (the paper's default), overlap of fractions, trim, means."""


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


def random_borders(generator: np.random.Generator, few: int, many: int) -> list[int]:
    """Borders b_0..b_few that cut `many` frames into `few` groups of random sizes, at least 1; all cuts are as likely.

    Examples
    --------
    >>> random_borders(np.random.default_rng(0), 3, 3)
    [0, 1, 2, 3]
    """
    if not 1 <= few <= many:
        raise TemporalError(f"cannot cut {many} frames into {few} groups: need 1 <= groups <= frames")
    inner = generator.choice(many - 1, few - 1, replace=False) + 1
    return [0, *(int(b) for b in np.sort(inner)), many]


def matrix(t_in: int, t_out: int, form: str = "group") -> np.ndarray:
    """The transformation of `t_in` frames into `t_out` frames as a matrix (t_in, t_out); frames @ matrix.

    Parameters
    ----------
    t_in, t_out : int
        Numbers of time steps, at least 1.
    form : {"group", "fraction", "trim", "mean"}
        ``group``: down, output frame k is the sum of a group of input frames; up, input frame k is copied to a
        group of output frames. ``fraction``: both time axes have the same length; going down each input frame is
        shared out by overlap (columns of the sum), going up each output frame is the mean of what it overlaps.
        ``trim``: the first `t_out` frames; going up as ``group``. ``mean``: as ``group``, but going down the mean of a
        group: what comes in each time step stays as large, whatever the number of time steps (not in the paper).

    Returns
    -------
    numpy.ndarray
        float32. Going down every row of ``group`` and ``fraction`` sums to 1 (no spike is lost); going up, and with
        ``mean`` always, every column does (frames are copied, or averaged).

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
            result[b[k] : b[k + 1], k] = 1 / (b[k + 1] - b[k]) if form == "mean" else 1
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
    form : str
        Of `FORMS`; see `matrix`.

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
    return transform_several(x, [x.shape[-1]], [t_out], form)


def transform_several(x: torch.Tensor, t_in: Sequence[int], t_out: Sequence[int], form: str = "group") -> torch.Tensor:
    """`transform` of several runs whose frames lie one behind the other.

    Parameters
    ----------
    x : torch.Tensor
        As that of `transform`; the time axis has the frames of every run.
    t_in, t_out : sequence of int
        For every run the number of its frames, and that wanted. A single `t_in` for several runs: each has all of `x`.
    form : str

    Returns
    -------
    torch.Tensor
        As `x`, the frames of every run one behind the other.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[[1.0, 2, 4]]])
    >>> transform_several(x, [3], [2, 3])
    tensor([[[1., 6., 1., 2., 4.]]])
    >>> transform_several(x, [1, 2], [2, 1])
    tensor([[[1., 1., 6.]]])
    """
    if list(t_in) == list(t_out):
        return x
    one_for_all = len(t_in) < len(t_out)
    weights, row, column = np.zeros((x.shape[-1], sum(t_out)), np.float32), 0, 0
    for before, after in zip([*t_in] * len(t_out) if one_for_all else t_in, t_out, strict=True):
        weights[row : row + before, column : column + after] = matrix(before, after, form)
        row, column = row if one_for_all else row + before, column + after
    return _mixed(x, weights)


def accumulate(x: torch.Tensor, cuts: Sequence[int]) -> torch.Tensor:
    """Sums of neighbouring frames.

    Parameters
    ----------
    x : torch.Tensor
        Frames, time on the last axis: (N, C, H, W, T) or (N, C, T).
    cuts : sequence of int
        Borders of the groups, rising from 0 to T; group k has the frames from border k to before border k + 1.

    Returns
    -------
    torch.Tensor
        As `x`, with a frame for each group; no event is lost.

    Examples
    --------
    >>> import torch
    >>> accumulate(torch.tensor([[[1.0, 2, 4, 8, 16]]]), [0, 1, 5])
    tensor([[[ 1., 30.]]])
    """
    weights = np.zeros((x.shape[-1], len(cuts) - 1), dtype=np.float32)
    for k, (start, end) in enumerate(pairwise(cuts)):
        weights[start:end, k] = 1
    return _mixed(x, weights)


def one_by_one(x: torch.Tensor, t_out: int, form: str = "group") -> Iterator[torch.Tensor]:
    """The frames of `transform`, one after the other, each (..., 1): no more than one of them is in memory at once."""
    weights = matrix(x.shape[-1], t_out, form)
    for column in weights.T:
        used = [int(i) for i in np.flatnonzero(column)]
        yield (x[..., used] * x.new_tensor(column[used])).sum(-1, keepdim=True)


def _mixed(x: torch.Tensor, weights: np.ndarray) -> torch.Tensor:
    """Frames times weights (T, frames wanted)."""
    import torch  # not above: samplers and settings need none

    t_in, t_out = weights.shape
    # Time first and channels last: the layout the networks work in, so that nothing is copied.
    frames = x.movedim((-1, 1), (0, -1)) if x.dim() == 5 else x.movedim(-1, 0)
    # One small matrix product.
    changed = (torch.from_numpy(weights).to(x).T @ frames.reshape(t_in, -1)).reshape(t_out, *frames.shape[1:])
    return changed.movedim((0, -1), (-1, 1)) if x.dim() == 5 else changed.movedim(0, -1)


class _Strata:
    """In place of a random generator: of a stage's numbers, one for a configuration, each equal part has one."""

    def __init__(self, generator: np.random.Generator, configurations: int, stages: int) -> None:
        self.generator, self.count = generator, configurations
        order = np.tile(np.arange(configurations), (stages, 1))
        self.parts = iter(generator.permuted(order, axis=1).T)

    def integers(self, low: int, high: int, size: int, endpoint: bool) -> np.ndarray:
        """As a generator's, each time from other parts."""
        share = (next(self.parts)[:size] + self.generator.random(size)) / self.count
        return low + (share * (high + endpoint - low)).astype(int)


@dataclass(frozen=True)
class Sampler:
    """Draws the temporal configurations of training, one list for each mini-batch.

    Parameters
    ----------
    method : str
        Of `METHODS`.
    blocks : int
        Number of blocks in the network.
    t_min, t_max : int
        Range drawn from, uniformly, both ends included.
    configurations : int
        Temporal configurations a mini-batch (s in the paper; 3), of a method that mixes.
    group : int
        Blocks a stage (g in the paper): neighbours share their number of time steps.
    hold_first : bool
        The first stage keeps `t_max` (the paper's event-driven experiments).
    sandwich : bool
        The first configuration of every mini-batch is `t_max` everywhere, the second `t_min` everywhere, the rest are
        drawn. Not in the paper: it is the sandwich rule of slimmable networks (Yu and Huang, ICCV 2019), and serves
        both ends of the range, where stages drawn apart hardly ever agree. Of two configurations, which leave no rest,
        every second mini-batch has the ends, and the others are drawn.
    seed : int
        Fixes the whole sequence.
    finer : int
        Above 1, methods that mix run one configuration more of every mini-batch, ``finer * t_max`` everywhere: the
        nearest that time steps come to a network without a clock. Not in the paper.
    draws : str
        Of `DRAWS`. Not in the paper: pairs and parts cover the range with fewer configurations, and two that mirror
        each other cost the same whatever is drawn, ``t_min + t_max`` time steps.

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
    draws: str = "independent"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise TemporalError(unknown("training method", self.method, METHODS))
        if self.draws not in DRAWS:
            raise TemporalError(unknown("way to draw configurations", self.draws, DRAWS))
        if not 1 <= self.t_min <= self.t_max:
            raise TemporalError(f"time steps {self.t_min}..{self.t_max} are no range: need 1 <= t_min <= t_max")
        for name in ("blocks", "configurations", "group", "finer"):
            if getattr(self, name) < 1:
                raise TemporalError(f"{name} is {getattr(self, name)}: must be at least 1")
        if self.hold_first and METHODS[self.method].uniform:
            raise TemporalError(
                f"hold_first keeps the first stage at T, but method {self.method!r} runs the same number of time steps "
                f"in all stages: leave it out, or use method 'mtt'"
            )
        if self.sandwich and METHODS[self.method].mixes and self.configurations < 2:
            raise TemporalError(
                f"configurations is {self.configurations}: with sandwich it must be at least 2, as both ends are run"
            )

    def draw(self, step: int) -> list[tuple[int, ...]]:
        """Configurations for training step `step`: time steps of every block. Depends on seed and step only."""
        full = (self.t_max,) * self.blocks
        if not METHODS[self.method].mixes:
            return [full]
        drawn = [full, (self.t_min,) * self.blocks] if self._has_ends(step) else []
        for steps in self._stages(step, self.configurations - len(drawn)):
            if self.hold_first:
                steps[0] = self.t_max
            drawn.append(tuple(int(t) for t in np.repeat(steps, self.group)[: self.blocks]))
        if self.finer > 1:
            drawn.append((self.finer * self.t_max,) * self.blocks)
        return drawn

    def _has_ends(self, step: int) -> bool:
        return self.sandwich and (self.configurations > 2 or step % 2 == 0)

    def cuts(self, step: int, frames: int) -> list[list[int] | None]:
        """For every configuration of `draw` the borders at which so many input frames are summed, where it accumulates.

        None: by the temporal transformation, as what is deployed; so are the ends that the sandwich adds, and finer
        frames. Depends on seed and step only.
        """
        configurations = self.draw(step)
        first, last = 2 * self._has_ends(step), len(configurations) - (self.finer > 1)
        generator = np.random.default_rng((self.seed, step, 1))
        return [
            random_borders(generator, time_steps[0], frames)
            if METHODS[self.method].accumulates and first <= number < last
            else None
            for number, time_steps in enumerate(configurations)
        ]

    def _stages(self, step: int, count: int) -> Iterator[np.ndarray]:
        """So many configurations, time steps of every stage."""
        draw, stages = METHODS[self.method].draw, -(-self.blocks // self.group)
        assert draw is not None
        generator: Any = np.random.default_rng((self.seed, step))
        if self.draws == "stratified":
            generator = _Strata(generator, count, stages)
        left = count
        while left > 0:
            steps = draw(generator, stages, self.t_min, self.t_max)
            pair = (steps, self.t_min + self.t_max - steps) if self.draws == "antithetic" else (steps,)
            yield from pair[:left]
            left -= len(pair)
