"""Streams: sources, the queue and its policies, larger sensors, clocks that jump, and `mtt stream`."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cli import refused

from mtt_lava import Run, Settings, evaluate, train
from mtt_lava.cli import main
from mtt_lava.data import subset
from mtt_lava.data.events import EVENT_DTYPE
from mtt_lava.live import Page
from mtt_lava.run import open_split
from mtt_lava.sources import AT_ONCE, WIRE, Packet, Source, StreamError, open_source, pack, serve
from mtt_lava.stream import JUMP, Clocked, Fit, Latencies, Queue, Stream
from mtt_lava.studies import realtime
from netx_export import netx
from netx_export.event import Session
from netx_export.event.backend import Events, simulate
from netx_export.fast.backend import simulate as fast
from netx_export.network import Dense, Flatten, Network, NetworkError, Neuron


def network(reset: str = "zero") -> Network:
    """A sensor of 4 x 4 pixels, two polarities, and three outputs."""
    weight = 2 * np.random.default_rng(0).integers(-3, 9, (3, 32))
    flat = Flatten(in_shape=(2, 4, 4), shape=(32,))
    return Network((flat, Dense(in_shape=(32,), shape=(3,), weight=weight, neuron=Neuron(20))), reset=reset)


def recording(count: int = 300, seed: int = 1, size: int = 4, most: int = 20_000) -> np.ndarray:
    rng = np.random.default_rng(seed)
    events = np.zeros(count, EVENT_DTYPE)
    events["t"] = np.sort(rng.integers(0, most, count))
    for name, top in (("x", size), ("y", size), ("p", 2)):
        events[name] = rng.integers(0, top, count)
    return events


def as_events(*recordings: np.ndarray) -> Events:
    joined = np.concatenate(recordings)
    sample = np.repeat(np.arange(len(recordings)), [len(each) for each in recordings])
    t, c, y, x = (joined[name].astype(np.int64) for name in ("t", "p", "y", "x"))
    return Events(sample, t, c, y, x)


def expected(*recordings: np.ndarray) -> np.ndarray:
    return simulate(network(), as_events(*recordings), progress=False).counts


def streamed(packets: Iterator[Packet] | list[Packet], waits: bool = True, **more: Any) -> Stream:
    """A stream that has run to its end."""
    stream = Stream(Session(network()), Source("test", iter(packets), waits), **more)
    for _ in stream:
        pass
    return stream


def written(path: Path, *recordings: np.ndarray) -> Path:
    """An EVENTS.npz."""
    events = as_events(*recordings)
    np.savez(path, **{name: getattr(events, name) for name in ("sample", "t", "c", "y", "x")})
    return path


# ------------------------------------------------------------------------------------------------ recordings


@pytest.mark.parametrize("speed", [0, 5])
def test_recordings_are_run_whole_whatever_their_pace(tmp_path: Path, speed: float) -> None:
    """Each recording of a file ends with the counts of one run; played, it takes as long as it is."""
    recordings = [recording(seed=seed) for seed in range(3)]
    path = written(tmp_path / "events.npz", *recordings)
    stream = Stream(Session(network()), open_source(str(path), speed=speed, packet=500))
    for _ in stream:
        pass
    np.testing.assert_array_equal([each.readout for each in stream.report.recordings], expected(*recordings))
    assert stream.report.events == stream.report.run == 900
    length = sum(int(each["t"][-1] - each["t"][0]) for each in recordings) / 1e6
    assert stream.report.stream_seconds == pytest.approx(length)
    if speed:
        assert stream.report.seconds > 0.9 * length / speed


def test_formats_of_recordings(tmp_path: Path) -> None:
    """What data sets are read from is played, too."""
    np.save(tmp_path / "one.npy", recording())
    (source,) = [packet.events for packet in open_source(str(tmp_path / "one.npy"), speed=0).packets]
    np.testing.assert_array_equal(source, recording())


def test_long_recordings_come_in_parts(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", recording(2 * AT_ONCE + 3))
    packets = list(open_source(str(tmp_path / "one.npy"), speed=0).packets)
    assert [len(packet.events) for packet in packets] == [AT_ONCE, AT_ONCE, 3]
    assert [packet.fresh for packet in packets] == [True, False, False]


def test_a_folder_is_run_as_it_is_written(tmp_path: Path) -> None:
    """Files are run in order once whole; where time goes on they are one recording, where it starts again another."""
    whole = recording(300)
    rest = recording(100, seed=2)

    def write() -> None:
        for number, part in enumerate((whole[:100], whole[100:], rest)):
            np.save(tmp_path / f".{number}.npy", part)
            (tmp_path / f".{number}.npy").rename(tmp_path / f"{number}.npy")
            time.sleep(0.05)

    thread = threading.Thread(target=write)
    thread.start()
    stream = Stream(Session(network()), open_source(str(tmp_path), speed=0, idle=3))
    for _ in stream:
        pass
    thread.join()
    np.testing.assert_array_equal([each.readout for each in stream.report.recordings], expected(whole, rest))


# ------------------------------------------------------------------------------------------------ sockets


def test_a_socket_sends_what_is_run() -> None:
    """A recording over TCP on loopback ends with the counts of one run."""
    port, thread = serve(recording(), speed=0)
    stream = Stream(Session(network()), open_source(f"tcp://127.0.0.1:{port}"))
    for _ in stream:
        pass
    thread.join()
    np.testing.assert_array_equal(stream.report.recordings[0].readout, expected(recording())[0])
    assert stream.report.dropped == 0


ENDS = {
    "killed between packets": (b"", "broke off without a last packet"),
    "killed in a packet": (pack(recording(10))[:-1], "broke off without a last packet"),
    "garbage": (b"GET / HTTP/1.1\r\n\r\n", "sends b'GET / HT', no packet of events"),
    "too many": (b"MTTE" + b"\xff" * 4, "declares 4,294,967,295 events"),
    "no such time": (pack(np.array([(1 << 62, 0, 0, 1)], WIRE)), "no camera has: (4611686018427387904, 0, 0, 1)"),
    "no such pixel": (pack(np.array([(30_000, 40_000, 2, 1)], WIRE)), "no camera has: (30000, 40000, 2, 1)"),
}


@pytest.mark.parametrize("end", ENDS)
def test_what_breaks_off_leaves_the_session_whole(end: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, exit code 2; what came before was run, and its state is saved."""
    content, words = ENDS[end]
    server = socket.create_server(("127.0.0.1", 0))

    def send() -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(pack(recording()) + content)

    threading.Thread(target=send, daemon=True).start()
    netx.write(network(), tmp_path / "a.net")
    address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    state = tmp_path / "state.npz"
    code = main(["stream", str(tmp_path / "a.net"), address, "--state", str(state)])
    server.close()
    captured = capsys.readouterr()
    assert code == 2
    assert captured.err.count("\n") == 1
    assert words in captured.err
    assert "300 events" in captured.out
    session = Session(tmp_path / "a.net").restore(state)
    np.testing.assert_array_equal(session.state.counts, expected(recording())[0])


DV_SENDER = """
    import sys, time
    import dv_processing as dv
    import numpy as np

    store = dv.EventStore()
    for x, y, t, p in np.load(sys.argv[1]).tolist():
        store.push_back(1_000_000 + t, x, y, p)
    writer = dv.io.NetworkWriter("127.0.0.1", int(sys.argv[2]), dv.io.Stream.EventStream(0, "events", "TEST", (4, 4)))
    print("ready", flush=True)
    while writer.getClientCount() == 0:
        time.sleep(0.01)
    writer.writeEvents(store)
    time.sleep(60)
"""


def test_aedat_4_over_tcp_until_its_sender_is_killed(tmp_path: Path) -> None:
    """What dv-processing sends is what is run; its death is one line."""
    pytest.importorskip("dv_processing")
    np.save(tmp_path / "one.npy", recording())
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-c", textwrap.dedent(DV_SENDER), str(tmp_path / "one.npy"), str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as sender:
        try:
            assert sender.stdout is not None
            assert sender.stdout.readline() == b"ready\n"
            stream = Stream(Session(network()), open_source(f"dv://127.0.0.1:{port}"))
            answers = (sender.kill() for _ in stream if stream.session.events == 300)
            with pytest.raises(StreamError, match="broke off; what came before was run"):
                list(answers)
        finally:
            sender.kill()
    np.testing.assert_array_equal(stream.session.state.counts, expected(recording())[0])


CAMERA = """
    import numpy as np


    class Batch:
        def numpy(self):
            recording = np.load({path!r})
            found = np.zeros(len(recording), [("timestamp", "i8"), ("x", "i2"), ("y", "i2"), ("polarity", "i1")])
            for into, name in (("timestamp", "t"), ("x", "x"), ("y", "y"), ("polarity", "p")):
                found[into] = recording[name]
            return found


    class Reader:
        batches = [Batch()]

        def getNextEventBatch(self):
            return self.batches.pop() if self.batches else None

        def isRunning(self):
            return False


    class io:
        class camera:
            @staticmethod
            def open(*serial):
                assert serial == ("DVX1",)
                return Reader()
"""


def test_a_camera_through_dv_processing_until_it_is_pulled_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a stand-in of the library: the events of the camera asked for are run; its end is one line."""
    np.save(tmp_path / "one.npy", recording())
    text = textwrap.dedent(CAMERA).format(path=str(tmp_path / "one.npy"))
    (tmp_path / "dv_processing.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    stream = Stream(Session(network()), open_source("camera://DVX1"))
    with pytest.raises(StreamError, match=r"^camera://DVX1: broke off; what came before was run"):
        list(stream)
    np.testing.assert_array_equal(stream.session.state.counts, expected(recording())[0])


@pytest.mark.slow  # asks this machine's USB
@pytest.mark.parametrize("serial", ["", "DVX1"])
def test_no_camera_is_one_line(serial: str) -> None:
    """Where dv-processing is there and no camera is."""
    pytest.importorskip("dv_processing")
    with pytest.raises(StreamError, match=rf"^camera://{serial}: no camera that dv-processing can open(, DVX1)?$"):
        next(open_source(f"camera://{serial}").packets)


@pytest.mark.slow
def test_no_aedat_4_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """dv-processing waits for ever on what is none; it is given up."""
    pytest.importorskip("dv_processing")
    server = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def send() -> None:
        connection, _ = server.accept()
        connection.sendall(np.random.default_rng(0).bytes(100_000))
        stop.wait()

    threading.Thread(target=send, daemon=True).start()
    with pytest.raises(StreamError, match="sends no AEDAT 4 that dv-processing can read"):
        next(open_source(f"dv://127.0.0.1:{server.getsockname()[1]}").packets)
    stop.set()


# ------------------------------------------------------------------------------------------------ keeping up


def test_ten_million_events_at_once_are_dropped_and_counted() -> None:
    """The newest stay, the rest is counted, and the session goes on."""
    many = np.zeros(10_000_000, EVENT_DTYPE)
    many["t"] = np.arange(len(many)) // 100
    stream = streamed([Packet(many), Packet(many[-5:])], waits=False, queue=Queue(1000))
    assert stream.report.events == 10_000_005
    assert stream.report.dropped + stream.report.run == 10_000_005
    assert stream.session.events == stream.report.run <= 1005


@settings(max_examples=50)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=12), st.integers(1, 20), st.sampled_from(["oldest", "thin"]))
def test_a_full_queue_keeps_as_many_as_it_may(sizes: list[int], room: int, policy: str) -> None:
    """Never more than the room; every event is kept or counted; oldest keeps the last ones, thin some of all."""
    queue, at = Queue(room, policy), 0
    for size in sizes:
        events = np.zeros(size, EVENT_DTYPE)
        events["t"] = np.arange(at, at + size)
        at += size
        queue.put(Packet(events, fresh=at == size))
        assert queue.waiting <= room
    queue.end()
    kept = [packet for _, packet in queue.take()]
    t = np.concatenate([packet.events["t"] for packet in kept])
    assert len(t) + queue.dropped == at
    assert (np.diff(t) > 0).all()
    assert kept[0].fresh
    if policy == "oldest":
        np.testing.assert_array_equal(t, np.arange(at)[-room:])
    elif at > room:
        assert len(t) == 0 or np.diff(np.concatenate([[-1], t, [at]])).max() <= 2 * max(at, 1)


def test_thinning_is_even() -> None:
    """Of 1,000 events that came at once every eighth stays."""
    queue = Queue(125, "thin")
    queue.put(Packet(recording(1000)))
    queue.end()
    np.testing.assert_array_equal(queue.take()[0][1].events, recording(1000)[::8])


def test_a_full_queue_can_be_an_error() -> None:
    """What waited is run, then one line says how to go on."""
    source = Source("test", iter([Packet(recording(50)), Packet(recording(200))]))
    stream = Stream(Session(network()), source, queue=Queue(100, "error"))
    with pytest.raises(StreamError, match=r"200 wait|250 wait"):
        list(stream)
    assert stream.session.events + stream.queue.dropped >= 50


def test_a_source_that_can_wait_loses_nothing() -> None:
    """Played as fast as possible, a recording waits for room."""
    packets = [Packet(recording(300)[at : at + 10]) for at in range(0, 300, 10)]
    stream = streamed(packets, queue=Queue(25))
    assert (stream.report.dropped, stream.report.run) == (0, 300)


def test_who_has_heard_enough_stops_the_source() -> None:
    """Leaving a stream ends its source, one that would go on for ever too."""
    source = Source("test", (Packet(recording(10)) for _ in iter(int, 1)), waits=True)
    readers = threading.active_count()
    for _ in Stream(Session(network()), source, queue=Queue(25)):
        break
    deadline = time.monotonic() + 20
    while threading.active_count() > readers and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= readers
    assert source.stop.is_set()


# ------------------------------------------------------------------------------------------------ clocks and sensors


def test_a_clock_that_jumps_back_goes_on() -> None:
    """Set back by more than a moment: time goes on from there, in one line; single late events are left out."""
    first, second = recording(100, most=2 * JUMP), recording(100, seed=5, most=2 * JUMP)
    late = recording(1)
    late["t"] = first["t"][-1] - 10
    lines: list[str] = []
    stream = streamed([Packet(first), Packet(late), Packet(second)], warn=lines.append)
    moved = second.copy()
    moved["t"] += first["t"][-1] - second["t"][0]
    np.testing.assert_array_equal(stream.session.state.counts, expected(np.concatenate([first, moved]))[0])
    assert (stream.report.late, stream.report.jumps) == (1, 1)
    assert len(lines) == 2
    assert "later than others" in "".join(lines)
    assert "set back by" in "".join(lines)


def test_a_clock_that_jumps_all_the_time_is_one_line() -> None:
    """However often it is set back, time goes on, the rest is counted, and it is said once."""
    events = recording(10_000)
    events["t"] = np.where(np.arange(10_000) % 2, 0, 3 * JUMP)
    lines: list[str] = []
    stream = streamed([Packet(events)], warn=lines.append)
    assert (stream.report.jumps, stream.report.run, len(lines)) == (5000, 10_000, 1)


def test_times_before_zero_and_since_1970() -> None:
    """Any clock will do: what counts is how it goes on."""
    for start in (-5000, 1_700_000_000_000_000):
        events = recording()
        events["t"] += start
        stream = streamed([Packet(events)])
        np.testing.assert_array_equal(stream.session.state.counts, expected(recording())[0])


def slow_downsample(events: np.ndarray, crop: tuple[int, int, int, int], every: int) -> list[tuple[int, ...]]:
    """Event by event: of so many of a pixel and polarity the last passes."""
    seen: dict[Any, int] = {}
    found = []
    for x, y, t, p in events.tolist():
        x, y = x - crop[0], y - crop[1]
        if not (0 <= x < crop[2] and 0 <= y < crop[3]):
            continue
        pixel = (p, y // every, x // every)
        seen[pixel] = seen.get(pixel, 0) + 1
        if seen[pixel] % every**2 == 0:
            found.append((t, int(p), y // every, x // every))
    return found


@settings(max_examples=30)
@given(st.integers(1, 3), st.integers(0, 2**32 - 1), st.integers(1, 200))
def test_larger_sensors_are_cut_and_made_smaller_by_events(every: int, seed: int, part: int) -> None:
    """Crop and downsample equal the plain reading, however events are cut; pool passes all; all are accounted for."""
    events, crop = recording(400, seed, size=16), (2, 1, 4 * every, 4 * every)
    fit, pool = Fit((2, 4, 4), crop, downsample=every), Fit((2, 4, 4), crop, pool=every)
    found: list[tuple[int, ...]] = []
    passed = 0
    for at in range(0, 400, part):
        got = fit(events[at : at + part])
        found += list(zip(*(got[name].tolist() for name in "tcyx"), strict=True))
        passed += len(pool(events[at : at + part])["t"])
    assert found == slow_downsample(events, crop, every)
    assert len(found) + fit.thinned + fit.outside == 400
    assert passed + pool.outside == 400
    assert pool.outside == fit.outside


def test_one_channel_and_flat_inputs() -> None:
    """Both polarities go into one channel; of a flat input columns are the features."""
    got = Fit((1, 4, 4))(recording())
    assert got["c"].max() == 0
    got = Fit((4,))(recording()[recording()["y"] == 0])
    assert set(got["c"]) == set(range(4))
    assert (got["x"].max(), got["y"].max()) == (0, 0)


# ------------------------------------------------------------------------------------------------ with a clock beside


def test_a_clock_beside_sees_the_window() -> None:
    """Its frames are the last microseconds in T parts; its answer is that of `fast` on them."""
    clocked = Clocked(network(), 4, 8000)
    events = recording()
    for at in range(0, 300, 7):
        clocked.push(Fit((2, 4, 4))(events[at : at + 7]))
    now = int(events["t"][-1])
    frames = np.zeros((1, 2, 4, 4, 4), int)
    for x, y, t, p in events.tolist():
        if now - t < 8000:
            frames[0, int(p), y, x, 3 - (now - t) // 2000] += 1
    np.testing.assert_array_equal(clocked.frames(), frames)
    np.testing.assert_array_equal(clocked.answer().readout, fast(network(), frames, progress=False).readout[0])
    assert clocked.synops() > 0
    with pytest.raises(NetworkError, match="reset by subtraction"):
        Clocked(network("subtract"), 4, 8000)


def test_latencies_in_a_histogram() -> None:
    """Percentiles are right within one per cent, whatever the number of answers; the worst is exact."""
    times = np.random.default_rng(0).lognormal(-7, 1, 5000)
    found = Latencies()
    for each in times:
        found.add(each)
    for percent in (50, 99):
        exact = float(np.sort(times)[int(np.ceil(5000 * percent / 100)) - 1])
        assert exact <= found.percentile(percent) <= 1.0101 * exact
    assert found.worst == times.max()


# ------------------------------------------------------------------------------------------------ the command


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Text and JSON say the same; a state is taken up where it was left; a clock answers beside."""
    netx.write(network(), tmp_path / "a.net")
    events, state = recording(), tmp_path / "state.npz"
    for name, part in (("one.npy", events[:100]), ("two.npy", events[100:])):
        np.save(tmp_path / name, part)
        arguments = ["stream", str(tmp_path / "a.net"), str(tmp_path / name), "--speed", "0", "--state", str(state)]
        assert main([*arguments, "--json"]) == 0
        got = json.loads(capsys.readouterr().out)
    assert got["answers"][-1]["readout"] == expected(events)[0].tolist()
    assert (got["run"], got["dropped"], got["latency"]["count"]) == (200, 0, 1)
    more = ["--window", "5000", "--clocked", "5", "--speed", "10", "--profile", "speck2e", "--changes"]
    assert main(["stream", str(tmp_path / "a.net"), str(tmp_path / "one.npy"), *more]) == 0
    out = capsys.readouterr().out
    assert re.search(r"with a clock, T = 5 over 5,000 us: \d+ of \d+ answers, one a time step", out)
    assert re.search(r"^t = [\d,]+ us: (silent|output \d|tied: .*)$", out, re.MULTILINE)
    assert "100 events" in out


def test_the_share_of_a_chip_is_known_or_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Throughput is a fact of the profile, or is not."""
    netx.write(network("subtract"), tmp_path / "a.net")
    np.save(tmp_path / "one.npy", recording())
    arguments = ["stream", str(tmp_path / "a.net"), str(tmp_path / "one.npy"), "--speed", "0", "--profile"]
    assert main([*arguments, "speck2e"]) == 0
    assert re.search(r"% of what speck2e's busiest core can do \(estimate, HW\)", capsys.readouterr().out)


def test_what_users_do_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line each, exit code 2."""
    net, one = str(tmp_path / "a.net"), str(tmp_path / "one.npy")
    netx.write(network(), net)
    np.save(one, recording())
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 cut off")
    refused(capsys, ["stream", "nosuch.net", one], "no such file")
    refused(capsys, ["stream", net, "nosuch.npy"], "no such recording or folder")
    refused(capsys, ["stream", net, str(tmp_path / "bad.npz")], "bad.npz", "not a whole .npz file")
    columns = {name: np.array([1, 0]) for name in ("sample", "t", "c", "y", "x")}
    flat = "flat arrays"
    for changed, words in (({}, "not in order"), ({"x": np.zeros(3)}, flat), ({"sample": np.array([0])}, flat)):
        np.savez(tmp_path / "wrong.npz", **(columns | changed))
        refused(capsys, ["stream", net, str(tmp_path / "wrong.npz")], "wrong.npz", words)
    refused(capsys, ["stream", net, "udp://127.0.0.1:1"], "there are tcp://HOST:PORT, dv://HOST:PORT and camera://")
    refused(capsys, ["stream", net, "tcp://here"], "give tcp://HOST:PORT")
    for speed in ("-1", "nan", "inf"):
        refused(capsys, ["stream", net, one, "--speed", speed], "give a speed from 0 on")
    refused(capsys, ["stream", net, one, "--crop", "1,2"], "column,row,columns,rows")
    refused(capsys, ["stream", net, one, "--clocked", "4"], "--clocked needs --window")
    refused(capsys, ["stream", net, one, "--pool", "2", "--downsample", "2"], "not allowed with")
    refused(capsys, ["stream", net, one, "--when-full", "newest"], "oldest")


# ------------------------------------------------------------------------------------------------ to look at


def playing(tmp_path: Path) -> tuple[Stream, Page]:
    """A stream of some seconds, with its page."""
    np.save(tmp_path / "one.npy", recording(2000, most=4_000_000))
    stream = Stream(Session(network()), open_source(str(tmp_path / "one.npy")))
    return stream, Page(stream)


def test_the_page_says_what_the_report_says(tmp_path: Path) -> None:
    """On loopback only; what it is told last is the end of the stream."""
    stream, page = playing(tmp_path)
    stream.source = open_source(str(tmp_path / "one.npy"), speed=4)
    told: list[dict[str, Any]] = []
    connected = threading.Event()

    def look() -> None:
        with urlopen(f"{page.address}/stream") as lines:
            connected.set()
            told.extend(json.loads(line[6:]) for line in lines if line.startswith(b"data: "))

    with urlopen(page.address) as answer:
        assert b"EventSource" in answer.read()
    thread = threading.Thread(target=look)
    thread.start()
    assert connected.wait(60)
    *_, last = stream
    page.end(last)
    thread.join()
    assert len(told) > 1
    assert [each["ended"] for each in told[-2:]] == [False, True]
    assert told[-1]["numbers"]["events"] == 2000
    assert told[-1]["readout"] == expected(recording(2000, most=4_000_000))[0].tolist()
    assert sum(sum(each["emitted"]) for each in told) <= stream.session.state.counts.sum()
    stream, page = playing(tmp_path)
    port = int(page.address.rpartition(":")[2])
    for path, headers, code in (("/nosuch", {}, 404), ("/", {"Host": f"evil.example:{port}"}, 403)):
        with pytest.raises(HTTPError) as error:
            urlopen(Request(page.address + path, headers=headers))
        assert error.value.code == code
        error.value.close()
    with socket.socket() as outside, pytest.raises(OSError):  # another address of this machine, where nothing listens
        outside.connect(("127.0.0.2", port))
    page.end(None)


def test_the_page_in_a_browser(tmp_path: Path) -> None:
    """Chromium shows events, output spikes, the answer and the end, and no error."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium here")
    stream, page = playing(tmp_path)
    with playwright.sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        view = browser.new_page()
        wrong: list[str] = []
        view.on("pageerror", lambda error: wrong.append(str(error)))
        view.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        view.goto(page.address)
        last: list[Any] = [None]

        def run() -> None:
            for last[0] in stream:
                pass
            page.end(last[0])

        thread = threading.Thread(target=run)
        thread.start()
        view.wait_for_function("document.getElementById('state').textContent == 'running'")
        painted = """id => { const c = document.getElementById(id), d = c.getContext('2d')
            .getImageData(0, 0, c.width, c.height).data; return d.some((v, i) => i % 4 < 3 ? v > 0 && v < 255 : 0) ||
            d.some((v, i) => i % 4 == 3 && v > 0) }"""
        view.wait_for_timeout(1500)
        assert view.evaluate(painted, "events")
        assert view.evaluate(painted, "spikes")
        picture = os.environ.get("MTT_SCREENSHOT")
        view.screenshot(path=picture or str(tmp_path / "page.png"))
        view.wait_for_function("document.getElementById('state').textContent == 'the stream has ended'")
        thread.join()
        assert view.text_content("#answer") == str(last[0].output)
        assert view.text_content("#numbers tr:first-child td:last-child") == "2000"
        assert wrong == []
        browser.close()


# ------------------------------------------------------------------------------------------------ measured


@pytest.fixture(scope="module")
def speck_runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Two runs for a chip without a clock, trained for a moment."""
    folder = tmp_path_factory.mktemp("runs")
    found = []
    for method in ("sdt", "mtt"):
        values = {"data": "digits-dvs", "profile": "speck2e", "epochs": 2, "samples": 100, "time_steps": 4}
        settings = Settings.make("nmnist-3c1fc", method=method, **values)
        found.append(train(settings, folder / method, progress=False))
    return found


def test_bench_realtime_says_how_right_answers_are_at_any_moment(
    speck_runs: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Curves end at what evaluation says of whole recordings, with a clock and without; nothing is lost in a stream."""
    monkeypatch.setattr(realtime, "SPEEDS", (25,))
    monkeypatch.setattr(realtime, "_TRIED", 0.1)
    dataset = subset(open_split(speck_runs[0].settings), range(40))
    found = realtime.realtime(speck_runs, dataset, tmp_path, [1, 4], 0.05, ["loihi1"], seconds=0.3, hours=0.01)
    for run, name in zip(speck_runs, ("SDT", "MTT"), strict=True):
        curves = {curve.time_steps: curve for curve in found.curves if curve.run == name}
        assert list(curves) == [None, 1, 4]
        for point in evaluate(run, [1, 4], dataset, event_driven=True):
            curve = curves[point.time_steps]
            assert curve.accuracy[-1] == pytest.approx(point.score.accuracy)
            assert curve.silent[-1] == pytest.approx(point.score.silent)
            assert curve.elapsed[-1] == dataset.duration
            assert len(curve.accuracy) == (point.time_steps or realtime.MOMENTS)
    for decision in found.decisions:
        assert decision.synops[0] <= decision.synops[1]
        assert decision.energy["speck2e"][0].value is None
        until, full = decision.energy["loihi1"]
        assert until.value is not None
        assert full.value is not None
        assert until.value <= full.value
    assert [pace.latency.count > 0 for pace in found.paces] == [True, True]
    assert (tmp_path / "realtime.png").stat().st_size > 10_000
    text = str(found)
    assert "energy until the answer unknown" in text
    assert "kept up to" in text
    assert json.loads(json.dumps(found.to_dict()))["hour"]["events"] > 0


@pytest.mark.slow
def test_an_hour_of_stream_is_flat_in_memory() -> None:
    """Accelerated: nothing is dropped, and what the process holds does not grow by more than two megabytes."""
    events = recording(40_000, most=3_000_000)
    found = realtime.an_hour(Session(network(), window=300_000), events)
    assert found["hours"] == pytest.approx(1, rel=0.01)
    assert found["events"] > 40_000_000
    assert found["after_mb"] - found["before_mb"] < 2
