"""Commands about networks in NetX files, ``simulate``, ``check`` and ``cost``; and ``lava``, in which they run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from mtt_lava.cli import kinds
from mtt_lava.cli.parsing import Command, add_json, answer, check_file, load_torch, saying, takes_events


def _add_in_shape(parser: argparse.ArgumentParser, where: str = "") -> None:
    text = f"{where}shape of the input, for a file that does not state it"
    parser.add_argument("--in-shape", type=kinds.shape, metavar="C,H,W", help=text)


def _add_encode(parser: argparse.ArgumentParser) -> None:
    text = "fast, lava: INPUT holds values, which the file's input neurons make spikes of"
    parser.add_argument("--encode", action="store_true", default=None, help=text)


def _event_rules(profile: str | None) -> Any:
    import hw_profiles

    return None if profile is None else hw_profiles.load(profile).event_rules()


def _simulate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", metavar="NET", help="NetX file")
    parser.add_argument(
        "input",
        metavar="INPUT",
        help=".npy of integers, (N, C, H, W, T) or (N, F, T); event: .npz with integer arrays sample, t (us), c, y, x",
    )
    parser.add_argument(
        "--backend", type=kinds.backend, default="lava", metavar="NAME", help="fast, lava or event (default lava)"
    )
    parser.add_argument(
        "--output",
        required=True,
        type=kinds.file,
        metavar="OUT.npz",
        help="takes spikes and readout; event: counts, readout, first spikes",
    )
    parser.add_argument(
        "--record",
        default="",
        metavar="u,v,spikes",
        help="also record these for every layer (of sigma-delta ones sigma, act, residue, spikes); event: events",
    )
    parser.add_argument("--reset", choices=("subtract", "zero"), help="event: reset (default: that of profile or file)")
    parser.add_argument(
        "--clamp",
        action=argparse.BooleanOptionalAction,
        help="event: whether v stays above the negative threshold (default: with reset subtract)",
    )
    event_profile = "event: hardware profile whose neurons and states to use"
    parser.add_argument("--profile", type=kinds.profile, metavar="NAME", help=event_profile)
    _add_in_shape(parser, "event: ")
    _add_encode(parser)
    parser.add_argument("--time-limit", type=float, metavar="S", help="lava: seconds the run may take")
    parser.add_argument("--stock", action="store_true", default=None, help="lava: its own convolutions, slower")
    spread = parser.add_mutually_exclusive_group()
    spread.add_argument("--workers", type=int, metavar="N", help="spread the samples over N processes")
    spread.add_argument("--scheduler", metavar="ADDRESS", help="spread them over the Dask cluster at tcp://HOST:PORT")
    add_json(parser)


def _simulate(args: argparse.Namespace) -> int:
    check_file(args.network)
    from netx_export import NetworkError, limits
    from netx_export.simulation import load_inputs, simulate

    record = [part for part in args.record.split(",") if part]
    if takes_events(args.backend):
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
    what = "messages" if result.graded else "spikes"
    # Outputs that only integrate fire nothing, which is not silence.
    voltages = "; it reads out voltages" if not result.fired and result.readout.any() else ""
    lines = [f"{args.output}: {len(inputs)} samples, {result.fired:,} output {what}{voltages}", result.limits_text()]
    content = {"output": args.output, "backend": args.backend, "samples": len(inputs), f"output_{what}": result.fired}
    return answer(args, "\n".join(filter(None, lines)), content | {"limits": json.loads(limits.to_json(result.limits))})


SIMULATE = Command(
    "simulate",
    _simulate_arguments,
    _simulate,
    "Run a NetX file on integer input.",
    "mtt simulate digits.net input.npy --backend lava --output output.npz\n"
    "mtt simulate digits.net events.npz --backend event --output output.npz",
)


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
    return answer(args, "\n".join(filter(None, [*lines, result.limits_text()])), content)


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


def _draw_placement(placement: Any, path: str) -> None:
    from mtt_lava.pictures import plot_placement, save_picture

    save_picture(plot_placement(placement), Path(path))


def _check_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", metavar="NET", help="NetX file")
    profile = "a name or a TOML file (default: the one named in the file)"
    parser.add_argument("--profile", type=kinds.profile, metavar="NAME", help=profile)
    parser.add_argument("--time-steps", type=int, metavar="T", help="time steps a sample (default: those in the file)")
    _add_in_shape(parser)
    parser.add_argument("--input-payload", type=int, metavar="N", help="largest value in the input (1: binary spikes)")
    parser.add_argument("--picture", type=kinds.file, metavar="FILE.png", help="draw the chip with its cores filled")
    add_json(parser)


def _check(args: argparse.Namespace) -> int:
    check_file(args.network)
    import hw_profiles

    network, chip = _network_and_chip(args)
    time_steps = args.time_steps or network.info.get("time_steps")
    payload = args.input_payload or network.info.get("input_max")
    report = hw_profiles.check(network, chip, time_steps, payload)
    answer(args, report, report.to_dict())
    if args.picture:
        _draw_placement(report.placement, args.picture)
    return 0 if report.fits else 1


def _import_arguments(parser: argparse.ArgumentParser) -> None:
    text = ".nir of mtt-export, snnTorch, Norse, sinabs, ...; or weights.safetensors, with --model"
    parser.add_argument("network", metavar="FILE", help=text)
    text = "of a NIR file with integers: NetX file to write"
    parser.add_argument("net", nargs="?", type=kinds.file, metavar="OUT.net", help=text)
    text = "run folder to write, to be evaluated, exported and trained on (mtt train --from RUN)"
    parser.add_argument("--out", type=kinds.folder, metavar="RUN", help=text)
    others = "a NIR file of others: "
    text = others + "seconds a time step, where it has time constants (snnTorch and SpikingJelly 1e-4, Norse 1e-6)"
    parser.add_argument("--dt", type=float, metavar="S", help=text)
    text = others + "reset of neurons without v_reset (sinabs: subtract)"
    parser.add_argument("--reset", choices=("zero", "subtract"), help=text)
    text = others + "for OUT.net, round floating-point weights to N bits, with a scale a layer; spikes can differ"
    parser.add_argument("--bits", type=kinds.positive, metavar="N", help=text)
    text = "take also what neurons here do otherwise (OUT.net: leaks, which are truncated to integers); it is said"
    parser.add_argument("--allow-inexact", action="store_true", help=text)
    run = "with --out: "
    text = run + "the layers that a safetensors file is of: name of a model, or a TOML file"
    parser.add_argument("--model", metavar="MODEL", help=text)
    text = run + "what pools did where the weights were trained: sum, average or max (default sum)"
    parser.add_argument("--pools", choices=("sum", "average", "max"), help=text)
    text = run + "hardware profile (default loihi2, or speck2e where neurons reset by subtraction)"
    parser.add_argument("--profile", type=kinds.profile, metavar="NAME", help=text)
    text = run + "data set over which an ANN, biases to be absorbed, and states are measured"
    parser.add_argument("--data", metavar="NAME", help=text)
    parser.add_argument("--root", metavar="DIR", help=run + "folder of the data set")
    text = run + "for which biases of event data are right, and an ANN's rates are set (default of these 10)"
    parser.add_argument("--time-steps", type=kinds.positive, metavar="T", help=text)
    text = run + "what becomes of biases (default kept, with event data scaled)"
    parser.add_argument("--biases", choices=("kept", "scaled", "absorbed", "none"), help=text)
    text = run + "the weights are those of an ANN with ReLUs: let rates be its activations over --data"
    parser.add_argument("--ann", action="store_true", default=None, help=text)
    text = run + "of a layer's activations: what one spike a time step stands for (default 99.9)"
    parser.add_argument("--percentile", type=float, metavar="P", help=text)
    text = run + "what a count of 1 in a frame, or a pixel of 1, was to the ANN (default 1)"
    parser.add_argument("--input-scale", type=float, metavar="X", help=text)
    add_json(parser)


_OF_RUNS = ("model", "pools", "profile", "data", "root", "time_steps", "biases", "ann", "percentile", "input_scale")
"""Options of `mtt import` that are for run folders."""


def _import(args: argparse.Namespace) -> int:
    check_file(args.network)
    from netx_export import NetworkError

    if (args.net is None) == (args.out is None):
        raise NetworkError("name one thing to write: OUT.net, a NetX file, or --out RUN, a run folder")
    if args.out is not None:
        return _import_run(args)
    from netx_export import layer_table, nir, write

    for name in _OF_RUNS:
        if getattr(args, name) is not None:
            raise NetworkError(f"--{name.replace('_', '-')} is for run folders: name one with --out RUN")
    options = {name: getattr(args, name) for name in ("dt", "reset", "bits", "allow_inexact")}
    network = nir.read(args.network, **options)
    write(network, args.net)
    content = {"output": args.net, "layers": network.rows(), "reset": network.reset}
    return answer(args, f"{layer_table(network)}\n{args.net}: reset {network.reset}", content)


def _import_run(args: argparse.Namespace) -> int:
    from mtt_lava.model import describe, load_model
    from netx_export import NetworkError

    if args.bits is not None:
        raise NetworkError("--bits is for OUT.net: a run has as many bits as its chip's weights")
    given = {name: value for name in _OF_RUNS if (value := getattr(args, name)) is not None}
    if args.model is not None:
        given["model"] = load_model(args.model)
    if args.data is not None:
        from mtt_lava.data import open_dataset

        given["dataset"] = open_dataset(args.data, split="train", root=args.root)
    load_torch()
    from mtt_lava import import_network

    run = import_network(
        args.network, args.out, dt=args.dt, reset=args.reset, allow_inexact=args.allow_inexact, **given
    )
    assert run.imported is not None
    settings = run.settings
    lines = [describe(settings.model), *run.imported["notes"]]
    lines += [f"otherwise than there: {text}" for text in run.imported["differs"]]
    lines += [f"{settings.profile}: {text}" for text in settings.adaptations()]
    bits = settings.weight_bits
    lines.append(f"{args.out}: {run.network.weights:,} weights of {bits} bits for {settings.profile}")
    content = {"run": args.out, "weights": run.network.weights, "settings": settings.model_dump(mode="json")}
    return answer(args, "\n".join(lines), content | {"imported": run.imported})


IMPORT = Command(
    "import",
    _import_arguments,
    _import,
    "Make a NetX file of a NIR file, if its weights are integers or are to be rounded; or a run, to be trained on, of "
    "a NIR file or of weights in safetensors.",
    "mtt import digits.nir imported.net\nmtt import digits.nir --out runs/imported",
)


CHECK = Command(
    "check",
    _check_arguments,
    _check,
    "Whether a NetX file fits a chip: exit code 0 fits, 1 does not, 2 error.",
    "mtt check digits.net --profile loihi2",
)


def _cost_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", metavar="NET", help="NetX file")
    parser.add_argument("input", metavar="INPUT", help="as for mtt simulate")
    profile = "a name or a TOML file (default: the one named in the file)"
    parser.add_argument("--profile", type=kinds.profile, metavar="NAME", help=profile)
    parser.add_argument(
        "--backend", type=kinds.backend, default="fast", metavar="NAME", help="fast, lava or event (default fast)"
    )
    _add_in_shape(parser, "event: ")
    _add_encode(parser)
    parser.add_argument(
        "--sanafe", action="store_true", help="second opinion of SANA-FE on the first sample (Loihi 1; extra 'sanafe')"
    )
    parser.add_argument("--picture", type=kinds.file, metavar="FILE.png", help="draw the chip with its cores filled")
    add_json(parser)


def _cost(args: argparse.Namespace) -> int:
    check_file(args.network)
    import hw_profiles
    from netx_export import NetworkError
    from netx_export.activity import measure
    from netx_export.event.backend import load_events
    from netx_export.simulation import load_inputs

    event = takes_events(args.backend)
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
        with saying("running SANA-FE"):
            opinion = sanafe(network, placement, inputs[0], first)
    content = {"cost": result.to_dict(), "placement": placement.to_dict()}
    content |= {"sanafe": opinion.to_dict()} if opinion else {}
    answer(args, "\n".join(str(part) for part in (result, placement, opinion) if part is not None), content)
    if args.picture:
        _draw_placement(placement, args.picture)
    return 0


COST = Command(
    "cost",
    _cost_arguments,
    _cost,
    "What input costs on a chip: runs it, counts every spike, and estimates operations, messages, energy and time.",
    "mtt cost digits.net input.npy --profile loihi1",
)


def _lava_setup_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--python", metavar="PATH", help="a Python 3.10 (default: what uv finds, or downloads)")


def _lava_setup(args: argparse.Namespace) -> int:
    from netx_export.lava.interpreter import setup

    with saying("making an environment for Lava (some 3 GB of downloads)", everywhere=True):
        python = setup(args.python)
    print(f"{python}: Lava runs here from now on")
    return 0


def _lava_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    Command(
        "setup",
        _lava_setup_arguments,
        _lava_setup,
        "Make an environment with Python 3.10 for Lava, with uv: only needed where this Python is a newer one.",
        "mtt lava setup",
    ).add(actions)


LAVA = Command("lava", _lava_arguments, None, "Where Lava runs.")
