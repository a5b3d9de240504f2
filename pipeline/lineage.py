"""Where an engine comes from: the graphs behind it, found in the store of the build beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipeline.artifact import Artifact, Manifest, open_artifact, read_manifest
from pipeline.errors import ArtifactError
from pipeline.store import MANIFEST_NAME

STORE = ".store"
"""Where the build keeps the artifacts of its stages, beside the engines."""
OPENVINO_GRAPH = "model.int8.openvino.onnx"
"""The Q/DQ graph as OpenVINO is to have it, in the artifact of the stage that made it."""
TENSORRT_GRAPH = "model.int8.tensorrt.onnx"
"""Its int8 spelling, beside it: what every TensorRT precision with int8 is built from."""


def is_quantized(manifest: Manifest) -> bool:
    """Whether it went through quantization."""
    return "quantize" in manifest.provenance


def calibrated_on(manifest: Manifest) -> frozenset[str] | None:
    """SHA-256 of the file of every picture that calibrated it; ``None`` where none did, or where
    the manifest does not tell."""
    try:
        frames = manifest.provenance["quantize"]["calibration"]["frames"]
        return frozenset(str(frame["sha256"]) for frame in frames)
    except (KeyError, TypeError):
        return None


def quantized_of(engine: Path, manifest: Manifest) -> Artifact | None:
    """The artifact with the Q/DQ graphs that the engine was built from, where it is whole.

    Several stages may have followed one another (calibrated, carried to a size, fine-tuned, layers
    left in float): it is the one whose history lacks nothing but the engine's own stage.
    """
    if not is_quantized(manifest):
        return None
    last = str(manifest.facts.get("stage"))
    before = {k: v for k, v in manifest.provenance.items() if k != last}
    return _stored(engine, lambda found: dict(found.provenance) == before)


def floating_of(engine: Path, manifest: Manifest) -> Artifact | None:
    """The float graph of the engine's size, where it is whole."""
    history = manifest.provenance.items()
    return _stored(
        engine,
        lambda found: (
            found.kind == "onnx" and all(each in history for each in found.provenance.items())
        ),
    )


def _stored(engine: Path, fits: Callable[[Manifest], bool]) -> Artifact | None:
    """The artifact in the build's store whose manifest fits, where it is whole."""
    for path in sorted((engine.parent / STORE).glob(f"*/{MANIFEST_NAME}")):
        try:
            if fits(read_manifest(path)):
                return open_artifact(path)
        except ArtifactError:
            continue  # altered or half-written: then it is not the graph
    return None
