"""Named tensors (a safetensors file, a state dict) as the weights of a model."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mtt_lava.imports.graph import Imported, ImportedError, Tensors
from mtt_lava.model import ConvT, Dense, Model, Part, Pool
from netx_export.network import Shape
from netx_export.reading import opened
from netx_export.text import short

PASSED_OVER = (
    *("num_batches_tracked", "v_mem", "mem", "spk", "syn", "i_syn", "mask", "current_state", "voltage_state"),
    *("reset_mechanism_val", "graded_spikes_factor", "min_v_mem", "shape"),
)
"""Tensors of known names that hold states and numbers of other programs, and no weights."""
THRESHOLDS = ("threshold", "spike_threshold")
NORM = ("weight", "bias", "running_mean", "running_var")
EPS = 1e-5
"""That PyTorch's batch norms have by default; files do not say theirs."""


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file.

    Raises
    ------
    ImportedError
        It is missing, damaged or another kind of file.
    """
    import torch
    from safetensors.torch import load

    if Path(path).suffix in (".pt", ".pth", ".bin", ".pkl", ".ckpt"):
        raise ImportedError(
            f"{path}: such files hold pickles, which can run code and are not read: write the weights with "
            f"safetensors.torch.save_file(network.state_dict(), 'weights.safetensors')"
        )
    with opened(path, ImportedError) as file:
        content = file.read()
    try:
        return {name: _array(value) for name, value in load(content).items() if isinstance(value, torch.Tensor)}
    except Exception as error:  # whatever safetensors says of damaged and foreign files
        raise ImportedError(f"{path}: is not a whole safetensors file ({short(str(error), 100)})") from None


def _array(value: Any) -> np.ndarray:
    """A tensor of PyTorch, or an array, as NumPy's."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
    return np.asarray(value)


def from_tensors(
    tensors: Mapping[str, Any], model: Model, source: str, pools: str = "sum", natural: bool = False
) -> Imported:
    """A model with these weights.

    Layers take the tensors of their name (``conv1.weight``); or else all of them in order, where the shapes are those
    of the model; or each the only one of its shape. Batch norms are folded into the weights before them.

    Parameters
    ----------
    tensors : mapping of str to tensor or array
        As a state dict of PyTorch names them.
    model : Model
    source : str
        What messages start with.
    pools : {"sum", "average", "max"}
        What the pools of the model did where the weights were trained.
    natural : bool
        The names come in no order that means something: take them as people would count.

    Raises
    ------
    ImportedError
        Tensors that are none of the model, or not all; a value that is no number.
    """
    if pools not in ("sum", "average", "max"):
        raise ImportedError(f"pools {pools!r:.20}: must be sum, average or max")
    values = {name: _array(value) for name, value in tensors.items()}
    if any(name.startswith("network.blocks.") for name in values):
        raise ImportedError(f"{source}: is of a run of mtt train: use its folder as it is, or mtt train --from RUN")
    for name, value in values.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise ImportedError(f"{source}: {name}: holds values that are no numbers")
    names = sorted(values, key=_counted) if natural else list(values)
    modules: dict[str, dict[str, np.ndarray]] = {}
    for name in names:
        prefix, _, last = name.rpartition(".")
        modules.setdefault(prefix, {})[last] = values[name]
    norms = {name: of for name, of in modules.items() if {"running_mean", "running_var"} <= of.keys()}
    weighted = {name: of for name, of in modules.items() if "weight" in of and of["weight"].ndim >= 2}
    back = {name: weighted.pop(name) for name in list(weighted) if name.rpartition(".")[2] in ("recurrent", "feedback")}
    parts = {part.name: part for part in model.parts() if part.layer.weight_shape(part.before)}
    chosen = _chosen(parts, weighted, source)
    found = Imported(model, {}, source)
    for name, prefix in chosen.items():
        of = weighted[prefix]
        bias = of.get("bias")
        if bias is not None and bias.shape != (parts[name].shape[0],):
            raise ImportedError(f"{source}: {prefix}.bias has the shape {bias.shape}, not ({parts[name].shape[0]},)")
        weight = _oriented(of["weight"].astype(np.float64), parts[name])
        found.tensors[name] = Tensors(weight, None if bias is None or not bias.any() else bias.astype(np.float64))
        found.notes.append(f"{name}: {prefix}")
    order = [name for name in modules if name in weighted or name in norms]
    owners = {prefix: name for name, prefix in chosen.items()}
    for name, of in norms.items():
        owner = owners[_before(name, order, weighted, len(of["running_mean"]), source)]
        _fold(found.tensors[owner], of)
        found.notes.append(f"{owner}: {name} is folded into it (eps {EPS:g})")
    _recurrent(found, parts, back)
    _thresholds(found, modules, list(modules), owners)
    _check_rest(modules, weighted, norms, back, source)
    if pools == "average":
        _averaged(found)
    elif pools == "max":
        found.maxima = tuple(part.name for part in model.parts() if isinstance(part.layer, Pool))
    return found


def _counted(name: str) -> list[tuple[int, int, str]]:
    """Names with numbers in them, as people count: layer 2 before layer 10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)|\.", name) if part]


def _wanted(part: Part) -> Shape:
    """The shape of a layer's weights as PyTorch has it."""
    shape = part.layer.weight_shape(part.before)
    if isinstance(part.layer, ConvT):  # inputs first
        return (part.before[0], part.layer.channels // part.layer.groups, *shape[2:])
    return shape


def _fits(weight: np.ndarray, part: Part) -> bool:
    """Whether weights are of this shape; SLAYER's have axes of 1 behind it."""
    shape = weight.shape
    while len(shape) > len(_wanted(part)) and shape[-1] == 1:
        shape = shape[:-1]
    return shape == _wanted(part)


def _oriented(weight: np.ndarray, part: Part) -> np.ndarray:
    """Weights with outputs first."""
    weight = weight.reshape(_wanted(part))
    if isinstance(part.layer, ConvT):
        groups = part.layer.groups
        weight = weight.reshape(groups, -1, *weight.shape[1:]).swapaxes(1, 2)
        weight = weight.reshape(part.layer.weight_shape(part.before))
    return weight


def _chosen(parts: dict[str, Part], weighted: dict[str, dict[str, np.ndarray]], source: str) -> dict[str, str]:
    """For every layer of the model the name of its weights."""
    named = {name: [p for p in weighted if f".{p}".endswith(f".{name}")] for name in parts}
    if all(len(found) == 1 for found in named.values()) and len(weighted) == len(parts):
        chosen = {name: found[0] for name, found in named.items()}
    else:
        chosen = dict(zip(parts, weighted, strict=False))
        if len(weighted) == len(parts) and not all(_fits(weighted[p]["weight"], parts[n]) for n, p in chosen.items()):
            alike = {n: [p for p in weighted if _fits(weighted[p]["weight"], part)] for n, part in parts.items()}
            if all(len(found) == 1 for found in alike.values()) and len({found[0] for found in alike.values()}) == len(
                parts
            ):
                chosen = {name: found[0] for name, found in alike.items()}
    wrong = next((n for n, p in chosen.items() if not _fits(weighted[p]["weight"], parts[n])), None)
    if wrong is not None or len(weighted) != len(parts):
        wants = ", ".join(f"{name} {list(_wanted(part))}" for name, part in parts.items())
        has = ", ".join(f"{name} {list(of['weight'].shape)}" for name, of in weighted.items())
        raise ImportedError(
            f"{source}: its weights are not those of the model, which has {wants}; the file has {has or 'none'}: "
            f"name them as the model's layers, or change the model"
        )
    return chosen


def _before(
    norm: str, order: list[str], weighted: Mapping[str, dict[str, np.ndarray]], channels: int, source: str
) -> str:
    """The weights that a batch norm follows: right before it, or of the same number."""
    at = order.index(norm)
    if at and order[at - 1] in weighted and not re.search(r"[A-Za-z]\d+$", norm):
        found = [order[at - 1]]
    else:
        parent, number = norm.rpartition(".")[0], re.findall(r"\d+$", norm)
        found = [each for each in weighted if each.rpartition(".")[0] == parent and re.findall(r"\d+$", each) == number]
    if len(found) != 1 or len(weighted[found[0]]["weight"]) != channels:
        raise ImportedError(
            f"{source}: {norm}: a batch norm of {channels} channels, and no weights right before it have as many: fold "
            f"it into its convolution first (torch.nn.utils.fuse_conv_bn_eval)"
        )
    return found[0]


def _fold(tensors: Tensors, norm: Mapping[str, np.ndarray]) -> None:
    gain = norm.get("weight", np.float64(1)) / np.sqrt(norm["running_var"].astype(np.float64) + EPS)
    bias = 0 if tensors.bias is None else tensors.bias
    tensors.bias = (bias - norm["running_mean"]) * gain + norm.get("bias", 0)
    tensors.weight = tensors.weight * gain.reshape(-1, *(1,) * (tensors.weight.ndim - 1))


def _recurrent(found: Imported, parts: Mapping[str, Part], back: Mapping[str, dict[str, np.ndarray]]) -> None:
    wanted = [name for name, part in parts.items() if isinstance(part.layer, Dense) and part.layer.recurrent]
    if len(wanted) != len(back):
        raise ImportedError(
            f"{found.source}: has recurrent weights for {len(back)} layers, and the model {len(wanted)} such layers"
        )
    for name, (prefix, of) in zip(wanted, back.items(), strict=True):
        features = parts[name].shape[0]
        if of["weight"].shape[:2] != (features, features) or np.any(of.get("bias", 0)):
            raise ImportedError(f"{found.source}: {prefix}: must be ({features}, {features}), without biases")
        found.tensors[name].back = of["weight"].reshape(features, features).astype(np.float64)


def _thresholds(
    found: Imported, modules: Mapping[str, dict[str, np.ndarray]], order: list[str], owners: Mapping[str, str]
) -> None:
    """Thresholds that stand among the tensors: of the weights before them."""
    last = None
    for prefix in order:
        last = owners.get(prefix, last)
        of = modules[prefix]
        level = next((of[name] for name in THRESHOLDS if name in of), None)
        if "beta" in of or "alpha" in of:
            _check_decays(found, prefix, of)
        if level is None:
            continue
        if last is None or level.size != 1 or not level.ravel()[0] > 0:
            raise ImportedError(f"{found.source}: {prefix}: one threshold above 0 behind weights is read")
        tensors, size = found.tensors[last], float(level.ravel()[0])
        if size != 1:
            tensors.weight = tensors.weight / size
            tensors.bias = None if tensors.bias is None else tensors.bias / size
            tensors.back = None if tensors.back is None else tensors.back / size
            found.notes.append(f"{last}: its threshold of {size:g} is 1 here: weights are divided by it")


def _check_decays(found: Imported, prefix: str, of: Mapping[str, np.ndarray]) -> None:
    """What snnTorch's neurons keep must be what the model's neurons keep."""
    neuron = found.model.neuron
    for name, decay in (("beta", neuron.voltage_decay), ("alpha", neuron.current_decay)):
        if name in of and np.abs(1 - of[name] - decay).max() > 1 / 4096:
            what = {"beta": "voltage_decay", "alpha": "current_decay"}[name]
            raise ImportedError(
                f"{found.source}: {prefix}: {name} is {np.ravel(of[name])[0]:.6g}, and the model's neurons have "
                f"{what} {decay:g}: set it to 1 - {name}"
            )


def _check_rest(
    modules: Mapping[str, dict[str, np.ndarray]],
    weighted: Mapping[str, Any],
    norms: Mapping[str, Any],
    back: Mapping[str, Any],
    source: str,
) -> None:
    """Nothing that counts may be passed over."""
    for prefix, of in modules.items():
        known = set(PASSED_OVER) | set(THRESHOLDS) | {"beta", "alpha"}
        known |= set(NORM) if prefix in norms else set()
        known |= {"weight", "bias"} if prefix in weighted or prefix in back else set()
        for name in of:
            if name not in known:
                raise ImportedError(
                    f"{source}: {prefix + '.' if prefix else ''}{name}: is none of the tensors that are read (weight, "
                    f"bias, threshold, and those of batch norms): leave it out of the file"
                )


def _averaged(found: Imported) -> None:
    """Pools of means: the weights behind them are so much smaller."""
    factor: dict[str, float] = {}
    for part in found.model.parts():
        scale = {factor.get(name, 1.0) for name in part.inputs}
        if isinstance(part.layer, Pool):
            factor[part.name] = scale.pop() / float(np.prod(part.layer.kernel))
        elif part.name in found.tensors:
            tensors = found.tensors[part.name]
            tensors.weight = tensors.weight * scale.pop()
        elif scale != {1.0}:
            raise ImportedError(f"{found.source}: {part.name}: adds means and spikes, which have different weights")
    found.notes.append("pools are means: the weights behind them are divided by the size of their windows")
