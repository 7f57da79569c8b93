"""Reading what others wrote: files may be damaged, foreign or hostile, and what they declare is checked first.

Every function takes the caller's own exception class, and raises it with one line that starts with the path.
"""

from __future__ import annotations

import json
import math
import os
import stat
import warnings
import zipfile
from collections.abc import Callable, Container
from pathlib import Path
from typing import IO, Any

import numpy as np
import tomli

from netx_export.text import UserError, short

LARGEST_TEXT = 1 << 24
"""Bytes of a TOML or JSON file."""
LARGEST = 1 << 32
"""Bytes that the arrays of an .npz file may unpack to."""
_DEEPEST = 20  # tables in tables
_DEFLATE = 1032  # to one: more than this no deflated data unpacks to


def opened(path: str | os.PathLike[str], error: type[UserError]) -> IO[bytes]:
    """Open a regular file for reading; a FIFO or a device would wait for ever, or never end."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise error(f"{path}: cannot be read: it is not a regular file")
        return Path(path).open("rb")
    except OSError as reason:
        raise error(f"{path}: cannot be read: {reason.strerror or reason}") from None
    except ValueError as reason:
        if isinstance(reason, UserError):
            raise
        raise error(f"{os.fspath(path)!r}: cannot be read: {reason}") from None  # a NUL in its name


def read_text(path: str | os.PathLike[str], error: type[UserError]) -> str:
    """Return the text of a file that people write, UTF-8."""
    with opened(path, error) as file:
        content = file.read(LARGEST_TEXT + 1)
    if len(content) > LARGEST_TEXT:
        raise error(f"{path}: has more than {LARGEST_TEXT >> 20} MiB: not such a file")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise error(f"{path}: cannot be read: is not UTF-8 text") from None


def read_toml(path: str | os.PathLike[str], error: type[UserError]) -> dict[str, Any]:
    """Return the content of a TOML file."""
    content: dict[str, Any] = _parsed(path, read_text(path, error), tomli.loads, "TOML", error)
    return content


def read_json(path: str | os.PathLike[str], error: type[UserError]) -> Any:
    """Return the content of a JSON file."""
    return _parsed(path, read_text(path, error), json.loads, "JSON", error)


def _parsed(path: object, text: str, parse: Callable[[str], Any], kind: str, error: type[UserError]) -> Any:
    try:
        content = parse(text)
    except (ValueError, OverflowError) as reason:
        raise error(f"{path}: is not valid {kind}: {str(reason)[:150]}") from None
    except RecursionError:
        raise error(f"{path}: is not valid {kind}: nests too deep") from None
    check_plain(content, str(path), error)
    return content


def check_plain(content: Any, where: str, error: type[UserError]) -> None:
    """Refuse tables and lists that nest so deep, or hold integers so long, that they could not even be printed."""
    stack = [(content, 0)]
    while stack:
        value, depth = stack.pop()
        if isinstance(value, dict | list | tuple):
            if depth == _DEEPEST:
                raise error(f"{where}: nests deeper than {_DEEPEST} tables or lists: not such a file")
            stack += [(inner, depth + 1) for inner in (value.values() if isinstance(value, dict) else value)]
        elif isinstance(value, int) and value.bit_length() > 63:
            raise error(f"{where}: holds an integer of {value.bit_length()} bits; at most 64 with the sign")


def read_npy(path: str | os.PathLike[str], error: type[UserError]) -> np.ndarray:
    """Return the array of a NumPy .npy file; no pickles.

    Raises
    ------
    error
        Also where it declares more, or less, than it holds, before memory is taken.
    """
    with opened(path, error) as file:
        if file.read(4) == b"PK\3\4":
            raise error(f"{path}: holds several arrays (.npz); give one array in a .npy file")
        file.seek(0)
        try:
            return _array(file, os.fstat(file.fileno()).st_size)
        except Exception as reason:  # whatever NumPy says of damaged and foreign files
            raise error(f"{path}: is not a whole .npy file of numbers ({_said(reason)}): write it anew") from None


def read_npz(
    path: str | os.PathLike[str], error: type[UserError], wanted: Container[str] | None = None
) -> dict[str, np.ndarray]:
    """Return the arrays of a NumPy .npz file, or those `wanted` of them; no pickles.

    Raises
    ------
    error
        Also where a member declares more than its packed bytes can hold, before memory is taken.
    """
    with opened(path, error) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                members = {name.removesuffix(".npy"): archive.getinfo(name) for name in archive.namelist()}
                chosen = {name: info for name, info in members.items() if wanted is None or name in wanted}
                check_members(list(chosen.values()), os.fstat(file.fileno()).st_size)
                arrays = {}
                for name, info in chosen.items():
                    with archive.open(info) as member:
                        arrays[name] = _array(member, info.file_size)
                return arrays
        except Exception as reason:  # whatever NumPy and zipfile say of damaged and foreign files
            raise error(f"{path}: is not a whole .npz file of numbers ({_said(reason)}): write it anew") from None


def check_members(members: list[zipfile.ZipInfo], size: int) -> None:
    """Raise ValueError where members of a zip file of `size` bytes declare what it cannot hold."""
    for info in members:
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
            raise ValueError(f"{info.filename[:60]} is packed in another way, or encrypted")
        if info.file_size > _DEFLATE * (info.compress_size + 1):
            raise ValueError(f"{info.filename[:60]} declares {info.file_size:,} bytes, more than it can hold")
    if sum(info.compress_size for info in members) > size:
        raise ValueError("it declares more than it holds")
    if sum(info.file_size for info in members) > LARGEST:
        raise ValueError(f"unpacks to more than {LARGEST >> 30} GiB")


def _array(file: IO[bytes], size: int) -> np.ndarray:
    """Read a stream of `size` bytes in the .npy format."""
    start = file.tell()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the syntax of damaged headers
        version = np.lib.format.read_magic(file)
        # Version 3.0 differs from 2.0 in the encoding of names only.
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(file)
        if dtype.hasobject:
            raise ValueError("holds Python objects, which are not read")
        if not all(type(n) is int and n >= 0 for n in shape) or dtype.itemsize == 0:
            raise ValueError(f"shape {shape}, type {dtype}")
        declared, there = math.prod(shape) * dtype.itemsize, size - (file.tell() - start)
        if declared != there:
            raise ValueError(f"declares {declared:,} bytes of numbers and holds {there:,}")
        file.seek(start)
        array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
        return array


def _said(reason: Exception) -> str:
    return short(" ".join(str(reason).split()) or type(reason).__name__, 100)
