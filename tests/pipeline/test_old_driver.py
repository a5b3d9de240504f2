"""A driver too old for the installed TensorRT is refused where a build begins, by all who build."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline import build_engines, bundle_build
from pipeline.build import BuildOptions, TensorRTOptions
from pipeline.engines.cuda_driver import GpuFacts
from pipeline.errors import EngineError
from pipeline.stages import build_tensorrt
from pipeline.stages.build_tensorrt import BuildTensorRTConfig, BuildTensorRTStage
from pipeline.store import Store

OLD = GpuFacts("NVIDIA L4", (8, 9), 24 << 30, (12, 4))


def _command(_folder: Path) -> None:
    options = TensorRTOptions(flavour="tensorrt")
    build_engines.choose_flavour(BuildOptions(backend="tensorrt", tensorrt=options))


def _bundle(_folder: Path) -> None:
    bundle_build._gpu("tensorrt", "10.16.1")


def _stage(folder: Path) -> None:
    config = BuildTensorRTConfig(precision="fp32", flavour="tensorrt", min_agreement=0.5)
    nothing = cast(Any, None)  # neither frames nor graphs are looked at before
    BuildTensorRTStage(config, Store(folder), nothing).build((nothing, nothing), folder)


@pytest.mark.parametrize(
    ("module", "begin"),
    [(build_engines, _command), (bundle_build, _bundle), (build_tensorrt, _stage)],
)
def test_no_work_is_done_for_a_driver_that_tensorrt_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, begin: Callable[[Path], None]
) -> None:
    trt = SimpleNamespace(__version__="10.16.1")
    monkeypatch.setattr(module, "import_flavour", lambda _flavour, why: trt)
    monkeypatch.setattr(module, "find_gpu", lambda: OLD)
    monkeypatch.setattr(module, "cuda_major", lambda _flavour: 13)
    with pytest.raises(EngineError) as caught:
        begin(tmp_path)
    assert str(caught.value) == (
        "building needs a driver for CUDA 13, which the installed TensorRT 10.16.1 is made for; "
        "this driver runs up to CUDA 12.4"
    )
