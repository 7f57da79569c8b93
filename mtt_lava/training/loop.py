"""The loop of training: Algorithm 1 of the paper, mini-batch by mini-batch, in two phases."""

from __future__ import annotations

import errno
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from mtt_lava import augmentation
from mtt_lava.data import Dataset, FrameReader, open_dataset, split, subset
from mtt_lava.data.cache import digest
from mtt_lava.run import BEST, LOCK, Run, RunError, Settings, load_settings, load_state, locked, save_settings
from mtt_lava.scoring import Score, score
from mtt_lava.temporal import METHODS, Method, accumulate, one_by_one
from mtt_lava.training import checkpoint, phases
from mtt_lava.training.batches import Ahead, as_frames, check_biases, check_methods, tensor
from mtt_lava.training.engine import Engine, memory_kept
from mtt_lava.training.epoch import Awake, Epoch
from mtt_lava.training.losses import divergence, of_steps

SILENT_LOSS = 0.01
"""A loss this near to that of guessing, with no output firing, is that of a network that has died."""
DIVERGED = 10
"""Training has come to nothing where the loss stays so many times above its least, or that of guessing."""
WARM_UP = 0.1
"""Share of a phase in which the learning rate rises; it then falls along a cosine to 0."""
CHECKPOINT_SECONDS = 120.0
"""A checkpoint within an epoch is so old at most."""


@dataclass
class _Job:
    """One temporal configuration of a mini-batch.

    Attributes
    ----------
    number : int
    time_steps : sequence of int
        Of every stage.
    part : slice
        Which of this process's recordings run it.
    weight : float
        Of its loss.
    cuts : sequence of int, or None
        Borders at which input frames are summed.
    answer : torch.Tensor
        Readouts so far.
    """

    number: int
    time_steps: Sequence[int]
    part: slice
    weight: float
    cuts: Sequence[int] | None
    answer: Any = 0.0


class Trainer:
    """State of one training run."""

    def __init__(
        self,
        settings: Settings,
        folder: Path | None,
        dataset: Dataset | None,
        progress: bool,
        validation: Dataset | None = None,
        engine: Engine | None = None,
    ) -> None:
        self.engine = engine or Engine()
        self.settings, self.folder, self.progress = settings, folder, progress and self.engine.first
        self.device = self.engine.device
        if settings.batch < self.engine.processes:
            raise RunError(f"batch is {settings.batch}: give at least a recording to each of {self.engine!r}")
        dataset = dataset or open_dataset(settings.data, split="train", root=settings.root)
        if settings.samples is not None:
            dataset = subset(dataset, range(min(settings.samples, len(dataset))))
        check_biases(settings.biases, dataset)
        check_methods(settings, dataset)
        self.augmentations = augmentation.parse(settings.augment)
        augmentation.check(self.augmentations, dataset.static, settings.model.input[0], dataset.name)
        if validation is None and settings.validate_on == "test":
            validation = open_dataset(settings.data, split="test", root=settings.root)
        elif validation is None and settings.validate_on:
            dataset, validation = split(dataset, float(settings.validate_on), seed=settings.seed)
        if validation is None and settings.patience:
            raise RunError(
                f"patience is {settings.patience}, but nothing is held out to lose it on: set validate_on, or give "
                f"validation data"
            )
        self.static = dataset.static
        self.classes = dataset.classes
        self.data = digest(dataset.fingerprint, dataset.labels.tolist(), dataset.classes, dataset.duration)
        self.frames, self.labels = as_frames(settings, dataset, settings.frames)
        self.held = None if validation is None else as_frames(settings, validation, settings.time_steps)[0]
        self.network = settings.build().to(self.device)
        if settings.precision != "float32":
            self.network.multiply_in(getattr(torch, settings.precision))
        self.samplers = [settings.sampler(self.network.n_stages, quantised) for quantised in (False, True)]
        for sampler in self.samplers:
            self._check_shares(len(sampler.draw(0)))
        self.steps = max(1, len(self.labels) // settings.batch)
        self.first_phase = max(1, settings.epochs - max(1, round(settings.epochs * settings.fine_tune)))
        if settings.start is not None:  # which is quantised
            self.first_phase = 0
        self.done = 0
        self.within: Epoch | None = None
        self.lowered: dict[str, Any] = {}
        self.lines: list[str] = []
        self.loss, self.due = 0.0, False
        self.saved: tuple[int, int] | None = None
        self._saved_at = time.monotonic()
        self.optimiser = self.new_optimiser()

    def _check_shares(self, configurations: int) -> None:
        """Refuse mini-batches too small for every configuration to get recordings in every process."""
        least, batch = configurations * self.engine.processes, min(self.settings.batch, len(self.labels))
        if self.settings.shared and batch < least:
            raise RunError(
                f"a batch has {batch} recordings, which {configurations} configurations share out on {self.engine!r}: "
                f"at least {least} are needed; give a larger batch, or leave shared out"
            )

    def _parts(self, configurations: int, recordings: int, share: float) -> list[slice]:
        """For every configuration, which of this process's recordings of a mini-batch run it."""
        if not self.settings.shared:
            return [slice(None)] * configurations
        # By their places in the whole mini-batch, whatever the number of processes.
        whole = round(recordings / share)
        run = self.engine.mine(torch.arange(whole)) * configurations // whole
        ends = np.cumsum([0, *np.bincount(run, minlength=configurations)]).tolist()
        return [slice(*ends_) for ends_ in pairwise(ends)]

    def new_optimiser(self) -> torch.optim.Optimizer:
        """AdamW over what is trained now."""
        trained = [p for p in self.network.parameters() if p.requires_grad]
        return torch.optim.AdamW(trained, weight_decay=self.settings.weight_decay, foreach=True)

    def new_epoch(self) -> Epoch:
        """The next one, at its start."""
        settings = self.settings
        counted = len(self.classes) if settings.model.readout == "count" else 0
        return Epoch(
            self.engine,
            self.labels,
            settings.seed * 1_000_003 + self.done,
            self.steps,
            settings.batch,
            1 if settings.shared else len(self.samplers[self.quantised].draw(0)),
            len(self.classes),
            Awake(self.network.spiking_names, counted),
        )

    @property
    def quantised(self) -> bool:
        """Whether the second phase has begun."""
        return bool(self.network.weight_scales)

    @property
    def method(self) -> Method:
        """That of the phase."""
        return METHODS[self.samplers[self.quantised].method]

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

    def batch(self, chosen: torch.Tensor, moved: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Frames (N, C, H, W, T) and labels of some recordings, augmented where chances (..., N) are given."""
        x = tensor(self.frames.take(chosen.numpy()))
        x = x if moved is None else augmentation.augment(x, moved, self.augmentations)
        # Once for all configurations: see SpikingNetwork.forward.
        x = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).view(x.shape)
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
        # One sum over memory as it lies: time is outermost there, and a sum over it alone takes twenty times as long.
        layers = [
            layer.sum() / layer[..., 0].numel() / copies[name] for layer, name in zip(spikes, hidden, strict=False)
        ]
        return torch.stack(layers).mean() if layers else torch.zeros((), device=self.device)

    def _loss(
        self, readout: torch.Tensor, labels: torch.Tensor, time_steps: Sequence[int], teacher: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss of a readout (N, classes), or of what every time step adds to it, (T, N, classes); and its logits.

        The `teacher` are the logits of the configuration at T everywhere, where there are any to follow.
        """
        gain = self.settings.logit_scale / self.network.readout_unit / self._span(time_steps)
        if readout.dim() == 2:
            logits = readout * gain
            loss = F.cross_entropy(logits, labels)
        else:
            # Logits of a step are such that their average over time is that of the readout. Online there is one here.
            steps, logits = time_steps[self.network.stages[-1]], readout.sum(0) * gain
            loss = of_steps(readout * (gain * steps), labels, self.settings.consistency) * (len(readout) / steps)
        if teacher is not None:
            loss = loss + self.settings.distil * divergence(logits, teacher)
        return loss, logits.detach()

    def _passes(
        self, x: torch.Tensor, pack: Sequence[_Job]
    ) -> Iterator[tuple[torch.Tensor, Sequence[Sequence[int]] | None]]:
        """What goes through the network in the configurations of a pack, and with how many time steps of its stages.

        All frames at once; or, online, one after the other.
        """
        first = pack[0]
        if self.method.online:
            yield from ((frame, None) for frame in one_by_one(x, first.time_steps[0], self.settings.input_form))
        else:
            yield x if first.cuts is None else accumulate(x, first.cuts), [job.time_steps for job in pack]

    def step(
        self,
        x: torch.Tensor,
        labels: torch.Tensor,
        configurations: Sequence[Sequence[int]],
        see: Callable[[int, slice, torch.Tensor, list[torch.Tensor]], None] | None = None,
        share: float = 1.0,
        cuts: Sequence[Sequence[int] | None] = (),
    ) -> None:
        """One step of Algorithm 1; behind it, `loss` is that of the whole mini-batch.

        Online methods go time step by time step: states are carried on without their gradients, every time step has
        the cross entropy of its own answer (whatever `loss` says: nothing else is known yet) and a backward pass, which
        frees its graph. So memory does not depend on T. All gradients add up to one optimiser step. Currents that decay
        and voltages are constants to later time steps, and resets are not followed: this is the gradient of SLTT (Meng
        et al., ICCV 2023), here with each layer's own surrogate, and at every time step (their K = T). Online training
        through time (OTTT, Xiao et al., NeurIPS 2022) also weights each spike's input by a decaying trace of earlier
        input, which is not here; of its two ways to update, this is the one that adds up (OTTT_A). Norms see one time
        step at a time, in the first phase, and are calibrated at T over all as ever; recurrent weights learn from the
        spikes one step before.

        Parameters
        ----------
        x, labels : torch.Tensor
        configurations : sequence of sequence of int
            Time steps of every stage.
        see : callable, optional
            Is shown for every configuration its number, if a recording runs several, which recordings ran it, and their
            readout and spikes (online: so far, and of each time step).
        share : float
            That of the mini-batch which is this process's.
        cuts : sequence
            For every configuration the borders at which its input frames are summed, or None.
        """
        self.optimiser.zero_grad()
        total, teacher, at_t = 0.0, None, {self.settings.time_steps}
        parts = self._parts(len(configurations), len(labels), share)
        sizes = [len(labels[part]) for part in parts]
        weights = [share * size / sum(sizes) for size in sizes]
        given = zip(configurations, parts, weights, cuts or [None] * len(parts), strict=True)
        jobs = [_Job(number, *each) for number, each in enumerate(given)]
        each = self.method.online or self.settings.loss == "steps"
        for pack in [jobs] if self.settings.packed else [[job] for job in jobs]:
            own = x[pack[0].part] if self.settings.shared else x
            with self.network.carrying() if self.method.online else nullcontext():
                for frames, time_steps in self._passes(own, pack):
                    spikes: list[list[torch.Tensor]] = [[] for _ in pack]
                    readouts = self.network.several(frames, time_steps, spikes, each)
                    losses = []
                    for job, readout, sent in zip(pack, readouts, spikes, strict=True):
                        loss, logits = self._loss(readout, labels[job.part], job.time_steps, teacher)
                        if self.settings.spike_penalty:
                            loss = loss + self.settings.spike_penalty * self._spikes(sent, job.time_steps)
                        losses.append(loss * job.weight)
                        job.answer = readout.detach() if readout.dim() == 2 else job.answer + readout.detach().sum(0)
                        if see is not None:
                            see(0 if self.settings.shared else job.number, job.part, job.answer, sent)
                        if self.settings.distil and job.number == 0 and set(job.time_steps) == at_t:
                            teacher = logits
                    del spikes, sent
                    # Backward at once frees the graph: the peak memory is that of one configuration, or of one pack.
                    loss = torch.stack(losses).sum() if len(losses) > 1 else losses[0]
                    loss.backward()
                    total += loss.item()
        due = time.monotonic() - self._saved_at > CHECKPOINT_SECONDS
        self.loss, asked = self.engine.synchronise([*self.network.parameters()], (total, due and self.engine.first))
        self.due = bool(asked)
        if not math.isfinite(self.loss):
            raise self._stop(f"training diverged: the loss is {self.loss}: lower the learning rate")
        self.optimiser.step()
        self.network.keep_reaches()

    def epoch(self, bar: Any) -> dict[str, Any]:
        """One pass over the training data, or what is left of it."""
        self.network.train()
        now = self.within = self.within or self.new_epoch()
        kind = self.settings.model.readout
        start, waited = time.perf_counter(), 0.0
        sampler = self.samplers[self.quantised]
        with Ahead() as ahead:
            if now.done < self.steps:
                self._make_next(ahead, now)
            while now.done < self.steps:
                x, labels = ahead.get()
                if now.done + 1 < self.steps:
                    self._make_next(ahead, now)
                number = self.done * self.steps + now.done
                rate = self._rate(number)
                for group in self.optimiser.param_groups:
                    group["lr"] = rate
                cuts = sampler.cuts(number, x.shape[-1])
                self.step(x, labels, sampler.draw(number), now.see, len(labels) / now.order.shape[1], cuts)
                now.loss += self.loss
                now.done += 1
                self.engine.log({"loss": self.loss, "learning_rate": rate}, number)
                waited = ahead.waited / (time.perf_counter() - start)
                if self.progress:
                    text = {"loss": f"{now.loss / now.done:.3f}", "accuracy": f"{now.share(kind):.1%}"}
                    bar.set_postfix(**text, **self._held_text(), data=f"{waited:.0%}", refresh=False)
                bar.update()
                if self.due and now.done < self.steps:
                    self.save()
        result = now.end(kind)
        metrics = {"loss": now.loss / self.steps, "accuracy": result.accuracy, "waited": round(waited, 4)}
        return metrics | {"silent": result.silent, "tied": result.tied, "never_fired": now.awake.asleep}

    def _make_next(self, ahead: Ahead, now: Epoch) -> None:
        """Let this process's part of the next mini-batch be made."""
        chosen, moved = now.draw(augmentation.chances(self.augmentations))
        own = self.engine.mine
        ahead.start(self.batch, own(chosen), None if moved is None else own(moved.T).T)

    def save(self) -> None:
        """Write a checkpoint."""
        checkpoint.save(self)
        self._saved_at = time.monotonic()

    def _stop(self, why: str) -> BaseException:
        """What ends training in all processes; the first one says why, and what is left."""
        return RunError(self.at(why)) if self.engine.first else SystemExit(2)

    def at(self, why: str) -> str:
        """In words, where this happened, and what is kept."""
        batch = f", batch {self.within.done + 1}" if self.within is not None else ""
        text = f"epoch {self.done + 1}{batch}: {why}"
        if self.folder is None or self.saved is None:
            return text
        epochs, batches = self.saved
        kept = f"epoch {epochs}" if not batches else f"epoch {epochs + 1}, batch {batches}"
        return f"{text}; {self.folder} keeps what was learned until {kept}"

    def _held_text(self) -> dict[str, str]:
        """Accuracy of the last validation, for the bar."""
        held = json.loads(self.lines[-1]).get("validation") if self.lines else None
        return {"validation": f"{held['accuracy']:.1%}"} if held else {}

    def held_accuracies(self) -> list[float]:
        """Of every quantised epoch, on what is held out."""
        found = [json.loads(line) for line in self.lines]
        return [m["validation"]["accuracy"] for m in found if m["phase"] == "quantised" and "validation" in m]

    @property
    def impatient(self) -> bool:
        """Whether the quantised epochs have been without progress for as many as ``patience`` says."""
        patience = self.settings.patience
        held = self.held_accuracies() if patience else []
        return bool(held) and len(held) - 1 - held.index(max(held)) >= patience

    def answer(self, frames: FrameReader, chosen: np.ndarray | None = None) -> Score:
        """Accuracy at T of recordings (default: all) that are not moved; frames may be finer than T."""
        self.network.eval()
        full = (self.settings.time_steps,) * self.network.n_stages
        labels = frames.labels if chosen is None else frames.labels[chosen]
        with torch.no_grad():
            parts = frames.parts(chosen, 4 * self.settings.batch)
            inputs = (tensor(frames.take(part)).to(self.device).movedim(0, -1) for part in parts)
            readouts = torch.cat([self.network(x, full).cpu() for x in inputs])
        return score(readouts.numpy(), labels, self.settings.model.readout)

    def validate(self) -> dict[str, float]:
        """Accuracy on the recordings held out, after an epoch."""
        if self.held is None:
            return {}
        if not self.quantised:
            phases.calibrate(self)
        result = self.answer(self.held)
        return {"accuracy": result.accuracy, "silent": result.silent, "tied": result.tied}

    def watch(self, metrics: dict[str, Any]) -> None:
        """Say what never fired in the epoch that has just ended; stop where nothing has answered for several."""
        asleep = metrics["never_fired"]
        before = json.loads(self.lines[-1]).get("never_fired", []) if self.lines else []
        if self.progress and asleep and asleep != before:
            tqdm.write(f"epoch {self.done}: never fired: {', '.join(asleep)}", file=sys.stderr)
        limit = self.settings.silent_epochs
        if not limit or len(self.lines) + 1 < limit:
            return
        epochs = [*map(json.loads, self.lines), metrics]
        last, guess = epochs[-limit:], math.log(len(self.classes))
        least = max(guess, min(m["loss"] for m in epochs))
        if all(m["loss"] > DIVERGED * least for m in last):
            rate = "fine_tune_rate" if self.quantised else "learning_rate"
            raise self._stop(
                f"training diverged: for {limit} epochs the loss has been above {DIVERGED} times {least:.3g}, where it "
                f"was, now {metrics['loss']:.3g}. Lower {rate}, use a spike_penalty, loss 'mean' or a shallower "
                f"network; or go on with silent_epochs 0"
            )
        if all(m.get("silent") == 1 and abs(m["loss"] - guess) < SILENT_LOSS * guess for m in last):
            raise self._stop(
                f"after epoch {self.done} no output has answered any sample for {limit} epochs and the loss sits at "
                f"ln({len(self.classes)}) = {guess:.3f}: the network is dead. Lower learning_rate or spike_penalty, "
                f"use norm 'centred', fewer or wider layers; or go on with silent_epochs 0"
            )

    def epochs_until(self, end: int) -> None:
        """All epochs that are left before `end`."""
        with (
            memory_kept(),
            self._explained(),
            tqdm(
                total=end * self.steps,
                initial=self.done * self.steps + (self.within.done if self.within is not None else 0),
                desc=f"{self.settings.method} {self.settings.model.name}",
                unit="batch",
                disable=not self.progress,
            ) as bar,
        ):
            while self.done < end and not self.impatient:
                start = time.perf_counter()
                if self.done == self.first_phase and not self.quantised:
                    self.lowered = phases.lower(self)
                    self.engine.same(self.network)
                metrics = self.epoch(bar) | self.lowered
                self.within, self.lowered = None, {}
                self.done += 1
                self.watch(metrics)
                if held := self.validate():
                    metrics["validation"] = held
                phase = "quantised" if self.quantised else "float"
                seconds = round(time.perf_counter() - start, 3)
                line = {"epoch": self.done, "phase": phase, **metrics, "seconds": seconds}
                self.lines.append(json.dumps(line) + "\n")
                self._log_epoch(metrics)
                checkpoint.keep_best(self)
                self.save()

    def _log_epoch(self, metrics: dict[str, Any]) -> None:
        held = {f"validation_{name}": value for name, value in metrics.get("validation", {}).items()}
        values = {f"epoch_{name}": metrics[name] for name in ("loss", "accuracy", "silent", "tied", "waited")}
        self.engine.log(values | held, self.done * self.steps - 1)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What a machine has too little of, in a line."""
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) and "allocate memory" not in str(error):
                raise
            why = f"out of memory on {self.device}: give a smaller batch, fewer time steps or a narrower model"
            raise RunError(self.at(why)) from None
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            why = f"{error.strerror} ({error.filename}): free some, then go on with --resume"
            raise RunError(self.at(why)) from None

    def run(self) -> Run:
        """All epochs that are left, and the end."""
        self.epochs_until(self.settings.epochs)
        result = Run(self.settings, self.network.cpu(), self.folder)
        result.classes = self.classes
        with self._explained():
            self.engine.first_does(lambda: self._finish(result))
        return result

    def _finish(self, result: Run) -> None:
        """Measure what the trained network does, and write the run."""
        result.measured = phases.measure(self, result)
        if self.folder is None:
            return
        best = self.folder / BEST
        if best.exists():
            other = Run(self.settings, self.settings.build(), self.folder)
            _, info = load_state(best, other.network, self.settings.biases)
            other.classes, other.measured = self.classes, phases.measure(self, other)
            other.save(self.folder, BEST, epoch=info["epoch"])
        result.save(self.folder)
        (self.folder / checkpoint.NAME).unlink(missing_ok=True)


def train(
    settings: Settings,
    out: str | Path | None = None,
    dataset: Dataset | None = None,
    *,
    resume: bool = False,
    base: str | Path | None = None,
    validation: Dataset | None = None,
    progress: bool = True,
    devices: int = 1,
    accelerator: str = "auto",
    log: Sequence[str] = (),
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
        Recordings to validate on after every epoch; default: what the setting ``validate_on`` says. The last epoch
        counts; the weights of the best are kept beside (``best.safetensors``), a choice made on these recordings.
    progress : bool
        Show a progress bar, and before it what the profile changes (`Settings.adaptations`).
    devices : int
        Devices of this machine, each of which runs its part of every mini-batch; the result is that of one, within
        rounding. Each but the first starts the same program anew, and ends with the training. Under torchrun they
        have been started.
    accelerator : {"auto", "cpu", "cuda"}
    log : sequence of str
        Also write losses and accuracies as ``"csv"`` or for ``"tensorboard"``, in the run folder's ``logs``.

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
    with Engine(devices, accelerator, log, folder) as engine, ExitStack() as stack:
        if folder is not None:
            settings = _begin(engine, stack, folder, settings, resume)
        trainer = Trainer(settings, folder, dataset, progress, validation, engine)
        if folder is not None and resume:
            checkpoint.restore(trainer)
        elif folder is not None:
            engine.first_does(lambda: save_settings(settings, folder))
            if base is not None:
                checkpoint.start_from(trainer, Path(base))
        if settings.start is not None and trainer.saved is None:
            checkpoint.take_over(trainer, Path(settings.start))
        engine.same(trainer.network)
        if trainer.progress:
            for line in settings.adaptations():
                tqdm.write(f"{settings.profile}: {line}", file=sys.stderr)
        return trainer.run()


def _begin(engine: Engine, stack: ExitStack, folder: Path, settings: Settings, resume: bool) -> Settings:
    """Take the folder for this training; the settings to train with (see `_check_folder`)."""

    def take() -> Settings:
        stack.enter_context(locked(folder))
        return _check_folder(folder, settings, resume)

    found = engine.first_does(take)
    return found or (load_settings(folder) if resume else settings)


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
        trainer = Trainer(settings, folder, dataset, progress)
        save_settings(settings, folder)
        checkpoint.restore(trainer)
        trainer.epochs_until(trainer.first_phase)
