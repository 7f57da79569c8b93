"""The deployment notebook runs from its first cell to its last."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


@pytest.mark.slow
@pytest.mark.lava
@pytest.mark.filterwarnings("ignore")  # of the kernel's own transport
def test_the_deployment_notebook_runs():
    """Every cell executes without an error or a message on stderr, with pictures, and Lava fires the same spikes."""
    notebook = nbformat.read(NOTEBOOKS / "deploy.ipynb", as_version=4)
    resources = {"metadata": {"path": str(NOTEBOOKS)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    text = "".join(output.text for output in outputs if output.output_type == "stream")
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 5
    assert text.count(", 0 mismatching of ") == 2
    assert "fits loihi2" in text


def test_the_stored_notebook_shows_what_it_does():
    """It is committed with its outputs, without errors and without paths of the machine that made it."""
    text = (NOTEBOOKS / "deploy.ipynb").read_text()
    notebook = nbformat.reads(text, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs for cell in code[1:])
    assert not any(output.output_type == "error" for cell in code for output in cell.outputs)
    assert "site-packages" not in text
