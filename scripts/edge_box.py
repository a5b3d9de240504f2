#!/usr/bin/env python3
"""Build and run the bundled network on this machine.

    python3 edge.py                  say what is here, what is missing and where to get it
    python3 edge.py build            build the engine for this machine's GPU
    python3 edge.py run SOURCE ...   segment a camera, file or stream (options of run_video.py)

Until it has found what it needs, this file uses nothing but Python itself.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import platform
import shlex
import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.artifact import Manifest

HERE = Path(__file__).resolve().parent
BUNDLE_VERSION = 2
MAX_INDEX_BYTES = 64 << 20
# Modules by the distribution that holds them, where the names differ.
MODULES = {"opencv-python": "cv2", "prometheus-client": "prometheus_client"}
EXIT_OK, EXIT_MISSING = 0, 2


def fail(message: str, hint: str = "") -> None:
    """Print one line, and what to do, and end with the code for bad input."""
    print(f"error: {message}", file=sys.stderr)
    if hint:
        print(f"  try: {hint}", file=sys.stderr)
    sys.exit(EXIT_MISSING)


def read_index() -> dict[str, Any]:
    """The bundle's table of contents."""
    path = HERE / "bundle.json"
    try:
        if path.stat().st_size > MAX_INDEX_BYTES:
            fail(f"'{path}' is too large to be a bundle's index")
        index: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        fail(
            f"there is no bundle here: '{path}' is missing",
            "unpack an archive that scripts/make_bundle.py made, and run the edge.py in it",
        )
    except (OSError, ValueError):
        fail(f"'{path}' is not a bundle's index: it was altered or half copied")
    version = index.get("version", 0) if isinstance(index, dict) else 0
    if version not in (0, BUNDLE_VERSION):
        fail(f"this bundle is of version {version}, edge.py reads {BUNDLE_VERSION}")
    kinds = (("name", str), ("model", dict), ("requirements", list), ("files", dict))
    if not version or not all(isinstance(index.get(key), kind) for key, kind in kinds):
        fail(f"'{path}' is not a bundle's index: it was altered or half copied")
    return index


def damaged(index: dict[str, Any]) -> list[str]:
    """Files that are missing or not what was packed."""
    wrong = []
    for name, expected in index["files"].items():
        path = HERE / name
        if HERE not in path.resolve().parents:
            fail(f"the index names a file outside the bundle: '{name}'")
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            wrong.append(name)
    return wrong


def missing_packages(requirements: list[str]) -> list[str]:
    """Those of the runner's requirements that cannot be imported here, or are too old."""
    missing = []
    for requirement in requirements:
        name, _, least = requirement.partition(">=")
        try:
            module = importlib.import_module(MODULES.get(name, name))
        except ImportError:
            missing.append(requirement)
            continue
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            # Not by pip, such as JetPack's python3-opencv; one that does not say is given a try.
            found = str(getattr(module, "__version__", least))
        if numbers(found) < numbers(least):
            missing.append(f"{requirement} (here is {found})")
    return missing


def numbers(version: str) -> list[int]:
    """``4.10.0.84`` as numbers, which compare as versions do; up to what is no number."""
    found = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        found.append(int(digits))
    return found


def jetpack() -> str | None:
    """Release line of Jetson Linux; ``None`` where this is no Jetson."""
    try:
        return Path("/etc/nv_tegra_release").read_text(encoding="utf-8").splitlines()[0]
    except (OSError, IndexError):
        return None


def tensorrt_flavours() -> dict[str, str]:
    """Installed TensorRT flavours and their versions. Importing either needs no GPU."""
    found = {}
    for flavour, module in (("tensorrt", "tensorrt"), ("tensorrt-rtx", "tensorrt_rtx")):
        try:
            found[flavour] = str(importlib.import_module(module).__version__)
        except (ImportError, OSError, AttributeError):
            continue
    return found


def cuda_package() -> str | None:
    """The package that will move frames to the GPU, with its version."""
    for name, distribution in (("pycuda", "pycuda"), ("cuda.bindings", "cuda-bindings")):
        try:
            importlib.import_module(name)
            return f"{distribution} {metadata.version(distribution)}"
        except (ImportError, metadata.PackageNotFoundError):
            continue
    return None


def gpu_line() -> tuple[bool, str]:
    """(whether there is a GPU, what the driver says). Needs ``app`` to be whole."""
    sys.path.insert(0, str(HERE / "app"))
    from pipeline.engines.cuda_driver import find_gpu  # needs ctypes alone
    from pipeline.errors import EngineError

    try:
        gpu = find_gpu()
    except EngineError as error:
        return False, str(error)
    version = ".".join(map(str, gpu.driver))
    return True, f"{gpu.name}, compute capability {gpu.sm}, driver for CUDA {version}"


def describe(index: dict[str, Any]) -> None:
    """Print what the network is. Of a bundle whose files are whole."""
    model = index["model"]
    print(
        f"{index['name']}: {model['precision']}, preset {model['preset']}, gives {model['output']}"
    )
    given = model["inputs"][0]
    print(f"  input      {given['dtype']} {given['layout']} {given['shape']}")
    manifest = json.loads((HERE / "model.json").read_bytes())
    calibration = manifest["provenance"].get("quantize", {}).get("calibration")
    if calibration:
        taken = f"{calibration['taken']} frames of {calibration['split']}"
        print(f"  calibrated on {taken}, list {calibration['sha256'][:12]}")


def check(index: dict[str, Any]) -> int:
    """Print what is here and what is not; 0 when an engine can be built and run."""
    wrong = damaged(index)
    if not wrong:
        describe(index)
    print(f"  files      {'all whole' if not wrong else 'DAMAGED: ' + ', '.join(wrong[:3])}")
    print(f"  machine    {platform.machine()}, Python {platform.python_version()}")
    release = jetpack()
    if release:
        print(f"  Jetson     {release}")
    ready, said = gpu_line() if not wrong else (False, "not asked: files are damaged")
    print(f"  GPU        {said}")
    lacking = missing_packages(index["requirements"])
    print(f"  packages   {'all here' if not lacking else 'missing: ' + ', '.join(lacking)}")
    flavours = tensorrt_flavours()
    listed = ", ".join(f"{name} {version}" for name, version in flavours.items())
    print(f"  TensorRT   {listed or 'missing'}")
    cuda = cuda_package()
    print(f"  CUDA       {cuda or 'missing: pycuda or cuda-python'}")
    compiler = shutil.which(os.environ.get("CC", "cc"))
    print(f"  compiler   {compiler or 'missing: kernels run in NumPy, several times as slow'}")
    engine = engine_path(index)
    print(f"  engine     {engine.name if engine.is_file() else 'not built yet'}")
    todo = []
    if wrong:
        todo.append("copy the archive again and unpack it")
    if lacking:
        todo.append(f"python3 -m pip install -r {HERE / 'requirements.txt'}")
    if not flavours:
        todo.append(
            "sudo apt install python3-libnvinfer" if release else "python3 -m pip install tensorrt"
        )
    if not cuda:
        todo.append("python3 -m pip install cuda-bindings (of your CUDA's major version)")
    if not ready and not wrong:
        todo.append("nothing to install: TensorRT engines need an NVIDIA GPU and its driver")
    if not todo and not engine.is_file():
        todo.append("python3 edge.py build")
    for step in todo:
        print(f"next: {step}")
    return EXIT_OK if not todo or todo == ["python3 edge.py build"] else EXIT_MISSING


def engine_path(index: dict[str, Any]) -> Path:
    """Where the engine lies or will lie."""
    return HERE / f"{index['name']}.engine"


def build(index: dict[str, Any], arguments: list[str]) -> int:
    """Build the engine, its manifest beside it."""
    parser = argparse.ArgumentParser(prog="edge.py build")
    parser.add_argument("--flavour", choices=("tensorrt", "tensorrt-rtx"))
    parser.add_argument("--workspace", type=int, metavar="MIB", help="bound on scratch memory")
    parser.add_argument("--level", type=int, choices=range(6), help="of optimization")
    parser.add_argument("--timing-cache", action="store_true", help="keep timings between builds")
    parser.add_argument("--strict-int8", action="store_true")
    options = parser.parse_args(arguments)
    wrong = damaged(index)
    if wrong:
        fail(f"'{wrong[0]}' is not what was packed", "copy the archive again and unpack it")
    lacking = missing_packages(index["requirements"])
    if lacking:
        fail(f"{', '.join(lacking)} missing", "python3 edge.py says what to install")
    sys.path.insert(0, str(HERE / "app"))
    from pipeline.console import run_command

    run_command(lambda: _build(index, options, ["build", *arguments]))
    return EXIT_OK


def _build(index: dict[str, Any], options: argparse.Namespace, given: list[str]) -> int:
    from pydantic import ValidationError

    from pipeline.artifact import write_whole
    from pipeline.console import say, warn
    from pipeline.engines.cuda_driver import find_gpu
    from pipeline.engines.opening import manifest_of
    from pipeline.engines.tensorrt import import_flavour, installed_flavours
    from pipeline.engines.trt_builder import BuilderOptions, build_plan
    from pipeline.engines.trt_facts import engine_facts
    from pipeline.engines.trt_preflight import NAMES, cuda_major
    from pipeline.errors import EngineError, MissingDependencyError, UsageError

    model = index["model"]
    if options.strict_int8 and "int8" not in model["precision"]:
        raise UsageError(
            f"--strict-int8: this bundle's network is {model['precision']}, nothing of it is int8"
        )
    here = installed_flavours()
    flavour = options.flavour or (here[0] if here else None)
    try:
        if flavour is None:
            raise MissingDependencyError("tensorrt", "tensorrt", why="building the engine")
        trt = import_flavour(flavour, why="building the engine")
    except MissingDependencyError as error:
        # The hint would name this project's extras, which a bundle does not have.
        raise EngineError(str(error), hint="python3 edge.py says where to get it") from error
    gpu = find_gpu() if flavour == "tensorrt" else None
    try:
        settings = BuilderOptions(
            workspace_mib=options.workspace, optimization_level=options.level,
            timing_cache=options.timing_cache,
        )  # fmt: skip
    except ValidationError as error:
        raise UsageError(
            f"--workspace {options.workspace}: {error.errors()[0]['msg'].lower()} (MiB)"
        ) from error
    say(f"building with {NAMES[flavour]} {trt.__version__}; this can take minutes")
    built = build_plan(
        trt, flavour, (HERE / "model.onnx").read_bytes(), settings, gpu=gpu,
        cuda=cuda_major(flavour),
    )  # fmt: skip
    facts = engine_facts(
        built, model["heavy"], precision=model["precision"], output=model["output"],
        strict_int8=options.strict_int8,
        about={key: model[key] for key in ("preset", "patch", "multiply_adds")},
    )  # fmt: skip
    facts["rebuild"] = (
        f"cd {shlex.quote(str(HERE))} && {shlex.join(('python3', 'edge.py', *given))}"
    )
    facts |= judge(index, built.plan, facts)
    engine = engine_path(index)
    manifest_path = manifest_of(engine)
    manifest_path.unlink(missing_ok=True)
    write_whole(engine, built.plan)
    write_whole(manifest_path, _manifest(index, engine, facts).to_json())
    for name in facts["float_fallback"]:
        warn(f"'{name}' was to run in int8 and runs in {facts['nodes'][name]}")
    for line in facts["warnings"]:
        warn(f"{NAMES[flavour]}: {line}")
    if facts["agreement"] is None:
        warn(f"built, and not compared with its graph: {facts['not_executed']}")
    else:
        same = facts["agreement"]["graph"]
        say(f"{same['labels']:.2%} of labels as its graph, on {same['frames']} frames")
    say(f"{engine}  ({built.seconds:.0f} s)")
    return EXIT_OK


def _manifest(index: dict[str, Any], engine: Path, facts: dict[str, Any]) -> Manifest:
    from pipeline.artifact import Manifest, TensorFacts, hash_of, sha256_of

    model = index["model"]
    source = Manifest.from_json((HERE / "model.json").read_bytes())
    return Manifest(
        kind="engine",
        main=engine.name,
        files={engine.name: sha256_of(engine)},
        key=hash_of({"bundle": index["files"], "built_with": facts["built_with"]}),
        inputs=tuple(TensorFacts.from_json(t) for t in model["inputs"]),
        outputs=tuple(TensorFacts.from_json(t) for t in model["outputs"]),
        facts=facts,
        provenance=source.provenance,
    )


def judge(index: dict[str, Any], plan: bytes, facts: dict[str, Any]) -> dict[str, Any]:
    """Run the engine on the bundle's frames, where it can run: ``agreement``, ``not_executed``.

    Raises ``CheckFailedError`` for an engine that is not the graph it was built from.
    """
    import numpy as np

    from pipeline.console import warn
    from pipeline.engines.cuda_driver import find_gpu
    from pipeline.engines.tensorrt import open_tensorrt
    from pipeline.errors import CheckFailedError, EdgeError, EngineError
    from pipeline.verify import MIN_AGREEMENT, label_agreement

    try:
        find_gpu()
    except EngineError as error:
        return {"agreement": None, "not_executed": str(error)}
    frames, labels = (
        np.load(HERE / "check" / f"{name}.npy", allow_pickle=False) for name in ("frames", "labels")
    )
    with tempfile.TemporaryDirectory(dir=HERE, prefix=".check-") as folder:
        path = Path(folder) / f"{index['name']}.engine"
        path.write_bytes(plan)
        try:
            # Host code is allowed: what it carries was put there a moment ago.
            opened = open_tensorrt(path, _manifest(index, path, facts), allow_host_code=True)
        except EdgeError as error:
            if facts["built_with"]["flavour"] == "tensorrt":
                raise  # it was built here, for here
            warn(f"the engine does not open here: {error}")
            return {"agreement": None, "not_executed": str(error)}
        with opened as engine:
            found = label_agreement(engine, frames, labels)
            runtime = dict(engine.info.extra)
    if not found["labels"] >= MIN_AGREEMENT:
        raise CheckFailedError(
            f"the engine is not its graph: they name the same class on {found['labels']:.2%} of "
            f"positions (asked for {MIN_AGREEMENT:.0%}); nothing was written",
        )
    return {"agreement": {"graph": found}, "not_executed": None, "runtime": runtime}


def run(index: dict[str, Any], arguments: list[str]) -> int:
    """Hand over to the video runner with this bundle's engine."""
    if any(word == "--engine" or word.startswith("--engine=") for word in arguments):
        fail("--engine: edge.py runs the engine of this bundle", "leave --engine out")
    engine = engine_path(index)
    if not engine.is_file():
        fail("the engine is not built yet", "python3 edge.py build")
    lacking = missing_packages(index["requirements"])
    if lacking:
        fail(f"{', '.join(lacking)} missing", "python3 edge.py says what to install")
    script = HERE / "app" / "scripts" / "run_video.py"
    command = [sys.executable, str(script), *arguments, "--engine", str(engine)]
    os.execv(sys.executable, command)  # noqa: S606  # our own script, no shell


def main() -> int:
    """Parse and do."""
    if sys.version_info < (3, 10):  # noqa: UP036  # a box may have an older one
        fail(f"Python 3.10 or newer is needed, this is {platform.python_version()}")
    command, *arguments = sys.argv[1:] or ["check"]
    index = read_index()
    if command == "check":
        return check(index)
    if command == "build":
        return build(index, arguments)
    if command == "run":
        return run(index, arguments)
    print(__doc__)
    return EXIT_OK if command in ("-h", "--help", "help") else EXIT_MISSING


if __name__ == "__main__":
    sys.exit(main())
