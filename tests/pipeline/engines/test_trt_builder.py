"""The builder's options against TensorRT for RTX, and against a stand-in for what is not here."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.engines import trt_builder
from pipeline.engines.cuda_driver import GpuFacts
from pipeline.engines.trt_builder import (
    BuilderOptions,
    Built,
    _configure,
    _keep_timings,
    _refusal,
    build_plan,
    check_options,
    timing_cache_path,
)
from pipeline.engines.trt_log import LogLine
from pipeline.engines.trt_logger import listening
from pipeline.engines.trt_modules import import_flavour
from pipeline.errors import EngineError, UsageError
from pipeline.private import CACHE_VARIABLE
from tests.qdq_graphs import conv_graph

pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx", exc_type=ImportError)
ORIN = GpuFacts("Orin", (8, 7), 32 << 30, (12, 6))


def _rtx() -> Any:
    return import_flavour("tensorrt-rtx", why="this test")


def _build(**options: Any) -> Built:
    model = conv_graph().SerializeToString()
    return build_plan(_rtx(), "tensorrt-rtx", model, BuilderOptions(**options), gpu=None, cuda=13)


def test_two_builds_give_the_same_bytes() -> None:
    first, second = _build(), _build()
    assert first.plan == second.plan
    assert first.layers == second.layers
    assert first.built_with == second.built_with


def test_what_built_it_is_recorded() -> None:
    built = _build(compute_capabilities=("8.6", "12.0"))
    assert built.built_with.flavour == "tensorrt-rtx"
    assert built.built_with.version == _rtx().__version__
    assert built.built_with.capabilities == ("8.6", "12.0")
    assert built.built_with.cuda == 13
    assert built.built_with.gpu is None
    assert built.plan != _build().plan


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"timing_cache": True}, "has no timing cache"),
        ({"hardware": "ampere+"}, "has no hardware compatibility"),
        ({"version_compatible": True}, "has no version compatibility"),
        ({"optimization_level": 5}, "has no optimization level"),
        ({"compute_capabilities": ("9.9",)}, "cannot build for compute capability '9.9'"),
        ({"compute_capabilities": ("SM86",)}, "cannot build for compute capability 'SM86'"),
    ],
)
def test_what_rtx_lacks_is_refused_by_name(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        _build(**options)
    assert "TensorRT for RTX" in str(caught.value)


def test_every_optimization_level_gives_rtx_the_same_engine() -> None:
    """Why the option is refused there. If this fails, it has come to mean something: allow it."""
    trt, plans = _rtx(), []
    logger = listening(trt).logger  # the one that is never freed
    for level in (0, 5):
        builder = trt.Builder(logger)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, logger)
        assert parser.parse(conv_graph().SerializeToString())
        config = builder.create_builder_config()
        config.builder_optimization_level = level
        plans.append(bytes(builder.build_serialized_network(network, config)))
    assert plans[0] == plans[1]


def test_running_out_of_workspace_is_called_that() -> None:
    with pytest.raises(
        EngineError, match="ran out of memory: no kernel fits a workspace of 1 MiB"
    ) as e:
        _build(workspace_mib=1)
    assert e.value.hint is not None
    assert "--workspace 2" in e.value.hint


@pytest.mark.parametrize(
    ("said", "workspace", "message", "hint"),
    [
        ("no kernel due to insufficient workspace", None, "cannot build the engine: no kernel",
         "give it room with --workspace 16384"),
        ("no kernel due to insufficient workspace", 64, "no kernel fits a workspace of 64 MiB",
         "try --workspace 256"),
        # Not for want of workspace: more of it would not help.
        ("OutOfMemory", 1024, "ran out of GPU memory of 32768 MiB", "try --workspace 512,"),
        ("OutOfMemory", 16384, "ran out of GPU memory of 32768 MiB", "try --workspace 8192,"),
        ("Could not find any implementation for node c.", 64, "fits a workspace of 64 MiB",
         "try --workspace 256"),
        ("OutOfMemory", None, "ran out of GPU memory of 32768 MiB", "try --workspace 8192"),
        ("a plugin is missing", None, "cannot build the engine: a plugin is missing", None),
    ],
)  # fmt: skip
def test_what_the_builder_was_short_of(
    said: str, workspace: int | None, message: str, hint: str | None
) -> None:
    """Refused, with errors and warnings as TensorRT 10 spells them; no builder needed."""
    lines = [
        LogLine("WARNING", "Skipping tactic 0 due to insufficient memory"), LogLine("ERROR", said),
    ]  # fmt: skip
    error = _refusal("tensorrt", lines, BuilderOptions(workspace_mib=workspace), ORIN)
    assert message in str(error)
    assert hint is None or (error.hint is not None and hint in error.hint)
    assert (hint is None) == (error.hint is None)


def test_running_out_of_memory_while_parsing_is_called_that() -> None:
    """A parser that says so, and refuses."""

    class Logger:
        pass

    class Parser:
        def __init__(self, _network: Any, logger: Any) -> None:
            self.logger = logger

        def parse(self, _model: bytes) -> bool:
            self.logger.log("Severity.ERROR", "Error Code 2: OutOfMemory (no further information)")
            return False

    trt = SimpleNamespace(
        __version__="10.3.0", ILogger=Logger, OnnxParser=Parser,
        NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1),
        Builder=lambda _logger: SimpleNamespace(create_network=lambda _flags: None),
    )  # fmt: skip
    with pytest.raises(EngineError, match=r"TensorRT ran out of GPU memory of 32768 MiB") as caught:
        build_plan(trt, "tensorrt", b"", BuilderOptions(), gpu=ORIN, cuda=None)
    assert caught.value.hint is not None
    assert "a smaller shape" in caught.value.hint


def test_a_workspace_that_suffices_changes_no_layer() -> None:
    assert _build(workspace_mib=512).layers == _build().layers


def test_rubbish_is_one_line() -> None:
    with pytest.raises(EngineError, match="cannot parse the model") as caught:
        build_plan(_rtx(), "tensorrt-rtx", b"not onnx", BuilderOptions(), gpu=None, cuda=None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"workspace_mib": 0}, {"optimization_level": 6}, {"hardware": "any"}, {"x": 1}]
)
def test_options_are_bounded(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        BuilderOptions(**options)


def test_what_full_tensorrt_lacks_is_refused_by_name() -> None:
    """TensorRT 10.3 as it differs here: no compute capabilities, one compatibility level fewer."""
    old = SimpleNamespace(
        __version__="10.3.0", HardwareCompatibilityLevel=SimpleNamespace(NONE=0, AMPERE_PLUS=1)
    )
    check_options(old, "tensorrt", BuilderOptions(hardware="ampere+", optimization_level=5))
    for options, said in (
        (BuilderOptions(compute_capabilities=("8.6",)), "has no compute capabilities"),
        (BuilderOptions(hardware="same-capability"), "has no hardware 'same-capability'"),
    ):
        with pytest.raises(UsageError, match=said):
            check_options(old, "tensorrt", options)


def test_timing_caches_lie_apart_per_version_and_gpu() -> None:
    paths = {
        timing_cache_path("10.3.0", ORIN),
        timing_cache_path("10.16.1", ORIN),
        timing_cache_path("10.3.0", GpuFacts("NVIDIA H100 80GB HBM3", (9, 0), 80 << 30, (13, 0))),
    }
    assert len(paths) == 3
    assert {path.parent for path in paths} == {next(iter(paths)).parent}
    assert all(path.name == path.name.lower() and " " not in path.name for path in paths)


class Timings:
    """A timing cache that is a set of words, of one GPU: ``GPU: word word``."""

    def __init__(self, data: bytes) -> None:
        self.gpu, _, rest = data.decode().partition(": ")
        self.words = set(rest.split())

    def combine(self, other: Timings, ignore_mismatch: bool) -> bool:
        if other.gpu != self.gpu and not ignore_mismatch:
            return False
        self.words |= other.words
        return True

    def serialize(self) -> bytes:
        return f"{self.gpu}: {' '.join(sorted(self.words))}".encode()


@pytest.mark.parametrize(
    ("there", "kept"),
    [
        (b"orin: conv gemm", b"orin: conv gemm pool"),
        (b"ada: conv gemm", b"orin: conv pool"),
        (b"rubbish", b"orin: conv pool"),
        (None, b"orin: conv pool"),
    ],
)
def test_timings_of_builds_at_the_same_time_are_all_kept(
    tmp_path: Path, there: bytes | None, kept: bytes
) -> None:
    """``there``: what another build has written while this one was under way."""
    path = tmp_path / "timing.cache"
    if there is not None:
        path.write_bytes(there)
    mine = Timings(b"orin: conv pool")

    def read(data: bytes) -> Timings | None:
        return Timings(data) if b": " in data else None

    config = SimpleNamespace(get_timing_cache=lambda: mine, create_timing_cache=read)
    assert _keep_timings(config, path) == ()
    assert path.read_bytes() == kept


class Config:
    """What is used of a builder's configuration; timing caches are the bytes they were made of."""

    def __init__(self) -> None:
        self.timings: bytes | None = None

    def clear_flag(self, _flag: int) -> None:
        pass

    def create_timing_cache(self, data: bytes) -> bytes:
        return data

    def set_timing_cache(self, cache: bytes, _ignore_mismatch: bool) -> bool:
        self.timings = cache
        return True


def _configured() -> Config:
    trt = SimpleNamespace(__version__="10.3.0", BuilderFlag=SimpleNamespace(TF32=0))
    config = Config()
    _configure(trt, config, BuilderOptions(timing_cache=True), ORIN)
    return config


def test_timings_are_read_only_where_nobody_else_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As what TensorRT for RTX keeps: TensorRT reads the file as it is."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    path = timing_cache_path("10.3.0", ORIN)
    path.parent.mkdir(mode=0o700)
    path.write_bytes(b"orin: conv")
    assert _configured().timings == b"orin: conv"
    path.parent.chmod(0o777)
    with pytest.raises(EngineError, match=r"^--timing-cache: .* can be written by other users"):
        _configured()


def test_timings_that_cannot_be_read_are_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))

    def refuse(_path: Path) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(trt_builder, "_held", refuse)
    assert _configured().timings == b""


def test_timings_that_cannot_be_kept_are_a_warning(tmp_path: Path) -> None:
    """After minutes of building: the engine is there."""
    mine = Timings(b"orin: conv")
    config = SimpleNamespace(get_timing_cache=lambda: mine, create_timing_cache=Timings)
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "timing.cache"
    assert _keep_timings(config, path) == (
        f"the timing cache '{path}' was not written: {os.strerror(errno.EEXIST)}",
    )
