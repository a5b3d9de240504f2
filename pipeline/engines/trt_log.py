"""What TensorRT's builder says, read back: its messages, and the table of layers it made.

With a verbose logger and detailed profiling verbosity the builder ends by printing one line per
layer of the engine (TensorRT 10 and 11 and TensorRT for RTX alike, spelled slightly differently):

    Name: N, LayerType: T, Inputs: [ { Name: ..., Datatype: Int8, ... }, ... ], Constants: [...],
    Outputs: [...], ..., TacticName: ..., Metadata: [ONNX Layer: a][ONNX Layer: b]

TensorRT 10 writes ``Format/Datatype: Thirty-two wide channel vectorized row major Int8 format``
where later ones write ``Datatype: Int8, Format: ...``, keeps a convolution's weights as
``Weights: {"Type": "Int8", ...}``, and parts the entries of ``Metadata`` by U+001E where TensorRT
for RTX has U+001F.

A layer is not an ONNX node: one node can appear in several layers (the product, then its bias and
rounding fused into a neighbour) and one layer can hold many nodes. ``node_precisions`` says for
each heavy node in which precision its products are computed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

Shortage: TypeAlias = Literal["memory", "workspace"]
TABLE = "Layers:"
_TYPES = {
    "int8": "int8", "uint8": "uint8", "half": "fp16", "fp16": "fp16", "float": "fp32",
    "fp32": "fp32", "bf16": "bf16", "bfloat16": "bf16", "int32": "int32", "int64": "int64",
    "bool": "bool", "fp8": "fp8", "int4": "int4", "fp4": "fp4",
}  # fmt: skip
_WORD = re.compile(r"[A-Za-z]+\d*")
_HEAD = re.compile(r"Name: (.*?), LayerType: ([\w ]+), ")
_NODE = re.compile(r"\[ONNX Layer: (.*?)\](?=[\x1e\x1f\[]|$)")
_WEIGHTS = re.compile(r'Weights: \{"Type": "(\w+)"')
_TACTIC = re.compile(r"TacticName: ([^,]*),")
# Generated element-wise code. It may hold a product too small for a matrix kernel, in float.
_ELEMENTWISE = frozenset({"kgen", "signal", "wait", "Reformat", "NoOp", "PointWiseV2", "Constant"})
# Kernels compiled at run time around a product of dequantized operands.
_FUSED_IN_FLOAT = frozenset({"runtime_fusion"})
# TensorRT itself writes "insuficient".
_MEMORY = re.compile(
    r"out[ _]of[ _]memory|outofmemory|cudaerrormemoryallocation|insuff?icient memory|"
    r"gpu memory \(\d+ bytes\) could not be allocated|allocation failure|cuda error 2\b|"
    r"initialization failure with error:? 2\b"
)
_WORKSPACE = re.compile(r"insuff?icient workspace|within workspace limit")
_NO_GRAPH = re.compile(r"not graph capturable|cuda graph capture failed", re.IGNORECASE)
_NO_KERNEL = "could not find any implementation"
# Older versions only warn of the one thing after which nothing works.
_NO_START = "cuda initialization failure"


@dataclass(frozen=True)
class LogLine:
    """One message: its severity as TensorRT names it, and its text."""

    severity: str
    text: str


@dataclass(frozen=True)
class Layer:
    """One layer of an engine.

    Attributes:
        name: as the builder calls it.
        kind: ``correlation``, ``gemm``, ``kgen``, ``CaskConvolution``...
        inputs: element types of its inputs and constants, in order: ``int8``, ``fp16``... The
            weights, where the builder lists them apart, come second.
        outputs: element types of its outputs.
        tactic: the kernel, where the builder names it.
        nodes: the ONNX nodes it came from, in the builder's order.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tactic: str
    nodes: tuple[str, ...]

    @property
    def precision(self) -> str:
        """Of its arithmetic: of both factors of a product, else the widest float it reads."""
        if self.kind in _ELEMENTWISE | _FUSED_IN_FLOAT:
            return _widest(self.inputs)
        if self.inputs[:2] == ("int8", "int8"):
            return "int8"
        return _widest(self.inputs[:2])

    def as_json(self) -> dict[str, Any]:
        """Plain JSON, with the precision."""
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return {"precision": self.precision, **plain}


def _widest(types: Sequence[str]) -> str:
    return next((kind for kind in ("fp32", "bf16", "fp16", "fp8") if kind in types), "other")


def read_layers(lines: Iterable[LogLine]) -> list[Layer]:
    """The last table of layers in a build log; empty when there is none."""
    table: list[Layer] = []
    for line in lines:
        if line.text.startswith(TABLE):
            # Not splitlines(): it also splits at U+001E, in the middle of a layer's metadata.
            table = [layer for row in line.text.split("\n") if (layer := _layer(row))]
    return table


def _layer(row: str) -> Layer | None:
    head = _HEAD.match(row)
    if head is None:
        return None
    inputs = _types(_section(row, "Inputs", head.end()))
    inputs += _types(_section(row, "Constants", head.end()))
    weights = _WEIGHTS.search(row)
    if weights is not None:
        # The other factor; what else a convolution reads, such as a fused residual, is only added.
        factor = _TYPES.get(weights[1].lower(), weights[1].lower())
        inputs = (*inputs[:1], factor, *inputs[1:])
    tactic = _TACTIC.search(row)
    return Layer(
        name=head[1],
        kind=head[2],
        inputs=inputs,
        outputs=_types(_section(row, "Outputs", head.end())),
        tactic=tactic[1] if tactic else "",
        nodes=tuple(dict.fromkeys(_NODE.findall(row.rpartition("Metadata: ")[2]))),
    )


def _section(row: str, key: str, start: int) -> str:
    """What stands in the brackets after ``key: [``. Names in it may hold balanced brackets."""
    begin = row.find(f"{key}: [", start)
    if begin < 0:
        return ""
    begin += len(key) + 3
    depth = 1
    for i in range(begin, len(row)):
        depth += (row[i] == "[") - (row[i] == "]")
        if depth == 0:
            return row[begin:i]
    return row[begin:]


def _types(section: str) -> tuple[str, ...]:
    """Element types of the tensors described in a section, one each."""
    found = []
    for spelled in re.findall(r"(?:Format/Datatype|Datatype): ([^,}]*)", section):
        words = (_TYPES.get(word.lower()) for word in _WORD.findall(spelled))
        found.append(next((word for word in words if word), "?"))
    return tuple(found)


def node_precisions(layers: Sequence[Layer], heavy: Iterable[str]) -> dict[str, str]:
    """Precision of the products of each heavy ONNX node, ``unknown`` where no layer names it.

    A node that appears in several layers is in int8 if the layer that multiplies is: the others
    are its bias, its activation and the rounding of its result.
    """
    by_node: dict[str, list[Layer]] = {}
    for layer in layers:
        for node in layer.nodes:
            by_node.setdefault(node, []).append(layer)
    found = {}
    for node in heavy:
        holders = by_node.get(node, [])
        multiplies = [layer for layer in holders if layer.kind not in _ELEMENTWISE] or holders
        precisions = {layer.precision for layer in multiplies}
        order = ("int8", "fp8", "fp16", "bf16", "fp32")
        found[node] = next((p for p in order if p in precisions), "unknown")
    return found


def executed(layers: Iterable[Layer]) -> dict[str, int]:
    """How many layers of each kind run in which precision: ``{"gemm int8": 12, ...}``."""
    idle = ("signal", "wait")
    counts = Counter(f"{x.kind} {x.precision}" for x in layers if x.kind not in idle)
    return dict(sorted(counts.items()))


def first_error(lines: Iterable[LogLine]) -> str:
    """The most telling error, on one line; what to say when TensorRT gives nothing."""
    errors = _errors(lines)
    telling = [text for text in errors if not text.startswith("ModelImporter") or "ERROR:" in text]
    chosen = (telling or errors or ["no reason given"])[0]
    return " ".join(chosen.split())[:500]


def _errors(lines: Iterable[LogLine]) -> list[str]:
    """What went wrong, as TensorRT says it: its errors, or the warning that it could not start."""
    kept = list(lines)
    errors = [line.text for line in kept if line.severity in ("ERROR", "INTERNAL_ERROR")]
    return errors or [
        line.text for line in kept if line.severity == "WARNING" and _NO_START in line.text.lower()
    ]


def shortage(lines: Iterable[LogLine]) -> Shortage | None:
    """Whether a failure was for want of memory, or of scratch space within the allowed workspace.

    Errors tell. A warning that some kernel was left out for want of memory is common in builds
    that succeed, so it counts only where the error is that no kernel was left.
    """
    kept = list(lines)
    errors = [text.lower() for text in _errors(kept)]
    if any(_WORKSPACE.search(text) for text in errors):
        return "workspace"
    if any(_MEMORY.search(text) for text in errors):
        return "memory"
    if any(_NO_KERNEL in text for text in errors):
        warnings = [x.text.lower() for x in kept if x.severity == "WARNING"]
        if any(_MEMORY.search(text) for text in warnings):
            return "memory"
        if any(_WORKSPACE.search(text) for text in warnings):
            return "workspace"
    return None


def capture_failure(lines: Iterable[LogLine]) -> str | None:
    """What TensorRT for RTX said, on one line, when its own CUDA graph came to nothing."""
    found = next((line.text for line in lines if _NO_GRAPH.search(line.text)), None)
    return None if found is None else " ".join(found.split())[:500]


def fallbacks(precisions: Mapping[str, str], float_ok: Iterable[str]) -> list[str]:
    """Heavy nodes that were to run in int8 and do not, in graph order."""
    allowed = set(float_ok)
    return [node for node, p in precisions.items() if p != "int8" and node not in allowed]
