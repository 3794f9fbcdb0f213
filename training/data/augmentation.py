"""Random augmentation of whole batches. All random numbers come from one generator, so a run can be repeated."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional

from training.recipe import Augmentation


def augment(pictures: Tensor, settings: Augmentation, generator: Generator) -> Tensor:
    """uint8 N x 1 x S x S -> float32 N x 1 x S x S, 0 to 1: geometry, resolution, lighting, compression, random erasing."""
    scaled = pictures.float() / 255
    scaled = _warp(scaled, settings, generator)
    scaled = _lower_resolution(scaled, settings, generator)
    scaled = _relight(scaled, settings, generator)
    if settings.jpeg:  # if off it draws no random numbers, so that older recipes repeat their weights
        scaled = _compress(scaled, settings, generator)
    return _erase(scaled, settings, generator)


def mixup(*batches: Tensor, alpha: float, generator: Generator) -> tuple[Tensor, ...]:
    """Mixup (Zhang et al. 2018): blends pictures and their targets (N x ... each) with those of others; one weight for the batch."""
    share = _beta(alpha, generator)
    order = torch.randperm(len(batches[0]), generator=generator)
    return tuple(torch.lerp(batch[order], batch, share) for batch in batches)


def resize(pictures: Tensor, side_px: int) -> Tensor:
    """Float N x 1 x S x S -> N x 1 x side_px x side_px, antialiased."""
    if pictures.shape[-1] == side_px:
        return pictures
    return functional.interpolate(pictures, size=(side_px, side_px), mode="bilinear", antialias=True)


def _warp(pictures: Tensor, settings: Augmentation, generator: Generator) -> Tensor:
    count = len(pictures)
    angle = _uniform(count, settings.rotation_degrees, generator) * math.pi / 180
    zoom = 1 + _uniform(count, settings.scale, generator)
    mirror = 1 - 2 * (torch.rand(count, generator=generator) < settings.flip).float()
    # The side is 2 in the units of affine_grid.
    shift_x, shift_y = 2 * _uniform(count, settings.shift, generator), 2 * _uniform(count, settings.shift, generator)
    cosine, sine = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    matrix = torch.stack((torch.stack((cosine * mirror, -sine, shift_x), 1), torch.stack((sine * mirror, cosine, shift_y), 1)), 1)
    grid = functional.affine_grid(matrix, list(pictures.shape), align_corners=False)
    return functional.grid_sample(pictures, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _relight(pictures: Tensor, settings: Augmentation, generator: Generator) -> Tensor:
    shape = (-1, 1, 1, 1)
    count = len(pictures)
    gamma = torch.exp(_uniform(count, settings.gamma, generator)).view(shape)
    contrast = (1 + _uniform(count, settings.contrast, generator)).view(shape)
    brightness = _uniform(count, settings.brightness, generator).view(shape)
    curved = pictures.clamp(0, 1) ** gamma
    mean = curved.mean(dim=(2, 3), keepdim=True)
    return ((curved - mean) * contrast + mean + brightness).clamp(0, 1)


def _lower_resolution(pictures: Tensor, settings: Augmentation, generator: Generator) -> Tensor:
    chosen = torch.rand(len(pictures), generator=generator) < settings.low_resolution
    low, high = settings.low_resolution_px
    side = int(torch.randint(low, high + 1, (1,), generator=generator))
    if not chosen.any():
        return pictures
    small = resize(pictures[chosen], side)
    result = pictures.clone()
    result[chosen] = functional.interpolate(small, size=pictures.shape[2:], mode="bilinear", align_corners=False)
    return result


def _compress(pictures: Tensor, settings: Augmentation, generator: Generator) -> Tensor:
    count = len(pictures)
    low, high = settings.jpeg_quality
    qualities = torch.randint(low, high + 1, (count,), generator=generator)
    chosen = torch.nonzero(torch.rand(count, generator=generator) < settings.jpeg).flatten().tolist()
    grey = (pictures[chosen, 0] * 255).round().to(torch.uint8).numpy()
    result = pictures.clone()
    for index, picture in zip(chosen, grey, strict=True):
        _, content = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, int(qualities[index])])
        result[index, 0] = torch.from_numpy(np.asarray(cv2.imdecode(content, cv2.IMREAD_GRAYSCALE))) / 255
    return result


def _erase(pictures: Tensor, settings: Augmentation, generator: Generator) -> Tensor:
    count, _, side, _ = pictures.shape
    low, high = settings.erase_area
    area = (low + (high - low) * torch.rand(count, generator=generator)) * side * side
    ratio = torch.exp(_uniform(count, math.log(3), generator))
    height, width = (area * ratio).sqrt().clamp(1, side), (area / ratio).sqrt().clamp(1, side)
    top = torch.rand(count, generator=generator) * (side - height)
    left = torch.rand(count, generator=generator) * (side - width)
    rows, columns = torch.arange(side).view(1, -1, 1), torch.arange(side).view(1, 1, -1)
    inside = (rows >= top.view(-1, 1, 1)) & (rows < (top + height).view(-1, 1, 1))
    inside = inside & (columns >= left.view(-1, 1, 1)) & (columns < (left + width).view(-1, 1, 1))
    inside &= (torch.rand(count, generator=generator) < settings.erase).view(-1, 1, 1)
    noise = torch.rand(pictures.shape, generator=generator)
    return torch.where(inside[:, None], noise, pictures)


def _uniform(count: int, bound: float, generator: Generator) -> Tensor:
    return (2 * torch.rand(count, generator=generator) - 1) * bound


def _beta(alpha: float, generator: Generator) -> float:
    """A sample of Beta(alpha, alpha) by Johnk's method, which suits alpha < 1."""
    while True:
        first, second = (torch.rand(2, generator=generator, dtype=torch.float64) ** (1 / alpha)).tolist()
        if 0 < first + second <= 1:
            return float(first / (first + second))
