"""A model of Lava's Conv process that multiplies by a sparse matrix.

Lava's own model correlates every pair of channels, at all positions of stride 1, and picks from that: more than half
of the time of a whole run. A run configuration has to name this one; Lava's compiler does not find it by itself.
"""

from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from lava.proc.conv.models import PyConvModelFixed
from lava.proc.conv.process import Conv
from lava.proc.conv.utils import signed_clamp
from scipy.sparse import csr_matrix


@implements(proc=Conv, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PySparseConvModel(PyConvModelFixed):
    """Computes what `PyConvModelFixed` does: sums in doubles, exact below 2^53, cut to 32 bits and clamped to 24.

    With the parameter ``uncut`` of its process the 24 bits are left to the neurons, which count what they are too few
    for.

    The matrix makes one column of the output (all y and channels at one x) from the columns of the input under the
    kernel. All columns of the output share it, so it stays small for large images.
    """

    a_buf: np.ndarray
    padded: np.ndarray
    inside: np.ndarray
    under_kernel: np.ndarray
    matrix: Any = None

    def run_spk(self) -> None:
        self.a_out.send(self.a_buf)
        s_in = self.s_in.recv()
        if self.num_message_bits.item() == 0:
            s_in = s_in != 0
        if self.matrix is None:
            self._build(s_in.shape)
        self.inside[:] = s_in.reshape(len(s_in), -1).T
        sums = self.matrix @ self.padded[:, self.under_kernel].reshape(self.matrix.shape[1], -1)
        sums = sums.T.astype(np.int32).reshape(self.a_buf.shape)
        self.a_buf = sums if self.proc_params.get("uncut") else signed_clamp(sums, bits=24)

    def _build(self, in_shape: tuple[int, int, int]) -> None:
        """Matrix and buffers for inputs of shape (W, H, C), once Lava has set the weights."""
        width, height, channels = in_shape
        columns, rows, outputs = self.a_buf.shape
        kernel, stride, padding, dilation = (
            [int(n) for n in pair] for pair in (self.kernel_size, self.stride, self.padding, self.dilation)
        )
        groups = int(self.groups.item())

        self.padded = np.zeros((height * channels, width + 2 * padding[0]))
        self.inside = self.padded[:, padding[0] : padding[0] + width]
        self.under_kernel = np.arange(kernel[0])[:, None] * dilation[0] + np.arange(columns) * stride[0]

        # A convolution, not a correlation: the first weight belongs to the last pixel under the kernel.
        output, i, j, channel = np.nonzero(self.weight[:, ::-1, ::-1])
        weight = self.weight[:, ::-1, ::-1][output, i, j, channel]
        channel = channel + output // (outputs // groups) * (channels // groups)
        row = np.arange(rows)[:, None]
        y = row * stride[1] + j * dilation[1] - padding[1]
        inside = (y >= 0) & (y < height)
        self.matrix = csr_matrix(
            (
                np.broadcast_to(weight, y.shape)[inside].astype(float),
                ((row * outputs + output)[inside], ((y * channels + channel) * kernel[0] + i)[inside]),
            ),
            shape=(rows * outputs, height * channels * kernel[0]),
        )
