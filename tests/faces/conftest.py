"""Fixtures of the tests of faces."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.faces.clips import every


@pytest.fixture(scope="package")
def frames() -> list[NDArray[np.uint8]]:
    """Frames of one size: two people, one, none; sharp, shrunk to the smallest face, turned, dark."""
    clips = [*every(20, "two_people_and_a_cut.mp4"), *every(25, "pan_and_zoom.mp4")]
    height, width = clips[0].shape[:2]
    turned = cv2.warpAffine(clips[0], cv2.getRotationMatrix2D((width / 2, height / 2), 17, 1), (width, height))
    small = np.zeros_like(clips[0])
    small[: height // 2, : width // 2] = cv2.resize(clips[0], (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    return [*clips, turned, small, (clips[0] * 0.4).astype(np.uint8), np.zeros_like(clips[0])]
