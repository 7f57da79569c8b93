"""Which neurons the inputs of a layer reach."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from netx_export.network import Conv, Layer

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
    """One axis of a convolution: which outputs an input reaches."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, padding: int, dilation: int) -> None:
        self.outputs, self.stride, self.padding = outputs, stride, padding
        self.span = (kernel - 1) * dilation
        at = np.arange(inputs)[:, None] + padding - dilation * np.arange(kernel)
        target = at // stride
        self.target = np.where((at % stride == 0) & (target >= 0) & (target < outputs), target, -1)
        """(inputs, kernel): the output that an input reaches through each tap of the kernel; -1: none."""
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
        low = max(0, tile[0] * self.stride - self.padding)
        target = self.target[low : max(low, (tile[1] - 1) * self.stride - self.padding + self.span + 1)]
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
    """Which neurons the inputs of a conv or dense layer reach.

    Attributes
    ----------
    conv : bool
        The other attributes are those of a convolution only.
    axes : list of Axis
        Rows and columns.
    groups, fan, group : int
        Groups, and input and output channels of one.
    """

    def __init__(self, layer: Layer) -> None:
        self.conv = isinstance(layer, Conv)
        if isinstance(layer, Conv):
            assert layer.weight is not None
            kernel, geometry = layer.weight.shape[2:], (layer.stride, layer.padding, layer.dilation)
            sizes = zip(layer.in_shape[1:], layer.shape[1:], kernel, *geometry, strict=True)
            self.axes = [Axis(*size) for size in sizes]
            self.groups, self.fan, self.group = layer.groups, layer.weight.shape[1], layer.shape[0] // layer.groups

    def sources_of(self, channels: Range) -> Range:
        """Input channels that a range of output channels gets."""
        return channels[0] // self.group * self.fan, ((channels[1] - 1) // self.group + 1) * self.fan
