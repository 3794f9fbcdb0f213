"""Sample pictures as the networks of MTCNN read them."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from tests.made_media import SAMPLES, read_pixels


def photograph(name: str = "grace_hopper", *, width: int = 320) -> NDArray[np.uint8]:
    """A sample picture, scaled to `width` px: RGB uint8 H x W x 3."""
    pixels = read_pixels(SAMPLES / f"{name}.jpg", cv2.IMREAD_COLOR_RGB)
    return np.asarray(cv2.resize(pixels, (width, round(width * pixels.shape[0] / pixels.shape[1])), interpolation=cv2.INTER_AREA), np.uint8)


def tensor(pixels: NDArray[np.uint8]) -> torch.Tensor:
    """One picture as a batch: 1 x 3 x H x W, float 0 to 255."""
    return torch.from_numpy(pixels[None].copy()).permute(0, 3, 1, 2).float()
