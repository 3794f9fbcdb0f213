"""What a training sees, and what is held back from it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import torch

from batchemo.errors import DataError
from training.console import say
from training.dataset import PUBLISHED_COUNTS, FaceSet, choose_split, clean_part, hold_out, leave_out_non_faces, read_splits

_HELD_OUT_SHARE = 0.1


class Material(NamedTuple):
    """What a training sees, what is held back from it under which name, and which of that is not trained on all the same (bool N)."""

    training: FaceSet
    held_back: FaceSet
    clean: torch.Tensor
    name: str

    def digest(self) -> str:
        parts = (self.training.pixels, self.training.labels, self.held_back.pixels, self.held_back.labels)
        return hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()


def gather(data: Path, votes: Path | None, seed: int) -> Material:
    """Training and PublicTest of `data`; without PublicTest a tenth of Training, drawn by `seed`. Raises DataError without Training."""
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
    # A picture that annotators call no face, left out of training, is no less known: figures of others count it.
    material = checked(training, held_back, name, source=data)
    return material._replace(training=leave_out_non_faces(training))


def checked(training: FaceSet, held_back: FaceSet, name: str, *, source: Path) -> Material:
    """Raises DataError, which names `source`, where nearly all that is held back is trained on as well."""
    clean = clean_part(held_back, training)
    if clean.sum() < 2:
        raise DataError(f"{source}: all {len(held_back)} pictures of {name} are trained on as well; add others to calibrate on")
    return Material(training, held_back, clean, name)


def compare_with_published(split: str, faces: FaceSet) -> None:
    """Says so where a split is not as large as FER2013's."""
    if len(faces) != PUBLISHED_COUNTS[split]:
        say(
            f"{split} has {len(faces)} pictures, {PUBLISHED_COUNTS[split]} in FER2013 as published: figures cannot be compared with others'"
        )
