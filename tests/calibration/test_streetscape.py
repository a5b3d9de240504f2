"""The parts of the street, each against something computed another way."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.streetscape import cars, figures, furniture, ids, traffic, vehicles
from calibration.streetscape.canvas import Canvas, Sprite
from calibration.streetscape.geometry import NEAR, Bend, Lens, View
from calibration.streetscape.layout import Stream
from calibration.streetscape.materials import WEATHERS, Light, clouds, light_of, noise, to_bytes
from calibration.streetscape.meshes import Mesh, turned
from calibration.streetscape.pen import Pen
from calibration.streetscape.planes import SCALE, Texture, along

STRAIGHT = Bend((0.0, 0.0), (0.02, 0.03), (0.0, 0.0))
LENS = Lens.fit(256, 512, 0.9, 0.45)

Floats = npt.NDArray[np.float64]


def view(bend: Bend = STRAIGHT, s: float = 100.0, u: float = 1.7) -> View:
    return View(LENS, bend, s, u, 1.4, 0.0)


def blank(height: int = 256, width: int = 512) -> Canvas:
    canvas = Canvas(height, width)
    canvas.bgr[:], canvas.labels[:] = 0, 0
    return canvas


def light(stratum: int = 0) -> tuple[np.random.Generator, Light]:
    rng = np.random.default_rng(stratum)
    return rng, light_of(rng, stratum)


# --- geometry


@given(st.floats(1, 200), st.floats(-30, 30), st.floats(-1, 25))
def test_straight_roads_project_as_a_pinhole_does(z: float, u: float, h: float) -> None:
    camera = view()
    x, y, scale = camera.at(100.0 + z, u, h)
    matrix = np.array([[LENS.focal, 0, 255.5], [0, LENS.focal, LENS.horizon], [0, 0, 1]])
    expected = matrix @ np.array([u - 1.7, 1.4 - h, z])
    assert np.allclose([x, y], expected[:2] / expected[2], atol=1e-6)
    assert scale == pytest.approx(LENS.focal / z)


@given(st.floats(0.7, 180), st.floats(-20, 20), st.floats(0, 20), st.floats(0, 6.28))
def test_scalar_and_array_projection_agree(z: float, u: float, h: float, phase: float) -> None:
    camera = view(Bend((4.0, 2.0), (0.018, 0.033), (phase, 2 * phase)))
    one = camera.at(camera.s + z, u, h)[:2]
    many = camera.project(np.array([camera.s + z]), np.array([u]), np.array([h]))[0]
    assert np.allclose(one, many, atol=1e-6)


def test_bends_curve_gently_and_start_along_the_camera() -> None:
    bend = Bend((4.0, 2.0), (0.018, 0.033), (0.3, 1.0))
    camera = view(bend, u=0.0)
    near = camera.shifts(camera.s + np.array([0.0, 0.01]))
    assert np.allclose(near, 0, atol=1e-6)
    s = np.linspace(0, 500, 20001)
    curvature = np.gradient(np.gradient(bend.offsets(s), s), s)[2:-2]
    assert np.abs(curvature).max() < 1 / 150


def test_points_behind_the_camera_stay_finite() -> None:
    points = view().project(np.array([-50.0, 99.0, 100.0]), np.array([5.0]), 2.0)
    assert np.isfinite(points).all()
    assert np.allclose(points, view().project(np.full(3, 100.0 + NEAR), np.array([5.0]), 2.0))


# --- canvas


def coverage(sprite: Sprite, x: float, y: float, scale: float) -> Floats:
    """Exact-area coverage of a sprite placed on a 64x64 canvas, by 16x16 samples a pixel."""
    cover = 255.0 - sprite.levels[0][0][..., 3]
    fine = (np.arange(64 * 16) + 0.5) / 16 - 0.5
    columns = np.round((fine - x) * sprite.scale / scale + (cover.shape[1] - 1) / 2).astype(int)
    rows = np.round((fine - y) * sprite.scale / scale + cover.shape[0] - 0.5).astype(int)
    inside = ((rows >= 0) & (rows < cover.shape[0]))[:, None] & (
        (columns >= 0) & (columns < cover.shape[1])
    )
    taken = cover[np.clip(rows, 0, cover.shape[0] - 1)][:, np.clip(columns, 0, cover.shape[1] - 1)]
    return np.asarray((taken * inside / 255).reshape(64, 16, 64, 16).mean((1, 3)))


@pytest.mark.parametrize(("scale", "x", "y"), [(30.0, 31.3, 60.2), (17.0, 20.7, 50.0), (9, 40, 40)])
def test_sprites_claim_the_pixels_they_cover_by_half(scale: float, x: float, y: float) -> None:
    pen = Pen(1.0, 1.6, 60, ids.PERSON)
    pen.disc((0, 0.8), (0.35, 0.7), (40, 90, 200))
    canvas = blank(64, 64)
    canvas.sprite(pen.sprite(), x, y, scale, mirror=False)
    exact = coverage(pen.sprite(), x, y, scale)
    claimed = canvas.labels == ids.PERSON
    assert set(np.unique(canvas.labels)) == {0, ids.PERSON}
    assert not claimed[exact < 0.2].any()
    assert claimed[exact > 0.8].all()
    assert abs(claimed.sum() - exact.sum()) < 0.04 * exact.sum() + 2
    assert np.abs(canvas.bgr[..., 2] - 200 * exact).mean() < 3


def test_mirrored_sprites_are_mirror_images() -> None:
    rng, sun = light()
    sprite = furniture.lamp_post(rng, sun)
    plain, mirror = blank(64, 65), blank(64, 65)
    plain.sprite(sprite, 32, 62, 6.0, mirror=False)
    mirror.sprite(sprite, 32, 62, 6.0, mirror=True)
    assert plain.labels.any()
    assert (plain.labels != mirror.labels).any()
    assert np.array_equal(plain.labels, mirror.labels[:, ::-1])


@given(st.floats(-300, 300), st.floats(-300, 300), st.floats(0.5, 400), st.booleans())
@settings(deadline=None)
def test_sprites_may_lie_anywhere(x: float, y: float, scale: float, mirror: bool) -> None:
    pen = Pen(0.5, 0.5, 40, ids.BICYCLE)
    pen.disc((0, 0.25), 0.2, (200, 200, 200))
    canvas = blank(40, 50)
    canvas.sprite(pen.sprite(), x, y, scale, mirror)
    assert set(np.unique(canvas.labels)) <= {0, ids.BICYCLE}


def test_small_sprites_of_several_labels_have_no_holes() -> None:
    rng, sun = light()
    look = figures.Look.draw(rng)
    sprites = [
        figures.bicycle(rng, sun, look, 0.3),
        figures.rider(rng, sun, look, motor=True, away=True),
        *(furniture.sign(rng, sun, kind) for kind in range(9)),
    ]
    for sprite in sprites:
        for scale in (40.0, 11.0, 4.0, 2.0):
            canvas = blank(120, 120)
            canvas.sprite(sprite, 60.3, 110.6, scale, mirror=False)
            opaque = canvas.bgr.max(2) > 0
            claimed = canvas.labels > 0
            assert claimed.any()
            assert not (
                claimed & ~cv2.dilate(opaque.astype(np.uint8), np.ones((3, 3))).astype(bool)
            ).any()


def test_planes_lie_where_their_corners_project() -> None:
    """A checkerboard on a wall: colours and label against the wall's own plane equation."""
    cells = (np.indices((4, 12)).sum(0) % 2 * 200 + 20).astype(np.uint8)
    board = np.repeat(np.repeat(cells, SCALE, 0), SCALE, 1)
    texture = Texture(cv2.merge([board] * 3))
    camera = view()
    for u, start in ((6.0, 108.0), (-6.0, 109.0)):
        canvas = blank()
        along(canvas, camera, texture, start, start + 1.5, start + 11.0, u, ids.WALL)
        rows, columns = np.indices(canvas.labels.shape)
        with np.errstate(divide="ignore"):
            z = LENS.focal * (u - camera.u) / (columns - camera.centre)
        s, h = camera.s + z, camera.height - (rows - camera.horizon) * z / LENS.focal
        pixel = z * z / (LENS.focal * abs(u - camera.u)) + 1e-9
        deep = (s > start + 1.5 + 2 * pixel) & (s < start + 11 - 2 * pixel)
        tall = (h > 2 * z / LENS.focal) & (h < 4 - 2 * z / LENS.focal)
        assert (canvas.labels[deep & tall & (z > 0)] == ids.WALL).all()
        beyond = (s < start + 1.5 - 2 * pixel) | (s > start + 11 + 2 * pixel) | (z < 0)
        assert (canvas.labels[beyond] == 0).all()
        along_cell, up_cell = s - start, 4 - h
        centred = (np.abs(along_cell % 1 - 0.5) < 0.25) & (np.abs(up_cell % 1 - 0.5) < 0.3)
        near = deep & tall & (z > 0) & (z < 16) & centred
        parity = (np.floor(along_cell) + np.floor(up_cell)) % 2
        assert near.sum() > 500
        assert np.abs(canvas.bgr[..., 0][near] - (parity[near] * 200 + 20)).mean() < 25


# --- vehicles


def drawn(vehicle: tuple[Mesh, ...], camera: View, s: float, u: float) -> Canvas:
    canvas = blank()
    there = []
    for mesh in vehicle:
        there.append((mesh, s, u))
        s += mesh.length
    for placed in reversed(traffic.project_all(camera, there)):
        traffic.paint(canvas, placed)
    return canvas


def hull(vehicle: tuple[Mesh, ...], camera: View, s: float, u: float) -> npt.NDArray[np.uint8]:
    """The convex hull, filled, of all corners as the camera sees them."""
    points = []
    for mesh in vehicle:
        a, b, h = np.moveaxis(mesh.corners, -1, 0)
        points.append(camera.project(s + a, u + b, h).reshape(-1, 2))
        s += mesh.length
    mask = np.zeros((256, 512), np.uint8)
    outline = cv2.convexHull(np.concatenate(points).astype(np.float32))
    cv2.fillConvexPoly(mask, np.rint(outline).astype(np.int32), (1,))
    return mask


@pytest.mark.parametrize("u", [-7.0, -3.0, 1.7, 5.0, 9.0])
@pytest.mark.parametrize("turn", [False, True])
def test_vehicles_fill_their_outline(u: float, turn: bool) -> None:
    """No face looks the wrong way: from every side the label fills the hull."""
    rng, sun = light()
    fleet: list[tuple[Mesh, ...]] = [(cars.car(rng, sun),) for _ in range(5)]
    fleet += [vehicles.bus(rng, sun), vehicles.tram(rng, sun), vehicles.truck(rng, sun)]
    for vehicle in fleet:
        if turn:
            vehicle = tuple(turned(mesh) for mesh in reversed(vehicle))
        label = vehicle[0].label
        labels = drawn(vehicle, view(), 114.0, u).labels
        whole = hull(vehicle, view(), 114.0, u)
        assert set(np.unique(labels)) == {0, label}
        assert not labels[cv2.dilate(whole, np.ones((5, 5), np.uint8)) == 0].any()
        # No body is quite convex: it is empty over bonnet and boot and between the wheels.
        assert (labels == label).sum() > 0.75 * whole.sum()


def test_vehicles_are_of_the_size_they_claim() -> None:
    rng, sun = light()
    camera = view()
    scale = LENS.focal / 20.0
    for vehicle in ((cars.car(rng, sun),), vehicles.truck(rng, sun), vehicles.bus(rng, sun)):
        rows, columns = np.nonzero(drawn(vehicle, camera, 120.0, camera.u).labels)
        assert np.ptp(columns) + 1 == pytest.approx(vehicle[0].width * scale, abs=3)
        assert rows.max() == pytest.approx(camera.horizon + camera.height * scale, abs=3)


def test_cars_differ_and_turning_twice_is_nothing() -> None:
    rng, sun = light()
    first, second = cars.car(rng, sun), cars.car(rng, sun)
    assert first.colours != second.colours
    twice = turned(turned(first))
    assert np.allclose(twice.corners, first.corners)
    assert np.allclose(twice.lamps, first.lamps)


# --- layout and materials


@given(
    seed=st.integers(0, 1000), camera=st.floats(-500, 5000), time=st.floats(0, 900),
    speed=st.floats(-12, 12),
)  # fmt: skip
@settings(deadline=None, max_examples=50)
def test_streams_repeat_for_ever_and_show_all_that_is_near(
    seed: int, camera: float, time: float, speed: float
) -> None:
    stream = Stream.draw(np.random.default_rng(seed), 20.0, 3, speed=speed, slack=0.8)
    found = sorted(s for s, *_ in stream.near(camera, time, 120))
    turns = np.arange(-1000, 1000) * stream.period
    every = (stream.offsets[:, None] + speed * time + turns).ravel()
    expected = np.sort(every[(every >= camera - 15) & (every < camera + 120)])
    assert np.allclose(found, expected, atol=1e-5)


def test_streams_deal_variants_evenly() -> None:
    stream = Stream.draw(np.random.default_rng(0), 5.0, 4)
    counts = np.bincount(stream.pick, minlength=4)
    assert np.ptp(counts) <= 1


def test_every_weather_is_reached_by_nearby_seeds() -> None:
    names = {light_of(np.random.default_rng(0), k).name for k in range(len(WEATHERS))}
    assert names == {"sunny", "cloudy", "overcast", "rain", "dusk", "night", "fog"}


def test_noise_tiles_and_has_its_promised_spread() -> None:
    field = noise(np.random.default_rng(0), 256, 256, (8, 8))
    assert field.dtype == np.float32
    assert abs(float(field.mean())) < 0.1
    assert 0.5 < float(field.std()) < 1.2
    inner = np.abs(np.diff(field, axis=0)).max()
    assert np.abs(field[0] - field[-1]).max() < 1.5 * inner
    soft = clouds(np.random.default_rng(0), 90, 130, 60, 4)
    assert soft.shape == (90, 130)
    assert abs(float(soft.mean())) < 1.5
    assert 0.2 < float(soft.std()) < 1.6


def test_bytes_are_rounded_and_clipped() -> None:
    values = np.array([[-3.0, 0.4, 0.6, 254.4, 255.0, 400.0]], np.float32)
    assert to_bytes(values).tolist() == [[0, 0, 1, 254, 255, 255]]
