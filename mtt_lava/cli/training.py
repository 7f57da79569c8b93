"""``mtt train``, and the flags of all commands that train: the fields of `mtt_lava.Settings`."""

from __future__ import annotations

import argparse
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from mtt_lava.cli import kinds
from mtt_lava.cli.parsing import Command, add_json, answer, load_torch


def _types(annotation: Any) -> list[Any]:
    """What a value can be, None apart, without the checks that stand beside it."""
    if get_origin(annotation) is Annotated:
        return _types(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [one for part in get_args(annotation) for one in _types(part)]
    return [] if annotation is NoneType else [annotation]


def _add_field(parser: argparse.ArgumentParser, name: str, field: Any, default: Any) -> None:
    """A flag from a field of `Settings`; none for what is a model of its own."""
    types, shown, what = _types(field.annotation), field.json_schema_extra or {}, field.description or ""
    flag = (shown.get("flag") or name).replace("_", "-")
    if types == [bool]:
        action, text = ("store_false", f"without {what}") if default else ("store_true", what)
        parser.add_argument(f"--{'no-' * default}{flag}", dest=name, action=action, default=default, help=text)
    elif not any(hasattr(one, "model_fields") for one in types):
        options: dict[str, Any] = {"required": field.is_required() and default is None, "default": default}
        if [get_origin(one) for one in types] == [Literal]:
            options["choices"] = get_args(types[0])
        elif len(types) == 1:
            options["type"] = types[0]
        options["metavar"] = shown.get("metavar") or {int: "N", float: "X"}.get(options.get("type", str))
        said = "" if default is None else f" (default {f'{default:g}' if isinstance(default, float) else default})"
        parser.add_argument(f"--{flag}", dest=name, help=(what + said).replace("%", "%%"), **options)
        if (off := shown.get("off")) is not None:
            given: dict[str, Any] = {"action": "store_const", "const": off, "default": argparse.SUPPRESS}
            parser.add_argument(f"--no-{flag}", dest=name, help=f"--{flag} {off}", **given)


def add_training(parser: argparse.ArgumentParser, without: tuple[str, ...] = (), **defaults: Any) -> None:
    """What every command that trains takes: the fields of `mtt_lava.Settings`, with other defaults where given."""
    from mtt_lava import Settings

    for name, field in Settings.model_fields.items():
        if name not in (*without, "start"):
            given = None if field.is_required() or field.default_factory else field.default
            _add_field(parser, name, field, defaults.get(name, given))


def chosen(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of `mtt_lava.Settings` that have flags."""
    from mtt_lava import Settings

    return {name: value for name, value in vars(args).items() if name in Settings.model_fields and name != "model"}


def settings_of(args: argparse.Namespace, **more: Any) -> Any:
    from mtt_lava import Settings
    from mtt_lava.run import RunError

    start = getattr(args, "start", None)
    if start is None and args.model is None:
        raise RunError("no model: name one, as nmnist-3c1fc, or a run to go on from, with --from RUN")
    if start is not None:
        if args.model is not None or args.width is not None:
            raise RunError(f"--from {start}: has its model: leave MODEL and --width out")
        # What the run says itself is taken from there, unless asked for otherwise.
        defaults = {name: Settings.model_fields[name].default for name in ("profile", "norm", "biases")}
        given = {name: value for name, value in chosen(args).items() if name != "start"}
        given = {name: value for name, value in given.items() if name not in defaults or value != defaults[name]}
        return Settings.tune(start, **given | more)
    return Settings.make(args.model, width=getattr(args, "width", None), **chosen(args) | more)


def training_data(settings: Any) -> Any:
    """The data that settings name: opened before torch is loaded, which takes longer."""
    from mtt_lava.data import open_dataset

    return open_dataset(settings.data, split="train", root=settings.root)


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", metavar="MODEL", help="name of a model, or a TOML file; with --from none")
    parser.add_argument("--width", type=float, metavar="W", help="so many times the model's channels (default 1)")
    parser.add_argument("--out", required=True, type=kinds.folder, metavar="RUN", help="run folder to write")
    parser.add_argument("--resume", action="store_true", help="go on where the run in --out was stopped")
    text = "share every batch among N devices of this machine; under torchrun leave it out (default 1)"
    parser.add_argument("--devices", type=kinds.positive, default=1, metavar="N", help=text)
    text = "auto, cpu or cuda (default auto: GPUs where there are any)"
    parser.add_argument("--accelerator", choices=("auto", "cpu", "cuda"), default="auto", metavar="A", help=text)
    text = "also write losses and accuracies into the folder logs of the run: csv, tensorboard"
    parser.add_argument("--log", type=lambda names: names.split(","), default=[], metavar="L,L", help=text)
    add_training(parser)
    from mtt_lava import Settings

    _add_field(parser, "start", Settings.model_fields["start"], None)
    add_json(parser)


def _train(args: argparse.Namespace) -> int:
    from mtt_lava.run import kept_chip

    # A run that is resumed needs its profile no more: it may be edited or gone.
    kept = kept_chip(args.out, args.profile) if args.resume else None
    settings = settings_of(args, **{"chip": kept} if kept is not None else {})
    dataset = training_data(settings)
    load_torch()
    import hw_profiles
    from mtt_lava import to_network, train

    where = {"devices": args.devices, "accelerator": args.accelerator, "log": args.log}
    run = train(settings, args.out, dataset, resume=args.resume, **where)
    last = run.metrics[-1]
    lines = [
        f"{args.out}: {run.network.weights:,} weights; last epoch of training: loss {last['loss']:.3f}, "
        f"accuracy {last['accuracy']:.1%} (silent {last['silent']:.1%}, tied {last['tied']:.1%})"
    ]
    checked = [line for line in run.metrics if "validation" in line and line["phase"] == "quantised"]
    if checked:
        held = {line["epoch"]: line["validation"]["accuracy"] for line in checked}
        best = max(held, key=lambda epoch: held[epoch])
        lines.append(
            f"validation: last epoch {held[last['epoch']]:.1%}, which counts; best quantised one {held[best]:.1%} at "
            f"epoch {best}, kept as {args.out}/best.safetensors"
        )
    report = hw_profiles.check(to_network(run), settings.chip, settings.time_steps, settings.input_max)
    lines.append(f"{str(report).splitlines()[0]}; {str(report.placement).splitlines()[0]}")
    content = {"run": args.out, "weights": run.network.weights, "settings": settings.model_dump(mode="json")}
    return answer(args, "\n".join(lines), content | {"metrics": run.metrics, "report": report.to_dict()})


TRAIN = Command(
    "train",
    _train_arguments,
    _train,
    "Train a network and write a run folder.",
    "mtt train nmnist-3c1fc --data digits-dvs --method mtt --epochs 12 --out runs/digits\n"
    "mtt train --from runs/digits --data digits-dvs --method mtt --epochs 2 --out runs/further",
)
