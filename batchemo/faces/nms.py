"""Non-maximum suppression and the box arithmetic of MTCNN, as facenet-pytorch 2.5.3 has them.

Boxes are float N x 5 or more: x1, y1, x2, y2 (px), score.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_BLOCK_SIZE = 256
"""Boxes compared with all others at once: the full N x N matrix would not fit into memory for many boxes."""


def batched_nms(boxes: Tensor, groups: Tensor, max_iou: float) -> Tensor:
    """Indices of the boxes that NMS keeps, best first: a box goes if a better one of its group (N) overlaps it by more than `max_iou`."""
    order = boxes[:, 4].argsort(descending=True, stable=True)
    sorted_boxes, sorted_groups = boxes[order, :4].cpu().numpy(), groups[order].cpu().numpy()
    # Few boxes all at once, many group by group.
    if len(sorted_boxes) <= _BLOCK_SIZE:
        parts = [np.arange(len(sorted_boxes))]
    else:
        parts = [np.flatnonzero(sorted_groups == group) for group in np.unique(sorted_groups)]
    kept = sorted(index for part in parts for index in _greedy_nms(sorted_boxes, sorted_groups, part, max_iou))
    return order[torch.tensor(kept, dtype=torch.int64, device=order.device)]


def _greedy_nms(boxes: NDArray[np.float32], groups: NDArray[np.int64], remaining: NDArray[np.int64], max_iou: float) -> list[int]:
    """Those of the boxes `remaining` (indices, best first) that NMS keeps."""
    kept: list[int] = []
    while len(remaining):
        block = remaining[:_BLOCK_SIZE]
        suppresses = _overlaps(boxes[block], boxes[remaining], max_iou) & (groups[block, None] == groups[None, remaining])
        alive = np.ones(len(remaining), np.bool_)
        for row, index in enumerate(block.tolist()):
            if alive[row]:
                kept.append(index)
                alive &= ~suppresses[row]
        remaining = remaining[len(block) :][alive[len(block) :]]
    return kept


def _overlaps(boxes: NDArray[np.float32], others: NDArray[np.float32], max_iou: float) -> NDArray[np.bool_]:
    """Whether the IoU of each of N boxes with each of M others exceeds `max_iou`, N x M."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    sides = np.minimum(boxes[:, None, 2:], others[None, :, 2:]) - low
    np.maximum(sides, 0, out=sides)
    intersection = sides[..., 0] * sides[..., 1]
    areas, other_areas = ((each[:, 2] - each[:, 0]) * (each[:, 3] - each[:, 1]) for each in (boxes, others))
    with np.errstate(invalid="ignore", divide="ignore"):  # boxes without area
        return np.asarray(intersection / (areas[:, None] + other_areas[None] - intersection) > np.float32(max_iou))


def nms_by_smaller_area(boxes: Tensor, groups: Tensor, max_share: float) -> Tensor:
    """As `batched_nms`, but the overlap is the intersection as a share of the smaller box, in pixels that include both ends."""
    order = boxes[:, 4].argsort(descending=True, stable=True)
    sorted_boxes, sorted_groups = boxes[order], groups[order]
    low = torch.maximum(sorted_boxes[:, None, :2], sorted_boxes[None, :, :2])
    high = torch.minimum(sorted_boxes[:, None, 2:4], sorted_boxes[None, :, 2:4])
    intersection = (high - low + 1).clamp_min(0).prod(dim=2)
    areas = (sorted_boxes[:, 2:4] - sorted_boxes[:, :2] + 1).prod(dim=1)
    overlaps = intersection / torch.minimum(areas[:, None], areas[None]) > max_share
    # Few boxes are left at this stage, so one loop on the host costs less than a kernel launch per box.
    suppresses = (overlaps & (sorted_groups[:, None] == sorted_groups[None])).cpu().numpy()
    kept: list[int] = []
    for index in range(len(suppresses)):
        if not suppresses[index, kept].any():
            kept.append(index)
    return order[torch.tensor(kept, dtype=torch.int64, device=order.device)]


def apply_corrections(boxes: Tensor, corrections: Tensor) -> Tensor:
    """Boxes moved by `corrections`, N x 4, in shares of their sides (bounding-box regression)."""
    sides = (boxes[:, 2:4] - boxes[:, :2] + 1).repeat(1, 2)
    return torch.cat((boxes[:, :4] + corrections * sides, boxes[:, 4:]), dim=1)


def make_square(boxes: Tensor) -> Tensor:
    """Boxes made square about their centres, with their longer side."""
    sides = boxes[:, 2:4] - boxes[:, :2]
    longer = sides.amax(dim=1, keepdim=True)
    corners = boxes[:, :2] + sides * 0.5 - longer * 0.5
    return torch.cat((corners, corners + longer, boxes[:, 4:]), dim=1)


def clip_to_pixels(boxes: Tensor, *, height: int, width: int) -> Tensor:
    """The pixels of boxes inside a picture, int32 N x 4: top, bottom, left, right. Boxes count pixels from 1."""
    corners = boxes[:, :4].trunc().int()
    left, top = (corners[:, :2].clamp_min(1) - 1).unbind(1)
    return torch.stack((top, corners[:, 3].clamp_max(height), left, corners[:, 2].clamp_max(width)), dim=1)
