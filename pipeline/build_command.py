"""The command line that builds an engine again, for whoever finds that it does not fit."""

from __future__ import annotations

import shlex
from typing import Any

from pipeline.build_options import BuildOptions

_COMMAND = ("python", "scripts/build_engine.py")


def rebuild_command(options: BuildOptions, backend: str) -> str:
    """A shell's command for that back end's engine of these options, on the machine at hand.

    What is at its default is left out, but for precision and shape, which tell people which engine
    it is. So are compute capabilities: the hint is for a GPU that those asked for do not include,
    and an engine for none in particular runs there too. And so is ``--tune``, which measures one
    machine and is kept with the engine whether it is asked for again or not.
    """
    default = BuildOptions()
    words = [*_COMMAND] + (["--backend", backend] if backend != default.backend else [])
    words += ["--precision", options.precision, "--shape", _shape(options.shape)]

    def add(option: str, value: Any, usual: Any, spelled: str | None = None) -> None:
        if value == usual:
            return
        words.append(option)
        if not isinstance(value, bool):
            words.append(str(value) if spelled is None else spelled)

    for option, name in (
        ("--checkpoint", "checkpoint"), ("--preset", "preset"), ("--batch", "batch"),
        ("--dataset", "dataset"), ("--frames", "frames"), ("--split", "split"),
        ("--force-split", "force_split"), ("--output", "output"), ("--injection", "injection"),
        ("--finetune", "finetune"), ("--opset", "opset"), ("--random-weights", "random_weights"),
        ("--search", "search"),
    ):  # fmt: skip
        add(option, getattr(options, name), getattr(default, name))
    add("--estimator", options.settings.estimator, default.settings.estimator)
    add("--rounding", options.settings.rounding, default.settings.rounding)
    add("--weight-bits", options.weight_bits, None)
    agreement = f"{100 * options.min_agreement:.10g}"
    usual = 0.0 if options.random_weights else default.min_agreement  # as the command has it
    add("--min-agreement", options.min_agreement, usual, agreement)
    if options.calibration_shape is not None:
        words += ["--calibration-shape", _shape(options.calibration_shape)]
    if options.gate is not None:
        words += ["--max-drop", f"{options.gate.max_drop:.10g}"]
        words += ["--max-class-drop", f"{options.gate.max_class_drop:.10g}"]
    if backend == "openvino":
        return shlex.join(words)
    own, builder = options.tensorrt, options.tensorrt.builder
    add("--flavour", own.flavour, None)
    add("--labels", own.labels, False)
    add("--strict-int8", own.strict_int8, False)
    add("--workspace", builder.workspace_mib, None)
    add("--optimization-level", builder.optimization_level, None)
    add("--timing-cache", builder.timing_cache, False)
    add("--version-compatible", builder.version_compatible, False)
    add("--hardware", builder.hardware, "same")
    return shlex.join(words)


def _shape(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
