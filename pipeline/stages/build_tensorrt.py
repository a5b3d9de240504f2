"""ONNX (float, or Q/DQ in the int8 spelling) -> a TensorRT engine, its layers accounted for.

TensorRT for RTX builds without a GPU. Where there is a GPU that can run the engine, it is compared
with its graph like every other engine; where there is none, the manifest says so, and what is
checked is the graph (against the float one) and the builder's own table of layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx

from calibration.qdq_lint import describe, heavy_nodes, left_in_float, lint
from pipeline import Precision
from pipeline.artifact import Artifact, Manifest, TensorSpec
from pipeline.engines.cuda_driver import find_gpu
from pipeline.engines.cuda_memory import any_adapter
from pipeline.engines.onnxruntime import OnnxRuntimeEngine
from pipeline.engines.trt_builder import BuilderOptions, build_plan
from pipeline.engines.trt_facts import engine_facts
from pipeline.engines.trt_modules import import_flavour
from pipeline.engines.trt_preflight import NAMES, Flavour, cuda_major, this_platform
from pipeline.engines.trt_start import gpu_to_build_on
from pipeline.engines.trt_trial import open_fresh
from pipeline.errors import CheckFailedError, EngineError
from pipeline.frame_stage import FrameStage, Stack
from pipeline.lowering.half import to_half
from pipeline.lowering.labels import LABELS, append_labels
from pipeline.stage import Product, StageConfig
from pipeline.verify import compare, departing_hint, label_agreement, require_agreement

ENGINE, GRAPH = "engine.engine", "engine.onnx"
MOST_STACKS = 4
"""That judge."""


class BuildTensorRTConfig(StageConfig):
    """What to build.

    Attributes:
        precision: ``int8+fp16`` computes in fp16 what is not quantized.
        flavour: which TensorRT.
        min_agreement: labels the engine, and a half-precision graph, must share with its graph.
        graph: the file of the graph artifact to build from; its main file when ``None``.
        labels: upsample and argmax on the device, so that labels come back instead of logits.
        strict_int8: a heavy layer that was to run in int8 and does not is an error.
        options: the builder's.
    """

    precision: Precision
    flavour: Flavour
    min_agreement: float
    graph: str | None = None
    labels: bool = False
    strict_int8: bool = False
    options: BuilderOptions = BuilderOptions()


class BuildTensorRTStage(FrameStage):
    """Two inputs: the graph to build from, and the float graph that half and int8 are held to.

    The frames judge.

    Its facts, besides those every engine has: ``built_with`` (see ``BuiltWith``), ``nodes`` (the
    precision each heavy ONNX node runs in), ``float_fallback`` and ``float_by_design`` (those that
    are not in int8, though quantized or because they are not), ``layers``, ``warnings``, ``half``
    (agreement of the half-precision graph), ``agreement`` (of the engine, ``None`` when it was not
    executed, and then ``not_executed`` says why).
    """

    name = "build-tensorrt"
    version = 6
    produces = "engine"
    tools = ("tensorrt", "tensorrt_rtx", "onnx", "onnxruntime")
    config: BuildTensorRTConfig

    def device(self) -> dict[str, Any]:
        """TensorRT's kernels are chosen on and for this GPU; RTX's when the engine is opened.

        The GPU counts for both, and so does whether there is a package to reach it by: an engine
        that was never executed for want of one is compared with its graph as soon as there is one.
        """
        flavour = self.config.flavour
        trt = import_flavour(flavour, why=f"building for {NAMES[flavour]}")
        facts = {"version": trt.__version__, "platform": this_platform()}
        try:
            gpu = find_gpu()
        except EngineError:
            if flavour == "tensorrt":
                raise
            return facts
        return facts | {
            "gpu": gpu.name, "sm": gpu.sm, "multiprocessors": str(gpu.multiprocessors),
            "driver": ".".join(map(str, gpu.driver)), "reached": any_adapter(),
        }  # fmt: skip

    def build(self, inputs: Sequence[Artifact], folder: Path) -> Product:
        """See ``Stage``.

        Raises:
            CheckFailedError: the graph breaks a rule, half precision changes its labels, a layer
                fell back to float under ``strict_int8``, or the engine is not its graph.
            EngineError: TensorRT refused, there is no GPU or too old a driver where it needs them,
                or there is a GPU that the engine was built for and it does not run there.
            UsageError: the flavour lacks an option.
        """
        graph, floating = inputs
        config = self.config
        trt = import_flavour(config.flavour, why=f"building for {NAMES[config.flavour]}")
        gpu = gpu_to_build_on(trt, config.flavour)
        source = graph.manifest_path.parent / (config.graph or graph.manifest.main)
        untyped = onnx.load(source)
        heavy = heavy_nodes(untyped)
        model = self._typed(untyped, source.name)
        shape, cost = floating.manifest.inputs[0].shape, int(floating.facts["multiply_adds"])
        stacks = self.check_stacks(shape, cost, MOST_STACKS)
        onnx.save(model, folder / GRAPH)
        half = None
        if "fp16" in config.precision:
            half = self._held_to(source, floating, folder / GRAPH, stacks)
        if config.labels:
            model = append_labels(model)
            onnx.save(model, folder / GRAPH)
        built = build_plan(
            trt, config.flavour, model.SerializeToString(), config.options, gpu=gpu,
            cuda=cuda_major(config.flavour),
        )  # fmt: skip
        (folder / ENGINE).write_bytes(built.plan)
        facts = engine_facts(
            built, heavy, precision=config.precision,
            output=LABELS if config.labels else "logits", strict_int8=config.strict_int8,
            about={key: floating.facts.get(key) for key in ("preset", "patch", "multiply_adds")},
        ) | {"half": half}  # fmt: skip
        product = Product(
            main=ENGINE,
            others=(GRAPH,),
            inputs=floating.manifest.inputs,
            outputs=_outputs(floating, labels=config.labels),
            facts=facts,
        )
        product.facts.update(self._execute(folder, product, floating, stacks))
        return product

    def _typed(self, model: onnx.ModelProto, name: str) -> onnx.ModelProto:
        """The graph with the precision written into it."""
        quantized = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
        if quantized != ("int8" in self.config.precision):
            kind = "a Q/DQ graph" if quantized else "a float graph"
            raise CheckFailedError(f"'{name}' is {kind}: {self.config.precision} needs the other")
        if quantized:
            broken = lint(model, "tensorrt", left_in_float(model))
            if broken:
                raise CheckFailedError(f"'{name}' breaks {describe(broken)}")
        if "fp16" not in self.config.precision:
            return model
        try:
            return to_half(model)
        except ValueError as error:
            raise CheckFailedError(f"'{name}' cannot be half precision: {error}") from error

    def _held_to(
        self, source: Path, floating: Artifact, half: Path, stacks: list[Stack]
    ) -> dict[str, Any]:
        """Agreement of the half-precision graph, or ``CheckFailedError``."""
        with (
            OnnxRuntimeEngine(half) as mine,
            OnnxRuntimeEngine(source) as exact,
            OnnxRuntimeEngine(floating.path) as floats,
        ):
            found = compare(mine, {"graph": exact, "fp32": floats}, stacks)
        if not found["graph"].labels >= self.config.min_agreement:
            raise CheckFailedError(
                f"half precision changes the graph: {found['graph'].labels:.2%} of labels are the "
                f"same (asked for {self.config.min_agreement:.2%}); use fp32 or int8"
            )
        return {name: agreement.as_json() for name, agreement in found.items()}

    def _execute(
        self, folder: Path, product: Product, floating: Artifact, stacks: list[Stack]
    ) -> dict[str, Any]:
        """Run the engine where that is possible and compare it with its graph."""
        manifest = Manifest(
            kind="engine", main=ENGINE, files={}, key="", inputs=product.inputs,
            outputs=product.outputs, facts=product.facts,
        )  # fmt: skip
        engine = open_fresh(folder / ENGINE, manifest)
        if isinstance(engine, str):
            return {"agreement": None, "not_executed": engine}
        with engine, OnnxRuntimeEngine(folder / GRAPH) as exact:
            if self.config.labels:
                wanted = [exact.infer(stack) for stack in stacks]
                agreement = {"graph": label_agreement(engine, stacks, wanted)}
            else:
                with OnnxRuntimeEngine(floating.path) as floats:
                    found = compare(engine, {"graph": exact, "fp32": floats}, stacks)
                agreement = {name: a.as_json() for name, a in found.items()}
            runtime = dict(engine.info.extra)
        require_agreement(
            agreement["graph"]["labels"], self.config.min_agreement,
            f"the {self.config.precision} engine", hint=departing_hint(self.config.precision),
        )  # fmt: skip
        return {"agreement": agreement, "not_executed": None, "runtime": runtime}


def _outputs(floating: Artifact, *, labels: bool) -> tuple[TensorSpec, ...]:
    if not labels:
        return floating.manifest.outputs
    batch, height, width, _channels = floating.manifest.inputs[0].shape
    return (TensorSpec(name=LABELS, dtype="uint8", shape=(batch, height, width), layout="NHW"),)
