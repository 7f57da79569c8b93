"""From a trained run to the integer network description and its file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import hw_profiles
from mtt_lava.lowering import WEIGHT_UNIT, lower, with_readout
from mtt_lava.model import sends_spikes
from mtt_lava.neuron import Bias
from mtt_lava.run import Run, RunError
from mtt_lava.spiking import Sum, SumPool
from netx_export import network as description
from netx_export import netx, nir


def to_network(
    run: Run, time_steps: int | None = None, profile: str | None = None, readout_threshold: int | None = None
) -> description.Network:
    """The trained network in the chip's integers; the run stays as it is.

    Parameters
    ----------
    run : Run
    time_steps : int, optional
        T that rescaled biases are written for; default: T of training. Nothing else depends on it.
    profile : str, optional
        Hardware profile named in the file; default: that of training.
    readout_threshold : int, optional
        Threshold of the neurons of a voltage readout, 1..131071, in units of integer weights. Default: the largest.

    Returns
    -------
    netx_export.network.Network

    Raises
    ------
    RunError
        The network is not quantised; or `readout_threshold` is out of range, for a readout that counts spikes, or such
        that the readout could spike on the training data.
    """
    settings = run.settings
    if not run.network.weight_scales:
        raise RunError("the network is not quantised: train it to its end first")
    time_steps = time_steps or settings.time_steps
    blocks, names = list(run.network.blocks), run.network.names

    def held(i: int, shape: description.Shape | None) -> dict[str, Any]:
        block = blocks[i]
        if shape is None and not isinstance(block, Sum):
            return {"neuron": _neuron(block, None)}
        fields: dict[str, Any] = {}
        if shape is not None:
            quantiser = block.synapse.pre_hook_fx
            weight = quantiser(block.synapse.weight, descale=True).numpy().astype(np.int64)
            fields = {"weight": weight.reshape(shape), "weight_scale": quantiser.weight_scale}
            if hasattr(block, "feedback"):
                back = quantiser(block.feedback.synapse.weight, descale=True).numpy().astype(np.int64)
                fields["recurrent"] = back.reshape(shape[0], shape[0])
            if not sends_spikes(run.network.parts[i].layer):
                return fields
        else:
            members = next(members for owner, members in run.network.groups if owner is block)
            identity = round(block.identity * WEIGHT_UNIT)
            fields = {"identity": identity, "weight_scale": members[0].synapse.pre_hook_fx.weight_scale}
        norm = block.neuron.norm
        u_measured, v_measured = run.measured.get(names[i], (None, None))
        return fields | {
            "u_measured": u_measured,
            "v_measured": v_measured,
            "neuron": _neuron(block, norm.integers.numpy().astype(np.int64) if isinstance(norm, Bias) else None),
        }

    with run.at(time_steps):
        pool_neurons = not any(isinstance(block, SumPool) for block in blocks)
        layers = lower(settings.model, pool_neurons, held)
    if settings.model.readout == "voltage":
        # The readout's neurons must never spike: the largest threshold there is, or one that v stays below.
        def silent(last: description.Layer, neuron: description.Neuron) -> description.Neuron:
            most = description.THRESHOLD_MAX
            return replace(neuron, threshold=most if readout_threshold is None else _checked(readout_threshold, last))

        layers = with_readout(layers, silent)
    elif readout_threshold is not None:
        raise RunError(
            f"readout threshold {readout_threshold}: the readout of {settings.model.name} counts spikes, and its "
            f"threshold is trained: leave it out (only a voltage readout has one to choose)"
        )
    info = {
        "model": settings.model.name,
        "profile": profile or settings.profile,
        "time_steps": time_steps,
        "method": settings.method if run.imported is None else "imported",
        "seed": settings.seed,
        "data": settings.data,
        "biases": settings.biases,
        "input_max": settings.input_max,
    }
    model = settings.model
    return description.Network(layers, model.readout, run.network.reset, info, model.name)


def _checked(threshold: int, layer: description.Layer) -> int:
    """A threshold for the readout, refused where its neurons could spike on the training data."""
    if not 1 <= threshold <= description.THRESHOLD_MAX:
        raise RunError(f"readout threshold {threshold}: must be 1..{description.THRESHOLD_MAX} (17 bits)")
    reached = layer.v_measured
    if reached is not None and reached > threshold << description.STATE_SHIFT:
        least = -(-reached >> description.STATE_SHIFT)
        advice = f"use {least} or more" if least <= description.THRESHOLD_MAX else "leave it out"
        raise RunError(
            f"readout threshold {threshold}: {layer.name} spikes where v passes {threshold << description.STATE_SHIFT}"
            f", and loses it; over the training data |v| reached {reached}: {advice}"
        )
    return threshold


def _neuron(block: torch.nn.Module, bias: np.ndarray | None) -> description.Neuron:
    return description.Neuron(
        block.neuron.threshold_mantissa,
        round(block.neuron.current_decay.item()),
        round(block.neuron.voltage_decay.item()),
        bias,
    )


def export(
    run: Run,
    path: str | Path,
    profile: str | None = None,
    time_steps: int | None = None,
    readout_threshold: int | None = None,
) -> tuple[description.Network, hw_profiles.Report]:
    """Write a run as a NetX file that `lava.lib.dl.netx.hdf5.Network` loads as it is.

    Parameters
    ----------
    run : Run
    path : path
        The file; written whole or not at all.
    profile : str, optional
        Hardware profile to check against, as it is now; default: that of training, as it was then.
    time_steps, readout_threshold : int, optional
        See `to_network`.

    Returns
    -------
    network : netx_export.network.Network
        What was written.
    report : hw_profiles.Report
        Whether it fits the chip.

    Raises
    ------
    RunError
        See `to_network`.
    netx_export.network.NetworkError
        What NetX would drop, clamp or compute otherwise.
    """
    chip = hw_profiles.load(profile or run.settings.chip)
    network = to_network(run, time_steps, profile, readout_threshold)
    netx.write(network, path)
    return network, _checked_against(chip, network)


def export_nir(
    run: Run,
    path: str | Path,
    reader: str = "nir",
    profile: str | None = None,
    time_steps: int | None = None,
    readout_threshold: int | None = None,
    *,
    allow_inexact: bool = False,
) -> tuple[description.Network, hw_profiles.Report, tuple[str, ...]]:
    """Write a run as a NIR file, for one reader.

    Parameters
    ----------
    run, path, profile, time_steps, readout_threshold
        See `export`.
    reader, allow_inexact
        See `netx_export.nir.write`.

    Returns
    -------
    network, report
        See `export`.
    notes : tuple of str
        What is to be known of the file.

    Raises
    ------
    RunError
        See `to_network`.
    netx_export.network.NetworkError
        What NIR cannot hold, or the reader would compute otherwise.
    """
    chip = hw_profiles.load(profile or run.settings.chip)
    network = to_network(run, time_steps, profile, readout_threshold)
    notes = nir.write(network, path, reader, allow_inexact=allow_inexact)
    return network, _checked_against(chip, network), notes


def export_speck(
    run: Run,
    path: str | Path,
    profile: str | None = None,
    time_steps: int | None = None,
    readout_threshold: int | None = None,
) -> tuple[description.Network, hw_profiles.Report]:
    """Write a run as a script for sinabs, which loads it on a Speck, and the NetX file beside it.

    Parameters
    ----------
    run, profile, time_steps, readout_threshold
        See `export`.
    path : path
        The script, ``.py``; see `hw_profiles.write_speck`.

    Returns
    -------
    network, report
        See `export`.

    Raises
    ------
    RunError
        See `to_network`.
    netx_export.network.NetworkError, hw_profiles.ProfileError
        What does not fit the chip, or sinabs would compute otherwise.
    """
    chip = hw_profiles.load(profile or run.settings.chip)
    network = to_network(run, time_steps, profile, readout_threshold)
    hw_profiles.write_speck(network, path, chip)
    return network, _checked_against(chip, network)


def _checked_against(chip: hw_profiles.Profile, network: description.Network) -> hw_profiles.Report:
    return hw_profiles.check(network, chip, network.info["time_steps"], network.info["input_max"])
