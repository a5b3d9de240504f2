#!/usr/bin/env python3
"""Train a preset on one or more Cityscapes trees; resumable, on the GPU when there is one.

Several GPUs: torchrun --nproc-per-node 4 scripts/train.py ...
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":
    from pipeline.loading import leave_at_signals

    leave_at_signals()

from argparse import Namespace
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from models import DEFAULT_PRESET
from pipeline.console import (
    EXIT_OK,
    Parser,
    parse_shape,
    positive_int,
    print_json,
    progress_bar,
    require,
    run_command,
    say,
)
from pipeline.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from pipeline.training.distributed import World

MOST_THREADS = 1024


def build_parser() -> Parser:
    """Every option of the command."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--preset", default=DEFAULT_PRESET, help="network size (default: %(default)s)"
    )
    parser.add_argument(
        "--data", action="append", default=[], metavar="ROOT[:WEIGHT]",
        help="a Cityscapes tree and its share of the samples; may be repeated "
        "(default: CITYSCAPES_DATASET)",
    )  # fmt: skip
    parser.add_argument(
        "--label-map", action="append", default=[], metavar="ROOT=FILE",
        help="JSON that renames classes of one of the trees, e.g. {\"bus\": \"car\"}",
    )  # fmt: skip
    parser.add_argument(
        "--val", metavar="ROOT", help="tree whose val split decides (default: the first)"
    )
    parser.add_argument(
        "--val-shape", type=parse_shape, metavar="HxW",
        help="what val frames are scored at (default: whole patches with their aspect)",
    )  # fmt: skip
    parser.add_argument(
        "--init", type=Path, metavar="FILE",
        help="weights to begin from: an earlier run's, or an ImageNet RepMLPNet checkpoint",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, default=Path("runs/train"), metavar="DIR")
    parser.add_argument("--steps", type=positive_int, default=4000)
    parser.add_argument(
        "--until", type=positive_int, metavar="STEP", help="stop there; resume later"
    )
    parser.add_argument("--batch", type=positive_int, default=16)
    parser.add_argument("--crop", type=parse_shape, default=(256, 256), metavar="HxW",
                        help="of samples, whole patches (default: 256x256)")  # fmt: skip
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument(
        "--loss", choices=("hard", "plain"), default="hard",
        help="hard: weighted cross entropy of the hardest pixels, and Dice; plain: cross entropy "
        "of every pixel, for a last run (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--only", choices=("classifier",),
        help="train this part of --init's network alone; the rest stays as it is",
    )  # fmt: skip
    parser.add_argument("--every", type=positive_int, default=250, help="steps between validations")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=positive_int, help="CPU threads")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--no-bf16", action="store_true", help="train in float32 throughout")
    parser.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, train, print."""
    options = build_parser().parse_args(arguments)
    require("torch", "safetensors", extra="train", why="training")
    import torch

    from pipeline.training.distributed import join_world

    device = pick_device(options.device, torch.cuda.is_available())
    with join_world(device == "cuda") as world, ExitStack() as locks:
        return train(options, device, world, locks)


def train(options: Namespace, where: str, world: World, locks: ExitStack) -> int:
    """One process's run."""
    import torch

    from calibration.cityscapes import CLASS_NAMES, Cityscapes, dataset_root
    from models.checkpoints import load_into
    from models.repmlp import check_input_size
    from models.segmenter import Segmenter, build_segmenter, find_preset
    from pipeline.publish import prepare
    from pipeline.report.metrics import class_iou
    from pipeline.training.data import Mixture
    from pipeline.training.loop import Scores, TrainConfig, Trainer
    from pipeline.training.loss import LOSSES
    from pipeline.training.origin import (
        describe_origin,
        parse_data,
        parse_label_maps,
    )
    from pipeline.training.score import confusion_matrix, validation_size
    from pipeline.training.state import sole_writer

    if options.only and not options.init:
        raise UsageError(f"--only {options.only}: give --init, the network that it belongs to")
    tell = say if world.leads else (lambda _line: None)
    if world.leads:
        prepare(options.output)
        locks.enter_context(sole_writer(options.output))
    preset = find_preset(options.preset)
    check_input_size(options.crop[0], options.crop[1], preset.unit, "--crop")
    roots, weights = parse_data(options.data or [str(dataset_root(None) or "")])
    maps = parse_label_maps(options.label_map, roots)
    mixture = Mixture([Cityscapes(root) for root in roots], weights, relabel=maps)
    val_root = options.val or roots[0]
    places = [Path(root).resolve() for root in roots]
    judge_map = dict(zip(places, maps, strict=True)).get(Path(val_root).resolve())
    judge = Cityscapes(val_root)
    judged = judge.frames("val")
    val_shape = options.val_shape or validation_size(judge.read(judged[0])[1].shape, preset.unit)
    check_input_size(val_shape[0], val_shape[1], preset.unit, "--val-shape")
    config = TrainConfig(
        steps=options.steps, batch=options.batch, crop=options.crop, rate=options.rate,
        seed=options.seed, every=options.every, bf16=not options.no_bf16,
        loss=LOSSES[options.loss], only=options.only,
    )  # fmt: skip
    if options.threads:
        if options.threads > MOST_THREADS:
            raise UsageError(f"--threads {options.threads}: give {MOST_THREADS} at most")
        torch.set_num_threads(options.threads)
    device = torch.device(where)
    model = build_segmenter(preset, auxiliary=True, seed=options.seed)
    if options.init:
        report = load_into(model, options.init)
        tell(
            f"initialised {len(report.loaded)} tensors from '{options.init}' ({report.naming}); "
            f"skipped: {', '.join(report.skipped) or 'none'}; fresh: {len(report.fresh)}"
        )

    def validate(network: Segmenter) -> Scores:
        scores = class_iou(confusion_matrix(network, judge, judged, val_shape, device, judge_map))
        line = "  ".join(
            f"{name} {score:.1f}"
            for name, score in zip(CLASS_NAMES, scores, strict=True)
            if score == score
        )
        say(f"val: {line}")
        return scores

    trainer = Trainer(
        model, preset.name, mixture, config, options.output,
        device=device, validate=validate, world=world,
        origin=describe_origin(
            preset, mixture, [*maps, judge_map], judged, val_shape, options.init
        ),
    )  # fmt: skip
    if trainer.resume():
        tell(
            f"resuming '{options.output}' at step {trainer.step}, best val mIoU {trainer.best:.2f}"
        )
    if not world.leads:
        for _progress in trainer.run(options.until):
            pass
        return EXIT_OK
    say(
        f"training {preset.name} on {len(mixture)} frames, {device}, to step {config.steps}; "
        f"judged on {len(judged)} at {val_shape[0]}x{val_shape[1]}"
    )
    loss = float("nan")
    with progress_bar() as bar:
        task = bar.add_task(preset.name, total=config.steps, completed=trainer.step)
        for progress in trainer.run(options.until):
            loss = progress.loss
            bar.update(task, completed=progress.step)
            if progress.miou is not None:
                say(f"step {progress.step}  loss {loss:.4f}  val mIoU {progress.miou:.2f}")
    best = options.output / "best.safetensors"
    if not best.is_file():
        raise CheckpointError(f"'{best}' is not there: was it removed? Nothing was validated since")
    say(f"best val mIoU {trainer.best:.2f}: {best}")
    if options.json:
        print_json(
            {"checkpoint": str(best), "step": trainer.step, "val_miou": trainer.best, "loss": loss}
        )
    return EXIT_OK


def pick_device(wanted: str, cuda: bool) -> str:
    """``auto`` is the GPU when there is one; asking for one that is not there is an error."""
    if wanted == "cuda" and not cuda:
        raise UsageError("--device cuda: torch finds no GPU here; use --device cpu")
    return ("cuda" if cuda else "cpu") if wanted == "auto" else wanted


if __name__ == "__main__":
    run_command(main)
