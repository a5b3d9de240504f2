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

from calibration.cityscapes import SPLITS, FramePair, dataset_root
from calibration.frames import DEFAULT_COUNT
from models import DEFAULT_INJECTION, INJECTION_FORMS
from pipeline import PRECISIONS
from pipeline.console import (
    BUILD_PACKAGES,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_REGRESSION,
    Parser,
    parse_shape,
    positive_int,
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
from pipeline.report.bootstrap import RESAMPLES
from pipeline.report.frames import CheckedFrames, check_frames
from pipeline.report.run import EXACT_FRAMES, SENSITIVITY_FRAMES, RunOptions, Subjects, make_report
from pipeline.report.schema import Report
from pipeline.report.subjects import (
    Graphs,
    Subject,
    exact_graph_of,
    graphs_of,
    open_subject,
    told_apart,
)
from pipeline.report.verdict import MAX_CLASS_DROP, MAX_DROP, check_limits

if TYPE_CHECKING:
    from argparse import Namespace

    from pipeline.build import BuildResult

SMALLEST_PATCH = 8
MAX_RESAMPLES = 1_000_000


def build_parser() -> Parser:
    """Every option of the command."""
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add(
        "--reference", default="fp32", metavar="ENGINE",
        help=f"an engine's path, or {', '.join(PRECISIONS)}: built as needed (default: fp32)",
    )  # fmt: skip
    add("--candidate", default="int8", metavar="ENGINE", help="the same (default: int8)")
    add(
        "--dataset",
        metavar="ROOT",
        help="Cityscapes tree (default: CITYSCAPES_DATASET, or streets)",
    )
    add("--split", default="val", choices=SPLITS)
    add("--limit", type=positive_int, metavar="N", help="score N frames, spread evenly")
    add(
        "--skip-bad", action="store_true", help="leave out frames that cannot be scored, and say so"
    )
    add(
        "--max-drop", type=float, default=MAX_DROP, metavar="POINTS",
        help="loss of mIoU allowed (default: %(default)s)",
    )  # fmt: skip
    add(
        "--max-class-drop", type=float, default=MAX_CLASS_DROP, metavar="POINTS",
        help="loss of one class's IoU allowed (default: %(default)s)",
    )  # fmt: skip
    add(
        "--exact", default=str(EXACT_FRAMES), metavar="all|N|none",
        help="frames that the exact Q/DQ graph scores too, slowly (default: %(default)s)",
    )  # fmt: skip
    add(
        "--bisect", action="store_true",
        help="where the drop is the engine's, find the first node at fault (takes minutes)",
    )  # fmt: skip
    add(
        "--sensitivity", action="store_true",
        help="rank the candidate's layers by what quantizing each alone does (takes minutes)",
    )  # fmt: skip
    add(
        "--sensitivity-frames", type=positive_int, metavar="N",
        help=f"frames that rank them (default: {SENSITIVITY_FRAMES})",
    )  # fmt: skip
    add(
        "--patch", type=parse_shape, metavar="HxW",
        help="the network's patches in pixels of its input, where the engine does not say",
    )  # fmt: skip
    add(
        "--allow-host-code", action="store_true",
        help="run the code that a version-compatible TensorRT engine carries; for your own only",
    )  # fmt: skip
    add("--output", type=Path, default=Path("report"), metavar="DIR")
    add("--fresh", action="store_true", help="score all frames again, resume nothing")
    add("--resamples", type=positive_int, default=RESAMPLES, help="of the bootstrap")
    add("--seed", type=int, default=0, help="of the bootstrap")
    add("--json", action="store_true", help="print report.json on stdout")
    made = parser.add_argument_group("engines that are built, see build_engine.py")
    made.add_argument("--shape", type=parse_shape, metavar="HxW")
    made.add_argument("--checkpoint", type=Path, metavar="FILE")
    made.add_argument("--preset", metavar="NAME")
    made.add_argument("--backend", default="openvino", choices=("openvino", "tensorrt"))
    made.add_argument("--injection", default=DEFAULT_INJECTION, choices=(*INJECTION_FORMS, "auto"))
    made.add_argument(
        "--form", default="deploy", choices=("deploy", "train"),
        help="of a candidate that is built; train: branches apart, not injected, for study",
    )  # fmt: skip
    made.add_argument(
        "--frames", type=positive_int, default=DEFAULT_COUNT, help="calibration frames"
    )
    made.add_argument(
        "--engines", type=Path, default=Path("engines"), metavar="DIR", help="where they are kept"
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Parse, score, write, print."""
    options = build_parser().parse_args(arguments)
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


def check_asked(options: Namespace) -> None:
    """Raise ``UsageError`` for what can be told before anything is built or read."""
    asked = {"--reference": options.reference, "--candidate": options.candidate}
    if options.sensitivity_frames is not None and not options.sensitivity:
        raise UsageError("--sensitivity-frames means nothing without --sensitivity")
    if not 0 <= options.seed < 1 << 32:
        raise UsageError(f"--seed {options.seed}: give a whole number from 0 to {(1 << 32) - 1}")
    if options.resamples > MAX_RESAMPLES:
        raise UsageError(f"--resamples {options.resamples}: give {MAX_RESAMPLES} at most")
    if options.patch is not None and min(options.patch) < SMALLEST_PATCH:
        raise UsageError(
            f"--patch {options.patch[0]}x{options.patch[1]}: patches of a network have "
            f"{SMALLEST_PATCH} pixels or more a side"
        )
    if options.form == "train" and options.candidate not in PRECISIONS:
        raise UsageError(
            f"--form train is of a candidate that is built: give a precision "
            f"({', '.join(PRECISIONS)}), not a file"
        )
    if options.allow_host_code and not any(name.endswith(".engine") for name in asked.values()):
        raise UsageError(
            "--allow-host-code: neither --reference nor --candidate names a TensorRT engine "
            "(.engine): leave it out"
        )
    for option, name in asked.items():
        if name not in PRECISIONS and not Path(name).is_file():
            raise UsageError(
                f"{option} {name}: no such engine file, nor a precision ({', '.join(PRECISIONS)})"
            )


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
            engine = built(options, name, other, injection).engine
            found[option] = opened(name, engine, stack)
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


def built(options: Namespace, precision: str, other: Subject | None, injection: str) -> BuildResult:
    """Build an engine, or find it; of the other one's size and preset where not told."""
    require(*BUILD_PACKAGES, extra="build", why=f"building the {precision} engine")
    from pipeline.build import DEFAULT_SHAPE, BuildOptions, build

    shape, preset = options.shape, options.preset
    if other is not None:
        height, width = other.engine.inputs[0].shape[1:3]
        shape = shape or (height, width)
        if preset is None and options.checkpoint is None and other.manifest is not None:
            preset = other.manifest.facts.get("preset")
    say(f"{precision}: building the engine, or finding it in '{options.engines}'")
    return build(
        BuildOptions(
            precision=precision, backend=options.backend, checkpoint=options.checkpoint,
            preset=preset, shape=shape or DEFAULT_SHAPE, dataset=dataset_root(options.dataset),
            frames=options.frames, output=options.engines, injection=injection,
        )
    )  # fmt: skip


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


def parse_exact(text: str) -> int | None:
    """``all`` -> ``None``, ``none`` -> 0, else a whole number."""
    if text in ("all", "none"):
        return None if text == "all" else 0
    if not text.isdecimal():
        raise UsageError(f"--exact {text}: give all, none, or a number of frames")
    return int(text)


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
