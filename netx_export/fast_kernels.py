"""Compiled loops of the simulator `netx_export.fast_backend`, in 32-bit integers throughout.

Two's complement of 32 bits is what Lava's fixed-point models compute in, so nothing here can be rounded, and an
overflow wraps as theirs does. Spikes are kept as events, ordered by sample and time step: ``where`` holds the index of
the neuron, channels fastest, and room for one more; ``value`` the payload, or nothing where all are 1; those of
time step t of sample n are ``start[n * T + t] : start[n * T + t + 1]``.
"""

from __future__ import annotations

import numpy as np
from numba import njit

compiled = njit(nogil=True, cache=True, error_model="numpy")


@compiled
def collect(inputs, order, where, value, start):  # type: ignore[no-untyped-def]
    """Events of inputs (N, size, T); ``order`` turns an index of them into one of the events. Whether any is graded."""
    samples, size, steps = inputs.shape
    place, moment = np.empty(size * steps + 1, np.int32), np.empty(size * steps + 1, np.int32)
    next_event = np.empty(steps, np.int64)
    total, graded = 0, False
    for n in range(samples):
        found = np.uint64(0)
        for i in range(size):
            for t in range(steps):
                # What is zero is written too, and then overwritten: no branch to be mispredicted.
                place[found], moment[found] = i, t
                found += np.uint64(inputs[n, i, t] != 0)
        next_event[:] = 0
        for e in range(found):
            next_event[moment[e]] += 1
        for t in range(steps):
            start[n * steps + t] = total
            total += next_event[t]
            next_event[t] = start[n * steps + t]
        for e in range(found):
            i, t = place[e], moment[e]
            x = inputs[n, i, t]
            where[next_event[t]], value[next_event[t]] = order[i], x
            next_event[t] += 1
            graded |= x != 1
    start[samples * steps] = total
    return graded


@compiled
def spread(where, value, start, order, out):  # type: ignore[no-untyped-def]
    """Put events into zeroed spikes (N, size, T)."""
    samples, _, steps = out.shape
    for n in range(samples):
        for t in range(steps):
            for e in range(start[n * steps + t], start[n * steps + t + 1]):
                out[n, order[where[e]], t] = value[e] if len(value) else 1


@compiled
def decayed(state, keep):  # type: ignore[no-untyped-def]
    """state * keep / 4096, truncated toward zero, without leaving 32 bits: the upper and the lower 12 bits apart."""
    size = np.uint32(-state if state < 0 else state)
    kept = np.uint32(np.uint32(size >> 12) * keep) + np.uint32(np.uint32(np.uint32(size & 4095) * keep) >> 12)
    return np.int32(-np.int32(kept)) if state < 0 else np.int32(kept)


MOST = np.int32((1 << 23) - 1)
"""Largest u and v of 24 bits."""


def _step(instant, calm):  # type: ignore[no-untyped-def]
    @compiled
    def step(act, u, v, spikes, keep_u, keep_v, bias, threshold, seen):  # type: ignore[no-untyped-def]
        """A time step of neurons whose states stay within 24 bits (`calm`), or that are fed less than 2**24.

        Then 24 bits go round once at most. What |u| and |v| were before they were cut goes into `seen`: the largest,
        and how often they were beyond MOST.
        """
        u_most, v_most, wraps, saturations = np.int32(0), np.int32(0), np.int32(0), np.int32(0)
        for i in range(len(u)):
            x = np.int32(act[i] << 6)
            if not instant:
                x = np.int32(x + decayed(u[i], keep_u[i]))
            size = np.int32(abs(x))
            u_most = max(u_most, size)
            if not calm:
                wraps = np.int32(wraps + (size > MOST))
                x = np.int32(np.int32(np.int32(np.int32(x - 1) << 8) >> 8) + 1)  # 2**23 itself stays
            u[i] = x
            x = np.int32((v[i] if instant else decayed(v[i], keep_v[i])) + x + bias[i])
            size = np.int32(abs(x))
            v_most = max(v_most, size)
            if not calm:
                saturations = np.int32(saturations + (size > MOST))
                x = min(max(x, np.int32(-MOST)), MOST)
            spikes[i] = x > threshold[i]
            v[i] = 0 if x > threshold[i] else x
        seen[0], seen[1] = max(seen[0], u_most), max(seen[1], v_most)
        seen[2] += wraps
        seen[3] += saturations

    return step


# Instant: integrate-and-fire, where u forgets everything in a step and v nothing.
step_instant, step_leaky = _step(True, False), _step(False, False)
calm_instant, calm_leaky = _step(True, True), _step(False, True)


@compiled
def step_wide(act, u, v, spikes, keep_u, keep_v, bias, threshold, bits, seen):  # type: ignore[no-untyped-def]
    """A time step of neurons fed anything: sums that a conv process cuts to `bits`, u that leaves even 32."""
    cut = np.int32(32 - bits)
    for i in range(len(u)):
        kept = decayed(u[i], keep_u[i])
        size = abs(np.int64(act[i]) * 64 + kept)
        seen[0] = max(seen[0], size)
        seen[2] += size > MOST
        x = np.int32(np.int32(np.int32(act[i] << cut) >> cut) << 6)
        x = np.int32(x + kept)
        x = np.int32(x - (1 << 24)) if x > 1 << 23 else np.int32(x + (1 << 24)) if x <= -(1 << 23) else x
        u[i] = x
        x = np.int32(decayed(v[i], keep_v[i]) + x + bias[i])
        size = abs(np.int64(x))
        seen[1] = max(seen[1], size)
        seen[3] += size > MOST
        x = min(max(x, np.int32(-MOST)), MOST)
        spikes[i] = x > threshold[i]
        v[i] = 0 if x > threshold[i] else x


@compiled
def run_layer(  # type: ignore[no-untyped-def]
    samples,
    steps,
    where,
    value,
    start,
    pixel,
    channel,
    reach,
    target,
    kernel,
    weight,
    fan,
    first,
    delay,
    depth,
    recurrent,
    recurrent_delay,
    bits,
    spiking,
    instant,
    keep_u,
    keep_v,
    bias,
    threshold,
    range_,
    out_where,
    out_value,
    out_start,
    order,
    u_record,
    v_record,
    v_last,
    seen,
):
    """Simulate a layer for all time steps of some samples, each from rest; events in, events out.

    An input event in pixel p and channel c reaches ``target[j] + first[c] + k``, k < fan, through the weights
    ``weight[kernel[j] + c * fan + k]``, for all j in ``reach[p] : reach[p + 1]``. How far u and v go is put into
    ``seen``: u_max, v_max, wraps and saturations, as in `netx_export.limits`.
    """
    size = len(bias)
    u, v = np.zeros(size, np.int32), np.zeros(size, np.int32)
    ring = np.zeros((depth, size), np.int32)  # sums that are due in coming time steps
    words = (size + 7) // 8
    spikes = np.zeros(8 * words, np.uint8)
    eights = spikes.view(np.uint64)
    graded, delayed = len(value) > 0, len(delay) > 0
    fed_back, fed_back_late = len(recurrent) > 0, len(recurrent_delay) > 0
    total = 0
    for n in range(samples):
        u[:] = 0
        v[:] = 0
        if depth > 1:
            ring[:] = 0
        for t in range(steps):
            step = n * steps + t
            out_start[step] = total
            act = ring[t % depth]
            for e in range(start[step], start[step + 1]):
                i = where[e]
                c = channel[i]
                x = value[e] if graded else np.int32(1)
                for j in range(reach[pixel[i]], reach[pixel[i] + 1]):
                    # Unsigned indices: no check for negative ones, which would keep the loop from being vectorised.
                    o, w = np.uint64(target[j] + first[c]), np.uint64(kernel[j] + c * fan)
                    if delayed:
                        for k in range(np.uint64(fan)):
                            ring[(t + delay[w + k]) % depth, o + k] += np.int32(weight[w + k] * x)
                    else:
                        for k in range(np.uint64(fan)):
                            act[o + k] += np.int32(weight[w + k] * x)
            if fed_back and t > 0:
                for e in range(out_start[step - 1], out_start[step]):
                    w = np.uint64(out_where[e] * size)
                    if fed_back_late:
                        for k in range(np.uint64(size)):
                            ring[(t + recurrent_delay[w + k]) % depth, k] += recurrent[w + k]
                    else:
                        for k in range(np.uint64(size)):
                            act[k] += recurrent[w + k]
            if not spiking:
                for i in range(size):
                    if act[i] != 0:
                        out_where[total] = i
                        out_value[total] = act[i]
                        total += 1
                act[:] = 0
                continue
            if range_ == 2:
                step_wide(act, u, v, spikes, keep_u, keep_v, bias, threshold, bits, seen)
            elif range_ == 1 and instant:
                step_instant(act, u, v, spikes, keep_u, keep_v, bias, threshold, seen)
            elif range_ == 1:
                step_leaky(act, u, v, spikes, keep_u, keep_v, bias, threshold, seen)
            elif instant:
                calm_instant(act, u, v, spikes, keep_u, keep_v, bias, threshold, seen)
            else:
                calm_leaky(act, u, v, spikes, keep_u, keep_v, bias, threshold, seen)
            act[:] = 0
            for b in range(words):
                if eights[b] != 0:
                    for i in range(8 * b, 8 * b + 8):
                        out_where[total] = i
                        total += spikes[i]
            if len(u_record):
                for i in range(size):
                    u_record[n, order[i], t] = u[i]
            if len(v_record):
                for i in range(size):
                    v_record[n, order[i], t] = v[i]
        if len(v_last):
            for i in range(size):
                v_last[n, order[i]] = v[i]
    out_start[samples * steps] = total
