#!/usr/bin/env python3
"""Pack a network with all it takes to run it on the edge box: one archive.

An OpenVINO engine travels itself and is proven on the CPU it comes to; a Jetson's engine must be
built on the Jetson, from its graph. Copy the archive there, unpack it, and ``python3 edge.py`` says
what is missing, makes the engine ready and runs it.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":
    from pipeline.loading import leave_at_signals

    leave_at_signals()

import shlex

from calibration.cityscapes import dataset_root
from pipeline.bundle import make_bundle
from pipeline.console import EXIT_OK, Parser, print_json, run_command, say


def build_parser() -> Parser:
    """Every option of the command."""
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("source", type=Path, metavar="ENGINE_OR_ONNX",
        help="an engine (.xml, .engine) or a Q/DQ graph that build_engine.py made")  # fmt: skip
    add("--output", type=Path, metavar="FILE.tar.gz", help="default: NAME-bundle.tar.gz here")
    add("--labels", action="store_true",
        help="end in labels instead of logits: upsampled and decided on the GPU")  # fmt: skip
    add("--dataset", metavar="ROOT",
        help="Cityscapes tree with frames to check the engine by, on the box (default: "
        "CITYSCAPES_DATASET, or rendered streets)")  # fmt: skip
    add("--json", action="store_true", help="print the result as one JSON object on stdout")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Parse, pack, print."""
    options = build_parser().parse_args(arguments)
    made = make_bundle(
        options.source, options.output, labels=options.labels,
        dataset=dataset_root(options.dataset),
    )  # fmt: skip
    path = made.path
    size = path.stat().st_size
    say(f"{path}  ({size / 2**20:.1f} MiB)")
    say(f"on the box: tar xzf {shlex.quote(path.name)} && cd {shlex.quote(made.folder)} && "
        "python3 edge.py")  # fmt: skip
    if options.json:
        print_json({"bundle": str(path), "folder": made.folder, "bytes": size})
    return EXIT_OK


if __name__ == "__main__":
    run_command(main)
