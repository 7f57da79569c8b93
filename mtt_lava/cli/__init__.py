"""The command line: `mtt` and `mtt-export`.

Every command imports what it needs when it is chosen, so that ``mtt --help`` answers at once.
"""

from __future__ import annotations

from collections.abc import Sequence

from mtt_lava import __version__
from mtt_lava.cli import listing, live, networks, runs, studies, training
from mtt_lava.cli.parsing import Parser, run

COMMANDS = (
    *(studies.DEMO, listing.DATA, listing.MODELS, listing.PROFILES, training.TRAIN, runs.EVALUATE, runs.EXPORT),
    *(networks.IMPORT, networks.CHECK, networks.SIMULATE, live.STREAM, networks.COST, runs.SWEEP, runs.REPORT),
    *(networks.LAVA, studies.BENCH),
)
"""In the order of ``mtt --help``."""


def parsers() -> tuple[Parser, Parser]:
    """The parsers of `mtt` and `mtt-export`."""
    mtt = Parser(
        prog="mtt",
        description="Train a spiking neural network once and run it at any number of time steps.",
        epilog="Example: mtt demo\n\nThe examples in the help of all commands go together, in the order above.",
    )
    mtt.add_argument("--version", action="version", version=f"mtt-lava {__version__}")
    commands = mtt.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add(commands)
    export = Parser(
        prog="mtt-export",
        fill=runs.EXPORT.fill,
        description="Write a trained run as a NetX HDF5 file for Lava and check it against a chip.",
        epilog="Example: mtt-export runs/digits digits.net --profile loihi2",
    )
    export.set_defaults(action=runs.EXPORT.action)
    return mtt, export


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `mtt`; returns the exit code."""
    return run(parsers()[0], arguments)


def export_main(arguments: Sequence[str] | None = None) -> int:
    """Run `mtt-export`; returns the exit code."""
    return run(parsers()[1], arguments)
