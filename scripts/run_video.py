#!/usr/bin/env python3
"""Segment video as it comes: cameras, files, network streams or procedural streets."""

from __future__ import annotations

import argparse
import dataclasses
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.markup import escape

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.artifact import read_manifest
from pipeline.console import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    Parser,
    parse_shape,
    positive_int,
    print_json,
    run_command,
    say,
    stderr,
    warn,
)
from pipeline.engines.opening import SUFFIXES, find_engine, manifest_of, open_engine
from pipeline.engines.setups import Goal
from pipeline.errors import EdgeError, UsageError
from pipeline.tiles import DEFAULT_OVERLAP
from pipeline.video.draw import DEFAULT_OPACITY, Style, parse_classes
from pipeline.video.metrics import StreamStats
from pipeline.video.roi import parse_roi
from pipeline.video.session import Request, Session
from pipeline.video.sinks.window import display_available
from pipeline.video.source import SourceOptions, parse_source

ENGINES = Path(__file__).resolve().parent.parent / "engines"
COVER_SLOTS = 8
TOKEN_VARIABLE = "REPMLP_EDGE_HTTP_TOKEN"  # noqa: S105  # the variable's name, not a token


def build_parser() -> Parser:
    """Every option of the command."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "sources", nargs="+", metavar="SOURCE",
        help="cam0, a device, a file, a directory of pictures, an RTSP or HTTP URL, or "
        "streets[:SEED]; several share one engine",
    )  # fmt: skip
    parser.add_argument(
        "--engine", type=Path, metavar="PATH",
        help="engine to run (default: the newest in engines/ that fits this machine)",
    )  # fmt: skip
    parser.add_argument(
        "--threads",
        type=positive_int,
        default=0,
        metavar="N",
        help="CPU threads (default: as tuned, or all)",
    )
    parser.add_argument(
        "--streams", type=positive_int, default=0, metavar="N",
        help="frames computed at the same time on a CPU (default: as tuned; untuned, one where a "
        "source is live, for the least latency, else one for each core, for the most frames)",
    )  # fmt: skip
    parser.add_argument(
        "--allow-host-code", action="store_true",
        help="run the code that a version-compatible TensorRT engine carries; for your own only",
    )  # fmt: skip
    _add_output(parser)
    _add_reading(parser)
    _add_segmenting(parser)
    return parser


def _add_output(parser: Parser) -> None:
    group = parser.add_argument_group("where the result goes")
    group.add_argument("--output", type=Path, metavar="FILE.mp4", help="overlay video")
    group.add_argument("--labels", type=Path, metavar="DIR", help="label PNGs, as Cityscapes ids")
    group.add_argument(
        "--http", metavar="[HOST:]PORT",
        help="show it in browsers, with /metrics; on this machine alone unless a HOST is given, "
        f"and then with a token ({TOKEN_VARIABLE}, or one made up)",
    )  # fmt: skip
    group.add_argument("--headless", action="store_true", help="open no window")
    group.add_argument(
        "--snapshots", type=Path, default=Path(), metavar="DIR", help="where the key s saves to"
    )
    group.add_argument("--json", action="store_true", help="print the summary as JSON on stdout")
    group.add_argument(
        "--opacity", type=float, default=DEFAULT_OPACITY, help="0 to 1 (%(default)s)"
    )
    group.add_argument("--classes", metavar="A,B", help="draw only these, such as road,car")
    group.add_argument("--no-legend", action="store_true")
    group.add_argument("--patch-edges", action="store_true", help="draw the network's patches")


def _add_reading(parser: Parser) -> None:
    group = parser.add_argument_group("how sources are read")
    group.add_argument("--max-frames", type=positive_int, metavar="N", help="stop after N a source")
    group.add_argument("--max-latency", type=positive_float, metavar="MS",
                       help="leave out frames of live sources older than this")  # fmt: skip
    group.add_argument("--skip", type=natural, default=0, metavar="N",
                       help="leave out N frames between two (%(default)s)")  # fmt: skip
    group.add_argument("--loop", action="store_true", help="begin files anew at their end")
    group.add_argument(
        "--realtime", action="store_true", help="play files by their own clock, as if live"
    )
    group.add_argument(
        "--size", type=parse_shape, metavar="HxW", help="of a camera's or the streets' pictures"
    )
    group.add_argument("--rate", type=positive_float, metavar="FPS", help="asked of a camera")
    group.add_argument(
        "--open-timeout", type=positive_float, default=10.0, metavar="S", help="%(default)s"
    )
    group.add_argument(
        "--read-timeout", type=positive_float, default=5.0, metavar="S", help="%(default)s"
    )
    group.add_argument("--give-up", type=positive_float, metavar="S",
                       help="fail when a live source is away for longer")  # fmt: skip


def _add_segmenting(parser: Parser) -> None:
    group = parser.add_argument_group("what the network sees")
    group.add_argument("--roi", metavar="X,Y,W,H", help="segment this part, in pixels or per cent")
    group.add_argument(
        "--tiles", choices=("fit", "cover"), default="fit",
        help="fit the frame into one tile, or cover it with several (%(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--overlap", type=float, default=DEFAULT_OVERLAP, help="of tiles (%(default)s)"
    )
    group.add_argument("--scale", type=float, default=1.0, help="of the frame under its tiles")


def positive_float(text: str) -> float:
    """A number above 0; for argparse's ``type``."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number above 0")
    return value


def natural(text: str) -> int:
    """A whole number from 0 up; for argparse's ``type``."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number")
    return int(text)


def read_request(options: argparse.Namespace) -> Request:
    """What the options ask for. Raises an ``EdgeError`` naming the one at fault."""
    address, token = None, None
    if options.http is not None:
        from pipeline.video.sinks.http import parse_address

        address, token = parse_address(options.http), os.environ.get(TOKEN_VARIABLE)
    classes = parse_classes(options.classes) if options.classes else None
    return Request(
        sources=[parse_source(text) for text in options.sources],
        source_options=SourceOptions(
            open_timeout=options.open_timeout, read_timeout=options.read_timeout,
            size=options.size, rate=options.rate, loop=options.loop, realtime=options.realtime,
            give_up=options.give_up,
        ),
        output=options.output,
        labels=options.labels,
        http=address,
        token=token,
        window=not options.headless and display_available(),
        snapshots=options.snapshots,
        style=Style(opacity=options.opacity, classes=classes, legend=not options.no_legend),
        max_frames=options.max_frames,
        max_latency=options.max_latency / 1e3 if options.max_latency else None,
        skip=options.skip,
        region=parse_roi(options.roi) if options.roi else None,
        tiles=options.tiles,
        overlap=options.overlap,
        scale=options.scale,
    )  # fmt: skip


def read_patch(path: Path) -> tuple[int, int]:
    """(height, width) of the patches of an engine's network, as its manifest states them."""
    side = None
    if path.suffix in SUFFIXES:
        side = read_manifest(manifest_of(path)).facts.get("patch")
    if not isinstance(side, int) or side < 1:
        raise UsageError(f"--patch-edges: '{path}' does not say how large its patches are")
    return side, side


def choose_goal(request: Request) -> Goal:
    """What counts: how soon a frame is there, or how many there are."""
    live = request.source_options.realtime or any(s.may_be_live for s in request.sources)
    return "latency" if live else "throughput"


def main() -> int:
    """Parse, run, print."""
    options = build_parser().parse_args()
    request = read_request(options)
    path = options.engine or find_engine(ENGINES)
    if options.patch_edges:
        request = dataclasses.replace(request, patch=read_patch(path))
    # Where a frame takes several slots, enough for most frames to have another one under way.
    slots = 0 if request.tiles == "fit" else COVER_SLOTS
    goal = choose_goal(request)
    with (
        open_engine(
            path, threads=options.threads, streams=options.streams, slots=slots, goal=goal,
            allow_host_code=options.allow_host_code,
        ) as engine,
        Session(engine, request) as session,
    ):  # fmt: skip
        info = engine.info
        tuned = f", tuned for {goal}" if "tuned_for" in info.extra else ""
        say(escape(f"{info.precision} on {info.device} ({info.backend}{tuned}): {info.path}"))
        if "tuning_ignored" in info.extra:
            say(escape(info.extra["tuning_ignored"]))
        if session.server is not None:
            say(f"showing at [bold]{session.server.url}[/]")
        elif not (request.output or request.labels or request.window):
            warn("nothing is shown or written: give --output, --labels or --http")
        with stop_on_signals(session.controls.stop.set) as signalled, status_line(session) as poll:
            try:
                summary = session.run(poll)
            except EdgeError:
                for made in session.outputs:
                    say(f"'{escape(made)}' holds what was shown until then")
                raise
    if signalled:
        summary["stopped"] = "interrupted"
    describe(summary)
    if options.json:
        print_json(summary)
    return EXIT_INTERRUPTED if signalled else EXIT_OK


def describe(summary: dict[str, Any]) -> None:
    """The summary in a few lines, for people."""
    latency = summary["latency_ms"]
    figures = [f"{summary['frames']} frames"]
    if summary["fps"]:
        figures += [
            f"{summary['fps']} fps",
            f"latency {latency['p50']} ms, p99 {latency['p99']} ms",
        ]
    for count in ("dropped", "skipped", "decode_errors", "reconnects"):
        if summary[count]:
            figures.append(f"{summary[count]} {count.replace('_', ' ')}")
    say("; ".join(figures))
    if summary["truncated"]:
        warn("a file ended before the length it states: it is truncated")
    if summary["output"]:
        made = summary["output"]
        say(f"wrote {escape(made if isinstance(made, str) else ', '.join(made))}")


@contextmanager
def stop_on_signals(stop: Callable[[], None]) -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM end the run properly, so that its output plays; a second one at once.

    Yields the list of the signals that came.
    """
    came: list[int] = []

    def handle(number: int, _frame: object) -> None:
        came.append(number)
        if len(came) > 1:
            raise KeyboardInterrupt
        stop()

    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, handle) for number in signals}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def status_line(session: Session) -> Iterator[Callable[[], None]]:
    """A line on the terminal that follows the run; notices are printed as they come."""
    with stderr.status("opening") as status:

        def tell() -> None:
            notices = session.controls.notices
            while notices:
                warn(notices.popleft())

        def poll() -> None:
            tell()
            if stderr.is_terminal:
                status.update("   ".join(_describe(stream.stats) for stream in session.streams))

        try:
            yield poll
        finally:
            tell()  # of what came after the last poll


def _describe(stats: StreamStats) -> str:
    dropped = f"  {stats.dropped} dropped" if stats.dropped else ""
    away = stats.away_for(perf_counter())
    state = f"  away for {away:.0f} s" if away else ""
    rate = f"{stats.rate.value():.1f} fps"
    return f"{escape(stats.source)}  {stats.shown} frames  {rate}{dropped}{state}"


if __name__ == "__main__":
    run_command(main)
