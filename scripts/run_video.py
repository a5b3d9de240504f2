#!/usr/bin/env python3
"""Segment video as it comes: cameras, files, network streams or procedural streets."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":
    from pipeline.loading import leave_at_signals

    leave_at_signals()

import dataclasses
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter

from rich.markup import escape

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
from pipeline.video.summary import describe, truncated
from pipeline.wording import counted

ENGINES = Path("engines")  # where build_engine.py puts them unless told otherwise
COVER_SLOTS = 8
_LOOKED_AT = 2
"""Signals: at the first the run is to end, at the second it ends."""
_ONE_PRESS = 0.5
"""Seconds from one signal to the next within which both are of a key that is held down: raised into
the closing, each would cut short what finishes the files."""


def read_patch(path: Path) -> tuple[int, int]:
    """(height, width) of the patches of an engine's network, as its manifest states them."""
    side = None
    if path.suffix in SUFFIXES:
        side = read_manifest(manifest_of(path)).patch
    if side is None:
        raise UsageError(f"--patch-edges: '{path}' does not say how large its patches are")
    return side, side


def choose_goal(request: Request) -> Goal:
    """What counts: how soon a frame is there, or how many there are."""
    return "latency" if request.live else "throughput"


def main(arguments: list[str] | None = None) -> int:
    """Parse, run, print."""
    options = build_parser().parse_args(arguments)
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
        say(f"{info.precision} on {info.device} ({info.backend}{tuned}): {info.path}")
        if "tuning_ignored" in info.extra:
            say(info.extra["tuning_ignored"])
        if session.server is not None:
            server = session.server
            yours = "" if server.printed_url == server.url else " with your token"
            say(f"showing at [bold]{escape(server.printed_url)}[/]{yours}", markup=True)
        elif not (request.output or request.labels or request.window):
            warn("nothing is shown or written: give --output, --labels or --http")
        with (
            stop_on_signals(session.controls.stop.set) as signalled,
            status_line(session, signalled) as poll,
        ):
            try:
                summary = session.run(poll)
            except (EdgeError, KeyboardInterrupt):
                for made in session.outputs:
                    say(f"'{made}' holds what was shown until then")
                raise
    if signalled:
        summary["stopped"] = "interrupted"
    for line in describe(summary):
        say(line)
    for name in truncated(summary):
        warn(f"'{name}' ended before the length it states: it is truncated")
    if options.json:
        print_json(summary)
    return EXIT_INTERRUPTED if signalled else EXIT_OK


@contextmanager
def stop_on_signals(stop: Callable[[], None]) -> Iterator[list[int]]:
    """Ctrl-C, SIGTERM and SIGHUP end the run so that its output plays; a second one ends at once.

    Yields the list of the signals that came. The second one is for ``status_line`` to find: an
    exception out of a handler hits the runner in ``Thread.join``, and CPython before 3.13 then
    takes that thread for ended while it still writes. Where nobody looks any more the third raises.

    What came stays in charge after the run: what was opened is still to be closed.
    """
    came: list[int] = []
    last = 0.0

    def handle(number: int, _frame: object) -> None:
        nonlocal last
        now = perf_counter()
        held, last = now - last < _ONE_PRESS, now
        if held and len(came) >= _LOOKED_AT:
            return
        came.append(number)
        if len(came) > _LOOKED_AT:
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
        for number, handler in before.items() if not came else ():
            signal.signal(number, handler)


@contextmanager
def status_line(session: Session, signalled: Sequence[int]) -> Iterator[Callable[[], None]]:
    """A line on the terminal that follows the run; notices are printed as they come.

    Raises ``KeyboardInterrupt`` out of the run at the second signal.
    """

    def tell() -> None:
        notices = session.controls.notices
        while notices:
            warn(notices.popleft())

    with stderr.status("opening") as status:

        def poll() -> None:
            tell()
            if len(signalled) >= _LOOKED_AT:
                raise KeyboardInterrupt
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
    return f"{escape(stats.source)}  {counted(stats.shown, 'frame')}  {rate}{dropped}{state}"


if __name__ == "__main__":
    run_command(main)
