"""Who may import whom: the rules that keep torch off the edge box and the rooms apart.

Each rule is one test that lists every offender.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
OURS = ("models", "calibration", "pipeline", "scripts")
STANDARD = set(sys.stdlib_module_names)


class Import(NamedTuple):
    """One import statement.

    Attributes:
        name: the module's full name.
        line: where it stands.
        late: in a function, so not run when the file is loaded.
    """

    name: str
    line: int
    late: bool

    @property
    def top(self) -> str:
        return self.name.partition(".")[0]


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> tuple[Import, ...]:
    """All that a file imports, but for what only the type checker reads."""

    def walk(node: ast.AST, late: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            inside = late or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            if isinstance(child, ast.Import):
                yield from (Import(alias.name, child.lineno, late) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                yield Import("." * child.level + (child.module or ""), child.lineno, late)
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            else:
                yield from walk(child, inside)

    return tuple(walk(parsed(path), False))


def sources(*folders: str) -> list[Path]:
    found = [p for folder in folders for p in sorted((ROOT / folder).rglob("*.py"))]
    assert found
    return found


def found_in(*folders: str) -> Iterator[tuple[Path, Import]]:
    """Every import of every file there."""
    for path in sources(*folders):
        for each in imports(path):
            yield path, each


def at(path: Path, line: int, what: str) -> str:
    """An offender, as a test that fails shows it."""
    return f"{path.relative_to(ROOT)}:{line}: {what}"


def offenders(breaks: Callable[[Path, Import], bool], *folders: str) -> list[str]:
    """Imports there that break a rule, as a test that fails shows them."""
    return [
        at(path, each.line, each.name) for path, each in found_in(*folders) if breaks(path, each)
    ]


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def test_imports_are_absolute() -> None:
    assert offenders(lambda _path, each: each.name.startswith("."), *OURS) == []


def test_models_import_torch_and_nothing_of_ours_outside() -> None:
    allowed = STANDARD | {"torch", "safetensors", "models"}
    assert offenders(lambda _path, each: each.top not in allowed, "models") == []


def test_calibration_imports_nothing_of_ours_outside() -> None:
    # nncf runs a graph on the calibration frames with onnxruntime, and so does what comes after it.
    allowed = STANDARD | {"numpy", "cv2", "onnx", "nncf", "onnxruntime", "calibration"}
    assert offenders(lambda _path, each: each.top not in allowed, "calibration") == []


def test_only_stages_lowering_training_and_build_know_the_models() -> None:
    knows = ("pipeline.stages.", "pipeline.lowering.", "pipeline.training.")
    # Of the report, the figure of an FC kernel, and what builds the engines to compare.
    # And of the benchmark, what runs the network in torch. Options name the forms of injection.
    extra = ("pipeline.build", "pipeline.build_inputs", "pipeline.build_options",
             "pipeline.build_parser", "pipeline.report.options",
             "pipeline.report.locality_figure", "pipeline.report.subjects",
             "pipeline.benchmark.options", "pipeline.benchmark.torch_forms")  # fmt: skip
    names = {module(path) for path in sources("pipeline")}
    assert set(extra) <= names, "an exception that is no longer needed"

    def knows_too_much(path: Path, each: Import) -> bool:
        excepted = module(path).startswith(knows) or module(path) in extra
        return each.top in ("torch", "models") and not excepted

    assert offenders(knows_too_much, "pipeline") == []


def test_no_stage_knows_another() -> None:
    stages = {module(p) for p in sources("pipeline/stages") if "Stage):" in p.read_text("utf-8")}
    assert len(stages) > 5
    forbidden = stages | {"pipeline.stages"}  # nor by way of the folder
    assert offenders(lambda _path, each: each.name in forbidden, "pipeline/stages") == []


def test_runtimes_are_imported_in_one_place_each_and_late() -> None:
    owners = {
        # These two only after their telemetry was silenced.
        "nncf": ("calibration.quantize",),
        "openvino": ("pipeline.engines.openvino",),
        "tensorrt": ("pipeline.engines.tensorrt", "pipeline.engines.trt"),
        "tensorrt_rtx": ("pipeline.engines.tensorrt", "pipeline.engines.trt"),
        "pycuda": ("pipeline.engines.cuda",),
        "cuda": ("pipeline.engines.cuda",),
    }
    found = []
    for path, each in found_in(*OURS):
        owner = owners.get(each.top)
        if owner is not None and not module(path).startswith(owner):
            found.append(at(path, each.line, f"{each.name}, which only {owner} may import"))
        if owner is not None and not each.late:
            found.append(at(path, each.line, f"{each.name}, when it is loaded"))
    assert found == []


def test_nothing_imports_scripts_or_tests() -> None:
    assert (
        offenders(
            lambda _path, each: each.top in ("scripts", "tests"),
            "models",
            "calibration",
            "pipeline",
        )
        == []
    )


# Commands of their own, and what renders for commands.
COMMANDS = ("pipeline.console", "pipeline.kernels.__main__", "pipeline.benchmark.table",
            "calibration.streets", "calibration.camvid", "calibration.command")  # fmt: skip
RENDERING = {"say", "warn", "print_json", "stderr", "run_command"}


def prints(path: Path) -> Iterator[str]:
    """What in a file writes to the console, or takes what does."""
    for node in ast.walk(parsed(path)):
        match node:
            case ast.Call(func=ast.Name(id="print")):
                yield at(path, node.lineno, "print")
            case ast.Attribute(value=ast.Name(id="sys"), attr="stdout" | "stderr" as stream):
                yield at(path, node.lineno, f"sys.{stream}")
            case ast.ImportFrom(module="pipeline.console", names=names):
                for name in sorted(RENDERING & {alias.name for alias in names}):
                    yield at(path, node.lineno, f"pipeline.console.{name}")


def test_only_commands_print() -> None:
    assert [
        offender
        for path in sources("models", "calibration", "pipeline")
        if module(path) not in COMMANDS
        for offender in prints(path)
    ] == []


HEAVY = ("torch", "onnx", "onnxruntime", "openvino", "nncf", "tensorrt", "tensorrt_rtx", "pycuda",
         "cuda", "matplotlib", "jinja2")  # fmt: skip
# What is imported, and what it may not so much as look for. In this order in one process: what one
# may not load, a later one may.
LIGHT = (
    (
        ("pipeline.engines.tensorrt", "pipeline.engines.cuda_memory",
         "pipeline.engines.trt_builder"),
        (*HEAVY, "cv2"),
    ),
    (
        ("pipeline.console", "pipeline.engines.base", "pipeline.engines.opening",
         "pipeline.inference", "pipeline.kernels", "pipeline.video.runner",
         "pipeline.video.session", "pipeline.video.sinks.window"),
        (*HEAVY, "av", "prometheus_client", "tenacity", "asyncio", "http.server"),
    ),
)  # fmt: skip
LOOK = """
import importlib, json, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in absent or name.partition(".")[0] in absent:
            found.append([module, name])
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Absent())
found = []
for modules, absent in json.loads(sys.argv[1]):
    for module in modules:
        importlib.import_module(module)
        found += [[module, name] for name in absent if name in sys.modules]
print(json.dumps(found))
"""


def test_what_runs_video_imports_nothing_heavy_and_needs_none_of_it_installed() -> None:
    """Nor do the TensorRT modules before an engine is opened."""
    done = subprocess.run(
        [sys.executable, "-c", LOOK, json.dumps(LIGHT)], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [], "[module of ours, what it loaded or looked for]"
