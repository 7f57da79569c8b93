"""The second view of a network: groups of neurons, and the connections that feed them.

What a chip stores and sends is counted by it: axons and synapses a connection, shortcuts that have to wait, targets of
a core.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from netx_export.network import INPUT, Add, Conv, Dense, Layer, Network, NetworkError, Shape


@dataclass(frozen=True, eq=False)
class Connection:
    """A way from neurons, or the input, to the next neurons.

    Attributes
    ----------
    source : str
        Name of the layer whose spikes come in, or ``"input"``.
    target : str
        Name of the layer with neurons that they reach.
    path : tuple of Layer
        What they pass, in order; the last is the target itself.
    wait : int
        Time steps that spikes on it must be held, where every group of neurons answers one step after its input, so
        that all that comes of one input step arrives as one.
    """

    source: str
    target: str
    path: tuple[Layer, ...]
    wait: int

    @property
    def synapses(self) -> Layer:
        """The layer whose weights the spikes meet: one to one where they enter an `Add` as they are.

        Raises
        ------
        NetworkError
            There are weights twice on the way.
        """
        weighted = [layer for layer in self.path if layer.weight is not None]
        if len(weighted) > 1:
            raise NetworkError(
                f"layer {weighted[0].name}: its currents meet the weights of {weighted[1].name} without a neuron "
                f"between: give it neurons"
            )
        return weighted[0] if weighted else one_to_one(self.path[-1])


def connections(network: Network) -> tuple[Connection, ...]:
    """What feeds each group of neurons, in the order of the layers; layers behind the last neurons feed none."""

    def ways(name: str) -> list[tuple[str, tuple[Layer, ...]]]:
        if name == INPUT or network[name].neuron is not None:
            return [(name, ())]
        layer = network[name]
        return [(source, (*path, layer)) for before in layer.inputs for source, path in ways(before)]

    found = []
    for layer in network.spiking:
        for before in layer.inputs:
            for source, path in ways(before):
                depth = 0 if source == INPUT else network.depth(source)
                found.append(Connection(source, layer.name, (*path, layer), network.depth(layer.name) - 1 - depth))
    return tuple(found)


def one_to_one(layer: Layer, name: str | None = None) -> Layer:
    """Weights of 1 from every neuron of this shape to its like."""
    shape: Shape = layer.shape
    name = name or f"{layer.name}.identity"
    if len(shape) == 1:
        return Dense(name=name, in_shape=shape, shape=shape, weight=np.eye(shape[0], dtype=np.int64))
    weight = np.ones((shape[0], 1, 1, 1), np.int64)
    return Conv(name=name, in_shape=shape, shape=shape, weight=weight, groups=shape[0])


def waits(network: Network) -> dict[str, int]:
    """For each layer that a shortcut leaves, how many time steps its spikes are held at most.

    What leaves the input early is not held: the host sends it later.
    """
    longest: dict[str, int] = {}
    for way in connections(network):
        if way.source != INPUT and way.wait:
            longest[way.source] = max(longest.get(way.source, 0), way.wait)
    return longest


def meets_no_neurons(network: Network, layer: Layer) -> bool:
    """Whether a layer has weights whose sums reach no neurons: none of its own, and none of an `Add` right behind."""
    if layer.weight is None or layer.neuron is not None:
        return False
    users = network.users(layer.name)
    return not users or not all(isinstance(user, Add) and user.neuron is not None for user in users)
