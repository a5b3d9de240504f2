"""What every engine does in the same way: one batch on slot 0, and closing at the end."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pipeline.engines.base import Engine
from pipeline.engines.onnxruntime import OnnxRuntimeEngine
from pipeline.engines.openvino import OpenVINOEngine
from pipeline.errors import EngineError

SHAPE = (2, 8, 12, 3)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Means of 4x4 pixels: uint8 (2, 8, 12, 3) in, float32 (2, 3, 2, 3) out."""
    nodes = [
        helper.make_node("Cast", ["frames"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node(
            "AveragePool", ["planes"], ["logits"], kernel_shape=[4, 4], strides=[4, 4]
        ),
    ]
    frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, SHAPE)
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, (2, 3, 2, 3))
    path = tmp_path_factory.mktemp("graph") / "means.onnx"
    opset = helper.make_opsetid("", 17)
    made = helper.make_graph(nodes, "means", [frames], [logits])
    onnx.save(helper.make_model(made, opset_imports=[opset], ir_version=8), path)
    return path


@pytest.mark.parametrize("open_engine", [OpenVINOEngine, OnnxRuntimeEngine])
def test_one_batch(graph: Path, open_engine: Callable[[Path], Engine]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)
    want = frames.reshape(2, 2, 4, 3, 4, 3).mean(axis=(2, 4)).transpose(0, 3, 1, 2)
    with open_engine(graph) as engine:
        assert isinstance(engine, Engine)
        first = engine.infer(frames)
        np.testing.assert_allclose(first, want, rtol=1e-6)
        engine.infer(255 - frames)
        np.testing.assert_allclose(first, want, rtol=1e-6, err_msg="not a copy")
        for wrong in (frames[:1], frames[..., :2], frames.astype(np.float32), frames[0]):
            with pytest.raises(EngineError, match=r"takes uint8 \(2, 8, 12, 3\), got "):
                engine.infer(wrong)  # type: ignore[arg-type]  # one of them is float
        engine.submit(0)
        with pytest.raises(EngineError, match="slot 0 is still in flight"):
            engine.infer(frames)
        engine.wait(0)


@pytest.mark.parametrize("open_engine", [OpenVINOEngine, OnnxRuntimeEngine])
def test_a_block_closes_its_engine_and_lets_its_error_out(
    graph: Path, open_engine: Callable[[Path], Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Engine] = []
    engine = open_engine(graph)
    monkeypatch.setattr(type(engine), "close", lambda self: closed.append(self))

    def fail() -> None:
        with engine as entered:
            assert entered is engine
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert closed == [engine]


def test_a_closed_reference_holds_no_network(graph: Path) -> None:
    engine = OnnxRuntimeEngine(graph)
    session = weakref.ref(engine._session)
    for _ in range(2):
        engine.close()
    assert session() is None
