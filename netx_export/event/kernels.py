"""Compiled loops of the event-driven simulator `netx_export.event.backend`.

Neurons are ordered (H, W, C), channels fastest, so that what one event adds lies in few contiguous slices. An event is
the index of a neuron and a time; a layer turns the ordered events of the layer before it into its own.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import overload

from netx_export.compiled import compiled


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
def pass_on(where, t, count, reach, target, out_where, out_t):  # type: ignore[no-untyped-def]
    """Events of a layer without neurons: one for every output that an input belongs to. Returns how many."""
    total = 0
    for e in range(count):
        for j in range(reach[where[e]], reach[where[e] + 1]):
            out_where[total], out_t[total] = target[j], t[e]
            total += 1
    return total


@compiled
def run_layer(  # type: ignore[no-untyped-def]
    where,
    t,
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
    out_from,
    tally,
    peak,
):
    """Run events ``begin .. count`` through a layer until fewer than `room` places are left for its own.

    An event in channel c of pixel p adds ``weight[kernel[j] + c * weights_a_channel + k]`` to
    ``v[target[j] + first[c] + k]``, k < length[j], for all j in ``reach[p] : reach[p + 1]``. A neuron spikes from
    `limit` on, and loses `threshold` or all. ``tally`` counts spikes and synaptic operations; with `counting` also how
    often v is beyond its bits. ``out_from``, unless it is None, says which event of `where` each was emitted at.
    ``peak`` is the largest |v| before it is cut to them. They end at `high` and, unless
    a rule of the neurons keeps v above (`clamped`), at `low`.

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
                        peak[0] = max(peak[0], abs(x))
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
                if out_from is not None:  # compiled for each case: chains lose nothing
                    out_from[total] = position - 1
                total += 1
    tally[0] += total
    tally[1] += synops
    return position, total
