"""Sphinx builds the site: `uv run sphinx-build -W docs site`."""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

from mtt_lava import __version__  # noqa: E402
from mtt_lava.cli import parsers  # noqa: E402

project, author, release = "MTT-Lava", "the MTT-Lava authors", __version__
copyright = f"2026, {author}"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"MTT-Lava {release}"
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say them, with shapes and units
default_role = "py:obj"


def commands() -> str:
    """The help of every command, as it prints it."""
    mtt, export = parsers()
    found = [("mtt", mtt), *_below("mtt", mtt), ("mtt-export", export)]
    return "\n\n".join(f"## `{name}`\n\n```text\n{parser.format_help().rstrip()}\n```" for name, parser in found)


def _below(name: str, parser: argparse.ArgumentParser) -> list[tuple[str, argparse.ArgumentParser]]:
    found = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, below in action.choices.items():
                found += [(f"{name} {word}", below), *_below(f"{name} {word}", below)]
    return found


def formats() -> str:
    """`netx_export/FORMAT.md` without its title; links into the repository become text."""
    text = (ROOT / "netx_export" / "FORMAT.md").read_text().partition("\n")[2]
    return re.sub(r"\[([^]]*)\]\((?!http|#)[^)]*\)", r"\1", text)


def python() -> str:
    """Everything in `__all__` of the packages, each with its docstring."""
    text, seen = [], set[str]()
    for package in ("mtt_lava", "mtt_lava.data", "netx_export", "netx_export.event", "hw_profiles"):
        module = importlib.import_module(package)
        lines = []
        for name in module.__all__:
            thing = getattr(module, name)
            if callable(thing) and thing.__module__.startswith(package.partition(".")[0]):
                kind = "class" if isinstance(thing, type) else "function"
                path = f"{thing.__module__}.{thing.__qualname__}"
                lines += [f".. auto{kind}:: {path}\n"] if path not in seen else []
                seen.add(path)
        text.append("\n".join([f"## `{package}`\n", "```{eval-rst}", *lines, "```\n"]))
    return "\n".join(text)


def pictures() -> str:
    """Every function that draws, with what it draws."""
    import gallery

    text = []
    for function in gallery.write(ROOT / "docs" / "images" / "gallery"):
        name = function.__name__
        text.append(f"## `{name}`\n\n![{name}](../images/gallery/{name}.png)\n\n```{{eval-rst}}")
        text.append(f".. autofunction:: {function.__module__}.{name}\n```\n")
    return "\n".join(text)


MARKS = {
    "<!-- pictures -->": pictures,
    "<!-- commands -->": commands,
    "<!-- formats -->": formats,
    "<!-- python -->": python,
}


def setup(app: Any) -> None:
    """Let pages take from the code what they ask for in a line of their own."""

    def fill(app: Any, name: str, source: list[str]) -> None:
        for mark, make in MARKS.items():
            if mark in source[0]:
                source[0] = source[0].replace(mark, make())

    app.connect("source-read", fill)
