"""From the first phase to the second: norms calibrated and folded, biases absorbed, weights rounded to the chip's."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from mtt_lava.neuron import Centring, Norm
from mtt_lava.run import Run, Settings
from mtt_lava.spiking import Feedback, SpikingNetwork, Sum
from mtt_lava.temporal import METHODS, transform
from mtt_lava.training.batches import tensor
from netx_export.bounds import largest_sum
from netx_export.network import THRESHOLD_MAX
from netx_export.quantise import weight_scale

if TYPE_CHECKING:
    from mtt_lava.training.loop import Trainer

CALIBRATION_BATCHES = 10
RIDGE = 0.01
"""Weight of keeping small what biases are absorbed into, beside the mean square of what carries them."""
SLACK = 0.8
"""Share of the current's range that the weights of a layer may fill before they are rounded."""
MEASURED = 500
"""Training recordings over which currents are measured."""


class Moments:
    """First and second moments of what comes into the neurons of a layer.

    Parameters
    ----------
    synapse : torch.nn.Module
        Of a conv layer, each of whose input channels (of a group; groups are taken for alike) is summed over the
        kernel's reach; or of a dense layer, whose inputs are taken together.
    """

    def __init__(self, synapse: torch.nn.Module) -> None:
        self.synapse = synapse
        self.samples, self.first, self.second = 0, torch.zeros(()), torch.zeros(())

    def add(self, x: torch.Tensor) -> None:
        """Take note of input (N, C, H, W, T) or (N, F, T)."""
        frames = x.movedim(-1, 0).flatten(0, 1)
        if frames.dim() == 4:
            s, channels = self.synapse, frames.shape[1]
            ones = torch.ones(channels, 1, *s.weight.shape[2:4], device=x.device)
            sums = s.sums(frames, ones, channels).movedim(1, -1).reshape(-1, channels // s.groups)
        else:
            sums = frames.sum(1, keepdim=True)
        sums = sums.double()
        self.samples += len(sums)
        self.first, self.second = self.first + sums.sum(0), self.second + sums.T @ sums

    def constant(self, ridge: float) -> torch.Tensor:
        """The weight of each channel that comes nearest to a constant 1, (channels,) or (1,)."""
        first, second = self.first / self.samples, self.second / self.samples
        scale = second.diagonal().mean().clamp(min=torch.finfo(torch.float32).tiny)
        return torch.linalg.solve(second + ridge * scale * torch.eye(len(first), device=first.device), first).float()


def calibrate(trainer: Trainer) -> None:
    """Statistics of the norms over some batches at T alone: those of mixed configurations mean nothing."""
    for module in trainer.network.modules():
        if isinstance(module, Norm | Centring):
            module.reset(momentum=None)
    trainer.network.train()
    _at_full(trainer)


@torch.no_grad()
def _at_full(trainer: Trainer) -> None:
    """Some training batches at T."""
    generator = torch.Generator().manual_seed(trainer.settings.seed)
    order = torch.randperm(len(trainer.labels), generator=generator)
    full = (trainer.settings.time_steps,) * trainer.network.n_stages
    for chosen in order.split(trainer.settings.batch)[:CALIBRATION_BATCHES]:
        trainer.network(trainer.batch(chosen)[0], full)


def absorb(trainer: Trainer) -> None:
    """Fold every norm, and let weights stand for the bias that this leaves.

    What comes into a neuron is much alike for all samples. So a bias of every time step is, nearly, a little more
    weight on every input: the weight per input channel that comes nearest to a constant 1 (least squares over
    some batches at T), times the bias. It carries over to any number of time steps, and to none. Layer by
    layer, each with what really comes in once those before it are folded.
    """
    trainer.network.eval()
    for block in (each for each in trainer.network.weighted if not isinstance(each, Feedback)):
        moments = Moments(block.synapse)
        handle = block.synapse.register_forward_pre_hook(lambda _, x, to=moments: to.add(x[0]))
        _at_full(trainer)
        handle.remove()
        trainer.network.fold(block, moments.constant(RIDGE))


def lower(trainer: Trainer) -> dict[str, Any]:
    """End the first phase: calibrate, fold the norms, quantise. Accuracy before and after."""
    calibrate(trainer)
    some = np.arange(min(CALIBRATION_BATCHES * trainer.settings.batch, len(trainer.labels)))
    before = trainer.answer(trainer.frames, some)
    if trainer.settings.norm == "batch" and trainer.settings.biases == "absorbed":
        absorb(trainer)
    trainer.network.fold_norms(trainer.settings.biases in ("scaled", "kept"))
    quantise(trainer.settings, trainer.network)
    trainer.optimiser = trainer.new_optimiser()
    after = trainer.answer(trainer.frames, some)
    if trainer.progress:
        tqdm.write(
            f"epoch {trainer.done}: lowered to the chip's integers: accuracy on {before.samples} training samples "
            f"{before.accuracy:.1%} before, {after.accuracy:.1%} after (silent {after.silent:.1%})",
            file=sys.stderr,
        )
    return {"lowered": {"before": before.accuracy, "after": after.accuracy, "samples": before.samples}}


def quantise(settings: Settings, network: SpikingNetwork, fixed: Mapping[str, float] | None = None) -> None:
    """Let a network without norms run in the chip's integers, with a scale for each group of neurons.

    Parameters
    ----------
    settings : Settings
    network : SpikingNetwork
    fixed : mapping, optional
        Scales of groups that are not to be chosen here, by the name of what has their neurons.
    """
    names = dict(zip(network.blocks, network.names, strict=True))
    chosen: dict[torch.nn.Module, tuple[float, float | None]] = {}
    for owner, members in network.groups:
        found = (fixed or {}).get(names[owner])
        pair = (found, None) if found is not None else _weight_scale(settings, network, owner, members)
        chosen |= dict.fromkeys(members, pair)
    scales, reaches = zip(*(chosen[block] for block in network.weighted), strict=True)
    network.quantise(scales, settings.weight_bits, settings.weight_step, reaches)


def _weight_scale(
    settings: Settings, network: SpikingNetwork, owner: torch.nn.Module, members: Sequence[torch.nn.Module]
) -> tuple[float, float | None]:
    """Chip integers a unit of weight into a group of neurons, and the largest sum of one sign kept to, or None.

    All bits of the weights; or fewer, with sums that cannot take the current out of its 24 bits, where that costs
    a bit at most. A voltage readout, whose threshold is never passed, can have any scale.
    """
    names = dict(zip(network.blocks, network.names, strict=True))
    rows = [block.synapse.weight.detach().cpu().flatten(1).numpy() for block in members]
    if isinstance(owner, Sum):  # the weight of an identity shortcut must fit too
        rows.append(np.ones((len(rows[0]), sum(owner.spiking))))
    weight = np.concatenate(rows, axis=1)
    most = settings.chip.facts.threshold_max.value or THRESHOLD_MAX
    given = (weight, 1.0, settings.weight_bits, names[owner])
    full = weight_scale(*given, weight_step=settings.weight_step, threshold_max=most)
    decay = round(owner.neuron.current_decay.item())
    if network.weighted[0] in members or network.reset != "zero" or decay == 0:
        return full, None  # the input's range is the data's; without a clock there is no current
    reach = SLACK * largest_sum(decay, max(network.payload(block) for block in members))
    safe = weight_scale(*given, weight_step=settings.weight_step, threshold_max=most, reach_max=reach)
    readout = owner is network.blocks[-1] and settings.model.readout == "voltage"
    return (safe, reach) if readout or safe >= full / 2 else (full, None)


def measure(trainer: Trainer, run: Run) -> dict[str, tuple[int, int]]:
    """Largest |u| and |v| of every layer over training recordings, at the ends of the range of time steps."""
    from mtt_lava.deploy import to_network
    from netx_export.fast import backend as fast_backend
    from netx_export.limits import Limits, merged

    if trainer.network.reset != "zero":
        return {}
    settings, network = trainer.settings, to_network(run)
    found: dict[str, Limits] | None = {layer.name: Limits(0, 0) for layer in network.spiking}
    few = torch.linspace(0, len(trainer.labels) - 1, min(MEASURED, len(trainer.labels))).long().numpy()
    fewest = settings.t_min if METHODS[settings.method].mixes else settings.time_steps
    for some in trainer.frames.parts(few):
        frames = tensor(trainer.frames.take(some)).movedim(0, -1)
        for t in sorted({fewest, settings.time_steps}):
            form, still = settings.input_form, trainer.static
            # A still image is the same in every time step.
            counts = frames.expand(*frames.shape[:-1], t) if still else transform(frames, t, form)
            inputs = np.minimum(counts.round().int().numpy(), settings.input_max or np.iinfo(np.int32).max)
            limits = fast_backend.simulate(network, inputs, progress=trainer.progress, device="cpu").limits
            found = merged(found, limits)
    return {name: (limit.u_max or 0, limit.v_max or 0) for name, limit in (found or {}).items()}
