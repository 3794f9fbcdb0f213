"""Degrades pictures as videos do: low resolution, compression, blur, bad lighting, misalignment. Each is deterministic."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Picture = NDArray[np.uint8]

_SMALL_PX = 24
_JPEG_QUALITY = 20
_BLUR_SIGMA_PX = 1.5
_GAMMA = 2.2
_SHIFT = 0.1
_SCALE = 0.1
_ROTATION_DEGREES = 8.0
"""FER2013's own faces are turned by about 6 degrees to either side."""


class Degradation(NamedTuple):
    """A change of a grey uint8 S x S picture, and its `meaning` in words."""

    meaning: str
    change: Callable[[Picture], Picture]


def degrade(pixels: Tensor, degradation: Degradation) -> Tensor:
    """Degraded pictures, uint8 N x 1 x S x S."""
    return torch.from_numpy(np.stack([degradation.change(picture[0]) for picture in pixels.numpy()])[:, None])


def _resized(picture: Picture) -> Picture:
    small = cv2.resize(picture, (_SMALL_PX, _SMALL_PX), interpolation=cv2.INTER_AREA)
    return _bytes(cv2.resize(small, picture.shape[::-1], interpolation=cv2.INTER_LINEAR))


def _compressed(picture: Picture) -> Picture:
    _, content = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return _bytes(cv2.imdecode(content, cv2.IMREAD_GRAYSCALE))


def _blurred(picture: Picture) -> Picture:
    return _bytes(cv2.GaussianBlur(picture, (0, 0), _BLUR_SIGMA_PX))


def _relit(gamma: float) -> Callable[[Picture], Picture]:
    table = np.rint(255 * (np.arange(256) / 255) ** gamma).astype(np.uint8)
    return lambda picture: table[picture]


def _moved(*, right: float = 0.0, down: float = 0.0, scale: float = 1.0, degrees: float = 0.0) -> Callable[[Picture], Picture]:
    """Shifts are fractions of the side; degrees turn anticlockwise. New areas repeat the edge."""

    def change(picture: Picture) -> Picture:
        side = len(picture)
        centre = (side - 1) / 2
        matrix = cv2.getRotationMatrix2D((centre, centre), degrees, scale)
        matrix[:, 2] += np.array((right, down)) * side
        return _bytes(cv2.warpAffine(picture, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))

    return change


def _bytes(picture: object) -> Picture:
    return cast(Picture, picture)


DEGRADATIONS = {
    "small": Degradation(f"down to {_SMALL_PX} px (area) and back (bilinear)", _resized),
    "jpeg": Degradation(f"JPEG, quality {_JPEG_QUALITY}", _compressed),
    "blur": Degradation(f"Gaussian blur, sigma {_BLUR_SIGMA_PX} px", _blurred),
    "dark": Degradation(f"dark: gamma {_GAMMA}", _relit(_GAMMA)),
    "bright": Degradation(f"bright: gamma 1/{_GAMMA}", _relit(1 / _GAMMA)),
    "left": Degradation(f"shifted left by {_SHIFT * 100:.0f} %", _moved(right=-_SHIFT)),
    "right": Degradation(f"shifted right by {_SHIFT * 100:.0f} %", _moved(right=_SHIFT)),
    "up": Degradation(f"shifted up by {_SHIFT * 100:.0f} %", _moved(down=-_SHIFT)),
    "down": Degradation(f"shifted down by {_SHIFT * 100:.0f} %", _moved(down=_SHIFT)),
    "larger": Degradation(f"larger by {_SCALE * 100:.0f} %", _moved(scale=1 + _SCALE)),
    "smaller": Degradation(f"smaller by {_SCALE * 100:.0f} %", _moved(scale=1 - _SCALE)),
    "anticlockwise": Degradation(f"turned by {_ROTATION_DEGREES:g} degrees, anticlockwise", _moved(degrees=_ROTATION_DEGREES)),
    "clockwise": Degradation(f"turned by {_ROTATION_DEGREES:g} degrees, clockwise", _moved(degrees=-_ROTATION_DEGREES)),
}
"""By name; for the 48 px pictures of FER2013."""
