#!/usr/bin/env python3
"""Build verified engines from a checkpoint.

With no arguments: the shipped checkpoint, in INT8, for OpenVINO, calibrated on Cityscapes where
CITYSCAPES_DATASET says it is, else on procedural streets. Exit code 0: built, 1: the gate
(--max-drop, --max-class-drop) found a regression and the engine was not published, 2: bad input.

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
  calibration        null without int8; else frames requested and taken
  cached, seconds

The fields of the first engine (OpenVINO's with --backend all) are at the top level too.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.markup import escape

from pipeline.build_parser import build_options, build_parser
from pipeline.console import (
    BUILD_PACKAGES,
    EXIT_OK,
    EXIT_REGRESSION,
    print_json,
    progress_bar,
    require,
    run_command,
    say,
    warn,
)
from pipeline.engines.cpu import overflow_warning
from pipeline.stage import StageEvent

if TYPE_CHECKING:
    from pipeline.build import BuildResult

ALARMING = 0.95
"""Share of labels as fp32 below which INT8 is worth a warning: ours keep 98 to 99.5 %."""
DESCRIPTION = __doc__.partition("\n\nWith --json")[0]


def main(arguments: list[str] | None = None) -> int:
    """Parse, build, print."""
    options = build_parser(DESCRIPTION).parse_args(arguments)
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
                say(f"  {event.stage:<24}{how}", markup=True)

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

        progress = Progress(
            stage=staged, calibrated=calibrated, scored=scored, ranked=ranked, tuned=tuned,
            learned=learned,
        )  # fmt: skip
        result = build(asked, progress)
    tell(result)
    if options.json:
        print_json(result.as_json())
    return EXIT_OK if result.passed else EXIT_REGRESSION


def tell(result: BuildResult) -> None:
    """What was built, for a person at a terminal."""
    if result.finetune is not None:
        tell_finetune(result.finetune)
    if result.search is not None:
        tell_search(result.search)
    frames = result.calibration
    if frames is not None and frames["taken"] < frames["requested"]:
        warn(
            f"calibrated on {frames['taken']} frames, not {frames['requested']}: there are no more"
        )
    for each in result.engines:
        checks = each.checks
        if checks["engine_agreement"] is not None:
            say(f"{each.backend}: agrees with its graph on {checks['engine_agreement']:.2%}")
        else:
            warn(f"{each.backend}: built, not executed: {each.artifact.facts['not_executed']}")
        if checks["int8_agreement"] is not None:
            share = checks["int8_agreement"]
            say(f"{each.backend}: int8 agrees with fp32 on {share:.2%}")
            if share < ALARMING and not result.options.random_weights:
                warn(
                    "that is few: are the calibration frames like those it will see? "
                    "accuracy_report.py tells what it costs"
                )
        overflows = overflow_warning(each.artifact.facts.get("weight_bits"))
        if overflows is not None:
            warn(overflows)
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
        if each.other is not None:
            warn(f"it replaces an engine that was built by: {each.other}")
        say("not published" if each.path is None else str(each.path))
    if result.comparison is not None:
        for pair, same in result.comparison["labels"].items():
            say(f"{pair}: {same:.2%} of labels are the same")
    for each in result.engines:
        if each.backend == "openvino" and each.path is not None:
            say(f"to take it to another CPU: make_bundle.py {shlex.quote(str(each.path))}")
    if "tensorrt" in result.graphs:
        graph = shlex.quote(str(result.graphs["tensorrt"]))
        say(f"to build for an NVIDIA GPU elsewhere: make_bundle.py {graph}")
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
