"""Moving, hidden and crossing faces keep their ids; cuts and long gaps end tracks; people who return are re-identified."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from batchemo.faces.tracker import GALLERY_SIZE, TRACK_GAP_SECONDS, Tracker
from batchemo.records import Faces

SIZE = 60
Place = tuple[float, float]


def embedding(person: int) -> NDArray[np.float32]:
    """An embedding of that person alone."""
    noise = np.random.default_rng(person).normal(size=144)
    return (noise / np.linalg.norm(noise)).astype(np.float32)


def blend(first: int, second: int, share: float) -> NDArray[np.float32]:
    """An embedding similar to both people."""
    mixed = (1 - share) * embedding(first) + share * embedding(second)
    return np.asarray(mixed / np.linalg.norm(mixed), np.float32)


def boxed(places: Sequence[Place], size: float = SIZE) -> Faces:
    boxes = np.array([[x, y, x + size, y + size] for x, y in places], np.float32).reshape(-1, 4)
    return Faces(boxes, np.zeros((len(boxes), 5, 2), np.float32), np.ones(len(boxes), np.float32))


def update(tracker: Tracker, time_s: float, people: Sequence[tuple[int, Place]], *, cut: bool = False) -> list[int]:
    """The ids of `people`, each a person and the upper left corner of their face."""
    embeddings = np.array([embedding(person) for person, _ in people], np.float32).reshape(-1, 144)
    ids = tracker.update(time_s, boxed([place for _, place in people]), embeddings, cut=cut)
    assert ids.dtype == np.int32
    return [int(track_id) for track_id in ids]


@pytest.fixture(params=[True, False], ids=["appearance", "motion"])
def tracker(request: pytest.FixtureRequest) -> Tracker:
    return Tracker(appearance=request.param)


def test_a_moving_face_is_one_track(tracker: Tracker) -> None:
    assert {update(tracker, step / 25, [(1, (4.0 * step, 40))])[0] for step in range(50)} == {1}
    assert tracker.count == 1


def test_ids_begin_at_1_in_the_order_of_faces(tracker: Tracker) -> None:
    assert update(tracker, 0, [(1, (0, 0)), (2, (100, 0)), (3, (200, 0))]) == [1, 2, 3]
    assert update(tracker, 0.04, [(3, (200, 0)), (1, (0, 0)), (2, (100, 0))]) == [3, 1, 2]
    assert update(tracker, 0.08, []) == []


@pytest.mark.parametrize(("hidden_s", "same"), [(0.2, True), (TRACK_GAP_SECONDS, True), (TRACK_GAP_SECONDS + 0.06, False), (3.0, False)])
def test_without_embeddings_a_short_gap_is_bridged_and_a_long_one_not(hidden_s: float, same: bool) -> None:
    """A face seen at 0, then frames without, then again."""
    tracker = Tracker(appearance=False)
    update(tracker, 0.0, [(1, (100, 50))])
    for step in range(1, round(hidden_s * 25)):
        update(tracker, step / 25, [])
    assert update(tracker, hidden_s, [(1, (102, 51))]) == [1 if same else 2]


@pytest.mark.parametrize("away_s", [0.4, 2.0, 30.0])
def test_a_person_who_returns_is_reidentified_and_a_stranger_is_not(away_s: float) -> None:
    for person, expected in ((1, 1), (2, 2)):
        tracker = Tracker()
        update(tracker, 0.0, [(1, (100, 50))])
        for step in range(1, round(away_s * 5)):
            update(tracker, step / 5, [])
        assert update(tracker, away_s, [(person, (400, 51))]) == [expected]


def test_without_embeddings_a_cut_ends_all_tracks_though_faces_stand_in_the_same_place() -> None:
    tracker = Tracker(appearance=False)
    update(tracker, 0, [(1, (100, 50))])
    assert update(tracker, 0.04, [(1, (100, 50))], cut=True) == [2]
    assert update(tracker, 0.08, [(1, (100, 50))]) == [2]


def test_after_a_cut_only_embeddings_count() -> None:
    """The people change places, and a third one comes."""
    tracker = Tracker()
    update(tracker, 0, [(1, (100, 50)), (2, (300, 50))])
    assert update(tracker, 0.04, [(2, (100, 50)), (1, (300, 50)), (3, (200, 50))], cut=True) == [2, 1, 3]
    assert update(tracker, 0.08, [(3, (100, 50))], cut=True) == [3]


def test_motion_decides_in_frames_without_embeddings() -> None:
    tracker = Tracker()
    update(tracker, 0, [(1, (100, 50)), (2, (300, 50))])
    for step in range(1, 6):
        assert tracker.update(step / 25, boxed([(100 + 4 * step, 50), (300 - 4 * step, 50)]), None, cut=False).tolist() == [1, 2]
    assert update(tracker, 0.24, [(2, (100, 50)), (1, (300, 50))], cut=True) == [2, 1], "embeddings are kept"


def test_a_track_is_reidentified_by_embeddings_that_came_later() -> None:
    tracker = Tracker()
    assert tracker.update(0, boxed([(100, 50)]), None, cut=False).tolist() == [1]
    assert update(tracker, 0.04, [(1, (101, 50))]) == [1]
    assert update(tracker, 0.08, [(2, (101, 50))], cut=True) == [2]
    assert update(tracker, 0.12, [(1, (300, 50))], cut=True) == [1]


def test_an_embedding_between_two_people_starts_a_track() -> None:
    tracker = Tracker()
    update(tracker, 0, [(1, (100, 50)), (2, (300, 50))])
    between, nearer = blend(1, 2, 0.5), blend(1, 2, 0.2)
    assert tracker.update(0.04, boxed([(100, 50)]), between[None], cut=True).tolist() == [3]
    tracker = Tracker()
    update(tracker, 0, [(1, (100, 50)), (2, (300, 50))])
    assert tracker.update(0.04, boxed([(100, 50)]), nearer[None], cut=True).tolist() == [1]


def test_embeddings_of_occluded_faces_are_not_kept() -> None:
    """A person passes before another: the embeddings of both are mixtures, and afterwards both are re-identified."""
    tracker = Tracker()
    update(tracker, 0, [(1, (100, 50)), (2, (300, 50))])
    for step in range(1, 40):
        mixed = np.stack([blend(1, 2, 0.45), blend(2, 1, 0.45)])
        tracker.update(step / 25, boxed([(100, 50), (130, 50)]), mixed, cut=False)
    assert update(tracker, 1.7, [(2, (300, 50)), (1, (100, 50))], cut=True) == [2, 1]


def test_people_who_cross_keep_their_ids(tracker: Tracker) -> None:
    for step in range(61):
        ids = update(tracker, step / 25, [(1, (10 + 4.0 * step, 50)), (2, (250 - 4.0 * step, 54))])
        assert ids == [1, 2], f"at step {step}"


def test_another_face_in_a_far_place_is_another_person(tracker: Tracker) -> None:
    update(tracker, 0, [(1, (0, 0))])
    assert update(tracker, 0.04, [(2, (200, 100))]) == [2]


def test_a_fast_move_is_tracked_up_to_a_limit() -> None:
    for shift, expected in ((0.3, 1), (1.1, 2)):
        tracker = Tracker(appearance=False)
        update(tracker, 0, [(1, (100, 50))])
        assert update(tracker, 0.04, [(1, (100 + shift * SIZE, 50))]) == [expected]


@pytest.mark.parametrize("fps", [0.2, 1, 2])
def test_sparse_sampling_keeps_ids(tracker: Tracker, fps: float) -> None:
    rng = np.random.default_rng(0)
    for step in range(20):
        jitter = rng.uniform(-6, 6, 4)
        people = [(1, (50 + jitter[0], 50 + jitter[1])), (2, (200 + jitter[2], 60 + jitter[3]))]
        assert update(tracker, step / fps, people) == [1, 2]


def test_empty_boxes_and_zero_embeddings_do_no_harm(tracker: Tracker) -> None:
    faces = Faces(np.zeros((2, 4), np.float32), np.zeros((2, 5, 2), np.float32), np.ones(2, np.float32))
    for step in range(3):
        assert len(set(tracker.update(step / 25, faces, np.zeros((2, 144), np.float32), cut=False).tolist())) == 2


def test_memory_does_not_grow_with_the_medium() -> None:
    """A new person in every frame, each after a cut."""
    tracker = Tracker()
    for person in range(3 * GALLERY_SIZE):
        assert update(tracker, person / 25, [(person, (100, 50))], cut=True) == [person + 1]
        assert len(tracker._tracks or ()) <= GALLERY_SIZE
    assert update(tracker, 1000, [(3 * GALLERY_SIZE - 2, (100, 50)), (0, (300, 50))], cut=True) == [
        3 * GALLERY_SIZE - 1,
        3 * GALLERY_SIZE + 1,
    ]


def test_the_same_input_gives_the_same_ids() -> None:
    random = np.random.default_rng(0)
    frames = [
        [(int(person), (float(x), 50.0)) for person, x in zip(random.permutation(5)[:3], random.uniform(0, 600, 3), strict=True)]
        for _ in range(60)
    ]
    first, second = ([update(tracker, step / 10, people) for step, people in enumerate(frames)] for tracker in (Tracker(), Tracker()))
    assert first == second


PEOPLE = st.lists(st.tuples(st.integers(1, 4), st.tuples(st.floats(0, 260), st.floats(0, 120))), max_size=5)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0.01, 0.8), PEOPLE), min_size=1, max_size=12))
def test_ids_are_unique_in_a_frame_and_counted_without_holes(frames: list[tuple[float, list[tuple[int, Place]]]]) -> None:
    tracker = Tracker()
    time_s, highest = 0.0, 0
    for elapsed, people in frames:
        time_s += elapsed
        ids = update(tracker, time_s, people)
        assert len(ids) == len(people)
        assert len(set(ids)) == len(ids)
        new = sorted(track_id for track_id in ids if track_id > highest)
        assert new == list(range(highest + 1, highest + 1 + len(new)))
        highest += len(new)
        assert tracker.count == highest
        assert len(tracker._tracks or ()) <= GALLERY_SIZE
