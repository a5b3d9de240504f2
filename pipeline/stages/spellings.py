"""A Q/DQ graph written for each back end, and linted: what every stage that makes one ends with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx

from calibration.qdq_lint import Backend, describe, lint
from calibration.spelling import to_int8_spelling
from pipeline.errors import CheckFailedError
from pipeline.lineage import OPENVINO_GRAPH, TENSORRT_GRAPH

# Facts of a Q/DQ graph that hold for what is made of it too.
KEPT = ("quantizers", "float_nodes", "calibration", "preprocessing", "weight_bits", "rounding")


def write_spellings(
    model: onnx.ModelProto, allowed: Sequence[str], folder: Path, doing: str
) -> None:
    """Write ``OPENVINO_GRAPH`` and ``TENSORRT_GRAPH``.

    Args:
        model: in OpenVINO's spelling.
        allowed: nodes that may stay in float.
        folder: receives both.
        doing: what was done to the graph, for the error.

    Raises:
        CheckFailedError: a rule of ``qdq_lint`` is broken; names it and the node.
    """
    spellings: dict[str, tuple[Backend, onnx.ModelProto]] = {
        OPENVINO_GRAPH: ("openvino", model),
        TENSORRT_GRAPH: ("tensorrt", to_int8_spelling(model)),
    }
    for name, (backend, spelled) in spellings.items():
        broken = lint(spelled, backend, allowed)
        if broken:
            raise CheckFailedError(f"{doing}, the {backend} graph breaks {describe(broken)}")
        onnx.save(spelled, folder / name)
