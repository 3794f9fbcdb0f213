"""Trains the pre-filter (`batchemo.faces.prefilter`) by distillation: the proposal network of MTCNN is its teacher."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional

from batchemo.atomic import replacing
from batchemo.errors import DataError
from batchemo.faces.mtcnn import ProposalNet, load_networks, normalize_pixels
from batchemo.faces.prefilter import BLOCK_CELLS, PrefilterNet
from training.prefilter.composites import Images, compose_scene

RECALL = 0.98
"""Share of the blocks with a face that pass, themselves or in a neighbour. A face that is missed at one scale has chances at others."""

_BATCH = 32
_LEARNING_RATE = 3e-3
_FACE_WEIGHT = 60.0
"""Weight of blocks with a face in the loss: they are rare, and a missed face costs more than a needless search."""
_NEIGHBOURS = 3
"""Blocks with a face within 3 x 3 belong to one face, and one of them is enough."""
_DOUBTFUL = 0.4, 0.95
"""Scores of the proposal network between which a block counts neither as face nor as background. Most such faces are clear at another
scale."""


def fit_prefilter(
    faces: Images,
    held_back: Images,
    backgrounds: Sequence[Images],
    *,
    steps: int,
    seed: int,
    report: Callable[[int, float], None],
    threshold_batches: int = 40,
) -> tuple[PrefilterNet, float]:
    """A pre-filter trained on `faces` (N x 48 x 48), and the share of all blocks that it lets pass.

    Its threshold is set on `threshold_batches` batches with the faces of `held_back`, so that `RECALL` of the blocks with a face pass.
    `report` is called with the step and the loss every 100 steps. Raises DataError if the teacher sees no face in the held-back scenes.
    """
    torch.manual_seed(seed)
    teacher, network = load_networks()[0], PrefilterNet()
    optimizer = torch.optim.Adam(network.parameters(), lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=steps, pct_start=0.1)
    batches = _batches(faces, backgrounds, teacher, seed=seed)
    low, high = map(_logit, _DOUBTFUL)
    for step in range(1, steps + 1):
        features, logits = next(batches)
        scores = network(features)
        is_face = logits > high
        missed = (functional.softplus(-_best_nearby(scores, is_face)) / _count_nearby(is_face).clamp_min(1))[is_face].sum()
        needless = functional.softplus(scores)[logits < low].sum()
        loss = (missed * _FACE_WEIGHT + needless) / scores.numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps:
            report(step, loss.item())
    return network, _set_threshold(network, _batches(held_back, backgrounds, teacher, seed=seed + 1), batches=threshold_batches)


def write_prefilter(network: PrefilterNet, path: Path) -> None:
    """Writes a safetensors file, atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(save({name: value.contiguous() for name, value in network.state_dict().items()}))


@torch.no_grad()
def proposal_features(network: ProposalNet, pixels: Tensor) -> Tensor:
    """The features after the first max pooling of the proposal network, of pixels B x 3 x H x W, 0 to 255."""
    return functional.max_pool2d(network.prelu1(network.conv1(normalize_pixels(pixels))), 2, 2, ceil_mode=True)


@torch.no_grad()
def proposal_logits(network: ProposalNet, features: Tensor) -> Tensor:
    """The proposal network's log-odds of a face in each cell, B x rows x columns, from its `proposal_features`."""
    scores: Tensor = network.conv4_1(network.prelu3(network.conv3(network.prelu2(network.conv2(features)))))
    return scores[:, 1] - scores[:, 0]


@torch.no_grad()
def _set_threshold(network: PrefilterNet, source: Iterator[tuple[Tensor, Tensor]], *, batches: int) -> float:
    """Shifts the scores so that `RECALL` of the blocks with a face pass (above 0). Returns the share of all blocks that pass."""
    best, scores = [], []
    for features, logits in (next(source) for _ in range(batches)):
        scores.append(network(features))
        is_face = logits > _logit(_DOUBTFUL[1])
        best.append(_best_nearby(scores[-1], is_face)[is_face])
    of_faces, of_all = torch.cat(best), torch.cat(scores).flatten()
    if not len(of_faces):
        raise DataError("the proposal network is sure of none of the faces of PublicTest; give FER2013 as it was published")
    threshold = of_faces.quantile(1 - RECALL)
    network.conv3.get_parameter("bias").sub_(threshold)
    return float((of_all > threshold).float().mean())


def _best_nearby(scores: Tensor, is_face: Tensor) -> Tensor:
    """The highest score among the face blocks within 3 x 3 of each block; all B x rows x columns."""
    return functional.max_pool2d(scores.masked_fill(~is_face, -torch.inf), _NEIGHBOURS, stride=1, padding=_NEIGHBOURS // 2)


def _count_nearby(is_face: Tensor) -> Tensor:
    """The number of face blocks within 3 x 3 of each block."""
    return functional.avg_pool2d(is_face.float(), _NEIGHBOURS, stride=1, padding=_NEIGHBOURS // 2) * _NEIGHBOURS**2


def _batches(faces: Images, backgrounds: Sequence[Images], teacher: ProposalNet, *, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Features B x 10 x rows x columns, and the teacher's highest log-odds in each block, B x rows x columns; endless."""
    random = np.random.default_rng(seed)
    while True:
        scenes = np.stack([compose_scene(faces, backgrounds, random) for _ in range(_BATCH)])
        features = proposal_features(teacher, torch.from_numpy(scenes).permute(0, 3, 1, 2))
        yield features, functional.max_pool2d(proposal_logits(teacher, features), BLOCK_CELLS)


def _logit(score: float) -> float:
    return math.log(score / (1 - score))
