"""Compiled loops of the simulator `netx_export.fast.backend`, in 32-bit integers throughout.

Two's complement of 32 bits is what Lava's fixed-point models compute in, so nothing here can be rounded, and an
overflow wraps as theirs does. What they take is described in `netx_export.fast.plan`.
"""

from __future__ import annotations

import numpy as np

from netx_export.compiled import compiled


@compiled
def collect(inputs, order, out):  # type: ignore[no-untyped-def]
    """Events of inputs (N, size, T); ``order`` turns an index of them into one of the events. Whether any is graded."""
    where, value, start = out
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
def spread(spikes, order, out):  # type: ignore[no-untyped-def]
    """Put events into zeroed spikes (N, size, T)."""
    where, value, start = spikes
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
def deliver(spikes, synapses, step, ring, t):  # type: ignore[no-untyped-def]
    """Add what the events of a step come to, to the sums of time step t and of those that delays make of it."""
    where, value, start = spikes
    pixel, channel, reach, target, kernel, weight, fan, first, delay = synapses
    depth = len(ring)
    act = ring[t % depth]
    graded, delayed = len(value) > 0, len(delay) > 0
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


@compiled
def deliver_values(messages, synapses, step, act):  # type: ignore[no-untyped-def]
    """Add what the messages of a step come to, to sums of 64 bits."""
    where, value, start = messages
    pixel, channel, reach, target, kernel, weight, fan, first, _ = synapses
    graded = len(value) > 0
    for e in range(start[step], start[step + 1]):
        i = where[e]
        c = channel[i]
        x = np.int64(value[e]) if graded else np.int64(1)
        for j in range(reach[pixel[i]], reach[pixel[i] + 1]):
            o, w = np.uint64(target[j] + first[c]), np.uint64(kernel[j] + c * fan)
            for k in range(np.uint64(fan)):
                act[o + k] += weight[w + k] * x


MESSAGE_MOST = np.int64((1 << 15) - 1)
"""Largest message of a sigma-delta neuron in the 16 bits of the chip."""


@compiled
def run_graded(samples, steps, inputs, neurons, out, order, recorded, seen):  # type: ignore[no-untyped-def]
    """Simulate a layer of a sigma-delta network for all time steps of some samples, each from rest.

    Parameters are those of `run_layer`, `neurons` being `GradedNeurons` and `recorded` `GradedRecorded`. `seen` takes
    the largest |sigma| and |message|, and how often these were beyond 24 and `netx_export.network.MESSAGE_BITS` bits.

    Returns
    -------
    int
        The largest absolute sum that came in.
    """
    size, kind, bias, threshold, shift, bits = neurons
    out_where, out_value, out_start = out
    sigma, act, residue = np.zeros(size, np.int32), np.zeros(size, np.int32), np.zeros(size, np.int32)
    sums = np.zeros(size, np.int64)
    cut = np.int32(32 - bits)
    total, largest = 0, np.int64(0)
    for n in range(samples):
        sigma[:] = 0
        act[:] = 0
        residue[:] = 0
        for t in range(steps):
            step = n * steps + t
            out_start[step] = total
            for source in range(len(inputs)):
                deliver_values(inputs[source][0], inputs[source][1], step, sums)
            for i in range(size):
                largest = max(largest, abs(sums[i]))
                x = np.int32(np.int32(np.int32(sums[i]) << cut) >> cut)
                sums[i] = 0
                if kind > 0:
                    x = np.int32(sigma[i] + x)
                    sigma[i] = x
                    seen[0] = max(seen[0], abs(np.int64(x)))
                    seen[2] += abs(np.int64(x)) > MOST
                if kind > 1:
                    value = max(np.int32(x + bias[i]), np.int32(0))
                    delta = np.int32(np.int32(value - act[i]) + residue[i])
                    x = delta if np.int32(abs(np.int64(delta))) >= threshold else np.int32(0)
                    act[i], residue[i] = value, np.int32(delta - x)
                    x = np.int32(x >> shift)
                    seen[1] = max(seen[1], abs(np.int64(x)))
                    seen[3] += x > MESSAGE_MOST or x < -MESSAGE_MOST - 1
                if x != 0:
                    out_where[total] = i
                    out_value[total] = x
                    total += 1
            if len(recorded.sigma):
                for i in range(size):
                    recorded.sigma[n, order[i], t] = sigma[i]
            if len(recorded.act):
                for i in range(size):
                    recorded.act[n, order[i], t] = act[i]
            if len(recorded.residue):
                for i in range(size):
                    recorded.residue[n, order[i], t] = residue[i]
        if len(recorded.last):
            for i in range(size):
                recorded.last[n, order[i]] = act[i] if kind > 1 else sigma[i]
    out_start[samples * steps] = total
    return largest


@compiled
def run_layer(samples, steps, inputs, feedback, depth, neurons, range_, out, order, recorded, seen):  # type: ignore[no-untyped-def]
    """Simulate a layer for all time steps of some samples, each from rest; events in, events out.

    Parameters
    ----------
    samples, steps : int
    inputs : tuple of (Spikes, Synapses)
        What comes in, and how: all of it adds up.
    feedback : Feedback
    depth : int
        Time steps that sums wait in: the coming one and those of all delays.
    neurons : Neurons
    range_ : int
        How far states can go: 0: within 24 bits; 2: once round them, or more; 1: neither.
    out : Spikes
        Is filled.
    order : array
        For each index of events the index in (C, H, W), in which states are recorded.
    recorded : Recorded
    seen : array
        Takes how far u and v go: u_max, v_max, wraps and saturations, as in `netx_export.limits`.
    """
    size, spiking, instant, keep_u, keep_v, bias, threshold, bits = neurons
    out_where, out_value, out_start = out
    u, v = np.zeros(size, np.int32), np.zeros(size, np.int32)
    ring = np.zeros((depth, size), np.int32)  # sums that are due in coming time steps
    words = (size + 7) // 8
    spikes = np.zeros(8 * words, np.uint8)
    eights = spikes.view(np.uint64)
    fed_back, fed_back_late = len(feedback.weight) > 0, len(feedback.delay) > 0
    cut = np.int32(32 - bits)
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
            for source in range(len(inputs)):
                deliver(inputs[source][0], inputs[source][1], step, ring, t)
            if fed_back and t > 0:
                for e in range(out_start[step - 1], out_start[step]):
                    w = np.uint64(out_where[e] * size)
                    if fed_back_late:
                        for k in range(np.uint64(size)):
                            ring[(t + feedback.delay[w + k]) % depth, k] += feedback.weight[w + k]
                    else:
                        for k in range(np.uint64(size)):
                            act[k] += feedback.weight[w + k]
            if not spiking:
                for i in range(size):
                    x = np.int32(np.int32(act[i] << cut) >> cut)
                    if x != 0:
                        out_where[total] = i
                        out_value[total] = x
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
            if len(recorded.u):
                for i in range(size):
                    recorded.u[n, order[i], t] = u[i]
            if len(recorded.v):
                for i in range(size):
                    recorded.v[n, order[i], t] = v[i]
        if len(recorded.last):
            for i in range(size):
                recorded.last[n, order[i]] = v[i]
    out_start[samples * steps] = total
