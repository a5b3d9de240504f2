"""Building a bundle's engine on the box: what ``edge.py build`` does once all it needs is there.

A bundle holds the graph as TensorRT is to have it, what a builder that cannot read ONNX must know
of it, and frames with the labels that the exact graph gives them. The engine is held to those.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.artifact import Manifest, TensorSpec, hash_of, sha256_of, write_whole
from pipeline.bundle_box import BoxEngine, load_check
from pipeline.engines.cuda_memory import open_memory
from pipeline.engines.opening import manifest_of
from pipeline.engines.trt_builder import BuilderOptions, build_plan
from pipeline.engines.trt_facts import engine_facts
from pipeline.engines.trt_modules import import_flavour, installed_flavours
from pipeline.engines.trt_preflight import NAMES, Flavour, cuda_major
from pipeline.engines.trt_start import gpu_to_build_on
from pipeline.engines.trt_trial import open_fresh
from pipeline.errors import EngineError, MissingDependencyError, UsageError
from pipeline.verify import label_agreement, require_agreement


@dataclass(frozen=True)
class BuildRequest:
    """What to build, and how.

    Attributes:
        folder: the unpacked bundle.
        index: its table of contents, read and checked.
        engine: the file to write; its manifest goes beside it.
        about: facts for the manifest: the command that was given, and of which bundle.
        flavour: which TensorRT; ``None`` for the one that is installed.
        workspace: bound on scratch memory, MiB.
        level: of optimization, 0 to 5.
        timing_cache: keep timings between builds.
        strict_int8: a heavy layer that falls back to float is an error.
    """

    folder: Path
    index: dict[str, Any]
    engine: Path
    about: dict[str, Any]
    flavour: Flavour | None = None
    workspace: int | None = None
    level: int | None = None
    timing_cache: bool = False
    strict_int8: bool = False


def build_engine(request: BuildRequest, notify: Callable[[str], None]) -> BoxEngine:
    """Build, judge, write and tell.

    Args:
        request: what, and how.
        notify: told a line as it begins.

    Raises:
        UsageError: an option that means nothing here.
        EngineError: no TensorRT, no GPU or too old a driver where they are needed, or TensorRT
            refuses, or does not run what it has built.
        CheckFailedError: an engine that is not the graph it was built from; nothing is written.
    """
    model = request.index["model"]
    if request.strict_int8 and "int8" not in model["precision"]:
        raise UsageError(
            f"--strict-int8: this bundle's network is {model['precision']}, nothing of it is int8"
        )
    settings = _settings(request)
    here = installed_flavours()
    flavour = request.flavour or (here[0] if here else None)
    try:
        if flavour is None:
            raise MissingDependencyError("tensorrt", "tensorrt", why="building the engine")
        trt = import_flavour(flavour, why="building the engine")
        gpu = gpu_to_build_on(trt, flavour)
        if gpu is not None:
            open_memory().close()  # what moves frames to it must be here too
    except MissingDependencyError as error:
        # The hint would name this project's extras, which a bundle does not have.
        raise EngineError(str(error), hint="python3 edge.py says where to get it") from error
    notify(f"building with {NAMES[flavour]} {trt.__version__}; this can take minutes")
    built = build_plan(
        trt, flavour, (request.folder / "model.onnx").read_bytes(), settings, gpu=gpu,
        cuda=cuda_major(flavour),
    )  # fmt: skip
    facts = engine_facts(
        built, model["heavy"], precision=model["precision"], output=model["output"],
        strict_int8=request.strict_int8,
        about={key: model[key] for key in ("preset", "patch", "multiply_adds")},
    ) | request.about  # fmt: skip
    facts |= _judge(request, built.plan, facts)
    manifest_path = manifest_of(request.engine)
    manifest_path.unlink(missing_ok=True)
    write_whole(request.engine, built.plan)
    write_whole(manifest_path, _manifest(request, request.engine, facts).to_json())
    told = []
    warnings = [
        f"'{name}' was to run in int8 and runs in {facts['nodes'][name]}"
        for name in facts["float_fallback"]
    ]
    warnings += [f"{NAMES[flavour]}: {line}" for line in facts["warnings"]]
    if facts["agreement"] is None:
        warnings.append(f"built, and not compared with its graph: {facts['not_executed']}")
    else:
        same = facts["agreement"]["graph"]
        told.append(f"{same['labels']:.2%} of labels as its graph, on {same['frames']} frames")
    return BoxEngine(request.engine, tuple(told), tuple(warnings), built.seconds)


def _settings(request: BuildRequest) -> BuilderOptions:
    try:
        return BuilderOptions(
            workspace_mib=request.workspace, optimization_level=request.level,
            timing_cache=request.timing_cache,
        )  # fmt: skip
    except ValidationError as error:
        raise UsageError(
            f"--workspace {request.workspace}: {error.errors()[0]['msg'].lower()} (MiB)"
        ) from error


def _judge(request: BuildRequest, plan: bytes, facts: dict[str, Any]) -> dict[str, Any]:
    """Run the engine on the bundle's frames, where it can run: ``agreement``, ``not_executed``."""
    frames, labels = load_check(request.folder)
    with tempfile.TemporaryDirectory(dir=request.folder, prefix=".check-") as folder:
        path = Path(folder) / request.engine.name
        path.write_bytes(plan)
        opened = open_fresh(path, _manifest(request, path, facts))
        if isinstance(opened, str):
            return {"agreement": None, "not_executed": opened}
        with opened as engine:
            found = label_agreement(engine, frames, labels)
            runtime = dict(engine.info.extra)
    asked = float(request.index["model"]["min_agreement"])
    require_agreement(
        found["labels"], asked, "the engine", lambda: "nothing was written",
        hint=_departing_hint(request.index["model"]["precision"], facts["built_with"]["flavour"]),
    )  # fmt: skip
    return {"agreement": {"graph": found}, "not_executed": None, "runtime": runtime}


def _departing_hint(precision: str, flavour: Flavour) -> str:
    """What the box can try; the bound, and all else, came with the bundle."""
    level = "another --level, or " if flavour == "tensorrt" else ""  # RTX has none
    plainer = "" if precision == "fp32" else "built with --precision fp32, or "
    return (
        f"{level}a bundle of an engine {plainer}built with a lower --min-agreement, which accepts "
        "one that departs from its graph"
    )


def _manifest(request: BuildRequest, engine: Path, facts: dict[str, Any]) -> Manifest:
    model = request.index["model"]
    source = Manifest.from_json((request.folder / "model.json").read_bytes())
    return Manifest(
        kind="engine",
        main=engine.name,
        files={engine.name: sha256_of(engine)},
        key=hash_of({"bundle": request.index["files"], "built_with": facts["built_with"]}),
        inputs=tuple(TensorSpec.from_json(t) for t in model["inputs"]),
        outputs=tuple(TensorSpec.from_json(t) for t in model["outputs"]),
        facts=facts,
        provenance=source.provenance,
    )
