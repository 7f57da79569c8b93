"""Writing files whole or not at all, reading them whole, and the digest by which damage is noticed."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DIGEST = "mtt-lava sha256 " + "0" * 64
"""What a file holds where its digest is to be, while the digest is computed."""
_DIGEST = re.compile(DIGEST.rstrip("0").encode() + b"([0-9a-f]{64})")


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends well, else remove it.

    Raises
    ------
    OSError
        With the name of the file, also where a full disk ends a write.

    Examples
    --------
    >>> with replacing("out.json") as temporary:  # doctest: +SKIP
    ...     _ = temporary.write_text("{}")
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private; give what open() would have given.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is not None:
            raise
        # Unlike open(), a write that fails does not say where; NumPy's does not even say why.
        why = error.strerror or f"not written whole ({error}); is the disk full?"
        raise OSError(error.errno or errno.EIO, why, str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


def save_arrays(path: str | os.PathLike[str], arrays: dict[str, Any], *, compress: bool = True) -> None:
    """Write a NumPy .npz file, whole or not at all.

    It is made in memory first: where the disk is full, closing a zip file fails in ways of its own.
    """
    import numpy as np

    content = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(content, **arrays)
    with replacing(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def read_whole(path: str | os.PathLike[str], most: int | None = None) -> bytes:
    """Content of a file.

    Parameters
    ----------
    path : path-like
        The file.
    most : int, optional
        The largest size allowed, in bytes.

    Raises
    ------
    OSError
        There is no such file, it is none (a folder, a pipe, a device, which might never end), or is larger.
    """
    # Without O_NONBLOCK, opening a pipe waits for somebody to write into it.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "is no regular file", os.fspath(path))
        if most is not None and found.st_size > most:
            raise OSError(errno.EFBIG, f"holds {found.st_size:,} bytes, and at most {most:,} are read", os.fspath(path))
        return file.read()


def _digest(content: bytes) -> re.Match[bytes] | None:
    """Where the digest of a file is: the first text like one, so that what else the file holds does not matter."""
    return _DIGEST.search(content)


def _sha256(content: bytes, at: re.Match[bytes]) -> bytes:
    view, blank = memoryview(content), DIGEST.encode()
    found = hashlib.sha256(view[: at.start()])
    found.update(blank)
    found.update(view[at.end() :])
    return found.hexdigest().encode()


def sealed(content: bytes) -> bytes:
    """The content of a file with its SHA-256 in the place of `DIGEST`, or of an older digest.

    The digest is taken over all bytes, with 64 zeros in its own place. It notices damage; it is no signature.

    Examples
    --------
    >>> is_whole(sealed(b"weights, " + DIGEST.encode()))
    True
    """
    at = _digest(content)
    assert at is not None, "no place for a digest"
    return content[: at.start(1)] + _sha256(content, at) + content[at.end(1) :]


def is_whole(content: bytes) -> bool | None:
    """Whether the content of a file is what its digest says; None where it has none.

    Examples
    --------
    >>> is_whole(sealed(b"weights, " + DIGEST.encode()).replace(b"weights", b"weighty"))
    False
    """
    at = _digest(content)
    return None if at is None else _sha256(content, at) == at[1]


def seal(path: str | os.PathLike[str]) -> None:
    """After a change that was meant, by another program: let a file's digest be that of what it holds now."""
    content = sealed(read_whole(path))
    with replacing(path) as temporary:
        temporary.write_bytes(content)
