"""The first run of an engine that was built a moment ago, where it can run at all."""

from __future__ import annotations

from pathlib import Path

from pipeline.artifact import Manifest
from pipeline.engines.base import Engine
from pipeline.engines.cuda_driver import find_gpu
from pipeline.engines.tensorrt import open_tensorrt
from pipeline.errors import ArtifactError, EngineError, MissingDependencyError


def open_fresh(path: Path, manifest: Manifest) -> Engine | str:
    """The engine, open; or why it cannot be run and judged on this machine.

    Raises ``EngineError`` where TensorRT itself does not open what it has just built for the GPU at
    hand. TensorRT for RTX may have built for GPUs that this one is not among.
    """
    try:
        gpu = find_gpu()
    except EngineError as error:
        return str(error)
    try:
        # Host code is allowed: what it carries was put there a moment ago.
        return open_tensorrt(path, manifest, allow_host_code=True)
    except (MissingDependencyError, ArtifactError) as error:
        return f"{error} ({gpu.name})"
    except EngineError as error:
        if manifest.facts["built_with"]["flavour"] == "tensorrt":
            raise
        return f"{error} ({gpu.name})"
