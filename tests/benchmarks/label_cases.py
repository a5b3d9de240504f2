"""From logits to labels: one tile, one fitted tile, many tiles; each done in three ways."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from pipeline import kernels
from pipeline.tiles import TilePlan, plan_tiles
from tests.benchmarks.kernel_case import CLASSES, TILE, Array, Case, Way, logits_of
from tests.pipeline.kernels.axes import upsample_axis


def running_maximum(planes: Array, size: tuple[int, int]) -> Callable[[], Array]:
    """Resize class by class and keep the greatest: full-resolution logits, one plane at a time."""
    value, best = np.empty(size, np.float32), np.empty(size, np.float32)
    mask, named, labels = (np.empty(size, np.uint8) for _ in range(3))

    def run() -> Array:
        labels[...] = 0
        cv2.resize(planes[0], size[::-1], dst=best, interpolation=cv2.INTER_LINEAR)
        for label in range(1, len(planes)):
            cv2.resize(planes[label], size[::-1], dst=value, interpolation=cv2.INTER_LINEAR)
            cv2.compare(value, best, cv2.CMP_GT, dst=mask)
            cv2.max(value, best, dst=best)
            cv2.bitwise_and(mask, label, dst=named)
            cv2.max(labels, named, dst=labels)  # labels ascend, so the last winner is the greatest
        return labels

    return run


def resize_and_argmax(planes: Array, size: tuple[int, int]) -> Callable[[], Array]:
    """What is written most: channels last, one resize, ``argmax``."""

    def run() -> Array:
        full = cv2.resize(planes.transpose(1, 2, 0), size[::-1], interpolation=cv2.INTER_LINEAR)
        labels: Array = full.argmax(axis=2).astype(np.uint8)
        return labels

    return run


def single_tile(labels: Array, logits: Array, threads: int) -> Case:
    rows, cols = (upsample_axis(n) for n in logits.shape[1:])
    out = np.empty(labels.shape, np.uint8)

    def ours() -> Array:
        kernels.blend_argmax(logits[None], rows, cols, out, threads=threads)
        return out

    size = (labels.shape[0], labels.shape[1])
    return Case(
        "blend_argmax",
        f"one tile, x4 to {size[0]}x{size[1]}",
        (
            Way("ours", "fused", ours),
            Way("users", "resize + argmax", resize_and_argmax(logits, size), exact=False),
            Way("opencv", "running maximum", running_maximum(logits, size), exact=False),
        ),
    )


def cut_planes(plan: TilePlan, whole: Array) -> Array:
    """The tiles' logits, out of logits of the whole picture (edges repeated)."""
    height, width = plan.rows.extent, plan.cols.extent
    margins = ((0, 0), (0, height - whole.shape[1]), (0, width - whole.shape[2]))
    grid = np.pad(whole, margins, mode="edge")
    tiles = [
        grid[:, y : y + plan.rows.size, x : x + plan.cols.size]
        for y in plan.rows.origins
        for x in plan.cols.origins
    ]
    return np.ascontiguousarray(np.stack(tiles))


def many_tiles(labels: Array, logits: Array, threads: int) -> Case:
    size = (labels.shape[0], labels.shape[1])
    plan = plan_tiles(size, TILE, mode="cover")
    tiles = cut_planes(plan, logits)
    tiles += np.random.default_rng(3).standard_normal(tiles.shape).astype(np.float32) * 0.05
    out = np.empty(size, np.uint8)
    height, width = plan.rows.extent, plan.cols.extent
    places = [
        (tiles[i * plan.cols.tiles + j], y, x, plan.rows.weights[i][:, None] * plan.cols.weights[j])
        for i, y in enumerate(plan.rows.origins.tolist())
        for j, x in enumerate(plan.cols.origins.tolist())
    ]
    large = [cv2.resize(weight, TILE[::-1]) for *_, weight in places]

    def ours() -> Array:
        kernels.blend_argmax(tiles, plan.rows, plan.cols, out, threads=threads)
        return out

    def users() -> Array:
        """Enlarge each tile's logits, add them up at full resolution, divide, argmax."""
        total = np.zeros((CLASSES, 4 * height, 4 * width), np.float32)
        for (tile, y, x, _), weight in zip(places, large, strict=True):
            full = cv2.resize(tile.transpose(1, 2, 0), TILE[::-1]).transpose(2, 0, 1)
            window = total[:, 4 * y : 4 * y + TILE[0], 4 * x : 4 * x + TILE[1]]
            window += full * weight
        labels: Array = total[:, : size[0], : size[1]].argmax(axis=0).astype(np.uint8)
        return labels

    grid = np.empty((CLASSES, height, width), np.float32)
    term = np.empty((plan.rows.size, plan.cols.size), np.float32)
    maximum = running_maximum(grid, (4 * height, 4 * width))

    def opencv() -> Array:
        """Blend at stride 4, then the running maximum."""
        grid[...] = 0
        for tile, y, x, weight in places:
            for label in range(CLASSES):
                window = grid[label, y : y + plan.rows.size, x : x + plan.cols.size]
                cv2.multiply(tile[label], weight, dst=term)
                cv2.add(window, term, dst=window)
        return maximum()[: size[0], : size[1]]

    return Case(
        "blend_argmax",
        f"{plan.count} tiles to {size[0]}x{size[1]}",
        (
            Way("ours", "fused", ours),
            Way("users", "full-resolution sum", users, exact=False),
            Way("opencv", "stride-4 sum + running maximum", opencv, exact=False),
        ),
    )


def fitted_tile(labels: Array, threads: int, *, noise: bool) -> Case:
    size = (labels.shape[0], labels.shape[1])
    plan = plan_tiles(size, TILE)
    small = cv2.resize(labels, plan.picture[::-1], interpolation=cv2.INTER_NEAREST)
    top, left = -plan.origins[0]
    below, right = TILE[0] - plan.picture[0] - top, TILE[1] - plan.picture[1] - left
    logits = logits_of(cv2.copyMakeBorder(small, top, below, left, right, 4), noise=noise)
    out = np.empty(size, np.uint8)

    def ours() -> Array:
        kernels.blend_argmax(logits[None], plan.rows, plan.cols, out, threads=threads)
        return out

    # Both compositions sample the picture's own cells, as nearly as whole cells allow.
    inner = logits[:, top // 4 : -(-(top + plan.picture[0]) // 4)]
    inner = np.ascontiguousarray(inner[:, :, left // 4 : -(-(left + plan.picture[1]) // 4)])
    return Case(
        "blend_argmax",
        f"one fitted tile to {size[0]}x{size[1]}",
        (
            Way("ours", "fused", ours),
            Way("users", "crop + resize + argmax", resize_and_argmax(inner, size), exact=False),
            Way("opencv", "crop + running maximum", running_maximum(inner, size), exact=False),
        ),
    )
