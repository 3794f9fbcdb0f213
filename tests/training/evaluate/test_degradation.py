"""Degradations do what their names say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.patterns import pattern
from training.evaluate.degradation import DEGRADATIONS, degrade


def face_like() -> NDArray[np.uint8]:
    """A bright spot a third of the way from the left and top, on grey, smooth."""
    rows, columns = np.mgrid[0:48, 0:48]
    return np.asarray(60 + 150 * np.exp(-((rows - 16) ** 2 + (columns - 16) ** 2) / 30), np.uint8)


def spot(picture: NDArray[np.uint8]) -> tuple[float, float]:
    """Where the bright spot is: row, column."""
    light = picture.astype(float) - picture.min()
    row, column = (float((light * axis).sum() / light.sum()) for axis in np.mgrid[0:48, 0:48])
    return row, column


@pytest.mark.parametrize(("name", "down", "right"), [("left", 0, -4.8), ("right", 0, 4.8), ("up", -4.8, 0), ("down", 4.8, 0)])
def test_shifts_move_by_a_tenth_of_the_side(name: str, down: float, right: float) -> None:
    before, after = spot(face_like()), spot(DEGRADATIONS[name].change(face_like()))
    assert (after[0] - before[0], after[1] - before[1]) == pytest.approx((down, right), abs=0.3)


def test_scales_and_turns_keep_the_centre() -> None:
    before = np.array(spot(face_like())) - 23.5
    for name, scale in (("larger", 1.1), ("smaller", 0.9)):
        assert np.array(spot(DEGRADATIONS[name].change(face_like()))) - 23.5 == pytest.approx(scale * before, abs=0.3)
    angle = math.radians(8)
    for name, sign in (("anticlockwise", 1), ("clockwise", -1)):
        # Rows count downwards.
        row = before[0] * math.cos(angle) - sign * before[1] * math.sin(angle)
        column = sign * before[0] * math.sin(angle) + before[1] * math.cos(angle)
        assert np.array(spot(DEGRADATIONS[name].change(face_like()))) - 23.5 == pytest.approx((row, column), abs=0.3)


def test_light_is_bent_not_clipped() -> None:
    grey = np.full((48, 48), 128, np.uint8)
    assert (DEGRADATIONS["dark"].change(grey) == round(255 * (128 / 255) ** 2.2)).all()
    assert (DEGRADATIONS["bright"].change(grey) == round(255 * (128 / 255) ** (1 / 2.2))).all()


def test_detail_is_lost() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (48, 48), np.uint8)
    for name, most in (("small", 60), ("blur", 40), ("jpeg", 80)):
        changed = DEGRADATIONS[name].change(noise)
        assert changed.std() < most, name
        assert changed.mean() == pytest.approx(noise.mean(), abs=5)
    assert noise.std() > 70


def test_every_degradation_is_a_change_of_whole_sets() -> None:
    pixels = torch.from_numpy(np.stack([pattern(label, 0) for label in range(3)])[:, None])
    before = pixels.clone()
    for name, degradation in DEGRADATIONS.items():
        changed = degrade(pixels, degradation)
        assert (changed.shape, changed.dtype) == (pixels.shape, torch.uint8)
        assert not torch.equal(changed, pixels), name
    assert torch.equal(pixels, before)
