"""From a network that reads some labels, and a user's own pictures, to the beginning of one that reads others."""

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
from training.dataset import FaceSet, hold_out
from training.folders import HELD_BACK_SHARE, Labelled, check_enough, read_folders
from training.recipe import Recipe

_BATCH = 256
_NAMED = 5

_INVERSE_PENALTY = 0.01
"""Between .001 and .1 a head for three other labels was right equally often, to .5 points; beyond, from 1 on, less."""


def relabel(weights: Weights, labels: Sequence[str], faces: FaceSet, *, device: torch.device) -> ExpressionNet:
    """The network of `weights` with a head for `labels`, which those of `faces` are indices into.

    Labels that the network knows keep their part of the head. Where there is another among them, the whole head is a logistic
    regression on what the network makes of `faces`: from a random one, training first spoils what the network has learnt
    (Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features").
    """
    old = weights.network
    network = ExpressionNet(dataclasses.replace(old.spec, classes=len(labels)))
    state = network.state_dict() | {name: tensor for name, tensor in old.state_dict().items() if not name.startswith("head.")}
    if set(labels) <= set(weights.labels):
        rows = [weights.labels.index(label) for label in labels]
        state |= {name: old.state_dict()[name][rows] for name in ("head.weight", "head.bias")}
    else:
        slopes, offsets = _regress(_features(old, faces.pixels, device), faces.labels)
        kernel = torch.zeros_like(state["head.weight"])
        # Of a convolution the middle alone: the mean of its outputs is then what it makes of the mean.
        (kernel if kernel.ndim == 2 else kernel[:, :, 1, 1]).copy_(slopes)
        state |= {"head.weight": kernel, "head.bias": offsets}
    network.load_state_dict(state)
    return network.eval()


def _features(network: ExpressionNet, pixels: Tensor, device: torch.device) -> NDArray[np.float32]:
    network.to(device)
    with torch.inference_mode():
        parts = [network.features(batch.to(device)).float().cpu() for batch in pixels.split(_BATCH)]  # type: ignore[no-untyped-call]
    return np.asarray(torch.cat(parts).numpy())


def _regress(features: NDArray[np.float32], labels: Tensor) -> tuple[Tensor, Tensor]:
    """Slopes (classes x features) and offsets (classes) of a logistic regression."""
    model = LogisticRegression(C=_INVERSE_PENALTY, max_iter=5000).fit(features, labels.numpy())
    slopes, offsets = torch.from_numpy(model.coef_).float(), torch.from_numpy(model.intercept_).float()
    if len(slopes) == 1:  # of two classes, the difference
        return torch.cat([-slopes, slopes]) / 2, torch.cat([-offsets, offsets]) / 2
    return slopes, offsets


def fitting_recipe(recipe: Recipe, network: ExpressionNet, pictures: int) -> Recipe:
    """`recipe` for that network; a batch is no larger than a quarter of the `pictures`, so that an epoch has some steps."""
    batch_size = max(2, min(recipe.batch_size, pictures // 4))
    return dataclasses.replace(recipe, network=network.spec, batch_size=batch_size)


def read_material(
    folder: Path, held_back: Path | None, *, known: Sequence[str], crops: Path | None, seed: int, device: torch.device
) -> tuple[FaceSet, FaceSet, Labelled]:
    """Faces to train on, faces to calibrate and evaluate on, and all that is known of the former.

    With `crops` the pictures are photographs, whose faces are found and written there. Without `held_back`, a folder like
    `folder`, a part of `folder` is held back. Raises DataError where labels have too few pictures, or the two have other labels.
    """
    detector = None if crops is None else MtcnnDetector(device=device)
    pictures = read_folders(folder, known=known, detector=detector, crops=crops)
    if held_back is None:
        check_enough(pictures, folder)
        return *hold_out(pictures.faces, share=HELD_BACK_SHARE, seed=seed), pictures
    others = read_folders(held_back, known=known, detector=detector)
    if others.labels != pictures.labels:
        raise DataError(f"{held_back} has the labels {', '.join(others.labels)}, {folder} {', '.join(pictures.labels)}; make them the same")
    return pictures.faces, others.faces, pictures


def describe(pictures: Labelled) -> list[str]:
    """What was read, in lines for people."""
    lines = [", ".join(f"{label} {count}" for label, count in pictures.counts().items())]
    if pictures.faceless:
        names = ", ".join(str(path) for path in pictures.faceless[:_NAMED])
        more = f" and {len(pictures.faceless) - _NAMED} more" if len(pictures.faceless) > _NAMED else ""
        lines.append(f"no face found in {len(pictures.faceless)} pictures, which are left out: {names}{more}")
    if pictures.oblong:
        lines.append(f"{pictures.oblong} pictures are far from square and get squeezed; if they are whole photographs, add --find-faces")
    return lines
