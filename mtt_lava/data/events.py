"""From arrays of events, as cameras, tonic and files have them, to recordings: columns, polarity, time."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from netx_export.text import UserError

EVENT_DTYPE = np.dtype([("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", bool)])
"""An event, in the fields and types of ``tonic.io.events_struct``: column, row, microseconds, polarity (1 is ON)."""

Start = Literal["first-event", 0]
Unit = Literal["us", "ns", "ms", "s"]

ALIASES = {
    "x": ("x", "xs", "col", "column"),
    "y": ("y", "ys", "row"),
    "t": ("t", "ts", "time", "times", "timestamp", "timestamps"),
    "p": ("p", "ps", "on", "pol", "polarity", "polarities"),
}
_UNITS = {"us": (1, 1), "ns": (1, 1000), "ms": (1000, 1), "s": (1_000_000, 1)}
"""Microseconds in a unit, as a fraction."""
_LATEST = 1 << 50  # microseconds, 35 years: times this long can still be multiplied by a number of time steps
_OUTSIDE = 100  # one event in so many may lie outside the window
_NARROW = 20  # a recording must not lie in less than this part of the window
_FEW = 5  # fewer events may be close together by chance
_COUNTER_BITS = 32  # of the stamps of most cameras and files


class DataError(UserError):
    """A data set, or a file of one, is not there or not what it must be. One clear line."""


@dataclass(frozen=True)
class Clock:
    """What the times of recordings mean.

    Parameters
    ----------
    duration : int
        Microseconds of the recording window.
    start : "first-event" or 0
        Which time is 0 in the window: that of the recording's first event, or 0 itself.
    unit : {"us", "ns", "ms", "s"}
        Of the times.
    unwrap : bool or int
        Read on where a counter of 32 (31) bits, or of so many, ran over.
    """

    duration: int
    start: Start = 0
    unit: Unit = "us"
    unwrap: bool | int = False

    def check(self, where: str) -> None:
        """Raise `DataError` unless start, unit and unwrap are ones."""
        plain = isinstance(self.start, str | int) and not isinstance(self.start, bool)
        if not plain or self.start not in ("first-event", 0):
            raise DataError(f'{where}: start is {self.start!r:.60}; must be "first-event" or 0')
        if not isinstance(self.unit, str) or self.unit not in _UNITS:
            raise DataError(f"{where}: unit is {self.unit!r:.60}; must be one of {', '.join(_UNITS)}")
        if not isinstance(self.unwrap, bool | int) or (self.unwrap not in (0, 1) and not 8 <= self.unwrap <= 62):
            raise DataError(f"{where}: unwrap is {self.unwrap!r:.60}; must be true, false or the counter's bits, 8..62")

    def microseconds(self, t: np.ndarray, where: str) -> np.ndarray:
        """Return times as int64 microseconds from the start of the window.

        Raises
        ------
        DataError
            If they are no times, run backwards over a counter's end, or do not fit the window.
        """
        converted, first, last, unit = self.convert(t, where)
        outside = np.count_nonzero(converted > self.duration)
        span = int(converted.max() - converted.min())
        if outside * _OUTSIDE > len(t):
            problem = f", {outside} of them outside"
        elif len(t) >= _FEW and span * _NARROW < self.duration:
            problem = ", under 5 % of"
        else:
            return converted
        raise DataError(
            f"{where}: its {len(t)} events run from {first} to {last} {unit}{problem} the window of {self.duration} "
            f"us: {self._remedy(first, last, unit)}"
        )

    def convert(self, t: np.ndarray, where: str) -> tuple[np.ndarray, float, float, str]:
        """Return int64 microseconds, whatever the window; and the first and last time as given, and their unit."""
        t, unit = self._plain(t, where)
        if t.dtype.kind != "f":
            t = self._unwrapped(t, where)
        first, last = t.min().item(), t.max().item()
        if self.start == 0 and first < 0:
            raise DataError(f'{where}: t is {first}; must be 0 or later, or pass start="first-event"')
        many, of = _UNITS[unit]
        origin = first if self.start == "first-event" else 0
        if t.dtype.kind == "f":
            # Rounded, as 0.000001 s would else be the microsecond 0.
            with np.errstate(over="ignore"):
                since = np.rint((t - origin) * (many / of))
            return np.minimum(since, _LATEST).astype(np.int64), first, last, unit
        # Unsigned, a difference is right over the whole range of 64 bits.
        since = t.astype(np.uint64) - np.uint64(origin % (1 << 64))
        whole = np.minimum(since, np.uint64(_LATEST * of // many)).astype(np.int64)
        return whole * many // of, first, last, unit

    def _plain(self, t: np.ndarray, where: str) -> tuple[np.ndarray, str]:
        """Return times as integers or floats, and their unit, which durations and dates bring along."""
        if t.dtype.kind in "mM":
            unit, count = np.datetime_data(t.dtype)
            if unit not in _UNITS or count != 1 or np.isnat(t).any():
                raise DataError(
                    f"{where}: t is of type {t.dtype}, or not a time; must be in one of {', '.join(_UNITS)}"
                )
            return t.astype(np.int64), unit
        if t.dtype.kind == "f":
            if not np.isfinite(t).all():
                raise DataError(f"{where}: t is {t[~np.isfinite(t)][0]}; must be a time")
            if self.unit in ("us", "ns"):
                words = "microseconds" if self.unit == "us" else "nanoseconds"
                return as_whole(t, "t", where, f'whole numbers of {words}, or pass unit="s" or "ms"'), self.unit
            return t.astype(np.float64), self.unit
        return as_whole(t, "t", where, "whole numbers of microseconds"), self.unit

    def _unwrapped(self, t: np.ndarray, where: str) -> np.ndarray:
        """Return times without the steps back of a counter that ran over; or refuse them."""
        low, high = int(t.min()), int(t.max())
        if self.unwrap not in (0, 1):
            bits = int(self.unwrap)
        elif t.dtype.itemsize < 4:
            bits = 8 * t.dtype.itemsize
        else:
            # 31 bits: counters that are kept in signed numbers, as AEDAT files have them.
            bits = _COUNTER_BITS - (low >= 0 and high < 1 << 31)
        half = 1 << (bits - 1)
        if not (-half <= low and high < 2 * half):
            if self.unwrap not in (0, 1):
                raise DataError(f"{where}: t is {low if low < -half else high}; a counter of {bits} bits cannot be")
            return t
        wide = t.astype(np.int64)
        steps = np.diff(wide)
        back = np.flatnonzero(steps < -half)
        if len(back) == 0:
            return t
        if not self.unwrap:
            i = int(back[0])
            raise DataError(
                f"{where}: t falls from {wide[i]} to {wide[i + 1]} at event {i + 1}: a counter of {bits} bits ran "
                "over: pass unwrap=True to read on, or put the events in order of time"
            )
        # A late event from before the end is a step forwards by as much.
        wide[1:] -= np.cumsum(np.where(steps < -half, -1, np.where(steps > half, 1, 0))) * (2 * half)
        return wide

    def _remedy(self, first: float, last: float, unit: str) -> str:
        """Say how the recording would fit the window."""

        def fits(start: str | int, unit: str) -> bool:
            many, of = _UNITS[unit]
            end = (last - first if start == "first-event" else last) * many / of
            return end <= self.duration <= _NARROW * (last - first) * many / of

        if self.start == 0 and fits("first-event", unit):
            return 'pass start="first-event"'
        for start in dict.fromkeys((self.start, "first-event")):
            for other in _UNITS:
                if fits(start, other):
                    more = "" if start == self.start else ', start="first-event"'
                    return f'pass unit="{other}"{more}'
        many, of = _UNITS[unit]
        if (last - first) * many / of > _LATEST:
            return "correct its times, or leave the recording out"
        span = int((last - first) * many / of) + 1
        more = ' with start="first-event"' if self.start == 0 and (last - first) * 2 < last else ""
        return f"pass a duration near {span} us{more}, or leave the recording out"


def as_whole(values: np.ndarray, field: str, where: str, allowed: str = "whole numbers") -> np.ndarray:
    """Return `values` as integers, or raise `DataError`; floats that are whole are taken."""
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype.kind in "iu":
        return values
    if values.dtype.kind == "f":
        whole = np.isfinite(values) & (np.abs(values.astype(float)) < 2.0**62)
        whole &= np.rint(np.where(whole, values, 0.5)) == values
        if whole.all():
            return values.astype(np.int64)
        raise DataError(f"{where}: {field} is of type {values.dtype}, such as {values[~whole][0]}; must be {allowed}")
    raise DataError(f"{where}: {field} is of type {values.dtype}; must be {allowed}")


def as_duration(value: Any, where: str) -> int:
    """Return a duration, a whole number of microseconds or a timedelta, as a number; or raise `DataError`."""
    number: Any = value
    if isinstance(value, datetime.timedelta):
        number = value / datetime.timedelta(microseconds=1)
    elif isinstance(value, np.timedelta64):
        number = value / np.timedelta64(1, "us")
    real = isinstance(number, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not real or not 1 <= number <= _LATEST or number != int(number):
        raise DataError(f"{where}: duration is {value!r:.60}; must be a whole number of microseconds, at least 1")
    return int(number)


def as_sensor_size(value: Any, where: str) -> tuple[int, int, int]:
    """Return a sensor's (columns, rows, polarities), or raise `DataError`."""
    if value is None:
        raise DataError(
            f"{where}: sensor_size is None, as where recordings differ in size: cut them to one size and pass "
            "sensor_size=(columns, rows, polarities)"
        )
    try:
        sizes = [int(size) for size in value]
        same = not isinstance(value, str | Mapping) and all(int(s) == s for s in value)
    except (TypeError, ValueError, OverflowError):
        sizes, same = [], False
    if not same or len(sizes) != 3 or not all(1 <= size <= 1 << 15 for size in sizes[:2]) or sizes[2] not in (1, 2):
        shown = tuple(sizes) if same else value
        raise DataError(
            f"{where}: sensor_size is {str(shown)[:60]}; must be (columns, rows, 1 or 2 polarities), "
            "the same for all recordings"
        )
    return sizes[0], sizes[1], sizes[2]


def as_recording(
    events: Any,
    sensor_size: tuple[int, int, int],
    where: str,
    clock: Clock | None = None,
    columns: str | None = None,
) -> np.ndarray:
    """Return `events` as a recording of dtype `EVENT_DTYPE` in order of time, or say what is wrong with it.

    Parameters
    ----------
    events : numpy.ndarray
        Structured, with fields x, y, t, p or by their usual other names (such as ``on`` or ``polarity`` for p); y may
        be absent where the sensor has one row, p where it has one polarity. Or (N, 4) with `columns`.
    sensor_size : tuple of int
        (W, H, P). Polarities are 0 and 1 or -1 and 1; also where P is 1, for the caller to judge.
    where : str
        What to call it in messages.
    clock : Clock, optional
        Without one, times are microseconds from 0 on, however late.
    columns : str, optional
        What the columns of an (N, 4) array are, such as "txyp".

    Raises
    ------
    DataError
        If there are no events, or fields are missing, not integer or out of the sensor's range.
    """
    found = fields_of(events, sensor_size, where, columns)
    recording = np.zeros(len(found["t"]), dtype=EVENT_DTYPE)
    for field, limit in zip(("x", "y", "p"), (*sensor_size[:2], 2), strict=True):
        if field not in found:
            continue
        values = as_whole(found[field], field, where)
        low, high = int(values.min()), int(values.max())
        if field == "p" and low == -1 and not np.any(values == 0):
            values, low = values > 0, 0
        if low < 0 or high >= limit:
            raise DataError(f"{where}: {field} is {low if low < 0 else high}; must be 0..{limit - 1}")
        recording[field] = values
    if clock is not None:
        recording["t"] = clock.microseconds(found["t"], where)
    else:
        times = as_whole(found["t"], "t", where, "whole numbers of microseconds")
        if int(times.min()) < 0:
            raise DataError(f"{where}: t is {times.min()}; must be 0 or later")
        recording["t"] = times
    if np.any(np.diff(recording["t"]) < 0):
        recording = recording[np.argsort(recording["t"], kind="stable")]
    return recording


def check_columns(columns: str | None, where: str) -> None:
    """Raise `DataError` unless `columns` names x, y, t and p once each."""
    if columns is not None and (not isinstance(columns, str) or sorted(columns) != sorted("xytp")):
        raise DataError(f'{where}: columns is {columns!r:.60}; must be x, y, t and p in their order, such as "txyp"')


def fields_of(events: Any, sensor_size: tuple[int, int, int], where: str, columns: str | None) -> dict[str, np.ndarray]:
    """Return the columns x, y, t and p of an array of events, those of them that it must have; see `as_recording`."""
    if isinstance(events, np.ma.MaskedArray):
        raise DataError(f"{where}: is a masked array; must be a plain one, without the events that are masked")
    try:
        events = np.asarray(events)
    except Exception as error:  # whatever an object of another library raises when it cannot be an array
        raise DataError(f"{where}: is no array ({type(error).__name__}); must be one with fields x, y, t, p") from None
    known = events.dtype.fields
    if known is None and events.ndim == 2 and events.shape[1] == 4 and events.dtype.kind in "iuf":
        if columns is None:
            raise DataError(
                f"{where}: is an array of {len(events)} rows and 4 columns, which does not say what they are; pass "
                'columns="xytp", or the order yours has'
            )
        found = {field: events[:, i] for i, field in enumerate(columns)}
    elif known is None or events.ndim != 1:
        raise DataError(
            f"{where}: type {str(events.dtype)[:60]}, shape {events.shape}: no field x, y, t, p; "
            "must be a structured array with fields x, y, t, p"
        )
    else:
        spare = {"y"} if sensor_size[1] == 1 else set()
        spare |= {"p"} if sensor_size[2] == 1 else set()
        names = {field: _name(known, field, where) for field in ("x", "y", "t", "p")}
        missing = [field for field, name in names.items() if name is None and field not in spare]
        if missing:
            raise DataError(
                f"{where}: no field {', '.join(missing)}; must be a structured array with fields x, y, t, p"
            )
        found = {field: events[name] for field, name in names.items() if name is not None}
    if len(events) == 0:
        raise DataError(f"{where}: no events; a recording must have at least one")
    for field, values in found.items():
        if values.ndim != 1:
            raise DataError(f"{where}: {field} has {values[0].size} values an event; must have one")
    return found


def _name(fields: Mapping[str, Any], field: str, where: str) -> str | None:
    """Return by which name (or title) an array has a field; None if it has not."""
    if field in fields:
        return field
    names = {info[1]: name for name, info in fields.items() if name.lower() in ALIASES[field]}  # one an offset
    if len(names) > 1:
        raise DataError(f"{where}: {' and '.join(sorted(names.values()))} could both be {field}; name one of them so")
    return next(iter(names.values()), None)
