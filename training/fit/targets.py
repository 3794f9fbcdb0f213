"""Targets: what a network learns of each picture, from its label, FER+'s votes and teachers (distillation)."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from batchemo.emotion.model import ExpressionNet
from batchemo.errors import DataError
from training.data.fer2013 import FaceSet
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


class Teachers:
    """Teachers for distillation: copies of `networks` (at least one, all of the same classes) in evaluation mode on `device`.

    They see each picture as it was augmented for the student (Beyer et al. 2022, "Knowledge distillation: A good teacher is patient and
    consistent", arXiv 2106.05237).
    """

    def __init__(self, networks: Sequence[ExpressionNet], device: torch.device) -> None:
        self._networks = [copy.deepcopy(each).eval().to(device).to(memory_format=torch.channels_last) for each in networks]

    @torch.no_grad()
    def predict(self, pictures: Tensor) -> Tensor:
        """The mean of the teachers' probabilities, N x classes, of pictures N x 1 x S x S."""
        return torch.stack([network(pictures).float().softmax(dim=1) for network in self._networks]).mean(dim=0)

    def tensors(self) -> list[Tensor]:
        """All parameters and buffers."""
        return [tensor for network in self._networks for tensor in network.state_dict().values()]
