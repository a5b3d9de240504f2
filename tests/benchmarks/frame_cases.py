"""Frames cut, resized, padded and painted over, and labels counted; each done in several ways."""

from __future__ import annotations

import cv2
import numpy as np

from calibration.cityscapes import PALETTE_RGB
from pipeline import kernels
from pipeline.tiles import plan_tiles
from tests.benchmarks.kernel_case import CLASSES, TILE, Array, Case, Way


def cutting(frame: Array, threads: int) -> Case:
    size = (frame.shape[0], frame.shape[1])
    plan = plan_tiles(size, TILE, mode="cover")
    over = [max(0, int(e)) for e in plan.origins.max(axis=0) + np.array(TILE) - np.array(size)]
    ours_out, cv_out = (np.empty((plan.count, *TILE, 3), np.uint8) for _ in range(2))
    places = [(int(y), int(x)) for y, x in plan.origins]

    def ours() -> Array:
        kernels.cut_tiles(frame, plan.origins, ours_out, threads=threads)
        return ours_out

    users_out = np.empty((plan.count, *TILE, 3), np.uint8)

    def users() -> Array:
        padded = np.pad(frame, ((0, over[0]), (0, over[1]), (0, 0)), mode="reflect")
        stacked = np.stack([padded[y : y + TILE[0], x : x + TILE[1]] for y, x in places])
        np.copyto(users_out, stacked)  # into the engine's buffer, where the others write at once
        return users_out

    padded = np.empty((size[0] + over[0], size[1] + over[1], 3), np.uint8)

    def opencv() -> Array:
        cv2.copyMakeBorder(frame, 0, over[0], 0, over[1], cv2.BORDER_REFLECT_101, dst=padded)
        for tile, (y, x) in zip(cv_out, places, strict=True):
            np.copyto(tile, padded[y : y + TILE[0], x : x + TILE[1]])
        return cv_out

    def single_pass() -> Array:
        for tile, (y, x) in zip(cv_out, places, strict=True):
            part = frame[y : y + TILE[0], x : x + TILE[1]]
            below, right = TILE[0] - part.shape[0], TILE[1] - part.shape[1]
            cv2.copyMakeBorder(part, 0, below, 0, right, cv2.BORDER_REFLECT_101, dst=tile)
        return cv_out

    whole = np.empty_like(ours_out)

    def limit() -> Array:
        np.copyto(whole, ours_out)
        return whole

    return Case(
        "cut_tiles",
        f"{size[0]}x{size[1]} to {plan.count} tiles",
        (
            Way("ours", "one pass", ours),
            Way("users", "np.pad + np.stack + copy", users),
            Way("opencv", "copyMakeBorder + copies", opencv),
            Way("opencv", "copyMakeBorder tile by tile", single_pass),
            Way("limit", "memcpy of the finished tiles", limit),
        ),
    )


def fitting(frame: Array, threads: int) -> Case:
    size = (frame.shape[0], frame.shape[1])
    target = plan_tiles(size, TILE).picture
    rows, cols = (kernels.resize_taps(s, t) for s, t in zip(size, target, strict=True))
    ours_out, cv_out = (np.empty((*target, 3), np.uint8) for _ in range(2))

    def ours() -> Array:
        kernels.resize(frame, rows, cols, ours_out, threads=threads)
        return ours_out

    def users() -> Array:
        small: Array = cv2.resize(frame, target[::-1], interpolation=cv2.INTER_AREA)
        return small

    def opencv() -> Array:
        cv2.resize(frame, target[::-1], dst=cv_out, interpolation=cv2.INTER_AREA)
        return cv_out

    return Case(
        "resize",
        f"{size[0]}x{size[1]} to {target[0]}x{target[1]}",
        (
            Way("ours", "separable", ours),
            Way("users", "INTER_AREA", users, exact=False),
            Way("opencv", "INTER_AREA, dst=", opencv, exact=False),
        ),
    )


def padding(frame: Array, threads: int) -> Case:
    """One tile around a picture that fills its height but not its width."""
    inner = np.ascontiguousarray(frame[: TILE[0], :910])
    left = 56
    origins = np.array([[0, -left]], np.int32)
    ours_out, users_out, cv_out = (np.empty((1, *TILE, 3), np.uint8) for _ in range(3))
    sides = (left, TILE[1] - inner.shape[1] - left)

    def ours() -> Array:
        kernels.cut_tiles(inner, origins, ours_out, threads=threads)
        return ours_out

    def users() -> Array:
        np.copyto(users_out[0], np.pad(inner, ((0, 0), sides, (0, 0)), mode="reflect"))
        return users_out

    def opencv() -> Array:
        cv2.copyMakeBorder(inner, 0, 0, *sides, cv2.BORDER_REFLECT_101, dst=cv_out[0])
        return cv_out

    return Case(
        "cut_tiles",
        f"{inner.shape[0]}x{inner.shape[1]} into one tile",
        (
            Way("ours", "one pass", ours),
            Way("users", "np.pad + copy", users),
            Way("opencv", "copyMakeBorder", opencv),
        ),
    )


def painting(frame: Array, labels: Array, threads: int) -> Case:
    palette = np.ascontiguousarray(PALETTE_RGB[:CLASSES, ::-1])
    colours = kernels.Colours(palette, 0.5)
    ours_out, colour, cv_out = (np.empty_like(frame) for _ in range(3))
    table = np.zeros((256, 1, 3), np.uint8)
    table[:CLASSES, 0] = palette
    mask = np.empty(labels.shape, np.uint8)
    labels = labels.copy()
    labels[:20] = 255  # a strip to be left alone

    def ours() -> Array:
        return kernels.overlay(frame, labels, colours, ours_out, threads=threads)

    def users() -> Array:
        full = table[:, 0][labels]
        mixed = (0.5 * frame + 0.5 * full).astype(np.uint8)
        return np.where((labels != 255)[..., None], mixed, frame)

    def opencv() -> Array:
        cv2.applyColorMap(labels, table, dst=colour)
        cv2.addWeighted(frame, 0.5, colour, 0.5, 0, dst=cv_out)
        cv2.compare(labels, 255, cv2.CMP_EQ, dst=mask)
        cv2.copyTo(frame, mask, cv_out)
        return cv_out

    return Case(
        "overlay",
        f"{frame.shape[0]}x{frame.shape[1]}",
        (
            Way("ours", "fused", ours),
            Way("users", "palette[labels], float mixture", users, exact=False),
            Way("opencv", "applyColorMap + addWeighted + copyTo", opencv, exact=False),
        ),
    )


def counting(labels: Array, threads: int) -> Case:
    truth, prediction = labels.copy(), np.roll(labels, (2, 3), axis=(0, 1))
    truth[:20] = 255
    matrix = np.zeros((CLASSES, CLASSES), np.int64)

    def ours() -> Array:
        matrix[...] = 0
        kernels.confusion(truth, prediction, matrix, threads=threads)
        return matrix

    def users() -> Array:
        kept = truth != 255
        index = CLASSES * truth[kept].astype(np.int64) + prediction[kept]
        return np.bincount(index, minlength=CLASSES**2).reshape(CLASSES, CLASSES)

    def opencv() -> Array:
        """Counts in float32, so exact only below 2^24 pixels; ignored pixels fall out of range."""
        sides, ranges = [CLASSES] * 2, [0, CLASSES, 0, CLASSES]
        counts: Array = cv2.calcHist([truth, prediction], [0, 1], None, sides, ranges)
        return counts

    return Case(
        "confusion",
        f"{labels.shape[0]}x{labels.shape[1]}",
        (
            Way("ours", "runs", ours),
            Way("users", "np.bincount", users),
            Way("opencv", "calcHist", opencv),
        ),
    )
