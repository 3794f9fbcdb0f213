"""Perceptual hashes of frames, by which a table row can be checked against its medium later."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from batchemo.records import Frame

_CELLS_ACROSS, _CELLS_DOWN, _ACROSS_PX, _DOWN_PX = 9, 8, 8, 4
"""Cells whose means are compared, and the size in px of a cell in the downscaled picture."""
_MIN_STEP = _ACROSS_PX * _DOWN_PX // 2
"""A cell counts as brighter from half a grey level on; in uniform areas smaller differences are rounding."""


def fingerprint_of(frame: Frame) -> int:
    """64-bit difference hash of the luma, as a signed integer (Krawetz 2013, *Kind of Like That*).

    The frame is downscaled to 72 x 32 px and averaged in 9 x 8 cells. Each bit says whether a cell is brighter than its left neighbour, row
    by row, most significant bit first. Raises ValueError for a frame that is not decoded.
    """
    return fingerprint_of_grey(frame.grey if not isinstance(frame.picture, np.ndarray) else _grey(frame.picture))


def fingerprint_of_grey(grey: NDArray[np.uint8]) -> int:
    """The same of luma, uint8 H x W."""
    cells = _shrink(grey).reshape(_CELLS_DOWN, _DOWN_PX, _CELLS_ACROSS, _ACROSS_PX).sum(axis=(1, 3), dtype=np.int32)
    return int(np.packbits(np.diff(cells, axis=1) > _MIN_STEP).view(">i8")[0])


def hamming_distances(ones: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Number of differing bits, 0 to 64, for each pair of two arrays of one shape."""
    # Unsigned, because NumPy counts the bits of the absolute value.
    return np.bitwise_count((ones ^ others).view(np.uint64))


def _grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    # Downscaled first: luma of a whole picture would take a hundred times as long.
    return np.asarray(cv2.cvtColor(_shrink(pixels), cv2.COLOR_RGB2GRAY), np.uint8)


def _shrink(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    size = (_CELLS_ACROSS * _ACROSS_PX, _CELLS_DOWN * _DOWN_PX)
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR), np.uint8)
