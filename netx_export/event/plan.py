"""A network made ready to run event by event: what its neurons do, and tables for the compiled loops."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np

from netx_export.network import (
    DECAY_UNITY,
    INPUT,
    Add,
    Average,
    Dense,
    Flatten,
    Layer,
    Network,
    NetworkError,
    Neuron,
    Pool,
    Windowed,
    channels_fastest,
)
from netx_export.netx import read
from netx_export.text import short, unknown

LOWEST = -(1 << 30)
"""Where integer states without a clamp stay: no sum of 32 bits can then wrap."""
DTYPES = ("int32", "int16", "float32")


@dataclass(frozen=True)
class ChipRules:
    """What the neurons of a chip without a clock do; `hw_profiles.Profile.event_rules` says it of a profile.

    Parameters
    ----------
    name : str
        What to call it in messages.
    resets : tuple of str
        What a spike can do to v: ``"zero"``, ``"subtract"``; empty where that is not known.
    reset : str, optional
        What it does unless another is asked for.
    strict : bool, optional
        Whether a spike needs v > threshold, not v >= threshold.
    state_bits : int, optional
        Width of v.
    """

    name: str
    resets: tuple[str, ...] = ()
    reset: str | None = None
    strict: bool | None = None
    state_bits: int | None = None


@dataclass(frozen=True)
class _Rules:
    reset: str
    clamp: bool
    strict: bool
    dtype: str


def _any(value: float | Sequence[float]) -> bool:
    return bool(np.any(np.asarray(value) != 0))


def _rules(
    network: Network, reset: str | None, clamp: bool | None, chip: ChipRules | None, dtype: str | None, floats: bool
) -> _Rules:
    strict: bool | None = None
    if chip is not None:
        if not isinstance(chip, ChipRules):
            raise NetworkError(f"chip {short(chip)}: give ChipRules: hw_profiles.load(name).event_rules()")
        if reset is not None and chip.resets and reset not in chip.resets:
            raise NetworkError(f"reset {reset!r}: profile {chip.name} can reset by {', '.join(chip.resets)} only")
        reset, strict = reset or chip.reset, chip.strict
        if chip.state_bits == 16 and not floats:
            dtype = dtype or "int16"
    reset = reset or network.reset
    if reset not in ("zero", "subtract"):
        raise NetworkError(unknown("reset", reset, ("zero", "subtract")))
    dtype = dtype or ("float32" if floats else "int32")
    if dtype not in DTYPES:
        raise NetworkError(unknown("dtype", dtype, DTYPES))
    if floats and dtype != "float32":
        raise NetworkError(f"dtype {dtype!r}: float weights and leaks need float32 states")
    clamp = reset == "subtract" if clamp is None else clamp
    return _Rules(reset, clamp, (reset == "zero") if strict is None else strict and reset == "zero", dtype)


@dataclass(frozen=True, eq=False)
class _Plan:
    """A layer as the compiled loops take it.

    ``order`` turns the index of one of its events into one in (C, H, W), or (F,). ``inputs`` are the names of what has
    plans (flatten layers have none), each with what turns its index into that of this layer, where they differ.
    """

    layer: Layer
    inputs: tuple[tuple[str, np.ndarray | None], ...]
    order: np.ndarray
    tables: tuple[Any, ...]
    neurons: tuple[Any, ...] = ()
    room: int = 0
    counting: bool = False
    key: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    times: tuple[float, int, int] = (0.0, 0, 0)


def _plans(
    network: Network,
    rules: _Rules,
    weights: Sequence[np.ndarray] | None,
    thresholds: Sequence[float] | None,
    time_constant: float | Sequence[float],
    refractory: int,
    latency: int | Sequence[int],
) -> Iterator[_Plan]:
    spiking = network.spiking
    if not spiking:
        raise NetworkError(f"{network.source}: no layer has neurons, so there is nothing to run")
    each: dict[str, list[Any]] = {}
    for name, value in (
        ("weights", weights),
        ("thresholds", thresholds),
        ("time_constant", time_constant),
        ("latency", latency),
    ):
        alike = value is None or isinstance(value, int | float)
        each[name] = [value] * len(spiking) if alike else list(value)  # type: ignore[arg-type]
        if len(each[name]) != len(spiking):
            raise NetworkError(f"{name}: {len(each[name])} values for {len(spiking)} layers with neurons; give as many")
        if name in ("time_constant", "latency") and min(each[name]) < 0:
            raise NetworkError(f"{name} is {min(each[name])}; give microseconds from 0 on")
    if refractory < 0:
        raise NetworkError(f"refractory is {refractory}; give microseconds from 0 on")
    sources, number = {INPUT: (INPUT, channels_fastest(network.in_shape))}, 0
    for layer in network:
        fed = [sources[name] for name in layer.inputs]
        names, orders = tuple(name for name, _ in fed), [order for _, order in fed]
        if isinstance(layer, Flatten):
            sources[layer.name] = fed[0]  # events keep their index, and its order says which (C, H, W) it is
            continue
        if isinstance(layer, Pool | Average):
            reach, target = _windows(layer) if isinstance(layer, Pool) else _shares(layer, orders[0])
            room = int(np.diff(reach).max(initial=0))
            plan = _Plan(layer, ((names[0], None),), channels_fastest(layer.shape), (reach, target), room=room)
        elif isinstance(layer, Add) and layer.neuron is None:
            alike = all(np.array_equal(order, orders[0]) for order in orders)
            inputs = [(name, None if alike else order) for name, order in zip(names, orders, strict=True)]
            plan = _Plan(layer, tuple(inputs), orders[0] if alike else np.arange(math.prod(layer.shape)), ())
        else:
            values = {name: each[name][number] for name in each}
            number += layer.neuron is not None
            plan = _plan(network, layer, rules, names[0], orders[0], refractory, **values)
        sources[layer.name] = (layer.name, plan.order)
        yield plan


def _plan(
    network: Network,
    layer: Layer,
    rules: _Rules,
    source: str,
    order: np.ndarray,
    refractory: int,
    weights: np.ndarray | None,
    thresholds: float | None,
    time_constant: float,
    latency: int,
) -> _Plan:
    def refused(what: str) -> NetworkError:
        return NetworkError(f"{network.source}: layer {layer.name}: {what}")

    neuron = layer.neuron
    if neuron is not None and not isinstance(neuron, Neuron):
        raise refused(f"has {neuron.kind} neurons, which send values in time steps: use --backend fast")
    if isinstance(layer, Add):
        raise refused(
            "adds up currents, which chips without a clock do not: train it to add up spikes (neuron = false in the "
            "add, and neurons in what it adds)"
        )
    if not isinstance(layer, (Windowed, Dense)) or neuron is None or layer.weight is None:
        raise refused(f"a {layer.kind} layer{'' if neuron else ' without neurons'} has no event-driven form")
    if neuron.bias is not None and np.any(neuron.bias != 0):
        raise refused("has biases, and without a clock there is no step to add them in: train with --biases none")
    if isinstance(layer, Dense) and (layer.recurrent is not None or (layer.delay is not None and layer.delay.any())):
        raise refused("has recurrence or delays, which are counted in time steps: use --backend fast")
    if np.any(np.asarray(neuron.current_decay) != DECAY_UNITY):
        raise refused("its current decays from step to step, which needs a clock: use --backend fast, or decay 4096")
    if np.any(np.asarray(neuron.voltage_decay) != 0) and not time_constant:
        raise refused("its voltage decays a share each time step: give a time_constant in microseconds instead")
    if weights is not None and weights.shape != layer.weight.shape:
        raise refused(f"weights of shape {weights.shape} instead of {layer.weight.shape}")
    dtype = np.dtype(rules.dtype)
    weight = np.asarray(layer.weight if weights is None else weights)
    if dtype.kind == "i" and weight.size and np.abs(weight.astype(np.int64)).max() > np.iinfo(np.int16).max:
        raise refused(f"weight {np.abs(weight).max()} is more than 16 bits hold")
    if isinstance(layer, Windowed):
        tables = _window_tables(layer, weight.astype(dtype))
    else:
        rows = np.ascontiguousarray(weight.T[order]).astype(dtype)
        inputs, outputs = rows.shape
        one = np.ones(1, np.int32)
        tables = (inputs, np.array([0, 1], np.int32), 0 * one, 0 * one, outputs * one, np.zeros(inputs, np.int32))
        tables += (rows.ravel(), outputs)
    out_order = channels_fastest(layer.shape)
    threshold = np.asarray(neuron.threshold if thresholds is None else thresholds)
    if threshold.shape == layer.shape[:1] and len(layer.shape) == 3:
        threshold = threshold.reshape(-1, 1, 1)
    full = np.broadcast_to(threshold, layer.shape).ravel()[out_order]
    least = full.min()
    if rules.reset == "subtract" and least <= 0:
        raise refused(f"threshold {least} is not above 0: with reset 'subtract' it would spike for ever")
    never = np.iinfo(np.int32).max - 1 if dtype.kind == "i" else np.inf
    if network.readout == "voltage" and layer is network.spiking[-1]:
        full = np.full(full.shape, never)  # a voltage readout never spikes
    elif dtype == np.int16 and full.max() > np.iinfo(np.int16).max - 1:
        raise refused(f"threshold {full.max()} does not fit 16-bit states: use int32 states, or smaller weights")
    wide = np.dtype(np.int32) if dtype.kind == "i" else dtype
    full = full.astype(wide)
    limit = full
    if rules.strict:
        limit = full + 1 if dtype.kind == "i" else np.nextafter(full, np.float32(np.inf))
    high = {"int16": 32767, "int32": 1 << 30, "float32": np.inf}[rules.dtype]
    lowest = {"int16": -32768, "int32": LOWEST, "float32": -np.inf}[rules.dtype]
    silent = network.readout == "voltage" and layer is network.spiking[-1]
    clamped = rules.clamp and not silent
    low = -full if clamped else np.full(full.shape, lowest)
    uniform = bool((full == full[0]).all())
    largest = max(float(weight.max(initial=0)), 0.0)
    most = 1 if rules.reset == "zero" or refractory else int(2 + largest // max(float(least), 1e-9))
    room = min(most * int(max(tables[4].max(initial=0), 1)) * int(np.diff(tables[1]).max(initial=1)), 1 << 26)
    # Bits that no event can pass are not watched: it would take time.
    counting = dtype == np.int16 and (not clamped or refractory > 0 or int(limit.max()) - 1 + largest > high)
    neurons = (full, limit, low.astype(wide), wide.type(high), counting, clamped, uniform, rules.reset == "subtract")
    return _Plan(
        layer,
        ((source, None),),
        out_order,
        tables,
        neurons,
        room,
        counting,
        out_order.astype(np.int32),
        (float(time_constant), refractory, int(latency)),
    )


def _windows(layer: Pool) -> tuple[np.ndarray, np.ndarray]:
    """For every input index (H, W, C) of a pool, the outputs (H, W, C) that it belongs to: reach, target."""
    channels, columns = layer.shape[0], layer.shape[2]
    reach: list[int] = [0]
    target: list[int] = []
    for down, across in product(_reached(layer, 0), _reached(layer, 1)):
        pixels = [(r * columns + s) * channels for (r, _), (s, _) in product(down, across)]
        reach += [reach[-1] + (c + 1) * len(pixels) for c in range(channels)]
        target += [pixel + c for c in range(channels) for pixel in pixels]
    return np.array(reach, np.int32), np.array(target, np.int32)


def _shares(layer: Average, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same of an average: every input belongs to one output."""
    return np.arange(len(order) + 1, dtype=np.int32), (order // (len(order) // layer.shape[0])).astype(np.int32)


def _reached(layer: Windowed, axis: int) -> list[list[tuple[int, int]]]:
    """For every input along an axis the outputs that it reaches, ascending, and the tap that it meets there."""
    return [sorted((out, tap) for tap, out in enumerate(row) if out >= 0) for row in layer.taps(axis).tolist()]


def _window_tables(layer: Windowed, weight: np.ndarray) -> tuple[Any, ...]:
    """Where an event adds which weights.

    Weights lie as (in channel, kernel row, kernel column reversed, out channel of its group): with one group, outputs
    that are neighbours in a row often meet neighbours of the kernel, so that one slice has their weights.
    """
    channels, outputs, groups = layer.in_shape[0], layer.shape[0], layer.window.groups
    fan, size = outputs // groups, channels // groups
    kernel_rows, kernel_columns = weight.shape[2:]
    by_group = weight.reshape(groups, fan, size, kernel_rows, kernel_columns)
    laid = np.ascontiguousarray(by_group.transpose(0, 2, 3, 4, 1)[..., ::-1, :])
    across = [_runs(hits, groups == 1) for hits in _reached(layer, 1)]
    reach, target, kernel, length = [0], [], [], []
    for down, runs in product(_reached(layer, 0), across):
        for (r, i), (s, j, count) in product(down, runs):
            target.append((r * layer.shape[2] + s) * outputs)
            kernel.append((i * kernel_columns + (kernel_columns - 1 - j)) * fan)
            length.append(count * fan)
        reach.append(len(target))
    first = np.arange(channels, dtype=np.int32) // size * fan
    arrays = [np.array(a, np.int32) for a in (reach, target, kernel, length)]
    return (channels, *arrays, first, laid.ravel(), kernel_rows * kernel_columns * fan)


def _runs(hits: list[tuple[int, int]], joined: bool) -> list[tuple[int, int, int]]:
    """Output, tap, and how many outputs in a row meet one tap less each."""
    runs: list[tuple[int, int, int]] = []
    for out, tap in hits:
        start, first, count = runs[-1] if runs else (0, 0, 0)
        if joined and count and (out, tap) == (start + count, first - count):
            runs[-1] = start, first, count + 1
        else:
            runs.append((out, tap, 1))
    return runs


# ------------------------------------------------------------------------------------------------ for compiled loops

NEURONS, PASSES, SUMS = range(3)
"""Kinds of rows: neurons with weights; what only passes events on; sums of spikes."""
ROW = np.dtype(
    [(name, np.int64) for name in ("kind", "channels", "room", "reach", "target", "kernel", "length", "first")]
    + [(name, np.int64) for name in ("weight", "weights_a_channel", "neurons", "key", "feeds", "fed")]
    + [(name, np.int64) for name in ("counting", "clamped", "uniform", "subtract", "refractory", "latency")]
    + [("time_constant", np.float64)]
)
"""A layer: where its tables start in those of all layers, and what its neurons do."""


class Tables(NamedTuple):
    """All layers, as the compiled loops take them.

    ``ints`` holds tables of whole numbers, among them, from ``row.feeds`` on, ``row.fed`` pairs: the row that feeds
    this one (-1: the input), and where what turns the index of its events into one of this layer starts (-1: nothing).
    ``order`` turns the index of an output event into that of an output.
    """

    rows: np.ndarray
    ints: np.ndarray
    weight: np.ndarray
    threshold: np.ndarray
    limit: np.ndarray
    low: np.ndarray
    high: np.ndarray
    order: np.ndarray


def _tables(plans: Sequence[_Plan]) -> Tables:
    rows = np.zeros(len(plans), ROW)
    ints: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    bounds: list[tuple[np.ndarray, ...]] = []
    lengths = [0, 0, 0]
    numbers = {INPUT: -1} | {plan.layer.name: at for at, plan in enumerate(plans)}

    def held(table: np.ndarray) -> int:
        ints.append(table.astype(np.int32))
        lengths[0] += len(table)
        return lengths[0] - len(table)

    for row, plan in zip(rows, plans, strict=True):
        turns = [-1 if turn is None else held(turn) for _, turn in plan.inputs]
        pairs = [(numbers[name], turn) for (name, _), turn in zip(plan.inputs, turns, strict=True)]
        row["feeds"], row["fed"], row["room"] = held(np.array(pairs).ravel()), len(pairs), plan.room
        row["neurons"] = lengths[2]
        if not plan.neurons:
            row["kind"] = PASSES if plan.tables else SUMS
            for name, table in zip(("reach", "target"), plan.tables, strict=False):
                row[name] = held(table)
            continue
        row["channels"], *tables, weight, row["weights_a_channel"] = plan.tables
        for name, table in zip(("reach", "target", "kernel", "length", "first"), tables, strict=True):
            row[name] = held(table)
        row["key"], row["weight"] = held(plan.key), lengths[1]
        threshold, limit, low, high, *flags = plan.neurons
        for name, flag in zip(("counting", "clamped", "uniform", "subtract"), flags, strict=True):
            row[name] = flag
        row["time_constant"], row["refractory"], row["latency"] = plan.times
        weights.append(weight)
        bounds.append((threshold, limit, low))
        lengths[1] += len(weight)
        lengths[2] += len(threshold)
    threshold, limit, low = (np.concatenate(each) for each in zip(*bounds, strict=True))
    order = plans[-1].order.astype(np.int32)
    return Tables(rows, np.concatenate(ints), np.concatenate(weights), threshold, limit, low, np.array([high]), order)


class Program:
    """A network made ready to run event by event, once for any number of runs and sessions.

    Parameters
    ----------
    network, reset, clamp, chip, dtype, weights, thresholds, time_constant, refractory, latency, order
        As those of `netx_export.event.backend.simulate`.

    Attributes
    ----------
    network : Network
    in_shape : tuple of int
        Channels, rows and columns of its input; of a flat input F, 1, 1.
    dtype : str
        Of the states.
    plans : list of _Plan
        One a layer that is more than a change of shape.
    tables : Tables
    idle : queue.SimpleQueue
        Working memory of sessions that nobody uses now.
    """

    def __init__(
        self,
        network: Network | str | os.PathLike[str],
        *,
        reset: str | None = None,
        clamp: bool | None = None,
        chip: ChipRules | None = None,
        dtype: str | None = None,
        weights: Sequence[np.ndarray] | None = None,
        thresholds: Sequence[float] | None = None,
        time_constant: float | Sequence[float] = 0.0,
        refractory: int = 0,
        latency: int | Sequence[int] = 0,
        order: int | None = None,
    ) -> None:
        self.network = network if isinstance(network, Network) else read(network)
        self.in_shape = (*self.network.in_shape, 1, 1)[:3]
        rules = _rules(self.network, reset, clamp, chip, dtype, weights is not None or _any(time_constant))
        self.dtype = rules.dtype
        self.plans = list(_plans(self.network, rules, weights, thresholds, time_constant, refractory, latency))
        if order is not None:
            random = np.random.default_rng(order)
            self.plans = [replace(plan, key=random.permutation(plan.key)) for plan in self.plans]
        self.tables = _tables(self.plans)
        self.idle: SimpleQueue[Any] = SimpleQueue()

    @cached_property
    def whole(self) -> bool:
        """Whether a recording has to run in one piece: what is late could meet, at a sum, what is early of the next."""
        return not self.network.is_chain and bool(self.tables.rows["latency"].any())

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that decides what the network answers: weights, thresholds, tables, rules."""
        about = (self.dtype, self.network.readout, self.network.in_shape, self.network.shape)
        found = hashlib.sha256(repr(about).encode())
        for table in self.tables:
            found.update(f"{table.dtype.str} {table.shape}".encode())
            found.update(table.tobytes())
        return found.hexdigest()
