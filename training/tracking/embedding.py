"""Fits the appearance embedding: a projection that brings views of one face together and separates different faces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from batchemo.atomic import replacing
from batchemo.faces.align import align_faces
from batchemo.faces.reid import FACE_SIZE, thumbnail
from training.tracking.scenes import Actor, Person, Scene, Shot, make_people, render_frames

SHRINKAGE = 0.2
"""Shrinkage of the within-class scatter towards a multiple of the identity. Less of it is better on synthetic views and worse on real faces
(RESULTS.md)."""

_SHOTS, _VIEWS = 4, 2
_SHOT_S = 3.0


def fit_projection(faces: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """`mean` 144 and `matrix` 144 x `FACE_SIZE` for thumbnails, from N x 48 x 48 faces of different people.

    Linear discriminant analysis (Fisher 1936). The within-class scatter is that of synthetic views of each face, with other poses, lighting
    and expressions, and with the alignment errors of a detector.
    """
    people = make_people(faces, seed=0)
    views = [np.stack(list(_thumbnails(person, seed=number))) for number, person in enumerate(people)]
    centres = np.stack([each.mean(axis=0) for each in views])
    mean = centres.mean(axis=0)
    apart = np.concatenate([each - centre for each, centre in zip(views, centres, strict=True)]).astype(np.float64)
    within = apart.T @ apart / len(apart)
    within = (1 - SHRINKAGE) * within + SHRINKAGE * np.trace(within) / len(within) * np.eye(len(within))
    spread, directions = np.linalg.eigh(within)
    whitening = directions / np.sqrt(spread)
    _, _, between = np.linalg.svd((centres - mean) @ whitening, full_matrices=False)
    matrix = whitening @ between[:FACE_SIZE].T
    return {"mean": mean.astype(np.float32), "matrix": (matrix / np.abs(matrix).max()).astype(np.float32)}


def write_projection(projection: dict[str, NDArray[np.float32]], path: Path) -> None:
    """Writes a safetensors file, atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(save(projection))


def _thumbnails(person: Person, *, seed: int) -> Iterator[NDArray[np.float32]]:
    """Thumbnails of a face as several cameras see it."""
    random = np.random.default_rng(seed)
    shots = []
    for number in range(_SHOTS):
        keys = np.array([[0, random.uniform(150, 490), random.uniform(110, 200), random.uniform(45, 140)]])
        actor = Actor(0, keys, yaw=0.45, phase=float(random.uniform(0, 1)))
        red, green, blue = (float(gain) for gain in 1 + random.uniform(-0.2, 0.2) + random.uniform(-0.07, 0.07, 3))
        shots.append(Shot((number + 1) * _SHOT_S, (actor,), int(random.integers(2**31)), (red, green, blue)))
    for view in render_frames(Scene("portrait", (person,), tuple(shots), _VIEWS / _SHOT_S, seed)):
        yield from map(thumbnail, align_faces(view.pixels, view.faces).pixels)
