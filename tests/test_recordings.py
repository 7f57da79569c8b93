"""Recordings as cameras and files have them: where their time starts, what its unit is, how fields are called."""

from __future__ import annotations

import datetime
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtt_lava.data import EVENT_DTYPE, DataError, Dataset, frames, from_events, from_images, from_tonic

NANOSECONDS = {"ns": 1, "us": 1000, "ms": 10**6, "s": 10**9}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTT_CACHE", str(tmp_path / "cache"))


def events(times, dtype=np.int64) -> np.ndarray:
    """Return events at these times, spread over a sensor of 5 x 4 pixels."""
    found = np.zeros(len(times), [("x", np.int16), ("y", np.int16), ("t", dtype), ("p", bool)])
    found["x"], found["y"], found["p"] = np.arange(len(times)) % 5, np.arange(len(times)) % 4, np.arange(len(times)) % 2
    found["t"] = times
    return found


def read(*recordings: np.ndarray, **changes) -> Dataset:
    given = {"sensor_size": (5, 4, 2), "duration": 1000, "classes": 2, "name": "mine", **changes}
    return from_events(recordings, [0] * len(recordings), **given)


times_strategy = st.lists(st.integers(0, 999), min_size=1, max_size=40).map(lambda t: sorted([*t, 0, 999]))


# ---------------------------------------------------------------------------------------------- time


@settings(deadline=None)
@given(
    times_strategy,
    st.sampled_from(list(NANOSECONDS)),
    st.sampled_from([0, 1_700_000_000 * 10**9]),
    st.sampled_from([np.int64, np.uint64]),
)
def test_any_origin_and_unit_give_the_same_recording(times, unit, origin, dtype):
    """The same moments as UNIX time or from 0, in any unit, of any type, are the same events in microseconds."""
    step = max(NANOSECONDS[unit], 1000)  # nanoseconds between neighbouring moments
    stamps = (origin + np.array(times) * step) // NANOSECONDS[unit]
    start = "first-event" if origin else 0
    data = read(events(stamps.astype(dtype)), duration=step, start=start, unit=unit)
    assert data.events[0]["t"].tolist() == [t * step // 1000 for t in times]


@settings(deadline=None)
@given(times_strategy, st.sampled_from(["ms", "s"]))
def test_times_in_fractions_of_a_second_are_right_to_the_microsecond(times, unit):
    """Floats of seconds or milliseconds, UNIX stamps among them, are rounded to the microsecond that they stand for."""
    scale = {"ms": 1e3, "s": 1e6}[unit]
    assert read(events(np.array(times) / scale, float), unit=unit).events[0]["t"].tolist() == times
    late = np.array(times) / scale + 1.7e15 / scale
    assert read(events(late, float), unit=unit, start="first-event").events[0]["t"].tolist() == times


@pytest.mark.parametrize("dtype", ["m8[us]", "M8[us]", "m8[ns]", "M8[ns]"])
def test_times_of_a_type_with_a_unit_need_none(dtype):
    """Durations and dates of NumPy know their unit."""
    stamps = np.array([0, 500, 999]).astype("m8[us]") + np.datetime64(0 if dtype[0] == "m" else 10**15, "us")
    stamps = (stamps - np.datetime64(0, "us") if dtype[0] == "m" else stamps).astype(dtype)
    assert read(events(stamps, dtype), start="first-event").events[0]["t"].tolist() == [0, 500, 999]


def test_a_window_from_zero_stays_as_it_was():
    """Without start and unit, times are microseconds from 0: a late first event is late."""
    data = read(events([400, 500, 999]))
    assert data.events[0]["t"].tolist() == [400, 500, 999]
    assert frames(data, 10)[0].sum((0, 1, 2, 3)).tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 0, 1]


SPREAD = np.linspace(0, 999, 200).astype(np.int64)


@pytest.mark.parametrize(
    ("stamps", "changes", "message"),
    [
        (
            SPREAD + 1_700_000_000_000_000,
            {},
            'from 1700000000000000 to 1700000000000999 us, 200 .*start="first-event"$',
        ),
        (SPREAD + 700, {}, 'run from 700 to 1699 us, 140 of them outside the window of 1000 us: pass start="first-ev'),
        (SPREAD * 1000, {}, 'run from 0 to 999000 us, 199 of them outside .*: pass unit="ns"$'),
        (SPREAD * 1000 + 10**18, {}, 'outside .*: pass unit="ns", start="first-event"$'),
        (SPREAD, {"duration": 1_000_000}, 'under 5 % of the window of 1000000 us: pass unit="ms"$'),
        (SPREAD, {"duration": 10**9}, 'under 5 % of the window of 1000000000 us: pass unit="s"$'),
        (SPREAD + 10**15, {"duration": 10**6, "start": "first-event"}, 'under 5 % .*: pass unit="ms"$'),
        (SPREAD * 2, {}, "of them outside .*: pass a duration near 1999 us, or leave the recording out"),
        (SPREAD, {"duration": 30_000}, "under 5 % .*: pass a duration near 1000 us, or leave"),
        (np.uint64(2**64 - 1000) + SPREAD.astype(np.uint64), {}, "200 of them outside .*first-event"),
        (SPREAD - 1, {}, "t is -1; must be 0 or later"),
        (np.array([0, np.nan, 1]), {"unit": "s"}, "t is nan; must be a time"),
        (SPREAD / 1000, {}, "t is of type float64, such as 0.0[0-9]+; must be whole numbers of microsec.*unit="),
        (np.array([0, "NaT", 5], "m8[us]"), {}, r"t is of type timedelta64\[us\], or not a time"),
        (np.array([0, 5], "m8[D]"), {}, r"t is of type timedelta64\[D\]"),
        (np.array(["0", "5"]), {}, "t is of type <U1; must be whole numbers of microseconds"),
    ],
)
def test_time_that_does_not_fit_the_window_is_refused(stamps, changes, message):
    """The message names the recording, its first and last time, the window, and what to pass."""
    with pytest.raises(DataError, match=message) as caught:
        read(events(stamps, stamps.dtype), **changes)
    assert "mine: recording 0: " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@settings(deadline=None)
@given(st.integers(100, 600), st.integers(0, 8), st.integers(1, 10**18))
def test_one_event_in_a_hundred_may_come_late(count, late, delay):
    """Up to 1 % of the events after the window are counted in the last frame; more are refused."""
    stamps = np.sort(np.arange(count) % 1000)
    stamps[count - late :] = 1000 + delay
    stamps[0], stamps[count - late - 1] = 0, 999
    if late * 100 > count:
        with pytest.raises(DataError, match=f"{late} of them outside"):
            read(events(stamps))
    else:
        counts = frames(read(events(stamps)), 10, cache=False)[0].sum((0, 1, 2, 3))
        assert counts.sum() == count
        assert counts[-1] == np.count_nonzero(stamps >= 900)


@settings(deadline=None)
@given(
    times_strategy, st.sampled_from([(16, "u2"), (31, "i4"), (32, "u4"), (32, "i4"), (32, "i8"), (24, "i8")]), st.data()
)
def test_a_counter_that_ran_over_is_refused_or_read_on(times, counter, data):
    """Wherever a counter of 16, 31 or 32 bits runs over, the recording is as if it had not, where asked for."""
    bits, dtype = counter
    before = data.draw(st.integers(1, 999))
    signed = dtype == "i4" and bits == 32
    low = -(1 << 31) if signed else 0
    stamps = (((1 << bits) - before + np.array(times)) % (1 << bits) + low).astype(dtype)
    changes = {"start": "first-event", "unwrap": bits if bits == 24 else True}
    assert read(events(stamps, dtype), **changes).events[0]["t"].tolist() == times
    if bits != 24:
        with pytest.raises(DataError, match=rf"t falls from .* a counter of {bits} bits ran over: pass unwrap=True"):
            read(events(stamps, dtype), start="first-event")


def test_a_late_event_from_before_the_end_of_a_counter_stays_before_it():
    """Events out of order about the place where a counter runs over are put in order."""
    stamps = np.array([2**32 - 3, 1, 2**32 - 1, 4, 900], np.uint32)
    data = read(events(stamps, np.uint32), start="first-event", unwrap=True)
    assert data.events[0]["t"].tolist() == [0, 2, 4, 7, 903]


@settings(deadline=None)
@given(st.permutations(range(0, 1000, 50)))
def test_events_out_of_order_are_no_counter(times):
    """Events in any order are put in order of time, not taken for a counter that ran over."""
    assert read(events(times)).events[0]["t"].tolist() == list(range(0, 1000, 50))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": 5}, 'start is 5; must be "first-event" or 0'),
        ({"start": False}, "start is False"),
        ({"start": "first"}, "start is 'first'"),
        ({"unit": "sec"}, "unit is 'sec'; must be one of us, ns, ms, s"),
        ({"unwrap": 4}, "unwrap is 4; must be true, false or the counter's bits"),
        ({"unwrap": "yes"}, "unwrap is 'yes'"),
        ({"columns": "xyt"}, "columns is 'xyt'; must be x, y, t and p in their order"),
        ({"duration": "1000"}, "duration is '1000'; must be a whole number of microseconds"),
        ({"duration": None}, "duration is None"),
        ({"duration": float("nan")}, "duration is nan"),
        ({"duration": float("inf")}, "duration is inf"),
        ({"duration": 10.5}, r"duration is 10\.5"),
        ({"duration": True}, "duration is True"),
        ({"duration": np.zeros(2)}, "duration is array"),
        ({"sensor_size": None}, "sensor_size is None, as where recordings differ in size: cut them to one size"),
        ({"sensor_size": (5, 4)}, r"sensor_size is \(5, 4\); must be \(columns, rows, 1 or 2 polarities\), the same"),
        ({"sensor_size": [(5, 4, 2), (6, 4, 2)]}, r"sensor_size is \[\(5, 4, 2\)"),
        ({"sensor_size": "5x4"}, "sensor_size is 5x4"),
        ({"sensor_size": 5}, "sensor_size is 5"),
        ({"sensor_size": (5.5, 4, 2)}, r"sensor_size is \(5\.5, 4, 2\)"),
        ({"sensor_size": (10**6, 4, 2)}, r"sensor_size is \(1000000, 4, 2\)"),
        ({"classes": "ab"}, "classes is 'ab'; must be their names, or their number, at least 1"),
        ({"classes": 2.0}, r"classes is '2\.0'"),
        ({"classes": 0}, "classes is '0'"),
        ({"classes": 2**70}, "classes is '1180591620717411303424'"),
        ({"start": np.zeros(3)}, "start is array"),
        ({"classes": {"a": 1, "b": 2}}, "classes is "),
    ],
)
def test_arguments_that_cannot_be_are_named(changes, message):
    """Every argument of another kind is refused in one line, with its value."""
    with pytest.raises(DataError, match=message) as caught:
        read(events([0, 999]), **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "duration", [1000, 1000.0, np.uint8(200), np.float32(1000), datetime.timedelta(milliseconds=1)]
)
def test_durations_are_of_any_type_that_says_them(duration):
    """Whole numbers of any type are microseconds; durations have a unit of their own."""
    expected = 200 if isinstance(duration, np.uint8) else 1000
    data = read(events([0, 100]), duration=duration)
    assert (data.duration, type(data.duration)) == (expected, int)
    assert read(events([0, 100]), duration=np.timedelta64(1, "ms")).duration == 1000


# ---------------------------------------------------------------------------------------------- fields


NAMES = ["p", "on", "pol", "polarity", "P", "Polarity"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("time", ["t", "ts", "timestamp", "Time"])
def test_usual_names_of_fields_are_known(name, time):
    """Polarity may be called on, time ts, and so on; other fields beside them do not matter."""
    raw = np.array(
        [(3, 1, 9, 2, 7), (5, 0, 9, 1, 6)], [(time, "u8"), (name, "i1"), ("z", int), ("col", int), ("y", int)]
    )
    data = read(raw, sensor_size=(5, 8, 2))
    assert data.events[0].tolist() == [(2, 7, 3, True), (1, 6, 5, False)]


def test_titles_of_fields_are_names():
    """A field with a title is found by it, and by its name."""
    for pair in (("on", "p"), ("p", "on"), ("on or off", "p"), ("p", "f3")):
        raw = np.array([(1, 2, 3, True)], [("x", int), ("y", int), ("t", int), (pair, bool)])
        assert read(raw).events[0].tolist() == [(1, 2, 3, True)]


@settings(deadline=None)
@given(st.lists(st.sampled_from([-1, 1]), min_size=1, max_size=20), st.sampled_from([np.int8, np.int64, float]))
def test_polarity_may_be_signed(polarities, dtype):
    """-1 is OFF and 1 is ON, in recordings of either alone too."""
    raw = np.zeros(len(polarities), [("x", int), ("y", int), ("t", int), ("p", dtype)])
    raw["p"] = polarities
    raw["t"] = np.arange(len(raw))
    assert read(raw, duration=len(raw)).events[0]["p"].tolist() == [p > 0 for p in polarities]


@settings(deadline=None)
@given(st.permutations("xytp"), st.sampled_from([int, float, np.uint64, np.float32]))
def test_plain_arrays_are_read_where_their_columns_are_named(order, dtype):
    """Rows of four numbers, in any order and type, are events once it is said which is which."""
    values = {"x": [4, 0], "y": [0, 3], "t": [0, 500], "p": [1, 0]}
    raw = np.array([values[field] for field in order], dtype).T
    assert read(raw, columns="".join(order)).events[0].tolist() == [(4, 0, 0, True), (0, 3, 500, False)]
    assert read(raw.tolist(), columns="".join(order)).events[0].tolist() == [(4, 0, 0, True), (0, 3, 500, False)]
    with pytest.raises(DataError, match='2 rows and 4 columns, which does not say what they are; pass columns="xytp"'):
        read(raw)


def field(name, *info) -> np.ndarray:
    """Return one event with a field replaced."""
    kinds = {"x": int, "y": int, "t": int, "p": int}
    return np.zeros(1, [(n, *info) if n == name else (n, kind) for n, kind in kinds.items()])


def changed(**values) -> np.ndarray:
    """Return one event with other values."""
    raw = np.zeros(1, [("x", float), ("y", int), ("t", int), ("p", int)])
    for name, value in values.items():
        raw[name] = value
    return raw


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (None, "no field x, y, t, p"),
        ("events", "no field x, y, t, p"),
        ([[1, 2], [3]], r"is no array \(ValueError\)"),
        (np.zeros((2, 3, 4)), r"shape \(2, 3, 4\): no field x"),
        (np.zeros((2, 1), EVENT_DTYPE), r"shape \(2, 1\): no field x"),
        (np.zeros(2, EVENT_DTYPE)[0], "no field x"),
        (field("x", object), "x is of type object; must be whole numbers"),
        (field("y", "U3"), "y is of type <U3; must be whole numbers"),
        (field("y", int, 2), "y has 2 values an event; must have one"),
        (changed(x=1.5), r"x is of type float64, such as 1\.5; must be whole numbers"),
        (changed(x=np.inf), "such as inf"),
        (changed(x=1e30), r"such as 1e\+30"),
        (changed(p=2), r"p is 2; must be 0\.\.1"),
        (changed(p=-2), r"p is -2; must be 0\.\.1"),
        (np.zeros(1, [("x", int), ("y", int), ("t", int), ("on", int), ("pol", int)]), "on and pol could both be p"),
        (np.zeros(0, EVENT_DTYPE), "no events"),
    ],
)
def test_what_is_no_recording_is_named(raw, message):
    """Anything that is no array of events is refused in one short line."""
    with pytest.raises(DataError, match=message) as caught:
        read(raw)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_polarities_of_minus_one_nought_and_one_are_refused():
    """Three polarities are none."""
    raw = events([0, 1, 2]).astype([("x", int), ("y", int), ("t", int), ("p", int)])
    raw["p"] = [-1, 0, 1]
    with pytest.raises(DataError, match=r"p is -1; must be 0\.\.1"):
        read(raw)


@pytest.mark.parametrize("polarity", [0, 1])
def test_one_polarity_is_channel_nought_whatever_it_is_called(polarity):
    """A sensor of one polarity may call it 1, or say none; one row needs no y: tonic's spoken digits are read."""
    raw = np.zeros(20, [("t", int), ("x", int), ("p", int)])
    raw["t"], raw["x"], raw["p"] = np.arange(0, 1000, 50), np.arange(20), polarity
    for recording in (raw, raw[["t", "x"]]):
        data = read(recording, sensor_size=(20, 1, 1))
        counts, _ = frames(data, 20)
        assert counts.shape == (1, 1, 1, 20, 20)
        np.testing.assert_array_equal(counts[0, 0, 0], np.eye(20))


def test_two_polarities_on_a_sensor_of_one_are_refused():
    """Within a recording or between two, with both remedies."""
    mixed = events([0, 999])
    for recordings in ([mixed], [mixed[:1], mixed[1:]]):
        with pytest.raises(
            DataError, match=r"p is 1, and it is 0 in recording 0; .*: pass two, or set p to 0 to count"
        ):
            read(*recordings, sensor_size=(5, 4, 1))


def test_a_picture_in_a_corner_is_refused():
    """Recordings that fill a quarter of the sensor given are refused; with the size they have, they are read."""
    recording = events(np.arange(1000))
    for size in ((10, 8, 2), (32, 30, 2)):
        with pytest.raises(DataError, match=r"columns 0\.\.4 and rows 0\.\.3 of .* such as \(5, 4, 2\)"):
            read(recording, sensor_size=size)
    assert read(recording, sensor_size=(9, 4, 2)).sensor_size == (9, 4, 2)
    assert read(recording[::60], sensor_size=(10, 8, 2)).sensor_size == (10, 8, 2)  # too few to tell


class Source(list):
    """What tonic's data sets are like."""

    classes: object = ("a", "b")
    sensor_size: object = (10, 8, 2)
    transform: object = None


def test_transforms_that_change_the_size_ask_for_it():
    """tonic's crops and downsampling, alone or in others, need sensor_size; with it the recordings are read."""
    from tonic import transforms

    crop = transforms.CenterCrop(sensor_size=(10, 8, 2), size=(5, 4))
    half = transforms.Downsample(spatial_factor=0.5)
    for transform in (crop, half, transforms.Compose([transforms.Denoise(filter_time=10), half])):
        source = Source([(events(np.arange(1000)), 1)])
        source.transform = transform
        with pytest.raises(
            DataError, match=r"source: its transform (CenterCrop|Downsample) changes the size; pass sens"
        ):
            from_tonic(source, duration=1000)
        assert from_tonic(source, duration=1000, sensor_size=(5, 4, 2)).sensor_size == (5, 4, 2)
    source = Source([(events(np.arange(1000)), 1)])
    source.sensor_size = (5, 4, 2)
    source.transform = transforms.Compose([transforms.Denoise(filter_time=10), transforms.Downsample(time_factor=1)])
    assert from_tonic(source, duration=1000).sensor_size == (5, 4, 2)


@pytest.mark.parametrize(
    ("items", "changes", "message"),
    [
        ([(events([0, 9]), 0)], {"sensor_size": None}, "source: sensor_size is None, as where recordings differ"),
        ([events([0, 5, 9])], {}, "recording 0 is no pair of events and label"),
        ([3], {}, "recording 0 is no pair of events and label"),
        ([(np.zeros((3, 2, 8, 10)), 0)], {}, r"recording 0: type float64, shape \(3, 2, 8, 10\): no field"),
        ([(events([0, 9]), "a")], {}, "labels of type"),
        ([(events([0, 9]), [0]), (events([0, 9]), [0, 1])], {}, "labels differ in shape"),
    ],
)
def test_sources_that_cannot_be_read_are_named(items, changes, message):
    """Data sets of several sizes, of no pairs, of frames, of names for labels: one line each."""
    source = Source(items)
    for name, value in changes.items():
        setattr(source, name, value)
    with pytest.raises(DataError, match=message) as caught:
        from_tonic(source, duration=10)
    assert "\n" not in str(caught.value)


def test_from_tonic_reads_with_a_clock():
    """start, unit and unwrap are passed on; classes may be bytes, or a mapping of names to labels."""
    source = Source([(events(np.arange(0, 1000, 10) * 1000 + 10**12), 1)])
    source.classes = {"b": 1, "a": 0}
    data = from_tonic(source, duration=1000, start="first-event", unit="ns", sensor_size=(5, 4, 2))
    assert (data.events[0]["t"][-1], data.classes) == (990, ("a", "b"))
    source.classes = np.array([b"one", b"two"])
    assert from_tonic(source, duration=10**6, start="first-event", sensor_size=(5, 4, 2)).classes == ("one", "two")


ODD = [0, 1, -1, 2, 255, 32_767, 2**31 - 1, 2**32 - 1, 2**62, 2**63 - 1, 0.5, 1e300, np.nan, np.inf, 1_700_000_000]
KINDS = [
    "i1",
    "i2",
    "i4",
    "i8",
    "u1",
    "u4",
    "u8",
    "f2",
    "f4",
    "f8",
    "?",
    ">i4",
    "m8[us]",
    "M8[ns]",
    "m8",
    "c8",
    "U3",
    "O",
]


@st.composite
def any_arrays(draw) -> np.ndarray:
    """Draw arrays of fields of all types and names, or none, with values that no camera has."""
    count = draw(st.sampled_from([0, 1, 2, 6, 120]))
    if draw(st.integers(0, 4)) == 0:
        raw = np.zeros((count, draw(st.integers(3, 5))), draw(st.sampled_from(KINDS)))
    else:
        usual = {"x": "i2", "y": "i2", "t": draw(st.sampled_from(KINDS)), "p": "?"}
        more = st.dictionaries(st.sampled_from([*usual, "on", "ts", "z"]), st.sampled_from(KINDS), max_size=2)
        raw = np.zeros(count, [*(usual | draw(more)).items()])
    for column in [raw[name] for name in raw.dtype.names or ()] or [raw]:
        if column.dtype.kind not in "iuf" or not count:
            continue
        if column.ndim == 1 and draw(st.booleans()):
            column[:] = np.arange(count) * draw(st.sampled_from([1, 7, 1000])) % 100
        for value in draw(st.lists(st.sampled_from(ODD), max_size=2)):
            with np.errstate(all="ignore"):
                column.flat[draw(st.integers(0, column.size - 1))] = np.array(value).astype(column.dtype)
    return raw


@settings(deadline=None, max_examples=400)
@given(
    any_arrays(), st.sampled_from(list(NANOSECONDS)), st.sampled_from([0, "first-event"]), st.booleans(), st.booleans()
)
def test_any_array_is_read_or_refused_in_a_line(raw, unit, start, unwrap, named):
    """No array, of whatever types and values, gives a traceback, a warning, a lost event or a long message."""
    try:
        data = read(raw, unit=unit, start=start, unwrap=unwrap, columns="xytp" if named else None)
    except DataError as error:
        message = str(error)
    else:
        assert frames(data, 3, cache=False)[0].sum() == len(raw)
        message = ""
    assert "\n" not in message
    assert len(message) < 300


def test_data_sets_say_what_they_are():
    """The repr is a line; lists are no images."""
    assert repr(read(events([0, 999]))) == "<Dataset mine train: 1 recordings of 1,000 us, 5 x 4 x 2, 2 classes>"
    images = from_images(np.zeros((3, 1, 2, 2), int), [0] * 3, classes=1)
    assert repr(images) == "<Dataset images train: 3 images, 2 x 2 x 1, 1 classes>"
    with pytest.raises(DataError, match="images are a list; must be an array"):
        from_images([[1]], [0], classes=1)


def test_a_library_that_has_no_arrays_is_named():
    """Objects that fail when they are made an array are refused by the kind of their failure."""

    class Stubborn(SimpleNamespace):
        def __array__(self, *_args, **_kwargs):
            raise RuntimeError("on another device")

    with pytest.raises(DataError, match=r"is no array \(RuntimeError\)"):
        read(Stubborn())
