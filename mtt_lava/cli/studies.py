"""Commands that train and measure at length: ``bench`` and ``demo``."""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout
from pathlib import Path

from mtt_lava.cli import kinds
from mtt_lava.cli.parsing import Command, add_json, answer, check_run, load_torch, saying
from mtt_lava.cli.runs import add_data, open_asked, open_run
from mtt_lava.cli.training import add_training, chosen, settings_of, training_data


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="nmnist-3c1fc", metavar="MODEL", help="default nmnist-3c1fc")
    parser.add_argument("--width", type=float, metavar="W", help="so many times the model's channels (default 1)")


def _bench_methods_arguments(parser: argparse.ArgumentParser) -> None:
    _add_model(parser)
    text = "default sdt,mtt; with -steps behind it by the loss of every time step, as mtt-steps"
    parser.add_argument("--methods", default="sdt,mtt", metavar="M,M,...", help=text)
    parser.add_argument("--seeds", type=kinds.seeds, default=[0, 1, 2], metavar="S,S,...", help="default 0,1,2")
    _add_more(parser)
    parser.add_argument(
        "--at",
        type=kinds.steps,
        default=[1, 2, 4, 6, 8, 10, 15, 20, 30, 50, 100],
        metavar="T,T,...",
        help="evaluated at these",
    )
    parser.add_argument(
        "--out", required=True, type=kinds.folder, metavar="DIR", help="folder of the run folders and the picture"
    )
    add_json(parser)
    add_training(parser, without=("method", "seed"))


def _bench_methods(args: argparse.Namespace) -> int:
    from mtt_lava import Settings

    ways = [Settings.way(name) for name in args.methods.split(",")]
    settings = [settings_of(args, **way, seed=seed) for way in ways for seed in args.seeds]
    dataset = training_data(settings[0])
    load_torch()
    from mtt_lava.studies.methods import methods

    result = methods(settings, args.at, Path(args.out), dataset, args.test_unseen)
    return answer(args, result, result.to_dict())


METHODS = Command(
    "methods",
    _bench_methods_arguments,
    _bench_methods,
    "Train by several methods and seeds and compare the accuracy at every number of time steps. Goes on where it "
    "was stopped.",
    "mtt bench methods --data digits-dvs --epochs 12 --seeds 0 --out runs/methods",
)


def _bench_simulate(args: argparse.Namespace) -> int:
    from mtt_lava.studies.simulators import simulators

    with saying("measuring, a few minutes", everywhere=True):
        result = simulators()
    return answer(args, result, result.to_dict())


SIMULATE = Command(
    "simulate",
    add_json,
    _bench_simulate,
    "Speed, memory and equality of the simulators: SLAYER, fast, lava with our convolutions and with its own.",
    "mtt bench simulate --json simulate.json",
)


def _add_parts(parser: argparse.ArgumentParser) -> None:
    parts = parser.add_mutually_exclusive_group()
    parts.add_argument("--folds", type=int, default=5, metavar="N", help="of all recordings (default 5)")
    text = "train on the data set's own split instead, once with each of these"
    parts.add_argument("--seeds", type=kinds.seeds, default=[], metavar="S,S,...", help=text)


def _add_more(parser: argparse.ArgumentParser) -> None:
    text = "test also on N training recordings that no run sees (of several seeds, not of folds)"
    parser.add_argument("--test-unseen", type=kinds.positive, default=0, metavar="N", help=text)


def _bench_paper_arguments(parser: argparse.ArgumentParser) -> None:
    _add_model(parser)
    text = "those that do not mix without and with the spike penalty (default sdt,sdt-sparse,nmt,mtt, the paper's)"
    parser.add_argument("--methods", default="sdt,sdt-sparse,nmt,mtt", metavar="M,M,...", help=text)
    _add_parts(parser)
    _add_more(parser)
    parser.add_argument(
        "--out", required=True, type=kinds.folder, metavar="DIR", help="folder of the run folders and the picture"
    )
    add_json(parser)
    rates = {"epochs": 100, "fine_tune": 0.7, "learning_rate": 6e-3, "fine_tune_rate": 4e-3}
    add_training(parser, ("method",), profile="speck2e", finer=4, spike_penalty=0.2, norm="scale", **rates)


def _bench_paper(args: argparse.Namespace) -> int:
    settings = settings_of(args)
    training_data(settings)
    load_torch()
    from mtt_lava.studies.paper import paper

    parts = {"count": args.folds, "seeds": args.seeds, "more": args.test_unseen}
    result = paper(settings, Path(args.out), args.methods.split(","), **parts)
    return answer(args, result, result.to_dict())


PAPER = Command(
    "paper",
    _bench_paper_arguments,
    _bench_paper,
    "The paper's headline result: SDT, NMT and MTT from one base network, clocked at every T and without a clock, "
    "in folds over all recordings or on the data set's own split. Goes on where it was stopped.",
    "mtt bench paper --data digits-dvs --methods sdt,mtt --folds 2 --epochs 8 --out runs/paper\n"
    "mtt export runs/paper/0/mtt digits.py --for speck",
)


def _bench_depth_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--depths", type=kinds.steps, default=[3, 5, 7, 9], metavar="N,N,...", help="default 3,5,7,9")
    names = "loihi1,loihi2,speck2e"
    parser.add_argument(
        "--profiles", type=kinds.profiles, default=names.split(","), metavar="P,P,...", help=f"default {names}"
    )
    parser.add_argument("--methods", default="sdt,mtt", metavar="M,M,...", help="default sdt,mtt")
    parser.add_argument("--width", type=int, default=8, metavar="N", help="channels of the first one (default 8)")
    parser.add_argument("--out", required=True, type=kinds.folder, metavar="DIR", help="folder of the run folders")
    add_json(parser)
    add_training(parser, ("method", "profile"), data="digits-dvs", samples=600, epochs=10, time_steps=6)


def _bench_depth(args: argparse.Namespace) -> int:
    from mtt_lava.data import open_dataset

    open_dataset(args.data, split="train", root=args.root)
    load_torch()
    from mtt_lava.studies.depth import depths

    result = depths(Path(args.out), args.depths, args.profiles, args.methods.split(","), args.width, **chosen(args))
    return answer(args, result, result.to_dict())


DEPTH = Command(
    "depth",
    _bench_depth_arguments,
    _bench_depth,
    "Plain stacks of 3, 5, 7 and 9 convolutions for every chip by SDT and MTT: which train, which die. Goes on "
    "where it was stopped.",
    "mtt bench depth --depths 3,5 --profiles loihi2 --epochs 4 --out runs/depth",
)


def _bench_events(args: argparse.Namespace) -> int:
    from mtt_lava.studies.events import events

    with saying("measuring, about a minute", everywhere=True):
        result = events()
    return answer(args, result, result.to_dict())


EVENTS = Command(
    "events",
    add_json,
    _bench_events,
    "Speed of the event-driven simulator: synaptic operations per second, beside a bare vector add.",
    "mtt bench events --json events.json",
)


def _bench_train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--repeats", type=kinds.positive, default=5, metavar="N", help="of each step, in turns (default 5)"
    )
    names = "vgg,small,growth"
    parser.add_argument("--only", default=names, metavar="PART,...", help=f"some of {names} (default all)")
    parser.add_argument("--device", default="cpu", metavar="D", help="cpu, cuda or cuda:N (default cpu)")
    text = "the Python of an environment with torch and any of spikingjelly, snntorch, sinabs, norse: measures them too"
    parser.add_argument("--peers", metavar="PYTHON", help=text)
    add_json(parser)


def _bench_train(args: argparse.Namespace) -> int:
    load_torch()
    from mtt_lava.studies.bench_train import steps

    result = steps(args.only.split(","), args.repeats, args.device, args.peers)
    return answer(args, result, result.to_dict())


TRAIN = Command(
    "train",
    _bench_train_arguments,
    _bench_train,
    "Time and memory of a training step: both phases, all norms and resets, SDT and MTT, beside bare convolutions, an "
    "ANN, a plain PyTorch loop, SLAYER's own blocks and other libraries.",
    "mtt bench train --only small --json train.json",
)


def _bench_mixing_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="nmnist-3c1fc", metavar="MODEL", help="default nmnist-3c1fc")
    text = (
        "ways to draw, as antithetic:2 or independent:3+ends (with T and T_MIN everywhere), antithetic:4+shared "
        "(which share out a batch) or antithetic:2+packed (in one pass); default: seven"
    )
    parser.add_argument("--samplers", metavar="D:S,...", help=text)
    parser.add_argument("--folds", type=int, default=5, metavar="N", help="default 5")
    text = "run all folds once with each of these (default 0)"
    parser.add_argument("--seeds", type=kinds.seeds, default=[0], metavar="S,S,...", help=text)
    parser.add_argument("--out", required=True, type=kinds.folder, metavar="DIR", help="folder of the run folders")
    add_json(parser)
    add_training(parser, ("method", "draws", "configurations", "sandwich", "shared", "packed", "seed"), epochs=60)


def _bench_mixing(args: argparse.Namespace) -> int:
    settings = settings_of(args)
    training_data(settings)
    load_torch()
    from mtt_lava.studies.mixing import SAMPLERS, mixing

    samplers = args.samplers.split(",") if args.samplers else SAMPLERS
    result = mixing(settings, Path(args.out), samplers, count=args.folds, seeds=args.seeds)
    return answer(args, result, result.to_dict())


MIXING = Command(
    "mixing",
    _bench_mixing_arguments,
    _bench_mixing,
    "Ways to draw the configurations of Mixed Time-step Training: cost of a step, and accuracy at every T, in folds "
    "over all recordings. Goes on where it was stopped.",
    "mtt bench mixing --data digits-dvs --samplers antithetic:2 --folds 2 --epochs 4 --out runs/mixing",
)


def _bench_exit_arguments(parser: argparse.ArgumentParser) -> None:
    _add_model(parser)
    _add_parts(parser)
    text = "at most so many time steps (default: those of training)"
    parser.add_argument("--at", type=kinds.positive, metavar="T", help=text)
    parser.add_argument(
        "--exit-loss", type=float, default=0.5, metavar="POINTS", help="accuracy that may be lost (default 0.5)"
    )
    text = (
        "with --seeds: choose on N training recordings that the runs do not see, instead of on halves of the test data"
    )
    parser.add_argument("--unseen", type=kinds.positive, metavar="N", help=text)
    parser.add_argument("--out", required=True, type=kinds.folder, metavar="DIR", help="folder of the run folders")
    add_json(parser)
    add_training(parser)


def _bench_exit(args: argparse.Namespace) -> int:
    settings = settings_of(args)
    training_data(settings)
    load_torch()
    from mtt_lava.studies.exits import leaving

    parts = {"count": args.folds, "seeds": args.seeds, "held": args.unseen}
    result = leaving(settings, Path(args.out), args.at, args.exit_loss / 100, **parts)
    return answer(args, result, result.to_dict())


EXIT = Command(
    "exit",
    _bench_exit_arguments,
    _bench_exit,
    "Early exit by every rule: time steps, energy and accuracy, in folds over all recordings, each with the threshold "
    "chosen on the others; or with seeds on the data set's own split. Goes on where it was stopped.",
    "mtt bench exit --data digits-dvs --folds 2 --epochs 8 --out runs/exit",
)


def _bench_realtime_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders, as of SDT and MTT; the last is streamed")
    add_data(parser)
    parser.add_argument("--samples", type=kinds.positive, metavar="N", help="only the first N test recordings")
    text = "with a clock: so many over the recording window (default 2,4,10)"
    parser.add_argument("--time-steps", type=kinds.steps, default=[2, 4, 10], metavar="T,T,...", help=text)
    parser.add_argument(
        "--exit-loss", type=float, default=0.5, metavar="POINTS", help="accuracy that an early answer may lose"
    )
    text = "chips whose energy is estimated, beside the runs' own (default loihi1)"
    parser.add_argument("--profiles", default="loihi1", metavar="NAME,...", help=text)
    text = "seconds of stream at true speed (default 10)"
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help=text)
    text = "hours of stream, run as fast as possible, for memory (default 1; 0: none)"
    parser.add_argument("--hours", type=float, default=1.0, metavar="H", help=text)
    parser.add_argument("--out", required=True, type=kinds.folder, metavar="DIR", help="folder of the picture")
    add_json(parser)


def _bench_realtime(args: argparse.Namespace) -> int:
    for run in args.runs:
        check_run(run)
    import hw_profiles

    profiles = [name for name in args.profiles.split(",") if name]
    for name in profiles:
        hw_profiles.load(name)
    load_torch()
    from mtt_lava import load_run
    from mtt_lava.data import subset
    from mtt_lava.studies.realtime import realtime

    runs = [load_run(run) for run in args.runs]
    dataset = open_asked(args, runs[0].settings)
    if args.samples is not None:
        dataset = subset(dataset, range(min(args.samples, len(dataset))))
    loss = args.exit_loss / 100
    result = realtime(runs, dataset, Path(args.out), args.time_steps, loss, profiles, args.seconds, args.hours)
    return answer(args, f"{result}\npicture: {Path(args.out) / 'realtime.png'}", result.to_dict())


REALTIME = Command(
    "realtime",
    _bench_realtime_arguments,
    _bench_realtime,
    "Answers while events arrive: accuracy at every moment with a clock and without, time and energy to an answer, "
    "and how fast events may come.",
    "mtt bench realtime runs/paper/0/sdt runs/paper/0/mtt --seconds 2 --hours 0 --out runs/realtime",
)


def _bench_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    _add_model(parser)
    text = "FIELD=VALUE of the settings, several joined by +, as finer=4+spike_penalty=0.2; for each change once"
    parser.add_argument("--change", type=kinds.change, action="append", required=True, metavar="F=V+...", help=text)
    _add_parts(parser)
    _add_more(parser)
    parser.add_argument(
        "--at", type=kinds.steps, default=[1, 2, 4, 6, 10, 20, 50, 100], metavar="T,T,...", help="evaluated at these"
    )
    parser.add_argument(
        "--out", required=True, type=kinds.folder, metavar="DIR", help="folder of the run folders and the picture"
    )
    add_json(parser)
    add_training(parser)


def _bench_recipe(args: argparse.Namespace) -> int:
    settings = settings_of(args)
    training_data(settings)
    load_torch()
    from mtt_lava.studies.recipe import recipe

    parts = {"count": args.folds, "seeds": args.seeds, "more": args.test_unseen}
    result = recipe(settings, Path(args.out), dict(args.change), args.at, **parts)
    return answer(args, result, result.to_dict())


RECIPE = Command(
    "recipe",
    _bench_recipe_arguments,
    _bench_recipe,
    "What each change of a recipe gains alone: trained with and without it, in folds over all recordings or with "
    "several seeds. Goes on where it was stopped.",
    "mtt bench recipe --data digits-dvs --change finer=4 --change loss=steps --folds 2 --epochs 4 --out runs/recipe",
)


def _bench_order_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="run folder of a network that counts output spikes")
    add_data(parser)
    text = "one an order (default 0,1,2,3,4)"
    parser.add_argument("--seeds", type=kinds.seeds, default=[0, 1, 2, 3, 4], metavar="S,S,...", help=text)
    add_json(parser)


def _bench_order(args: argparse.Namespace) -> int:
    run, dataset = open_run(args)
    from mtt_lava.studies.order import orders

    result = orders(run, dataset, args.seeds)
    return answer(args, result, result.to_dict())


ORDER = Command(
    "order",
    _bench_order_arguments,
    _bench_order,
    "How much the order of events is worth, which on a chip without a clock is not known: the test data run event by "
    "event, with random orders of what one event makes a layer emit.",
    "mtt bench order runs/paper/0/mtt --seeds 0,1,2",
)


def _bench_readers_arguments(parser: argparse.ArgumentParser) -> None:
    text = "as norse=/a/bin/python,sinabs=/b/bin/python: the Pythons that have them (default: MTT_LAVA_NIR_PYTHONS)"
    parser.add_argument("--pythons", metavar="R=P,...", help=text)
    add_json(parser)


def _bench_readers(args: argparse.Namespace) -> int:
    load_torch()
    from mtt_lava.studies.readers import named, readers

    pythons = named(args.pythons)
    with saying("running what is written in every reader, a minute"):
        result = readers(pythons)
    return answer(args, result, result.to_dict())


READERS = Command(
    "readers",
    _bench_readers_arguments,
    _bench_readers,
    "What programs that import NIR compute exactly: networks of every kind, run by themselves and compared spike for "
    "spike; or refused at export; or not run, where no Python of theirs is named.",
    "mtt bench readers --json readers.json",
)


def _bench_arguments(parser: argparse.ArgumentParser) -> None:
    benches = parser.add_subparsers(metavar="BENCH", required=True)
    for each in (METHODS, SIMULATE, PAPER, DEPTH, EVENTS, TRAIN, MIXING, EXIT, RECIPE, ORDER, READERS, REALTIME):
        each.add(benches)


BENCH = Command("bench", _bench_arguments, None, "Measure.")


def _demo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", default="demo", type=kinds.folder, metavar="DIR", help="folder to write (default demo)"
    )
    parser.add_argument(
        "--profile", type=kinds.profile, default="loihi2", metavar="NAME", help="hardware profile (default loihi2)"
    )
    add_json(parser)


def _demo(args: argparse.Namespace) -> int:
    load_torch()
    from mtt_lava.studies.demo import demo

    # What is under way is for people: where JSON is asked for on stdout, it goes to stderr.
    with redirect_stdout(sys.stderr if args.json == "-" else sys.stdout):
        result = demo(Path(args.out), args.profile)
    return answer(args, result, result.to_dict())


DEMO = Command(
    "demo",
    _demo_arguments,
    _demo,
    "The whole path on built-in data: train SDT and MTT, compare, export, prove on Lava, check; with pictures.",
    "mtt demo --out demo",
)
