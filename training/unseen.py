"""Out-of-fold readings: what networks make of training pictures that they have not seen, and the file that keeps them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from batchemo.atomic import replacing
from batchemo.errors import DataError, typed
from batchemo.records import EMOTIONS
from training.dataset import FaceSet
from training.recipe import Recipe, complete

UNSEEN = "unseen.safetensors"

_FORMAT = "batchemo-unseen-1"
_HASH_BYTES = 32
_SUMS_WITHIN = 1e-4
_ANEW = "make some with: python -m training cross --help"


@dataclasses.dataclass(frozen=True, slots=True)
class Unseen:
    """Readings of N pictures, and their file, `path`: `probabilities` float32 N x 7 in the order of `EMOTIONS`, `pictures` uint8 N x 32.

    `pictures` has the SHA-256 of the pixels of each, so that a reading finds its picture whatever else is trained on. `recipe` is that of
    the networks, as `dataclasses.asdict` gives it, `folds` how many there were. Raises DataError where these do not fit together.
    """

    path: Path
    probabilities: Tensor
    pictures: Tensor
    recipe: dict[str, Any]
    folds: int

    def __post_init__(self) -> None:
        if self.probabilities.shape[1:] != (len(EMOTIONS),) or self.probabilities.dtype != torch.float32:
            raise DataError(f"probabilities must be float32 N x {len(EMOTIONS)}, not {_told(self.probabilities)}")
        if self.pictures.shape != (len(self.probabilities), _HASH_BYTES) or self.pictures.dtype != torch.uint8:
            raise DataError(f"hashes must be uint8 {len(self.probabilities)} x {_HASH_BYTES}, not {_told(self.pictures)}")
        sums = self.probabilities.sum(dim=1)
        if not bool((self.probabilities >= 0).all()) or not torch.allclose(sums, torch.ones_like(sums), rtol=0, atol=_SUMS_WITHIN):
            raise DataError("probabilities must be 0 or more and sum to 1 for each picture")

    def __repr__(self) -> str:
        return f"Unseen({len(self.probabilities)} pictures, {self.folds} folds)"

    def of(self, faces: FaceSet) -> Tensor:
        """The readings of `faces`, float32 N x 7. Raises DataError where some are missing."""
        rows = {picture.tobytes(): row for row, picture in enumerate(self.pictures.numpy())}
        found = [rows.get(picture.tobytes(), -1) for picture in hash_pictures(faces.pixels).numpy()]
        missing = found.count(-1)
        if missing:
            first = found.index(-1)
            name = f"number {first}" if faces.names is None else faces.names[first]
            raise DataError(
                f"{self.path}: no readings of {missing} of the {len(faces)} training pictures ({name} the first); give the --data and "
                "--votes (without a PublicTest, --seed too) that it was made with, or make it for these: python -m training cross --help"
            )
        return self.probabilities[torch.tensor(found)]


def hash_pictures(pixels: Tensor) -> Tensor:
    """SHA-256 of each of the pictures (uint8 N x 1 x S x S): uint8 N x 32."""
    digests = b"".join(hashlib.sha256(picture.tobytes()).digest() for picture in pixels.numpy())
    return torch.from_numpy(np.frombuffer(digests, np.uint8).reshape(-1, _HASH_BYTES).copy())


def write_unseen(unseen: Unseen) -> None:
    """Writes the file, whole or not at all; the same readings give the same bytes."""
    about = {"format": _FORMAT, "labels": EMOTIONS, "recipe": unseen.recipe, "folds": unseen.folds}
    # All under one key: safetensors writes several in another order each time.
    content = save(
        {"probabilities": unseen.probabilities.contiguous(), "pictures": unseen.pictures.contiguous()},
        {"about": json.dumps(about, sort_keys=True)},
    )
    with replacing(unseen.path) as temporary:
        temporary.write_bytes(content)


def read_unseen(path: Path) -> Unseen:
    """Raises DataError for a file that is missing, damaged, of other labels, or not written by `write_unseen`."""
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("about", "{}"))
            if about.get("format") != _FORMAT:
                raise DataError(f"{path}: no out-of-fold readings; {_ANEW}")
            if about["labels"] != list(EMOTIONS):
                raise DataError(f"{path} tells apart {', '.join(about['labels'])}, where FER2013 has {', '.join(EMOTIONS)}; {_ANEW}")
            tensors = {name: file.get_tensor(name) for name in ("probabilities", "pictures")}
        recipe, folds = complete(about["recipe"]), int(about["folds"])
    except OSError as error:
        raise DataError(f"{path}: cannot read the out-of-fold readings ({error.strerror or error}); {_ANEW}") from error
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: damaged readings, or none at all ({error}); remove it and {_ANEW}") from error
    try:
        return Unseen(path, **tensors, recipe=recipe, folds=folds)
    except DataError as error:
        raise DataError(f"{path}: damaged readings ({error}); remove it and {_ANEW}") from error


def find_unseen(path: Path, recipe: Recipe, faces: FaceSet, *, folds: int) -> Unseen | None:
    """What `path` holds if that is what networks by `recipe` would read of `faces` in so many folds; None where it does not exist.

    Raises DataError where it holds anything else: hours of work are not overwritten.
    """
    if not path.exists():
        return None
    unseen = read_unseen(path)
    made = dataclasses.asdict(recipe)
    if _canonical(unseen.recipe) != _canonical(made) or unseen.folds != folds:
        differs = "in another number of folds" if unseen.folds != folds else "by another recipe"
    elif not torch.equal(unseen.pictures, hash_pictures(faces.pixels)):
        differs = "of other pictures"
    else:
        return unseen
    raise DataError(f"{path} holds readings {differs}; give another folder with --out, or remove {typed(path.parent)}")


def _canonical(recipe: dict[str, Any]) -> str:
    return json.dumps(recipe, sort_keys=True)


def _told(tensor: Tensor) -> str:
    return f"{tensor.dtype} {' x '.join(map(str, tensor.shape))}".removeprefix("torch.")
