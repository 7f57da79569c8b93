"""The layers of a model as those of the integer network description, trained or not yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from mtt_lava.model import Add, Average, Dense, Model, Pool, sends_spikes
from netx_export import network as description
from netx_export.network import DECAY_UNITY, INPUT, Neuron, Shape
from netx_export.netx.fields import each_channel

WEIGHT_UNIT = 64
"""Chip integers a unit of SLAYER's weights: SLAYER's default scale, 2**6."""


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
        What a layer holds, given its index in the model and the shape of its weights (None: a pool or an add with
        neurons): the fields ``weight`` (not of pools), ``recurrent`` where it has some, ``neuron`` and others of
        `netx_export.network.Layer`; of an add ``identity`` too, the integer weight of what comes in as spikes, and
        ``weight_scale``.

    Returns
    -------
    tuple of netx_export.network.Layer
    """
    layers: list[description.Layer] = []
    spikes = {INPUT: True}
    flattened: dict[str, description.Flatten] = {}

    for i, (part, name, inputs, before, shape) in enumerate(model.parts()):
        spikes[name] = sends_spikes(part)
        at: dict[str, Any] = {"name": name, "inputs": inputs, "in_shape": before, "shape": shape}
        if isinstance(part, Pool):
            pool = description.Pool(**at, kernel=part.kernel, stride=part.stride or part.kernel)
            layers.append(_with_neurons(pool, **held(i, None)) if pool_neurons else pool)
        elif isinstance(part, Add):
            fields = held(i, None) if part.neuron else {}
            weight, scale = fields.pop("identity", 0), fields.pop("weight_scale", None)
            ways = list(inputs)
            for k, source in enumerate(inputs):
                if part.neuron and spikes[source]:
                    ways[k] = f"{name}.identity{k + 1}"
                    layers.append(_one_to_one(ways[k], source, shape, weight, scale))
            layers.append(description.Add(**at | {"inputs": tuple(ways)}, **fields))
        elif isinstance(part, Average):
            layers.append(description.Average(**at))
        elif not isinstance(part, Dense):
            # The kernels of models have the names and fields of those of the description.
            geometry = {key: getattr(part, key) for key in ("stride", "padding", "dilation", "groups")}
            layers.append(description.KINDS[part.type](**at, **held(i, part.weight_shape(before)), **geometry))
        else:
            if len(before) == 3:
                (source,) = inputs
                if source not in flattened:
                    flat = (int(np.prod(before)),)
                    number = len(flattened) + 1
                    flattened[source] = description.Flatten(
                        name=f"flatten{number}", inputs=inputs, in_shape=before, shape=flat
                    )
                    layers.append(flattened[source])
                at |= {"inputs": (flattened[source].name,), "in_shape": flattened[source].shape}
            layers.append(description.Dense(**at, **held(i, (*shape, *at["in_shape"]))))
    return tuple(layers)


def _one_to_one(name: str, source: str, shape: Shape, weight: int, scale: float | None) -> description.Layer:
    """An identity shortcut as the chip holds it: a convolution of one pixel a channel, or a diagonal matrix."""
    at: dict[str, Any] = {"name": name, "inputs": (source,), "in_shape": shape, "shape": shape, "weight_scale": scale}
    if len(shape) == 1:
        return description.Dense(**at, weight=weight * np.eye(shape[0], dtype=np.int64))
    weights, groups = each_channel(shape[0], np.full((1, 1), weight))
    return description.Conv(**at, weight=weights, groups=groups)


def _with_neurons(pool: description.Pool, neuron: Neuron) -> description.Layer:
    """A sum pool with neurons is a convolution with a group for every channel."""
    weights, groups = each_channel(pool.shape[0], np.full(pool.kernel, WEIGHT_UNIT))
    return description.Conv(
        name=pool.name,
        inputs=pool.inputs,
        in_shape=pool.in_shape,
        shape=pool.shape,
        stride=pool.stride,
        weight=weights,
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

    parts = model.parts()

    def held(i: int, shape: Shape | None) -> dict[str, Any]:
        part = parts[i]
        if isinstance(part.layer, Pool):
            return {"neuron": Neuron(0)}
        neuron = Neuron(0, current, voltage, np.ones(part.shape[0], int) if bias else None)
        if shape is None:
            return {"neuron": neuron, "identity": 0}
        # A view of one number: weights of any size take no memory.
        fields = {"weight": np.broadcast_to(np.int8(0), shape), "neuron": neuron if sends_spikes(part.layer) else None}
        if isinstance(part.layer, Dense) and part.layer.recurrent:
            fields["recurrent"] = np.broadcast_to(np.int8(0), (shape[0], shape[0]))
        return fields

    layers = lower(model, pool_neurons, held)
    if model.readout == "voltage":  # which never leaks
        layers = with_readout(layers, lambda _, neuron: Neuron(0, bias=neuron.bias))
    return description.Network(layers, model.readout, reset, source=model.name)


def with_readout(
    layers: tuple[description.Layer, ...], changed: Callable[[description.Layer, Neuron], Neuron]
) -> tuple[description.Layer, ...]:
    """The layers, with other neurons in the last that has some: those that answer."""
    last = next(layer for layer in reversed(layers) if layer.neuron is not None)
    assert isinstance(last.neuron, Neuron)
    answering = replace(last, neuron=changed(last, last.neuron))
    return tuple(answering if layer is last else layer for layer in layers)
