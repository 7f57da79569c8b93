"""NIR files: networks for sinabs, Norse, snnTorch, SpikingJelly and others, and the integers of such files read back.

NIR (https://neuroir.org) is a graph of nodes in HDF5. What each reader computes exactly, `READERS` says, and
`tests/test_nir_readers.py` measures.
"""

from netx_export.nir.foreign import ordered
from netx_export.nir.graph import Node
from netx_export.nir.read import Loaded, load_graph, read
from netx_export.nir.readers import READERS, Reader
from netx_export.nir.values import decayed, gain, pair
from netx_export.nir.write import write

__all__ = [
    "READERS",
    "Loaded",
    "Node",
    "Reader",
    "decayed",
    "gain",
    "load_graph",
    "ordered",
    "pair",
    "read",
    "write",
]
