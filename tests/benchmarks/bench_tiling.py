"""What overlap between tiles buys, and what it costs: mIoU against frames a second.

    python tests/benchmarks/bench_tiling.py --engine FILE.xml --dataset ROOT [--upscale 2]

Every frame of the split is enlarged by ``--upscale``, fitted into one tile, then covered with
tiles at each overlap. Labels are compared at the enlarged size. ``seams`` is the mIoU of the pixels
within 16 of a line where two tiles' shares meet without overlap; what overlap should mend. Frames
a second are of ``FrameSegmenter`` alone, one frame at a time; ratios to ``fit`` within one run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from calibration.cityscapes import CLASS_NAMES, IGNORE, Cityscapes
from pipeline.engines.opening import open_engine
from pipeline.inference import FrameSegmenter
from pipeline.kernels import confusion
from pipeline.report.metrics import class_iou, mean_over_classes

CLASSES = len(CLASS_NAMES)
SEAM = 16
Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Row:
    """One way to tile."""

    tiles: str
    overlap: float
    count: int
    miou: float
    seams: float
    fps: float


def main() -> None:
    """Parse, measure, print a table and, with ``--json``, one object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", type=Path, required=True)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--limit", type=int, default=0, help="frames (default: all)")
    parser.add_argument("--upscale", type=float, default=2.0)
    parser.add_argument("--overlaps", type=float, nargs="+", default=[0, 0.125, 0.25, 0.375, 0.5])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    dataset = Cityscapes(options.dataset)
    pairs = list(dataset.frames(options.split))
    if options.limit:
        picks = np.unique(np.linspace(0, len(pairs) - 1, options.limit).astype(int))
        pairs = [pairs[i] for i in picks]
    with open_engine(options.engine) as engine:
        ways = [FrameSegmenter(engine, tiles="fit")]
        ways += [FrameSegmenter(engine, tiles="cover", overlap=o) for o in options.overlaps]
        frames = (enlarge(*dataset.read(pair), options.upscale) for pair in pairs)
        rows = measure(ways, [0.0, *options.overlaps], frames)
    print("| tiles | overlap | tiles a frame | mIoU | mIoU at seams | frames/s | of `fit` |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row.tiles} | {row.overlap:g} | {row.count} | {row.miou:.2f} | {row.seams:.2f} "
            f"| {row.fps:.1f} | {row.fps / rows[0].fps:.2f} |"
        )
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


def enlarge(
    image: npt.NDArray[np.uint8], labels: Labels, factor: float
) -> tuple[npt.NDArray[np.uint8], Labels]:
    """The frame and its labels, ``factor`` times larger."""
    size = round(image.shape[1] * factor), round(image.shape[0] * factor)
    picture = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    truth = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    return np.asarray(picture, np.uint8), np.asarray(truth, np.uint8)


def measure(
    ways: list[FrameSegmenter], overlaps: list[float],
    frames: Iterable[tuple[npt.NDArray[np.uint8], Labels]],
) -> list[Row]:  # fmt: skip
    """All ways on every frame in turn, so that whatever the machine does hits all of them."""
    whole = np.zeros((len(ways), CLASSES, CLASSES), np.int64)
    near = np.zeros_like(whole)
    spent = np.zeros(len(ways))
    number, shape = 0, (0, 0)
    for image, truth in frames:
        shape = truth.shape[0], truth.shape[1]
        seams = seam_mask(shape, ways[1])
        for i, way in enumerate(ways):
            if not number:
                way.segment(image)
            begin = perf_counter()
            labels = way.segment(image)
            spent[i] += perf_counter() - begin
            confusion(truth, labels, whole[i])
            confusion(np.where(seams, truth, IGNORE).astype(np.uint8), labels, near[i])
        number += 1
    return [
        Row(
            "cover" if i else "fit", overlaps[i], way.plan(*shape).count,
            float(mean_over_classes(class_iou(whole[i]))),
            float(mean_over_classes(class_iou(near[i]))),
            number / spent[i],
        )
        for i, way in enumerate(ways)
    ]  # fmt: skip


def seam_mask(shape: tuple[int, int], barely: FrameSegmenter) -> npt.NDArray[np.bool_]:
    """Pixels near the edges of the tiles of the plan with the least overlap."""
    mask = np.zeros(shape, bool)
    height, width = barely.tile
    for top in range(height, shape[0], height):
        mask[max(0, top - SEAM) : top + SEAM] = True
    for left in range(width, shape[1], width):
        mask[:, max(0, left - SEAM) : left + SEAM] = True
    return mask


if __name__ == "__main__":
    main()
