"""Composite scenes: small faces pasted onto backgrounds, as the pre-filter meets them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from batchemo.errors import DataError
from batchemo.media.decode import open_source
from batchemo.media.discover import find_media
from batchemo.media.resize import downsample2x

_SIDE_PX = 126
"""Side of a scene: 29 blocks."""
_FACES_PX = 11.0, 30.0
"""Sides of the pasted pictures of FER2013. The proposal network responds to faces of 12 px and a little more."""
_MOST_FACES = 14
_FRAMES_A_SECOND = 2.0
_MOST_BACKGROUNDS, _BACKGROUND_PX = 500, 1080
"""Number of backgrounds and their shorter side, at most. They take 3 GB."""

Images = NDArray[np.uint8]


def read_backgrounds(path: Path) -> list[Images]:
    """Pictures, and two frames a second of videos, in a folder: RGB H x W x 3.

    Large ones are downsample2x. The first 500 are taken, in the order of their file names. Raises DataError if there are none.
    """
    media = find_media([path], out=path / "results")
    sources = (open_source(medium, decoder="pyav") for medium in media)
    frames = (frame.pixels for source in sources for frame in source.frames(sample_fps=_FRAMES_A_SECOND) if frame.is_decoded)
    large = (pixels for pixels in frames if min(pixels.shape[:2]) >= _SIDE_PX // 2)
    backgrounds = [_reduced(pixels) for pixels in itertools.islice(large, _MOST_BACKGROUNDS)]
    if not backgrounds:
        raise DataError(f"{path} holds no pictures or videos for backgrounds; give a folder that does")
    return backgrounds


def compose_scene(faces: Images, backgrounds: Sequence[Images], random: np.random.Generator) -> NDArray[np.float32]:
    """Small faces (of N x 48 x 48) on a background, under random lighting, blur, noise and compression: RGB 126 x 126 x 3, 0 to 255."""
    scene: NDArray[Any] = _background(backgrounds, random).astype(np.float32)
    for _ in range(int(random.integers(_MOST_FACES))):
        _paste_face(scene, faces[random.integers(len(faces))], random)
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


def _reduced(pixels: Images) -> Images:
    while min(pixels.shape[:2]) > _BACKGROUND_PX:
        pixels = downsample2x(pixels)
    return pixels.copy()


def _background(backgrounds: Sequence[Images], random: np.random.Generator) -> Images:
    """A random part of a picture; in 14 % of the calls a single colour or a soft pattern."""
    kind, size = random.random(), (_SIDE_PX, _SIDE_PX)
    if kind < 0.08:
        return np.full((*size, 3), random.integers(0, 256, 3), np.uint8)
    if kind < 0.14:
        pattern = random.integers(0, 256, (*random.integers(2, 40, 2), 3), dtype=np.uint8)
        return np.asarray(cv2.resize(pattern, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    picture = backgrounds[int(random.integers(len(backgrounds)))]
    side = int(min(picture.shape[:2]) * min(1.0, random.uniform(0.3, 1.3)))
    top, left = (int(random.integers(length - side + 1)) for length in picture.shape[:2])
    part = picture[top : top + side, left : left + side]
    part = part[:, ::-1] if random.random() < 0.5 else part
    how = cv2.INTER_AREA if random.random() < 0.5 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(part, size, interpolation=how), np.uint8)


def _paste_face(scene: NDArray[np.float32], face: Images, random: np.random.Generator) -> None:
    side = random.uniform(*_FACES_PX)
    middle, canvas = face.shape[0] / 2, int(side * 1.5) + 2
    turn = cv2.getRotationMatrix2D((middle, middle), random.uniform(-25, 25), side / face.shape[0])
    turn[0] *= random.uniform(0.85, 1.1)
    turn[:, 2] = canvas / 2 + random.uniform(-0.5, 0.5, 2) - turn[:, :2] @ (middle, middle)
    mirrored = face[:, ::-1] if random.random() < 0.5 else face
    # Blurred like an area mean, to avoid aliasing.
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
    """Factors of red, green and blue that give a grey face a skin colour in warm or cold light; in a quarter of the calls all are 1."""
    if random.random() < 0.25:
        return np.ones(3)
    red, green = random.uniform(1, 1.4), random.uniform(0.8, 1)
    return np.array([red, green, green * random.uniform(0.6, 1.05)]) * random.uniform(0.6, 1.2)
