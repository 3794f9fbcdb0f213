"""MTCNN's cascade (Zhang et al. 2016): its three networks one after the other, with facenet-pytorch's weights, optimized for speed.

- The proposal network (P-Net) scans the whole picture at many scales.
- The refinement network (R-Net) judges 24 px crops of its proposals, the output network (O-Net) 48 px crops of what is left.

Box arithmetic and the order of the suppressions are those of facenet-pytorch 2.5.3, so the same faces come out. What differs is the
resampling (`pyramid`), and how much of P-Net is computed: its box head only for likely cells, and on a CPU its later layers only
where the pre-filter does not reject.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from batchemo.faces.mtcnn import convolve, fold_normalization, load_networks, normalize_pixels
from batchemo.faces.nms import apply_corrections, batched_nms, clip_to_pixels, make_square, nms_by_smaller_area
from batchemo.faces.prefilter import BLOCK_CELLS, CELL_FEATURES, Prefilter, extract_patches, load_prefilter, pad_to_blocks
from batchemo.faces.pyramid import CELL_PX, ImagePyramid, IntegralPyramid, MipPyramid, pyramid_scales
from batchemo.records import Faces


class SearchSettings(NamedTuple):
    """Ratio of neighbouring scales, and the least score of a face in each of the three networks."""

    factor: float
    thresholds: tuple[float, float, float]


EXACT = SearchSettings(0.709, (0.6, 0.7, 0.7))
"""facenet-pytorch's."""

FAST = SearchSettings(0.709, (0.8, 0.7, 0.7))
"""Fewer proposals: a quarter faster, and no face lost that `EXACT`'s .6 keeps (see docs/benchmarks.md)."""

COARSE = SearchSettings(0.5, (0.6, 0.7, 0.7))
"""Fewer scales, for videos, where faces are propagated between frequent searches. It would lose a few faces in single pictures
(see docs/benchmarks.md)."""

_STRIDE_PX = 2
_REFINE_PX, _OUTPUT_PX = 24, 48
_MAX_IOU_WITHIN_SCALE, _MAX_OVERLAP = 0.5, 0.7
_BLOCK_BATCH, _BLOCK_BATCH_MULTIPLE = 1024, 64
_MAX_PASSED_SHARE = 0.25
"""Share of passed blocks beyond which a dense scan is faster: blocks overlap (see docs/benchmarks.md)."""
_CROP_BATCH = {"cpu": 32, "cuda": 512}
"""Larger batches are slower per crop on a CPU (see docs/benchmarks.md)."""


class Cascade:
    """Detects the faces of frames of one size.

    - `exact`: area means as in facenet-pytorch, so boxes agree with it to 1e-3 px.
    - Otherwise `FAST` settings, and on a CPU resampling from mipmaps and early rejection by the pre-filter: three times as fast
      (see docs/benchmarks.md).
    """

    def __init__(self, *, min_face_px: int, exact: bool, device: torch.device) -> None:
        self._min_face_px = min_face_px
        self._device = device
        self._exact = exact
        self._settings = EXACT if exact else FAST
        self._propose_net, self._refine_net, self._output_net = networks = load_networks()
        for network in networks:
            network.to(device).to(memory_format=torch.channels_last)
        self._prefilter = None if exact or device.type != "cpu" else Prefilter(load_prefilter())
        self._stem = _FusedStem(self._propose_net.conv1, self._propose_net.prelu1)
        classes = self._propose_net.conv4_1
        # Weight and bias of the log-odds of a face, which decide like the softmax of both classes.
        bias = classes.get_parameter("bias")
        self._log_odds = (classes.weight[1] - classes.weight[0]).detach().flatten(), (bias[1] - bias[0]).detach()

    def with_settings(self, settings: SearchSettings) -> Cascade:
        """A cascade of the same networks with other settings."""
        made = copy.copy(self)
        made._settings = settings
        return made

    @torch.inference_mode()
    def detect(self, frames: Sequence[NDArray[np.uint8]]) -> list[Faces]:
        """Faces of each of B frames (RGB uint8 H x W x 3), in the order of their scores in the refinement network."""
        pyramid = self._build_pyramid(frames)
        boxes, frame_ids = _inside(pyramid, *self._propose(pyramid))
        if len(boxes):
            boxes, frame_ids = _inside(pyramid, *self._refine(pyramid, boxes, frame_ids))
        if not len(boxes):
            return [Faces.none() for _ in frames]
        found_boxes, found_ids, found_points = (each.cpu().numpy() for each in self._output(pyramid, boxes, frame_ids))
        masks = [found_ids == index for index in range(len(frames))]
        return [Faces(found_boxes[mask, :4], found_points[mask], found_boxes[mask, 4]) for mask in masks]

    @torch.inference_mode()
    def confirm(self, frame: NDArray[np.uint8], faces: Faces) -> bool:
        """Whether the output network accepts the box of each of `faces` (N > 0)."""
        pyramid = self._build_pyramid([frame])
        boxes = make_square(torch.from_numpy(np.concatenate((faces.boxes, faces.scores[:, None]), axis=1)).to(self._device))
        boxes, frame_ids = _inside(pyramid, boxes, torch.zeros(len(faces), dtype=torch.long, device=self._device))
        if len(boxes) < len(faces):
            return False
        _, _, scores = self._run_on_crops(self._output_net, pyramid, boxes, frame_ids, _OUTPUT_PX)
        return bool((scores[:, 1] > self._settings.thresholds[2]).all())

    def _build_pyramid(self, frames: Sequence[NDArray[np.uint8]]) -> ImagePyramid:
        if self._device.type == "cpu":
            return IntegralPyramid.on_cpu(frames) if self._exact else MipPyramid(frames)
        return IntegralPyramid.on_device(self._device, frames)

    def _propose(self, pyramid: ImagePyramid) -> tuple[Tensor, Tensor]:
        """P-Net's proposals: square boxes with scores, N x 5, and their frames, N."""
        scales = pyramid_scales(pyramid.height, pyramid.width, min_face_px=self._min_face_px, factor=self._settings.factor)
        sizes = [(int(pyramid.height * scale + 1), int(pyramid.width * scale + 1)) for scale in scales]
        if self._prefilter is None:
            features, cells, levels = self._scan(pyramid, sizes)
        else:
            features, cells, levels = self._scan_prefiltered(self._prefilter, pyramid, sizes)
        boxes, frame_ids = self._decode(features, cells, torch.tensor(scales, device=self._device)[levels]), cells[:, 0]
        kept = batched_nms(boxes, frame_ids * len(scales) + levels, _MAX_IOU_WITHIN_SCALE)
        boxes, frame_ids = boxes[kept], frame_ids[kept]
        kept = batched_nms(boxes, frame_ids, _MAX_OVERLAP)
        boxes, frame_ids = boxes[kept], frame_ids[kept]
        sides = (boxes[:, 2:4] - boxes[:, :2]).repeat(1, 2)
        return make_square(torch.cat((boxes[:, :4] + boxes[:, 5:9] * sides, boxes[:, 4:5]), dim=1)), frame_ids

    def _scan(self, pyramid: ImagePyramid, sizes: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor, Tensor]:
        """P-Net over all cells of all `sizes` (height, width).

        Returns those that look like a face: features N x 32, cells N x 3 (frame, row, column), and index of the size, N.
        """
        found = [self._select_cells(self._stem(pyramid.scaled(*size))) for size in sizes]
        features, cells = (torch.cat(each) for each in zip(*found, strict=True))
        counts = torch.tensor([len(each) for _, each in found], device=self._device)
        return features, cells, torch.arange(len(sizes), device=self._device).repeat_interleave(counts)

    def _scan_prefiltered(
        self, prefilter: Prefilter, pyramid: ImagePyramid, sizes: Sequence[tuple[int, int]]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `_scan`, over the cells that `prefilter` passes; the blocks of all sizes share batches."""
        found, waiting, grids = [], [], []
        for level, size in enumerate(sizes):
            stem = self._stem(pyramid.scaled(*size))
            grids.append([side - CELL_FEATURES + 1 for side in stem.shape[2:]])
            padded = pad_to_blocks(stem)
            blocks, share = prefilter.select_blocks(padded)
            if share > _MAX_PASSED_SHARE:
                features, cells = self._select_cells(stem)
                found.append((features, functional.pad(cells, (0, 1), value=level)))
                continue
            for start in range(0, len(blocks), _BLOCK_BATCH):
                part = blocks[start : start + _BLOCK_BATCH]
                corners = functional.pad(part * torch.tensor([1, BLOCK_CELLS, BLOCK_CELLS]), (0, 1), value=level)
                waiting.append((extract_patches(padded, part), corners))
                if sum(len(each) for each, _ in waiting) >= _BLOCK_BATCH:
                    found.append(self._select_cells_of_blocks(waiting))
                    waiting = []
        if waiting:
            found.append(self._select_cells_of_blocks(waiting))
        if not found:
            return torch.empty(0, 32), torch.empty(0, 3, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
        features, cells = (torch.cat(each) for each in zip(*found, strict=True))
        inside = (cells[:, 1:3] < torch.tensor(grids)[cells[:, 3]]).all(dim=1)
        return features[inside], cells[inside, :3], cells[inside, 3]

    def _select_cells_of_blocks(self, waiting: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """As `_select_cells`, of patches N x 10 x 6 x 6 and their first cells, N x 4 (frame, row, column, index of the size)."""
        parts, corners = (torch.cat(each) for each in zip(*waiting, strict=True))
        # Padded to few different batch sizes: oneDNN prepares its kernels anew for each.
        lacking = -len(parts) % _BLOCK_BATCH_MULTIPLE
        features, within = self._select_cells(torch.cat((parts, parts.new_zeros(lacking, *parts.shape[1:]))))
        real = within[:, 0] < len(parts)
        features, within = features[real], within[real]
        cells = corners[within[:, 0]]
        cells[:, 1:3] += within[:, 1:]
        return features, cells

    def _select_cells(self, stem: Tensor) -> tuple[Tensor, Tensor]:
        """P-Net after its stem (B x 10 x rows x columns): last features, N x 32, and cells, N x 3, of those that look like a face."""
        net = self._propose_net
        features = net.prelu2(convolve(stem, net.conv2.weight, net.conv2.bias))
        features = net.prelu3(convolve(features, net.conv3.weight, net.conv3.bias)).permute(0, 2, 3, 1)
        threshold = self._settings.thresholds[0]
        weight, bias = self._log_odds
        cells = (features @ weight >= math.log(threshold / (1 - threshold)) - bias).nonzero()
        return features[cells[:, 0], cells[:, 1], cells[:, 2]], cells

    def _decode(self, features: Tensor, cells: Tensor, scales: Tensor) -> Tensor:
        """Boxes, scores and box corrections, N x 9, of cells at their `scales`, N."""
        net = self._propose_net
        origins = _STRIDE_PX * cells[:, 1:].flip(1).float()
        low = ((origins + 1) / scales[:, None]).floor()
        high = ((origins + CELL_PX) / scales[:, None]).floor()
        # The full softmax: near 1 many scores differ by rounding alone, and must sort as in facenet-pytorch.
        scores = functional.linear(features, net.conv4_1.weight.flatten(1), net.conv4_1.bias).softmax(dim=1)
        corrections = functional.linear(features, net.conv4_2.weight.flatten(1), net.conv4_2.bias)
        return torch.cat((low, high, scores[:, 1:], corrections), dim=1)

    def _refine(self, pyramid: ImagePyramid, boxes: Tensor, frame_ids: Tensor) -> tuple[Tensor, Tensor]:
        """R-Net's square boxes with scores, N x 5, and their frames, N."""
        corrections, scores = self._run_on_crops(self._refine_net, pyramid, boxes, frame_ids, _REFINE_PX)
        passed = scores[:, 1] > self._settings.thresholds[1]
        boxes = torch.cat((boxes[passed, :4], scores[passed, 1:]), dim=1)
        frame_ids, corrections = frame_ids[passed], corrections[passed]
        kept = batched_nms(boxes, frame_ids, _MAX_OVERLAP)
        return make_square(apply_corrections(boxes[kept], corrections[kept])), frame_ids[kept]

    def _output(self, pyramid: ImagePyramid, boxes: Tensor, frame_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """O-Net's boxes with scores, N x 5, their frames, N, and landmarks, N x 5 x 2."""
        corrections, points, scores = self._run_on_crops(self._output_net, pyramid, boxes, frame_ids, _OUTPUT_PX)
        passed = scores[:, 1] > self._settings.thresholds[2]
        boxes = torch.cat((boxes[passed, :4], scores[passed, 1:]), dim=1)
        frame_ids, corrections, points = frame_ids[passed], corrections[passed], points[passed]
        sides = boxes[:, 2:4] - boxes[:, :2] + 1
        landmarks = points.view(-1, 2, 5).transpose(1, 2) * sides[:, None] + boxes[:, None, :2] - 1
        boxes = apply_corrections(boxes, corrections)
        kept = nms_by_smaller_area(boxes, frame_ids, _MAX_OVERLAP)
        return boxes[kept], frame_ids[kept], landmarks[kept]

    def _run_on_crops(self, network: nn.Module, pyramid: ImagePyramid, boxes: Tensor, frame_ids: Tensor, side: int) -> list[Tensor]:
        """The outputs of `network` for crops of N boxes, N > 0."""
        areas, size = clip_to_pixels(boxes, height=pyramid.height, width=pyramid.width), _CROP_BATCH[self._device.type]
        parts = [
            network(normalize_pixels(pyramid.crops(frame_ids[start : start + size], areas[start : start + size], side)))
            for start in range(0, len(boxes), size)
        ]
        return [torch.cat(each) for each in zip(*parts, strict=True)]


class _FusedStem:
    """P-Net's first convolution, activation and 2 x 2 max-pooling in one, on pixels of 0 to 255.

    A single convolution of stride 2 computes the four values of each pooling window as separate channels.
    """

    def __init__(self, conv: nn.Conv2d, prelu: nn.PReLU) -> None:
        weight, bias = fold_normalization(conv)
        four = torch.cat([functional.pad(weight, (column, 1 - column, row, 1 - row)) for row in range(2) for column in range(2)])
        self._weight = four.contiguous(memory_format=torch.channels_last)
        self._bias, self._slopes = bias.repeat(4), prelu.weight.detach().repeat(4)

    def __call__(self, pixels: Tensor) -> Tensor:
        """B x 3 x H x W -> B x channels x rows x columns, channels last, sides rounded up."""
        odd_rows, odd_columns = pixels.shape[2] % 2, pixels.shape[3] % 2
        even = functional.pad(pixels, (0, odd_columns, 0, odd_rows)) if odd_rows or odd_columns else pixels
        values = self._activate(convolve(even, self._weight, self._bias, stride=2).permute(0, 2, 3, 1))
        four = values.view(*values.shape[:3], 2, 2, -1)
        if odd_rows:
            four[:, -1, :, 1] = four[:, -1, :, 0]
        if odd_columns:
            four[:, :, -1, :, 1] = four[:, :, -1, :, 0]
        pairs = torch.maximum(four[..., 0, :, :], four[..., 1, :, :])
        return torch.maximum(pairs[..., 0, :], pairs[..., 1, :]).permute(0, 3, 1, 2)

    def _activate(self, values: Tensor) -> Tensor:
        """PReLU of B x rows x columns x channels, by rows: torch's kernel is slow on few channels (see docs/benchmarks.md)."""
        batch, rows, columns, channels = values.shape
        return functional.prelu(values.reshape(batch * rows, columns * channels), self._slopes.repeat(columns)).view_as(values)


def _inside(pyramid: ImagePyramid, boxes: Tensor, frame_ids: Tensor) -> tuple[Tensor, Tensor]:
    """The boxes, and their frames, that share a pixel with the picture."""
    areas = clip_to_pixels(boxes, height=pyramid.height, width=pyramid.width)
    inside = (areas[:, 1] > areas[:, 0]) & (areas[:, 3] > areas[:, 2])
    return boxes[inside], frame_ids[inside]
