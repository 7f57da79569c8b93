"""The paper's headline result: the same weights with a clock, at any number of time steps, and without.

Few recordings are cut into folds, so that every accuracy is over all of them; of many, the data set's own split is
trained on once a seed. Each time one base network is trained with a norm at T time steps; from it SDT, NMT and MTT
fine-tune, free of norms and biases and in the chip's integers.
The spike penalty of the settings applies to the mixtures, and to SDT in a row of its own (sdt-sparse): what is due to
the penalty and what to the mixture can be told apart. The weights of the last epoch count; the paper's own code keeps
those of the epoch that is best on the evaluation data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mtt_lava.data import Dataset
from mtt_lava.evaluation import Point, evaluate, evaluate_events, spike_difference
from mtt_lava.pictures import plot_accuracy, save_picture
from mtt_lava.run import Run, RunError, Settings
from mtt_lava.studies.parts import Measured, machine, parts_of, stored_points, trained
from mtt_lava.temporal import METHODS
from mtt_lava.training import train_base
from netx_export.text import table, unknown

SPARSE = "-sparse"
ROWS = tuple(name + end for name, method in METHODS.items() for end in (("",) if method.mixes else ("", SPARSE)))
"""Mixtures have the spike penalty; SDT has a row without and one with it."""
COMPARED = ("sdt", "sdt-sparse", "nmt", "mtt")
"""The paper's own, which are compared unless others are named."""


@dataclass(frozen=True)
class Paper(Measured):
    """What `paper` found.

    Attributes
    ----------
    settings : Settings
        Of MTT in the first fold, or with the first seed.
    points, seeds, more
        See `mtt_lava.studies.parts.Measured`: for every method clocked at each T, then event-driven with the chip's
        integers, then event-driven with the weights before rounding.
    picture : pathlib.Path
    """

    picture: Path

    NAMES = "method"

    @property
    def columns(self) -> list[str]:
        """What the points are, in order; the last is that before rounding."""
        return [*super().columns[:-1], "event, float"]

    def mean(self, method: str, what: str, index: int) -> dict[str, float]:
        """Spikes or synaptic operations of every layer, averaged over folds or seeds."""
        each = [getattr(fold[index], what) for fold in self.points[method]]
        return {name: float(np.mean([one[name] for one in each])) for name in each[0]}

    def __repr__(self) -> str:
        what = f"{self.settings.model.name} on {self.settings.data}"
        return f"<Paper: {', '.join(self.points)}, {len(self.parts)} {self.part}s, {what}>"

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        methods = {
            method: {
                **{
                    share: dict(zip(self.columns, self.pooled(method, share).tolist(), strict=True))
                    for share in ("accuracy", "silent", "tied")
                },
                f"{self.part}s": [[point.to_dict() for point in part] for part in self.points[method]],
            }
            for method in self.points
        }
        return self.head() | {"methods": methods}

    def __str__(self) -> str:
        at = self.columns.index(f"T={self.settings.time_steps}")
        event = len(self.columns) - 2
        hidden = list(self.first[0][0].spikes)[-2]
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
            if len(self.parts) > 1:
                spread = [f"+-{100 * s:.2f}" for s in self.shares(method).std(0)]
                rows.append(["", *spread, *[""] * (len(head) - 1 - len(spread))])
        lines = table([head, *rows])
        answers = [["method", "in %", *self.columns]]
        for method in self.points:
            for share in ("silent", "tied"):
                name = method if share == "silent" else ""
                answers.append([name, share, *(f"{100 * a:.2f}" for a in self.pooled(method, share))])
        lines += ["", *table(answers)]
        count = len(self.parts)
        many = f"{count} {self.part}s (+- standard deviation of {self.part}s)" if count > 1 else "one seed"
        lines.append(
            f"accuracy in % over {self.recordings}{', mean of' if self.seeds else ' in'} {many}; "
            f"{self.settings.model.name}, {self.settings.profile}; event: no clock, 8-bit weights, 16-bit "
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
    methods: Sequence[str] = COMPARED,
    at: Sequence[int] = (1, 2, 4, 6, 8, 10, 20, 50, 100),
    count: int = 5,
    seeds: Sequence[int] = (),
    more: int = 0,
    *,
    progress: bool = True,
) -> Paper:
    """Train and evaluate every method in every fold, or with every seed; what `out` holds already is not done again.

    Parameters
    ----------
    settings : Settings
        Of all runs; the method is set for each, and SDT's spike penalty and distillation to 0.
    out : pathlib.Path
        Folder of a run folder a fold and method, ``<fold>/<method>`` or ``seed<seed>/<method>``, and of the picture.
    methods : sequence of str
        Of `ROWS`.
    at : sequence of int
        Numbers of time steps; T of training is added.
    count : int
        Number of folds.
    seeds : sequence of int
        Train on the data set's own split, once with each, instead of in folds.
    more : int
        With seeds: test also on so many training recordings that no run sees.
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
        if method not in ROWS:
            raise RunError(unknown("method", method, ROWS))
    steps = sorted({*at, settings.time_steps})
    points: dict[str, list[list[Point]]] = {method: [] for method in methods}
    for name, own, training, test in parts_of(settings, count, seeds, more):
        base = out / name / "base"
        for method in methods:
            folder = out / name / method
            if not (folder / "settings.json").exists():
                train_base(_settings_of("sdt", own), base, training, progress=progress)
            run = trained(_settings_of(method, own), folder, progress, training, base)
            measure = partial(_points, run, steps, test, progress)
            points[method].append(stored_points(folder / "points.npz", run, test, [*steps, None, None], measure))
    first = {"method": "mtt"} | ({"seed": seeds[0]} if seeds else {})
    result = Paper(settings.model_copy(update=first), points, tuple(seeds), out / "paper.png", more=more)
    found = {method: result.shares(method) for method in methods}
    clocked = {method: (steps, values[:, : len(steps)]) for method, values in found.items()}
    events = {method: values[:, len(steps)] for method, values in found.items()}
    title = f"{settings.model.name} on {settings.data}, {settings.profile}; range over {result.part}s"
    save_picture(plot_accuracy(clocked, settings.time_steps, title, events), result.picture)
    return result


def _settings_of(method: str, settings: Settings) -> Settings:
    name = method.removesuffix(SPARSE)
    dense = {"spike_penalty": 0.0} if name == method and not METHODS[name].mixes else {}
    return settings.model_copy(update=Settings.way(name) | dense)


def _points(run: Run, steps: list[int], test: Dataset, progress: bool) -> list[Point]:
    points = evaluate(run, steps, test, event_driven=True, progress=progress)
    points.append(evaluate_events(run, test, quantised=False, progress=progress))
    points[-1] = replace(points[-1], spike_difference=spike_difference(points[-2].readout, points[-1].readout))
    return points
