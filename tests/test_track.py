"""Who is who: moving, hidden and crossing faces keep their ids, cuts and long gaps end them."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from batchemo.appearance import describe
from batchemo.records import FaceCrops, Faces
from batchemo.track import GAP_SECONDS, Tracker

SIZE = 60
NOTHING = np.zeros((1, 1, 3), np.uint8)
Place = tuple[float, float]


def look(person: int) -> NDArray[np.uint8]:
    """A crop that is that person's alone."""
    noise = np.random.default_rng(person).integers(0, 255, (6, 6), np.uint8)
    return np.asarray(cv2.resize(noise, (48, 48), interpolation=cv2.INTER_CUBIC), np.uint8)


def update(tracker: Tracker, time_s: float, people: Sequence[tuple[int, Place]], *, cut: bool = False) -> list[int]:
    """The ids of `people`, each a person and the upper left corner of their face."""
    boxes = np.array([[x, y, x + SIZE, y + SIZE] for _, (x, y) in people], np.float32).reshape(-1, 4)
    count = len(boxes)
    faces = Faces(boxes, np.zeros((count, 5, 2), np.float32), np.ones(count, np.float32))
    crops = np.array([look(person) for person, _ in people], np.uint8).reshape(-1, 48, 48)
    seen = FaceCrops(crops, np.full(count, SIZE, np.float32), np.ones(count, np.float32))
    ids = tracker.update(time_s, faces, describe(NOTHING, faces, seen), cut=cut)
    assert ids.dtype == np.int32
    return [int(track_id) for track_id in ids]


def test_a_moving_face_is_one_track() -> None:
    tracker = Tracker()
    assert {update(tracker, step / 25, [(1, (4.0 * step, 40))])[0] for step in range(50)} == {1}
    assert tracker.count == 1


def test_ids_begin_at_1_in_the_order_of_faces() -> None:
    tracker = Tracker()
    assert update(tracker, 0, [(1, (0, 0)), (2, (100, 0)), (3, (200, 0))]) == [1, 2, 3]
    assert update(tracker, 0.04, [(3, (200, 0)), (1, (0, 0)), (2, (100, 0))]) == [3, 1, 2]
    assert update(tracker, 0.08, []) == []


@pytest.mark.parametrize(("hidden_s", "same"), [(0.2, True), (GAP_SECONDS, True), (GAP_SECONDS + 0.06, False), (3.0, False)])
def test_a_short_gap_is_bridged_and_a_long_one_not(hidden_s: float, same: bool) -> None:
    """A face seen at 0, then frames without, then again."""
    tracker = Tracker()
    update(tracker, 0.0, [(1, (100, 50))])
    for step in range(1, round(hidden_s * 25)):
        update(tracker, step / 25, [])
    assert update(tracker, hidden_s, [(1, (102, 51))]) == [1 if same else 2]


def test_a_cut_ends_all_tracks_though_faces_stand_in_the_same_place() -> None:
    tracker = Tracker()
    update(tracker, 0, [(1, (100, 50))])
    assert update(tracker, 0.04, [(1, (100, 50))], cut=True) == [2]
    assert update(tracker, 0.08, [(1, (100, 50))]) == [2]


def test_people_who_cross_keep_their_ids() -> None:
    tracker = Tracker()
    for step in range(61):
        ids = update(tracker, step / 25, [(1, (10 + 4.0 * step, 50)), (2, (250 - 4.0 * step, 54))])
        assert ids == [1, 2], f"at step {step}"


def test_another_face_in_a_far_place_is_another_person() -> None:
    tracker = Tracker()
    update(tracker, 0, [(1, (0, 0))])
    assert update(tracker, 0.04, [(1, (200, 100))]) == [2]


def test_a_quick_move_is_followed_only_so_far() -> None:
    for shift, expected in ((0.6, 1), (1.1, 2)):
        tracker = Tracker()
        update(tracker, 0, [(1, (100, 50))])
        assert update(tracker, 0.04, [(1, (100 + shift * SIZE, 50))]) == [expected]


@pytest.mark.parametrize("fps", [0.2, 1, 2])
def test_sparse_sampling_keeps_ids(fps: float) -> None:
    tracker = Tracker()
    rng = np.random.default_rng(0)
    for step in range(20):
        jitter = rng.uniform(-6, 6, 4)
        people = [(1, (50 + jitter[0], 50 + jitter[1])), (2, (200 + jitter[2], 60 + jitter[3]))]
        assert update(tracker, step / fps, people) == [1, 2]


def test_brightness_and_contrast_do_not_change_a_look() -> None:
    tracker = Tracker()
    crops = [look(1), np.asarray(look(1) // 3 + 100, np.uint8)]
    faces = [
        Faces(np.array([[x, 50, x + 60, 110]], np.float32), np.zeros((1, 5, 2), np.float32), np.ones(1, np.float32)) for x in (100, 134)
    ]
    one = np.ones(1, np.float32)
    ids = [
        int(tracker.update(i / 25, faces[i], describe(NOTHING, faces[i], FaceCrops(crops[i][None], one, one)), cut=False)[0])
        for i in range(2)
    ]
    assert ids == [1, 1]


def test_flat_crops_and_empty_boxes_do_no_harm() -> None:
    tracker = Tracker()
    faces = Faces(np.zeros((2, 4), np.float32), np.zeros((2, 5, 2), np.float32), np.ones(2, np.float32))
    crops = FaceCrops(np.zeros((2, 48, 48), np.uint8), np.ones(2, np.float32), np.ones(2, np.float32))
    for step in range(3):
        assert len(set(tracker.update(step / 25, faces, describe(NOTHING, faces, crops), cut=False).tolist())) == 2


PEOPLE = st.lists(st.tuples(st.integers(1, 4), st.tuples(st.floats(0, 260), st.floats(0, 120))), max_size=5)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0.01, 0.8), PEOPLE), min_size=1, max_size=12))
def test_ids_are_unique_in_a_frame_and_counted_without_holes(frames: list[tuple[float, list[tuple[int, Place]]]]) -> None:
    tracker = Tracker()
    time_s, highest = 0.0, 0
    seen: list[tuple[float, int]] = []
    for step, people in frames:
        time_s += step
        ids = update(tracker, time_s, people)
        assert len(ids) == len(people)
        assert len(set(ids)) == len(ids)
        new = sorted(track_id for track_id in ids if track_id > highest)
        assert new == list(range(highest + 1, highest + 1 + len(new)))
        highest += len(new)
        assert tracker.count == highest
        seen = [(at, number) for at, number in [*seen, (time_s, len(ids))] if time_s - at <= max(GAP_SECONDS, 1.5 * step) + 1e-5]
        # What is kept in memory cannot exceed what was seen within the last gap.
        assert len(tracker._tracks) <= sum(number for _, number in seen)
