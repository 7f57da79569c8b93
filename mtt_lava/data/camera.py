"""A simulated event camera that looks at still images. What it gives is simulated, not recorded.

An image is shown, enlarged by cubic splines, to an event camera, and moves along a path (`PATHS`):

- ``saccades``, the three of N-MNIST (Orchard et al. 2015, "Converting Static Image Datasets to Spiking Neuromorphic
  Datasets Using Saccades"): 100 ms each, along a triangle, at rest where one saccade ends and the next begins.
- ``loop``, after the repeated closed-loop smooth movement of CIFAR10-DVS (Li et al. 2017, "CIFAR10-DVS: An
  Event-Stream Dataset for Object Classification", Front. Neurosci. 11:309): four straight legs at 45 degrees that
  close, at constant speed, again and again. Taken from there: the four legs, their directions, that they repeat. Of
  our choosing, since the lengths were not at hand: legs of 50 ms, six times, which is as long as the recordings are
  (1.2 to 1.3 s), and 2.5 sensor pixels in each direction.

A pixel sends an ON (OFF) event whenever the logarithm of its intensity has risen (fallen) by its own threshold
since its last event, is then blind for the refractory time, and starts again from the level it sees at the end of it.
Between samples of the moving picture the logarithm is taken as linear in time, so stamps are good to a
microsecond. Background events come on top. The camera's thresholds, like all else random, follow from the seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from netx_export.text import unknown

from .dataset import EVENT_DTYPE, DataError

DURATION = 300_000
"""Microseconds: three saccades of 100 ms."""
VERSION = 1
"""Raised when the same parameters give other events: cached recordings are told apart by it."""


@dataclass(frozen=True)
class Path:
    """How an image moves over the sensor.

    Parameters
    ----------
    corners : tuple of (float, float)
        Where a leg starts and ends, (x, y) in pixels about the middle of the sensor.
    leg : int
        Microseconds of each.
    rest : bool
        At rest at each corner, with a raised cosine of a speed between; else at constant speed.
    """

    corners: tuple[tuple[float, float], ...]
    leg: int
    rest: bool

    @property
    def duration(self) -> int:
        """Microseconds."""
        return self.leg * (len(self.corners) - 1)

    @property
    def reach(self) -> float:
        """How far it leads from the middle along an axis, in pixels."""
        return float(np.abs(self.corners).max())

    def places(self, steps: int) -> np.ndarray:
        """Return where the image is, (steps + 1, 2): x and y in pixels from the middle of the sensor."""
        legs, corners = len(self.corners) - 1, np.array(self.corners)
        phase = np.linspace(0, legs, steps + 1)
        leg = np.minimum(phase.astype(int), legs - 1)
        u = (phase - leg)[:, None]
        # At rest at each corner, which is where the event rate of N-MNIST dips.
        done = u - np.sin(2 * np.pi * u) / (2 * np.pi) if self.rest else u
        places: np.ndarray = corners[leg] * (1 - done) + corners[leg + 1] * done
        return places


PATHS = {
    # The triangle is that of tonic's nmnist.stabilize, its size as the centre of the events moves in N-MNIST
    # (5.4 pixels, where the code says 7).
    "saccades": Path(((-2.7, -2.7), (0.0, 2.7), (2.7, -2.7), (-2.7, -2.7)), leg=100_000, rest=True),
    "loop": Path((*((0.0, -2.5), (2.5, 0.0), (0.0, 2.5), (-2.5, 0.0)) * 6, (0.0, -2.5)), leg=50_000, rest=False),
}
_PAD = 3  # pixels about an image, for the splines to end in
_STORED_DTYPE = np.dtype([("x", np.uint8), ("y", np.uint8), ("t", np.uint32), ("p", bool)])
_BATCH = 16  # recordings simulated side by side at most; sets the speed alone
_SEEN = 1 << 24  # intensities that they see at most, in 4 bytes each


@dataclass(frozen=True)
class Camera:
    """The simulated event camera; the defaults are those of ``digits-dvs``.

    Parameters
    ----------
    threshold : float
        Mean contrast threshold, in units of the natural logarithm of the intensity.
    mismatch : float
        Standard deviation of the pixels' thresholds, as a part of the mean; ON and OFF apart.
    background : float
        Intensity of black; white has 1.
    pitch : float
        Width of a pixel of the image on the sensor, in sensor pixels.
    refractory : float
        Microseconds for which a pixel is blind after an event. Not below `step`.
    noise : float
        Background events per pixel and second, ON and OFF alike.
    step : float
        Microseconds between two samples of the moving picture.

    Notes
    -----
    Refractory time and noise are as measured in N-MNIST (the shortest interval on a pixel; the rate in the
    corners); threshold and background give digits its number of events.
    """

    threshold: float = 0.165
    mismatch: float = 0.1
    background: float = 0.25
    pitch: float = 2.5
    refractory: float = 1700.0
    noise: float = 0.2
    step: float = 1250.0

    def __post_init__(self) -> None:
        # A threshold is at most three standard deviations below the mean, and has to be above 0.
        allowed = {
            "threshold": (0 < self.threshold < math.inf, "above 0"),
            "mismatch": (0 <= self.mismatch < 1 / 3, "0 to below 1/3"),
            "background": (0 < self.background < 1, "between 0 and 1"),
            "pitch": (0 < self.pitch < math.inf, "above 0"),
            "noise": (0 <= self.noise < math.inf, "0 or more"),
        }
        for name, (right, what) in allowed.items():
            if not right:
                raise DataError(f"camera: {name} is {getattr(self, name)}; must be {what}")
        if not 0 < self.step <= self.refractory or DURATION % self.step:
            raise DataError(
                f"camera: step is {self.step}, refractory {self.refractory} microseconds; "
                f"step must divide {DURATION} and be no longer than refractory"
            )


def record(
    images: np.ndarray,
    indices: Sequence[int],
    *,
    seed: int,
    sensor: tuple[int, int],
    camera: Camera | None = None,
    border: Literal["dark", "edge"] = "dark",
    first: int = 0,
    path: str = "saccades",
    name: str = "recordings",
) -> list[np.ndarray]:
    """Show some of `images` to the camera.

    Parameters
    ----------
    images : numpy.ndarray
        (N, H, W), intensities 0..1. Their middle is shown to the middle of the sensor.
    indices : sequence of int
        Which of them. The recording of an image depends on its number and the seed, not on the others asked for.
    seed : int
        Settles the thresholds of the camera, and the noise of each recording.
    sensor : tuple of int
        (W, H): columns and rows of the camera, 1 to 256.
    camera : Camera, optional
    border : {"dark", "edge"}
        What lies around an image: black, or its outermost pixels again and again.
    first : int
        Number of the image with index 0, where `images` are a part of a data set; a recording's noise follows
        from the image's number.
    path : str
        Of `PATHS`: how the image moves.
    name : str
        What the progress bar calls them; it shows up only where there is something to wait for.

    Returns
    -------
    list of numpy.ndarray
        One recording for each index: fields x, y, t (microseconds, non-decreasing, below the path's duration), p
        (1 is ON).

    Raises
    ------
    DataError
        If `images`, `sensor`, `border` or `path` is none of these, or a step does not divide the path's duration.
    """
    from tqdm import tqdm

    if images.ndim != 3 or images.dtype.kind != "f" or 0 in images.shape:
        raise DataError(f"images of type {images.dtype}, shape {images.shape}; must be floats, (N, H, W)")
    camera, way = camera or Camera(), known_path(path)
    check_view(camera, sensor, path, border)
    thresholds = _thresholds(camera, seed, sensor)
    sizes = zip(sensor, images.shape[:0:-1], strict=True)
    around = [_around(size, pixels, camera, border, way) for size, pixels in sizes]
    spline_x, spline_y = (
        _splines(sensor[axis], images.shape[2 - axis], around[axis], camera, way, axis) for axis in (0, 1)
    )
    pad = ((around[1],) * 2, (around[0],) * 2)
    recordings: list[np.ndarray] = []
    seen = round(way.duration / camera.step) * sensor[0] * sensor[1]
    size = max(1, min(_BATCH, _SEEN // seen))
    for start in tqdm(range(0, len(indices), size), desc=f"simulating {name}", delay=3, leave=False, disable=None):
        batch = indices[start : start + size]
        rngs = [np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1, first + int(i)))) for i in batch]
        padded = [np.pad(images[i], pad, mode="constant" if border == "dark" else "edge") for i in batch]
        light = np.stack([_log_intensity(image, spline_x, spline_y, camera) for image in padded], axis=1)
        phases = np.stack([rng.uniform(0.01, 0.99, size=light.shape[2]).astype(np.float32) for rng in rngs])
        batch_events = _watch(light, phases, thresholds, camera)
        recordings += [
            _with_noise(events, rng, sensor, camera, way.duration)
            for events, rng in zip(_split(batch_events, len(batch), sensor), rngs, strict=True)
        ]
    return recordings


def packed(recordings: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return all events end to end, in few bytes each, and where each recording ends: what `Recordings` takes."""
    return np.concatenate(recordings).astype(_STORED_DTYPE), np.cumsum([len(r) for r in recordings])


class Recordings(Sequence[np.ndarray]):
    """All recordings end to end in one array, as they are kept on disk; `fingerprint` is that of a data set."""

    def __init__(self, events: np.ndarray, ends: np.ndarray, *, fingerprint: str | None = None) -> None:
        self.fingerprint = fingerprint
        self._events = events
        self._bounds = np.concatenate([[0], ends])

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        return self._events[self._bounds[index] : self._bounds[index + 1]].astype(EVENT_DTYPE)


def _thresholds(camera: Camera, seed: int, sensor: tuple[int, int]) -> np.ndarray:
    """Return ON and OFF thresholds, (2, pixels)."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
    width, height = sensor
    spread = np.clip(rng.normal(size=(2, height * width)), -3, 3)
    return (camera.threshold * (1 + camera.mismatch * spread)).astype(np.float32)


def check_view(camera: Camera, sensor: tuple[int, int], path: str, border: str) -> None:
    """Raise `DataError` unless a camera, and what it is shown, are as `record` takes them."""
    if not all(1 <= size <= 256 for size in sensor):
        raise DataError(f"sensor is {sensor}; must be (columns, rows), 1 to 256 each")
    if border not in ("dark", "edge"):
        raise DataError(f"border is {border!r}; must be dark or edge")
    duration = known_path(path).duration
    if duration % camera.step:
        raise DataError(f"camera: step is {camera.step}; must divide the {duration} microseconds of path {path!r}")


def known_path(path: str) -> Path:
    """Return a path by its name, or raise `DataError`."""
    if path not in PATHS:
        raise DataError(unknown("path", path, PATHS))
    return PATHS[path]


def _around(size: int, pixels: int, camera: Camera, border: str, way: Path) -> int:
    """Return by how many pixels to pad an image on each side of one axis, of `pixels` on a sensor of `size`."""
    if border == "dark":
        return _PAD  # beyond, there is no spline, which is black too
    seen = ((size - 1) / 2 + way.reach) / camera.pitch
    return max(_PAD, math.ceil(seen - (pixels - 1) / 2) + 2)


def _splines(size: int, pixels: int, pad: int, camera: Camera, way: Path, axis: int) -> np.ndarray:
    """Return the B-splines of a padded image's pixels at each sensor pixel, along one axis: (steps + 1, size, ...)."""
    places = way.places(round(way.duration / camera.step))[:, axis]
    splines = np.empty((len(places), size, pixels + 2 * pad), np.float32)
    for start in range(0, len(places), _BATCH):  # what comes between takes several times the memory
        some = slice(start, start + _BATCH)
        pixel = np.arange(size)[None, :, None] - (size - 1) / 2 - places[some, None, None]
        d = np.abs(pixel / camera.pitch + (pixels - 1) / 2 - np.arange(-pad, pixels + pad))
        splines[some] = np.where(d < 1, 2 / 3 - d**2 + d**3 / 2, np.clip(2 - d, 0, None) ** 3 / 6)
    return splines


def _log_intensity(image: np.ndarray, spline_x: np.ndarray, spline_y: np.ndarray, camera: Camera) -> np.ndarray:
    """Return what each pixel sees of a padded image at each sample, (steps + 1, pixels)."""
    from scipy.ndimage import spline_filter

    coefficients = spline_filter(image, order=3, output=np.float32)
    moving = np.clip(spline_y @ coefficients @ spline_x.transpose(0, 2, 1), 0, 1)
    return np.log(camera.background + (1 - camera.background) * moving).reshape(len(moving), -1)


def _watch(light: np.ndarray, phases: np.ndarray, thresholds: np.ndarray, camera: Camera) -> tuple[np.ndarray, ...]:
    """Return (recording and pixel as one number, time, polarity) of the events that `light` causes.

    light : (steps + 1, recordings, pixels); phases : (recordings, pixels), where between its two thresholds
    each pixel starts, 0..1; thresholds : (2, pixels).
    """
    steps, n, _ = light.shape
    light = light.reshape(steps, -1)
    on, off = (np.tile(threshold, n) for threshold in thresholds)
    reference = light[0] + off - phases.ravel() * (on + off)
    free_at = np.zeros_like(reference)
    blind = np.zeros(0, dtype=np.intp)
    where, when, polarity = [], [], []
    for s, (before, after) in enumerate(pairwise(light)):
        start = s * camera.step
        # Blind pixels have no reference (NaN, which is never beyond a threshold) until they see again.
        seeing = free_at[blind] <= start + camera.step
        back, blind = blind[seeing], blind[~seeing]
        reference[back] = before[back] + (after[back] - before[back]) * (free_at[back] - start) / camera.step
        change = after - reference
        fired = np.flatnonzero((change >= on) | (change <= -off))
        up = change[fired] > 0
        level = reference[fired] + np.where(up, on[fired], -off[fired])
        part = (level - before[fired]) / (after[fired] - before[fired])
        time = start + camera.step * np.clip(part, 0, 1)
        # The refractory time is no shorter than a step, so a pixel fires at most once in one.
        free_at[fired] = time + camera.refractory
        reference[fired] = np.nan
        blind = np.concatenate([blind, fired])
        where.append(fired)
        when.append(time)
        polarity.append(up)
    return np.concatenate(where), np.concatenate(when), np.concatenate(polarity)


def _split(events: tuple[np.ndarray, ...], n: int, sensor: tuple[int, int]) -> list[tuple[np.ndarray, ...]]:
    """Cut the events of `n` recordings simulated side by side into (pixel, time, polarity) of each."""
    where, when, polarity = events
    width, height = sensor
    recording, pixel = np.divmod(where, width * height)
    order = np.argsort(recording, kind="stable")
    cuts = np.searchsorted(recording[order], np.arange(1, n))
    return list(zip(*(np.split(part[order], cuts) for part in (pixel, when, polarity)), strict=True))


def _with_noise(
    events: tuple[np.ndarray, ...],
    rng: np.random.Generator,
    sensor: tuple[int, int],
    camera: Camera,
    duration: int,
) -> np.ndarray:
    """Add background events where the refractory time lets them; return the recording in order of time."""
    width, height = sensor
    pixel, time, polarity = events
    extra = rng.poisson(camera.noise * width * height * duration * 1e-6)
    pixel = np.concatenate([pixel, rng.integers(width * height, size=extra)])
    time = np.concatenate([time, rng.uniform(0, duration, size=extra)])
    polarity = np.concatenate([polarity, rng.random(extra) < 0.5])
    noise = np.arange(len(pixel)) >= len(pixel) - extra

    by_pixel = np.lexsort((time, pixel))
    close = (np.diff(pixel[by_pixel]) == 0) & (np.diff(time[by_pixel]) < camera.refractory)
    crowded = np.zeros(len(pixel), dtype=bool)
    crowded[by_pixel[1:][close]] = True
    crowded[by_pixel[:-1][close]] = True
    keep = ~(noise & crowded)

    pixel, polarity = pixel[keep], polarity[keep]
    stamp = np.minimum(time[keep].astype(np.int64), duration - 1)
    order = np.lexsort((pixel, stamp))
    recording = np.empty(len(order), dtype=EVENT_DTYPE)
    recording["x"], recording["y"] = pixel[order] % width, pixel[order] // width
    recording["t"], recording["p"] = stamp[order], polarity[order]
    return recording
