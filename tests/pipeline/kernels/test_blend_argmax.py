from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels import NO_CLASS, Axis, blend_argmax, reference
from tests.pipeline.kernels.axes import upsample_axis

Floats = npt.NDArray[np.float32]
WILD = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-42, 3e38, -3e38], np.float32)


def plain_axis(cells: int, samples: int, shift: float = 0.0) -> Axis:
    """One tile of weight one, sampled at any scale: half-pixel positions, moved by ``shift``."""
    at = (np.arange(samples) + 0.5) * cells / samples - 0.5 + shift
    return sampled_axis(cells, np.zeros(1, np.int32), np.ones((1, cells)), at)


def sampled_axis(
    size: int, origins: npt.NDArray[Any], weights: npt.NDArray[Any], at: npt.NDArray[Any]
) -> Axis:
    """An axis whose samples lie at these places of the grid."""
    at = np.clip(at, -1, int(origins[-1]) + size)
    cells = np.clip(np.floor(at) + 1, 0, int(origins[-1]) + size)
    fractions = np.clip(at + 1 - cells, 0, 1)
    return Axis(
        size,
        origins.astype(np.int32),
        weights.astype(np.float32),
        cells.astype(np.int32),
        fractions.astype(np.float32),
    )


def random_axis(rng: np.random.Generator) -> Axis:
    """Tiles with any overlap and weights, sampled at any scale and shift."""
    tiles, size = int(rng.integers(1, 4)), int(rng.integers(1, 20))
    origins = np.concatenate([[0], np.cumsum(rng.integers(0, size + 1, tiles - 1))])
    extent = int(origins[-1]) + size
    raw = rng.uniform(0.05, 1, (tiles, size))
    total = np.zeros(extent)
    for origin, weight in zip(origins, raw, strict=True):
        total[origin : origin + size] += weight
    for origin, weight in zip(origins, raw, strict=True):
        weight /= total[origin : origin + size]
    samples = 4 * extent if rng.random() < 0.4 else int(rng.integers(1, 11 * extent))
    at = (np.arange(samples) + 0.5) * extent / samples - 0.5 + rng.choice([0.0, 0.3, -0.7])
    return sampled_axis(size, origins, raw, at)


def logits(rng: np.random.Generator, shape: tuple[int, ...], *, wild: bool = False) -> Floats:
    """Smooth fields, as a network's are, or hostile ones: ties, NaN, infinities, the largest."""
    values = rng.standard_normal(shape).astype(np.float32)
    if len(shape) == 4 and rng.random() < 0.7:
        values = np.cumsum(values, axis=-1, dtype=np.float32) * np.float32(0.1)
    if wild:
        tied = rng.random(shape) < 0.3
        values[tied] = np.round(values[tied])
        chosen = rng.random(shape) < 0.1
        values[chosen] = rng.choice(WILD, int(chosen.sum()))
    return values


def sampled(tiles: Floats, rows: Axis, cols: Axis) -> npt.NDArray[np.float64]:
    """The values of all classes at all pixels, in double precision, from the axes' definition."""
    grid = np.zeros((tiles.shape[1], rows.extent, cols.extent))
    for index, tile in enumerate(tiles.astype(np.float64)):
        i, j = divmod(index, cols.tiles)
        y, x = rows.origins[i], cols.origins[j]
        window = grid[:, y : y + rows.size, x : x + cols.size]
        window += np.einsum("y,x,cyx->cyx", rows.weights[i], cols.weights[j], tile)
    for axis, dim in ((rows, 1), (cols, 2)):
        edged = np.concatenate([grid.take([0], dim), grid, grid.take([-1], dim)], dim)
        shape = [1, 1, 1]
        shape[dim] = -1
        fraction = axis.fractions.astype(np.float64).reshape(shape)
        before, after = edged.take(axis.cells, dim), edged.take(axis.cells + 1, dim)
        grid = before * (1 - fraction) + after * fraction
    return grid


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**9), offset=st.integers(0, 9), threads=st.integers(1, 4))
def test_the_greatest_value_wins(
    mode: str, guarded: Any, seed: int, offset: int, threads: int
) -> None:
    rng = np.random.default_rng(seed)
    rows, cols = random_axis(rng), random_axis(rng)
    classes = int(rng.integers(1, 24))
    tiles = logits(rng, (rows.tiles * cols.tiles, classes, rows.size, cols.size))
    out = guarded((rows.samples, cols.samples), offset)
    blend_argmax(tiles, rows, cols, out.array, threads=threads)
    values = sampled(tiles, rows, cols)
    got = np.take_along_axis(values, out.array[None].astype(np.int64), 0)[0]
    # Rounding in single precision may swap classes that are as close as this, and none further.
    slack = 8 * np.finfo(np.float32).eps * np.abs(values).max()
    assert (got >= values.max(axis=0) - slack).all()
    out.check()


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10**9), offset=st.integers(0, 3))
def test_every_mode_gives_the_reference_bytes(
    mode: str, guarded: Any, seed: int, offset: int
) -> None:
    """With NaN, infinities, ties, denormals; from unaligned inputs, which stay as they were."""
    rng = np.random.default_rng(seed)
    rows, cols = random_axis(rng), random_axis(rng)
    classes = int(rng.choice([1, 2, 19, 33, 255], p=[0.1, 0.2, 0.4, 0.2, 0.1]))
    shape = (rows.tiles * cols.tiles, classes, rows.size, cols.size)
    room = np.empty(int(np.prod(shape)) + offset, np.float32)
    tiles = room[offset:].reshape(shape)
    tiles[...] = logits(rng, shape, wild=True)
    before = tiles.copy()
    out = guarded((rows.samples, cols.samples))
    blend_argmax(tiles, rows, cols, out.array)
    want = np.empty_like(out.array)
    reference.blend_argmax(tiles, rows, cols, want)
    np.testing.assert_array_equal(out.array, want)
    out.check()
    np.testing.assert_array_equal(tiles, before)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (3, 8), (16, 31), (40, 64)])
@pytest.mark.parametrize("classes", [1, 2, 19])
def test_times_four_is_torchs_bilinear_and_argmax(
    mode: str, shape: tuple[int, int], classes: int
) -> None:
    rng = np.random.default_rng(3)
    tile = rng.standard_normal((1, classes, *shape)).astype(np.float32)
    up = torch.nn.functional.interpolate(
        torch.from_numpy(tile), scale_factor=4, mode="bilinear", align_corners=False
    )
    values = up[0].numpy()
    out = np.empty(values.shape[1:], np.uint8)
    blend_argmax(tile, upsample_axis(shape[0]), upsample_axis(shape[1]), out)
    differs = out != values.argmax(axis=0)
    if classes > 1:
        best = np.sort(values, axis=0)
        differs &= best[-1] - best[-2] > 4e-6
    assert not differs.any()


def test_any_size_is_torchs_bilinear_too(mode: str) -> None:
    rng = np.random.default_rng(4)
    tile = rng.standard_normal((1, 5, 9, 13)).astype(np.float32)
    for height, width in ((9, 13), (100, 17), (5, 130), (61, 59)):
        out = np.empty((height, width), np.uint8)
        blend_argmax(tile, plain_axis(9, height), plain_axis(13, width), out)
        up = torch.nn.functional.interpolate(
            torch.from_numpy(tile), size=(height, width), mode="bilinear", align_corners=False
        )
        best = np.sort(up[0].numpy(), axis=0)
        clear = best[-1] - best[-2] > 1e-5
        assert clear.mean() > 0.99
        np.testing.assert_array_equal(out[clear], up[0].numpy().argmax(axis=0)[clear])


def test_ties_go_to_the_first_class_and_nothing_to_nobody(mode: str) -> None:
    one = upsample_axis(1)
    cases: list[tuple[list[float], int]] = [
        ([1, 1, 1], 0),
        ([0, 2, 2], 1),
        ([np.nan, 0, -1], 1),
        ([np.nan, -np.inf, -3e38], 2),
        ([np.inf, np.inf, np.nan], 0),
        ([0, np.inf, 3e38], 1),
        ([-0.0, 0.0, -1], 0),
        ([np.nan, np.nan, np.nan], NO_CLASS),
        ([-np.inf, np.nan, -np.inf], NO_CLASS),
    ]
    for values, label in cases:
        tile = np.array(values, np.float32).reshape(1, -1, 1, 1)
        out = np.empty((4, 4), np.uint8)
        blend_argmax(tile, one, one, out)
        assert (out == label).all(), values


def test_a_nan_reaches_only_the_pixels_around_it(mode: str) -> None:
    tile = np.zeros((1, 2, 9, 9), np.float32)
    tile[0, 1] = 1
    tile[0, 1, 4, 4] = np.nan
    out = np.empty((36, 36), np.uint8)
    blend_argmax(tile, upsample_axis(9), upsample_axis(9), out)
    assert (out[14:22, 14:22] == 0).all()
    out[14:22, 14:22] = 1
    assert (out == 1).all()


def test_a_class_that_wins_no_corner_can_win_between_them(mode: str) -> None:
    """The shortcut for settled cells must not swallow it."""
    corners = np.array([[[4, 0], [0, 0]], [[0, 4], [4, 4]], [[3, 3], [3, 3]]], np.float32)
    out = np.empty((8, 8), np.uint8)
    blend_argmax(corners[None], upsample_axis(2), upsample_axis(2), out)
    assert set(np.unique(out)) == {0, 1, 2}


def test_threads_share_without_a_seam(mode: str) -> None:
    rng = np.random.default_rng(5)
    cells = 96 if mode != "reference" else 24
    tile = np.cumsum(rng.standard_normal((1, 19, cells, 2 * cells)), axis=2).astype(np.float32)
    for samples in (4 * cells, 11 * cells + 1):
        rows = plain_axis(cells, samples)
        cols = upsample_axis(2 * cells, 16)
        outs = [np.empty((rows.samples, cols.samples), np.uint8) for _ in range(2)]
        blend_argmax(tile, rows, cols, outs[0], threads=1)
        blend_argmax(tile, rows, cols, outs[1], threads=7)
        np.testing.assert_array_equal(outs[0], outs[1])


AXIS = upsample_axis(4)
TILES = np.zeros((1, 3, 4, 4), np.float32)
OUT = np.zeros((16, 16), np.uint8)


@pytest.mark.parametrize(
    ("tiles", "out", "error"),
    [
        (TILES.astype(np.float64), OUT, TypeError),
        (TILES.astype(np.float16), OUT, TypeError),
        ([TILES[0].tolist()], OUT, TypeError),
        (TILES[0], OUT, ValueError),
        (TILES[:, :, :3], OUT, ValueError),
        (np.zeros((2, 3, 4, 4), np.float32), OUT, ValueError),
        (np.zeros((1, 256, 4, 4), np.float32), OUT, ValueError),
        (np.zeros((1, 3, 4, 8), np.float32)[:, :, :, ::2], OUT, ValueError),
        (TILES[:, ::-1], OUT, ValueError),
        (TILES[:, :0], OUT, ValueError),
        (TILES.astype(">f4"), OUT, TypeError),
        (TILES, OUT.astype(np.int32), TypeError),
        (TILES, OUT[:, :8], ValueError),
        (TILES, np.zeros((16, 32), np.uint8)[:, ::2], ValueError),
        (TILES, np.broadcast_to(OUT, OUT.shape), ValueError),
    ],
)
def test_what_is_refused(mode: str, tiles: Any, out: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        blend_argmax(tiles, AXIS, AXIS, out)


def test_an_output_inside_an_input_is_refused(mode: str) -> None:
    room = np.zeros((1, 8, 4, 4), np.float32)
    out = room.view(np.uint8).reshape(-1)[:256].reshape(16, 16)
    with pytest.raises(ValueError, match="shares memory"):
        blend_argmax(room, AXIS, AXIS, out)
