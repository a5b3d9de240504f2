"""What may be asked of a build. Refused here: what contradicts itself, by the option's name."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from calibration.frames import DEFAULT_COUNT
from calibration.images import MAX_PIXELS
from calibration.quantize import QuantizeSettings
from models import DEFAULT_INJECTION
from pipeline import BACKENDS, DEFAULT_SHAPE, INJECTIONS, PRECISIONS, Backend, Injection, Precision
from pipeline.engines.cpu import cpu_features, products_saturate
from pipeline.engines.trt_builder import BuilderOptions
from pipeline.engines.trt_preflight import Flavour
from pipeline.errors import UsageError
from pipeline.report.verdict import MAX_CLASS_DROP, MAX_DROP, check_limits
from pipeline.verify import MIN_AGREEMENT

# Options of the command by the builder's own names for them.
_BUILDER = {
    "workspace_mib": "--workspace", "optimization_level": "--optimization-level",
    "timing_cache": "--timing-cache", "version_compatible": "--version-compatible",
    "hardware": "--hardware", "compute_capabilities": "--compute-capability",
}  # fmt: skip


@dataclass(frozen=True)
class TensorRTOptions:
    """What only TensorRT engines have.

    Attributes:
        flavour: which TensorRT; ``None`` is the one that can build here.
        labels: upsample and argmax on the device.
        strict_int8: a heavy layer that falls back to float is an error.
        builder: see ``BuilderOptions``.
    """

    flavour: Flavour | None = None
    labels: bool = False
    strict_int8: bool = False
    builder: BuilderOptions = field(default_factory=BuilderOptions)

    def given(self) -> list[str]:
        """The command's options that are not at their defaults."""
        default = TensorRTOptions()
        found = [
            f"--{each.name.replace('_', '-')}"
            for each in fields(self)
            if each.name != "builder" and getattr(self, each.name) != getattr(default, each.name)
        ]
        return found + [
            option
            for name, option in _BUILDER.items()
            if getattr(self.builder, name) != getattr(default.builder, name)
        ]


@dataclass(frozen=True)
class GateLimits:
    """The most that may be lost against fp32 on the val split, in points of IoU."""

    max_drop: float = MAX_DROP
    max_class_drop: float = MAX_CLASS_DROP


@dataclass(frozen=True)
class TunePace:
    """How long an engine is tuned.

    Attributes:
        rounds: in each of which every setup has its turn. Noise chooses one of k setups that are
            no better than the default with probability k / 2^rounds at most.
        seconds: of one turn.
        settle: seconds of rest before every turn.
        look: seconds spent watching the machine before and after.
    """

    rounds: int = 9
    seconds: float = 0.6
    settle: float = 0.2
    look: float = 1.0


@dataclass(frozen=True)
class BuildOptions:
    """What to build: the options of ``scripts/build_engine.py``.

    Attributes:
        precision: ``fp32``, ``fp16``, ``int8``, or TensorRT's ``int8+fp16``.
        backend: ``openvino``, ``tensorrt`` or ``all``.
        checkpoint: trained network; ``None`` is the one that is shipped for the preset.
        preset: its size, where the checkpoint does not say it.
        shape: (height, width) of the engine's input in pixels, whole patches.
        batch: tiles in one inference.
        opset: of ONNX, 17 to 19.
        dataset: Cityscapes tree; ``None`` is rendered streets.
        frames: how many of them calibrate.
        split: they come from; val and test only with ``force_split``.
        force_split: calibrate on frames that judge; the gate then warns of what it would refuse.
        output: folder of the engine, and of the store of all stages' results.
        injection: form of locality injection, one of ``INJECTIONS``.
        min_agreement: share of labels, 0 to 1, that an engine must share with its exact graph.
        random_weights: an untrained network, always the same; for speed alone.
        settings: how ranges are found; its ``overflow_fix`` follows ``weight_bits``.
        weight_bits: of INT8 weights, 7 or 8; ``None`` is 7 where OpenVINO's engine is built on a
            CPU that 8 overflow on, see ``cpu.products_saturate``.
        tensorrt: what only TensorRT engines have.
        gate: the most that may be lost against fp32 on val; ``None`` does not ask.
        search: where the gate fails, leave the fewest layers in float that pass it.
        finetune: steps in which fp32 teaches its INT8 self; 0 for none.
        calibration_shape: (height, width) at which ranges are found, carried to ``shape`` then.
        tune: measure streams and threads of this machine; ``None`` does not.
        replace_other: whether the engine may take the place of one of its name that another
            command made, see ``publish``.

    Raises:
        UsageError: an option that is out of range, contradicts another one or means nothing to
            the chosen back end.
    """

    precision: Precision = "int8"
    backend: Backend = "openvino"
    checkpoint: Path | None = None
    preset: str | None = None
    shape: tuple[int, int] = DEFAULT_SHAPE
    batch: int = 1
    opset: int = 17
    dataset: Path | None = None
    frames: int = DEFAULT_COUNT
    split: str = "train"
    force_split: bool = False
    output: Path = Path("engines")
    injection: Injection = DEFAULT_INJECTION
    min_agreement: float = MIN_AGREEMENT
    random_weights: bool = False
    settings: QuantizeSettings = field(default_factory=QuantizeSettings)
    weight_bits: int | None = None
    tensorrt: TensorRTOptions = field(default_factory=TensorRTOptions)
    gate: GateLimits | None = None
    search: bool = False
    finetune: int = 0
    calibration_shape: tuple[int, int] | None = None
    tune: TunePace | None = None
    replace_other: bool = True

    @property
    def convolve(self) -> bool:
        """Whether FC3 is a convolution in the graph: for CPUs that seven bits are for as well."""
        return "int8" in self.precision and self.settings.overflow_fix

    def __post_init__(self) -> None:
        for option, value, choices in (
            ("--backend", self.backend, BACKENDS),
            ("--precision", self.precision, PRECISIONS),
            ("--injection", self.injection, INJECTIONS),
        ):
            if value not in choices:
                raise UsageError(f"{option} {value}: choose from {', '.join(choices)}")
        if not 0 <= self.min_agreement <= 1:  # refuses NaN too
            given = "not a number" if math.isnan(self.min_agreement) else f"{self.min_agreement:%}"
            raise UsageError(f"--min-agreement {given}: give a percentage, 0 to 100")
        if self.random_weights and self.checkpoint is not None:
            raise UsageError("--random-weights and --checkpoint exclude each other")
        for option, size in (
            ("--shape", self.shape), ("--calibration-shape", self.calibration_shape or self.shape)
        ):  # fmt: skip
            if self.batch * size[0] * size[1] > MAX_PIXELS:
                batch = f" with --batch {self.batch}" if self.batch > 1 else ""
                raise UsageError(
                    f"{option} {size[0]}x{size[1]}{batch}: more than "
                    f"{MAX_PIXELS // 1_000_000} megapixels in one inference"
                )
        self._check_weight_bits()
        self._check_finetune()
        if self.calibration_shape is not None and "int8" not in self.precision:
            raise UsageError(f"--calibration-shape means nothing to --precision {self.precision}")
        self._check_tensorrt()
        self._check_gate()

    def _check_tensorrt(self) -> None:
        if self.tune is not None and self.backend == "tensorrt":
            raise UsageError(
                "--tune measures streams and threads of a CPU, which TensorRT engines do not have",
                hint="leave it out, or give --backend openvino or all",
            )
        foreign = self.tensorrt.given() if self.backend == "openvino" else []
        if foreign:
            raise UsageError(
                f"{foreign[0]} means nothing to OpenVINO",
                hint="leave it out, or give --backend tensorrt or all",
            )
        if self.precision == "int8+fp16" and self.backend != "tensorrt":
            raise UsageError(
                "--precision int8+fp16 is TensorRT's: OpenVINO chooses the float precision itself",
                hint="give --precision int8, or --backend tensorrt",
            )
        if self.tensorrt.strict_int8 and "int8" not in self.precision:
            raise UsageError(f"--strict-int8 means nothing to --precision {self.precision}")

    def _check_weight_bits(self) -> None:
        bits = self.weight_bits
        if bits is None and self.backend != "tensorrt" and products_saturate(cpu_features()):
            bits = 7
        elif bits is not None and "int8" not in self.precision:
            raise UsageError(f"--weight-bits means nothing to --precision {self.precision}")
        if bits not in (None, 7, 8):
            raise UsageError(f"--weight-bits {bits}: give 7 or 8")
        object.__setattr__(self, "settings", replace(self.settings, overflow_fix=bits == 7))

    def _check_finetune(self) -> None:
        if not self.finetune:
            return
        if self.finetune < 0:
            raise UsageError(f"--finetune {self.finetune}: give a number of steps")
        if "int8" not in self.precision:
            raise UsageError(f"--finetune teaches INT8: it means nothing to {self.precision}")
        if self.frames < 2 * self.batch:
            raise UsageError(
                f"--finetune learns from some frames and is judged by others: give --frames "
                f"{2 * self.batch} or more"
            )
        if self.search:
            raise UsageError(
                "--finetune and --search exclude each other: layers left in float would have the "
                "weights from before the fine-tuning",
                hint="try --finetune alone, then --search alone",
            )

    def _check_gate(self) -> None:
        if self.search and (self.gate is None or "int8" not in self.precision):
            raise UsageError(
                "--search keeps the gate's limits: give --max-drop or --max-class-drop, and int8"
            )
        if self.gate is None:
            return
        check_limits(self.gate.max_drop, self.gate.max_class_drop)
        if self.precision == "fp32":
            raise UsageError(
                "--max-drop and --max-class-drop are what may be lost against fp32: "
                "--precision fp32 loses nothing"
            )
        if "int8" in self.precision and self.split == "val":
            raise UsageError(
                "--max-drop and --max-class-drop score the val split, so it cannot be the one "
                "that calibrates",
                hint="calibrate on train",
            )
