"""The fewest layers to leave in float so that INT8 keeps a bound: a search by sensitivity.

Frames of the calibration split are scored, never those that the gate scores. Layers are ranked by
what quantizing each alone does to the logits (``report.sensitivity``). Then

* *add*: the graph is scored with the first 0, 1, 2... of them in float, until the bound is kept. It
  always is in the end: with every layer in float nothing is lost;
* *take back*: one by one, the least sensitive first, a layer goes back to int8 where the bound is
  still kept without it.

So no single layer of the answer can be spared. Layers in float cost time; their share of the
network's multiply-adds is in the facts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx

from calibration.ablation import Ablation
from calibration.spelling import to_int8_spelling
from pipeline import EngineBackend
from pipeline.artifact import Artifact
from pipeline.lineage import OPENVINO_GRAPH, TENSORRT_GRAPH
from pipeline.lowering.cost import multiply_adds
from pipeline.report.frames import CheckedFrames
from pipeline.report.sensitivity import Bench, compare, ranked
from pipeline.report.verdict import gate
from pipeline.stage import PICTURES, Notify, Product, Stage, StageConfig
from pipeline.stages.spellings import write_spellings
from pipeline.store import Store


@dataclass(frozen=True)
class Trial:
    """One graph that was scored: the layers in float, points lost, and whether it keeps the bound.

    ``worst_class`` and ``worst_drop`` are of the class that lost most.
    """

    floating: tuple[str, ...]
    drop: float
    worst_class: str
    worst_drop: float
    passed: bool


Judge = Callable[[Sequence[str]], Trial]
"""Scores the graph with those layers in float."""


def fewest(order: Sequence[str], judge: Judge) -> tuple[tuple[str, ...], list[Trial]]:
    """The layers to leave in float, most sensitive first, and every trial made on the way.

    Args:
        order: all layers, most sensitive first.
        judge: must pass for all layers.
    """
    trials = []
    kept: list[str] = []
    for count in range(len(order) + 1):
        kept = list(order[:count])
        trials.append(judge(kept))
        if trials[-1].passed:
            break
    # The last one was needed, or the trial before would have passed.
    for layer in reversed(kept[:-1]):
        trial = judge([each for each in kept if each != layer])
        trials.append(trial)
        if trial.passed:
            kept.remove(layer)
    return tuple(kept), trials


class SearchConfig(StageConfig):
    """The bound in points, and whose spelling is scored."""

    max_drop: float
    max_class_drop: float
    backend: EngineBackend


class SearchStage(Stage):
    """Inputs: the Q/DQ graphs, and the float graph they were made from.

    Its artifact takes the place of the first input. Its facts: ``floating`` (the layers left in
    float), ``float_share`` (their share of the multiply-adds), ``trials`` (see ``Trial``),
    ``ranking`` (see ``schema.SensitivityRow``), ``float_nodes``, and ``frames``.
    """

    name = "search"
    version = 1
    produces = "qdq-onnx"
    tools = ("onnx", "onnxruntime", "numpy", *PICTURES)
    config: SearchConfig

    def __init__(
        self, config: SearchConfig, store: Store, frames: CheckedFrames,
        notify: Notify | None = None, notify_rank: Callable[[int, int], None] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(config, store, notify)
        self.frames, self.notify_rank = frames, notify_rank

    def parameters(self) -> dict[str, Any]:
        """The config, and the frames' hash as ``frames``."""
        return super().parameters() | {"frames": self.frames.digest}

    def build(self, inputs: Sequence[Artifact], folder: Path) -> Product:
        """See ``Stage``. Raises ``CheckFailedError`` where the answer breaks a rule of the graphs.

        Raises ``DatasetError`` where the frames hold no scored pixel.
        """
        quantized, source = inputs
        floating = onnx.load(source.path)
        ablation = Ablation(onnx.load(quantized.path), floating)
        bench = Bench(self.frames, range(len(self.frames.names)))
        reference = bench.run(floating)
        rows = []
        for done, (name, kind) in enumerate(ablation.layers.items(), 1):
            rows.append(compare(name, kind, bench.run(self._spelled(ablation, [name])), reference))
            if self.notify_rank is not None:
                self.notify_rank(done, len(ablation.layers))
        rows = ranked(rows)

        def judge(in_float: Sequence[str]) -> Trial:
            chosen = [name for name in ablation.layers if name not in in_float]
            found = gate(
                reference.confusion, bench.run(self._spelled(ablation, chosen)).confusion,
                self.config.max_drop, self.config.max_class_drop,
            )  # fmt: skip
            worst = found.worst
            return Trial(tuple(in_float), found.drop, worst.name, worst.drop, found.passed)

        kept, trials = fewest([row.layer for row in rows], judge)
        allowed = [*quantized.facts["float_nodes"], *kept]
        write_spellings(ablation.without(kept), allowed, folder, "with layers in float")
        costs = multiply_adds(floating)
        return Product(
            main=OPENVINO_GRAPH,
            others=(TENSORRT_GRAPH,),
            inputs=quantized.manifest.inputs,
            outputs=quantized.manifest.outputs,
            facts={
                "floating": list(kept),
                "float_share": sum(costs.get(name, 0) for name in kept) / sum(costs.values()),
                "trials": [asdict(trial) | {"floating": list(trial.floating)} for trial in trials],
                "ranking": [row.model_dump() for row in rows],
                "float_nodes": allowed,
                "frames": list(self.frames.names),
            },
        )

    def _spelled(self, ablation: Ablation, layers: Sequence[str]) -> onnx.ModelProto:
        model = ablation.only(layers)
        return to_int8_spelling(model) if self.config.backend == "tensorrt" else model
