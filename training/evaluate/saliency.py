"""Saliency by occlusion (Zeiler & Fergus 2014): which parts of a face change the prediction when they are hidden."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from batchemo.emotion.model import ExpressionNet
from training.evaluate.calibration import calibrate
from training.inference import predict

PATCH_PX = 12
"""Side of the hidden patch: about an eye with its brow."""

_STEP_PX = 4

_STRONGEST_TINT = 0.65


def occlusion_map(
    network: ExpressionNet, pixels: Tensor, emotions: Tensor, *, temperature: float, device: torch.device
) -> NDArray[np.float64]:
    """How much the probability of `emotions` (N) drops when a pixel is hidden: N x S x S, for `pixels` uint8 N x 1 x S x S.

    A patch of mean grey moves over each picture; the value of a pixel is the mean over the patches that cover it. Negative values are
    evidence against the emotion.
    """
    side = pixels.shape[-1]
    corners = range(0, side - PATCH_PX + 1, _STEP_PX)
    places = [(top, left) for top in corners for left in corners]
    maps = np.empty((len(pixels), side, side))
    for index, (picture, emotion) in enumerate(zip(pixels, emotions.tolist(), strict=True)):
        hidden = picture.repeat(len(places) + 1, 1, 1, 1)
        for number, (top, left) in enumerate(places):
            hidden[number, 0, top : top + PATCH_PX, left : left + PATCH_PX] = int(picture.float().mean().round())
        probabilities = calibrate(predict(network, hidden, device).numpy(), temperature)[:, emotion]
        total, times = np.zeros((side, side)), np.zeros((side, side))
        for (top, left), probability in zip(places, probabilities[:-1], strict=True):
            total[top : top + PATCH_PX, left : left + PATCH_PX] += probabilities[-1] - probability
            times[top : top + PATCH_PX, left : left + PATCH_PX] += 1
        maps[index] = total / times
    return maps


def tint_saliency(picture: NDArray[np.uint8], drops: NDArray[np.float64], *, side_px: int) -> NDArray[np.uint8]:
    """`picture` (S x S) enlarged to `side_px`, BGR, tinted orange for positive and blue for negative `drops` (S x S).

    Tints are scaled to the largest value of the picture, so two pictures cannot be compared.
    """
    size = (side_px, side_px)
    grey = cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC).astype(np.float64)[..., None]
    smooth = cv2.resize(drops, size, interpolation=cv2.INTER_LINEAR)
    strength = _STRONGEST_TINT * np.abs(smooth) / max(1e-9, float(np.abs(smooth).max()))
    colours = np.where((smooth > 0)[..., None], (0, 94, 213), (178, 114, 0))
    blended: NDArray[np.uint8] = np.rint(grey + strength[..., None] * (colours - grey)).clip(0, 255).astype(np.uint8)
    return blended
