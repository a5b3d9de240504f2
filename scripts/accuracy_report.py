#!/usr/bin/env python3
"""Compare an engine with its reference on labelled frames: what was lost, where, ship it or not.

Writes report.html, report.json, report.md and report.xml (JUnit). Exit code 0: passed,
1: regression, 2: bad input. An interrupted run goes on when the same command is given again.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":
    from pipeline.loading import leave_at_signals

    leave_at_signals()

from contextlib import ExitStack
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

from rich.markup import escape

from calibration.cityscapes import FramePair, dataset_root
from pipeline.console import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_REGRESSION,
    print_json,
    progress_bar,
    require,
    run_command,
    say,
    warn,
)
from pipeline.errors import UsageError
from pipeline.publish import output_folder
from pipeline.report import wording
from pipeline.report.frames import CheckedFrames, check_frames
from pipeline.report.opening import (
    Wanted,
    bisect,
    check_bisectable,
    graphs_to_rank,
    open_subjects,
)
from pipeline.report.options import build_parser, check_asked, parse_exact
from pipeline.report.run import SENSITIVITY_FRAMES, RunOptions, make_report
from pipeline.report.schema import Report
from pipeline.report.subjects import Subject
from pipeline.report.verdict import check_limits

if TYPE_CHECKING:
    from argparse import Namespace


def main(arguments: list[str] | None = None) -> int:
    """Parse and judge; a refusal leaves no folder behind."""
    options = build_parser(__doc__ or "").parse_args(arguments)
    check_limits(options.max_drop, options.max_class_drop)
    exact_frames = parse_exact(options.exact)
    check_asked(options)
    require("jinja2", extra="report", why="writing the report")
    with output_folder(options.output):
        return judge(options, exact_frames)


def judge(options: Namespace, exact_frames: int | None) -> int:
    """Score, write, print; the exit code. The output folder is there, the options were checked."""
    asked = RunOptions(
        output=options.output, max_drop=options.max_drop, max_class_drop=options.max_class_drop,
        exact_frames=exact_frames, patch=options.patch, resamples=options.resamples,
        seed=options.seed, fresh=options.fresh,
        sensitivity_frames=options.sensitivity_frames or SENSITIVITY_FRAMES,
        dataset={"root": str(dataset_root(options.dataset) or "procedural streets"),
                 "split": options.split, "limit": options.limit},
    )  # fmt: skip
    frames = checked_frames(options)
    with ExitStack() as stack:
        subjects = open_subjects(
            read_wanted(options), stack, with_exact=exact_frames != 0, say=say, warn=warn
        )
        if options.bisect:
            check_bisectable(subjects)
        if options.sensitivity:
            asked = replace(asked, sensitivity=graphs_to_rank(subjects))
        with progress_bar() as bar:
            tasks = {}

            def notify(what: str, done: int, total: int) -> None:
                if what not in tasks:
                    tasks[what] = bar.add_task(what, total=total)
                    if what == "scoring" and done:
                        say(f"{done} of {total} frames were scored before (--fresh forgets them)")
                bar.update(tasks[what], completed=done)

            try:
                report, files = make_report(
                    subjects, frames, asked, notify, look_for_fault if options.bisect else None
                )
            except KeyboardInterrupt:
                say("interrupted: scores are kept, give the same command again to go on")
                return EXIT_INTERRUPTED
    tell(report)
    say(f"report: {files.html}")
    if options.json:
        print_json(report.model_dump(mode="json"))
    return EXIT_OK if report.passed else EXIT_REGRESSION


def read_wanted(options: Namespace) -> Wanted:
    """The engines that the options ask for."""
    return Wanted(
        reference=options.reference, candidate=options.candidate,
        allow_host_code=options.allow_host_code, engines=options.engines,
        train_form=options.form == "train", backend=options.backend, injection=options.injection,
        dataset=dataset_root(options.dataset), frames=options.frames, shape=options.shape,
        preset=options.preset, checkpoint=options.checkpoint,
    )  # fmt: skip


def look_for_fault(graph: Subject, frame: FramePair) -> str | None:
    """Say that it takes its time, and ``bisect``."""
    say("looking for the first node at which engine and graph part")
    return bisect(graph, frame)


def checked_frames(options: Namespace) -> CheckedFrames:
    """The frames to score, every file looked at."""
    root = dataset_root(options.dataset)
    if root is None:
        if find_spec("torch") is None:
            raise UsageError("no data set: give --dataset ROOT or set CITYSCAPES_DATASET")
        from pipeline.build import open_dataset

        say("no data set given (--dataset or CITYSCAPES_DATASET): using procedural streets")
        root = open_dataset(None, options.engines).root
    with progress_bar() as bar:
        task = bar.add_task("checking files", total=None)
        frames = check_frames(
            root, options.split, limit=options.limit, skip_bad=options.skip_bad,
            on_frames=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    for problem in frames.problems:
        warn(f"left out: {problem}")
    return frames


def tell(report: Report) -> None:
    """The verdict, for a person at a terminal."""
    colour = "green" if report.passed else "red"
    word = "PASSED" if report.passed else "REGRESSION"
    say(f"[bold {colour}]{word}[/] {escape(wording.lead(report))}", markup=True)
    say(f"  {wording.worst(report)} {wording.sureness(report)}")
    if wording.calibrated(report):
        warn(wording.calibrated(report))
    if report.attribution:
        say(f"  {wording.attribution(report.attribution)}")
    if report.float_layers:
        fell = ", ".join(f"{row.name} ({row.precision})" for row in report.float_layers.fallback)
        say(f"  {wording.float_layers(report.float_layers)}{f' {fell}' if fell else ''}")
    if report.sensitivity:
        say(f"  {wording.sensitivity(report)}")
    if report.patch_edges:
        say(f"  {wording.edges(report.patch_edges)}")
    else:
        say("  Patch edges were not judged: a single patch, or its size is not known (--patch).")


if __name__ == "__main__":
    run_command(main)
