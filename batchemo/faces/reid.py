"""The look of a face: a short vector by which views of one person resemble each other, and those of two people do not.

Faces are compared as small grey thumbnails of their aligned crops, projected so that what changes with pose, light and expression
counts little (linear discriminant analysis, Fisher 1936; fitted by `python -m training reid`), and by the colours of what is worn
below. It can tell a dozen people in one medium apart, not one of thousands. Looks live in memory only, and are never written.
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
"""Numbers of a look that describe the face; the others describe the clothes."""

_CHROMA_BINS, _LUMA_BINS = 8, 16
EMBEDDING_SIZE = FACE_SIZE + _CHROMA_BINS**2 + _LUMA_BINS

_FACE_WEIGHT, _CHROMA_WEIGHT, _LUMA_WEIGHT = 0.65, 0.22, 0.13
"""Shares in a similarity. A logistic regression on pairs of views from two cameras chose them."""

_CLOTHES_PX = 16
_SIDEWAYS, _FROM, _TO = 0.5, 0.25, 0.9
"""Where clothes are looked for, in heights of the box: to both sides of its middle, and below its lower edge."""
_MIN_CLOTHES = 0.6
"""Share of that place that must lie in the picture."""

_LOOK_SECONDS, _NEW_SECONDS = 0.19, 0.3
"""Views of a person are gathered as they turn, and most where they are new. Of ten drawn scenes with cuts, returns, crossings and hands,
25 frames a second, IDF1 was .941 so, .933 without the second, and .914 with looks in every frame."""
_GOES_ON = 0.5
"""Overlap (IoU) with a face of the frame before from which it is clearly the same."""

_REDDEST, _BLUEST, _RANGE = 1.2, 0.4, 1.6
"""Logarithms of red and of blue over green where colours stop being told apart, and how far down they are."""


def embed_faces(pixels: NDArray[np.uint8], faces: Faces, crops: AlignedCrops) -> NDArray[np.float32]:
    """The looks of the N faces of one frame (RGB uint8 H x W x 3): unit vectors, float32 N x `EMBEDDING_SIZE`.

    The product of two is their similarity, at most 1. Where the clothes are out of the picture, the face counts alone.
    """
    looks = np.zeros((len(faces), EMBEDDING_SIZE), np.float32)
    for look, crop, box in zip(looks, crops.pixels, faces.boxes, strict=True):
        clothes = _clothes(pixels, box)
        if clothes is None:
            look[:FACE_SIZE] = _face(crop)
        else:
            look[:FACE_SIZE] = np.sqrt(_FACE_WEIGHT) * _face(crop)
            look[FACE_SIZE:-_LUMA_BINS] = np.sqrt(_CHROMA_WEIGHT) * _chroma(clothes)
            look[-_LUMA_BINS:] = np.sqrt(_LUMA_WEIGHT) * _luma(clothes)
    return looks


class ReidSampler:
    """Says in which frames of a film looks are needed to tell who is who; frames come in their order."""

    def __init__(self) -> None:
        self._before: Faces | None = None
        self._looked_s = -math.inf
        self._changed_s = -math.inf

    def wants(self, faces: Faces, time_s: float) -> bool:
        """Not where somebody has looked within `_LOOK_SECONDS`, nobody has come or gone within `_NEW_SECONDS`, and all `faces` have been
        followed, none before another."""
        if self._before is None or not _go_on(self._before, faces):
            self._changed_s = time_s
        self._before = faces
        known = faces.followed and time_s - self._changed_s > _NEW_SECONDS and np.count_nonzero(faces.overlap(faces)) <= len(faces)
        if known and time_s - self._looked_s <= _LOOK_SECONDS:
            return False
        self._looked_s = time_s
        return True


def _go_on(before: Faces, faces: Faces) -> bool:
    """Whether each of `faces` is clearly another one of those of the frame before, and none is missing."""
    if len(faces) != len(before):
        return False
    overlap = faces.overlap(before)
    return not len(faces) or bool((overlap.max(axis=1) >= _GOES_ON).all() and len(set(overlap.argmax(axis=1).tolist())) == len(faces))


def thumbnail(crop: NDArray[np.uint8]) -> NDArray[np.float32]:
    """An aligned crop (48 x 48) as a unit vector of 144 numbers, whatever its brightness and contrast."""
    small = cv2.resize(crop, (THUMBNAIL_PX, THUMBNAIL_PX), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    return _unit(small - small.mean())


def _face(crop: NDArray[np.uint8]) -> NDArray[np.float32]:
    mean, matrix = _projection()
    # Not by BLAS: how it splits a product among threads changes the last bits, and processes must agree.
    return _unit(np.einsum("i,ij->j", thumbnail(crop) - mean, matrix))


@functools.cache
def _projection() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`mean` float32 144 and `matrix` float32 144 x 64."""
    found = load_file(PROJECTION)
    return found["mean"], found["matrix"]


def _clothes(pixels: NDArray[np.uint8], box: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """What is below a face, RGB float32 16 x 16 x 3; None where too little of that is in the picture."""
    x1, _, x2, y2 = (float(value) for value in box)
    height = y2 - float(box[1])
    middle = (x1 + x2) / 2
    place = np.array([middle - _SIDEWAYS * height, y2 + _FROM * height, middle + _SIDEWAYS * height, y2 + _TO * height])
    left, top, right, bottom = np.rint(np.clip(place, 0, np.tile(pixels.shape[1::-1], 2))).astype(int)
    if not height > 0 or (right - left) * (bottom - top) < max(1.0, _MIN_CLOTHES * 2 * _SIDEWAYS * (_TO - _FROM) * height**2):
        return None
    size = (_CLOTHES_PX, _CLOTHES_PX)
    return cv2.resize(pixels[top:bottom, left:right], size, interpolation=cv2.INTER_AREA).astype(np.float32)


def _chroma(clothes: NDArray[np.float32]) -> NDArray[np.float32]:
    """How often each colour occurs, whatever its brightness: 64 numbers, neighbouring bins sharing."""
    logarithms = np.log(clothes.reshape(-1, 3) + 4)  # so that darkness, which has no colour, is grey
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


def _luma(clothes: NDArray[np.float32]) -> NDArray[np.float32]:
    """How often each brightness occurs: 16 numbers, neighbouring bins sharing."""
    grey = cv2.cvtColor(clothes, cv2.COLOR_RGB2GRAY).ravel()
    counts = np.bincount((grey * (_LUMA_BINS / 256)).astype(np.intp), minlength=_LUMA_BINS).astype(np.float64)
    return _unit(np.sqrt(np.convolve(counts, (0.25, 0.5, 0.25), "same")))


def _unit(values: NDArray[np.floating]) -> NDArray[np.float32]:
    return (values / max(float(np.sqrt((values * values).sum())), 1e-6)).astype(np.float32)
