"""Where a shot ends and another begins."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_CUT_DIFFERENCE, _CUT_HISTOGRAM = 20.0, 0.3
"""A cut changes the grey picture by this much on average (of 255) and moves this share of its histogram. In eight real and made
clips the share is below .13 within a shot (.25 at five frames a second), and above .5 at cuts; pans alone change up to 84 grey
levels, which therefore prove nothing by themselves."""
_THUMBNAIL_PX = 32
_HISTOGRAM_BINS = 32


class ShotFinder:
    """Tells cuts between consecutive frames; `first` and `last` are the thumbnails of the first and latest of them (see `is_cut`)."""

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
    """Whether two thumbnails (grey uint8) of consecutive frames belong to different shots; where there is but one they do not."""
    if before is None or after is None:
        return False
    if before.shape != after.shape:
        return True
    difference = float(cv2.absdiff(before, after).mean())
    return difference >= _CUT_DIFFERENCE and _histogram_distance(before, after) >= _CUT_HISTOGRAM


def _histogram_distance(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> float:
    """Share of the pixels that would have to change their grey, 0 to 1."""
    bins = np.linspace(0, 256, _HISTOGRAM_BINS + 1)
    counts = [np.histogram(picture, bins)[0] for picture in (before, after)]
    return float(np.abs(counts[0] - counts[1]).sum()) / 2 / before.size


def _thumbnail(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(grey, (2 * _THUMBNAIL_PX, _THUMBNAIL_PX), interpolation=cv2.INTER_LINEAR), np.uint8)
