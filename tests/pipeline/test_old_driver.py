"""A driver that TensorRT refuses is told where a build begins, by all who build."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline import build_engines, bundle_build
from pipeline.build import BuildOptions, TensorRTOptions
from pipeline.bundle_build import BuildRequest
from pipeline.engines import trt_start
from pipeline.engines.cuda_driver import GpuFacts
from pipeline.engines.trt_start import gpu_to_build_on
from pipeline.errors import EngineError
from pipeline.stages import build_tensorrt
from pipeline.stages.build_tensorrt import BuildTensorRTConfig, BuildTensorRTStage
from pipeline.store import Store
from tests.pipeline.engines.test_trt_start import ERROR

OLD = GpuFacts("NVIDIA L4", (8, 9), 24 << 30, (12, 4))


def _command(_folder: Path) -> None:
    options = TensorRTOptions(flavour="tensorrt")
    build_engines.choose_flavour(BuildOptions(backend="tensorrt", tensorrt=options))


def _bundle(folder: Path) -> None:
    index = {"model": {"precision": "int8"}}  # nothing else of the bundle is looked at before
    request = BuildRequest(folder, index, folder / "m.engine", {}, flavour="tensorrt")
    bundle_build.build_engine(request, lambda line: pytest.fail(line))


def _stage(folder: Path) -> None:
    config = BuildTensorRTConfig(precision="fp32", flavour="tensorrt", min_agreement=0.5)
    nothing = cast(Any, None)  # neither frames nor graphs are looked at before
    BuildTensorRTStage(config, Store(folder), nothing).build((nothing, nothing), folder)


class Builder:
    """TensorRT's: it says why it does not start to its logger, and its bindings only that."""

    works = False
    made = 0

    def __init__(self, logger: Any) -> None:
        Builder.made += 1
        if not self.works:
            logger.log("Severity.ERROR", ERROR.text)
            raise TypeError("pybind11::init(): factory function returned nullptr")


def _tensorrt() -> Any:
    class Logger:
        pass

    return SimpleNamespace(__version__="10.16.1", ILogger=Logger, Builder=Builder)


@pytest.mark.parametrize(
    ("cuda", "said"),
    [
        (
            13,
            "building needs a driver for CUDA 13, which the installed TensorRT 10.16.1 is made "
            "for; this driver runs up to CUDA 12.4",
        ),
        # As on JetPack, whose packages do not say it: TensorRT itself is asked.
        (None, f"TensorRT 10.16.1 cannot start: {ERROR.text}"),
    ],
)
@pytest.mark.parametrize(
    ("module", "begin"),
    [(build_engines, _command), (bundle_build, _bundle), (build_tensorrt, _stage)],
)
def test_no_work_is_done_for_a_driver_that_tensorrt_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, begin: Callable[[Path], None],
    cuda: int | None, said: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(module, "import_flavour", lambda _flavour, why: _tensorrt())
    monkeypatch.setattr(trt_start, "find_gpu", lambda: OLD)
    monkeypatch.setattr(trt_start, "cuda_major", lambda _flavour: cuda)
    with pytest.raises(EngineError) as caught:
        begin(tmp_path)
    assert str(caught.value) == said


def test_one_that_starts_builds_on_that_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trt_start, "find_gpu", lambda: OLD)
    monkeypatch.setattr(Builder, "works", True)
    monkeypatch.setattr(Builder, "made", 0)
    assert gpu_to_build_on(_tensorrt(), "tensorrt") is OLD
    assert Builder.made == 1


def test_rtx_is_not_asked_for_a_gpu() -> None:
    assert gpu_to_build_on(None, "tensorrt-rtx") is None
