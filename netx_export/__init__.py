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
    from netx_export.simulation import Simulation, SimulationError, simulate

_HOME = {
    "Simulation": "simulation",
    "SimulationError": "simulation",
    "simulate": "simulation",
    "to_lava": "lava.compose",
}

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
    "Simulation",
    "SimulationError",
    "layer_table",
    "read",
    "simulate",
    "to_lava",
    "write",
]


def __getattr__(name: str) -> Any:
    # What compiles loops or leads to Lava is imported only by those who ask for it.
    if name not in _HOME:
        raise AttributeError(f"module 'netx_export' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"netx_export.{_HOME[name]}"), name)
