"""Settings of a training run, and the folder that holds one.

A run folder holds ``settings.json`` (what was trained, and how), ``weights.safetensors`` (the trained network),
``metrics.jsonl`` (one line an epoch); where recordings were held out, ``best.safetensors`` (the network as it was after
the epoch that was best on them); and, until training has ended, ``checkpoint.safetensors``.

Settings need no torch, whose import (with SLAYER's) takes seconds: what is wrong with them is said before it.
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

import hw_profiles
from hw_profiles import Profile
from mtt_lava.augmentation import AUGMENTATIONS, parse, written
from mtt_lava.data import DATASETS
from mtt_lava.lowering import untrained
from mtt_lava.model import Model, load_model
from mtt_lava.temporal import METHODS, Sampler
from netx_export.bounds import largest_sum
from netx_export.files import DIGEST, is_whole, replacing, sealed
from netx_export.network import DECAY_UNITY, WEIGHT_MIN
from netx_export.reading import check_plain, opened, read_json, read_text
from netx_export.text import UserError, field_error, first_problem, short

if TYPE_CHECKING:
    import torch

    from mtt_lava.data import Dataset
    from mtt_lava.spiking import SpikingNetwork

    MethodName = str
else:
    MethodName = Literal[tuple(METHODS)]

FORMAT_VERSION = 1
STATE_VERSION = 2
"""Of the safetensors files; since 2 they have a digest."""
BEST = "best.safetensors"
"""The weights of the quantised epoch that was best on what was held out, if anything was."""
FILES = ("settings.json", "weights.safetensors", BEST, "metrics.jsonl", "checkpoint.safetensors")
"""What a run folder can hold, beside its lock."""
LOCK = ".lock"
"""Held by the process that trains in the folder, and gone with it."""
LOGIT_SCALE = 3.0
"""Of `Settings.logit_scale`, where nothing else is said."""


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


def _augmentations(value: Any) -> str:
    """What `Settings.augment` can be; older folders have true and false."""
    if not isinstance(value, bool | str | list | tuple):
        raise ValueError("must be a list of augmentations, as text with commas")
    try:
        return written(parse(value))
    except UserError as error:
        raise ValueError(str(error)) from None


def _option(
    default: Any, what: str, metavar: str | None = None, flag: str | None = None, off: Any = None, **limits: Any
) -> Any:
    """A field as the command line shows it: what it is, what stands for its value, and a flag of another name.

    `off` is the value that a second flag gives, ``--no-`` and the first one's name.
    """
    shown: Any = {"metavar": metavar, "flag": flag, "off": off}
    return pydantic.Field(default, description=what, json_schema_extra=shown, **limits)


_STEPS = "-steps"


class Settings(pydantic.BaseModel):
    """What to train, and how.

    Every field but `model`, `chip` and `start` is a flag of the commands that train, as ``--time-steps``, with its
    default, choices and description; where True is the default, as ``--no-sandwich``. Here stands what more there is
    to say.

    Parameters
    ----------
    model : Model, or what `load_model` takes
        The network.
    float_method
        "sdt" is quicker, and the paper's recipe for chips without a clock.
    configurations, group, hold_first, sandwich, finer, draws
        See `mtt_lava.temporal.Sampler`. Where `finer` applies, recordings are binned into ``finer * time_steps``
        frames, which every other configuration sums.
    form, input_form
        See `mtt_lava.temporal.matrix`.
    profile
        Says reset, payload, weight bits, biases.
    fine_tune
        Before it, norms are folded.
    learning_rate, fine_tune_rate
        Of AdamW.
    norm
        "batch": a batch norm while training; "scale": one without mean and offset (nothing to remove later); "centred":
        weights lose their mean, too.
    biases
        Let weights stand for them (`mtt_lava.training`), remove them (the paper's recipe), keep them rescaled by
        T_train / T (event data, whose charge does not grow with T), or keep them as they are (still images).
    distil
        From time step counts that were trained most to those that were not: the teacher costs nothing, it is run
        anyway. Both answers are softened as those of `mtt_lava.training.losses.of_steps`.
    loss, consistency
        See `mtt_lava.training.losses.of_steps`; the answer of a run is the sum over time with either.
    logit_scale
        Answers counted in few spikes are often tied: the less it is, the more spikes of the outputs the same cross
        entropy takes, and ties are fewer.
    augment
        See `mtt_lava.augmentation`; a list, or its text with commas. True and False stand for "geometric" and "none".
    spike_penalty
        Of the spikes that a hidden neuron fires for a recording (mean over a layer's neurons, then over layers); what
        copied frames multiply is divided out, so that it is the same at any T.
    validate_on
        The same share of each class, chosen by the seed. The last epoch counts, whatever the accuracy; the weights of
        the best are kept beside.
    patience
        A run that stops so has chosen its length on what is held out.
    allow_unfit
        For a study of the profile's neurons, say; else it is refused before training.
    start
        Run folder, whose model, chip and biases these settings have (`Settings.tune` takes them over); of ``mtt train``
        the flag ``--from``.
    chip : Profile
        The facts of the hardware profile; default: as `profile` has them now. A run folder keeps them.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    model: Model
    data: str = _option(
        ...,
        f"data set: {', '.join(DATASETS)} (the first is built in); a folder, .toml or module:function (mtt data)",
        "NAME",
    )
    root: str | None = _option(None, "folder of the data set", "DIR")
    method: MethodName = _option("mtt", ", ".join(f"{name}: {each.title}" for name, each in METHODS.items()))
    float_method: MethodName | None = _option(
        None, "method of the first phase, before weights are quantised (default: the same)"
    )
    time_steps: pydantic.PositiveInt = _option(
        10, "time steps of training: frames that a recording is binned into", "T"
    )
    t_min: pydantic.PositiveInt = _option(1, "fewest time steps drawn by methods that mix", "T")
    configurations: pydantic.PositiveInt = _option(3, "temporal configurations a batch", "S")
    group: pydantic.PositiveInt = _option(1, "blocks a stage", "G")
    hold_first: bool = _option(False, "the first stage always runs T")
    sandwich: bool = _option(True, "the configurations at T and at T_MIN everywhere, which the paper does not have")
    finer: pydantic.PositiveInt = _option(1, "methods that mix also train N * T steps; 1: not")
    draws: Literal["independent", "antithetic", "stratified"] = _option(
        "independent", "how the configurations of a batch are drawn together"
    )
    shared: bool = _option(False, "a batch's configurations share its samples out, instead of running all of them each")
    packed: bool = _option(
        False, "a batch's configurations go through together: quicker for small networks, with the memory of all"
    )
    form: Literal["group", "fraction", "mean"] = _option(
        "group", "temporal transformation between stages; mean: for still images"
    )
    input_form: Literal["group", "fraction", "trim"] = _option("group", "temporal transformation of the input")
    profile: str = _option("loihi2", "hardware profile, name or TOML file", "NAME")
    epochs: int = _option(150, "epochs, quantised ones included; at least 2", ge=2)
    fine_tune: float = _option(0.5, "share of the epochs that trains the quantised network", "SHARE", gt=0, lt=1)
    batch: pydantic.PositiveInt = _option(25, "samples a batch")
    learning_rate: pydantic.PositiveFloat = _option(3e-3, "peak rate before quantisation", "R")
    fine_tune_rate: pydantic.PositiveFloat = _option(2e-3, "peak rate after it", "R")
    weight_decay: pydantic.NonNegativeFloat = _option(0.0, "of AdamW", "W")
    norm: Literal["centred", "batch", "scale"] = _option("centred", "norm while training; centred needs no bias")
    biases: Literal["absorbed", "none", "scaled", "kept"] = _option(
        "absorbed", "what folding the norm does with biases; absorbed: weights stand for them"
    )
    augment: Annotated[str, pydantic.BeforeValidator(_augmentations)] = _option(
        "geometric",
        "random changes of the training frames, in this order: "
        + "; ".join(f"{each.form}, {each.what}" for each in AUGMENTATIONS.values()),
        "A,A,...",
        off="none",
    )
    loss: Literal["mean", "steps"] = _option(
        "mean",
        "cross entropy of the answer averaged over time; or of every time step's (online always), with consistency",
    )
    consistency: pydantic.NonNegativeFloat = _option(
        0.2, "with loss steps: weight of the divergence of every time step's answer from their average", "W"
    )
    distil: pydantic.NonNegativeFloat = _option(
        0.0, "weight of the divergence of a batch's other configurations from what the one at T everywhere answers", "W"
    )
    logit_scale: pydantic.PositiveFloat = _option(
        LOGIT_SCALE, "the loss sees so many times the answer averaged over time; less asks outputs for more spikes", "K"
    )
    spike_penalty: pydantic.NonNegativeFloat = _option(0.0, "weight of spikes in the loss", "W")
    samples: pydantic.PositiveInt | None = _option(None, "train on the first N recordings (default: all)")
    validate_on: Annotated[float | str, pydantic.BeforeValidator(_share)] = _option(
        0.0,
        "measure accuracy after every epoch on this share of the recordings, held out; or on: test",
        "SHARE",
        "validate",
    )
    patience: pydantic.NonNegativeInt = _option(
        0, "stop once N quantised epochs have not been better on what is held out; 0: never"
    )
    precision: Literal["float32", "bfloat16"] = _option(
        "float32", "of the products of weights and spikes before quantisation; bfloat16 is for GPUs that have it"
    )
    silent_epochs: pydantic.NonNegativeInt = _option(
        3, "stop with an error after N epochs without any answer, or with a loss that has run away; 0 goes on"
    )
    seed: pydantic.NonNegativeInt = _option(0, "fixes the result", "S")
    allow_unfit: bool = _option(False, "train also what does not fit the profile: what does not is said")
    start: str | None = _option(
        None, "go on from this run (trained, or of mtt import): all epochs train its quantised network", "RUN", "from"
    )
    chip: Profile = pydantic.Field(default_factory=lambda data: hw_profiles.load(data["profile"]), repr=False)

    @pydantic.field_serializer("chip")
    def _stated(self, chip: Profile) -> dict[str, Any]:
        """Only the facts that the profile states."""
        return chip.model_dump(mode="json", exclude_unset=True)

    @classmethod
    def make(cls, model: str | Path | dict[str, Any] | Model, *, width: float | None = None, **values: Any) -> Settings:
        """Settings from a model and fields, with one clear line for what is wrong.

        With a `width` the model has so many times the channels and features (`mtt_lava.model.Model.scaled`).

        Raises
        ------
        RunError, mtt_lava.model.ModelError, mtt_lava.temporal.TemporalError, hw_profiles.ProfileError
            A model, profile or field that cannot be; a model that does not fit the profile, whatever its weights.
        """
        model = model if isinstance(model, Model) else load_model(model)
        settings = cls._made(model if width is None else model.scaled(width), values)
        settings.check_fit()
        return settings

    @classmethod
    def tune(cls, start: str | Path, **values: Any) -> Settings:
        """Settings to train a run's network further: its model, chip, norm and biases, and other fields as given.

        Raises
        ------
        RunError
            No such run folder, or fields that it says otherwise.
        """
        kept = load_settings(start)
        own = {name: getattr(kept, name) for name in ("profile", "norm", "biases")}
        for name, value in own.items():
            if values.get(name, value) != value:
                raise RunError(f"{start}: has {name} {value}, and {values[name]} cannot be made of it: leave it out")
        return cls.make(kept.model, **values | own | {"chip": kept.chip, "start": str(start)})

    @classmethod
    def _made(cls, model: str | Path | dict[str, Any] | Model, values: dict[str, Any]) -> Settings:
        """Settings that can be; whether they fit the chip was asked when training began."""
        model = model if isinstance(model, Model) else load_model(model)
        try:
            settings = cls(model=model, **{k: v for k, v in values.items() if v is not None})
        except pydantic.ValidationError as error:
            raise RunError(f"training settings: {field_error(error.errors()[0], cls.model_fields)}") from None
        if settings.chip.facts.clocked.value is False:
            # No clock, no "voltage after the last time step": what a chip like that sends are spikes.
            settings = settings.model_copy(update={"model": model.model_copy(update={"readout": "count"})})
        settings.check()
        return settings

    def check_fit(self) -> None:
        """Refuse, before an hour is spent on it, a model of which no weights would fit the chip.

        Raises
        ------
        RunError
            The first thing that does not fit, and how many more there are; never with ``allow_unfit``.
        """
        wrong = () if self.allow_unfit else self.report().of("violation")
        if wrong:
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            raise RunError(
                f"{self.model.name} does not fit profile {self.profile}: {wrong[0]}{more}; train it all the same with "
                f"--allow-unfit"
            )

    def report(self) -> hw_profiles.Report:
        """What the hardware check can say before training: shapes, neurons and cores, but not weights."""
        facts = self.chip.facts
        bias, reset = self.biases in ("scaled", "kept"), facts.reset.value or "zero"
        network = untrained(self.model, not facts.pool_without_neuron.value, reset, bias)
        return hw_profiles.check(network, self.chip, None, self.input_max, trained=False)

    def check(self) -> None:
        """Refuse settings that cannot be together, or that the profile's neurons cannot run."""
        for quantised in (False, True):
            self.sampler(1, quantised)
        if self.biases in ("scaled", "kept") and self.norm != "batch":
            raise RunError(f"training settings: biases {self.biases!r} come from norm 'batch'; norm is {self.norm!r}")
        if self.loss == "mean" and self.consistency != type(self).model_fields["consistency"].default:
            raise RunError(
                f"training settings: consistency is {self.consistency:g}, but loss is 'mean', which has one answer and "
                f"no time steps to be consistent: leave it out, or use loss 'steps'"
            )
        online = next((name for name in self.methods if METHODS[name].online), None)
        if online is not None and self.loss == "steps" and self.consistency:
            raise RunError(
                f"training settings: consistency is {self.consistency:g}, but method {online!r} knows one time step at "
                f"a time and no average of all: use consistency 0, or another method"
            )
        if self.distil and not (self.sandwich and any(METHODS[name].mixes for name in self.methods)):
            raise RunError(
                f"training settings: distil is {self.distil:g}, but no batch has a configuration at T to learn from: "
                f"use a method that mixes, with sandwich"
            )
        if self.distil and self.shared:
            raise RunError(
                "training settings: distil lets configurations learn from the one at T, which with shared runs other "
                "samples: leave one of them out"
            )
        apart = [f"method {name!r}" for name in self.methods if METHODS[name].uniform and METHODS[name].mixes]
        if self.packed and (self.shared or apart):
            raise RunError(
                f"training settings: packed runs the configurations of a batch on the same frames, but with "
                f"{'shared' if self.shared else apart[0]} each has its own: leave packed out"
            )
        if self.distil and any(METHODS[name].online for name in self.methods):
            raise RunError("training settings: distil needs whole answers, which online methods do not have: use 0")
        facts = self.chip.facts
        if facts.reset.value is None:
            raise RunError(
                f"profile {self.profile}: does not say how its neurons reset: state fact reset, or train for another "
                f"chip and check the file against this one"
            )
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
        report = self.report()
        lines += [f"fit: {finding}" for finding in (*report.of("violation"), *report.of("warning"))]
        return lines + list(self._changed())

    def _changed(self) -> Iterator[str]:
        """Whether the profile has changed since these settings were made."""
        try:
            now = hw_profiles.load(self.profile).facts
        except hw_profiles.ProfileError as error:
            yield f"chip: the run keeps the facts that it began with ({error})"
            return
        kept = self.chip.facts
        names = [name for name in type(now).model_fields if getattr(now, name) != getattr(kept, name)]
        if names:
            yield f"chip: the run keeps the facts that it began with; the profile now has other {_some(names)}"

    def _wide(self) -> Iterator[str]:
        """Layers with so many inputs that a current of 24 bits cannot be sure to hold them all."""
        if self.chip.facts.reset.value != "zero":
            return
        shapes = [(part.layer, part.layer.weight_shape(part.before)) for part in self.model.parts()]
        for number, (layer, shape) in enumerate([each for each in shapes if each[1]][1:], 2):
            fan_in = math.prod(shape[1:])
            if fan_in > 2 * largest_sum(round(self.model.neuron.current_decay * DECAY_UNITY) or 1) // -WEIGHT_MIN:
                yield (
                    f"layer {number} of those with weights ({layer.type}): {fan_in:,} inputs: were all to fire at "
                    f"once, 24 bits might not hold its current; its weights use fewer bits where that suffices, else "
                    f"what the training data reaches is measured and written into the file"
                )

    @staticmethod
    def way(label: str) -> dict[str, Any]:
        """The fields that a `label` stands for: a method, trained by the loss of every time step where ``-steps`` ends
        it; one that does not mix distils nothing."""
        method = label.removesuffix(_STEPS)
        alone = method in METHODS and not METHODS[method].mixes
        return {"method": method} | ({"loss": "steps"} if label != method else {}) | ({"distil": 0.0} if alone else {})

    @property
    def label(self) -> str:
        """What studies call this way to train, such as ``mtt-steps``."""
        return self.method + (_STEPS if self.loss == "steps" else "")

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
    def methods(self) -> tuple[str, ...]:
        """Of both phases."""
        return (self.method,) if self.float_method is None else (self.float_method, self.method)

    @property
    def frames(self) -> int:
        """Frames that training bins a recording into."""
        mixed = any(METHODS[name].mixes for name in self.methods)
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
            self.draws,
        )

    def build(self) -> SpikingNetwork:
        """The untrained network; the seed fixes its weights."""
        import torch

        from mtt_lava.spiking import SpikingNetwork

        torch.manual_seed(self.seed)
        pool_neurons = not self.chip.facts.pool_without_neuron.value
        reset = self.chip.facts.reset.value
        assert reset is not None
        return SpikingNetwork(self.model, pool_neurons, self.norm, self.input_max, self.form, self.input_form, reset)


def open_split(settings: Settings, root: str | None = None, split: str = "test") -> Dataset:
    """A split of the data that a run was trained on.

    Raises
    ------
    RunError
        If its settings name a function: a run folder, which may be anybody's, must not choose what code runs.
    """
    from mtt_lava.data import open_dataset
    from mtt_lava.data.own import is_function

    if not settings.data:
        raise RunError("the run was imported and names no data: name it, with --data NAME or as dataset in Python")
    if is_function(settings.data):
        raise RunError(
            f"the run was trained on {settings.data!r:.80}, which is code, and that a run folder does not start: "
            "name the data yourself, with --data module:function or as dataset in Python"
        )
    return open_dataset(settings.data, split=split, root=root or settings.root)


def unseen(settings: Settings, training: Dataset, count: int) -> Dataset:
    """The first `count` of the training recordings that a run with these settings does not train on.

    Those behind its setting ``samples``, then those that ``validate_on`` holds out.

    Raises
    ------
    RunError
        There are not so many.
    """
    from mtt_lava.data import join, split, subset

    seen = range(min(settings.samples or len(training), len(training)))
    parts = [subset(training, range(len(seen), len(training)))] if len(seen) < len(training) else []
    if isinstance(settings.validate_on, float) and settings.validate_on:
        parts.append(split(subset(training, seen), settings.validate_on, seed=settings.seed)[1])
    left = sum(map(len, parts))
    if count > left:
        raise RunError(
            f"{training.name}: {left:,} training recordings were not trained on, and {count:,} are wanted: take fewer, "
            "train on fewer (--samples), or hold some out (--validate)"
        )
    return subset(join(*parts), range(count))


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
        Largest sizes of u and v, without their signs, of every layer over the training data, in the chip's units; empty
        without time steps.
    imported : dict or None
        Of a network of others (`mtt_lava.import_network`): its source, what it does otherwise, and what became what.
    """

    def __init__(self, settings: Settings, network: SpikingNetwork, folder: Path | None = None) -> None:
        self.settings, self.network, self.folder = settings, network, folder
        self.measured: dict[str, tuple[int, int]] = {}
        self.classes: tuple[str, ...] | None = None
        self.imported: dict[str, Any] | None = None
        network.eval()

    def __repr__(self) -> str:
        s = self.settings
        origin = f"by {s.method} on {s.data}" if self.imported is None else f"imported from {self.imported['source']}"
        return (
            f"<Run {self.folder or 'in memory'}: {s.model.name} {origin}, T = {s.time_steps}, "
            f"{s.profile}, {self.network.weights:,} weights>"
        )

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One dictionary an epoch.

        Raises
        ------
        RunError
            The file is missing or damaged.
        """
        return [] if self.folder is None else load_metrics(self.folder)

    @contextmanager
    def at(self, time_steps: int) -> Iterator[None]:
        """Inside, kept biases are rescaled by T_train / T where the settings ask for it; nothing else depends on T."""
        biases = self.network.biases if self.settings.biases == "scaled" else []
        before = [bias.per_step for bias in biases]
        for bias in biases:
            bias.per_step = self.settings.time_steps / time_steps
        try:
            yield
        finally:
            for bias, per_step in zip(biases, before, strict=True):
                bias.per_step = per_step

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

    def save(self, folder: str | Path, name: str = "weights.safetensors", **more: Any) -> None:
        """Write settings and weights into a run folder; `more` is information beside the weights."""
        self.folder = Path(folder)
        save_settings(self.settings, self.folder)
        info = {"measured": self.measured, "classes": self.classes, **more}
        info |= {"imported": self.imported} if self.imported is not None else {}
        save_state(self.folder / name, self.network, {}, info)


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
    from safetensors.torch import save

    tensors = {f"network.{name}": value.contiguous() for name, value in network.state_dict().items()}
    quantised = {name: getattr(network, name) for name in ("weight_scales", "weight_bits", "weight_step", "reaches")}
    # The digest stands before all other text, so that none can be taken for it.
    info = {"digest": DIGEST, "format_version": STATE_VERSION} | quantised | (info or {})
    content = sealed(save(tensors | more, {"info": json.dumps(info)}))
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def _info(content: bytes) -> dict[str, Any]:
    """What stands beside the tensors in a safetensors file, which has a header of JSON behind 8 bytes of its size."""
    size = int.from_bytes(content[:8], "little")
    found = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["info"])
    if not isinstance(found, dict):
        raise ValueError("its information is no JSON object")
    return found


class _Origin(pydantic.BaseModel):
    """Where the weights of an imported run are from."""

    model_config = pydantic.ConfigDict(extra="forbid")

    source: str
    differs: list[str]
    notes: list[str]


class _Info(pydantic.BaseModel):
    """What `save_state` writes beside the tensors; more is for the trainer."""

    model_config = pydantic.ConfigDict(extra="allow", allow_inf_nan=False)

    weight_scales: list[pydantic.PositiveFloat]
    weight_bits: Annotated[int, pydantic.Field(ge=2, le=32)] | None
    weight_step: Annotated[int, pydantic.Field(ge=1, le=1 << 16)]
    reaches: list[pydantic.PositiveFloat | None] | None = None
    measured: dict[str, tuple[int, int]] = {}
    classes: list[str] | None = None
    imported: _Origin | None = None


def load_state(path: Path, network: SpikingNetwork, biases: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Restore what `save_state` wrote into a freshly built network; returns the other tensors and the information.

    Raises
    ------
    RunError
        A file that is missing, damaged, or of another network.
    """
    import torch
    from safetensors.torch import load

    with opened(path, RunError) as file:
        content = file.read()
    try:
        whole = is_whole(content)
        if whole is False:
            raise RunError(f"{path}: damaged: its digest is not that of its content")
        tensors, found = load(content), _info(content)
        check_plain(found, "info", RunError)
        version = found.get("format_version", 1)  # before 2, nothing had a version or a digest
        if version > STATE_VERSION:
            raise RunError(f"{path}: format version {version}; this program reads {STATE_VERSION}: update it")
        if version >= 2 and not whole:
            raise RunError(f"{path}: damaged: it has no digest")
        info = _Info.model_validate(found).model_dump()
    except RunError:
        raise
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
    """Read ``settings.json`` of a run folder, or of that in which a file ``best.safetensors`` stands.

    Raises
    ------
    RunError
        No such folder, or a file that is missing, damaged or of a newer version.
    """
    folder = Path(folder)
    if folder.name == BEST:
        folder = folder.parent
    path = folder / "settings.json"
    if not path.exists():
        raise RunError(f"{folder}: not a run folder (it has no settings.json): make one with mtt train")
    content = read_json(path, RunError)
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict) or "format_version" not in content:
        raise RunError(f"{path}: damaged: must be an object with format_version and model")
    version, model = content.pop("format_version"), content.pop("model")
    if version != FORMAT_VERSION:
        raise RunError(f"{path}: format version {short(version)}; this program reads {FORMAT_VERSION}: update it")
    # What it was before runs said so.
    content.setdefault("logit_scale", 10.0)
    try:
        return Settings._made(model, content)
    except UserError as error:
        raise type(error)(f"{path}: {error}") from None


def kept_chip(folder: str | Path, profile: str) -> Profile | None:
    """The facts of this profile as the run in a folder keeps them; None: it keeps none.

    Raises
    ------
    RunError
        A damaged file.
    """
    if not (Path(folder) / "settings.json").exists():
        return None
    settings = load_settings(folder)
    return settings.chip if settings.profile == profile else None


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

    Parameters
    ----------
    folder : path
        Of the run; or its file ``best.safetensors``, for the weights of the epoch that was best on the recordings held
        out. They were chosen on those: their accuracy there flatters.

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
    folder, name = Path(folder), "weights.safetensors"
    if folder.name == BEST:
        folder, name = folder.parent, BEST
    settings = load_settings(folder)
    if not (folder / "weights.safetensors").exists() and (folder / "checkpoint.safetensors").exists():
        raise RunError(f"{folder}: training has not ended: go on with mtt train --resume --out {folder}")
    path = folder / name
    with opened(path, RunError) as file:
        held = os.fstat(file.fileno()).st_size
    needed = 4 * settings.model.weights
    if held < needed // 2:  # before memory is taken for what settings.json declares
        raise RunError(f"{path}: damaged, or holds another network than settings.json: {held:,} bytes, not {needed:,}")
    network = settings.build()
    _, info = load_state(path, network, settings.biases)
    run = Run(settings, network, folder)
    run.classes = tuple(info["classes"]) if info["classes"] else None
    run.measured, run.imported = info["measured"], info["imported"]
    return run
