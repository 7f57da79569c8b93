"""What all commands share: parsers, kinds of arguments, how results and errors are said."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from mtt_lava.cli import kinds

OUR_PACKAGES = ("mtt_lava", "netx_export", "hw_profiles")


class _Help(argparse.HelpFormatter):
    """Examples stay as they are, so that they can be copied."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith("Example: ") else super()._fill_text(text, width, indent)


class Parser(argparse.ArgumentParser):
    """Takes its arguments only once they are asked for: what they can be may need an import."""

    def __init__(self, fill: Callable[[Parser], None] | None = None, **options: Any) -> None:
        super().__init__(formatter_class=_Help, **options)
        self._fill = fill

    def _filled(self) -> None:
        fill, self._fill = self._fill, None
        if fill is not None:
            fill(self)

    def parse_known_args(self, *arguments: Any, **options: Any) -> Any:
        self._filled()
        return super().parse_known_args(*arguments, **options)

    def format_help(self) -> str:
        self._filled()
        return super().format_help()

    def error(self, message: str) -> Any:
        if "invalid choice" in message:
            from netx_export.text import meant

            wrong, *choices = re.findall(r"'(.*?)'", message)
            message += meant(wrong, choices)
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def takes_events(backend: str | None) -> bool:
    """Whether this simulator runs without time steps."""
    from netx_export.backends import BACKENDS

    return backend is not None and BACKENDS[backend].takes == "events"


def check_run(run: str) -> None:
    """Refuse a folder that does not exist before NumPy is imported, which takes longer than looking."""
    if not Path(run).exists():
        raise FileNotFoundError(f"{run}: not a run folder (there is nothing of this name): make one with mtt train")


def check_file(path: str) -> None:
    """Refuse a file that does not exist; see `check_run`."""
    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: no such file")


def add_json(parser: argparse.ArgumentParser) -> None:
    """--json, which every command has that answers in text."""
    parser.add_argument(
        "--json",
        nargs="?",
        const="-",
        type=kinds.file,
        metavar="FILE",
        help="print JSON instead of text; with FILE also write it there (text is printed as usual)",
    )


def answer(args: argparse.Namespace, text: object, content: Any) -> int:
    """Print the text, or the JSON of the same; write JSON where a file is named. Returns the exit code, 0."""
    lines = json.dumps(content, indent=2)
    print(lines if args.json == "-" else text)
    if args.json not in (None, "-"):
        from netx_export.files import replacing

        with replacing(args.json) as temporary:
            temporary.write_text(lines + "\n")
    return 0


@contextmanager
def saying(what: str, everywhere: bool = False) -> Iterator[None]:
    """A word on a terminal (or everywhere) while something takes seconds and has no bar of its own."""
    terminal = sys.stderr.isatty()
    if terminal or everywhere:
        print(f"{what} ...", end="" if terminal else "\n", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def load_torch() -> None:
    """Import what takes seconds, once all that needs less has been checked."""
    with saying("loading PyTorch and SLAYER"):
        import mtt_lava.spiking  # noqa: F401


class Command(NamedTuple):
    """A command: its name, its arguments, what it does (returns the exit code), and its help."""

    name: str
    fill: Callable[[Parser], None]
    action: Callable[[argparse.Namespace], int] | None
    text: str
    examples: str = ""

    def add(self, commands: Any) -> None:
        """Make its parser, one of `commands`."""
        examples = "Example: " + self.examples.replace("\n", "\n         ") if self.examples else None
        summary = self.text.split(":")[0].rstrip(".")
        parser = commands.add_parser(self.name, fill=self.fill, help=summary, description=self.text, epilog=examples)
        parser.set_defaults(action=self.action, parser=parser)


def _show_warning(program: str, usual: Callable[..., None], message: Any, category: type, *where: Any) -> None:
    """Our own warnings are for the user, in a line; where in our code they arose is not."""
    if category.__module__.partition(".")[0] in OUR_PACKAGES:
        print(f"{program}: warning: {message}", file=sys.stderr)
    else:
        usual(message, category, *where)


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Arguments, where the word after --json is FILE unless the command wants it as a positional one."""
    words = list(arguments)
    for i, word in enumerate(words):
        if word == "--json" and not "".join(words[i + 1 : i + 2]).endswith(".json"):
            words[i] = "--json=-"
    args, rest = parser.parse_known_args(words)
    if rest:
        args, rest = parser.parse_known_args(arguments)
    if rest:
        from netx_export.text import meant

        command: argparse.ArgumentParser = getattr(args, "parser", parser)
        options = [name for name in command._option_string_actions if name.startswith("--")]
        hints = [meant(word.partition("=")[0], options) for word in rest if word.startswith("--")]
        command.error(f"unrecognized arguments: {' '.join(rest)}{''.join(hints)}")
    return args


def run(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    """Do what the arguments say; returns the exit code."""
    try:
        args = parse(parser, sys.argv[1:] if arguments is None else arguments)
        with warnings.catch_warnings():
            warnings.showwarning = partial(_show_warning, parser.prog, warnings.showwarning)
            return int(args.action(args))
    except KeyboardInterrupt:
        print(f"{parser.prog}: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read the output has had enough (mtt check | head); Python must not try again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        # Our own errors and the file system's are for the user; anything else is a bug and keeps its traceback.
        if type(error).__module__.partition(".")[0] not in OUR_PACKAGES and not isinstance(error, OSError):
            raise
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
