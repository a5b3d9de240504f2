"""ONNX (float, or Q/DQ) -> OpenVINO IR, compared with its graph before anyone may use it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import onnx

from calibration.frames import FrameList
from pipeline.artifact import Artifact
from pipeline.divergence import first_divergence, trace
from pipeline.engines.base import Engine
from pipeline.engines.cpu import cpu_features, cpu_model, overflow_warning
from pipeline.engines.onnxruntime import OnnxRuntimeEngine
from pipeline.engines.openvino import OpenVINOEngine, import_openvino
from pipeline.errors import CheckFailedError, SinkError
from pipeline.stage import Notify, Product, Stage, StageConfig
from pipeline.store import Store
from pipeline.verify import batches, check_count, compare

XML, BIN = "engine.xml", "engine.bin"


class BuildOpenVINOConfig(StageConfig):
    """Precision, the agreement asked for, and the hash of the frames that judge."""

    precision: Literal["fp32", "fp16", "int8"]
    frames: str
    min_agreement: float
    check_frames: int = 8


class BuildOpenVINOStage(Stage):
    """Two inputs: the graph to build from, and the float graph that int8 is compared with too."""

    name = "build-openvino"
    version = 3
    produces = "engine"
    tools = ("openvino", "onnxruntime")
    config: BuildOpenVINOConfig

    def __init__(
        self, config: BuildOpenVINOConfig, store: Store, frames: FrameList,
        notify: Notify | None = None,
    ) -> None:  # fmt: skip
        super().__init__(config, store, notify)
        self.frames = frames

    def device(self) -> dict[str, Any]:
        """The engine was verified on this CPU, and is trusted on no other kind."""
        return {"cpu": cpu_model(), "features": list(cpu_features())}

    def build(self, inputs: Sequence[Artifact], folder: Path) -> Product:
        """See ``Stage``. Raises ``CheckFailedError`` naming where the two part."""
        graph, floating = inputs
        openvino = import_openvino()
        model = openvino.convert_model(str(graph.path))
        try:
            openvino.save_model(
                model, folder / XML, compress_to_fp16=self.config.precision == "fp16"
            )
        except RuntimeError as error:
            # Its own writer says no more than "iostream error", whatever the system said.
            raise SinkError(
                f"OpenVINO cannot write '{folder / XML}' whole: {str(error).splitlines()[0]}",
                hint="free some space, or name another folder with --output",
            ) from error
        del model
        cost = int(floating.facts["multiply_adds"])
        batch, height, width, _channels = floating.manifest.inputs[0].shape
        stacks = list(
            batches(
                self.frames.images(height, width),
                batch,
                check_count(cost, self.config.check_frames),
            )
        )
        with OpenVINOEngine(folder / XML, precision=self.config.precision) as engine:
            info = engine.info
            references: dict[str, Engine] = {"graph": OnnxRuntimeEngine(graph.path)}
            if graph.sha256 != floating.sha256:
                references["fp32"] = OnnxRuntimeEngine(floating.path)
            agreements = compare(engine, references, stacks)
        exact = agreements["graph"]
        if not exact.labels >= self.config.min_agreement:
            raise CheckFailedError(
                f"the {self.config.precision} engine is not its graph: they name the same class on "
                f"{exact.labels:.2%} of positions (asked for {self.config.min_agreement:.2%}); "
                f"{self._parting(graph, stacks[0])}",
                hint=overflow_warning(graph.facts.get("weight_bits")),
            )
        return Product(
            main=XML,
            others=(BIN,),
            inputs=floating.manifest.inputs,
            outputs=floating.manifest.outputs,
            facts={
                "backend": "openvino",
                "precision": self.config.precision,
                "preset": floating.facts["preset"],
                "patch": floating.facts["patch"],
                "device": self.device(),
                "executed": dict(info.executed),
                "runtime": dict(info.extra),
                "agreement": {name: a.as_json() for name, a in agreements.items()},
                "multiply_adds": cost,
                "weight_bits": graph.facts.get("weight_bits"),
            },
        )

    def _parting(self, graph: Artifact, frames: Any) -> str:
        if self.config.precision != "int8":
            return "the float precision of this device is not enough for it"
        cut = first_divergence(trace(onnx.load(graph.path), frames))
        if cut is None:
            return "no single node is to blame: rounding adds up along the graph"
        return f"they part at node '{cut.node}' ({cut.kind}), by {cut.error:.1%} of its norm"
