"""TensorRT engines executed: skipped, by name, where there is no GPU.

An engine is right when its labels are those of its own graph, run as written by onnxruntime. It is
not bitwise the graph: kernels round ties and sum in their own order.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import numpy as np
import pytest

from calibration.cityscapes import Cityscapes
from calibration.frames import FrameList, select_frames
from pipeline.artifact import Artifact, open_artifact
from pipeline.build import BuildOptions, BuildResult, TensorRTOptions, build
from pipeline.engines.base import Engine
from pipeline.engines.cuda_memory import ADAPTERS, CudaMemory, installed, open_memory
from pipeline.engines.onnxruntime import OnnxRuntimeEngine
from pipeline.engines.opening import manifest_of, open_engine
from pipeline.engines.tensorrt import TensorRTEngine, open_tensorrt
from pipeline.engines.trt_modules import installed_flavours
from pipeline.errors import EngineError
from pipeline.lineage import TENSORRT_GRAPH
from pipeline.stages.build_tensorrt import GRAPH, BuildTensorRTConfig, BuildTensorRTStage
from pipeline.store import Store
from tests.helpers import why_no_gpu

AGREEMENT = 0.995
# With graphs asked for, every slot has to have one; pycuda alone is the one excuse.
GRAPHS = {"captured", "by the runtime", "none: pycuda alone has no CUDA graphs"}


pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(why_no_gpu() is not None, reason=f"needs a GPU: {why_no_gpu()}"),
]


@pytest.fixture(params=ADAPTERS)
def memory(request: pytest.FixtureRequest) -> Iterator[CudaMemory]:
    package = {"pycuda": "pycuda", "cuda-python": "cuda.bindings"}[request.param]
    if not installed(package):
        pytest.skip(f"{request.param} is not installed")
    opened = open_memory(request.param)
    yield opened
    opened.close()
    opened.close()


def _let_happen(memory: CudaMemory, event: int) -> None:
    end = perf_counter() + 30
    while not memory.happened(event):
        assert perf_counter() < end
        sleep(1e-4)


def test_bytes_go_to_the_device_and_come_back(memory: CudaMemory) -> None:
    with memory.active():
        stream, event = memory.stream(), memory.event()
        there, back = memory.pinned(1 << 20), memory.pinned(1 << 20)
        there[:] = np.random.default_rng(0).integers(0, 256, 1 << 20, np.uint8)
        address = memory.device(1 << 20)
        assert address % 256 == 0
        memory.to_device(address, there, stream)
        memory.to_host(back, address, stream)
        memory.record(event, stream)
        _let_happen(memory, event)
    np.testing.assert_array_equal(back, there)


def test_a_graph_replays_what_was_recorded(memory: CudaMemory) -> None:
    if not memory.has_graphs:
        pytest.skip(f"{memory.name} alone has no graphs")
    with memory.active():
        stream, event = memory.stream(), memory.event()
        there, back = memory.pinned(64), memory.pinned(64)
        address = memory.device(64)
        memory.begin_capture(stream)
        memory.to_device(address, there, stream)
        memory.to_host(back, address, stream)
        graph = memory.end_capture(stream)
        for value in (7, 9):
            there[:] = value
            memory.launch(graph, stream)
            memory.record(event, stream)
            _let_happen(memory, event)
            assert (back == value).all()


def test_too_much_memory_is_called_that(memory: CudaMemory) -> None:
    with memory.active(), pytest.raises(EngineError, match="out of GPU memory"):
        memory.device(1 << 50)


@pytest.fixture(scope="module")
def frames(streets: Path) -> FrameList:
    return select_frames(Cityscapes(streets), 3)


@pytest.fixture(scope="module", params=["fp32", "fp16", "int8", "int8+fp16"])
def built(
    request: pytest.FixtureRequest, frames: FrameList, int8_build: BuildResult,
    tmp_path_factory: pytest.TempPathFactory,
) -> Artifact:  # fmt: skip
    flavours = installed_flavours()
    if not flavours:
        pytest.skip("neither tensorrt nor tensorrt-rtx is installed")
    config: dict[str, Any] = {
        "precision": request.param, "flavour": flavours[0],
        "min_agreement": 0.5, "strict_int8": True,
    }  # fmt: skip
    source = int8_build.graph
    if "int8" in request.param:
        assert int8_build.quantized is not None
        source, config["graph"] = int8_build.quantized, TENSORRT_GRAPH
    store = Store(tmp_path_factory.mktemp("gpu"))
    stage = BuildTensorRTStage(BuildTensorRTConfig(**config), store, frames)
    return _executed(stage.run(source, int8_build.graph))


def _executed(artifact: Artifact) -> Artifact:
    """It, or a skip by the reason why this GPU cannot run what was built here."""
    if artifact.facts["agreement"] is None:
        pytest.skip(artifact.facts["not_executed"])
    return artifact


def _stacks(frames: FrameList) -> list[np.ndarray]:
    return [frame[None] for frame in frames.images(64, 128)]


def _labels(engine: Engine, stacks: list[np.ndarray]) -> np.ndarray:
    return np.stack([engine.infer(stack).argmax(axis=1) for stack in stacks])


def _agree(found: float, what: str) -> None:
    said = f"{what}: {found:.4%} of labels as its graph, at least {AGREEMENT:.2%} wanted"
    print(said)  # noqa: T201  # for pytest -rP
    assert found >= AGREEMENT, said


def test_the_engine_is_its_graph(built: Artifact, frames: FrameList) -> None:
    precision = built.facts["precision"]
    _agree(built.facts["agreement"]["graph"]["labels"], f"{precision}, built")
    stacks = _stacks(frames)
    exact = _labels(OnnxRuntimeEngine(built.manifest_path.parent / GRAPH), stacks)
    for graphs in (True, False):
        with open_tensorrt(built.path, built.manifest, cuda_graphs=graphs) as engine:
            found = float(np.mean(_labels(engine, stacks) == exact))
            _agree(found, f"{precision}, graphs {graphs}")
            assert engine.info.extra["cuda_graph"] in (GRAPHS if graphs else {"off"})


def test_frames_go_in_from_one_thread_and_come_out_in_another(
    built: Artifact, frames: FrameList
) -> None:
    """As in the video runner. A CUDA context is current in one thread, and must be in both."""
    stacks = _stacks(frames)
    with (
        open_tensorrt(built.path, built.manifest, slots=2) as engine,
        ThreadPoolExecutor(1) as feeder,
        ThreadPoolExecutor(1) as reader,
    ):
        want = [engine.infer(stack) for stack in stacks]
        for turn in range(2 * len(stacks)):
            slot, which = turn % 2, turn % len(stacks)
            np.copyto(engine.input(slot), stacks[which])
            feeder.submit(engine.submit, slot).result(30)
            found = reader.submit(engine.wait, slot, 30.0).result(60)
            np.testing.assert_array_equal(found, want[which])


def test_it_opens_again_and_while_another_one_is_open(built: Artifact, frames: FrameList) -> None:
    """One engine's close leaves the GPU's primary context to the others, and to the next."""
    (stack, *_others) = _stacks(frames)
    with open_tensorrt(built.path, built.manifest) as staying:
        want = staying.infer(stack)
        for _ in range(3):
            with open_tensorrt(built.path, built.manifest) as passing:
                np.testing.assert_array_equal(passing.infer(stack), want)
            np.testing.assert_array_equal(staying.infer(stack), want)


def test_slots_run_at_once_and_keep_apart(built: Artifact, frames: FrameList) -> None:
    stacks = _stacks(frames)
    with open_tensorrt(built.path, built.manifest, slots=3) as engine:
        one_by_one = [engine.infer(stack) for stack in stacks]
        for slot, stack in enumerate(stacks):
            engine.input(slot)[...] = stack
            engine.submit(slot)
        for slot, want in enumerate(one_by_one):
            np.testing.assert_array_equal(engine.wait(slot, 30.0), want)


def test_it_closes_twice_and_refuses_other_frames(built: Artifact) -> None:
    engine: TensorRTEngine = open_tensorrt(built.path, built.manifest)
    with pytest.raises(EngineError, match="engine takes uint8"):
        engine.infer(np.zeros((1, 8, 8, 3), np.uint8))
    engine.close()
    engine.close()


def _flavour() -> Any:
    flavours = installed_flavours()
    if not flavours:
        pytest.skip("neither tensorrt nor tensorrt-rtx is installed")
    return flavours[0]


def test_labels_come_back_as_its_graph_has_them(
    frames: FrameList, int8_build: BuildResult, tmp_path: Path
) -> None:
    """Upsampled and argmaxed on the device, which is another output and another type."""
    config = BuildTensorRTConfig(
        precision="int8", flavour=_flavour(), min_agreement=0.5,
        labels=True, graph=TENSORRT_GRAPH,
    )  # fmt: skip
    assert int8_build.quantized is not None
    stage = BuildTensorRTStage(config, Store(tmp_path), frames)
    artifact = _executed(stage.run(int8_build.quantized, int8_build.graph))
    with (
        open_tensorrt(artifact.path, artifact.manifest) as engine,
        OnnxRuntimeEngine(artifact.manifest_path.parent / GRAPH) as exact,
    ):
        assert (engine.outputs[0].layout, engine.outputs[0].dtype) == ("NHW", "uint8")
        for stack in _stacks(frames):
            labels = engine.infer(stack)
            assert labels.shape == stack.shape[:3]
            found = float(np.mean(labels == exact.infer(stack)))
            _agree(found, "int8, labels on the device")


@pytest.mark.parametrize("preset", ["edge-s", "edge-m"])
def test_a_shipped_network_is_built_and_opened_as_users_do(
    streets: Path, tmp_path: Path, preset: str
) -> None:
    """Weights, calibration, both back ends, the gate's comparison: with the engine executed."""
    made = build(
        BuildOptions(
            preset=preset, backend="all", precision="int8", shape=(256, 512), dataset=streets,
            frames=6, output=tmp_path, tensorrt=TensorRTOptions(flavour=_flavour()),
        )
    )  # fmt: skip
    engine = next(each for each in made.engines if each.backend == "tensorrt")
    assert engine.path is not None
    facts = _executed(open_artifact(manifest_of(engine.path))).facts
    _agree(facts["agreement"]["graph"]["labels"], preset)
    assert facts["float_fallback"] == []
    assert made.comparison is not None
    found = made.comparison["labels"]["tensorrt graph / tensorrt engine"]
    _agree(found, f"{preset}, compared")
    with open_engine(engine.path) as opened:
        assert opened.infer(np.zeros(opened.inputs[0].shape, np.uint8)).dtype == np.float32
