"""What a network does on given input, measured on any backend: what its cost on a chip is computed from."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from netx_export.event import backend as event_backend
from netx_export.event.backend import Events, EventSimulation
from netx_export.network import Network, Shape
from netx_export.netx import read
from netx_export.result import Activity
from netx_export.simulation import check_inputs, encoded, is_graded, read_for, simulate

RECORD_BYTES = 1 << 28
"""Recorded spikes of a chunk of samples take about this much, unless a single sample needs more."""


def measure(
    path: str | os.PathLike[str],
    inputs: np.ndarray | Events,
    backend: str = "fast",
    *,
    in_shape: Shape | None = None,
    encode: bool = False,
    **options: Any,
) -> Activity:
    """Run a network and count the spikes of every neuron, or its messages.

    Parameters
    ----------
    path : path
        NetX HDF5 file.
    inputs : numpy.ndarray or Events
        Integers, (N, C, H, W, T) or (N, F, T), for the clocked backends; events for ``"event"``.
    backend : str
        ``"fast"``, ``"lava"`` or ``"event"``.
    in_shape : tuple of int, optional
        Shape of the input for a file that does not state it, where `inputs` are events.
    encode : bool
        `inputs` are values for the file's input neurons, their biases in every time step, instead of the spikes that
        enter the first layer.
    **options
        Go to the backend: ``chip`` and ``reset`` (event), ``workers`` (fast, lava), ...

    Returns
    -------
    Activity
        Mean over the samples.

    Raises
    ------
    NetworkError
        File, input, backend or an option is not what it must be.
    """
    if isinstance(inputs, Events):
        network = read(path, in_shape)
        result = event_backend.simulate(network, inputs, record=("spikes",), **options)
        return event_activity(network, inputs, result)
    network = read_for(path, inputs, in_shape, encode=encode)
    check_inputs(network, inputs, encode=encode)
    options |= {"encode": True} if encode else {}
    spikes_in = encoded(network, inputs) if encode else inputs
    steps = inputs.shape[-1]
    chunk = recordable(network, steps)
    totals = [np.zeros(layer.shape) for layer in network.spiking]
    for start in range(0, len(inputs), chunk):
        some = inputs[start : start + chunk]
        record = simulate(path, some, backend, record=("spikes",), **options).record
        totals = [total + (spikes != 0).sum((0, -1)) for total, spikes in zip(totals, record.values(), strict=True)]
    n = len(inputs)
    return Activity(steps, (spikes_in != 0).sum((0, -1)) / n, [total / n for total in totals], is_graded(spikes_in))


def recordable(network: Network, size: int) -> int:
    """How many samples can be recorded at once, at least one, where a neuron takes `size` bytes of each."""
    return max(1, RECORD_BYTES // (size * sum(math.prod(layer.shape) for layer in network.spiking)))


def event_activity(network: Network, events: Events, result: EventSimulation) -> Activity:
    """The same of an event-driven run that recorded ``spikes``."""
    arrived, spikes = event_totals(network, events, result)
    n = max(events.n, 1)
    return Activity(None, arrived / n, [each / n for each in spikes])


def event_totals(network: Network, events: Events, result: EventSimulation) -> tuple[np.ndarray, list[np.ndarray]]:
    """Events that arrived at each input, and spikes of every neuron, in all recordings together."""
    arrived = np.zeros((*network.in_shape, 1, 1)[:3])
    np.add.at(arrived, (events.c, events.y, events.x), 1)
    return arrived.reshape(network.in_shape), [each.sum(0) for each in result.record.values()]
