"""What of an OpenVINO engine goes into a bundle: the engine itself, and the proof it is to give.

An engine is verified on the CPU it was built on, and refused on any other, since which int8 kernels
run depends on it. On the box it is run on frames whose labels by the exact graph were taken along:
``bundle_adopt`` writes a manifest for that CPU, or refuses.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.bundle_parts import RUNNER_REQUIREMENTS, Parts, min_agreement, no_manifest
from pipeline.engines.opening import engine_artifact, manifest_of
from pipeline.errors import ArtifactError
from pipeline.lineage import floating_of, is_quantized, quantized_of

OPENVINO_REQUIREMENT = "openvino>=2026.4"
"""A test holds it to pyproject.toml."""


def openvino_parts(source: Path) -> Parts:
    """Of an engine (``.xml``) that lies in the folder it was built into.

    Raises ``ArtifactError`` where it is not whole, or the graph it came from is not at hand.
    """
    if not manifest_of(source).is_file():
        raise no_manifest(source)
    manifest = engine_artifact(source).manifest
    find = quantized_of if is_quantized(manifest) else floating_of
    graph = find(source, manifest)
    if graph is None:
        raise ArtifactError(
            f"'{source}': the graph it came from is not in the store beside it, so nothing could "
            "prove it on the box",
            hint="bundle it from the folder that build_engine.py made it in, or build it again",
        )
    files = {name: (source.parent / name).read_bytes() for name in manifest.files}
    facts = manifest.facts
    model = {
        "precision": facts["precision"],
        "output": "labels" if len(manifest.outputs[0].shape) == 3 else "logits",
        "inputs": [tensor.as_json() for tensor in manifest.inputs],
        "outputs": [tensor.as_json() for tensor in manifest.outputs],
        **{key: facts.get(key) for key in ("preset", "patch", "multiply_adds")},
        "min_agreement": min_agreement(manifest),
    }
    return Parts(
        name=source.stem, backend="openvino", model=model,
        files={**files, "model.json": manifest.to_json()}, exact=graph.path.read_bytes(),
        requirements=(*RUNNER_REQUIREMENTS, OPENVINO_REQUIREMENT), note="",
        builder="pipeline.bundle_adopt",
    )  # fmt: skip
