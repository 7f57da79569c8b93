"""The command line, in-process: what users type, what they get, and what they are told when it is wrong."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pydantic
import pytest
from netx_files import edited
from strategies import assert_same

from mtt_lava import Settings
from mtt_lava.cli import export_main, main, parsers
from mtt_lava.cli.parsing import parse
from mtt_lava.cli.training import settings_of
from mtt_lava.data import open_dataset
from mtt_lava.page import heading, page
from mtt_lava.run import load_settings
from mtt_lava.studies.demo import next_steps
from mtt_lava.studies.methods import Comparison
from netx_export.network import Conv, Network, Neuron
from netx_export.netx import read, write

COMMANDS = (
    *("train", "evaluate", "simulate", "check", "cost", "sweep", "profiles", "models", "data", "lava", "bench", "demo"),
    *("export", "import", "report", "stream"),
)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs on built-in data, made by the command line."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    arguments = [
        "train",
        "nmnist-3c1fc",
        "--data",
        "digits-dvs",
        "--time-steps",
        "3",
        "--epochs",
        "2",
        "--batch",
        "100",
    ]
    assert main([*arguments, "--seed", "5", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def net(run_folder: Path) -> Path:
    """That run, exported."""
    path = run_folder.parent / "digits.net"
    assert export_main([str(run_folder), str(path)]) == 0
    return path


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str], *words: str, program: str = "mtt") -> None:
    """Exit code 2, and one line on stderr that holds the words."""
    capsys.readouterr()
    try:
        code = (main if program == "mtt" else export_main)(arguments)
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith(program)
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]):
    """--help exits 0 and shows how it is used."""
    arguments = [command, *{"bench": ["methods"], "lava": ["setup"]}.get(command, [])]
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--help"])
    assert stop.value.code == 0
    assert f"Example: mtt {command}" in capsys.readouterr().out


def test_help_imports_nothing_heavy():
    """`mtt --help` answers without torch, Lava, NumPy or pydantic: what it takes to be quick."""
    code = (
        "import sys; from mtt_lava.cli import main, export_main\n"
        "for call in (main, export_main):\n"
        "    try: call(['--help'])\n"
        "    except SystemExit: pass\n"
        "print([m for m in sys.modules if m in ('torch', 'lava', 'numpy', 'pydantic', 'h5py', 'tonic', 'matplotlib')])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip().endswith("[]")
    assert "mtt-export" in out


@pytest.mark.slow
def test_training_never_imports_the_lava_runtime():
    """Training and evaluation import lava.lib.dl.slayer, and neither lava.magma nor lava.lib.dl.netx."""
    code = (
        "import sys, mtt_lava.training, mtt_lava.evaluation, mtt_lava.proof, mtt_lava.studies.simulators\n"
        "print([m for m in sys.modules if m.startswith(('lava.magma', 'lava.proc', 'lava.lib.dl.netx'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert "Prophesee" not in done.stderr + done.stdout


def test_train_writes_a_run_and_ends_with_the_chips_verdict(run_folder: Path, capsys: pytest.CaptureFixture[str]):
    """The folder is a run with the settings given; a second run does not overwrite it."""
    settings = json.loads((run_folder / "settings.json").read_text())
    assert (settings["seed"], settings["time_steps"], settings["epochs"], settings["profile"]) == (5, 3, 2, "loihi2")
    again = ["train", "nmnist-3c1fc", "--data", "digits-dvs", "--out", str(run_folder)]
    refused(capsys, again, "holds a run already", "--resume")
    refused(capsys, [*again, "--resume"], "other settings")


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        (
            "loihi1",
            ["counts above 1 in a frame are cut: a spike carries 1 bit", "pools: they have neurons of their own"],
        ),
        ("speck2e", ["readout: output spikes are counted", "a spike takes the threshold from v"]),
        ("loihi2", ["pools: they have neurons of their own"]),
    ],
)
def test_what_a_chip_changes_is_said_before_training(profile: str, words: list[str]):
    """Graded input on a chip of binary spikes is cut, and the reason comes before an hour is spent."""
    lines = Settings.make("nmnist-3c1fc", data="digits-dvs", profile=profile).adaptations()
    assert len(lines) == len(words)
    assert all(any(word in line for line in lines) for word in words)


def test_evaluate_prints_a_table_and_writes_json(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """One row a T with accuracy, silent and tied samples, and spikes; the JSON says the same."""
    assert main(["evaluate", str(run_folder), "--time-steps", "1,4", "--json", str(tmp_path / "a.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    spikes = ["conv1", "pool1", "conv2", "pool2", "conv3"]
    assert lines[0].split() == ["T", "accuracy", "silent", "tied", *spikes, "synops"]
    content = json.loads((tmp_path / "a.json").read_text())
    assert [point["time_steps"] for point in content["time_steps"]] == [1, 4]
    shares = [content["time_steps"][1][name] for name in ("accuracy", "silent", "tied")]
    assert lines[2].split()[1:4] == [f"{share:.1%}" for share in shares]
    assert content["time_steps"][0]["samples"] == 297
    assert np.sum(content["time_steps"][0]["confusion"]) == pytest.approx(297)
    assert sum(content["time_steps"][0]["wins"]) + content["time_steps"][0]["silent"] == pytest.approx(1)


@pytest.mark.parametrize("backend", [[], ["--backend", "fast", "--samples", "9"]])
def test_evaluate_prints_confusion_matrices_on_request(
    run_folder: Path, backend: list[str], capsys: pytest.CaptureFixture[str]
):
    """One for each T: a row a class and a column a class, one more column for silent samples."""
    assert main(["evaluate", str(run_folder), "--time-steps", "1,4", "--confusion", *backend]) == 0
    lines = capsys.readouterr().out.splitlines()
    heads = [i for i, line in enumerate(lines) if line.split() == ["true", *"0123456789", "silent"]]
    assert [lines[i - 1].split(":")[0] for i in heads] == ["T = 1", "T = 4"]
    names = [line.split()[0] for line in lines[heads[0] + 1 : heads[0] + 13]]
    assert names == [*"0123456789", "fires", "wins"]


def test_sweep_weighs_accuracy_against_energy(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """One row a T with accuracy, silent and tied samples, energy and time; page, pictures and JSON say the same."""
    out = tmp_path / "sweep"
    arguments = ["sweep", str(run_folder), "--profile", "loihi1", "--time-steps", "2,1", "--out", str(out)]
    assert main([*arguments, "--json", str(tmp_path / "a.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["T", "1", "2"]
    content = json.loads((tmp_path / "a.json").read_text())
    assert content == json.loads((out / "sweep.json").read_text())
    energies = [point["cost"]["energy"]["total"]["value"] for point in content["points"]]
    assert 0 < energies[0] < energies[1]
    shares = [f"{content['points'][0][name]:.1%}" for name in ("accuracy", "silent", "tied")]
    assert lines[2].split()[1:4] == shares
    assert lines[2].split()[6] == f"{energies[0] / 1000:,.1f}"
    assert content["classes"] == list("0123456789")
    for name in ("sweep.png", "confusion.png"):
        assert (out / name).stat().st_size > 1000
    page = (out / "index.html").read_text()
    assert page.count("data:image/png") == 2
    assert lines[2] in page
    refused(capsys, ["sweep", str(run_folder), "--profile", "loihi9"], "no profile 'loihi9'")


def test_sweep_where_no_energy_is_known_weighs_operations(run_folder: Path, capsys: pytest.CaptureFixture[str]):
    """Loihi 2 has no public energies: unknown, and the front goes by synaptic operations."""
    assert main(["sweep", str(run_folder), "--time-steps", "1,2"]) == 0
    out = capsys.readouterr().out
    assert "energy: none, unknown" in out
    assert "more accuracy for less synaptic operations" in out


def test_a_reader_who_has_had_enough_gets_no_error():
    """`mtt profiles --schema | head -1`: nothing on stderr."""
    code = "import sys; from mtt_lava.cli import main; sys.exit(main(['profiles', '--schema']))"
    command = f'{sys.executable} -c "{code}" | head -c 1'
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("{", "")


def test_profiles_print_their_schema(capsys: pytest.CaptureFixture[str]):
    """Editors get the JSON schema of profile files."""
    assert main(["profiles", "--schema"]) == 0
    assert "facts" in json.loads(capsys.readouterr().out)["properties"]


def test_export_prints_a_table_and_the_verdict(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Layer, shape, weights, bits, threshold and range; then what the chip says."""
    assert export_main([str(run_folder), str(tmp_path / "a.net"), "--profile", "loihi1"]) == 0
    out = capsys.readouterr().out
    assert "6,160 trained weights" in out
    assert "nmnist-3c1fc fits loihi1" in out
    assert out.splitlines()[0].split()[:6] == ["layer", "kind", "shape", "weights", "bits", "threshold"]


@pytest.mark.smoke
@pytest.mark.lava
def test_the_whole_path_on_lava(net: Path, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """simulate and evaluate --backend lava fire exactly what the trained network fires."""
    inputs = np.random.default_rng(0).integers(0, 3, (2, 2, 34, 34, 5))
    np.save(tmp_path / "in.npy", inputs)
    output = tmp_path / "out.npz"
    arguments = ["simulate", str(net), str(tmp_path / "in.npy"), "--backend", "lava", "--output", str(output)]
    assert main([*arguments, "--record", "spikes"]) == 0
    result = np.load(output)
    assert result["spikes"].shape == (2, 10, 5)
    import torch

    from mtt_lava import load_run
    from mtt_lava.evaluation import run_network

    readout, spikes = run_network(load_run(run_folder), torch.from_numpy(inputs), spikes=True)
    np.testing.assert_array_equal(result["spikes.conv1"], spikes[0])
    np.testing.assert_array_equal(result["spikes.conv3"], spikes[4])
    np.testing.assert_array_equal(result["readout"], (readout.double() * 4096).round())
    assert main(["evaluate", str(run_folder), "--backend", "lava", "--samples", "3", "--time-steps", "2"]) == 0
    assert "T = 2, 3 samples" in capsys.readouterr().out


def test_check_and_profiles(net: Path, capsys: pytest.CaptureFixture[str]):
    """check exits 0 or 1 and prints text or JSON; profiles lists and shows."""
    assert main(["check", str(net), "--profile", "loihi2"]) == 0
    assert main(["check", str(net), "--profile", "speck2e"]) == 1
    capsys.readouterr()
    assert main(["check", str(net), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["profile"] == "loihi2"
    assert main(["profiles"]) == 0
    assert "loihi1" in capsys.readouterr().out
    assert main(["profiles", "loihi1"]) == 0
    assert "1,048,576" in capsys.readouterr().out
    assert main(["profiles", "loihi1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["family"] == "loihi"


@pytest.mark.slow
def test_bench_methods_compares_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A table of means over seeds, JSON and a picture; what is trained already is not trained again."""
    arguments = ["bench", "methods", "--data", "digits-dvs", "--epochs", "2", "--time-steps", "2", "--seeds", "3,4"]
    arguments += ["--batch", "300", "--at", "1,2", "--out", str(tmp_path / "b"), "--json", str(tmp_path / "b.json")]
    arguments += ["--distil", "1", "--samples", "1200", "--test-unseen", "20"]
    assert main(arguments) == 0
    first = capsys.readouterr().out
    rows = [line.split()[:2] for line in first.splitlines()[1:7]]
    assert rows == [["sdt", "3"], ["sdt", "4"], ["sdt", "mean"], ["mtt", "3"], ["mtt", "4"], ["mtt", "mean"]]
    mtt = json.loads((tmp_path / "b.json").read_text())["points"]["mtt"]
    # What does not mix has nothing to distil.
    assert [load_settings(tmp_path / "b" / f"{method}-3").distil for method in ("sdt", "mtt")] == [0, 1]
    tested = len(open_dataset("digits-dvs", split="test")) + 20
    assert mtt["3"][0]["samples"] == tested
    assert f"on {tested} test recordings of digits-dvs (20 of them training recordings that no run saw)" in first
    assert first.splitlines()[0].split()[-4:] == ["silent", "tied", "most", "silent"]
    most = max(mtt["3"], key=lambda point: point["silent"])
    worst = [f"{100 * most['silent']:.1f}", *(["at", f"T={most['time_steps']}"] if most["silent"] else [])]
    shares = [f"{100 * mtt['3'][1][name]:.1f}" for name in ("silent", "tied")]
    assert first.splitlines()[4].split()[5:] == [*shares, *worst]
    assert (tmp_path / "b" / "accuracy.png").read_bytes()[:4] == b"\x89PNG"
    stamp = (tmp_path / "b" / "mtt-3" / "weights.safetensors").stat().st_mtime_ns
    assert main(arguments) == 0
    assert capsys.readouterr().out == first
    assert (tmp_path / "b" / "mtt-3" / "weights.safetensors").stat().st_mtime_ns == stamp
    assert json.loads((tmp_path / "b.json").read_text())["points"]["mtt"]["3"][1]["time_steps"] == 2


def test_user_errors(net: Path, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Everything users do wrong gives one line and exit code 2."""
    train = ["train", "nmnist-3c1fc", "--data", "digits-dvs", "--out", str(tmp_path / "run")]
    refused(capsys, [], "COMMAND")
    refused(capsys, ["fly"], "invalid choice: 'fly'")
    refused(capsys, ["train", "nmnist-9c", *train[2:]], "no model 'nmnist-9c'", "nmnist-3c1fc")
    refused(capsys, [*train[:3], "mnist-dvs", *train[4:]], "no data set 'mnist-dvs'", "digits-dvs, nmnist")
    refused(capsys, [*train, "--epochs", "0"], "epochs", "greater than or equal to 2")
    refused(capsys, [*train, "--epochs", "many"], "--epochs", "'many'")
    refused(capsys, [*train, "--profile", "speck2e", "--norm", "batch", "--biases", "scaled"], "speck2e has no biases")
    refused(capsys, [*train, "--resume"], "no run to resume")
    assert not (tmp_path / "run").exists()
    refused(capsys, ["evaluate", str(tmp_path)], "not a run folder")
    refused(capsys, ["evaluate", str(run_folder), "--time-steps", "1,0"], "no list of time steps")
    refused(capsys, ["evaluate", str(run_folder), "--backend", "brian"], "backend 'brian' is unknown")
    refused(capsys, ["check", str(tmp_path / "no.net")], "no.net")
    refused(capsys, ["check", str(net), "--profile", "loihi3"], "loihi3", "loihi2")
    refused(capsys, ["profiles", "nope"], "nope")
    refused(capsys, [str(tmp_path), str(tmp_path / "a.net")], "not a run folder", program="mtt-export")
    refused(capsys, [str(run_folder)], "OUT.net", program="mtt-export")


GIVEN = {
    "data": ("--data digits-dvs", "digits-dvs"),
    "root": ("--root here", "here"),
    "method": ("--method nmt", "nmt"),
    "float_method": ("--float-method sdt", "sdt"),
    "time_steps": ("--time-steps 6", 6),
    "t_min": ("--t-min 2", 2),
    "configurations": ("--configurations 4", 4),
    "group": ("--group 2", 2),
    "hold_first": ("--hold-first", True),
    "sandwich": ("--no-sandwich", False),
    "finer": ("--finer 2", 2),
    "draws": ("--draws stratified", "stratified"),
    "shared": ("--shared", True),
    "packed": ("", False),
    "form": ("--form fraction", "fraction"),
    "input_form": ("--input-form fraction", "fraction"),
    "profile": ("--profile loihi1", "loihi1"),
    "epochs": ("--epochs 9", 9),
    "fine_tune": ("--fine-tune 0.25", 0.25),
    "batch": ("--batch 5", 5),
    "learning_rate": ("--learning-rate 1e-3", 1e-3),
    "fine_tune_rate": ("--fine-tune-rate 1e-4", 1e-4),
    "weight_decay": ("--weight-decay 0.1", 0.1),
    "norm": ("--norm batch", "batch"),
    "biases": ("--biases none", "none"),
    "augment": ("--augment flip,roll:5", "flip,roll:5"),
    "loss": ("--loss steps", "steps"),
    "consistency": ("--consistency 0.5", 0.5),
    "distil": ("--distil 0", 0.0),
    "logit_scale": ("--logit-scale 10", 10.0),
    "spike_penalty": ("--spike-penalty 0.2", 0.2),
    "samples": ("--samples 7", 7),
    "validate_on": ("--validate 0.1", 0.1),
    "patience": ("--patience 3", 3),
    "precision": ("--precision bfloat16", "bfloat16"),
    "silent_epochs": ("--silent-epochs 0", 0),
    "seed": ("--seed 5", 5),
    "allow_unfit": ("--allow-unfit", True),
}
"""A flag for every field of `Settings`, and what it must make of it: none of these is the default."""
TRAIN = ["train", "nmnist-3c1fc", "--data", "digits-dvs", "--out", "out"]


def _settings(words: list[str]) -> Settings:
    return settings_of(parse(parsers()[0], words))


def test_every_setting_is_a_flag():
    """Each field of Settings but the model and the chip's facts reaches it, as a value of its type.

    Where to start from stands in the place of a model (`test_imports`).
    """
    assert GIVEN.keys() == Settings.model_fields.keys() - {"model", "chip", "start"}
    words = [word for flag, _ in GIVEN.values() for word in flag.split()]
    made, plain = _settings(["train", "nmnist-3c1fc", "--out", "out", *words]), _settings(TRAIN)
    assert plain == Settings.make("nmnist-3c1fc", data="digits-dvs")
    for name, (_, value) in GIVEN.items():
        assert getattr(made, name) == value
        assert type(getattr(made, name)) is type(value)
        assert name in ("data", "distil", "packed") or getattr(plain, name) != value
    assert _settings([*TRAIN, "--distil", "0.5"]).distil == 0.5  # not without the sandwich, which is off above
    assert _settings([*TRAIN, "--packed"]).packed is True  # not with shared


class _More(Settings):
    """Settings with options that nothing else knows of."""

    wildness: pydantic.PositiveInt = pydantic.Field(default=7, description="how wild, in % of tame")
    tail: float | None = pydantic.Field(
        default=None, description="length of its tail", json_schema_extra={"metavar": "L"}
    )
    calm: bool = True


def test_a_new_setting_is_a_flag_of_all_that_train(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """A field more is an option more, in help, on its way to the settings and when it is wrong."""
    monkeypatch.setattr("mtt_lava.run.Settings", _More)
    for command in (["train"], ["bench", "methods"], ["bench", "paper"], ["bench", "depth"]):
        with pytest.raises(SystemExit):
            main([*command, "--help"])
        text = " ".join(capsys.readouterr().out.split())
        assert "--wildness N how wild, in % of tame (default 7)" in text
        assert "--tail L length of its tail" in text
        assert "--no-calm" in text
    made = _settings([*TRAIN, "--wildness", "9", "--tail", "0.5", "--no-calm"])
    assert (made.wildness, made.tail, made.calm) == (9, 0.5, False)
    assert (_settings(TRAIN).wildness, _settings(TRAIN).tail, _settings(TRAIN).calm) == (7, None, True)
    refused(capsys, [*TRAIN, "--wildness", "0"], "training settings: wildness: Input should be greater than 0")
    refused(capsys, [*TRAIN, "--wildnes", "0", "--tale", "1"], "--tale", "did you mean --tail?")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--epochs many", "argument --epochs: invalid int value: 'many'"),
        ("--learning-rate fast", "argument --learning-rate: invalid float value: 'fast'"),
        ("--method mtt2", "--method: invalid choice: 'mtt2' (choose from 'sdt', 'nmt', 'mtt', 'accumulate', 'online'"),
        ("--method mtt2", "'online-nmt') (did you mean mtt?)"),
        ("--norm bach", "(did you mean batch?)"),
        ("--finer 0", "training settings: finer: Input should be greater than 0 (got 0)"),
        ("--spike-penalty nan", "training settings: spike_penalty: "),
        ("--validate 2", "training settings: validate_on: must be a share from 0 to below 1, or test (got '2')"),
        ("--profile lohi2", "no profile 'lohi2'"),
        ("--seed", "argument --seed: expected one argument"),
        ("--no-hold-first", "unrecognized arguments: --no-hold-first"),
    ],
)
def test_wrong_settings_are_one_line(flags: str, words: str, capsys: pytest.CaptureFixture[str]):
    """Of a wrong type, out of range, misspelt or missing: exit code 2."""
    refused(capsys, [*TRAIN, *flags.split()], words)


def test_a_command_of_other_defaults_says_them(capsys: pytest.CaptureFixture[str]):
    """bench paper trains for a chip without a clock, bench depth on built-in data; their help says so."""
    with pytest.raises(SystemExit):
        main(["bench", "paper", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "name or TOML file (default speck2e)" in text
    assert "peak rate before quantisation (default 0.006)" in text
    made = _settings(["bench", "paper", "--data", "digits-dvs", "--out", "out"])
    assert (made.profile, made.epochs, made.finer, made.norm, made.spike_penalty) == ("speck2e", 100, 4, "scale", 0.2)
    assert parse(parsers()[0], ["bench", "depth", "--out", "out"]).data == "digits-dvs"


def test_a_training_method_is_one_entry():
    """One more in the table is drawn from, set, offered by the commands and binned for."""
    code = (
        "import numpy as np; from mtt_lava.temporal import METHODS, Method\n"
        "METHODS['low'] = Method('the fewest', 'k', lambda _, stages, t_min, t_max: np.full(stages, t_min))\n"
        "from mtt_lava import Settings; from mtt_lava.cli import main\n"
        "values = {'method': 'low', 'time_steps': 4, 'finer': 2, 'sandwich': False}\n"
        "made = Settings.make('nmnist-3c1fc', data='digits-dvs', **values)\n"
        "print(made.frames, made.sampler(2).draw(0))\n"
        "main(['train', '--help'])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.startswith("8 [(1, 1), (1, 1), (1, 1), (8, 8)]\n")
    assert "--method {sdt,nmt,mtt,accumulate,online,online-nmt,low}" in out
    from mtt_lava.studies.paper import ROWS
    from mtt_lava.temporal import METHODS

    assert {name.removesuffix("-sparse") for name in ROWS} == set(METHODS)


def test_simulate_errors(net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Wrong files, shapes, types and values: one line, exit code 2, no output."""

    def case(network: Path, inputs: object, *words: str, more: tuple[str, ...] = ()) -> None:
        path = tmp_path / "in.npy"
        if isinstance(inputs, np.ndarray):
            np.save(path, inputs, allow_pickle=inputs.dtype == object)
        elif inputs is not None:
            path.write_bytes(inputs)  # type: ignore[arg-type]
        output = tmp_path / "out.npz"
        refused(capsys, ["simulate", str(network), str(path), "--output", str(output), *more], *words)
        assert not output.exists()

    good = np.zeros((1, 2, 34, 34, 2), dtype=int)
    case(net, None, "in.npy", "No such file")
    case(net, b"not numpy", "in.npy", "not a whole .npy file")
    case(net, np.array([{}], dtype=object), "in.npy", "not a whole .npy file")
    case(net, good[:, :1], "(1, 1, 34, 34, 2)", "N, C=2, H=34, W=34, T")
    case(net, good[0], "(2, 34, 34, 2)")
    case(net, good.astype(float), "float64", "integers")
    case(net, good[:0], "at least one sample")
    case(net, good + 2**40, "32 bits")
    case(net, good, "backend 'fpga' is unknown", more=("--backend", "fpga"))
    case(net, good, "record 'w' is unknown", more=("--record", "w"))
    damaged = tmp_path / "damaged.net"
    damaged.write_bytes(net.read_bytes()[:3000])
    case(damaged, good, "damaged.net")
    foreign = tmp_path / "foreign.net"
    with h5py.File(foreign, "w") as file:
        file["temperature"] = 21
    case(foreign, good, "foreign.net")


def test_ctrl_c_stops_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """An interrupt is no traceback."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hw_profiles.names", interrupt)
    assert main(["profiles"]) == 130
    assert capsys.readouterr().err == "mtt: stopped\n"


def test_files_that_state_no_input_shape(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """simulate and cost take it from INPUT; check and events need --in-shape, and the refusal names it."""
    layer = Conv(in_shape=(2, 4, 5), shape=(3, 3, 4), weight=np.full((3, 2, 2, 2), 10), neuron=Neuron(20), name="conv")
    path, inputs, events, out = (tmp_path / name for name in ("a.net", "input.npy", "events.npz", "out.npz"))
    write(Network((layer,)), path)
    with edited(path) as file:
        del file["layer/0"]
        file.move("layer/1", "layer/0")
    np.save(inputs, np.ones((2, 2, 4, 5, 3), np.int8))
    one = np.zeros(4, np.int64)
    np.savez(events, sample=one, t=np.arange(4), c=one, y=one + 1, x=one + 1)
    on_chip = ["--profile", "loihi2"]
    assert main(["simulate", str(path), str(inputs), "--backend", "fast", "--output", str(out)]) == 0
    assert main(["cost", str(path), str(inputs), *on_chip]) == 0
    run_events = ["simulate", str(path), str(events), "--backend", "event", "--output", str(out)]
    for arguments in (
        ["check", str(path), *on_chip],
        run_events,
        ["cost", str(path), str(events), "--backend", "event", "--profile", "speck2e"],
    ):
        refused(capsys, arguments, "a.net", "layer/0", "--in-shape C,H,W")
        refused(capsys, [*arguments, "--in-shape", "2,4,4"], "a.net", "layer/0", "(3, 3, 3)")
        refused(capsys, [*arguments, "--in-shape", "2,4"], "C,H,W")
        assert main([*arguments, "--in-shape", "2,4,5"]) == 0
    run_steps = ["simulate", str(path), str(inputs), "--backend", "fast", "--output", str(out)]
    refused(capsys, [*run_steps, "--in-shape", "2,4,5"], "--in-shape", "input.npy")


def test_models_are_listed_and_described(capsys: pytest.CaptureFixture[str]):
    """All of them with their weights; one with its layers; the schema for editors."""
    assert main(["models"]) == 0
    assert "nmnist-3c1fc: 6,160 weights, input [2, 34, 34]" in capsys.readouterr().out
    assert main(["models", "nmnist-3c1fc"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "nmnist-3c1fc: input 2x34x34, 6,160 weights, readout voltage"
    assert lines[2].split() == ["1", "conv", "8x17x17", "144"]
    assert main(["models", "--schema"]) == 0
    assert "layers" in json.loads(capsys.readouterr().out)["properties"]


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]):
    """mtt --version prints the package's."""
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("mtt-lava 0.")


def test_misspelt_names_are_guessed(capsys: pytest.CaptureFixture[str]):
    """Commands and models: the message names what was meant."""
    with pytest.raises(SystemExit) as stop:
        main(["trian"])
    assert stop.value.code == 2
    assert "(did you mean train?)" in capsys.readouterr().err
    assert main(["models", "nmnist-3c1f"]) == 2
    assert "(did you mean nmnist-3c1fc?)" in capsys.readouterr().err


def test_names_cannot_put_scripts_into_pages():
    """Headings and titles are text, whatever a run or a class is called."""
    text = page("<script>alert(1)</script>", heading("<script>alert(2)</script>"))
    assert "<script>" not in text


def _helps(parser: argparse.ArgumentParser) -> list[str]:
    """What --help prints, of a program and of all its commands."""
    text = parser.format_help()
    inner = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return [text, *(text for each in inner for one in each.values() for text in _helps(one))]


def examples() -> list[str]:
    """Every example that any --help prints, in order."""
    found = []
    for text in (text for parser in parsers() for text in _helps(parser)):
        _, _, lines = text.partition("\nExample: ")
        found += [line.strip() for line in lines.splitlines() if line.strip().startswith("mtt")]
    return found


def program(command: str) -> list[str]:
    """The command with the interpreter that runs the tests."""
    name, *arguments = shlex.split(command)
    function = {"mtt": "main", "mtt-export": "export_main"}[name]
    return [
        sys.executable,
        "-c",
        f"import sys; from mtt_lava.cli import {function}; sys.exit({function}())",
        *arguments,
    ]


@pytest.mark.parametrize("command", [*examples(), *next_steps(Path("demo")), *next_steps(Path("demo"), "speck2e")])
def test_examples_are_commands(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What --help and the demo print is taken as it stands, down to options and names."""
    monkeypatch.chdir(tmp_path)
    name, *arguments = shlex.split(command)
    assert callable(parse(parsers()[name == "mtt-export"], arguments).action)


def test_nir_out_and_in(run_folder: Path, net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is exported as NIR and imported is the network of the NetX file; readers are chosen, or refused."""
    file = str(tmp_path / "digits.nir")
    assert main(["export", str(run_folder), file]) == 0
    assert "24 bits" in capsys.readouterr().out
    assert main(["import", file, str(tmp_path / "back.net")]) == 0
    assert_same(read(net), read(tmp_path / "back.net"))
    assert export_main([str(run_folder), file, "--for", "norse"]) == 0
    refused(capsys, [str(run_folder), file, "--for", "sinabs"], "reset to zero", "sinabs", program="mtt-export")
    refused(capsys, [str(run_folder), file, "--for", "nrose"], "did you mean norse?", program="mtt-export")
    refused(capsys, [str(run_folder), "a.net", "--for", "norse"], "--for norse is for NIR files", program="mtt-export")
    refused(capsys, [str(run_folder), "a.net", "--for", "speck"], "call the file a.py", program="mtt-export")
    refused(capsys, [str(run_folder), "a.py", "--for", "norse"], "--for norse is for NIR", program="mtt-export")
    refused(capsys, [str(run_folder), "a.py"], "profile loihi2: sinabs loads boards of speck2e", program="mtt-export")
    refused(capsys, ["import", str(net), str(tmp_path / "b.net")], "not a NIR graph")
    refused(capsys, ["import", file, str(tmp_path / "b.net"), "--dt", "1e-3"], "says itself what --dt would")
    assert not (tmp_path / "b.net").exists()


def test_every_command_shows_an_example():
    """None is left out of what runs as printed."""
    names = {command.split()[1] for command in examples() if command.startswith("mtt ")}
    assert names == set(COMMANDS)
    assert {command.split()[2] for command in examples() if command.startswith("mtt bench")} == {
        *("methods", "simulate", "paper", "depth", "events", "train", "mixing", "exit", "recipe", "order", "readers"),
        "realtime",
    }


@pytest.mark.slow
def test_examples_run_as_printed(tmp_path: Path):
    """All, one after the other in one folder: what one writes the next ones read. A quarter of an hour."""
    for command in examples():
        if command == "mtt lava setup":  # gigabytes, into the user's own folder
            continue
        done = subprocess.run(program(command), cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stderr[-2000:]}"
    assert {"points.json", "digits.net", "digits.png", "output.npz", "demo", "sweep"} <= set(os.listdir(tmp_path))


MISSPELT = [
    ["evaluate", "nosuch"],
    ["evaluate", "{run}", "--data", "digit-dvs"],
    ["evaluate", "{run}", "--backend", "fsat"],
    ["export", "nosuch", "x.net"],
    ["sweep", "nosuch"],
    ["sweep", "{run}", "--profile", "lohi1"],
    ["simulate", "nosuch.net", "x.npy", "--output", "o.npz"],
    ["stream", "nosuch.net", "x.npy"],
    ["bench", "realtime", "nosuch", "--out", "r"],
    ["check", "nosuch.net"],
    ["cost", "nosuch.net", "x.npy"],
    ["data", "nosuch"],
    ["models", "nosuch"],
    ["profiles", "nosuch"],
    ["train", "nosuch", "--data", "digits-dvs", "--out", "r"],
    ["train", "nmnist-3c1fc", "--data", "nosuch", "--out", "r"],
    ["train", "nmnist-3c1fc", "--data", "digits-dvs", "--out", "{run}/settings.json/r"],
    ["bench", "methods", "--data", "nosuch", "--out", "r"],
    ["bench", "paper", "--data", "nosuch", "--out", "r"],
    ["bench", "depth", "--data", "nosuch", "--out", "r"],
    ["demo", "--profile", "lohi2"],
]


def test_misspelt_names_wait_for_no_heavy_import(run_folder: Path, tmp_path: Path):
    """Names of runs, data, models, profiles, files and folders are refused before torch, Lava or Numba load.

    These take seconds, and a second is the most that such a message may take. SciPy's matching, a fifth of a second,
    may load: whether a model fits Speck is asked before its data is opened.
    """
    cases = [[part.format(run=run_folder) for part in case] for case in MISSPELT]
    code = (
        "import json, sys; from mtt_lava.cli import main\n"
        "heavy = {'torch', 'lava', 'numba', 'sklearn', 'tonic', 'matplotlib'}\n"
        "for case in json.loads(sys.argv[1]):\n"
        "    try: code = main(case)\n"
        "    except SystemExit as stop: code = stop.code\n"
        "    print(code, sorted(heavy & set(sys.modules)), case)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(cases)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert [line for line in done.stdout.splitlines() if not line.startswith("2 [] ")] == []
    messages = done.stderr.splitlines()
    assert len(messages) == len(cases)
    assert max(map(len, messages)) < 330  # the names of all profiles are among them
    assert os.listdir(tmp_path) == []


def test_json_is_one_option(run_folder: Path, net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """--json prints JSON alone; --json FILE prints text and writes JSON; a word wanted elsewhere is left there."""
    inputs, run, file = tmp_path / "in.npy", str(run_folder), tmp_path / "a.json"
    np.save(inputs, np.ones((1, 2, 34, 34, 2), np.int8))
    output = ["--output", str(tmp_path / "out.npz")]
    for arguments in (
        ["evaluate", run, "--time-steps", "2", "--samples", "5", "--confusion"],
        ["evaluate", run, "--time-steps", "2", "--samples", "5", "--backend", "fast"],
        ["sweep", run, "--time-steps", "2"],
        ["export", run, str(tmp_path / "b.net")],
        ["simulate", str(net), str(inputs), "--backend", "fast", *output],
        ["check", str(net)],
        ["cost", str(net), str(inputs)],
        ["profiles"],
        ["profiles", "loihi1"],
        ["models"],
        ["models", "vgg5"],
        ["data", "digits-dvs", "--split", "test"],
    ):
        capsys.readouterr()
        assert main([*arguments, "--json"]) == 0
        printed = json.loads(capsys.readouterr().out)
        assert main([*arguments, "--json", str(file)]) == 0
        text = capsys.readouterr().out
        assert text.strip()
        assert not text.startswith("{")
        assert json.loads(file.read_text()) == printed
    assert main(["check", "--json", str(net)]) == 0
    assert json.loads(capsys.readouterr().out)["profile"] == "loihi2"
    assert main(["profiles", "--json", "loihi1"]) == 0
    assert json.loads(capsys.readouterr().out)["family"] == "loihi"
    assert main(["evaluate", run, "--samples", "5", "--json", str(tmp_path / "points")]) == 0
    assert json.loads((tmp_path / "points").read_text())["backend"] is None
    assert main(["evaluate", "--json", str(tmp_path / "more"), run, "--samples", "5"]) == 0
    assert (tmp_path / "more").exists()


def test_options_and_places_that_cannot_be(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A misspelt option gets a hint; what cannot be written is refused before anything runs."""
    (tmp_path / "file").write_text("")
    evaluate = ["evaluate", str(run_folder)]
    refused(capsys, [*evaluate, "--cofnusion"], "--cofnusion", "did you mean --confusion?")
    refused(capsys, [*evaluate, "--json", str(tmp_path)], "is a folder")
    refused(capsys, [*evaluate, "--json", str(tmp_path / "file" / "a.json")], "is no folder")
    refused(capsys, ["sweep", str(run_folder), "--out", str(tmp_path / "file" / "d")], "is no folder")
    refused(capsys, ["demo", "--out", str(tmp_path / "file")], "is no folder")
    refused(capsys, [*evaluate, "extra"], "unrecognized arguments: extra")


def _comparison(run_folder: Path, **accuracies: list[float]) -> Comparison:
    from mtt_lava import Point, load_run
    from mtt_lava.scoring import Score

    def point(t: int, accuracy: float) -> Point:
        return Point(t, Score(200, accuracy, 0.0, 0.0, (), (), np.zeros((2, 3))), {}, {}, np.zeros((200, 2)))

    points = {name: [[point(t, a) for t, a in zip((1, 2, 6), row, strict=True)]] for name, row in accuracies.items()}
    return Comparison(load_run(run_folder).settings, points, (0,), Path("accuracy.png"))


def test_a_comparison_says_where_mtt_loses(run_folder: Path):
    """A sentence from the numbers: where each method is ahead, by how much at most, and what a sample is worth."""
    mixed = _comparison(run_folder, sdt=[0.25, 0.5, 0.965], mtt=[0.75, 0.7, 0.95])
    assert mixed.verdict == (
        "MTT is ahead at T = 1, 2 (by 50.0 points at T = 1, the most), SDT is ahead at T = 6 (by 1.5 points at T = 6); "
        "a single sample is 0.5 points"
    )
    assert mixed.verdict in str(mixed)
    worse = _comparison(run_folder, sdt=[0.5, 0.5, 0.5], mtt=[0.5, 0.5, 0.25])
    assert worse.verdict.startswith("MTT is ahead at no T, SDT is ahead at T = 6 (by 25.0")
    assert _comparison(run_folder, mtt=[0.5, 0.5, 0.5]).verdict == ""


def test_results_read_well(run_folder: Path, net: Path):
    """One short line each for people at a prompt, and rows of plain values for a table, as pandas takes them."""
    import hw_profiles
    from mtt_lava import evaluate, load_run, open_dataset, prove, sweep
    from mtt_lava.data import show, subset
    from netx_export import read
    from netx_export.activity import measure
    from netx_export.simulation import simulate

    run, dataset = load_run(run_folder), subset(open_dataset("digits-dvs", split="test"), range(6))
    points, network = evaluate(run, [2, 3], dataset), read(net)
    inputs = np.ones((1, 2, 34, 34, 2), np.int8)
    swept, summary = sweep(run, [2], "loihi1", dataset), show.summary(dataset)
    report, activity = hw_profiles.check(network, hw_profiles.load("loihi1")), measure(net, inputs)
    proofs = prove(run, [2], "fast", dataset=dataset)
    comparison = _comparison(run_folder, sdt=[0.25, 0.5, 0.95], mtt=[0.75, 0.7, 0.95])
    results = [run, dataset, network, swept, summary, report, report.placement, *points, *proofs, points[0].score]
    results += [comparison, activity, swept.costs[0], hw_profiles.load("loihi1"), *network, network.layers[0].neuron]
    for result in [*results, simulate(net, inputs, "fast")]:
        assert repr(result).startswith("<")
        assert len(repr(result).splitlines()) == 1
        assert len(repr(result)) < 250, repr(result)
    assert repr(points[0]).startswith("<Point T = 2: 6 samples: accuracy ")
    tables = [each.rows() for each in (swept, summary, report, report.placement, swept.costs[0], network, comparison)]
    for rows in [*tables, [point.row() for point in points], [proof.row() for proof in proofs]]:
        assert all(row.keys() == rows[0].keys() for row in rows)
        assert not any(isinstance(value, dict | np.ndarray) for row in rows for value in row.values())
    assert [row["T"] for row in swept.rows()] == ["2"]
    assert [(row["layer"], row["group"]) for row in network.rows()][:2] == [(1, "layer/1"), (2, "layer/2")]


def test_pages_fit_a_phone():
    """The width is the device's, pictures shrink with it, and text that must not wrap scrolls by itself."""
    text = page("title")
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    assert "img { max-width: 100%; height: auto; }" in text
    assert "overflow-x: auto" in text


def test_pictures_name_ticks_and_units():
    """T is marked where it was measured, accuracy is in per cent, and energies within a decade have ticks."""
    from mtt_lava.pictures import plot_accuracy, plot_sweep

    axes = plot_accuracy({"mtt": ([1, 3, 10], np.array([[0.2, 0.5, 0.9]]))}, 10)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "3", "10"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("time steps T at inference", "test accuracy, %")
    axes = plot_sweep(["T=1", "T=2"], [21.0, 53.0], [0.2, 0.9], [True, True], "energy a sample, nJ", "run")
    axes.figure.canvas.draw()
    low, high = axes.get_xlim()
    ticks = zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
    seen = [label.get_text() for value, label in ticks if low <= value <= high]
    assert len(seen) > 1
    assert set(seen) >= {"25", "50"}
    assert axes.get_xlabel() == "energy a sample, nJ"
