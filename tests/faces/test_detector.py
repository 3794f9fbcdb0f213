"""The detector against facenet-pytorch's own driver of the same networks, on the faces of `sample_media`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from facenet_pytorch import MTCNN
from numpy.typing import NDArray

from batchemo.faces.detector import DetectorKind, MtcnnDetector
from batchemo.faces.pyramid import IntegralPyramid, MipPyramid
from batchemo.records import Faces
from tests.faces.clips import every

CPU = torch.device("cpu")
MIN_FACE_PX = 40

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def stock(frames: list[NDArray[np.uint8]]) -> list[Faces]:
    network = MTCNN(min_face_size=MIN_FACE_PX, keep_all=True, device=CPU)
    found = []
    for frame in frames:
        boxes, scores, points = network.detect(frame, landmarks=True)
        if boxes is None:
            found.append(Faces.none())
        else:
            found.append(Faces(np.asarray(boxes, np.float32), np.asarray(points, np.float32), np.asarray(scores, np.float32)))
    return found


def overlaps(first: Faces, second: Faces) -> NDArray[np.float64]:
    a, b = first.boxes.astype(float), second.boxes.astype(float)
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    sizes = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (a, b)]
    return np.asarray(shared / (sizes[0][:, None] + sizes[1][None] - shared))


def test_exact_is_what_facenet_pytorch_finds(frames: list[NDArray[np.uint8]], stock: list[Faces]) -> None:
    found = MtcnnDetector(min_face_px=MIN_FACE_PX, kind="exact", device=CPU).detect(frames)
    assert sum(map(len, stock)) >= 20
    assert [len(faces) for faces in found] == [len(faces) for faces in stock]
    for ours, theirs in zip(found, stock, strict=True):
        order = overlaps(ours, theirs).argmax(axis=1) if len(ours) else []
        np.testing.assert_allclose(ours.boxes, theirs.boxes[order], atol=1e-3)
        np.testing.assert_allclose(ours.landmarks, theirs.landmarks[order], atol=1e-3)
        np.testing.assert_allclose(ours.scores, theirs.scores[order], atol=1e-3)


@pytest.mark.parametrize("in_videos", [False, True])
def test_fast_finds_the_same_faces_and_no_others(in_videos: bool, frames: list[NDArray[np.uint8]], stock: list[Faces]) -> None:
    detector = MtcnnDetector(min_face_px=MIN_FACE_PX, kind="fast", device=CPU)
    found = [detector.search(frame, None, thorough=False) for frame in frames] if in_videos else detector.detect(frames)
    best = []
    for ours, theirs in zip(found, stock, strict=True):
        assert len(ours) == len(theirs)
        best.extend(overlaps(theirs, ours).max(axis=1, initial=0))
    assert min(best) > 0.6
    assert np.mean(best) >= 0.9


@pytest.mark.parametrize(("kind", "thorough", "expected"), [("fast", True, 9), ("fast", False, 5), ("exact", False, 9)])
def test_what_is_searched_again_soon_is_searched_at_fewer_scales(
    kind: DetectorKind, thorough: bool, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[tuple[int, int]] = []

    def scaled(pyramid: MipPyramid | IntegralPyramid, height: int, width: int) -> torch.Tensor:
        sizes.append((height, width))
        return real[type(pyramid)](pyramid, height, width)

    real: dict[type, Callable[..., torch.Tensor]] = {each: each.scaled for each in (MipPyramid, IntegralPyramid)}
    for kind_of_pyramid in real:
        monkeypatch.setattr(kind_of_pyramid, "scaled", scaled)
    MtcnnDetector(min_face_px=40, kind=kind, device=CPU).search(np.zeros((720, 1280, 3), np.uint8), None, thorough=thorough)
    assert len(set(sizes)) == expected


@pytest.mark.parametrize("thorough", [True, False])
def test_a_search_is_of_the_whole_or_of_parts(thorough: bool, frames: list[NDArray[np.uint8]]) -> None:
    detector = MtcnnDetector(min_face_px=MIN_FACE_PX, kind="fast", device=CPU)
    whole = detector.search(frames[0], None, thorough=thorough)
    assert len(whole)
    if thorough:
        np.testing.assert_array_equal(whole.boxes, detector.detect(frames[:1])[0].boxes)
    height, width = frames[0].shape[:2]
    (left, top, _, _), (_, _, right, bottom) = whole.boxes.min(axis=0) - 60, whole.boxes.max(axis=0) + 60
    area = max(0, int(left)), max(0, int(top)), min(width, int(right)), min(height, int(bottom))
    parts = detector.search(frames[0], [area], thorough=thorough)
    assert len(parts) == len(whole)
    assert overlaps(parts, whole).max(axis=1).min() > 0.8
    assert len(detector.search(frames[0], [], thorough=thorough)) == 0


def test_exact_searches_as_it_detects(frames: list[NDArray[np.uint8]]) -> None:
    detector = MtcnnDetector(min_face_px=MIN_FACE_PX, kind="exact", device=CPU)
    for thorough in (True, False):
        found = detector.search(frames[0], None, thorough=thorough)
        np.testing.assert_array_equal(found.boxes, detector.detect(frames[:1])[0].boxes)


def test_largest_faces_come_first_and_small_frames_have_none(frames: list[NDArray[np.uint8]]) -> None:
    detector = MtcnnDetector(min_face_px=MIN_FACE_PX, device=CPU)
    for faces in detector.detect(frames):
        sizes = (faces.boxes[:, 2:] - faces.boxes[:, :2]).prod(axis=1)
        assert (np.diff(sizes) <= 0).all()
    assert [len(faces) for faces in detector.detect([np.zeros((39, 500, 3), np.uint8)] * 2)] == [0, 0]
    assert detector.detect([]) == []


def test_fast_leaves_out_faces_whose_centre_is_not_in_the_picture() -> None:
    entering = every(1, "pan_and_zoom.mp4")[92:97]
    fast, exact = (MtcnnDetector(min_face_px=MIN_FACE_PX, kind=kind, device=CPU).detect(entering) for kind in ("fast", "exact"))
    centres = np.concatenate([(faces.boxes[:, 0] + faces.boxes[:, 2]) / 2 for faces in fast])
    assert len(centres) >= 2
    assert (centres >= 0).all()
    assert sum(map(len, exact)) >= len(centres)


@pytest.mark.parametrize("side", [40, 47, 94])  # 47 * (12 / 47) < 12
def test_a_picture_as_small_as_the_smallest_face_can_be_searched(side: int) -> None:
    assert len(MtcnnDetector(min_face_px=side, device=CPU).detect([np.zeros((side, side, 3), np.uint8)])[0]) == 0
