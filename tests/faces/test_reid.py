"""Embeddings are similar in other light and size, dissimilar for other people, and equal in every process."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from batchemo.faces.align import EYE_DISTANCE, EYE_TO_MOUTH, EYES_CENTRE, align_faces
from batchemo.faces.reid import EMBEDDING_SIZE, FACE_SIZE, ReidSampler, embed_faces
from batchemo.records import Faces

SAMPLES = Path(__file__).parents[2] / "sample_media"
PEOPLE = ("eileen_collins", "grace_hopper")

Pixels = NDArray[np.uint8]


def picture(person: str) -> tuple[Pixels, Faces]:
    pixels = np.asarray(cv2.imread(str(SAMPLES / f"{person}.jpg"), cv2.IMREAD_COLOR_RGB), np.uint8)
    box = json.loads((SAMPLES / f"{person}.json").read_text())["frames"][0]["faces"][0]["box"]
    return pixels, faces_at([box])


def faces_at(boxes: list[list[float]]) -> Faces:
    """With landmarks where a face in that box has them."""
    places = np.array(boxes, np.float32).reshape(-1, 4)
    points = [(x * EYE_DISTANCE / 2, y * EYE_TO_MOUTH) for x, y in ((-1, 0), (1, 0), (0, 0.5), (-0.8, 1), (0.8, 1))]
    share = np.array(points, np.float32) + np.array(EYES_CENTRE, np.float32)
    sides = places[:, 3] - places[:, 1]
    corners = np.stack([(places[:, 0] + places[:, 2] - sides) / 2, places[:, 1]], axis=1)
    landmarks = corners[:, None] + share * sides[:, None, None]
    return Faces(places, landmarks.astype(np.float32), np.ones(len(places), np.float32))


def embed(pixels: Pixels, faces: Faces) -> NDArray[np.float32]:
    return embed_faces(pixels, faces, align_faces(pixels, faces))


def scaled(faces: Faces, factor: float) -> Faces:
    return Faces(faces.boxes * np.float32(factor), faces.landmarks * np.float32(factor), faces.scores)


def test_embeddings_are_unit_vectors_one_per_face() -> None:
    pixels, faces = picture(PEOPLE[0])
    found = embed(pixels, Faces.joined([faces, faces_at([[300, 200, 360, 260]])]))
    assert found.shape == (2, EMBEDDING_SIZE)
    assert found.dtype == np.float32
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
    assert embed(pixels, Faces.none()).shape == (0, EMBEDDING_SIZE)


@pytest.mark.parametrize("person", PEOPLE)
def test_light_and_size_hardly_change_an_embedding(person: str) -> None:
    pixels, faces = picture(person)
    before = embed(pixels, faces)[0]
    darker = np.asarray(pixels * 0.75, np.uint8)
    smaller = np.asarray(cv2.resize(pixels, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA), np.uint8)
    assert before @ embed(darker, faces)[0] > 0.85
    assert before @ embed(smaller, scaled(faces, 0.6))[0] > 0.9


def test_two_people_have_dissimilar_embeddings() -> None:
    first, second = (embed(*picture(person))[0] for person in PEOPLE)
    assert first @ second < 0.4


def test_where_clothes_are_out_of_the_picture_the_face_counts_alone() -> None:
    pixels, faces = picture(PEOPLE[0])
    cut_off = pixels[: int(faces.boxes[0, 3]) + 5]
    found = embed(cut_off, faces)[0]
    assert not found[FACE_SIZE:].any()
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_flat_pictures_and_boxes_without_size_do_no_harm(grey: int) -> None:
    flat = np.full((90, 120, 3), grey, np.uint8)
    found = embed(flat, faces_at([[10, 10, 40, 40], [50, 50, 50, 50], [-300, -300, -200, -200], [100, 80, 400, 400]]))
    assert np.isfinite(found).all()


def test_an_embedding_is_equal_alone_among_others_and_in_another_process() -> None:
    pixels, faces = picture(PEOPLE[0])
    alone = embed(pixels, faces)
    among = embed(pixels, Faces.joined([faces_at([[300, 200, 360, 260]]), faces]))
    assert np.array_equal(alone[0], among[1])
    script = (
        "import sys; sys.path[:0] = ['tests']\n"
        "from tests.faces.test_reid import PEOPLE, embed, picture\n"
        "print(embed(*picture(PEOPLE[0])).tobytes().hex())"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == alone.tobytes().hex()


LEFT, RIGHT = [10.0, 10.0, 50.0, 60.0], [100.0, 10.0, 140.0, 60.0]


def propagated(*boxes: list[float]) -> Faces:
    return dataclasses.replace(faces_at(list(boxes)), propagated=True)


def moved(box: list[float], px: float) -> list[float]:
    return [box[0] + px, box[1], box[2] + px, box[3]]


def is_needed(faces: Faces, before: Faces | None, *, after_s: float = 0.04) -> bool:
    """Whether `faces` need embeddings after those `before`, which have been there for a while and were just embedded."""
    sampler = ReidSampler()
    if before is not None:
        assert all(sampler.is_needed(before, time_s) for time_s in (0.0, 0.2, 1.0))
    return sampler.is_needed(faces, 1.0 + after_s)


def test_faces_that_were_clearly_propagated_need_no_embedding() -> None:
    assert not is_needed(propagated(moved(LEFT, 3), moved(RIGHT, -3)), propagated(LEFT, RIGHT))
    assert not is_needed(propagated(moved(RIGHT, 3), moved(LEFT, 3)), faces_at([LEFT, RIGHT])), "in whatever order"
    assert not is_needed(propagated(), propagated())


@pytest.mark.parametrize(
    ("faces", "before"),
    [
        (faces_at([LEFT]), propagated(LEFT)),
        (propagated(LEFT), None),
        (propagated(LEFT, RIGHT), propagated(LEFT)),
        (propagated(LEFT), propagated(LEFT, RIGHT)),
        (propagated(moved(LEFT, 25)), propagated(LEFT)),
        (propagated(LEFT, moved(LEFT, 20)), propagated(LEFT, moved(LEFT, 20))),
        (propagated(moved(LEFT, 8), moved(LEFT, 49)), propagated(moved(LEFT, 8), moved(RIGHT, 60))),
    ],
    ids=["searched", "the first", "one more", "one less", "far away", "one before the other", "another instead"],
)
def test_faces_that_may_be_other_people_need_embeddings(faces: Faces, before: Faces | None) -> None:
    assert is_needed(faces, before)


def test_new_people_are_embedded_in_every_frame_and_later_now_and_then() -> None:
    sampler = ReidSampler()
    sampled = [frame for frame in range(26) if sampler.is_needed(propagated(LEFT), frame / 25)]
    assert sampled == [*range(8), 12, 17, 22]
    assert [sampler.is_needed(propagated(LEFT, RIGHT), 1.04 + frame / 25) for frame in range(9)] == [True] * 8 + [False]
