"""Small data for training, which a small network can tell apart, and what the tests of training share to write and run it."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from batchemo.emotion.model import ExpressionNet, NetworkSpec
from training.data.fer2013 import VOTES, FaceSet, read_split
from training.fit.trainer import Epoch, fit_network
from training.recipe import Augmentation, Recipe

CPU = torch.device("cpu")

RECIPE = Recipe(
    epochs=4,
    batch_size=8,
    learning_rate=0.05,
    warmup_epochs=0.5,
    ema_decay=0.8,
    sizes=(24, 48),
    size_shares=(0.5, 0.5),
    network=NetworkSpec(stem=8, widths=(8, 16), blocks=(1, 1)),
    augmentation=Augmentation(rotation_degrees=3.0, erase=0.1, low_resolution=0.1),
)
"""Small and quick. Tests that need another change this one with `dataclasses.replace`; `to_toml` makes it a file."""

QUICK = dataclasses.replace(RECIPE, epochs=1, batch_size=16, sizes=(24,), size_shares=(1.0,))


class Done(NamedTuple):
    code: int
    out: str
    err: str


def pattern(label: int, seed: int) -> NDArray[np.uint8]:
    """Stripes whose direction and width say the class; where they start, their contrast and noise say nothing."""
    random = np.random.default_rng([label, seed])
    along = np.mgrid[0:48, 0:48][label % 2]
    waves = 127 + random.uniform(40, 90) * np.sin(2 * math.pi * (2 + 2 * label) * along / 48 + random.uniform(0, 6))
    return (waves + random.normal(0, 8, (48, 48))).clip(0, 255).astype(np.uint8)


def write_csv(path: Path, rows: Sequence[tuple[object, object, object]], header: tuple[str, ...] = ("emotion", "pixels", "Usage")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def row(label: int, seed: int, usage: str) -> tuple[object, object, object]:
    return label, " ".join(map(str, pattern(label, seed).ravel())), usage


def rows(*, training: int = 24, public: int = 8) -> list[tuple[object, object, object]]:
    wanted = [("Training", seed) for seed in range(training)] + [("PublicTest", 1000 + seed) for seed in range(public)]
    return [row(label, seed, usage) for usage, seed in wanted for label in range(7)]


def write_votes(path: Path, rows: list[tuple[str, dict[str, int]]]) -> Path:
    """`fer2013new.csv`: for each row its split and the votes that are not 0."""
    lines = [",".join([split, "", *(str(votes.get(name, 0)) for name in VOTES)]) for split, votes in rows]
    path.write_text("\n".join([",".join(["Usage", "Image name", *VOTES]), *lines]) + "\n")
    return path


def as_set(faces: FaceSet) -> set[tuple[int, bytes]]:
    return {(int(label), picture.numpy().tobytes()) for picture, label in zip(faces.pixels, faces.labels, strict=True)}


def train(recipe: Recipe, data: Path, folder: Path, report: Callable[[Epoch], None] = lambda _: None) -> ExpressionNet:
    return fit_network(recipe, read_split(data, "Training"), validation=None, folder=folder, device=CPU, report=report)
