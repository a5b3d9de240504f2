"""A small trained-looking network, a small data set, and one INT8 build shared by the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from calibration.streets import write_dataset
from models.segmenter import PRESETS
from pipeline.build import BuildOptions, BuildResult, build
from pipeline.bundle import make_bundle
from pipeline.engines.onnxruntime import OnnxRuntimeEngine
from pipeline.lineage import TENSORRT_GRAPH
from tests.models.helpers import TINY, tiny_segmenter
from tests.pipeline.boxes import unpack


@pytest.fixture(scope="session")
def streets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six training and three validation frames of 64x128."""
    return write_dataset(
        tmp_path_factory.mktemp("streets") / "tree", train=6, val=3, height=64, width=128
    )


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of the ``tiny`` preset with nothing left at its initial value."""
    from models.checkpoints import save_segmenter

    PRESETS.setdefault("tiny", TINY)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_segmenter(tiny_segmenter(), "tiny", path)
    return path


@pytest.fixture(scope="session")
def int8_options(
    streets: Path, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> BuildOptions:
    """What ``int8_build`` built; random weights agree less, so little is asked for."""
    return BuildOptions(
        checkpoint=tiny_checkpoint, shape=(64, 128), dataset=streets, frames=6, min_agreement=0.5,
        output=tmp_path_factory.mktemp("engines"),
    )  # fmt: skip


@pytest.fixture(scope="session")
def int8_build(int8_options: BuildOptions) -> BuildResult:
    """An INT8 engine of the tiny network."""
    return build(int8_options)


@pytest.fixture
def left_open(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of the exact graphs that are open, each with a network's weights in memory."""
    paths: list[str] = []
    begin, close = OnnxRuntimeEngine.__init__, OnnxRuntimeEngine.close

    def opened(engine: OnnxRuntimeEngine, path: Path, **options: Any) -> None:
        begin(engine, path, **options)
        paths.append(engine.info.path)

    def closed(engine: OnnxRuntimeEngine) -> None:
        close(engine)
        paths.remove(engine.info.path)

    monkeypatch.setattr(OnnxRuntimeEngine, "__init__", opened)
    monkeypatch.setattr(OnnxRuntimeEngine, "close", closed)
    return paths


@pytest.fixture(scope="session")
def tensorrt_graph(int8_build: BuildResult) -> Path:
    """The Q/DQ graph of that build, as TensorRT is to have it."""
    assert int8_build.quantized is not None
    return int8_build.quantized.manifest_path.parent / TENSORRT_GRAPH


@pytest.fixture(scope="module")
def unpacked(tensorrt_graph: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of it that ends in labels, unpacked."""
    folder = tmp_path_factory.mktemp("box")
    return unpack(make_bundle(tensorrt_graph, folder / "b.tar.gz", labels=True), folder)


@pytest.fixture(scope="session")
def bare_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds NumPy and OpenCV and no other package."""
    import cv2
    import numpy as np

    folder = tmp_path_factory.mktemp("site")
    for module in (np, cv2):
        package = Path(str(module.__file__)).parent
        (folder / package.name).symlink_to(package)
        for libraries in package.parent.glob(f"{package.name}*.libs"):
            (folder / libraries.name).symlink_to(libraries)
    for libraries in Path(str(cv2.__file__)).parents[1].glob("opencv*.libs"):
        (folder / libraries.name).symlink_to(libraries)
    return folder
