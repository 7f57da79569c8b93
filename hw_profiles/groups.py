"""A network as a chip holds it: groups of neurons, relays among them, and what feeds each."""

from __future__ import annotations

from dataclasses import dataclass, replace

from netx_export.connections import Connection, connections, one_to_one, waits
from netx_export.network import Layer, Network, Neuron


@dataclass(frozen=True, eq=False)
class Feed:
    """What feeds a group of neurons.

    Attributes
    ----------
    source : str
        Name of the group, or ``"input"``.
    synapses : Layer
        Holds the weights that its spikes meet.
    way : Connection or None
        The connection of the network; None into a relay.
    """

    source: str
    synapses: Layer
    way: Connection | None = None


@dataclass(frozen=True, eq=False)
class Group:
    """Neurons of one layer, or relays.

    Attributes
    ----------
    index : int
        Of the layer among the network's; relays come behind.
    layer : Layer
    feeds : tuple of Feed
    held : str
        Of relays the name of the layer whose spikes they hold; else empty.
    """

    index: int
    layer: Layer
    feeds: tuple[Feed, ...]
    held: str = ""


def groups(network: Network, relays: bool = True) -> list[Group]:
    """The groups of neurons of a network, in an order in which every source stands before what it feeds.

    Parameters
    ----------
    network : Network
    relays : bool
        Whether spikes that would arrive too early over a shortcut are held by relay neurons, one group a time step
        (those of the input are sent later by the host). Without a clock nothing is early.

    Raises
    ------
    NetworkError
        There are weights twice on the way to neurons.
    """
    index = {layer.name: i for i, layer in enumerate(network)}
    fed: dict[str, list[Feed]] = {layer.name: [] for layer in network.spiking}
    held = waits(network) if relays else {}
    for way in connections(network):
        wait = way.wait if way.source in held else 0
        fed[way.target].append(Feed(_relay(way.source, wait), way.synapses, way))
    found: list[Group] = []
    for layer in network.spiking:
        found.append(Group(index[layer.name], layer, tuple(fed[layer.name])))
        for step in range(1, held.get(layer.name, 0) + 1):
            relay = replace(one_to_one(layer, _relay(layer.name, step)), neuron=Neuron(0))
            number = len(network.layers) + len(found)
            found.append(Group(number, relay, (Feed(_relay(layer.name, step - 1), relay),), layer.name))
    return found


def _relay(source: str, step: int) -> str:
    return f"{source}.relay{step}" if step else source
