"""Training: Algorithm 1 of the paper, then the way to the chip's integers.

First phase: surrogate-gradient training with normalised currents, a backward pass for every temporal configuration and
one optimiser step a mini-batch. Then calibration of the norms, what becomes of biases, folding of the norms and
quantisation. Second phase: the same training through the quantised forward.

Every random choice depends on the seed and the number of the epoch or step only, so that a run that was stopped goes
on exactly as it would have.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from mtt_lava.data import Dataset, frames, open_dataset, split, subset
from mtt_lava.data.cache import digest
from mtt_lava.neuron import Centring, Norm
from mtt_lava.run import (
    LOCK,
    Run,
    RunError,
    Settings,
    load_settings,
    load_state,
    locked,
    save_settings,
    save_state,
)
from mtt_lava.scoring import Score, score
from mtt_lava.spiking import Sum
from mtt_lava.temporal import transform
from netx_export.bounds import largest_sum
from netx_export.files import replacing
from netx_export.network import THRESHOLD_MAX
from netx_export.quantise import weight_scale
from netx_export.text import short

LOGIT_SCALE = 10.0
"""The loss sees this times the readout averaged over time: sharp enough for a rate between 0 and 1."""
CALIBRATION_BATCHES = 10
RIDGE = 0.01
"""Weight of keeping small what biases are absorbed into, beside the mean square of what carries them."""
SLACK = 0.8
"""Share of the current's range that the weights of a layer may fill before they are rounded."""
MEASURED = 500
"""Training recordings over which currents are measured."""
SILENT_LOSS = 0.01
"""A loss this near to that of guessing, with no output firing, is that of a network that has died."""
WARM_UP = 0.1
"""Share of a phase in which the learning rate rises; it then falls along a cosine to 0."""


def augment(frames: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Move every sample a little: up to 1 px, 10 degrees, 10 % zoom and 10 % shear, nearest pixel.

    Parameters
    ----------
    frames : torch.Tensor
        (T, N, C, H, W).
    generator : torch.Generator
        Source of chance.
    """
    t, n, channels, height, width = frames.shape
    turn, zoom, shear, down, right = (torch.rand(n, 1, 1, generator=generator) * 2 - 1 for _ in range(5))
    y = torch.arange(height).view(1, -1, 1) - (height - 1) / 2 - 1.5 * down
    x = torch.arange(width).view(1, 1, -1) - (width - 1) / 2 - 1.5 * right
    cos, sin = torch.cos(turn * math.radians(10)), torch.sin(turn * math.radians(10))
    size = 1 + 0.1 * zoom
    source_x = ((cos * x + sin * y) / size + 0.1 * shear * y + (width - 1) / 2).round().long()
    source_y = ((cos * y - sin * x) / size + (height - 1) / 2).round().long()
    inside = (source_x >= 0) & (source_x < width) & (source_y >= 0) & (source_y < height)
    index = source_y.clamp(0, height - 1) * width + source_x.clamp(0, width - 1)
    index = index.view(1, n, 1, -1).expand(t, n, channels, -1)
    moved = frames.flatten(3).gather(3, index) * inside.view(1, n, 1, -1)
    return moved.view(frames.shape)


def _check_biases(biases: str, dataset: Dataset) -> None:
    """Refuse biases that would be right at one T only."""
    if biases == "kept" and not dataset.static:
        raise RunError(
            f"biases 'kept' with event data ({dataset.name}): a bias is added in every time step, but the charge of a "
            f"recording does not grow with T: use biases 'none' or 'scaled'"
        )
    if biases == "scaled" and dataset.static:
        raise RunError(
            f"biases 'scaled' with still images ({dataset.name}): their charge grows with T as a bias does: "
            f"use biases 'kept'"
        )


class _Awake:
    """Which layers, and which of the outputs that are counted, have fired so far; looked at no longer than needed."""

    def __init__(self, layers: Sequence[str], outputs: int) -> None:
        self.layers = dict.fromkeys(layers, False)
        self.outputs = torch.zeros(outputs, dtype=torch.bool)

    def see(self, spikes: Sequence[torch.Tensor]) -> None:
        """Take note of the spikes of every layer, (N, ..., T)."""
        for (name, awake), fired in zip(self.layers.items(), spikes, strict=True):
            if not awake:
                self.layers[name] = bool(fired.any())
        if not self.outputs.all():
            self.outputs |= spikes[-1].detach().any(2).any(0).cpu()

    @property
    def asleep(self) -> list[str]:
        """What never fired, for people."""
        hidden = list(self.layers)[:-1] if len(self.outputs) else list(self.layers)
        silent = torch.nonzero(~self.outputs).flatten().tolist()
        outputs = [f"output{'s' * (len(silent) > 1)} {', '.join(map(str, silent))}"] if silent else []
        return [name for name in hidden if not self.layers[name]] + outputs


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
            sums = F.conv2d(frames, ones, None, s.stride[:2], s.padding[:2], s.dilation[:2], channels)
            sums = sums.movedim(1, -1).reshape(-1, channels // s.groups)
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


class _Trainer:
    """State of one training run."""

    def __init__(
        self,
        settings: Settings,
        folder: Path | None,
        dataset: Dataset | None,
        progress: bool,
        validation: Dataset | None = None,
    ) -> None:
        self.settings, self.folder, self.progress = settings, folder, progress
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dataset = dataset or open_dataset(settings.data, split="train", root=settings.root)
        if settings.samples is not None:
            dataset = subset(dataset, range(min(settings.samples, len(dataset))))
        _check_biases(settings.biases, dataset)
        if validation is None and settings.validate_on == "test":
            validation = open_dataset(settings.data, split="test", root=settings.root)
        elif validation is None and settings.validate_on:
            dataset, validation = split(dataset, float(settings.validate_on), seed=settings.seed)
        self.static = dataset.static
        self.classes = dataset.classes
        self.data = digest(dataset.fingerprint, dataset.labels.tolist(), dataset.classes, dataset.duration)
        self.frames, self.labels = self._frames(dataset, settings.frames)
        self.held = None if validation is None else self._frames(validation, settings.time_steps)
        self.network = settings.build().to(self.device)
        self.samplers = [settings.sampler(self.network.n_stages, quantised) for quantised in (False, True)]
        self.steps = max(1, len(self.labels) // settings.batch)
        self.first_phase = max(1, settings.epochs - max(1, round(settings.epochs * settings.fine_tune)))
        self.done = 0
        self.lines: list[str] = []
        self.optimiser = self._new_optimiser()

    def _frames(self, dataset: Dataset, time_steps: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Frames (T, N, C, H, W) of a data set that fits the model, and labels."""
        settings = self.settings
        counts, labels = frames(dataset, 1 if dataset.static else time_steps)
        if settings.model.input != counts.shape[1:-1]:
            raise RunError(
                f"model {settings.model.name} takes input {list(settings.model.input)}, but {dataset.name} gives "
                f"{list(counts.shape[1:-1])}: change the model's input or the data set"
            )
        outputs = settings.model.layers[-1].features  # type: ignore[union-attr]
        if outputs != len(dataset.classes):
            raise RunError(
                f"model {settings.model.name} has {outputs} outputs, "
                f"but {dataset.name} has {len(dataset.classes)} classes: change the last layer"
            )
        # Time first: see SpikingNetwork.forward.
        compact = np.uint8 if counts.dtype == np.uint8 else np.int32
        moved = np.moveaxis(counts, -1, 0).astype(compact, order="C")
        return torch.from_numpy(moved), torch.from_numpy(np.ascontiguousarray(labels)).long()

    def _new_optimiser(self) -> torch.optim.Optimizer:
        trained = [p for p in self.network.parameters() if p.requires_grad]
        return torch.optim.AdamW(trained, weight_decay=self.settings.weight_decay)

    @property
    def quantised(self) -> bool:
        return bool(self.network.weight_scales)

    def _rate(self, step: int) -> float:
        """Learning rate of a step, counted from the beginning of training."""
        first = self.first_phase * self.steps
        start, end, peak = (0, first, self.settings.learning_rate)
        if self.quantised:
            start, end, peak = (first, self.settings.epochs * self.steps, self.settings.fine_tune_rate)
        part = (step - start + 1) / (end - start + 1)
        return peak * (
            part / WARM_UP if part < WARM_UP else 0.5 * (1 + math.cos(math.pi * (part - WARM_UP) / (1 - WARM_UP)))
        )

    def _batch(self, chosen: torch.Tensor, generator: torch.Generator | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Frames (N, C, H, W, T) and labels."""
        x = self.frames[:, chosen].float()
        if generator is not None and x.dim() == 5:
            x = augment(x, generator)
        return x.to(self.device).movedim(0, -1), self.labels[chosen].to(self.device)

    def _span(self, time_steps: Sequence[int]) -> float:
        """What the readout is divided by: its time steps, or for soft reset those that its charge is worth.

        Neurons that lose no charge to a reset pass on what comes in, in however many time steps. Summing frames keeps
        it, copying them multiplies it: so a configuration's readout is averaged over T times what its copies add.
        """
        if self.network.reset == "zero":
            return time_steps[self.network.stages[-1]]
        return self._copies(time_steps)[-1] * (1 if self.static else self.settings.time_steps)

    def _copies(self, time_steps: Sequence[int]) -> list[float]:
        """How many times the charge of a recording, or of one frame of a still image, comes into each block."""
        return self.network.copies(time_steps, float(time_steps[0] if self.static else 1))

    def _spikes(self, spikes: Sequence[torch.Tensor], time_steps: Sequence[int]) -> torch.Tensor:
        """Spikes of a hidden neuron for a recording: mean over a layer's neurons, then over layers."""
        copies = dict(zip(self.network.names, self._copies(time_steps), strict=True))
        # The last block is the readout, whose spikes are the answer; a voltage readout has none.
        hidden = [name for name in self.network.spiking_names if name != self.network.names[-1]]
        layers = [layer.sum(-1).mean() / copies[name] for layer, name in zip(spikes, hidden, strict=False)]
        return torch.stack(layers).mean() if layers else torch.zeros((), device=self.device)

    def epoch(self, bar: Any) -> dict[str, Any]:
        """One pass over the training data: Algorithm 1."""
        self.network.train()
        generator = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + self.done)
        order = torch.randperm(len(self.labels), generator=generator)
        loss_sum, right, seen = 0.0, 0.0, 0
        counted = len(self.classes) if self.settings.model.readout == "count" else 0
        answers, awake = [], _Awake(self.network.spiking_names, counted)
        for number in range(self.steps):
            step = self.done * self.steps + number
            chosen = order[number * self.settings.batch : (number + 1) * self.settings.batch]
            x, labels = self._batch(chosen, generator if self.settings.augment else None)
            for group in self.optimiser.param_groups:
                group["lr"] = self._rate(step)
            self.optimiser.zero_grad()
            configurations = self.samplers[self.quantised].draw(step)
            for time_steps in configurations:
                spikes: list[torch.Tensor] = []
                readout = self.network(x, time_steps, spikes)
                logits = readout * (LOGIT_SCALE / self.network.readout_unit / self._span(time_steps))
                loss = F.cross_entropy(logits, labels)
                if self.settings.spike_penalty:
                    loss = loss + self.settings.spike_penalty * self._spikes(spikes, time_steps)
                # Backward at once frees the graph: the peak memory is that of one configuration.
                (loss / len(configurations)).backward()
                loss_sum += loss.item() / len(configurations)
                answers.append((readout.detach().cpu().numpy(), labels.cpu().numpy()))
                right += self._score([answers[-1]]).accuracy * len(labels) if math.isfinite(loss_sum) else 0
                seen += len(labels)
                awake.see(spikes)
            self.optimiser.step()
            self.network.keep_reaches()
            bar.set_postfix(
                loss=f"{loss_sum / (number + 1):.3f}",
                accuracy=f"{right / seen:.1%}",
                **self._held_text(),
                refresh=False,
            )
            bar.update()
        if not math.isfinite(loss_sum):
            raise RunError(f"training diverged in epoch {self.done + 1}: lower the learning rate")
        result = self._score(answers)
        metrics = {"loss": loss_sum / self.steps, "accuracy": result.accuracy}
        return metrics | {"silent": result.silent, "tied": result.tied, "never_fired": awake.asleep}

    def _score(self, answers: Sequence[tuple[np.ndarray, np.ndarray]]) -> Score:
        readouts, labels = zip(*answers, strict=True)
        return score(np.concatenate(readouts), np.concatenate(labels), self.settings.model.readout)

    def _held_text(self) -> dict[str, str]:
        """Accuracy of the last validation, for the bar."""
        held = json.loads(self.lines[-1]).get("validation") if self.lines else None
        return {"validation": f"{held['accuracy']:.1%}"} if held else {}

    def answer(self, images: torch.Tensor, labels: torch.Tensor) -> Score:
        """Accuracy at T of frames (T or finer, N, C, H, W) that are not moved."""
        self.network.eval()
        full = (self.settings.time_steps,) * self.network.n_stages
        with torch.no_grad():
            parts = torch.arange(len(labels)).split(4 * self.settings.batch)
            inputs = (images[:, part].float().to(self.device).movedim(0, -1) for part in parts)
            answers = [
                (self.network(x, full).cpu().numpy(), labels[part].numpy())
                for x, part in zip(inputs, parts, strict=True)
            ]
        return self._score(answers)

    def validate(self) -> dict[str, float]:
        """Accuracy on the recordings held out, after an epoch."""
        if self.held is None:
            return {}
        if not self.quantised:
            self.calibrate()
        result = self.answer(*self.held)
        return {"accuracy": result.accuracy, "silent": result.silent, "tied": result.tied}

    def watch(self, metrics: dict[str, Any]) -> None:
        """Say what never fired in the epoch that has just ended; stop where nothing has answered for several."""
        asleep = metrics["never_fired"]
        before = json.loads(self.lines[-1]).get("never_fired", []) if self.lines else []
        if self.progress and asleep and asleep != before:
            tqdm.write(f"epoch {self.done}: never fired: {', '.join(asleep)}", file=sys.stderr)
        limit = self.settings.silent_epochs
        if not limit:
            return
        last = [json.loads(line) for line in self.lines[-limit + 1 :]] if limit > 1 else []
        guess = math.log(len(self.classes))
        dead = [m.get("silent") == 1 and abs(m["loss"] - guess) < SILENT_LOSS * guess for m in (*last, metrics)]
        if len(dead) == limit and all(dead):
            raise RunError(
                f"after epoch {self.done} no output has answered any sample for {limit} epochs and the loss sits at "
                f"ln({len(self.classes)}) = {guess:.3f}: the network is dead. Lower learning_rate or spike_penalty, "
                f"use norm 'centred', fewer or wider layers; or go on with silent_epochs 0"
            )

    def calibrate(self) -> None:
        """Statistics of the norms over some batches at T alone: those of mixed configurations mean nothing."""
        for module in self.network.modules():
            if isinstance(module, Norm | Centring):
                module.reset(momentum=None)
        self.network.train()
        self._at_full()

    @torch.no_grad()
    def _at_full(self) -> None:
        """Some training batches at T."""
        generator = torch.Generator().manual_seed(self.settings.seed)
        order = torch.randperm(len(self.labels), generator=generator)
        full = (self.settings.time_steps,) * self.network.n_stages
        for chosen in order.split(self.settings.batch)[:CALIBRATION_BATCHES]:
            self.network(self._batch(chosen, None)[0], full)

    def absorb(self) -> None:
        """Fold every norm, and let weights stand for the bias that this leaves.

        What comes into a neuron is much alike for all samples. So a bias of every time step is, nearly, a little more
        weight on every input: the weight per input channel that comes nearest to a constant 1 (least squares over
        some batches at T), times the bias. It carries over to any number of time steps, and to none. Layer by
        layer, each with what really comes in once those before it are folded.
        """
        self.network.eval()
        for block in self.network.weighted:
            moments = Moments(block.synapse)
            handle = block.synapse.register_forward_pre_hook(lambda _, x, to=moments: to.add(x[0]))
            self._at_full()
            handle.remove()
            self.network.fold(block, moments.constant(RIDGE))

    def lower(self) -> dict[str, Any]:
        """End the first phase: calibrate, fold the norms, quantise. Accuracy before and after."""
        self.calibrate()
        some = slice(0, CALIBRATION_BATCHES * self.settings.batch)
        before = self.answer(self.frames[:, some], self.labels[some])
        if self.settings.norm == "batch" and self.settings.biases == "absorbed":
            self.absorb()
        self.network.fold_norms(self.settings.biases in ("scaled", "kept"))
        chosen = {
            block: self._weight_scale(owner, members) for owner, members in self.network.groups for block in members
        }
        scales, reaches = zip(*(chosen[block] for block in self.network.weighted), strict=True)
        self.network.quantise(scales, self.settings.weight_bits, self.settings.weight_step, reaches)
        self.optimiser = self._new_optimiser()
        after = self.answer(self.frames[:, some], self.labels[some])
        if self.progress:
            tqdm.write(
                f"epoch {self.done}: lowered to the chip's integers: accuracy on {before.samples} training samples "
                f"{before.accuracy:.1%} before, {after.accuracy:.1%} after (silent {after.silent:.1%})",
                file=sys.stderr,
            )
        return {"lowered": {"before": before.accuracy, "after": after.accuracy, "samples": before.samples}}

    def _weight_scale(
        self, owner: torch.nn.Module, members: Sequence[torch.nn.Module]
    ) -> tuple[float, float | None]:
        """Chip integers a unit of weight into a group of neurons, and the largest sum of one sign kept to, or None.

        All bits of the weights; or fewer, with sums that cannot take the current out of its 24 bits, where that costs
        a bit at most. A voltage readout, whose threshold is never passed, can have any scale.
        """
        settings, names = self.settings, dict(zip(self.network.blocks, self.network.names, strict=True))
        rows = [block.synapse.weight.detach().cpu().flatten(1).numpy() for block in members]
        if isinstance(owner, Sum):  # the weight of an identity shortcut must fit too
            rows.append(np.ones((len(rows[0]), sum(owner.spiking))))
        weight = np.concatenate(rows, axis=1)
        most = settings.chip.facts.threshold_max.value or THRESHOLD_MAX
        given = (weight, 1.0, settings.weight_bits, names[owner])
        full = weight_scale(*given, weight_step=settings.weight_step, threshold_max=most)
        decay = round(owner.neuron.current_decay.item())
        if self.network.weighted[0] in members or self.network.reset != "zero" or decay == 0:
            return full, None  # the input's range is the data's; without a clock there is no current
        reach = SLACK * largest_sum(decay, max(self.network.payload(block) for block in members))
        safe = weight_scale(*given, weight_step=settings.weight_step, threshold_max=most, reach_max=reach)
        readout = owner is self.network.blocks[-1] and settings.model.readout == "voltage"
        return (safe, reach) if readout or safe >= full / 2 else (full, None)

    def measure(self, run: Run) -> dict[str, tuple[int, int]]:
        """Largest |u| and |v| of every layer over training recordings, at the ends of the range of time steps."""
        from mtt_lava.deploy import to_network
        from netx_export.fast import backend as fast_backend
        from netx_export.limits import Limits, merged

        if self.network.reset != "zero":
            return {}
        settings, network = self.settings, to_network(run)
        found: dict[str, Limits] | None = {layer.name: Limits(0, 0) for layer in network.spiking}
        few = min(MEASURED, len(self.labels))
        frames = self.frames[:, torch.linspace(0, len(self.labels) - 1, few).long()].movedim(0, -1).float()
        for t in sorted({settings.time_steps, settings.time_steps if settings.method == "sdt" else settings.t_min}):
            # A still image is the same in every time step.
            counts = frames.expand(*frames.shape[:-1], t) if self.static else transform(frames, t, settings.input_form)
            inputs = np.minimum(counts.round().int().numpy(), settings.input_max or np.iinfo(np.int32).max)
            limits = fast_backend.simulate(network, inputs, progress=self.progress, device="cpu").limits
            found = merged(found, limits)
        return {name: (limit.u_max or 0, limit.v_max or 0) for name, limit in (found or {}).items()}

    def checkpoint(self) -> None:
        """Write everything that the next epoch depends on."""
        if self.folder is None:
            return
        state = self.optimiser.state_dict()["state"]
        tensors = {f"optimiser.{i}.{k}": torch.as_tensor(v) for i, of in state.items() for k, v in of.items()}
        with replacing(self.folder / "metrics.jsonl") as temporary:
            temporary.write_text("".join(self.lines))
        # Sums of floats depend on how many threads share them.
        info = {"epochs": self.done, "data": self.data, "threads": torch.get_num_threads()}
        save_state(self.folder / "checkpoint.safetensors", self.network, tensors, info)

    def restore(self) -> None:
        """Go on from the checkpoint, if there is one."""
        assert self.folder is not None
        path = self.folder / "checkpoint.safetensors"
        if not path.exists():
            return
        tensors, info = load_state(path, self.network, self.settings.biases)
        if info.get("data", self.data) != self.data:
            raise RunError(
                f"{path}: was trained on other recordings, labels, classes or duration: give the same data, or choose "
                "another folder"
            )
        self.optimiser = self._new_optimiser()
        state: dict[int, dict[str, torch.Tensor]] = {}
        try:
            torch.set_num_threads(info.get("threads", torch.get_num_threads()))
            self.done = range(self.settings.epochs + 1)[info["epochs"]]
            for name, value in tensors.items():
                _, number, key = name.split(".")
                state.setdefault(int(number), {})[key] = value
            self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": state})
        except (LookupError, TypeError, ValueError, RuntimeError) as error:
            raise RunError(f"{path}: damaged: {short(repr(error), 120)}: train anew in another folder") from None
        self.lines = (self.folder / "metrics.jsonl").read_text().splitlines(keepends=True)[: self.done]

    def start_from(self, base: Path) -> None:
        """Take over what `train_base` left."""
        assert self.folder is not None
        for name in ("metrics.jsonl", "checkpoint.safetensors"):
            with replacing(self.folder / name) as temporary:
                shutil.copyfile(base / name, temporary)
        self.restore()

    def epochs_until(self, end: int) -> None:
        """All epochs that are left before `end`."""
        with tqdm(
            total=end * self.steps,
            initial=self.done * self.steps,
            desc=f"{self.settings.method} {self.settings.model.name}",
            unit="batch",
            disable=not self.progress,
        ) as bar:
            while self.done < end:
                start = time.perf_counter()
                lowered = self.lower() if self.done == self.first_phase and not self.quantised else {}
                metrics = self.epoch(bar) | lowered
                self.done += 1
                self.watch(metrics)
                if held := self.validate():
                    metrics["validation"] = held
                phase = "quantised" if self.quantised else "float"
                seconds = round(time.perf_counter() - start, 3)
                self.lines.append(
                    json.dumps({"epoch": self.done, "phase": phase, **metrics, "seconds": seconds}) + "\n"
                )
                self.checkpoint()

    def run(self) -> Run:
        """All epochs that are left, and the end."""
        self.epochs_until(self.settings.epochs)
        result = Run(self.settings, self.network.cpu(), self.folder)
        result.measured, result.classes = self.measure(result), self.classes
        if self.folder is not None:
            result.save(self.folder)
            (self.folder / "checkpoint.safetensors").unlink(missing_ok=True)
        return result


def train(
    settings: Settings,
    out: str | Path | None = None,
    dataset: Dataset | None = None,
    *,
    resume: bool = False,
    base: str | Path | None = None,
    validation: Dataset | None = None,
    progress: bool = True,
) -> Run:
    """Train a network.

    Parameters
    ----------
    settings : Settings
        What, and how.
    out : path, optional
        Run folder to write; without it nothing is written.
    dataset : Dataset, optional
        Training data of your own (`mtt_lava.data.from_events`, ``from_images``); default: what the settings name.
    resume : bool
        Go on where the run in `out` was stopped; its result is that of an unbroken run.
    base : path, optional
        Folder of `train_base`: its network is taken over, and only the second phase trained.
    validation : Dataset, optional
        Recordings to validate on after every epoch; default: what the setting ``validate_on`` says. Nothing is chosen
        by it: the last epoch counts.
    progress : bool
        Show a progress bar, and before it what the profile changes (`Settings.adaptations`).

    Returns
    -------
    Run
        The trained, quantised network.

    Raises
    ------
    RunError
        Settings that do not fit the data, a run folder that holds something else, a training that diverged.

    Examples
    --------
    >>> from mtt_lava import Settings, train
    >>> run = train(Settings.make("nmnist-3c1fc", data="digits-dvs", epochs=20), "runs/first")  # doctest: +SKIP
    """
    folder = None if out is None else Path(out)
    with nullcontext() if folder is None else locked(folder):
        if folder is not None:
            settings = _check_folder(folder, settings, resume)
        trainer = _Trainer(settings, folder, dataset, progress, validation)
        if folder is not None and resume:
            trainer.restore()
        elif folder is not None:
            save_settings(settings, folder)
            if base is not None:
                trainer.start_from(Path(base))
        if progress:
            for line in settings.adaptations():
                tqdm.write(f"{settings.profile}: {line}", file=sys.stderr)
        return trainer.run()


def _check_folder(folder: Path, settings: Settings, resume: bool) -> Settings:
    """Refuse a folder that holds something else than what `train` goes on with, or starts with.

    Returns the settings to train with: a run that is resumed keeps the chip that it began with.
    """
    if (folder / "settings.json").exists():
        if not resume:
            raise RunError(f"{folder}: holds a run already: go on with it (--resume) or choose another folder")
        stored = load_settings(folder)
        own = {name: getattr(settings, name) for name in ("chip", "allow_unfit")}  # what the run keeps in any case
        if stored.model_copy(update=own) != settings:
            raise RunError(f"{folder}: its run has other settings: resume it with the same, or choose another folder")
        if (folder / "weights.safetensors").exists():
            raise RunError(f"{folder}: its run has ended: nothing to resume")
        return stored
    if resume:
        raise RunError(f"{folder}: has no run to resume")
    if any(path.name != LOCK for path in folder.iterdir()):
        raise RunError(f"{folder}: exists and is not an empty folder: choose another")
    return settings


def train_base(settings: Settings, out: str | Path, dataset: Dataset | None = None, *, progress: bool = True) -> None:
    """Train the first phase only, as a common start for several methods (`train` with ``base``).

    Goes on where it was stopped; returns at once where it has ended.

    Parameters
    ----------
    settings : Settings
        Those of the runs to come, with the method of the first phase.
    out, dataset, progress
        See `train`.

    Raises
    ------
    RunError
        A folder that holds something else.
    """
    folder = Path(out)
    with locked(folder):
        if (folder / "settings.json").exists() and load_settings(folder) != settings:
            raise RunError(f"{folder}: holds a base of other settings: choose another folder")
        trainer = _Trainer(settings, folder, dataset, progress)
        save_settings(settings, folder)
        trainer.restore()
        trainer.epochs_until(trainer.first_phase)
