"""The options of ``build_engine.py``, and what they ask of the library."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from calibration import DEFAULT_ESTIMATOR, DEFAULT_ROUNDING, ESTIMATORS, ROUNDINGS
from calibration.cityscapes import SPLITS, dataset_root
from calibration.frames import DEFAULT_COUNT
from models import DEFAULT_INJECTION, INJECTION_FORMS
from pipeline import BACKENDS, DEFAULT_SHAPE, PRECISIONS
from pipeline.console import Parser, parse_shape, positive_int
from pipeline.errors import UsageError
from pipeline.verify import MIN_AGREEMENT

if TYPE_CHECKING:
    from pipeline.build_options import BuildOptions, GateLimits

FINETUNE_STEPS = 200
# Options that speak of calibration alone.
_CALIBRATES = ("frames", "split", "force_split", "estimator", "rounding", "weight_bits")


def build_parser(description: str) -> Parser:
    """Every option of the command."""
    parser = Parser(description=description)
    add = parser.add_argument
    add("--precision", choices=PRECISIONS, default="int8",
        help="int8+fp16: TensorRT, with fp16 for the rest (default: %(default)s)")  # fmt: skip
    add("--backend", choices=BACKENDS, default="openvino",
        help="all: both, from one calibration, and where their labels differ")  # fmt: skip
    add("--checkpoint", type=Path, metavar="FILE",
        help="trained network (default: the shipped one)")  # fmt: skip
    add("--preset", metavar="NAME", help="its size, where the checkpoint does not say it")
    add("--shape", type=parse_shape, default=DEFAULT_SHAPE, metavar="HxW",
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
    add("--force-split", action="store_true",
        help="calibrate on val or test, or on frames that the gate scores; recorded")  # fmt: skip
    add("--output", type=Path, default=Path("engines"), metavar="DIR")
    add("--injection", choices=(*INJECTION_FORMS, "auto"), default=DEFAULT_INJECTION,
        help="form of locality injection; split: each block keeps a convolution beside its FC; "
        "auto: block by block, what INT8 loses against what splitting costs, both measured "
        "(default: %(default)s)")  # fmt: skip
    add("--estimator", choices=ESTIMATORS,
        help=f"of activation ranges (default: {DEFAULT_ESTIMATOR})")  # fmt: skip
    add("--rounding", choices=ROUNDINGS,
        help="of the FC kernels' INT8 weights; compensated: so that their errors cancel over the "
        f"calibration frames (default: {DEFAULT_ROUNDING})")  # fmt: skip
    add("--weight-bits", type=int, choices=(7, 8),
        help="of INT8 weights; 7 for CPUs without VNNI, whose sums of 8-bit products overflow "
        "(default: what this CPU needs where OpenVINO's engine is built, else 8)")  # fmt: skip
    add("--finetune", type=positive_int, nargs="?", const=FINETUNE_STEPS, default=0,
        metavar="STEPS", help="fp32 teaches its INT8 self on the calibration frames, without "
        "labels (%(const)s steps where no number is given)")  # fmt: skip
    add("--opset", type=int, choices=(17, 18, 19), default=17)
    add("--min-agreement", type=float, metavar="PERCENT",
        help="labels the engine must share with its own graph (default: 98; of random weights, "
        "whose labels are chance, 0)")  # fmt: skip
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
    _add_tensorrt(own.add_argument)
    return parser


def _add_tensorrt(add: Callable[..., object]) -> None:
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


def build_options(options: Namespace) -> BuildOptions:
    """The command's options as the library's. Raises ``UsageError`` where they contradict."""
    from calibration.quantize import QuantizeSettings
    from pipeline.build_options import BuildOptions, TensorRTOptions, TunePace
    from pipeline.engines.trt_builder import MAX_WORKSPACE_MIB, BuilderOptions

    if options.min_agreement is None:
        options.min_agreement = 0.0 if options.random_weights else 100 * MIN_AGREEMENT
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
        settings=QuantizeSettings(
            estimator=options.estimator or DEFAULT_ESTIMATOR,
            rounding=options.rounding or DEFAULT_ROUNDING,
        ),
        weight_bits=options.weight_bits,
        tensorrt=TensorRTOptions(
            flavour=options.flavour, labels=options.labels, strict_int8=options.strict_int8,
            builder=BuilderOptions(
                workspace_mib=options.workspace, optimization_level=options.optimization_level,
                timing_cache=options.timing_cache, version_compatible=options.version_compatible,
                hardware=options.hardware,
                compute_capabilities=tuple(dict.fromkeys(options.compute_capability)),
            ),
        ),
        gate=_gate_limits(options), search=options.search, finetune=options.finetune,
        calibration_shape=options.calibration_shape,
        tune=TunePace() if options.tune else None,
    )  # fmt: skip


def _gate_limits(options: Namespace) -> GateLimits | None:
    """The gate, where either of its options was given; the other one's default is the report's."""
    from pipeline.build_options import GateLimits

    default = GateLimits()
    drop, class_drop = options.max_drop, options.max_class_drop
    if drop is None and class_drop is None:
        return None
    return GateLimits(
        default.max_drop if drop is None else drop,
        default.max_class_drop if class_drop is None else class_drop,
    )
