"""The compiled loop that event-driven simulation is measured against."""

from __future__ import annotations

from netx_export.compiled import compiled


@compiled
def add_slices(v, w, targets, kernels, length):  # type: ignore[no-untyped-def]
    """``v[target : target + length] += w[kernel : kernel + length]`` for every pair."""
    for i in range(len(targets)):
        a, b = targets[i], kernels[i]
        v[a : a + length] += w[b : b + length]
