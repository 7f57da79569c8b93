"""What an epoch has seen so far: enough to go on in its middle."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from mtt_lava.augmentation import draw
from mtt_lava.scoring import Score, score
from mtt_lava.training.engine import Engine


class Awake:
    """Which layers, and which of the outputs that are counted, have fired so far; looked at no longer than needed."""

    def __init__(self, layers: Sequence[str], outputs: int) -> None:
        self.names = list(layers)
        self.layers = torch.zeros(len(layers), dtype=torch.bool)
        self.outputs = torch.zeros(outputs, dtype=torch.bool)

    def see(self, spikes: Sequence[torch.Tensor]) -> None:
        """Take note of the spikes of every layer, (N, ..., T)."""
        for i, (awake, fired) in enumerate(zip(self.layers.tolist(), spikes, strict=True)):
            if not awake:
                self.layers[i] = bool(fired.any())
        if not self.outputs.all():
            fired = spikes[-1].detach().any(2).any(0).cpu()
            self.outputs |= fired.view(len(self.outputs), -1).any(1)  # a class can have several

    @property
    def asleep(self) -> list[str]:
        """What never fired, for people."""
        awake = dict(zip(self.names, self.layers.tolist(), strict=True))
        hidden = self.names[:-1] if len(self.outputs) else self.names
        silent = torch.nonzero(~self.outputs).flatten().tolist()
        outputs = [f"output{'s' * (len(silent) > 1)} {', '.join(map(str, silent))}"] if silent else []
        return [name for name in hidden if not awake[name]] + outputs


class Epoch:
    """The mini-batches of an epoch that are done, and what they answered.

    Parameters
    ----------
    engine : Engine
    labels : torch.Tensor
        Of all recordings, (N,).
    seed : int
        Fixes the order of the recordings, and how they are moved.
    steps, batch, configurations, classes : int
        Mini-batches; recordings in each; temporal configurations that each of these runs; outputs.
    awake : Awake

    Attributes
    ----------
    done : int
        Mini-batches so far.
    loss : float
        Its sum over them.
    own : torch.Tensor
        Which recordings of a mini-batch this process runs.
    generator : torch.Generator
        The source of chance of what is left.
    """

    def __init__(
        self,
        engine: Engine,
        labels: torch.Tensor,
        seed: int,
        steps: int,
        batch: int,
        configurations: int,
        classes: int,
        awake: Awake,
    ) -> None:
        self.engine, self.awake = engine, awake
        self.generator = torch.Generator().manual_seed(seed)
        batch = min(batch, len(labels))
        self.order = torch.randperm(len(labels), generator=self.generator)[: steps * batch].view(steps, batch)
        self.labels, self.own = labels[self.order], engine.mine(torch.arange(batch))
        self.readouts = torch.zeros(steps, configurations, batch, classes)
        self.done, self.loss, self._drawn = 0, 0.0, 0
        self._before = self.generator.get_state()

    def draw(self, chances: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The next mini-batch, which may be one ahead of those that are done: its recordings, and so many chances each
        for what changes them."""
        self._before = self.generator.get_state()
        chosen = self.order[self._drawn]
        self._drawn += 1
        return chosen, draw(chances, len(chosen), self.generator) if chances else None

    def see(self, configuration: int, part: slice, readout: torch.Tensor, spikes: Sequence[torch.Tensor]) -> None:
        """Take note of what a part of this process's recordings of the mini-batch answered in one configuration."""
        self.readouts[self.done, configuration, self.own[part]] = readout.detach().cpu()
        self.awake.see(spikes)

    def share(self, kind: str) -> float:
        """Accuracy of the last 50 mini-batches, of this process's part."""
        last = slice(max(0, self.done - 50), self.done)
        return _score(self.readouts[last, :, self.own], self.labels[last, self.own], kind).accuracy

    def end(self, kind: str) -> Score:
        """Gather what all processes have; the score of all answers."""
        self.readouts = self.engine.summed(self.readouts)
        for fired in (self.awake.layers, self.awake.outputs):
            fired |= self.engine.summed(fired.float()) > 0
        return _score(self.readouts, self.labels, kind)

    def tensors(self) -> dict[str, torch.Tensor]:
        """All of it, of all processes."""
        return {
            "readouts": self.engine.summed(self.readouts[: self.done]),
            "layers": self.engine.summed(self.awake.layers.float()) > 0,
            "outputs": self.engine.summed(self.awake.outputs.float()) > 0,
            # Who goes on from here draws again what was drawn ahead.
            "generator": self._before if self._drawn > self.done else self.generator.get_state(),
            "loss": torch.tensor(self.loss, dtype=torch.float64),
        }

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Go on from what `tensors` gave.

        Raises
        ------
        LookupError, RuntimeError, TypeError
            They are another epoch's.
        """
        seen = tensors["readouts"]
        self.readouts[: len(seen), :, self.own] = seen[:, :, self.own]
        self.awake.layers |= tensors["layers"]
        self.awake.outputs |= tensors["outputs"]
        self.generator.set_state(tensors["generator"])
        self.done, self.loss, self._drawn = len(seen), tensors["loss"].item(), len(seen)
        if not math.isfinite(self.loss):
            raise TypeError(f"loss {self.loss}")


def _score(readouts: torch.Tensor, labels: torch.Tensor, kind: str) -> Score:
    """Of readouts (steps, configurations, batch, classes) and labels (steps, batch)."""
    wanted = labels.unsqueeze(1).expand(readouts.shape[:3])
    return score(readouts.flatten(0, 2).numpy(), wanted.flatten().numpy(), kind)
