#!/usr/bin/env python3
"""Segment video as it comes: cameras, files, network streams or procedural streets."""

from __future__ import annotations

import dataclasses
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
    print_json,
    run_command,
    say,
    stderr,
    warn,
)
from pipeline.engines.opening import SUFFIXES, find_engine, manifest_of, open_engine
from pipeline.engines.setups import Goal
from pipeline.errors import EdgeError, UsageError
from pipeline.video.checks import check_request
from pipeline.video.metrics import StreamStats
from pipeline.video.options import build_parser, read_request
from pipeline.video.session import Request, Session

ENGINES = Path(__file__).resolve().parent.parent / "engines"
COVER_SLOTS = 8


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
    check_request(request)  # before an engine is loaded for nothing
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
            say(f"showing at [bold]{escape(session.server.url)}[/]")
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
    """Ctrl-C, SIGTERM and SIGHUP end the run so that its output plays; a second one ends at once.

    Yields the list of the signals that came.
    """
    came: list[int] = []

    def handle(number: int, _frame: object) -> None:
        came.append(number)
        if len(came) > 1:
            raise KeyboardInterrupt
        stop()

    # A terminal that is closed sends SIGHUP; under nohup it is ignored, and stays so.
    signals = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signals.append(signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in signals}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def status_line(session: Session) -> Iterator[Callable[[], None]]:
    """A line on the terminal that follows the run; notices are printed as they come."""

    def tell() -> None:
        notices = session.controls.notices
        while notices:
            warn(notices.popleft())

    with stderr.status("opening") as status:

        def poll() -> None:
            tell()
            if stderr.is_terminal:
                status.update("   ".join(_describe(stream.stats) for stream in session.streams))

        try:
            yield poll
        finally:
            tell()  # what came after the last look


def _describe(stats: StreamStats) -> str:
    dropped = f"  {stats.dropped} dropped" if stats.dropped else ""
    away = stats.away_for(perf_counter())
    state = f"  away for {away:.0f} s" if away else ""
    rate = f"{stats.rate.value():.1f} fps"
    return f"{escape(stats.source)}  {stats.shown} frames  {rate}{dropped}{state}"


if __name__ == "__main__":
    run_command(main)
