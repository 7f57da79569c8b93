"""The event-driven simulator: what it computes, and what it refuses."""

from __future__ import annotations

import heapq
import json
import math
import re
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import graphs

import hw_profiles
from mtt_lava.cli import main
from netx_export import netx
from netx_export.event import session as event_session
from netx_export.event.backend import COLUMNS, Events, load_events, simulate
from netx_export.limits import Limits
from netx_export.network import (
    INPUT,
    Add,
    Conv,
    ConvT,
    Dense,
    Flatten,
    Layer,
    Network,
    NetworkError,
    Neuron,
    Pool,
    conv_shape,
)
from netx_export.simulation import simulate as clocked

SPECK = hw_profiles.load("speck2e").event_rules()

# ------------------------------------------------------------------------------------------------ reference


def fan_out(layer: Layer, weight: np.ndarray | None, c: int, y: int, x: int) -> list[tuple[tuple[int, ...], float]]:
    """Targets of an event in ascending (c, y, x), with the weight each gets: the definition of a convolution."""
    found = []
    if isinstance(layer, Dense):
        return [((f, 0, 0), weight[f, c]) for f in range(layer.shape[0])]
    pool = isinstance(layer, Pool)
    kernel = layer.kernel if pool else layer.weight.shape[2:]
    dilation, groups = ((1, 1), 1) if pool else (layer.dilation, layer.groups)
    for oc in range(layer.shape[0]):
        size, fan = layer.in_shape[0] // groups, layer.shape[0] // groups
        if (oc != c) if pool else (c // size != oc // fan):
            continue
        for oy in range(layer.shape[1]):
            for ox in range(layer.shape[2]):
                for i in range(kernel[0]):
                    for j in range(kernel[1]):
                        above, left = i * dilation[0] - layer.padding[0], j * dilation[1] - layer.padding[1]
                        # A transposed convolution is a convolution with input and output changed over.
                        (ay, ax), (by, bx) = ((y, x), (oy, ox)) if isinstance(layer, ConvT) else ((oy, ox), (y, x))
                        if (ay * layer.stride[0] + above, ax * layer.stride[1] + left) == (by, bx):
                            found.append(((oc, oy, ox), None if pool else weight[oc, c % size, i, j]))
    return found


class Slow:
    """Event by event, in plain Python: depth first (what one event causes runs to its end, then the next), or through
    one queue for all layers in order of time, where of events at the same time the first to come is the first served.

    A graph takes the queue, and of events at the same time serves those of the layer that stands before, then those of
    the input event that came before, then those of the input of a sum that is named before, then the first to come.
    """

    def __init__(
        self,
        network: Network,
        reset: str,
        refractory: int,
        latency: int,
        leak: float,
        bits: int,
        queue: bool = False,
        clamp: bool | None = None,
    ) -> None:
        self.clamp = reset == "subtract" if clamp is None else clamp
        self.queue: list[Any] | None = [] if queue else None
        self.sent = self.cause = 0
        self.graph = not network.is_chain
        self.layers = [layer for layer in network if not isinstance(layer, Flatten)]
        names = {INPUT: -1} | {layer.name: at for at, layer in enumerate(self.layers)}
        for layer in network:
            if isinstance(layer, Flatten):
                names[layer.name] = names[layer.inputs[0]]
        self.inputs = [[names[name] for name in layer.inputs] for layer in self.layers]
        self.reset, self.refractory, self.latency, self.leak, self.bits = reset, refractory, latency, leak, bits
        self.v: dict[Any, Any] = defaultdict(lambda: np.float32(0) if leak else 0)
        self.last: dict[Any, int] = defaultdict(int)
        self.ready: dict[Any, int] = defaultdict(lambda: -1)
        self.spikes, self.synops = [0] * len(self.layers), [0] * len(self.layers)
        self.v_max, self.saturations = [0] * len(self.layers), [0] * len(self.layers)
        self.out: list[tuple[int, int]] = []
        self.in_shape, self.shape = network.in_shape, network.shape

    def send(self, source: int, t: int, c: int, y: int, x: int) -> None:
        """What layer `source` (-1: the input) emits goes to all that it feeds, or out."""
        if source == len(self.layers) - 1:
            flat = c if len(self.shape) == 1 else int(np.ravel_multi_index((c, y, x), self.shape))
            self.out.append((t, flat))
        for at, inputs in enumerate(self.inputs):
            for number, name in enumerate(inputs):
                if name != source:
                    continue
                if self.queue is None:
                    self.event(at, number, t, c, y, x)
                    continue
                self.sent += 1
                first = (at, self.cause, number) if self.graph else ()
                heapq.heappush(self.queue, (t, *first, self.sent, self.cause, (at, number, t, c, y, x)))

    def drain(self) -> None:
        while self.queue:
            *_, self.cause, event = heapq.heappop(self.queue)
            self.event(*event)

    def event(self, at: int, number: int, t: int, c: int, y: int, x: int) -> None:
        layer = self.layers[at]
        source = self.inputs[at][number]
        before = self.in_shape if source < 0 else self.layers[source].shape
        if len(layer.in_shape) == 1 and len(before) == 3:
            c, y, x = int(np.ravel_multi_index((c, y, x), before)), 0, 0
        if isinstance(layer, Add):
            self.send(at, t, c, y, x)
            return
        targets = fan_out(layer, layer.weight, c, y, x)
        if isinstance(layer, Pool):
            for target, _ in targets:
                self.send(at, t, *target)
            return
        self.synops[at] += len(targets)
        for target, weight in targets:
            self.update(at, t, target, weight)

    def update(self, at: int, t: int, target: tuple[int, ...], weight: Any) -> None:
        key, neuron = (at, target), self.layers[at].neuron
        threshold = np.ravel(neuron.threshold)
        threshold = int(threshold[target[0] if threshold.size > 1 else 0])
        if t < self.ready[key]:
            return
        if self.leak:
            self.v[key] = np.float32(self.v[key] * np.exp(-(t - self.last[key]) / self.leak))
            self.last[key] = t
            self.v[key] = np.float32(self.v[key] + np.float32(weight))
        else:
            self.v[key] += int(weight)
        if self.clamp:
            self.v[key] = max(self.v[key], -threshold)
        self.v_max[at] = max(self.v_max[at], abs(self.v[key]))
        if self.bits == 16:
            self.saturations[at] += not -32768 <= self.v[key] <= 32767
            self.v[key] = min(max(self.v[key], -32768), 32767)
        fires = (lambda: self.v[key] > threshold) if self.reset == "zero" else (lambda: self.v[key] >= threshold)
        while fires():
            self.v[key] = 0 if self.reset == "zero" else self.v[key] - threshold
            self.spikes[at] += 1
            self.ready[key] = t + self.refractory
            self.send(at, t + self.latency, *target)
            if self.refractory:
                break


def slow(network: Network, events: Events, reset: str, **more: Any) -> tuple[Any, ...]:
    counts = np.zeros((events.n, math.prod(network.shape)), int)
    first = np.full(counts.shape, -1)
    spikes, synops, out = [], [], []
    v_max, saturations = [], []
    neurons = [i for i, x in enumerate(layer for layer in network if not isinstance(layer, Flatten)) if x.neuron]
    for n in range(events.n):
        run = Slow(network, reset, **more)
        for sample, t, c, y, x in zip(*(getattr(events, name).tolist() for name in COLUMNS), strict=True):
            if sample == n:
                run.send(-1, t, c, y, x)
                run.cause += 1
        run.drain()
        for t, flat in run.out:
            counts[n, flat] += 1
            first[n, flat] = t if first[n, flat] < 0 else first[n, flat]
        spikes.append([run.spikes[i] for i in neurons])
        synops.append([run.synops[i] for i in neurons])
        v_max.append([run.v_max[i] for i in neurons])
        saturations.append([run.saturations[i] for i in neurons])
        out += [(n, t, flat) for t, flat in run.out]
    limits = [np.max(v_max, axis=0, initial=0).tolist(), np.sum(saturations, axis=0).tolist()]
    return counts, first, spikes, synops, out, limits


# ------------------------------------------------------------------------------------------------ random networks


@st.composite
def cases(draw: Any) -> tuple[Network, Events]:
    """Chains of conv (all its options), pool, dense; several recordings, some empty, with ties in time."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    groups = draw(st.integers(1, 2))
    shape: tuple[int, ...] = (groups * draw(st.integers(1, 2)), draw(st.integers(1, 6)), draw(st.integers(1, 6)))
    first, layers = shape, []

    def neuron(size: int) -> Neuron:
        one = draw(st.booleans())
        return Neuron(int(rng.integers(1, 40)) if one else rng.integers(1, 40, size))

    for _ in range(draw(st.integers(0, 2))):
        if draw(st.booleans()):
            kernel = (min(2, shape[1]), min(2, shape[2]))
            stride = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
            out = conv_shape(shape, shape[0], kernel, stride)
            layers.append(Pool(in_shape=shape, shape=out, kernel=kernel, stride=stride))
            shape = out
        pairs = [(draw(st.integers(1, 2)), draw(st.integers(1, 2))) for _ in range(2)]
        padding = (draw(st.integers(0, 2)), draw(st.integers(0, 2)))
        kernel = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
        parts = groups if shape[0] % groups == 0 else 1
        channels = parts * draw(st.integers(1, 3))
        out = conv_shape(shape, channels, kernel, pairs[0], padding, pairs[1])
        if min(out) < 1:
            break
        weight = rng.integers(-20, 30, (channels, shape[0] // parts, *kernel))
        common = {"stride": pairs[0], "padding": padding, "dilation": pairs[1], "groups": parts}
        layers.append(Conv(in_shape=shape, shape=out, weight=weight, neuron=neuron(channels), **common))
        shape = out
    if not any(layer.neuron for layer in layers) or draw(st.booleans()):
        size = math.prod(shape)
        layers.append(Flatten(in_shape=shape, shape=(size,)))
        out_size = draw(st.integers(1, 5))
        weight = rng.integers(-20, 30, (out_size, size))
        layers.append(Dense(in_shape=(size,), shape=(out_size,), weight=weight, neuron=neuron(out_size)))
    samples, number = draw(st.integers(1, 3)), draw(st.integers(0, 60))
    sample, t = rng.integers(0, samples, number), rng.integers(0, 50, number)
    order = np.lexsort((t, sample))
    c, y, x = (rng.integers(0, size, number) for size in first)
    return Network(tuple(layers), source="random"), Events(sample[order], t[order], c, y, x, samples)


def compare(network: Network, events: Events, reset: str, more: dict[str, Any], **options: Any) -> None:
    expected = slow(network, events, reset, **more)
    got = simulate(network, events, reset=reset, record=("events", "spikes"), progress=False, **options)
    each = [counts.reshape(events.n, -1).sum(1) for counts in got.record.values()]
    np.testing.assert_array_equal(np.stack(each, axis=1), got.spikes_per_layer)
    if network.layers[-1].neuron is not None:
        np.testing.assert_array_equal(list(got.record.values())[-1].reshape(events.n, -1), got.counts)
    for one, other in zip(expected[:4], (got.counts, got.first_spike, got.spikes_per_layer, got.synops_per_layer)):  # noqa: B905
        np.testing.assert_array_equal(other, one)
    assert got.events is not None
    shape = network.shape if len(network.shape) == 3 else (network.shape[0], 1, 1)
    flat = np.ravel_multi_index((got.events.c, got.events.y, got.events.x), shape)
    assert list(zip(got.events.sample.tolist(), got.events.t.tolist(), flat.tolist(), strict=True)) == expected[4]
    assert len(got.limits) == len(network.spiking)
    for limits, v_max, saturations in zip(got.limits.values(), *expected[5], strict=True):
        assert (limits.u_max, limits.wraps, limits.saturations) == (None, 0, saturations)
        assert limits.v_max in (None, v_max)
        assert limits.v_max is not None or v_max <= 32767 or options.get("dtype") != "int16"
    assert bool(got.limits_text()) is any(expected[5][1])


@st.composite
def graph_cases(draw: Any) -> tuple[Network, Events]:
    """Graphs whose merges are of spikes; several recordings, some empty, with ties in time."""
    network = draw(graphs("spikes"))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    samples, number = draw(st.integers(1, 2)), draw(st.sampled_from((0, 5, 40, 100, 100)))
    sample, t = rng.integers(0, samples, number), rng.integers(0, 50, number)
    order = np.lexsort((t, sample))
    shape = network.in_shape if len(network.in_shape) == 3 else (*network.in_shape, 1, 1)
    c, y, x = (rng.integers(0, size, number) for size in shape)
    return network, Events(sample[order], t[order], c, y, x, samples)


PLAIN: dict[str, Any] = {"refractory": 0, "latency": 0, "leak": 0.0, "bits": 32}


@settings(max_examples=50)
@given(cases(), st.sampled_from(["zero", "subtract"]), st.sampled_from(["int32", "float32"]))
def test_counts_order_and_times_are_those_of_the_rules(case: Any, reset: str, dtype: str) -> None:
    """Spikes, synaptic operations, first spikes and the output events in order equal the plain reading of the rules."""
    compare(*case, reset, PLAIN, dtype=dtype)


@settings(max_examples=25)
@given(cases(), st.sampled_from(["zero", "subtract"]), st.integers(0, 20), st.integers(0, 20), st.booleans())
def test_refractory_time_and_latency(case: Any, reset: str, refractory: int, latency: int, queue: bool) -> None:
    """What comes within the refractory time is lost; what a layer emits leaves it `latency` later, as in a queue."""
    times = {"refractory": refractory, "latency": latency}
    compare(*case, reset, PLAIN | times | {"queue": queue}, **times)


@settings(max_examples=20)
@given(cases(), st.integers(0, 1000))
def test_another_order_of_events(case: Any, seed: int) -> None:
    """Of the first layer: the same events of each cause, in an order that the seed decides, one for all causes."""
    network, events = case
    first = next(i for i, layer in enumerate(network) if layer.neuron is not None)
    network = replace(network, layers=network.layers[: first + 1])
    events = replace(events, t=np.arange(len(events.t)))  # the time says the cause
    found = [simulate(network, events, order=order, record=["events"], progress=False) for order in (None, seed, seed)]
    np.testing.assert_array_equal(found[0].counts, found[1].counts)
    lists = [np.stack([getattr(one.events, name) for name in COLUMNS], 1) for one in found]
    np.testing.assert_array_equal(lists[1], lists[2])
    np.testing.assert_array_equal(np.sort(lists[1][:, :2], axis=0), np.sort(lists[0][:, :2], axis=0))
    assert sorted(map(tuple, lists[1].tolist())) == sorted(map(tuple, lists[0].tolist()))
    ahead: dict[tuple[Any, Any], None] = {}
    for _, same in groupby(map(tuple, lists[1].tolist()), key=lambda row: row[:2]):
        places = list(dict.fromkeys(row[2:] for row in same))
        for i, one in enumerate(places):
            for other in places[i + 1 :]:
                ahead[one, other] = None
                assert (other, one) not in ahead


@pytest.mark.parametrize("count", [30, pytest.param(100, marks=pytest.mark.slow)])
def test_graphs_in_order(count: int) -> None:
    """Where spikes merge, order is that of (time, index of the causing input event, number of the input)."""
    seen = Counter[str]()

    @settings(max_examples=count, deadline=None)
    @given(graph_cases(), st.sampled_from(["zero", "subtract"]), st.sampled_from([0, 0, 7]), st.sampled_from([0, 0, 9]))
    def run(case: Any, reset: str, latency: int, refractory: int) -> None:
        times = {"latency": latency, "refractory": refractory}
        compare(*case, reset, PLAIN | times | {"queue": True}, **times)
        result = simulate(*case, reset=reset, progress=False, **times)
        merged = any(isinstance(layer, Add) for layer in case[0])
        seen.update(graphs=1, merges=merged, deep=bool(result.spikes_per_layer[:, 2:].any()))

    run()
    assert seen["graphs"] >= count
    assert seen["merges"] > count // 3
    assert seen["deep"] > count // 10


def test_a_long_recording_of_a_graph_runs_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of events give what one chunk gives; with a latency nothing is cut, as late events meet early ones."""
    rng = np.random.default_rng(0)
    shape = (2, 4, 4)

    def conv(name: str, source: str) -> Conv:
        weight = rng.integers(-20, 30, (2, 2, 3, 3))
        return Conv(
            name=name, inputs=(source,), in_shape=shape, shape=shape, weight=weight, padding=(1, 1), neuron=Neuron(15)
        )

    layers = (
        conv("a", "input"),
        conv("b", "a"),
        Add(name="sum", inputs=("b", "a"), in_shape=shape, shape=shape),
        conv("c", "sum"),
    )
    network = Network(layers, reset="subtract")
    c, y, x = (rng.integers(0, size, 300) for size in shape)
    events = Events(np.zeros(300, int), np.sort(rng.integers(0, 400, 300)), c, y, x)
    for latency in (0, 30):
        whole = simulate(network, events, latency=latency, record=("events",), progress=False)
        with monkeypatch.context() as patch:
            patch.setattr(event_session, "CHUNK", 7)
            parts = simulate(network, events, latency=latency, record=("events",), progress=False)
        assert whole.events is not None
        assert parts.events is not None
        assert len(whole.events.t) > 50
        for column in COLUMNS:
            np.testing.assert_array_equal(getattr(whole.events, column), getattr(parts.events, column))


@settings(max_examples=25)
@given(cases(), st.sampled_from(["zero", "subtract"]), st.booleans())
def test_lower_clamp(case: Any, reset: str, clamp: bool) -> None:
    """v stays above the negative threshold, or falls as it may, with either reset."""
    compare(*case, reset, PLAIN | {"clamp": clamp}, clamp=clamp)


@settings(max_examples=50)
@given(cases(), st.sampled_from(["zero", "subtract"]), st.booleans(), st.sampled_from([0, 0, 5]))
def test_saturations_of_16_bits_are_counted(case: Any, reset: str, clamp: bool, refractory: int) -> None:
    """Where 16 bits are too few v stays at their ends; how often, and how far it would have gone, is counted."""
    network, events = case
    layers = [
        layer
        if layer.neuron is None
        else replace(layer, weight=layer.weight * 1000, neuron=Neuron(np.asarray(layer.neuron.threshold) * 800))
        for layer in network
    ]
    more = {"clamp": clamp, "bits": 16, "refractory": refractory}
    network = Network(tuple(layers))
    compare(network, events, reset, PLAIN | more, clamp=clamp, dtype="int16", refractory=refractory)


@settings(max_examples=25)
@given(cases(), st.sampled_from(["zero", "subtract"]), st.sampled_from([3.0, 40.0]))
def test_leak_between_events(case: Any, reset: str, time_constant: float) -> None:
    """v falls by exp(-elapsed / time constant) between a neuron's updates, in float32."""
    compare(*case, reset, PLAIN | {"leak": time_constant}, time_constant=time_constant)


def one(weight: int, threshold: int, inputs: int, **more: Any) -> Any:
    network = Network((Dense(in_shape=(1,), shape=(1,), weight=np.array([[weight]]), neuron=Neuron(threshold)),))
    zeros = np.zeros(inputs, int)
    return simulate(network, Events(zeros, np.arange(inputs), zeros, zeros, zeros), progress=False, **more)


def test_what_resets_do() -> None:
    """Zero: one spike where v > threshold. Subtract: as many as thresholds from v >= threshold on."""
    assert one(10, 10, 2).counts.item() == 1  # 10 is not above 10; 20 is, and is lost
    assert one(10, 10, 2, reset="subtract").counts.item() == 2
    assert one(25, 10, 1, reset="subtract").counts.item() == 2
    assert one(25, 10, 2, reset="subtract").counts.item() == 5
    assert one(10, 10, 2).first_spike.item() == 1


def test_clamp_of_subtract() -> None:
    """v stays at -threshold however much inhibition came; without a clamp it does not."""
    weight = np.array([[-100, 15]])
    network = Network((Dense(in_shape=(2,), shape=(1,), weight=weight, neuron=Neuron(10)),))
    c = np.array([0, 0, 1, 1])
    events = Events(0 * c, np.arange(4), c, 0 * c, 0 * c)
    assert simulate(network, events, reset="subtract", progress=False).counts.item() == 2
    assert simulate(network, events, reset="zero", progress=False).counts.item() == 0


def test_speck_has_16_bit_states() -> None:
    """With the profile, states saturate at 16 bits, a threshold beyond them is refused; its reset counts."""
    assert one(20, 10, 1, chip=SPECK).counts.item() == 2
    with pytest.raises(NetworkError, match="does not fit 16-bit states"):
        one(20, 40_000, 1, chip=SPECK)
    down = Network((Dense(in_shape=(1,), shape=(1,), weight=np.array([[-127]]), neuron=Neuron(10)),), readout="voltage")
    zeros = np.zeros(300, int)
    events = Events(zeros, zeros, zeros, zeros, zeros)
    saturated = simulate(down, events, chip=SPECK, reset="zero", progress=False)
    assert saturated.readout.item() == -32768
    # 258 times -127 is -32766; the next 42 events find it at the end, or past it.
    assert saturated.limits == {"dense1": Limits(None, 32768 + 127, 0, 42)}
    assert saturated.limits_text() == "v was beyond its bits and saturated: dense1 42 times, up to 32,895"
    assert simulate(down, events, progress=False).readout.item() == -127 * 300


def test_float_weights_before_quantisation() -> None:
    """Weights and thresholds can be replaced by what they were before rounding."""
    result = one(3, 1, 3, reset="subtract", weights=[np.array([[0.4]])], thresholds=[1.0])
    assert result.counts.item() == 1


@settings(max_examples=20)
@given(cases(), st.integers(1, 7))
def test_chunks_and_threads_change_nothing(case: Any, chunk: int) -> None:
    """However the events are cut into chunks, and on however many threads, results are the same."""
    network, events = case
    whole = simulate(network, events, reset="subtract", progress=False, threads=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_session, "CHUNK", chunk)
        cut = simulate(network, events, reset="subtract", progress=False, threads=3)
    for name in ("counts", "readout", "spikes_per_layer", "synops_per_layer", "first_spike"):
        np.testing.assert_array_equal(getattr(cut, name), getattr(whole, name))


# ------------------------------------------------------------------------------------------------ refusals


def small() -> Network:
    return Network((Dense(in_shape=(2,), shape=(1,), weight=np.array([[2, 4]]), neuron=Neuron(3)),))


def columns(**changed: Any) -> dict[str, np.ndarray]:
    zeros = np.zeros(3, int)
    return dict.fromkeys(COLUMNS, zeros) | {"t": np.array([0, 5, 5])} | changed


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"t": np.array([0, 5, 4])}, "not in order at event 2 .* sort by sample, then t"),
        ({"sample": np.array([1, 0, 0])}, "not in order at event 1"),
        ({"c": np.array([0, 2, 0])}, r"c is 2 at event 1; .* takes 0\.\.1"),
        ({"y": np.array([0, 0, 1])}, r"y is 1 at event 2; .* takes 0\.\.0"),
        ({"x": np.array([-1, 0, 0])}, "x is -1 at event 0"),
        ({"t": np.array([-1, 0, 0])}, "t is -1 at event 0"),
        ({"t": np.array([0.0, 1, 2])}, "t is float64"),
        ({"c": np.zeros(2, int)}, "c has 2 entries, sample has 3"),
        ({"samples": np.array(0)}, "sample is 0 at event 0"),
    ],
)
def test_bad_events_are_refused_in_one_line(tmp_path: Path, capsys: Any, changed: dict[str, Any], words: str) -> None:
    """Exit code 2, one line, and no output file."""
    netx.write(small(), tmp_path / "a.net")
    np.savez(tmp_path / "in.npz", **columns(**changed))
    arguments = [str(tmp_path / "a.net"), str(tmp_path / "in.npz"), "--output", str(tmp_path / "out.npz")]
    assert main(["simulate", *arguments, "--backend", "event"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(words, error)
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"no archive at all"])
def test_damaged_files_are_refused(tmp_path: Path, content: bytes) -> None:
    """Not a whole .npz file: one clear line."""
    path = tmp_path / "in.npz"
    path.write_bytes(content)
    with pytest.raises(NetworkError, match=r"in\.npz: "):
        load_events(path)


def test_missing_arrays_are_named(tmp_path: Path) -> None:
    """The first missing array, and what is needed."""
    np.savez(tmp_path / "in.npz", sample=np.zeros(1, int))
    with pytest.raises(NetworkError, match="has no array 't'"):
        load_events(tmp_path / "in.npz")


@pytest.mark.parametrize(
    ("neuron", "words"),
    [
        (Neuron(3, bias=np.array([1])), "train with --biases none"),
        (Neuron(3, current_decay=5), "needs a clock"),
        (Neuron(3, voltage_decay=5), "give a time_constant"),
        (Neuron(0), "spike for ever"),
    ],
)
def test_what_needs_a_clock_is_refused(neuron: Neuron, words: str) -> None:
    """Biases, decays per step, and a threshold of 0, each with its remedy."""
    layer = Dense(in_shape=(1,), shape=(1,), weight=np.array([[2]]), neuron=neuron)
    with pytest.raises(NetworkError, match=words):
        simulate(Network((layer,), reset="subtract"), Events(*[np.zeros(1, int)] * 5), progress=False)


def test_from_file_to_file(tmp_path: Path) -> None:
    """The command writes counts, first spikes, spikes and operations of every layer, and on demand the events."""
    netx.write(small(), tmp_path / "a.net")
    np.savez(tmp_path / "in.npz", **columns(c=np.array([0, 1, 1])), samples=2)
    arguments = [str(tmp_path / "a.net"), str(tmp_path / "in.npz"), "--output", str(tmp_path / "out.npz")]
    assert main(["simulate", *arguments, "--backend", "event", "--record", "events"]) == 0
    with np.load(tmp_path / "out.npz") as out:
        assert out["counts"].tolist() == [[2], [0]]
        assert out["first_spike"].tolist() == [[5], [-1]]
        assert out["spikes_per_layer"].tolist() == [[2], [0]]
        assert out["synops_per_layer"].tolist() == [[3], [0]]
        assert out["events.t"].tolist() == [5, 5]
        limits = {"u_max": None, "v_max": None, "wraps": 0, "saturations": 0}
        assert json.loads(out["limits"].item()) == {"dense1": limits}


def test_no_events_at_all() -> None:
    """An empty recording has an answer: nothing."""
    none = np.zeros(0, int)
    result = simulate(small(), Events(none, none, none, none, none, 2), progress=False)
    assert result.counts.tolist() == [[0], [0]]
    assert simulate(small(), Events(none, none, none, none, none), progress=False).counts.shape == (0, 1)


def test_networks_without_a_clock_are_written_and_read(tmp_path: Path) -> None:
    """Reset, bare pools and odd weights survive the file; Lava cannot run it, and says what can."""
    conv = Conv(in_shape=(1, 4, 4), shape=(2, 4, 4), weight=np.full((2, 1, 1, 1), 3), neuron=Neuron(5))
    network = Network((conv, Pool(in_shape=(2, 4, 4), shape=(2, 2, 2))), reset="subtract", readout="count")
    netx.write(network, tmp_path / "a.net")
    read = netx.read(tmp_path / "a.net")
    assert read.reset == "subtract"
    assert isinstance(read.layers[1], Pool)
    np.testing.assert_array_equal(read.layers[0].weight, conv.weight)
    for backend in ("fast", "lava"):
        with pytest.raises(NetworkError, match="give events to --backend event"):
            clocked(tmp_path / "a.net", np.zeros((1, 1, 4, 4, 2), int), backend=backend)
