"""NIR files: networks for sinabs, Norse, snnTorch, SpikingJelly and others, and the integers of such files read back.

NIR (https://neuroir.org) is a graph of nodes in HDF5. What each reader computes exactly, `READERS` says, and
`tests/test_nir_readers.py` measures.
"""

from netx_export.nir.read import read
from netx_export.nir.readers import READERS, Reader
from netx_export.nir.write import write

__all__ = ["READERS", "Reader", "read", "write"]
