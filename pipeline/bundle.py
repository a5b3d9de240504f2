"""One archive for the edge box: a network, where it comes from, and what builds and runs it.

A TensorRT engine belongs to the GPU that built it, so a Jetson's is built on the Jetson: what
travels is the graph, in the spelling and precision it is to be built from. An OpenVINO engine
travels itself, and is verified anew on the CPU it arrives at. With everything they need but the
packages themselves:

    NAME/edge.py             the one command: check, build, run; plain Python until it finds more
    NAME/bundle.json         what is inside, with hashes; what must be installed
    NAME/model.onnx          what the engine is built from; of OpenVINO NAME.xml and NAME.bin
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

from pipeline.artifact import write_whole
from pipeline.bundle_frames import check_files
from pipeline.bundle_openvino import openvino_parts
from pipeline.bundle_parts import Parts, tensorrt_parts
from pipeline.errors import ArtifactError, SinkError, UsageError

BUNDLE_VERSION = 3
ENTRY = "scripts/edge_box.py"
RUNNER = "scripts/run_video.py"
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
            with a manifest that lists it: its engine's, ``NAME.json`` or ``artifact.json``; or an
            OpenVINO engine (``.xml``) in the folder it was built into.
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
    parts = _parts(source, labels=labels)
    files = {
        **parts.files,
        "edge.py": (_root() / ENTRY).read_bytes(),
        "requirements.txt": _requirements(parts).encode(),
        **check_files(parts.exact, dataset),
        **_application(parts.builder),
    }
    about = {
        "version": BUNDLE_VERSION,
        "name": parts.name,
        "backend": parts.backend,
        "model": parts.model,
        "requirements": list(parts.requirements),
        "files": {path: hashlib.sha256(data).hexdigest() for path, data in files.items()},
    }
    files["bundle.json"] = json.dumps(about, indent=1, sort_keys=True).encode()
    path = target or Path(f"{parts.name}-bundle.tar.gz")
    try:
        write_whole(path, _archive(parts.name, files))
    except OSError as error:
        raise SinkError(f"bundle '{path}' cannot be written: {error.strerror}") from error
    return Bundle(path, parts.name)


def _check_target(target: Path) -> None:
    """Raise ``UsageError`` where the archive would not be one, or would take a file's place."""
    if not target.name.endswith((".tar.gz", ".tgz")):
        raise UsageError(f"--output {target}: the bundle is a .tar.gz, name it so")
    if target.is_dir() or (target.exists() and not target.is_file()):
        raise UsageError(f"--output {target}: is there already and is no archive")


def _parts(source: Path, *, labels: bool) -> Parts:
    if source.is_dir():
        raise ArtifactError(f"'{source}' is a directory: name the engine or .onnx file in it")
    if not source.is_file():
        raise ArtifactError(f"'{source}' does not exist")
    if source.suffix == ".xml":
        if labels:
            raise UsageError(
                f"--labels: '{source}' is an OpenVINO engine, whose logits the runner's kernels "
                "decide faster",
                hint="leave it out",
            )
        return openvino_parts(source)
    if source.suffix not in (".engine", ".onnx"):
        raise ArtifactError(
            f"'{source}' cannot be bundled: name an engine (.engine, .xml) or a graph (.onnx)"
        )
    return tensorrt_parts(source, labels=labels)


def _requirements(parts: Parts) -> str:
    listed = "\n".join(parts.requirements)
    return f"# What a runner needs from the Python package index:\n{listed}\n{parts.note}"


def _application(builder: str) -> dict[str, bytes]:
    """The runner's and builder's sources, and the data files beside them, as ``app/...``."""
    root = _root()
    modules = import_closure(root, (root / RUNNER, _source(root, builder)))
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
