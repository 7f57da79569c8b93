"""Two data sets side by side: how near simulated recordings are to real ones in number, polarity and course."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from netx_export.text import table

from .dataset import DataError, Dataset
from .parts import subset
from .simulated import expect

_PARTS = 30  # of the window, in which events are counted


@dataclass(frozen=True)
class Comparison:
    """The same measures of two data sets.

    Attributes
    ----------
    names : (str, str)
        Of the data sets.
    recordings : (int, int)
    measures : dict of str to (float, float)
        Of each data set; see `measures`.
    """

    names: tuple[str, str]
    recordings: tuple[int, int]
    measures: dict[str, tuple[float, float]]

    def rows(self) -> list[dict[str, Any]]:
        """One a measure, for a table (``pandas.DataFrame(comparison.rows())``)."""
        return [{"measure": name, "first": one, "second": other} for name, (one, other) in self.measures.items()]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"names": [*self.names], "recordings": [*self.recordings], "measures": self.rows()}

    def __repr__(self) -> str:
        return f"<Comparison of {self.names[0]} with {self.names[1]}: {len(self.measures)} measures>"

    def __str__(self) -> str:
        head = ["", *(f"{name} ({n:,})" for name, n in zip(self.names, self.recordings, strict=True)), "ratio"]
        rows = [
            [name, f"{one:,.3f}", f"{other:,.3f}", f"{one / other:.2f}" if other else "-"]
            for name, (one, other) in self.measures.items()
        ]
        return "\n".join(table([head, *rows]))


def alike(dataset: Dataset, like: Dataset) -> Dataset:
    """Return the first recordings of each class, as many as `like` has: the same images where `like` is of the first.

    Raises
    ------
    DataError
        If the classes differ, or there are fewer of one.
    """
    if dataset.classes != like.classes:
        raise DataError(f"{dataset.name} and {like.name}: differ in classes; only data sets of the same compare")
    wanted = np.bincount(like.labels, minlength=len(like.classes))
    chosen = []
    for label, count in enumerate(wanted):
        found = np.flatnonzero(dataset.labels == label)
        if len(found) < count:
            name = dataset.classes[label]
            raise DataError(f"{dataset.name}: {len(found)} recordings of class {name}; {like.name} has {count}")
        chosen.append(found[:count])
    return subset(dataset, np.sort(np.concatenate(chosen)))


def measures(dataset: Dataset) -> dict[str, float]:
    """Return what is measured of event recordings.

    Events a recording, of each class the mean of its recordings' events; thousands of events a second of the window;
    shares of ON events, of pixels and polarities that have events, of events in the first, second and third third of
    the window; the rate where the three thirds begin and end as a share of that in their middle (which is where
    saccades rest, and are fastest); shortest interval of a pixel that 1 % of intervals are below, in microseconds.
    """
    width, height, polarities = dataset.sensor_size
    events, on, covered = np.zeros(len(dataset)), 0, np.zeros(len(dataset))
    course, intervals = np.zeros(_PARTS), []
    expect(dataset.events)
    for i in range(len(dataset)):
        recording = dataset.events[i]
        events[i], on = len(recording), on + int(np.count_nonzero(recording["p"]))
        pixel = recording["y"].astype(np.int64) * width + recording["x"]
        covered[i] = len(np.unique(recording["p"] * width * height + pixel)) / (width * height * polarities)
        part = np.minimum(recording["t"] * _PARTS // dataset.duration, _PARTS - 1)
        course += np.bincount(part, minlength=_PARTS)
        order = np.lexsort((recording["t"], pixel))
        between = np.diff(recording["t"][order])[np.diff(pixel[order]) == 0]
        intervals.append(np.percentile(between, 1) if len(between) else np.nan)
    mean, thirds = float(events.mean()), course.reshape(3, -1).sum(1) / course.sum()
    rate = course.reshape(3, -1).mean(0)
    found = {"events a recording": mean, "thousand events a second": mean / dataset.duration * 1e3}
    found |= {"spread of events a recording": float(events.std()), "share of ON events": on / max(events.sum(), 1)}
    found |= {"share of pixels and polarities with events": float(covered.mean())}
    found |= {f"share of events in third {n + 1}": float(share) for n, share in enumerate(thirds)}
    found |= {"rate between thirds / in their middle": float(rate[[0, -1]].mean() / rate[[4, 5]].mean())}
    found |= {"shortest interval of a pixel, us": float(np.nanmedian(intervals)) if events.any() else 0.0}
    for label, name in enumerate(dataset.classes):
        if np.any(dataset.labels == label):
            found[f"events a recording of class {name}"] = float(events[dataset.labels == label].mean())
    return found


def compare(dataset: Dataset, other: Dataset) -> Comparison:
    """Measure two data sets of event recordings, the first cut to as many recordings of each class as the second has.

    Parameters
    ----------
    dataset, other : Dataset
        Of the same classes.

    Returns
    -------
    Comparison

    Raises
    ------
    DataError
        If one has still images, they differ in classes, or a recording cannot be read.

    Examples
    --------
    >>> print(compare(open_dataset("mnist-camera", split="train", root="mnist"),
    ...               open_dataset("nmnist", split="train", root="nmnist")))  # doctest: +SKIP
    """
    for each in (dataset, other):
        if each.static:
            raise DataError(f"{each.name}: still images have no events to compare")
    first = alike(dataset, other)
    one, two = measures(first), measures(other)
    return Comparison(
        (dataset.name, other.name),
        (len(first), len(other)),
        {name: (value, two[name]) for name, value in one.items()},
    )
