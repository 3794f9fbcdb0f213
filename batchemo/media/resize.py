"""Fast downsampling by a factor of two."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def downsample2x(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Means of 2 x 2 px (uint8 H x W or H x W x C, at least 2 x 2). An odd last row or column is dropped.

    OpenCV has a fast path for exactly this ratio of even sides (see docs/benchmarks.md).
    """
    height, width = (side // 2 for side in pixels.shape[:2])
    return np.asarray(cv2.resize(pixels[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA), np.uint8)
