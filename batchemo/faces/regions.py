"""Regions of interest: where a frame has changed since its last search, so that only these regions are searched again."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

Region = tuple[int, int, int, int]
"""Left, top, right, bottom, in px."""

FULL_SEARCH_EVERY = 4
"""Every how many searches the whole frame is searched: no face was lost by that, and static scenes got faster (see docs/benchmarks.md)."""

_CELL_PX = 8
_MIN_CHANGE = 4.0
"""Grey levels (of 255) by which the mean of a cell must differ; usual noise stays far below (see docs/benchmarks.md)."""
_MARGIN_CELLS = 2
"""Margin around changed cells: only a part of a face may have changed."""
_FACE_MARGIN = 0.5
"""Margin around known faces, as a share of their size."""
_STEP_CELLS = 4
"""Regions begin and end at multiples of this: oneDNN prepares its kernels anew for each new input size."""
_MAX_SHARE = 0.9
"""Share of the frame beyond which the whole frame is searched."""


class RegionFinder:
    """Finds the regions of each frame of a shot that must be searched, and assumes that the caller searches them."""

    def __init__(self) -> None:
        self._searched: NDArray[np.float32] | None = None
        self._count = 0

    def reset(self, grey: NDArray[np.uint8]) -> None:
        """Notes that the whole of a frame (uint8 H x W) is searched."""
        self._searched, self._count = _cell_means(grey), 1

    def find(self, grey: NDArray[np.uint8], boxes: NDArray[np.floating]) -> list[Region] | None:
        """Disjoint regions to search, perhaps none; None for the whole frame.

        `grey` uint8 H x W; `boxes` N x 4 (px): where faces were propagated to.
        """
        cells = _cell_means(grey)
        if self._searched is None or cells.shape != self._searched.shape or self._count % FULL_SEARCH_EVERY == 0:
            self.reset(grey)
            return None
        wanted = (np.abs(cells - self._searched) > _MIN_CHANGE).astype(np.uint8)
        wanted = np.asarray(cv2.dilate(wanted, np.ones((2 * _MARGIN_CELLS + 1,) * 2, np.uint8)), np.uint8)
        for low, high in zip(boxes[:, :2], boxes[:, 2:], strict=True):
            margin = _FACE_MARGIN * (high - low)
            left, top = np.floor(np.maximum(low - margin, 0) / _CELL_PX).astype(int)
            right, bottom = np.ceil(np.maximum(high + margin, 0) / _CELL_PX).astype(int)
            wanted[top:bottom, left:right] = 1
        found = _merge_overlapping(_bounding_rectangles(wanted))
        if sum((right - left) * (bottom - top) for left, top, right, bottom in found) > _MAX_SHARE * wanted.size:
            self.reset(grey)
            return None
        self._count += 1
        for left, top, right, bottom in found:
            self._searched[top:bottom, left:right] = cells[top:bottom, left:right]
        ends = (*grey.shape[::-1], *grey.shape[::-1])
        return [cast(Region, tuple(min(side * _CELL_PX, end) for side, end in zip(region, ends, strict=True))) for region in found]


def _cell_means(grey: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean of each cell. Cells are a little smaller if a side is no multiple of theirs; the margin is wider than that shift."""
    height, width = (max(1, -(-side // _CELL_PX)) for side in grey.shape)
    return np.asarray(cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA), np.float32)


def _bounding_rectangles(wanted: NDArray[np.uint8]) -> list[Region]:
    """Rectangles (in cells) around each connected component, widened to whole steps."""
    _, _, groups, _ = cv2.connectedComponentsWithStats(wanted, connectivity=8)
    found = []
    for left, top, width, height, _ in groups[1:].tolist():
        low = (side // _STEP_CELLS * _STEP_CELLS for side in (left, top))
        high = (-(-side // _STEP_CELLS) * _STEP_CELLS for side in (left + width, top + height))
        found.append((*low, *map(min, high, wanted.shape[::-1])))
    return found


def _merge_overlapping(regions: list[Region]) -> list[Region]:
    """Disjoint regions: those that intersect become their common bounding rectangle."""
    merged: list[Region] = []
    for region in regions:
        whole = region
        while overlapping := [other for other in merged if _intersect(whole, other)]:
            merged = [other for other in merged if other not in overlapping]
            lefts, tops, rights, bottoms = zip(whole, *overlapping, strict=True)
            whole = min(lefts), min(tops), max(rights), max(bottoms)
        merged.append(whole)
    return merged


def _intersect(region: Region, other: Region) -> bool:
    return region[0] < other[2] and other[0] < region[2] and region[1] < other[3] and other[1] < region[3]
