"""What a training needs to go on where it was stopped, as files of its run folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mtt_lava.run import BEST, RunError, load_run, load_state, save_state
from netx_export.files import replacing
from netx_export.text import short

if TYPE_CHECKING:
    from mtt_lava.training.loop import Trainer

NAME = "checkpoint.safetensors"


def save(trainer: Trainer) -> None:
    """Write everything that the next step depends on; all processes take part, the first one writes."""
    within = trainer.within.tensors() if trainer.within is not None else {}
    trainer.saved = trainer.done, trainer.within.done if trainer.within is not None else 0
    if trainer.folder is None or not trainer.engine.first:
        return
    state = trainer.optimiser.state_dict()["state"]
    tensors = {f"optimiser.{i}.{k}": torch.as_tensor(v) for i, of in state.items() for k, v in of.items()}
    tensors |= {f"epoch.{name}": value.contiguous() for name, value in within.items()}
    with replacing(trainer.folder / "metrics.jsonl") as temporary:
        temporary.write_text("".join(trainer.lines))
    # Sums of floats depend on how many threads share them.
    info = {"epochs": trainer.done, "data": trainer.data, "threads": torch.get_num_threads()}
    info |= {"lowered": trainer.lowered} if trainer.lowered else {}
    save_state(trainer.folder / NAME, trainer.network, tensors, info)


def restore(trainer: Trainer) -> None:
    """Go on from the checkpoint, if there is one.

    Raises
    ------
    RunError
        It is damaged, or of other data.
    """
    assert trainer.folder is not None
    path = trainer.folder / NAME
    if not path.exists():
        return
    tensors, info = load_state(path, trainer.network, trainer.settings.biases)
    if info.get("data", trainer.data) != trainer.data:
        raise RunError(
            f"{path}: was trained on other recordings, labels, classes or duration: give the same data, or choose "
            "another folder"
        )
    trainer.optimiser = trainer.new_optimiser()
    state: dict[int, dict[str, torch.Tensor]] = {}
    within: dict[str, torch.Tensor] = {}
    try:
        torch.set_num_threads(info.get("threads", torch.get_num_threads()))
        trainer.done = range(trainer.settings.epochs + 1)[info["epochs"]]
        trainer.lowered = dict(info.get("lowered", {}))
        for name, value in tensors.items():
            of, _, rest = name.partition(".")
            if of == "epoch":
                within[rest] = value
            else:
                number, key = rest.split(".")
                state.setdefault(int(number), {})[key] = value
        trainer.optimiser.load_state_dict({**trainer.optimiser.state_dict(), "state": state})
        if within:
            trainer.within = trainer.new_epoch()
            trainer.within.restore(within)
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        raise RunError(f"{path}: damaged: {short(repr(error), 120)}: train anew in another folder") from None
    trainer.lines = (trainer.folder / "metrics.jsonl").read_text().splitlines(keepends=True)[: trainer.done]
    trainer.saved = trainer.done, trainer.within.done if trainer.within is not None else 0


def start_from(trainer: Trainer, base: Path) -> None:
    """Take over what `mtt_lava.training.train_base` left."""
    folder = trainer.folder
    assert folder is not None

    def copy() -> None:
        for name in ("metrics.jsonl", NAME):
            with replacing(folder / name) as temporary:
                shutil.copyfile(base / name, temporary)

    trainer.engine.first_does(copy)
    restore(trainer)


def take_over(trainer: Trainer, start: Path) -> None:
    """Take over the network of a run, which is quantised: trained to its end, or imported.

    Raises
    ------
    RunError
        No such run, or one of another model or chip.
    """
    run, settings = load_run(start), trainer.settings
    for name in ("model", "biases"):
        if getattr(run.settings, name) != getattr(settings, name):
            raise RunError(f"{start}: its {name} is not that of the settings: Settings.tune takes it over")
    network = trainer.network
    theirs = run.network
    if (theirs.weight_bits, theirs.weight_step) != (settings.weight_bits, settings.weight_step) or (
        run.settings.chip.facts.reset.value != settings.chip.facts.reset.value
    ):
        raise RunError(f"{start}: is for the weights and neurons of profile {run.settings.profile}, not of this one")
    network.fold_norms(settings.biases in ("scaled", "kept"))
    network.quantise(theirs.weight_scales, settings.weight_bits, settings.weight_step, theirs.reaches)
    network.load_state_dict(theirs.state_dict())
    if settings.biases == "scaled":  # which are for one time step of as many as training has
        for bias in network.biases:
            bias.value.data *= run.settings.time_steps / settings.time_steps
    trainer.optimiser = trainer.new_optimiser()


def keep_best(trainer: Trainer) -> None:
    """Keep a copy of the quantised weights where no epoch before had their accuracy on what is held out."""
    held = trainer.held_accuracies()
    if held and held[-1] > max(held[:-1], default=-1.0) and trainer.folder is not None and trainer.engine.first:
        info = {"epoch": json.loads(trainer.lines[-1])["epoch"], "classes": trainer.classes}
        save_state(trainer.folder / BEST, trainer.network, {}, info)
