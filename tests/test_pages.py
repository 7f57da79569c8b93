"""Names that people give are text in pages and pictures, whatever stands in them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import fuzz
import numpy as np
import pytest

import hw_profiles
from mtt_lava import sweep
from mtt_lava.data import from_events
from mtt_lava.data.show import plot_classes
from mtt_lava.pictures import plot_accuracy, plot_placement, save_picture
from mtt_lava.run import load_run
from mtt_lava.studies import demo
from netx_export.network import Network

NAME = "<script>alert('&')</script> $a_{$ $x$"
FILE = "<script>alert('&')<script> $a_{$ $x$"  # no slash in it


def is_plain(page: str) -> None:
    """Nothing of the name is HTML, and it is there."""
    assert "<script" not in page
    assert "&lt;script&gt;alert(&#x27;&amp;&#x27;)" in page


def test_the_page_of_a_sweep(tmp_path: Path):
    """Run folder, model, profile, its title, data set and classes with markup and half a formula in their names."""
    folder = tmp_path / FILE
    folder.mkdir()
    for name, content in fuzz.run_files()[0].items():
        (folder / name).write_bytes(content)
    run = load_run(folder)
    model = run.settings.model.model_copy(update={"name": NAME})
    run.settings = run.settings.model_copy(update={"model": model})
    run.classes = None
    data = from_events(
        [fuzz.EVENTS[fuzz.EVENTS["x"] < 6][:30]] * 3,
        [0, 1, 2],
        sensor_size=(7, 7, 2),
        duration=40_000,
        classes=[f"{NAME}{i}" for i in range(3)],
        name=NAME,
        split="test",
        cache=tmp_path / "cache",
    )
    small = run.settings.model.model_copy(update={"input": (2, 7, 7)})
    run.settings = run.settings.model_copy(update={"model": small})
    run.network = run.settings.build().eval()
    run.network.fold_norms(False)
    run.network.quantise([60.0, 60.0], 8)
    profile = tmp_path / f"{FILE}.toml"
    profile.write_text(f'title = "{NAME}"\nextends = "loihi1"\n')
    page = sweep(run, [1, 2], str(profile), data, progress=False).save(tmp_path / "out")
    is_plain(page.read_text(encoding="utf-8"))
    save_picture(plot_classes(data), tmp_path / "classes.svg")
    assert "<script" not in (tmp_path / "classes.svg").read_text()


def test_pictures_take_any_name(tmp_path: Path):
    """Methods, titles and layers that look like markup or formulas are drawn as they stand."""
    network = fuzz.network()
    layers = [replace(layer, inputs=()) for layer in network]
    layers[0] = replace(layers[0], name=NAME)
    profile = tmp_path / f"{FILE}.toml"
    profile.write_text(f'title = "{NAME}"\nextends = "loihi1"\n')
    report = hw_profiles.check(Network(tuple(layers), readout="count"), hw_profiles.load(profile))
    values = np.full((2, 2), 0.5)
    drawn = (
        plot_placement(report.placement),
        plot_accuracy({NAME: ([1, 2], values)}, 2, NAME),
        plot_accuracy({NAME: ([1, 2], values)}, 2, NAME, {NAME: values[:, 0]}, samples=10),
    )
    for axes in drawn:
        save_picture(axes, tmp_path / "a.svg")
        assert "<script" not in (tmp_path / "a.svg").read_text()


def test_the_page_of_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Model, data set, layers, tables and the check."""
    for name in ("confusion.png", "chip.png", "accuracy.png", "energy.png"):
        (tmp_path / name).write_bytes(b"png")
    for name in ("MODEL", "DATA"):
        monkeypatch.setattr(demo, name, NAME)
    monkeypatch.setattr(demo, "_recordings", lambda: b"png")
    monkeypatch.setattr(demo, "table", lambda points: NAME)
    monkeypatch.setattr(demo, "machine", lambda: NAME)
    monkeypatch.setattr(demo, "_whose", lambda energy, profile: NAME)
    comparison = SimpleNamespace(points={NAME: [[]]}, settings=SimpleNamespace(time_steps=2), verdict=NAME)
    shared = {"page": tmp_path / "index.html", "comparison": comparison, "report": NAME, "energy": NAME, "seconds": 1.0}
    for ran in ({"proofs": (NAME,), "event_driven": ()}, {"proofs": (), "event_driven": (NAME,)}):
        is_plain(demo._page(SimpleNamespace(**shared, **ran), NAME, "loihi1"))  # type: ignore[arg-type]
