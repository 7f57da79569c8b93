"""The layers of a model as those of the integer network description, trained or not yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from mtt_lava.model import Conv, Model, Pool
from netx_export import network as description
from netx_export.network import DECAY_UNITY, Neuron, Shape

WEIGHT_UNIT = 64
"""Chip integers a unit of SLAYER's weights: SLAYER's default scale, 2**6."""
GROUPS_MAX = 127
"""Most groups of a convolution that Lava can hold."""


def lower(
    model: Model, pool_neurons: bool, held: Callable[[int, Shape | None], dict[str, Any]]
) -> tuple[description.Layer, ...]:
    """A model's layers.

    Parameters
    ----------
    model : Model
    pool_neurons : bool
        Whether pools have neurons of their own; NetX loads none without, so they become convolutions.
    held : callable
        What a layer holds, given its index in the model and the shape of its weights (None: a pool with neurons): the
        fields ``weight`` (not of pools), ``neuron`` and others of `netx_export.network.Layer`.

    Returns
    -------
    tuple of netx_export.network.Layer
    """
    layers: list[description.Layer] = []
    shapes = model.shapes()
    for i, (part, name, before, shape) in enumerate(zip(model.layers, model.names, shapes, shapes[1:], strict=False)):
        if isinstance(part, Pool):
            stride = part.stride or part.kernel
            pool = description.Pool(name=name, in_shape=before, shape=shape, kernel=part.kernel, stride=stride)
            layers.append(_with_neurons(pool, **held(i, None)) if pool_neurons else pool)
        elif isinstance(part, Conv):
            geometry = {key: getattr(part, key) for key in ("stride", "padding", "dilation", "groups")}
            fields = held(i, (part.channels, before[0] // part.groups, *part.kernel)) | geometry
            layers.append(description.Conv(name=name, in_shape=before, shape=shape, **fields))
        else:
            if len(before) == 3:
                flat = (int(np.prod(before)),)
                # Only the last layers are dense: nothing is flattened twice.
                layers.append(description.Flatten(name="flatten1", in_shape=before, shape=flat))
                before = flat
            layers.append(description.Dense(name=name, in_shape=before, shape=shape, **held(i, (*shape, *before))))
    return tuple(layers)


def _with_neurons(pool: description.Pool, neuron: Neuron) -> description.Layer:
    """A sum pool with neurons is a convolution with a group for every channel."""
    channels = pool.shape[0]
    # Lava keeps the number of groups in 8 bits with sign: where there are more channels, groups of several.
    groups = next(g for g in range(min(channels, GROUPS_MAX), 0, -1) if channels % g == 0)
    size = channels // groups
    weight = np.zeros((channels, size, *pool.kernel), dtype=np.int64)
    weight[np.arange(channels), np.arange(channels) % size] = WEIGHT_UNIT
    return description.Conv(
        name=pool.name,
        in_shape=pool.in_shape,
        shape=pool.shape,
        weight=weight,
        stride=pool.stride,
        groups=groups,
        neuron=neuron,
        weight_scale=float(WEIGHT_UNIT),
    )


def untrained(model: Model, pool_neurons: bool, reset: str, bias: bool) -> description.Network:
    """What is known of a network before it is trained: its shapes, and how its neurons decay.

    Parameters
    ----------
    model : Model
    pool_neurons : bool
        Whether pools have neurons of their own.
    reset : {"zero", "subtract"}
        Of all neurons.
    bias : bool
        Whether biases will be left.

    Returns
    -------
    netx_export.network.Network
        Weights and thresholds are 0: see `hw_profiles.check`, ``trained=False``.
    """
    current, voltage = (round(d * DECAY_UNITY) for d in (model.neuron.current_decay, model.neuron.voltage_decay))

    def held(_: int, shape: Shape | None) -> dict[str, Any]:
        if shape is None:
            return {"neuron": Neuron(0)}
        neuron = Neuron(0, current, voltage, np.ones(shape[0], int) if bias else None)
        # A view of one number: weights of any size take no memory.
        return {"weight": np.broadcast_to(np.int8(0), shape), "neuron": neuron}

    *layers, last = lower(model, pool_neurons, held)
    if model.readout == "voltage":  # which never leaks
        assert last.neuron is not None
        last = replace(last, neuron=Neuron(0, bias=last.neuron.bias))
    return description.Network((*layers, last), model.readout, reset, source=model.name)
