from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.tiles import STRIDE, TilePlan, plan_tiles
from tests.pipeline.kernels.axes import upsample_axis

SIDE = st.integers(1, 700)
TILE = st.integers(1, 64).map(lambda n: 4 * n)
FRAMES = st.tuples(SIDE, SIDE)
TILES = st.tuples(TILE, TILE)


def spans(plan: TilePlan, dim: int) -> list[tuple[int, int]]:
    starts = np.unique(plan.origins[:, dim])
    return [(int(start), int(start) + plan.tile[dim]) for start in starts]


def check_axes(plan: TilePlan) -> None:
    """What holds in either mode, along both axes."""
    for dim, axis, picks in ((0, plan.rows, plan.row_picks), (1, plan.cols, plan.col_picks)):
        found = spans(plan, dim)
        assert found[0][0] <= 0
        assert found[-1][1] >= plan.picture[dim]
        assert all(after[0] < before[1] + 1 for before, after in pairwise(found))
        assert all((start - found[0][0]) % STRIDE == 0 for start, _ in found)
        np.testing.assert_array_equal(
            axis.origins * STRIDE, [start - found[0][0] for start, _ in found]
        )
        assert axis.samples == plan.frame[dim]
        check_positions(plan, dim, axis, found[0][0])
        check_picks(plan, dim, picks, found)


def check_positions(plan: TilePlan, dim: int, axis: Any, start: int) -> None:
    """The middle of output pixel u, through frame, picture and grid."""
    middle = (np.arange(plan.frame[dim]) + 0.5) * plan.picture[dim] / plan.frame[dim]
    np.testing.assert_allclose(
        (axis.cells - 1.0 + axis.fractions + 0.5) * STRIDE + start, middle, atol=2e-3
    )


def check_picks(plan: TilePlan, dim: int, picks: Any, found: list[tuple[int, int]]) -> None:
    """Each pixel's nearest one of the picture, in the tile that has it farthest from its edges."""
    middle = (np.arange(plan.frame[dim]) + 0.5) * plan.picture[dim] / plan.frame[dim]
    starts = np.array([start for start, _ in found])
    place = starts[picks[0]] + picks[1]
    assert (np.abs(place + 0.5 - middle) <= 0.5 + 1e-6).all()
    assert (picks[1] >= 0).all()
    assert (picks[1] < plan.tile[dim]).all()
    for u in np.linspace(0, plan.frame[dim] - 1, 9).astype(int):
        depth = [
            min(
                place[u] - start if k else 1 << 20,
                stop - 1 - place[u] if k < len(found) - 1 else 1 << 20,
            )
            for k, (start, stop) in enumerate(found)
        ]
        # Weights are compared cell by cell, so the deepest may lose by up to a cell and a rounding.
        assert depth[picks[0, u]] >= max(depth) - 2 * STRIDE or len(found) > 2


@settings(max_examples=100, deadline=None)
@given(frame=FRAMES, tile=TILES)
def test_fit(frame: tuple[int, int], tile: tuple[int, int]) -> None:
    plan = plan_tiles(frame, tile)
    assert plan.count == 1
    assert any(have == want for have, want in zip(plan.picture, tile, strict=True))
    assert all(have <= want for have, want in zip(plan.picture, tile, strict=True))
    factor = min(tile[0] / frame[0], tile[1] / frame[1])
    for dim in range(2):
        assert abs(plan.picture[dim] - frame[dim] * factor) <= 0.5 or plan.picture[dim] == 1
        before, after = -plan.origins[0, dim], tile[dim] - plan.picture[dim] + plan.origins[0, dim]
        assert 0 <= after - before < 2 * STRIDE  # in the middle, as near as steps of 4 allow
    check_axes(plan)


@settings(max_examples=150, deadline=None)
@given(
    frame=FRAMES,
    tile=TILES,
    overlap=st.floats(0, 0.95),
    scale=st.sampled_from([1.0, 0.5, 2.0, 1.37]),
)
def test_cover(frame: tuple[int, int], tile: tuple[int, int], overlap: float, scale: float) -> None:
    try:
        plan = plan_tiles(frame, tile, mode="cover", overlap=overlap, scale=scale)
    except UsageError as error:
        assert "lower --overlap or --scale" in str(error)  # noqa: PT017 - either is right
        return
    assert plan.picture == tuple(max(1, int(side * scale + 0.5)) for side in frame)
    assert (plan.resizing is None) == (plan.picture == frame)
    if plan.resizing:
        assert tuple(taps.source for taps in plan.resizing) == frame
        assert tuple(taps.target for taps in plan.resizing) == plan.picture
    for dim in range(2):
        found = spans(plan, dim)
        shared = [before[1] - after[0] for before, after in pairwise(found)]
        wanted = min(overlap * tile[dim], tile[dim] - STRIDE)
        assert all(have >= wanted for have in shared)
        assert max(shared, default=0) - min(shared, default=0) <= STRIDE  # evenly spread
        assert found[-1][1] - plan.picture[dim] < max(STRIDE, tile[dim] - plan.picture[dim] + 1)
        if len(found) > 1:  # one tile less would not overlap enough
            step = tile[dim] - STRIDE * int(np.ceil(overlap * tile[dim] / STRIDE))
            step = max(step, STRIDE)
            assert (len(found) - 2) * step + tile[dim] < plan.picture[dim] + STRIDE
    check_axes(plan)


@settings(max_examples=60, deadline=None)
@given(frame=FRAMES, tile=TILES, overlap=st.floats(0, 0.9))
def test_weights_sum_to_one_and_fall_towards_the_edges(
    frame: tuple[int, int], tile: tuple[int, int], overlap: float
) -> None:
    try:
        plan = plan_tiles(frame, tile, mode="cover", overlap=overlap)
    except UsageError:
        return
    for axis in (plan.rows, plan.cols):
        total, covering = np.zeros(axis.extent), np.zeros(axis.extent, int)
        for origin, weights in zip(axis.origins, axis.weights, strict=True):
            total[origin : origin + axis.size] += weights
            covering[origin : origin + axis.size] += 1
        np.testing.assert_allclose(total, 1, atol=1e-6)
        for origin, weights in zip(axis.origins, axis.weights, strict=True):
            assert (weights > 0).all()
            alone = covering[origin : origin + axis.size] == 1
            assert (weights[alone] == 1).all()
            if covering.max() <= 2:
                steps = np.sign(np.diff(weights.astype(np.float64)).round(6))
                moves = steps[steps != 0]
                assert (np.diff(moves) <= 0).all()  # up to the middle, then down


def test_two_tiles_cross_fade_linearly() -> None:
    plan = plan_tiles((16, 48), (16, 32), mode="cover", overlap=0.5)
    np.testing.assert_allclose(
        plan.cols.weights,
        [
            [1, 1, 1, 1, 7 / 8, 5 / 8, 3 / 8, 1 / 8],
            [1 / 8, 3 / 8, 5 / 8, 7 / 8, 1, 1, 1, 1],
        ],
    )
    assert plan.origins.tolist() == [[0, 0], [0, 16]]


def test_a_frame_of_the_tiles_size_is_taken_as_it_is() -> None:
    for mode in ("fit", "cover"):
        plan = plan_tiles((64, 128), (64, 128), mode=mode)
        assert plan.resizing is None
        assert plan.origins.tolist() == [[0, 0]]
        want = upsample_axis(16)
        np.testing.assert_array_equal(plan.rows.cells, want.cells)
        np.testing.assert_array_equal(plan.rows.fractions, want.fractions)


def test_full_hd_by_a_half_size_engine() -> None:
    """The numbers a reader can check by hand."""
    fit = plan_tiles((1080, 1920), (512, 1024))
    assert (fit.picture, fit.origins.tolist()) == ((512, 910), [[0, -56]])
    cover = plan_tiles((1080, 1920), (512, 1024), mode="cover", overlap=0.25)
    assert cover.picture == (1080, 1920)
    assert sorted(set(cover.origins[:, 0].tolist())) == [0, 284, 568]
    assert sorted(set(cover.origins[:, 1].tolist())) == [0, 448, 896]


def test_patch_edges_in_the_frames_pixels() -> None:
    plan = plan_tiles((1024, 2048), (512, 1024))
    rows, cols = plan.patch_edges((256, 256))
    assert rows.tolist() == [512]
    assert cols.tolist() == [512, 1024, 1536]
    cover = plan_tiles((16, 48), (16, 32), mode="cover", overlap=0.5)
    rows, cols = cover.patch_edges((16, 16))
    assert (rows.tolist(), cols.tolist()) == ([], [16, 32])
    with pytest.raises(ValueError, match="no edges"):
        cover.patch_edges((0, 16))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "stretch"}, "--tiles stretch"),
        ({"mode": "cover", "overlap": 1.0}, "--overlap 1.0"),
        ({"mode": "cover", "overlap": -0.1}, "--overlap -0.1"),
        ({"mode": "cover", "overlap": float("nan")}, "--overlap nan"),
        ({"mode": "cover", "scale": 0.0}, "--scale 0.0"),
        ({"mode": "cover", "scale": float("inf")}, "--scale inf"),
        ({"mode": "cover", "scale": 17.0}, "--scale 17.0"),
        ({"mode": "fit", "scale": 2.0}, "--scale needs --tiles cover"),
        ({"mode": "cover", "overlap": 0.99}, "lower --overlap or --scale"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan_tiles((3000, 5000), (64, 64), **options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("frame", "tile"),
    [((0, 5), (64, 64)), ((5, 70_000), (64, 64)), ((5, 5), (66, 64)), ((5, 5), (0, 64))],
)
def test_sizes_that_cannot_be(frame: tuple[int, int], tile: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"cannot be tiled|multiple of 4"):
        plan_tiles(frame, tile)


def test_a_scale_that_makes_too_large_a_picture() -> None:
    with pytest.raises(UsageError, match="the longest side may have"):
        plan_tiles((9000, 9000), (512, 1024), mode="cover", scale=16.0)
