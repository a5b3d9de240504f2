"""Which CUDA package is taken, on which GPU, and what is freed: with stand-ins for both."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from pipeline.engines import cuda_pycuda, cuda_python
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


class PycudaContext:
    """The primary context: a stack of its own for each thread, as the driver has it."""

    def __init__(self, error: type[Exception]) -> None:
        self.calls: list[str] = []
        self.error = error
        self.failing: set[str] = set()

    def _call(self, name: str) -> None:
        self.calls.append(f"{name} in {threading.current_thread().name}")
        if name in self.failing:
            raise self.error(f"{name} failed: an illegal memory access was encountered")

    def push(self) -> None:
        self._call("push")

    def pop(self) -> None:
        self._call("pop")


def _pycuda(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``pycuda.driver``, which notes what is asked of it; ``autoprimaryctx`` cannot be imported."""
    driver: Any = ModuleType("pycuda.driver")
    driver.Error = type("Error", (Exception,), {})
    driver.calls = []
    driver.context = PycudaContext(driver.Error)

    def retain(index: int) -> PycudaContext:
        driver.calls.append(f"retain {index}")
        context: PycudaContext = driver.context
        return context

    driver.init = lambda: driver.calls.append("init")
    driver.Device = lambda index: SimpleNamespace(retain_primary_context=lambda: retain(index))
    for name, module in (
        ("pycuda", ModuleType("pycuda")), ("pycuda.driver", driver),
        ("pycuda.autoprimaryctx", None),
    ):  # fmt: skip
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(cuda_pycuda, "_primary", [])
    return driver


def test_pycuda_comes_first(monkeypatch: pytest.MonkeyPatch, api: Api) -> None:
    _pycuda(monkeypatch)
    memory = open_memory()
    assert (memory.name, memory.has_graphs) == ("pycuda", True)
    assert "cuInit" not in api.calls


def test_pycudas_context_is_gpu_0s_retained_once_and_left_pushed_nowhere(
    monkeypatch: pytest.MonkeyPatch, api: Api
) -> None:
    """Whichever thread comes first. CUDA_DEVICE is pycuda's own, of which nothing else knows."""
    driver = _pycuda(monkeypatch)
    monkeypatch.setenv("CUDA_DEVICE", "1")
    with ThreadPoolExecutor(4, "worker") as pool:
        memories = list(pool.map(lambda _: open_memory(), range(8)))
    assert driver.calls == ["init", "retain 0"]
    assert driver.context.calls == []
    with memories[0].active():
        assert driver.context.calls == ["push in MainThread"]
    assert driver.context.calls == ["push in MainThread", "pop in MainThread"]
    assert api.calls == []


@pytest.mark.parametrize("call", ["push", "pop"])
def test_a_context_that_fails_is_one_line(
    monkeypatch: pytest.MonkeyPatch, api: Api, call: str
) -> None:
    driver = _pycuda(monkeypatch)
    memory = open_memory()
    driver.context.failing = {call}
    said = f"CUDA failed: {call} failed: an illegal"
    with pytest.raises(EngineError, match=said), memory.active():
        pass
    assert api.calls == []


def test_a_gpu_that_pycuda_cannot_reach_is_one_line(
    monkeypatch: pytest.MonkeyPatch, api: Api
) -> None:
    driver = _pycuda(monkeypatch)

    def fail() -> None:
        raise driver.Error("cuInit failed: no CUDA-capable device is detected")

    driver.init = fail
    with pytest.raises(EngineError, match="pycuda cannot reach the GPU: cuInit failed"):
        open_memory()
    assert api.calls == []


def test_a_gpu_without_room_for_a_context_is_called_that(
    monkeypatch: pytest.MonkeyPatch, api: Api
) -> None:
    driver = _pycuda(monkeypatch)

    def fail(_index: int) -> None:
        raise driver.Error("cuDevicePrimaryCtxRetain failed: out of memory")

    driver.Device = fail
    with pytest.raises(EngineError, match=r"^out of GPU memory \(the GPU's primary") as caught:
        open_memory()
    assert caught.value.hint is not None
    assert "close other programs on the GPU" in caught.value.hint
    assert api.calls == []


def test_a_pycuda_that_does_not_load_leaves_room_for_cuda_python(
    monkeypatch: pytest.MonkeyPatch, api: Api
) -> None:
    _pycuda(monkeypatch)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)  # importing it is an ImportError
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


def test_a_graph_that_cannot_be_made_ready_is_freed(api: Api) -> None:
    memory = CudaPythonMemory()
    with memory.active():
        stream = memory.stream()
        memory.begin_capture(stream)
        api.failing = {"cuGraphInstantiate", "cuGraphDestroy"}
        with pytest.raises(EngineError, match=r"ILLEGAL_ADDRESS \(cuGraphInstantiate\)"):
            memory.end_capture(stream)
    assert api.calls[-3:] == ["cuGraphInstantiate", "cuGraphDestroy", "cuCtxPopCurrent"]


def test_pycudas_closing_goes_on_after_a_failure(monkeypatch: pytest.MonkeyPatch, api: Api) -> None:
    """What pycuda frees when nobody refers to it goes in the current context, not at some time."""
    driver = _pycuda(monkeypatch)
    freed: list[str] = []

    class Buffer:
        def __int__(self) -> int:
            return 4096

        def __del__(self) -> None:
            freed.append(driver.context.calls[-1])

    driver.mem_alloc = lambda _nbytes: Buffer()
    memory = open_memory()
    with memory.active():
        memory.device(64)
        memory.begin_capture(7)
        memory.end_capture(7)
    api.failing = {"cuGraphExecDestroy"}
    with pytest.raises(EngineError, match=r"ILLEGAL_ADDRESS \(cuGraphExecDestroy\)"):
        memory.close()
    assert freed == ["push in MainThread"]


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
