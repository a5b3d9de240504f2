"""The few elements of SVG that the charts need. Colours are CSS classes: dark mode reaches them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_LARGEST = 1.28
"""CSS pixels per user unit at most: letters grow no larger than the page's own."""


class Svg:
    """A drawing of fixed inner size that scales with the page.

    Args:
        width: in user units, meant to be about as many CSS pixels.
        height: the same.
        label: what a screen reader says instead.
    """

    def __init__(self, width: float, height: float, label: str) -> None:
        self.width, self.height = width, height
        self._label = label
        self._parts: list[str] = []

    def line(self, x1: float, y1: float, x2: float, y2: float, css: str) -> None:
        """A straight line."""
        self._parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{css}"/>'
        )

    def path(self, points: Sequence[tuple[float, float]], css: str) -> None:
        """A line through points."""
        data = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        self._parts.append(f'<path d="{data}" class="{css}"/>')

    def rect(
        self, x: float, y: float, width: float, height: float, css: str,
        *, opacity: float | None = None, title: str = "", radius: float = 0,
    ) -> None:  # fmt: skip
        """A rectangle, with what to say when pointed at."""
        extra = f' fill-opacity="{opacity:.3f}"' if opacity is not None else ""
        extra += f' rx="{radius:g}"' if radius else ""
        inner = f"<title>{escape(title)}</title>" if title else ""
        self._parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.1f}" '
            f'height="{max(0.0, height):.1f}" class="{css}"{extra}>{inner}</rect>'
        )

    def dot(self, x: float, y: float, radius: float, css: str, title: str = "") -> None:
        """A disc."""
        inner = f"<title>{escape(title)}</title>" if title else ""
        self._parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" class="{css}">{inner}</circle>'
        )

    def text(
        self, x: float, y: float, text: str, css: str = "", *, anchor: str = "start",
        turned: bool = False,
    ) -> None:  # fmt: skip
        """A line of text; ``turned`` reads upwards."""
        place = f'x="{x:.1f}" y="{y:.1f}"'
        if turned:
            place += f' transform="rotate(-90 {x:.1f} {y:.1f})"'
        self._parts.append(
            f'<text {place} class="{css}" text-anchor="{anchor}">{escape(text)}</text>'
        )

    def __str__(self) -> str:
        return (
            f'<svg viewBox="0 0 {self.width:g} {self.height:g}" role="img" '
            f'style="max-width: {self.width * _LARGEST:.0f}px" '
            f'aria-label="{escape(self._label, quote=True)}">{"".join(self._parts)}</svg>'
        )
