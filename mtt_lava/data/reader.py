"""Frames read when they are asked for: a data set need not fit into memory.

What is kept of a recording are the pixels that counted something, frame by frame, a few bytes each, in one file for a
data set and T; the frames of any recordings are made of it in a compiled loop. The file is one of safetensors, read
with `os.pread`: what of a mapped file was touched would count as memory of the process, and a file that somebody cut
short would end it.
"""

from __future__ import annotations

import json
import os
import tempfile
import weakref
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np

from netx_export.files import replacing

from .binning import bin_recording, check_time_steps
from .cache import bound, cache_folder, cache_limit, digest, in_use, warn_unwritable
from .dataset import DataError, Dataset
from .simulated import expect

HELD = 256_000_000
"""Frames of so many bytes at most stay in memory whole, where they are read more than once: nothing is quicker."""
_VERSION = 2  # raise when the same events give other frames, or the file is laid out otherwise
_HEADER = 1024  # bytes before the recordings: 8 with the length of the JSON, and the JSON, filled up with blanks
_PART = 16_000_000  # bytes of frames made at once, where a whole data set is read; as floats they take four times that


class FrameReader:
    """The frames of a data set at T time steps, from `open_frames`.

    Attributes
    ----------
    labels : numpy.ndarray
        (N,) int64.
    shape : tuple of int
        (N, P, H, W, T), the axes N, C, H, W, T of a network's input.
    largest : int
        The largest count.
    dtype : numpy.dtype
        Of what `take` gives: uint8, or int32 where a count needs more.
    held : bool
        Whether all frames are in memory.
    """

    def __init__(
        self,
        labels: np.ndarray,
        shape: tuple[int, ...],
        largest: int,
        dtype: Any,
        read: Callable[[np.ndarray], np.ndarray],
        hold: bool,
    ) -> None:
        self.labels, self.shape, self.largest, self.dtype = labels, shape, largest, np.dtype(dtype)
        self._read = read
        self.held = hold and self.bytes <= HELD
        if self.held:
            whole = read(np.arange(len(labels)))
            self._read = lambda chosen: whole[:, chosen]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def bytes(self) -> int:
        """What all frames would take in memory."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def take(self, chosen: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the frames of some recordings, time first.

        Parameters
        ----------
        chosen : sequence of int
            Which, 0 .. N - 1, in any order.

        Returns
        -------
        numpy.ndarray
            (T, len(chosen), P, H, W); of still images a view that must not be written to.

        Raises
        ------
        DataError
            If a recording has to be read anew and cannot be.
        """
        return self._read(np.asarray(chosen, dtype=np.int64))

    def parts(self, chosen: Sequence[int] | np.ndarray | None = None, most: int | None = None) -> Iterator[np.ndarray]:
        """Yield the numbers of some recordings in parts small enough to make frames of at once: some 16 MB of them.

        Parameters
        ----------
        chosen : sequence of int, optional
            Default: all.
        most : int, optional
            Recordings in a part at most.
        """
        chosen = np.arange(len(self)) if chosen is None else np.asarray(chosen, dtype=np.int64)
        size = max(1, _PART * len(self) // self.bytes)
        size = size if most is None else min(size, most)
        for start in range(0, len(chosen), size):
            yield chosen[start : start + size]


def open_frames(dataset: Dataset, time_steps: int, *, hold: bool = False) -> FrameReader:
    """Open the frames of a data set, to read any of them at any time; see `mtt_lava.data.frames`.

    At the first time they are binned and kept on disk (`mtt_lava.data.cache_folder`, up to `cache_limit` bytes in
    all), a recording at a time.

    Parameters
    ----------
    dataset : Dataset
    time_steps : int
        T, at least 1.
    hold : bool
        Frames will be read more than once: keep them in memory if they take no more than `HELD` bytes.

    Returns
    -------
    FrameReader

    Raises
    ------
    DataError
        If `time_steps` is not a whole number of at least 1, or a recording cannot be read.

    Examples
    --------
    >>> reader = open_frames(open_dataset("nmnist", split="train"), 10)  # doctest: +SKIP
    >>> reader.take([5, 2, 7]).shape  # doctest: +SKIP
    (10, 3, 2, 34, 34)
    """
    time_steps = check_time_steps(time_steps)
    width, height, channels = dataset.sensor_size
    shape = (len(dataset), channels, height, width, time_steps)
    if dataset.static:
        images = np.asarray(dataset.events)
        dtype = images.dtype if images.dtype == np.uint8 else np.dtype(np.int32)

        def still(chosen: np.ndarray) -> np.ndarray:
            some = np.ascontiguousarray(images[chosen], dtype=dtype)
            return np.broadcast_to(some, (time_steps, *some.shape))

        return FrameReader(dataset.labels, shape, int(images.max()), dtype, still, hold=False)
    packed = _Packed(dataset, time_steps)
    dtype = np.dtype(np.uint8 if packed.largest <= np.iinfo(np.uint8).max else np.int32)

    def recorded(chosen: np.ndarray) -> np.ndarray:
        made = np.zeros((time_steps, len(chosen), channels * height * width), dtype)
        packed.scatter(made, chosen)
        return made.reshape(time_steps, len(chosen), channels, height, width)

    return FrameReader(dataset.labels, shape, packed.largest, dtype, recorded, hold)


class _Damaged(Exception):
    """A file of frames is not what was written."""


class _Packed:
    """The file of a data set's frames at T; written where there is none, and again where it is damaged.

    It has the tensors ``recordings`` (bytes), ``starts`` (N + 1,), where each recording begins and the last ends, and
    ``checks`` (N,), their CRCs. A recording is: where each of its T frames ends in what follows (uint32); pixels
    (uint16, or uint32 where a frame has more than 65,536); and as many counts (uint8; a larger one is several).
    """

    def __init__(self, dataset: Dataset, time_steps: int) -> None:
        self.dataset, self.time_steps = dataset, time_steps
        self.place = np.dtype(np.uint16 if int(np.prod(dataset.sensor_size)) <= 1 << 16 else np.uint32)
        key = digest(_VERSION, dataset.fingerprint, dataset.sensor_size, dataset.duration)
        root = dataset.cache or cache_folder()
        self.path = root / "frames" / f"{_file_name(dataset.name)}-{dataset.split}-T{time_steps}-{key}.safetensors"
        try:
            self._open(os.open(self.path, os.O_RDONLY | os.O_NONBLOCK))
        except (OSError, _Damaged):
            self._make()

    def scatter(self, frames: np.ndarray, chosen: np.ndarray) -> None:
        """Add the counts of some recordings to frames (T, n, pixels) of zeros."""
        try:
            self._scatter(frames, chosen)
        except (OSError, _Damaged):
            self._make()
            frames[:] = 0
            try:
                self._scatter(frames, chosen)
            except _Damaged:
                raise DataError(f"{self.path}: is damaged as soon as it is written: choose another MTT_CACHE") from None

    def _scatter(self, frames: np.ndarray, chosen: np.ndarray) -> None:
        from .scatter import scatter

        for i, recording in enumerate(chosen):
            start, end = self._starts[recording : recording + 2]
            raw = os.pread(self._handle, end - start, _HEADER + start)
            if zlib.crc32(raw) != self._checks[recording]:
                raise _Damaged
            ends = np.frombuffer(raw, np.uint32, self.time_steps)
            n = int(ends[-1])
            places = np.frombuffer(raw, self.place, n, ends.nbytes)
            scatter(frames, i, ends, places, np.frombuffer(raw, np.uint8, n, ends.nbytes + places.nbytes))

    def _open(self, handle: int) -> None:
        """Read from this descriptor from now on.

        Raises
        ------
        OSError, _Damaged
            It cannot be read, or was not written by `_write`.
        """
        weakref.finalize(self, os.close, handle)
        in_use(handle)
        try:
            raw = os.pread(handle, _HEADER, 0)
            header = json.loads(raw[8:])
            said = header["__metadata__"]
            starts, checks = (
                np.frombuffer(os.pread(handle, end - start, _HEADER + start), kind)
                for (start, end), kind in ((header[name]["data_offsets"], kind) for name, kind in _INDEX.items())
            )
            largest, sizes = int(said["largest"]), (len(starts), len(checks))
        except (LookupError, TypeError, ValueError, OverflowError):
            raise _Damaged from None
        if sizes != (len(self.dataset) + 1, len(self.dataset)) or said.get("check") != _check(largest, starts, checks):
            raise _Damaged
        self._handle, self._starts, self._checks, self.largest = handle, starts, checks, largest

    def _make(self) -> None:
        """Bin all recordings; without a cache, into a file that has no name and goes with this."""
        cache_limit()  # a wrong one is said before the work
        try:
            with replacing(self.path) as temporary:
                handle = os.open(temporary, os.O_RDWR)
                in_use(handle)
                with open(handle, "wb", closefd=False) as file:
                    self._write(file)
            bound(self.path.parent.parent)
        except OSError as error:
            warn_unwritable(self.path.parent, str(error.strerror or error))
            with tempfile.TemporaryFile() as file:
                self._write(file)
                file.flush()
                handle = os.dup(file.fileno())
        self._open(handle)

    def _write(self, file: BinaryIO | Any) -> None:
        from tqdm import tqdm

        dataset, starts, checks, largest = self.dataset, [0], [], 0
        file.write(bytes(_HEADER))
        expect(dataset.events)
        # The bar shows up only where there is something to wait for.
        for i in tqdm(
            range(len(dataset)), desc=f"binning {dataset.name} {dataset.split}", delay=3, leave=False, disable=None
        ):
            counts = bin_recording(dataset.events[i], dataset.sensor_size, self.time_steps, dataset.duration)
            raw = _packed(counts, self.place)
            largest = max(largest, int(counts.max()))
            starts.append(starts[-1] + file.write(raw))
            checks.append(zlib.crc32(raw))
        index = [np.array(each, kind) for each, kind in zip((starts, checks), _INDEX.values(), strict=True)]
        filled = -starts[-1] % 8
        file.write(bytes(filled))
        header: dict[str, Any] = {"__metadata__": {"largest": str(largest), "check": _check(largest, *index)}}
        tensors = [("recordings", "U8", [starts[-1] + filled], starts[-1] + filled)]
        kinds = ("I64", "U32")
        tensors += [(name, kind, [len(a)], a.nbytes) for name, kind, a in zip(_INDEX, kinds, index, strict=True)]
        offset = 0
        for name, kind, shape, size in tensors:
            header[name] = {"dtype": kind, "shape": shape, "data_offsets": [offset, offset + size]}
            offset += size
        for array in index:
            file.write(array.tobytes())
        file.seek(0)
        file.write((_HEADER - 8).to_bytes(8, "little") + json.dumps(header).encode().ljust(_HEADER - 8))


_INDEX = {"starts": np.int64, "checks": np.uint32}


def _check(largest: int, starts: np.ndarray, checks: np.ndarray) -> str:
    """Return what shows damage to all that is not a recording."""
    return str(zlib.crc32(checks.tobytes(), zlib.crc32(starts.tobytes(), largest & 0xFFFFFFFF)))


def _packed(counts: np.ndarray, place: np.dtype) -> bytes:
    """Return frames (T, pixels) as they are kept."""
    step, pixel = np.nonzero(counts)
    value = counts[step, pixel]
    if value.max(initial=0) > 255:
        again = -(-value // 255)
        step, pixel = np.repeat(step, again), np.repeat(pixel, again)
        last = np.zeros(len(step), bool)
        last[np.cumsum(again) - 1] = True
        value = np.where(last, np.repeat(value - 255 * (again - 1), again), 255)
    ends = np.cumsum(np.bincount(step, minlength=len(counts)))
    raw = ends.astype(np.uint32).tobytes() + pixel.astype(place).tobytes() + value.astype(np.uint8).tobytes()
    return raw + bytes(-len(raw) % 4)  # so that the next begins where its numbers can be read as they lie


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name)[:64]
