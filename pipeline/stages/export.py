"""Deploy checkpoint -> float ONNX of a fixed shape, checked against torch on real frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch

from calibration.frames import FrameList
from models.checkpoints import load_segmenter
from models.segmenter import BgrFrames
from pipeline.artifact import Artifact, TensorFacts
from pipeline.engines.onnxruntime import OnnxRuntimeEngine
from pipeline.errors import CheckFailedError
from pipeline.lowering.cost import multiply_adds
from pipeline.lowering.network import INPUT, OUTPUT, lower
from pipeline.stage import Notify, Product, Stage, StageConfig
from pipeline.store import Store
from pipeline.verify import AgreementMeter, batches

# ||graph - torch|| / ||torch|| that float32 rounding in another order can explain.
TOLERANCE = 1e-4
_CHECK_MULTIPLY_ADDS = 40e9


class ExportConfig(StageConfig):
    """Shape and opset of the graph; ``frames`` is the hash of the frames that check it."""

    batch: int
    height: int
    width: int
    opset: int
    frames: str
    tolerance: float = TOLERANCE


class ExportStage(Stage):
    """Two inputs: the deploy checkpoint, and the checkpoint it came from, which judges the graph.

    So the comparison is end to end: training form in torch against the lowered deploy form.
    """

    name = "export"
    version = 3
    produces = "onnx"
    tools = ("torch", "onnx", "onnxruntime")
    config: ExportConfig

    def __init__(
        self, config: ExportConfig, store: Store, frames: FrameList, notify: Notify | None = None
    ) -> None:
        super().__init__(config, store, notify)
        self.frames = frames

    def build(self, inputs: Sequence[Artifact], folder: Path) -> Product:
        """See ``Stage``. Raises ``CheckFailedError`` when graph and torch differ."""
        deploy, source = inputs
        config = self.config
        model, preset, _report = load_segmenter(deploy.path)
        graph = lower(
            model, batch=config.batch, height=config.height, width=config.width,
            opset=config.opset, metadata={"preset": preset.name, "checkpoint": source.sha256},
            apart=deploy.facts["form"] == "train",
        )  # fmt: skip
        path = folder / "model.onnx"
        onnx.save(graph, path)
        cost = sum(multiply_adds(graph).values())
        del model
        meter = AgreementMeter()
        trained, _preset, _report = load_segmenter(source.path, preset.name)
        judge = BgrFrames(trained).eval()
        with OnnxRuntimeEngine(path) as engine, torch.inference_mode():
            frames = self.frames.images(config.height, config.width)
            for stack in batches(frames, config.batch, check_count(cost, 4)):
                reference = judge(torch.from_numpy(stack)).numpy()
                meter.add(engine.infer(stack), np.asarray(reference, np.float32))
        agreement = meter.result()
        if not agreement.logits <= config.tolerance:
            raise CheckFailedError(
                f"the exported graph is not the network: its logits differ from torch by "
                f"{agreement.logits:.2e} of their norm (allowed {config.tolerance:.0e})"
            )
        size = (config.batch, config.height, config.width, 3)
        logits = (config.batch, preset.classes, config.height // 4, config.width // 4)
        return Product(
            main=path.name,
            inputs=(TensorFacts(name=INPUT, dtype="uint8", shape=size, layout="NHWC"),),
            outputs=(TensorFacts(name=OUTPUT, dtype="float32", shape=logits, layout="NCHW"),),
            facts={
                "preset": preset.name, "patch": preset.unit, "multiply_adds": cost,
                "error": agreement.logits, "agreement": agreement.as_json(),
                "normalisation": "folded into conv_embedding",
            },
        )  # fmt: skip


def check_count(multiply_adds_per_batch: int, most: int) -> int:
    """How many batches a comparison can afford: fewer the dearer the network, at least one."""
    return int(np.clip(_CHECK_MULTIPLY_ADDS // max(multiply_adds_per_batch, 1), 1, most))
