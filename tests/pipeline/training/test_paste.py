"""What is pasted and drawn into training crops, against the labels that come with it."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.training.augment import AugmentConfig, augment
from pipeline.training.paste import NEARER, POLE, draw_poles, paste_things

ROAD, CAR, PERSON, RIDER, BICYCLE = 0, 13, 11, 12, 18
Array = npt.NDArray[np.uint8]


def scene(colour: int, label: int, height: int = 60, width: int = 80) -> tuple[Array, Array]:
    return (
        np.full((height, width, 3), colour, np.uint8),
        np.full((height, width), label, np.uint8),
    )


def donor_with(things: dict[int, tuple[int, int, int, int]], colour: int) -> tuple[Array, Array]:
    """A white scene with rectangles (top, left, height, width) of ``colour`` by train id."""
    image, labels = scene(255, ROAD)
    for label, (top, left, height, width) in things.items():
        image[top : top + height, left : left + width] = colour
        labels[top : top + height, left : left + width] = label
    return image, labels


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_pasted_thing_brings_its_pixels_and_its_label_and_keeps_its_height(seed: int) -> None:
    image, labels = scene(100, CAR)
    donor, donor_labels = donor_with({PERSON: (20, 30, 25, 12)}, colour=10)
    got, truth = paste_things(
        image, labels, donor, donor_labels, (PERSON,), np.random.default_rng(seed)
    )
    rows, cols = np.nonzero(truth == PERSON)
    assert set(np.unique(truth)) <= {CAR, PERSON}
    if len(rows):  # it may have left the picture
        assert (rows.min(), rows.max()) == (20, 44)
        assert len(np.unique(cols)) <= 12
    inner = cv2.erode((truth == PERSON).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    outer = cv2.dilate((truth == PERSON).astype(np.uint8), np.ones((5, 5), np.uint8)) == 0
    assert (np.abs(got[inner].astype(int) - 10) <= 1).all()
    assert (got[outer] == 100).all()


def test_only_named_classes_are_pasted_and_who_rides_comes_with_what_is_ridden() -> None:
    image, labels = scene(100, CAR)
    donor, donor_labels = donor_with(
        {RIDER: (5, 30, 20, 10), BICYCLE: (25, 28, 10, 14), PERSON: (20, 60, 20, 8)}, colour=10
    )
    seen: set[int] = set()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        _got, truth = paste_things(image, labels, donor, donor_labels, (RIDER,), rng)
        found = {int(c) for c in np.unique(truth)}
        seen |= found
        # Behind the picture's edge only together.
        assert (RIDER in found) <= (BICYCLE in found)
    assert seen == {CAR, RIDER, BICYCLE}


def test_a_donor_without_such_things_changes_nothing() -> None:
    image, labels = scene(100, CAR)
    donor, donor_labels = scene(10, ROAD)
    got = paste_things(image, labels, donor, donor_labels, (PERSON,), np.random.default_rng(0))
    assert got[0] is image
    assert got[1] is labels


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_poles_are_drawn_where_they_are_labelled(seed: int) -> None:
    height, width = 120, 160
    image, labels = scene(128, ROAD, height, width)
    labels[:, : width // 2] = PERSON
    before = image.copy(), labels.copy()
    got, truth = draw_poles(image, labels, np.random.default_rng(seed), most=1)
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(labels, before[1])
    pole = truth == POLE
    np.testing.assert_array_equal(truth[~pole], labels[~pole])
    drawn = (got != 128).any(axis=2).astype(np.uint8)
    near = np.ones((3, 3), np.uint8)
    # The label is at most 0.6 pixels wider than the pole on either side. What is drawn may have the
    # scene's very colour here and there.
    assert not pole.any() or cv2.dilate(drawn, near)[pole].mean() > 0.95
    far = cv2.dilate(pole.astype(np.uint8), np.ones((5, 5), np.uint8)) == 0
    assert drawn[far].mean() < 0.01  # one thinner than half a pixel has no label


def test_three_poles_of_five_stand_behind_who_is_nearer() -> None:
    height, width = 120, 160
    image, labels = scene(128, ROAD, height, width)
    labels[:, ::2] = PERSON  # every pole that is wide enough to be labelled meets some
    met = hidden = 0
    for seed in range(400):
        got, truth = draw_poles(image, labels, np.random.default_rng(seed), most=1)
        if not (truth == POLE)[labels == ROAD].any():
            continue
        met += 1
        if not (truth == POLE)[labels == PERSON].any():
            hidden += 1
            assert (got[labels == PERSON] == 128).all()
    assert met > 100
    assert 0.5 < hidden / met < 0.7


def test_poles_are_as_thick_as_asked() -> None:
    image, labels = scene(128, ROAD, 240, 320)
    found = [
        sum(
            int((draw_poles(image, labels, np.random.default_rng(s), thickness=t)[1] == POLE).sum())
            for s in range(20)
        )
        for t in (0.5, 1.0, 2.0)
    ]
    assert found[0] < found[1] < found[2]


def test_poles_may_cross_people_or_stand_behind_them() -> None:
    image, labels = scene(128, NEARER[0], 120, 160)
    drawn = [
        bool((draw_poles(image, labels, np.random.default_rng(seed))[1] == POLE).any())
        for seed in range(40)
    ]
    assert any(drawn)
    assert not all(drawn)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_augmentation_asks_for_a_donor_as_often_as_it_says(share: float) -> None:
    image, labels = scene(100, CAR)
    asked = 0

    def donor() -> tuple[Array, Array]:
        nonlocal asked
        asked += 1
        return donor_with({PERSON: (20, 30, 25, 12)}, colour=10)

    config = AugmentConfig(paste=share, poles=share)
    poles = 0
    for seed in range(10):
        _crop, truth = augment(image, labels, (48, 64), config, np.random.default_rng(seed), donor)
        poles += bool((truth == POLE).any())
    assert asked == 10 * share
    assert (poles > 0) == (share > 0)
