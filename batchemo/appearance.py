"""What a face looks like, for telling people apart within one medium."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from batchemo.records import FaceCrops, Faces

_LOOK_PX = 12


def describe(pixels: NDArray[np.uint8], faces: Faces, crops: FaceCrops) -> NDArray[np.float32]:
    """A unit vector for each of the N faces of one frame, float32 N x 144, whatever its brightness and contrast."""
    del pixels, faces
    looks = [cv2.resize(crop, (_LOOK_PX, _LOOK_PX), interpolation=cv2.INTER_AREA).astype(np.float32).ravel() for crop in crops.pixels]
    stacked = np.stack(looks) if looks else np.empty((0, _LOOK_PX**2), np.float32)
    stacked = stacked - stacked.mean(axis=1, keepdims=True)
    return np.asarray(stacked / np.maximum(np.linalg.norm(stacked, axis=1, keepdims=True), 1e-6), np.float32)
