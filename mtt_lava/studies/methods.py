"""Methods of training side by side, at every number of time steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mtt_lava.data import Dataset, join
from mtt_lava.evaluation import Point, evaluate
from mtt_lava.pictures import plot_accuracy, save_picture
from mtt_lava.run import Settings, open_split, unseen
from mtt_lava.studies.parts import Measured, machine, stored_points, trained
from netx_export.text import table


@dataclass(frozen=True)
class Comparison(Measured):
    """Accuracy of several methods at several numbers of time steps.

    Attributes
    ----------
    settings : Settings
        Of the first run; the others differ in method, loss and seed only.
    points, seeds, more
        See `mtt_lava.studies.parts.Measured`: for every method (`Settings.label`) at each T.
    picture : pathlib.Path
        Accuracy against T.
    """

    picture: Path

    NAMES = "method"

    @property
    def nearest(self) -> int:
        """Index of the time steps nearest to those of training."""
        return self.time_steps.index(min(self.time_steps, key=lambda t: abs(t - self.settings.time_steps)))

    def __repr__(self) -> str:
        what = f"{self.settings.model.name} on {self.settings.data}"
        return f"<Comparison of {', '.join(self.points)}: {what}, T = {', '.join(map(str, self.time_steps))}>"

    @property
    def verdict(self) -> str:
        """Where the last method is better than the first and where it is worse, in a sentence; of one method none."""
        other, *_, one = list(self.points) * 2
        if one == other:
            return ""
        steps, gain = self.time_steps, 100 * (self.pooled(one) - self.pooled(other))

        def ahead(name: str, by: np.ndarray) -> str:
            at = [t for t, points in zip(steps, by, strict=True) if points > 0]
            if not at:
                return f"{name.upper()} is ahead at no T"
            most = int(by.argmax())
            where = f"{', '.join(map(str, at))} (by {by[most]:.1f} points at T = {steps[most]}"
            return f"{name.upper()} is ahead at T = {where}{', the most' if len(at) > 1 else ''})"

        worth = f"a single sample is {100 / self.first[0][0].samples:.1f} points"
        return f"{ahead(one, gain)}, {ahead(other, -gain)}; {worth}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        runs = {
            method: {
                str(seed): [point.to_dict() for point in part] for seed, part in zip(self.seeds, parts, strict=True)
            }
            for method, parts in self.points.items()
        }
        return self.head() | {"points": runs}

    def __str__(self) -> str:
        head = ["method", "seed", *(f"T={t}" for t in self.time_steps), "spikes a sample"]
        head += ["silent", "tied", "most silent"]
        rows = []
        at = self.nearest
        for method, parts in self.points.items():
            spikes = [sum(points[at].spikes.values()) for points in parts]
            right, silent, tied = (self.shares(method, share) for share in ("accuracy", "silent", "tied"))
            for seed, *row in zip(self.seeds, right, spikes, silent, tied, strict=True):
                rows.append([method, str(seed), *self._cells(*row, digits=0)])
            means = right.mean(0), float(np.mean(spikes)), silent.mean(0), tied.mean(0)
            rows.append([method, "mean", *self._cells(*means, digits=1)])
        lines = table([head, *rows])
        lines.append(
            f"accuracy in % on {self.recordings}; {self.settings.model.name}, 8 bits, {self.settings.profile}; spikes, "
            f"silent and tied in % at T = {self.time_steps[at]}; {machine()}"
        )
        lines.append(
            "silent samples count as wrong, a tie among k outputs counts 1/k; tied: not silent; most silent: over all T"
        )
        lines.append("the weights of the last epoch count")
        if self.verdict:
            lines.append(self.verdict)
        return "\n".join([*lines, f"picture: {self.picture}"])

    def _cells(
        self, right: np.ndarray, spikes: float, silent: np.ndarray, tied: np.ndarray, *, digits: int
    ) -> list[str]:
        """A row: accuracy and the others at every T."""
        most = int(silent.argmax())
        where = f" at T={self.time_steps[most]}" if silent[most] else ""
        return [
            *(f"{100 * share:.{digits}f}" for share in right),
            f"{spikes:,.0f}",
            *(f"{100 * share[self.nearest]:.1f}" for share in (silent, tied)),
            f"{100 * silent[most]:.1f}{where}",
        ]


def methods(
    runs: Sequence[Settings],
    at: Sequence[int],
    out: Path,
    dataset: Dataset | None = None,
    more: int = 0,
    *,
    progress: bool = True,
) -> Comparison:
    """Train and evaluate every run; what `out` holds already is not done again. The weights of the last epoch count.

    Parameters
    ----------
    runs : sequence of Settings
        Differing in method, loss and seed; every method with the same seeds.
    at : sequence of int
        Numbers of time steps to evaluate at.
    out : pathlib.Path
        Folder of the run folders, ``<label>-<seed>``, and of the picture.
    dataset : Dataset, optional
        Training data; default: what the settings name.
    more : int
        Test also on so many training recordings that no run sees.
    progress : bool
        Show progress bars.

    Returns
    -------
    Comparison
    """
    points: dict[str, list[list[Point]]] = {}
    whole = open_split(runs[0])
    for settings in runs:
        test = whole
        if more:  # before training: there may not be so many
            test = join(whole, unseen(settings, dataset or open_split(settings, split="train"), more))
        folder = out / f"{settings.label}-{settings.seed}"
        run = trained(settings, folder, progress, dataset)
        measure = partial(evaluate, run, at, test, progress=progress)
        points.setdefault(settings.label, []).append(stored_points(folder / "points.npz", run, test, at, measure))
    seeds = tuple(dict.fromkeys(settings.seed for settings in runs))
    result = Comparison(runs[0], points, seeds, out / "accuracy.png", more=more)
    curves = {method: (at, result.shares(method)) for method in points}
    save_picture(plot_accuracy(curves, runs[0].time_steps, f"{runs[0].model.name} on {runs[0].data}"), result.picture)
    return result
