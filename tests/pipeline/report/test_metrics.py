"""Our scores against the Cityscapes evaluator's own definition, followed step by step.

``official_scores`` does what evalPixelLevelSemanticLabeling.py does, on label ids and with plain
loops: count (truth, prediction) pairs over the ids of its table, then per label tp, fn over all
predictions, fp over the labels that are not ignored; the average leaves out undefined scores.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from calibration.cityscapes import (
    CLASS_NAMES,
    IGNORE,
    LABELS,
    TRAIN_IDS_TO_LABEL_IDS,
    label_ids_to_train_ids,
)
from pipeline.kernels import confusion
from pipeline.report.metrics import (
    class_accuracy,
    class_iou,
    mean_over_classes,
    official_class_iou,
    pixel_accuracy,
    score,
)

EVALUATED = [label for label in LABELS if label.id >= 0]
CONFUSIONS = hnp.arrays(np.int64, (19, 20), elements=st.integers(0, 2**40))


def official_scores(pairs: list[tuple[Path, Path]]) -> tuple[dict[str, float], float]:
    """(score of each label 0..1, average) from (truth, prediction) files of label ids."""
    counts: Counter[tuple[int, int]] = Counter()
    for truth_path, predicted_path in pairs:
        truth = cv2.imread(str(truth_path), cv2.IMREAD_UNCHANGED)
        predicted = cv2.imread(str(predicted_path), cv2.IMREAD_UNCHANGED)
        assert truth is not None
        assert predicted is not None
        counts.update(zip(truth.ravel().tolist(), predicted.ravel().tolist(), strict=True))
    ids = [label.id for label in EVALUATED]
    scores = {}
    for label in EVALUATED:
        if label.train_id == IGNORE:
            continue
        tp = counts[label.id, label.id]
        fn = sum(counts[label.id, other] for other in ids) - tp
        others = [o.id for o in EVALUATED if o.train_id != IGNORE and o.id != label.id]
        fp = sum(counts[other, label.id] for other in others)
        total = tp + fp + fn
        scores[label.name] = tp / total if total else float("nan")
    known = [value for value in scores.values() if not math.isnan(value)]
    return scores, sum(known) / len(known)


@pytest.mark.parametrize("seed", range(4))
def test_scores_are_the_official_evaluators_on_label_id_files(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = np.array([label.id for label in EVALUATED], np.uint8)
    # Truth of every label, ignored ones too; in seed 3 some classes never occur in it.
    truth_ids = ids if seed < 3 else ids[:22]
    pairs, ours = [], np.zeros((19, 20), np.int64)
    for frame in range(3):
        truth = rng.choice(truth_ids, (40, 56))
        classes = label_ids_to_train_ids(truth)
        wrong = rng.random(truth.shape) < 0.4
        predicted = np.where(wrong | (classes == 255), rng.integers(0, 19, truth.shape), classes)
        predicted = predicted.astype(np.uint8)
        predicted[rng.random(truth.shape) < 0.02] = 255  # "no class": label id 0 on disk
        paths = tmp_path / f"{frame}_truth.png", tmp_path / f"{frame}_predicted.png"
        cv2.imwrite(str(paths[0]), truth)
        cv2.imwrite(str(paths[1]), TRAIN_IDS_TO_LABEL_IDS[predicted])
        pairs.append(paths)
        confusion(classes, predicted, ours)
    theirs, average = official_scores(pairs)
    for name, value in zip(CLASS_NAMES, official_class_iou(ours), strict=True):
        assert value / 100 == pytest.approx(theirs[name], abs=1e-12)
    assert score(ours).official_miou == pytest.approx(100 * average, abs=1e-10)
    if seed < 3:
        assert score(ours).miou == score(ours).official_miou
    else:
        present = [theirs[name] for c, name in enumerate(CLASS_NAMES) if ours[c].any()]
        assert len(present) < 19
        assert score(ours).miou == pytest.approx(100 * np.mean(present), abs=1e-10)


@given(CONFUSIONS)
def test_formulas_with_whole_numbers(matrix: np.ndarray) -> None:
    n = matrix.tolist()
    for c in range(19):
        truth, predicted = sum(n[c]), sum(row[c] for row in n)
        iou, accuracy = class_iou(matrix)[c], class_accuracy(matrix)[c]
        if truth == 0:
            assert math.isnan(iou)
            assert math.isnan(accuracy)
        else:
            assert iou == pytest.approx(100 * n[c][c] / (truth + predicted - n[c][c]), rel=1e-12)
            assert accuracy == pytest.approx(100 * n[c][c] / truth, rel=1e-12)
    total = sum(map(sum, n))
    if total:
        hits = sum(n[c][c] for c in range(19))
        assert pixel_accuracy(matrix) == pytest.approx(100 * hits / total, rel=1e-12)


@given(CONFUSIONS)
def test_scores_lie_within_0_and_100_and_do_not_depend_on_scale(matrix: np.ndarray) -> None:
    iou = class_iou(matrix)
    known = iou[np.isfinite(iou)]
    assert ((known >= 0) & (known <= 100)).all()
    np.testing.assert_allclose(class_iou(7 * matrix), iou, rtol=1e-12)


def test_stacks_are_scored_one_by_one() -> None:
    stack = np.random.default_rng(0).integers(0, 9, (3, 2, 19, 20))
    for i in range(3):
        for j in range(2):
            np.testing.assert_array_equal(class_iou(stack)[i, j], class_iou(stack[i, j]))
    assert mean_over_classes(class_iou(stack)).shape == (3, 2)


def test_a_perfect_prediction_scores_100_and_nothing_scores_nothing() -> None:
    perfect = np.zeros((19, 20), np.int64)
    perfect[3, 3] = perfect[7, 7] = 5
    assert score(perfect).miou == 100
    assert score(perfect).pixel_accuracy == 100
    assert math.isnan(score(np.zeros((19, 19), np.int64)).miou)


def test_no_class_misses_its_truth_and_accuses_nobody() -> None:
    matrix = np.zeros((19, 20), np.int64)
    matrix[0, 0], matrix[0, 19] = 3, 1
    assert class_iou(matrix)[0] == 75
    assert np.isnan(class_iou(matrix)[1:]).all()


@pytest.mark.parametrize("shape", [(19,), (19, 18), (19, 21)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="neither"):
        class_iou(np.zeros(shape, np.int64))
