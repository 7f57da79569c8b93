"""The whole path on built-in data, and a page that shows it."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hw_profiles
from mtt_lava.data import open_dataset, picture
from mtt_lava.deploy import export
from mtt_lava.evaluation import Point, evaluate, table
from mtt_lava.page import block, heading, image, page, paragraph
from mtt_lava.pictures import plot_confusion, plot_placement, save_picture
from mtt_lava.proof import Proof, prove
from mtt_lava.run import Run, Settings, load_run
from mtt_lava.studies.methods import Comparison, methods
from mtt_lava.studies.parts import machine
from mtt_lava.studies.sweep import Sweep, weigh
from netx_export import layer_table
from netx_export.files import replacing
from netx_export.network import NetworkError

MODEL, DATA = "nmnist-3c1fc", "digits-dvs"
EPOCHS = {"sdt": 24, "mtt": 18}
"""MTT runs three configurations a batch: it takes longer an epoch."""
AT = (1, 2, 4, 6, 10, 20, 50)
PROVED = {4: 20, 16: 20}
"""Time steps, and samples, compared on Lava."""
PRICED = "loihi1"
"""Whose energies stand in for those of a chip whose own are not public."""


@dataclass(frozen=True)
class Demo:
    """What `demo` found.

    Attributes
    ----------
    page : pathlib.Path
    comparison : Comparison
        SDT and MTT at every T.
    proofs : tuple of Proof
        On Lava; none where Lava cannot run the chip's neurons.
    event_driven : tuple of Point
        There instead: the points of a run without a clock.
    report : hw_profiles.Report
    energy : Sweep
        What the MTT network costs.
    seconds : float
    """

    page: Path
    comparison: Comparison
    proofs: tuple[Proof, ...]
    event_driven: tuple[Point, ...]
    report: hw_profiles.Report
    energy: Sweep
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "page": str(self.page),
            "comparison": self.comparison.to_dict(),
            "verdict": self.comparison.verdict,
            "proofs": [proof.to_dict() for proof in self.proofs],
            "event_driven": [point.to_dict() for point in self.event_driven],
            "report": self.report.to_dict(),
            "energy": self.energy.to_dict(),
            "seconds": self.seconds,
        }

    def __repr__(self) -> str:
        return f"<Demo {self.page}: {self.comparison.verdict}>"

    def __str__(self) -> str:
        return f"Page: {self.page} ({self.seconds:.0f} s)"


def next_steps(out: Path, profile: str = "loihi2") -> list[str]:
    """Commands to go on with, once the demo has run."""
    run, net = out / "mtt-0", out / "digits.net"
    clocked = hw_profiles.load(profile).facts.clocked.value is not False
    if clocked:
        given, write, backend, chip = out / "input.npy", "--write-input", "fast", PRICED
    else:
        given, write, backend, chip = out / "events.npz", "--write-events", "event", profile
    return [
        f"mtt evaluate {run} --time-steps 3,30 --confusion",
        f"mtt data {DATA} {write} {given} --samples 20",
        f"mtt simulate {net} {given} --backend {backend} --output {out / 'output.npz'}",
        f"mtt cost {net} {given} --backend {backend} --profile {chip} --picture {out / 'cores.png'}",
        f"mtt sweep {run} --profile {chip} --out {out / 'sweep'}",
        f"mtt train {MODEL} --data {DATA} --profile {profile} --epochs 60 --out {out / 'longer'}",
    ]


def demo(out: Path, profile: str = "loihi2", *, progress: bool = True) -> Demo:
    """Train SDT and MTT, compare them at other numbers of time steps, export, prove on Lava, check against a chip.

    Parameters
    ----------
    out : pathlib.Path
        Folder to write: run folders, ``digits.net``, ``accuracy.png``, ``confusion.png``, ``chip.png``,
        ``energy.png``, ``index.html``. Runs that are there already are not trained again.
    profile : str
        Hardware profile.
    progress : bool
        Show progress bars.

    Returns
    -------
    Demo
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
    save_picture(plot_confusion(point.score, classes, title), out / "confusion.png")
    run = load_run(out / "mtt-0")
    network, report = export(run, out / "digits.net")
    print(f"\n2. Export the MTT network as NetX HDF5: {out / 'digits.net'}\n{layer_table(network)}")
    proofs, points = (_on_lava(run, progress), []) if run.network.reset == "zero" else ([], _without_a_clock(run))
    print(f"\n4. Does it fit?\n{report}")
    save_picture(plot_placement(report.placement), out / "chip.png")
    energy = _energy(run, comparison.points["mtt"][0], classes)
    print(f"\n5. What does it cost? {_whose(energy, profile)}\n{energy}")
    save_picture(energy.plot(), out / "energy.png")
    print("\n6. Go on with (after uv run):\n" + "\n".join(next_steps(out, profile)))
    seconds = time.perf_counter() - start
    result = Demo(out / "index.html", comparison, tuple(proofs), tuple(points), report, energy, seconds)
    with replacing(result.page) as temporary:
        temporary.write_text(_page(result, layer_table(network), profile), encoding="utf-8")
    return result


def _energy(run: Run, points: list[Point], classes: tuple[str, ...]) -> Sweep:
    """On the chip trained for; where its energies are not public, by those of `PRICED`."""
    own = weigh(run, points, run.settings.chip, classes)
    if own.costs[0].energy["total"].value is not None:
        return own
    return weigh(run, points, hw_profiles.load(PRICED), classes)


def _whose(energy: Sweep, profile: str) -> str:
    """What the energies are, in a sentence."""
    what = "Estimates from measured spikes, lower bounds."
    if energy.report.profile == hw_profiles.load(profile).name:
        return what
    return f"{what} Energies of {profile} are not public: these are by the figures of {energy.report.profile}."


def _on_lava(run: Run, progress: bool) -> list[Proof]:
    print("\n3. Run it on Lava's simulation of Loihi and compare every spike with the trained network")
    proofs = [p for t, samples in PROVED.items() for p in prove(run, [t], samples=samples, progress=progress)]
    for proof in proofs:
        print(f"Lava: {proof}")
    if not all(proof.exact for proof in proofs):
        raise NetworkError("the exported network does not fire as the trained one does: please report this")
    return proofs


def _without_a_clock(run: Run) -> list[Point]:
    print("\n3. Run it without a clock: every event at once, in order of time")
    points = evaluate(run, AT, event_driven=True)
    print(table(points))
    return points


def _recordings() -> bytes:
    """A row of recordings of the data set."""
    import numpy as np
    from matplotlib.image import imsave

    dataset = open_dataset(DATA, split="test")
    row = np.concatenate([picture(dataset.events[i], dataset.sensor_size) for i in range(8)], axis=1)
    buffer = io.BytesIO()
    imsave(buffer, np.kron(row, np.ones((3, 3, 1), dtype=row.dtype)), format="png")
    return buffer.getvalue()


def _page(demo: Demo, layers: str, profile: str) -> str:
    comparison, out = demo.comparison, demo.page.parent
    title, trained_at = "One training, any number of time steps", comparison.settings.time_steps
    spikes = "\n\n".join(f"{method.upper()}\n{table(parts[0])}" for method, parts in comparison.points.items())

    def shown(name: str, text: str) -> str:
        return image((out / name).read_bytes(), text)

    if demo.proofs:
        said = (
            "Exported as NetX HDF5, loaded by lava-dl's own loader, run on Lava's fixed-point simulation of Loihi, and "
            "compared with the trained network bit by bit."
        )
        ran = [heading("The same spikes on Lava", 2), paragraph(said), block("\n".join(map(str, demo.proofs)))]
    else:
        said = "Every event runs through the network at once; SD is the spike difference from that."
        ran = [heading("Without a clock", 2), paragraph(said), block(table(demo.event_driven))]
    return page(
        "MTT-Lava demo",
        heading(title),
        paragraph(
            f"{MODEL}, integrate-and-fire, bias-free, 8-bit weights, trained on {DATA}: handwritten digits before a "
            f"simulated event camera that makes three saccades."
        ),
        image(_recordings(), "Eight recordings of the data set", pixels=True),
        heading("Accuracy at any T", 2),
        paragraph(
            f"Both networks were trained at T = {trained_at}; MTT ran its stages at random numbers of time steps "
            f"meanwhile."
        ),
        shown("accuracy.png", "Accuracy against the number of time steps"),
        paragraph(f"{comparison.verdict}. Both trained for a few epochs only, so that the demo is short."),
        block(spikes),
        shown("confusion.png", "Which digit was taken for which by MTT"),
        block(layers),
        *ran,
        heading("Does it fit the chip?", 2),
        shown("chip.png", "The chip with its cores filled"),
        block(demo.report),
        heading("What does it cost?", 2),
        paragraph(_whose(demo.energy, profile)),
        shown("energy.png", "Accuracy against energy"),
        block(demo.energy),
        heading("Next steps", 2),
        paragraph("In the folder of this project, each after uv run:"),
        block("\n".join(next_steps(out, profile))),
        paragraph(f"Made in {demo.seconds:.0f} s on {machine()} by mtt demo."),
    )
