"""Face alignment: grey 48 x 48 crops by landmarks, framed as in FER2013, on which the classifier is trained."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from batchemo.media.resize import halved
from batchemo.records import AlignedCrops, Faces

CROP_PX = 48
"""Side of a crop: FER2013's."""

EYE_DISTANCE, EYE_TO_MOUTH = 0.388, 0.434
"""Distance between the eyes, and from their centre to the mouth's, as shares of the side (measured with MTCNN on FER2013)."""

EYES_CENTRE = (0.51, 0.364)
"""Where the centre of the eyes lies, as shares of the side (measured likewise)."""

_PIXELS_KEPT = 4
"""Large faces are downsampled by 2 before the warp, which is far faster, while this many pixels per crop pixel remain in each direction."""


def align_faces(pixels: NDArray[np.uint8], faces: Faces) -> AlignedCrops:
    """Crops of one frame (grey uint8 H x W, or RGB H x W x 3): upright, 48 x 48 by area means, luma (BT.601).

    Outside the picture its edge is replicated. `sharpness` is the variance of the Laplacian (Pech-Pacheco et al. 2000) of the crop,
    and so independent of the face's size.
    """
    count = len(faces)
    crops = np.empty((count, CROP_PX, CROP_PX), np.uint8)
    sides = np.empty(count, np.float32)
    sharpness = np.empty(count, np.float32)
    for position, points in enumerate(faces.landmarks):
        origin, axis, side = crop_placement(points)
        sides[position] = side
        crops[position] = _warp(pixels, origin, axis, side)
        sharpness[position] = cv2.Laplacian(crops[position], cv2.CV_32F).var()
    return AlignedCrops(crops, sides, sharpness)


def crop_placement(points: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Upper left corner of a face's crop, unit vector along its upper edge, and side (px), from landmarks 5 x 2."""
    left_eye, right_eye, _, mouth_left, mouth_right = points.astype(np.float64)
    eyes, mouth = (left_eye + right_eye) / 2, (mouth_left + mouth_right) / 2
    across, down = right_eye - left_eye, mouth - eyes
    side = max(float(np.hypot(*across)) / EYE_DISTANCE, float(np.hypot(*down)) / EYE_TO_MOUTH, 1.0)
    # Both vectors determine the roll: in profile the eyes are close together, and their line alone is unstable.
    direction = across + np.array([down[1], -down[0]])
    length = float(np.hypot(*direction))
    axis = direction / length if length > 0 else np.array([1.0, 0.0])
    normal = np.array([-axis[1], axis[0]])
    origin = eyes - side * (EYES_CENTRE[0] * axis + EYES_CENTRE[1] * normal)
    return origin, axis, side


def _warp(pixels: NDArray[np.uint8], origin: NDArray[np.float64], axis: NDArray[np.float64], side: float) -> NDArray[np.uint8]:
    window, shift = _window(pixels, origin, axis, side)
    window = np.asarray(cv2.cvtColor(window, cv2.COLOR_RGB2GRAY), np.uint8) if window.ndim == 3 else window
    origin = origin - shift
    while side >= 2 * _PIXELS_KEPT * CROP_PX and min(window.shape[:2]) > 1:
        window, origin, side = halved(window), origin / 2, side / 2
    # A bilinear warp aliases if it shrinks: so it keeps about the face's own resolution, and an area mean of whole blocks follows.
    oversampling = max(1, math.ceil(side / CROP_PX))
    size = CROP_PX * oversampling
    step = side / size
    centre = origin + step / 2 * np.array([axis[0] - axis[1], axis[1] + axis[0]])
    matrix = np.array([[axis[0] * step, -axis[1] * step, centre[0] - 0.5], [axis[1] * step, axis[0] * step, centre[1] - 0.5]])
    patch = cv2.warpAffine(window, matrix, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE)
    small = patch if oversampling == 1 else cv2.resize(patch, (CROP_PX, CROP_PX), interpolation=cv2.INTER_AREA)
    return small.astype(np.uint8, copy=False)


def _window(
    pixels: NDArray[np.uint8], origin: NDArray[np.float64], axis: NDArray[np.float64], side: float
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The part of the picture that the crop can touch, and its corner: cv2.warpAffine rejects pictures beyond 32,767 px."""
    height, width = pixels.shape[:2]
    normal = np.array([-axis[1], axis[0]])
    corners = origin + side * np.array([[0, 0], axis, normal, axis + normal])
    left, top = np.floor(corners.min(axis=0)).astype(int) - 1
    right, bottom = np.ceil(corners.max(axis=0)).astype(int) + 2
    left, right = int(np.clip(left, 0, width - 1)), int(np.clip(right, 1, width))
    top, bottom = int(np.clip(top, 0, height - 1)), int(np.clip(bottom, 1, height))
    return pixels[top : max(bottom, top + 1), left : max(right, left + 1)], np.array([left, top], np.float64)
