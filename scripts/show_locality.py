#!/usr/bin/env python3
"""Show what locality injection does to one FC kernel (Appendix A of the RepMLPNet paper).

Stages, blocks, sets and points count from 1, as in the paper.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":
    from pipeline.loading import leave_at_signals

    leave_at_signals()

import argparse
import re
from typing import TYPE_CHECKING

from pipeline.console import EXIT_OK, Parser, positive_int, print_json, require, run_command, say
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from models.repmlp import RepMLPBlock


def build_parser() -> Parser:
    """Every option of the command."""
    parser = Parser(description=__doc__)
    parser.add_argument("--stage", type=positive_int, default=3)
    parser.add_argument("--block", type=positive_int, default=1)
    parser.add_argument("--point", type=parse_point, default=(7, 7), metavar="ROW,COLUMN")
    parser.add_argument("--set", type=positive_int, default=1, dest="share_set", help="share-set")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="in training form (default: the shipped one)",
    )
    parser.add_argument("--preset", help="of a checkpoint that does not say, a bare backbone say")
    parser.add_argument("--output", type=Path, default=Path("locality.png"), metavar="FILE.png")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON on stdout")
    return parser


def parse_point(text: str) -> tuple[int, int]:
    """``7,7`` -> (7, 7); for argparse's ``type``."""
    match = re.fullmatch(r"(\d{1,5}),(\d{1,5})", text)
    if match is None or not (int(match[1]) and int(match[2])):
        raise argparse.ArgumentTypeError(f"'{text}' is not ROW,COLUMN from 1, such as 7,7")
    return int(match[1]), int(match[2])


def main(arguments: list[str] | None = None) -> int:
    """Load, inject one block, draw, print."""
    options = build_parser().parse_args(arguments)
    require("torch", "safetensors", extra="build", why="locality injection")
    import torch

    from models.locality import inject_block
    from pipeline.report.locality_figure import draw, view

    name, block = load_block(options.checkpoint, options.preset, options.stage, options.block)
    if not block.kernels:
        raise UsageError(
            "the checkpoint is in deploy form, so its kernels are injected already; "
            "give the training-form checkpoint to compare"
        )
    injected, proof = inject_block(block, "full", name)
    size, shape = max(block.kernels), (block.h, block.w)
    point = (options.point[0] - 1, options.point[1] - 1)
    with torch.no_grad():
        before, after = (
            view(each.fc3_matrix().numpy(), shape, point, size, options.share_set - 1)
            for each in (block, injected)
        )
    title = f"stage {options.stage}, block {options.block}, output point {options.point}"
    draw(before, after, point, size, title, options.output)
    for what, seen in (("before", before), ("after", after)):
        say(
            f"{what} injection: {seen.inside:.1f} % of the point's weight inside the "
            f"{size}x{size} window, {100 - seen.inside:.1f} % outside; a weight inside is "
            f"{seen.contrast:.1f} times one outside"
        )
    say(f"figure: {options.output}")
    if options.json:
        print_json(
            {
                "figure": str(options.output), "block": name, "kernel": size,
                "patch": list(shape), "point": list(options.point), "set": options.share_set,
                "injection_error": proof.error,
                "before": {"inside": before.inside, "outside": 100 - before.inside,
                           "contrast": before.contrast},
                "after": {"inside": after.inside, "outside": 100 - after.inside,
                          "contrast": after.contrast},
            }
        )  # fmt: skip
    return EXIT_OK


def load_block(
    checkpoint: Path | None, preset: str | None, stage: int, block: int
) -> tuple[str, RepMLPBlock]:
    """(name, block) of a checkpoint: a whole segmenter, or a bare backbone of a named preset."""
    from models import DEFAULT_PRESET
    from models.checkpoints import load_into, load_segmenter, shipped_checkpoint
    from models.errors import ModelError
    from models.segmenter import build_segmenter, find_preset

    path = checkpoint or shipped_checkpoint(DEFAULT_PRESET)
    if preset is None:
        model = load_segmenter(path)[0]
        fresh: tuple[str, ...] = ()
    else:
        model = build_segmenter(find_preset(preset), seed=0)
        fresh = load_into(model, path).fresh
    blocks = dict(model.backbone.repmlp_blocks())
    name = f"stages.{stage - 1}.{block - 1}.repmlp_block"
    if name not in blocks:
        stages = [sum(key.startswith(f"stages.{s}.") for key in blocks) for s in range(4)]
        raise UsageError(
            f"no block {block} in stage {stage}: stages 1 to 4 have "
            f"{', '.join(map(str, stages))} blocks"
        )
    missing = [key for key in fresh if key.startswith(f"backbone.{name}.") and "batches" not in key]
    if missing:
        raise ModelError(f"checkpoint '{path}' lacks '{missing[0]}': give one in training form")
    return name, blocks[name].eval()


if __name__ == "__main__":
    run_command(main)
