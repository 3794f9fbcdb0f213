"""Makes faces unrecognizable, for those who publish."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from batchemo.options import BlurStyle

MARGIN = 0.35
"""Of a box's sides that is hidden more on each side: hair, ears and chin tell people apart, too."""

SOLID = 128
"""Grey level of the opaque style: quiet on light and on dark pictures."""

_CELLS = 4
"""A side: what is left of a face. People are known at some 7 x 10 pixels (Sinha et al. 2006, *Proceedings of the IEEE* 94), machines at a
few more."""


def blur(canvas: NDArray[np.uint8], boxes: NDArray[np.float32], *, style: BlurStyle = "pixels") -> None:
    """Replaces what lies in and around each of `boxes` (float32 N x 4, px) of `canvas` (RGB uint8 H x W x 3): by a few colours that flow
    into each other (`pixels`), or by one colour that has nothing of the face (`solid`)."""
    height, width = canvas.shape[:2]
    for box in boxes:
        x1, y1, x2, y2 = blur_region(box, width=width, height=height)
        region = canvas[y1:y2, x1:x2]
        if not region.size:
            continue
        if style == "solid":
            region[:] = SOLID
        else:
            # Averages of whole cells: nothing finer is left that could be sharpened again.
            few = cv2.resize(region, (_CELLS, _CELLS), interpolation=cv2.INTER_AREA)
            region[:] = cv2.resize(few, (x2 - x1, y2 - y1), interpolation=cv2.INTER_LINEAR)


def blur_region(box: NDArray[np.float32], *, width: int, height: int) -> tuple[int, int, int, int]:
    """What of a picture of that size is replaced for `box` (float32 4): left, top, right, bottom in px."""
    left, top, right, bottom = box.tolist()
    aside, above = MARGIN * (right - left), MARGIN * (bottom - top)
    x1, x2 = np.clip([round(left - aside), round(right + aside)], 0, width).tolist()
    y1, y2 = np.clip([round(top - above), round(bottom + above)], 0, height).tolist()
    return x1, y1, x2, y2
