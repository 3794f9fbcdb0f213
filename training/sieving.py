"""Teaches the sieve (`batchemo.faces.prefilter`) from the proposal network of MTCNN: where it sees a face, and where not."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional

from batchemo.atomic import replacing
from batchemo.errors import DataError
from batchemo.faces.convolution import normalize_pixels
from batchemo.faces.mtcnn import ProposalNet, load_networks
from batchemo.faces.prefilter import BLOCK_CELLS, PrefilterNet
from batchemo.media.discover import find_media
from batchemo.media.open_source import open_source
from batchemo.media.resize import downsample2x

RECALL = 0.98
"""Share of the blocks in which the proposal network is sure of a face that are let through, or are beside such a one that is, in scenes of
faces held back. There are more chances for a face at other scales."""

_SIDE_PX = 126
"""Of a scene: 29 blocks."""
_BATCH = 32
_LEARNING_RATE = 3e-3
_FACES_COUNT = 60.0
"""Blocks with a face are few, and missing a face is worse than looking in vain."""
_BESIDE = 3
"""Blocks with a face that are in 3 x 3 are of one, and one of them is enough."""
_DOUBTFUL = 0.4, 0.95
"""Scores of the proposal network between which a block is neither with a face nor without. Most faces that it half sees at one scale it
sees clearly at another."""
_FACES_PX = 11.0, 30.0
"""Sides of FER2013's pictures in a scene: the proposal network answers to faces of 12 px and somewhat more."""
_MOST_FACES = 14
_FRAMES_A_SECOND = 2.0
_MOST_BACKDROPS, _BACKDROP_PX = 500, 1080
"""At most so many, of at most so large a shorter side: 3 GB."""

Pixels = NDArray[np.uint8]


def read_backdrops(path: Path) -> list[Pixels]:
    """Pictures, and two frames a second of videos, in a folder: RGB H x W x 3, large ones halved; 500 of them at most, the first by the
    names of their files. Raises DataError where there are none."""
    media = find_media([path], out=path / "results")
    sources = (open_source(medium, decoder="pyav") for medium in media)
    frames = (frame.pixels for source in sources for frame in source.frames(sample_fps=_FRAMES_A_SECOND) if frame.is_decoded)
    large = (pixels for pixels in frames if min(pixels.shape[:2]) >= _SIDE_PX // 2)
    backdrops = [_reduced(pixels) for pixels in itertools.islice(large, _MOST_BACKDROPS)]
    if not backdrops:
        raise DataError(f"{path} holds no pictures or videos to stand behind the faces; give a folder that does")
    return backdrops


def fit_sieve(
    faces: Pixels, held_back: Pixels, backdrops: Sequence[Pixels], *, steps: int, seed: int, report: Callable[[int, float], None]
) -> tuple[PrefilterNet, float]:
    """A sieve taught with `faces` (N x 48 x 48), its threshold set with those `held_back`, so that `RECALL` of the blocks with a face are
    let through, and the share of all blocks that is. `report` gets steps and the loss. Raises DataError where the teacher sees none of
    those."""
    torch.manual_seed(seed)
    teacher, sieve = load_networks()[0], PrefilterNet()
    optimizer = torch.optim.Adam(sieve.parameters(), lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=steps, pct_start=0.1)
    lessons = _lessons(faces, backdrops, teacher, seed=seed)
    low, high = map(_odds, _DOUBTFUL)
    for step in range(1, steps + 1):
        features, odds = next(lessons)
        scores = sieve(features)
        seen = odds > high
        missed = (functional.softplus(-_best_beside(scores, seen)) / _count_beside(seen).clamp_min(1))[seen].sum()
        vain = functional.softplus(scores)[odds < low].sum()
        loss = (missed * _FACES_COUNT + vain) / scores.numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps:
            report(step, loss.item())
    return sieve, _set_threshold(sieve, _lessons(held_back, backdrops, teacher, seed=seed + 1))


def write_sieve(sieve: PrefilterNet, path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(save({name: value.contiguous() for name, value in sieve.state_dict().items()}))


@torch.no_grad()
def _set_threshold(sieve: PrefilterNet, lessons: Iterator[tuple[Tensor, Tensor]], *, batches: int = 40) -> float:
    """Moves the scores so that `RECALL` of the blocks with a face have one above 0, or one beside them; gives the share of all that do."""
    best, scores = [], []
    for features, odds in (next(lessons) for _ in range(batches)):
        scores.append(sieve(features))
        seen = odds > _odds(_DOUBTFUL[1])
        best.append(_best_beside(scores[-1], seen)[seen])
    found, everywhere = torch.cat(best), torch.cat(scores).flatten()
    if not len(found):
        raise DataError("the proposal network is sure of none of the faces of PublicTest; give FER2013 as it was published")
    threshold = found.quantile(1 - RECALL)
    sieve.conv3.get_parameter("bias").sub_(threshold)
    return float((everywhere > threshold).float().mean())


def _best_beside(scores: Tensor, seen: Tensor) -> Tensor:
    """The highest score of each block and of those beside it, of those that are `seen`; all B x rows x columns."""
    return functional.max_pool2d(scores.masked_fill(~seen, -torch.inf), _BESIDE, stride=1, padding=_BESIDE // 2)


def _count_beside(seen: Tensor) -> Tensor:
    """How many blocks are `seen` where each is, and beside it."""
    return functional.avg_pool2d(seen.float(), _BESIDE, stride=1, padding=_BESIDE // 2) * _BESIDE**2


def _lessons(faces: Pixels, backdrops: Sequence[Pixels], teacher: ProposalNet, *, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Features B x 10 x rows x columns and the highest log-odds of a face in each block, B x rows x columns, without end."""
    random = np.random.default_rng(seed)
    while True:
        scenes = np.stack([draw_scene(faces, backdrops, random) for _ in range(_BATCH)])
        features = first_features(teacher, torch.from_numpy(scenes).permute(0, 3, 1, 2))
        yield features, functional.max_pool2d(propose(teacher, features), BLOCK_CELLS)


@torch.no_grad()
def first_features(network: ProposalNet, pixels: Tensor) -> Tensor:
    """Those of pixels of 0 to 255, B x 3 x H x W, after the first maxima of the proposal network."""
    return functional.max_pool2d(network.prelu1(network.conv1(normalize_pixels(pixels))), 2, 2, ceil_mode=True)


@torch.no_grad()
def propose(network: ProposalNet, features: Tensor) -> Tensor:
    """The log-odds of a face in each cell of the proposal network, B x rows x columns, by its first features."""
    scores: Tensor = network.conv4_1(network.prelu3(network.conv3(network.prelu2(network.conv2(features)))))
    return scores[:, 1] - scores[:, 0]


def draw_scene(faces: Pixels, backdrops: Sequence[Pixels], random: np.random.Generator) -> NDArray[np.float32]:
    """Small faces before a backdrop, as cameras see them in any light: 126 x 126 x 3, 0 to 255."""
    scene: NDArray[Any] = _backdrop(backdrops, random).astype(np.float32)
    for _ in range(int(random.integers(_MOST_FACES))):
        _put_face(scene, faces[random.integers(len(faces))], random)
    if random.random() < 0.2:
        scene = np.repeat(scene.mean(axis=2, keepdims=True), 3, axis=2)
    scene = scene * random.uniform(0.85, 1.15, 3)
    if random.random() < 0.6:
        scene = 255 * (np.clip(scene, 0, 255) / 255) ** math.exp(random.uniform(-0.9, 0.9))
        scene = (scene - 127) * random.uniform(0.35, 1.25) + 127 + random.uniform(-50, 50) * (random.random() < 0.5)
    if random.random() < 0.25:
        scene = np.asarray(cv2.GaussianBlur(scene, (0, 0), random.uniform(0.4, 1.2)))
    if random.random() < 0.25:
        scene = scene + random.normal(0, random.uniform(1, 10), scene.shape)
    scene = np.clip(scene, 0, 255)
    if random.random() < 0.2:
        _, data = cv2.imencode(".jpg", scene.astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(25, 80))])
        scene = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    return np.asarray(scene, np.float32)


def _reduced(pixels: Pixels) -> Pixels:
    while min(pixels.shape[:2]) > _BACKDROP_PX:
        pixels = downsample2x(pixels)
    return pixels.copy()


def _backdrop(backdrops: Sequence[Pixels], random: np.random.Generator) -> Pixels:
    """A part of a picture, and now and then one colour or a soft pattern."""
    kind, size = random.random(), (_SIDE_PX, _SIDE_PX)
    if kind < 0.08:
        return np.full((*size, 3), random.integers(0, 256, 3), np.uint8)
    if kind < 0.14:
        pattern = random.integers(0, 256, (*random.integers(2, 40, 2), 3), dtype=np.uint8)
        return np.asarray(cv2.resize(pattern, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    picture = backdrops[int(random.integers(len(backdrops)))]
    side = int(min(picture.shape[:2]) * min(1.0, random.uniform(0.3, 1.3)))
    top, left = (int(random.integers(length - side + 1)) for length in picture.shape[:2])
    part = picture[top : top + side, left : left + side]
    part = part[:, ::-1] if random.random() < 0.5 else part
    how = cv2.INTER_AREA if random.random() < 0.5 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(part, size, interpolation=how), np.uint8)


def _put_face(scene: NDArray[np.float32], face: Pixels, random: np.random.Generator) -> None:
    side = random.uniform(*_FACES_PX)
    middle, canvas = face.shape[0] / 2, int(side * 1.5) + 2
    turn = cv2.getRotationMatrix2D((middle, middle), random.uniform(-25, 25), side / face.shape[0])
    turn[0] *= random.uniform(0.85, 1.1)
    turn[:, 2] = canvas / 2 + random.uniform(-0.5, 0.5, 2) - turn[:, :2] @ (middle, middle)
    mirrored = face[:, ::-1] if random.random() < 0.5 else face
    # As area means do, so that shrinking leaves no aliases.
    soft = cv2.GaussianBlur(np.ascontiguousarray(mirrored), (0, 0), max(0.1, 0.4 * face.shape[0] / side * random.uniform(0.6, 1.2)))
    mask: NDArray[Any] = np.ones(face.shape, np.float32)
    if random.random() < 0.5:
        mask[:] = 0
        axes = int(random.integers(17, 26)), int(random.integers(22, 30))
        cv2.ellipse(mask, (int(middle), int(middle)), axes, 0, 0, 360, 1, -1)
        mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), 2))
    pixels = cv2.warpAffine(soft.astype(np.float32), turn, (canvas, canvas))
    share = cv2.warpAffine(mask, turn, (canvas, canvas))
    pixels = 255 * (pixels / 255) ** math.exp(random.uniform(-0.5, 0.5))
    tint = _tint(random)
    top, left = (int(each) for each in random.integers(-canvas // 3, _SIDE_PX - canvas // 2, 2))
    rows, columns = (slice(max(0, start), min(_SIDE_PX, start + canvas)) for start in (top, left))
    own = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
    cover = share[own][..., None]
    scene[rows, columns] = scene[rows, columns] * (1 - cover) + np.clip(pixels[own][..., None] * tint, 0, 255) * cover


def _tint(random: np.random.Generator) -> NDArray[np.float64]:
    """Of grey faces: skin in warm or cold light, or none."""
    if random.random() < 0.25:
        return np.ones(3)
    red, green = random.uniform(1, 1.4), random.uniform(0.8, 1)
    return np.array([red, green, green * random.uniform(0.6, 1.05)]) * random.uniform(0.6, 1.2)


def _odds(score: float) -> float:
    return math.log(score / (1 - score))
