"""What is in a data set: numbers, a picture, and inputs for the simulators."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from netx_export.files import replacing, save_arrays
from netx_export.text import table

from .dataset import DataError, Dataset, picture
from .reader import open_frames
from .simulated import expect

_SHOWN = 20  # classes in a picture
_ACROSS = 100  # time steps in a picture of a sensor of one row


@dataclass(frozen=True)
class Summary:
    """What is in one split of a data set.

    Attributes
    ----------
    name, split : str
    sensor_size : tuple of int
        (W, H, P).
    duration : int
        Microseconds of the window.
    static : bool
        Still images: then there are no events, and what is said of them is 0.
    recordings : dict of str to int
        How many of each class.
    events : dict of str to float
        Mean number of a recording of each class; 0 where there is none.
    events_range : tuple of int
        Fewest and most events of a recording.
    lengths : tuple of int
        Microseconds from first to last event: shortest, mean, longest.
    on : float
        Share of ON events.
    late : float
        Share of events after the window, which are counted in the last frame.
    """

    name: str
    split: str
    sensor_size: tuple[int, int, int]
    duration: int
    static: bool
    recordings: dict[str, int]
    events: dict[str, float]
    events_range: tuple[int, int]
    lengths: tuple[int, int, int]
    on: float
    late: float

    def rows(self) -> list[dict[str, Any]]:
        """One a class, for a table (``pandas.DataFrame(summary.rows())``)."""
        return [
            {"class": name, "recordings": count, "events": self.events[name]} for name, count in self.recordings.items()
        ]

    def __repr__(self) -> str:
        return f"<Summary of {str(self).splitlines()[0]}>"

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    def __str__(self) -> str:
        width, height, channels = self.sensor_size
        count = sum(self.recordings.values())
        if self.static:
            lines = [f"{self.name} {self.split}: {count:,} images of {width} x {height} pixels, {channels} channels"]
            rows = [["class", "images"], *([name, f"{n:,}"] for name, n in self.recordings.items())]
            return "\n".join([*lines, *table(rows)])
        kinds = "1 polarity" if channels == 1 else f"{channels} polarities"
        mean = sum(self.events[name] * n for name, n in self.recordings.items()) / count
        shortest, usual, longest = self.lengths
        rows = [["class", "recordings", "events a recording"]]
        rows += [[name, f"{n:,}", f"{self.events[name]:,.0f}"] for name, n in self.recordings.items()]
        return "\n".join(
            [
                f"{self.name} {self.split}: {count:,} recordings of {width} x {height} pixels, {kinds}; "
                f"window {self.duration:,} us",
                f"events a recording: {mean:,.0f}, from {self.events_range[0]:,} to {self.events_range[1]:,}; "
                + (f"{self.on:.1%} ON; " if channels == 2 else "")
                + f"{self.late:.2%} after the window",
                f"first to last event: {usual:,} us, from {shortest:,} to {longest:,}",
                *table(rows),
            ]
        )


def summary(dataset: Dataset) -> Summary:
    """Read all of a data set and say what is in it.

    Raises
    ------
    DataError
        If a recording cannot be read.
    """
    from tqdm import tqdm

    counts = np.zeros(len(dataset), np.int64)
    lengths, on, late = counts.copy(), 0, 0
    if not dataset.static:
        expect(dataset.events)
        bar = tqdm(
            range(len(dataset)), desc=f"reading {dataset.name} {dataset.split}", delay=3, leave=False, disable=None
        )
        for i in bar:
            recording = dataset.events[i]
            counts[i], lengths[i] = len(recording), recording["t"].max() - recording["t"].min()
            on += int(np.count_nonzero(recording["p"]))
            late += int(np.count_nonzero(recording["t"] >= dataset.duration))
    total = max(int(counts.sum()), 1)
    chosen = {name: dataset.labels == label for label, name in enumerate(dataset.classes)}
    return Summary(
        dataset.name,
        dataset.split,
        dataset.sensor_size,
        dataset.duration,
        dataset.static,
        {name: int(np.count_nonzero(which)) for name, which in chosen.items()},
        {name: float(counts[which].mean()) if which.any() else 0.0 for name, which in chosen.items()},
        (int(counts.min()), int(counts.max())),
        (int(lengths.min()), round(float(lengths.mean())), int(lengths.max())),
        on / total,
        late / total,
    )


def plot_classes(dataset: Dataset) -> Any:
    """The first recording of every class (of the first 20), all its events: ON red, OFF blue; of images, their sum.

    Of a sensor of one row, time goes to the right, over the window, and columns go upwards.

    Returns
    -------
    numpy.ndarray
        matplotlib.axes.Axes, one a class.
    """
    from matplotlib.figure import Figure

    height = dataset.sensor_size[1]
    one_row = height == 1 and not dataset.static
    there = [label for label in range(len(dataset.classes)) if np.any(dataset.labels == label)][:_SHOWN]
    columns = min(len(there), 5)
    rows = -(-len(there) // columns)
    figure = Figure(figsize=(1.8 * columns, 2 * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, label in zip(grid, there, strict=False):
        item = dataset.events[int(np.flatnonzero(dataset.labels == label)[0])]
        if dataset.static:
            axes.imshow(item.sum(0), cmap="gray_r")
        else:
            shown = _in_time(item, dataset) if one_row else (item, dataset.sensor_size)
            axes.imshow(picture(*shown), origin="lower" if one_row else "upper", aspect="auto" if one_row else None)
        axes.set_title(dataset.classes[label].replace("$", r"\$"), fontsize=9)
    width = dataset.sensor_size[0]
    colours = "" if dataset.static or dataset.sensor_size[2] == 1 else "; ON red, OFF blue"
    size = f"{width} channels upwards, time to the right" if one_row else f"{width} x {height} pixels"
    what = f"; {size}{colours}"
    figure.suptitle(f"{dataset.name} {dataset.split}: the first of each class{what}".replace("$", r"\$"), fontsize=9)
    return grid


def _in_time(recording: np.ndarray, dataset: Dataset) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Return the events of a sensor of one row on one of time steps and columns, and its size."""
    turned = recording.copy()
    turned["x"] = np.minimum(recording["t"] * _ACROSS // dataset.duration, _ACROSS - 1)
    turned["y"] = recording["x"]
    return turned, (_ACROSS, dataset.sensor_size[0], dataset.sensor_size[2])


def write_input(dataset: Dataset, path: str | Path, time_steps: int, largest: int | None = None) -> tuple[int, ...]:
    """Write frames as an input of ``mtt simulate`` and ``mtt cost``.

    Parameters
    ----------
    dataset : Dataset
    path : path
        A .npy file.
    time_steps : int
        T.
    largest : int, optional
        Cut greater counts to this, as training does for chips whose spikes carry no more (1 for binary spikes).

    Returns
    -------
    tuple of int
        Shape of the array: (N, C, H, W, T).

    Raises
    ------
    DataError
        If `path` is no .npy file, or a recording cannot be read.
    """
    check_ending(path, ".npy")
    reader = open_frames(dataset, time_steps)
    most = reader.largest if largest is None else min(largest, reader.largest)
    with replacing(path) as temporary, temporary.open("wb") as file:
        header = {"descr": reader.dtype.str, "fortran_order": False, "shape": reader.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for part in reader.parts():
            counts = np.minimum(np.moveaxis(reader.take(part), 0, -1), most, dtype=reader.dtype)
            file.write(np.ascontiguousarray(counts).tobytes())
    return reader.shape


def write_events(dataset: Dataset, path: str | Path) -> int:
    """Write events as an input of the event-driven simulator; return how many.

    Parameters
    ----------
    dataset : Dataset
    path : path
        A .npz file: arrays sample, t (microseconds), c, y, x; and samples.

    Raises
    ------
    DataError
        If `path` is no .npz file, the data set is one of still images, or a recording cannot be read.
    """
    check_ending(path, ".npz")
    if dataset.static:
        raise DataError(f"{dataset.name}: still images have no events; write frames instead")
    recordings = [dataset.events[i] for i in range(len(dataset))]
    events = np.concatenate(recordings)
    columns = {name: events[field] for name, field in zip("tcyx", "tpyx", strict=True)}
    columns["c"] = columns["c"].astype(np.int8)
    sample = np.repeat(np.arange(len(recordings)), [len(recording) for recording in recordings])
    save_arrays(path, {"sample": sample, "samples": len(recordings), **columns})
    return len(events)


def check_ending(path: str | Path, ending: str) -> None:
    """Raise `DataError` unless a file to write is named so."""
    if Path(path).suffix != ending:
        raise DataError(f"{path}: must end in {ending}")
