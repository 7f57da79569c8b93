"""Tables and messages in plain text."""

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


LONGEST = 299
"""Characters of a message."""


def short(value: object, most: int = 60) -> str:
    """A value for a message, cut; a text as it is, else its repr.

    Examples
    --------
    >>> short("a" * 10, 5), short(None)
    ('aaaa…', 'None')
    """
    try:
        text = value if isinstance(value, str) else repr(value)
    except Exception:  # of whatever object was given
        text = f"a {type(value).__name__}"
    return text if len(text) <= most else text[: most - 1] + "…"


class UserError(ValueError):
    """What a user gave is not what it must be. One line under 300 characters, whatever names and values it quotes.

    Too long a message loses its middle: its start says where, its end what to do. What cannot be printed is escaped.

    Examples
    --------
    >>> str(UserError("model a\\nb: \\x1b[2J"))
    'model a b: \\\\x1b[2J'
    """

    def __init__(self, message: str) -> None:
        text = " ".join(message.split())
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
        if len(text) > LONGEST:
            text = f"{text[: LONGEST // 2]} … {text[-(LONGEST - LONGEST // 2 - 3) :]}"
        super().__init__(text)


def first_problem(error: Any) -> str:
    """The first thing wrong in a `pydantic.ValidationError`: which field, what, and the value.

    Examples
    --------
    >>> from pydantic import TypeAdapter, ValidationError
    >>> try:
    ...     TypeAdapter(list[int]).validate_python([1, "a"])
    ... except ValidationError as error:
    ...     first_problem(error)
    "2: Input should be a valid integer, unable to parse string as an integer (got 'a')"
    """
    return field_error(error.errors(include_url=False)[0], ())


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
    where = short(".".join(str(part + 1 if isinstance(part, int) else part) for part in error["loc"]), 80)
    place = f"{where}: " if where else ""
    if error["type"] == "extra_forbidden" and fields:
        return place + unknown("field", str(error["loc"][-1]), fields)
    if error["type"] == "missing":
        return f"{place}missing"
    text, got = error["msg"].removeprefix("Value error, "), error["input"]
    literal = error["type"] == "literal_error" and isinstance(got, str)
    hint = meant(got, error["ctx"]["expected"].split("'")[1::2]) if literal else ""
    shown = short(repr(got)) if isinstance(got, str) else short(got)
    return f"{place}{short(text, 120)} (got {shown}){hint}"
