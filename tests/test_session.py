"""Sessions: answers while events arrive are those of one run, whatever the portions; states are kept and saved."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_event import cases, graph_cases

import hw_profiles
from netx_export import NetworkError, netx
from netx_export.event import Events, Program, Session
from netx_export.event import session as sessions
from netx_export.event.backend import EventSimulation, simulate
from netx_export.network import INPUT, Add, Conv, Dense, Flatten, Network, Neuron, Pool, conv_shape

NMNIST = Path(__file__).parents[1].parent / "shared" / "data" / "nmnist_small"
COLUMNS = ("t", "c", "y", "x")


def parts_of(events: Events, sample: int, rng: np.random.Generator, largest: int) -> list[dict[str, np.ndarray]]:
    """The events of a recording in portions of random sizes, some of them empty."""
    mine = {name: getattr(events, name)[events.sample == sample] for name in COLUMNS}
    count, parts, at = len(mine["t"]), [], 0
    while at < count:
        stop = at + int(rng.integers(0, largest, endpoint=True))
        parts.append({name: column[at:stop] for name, column in mine.items()})
        at = stop
    return parts


def same(session: Session, result: EventSimulation, sample: int, out: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Whether a session ends as a run over all events did, in every bit."""
    np.testing.assert_array_equal(session.state.counts, result.counts[sample])
    np.testing.assert_array_equal(session.state.first, result.first_spike[sample])
    np.testing.assert_array_equal(session.answer().readout, result.readout[sample])
    np.testing.assert_array_equal(session.tally[:, 0], result.spikes_per_layer[sample])
    np.testing.assert_array_equal(session.tally[:, 1], result.synops_per_layer[sample])
    assert result.events is not None
    mine = np.asarray(result.events.sample) == sample
    np.testing.assert_array_equal(np.concatenate([t for t, _ in out] or [[]]), result.events.t[mine])
    shape = (*session.program.network.shape, 1, 1)[:3]
    flat = np.ravel_multi_index((result.events.c[mine], result.events.y[mine], result.events.x[mine]), shape)
    np.testing.assert_array_equal(np.concatenate([o for _, o in out] or [[]]), flat)
    spikes = [counts[sample].sum() for counts in result.record.values()]
    np.testing.assert_array_equal(spikes, session.tally[:, 0])
    assert session.state.spikes.sum() == session.tally[:, 0].sum()


OPTIONS: Any = st.fixed_dictionaries(
    {
        "reset": st.sampled_from(["zero", "subtract"]),
        "dtype": st.sampled_from(["int32", "int16", "float32"]),
        "refractory": st.sampled_from([0, 0, 9]),
        "latency": st.sampled_from([0, 0, 7]),
        "time_constant": st.sampled_from([0.0, 0.0, 30.0]),
    }
)


@pytest.mark.parametrize("count", [30, pytest.param(200, marks=pytest.mark.slow)])
def test_portions_change_nothing(count: int) -> None:
    """However a recording is cut, on chains and graphs with sums, with any rules: every bit is that of one run."""
    seen = Counter[str]()

    @settings(max_examples=count)
    @given(st.one_of(cases(), graph_cases()), OPTIONS, st.booleans(), st.integers(0, 2**32 - 1))
    def run(case: Any, options: dict[str, Any], voltage: bool, seed: int) -> None:
        network, events = case
        sums = not network.is_chain
        options = options | ({"latency": 0} if sums else {})
        options |= {"dtype": "float32"} if options["time_constant"] else {}
        if voltage and network.layers[-1].neuron is not None:
            network = replace(network, readout="voltage")
        whole = simulate(network, events, record=("events", "spikes"), progress=False, **options)
        session, rng = Session(network, record=("events", "spikes"), **options), np.random.default_rng(seed)
        for sample in range(events.n):
            session.reset()
            out, emitted = [], 0
            for part in parts_of(events, sample, rng, int(rng.integers(1, 20))):
                emitted += session.push(part)
                out.append(session.take())
                session.answer()
            same(session, whole, sample, out)
            assert emitted == whole.counts[sample].sum()
        seen.update(cases=1, sums=sums, spiking=bool(whole.counts.any()))

    run()
    assert seen["sums"] > count // 20
    assert seen["spiking"] > count // 10


def nmnist_network() -> Network:
    """Two convolutions, pools and a readout for N-MNIST's sensor, random weights; every layer passes events on."""
    rng = np.random.default_rng(0)

    def conv(shape: tuple[int, ...], channels: int, stride: int, threshold: int) -> Conv:
        out = conv_shape(shape, channels, (3, 3), (stride, stride), (1, 1))
        weight = rng.integers(-20, 21, (channels, shape[0], 3, 3))
        return Conv(
            in_shape=shape, shape=out, weight=weight, stride=(stride, stride), padding=(1, 1), neuron=Neuron(threshold)
        )

    def pool(shape: tuple[int, ...]) -> Pool:
        out = conv_shape(shape, shape[0], (2, 2), (2, 2))
        return Pool(in_shape=shape, shape=out, kernel=(2, 2), stride=(2, 2))

    first, second = conv((2, 34, 34), 8, 2, 20), conv((8, 8, 8), 16, 1, 40)
    flat = Flatten(in_shape=(16, 4, 4), shape=(256,))
    last = Dense(in_shape=(256,), shape=(10,), weight=rng.integers(-20, 21, (10, 256)), neuron=Neuron(60))
    return Network((first, pool(first.shape), second, pool(second.shape), flat, last), reset="subtract")


@pytest.mark.skipif(not NMNIST.is_dir(), reason="shared/data/nmnist_small is not here")
def test_portions_of_all_test_digits_of_nmnist() -> None:
    """One hundred recorded digits, cut at random and many sessions in turn, answer as one run over each does."""
    from mtt_lava.data import open_dataset
    from mtt_lava.evaluation import to_events

    dataset = open_dataset("nmnist", split="test", root=NMNIST)
    events = to_events(dataset)
    program = Program(nmnist_network())
    whole = simulate(program.network, events, record=("events", "spikes"), progress=False)
    assert (whole.counts.sum(1) > 0).mean() > 0.9
    rng = np.random.default_rng(0)
    many = [Session(program, record=("events", "spikes")) for _ in range(len(dataset))]
    parts = [parts_of(events, sample, rng, 400) for sample in range(len(dataset))]
    out: list[list[Any]] = [[] for _ in many]
    for turn in range(max(map(len, parts))):
        for sample, session in enumerate(many):
            if turn < len(parts[sample]):
                session.push(parts[sample][turn])
                out[sample].append(session.take())
    for sample, session in enumerate(many):
        same(session, whole, sample, out[sample])


def test_many_events_in_one_push_are_as_many_pushes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A push that is larger than what a layer is given at a time runs in parts; a wrong event at its end runs none."""
    rng = np.random.default_rng(1)
    network = nmnist_network()
    events = {"t": np.sort(rng.integers(0, 9000, 3000)), "p": rng.integers(0, 2, 3000) > 0}
    events |= {name: rng.integers(0, 34, 3000) for name in "yx"}
    monkeypatch.setattr(sessions, "CHUNK", 256)
    one, many = Session(network), Session(network)
    one.push(events)
    for at in range(3000):
        many.push({name: column[at : at + 1] for name, column in events.items()})
    for name, value in one.state._asdict().items():
        np.testing.assert_array_equal(value, getattr(many.state, name), name)
    before = one.state.v.copy()
    wrong = {name: column + (9000 if name == "t" else 0) for name, column in events.items()}
    wrong["x"] = np.append(wrong["x"][:-1], 34)
    with pytest.raises(NetworkError, match=r"^events: x is 34 at event 2999; .* takes 0\.\.33$"):
        one.push(wrong)
    np.testing.assert_array_equal(one.state.v, before)
    assert (one.events, one.t) == (3000, int(events["t"][-1]))


def test_an_answer_says_silent_and_tied() -> None:
    """Silence and ties are no answer."""
    weight = np.array([[3, 0], [3, 1]])
    session = Session(Network((Dense(in_shape=(2,), shape=(2,), weight=weight, neuron=Neuron(3)),), reset="subtract"))
    answer = session.answer()
    assert (answer.t, answer.output, answer.silent, answer.tied, answer.winners) == (-1, None, True, False, ())
    session.push({"t": np.array([5]), "c": np.array([0])})
    answer = session.answer()
    assert (answer.output, answer.silent, answer.winners, answer.margin) == (None, False, (0, 1), 0)
    session.push({"t": np.array([6, 7, 8]), "c": np.array([1, 1, 1])})
    assert (session.answer().output, session.answer().margin, str(session.answer())) == (1, 1, "t = 8 us: output 1")


def outputs_of(result: EventSimulation) -> tuple[np.ndarray, np.ndarray]:
    assert result.events is not None
    return np.asarray(result.events.t), np.asarray(result.events.c)


def classifier(rng: np.random.Generator) -> tuple[Network, Events]:
    """A dense layer of three outputs, and 400 events of a flat input in 4 ms."""
    weight = rng.integers(-3, 9, (3, 5))
    network = Network((Dense(in_shape=(5,), shape=(3,), weight=weight, neuron=Neuron(10)),), reset="subtract")
    t = np.sort(rng.integers(0, 4000, 400))
    zeros = np.zeros(400, np.int64)
    return network, Events(zeros, t, rng.integers(0, 5, 400), zeros, zeros)


@pytest.mark.parametrize("window", [1, 50, 700, 10_000])
def test_a_window_counts_exactly_its_output_events(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every moment: output events of one run over all so far, with a time in (t - window, t]; memory is bounded."""
    monkeypatch.setattr(sessions, "LOG", 4)
    network, events = classifier(np.random.default_rng(2))
    t, outputs = outputs_of(simulate(network, events, record=("events",), progress=False))
    session, emitted = Session(network, window=window), 0
    for part in parts_of(events, 0, np.random.default_rng(3), 30):
        emitted += session.push(part)
        for now in (session.t, session.t + 20):
            got = session.answer(now)
            counted = outputs[:emitted][t[:emitted] > now - window]
            np.testing.assert_array_equal(got.readout, np.bincount(counted, minlength=3))
            assert got.t == now
    np.testing.assert_array_equal(session.readout(), np.bincount(outputs, minlength=3))
    most = max(int(((t > now - window) & (t <= now)).sum()) for now in t)
    assert len(session.state.log_t) <= max(4, 4 * most)


def test_fading_counts_do_not_depend_on_portions() -> None:
    """Each output event counts exp(-age / fade): alike in every bit however events are cut, right within rounding."""
    network, events = classifier(np.random.default_rng(4))
    t, outputs = outputs_of(simulate(network, events, record=("events",), progress=False))
    one, many = Session(network, fade=300.0), Session(network, fade=300.0)
    one.push(events)
    for part in parts_of(events, 0, np.random.default_rng(5), 7):
        many.push(part)
        many.answer()
    for at in (one.t, one.t + 1000):
        np.testing.assert_array_equal(one.answer(at).readout, many.answer(at).readout)
        expected = [np.exp(-(at - t[outputs == output]) / 300.0).sum() for output in range(3)]
        np.testing.assert_allclose(one.answer(at).readout, expected, rtol=1e-12)
    whole = Session(one.program, fade=300)  # compiled for a float
    whole.push(events)
    np.testing.assert_array_equal(whole.answer().readout, one.answer().readout)


def test_many_sessions_on_threads_share_a_network() -> None:
    """A hundred sessions, made at once and run by four threads in turns, answer as each alone would."""
    network, events = classifier(np.random.default_rng(6))
    program = Program(network)
    whole = simulate(network, events, progress=False)
    many = [Session(program) for _ in range(100)]
    parts = parts_of(events, 0, np.random.default_rng(7), 9)

    def run(some: list[Session]) -> None:
        for part in parts:
            for session in some:
                session.push(part)

    threads = [threading.Thread(target=run, args=(many[start::4],)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for session in many:
        np.testing.assert_array_equal(session.state.counts, whole.counts[0])
    assert sum(array.nbytes for array in many[0].state) < 1000


# ------------------------------------------------------------------------------------------------ states on disk


SAVER = """
    import sys, time
    import numpy as np
    from netx_export.event import Session
    from netx_export.event.events import load_events

    network, events, state = sys.argv[1:]
    session, events = Session(network, dtype="int16", record=("events",)), load_events(events)
    half = len(events.t) // 2
    for at in range(half):
        some = slice(at, at + 1)
        session.push({name: getattr(events, name)[some] for name in ("t", "c", "y", "x")})
        if at % 50 == 49 or at == half - 1:
            session.save(state)
    print("saved", flush=True)
    while True:  # saves again and again until it is killed, most likely while it writes
        session.save(state)
"""


def test_a_state_survives_the_death_of_its_process(tmp_path: Path) -> None:
    """Saved, killed in the middle of saving again, restored in another process: the end is that of one run."""
    network, events = classifier(np.random.default_rng(8))
    netx.write(network, tmp_path / "a.net")
    np.savez(tmp_path / "events.npz", **{name: getattr(events, name) for name in ("sample", *COLUMNS)})
    arguments = [str(tmp_path / name) for name in ("a.net", "events.npz", "state.npz")]
    command = [sys.executable, "-c", textwrap.dedent(SAVER), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"saved\n"
        os.kill(child.pid, signal.SIGKILL)
    session = Session(tmp_path / "a.net", dtype="int16", record=("events",)).restore(tmp_path / "state.npz")
    half = len(events.t) // 2
    assert session.events == half
    session.push({name: getattr(events, name)[half:] for name in COLUMNS})
    whole = simulate(tmp_path / "a.net", events, dtype="int16", record=("events",), progress=False)
    np.testing.assert_array_equal(session.state.counts, whole.counts[0])
    for one, other in zip(session.take(), outputs_of(whole), strict=True):
        np.testing.assert_array_equal(one, other)


@settings(max_examples=25)
@given(st.one_of(cases(), graph_cases()), OPTIONS, st.sampled_from([{}, {"window": 9}, {"fade": 5.0}]), st.data())
def test_what_is_restored_goes_on_as_what_was_saved(case: Any, options: Any, forget: Any, data: Any) -> None:
    """Any state, of any session, is taken up in every bit, by a session made alike."""
    network, events = case
    network, events = replace(network, readout="count"), replace(events, sample=0 * events.sample, samples=1)
    events = replace(events, t=np.sort(events.t))
    options = options | ({} if network.is_chain else {"latency": 0})
    options |= {"dtype": "float32"} if options["time_constant"] else {}
    first = Session(network, **forget, **options)
    parts = parts_of(events, 0, np.random.default_rng(9), 10)
    middle = data.draw(st.integers(0, len(parts)))
    for part in parts[:middle]:
        first.push(part)
    path = Path("state.npz").absolute()
    try:
        first.save(path)
        second = Session(network, **forget, **options).restore(path)
    finally:
        path.unlink(missing_ok=True)
    for part in parts[middle:]:
        first.push(part)
        second.push(part)
    np.testing.assert_array_equal(first.answer().readout, second.answer().readout)
    assert (first.t, first.events) == (second.t, second.events)
    end = int(first.state.marks[0])
    for name, value in first.state._asdict().items():
        cut = slice(None, end) if name.startswith("log_") else slice(None)
        np.testing.assert_array_equal(value[cut], getattr(second.state, name)[cut], name)


def test_states_of_others_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    """Another network, other options, a cut file, arrays that do not fit, neurons that would spike without end."""
    network, events = classifier(np.random.default_rng(10))
    path = tmp_path / "state.npz"
    session = Session(network, window=50)
    session.push(events)
    session.save(path)
    layer = network.layers[0]
    assert isinstance(layer, Dense)
    assert layer.weight is not None
    other = replace(network, layers=(replace(layer, weight=layer.weight + 1),))
    content = path.read_bytes()
    stored = dict(np.load(path))

    def refused(session: Session, words: str) -> None:
        before = {name: value.copy() for name, value in session.state._asdict().items()}
        with pytest.raises(NetworkError) as error:
            session.restore(path)
        assert words in str(error.value)
        assert str(path) in str(error.value)
        for name, value in session.state._asdict().items():
            np.testing.assert_array_equal(value, before[name])

    refused(Session(other, window=50), "another network")
    refused(Session(network, reset="zero", window=50), "another network, or of other rules")
    refused(Session(network, window=51), "other options (window")
    for name, value in (
        ("v", stored["v"][:-1]),
        ("v", stored["v"].astype(np.float32)),
        ("v", stored["v"] + 1_000_000),
        ("log_output", stored["log_output"] + 3),
        ("log_t", stored["log_t"][::-1]),
        ("marks", np.array([len(stored["log_t"]) - 1, 0, 0])),
        ("clock", np.array([1 << 62, 3])),
    ):
        np.savez(path, **(stored | {name: value}))
        refused(Session(network, window=50), "no whole state")
    np.savez(path, **{name: value for name, value in stored.items() if name != "v"})
    refused(Session(network, window=50), "holds no state of a session")
    path.write_bytes(content[: len(content) // 2])
    refused(Session(network, window=50), "not a whole .npz file")
    path.write_bytes(content)
    assert Session(network, window=50).restore(path).events == 400


# ------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"t": np.array([3, 2])}, "not in order at event 1"),
        ({"t": np.array([-1, 2])}, "t is -1 at event 0"),
        ({"t": np.array([0, 2**63], np.uint64)}, "t is 9223372036854775808 at event 1"),
        ({"x": np.array([0, 34])}, "x is 34 at event 1"),
        ({"c": np.array([0.0, 1.0])}, "c is float64"),
        ({"y": np.array([0])}, "y has 1 entries, t has 2"),
        ({"t": np.zeros((2, 1), int)}, "shape (2, 1)"),
    ],
)
def test_bad_events_leave_a_session_as_it_was(changed: dict[str, Any], words: str) -> None:
    """One line says what is wrong; no event ran."""
    session = Session(nmnist_network())
    good = {"t": np.array([1, 2]), "c": np.array([0, 0]), "y": np.array([0, 1]), "x": np.array([1, 0])}
    with pytest.raises(NetworkError) as error:
        session.push(good | changed)
    assert words in str(error.value)
    assert (session.t, session.events, session.tally.sum()) == (-1, 0, 0)
    session.push(good)
    with pytest.raises(NetworkError, match="t is 1 at event 0, and t 2 was pushed already"):
        session.push(good)
    assert session.events == 2
    with pytest.raises(NetworkError, match="give a later time"):
        session.answer(1)


def test_options_that_cannot_be() -> None:
    """What a session cannot do is said when it is made."""
    network, _ = classifier(np.random.default_rng(0))
    program = Program(network)
    chip = hw_profiles.load("speck2e").event_rules()
    assert Session(network, chip).program.dtype == "int16"
    for make, words in (
        (lambda: Session(network, window=0), "window is 0"),
        (lambda: Session(network, window=3, fade=3.0), "two ways to forget"),
        (lambda: Session(replace(network, readout="voltage"), window=3), "reads out voltages"),
        (lambda: Session(network, record=("u",)), "record 'u' is unknown"),
        (lambda: Session(program, reset="zero"), "reset: that is settled by the program"),
        (lambda: Session(network).take(), "output events were not kept"),
        (lambda: Session(network).push(3), "give netx_export.event.Events"),
    ):
        with pytest.raises(NetworkError, match=words):
            make()


def test_sums_with_latencies_take_all_events_at_once() -> None:
    """There, what is late could meet what is early of the next portion: a second push is refused, until a reset."""

    def dense(name: str, source: str) -> Dense:
        weight = 3 * np.eye(2, dtype=int)
        return Dense(name=name, inputs=(source,), in_shape=(2,), shape=(2,), weight=weight, neuron=Neuron(3))

    add = Add(name="sum", inputs=("a", INPUT), in_shape=(2,), shape=(2,))
    network = Network((dense("a", INPUT), add, dense("b", "sum")), reset="subtract")
    session = Session(network, latency=5)
    events = {"t": np.array([1, 2]), "c": np.array([0, 1])}
    assert session.push(events) == 4
    with pytest.raises(NetworkError, match="push all events at once"):
        session.push({"t": np.array([3]), "c": np.array([0])})
    session.reset()
    assert session.push(events) == 4
