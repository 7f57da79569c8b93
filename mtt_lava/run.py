"""Settings of a training run, and the folder that holds one.

A run folder holds ``settings.json`` (what was trained, and how), ``weights.safetensors`` (the trained network),
``metrics.jsonl`` (one line an epoch) and, until training has ended, ``checkpoint.safetensors``.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pydantic
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import hw_profiles
from mtt_lava.model import Conv, Model, Pool, SpikingNetwork, load_model
from mtt_lava.temporal import Sampler
from netx_export.bounds import largest_sum
from netx_export.files import replacing
from netx_export.network import DECAY_UNITY, WEIGHT_MIN
from netx_export.reading import check_plain, opened, read_json, read_text
from netx_export.text import UserError, first_problem, short

if TYPE_CHECKING:
    from hw_profiles import Profile
    from mtt_lava.data import Dataset

FORMAT_VERSION = 1
FILES = ("settings.json", "weights.safetensors", "metrics.jsonl", "checkpoint.safetensors")
"""What a run folder can hold, beside its lock."""
LOCK = ".lock"
"""Held by the process that trains in the folder, and gone with it."""


class RunError(UserError):
    """Settings that cannot be, or a run folder that is not one. One clear line."""


def _share(value: Any) -> float | str:
    """What `Settings.validate_on` can be."""
    if value == "test":
        return "test"
    with suppress(ValueError, TypeError):
        if 0 <= float(value) < 1:
            return float(value)
    raise ValueError("must be a share from 0 to below 1, or test")


class Settings(pydantic.BaseModel):
    """What to train, and how.

    Parameters
    ----------
    model : Model, or what `load_model` takes
        The network.
    data : str
        Name of a data set.
    root : str, optional
        Folder of the data set.
    method : {"sdt", "nmt", "mtt"}
        Standard direct training, naive mixture, or Mixed Time-step Training.
    float_method : str, optional
        Another method for the first phase, before weights are quantised: "sdt" is quicker, and the paper's recipe for
        chips without a clock.
    time_steps : int
        T: frames a recording is binned into; the largest number of time steps trained, but for `finer`.
    t_min : int
        Smallest number of time steps drawn.
    configurations, group, hold_first, sandwich, finer
        See `mtt_lava.temporal.Sampler`. Where `finer` applies, recordings are binned into ``finer * time_steps``
        frames, which every other configuration sums.
    form, input_form : str
        Form of the temporal transformations between stages, and of the one before the first; see
        `mtt_lava.temporal.matrix`.
    profile : str
        Name or file of the hardware profile: reset, payload, weight bits, biases.
    epochs : int
        All epochs, at least 2; the share `fine_tune` of them trains the quantised network, after norms are folded.
    learning_rate, fine_tune_rate : float
        Peak rates of AdamW in the two phases.
    norm : {"batch", "scale"}
        Batch norm while training, or without mean and offset (nothing to remove later).
    biases : {"absorbed", "none", "scaled", "kept"}
        What folding the norm does with biases: let weights stand for them (`mtt_lava.training`), remove them (the
        paper's recipe), keep them rescaled by T_train / T (event data, whose charge does not grow with T), or keep them
        as they are (still images).
    augment : bool
        Small random shifts, turns, zooms and shears of the training frames.
    spike_penalty : float
        Weight in the loss of the spikes that a hidden neuron fires for a recording (mean over a layer's neurons, then
        over layers); what copied frames multiply is divided out, so that it is the same at any T.
    samples : int, optional
        Train on the first so many recordings only.
    validate_on : float or "test"
        Share of the recordings to hold out of training (the same of each class, chosen by the seed), or the test
        split: accuracy on them is measured after every epoch. Nothing is chosen by it.
    silent_epochs : int
        Stop with an error after so many epochs without any answer; 0: go on.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    model: Model
    data: str
    root: str | None = None
    method: Literal["sdt", "nmt", "mtt"] = "mtt"
    float_method: Literal["sdt", "nmt", "mtt"] | None = None
    time_steps: pydantic.PositiveInt = 10
    t_min: pydantic.PositiveInt = 1
    configurations: pydantic.PositiveInt = 3
    group: pydantic.PositiveInt = 1
    hold_first: bool = False
    sandwich: bool = True
    finer: pydantic.PositiveInt = 1
    form: Literal["group", "fraction"] = "group"
    input_form: Literal["group", "fraction", "trim"] = "group"
    profile: str = "loihi2"
    epochs: int = pydantic.Field(default=150, ge=2)
    fine_tune: float = pydantic.Field(default=0.5, gt=0, lt=1)
    batch: pydantic.PositiveInt = 25
    learning_rate: pydantic.PositiveFloat = 3e-3
    fine_tune_rate: pydantic.PositiveFloat = 2e-3
    weight_decay: pydantic.NonNegativeFloat = 0.0
    norm: Literal["centred", "batch", "scale"] = "centred"
    biases: Literal["absorbed", "none", "scaled", "kept"] = "absorbed"
    augment: bool = True
    spike_penalty: pydantic.NonNegativeFloat = 0.0
    samples: pydantic.PositiveInt | None = None
    validate_on: Annotated[float | str, pydantic.BeforeValidator(_share)] = 0.0
    silent_epochs: pydantic.NonNegativeInt = 3
    seed: pydantic.NonNegativeInt = 0

    @classmethod
    def make(cls, model: str | Path | dict[str, Any] | Model, **values: Any) -> Settings:
        """Settings from a model and fields, with one clear line for what is wrong.

        Raises
        ------
        RunError, mtt_lava.model.ModelError, mtt_lava.temporal.TemporalError, hw_profiles.ProfileError
            A model, profile or field that cannot be.
        """
        model = model if isinstance(model, Model) else load_model(model)
        if hw_profiles.load(values.get("profile") or cls.model_fields["profile"].default).facts.clocked.value is False:
            # No clock, no "voltage after the last time step": what a chip like that sends are spikes.
            model = model.model_copy(update={"readout": "count"})
        try:
            settings = cls(model=model, **{k: v for k, v in values.items() if v is not None})
        except pydantic.ValidationError as error:
            raise RunError(f"training settings: {first_problem(error)}") from None
        settings.check()
        return settings

    def check(self) -> None:
        """Refuse what the profile cannot run, before an hour is spent on it."""
        self.sampler(1)
        if self.biases in ("scaled", "kept") and self.norm != "batch":
            raise RunError(f"training settings: biases {self.biases!r} come from norm 'batch'; norm is {self.norm!r}")
        facts = self.chip.facts
        if facts.reset.value is None:
            raise RunError(f"profile {self.profile}: does not say how its neurons reset: state fact reset")
        if facts.clocked.value is False and self.model.readout != "count":
            raise RunError(
                f"profile {self.profile}: a chip without a clock answers with spikes only: use readout 'count', not "
                f"{self.model.readout!r} (Settings.make and mtt train do so)"
            )
        neuron = self.model.neuron
        if facts.reset.value == "subtract" and (neuron.current_decay, neuron.voltage_decay) != (1, 0):
            raise RunError(
                f"profile {self.profile}: its neurons integrate and fire: the model's neuron must have "
                f"current_decay 1 and voltage_decay 0"
            )
        if self.biases in ("scaled", "kept") and facts.bias_allowed.value is False:
            raise RunError(f"profile {self.profile} has no biases: train with biases 'absorbed' or 'none'")
        if self.finer > 1 and self.input_form == "trim":
            raise RunError(
                f"training settings: finer {self.finer} bins recordings into more frames than T, of which input_form "
                f"'trim' would drop all but the first: use input_form 'group' or 'fraction'"
            )

    def adaptations(self) -> list[str]:
        """What the profile changes in the training, one line each."""
        facts, lines = self.chip.facts, list(self._wide())
        if self.input_max is not None:
            bits = facts.payload_bits.value
            lines.append(f"input: counts above {self.input_max} in a frame are cut: a spike carries {bits} bit")
        if facts.clocked.value is False:
            lines.append(
                "readout: output spikes are counted: without a clock there is no last time step to read v after"
            )
        if facts.reset.value == "subtract":
            lines.append("neurons: a spike takes the threshold from v; several spikes in a time step")
        if not facts.pool_without_neuron.value and any(layer.type == "pool" for layer in self.model.layers):
            lines.append("pools: they have neurons of their own, a spike where any came in")
        return lines

    def _wide(self) -> Iterator[str]:
        """Layers with so many inputs that a current of 24 bits cannot be sure to hold them all."""
        if self.chip.facts.reset.value != "zero":
            return
        weighted = [(layer, shape) for layer, shape in zip(self.model.layers, self.model.shapes(), strict=False)]
        weighted = [(layer, shape) for layer, shape in weighted if not isinstance(layer, Pool)]
        for number, (layer, shape) in enumerate(weighted[1:], 2):
            fan_in = math.prod(shape)
            if isinstance(layer, Conv):
                fan_in = shape[0] // layer.groups * math.prod(layer.kernel)
            if fan_in > 2 * largest_sum(round(self.model.neuron.current_decay * DECAY_UNITY) or 1) // -WEIGHT_MIN:
                yield (
                    f"layer {number} of those with weights ({layer.type}): {fan_in:,} inputs: were all to fire at "
                    f"once, 24 bits might not hold its current; its weights use fewer bits where that suffices, else "
                    f"what the training data reaches is measured and written into the file"
                )

    @property
    def chip(self) -> Profile:
        """The hardware profile."""
        return hw_profiles.load(self.profile)

    @property
    def input_max(self) -> int | None:
        """Largest input value that the chip's spikes can carry; None where they can carry any of ours.

        Without time steps a pixel's events arrive one by one, however many there are.
        """
        if self.chip.facts.clocked.value is False:
            return None
        bits = self.chip.facts.payload_bits.value
        return None if bits is None or bits >= 24 else (1 << bits) - 1

    @property
    def weight_bits(self) -> int:
        """Width of the chip's weights, sign included; what its step leaves out does not count."""
        facts = self.chip.facts
        low, high, step = facts.weight_min.value, facts.weight_max.value, facts.weight_step.value
        if low is None or high is None or step is None:
            raise RunError(f"profile {self.profile}: does not say weight_min, weight_max and weight_step: state them")
        return ((high - low) // step).bit_length()

    @property
    def weight_step(self) -> int:
        """The chip's weights are multiples of it; see `weight_bits`."""
        return self.chip.facts.weight_step.value or 1

    @property
    def frames(self) -> int:
        """Frames that training bins a recording into."""
        mixed = {self.method, self.float_method} & {"nmt", "mtt"}
        return self.time_steps * (self.finer if mixed else 1)

    def sampler(self, stages: int, quantised: bool = True) -> Sampler:
        """The temporal configurations of the second phase of training, or of the first."""
        return Sampler(
            self.method if quantised else self.float_method or self.method,
            stages,
            self.t_min,
            self.time_steps,
            self.configurations,
            self.group,
            self.hold_first,
            self.sandwich,
            self.seed,
            self.finer,
        )

    def build(self) -> SpikingNetwork:
        """The untrained network; the seed fixes its weights."""
        torch.manual_seed(self.seed)
        pool_neurons = not self.chip.facts.pool_without_neuron.value
        reset = self.chip.facts.reset.value
        assert reset is not None
        return SpikingNetwork(self.model, pool_neurons, self.norm, self.input_max, self.form, self.input_form, reset)


class Run:
    """A trained network and how it was trained.

    Attributes
    ----------
    settings : Settings
    network : SpikingNetwork
        Quantised, in evaluation mode.
    folder : pathlib.Path or None
    classes : tuple of str or None
        Names of the classes it was trained on; None where they are not known (older folders).
    measured : dict of str to tuple of int
        Largest |u| and |v| of every layer over the training data, in the chip's units; empty without time steps.
    """

    def __init__(self, settings: Settings, network: SpikingNetwork, folder: Path | None = None) -> None:
        self.settings, self.network, self.folder = settings, network, folder
        self.measured: dict[str, tuple[int, int]] = {}
        self.classes: tuple[str, ...] | None = None
        network.eval()

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One dictionary an epoch.

        Raises
        ------
        RunError
            The file is missing or damaged.
        """
        return [] if self.folder is None else load_metrics(self.folder)

    def set_time_steps(self, time_steps: int) -> None:
        """Rescale kept biases by T_train / T where the settings ask for it; nothing else depends on T."""
        if self.settings.biases == "scaled":
            for bias in self.network.biases:
                bias.per_step = self.settings.time_steps / time_steps

    def check_data(self, dataset: Dataset) -> None:
        """Refuse data of other classes or another shape than the run was trained on.

        Raises
        ------
        RunError
        """
        width, height, channels = dataset.sensor_size
        wanted = self.settings.model.input
        if wanted != (channels, height, width):
            raise RunError(f"{dataset.name}: gives {[channels, height, width]}; the run takes {list(wanted)}")
        if self.classes is not None and self.classes != dataset.classes:
            trained = _some(self.classes)
            raise RunError(
                f"{dataset.name}: its classes are {_some(dataset.classes)}; the run was trained on {trained}"
            )

    def save(self, folder: str | Path) -> None:
        """Write settings and weights into a run folder."""
        self.folder = Path(folder)
        save_settings(self.settings, self.folder)
        save_state(
            self.folder / "weights.safetensors", self.network, {}, {"measured": self.measured, "classes": self.classes}
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f", ... ({len(names)})" if len(names) > 5 else "")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from training in a folder, which is made; remove what a killed one left half-written.

    Raises
    ------
    RunError
        Another process has it, or it is no folder.
    """
    made = not folder.exists()
    if not made and not folder.is_dir():
        raise RunError(f"{folder}: exists and is not an empty folder: choose another")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(lock.fileno()), path.stat()):  # its holder has just removed it
                raise BlockingIOError
        except OSError:
            raise RunError(
                f"{folder}: another process is training in it: wait for its end, or choose another"
            ) from None
        for name in FILES:
            for half in folder.glob(f".{name}.*"):
                half.unlink()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            if made and not any(folder.iterdir()):
                folder.rmdir()


def save_settings(settings: Settings, folder: Path) -> None:
    """Write ``settings.json``."""
    with replacing(folder / "settings.json") as temporary:
        content = {"format_version": FORMAT_VERSION, **settings.model_dump(mode="json")}
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def save_state(
    path: Path, network: SpikingNetwork, more: dict[str, torch.Tensor], info: dict[str, Any] | None = None
) -> None:
    """Write a network's tensors (and more) as safetensors, with what is needed to rebuild it."""
    tensors = {f"network.{name}": value.contiguous() for name, value in network.state_dict().items()}
    quantised = {name: getattr(network, name) for name in ("weight_scales", "weight_bits", "weight_step", "reaches")}
    info = quantised | (info or {})
    with replacing(path) as temporary:
        save_file(tensors | more, temporary, {"info": json.dumps(info)})


class _Info(pydantic.BaseModel):
    """What `save_state` writes beside the tensors; more is for the trainer."""

    model_config = pydantic.ConfigDict(extra="allow", allow_inf_nan=False)

    weight_scales: list[pydantic.PositiveFloat]
    weight_bits: Annotated[int, pydantic.Field(ge=2, le=32)] | None
    weight_step: Annotated[int, pydantic.Field(ge=1, le=1 << 16)]
    reaches: list[pydantic.PositiveFloat | None] | None = None
    measured: dict[str, tuple[int, int]] = {}
    classes: list[str] | None = None


def load_state(path: Path, network: SpikingNetwork, biases: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Restore what `save_state` wrote into a freshly built network; returns the other tensors and the information.

    Raises
    ------
    RunError
        A file that is missing, damaged, or of another network.
    """
    with opened(path, RunError) as file:
        held = os.fstat(file.fileno()).st_size
    needed = 4 * sum(value.numel() for value in network.parameters() if value.dtype == torch.float32)
    if held < needed // 2:
        raise RunError(f"{path}: damaged, or holds another network than settings.json: {held:,} bytes, not {needed:,}")
    try:
        with safe_open(path, "pt") as file:
            content = json.loads(file.metadata()["info"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        check_plain(content, "info", RunError)
        info = _Info.model_validate(content).model_dump()
    except pydantic.ValidationError as error:
        raise RunError(f"{path}: damaged, or not written by mtt train: {first_problem(error)}") from None
    except Exception as error:  # whatever safetensors, torch and json say of damaged and foreign files
        raise RunError(f"{path}: damaged, or not written by mtt train: {short(str(error), 120)}") from None
    try:
        if info["weight_scales"]:
            network.fold_norms(biases in ("scaled", "kept"))
            network.quantise(info["weight_scales"], info["weight_bits"], info["weight_step"], info["reaches"])
        state = {name.removeprefix("network."): value for name, value in tensors.items() if name.startswith("network.")}
        network.load_state_dict(state)
    except (RuntimeError, ValueError, TypeError) as error:
        raise RunError(f"{path}: holds another network than settings.json: {short(str(error), 120)}") from None
    broken = next((name for name, value in network.state_dict().items() if not torch.isfinite(value).all()), None)
    if broken is not None:
        raise RunError(f"{path}: damaged: {broken} holds values that are no numbers")
    return {name: value for name, value in tensors.items() if not name.startswith("network.")}, info


def load_settings(folder: str | Path) -> Settings:
    """Read ``settings.json`` of a run folder.

    Raises
    ------
    RunError
        No such folder, or a file that is missing, damaged or of a newer version.
    """
    path = Path(folder) / "settings.json"
    if not path.exists():
        raise RunError(f"{folder}: not a run folder (it has no settings.json): make one with mtt train")
    content = read_json(path, RunError)
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict) or "format_version" not in content:
        raise RunError(f"{path}: damaged: must be an object with format_version and model")
    version, model = content.pop("format_version"), content.pop("model")
    if version != FORMAT_VERSION:
        raise RunError(f"{path}: format version {short(version)}; this program reads {FORMAT_VERSION}: update it")
    try:
        return Settings.make(model, **content)
    except UserError as error:
        raise type(error)(f"{path}: {error}") from None


def load_metrics(folder: Path) -> list[dict[str, Any]]:
    """Read ``metrics.jsonl`` of a run folder: one dictionary an epoch.

    Raises
    ------
    RunError
        The file is missing or damaged.
    """
    path, found = folder / "metrics.jsonl", []
    for number, line in enumerate(read_text(path, RunError).splitlines(), 1):
        try:
            found.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise RunError(f"{path}: line {number} is damaged: {short(str(error), 120)}") from None
        if not isinstance(found[-1], dict):
            raise RunError(f"{path}: line {number} is damaged: must be an object")
    return found


def load_run(folder: str | Path) -> Run:
    """Open a finished run folder.

    Raises
    ------
    RunError
        Not a run folder, a damaged file, or a run that has not ended.

    Examples
    --------
    >>> run = load_run("runs/nmnist")  # doctest: +SKIP
    >>> run.network.weights  # doctest: +SKIP
    6160
    """
    folder = Path(folder)
    settings = load_settings(folder)
    if not (folder / "weights.safetensors").exists() and (folder / "checkpoint.safetensors").exists():
        raise RunError(f"{folder}: training has not ended: go on with mtt train --resume --out {folder}")
    network = settings.build()
    _, info = load_state(folder / "weights.safetensors", network, settings.biases)
    run = Run(settings, network, folder)
    run.classes = tuple(info["classes"]) if info["classes"] else None
    run.measured = info["measured"]
    return run
