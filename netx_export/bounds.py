"""How large the current of a layer's neurons can get: computed here, once for all who need it.

Writer, simulators, hardware checks and quantisation go through a network with `bounds`, which follows the range of one
input from layer to layer and says for each what its sums and its current u cannot pass, whatever the input.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from netx_export.network import (
    DECAY_UNITY,
    INPUT,
    STATE_MAX,
    STATE_SHIFT,
    Add,
    Average,
    Conv,
    Dense,
    Layer,
    Network,
    NetworkError,
    Neuron,
    Pool,
    SigmaDelta,
)

_EXACT_STEPS = 512
"""Up to so many time steps a pile is computed exactly: the fraction has twelve bits a step."""


@dataclass(frozen=True, eq=False)
class Bound:
    """What one layer's inputs can be, and what they can come to.

    Attributes
    ----------
    layer : Layer
    low, high : int
        Smallest and largest value of one input in a time step, 0 between them.
    least, most : int
        Smallest and largest sum of an output in a time step, in integers of the weights; what a layer feeds itself is
        in it. For a convolution, of outputs away from the border.
    terms : int
        Largest sum of absolute products in an output: no sum of some of its inputs is larger.
    pile : Fraction or None
        How many times a sum the current can become when the same comes in every time step; None: any, as of the sum
        sigma of sigma-delta neurons.
    raw : bool
        Whether any input is the network's own, with no neurons between.
    """

    layer: Layer
    low: int
    high: int
    least: int
    most: int
    terms: int
    pile: Fraction | None = None
    raw: bool = False

    @property
    def payload(self) -> int:
        """Largest absolute value of one input."""
        return max(-self.low, self.high)

    @property
    def change(self) -> int:
        """Largest absolute sum of an output in a time step."""
        return max(-self.least, self.most)

    def current(self, shift: int = STATE_SHIFT) -> int | float:
        """Largest absolute u, in its own unit (2 ** `shift` a unit of weight); ``math.inf`` where it never decays."""
        if self.pile is None:
            return math.inf if self.change else 0
        return math.floor((self.change << shift) * self.pile)


def bounds(layers: Iterable[Layer], low: int = 0, high: int = 1, time_steps: int | None = None) -> Iterator[Bound]:
    """Go through a network, and bound what every layer can get.

    Parameters
    ----------
    layers : Network, or iterable of Layer
        A chain, if it is no network. What has neurons sends 0 or 1, or, sigma-delta, what 32 bits hold; without them a
        layer passes on its sums.
    low, high : int
        Smallest and largest value of one input of the network in a time step.
    time_steps : int, optional
        Number of time steps in which inputs may be active; any number by default.

    Yields
    ------
    Bound
        One a layer, with neurons or without.
    """
    ranges = {INPUT: (min(int(low), 0), max(int(high), 0), True)}
    before = INPUT
    for layer in layers:
        inputs = [ranges[name] for name in (layer.inputs if isinstance(layers, Network) else (before,))]
        low, high = min(low for low, _, _ in inputs), max(high for _, high, _ in inputs)
        raw = any(raw for _, _, raw in inputs)
        if isinstance(layer, Add):
            least, most = sum(low for low, _, _ in inputs), sum(high for _, high, _ in inputs)
            terms = sum(max(-low, high) for low, high, _ in inputs)
        else:
            above, below = _sums(layer)
            back_above, back_below = _recurrent(layer)
            rows = list(zip(above, below, back_above, back_below, strict=True))
            most = max(a * high + b * low + more for a, b, more, _ in rows)
            least = min(a * low + b * high + less for a, b, _, less in rows)
            terms = max(-low, high) * max(a - b for a, b, *_ in rows)
        neuron = layer.neuron
        pile = pile_up(neuron.current_decay, time_steps) if isinstance(neuron, Neuron) else None
        yield Bound(layer, low, high, least, most, terms, pile, raw)
        before = layer.name
        if neuron is not None and neuron.graded:
            bits = 31 - (neuron.state_exponent if isinstance(neuron, SigmaDelta) else 0)
            ranges[before] = (-(1 << bits), (1 << bits) - 1, False)
        elif neuron is not None:
            ranges[before] = (0, 1, False)
        elif isinstance(layer, Conv) and max(-least, most) > STATE_MAX:
            ranges[before] = (-STATE_MAX - 1, STATE_MAX, raw)  # Lava's conv process keeps its sums in 24 bits
        else:
            ranges[before] = (min(least, 0), max(most, 0), raw)


def _sums(layer: Layer) -> tuple[list[int], list[int]]:
    """For each output (or one for all) the sums of its positive and of its negative weights, as Python's integers."""
    if isinstance(layer, Pool):
        return [layer.kernel[0] * layer.kernel[1]], [0]
    if isinstance(layer, Average):
        return [math.prod(layer.in_shape) // layer.shape[0]], [0]
    return ([1], [0]) if layer.weight is None else _signed(layer.weight)


def _recurrent(layer: Layer) -> tuple[list[int], list[int]]:
    if isinstance(layer, Dense) and layer.recurrent is not None:
        return _signed(layer.recurrent)
    outputs = 1 if layer.weight is None else len(layer.weight)
    return [0] * outputs, [0] * outputs


def _signed(weight: np.ndarray) -> tuple[list[int], list[int]]:
    rows = weight.reshape(len(weight), -1).astype(np.int64, copy=False)
    total, size = rows.sum(axis=1), np.abs(rows).sum(axis=1)
    return ((size + total) // 2).tolist(), ((total - size) // 2).tolist()


def pile_up(current_decay: int | np.ndarray, time_steps: int | None = None) -> Fraction | None:
    """How many times its input a current can become when the same comes in every time step.

    Parameters
    ----------
    current_decay : int or numpy.ndarray
        0 .. 4096, of 4096 a time step; the smallest counts.
    time_steps : int, optional
        Number of time steps; any by default.

    Returns
    -------
    Fraction or None
        At most 4096 / decay, and the number of time steps; None where there is no limit. Truncation only takes away
        from it.
    """
    decay = int(np.min(current_decay))
    if decay <= 0:
        return None if time_steps is None else Fraction(time_steps)
    if time_steps is None or time_steps > _EXACT_STEPS:
        return min(Fraction(DECAY_UNITY, decay), Fraction(time_steps or DECAY_UNITY))
    return (1 - Fraction(DECAY_UNITY - decay, DECAY_UNITY) ** time_steps) * Fraction(DECAY_UNITY, decay)


def largest_sum(current_decay: int | np.ndarray = DECAY_UNITY, payload: int = 1, time_steps: int | None = None) -> int:
    """Largest sum of a neuron's integer weights of one sign with which its current stays within 24 bits.

    The number that `netx_export.quantise.weight_scale` takes as ``reach_max``.

    Parameters
    ----------
    current_decay : int or numpy.ndarray
        0 .. 4096, of 4096 a time step.
    payload : int
        Largest value of one input; 1 behind a spiking layer.
    time_steps : int, optional
        Number of time steps; any by default.

    Returns
    -------
    int
        In integers of the weights (64 units of u each).

    Raises
    ------
    NetworkError
        The current never decays and `time_steps` is not given, or the payload is not positive.

    Examples
    --------
    >>> largest_sum()
    131071
    >>> largest_sum(1024, payload=3)
    10922
    """
    if payload < 1:
        raise NetworkError(f"payload is {payload}; give at least 1")
    pile = pile_up(current_decay, time_steps)
    if pile is None:
        raise NetworkError("a current that never decays has no bound: give time_steps, or a current decay of 1..4096")
    # The largest integer whose product is below STATE_MAX + 1, where floor would pass STATE_MAX.
    return math.ceil((STATE_MAX + 1) / (pile * (payload << STATE_SHIFT))) - 1


def share(measured: int, state_max: int = STATE_MAX) -> str:
    """A measured state and its share of the range, for messages.

    Examples
    --------
    >>> share(1_234_567)
    '1,234,567 (15 % of the range)'
    """
    return f"{measured:,} ({100 * measured / state_max:.0f} % of the range)"


def largest_input(
    layers: Iterable[Layer], time_steps: int | None = None, *, state_max: int = STATE_MAX, shift: int = STATE_SHIFT
) -> int | None:
    """Largest value of an input with which the current of neurons that it feeds cannot leave its bits.

    Parameters
    ----------
    layers : Network or iterable of Layer
    time_steps : int, optional
        Number of time steps; any by default.
    state_max, shift : int
        Largest current, and bits by which sums are shifted into it.

    Returns
    -------
    int or None
        0 where not even 1 fits; None where any does.
    """
    layers = layers if isinstance(layers, Network) else list(layers)

    def fits(value: int) -> bool:
        fed = (bound for bound in bounds(layers, 0, value, time_steps) if bound.layer.neuron is not None and bound.raw)
        return all(bound.current(shift) <= state_max for bound in fed)

    low, high = 0, state_max + 1
    if fits(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
