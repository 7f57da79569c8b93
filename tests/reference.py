"""An obviously right simulator of the network description: plain NumPy integers, one time step after the other.

It follows lava-nc 0.10.0's fixed-point models (``lava/proc/lif/models.py``, ``sdn``, ``conv``, ``dense``), without the
time step that every synapse costs in Lava. Others are compared with it, so it is written to be read, not to be fast.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from netx_export.network import (
    INPUT,
    Add,
    Average,
    Conv,
    ConvT,
    Dense,
    Flatten,
    Layer,
    Network,
    Neuron,
    Pool,
    SigmaDelta,
)


def simulate(network: Network, inputs: np.ndarray) -> list[dict[str, np.ndarray]]:
    """Run a network from rest.

    Parameters
    ----------
    network : Network
        Any layers of the network description.
    inputs : numpy.ndarray
        Integers, (N, C, H, W, T) or (N, F, T). Nothing is made binary.

    Returns
    -------
    list of dict
        For each layer ``spikes`` (what leaves it), and for layers with neurons ``u`` and ``v`` after the step, each
        int64 of shape (N, *layer.shape, T); and ``u_before`` and ``v_before``, the absolute values that they would have
        had in the step had they not wrapped, or not saturated and not been reset. For sigma-delta neurons ``sigma``,
        ``act`` and ``residue``.
    """
    batch, steps = inputs.shape[0], inputs.shape[-1]
    records: list[dict[str, np.ndarray]] = []
    given = {INPUT: inputs.astype(np.int64)}
    for layer in network:
        signals = [given[name] for name in layer.inputs]
        record = {"spikes": np.zeros((batch, *layer.shape, steps), dtype=np.int64)}
        if layer.neuron is not None and layer.neuron.graded:
            states = {name: np.zeros((batch, *layer.shape), np.int64) for name in layer.neuron.states}
            record |= {name: np.zeros_like(record["spikes"]) for name in states}
        elif layer.neuron is not None:
            record |= {name: np.zeros_like(record["spikes"]) for name in ("u", "v", "u_before", "v_before")}
            u = np.zeros((batch, *layer.shape), dtype=np.int64)
            v = np.zeros_like(u)
        for t in range(steps):
            activation = sum(synapses(layer, signal, t) for signal in signals)
            if layer.neuron is None:
                record["spikes"][..., t] = activation
                continue
            if layer.neuron.graded:
                record["spikes"][..., t] = graded_step(layer, states, activation)
                for name, state in states.items():
                    record[name][..., t] = state
                continue
            if isinstance(layer, Dense) and layer.recurrent is not None and t > 0:
                activation = activation + delayed(layer.recurrent, layer.recurrent_delay, record["spikes"], t - 1)
            u, v, spikes, *before = neuron_step(layer, u, v, activation)
            record["u"][..., t], record["v"][..., t], record["spikes"][..., t] = u, v, spikes
            record["u_before"][..., t], record["v_before"][..., t] = before
        records.append(record)
        given[layer.name] = record["spikes"]
    return records


def synapses(layer: Layer, signal: np.ndarray, t: int) -> np.ndarray:
    """Weighted input (N, *layer.shape) of a layer in step t, given one whole input (N, *layer.in_shape, T)."""
    now = signal[..., t]
    if isinstance(layer, Add):
        return now
    if isinstance(layer, Flatten):
        return now.reshape(len(now), -1)
    if isinstance(layer, Dense):
        assert layer.weight is not None
        return delayed(layer.weight, layer.delay, signal, t)
    if isinstance(layer, Conv):
        assert layer.weight is not None
        sums = convolve(layer, layer.weight.astype(np.int64), layer.groups, layer.dilation, now)
        return sums if layer.neuron is not None else wrap(sums, 24)
    if isinstance(layer, ConvT):
        return scatter(layer, now)
    if isinstance(layer, Average):
        return now.reshape(len(now), layer.shape[0], -1).sum(axis=2)
    assert isinstance(layer, Pool)
    ones = np.ones((layer.shape[0], 1, *layer.kernel), dtype=np.int64)
    return convolve(layer, ones, layer.shape[0], (1, 1), now)


def delayed(weight: np.ndarray, delay: np.ndarray | None, signal: np.ndarray, t: int) -> np.ndarray:
    """Weighted sum (N, outputs) of what arrives in step t of a signal (N, inputs, T) through delays of some steps."""
    delay = np.zeros(weight.shape, int) if delay is None else delay
    total = np.zeros((len(signal), len(weight)), dtype=np.int64)
    for late in range(min(int(delay.max()), t) + 1):
        total += signal[..., t - late] @ np.where(delay == late, weight, 0).astype(np.int64).T
    return total


def convolve(
    layer: Conv | Pool, weight: np.ndarray, groups: int, dilation: tuple[int, int], image: np.ndarray
) -> np.ndarray:
    """Correlate (N, C, H, W) with (out, in / groups, height, width), one output pixel after the other."""
    height, width = layer.padding
    image = np.pad(image, ((0, 0), (0, 0), (height, height), (width, width)))
    out = np.zeros((len(image), *layer.shape), dtype=np.int64)
    outputs, inputs = len(weight) // groups, image.shape[1] // groups
    rows, columns = (np.arange(k) * d for k, d in zip(weight.shape[2:], dilation, strict=True))
    for channel in range(len(weight)):
        first = channel // outputs * inputs
        for y in range(layer.shape[1]):
            for x in range(layer.shape[2]):
                patch = image[:, first : first + inputs]
                patch = patch[:, :, y * layer.stride[0] + rows][:, :, :, x * layer.stride[1] + columns]
                out[:, channel, y, x] = (patch * weight[channel]).sum(axis=(1, 2, 3))
    return out


def scatter(layer: ConvT, image: np.ndarray) -> np.ndarray:
    """Transposed convolution of (N, C, H, W): every input pixel adds its kernel to the outputs, one after the other."""
    assert layer.weight is not None
    (height, width), (down, right) = layer.padding, layer.stride
    size = (layer.shape[1] + 2 * height, layer.shape[2] + 2 * width)
    full = np.zeros((len(image), layer.shape[0], *size), np.int64)
    outputs, inputs = len(layer.weight) // layer.groups, image.shape[1] // layer.groups
    for channel, kernel in enumerate(layer.weight.astype(np.int64)):
        first = channel // outputs * inputs
        for (y, x), (i, j) in product(np.ndindex(*image.shape[2:]), np.ndindex(*kernel.shape[1:])):
            sums = (image[:, first : first + inputs, y, x] * kernel[:, i, j]).sum(axis=1)
            full[:, channel, y * down + i * layer.dilation[0], x * right + j * layer.dilation[1]] += sums
    return full[:, :, height : height + layer.shape[1], width : width + layer.shape[2]]


def neuron_step(layer: Layer, u: np.ndarray, v: np.ndarray, activation: np.ndarray) -> tuple[np.ndarray, ...]:
    """One step of Loihi's CUBA neuron: u, v after the step, spikes, and what |u| and |v| were before they were cut."""
    neuron = layer.neuron
    assert isinstance(neuron, Neuron)
    limit = 1 << 23
    kept = decay(u, each(layer, neuron.current_decay))
    u_before = np.abs(kept + (wrap(activation, 32) << 6))
    if isinstance(layer, Conv):
        activation = wrap(activation, 24)  # Lava's conv process keeps its sums in 24 bits
    # 32-bit integers, as Lava keeps them, matter only for input far beyond 24 bits.
    sum_ = wrap(kept + wrap(wrap(activation, 32) << 6, 32), 32)
    # One turn round 24 bits only, and 2**23 itself stays.
    u = np.where(sum_ > limit, sum_ - 2 * limit, np.where(sum_ <= -limit, sum_ + 2 * limit, sum_))
    bias = each(layer, 0 if neuron.bias is None else neuron.bias) << neuron.bias_exponent
    v_sum = wrap(decay(v, each(layer, neuron.voltage_decay)) + u + bias, 32)
    v = np.clip(v_sum, -limit + 1, limit - 1)
    spikes = v > each(layer, neuron.threshold) << 6
    return u, np.where(spikes, 0, v), spikes.astype(np.int64), u_before, np.abs(v_sum)


def graded_step(layer: Layer, states: dict[str, np.ndarray], activation: np.ndarray) -> np.ndarray:
    """One step of Lava's Sigma or SigmaDelta neuron, in `states`; the message."""
    if isinstance(layer, Conv):
        activation = wrap(activation, 24)  # Lava's conv process keeps its sums in 24 bits
    states["sigma"] = wrap(states["sigma"] + activation, 32)
    neuron = layer.neuron
    if not isinstance(neuron, SigmaDelta):
        return states["sigma"]
    one = 1 << (neuron.spike_exponent + neuron.state_exponent)
    bias = each(layer, 0 if neuron.bias is None else neuron.bias) * one
    value = np.maximum(wrap(states["sigma"] + bias, 32), 0)
    delta = wrap(value - states["act"] + states["residue"], 32)
    sent = np.where(wrap(np.abs(delta), 32) >= neuron.threshold * one, delta, 0)
    states["residue"], states["act"] = wrap(delta - sent, 32), value
    return sent >> neuron.state_exponent


def each(layer: Layer, value: int | np.ndarray) -> np.ndarray:
    """One number for all, one a channel or one a neuron, as one a neuron."""
    array = np.asarray(value, dtype=np.int64)
    if array.shape == layer.shape[:1] and len(layer.shape) == 3:
        array = array[:, None, None]
    return np.broadcast_to(array, layer.shape)


def decay(state: np.ndarray, amount: np.ndarray) -> np.ndarray:
    """state * (4096 - amount) / 4096, truncated toward zero."""
    return np.sign(state) * (np.abs(state) * (4096 - amount) >> 12)


def wrap(x: np.ndarray, bits: int) -> np.ndarray:
    """What two's complement of this width keeps of an integer."""
    half = 1 << (bits - 1)
    return (x + half) % (2 * half) - half
