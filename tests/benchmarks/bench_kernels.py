"""The kernels against the way users write it and against the best composition of OpenCV calls.

    python tests/benchmarks/bench_kernels.py [--threads N] [--rounds N] [--noise] [--json FILE]

Every way is first checked to give the same result (but for rounding), then all ways of a case are
timed in turn, round after round, so that what slows the machine down for a while slows all of
them. A time is the median of its rounds; a ratio is between medians of one run. Every way, OpenCV's
included, writes into memory it allocated beforehand where its calls allow that, and may use
``--threads`` threads. Labels are a street's; logits are those labels at stride 4, blurred, with
noise. ``--noise`` takes white noise for both: no two neighbours agree, the kernels' worst case.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from calibration.cityscapes import PALETTE_RGB, label_ids_to_train_ids
from calibration.streets import StreetScene
from pipeline import kernels
from pipeline.kernels import dispatch
from pipeline.tiles import TilePlan, plan_tiles

Array = npt.NDArray[Any]
CLASSES = 19
TILE = (512, 1024)


@dataclass(frozen=True)
class Way:
    """One way to do a case's work: whose it is, how it goes, and what came out."""

    whose: str
    name: str
    run: Callable[[], Array]
    exact: bool = True


@dataclass(frozen=True)
class Case:
    """Ways that give the same result; the first is ours."""

    kernel: str
    what: str
    ways: tuple[Way, ...]


def labels_of(height: int, width: int, *, noise: bool) -> Array:
    """(H, W) uint8 train ids 0 .. 18."""
    if noise:
        return np.random.default_rng(1).integers(0, CLASSES, (height, width), np.uint8)
    labels = label_ids_to_train_ids(StreetScene(7, height, width).render(0).labels)
    return np.where(labels < CLASSES, labels, 0).astype(np.uint8)


def noise_frame(height: int, width: int) -> Array:
    """(H, W, 3) uint8: what a frame shows changes no kernel's time."""
    return np.random.default_rng(4).integers(0, 256, (height, width, 3), np.uint8)


def logits_of(labels: Array, *, noise: bool) -> Array:
    """(19, H/4, W/4) float32: each label's share of 4x4 pixels, blurred, times 8, plus noise."""
    rng = np.random.default_rng(2)
    height, width = labels.shape[0] // 4, labels.shape[1] // 4
    logits = rng.standard_normal((CLASSES, height, width)).astype(np.float32)
    if noise:
        return logits
    for label in range(CLASSES):
        share = cv2.resize((labels == label).astype(np.float32), (width, height), interpolation=3)
        logits[label] = 8 * cv2.GaussianBlur(share, (0, 0), 1.0) + 0.3 * logits[label]
    return logits


# --- logits to labels ------------------------------------------------------------------------


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
    rows, cols = (kernels.upsample_axis(n) for n in logits.shape[1:])
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


# --- the others ------------------------------------------------------------------------------


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

    return Case(
        "cut_tiles",
        f"{size[0]}x{size[1]} to {plan.count} tiles",
        (
            Way("ours", "one pass", ours),
            Way("users", "np.pad + np.stack + copy", users),
            Way("opencv", "copyMakeBorder + copies", opencv),
            Way("opencv", "copyMakeBorder tile by tile", single_pass),
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


# --- measuring -------------------------------------------------------------------------------


def cases(threads: int, *, noise: bool) -> Iterator[Case]:
    for height, width in (TILE, (1080, 1920)):
        labels = labels_of(height, width, noise=noise)
        frame = noise_frame(height, width)
        logits = logits_of(labels, noise=noise)
        if (height, width) == TILE:
            yield single_tile(labels, logits, threads)
            yield padding(frame, threads)
            yield fitting(noise_frame(720, 960), threads)
            yield fitting(noise_frame(1024, 2048), threads)
        else:
            yield fitted_tile(labels, threads, noise=noise)
            yield many_tiles(labels, logits, threads)
            yield cutting(frame, threads)
            yield fitting(frame, threads)
        yield painting(frame, labels, threads)
        yield counting(labels, threads)


def check(case: Case) -> None:
    """Refuse to time ways that do not do the same."""
    want = case.ways[0].run().astype(np.int64)
    for way in case.ways[1:]:
        got = way.run().astype(np.int64)
        if way.exact or case.kernel in ("overlay", "resize"):
            same = np.abs(got - want).max() <= (0 if way.exact else 1)
        else:
            # Rounding decides between near-equal classes. A crop to whole cells moves every
            # border a little, and white noise is nothing but borders: no bound would mean much.
            same = "crop" in way.name or (got != want).mean() < 0.01
        if not same:
            raise SystemExit(f"{case.kernel}, {case.what}: '{way.name}' gives something else")


def measure(case: Case, rounds: int) -> list[float]:
    """Median milliseconds of each way, taken in turn, each round beginning with another."""
    times: list[list[float]] = [[] for _ in case.ways]
    for turn in range(rounds):
        for step in range(len(case.ways)):
            index = (turn + step) % len(case.ways)
            begin = perf_counter()
            case.ways[index].run()
            times[index].append((perf_counter() - begin) * 1e3)
    return [statistics.median(each) for each in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, help="for every way (%(default)s)")
    parser.add_argument("--rounds", type=int, default=15, help="times each way (%(default)s)")
    parser.add_argument("--noise", action="store_true", help="the kernels' worst case")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    cv2.setNumThreads(options.threads)
    mode = dispatch.active().mode
    show = sys.stdout.write
    show(f"kernels {mode}, OpenCV {cv2.__version__}, threads {options.threads}\n")
    show(f"{'kernel':13} {'case':29} {'ours ms':>8}  {'others':46} {'ms':>8} {'ratio':>7}\n")
    rows = []
    for case in cases(options.threads, noise=options.noise):
        check(case)
        medians = measure(case, options.rounds)
        for way, median in zip(case.ways[1:], medians[1:], strict=True):
            ratio = median / medians[0]
            head = f"{case.kernel:13} {case.what:29} {medians[0]:8.2f}"
            show(f"{head}  {way.whose + ': ' + way.name:46} {median:8.2f} {ratio:6.1f}x\n")
            rows.append(
                {
                    "kernel": case.kernel,
                    "case": case.what,
                    "ours_ms": medians[0],
                    "whose": way.whose,
                    "way": way.name,
                    "ms": median,
                    "ratio": ratio,
                }
            )
    if options.json:
        report = {"mode": mode, "threads": options.threads, "noise": options.noise, "rows": rows}
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
