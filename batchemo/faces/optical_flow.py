"""Motion of faces by optical flow: pyramidal Lucas-Kanade, forward-backward check, and one similarity transform per face.

Flow as in Bouguet 2001; the forward-backward check as in Kalal et al. 2010.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
from numpy.typing import NDArray

from batchemo.records import Faces

_LONGEST_SIDE_PX = 640
_GRID = np.stack(np.meshgrid(np.linspace(0.2, 0.8, 4), np.linspace(0.25, 0.85, 4)), axis=-1).reshape(-1, 2).astype(np.float32)
"""Points tracked besides the landmarks, as shares of the box."""
_POINTS = len(_GRID) + 5

_WINDOW_PX, _PYRAMID_LEVELS = 15, 3
_MAX_RETURN_ERROR = 0.03
"""Forward-backward error, as a share of the face's size, beyond which a point is lost."""
_MAX_RESIDUAL = 0.04
"""Distance from the face's transform, as a share of its size, beyond which a point is an outlier."""
_MIN_INLIERS = 0.6
"""Share of the points that must agree with the transform."""
_MAX_SCALE = 1.15
"""Largest change of a face's size, in either direction."""


def downsample_for_flow(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A frame (uint8 H x W) whose longer side is at most 640 px."""
    height, width = grey.shape
    longest = max(height, width)
    if longest > _LONGEST_SIDE_PX:
        scale = _LONGEST_SIDE_PX / longest
        size = max(1, round(width * scale)), max(1, round(height * scale))
        # OpenCV's area mean is fast for exact halves alone; elsewhere its smoothness is not worth twenty times the time.
        exact = size[0] * 2 == width and size[1] * 2 == height
        grey = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA if exact else cv2.INTER_LINEAR), np.uint8)
    return grey


def move_faces(faces: Faces, start: NDArray[np.uint8], end: NDArray[np.uint8], *, scale: float) -> Faces | None:
    """`faces` of one frame where the flow takes them in another; None if one of them is doubtful.

    `start` and `end`: both frames as `downsample_for_flow` returns them, at `scale` of the size to which `faces` refer.
    """
    if start.shape != end.shape:
        return None
    if not len(faces):
        return dataclasses.replace(faces, propagated=True)
    sizes = (faces.boxes[:, 2:] - faces.boxes[:, :2]).mean(axis=1)
    grid = faces.boxes[:, None, :2] + _GRID * (faces.boxes[:, None, 2:] - faces.boxes[:, None, :2])
    points = np.concatenate([faces.landmarks, grid], axis=1) * scale
    moved, valid = track_points(start, end, points.reshape(-1, 2), np.repeat(sizes * scale, _POINTS))
    boxes, landmarks = faces.boxes.copy(), faces.landmarks.copy()
    for index, (source, target, usable) in enumerate(zip(points, moved.reshape(points.shape), valid.reshape(-1, _POINTS), strict=True)):
        transform = _estimate_similarity(source, target, usable, tolerance=_MAX_RESIDUAL * float(sizes[index]) * scale)
        if transform is None:
            return None
        landmarks[index] = _transform(landmarks[index] * scale, transform) / scale
        low, high = faces.boxes[index].reshape(2, 2)
        (centre,) = _transform((low + high)[None] / 2 * scale, transform) / scale
        half = (high - low) / 2 * float(np.hypot(transform[0, 0], transform[1, 0]))
        boxes[index] = np.concatenate([centre - half, centre + half])
        if (centre < 0).any() or (centre * scale >= end.shape[::-1]).any():
            return None
    return Faces(boxes, landmarks, faces.scores, propagated=True)


def track_points(
    start: NDArray[np.uint8], end: NDArray[np.uint8], points: NDArray[np.floating], sizes: NDArray[np.floating]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Where N points (N x 2, px) of `start` are in `end`, and which pass the forward-backward check; `sizes` N (px) of their faces."""
    window = (_WINDOW_PX, _WINDOW_PX)
    before = np.ascontiguousarray(points[:, None], np.float32)
    moved, found, _ = cv2.calcOpticalFlowPyrLK(start, end, before, np.empty_like(before), winSize=window, maxLevel=_PYRAMID_LEVELS)
    returned, back, _ = cv2.calcOpticalFlowPyrLK(end, start, moved, np.empty_like(before), winSize=window, maxLevel=_PYRAMID_LEVELS)
    error = np.hypot(*(returned - before)[:, 0].T)
    valid = (found[:, 0] > 0) & (back[:, 0] > 0) & (error <= _MAX_RETURN_ERROR * sizes)
    return moved[:, 0].astype(np.float32), np.asarray(valid, np.bool_)


def _estimate_similarity(
    source: NDArray[np.float32], target: NDArray[np.float32], usable: NDArray[np.bool_], *, tolerance: float
) -> NDArray[np.float64] | None:
    """The 2 x 3 similarity transform on which enough points agree within `tolerance` px; None without one, or if it scales too much."""
    least = _MIN_INLIERS * len(source)
    if usable.sum() < least:
        return None
    transform = _fit_similarity(source[usable], target[usable])
    inliers = usable & (np.hypot(*(_transform(source, transform) - target).T) <= tolerance)
    if inliers.sum() < least:
        return None
    transform = _fit_similarity(source[inliers], target[inliers])
    scale = float(np.hypot(transform[0, 0], transform[1, 0]))
    return transform if 1 / _MAX_SCALE <= scale <= _MAX_SCALE else None


def _fit_similarity(source: NDArray[np.float32], target: NDArray[np.float32]) -> NDArray[np.float64]:
    """Least squares with points as complex numbers, where a similarity transform is z -> a z + b."""
    z, w = (points[:, 0].astype(np.float64) + 1j * points[:, 1] for points in (source, target))
    centred = z - z.mean()
    a = complex((centred.conj() @ (w - w.mean())) / max(float((centred.conj() @ centred).real), 1e-12))
    b = complex(w.mean() - a * z.mean())
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def _transform(points: NDArray[np.float32], transform: NDArray[np.float64]) -> NDArray[np.float32]:
    return (points @ transform[:, :2].T + transform[:, 2]).astype(np.float32)
