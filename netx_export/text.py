"""Tables in plain text."""

from __future__ import annotations

from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]], left: int = 0) -> list[str]:
    """Rows of cells as lines: the first `left` columns stand to the left, the others to the right.

    Examples
    --------
    >>> table([["layer", "spikes"], ["conv1", "12"]], left=1)
    ['layer  spikes', 'conv1      12']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
