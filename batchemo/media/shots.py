"""Detects cuts between shots."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_MIN_DIFFERENCE, _MIN_HISTOGRAM_DISTANCE = 20.0, 0.3
"""A cut changes grey levels by this much on average (of 255), and moves this fraction of the histogram. Pans also change grey levels,
but hardly the histogram (see docs/benchmarks.md)."""
_THUMBNAIL_PX = 32
_HISTOGRAM_BINS = 32


class ShotFinder:
    """Detects cuts between consecutive frames. `first` and `last` are thumbnails of the first and latest frame, for `is_cut` across
    segments."""

    def __init__(self) -> None:
        self.first: NDArray[np.uint8] | None = None
        self.last: NDArray[np.uint8] | None = None

    def is_cut(self, grey: NDArray[np.uint8]) -> bool:
        """Whether the next frame (grey uint8 H x W) belongs to another shot than the one before it."""
        before, self.last = self.last, _thumbnail(grey)
        if before is None:
            self.first = self.last
        return is_cut(before, self.last)


def is_cut(before: NDArray[np.uint8] | None, after: NDArray[np.uint8] | None) -> bool:
    """Whether two thumbnails (grey uint8) of consecutive frames belong to different shots; False where one is None."""
    if before is None or after is None:
        return False
    if before.shape != after.shape:
        return True
    difference = float(cv2.absdiff(before, after).mean())
    return difference >= _MIN_DIFFERENCE and _histogram_distance(before, after) >= _MIN_HISTOGRAM_DISTANCE


def _histogram_distance(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> float:
    """Fraction of the pixels, 0 to 1, that would have to change their bin."""
    bins = np.linspace(0, 256, _HISTOGRAM_BINS + 1)
    counts = [np.histogram(picture, bins)[0] for picture in (before, after)]
    return float(np.abs(counts[0] - counts[1]).sum()) / 2 / before.size


def _thumbnail(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(grey, (2 * _THUMBNAIL_PX, _THUMBNAIL_PX), interpolation=cv2.INTER_LINEAR), np.uint8)
