"""Optical flow moves faces by the similarity transform of the picture, and doubts those that vanish."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from batchemo.faces.optical_flow import downsample_for_flow, move_faces, track_points
from batchemo.records import Faces
from tests.faces.clips import SAMPLES

BOX = np.array([40, 40, 120, 140], np.float32)
LANDMARKS = np.array([[60, 70], [100, 70], [80, 95], [63, 115], [97, 115]], np.float32)
FACES = Faces(BOX[None], LANDMARKS[None], np.array([0.9], np.float32))


@pytest.fixture(scope="module")
def scene() -> NDArray[np.uint8]:
    picture = cv2.imread(str(SAMPLES / "eileen_collins.jpg"), cv2.IMREAD_GRAYSCALE)
    return np.asarray(cv2.resize(np.asarray(picture), (320, 240), interpolation=cv2.INTER_AREA), np.uint8)


def warped(scene: NDArray[np.uint8], *, angle: float, zoom: float) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The scene after a similarity transform about the centre of the face, and that transform, 2 x 3."""
    matrix = np.asarray(cv2.getRotationMatrix2D((80, 90), angle, zoom), np.float64)
    return np.asarray(cv2.warpAffine(scene, matrix, scene.shape[::-1], borderMode=cv2.BORDER_REFLECT), np.uint8), matrix


@pytest.mark.parametrize(("angle", "zoom"), [(0, 1.0), (4, 1.05), (-5, 0.95)])
def test_faces_move_by_the_transform_of_the_picture(angle: float, zoom: float, scene: NDArray[np.uint8]) -> None:
    end, matrix = warped(scene, angle=angle, zoom=zoom)
    moved = move_faces(FACES, scene, end, scale=1.0)
    assert moved is not None
    np.testing.assert_allclose(moved.landmarks[0], LANDMARKS @ matrix[:, :2].T + matrix[:, 2], atol=1)
    np.testing.assert_allclose(moved.boxes[0, 2:] - moved.boxes[0, :2], zoom * (BOX[2:] - BOX[:2]), rtol=0.01)
    assert moved.propagated
    assert moved.scores.tolist() == FACES.scores.tolist()


def test_faces_refer_to_the_full_size(scene: NDArray[np.uint8]) -> None:
    faces = Faces(FACES.boxes * 3, FACES.landmarks * 3, FACES.scores)
    moved = move_faces(faces, scene, np.roll(scene, 4, axis=1), scale=1 / 3)
    assert moved is not None
    np.testing.assert_allclose(moved.boxes, faces.boxes + np.array([12, 0, 12, 0]), atol=1)


def test_a_face_that_vanishes_or_changes_its_size_much_is_doubtful(scene: NDArray[np.uint8]) -> None:
    assert move_faces(FACES, scene, np.full_like(scene, 90), scale=1.0) is None
    assert move_faces(FACES, scene, warped(scene, angle=0, zoom=1.25)[0], scale=1.0) is None
    assert move_faces(FACES, scene, scene[:120], scale=1.0) is None


def test_points_in_front_of_nothing_fail_the_forward_backward_check(scene: NDArray[np.uint8]) -> None:
    noise = np.asarray(np.random.default_rng(0).integers(0, 256, scene.shape), np.uint8)
    points, sizes = LANDMARKS.astype(np.float64), np.full(len(LANDMARKS), 90.0)
    assert track_points(scene, np.roll(scene, 2, axis=0), points, sizes)[1].all()
    assert not track_points(scene, noise, points, sizes)[1].any()


@pytest.mark.parametrize(
    ("shape", "expected"), [((240, 320), (240, 320)), ((720, 1280), (360, 640)), ((1000, 700), (640, 448)), ((1, 2000), (1, 640))]
)
def test_large_pictures_are_downsampled(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    assert downsample_for_flow(np.zeros(shape, np.uint8)).shape == expected
