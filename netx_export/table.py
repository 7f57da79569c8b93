"""A network as a text table."""

from __future__ import annotations

import numpy as np

from netx_export.bounds import share
from netx_export.network import Dense, Network
from netx_export.text import table


def layer_table(network: Network) -> str:
    """A plain text table: layer, kind, output shape, weights, bits used (with sign), threshold, range of weights.

    Where it was measured over the training data, also the largest current and its share of the range; of a graph, also
    what each layer takes.
    """
    rows = [["layer", "kind", "shape", "weights", "bits", "threshold", "range of weights"]]
    measured = any(layer.u_measured is not None for layer in network)
    for i, layer in enumerate(network, 1):
        row = [layer.name or f"{layer.kind}{i}", layer.kind, "x".join(str(n) for n in layer.shape)]
        if layer.weight is None:
            row += ["0", "", "" if layer.neuron is None else _range(layer.neuron.threshold), ""]
        else:
            count, weight = layer.weights, layer.weight.ravel()
            if isinstance(layer, Dense) and layer.recurrent is not None:
                count, weight = count + layer.recurrent.size, np.concatenate([weight, layer.recurrent.ravel()])
            row += [
                f"{count:,}",
                str(_bits_used(weight)),
                "" if layer.neuron is None else _range(layer.neuron.threshold),
            ]
            row += [f"{weight.min()} .. {weight.max()}"]
        rows.append(row)
        if not network.is_chain:
            row.append(", ".join(layer.inputs))
        if measured:
            row.append("" if layer.u_measured is None else share(layer.u_measured))
    total = sum(int(row[3].replace(",", "")) for row in rows[1:])
    rows.append(["total", "", "", f"{total:,}", "", "", ""])
    for shown, title in ((not network.is_chain, "takes"), (measured, "largest u measured")):
        if shown:
            rows[0].append(title)
            rows[-1].append("")
    return "\n".join(table(rows, left=3))


def _range(values: int | np.ndarray) -> str:
    low, high = np.min(values), np.max(values)
    return str(low) if low == high else f"{low} .. {high}"


def _bits_used(weight: np.ndarray) -> int:
    """Bits with sign; even weights are stored without their lowest bit."""
    mantissa = weight // 2 if not np.any(weight % 2) else weight
    return 1 + max(max(int(mantissa.max()), 0).bit_length(), max(-1 - int(mantissa.min()), 0).bit_length())
