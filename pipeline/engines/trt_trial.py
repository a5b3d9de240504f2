"""The first run of an engine that was built a moment ago, where it can run at all."""

from __future__ import annotations

from pathlib import Path

from pipeline.artifact import Manifest
from pipeline.engines.base import Engine
from pipeline.engines.cuda_driver import find_gpu
from pipeline.engines.tensorrt import open_tensorrt
from pipeline.engines.trt_preflight import UnfitError
from pipeline.errors import ArtifactError, EngineError, MissingDependencyError


def open_fresh(path: Path, manifest: Manifest) -> Engine | str:
    """The engine, open; or why nobody can run and judge it on this machine.

    That is so where there is no GPU, where the engine was built for other GPUs than the one at hand
    or for a newer driver, which TensorRT for RTX can do, and where no CUDA package is installed.

    Raises:
        EngineError: there is a GPU that it was built for, and it does not run there. An engine of
            which that is known is not one that merely could not be tried.
    """
    try:
        gpu = find_gpu()
    except EngineError as error:
        return str(error)
    try:
        # Host code is allowed: what it carries was put there a moment ago.
        return open_tensorrt(path, manifest, allow_host_code=True)
    except (MissingDependencyError, UnfitError) as error:
        return f"{error} ({gpu.name})"
    except (ArtifactError, EngineError) as error:
        raise EngineError(
            f"the engine was built and does not run on this GPU ({gpu.name}): {error}",
            # To build it again is what the other hints say, which was just done.
            hint=error.hint if isinstance(error, EngineError) else None,
        ) from error
