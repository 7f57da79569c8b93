"""From a trained run to the integer network description and its file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import hw_profiles
from mtt_lava.model import Conv, Pool
from mtt_lava.neuron import WEIGHT_UNIT, Bias
from mtt_lava.run import Run, RunError
from mtt_lava.spiking import SumPool
from netx_export import network as description
from netx_export import netx

GROUPS_MAX = 127
"""Most groups of a convolution that Lava can hold."""


def to_network(run: Run, time_steps: int | None = None, profile: str | None = None) -> description.Network:
    """The trained network in the chip's integers.

    Parameters
    ----------
    run : Run
    time_steps : int, optional
        T that rescaled biases are written for; default: T of training. Nothing else depends on it.
    profile : str, optional
        Hardware profile named in the file; default: that of training.

    Returns
    -------
    netx_export.network.Network
    """
    settings = run.settings
    if not run.network.weight_scales:
        raise RunError("the network is not quantised: train it to its end first")
    time_steps = time_steps or settings.time_steps
    run.set_time_steps(time_steps)
    model, shapes = settings.model, settings.model.shapes()
    layers: list[description.Layer] = []
    for part, name, block, before, shape in zip(
        model.layers, run.network.names, run.network.blocks, shapes, shapes[1:], strict=False
    ):
        if isinstance(part, Pool):
            layers.append(_pool(part, name, block, before, shape))
            continue
        weight = block.synapse.pre_hook_fx(block.synapse.weight, descale=True).numpy().astype(np.int64)
        norm = block.neuron.norm
        common: dict[str, Any] = {
            "name": name,
            "shape": shape,
            "weight_scale": block.synapse.pre_hook_fx.weight_scale,
            "u_measured": run.measured.get(name, (None, None))[0],
            "v_measured": run.measured.get(name, (None, None))[1],
            "neuron": _neuron(block, norm.integers.numpy().astype(np.int64) if isinstance(norm, Bias) else None),
        }
        if isinstance(part, Conv):
            layers.append(
                description.Conv(
                    in_shape=before,
                    weight=weight[..., 0],
                    stride=part.stride,
                    padding=part.padding,
                    dilation=part.dilation,
                    groups=part.groups,
                    **common,
                )
            )
        else:
            if len(before) == 3:
                flat = (int(np.prod(before)),)
                # Only the last layers are dense: nothing is flattened twice.
                layers.append(description.Flatten(name="flatten1", in_shape=before, shape=flat))
                before = flat
            layers.append(description.Dense(in_shape=before, weight=weight.reshape(*shape, *before), **common))
    if model.readout == "voltage":
        # The readout's neurons must never spike: the largest threshold there is.
        last = layers[-1]
        assert last.neuron is not None
        layers[-1] = replace(last, neuron=replace(last.neuron, threshold=description.THRESHOLD_MAX))
    info = {
        "model": model.name,
        "profile": profile or settings.profile,
        "time_steps": time_steps,
        "method": settings.method,
        "seed": settings.seed,
        "data": settings.data,
        "biases": settings.biases,
        "input_max": settings.input_max,
    }
    return description.Network(tuple(layers), model.readout, run.network.reset, info, model.name)


def _neuron(block: torch.nn.Module, bias: np.ndarray | None) -> description.Neuron:
    return description.Neuron(
        block.neuron.threshold_mantissa,
        round(block.neuron.current_decay.item()),
        round(block.neuron.voltage_decay.item()),
        bias,
    )


def _pool(
    part: Pool, name: str, block: torch.nn.Module, before: tuple[int, ...], shape: tuple[int, ...]
) -> description.Layer:
    """A sum pool: NetX loads none, so one with neurons is a convolution with a group for every channel."""
    stride = part.stride or part.kernel
    if isinstance(block, SumPool):
        return description.Pool(name=name, in_shape=before, shape=shape, kernel=part.kernel, stride=stride)
    # Lava keeps the number of groups in 8 bits with sign: where there are more channels, groups of several.
    groups = next(g for g in range(min(shape[0], GROUPS_MAX), 0, -1) if shape[0] % g == 0)
    size = shape[0] // groups
    weight = np.zeros((shape[0], size, *part.kernel), dtype=np.int64)
    weight[np.arange(shape[0]), np.arange(shape[0]) % size] = WEIGHT_UNIT
    return description.Conv(
        name=name,
        in_shape=before,
        shape=shape,
        weight=weight,
        stride=stride,
        groups=groups,
        neuron=_neuron(block, None),
        weight_scale=float(WEIGHT_UNIT),
    )


def export(
    run: Run, path: str | Path, profile: str | None = None, time_steps: int | None = None
) -> tuple[description.Network, hw_profiles.Report]:
    """Write a run as a NetX file that `lava.lib.dl.netx.hdf5.Network` loads as it is.

    Parameters
    ----------
    run : Run
    path : path
        The file; written whole or not at all.
    profile : str, optional
        Hardware profile to check against; default: that of training.
    time_steps : int, optional
        See `to_network`.

    Returns
    -------
    network : netx_export.network.Network
        What was written.
    report : hw_profiles.Report
        Whether it fits the chip.

    Raises
    ------
    netx_export.network.NetworkError
        What NetX would drop, clamp or compute otherwise.
    """
    chip = hw_profiles.load(profile or run.settings.profile)
    network = to_network(run, time_steps, profile)
    netx.write(network, path)
    report = hw_profiles.check(network, chip, network.info["time_steps"], network.info["input_max"])
    return network, report
