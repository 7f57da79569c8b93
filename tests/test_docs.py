"""README, docs, notebooks: commands are commands, links lead somewhere, what a page tells to run runs as it stands."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mtt_lava.cli import parsers
from mtt_lava.cli.parsing import parse

ROOT = Path(__file__).parents[1]
FORMAT = ROOT / "netx_export" / "FORMAT.md"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", FORMAT, *sorted((ROOT / "docs").rglob("*.md")), *NOTEBOOKS]
RUN = [ROOT / "docs" / name for name in ("tutorial.md", "how-to/chip-profile.md")]
"""Pages whose ``sh`` and ``python`` blocks are run, one after the other in one folder."""
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def called(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def written(page: Path) -> str:
    """Its text, of a notebook without the code."""
    text = page.read_text()
    if page.suffix != ".ipynb":
        return text
    return "\n\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")


def commands(page: Path) -> list[str]:
    """Every command line of ours in the page's blocks."""
    found = []
    for kind, block in FENCE.findall(written(page)):
        if kind in ("", "sh"):
            lines = block.replace("\\\n", " ").splitlines()
            found += [re.sub(r"^(uv run )?(?=mtt)", "", line.partition(" #")[0]).strip() for line in lines]
    # A profile that the page itself writes (./) is read with the command line: see below.
    return [line for line in found if re.match(r"mtt(-export)? ", line) and "--profile ./" not in line]


@pytest.mark.parametrize(("page", "command"), [(called(page), line) for page in PAGES for line in commands(page)])
def test_commands_are_commands(page: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Down to options and names."""
    monkeypatch.chdir(tmp_path)
    name, *arguments = shlex.split(command)
    assert callable(parse(parsers()[name == "mtt-export"], arguments).action)


@pytest.mark.parametrize("page", PAGES, ids=called)
def test_links_lead_somewhere(page: Path):
    """Those into the repository: the file is there, and so is the heading."""
    for target in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", written(page)):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            text = file.read_text().replace("<!-- formats -->", FORMAT.read_text())
            titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in slugs, target


@pytest.mark.parametrize("page", PAGES, ids=called)
def test_python_is_python(page: Path):
    """Every block compiles."""
    for kind, block in FENCE.findall(written(page)):
        if kind == "python":
            compile(block, called(page), "exec")


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=called)
def test_a_page_runs_as_it_stands(page: Path, tmp_path: Path):
    """Commands and Python, in the page's order."""
    ran = 0
    for kind, block in FENCE.findall(written(page)):
        if kind == "sh":
            block = re.sub(r"^(mtt(?:-export)?) ", rf"{Path(sys.executable).parent}/\1 ", block, flags=re.MULTILINE)
            command = ["bash", "-c", f"set -e\n{block}"]
        elif kind == "python":
            command = [sys.executable, "-c", block]
        else:
            continue
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)
        # Exit code 1 of a check says that something does not fit, which a page may show.
        assert done.returncode == 0 or (done.returncode == 1 and "check " in block), block + done.stdout + done.stderr
        ran += 1
    assert ran > 1
