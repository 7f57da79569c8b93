"""The command that answers while events arrive: ``stream``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mtt_lava.cli import kinds
from mtt_lava.cli.parsing import Command, add_json, answer, check_file


def _stream_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", metavar="NET", help="NetX file")
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a recording (as for mtt data); EVENTS.npz, whose samples follow each other; a folder, whose recordings "
        "are run as they appear; tcp://HOST:PORT; dv://HOST:PORT (AEDAT 4) and camera:// (extra 'live')",
    )
    text = "a recording N times as fast as it was (default 1; 0: as fast as it can be run)"
    parser.add_argument("--speed", type=float, default=1.0, metavar="N", help=text)
    text = "microseconds of a recording that arrive together (default 1000)"
    parser.add_argument("--packet", type=kinds.positive, default=1000, metavar="US", help=text)
    text = "a folder is done with after so many seconds without news (default: never)"
    parser.add_argument("--idle", type=float, metavar="S", help=text)
    parser.add_argument("--crop", type=kinds.crop, metavar="X,Y,W,H", help="see only this part of the sensor")
    smaller = parser.add_mutually_exclusive_group()
    text = "N columns and rows of the sensor become one, every event passes"
    smaller.add_argument("--pool", type=kinds.positive, default=1, metavar="N", help=text)
    text = "the same, and of N * N events of such a pixel one passes"
    smaller.add_argument("--downsample", type=kinds.positive, default=1, metavar="N", help=text)
    parser.add_argument(
        "--queue", type=kinds.positive, default=100_000, metavar="N", help="events that may wait (default 100000)"
    )
    text = "when so many wait: drop the oldest (default), thin out evenly, or end with an error"
    parser.add_argument("--when-full", choices=("oldest", "thin", "error"), default="oldest", help=text)
    forget = parser.add_mutually_exclusive_group()
    text = "answers count output events of the last US microseconds only (default: all)"
    forget.add_argument("--window", type=kinds.positive, metavar="US", help=text)
    forget.add_argument("--fade", type=float, metavar="US", help="output events count less with time: exp(-age / US)")
    text = "beside it, the same weights with a clock: T time steps over the --window before every answer"
    parser.add_argument("--clocked", type=kinds.positive, metavar="T", help=text)
    text = "as for mtt simulate; synaptic operations are compared with what this chip can do, where that is known"
    parser.add_argument("--profile", type=kinds.profile, metavar="NAME", help=text)
    text = "take up the state in this file, where there is one, and write it in the end"
    parser.add_argument("--state", type=kinds.file, metavar="FILE.npz", help=text)
    parser.add_argument("--changes", action="store_true", help="print the answer whenever it changes")
    text = "show it in a browser, on this machine's loopback only (default port: any that is free)"
    parser.add_argument("--page", nargs="?", const=0, type=int, metavar="PORT", help=text)
    add_json(parser)


def _stream(args: argparse.Namespace) -> int:
    check_file(args.network)
    import hw_profiles
    from mtt_lava.sources import StreamError, open_source
    from mtt_lava.stream import Clocked, Fit, Queue, Stream
    from netx_export import read
    from netx_export.event import Session
    from netx_export.text import UserError

    if args.clocked is not None and args.window is None:
        raise StreamError("--clocked needs --window US, the time that its T time steps share")
    network = read(args.network)
    profile = None if args.profile is None else hw_profiles.load(args.profile)
    chip = None if profile is None else profile.event_rules()
    window = args.window
    if args.clocked is not None and network.readout == "voltage":
        # Voltages cannot be counted over a window, which then is the clock's alone.
        print("mtt: the network reads out voltages: without a clock it answers from all events", file=sys.stderr)
        window = None
    session = Session(network, chip, window=window, fade=args.fade)
    if args.state is not None and Path(args.state).exists():
        session.restore(args.state)
    source = open_source(args.source, speed=args.speed, packet=args.packet, idle=args.idle)
    fit = Fit(network.in_shape, args.crop, args.pool, args.downsample)
    queue = Queue(args.queue, args.when_full)
    clocked = None if args.clocked is None else Clocked(network, args.clocked, args.window)
    stream = Stream(session, source, fit, queue, clocked, profile, lambda line: print(f"mtt: {line}", file=sys.stderr))
    page = None
    if args.page is not None:
        from mtt_lava.live import Page

        page = Page(stream, args.page)
        print(f"page: {page.address}", file=sys.stderr, flush=True)
    error, last = None, None
    try:
        for each in stream:
            if args.changes and args.json != "-" and (last is None or each.winners != last.winners):
                print(each, flush=True)
            last = each
    except (UserError, OSError) as reason:
        error = reason
    except KeyboardInterrupt:  # how a live source ends
        pass
    finally:
        if args.state is not None:
            session.save(args.state)
        if page is not None:
            page.end(last)
    answer(args, stream.report, stream.report.to_dict())
    if error is not None:
        raise error
    return 0


STREAM = Command(
    "stream",
    _stream_arguments,
    _stream,
    "Answer while events arrive: runs a network without a clock on a recording at its own speed, a folder being "
    "written, or a live source.",
    "mtt stream digits.net events.npz --speed 0\n"
    "mtt stream digits.net events.npz --speed 20 --window 100000 --clocked 5",
)
