"""The Q/DQ graphs, taught on the calibration frames by their float graph: no labels needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import onnx

from calibration.frames import FrameList
from pipeline.artifact import Artifact
from pipeline.errors import CheckFailedError
from pipeline.frame_stage import FrameStage
from pipeline.lineage import OPENVINO_GRAPH, TENSORRT_GRAPH
from pipeline.stage import Notify, Product, StageConfig
from pipeline.stages.spellings import KEPT, write_spellings
from pipeline.store import Store
from pipeline.training.distill import DistillConfig, distill
from pipeline.training.qdq_module import QdqModule, write_back


class FinetuneConfig(StageConfig):
    """Numbers of the distillation."""

    steps: int
    rate: float = DistillConfig.rate
    seed: int = DistillConfig.seed


class FinetuneStage(FrameStage):
    """Two inputs: the Q/DQ graphs, and the float graph they were made from, which teaches.

    Its artifact takes the place of the first input, whose facts it has too, beside ``finetune``:
    see ``distill.Distilled``.
    """

    name = "finetune"
    version = 2
    produces = "qdq-onnx"
    tools = ("torch", "onnx", "numpy")
    config: FinetuneConfig

    def __init__(
        self, steps: int, store: Store, frames: FrameList, notify: Notify | None = None,
        notify_step: Callable[[int], None] = lambda step: None,
    ) -> None:  # fmt: skip
        super().__init__(FinetuneConfig(steps=steps), store, frames, notify)
        self.notify_step = notify_step

    def build(self, inputs: Sequence[Artifact], folder: Path) -> Product:
        """See ``Stage``. Raises ``CheckFailedError`` where there are too few frames to learn from.

        A student that came no nearer to its teacher leaves the graphs as they were, and the facts
        say so.
        """
        quantized, source = inputs
        stacks = self.stacks(source.manifest.inputs[0].shape)
        if len(stacks) < 2:
            raise CheckFailedError("--finetune learns from some frames and is judged by others: "
                                   "calibrate on two batches of frames at least")  # fmt: skip
        graph, floating = onnx.load(quantized.path), onnx.load(source.path)
        student = QdqModule(graph, floating)
        found = distill(
            student, QdqModule(floating, floating), stacks,
            DistillConfig(steps=self.config.steps, rate=self.config.rate, seed=self.config.seed),
            self.notify_step,
        )  # fmt: skip
        tuned = write_back(student, graph) if found.kept else graph
        write_spellings(tuned, quantized.facts["float_nodes"], folder, "fine-tuned")
        return Product(
            main=OPENVINO_GRAPH,
            others=(TENSORRT_GRAPH,),
            inputs=quantized.manifest.inputs,
            outputs=quantized.manifest.outputs,
            facts={
                **{key: quantized.facts[key] for key in KEPT},
                # Of weights that are no more, where the student's are kept.
                **({"rounding": []} if found.kept else {}),
                "finetune": {"steps": self.config.steps, **asdict(found)},
            },
        )
