"""Rare things pasted into training crops: more of them, before more backgrounds.

* ``paste_things`` cuts things of a few rare classes out of another crop of the data and lays them
  over this one (ClassMix of Olsson et al., WACV 2021; Ghiasi et al., CVPR 2021). They keep their
  height in the picture, so a person stays on the pavement, and move sideways.
* ``draw_poles`` draws thin poles, which a data set of one town has few kinds of: a pole is a tall
  cylinder, lit from one side, of any grey or the background's colour, before whatever stands
  there. What is nearer than the houses (people, vehicles) may stay before it.

Like all augmentation these are functions of their inputs and of the generator alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.uint8]

ROAD, SIDEWALK, POLE, RIDER, RIDDEN = 0, 1, 5, 12, (17, 18)
NEARER = (11, 12, 13, 14, 15, 16, 17, 18)
"""Train ids of what may stand before a pole: people and vehicles."""
_SUBPIXEL = 4
"""Binary digits of a pixel in the coordinates of drawn polygons."""


def paste_things(
    image: Image, labels: Labels, donor: Image, donor_labels: Labels, classes: Sequence[int],
    rng: np.random.Generator,
) -> tuple[Image, Labels]:  # fmt: skip
    """Things of one or two of ``classes`` in the donor, over the image.

    Args:
        image: HxWx3 uint8 BGR; not modified.
        labels: HxW uint8 train ids; not modified.
        donor: HxWx3 uint8 BGR of the same size.
        donor_labels: HxW uint8 train ids.
        classes: train ids that may be pasted.
        rng: decides which, where to and whether mirrored.

    Returns:
        (image, labels) with them, the very inputs where the donor has none.
    """
    present = np.flatnonzero(np.bincount(donor_labels.ravel(), minlength=256))
    chosen = [c for c in classes if c in present]
    if not chosen:
        return image, labels
    picked = rng.choice(chosen, min(len(chosen), int(rng.integers(1, 3))), replace=False)
    wanted = [*picked, *(RIDDEN if RIDER in picked else ())]
    mask = np.isin(donor_labels, wanted)
    if rng.random() < 0.5:
        donor, donor_labels, mask = donor[:, ::-1], donor_labels[:, ::-1], mask[:, ::-1]
    move = int(rng.integers(-(labels.shape[1] // 2), labels.shape[1] // 2))
    mask = _moved(mask.astype(np.uint8), move) != 0
    donor, donor_labels = _moved(donor, move), _moved(donor_labels, move)
    # Half a pixel of softness hides that the cut follows somebody's hand.
    alpha = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.5)[..., None]
    mixed = image * (1 - alpha) + donor * alpha
    return mixed.astype(np.uint8), np.where(mask, donor_labels, labels)


def _moved(array: npt.NDArray[np.uint8], columns: int) -> npt.NDArray[np.uint8]:
    """Shifted sideways; what leaves on one side is lost, zeros come in."""
    out = np.zeros_like(array)
    width = array.shape[1]
    if columns >= 0:
        out[:, columns:] = array[:, : width - columns]
    else:
        out[:, :columns] = array[:, -columns:]
    return out


def draw_poles(
    image: Image, labels: Labels, rng: np.random.Generator, most: int = 5, thickness: float = 1.0
) -> tuple[Image, Labels]:
    """One to ``most`` poles drawn into copies of (HxWx3 uint8 BGR, HxW uint8 train ids).

    They stand on the ground, mostly on the pavement, and are the thinner the farther away: 1.2 to
    9 pixels times ``thickness``. Where no ground is in sight they come from below the picture.
    """
    picture, truth = image.astype(np.float32), labels.copy()
    grounds = [np.nonzero(labels[::2, ::2] == kind) for kind in (SIDEWALK, ROAD)]
    rows = np.concatenate([rows for rows, _columns in grounds])
    # Almost the highest, as a label may be off by a pixel here and there.
    horizon = 2.0 * np.quantile(rows, 0.01) if len(rows) else 0.0
    for _pole in range(int(rng.integers(1, most + 1))):
        rows, columns = grounds[int(rng.random() < 0.15)]
        if len(rows):
            # The farthest of three: most poles of a street are far away, most of its ground near.
            picks = rng.integers(len(rows), size=3)
            pick = picks[rows[picks].argmin()]
            foot, x = 2.0 * rows[pick], 2.0 * columns[pick]
            thick = (foot - horizon + 4 * thickness) / rng.uniform(5, 16)
            thick = min(max(thick, 1.2 * thickness), 9 * thickness)
        else:
            foot, x = float(labels.shape[0]), rng.uniform(0, labels.shape[1])
            thick = float(np.exp(rng.uniform(np.log(1.2), np.log(9.0)))) * thickness
        _draw_pole(picture, truth, (foot, x), thick, thickness, rng)
    return picture.astype(np.uint8), truth


def _draw_pole(
    picture: npt.NDArray[np.float32], truth: Labels, foot_at: tuple[float, float], thick: float,
    thickness: float, rng: np.random.Generator,
) -> None:  # fmt: skip
    foot, x = foot_at
    top = foot - thick * rng.uniform(12, 55)
    lean = rng.normal(0, 0.012) * (foot - top)
    taper = rng.uniform(0.6, 1.0)
    # People who label draw around a pole, not along its edge.
    margin = rng.uniform(0, 1.2) * thickness
    shafts = [(x, foot, x + lean, top, thick, thick * taper)]
    if rng.random() < 0.3:  # a lamp's or a signal's arm
        reach = rng.choice([-1, 1]) * (foot - top) * rng.uniform(0.1, 0.45)
        rise = (foot - top) * rng.uniform(-0.02, 0.12)
        shafts.append((x + lean, top, x + lean + reach, top - rise, thick * taper, thick / 2))
    cover, marked = (filled(truth.shape, shafts, extra) for extra in (0.0, margin))
    if rng.random() < 0.6:
        nearer = np.isin(truth, NEARER)
        cover[nearer] = marked[nearer] = 0
    if cover.any():
        paint_shafts(picture, cover, x, thick, rng)
        truth[marked > 127] = POLE


def paint_shafts(
    picture: npt.NDArray[np.float32], cover: npt.NDArray[np.uint8], x: float, thick: float,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    """Paint what ``cover`` marks (0 to 255, not nothing) into the HxWx3 picture.

    Any grey with a tint, or what stands behind it in another light; lit from one side, around
    column ``x``.
    """
    height, width = cover.shape
    alpha = cover.astype(np.float32)[..., None] / 255
    around = picture[cover > 0].mean(axis=0)
    grey = rng.uniform(15, 220) * rng.uniform(0.85, 1.15, 3)
    mix = rng.uniform(0, 0.7)
    colour = around * mix + grey * (1 - mix)
    if rng.random() < 0.5:
        colour = around * np.exp(rng.uniform(-1.2, 0.6)) * rng.uniform(0.9, 1.1, 3)
    across = (np.arange(width, dtype=np.float32) - x) / max(thick, 1.0)
    light = 1 + rng.uniform(-0.5, 0.5) * np.clip(across, -0.6, 0.6)
    grain = rng.normal(0, rng.uniform(0, 6), (height, 1, 1))
    shaft = np.clip(colour * light[None, :, None] + grain, 0, 255)
    picture += (shaft - picture) * alpha * rng.uniform(0.85, 1.0)


def filled(
    shape: tuple[int, ...], shafts: Sequence[tuple[float, ...]], extra: float
) -> npt.NDArray[np.uint8]:
    """How far each pixel is covered by the shafts, each ``extra`` thicker; 255 is wholly."""
    cover = np.zeros(shape, np.uint8)
    for x0, y0, x1, y1, thick0, thick1 in shafts:
        corners = _shaft(x0, y0, x1, y1, thick0 + extra, thick1 + extra)
        fixed = np.round(corners * (1 << _SUBPIXEL)).astype(np.int32)
        cv2.fillConvexPoly(cover, fixed, 255, cv2.LINE_AA, _SUBPIXEL)
    return cover


def _shaft(
    x0: float, y0: float, x1: float, y1: float, thick0: float, thick1: float
) -> npt.NDArray[np.float64]:
    """(4, 2) corners of a strip from one point to another."""
    along = np.array([x1 - x0, y1 - y0])
    normal = np.array([-along[1], along[0]]) / max(float(np.hypot(*along)), 1e-6)
    first, last = np.array([x0, y0]), np.array([x1, y1])
    half0, half1 = normal * thick0 / 2, normal * thick1 / 2
    return np.stack([first - half0, first + half0, last + half1, last - half1])
