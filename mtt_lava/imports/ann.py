"""An ANN of ReLUs as a spiking network whose rates are its activations: data-based normalisation.

Diehl et al. (IJCNN 2015) scale the weights of each layer such that its largest activation over some data is one spike
a time step; Rueckauer et al. (Frontiers in Neuroscience 2017) take a percentile instead of the largest. It is where
training can start, and no more: few time steps say little of a rate, and a reset to zero loses what a voltage is above
the threshold.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from mtt_lava.imports.graph import Imported, ImportedError, Tensors
from mtt_lava.model import Add, Average, ConvT, Dense, Pool
from netx_export.network import INPUT


def activations(found: Imported, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """What every layer with weights of an ANN gives; the last without a ReLU, unless the readout counts spikes.

    Parameters
    ----------
    found : Imported
    x : torch.Tensor
        (N, C, H, W) or (N, F), as the ANN takes it.

    Raises
    ------
    ImportedError
        A layer that is not converted.
    """
    values, given = {INPUT: x}, {}
    parts = [part for part in found.model.parts() if not isinstance(part.layer, Average)]
    for part in parts:
        layer, x = part.layer, values[part.inputs[0]]
        if isinstance(layer, Pool):
            values[part.name] = F.avg_pool2d(x, layer.kernel, layer.stride or layer.kernel, divisor_override=1)
            continue
        if isinstance(layer, Add | ConvT | Average) or (isinstance(layer, Dense) and layer.recurrent):
            raise ImportedError(f"{found.source}: {part.name}: an ANN of convolutions, matrices and pools is converted")
        tensors = found.tensors[part.name]
        weight = torch.from_numpy(tensors.weight).float()
        bias = None if tensors.bias is None else torch.from_numpy(np.asarray(tensors.bias)).float()
        if isinstance(layer, Dense):
            out = F.linear(x.flatten(1), weight, bias)
        else:
            out = F.conv2d(x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)
        given[part.name] = values[part.name] = out if part is parts[-1] else out.relu()
    return given


def normalised(found: Imported, x: torch.Tensor, unit: float, percentile: float) -> Imported:
    """The ANN with weights in units of what its layers give, so that neurons with threshold 1 fire as much a time step.

    Parameters
    ----------
    found : Imported
    x : torch.Tensor
        Input of the ANN, over which activations are measured.
    unit : float
        What one spike of the input, summed over all time steps and divided by their number, is to the ANN.
    percentile : float
        Of the activations above 0 of a layer: what one spike a time step stands for. 100 is the largest.
    """
    with torch.no_grad():
        given = activations(found, x)
    worth, notes, tensors = {INPUT: unit}, list(found.notes), {}
    last = list(given)[-1]
    for part in found.model.parts():
        source = worth[part.inputs[0]]
        if part.name not in given:
            worth[part.name] = source
            continue
        values = given[part.name].numpy().ravel()
        values = np.abs(values) if part.name == last and found.model.readout == "voltage" else values
        above = values[values > 0]
        if not len(above):
            raise ImportedError(f"{found.source}: {part.name}: gives nothing above 0 over the data: is it that data?")
        worth[part.name] = level = float(np.percentile(above, percentile))
        old = found.tensors[part.name]
        tensors[part.name] = Tensors(old.weight * (source / level), None if old.bias is None else old.bias / level)
        notes.append(f"{part.name}: one spike a time step stands for {level:.4g} of the ANN")
    return replace(found, tensors=tensors, notes=notes)
