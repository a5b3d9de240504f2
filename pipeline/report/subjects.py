"""The engines of a report: opened, identified by content, and traced to where they came from."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from models import WEIGHTS
from pipeline.artifact import Artifact, Manifest, read_manifest, sha256_of
from pipeline.engines.base import Engine
from pipeline.engines.cpu import cpu_features, cpu_model
from pipeline.engines.opening import manifest_of, open_engine
from pipeline.errors import ArtifactError, UsageError
from pipeline.inference import FrameSegmenter
from pipeline.lineage import (
    TENSORRT_GRAPH,
    calibrated_on,
    floating_of,
    is_quantized,
    quantized_of,
)
from pipeline.report.evaluate import Contestant
from pipeline.report.frames import CheckedFrames
from pipeline.report.schema import FloatLayer, FloatLayers
from pipeline.stage import PICTURES, tool_versions
from pipeline.store import MANIFEST_NAME

_TOOLS = ("numpy", *PICTURES, "openvino", "onnxruntime", "tensorrt", "tensorrt_rtx")


@dataclass(frozen=True)
class Subject:
    """An open engine of the report; close ``engine`` when done.

    Attributes:
        name: how the report calls it.
        path: the file.
        engine: opened.
        files: SHA-256 of each of its files, by name.
        manifest: what it was built from; ``None`` for a bare ONNX file.
        stage: of an ONNX file in a build's store, the manifest of the stage that wrote it.
    """

    name: str
    path: Path
    engine: Engine
    files: Mapping[str, str]
    manifest: Manifest | None
    stage: Manifest | None = None

    @property
    def contestant(self) -> Contestant:
        """A segmenter over the engine that keeps frames' aspect and pads."""
        return Contestant(self.name, FrameSegmenter(self.engine, tiles="fit"))

    def identity(self) -> dict[str, Any]:
        """What its labels depend on, as plain JSON: contents, runtime and device, not paths."""
        info = asdict(self.engine.info)
        del info["path"]
        return {"files": sorted(self.files.values()), "info": info}

    def calibrated_on(self, frames: CheckedFrames) -> int | None:
        """How many of the frames calibrated it; ``None`` where that is not known, or none did."""
        manifest = self.manifest or self.stage
        pictures = None if manifest is None else calibrated_on(manifest)
        return None if pictures is None else len(frames.among(pictures))

    def float_layers(self) -> FloatLayers | None:
        """Heavy layers not in int8; ``None`` unless it is a quantized TensorRT engine of ours.

        OpenVINO does not tell which node of the graph a layer came from.
        """
        facts = {} if self.manifest is None else self.manifest.facts
        if facts.get("backend") != "tensorrt" or "int8" not in str(facts.get("precision")):
            return None
        nodes = facts.get("nodes", {})
        return FloatLayers(
            fallback=[
                FloatLayer(name=name, precision=nodes.get(name, "unknown"))
                for name in facts.get("float_fallback", ())
            ],
            by_design=list(facts.get("float_by_design", ())),
        )

    def provenance(self) -> dict[str, Any]:
        """For the report: the file, what executes it and how, and every stage it came through."""
        info = self.engine.info
        found: dict[str, Any] = {
            "file": str(self.path),
            "sha256": dict(self.files),
            "back end": info.backend,
            "device": info.device,
            "precision": info.precision,
            "runtime": dict(info.extra),
            "executed layers": dict(info.executed),
        }
        if self.manifest is not None:
            stages = dict(self.manifest.provenance)
            # The last stage repeats the engine's own facts.
            stages.pop(str(self.manifest.facts.get("stage")), None)
            found |= {"agreement": self.manifest.facts.get("agreement"), "stages": stages}
        return found


@dataclass(frozen=True)
class Graphs:
    """The Q/DQ graph of a candidate and the float graph it was made from."""

    quantized: Path
    floating: Path


def open_subject(name: str, path: Path, *, allow_host_code: bool = False) -> Subject:
    """Open an engine of any back end.

    Args:
        name: how the report calls it.
        path: the file.
        allow_host_code: see ``open_engine``.

    Raises:
        EngineError, ArtifactError, MissingDependencyError, UsageError: see ``open_engine``.
    """
    engine = open_engine(path, allow_host_code=allow_host_code)
    try:
        manifest = None if path.suffix == ".onnx" else read_manifest(manifest_of(path))
        files = {path.name: sha256_of(path)} if manifest is None else manifest.files
        return Subject(name, path, engine, files, manifest, _stage_of(path, files))
    except BaseException:
        engine.close()
        raise


def _stage_of(path: Path, files: Mapping[str, str]) -> Manifest | None:
    """The manifest beside a graph, where it is of that very graph."""
    try:
        manifest = read_manifest(path.with_name(MANIFEST_NAME))
    except ArtifactError:
        return None
    return manifest if manifest.files.get(path.name) == files.get(path.name) else None


def preset_of(subject: Subject) -> str | None:
    """The preset of its network, if that is known."""
    for manifest in (subject.manifest, subject.stage):
        if manifest is not None:
            export = manifest.provenance.get("export", {})
            found = manifest.facts.get("preset") or export.get("preset")
            return str(found) if found else None
    return None


def told_apart(reference: Subject, candidate: Subject) -> tuple[Subject, Subject]:
    """The two, named as shortly as tells them apart: by precision, back end, file name or role."""
    spellings = [_spellings(subject) for subject in (reference, candidate)]
    names = next(
        (pair for pair in zip(*spellings, strict=True) if pair[0] != pair[1]),
        (f"{reference.path.stem} (reference)", candidate.path.stem),
    )
    return replace(reference, name=names[0]), replace(candidate, name=names[1])


def _spellings(subject: Subject) -> tuple[str, str, str]:
    """Ever longer names. A bare ONNX file does not say its precision."""
    info, stem = subject.engine.info, subject.path.stem
    if subject.manifest is None:
        return stem, stem, stem
    return info.precision, f"{info.precision} {info.backend}", stem


def exact_graph_of(subject: Subject) -> Path | None:
    """The Q/DQ graph an engine was built from, spelled for its back end, where it is whole.

    A TensorRT engine has it beside itself, in the precision it was built in. For OpenVINO it is the
    quantized graph in the build's store whose own history the engine's goes on from.
    """
    if subject.manifest is None or not is_quantized(subject.manifest):
        return None
    if subject.manifest.facts.get("backend") == "tensorrt":
        beside = [name for name in subject.manifest.files if name.endswith(".onnx")]
        return _whole(subject, beside[0]) if beside else None
    quantized = _quantized_of(subject)
    return None if quantized is None else quantized.path


def graphs_of(candidate: Subject, reference: Subject) -> Graphs | None:
    """The candidate's Q/DQ graph and the float graph it came from, where both are whole.

    Of a bare Q/DQ file the float graph is the reference, if that is a bare float file.
    """
    if candidate.manifest is None:
        precisions = [each.engine.info.precision for each in (candidate, reference)]
        if reference.manifest is None and precisions == ["int8", "fp32"]:
            return Graphs(candidate.path, reference.path)
        return None
    quantized = _quantized_of(candidate)
    floating = floating_of(candidate.path, candidate.manifest)
    if quantized is None or floating is None:
        return None
    path = quantized.path
    if candidate.manifest.facts.get("backend") == "tensorrt":
        path = path.with_name(TENSORRT_GRAPH)
        if path.name not in quantized.manifest.files:
            return None
    return Graphs(path, floating.path)


def _quantized_of(subject: Subject) -> Artifact | None:
    return None if subject.manifest is None else quantized_of(subject.path, subject.manifest)


def _whole(subject: Subject, name: str) -> Path | None:
    """A file of the subject's own that is as its manifest says."""
    path = subject.path.with_name(name)
    if not path.is_file() or sha256_of(path) != subject.files[name]:
        return None
    return path


def checkpoint_of(subject: Subject) -> Path | None:
    """The file that the subject's weights came from; ``None`` for a bare ONNX file.

    Raises ``UsageError`` where it is no longer there, or holds other weights by now.
    """
    weights = _weights(subject)
    if weights is None:
        return None
    name, digest = weights
    facts = {} if subject.manifest is None else subject.manifest.facts
    path = Path(str(facts.get("checkpoint", name)))
    for candidate in (path, *sorted(WEIGHTS.glob("*.safetensors"))):
        if candidate.is_file() and sha256_of(candidate) == digest:
            return candidate
    raise UsageError(
        f"'{subject.path}' was made of checkpoint '{path}' ({digest[:12]}), which is "
        f"{'another file by now' if path.is_file() else 'not there'}",
        hint="name it with --checkpoint, or give both engines by their paths",
    )


def check_same_weights(option: str, built: Subject, other: Subject) -> None:
    """Raise ``UsageError`` where an engine was built to be compared with one of other weights."""
    ours, theirs = _weights(built), _weights(other)
    if ours is not None and theirs is not None and ours[1] != theirs[1]:
        raise UsageError(
            f"{option}: '{other.path}' was made of checkpoint '{theirs[0]}' ({theirs[1][:12]}), "
            f"not of '{ours[0]}' ({ours[1][:12]}): two networks, not one in two precisions",
            hint="leave --checkpoint out, or give both engines by their paths",
        )


def _weights(subject: Subject) -> tuple[str, str] | None:
    """(name, SHA-256) of the checkpoint, if the manifest tells."""
    manifest = subject.manifest or subject.stage
    found = {} if manifest is None else manifest.provenance.get("checkpoint")
    if not isinstance(found, dict):
        return None
    name, digest = found.get("name"), found.get("sha256")
    return (str(name), str(digest)) if name and digest else None


def patch_of(subject: Subject) -> tuple[int, int] | None:
    """(height, width) of the network's patches in pixels of its input, where that can be known.

    The manifest says it, or names the preset, whose numbers come with the network's code.
    """
    if subject.manifest is None:
        return None
    side = subject.manifest.patch
    if side is None:
        preset = subject.manifest.facts.get("preset")
        try:
            from models.segmenter import PRESETS
        except ModuleNotFoundError:
            return None  # no torch here
        side = PRESETS[preset].unit if preset in PRESETS else None
    return None if side is None else (side, side)


def machine() -> dict[str, Any]:
    """This machine and the versions on it, as plain JSON."""
    return {
        "cpu": cpu_model(),
        "instructions": list(cpu_features()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: found for name, found in tool_versions(_TOOLS).items() if found},
    }
