"""NetX HDF5 files: written so that lava-dl's own loader runs exactly the network, and read back.

The format is described field by field in FORMAT.md in the folder above.
"""

from netx_export.netx.fields import NetxWarning, loaded_dense_weight
from netx_export.netx.read import check_encoder, read
from netx_export.netx.write import check_input_range, in_lava, write
from netx_export.table import layer_table

__all__ = [
    "NetxWarning",
    "check_encoder",
    "check_input_range",
    "in_lava",
    "layer_table",
    "loaded_dense_weight",
    "read",
    "write",
]
