"""From a checkpoint to a verified engine: the stages in their order.

    checkpoint -> inject -> export -> quantize (int8) -> build -> engine, in the output folder

Everything on the way lies in ``OUTPUT/.store`` under its content's key; a second run with nothing
changed finds all of it there.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calibration.cityscapes import Cityscapes
from calibration.frames import FrameList, select_frames
from calibration.quantize import QuantizeSettings
from calibration.streets import write_dataset
from models.checkpoints import save_segmenter, shipped_checkpoint
from models.repmlp import check_input_size
from models.segmenter import DEFAULT_PRESET, build_segmenter, find_preset
from pipeline.artifact import Artifact, open_artifact, sha256_of, write_whole
from pipeline.engines.opening import manifest_of
from pipeline.errors import ArtifactError, UsageError
from pipeline.stage import Notify, StageEvent
from pipeline.stages.build_openvino import BuildOpenVINOConfig, BuildOpenVINOStage
from pipeline.stages.export import ExportConfig, ExportStage
from pipeline.stages.inject import InjectConfig, InjectStage, checkpoint_artifact
from pipeline.stages.quantize import QuantizeStage
from pipeline.store import Store

DEFAULT_SHAPE = (512, 1024)
CHECK_FRAMES = 8
# Enough streets to calibrate with and to look at, where no data set is at hand.
STREETS_TRAIN, STREETS_VAL = 128, 24


@dataclass(frozen=True)
class BuildOptions:
    """What to build. Paths and numbers only; see ``scripts/build_engine.py`` for their meaning."""

    precision: str = "int8"
    backend: str = "openvino"
    checkpoint: Path | None = None
    preset: str | None = None
    shape: tuple[int, int] = DEFAULT_SHAPE
    batch: int = 1
    opset: int = 17
    dataset: Path | None = None
    frames: int = 128
    split: str = "train"
    force_split: bool = False
    output: Path = Path("engines")
    injection: str = "split"
    min_agreement: float = 0.98
    random_weights: bool = False
    settings: QuantizeSettings = field(default_factory=QuantizeSettings)


@dataclass(frozen=True)
class BuildResult:
    """Where everything is, and what the checks said."""

    engine: Path
    manifest: Path
    options: BuildOptions
    preset: str
    graph: Artifact
    quantized: Artifact | None
    checks: dict[str, Any]
    cached: tuple[str, ...]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """The object that ``build_engine.py --json`` prints."""
        return {
            "engine": str(self.engine), "manifest": str(self.manifest),
            "precision": self.options.precision, "backend": self.options.backend,
            "preset": self.preset, "shape": list(self.options.shape), "batch": self.options.batch,
            "checks": self.checks, "cached": list(self.cached), "seconds": round(self.seconds, 3),
        }  # fmt: skip


def build(
    options: BuildOptions, notify: Notify | None = None,
    notify_frame: Callable[[int], None] | None = None,
) -> BuildResult:  # fmt: skip
    """Build, verify and publish one engine.

    Raises:
        UsageError, CheckpointError, ModelError, CalibrationDataError: bad input.
        CheckFailedError: a stage's output is not what its input says it must be.
    """
    start = time.perf_counter()
    cached: list[str] = []

    def told(event: StageEvent) -> None:
        if event.cached:
            cached.append(event.stage)
        if notify is not None:
            notify(event)

    store = Store(options.output / ".store")
    checkpoint, preset = _checkpoint(options, store)
    height, width = options.shape
    check_input_size(height, width, find_preset(preset).unit)
    dataset = open_dataset(options.dataset, options.output, told)
    checking = select_frames(dataset, CHECK_FRAMES)

    inject = InjectStage(
        InjectConfig(preset=preset, form=options.injection), store, told  # type: ignore[arg-type]  # pydantic checks it
    )  # fmt: skip
    deploy = inject.run(checkpoint)
    export = ExportStage(
        ExportConfig(
            batch=options.batch, height=height, width=width, opset=options.opset,
            frames=checking.sha256,
        ),
        store, checking, told,
    )  # fmt: skip
    graph = export.run(deploy, checkpoint)
    quantized = None
    if options.precision == "int8":
        frames = _calibration_frames(dataset, options)
        quantized = QuantizeStage(
            options.settings, store, frames, told, notify_frame
        ).run(graph)  # fmt: skip
    built = BuildOpenVINOStage(
        BuildOpenVINOConfig(
            precision=options.precision,  # type: ignore[arg-type]  # pydantic checks it
            frames=checking.sha256,
            min_agreement=options.min_agreement,
        ),
        store, checking, told,
    ).run(quantized or graph, graph)  # fmt: skip
    engine = publish(built, options.output, _name(options, preset))
    agreement = built.facts["agreement"]
    checks = {
        "injection_error": deploy.facts["error"],
        "export_error": graph.facts["error"],
        "engine_agreement": agreement["graph"]["labels"],
        "int8_agreement": agreement["fp32"]["labels"] if "fp32" in agreement else None,
        "checked_frames": agreement["graph"]["frames"],
    }
    return BuildResult(
        engine, manifest_of(engine), options, preset, graph, quantized, checks, tuple(cached),
        time.perf_counter() - start,
    )  # fmt: skip


def open_dataset(root: Path | None, output: Path, notify: Notify | None = None) -> Cityscapes:
    """The data set at ``root``, or procedural streets kept in the output folder's store."""
    if root is not None:
        return Cityscapes(root)
    start = time.perf_counter()
    folder = output / ".store" / "streets"
    there = folder.is_dir()
    if notify is not None and not there:
        notify(StageEvent("streets"))
    write_dataset(folder, train=STREETS_TRAIN, val=STREETS_VAL)
    if notify is not None:
        notify(StageEvent("streets", there, time.perf_counter() - start))
    return Cityscapes(folder)


def _checkpoint(options: BuildOptions, store: Store) -> tuple[Artifact, str]:
    """(the checkpoint, its preset's name)."""
    if options.random_weights:
        if options.checkpoint is not None:
            raise UsageError("--random-weights and --checkpoint exclude each other")
        preset = find_preset(options.preset or DEFAULT_PRESET)
        path = store.root / f"random-{preset.name}.safetensors"
        if not path.is_file():
            model = build_segmenter(preset, seed=0)
            save_segmenter(model, preset.name, path, {"weights": "random, seed 0"})
        return checkpoint_artifact(path), preset.name
    if options.checkpoint is None:
        preset_name = options.preset or DEFAULT_PRESET
        return checkpoint_artifact(shipped_checkpoint(preset_name)), preset_name
    from models.checkpoints import load_segmenter

    artifact = checkpoint_artifact(options.checkpoint)
    _model, preset, _report = load_segmenter(options.checkpoint, options.preset)
    return artifact, preset.name


def _calibration_frames(dataset: Cityscapes, options: BuildOptions) -> FrameList:
    return select_frames(dataset, options.frames, options.split, allow_val=options.force_split)


def _name(options: BuildOptions, preset: str) -> str:
    height, width = options.shape
    batch = f"-b{options.batch}" if options.batch > 1 else ""
    return f"{preset}-{options.precision}-{height}x{width}{batch}"


def publish(built: Artifact, output: Path, name: str) -> Path:
    """Copy an engine out of the store as ``OUTPUT/NAME.*``; the manifest last, so that an
    interrupted copy never passes for an engine. Does nothing where it is there already."""
    suffixes = {part: Path(part).suffix for part in built.manifest.files}
    target = output / f"{name}{suffixes[built.manifest.main]}"
    manifest_path = manifest_of(target)
    try:
        there = open_artifact(manifest_path)
        if there.manifest.key == built.manifest.key and there.sha256 == built.sha256:
            return target
    except ArtifactError:
        pass  # absent or not whole: about to be written
    manifest_path.unlink(missing_ok=True)
    for part, suffix in suffixes.items():
        _copy_whole(built.path.parent / part, output / f"{name}{suffix}")
    files = {f"{name}{suffix}": built.manifest.files[part] for part, suffix in suffixes.items()}
    manifest = built.manifest.model_copy(update={"main": target.name, "files": files})
    write_whole(manifest_path, manifest.model_dump_json(indent=1).encode())
    return target


def _copy_whole(source: Path, target: Path) -> None:
    with tempfile.NamedTemporaryFile(
        prefix=f".{target.name}.", dir=target.parent, delete=False
    ) as file:
        temporary = Path(file.name)
    try:
        shutil.copyfile(source, temporary)
        if sha256_of(temporary) != sha256_of(source):
            raise ArtifactError(f"'{target}' could not be written whole: is the disk full?")
        temporary.chmod(0o644)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
