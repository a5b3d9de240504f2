"""Augmentation of street frames: scale, crop, flip, colour, blur, weather.

Every function takes a ``numpy.random.Generator`` and nothing else random, so a sample is a pure
function of (seed, step, position in the batch): a resumed run sees the very same crops.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from calibration.cityscapes import IGNORE
from pipeline.training.paste import draw_poles, paste_things

Image = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.uint8]

REFERENCE_HEIGHT = 384
"""Frames of this height have drawn poles as thick as ``draw_poles`` says."""


@dataclass(frozen=True)
class AugmentConfig:
    """Ranges of the augmentation. Probabilities are per sample.

    Attributes:
        scale: smallest and largest factor on the frame's own size.
        max_class_share: a crop is drawn again (up to 8 times) while one class fills more of it.
        rare: share of crops centred on a rare class.
        rare_classes: train ids; the rare ones.
        paste: share of crops that get things of another crop, see ``paste``.
        paste_classes: train ids of what is pasted: thin and small things that stand on their own.
        poles: share of crops that get poles drawn.
    """

    scale: tuple[float, float] = (0.6, 2.2)
    flip: float = 0.5
    colour: float = 0.8
    shadow: float = 0.35
    blur: float = 0.2
    weather: float = 0.15
    compress: float = 0.2
    rare: float = 0.4
    rare_classes: tuple[int, ...] = (3, 4, 5, 6, 7, 11, 12, 14, 15, 16, 17, 18)
    max_class_share: float = 0.75
    paste: float = 0.35
    paste_classes: tuple[int, ...] = (5, 6, 7, 11, 12)
    poles: float = 0.6


def augment(
    image: Image, labels: Labels, size: tuple[int, int], config: AugmentConfig,
    rng: np.random.Generator, donor: Callable[[], tuple[Image, Labels]] | None = None,
) -> tuple[Image, Labels]:  # fmt: skip
    """One training crop.

    Args:
        image: HxWx3 uint8 BGR.
        labels: HxW uint8 train ids, 255 ignored.
        size: (height, width) of the crop.
        config: the ranges.
        rng: the only source of randomness.
        donor: gives another frame, whose things may be pasted.

    Returns:
        (crop uint8 BGR, its train ids), contiguous, of ``size``; outside the frame the image is
        reflected and the labels are ignored.
    """
    crop, truth = _scaled_crop(image, labels, size, config, rng, poles=config.poles)
    if donor is not None and rng.random() < config.paste:
        other = _scaled_crop(*donor(), size, config, rng)
        crop, truth = paste_things(crop, truth, *other, config.paste_classes, rng)
    if rng.random() < config.flip:
        crop, truth = np.ascontiguousarray(crop[:, ::-1]), np.ascontiguousarray(truth[:, ::-1])
    if rng.random() < config.weather:
        crop = _weather(crop, rng)
    if rng.random() < config.shadow:
        crop = _shadow(crop, rng)
    if rng.random() < config.colour:
        crop = _colour(crop, rng)
    if rng.random() < config.blur:
        crop = np.asarray(cv2.GaussianBlur(crop, (0, 0), rng.uniform(0.3, 1.3)), np.uint8)
    if rng.random() < config.compress:
        quality = int(rng.integers(35, 90))
        ok, data = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if ok:
            crop = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return crop, truth


def _scaled_crop(
    image: Image, labels: Labels, size: tuple[int, int], config: AugmentConfig,
    rng: np.random.Generator, poles: float = 0.0,
) -> tuple[Image, Labels]:  # fmt: skip
    """A window of random size around a random point, resized to ``size``: one resize per crop.

    ``poles`` is how often poles are drawn into it, at the frame's own size: they get the softness
    that everything else in the frame has.
    """
    height, width = labels.shape
    low, high = np.log(config.scale[0]), np.log(config.scale[1])
    scale = float(np.exp(rng.uniform(low, high)))
    stretch = float(np.exp(rng.uniform(-0.12, 0.12)))
    h = max(8, round(size[0] / scale * stretch))
    w = max(8, round(size[1] / scale / stretch))
    for _attempt in range(8):
        top, left = _corner(labels, h, w, config, rng)
        window = labels[max(top, 0) : top + h, max(left, 0) : left + w]
        counts = np.bincount(window[::4, ::4].ravel(), minlength=256)[:IGNORE]
        if counts.sum() and counts.max() <= config.max_class_share * counts.sum():
            break
    pads = (max(-top, 0), max(top + h - height, 0), max(-left, 0), max(left + w - width, 0))
    part = image[max(top, 0) : top + h, max(left, 0) : left + w]
    truth = labels[max(top, 0) : top + h, max(left, 0) : left + w]
    if any(pads):
        part = np.asarray(cv2.copyMakeBorder(part, *pads, cv2.BORDER_REFLECT), np.uint8)
        truth = np.asarray(
            cv2.copyMakeBorder(truth, *pads, cv2.BORDER_CONSTANT, value=(IGNORE,)), np.uint8
        )
    if rng.random() < poles:
        part, truth = draw_poles(part, truth, rng, thickness=height / REFERENCE_HEIGHT)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    part = cv2.resize(part, (size[1], size[0]), interpolation=how)
    # Exact: plain INTER_NEAREST is up to a pixel off the picture, and poles are two wide.
    truth = cv2.resize(truth, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(part, np.uint8), np.asarray(truth, np.uint8)


def _corner(
    labels: Labels, h: int, w: int, config: AugmentConfig, rng: np.random.Generator
) -> tuple[int, int]:
    """Top left corner of the window; sometimes centred near a pixel of a rare class."""
    height, width = labels.shape
    if rng.random() < config.rare:
        present = np.flatnonzero(np.bincount(labels[::2, ::2].ravel(), minlength=256))
        rare = [c for c in config.rare_classes if c in present]
        if rare:
            rows, cols = np.nonzero(labels[::2, ::2] == rng.choice(rare))
            pick = int(rng.integers(len(rows)))
            top = int(2 * rows[pick] - rng.uniform(0.2, 0.8) * h)
            left = int(2 * cols[pick] - rng.uniform(0.2, 0.8) * w)
            return _inside(top, height, h), _inside(left, width, w)
    top = int(rng.integers(0, height - h + 1)) if height > h else -((h - height) // 2)
    left = int(rng.integers(0, width - w + 1)) if width > w else -((w - width) // 2)
    return top, left


def _inside(start: int, length: int, window: int) -> int:
    if window >= length:
        return -((window - length) // 2)
    return min(max(start, 0), length - window)


def _colour(image: Image, rng: np.random.Generator) -> Image:
    """Brightness, contrast, gamma by one table; then saturation, hue and white balance."""
    # A street in a building's shade is a third as bright as one in the sun.
    gain, shift, gamma = rng.uniform(0.4, 1.5), rng.uniform(-30, 30), rng.uniform(0.65, 1.6)
    table = (np.linspace(0, 1, 256) ** gamma * 255 * gain + shift).clip(0, 255).astype(np.uint8)
    balance = rng.uniform(0.88, 1.12, 3)
    tables = np.stack([(table * b).clip(0, 255) for b in balance], axis=-1).astype(np.uint8)
    out = cv2.LUT(image, tables[None])
    hsv = cv2.cvtColor(np.asarray(out, np.uint8), cv2.COLOR_BGR2HSV)
    ramp = np.arange(256)
    hue = ((ramp + rng.integers(-8, 9)) % 180).astype(np.uint8)
    saturation = (ramp * rng.uniform(0.5, 1.5)).clip(0, 255).astype(np.uint8)
    same = ramp.astype(np.uint8)
    hsv = cv2.LUT(hsv, np.stack([hue, saturation, same], axis=-1)[None])
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR), np.uint8)


def _shadow(image: Image, rng: np.random.Generator) -> Image:
    """One side of a random line in a building's shade: darker, bluer, with a soft or hard edge."""
    height, width = image.shape[:2]
    angle = rng.uniform(0, 2 * np.pi)
    across = np.cos(angle) * (np.arange(width) - rng.uniform(0, width))
    down = np.sin(angle) * (np.arange(height) - rng.uniform(0, height))
    depth = ((down[:, None] + across) / rng.uniform(1, 40)).clip(0, 1)
    shade = rng.uniform(0.25, 0.7) * np.array([1.0, rng.uniform(0.88, 1), rng.uniform(0.8, 1)])
    return np.asarray(image * (1 - depth[..., None] * (1 - shade)), np.uint8)


def _weather(image: Image, rng: np.random.Generator) -> Image:
    """Fog (a veil that thickens upwards), rain or sensor noise (streaked or not), or dusk."""
    height, width = image.shape[:2]
    kind = rng.integers(4)
    if kind == 0:
        veil = np.linspace(rng.uniform(0.3, 0.7), rng.uniform(0.0, 0.3), height)[:, None, None]
        fogged = image * (1 - veil) + rng.uniform(150, 230) * veil
        return np.asarray(fogged, np.uint8)
    if kind == 1:
        noise = rng.normal(0, rng.uniform(4, 14), (height, width, 1))
        return np.asarray((image + noise).clip(0, 255), np.uint8)
    if kind == 2:
        drops = (rng.random((height, width)) > 0.996).astype(np.float32) * rng.uniform(300, 900)
        streaks = cv2.blur(drops, (1, int(rng.integers(5, 17))))
        return np.asarray((image * 0.9 + streaks[..., None]).clip(0, 255), np.uint8)
    dusk = np.array([rng.uniform(0.4, 0.6), rng.uniform(0.35, 0.5), rng.uniform(0.35, 0.5)])
    return np.asarray(image * dusk, np.uint8)
