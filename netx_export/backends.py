"""The simulators, in one table: commands, `netx_export.simulation.simulate` and `netx_export.spread` choose by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from typing import Any, Literal

from netx_export.network import NetworkError
from netx_export.text import unknown


@dataclass(frozen=True)
class Backend:
    """A simulator of networks.

    Parameters
    ----------
    name : str
    module : str
        Its function ``simulate(network or path, input, ...)`` runs it.
    takes : {"frames", "events"}
        Integers (N, C, H, W, T) or (N, F, T), or `netx_export.event.backend.Events`.
    samples, chunks : int
        On workers (`netx_export.spread`): most samples a chunk, and chunks a worker at least; 0 where it has none.
    """

    name: str
    module: str
    takes: Literal["frames", "events"]
    samples: int = 0
    chunks: int = 0

    @property
    def simulate(self) -> Callable[..., Any]:
        """What runs it; imported only now, as it can take seconds."""
        run: Callable[..., Any] = import_module(self.module).simulate
        return run

    def check_options(self, options: dict[str, Any]) -> None:
        """Refuse an option that it does not have."""
        known = signature(self.simulate).parameters
        for name in options:
            if name not in known:
                raise NetworkError(f"backend {self.name!r} has no option {name!r}")


BACKENDS = {
    each.name: each
    for each in (
        Backend("fast", "netx_export.fast.backend", "frames", samples=64, chunks=4),
        # Lava takes some 5 s to start for every chunk.
        Backend("lava", "netx_export.lava.backend", "frames", samples=256, chunks=1),
        Backend("event", "netx_export.event.backend", "events"),
    )
}
"""All simulators, by name."""


def find(name: str, takes: str | None = None) -> Backend:
    """The simulator of this name, among those that take frames or events.

    Raises
    ------
    NetworkError
        There is none.
    """
    names = [each.name for each in BACKENDS.values() if takes in (None, each.takes)]
    if name not in names:
        raise NetworkError(unknown("backend", name, names))
    return BACKENDS[name]
