"""One archive for the edge box: a graph, where it comes from, and what builds and runs it.

A TensorRT engine belongs to the GPU that built it, so a Jetson's is built on the Jetson. What
travels is the graph, in the spelling and precision it is to be built from, with everything it
needs but the packages themselves:

    NAME/edge.py             the one command: check, build, run; plain Python until it finds more
    NAME/bundle.json         what is inside, with hashes; what must be installed
    NAME/model.onnx          what the engine is built from
    NAME/model.json          its manifest: shapes, calibration frames, checks, versions
    NAME/check/...           frames, and what the graph, executed exactly, makes of them
    NAME/requirements.txt    the wheels a runner needs
    NAME/app/...             this project's runner, as source

The same input gives the same bytes.
"""

from __future__ import annotations

import ast
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifact import Artifact, Manifest, TensorFacts, open_artifact, write_whole
from pipeline.bundle_frames import check_files
from pipeline.engines.opening import manifest_of
from pipeline.errors import (
    ArtifactError,
    CheckFailedError,
    MissingDependencyError,
    SinkError,
    UsageError,
)

BUNDLE_VERSION = 2
# A runner's own needs; a test holds them to pyproject.toml.
RUNNER_REQUIREMENTS = (
    "av>=14.4", "numpy>=1.24", "opencv-python>=4.8", "platformdirs>=4",
    "prometheus-client>=0.20", "pydantic>=2.6", "rich>=13", "tenacity>=8.2",
)  # fmt: skip
ENTRY = "scripts/edge_box.py"
RUNNER = "scripts/run_video.py"
# What edge.py imports of this project when it builds.
BUILDER = "pipeline.bundle_build"
PACKAGES = ("pipeline", "calibration")
_DATA_SUFFIXES = (".c", ".h", ".html", ".css", ".js", ".typed")


@dataclass(frozen=True)
class Bundle:
    """An archive, and the one folder in it."""

    path: Path
    folder: str


def make_bundle(
    source: Path, target: Path | None = None, *, labels: bool = False, dataset: Path | None = None
) -> Bundle:
    """Write the archive.

    Args:
        source: a TensorRT engine (``.engine``), whose graph lies beside it, or a graph (``.onnx``)
            with a manifest that lists it: its engine's, ``NAME.json`` or ``artifact.json``.
        target: the archive; ``NAME-bundle.tar.gz`` in the current folder when ``None``.
        labels: let the graph end in labels instead of logits, where it does not yet.
        dataset: a Cityscapes tree with frames to check the engine by; rendered streets if ``None``.

    Returns:
        Where the archive is, and the folder that it holds.

    Raises:
        ArtifactError: no manifest, a file that is not what the manifest says, or the wrong kind.
        CheckFailedError: a quantized graph that TensorRT would build and compute wrongly.
        MissingDependencyError: onnx or onnxruntime is not installed.
        SinkError: the archive cannot be written.
        UsageError: a target that is no name for an archive.
    """
    if target is not None:
        _check_target(target)
    artifact, graph = _find(source)
    model, facts = _describe(graph, artifact.manifest, labels=labels)
    name = f"{source.stem}-labels" if facts["output"] == "labels" and labels else source.stem
    files = {
        "model.onnx": model,
        "model.json": _manifest(artifact.manifest, model, facts),
        "edge.py": (_root() / ENTRY).read_bytes(),
        "requirements.txt": _requirements().encode(),
        **check_files(model, dataset),
        **_application(),
    }
    about = {
        "version": BUNDLE_VERSION,
        "name": name,
        "model": facts,
        "requirements": list(RUNNER_REQUIREMENTS),
        "files": {path: hashlib.sha256(data).hexdigest() for path, data in files.items()},
    }
    files["bundle.json"] = json.dumps(about, indent=1, sort_keys=True).encode()
    path = target or Path(f"{name}-bundle.tar.gz")
    try:
        write_whole(path, _archive(name, files))
    except OSError as error:
        raise SinkError(f"bundle '{path}' cannot be written: {error.strerror}") from error
    return Bundle(path, name)


def _check_target(target: Path) -> None:
    """Raise ``UsageError`` where the archive would not be one, or would take a file's place."""
    if not target.name.endswith((".tar.gz", ".tgz")):
        raise UsageError(f"--output {target}: the bundle is a .tar.gz, name it so")
    if target.is_dir() or (target.exists() and not target.is_file()):
        raise UsageError(f"--output {target}: is there already and is no archive")


def _find(source: Path) -> tuple[Artifact, Path]:
    """(the artifact a file belongs to, the graph in it)."""
    if source.is_dir():
        raise ArtifactError(f"'{source}' is a directory: name the .engine or .onnx file in it")
    if not source.is_file():
        raise ArtifactError(f"'{source}' does not exist")
    if source.suffix not in (".engine", ".onnx"):
        raise ArtifactError(
            f"'{source}' cannot be bundled: name a TensorRT engine (.engine) or a graph (.onnx)",
            hint="an OpenVINO engine is verified on the CPU it runs on: build it there",
        )
    for candidate in _manifests(source):
        if candidate.is_file():
            artifact = open_artifact(candidate)
            if source.name in artifact.manifest.files:
                break
    else:
        raise ArtifactError(
            f"'{source}' has no manifest beside it, so nobody knows what it is",
            hint="bundle what scripts/build_engine.py made",
        )
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
        source.parent / "artifact.json",
    )


def _describe(graph: Path, manifest: Manifest, *, labels: bool) -> tuple[bytes, dict[str, Any]]:
    """The graph to bundle, and what a builder that cannot read ONNX must know of it."""
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise MissingDependencyError("onnx", "build", why="making a bundle") from error
    from calibration.qdq_lint import heavy_nodes, left_in_float, lint
    from pipeline.lowering.labels import append_labels
    from pipeline.stages.spellings import TENSORRT_GRAPH

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
            f"'{graph}' breaks rule '{broken[0].rule}' at node '{broken[0].node}': "
            f"{broken[0].message} ({len(broken)} violations in all)",
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
    }


def _tensor(value: Any) -> TensorFacts:
    import numpy as np
    from onnx import helper

    tensor = value.type.tensor_type
    shape = tuple(dim.dim_value for dim in tensor.shape.dim)
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
    rank = len(shape)
    layout = "NHW" if rank == 3 else "NHWC" if dtype == "uint8" else "NCHW"
    return TensorFacts(name=value.name, dtype=dtype, shape=shape, layout=layout)


def _manifest(source: Manifest, model: bytes, facts: Mapping[str, Any]) -> bytes:
    """The graph's manifest: as recorded, but of the file that is in the bundle."""
    manifest = Manifest(
        kind="qdq-onnx" if "int8" in facts["precision"] else "onnx",
        main="model.onnx",
        files={"model.onnx": hashlib.sha256(model).hexdigest()},
        key=source.key,
        inputs=tuple(TensorFacts.from_json(t) for t in facts["inputs"]),
        outputs=tuple(TensorFacts.from_json(t) for t in facts["outputs"]),
        facts={k: facts[k] for k in ("precision", "output", "preset", "patch", "multiply_adds")},
        provenance=source.provenance,
    )
    return manifest.to_json()


def _requirements() -> str:
    return (
        "# What a runner needs from the Python package index:\n"
        + "\n".join(RUNNER_REQUIREMENTS)
        + "\n# Not from there: TensorRT. On Jetson it is part of JetPack (python3-libnvinfer); on\n"
        "# a desktop 'pip install tensorrt' or 'tensorrt-rtx'. And one of pycuda and\n"
        "# cuda-bindings, of the installed CUDA's major version, such as\n"
        "# 'cuda-bindings==12.9.*' for JetPack 6.2.\n"
    )


def _application() -> dict[str, bytes]:
    """The runner's and builder's sources, and the data files beside them, as ``app/...``."""
    root = _root()
    modules = import_closure(root, (root / RUNNER, _source(root, BUILDER)))
    folders = {path.parent for path in modules}
    data = {
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.suffix in _DATA_SUFFIXES and path.is_file()
    }
    found = sorted(modules | data | {root / RUNNER})
    return {f"app/{path.relative_to(root).as_posix()}": path.read_bytes() for path in found}


def import_closure(root: Path, entries: tuple[Path, ...]) -> set[Path]:
    """Every source file of ``PACKAGES`` that the entries import, at any depth, anywhere in them."""
    found: set[Path] = set()
    waiting = list(entries)
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        for name in _imported(path):
            if name.partition(".")[0] not in PACKAGES:
                continue
            parts = name.split(".")
            for depth in range(1, len(parts) + 1):
                source = _source(root, ".".join(parts[:depth]))
                if source.is_file():
                    waiting.append(source)
    return found


def _imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # ``from a import b``: b may be a module of a.
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _source(root: Path, module: str) -> Path:
    path = root.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _root() -> Path:
    root = Path(__file__).resolve().parent.parent
    if not (root / ENTRY).is_file():
        raise ArtifactError(
            "a bundle is made from the project's own folder: its scripts are not installed here",
            hint="clone the repository and run scripts/make_bundle.py there",
        )
    return root


def _archive(name: str, files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(files):
            entry = tarfile.TarInfo(f"{name}/{path}")
            entry.size = len(files[path])
            entry.mode = 0o755 if path == "edge.py" else 0o644
            archive.addfile(entry, io.BytesIO(files[path]))
    return gzip.compress(packed.getvalue(), compresslevel=6, mtime=0)
