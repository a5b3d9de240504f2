"""In which order an engine lets go: TensorRT's objects first, in a current context, memory last.

TensorRT is a stand-in whose objects say when they go. What it does with real ones is not tested
here; see the tests marked ``gpu``.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline.artifact import Manifest, TensorSpec
from pipeline.engines import abandoned, trt_executor
from pipeline.engines.cuda_driver import GpuFacts
from pipeline.engines.tensorrt import TensorRTEngine
from pipeline.engines.trt_preflight import this_platform
from pipeline.errors import EngineError
from pipeline.inference import FrameSegmenter
from pipeline.verify import compare, label_agreement
from tests.pipeline.engines.test_trt_executor import Diary

ADA = GpuFacts("NVIDIA L4", (8, 9), 24 << 30, (12, 6))
TENSORS = {
    "frames": TensorSpec(name="frames", dtype="uint8", shape=(1, 4, 4, 3), layout="NHWC"),
    "logits": TensorSpec(name="logits", dtype="float32", shape=(1, 5, 1, 1), layout="NCHW"),
}


class Object:
    """One of TensorRT's: notes that it goes, which fails outside ``active``."""

    def __init__(self, diary: Diary, name: str, above: object = None) -> None:
        self.diary, self.name, self.above = diary, name, above

    def __del__(self) -> None:
        inside = "" if self.diary._inside else " OUTSIDE"
        self.diary.calls.append(f"{self.name} gone{inside}")


class Context(Object):
    def set_tensor_address(self, _name: str, _address: int) -> bool:
        return True

    def execute_async_v3(self, _stream: int) -> bool:
        return self.diary.runs  # type: ignore[attr-defined, no-any-return]  # set by the test


class Engine(Object):
    num_io_tensors = 2
    device_memory_size_v2 = 7

    def get_tensor_name(self, i: int) -> str:
        return list(TENSORS)[i]

    def get_tensor_mode(self, name: str) -> str:
        return "TensorIOMode.INPUT" if name == "frames" else "TensorIOMode.OUTPUT"

    def get_tensor_dtype(self, name: str) -> str:
        return TENSORS[name].dtype

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return TENSORS[name].shape

    def create_execution_context(self) -> Context | None:
        made = self.diary.contexts = self.diary.contexts - 1  # type: ignore[attr-defined]  # as above
        return Context(self.diary, "context", self) if made >= 0 else None


class Runtime(Object):
    def deserialize_cuda_engine(self, _plan: bytes) -> Engine:
        return Engine(self.diary, "engine", self)


def open_double(
    tmp_path: Path, diary: Diary, *, runs: bool = True, contexts: int = 9,
    runtime: type[Runtime] = Runtime, flavour: str = "tensorrt", graphs: bool = True, **more: Any,
) -> TensorRTEngine:  # fmt: skip
    """An engine on stand-ins; ``more`` is what their TensorRT has besides."""
    diary.runs, diary.contexts = runs, contexts  # type: ignore[attr-defined]  # for the stand-ins
    plan = tmp_path / "m.engine"
    plan.write_bytes(b"plan")
    trt = SimpleNamespace(
        __version__="10.3.0", ILogger=object, Runtime=lambda _logger: runtime(diary, "runtime"),
        nptype=lambda name: name, **more,
    )  # fmt: skip
    built: dict[str, Any] = {
        "flavour": flavour, "version": "10.3.0", "cuda": None, "platform": this_platform(),
        "capabilities": ["8.9"],
    }  # fmt: skip
    manifest = Manifest(
        kind="engine", main="m.engine", files={}, key="", inputs=(TENSORS["frames"],),
        outputs=(TENSORS["logits"],), facts={"built_with": built, "precision": "int8"},
    )  # fmt: skip
    return TensorRTEngine(
        plan, manifest, trt, ADA, diary, slots=2, cuda_graphs=graphs, allow_host_code=False
    )


class Closing(Diary):
    """Its close is noted without a current context, as the adapters make it current themselves."""

    def close(self) -> None:
        self.calls.append("close")


GONE = ["context gone", "context gone", "engine gone", "runtime gone", "close"]


def test_closing_lets_go_of_everything_before_memory(tmp_path: Path) -> None:
    diary = Closing()
    engine = open_double(tmp_path, diary)
    engine.submit(1)
    engine.close()
    assert diary.calls[-5:] == GONE
    engine.close()
    assert diary.calls.count("close") == 1


def test_closing_frees_what_it_can_after_a_device_failed(tmp_path: Path) -> None:
    diary = Closing()
    engine = open_double(tmp_path, diary)
    engine.submit(0)

    def fail(event: int) -> bool:
        raise EngineError("CUDA failed: ILLEGAL_ADDRESS")

    diary.happened = fail  # type: ignore[method-assign]  # the device fails
    engine.close()
    assert diary.calls[-5:] == GONE


@pytest.fixture
def _patience_is_short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hang is found after a hundredth of a second, and what it leaves behind is forgotten."""
    kept: list[Any] = []
    monkeypatch.setattr(abandoned, "_abandoned", kept)
    monkeypatch.setattr(trt_executor, "RUN_SECONDS", 0.01)
    monkeypatch.setattr(trt_executor.Request.drain, "__defaults__", (0.01,))
    yield
    kept.clear()  # the stand-ins', which is of no matter


@pytest.mark.usefixtures("_patience_is_short")
def test_closing_frees_nothing_that_a_hanging_device_may_still_use(tmp_path: Path) -> None:
    diary = Closing()
    engine = open_double(tmp_path, diary)
    engine.submit(1)
    diary.pending = 10**9
    assert not abandoned.engines_left_behind()
    with pytest.warns(RuntimeWarning, match="engine 'm.engine': the GPU did not answer in time"):
        engine.close()
    engine.close()
    del engine
    gc.collect()
    assert not {"close", *GONE} & set(diary.calls)
    assert abandoned.engines_left_behind()


@pytest.mark.usefixtures("_patience_is_short")
def test_an_engine_whose_first_run_hangs_does_not_open_and_frees_nothing(tmp_path: Path) -> None:
    """Not even once the error is gone, whose traceback holds what the GPU may still use."""
    diary = Closing()
    diary.pending = 10**9
    with (
        pytest.warns(RuntimeWarning, match="engine 'm.engine': the GPU did not answer in time"),
        pytest.raises(EngineError, match="the GPU did not finish the engine's first run"),
    ):
        open_double(tmp_path, diary)
    gc.collect()
    assert not {"close", *GONE} & set(diary.calls)
    assert abandoned.engines_left_behind()


FRAMES = np.zeros(TENSORS["frames"].shape, np.uint8)


def _by_graph(engine: TensorRTEngine) -> object:
    return compare(engine, {}, [FRAMES])


def _by_labels(engine: TensorRTEngine) -> object:
    return label_agreement(engine, [FRAMES], [FRAMES[..., 0]])


def _by_pixels(engine: TensorRTEngine) -> object:
    """The way of the gate, the report, and the comparison of back ends."""
    return FrameSegmenter(engine).segment(FRAMES[0])


@pytest.mark.usefixtures("_patience_is_short")
@pytest.mark.parametrize("judge", [_by_graph, _by_labels, _by_pixels])
def test_a_comparison_ends_when_the_device_hangs_and_frees_nothing(
    tmp_path: Path, judge: Callable[[TensorRTEngine], object]
) -> None:
    diary = Closing()
    engine = open_double(tmp_path, diary)
    diary.pending = 10**9
    with pytest.raises(EngineError, match="the GPU did not finish a run of the engine"):
        judge(engine)
    with pytest.warns(RuntimeWarning, match="engine 'm.engine': the GPU did not answer in time"):
        engine.close()
    assert not {"close", *GONE} & set(diary.calls)


def _no_memory(_nbytes: int) -> int:
    raise EngineError("out of GPU memory (cuMemAlloc)")


@pytest.mark.parametrize(
    ("change", "options", "said", "contexts"),
    [
        (lambda _d: None, {"runs": False}, "could not be run", 2),
        (lambda _d: None, {"contexts": 1}, "has no room for another request", 1),
        (lambda d: setattr(d, "device", _no_memory), {}, "out of GPU memory", 2),
    ],
)
def test_an_engine_that_does_not_open_lets_go_in_the_same_order(
    tmp_path: Path, change: Callable[[Diary], None], options: dict[str, Any], said: str,
    contexts: int,
) -> None:  # fmt: skip
    """While the error is still held: its traceback's frames must hold nothing of TensorRT's."""
    diary = Closing()
    change(diary)
    with pytest.raises(EngineError, match=said) as caught:
        open_double(tmp_path, diary, **options)
    assert caught.value.__traceback__ is not None
    assert diary.calls[-3 - contexts :] == GONE[2 - contexts :]


def test_running_out_of_memory_in_a_run_is_called_that(tmp_path: Path) -> None:
    diary = Closing()
    with open_double(tmp_path, diary, graphs=False) as engine:
        diary.runs = False  # type: ignore[attr-defined]  # the stand-ins' runs fail from here on
        engine._heard.logger.log("Severity.ERROR", "Error Code 1: Cuda Runtime (out of memory)")
        with pytest.raises(EngineError, match=r"^out of GPU memory: engine 'm\.engine' could") as e:
            engine.submit(0)
    assert e.value.hint is not None
    assert "--workspace" in e.value.hint


def test_a_slot_without_a_graph_is_said(tmp_path: Path) -> None:
    diary = Closing()
    ends = iter([13])

    def end(stream: int) -> int:
        for graph in ends:
            return graph
        raise EngineError("CUDA failed: STREAM_CAPTURE_INVALIDATED")

    diary.end_capture = end  # type: ignore[method-assign]  # the second capture fails
    with open_double(tmp_path, diary) as engine:
        assert engine.info.extra["cuda_graph"] == (
            "not in 1 of 2: CUDA failed: STREAM_CAPTURE_INVALIDATED"
        )
    with open_double(tmp_path, Closing()) as engine:
        assert engine.info.extra["cuda_graph"] == "captured"
