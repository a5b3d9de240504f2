"""What of a model goes into a bundle: for TensorRT the graph to build from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.artifact import Artifact, Manifest, TensorSpec, open_artifact
from pipeline.engines.opening import manifest_of
from pipeline.errors import ArtifactError, CheckFailedError, MissingDependencyError
from pipeline.store import MANIFEST_NAME
from pipeline.verify import MIN_AGREEMENT

# A runner's own needs; a test holds them to pyproject.toml.
RUNNER_REQUIREMENTS = (
    "av>=14.4", "numpy>=1.24", "opencv-python>=4.8", "platformdirs>=4",
    "prometheus-client>=0.20", "pydantic>=2.6", "rich>=13", "tenacity>=8.2",
)  # fmt: skip
_TENSORRT_NOTE = """\
# Not from there: TensorRT. On Jetson it is part of JetPack (python3-libnvinfer); on
# a desktop 'pip install tensorrt' or 'tensorrt-rtx'. And one of pycuda and
# cuda-bindings, of the installed CUDA's major version, such as
# 'cuda-bindings==12.9.*' for JetPack 6.2.
"""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A model's part of a bundle.

    Attributes:
        name: of the bundle, and of the engine on the box.
        backend: what runs it there.
        model: what ``edge.py`` must know of it, plain JSON.
        files: what is built from or run, and ``model.json``, its manifest.
        exact: the graph, ONNX, that the engine is compared with.
        requirements: packages that a runner needs.
        note: comments for the file that lists them.
        builder: the module that makes the engine ready on the box.
    """

    name: str
    backend: Literal["tensorrt", "openvino"]
    model: dict[str, Any]
    files: Mapping[str, bytes]
    exact: bytes
    requirements: tuple[str, ...]
    note: str
    builder: str


def tensorrt_parts(source: Path, *, labels: bool = False) -> Parts:
    """Of a TensorRT engine or a graph; see ``make_bundle``."""
    artifact, graph = _find(source)
    model, facts = _describe(graph, artifact.manifest, labels=labels)
    name = bundle_name(source, artifact.manifest, facts)
    name = f"{name}-labels" if facts["output"] == "labels" and labels else name
    files = {"model.onnx": model, "model.json": _manifest(artifact.manifest, model, facts)}
    return Parts(
        name=name, backend="tensorrt", model=facts, files=files, exact=model,
        requirements=RUNNER_REQUIREMENTS, note=_TENSORRT_NOTE, builder="pipeline.bundle_build",
    )  # fmt: skip


def min_agreement(manifest: Manifest) -> float:
    """Share of labels that an engine was to share with its graph where it was built, and so is on
    the box; of a graph that no engine was built of, the usual."""
    config = manifest.facts.get("config", {})
    asked = config.get("min_agreement") if isinstance(config, dict) else None
    return float(asked) if isinstance(asked, float | int) else MIN_AGREEMENT


def no_manifest(source: Path) -> ArtifactError:
    """Of a file that nothing lists."""
    return ArtifactError(
        f"'{source}' has no manifest beside it, so nobody knows what it is",
        hint="bundle what scripts/build_engine.py made",
    )


def bundle_name(source: Path, manifest: Manifest, facts: Mapping[str, Any]) -> str:
    """A graph in the store is called as all others there: its bundle is named as an engine is."""
    if not (source.parent / MANIFEST_NAME).is_file():
        return source.stem
    label = manifest.provenance.get("checkpoint", {}).get("label")
    preset = str(facts["preset"])
    own = f"-{label}" if label else ""
    height, width = facts["inputs"][0]["shape"][1:3]
    # Not the name of the OpenVINO engine made of the same calibration.
    return f"{preset}{own}-{facts['precision']}-{height}x{width}-tensorrt"


def _find(source: Path) -> tuple[Artifact, Path]:
    """(the artifact a file belongs to, the graph in it)."""
    for candidate in _manifests(source):
        if candidate.is_file():
            artifact = open_artifact(candidate)
            if source.name in artifact.manifest.files:
                break
    else:
        raise no_manifest(source)
    if source.suffix == ".onnx":
        return artifact, source
    graphs = [name for name in artifact.manifest.files if name.endswith(".onnx")]
    if not graphs:
        raise ArtifactError(f"'{source}' has no graph beside it: build it again")
    return artifact, artifact.manifest_path.parent / graphs[0]


def _manifests(source: Path) -> tuple[Path, ...]:
    """Where the manifest that lists a file may lie."""
    return (
        manifest_of(source.with_suffix(".engine")),
        source.with_suffix(".json"),
        source.parent / MANIFEST_NAME,
    )


def _describe(graph: Path, manifest: Manifest, *, labels: bool) -> tuple[bytes, dict[str, Any]]:
    """The graph to bundle, and what a builder that cannot read ONNX must know of it."""
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise MissingDependencyError("onnx", "build", why="making a bundle") from error
    from calibration.qdq_lint import describe, heavy_nodes, left_in_float, lint
    from pipeline.lineage import TENSORRT_GRAPH
    from pipeline.lowering.labels import append_labels

    model = onnx.load(graph)
    if labels and model.graph.output[0].type.tensor_type.elem_type != onnx.TensorProto.UINT8:
        model = append_labels(model)
    tensors = [_tensor(value) for value in (*model.graph.input, *model.graph.output)]
    operators = {node.op_type for node in model.graph.node}
    halves = any(t.data_type == onnx.TensorProto.FLOAT16 for t in model.graph.initializer)
    quantized = "QuantizeLinear" in operators
    precision = "int8+fp16" if quantized and halves else "int8" if quantized else None
    broken = lint(model, "tensorrt", left_in_float(model)) if quantized and not halves else []
    if broken:
        # Most likely OpenVINO's spelling: TensorRT takes its uint8 for int8 without a word.
        raise CheckFailedError(
            f"'{graph}' breaks {describe(broken)}",
            hint=f"bundle TensorRT's spelling of it: {graph.with_name(TENSORRT_GRAPH)}",
        )
    return model.SerializeToString(), {
        "precision": precision or ("fp16" if halves else "fp32"),
        "output": "labels" if tensors[-1].dtype == "uint8" else "logits",
        "inputs": [tensors[0].as_json()],
        "outputs": [tensors[-1].as_json()],
        "heavy": heavy_nodes(model),
        # An engine's manifest repeats what the export knew of the network, a graph's does not.
        **{
            key: manifest.facts.get(key, manifest.provenance.get("export", {}).get(key))
            for key in ("preset", "patch", "multiply_adds")
        },
        "min_agreement": min_agreement(manifest),
    }


def _tensor(value: Any) -> TensorSpec:
    import numpy as np
    from onnx import helper

    tensor = value.type.tensor_type
    shape = tuple(dim.dim_value for dim in tensor.shape.dim)
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
    rank = len(shape)
    layout = "NHW" if rank == 3 else "NHWC" if dtype == "uint8" else "NCHW"
    return TensorSpec(name=value.name, dtype=dtype, shape=shape, layout=layout)


def _manifest(source: Manifest, model: bytes, facts: Mapping[str, Any]) -> bytes:
    """The graph's manifest: as recorded, but of the file that is in the bundle."""
    manifest = Manifest(
        kind="qdq-onnx" if "int8" in facts["precision"] else "onnx",
        main="model.onnx",
        files={"model.onnx": hashlib.sha256(model).hexdigest()},
        key=source.key,
        inputs=tuple(TensorSpec.from_json(t) for t in facts["inputs"]),
        outputs=tuple(TensorSpec.from_json(t) for t in facts["outputs"]),
        facts={k: facts[k] for k in ("precision", "output", "preset", "patch", "multiply_adds")},
        provenance=source.provenance,
    )
    return manifest.to_json()
