"""From events to frames: counts of events per pixel, polarity and time step."""

from __future__ import annotations

import numpy as np

from .dataset import DataError, Dataset


def frames(dataset: Dataset, time_steps: int, cache: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Bin a data set into frames of event counts.

    The recording window 0 <= t < duration, the same for all recordings, is cut into `time_steps` frames of equal
    duration: an event at t falls into frame floor(t * time_steps / duration), and one at or after the end of the
    window into the last. So no event is lost, and T frames added up in groups of k are the T / k frames of the
    same data. (tonic's ``ToFrame(n_time_bins=T)`` cuts each recording between its own first and last event
    instead, which gives every recording another clock, and leaves out events at its end.)

    All frames are in memory at once; `mtt_lava.data.open_frames` reads them as they are asked for.

    Parameters
    ----------
    dataset : Dataset
    time_steps : int
        T, at least 1.
    cache : bool
        Keep the frames on disk, and take them from there the next time.

    Returns
    -------
    frames : numpy.ndarray
        (N, P, H, W, T), the axes N, C, H, W, T of a network's input; every frame of a static data set is the image
        (a read-only view); else uint8, or the smallest wider unsigned type
        that holds the largest count. P = 2: channel 0 counts OFF events, channel 1 ON.
    labels : numpy.ndarray
        (N,) int64.

    Raises
    ------
    DataError
        If `time_steps` is not a whole number of at least 1, or a recording cannot be read.
    """
    time_steps = check_time_steps(time_steps)
    if dataset.static:
        images = np.asarray(dataset.events)[..., None]
        return np.broadcast_to(images, (*images.shape[:-1], time_steps)), dataset.labels
    if not cache:
        return _bin_all(dataset, time_steps), dataset.labels
    from .reader import open_frames

    reader = open_frames(dataset, time_steps)
    counts = np.empty(reader.shape, np.promote_types(np.uint8, np.min_scalar_type(reader.largest)))
    for part in reader.parts():
        counts[part] = np.moveaxis(reader.take(part), 0, -1)
    return counts, dataset.labels


def check_time_steps(time_steps: int) -> int:
    """Return a number of time steps as Python has it, or raise `DataError` unless it is one."""
    if isinstance(time_steps, bool) or not isinstance(time_steps, int | np.integer) or time_steps < 1:
        raise DataError(f"time_steps is {time_steps!r}; must be a whole number, at least 1")
    return int(time_steps)


def bin_events(recording: np.ndarray, sensor_size: tuple[int, int, int], time_steps: int, duration: int) -> np.ndarray:
    """Return the frames of one recording, (P, H, W, T) int64; see `frames`."""
    width, height, polarities = sensor_size
    counts = bin_recording(recording, sensor_size, time_steps, duration)
    return np.ascontiguousarray(counts.T).reshape(polarities, height, width, time_steps)


def bin_recording(
    recording: np.ndarray, sensor_size: tuple[int, int, int], time_steps: int, duration: int
) -> np.ndarray:
    """Return the frames of one recording, time first, (T, P * H * W) int64; see `frames`."""
    width, height, polarities = sensor_size
    step = np.minimum(recording["t"] * time_steps // duration, time_steps - 1)
    row = recording["p"].astype(np.int64) * height + recording["y"]
    place = (step * polarities * height + row) * width + recording["x"]
    counts = np.bincount(place, minlength=time_steps * polarities * height * width)
    return counts.reshape(time_steps, -1)


def _bin_all(dataset: Dataset, time_steps: int) -> np.ndarray:
    from tqdm import tqdm

    width, height, polarities = dataset.sensor_size
    counts = np.zeros((len(dataset), polarities, height, width, time_steps), dtype=np.uint8)
    # The bar shows up only where there is something to wait for.
    for i in tqdm(
        range(len(dataset)), desc=f"binning {dataset.name} {dataset.split}", delay=3, leave=False, disable=None
    ):
        one = bin_events(dataset.events[i], dataset.sensor_size, time_steps, dataset.duration)
        largest = int(one.max())
        if largest > np.iinfo(counts.dtype).max:
            counts = counts.astype(np.min_scalar_type(largest))
        counts[i] = one
    return counts
