"""The fields of NetX files, and what lava-dl and Lava make of weights.

The format is described field by field in FORMAT.md in the folder above.
"""

from __future__ import annotations

import math

import numpy as np

from netx_export.network import (
    KINDS,
    STATE_BITS,
    STATE_SHIFT,
    WEIGHT_MAX,
    WEIGHT_MIN,
    Conv,
    Dense,
    Flatten,
    Layer,
    Network,
    NetworkError,
    Pool,
)

FORMAT = "mtt-lava netx"
FORMAT_VERSION = 2
"""That of chains; since 2, files have a digest."""
GRAPH_VERSION = 3
"""That of graphs, the newest."""
LAYERS_MAX = 4096
"""Most layers of a graph."""

CONV_NUMBER_MAX = 127
"""Lava's conv process keeps kernel size, stride, padding, dilation and groups in 8 bits with sign."""
THRESHOLD_NEVER = 1 << (STATE_BITS - 1 - STATE_SHIFT)
"""The smallest threshold that a saturated v cannot pass; lava-dl gives it to a dense layer without a neuron."""
READABLE = ("conv", "dense", "dense_rec", "flatten", "pool", "average")
"""Types of layers that can be read; lava-dl's loader refuses pool and average."""
GRAPH_READABLE = ("dense_rec", *KINDS)
"""Those of graphs."""
NAME_MAX = 100
"""Most characters of a layer's name."""
NEURONS_MAX = 1 << 24
"""Most outputs that the layers of a file can have together; 16 chips of a million neurons."""


def is_graph(network: Network) -> bool:
    """Whether a network is written in the form of graphs: lava-dl knows chains of layers with neurons, and flatten.

    The chain of an event-driven network (reset ``"subtract"``) holds pools, too.
    """
    passing = (Flatten,) if network.reset == "zero" else (Flatten, Pool)

    def in_chain(layer: Layer) -> bool:
        return isinstance(layer, passing) if layer.neuron is None else isinstance(layer, (Conv, Dense))

    return not (network.is_chain and all(in_chain(layer) for layer in network))


class NetxWarning(UserWarning):
    """What the user of a file should know.

    When reading: lava-dl's loader runs something other than what stands in the file; the network read is what it runs.
    When writing: a state can leave its 24 bits on other data than that of training, or does on that.
    """


def loaded_dense_weight(
    weight: np.ndarray, recurrent: np.ndarray | None = None, *, delayed: bool = False
) -> tuple[np.ndarray, np.ndarray | None]:
    """Weights that a dense layer really has once lava-dl 0.6.0 has loaded them and Lava's fixed-point model runs them.

    NetX (`optimize_weight_bits`) clips weights of mixed sign to -256..254, shifts all weights left by as many bits as
    fit into 8 and derives a number of weight bits. Lava's dense model clips to 8 bits once more, by a sign mode of its
    own, cuts the bits it believes unused and shifts the sum back. The two disagree about layers without a positive
    weight, and shift by negative amounts where weights of one sign need more than 8 bits: weights come out halved,
    smaller by one, or zero. Nothing shifts the sum back in a recurrent layer with delays, whose exponent NetX forgets.

    Parameters
    ----------
    weight : numpy.ndarray
        Integers, (outputs, inputs).
    recurrent : numpy.ndarray, optional
        Integers, (outputs, outputs); NetX scales both together.
    delayed : bool
        Whether the layer has delays.

    Returns
    -------
    weight, recurrent : numpy.ndarray, numpy.ndarray or None
        What they become; equal to what came in where the loader is exact.

    Raises
    ------
    NetworkError
        If the loader crashes (all weights zero) or no integer weights compute the same.
    """
    parts = [part.astype(np.int64) for part in (weight, recurrent) if part is not None]
    high, low = max(int(part.max()) for part in parts), min(int(part.min()) for part in parts)
    if (high > WEIGHT_MAX and low < 0) or (low < WEIGHT_MIN and high > 0):
        parts = [np.clip(part, WEIGHT_MIN, WEIGHT_MAX) for part in parts]
        high, low = min(high, WEIGHT_MAX), max(low, WEIGHT_MIN)
    if high == low == 0:
        raise NetworkError("all weights are 0, or were cut to 0, and lava-dl's loader fails on that (OverflowError)")

    signed, shift = low < 0 <= high, _filling(low, high)
    used = int(np.bitwise_or.reduce(np.concatenate([np.abs(part).ravel() for part in parts])))
    unused_bits = min((used & -used).bit_length() - 1, 8)
    weight_bits = 8 - shift - (unused_bits - signed)
    back = 0 if delayed and recurrent is not None else shift

    loaded = []
    for part in parts:
        inhibitory = part.min() < 0 and part.max() <= 0
        mixed = part.min() < 0 < part.max()
        cut = 8 - weight_bits + mixed
        if shift < 0 or cut < 0:  # NumPy shifts everything out where the amount is negative.
            loaded.append(np.zeros_like(part))
            continue
        stored = np.clip((-part if inhibitory else part) << shift, -256 if mixed else 0, 255) >> cut << cut
        if np.any(stored & ((1 << back) - 1)):
            raise NetworkError("Lava clips the weights to fractions that no integer weights stand for")
        loaded.append((-stored if inhibitory else stored) >> back)
    return loaded[0], None if recurrent is None else loaded[1]


def _filling(low: int, high: int) -> int:
    """Bits by which NetX shifts weights of this range, not all 0, to fill 8 bits; Lava shifts their sums back."""
    if low < 0 <= high:
        return math.floor(math.log2(min(127 / high if high else math.inf, -128 / low))) + 1
    return math.floor(math.log2(-256 / low if high < 0 else 255 / high))


def largest_sum_in_lava(layer: Layer) -> int:
    """Largest absolute sum that Lava's process for this layer holds: 32 bits, or for a dense layer as many less as NetX
    shifts its weights by.
    """
    if not isinstance(layer, Dense) or layer.weight is None or not layer.weight.any():
        return (1 << 31) - 1
    return (1 << (31 - max(_filling(int(layer.weight.min()), int(layer.weight.max())), 0))) - 1


def each_channel(channels: int, kernel: np.ndarray) -> tuple[np.ndarray, int]:
    """Weights (channels, channels / groups, kernel height, width) that keep channels apart, and their groups.

    Where there are more channels than groups that Lava can hold, groups of several, with zeros between them.
    """
    groups = next(g for g in range(min(channels, CONV_NUMBER_MAX), 0, -1) if channels % g == 0)
    weight = np.zeros((channels, channels // groups, *kernel.shape), np.int64)
    weight[np.arange(channels), np.arange(channels) % (channels // groups)] = kernel
    return weight, groups


def changed(
    wanted: tuple[np.ndarray, np.ndarray | None], got: tuple[np.ndarray, np.ndarray | None]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of weights that loading changes."""
    pairs = zip(wanted, got, strict=True)
    return [(a, b) for a, b in pairs if a is not None and b is not None and not np.array_equal(a, b)]
