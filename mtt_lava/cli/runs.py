"""Commands about trained runs: ``evaluate``, ``sweep`` and ``export``."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from mtt_lava.cli import kinds
from mtt_lava.cli.parsing import Command, add_json, answer, check_run, load_torch, takes_events


def open_run(args: argparse.Namespace) -> tuple[Any, Any]:
    """A run, and the test data asked for, or that of training (of a run trained from Python, perhaps without a name).

    What needs no torch comes first: a name that is wrong is said at once.
    """
    check_run(args.run)
    from mtt_lava.run import load_run, load_settings

    settings = load_settings(args.run)
    dataset = open_asked(args, settings)
    load_torch()
    return load_run(args.run), dataset


def open_asked(args: argparse.Namespace, settings: Any, split: str = "test") -> Any:
    """Of the data asked for, or of that of training."""
    from mtt_lava.data import open_dataset
    from mtt_lava.run import open_split

    if args.data:
        return open_dataset(args.data, split=split, root=args.root)
    return open_split(settings, args.root, split)


def add_data(parser: argparse.ArgumentParser) -> None:
    """Test data of another name or place than that of training: see `open_run`."""
    parser.add_argument("--data", metavar="NAME", help="data set (default: that of training)")
    parser.add_argument("--root", metavar="DIR", help="folder of the data set (default: that of training)")


def _evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="run folder")
    parser.add_argument("--time-steps", type=kinds.steps, metavar="T,T,...", help="default: T of training")
    text = "also with time steps of its own for every stage, as training has them; no chip does"
    parser.add_argument("--stages", type=kinds.steps, metavar="T,T,...", help=text)
    add_data(parser)
    parser.add_argument(
        "--backend",
        type=kinds.backend,
        metavar="NAME",
        help="fast or lava: run the exported network there and compare every spike; event: also run it without a "
        "clock, and show the spike difference of each T from that",
    )
    parser.add_argument("--samples", type=kinds.positive, metavar="N", help="only the first N test samples")
    parser.add_argument("--workers", type=int, metavar="N", help="fast, lava: spread the samples over N processes")
    text = "answer as soon as it is sure, by confidence, entropy or margin; backend event: by margin"
    parser.add_argument("--exit", metavar="RULE", help=text)
    parser.add_argument(
        "--exit-loss", type=float, default=0.5, metavar="POINTS", help="accuracy that --exit may lose (default 0.5)"
    )
    text = "--exit: how sure is sure enough is chosen on N training recordings that the run did not see (default: on "
    text += "halves of the test data, for each other)"
    parser.add_argument("--exit-unseen", type=kinds.positive, metavar="N", help=text)
    parser.add_argument(
        "--confusion", action="store_true", help="also print, for each T, which class was taken for which"
    )
    add_json(parser)


def _evaluate(args: argparse.Namespace) -> int:
    run, dataset = open_run(args)
    from mtt_lava import evaluate, prove
    from mtt_lava.data import subset
    from mtt_lava.evaluation import synops_table, table
    from mtt_lava.run import RunError

    if args.samples is not None:
        dataset = subset(dataset, range(min(args.samples, len(dataset))))
    steps = args.time_steps or [run.settings.time_steps]
    if args.stages and (args.exit is not None or not (args.backend is None or takes_events(args.backend))):
        raise RunError("--stages: only the trained network itself runs stages at a T of their own: leave out the rest")
    event_driven = takes_events(args.backend)
    if args.exit is not None:
        return _exit(args, run, dataset, steps)
    if args.backend is None or event_driven:
        more = [args.stages] if args.stages else []
        points = evaluate(run, [*steps, *more], dataset, event_driven=event_driven)
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
    return answer(args, "\n".join(lines), content | {"time_steps": [each.to_dict() for each in results]})


def _exit(args: argparse.Namespace, run: Any, dataset: Any, steps: list[int]) -> int:
    """evaluate --exit: on a clocked backend at each T, or without a clock."""
    from mtt_lava.early_exit import early_exit, early_exit_events
    from mtt_lava.run import RunError, unseen

    loss = args.exit_loss / 100
    held = unseen(run.settings, open_asked(args, run.settings, "train"), args.exit_unseen) if args.exit_unseen else None
    if takes_events(args.backend):
        if args.exit != "margin":
            raise RunError(f"without a clock only the lead of an output tells: --exit margin, not {args.exit!r:.40}")
        found = [early_exit_events(run, loss, dataset, unseen=held)]
    else:
        options = {"unseen": held, "backend": args.backend or "fast", "workers": args.workers}
        found = [early_exit(run, t, args.exit, loss, dataset, **options) for t in steps]
    return answer(args, "\n".join(map(str, found)), {"run": args.run, "exits": [each.to_dict() for each in found]})


EVALUATE = Command(
    "evaluate",
    _evaluate_arguments,
    _evaluate,
    "Accuracy and spikes of a run at any number of time steps; with a backend, the proof that it fires the same.",
    "mtt evaluate runs/digits --time-steps 1,2,4,10,100 --json points.json",
)


def _add_profile(parser: argparse.ArgumentParser) -> None:
    """--profile, which commands about runs have for another chip than that of training."""
    text = "a name or a TOML file (default: that of training)"
    parser.add_argument("--profile", type=kinds.profile, metavar="NAME", help=text)


def _sweep_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="run folder")
    _add_profile(parser)
    parser.add_argument(
        "--time-steps", type=kinds.steps, default=[1, 2, 4, 8, 16, 32], metavar="T,T,...", help="default 1,2,4,8,16,32"
    )
    add_data(parser)
    parser.add_argument(
        "--out", type=kinds.folder, metavar="DIR", help="folder to write: pictures, sweep.json, index.html"
    )
    add_json(parser)


def _sweep(args: argparse.Namespace) -> int:
    run, dataset = open_run(args)
    from mtt_lava import sweep

    result = sweep(run, args.time_steps, args.profile, dataset)
    page = [f"page: {result.save(Path(args.out))}"] if args.out else []
    return answer(args, "\n".join([str(result), *page]), result.to_dict())


SWEEP = Command(
    "sweep",
    _sweep_arguments,
    _sweep,
    "Energy against accuracy: accuracy, spikes, energy and time of a run at every number of time steps, and which "
    "of these are worth choosing.",
    "mtt sweep runs/digits --profile loihi1 --time-steps 1,2,4,8,16 --out sweep",
)


def _report_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="run folder")
    parser.add_argument("--out", type=kinds.file, metavar="FILE.html", help="page to write (default: RUN/report.html)")
    _add_profile(parser)
    text = "default: powers of two and T of training, up to four times that"
    parser.add_argument("--time-steps", type=kinds.steps, metavar="T,T,...", help=text)
    add_data(parser)
    parser.add_argument("--samples", type=kinds.positive, metavar="N", help="only the first N test samples")
    add_json(parser)


def _report(args: argparse.Namespace) -> int:
    run, dataset = open_run(args)
    from mtt_lava import report

    steps = ",".join(map(str, args.time_steps or []))
    given = {"profile": args.profile, "time-steps": steps, "data": args.data, "root": args.root}
    given |= {"samples": args.samples, "out": args.out}
    options = [word for name, value in given.items() if value for word in (f"--{name}", str(value))]
    command = shlex.join(["mtt", "report", args.run, *options])
    out = args.out or run.folder / "report.html"
    result = report(run, out, args.time_steps, args.profile, dataset, samples=args.samples, command=command)
    return answer(args, result, result.to_dict())


REPORT = Command(
    "report",
    _report_arguments,
    _report,
    "A run on one page: accuracy at any T and without a clock, answers, spikes, voltages, weights, chip and cost.",
    "mtt report runs/digits --out report.html",
)


SPECK = "speck"
"""What `export --for` calls a script for the chip, beside the readers of NIR."""


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="run folder")
    text = "file to write; OUT.nir: as NIR; OUT.py: as a script for Speck, with OUT.net beside it"
    parser.add_argument("out", type=kinds.file, metavar="OUT.net", help=text)
    text = "who is to import OUT.nir: sinabs, norse, snntorch, spikingjelly, or nir (the default); OUT.py: speck"
    parser.add_argument("--for", dest="reader", metavar="NAME", help=text)
    text = "OUT.nir: write neurons that leak, too, which readers compute without truncation to integers"
    parser.add_argument("--allow-inexact", action="store_true", help=text)
    _add_profile(parser)
    parser.add_argument("--time-steps", type=int, metavar="T", help="T that rescaled biases are written for")
    text = "threshold of a voltage readout, which must not spike (default 131071, the largest; silicon may want 65536)"
    parser.add_argument("--readout-threshold", type=int, metavar="N", help=text)
    add_json(parser)


def _export(args: argparse.Namespace) -> int:
    check_run(args.run)
    from mtt_lava.run import load_settings
    from netx_export import layer_table
    from netx_export.netx import in_lava

    reader = _reader(args)
    load_settings(args.run)
    load_torch()
    from mtt_lava import export, export_nir, export_speck, load_run

    run = load_run(args.run)
    options = (args.profile, args.time_steps, args.readout_threshold)
    notes: tuple[str, ...] = ()
    if reader is None:
        network, report = export(run, args.out, *options)
    elif reader == SPECK:
        network, report = export_speck(run, args.out, *options)
        notes = (f"with {Path(args.out).stem}.net; how to run it: python {args.out} --help",)
    else:
        network, report, notes = export_nir(run, args.out, reader, *options, allow_inexact=args.allow_inexact)
    lines = [layer_table(network), f"{args.out}: {run.network.weights:,} trained weights", str(report)]
    content = {"output": args.out, "trained_weights": run.network.weights, "layers": network.rows()}
    content |= {"report": report.to_dict()}
    if reader is None:
        lines.append(in_lava(network, args.out))
    else:
        lines += [f"{args.out}: for {reader}", *(f"  {note}" for note in notes)]
        content |= {"reader": reader, "notes": list(notes)}
    return answer(args, "\n".join(filter(None, lines)), content)


def _reader(args: argparse.Namespace) -> str | None:
    """Who is to read a NIR file or run a script; None where NetX is written."""
    stem, suffix = Path(args.out).stem, Path(args.out).suffix
    if suffix == ".nir" and args.reader != SPECK:
        from netx_export.nir.readers import find

        return find(args.reader or "nir").name
    from netx_export import NetworkError

    if args.reader == SPECK and suffix != ".py":
        raise NetworkError(f"--for {SPECK} writes a Python script: call the file {stem}.py")
    if args.allow_inexact or args.reader not in (None, SPECK):
        option = "--allow-inexact" if args.reader in (None, SPECK) else f"--for {args.reader}"
        raise NetworkError(f"{option} is for NIR files: call the file {stem}.nir")
    return SPECK if suffix == ".py" else None


EXPORT = Command(
    "export",
    _export_arguments,
    _export,
    "Write a trained run as a NetX HDF5 file for Lava, as NIR for other programs, or as a script for Speck, and check "
    "it against a chip (the same as mtt-export).",
    "mtt export runs/digits digits.net\nmtt export runs/digits digits.nir --for nir",
)
