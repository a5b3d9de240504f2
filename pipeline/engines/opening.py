"""Opening an engine file: everything that could make it the wrong one is asked first.

Beside ``NAME.xml`` lies ``NAME.xml.json``, its manifest, beside ``NAME.engine`` likewise. It must
match the files, the runtime's version and this machine before the runtime is handed anything.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from hashlib import sha256
from importlib import metadata
from pathlib import Path

from pipeline import OPENVINO_PRECISIONS, PRECISIONS
from pipeline.artifact import Artifact, read_manifest
from pipeline.engines.base import Engine
from pipeline.engines.compiled_cache import open_cache
from pipeline.engines.cpu import cpu_features, cpu_model
from pipeline.engines.rebuild import COMMAND, recorded_command
from pipeline.engines.setups import Goal, choose_setup
from pipeline.errors import ArtifactError, EngineError, MissingDependencyError, UsageError

SUFFIXES = (".xml", ".engine")


def manifest_of(path: Path) -> Path:
    """Where the manifest of an engine file lies: the whole name and ``.json``, so that engines of
    one name and different back ends keep a manifest each."""
    return path.with_name(f"{path.name}.json")


def engine_artifact(path: Path, *, verify: bool = True) -> Artifact:
    """The engine of that file, as its manifest describes it.

    Args:
        path: the engine's main file.
        verify: compare every file with its hash; else nothing but the manifest is read.

    Raises:
        ArtifactError: the manifest is missing, does not match the files, or is another's.
    """
    manifest_path = manifest_of(path)
    artifact = Artifact(read_manifest(manifest_path), manifest_path)
    if verify:
        artifact.verify()
    if artifact.kind != "engine" or artifact.path.name != path.name:
        raise ArtifactError(f"'{manifest_path}' is not the manifest of '{path.name}'")
    return artifact


def open_engine(
    path: Path, *, threads: int = 0, streams: int = 0, slots: int = 0, goal: Goal = "latency",
    allow_host_code: bool = False,
) -> Engine:  # fmt: skip
    """The engine of that file, on this machine.

    Where neither threads nor streams are given, an OpenVINO engine is opened as it was tuned for
    the goal on such a machine (``info.extra["tuned_for"]``), else with defaults; that a tuning was
    left aside, and why, is in ``info.extra["tuning_ignored"]``. A TensorRT engine that was
    never compared with its graph is warned of, with the reason.

    Args:
        path: ``.xml`` (OpenVINO), ``.engine`` (TensorRT) or ``.onnx`` (ONNX Runtime, executed
            exactly as written: the slow reference).
        threads: CPU threads; 0 leaves them open. Of no TensorRT engine: it runs on a GPU.
        streams: requests that run at the same time on a CPU; 0 leaves them open. The same.
        slots: requests that may be in flight, at least; there are always more than streams.
        goal: ``latency``, the least time a frame, or ``throughput``, the most frames a second.
        allow_host_code: let a version-compatible TensorRT engine run the code it carries; only
            for engines of your own making.

    Raises:
        UsageError: an option that means nothing to such an engine.
        EngineError: no such file, or one that no runtime here opens.
        ArtifactError: the manifest is missing or does not match the file, version or machine.
        MissingDependencyError: the runtime is not installed.
    """
    if path.is_dir():
        raise EngineError(
            f"engine '{path}' is a directory",
            hint="name an engine in it: a file that ends in .xml, .engine or .onnx",
        )
    if not path.is_file():
        raise EngineError(f"engine '{path}' does not exist", hint=f"{COMMAND} makes one")
    _check_meant(path, threads=threads, streams=streams, allow_host_code=allow_host_code)
    if path.suffix == ".onnx":
        from pipeline.engines.onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(path, threads=threads)
    if path.suffix not in SUFFIXES:
        raise EngineError(
            f"'{path}' is not an engine: expected {', '.join(SUFFIXES)} or .onnx",
            hint="name the file that build_engine.py printed",
        )
    artifact = _trusted(path)
    if path.suffix == ".engine":
        from pipeline.engines.tensorrt import DEFAULT_SLOTS, open_tensorrt

        # How many CPUs there are says nothing here, and every slot takes GPU memory.
        engine = open_tensorrt(
            path, artifact.manifest, slots=max(slots, DEFAULT_SLOTS),
            allow_host_code=allow_host_code,
        )  # fmt: skip
        reason = artifact.facts.get("not_executed")
        if reason is not None:
            warnings.warn(
                f"'{path.name}' was never compared with its graph ({reason}): build it again on "
                "this machine before you trust its labels",
                RuntimeWarning,
                stacklevel=2,
            )
        return engine
    chosen = choose_setup(artifact.facts, goal, threads=threads, streams=streams, slots=slots)
    setup = chosen.setup
    _check_openvino(artifact)
    from pipeline.engines.openvino import OpenVINOEngine

    # One folder per content: OpenVINO's own cache goes by file name and time, which can lie.
    content = sha256(artifact.manifest.key.encode(errors="surrogatepass")).hexdigest()[:20]
    cache = open_cache(content)
    notes: dict[str, str] = {"tuned_for": goal} if chosen.tuned else {}
    if chosen.ignored is not None:
        notes = {"tuning_ignored": chosen.ignored}
    return OpenVINOEngine(
        path, precision=artifact.facts["precision"], threads=setup.threads,
        streams=setup.streams, slots=setup.slots, cache=cache, notes=notes,
    )  # fmt: skip


def find_engine(folder: Path) -> Path:
    """The engine in ``folder`` to run: of those built for this machine the newest in INT8, else the
    newest; one that a report built for itself only where there is no other.

    Raises ``EngineError`` when there is none, saying how to make one.
    """
    candidates = [p for suffix in SUFFIXES for p in folder.glob(f"*{suffix}") if p.is_file()]
    reasons = []
    for path in sorted(candidates, key=_preference, reverse=True):
        try:
            artifact = engine_artifact(path, verify=False)
            _check_facts(artifact)
            lost = [name for name in artifact.manifest.files if not (folder / name).is_file()]
            if lost:
                raise ArtifactError(f"'{path.name}' lacks '{lost[0]}'")
            if path.suffix == ".xml":
                _check_openvino(artifact)
            else:
                _check_tensorrt(artifact)
        except (ArtifactError, EngineError, MissingDependencyError) as error:
            reasons.append(f"'{path.name}': {error}" if path.name not in str(error) else str(error))
            continue
        return path
    why = f"; the first choice: {reasons[0]}" if reasons else ""
    raise EngineError(
        f"no engine in '{folder}' fits this machine{why}", hint=f"{COMMAND} makes one"
    )


def _preference(path: Path) -> tuple[bool, bool, float]:
    try:
        facts = read_manifest(manifest_of(path)).facts
    except ArtifactError:
        facts = {}
    # What a report built for itself may be what it has found wanting.
    used = "made_for" not in facts
    return used, "int8" in str(facts.get("precision")), path.stat().st_mtime


def _check_meant(path: Path, *, threads: int, streams: int, allow_host_code: bool) -> None:
    if path.suffix == ".engine":
        for option, given in (("--threads", threads), ("--streams", streams)):
            if given:
                raise UsageError(
                    f"{option} {given}: '{path.name}' is a TensorRT engine, which runs on the GPU",
                    hint=f"leave {option} out: it is for engines that run on a CPU",
                )
    elif allow_host_code:
        raise UsageError(
            f"--allow-host-code: '{path.name}' is no TensorRT engine, so it carries no host code",
            hint="leave it out, or name an .engine file with --engine",
        )


def _trusted(path: Path) -> Artifact:
    try:
        artifact = engine_artifact(path)
    except ArtifactError as error:
        raise ArtifactError(f"{error}", hint=_again(path)) from error
    _check_facts(artifact)
    return artifact


def _check_facts(artifact: Artifact) -> None:
    """Raise ``ArtifactError`` for facts that are not what a build writes."""
    facts = artifact.facts
    tables = ("tools", "device", "executed", "nodes")
    wrong = [name for name in tables if not isinstance(facts.get(name, {}), dict)]
    if not wrong:
        features = facts.get("device", {}).get("features", [])
        if not isinstance(features, list) or not all(isinstance(f, str) for f in features):
            wrong.append("device")
    known = OPENVINO_PRECISIONS if artifact.path.suffix == ".xml" else PRECISIONS
    if facts.get("precision") not in known:
        wrong.append("precision")
    if wrong:
        raise ArtifactError(
            f"'{artifact.manifest_path}': its '{wrong[0]}' is not what a build writes",
            hint=f"build it again: {COMMAND}",
        )


def _again(path: Path) -> str:
    """What to do about an engine whose files are not what its manifest says."""
    try:
        manifest = read_manifest(manifest_of(path))
    except ArtifactError:
        if path.suffix == ".engine":
            return (
                f"build it again: {COMMAND} --backend tensorrt; in a bundle python3 edge.py build"
            )
        return f"build it again: {COMMAND}"
    if any(not path.with_name(name).is_file() for name in manifest.files):
        return "copy the files that lay beside it along with it, or build it again"
    return f"build it again: {recorded_command(manifest, path)}"


def _check_tensorrt(artifact: Artifact) -> None:
    """Raise unless there are a GPU and a TensorRT here that the engine was built for."""
    from pipeline.engines.tensorrt import check_here

    check_here(artifact.manifest, artifact.path)


def _check_openvino(artifact: Artifact) -> None:
    """Raise ``ArtifactError`` unless the engine was verified with this OpenVINO on such a CPU."""
    facts = artifact.facts
    name = artifact.path.name
    again = recorded_command(artifact.manifest, artifact.path)
    try:
        here = metadata.version("openvino")
    except metadata.PackageNotFoundError:
        here = None  # opening it will say which package to install
    built = facts.get("tools", {}).get("openvino")
    if here is not None and built != here:
        raise ArtifactError(
            f"engine '{name}' was verified with OpenVINO {built}, here is {here}", hint=again
        )
    device = facts.get("device", {})
    there, own = tuple(device.get("features") or ()), cpu_features()
    if there != own or device.get("cpu") != cpu_model():
        raise ArtifactError(
            f"engine '{name}' was verified on {device.get('cpu')} ({_short(there, own)}), "
            f"this is {cpu_model()} ({_short(own, there)})",
            hint=again,
        )


def _short(features: Sequence[str], others: Sequence[str]) -> str:
    """The instructions that int8 is about, and what only this side has."""
    telling = [
        f
        for f in features
        if f not in others or any(w in f for w in ("vnni", "amx", "bf16", "dp", "="))
    ]
    return ", ".join(telling) or "no int8 instructions"
