"""Appendix A of the RepMLPNet paper: what one output point's FC weights look like, as a picture.

The FC kernel of a block is reshaped into W(S, h, w, 1, h, w). The weights of one output point
(s, y, x), that is W[s, y, x, 0, :, :], are shown as

    log10(|W[s, y, x, 0]| / min |W|)            the minimum over the whole kernel, all S h w h w

once for the kernel as trained and once with the parallel convolutions merged into it. Darker is
more related. The point is marked, and the window of the largest convolution around it; dashed in
red are the strongest weights outside the window that beat a weight inside: what the injected
kernel still sees far away.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import MissingDependencyError, UsageError
from pipeline.publish import write_output

FAR_MARKS = 6
"""Weights outside the window that are marked, at most."""

Weights = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class LocalityView:
    """One output point's weights in one kernel.

    Attributes:
        relation: (h, w) float64, see the module; 0 for the smallest weight of the kernel.
        inside: share of the point's absolute weight inside the window, in points.
        contrast: mean absolute weight inside the window over that outside; NaN without an outside.
    """

    relation: npt.NDArray[np.float64]
    inside: float
    contrast: float


def window(point: tuple[int, int], size: int, shape: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of a ``size`` x ``size`` kernel around a point, cut off at the patch."""
    half = size // 2
    rows, cols = (
        slice(max(0, place - half), min(side, place + half + 1))
        for place, side in zip(point, shape, strict=True)
    )
    return rows, cols


def view(
    kernel: Weights, shape: tuple[int, int], point: tuple[int, int], size: int, share_set: int = 0
) -> LocalityView:
    """Look at one output point.

    Args:
        kernel: (S, h*w, h*w), output by input.
        shape: (h, w) of the patch.
        point: (row, column) of the output point, from 0.
        size: of the largest convolution, odd; 0 for none.
        share_set: s, from 0.

    Raises:
        UsageError: no such point or set.
        ValueError: a kernel of another shape, or of nothing but zeros.
    """
    height, width = shape
    sets = len(kernel)
    if kernel.shape != (sets, height * width, height * width):
        raise ValueError(f"a kernel of {kernel.shape} is not one of {height}x{width} patches")
    if not (0 <= point[0] < height and 0 <= point[1] < width):
        raise UsageError(
            f"--point {point[0] + 1},{point[1] + 1} is outside the patch: rows go from 1 to "
            f"{height}, columns from 1 to {width}"
        )
    if not 0 <= share_set < sets:
        raise UsageError(f"--set {share_set + 1}: this block has sets 1 to {sets}")
    magnitude = np.abs(np.asarray(kernel, np.float64))
    if not magnitude.any():
        raise ValueError("the kernel holds nothing but zeros")
    # A weight that is exactly 0 has no logarithm; it is shown like the smallest that has one.
    least = magnitude[magnitude > 0].min()
    w = magnitude.reshape(sets, height, width, 1, height, width)
    row = w[share_set, point[0], point[1], 0]
    near = np.zeros(shape, bool)
    near[window(point, size, shape)] = True
    outside = row[~near]
    return LocalityView(
        relation=np.log10(np.maximum(row, least) / least),
        inside=100.0 * float(row[near].sum() / row.sum()) if row.any() else 0.0,
        contrast=float(row[near].mean() / outside.mean()) if outside.any() else float("nan"),
    )


def far_points(
    relation: npt.NDArray[np.float64], point: tuple[int, int], size: int
) -> list[tuple[int, int]]:
    """Positions outside the window whose weight beats the smallest inside, strongest first."""
    rows, cols = window(point, size, (relation.shape[0], relation.shape[1]))
    outside = relation.copy()
    outside[rows, cols] = -np.inf
    order = np.argsort(-outside, axis=None, kind="stable")[:FAR_MARKS]
    found = [divmod(int(place), relation.shape[1]) for place in order]
    return [place for place in found if outside[place] > relation[rows, cols].min()]


def draw(
    before: LocalityView, after: LocalityView, point: tuple[int, int], size: int, title: str,
    path: Path,
) -> None:  # fmt: skip
    """Write the two views side by side, on one scale, as PNG, SVG or PDF by the file's ending.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        UsageError: an ending that matplotlib does not write.
        SinkError: the file cannot be written.
    """
    try:
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize
        from matplotlib.figure import Figure
        from matplotlib.patches import Rectangle
    except ModuleNotFoundError as error:
        raise MissingDependencyError("matplotlib", "report", why="drawing the kernel") from error
    figure = Figure(figsize=(10, 5.2), layout="constrained")
    panels = figure.subplots(1, 2)
    # One scale for both, from what is shown: the kernel's own smallest weight is far below.
    shown = np.concatenate([before.relation.ravel(), after.relation.ravel()])
    scale = Normalize(float(np.percentile(shown, 1)), float(shown.max()))
    for axes, seen, name in ((panels[0], before, "FC kernel as trained"),
                             (panels[1], after, "after locality injection")):  # fmt: skip
        axes.imshow(seen.relation, cmap="Greys", norm=scale)
        axes.set_title(f"{name}\n{seen.inside:.1f} % of its weight in the {size}x{size} window")
        _label_axes(axes, seen.relation.shape)
        rows, cols = window(point, size, (seen.relation.shape[0], seen.relation.shape[1]))
        box = (cols.stop - cols.start, rows.stop - rows.start)
        axes.add_patch(
            Rectangle((cols.start - 0.5, rows.start - 0.5), *box, fill=False, ec="#1f4fff", lw=2.5)
        )
        axes.add_patch(
            Rectangle((point[1] - 0.5, point[0] - 0.5), 1, 1, fill=False, ec="#a020f0", lw=2.5)
        )
    for y, x in far_points(after.relation, point, size):
        panels[1].add_patch(
            Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, ec="#e00000", lw=1.5, ls="--")
        )
    figure.colorbar(
        ScalarMappable(scale, "Greys"), ax=list(panels), shrink=0.85,
        label="log10(|weight| / smallest)",
    )  # fmt: skip
    figure.suptitle(title)
    _save(figure, path)


def _label_axes(axes: Any, shape: tuple[int, ...]) -> None:
    """Rows and columns counted from 1, as the paper does."""
    for set_ticks, side in ((axes.set_yticks, shape[0]), (axes.set_xticks, shape[1])):
        step = max(1, side // 8)
        places = range(0, side, step)
        set_ticks(list(places), [str(place + 1) for place in places])


def _save(figure: Any, path: Path) -> None:
    ending = path.suffix.lower().removeprefix(".")
    if ending not in ("png", "svg", "pdf"):
        raise UsageError(f"--output {path}: '{path.suffix}' is no picture; use .png, .svg or .pdf")
    drawn = BytesIO()
    figure.savefig(drawn, format=ending, dpi=150)
    write_output(path, drawn.getvalue())
