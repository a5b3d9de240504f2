"""Who may import whom: the rules that keep torch off the edge box and the rooms apart."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = ("models", "calibration", "pipeline", "scripts")
STANDARD = set(sys.stdlib_module_names)


def sources(*folders: str) -> list[Path]:
    found = [p for folder in folders for p in sorted((ROOT / folder).rglob("*.py"))]
    assert found
    return found


def imports(path: Path, *, lazy: bool = True) -> Iterator[str]:
    """Full names of modules that a file imports; without ``lazy``, only at import time."""

    def walk(node: ast.AST, deferred: bool) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            inside = deferred or isinstance(
                child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
            )
            if isinstance(child, ast.Import) and (lazy or not deferred):
                yield from (alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and (lazy or not deferred):
                assert child.level == 0, f"{path}: relative import"
                yield child.module or ""
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            else:
                yield from walk(child, inside)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), False)


def tops(path: Path, *, lazy: bool = True) -> set[str]:
    return {name.partition(".")[0] for name in imports(path, lazy=lazy)}


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", sources("models"), ids=module)
def test_models_import_torch_and_nothing_of_ours_outside(path: Path) -> None:
    allowed = STANDARD | {"torch", "safetensors", "models"}
    assert tops(path) <= allowed


@pytest.mark.parametrize("path", sources("calibration"), ids=module)
def test_calibration_imports_nothing_of_ours_outside(path: Path) -> None:
    allowed = STANDARD | {"numpy", "cv2", "onnx", "nncf", "calibration"}
    assert tops(path) <= allowed


@pytest.mark.parametrize("path", sources("pipeline"), ids=module)
def test_only_stages_lowering_training_and_build_know_the_models(path: Path) -> None:
    name = module(path)
    knows = ("pipeline.stages.", "pipeline.lowering.", "pipeline.training.")
    # Of the report, the figure of an FC kernel, and what builds the engines to compare.
    # And of the benchmark, what runs the network in torch. Options name the forms of injection.
    extra = ("pipeline.build", "pipeline.build_inputs", "pipeline.build_options",
             "pipeline.build_parser", "pipeline.report.options",
             "pipeline.report.locality_figure", "pipeline.report.subjects",
             "pipeline.benchmark.options", "pipeline.benchmark.torch_forms")  # fmt: skip
    if name.startswith(knows) or name in extra:
        return
    assert not tops(path) & {"torch", "models"}


@pytest.mark.parametrize("path", sources("pipeline/stages"), ids=module)
def test_no_stage_knows_another(path: Path) -> None:
    stages = {module(p) for p in sources("pipeline/stages") if "Stage):" in p.read_text("utf-8")}
    assert len(stages) > 5
    assert "pipeline.stages" not in imports(path)  # nor by way of the folder
    assert not set(imports(path)) & stages


@pytest.mark.parametrize("path", sources(*OURS), ids=module)
def test_runtimes_are_imported_in_one_place_each_and_late(path: Path) -> None:
    name = module(path)
    owners = {
        # These two only after their telemetry was silenced.
        "nncf": ("calibration.quantize",),
        "openvino": ("pipeline.engines.openvino",),
        "tensorrt": ("pipeline.engines.tensorrt", "pipeline.engines.trt"),
        "tensorrt_rtx": ("pipeline.engines.tensorrt", "pipeline.engines.trt"),
        "pycuda": ("pipeline.engines.cuda",),
        "cuda": ("pipeline.engines.cuda",),
    }
    for runtime, owner in owners.items():
        if runtime in tops(path):
            assert name.startswith(owner), f"{name} imports {runtime}"
        assert runtime not in tops(path, lazy=False), f"{name} imports {runtime} when it is loaded"


@pytest.mark.parametrize("path", sources("models", "calibration", "pipeline"), ids=module)
def test_nothing_imports_scripts_or_tests(path: Path) -> None:
    assert not tops(path) & {"scripts", "tests"}


# Commands of their own, and what renders for commands.
COMMANDS = ("pipeline.console", "pipeline.kernels.__main__", "pipeline.benchmark.table",
            "calibration.streets", "calibration.camvid", "calibration.command")  # fmt: skip


@pytest.mark.parametrize("path", sources("models", "calibration", "pipeline"), ids=module)
def test_only_commands_print(path: Path) -> None:
    if module(path) in COMMANDS:
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Call(func=ast.Name(id="print")):
                pytest.fail(f"line {node.lineno} prints")
            case ast.Attribute(value=ast.Name(id="sys"), attr="stdout" | "stderr"):
                pytest.fail(f"line {node.lineno} takes a stream")
            case ast.ImportFrom(module="pipeline.console", names=names):
                rendering = {"say", "warn", "print_json", "stderr", "run_command"}
                assert not rendering & {alias.name for alias in names}


RUNNER = (
    "pipeline.console", "pipeline.engines.base", "pipeline.engines.opening", "pipeline.inference",
    "pipeline.kernels", "pipeline.video.runner",
)  # fmt: skip
HEAVY = ("torch", "onnx", "onnxruntime", "openvino", "nncf", "tensorrt", "matplotlib", "jinja2")


def test_the_runner_loads_nothing_heavy() -> None:
    code = f"import sys, {', '.join(RUNNER)}; print(*sorted(set(sys.modules) & set({HEAVY})))"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == ""


def test_the_runner_imports_where_nothing_heavy_is_installed() -> None:
    block = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {HEAVY}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Absent())
import {", ".join(RUNNER)}
"""
    subprocess.run([sys.executable, "-c", block], cwd=ROOT, check=True)
