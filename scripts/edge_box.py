#!/usr/bin/env python3
"""Build and run the bundled network on this machine.

    python3 edge.py                  say what is here, what is missing and where to get it
    python3 edge.py build            make the engine one of this machine: built for its GPU, or
                                     proven on its CPU
    python3 edge.py run SOURCE ...   segment a camera, file or stream (options of run_video.py)

Until it has found what it needs, this file uses nothing but Python itself.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import json
import os
import platform
import shlex
import shutil
import sys
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.bundle_box import BoxEngine

HERE = Path(__file__).resolve().parent
BUNDLE_VERSION = 3
MAX_INDEX_BYTES = 64 << 20
# Modules by the distribution that holds them, where the names differ.
MODULES = {"opencv-python": "cv2", "prometheus-client": "prometheus_client"}
EXIT_OK, EXIT_MISSING = 0, 2


def fail(message: str, hint: str = "") -> NoReturn:
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
    if type(version) is int and version not in (0, BUNDLE_VERSION):
        fail(f"this bundle is of version {version}, edge.py reads {BUNDLE_VERSION}")
    version = version if type(version) is int else 0
    kinds = {"name": str, "backend": str, "model": dict, "requirements": list, "files": dict}
    whole = version and all(isinstance(index.get(key), kind) for key, kind in kinds.items())
    texts = [*index.get("requirements", ()), *index.get("files", {}).values()] if whole else []
    needed = {"edge.py", "model.json"} <= set(index["files"]) and index["model"] if whole else False
    if not needed or not all(isinstance(text, str) for text in texts):
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
        module = None
        try:
            if name == "openvino":  # imported, it would call home before it can be told not to
                if find_spec(name) is None:
                    raise ModuleNotFoundError(name)
            else:
                module = importlib.import_module(MODULES.get(name, name))
        except ModuleNotFoundError:
            missing.append(requirement)
            continue
        except (ImportError, OSError, AttributeError) as error:
            broken = str(error).splitlines()[0] if str(error) else type(error).__name__
            missing.append(f"{name} (installed, does not load: {broken})")
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


def tensorrt_flavours() -> tuple[dict[str, str], list[str]]:
    """(installed TensorRT flavours and their versions; those that do not load, and why).

    Importing either needs no GPU, but libraries such as libnvinfer.
    """
    found, broken = {}, []
    for flavour, module in (("tensorrt", "tensorrt"), ("tensorrt-rtx", "tensorrt_rtx")):
        try:
            found[flavour] = str(importlib.import_module(module).__version__)
        except (ImportError, OSError, AttributeError) as error:
            if isinstance(error, ModuleNotFoundError) and error.name == module:
                continue  # not installed at all
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            broken.append(f"{flavour}: {first}")
    return found, broken


def cuda_package() -> tuple[str | None, list[str]]:
    """(the package that will move frames to the GPU, with its version; those that do not load).

    What is imported are the parts that need the driver: the package ``pycuda`` itself is empty and
    always loads.
    """
    broken: list[str] = []
    for name, distribution in (("pycuda", "pycuda"), ("cuda.bindings", "cuda-bindings")):
        try:
            importlib.import_module(f"{name}.driver")
            return f"{distribution} {metadata.version(distribution)}", broken
        except metadata.PackageNotFoundError:
            # A subclass of the next: without pip's record nobody knows which version it is.
            return distribution, broken
        except ModuleNotFoundError as error:
            # Of a package that is there, what it misses; one that is not there is no trouble.
            if error.name is not None and name.startswith(error.name):
                continue
            broken.append(f"{distribution}: {error}")
        except (ImportError, OSError) as error:
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            broken.append(f"{distribution}: {first}")
    return None, broken


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


def on_gpu(index: dict[str, Any]) -> bool:
    """Whether TensorRT runs it; else OpenVINO does, on the CPU."""
    return bool(index["backend"] == "tensorrt")


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
    lacking = missing_packages(index["requirements"])
    print(f"  packages   {'all here' if not lacking else 'missing: ' + ', '.join(lacking)}")
    compiler = None
    with contextlib.suppress(ValueError):  # a quotation that is not closed
        compiler = shutil.which((shlex.split(os.environ.get("CC", "")) or ["cc"])[0])
    print(f"  compiler   {compiler or 'missing: kernels run in NumPy, several times as slow'}")
    todo = []
    if wrong:
        todo.append("copy the archive again and unpack it")
    if lacking:
        wanted = [each for each in lacking if "does not load" not in each]
        todo += [f"mend {each}" for each in lacking if each not in wanted]
        if wanted:
            listed = shlex.quote(str(HERE / "requirements.txt"))
            todo.append(f"python3 -m pip install -r {listed}")
    if on_gpu(index):
        todo += check_gpu(release, whole=not wrong)
    trouble = "" if wrong else not_of_this_bundle(index)
    print(f"  engine     {trouble or engine_path(index).name}")
    build_next = [] if todo or wrong or not trouble else ["python3 edge.py build"]
    for step in todo + build_next:
        print(f"next: {step}")
    return EXIT_MISSING if todo else EXIT_OK


def check_gpu(release: str | None, *, whole: bool) -> list[str]:
    """Print what TensorRT needs and finds; what there is to do about it."""
    ready, said = gpu_line() if whole else (False, "not asked: files are damaged")
    print(f"  GPU        {said}")
    flavours, unloaded = tensorrt_flavours()
    listed = ", ".join(f"{name} {version}" for name, version in flavours.items())
    print(f"  TensorRT   {listed or 'missing'}")
    for each in unloaded:
        print(f"             does not load: {each}")
    cuda, broken = cuda_package()
    print(f"  CUDA       {cuda or 'missing: pycuda or cuda-python'}")
    for each in broken:
        print(f"             does not load: {each}")
    again = "--force-reinstall " if unloaded else ""
    by_apt = f"sudo apt install {'--reinstall ' if unloaded else ''}python3-libnvinfer"
    todo = [] if flavours else [by_apt if release else f"python3 -m pip install {again}tensorrt"]
    if not cuda:
        again = "--force-reinstall " if broken else ""
        todo.append(f"python3 -m pip install {again}cuda-bindings (of your CUDA's major version)")
    if not ready and whole:
        todo.append("take the bundle to a machine with an NVIDIA GPU and its driver")
    return todo


def not_of_this_bundle(index: dict[str, Any]) -> str:
    """Why the engine beside this file, if any, is not the one built of this bundle; else empty."""
    path = engine_path(index)
    try:
        manifest = json.loads(path.with_name(f"{path.name}.json").read_bytes())
        built_of = manifest["facts"]["bundle"]
    except (OSError, ValueError, KeyError, TypeError):
        return "not built yet"
    if built_of != bundle_digest(index):
        return "built of another bundle that was unpacked here: build it again"
    if not on_gpu(index):
        proven = here = manifest["facts"].get("tools", {}).get("openvino")
        with contextlib.suppress(metadata.PackageNotFoundError):  # which is told elsewhere
            here = metadata.version("openvino")
        if proven != here:
            return f"proven with OpenVINO {proven}, here is {here}: build it again"
    return "" if path.is_file() else "not built yet"


def bundle_digest(index: dict[str, Any]) -> str:
    """What tells this bundle from another."""
    return hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()


def engine_path(index: dict[str, Any]) -> Path:
    """Where the engine lies or will lie."""
    return HERE / f"{index['name']}{'.engine' if on_gpu(index) else '.xml'}"


def build(index: dict[str, Any], arguments: list[str]) -> NoReturn:
    """Build the engine, its manifest beside it."""
    parser = Parser(prog="edge.py build")
    add_options(parser.add_argument_group("of TensorRT bundles").add_argument)
    options = parser.parse_args(arguments)
    given = [name for name, value in vars(options).items() if value != parser.get_default(name)]
    if given and not on_gpu(index):
        fail(
            f"--{given[0].replace('_', '-')} is for TensorRT bundles, and this one holds an "
            "OpenVINO engine",
            "leave it out",
        )
    wrong = damaged(index)
    if wrong:
        fail(f"'{wrong[0]}' is not what was packed", "copy the archive again and unpack it")
    lacking = missing_packages(index["requirements"])
    if lacking:
        fail(f"{', '.join(lacking)} missing", "python3 edge.py, which says what to install")
    sys.path.insert(0, str(HERE / "app"))
    from pipeline.console import run_command, say, warn

    again = shlex.join(("python3", "edge.py", "build", *arguments))
    again = f"cd {shlex.quote(str(HERE))} && {again}"
    about = {"rebuild": again, "bundle": bundle_digest(index)}
    make: Callable[[], BoxEngine]
    if on_gpu(index):
        from pipeline.bundle_build import BuildRequest, build_engine

        request = BuildRequest(HERE, index, engine_path(index), about, **vars(options))
        make = partial(build_engine, request, say)
    else:
        from pipeline.bundle_adopt import adopt_engine

        make = partial(adopt_engine, HERE, index, engine_path(index), about)

    def tell() -> int:
        made = make()
        for line in made.warnings:
            warn(line)
        for line in (*made.told, f"{made.path}  ({made.seconds:.0f} s)"):
            say(line)
        return EXIT_OK

    run_command(tell)


class Parser(argparse.ArgumentParser):
    """argparse with our way of saying errors."""

    def error(self, message: str) -> NoReturn:
        """One line instead of the usage."""
        fail(message, f"python3 {self.prog} --help")


def add_options(add: Callable[..., object]) -> None:
    """What TensorRT may be told; ``add`` is argparse's ``add_argument``."""
    add("--flavour", choices=("tensorrt", "tensorrt-rtx"))
    add("--workspace", type=int, metavar="MIB", help="bound on scratch memory")
    add("--level", type=int, choices=range(6), help="of optimization")
    add("--timing-cache", action="store_true", help="keep timings between builds")
    add("--strict-int8", action="store_true")


def run(index: dict[str, Any], arguments: list[str]) -> NoReturn:
    """Hand over to the video runner with this bundle's engine."""
    if any(w.startswith("--e") and "--engine".startswith(w.partition("=")[0]) for w in arguments):
        fail("--engine: edge.py runs the engine of this bundle", "leave --engine out")
    engine = engine_path(index)
    trouble = not_of_this_bundle(index)
    if trouble:
        fail(f"the engine is {trouble}", "python3 edge.py build")
    lacking = missing_packages(index["requirements"])
    if lacking:
        fail(f"{', '.join(lacking)} missing", "python3 edge.py, which says what to install")
    script = HERE / "app" / "scripts" / "run_video.py"
    if not script.is_file():
        fail(f"'{script}' is missing", "copy the archive again and unpack it")
    command = [sys.executable, str(script), "--engine", str(engine), *arguments]
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
        build(index, arguments)
    if command == "run":
        run(index, arguments)
    print(__doc__)
    return EXIT_OK if command in ("-h", "--help", "help") else EXIT_MISSING


if __name__ == "__main__":
    try:
        if sys.stdout is None:  # closed by who started us
            sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  to the end
        code = main()
        sys.stdout.flush()
    except KeyboardInterrupt:  # what is built or run has an end of its own
        sys.exit(130)
    except OSError as trouble:  # stdout is full or closed, or a file cannot be read
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        fail(f"{trouble.strerror or trouble}: {trouble.filename or 'stdout'}")
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as trouble:
        fail(f"bundle.json or model.json was altered ({type(trouble).__name__}: {trouble})")
    sys.exit(code)
