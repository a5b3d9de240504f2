"""Every exact rewrite of the lowering gives what the graph gave before it."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from models.locality import inject_locality
from models.repmlp import BackboneConfig
from models.segmenter import Preset, build_segmenter
from pipeline.lowering.network import lower
from tests.benchmarks.first_lowering import EXACT, undone
from tests.models.helpers import randomise

# Two units in the first stage and a stem: what is rewritten differs between first and later units,
# and between embeddings of two pixels and of four.
PRESET = Preset(
    "stemmed", BackboneConfig((4, 8, 16, 32), (8, 4, 2, 1), (2, 1, 1, 1), (1, 2, 4, 8), stem=4),
    width=8,
)  # fmt: skip


def graph(*names: str) -> onnx.ModelProto:
    model = randomise(build_segmenter(PRESET, seed=0)).eval()
    model = inject_locality(model, "split").model
    with undone(*names):
        return lower(model, batch=1, height=64, width=96, opset=17, metadata={})


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"frames": x})[0])


@pytest.mark.parametrize("names", [*((name,) for name in EXACT), EXACT], ids="+".join)
def test_a_rewrite_changes_the_spelling_and_not_the_network(names: tuple[str, ...]) -> None:
    now, before = graph(), graph(*names)
    spelled = [[(n.op_type, list(n.input)) for n in m.graph.node] for m in (now, before)]
    assert spelled[0] != spelled[1]
    x = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), np.uint8)
    ours, first = run(now, x), run(before, x)
    np.testing.assert_allclose(ours, first, atol=1e-5 * np.abs(first).max())
