"""A fingerprint of each frame, by which a row proves later which picture it is about."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from batchemo.records import Frame

_CELLS_ACROSS, _CELLS_DOWN, _ACROSS_PX, _DOWN_PX = 9, 8, 8, 4
"""Cells whose means are compared, and how many pixels of the shrunken picture each has."""
_LEAST_STEP = _ACROSS_PX * _DOWN_PX // 2
"""A cell counts as brighter from half a grey level on: in even areas rounding alone decides below that."""


def fingerprint_of(frame: Frame) -> int:
    """64 bits, as a signed number: a difference hash (Krawetz 2013, *Kind of Like That*) of the luma.

    The frame is shrunk to 72 x 32 pixels, of which 9 x 8 cells are averaged; a bit says whether a cell is brighter than its left neighbour,
    row by row, the first in the highest place. Raises ValueError for a frame that is not decoded.
    """
    return fingerprint_of_grey(frame.grey if not isinstance(frame.picture, np.ndarray) else _grey(frame.picture))


def fingerprint_of_grey(grey: NDArray[np.uint8]) -> int:
    """The same of luma, uint8 H x W."""
    cells = _shrunk(grey).reshape(_CELLS_DOWN, _DOWN_PX, _CELLS_ACROSS, _ACROSS_PX).sum(axis=(1, 3), dtype=np.int32)
    return int(np.packbits(np.diff(cells, axis=1) > _LEAST_STEP).view(">i8")[0])


def distances(ones: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.uint8]:
    """How many of the 64 bits are different, for each pair of two arrays of one shape."""
    # Of negative numbers NumPy counts the bits of their absolute value.
    return np.bitwise_count((ones ^ others).view(np.uint64))


def _grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    # Shrunken first: luma of a whole picture would take a hundred times as long.
    return np.asarray(cv2.cvtColor(_shrunk(pixels), cv2.COLOR_RGB2GRAY), np.uint8)


def _shrunk(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    size = (_CELLS_ACROSS * _ACROSS_PX, _CELLS_DOWN * _DOWN_PX)
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR), np.uint8)
