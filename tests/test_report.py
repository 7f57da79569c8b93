"""`mtt report`: one page that says what a run does, and reads well wherever it is opened."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mtt_lava import Settings, load_run, report, train
from mtt_lava.cli import main

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDE = """<!doctype html><iframe src="{page}" width="{width}" height="900" style="border:0"></iframe><script>
onload = () => {{ const d = frames[0].document, e = d.documentElement; document.title = e.scrollWidth - e.clientWidth
  + " "
  + [...d.images].filter(i => !i.complete || i.naturalWidth == 0).length + " "
  + frames[0].getComputedStyle(d.body).fontSize; }}</script>"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a run for a chip."""
    folder = tmp_path_factory.mktemp("runs")

    def run(profile: str) -> Path:
        if not (folder / profile).exists():
            chosen = {"data": "digits-dvs", "profile": profile, "epochs": 2, "samples": 50, "time_steps": 4}
            train(Settings.make("nmnist-3c1fc", **chosen), folder / profile, progress=False)
        return folder / profile

    return run


@pytest.mark.parametrize("profile", ["loihi1", pytest.param("speck2e", marks=pytest.mark.slow)])
def test_a_page_says_what_the_run_does(profile: str, made: Callable[[str], Path], tmp_path: Path):
    """Accuracy at every T and without a clock, proof, chip, cost, versions, settings, command; nothing beside it."""
    found = report(load_run(made(profile)), tmp_path / "a.html", [1, 4], samples=20, command="mtt x", progress=False)
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert [point.time_steps for point in found.points] == [1, 4, None]
    assert (found.proof is None) == (profile == "speck2e")
    if found.proof is not None:
        assert found.proof.exact
        assert "0 of 348,800 bits differ" in found.verdict
    assert f"its {profile}" in found.verdict
    for point in found.points:
        assert f"{point.accuracy:.1%}" in text
    for words in ("Without a clock", "mtt x", "torch", "numpy", "epochs", "cores in use", "standard error", "20 samp"):
        assert words in text
    assert text.count("<img") == 4 + 1 + (profile == "loihi1") + 4 + 2
    assert not re.search(r"""(src|href)=["'](?!data:)""", text)
    assert "<script" not in text
    assert list(tmp_path.iterdir()) == [tmp_path / "a.html"]


def test_the_command_writes_into_the_run_folder(made: Callable[[str], Path], capsys: pytest.CaptureFixture[str]):
    """By default; the JSON says what the text says."""
    run = str(made("loihi1"))
    assert main(["report", run, "--samples", "10", "--time-steps", "2", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    page = (made("loihi1") / "report.html").read_text(encoding="utf-8")
    assert f"mtt report {run} --time-steps 2 --samples 10" in page
    assert said["verdict"] in page
    assert [point["time_steps"] for point in said["points"]] == [2, 4, None]
    (made("loihi1") / "report.html").unlink()


def test_what_cannot_be_is_refused_and_nothing_written(
    made: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """In one line."""
    for arguments, words in (
        (["--out", str(tmp_path)], "is a folder"),
        (["--profile", "loihi9"], "loihi9"),
        (["--time-steps", "0"], "from 1 on"),
    ):
        with pytest.raises(SystemExit) as stop:
            raise SystemExit(main(["report", str(made("loihi1")), "--samples", "5", *arguments]))
        assert stop.value.code == 2
        assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to open it in")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_it(width: int, made: Callable[[str], Path], tmp_path: Path):
    """Nothing is wider than the screen but tables that scroll by themselves; every picture is drawn."""
    report(load_run(made("loihi1")), tmp_path / "a.html", [1, 4], samples=20, progress=False)
    (tmp_path / "frame.html").write_text(WIDE.format(page="a.html", width=width))
    assert CHROMIUM is not None
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files")
    address = f"file://{tmp_path / 'frame.html'}"
    command = [CHROMIUM, *flags, "--virtual-time-budget=9999", "--window-size=1400,1000", "--dump-dom", address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title is not None, done.stdout + done.stderr
    assert title[1] == "0 0 16px"
