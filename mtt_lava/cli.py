"""The command line: `mtt` and `mtt-export`.

Every command imports what it needs when it runs, so that help answers at once.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

METHODS = ("sdt", "nmt", "mtt")
OUR_PACKAGES = ("mtt_lava", "netx_export", "hw_profiles")


class _Help(argparse.HelpFormatter):
    """Examples stay as they are, so that they can be copied."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith("Example: ") else super()._fill_text(text, width, indent)


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=_Help, **options)

    def error(self, message: str) -> Any:
        if "invalid choice" in message:
            from netx_export.text import meant

            wrong, *choices = re.findall(r"'(.*?)'", message)
            message += meant(wrong, choices)
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def _numbers(text: str, least: int, what: str) -> list[int]:
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or min(values) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of {what}: give numbers from {least} on, as 1,2,10")
    return values


def _steps(text: str) -> list[int]:
    return _numbers(text, 1, "time steps")


def _seeds(text: str) -> list[int]:
    return _numbers(text, 0, "seeds")


def _shape(text: str) -> tuple[int, ...]:
    shape = tuple(_numbers(text, 1, "sizes"))
    if len(shape) not in (1, 3):
        raise argparse.ArgumentTypeError(f"{text!r} is no shape: give C,H,W, or F of a flat input")
    return shape


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def _backend(text: str) -> str:
    from netx_export import NetworkError, backends

    try:
        return backends.find(text).name
    except NetworkError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _takes_events(backend: str | None) -> bool:
    from netx_export.backends import BACKENDS

    return backend is not None and BACKENDS[backend].takes == "events"


def _profile(text: str) -> str:
    import hw_profiles

    try:
        hw_profiles.load(text)
    except hw_profiles.ProfileError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _profile_names(text: str) -> list[str]:
    return [_profile(name) for name in text.split(",")]


def _folder(text: str) -> str:
    """Where a command will write: what cannot be is refused before an hour is spent."""
    path = Path(text)
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} cannot be written: {there} is no folder: choose another place")
    if not os.access(there, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be written: {there} is read-only: choose another place")
    return text


def _file(text: str) -> str:
    if text == "-":
        return text
    if not text or Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a folder: name a file")
    _folder(str(Path(text).absolute().parent))
    return text


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json",
        nargs="?",
        const="-",
        type=_file,
        metavar="FILE",
        help="print JSON instead of text; with FILE also write it there (text is printed as usual)",
    )


def _report(args: argparse.Namespace, text: object, content: Any) -> None:
    """Print the text, or the JSON of the same; write JSON where a file is named."""
    lines = json.dumps(content, indent=2)
    print(lines if args.json == "-" else text)
    if args.json not in (None, "-"):
        from netx_export.files import replacing

        with replacing(args.json) as temporary:
            temporary.write_text(lines + "\n")


@contextmanager
def _saying(what: str, everywhere: bool = False) -> Iterator[None]:
    """A word on a terminal (or everywhere) while something takes seconds and has no bar of its own."""
    terminal = sys.stderr.isatty()
    if terminal or everywhere:
        print(f"{what} ...", end="" if terminal else "\n", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _load_torch() -> None:
    with _saying("loading PyTorch and SLAYER"):
        import mtt_lava.spiking  # noqa: F401


# ------------------------------------------------------------------------------------------------ train


def _add_training(parser: argparse.ArgumentParser, data: str | None = None, profile: bool = True) -> None:
    """What every command that trains takes; names are those of `mtt_lava.Settings`."""
    names = "data set: digits-dvs (built in), nmnist, cifar10-camera; a folder, .toml or module:function (mtt data)"
    parser.add_argument("--data", required=data is None, default=data, metavar="NAME", help=names)
    parser.add_argument("--root", metavar="DIR", help="folder of the data set")
    parser.add_argument("--samples", type=int, metavar="N", help="train on the first N recordings (default: all)")
    parser.add_argument(
        "--validate",
        dest="validate_on",
        metavar="SHARE",
        help="measure accuracy after every epoch on this share of the recordings, held out; or on: test",
    )
    parser.add_argument("--time-steps", type=int, metavar="T", help="time steps of training (default 10)")
    parser.add_argument(
        "--float-method", choices=METHODS, help="method of the first phase, before quantisation (default: the same)"
    )
    parser.add_argument("--t-min", type=int, metavar="T", help="fewest time steps drawn by nmt and mtt (default 1)")
    parser.add_argument("--configurations", type=int, metavar="S", help="temporal configurations a batch (default 3)")
    parser.add_argument("--group", type=int, metavar="G", help="blocks a stage (default 1)")
    parser.add_argument("--hold-first", action="store_true", default=None, help="the first stage always runs T")
    parser.add_argument(
        "--no-sandwich",
        dest="sandwich",
        action="store_false",
        default=None,
        help="all configurations random, as in the paper; else one is T and one T_MIN everywhere",
    )
    parser.add_argument("--finer", type=int, metavar="N", help="nmt and mtt also train N * T steps (default 1: not)")
    parser.add_argument("--spike-penalty", type=float, metavar="W", help="weight of spikes in the loss (default 0)")
    parser.add_argument("--form", choices=("group", "fraction"), help="temporal transformation (default group)")
    parser.add_argument("--input-form", choices=("group", "fraction", "trim"), help="that of the input (default group)")
    if profile:
        help_text = "hardware profile, name or TOML file (default loihi2)"
        parser.add_argument("--profile", metavar="NAME", help=help_text)  # a run that goes on needs it no more
    parser.add_argument("--epochs", type=int, metavar="N", help="epochs, quantised ones included (default 150)")
    parser.add_argument("--fine-tune", type=float, metavar="SHARE", help="share of the epochs trained quantised")
    parser.add_argument("--batch", type=int, metavar="N", help="samples a batch (default 25)")
    parser.add_argument("--learning-rate", type=float, metavar="R", help="peak rate before quantisation")
    parser.add_argument("--fine-tune-rate", type=float, metavar="R", help="peak rate after it")
    parser.add_argument("--weight-decay", type=float, metavar="W", help="of AdamW (default 0)")
    parser.add_argument(
        "--norm", choices=("centred", "batch", "scale"), help="while training (default centred: needs no bias)"
    )
    parser.add_argument(
        "--biases",
        choices=("absorbed", "none", "scaled", "kept"),
        help="what folding the norm does with biases (default absorbed: weights stand for them)",
    )
    parser.add_argument(
        "--silent-epochs", type=int, metavar="N", help="stop after N epochs without an answer; 0 goes on (default 3)"
    )
    text = "train also what does not fit the profile: what does not is said"
    parser.add_argument("--allow-unfit", action="store_true", default=None, help=text)
    parser.add_argument("--no-augment", dest="augment", action="store_false", default=None, help="frames as they are")


_TRAINING = (
    *("data", "root", "samples", "validate_on", "float_method", "silent_epochs"),
    *("method", "time_steps", "t_min", "configurations", "group", "hold_first", "sandwich"),
    *("finer", "spike_penalty", "form", "input_form"),
    *("profile", "epochs", "fine_tune", "batch", "learning_rate", "fine_tune_rate", "weight_decay", "norm"),
    *("biases", "augment", "seed", "allow_unfit"),
)


def _settings(args: argparse.Namespace, **more: Any) -> Any:
    from mtt_lava import Settings

    values = {name: getattr(args, name, None) for name in _TRAINING} | more
    return Settings.make(args.model, width=getattr(args, "width", None), **values)


def _training_data(settings: Any) -> Any:
    """The data that settings name: opened before torch is loaded, which takes longer."""
    from mtt_lava.data import open_dataset

    return open_dataset(settings.data, split="train", root=settings.root)


def _add_train(commands: Any) -> None:
    parser = _command(
        commands,
        "train",
        _train,
        "Train a network and write a run folder.",
        "mtt train nmnist-3c1fc --data digits-dvs --method mtt --epochs 12 --out runs/digits",
    )
    parser.add_argument("model", metavar="MODEL", help="name of a model, or a TOML file")
    parser.add_argument("--width", type=float, metavar="W", help="so many times the model's channels (default 1)")
    parser.add_argument("--method", choices=METHODS, help="training method (default mtt)")
    parser.add_argument("--seed", type=int, metavar="S", help="fixes the result (default 0)")
    parser.add_argument("--out", required=True, type=_folder, metavar="RUN", help="run folder to write")
    parser.add_argument("--resume", action="store_true", help="go on where the run in --out was stopped")
    _add_training(parser)
    _add_json(parser)


def _train(args: argparse.Namespace) -> int:
    from mtt_lava.run import kept_chip

    # A run that is resumed needs its profile no more: it may be edited or gone.
    settings = _settings(args, chip=kept_chip(args.out, args.profile) if args.resume else None)
    dataset = _training_data(settings)
    _load_torch()
    import hw_profiles
    from mtt_lava import to_network, train

    run = train(settings, args.out, dataset, resume=args.resume)
    last = run.metrics[-1]
    lines = [
        f"{args.out}: {run.network.weights:,} weights; loss {last['loss']:.3f}, accuracy {last['accuracy']:.1%} "
        f"(silent {last['silent']:.1%}, tied {last['tied']:.1%})"
    ]
    held = {line["epoch"]: line["validation"]["accuracy"] for line in run.metrics if "validation" in line}
    if held:
        best = max(held, key=lambda epoch: held[epoch])
        lines.append(
            f"validation: last epoch {held[last['epoch']]:.1%}, which counts; best {held[best]:.1%} at epoch {best}"
        )
    report = hw_profiles.check(to_network(run), settings.chip, settings.time_steps, settings.input_max)
    lines.append(f"{str(report).splitlines()[0]}; {str(report.placement).splitlines()[0]}")
    content = {"run": args.out, "weights": run.network.weights, "settings": settings.model_dump(mode="json")}
    _report(args, "\n".join(lines), content | {"metrics": run.metrics, "report": report.to_dict()})
    return 0


# ------------------------------------------------------------------------------------------------ evaluate


def _add_evaluate(commands: Any) -> None:
    parser = _command(
        commands,
        "evaluate",
        _evaluate,
        "Accuracy and spikes of a run at any number of time steps; with a backend, the proof that it fires the same.",
        "mtt evaluate runs/digits --time-steps 1,2,4,10,100 --json points.json",
    )
    parser.add_argument("run", metavar="RUN", help="run folder")
    parser.add_argument("--time-steps", type=_steps, metavar="T,T,...", help="default: T of training")
    parser.add_argument("--data", metavar="NAME", help="data set (default: that of training)")
    parser.add_argument("--root", metavar="DIR", help="folder of the data set (default: that of training)")
    parser.add_argument(
        "--backend",
        type=_backend,
        metavar="NAME",
        help="fast or lava: run the exported network there and compare every spike; event: also run it without a "
        "clock, and show the spike difference of each T from that",
    )
    parser.add_argument("--samples", type=_positive, metavar="N", help="only the first N test samples")
    parser.add_argument("--workers", type=int, metavar="N", help="fast, lava: spread the samples over N processes")
    parser.add_argument(
        "--confusion", action="store_true", help="also print, for each T, which class was taken for which"
    )
    _add_json(parser)


def _there(run: str) -> None:
    """Refuse a folder that does not exist before NumPy is imported, which takes longer than looking."""
    if not Path(run).exists():
        raise FileNotFoundError(f"{run}: not a run folder (there is nothing of this name): make one with mtt train")


def _file_there(path: str) -> None:
    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: no such file")


def _open_run(args: argparse.Namespace) -> tuple[Any, Any]:
    """A run, and the test data asked for, or that of training (of a run trained from Python, perhaps without a name).

    What needs no torch comes first: a name that is wrong is said at once.
    """
    _there(args.run)
    from mtt_lava.data import open_dataset
    from mtt_lava.run import load_run, load_settings, open_test_split

    settings = load_settings(args.run)
    if args.data:
        dataset = open_dataset(args.data, split="test", root=args.root)
    else:
        dataset = open_test_split(settings, args.root)
    _load_torch()
    return load_run(args.run), dataset


def _evaluate(args: argparse.Namespace) -> int:
    run, dataset = _open_run(args)
    from mtt_lava import evaluate, prove
    from mtt_lava.data import subset
    from mtt_lava.evaluation import synops_table, table

    if args.samples is not None:
        dataset = subset(dataset, range(min(args.samples, len(dataset))))
    steps = args.time_steps or [run.settings.time_steps]
    event_driven = _takes_events(args.backend)
    if args.backend is None or event_driven:
        points = evaluate(run, steps, dataset, event_driven=event_driven)
        lines = [table(points)]
        if event_driven:
            lines.append(synops_table(points))
        results: list[Any] = list(points)
    else:
        results = list(prove(run, steps, args.backend, None, dataset, workers=args.workers))
        lines = [f"{args.backend}: {proof}" for proof in results]
    if args.confusion:
        for each in results:
            name = "event" if each.time_steps is None else f"T = {each.time_steps}"
            lines.append(
                f"\n{name}: samples of each class (rows) by answer (columns)\n{each.score.table(dataset.classes)}"
            )
    content = {"run": args.run, "backend": args.backend, "classes": dataset.classes}
    _report(args, "\n".join(lines), content | {"time_steps": [each.to_dict() for each in results]})
    return 0


# ------------------------------------------------------------------------------------------------ sweep


def _add_sweep(commands: Any) -> None:
    parser = _command(
        commands,
        "sweep",
        _sweep,
        "Energy against accuracy: accuracy, spikes, energy and time of a run at every number of time steps, and which "
        "of these are worth choosing.",
        "mtt sweep runs/digits --profile loihi1 --time-steps 1,2,4,8,16 --out sweep",
    )
    parser.add_argument("run", metavar="RUN", help="run folder")
    profile = "a name or a TOML file (default: that of training)"
    parser.add_argument("--profile", type=_profile, metavar="NAME", help=profile)
    parser.add_argument(
        "--time-steps", type=_steps, default=[1, 2, 4, 8, 16, 32], metavar="T,T,...", help="default 1,2,4,8,16,32"
    )
    parser.add_argument("--data", metavar="NAME", help="data set (default: that of training)")
    parser.add_argument("--root", metavar="DIR", help="folder of the data set (default: that of training)")
    parser.add_argument("--out", type=_folder, metavar="DIR", help="folder to write: pictures, sweep.json, index.html")
    _add_json(parser)


def _sweep(args: argparse.Namespace) -> int:
    run, dataset = _open_run(args)
    from mtt_lava import sweep

    result = sweep(run, args.time_steps, args.profile, dataset)
    page = [f"page: {result.save(Path(args.out))}"] if args.out else []
    _report(args, "\n".join([str(result), *page]), result.to_dict())
    return 0


# ------------------------------------------------------------------------------------------------ simulate


def _add_simulate(commands: Any) -> None:
    parser = _command(
        commands,
        "simulate",
        _simulate,
        "Run a NetX file on integer input.",
        "mtt simulate digits.net input.npy --backend lava --output output.npz",
        "mtt simulate digits.net events.npz --backend event --output output.npz",
    )
    parser.add_argument("network", metavar="NET", help="NetX file")
    parser.add_argument(
        "input",
        metavar="INPUT",
        help=".npy of integers, (N, C, H, W, T) or (N, F, T); event: .npz with integer arrays sample, t (us), c, y, x",
    )
    parser.add_argument(
        "--backend", type=_backend, default="lava", metavar="NAME", help="fast, lava or event (default lava)"
    )
    parser.add_argument(
        "--output",
        required=True,
        type=_file,
        metavar="OUT.npz",
        help="takes spikes and readout; event: counts, readout, first spikes",
    )
    parser.add_argument(
        "--record", default="", metavar="u,v,spikes", help="also record these for every layer; event: events"
    )
    parser.add_argument("--reset", choices=("subtract", "zero"), help="event: reset (default: that of profile or file)")
    parser.add_argument(
        "--clamp",
        action=argparse.BooleanOptionalAction,
        help="event: whether v stays above the negative threshold (default: with reset subtract)",
    )
    event_profile = "event: hardware profile whose neurons and states to use"
    parser.add_argument("--profile", type=_profile, metavar="NAME", help=event_profile)
    _add_in_shape(parser, "event: ")
    _add_encode(parser)
    parser.add_argument("--time-limit", type=float, metavar="S", help="lava: seconds the run may take")
    parser.add_argument("--stock", action="store_true", default=None, help="lava: its own convolutions, slower")
    spread = parser.add_mutually_exclusive_group()
    spread.add_argument("--workers", type=int, metavar="N", help="spread the samples over N processes")
    spread.add_argument("--scheduler", metavar="ADDRESS", help="spread them over the Dask cluster at tcp://HOST:PORT")
    _add_json(parser)


def _add_in_shape(parser: argparse.ArgumentParser, where: str = "") -> None:
    text = f"{where}shape of the input, for a file that does not state it"
    parser.add_argument("--in-shape", type=_shape, metavar="C,H,W", help=text)


def _add_encode(parser: argparse.ArgumentParser) -> None:
    text = "fast, lava: INPUT holds values, which the file's input neurons make spikes of"
    parser.add_argument("--encode", action="store_true", default=None, help=text)


def _simulate(args: argparse.Namespace) -> int:
    _file_there(args.network)
    from netx_export import NetworkError, limits
    from netx_export.simulation import load_inputs, simulate

    record = [part for part in args.record.split(",") if part]
    if _takes_events(args.backend):
        return _simulate_events(args, record)
    for name in ("reset", "clamp", "profile"):
        if getattr(args, name) is not None:
            raise NetworkError(f"--{name} is for backend 'event'; backend {args.backend!r} runs the file's own neurons")
    if args.in_shape is not None:
        raise NetworkError(
            f"--in-shape is for backend 'event'; backend {args.backend!r} takes the shape of {args.input}"
        )
    inputs = load_inputs(args.input)
    options = {name: getattr(args, name) for name in ("time_limit", "stock", "workers", "scheduler", "encode")}
    given = {name: value for name, value in options.items() if value is not None}
    result = simulate(args.network, inputs, backend=args.backend, record=record, **given)
    result.save(args.output)
    spikes = int(result.spikes.sum())
    lines = [f"{args.output}: {len(inputs)} samples, {spikes:,} output spikes", result.limits_text()]
    content = {"output": args.output, "backend": args.backend, "samples": len(inputs), "output_spikes": spikes}
    _report(args, "\n".join(filter(None, lines)), content | {"limits": json.loads(limits.to_json(result.limits))})
    return 0


def _event_rules(profile: str | None) -> Any:
    import hw_profiles

    return None if profile is None else hw_profiles.load(profile).event_rules()


def _simulate_events(args: argparse.Namespace, record: list[str]) -> int:
    from netx_export import NetworkError, limits, read
    from netx_export.event import backend as event_backend

    if args.encode:
        raise NetworkError("--encode is not for backend 'event': input neurons are run by time steps, on fast or lava")
    for name in ("time_limit", "stock", "workers", "scheduler"):
        if getattr(args, name) is not None:
            raise NetworkError(f"--{name.replace('_', '-')} is not for backend 'event', which uses all cores by itself")
    events = event_backend.load_events(args.input)
    options = {"reset": args.reset, "clamp": args.clamp, "chip": _event_rules(args.profile), "record": record}
    result = event_backend.simulate(read(args.network, args.in_shape), events, **options)
    result.save(args.output)
    synops = int(result.synops_per_layer.sum())
    fired = int(result.counts.sum())
    lines = [f"{args.output}: {events.n} samples, {fired:,} output events, {synops:,} synaptic operations"]
    content = {"output": args.output, "backend": "event", "samples": events.n, "output_events": fired}
    content |= {"synops": synops, "limits": json.loads(limits.to_json(result.limits))}
    _report(args, "\n".join(filter(None, [*lines, result.limits_text()])), content)
    return 0


# ------------------------------------------------------------------------------------------------ check, cost, profiles


def _add_check(commands: Any) -> None:
    parser = _command(
        commands,
        "check",
        _check,
        "Whether a NetX file fits a chip: exit code 0 fits, 1 does not, 2 error.",
        "mtt check digits.net --profile loihi2",
    )
    parser.add_argument("network", metavar="NET", help="NetX file")
    profile = "a name or a TOML file (default: the one named in the file)"
    parser.add_argument("--profile", type=_profile, metavar="NAME", help=profile)
    parser.add_argument("--time-steps", type=int, metavar="T", help="time steps a sample (default: those in the file)")
    _add_in_shape(parser)
    parser.add_argument("--input-payload", type=int, metavar="N", help="largest value in the input (1: binary spikes)")
    parser.add_argument("--picture", type=_file, metavar="FILE.png", help="draw the chip with its cores filled")
    _add_json(parser)


def _network_and_chip(args: argparse.Namespace, inputs: Any = None) -> tuple[Any, Any]:
    """The NetX file, to be fed with these inputs, and the profile asked for or named in it."""
    import hw_profiles
    from netx_export import NetworkError
    from netx_export.simulation import read_for

    network = read_for(args.network, inputs, args.in_shape, encode=bool(getattr(args, "encode", None)))
    profile = args.profile or network.info.get("profile")
    if profile is None:
        raise NetworkError(f"{args.network}: names no profile: give one with --profile NAME")
    return network, hw_profiles.load(profile)


def _check(args: argparse.Namespace) -> int:
    _file_there(args.network)
    import hw_profiles

    network, chip = _network_and_chip(args)
    time_steps = args.time_steps or network.info.get("time_steps")
    payload = args.input_payload or network.info.get("input_max")
    report = hw_profiles.check(network, chip, time_steps, payload)
    _report(args, report, report.to_dict())
    if args.picture:
        _draw_placement(report.placement, args.picture)
    return 0 if report.fits else 1


def _draw_placement(placement: Any, path: str) -> None:
    from mtt_lava.pictures import placement_figure, save_figure

    save_figure(placement_figure(placement), Path(path))


def _add_cost(commands: Any) -> None:
    parser = _command(
        commands,
        "cost",
        _cost,
        "What input costs on a chip: runs it, counts every spike, and estimates operations, messages, energy and time.",
        "mtt cost digits.net input.npy --profile loihi1",
    )
    parser.add_argument("network", metavar="NET", help="NetX file")
    parser.add_argument("input", metavar="INPUT", help="as for mtt simulate")
    profile = "a name or a TOML file (default: the one named in the file)"
    parser.add_argument("--profile", type=_profile, metavar="NAME", help=profile)
    parser.add_argument(
        "--backend", type=_backend, default="fast", metavar="NAME", help="fast, lava or event (default fast)"
    )
    _add_in_shape(parser, "event: ")
    _add_encode(parser)
    parser.add_argument(
        "--sanafe", action="store_true", help="second opinion of SANA-FE on the first sample (Loihi 1; extra 'sanafe')"
    )
    parser.add_argument("--picture", type=_file, metavar="FILE.png", help="draw the chip with its cores filled")
    _add_json(parser)


def _cost(args: argparse.Namespace) -> int:
    _file_there(args.network)
    import hw_profiles
    from netx_export import NetworkError
    from netx_export.activity import measure
    from netx_export.event.backend import load_events
    from netx_export.simulation import load_inputs

    event = _takes_events(args.backend)
    for name in ("sanafe", "encode"):
        if getattr(args, name) and event:
            raise NetworkError(f"--{name} runs time steps: use --backend fast")
    if args.sanafe and args.encode:
        raise NetworkError("--sanafe takes spikes, not values to encode: leave out one of them")
    inputs: Any = load_events(args.input) if event else load_inputs(args.input)
    network, chip = _network_and_chip(args, inputs)
    placement = hw_profiles.place(network, chip)
    rules = {"chip": _event_rules(args.profile or network.info["profile"])} if event else {}
    options = rules or {"encode": bool(args.encode)}
    activity = measure(args.network, inputs, args.backend, in_shape=args.in_shape, **options)
    result = hw_profiles.cost(network, activity, chip, placement)
    opinion = None
    if args.sanafe:
        from hw_profiles.sanafe import sanafe

        first = hw_profiles.cost(network, measure(args.network, inputs[:1], args.backend), chip, placement)
        with _saying("running SANA-FE"):
            opinion = sanafe(network, placement, inputs[0], first)
    content = {"cost": result.to_dict(), "placement": placement.to_dict()}
    content |= {"sanafe": opinion.to_dict()} if opinion else {}
    _report(args, "\n".join(str(part) for part in (result, placement, opinion) if part is not None), content)
    if args.picture:
        _draw_placement(placement, args.picture)
    return 0


def _add_profiles(commands: Any) -> None:
    parser = _command(
        commands, "profiles", _profiles, "The hardware profiles, or one with its sources.", "mtt profiles loihi1"
    )
    parser.add_argument("profile", nargs="?", metavar="NAME", help="a name or a TOML file")
    _add_json(parser)
    parser.add_argument("--schema", action="store_true", help="print the JSON schema of profile files, for editors")


def _profiles(args: argparse.Namespace) -> int:
    import hw_profiles

    if args.schema:
        print(json.dumps(hw_profiles.json_schema(), indent=2))
        return 0
    if args.profile is not None:
        profile = hw_profiles.load(args.profile)
        _report(args, hw_profiles.describe(profile), profile.model_dump(mode="json"))
        return 0
    profiles = [hw_profiles.load(name) for name in hw_profiles.names()]
    width = max(len(profile.name) for profile in profiles)
    lines = "\n".join(f"{profile.name.ljust(width)}  {profile.title}" for profile in profiles)
    _report(args, lines, {profile.name: profile.title for profile in profiles})
    return 0


def _add_models(commands: Any) -> None:
    parser = _command(
        commands,
        "models",
        _models,
        "The networks that come with the package, or the layers of one of them or of a TOML file.",
        "mtt models nmnist-3c1fc",
    )
    parser.add_argument("model", nargs="?", metavar="NAME", help="a name or a TOML file")
    _add_json(parser)
    parser.add_argument("--schema", action="store_true", help="print the JSON schema of model files, for editors")


def _models(args: argparse.Namespace) -> int:
    from mtt_lava.model import Model, describe, load_model, model_names

    if args.schema:
        print(json.dumps(Model.model_json_schema(), indent=2))
    elif args.model is not None:
        model = load_model(args.model)
        _report(args, describe(model), model.model_dump(mode="json"))
    else:
        models = [load_model(name) for name in model_names()]
        lines = "\n".join(f"{each.name}: {each.weights:,} weights, input {[*each.input]}" for each in models)
        _report(args, lines, {each.name: each.weights for each in models})
    return 0


# ------------------------------------------------------------------------------------------------ data


def _add_data(commands: Any) -> None:
    parser = _command(
        commands,
        "data",
        _data,
        "What is in a data set, and inputs for mtt simulate and mtt cost: numbers, a picture, frames, events.",
        "mtt data digits-dvs --picture digits.png --write-input input.npy --write-events events.npz --samples 20",
    )
    parser.add_argument(
        "data",
        metavar="NAME",
        help="digits-dvs, nmnist or cifar10-camera; a folder of recordings (train and test, or a share held out, with "
        "a folder for each class: .npy, .npz, .csv, .h5, N-MNIST's .bin; with the extra 'recordings' .aedat4, .dat, "
        ".raw, .es), which may hold a data.toml; such a .toml file (path, train, test, classes, sensor_size, duration, "
        "start, unit, unwrap, columns, test_share, seed, name); or module:function, which is called with split='train' "
        "or 'test' and returns a data set",
    )
    parser.add_argument("--root", metavar="DIR", help="folder of the data set")
    parser.add_argument("--split", choices=("train", "test"), help="show and write this one (default: show both)")
    _add_json(parser)
    parser.add_argument("--picture", type=_file, metavar="FILE.png", help="draw the first recording of each class")
    parser.add_argument(
        "--write-input", type=_file, metavar="INPUT.npy", help="write frames of the test recordings (or of --split)"
    )
    parser.add_argument("--time-steps", type=_positive, default=10, metavar="T", help="of those frames (default 10)")
    parser.add_argument(
        "--input-max", type=_positive, metavar="N", help="cut counts above N in them (1: binary spikes)"
    )
    parser.add_argument("--write-events", type=_file, metavar="EVENTS.npz", help="write events of the same recordings")
    parser.add_argument("--samples", type=_positive, metavar="N", help="write the first N recordings only")


def _data(args: argparse.Namespace) -> int:
    from mtt_lava.data import open_dataset, show, subset
    from mtt_lava.pictures import save_figure

    for path, ending in ((args.write_input, ".npy"), (args.write_events, ".npz")):
        if path:
            show.check_ending(path, ending)
    splits = [args.split] if args.split else ["train", "test"]
    opened = [open_dataset(args.data, split=split, root=args.root) for split in splits]
    summaries = [show.summary(dataset) for dataset in opened]
    written = {}
    chosen = opened[-1] if args.samples is None else subset(opened[-1], range(min(args.samples, len(opened[-1]))))
    if args.picture:
        save_figure(show.classes_figure(opened[0]), Path(args.picture))
        written[args.picture] = "the first recording of each class"
    if args.write_input:
        shape = show.write_input(chosen, args.write_input, args.time_steps, args.input_max)
        written[args.write_input] = f"{chosen.split} frames, (N, C, H, W, T) = {shape}"
    if args.write_events:
        count = show.write_events(chosen, args.write_events)
        written[args.write_events] = f"{count:,} events of {len(chosen):,} {chosen.split} recordings"
    lines = ["\n\n".join(map(str, summaries)), *(f"{path}: {what}" for path, what in written.items())]
    content = {each.split: each.to_dict() for each in summaries}
    _report(args, "\n".join(lines), {"data": args.data, "splits": content, "written": written})
    return 0


# ------------------------------------------------------------------------------------------------ bench, demo


def _add_bench(commands: Any) -> None:
    bench = commands.add_parser("bench", help="Measure.", description="Measure.")
    benches = bench.add_subparsers(metavar="BENCH", required=True)
    parser = _command(
        benches,
        "methods",
        _bench_methods,
        "Train by several methods and seeds and compare the accuracy at every number of time steps. Goes on where it "
        "was stopped.",
        "mtt bench methods --data digits-dvs --epochs 12 --seeds 0 --out runs/methods",
    )
    parser.add_argument("--model", default="nmnist-3c1fc", metavar="MODEL", help="default nmnist-3c1fc")
    parser.add_argument("--methods", default="sdt,mtt", metavar="M,M,...", help="default sdt,mtt")
    parser.add_argument("--seeds", type=_seeds, default=[0, 1, 2], metavar="S,S,...", help="default 0,1,2")
    parser.add_argument(
        "--at",
        type=_steps,
        default=[1, 2, 4, 6, 8, 10, 15, 20, 30, 50, 100],
        metavar="T,T,...",
        help="evaluated at these",
    )
    parser.add_argument(
        "--out", required=True, type=_folder, metavar="DIR", help="folder of the run folders and the picture"
    )
    _add_json(parser)
    _add_training(parser)
    parser = _command(
        benches,
        "simulate",
        _bench_simulate,
        "Speed, memory and equality of the simulators: SLAYER, fast, lava with our convolutions and with its own.",
        "mtt bench simulate --json simulate.json",
    )
    _add_json(parser)
    _add_bench_paper(benches)
    _add_bench_depth(benches)
    _add_bench_events(benches)


def _bench_methods(args: argparse.Namespace) -> int:
    chosen = args.methods.split(",")
    settings = [_settings(args, method=method, seed=seed) for method in chosen for seed in args.seeds]
    dataset = _training_data(settings[0])
    _load_torch()
    from mtt_lava.studies.bench import methods

    result = methods(settings, args.at, Path(args.out), dataset)
    _report(args, result, result.to_dict())
    return 0


def _add_bench_paper(benches: Any) -> None:
    parser = _command(
        benches,
        "paper",
        _bench_paper,
        "The paper's headline result: SDT, NMT and MTT from one base network, clocked at every T and without a clock, "
        "in folds over all recordings. Goes on where it was stopped.",
        "mtt bench paper --data digits-dvs --methods sdt,mtt --folds 2 --epochs 8 --out runs/paper",
    )
    parser.add_argument("--model", default="nmnist-3c1fc", metavar="MODEL", help="default nmnist-3c1fc")
    names = "sdt,sdt-sparse,nmt,mtt"
    parser.add_argument("--methods", default=names, metavar="M,M,...", help=f"default {names}")
    parser.add_argument("--folds", type=int, default=5, metavar="N", help="default 5")
    parser.add_argument("--seed", type=int, metavar="S", help="fixes the result (default 0)")
    parser.add_argument(
        "--out", required=True, type=_folder, metavar="DIR", help="folder of the run folders and the picture"
    )
    _add_json(parser)
    _add_training(parser)
    parser.set_defaults(profile="speck2e", epochs=100, fine_tune=0.7, learning_rate=6e-3, fine_tune_rate=4e-3)
    parser.set_defaults(finer=4, spike_penalty=0.2, norm="scale")


def _bench_paper(args: argparse.Namespace) -> int:
    settings = _settings(args)
    _training_data(settings)
    _load_torch()
    from mtt_lava.studies.paper import paper

    result = paper(settings, Path(args.out), args.methods.split(","), count=args.folds)
    _report(args, result, result.to_dict())
    return 0


def _add_bench_depth(benches: Any) -> None:
    parser = _command(
        benches,
        "depth",
        _bench_depth,
        "Plain stacks of 3, 5, 7 and 9 convolutions for every chip by SDT and MTT: which train, which die. Goes on "
        "where it was stopped.",
        "mtt bench depth --depths 3,5 --profiles loihi2 --epochs 4 --out runs/depth",
    )
    parser.add_argument("--depths", type=_steps, default=[3, 5, 7, 9], metavar="N,N,...", help="default 3,5,7,9")
    names = "loihi1,loihi2,speck2e"
    parser.add_argument(
        "--profiles", type=_profile_names, default=names.split(","), metavar="P,P,...", help=f"default {names}"
    )
    parser.add_argument("--methods", default="sdt,mtt", metavar="M,M,...", help="default sdt,mtt")
    parser.add_argument("--width", type=int, default=8, metavar="N", help="channels of the first one (default 8)")
    parser.add_argument("--seed", type=int, metavar="S", help="fixes the result (default 0)")
    parser.add_argument("--out", required=True, type=_folder, metavar="DIR", help="folder of the run folders")
    _add_json(parser)
    _add_training(parser, data="digits-dvs", profile=False)
    parser.set_defaults(samples=600, epochs=10, time_steps=6)


def _bench_depth(args: argparse.Namespace) -> int:
    from mtt_lava.data import open_dataset

    open_dataset(args.data, split="train", root=args.root)
    _load_torch()
    from mtt_lava.studies.depth import depths

    chosen = args.depths, args.profiles, args.methods.split(",")
    own = ("data", "profile", "method")
    values: dict[str, Any] = {name: getattr(args, name, None) for name in _TRAINING if name not in own}
    result = depths(Path(args.out), *chosen, args.width, args.data, **values)
    _report(args, result, result.to_dict())
    return 0


def _add_bench_events(benches: Any) -> None:
    parser = _command(
        benches,
        "events",
        _bench_events,
        "Speed of the event-driven simulator: synaptic operations per second, beside a bare vector add.",
        "mtt bench events --json events.json",
    )
    _add_json(parser)


def _bench_events(args: argparse.Namespace) -> int:
    from mtt_lava.studies.events import events

    with _saying("measuring, about a minute", everywhere=True):
        result = events()
    _report(args, result, result.to_dict())
    return 0


def _bench_simulate(args: argparse.Namespace) -> int:
    from mtt_lava.studies.bench import simulators

    with _saying("measuring, a few minutes", everywhere=True):
        result = simulators()
    _report(args, result, result.to_dict())
    return 0


def _add_demo(commands: Any) -> None:
    parser = _command(
        commands,
        "demo",
        _demo,
        "The whole path on built-in data: train SDT and MTT, compare, export, prove on Lava, check; with pictures.",
        "mtt demo --out demo",
    )
    parser.add_argument("--out", default="demo", type=_folder, metavar="DIR", help="folder to write (default demo)")
    parser.add_argument(
        "--profile", type=_profile, default="loihi2", metavar="NAME", help="hardware profile (default loihi2)"
    )
    _add_json(parser)


def _demo(args: argparse.Namespace) -> int:
    _load_torch()
    from mtt_lava.studies.demo import demo

    # What is under way is for people: where JSON is asked for on stdout, it goes to stderr.
    with redirect_stdout(sys.stderr if args.json == "-" else sys.stdout):
        result = demo(Path(args.out), args.profile)
    _report(args, result, result.to_dict())
    return 0


# ------------------------------------------------------------------------------------------------ export


def _add_export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="run folder")
    parser.add_argument("out", type=_file, metavar="OUT.net", help="file to write")
    profile = "a name or a TOML file (default: that of training)"
    parser.add_argument("--profile", type=_profile, metavar="NAME", help=profile)
    parser.add_argument("--time-steps", type=int, metavar="T", help="T that rescaled biases are written for")
    text = "threshold of a voltage readout, which must not spike (default 131071, the largest; silicon may want 65536)"
    parser.add_argument("--readout-threshold", type=int, metavar="N", help=text)
    _add_json(parser)
    parser.set_defaults(action=_export)


def _add_export(commands: Any) -> None:
    text = "Write a trained run as a NetX HDF5 file for Lava and check it against a chip (the same as mtt-export)."
    _add_export_arguments(_command(commands, "export", _export, text, "mtt export runs/digits digits.net"))


def _export(args: argparse.Namespace) -> int:
    _there(args.run)
    from mtt_lava.run import load_settings
    from netx_export import layer_table
    from netx_export.netx import in_lava

    load_settings(args.run)
    _load_torch()
    from mtt_lava import export, load_run

    run = load_run(args.run)
    network, report = export(run, args.out, args.profile, args.time_steps, args.readout_threshold)
    lines = [layer_table(network), f"{args.out}: {run.network.weights:,} trained weights", str(report)]
    content = {"output": args.out, "trained_weights": run.network.weights, "layers": network.rows()}
    by_hand = in_lava(network, args.out)
    _report(args, "\n".join(filter(None, [*lines, by_hand])), content | {"report": report.to_dict()})
    return 0


# ------------------------------------------------------------------------------------------------ running


def _command(
    commands: Any, name: str, action: Callable[[argparse.Namespace], int], text: str, *examples: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text.split(":")[0].rstrip("."),
        description=text,
        epilog="Example: " + "\n         ".join(examples),
    )
    parser.set_defaults(action=action, parser=parser)
    return parser


def _show_warning(program: str, usual: Callable[..., None], message: Any, category: type, *where: Any) -> None:
    """Our own warnings are for the user, in a line; where in our code they arose is not."""
    if category.__module__.partition(".")[0] in OUR_PACKAGES:
        print(f"{program}: warning: {message}", file=sys.stderr)
    else:
        usual(message, category, *where)


def _parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Arguments, where the word after --json is FILE unless the command wants it as a positional one."""
    words = list(arguments)
    for i, word in enumerate(words):
        if word == "--json" and not "".join(words[i + 1 : i + 2]).endswith(".json"):
            words[i] = "--json=-"
    args, rest = parser.parse_known_args(words)
    if rest:
        args, rest = parser.parse_known_args(arguments)
    if rest:
        from netx_export.text import meant

        command: argparse.ArgumentParser = getattr(args, "parser", parser)
        options = [name for name in command._option_string_actions if name.startswith("--")]
        hints = [meant(word.partition("=")[0], options) for word in rest if word.startswith("--")]
        command.error(f"unrecognized arguments: {' '.join(rest)}{''.join(hints)}")
    return args


def _run(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    args = _parse(parser, sys.argv[1:] if arguments is None else arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = partial(_show_warning, parser.prog, warnings.showwarning)
            return int(args.action(args))
    except KeyboardInterrupt:
        print(f"{parser.prog}: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read the output has had enough (mtt check | head); Python must not try again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        # Our own errors and the file system's are for the user; anything else is a bug and keeps its traceback.
        if type(error).__module__.partition(".")[0] not in OUR_PACKAGES and not isinstance(error, OSError):
            raise
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2


_COMMANDS = (
    *(_add_demo, _add_data, _add_models, _add_profiles, _add_train, _add_evaluate, _add_export),
    *(_add_check, _add_simulate, _add_cost, _add_sweep, _add_bench),
)


def parsers() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """The parsers of `mtt` and `mtt-export`."""
    mtt = _Parser(
        prog="mtt",
        description="Train a spiking neural network once and run it at any number of time steps.",
        epilog="Example: mtt demo\n\nThe examples in the help of all commands go together, in the order above.",
    )
    mtt.add_argument("--version", action="version", version=f"mtt-lava {version('mtt-lava')}")
    commands = mtt.add_subparsers(metavar="COMMAND", required=True)
    for add in _COMMANDS:
        add(commands)
    export = _Parser(
        prog="mtt-export",
        description="Write a trained run as a NetX HDF5 file for Lava and check it against a chip.",
        epilog="Example: mtt-export runs/digits digits.net --profile loihi2",
    )
    _add_export_arguments(export)
    return mtt, export


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `mtt`; returns the exit code."""
    return _run(parsers()[0], arguments)


def export_main(arguments: Sequence[str] | None = None) -> int:
    """Run `mtt-export`; returns the exit code."""
    return _run(parsers()[1], arguments)
