"""The options of ``accuracy_report.py``, and what can be told of them before anything is built."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from pathlib import Path

from calibration.cityscapes import SPLITS
from calibration.frames import DEFAULT_COUNT
from models import DEFAULT_INJECTION, INJECTION_FORMS
from pipeline import PRECISIONS
from pipeline.console import Parser, natural, parse_shape, positive_int
from pipeline.errors import UsageError
from pipeline.report.bootstrap import RESAMPLES
from pipeline.report.run import EXACT_FRAMES, SENSITIVITY_FRAMES
from pipeline.report.verdict import MAX_CLASS_DROP, MAX_DROP

SMALLEST_PATCH = 8
MAX_RESAMPLES = 1_000_000


def build_parser(description: str) -> Parser:
    """Every option of the command."""
    parser = Parser(description=description)
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
    named = [name for name in asked.values() if name not in PRECISIONS]
    for option in ("shape", "checkpoint", "preset"):
        if getattr(options, option) is not None and len(named) == len(asked):
            raise UsageError(f"--{option} is of engines that are built: both are named by a path")
    if options.bisect and options.exact == "none":
        raise UsageError("--bisect needs the exact graph: leave --exact none out")
    for option, name in asked.items():
        if name not in PRECISIONS and not Path(name).is_file():
            raise UsageError(
                f"{option} {name}: no such engine file, nor a precision ({', '.join(PRECISIONS)})"
            )


def parse_exact(text: str) -> int | None:
    """``all`` -> ``None``, ``none`` -> 0, else a whole number."""
    if text in ("all", "none"):
        return None if text == "all" else 0
    try:
        return natural(text)
    except ArgumentTypeError as error:
        raise UsageError(f"--exact {text}: give all, none, or a number of frames") from error
