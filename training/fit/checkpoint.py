"""Checkpoints: the whole state of a training after an epoch, so that it can be resumed."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from pathlib import Path
from pickle import UnpicklingError
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from batchemo.atomic import replacing
from batchemo.emotion.model import ExpressionNet
from batchemo.errors import DataError
from training.recipe import Recipe, complete_recipe

CHECKPOINT = "checkpoint.pt"


@dataclasses.dataclass(frozen=True, slots=True)
class TrainingState:
    """All that changes during a training; `average` holds the running average of the weights of `network`."""

    network: ExpressionNet
    vote_head: nn.Linear
    average: AveragedModel
    optimizer: torch.optim.Optimizer


class TrainingInputs(NamedTuple):
    """Hashes of what a training is given: its samples, its initial weights (empty if random) and its teachers (empty if none)."""

    data: str
    start: str
    teachers: str


def hash_tensors(tensors: Iterable[Tensor]) -> str:
    """SHA-256 of the values of `tensors`, in hexadecimal."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.cpu().numpy().tobytes())
    return found.hexdigest()


def save_checkpoint(path: Path, state: TrainingState, *, recipe: Recipe, inputs: TrainingInputs, epochs: int) -> None:
    """Writes `path` atomically; `epochs` is the number of epochs that are done."""
    content = {
        "recipe": dataclasses.asdict(recipe),
        "data": inputs.data,
        "start": inputs.start,
        "teachers": inputs.teachers,
        "epochs": epochs,
        "network": state.network.state_dict(),
        "vote_head": state.vote_head.state_dict(),
        "average": state.average.state_dict(),
        "optimizer": state.optimizer.state_dict(),
    }
    with replacing(path) as temporary:
        torch.save(content, temporary)


def load_checkpoint(path: Path, state: TrainingState, *, recipe: Recipe, inputs: TrainingInputs) -> int:
    """Loads `path` into `state` and returns how many epochs are done; 0 if there is no such file.

    Raises DataError for a damaged file, and for one of another recipe, other samples, initial weights or teachers.
    """
    if not path.exists():
        return 0
    try:
        stored = torch.load(path, weights_only=True, map_location="cpu")
        stored_recipe, epochs = complete_recipe(stored["recipe"]), int(stored["epochs"])
    except (OSError, EOFError, RuntimeError, UnpicklingError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: damaged checkpoint ({type(error).__name__}); remove it to start anew") from error
    if stored_recipe != dataclasses.asdict(recipe):
        raise DataError(f"{path} belongs to another recipe; give another folder with --out, or remove it")
    if stored.get("data", inputs.data) != inputs.data:
        raise DataError(f"{path} belongs to other pictures or targets; give those with --data and --votes, or another folder with --out")
    if stored.get("start", inputs.start) != inputs.start:
        raise DataError(f"{path} began with other weights; give those with --start, or another folder with --out")
    if stored.get("teachers", inputs.teachers) != inputs.teachers:
        raise DataError(f"{path} had other teachers; give those with --teacher, or another folder with --out")
    state.network.load_state_dict(stored["network"])
    state.vote_head.load_state_dict(stored["vote_head"])
    state.average.load_state_dict(stored["average"])
    state.optimizer.load_state_dict(stored["optimizer"])
    return epochs
