"""The notebooks run from their first cells to their last, and hold what they show."""

from __future__ import annotations

import ast
import re
import socket
import tempfile
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CELL_SECONDS = 600
MOST_BYTES = 300_000
ENDS = {
    "01-train": r"(?s)SDT\n.*MTT\n.*\n64 ",
    "02-lava": r"(?s)(, 0 mismatching of .*){2}voltages equal: True",
    "03-simulate": r"(?m)^0 of [\d,]+ values differ",
    "04-without-a-clock": r"label \d - output events of each class:",
    "05-will-it-fit": r"no other point has more accuracy for less energy",
    "06-your-own": r"(?s), 0 mismatching of .*the file: ",
    "07-residual": r"(?s)fast: .*, 0 mismatching of .*Lava: .*, 0 mismatching of .*nmnist-sum2 fits speck2e",
    "08-others": r"(?s)ours: \d+ output events of 5 recordings\n.*leaky.nir: node 'li': is a LI, which is not read",
    "09-real-time": r"(?s)output events: those of one run\n.*, dropped 0\n",
    "10-chip-profile": r"(?s)still 4 bit.*does not fit profile tiny.toml",
}
"""What a notebook prints in the end, whatever the numbers."""
ON_LAVA = ("02-lava", "03-simulate", "07-residual")


def stem(path: Path) -> str:
    return path.stem


def marked(path: Path) -> object:
    return pytest.param(path, id=path.stem, marks=[pytest.mark.lava] if path.stem in ON_LAVA else [])


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def printed(notebook: nbformat.NotebookNode) -> str:
    return "".join(output.text for output in outputs(notebook) if output.output_type == "stream")


def check(notebook: nbformat.NotebookNode, name: str) -> None:
    """It came to its end, without a message on stderr, and with a picture."""
    assert not [output.text for output in outputs(notebook) if output.get("name") == "stderr"]
    assert any("image/png" in output.get("data", {}) for output in outputs(notebook))
    assert re.search(ENDS[name], printed(notebook))


@pytest.mark.slow
@pytest.mark.parametrize("path", [marked(path) for path in NOTEBOOKS])
@pytest.mark.filterwarnings("ignore")  # of the kernel's own transport
def test_a_notebook_runs(path: Path, monkeypatch: pytest.MonkeyPatch):
    """In an empty folder; what it shows itself (its assert statements) and what it prints in the end."""
    notebook = nbformat.read(path, as_version=4)
    cells = []
    for cell in notebook.cells:
        # Python that stands in the text is run where it stands.
        shown = re.findall(r"(?ms)^```python\n(.*?)^```$", cell.source) if cell.cell_type == "markdown" else []
        cells += [cell, *map(nbformat.v4.new_code_cell, shown)]
    notebook.cells = cells
    # Not tmp_path: names of sockets, which Lava's processes have in there, must be short.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("TMPDIR", folder)
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=CELL_SECONDS, kernel_name="python3", resources=resources).execute()
    check(notebook, path.stem)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=stem)
def test_the_stored_notebook_shows_what_it_does(path: Path):
    """It is valid, small, executed in one go, and says nothing of the machine that made it."""
    text = path.read_text()
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    check(notebook, path.stem)
    assert len(text) < MOST_BYTES
    shown = printed(notebook) + "".join(output.get("data", {}).get("text/plain", "") for output in outputs(notebook))
    sources = "".join(cell.source for cell in notebook.cells)
    assert not re.search(r"(?<![\w.<])/(home|root|tmp|work|usr|opt|Users|var)/", shown + sources)
    assert not re.search(r"site-packages|Warning|\r", shown)
    assert len(socket.gethostname()) < 5 or socket.gethostname() not in shown


@pytest.mark.parametrize("path", NOTEBOOKS, ids=stem)
def test_the_code_is_python(path: Path):
    """Every cell parses. What its text says, commands and links, is checked with the pages of the documentation."""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            ast.parse(TransformerManager().transform_cell(cell.source))


def test_every_notebook_is_listed():
    """In the documentation's first page, and here with what it prints in the end."""
    names = {path.stem for path in NOTEBOOKS}
    assert names == set(ENDS)
    assert names == set(re.findall(r"notebooks/([\w-]+)\.ipynb", (ROOT / "docs" / "index.md").read_text()))
