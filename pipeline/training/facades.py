"""Shop windows and pipes drawn onto houses: upright bars that are not poles.

Most pixels that a network wrongly calls pole belong to houses: window frames, the posts between
shop windows, drainpipes. A data set of one town has few of them. Here they are drawn like the
poles of ``paste`` but within the houses, and their label stays building; a pole may then be drawn
in front, so what tells the two apart is that a pole stands on the ground before the house.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.training.paste import Image, Labels, filled, paint_shafts

BUILDING = 2
_FEWEST = 64
"""Pixels of houses below which nothing is drawn."""


def draw_facades(
    image: Image, labels: Labels, rng: np.random.Generator, most: int = 4, thickness: float = 1.0
) -> Image:
    """One to ``most`` rows of windows or pipes on the houses in a copy of the image.

    Args:
        image: HxWx3 uint8 BGR; not modified, and given back when there is next to no house in it.
        labels: HxW uint8 train ids; they stay true.
        rng: the only source of randomness.
        most: rows at most.
        thickness: factor on every measure, see ``draw_poles``.
    """
    houses = labels == BUILDING
    rows, cols = np.nonzero(houses[::2, ::2])
    if len(rows) < _FEWEST:
        return image
    picture = image.astype(np.float32)
    for _row in range(int(rng.integers(1, most + 1))):
        pick = int(rng.integers(len(rows)))
        _draw_row(picture, houses, (2.0 * rows[pick], 2.0 * cols[pick]), thickness, rng)
    return picture.astype(np.uint8)


def _draw_row(
    picture: npt.NDArray[np.float32], houses: npt.NDArray[np.bool_], centre: tuple[float, float],
    thickness: float, rng: np.random.Generator,
) -> None:  # fmt: skip
    """Bars side by side, in perspective, with dark panes between them or without, and rails."""
    thick = float(np.exp(rng.uniform(np.log(0.8), np.log(7.0)))) * thickness
    bars = int(rng.integers(1, 8))
    apart = thick * rng.uniform(2.5, 14)
    tall = thick * rng.uniform(4, 30)
    # Walls along the street shrink towards its end: both edges of a row slope, towards the eye.
    shrink, slope = rng.uniform(-0.35, 0.35) / bars, rng.uniform(-0.3, 0.3)
    y, x = centre
    x -= apart * (bars - 1) / 2
    posts = []
    for bar in range(bars):
        size = max(0.2, 1 + shrink * (bar - (bars - 1) / 2))
        middle = y + slope * apart * (bar - (bars - 1) / 2)
        at = x + apart * bar
        posts.append((at, middle + tall * size / 2, at, middle - tall * size / 2, thick, thick))
    first, last = posts[0], posts[-1]
    if bars > 1 and rng.random() < 0.6:
        panes = (
            (first[0] + last[0]) / 2, max(first[1], last[1]), (first[0] + last[0]) / 2,
            min(first[3], last[3]), last[0] - first[0], last[0] - first[0],
        )  # fmt: skip
        glass = filled(houses.shape, [panes], 0.0).astype(np.float32)[..., None] / 255
        glass *= houses[..., None]
        picture *= 1 - glass * (1 - rng.uniform(0.2, 0.9))
    if bars > 1 and rng.random() < 0.6:
        rail = thick * rng.uniform(0.4, 1.5)
        ends = [end for end in (1, 3) if rng.random() < 0.7]
        posts += [(first[0], first[end], last[0], last[end], rail, rail) for end in ends]
    cover = filled(houses.shape, posts, 0.0)
    cover[~houses] = 0
    if cover.any():
        paint_shafts(picture, cover, centre[1], thick, rng)
