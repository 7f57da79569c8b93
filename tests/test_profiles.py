"""Hardware profiles: what ships is sound, and what users write is checked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tomli

import hw_profiles
from hw_profiles import ProfileError, describe, json_schema, load, names
from hw_profiles.profile import FOLDER, STATUSES

TRAINED = [
    "dynapcnn", "hala-point", "kapoho-bay", "kapoho-point", "loihi1", "loihi2", "nahuku-32", "oheo-gulch", "speck2e",
    "speck2f",
]  # fmt: skip
CHECKED = ["akd1000", "rp2040", "spinnaker2", "xylo-audio2", "xylo-audio3", "xylo-imu"]
"""Chips that networks are checked against, and not trained for."""
SHIPPED = sorted(TRAINED + CHECKED)


def write(folder: Path, text: str, name: str = "mine.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def mine(folder: Path, facts: str, head: str = 'title = "mine"\nextends = "loihi2"') -> Path:
    return write(folder, f'{head}\n[sources]\nme = "my own measurement"\n[facts]\n{facts}\n')


def test_all_chips_and_boards_ship() -> None:
    """The profiles promised are there."""
    assert names() == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_profile_loads(name: str) -> None:
    """Every shipped profile loads under its name."""
    profile = load(name)
    assert profile.name == name
    clocked = {"loihi": True, "speck": False, "xylo": True}
    assert profile.facts.clocked.value is clocked.get(profile.family)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_fact_has_source_and_status(name: str) -> None:
    """Every fact written in a file has a source and a status; unknown ones have no value, numbers a unit."""
    for fact, entry in tomli.loads((FOLDER / f"{name}.toml").read_text())["facts"].items():
        assert entry["source"], fact
        assert entry["status"] in STATUSES, fact
        assert ("value" in entry) == (entry["status"] != "unknown"), fact
        value = entry.get("value")
        if isinstance(value, int | float | list) and not isinstance(value, bool) and fact != "resets":
            assert entry["unit"], fact


@pytest.mark.parametrize("name", TRAINED)
def test_training_finds_what_it_needs(name: str) -> None:
    """Reset, payload, weights, threshold and biases are known of every chip that networks are trained for."""
    facts = load(name).facts
    for fact in ("reset", "payload_bits", "weight_bits", "weight_min", "weight_max", "weight_step", "threshold_max"):
        assert getattr(facts, fact).value is not None, fact
    assert facts.reset.value in facts.resets.value
    assert facts.bias_allowed.value is facts.clocked.value


@pytest.mark.parametrize(
    ("board", "chip", "chips", "cores"),
    [
        ("kapoho-bay", "loihi1", 2, 256),
        ("nahuku-32", "loihi1", 32, 4096),
        ("oheo-gulch", "loihi2", 1, 128),
        ("kapoho-point", "loihi2", 8, 1024),
        ("hala-point", "loihi2", 1152, 140_544),
    ],
)
def test_board_is_many_of_its_chip(board: str, chip: str, chips: int, cores: int) -> None:
    """A board has its chip's neurons, and the published number of chips and cores."""
    facts = load(board).facts
    assert load(board).extends == chip
    assert facts.chips.value == chips
    assert facts.chips.value * facts.cores_per_chip.value == cores
    assert facts.neurons_per_core == load(chip).facts.neurons_per_core


def test_energy_of_loihi2_stays_unknown() -> None:
    """Where no figure is public, none is given, and a board does not invent one."""
    for name in ("loihi2", "hala-point"):
        assert load(name).facts.energy_synapse.value is None
        assert load(name).facts.input_axons_per_core.status == "unknown"
    assert load("loihi1").facts.energy_synapse.status == "simulated"


def test_user_file_extends_a_shipped_profile(tmp_path: Path) -> None:
    """A user's file replaces whole facts and keeps the others; it may be extended in turn."""
    path = mine(tmp_path, 'chips = { value = 3, unit = "chip", source = ["me"], status = "measured" }')
    profile = load(path)
    assert (profile.name, profile.facts.chips.value, profile.facts.chips.status) == ("mine", 3, "measured")
    assert profile.facts.weight_max == load("loihi2").facts.weight_max
    child = write(tmp_path, 'title = "two of mine"\nextends = "mine.toml"\n', "child.toml")
    assert load(str(child)).facts.chips.value == 3


def test_fact_not_stated_is_unknown_and_not_shown(tmp_path: Path) -> None:
    """A profile that says nothing of a fact does not know it."""
    path = write(tmp_path, 'title = "bare"\nfamily = "loihi"\n')
    profile = load(path)
    assert profile.facts.weight_max.value is None
    assert profile.facts.weight_max.status == "unknown"
    assert "weight_max" not in describe(profile)


def test_profiles_are_frozen() -> None:
    """Nobody changes a chip by accident."""
    with pytest.raises(ValueError, match="frozen"):
        load("loihi1").facts.chips.value = 4  # type: ignore[misc]


def test_unknown_name_lists_the_names() -> None:
    """A wrong name is answered with the right one and all others."""
    with pytest.raises(ProfileError, match=r"no profile 'loih2' \(did you mean loihi2\?\); there are akd1000, dyn"):
        load("loih2")


def test_missing_file(tmp_path: Path) -> None:
    """A file that is not there is named."""
    with pytest.raises(ProfileError, match=r"gone\.toml: cannot be read: No such file"):
        load(tmp_path / "gone.toml")


def test_toml_error_names_file_and_line(tmp_path: Path) -> None:
    """A slip in TOML is located."""
    with pytest.raises(ProfileError, match=r"mine\.toml: is not valid TOML: .*line 2"):
        load(write(tmp_path, 'title = "x"\nfamily = loihi\n'))


def test_circle_is_refused(tmp_path: Path) -> None:
    """Profiles that extend each other are refused with the circle."""
    write(tmp_path, 'title = "a"\nextends = "b.toml"\n', "a.toml")
    write(tmp_path, 'title = "b"\nextends = "a.toml"\n', "b.toml")
    with pytest.raises(ProfileError, match=r"in a circle: a\.toml -> b\.toml -> a\.toml"):
        load(tmp_path / "a.toml")


def test_unknown_parent_names_the_child(tmp_path: Path) -> None:
    """A wrong extends names the file that has it."""
    with pytest.raises(ProfileError, match=r"mine\.toml: extends: no profile 'loihi3'"):
        load(write(tmp_path, 'title = "x"\nextends = "loihi3"\n'))


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ('chipz = { value = 1, unit = "chip", source = ["me"], status = "measured" }', "did you mean chips"),
        ('chips = { value = 1, units = "chip", source = ["me"], status = "measured" }', "did you mean unit"),
        ('chips = { value = "two", unit = "chip", source = ["me"], status = "measured" }', "integer, got 'two'"),
        ('chips = { value = true, unit = "chip", source = ["me"], status = "measured" }', "integer, got True"),
        ('chips = { value = 1.5, unit = "chip", source = ["me"], status = "measured" }', "integer, got 1.5"),
        ('chips = { value = 2, source = ["me"], status = "measured" }', "a number needs a unit"),
        ('chips = { value = 2, unit = "chip", status = "measured" }', "facts.chips.source: missing"),
        ('chips = { value = 2, unit = "chip", source = [], status = "measured" }', "facts.chips.source"),
        ('chips = { value = 2, unit = "chip", source = ["me"] }', "facts.chips.status: missing"),
        ('chips = { value = 2, unit = "chip", source = ["me"], status = "sure" }', "'documented', 'measured'"),
        ('chips = { value = 2, unit = "chip", source = ["me"], status = "unknown" }', "unknown fact has no value"),
        ('chips = { unit = "chip", source = ["me"], status = "measured" }', 'status = "unknown"'),
        ('chips = { value = 2, unit = "chip", source = ["you"], status = "measured" }', r"source 'you' is not in"),
        ('latency = { value = nan, unit = "us", source = ["me"], status = "measured" }', "must be finite"),
        ('reset = { value = "half", source = ["me"], status = "measured" }', "'zero' or 'subtract', got 'half'"),
        ("chips = 2", "facts.chips"),
        (
            'kernel_memory = { value = [1, 2], unit = "word", source = ["me"], status = "measured" }',
            "one value for each of the 128 cores, got 2",
        ),
    ],
)
def test_wrong_fact_gets_one_clear_line(tmp_path: Path, facts: str, message: str) -> None:
    """A wrong fact names the file, the field and what is allowed, in one line."""
    with pytest.raises(ProfileError, match=message) as error:
        load(mine(tmp_path, facts))
    assert "\n" not in str(error.value)
    assert "mine.toml: " in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('family = "loihi"', "title: missing"),
        ('title = "x"', "family: missing"),
        ('title = "x"\nfamily = "tpu"', "family: should be 'loihi', 'speck', 'xylo', 'akida' or 'processor'"),
        ('title = "x"\nname = "y"', "name: a profile's name is its file's name"),
        ('title = "x"\nextends = 3', "extends: must be the name or file of a profile, got 3"),
        ('title = "x"\nfamily = "loihi"\nfacts = 3', "facts: must be a table, got 3"),
        ('title = "x"\nfamily = "loihi"\ncolour = "red"', "colour: there is no such field"),
    ],
)
def test_wrong_head_gets_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    """A wrong title, family or extends is named."""
    with pytest.raises(ProfileError) as error:
        load(write(tmp_path, text))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_describe_shows_value_status_and_source() -> None:
    """The text of a profile carries what is known, how well, and from where."""
    text = describe(load("kapoho-point"))
    lines = text.splitlines()
    assert lines[0] == "kapoho-point: Kapoho Point, eight Loihi 2 chips (family loihi, extends loihi2)"
    (chips,) = (line.split() for line in lines if line.startswith("chips "))
    assert chips == ["chips", "8", "chip", "(disputed:", "4)", "documented", "LV,", "IB"]
    (energy,) = (line.split() for line in lines if line.startswith("energy_synapse "))
    assert energy == ["energy_synapse", "unknown", "unknown", "none"]
    assert any(line.startswith("IB: Intel, Taking Neuromorphic Computing") for line in lines)


def test_describe_counts_equal_cores() -> None:
    """Lists of a value a core are shortened to runs."""
    text = describe(load("speck2e"))
    assert "3 x 16,384, 2 x 32,768, 2 x 65,536, 2 x 16,384 word of 8 bit" in text
    assert "100,000,000, 8 x 30,000,000 synaptic operation/s" in text


def test_json_schema_describes_the_files() -> None:
    """The schema for editors is JSON, knows every fact in the shipped files and asks for a title."""
    schema = json.loads(json.dumps(json_schema()))
    assert schema["required"] == ["title"]
    assert "name" not in schema["properties"]
    known = schema["$defs"]["Facts"]["properties"]
    for name in SHIPPED:
        assert set(tomli.loads((FOLDER / f"{name}.toml").read_text())["facts"]) <= set(known)
    assert all(fact["description"] for fact in known.values())


def test_import_is_light_and_complete() -> None:
    """Importing the package loads no pydantic or numpy, and every public name is there."""
    code = "import sys, hw_profiles; print([m for m in ('pydantic', 'numpy', 'tomli') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    assert hw_profiles.__all__ == sorted(hw_profiles.__all__)
    assert all(hasattr(hw_profiles, name) for name in hw_profiles.__all__)
    with pytest.raises(AttributeError, match="no attribute 'chekc'"):
        _ = hw_profiles.chekc
