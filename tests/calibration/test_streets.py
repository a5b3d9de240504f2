from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from calibration.cityscapes import CLASS_NAMES, TRAIN_IDS_TO_LABEL_IDS, label_ids_to_train_ids
from calibration.streets import FRAMES_PER_SECOND, StreetFrame, StreetScene
from calibration.streetscape import ids
from calibration.streetscape.layout import crossings_near

HEIGHT, WIDTH = 192, 384
SEEDS = (0, 1, 2, 6)
SCORED = set(TRAIN_IDS_TO_LABEL_IDS[:19].tolist())

Bytes = npt.NDArray[np.uint8]


def digest(frame: StreetFrame) -> str:
    return hashlib.sha256(frame.bgr.tobytes() + frame.labels.tobytes()).hexdigest()


@pytest.fixture(scope="module")
def scenes() -> dict[int, StreetScene]:
    return {seed: StreetScene(seed, HEIGHT, WIDTH) for seed in SEEDS}


@pytest.fixture(scope="module")
def sample(scenes: dict[int, StreetScene]) -> list[StreetFrame]:
    """Fifty and more frames of a few streets."""
    return [scene.render(i * 53) for scene in scenes.values() for i in range(13)]


# --- determinism


def test_same_seed_same_bytes_in_any_order(scenes: dict[int, StreetScene]) -> None:
    again = StreetScene(2, HEIGHT, WIDTH)
    order = (7, 300, 8, 0)
    forwards = {i: digest(scenes[2].render(i)) for i in sorted(order)}
    assert {i: digest(again.render(i)) for i in order} == forwards
    assert len(set(forwards.values())) == len(order)


def test_same_bytes_in_another_process(scenes: dict[int, StreetScene]) -> None:
    code = (
        "import hashlib, sys; from calibration.streets import StreetScene;"
        f"f = StreetScene(1, {HEIGHT}, {WIDTH}).render(5);"
        "print(hashlib.sha256(f.bgr.tobytes() + f.labels.tobytes()).hexdigest());"
        "heavy = {'torch', 'onnx', 'nncf', 'openvino', 'onnxruntime', 'pydantic', 'scipy'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=root,
        env={"PYTHONHASHSEED": "77", "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split("\n")[:2] == [digest(scenes[1].render(5)), "[]"]


def test_frames_are_new_arrays(scenes: dict[int, StreetScene]) -> None:
    first = scenes[0].render(3)
    before = digest(first)
    scenes[0].render(4)
    assert digest(first) == before


def test_other_seeds_are_other_streets(scenes: dict[int, StreetScene]) -> None:
    assert len({digest(scene.render(0)) for scene in scenes.values()}) == len(SEEDS)
    assert len({scene.light.name for scene in scenes.values()}) == len(SEEDS)


# --- labels


def test_labels_hold_scored_ids_only(sample: list[StreetFrame]) -> None:
    for frame in sample:
        assert frame.bgr.shape == (HEIGHT, WIDTH, 3)
        assert frame.labels.shape == (HEIGHT, WIDTH)
        assert frame.bgr.dtype == frame.labels.dtype == np.uint8
        assert set(np.unique(frame.labels)) <= SCORED


def test_every_class_occurs_with_a_usable_share(sample: list[StreetFrame]) -> None:
    train = np.stack([label_ids_to_train_ids(frame.labels) for frame in sample])
    share = np.bincount(train.ravel(), minlength=19) / train.size
    frames = np.array([[(t == c).any() for c in range(19)] for t in train]).mean(0)
    scarce = {
        name: (round(float(s), 5), round(float(f), 2))
        for name, s, f in zip(CLASS_NAMES, share, frames, strict=True)
        if s < 0.0005 or f < 0.2
    }
    assert scarce == {}
    assert share.max() < 0.55


def test_the_picture_is_not_flat(sample: list[StreetFrame]) -> None:
    """Every large class varies in colour within a frame, beyond the sensor's grain."""
    for frame in sample[::7]:
        smooth = cv2.GaussianBlur(frame.bgr, (5, 5), 0).astype(np.float64)
        for label in (ids.ROAD, ids.BUILDING, ids.VEGETATION):
            mask = frame.labels == label
            if mask.sum() > 2000:
                assert smooth[mask].std(0).max() > 2.0


def ground(
    scene: StreetScene, index: int
) -> Iterator[tuple[int, npt.NDArray[np.float64], float, float]]:
    """Row, sideways place of its pixels, distance along the road, metres per pixel: recomputed.

    Written from the pinhole equations alone: z = f h / (row - horizon), and u follows from the
    column; the bend is summed here once more.
    """
    view = scene.view(index)
    bend = view.bend

    def centre(s: float) -> float:
        return float(np.dot(bend.amplitudes, np.sin(np.multiply(bend.waves, s) + bend.phases)))

    eps = 1e-5
    slope = (centre(view.s + eps) - centre(view.s - eps)) / (2 * eps)
    columns = np.arange(WIDTH, dtype=np.float64)
    for row in range(int(view.horizon) + 12, HEIGHT):
        z = view.lens.focal * view.height / (row - view.horizon)
        s = view.s + z
        aside = centre(s) - centre(view.s) - slope * z
        u = (columns - (WIDTH - 1) / 2) * z / view.lens.focal + view.u - aside
        yield row, u, s, z / view.lens.focal


@pytest.mark.parametrize("seed", SEEDS)
def test_flat_classes_lie_where_the_plan_says(scenes: dict[int, StreetScene], seed: int) -> None:
    scene = scenes[seed]
    plan, (left, right) = scene.plan, scene.plan.sides
    checked = 0
    for index in (0, 211):
        labels, view = scene.render(index).labels, scene.view(index)
        crossings = crossings_near(plan, view.s)
        for row, u, s, pixel in ground(scene, index):
            two_rows = 2 * pixel * (s - view.s) / view.height
            if any(abs(s - c) < plan.crossing_width / 2 + 3.5 + two_rows for c in crossings):
                continue
            # One row and two columns: the edges run through |u| / h columns per row.
            slack = pixel * (2 + np.abs(u - view.u) / view.height)
            inside = (u > -left.kerb + slack) & (u < right.kerb - slack)
            bed = np.abs(u) < plan.median + slack
            pavement = ((u > right.verge + slack) & (u < right.front - slack)) | (
                (u < -left.verge - slack) & (u > -left.front + slack)
            )
            outside = (u > right.kerb + slack) | (u < -left.kerb - slack)
            here = labels[row]
            checked += int(inside.sum() + pavement.sum())
            assert not np.isin(here[inside & ~bed], (ids.SIDEWALK, ids.TERRAIN)).any()
            assert not np.isin(here[pavement], (ids.ROAD, ids.TERRAIN)).any()
            assert not (here[outside] == ids.ROAD).any()
    assert checked > 5000


def test_sky_is_above_the_horizon(scenes: dict[int, StreetScene]) -> None:
    for scene in scenes.values():
        frame, view = scene.render(40), scene.view(40)
        rows = np.flatnonzero((frame.labels == ids.SKY).any(1))
        assert rows.max() < view.horizon + 1


def test_brightness_follows_the_weather(scenes: dict[int, StreetScene]) -> None:
    def brightness(seed: int) -> float:
        return float(np.mean([scenes[seed].render(i).bgr.mean() for i in (0, 100, 200)]))

    night = StreetScene(8, HEIGHT, WIDTH)
    assert night.light.name == "night"
    dark = np.mean([night.render(i).bgr.mean() for i in (0, 100, 200)])
    assert dark < 0.6 * min(brightness(seed) for seed in SEEDS)


# --- video


def agreement(a: Bytes, b: Bytes) -> float:
    return float((a == b).mean())


def test_consecutive_frames_are_a_video(scenes: dict[int, StreetScene]) -> None:
    """Neighbours share nearly all labels, unless something large passes close by; others do not."""
    near: list[float] = []
    for scene in scenes.values():
        for start in (100, 400, 700):
            frames = [scene.render(start + k) for k in (0, 1, 60)]
            near.append(agreement(frames[0].labels, frames[1].labels))
            assert agreement(frames[0].labels, frames[2].labels) < near[-1] - 0.03
            soft = [cv2.GaussianBlur(f.bgr, (9, 9), 0).astype(np.float64) for f in frames]
            assert np.abs(soft[0] - soft[1]).mean() < 0.75 * np.abs(soft[0] - soft[2]).mean()
    assert min(near) > 0.75
    assert np.median(near) > 0.9


def test_the_camera_drives_at_its_speed(scenes: dict[int, StreetScene]) -> None:
    for scene in scenes.values():
        travelled = scene.view(FRAMES_PER_SECOND).s - scene.view(0).s
        assert travelled == pytest.approx(scene.plan.speed)
        assert 8 <= scene.plan.speed <= 13


def test_long_drives_do_not_run_out_of_road(scenes: dict[int, StreetScene]) -> None:
    frame = scenes[0].render(1_000_000)
    assert len(np.unique(frame.labels)) > 8


# --- sizes


@given(st.integers(64, 210), st.integers(64, 330), st.integers(0, 500))
@settings(max_examples=6, deadline=None, phases=[Phase.explicit, Phase.generate])
@example(64, 64, 0)
@example(90, 400, 4)
@example(300, 64, 3)
def test_any_size_and_seed_renders(height: int, width: int, seed: int) -> None:
    frame = StreetScene(seed, height, width).render(seed)
    assert frame.bgr.shape == (height, width, 3)
    assert frame.labels.shape == (height, width)
    assert set(np.unique(frame.labels)) <= SCORED


def test_size_samples_the_same_scene(scenes: dict[int, StreetScene]) -> None:
    large = StreetScene(1, 2 * HEIGHT, 2 * WIDTH).render(60)
    small = scenes[1].render(60)
    assert agreement(large.labels[::2, ::2], small.labels) > 0.93
    shrunk = cv2.resize(large.bgr, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    assert np.abs(shrunk.astype(float) - small.bgr).mean() < 9
