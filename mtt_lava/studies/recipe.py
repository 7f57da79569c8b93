"""What each part of a recipe gives: every change of the settings alone, against the recipe as it is, fold by fold.

All ways train anew in every fold (or with every seed), from start to end; the weights of the last epoch count.
Differences are paired: the same fold, the same recordings, the same seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mtt_lava.evaluation import Point, evaluate
from mtt_lava.pictures import plot_recipe, save_picture
from mtt_lava.run import Settings
from mtt_lava.studies.parts import Measured, machine, parts_of, stored_points, trained
from netx_export.text import table

AS_IS = "as it is"
"""The recipe that changes are held against."""


@dataclass(frozen=True)
class Recipe(Measured):
    """What `recipe` found.

    Attributes
    ----------
    settings : Settings
        Of the recipe as it is.
    points, seeds, more
        See `mtt_lava.studies.parts.Measured`: for every change, `AS_IS` first, at each T, then without a clock where
        the chip has none.
    picture : pathlib.Path
    """

    picture: Path

    NAMES = "change"

    def __repr__(self) -> str:
        return f"<Recipe: {', '.join(self.points)}, {self.settings.model.name} on {self.settings.data}>"

    def gain(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Accuracy gained over the recipe as it is, mean over folds or seeds, and its standard error; one a point."""
        each = self.shares(name) - self.shares(AS_IS)
        error = each.std(0, ddof=1) / math.sqrt(len(each)) if len(each) > 1 else np.full(each.shape[1], np.nan)
        return each.mean(0), error

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        changes = {}
        for name, parts in self.points.items():
            gained, error = (dict(zip(self.columns, each.tolist(), strict=True)) for each in self.gain(name))
            known = {column: None if math.isnan(e) else e for column, e in error.items()}
            of_parts = [[point.to_dict() for point in part] for part in parts]
            changes[name] = {"gain": gained, "standard_error": known, "parts": of_parts}
        return self.head() | {"changes": changes}

    def __str__(self) -> str:
        rows = []
        for name in self.points:
            rows.append([name, *(f"{100 * a:.2f}" for a in self.pooled(name)), ""])
            if name != AS_IS:
                gained, error = self.gain(name)
                known = f"+-{100 * float(np.mean(error)):.2f}" if len(self.parts) > 1 else f"one {self.part} only"
                rows.append(["", *(f"{100 * g:+.2f}" for g in gained), known])
        which = f"seeds {', '.join(map(str, self.seeds))}" if self.seeds else f"{len(self.parts)} folds"
        return "\n".join(
            [
                *table([["change", *self.columns, "standard error"], *rows], left=1),
                f"accuracy in %, and below what a change gains, over {self.recordings}, {which}; +-: of that, "
                f"mean over columns; {self.settings.model.name}, {self.settings.method}, {self.settings.profile}, "
                f"{self.settings.epochs} epochs, last one; {machine()}",
                f"picture: {self.picture}",
            ]
        )


def recipe(
    settings: Settings,
    out: Path,
    changes: Mapping[str, Mapping[str, Any]],
    at: Sequence[int] = (1, 2, 4, 6, 10, 20, 50, 100),
    count: int = 5,
    seeds: Sequence[int] = (),
    more: int = 0,
    *,
    progress: bool = True,
) -> Recipe:
    """Train the recipe as it is and with each change, in every fold or with every seed.

    What `out` holds already is not done again.

    Parameters
    ----------
    settings : Settings
        The recipe.
    out : pathlib.Path
        Folder of a run folder a fold and change, ``<fold>/<change>`` or ``seed<seed>/<change>``, and of the picture.
    changes : mapping of str to mapping of str to object
        For every name of a change the settings that it sets.
    at : sequence of int
        Numbers of time steps to evaluate at.
    count, seeds, more
        See `mtt_lava.studies.paper.paper`.
    progress : bool
        Show progress bars.

    Returns
    -------
    Recipe

    Raises
    ------
    RunError
        Settings that cannot be, or a folder that holds something else.
    """
    event_driven = settings.chip.facts.clocked.value is False
    given = {name: value for name, value in settings if name not in ("model", "chip")}
    ways = {AS_IS: settings}
    for name, fields in changes.items():
        ways[name] = Settings.make(settings.model, **given | dict(fields))
    points: dict[str, list[list[Point]]] = {name: [] for name in ways}
    for part, own, training, test in parts_of(settings, count, seeds, more):
        for name, way in ways.items():
            folder = out / part / name.replace(" ", "-").replace("/", "-")
            run = trained(way.model_copy(update={"seed": own.seed}), folder, progress, training)
            measure = partial(evaluate, run, at, test, event_driven=event_driven, progress=progress)
            kinds = [*at, *([None] if event_driven else [])]
            points[name].append(stored_points(folder / "points.npz", run, test, kinds, measure))
    result = Recipe(settings, points, tuple(seeds), out / "recipe.png", more=more)
    gains = {name: result.gain(name) for name in points if name != AS_IS}
    save_picture(plot_recipe(gains, result.columns, f"{settings.model.name} on {settings.data}"), result.picture)
    return result
