"""Re-identification: appearance embeddings, by which views of one person are similar and those of two people are not.

An embedding consists of two parts:
- The face: a small grey thumbnail of the aligned crop, projected by linear discriminant analysis (Fisher 1936; fitted by
  `python -m training reid`), so that pose, light and expression count little.
- The clothes below: histograms of chroma and luma.

It distinguishes a dozen people within a medium, not thousands. Embeddings stay in memory and are never written.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from batchemo.records import AlignedCrops, Faces

PROJECTION = Path(__file__).parent / "weights" / "reid.safetensors"

THUMBNAIL_PX = 12
FACE_SIZE = 64
"""Numbers of an embedding that describe the face; the others describe the clothes."""

_CHROMA_BINS, _LUMA_BINS = 8, 16
EMBEDDING_SIZE = FACE_SIZE + _CHROMA_BINS**2 + _LUMA_BINS

_FACE_WEIGHT, _CHROMA_WEIGHT, _LUMA_WEIGHT = 0.65, 0.22, 0.13
"""Shares in a similarity, fitted by logistic regression on pairs of views from two cameras."""

_CLOTHES_PX = 16
_CLOTHES_HALF_WIDTH, _CLOTHES_TOP, _CLOTHES_BOTTOM = 0.5, 0.25, 0.9
"""The region of the clothes, in heights of the box: half its width about the middle, and its ends below the lower edge."""
_MIN_CLOTHES = 0.6
"""Share of that region that must lie in the picture."""

_INTERVAL_SECONDS, _NEW_SECONDS = 0.19, 0.3
"""A person is embedded now and then, and in every frame while new: better IDF1 than with every frame (see docs/benchmarks.md)."""
_SAME_FACE = 0.5
"""IoU with a face of the previous frame from which it is clearly the same."""

_REDDEST, _BLUEST, _RANGE = 1.2, 0.4, 1.6
"""Upper ends of the histogram's axes, log(red / green) and log(blue / green), and their common length."""


def embed_faces(pixels: NDArray[np.uint8], faces: Faces, crops: AlignedCrops) -> NDArray[np.float32]:
    """Embeddings of the N faces of one frame (RGB uint8 H x W x 3): unit vectors, float32 N x `EMBEDDING_SIZE`.

    The dot product of two is their similarity, at most 1. If the clothes lie outside the picture, the face counts alone.
    """
    embeddings = np.zeros((len(faces), EMBEDDING_SIZE), np.float32)
    for embedding, crop, box in zip(embeddings, crops.pixels, faces.boxes, strict=True):
        clothes = _cut_clothes(pixels, box)
        if clothes is None:
            embedding[:FACE_SIZE] = _embed_face(crop)
        else:
            embedding[:FACE_SIZE] = np.sqrt(_FACE_WEIGHT) * _embed_face(crop)
            embedding[FACE_SIZE:-_LUMA_BINS] = np.sqrt(_CHROMA_WEIGHT) * _chroma_histogram(clothes)
            embedding[-_LUMA_BINS:] = np.sqrt(_LUMA_WEIGHT) * _luma_histogram(clothes)
    return embeddings


class ReidSampler:
    """Decides in which frames of a video the tracker needs embeddings. Called once per frame, in their order."""

    def __init__(self) -> None:
        self._previous: Faces | None = None
        self._sampled_s = -math.inf
        self._changed_s = -math.inf

    def is_needed(self, faces: Faces, time_s: float) -> bool:
        """False if all of these hold:

        - `faces` were propagated, and none overlaps another.
        - Faces have neither appeared nor vanished within `_NEW_SECONDS`.
        - The last embeddings are at most `_INTERVAL_SECONDS` old.
        """
        if self._previous is None or not _are_same(self._previous, faces):
            self._changed_s = time_s
        self._previous = faces
        is_certain = faces.propagated and time_s - self._changed_s > _NEW_SECONDS and np.count_nonzero(faces.iou(faces)) <= len(faces)
        if is_certain and time_s - self._sampled_s <= _INTERVAL_SECONDS:
            return False
        self._sampled_s = time_s
        return True


def _are_same(previous: Faces, faces: Faces) -> bool:
    """Whether `faces` match those of the previous frame one to one, by IoU."""
    if len(faces) != len(previous):
        return False
    iou = faces.iou(previous)
    return not len(faces) or bool((iou.max(axis=1) >= _SAME_FACE).all() and len(set(iou.argmax(axis=1).tolist())) == len(faces))


def thumbnail(crop: NDArray[np.uint8]) -> NDArray[np.float32]:
    """An aligned crop (48 x 48), downsampled and normalized in brightness and contrast: a unit vector of 144 numbers."""
    small = cv2.resize(crop, (THUMBNAIL_PX, THUMBNAIL_PX), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    return _unit(small - small.mean())


def _embed_face(crop: NDArray[np.uint8]) -> NDArray[np.float32]:
    mean, matrix = _projection()
    # Not by BLAS: its results depend on the number of threads, and all processes must agree to the last bit.
    return _unit(np.einsum("i,ij->j", thumbnail(crop) - mean, matrix))


@functools.cache
def _projection() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean float32 144 and matrix float32 144 x 64 of the discriminant analysis."""
    found = load_file(PROJECTION)
    return found["mean"], found["matrix"]


def _cut_clothes(pixels: NDArray[np.uint8], box: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """The clothes below a face, RGB float32 16 x 16 x 3; None if too little of them lies in the picture."""
    x1, y1, x2, y2 = (float(value) for value in box)
    height = y2 - y1
    middle, half = (x1 + x2) / 2, _CLOTHES_HALF_WIDTH * height
    region = np.array([middle - half, y2 + _CLOTHES_TOP * height, middle + half, y2 + _CLOTHES_BOTTOM * height])
    left, top, right, bottom = np.rint(np.clip(region, 0, np.tile(pixels.shape[1::-1], 2))).astype(int)
    least = _MIN_CLOTHES * 2 * _CLOTHES_HALF_WIDTH * (_CLOTHES_BOTTOM - _CLOTHES_TOP) * height**2
    if not height > 0 or (right - left) * (bottom - top) < max(1.0, least):
        return None
    size = (_CLOTHES_PX, _CLOTHES_PX)
    return cv2.resize(pixels[top:bottom, left:right], size, interpolation=cv2.INTER_AREA).astype(np.float32)


def _chroma_histogram(clothes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Histogram of colours without their brightness: 8 x 8 bins with bilinear shares, square roots of unit norm."""
    logarithms = np.log(clothes.reshape(-1, 3) + 4)  # the offset makes dark pixels grey
    across = (logarithms[:, 0] - logarithms[:, 1] + _RANGE - _REDDEST) / _RANGE
    down = (logarithms[:, 2] - logarithms[:, 1] + _RANGE - _BLUEST) / _RANGE
    place = np.clip(np.stack([across, down]), 0, 1) * (_CHROMA_BINS - 1.001)
    low = place.astype(np.intp)
    share = place - low
    counts = np.zeros(_CHROMA_BINS**2)
    for right, rows in ((0, 1 - share[0]), (1, share[0])):
        for below, columns in ((0, 1 - share[1]), (1, share[1])):
            counts += np.bincount((low[0] + right) * _CHROMA_BINS + low[1] + below, rows * columns, _CHROMA_BINS**2)
    return _unit(np.sqrt(counts))


def _luma_histogram(clothes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Smoothed histogram of brightness: 16 bins, square roots of unit norm."""
    grey = cv2.cvtColor(clothes, cv2.COLOR_RGB2GRAY).ravel()
    counts = np.bincount((grey * (_LUMA_BINS / 256)).astype(np.intp), minlength=_LUMA_BINS).astype(np.float64)
    return _unit(np.sqrt(np.convolve(counts, (0.25, 0.5, 0.25), "same")))


def _unit(values: NDArray[np.floating]) -> NDArray[np.float32]:
    return (values / max(float(np.sqrt((values * values).sum())), 1e-6)).astype(np.float32)
