"""A run of a network of others: quantised for a chip, to be evaluated, exported and trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

import hw_profiles
from mtt_lava.data import Dataset, open_dataset
from mtt_lava.imports.graph import Imported, ImportedError
from mtt_lava.imports.pooling import without_pools
from mtt_lava.run import Run, RunError, Settings, locked
from mtt_lava.training import phases
from mtt_lava.training.batches import as_frames, tensor
from mtt_lava.training.loop import Trainer
from netx_export.files import replacing
from netx_export.network import THRESHOLD_MAX

if TYPE_CHECKING:
    from mtt_lava.spiking import SpikingNetwork

CALIBRATED = 250
"""Recordings over which the activations of an ANN are measured."""


def make(
    found: Imported,
    out: str | Path | None,
    *,
    profile: str | None = None,
    data: str = "",
    root: str | None = None,
    dataset: Dataset | None = None,
    time_steps: int | None = None,
    biases: str | None = None,
    ann: bool = False,
    percentile: float = 99.9,
    input_scale: float = 1.0,
    allow_inexact: bool = False,
) -> Run:
    """The run, written where `out` names a folder; see `mtt_lava.imports.import_network`."""
    usual = "speck2e" if found.reset == "subtract" else Settings.model_fields["profile"].default
    profile = profile or found.profile or usual
    chip = hw_profiles.load(profile)
    if dataset is None and data:
        dataset = open_dataset(data, split="train", root=root)
    if ann:
        found = _spiking(found, dataset, time_steps, percentile, input_scale)
    found = _fitted(found, chip, profile, ann, allow_inexact)
    values = {"profile": profile, "chip": chip, "data": data, "root": root, "time_steps": time_steps}
    values |= {"norm": "batch", "biases": _biases(found, chip, profile, biases, dataset, time_steps)}
    settings = Settings._made(found.model, values)
    network = settings.build()
    trainer = None if dataset is None else Trainer(settings, None, dataset, progress=False)
    if settings.biases == "absorbed":
        assert trainer is not None
        trainer.network = network
        _fill(network, found, absorbed=True)
        phases.absorb(trainer)
    else:
        _fill(network, found)
    phases.quantise(settings, network, _scales(found, network, settings))
    run = Run(settings, network)
    run.imported = {"source": found.source, "differs": found.differs, "notes": found.notes}
    if trainer is not None:
        trainer.network = network
        run.classes, run.measured = trainer.classes, phases.measure(trainer, run)
    if out is not None:
        _save(run, Path(out))
    return run


def _save(run: Run, folder: Path) -> None:
    """Write a new run folder."""
    with locked(folder):
        if (folder / "settings.json").exists():
            raise RunError(f"{folder}: holds a run already: choose another folder")
        run.save(folder)
        with replacing(folder / "metrics.jsonl") as temporary:
            temporary.write_text("")


def _spiking(
    found: Imported, dataset: Dataset | None, time_steps: int | None, percentile: float, input_scale: float
) -> Imported:
    """An ANN, normalised over the data."""
    from mtt_lava.imports.ann import normalised

    if not 0 < percentile <= 100 or not input_scale > 0:
        raise ImportedError(f"percentile {percentile:g} and input scale {input_scale:g}: must be 0..100, and above 0")
    if dataset is None:
        raise ImportedError(
            f"{found.source}: an ANN is converted by what its layers give over data: name them (--data NAME)"
        )
    if found.reset is not None:
        raise ImportedError(f"{found.source}: has neurons that spike: it is no ANN, which is converted")
    steps = time_steps or Settings.model_fields["time_steps"].default
    settings = Settings._made(found.model, {"data": dataset.name, "time_steps": steps})
    frames, labels = as_frames(settings, dataset, 1)
    chosen = np.linspace(0, len(labels) - 1, min(CALIBRATED, len(labels))).astype(int)
    x = tensor(frames.take(chosen))[0] * input_scale
    # The charge of a recording is shared out among its time steps; a still image is shown in each.
    unit = input_scale * (1 if dataset.static else steps)
    result = normalised(found, x if len(found.model.input) == 3 else x.flatten(1), unit, percentile)
    result.notes.append(f"rates were set over {len(chosen)} recordings of {dataset.name}, for T = {steps}")
    return result


def _fitted(found: Imported, chip: hw_profiles.Profile, profile: str, ann: bool, allow_inexact: bool) -> Imported:
    """The network for a chip; what its neurons do otherwise is refused, or noted."""
    facts, differs = chip.facts, list(found.differs)
    if found.reset is not None and facts.reset.value != found.reset:
        differs.append(
            f"neurons reset {_RESETS[found.reset]}, and those of {profile} {_RESETS.get(facts.reset.value or '', '?')}"
        )
    if facts.clocked.value is False and found.model.readout == "voltage" and not ann:
        differs.append(f"the answer is a voltage, and on {profile}, which has no clock, the spikes of these neurons")
    if differs and not allow_inexact:
        more = f" (and {len(differs) - 1} more)" if len(differs) > 1 else ""
        raise ImportedError(
            f"{found.source}: {differs[0]}{more}: choose another --profile; or --allow-inexact takes the weights all "
            f"the same, for training to go on from"
        )
    if facts.pool_without_neuron.value:
        if found.maxima:
            raise ImportedError(f"{found.source}: {found.maxima[0]}: takes the largest, and pools of {profile} sum")
    else:
        found = without_pools(found, profile)
    return replace(found, differs=differs)


_RESETS = {"zero": "to zero", "subtract": "by subtraction"}


def _biases(
    found: Imported,
    chip: hw_profiles.Profile,
    profile: str,
    chosen: str | None,
    dataset: Dataset | None,
    time_steps: int | None,
) -> str:
    """What becomes of biases."""
    having = [name for name, tensors in found.tensors.items() if tensors.bias is not None]
    if not having:
        return "none"
    first = f"{found.source}: {having[0]}: has biases"
    chosen = chosen or ("kept" if dataset is None or dataset.static else "scaled")
    if chosen in ("kept", "scaled") and chip.facts.bias_allowed.value is False:
        raise ImportedError(
            f"{first}, and {profile} has none: use --biases absorbed, which lets weights stand for them as measured "
            f"over --data NAME, or none"
        )
    if chosen == "scaled" and time_steps is None:
        raise ImportedError(
            f"{first}, which are added in every time step, and a recording's charge is not: say for how many time "
            f"steps they are right, with --time-steps T"
        )
    if chosen == "absorbed" and dataset is None:
        raise ImportedError(f"{first}, which are absorbed as measured over data: name them (--data NAME)")
    if chosen == "none":
        found.notes.append(f"biases are removed: of {', '.join(having)}")
    return chosen


def _fill(network: SpikingNetwork, found: Imported, absorbed: bool = False) -> None:
    """Give a network of the model, freshly built, the values that were found."""
    blocks = dict(zip(network.names, network.blocks, strict=True))
    if not absorbed:
        network.fold_norms(True)
    for name, tensors in found.tensors.items():
        block, weight = blocks[name], blocks[name].synapse.weight.data
        _copy(weight, tensors.weight)
        if tensors.back is not None:
            _copy(block.feedback.synapse.weight.data, tensors.back)
        bias = np.zeros(len(weight)) if tensors.bias is None else tensors.bias
        if absorbed:
            norm = block.neuron.norm
            # Statistics with which it does nothing but add.
            norm.power.fill_(1 - norm.eps)
            norm.weight.data.fill_(1)
            norm.offset.data.copy_(torch.from_numpy(bias))
        else:
            owner = next(owner for owner, members in network.groups if block in members)
            owner.neuron.norm.value.data += torch.from_numpy(bias).float()
    if not absorbed and not any(tensors.bias is not None for tensors in found.tensors.values()):
        for owner, _ in network.groups:
            owner.neuron.norm = None


def _copy(weight: torch.Tensor, values: np.ndarray) -> None:
    weight.copy_(torch.from_numpy(np.ascontiguousarray(values)).reshape(weight.shape))


def _scales(found: Imported, network: SpikingNetwork, settings: Settings) -> dict[str, float]:
    """Scales of the groups of neurons whose weights are a chip's integers already, and stay the same."""
    names = dict(zip(network.blocks, network.names, strict=True))
    scales = {}
    facts = settings.chip.facts
    low, high = facts.weight_min.value or 0, facts.weight_max.value or 0
    for owner, members in network.groups:
        tensors = [found.tensors[names[block]] for block in members if block in names]
        whole = _common([each.whole for each in tensors])
        if whole is None:
            continue
        values = [each * whole for part in tensors for each in (part.weight, part.back) if each is not None]
        # An identity shortcut is a weight as large as the threshold.
        values += [np.full(1, whole)] * (sum(owner.spiking) if hasattr(owner, "spiking") else 0)
        integers = np.rint(np.concatenate([np.ravel(each) for each in values]))
        factor = 1 if not (integers % settings.weight_step).any() else settings.weight_step
        integers *= factor
        most = facts.threshold_max.value or THRESHOLD_MAX
        if integers.min() >= low and integers.max() <= high and whole * factor <= most:
            scales[names[owner]] = whole * factor
    return scales


def _common(values: Sequence[float | None]) -> float | None:
    return values[0] if len(set(values)) == 1 else None
