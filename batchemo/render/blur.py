"""Blurs faces, so that they cannot be recognized."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from batchemo.options import BlurStyle

MARGIN = 0.35
"""Fraction of a bounding box's sides that is blurred in addition on each side: hair, ears and chin identify people, too."""

SOLID = 128
"""Grey level of the `solid` style."""

_CELLS = 4
"""Cells per side that are left of a face. People are recognized at about 7 x 10 pixels (Sinha et al. 2006, *Proceedings of the IEEE*
94), machines at a few more."""


def blur(canvas: NDArray[np.uint8], boxes: NDArray[np.float32], *, style: BlurStyle = "pixels") -> None:
    """Blurs `boxes` (float32 N x 4, px) and their margins in `canvas` (RGB uint8 H x W x 3), in place.

    `pixels`: a gradient of a few colours. `solid`: one colour, which has nothing of the face.
    """
    height, width = canvas.shape[:2]
    for box in boxes:
        x1, y1, x2, y2 = blur_region(box, width=width, height=height)
        region = canvas[y1:y2, x1:x2]
        if not region.size:
            continue
        if style == "solid":
            region[:] = SOLID
        else:
            # Means of whole cells leave no finer detail that could be restored.
            cells = cv2.resize(region, (_CELLS, _CELLS), interpolation=cv2.INTER_AREA)
            region[:] = cv2.resize(cells, (x2 - x1, y2 - y1), interpolation=cv2.INTER_LINEAR)


def blur_region(box: NDArray[np.float32], *, width: int, height: int) -> tuple[int, int, int, int]:
    """The pixels that are blurred for `box` (float32 4) in a picture of that size: left, top, right, bottom."""
    left, top, right, bottom = box.tolist()
    aside, above = MARGIN * (right - left), MARGIN * (bottom - top)
    x1, x2 = np.clip([round(left - aside), round(right + aside)], 0, width).tolist()
    y1, y2 = np.clip([round(top - above), round(bottom + above)], 0, height).tolist()
    return x1, y1, x2, y2
