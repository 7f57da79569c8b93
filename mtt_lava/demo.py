"""The whole path on built-in data, and a page that shows it."""

from __future__ import annotations

import html
import io
import time
from pathlib import Path

import hw_profiles
from mtt_lava.bench import Comparison, machine, methods
from mtt_lava.data import open_dataset, picture
from mtt_lava.deploy import export
from mtt_lava.evaluation import evaluate, table
from mtt_lava.page import block, image, page
from mtt_lava.pictures import confusion_figure, placement_figure, save_figure
from mtt_lava.proof import prove
from mtt_lava.run import Run, Settings, load_run
from netx_export import layer_table
from netx_export.files import replacing
from netx_export.network import NetworkError

MODEL, DATA = "nmnist-3c1fc", "digits-dvs"
EPOCHS = {"sdt": 24, "mtt": 18}
"""MTT runs three configurations a batch: it takes longer an epoch."""
AT = (1, 2, 4, 6, 10, 20, 50)
PROVED = {4: 20, 16: 20}
"""Time steps, and samples, compared on Lava."""


def demo(out: Path, profile: str = "loihi2", *, progress: bool = True) -> Path:
    """Train SDT and MTT, compare them at other numbers of time steps, export, prove on Lava, check against a chip.

    Parameters
    ----------
    out : pathlib.Path
        Folder to write: run folders, ``digits.net``, ``accuracy.png``, ``confusion.png``, ``chip.png``,
        ``index.html``. Runs that are there already are not trained again.
    profile : str
        Hardware profile.
    progress : bool
        Show progress bars.

    Returns
    -------
    pathlib.Path
        The page.
    """
    start = time.perf_counter()
    settings = [
        Settings.make(MODEL, data=DATA, method=method, epochs=epochs, profile=profile)
        for method, epochs in EPOCHS.items()
    ]
    print(f"1. Train {MODEL} on {DATA}: standard training (SDT) and Mixed Time-step Training (MTT)")
    comparison = methods(settings, AT, out, progress=progress)
    print(comparison)
    point = comparison.points["mtt"][0][comparison.nearest]
    title = f"MTT at T = {point.time_steps}"
    classes = open_dataset(DATA, split="test").classes
    save_figure(confusion_figure(point.score, classes, title), out / "confusion.png")
    run = load_run(out / "mtt-0")
    network, report = export(run, out / "digits.net")
    print(f"\n2. Export the MTT network as NetX HDF5: {out / 'digits.net'}\n{layer_table(network)}")
    ran = _on_lava(run, progress) if run.network.reset == "zero" else _without_a_clock(run, progress)
    print(f"\n4. Does it fit?\n{report}")
    save_figure(placement_figure(report.placement), out / "chip.png")
    target = out / "index.html"
    seconds = time.perf_counter() - start
    with replacing(target) as temporary:
        temporary.write_text(_page(comparison, layer_table(network), ran, report, out, seconds), encoding="utf-8")
    print(f"\nPage: {target} ({seconds:.0f} s)")
    return target


def _on_lava(run: Run, progress: bool) -> list[str]:
    """The proof on Lava, as parts of the page."""
    print("\n3. Run it on Lava's simulation of Loihi and compare every spike with the trained network")
    proofs = [p for t, samples in PROVED.items() for p in prove(run, [t], samples=samples, progress=progress)]
    for proof in proofs:
        print(f"Lava: {proof}")
    if not all(proof.exact for proof in proofs):
        raise NetworkError("the exported network does not fire as the trained one does: please report this")
    said = """<p>Exported as NetX HDF5, loaded by lava-dl's own loader, run on Lava's fixed-point simulation of Loihi,
and compared with the trained network bit by bit.</p>"""
    return ["<h2>The same spikes on Lava</h2>", said, block("\n".join(map(str, proofs)))]


def _without_a_clock(run: Run, progress: bool) -> list[str]:
    """The event-driven run, as parts of the page."""
    print("\n3. Run it without a clock: every event at once, in order of time")
    answers = table(evaluate(run, AT, event_driven=True, progress=progress))
    print(answers)
    said = "<p>Every event runs through the network at once; SD is the spike difference from that.</p>"
    return ["<h2>Without a clock</h2>", said, block(answers)]


def _recordings() -> bytes:
    """A row of recordings of the data set."""
    import numpy as np
    from matplotlib.image import imsave

    dataset = open_dataset(DATA, split="test")
    row = np.concatenate([picture(dataset.events[i], dataset.sensor_size) for i in range(8)], axis=1)
    buffer = io.BytesIO()
    imsave(buffer, np.kron(row, np.ones((3, 3, 1), dtype=row.dtype)), format="png")
    return buffer.getvalue()


def _page(
    comparison: Comparison, layers: str, ran: list[str], report: hw_profiles.Report, out: Path, seconds: float
) -> str:
    spikes = "\n\n".join(
        f"{method.upper()}\n{table(next(iter(seeds.values())))}" for method, seeds in comparison.points.items()
    )
    return page(
        "MTT-Lava demo",
        f"""<h1>One training, any number of time steps</h1>
<p>{html.escape(MODEL)}, integrate-and-fire, bias-free, 8-bit weights, trained on {html.escape(DATA)}:
handwritten digits before a simulated event camera that makes three saccades.</p>
{image(_recordings(), "Eight recordings of the data set")}
<h2>Accuracy at any T</h2>
<p>Both networks were trained at T = {comparison.settings.time_steps}; MTT ran its stages at random numbers of time
steps meanwhile.</p>
{image(comparison.picture.read_bytes(), "Accuracy against the number of time steps")}
{block(spikes)}
{image((out / "confusion.png").read_bytes(), "Which digit was taken for which by MTT")}
{block(layers)}
{chr(10).join(ran)}
<h2>Does it fit the chip?</h2>
{image((out / "chip.png").read_bytes(), "The chip with its cores filled")}
{block(report)}
<p>Made in {seconds:.0f} s on {html.escape(machine())} by <code>mtt demo</code>.</p>""",
    )
