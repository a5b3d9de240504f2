"""The curve of a run: loss of every step, and mIoU wherever it was validated."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.artifact import write_whole

SMOOTHING = 50
"""Steps over which the drawn loss is averaged."""


def smoothed(values: npt.NDArray[np.float64], window: int) -> npt.NDArray[np.float64]:
    """Mean over the last ``window`` values, or as many as there are, at every place."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts), np.float64)


def draw_curve(
    losses: Sequence[float], scores: Sequence[tuple[int, float]], title: str, path: Path
) -> bool:
    """Write an SVG; ``False`` when matplotlib is not installed, which is no reason to stop a run.

    Args:
        losses: of step 1, 2, ...
        scores: (step, mIoU in points).
        title: above the picture.
        path: of the SVG.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return False
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.add_subplot()
    steps = np.arange(1, len(losses) + 1)
    values = np.asarray(losses, np.float64)
    axes.plot(steps, values, color="#c9d3df", linewidth=0.6)
    axes.plot(steps, smoothed(values, SMOOTHING), color="#35597f", linewidth=1.4, label="loss")
    axes.set(xlabel="step", ylabel="loss", title=title, xlim=(0, max(len(losses), 1)))
    if scores:
        right = axes.twinx()
        at, miou = zip(*scores, strict=True)
        right.plot(at, miou, color="#b8452a", marker="o", markersize=3, linewidth=1.2)
        right.set_ylabel("val mIoU, points", color="#b8452a")
        right.set_ylim(bottom=0)
    axes.spines["top"].set_visible(False)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    write_whole(path, text.getvalue().encode())
    return True
