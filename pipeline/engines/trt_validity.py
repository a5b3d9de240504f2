"""What TensorRT's runtime thinks of a plan before it loads it, in words.

Its bindings give the reasons as one number, the bits of ``EngineInvalidityDiagnostics`` (TensorRT
for RTX 1.7.1: an ``int``), which says nothing to anybody.
"""

from __future__ import annotations

import warnings
from typing import Any

from pipeline.engines.trt_preflight import UnfitError
from pipeline.errors import ArtifactError, EngineError

_WORDS = {
    "VERSION_MISMATCH": "it was built by another version",
    "UNSUPPORTED_CC": "it was not built for this GPU's compute capability",
    "OLD_CUDA_DRIVER": "the driver is too old",
    "OLD_CUDA_RUNTIME": "the CUDA runtime is too old",
    "INSUFFICIENT_GPU_MEMORY": "there is not enough GPU memory",
    "MALFORMED_ENGINE": "it is no engine, or is damaged",
    "CUDA_ERROR": "CUDA failed",
}
_CUDA = {"CUDA_ERROR", "OLD_CUDA_DRIVER", "OLD_CUDA_RUNTIME"}


def check_validity(
    trt: Any, runtime: Any, plan: bytes, *, name: str, rebuild: str, workspace: int
) -> None:
    """Refuse a plan that the runtime calls invalid; warn of one that will not be quick here.

    Args:
        trt: the module.
        runtime: which may not have the question: full TensorRT has not.
        plan: the engine's bytes.
        name: its file name, for the message.
        rebuild: the command that makes it again, for the hint.
        workspace: to build it again with where it wants too much memory, MiB; for the hint.

    Raises:
        EngineError: for want of GPU memory, or because of CUDA or the driver.
        UnfitError: it was built for other GPUs.
        ArtifactError: for anything else about the plan itself.
    """
    if not hasattr(runtime, "get_engine_validity"):
        return
    validity, why = runtime.get_engine_validity(plan)
    if validity == trt.EngineValidity.SUBOPTIMAL:
        warnings.warn(
            f"engine '{name}' was not made for this GPU: it runs, more slowly than one that was",
            RuntimeWarning,
            stacklevel=2,
        )
    if validity != trt.EngineValidity.INVALID:
        return
    names = _names(trt, int(why))
    words = ", ".join(_WORDS.get(each, each.lower().replace("_", " ")) for each in names)
    said = f"engine '{name}' is not valid on this machine: {words or f'reason {int(why)}'}"
    if "INSUFFICIENT_GPU_MEMORY" in names:
        raise EngineError(
            f"out of GPU memory: engine '{name}' cannot be loaded",
            hint=f"close other programs on the GPU, or build it with --workspace {workspace}",
        )
    if _CUDA & set(names):
        raise EngineError(
            said, hint="check the driver with nvidia-smi; install a newer one if it is too old"
        )
    damaged = "MALFORMED_ENGINE" in names
    kind = UnfitError if "UNSUPPORTED_CC" in names and not damaged else ArtifactError
    raise kind(said, hint=f"build it here: {rebuild}")


def _names(trt: Any, bits: int) -> list[str]:
    kinds = getattr(trt, "EngineInvalidityDiagnostics", None)
    members = getattr(kinds, "__members__", {})
    return [name for name, member in members.items() if bits & int(member)]
