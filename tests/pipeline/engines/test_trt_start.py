"""What TensorRT says when it does not start, as its bindings and its log have it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.engines import trt_builder
from pipeline.engines.trt_builder import BuilderOptions, build_plan
from pipeline.engines.trt_log import LogLine
from pipeline.engines.trt_start import create
from pipeline.errors import EngineError

# As users of 10.x and of 8.6 quote it in NVIDIA/TensorRT's issues.
ERROR = LogLine(
    "ERROR",
    "[checkMacros.cpp::catchCudaError::278] Error Code 6: API Usage Error (CUDA initialization "
    "failure with error: 35. Please check your CUDA installation)",
)
WARNING = LogLine("WARNING", "CUDA initialization failure with error: 35")
FULL = LogLine("ERROR", "Error Code 6: API Usage Error (CUDA initialization failure with error: 2)")


def _refuses() -> None:
    raise TypeError("pybind11::init(): factory function returned nullptr")


@pytest.mark.parametrize("line", [ERROR, WARNING])
@pytest.mark.parametrize("factory", [_refuses, lambda: None])
def test_a_refusal_is_one_line_with_the_reason(line: LogLine, factory: Any) -> None:
    lines = [LogLine("WARNING", "some other matter"), line]
    with pytest.raises(EngineError) as caught:
        create(factory, lambda: lines, "TensorRT 10.9.0")
    said = str(caught.value)
    assert said.startswith("TensorRT 10.9.0 cannot start: ")
    assert "CUDA initialization failure with error: 35" in said
    assert "\n" not in said
    assert caught.value.hint is not None
    assert "nvidia-smi" in caught.value.hint


def test_a_gpu_that_is_full_is_called_that() -> None:
    with pytest.raises(EngineError, match=r"^out of GPU memory: TensorRT 11\.0 cannot start") as e:
        create(_refuses, lambda: [FULL], "TensorRT 11.0")
    assert e.value.hint == "close other programs on the GPU"


def test_what_it_makes_comes_back_and_a_bug_stays_one() -> None:
    assert create(lambda: 7, list, "TensorRT") == 7

    def bug() -> None:
        raise TypeError("Builder() takes 1 positional argument but 2 were given")

    with pytest.raises(TypeError, match="positional"):
        create(bug, list, "TensorRT")


def test_a_build_ends_with_that_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Builder:
        def __init__(self, logger: Any) -> None:
            logger.log("Severity.ERROR", ERROR.text)
            _refuses()

    class Logger:
        pass

    trt = SimpleNamespace(__version__="10.9.0", ILogger=Logger, Builder=Builder)
    monkeypatch.setattr(trt_builder, "check_options", lambda *_: None)
    with pytest.raises(EngineError, match=r"^TensorRT 10\.9\.0 cannot start: .*error: 35"):
        build_plan(trt, "tensorrt", b"", BuilderOptions(), gpu=None, cuda=None)
