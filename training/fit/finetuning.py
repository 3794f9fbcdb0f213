"""Fine-tuning to a user's own labels and pictures: the data, the new head and the recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from batchemo.emotion.model import ExpressionNet
from batchemo.emotion.weights import Weights
from batchemo.errors import DataError
from batchemo.faces.detector import MtcnnDetector
from training.data.fer2013 import FaceSet, hold_out
from training.data.folders import HELD_BACK_SHARE, LabelledFolder, check_enough, read_labelled_folder
from training.recipe import Recipe

_BATCH = 256
_NAMED = 5

_INVERSE_PENALTY = 0.01
"""From 0.001 to 0.1 the accuracy for three other labels was the same within 0.5 points; from 1 on it fell."""


def replace_head(weights: Weights, labels: Sequence[str], faces: FaceSet, *, device: torch.device) -> ExpressionNet:
    """The network of `weights` with a new head for `labels`, into which the labels of `faces` are indices.

    If the network knows all labels, their rows of the head are kept. Otherwise the head is a logistic regression on the features of
    `faces`: fine-tuning from a random head distorts the features (Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features").
    """
    old = weights.network
    network = ExpressionNet(dataclasses.replace(old.spec, classes=len(labels)))
    state = network.state_dict() | {name: tensor for name, tensor in old.state_dict().items() if not name.startswith("head.")}
    if set(labels) <= set(weights.labels):
        rows = [weights.labels.index(label) for label in labels]
        state |= {name: old.state_dict()[name][rows] for name in ("head.weight", "head.bias")}
    else:
        slopes, offsets = _regress(_features(old, faces.pixels, device), faces.labels)
        state |= {"head.weight": slopes, "head.bias": offsets}
    network.load_state_dict(state)
    return network.eval()


def _features(network: ExpressionNet, pixels: Tensor, device: torch.device) -> NDArray[np.float32]:
    network.to(device)
    with torch.inference_mode():
        parts = [network.features(batch.to(device)).float().cpu() for batch in pixels.split(_BATCH)]  # type: ignore[no-untyped-call]
    return np.asarray(torch.cat(parts).numpy())


def _regress(features: NDArray[np.float32], labels: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (classes x features) and biases (classes) of a logistic regression."""
    model = LogisticRegression(C=_INVERSE_PENALTY, max_iter=5000).fit(features, labels.numpy())
    slopes, offsets = torch.from_numpy(model.coef_).float(), torch.from_numpy(model.intercept_).float()
    if len(slopes) == 1:  # two classes: sklearn gives the difference
        return torch.cat([-slopes, slopes]) / 2, torch.cat([-offsets, offsets]) / 2
    return slopes, offsets


def finetuning_recipe(recipe: Recipe, network: ExpressionNet, pictures: int) -> Recipe:
    """`recipe` for that network, with batches of at most a quarter of the `pictures`, so that an epoch has several steps."""
    batch_size = max(2, min(recipe.batch_size, pictures // 4))
    return dataclasses.replace(recipe, network=network.spec, batch_size=batch_size)


def read_finetuning_data(
    folder: Path, held_back: Path | None, *, known: Sequence[str], crops: Path | None, seed: int, device: torch.device
) -> tuple[FaceSet, FaceSet, LabelledFolder]:
    """The training set, the held-back set for calibration and evaluation, and the content of `folder`.

    With `crops` the pictures are photographs: faces are detected, and their aligned crops written there. Without `held_back` (a folder like
    `folder`), a part of `folder` is held back. Raises DataError if a label has too few pictures, or if the labels of the folders differ.
    """
    detector = None if crops is None else MtcnnDetector(device=device)
    pictures = read_labelled_folder(folder, known=known, detector=detector, crops=crops)
    if held_back is None:
        check_enough(pictures, folder)
        return *hold_out(pictures.faces, share=HELD_BACK_SHARE, seed=seed), pictures
    others = read_labelled_folder(held_back, known=known, detector=detector)
    if others.labels != pictures.labels:
        raise DataError(f"{held_back} has the labels {', '.join(others.labels)}, {folder} {', '.join(pictures.labels)}; make them the same")
    return pictures.faces, others.faces, pictures


def folder_summary(pictures: LabelledFolder) -> list[str]:
    """Lines for people: counts by label, and pictures with problems."""
    lines = [", ".join(f"{label} {count}" for label, count in pictures.counts().items())]
    if pictures.faceless:
        names = ", ".join(str(path) for path in pictures.faceless[:_NAMED])
        more = f" and {len(pictures.faceless) - _NAMED} more" if len(pictures.faceless) > _NAMED else ""
        lines.append(f"no face found in {len(pictures.faceless)} pictures, which are left out: {names}{more}")
    if pictures.oblong:
        lines.append(f"{pictures.oblong} pictures are far from square and get squeezed; if they are whole photographs, add --find-faces")
    return lines
