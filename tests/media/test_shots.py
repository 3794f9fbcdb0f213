"""A cut is a change of the scene; changes of light, pans and a moving face are none."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from batchemo.media.shots import ShotFinder

SCENE = np.full((180, 320, 3), 120, np.uint8)


def cuts(*frames: NDArray[np.uint8]) -> list[bool]:
    shots = ShotFinder()
    return [shots.is_cut(np.ascontiguousarray(frame[:, :, 0])) for frame in frames]


def test_another_scene_is_a_cut_and_the_first_frame_is_none() -> None:
    other = np.asarray(np.tile(np.linspace(0, 60, 320, dtype=np.uint8)[None, :, None], (180, 1, 3)), np.uint8)
    assert cuts(SCENE, SCENE, other, other, SCENE) == [False, False, True, False, True]


def test_a_change_of_light_is_no_cut() -> None:
    assert not any(cuts(*(np.full_like(SCENE, 120 + 10 * step) for step in range(12))))


def test_a_pan_over_a_patterned_wall_is_no_cut() -> None:
    """Nearly every pixel changes much, but the histogram stays."""
    stripes = np.asarray(np.tile((np.arange(320) // 40 % 2 * 200).astype(np.uint8)[None, :, None], (180, 1, 3)), np.uint8)
    assert cuts(stripes, np.roll(stripes, 30, axis=1)) == [False, False]


def test_similar_frames_of_another_size_are_one_shot() -> None:
    assert cuts(SCENE, SCENE[:90]) == [False, False]
