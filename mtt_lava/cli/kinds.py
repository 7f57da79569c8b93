"""Kinds of arguments, as argparse takes them for ``type``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def _numbers(text: str, least: int, what: str) -> list[int]:
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or min(values) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of {what}: give numbers from {least} on, as 1,2,10")
    return values


def steps(text: str) -> list[int]:
    """Numbers of time steps."""
    return _numbers(text, 1, "time steps")


def seeds(text: str) -> list[int]:
    """Seeds."""
    return _numbers(text, 0, "seeds")


def change(text: str) -> tuple[str, dict[str, str]]:
    """FIELD=VALUE of the settings, several joined by +: as it stands, and as settings take it."""
    from mtt_lava import Settings

    fields = {}
    for part in text.split("+"):
        name, sign, value = part.partition("=")
        name = name.strip().replace("-", "_")
        if not sign or name not in Settings.model_fields:
            raise argparse.ArgumentTypeError(f"{text!r:.80} is no change: give FIELD=VALUE of the settings, as finer=4")
        if name in ("model", "data", "root", "seed", "chip", "profile"):
            raise argparse.ArgumentTypeError(f"{text!r:.80}: {name} is the same for all ways that are compared")
        fields[name] = value
    return text, fields


def shape(text: str) -> tuple[int, ...]:
    """C,H,W or F."""
    sizes = tuple(_numbers(text, 1, "sizes"))
    if len(sizes) not in (1, 3):
        raise argparse.ArgumentTypeError(f"{text!r} is no shape: give C,H,W, or F of a flat input")
    return sizes


def positive(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def backend(text: str) -> str:
    """The name of a simulator."""
    from netx_export import NetworkError, backends

    try:
        return backends.find(text).name
    except NetworkError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def profile(text: str) -> str:
    """The name or file of a hardware profile."""
    import hw_profiles

    try:
        hw_profiles.load(text)
    except hw_profiles.ProfileError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def profiles(text: str) -> list[str]:
    """Several of them."""
    return [profile(name) for name in text.split(",")]


def folder(text: str) -> str:
    """Where a command will write: what cannot be is refused before an hour is spent."""
    path = Path(text)
    there = next(each for each in (path, *path.absolute().parents) if each.exists())
    if not there.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} cannot be written: {there} is no folder: choose another place")
    if not os.access(there, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be written: {there} is read-only: choose another place")
    return text


def file(text: str) -> str:
    """A file that a command will write; - is stdout."""
    if text == "-":
        return text
    if not text or Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a folder: name a file")
    folder(str(Path(text).absolute().parent))
    return text


def crop(text: str) -> tuple[int, int, int, int]:
    """Column, row, columns and rows."""
    values = _numbers(text, 0, "a crop: column, row, columns, rows")
    if len(values) != 4:
        raise argparse.ArgumentTypeError(f"{text!r} is no crop: give column,row,columns,rows, as 32,32,64,64")
    return values[0], values[1], values[2], values[3]
