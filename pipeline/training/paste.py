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

POLE, RIDER, RIDDEN = 5, 12, (17, 18)
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

    They are 1.2 to 9 pixels thick, times ``thickness``.
    """
    picture, truth = image.astype(np.float32), labels.copy()
    for _pole in range(int(rng.integers(1, most + 1))):
        _draw_pole(picture, truth, rng, thickness)
    return picture.astype(np.uint8), truth


def _draw_pole(
    picture: npt.NDArray[np.float32], truth: Labels, rng: np.random.Generator, thickness: float
) -> None:
    height, width = truth.shape
    thick = float(np.exp(rng.uniform(np.log(1.2), np.log(9.0)))) * thickness
    foot = height * rng.uniform(0.4, 0.62) + thick * rng.uniform(4, 16)
    top = foot - thick * rng.uniform(10, 45)
    x = rng.uniform(0, width)
    lean = rng.normal(0, 0.012) * (foot - top)
    taper = rng.uniform(0.6, 1.0)
    # People who label draw around a pole, not along its edge.
    margin = rng.uniform(0, 1.2) * thickness
    shafts = [(x, foot, x + lean, top, thick, thick * taper)]
    if rng.random() < 0.3:  # a lamp's or a signal's arm
        reach = rng.choice([-1, 1]) * (foot - top) * rng.uniform(0.1, 0.45)
        rise = (foot - top) * rng.uniform(-0.02, 0.12)
        shafts.append((x + lean, top, x + lean + reach, top - rise, thick * taper, thick / 2))
    cover, marked = (_filled(truth.shape, shafts, extra) for extra in (0.0, margin))
    if rng.random() < 0.6:
        nearer = np.isin(truth, NEARER)
        cover[nearer] = marked[nearer] = 0
    alpha = cover.astype(np.float32)[..., None] / 255
    # Any grey with a tint, or what stands behind it in another light; lit from one side.
    rows, cols = np.nonzero(cover)
    if not len(rows):
        return
    around = picture[rows, cols].mean(axis=0)
    grey = rng.uniform(15, 220) * rng.uniform(0.85, 1.15, 3)
    mix = rng.uniform(0, 0.7)
    colour = around * mix + grey * (1 - mix)
    if rng.random() < 0.5:
        colour = around * np.exp(rng.uniform(-1.2, 0.6)) * rng.uniform(0.9, 1.1, 3)
    across = (np.arange(width, dtype=np.float32) - x) / max(thick, 1.0)
    light = 1 + rng.uniform(-0.5, 0.5) * np.clip(across, -0.6, 0.6)
    grain = rng.normal(0, rng.uniform(0, 6), (height, 1, 1))
    pole = np.clip(colour * light[None, :, None] + grain, 0, 255)
    picture += (pole - picture) * alpha * rng.uniform(0.85, 1.0)
    truth[marked > 127] = POLE


def _filled(
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
