"""Folds of the training pictures, and networks that each learn from all but one of them (cross-fitting).

What a network makes of a picture that it was trained on says what it has memorised. Of a fold that it has not seen, its reading is as
uncertain as the picture is, and can be learnt from.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor
from torch.nn import functional

from batchemo.emotion.model import ExpressionNet
from batchemo.errors import DataError
from batchemo.records import EMOTIONS
from training.augmentation import resize
from training.console import say
from training.dataset import FaceSet
from training.duplicates import group_alike
from training.fitting import predict
from training.material import Material
from training.recipe import Recipe
from training.runs import teach
from training.unseen import UNSEEN, Unseen, hash_pictures


def deal(faces: FaceSet, *, folds: int, seed: int) -> Tensor:
    """The fold of each picture, int64 N from 0: the same for the same seed, about the same share of each label in each.

    Copies of a picture (`group_alike`) are in one fold. Raises DataError where an emotion has too few pictures for the folds.
    """
    groups = group_alike(faces.pixels)
    for label in sorted(set(faces.labels.tolist())):
        distinct = len(set(groups[faces.labels == label].tolist()))
        if distinct < folds:
            raise DataError(f"{distinct} different pictures of {EMOTIONS[label]} do not fill {folds} folds; lower --folds or add pictures")
    dealt = torch.empty(len(faces), dtype=torch.int64)
    parts = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(faces.labels, faces.labels, groups=groups)
    for number, (_, own) in enumerate(parts):
        dealt[torch.from_numpy(own)] = number
    return dealt


def cross_fit(recipe: Recipe, faces: FaceSet, *, folds: int, folder: Path, device: torch.device) -> Unseen:
    """Fits a network to all folds but one, for each, in `folder`/fold1 and so on, and has it read that one; tells how it goes.

    Called again with the same recipe and pictures, it goes on after the last whole epoch. Raises DataError like `deal` and `fit`.
    """
    dealt = deal(faces, folds=folds, seed=recipe.seed)
    probabilities = torch.empty(len(faces), len(EMOTIONS))
    for number in range(folds):
        own = dealt == number
        unseen = faces.subset(own)
        material = Material(faces.subset(~own), unseen, torch.ones(len(unseen), dtype=torch.bool), f"fold {number + 1} of {folds}")
        network = teach(recipe, material, folder=folder / f"fold{number + 1}", device=device, start=None)
        probabilities[own] = _read(network, unseen.pixels, side_px=recipe.size_px(recipe.epochs - 1), device=device)
        say(f"{material.name}: {quality(probabilities[own], unseen.labels)}")
    return Unseen(folder / UNSEEN, probabilities, hash_pictures(faces.pixels), dataclasses.asdict(recipe), folds)


def quality(probabilities: Tensor, labels: Tensor) -> str:
    """How well `probabilities` (N x 7) of unseen pictures tell `labels` (N), in words."""
    right = (probabilities.argmax(dim=1) == labels).float().mean()
    nll = functional.nll_loss(probabilities.clamp_min(torch.finfo(torch.float32).tiny).log(), labels)
    return f"accuracy {right:.2%}, NLL {nll:.4f} on {len(labels)} pictures, each read by a network that has not seen it"


def _read(network: ExpressionNet, pixels: Tensor, *, side_px: int, device: torch.device) -> Tensor:
    """Probabilities N x 7 of uint8 N x 1 x 48 x 48, each with its mirror image, at the size that the network ended its training with."""
    return predict(network.to(device), resize(pixels.float() / 255, side_px), device, flips=True).softmax(dim=1)
