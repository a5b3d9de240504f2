"""ONNX (float, or Q/DQ) -> OpenVINO IR, compared with its graph before anyone may use it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import onnx

from pipeline import OpenVINOPrecision
from pipeline.artifact import Artifact
from pipeline.divergence import first_divergence, trace
from pipeline.engines.cpu import device_facts, overflow_warning
from pipeline.engines.onnxruntime import OnnxRuntimeEngine
from pipeline.engines.openvino import OpenVINOEngine, import_openvino
from pipeline.errors import SinkError
from pipeline.frame_stage import FrameStage, Stack
from pipeline.stage import Product, StageConfig
from pipeline.verify import compare, departing_hint, require_agreement

XML, BIN = "engine.xml", "engine.bin"
MOST_STACKS = 8
"""That judge."""


class BuildOpenVINOConfig(StageConfig):
    """Precision, and the agreement asked for."""

    precision: OpenVINOPrecision
    min_agreement: float


class BuildOpenVINOStage(FrameStage):
    """Two inputs: the graph to build from, and the float graph that int8 is compared with too.

    The frames judge.
    """

    name = "build-openvino"
    version = 3
    produces = "engine"
    tools = ("openvino", "onnxruntime")
    config: BuildOpenVINOConfig

    def device(self) -> dict[str, Any]:
        """The engine was verified on this CPU, and is trusted on no other kind."""
        return device_facts()

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
        stacks = self.check_stacks(floating.manifest.inputs[0].shape, cost, MOST_STACKS)
        sources = {"graph": graph} | ({"fp32": floating} if graph.sha256 != floating.sha256 else {})
        with ExitStack() as opened:
            engine = opened.enter_context(
                OpenVINOEngine(folder / XML, precision=self.config.precision)
            )
            info = engine.info
            references = {
                name: opened.enter_context(OnnxRuntimeEngine(source.path))
                for name, source in sources.items()
            }
            agreements = compare(engine, references, stacks)
        require_agreement(
            agreements["graph"].labels, self.config.min_agreement,
            f"the {self.config.precision} engine", lambda: self._parting(graph, stacks[0]),
            hint=overflow_warning(graph.facts.get("weight_bits"))
            or departing_hint(self.config.precision),
        )  # fmt: skip
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

    def _parting(self, graph: Artifact, frames: Stack) -> str:
        """Where engine and graph part, for the error."""
        if self.config.precision != "int8":
            return "the float precision of this device is not enough for it"
        cut = first_divergence(trace(onnx.load(graph.path), frames))
        if cut is None:
            return "no single node is to blame: rounding adds up along the graph"
        return f"they part at node '{cut.node}' ({cut.kind}), by {cut.error:.1%} of its norm"
