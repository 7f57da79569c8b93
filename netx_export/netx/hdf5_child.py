"""The process in which HDF5 files are opened, so that a damaged or hostile one can neither hang nor end the caller.

It gets the bytes of files through a socket, its standard input, and answers with what stands in them, as plain data
(`netx_export.netx.hdf5`). It never opens a file: external links, external storage and virtual data sets, by which HDF5
reads other files, are refused before anything is read, and no filter plug-in is loaded.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
from typing import Any

import h5py
import numpy as np

from netx_export.netx.hdf5 import CONTENT_MAX, HEAD, receive

MEMORY = 1 << 30
"""Bytes of address space; a file, a copy of it and its content take three times `CONTENT_MAX`."""
DEPTH_MAX, OBJECTS_MAX, TEXTS_MAX = 16, 100_000, 20_000
SPARE = 1 << 20
"""Bytes that a data set may have without being stored: values never written are read as 0."""
EXPANSION = 1032
"""Bytes that deflate can make of one, the most of all filters known here."""
FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}
"""Those that the HDF5 library and h5py bring along."""


class Refused(Exception):
    """The file reads other files, or claims more than it can hold."""


class _Unreadable(Exception):
    """A value that is neither numbers nor a text, or is damaged: said where somebody asks for it."""


class _Content:
    """What stands in a file: a tree for JSON, and the bytes of arrays."""

    def __init__(self, file: Any, size: int) -> None:
        self.size, self.objects, self.total = size, 0, 0
        self.arrays: list[Any] = []
        self._check(file, "", 0)
        self.tree = self._group(file, "")

    def _check(self, group: Any, path: str, depth: int) -> None:
        """Before anything is read: nothing leads out of the file, and there is an end."""
        if depth > DEPTH_MAX:
            raise Refused(f"{path}: more than {DEPTH_MAX} groups in each other")
        for name in group:
            self.objects += 1
            if self.objects > OBJECTS_MAX:
                raise Refused(f"holds more than {OBJECTS_MAX:,} groups and data sets")
            where = f"{path}{name}"
            link = group.id.links.get_info(name.encode("utf-8", "surrogateescape")).type
            if link != h5py.h5l.TYPE_HARD:
                kind = {h5py.h5l.TYPE_SOFT: "a soft link", h5py.h5l.TYPE_EXTERNAL: "an external link"}
                raise Refused(
                    f"{where}: is {kind.get(link, 'a link')}, and links are not followed: "
                    f"put what it points to into the file"
                )
            try:
                item = group[name]
            except (KeyError, OSError, RuntimeError) as error:
                raise Refused(f"{where}: is damaged ({_first_line(error)})") from None
            if isinstance(item, h5py.Group):
                self._check(item, f"{where}/", depth + 1)
            elif isinstance(item, h5py.Dataset):
                made = item.id.get_create_plist()
                if made.get_layout() == h5py.h5d.VIRTUAL:
                    raise Refused(f"{where}: is a virtual data set, made of other files: put its values into the file")
                if made.get_layout() == h5py.h5d.CONTIGUOUS and made.get_external_count():
                    raise Refused(
                        f"{where}: is stored outside, in {made.get_external(0)[0]!r}: put its values into the file"
                    )

    def _group(self, group: Any, path: str) -> dict[str, Any]:
        attributes: dict[str, Any] = {}
        for name in group.attrs:
            attributes[name] = self._value(
                f"{path}@{name}", group.attrs.get_id(name), lambda name=name: group.attrs[name], self.size + SPARE
            )
        members: dict[str, Any] = {}
        for name in group:
            item = group[name]
            if isinstance(item, h5py.Group):
                members[name] = self._group(item, f"{path}{name}/")
            elif isinstance(item, h5py.Dataset):
                members[name] = self._value(f"{path}{name}", item, lambda item=item: item[()], self._stored(item))
            else:
                members[name] = {"unreadable": "is a datatype, not a data set"}
        return {"attributes": attributes, "members": members}

    def _stored(self, dataset: Any) -> int:
        """Bytes that what is stored of a data set can make."""
        made = dataset.id.get_create_plist()
        numbers = [made.get_filter(i)[0] for i in range(made.get_nfilters())]
        stored = min(dataset.id.get_storage_size(), self.size)
        return max(stored * (EXPANSION if any(number in (1, 32000) for number in numbers) else 1), SPARE)

    def _value(self, where: str, item: Any, read: Any, most: int) -> dict[str, Any]:
        try:
            return self._plain(where, item, read, most)
        except _Unreadable as error:
            return {"unreadable": str(error)}
        except (Refused, MemoryError):
            raise
        except Exception as error:  # h5py raises many types on damaged content
            return {"unreadable": f"cannot be read ({_first_line(error)})"}

    def _plain(self, where: str, item: Any, read: Any, most: int) -> dict[str, Any]:
        shape, dtype = item.shape, item.dtype
        if shape is None or 0 in shape:
            raise _Unreadable(f"has shape {shape}, so no values")
        size = 1
        for n in shape:
            size *= int(n)
        text = h5py.check_string_dtype(dtype)
        if text is not None and text.length is None:
            if size > TEXTS_MAX:
                raise _Unreadable(f"holds {size} texts, more than {TEXTS_MAX:,}")
        elif dtype.kind not in "biufS" or (dtype.kind != "S" and dtype.itemsize > 8):
            raise _Unreadable(f"holds {str(dtype)[:60]}, neither numbers nor a text")
        chunks = getattr(item, "chunks", None) or ()
        chunk = dtype.itemsize
        for n in chunks:
            chunk *= int(n)
        if max(size * dtype.itemsize, chunk) > most:
            raise Refused(f"{where}: claims the shape {shape}, more than the file holds")
        if isinstance(item, h5py.Dataset):
            made = item.id.get_create_plist()
            for i in range(made.get_nfilters()):
                number = made.get_filter(i)[0]
                if number not in FILTERS:
                    known = ", ".join(FILTERS.values())
                    raise _Unreadable(f"is stored through filter {number}, which is not read; these are: {known}")
        self._count(size * max(dtype.itemsize, 8))
        if text is not None and text.length is None and size != 1:
            return self._texts(item, shape)
        value = read()
        if text is not None and text.length is None:
            if isinstance(value, np.ndarray):
                value = value.ravel()[0]
            self._count(len(value))
            return {"text": value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")}
        array = np.ascontiguousarray(value, dtype.newbyteorder("=") if dtype.kind != "S" else dtype)
        self.arrays.append(array)  # the parent takes them in the order of the tree
        return {"shape": shape, "dtype": array.dtype.str}

    def _texts(self, item: Any, shape: tuple[int, ...]) -> dict[str, Any]:
        """Several texts, one after the other: any number of them can share one long text, which is stored once."""
        if not isinstance(item, h5py.Dataset):
            raise _Unreadable(f"holds {int(np.prod(shape))} texts, not one")
        texts = []
        for at in np.ndindex(*shape):
            texts.append(item[at].decode("utf-8", "surrogateescape"))
            self._count(len(texts[-1]))
        return {"texts": texts, "shape": shape}

    def _count(self, more: int) -> None:
        self.total += more
        if self.total > CONTENT_MAX:
            raise Refused(f"holds more than {CONTENT_MAX // 8:,} numbers")


def _first_line(error: BaseException) -> str:
    text = str(error.args[0]) if error.args else ""  # a KeyError puts quotes around it
    return (text.splitlines() or [type(error).__name__])[0][:100]


def _answer(content: bytearray) -> tuple[dict[str, Any], list[Any]]:
    try:
        with h5py.File(h5py.h5f.open_file_image(content)) as file:
            found = _Content(file, len(content))
            return found.tree, found.arrays
    except Refused as error:
        return {"refused": str(error)}, []
    except MemoryError:
        raise
    except Exception as error:
        return {"refused": f"not a readable HDF5 file ({_first_line(error)})"}, []


def main() -> None:
    """Answer until the parent is gone; end at once, without an answer, where memory or time run out."""
    seconds = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with socket.socket(fileno=os.dup(sys.stdin.fileno())) as parent:
        parent.sendall(HEAD.pack(1) + b"\n")  # it has started, and has h5py
        while content := receive(parent):
            used = resource.getrusage(resource.RUSAGE_SELF)
            limit = int(used.ru_utime + used.ru_stime) + 1 + seconds
            resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))
            try:
                tree, arrays = _answer(content)
                head = json.dumps(tree).encode()
            except MemoryError:
                os._exit(1)
            parent.sendall(HEAD.pack(len(head)) + head)
            for array in arrays:
                parent.sendall(HEAD.pack(array.nbytes))
                parent.sendall(memoryview(array.reshape(-1).view("u1")))
            del content, tree, arrays, head
    os._exit(0)


if __name__ == "__main__":
    main()
