"""Where a picture has changed since it was last searched: what is still there need not be found again."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

Region = tuple[int, int, int, int]
"""Left, top, right, bottom, in px."""

WHOLE_EVERY = 4
"""Every how many searches the whole picture is searched, whatever has changed. So seven clips in which 1,460 faces are found keep
all that they have when each search is of the whole, and a face before a wall that does not move took a sixth less time in all
(with searches at all scales)."""

_CELL_PX = 8
_LEAST_CHANGE = 4.0
"""Grey levels (of 255) by which the mean of a cell must differ. Noise of 5 levels a pixel moves such means apart by .9."""
_MARGIN_CELLS = 2
"""Around what has changed: a face may do so in part only."""
_FACE_MARGIN = 0.5
"""Around faces that are known, as a share of their size."""
_STEP_CELLS = 4
"""Areas begin and end at multiples of this, so that the networks see few sizes: for each new one they are made ready anew."""
_MOST = 0.9
"""Share of the picture beyond which it is searched whole."""


class RegionFinder:
    """Tells which areas of the next picture of one shot must be searched, and takes it that they are."""

    def __init__(self) -> None:
        self._known: NDArray[np.float32] | None = None
        self._count = 0

    def restart(self, grey: NDArray[np.uint8]) -> None:
        """Says that the whole of a picture (uint8 H x W) is searched."""
        self._known, self._count = _cells(grey), 1

    def areas(self, grey: NDArray[np.uint8], boxes: NDArray[np.floating]) -> list[Region] | None:
        """What to search of a picture (uint8 H x W) in which faces were followed to `boxes` (N x 4, px): areas that share nothing, perhaps
        none at all; None where the whole is to be searched."""
        cells = _cells(grey)
        if self._known is None or cells.shape != self._known.shape or self._count % WHOLE_EVERY == 0:
            self.restart(grey)
            return None
        wanted = (np.abs(cells - self._known) > _LEAST_CHANGE).astype(np.uint8)
        wanted = np.asarray(cv2.dilate(wanted, np.ones((2 * _MARGIN_CELLS + 1,) * 2, np.uint8)), np.uint8)
        for low, high in zip(boxes[:, :2], boxes[:, 2:], strict=True):
            margin = _FACE_MARGIN * (high - low)
            left, top = np.floor(np.maximum(low - margin, 0) / _CELL_PX).astype(int)
            right, bottom = np.ceil(np.maximum(high + margin, 0) / _CELL_PX).astype(int)
            wanted[top:bottom, left:right] = 1
        found = _apart(_rectangles(wanted))
        if sum((right - left) * (bottom - top) for left, top, right, bottom in found) > _MOST * wanted.size:
            self.restart(grey)
            return None
        self._count += 1
        for left, top, right, bottom in found:
            self._known[top:bottom, left:right] = cells[top:bottom, left:right]
        ends = (*grey.shape[::-1], *grey.shape[::-1])
        return [cast(Region, tuple(min(side * _CELL_PX, end) for side, end in zip(area, ends, strict=True))) for area in found]


def _cells(grey: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Means of the cells, which are a little smaller where a side is no multiple of theirs: the margin is wider than what that shifts."""
    height, width = (max(1, -(-side // _CELL_PX)) for side in grey.shape)
    return np.asarray(cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA), np.float32)


def _rectangles(wanted: NDArray[np.uint8]) -> list[Region]:
    """Around each group of neighbouring cells, in cells, widened to whole steps."""
    _, _, groups, _ = cv2.connectedComponentsWithStats(wanted, connectivity=8)
    found = []
    for left, top, width, height, _ in groups[1:].tolist():
        low = (side // _STEP_CELLS * _STEP_CELLS for side in (left, top))
        high = (-(-side // _STEP_CELLS) * _STEP_CELLS for side in (left + width, top + height))
        found.append((*low, *map(min, high, wanted.shape[::-1])))
    return found


def _apart(areas: list[Region]) -> list[Region]:
    """Areas that share nothing, around those that do."""
    done: list[Region] = []
    for area in areas:
        whole = area
        while shared := [other for other in done if _share(whole, other)]:
            done = [other for other in done if other not in shared]
            lefts, tops, rights, bottoms = zip(whole, *shared, strict=True)
            whole = min(lefts), min(tops), max(rights), max(bottoms)
        done.append(whole)
    return done


def _share(area: Region, other: Region) -> bool:
    return area[0] < other[2] and other[0] < area[2] and area[1] < other[3] and other[1] < area[3]
