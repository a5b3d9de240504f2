"""``report.json``: every figure of the report, versioned.

All scores, shares and differences of scores are in points, 0 to 100. A *drop* or *excess* is
positive where things are worse, and every ``null`` says that the figure does not exist for these
frames (few frames have no interval). Within a major version fields are added, never changed.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.report.bootstrap import Interval

SCHEMA_VERSION: Final = "1.3"


class _Part(BaseModel):
    """Base of every part: closed, immutable, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Range(_Part):
    """A 95 % bootstrap interval over frames; there is none of fewer than six frames that tell."""

    low: float
    high: float


def as_range(found: Interval | None) -> Range | None:
    """An interval as the schema spells it."""
    return None if found is None else Range(low=found.low, high=found.high)


class Timing(_Part):
    """Milliseconds over all frames of the run, warm."""

    p50: float
    p95: float
    mean: float


class Latency(_Part):
    """How long one engine took."""

    engine: Timing = Field(description="the engine alone: all its runs for one frame")
    frame: Timing = Field(description="the whole frame: resize, engine, blend, argmax")


class Contender(_Part):
    """One engine's scores over all frames."""

    name: str
    miou: float = Field(description="mean IoU over the classes the truth holds")
    official_miou: float = Field(
        description="the Cityscapes evaluator's average: classes that only occur in the "
        "prediction count as 0"
    )
    pixel_accuracy: float
    mean_class_accuracy: float
    latency_ms: Latency


class Limits(_Part):
    """What the candidate was held to, in points."""

    max_drop: float
    max_class_drop: float


class ClassRow(_Part):
    """IoU of one class the truth holds."""

    train_id: int
    name: str
    reference: float
    candidate: float
    drop: float
    drop_interval: Range | None
    passed: bool
    pixels: int = Field(description="pixels of the truth")
    frames: int = Field(description="frames in which the truth holds it")
    disagreement: float = Field(description="share of its pixels the engines label differently")


class WorstClass(_Part):
    """The class with the greatest drop."""

    name: str
    drop: float
    drop_interval: Range | None
    passed: bool


class AbsentClass(_Part):
    """A class no label holds: it has no IoU, but false alarms are counted."""

    name: str
    reference_pixels: int
    candidate_pixels: int


class ConfusionChange(_Part):
    """Pixels of one class that are labelled as another one more, or less, often than before."""

    truth: str
    predicted: str
    reference: float = Field(description="share of the truth's pixels so labelled, reference")
    candidate: float
    change: float = Field(description="candidate - reference")
    pixels: int = Field(description="the change in pixels")


class Confusions(_Part):
    """Confusion matrices in pixels, truth by prediction; the last column is "no class"."""

    classes: list[str]
    reference: list[list[int]]
    candidate: list[list[int]]
    changes: list[ConfusionChange] = Field(description="the greatest off the diagonal, by size")


class DistanceRow(_Part):
    """Scored pixels within one range of distances."""

    start: float
    stop: float | None = Field(description="null: no upper end")
    pixels: int
    reference_error: float
    candidate_error: float
    disagreement: float


class EdgeEffectRow(_Part):
    """Events near patch edges against those inside patches."""

    near: float
    interior: float
    excess: float = Field(
        description="points by which pixels near an edge are worse than those beside it of the "
        "same frame, place, class and distance to a border between labels"
    )
    interval: Range | None


class PatchEdges(_Part):
    """Whether predictions at patch edges are as good as inside patches."""

    patch: tuple[int, int] = Field(description="height and width in pixels of the network's input")
    near_within: float = Field(description="pixels of the network's input")
    beside_within: float = Field(description="pixels of the network's input")
    margin: float
    verdict: Literal["as good", "worse", "undecided"] = Field(description="on the candidate")
    passed: bool | None = Field(description="true, false; null where undecided")
    reference: EdgeEffectRow
    candidate: EdgeEffectRow
    disagreement: EdgeEffectRow
    compared: float = Field(
        description="share of pixels near an edge that have their like beside it"
    )
    compared_frames: int = Field(description="frames in which any pixel was compared")
    change: float = Field(description="candidate's excess - reference's excess")
    change_interval: Range | None
    by_distance: list[DistanceRow]


class Disagreement(_Part):
    """Where the engines label scored pixels differently."""

    scored: float = Field(description="share of the scored pixels")
    all: float = Field(description="share of all pixels, ignored ones included")
    lost: float = Field(description="share where the reference is right and the candidate wrong")
    gained: float = Field(description="share where the candidate is right and the reference wrong")
    by_border_distance: list[DistanceRow] = Field(
        description="by distance to a border between labels, in pixels of the label"
    )


class ChangedFrame(_Part):
    """One of the frames whose labels changed most."""

    name: str
    index: int
    disagreement: float
    reference_accuracy: float
    candidate_accuracy: float


class AttributionClass(_Part):
    """IoU of one class under the three, over the attribution's frames."""

    name: str
    reference: float
    exact: float
    candidate: float


class Attribution(_Part):
    """Whose the drop is: quantization's (exact graph against reference) or the engine's."""

    frames: int
    scored_frames: int = Field(description="those of them with a scored pixel")
    reference_miou: float
    exact_miou: float
    candidate_miou: float
    quantization_drop: float
    quantization_interval: Range | None
    engine_drop: float
    engine_interval: Range | None
    agreement: float = Field(description="share of all pixels that engine and exact graph share")
    cause: Literal["neither", "quantization", "engine", "both", "unknown"] = Field(
        description="whose drop is greater than chance, by its interval"
    )
    first_difference: str | None = Field(
        default=None, description="the first node at which engine and graph part, if looked for"
    )
    classes: list[AttributionClass]


class SensitivityRow(_Part):
    """What quantizing one layer alone does."""

    layer: str
    kind: str | None = Field(default=None, description="its operator, as ONNX calls it")
    drop: float | None = Field(description="mIoU lost, in points")
    logits_error: float = Field(description="||logits - float's|| / ||float's||, no points: 0 to 1")
    labels_changed: float | None = Field(default=None, description="share of all pixels")


class FloatLayer(_Part):
    """A heavy layer of the graph that the engine computes in float."""

    name: str
    precision: str = Field(description="as the builder's table of layers says; or unknown")


class FloatLayers(_Part):
    """Heavy layers of a quantized candidate that are not in int8."""

    fallback: list[FloatLayer] = Field(description="quantized, yet run in float; graph order")
    by_design: list[str] = Field(description="left in float by the quantizer; graph order")


class Report(_Part):
    """The whole report."""

    schema_version: Literal["1.3"] = SCHEMA_VERSION
    created_at: str = Field(description="UTC, ISO 8601")
    passed: bool
    summary: str
    confidence: Literal["clear", "open", "unknown"] = Field(
        description="whether the interval of the drop lies on one side of max_drop"
    )
    reasons: list[str] = Field(description="limits that were broken")
    limits: Limits
    drop: float
    drop_interval: Range | None
    miou_passed: bool = Field(description="whether drop is within max_drop")
    pixel_accuracy_drop_interval: Range | None
    mean_class_accuracy_drop_interval: Range | None
    worst_class: WorstClass
    reference: Contender
    candidate: Contender
    speedup: float = Field(description="median over frames of reference time / candidate time")
    classes: list[ClassRow]
    absent_classes: list[AbsentClass]
    frames: int
    scored_frames: int = Field(description="those of them with a scored pixel")
    frame_names: list[str]
    calibrated_frames: int | None = Field(
        default=None,
        description="scored frames that also calibrated the candidate, whose loss is flattered "
        "where there are any; null: it was not calibrated, or does not tell by what",
    )
    left_out: list[str] = Field(description="frames that could not be scored, and why")
    scored_pixels: int
    attribution: Attribution | None
    confusions: Confusions
    disagreement: Disagreement
    patch_edges: PatchEdges | None = Field(description="null: patch not known, or a single one")
    changed_frames: list[ChangedFrame]
    sensitivity: list[SensitivityRow] | None = Field(
        default=None, description="greatest error of the logits first"
    )
    sensitivity_frames: int | None = Field(
        default=None, description="frames it was measured on, spread evenly over those scored"
    )
    float_layers: FloatLayers | None = Field(
        default=None,
        description="of the candidate; null: not quantized, or its runtime does not tell",
    )
    provenance: dict[str, Any]
