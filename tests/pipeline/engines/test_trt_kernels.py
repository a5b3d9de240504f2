"""The runtime cache of TensorRT for RTX: what is kept, whom it is taken from, when it goes.

TensorRT is a stand-in that compiles ``kernels`` once and counts; its names are held to the real
bindings at the end.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.engines import trt_kernels
from pipeline.engines.tensorrt import TensorRTEngine
from pipeline.engines.trt_log import LogLine
from pipeline.private import CACHE_VARIABLE
from tests.pipeline.engines.test_tensorrt_lifetime import (
    GONE,
    Closing,
    Context,
    Engine,
    Object,
    Runtime,
    open_double,
)

NAME = f"{hashlib.sha256(b'plan').hexdigest()}-10.3.0-8.9-12.6.kernels"
KERNELS = b"kernels"
WHOLE = hashlib.sha256(KERNELS).digest() + KERNELS


class Cache(Object):
    content = b""

    def deserialize(self, blob: bytes) -> bool:
        assert self.diary._inside, "what it is checked against is the current context's"
        self.diary.calls.append(f"read {blob!r}")
        if blob != KERNELS:
            return False
        self.content = blob
        return True

    def serialize(self) -> bytes:
        assert self.diary._inside
        return self.content


class Config(Object):
    cache: Cache | None = None
    cuda_graph_strategy = "off"

    def create_runtime_cache(self) -> Cache:
        return Cache(self.diary, "cache")

    def set_runtime_cache(self, cache: Cache) -> bool:
        self.cache = cache
        return True

    def __del__(self) -> None:
        """It may go whenever it likes."""


class RtxContext(Context):
    cache: Cache | None = None

    def execute_async_v3(self, stream: int) -> bool:
        if self.cache is not None and not self.cache.content:
            self.diary.calls.append("compile")
            self.cache.content = KERNELS
        return super().execute_async_v3(stream)

    def is_stream_capturable(self, _stream: int) -> bool:
        return True


class RtxEngine(Engine):
    def create_runtime_config(self) -> Config:
        return Config(self.diary, "config")

    def create_execution_context(self, config: Config | None = None) -> Context | None:
        assert config is not None, "without one there is no cache"
        self.diary.calls.append(f"graphs {config.cuda_graph_strategy}")
        context = RtxContext(self.diary, "context", self)
        context.cache = config.cache
        return context


class RtxRuntime(Runtime):
    def deserialize_cuda_engine(self, _plan: bytes) -> Engine:
        return RtxEngine(self.diary, "engine", self)


STRATEGY = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole")


def open_rtx(tmp_path: Path, diary: Closing, **more: Any) -> TensorRTEngine:
    options: dict[str, Any] = {
        "runtime": RtxRuntime,
        "flavour": "tensorrt-rtx",
        "CudaGraphStrategy": STRATEGY,
    } | more
    return open_double(tmp_path, diary, **options)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file where they are kept, in a cache of the test's own."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "tensorrt-rtx" / NAME


@pytest.mark.parametrize("graphs", [True, False])
def test_kernels_are_compiled_once_for_all_slots_and_openings(
    tmp_path: Path, kept: Path, graphs: bool
) -> None:
    first = Closing()
    open_rtx(tmp_path, first, graphs=graphs).close()
    assert first.calls.count("compile") == 1
    assert kept.read_bytes() == WHOLE
    assert first.calls.count("graphs whole" if graphs else "graphs off") == 2
    again = Closing()
    open_rtx(tmp_path, again, graphs=graphs).close()
    assert again.calls.count("compile") == 0
    assert f"read {KERNELS!r}" in again.calls


def test_the_cache_goes_after_the_contexts_and_before_the_engine(
    tmp_path: Path, kept: Path
) -> None:
    diary = Closing()
    open_rtx(tmp_path, diary).close()
    assert kept.is_file()
    assert diary.calls[-6:] == [*GONE[:2], "cache gone", *GONE[2:]]


@pytest.mark.parametrize(
    ("found", "asked"),
    [
        (b"x" * 32 + KERNELS, False),  # not what was written
        (KERNELS, False),
        (b"", False),
        # Of another GPU, say: whole, and TensorRT does not want it.
        (hashlib.sha256(b"others").digest() + b"others", True),
    ],
)
def test_what_cannot_be_used_is_compiled_again_and_replaced(
    tmp_path: Path, kept: Path, found: bytes, asked: bool
) -> None:
    kept.parent.mkdir(mode=0o700, parents=True)
    kept.write_bytes(found)
    diary = Closing()
    open_rtx(tmp_path, diary).close()
    assert diary.calls.count("compile") == 1
    assert ("read b'others'" in diary.calls) == asked
    assert kept.read_bytes() == WHOLE


def test_what_others_could_have_put_there_is_not_read(tmp_path: Path, kept: Path) -> None:
    kept.parent.mkdir(parents=True)
    kept.write_bytes(WHOLE)
    kept.parent.chmod(0o777)
    diary = Closing()
    open_rtx(tmp_path, diary).close()
    assert not any(call.startswith("read") for call in diary.calls)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(WHOLE)
    kept.parent.chmod(0o700)
    kept.unlink()
    kept.symlink_to(elsewhere)
    assert trt_kernels._read(kept) == b""


def _beside(kept: Path, name: str, size: int, days: float) -> Path:
    """A file in the folder, last opened so many days ago."""
    kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = kept.parent / name
    path.write_bytes(b"x" * size)
    then = time.time() - days * 86400
    os.utime(path, (then, then))
    return path


def test_what_was_opened_longest_ago_makes_room(
    tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of 100 bytes and this engine's, where there is room for two of them and this one."""
    monkeypatch.setattr(trt_kernels, "MAX_KEPT", 200 + len(WHOLE))
    other_driver = _beside(kept, NAME.replace("12.6", "12.4"), 100, days=30)
    killed = _beside(kept, f".{NAME}.abcdefgh", 100, days=20)
    others = [_beside(kept, f"{i}.kernels", 100, days=i) for i in (1, 2)]
    foreign = _beside(kept, "notes.txt", 1000, days=99)
    elsewhere = _beside(kept.parent, "elsewhere", 1000, days=99)
    (kept.parent / "link.kernels").symlink_to(elsewhere)
    open_rtx(tmp_path, Closing()).close()
    assert not other_driver.exists()
    assert not killed.exists()
    assert all(path.exists() for path in (*others, foreign, elsewhere))
    assert kept.read_bytes() == WHOLE


def test_to_be_opened_keeps_a_file_and_one_that_fills_all_room_is_kept(
    tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_rtx(tmp_path, Closing()).close()
    os.utime(kept, (0, 0))  # written long ago
    later = _beside(kept, "later.kernels", 100, days=1)
    monkeypatch.setattr(trt_kernels, "MAX_KEPT", 10)
    again = Closing()
    open_rtx(tmp_path, again).close()
    assert "compile" not in again.calls
    assert time.time() - kept.stat().st_mtime < 3600
    assert not later.exists()
    assert kept.read_bytes() == WHOLE


@pytest.mark.parametrize("fails", ["create_runtime_cache", "serialize", "write", "home"])
def test_a_cache_that_fails_stops_no_engine(
    tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    def fail(*_arguments: Any) -> Any:
        raise OSError(28, os.strerror(28)) if fails == "write" else RuntimeError("said C++")

    if fails == "write":
        monkeypatch.setattr(trt_kernels, "write_whole", fail)
    elif fails == "home":
        monkeypatch.setattr(trt_kernels, "cache_root", lambda: None)
    else:
        monkeypatch.setattr(Cache if fails == "serialize" else Config, fails, fail)
    with open_rtx(tmp_path, Closing()) as engine:
        assert engine.slots == 2
    assert not kept.exists()


def test_other_plans_versions_gpus_and_drivers_lie_apart(kept: Path) -> None:
    ada = SimpleNamespace(sm="8.9", driver=(12, 6))
    other = SimpleNamespace(sm="8.6", driver=(12, 6))
    newer = SimpleNamespace(sm="8.9", driver=(13, 0))
    paths = {
        trt_kernels._path(plan, version, gpu)  # type: ignore[arg-type]  # stand-ins for the GPU
        for plan, version, gpu in (
            (b"plan", "10.3.0", ada), (b"p", "10.3.0", ada), (b"plan", "1.8", ada),
            (b"plan", "10.3.0", other), (b"plan", "10.3.0", newer),
        )
    }  # fmt: skip
    assert len(paths) == 5
    assert kept in paths


@pytest.mark.usefixtures("kept")
def test_a_graph_of_the_runtimes_own_is_claimed_only_where_nothing_speaks_against_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_rtx(tmp_path, Closing()) as engine:
        assert engine.info.extra["cuda_graph"] == "by the runtime"
    with open_rtx(tmp_path, Closing(), graphs=False) as engine:
        assert engine.info.extra["cuda_graph"] == "off"
    heard = [LogLine("WARNING", "CUDA graph capture failed,\n falling back")]
    with monkeypatch.context() as patch:
        patch.setattr(TensorRTEngine, "_lines", lambda _self: heard)
        with open_rtx(tmp_path, Closing()) as engine:
            said = engine.info.extra["cuda_graph"]
    assert said == "none: CUDA graph capture failed, falling back"
    monkeypatch.setattr(RtxContext, "is_stream_capturable", lambda _self, _stream: False)
    with open_rtx(tmp_path, Closing()) as engine:
        said = engine.info.extra["cuda_graph"]
    assert said == "none: TensorRT says that it cannot be captured"


def test_the_real_bindings_have_these_names() -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx", exc_type=ImportError)
    assert hasattr(trt.CudaGraphStrategy, "WHOLE_GRAPH_CAPTURE")
    names = {
        trt.IRuntimeConfig: ("create_runtime_cache", "set_runtime_cache", "cuda_graph_strategy"),
        trt.IRuntimeCache: ("serialize", "deserialize"),
        trt.IExecutionContext: ("is_stream_capturable", "nvtx_verbosity"),
    }
    for kind, attributes in names.items():
        assert [name for name in attributes if not hasattr(kind, name)] == []
