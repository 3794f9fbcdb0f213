"""The fingerprint identifies the picture of a frame, however it was decoded."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from batchemo.media.decode import open_source
from batchemo.media.fingerprint import fingerprint_of, fingerprint_of_grey, hamming_distances
from batchemo.records import Frame, Medium

SAMPLES = Path(__file__).parents[2] / "sample_media"


def photograph() -> NDArray[np.uint8]:
    return np.asarray(Image.open(SAMPLES / "grace_hopper.jpg").convert("RGB"), np.uint8)


def distance(one: int, other: int) -> int:
    return bin((one ^ other) & (2**64 - 1)).count("1")


def of(pixels: NDArray[np.uint8]) -> int:
    return fingerprint_of(Frame(0, 0.0, np.ascontiguousarray(pixels)))


def test_bits_say_where_it_grows_brighter_to_the_right() -> None:
    """Nine columns of cells: each brighter than its left neighbour, each darker, and only the first step of the first row brighter."""
    steps = np.repeat(np.arange(9, dtype=np.uint8) * 20, 8)
    rising = np.tile(steps, (32, 1))
    assert fingerprint_of_grey(rising) == -1
    assert fingerprint_of_grey(np.ascontiguousarray(rising[:, ::-1])) == 0
    first = np.full((32, 72), 50, np.uint8)
    first[:4, :8] = 40
    assert fingerprint_of_grey(first) == -(2**63)
    first[:4, :8], first[28:, 64:] = 50, 60
    assert fingerprint_of_grey(first) == 1


def test_it_agrees_with_means_that_pillow_makes() -> None:
    picture = photograph()
    cells = np.asarray(Image.fromarray(picture).convert("L").resize((9, 8), Image.Resampling.BOX), float)
    expected = int("".join(str(int(step > 0.5)) for step in np.diff(cells, axis=1).ravel()), 2)
    assert distance(of(picture), expected) <= 8  # a few pixels stand for each cell


@pytest.mark.parametrize(
    "changed",
    [
        lambda p: p[:, ::-1],
        lambda p: p[::-1],
        np.rot90,
        lambda p: np.rot90(p, -1),
        lambda p: np.rot90(p, 2),
        lambda p: cv2.copyMakeBorder(p, 0, 0, 200, 200, cv2.BORDER_CONSTANT),
        lambda p: 255 - p,
    ],
    ids=["mirrored", "upside down", "left", "right", "turned over", "letterboxed", "negative"],
)
def test_other_pictures_have_other_fingerprints(changed: object) -> None:
    assert callable(changed)
    assert distance(of(photograph()), of(changed(photograph()))) >= 12


def test_size_and_quality_hardly_change_the_fingerprint() -> None:
    picture = photograph()
    smaller = cv2.resize(picture, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    coded = cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR)
    assert distance(of(picture), of(np.asarray(smaller, np.uint8))) <= 4
    assert distance(of(picture), of(np.asarray(coded, np.uint8))) <= 4


def test_luma_and_rgb_of_a_video_have_nearly_the_same_fingerprint() -> None:
    path = SAMPLES / "pan_and_zoom.mp4"
    medium = Medium(path, path.name, path.name, "video")
    seen = [(fingerprint_of(frame), of(frame.pixels)) for frame in open_source(medium, decoder="pyav").frames()]
    assert max(distance(luma, colours) for luma, colours in seen) <= 6
    assert len({luma for luma, _ in seen}) > 50


def test_noise_in_uniform_areas_sets_no_bits() -> None:
    noise = np.random.default_rng(0).integers(-1, 2, (180, 320))
    assert fingerprint_of_grey((128 + noise).astype(np.uint8)) == 0


def test_distances_count_bits_of_negative_numbers_too() -> None:
    ones = np.array([-1, 0, -(2**63), 5], np.int64)
    others = np.array([0, 0, 2**62, -6], np.int64)
    assert hamming_distances(ones, others).tolist() == [64, 0, 2, 64]
