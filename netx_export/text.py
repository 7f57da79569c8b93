"""Tables in plain text, and names that were meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from textwrap import shorten
from typing import Any


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


def unknown(what: str, name: str, names: Iterable[str]) -> str:
    """The message about a name that is not among `names`.

    Examples
    --------
    >>> unknown("backend", "fsat", ["lava", "fast"])
    "backend 'fsat' is unknown (did you mean fast?); there is: lava, fast"
    """
    names = list(names)
    known = shorten(", ".join(names), 160, placeholder=" ...")
    return f"{what} {name!r} is unknown{meant(name, names)}; there is: {known}"


def field_error(error: Mapping[str, Any], fields: Iterable[str]) -> str:
    """What pydantic says of a field, in our words; things in lists are counted from 1.

    Parameters
    ----------
    error : mapping
        One of ``ValidationError.errors()``.
    fields : iterable of str
        Names that the field could have had.
    """
    where = ".".join(str(part + 1 if isinstance(part, int) else part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{where}: {unknown('field', str(error['loc'][-1]), fields)}"
    if error["type"] == "missing":
        return f"{where}: missing"
    text, got = error["msg"].removeprefix("Value error, "), error["input"]
    literal = error["type"] == "literal_error" and isinstance(got, str)
    hint = meant(got, error["ctx"]["expected"].split("'")[1::2]) if literal else ""
    return f"{where}: {text} (got {repr(got)[:60]})".replace("\n", " ") + hint
