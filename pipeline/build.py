"""From a checkpoint to verified engines: the stages in their order.

    checkpoint (-> choose) -> inject -> export -> quantize (-> carry) (-> finetune) -> build -> gate
    -> engine (-> tune)

Where the gate refuses and a search was asked for, that comes in between: quantize -> search ->
build -> gate. Where TensorRT builds, engines and graphs are compared with one another at the end.

Everything on the way lies in ``OUTPUT/.store`` under its content's key; a second run with nothing
changed finds all of it there. OpenVINO's and TensorRT's engines come from one calibration. Tuning
comes last and changes nothing but the manifest in ``OUTPUT``.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any

from calibration.cityscapes import Cityscapes
from calibration.frames import FrameList, checking_frames, select_frames
from models import DEFAULT_PRESET
from models.repmlp import check_input_size
from models.segmenter import find_preset
from pipeline import EngineBackend, OpenVINOPrecision
from pipeline.artifact import Artifact
from pipeline.build_command import rebuild_command
from pipeline.build_engines import agreements, choose_flavour, open_built
from pipeline.build_inputs import engine_name, find_checkpoint, label_of, open_dataset
from pipeline.build_options import (
    BuildOptions,
    GateLimits,
    TensorRTOptions,
    TunePace,
)
from pipeline.build_result import BuildResult, BuiltEngine
from pipeline.engines.trt_preflight import Flavour
from pipeline.errors import SinkError
from pipeline.gate import SPLIT, Outcome, check_unseen, hold
from pipeline.lineage import STORE, TENSORRT_GRAPH
from pipeline.publish import made_otherwise, output_folder, publish, withdraw
from pipeline.report.frames import CheckedFrames, check_frames
from pipeline.report.subjects import Subject
from pipeline.stage import Notify, StageEvent
from pipeline.stages.build_openvino import BuildOpenVINOConfig, BuildOpenVINOStage
from pipeline.stages.build_tensorrt import BuildTensorRTConfig, BuildTensorRTStage
from pipeline.stages.carry import CarryConfig, CarryStage
from pipeline.stages.choose import ChooseConfig, ChooseStage
from pipeline.stages.compare import CompareConfig, CompareStage
from pipeline.stages.export import ExportConfig, ExportStage
from pipeline.stages.finetune import FinetuneStage
from pipeline.stages.inject import InjectConfig, InjectStage
from pipeline.stages.quantize import QuantizeStage
from pipeline.stages.search import SearchConfig, SearchStage
from pipeline.stages.tune import TuneConfig, TuneStage
from pipeline.store import Store

__all__ = [
    "DEFAULT_PRESET", "BuildOptions", "BuildResult", "BuiltEngine", "GateLimits",
    "Progress", "TensorRTOptions", "TunePace", "build", "open_dataset",
]  # fmt: skip

CHECK_FRAMES = 8
# What scores a search: each of dozens of layers is a run of the exact graph over all of them.
SEARCH_FRAMES = 16
SEARCHED = ("floating", "float_share", "trials")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Who is told what. ``scored`` is told the back end, the frames done and all of them;
    ``ranked`` of the search, the layers done and all of them; ``tuned`` likewise, of turns;
    ``learned`` the steps of fine-tuning."""

    stage: Notify = lambda event: None
    calibrated: Callable[[int], None] = lambda count: None
    scored: Callable[[str, int, int], None] = lambda backend, done, total: None
    ranked: Callable[[int, int], None] = lambda done, total: None
    tuned: Callable[[int, int], None] = lambda done, total: None
    learned: Callable[[int], None] = lambda steps: None


def build(options: BuildOptions, progress: Progress | None = None) -> BuildResult:
    """Build, verify, hold to the gate and publish.

    An engine that the gate refuses is not published, see ``BuildResult.passed``.

    Raises:
        UsageError, CheckpointError, ModelError, CalibrationDataError, DatasetError: bad input.
        SinkError: the output folder cannot be written to, or the disk is full.
        MissingDependencyError, EngineError: a back end is not here or refuses.
        CheckFailedError: a stage's output is not what its input says it must be.
    """
    try:
        with output_folder(options.output):
            return _Build(options, progress or Progress()).run()
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise SinkError(
            f"no room in '{options.output}': {error.strerror}",
            hint="free some space, or name another folder with --output",
        ) from error


class _Build:
    """One build under way."""

    def __init__(self, options: BuildOptions, progress: Progress) -> None:
        self.options, self.progress = options, progress
        self.store = Store(options.output / STORE)
        self.cached: list[str] = []
        self.start = time.perf_counter()

    def run(self) -> BuildResult:
        options = self.options
        flavour = choose_flavour(options) if options.backend != "openvino" else None
        checkpoint, preset = find_checkpoint(options, self.store)
        for option, shape in (
            ("--shape", options.shape), ("--calibration-shape", options.calibration_shape)
        ):  # fmt: skip
            if shape is not None:
                check_input_size(*shape, find_preset(preset).unit, option)
        dataset = open_dataset(options.dataset, options.output, self.told)
        checking = checking_frames(dataset, CHECK_FRAMES)
        calibrating = None
        if "int8" in options.precision:
            calibrating = select_frames(
                dataset, options.frames, options.split, allow_val=options.force_split
            )
        scoring = check_frames(dataset.root, SPLIT) if options.gate is not None else None
        check_unseen(calibrating, scoring, forced=options.force_split)
        if options.search:  # not after minutes of building
            check_frames(dataset.root, options.split, limit=SEARCH_FRAMES)

        deploy = self.inject(checkpoint, preset, dataset)
        graph = self.export(deploy, checkpoint, options.shape, checking)
        quantized = None
        if calibrating is not None:
            small = graph
            if options.calibration_shape not in (None, options.shape):
                small = self.export(deploy, checkpoint, options.calibration_shape, checking)
            quantized = self.quantize(small, graph, calibrating)
        name = engine_name(options, preset, label_of(checkpoint))
        built, outcomes = self.held(quantized or graph, graph, checking, flavour, scoring)
        searched: dict[str, Any] | None = None
        failed = [backend for backend, found in outcomes.items() if not found.verdict.passed]
        if options.search and failed and quantized is not None and options.gate is not None:
            for backend in failed:  # what the search replaces must not stay behind
                withdraw(built[backend], options.output, name)
            quantized = self.search(quantized, graph, dataset, failed[0], options.gate)
            searched = quantized.facts
            built, outcomes = self.held(quantized, graph, checking, flavour, scoring)
        comparison = None
        if flavour is not None:
            comparison = self.compare(graph, built, quantized, checking)
        engines = []
        for backend, artifact in built.items():
            checks = {
                "injection_error": deploy.facts["error"],
                "export_error": graph.facts["error"],
                **agreements(backend, artifact, comparison),
            }
            outcome = outcomes.get(backend)
            engines.append(self.publish(backend, artifact, name, checkpoint, checks, outcome))
        kept = ("frames", "labels", "classes")
        return BuildResult(
            options=options, preset=preset, graph=graph, quantized=quantized,
            engines=tuple(engines),
            comparison=None if comparison is None else {key: comparison[key] for key in kept},
            cached=tuple(dict.fromkeys(self.cached)), seconds=time.perf_counter() - self.start,
            search=None if searched is None else {key: searched[key] for key in SEARCHED},
        )  # fmt: skip

    def publish(
        self, backend: EngineBackend, artifact: Artifact, name: str, checkpoint: Artifact,
        checks: dict[str, Any], outcome: Outcome | None,
    ) -> BuiltEngine:  # fmt: skip
        """Hand an engine out, and tune it where asked to; withdraw it where the gate refuses."""
        options = self.options
        if outcome is not None and not outcome.verdict.passed:
            withdraw(artifact, options.output, name)
            return BuiltEngine(backend, None, artifact, checks, outcome)
        # The training form is for study, and no option of the command.
        again = None if options.injection == "train" else rebuild_command(options, backend)
        replaced = made_otherwise(artifact, options.output, name, again)
        path = publish(
            artifact, options.output, name, None if outcome is None else outcome.as_json(),
            rebuild=again, checkpoint=str(checkpoint.path.absolute()),
            replace_other=options.replace_other,
        )  # fmt: skip
        # The engine is there by now, whatever becomes of a minute of measuring.
        tuning = self.tune(artifact)
        if tuning is not None:
            publish(
                artifact, options.output, path.stem, tuning=tuning,
                replace_other=options.replace_other,
            )  # fmt: skip
        return BuiltEngine(backend, path, artifact, checks, outcome, tuning, replaced)

    def compare(
        self, graph: Artifact, built: Mapping[EngineBackend, Artifact],
        quantized: Artifact | None, checking: FrameList,
    ) -> dict[str, Any]:  # fmt: skip
        """Where the labels of graphs and engines part."""
        graphs = [quantized] if "openvino" in built and quantized is not None else []
        stage = CompareStage(CompareConfig(), self.store, checking, self.told)
        return stage.run(graph, *built.values(), *graphs).facts

    def export(
        self, deploy: Artifact, checkpoint: Artifact, shape: tuple[int, int], checking: FrameList
    ) -> Artifact:
        """The float graph at that (height, width)."""
        config = ExportConfig(
            batch=self.options.batch, height=shape[0], width=shape[1],
            opset=self.options.opset, convolve=self.options.convolve,
        )  # fmt: skip
        stage = ExportStage(config, self.store, checking, self.told)
        return stage.run(deploy, checkpoint)

    def quantize(self, small: Artifact, graph: Artifact, frames: FrameList) -> Artifact:
        """The Q/DQ graphs of ``graph``, calibrated on ``small``, which may be ``graph`` itself."""
        options = self.options
        quantized = QuantizeStage(
            options.settings, self.store, frames, self.told, self.progress.calibrated
        ).run(small)
        if small is not graph:
            carrying = CarryStage(CarryConfig(), self.store, self.told)
            quantized = carrying.run(quantized, small, graph)
        if options.finetune:
            learning = FinetuneStage(
                options.finetune, self.store, frames, self.told, self.progress.learned
            )
            quantized = learning.run(quantized, graph)
        return quantized

    def held(
        self, source: Artifact, graph: Artifact, checking: FrameList, flavour: Flavour | None,
        scoring: CheckedFrames | None,
    ) -> tuple[dict[EngineBackend, Artifact], dict[EngineBackend, Outcome]]:  # fmt: skip
        """Engines of that graph by back end, and the gate's word on each."""
        options = self.options
        built: dict[EngineBackend, Artifact] = {}
        # The options have refused int8+fp16 of any but TensorRT.
        if options.backend != "tensorrt" and options.precision != "int8+fp16":
            built["openvino"] = self.openvino(source, graph, checking, options.precision)
        if flavour is not None:
            built["tensorrt"] = self.tensorrt(source, graph, checking, flavour)
        outcomes: dict[EngineBackend, Outcome] = {}
        if options.gate is not None and scoring is not None:
            reference = self.openvino(graph, graph, checking, "fp32", " (fp32)")
            for backend, artifact in built.items():
                outcomes[backend] = self.hold(reference, artifact, scoring, options.gate)
        return built, outcomes

    def search(
        self, quantized: Artifact, graph: Artifact, dataset: Cityscapes,
        backend: EngineBackend, limits: GateLimits,
    ) -> Artifact:  # fmt: skip
        """The Q/DQ graphs with the fewest layers in float that keep the limits."""
        frames = check_frames(dataset.root, self.options.split, limit=SEARCH_FRAMES)
        config = SearchConfig(
            max_drop=limits.max_drop, max_class_drop=limits.max_class_drop, backend=backend
        )
        stage = SearchStage(config, self.store, frames, self.told, self.progress.ranked)
        return stage.run(quantized, graph)

    def inject(self, checkpoint: Artifact, preset: str, dataset: Cityscapes) -> Artifact:
        """The deploy checkpoint, in the form asked for.

        What ``auto`` weighs is INT8's error, so a float network is injected whole: nothing is lost.
        """
        options = self.options
        form, plan = options.injection, list[Artifact]()
        if form == "auto" and "int8" not in options.precision:
            form = "full"
        elif form == "auto":
            settings, frames = options.settings, select_frames(dataset, CHECK_FRAMES)
            config = ChooseConfig(
                preset=preset, batch=options.batch, height=options.shape[0],
                width=options.shape[1], opset=options.opset, convolve=options.convolve,
                made_by={stage.name: stage.version for stage in (ExportStage, QuantizeStage)},
            )  # fmt: skip
            plan = [ChooseStage(config, settings, self.store, frames, self.told).run(checkpoint)]
        injecting = InjectConfig(preset=preset, form=form)
        return InjectStage(injecting, self.store, self.told).run(checkpoint, *plan)

    def told(self, event: StageEvent) -> None:
        if event.cached:
            self.cached.append(event.stage)
        self.progress.stage(event)

    def openvino(
        self, source: Artifact, graph: Artifact, checking: FrameList,
        precision: OpenVINOPrecision, what: str = "",
    ) -> Artifact:  # fmt: skip
        """OpenVINO's engine; ``what`` follows the stage's name where that is told."""
        config = BuildOpenVINOConfig(precision=precision, min_agreement=self.options.min_agreement)
        return BuildOpenVINOStage(
            config, self.store, checking,
            lambda event: self.told(replace(event, stage=event.stage + what)),
        ).run(source, graph)  # fmt: skip

    def tensorrt(
        self, source: Artifact, graph: Artifact, checking: FrameList, flavour: Flavour
    ) -> Artifact:
        options = self.options
        config = BuildTensorRTConfig(
            precision=options.precision, flavour=flavour, min_agreement=options.min_agreement,
            graph=TENSORRT_GRAPH if "int8" in options.precision else None,
            labels=options.tensorrt.labels, strict_int8=options.tensorrt.strict_int8,
            options=options.tensorrt.builder,
        )  # fmt: skip
        return BuildTensorRTStage(config, self.store, checking, self.told).run(source, graph)

    def tune(self, artifact: Artifact) -> dict[str, Any] | None:
        """How that engine runs best here, where that was asked for and a CPU runs it."""
        pace = self.options.tune
        if pace is None or artifact.facts["backend"] != "openvino":
            return None
        config = TuneConfig.model_validate(
            {"precision": artifact.facts["precision"], **asdict(pace)}
        )
        stage = TuneStage(config, self.store, self.told, self.progress.tuned)
        found: dict[str, Any] = stage.run(artifact).facts["tuning"]
        return found

    def hold(
        self, reference: Artifact, artifact: Artifact, frames: CheckedFrames, limits: GateLimits
    ) -> Outcome:
        """The gate's word on an engine, or on its exact graph where it cannot run."""
        backend = artifact.facts["backend"]
        with ExitStack() as stack:
            ours, theirs = (
                Subject(
                    name, each.path, stack.enter_context(open_built(each)), each.manifest.files,
                    each.manifest,
                )
                for name, each in ((self.options.precision, artifact), ("fp32", reference))
            )  # fmt: skip
            return hold(
                theirs, ours, frames, limits,
                self.store.root / f"gate-{artifact.manifest.key[:20]}",
                lambda done, total: self.progress.scored(backend, done, total),
            )  # fmt: skip
