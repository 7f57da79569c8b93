"""What studies measure on: folds of all recordings, or seeds on a data set's own split; and the points of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from mtt_lava.data import Dataset, join, open_dataset
from mtt_lava.data import folds as cut
from mtt_lava.evaluation import Point
from mtt_lava.run import RunError, Settings, unseen
from mtt_lava.studies.bench import machine


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


def parts_of(
    settings: Settings, count: int, seeds: Sequence[int], more: int = 0
) -> Iterator[tuple[str, Settings, Dataset, Dataset]]:
    """Name, settings, training and test data of every fold or seed.

    Parameters
    ----------
    settings : Settings
        Of all runs, but for the seed.
    count : int
        Number of folds.
    seeds : sequence of int
        Instead of folds the data set's own split, once with each.
    more : int
        With seeds: so many training recordings that no run sees (`mtt_lava.run.unseen`) are test data too.

    Raises
    ------
    RunError
        A number that cannot be.
    """
    if not seeds:
        if more:
            raise RunError("folds leave no recording unseen to test on as well: give seeds, or leave that out")
        for number, (training, test) in enumerate(folds(settings.data, settings.root, count)):
            yield str(number), settings, training, test
        return
    training, test = (open_dataset(settings.data, split=split, root=settings.root) for split in ("train", "test"))
    for seed in seeds:
        own = settings.model_copy(update={"seed": seed})
        yield f"seed{seed}", own, training, join(test, unseen(own, training, more)) if more else test


@dataclass(frozen=True)
class Measured:
    """What a study measured, by name and part.

    Attributes
    ----------
    settings : Settings
        Of the runs, but for what their names say.
    points : dict of str to list of list of Point
        For every name, for every fold or seed, the same points.
    seeds : tuple of int
        Of the runs on the data set's own split; none where it was cut into folds.
    more : int
        Of the test recordings of seeds so many are of the training split, and no run saw them.
    """

    settings: Settings
    points: dict[str, list[list[Point]]]
    seeds: tuple[int, ...]
    more: int = field(default=0, kw_only=True)

    NAMES: ClassVar[str]
    """What the names are of, in a table."""

    @property
    def first(self) -> list[list[Point]]:
        """Of the first name."""
        return next(iter(self.points.values()))

    @property
    def columns(self) -> list[str]:
        """What the points are, in order."""
        return [point.name.replace(" ", "") for point in self.first[0]]

    @property
    def part(self) -> str:
        """What `parts` are."""
        return "seed" if self.seeds else "fold"

    @property
    def parts(self) -> list[int]:
        """Numbers of the folds, or the seeds."""
        return list(self.seeds) or list(range(1, 1 + len(self.first)))

    def shares(self, name: str, share: str = "accuracy") -> np.ndarray:
        """(folds or seeds, points): accuracy, or the share ``silent`` or ``tied``."""
        return np.array([[getattr(point.score, share) for point in part] for part in self.points[name]])

    def pooled(self, name: str, share: str = "accuracy") -> np.ndarray:
        """The same over all recordings, or the mean over seeds, one a point."""
        return np.average(self.shares(name, share), axis=0, weights=[part[0].samples for part in self.points[name]])

    def rows(self) -> list[dict[str, Any]]:
        """One a name, fold (or seed) and point, for a table."""
        return [
            {self.NAMES: name, self.part: number, "at": column} | point.row()
            for name, parts in self.points.items()
            for number, part in zip(self.parts, parts, strict=True)
            for column, point in zip(self.columns, part, strict=True)
        ]

    @property
    def recordings(self) -> str:
        """What was tested on, in words."""
        data = self.settings.data
        if not self.seeds:
            return f"{sum(part[0].samples for part in self.first)} recordings of {data}"
        unseen = f" ({self.more} of them training recordings that no run saw)" if self.more else ""
        return f"{self.first[0][0].samples} test recordings of {data}{unseen}"

    def head(self) -> dict[str, Any]:
        """What JSON says before what was found."""
        settings = self.settings.model_dump(mode="json")
        return {"machine": machine(), "settings": settings, "seeds": list(self.seeds), "unseen": self.more}
