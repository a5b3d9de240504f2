#!/usr/bin/env python3
"""Measure speed against peers, in turns within one run, and show it with its spread.

With no arguments: the shipped network at 512x1024, against PyTorch, ONNX Runtime and OpenVINO's own
benchmark_app. Engines are built as build_engine.py builds them, and kept. Nothing but the machine
should run meanwhile; what others used of it is measured and told.

With --json, one object on stdout: docs/benchmarks/benchmark.schema.json describes it, and
docs/benchmarks/README.md how to read it. --save keeps it; the README's table is made from those:

    python -m pipeline.benchmark.table --readme README.md
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":
    from pipeline.loading import leave_at_signals

    leave_at_signals()

import shlex
from argparse import Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.markup import escape

from calibration.frames import DEFAULT_COUNT
from models import DEFAULT_PRESET
from pipeline import DEFAULT_SHAPE
from pipeline.benchmark.options import PEERS, ROUNDS, BenchmarkOptions, parse_against
from pipeline.console import (
    BUILD_PACKAGES,
    EXIT_OK,
    Parser,
    parse_shape,
    positive_int,
    print_json,
    require,
    run_command,
    say,
    stderr,
    warn,
)
from pipeline.errors import UsageError
from pipeline.publish import prepare, write_output

if TYPE_CHECKING:
    from pipeline.benchmark.run import Listener
    from pipeline.benchmark.schema import Benchmark
    from pipeline.stage import StageEvent

AGAINST = ",".join(PEERS)


def build_parser() -> Parser:
    """Every option of the command."""
    parser = Parser(description=__doc__.partition("\n\nWith --json")[0])
    add = parser.add_argument
    add(
        "--preset",
        metavar="NAME",
        help=f"size of the network (default: the checkpoint's, {DEFAULT_PRESET})",
    )
    add(
        "--checkpoint", type=Path, metavar="FILE", help="trained network (default: the shipped one)"
    )
    add("--random-weights", action="store_true", help="an untrained network: speed alone")
    add("--shape", type=parse_shape, default=DEFAULT_SHAPE, metavar="HxW",
        help="of the engine's input (default: 512x1024)")  # fmt: skip
    add("--against", metavar="A,B", help=f"peers, or none (default: {AGAINST})")
    add("--rounds", type=positive_int, metavar="N",
        help=f"turns that everyone gets (default: {ROUNDS})")  # fmt: skip
    add("--video", type=Path, metavar="FILE", help="clip to segment (default: rendered streets)")
    add("--dataset", metavar="ROOT",
        help="Cityscapes tree, calibrates (default: CITYSCAPES_DATASET, or streets)")  # fmt: skip
    add(
        "--frames", type=positive_int, default=DEFAULT_COUNT, metavar="N", help="calibration frames"
    )
    add("--engines", type=Path, default=Path("engines"), metavar="DIR",
        help="where engines are built and kept (default: %(default)s)")  # fmt: skip
    add("--roofline", action="store_true",
        help="only the int8 engine's layers against what the CPU can do")  # fmt: skip
    out = parser.add_argument_group("where the result goes")
    out.add_argument("--json", action="store_true", help="one object on stdout")
    out.add_argument("--save", type=Path, metavar="FILE.json", help="the same into a file")
    out.add_argument("--html", type=Path, nargs="?", const=Path("benchmark.html"), metavar="FILE",
                     help="a page (default name: benchmark.html)")  # fmt: skip
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Parse, measure, print."""
    options = build_parser().parse_args(arguments)
    require(*BUILD_PACKAGES, extra="build", why="the benchmark")
    from pipeline.benchmark.page import write_page

    check_asked(options)
    asked = read_options(options, arguments)
    if asked.random_weights:
        warn("random weights: the labels of these engines mean nothing, only their speed does")
    with stderr.status("preparing") as status:
        listener = make_listener(asked.rounds, status.update)
        if options.roofline:
            from pipeline.benchmark.roofline import as_markdown
            from pipeline.benchmark.run import profile_only

            roofs = profile_only(asked, listener)
            status.stop()
            if options.save is not None:
                write_output(options.save, f"{roofs.model_dump_json(indent=1)}\n".encode())
            if options.json:
                print_json(roofs.model_dump(mode="json"))
            else:
                sys.stdout.write(as_markdown(roofs))
            return EXIT_OK
        from pipeline.benchmark.run import run

        benchmark = run(asked, listener)
    tell(benchmark)
    if options.save is not None:
        write_output(options.save, f"{benchmark.model_dump_json(indent=1)}\n".encode())
    if options.html is not None:
        write_page(options.html, benchmark)
        say(f"page: {options.html}")
    if options.json:
        print_json(benchmark.model_dump(mode="json"))
    return EXIT_OK


def check_asked(options: Namespace) -> None:
    """Raise an ``EdgeError`` for what minutes of measuring would end in."""
    if options.roofline:
        for name in ("html", "against", "rounds", "video"):
            if getattr(options, name) is not None:
                raise UsageError(
                    f"--{name} is of a whole benchmark: leave --roofline out, which is part of it"
                )
    outputs = {"--save": options.save, "--html": options.html}
    files = {option: path.resolve() for option, path in outputs.items() if path is not None}
    if len(set(files.values())) < len(files):
        raise UsageError(f"--save and --html are both '{options.save}': name two files")
    for option, path in files.items():
        if path.is_dir():
            raise UsageError(f"{option} {path}: is a directory, give a file in it")
        prepare(path.parent)
    if options.html is not None:
        require("jinja2", extra="report", why="the benchmark's page")


def read_options(options: Namespace, arguments: list[str] | None) -> BenchmarkOptions:
    """The command's options as the library's. Raises ``UsageError`` where they contradict."""
    from calibration.cityscapes import dataset_root

    words = sys.argv[1:] if arguments is None else arguments
    return BenchmarkOptions(
        preset=options.preset, checkpoint=options.checkpoint,
        random_weights=options.random_weights, shape=options.shape,
        against=parse_against(options.against or AGAINST),
        rounds=options.rounds or ROUNDS,
        dataset=dataset_root(options.dataset), frames=options.frames, engines=options.engines,
        video=options.video, command=shlex.join(["scripts/benchmark.py", *words]),
    )  # fmt: skip


def make_listener(rounds: int, update: Callable[[str], None]) -> Listener:
    """What is under way, on the terminal."""
    from pipeline.benchmark.run import Listener

    def staged(event: StageEvent) -> None:
        if event.seconds is None:
            update(f"{event.stage} ...")
        elif not event.cached:
            say(f"  {event.stage:<24}{event.seconds:6.1f} s")

    return Listener(
        stage=staged,
        say=lambda line: update(escape(line)),
        warn=warn,
        turn=lambda number, row: update(f"round {number + 1} of {rounds}: {escape(row)}"),
    )


def tell(benchmark: Benchmark) -> None:
    """The result, for a person at a terminal."""
    from pipeline.benchmark.table import as_markdown

    say(as_markdown(benchmark))
    if benchmark.machine.loaded is not None:
        warn(f"{benchmark.machine.loaded}: ratios are less certain than they look")


if __name__ == "__main__":
    run_command(main)
