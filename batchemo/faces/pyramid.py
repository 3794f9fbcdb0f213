"""Image pyramids: frames at the scales of the proposal network, and crops of them for the other two networks of MTCNN."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from batchemo.devices import upload
from batchemo.media.resize import halved

CELL_PX = 12
"""Side of what the proposal network sees at once: the size of a face that it finds."""


class ImagePyramid(Protocol):
    """B frames of one size, resampled to the sizes that the networks take, as float of 0 to 255."""

    height: int
    width: int

    def scaled(self, height: int, width: int) -> Tensor:
        """The whole frames: B x 3 x height x width."""
        ...

    def crops(self, frame_ids: Tensor, areas: Tensor, side: int) -> Tensor:
        """Areas of the frames `frame_ids` (N): N x 3 x side x side. `areas` int N x 4: top, bottom, left, right (px)."""
        ...


class IntegralPyramid:
    """Area means by an integral image (Crow 1984), equal to torch's adaptive average pooling, each from four look-ups."""

    def __init__(self, sums: Tensor) -> None:
        # int32 may wrap around above 8 megapixels; the difference of four corners is right all the same.
        self._sums = sums  # B x (H + 1) x (W + 1) x 3
        self.height, self.width = sums.shape[1] - 1, sums.shape[2] - 1

    @classmethod
    def on_cpu(cls, frames: Sequence[NDArray[np.uint8]]) -> IntegralPyramid:
        return cls(torch.stack([torch.from_numpy(cv2.integral(frame)) for frame in frames]))

    @classmethod
    def on_device(cls, device: torch.device, frames: Sequence[NDArray[np.uint8]]) -> IntegralPyramid:
        pixels = upload(frames, device)
        sums = pixels.cumsum(1, dtype=torch.int32).cumsum(2, dtype=torch.int32)
        return cls(functional.pad(sums, (0, 0, 1, 0, 1, 0)))

    def scaled(self, height: int, width: int) -> Tensor:
        zero = torch.zeros(1, dtype=torch.int32, device=self._sums.device)
        top, bottom = _pooling_edges(zero, zero + self.height, height)
        left, right = _pooling_edges(zero, zero + self.width, width)
        rows = self._sums[:, bottom[0]] - self._sums[:, top[0]]
        sums = rows[:, :, right[0]] - rows[:, :, left[0]]
        # Two divisions, as in adaptive pooling: so the quotients are equal to the last bit.
        return (sums / (bottom - top)[0, :, None, None] / (right - left)[0, None, :, None]).permute(0, 3, 1, 2)

    def crops(self, frame_ids: Tensor, areas: Tensor, side: int) -> Tensor:
        top, bottom = _pooling_edges(areas[:, 0], areas[:, 1], side)
        left, right = _pooling_edges(areas[:, 2], areas[:, 3], side)
        frame = frame_ids[:, None, None]

        def at(rows: Tensor, columns: Tensor) -> Tensor:
            return self._sums[frame, rows[:, :, None], columns[:, None, :]]

        sums = at(bottom, right) - at(bottom, left) - at(top, right) + at(top, left)
        return (sums / (bottom - top)[:, :, None, None] / (right - left)[:, None, :, None]).permute(0, 3, 1, 2)


class MipPyramid:
    """The frames, downsampled by 2 again and again (mipmaps, Williams 1983), and bilinear resampling of the nearest larger level.

    For the CPU: nearly as good as area means, and faster.
    """

    def __init__(self, frames: Sequence[NDArray[np.uint8]]) -> None:
        self.height, self.width = frames[0].shape[:2]
        self._levels = [list(frames)]

    def scaled(self, height: int, width: int) -> Tensor:
        level = self._level(min(self.height / height, self.width / width))
        return _to_tensor([cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR) for picture in level])

    def crops(self, frame_ids: Tensor, areas: Tensor, side: int) -> Tensor:
        if not len(areas):
            return torch.empty(0, 3, side, side)
        crops = []
        for frame_id, (top, bottom, left, right) in zip(frame_ids.tolist(), areas.tolist(), strict=True):
            level = self._level(min(bottom - top, right - left) / side)
            picture = level[frame_id]
            down, across = picture.shape[0] / self.height, picture.shape[1] / self.width
            rows = slice(round(top * down), max(round(bottom * down), round(top * down) + 1))
            columns = slice(round(left * across), max(round(right * across), round(left * across) + 1))
            crops.append(cv2.resize(picture[rows, columns], (side, side), interpolation=cv2.INTER_LINEAR))
        return _to_tensor(crops)

    def _level(self, factor: float) -> list[NDArray[np.uint8]]:
        """The smallest level that need not be enlarged to shrink the frames by `factor`."""
        wanted = max(0, math.floor(math.log2(max(factor, 1))))
        while len(self._levels) <= wanted:
            self._levels.append([halved(picture) for picture in self._levels[-1]])
        return self._levels[wanted]


def pyramid_scales(height: int, width: int, *, min_face_px: int, factor: float) -> list[float]:
    """The scale at which a face of `min_face_px` measures `CELL_PX`, then smaller ones for larger faces, by `factor`."""
    scale = CELL_PX / min_face_px
    shorter = min(height, width) * scale
    scales = []
    while shorter > CELL_PX - 1e-6:  # 47 * (12 / 47) is a little below 12
        scales.append(scale)
        scale *= factor
        shorter *= factor
    return scales


def _to_tensor(pictures: Sequence[object]) -> Tensor:
    return torch.from_numpy(np.stack(cast("list[NDArray[np.uint8]]", pictures))).permute(0, 3, 1, 2).float()


def _pooling_edges(low: Tensor, high: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """Where adaptive pooling's `cells` between `low` and `high` (N each) begin and end: N x cells each."""
    steps = torch.arange(cells, device=low.device, dtype=torch.int32)
    length = (high - low)[:, None]
    begin = low[:, None] + steps * length // cells
    end = low[:, None] - (-(steps + 1) * length).div(cells, rounding_mode="floor")
    return begin, end
