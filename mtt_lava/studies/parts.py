"""What studies share: folds of all recordings or seeds on a data set's own split, runs and points that are kept."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from hw_profiles.neurobench import NeuroBench
from mtt_lava.data import Dataset, join, open_dataset
from mtt_lava.data import folds as cut
from mtt_lava.data.cache import digest
from mtt_lava.evaluation import Point
from mtt_lava.run import Run, RunError, Settings, load_run, load_settings, unseen
from mtt_lava.scoring import score
from mtt_lava.training import train
from netx_export.files import save_arrays


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


def trained(
    settings: Settings, folder: Path, progress: bool, dataset: Dataset | None = None, base: Path | None = None
) -> Run:
    """The run in `folder`: as it is, trained to its end, or trained from the start (see `mtt_lava.train`)."""
    if not (folder / "settings.json").exists():
        return train(settings, folder, dataset, base=base, progress=progress)
    if load_settings(folder) != settings:
        raise RunError(f"{folder}: its run has other settings: choose another folder")
    if (folder / "weights.safetensors").exists():
        return load_run(folder)
    return train(settings, folder, dataset, resume=True, progress=progress)


def stored_points(
    path: Path, run: Run, dataset: Dataset, at: Sequence[int | None], measure: Callable[[], list[Point]]
) -> list[Point]:
    """What `measure` finds at each of `at`, which is written to `path`; or what is there, scored anew.

    What is there counts where it is of these recordings, at the same numbers of time steps.
    """
    data = digest(dataset.fingerprint, dataset.labels.tolist())
    if path.exists():
        with np.load(path, allow_pickle=False) as file:
            stored = json.loads(str(file["points"]))
            of_data = "data" in file and str(file["data"]) == data
            if of_data and [point["time_steps"] for point in stored] == [*at]:
                kind = run.network.model.readout
                return [
                    Point(
                        point["time_steps"],
                        score(file[str(i)], dataset.labels, kind),
                        point["spikes"],
                        point["synops"],
                        file[str(i)],
                        point["spike_difference"],
                        # Files from before it was counted have none.
                        neurobench=NeuroBench.from_dict(found) if (found := point.get("neurobench")) else None,
                    )
                    for i, point in enumerate(stored)
                ]
    points = measure()
    arrays = {str(i): point.readout for i, point in enumerate(points)}
    texts = {"points": json.dumps([point.to_dict() for point in points]), "data": data}
    save_arrays(path, texts | arrays, compress=False)
    return points


def machine() -> str:
    """What this was measured on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{platform.machine()}, {os.cpu_count()} cores, {device}, torch {torch.__version__}"


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
    def time_steps(self) -> list[int]:
        """Those of the points that have a clock."""
        return [point.time_steps for point in self.first[0] if point.time_steps is not None]

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
