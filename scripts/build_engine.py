#!/usr/bin/env python3
"""Build verified engines from a checkpoint.

With no arguments: the shipped checkpoint, in INT8, for OpenVINO, calibrated on Cityscapes where
CITYSCAPES_DATASET says it is, else on procedural streets. Exit code 0: built, 1: the gate
(--max-drop) found a regression and the engine was not published, 2: bad input.

With --json, one object on stdout:

  engine, manifest   paths; null where the gate refused the engine
  precision, backend, preset, shape, batch
  executed           whether the engine ran here; not_executed says why it did not
  checks             injection_error, export_error (relative, against torch), engine_agreement
                     (share of labels the engine shares with its exact graph, null where it was
                     not executed), int8_agreement (with fp32; the exact graph's where the engine
                     was not executed), checked_frames
  gate               null without --max-drop; else passed, frames, scored ("engine", or "exact
                     graph" where the engine cannot run), reference.miou, candidate.miou, drop,
                     worst_class, reasons; IoU in points
  tuning             null without --tune; else machine (cpu, cpus), load (before, after, others,
                     loaded: why to doubt the figures, or null), rounds, tiles (in one inference)
                     and, under latency and throughput: chosen (streams, threads, slots; 0 threads
                     are as many as OpenVINO wants), default, gain (times as fast as the default:
                     value, low, high over rounds; null where the default was chosen), candidates
                     (each with ms, tiles_per_second, gain, rounds_ms)
  search             null unless --search had to; else floating (layers left in float),
                     float_share (of the multiply-adds), trials (what each attempt lost)
  finetune           null without --finetune; else before, after (mean KL from fp32 on held-out
                     calibration frames, nats), labels_before, labels_after (share equal to
                     fp32's), kept, steps, frames, held_out
  passed             whether the gate let every engine through
  engines            one object for each back end, with the fields above and, of TensorRT,
                     flavour, built_with, output, nodes, layers, float_fallback, float_by_design
  comparison         with TensorRT: where labels part, see pipeline/stages/compare.py
  graphs             the Q/DQ graph by back end, for make_bundle.py and accuracy_report.py
  cached, seconds

The fields of the first engine (OpenVINO's with --backend all) are at the top level too.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.markup import escape

from calibration import DEFAULT_ESTIMATOR, ESTIMATORS
from calibration.cityscapes import SPLITS
from calibration.frames import DEFAULT_COUNT
from models import DEFAULT_INJECTION, INJECTION_FORMS
from pipeline import PRECISIONS
from pipeline.console import (
    BUILD_PACKAGES,
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
from pipeline.stage import StageEvent

if TYPE_CHECKING:
    from pipeline.build import BuildOptions, BuildResult, GateLimits

FINETUNE_STEPS = 200
# Options that speak of calibration alone.
_CALIBRATES = ("frames", "split", "force_split", "estimator")


def build_parser() -> Parser:
    """Every option of the command."""
    parser = Parser(description=__doc__.partition("\n\nWith --json")[0])
    add = parser.add_argument
    add("--precision", choices=PRECISIONS, default="int8",
        help="int8+fp16: TensorRT, with fp16 for the rest (default: %(default)s)")  # fmt: skip
    add("--backend", choices=("openvino", "tensorrt", "all"), default="openvino",
        help="all: both, from one calibration, and where their labels differ")  # fmt: skip
    add("--checkpoint", type=Path, metavar="FILE",
        help="trained network (default: the shipped one)")  # fmt: skip
    add("--preset", metavar="NAME", help="its size, where the checkpoint does not say it")
    add("--shape", type=parse_shape, default=(512, 1024), metavar="HxW",
        help="of the engine's input (default: 512x1024)")  # fmt: skip
    add("--batch", type=positive_int, default=1, metavar="N", help="tiles in one inference")
    add("--dataset", metavar="ROOT",
        help="Cityscapes tree (default: CITYSCAPES_DATASET, or streets)")  # fmt: skip
    add("--frames", type=positive_int, metavar="N",
        help=f"calibration frames (default: {DEFAULT_COUNT})")  # fmt: skip
    add("--calibration-shape", type=parse_shape, metavar="HxW",
        help="find the ranges at this size and carry them to --shape: less memory and time "
        "(default: --shape)")  # fmt: skip
    add("--split", choices=SPLITS,
        help="they come from: val and test only with --force-split (default: train)")  # fmt: skip
    add("--force-split", action="store_true", help="calibrate on val or test; recorded")
    add("--output", type=Path, default=Path("engines"), metavar="DIR")
    add("--injection", choices=(*INJECTION_FORMS, "auto"), default=DEFAULT_INJECTION,
        help="form of locality injection; needed: split the blocks whose long-range weights one "
        "INT8 scale would round away; auto: block by block, what INT8 loses against what "
        "splitting costs, both measured (default: %(default)s)")  # fmt: skip
    add("--estimator", choices=ESTIMATORS,
        help=f"of activation ranges (default: {DEFAULT_ESTIMATOR})")  # fmt: skip
    add("--finetune", type=positive_int, nargs="?", const=FINETUNE_STEPS, default=0,
        metavar="STEPS", help="fp32 teaches its INT8 self on the calibration frames, without "
        "labels (%(const)s steps where no number is given)")  # fmt: skip
    add("--opset", type=int, choices=(17, 18, 19), default=17)
    add("--min-agreement", type=float, default=98.0, metavar="PERCENT",
        help="labels the engine must share with its own graph (default: %(default)s)")  # fmt: skip
    add("--random-weights", action="store_true",
        help="an untrained network, to try sizes and speed")  # fmt: skip
    add("--tune", action="store_true",
        help="measure how many streams and threads OpenVINO's engine runs best with on this "
        "machine, and open it so from now on; takes a minute on two cores, once")  # fmt: skip
    add("--json", action="store_true", help="print the result as one JSON object on stdout")
    gate = parser.add_argument_group(
        "gate", "either option scores the engine against fp32 on the val split, as the report does"
    )
    gate.add_argument("--max-drop", type=float, metavar="POINTS", help="loss of mIoU allowed")
    gate.add_argument("--max-class-drop", type=float, metavar="POINTS",
                      help="loss of one class's IoU allowed")  # fmt: skip
    gate.add_argument("--search", action="store_true",
                      help="where it fails, find the fewest layers to leave in float that keep the "
                      "limits, on calibration frames, and try again")  # fmt: skip
    own = parser.add_argument_group("TensorRT", "refused where the flavour lacks them")
    add_tensorrt(own.add_argument)
    return parser


def add_tensorrt(add: Callable[..., object]) -> None:
    """Options that only TensorRT engines have; ``add`` is argparse's ``add_argument``."""
    add("--flavour", choices=("tensorrt", "tensorrt-rtx"),
        help="which TensorRT (default: the one that can build here)")  # fmt: skip
    add("--labels", action="store_true",
        help="upsample and argmax on the GPU: labels come back, not logits")  # fmt: skip
    add("--strict-int8", action="store_true",
        help="fail when a heavy layer falls back to float")  # fmt: skip
    add("--workspace", type=positive_int, metavar="MIB", help="bound on scratch memory")
    add("--optimization-level", type=int, choices=range(6), help="0 is quick, 5 exhaustive")
    add("--timing-cache", action="store_true", help="keep and share kernel timings, per GPU")
    add("--version-compatible", action="store_true",
        help="let newer versions run it; it then holds host code")  # fmt: skip
    add("--hardware", choices=("same", "same-capability", "ampere+"), default="same",
        help="GPUs that may run it (default: this one)")  # fmt: skip
    add("--compute-capability", action="append", default=[], metavar="X.Y",
        help="TensorRT for RTX: GPU it is compiled for, such as 8.9; may be repeated")  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Parse, build, print."""
    options = build_parser().parse_args(arguments)
    require(*BUILD_PACKAGES, extra="build", why="building an engine")
    from pipeline.build import Progress, build

    asked = build_options(options)
    if asked.dataset is None:
        say("no data set given (--dataset or CITYSCAPES_DATASET): using procedural streets")
    if asked.random_weights:
        warn("random weights: the labels of this engine mean nothing")
    with progress_bar() as bar:
        calibrating = bar.add_task("calibrating", total=asked.frames, visible=False)
        scoring = bar.add_task("scoring", total=None, visible=False)
        ranking = bar.add_task("ranking layers", total=None, visible=False)
        learning = bar.add_task("fine-tuning", total=asked.finetune, visible=False)
        tuning = bar.add_task("tuning", total=None, visible=False)

        def staged(event: StageEvent) -> None:
            running = event.stage == "quantize" and event.seconds is None
            bar.update(calibrating, visible=running)
            if event.seconds is not None:
                how = "[dim]cached[/]" if event.cached else f"{event.seconds:6.1f} s"
                say(f"  {event.stage:<24}{how}")

        def scored(backend: str, done: int, total: int) -> None:
            bar.update(scoring, description=f"scoring {backend}", completed=done, total=total,
                       visible=done < total)  # fmt: skip

        def ranked(done: int, total: int) -> None:
            bar.update(ranking, completed=done, total=total, visible=done < total)

        def tuned(done: int, total: int) -> None:
            bar.update(tuning, completed=done, total=total, visible=done < total)

        def calibrated(used: int) -> None:
            bar.update(calibrating, completed=used)

        def learned(steps: int) -> None:
            bar.update(learning, completed=steps, visible=steps < asked.finetune)

        result = build(asked, Progress(staged, calibrated, scored, ranked, tuned, learned))
    tell(result)
    if options.json:
        print_json(result.as_json())
    return EXIT_OK if result.passed else EXIT_REGRESSION


def build_options(options: Namespace) -> BuildOptions:
    """The command's options as the library's. Raises ``UsageError`` where they contradict."""
    from calibration.cityscapes import dataset_root
    from calibration.quantize import QuantizeSettings
    from pipeline.build import BuildOptions, TensorRTOptions, TunePace
    from pipeline.engines.trt_builder import MAX_WORKSPACE_MIB, BuilderOptions

    if not 0 <= options.min_agreement <= 100:
        raise UsageError(f"--min-agreement {options.min_agreement}: give a percentage, 0 to 100")
    if "int8" not in options.precision:
        for name in _CALIBRATES:
            if getattr(options, name):
                raise UsageError(
                    f"--{name.replace('_', '-')} means nothing to --precision {options.precision}: "
                    "only int8 is calibrated",
                    hint="leave it out",
                )
    if (options.workspace or 0) > MAX_WORKSPACE_MIB:
        raise UsageError(f"--workspace {options.workspace}: give {MAX_WORKSPACE_MIB} at most")
    return BuildOptions(
        precision=options.precision, backend=options.backend, checkpoint=options.checkpoint,
        preset=options.preset, shape=options.shape, batch=options.batch, opset=options.opset,
        dataset=dataset_root(options.dataset), frames=options.frames or DEFAULT_COUNT,
        split=options.split or "train",
        force_split=options.force_split, output=options.output, injection=options.injection,
        min_agreement=options.min_agreement / 100, random_weights=options.random_weights,
        settings=QuantizeSettings(estimator=options.estimator or DEFAULT_ESTIMATOR),
        tensorrt=TensorRTOptions(
            flavour=options.flavour, labels=options.labels, strict_int8=options.strict_int8,
            builder=BuilderOptions(
                workspace_mib=options.workspace, optimization_level=options.optimization_level,
                timing_cache=options.timing_cache, version_compatible=options.version_compatible,
                hardware=options.hardware,
                compute_capabilities=tuple(dict.fromkeys(options.compute_capability)),
            ),
        ),
        gate=gate_limits(options), search=options.search, finetune=options.finetune,
        calibration_shape=options.calibration_shape,
        tune=TunePace() if options.tune else None,
    )  # fmt: skip


def gate_limits(options: Namespace) -> GateLimits | None:
    """The gate, where either of its options was given; the other one's default is the report's."""
    from pipeline.build import GateLimits

    default = GateLimits()
    drop, class_drop = options.max_drop, options.max_class_drop
    if drop is None and class_drop is None:
        return None
    return GateLimits(
        default.max_drop if drop is None else drop,
        default.max_class_drop if class_drop is None else class_drop,
    )


def tell(result: BuildResult) -> None:
    """What was built, for a person at a terminal."""
    if result.finetune is not None:
        tell_finetune(result.finetune)
    if result.search is not None:
        tell_search(result.search)
    for each in result.engines:
        checks = each.checks
        if checks["engine_agreement"] is not None:
            say(f"{each.backend}: agrees with its graph on {checks['engine_agreement']:.2%}")
        else:
            warn(f"{each.backend}: built, not executed: {each.artifact.facts['not_executed']}")
        if checks["int8_agreement"] is not None:
            say(f"{each.backend}: int8 agrees with fp32 on {checks['int8_agreement']:.2%}")
        for node in each.artifact.facts.get("float_fallback", ()):
            warn(f"'{node}' was to run in int8 and runs in {each.artifact.facts['nodes'][node]}")
        if each.gate is not None:
            colour = "green" if each.gate.verdict.passed else "red"
            line = escape(f"{each.backend} {each.gate.scored}: {each.gate.headline}")
            say(f"[{colour}]{line}[/]", markup=True)
            for reason in each.gate.verdict.reasons:
                say(f"  {reason}")
        if each.tuning is not None:
            tell_tuning(each.backend, each.tuning)
        say("not published" if each.path is None else str(each.path))
    if result.comparison is not None:
        for pair, same in result.comparison["labels"].items():
            say(f"{pair}: {same:.2%} of labels are the same")
    if "tensorrt" in result.graphs and result.options.backend != "openvino":
        say(f"to build elsewhere: make_bundle.py {result.graphs['tensorrt']}")
    say(f"{result.seconds:.1f} s")


def tell_finetune(found: dict[str, Any]) -> None:
    """What the fine-tuning brought, or that it brought nothing."""
    before, after = found["labels_before"], found["labels_after"]
    if found["kept"]:
        say(f"fine-tuned: on {found['held_out']} held-out frames {after:.2%} of labels as fp32, "
            f"{before:.2%} before")  # fmt: skip
        return
    warn("fine-tuning brought INT8 no nearer to fp32 on held-out frames: its weights are as they "
         "were")  # fmt: skip


def tell_search(found: dict[str, Any]) -> None:
    """What was left in float, or why nothing was."""
    layers = found["floating"]
    if not layers:
        warn("the search left nothing in float: frames of the calibration split lose no more than "
             "the limits allow, so they cannot say what val needs")  # fmt: skip
        return
    say(f"in float, {found['float_share']:.1%} of the multiply-adds: {', '.join(layers)}")


def tell_tuning(backend: str, found: dict[str, Any]) -> None:
    """What was chosen, what it gives a tile, and what it is better than.

    By the tile, so that engines of different ``--batch`` can be compared.
    """
    for goal in ("latency", "throughput"):
        chosen = found[goal]["chosen"]
        figures = next(
            each
            for each in found[goal]["candidates"]
            if all(each[key] == value for key, value in chosen.items())
        )
        streams, threads = chosen["streams"], figures["threads_taken"]
        setup = f"{_count(streams, 'stream')} on {_count(threads, 'thread')}"
        speed = f"{figures['tiles_per_second']:.1f} tiles/s"
        if goal == "latency":
            speed = f"{figures['ms'] / found['tiles']:.1f} ms a tile, {figures['ms']:.1f} ms in all"
        gain = found[goal]["gain"]
        better = "the default; nothing beat it"
        if gain is not None:
            better = (
                f"{gain['value']:.2f} times the default ({gain['low']:.2f} to {gain['high']:.2f})"
            )
        say(f"{backend}: for {goal} {setup}, {chosen['slots']} slots: {speed}; {better}")
    if found["load"]["loaded"] is not None:
        warn(f"tuned on a busy machine: {found['load']['loaded']}; remove the tune-* folder in "
             ".store to measure again")  # fmt: skip


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


if __name__ == "__main__":
    run_command(main)
