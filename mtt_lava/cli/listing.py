"""Commands that show what there is: ``data``, ``models`` and ``profiles``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mtt_lava.cli import kinds
from mtt_lava.cli.parsing import Command, add_json, answer


def _data_arguments(parser: argparse.ArgumentParser) -> None:
    from mtt_lava.data import DATASETS

    parser.add_argument(
        "data",
        metavar="NAME",
        help=f"{', '.join(DATASETS)}; a folder of recordings (train and test, or a share held out, with "
        "a folder for each class: .npy, .npz, .csv, .h5, N-MNIST's .bin; with the extra 'recordings' .aedat4, .dat, "
        ".raw, .es), which may hold a data.toml; such a .toml file (path, train, test, classes, sensor_size, duration, "
        "start, unit, unwrap, columns, test_share, seed, name); or module:function, which is called with split='train' "
        "or 'test' and returns a data set",
    )
    parser.add_argument("--root", metavar="DIR", help="folder of the data set")
    parser.add_argument("--split", choices=("train", "test"), help="show and write this one (default: show both)")
    parser.add_argument(
        "--beside",
        metavar="NAME",
        help="compare event rate, polarity and course with another data set, on as many recordings of each class as "
        "that has (mnist-camera beside nmnist: of the same digits)",
    )
    parser.add_argument("--beside-root", metavar="DIR", help="folder of that data set")
    add_json(parser)
    parser.add_argument("--picture", type=kinds.file, metavar="FILE.png", help="draw the first recording of each class")
    parser.add_argument(
        "--write-input",
        type=kinds.file,
        metavar="INPUT.npy",
        help="write frames of the test recordings (or of --split)",
    )
    parser.add_argument(
        "--time-steps", type=kinds.positive, default=10, metavar="T", help="of those frames (default 10)"
    )
    parser.add_argument(
        "--input-max", type=kinds.positive, metavar="N", help="cut counts above N in them (1: binary spikes)"
    )
    parser.add_argument(
        "--write-events", type=kinds.file, metavar="EVENTS.npz", help="write events of the same recordings"
    )
    parser.add_argument("--samples", type=kinds.positive, metavar="N", help="write the first N recordings only")


def _data(args: argparse.Namespace) -> int:
    from mtt_lava.data import compare, open_dataset, show, subset
    from mtt_lava.pictures import save_picture

    for path, ending in ((args.write_input, ".npy"), (args.write_events, ".npz")):
        if path:
            show.check_ending(path, ending)
    splits = [args.split] if args.split else ["train", "test"]
    opened = [open_dataset(args.data, split=split, root=args.root) for split in splits]
    if args.beside:
        others = [open_dataset(args.beside, split=split, root=args.beside_root) for split in splits]
        found = [compare.compare(*pair) for pair in zip(opened, others, strict=True)]
        text = "\n\n".join(f"{split}\n{each}" for split, each in zip(splits, found, strict=True))
        content = {split: each.to_dict() for split, each in zip(splits, found, strict=True)}
        return answer(args, text, {"data": args.data, "beside": args.beside, "splits": content})
    summaries = [show.summary(dataset) for dataset in opened]
    written = {}
    chosen = opened[-1] if args.samples is None else subset(opened[-1], range(min(args.samples, len(opened[-1]))))
    if args.picture:
        save_picture(show.plot_classes(opened[0]), Path(args.picture))
        written[args.picture] = "the first recording of each class"
    if args.write_input:
        shape = show.write_input(chosen, args.write_input, args.time_steps, args.input_max)
        written[args.write_input] = f"{chosen.split} frames, (N, C, H, W, T) = {shape}"
    if args.write_events:
        count = show.write_events(chosen, args.write_events)
        written[args.write_events] = f"{count:,} events of {len(chosen):,} {chosen.split} recordings"
    lines = ["\n\n".join(map(str, summaries)), *(f"{path}: {what}" for path, what in written.items())]
    content = {each.split: each.to_dict() for each in summaries}
    return answer(args, "\n".join(lines), {"data": args.data, "splits": content, "written": written})


DATA = Command(
    "data",
    _data_arguments,
    _data,
    "What is in a data set, and inputs for mtt simulate and mtt cost: numbers, a picture, frames, events.",
    "mtt data digits-dvs --picture digits.png --write-input input.npy --write-events events.npz --samples 20",
)


def _models_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", metavar="NAME", help="a name or a TOML file")
    add_json(parser)
    parser.add_argument("--schema", action="store_true", help="print the JSON schema of model files, for editors")


def _models(args: argparse.Namespace) -> int:
    from mtt_lava.model import Model, describe, load_model, model_names

    if args.schema:
        print(json.dumps(Model.model_json_schema(), indent=2))
        return 0
    if args.model is not None:
        model = load_model(args.model)
        return answer(args, describe(model), model.model_dump(mode="json"))
    models = [load_model(name) for name in model_names()]
    lines = "\n".join(f"{each.name}: {each.weights:,} weights, input {[*each.input]}" for each in models)
    return answer(args, lines, {each.name: each.weights for each in models})


MODELS = Command(
    "models",
    _models_arguments,
    _models,
    "The networks that come with the package, or the layers of one of them or of a TOML file.",
    "mtt models nmnist-3c1fc",
)


def _profiles_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("profile", nargs="?", metavar="NAME", help="a name or a TOML file")
    add_json(parser)
    parser.add_argument("--schema", action="store_true", help="print the JSON schema of profile files, for editors")


def _profiles(args: argparse.Namespace) -> int:
    import hw_profiles

    if args.schema:
        print(json.dumps(hw_profiles.json_schema(), indent=2))
        return 0
    if args.profile is not None:
        profile = hw_profiles.load(args.profile)
        return answer(args, hw_profiles.describe(profile), profile.model_dump(mode="json"))
    profiles = [hw_profiles.load(name) for name in hw_profiles.names()]
    width = max(len(profile.name) for profile in profiles)
    lines = "\n".join(f"{profile.name.ljust(width)}  {profile.title}" for profile in profiles)
    return answer(args, lines, {profile.name: profile.title for profile in profiles})


PROFILES = Command(
    "profiles",
    _profiles_arguments,
    _profiles,
    "The hardware profiles, or one with its sources.",
    "mtt profiles loihi1",
)
