"""How loops are compiled: one decorator for all of them."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from numba import njit, typeof


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function with Numba for each kind of argument it is called with, and keep the code on disk.

    Any number of processes may compile it at once. Numba numbers the files of a function in an index that nothing
    locks: two processes that compile for different arguments then give both the same number, and a third runs code
    made for arrays of another type (numba issue 4807). Here no two files ever have one name.
    """
    loop: Any = njit(nogil=True, cache=True, error_model="numpy")(function)
    files = loop._cache._cache_file
    pattern = files._data_name_pattern
    files._data_name = lambda number: pattern.format(number=number).replace(".nbc", f".{uuid.uuid4().hex[:16]}.nbc")
    return loop


def entry(loop: Any, *arguments: Any) -> Callable[..., Any]:
    """The compiled code for arguments of these types alone.

    A call then skips finding out of which types thirty arrays are, which takes longer than a few events. Of later
    arguments only the size of an array's elements is checked: integers given for floats would be taken for floats.
    """
    found: Callable[..., Any] = loop.compile(tuple(map(typeof, arguments)))
    return found
