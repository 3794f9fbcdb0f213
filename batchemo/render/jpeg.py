"""Writes JPEG files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from batchemo.atomic import replacing
from batchemo.errors import MediaError


def write_jpeg(path: Path, pixels: NDArray[np.uint8], *, quality: int = 92) -> None:
    """Writes `pixels` (RGB uint8 H x W x 3) to `path`, which appears complete or not at all. `quality` is libjpeg's, 0 to 100.

    Raises MediaError where JPEG cannot hold the picture (more than 65,500 pixels a side), OSError where the disk refuses.
    """
    try:
        good, content = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    except cv2.error:
        good = False
    if not good:
        height, width = pixels.shape[:2]
        raise MediaError("too_large", f"{path}: JPEG cannot hold {width} x {height} pixels; leave the pictures out with --no-annotate")
    with replacing(path) as temporary:
        temporary.write_bytes(content.tobytes())
