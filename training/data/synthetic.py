"""Synthetic (drawn) faces, to try and test a training without FER2013, which may not be redistributed.

Mouth, brows and eyes show the expression. They vary so much that similar expressions overlap, as in photographs: fear and surprise, sadness
and neutral, anger and disgust.
"""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from batchemo.atomic import replacing
from batchemo.emotion.model import INPUT_PX
from batchemo.records import EMOTIONS

_OVERSAMPLING = 4
_SIDE = INPUT_PX * _OVERSAMPLING


@dataclasses.dataclass(frozen=True, slots=True)
class _Expression:
    """`smile` -1 (corners down) to 1, `gape` and `eyes` 0 (shut) to 1, `brows` -1 (low) to 1 and `frown` -1 (outer ends low) to 1."""

    smile: float
    gape: float
    eyes: float
    brows: float
    frown: float


_TYPICAL = {
    "angry": _Expression(-0.4, 0.15, 0.45, -0.8, 0.9),
    "disgust": _Expression(-0.6, 0.3, 0.25, -0.5, 0.5),
    "fear": _Expression(-0.3, 0.55, 0.95, 0.6, -0.6),
    "happy": _Expression(0.9, 0.35, 0.5, 0.1, 0.0),
    "sad": _Expression(-0.7, 0.0, 0.35, 0.1, -0.8),
    "surprise": _Expression(0.0, 0.95, 1.0, 0.9, 0.0),
    "neutral": _Expression(0.0, 0.0, 0.55, 0.0, 0.0),
}
_SPREAD = 0.22


def draw_face(emotion: str, random: np.random.Generator) -> NDArray[np.uint8]:
    """One face, uint8 48 x 48, framed about as in FER2013."""
    values = dataclasses.astuple(_TYPICAL[emotion])
    expression = _Expression(*(value + random.normal(0, _SPREAD) for value in values))
    background, skin = random.uniform(30, 220), random.uniform(90, 215)
    canvas = np.full((_SIDE, _SIDE), background, np.float32)
    cv2.ellipse(canvas, (_SIDE // 2, _SIDE // 2), (round(0.42 * _SIDE), round(0.5 * _SIDE)), 0, 0, 360, skin, -1, cv2.LINE_AA)
    ink = max(10.0, skin - random.uniform(70, 110))
    for side in (-1, 1):
        _draw_eye(canvas, side, expression, ink)
    cv2.line(canvas, _at(0, -0.02), _at(random.normal(0, 0.02), 0.1), ink, 4, cv2.LINE_AA)
    _draw_mouth(canvas, expression, ink)
    turn = np.array(cv2.getRotationMatrix2D((_SIDE / 2, _SIDE / 2), random.normal(0, 5), random.uniform(0.93, 1.07)), np.float64)
    turn[:, 2] += random.normal(0, 0.02 * _SIDE, 2)
    turned = cv2.warpAffine(canvas, turn, (_SIDE, _SIDE), borderMode=cv2.BORDER_REPLICATE)
    small = cv2.resize(turned, (INPUT_PX, INPUT_PX), interpolation=cv2.INTER_AREA)
    return (small + random.normal(0, 6, small.shape)).clip(0, 255).astype(np.uint8)


def write_synthetic_csv(path: Path, *, training: int, test: int, seed: int = 0) -> None:
    """Writes a csv in the format of `fer2013.csv`; with so many faces of each emotion in Training and PublicTest."""
    random = np.random.default_rng(seed)
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("emotion", "pixels", "Usage"))
        for usage, count in (("Training", training), ("PublicTest", test)):
            for index in range(count * len(EMOTIONS)):
                label = index % len(EMOTIONS)
                writer.writerow((label, " ".join(map(str, draw_face(EMOTIONS[label], random).ravel())), usage))


def _draw_eye(canvas: NDArray[np.float32], side: int, expression: _Expression, ink: float) -> None:
    across, down = side * 0.19, -0.14
    height = round(_SIDE * 0.055 * min(1.2, max(0.05, expression.eyes)))
    cv2.ellipse(canvas, _at(across, down), (round(0.075 * _SIDE), height), 0, 0, 360, 240.0, -1, cv2.LINE_AA)
    cv2.circle(canvas, _at(across, down), max(2, min(height, round(0.035 * _SIDE))), ink * 0.4, -1, cv2.LINE_AA)
    brow = down - 0.1 - 0.05 * expression.brows
    tilt = 0.05 * expression.frown
    cv2.line(canvas, _at(across - side * 0.1, brow + tilt), _at(across + side * 0.1, brow - tilt), ink, 6, cv2.LINE_AA)


def _draw_mouth(canvas: NDArray[np.float32], expression: _Expression, ink: float) -> None:
    along = np.linspace(-1, 1, 21)
    middle = 0.29 + 0.07 * expression.smile * (0.5 - along**2)
    gape = 0.1 * max(0.0, expression.gape) * np.sqrt(1 - along**2)
    lips = [*zip(along, middle - gape / 2, strict=True), *zip(along[::-1], (middle + gape)[::-1], strict=True)]
    outline = np.array([_at(0.17 * x, y) for x, y in lips], np.int32)
    cv2.fillPoly(canvas, [outline], ink * 0.5, cv2.LINE_AA)
    cv2.polylines(canvas, [outline], True, ink, 4, cv2.LINE_AA)


def _at(across: float, down: float) -> tuple[int, int]:
    """Pixel coordinates of a point, which is given relative to the centre in units of the side."""
    return round((0.5 + across) * _SIDE), round((0.5 + down) * _SIDE)
