"""Tables in plain text, and names that were meant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


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


def meant(name: str, names: Iterable[str]) -> str:
    """What to add to the message about a name that is not among `names`; empty where none is like it.

    Examples
    --------
    >>> meant("lohi2", ["loihi1", "loihi2"])
    ' (did you mean loihi2?)'
    """
    near = get_close_matches(name, list(names), 1)
    return f" (did you mean {near[0]}?)" if near else ""
