"""Distances and counts against loops over pixels."""

from __future__ import annotations

import math
from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.report.zones import (
    BORDER_BINS,
    OUTCOMES_SHAPE,
    PATCH_BINS,
    Outcome,
    PatchMap,
    border_bins,
    border_distance,
    count_outcomes,
    differing,
    edge_surplus,
    patch_map,
    wrong_in_candidate,
    wrong_in_reference,
)
from pipeline.tiles import plan_tiles

PICTURES = hnp.arrays(
    np.uint8,
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    elements=st.sampled_from([0, 1, 18, 255]),
)


def _bin(distance: float, starts: tuple[float, ...]) -> int:
    return max(i for i, start in enumerate(starts) if distance >= start)


def _is_border(labels: np.ndarray, y: int, x: int) -> bool:
    height, width = labels.shape
    around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
    return any(
        labels[v, u] != labels[y, x] for v, u in around if 0 <= v < height and 0 <= u < width
    )


@given(PICTURES)
def test_border_distance_is_that_of_the_nearest_border_pixel(labels: np.ndarray) -> None:
    places = list(product(range(labels.shape[0]), range(labels.shape[1])))
    borders = [place for place in places if _is_border(labels, *place)]
    distance, bins = border_distance(labels), border_bins(labels)
    for y, x in places:
        expected = min((math.hypot(y - v, x - u) for v, u in borders), default=math.inf)
        assert distance[y, x] == pytest.approx(expected, abs=1e-3)
        assert bins[y, x] == _bin(expected, BORDER_BINS)


def test_far_borders_reach_the_last_bin() -> None:
    labels = np.zeros((3, 80), np.uint8)
    labels[:, :2] = 1
    row = border_bins(labels)[1]
    # Columns 1 and 2 are border pixels; column x > 2 is x - 2 away.
    assert [int(row[x]) for x in (2, 3, 4, 6, 10, 18, 33, 34, 79)] == [0, 0, 1, 2, 3, 4, 4, 5, 5]


@pytest.mark.parametrize(
    ("frame", "tile", "patch", "mode"),
    [
        ((64, 96), (64, 96), (32, 32), "fit"),
        ((48, 100), (64, 96), (32, 32), "fit"),
        ((30, 40), (64, 96), (16, 48), "fit"),
        ((90, 140), (64, 64), (32, 32), "cover"),
    ],
)
def test_patch_distance_is_that_of_the_nearest_edge(
    frame: tuple[int, int], tile: tuple[int, int], patch: tuple[int, int], mode: str
) -> None:
    plan = plan_tiles(frame, tile, mode="cover" if mode == "cover" else "fit")
    rows, cols = plan.patch_edges(patch)
    bins = patch_map(plan, patch).bins
    assert bins.shape == frame
    for y, x in product(range(0, frame[0], 3), range(0, frame[1], 3)):
        away = [abs(y + 0.5 - e) * plan.picture[0] / frame[0] for e in rows]
        away += [abs(x + 0.5 - e) * plan.picture[1] / frame[1] for e in cols]
        nearest = min(away, default=math.inf)
        if all(abs(nearest - start) > 1e-9 for start in PATCH_BINS):
            assert bins[y, x] == _bin(nearest, PATCH_BINS)


def test_edges_of_known_patches() -> None:
    found = patch_map(plan_tiles((64, 128), (64, 128)), (64, 64))
    # One edge, between columns 63 and 64: their centres are half a pixel away.
    columns = (63, 64, 60, 59, 56, 55, 40, 39, 31, 0)
    assert [int(found.bins[0, x]) for x in columns] == [0, 0, 0, 1, 1, 2, 3, 4, 5, 5]
    assert (found.bins == found.bins[0]).all()


def test_places_have_their_edges_in_the_middle() -> None:
    # Edges at rows 64, 128 and columns 64, 128, 192: places end half-way between them.
    found = patch_map(plan_tiles((192, 256), (192, 256)), (64, 64))
    rows = [int(np.flatnonzero(np.diff(found.places[:, 0].astype(int)))[k]) for k in range(3)]
    cols = [int(np.flatnonzero(np.diff(found.places[0].astype(int)))[k]) for k in range(4)]
    assert rows == [31, 95, 159]
    assert cols == [31, 95, 159, 223]
    assert found.count == 4 * 5 == len(np.unique(found.places))


@pytest.mark.parametrize("patch", [(64, 64), None])
def test_without_edges_everything_is_far_from_them(patch: tuple[int, int] | None) -> None:
    found = patch_map(plan_tiles((64, 64), (64, 64)), patch)
    assert (found.bins == len(PATCH_BINS) - 1).all()


@given(PICTURES, st.integers(0, 2**32 - 1))
def test_outcomes_count_every_scored_pixel_once(truth: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    said = rng.choice(np.array([0, 1, 18, 255], np.uint8), (2, *truth.shape))
    border = rng.integers(0, len(BORDER_BINS), truth.shape).astype(np.uint8)
    patch = rng.integers(0, len(PATCH_BINS), truth.shape).astype(np.uint8)
    places = rng.integers(0, 3, truth.shape).astype(np.uint16)
    table = count_outcomes(truth, said[0], said[1], border, PatchMap(patch, places, 3))
    expected: Counter[tuple[int, ...]] = Counter()
    for place in product(range(truth.shape[0]), range(truth.shape[1])):
        t, r, c = int(truth[place]), int(said[0][place]), int(said[1][place])
        if t == 255:
            continue
        if r == t:
            outcome = Outcome.RIGHT if c == t else Outcome.LOST
        elif c == t:
            outcome = Outcome.GAINED
        else:
            outcome = Outcome.SAME_MISTAKE if r == c else Outcome.OTHER_MISTAKE
        expected[int(places[place]), t, int(border[place]), int(patch[place]), outcome] += 1
    assert table.shape == (3, *OUTCOMES_SHAPE)
    assert table.sum() == (truth != 255).sum()
    assert {tuple(k): int(table[tuple(k)]) for k in np.argwhere(table).tolist()} == expected
    scored = truth != 255
    assert wrong_in_reference(table).sum() == ((said[0] != truth) & scored).sum()
    assert wrong_in_candidate(table).sum() == ((said[1] != truth) & scored).sum()
    assert differing(table).sum() == ((said[0] != said[1]) & scored).sum()


def _table(cells: dict[tuple[int, int, int, int], dict[Outcome, int]], places: int) -> np.ndarray:
    """A frame's table from {(place, class, border bin, patch bin): pixels by outcome}."""
    table = np.zeros((places, *OUTCOMES_SHAPE), np.int64)
    for cell, outcomes in cells.items():
        for outcome, pixels in outcomes.items():
            table[cell][outcome] = pixels
    return table


def test_the_surplus_by_hand() -> None:
    # Patch bins 0 and 1 are near an edge, 2 and 3 beside it, the others farther.
    cells = {
        (0, 0, 0, 0): {Outcome.SAME_MISTAKE: 30, Outcome.RIGHT: 70},
        (0, 0, 0, 3): {Outcome.SAME_MISTAKE: 20, Outcome.RIGHT: 180},
        (0, 0, 0, 5): {Outcome.SAME_MISTAKE: 500},  # too far to be compared
        (1, 1, 0, 1): {Outcome.LOST: 10, Outcome.RIGHT: 10},
        (1, 1, 0, 2): {Outcome.GAINED: 1, Outcome.RIGHT: 9},
        (1, 0, 0, 0): {Outcome.SAME_MISTAKE: 40},  # its like is in another place: left out
        (1, 1, 4, 0): {Outcome.OTHER_MISTAKE: 40},  # its like is elsewhere on the object
    }
    found = edge_surplus(_table(cells, 2))
    # reference: (30 - 100 * 20/200) + (0 - 20 * 1/10); candidate: 20 + (10 - 0);
    # disagreement: 0 + (10 - 20 * 1/10).
    np.testing.assert_allclose(found, [120, 18, 30, 8])


def test_nothing_beside_gives_nothing() -> None:
    assert edge_surplus(_table({(0, 3, 0, 0): {Outcome.LOST: 9}}, 1)).tolist() == [0, 0, 0, 0]
