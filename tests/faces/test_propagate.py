"""Faces are propagated where they move, and searched for where that is doubtful."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from batchemo.faces import optical_flow
from batchemo.faces.propagate import CONFIRM_SECONDS, SEARCH_FRAMES, SEARCH_SECONDS, propagate_faces
from batchemo.faces.regions import Region
from batchemo.records import Faces, Frame
from tests.made_media import read_pixels

SAMPLES = Path(__file__).parents[2] / "sample_media"
LANDMARKS = np.array([[60, 70], [100, 70], [80, 95], [63, 115], [97, 115]], np.float32)
BOX = np.array([40, 40, 120, 140], np.float32)
FAR = BOX + np.array([170, 60, 170, 60], np.float32)


Box = NDArray[np.float32]


class Searches:
    """A detector that returns given faces in each search, the last ones again and again, and counts its calls.

    It confirms all faces until the `doubt`-th confirmation.
    """

    def __init__(self, *answers: Sequence[Box], doubt: int = 10**9) -> None:
        self.answers = answers
        self.doubt = doubt
        self.count = self.confirmations = 0
        self.regions: list[list[Region]] = []
        self.thorough: list[bool] = []

    def confirm(self, _frame: NDArray[np.uint8], faces: Faces) -> bool:
        assert len(faces)
        self.confirmations += 1
        return self.confirmations < self.doubt

    def search(self, _frame: NDArray[np.uint8], regions: Sequence[Region] | None, *, thorough: bool) -> Faces:
        self.regions += [] if regions is None else [list(regions)]
        self.thorough.append(thorough)
        boxes = self.answers[min(self.count, len(self.answers) - 1)]
        self.count += 1
        landmarks = np.array([LANDMARKS + box[:2] - BOX[:2] for box in boxes], np.float32).reshape(-1, 5, 2)
        return Faces(np.array(boxes, np.float32).reshape(-1, 4), landmarks, np.ones(len(boxes), np.float32))


def propagated(frames: Sequence[NDArray[np.uint8]], searches: Searches, *, fps: float = 25, cuts: Sequence[int] = ()) -> list[Faces]:
    found = list(propagate_faces(((Frame(index, index / fps, pixels), index in cuts) for index, pixels in enumerate(frames)), searches))
    assert [(seen.frame.index, seen.cut) for seen in found] == [(index, index in cuts) for index in range(len(frames))]
    return [seen.faces for seen in found]


@pytest.fixture(scope="module")
def scene() -> NDArray[np.uint8]:
    picture = cv2.cvtColor(read_pixels(SAMPLES / "eileen_collins.jpg"), cv2.COLOR_BGR2RGB)
    return np.asarray(cv2.resize(picture, (320, 240), interpolation=cv2.INTER_AREA), np.uint8)


def changed(scene: NDArray[np.uint8], *, shift: tuple[float, float] = (0, 0), turn: float = 0, scale: float = 1) -> NDArray[np.uint8]:
    """The scene turned and scaled about the face, then shifted (px)."""
    matrix = np.asarray(cv2.getRotationMatrix2D((80, 90), turn, scale), np.float64)
    matrix[:, 2] += shift
    return np.asarray(cv2.warpAffine(scene, matrix, scene.shape[1::-1], borderMode=cv2.BORDER_REFLECT), np.uint8)


def test_a_face_that_moves_is_propagated(scene: NDArray[np.uint8]) -> None:
    searches = Searches([BOX])
    found = propagated([changed(scene, shift=(3.0 * step, -2.0 * step)) for step in range(4)], searches)
    for step, faces in enumerate(found):
        np.testing.assert_allclose(faces.boxes[0], BOX + np.tile([3.0 * step, -2.0 * step], 2), atol=0.5)
        np.testing.assert_allclose(faces.landmarks[0], LANDMARKS + np.array([3.0 * step, -2.0 * step]), atol=0.5)
        assert faces.propagated == (step > 0)
        assert faces.scores.tolist() == [1.0]
    assert searches.count == 1


def flows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with each computation of optical flow."""
    seen: list[int] = []

    def flow(*arguments: Any, **options: Any) -> Any:
        seen.append(len(seen))
        return real(*arguments, **options)

    real = optical_flow.track_points
    monkeypatch.setattr(optical_flow, "track_points", flow)
    return seen


@pytest.mark.parametrize("fps", [24, 25, 30, 50, 60])
def test_small_motion_is_seen_over_some_frames_at_once(fps: float, scene: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = flows(monkeypatch)
    shifts = [40.0 * step / fps for step in range(round(0.24 * fps) + 1)]
    found = propagated([changed(scene, shift=(shift, 0)) for shift in shifts], Searches([BOX]), fps=fps)
    for shift, faces in zip(shifts, found, strict=True):
        np.testing.assert_allclose(faces.boxes[0], BOX + np.array([shift, 0, shift, 0]), atol=0.5)
        np.testing.assert_allclose(faces.landmarks[0], LANDMARKS + np.array([shift, 0]), atol=0.5)
        assert faces.scores.tolist() == [1.0]
    assert [faces.propagated for faces in found[1:]] == [True] * (len(shifts) - 1)
    assert len(seen) == 2


def at_times(times: Sequence[float], pictures: Sequence[NDArray[np.uint8]], searches: Searches) -> list[Faces]:
    frames = [(Frame(index, time_s, pixels), False) for index, (time_s, pixels) in enumerate(zip(times, pictures, strict=True))]
    return [seen.faces for seen in propagate_faces(frames, searches)]


def test_motion_in_between_follows_the_time(scene: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = flows(monkeypatch)
    times = [0.0, 0.01, 0.09, 0.12]
    found = at_times(times, [changed(scene, shift=(50 * time_s, 0)) for time_s in times], Searches([BOX]))
    for time_s, faces in zip(times, found, strict=True):
        np.testing.assert_allclose(faces.boxes[0], BOX + np.array([50 * time_s, 0, 50 * time_s, 0]), atol=0.3)
    assert len(seen) < 3


def test_a_frame_before_a_gap_does_not_wait_for_what_comes_after(scene: NDArray[np.uint8]) -> None:
    times, shifts = [0.0, 0.016, 0.2, 0.21], [0.0, 0.0, 8.0, 8.0]
    found = at_times(times, [changed(scene, shift=(shift, 0)) for shift in shifts], Searches([BOX]))
    for shift, faces in zip(shifts, found, strict=True):
        np.testing.assert_allclose(faces.boxes[0], BOX + np.array([shift, 0, shift, 0]), atol=0.3)


def test_frames_of_the_same_time_are_propagated(scene: NDArray[np.uint8]) -> None:
    searches = Searches([BOX])
    found = at_times([0.0] * 4, [scene] * 4, searches)
    assert [faces.propagated for faces in found] == [False, True, True, True]
    assert searches.count == 1
    for faces in found:
        np.testing.assert_allclose(faces.boxes[0], BOX, atol=0.3)


def test_a_face_that_moves_much_is_propagated_from_each_frame_to_the_next(
    scene: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = flows(monkeypatch)
    shifts = [0, 0, 0, 16, 0, 0, 0]
    found = propagated([changed(scene, shift=(shift, 0)) for shift in shifts], Searches([BOX]))
    for shift, faces in zip(shifts, found, strict=True):
        np.testing.assert_allclose(faces.boxes[0], BOX + np.array([shift, 0, shift, 0]), atol=0.5)
    assert len(seen) > 4


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_face_that_is_hidden_for_one_frame_is_missed_there(at: int, scene: NDArray[np.uint8]) -> None:
    pictures = [scene] * 5
    pictures[at] = hidden(scene)
    found = propagated(pictures, Searches([BOX], [], [BOX]), fps=30)
    assert [len(faces) for faces in found][: at + 1] == [1] * at + [0]


def test_a_face_that_moves_there_and_back_is_propagated(scene: NDArray[np.uint8]) -> None:
    shifts = [0, 0, 10, 0, 0]
    for shift, faces in zip(
        shifts, propagated([changed(scene, shift=(0, shift)) for shift in shifts], Searches([BOX]), fps=30), strict=True
    ):
        np.testing.assert_allclose(faces.boxes[0], BOX + np.array([0, shift, 0, shift]), atol=0.5)


def test_a_face_that_comes_nearer_and_turns_is_propagated(scene: NDArray[np.uint8]) -> None:
    _, faces = propagated([scene, changed(scene, turn=4, scale=1.05)], Searches([BOX]))
    assert faces.propagated
    matrix = cv2.getRotationMatrix2D((80, 90), 4, 1.05)
    np.testing.assert_allclose(faces.landmarks[0], LANDMARKS @ matrix[:, :2].T + matrix[:, 2], atol=0.7)
    sides = faces.boxes[0, 2:] - faces.boxes[0, :2]
    np.testing.assert_allclose(sides, 1.05 * (BOX[2:] - BOX[:2]), rtol=0.02)


@pytest.mark.parametrize("fps", [1, 5, 12, 25, 30, 60, 240])
def test_searches_come_often_enough_and_no_more(fps: float, scene: NDArray[np.uint8]) -> None:
    searches = Searches([BOX])
    found = propagated([scene] * (round(fps) + 1), searches, fps=fps)
    (at,) = np.nonzero([not faces.propagated for faces in found])
    assert len(at) == searches.count
    if len(at) > 1:
        assert np.diff(at).max() <= SEARCH_FRAMES
        assert np.diff(at).max() / fps <= max(SEARCH_SECONDS, 1 / fps) + 0.5 / fps
    assert len(at) <= fps / min(SEARCH_FRAMES, max(1, (SEARCH_SECONDS - 0.5 / fps) * fps)) + 1.001


@pytest.mark.parametrize(("fps", "thorough"), [(1, True), (3, True), (5, False), (25, False)])
def test_frames_far_apart_are_searched_as_pictures_are(fps: float, thorough: bool, scene: NDArray[np.uint8]) -> None:
    searches = Searches([BOX])
    propagated([scene] * 20, searches, fps=fps)
    assert searches.thorough == [True] + [thorough] * (searches.count - 1)


def test_every_shot_begins_with_a_thorough_search(scene: NDArray[np.uint8]) -> None:
    searches = Searches([BOX])
    propagated([scene] * 14, searches, cuts=[5])
    assert searches.thorough == [True, True]


@pytest.mark.parametrize(("fps", "thorough"), [(4, True), (25, False)])
def test_the_last_frame_is_searched_where_others_follow_elsewhere(fps: float, thorough: bool, scene: NDArray[np.uint8]) -> None:
    frames = [(Frame(index, index / fps, scene), False) for index in range(6)]
    searches = Searches([BOX], [BOX, FAR])
    found = list(propagate_faces(frames, searches, search_last=True))
    assert [len(seen.faces) for seen in found][-1] == 2
    assert not found[-1].faces.propagated
    assert searches.thorough[-1] == thorough
    assert len(list(propagate_faces(frames, Searches([BOX], [BOX, FAR])))) == len(found) == 6


@pytest.mark.parametrize("fps", [5, 12, 25, 30, 60, 240])
def test_faces_are_confirmed_between_searches(fps: float, scene: NDArray[np.uint8]) -> None:
    searches = Searches([BOX])
    found = propagated([scene] * (round(fps) + 1), searches, fps=fps)
    assert searches.confirmations + searches.count >= len(found) / fps / (CONFIRM_SECONDS + 0.5 / fps) - 1
    assert searches.confirmations <= searches.count * round(SEARCH_SECONDS / CONFIRM_SECONDS)


def test_nothing_is_confirmed_without_faces(scene: NDArray[np.uint8]) -> None:
    searches = Searches([])
    propagated([scene] * 30, searches)
    assert searches.confirmations == 0


def test_where_nothing_changes_searches_are_of_known_faces_alone(scene: NDArray[np.uint8]) -> None:
    searches = Searches([BOX])
    propagated([scene] * 60, searches)
    (region,) = searches.regions[0]
    assert np.less_equal(region[:2], BOX[:2]).all()
    assert np.greater_equal(region[2:], BOX[2:]).all()
    assert 0 < len(searches.regions) < searches.count


def test_a_doubted_face_is_searched_for_everywhere(scene: NDArray[np.uint8]) -> None:
    searches = Searches([BOX], doubt=1)
    propagated([scene] * 10, searches)
    assert searches.count == 2
    assert not searches.regions


def test_a_face_that_is_doubted_is_searched_for_at_once(scene: NDArray[np.uint8]) -> None:
    searches = Searches([BOX], [], doubt=1)
    assert [len(faces) for faces in propagated([scene] * 10, searches)] == [1, 1, 1, 1, 1, 1, 0, 0, 0, 0]
    assert searches.confirmations == 1


def test_what_a_search_finds_corrects_the_frames_before(scene: NDArray[np.uint8]) -> None:
    found = propagated([scene] * 5, Searches([BOX, FAR], [FAR, BOX + 8]), fps=8)
    for step, faces in enumerate(found[:4]):
        np.testing.assert_allclose(faces.boxes[0], BOX + 2.0 * step, atol=0.3)
        np.testing.assert_allclose(faces.landmarks[0], LANDMARKS + 2.0 * step, atol=0.3)
        np.testing.assert_allclose(faces.boxes[1], FAR, atol=0.3)
        assert faces.propagated == (step > 0)


def test_a_face_that_a_search_finds_elsewhere_is_another(scene: NDArray[np.uint8]) -> None:
    found = propagated([scene] * 5, Searches([BOX], [FAR]), fps=8)
    for faces in found[1:4]:
        assert len(faces) == 2
        assert np.abs(faces.boxes - BOX).max(axis=1).min() < 0.3


@pytest.mark.parametrize("answers", [[[], [BOX]], [[FAR], [BOX, FAR]]])
def test_a_new_face_is_propagated_back_to_the_search_before(answers: list[list[Box]], scene: NDArray[np.uint8]) -> None:
    searches = Searches(*answers)
    frames = [changed(scene, shift=(2.0 * (step - 4), 0)) for step in range(5)]
    found = propagated(frames, searches, fps=8)
    assert searches.count == 2
    known = len(answers[0])
    assert [len(faces) for faces in found] == [known, *[known + 1] * 4]
    for step in range(1, 5):
        distance = np.abs(found[step].boxes - (BOX + np.tile([2.0 * (step - 4), 0], 2))).max(axis=1)
        assert distance.min() < 0.7
        assert found[step].propagated == (step < 4)
        sizes = (found[step].boxes[:, 2:] - found[step].boxes[:, :2]).prod(axis=1)
        assert (np.diff(sizes) <= 1e-3).all()


def test_a_new_face_is_not_propagated_back_over_a_cut_or_to_where_it_cannot_be_seen(scene: NDArray[np.uint8]) -> None:
    assert [len(faces) for faces in propagated([scene] * 3, Searches([], [BOX]), cuts=[2])] == [0, 0, 1]
    found = propagated([blank(scene), blank(scene), scene, scene, scene], Searches([], [BOX]), fps=8)
    assert [len(faces) for faces in found] == [0, 0, 1, 1, 1]


def blank(scene: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.full_like(scene, 90)


def hidden(scene: NDArray[np.uint8]) -> NDArray[np.uint8]:
    covered = scene.copy()
    covered[30:150, 30:110] = np.random.default_rng(0).integers(0, 255, (120, 80, 3))
    return covered


@pytest.mark.parametrize("after", [blank, hidden, lambda scene: changed(scene, shift=(150, 80)), lambda scene: scene[:120]])
def test_a_face_that_cannot_be_propagated_is_searched_for_at_once(
    after: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], scene: NDArray[np.uint8]
) -> None:
    searches = Searches([BOX])
    assert [faces.propagated for faces in propagated([scene, after(scene)], searches)] == [False, False]
    assert searches.count == 2


def test_a_cut_is_searched_at_once_though_nothing_has_moved(scene: NDArray[np.uint8]) -> None:
    assert [faces.propagated for faces in propagated([scene] * 3, Searches([BOX]), cuts=[1])] == [False, False, True]


def test_one_lost_face_of_two_makes_a_search(scene: NDArray[np.uint8]) -> None:
    found = propagated([scene, scene, hidden(scene)], Searches([BOX, FAR]))
    assert [faces.propagated for faces in found] == [False, True, False]


def test_where_there_was_no_face_none_is_propagated(scene: NDArray[np.uint8]) -> None:
    searches = Searches([])
    assert [len(faces) for faces in propagated([scene] * 4, searches)] == [0] * 4
    assert searches.count == 1


def test_large_frames_are_propagated_in_small_ones(scene: NDArray[np.uint8]) -> None:
    large = np.asarray(cv2.resize(scene, None, fx=6, fy=6, interpolation=cv2.INTER_CUBIC), np.uint8)
    _, faces = propagated([large, np.roll(large, 12, axis=1)], Searches([BOX * 6]))
    assert faces.propagated
    np.testing.assert_allclose(faces.boxes[0], BOX * 6 + np.array([12, 0, 12, 0]), atol=2)


def test_nothing_is_held_beyond_its_bound(scene: NDArray[np.uint8]) -> None:
    read = given = 0

    def frames() -> Iterator[tuple[Frame, bool]]:
        nonlocal read
        for index in range(60):
            read += 1
            yield Frame(index, index / 1000, scene), False

    for _ in propagate_faces(frames(), Searches([BOX])):
        assert read - given <= SEARCH_FRAMES + 1
        given += 1
    assert given == 60
