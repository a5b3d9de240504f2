"""The TensorRT stage as its tests run it: TensorRT for RTX, which builds without a GPU."""

from __future__ import annotations

from typing import Any

from calibration.frames import FrameList
from pipeline.artifact import Artifact
from pipeline.build import BuildResult
from pipeline.lineage import TENSORRT_GRAPH
from pipeline.stages.build_tensorrt import BuildTensorRTConfig, BuildTensorRTStage
from pipeline.store import Store


def stage_of(
    store: Store, frames: FrameList, notify: Any = None, **config: Any
) -> BuildTensorRTStage:
    settings: dict[str, Any] = {
        "precision": "int8", "flavour": "tensorrt-rtx",
        "min_agreement": 0.5,
    } | config  # fmt: skip
    if "int8" in settings["precision"]:
        settings.setdefault("graph", TENSORRT_GRAPH)
    return BuildTensorRTStage(BuildTensorRTConfig(**settings), store, frames, notify)


def run_stage(
    store: Store, frames: FrameList, build: BuildResult, notify: Any = None, **config: Any
) -> Artifact:
    stage = stage_of(store, frames, notify, **config)
    assert build.quantized is not None
    source = build.quantized if "int8" in stage.config.precision else build.graph
    return stage.run(source, build.graph)
