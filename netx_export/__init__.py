"""Spiking networks in a chip's integers: the network description, and the NetX HDF5 files that hold it."""

from netx_export.network import Add, Average, Conv, Dense, Flatten, Layer, Network, NetworkError, Neuron, Pool
from netx_export.netx import NetxWarning, read, write
from netx_export.table import layer_table

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
    "layer_table",
    "read",
    "write",
]
