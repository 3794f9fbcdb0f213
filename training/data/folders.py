"""Reads a user's own labelled faces: one folder of pictures for each label."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from batchemo.atomic import replacing
from batchemo.emotion.model import INPUT_PX
from batchemo.errors import DataError
from batchemo.faces.align import align_faces
from batchemo.faces.detector import MtcnnDetector
from batchemo.media.picture import read_picture
from training.data.fer2013 import FaceSet

HELD_BACK_SHARE = 0.2
"""Share of each label's pictures for calibration and evaluation, if the user gives no others."""

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"}
_SQUARE = 1.25


@dataclasses.dataclass(frozen=True)
class LabelledFolder:
    """`faces`, whose labels are indices into `labels`.

    `faceless` lists the pictures without a detected face; `oblong` is the number of crops that are far from square.
    """

    faces: FaceSet
    labels: tuple[str, ...]
    faceless: tuple[Path, ...]
    oblong: int

    def counts(self) -> dict[str, int]:
        """The number of faces by label."""
        return dict(zip(self.labels, self.faces.labels.bincount(minlength=len(self.labels)).tolist(), strict=True))


def read_labelled_folder(
    folder: Path, *, known: Sequence[str], detector: MtcnnDetector | None = None, crops: Path | None = None
) -> LabelledFolder:
    """Face crops in `folder`/<label>/, converted to grey and 48 x 48 px.

    With a `detector` the pictures are whole photographs: the largest face of each is aligned as in `batchemo run`, and written to
    `crops`/<label>/ for inspection. Labels in `known` come first, in that order, and other labels after them.
    Raises DataError for fewer than two labels or a label without pictures, MediaError for a broken picture.
    """
    found = _find(folder)
    labels = tuple(sorted(found, key=lambda label: (known.index(label) if label in known else len(known), label)))
    pixels: list[NDArray[np.uint8]] = []
    indices: list[int] = []
    faceless: list[Path] = []
    oblong = 0
    for index, label in enumerate(labels):
        before = len(pixels)
        for path in found[label]:
            picture = read_picture(path)
            crop = _grey(picture) if detector is None else _largest_face(picture, detector)
            if crop is None:
                faceless.append(path)
                continue
            oblong += max(picture.shape[:2]) > _SQUARE * min(picture.shape[:2])
            pixels.append(crop)
            indices.append(index)
            if crops is not None:
                _write(crops / label / f"{path.name}.png", crop)
        if len(pixels) == before:
            raise DataError(f"{folder / label}: no face was found in any of its {len(found[label])} pictures; add others")
    faces = FaceSet(torch.from_numpy(np.stack(pixels)[:, None]), torch.tensor(indices, dtype=torch.int64))
    return LabelledFolder(faces, labels, tuple(faceless), oblong if detector is None else 0)


def check_enough(pictures: LabelledFolder, folder: Path) -> None:
    """Raises DataError if a label has too few pictures to hold one back."""
    least = math.ceil(1 / HELD_BACK_SHARE)
    for label, count in pictures.counts().items():
        if count < least:
            raise DataError(
                f"{folder / label}: {count} faces are too few; {least} are the least, so that one can be held back to evaluate on"
            )


def _find(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; give one with a folder of pictures for each label")
    folders = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    if len(folders) < 2:
        raise DataError(f"{folder} has {len(folders)} folders, where there must be two labels at least: {folder}/<label>/*.jpg")
    found = {}
    for path in folders:
        if not path.name.isprintable():
            raise DataError(f"{path.name!r} in {folder}: labels become names of columns; rename the folder")
        found[path.name] = [file for file in sorted(path.iterdir()) if file.suffix.lower() in _SUFFIXES and not file.name.startswith(".")]
        if not found[path.name]:
            raise DataError(f"{path} has no pictures ({', '.join(sorted(_SUFFIXES))}); add some, or remove the folder")
    return found


def _grey(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    shrinks = min(grey.shape) >= INPUT_PX
    return cv2.resize(grey, (INPUT_PX, INPUT_PX), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR).astype(
        np.uint8, copy=False
    )


def _largest_face(picture: NDArray[np.uint8], detector: MtcnnDetector) -> NDArray[np.uint8] | None:
    (faces,) = detector.detect([picture])
    return align_faces(picture, faces).pixels[0] if len(faces) else None


def _write(path: Path, crop: NDArray[np.uint8]) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(cv2.imencode(".png", crop)[1].tobytes())
