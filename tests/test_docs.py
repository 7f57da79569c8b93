"""README, docs, notebooks: commands are commands, links lead somewhere, and whatever a page tells to run is run.

A page is run from its first command to its last in one folder, in which the test has put what a page takes for granted
(`GIVEN`). What would take long is made short by option (`SHORT`), whichever command has it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import dataset_files
import h5py
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from safetensors.numpy import save_file
from test_cli import examples

from mtt_lava.cli import parsers
from mtt_lava.cli.parsing import parse
from mtt_lava.data import EVENT_DTYPE
from mtt_lava.sources import serve

ROOT = Path(__file__).parents[1]
FORMAT = ROOT / "netx_export" / "FORMAT.md"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", FORMAT, *sorted((ROOT / "docs").rglob("*.md")), *NOTEBOOKS]
FENCE = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"(?<!`)`((?:uv run )?(?:mtt|mtt-export|python) [^`\n]+)`(?!`)")
"""A command in a line of text. Many are but named, without all that they need: these are not run."""

AS_IT_STANDS = ("docs/tutorial.md", "docs/how-to/chip-profile.md")
"""Pages of which nothing is made short."""

SHORT = {
    **{"--epochs": 2, "--samples": 40, "--folds": 2, "--seeds": 0, "--depths": 3, "--at": 4},
    **{"--hours": 0, "--seconds": 1, "--idle": 1, "--runs": 20, "--cases": 100},
    **{"--unseen": 4, "--exit-unseen": 4, "--test-unseen": 4},
}
"""Options with what they are made, where that is less."""
LONG = ("--epochs", "--samples", "--folds", "--depths", "--hours", "--seconds")
"""Options whose default takes long: given to the commands of `mtt` that measure or train and do not have them."""

PLACES = {
    **{"models NAME": "models nmnist-3c1fc", "models [NAME]": "models nmnist-3c1fc"},
    **{"profiles NAME": "profiles loihi2", "profiles [NAME]": "profiles loihi2"},
    **{"train MODEL": "train nmnist-3c1fc", "--data NAME": "--data digits-dvs", "data NAME": "data digits-dvs"},
    **{"import FILE --out RUN": "import FILE.nir --out IMPORTED", "--time-steps T": "--time-steps 4"},
    **{"stream NET SOURCE": "stream NET EVENTS.npz", "--for sinabs|norse|snntorch|spikingjelly|nir": "--for norse"},
}
"""Placeholders with what stands there when it is run. Others (DIR, RUN, NET, OUT.net) are names in the folder."""

NOT_RUN = {
    "pip install uv": "downloads; .ci/run does it",
    "uv sync": "downloads; .ci/run does it",
    "uv run pre-commit install": "would change this repository's hooks",
    "mtt lava setup": "downloads 3 GB",
    "uv venv sinabs && uv pip install --python sinabs torch sinabs==3.1.3": "downloads",
    "uv venv others && uv pip install --python others torch norse==1.1.0 snntorch==1.0.0 nir==1.0.8 nirtorch==2.6": (
        "downloads"
    ),
    "uv venv -p 3.11 sj && uv pip install --python sj torch==2.6.0 spikingjelly==2.0.0 nir==1.0.8 nirtorch==2.6": (
        "downloads"
    ),
    "uv venv sinabs && uv pip install --python sinabs torch sinabs==3.1.3 h5py": "downloads",
    "uv pip install --python sinabs samna==0.6.11": "downloads",
    "export MTT_LAVA_NIR_PYTHONS=sinabs=$PWD/sinabs/bin/python": "of an environment that is not there",
    "python digits.py events.npz output.npz": "needs sinabs; tests/test_speck_sinabs.py runs such a script",
    "python digits.py --config digits.json": "needs samna, which is not on PyPI",
    "python -i digits.py --board speck2edevkit:0": "needs a board",
    "uv run mtt bench train --only vgg,small --peers peers/bin/python": "needs an environment of other libraries",
    "mtt bench train --peers PYTHON": "needs an environment of other libraries",
    "mtt bench readers --pythons sinabs=PYTHON,norse=PYTHON,...": "needs environments of other libraries",
    "mtt bench readers --pythons norse=/a/bin/python,sinabs=/b/bin/python": "needs environments of other libraries",
    "python tests/test_imports_real.py": "needs environments of other libraries",
}
"""Lines of pages that no test can run, and why."""

ELSEWHERE = {
    **dict.fromkeys(("pip install uv && uv run mtt demo", "uv run mtt demo", "mtt demo"), ("--help", "mtt demo")),
    "uv run mtt bench simulate": ("--help", "mtt bench simulate"),
    "mtt bench events": ("--help", "mtt bench events"),
    "mtt bench readers": ("--help", "mtt bench readers"),
    "uv run pytest": (".ci/run", "uv run pytest\n"),
    "mtt stream speck.net dv://127.0.0.1:7777 --downsample 4 --when-full thin": ("tests/test_stream.py", "dv://127"),
}
"""Lines that others run: `test_examples_run_as_printed` those of --help, or a file in which this stands."""


def called(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def written(page: Path) -> str:
    """Its text, of a notebook without the code."""
    text = page.read_text()
    if page.suffix != ".ipynb":
        return text
    return "\n\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")


def snippets(page: Path) -> list[tuple[str, str]]:
    """(kind, text) of all there is to run in the page's order: ``python``, ``toml``, and each line of ``sh``; ``named``
    are the commands in its text."""
    text, found = written(page), []
    fences = list(FENCE.finditer(text))
    for match in sorted([*fences, *NAMED.finditer(text)], key=lambda match: match.start()):
        if match.re is NAMED:
            if not any(fence.start() < match.start() < fence.end() for fence in fences):
                found.append(("named", match[1].replace("\\|", "|")))
        elif match[1] == "sh":
            lines = match[2].replace("\\\n", " ").splitlines()
            found += [("sh", re.split(r"\s+#", line)[0]) for line in lines if line.strip() and line.strip()[0] != "#"]
        else:
            found.append((match[1], match[2]))
    return found


def ours(line: str) -> str | None:
    """A command of ours without `uv run`, if it is one."""
    line = re.sub(r"^uv run ", "", line)
    return line if re.match(r"mtt(-export)? ", line) else None


def placed(line: str) -> str:
    for name, value in PLACES.items():
        line = re.sub(rf"(?<!\S){re.escape(name)}(?!\S)", value, line)
    return re.sub(r"(?<=\s)(\w+)(\|\w+)+", r"\1", line)  # a|b|c: one of them


def commands(page: Path) -> list[str]:
    """Every command line of ours in the page's blocks."""
    found = [command for kind, line in snippets(page) if kind == "sh" and (command := ours(line))]
    # A profile that the page itself writes (./) is read with the command line: see below.
    return [line for line in found if "--profile ./" not in line]


def whole(command: str) -> bool:
    """Whether it has all that it needs. One that has something wrong in it is no command."""
    name, *arguments = shlex.split(placed(command))
    if "..." in arguments or "--help" in arguments:
        return False
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parse(parsers()[name == "mtt-export"], arguments)
    except SystemExit:
        # What it lacks is said last.
        assert re.search(r"arguments are required|expected one argument", said.getvalue()), said.getvalue()
        return False
    return True


@pytest.mark.parametrize("page", PAGES, ids=called)
def test_commands_in_the_text_are_commands(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also those that are but named: so far as they go."""
    monkeypatch.chdir(tmp_path)
    for kind, line in snippets(page):
        if kind == "named" and (command := ours(line)):
            whole(command)


@pytest.mark.parametrize("page", PAGES, ids=called)
def test_every_block_says_what_it_is(page: Path):
    """Whether it is to be run: `sh` and `python` are, `text` is what something prints."""
    assert {kind for kind, _ in FENCE.findall(written(page))} <= {"sh", "python", "toml", "text", "{toctree}"}


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
    for kind, block in snippets(page):
        if kind == "python":
            compile(block, called(page), "exec")


# ------------------------------------------------------------------------------------------------ what pages need

RUN = "mtt train nmnist-3c1fc --data digits-dvs --samples 40 --epochs 2 --out {}"
SPECK = RUN + " --profile speck2e"


def data(folder: Path) -> None:
    """DIR: N-MNIST and CIFAR-10."""
    dataset_files.nmnist(folder / "DIR")
    dataset_files.cifar10_npz(folder / "DIR")


def digits(folder: Path) -> None:
    """MNIST and NMNIST."""
    dataset_files.mnist(folder / "MNIST", each=5)
    dataset_files.nmnist(folder / "NMNIST", each=5)


def pictures(folder: Path) -> None:
    dataset_files.picture_folders(folder / "PICTURES")


def recordings(folder: Path) -> None:
    """Events in a folder for each of two classes and either split, as data.toml in the page has them."""
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in ("left", "right"):
            path = folder / "recordings" / part / name / "0.npy"
            path.parent.mkdir(parents=True)
            np.save(path, some_events(rng))


def some_events(rng: np.random.Generator, size: int = 128) -> np.ndarray:
    events = np.zeros(500, EVENT_DTYPE)
    events["t"] = np.sort(rng.integers(0, 300_000, 500))
    for name, end in (("x", size), ("y", size), ("p", 2)):
        events[name] = rng.integers(0, end, 500)
    return events


def theirs(folder: Path) -> None:
    """theirs.nir: the network of the file ours.nir, and nothing that says whose it was."""
    with h5py.File(folder / "ours.nir") as ours, h5py.File(folder / "theirs.nir", "w") as file:
        for name in ("version", *(f"node/{field}" for field in ("type", "edges", "nodes"))):
            ours.copy(name, file.require_group(str(Path(name).parent)), Path(name).name)


def weights(folder: Path) -> None:
    """A state dict, and the model that it is of."""
    shutil.copy(ROOT / "mtt_lava" / "models" / "nmnist-3c1fc.toml", folder / "lenet.toml")
    rng = np.random.default_rng(0)
    shapes = {"conv1": (8, 2, 3, 3), "conv2": (16, 8, 3, 3), "conv3": (16, 16, 3, 3), "dense1": (10, 256)}
    tensors = {f"{name}.weight": rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    save_file(tensors, folder / "weights.safetensors")


def cells(name: str) -> Callable[[Path], None]:
    """What a notebook's cells leave, where the line is left out that has them do so in a folder of their own."""

    def execute(folder: Path) -> None:
        notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
        notebook.cells[1].source = re.sub(r"(?m)^os\.chdir\(.*$", "", notebook.cells[1].source)
        resources = {"metadata": {"path": str(folder)}}
        NotebookClient(notebook, timeout=900, kernel_name="python3", resources=resources).execute()

    return execute


NIR = [RUN.format("made"), "mtt export made ours.nir --for spikingjelly", theirs]
TUTORIAL = [RUN.format("runs/digits"), "mtt-export runs/digits digits.net"]
INPUT = "mtt data digits-dvs --samples 3 --time-steps 4 --write-input INPUT.npy --write-events EVENTS.npz"
FILES = [RUN.format("before"), "mtt-export before NET", "mtt export before FILE.nir --for norse", INPUT]

GIVEN: dict[str, list[str | Callable[[Path], None]]] = {
    "README.md": [data, *FILES],
    "docs/data.md": [digits, pictures, recordings, RUN.format("RUN")],
    "docs/explanation/bit-exact.md": [RUN.format("RUN")],
    "docs/explanation/training.md": [data],
    "docs/how-to/loihi2.md": [RUN.format("RUN"), INPUT],
    "docs/how-to/long-runs.md": [RUN.format("RUN") + " --validate 0.2"],
    "docs/how-to/stream.md": [*TUTORIAL, "cp digits.net NET", INPUT, recordings],
    "docs/imports.md": [data, *NIR, weights],
    "docs/limits.md": [SPECK.format("RUN")],
    "docs/measured.md": [data, RUN.format("RUN")],
    "docs/nir.md": [RUN.format("RUN"), *TUTORIAL, *NIR],
    "docs/reference/commands.md": FILES,
    "docs/speck.md": [data, SPECK.format("RUN")],
    "notebooks/02-lava.ipynb": [cells("02-lava")],
    "notebooks/03-simulate.ipynb": [cells("03-simulate"), RUN.format("RUN")],
    "notebooks/05-will-it-fit.ipynb": [cells("05-will-it-fit")],
    "notebooks/06-your-own.ipynb": [cells("06-your-own")],
    "notebooks/08-others.ipynb": [cells("08-others"), weights],
    "notebooks/09-real-time.ipynb": [cells("09-real-time")],
}
"""What must be there before a page begins, since the page says that the reader has it, or has made it elsewhere."""


# ------------------------------------------------------------------------------------------------ pages are run


def short(line: str) -> str:
    """The command with less to do."""
    words = shlex.split(line)
    for i, word in enumerate(words[:-1]):
        if word in SHORT:
            given = words[i + 1]
            words[i + 1] = given if given.isdecimal() and int(given) < SHORT[word] else str(SHORT[word])
    if words[0] == "mtt" and words[1] in ("train", "bench"):
        has = parse(parsers()[0], words[1:]).parser._option_string_actions
        # Folds and seeds are one or the other, but for ways to mix.
        taken = {*words, "--folds"} if "--seeds" in words and words[2] != "mixing" else {*words}
        words += [word for name in LONG if name in has and name not in taken for word in (name, str(SHORT[name]))]
    return shlex.join(words)


def short_python(block: str) -> str:
    """The same of trainings in Python."""
    less = f"epochs={SHORT['--epochs']}, samples={SHORT['--samples']}"
    block = re.sub(r", epochs=\d+", "", block)
    return re.sub(r"(Settings\.(?:make|tune)\([^()]*)\)", rf"\1, {less})", block)


def lines_to_run(page: Path) -> list[tuple[str, str]]:
    """Kind and text of what is run of a page, made short; in its order, a command that comes again but once."""
    found = []
    for kind, text in snippets(page):
        line = text.strip()
        if line in NOT_RUN or line in ELSEWHERE or kind in ("text", "{toctree}"):
            continue
        if kind == "named" and (command := ours(line)) and not whole(command):
            continue
        # Those of a notebook's text stand among its cells: see tests/test_notebook.py.
        if kind == "python" and page.suffix == ".ipynb":
            continue
        if kind in ("sh", "named"):
            kind, line = "sh", placed(ours(line) or line.removeprefix("uv run "))
            if called(page) not in AS_IT_STANDS:
                line = short(line)
        elif kind == "python" and called(page) not in AS_IT_STANDS:
            line = short_python(text)
        elif kind == "toml":
            line = text
        if (kind, line) not in found:
            found.append((kind, line))
    return found


def run(kind: str, text: str, folder: Path) -> None:
    """One command, or a block."""
    if kind == "toml":
        name = re.match(r"# (\S+)", text)
        assert name, f"a TOML block begins with the name of its file: {text}"
        (folder / name[1]).write_text(text)
        return
    if kind == "python":
        (folder / "snippet.py").write_text(text)
        text = "python snippet.py"
    elif "tcp://127.0.0.1:7777" in text:
        port, _ = serve(some_events(np.random.default_rng(0), 192))
        text = text.replace("7777", str(port))
    text = re.sub(r"(?<= )tests/", f"{ROOT}/tests/", text)
    command = ["bash", "-c", text]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900)
    # A check says by 1 that something does not fit, which a page may show.
    fine = (0, 1) if text.startswith("mtt check") else (0,)
    assert done.returncode in fine, f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


TO_RUN = [page for page in PAGES if page != FORMAT and lines_to_run(page)]
"""FORMAT.md's scripts are run, and compared, by tests/test_by_hand.py and tests/test_compose.py."""


@pytest.fixture(scope="module")
def _at_hand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Our programs; and a cache, the same for all pages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
        patch.setenv("MTT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("_at_hand")
@pytest.mark.parametrize("page", TO_RUN, ids=called)
def test_a_page_runs(page: Path, tmp_path: Path):
    """From its first command to its last."""
    for given in GIVEN.get(called(page), []):
        if isinstance(given, str):
            run("sh", given, tmp_path)
        else:
            given(tmp_path)
    for kind, text in lines_to_run(page):
        run(kind, text, tmp_path)


def test_what_is_not_run_stands_in_a_page():
    """And is run where the table says so."""
    lines = {text.strip() for page in PAGES for kind, text in snippets(page) if kind in ("sh", "named")}
    assert not {*NOT_RUN, *ELSEWHERE} - lines
    assert not {*GIVEN, *AS_IT_STANDS} - {called(page) for page in TO_RUN}
    for where, what in ELSEWHERE.values():
        text = "\n".join(examples()) if where == "--help" else (ROOT / where).read_text()
        assert what in text, f"{where}: no {what}"
