"""Recordings as mini-batches of frames."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mtt_lava.data import Dataset, FrameReader, open_frames
from mtt_lava.run import RunError
from mtt_lava.temporal import METHODS

if TYPE_CHECKING:
    from mtt_lava.run import Settings


def check_biases(biases: str, dataset: Dataset) -> None:
    """Refuse biases that would be right at one T only."""
    if biases == "kept" and not dataset.static:
        raise RunError(
            f"biases 'kept' with event data ({dataset.name}): a bias is added in every time step, but the charge of a "
            f"recording does not grow with T: use biases 'none' or 'scaled'"
        )
    if biases == "scaled" and dataset.static:
        raise RunError(
            f"biases 'scaled' with still images ({dataset.name}): their charge grows with T as a bias does: "
            f"use biases 'kept'"
        )


def check_methods(settings: Settings, dataset: Dataset) -> None:
    """Refuse methods that have nothing to work on."""
    for name in settings.methods:
        if METHODS[name].accumulates and dataset.static:
            raise RunError(
                f"method {name!r} sums the frames of event data, and {dataset.name} has still images: use method 'nmt'"
            )


def as_frames(settings: Settings, dataset: Dataset, time_steps: int) -> tuple[FrameReader, torch.Tensor]:
    """Frames of a data set that fits the model, to be read again and again, and labels.

    Raises
    ------
    RunError
        It does not fit.
    """
    width, height, channels = dataset.sensor_size
    if settings.model.input != (channels, height, width):
        raise RunError(
            f"model {settings.model.name} takes input {list(settings.model.input)}, but {dataset.name} gives "
            f"{[channels, height, width]}: change the model's input or the data set"
        )
    outputs = settings.model.classes
    if outputs != len(dataset.classes):
        raise RunError(
            f"model {settings.model.name} has {outputs} outputs, "
            f"but {dataset.name} has {len(dataset.classes)} classes: change the last layer"
        )
    # A still image is the same in every time step: the network shows it as often as it is asked to.
    reader = open_frames(dataset, 1 if dataset.static else time_steps, hold=True)
    return reader, torch.from_numpy(np.ascontiguousarray(dataset.labels)).long()


def tensor(frames: np.ndarray) -> torch.Tensor:
    """Frames of a `FrameReader` as networks take them, time first: (T, N, C, H, W), float32."""
    return torch.from_numpy(frames.astype(np.float32, order="C"))


class Ahead:
    """Makes the next mini-batch in a thread of its own while the current one trains.

    Nothing is drawn there: what a mini-batch is made of is settled when it is asked for.

    Attributes
    ----------
    waited : float
        Seconds for which `get` had to wait.
    """

    def __init__(self) -> None:
        self.waited = 0.0
        self._thread = ThreadPoolExecutor(1, "next-mini-batch")
        self._next: Future[tuple[torch.Tensor, torch.Tensor]]

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def start(self, make: Callable[..., tuple[torch.Tensor, torch.Tensor]], *arguments: Any) -> None:
        """Let `make` make a mini-batch of these."""
        self._next = self._thread.submit(make, *arguments)

    def get(self) -> tuple[torch.Tensor, torch.Tensor]:
        """What was started last, or the error that ended it."""
        start = time.perf_counter()
        made = self._next.result()
        self.waited += time.perf_counter() - start
        return made
