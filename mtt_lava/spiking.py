"""The spiking networks built from models.

A model becomes a network of SLAYER CUBA blocks in stages (`mtt_lava.model.Model.stages`): layers of one stage share
their number of time steps. A temporal transformation stands on every edge from one stage to another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from mtt_lava import kernels
from mtt_lava.model import Add, Average, Conv, ConvT, Dense, Model, NeuronSpec, Pool, sends_spikes
from mtt_lava.neuron import WEIGHT_UNIT, Bias, Centring, Neuron, Norm, slayer
from mtt_lava.temporal import transform_several
from netx_export.network import INPUT


class _Weights:
    """What our synapses do with their weights before they use them."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.centring: Centring | None = None
        self.precision: torch.dtype | None = None

    def product(
        self, of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], x: torch.Tensor, weight: torch.Tensor
    ) -> torch.Tensor:
        """What `of` makes of input and weights, in the precision that is set; spikes are whole numbers in any."""
        if self.precision is None:
            return of(x, weight)
        return of(x.to(self.precision), weight.to(self.precision)).to(x.dtype)

    def used(self, frames: torch.Tensor) -> torch.Tensor:
        """Quantised, or centred on the input (N, C, ...)."""
        weight: torch.Tensor = self.weight if self.pre_hook_fx is None else self.pre_hook_fx(self.weight)  # type: ignore[attr-defined]
        return weight if self.centring is None else self.centring(weight, frames)


class _ConvSynapse(_Weights, slayer.synapse.Conv):
    """SLAYER's convolution as one two-dimensional convolution over all samples and time steps."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        frames = x.movedim(-1, 0)
        flat = frames.flatten(0, 1)
        flat = self.product(partial(self.sums, groups=self.groups), flat, self.used(flat)[..., 0])
        return flat.view(*frames.shape[:2], *flat.shape[1:]).movedim(0, -1)

    def sums(self, frames: torch.Tensor, weight: torch.Tensor, groups: int) -> torch.Tensor:
        """What weights (outputs, inputs / groups, height, width) make of (N, C, H, W)."""
        stride = tuple(self.stride[:2])
        if tuple(weight.shape[2:]) == (1, 1) and not any(self.padding[:2]):
            # The same pixels, taken first: PyTorch 2.3's gradient of a strided 1x1 convolution of 4 channels that lie
            # innermost writes beyond its memory on CPUs without AVX-512.
            frames, stride = frames[..., :: stride[0], :: stride[1]], (1, 1)
        return F.conv2d(frames, weight, None, stride, self.padding[:2], self.dilation[:2], groups)


class _ConvTSynapse(_ConvSynapse):
    """The transposed convolution of weights that lie as those of a convolution, outputs first."""

    def sums(self, frames: torch.Tensor, weight: torch.Tensor, groups: int) -> torch.Tensor:
        """As that of a convolution."""
        weight = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
        return F.conv_transpose2d(frames, weight, None, self.stride[:2], self.padding[:2], 0, groups, self.dilation[:2])


class _DenseSynapse(_Weights, slayer.synapse.Dense):
    """SLAYER's dense layer as one matrix product over all samples and time steps."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        frames = x.movedim(-1, 0)
        return self.product(F.linear, frames, self.used(frames.flatten(0, 1)).flatten(1)).movedim(0, -1)


class _Quantiser:
    """A synapse's `pre_hook_fx`: the weights a chip can hold, in SLAYER's units, or (descaled) in the chip's."""

    def __init__(self, weight_scale: float, weight_bits: int, weight_step: int = 2, reach: float | None = None) -> None:
        self.weight_scale, self.weight_step, self.reach = weight_scale, weight_step, reach
        self.low, self.high = -(1 << (weight_bits - 1)), (1 << (weight_bits - 1)) - 1

    def __call__(self, weight: torch.Tensor, descale: bool = False) -> torch.Tensor:
        step = self.weight_step
        integers = (weight.detach() * (self.weight_scale / step)).round_().clamp_(self.low, self.high).mul_(step)
        if descale:
            return integers
        return _Straight.apply(weight, integers.div_(WEIGHT_UNIT), self.weight_scale / WEIGHT_UNIT)


class _Straight(torch.autograd.Function):
    """Quantised weights, with the gradient of `factor` times the weights that they were made of."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, quantised: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.factor = factor
        return quantised

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return gradients[0] * ctx.factor, None, None


class Feedback(torch.nn.Module):
    """Recurrent weights of a dense block: what its spikes add to its current one time step later."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.synapse = _DenseSynapse(features, features)

    def forward(self, spikes: torch.Tensor) -> torch.Tensor:
        """Synaptic input (N, F) of spikes (N, F)."""
        current: torch.Tensor = self.synapse(spikes.unsqueeze(-1))
        return current.squeeze(-1)


class SumPool(torch.nn.Module):
    """Sum pool without neurons, (N, C, H, W, T) to (N, C, H', W', T)."""

    def __init__(self, kernel: tuple[int, int], stride: tuple[int, int]) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Sum over windows."""
        frames = x.movedim(-1, 0)
        images = frames.flatten(0, 1)
        if kernels.ready(images):
            flat = _SumPool.apply(images, self.kernel, self.stride)
        else:
            flat = F.avg_pool2d(images, self.kernel, self.stride, divisor_override=1)
        return flat.view(*frames.shape[:2], *flat.shape[1:]).movedim(0, -1)


class _SumPool(torch.autograd.Function):
    """Sums over windows of images (N, C, H, W) whose channels lie innermost: PyTorch's take four times as long."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, kernel: tuple[int, int], stride: tuple[int, int]) -> torch.Tensor:
        ctx.geometry, ctx.shape = (tuple(kernel), tuple(stride)), x.shape
        x = x.contiguous(memory_format=torch.channels_last)
        size = ((x.shape[d + 2] - kernel[d]) // stride[d] + 1 for d in (0, 1))
        out = torch.empty((*x.shape[:2], *size), memory_format=torch.channels_last)
        kernels.run_images(kernels.pool, x, out, *ctx.geometry)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        out = torch.empty(ctx.shape, memory_format=torch.channels_last)
        kernels.run_images(kernels.unpool, gradient, out, *ctx.geometry)
        return out, None, None


class Sum(torch.nn.Module):
    """Sum of several inputs (N, C, H, W, T): of spikes, without neurons; or of currents, into neurons.

    Attributes
    ----------
    neuron : Neuron or absent
    identity : float
        Weight of the inputs that are spikes: 1, or what quantised weights hold of it.
    spiking : tuple of bool
        For every input whether it is spikes.
    """

    def __init__(self, spiking: Sequence[bool], neuron: Neuron | None) -> None:
        super().__init__()
        self.spiking, self.identity = tuple(spiking), 1.0
        if neuron is not None:
            self.neuron = neuron

    def forward(self, inputs: Sequence[torch.Tensor], lengths: Sequence[int] = ()) -> torch.Tensor:
        """Spikes; `lengths` are those of `mtt_lava.neuron.Neuron.forward`."""
        total = inputs[0] if not self.spiking[0] or self.identity == 1 else inputs[0] * self.identity
        for x, spiking in zip(inputs[1:], self.spiking[1:], strict=True):
            total = torch.add(total, x, alpha=self.identity if spiking else 1)
        return self.neuron(total, lengths) if hasattr(self, "neuron") else total


READOUT_GAIN = 0.1
"""Of the norm of a voltage readout before training."""


class SpikingNetwork(torch.nn.Module):
    """A model as SLAYER CUBA blocks in stages.

    Parameters
    ----------
    model : Model
        What to build.
    pool_neurons : bool
        Sum pools have neurons (chips of one-bit messages), or pass sums on.
    norm : {"centred", "batch", "scale", None}
        Normalisation of the dendritic current while training: its scale, with weights centred on the mean input
        (`mtt_lava.neuron.Centring`); batch norm; its scale alone.
    input_max : int, optional
        Largest value an input spike can carry on the chip; larger event counts are cut.
    form, input_form : str
        Form of the temporal transformations between stages, and of the one before the first; see
        `mtt_lava.temporal.matrix`.
    reset : {"zero", "subtract"}
        Of all neurons, see `mtt_lava.neuron.Neuron`.

    Attributes
    ----------
    blocks : torch.nn.ModuleList
        One SLAYER block (or `SumPool`, or `Sum`) a layer of the model.
    names : list of str
        For every block that of its layer.
    stages : list of int
        For every block the number of its stage.
    groups : list of tuple
        What has neurons and trained weights, each with the blocks whose weights come in: one scale for all.
    weight_bits : int or None
        Width of the weights once quantised.
    weight_step : int
        They are multiples of it.
    """

    def __init__(
        self,
        model: Model,
        pool_neurons: bool = True,
        norm: str | None = "batch",
        input_max: int | None = None,
        form: str = "group",
        input_form: str = "group",
        reset: str = "zero",
    ) -> None:
        super().__init__()
        self.model = model
        self.reset = reset
        self.form, self.input_form = form, input_form
        self.input_max = input_max
        self.weight_bits: int | None = None
        self.weight_step = 2
        self.parts = [part for part in model.parts() if not isinstance(part.layer, Average)]
        self.stages = model.stages()[: len(self.parts)]
        blocks: list[torch.nn.Module] = []
        spikes = {INPUT: True} | {part.name: sends_spikes(part.layer) for part in self.parts}
        for part in self.parts:
            if isinstance(part.layer, Add):
                spiking = [spikes[name] for name in part.inputs]
                blocks.append(Sum(spiking, _neuron(model.neuron, reset) if part.layer.neuron else None))
            elif not isinstance(part.layer, Average):
                blocks.append(_block(part.layer, part.before, part.shape, model.neuron, pool_neurons, norm, reset))
        if model.readout == "voltage":
            # A leaking readout would weigh late time steps more than early ones, and each T differently.
            blocks[-1].neuron = Neuron(1.0, 1.0, 0.0)
            blocks[-1].neuron.norm = _norm(norm, self.parts[-1].shape[0])
            if norm is not None:
                # The loss multiplies the readout; a first answer far from even costs deep networks their first epochs.
                torch.nn.init.constant_(blocks[-1].neuron.norm.weight, READOUT_GAIN)
        for block in filter(_trained, blocks) if norm == "centred" else ():
            weight = block.synapse.weight
            block.synapse.centring = Centring(weight.shape[1] * block.synapse.groups, len(weight))
        self.blocks = torch.nn.ModuleList(blocks)
        self.names = [part.name for part in self.parts]
        self.groups = self._groups()
        self._last_use = {name: at for at, part in enumerate(self.parts) for name in part.inputs}
        self._stage_of = {INPUT: -1} | dict(zip(self.names, self.stages, strict=True))

    def _groups(self) -> list[tuple[torch.nn.Module, list[torch.nn.Module]]]:
        found = dict(zip(self.names, self.blocks, strict=True))
        groups: list[tuple[torch.nn.Module, list[torch.nn.Module]]] = []
        for part, block in zip(self.parts, self.blocks, strict=True):
            if isinstance(block, Sum) and hasattr(block, "neuron"):
                pairs = zip(part.inputs, block.spiking, strict=True)
                groups.append((block, [found[name] for name, spiking in pairs if not spiking]))
            elif _trained(block) and sends_spikes(part.layer):
                groups.append((block, [block, *([block.feedback] if hasattr(block, "feedback") else [])]))
        return groups

    def payload(self, block: torch.nn.Module) -> int:
        """How many spikes a sum of spikes can bring into a block at once by one input; 1 without such sums."""
        parts = {part.name: part for part in self.parts}

        def most(name: str) -> int:
            summed = name in parts and isinstance(parts[name].layer, Add) and not parts[name].layer.neuron  # type: ignore[union-attr]
            return sum(map(most, parts[name].inputs)) if summed else 1

        found = [part for part, each in zip(self.parts, self.blocks, strict=True) if each is block]
        return max(map(most, found[0].inputs)) if found else 1  # what neurons feed back are their own spikes

    @property
    def weighted(self) -> list[torch.nn.Module]:
        """What has trained weights, in order: blocks, and the feedback of those that have one."""
        of = (each for block in self.blocks for each in (block, getattr(block, "feedback", block)))
        return [each for each in dict.fromkeys(of) if _trained(each)]

    @property
    def weighted_names(self) -> list[str]:
        """Names of the blocks that have trained weights."""
        return [name for name, block in zip(self.names, self.blocks, strict=True) if _trained(block)]

    @property
    def spiking_names(self) -> list[str]:
        """Names of the blocks whose neurons spike."""
        silent = len(self.blocks) - 1 if self.model.readout == "voltage" else None
        return [name for i, name in enumerate(self.names) if i != silent and self._spikes(i)]

    def _spikes(self, at: int) -> bool:
        """Whether block number `at` has neurons that spike."""
        return sends_spikes(self.parts[at].layer) and hasattr(self.blocks[at], "neuron")

    @property
    def weights(self) -> int:
        """Number of trained synaptic weights."""
        return sum(block.synapse.weight.numel() for block in self.weighted)

    @property
    def biases(self) -> list[Bias]:
        """Biases left by folding a batch norm, if they were kept."""
        return [block.neuron.norm for block, _ in self.groups if isinstance(block.neuron.norm, Bias)]

    @property
    def n_stages(self) -> int:
        """Number of stages: what a temporal configuration has numbers for."""
        return max(self.stages) + 1

    def copies(self, time_steps: Sequence[int], first: float) -> list[float]:
        """How many times the charge of a recording comes into each block, where it comes `first` times into the input.

        Summing frames keeps it, copying them multiplies it, and so, by less than 1, does averaging them. Where ways of
        different counts meet, their mean.
        """
        found, at = {INPUT: first}, {INPUT: 0} | dict(zip(self.names, self.stages, strict=True))
        for part in self.parts:
            ways = []
            for name in part.inputs:
                longer = time_steps[at[part.name]] / time_steps[at[name]]
                ways.append(found[name] * (longer if self.form == "mean" and name != INPUT else max(1.0, longer)))
            found[part.name] = sum(ways) / len(ways)
        return [found[name] for name in self.names]

    def forward(
        self,
        x: torch.Tensor,
        time_steps: Sequence[int] | None = None,
        spikes: list[torch.Tensor] | None = None,
        each: bool = False,
    ) -> torch.Tensor:
        """The readout of frames `x`.

        Parameters
        ----------
        x : torch.Tensor
            (N, C, H, W, T) or (N, F, T), events a frame.
        time_steps : sequence of int, optional
            A number of time steps for every stage; without it every stage runs the T of `x`.
        spikes : list, optional
            Takes the spikes of every block with spiking neurons, (N, C, H, W, T) or (N, F, T).
        each : bool
            Return what every time step adds to the readout, (T, N, classes): their sum over time is the readout.

        Returns
        -------
        torch.Tensor
            (N, classes): membrane voltage after the last time step (voltage readout, in SLAYER's units: 1/4096 of
            the chip's once quantised) or spike count; summed over a class's outputs where an average joins them.
        """
        several = None if time_steps is None else [time_steps]
        return self.several(x, several, None if spikes is None else [spikes], each)[0]

    def several(
        self,
        x: torch.Tensor,
        configurations: Sequence[Sequence[int]] | None,
        spikes: Sequence[list[torch.Tensor]] | None = None,
        each: bool = False,
    ) -> list[torch.Tensor]:
        """The readouts of frames `x` in several temporal configurations, in one pass.

        Their time steps lie one behind the other, so that a synapse is one product over those of all. Neurons start
        anew in each, with moments of their own for a norm; weights are centred on the mean input of all
        (`mtt_lava.neuron.Centring`). Else it is as running them apart, within rounding; on integers the same.

        Parameters
        ----------
        x, each
            As those of `forward`.
        configurations : sequence of sequence of int
            For each a number of time steps for every stage; None stands for one in which every stage runs the T of `x`.
        spikes : sequence of list, optional
            For each what takes its spikes.

        Returns
        -------
        list of torch.Tensor
        """
        # Time slowest in memory: every synapse is then one product over all time steps, without a copy. Channels lie
        # innermost, where PyTorch's convolutions are quickest on a CPU.
        frames = x.movedim(-1, 0)
        if frames.dim() == 5 and kernels.ready(frames):
            frames = frames.flatten(0, 1).contiguous(memory_format=torch.channels_last).view(frames.shape)
        else:
            frames = frames.contiguous()
        outputs = {INPUT: frames.movedim(0, -1)}
        stages, steps = self._stage_of, len(frames)

        def lengths_of(stage: int) -> list[int]:
            if configurations is None or stage < 0:
                return [steps]
            return [time_steps[stage] for time_steps in configurations]

        for number, (part, block) in enumerate(zip(self.parts, self.blocks, strict=True)):
            inputs = [outputs[name] for name in part.inputs]
            lengths = lengths_of(self.stages[number])
            for i, name in enumerate(part.inputs):
                if configurations is not None and stages[name] != self.stages[number]:
                    form = self.input_form if name == INPUT else self.form
                    inputs[i] = transform_several(inputs[i], lengths_of(stages[name]), lengths, form)
                if name == INPUT and self.input_max is not None:
                    inputs[i] = inputs[i].clamp(max=self.input_max)
            outputs = {name: x for name, x in outputs.items() if self._last_use[name] > number}
            x = inputs[0]
            if isinstance(part.layer, Dense) and x.dim() == 5:
                x = x.flatten(1, 3)
            if number == len(self.blocks) - 1:
                break
            if isinstance(block, Sum):
                x = block(inputs, lengths)
            elif isinstance(block, SumPool):
                x = block(x)
            elif hasattr(block, "feedback"):
                sent = (block.neuron.recur(run, block.feedback) for run in _runs(block.synapse(x), lengths))
                x = _joined(list(sent))
            elif sends_spikes(part.layer):
                x = block.neuron(block.synapse(x), lengths)
            else:
                x = _joined([block.neuron.current(run) for run in _runs(block.synapse(x), lengths)])
            outputs[part.name] = x
            if spikes is not None and self._spikes(number):
                for taken, run in zip(spikes, _runs(x, lengths), strict=True):
                    taken.append(run)
        answers = []
        for number, run in enumerate(_runs(self.blocks[-1].synapse(x), lengths)):
            if self.model.readout == "voltage":
                answer = self.blocks[-1].neuron.integrate(run, each)
            else:
                counted, answer = self.blocks[-1].neuron.count(run, each)
                if spikes is not None:
                    spikes[number].append(counted)
            answers.append(self._by_class(answer))
        return answers

    @contextmanager
    def carrying(self) -> Iterator[None]:
        """Inside, a forward goes on where the last one ended, and no gradient goes back to it.

        So frames can come in one after the other, with memory for one of them only; neurons run in plain PyTorch.
        """
        neurons = [block.neuron for block in self.blocks if hasattr(block, "neuron")]
        for neuron in neurons:
            neuron.carried = {}
        try:
            yield
        finally:
            for neuron in neurons:
                neuron.carried = None

    def _by_class(self, answer: torch.Tensor) -> torch.Tensor:
        """Sums over the outputs of each class, where an average says that it has several."""
        if answer.shape[-1] == self.model.classes:
            return answer
        # Sums of the chip's integers can take more bits than float32 has.
        return answer.unflatten(-1, (self.model.classes, -1)).sum(-1, dtype=None if self.training else torch.float64)

    @property
    def readout_unit(self) -> float:
        """What the readout counts in: spikes, or the last layer's threshold; times the outputs of a class."""
        unit = 1.0 if self.model.readout == "count" else self.blocks[-1].neuron.threshold
        return unit * self.parts[-1].shape[0] / self.model.classes

    def fold(self, block: torch.nn.Module, carrier: torch.Tensor | None = None, bias: bool = False) -> None:
        """Fold a block's norm into its weights.

        Parameters
        ----------
        block : torch.nn.Module
            One of `weighted`.
        carrier : torch.Tensor, optional
            Weights, one an input channel or one for all, with which the inputs come to about 1: times what the norm
            adds to the current they are added to the weights.
        bias : bool
            Keep what the norm adds to the current as a bias; else, without `carrier`, it is removed.
        """
        if isinstance(block, Feedback):  # whose current is added behind the norm
            return
        norm, weight, centring = block.neuron.norm, block.synapse.weight, block.synapse.centring
        if not isinstance(norm, Norm):
            return
        if centring is not None:
            weight.data.copy_(centring.eval()(weight, None).detach())
            block.synapse.centring = None
        weight.data.mul_(norm.gain.view(-1, *(1,) * (weight.dim() - 1)))
        if carrier is not None:
            weight.data.add_((norm.bias.view(-1, 1) * carrier).view(len(weight), -1, *(1,) * (weight.dim() - 2)))
        block.neuron.norm = None
        if bias:
            # What currents without neurons add to is that of the neurons they come to.
            owner = next(owner for owner, members in self.groups if block in members)
            before = owner.neuron.norm.value.detach() if isinstance(owner.neuron.norm, Bias) else 0
            owner.neuron.norm = Bias(norm.bias + before)

    def fold_norms(self, biases: bool) -> None:
        """Fold every norm that is left into the weights; what it adds to the current becomes a bias, or is removed.

        Parameters
        ----------
        biases : bool
            Keep the biases. False is the paper's bias removal: means and offsets are set to 0.
        """
        for block in self.weighted:
            self.fold(block, bias=biases)

    def multiply_in(self, precision: torch.dtype | None) -> None:
        """Let weights and spikes be multiplied in this precision, None being their own; integers are, in any case."""
        for block in self.weighted:
            block.synapse.precision = precision

    def quantise(
        self,
        weight_scales: Sequence[float],
        weight_bits: int,
        weight_step: int = 2,
        reaches: Sequence[float | None] | None = None,
    ) -> None:
        """Let every forward run in the chip's integers; gradients go straight through.

        Parameters
        ----------
        weight_scales : sequence of float
            For every layer with weights: chip integers a unit of weight (`netx_export.quantise.weight_scale`).
        weight_bits : int
            Width of the weights, sign included.
        weight_step : int
            Weights are multiples of it: of Loihi's nine bits the lowest is lost where signs are mixed.
        reaches : sequence of float or None, optional
            For every layer with weights: largest sum of its integers of one sign that `keep_reaches` lets a neuron
            have; None: any.
        """
        self.weight_bits, self.weight_step = weight_bits, weight_step
        reaches = reaches or [None] * len(weight_scales)
        for block, scale, reach in zip(self.weighted, weight_scales, reaches, strict=True):
            block.synapse.pre_hook_fx = _Quantiser(scale, weight_bits, weight_step, reach)
        self.multiply_in(None)
        for owner, members in self.groups:
            quantiser = members[0].synapse.pre_hook_fx
            if any(block.synapse.pre_hook_fx.weight_scale != quantiser.weight_scale for block in members):
                raise ValueError("weights into one group of neurons must have one scale")
            owner.neuron.threshold_mantissa = round(quantiser.weight_scale)
            if isinstance(owner, Sum):
                owner.identity = quantiser(torch.ones(()), descale=True).item() / WEIGHT_UNIT
            if isinstance(owner.neuron.norm, Bias):
                owner.neuron.norm.weight_scale = quantiser.weight_scale
        for block in self.blocks:
            if hasattr(block, "neuron"):
                block.neuron.exact = True

    @property
    def _quantisers(self) -> list[_Quantiser]:
        hooks = [block.synapse.pre_hook_fx for block in self.weighted]
        return [hook for hook in hooks if isinstance(hook, _Quantiser)]

    @property
    def weight_scales(self) -> list[float]:
        """The scales `quantise` was given; empty before."""
        return [quantiser.weight_scale for quantiser in self._quantisers]

    @property
    def reaches(self) -> list[float | None]:
        """The largest sums `quantise` was given; empty before."""
        return [quantiser.reach for quantiser in self._quantisers]

    @torch.no_grad()
    def keep_reaches(self) -> None:
        """Scale down the weights of neurons whose sums an optimiser's step has made larger than `quantise` allows."""
        for owner, members in self.groups if self._quantisers else ():
            quantiser = members[0].synapse.pre_hook_fx
            if quantiser.reach is None:
                continue
            rows = [block.synapse.weight.flatten(1) for block in members]
            up = torch.stack([each.relu().sum(1) for each in rows]).sum(0)
            down = up - torch.stack([each.sum(1) for each in rows]).sum(0)
            sums = torch.maximum(up, down) * quantiser.weight_scale
            fixed = sum(owner.spiking) * quantiser.weight_scale if isinstance(owner, Sum) else 0
            for weight in (block.synapse.weight for block in members):
                weight.mul_(((quantiser.reach - fixed) / sums).clamp(max=1).view(-1, *(1,) * (weight.dim() - 1)))


_SYNAPSES = {"conv": _ConvSynapse, "convT": _ConvTSynapse}


def _norm(norm: str | None, channels: int) -> Norm | None:
    return None if norm is None else Norm(channels, centred=norm == "batch")


def _runs(x: torch.Tensor, lengths: Sequence[int]) -> Sequence[torch.Tensor]:
    """The runs of these lengths that lie one behind the other on the time axis of (..., T)."""
    return [x] if len(lengths) == 1 else x.split(lengths, -1)


def _joined(runs: Sequence[torch.Tensor]) -> torch.Tensor:
    """And back, in the same order of memory: time slowest."""
    return runs[0] if len(runs) == 1 else torch.cat([run.movedim(-1, 0) for run in runs]).movedim(0, -1)


def _trained(block: torch.nn.Module) -> bool:
    return isinstance(getattr(block, "synapse", None), _ConvSynapse | _DenseSynapse)


def _neuron(neuron: NeuronSpec, reset: str) -> Neuron:
    decays = {"current_decay": neuron.current_decay, "voltage_decay": neuron.voltage_decay}
    return Neuron(1.0, **decays, surrogate=neuron.surrogate, width=neuron.width, reset=reset)


def _block(
    layer: Conv | ConvT | Dense | Pool,
    before: tuple[int, ...],
    shape: tuple[int, ...],
    neuron: NeuronSpec,
    pool_neurons: bool,
    norm: str | None,
    reset: str,
) -> torch.nn.Module:
    """The SLAYER block of one layer, with our neuron and synapse in it."""
    if isinstance(layer, Pool):
        pool = SumPool(layer.kernel, layer.stride or layer.kernel)
        if not pool_neurons:
            return pool
        # Threshold between no spike and one; the gradient is that of min(sum, 1).
        params: dict[str, Any] = {"threshold": 0.5, "current_decay": 1.0, "voltage_decay": 0.0}
        block = slayer.block.cuba.Pool(dict(params), pool.kernel, pool.stride, delay_shift=False)
        block.synapse = pool
        block.neuron = Neuron(**params, surrogate="rectangular")
        return block
    params = {"threshold": 1.0, "current_decay": neuron.current_decay, "voltage_decay": neuron.voltage_decay}
    # SLAYER blocks change and share the dictionary they are given: one each.
    if isinstance(layer, Dense):
        block = slayer.block.cuba.Dense(dict(params), math.prod(before), layer.features, delay_shift=False)
        block.synapse = _DenseSynapse(math.prod(before), layer.features)
        if layer.recurrent:
            block.feedback = Feedback(layer.features)
    else:
        shape_args = (
            before[0],
            layer.channels,
            layer.kernel,
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups,
        )
        block = slayer.block.cuba.Conv(dict(params), *shape_args, delay_shift=False)
        block.synapse = _SYNAPSES[layer.type](*shape_args)
    if not layer.neuron:
        # The current that lasts is that of the neurons that it comes to.
        neuron = neuron.model_copy(update={"current_decay": 1.0})
    block.neuron = _neuron(neuron, reset)
    block.neuron.norm = _norm(norm, shape[0])
    return block
