"""What a build asks of its back ends: which TensorRT, an engine of the store opened, its checks."""

from __future__ import annotations

from typing import Any

from pipeline.artifact import Artifact
from pipeline.build_options import BuildOptions
from pipeline.engines.base import Engine
from pipeline.engines.cuda_driver import has_gpu
from pipeline.engines.onnxruntime import OnnxRuntimeEngine
from pipeline.engines.openvino import OpenVINOEngine
from pipeline.engines.tensorrt import open_tensorrt
from pipeline.engines.trt_builder import check_options
from pipeline.engines.trt_modules import import_flavour, installed_flavours
from pipeline.engines.trt_preflight import NAMES, Flavour
from pipeline.engines.trt_start import gpu_to_build_on


def choose_flavour(options: BuildOptions) -> Flavour:
    """Which TensorRT builds, asked before anything else: it is there, and has every option.

    Raises:
        MissingDependencyError: it is not installed.
        EngineError: it does not load, or has no GPU or too old a driver where it needs them.
        UsageError: it lacks an option.
    """
    flavour = options.tensorrt.flavour
    if flavour is None:
        there = installed_flavours()
        flavour = there[0] if there else "tensorrt-rtx"
        if len(there) > 1 and not has_gpu():
            flavour = "tensorrt-rtx"  # builds without
    trt = import_flavour(flavour, why=f"building for {NAMES[flavour]}")
    check_options(trt, flavour, options.tensorrt.builder)
    gpu_to_build_on(trt, flavour)
    return flavour


def open_built(artifact: Artifact) -> Engine:
    """An engine of the store; its exact graph where it cannot run here."""
    facts = artifact.facts
    if facts["backend"] == "openvino":
        return OpenVINOEngine(artifact.path, precision=facts["precision"])
    if facts["agreement"] is not None:
        # Of the store, so built here: host code that it may carry is our own.
        return open_tensorrt(artifact.path, artifact.manifest, allow_host_code=True)
    (graph,) = (name for name in artifact.manifest.files if name.endswith(".onnx"))
    return OnnxRuntimeEngine(artifact.path.parent / graph, precision=facts["precision"])


def agreements(
    backend: str, artifact: Artifact, comparison: dict[str, Any] | None
) -> dict[str, Any]:
    """Shares of labels: the engine's with its exact graph, and int8's with fp32."""
    found = artifact.facts["agreement"]
    if comparison is None or backend == "openvino" or (found is not None and "fp32" in found):
        return {
            "engine_agreement": found["graph"]["labels"],
            "int8_agreement": found["fp32"]["labels"] if "fp32" in found else None,
            "checked_frames": found["graph"]["frames"],
        }
    labels = comparison["labels"]
    agreed = labels.get("fp32 / tensorrt engine", labels["fp32 / tensorrt graph"])
    return {
        "engine_agreement": None if found is None else found["graph"]["labels"],
        # The exact graph's where the engine was not executed.
        "int8_agreement": agreed if "int8" in artifact.facts["precision"] else None,
        "checked_frames": comparison["frames"],
    }
