"""FER2013 as one tensor in memory: read from `fer2013.csv`, or from folders of pictures named after their emotions."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from batchemo.errors import DataError
from batchemo.network import INPUT_PX
from batchemo.records import EMOTIONS

SPLITS = ("Training", "PublicTest", "PrivateTest")

PUBLISHED_COUNTS = {"Training": 28709, "PublicTest": 3589, "PrivateTest": 3589}
"""Rows a split in the original csv (Goodfellow et al. 2013)."""

_FOLDER_SPLITS = {"train": "Training", "test": "PublicTest"}
_NOT_A_FACE = "NF"
_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp"}


@dataclasses.dataclass(frozen=True)
class FaceSet:
    """Labelled crops: `pixels` uint8 N x 1 x 48 x 48, `labels` int64 N, indices into `EMOTIONS`."""

    pixels: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.pixels.shape[1:] != (1, INPUT_PX, INPUT_PX) or self.pixels.dtype != torch.uint8:
            raise DataError(f"pictures must be uint8 N x 1 x {INPUT_PX} x {INPUT_PX}, not {tuple(self.pixels.shape)} {self.pixels.dtype}")
        if len(self.labels) != len(self.pixels):
            raise DataError(f"{len(self.labels)} labels for {len(self.pixels)} pictures")

    def __len__(self) -> int:
        return len(self.pixels)

    def __repr__(self) -> str:
        return f"FaceSet({len(self)} pictures)"

    def subset(self, chosen: Tensor) -> FaceSet:
        return FaceSet(self.pixels[chosen], self.labels[chosen])


def read_split(path: Path, split: str, *, votes: Path | None = None) -> FaceSet:
    """One split of FER2013 at `path`: `fer2013.csv`, or a folder with train/<emotion>/ and test/<emotion>/.

    In folders, `test/` files called `PublicTest_*` or `PrivateTest_*` belong to that split, others to PublicTest. With
    `votes` (`fer2013new.csv` of FER+), Training pictures that the annotators called not a face are left out.
    Raises DataError where something is missing or broken, naming the row or the file.
    """
    if split not in SPLITS:
        raise DataError(f"no split {split!r}; choose one of {', '.join(SPLITS)}")
    if path.is_dir():
        faces = _read_folders(path, split)
    elif path.is_file():
        faces = _read_csv(path, split, votes)
    else:
        raise DataError(f"{path} does not exist; give the csv of FER2013, or a folder with train/ and test/, with --data")
    if not len(faces):
        raise DataError(f"{path} has no pictures of the split {split}")
    return faces


def clean_part(evaluated: FaceSet, trained: FaceSet) -> Tensor:
    """Which pictures of `evaluated` do not stand, identical, among `trained`: bool N. FER2013 repeats hundreds across splits."""
    known = {picture.numpy().tobytes() for picture in trained.pixels}
    return torch.tensor([picture.numpy().tobytes() not in known for picture in evaluated.pixels], dtype=torch.bool)


def _read_csv(path: Path, split: str, votes: Path | None) -> FaceSet:
    try:
        table = pd.read_csv(path)
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: not a csv that can be read ({error})") from error
    table.columns = table.columns.str.strip().str.lower()
    missing = {"emotion", "pixels", "usage"} - set(table.columns)
    if missing:
        raise DataError(f"{path}: no column {', '.join(sorted(missing))}; the csv of FER2013 has emotion, pixels and Usage")
    rows = table["usage"].str.strip() == split
    if votes is not None and split == "Training":
        rows &= ~_not_a_face(votes, len(table))
    chosen = table[rows]
    labels = pd.to_numeric(chosen["emotion"], errors="coerce")
    wrong = ~labels.isin(range(len(EMOTIONS)))
    if wrong.any():
        raise DataError(
            f"{path}: row {wrong.idxmax() + 2}: emotion must be 0 to {len(EMOTIONS) - 1}, not {chosen.loc[wrong.idxmax(), 'emotion']!r}"
        )
    pictures = np.empty((len(chosen), 1, INPUT_PX, INPUT_PX), np.uint8)
    for position, (row, text) in enumerate(chosen["pixels"].items()):
        pictures[position, 0] = _parse_pixels(path, row, text)
    return FaceSet(torch.from_numpy(pictures), torch.tensor(labels.to_numpy(np.int64)))


def _parse_pixels(path: Path, row: object, text: object) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    where = f"{path}: row {int(str(row)) + 2}"
    try:
        values = np.array(str(text).split(), dtype=np.int64)
    except ValueError:
        raise DataError(f"{where}: pixels must be numbers between 0 and 255") from None
    if values.size != INPUT_PX * INPUT_PX:
        raise DataError(f"{where}: {values.size} pixels, where {INPUT_PX} x {INPUT_PX} = {INPUT_PX**2} are expected")
    if values.min() < 0 or values.max() > 255:
        raise DataError(f"{where}: pixels must be numbers between 0 and 255")
    return values.astype(np.uint8).reshape(INPUT_PX, INPUT_PX)


def _not_a_face(votes: Path, rows: int) -> pd.Series[bool]:
    try:
        table = pd.read_csv(votes)
    except (ValueError, OSError) as error:
        raise DataError(f"{votes}: not a csv that can be read ({error})") from error
    if _NOT_A_FACE not in table or len(table) != rows:
        raise DataError(f"{votes}: not the votes of FER+ for this csv: {len(table)} rows for {rows}, columns {', '.join(table.columns)}")
    return table[_NOT_A_FACE] > 5


def _read_folders(root: Path, split: str) -> FaceSet:
    pictures, labels = [], []
    for folder, meant in _FOLDER_SPLITS.items():
        for path in sorted((root / folder).glob("*/*")):
            if path.suffix.lower() not in _SUFFIXES:
                continue
            named = next((name for name in SPLITS if path.name.startswith(name + "_")), meant)
            if named != split:
                continue
            if path.parent.name not in EMOTIONS:
                raise DataError(f"{path.parent}: no emotion of that name; folders are called {', '.join(EMOTIONS)}")
            picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            if picture is None:
                raise DataError(f"{path}: not a picture that can be read; repair or remove it")
            if picture.shape != (INPUT_PX, INPUT_PX):
                picture = cv2.resize(picture, (INPUT_PX, INPUT_PX), interpolation=cv2.INTER_AREA)
            pictures.append(picture)
            labels.append(EMOTIONS.index(path.parent.name))
    stacked = np.stack(pictures)[:, None] if pictures else np.empty((0, 1, INPUT_PX, INPUT_PX), np.uint8)
    return FaceSet(torch.from_numpy(stacked.astype(np.uint8)), torch.tensor(labels, dtype=torch.int64))
