"""A network as the compiled loops of `netx_export.fast.kernels` take it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from netx_export.bounds import bounds
from netx_export.network import (
    DECAY_UNITY,
    INPUT,
    STATE_BITS,
    STATE_MAX,
    STATE_SHIFT,
    Add,
    Conv,
    Dense,
    Flatten,
    Layer,
    Network,
    Neuron,
    Sigma,
    SigmaDelta,
    Windowed,
    channels_fastest,
)

_NOTHING = np.zeros(0, np.int32)


class Spikes(NamedTuple):
    """What travels between layers, as events, ordered by sample and time step."""

    where: np.ndarray
    """Index of the neuron, channels fastest; and room for one more."""
    value: np.ndarray
    """The payload, or nothing where all are 1."""
    start: np.ndarray
    """Those of time step t of sample n are ``start[n * T + t] : start[n * T + t + 1]``."""


class Synapses(NamedTuple):
    """Where an event goes.

    One of index i, in pixel p and channel c, reaches ``target[j] + first[c] + k``, k < fan, through the weights
    ``weight[kernel[j] + c * fan + k]``, for all j in ``reach[p] : reach[p + 1]``.
    """

    pixel: np.ndarray
    channel: np.ndarray
    reach: np.ndarray
    target: np.ndarray
    kernel: np.ndarray
    weight: np.ndarray
    fan: int
    first: np.ndarray
    delay: np.ndarray
    """Of each weight, in time steps; or nothing."""


class Feedback(NamedTuple):
    """Recurrent weights of a dense layer, by source; or nothing."""

    weight: np.ndarray
    delay: np.ndarray


class Neurons(NamedTuple):
    """One layer's neurons; without any, `size` outputs that pass sums on."""

    size: int
    spiking: bool
    instant: bool
    """Integrate-and-fire, where u forgets everything in a step and v nothing."""
    keep_u: np.ndarray
    keep_v: np.ndarray
    bias: np.ndarray
    threshold: np.ndarray
    bits: int
    """What the sums of a time step are cut to: 24 in Lava's conv process."""


class GradedNeurons(NamedTuple):
    """One layer's sigma-delta neurons; or, in a network of these, `size` outputs that pass sums on."""

    size: int
    kind: int
    """`PASSES`, `SIGMA` or `SIGMA_DELTA`."""
    bias: np.ndarray
    threshold: np.int32
    shift: np.int32
    """The state exponent."""
    bits: int
    """As of `Neurons`."""


PASSES, SIGMA, SIGMA_DELTA = range(3)
"""What outputs do: each all that the one before does, and more."""


class Recorded(NamedTuple):
    """Arrays for states, (N, neurons, T) and (N, neurons), or nothing; in the order (C, H, W)."""

    u: np.ndarray
    v: np.ndarray
    last: np.ndarray


class GradedRecorded(NamedTuple):
    """The same of sigma-delta neurons; ``last`` is of the state that they answer with."""

    sigma: np.ndarray
    act: np.ndarray
    residue: np.ndarray
    last: np.ndarray


class Plan(NamedTuple):
    """A layer as `netx_export.fast.kernels.run_layer` takes it, or `run_graded`."""

    layer: Layer
    inputs: tuple[tuple[str, Synapses], ...]
    """The layers that feed it, or ``"input"``, and how."""
    feedback: Feedback
    depth: int
    """Time steps that sums wait in: the coming one and those of all delays."""
    neurons: Neurons | GradedNeurons
    order: np.ndarray


def plans(network: Network) -> Iterator[Plan]:
    orders = {INPUT: channels_fastest(network.in_shape)}
    source = {INPUT: INPUT}  # of a layer that takes no plan, where its events come from
    joined = _joined(network)
    for layer in network:
        order = orders[layer.inputs[0]]
        orders[layer.name], source[layer.name] = channels_fastest(layer.shape), layer.name
        if isinstance(layer, Flatten):
            # Events keep their indices, and their order still says which (C, H, W) they are.
            orders[layer.name], source[layer.name] = order, source[layer.inputs[0]]
        if isinstance(layer, Flatten) or layer.name in joined:
            continue
        inputs = []
        for name in layer.inputs:
            if name in joined:
                before = network[name].inputs[0]
                inputs.append((source[before], _synapses(network[name], orders[before], orders[name])))
            else:
                inputs.append((source[name], _synapses(layer, orders[name], orders[layer.name])))
        feedback = _feedback(layer)
        latest = max(int(delay.max(initial=0)) for delay in (feedback.delay, *(each.delay for _, each in inputs)))
        order = orders[layer.name]
        neurons = _graded(layer, order) if network.graded else _neurons(layer, order)
        yield Plan(layer, tuple(inputs), feedback, latest + 1, neurons, _int32(order))


def _joined(network: Network) -> set[str]:
    """Layers whose sums go straight into the neurons of an `Add`, since they fit the 24 bits of Lava's conv process."""
    names = set()
    for bound in bounds(network):
        users = network.users(bound.layer.name)
        weighs = bound.layer.neuron is None and not isinstance(bound.layer, Flatten | Add)
        if weighs and not bound.raw and bound.change <= STATE_MAX and len(users) == 1:
            names |= {bound.layer.name} if isinstance(users[0], Add) and users[0].neuron is not None else set()
    return names


def ranges(network: Network, low: int, high: int, steps: int) -> dict[str, int]:
    """How far the states of each layer could go, whatever the input.

    0: they stay within 24 bits; 2: a time step could make the current go round 24 bits more than once; 1: neither.
    """
    ranges = {}
    for bound in bounds(network, low, high, steps):
        neuron = bound.layer.neuron
        if neuron is not None and not isinstance(neuron, Neuron):
            continue  # they are run without
        bias = 0 if neuron is None or neuron.bias is None else int(np.abs(neuron.bias).max()) << neuron.bias_exponent
        calm = steps * (bound.current() + bias) <= STATE_MAX
        ranges[bound.layer.name] = 0 if calm else 1 + (bound.change << STATE_SHIFT >= 1 << STATE_BITS)
    return ranges


def _int32(array: np.ndarray) -> np.ndarray:
    """What 32 bits keep, contiguous."""
    return np.ascontiguousarray(array, np.int64).astype(np.int32)


def _synapses(layer: Layer, order: np.ndarray, out_order: np.ndarray) -> Synapses:
    """How events of one input, in their order, reach the outputs of a layer."""
    if isinstance(layer, Windowed):
        return _maps(layer)
    if isinstance(layer, Add):
        index, inverse = np.arange(len(order)), np.argsort(out_order)
        one = np.ones(1, np.int32)
        steps = np.arange(len(order) + 1)
        return Synapses(
            _int32(index), _int32(0 * index), steps, inverse[order], 0 * index, one, 1, np.zeros(1, int), _NOTHING
        )
    return _matrix(layer, order)


def _maps(layer: Windowed) -> Synapses:
    channels, height, width = layer.in_shape
    outputs = layer.shape[0]
    weight, _, groups = layer.window
    fan, (rows, columns) = outputs // groups, weight.shape[2:]
    # The last tap first: most layers' targets are then in order.
    down, across = (layer.taps(axis)[:, ::-1] for axis in range(2))
    y, x, i, j = np.nonzero((down >= 0)[:, None, :, None] & (across >= 0)[None, :, None, :])
    at = (rows - 1 - i) * columns + columns - 1 - j
    # (height, width, group, input channel within it, output channel within it)
    spread = weight.reshape(groups, fan, channels // groups, rows, columns).transpose(3, 4, 0, 2, 1)
    event = np.arange(channels * height * width)
    return Synapses(
        pixel=_int32(event // channels),
        channel=_int32(event % channels),
        reach=np.concatenate([[0], np.cumsum(np.bincount(y * width + x, minlength=height * width))]),
        target=(down[y, i] * layer.shape[2] + across[x, j]) * outputs,
        kernel=at * channels * fan,
        weight=_int32(spread.reshape(-1)),
        fan=fan,
        first=np.repeat(np.arange(groups) * fan, channels // groups),
        delay=_NOTHING,
    )


def _matrix(layer: Layer, order: np.ndarray) -> Synapses:
    outputs = layer.shape[0]
    delay = _NOTHING
    if isinstance(layer, Dense):
        weight = layer.weight
        assert weight is not None
        if layer.delay is not None:
            delay = _int32(layer.delay[:, order].T.reshape(-1))
    else:  # an average: each output is the sum of its inputs
        weight = np.repeat(np.eye(outputs, dtype=np.int32), len(order) // outputs, axis=1)
    index = np.arange(len(order))
    return Synapses(
        pixel=_int32(0 * index),
        channel=_int32(index),
        reach=np.array([0, 1]),
        target=np.array([0]),
        kernel=np.array([0]),
        weight=_int32(weight[:, order].T.reshape(-1)),
        fan=outputs,
        first=0 * index,
        delay=delay,
    )


def _feedback(layer: Layer) -> Feedback:
    weight = delay = _NOTHING
    if isinstance(layer, Dense) and layer.recurrent is not None:
        weight = _int32(layer.recurrent.T.reshape(-1))
        if layer.recurrent_delay is not None:
            delay = _int32(layer.recurrent_delay.T.reshape(-1))
    return Feedback(weight, delay)


def _neurons(layer: Layer, order: np.ndarray) -> Neurons:
    neuron, none = layer.neuron, _NOTHING
    bits = STATE_BITS if isinstance(layer, Conv) else 32
    if not isinstance(neuron, Neuron):
        return Neurons(len(order), False, False, none, none, none, none, bits)

    def each(value: int | np.ndarray | None) -> np.ndarray:
        return _each(layer, value)[order]

    keep = [DECAY_UNITY - each(decay) for decay in (neuron.current_decay, neuron.voltage_decay)]
    instant = not keep[0].any() and bool((keep[1] == DECAY_UNITY).all())
    bias = each(neuron.bias) << neuron.bias_exponent
    threshold = np.clip(each(neuron.threshold) << STATE_SHIFT, -(1 << 31), (1 << 31) - 1)
    return Neurons(len(order), True, instant, _int32(keep[0]), _int32(keep[1]), _int32(bias), _int32(threshold), bits)


def _each(layer: Layer, value: int | np.ndarray | None) -> np.ndarray:
    """One number for all, one a channel or one a neuron, as one a neuron, in the order (C, H, W)."""
    array = np.asarray(0 if value is None else value, np.int64)
    array = array.reshape(array.shape + (1,) * (len(layer.shape) - array.ndim if array.ndim else 0))
    return np.broadcast_to(array, layer.shape).ravel()


def _graded(layer: Layer, order: np.ndarray) -> GradedNeurons:
    neuron, kind = layer.neuron, SIGMA if isinstance(layer.neuron, Sigma) else PASSES
    bias, threshold, shift = _NOTHING, np.zeros((), np.int32), np.int32(0)
    if isinstance(neuron, SigmaDelta):
        kind, bias = SIGMA_DELTA, _int32(_each(layer, neuron.bias)[order] << neuron.shift)
        threshold, shift = _int32(np.array(neuron.threshold << neuron.shift)), np.int32(neuron.state_exponent)
    bits = STATE_BITS if isinstance(layer, Conv) else 32
    return GradedNeurons(len(order), kind, bias, threshold.ravel()[0], shift, bits)


def last_users(plans: Sequence[Plan]) -> dict[str, Layer]:
    """The layer that is the last to take the events of each source."""
    return {name: plan.layer for plan in plans for name, _ in plan.inputs}


def travelling(plans: Sequence[Plan]) -> int:
    """The most neurons whose events are kept at one time."""
    last, alive, most = last_users(plans), {INPUT: math.prod(plans[0].layer.in_shape)}, 0
    for plan in plans:
        alive[plan.layer.name] = plan.neurons.size
        most = max(most, sum(alive.values()))
        alive = {name: size for name, size in alive.items() if last.get(name) is not plan.layer}
    return most
