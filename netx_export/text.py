"""Tables and messages in plain text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
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
    "1: Input should be a valid integer, unable to parse string as an integer (got 'a')"
    """
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    got = short(repr(first["input"])) if isinstance(first["input"], str) else short(first["input"])
    return (f"{short(where, 80)}: " if where else "") + f"{short(first['msg'], 120)} (got {got})"
