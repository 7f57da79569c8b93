"""The paper's headline result on real N-MNIST: the same weights with a clock, at any number of time steps, and without.

Five folds over all recordings, so that every accuracy is over all of them. In each fold one base network is trained
with a norm at T time steps; from it SDT, NMT and MTT fine-tune, free of norms and biases and in the chip's integers.
The spike penalty of the settings applies to the mixtures, and to SDT in a row of its own (sdt-sparse): what is due to
the penalty and what to the mixture can be told apart. The weights of the last epoch count; the paper's own code keeps
those of the epoch that is best on the evaluation data.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mtt_lava.data import Dataset, join, open_dataset
from mtt_lava.data import folds as cut
from mtt_lava.evaluation import Point, evaluate, evaluate_events, spike_difference
from mtt_lava.pictures import COLOURS, paper_figure, save_figure
from mtt_lava.run import Run, RunError, Settings
from mtt_lava.scoring import score
from mtt_lava.studies.bench import machine, trained
from mtt_lava.training import train_base
from netx_export.files import save_arrays
from netx_export.text import table, unknown

METHODS = ("sdt", "sdt-sparse", "nmt", "mtt")
"""SDT as it is, SDT with the spike penalty, and the mixtures with it."""


def folds(data: str, root: str | None, count: int) -> list[tuple[Dataset, Dataset]]:
    """All recordings of a data set, cut `count` times into training and test data, classes spread evenly.

    Parameters
    ----------
    data : str
        Name of a data set.
    root : str, optional
        Its folder.
    count : int
        Number of folds, at least 2.

    Returns
    -------
    list of (Dataset, Dataset)
        Train and test; every recording is in the test data of one fold.
    """
    whole = join(*(open_dataset(data, split=split, root=root) for split in ("train", "test")))
    if not 2 <= count <= len(whole):
        raise RunError(f"folds is {count}; give 2..{len(whole)}")
    # In the order of the data set, so that every run has the same folds.
    parts = cut(whole, count, seed=None)
    return [(replace(rest, split="train"), replace(held, split="test")) for rest, held in parts]


@dataclass(frozen=True)
class Paper:
    """What `paper` found.

    Attributes
    ----------
    settings : Settings
        Of MTT in the first fold.
    points : dict of str to list of list of Point
        For every method, for every fold: clocked at each T, then event-driven with the chip's integers, then
        event-driven with the weights before rounding.
    picture : pathlib.Path
    """

    settings: Settings
    points: dict[str, list[list[Point]]]
    picture: Path

    @property
    def columns(self) -> list[str]:
        """What the points are, in order."""
        steps = [str(p.time_steps) for p in next(iter(self.points.values()))[0][:-2]]
        return [*(f"T={t}" for t in steps), "event", "event, float"]

    def accuracies(self, method: str) -> np.ndarray:
        """(folds, points)."""
        return np.array([[point.accuracy for point in fold] for fold in self.points[method]])

    def pooled(self, method: str, share: str = "accuracy") -> np.ndarray:
        """Accuracy over all recordings, one a point; or the share that is ``silent`` or ``tied``."""
        points = self.points[method]
        shares = [[getattr(point.score, share) for point in fold] for fold in points]
        return np.average(shares, axis=0, weights=[fold[0].samples for fold in points])

    def mean(self, method: str, what: str, index: int) -> dict[str, float]:
        """Spikes or synaptic operations of every layer, averaged over folds."""
        each = [getattr(fold[index], what) for fold in self.points[method]]
        return {name: float(np.mean([one[name] for one in each])) for name in each[0]}

    def __repr__(self) -> str:
        what = f"{self.settings.model.name} on {self.settings.data}"
        return f"<Paper: {', '.join(self.points)}, {len(next(iter(self.points.values())))} folds, {what}>"

    def rows(self) -> list[dict[str, Any]]:
        """One a method, fold and point, for a table; the last point of a fold is that before rounding."""
        return [
            {"method": method, "fold": number, "at": column} | point.row()
            for method, folds in self.points.items()
            for number, fold in enumerate(folds, 1)
            for column, point in zip(self.columns, fold, strict=True)
        ]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        methods = {
            method: {
                **{
                    share: dict(zip(self.columns, self.pooled(method, share).tolist(), strict=True))
                    for share in ("accuracy", "silent", "tied")
                },
                "folds": [[point.to_dict() for point in fold] for fold in self.points[method]],
            }
            for method in self.points
        }
        return {"machine": machine(), "settings": self.settings.model_dump(mode="json"), "methods": methods}

    def __str__(self) -> str:
        at = self.columns.index(f"T={self.settings.time_steps}")
        event = len(self.columns) - 2
        hidden = list(next(iter(self.points.values()))[0][0].spikes)[-2]
        head = ["method", *self.columns, f"SD T={self.settings.time_steps}", "synops, event"]
        head += [f"{hidden} spikes T={self.settings.time_steps}", "event"]
        rows = []
        for method in self.points:
            differences = [fold[at].spike_difference for fold in self.points[method]]
            row = [method, *(f"{100 * a:.2f}" for a in self.pooled(method))]
            row.append(f"{100 * float(np.mean([d for d in differences if d is not None])):.1f}%")
            row.append(f"{sum(self.mean(method, 'synops', event).values()):,.0f}")
            row += [f"{self.mean(method, 'spikes', index)[hidden]:.0f}" for index in (at, event)]
            rows.append(row)
            spread = [f"+-{100 * s:.2f}" for s in self.accuracies(method).std(0)]
            rows.append(["", *spread, *[""] * (len(head) - 1 - len(spread))])
        lines = table([head, *rows])
        answers = [["method", "in %", *self.columns]]
        for method in self.points:
            for share in ("silent", "tied"):
                name = method if share == "silent" else ""
                answers.append([name, share, *(f"{100 * a:.2f}" for a in self.pooled(method, share))])
        lines += ["", *table(answers)]
        samples = sum(fold[0].samples for fold in next(iter(self.points.values())))
        count = len(next(iter(self.points.values())))
        lines.append(
            f"accuracy in % over {samples} recordings of {self.settings.data} in {count} folds (+- standard deviation "
            f"of folds); {self.settings.model.name}, {self.settings.profile}; event: no clock, 8-bit weights, 16-bit "
            f"states; event, float: before rounding; {machine()}"
        )
        lines.append("silent recordings count as wrong, a tie among k outputs counts 1/k; tied: not silent")
        lines.append(
            "the weights of the last epoch count, not the best on evaluation data, which the paper's own code keeps"
        )
        return "\n".join([*lines, f"picture: {self.picture}"])


def paper(
    settings: Settings,
    out: Path,
    methods: Sequence[str] = METHODS,
    at: Sequence[int] = (1, 2, 4, 6, 8, 10, 20, 50, 100),
    count: int = 5,
    *,
    progress: bool = True,
) -> Paper:
    """Train and evaluate every method in every fold; what `out` holds already is not done again.

    Parameters
    ----------
    settings : Settings
        Of all runs; the method is set for each, and SDT's spike penalty to 0.
    out : pathlib.Path
        Folder of a run folder a fold and method, ``<fold>/<method>``, and of the picture.
    methods : sequence of str
        Of `METHODS`.
    at : sequence of int
        Numbers of time steps; T of training is added.
    count : int
        Number of folds.
    progress : bool
        Show progress bars.

    Returns
    -------
    Paper

    Raises
    ------
    RunError
        An unknown method, or a folder that holds something else.
    """
    for method in methods:
        if method not in METHODS:
            raise RunError(unknown("method", method, METHODS))
    steps = sorted({*at, settings.time_steps})
    points: dict[str, list[list[Point]]] = {method: [] for method in methods}
    for number, (training, test) in enumerate(folds(settings.data, settings.root, count)):
        base = out / str(number) / "base"
        for method in methods:
            folder = out / str(number) / method
            if not (folder / "settings.json").exists():
                train_base(_settings_of("sdt", settings), base, training, progress=progress)
            run = trained(_settings_of(method, settings), folder, progress, training, base)
            points[method].append(_points(run, steps, test, folder / "points.npz", progress))
    result = Paper(settings.model_copy(update={"method": "mtt"}), points, out / "paper.png")
    curves = {method: result.accuracies(method) for method in methods if method in COLOURS}
    save_figure(paper_figure(curves, steps, settings), result.picture)
    return result


def _settings_of(method: str, settings: Settings) -> Settings:
    sparse = {} if method != "sdt" else {"spike_penalty": 0.0}
    return settings.model_copy(update={"method": method.removesuffix("-sparse")} | sparse)


def _points(run: Run, steps: list[int], test: Dataset, path: Path, progress: bool) -> list[Point]:
    """Evaluate, or read what was evaluated before; scores are made anew from its readouts."""
    if path.exists():
        with np.load(path, allow_pickle=False) as file:
            stored = json.loads(str(file["points"]))
            if [point["time_steps"] for point in stored] == [*steps, None, None]:
                kind = run.network.model.readout
                return [
                    Point(
                        point["time_steps"],
                        score(file[str(i)], test.labels, kind),
                        point["spikes"],
                        point["synops"],
                        file[str(i)],
                        point["spike_difference"],
                    )
                    for i, point in enumerate(stored)
                ]
    points = evaluate(run, steps, test, event_driven=True, progress=progress)
    points.append(evaluate_events(run, test, quantised=False, progress=progress))
    points[-1] = replace(points[-1], spike_difference=spike_difference(points[-2].readout, points[-1].readout))
    arrays = {str(i): point.readout for i, point in enumerate(points)}
    save_arrays(path, {"points": json.dumps([point.to_dict() for point in points]), **arrays}, compress=False)
    return points
