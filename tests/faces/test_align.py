"""Crops are framed alike for any place, size and roll of a face, without aliasing."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from batchemo.faces import align
from batchemo.faces.align import CROP_PX, align_faces, crop_placement
from batchemo.records import Faces

EYES_AND_MOUTH = np.array([(14.7, 17.4), (33.3, 17.4), (24.0, 28.0), (16.5, 37.8), (31.5, 37.8)])
"""The usual face in a FER2013 picture: MTCNN's five points, in pixels of 48."""


def placed(scale: float, roll: float, x: float, y: float) -> NDArray[np.float32]:
    """The usual face, `scale` times as large, turned by `roll` degrees about its centre at (x, y)."""
    angle = np.deg2rad(roll)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.asarray((EYES_AND_MOUTH - CROP_PX / 2) @ turn.T * scale + (x, y), np.float32)


def faces_of(*landmarks: NDArray[np.float32]) -> Faces:
    boxes = np.array([[*points.min(axis=0), *points.max(axis=0)] for points in landmarks], np.float32)
    return Faces(boxes.reshape(-1, 4), np.stack(landmarks), np.ones(len(landmarks), np.float32))


def centre_of_light(crop: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Where the light of a crop is, in pixels, the upper left corner of the crop being (0, 0)."""
    light = crop.astype(np.float64)
    rows, columns = np.mgrid[:CROP_PX, :CROP_PX] + 0.5
    return np.asarray([(columns * light).sum() / light.sum(), (rows * light).sum() / light.sum()], np.float64)


@settings(max_examples=25, deadline=None)
@given(
    scale=st.floats(1, 5),
    roll=st.floats(-40, 40),
    x=st.floats(200, 400),
    y=st.floats(200, 280),
    point=st.sampled_from([0, 1, 3, 4]),
)
def test_eyes_and_mouth_land_in_their_places(scale: float, roll: float, x: float, y: float, point: int) -> None:
    """Each is a spot of light in turn."""
    landmarks = placed(scale, roll, x, y)
    picture = np.zeros((480, 640), np.uint8)
    # Landmarks count from the corner of the picture, as boxes do; cv2.circle from the centre of the first pixel.
    place = np.round((landmarks[point].astype(np.float64) - 0.5) * 16).astype(int)
    cv2.circle(picture, (int(place[0]), int(place[1])), round(1.5 * scale * 16), 255, -1, cv2.LINE_AA, shift=4)
    crop = align_faces(np.repeat(picture[:, :, None], 3, axis=2), faces_of(landmarks)).pixels[0]
    assert np.hypot(*(centre_of_light(crop) - EYES_AND_MOUTH[point])) < 1


def test_the_frame_is_the_face() -> None:
    origin, axis, side = crop_placement(placed(3, 0, 300, 200))
    np.testing.assert_allclose(origin, (300 - 72, 200 - 72), atol=1.5)
    np.testing.assert_allclose(axis, (1, 0), atol=1e-3)
    assert side == pytest.approx(144, rel=0.02)


def test_face_px_is_the_side_in_the_picture() -> None:
    crops = align_faces(np.zeros((480, 640, 3), np.uint8), faces_of(placed(1, 10, 100, 100), placed(4, -20, 300, 200)))
    np.testing.assert_allclose(crops.face_px, [48, 192], rtol=0.02)
    assert crops.pixels.shape == (2, 48, 48)
    assert crops.pixels.dtype == np.uint8


@pytest.mark.parametrize("scale", [4.0, 9.3, 20.0])
def test_fine_patterns_average_to_grey(scale: float) -> None:
    """A checkerboard of single pixels: an aliased crop would show stripes."""
    board = np.asarray(np.indices((1000, 1000)).sum(axis=0) % 2 * 255, np.uint8)
    crop = align_faces(np.repeat(board[:, :, None], 3, axis=2), faces_of(placed(scale, 13, 500, 500))).pixels[0]
    assert crop.mean() == pytest.approx(127.5, abs=2)
    assert crop.std() < 12


def smooth_scene(size: int = 241) -> NDArray[np.uint8]:
    noise = np.random.default_rng(3).integers(0, 255, (size, size, 3), np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 5)
    return cv2.normalize(smooth, np.empty_like(smooth), 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


@pytest.mark.parametrize("roll", [-40, -15, 5, 30])
def test_a_rolled_face_gives_the_crop_of_an_upright_one(roll: float) -> None:
    scene = smooth_scene()
    centre = (scene.shape[1] - 1) / 2
    turned = np.asarray(cv2.warpAffine(scene, cv2.getRotationMatrix2D((centre, centre), -roll, 1), scene.shape[1::-1]), np.uint8)
    upright = align_faces(scene, faces_of(placed(2.5, 0, centre + 0.5, centre + 0.5))).pixels[0]
    rolled = align_faces(turned, faces_of(placed(2.5, roll, centre + 0.5, centre + 0.5))).pixels[0]
    assert np.abs(upright.astype(int) - rolled).mean() < 2


def test_quarter_turns() -> None:
    scene = smooth_scene()
    upright = align_faces(scene, faces_of(placed(2.5, 0, 120.5, 120.5))).pixels[0]
    sideways = align_faces(np.ascontiguousarray(np.rot90(scene, -1)), faces_of(placed(2.5, 90, 120.5, 120.5))).pixels[0]
    assert np.abs(upright.astype(int) - sideways).max() <= 3


@pytest.mark.parametrize(("x", "y"), [(0, 0), (240, 10), (10, 240), (-500, 100), (5000, 5000), (1e7, -1e7)])
def test_outside_the_picture_its_edge_goes_on(x: float, y: float) -> None:
    scene = np.full((241, 241, 3), 90, np.uint8)
    crop = align_faces(scene, faces_of(placed(2, 20, x, y))).pixels[0]
    assert set(np.unique(crop)) == {90}


def test_a_window_is_as_good_as_the_picture() -> None:
    """OpenCV refuses to warp pictures beyond 32,767 px."""
    scene = smooth_scene()
    wide = np.zeros((241, 40_000, 3), np.uint8)
    wide[:, 39_000:39_241] = scene
    there = align_faces(wide, faces_of(placed(2, 7, 39_120, 120))).pixels[0]
    here = align_faces(scene, faces_of(placed(2, 7, 120, 120))).pixels[0]
    assert np.abs(there.astype(int) - here).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (5, 5)])
def test_tiny_pictures(size: tuple[int, int]) -> None:
    assert align_faces(np.full((*size, 3), 7, np.uint8), faces_of(placed(2, 0, 3, 3))).pixels.mean() == 7


@pytest.mark.parametrize("points", [np.full((5, 2), 50), np.zeros((5, 2)), np.array([(10, 10), (10, 10), (10, 10), (10, 30), (10, 30)])])
def test_degenerate_landmarks_do_no_harm(points: NDArray[np.int64]) -> None:
    crops = align_faces(np.full((100, 100, 3), 50, np.uint8), faces_of(points.astype(np.float32)))
    assert crops.pixels.mean() == 50
    assert np.isfinite(crops.face_px).all()
    assert (crops.face_px >= 1).all()


def test_grey_is_luma() -> None:
    for colour, luma in (((255, 0, 0), 76), ((0, 255, 0), 150), ((0, 0, 255), 29)):
        scene = np.full((100, 100, 3), colour, np.uint8)
        assert align_faces(scene, faces_of(placed(1, 0, 50, 50))).pixels.mean() == pytest.approx(luma, abs=0.5)


def test_sharpness_falls_with_blur_and_hardly_with_size() -> None:
    scene = cv2.resize(smooth_scene(61), (488, 488), interpolation=cv2.INTER_CUBIC)
    face = faces_of(placed(8, 0, 244, 244))
    sharp, blurred = (float(align_faces(np.asarray(s, np.uint8), face).sharpness[0]) for s in (scene, cv2.GaussianBlur(scene, (0, 0), 25)))
    half = np.asarray(cv2.resize(scene, (244, 244), interpolation=cv2.INTER_AREA), np.uint8)
    assert blurred < sharp / 2
    assert float(align_faces(half, faces_of(placed(4, 0, 122, 122))).sharpness[0]) == pytest.approx(sharp, rel=0.2)


def test_no_faces() -> None:
    crops = align_faces(np.zeros((10, 10, 3), np.uint8), Faces.none())
    assert len(crops) == 0
    assert crops.pixels.shape == (0, 48, 48)


@pytest.mark.parametrize("roll", [0, 17, -70])
@pytest.mark.parametrize("scale", [8.3, 15, 31])
def test_a_large_face_is_halved_before_it_is_turned_and_looks_the_same(scale: float, roll: float, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (126, 126), np.uint8)
    picture = np.asarray(cv2.resize(noise, (2001, 2003), interpolation=cv2.INTER_CUBIC), np.uint8)
    faces = faces_of(placed(scale, roll, 1000, 1001))
    found = align_faces(picture, faces).pixels.astype(int)
    monkeypatch.setattr(align, "_PIXELS_KEPT", 100)
    expected = align_faces(picture, faces).pixels.astype(int)
    assert expected.std() > 10
    assert 0 < np.abs(found - expected).mean() < 1
    assert np.abs(found - expected).max() <= 6


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(0.5, 9), roll=st.floats(-180, 180), x=st.floats(-20, 420), y=st.floats(-20, 320))
def test_colours_give_what_their_grey_gives(scale: float, roll: float, x: float, y: float) -> None:
    colours = np.asarray(cv2.resize(np.random.default_rng(3).integers(0, 256, (30, 40, 3), np.uint8), (400, 300)), np.uint8)
    grey = np.asarray(cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY), np.uint8)
    faces = faces_of(placed(scale, roll, x, y))
    np.testing.assert_array_equal(align_faces(colours, faces).pixels, align_faces(grey, faces).pixels)
