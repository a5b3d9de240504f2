"""What is drawn: the right colours in the right places, at every size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.cityscapes import CLASS_NAMES, PALETTE_RGB
from pipeline.errors import UsageError
from pipeline.video.draw import Painter, Style, colour_of, parse_classes
from pipeline.video.frames import Frame, Pixels, Region, Segmentation
from pipeline.video.metrics import StreamStats
from pipeline.video.panels import INK, Panel, Text


def bare(opacity: float = 0.5) -> Style:
    return Style(opacity=opacity, legend=False, figures=False)


def paint(
    painter: Painter, picture: Pixels, labels: Pixels, region: Region | None = None
) -> Pixels:
    frame = Frame(0, 0.0, 0.0, picture)
    return painter.paint(frame, Segmentation(0, labels, {}), StreamStats("street"), region)


def scene(height: int, width: int, seed: int = 0) -> tuple[Pixels, Pixels]:
    generator = np.random.default_rng(seed)
    picture = generator.integers(0, 256, (height, width, 3)).astype(np.uint8)
    labels = generator.choice(np.array([0, 5, 13, 18, 255], np.uint8), (height, width))
    return picture, labels


def test_overlay_is_the_blend_of_frame_and_palette() -> None:
    picture, labels = scene(48, 64)
    canvas = paint(Painter(bare(0.25), "x"), picture, labels)
    palette = PALETTE_RGB[:, ::-1].astype(np.float64)
    expected = picture.astype(np.float64)
    for label in range(19):
        expected[labels == label] = 0.75 * expected[labels == label] + 0.25 * palette[label]
    assert np.abs(canvas - expected).max() <= 1
    np.testing.assert_array_equal(canvas[labels == 255], picture[labels == 255])


def test_only_chosen_classes_are_painted_and_named() -> None:
    picture, labels = scene(300, 400)
    painter = Painter(Style(classes=(13,)), "x")
    canvas = paint(painter, picture, labels)
    assert painter.present == (13,)
    middle = np.s_[120:160, 100:300]
    other = labels[middle] != 13
    np.testing.assert_array_equal(canvas[middle][other], picture[middle][other])
    assert (canvas[middle][~other] != picture[middle][~other]).any()


def test_frame_and_labels_are_not_written_to() -> None:
    picture, labels = scene(200, 300)
    before = picture.copy(), labels.copy()
    painter = Painter(Style(), "x")
    painter.show_edges(([50.0], [100.0]), [Region(0, 0, 100, 100)])
    paint(painter, picture, labels, Region(10, 10, 50, 50))
    np.testing.assert_array_equal(picture, before[0])
    np.testing.assert_array_equal(labels, before[1])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 700), st.integers(1, 700), st.integers(0, 19))
def test_any_size_can_be_drawn(height: int, width: int, classes: int) -> None:
    generator = np.random.default_rng(height * 701 + width)
    picture = np.zeros((height, width, 3), np.uint8)
    labels = generator.integers(0, max(1, classes), (height, width)).astype(np.uint8)
    painter = Painter(Style(), "rtsp://a-camera-with-a-long-name.example/stream")
    painter.show_edges(([height / 2], [width / 2]), [Region(0, 0, width, height)])
    canvas = paint(painter, picture, labels)
    assert canvas.shape == picture.shape
    assert painter.mark_stale(12345.0).shape == picture.shape


@pytest.mark.parametrize("size", [(240, 320), (540, 960), (720, 1280), (1280, 720), (2160, 3840)])
def test_panels_leave_most_of_the_frame_free(size: tuple[int, int]) -> None:
    """Even with all nineteen classes; and at ordinary sizes they are there."""
    picture = np.full((*size, 3), 90, np.uint8)
    labels = np.tile(np.arange(19, dtype=np.uint8), size[0] * size[1] // 19 + 1)
    labels = labels[: size[0] * size[1]].reshape(size)
    canvas = paint(Painter(Style(opacity=0.0), "cam0"), picture, labels)
    changed = (canvas != 90).any(axis=2)
    assert changed.mean() < 0.3
    third = size[0] // 3
    assert not changed[third : 2 * third].any(), "the middle of the picture is free"
    assert changed[:third].any(), "the figures are there"
    if size[1] >= 720:
        assert changed[2 * third :].any(), "the legend is there"


def test_legend_shows_each_class_in_its_own_colour() -> None:
    picture = np.zeros((480, 960, 3), np.uint8)
    labels = np.full((480, 960), 255, np.uint8)
    for place, label in enumerate((0, 8, 10, 13)):
        labels[100:200, place * 50 : place * 50 + 50] = label
    painter = Painter(Style(figures=False), "x")
    canvas = paint(painter, picture, labels)
    assert painter.present == (0, 8, 10, 13)
    below = canvas[300:].reshape(-1, 3)
    for label in painter.present:
        colour = PALETTE_RGB[label][::-1]
        assert (np.abs(below.astype(int) - colour).max(axis=1) <= 2).sum() > 40


def test_legend_does_not_flicker() -> None:
    picture = np.zeros((480, 960, 3), np.uint8)
    with_car = np.zeros((480, 960), np.uint8)
    with_car[:100] = 13
    painter = Painter(Style(), "x")
    paint(painter, picture, with_car)
    paint(painter, picture, np.zeros_like(with_car))
    assert painter.present == (0, 13), "it stays for a moment"


def test_region_is_outlined() -> None:
    picture, labels = np.zeros((200, 300, 3), np.uint8), np.full((200, 300), 255, np.uint8)
    canvas = paint(Painter(bare(), "x"), picture, labels, Region(50, 60, 100, 80))
    np.testing.assert_array_equal(canvas[60, 50], INK)
    np.testing.assert_array_equal(canvas[139, 149], INK)
    assert (canvas[70:130, 60:140] == 0).all()


def test_stale_picture_says_so_on_red() -> None:
    picture, labels = np.zeros((480, 960, 3), np.uint8), np.full((480, 960), 255, np.uint8)
    painter = Painter(bare(), "x")
    assert painter.mark_stale(1.0).size == 0, "nothing was drawn yet"
    paint(painter, picture, labels)
    canvas = painter.mark_stale(7.4)
    red = (canvas[..., 2] > 200) & (canvas[..., 0] < 90)
    assert red.sum() > 500
    assert not red[240:].any()


def test_classes_by_name() -> None:
    assert parse_classes("car, Road,traffic-light,traffic sign") == (0, 6, 7, 13)
    for text in ("", ",", "road,boat"):
        with pytest.raises(UsageError, match="--classes"):
            parse_classes(text)
    with pytest.raises(UsageError, match="--opacity"):
        Painter(Style(opacity=1.5), "x")


@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 80), st.integers(0, 80))
@settings(deadline=None, max_examples=50)
def test_panel_is_blended_as_the_formula_says(h: int, w: int, left: int, top: int) -> None:
    canvas = np.random.default_rng(1).integers(0, 256, (60, 70, 3)).astype(np.uint8)
    before = canvas.astype(np.float64)
    panel = Panel(h, w, opacity=0.5, ground=(200, 100, 0))
    panel.lay(canvas, left, top)
    outside = np.ones((60, 70), bool)
    outside[top : top + h, left : left + w] = False
    np.testing.assert_array_equal(canvas[outside], before[outside])
    y, x = top + h // 2, left + w // 2
    if h > 12 and w > 12 and y < 60 and x < 70:
        expected = before[y, x] * 0.5 + np.array([200, 100, 0]) * 0.5
        assert np.abs(canvas[y, x] - expected).max() <= 2


def test_text_is_as_wide_as_it_says() -> None:
    text = Text("sidewalk 38.4 fps", 20.0)
    panel = Panel(60, text.width + 40, opacity=0.0)
    panel.text(text, 20, 40)
    canvas = np.zeros((60, text.width + 40, 3), np.uint8)
    panel.lay(canvas, 0, 0)
    inked = np.flatnonzero(canvas.any(axis=(0, 2)))
    assert 18 <= inked[0] <= 26
    assert inked[-1] <= text.width + 24
    assert inked[-1] >= text.width * 0.8


def test_every_class_has_a_name_and_a_colour() -> None:
    assert len(CLASS_NAMES) == len(PALETTE_RGB) == 19
    assert colour_of(7) == (0, 220, 220)  # of signs, (220, 220, 0) in RGB
