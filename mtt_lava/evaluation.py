"""How a trained run answers at any number of time steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from mtt_lava.data import Dataset, frames, open_dataset
from mtt_lava.run import Run

BATCH_FRAMES = 2000
"""Frames run at once: bounds the memory at any T."""


@dataclass(frozen=True)
class Point:
    """One number of time steps.

    Attributes
    ----------
    time_steps : int
    accuracy : float
        Share of samples classified rightly.
    samples : int
    spikes : dict of str to float
        Mean number of spikes a sample, for every layer whose neurons spike.
    """

    time_steps: int
    accuracy: float
    samples: int
    spikes: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def open_test_split(run: Run, root: str | None = None) -> Dataset:
    """The test split of the data that the run was trained on."""
    return open_dataset(run.settings.data, split="test", root=root or run.settings.root)


def run_network(run: Run, inputs: torch.Tensor, spikes: bool = False) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Readout, and on demand the spikes of every layer, of the trained network at the T of its inputs.

    Parameters
    ----------
    run : Run
    inputs : torch.Tensor
        (N, C, H, W, T) or (N, F, T), any integer or float type.
    spikes : bool
        Also return the spikes.

    Returns
    -------
    readout : torch.Tensor
        (N, classes), see `SpikingNetwork.forward`.
    spikes : list of torch.Tensor
        One (N, C, H, W, T) or (N, F, T) a layer with spiking neurons; empty unless asked for.
    """
    run.set_time_steps(inputs.shape[-1])
    recorded: list[torch.Tensor] | None = [] if spikes else None
    with torch.no_grad():
        return run.network(inputs.float(), spikes=recorded), recorded or []


def evaluate(
    run: Run, time_steps: Sequence[int], dataset: Dataset | None = None, *, progress: bool = True
) -> list[Point]:
    """Accuracy and mean spike counts at each number of time steps.

    Parameters
    ----------
    run : Run
    time_steps : sequence of int
        Numbers of time steps to run at.
    dataset : Dataset, optional
        Default: the test split of the data that the run was trained on.
    progress : bool
        Show a progress bar.

    Returns
    -------
    list of Point

    Examples
    --------
    >>> for point in evaluate(load_run("runs/nmnist"), [2, 10, 100]):  # doctest: +SKIP
    ...     print(point.time_steps, point.accuracy)
    """
    dataset = dataset or open_test_split(run)
    names = run.network.spiking_names
    points = []
    total = sum(len(dataset) for _ in time_steps)
    with tqdm(total=total, desc="evaluate", unit="sample", disable=not progress, delay=3) as bar:
        for t in time_steps:
            counts, labels = frames(dataset, t)
            right, sums = 0, [0.0] * len(names)
            batch = max(1, BATCH_FRAMES // t)
            for start in range(0, len(labels), batch):
                inputs = torch.from_numpy(counts[start : start + batch].astype(np.float32))
                readout, spikes = run_network(run, inputs, spikes=True)
                right += int((readout.argmax(1).numpy() == labels[start : start + batch]).sum())
                sums = [total + float(layer.sum()) for total, layer in zip(sums, spikes, strict=True)]
                bar.update(len(inputs))
            mean = {name: total / len(labels) for name, total in zip(names, sums, strict=True)}
            points.append(Point(t, right / len(labels), len(labels), mean))
    return points


def table(points: Sequence[Point]) -> str:
    """Points as a table for people."""
    names = list(points[0].spikes)
    head = ["T", "accuracy", *names]
    rows = [[str(p.time_steps), f"{p.accuracy:.1%}", *(f"{p.spikes[n]:.1f}" for n in names)] for p in points]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]]
    return "\n".join([*lines, f"({points[0].samples} samples; columns after accuracy: mean spikes a sample)"])
