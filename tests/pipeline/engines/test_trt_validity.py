"""What TensorRT for RTX thinks of a plan: its own enumerations and one real verdict, on the CPU."""

from __future__ import annotations

from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.engines.trt_logger import listening
from pipeline.engines.trt_modules import import_flavour
from pipeline.engines.trt_preflight import UnfitError
from pipeline.engines.trt_validity import _WORDS, check_validity
from pipeline.errors import ArtifactError, EngineError

pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx", exc_type=ImportError)


def _trt() -> Any:
    return import_flavour("tensorrt-rtx", why="this test")


def _check(runtime: Any, plan: bytes = b"plan") -> None:
    check_validity(_trt(), runtime, plan, name="m.engine", rebuild="python build.py", workspace=640)


def _verdict(validity: str, bits: int = 0) -> Any:
    answer = (getattr(_trt().EngineValidity, validity), bits)
    return SimpleNamespace(get_engine_validity=lambda _plan: answer)


@pytest.mark.parametrize(
    ("bits", "kind", "said", "hint"),
    [
        (32, ArtifactError, "this machine: it is no engine, or is damaged",
         "build it here: python build.py"),
        (1 | 2, ArtifactError,
         "it was built by another version, it was not built for this GPU's compute capability",
         "build it here: python build.py"),
        (16, EngineError, "^out of GPU memory: engine 'm.engine' cannot be loaded",
         "close other programs on the GPU, or build it with --workspace 640"),
        (4, EngineError, "this machine: the driver is too old$", "nvidia-smi"),
        (8 | 64, EngineError, "the CUDA runtime is too old, CUDA failed$", "nvidia-smi"),
        (1024, ArtifactError, "this machine: reason 1024$", "build it here"),
    ],
)  # fmt: skip
def test_the_bits_are_words(bits: int, kind: type[EngineError], said: str, hint: str) -> None:
    with pytest.raises(kind, match=said) as caught:
        _check(_verdict("INVALID", bits))
    assert caught.value.hint is not None
    assert hint in caught.value.hint


def test_an_engine_for_other_gpus_is_not_called_bad() -> None:
    """So that its own build can tell it from one that is."""
    with pytest.raises(UnfitError, match="not built for this GPU's compute capability"):
        _check(_verdict("INVALID", 2))
    with pytest.raises(ArtifactError, match="no engine, or is damaged") as caught:
        _check(_verdict("INVALID", 2 | 32))
    assert not isinstance(caught.value, UnfitError)


def test_every_reason_that_it_knows_has_words() -> None:
    assert set(_WORDS) >= set(_trt().EngineInvalidityDiagnostics.__members__)


def test_what_is_valid_or_cannot_be_asked_passes() -> None:
    _check(_verdict("VALID"))
    _check(SimpleNamespace())


def test_what_is_not_best_here_is_warned_of() -> None:
    with pytest.warns(RuntimeWarning, match="'m.engine' was not made for this GPU: it runs"):
        _check(_verdict("SUBOPTIMAL"))


def test_the_real_runtime_refuses_rubbish_in_words() -> None:
    trt = _trt()
    with (
        closing(listening(trt)) as heard,
        pytest.raises(ArtifactError, match="it is no engine, or is damaged"),
    ):
        _check(trt.Runtime(heard.logger), b"rubbish" * 100)
