"""Energy against accuracy: what a trained run costs on a chip at every number of time steps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hw_profiles
from mtt_lava.data import Dataset
from mtt_lava.deploy import to_network
from mtt_lava.evaluation import Point, evaluate
from mtt_lava.page import block, heading, image, page
from mtt_lava.pictures import plot_confusion, plot_sweep, save_picture
from mtt_lava.run import Run, open_split
from netx_export.files import replacing
from netx_export.text import table


@dataclass(frozen=True)
class Sweep:
    """What `sweep` found.

    Attributes
    ----------
    name : str
        Of the run.
    report : hw_profiles.Report
        Whether the network fits the chip.
    points : tuple of Point
        One a number of time steps, in order; then, for a chip without a clock, the event-driven run.
    costs : tuple of hw_profiles.Cost
        Of the same, on the chip.
    classes : tuple of str
        Names of the classes.
    """

    name: str
    report: hw_profiles.Report
    points: tuple[Point, ...]
    costs: tuple[hw_profiles.Cost, ...]
    classes: tuple[str, ...]

    @property
    def price(self) -> tuple[str, list[float]]:
        """What accuracy is weighed against: energy in nJ a sample, or synaptic operations where no energy is known."""
        energy = [cost.energy["total"].value for cost in self.costs]
        if any(value is None for value in energy):
            return "synaptic operations a sample", [cost.synops for cost in self.costs]
        status = self.costs[0].energy["total"].status
        return f"energy a sample, nJ ({status}, lower bound)", [(value or 0) / 1000 for value in energy]

    @property
    def front(self) -> list[bool]:
        """Which points are worth choosing: no other is as accurate for less, or more accurate for as little."""
        _, prices = self.price
        pairs = [(point.accuracy, -price) for point, price in zip(self.points, prices, strict=True)]
        return [not any(other != own and other[0] >= own[0] and other[1] >= own[1] for other in pairs) for own in pairs]

    @property
    def best(self) -> Point:
        """The most accurate point, of several the cheapest."""
        _, prices = self.price
        return max(zip(self.points, prices, strict=True), key=lambda pair: (pair[0].accuracy, -pair[1]))[0]

    def __repr__(self) -> str:
        return f"<Sweep of {self.name} on {self.report.profile}: {', '.join(map(_name, self.points))}>"

    def rows(self) -> list[dict[str, Any]]:
        """One a point, for a table (``pandas.DataFrame(sweep.rows())``); energy in pJ, times in ns, as the costs."""
        each = zip(self.points, self.costs, self.front, strict=True)
        return [
            point.row()
            | {"energy_pj": cost.energy["total"].value, "time_step_ns": cost.time_step.value}
            | {"latency_us": cost.latency.value, "front": best}
            for point, cost, best in each
        ]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        rows = zip(self.points, self.costs, self.front, strict=True)
        return {
            "run": self.name,
            "profile": self.report.profile,
            "fits": self.report.fits,
            "classes": list(self.classes),
            "points": [point.to_dict() | {"front": best, "cost": cost.to_dict()} for point, cost, best in rows],
        }

    def __str__(self) -> str:
        head = ["T", "accuracy", "silent", "tied"]
        rows = [[*head, "spikes", "synops", "energy, nJ", "time step, us", "latency, us", "worth it"]]
        for point, cost, best in zip(self.points, self.costs, self.front, strict=True):
            energy, step = cost.energy["total"].value, cost.time_step.value
            rows.append(
                [
                    point.label,
                    *(f"{share:.1%}" for share in (point.accuracy, point.score.silent, point.score.tied)),
                    f"{cost.spikes:,.0f}",
                    f"{cost.synops:,.0f}",
                    _text(energy),
                    _text(step),
                    "unknown" if cost.latency.value is None else f"{cost.latency.value:,.1f}",
                    "*" if best else "",
                ]
            )
        cost = self.costs[-1]
        named = {"energy": cost.energy["total"], "time step": cost.time_step, "latency": cost.latency}
        notes = []
        for name, figure in named.items():
            origin = ", ".join(part for part in (figure.source, figure.status) if part)
            notes.append(f"{name}: {origin}" + (f" ({figure.note})" if figure.note else ""))
        notes.append("silent samples are wrong, a tie among k outputs counts 1/k")
        notes.append(f"* no other point has more accuracy for less {self._what}")
        title = f"{self.name} on {self.report.profile}, {self.points[0].samples} samples, means of a sample"
        return "\n".join([title, *table(rows), *notes, str(self.report).splitlines()[0]])

    @property
    def _what(self) -> str:
        return self.price[0].split(" a sample")[0]

    def plot(self, axes: Any = None) -> Any:
        """Accuracy against its price, on matplotlib axes, those given or new ones; returns them."""
        what, prices = self.price
        names, accuracies = list(map(_name, self.points)), [point.accuracy for point in self.points]
        return plot_sweep(names, prices, accuracies, self.front, what, f"{self.name} on {self.report.profile}", axes)

    def save(self, folder: str | Path) -> Path:
        """Write ``sweep.png``, ``confusion.png`` and ``sweep.json``, and ``index.html``, which shows all: the page."""
        folder = Path(folder)
        title = f"{self.name} on {self.report.profile}"
        save_picture(self.plot(), folder / "sweep.png")
        best = f"Classes at {_name(self.best)}, the most accurate"
        save_picture(plot_confusion(self.best.score, self.classes, best), folder / "confusion.png")
        with replacing(folder / "sweep.json") as temporary:
            temporary.write_text(json.dumps(self.to_dict(), indent=2) + "\n")
        picture = image((folder / "sweep.png").read_bytes(), "Accuracy against energy")
        confusion = image((folder / "confusion.png").read_bytes(), best)
        costs = [block(cost) for cost in self.costs]
        with replacing(folder / "index.html") as temporary:
            shown = [heading(title), picture, block(self), confusion]
            text = page(title, *shown, heading("In detail", 2), *costs, block(self.report))
            temporary.write_text(text, encoding="utf-8")
        return folder / "index.html"


def _name(point: Point) -> str:
    return point.label if point.time_steps is None else f"T={point.label}"


def _text(value: float | None) -> str:
    return "unknown" if value is None else f"{value / 1000:,.1f}"


def sweep(
    run: Run,
    time_steps: Sequence[int],
    profile: str | None = None,
    dataset: Dataset | None = None,
    *,
    progress: bool = True,
) -> Sweep:
    """Accuracy, spikes, energy and time of a run at every number of time steps.

    Parameters
    ----------
    run : Run
    time_steps : sequence of int
        For a chip without a clock the event-driven run comes after them.
    profile : str, optional
        Hardware profile, as it is now; default: that of training, as it was then.
    dataset : Dataset, optional
        Default: the test split of the data that the run was trained on.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Sweep

    Examples
    --------
    >>> print(sweep(load_run("runs/digits"), [1, 2, 4, 8], "loihi1"))  # doctest: +SKIP
    """
    dataset = dataset or open_split(run.settings)
    chip = hw_profiles.load(profile or run.settings.chip)
    steps = sorted(set(time_steps))
    points = evaluate(run, steps, dataset, event_driven=chip.facts.clocked.value is False, progress=progress)
    return weigh(run, points, chip, dataset.classes)


def weigh(run: Run, points: Sequence[Point], chip: hw_profiles.Profile, classes: tuple[str, ...]) -> Sweep:
    """What points that were evaluated cost on a chip; see `sweep`."""
    network = to_network(run)
    report = hw_profiles.check(network, chip, None, run.settings.input_max)
    costs = []
    for point in points:
        assert point.activity is not None
        costs.append(hw_profiles.cost(network, point.activity, chip, report.placement))
    name = run.settings.model.name if run.folder is None else run.folder.name
    return Sweep(name, report, tuple(points), tuple(costs), classes)
