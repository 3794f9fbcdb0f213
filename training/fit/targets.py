"""Targets: what a network learns of each picture, from its label and from FER+'s votes."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.nn import functional

from batchemo.errors import DataError
from training.data.dataset import FaceSet
from training.data.votes import label_probabilities, vote_shares
from training.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Samples:
    """`pixels` uint8 N x 1 x 48 x 48, `targets` float32 N x 7 (probabilities), `votes` float32 N x 10 (N x 0 if the recipe needs none)."""

    pixels: Tensor
    targets: Tensor
    votes: Tensor

    def __len__(self) -> int:
        return len(self.pixels)


def make_samples(recipe: Recipe, faces: FaceSet) -> Samples:
    """Pictures with their targets. Raises DataError if the recipe needs votes and `faces` have none."""
    one_hot = functional.one_hot(faces.labels, recipe.network.classes).float()
    if not recipe.needs_votes:
        return Samples(faces.pixels, one_hot, torch.empty(len(faces), 0))
    if faces.votes is None:
        raise DataError(
            "the recipe learns from the votes of FER+; give its fer2013new.csv with --votes, or set votes_share and votes_weight to 0"
        )
    likely = label_probabilities(faces.votes, faces.labels, seed=recipe.seed) if recipe.votes_share else one_hot
    return Samples(faces.pixels, torch.lerp(one_hot, likely, recipe.votes_share), vote_shares(faces.votes))
