"""What a TensorRT engine's manifest says, whoever built it: the stage, or a bundle on a box."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.engines.trt_builder import Built
from pipeline.engines.trt_log import executed, fallbacks, node_precisions
from pipeline.errors import CheckFailedError


def engine_facts(
    built: Built, heavy: Mapping[str, bool], *, precision: str, output: str, strict_int8: bool,
    about: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """The facts of a manifest of kind ``engine``, plain JSON.

    Args:
        built: the plan and its layers.
        heavy: every heavy node of the graph: whether it was to run in int8.
        precision: ``fp32``, ``fp16``, ``int8`` or ``int8+fp16``.
        output: ``logits`` or ``labels``.
        strict_int8: a heavy node that was to run in int8 and does not is an error.
        about: further facts: the preset, its cost.

    Raises:
        CheckFailedError: under ``strict_int8``, naming the first such node.
    """
    nodes = node_precisions(built.layers, heavy)
    by_design = [name for name, quantized in heavy.items() if not quantized]
    fell = fallbacks(nodes, by_design) if "int8" in precision else []
    if fell and strict_int8:
        raise CheckFailedError(
            f"{len(fell)} layers that were to run in int8 do not, the first is '{fell[0]}' in "
            f"{nodes[fell[0]]}"
        )
    return {
        "backend": "tensorrt",
        "flavour": built.built_with.flavour,
        "precision": precision,
        "output": output,
        **about,
        "built_with": built.built_with.model_dump(mode="json"),
        "executed": executed(built.layers),
        "nodes": nodes,
        "float_fallback": fell,
        "float_by_design": by_design if "int8" in precision else [],
        "layers": [layer.as_json() for layer in built.layers],
        "warnings": list(built.warnings),
    }
