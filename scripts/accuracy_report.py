#!/usr/bin/env python3
"""Compare an engine with its reference on labelled frames: what was lost, where, ship it or not.

Writes report.html, report.json, report.md and report.xml (JUnit). Exit code 0: passed,
1: regression, 2: bad input. An interrupted run goes on when the same command is given again.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from rich.markup import escape

from calibration.cityscapes import FramePair, dataset_root
from pipeline import DEFAULT_SHAPE, PRECISIONS
from pipeline.console import (
    BUILD_PACKAGES,
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
from pipeline.publish import prepare
from pipeline.report import wording
from pipeline.report.frames import CheckedFrames, check_frames
from pipeline.report.options import build_parser, check_asked, parse_exact
from pipeline.report.run import SENSITIVITY_FRAMES, RunOptions, Subjects, make_report
from pipeline.report.schema import Report
from pipeline.report.subjects import (
    Graphs,
    Subject,
    check_same_weights,
    checkpoint_of,
    exact_graph_of,
    graphs_of,
    open_subject,
    preset_of,
    told_apart,
)
from pipeline.report.verdict import check_limits

if TYPE_CHECKING:
    from argparse import Namespace

    from pipeline.build import BuildResult


def main(arguments: list[str] | None = None) -> int:
    """Parse, score, write, print."""
    options = build_parser(__doc__ or "").parse_args(arguments)
    check_limits(options.max_drop, options.max_class_drop)
    exact_frames = parse_exact(options.exact)
    check_asked(options)
    require("jinja2", extra="report", why="writing the report")
    prepare(options.output)
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
        subjects = open_subjects(options, stack, with_exact=exact_frames != 0)
        backend = subjects.candidate.engine.info.backend
        if options.bisect and (backend != "openvino" or subjects.exact is None):
            raise UsageError("--bisect needs an OpenVINO candidate whose exact graph is at hand")
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
                    subjects, frames, asked, notify, bisect if options.bisect else None
                )
            except KeyboardInterrupt:
                say("interrupted: scores are kept, give the same command again to go on")
                return EXIT_INTERRUPTED
    tell(report)
    say(f"report: {files.html}")
    if options.json:
        print_json(report.model_dump(mode="json"))
    return EXIT_OK if report.passed else EXIT_REGRESSION


def open_subjects(options: Namespace, stack: ExitStack, *, with_exact: bool) -> Subjects:
    """Open what has a path, build and open what is a precision, find the exact graph."""
    asked = {"--reference": options.reference, "--candidate": options.candidate}
    found: dict[str, Subject] = {}
    for option, name in asked.items():
        if name in PRECISIONS:
            continue
        path = Path(name)
        allow = options.allow_host_code and path.suffix == ".engine"
        found[option] = opened(path.stem, path, stack, allow_host_code=allow)
    for option, name in asked.items():
        if name in PRECISIONS:
            other = next(iter(found.values()), None)
            injection = options.injection
            if options.form == "train" and option == "--candidate":
                injection = "train"
            engine = built(options, option, other, injection).engine
            found[option] = opened(name, engine, stack)
            if other is not None:
                check_same_weights(option, found[option], other)
    if sorted(found["--reference"].files.values()) == sorted(found["--candidate"].files.values()):
        raise UsageError(
            f"--reference {options.reference} and --candidate {options.candidate} are the same "
            "engine, which loses nothing against itself: name two"
        )
    reference, candidate = told_apart(found["--reference"], found["--candidate"])
    graph = exact_graph_of(candidate)
    exact = opened("exact graph", graph, stack) if graph and with_exact else None
    subjects = Subjects(reference, candidate, exact)
    subjects.check()
    return subjects


def graphs_to_rank(subjects: Subjects) -> Graphs:
    """The graphs behind the candidate.

    Raises ``UsageError`` where there are none, or where the two no longer share their weights.
    """
    manifest = subjects.candidate.manifest
    if manifest and manifest.provenance.get("finetune", {}).get("finetune", {}).get("kept"):
        raise UsageError(
            f"--sensitivity: {subjects.candidate.path} is fine-tuned: its layers were taught "
            "together and cannot be judged one by one against the float graph",
            hint="rank the engine that is built without --finetune",
        )
    graphs = graphs_of(subjects.candidate, subjects.reference)
    if graphs is None:
        raise UsageError(
            "--sensitivity needs a candidate whose Q/DQ graph and float graph are at hand",
            hint="give --candidate int8, an engine in the folder it was built in, or two .onnx "
            "files, quantized and float",
        )
    require("onnx", extra="build", why="ranking layers")
    return graphs


def opened(name: str, path: Path, stack: ExitStack, *, allow_host_code: bool = False) -> Subject:
    """An open engine that is closed with the stack."""
    subject = open_subject(name, path, allow_host_code=allow_host_code)
    stack.callback(subject.engine.close)
    return subject


def built(options: Namespace, option: str, other: Subject | None, injection: str) -> BuildResult:
    """Build the engine of that option, or find it; of the other one's size, preset and weights
    where not told."""
    precision = options.reference if option == "--reference" else options.candidate
    require(*BUILD_PACKAGES, extra="build", why=f"building the {precision} engine")
    from pipeline.build import BuildOptions, build

    shape, preset = options.shape, options.preset
    if other is not None:
        height, width = other.engine.inputs[0].shape[1:3]
        if shape not in (None, (height, width)):
            raise UsageError(
                f"--shape {shape[0]}x{shape[1]}: the engine it is compared with takes "
                f"{height}x{width}"
            )
        shape = (height, width)
        if preset is None and options.checkpoint is None:
            preset = preset_of(other)
    checkpoint = options.checkpoint or (checkpoint_of(other) if other is not None else None)
    say(f"{precision}: building the engine, or finding it in '{options.engines}'")
    result = build(
        BuildOptions(
            precision=precision, backend=options.backend, checkpoint=checkpoint,
            preset=preset, shape=shape or DEFAULT_SHAPE, dataset=dataset_root(options.dataset),
            frames=options.frames, output=options.engines, injection=injection,
            replace_other=False,
        )
    )  # fmt: skip
    for each in result.engines:
        if each.other is not None and option == "--candidate":
            warn(
                f"judging '{each.path}'; the engine of its usual name was built otherwise and is "
                f"left as it is, --candidate judges it: {each.other}"
            )
    return result


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


def bisect(graph: Subject, frame: FramePair) -> str | None:
    """The first node at which the engine leaves its graph, by running both cut there."""
    import onnx

    from calibration.frames import load
    from pipeline.divergence import first_divergence, trace

    say("looking for the first node at which engine and graph part")
    batch, height, width, _channels = graph.engine.inputs[0].shape
    stack = np.repeat(load(frame, (height, width))[None], batch, 0)
    cut = first_divergence(trace(onnx.load(graph.path), stack))
    return None if cut is None else f"{cut.node} ({cut.kind}), by {cut.error:.1%} of its norm"


def tell(report: Report) -> None:
    """The verdict, for a person at a terminal."""
    colour = "green" if report.passed else "red"
    word = "PASSED" if report.passed else "REGRESSION"
    say(f"[bold {colour}]{word}[/] {escape(wording.lead(report))}", markup=True)
    say(f"  {wording.worst(report)} {wording.sureness(report)}")
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
