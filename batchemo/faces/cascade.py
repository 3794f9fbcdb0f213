"""The cascade of MTCNN (Zhang et al. 2016): its three networks, with facenet-pytorch's weights, driven for speed.

The proposal network reads the whole picture at many scales, the refining network 24 px crops of what that proposes, the
output network 48 px crops of what is left. The arithmetic of boxes and the order of the suppressions are those of
facenet-pytorch 2.5.3, so that the same faces come out; what is ours is how pixels get to the networks: means over areas
come from one integral image (Crow 1984) instead of a pass over the picture for each scale and each box, and how much of the
proposal network is read where: its second head where its first one says face, and on a CPU its later layers where a sieve lets it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from batchemo.devices import upload
from batchemo.faces.convolution import convolve, fold_normalization, normalize_pixels
from batchemo.faces.mtcnn import load_networks
from batchemo.faces.prefilter import BLOCK_CELLS, CELL_FEATURES, Prefilter, load_prefilter, patches, with_whole_blocks
from batchemo.media.resize import downsample2x
from batchemo.records import Faces


class SearchSettings(NamedTuple):
    """How pictures are searched: the ratio of neighbouring scales, and the least score of a face in each of the three networks."""

    factor: float
    thresholds: tuple[float, float, float]


EXACT = SearchSettings(0.709, (0.6, 0.7, 0.7))
"""facenet-pytorch's."""

FAST = SearchSettings(0.709, (0.8, 0.7, 0.7))
"""Of 939 faces in 792 frames, plain, shrunk, turned, dark, blurred and compressed, .8 lost those that .6 did, and .85 two more;
it is a quarter quicker than .6."""

COARSE = SearchSettings(0.5, (0.6, 0.7, 0.7))
"""For films, whose faces are searched for again and again, and followed in between: the same faces (training/RESULTS.md), in .78 of the
time of a search at 1333 x 750. Single pictures would lose some: 4 of 740, plain, small, dark, blurred, turned and compressed."""

_CELL_PX, _STRIDE_PX = 12, 2
_REFINE_PX, _OUTPUT_PX = 24, 48
_OVERLAP_SCALE, _OVERLAP = 0.5, 0.7
_SUPPRESSED_AT_ONCE = 256
_BLOCKS_AT_ONCE, _BLOCKS_STEP = 1024, 64
_MOST_SIFTED = 0.25
"""Share of the blocks beyond which it is quicker to read all of them, which have much in common: .27 on a Zen 3."""
_CROPS_AT_ONCE = {"cpu": 32, "cuda": 512}
"""Larger batches are slower on a CPU: 64 crops of 48 px cost it twice as much each as 16."""


class Cascade:
    """Finds the faces of frames of one size.

    `exact`: pixels as facenet-pytorch makes them, so that boxes agree to 1e-3 px. Otherwise, on a CPU, from halved pictures, and
    with fewer proposals (`FAST`): of those 939 faces it found .995 (all of them in frames as they were), at a mean overlap of .932, three
    times as quickly as facenet-pytorch. There, too, the proposal network reads on only where a sieve lets it: so it takes .81 to .84
    of the time, for the same faces (training/RESULTS.md). `swept_as` gives one that searches otherwise.
    """

    def __init__(self, *, min_face_px: int, exact: bool, device: torch.device) -> None:
        self._min_face_px = min_face_px
        self._device = device
        self._exact = exact
        self._sweep = EXACT if exact else FAST
        self._propose_net, self._refine_net, self._output_net = networks = load_networks()
        for network in networks:
            network.to(device).to(memory_format=torch.channels_last)
        self._sieve = None if exact or device.type != "cpu" else Prefilter(load_prefilter())
        self._first = _FirstMaxima(self._propose_net.conv1, self._propose_net.prelu1)
        first = self._propose_net.conv4_1
        # The logarithm of the odds of a face, of which the softmax of both classes is a function.
        bias = first.get_parameter("bias")
        self._odds = (first.weight[1] - first.weight[0]).detach().flatten(), (bias[1] - bias[0]).detach()

    def swept_as(self, sweep: SearchSettings) -> Cascade:
        """The same networks, which search as `sweep` says."""
        made = copy.copy(self)
        made._sweep = sweep
        return made

    @torch.inference_mode()
    def find(self, frames: Sequence[NDArray[np.uint8]]) -> list[Faces]:
        """Faces of each of B frames (RGB uint8 H x W x 3), in the order of their scores in the last network but one."""
        pictures = self._pictures(frames)
        boxes, owners = _touching(pictures, *self._propose(pictures))
        if len(boxes):
            boxes, owners = _touching(pictures, *self._refine(pictures, boxes, owners))
        if not len(boxes):
            return [Faces.none() for _ in frames]
        boxes, owners, points = self._output(pictures, boxes, owners)
        found_boxes, found_owners, found_points = boxes.cpu().numpy(), owners.cpu().numpy(), points.cpu().numpy()
        return [_faces(found_boxes[mine], found_points[mine]) for mine in (found_owners == i for i in range(len(frames)))]

    @torch.inference_mode()
    def confirms(self, frame: NDArray[np.uint8], faces: Faces) -> bool:
        """Whether the last network sees a face in the place of each of `faces` (N > 0)."""
        pictures = self._pictures([frame])
        boxes = _square(torch.from_numpy(np.concatenate((faces.boxes, faces.scores[:, None]), axis=1)).to(self._device))
        boxes, owners = _touching(pictures, boxes, torch.zeros(len(faces), dtype=torch.long, device=self._device))
        if len(boxes) < len(faces):
            return False
        _, _, scores = self._read(self._output_net, pictures, boxes, owners, _OUTPUT_PX)
        return bool((scores[:, 1] > self._sweep.thresholds[2]).all())

    def _pictures(self, frames: Sequence[NDArray[np.uint8]]) -> _Pictures:
        if self._device.type == "cpu":
            return _Integrals.of(frames) if self._exact else _Mips(frames)
        return _Integrals.on(self._device, frames)

    def _propose(self, pictures: _Pictures) -> tuple[Tensor, Tensor]:
        """Square boxes with scores, N x 5, and the frames they are in, N."""
        scales = _scales(pictures.height, pictures.width, self._min_face_px, self._sweep.factor)
        sizes = [(int(pictures.height * scale + 1), int(pictures.width * scale + 1)) for scale in scales]
        features, places, levels = self._everywhere(pictures, sizes) if self._sieve is None else self._sifted(self._sieve, pictures, sizes)
        boxes, owners = self._proposals(features, places, torch.tensor(scales, device=self._device)[levels]), places[:, 0]
        kept = _suppress(boxes, owners * len(scales) + levels, _OVERLAP_SCALE)
        boxes, owners = boxes[kept], owners[kept]
        kept = _suppress(boxes, owners, _OVERLAP)
        boxes, owners = boxes[kept], owners[kept]
        sides = (boxes[:, 2:4] - boxes[:, :2]).repeat(1, 2)
        return _square(torch.cat((boxes[:, :4] + boxes[:, 5:9] * sides, boxes[:, 4:5]), dim=1)), owners

    def _everywhere(self, pictures: _Pictures, sizes: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor, Tensor]:
        """The cells that look like a face, in pictures of these `sizes` (height, width): features, N x 32, places, N x 3 (frame, row,
        column), and which size, N."""
        found = [self._promising(self._first(pictures.scaled(*size))) for size in sizes]
        features, places = (torch.cat(each) for each in zip(*found, strict=True))
        counts = torch.tensor([len(each) for _, each in found], device=self._device)
        return features, places, torch.arange(len(sizes), device=self._device).repeat_interleave(counts)

    def _sifted(self, sieve: Prefilter, pictures: _Pictures, sizes: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor, Tensor]:
        """The same, but of the cells that the sieve lets through; those of all sizes are read together, some at a time."""
        found, waiting, cells = [], [], []
        for level, size in enumerate(sizes):
            first = self._first(pictures.scaled(*size))
            cells.append([side - CELL_FEATURES + 1 for side in first.shape[2:]])
            whole = with_whole_blocks(first)
            blocks, share = sieve.passed(whole)
            if share > _MOST_SIFTED:
                features, places = self._promising(first)
                found.append((features, functional.pad(places, (0, 1), value=level)))
                continue
            for start in range(0, len(blocks), _BLOCKS_AT_ONCE):
                some = blocks[start : start + _BLOCKS_AT_ONCE]
                corners = functional.pad(some * torch.tensor([1, BLOCK_CELLS, BLOCK_CELLS]), (0, 1), value=level)
                waiting.append((patches(whole, some), corners))
                if sum(len(each) for each, _ in waiting) >= _BLOCKS_AT_ONCE:
                    found.append(self._promising_within(waiting))
                    waiting = []
        if waiting:
            found.append(self._promising_within(waiting))
        if not found:
            return torch.empty(0, 32), torch.empty(0, 3, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
        features, places = (torch.cat(each) for each in zip(*found, strict=True))
        inside = (places[:, 1:3] < torch.tensor(cells)[places[:, 3]]).all(dim=1)
        return features[inside], places[inside, :3], places[inside, 3]

    def _promising_within(self, waiting: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """The same of patches N x 10 x 6 x 6, whose first cells are at the places N x 4 (frame, row, column, size)."""
        parts, corners = (torch.cat(each) for each in zip(*waiting, strict=True))
        # Of few different numbers, as for each the convolutions are made ready anew.
        lacking = -len(parts) % _BLOCKS_STEP
        features, within = self._promising(torch.cat((parts, parts.new_zeros(lacking, *parts.shape[1:]))))
        real = within[:, 0] < len(parts)
        features, within = features[real], within[real]
        places = corners[within[:, 0]]
        places[:, 1:3] += within[:, 1:]
        return features, places

    def _promising(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Of B x 10 x rows x columns first features the cells that look like a face: their last features, N x 32, and places, N x 3."""
        net = self._propose_net
        features = net.prelu2(convolve(features, net.conv2.weight, net.conv2.bias))
        features = net.prelu3(convolve(features, net.conv3.weight, net.conv3.bias)).permute(0, 2, 3, 1)
        threshold = self._sweep.thresholds[0]
        places = (features @ self._odds[0] >= math.log(threshold / (1 - threshold)) - self._odds[1]).nonzero()
        return features[places[:, 0], places[:, 1], places[:, 2]], places

    def _proposals(self, features: Tensor, places: Tensor, scales: Tensor) -> Tensor:
        """Boxes, scores and corrections, N x 9, of cells, by the `scales` they are of, N."""
        net = self._propose_net
        cells = places[:, 1:].flip(1).float()
        low = ((_STRIDE_PX * cells + 1) / scales[:, None]).floor()
        high = ((_STRIDE_PX * cells + _CELL_PX) / scales[:, None]).floor()
        # Both classes again, so that near 1, where many scores are equal but for rounding, they fall in facenet-pytorch's order.
        scores = functional.linear(features, net.conv4_1.weight.flatten(1), net.conv4_1.bias).softmax(dim=1)
        corrections = functional.linear(features, net.conv4_2.weight.flatten(1), net.conv4_2.bias)
        return torch.cat((low, high, scores[:, 1:], corrections), dim=1)

    def _refine(self, pictures: _Pictures, boxes: Tensor, owners: Tensor) -> tuple[Tensor, Tensor]:
        corrections, scores = self._read(self._refine_net, pictures, boxes, owners, _REFINE_PX)
        passed = scores[:, 1] > self._sweep.thresholds[1]
        boxes = torch.cat((boxes[passed, :4], scores[passed, 1:]), dim=1)
        owners, corrections = owners[passed], corrections[passed]
        kept = _suppress(boxes, owners, _OVERLAP)
        return _square(_corrected(boxes[kept], corrections[kept])), owners[kept]

    def _output(self, pictures: _Pictures, boxes: Tensor, owners: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        corrections, points, scores = self._read(self._output_net, pictures, boxes, owners, _OUTPUT_PX)
        passed = scores[:, 1] > self._sweep.thresholds[2]
        boxes = torch.cat((boxes[passed, :4], scores[passed, 1:]), dim=1)
        owners, corrections, points = owners[passed], corrections[passed], points[passed]
        sides = boxes[:, 2:4] - boxes[:, :2] + 1
        placed = points.view(-1, 2, 5).transpose(1, 2) * sides[:, None] + boxes[:, None, :2] - 1
        boxes = _corrected(boxes, corrections)
        kept = _suppress_contained(boxes, owners)
        return boxes[kept], owners[kept], placed[kept]

    def _read(self, network: nn.Module, pictures: _Pictures, boxes: Tensor, owners: Tensor, side: int) -> list[Tensor]:
        """What `network` says of N boxes, N > 0."""
        areas, at_once = _areas(pictures, boxes), _CROPS_AT_ONCE[self._device.type]
        parts = [
            network(normalize_pixels(pictures.crops(owners[start : start + at_once], areas[start : start + at_once], side)))
            for start in range(0, len(boxes), at_once)
        ]
        return [torch.cat(each) for each in zip(*parts, strict=True)]


class _Pictures(Protocol):
    """B frames of one size, from which parts are taken at the sizes that the networks read, float 0 to 255."""

    height: int
    width: int

    def scaled(self, height: int, width: int) -> Tensor:
        """The whole frames: B x 3 x height x width."""
        ...

    def crops(self, owners: Tensor, areas: Tensor, side: int) -> Tensor:
        """Parts of frames: N x 3 x side x side. `areas` int N x 4: top, bottom, left, right, of the frames `owners` (N)."""
        ...


class _Integrals:
    """Means over areas as torch's adaptive pooling has them, exactly, each from four look-ups."""

    def __init__(self, sums: Tensor) -> None:
        # int32 may wrap around above 8 megapixels; the difference of four corners comes out right all the same.
        self._sums = sums  # B x (H + 1) x (W + 1) x 3
        self.height, self.width = sums.shape[1] - 1, sums.shape[2] - 1

    @classmethod
    def of(cls, frames: Sequence[NDArray[np.uint8]]) -> _Integrals:
        """On the CPU."""
        return cls(torch.stack([torch.from_numpy(cv2.integral(frame)) for frame in frames]))

    @classmethod
    def on(cls, device: torch.device, frames: Sequence[NDArray[np.uint8]]) -> _Integrals:
        pixels = upload(frames, device)
        sums = pixels.cumsum(1, dtype=torch.int32).cumsum(2, dtype=torch.int32)
        return cls(functional.pad(sums, (0, 0, 1, 0, 1, 0)))

    def scaled(self, height: int, width: int) -> Tensor:
        zero = torch.zeros(1, dtype=torch.int32, device=self._sums.device)
        top, bottom = _edges(zero, zero + self.height, height)
        left, right = _edges(zero, zero + self.width, width)
        rows = self._sums[:, bottom[0]] - self._sums[:, top[0]]
        sums = rows[:, :, right[0]] - rows[:, :, left[0]]
        # Two divisions, because adaptive pooling has two: so the quotients are the same to the last bit.
        return (sums / (bottom - top)[0, :, None, None] / (right - left)[0, None, :, None]).permute(0, 3, 1, 2)

    def crops(self, owners: Tensor, areas: Tensor, side: int) -> Tensor:
        top, bottom = _edges(areas[:, 0], areas[:, 1], side)
        left, right = _edges(areas[:, 2], areas[:, 3], side)
        frame = owners[:, None, None]

        def at(rows: Tensor, columns: Tensor) -> Tensor:
            return self._sums[frame, rows[:, :, None], columns[:, None, :]]

        sums = at(bottom, right) - at(bottom, left) - at(top, right) + at(top, left)
        return (sums / (bottom - top)[:, :, None, None] / (right - left)[:, None, :, None]).permute(0, 3, 1, 2)


class _Mips:
    """The frames and their halves (Williams 1983), from which whatever is wanted is interpolated: CPU only, nearly as good."""

    def __init__(self, frames: Sequence[NDArray[np.uint8]]) -> None:
        self.height, self.width = frames[0].shape[:2]
        self._levels = [list(frames)]

    def scaled(self, height: int, width: int) -> Tensor:
        level = self._level(min(self.height / height, self.width / width))
        return _tensor([cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR) for picture in level])

    def crops(self, owners: Tensor, areas: Tensor, side: int) -> Tensor:
        if not len(areas):
            return torch.empty(0, 3, side, side)
        crops = []
        for owner, (top, bottom, left, right) in zip(owners.tolist(), areas.tolist(), strict=True):
            level = self._level(min(bottom - top, right - left) / side)
            picture = level[owner]
            down, across = picture.shape[0] / self.height, picture.shape[1] / self.width
            rows = slice(round(top * down), max(round(bottom * down), round(top * down) + 1))
            columns = slice(round(left * across), max(round(right * across), round(left * across) + 1))
            crops.append(cv2.resize(picture[rows, columns], (side, side), interpolation=cv2.INTER_LINEAR))
        return _tensor(crops)

    def _level(self, shrinking: float) -> list[NDArray[np.uint8]]:
        """The smallest pictures that need not be enlarged where the originals are shrunk `shrinking` times."""
        wanted = max(0, math.floor(math.log2(max(shrinking, 1))))
        while len(self._levels) <= wanted:
            self._levels.append([downsample2x(picture) for picture in self._levels[-1]])
        return self._levels[wanted]


def _tensor(pictures: Sequence[object]) -> Tensor:
    return torch.from_numpy(np.stack(cast("list[NDArray[np.uint8]]", pictures))).permute(0, 3, 1, 2).float()


def _scales(height: int, width: int, min_face_px: int, factor: float) -> list[float]:
    """Scales at which a face of the proposal network's 12 px is `min_face_px`, then ever larger ones."""
    scale = _CELL_PX / min_face_px
    shorter = min(height, width) * scale
    scales = []
    while shorter > _CELL_PX - 1e-6:  # 47 * (12 / 47) is a little below 12
        scales.append(scale)
        scale *= factor
        shorter *= factor
    return scales


def _areas(pictures: _Pictures, boxes: Tensor) -> Tensor:
    """The pixels of boxes that lie in the picture, int32 N x 4: top, bottom, left, right; boxes count pixels from 1."""
    corners = boxes[:, :4].trunc().int()
    left, top = (corners[:, :2].clamp_min(1) - 1).unbind(1)
    return torch.stack((top, corners[:, 3].clamp_max(pictures.height), left, corners[:, 2].clamp_max(pictures.width)), dim=1)


def _touching(pictures: _Pictures, boxes: Tensor, owners: Tensor) -> tuple[Tensor, Tensor]:
    """Those boxes, and their frames, of which something lies in the picture."""
    areas = _areas(pictures, boxes)
    inside = (areas[:, 1] > areas[:, 0]) & (areas[:, 3] > areas[:, 2])
    return boxes[inside], owners[inside]


def _edges(low: Tensor, high: Tensor, parts: int) -> tuple[Tensor, Tensor]:
    """Where each of `parts` cells begins and ends that share `low` to `high` (N each) as adaptive pooling does: N x parts each."""
    steps = torch.arange(parts, device=low.device, dtype=torch.int32)
    length = (high - low)[:, None]
    begin = low[:, None] + steps * length // parts
    end = low[:, None] - (-(steps + 1) * length).div(parts, rounding_mode="floor")
    return begin, end


class _FirstMaxima:
    """The first convolution of the proposal network, its activation and the maxima of 2 x 2 after it, on pixels of 0 to 255.

    One convolution of stride 2 gives the four values of each 2 x 2 beside each other.
    """

    def __init__(self, conv: nn.Conv2d, rectify: nn.PReLU) -> None:
        weight, bias = fold_normalization(conv)
        four = torch.cat([functional.pad(weight, (column, 1 - column, row, 1 - row)) for row in range(2) for column in range(2)])
        self._weight = four.contiguous(memory_format=torch.channels_last)
        self._bias, self._slopes = bias.repeat(4), rectify.weight.detach().repeat(4)

    def __call__(self, pixels: Tensor) -> Tensor:
        """B x colours x H x W -> B x channels x rows x columns, channels last, sides rounded up."""
        odd_rows, odd_columns = pixels.shape[2] % 2, pixels.shape[3] % 2
        even = functional.pad(pixels, (0, odd_columns, 0, odd_rows)) if odd_rows or odd_columns else pixels
        values = self._rectified(convolve(even, self._weight, self._bias, stride=2).permute(0, 2, 3, 1))
        four = values.view(*values.shape[:3], 2, 2, -1)
        if odd_rows:
            four[:, -1, :, 1] = four[:, -1, :, 0]
        if odd_columns:
            four[:, :, -1, :, 1] = four[:, :, -1, :, 0]
        pairs = torch.maximum(four[..., 0, :, :], four[..., 1, :, :])
        return torch.maximum(pairs[..., 0, :], pairs[..., 1, :]).permute(0, 3, 1, 2)

    def _rectified(self, values: Tensor) -> Tensor:
        """Of B x rows x columns x channels. By rows: torch would else see a few values at a time, which takes seven times as long."""
        batch, rows, columns, channels = values.shape
        return functional.prelu(values.reshape(batch * rows, columns * channels), self._slopes.repeat(columns)).view_as(values)


def _corrected(boxes: Tensor, corrections: Tensor) -> Tensor:
    """Boxes with scores, N x 5, moved by `corrections`, N x 4, in shares of their sides."""
    sides = (boxes[:, 2:4] - boxes[:, :2] + 1).repeat(1, 2)
    return torch.cat((boxes[:, :4] + corrections * sides, boxes[:, 4:]), dim=1)


def _square(boxes: Tensor) -> Tensor:
    """Boxes with scores, N x 5, made square about their centres by their longer side."""
    sides = boxes[:, 2:4] - boxes[:, :2]
    longer = sides.amax(dim=1, keepdim=True)
    corners = boxes[:, :2] + sides * 0.5 - longer * 0.5
    return torch.cat((corners, corners + longer, boxes[:, 4:]), dim=1)


def _suppress(boxes: Tensor, owners: Tensor, overlap: float) -> Tensor:
    """Indices of boxes with scores, N x 5 or more, that no better one of the same owner (a frame, or a scale of one) covers by more than
    `overlap` of their union; best first."""
    order = boxes[:, 4].argsort(descending=True, stable=True)
    known, owned = boxes[order, :4].cpu().numpy(), owners[order].cpu().numpy()
    # Few boxes at once, many owner by owner.
    few = len(known) <= _SUPPRESSED_AT_ONCE
    groups = [np.arange(len(known))] if few else [np.flatnonzero(owned == owner) for owner in np.unique(owned)]
    kept = sorted(index for group in groups for index in _uncovered(known, owned, group, overlap))
    return order[torch.tensor(kept, dtype=torch.int64, device=order.device)]


def _uncovered(boxes: NDArray[np.float32], owners: NDArray[np.int64], rest: NDArray[np.int64], overlap: float) -> list[int]:
    """Those of the boxes `rest` (indices, best first) that no better one of them with the same owner covers."""
    kept: list[int] = []
    while len(rest):
        # In blocks, since all boxes against all would not fit where there are many of them.
        block = rest[:_SUPPRESSED_AT_ONCE]
        covered = _covered(boxes[block], boxes[rest], overlap) & (owners[block, None] == owners[None, rest])
        alive = np.ones(len(rest), np.bool_)
        for row, index in enumerate(block.tolist()):
            if alive[row]:
                kept.append(index)
                alive &= ~covered[row]
        rest = rest[len(block) :][alive[len(block) :]]
    return kept


def _covered(boxes: NDArray[np.float32], others: NDArray[np.float32], overlap: float) -> NDArray[np.bool_]:
    """Whether each of N boxes and each of M others share more than `overlap` of their union."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    shared = np.minimum(boxes[:, None, 2:], others[None, :, 2:]) - low
    np.maximum(shared, 0, out=shared)
    common = shared[..., 0] * shared[..., 1]
    sizes, other_sizes = ((each[:, 2] - each[:, 0]) * (each[:, 3] - each[:, 1]) for each in (boxes, others))
    with np.errstate(invalid="ignore", divide="ignore"):  # boxes of no size
        return np.asarray(common / (sizes[:, None] + other_sizes[None] - common) > np.float32(overlap))


def _suppress_contained(boxes: Tensor, owners: Tensor) -> Tensor:
    """Indices of boxes that no better one of the same frame covers, by the share of the smaller one; best first."""
    order = boxes[:, 4].argsort(descending=True, stable=True)
    sorted_boxes, sorted_owners = boxes[order], owners[order]
    low = torch.maximum(sorted_boxes[:, None, :2], sorted_boxes[None, :, :2])
    high = torch.minimum(sorted_boxes[:, None, 2:4], sorted_boxes[None, :, 2:4])
    shared = (high - low + 1).clamp_min(0).prod(dim=2)
    sizes = (sorted_boxes[:, 2:4] - sorted_boxes[:, :2] + 1).prod(dim=1)
    covered = (shared / torch.minimum(sizes[:, None], sizes[None]) > _OVERLAP) & (sorted_owners[:, None] == sorted_owners[None])
    # A few boxes are left by now, so one host loop over all of them costs less than a kernel for each.
    hidden = covered.cpu().numpy()
    kept: list[int] = []
    for index in range(len(hidden)):
        if not hidden[index, kept].any():
            kept.append(index)
    return order[torch.tensor(kept, dtype=torch.int64, device=order.device)]


def _faces(boxes: NDArray[np.float32], points: NDArray[np.float32]) -> Faces:
    return Faces(boxes[:, :4], points, boxes[:, 4])
