"""The report's figures against ones computed from the pixels themselves."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from calibration.cityscapes import CLASS_NAMES
from pipeline.errors import UsageError
from pipeline.report import wording
from pipeline.report.attribution import cause
from pipeline.report.bootstrap import Interval
from pipeline.report.evaluate import evaluate
from pipeline.report.records import RecordArray
from pipeline.report.schema import Report
from pipeline.report.summarise import ReportOptions, summarise
from tests.pipeline.report.doubles import (
    SHAPE,
    Labels,
    PaintedFrames,
    contestants,
    painted,
    scene,
)

FRAMES = 6
PATCH = (24, 32)


def _records(frames: PaintedFrames, **options: object) -> RecordArray:
    reference, candidate, exact = contestants()
    return evaluate(frames, reference, candidate, exact, **options)  # type: ignore[arg-type]  # passed through


@pytest.fixture(scope="module")
def records() -> RecordArray:
    return _records(painted(FRAMES), exact_frames=[0, 2, 4], patch=PATCH)


@pytest.fixture(scope="module")
def report(records: RecordArray) -> Report:
    options = ReportOptions(reference="fp32", candidate="int8", patch=PATCH, resamples=200)
    return summarise(records, painted(FRAMES).names, options)


def _pixels(frames: range | list[int] = range(FRAMES)) -> tuple[Labels, list[Labels]]:
    """All scored pixels of the frames in one row, and what the three said of them."""
    scenes = [scene(i) for i in frames]
    truth = np.concatenate([t.ravel() for t, _said in scenes])
    said = [np.concatenate([s[k].ravel() for _t, s in scenes]) for k in range(3)]
    scored = truth != 255
    return truth[scored], [labels[scored] for labels in said]


def _iou(truth: Labels, said: Labels, c: int) -> float:
    union = ((truth == c) | (said == c)).sum()
    return 100 * float(((truth == c) & (said == c)).sum() / union)


def test_headline_figures(report: Report) -> None:
    truth, said = _pixels()
    present = np.unique(truth).tolist()
    for contender, labels in ((report.reference, said[0]), (report.candidate, said[1])):
        assert contender.miou == pytest.approx(np.mean([_iou(truth, labels, c) for c in present]))
        assert contender.pixel_accuracy == pytest.approx(100 * (labels == truth).mean())
        accuracies = [100 * (labels[truth == c] == c).mean() for c in present]
        assert contender.mean_class_accuracy == pytest.approx(np.mean(accuracies))
        # Every class is predicted somewhere, so the evaluator's average is over all nineteen.
        everywhere = [_iou(truth, labels, c) for c in range(19)]
        assert contender.official_miou == pytest.approx(np.mean(everywhere))
    assert report.drop == pytest.approx(report.reference.miou - report.candidate.miou)
    assert report.frames == FRAMES
    assert report.scored_pixels == len(truth)


def test_classes(report: Report) -> None:
    truth, said = _pixels()
    present = np.unique(truth).tolist()
    assert [row.train_id for row in report.classes] == present
    for row in report.classes:
        own = truth == row.train_id
        assert row.name == CLASS_NAMES[row.train_id]
        assert row.reference == pytest.approx(_iou(truth, said[0], row.train_id))
        assert row.candidate == pytest.approx(_iou(truth, said[1], row.train_id))
        assert row.drop == pytest.approx(row.reference - row.candidate)
        assert row.pixels == own.sum()
        assert row.frames == sum((scene(i)[0] == row.train_id).any() for i in range(FRAMES))
        assert row.disagreement == pytest.approx(100 * (said[0] != said[1])[own].mean())
        assert row.drop_interval is not None
        assert row.drop_interval.low <= row.drop_interval.high
    worst = max(report.classes, key=lambda row: row.drop)
    assert (report.worst_class.name, report.worst_class.drop) == (worst.name, worst.drop)
    absent = {row.name: row.candidate_pixels for row in report.absent_classes}
    assert set(absent) == {CLASS_NAMES[c] for c in range(19) if c not in present}
    for name, pixels in absent.items():
        assert pixels == (said[1] == CLASS_NAMES.index(name)).sum()


def test_intervals_are_those_of_resampled_pixels(records: RecordArray, report: Report) -> None:
    drawn = np.random.default_rng(0).multinomial(FRAMES, [1 / FRAMES] * FRAMES, size=200)
    drops = []
    for weights in drawn:
        chosen = [i for i in range(FRAMES) for _ in range(weights[i])]
        truth, said = _pixels(chosen)
        ious = [[_iou(truth, labels, c) for c in np.unique(truth)] for labels in said[:2]]
        drops.append(np.mean(ious[0]) - np.mean(ious[1]))
    low, high = np.percentile(drops, [2.5, 97.5])
    assert report.drop_interval is not None
    assert report.drop_interval.low == pytest.approx(low)
    assert report.drop_interval.high == pytest.approx(high)


def test_where_pixels_differ(report: Report) -> None:
    truth, said = _pixels()
    differ = said[0] != said[1]
    found = report.disagreement
    assert found.scored == pytest.approx(100 * differ.mean())
    assert found.lost == pytest.approx(100 * ((said[0] == truth) & (said[1] != truth)).mean())
    assert found.gained == pytest.approx(100 * ((said[1] == truth) & (said[0] != truth)).mean())
    everywhere = np.concatenate([(s[0] != s[1]).ravel() for _t, s in map(scene, range(FRAMES))])
    assert found.all == pytest.approx(100 * everywhere.mean())
    assert sum(row.pixels for row in found.by_border_distance) == len(truth)
    weighted = sum(row.pixels * row.disagreement for row in found.by_border_distance)
    assert weighted / len(truth) == pytest.approx(found.scored)
    assert report.patch_edges is not None
    assert sum(row.pixels for row in report.patch_edges.by_distance) == len(truth)


def test_changed_frames_are_the_ten_with_most_disagreement() -> None:
    frames = painted(13)
    report = summarise(_records(frames), frames.names, ReportOptions(resamples=10))
    shares = {}
    for i in range(13):
        truth, said = scene(i)
        scored = truth != 255
        shares[frames.names[i]] = 100 * (said[0] != said[1])[scored].mean()
    expected = sorted(shares, key=lambda name: -shares[name])[:10]
    assert [frame.name for frame in report.changed_frames] == expected
    for frame in report.changed_frames:
        truth, said = scene(frame.index)
        scored = truth != 255
        assert frame.disagreement == pytest.approx(shares[frame.name])
        assert frame.candidate_accuracy == pytest.approx(100 * (said[1] == truth)[scored].mean())


def test_attribution_is_over_the_exact_graphs_frames(report: Report) -> None:
    truth, said = _pixels([0, 2, 4])
    mious = [np.mean([_iou(truth, labels, c) for c in np.unique(truth)]) for labels in said]
    found = report.attribution
    assert found is not None
    assert found.frames == 3
    assert found.reference_miou == pytest.approx(mious[0])
    assert found.exact_miou == pytest.approx(mious[2])
    assert found.candidate_miou == pytest.approx(mious[1])
    assert found.quantization_drop == pytest.approx(mious[0] - mious[2])
    assert found.engine_drop == pytest.approx(mious[2] - mious[1])
    same = np.concatenate([(scene(i)[1][1] == scene(i)[1][2]).ravel() for i in (0, 2, 4)])
    assert found.agreement == pytest.approx(100 * same.mean())


@pytest.mark.parametrize(
    ("quantization", "engine", "expected"),
    [
        (Interval(0.1, 2), Interval(-1, 1), "quantization"),
        (Interval(-1, 1), Interval(0.1, 2), "engine"),
        (Interval(0.1, 2), Interval(0.1, 2), "both"),
        (Interval(-2, -0.1), Interval(0, 1), "neither"),
        (None, None, "unknown"),
    ],
)
def test_whose_the_drop_is(
    quantization: Interval | None, engine: Interval | None, expected: str
) -> None:
    assert cause(quantization, engine) == expected


def test_a_broken_engine_is_told_from_a_broken_graph() -> None:
    scenes = [scene(i, error=0.05) for i in range(12)]
    truth, good = [t for t, _s in scenes], [s[0] for _t, s in scenes]
    bad = [scene(i, error=0.5)[1][1] for i in range(12)]
    for candidate, exact, expected in ((bad, good, "engine"), (bad, bad, "quantization")):
        records = _records(PaintedFrames(truth, good, candidate, exact), exact_frames=range(12))
        report = summarise(
            records, [str(i) for i in range(12)],
            ReportOptions(resamples=100),
        )  # fmt: skip
        assert not report.passed
        assert report.attribution is not None
        assert report.attribution.cause == expected


def test_the_greatest_confusion_comes_first() -> None:
    truth = np.zeros(SHAPE, np.uint8)
    truth[12:] = 11
    candidate = truth.copy()
    candidate[12:24] = 12
    candidate[0, :5] = 13
    frames = PaintedFrames([truth], [truth], [candidate])
    report = summarise(_records(frames), frames.names, ReportOptions())
    first, second = report.confusions.changes
    assert (first.truth, first.predicted, first.pixels) == ("person", "rider", 12 * SHAPE[1])
    assert first.reference == 0
    assert first.candidate == pytest.approx(100 / 3)
    assert (second.truth, second.predicted, second.pixels) == ("road", "car", 5)
    assert np.sum(report.confusions.candidate) == truth.size


@pytest.mark.parametrize(
    ("frames", "scored", "said"),
    [
        (1, 1, "1 frame gives no interval: take the figures for this frame alone."),
        (3, 3, "3 frames give no interval: take the figures for these frames alone."),
        (6, 1, "1 frame gives no interval (of 6; the rest have no scored pixel): take"),
        (9, 5, "5 frames give no interval (of 9; the rest have no scored pixel): take"),
    ],
)
def test_few_frames_with_a_scored_pixel_have_figures_but_no_intervals(
    frames: int, scored: int, said: str
) -> None:
    report = _of_few(frames, scored)
    assert report.drop_interval is None
    assert all(row.drop_interval is None for row in report.classes)
    assert (report.confidence, report.scored_frames) == ("unknown", scored)
    assert wording.sureness(report).startswith(said)
    assert report.attribution is not None
    assert (report.attribution.cause, report.attribution.scored_frames) == ("unknown", scored)
    assert "no interval, so quantization's part" in wording.attribution(report.attribution)
    assert report.patch_edges is not None
    assert report.patch_edges.passed is None
    enough = _of_few(frames + 6 - scored, 6)
    assert enough.drop_interval is not None
    assert enough.attribution is not None
    assert enough.attribution.cause != "unknown"


def _of_few(frames: int, scored: int) -> Report:
    """A report on frames of which the first ``scored`` have a scored pixel."""
    scenes = [scene(i) for i in range(frames)]
    truth = [t if i < scored else np.full_like(t, 255) for i, (t, _said) in enumerate(scenes)]
    chosen = PaintedFrames(truth, *([said[k] for _t, said in scenes] for k in range(3)))
    records = _records(chosen, exact_frames=range(frames), patch=PATCH)
    return summarise(records, chosen.names, ReportOptions(patch=PATCH, resamples=50))


def test_a_class_that_few_frames_hold_has_no_interval_of_its_own() -> None:
    scenes = [scene(i) for i in range(8)]
    for truth, _said in scenes[5:]:
        truth[truth == 3] = 255
    frames = PaintedFrames(
        [t for t, _said in scenes], *([said[k] for _t, said in scenes] for k in range(3))
    )
    report = summarise(_records(frames), frames.names, ReportOptions(resamples=50))
    assert report.drop_interval is not None
    assert {row.frames for row in report.classes if row.drop_interval is None} == {5}
    assert {row.frames for row in report.classes if row.drop_interval is not None} == {8}


def test_without_a_known_patch_or_graph_those_sections_are_null() -> None:
    frames = painted(2)
    report = summarise(_records(frames), frames.names, ReportOptions(resamples=10))
    assert report.patch_edges is None
    assert report.attribution is None


def test_equal_engines_pass_the_tightest_limits() -> None:
    scenes = [scene(i) for i in range(3)]
    same = [s[0] for _t, s in scenes]
    frames = PaintedFrames([t for t, _s in scenes], same, same)
    report = summarise(
        _records(frames), frames.names, ReportOptions(max_drop=0, max_class_drop=0, resamples=20)
    )
    assert report.passed
    assert report.drop == 0
    assert report.changed_frames == []
    assert report.confusions.changes == []


def test_json_comes_back_and_holds_the_promised_fields(report: Report) -> None:
    text = report.model_dump_json()
    assert Report.model_validate_json(text) == report
    plain = json.loads(text, parse_constant=lambda name: pytest.fail(f"JSON has no {name}"))
    assert plain["schema_version"] == "1.3"
    for field in ("drop", "worst_class", "classes", "frames", "passed", "patch_edges"):
        assert field in plain
    assert 0 <= plain["reference"]["miou"] <= 100
    assert 0 <= plain["candidate"]["miou"] <= 100
    assert set(plain["worst_class"]) >= {"name", "drop"}
    assert all(math.isfinite(row["drop"]) for row in plain["classes"])


def test_limits_and_names_are_checked(records: RecordArray) -> None:
    with pytest.raises(UsageError, match="--max-drop"):
        summarise(records, painted(FRAMES).names, ReportOptions(max_drop=-1))
    with pytest.raises(ValueError, match="names"):
        summarise(records, ["one"], ReportOptions())


def test_the_published_schema_is_the_one_in_use() -> None:
    """``docs/report.schema.json`` is ``Report.model_json_schema(mode="serialization")``."""
    path = Path(__file__).parents[3] / "docs" / "report.schema.json"
    assert json.loads(path.read_text()) == Report.model_json_schema(mode="serialization")
