"""Cross-validation: folds of the training pictures, and the predictions of networks for the fold they were not trained on."""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor
from torch.nn import functional

from batchemo.atomic import replacing
from batchemo.errors import DataError
from batchemo.records import EMOTIONS
from training.console import say
from training.data.augmentation import resize
from training.data.duplicates import group_similar
from training.data.fer2013 import FaceSet
from training.data.holdout import Holdout
from training.fit.run import run_training
from training.inference import predict
from training.recipe import Recipe

PREDICTIONS = "predictions.csv"


def assign_folds(faces: FaceSet, *, folds: int, seed: int) -> Tensor:
    """The fold of each picture, int64 N, from 0. Folds are stratified by label and depend on the seed alone.

    Copies of a picture (`group_similar`) share a fold. Raises DataError if an emotion has too few pictures for the folds.
    """
    groups = group_similar(faces.pixels)
    for label in sorted(set(faces.labels.tolist())):
        distinct = len(set(groups[faces.labels == label].tolist()))
        if distinct < folds:
            raise DataError(f"{distinct} different pictures of {EMOTIONS[label]} do not fill {folds} folds; lower --folds or add pictures")
    fold_of = torch.empty(len(faces), dtype=torch.int64)
    parts = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(faces.labels, faces.labels, groups=groups)
    for number, (_, own) in enumerate(parts):
        fold_of[torch.from_numpy(own)] = number
    return fold_of


def cross_validate(recipe: Recipe, faces: FaceSet, *, folds: int, folder: Path, device: torch.device) -> tuple[Tensor, Tensor]:
    """Out-of-fold probabilities (float32 N x 7) and the fold of each picture (int64 N).

    Trains one network for each fold, in `folder`/fold1 and so on, on all other folds. Called again with the same recipe and pictures, it
    resumes after the last whole epoch. Raises DataError as `assign_folds` and `fit` do.
    """
    fold_of = assign_folds(faces, folds=folds, seed=recipe.seed)
    probabilities = torch.empty(len(faces), len(EMOTIONS))
    for number in range(folds):
        own = fold_of == number
        held_out = faces.subset(own)
        holdout = Holdout(faces.subset(~own), held_out, torch.ones(len(held_out), dtype=torch.bool), f"fold {number + 1} of {folds}")
        network = run_training(recipe, holdout, folder=folder / f"fold{number + 1}", device=device, start=None).to(device)
        # At the size that the training ended with, averaged over each picture and its mirror image.
        pixels = resize(held_out.pixels.float() / 255, recipe.size_px(recipe.epochs - 1))
        probabilities[own] = predict(network, pixels, device, flips=True).softmax(dim=1)
        say(f"{holdout.name}: {_quality(probabilities[own], held_out.labels)}")
    say(f"all {folds} folds: {_quality(probabilities, faces.labels)}")
    return probabilities, fold_of


def write_predictions(path: Path, faces: FaceSet, probabilities: Tensor, fold_of: Tensor) -> None:
    """Writes a csv with one row per picture: `picture`, `label`, `fold` (from 1) and `p_<emotion>` for each emotion."""
    names = [str(number) for number in range(len(faces))] if faces.names is None else faces.names.tolist()
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["picture", "label", "fold", *(f"p_{emotion}" for emotion in EMOTIONS)])
        for name, label, fold, row in zip(names, faces.labels.tolist(), fold_of.tolist(), probabilities.tolist(), strict=True):
            writer.writerow([name, EMOTIONS[label], fold + 1, *(f"{share:.6f}" for share in row)])


def _quality(probabilities: Tensor, labels: Tensor) -> str:
    """Accuracy and negative log-likelihood of out-of-fold `probabilities` (N x 7), as a text."""
    accuracy = (probabilities.argmax(dim=1) == labels).float().mean()
    nll = functional.nll_loss(probabilities.clamp_min(torch.finfo(torch.float32).tiny).log(), labels)
    return f"out-of-fold accuracy {accuracy:.2%}, NLL {nll:.4f}, {len(labels)} pictures"
