"""Profiles: the facts known of a chip or board, each with unit, source and status, from TOML files.

A file states ``title``, may extend another (``extends = "loihi2"``, or the path of a file), names its
sources and then one table a fact::

    title = "My board: two chips"
    extends = "loihi2"

    [sources]
    mine = "datasheet of my board, page 3"

    [facts]
    chips = { value = 2, unit = "chip", source = ["mine"], status = "documented" }
    energy_synapse = { unit = "pJ", source = ["mine"], status = "unknown" }

A fact replaces the extended profile's fact as a whole, so that no number keeps another number's source.
TOML has no null: an unknown fact has no value.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, ValidationError, model_validator

from netx_export.reading import read_toml
from netx_export.text import UserError, meant, short, table

if TYPE_CHECKING:
    from netx_export.event.backend import ChipRules

FOLDER = Path(__file__).parent / "profiles"

Status = Literal["documented", "measured", "simulated", "estimate", "unknown"]
Reset = Literal["zero", "subtract"]
T = TypeVar("T")


class ProfileError(UserError):
    """A profile is not there, or not what it must be. One clear line."""


class Fact(BaseModel, Generic[T]):
    """One fact about a chip.

    ``value`` is None exactly where ``status`` is ``"unknown"``. ``documented``: stated by the maker or in the
    chip's own tools; ``measured``: on hardware, by a third party; ``simulated``: before silicon, or read in a
    simulation model of the chip; ``estimate``: inferred. A limit that is an estimate warns where it is
    passed, and so does one that only one of two disputing sources states; else passing it is a violation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: T | None = Field(None, description="the fact; leave out where unknown")
    unit: str = Field("", description="unit of the number, such as bit, pJ, ns, neuron; required for numbers")
    source: tuple[str, ...] = Field(..., min_length=1, description="keys of the table [sources]")
    status: Status = Field(..., description="how the fact is known")
    disputed: T | None = Field(None, description="what another source says instead")
    note: str = Field("", description="what to keep in mind, for people")

    @model_validator(mode="after")
    def _consistent(self) -> Fact[T]:
        if (self.value is None) != (self.status == "unknown"):
            raise ValueError('an unknown fact has no value, and a fact without value has status = "unknown"')
        values = self.value if isinstance(self.value, tuple) else (self.value,)
        numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
        if numbers and not self.unit:
            raise ValueError("a number needs a unit")
        if not all(math.isfinite(v) for v in numbers):
            raise ValueError("a number must be finite; leave out the value of an unknown fact")
        return self

    def __str__(self) -> str:
        if self.value is None:
            return "unknown"
        text = _plain(self.value) + (f" {self.unit}" if self.unit else "")
        return text if self.disputed is None else f"{text} (disputed: {_plain(self.disputed)})"


def _plain(value: object) -> str:
    """Write a value for people: 1,048,576; yes; 1, 2, 3 x 16."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        runs = ((_plain(item), len(list(run))) for item, run in itertools.groupby(value))
        return ", ".join(text if n == 1 else f"{n} x {text}" for text, n in runs)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"{value:,}" if isinstance(value, int | float) else str(value)


_UNSTATED = ("not stated",)


def _fact(description: str) -> Any:
    """Field of a fact; a profile that says nothing of it leaves it unknown."""
    return Field(
        default_factory=lambda: {"source": _UNSTATED, "status": "unknown"},
        validate_default=True,
        description=description,
    )


Integer = Fact[StrictInt]
Bits = Fact[Annotated[StrictInt, Field(ge=1, le=64)]]
Power = Fact[Annotated[StrictInt, Field(ge=-64, le=64)]]
Integers = Fact[tuple[StrictInt, ...]]
Number = Fact[StrictFloat]
Numbers = Fact[tuple[StrictFloat, ...]]
Flag = Fact[StrictBool]


class Facts(BaseModel):
    """All facts a profile can state, in the order in which they are shown."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clocked: Flag = _fact("whether the chip computes in time steps; else event by event")
    neuron: Fact[str] = _fact("neuron model")
    reset: Fact[Reset] = _fact("what training assumes a neuron does after a spike")
    resets: Fact[tuple[Reset, ...]] = _fact("what a neuron can do after a spike")
    sigma_delta: Flag = _fact("whether there are sigma-delta neurons, which send values")
    threshold_strict: Flag = _fact("whether a neuron spikes at v > threshold only, or already at v >= threshold")
    payload_bits: Bits = _fact("bits a spike carries; 1 is a binary spike")
    recurrence: Flag = _fact("whether a layer may feed itself")
    pool_without_neuron: Flag = _fact("whether a sum pool needs no neurons of its own")
    reset_interval_power_of_two: Flag = _fact("whether neurons can be reset only every 2^n time steps")

    weight_bits: Bits = _fact("bits of a stored weight with sign")
    weight_min: Integer = _fact("smallest integer weight")
    weight_max: Integer = _fact("largest integer weight")
    weight_step: Integer = _fact("weights are multiples of it")
    weight_exponent_min: Power = _fact("smallest exponent of a power of two common to a group of weights")
    weight_exponent_max: Power = _fact("largest exponent of a power of two common to a group of weights")
    input_weight_bits: Bits = _fact("the same of the first layer, where it differs")
    delay_max: Integer = _fact("longest delay of a synapse; 0: no delays")

    state_bits: Bits = _fact("width of current and membrane voltage with sign")
    state_shift: Power = _fact("synaptic input and threshold are shifted left by this much")
    threshold_max: Integer = _fact("largest threshold mantissa, in units of integer weights")
    readout_threshold_max: Integer = _fact("largest threshold that kept a readout of voltages from spiking on hardware")
    current_decay_min: Integer = _fact("smallest decay of the current; 4096 forgets everything in one time step")
    current_decay_max: Integer = _fact("largest decay of the current")
    voltage_decay_min: Integer = _fact("smallest decay of the membrane voltage")
    voltage_decay_max: Integer = _fact("largest decay of the membrane voltage")
    decay_shift: Flag = _fact("whether a state can only lose itself shifted right by whole bits")
    keeps_state: Flag = _fact("whether neurons keep anything from one time step to the next")
    bias_allowed: Flag = _fact("whether neurons may have a bias")
    bias_mantissa_bits: Bits = _fact("width of the bias mantissa with sign")
    bias_exponent_max: Power = _fact("largest exponent of the bias")
    refractory_min: Integer = _fact("shortest refractory period")
    refractory_max: Integer = _fact("longest refractory period")

    chips: Integer = _fact("chips on the board")
    tiles_east_west: Integer = _fact("width of a chip's mesh of tiles")
    tiles_north_south: Integer = _fact("height of a chip's mesh of tiles")
    cores_per_tile: Integer = _fact("cores of a tile")
    processors_per_chip: Integer = _fact("embedded processors of a chip")
    cores_per_chip: Integer = _fact("neuro cores of a chip")
    neurons_per_core: Integer = _fact("neurons of a core")
    memory_per_core: Integer = _fact("memory of a core, for everything")
    synapse_memory_per_core: Integer = _fact("memory of a core for synapses")
    synapse_layout: Fact[Literal["chunks"]] = _fact(
        "how a core stores synapses; chunks: those of an axon in chunks of at most 64, in words of 64 bits"
    )
    synapses_per_chip: Integer = _fact("synapses of a chip")
    input_axons_per_core: Integer = _fact("input axons of a core")
    output_axons_per_core: Integer = _fact("output axons of a core")
    threshold_profiles_per_core: Integer = _fact("different thresholds in a core")
    synapse_formats_per_core: Integer = _fact("different synapse formats in a core")

    kernel_memory: Integers = _fact("memory of each core for kernels, in weights")
    neuron_memory: Integers = _fact("memory of each core for neurons, in membrane voltages")
    bias_memory: Integers = _fact("memory of each core for biases")
    input_size_max: Integer = _fact("largest height and width of a core's input")
    output_size_max: Integer = _fact("largest height and width of a core's output, before its pool")
    channels_max: Integer = _fact("largest number of channels in and out of a core")
    kernel_max: Integer = _fact("largest height and width of a kernel")
    kernel_square: Flag = _fact("whether kernels must be square")
    strides: Integers = _fact("possible strides")
    padding_max: Integer = _fact("largest padding")
    pools: Integers = _fact("possible sum pools after a core, square, stride equal to size")
    camera_pools: Integers = _fact("possible sum pools of the camera's own layer, the only ones before the first core")
    camera_channels: Integer = _fact("polarities that the camera's own layer pools")
    camera_size: Integer = _fact("height and width of the camera")
    groups_max: Integer = _fact("largest number of groups of a convolution")
    dilation_max: Integer = _fact("largest dilation of a convolution")
    destinations_per_core: Integer = _fact("cores to which a core can send")
    outputs_max: Integer = _fact("largest number of classes of the readout")

    inputs_max: Integer = _fact("input channels of the chip")
    hidden_neurons: Integer = _fact("neurons of the chip that are no outputs")
    fan_out_max: Integer = _fact("largest number of synapses that a hidden neuron feeds")
    input_projection_max: Integer = _fact("hidden neurons that the input can reach")
    output_projection_max: Integer = _fact("hidden neurons that can reach the outputs")
    kernels: Integers = _fact("possible kernels, square")
    input_kernels: Integers = _fact("possible kernels of the first layer, square")
    input_strides: Integers = _fact("possible strides of the first layer")
    input_channels: Integers = _fact("possible channels of the input")
    dense_inputs_max: Integer = _fact("largest number of inputs of a dense layer")

    energy_synapse: Number = _fact("energy of one synaptic operation")
    energy_neuron_active: Number = _fact("energy of one update of a neuron that spikes")
    energy_neuron_inactive: Number = _fact("energy of one update of a neuron that does not spike")
    energy_spike_tile: Number = _fact("energy of one spike within a tile")
    energy_hop_east_west: Number = _fact("energy of one hop of a spike, east or west")
    energy_hop_north_south: Number = _fact("energy of one hop of a spike, north or south")
    time_synapse: Number = _fact("time of one synaptic operation")
    time_neuron_active: Number = _fact("time of one update of a neuron that spikes")
    time_neuron_inactive: Number = _fact("time of one update of a neuron that does not spike")
    time_step_min: Number = _fact("shortest time step")
    latency: Number = _fact("time from input spike to output spike through all cores")
    throughput: Numbers = _fact("synaptic operations per second of each core")
    power_idle: Number = _fact("power at rest")
    power_max: Number = _fact("largest power")

    @model_validator(mode="after")
    def _one_for_each_core(self) -> Facts:
        for name in ("kernel_memory", "neuron_memory", "bias_memory", "throughput"):
            values, cores = getattr(self, name).value, self.cores_per_chip.value
            if values is not None and len(values) != cores:
                raise ValueError(f"{name}: needs one value for each of the {cores} cores, got {len(values)}")
        return self

    def items(self) -> Iterator[tuple[str, Fact[Any]]]:
        """The facts the profile states, in order."""
        for name in type(self).model_fields:
            fact = getattr(self, name)
            if fact.source != _UNSTATED:
                yield name, fact


class Profile(BaseModel):
    """A chip or board.

    Attributes
    ----------
    name : str
        Name of the file without ``.toml``.
    title : str
        What it is, for people.
    family : {"loihi", "speck", "xylo", "akida", "processor"}
        Which rules of architecture apply: clocked cores that share layers; one layer a core, without a clock; one small
        core of neurons; layers of quantised activations without a state; a program in memory. The last three are
        checked, not trained for, and the chip's own tools place the neurons.
    extends : str or None
        The profile it extends.
    sources : dict of str to str
        What the keys in the facts' ``source`` stand for.
    facts : Facts
        All facts: ``profile.facts.weight_max.value`` is None where unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    family: Literal["loihi", "speck", "xylo", "akida", "processor"]
    extends: str | None = None
    sources: dict[str, str]
    facts: Facts

    def __repr__(self) -> str:
        return f"<Profile {self.name}: {self.title}>"

    def event_rules(self) -> ChipRules:
        """What the chip's neurons do, as the event-driven simulator takes it."""
        from netx_export.event.backend import ChipRules  # reading a profile needs no simulator

        facts = self.facts
        resets = facts.resets.value or ((facts.reset.value,) if facts.reset.value else ())
        return ChipRules(
            self.name, tuple(resets), facts.reset.value, facts.threshold_strict.value, facts.state_bits.value
        )

    @model_validator(mode="after")
    def _sources_named(self) -> Profile:
        for name, fact in self.facts.items():
            for key in fact.source:
                if key not in self.sources:
                    raise ValueError(f"fact {name}: source {key!r} is not in [sources]")
        return self


def names() -> list[str]:
    """Names of the profiles that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(name: str | os.PathLike[str] | Profile) -> Profile:
    """Read a profile.

    Parameters
    ----------
    name : str, path or Profile
        A name of `names`, or the path of a TOML file (it ends with ``.toml``); a profile is given back as it is.

    Returns
    -------
    Profile

    Raises
    ------
    ProfileError
        No such profile, or the file is not a valid one: one line with file, field, value and what is allowed.
    """
    if isinstance(name, Profile):
        return name
    path = _find(os.fspath(name), Path())
    data = _read(path, ())
    try:
        return Profile.model_validate({**data, "name": path.stem})
    except ValidationError as error:
        raise ProfileError(f"{path}: {_one_line(error)}") from None


def _find(name: str, folder: Path) -> Path:
    """Path of a shipped profile's name, or of a file relative to `folder`."""
    if name in names():
        return FOLDER / f"{name}.toml"
    if not name.endswith(".toml"):
        raise ProfileError(
            f"no profile {name!r}{meant(name, names())}; there are {', '.join(names())}; or give a file ending in .toml"
        )
    return folder / name


def _read(path: Path, before: tuple[Path, ...]) -> dict[str, Any]:
    """The file's tables on top of those of the profile it extends."""
    if path.resolve() in before:
        chain = " -> ".join(p.name for p in (*before, path))
        raise ProfileError(f"{path}: profiles extend each other in a circle: {chain}")
    data = read_toml(path, ProfileError)
    if "name" in data:
        raise ProfileError(f"{path}: name: a profile's name is its file's name; use title")
    if "title" not in data:
        raise ProfileError(f"{path}: title: missing; say in a few words what the chip or board is")
    for part in ("sources", "facts"):
        if not isinstance(data.setdefault(part, {}), dict):
            raise ProfileError(f"{path}: {part}: must be a table, got {short(repr(data[part]))}")
    if "extends" not in data:
        return data
    if not isinstance(data["extends"], str):
        raise ProfileError(f"{path}: extends: must be the name or file of a profile, got {short(data['extends'])}")
    try:
        parent = _read(_find(data["extends"], path.parent), (*before, path.resolve()))
    except ProfileError as error:
        if before or str(path) in str(error):
            raise
        raise ProfileError(f"{path}: extends: {error}") from None
    merged = {**parent, **data}
    for part in ("sources", "facts"):
        merged[part] = {**parent[part], **data[part]}
    return merged


def _one_line(error: ValidationError) -> str:
    """The first thing wrong with a profile, and how many more there are."""
    errors = error.errors(include_url=False)
    first = errors[0]
    where = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        models: dict[int, type[BaseModel]] = {1: Profile, 2: Facts, 3: Fact}
        known = models[len(first["loc"])].model_fields
        text = f"{where}: there is no such field{meant(str(first['loc'][-1]), known)}"
    elif first["type"] == "missing":
        text = f"{where}: missing"
    else:
        text = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
        if first["type"] != "value_error":
            text += f", got {short(repr(first['input']))}"
        text = f"{where}: {text}" if where else text
    return text + (f" (and {len(errors) - 1} more)" if len(errors) > 1 else "")


def describe(profile: Profile) -> str:
    """A profile as text: its facts with status and source, its notes, its sources."""
    facts = list(profile.facts.items())
    rows = [("fact", "value", "status", "source")]
    rows += [(name, str(fact), fact.status, ", ".join(fact.source)) for name, fact in facts]
    family = f"family {profile.family}" + (f", extends {profile.extends}" if profile.extends else "")
    lines = [f"{profile.name}: {profile.title} ({family})", ""]
    lines += table(rows, left=4)
    notes = [f"{name}: {fact.note}" for name, fact in facts if fact.note]
    lines += ["", "Notes", *notes] if notes else []
    used = {key for _, fact in facts for key in fact.source}
    lines += ["", "Sources", *(f"{key}: {text}" for key, text in profile.sources.items() if key in used)]
    return "\n".join(lines)


def json_schema() -> dict[str, Any]:
    """JSON schema of a profile's TOML file, for editors."""
    schema = Profile.model_json_schema()
    del schema["properties"]["name"]
    # The rest may come from the profile that the file extends.
    schema["required"] = ["title"]
    schema["title"] = "Hardware profile"
    return schema


STATUSES: tuple[str, ...] = get_args(Status)
"""All a fact's status can be."""
