"""The gate is a rule; here it is said again in exact fractions, and held to it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.errors import UsageError
from pipeline.report.bootstrap import Interval
from pipeline.report.verdict import check_limits, confidence, gate, headline, signed

NAMES = ("road", "pole", "car", "sky")
LIMITS = st.floats(0, 60)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Two (4, 5) matrices over the same truth: each row dealt out twice."""
    deals = [
        draw(hnp.arrays(np.int64, (4, 5), elements=st.integers(0, 40)).filter(lambda m: m.any()))
        for _ in range(2)
    ]
    first, second = deals
    for row in range(4):
        lacking = first[row].sum() - second[row].sum()
        (second if lacking > 0 else first)[row, draw(st.integers(0, 4))] += abs(lacking)
    return first, second


def _exact_iou(n: list[list[int]], c: int) -> Fraction | None:
    truth = sum(n[c])
    if not truth:
        return None
    union = truth + sum(row[c] for row in n) - n[c][c]
    return Fraction(100 * n[c][c], union)


@given(pairs(), LIMITS, LIMITS)
def test_the_rule_in_fractions(
    pair: tuple[np.ndarray, np.ndarray], max_drop: float, max_class_drop: float
) -> None:
    verdict = gate(*pair, max_drop, max_class_drop, names=NAMES)
    ious = [[_exact_iou(matrix.tolist(), c) for c in range(4)] for matrix in pair]
    drops = {
        NAMES[c]: before - after
        for c, (before, after) in enumerate(zip(*ious, strict=True))
        if before is not None and after is not None
    }
    mean = sum(drops.values(), Fraction(0)) / len(drops)
    margins = [Fraction(max_drop) - mean] + [Fraction(max_class_drop) - d for d in drops.values()]
    assume(all(abs(margin) > Fraction(1, 10**6) for margin in margins))
    assert verdict.passed == all(margin > 0 for margin in margins)
    assert verdict.drop == pytest.approx(float(mean), abs=1e-9)
    assert {c.name: pytest.approx(float(drops[c.name]), abs=1e-9) for c in verdict.classes} == {
        c.name: c.drop for c in verdict.classes
    }
    assert verdict.worst.drop == max(c.drop for c in verdict.classes)
    assert verdict.passed == (not verdict.reasons)


@given(pairs(), LIMITS, LIMITS, st.floats(0, 10), st.floats(0, 10))
def test_looser_limits_never_fail_what_passed(
    pair: tuple[np.ndarray, np.ndarray], drop: float, class_drop: float, a: float, b: float
) -> None:
    if gate(*pair, drop, class_drop, names=NAMES).passed:
        assert gate(*pair, drop + a, class_drop + b, names=NAMES).passed


@given(pairs())
def test_nothing_changed_passes_the_tightest_limits(pair: tuple[np.ndarray, np.ndarray]) -> None:
    verdict = gate(pair[0], pair[0].copy(), 0, 0, names=NAMES)
    assert verdict.passed
    assert verdict.drop == 0


@given(pairs(), pairs())
def test_frames_are_summed(
    one: tuple[np.ndarray, np.ndarray], two: tuple[np.ndarray, np.ndarray]
) -> None:
    stacks = [np.stack(frames) for frames in zip(one, two, strict=True)]
    sums = [stack.sum(0) for stack in stacks]
    assert gate(stacks[0], stacks[1], names=NAMES) == gate(sums[0], sums[1], names=NAMES)
    # Records hold unsigned 32-bit counts; their sum must not wrap.
    large = [(stack * 50_000_000).astype(np.uint32) for stack in stacks]
    if all((a == b // 50_000_000).all() for a, b in zip(stacks, large, strict=True)):
        assert gate(large[0], large[1], names=NAMES).drop == pytest.approx(
            gate(stacks[0], stacks[1], names=NAMES).drop, abs=1e-9
        )


def test_a_drop_exactly_at_its_limit_passes_and_one_above_does_not() -> None:
    before = np.diag([1000, 0, 0, 0])
    after = before.copy()
    after[0, :2] = 995, 5  # IoU 100 -> 99.5 of the only class
    assert gate(before, after, 0.5, 0.5, names=NAMES).passed
    verdict = gate(before, after, 0.4999, 2, names=NAMES)
    assert not verdict.passed
    assert not verdict.miou_passed
    assert verdict.reasons == ("mIoU drops 0.50 points, 0.4999 are allowed",)
    assert "REGRESSION" in headline(verdict)


def test_one_class_alone_can_fail_it() -> None:
    before = np.diag([10**6, 100, 10**6, 10**6])
    after = before.copy()
    after[1, 1], after[1, 0] = 90, 10
    verdict = gate(before, after, 5, 2, names=NAMES)
    assert verdict.miou_passed
    assert not verdict.passed
    assert verdict.worst.name == "pole"
    assert verdict.reasons == ("pole drops 10.00 points, 2 are allowed",)


def test_of_equal_drops_the_first_class_is_the_worst() -> None:
    same = np.diag([5, 5, 5, 5])
    assert gate(same, same, names=NAMES).worst.name == "road"


def test_what_cannot_be_compared_is_refused() -> None:
    matrix = np.diag([5, 5, 5, 5])
    with pytest.raises(ValueError, match="different pixels"):
        gate(matrix, 2 * matrix, names=NAMES)
    with pytest.raises(ValueError, match="no pixel"):
        gate(0 * matrix, 0 * matrix, names=NAMES)
    with pytest.raises(ValueError, match="names"):
        gate(matrix, matrix)
    with pytest.raises(ValueError, match="no counts"):
        gate(matrix / 2, matrix / 2, names=NAMES)


@pytest.mark.parametrize("limit", [-0.1, float("nan"), float("inf")])
def test_limits_that_cannot_be_are_named(limit: float) -> None:
    with pytest.raises(UsageError, match="--max-drop"):
        check_limits(limit, 1)
    with pytest.raises(UsageError, match="--max-class-drop"):
        check_limits(1, limit)


@pytest.mark.parametrize(
    ("limit", "found", "expected"),
    [
        (0.6, Interval(0.3, 0.55), "clear"),
        (0.6, Interval(0.3, 0.7), "open"),
        (0.4, Interval(0.45, 0.55), "clear"),
        (0.4, Interval(0.3, 0.7), "open"),
        (0.4, None, "unknown"),
    ],
)
def test_how_sure_it_is(limit: float, found: Interval | None, expected: str) -> None:
    before = np.diag([1000, 0, 0, 0])
    after = before.copy()
    after[0, :2] = 995, 5
    assert confidence(gate(before, after, limit, 5, names=NAMES), found) == expected


def test_signs() -> None:
    assert [signed(v) for v in (0.5, -0.5, 0.0, -0.001, 12.345)] == [
        "+0.50", "−0.50", "0.00", "0.00", "+12.35",
    ]  # fmt: skip
