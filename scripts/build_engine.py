#!/usr/bin/env python3
"""Build a verified engine from a checkpoint.

With no arguments: the shipped checkpoint, in INT8, calibrated on Cityscapes where
CITYSCAPES_DATASET says it is, else on procedural streets.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.console import (
    EXIT_OK,
    Parser,
    parse_shape,
    positive_int,
    print_json,
    progress_bar,
    run_command,
    say,
    warn,
)
from pipeline.errors import MissingDependencyError, UsageError
from pipeline.stage import StageEvent


def build_parser() -> Parser:
    """Every option of the command."""
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("--precision", choices=("fp32", "fp16", "int8"), default="int8")
    add("--backend", choices=("openvino",), default="openvino")
    add(
        "--checkpoint", type=Path, metavar="FILE", help="trained network (default: the shipped one)"
    )
    add("--preset", metavar="NAME", help="its size, where the checkpoint does not say it")
    add(
        "--shape",
        type=parse_shape,
        default=(512, 1024),
        metavar="HxW",
        help="of the engine's input",
    )
    add("--batch", type=positive_int, default=1, metavar="N", help="tiles in one inference")
    add(
        "--dataset",
        metavar="ROOT",
        help="Cityscapes tree (default: CITYSCAPES_DATASET, or streets)",
    )
    add("--frames", type=positive_int, default=128, metavar="N", help="calibration frames")
    add(
        "--split",
        default="train",
        help="split they come from; val and test only with --force-split",
    )
    add("--force-split", action="store_true", help="calibrate on val or test; recorded")
    add("--output", type=Path, default=Path("engines"), metavar="DIR")
    add(
        "--injection", choices=("full", "split"), default="split", help="form of locality injection"
    )
    add("--estimator", choices=("mean-minmax", "minmax", "percentile"), default="mean-minmax",
        help="of activation ranges")  # fmt: skip
    add("--opset", type=int, choices=(17, 18, 19), default=17)
    add("--min-agreement", type=float, default=98.0, metavar="PERCENT",
        help="labels the engine must share with its own graph (default: %(default)s)")  # fmt: skip
    add(
        "--random-weights", action="store_true", help="an untrained network, to try sizes and speed"
    )
    add("--json", action="store_true", help="print the result as one JSON object on stdout")
    return parser


def main() -> int:
    """Parse, build, print."""
    options = build_parser().parse_args()
    for package in ("torch", "onnx", "onnxruntime", "openvino", "nncf", "safetensors"):
        if find_spec(package) is None:
            raise MissingDependencyError(package, "build", why="building an engine")
    from calibration.cityscapes import dataset_root
    from calibration.quantize import QuantizeSettings
    from pipeline.build import BuildOptions, build

    if not 0 <= options.min_agreement <= 100:
        raise UsageError(f"--min-agreement {options.min_agreement}: give a percentage, 0 to 100")
    asked = BuildOptions(
        precision=options.precision, backend=options.backend, checkpoint=options.checkpoint,
        preset=options.preset, shape=options.shape, batch=options.batch, opset=options.opset,
        dataset=dataset_root(options.dataset), frames=options.frames, split=options.split,
        force_split=options.force_split, output=options.output, injection=options.injection,
        min_agreement=options.min_agreement / 100, random_weights=options.random_weights,
        settings=QuantizeSettings(estimator=options.estimator),
    )  # fmt: skip
    if asked.dataset is None:
        say("no data set given (--dataset or CITYSCAPES_DATASET): using procedural streets")
    if asked.random_weights:
        warn("random weights: the labels of this engine mean nothing")
    with progress_bar() as bar:
        task = bar.add_task("calibrating", total=asked.frames, visible=False)

        def notify(event: StageEvent) -> None:
            bar.update(task, visible=event.stage == "quantize" and event.seconds is None)
            if event.seconds is not None:
                how = "[dim]cached[/]" if event.cached else f"{event.seconds:6.1f} s"
                say(f"  {event.stage:<16}{how}")

        result = build(asked, notify, lambda used: bar.update(task, completed=used))
    checks = result.checks
    say(f"engine agrees with its graph on {checks['engine_agreement']:.2%} of positions")
    if checks["int8_agreement"] is not None:
        say(f"int8 agrees with fp32 on {checks['int8_agreement']:.2%}")
    say(f"[bold]{result.engine}[/]  ({result.seconds:.1f} s)")
    if options.json:
        print_json(result.as_json())
    return EXIT_OK


if __name__ == "__main__":
    run_command(main)
