"""What people see: class colours over the frame, a legend, and the stream's figures.

Everything scales with the frame, and what does not fit is left out: a frame of 1x1 is only its
colour. Panels are rendered when their content changes and laid on otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from time import perf_counter

import cv2
import numpy as np
import numpy.typing as npt

from calibration.cityscapes import CLASS_NAMES, NUM_CLASSES, PALETTE_RGB
from pipeline.errors import UsageError
from pipeline.kernels import Colours, overlay
from pipeline.video.frames import Frame, Pixels, Region, Segmentation
from pipeline.video.metrics import StreamStats
from pipeline.video.panels import ALARM, FAINT, INK, Bgr, Panel, Text

DEFAULT_OPACITY = 0.5

_PRESENT = 0.002
"""A class is in the legend from this share of the frame on ..."""

_LINGER = 1.0
"""... and for so many seconds after, so that the legend does not flicker."""

_REFRESH = 0.25
"""Seconds between two renderings of the figures: faster cannot be read."""

_STEP = 4
"""The legend looks at every fourth row and column of the labels."""

_LEAST_UNIT = 11
"""Smaller text cannot be read; a frame too small for this has none."""

_PATCH_INK: Bgr = (255, 255, 255)
_TILE_INK: Bgr = (0, 215, 255)


@dataclass(frozen=True)
class Style:
    """How frames are drawn.

    Attributes:
        opacity: of the class colours, 0 to 1.
        classes: train ids to paint; ``None`` paints all.
        legend: whether to draw the legend.
        figures: whether to draw fps, latency and drops.
    """

    opacity: float = DEFAULT_OPACITY
    classes: tuple[int, ...] | None = None
    legend: bool = True
    figures: bool = True


def colour_of(label: int) -> Bgr:
    """A class's colour, BGR, by its train id."""
    red, green, blue = (int(part) for part in PALETTE_RGB[label])
    return blue, green, red


def parse_classes(text: str) -> tuple[int, ...]:
    """``road,car`` -> their train ids, ascending.

    Raises:
        UsageError: a name that is no class.
    """
    known = {name.replace(" ", "-"): number for number, name in enumerate(CLASS_NAMES)}
    wanted = [part.strip().lower().replace(" ", "-") for part in text.split(",") if part.strip()]
    unknown = [part for part in wanted if part not in known]
    if unknown or not wanted:
        what = f"'{unknown[0]}' is no class" if unknown else "names no class"
        raise UsageError(f"--classes: {what}; the classes are {', '.join(known)}")
    return tuple(sorted({known[part] for part in wanted}))


class Painter:
    """Draws one stream. Not for two threads at once.

    Args:
        style: how.
        title: the stream's name.
    """

    def __init__(self, style: Style, title: str) -> None:
        if not 0 <= style.opacity <= 1:
            raise UsageError(f"--opacity {style.opacity} is not within 0 .. 1")
        bgr = np.ascontiguousarray(PALETTE_RGB[:, ::-1])
        self._style = style
        self._title = title
        self._colours = Colours(bgr, style.opacity, style.classes)
        self._painted = frozenset(range(NUM_CLASSES) if style.classes is None else style.classes)
        self._canvas: Pixels = np.empty((0, 0, 3), np.uint8)
        self._sample: Pixels = np.empty((0, 0), np.uint8)
        self._counts = np.zeros((256, 1), np.float32)
        self._seen = np.full(NUM_CLASSES, -math.inf)
        self._legend: tuple[tuple[int, ...], Panel | None] = ((), None)
        self._figures: tuple[float, Panel | None] = (-math.inf, None)
        self._grid: _Grid | None = None

    @property
    def present(self) -> tuple[int, ...]:
        """Train ids in the legend now, ascending."""
        return self._legend[0]

    def show_edges(
        self, patches: tuple[npt.ArrayLike, npt.ArrayLike], tiles: Iterable[Region]
    ) -> None:
        """Draw patch edges (row and column positions) and tile borders from now on."""
        rows, cols = (np.rint(np.asarray(axis)).astype(int).tolist() for axis in patches)
        self._grid = _Grid(tuple(rows), tuple(cols), tuple(tiles))

    def paint(
        self, frame: Frame, segmentation: Segmentation, stats: StreamStats, region: Region | None
    ) -> Pixels:
        """Draw a frame.

        Returns:
            (H, W, 3) uint8 BGR, valid until the next call.
        """
        if self._canvas.shape != frame.bgr.shape:
            self._canvas = np.empty_like(frame.bgr)
            self._legend, self._figures = ((), None), (-math.inf, None)
        canvas = overlay(frame.bgr, segmentation.labels, self._colours, self._canvas)
        if self._grid is not None:
            self._grid.draw(canvas)
        if region is not None:
            _outline(canvas, region)
        now = perf_counter()
        if self._style.legend:
            self._draw_legend(canvas, segmentation.labels, now)
        if self._style.figures:
            self._draw_figures(canvas, stats, now)
        return canvas

    def mark_stale(self, seconds: float) -> Pixels:
        """The last canvas again, saying how long its stream has been away; empty if none was."""
        canvas = self._canvas
        if not canvas.size:
            return canvas
        unit = _unit(canvas)
        text = Text(f"STALE  {seconds:.0f} s", unit, INK, bold=True)
        panel = Panel(2 * unit + 2, text.width + 2 * unit, opacity=1.0, ground=ALARM)
        panel.text(text, unit, round(1.5 * unit))
        left = max(0, (canvas.shape[1] - panel.width) // 2)
        panel.lay(canvas, left, min(unit, max(0, canvas.shape[0] - panel.height)))
        return canvas

    def _draw_legend(self, canvas: Pixels, labels: Pixels, now: float) -> None:
        shown = self._present(labels, now)
        if shown != self._legend[0]:
            self._legend = shown, self._render_legend(canvas, shown)
        panel = self._legend[1]
        if panel is not None:
            margin = _unit(canvas) // 2
            panel.lay(canvas, margin, canvas.shape[0] - panel.height - margin)

    def _present(self, labels: Pixels, now: float) -> tuple[int, ...]:
        """The classes to name: those that are there, of those that are painted."""
        part = labels[::_STEP, ::_STEP]
        if self._sample.shape != part.shape:
            self._sample = np.empty(part.shape, np.uint8)
        np.copyto(self._sample, part)
        # Not np.bincount: it makes a copy eight times as large.
        cv2.calcHist([self._sample], [0], None, [256], [0, 256], hist=self._counts)
        counts = self._counts[: len(self._seen), 0]
        self._seen[counts >= _PRESENT * self._sample.size] = now
        there = np.flatnonzero(self._seen >= now - _LINGER)
        return tuple(int(c) for c in there if int(c) in self._painted)

    def _render_legend(self, canvas: Pixels, shown: tuple[int, ...]) -> Panel | None:
        """A panel of as few rows as fit into the frame's width, or none if it would hide it."""
        height, width = canvas.shape[:2]
        unit = _unit(canvas)
        size, swatch, row = 0.62 * unit, round(0.9 * unit), round(1.45 * unit)
        if not shown:
            return None
        texts = [Text(CLASS_NAMES[c], size) for c in shown]
        cell = max(text.width for text in texts) + round(2.4 * unit)
        columns = max(1, (width - 2 * unit) // cell)
        columns = math.ceil(len(shown) / math.ceil(len(shown) / columns))  # even rows
        rows = math.ceil(len(shown) / columns)
        panel_height = rows * row + round(0.8 * unit)
        if panel_height > 0.3 * height or columns * cell + unit > width:
            return None
        panel = Panel(panel_height, columns * cell + round(0.4 * unit))
        for place, (label, text) in enumerate(zip(shown, texts, strict=True)):
            left = round(0.7 * unit) + place % columns * cell
            middle = round(0.4 * unit) + place // columns * row + row // 2
            panel.swatch(colour_of(label), left, middle - swatch // 2, swatch)
            panel.text(text, left + round(1.35 * unit), middle + round(size / 2))
        return panel

    def _draw_figures(self, canvas: Pixels, stats: StreamStats, now: float) -> None:
        if now - self._figures[0] >= _REFRESH:
            self._figures = now, self._render_figures(canvas, stats, now)
        panel = self._figures[1]
        if panel is not None:
            margin = _unit(canvas) // 2
            panel.lay(canvas, margin, margin)

    def _render_figures(self, canvas: Pixels, stats: StreamStats, now: float) -> Panel | None:
        unit = _unit(canvas)
        rate, latency = stats.rate.value(now), stats.recent_latency
        first = Text(f"{rate:.1f} fps" if rate else "- fps", 0.95 * unit, INK, bold=True)
        measured = "- ms" if math.isnan(latency) else f"{latency * 1e3:.0f} ms"
        second = Text(measured, 0.95 * unit, INK)
        details = [self._title]
        if stats.dropped:
            details.append(f"{stats.dropped} dropped")
        if stats.decode_errors:
            details.append(f"{stats.decode_errors} undecodable")
        third = Text("   ".join(details), 0.6 * unit, FAINT)
        gap = round(0.9 * unit)
        # Widths of the widest figures, lest the panel breathe with every digit.
        column = max(first.width, Text("000.0 fps", first.height, bold=True).width)
        inner = column + gap + max(second.width, Text("0000 ms", second.height).width)
        width = max(inner, third.width) + 2 * gap
        height = round(3.5 * unit)
        if width > canvas.shape[1] or height > canvas.shape[0] // 3:
            return None
        panel = Panel(height, width)
        panel.text(first, gap, round(1.7 * unit))
        panel.text(second, gap + column + gap, round(1.7 * unit))
        panel.text(third, gap, round(2.85 * unit))
        return panel


@dataclass(frozen=True)
class _Grid:
    """Where the network's patches and tiles meet on a frame."""

    rows: tuple[int, ...]
    cols: tuple[int, ...]
    tiles: tuple[Region, ...]

    def draw(self, canvas: Pixels) -> None:
        height, width = canvas.shape[:2]
        thick = max(1, _unit(canvas) // 20)
        for y in self.rows:
            cv2.line(canvas, (0, y), (width - 1, y), _PATCH_INK, thick)
        for x in self.cols:
            cv2.line(canvas, (x, 0), (x, height - 1), _PATCH_INK, thick)
        for tile in self.tiles:
            _outline(canvas, tile, _TILE_INK)


def _outline(canvas: Pixels, region: Region, colour: Bgr = INK) -> None:
    thick = max(1, _unit(canvas) // 14)
    far = (region.x + region.width - 1, region.y + region.height - 1)
    cv2.rectangle(canvas, (region.x, region.y), far, colour, thick)


def _unit(canvas: Pixels) -> int:
    """Height of a line of text, in pixels: a measure for everything drawn on this frame."""
    height, width = canvas.shape[:2]
    return max(_LEAST_UNIT, int(min(height, 0.75 * width) / 34 + 0.5))
