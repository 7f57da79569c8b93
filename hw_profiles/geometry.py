"""Which neurons the inputs of a layer reach."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from netx_export.network import Layer, Windowed

Shape = tuple[int, ...]
Range = tuple[int, int]
"""From, and up to but without."""
Span = tuple[Range, ...]
"""Ranges of channels, rows and columns."""


def as_map(shape: Shape) -> tuple[int, int, int]:
    """(C, H, W) of a layer's shape; the neurons of a dense layer, (F,), are channels of one pixel."""
    channels, height, width = (*shape, 1, 1)[:3]
    return channels, height, width


def slices(span: Span) -> tuple[slice, ...]:
    """The part of a map that `span` names."""
    return tuple(slice(*one) for one in span)


def even(size: int, count: int) -> list[Range]:
    """`size` things cut into `count` ranges whose sizes differ by 1 at most."""
    return [(i * size // count, (i + 1) * size // count) for i in range(count)]


def per_neuron(layer: Layer, value: int | np.ndarray) -> np.ndarray:
    """One number for all neurons, one a channel or one a neuron, as one a neuron, (neurons,)."""
    array = np.asarray(value)
    if array.ndim == 1:
        array = array.reshape(-1, *(1,) * (len(layer.shape) - 1))
    return np.broadcast_to(array, layer.shape).ravel()


def met(layer: Layer, weights: np.ndarray) -> np.ndarray:
    """How many of a layer's weights each input meets.

    Parameters
    ----------
    layer : Layer
    weights : numpy.ndarray
        Booleans, shaped as the layer's weights: which of them count.

    Returns
    -------
    numpy.ndarray
        Shape of the layer's input.
    """
    if not isinstance(layer, Windowed):
        return np.asarray(weights.sum(0))
    groups = layer.window.groups
    by_input = weights.reshape(groups, -1, *weights.shape[1:]).sum(1).reshape(layer.in_shape[0], *weights.shape[2:])
    down, across = (layer.taps(axis) >= 0 for axis in range(2))
    return np.einsum("ckl,yk,xl->cyx", by_input, down.astype(int), across.astype(int))


@dataclass(frozen=True)
class Reach:
    """Which inputs a tile of outputs sees, along one axis.

    Attributes
    ----------
    inputs : numpy.ndarray
        Their positions, ascending.
    taps : Counter
        Of the different ways in which an input meets the tile (which taps of the kernel), how many have so many taps.
        Inputs that meet it in the same way share their weights.
    spread : int
        Largest distance between two outputs of one input.
    """

    inputs: np.ndarray
    taps: Counter[int]
    spread: int


class Axis:
    """One axis of a windowed layer.

    Parameters
    ----------
    target : numpy.ndarray
        (inputs, kernel): the output that an input reaches through each tap of the kernel; -1: none.
    outputs : int
    """

    def __init__(self, target: np.ndarray, outputs: int) -> None:
        self.target, self.outputs = target, outputs
        # Inputs in order reach outputs in order: those of a tile are neighbours.
        least = np.where(target >= 0, target, outputs).min(axis=1)
        self._from = np.minimum.accumulate(least[::-1])[::-1]
        self._to = np.maximum.accumulate(target.max(axis=1))
        self._tiles: dict[int, list[Reach]] = {}

    def taps(self, tile: Range) -> np.ndarray:
        """(inputs,): how many outputs of the tile each input reaches."""
        return ((self.target >= tile[0]) & (self.target < tile[1])).sum(1)

    @property
    def matrix(self) -> np.ndarray:
        """(inputs, outputs): 1 where an input reaches an output."""
        matrix = np.zeros((len(self.target), self.outputs))
        at, tap = np.nonzero(self.target >= 0)
        matrix[at, self.target[at, tap]] = 1
        return matrix

    def reach(self, tile: Range) -> Reach:
        """What a tile of outputs sees."""
        low = int(np.searchsorted(self._to, tile[0]))
        target = self.target[low : max(low, int(np.searchsorted(self._from, tile[1])))]
        met = (target >= tile[0]) & (target < tile[1])
        seen = met.any(axis=1)
        met, target = met[seen], target[seen]
        if not len(met):
            return Reach(np.zeros(0, int), Counter(), 0)
        ways = np.unique(met, axis=0)
        most = np.where(met, target, -1).max(axis=1)
        least = np.where(met, target, tile[1]).min(axis=1)
        return Reach(np.flatnonzero(seen) + low, Counter(ways.sum(axis=1).tolist()), int((most - least).max()))

    def widest(self) -> Reach:
        """What the output sees that sees the most inputs."""
        reached = self.target[self.target >= 0]
        most = int(np.bincount(reached).argmax()) if len(reached) else 0
        return self.reach((most, most + 1))

    def tiles(self, count: int) -> list[Reach]:
        """What each of so many tiles sees."""
        if count not in self._tiles:
            self._tiles[count] = [self.reach(tile) for tile in even(self.outputs, count)]
        return self._tiles[count]


class Geometry:
    """Which neurons the inputs of a layer with weights reach.

    Attributes
    ----------
    windowed : bool
        Else every input reaches every neuron. The other attributes are those of windowed layers only.
    axes : list of Axis
        Rows and columns.
    groups, fan, group : int
        Groups, and input and output channels of one.
    """

    def __init__(self, layer: Layer) -> None:
        self.windowed = isinstance(layer, Windowed)
        if isinstance(layer, Windowed):
            weight, _, self.groups = layer.window
            self.axes = [Axis(layer.taps(axis), layer.shape[1 + axis]) for axis in range(2)]
            self.fan, self.group = weight.shape[1], layer.shape[0] // self.groups

    def sources_of(self, channels: Range) -> Range:
        """Input channels that a range of output channels gets."""
        return channels[0] // self.group * self.fan, ((channels[1] - 1) // self.group + 1) * self.fan
