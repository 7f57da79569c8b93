"""Compiled loops of the event-driven simulator `netx_export.event.backend`.

Neurons are ordered (H, W, C), channels fastest, so that what one event adds lies in few contiguous slices. An event is
the index of a neuron and a time; a layer turns the ordered events of the layer before it into its own.

`run_chain` and `run_graph` run events through all layers. They go on where they stopped: when what they write into is
full, they return, and the caller makes room. `tables` are a `netx_export.event.plan.Tables`, `state` and `buffers` a
`State` and `Buffers` of `netx_export.event.session`.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import overload

from netx_export.compiled import compiled
from netx_export.event.events import LATEST
from netx_export.event.plan import PASSES, SUMS


def _add(a, b):  # type: ignore[no-untyped-def]
    """a + b in no more bits than needed: Numba would go to 64, which fill a vector register four times as fast."""
    return a + b


@overload(_add, inline="always")
def _add_typed(a, b):  # type: ignore[no-untyped-def]
    if isinstance(a, types.Float):
        return lambda a, b: a + b
    return lambda a, b: np.int32(a + b)


def _leaked(x, elapsed, time_constant):  # type: ignore[no-untyped-def]
    """Exponential leak; states that are integers have none."""
    return x * np.exp(-elapsed / time_constant)


@overload(_leaked)
def _leaked_typed(x, elapsed, time_constant):  # type: ignore[no-untyped-def]
    if isinstance(x, types.Float):
        return lambda x, elapsed, time_constant: np.float32(x * np.exp(-elapsed / time_constant))
    return lambda x, elapsed, time_constant: x


@compiled
def pass_on(where, t, cause, begin, count, room, reach, target, out_where, out_t, out_cause):  # type: ignore[no-untyped-def]
    """Events of a layer without neurons: one for every output that an input belongs to; else as `run_layer`."""
    total, position = 0, begin
    while position < count and total + room <= len(out_where):
        e = position
        position += 1
        for j in range(reach[where[e]], reach[where[e] + 1]):
            out_where[total], out_t[total] = target[j], t[e]
            if out_cause is not None:
                out_cause[total] = cause[e]
            total += 1
    return position, total


@compiled
def run_layer(  # type: ignore[no-untyped-def]
    where,
    t,
    cause,
    begin,
    count,
    room,
    channels,
    reach,
    target,
    kernel,
    length,
    first,
    weight,
    weights_a_channel,
    v,
    threshold,
    limit,
    low,
    high,
    counting,
    clamped,
    uniform,
    subtract,
    key,
    last,
    ready,
    time_constant,
    refractory,
    latency,
    hit,
    times,
    out_where,
    out_t,
    out_cause,
    tally,
):
    """Run events ``begin .. count`` through a layer until fewer than `room` places are left for its own.

    An event in channel c of pixel p adds ``weight[kernel[j] + c * weights_a_channel + k]`` to
    ``v[target[j] + first[c] + k]``, k < length[j], for all j in ``reach[p] : reach[p + 1]``. A neuron spikes from
    `limit` on, and loses `threshold` or all. ``tally`` counts spikes and synaptic operations; with `counting` also how
    often v is beyond its bits, and the largest |v| before it is cut to them. They end at `high` and, unless a rule of
    the neurons keeps v above (`clamped`), at `low`. ``out_cause``, unless it is None, is the `cause` of the event that
    each was emitted at.

    Returns
    -------
    position : int
        First event that was not run.
    total : int
        Events that were emitted.
    """
    total, synops = 0, np.int64(0)
    slow = time_constant > 0 or refractory > 0 or counting
    zero = weight[0] * 0
    limit_0, low_0 = limit[0], low[0]
    position = begin
    while position < count and total + room <= len(out_where):
        i, now = where[position], t[position]
        position += 1
        p, c = i // channels, i % channels
        hits = 0
        for j in range(reach[p], reach[p + 1]):
            # Unsigned: no check for negative indices, which would keep the loops from being vectorised.
            o, w, n = (
                np.uint64(target[j] + first[c]),
                np.uint64(kernel[j] + c * weights_a_channel),
                np.uint64(length[j]),
            )
            synops += np.int64(n)
            if slow:
                for k in range(o, o + n):
                    if now < ready[k]:
                        continue
                    x = _add(v[k], zero)
                    if time_constant > 0:
                        x = _leaked(x, now - last[k], time_constant)
                        last[k] = now
                    x = _add(x, weight[w + (k - o)])
                    if counting:
                        x = max(x, low[k]) if clamped else x
                        tally[3] = max(tally[3], abs(x))
                        tally[2] += x > high or x < low[k]
                    v[k] = min(max(x, low[k]), high)
                    if v[k] >= limit[k]:
                        hit[hits] = k
                        hits += 1
                        ready[k] = now + refractory
                continue
            crossed = np.int32(0)
            if uniform:
                for k in range(n):
                    x = _add(v[o + k], weight[w + k])
                    x = low_0 if x < low_0 else x
                    x = high if x > high else x
                    v[o + k] = x
                    crossed = np.int32(crossed | (x >= limit_0))
            else:
                for k in range(n):
                    x = _add(v[o + k], weight[w + k])
                    x = low[o + k] if x < low[o + k] else x
                    x = high if x > high else x
                    v[o + k] = x
                    crossed = np.int32(crossed | (x >= limit[o + k]))
            if crossed:
                for k in range(o, o + n):
                    if v[k] >= limit[k]:
                        hit[hits] = k
                        hits += 1
        for h in range(hits):
            k = hit[h]
            times[k] = 1
            if not subtract:
                v[k] = zero
            elif refractory > 0:
                v[k] -= threshold[k]
            else:
                fired = 0
                x = _add(v[k], zero)
                while x >= limit[k]:
                    x = _add(x, -threshold[k])
                    fired += 1
                v[k], times[k] = x, fired
            # In the order of (channel, row, column): few, so put each in its place.
            g = h
            while g > 0 and key[hit[g - 1]] > key[k]:
                hit[g] = hit[g - 1]
                g -= 1
            hit[g] = k
        for h in range(hits):
            for _ in range(times[hit[h]]):
                out_where[total], out_t[total] = hit[h], now + latency
                if out_cause is not None:  # compiled for each case: chains lose nothing
                    out_cause[total] = cause[position - 1]
                total += 1
    tally[0] += total
    tally[1] += synops
    return position, total


@compiled
def _run(tables, state, buffers, at, where, t, cause, begin, count, out_where, out_t, out_cause):  # type: ignore[no-untyped-def]
    """Run events through layer `at`, neurons or none; see `run_layer`."""
    row, ints = tables.rows[at], tables.ints
    reach, target = ints[row.reach :], ints[row.target :]
    if row.kind == PASSES:
        return pass_on(where, t, cause, begin, count, row.room, reach, target, out_where, out_t, out_cause)
    n = row.neurons
    position, total = run_layer(
        where,
        t,
        cause,
        begin,
        count,
        row.room,
        row.channels,
        reach,
        target,
        ints[row.kernel :],
        ints[row.length :],
        ints[row.first :],
        tables.weight[row.weight :],
        row.weights_a_channel,
        state.v[n:],
        tables.threshold[n:],
        tables.limit[n:],
        tables.low[n:],
        tables.high[0],
        row.counting != 0,
        row.clamped != 0,
        row.uniform != 0,
        row.subtract != 0,
        ints[row.key :],
        state.last[n:],
        state.ready[n:],
        row.time_constant,
        row.refractory,
        row.latency,
        buffers.hit,
        buffers.times,
        out_where,
        out_t,
        out_cause,
        state.tally[at],
    )
    if len(state.spikes):
        spikes = state.spikes[n:]
        for i in range(total):
            spikes[out_where[i]] += 1
    return position, total


@compiled
def _collect(tables, state, where, t, begin, count):  # type: ignore[no-untyped-def]
    """Count what leaves the network, and keep it where there is a log. Returns the first event for which it is full."""
    log, fades = len(state.log_t), len(state.faded) > 0
    for i in range(begin, count):
        if log:
            if state.marks[0] == log:
                return i
            state.log_output[state.marks[0]], state.log_t[state.marks[0]] = tables.order[where[i]], t[i]
            state.marks[0] += 1
        state.marks[2] += 1
        output, now = tables.order[where[i]], t[i]
        state.counts[output] += 1
        if state.first[output] < 0:
            state.first[output] = now
        if fades:
            elapsed = now - state.faded_t[output]
            state.faded[output] = state.faded[output] * np.exp(-elapsed / state.fade[0]) + 1
            state.faded_t[output] = now
    return count


@compiled
def run_chain(tables, state, buffers, where, t, count, depth):  # type: ignore[no-untyped-def]
    """Run ``count`` events of the input through a chain of layers, each as deep as it goes before the next.

    Parameters
    ----------
    depth : int
        -1, or what was returned where a log was full.

    Returns
    -------
    int
        -1: all ran. Else the log is full.
    """
    at, ends, start, layers = buffers.at, buffers.ends, buffers.start, len(tables.rows)
    if depth < 0:
        depth, at[0], ends[0] = 0, 0, count
    while depth >= 0:
        if at[depth] == ends[depth]:
            depth -= 1
            continue
        source, when = where, t
        if depth > 0:
            a, b = start[depth - 1], start[depth]
            source, when = buffers.where[a:b], buffers.t[a:b]
        if depth == layers:
            at[depth] = _collect(tables, state, source, when, at[depth], ends[depth])
            if at[depth] < ends[depth]:
                return depth
            continue
        a, b = start[depth], start[depth + 1]
        out_where, out_t = buffers.where[a:b], buffers.t[a:b]
        at[depth], total = _run(
            tables, state, buffers, depth, source, when, None, at[depth], ends[depth], out_where, out_t, None
        )
        if total:
            depth += 1
            at[depth], ends[depth] = 0, total
    return depth


@compiled
def run_graph(tables, state, buffers, where, t, cause, count, layer):  # type: ignore[no-untyped-def]
    """Run ``count`` events of the input through the layers of a graph, one layer after the other.

    Parameters
    ----------
    cause : numpy.ndarray
        0, 1, ...: every event of the input is its own cause.
    layer : int
        0, with ``buffers.at`` and ``buffers.ends`` all 0, or what was returned.

    Returns
    -------
    int
        The layer whose buffer is too small; the number of layers where the log is full, and one more when all ran.
    """
    at, ends, start, layers = buffers.at, buffers.ends, buffers.start, len(tables.rows)
    for depth in range(layer, layers):
        row = tables.rows[depth]
        a, b = start[depth], start[depth + 1]
        feeds = tables.ints[row.feeds :]
        if row.kind == SUMS:
            total = 0
            for i in range(row.fed):
                total += count if feeds[2 * i] < 0 else ends[feeds[2 * i]]
            ends[depth] = total
            if total > b - a:
                return depth
            _merge(tables, buffers, row.fed, feeds, where, t, cause, count, a, total)
            continue
        source, when, why, number = where, t, cause, count
        if feeds[0] >= 0:
            c, d = start[feeds[0]], start[feeds[0] + 1]
            source, when, why, number = buffers.where[c:d], buffers.t[c:d], buffers.cause[c:d], ends[feeds[0]]
        a += ends[depth]
        out_where, out_t, out_cause = buffers.where[a:b], buffers.t[a:b], buffers.cause[a:b]
        at[depth], total = _run(
            tables, state, buffers, depth, source, when, why, at[depth], number, out_where, out_t, out_cause
        )
        ends[depth] += total
        if at[depth] < number:
            return depth
    a, b = start[layers - 1], start[layers]
    at[layers] = _collect(tables, state, buffers.where[a:b], buffers.t[a:b], at[layers], ends[layers - 1])
    return layers + (at[layers] == ends[layers - 1])


@compiled
def _merge(tables, buffers, fed, feeds, where, t, cause, count, out, total):  # type: ignore[no-untyped-def]
    """Events of all inputs of a sum, in the order (time, cause, number of the input); those of one come in it."""
    heads, start = buffers.heads, buffers.start
    for i in range(fed):
        heads[i] = 0
    for e in range(out, out + total):
        best, at, first, because = -1, 0, np.int64(0), np.int32(0)
        for i in range(fed):
            feed, h = feeds[2 * i], heads[i]
            if feed < 0:
                if h == count:
                    continue
                now, why = t[h], cause[h]
            else:
                if h == buffers.ends[feed]:
                    continue
                h += start[feed]
                now, why = buffers.t[h], buffers.cause[h]
            if best < 0 or now < first or (now == first and why < because):
                best, at, first, because = i, h, now, why
        index = where[at] if feeds[2 * best] < 0 else buffers.where[at]
        if feeds[2 * best + 1] >= 0:
            index = tables.ints[feeds[2 * best + 1] + index]
        buffers.where[e], buffers.t[e], buffers.cause[e] = index, first, because
        heads[best] += 1


@compiled
def place(inbox, count, shape, since):  # type: ignore[no-untyped-def]
    """Check events, none before `since`, and index them (H, W, C). Returns the first that is wrong; or `count`."""
    channels, rows, columns = shape
    for i in range(count):
        t, c, y, x = inbox.t[i], inbox.c[i], inbox.y[i], inbox.x[i]
        if t < since or t > LATEST or not (0 <= c < channels and 0 <= y < rows and 0 <= x < columns):
            return i
        inbox.where[i] = (y * columns + x) * channels + c
        since = t
    return count
