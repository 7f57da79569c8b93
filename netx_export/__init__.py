"""Spiking networks in a chip's integers: the network description, and the NetX HDF5 files that hold it."""

from typing import TYPE_CHECKING, Any

from netx_export.network import (
    Add,
    Average,
    Conv,
    Dense,
    Flatten,
    Layer,
    Network,
    NetworkError,
    Neuron,
    Pool,
    Sigma,
    SigmaDelta,
)
from netx_export.netx import NetxWarning, read, write
from netx_export.table import layer_table

if TYPE_CHECKING:
    from netx_export.lava.compose import to_lava

__all__ = [
    "Add",
    "Average",
    "Conv",
    "Dense",
    "Flatten",
    "Layer",
    "Network",
    "NetworkError",
    "NetxWarning",
    "Neuron",
    "Pool",
    "Sigma",
    "SigmaDelta",
    "layer_table",
    "read",
    "to_lava",
    "write",
]


def __getattr__(name: str) -> Any:
    # What leads to Lava is imported only by those who ask for it.
    if name != "to_lava":
        raise AttributeError(f"module 'netx_export' has no attribute {name!r}")
    from netx_export.lava.compose import to_lava

    return to_lava
