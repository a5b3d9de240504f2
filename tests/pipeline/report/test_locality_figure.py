"""Appendix A's picture against the paper's own recipe, index by index, counting from 1."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.errors import SinkError, UsageError
from pipeline.report.locality_figure import draw, far_points, view, window

SETS, HEIGHT, WIDTH = 3, 5, 7


@pytest.fixture
def kernel() -> np.ndarray:
    rng = np.random.default_rng(0)
    weights: np.ndarray = rng.standard_normal((SETS, HEIGHT * WIDTH, HEIGHT * WIDTH))
    return weights


def test_the_relation_is_the_papers(kernel: np.ndarray) -> None:
    least = min(abs(float(v)) for v in kernel.ravel())
    seen = view(kernel, (HEIGHT, WIDTH), (2, 4), 3, share_set=1)
    for y in range(HEIGHT):
        for x in range(WIDTH):
            weight = abs(kernel[1, 2 * WIDTH + 4, y * WIDTH + x])
            assert seen.relation[y, x] == pytest.approx(math.log10(weight / least))


@pytest.mark.parametrize(("point", "count"), [((2, 3), 9), ((0, 0), 4), ((4, 3), 6), ((4, 6), 4)])
def test_shares_are_of_the_window_cut_at_the_patch(
    kernel: np.ndarray, point: tuple[int, int], count: int
) -> None:
    row = np.abs(kernel[0, point[0] * WIDTH + point[1]]).reshape(HEIGHT, WIDTH)
    near = [
        (y, x)
        for y in range(HEIGHT)
        for x in range(WIDTH)
        if abs(y - point[0]) <= 1 and abs(x - point[1]) <= 1
    ]
    assert len(near) == count
    inside = sum(row[place] for place in near)
    seen = view(kernel, (HEIGHT, WIDTH), point, 3)
    assert seen.inside == pytest.approx(100 * inside / row.sum())
    outside = (row.sum() - inside) / (row.size - count)
    assert seen.contrast == pytest.approx(inside / count / outside)


def test_a_pure_convolution_has_all_its_weight_inside() -> None:
    pure = np.zeros((1, 25, 25))
    for y in range(5):
        for x in range(5):
            rows, cols = window((y, x), 3, (5, 5))
            pure[0, y * 5 + x].reshape(5, 5)[rows, cols] = 2.0
    seen = view(pure, (5, 5), (2, 2), 3)
    assert seen.inside == 100
    assert math.isnan(seen.contrast)
    assert far_points(seen.relation, (2, 2), 3) == []


def test_far_points_beat_a_weight_inside() -> None:
    relation = np.ones((6, 6))
    relation[0:3, 0:3] = 3.0
    relation[5, 5], relation[4, 0] = 9.0, 4.0
    assert far_points(relation, (1, 1), 3) == [(5, 5), (4, 0)]


def test_points_outside_are_named_from_1(kernel: np.ndarray) -> None:
    with pytest.raises(UsageError, match="--point 6,1 is outside the patch: rows go from 1 to 5"):
        view(kernel, (HEIGHT, WIDTH), (5, 0), 3)
    with pytest.raises(UsageError, match="--set 4"):
        view(kernel, (HEIGHT, WIDTH), (0, 0), 3, share_set=3)
    with pytest.raises(ValueError, match="zeros"):
        view(0 * kernel, (HEIGHT, WIDTH), (0, 0), 3)
    with pytest.raises(ValueError, match="patches"):
        view(kernel, (5, 5), (0, 0), 3)


def test_the_picture_is_written_whole_or_not_at_all(tmp_path: Path, kernel: np.ndarray) -> None:
    pytest.importorskip("matplotlib")
    seen = view(kernel, (HEIGHT, WIDTH), (2, 3), 3)
    path = tmp_path / "new" / "figure.png"
    others = path.with_name(".figure.png.part")
    others.parent.mkdir()
    others.write_text("another process is at work here")
    draw(seen, seen, (2, 3), 3, "title", path)
    picture = cv2.imread(str(path))
    assert picture is not None
    assert picture.shape[1] > 1000
    with pytest.raises(UsageError, match=r"no picture; use \.png"):
        draw(seen, seen, (2, 3), 3, "title", tmp_path / "figure.docx")
    assert [p.name for p in tmp_path.iterdir()] == ["new"]
    assert {p.name for p in path.parent.iterdir()} == {"figure.png", others.name}
    assert others.read_text() == "another process is at work here"


def test_a_picture_that_cannot_be_written(tmp_path: Path, kernel: np.ndarray) -> None:
    pytest.importorskip("matplotlib")
    seen = view(kernel, (HEIGHT, WIDTH), (2, 3), 3)
    (tmp_path / "file").touch()
    with pytest.raises(SinkError, match="cannot be written"):
        draw(seen, seen, (2, 3), 3, "title", tmp_path / "file" / "figure.png")
