"""Which CUDA package is taken, on which GPU, and what is freed: with stand-ins for both."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from pipeline.engines import cuda_python
from pipeline.engines.cuda_memory import open_memory
from pipeline.engines.cuda_python import CudaPythonMemory
from pipeline.errors import EngineError

OK, FAILED = (
    SimpleNamespace(name="CUDA_SUCCESS"),
    SimpleNamespace(name="CUDA_ERROR_ILLEGAL_ADDRESS"),
)


class Api(ModuleType):
    """``cuda.bindings.driver``: every call succeeds with a number, unless told otherwise."""

    def __init__(self) -> None:
        super().__init__("cuda.bindings.driver")
        self.calls: list[str] = []
        self.failing: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        if name == "CUresult":
            return SimpleNamespace(CUDA_SUCCESS=OK)
        if name.startswith("CU"):
            return MagicMock()  # enumerations and handles
        if not name.startswith("cu"):
            raise AttributeError(name)

        def call(*_arguments: Any) -> tuple[Any, ...]:
            self.calls.append(name)
            return (FAILED,) if name in self.failing else (OK, 4096)

        return call


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    found = Api()
    for name in ("cuda", "cuda.bindings"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", found)
    monkeypatch.setattr(cuda_python, "_primary", [])
    return found


def _pycuda(monkeypatch: pytest.MonkeyPatch, bus: str = "0000:01:00.0") -> None:
    """pycuda whose primary context is on the GPU at that address; GPU 0 is at ``0000:01``."""
    driver: Any = ModuleType("pycuda.driver")
    driver.Error = type("Error", (Exception,), {})
    driver.Device = lambda index: SimpleNamespace(pci_bus_id=lambda: f"0000:0{index + 1}:00.0")
    primary: Any = ModuleType("pycuda.autoprimaryctx")
    primary.device = SimpleNamespace(pci_bus_id=lambda: bus)
    primary.context = SimpleNamespace()
    for name, module in (
        ("pycuda", ModuleType("pycuda")), ("pycuda.driver", driver),
        ("pycuda.autoprimaryctx", primary),
    ):  # fmt: skip
        monkeypatch.setitem(sys.modules, name, module)


def test_pycuda_comes_first(monkeypatch: pytest.MonkeyPatch, api: Api) -> None:
    _pycuda(monkeypatch)
    memory = open_memory()
    assert (memory.name, memory.has_graphs) == ("pycuda", True)
    assert "cuInit" not in api.calls


def test_another_gpu_than_was_asked_about_is_refused(
    monkeypatch: pytest.MonkeyPatch, api: Api
) -> None:
    """``autoprimaryctx`` obeys CUDA_DEVICE and a file, of which nothing else here knows."""
    _pycuda(monkeypatch, bus="0000:02:00.0")
    with pytest.raises(EngineError, match=r"CUDA_DEVICE or ~/\.cuda_device chose") as caught:
        open_memory()
    assert "0000:02:00.0" in str(caught.value)
    assert "0000:01:00.0" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert api.calls == []


@pytest.mark.parametrize("broken", ["pycuda.driver", "pycuda.autoprimaryctx"])
def test_a_pycuda_that_does_not_load_leaves_room_for_cuda_python(
    monkeypatch: pytest.MonkeyPatch, api: Api, broken: str
) -> None:
    _pycuda(monkeypatch)
    monkeypatch.setitem(sys.modules, broken, None)  # importing it is an ImportError
    assert open_memory().name.startswith("cuda-python (pycuda is installed but does not load: ")
    assert "cuInit" in api.calls
    with pytest.raises(EngineError, match="pycuda is installed but does not load"):
        open_memory("pycuda")


def test_a_cuda_python_that_does_not_load_is_one_line(
    monkeypatch: pytest.MonkeyPatch, api: Api
) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    with pytest.raises(EngineError, match="cuda-python is installed but does not load"):
        open_memory()
    _pycuda(monkeypatch)
    assert not open_memory().has_graphs  # pycuda does without
    assert api.calls == []


def test_the_primary_context_is_retained_once_and_never_released(api: Api) -> None:
    """The last release resets the GPU under whatever else lives on it in this process."""
    for _ in range(3):
        CudaPythonMemory().close()
    assert api.calls.count("cuDevicePrimaryCtxRetain") == 1
    assert "cuDevicePrimaryCtxRelease" not in api.calls
    assert api.calls.count("cuCtxPushCurrent") == api.calls.count("cuCtxPopCurrent") == 3


def test_closing_goes_on_after_a_failure_and_raises_the_first(api: Api) -> None:
    memory = CudaPythonMemory()
    with memory.active():
        stream = memory.stream()
        memory.event()
        memory.device(64)
        memory.begin_capture(stream)
        memory.end_capture(stream)
    api.failing = {"cuGraphExecDestroy", "cuEventDestroy"}
    api.calls.clear()
    with pytest.raises(EngineError, match=r"ILLEGAL_ADDRESS \(cuGraphExecDestroy\)"):
        memory.close()
    assert api.calls == [
        "cuCtxPushCurrent", "cuGraphExecDestroy", "cuGraphDestroy", "cuStreamDestroy",
        "cuEventDestroy", "cuMemFree", "cuCtxPopCurrent",
    ]  # fmt: skip
    memory.close()
