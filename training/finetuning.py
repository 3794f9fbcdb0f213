"""From a network that reads some labels, and a user's own pictures, to the beginning of one that reads others."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from batchemo.detect import Detector
from batchemo.errors import DataError
from batchemo.network import ExpressionNet
from batchemo.weights import Weights
from training.dataset import FaceSet, hold_out
from training.folders import HELD_BACK_SHARE, Labelled, check_enough, read_folders
from training.recipe import Recipe

_NAMED = 5


def relabel(weights: Weights, labels: Sequence[str], *, seed: int) -> ExpressionNet:
    """The network of `weights` with a head for `labels`: what it knew of a label it keeps, the rest of the head is random."""
    torch.manual_seed(seed)
    network = ExpressionNet(dataclasses.replace(weights.network.spec, classes=len(labels)))
    state = network.state_dict()
    old = weights.network.state_dict()
    rows = [(labels.index(label), weights.labels.index(label)) for label in labels if label in weights.labels]
    for name, tensor in old.items():
        if not name.startswith("head."):
            state[name] = tensor
        else:
            for new_row, old_row in rows:
                state[name][new_row] = tensor[old_row]
    network.load_state_dict(state)
    return network.eval()


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
    detector = None if crops is None else Detector(device=device)
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
