"""Splits a data set into the training set and the held-out set of a training."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import torch

from batchemo.errors import DataError
from training.console import say
from training.data.fer2013 import PUBLISHED_COUNTS, FaceSet, choose_split, clean_part, hold_out, leave_out_non_faces, read_splits

_HELD_OUT_SHARE = 0.1


class Holdout(NamedTuple):
    """The training set, and the held-back set `name`. `clean` (bool N) marks held-back pictures without a copy in the training set."""

    training: FaceSet
    held_back: FaceSet
    clean: torch.Tensor
    name: str

    def digest(self) -> str:
        """SHA-256 of all pictures and labels."""
        parts = (self.training.pixels, self.training.labels, self.held_back.pixels, self.held_back.labels)
        return hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()


def read_holdout(data: Path, votes: Path | None, seed: int) -> Holdout:
    """Training and PublicTest of `data`. Without PublicTest, a random tenth of Training is held back. Raises DataError without Training."""
    splits = read_splits(data, votes=votes, faces_only=False)
    training, name = choose_split(splits, "Training", data), "PublicTest"
    compare_with_published("Training", training)
    if name in splits:
        held_back = splits[name]
        compare_with_published(name, held_back)
    else:
        say(f"{data} has no pictures of the split PublicTest: a tenth of Training is held back instead, and not trained on")
        training, held_back = hold_out(leave_out_non_faces(training), share=_HELD_OUT_SHARE, seed=seed)
        name = "a tenth of Training"
    # Before non-faces are left out: published figures count their copies as seen, too.
    material = checked_holdout(training, held_back, name, source=data)
    return material._replace(training=leave_out_non_faces(training))


def checked_holdout(training: FaceSet, held_back: FaceSet, name: str, *, source: Path) -> Holdout:
    """Raises DataError, which names `source`, if fewer than two held-back pictures are clean."""
    clean = clean_part(held_back, training)
    if clean.sum() < 2:
        raise DataError(f"{source}: all {len(held_back)} pictures of {name} are trained on as well; add others to calibrate on")
    return Holdout(training, held_back, clean, name)


def compare_with_published(split: str, faces: FaceSet) -> None:
    """Warns if the size of a split is not that of FER2013."""
    if len(faces) != PUBLISHED_COUNTS[split]:
        say(
            f"{split} has {len(faces)} pictures, {PUBLISHED_COUNTS[split]} in FER2013 as published: figures cannot be compared with others'"
        )
