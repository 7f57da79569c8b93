"""From events to frames: counts of events per pixel, polarity and time step."""

from __future__ import annotations

import numpy as np

from .cache import cache_folder, cached, digest
from .dataset import DataError, Dataset

_VERSION = 1  # raise when the same events give other frames


def frames(dataset: Dataset, time_steps: int, cache: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Bin a data set into frames of event counts.

    The recording window 0 <= t < duration, the same for all recordings, is cut into `time_steps` frames of equal
    duration: an event at t falls into frame floor(t * time_steps / duration), and one at or after the end of the
    window into the last. So no event is lost, and T frames added up in groups of k are the T / k frames of the
    same data. (tonic's ``ToFrame(n_time_bins=T)`` cuts each recording between its own first and last event
    instead, which gives every recording another clock, and leaves out events at its end.)

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
    if isinstance(time_steps, bool) or not isinstance(time_steps, int | np.integer) or time_steps < 1:
        raise DataError(f"time_steps is {time_steps!r}; must be a whole number, at least 1")
    if dataset.static:
        images = np.asarray(dataset.events)[..., None]
        return np.broadcast_to(images, (*images.shape[:-1], int(time_steps))), dataset.labels
    if not cache:
        return _bin_all(dataset, int(time_steps)), dataset.labels
    key = digest(_VERSION, dataset.fingerprint, dataset.sensor_size, dataset.duration)
    folder = (dataset.cache or cache_folder()) / "frames"
    (counts,) = cached(
        folder / f"{_file_name(dataset.name)}-{dataset.split}-T{time_steps}-{key}.npz",
        ("frames",),
        lambda: (_bin_all(dataset, int(time_steps)),),
        compress=True,  # frames are mostly zeros
    )
    return counts, dataset.labels


def bin_events(recording: np.ndarray, sensor_size: tuple[int, int, int], time_steps: int, duration: int) -> np.ndarray:
    """Return the frames of one recording, (P, H, W, T) int64; see `frames`."""
    width, height, polarities = sensor_size
    step = np.minimum(recording["t"] * time_steps // duration, time_steps - 1)
    row = recording["p"].astype(np.int64) * height + recording["y"]
    place = (row * width + recording["x"]) * time_steps + step
    counts = np.bincount(place, minlength=polarities * height * width * time_steps)
    return counts.reshape(polarities, height, width, time_steps)


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


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name)[:64]
