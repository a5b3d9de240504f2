"""Deploy checkpoint -> float ONNX of a fixed shape, checked against torch on real frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch

from models.checkpoints import load_segmenter
from models.segmenter import BgrFrames
from pipeline.artifact import Artifact, TensorSpec
from pipeline.engines.onnxruntime import OnnxRuntimeEngine
from pipeline.errors import CheckFailedError
from pipeline.frame_stage import FrameStage
from pipeline.lowering.cost import multiply_adds
from pipeline.lowering.network import INPUT, OUTPUT, lower
from pipeline.stage import Product, StageConfig
from pipeline.verify import Agreement, AgreementMeter

# ||graph - torch|| / ||torch|| that float32 rounding in another order can explain.
TOLERANCE = 1e-4
# A very deep network rounds more than that. Then float64 judges both: the graph may be this many
# times as far from it as torch's own float32 is, and no farther than the second in any case.
NOISE, MOST = 4.0, 1e-2
MOST_STACKS = 4


class ExportConfig(StageConfig):
    """Shape and opset of the graph; ``convolve`` is FC3's spelling, see ``lower``."""

    batch: int
    height: int
    width: int
    opset: int
    convolve: bool = False


class ExportStage(FrameStage):
    """Two inputs: the deploy checkpoint, and the checkpoint it came from, which judges the graph on
    the frames.

    So the comparison is end to end: training form in torch against the lowered deploy form.
    """

    name = "export"
    version = 6
    produces = "onnx"
    tools = ("torch", "onnx", "onnxruntime")
    config: ExportConfig

    def build(self, inputs: Sequence[Artifact], folder: Path) -> Product:
        """See ``Stage``. Raises ``CheckFailedError`` when graph and torch differ."""
        deploy, source = inputs
        config = self.config
        model, preset, _report = load_segmenter(deploy.path)
        graph = lower(
            model, batch=config.batch, height=config.height, width=config.width,
            opset=config.opset, metadata={"preset": preset.name, "checkpoint": source.sha256},
            apart=deploy.facts["form"] == "train", convolve=config.convolve,
        )  # fmt: skip
        path = folder / "model.onnx"
        onnx.save(graph, path)
        cost = sum(multiply_adds(graph).values())
        del model
        trained, _preset, _report = load_segmenter(source.path, preset.name)
        judge = BgrFrames(trained).eval()
        size = (config.batch, config.height, config.width, 3)
        stacks = self.check_stacks(size, cost, MOST_STACKS)
        with OnnxRuntimeEngine(path) as engine:
            agreement = compare_with_torch(engine, judge, stacks)
            exact = None
            if not agreement.logits <= TOLERANCE:
                exact = compare_with_float64(engine, judge, stacks[0])
        # float64 judges one stack; that the others are the network too, float32 tells well enough.
        if exact is not None and not (
            exact.error <= min(NOISE * exact.noise, MOST) and agreement.logits <= MOST
        ):
            raise CheckFailedError(
                f"the exported graph is not the network: its logits differ from torch by "
                f"{agreement.logits:.2e} of their norm (allowed {TOLERANCE:.0e}), and from "
                f"float64 by {exact.error:.2e}, where float32 in torch does by {exact.noise:.2e}"
            )
        logits = (config.batch, preset.classes, config.height // 4, config.width // 4)
        return Product(
            main=path.name,
            inputs=(TensorSpec(name=INPUT, dtype="uint8", shape=size, layout="NHWC"),),
            outputs=(TensorSpec(name=OUTPUT, dtype="float32", shape=logits, layout="NCHW"),),
            facts={
                "preset": preset.name, "patch": preset.unit, "multiply_adds": cost,
                "error": agreement.logits, "agreement": agreement.as_json(),
                "float64": asdict(exact) if exact is not None else None,
                "normalisation": "folded into conv_embedding",
            },
        )  # fmt: skip


@dataclass(frozen=True)
class FloatNoise:
    """Distances from the network in float64, as shares of its logits' norm.

    Attributes:
        error: of the graph, in float32.
        noise: of torch, in float32: what rounding alone does.
    """

    error: float
    noise: float


def compare_with_torch(
    engine: OnnxRuntimeEngine, judge: BgrFrames, stacks: Sequence[npt.NDArray[np.uint8]]
) -> Agreement:
    """The graph against torch, both in float32, on uint8 BGR frames (N, H, W, 3)."""
    meter = AgreementMeter()
    with torch.inference_mode():
        for stack in stacks:
            reference = judge(torch.from_numpy(stack)).numpy()
            meter.add(engine.infer(stack), np.asarray(reference, np.float32))
    return meter.result()


def compare_with_float64(
    engine: OnnxRuntimeEngine, judge: BgrFrames, stack: npt.NDArray[np.uint8]
) -> FloatNoise:
    """Graph and torch, in float32, against torch in float64. ``judge`` is float64 afterwards."""
    frames = torch.from_numpy(stack)
    with torch.inference_mode():
        rounded = judge(frames).double().numpy()
        exact = judge.double()(frames).numpy()
    norm = float(np.linalg.norm(exact))
    error = float(np.linalg.norm(engine.infer(stack).astype(np.float64) - exact))
    return FloatNoise(error / norm, float(np.linalg.norm(rounded - exact)) / norm)
