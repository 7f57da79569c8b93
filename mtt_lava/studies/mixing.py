"""What the ways to draw temporal configurations cost, and what accuracy they leave at every number of time steps.

A mini-batch of Mixed Time-step Training runs s temporal configurations: the paper draws 3, each for itself. Fewer that
are drawn together cover the range as well and cost less. Here each way trains the same network in every fold, and so
does SDT; all recordings are test data once. The weights of the last epoch count.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from mtt_lava.data import Dataset
from mtt_lava.evaluation import Point, evaluate
from mtt_lava.run import RunError, Settings
from mtt_lava.studies.parts import Measured, folds, machine, stored_points, trained
from mtt_lava.temporal import DRAWS
from mtt_lava.training import Trainer, memory_kept
from netx_export.text import table

SAMPLERS = (
    "independent:3",
    "independent:3+ends",
    "independent:2",
    "antithetic:2",
    "antithetic:2+ends",
    "stratified:2",
    "independent:1",
)
"""``DRAWS:S``, the way and the number of configurations; ``+ends``: with those at T and at T_MIN everywhere;
``+shared``: which share out a mini-batch, so that each recording runs one of them; ``+packed``: which go through in one
pass."""
EXTRAS = {"ends": "sandwich", "shared": "shared", "packed": "packed"}
"""What a name adds, and the setting that it stands for."""
SDT = "sdt"
REFERENCE = "independent:3"
"""The paper's, which accuracies are held against."""
WITHIN = 0.01
"""Accuracy that a cheaper one may lose, at every T from 2 on."""
REPEATS = 40


def overrides(name: str) -> dict[str, Any]:
    """The settings that a name of a way to draw stands for.

    Raises
    ------
    RunError
        It is none.
    """
    if name == SDT:
        return {"method": "sdt"}
    drawn, *more = name.split("+")
    way, _, number = drawn.partition(":")
    wrong = way not in DRAWS or not number.isdigit() or not int(number)
    if wrong or not set(more) <= set(EXTRAS) or len(set(more)) < len(more):
        extras = "".join(f"[+{extra}]" for extra in EXTRAS)
        raise RunError(f"sampler {name!r:.40}: give {SDT}, or {'|'.join(DRAWS)}:S{extras}, S being a number")
    settings = {setting: extra in more for extra, setting in EXTRAS.items()}
    return {"method": "mtt", "draws": way, "configurations": int(number)} | settings


@dataclass(frozen=True)
class Mixing(Measured):
    """What `mixing` found.

    Attributes
    ----------
    settings : Settings
        Of all runs, but for what the ways to draw say.
    points : dict of str to list of list of Point
        For every way, for every seed and each of its folds, at every T.
    seeds : tuple of int
        With each of which all folds were run.
    milliseconds : dict of str to float
        Of a training step, median of steps in turns.
    """

    milliseconds: dict[str, float]

    def __repr__(self) -> str:
        return f"<Mixing: {', '.join(self.points)}, {self.folds} folds>"

    @property
    def folds(self) -> int:
        """How many the recordings were cut into."""
        return len(self.first) // len(self.seeds)

    def cost(self, name: str) -> float:
        """Of a training step, as a ratio to one of SDT."""
        return self.milliseconds[name] / self.milliseconds[SDT]

    def loss(self, name: str) -> float:
        """The most accuracy lost against `REFERENCE`, at any T from 2 on."""
        lost = self.pooled(REFERENCE) - self.pooled(name)
        return max(float(each) for each, t in zip(lost, self.time_steps, strict=True) if t > 1)

    @property
    def cheapest(self) -> str:
        """The cheapest whose accuracy stays `WITHIN` that of the reference at every T from 2 on."""
        mixed = [name for name in self.points if name != SDT and self.loss(name) <= WITHIN]
        return min(mixed, key=self.cost)

    def rows(self) -> list[dict[str, Any]]:
        """One a way, seed, fold and T, for a table."""
        parts = [*product(self.seeds, range(1, 1 + self.folds))]
        return [
            {"sampler": name, "seed": seed, "fold": number} | point.row()
            for name, of in self.points.items()
            for (seed, number), fold in zip(parts, of, strict=True)
            for point in fold
        ]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        samplers = {
            name: {
                "milliseconds": self.milliseconds[name],
                "cost": self.cost(name),
                "loss": self.loss(name),
                "accuracy": dict(zip(map(str, self.time_steps), self.pooled(name).tolist(), strict=True)),
                "folds": [[point.to_dict() for point in fold] for fold in of],
            }
            for name, of in self.points.items()
        }
        return self.head() | {"cheapest": self.cheapest, "samplers": samplers}

    def __str__(self) -> str:
        head = ["sampler", *(f"T={t}" for t in self.time_steps), "lost at most", "ms a step", "x SDT"]
        rows = []
        for name in self.points:
            row = [name, *(f"{100 * a:.2f}" for a in self.pooled(name)), f"{100 * self.loss(name):.2f}"]
            rows.append([*row, f"{self.milliseconds[name]:.1f}", f"{self.cost(name):.2f}"])
            rows.append(["", *(f"+-{100 * s:.2f}" for s in self.shares(name).std(0)), "", "", ""])
        samples = sum(fold[0].samples for fold in self.first) // len(self.seeds)
        return "\n".join(
            [
                *table([head, *rows], left=1),
                f"accuracy in % over {samples} recordings of {self.settings.data} in {self.folds} folds, mean of "
                f"{len(self.seeds)} seed{'s' * (len(self.seeds) > 1)} (+- standard deviation of folds); lost at most: "
                f"against {REFERENCE}, at any T from 2 on; steps in turns, medians of {REPEATS}; "
                f"{self.settings.model.name}, {self.settings.profile}, {self.settings.epochs} epochs, last one; "
                f"{machine()}, {torch.get_num_threads()} threads",
                f"the cheapest that loses at most {100 * WITHIN:.0f} point there: {self.cheapest}",
            ]
        )


def mixing(
    settings: Settings,
    out: Path,
    samplers: Sequence[str] = SAMPLERS,
    at: Sequence[int] = (1, 2, 4, 6, 10, 20, 50, 100),
    count: int = 5,
    seeds: Sequence[int] = (0,),
    *,
    progress: bool = True,
) -> Mixing:
    """Train and evaluate every way to draw in every fold, and SDT; what `out` holds already is not done again.

    Parameters
    ----------
    settings : Settings
        Of all runs; method and configurations are set for each.
    out : pathlib.Path
        Folder of a run folder a seed, fold and way, ``<seed>/<fold>/<way>``.
    samplers : sequence of str
        As in `SAMPLERS`; the reference and SDT are added.
    at : sequence of int
        Numbers of time steps.
    count : int
        Number of folds.
    seeds : sequence of int
        All folds run once with each.
    progress : bool
        Show progress bars.

    Returns
    -------
    Mixing

    Raises
    ------
    RunError, mtt_lava.temporal.TemporalError
        An unknown way to draw, a number that cannot be, or a folder that holds something else.
    """
    names = list(dict.fromkeys([SDT, REFERENCE, *samplers]))
    each = {name: settings.model_copy(update=overrides(name)) for name in names}
    for one in each.values():
        one.check()
    points: dict[str, list[list[Point]]] = {name: [] for name in names}
    parts = folds(settings.data, settings.root, count)
    for seed, (number, (training, test)), name in product(seeds, enumerate(parts), names):
        folder = out / str(seed) / str(number) / name.replace(":", "-")
        run = trained(each[name].model_copy(update={"seed": seed}), folder, progress, training)
        measure = partial(evaluate, run, at, test, progress=progress)
        points[name].append(stored_points(folder / "points.npz", run, test, at, measure))
    return Mixing(settings, points, tuple(seeds), _milliseconds(each, parts[0][0], progress))


def _milliseconds(each: dict[str, Settings], dataset: Dataset, progress: bool) -> dict[str, float]:
    """Of a step of the first phase on one mini-batch, in turns, so that other load meets all alike."""
    trainers = {name: Trainer(settings, None, dataset, progress=False) for name, settings in each.items()}
    times: dict[str, list[float]] = {name: [] for name in each}
    with memory_kept(), tqdm(total=(1 + REPEATS) * len(each), desc="steps", unit="step", disable=not progress) as bar:
        for number in range(1 + REPEATS):  # the first compiles
            for name, trainer in trainers.items():
                trainer.network.train()
                x, labels = trainer.batch(torch.arange(min(each[name].batch, len(trainer.labels))))
                start = time.perf_counter()
                trainer.step(x, labels, trainer.samplers[0].draw(number))
                times[name].append(1000 * (time.perf_counter() - start))
                bar.update()
    # Configurations differ from step to step, and so does what they cost: the mean of the middle half.
    return {name: statistics.fmean(sorted(of[1:])[REPEATS // 4 : -REPEATS // 4]) for name, of in times.items()}
