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
                     graph" where the engine cannot run), calibrated (frames that calibrated too;
                     more than 0 only by --force-split), reference.miou, candidate.miou, drop,
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

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":
    from pipeline.loading import leave_at_signals

    leave_at_signals()

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

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
from pipeline.stage import StageEvent

if TYPE_CHECKING:
    from rich.progress import TaskID

    from pipeline.build import BuildResult

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
        learning = bar.add_task("fine-tuning", total=None, visible=False)
        tuning = bar.add_task("tuning", total=None, visible=False)

        def staged(event: StageEvent) -> None:
            running = event.stage == "quantize" and event.seconds is None
            bar.update(calibrating, visible=running)
            if event.seconds is not None:
                how = "[dim]cached[/]" if event.cached else f"{event.seconds:6.1f} s"
                say(f"  {event.stage:<24}{how}", markup=True)

        def advance(task: TaskID, done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, visible=done < total)

        def scored(backend: str, done: int, total: int) -> None:
            bar.update(scoring, description=f"scoring {backend}")
            advance(scoring, done, total)

        result = build(
            asked,
            Progress(
                stage=staged,
                calibrated=lambda used: bar.update(calibrating, completed=used),
                scored=scored,
                ranked=partial(advance, ranking),
                tuned=partial(advance, tuning),
                learned=lambda steps: advance(learning, steps, asked.finetune),
            ),
        )
    tell(result)
    if options.json:
        print_json(result.as_json())
    return EXIT_OK if result.passed else EXIT_REGRESSION


def tell(result: BuildResult) -> None:
    """What was built, for a person at a terminal."""
    from pipeline.build_wording import lines

    show: dict[str, Callable[[str], None]] = {
        "say": say, "warn": warn, "good": partial(_coloured, "green"),
        "bad": partial(_coloured, "red"),
    }  # fmt: skip
    for line in lines(result):
        show[line.kind](line.text)


def _coloured(colour: str, text: str) -> None:
    say(f"[{colour}]{escape(text)}[/]", markup=True)


if __name__ == "__main__":
    run_command(main)
