"""FER2013 in memory, read from `fer2013.csv` or from folders of pictures that are named after the emotions."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from batchemo.emotion.model import INPUT_PX
from batchemo.errors import DataError
from batchemo.records import EMOTIONS

SPLITS = ("Training", "PublicTest", "PrivateTest")

PUBLISHED_CLASS_COUNTS = {
    "Training": (3995, 436, 4097, 7215, 4830, 3171, 4965),
    "PublicTest": (467, 56, 496, 895, 653, 415, 607),
    "PrivateTest": (491, 55, 528, 879, 594, 416, 626),
}
"""Rows of the original csv by split and emotion (in the order of `EMOTIONS`).

Their sums are those of Goodfellow et al. 2013: 4953, 547, 5121, 8989, 6077, 4002, 6198.
"""

PUBLISHED_COUNTS = {split: sum(counts) for split, counts in PUBLISHED_CLASS_COUNTS.items()}
"""Rows of the original csv by split."""

VOTES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")
"""The choices of FER+'s annotators (Barsoum et al. 2016), named as the columns of its csv. NF means "not a face"."""

_FOLDER_SPLITS = {"train": "Training", "test": "PublicTest"}
_ANNOTATORS = 10
_FIRST_ROW = 2
"""Line of the first picture of a csv, counted from 1 with the header, as editors do."""
_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp"}


@dataclasses.dataclass(frozen=True)
class FaceSet:
    """Labelled aligned crops: `pixels` uint8 N x 1 x 48 x 48, and `labels` int64 N, indices into `EMOTIONS` (or into a user's own labels).

    `votes`, if known: int64 N x 10, how many of FER+'s ten annotators chose each of `VOTES`. `names`, if known: N texts that locate each
    picture, such as `row 2` of a csv or a path inside a folder.
    """

    pixels: Tensor
    labels: Tensor
    votes: Tensor | None = None
    names: NDArray[np.str_] | None = None

    def __post_init__(self) -> None:
        if self.pixels.shape[1:] != (1, INPUT_PX, INPUT_PX) or self.pixels.dtype != torch.uint8:
            raise DataError(f"pictures must be uint8 N x 1 x {INPUT_PX} x {INPUT_PX}, not {tuple(self.pixels.shape)} {self.pixels.dtype}")
        if len(self.labels) != len(self.pixels):
            raise DataError(f"{len(self.labels)} labels for {len(self.pixels)} pictures")
        if self.votes is not None and self.votes.shape != (len(self.pixels), len(VOTES)):
            raise DataError(f"votes must be N x {len(VOTES)}, not {tuple(self.votes.shape)}")
        if self.names is not None and len(self.names) != len(self.pixels):
            raise DataError(f"{len(self.names)} names for {len(self.pixels)} pictures")

    def __len__(self) -> int:
        return len(self.pixels)

    def __repr__(self) -> str:
        return f"FaceSet({len(self)} pictures)"

    def subset(self, chosen: Tensor) -> FaceSet:
        """The pictures that `chosen` (indices, or a mask) selects."""
        return FaceSet(
            self.pixels[chosen],
            self.labels[chosen],
            None if self.votes is None else self.votes[chosen],
            None if self.names is None else self.names[chosen.numpy()],
        )


def read_splits(path: Path, *, votes: Path | None = None, faces_only: bool = True) -> dict[str, FaceSet]:
    """The splits in `path`: `fer2013.csv`, or a folder with train/<emotion>/ and test/<emotion>/.

    In folders, files called `Training_*`, `PublicTest_*` or `PrivateTest_*` belong to that split, and others in `test/` to PublicTest. A
    folder with <emotion>/ but neither train/ nor test/ is Training. `votes` is `fer2013new.csv` of FER+, with one row for each row of the
    csv. With `faces_only`, Training pictures that more than half of the ten annotators called not a face are left out.
    Raises DataError if something is missing or broken, and names the row or the file.
    """
    if path.is_dir():
        if votes is not None:
            raise DataError(
                f"{votes}: votes belong to the rows of a csv, not to the folder {path}; give fer2013.csv with --data, or no --votes"
            )
        splits = _read_folders(path)
    elif path.is_file():
        splits = _read_csv(path, votes, faces_only=faces_only)
    else:
        raise DataError(f"{path} does not exist; give the csv of FER2013, or a folder with train/ and test/, with --data")
    if not splits:
        raise DataError(f"{path} has no pictures; folders are called train/<emotion>/ and test/<emotion>/")
    return splits


def read_split(path: Path, split: str, *, votes: Path | None = None) -> FaceSet:
    """One split of `path`. Raises DataError if it is not there."""
    check_split(split)
    return choose_split(read_splits(path, votes=votes), split, path)


def check_split(split: str) -> None:
    """Raises DataError for a name that is not one of `SPLITS`."""
    if split not in SPLITS:
        raise DataError(f"no split {split!r}; choose one of {', '.join(SPLITS)}")


def choose_split(splits: dict[str, FaceSet], split: str, path: Path) -> FaceSet:
    """One of the `splits` of the data at `path`. Raises DataError if it is not there."""
    if split not in splits:
        raise DataError(f"{path} has no pictures of the split {split}, only of {', '.join(splits)}")
    return splits[split]


def leave_out_non_faces(faces: FaceSet) -> FaceSet:
    """`faces` without the pictures that more than half of FER+'s ten annotators called not a face. Without votes, all of them."""
    return faces if faces.votes is None else faces.subset(faces.votes[:, VOTES.index("NF")] <= _ANNOTATORS / 2)


def hold_out(faces: FaceSet, *, share: float, seed: int) -> tuple[FaceSet, FaceSet]:
    """Splits `faces` in two. The second part has `share` of the pictures of each label, at random."""
    generator = torch.Generator().manual_seed(seed)
    held = torch.zeros(len(faces), dtype=torch.bool)
    for label in sorted(set(faces.labels.tolist())):
        (members,) = torch.where(faces.labels == label)
        held[members[torch.randperm(len(members), generator=generator)[: round(share * len(members))]]] = True
    return faces.subset(~held), faces.subset(held)


def clean_part(evaluated: FaceSet, trained: FaceSet) -> Tensor:
    """The mask (bool N) of pictures of `evaluated` without an identical one in `trained`. FER2013 has hundreds of copies across splits."""
    known = {picture.numpy().tobytes() for picture in trained.pixels}
    return torch.tensor([picture.numpy().tobytes() not in known for picture in evaluated.pixels], dtype=torch.bool)


def _read_csv(path: Path, votes: Path | None, *, faces_only: bool) -> dict[str, FaceSet]:
    table = _table(path)
    table.columns = table.columns.str.strip().str.lower()
    missing = {"emotion", "pixels", "usage"} - set(table.columns)
    if missing:
        raise DataError(f"{path}: no column {', '.join(sorted(missing))}; the csv of FER2013 has emotion, pixels and Usage")
    usage = table["usage"].astype(str).str.strip()
    _refuse_first(path, ~usage.isin(SPLITS), f"Usage must be one of {', '.join(SPLITS)}", usage)
    labels = pd.to_numeric(table["emotion"], errors="coerce")
    _refuse_first(path, ~labels.isin(range(len(EMOTIONS))), f"emotion must be 0 to {len(EMOTIONS) - 1}", table["emotion"])
    pictures = np.empty((len(table), 1, INPUT_PX, INPUT_PX), np.uint8)
    for index, text in enumerate(table["pixels"]):
        pictures[index, 0] = _parse_pixels(path, index, text)
    counts = None if votes is None else _read_votes(votes, usage)
    names = np.array([f"row {index + _FIRST_ROW}" for index in range(len(table))])
    everything = FaceSet(torch.from_numpy(pictures), torch.tensor(labels.to_numpy(np.int64)), counts, names)
    parts = {split: everything.subset(torch.tensor((usage == split).to_numpy())) for split in SPLITS}
    if faces_only:
        parts["Training"] = leave_out_non_faces(parts["Training"])
    return {split: faces for split, faces in parts.items() if len(faces)}


def _table(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: not a csv that can be read ({str(error).strip()})") from error


def _refuse_first(path: Path, wrong: pd.Series[bool], rule: str, values: pd.Series[Any]) -> None:
    if wrong.any():
        index = int(wrong.to_numpy().argmax())
        raise DataError(f"{_place(path, index)}: {rule}, not {str(values.iloc[index])[:40]!r}; repair or remove the row")


def _place(path: Path, index: int) -> str:
    return f"{path}: row {index + _FIRST_ROW}"


def _parse_pixels(path: Path, index: int, text: object) -> NDArray[np.uint8]:
    try:
        values = np.fromstring(str(text), dtype=np.int64, sep=" ")
    except ValueError:
        raise DataError(f"{_place(path, index)}: pixels must be whole numbers between 0 and 255; repair or remove the row") from None
    if values.size != INPUT_PX * INPUT_PX:
        raise DataError(f"{_place(path, index)}: {values.size} pixels, where {INPUT_PX} x {INPUT_PX} = {INPUT_PX**2} are expected")
    if values.min() < 0 or values.max() > 255:
        raise DataError(f"{_place(path, index)}: pixels must be whole numbers between 0 and 255; repair or remove the row")
    return values.astype(np.uint8).reshape(INPUT_PX, INPUT_PX)


def _read_votes(path: Path, usage: pd.Series[str]) -> Tensor:
    table = _table(path)
    missing = {"Usage", *VOTES} - set(table.columns)
    if missing:
        raise DataError(f"{path}: not the votes of FER+: no column {', '.join(sorted(missing))}; give its fer2013new.csv with --votes")
    if table["Usage"].tolist() != usage.tolist():
        raise DataError(f"{path}: not the votes for this csv: its {len(table)} rows are of other splits than the csv's {len(usage)}")
    counts = table[list(VOTES)].apply(pd.to_numeric, errors="coerce")
    _refuse_first(path, ~(counts >= 0).all(axis=1), "votes must be numbers from 0", counts.min(axis=1))
    return torch.tensor(counts.to_numpy(np.int64))


def picture_files(root: Path) -> dict[str, list[Path]]:
    """The picture files in `root` by split, in the order of their paths. The folder of a file is its label."""
    there = {folder: split for folder, split in _FOLDER_SPLITS.items() if (root / folder).is_dir()} or {".": "Training"}
    found: dict[str, list[Path]] = {split: [] for split in SPLITS}
    for folder, meant in there.items():
        for path in sorted((root / folder).glob("*/*")):
            if path.suffix.lower() in _SUFFIXES and not path.name.startswith("."):
                found[next((name for name in SPLITS if path.name.startswith(name + "_")), meant)].append(path)
    return {split: paths for split, paths in found.items() if paths}


def _read_folders(root: Path) -> dict[str, FaceSet]:
    return {split: _read_pictures(root, paths) for split, paths in picture_files(root).items()}


def _read_pictures(root: Path, paths: list[Path]) -> FaceSet:
    pictures = [_read_picture(path) for path in paths]
    pixels = np.stack([picture for picture, _ in pictures])[:, None]
    labels = torch.tensor([label for _, label in pictures], dtype=torch.int64)
    return FaceSet(torch.from_numpy(pixels), labels, names=np.array([_as_text(path.relative_to(root)) for path in paths]))


def _as_text(path: Path) -> str:
    """The path as valid text: bytes that cannot be decoded become question marks."""
    return os.fsencode(path).decode(errors="replace")


def _read_picture(path: Path) -> tuple[NDArray[np.uint8], int]:
    if path.parent.name not in EMOTIONS:
        raise DataError(f"{path.parent}: no emotion of that name; folders are called {', '.join(EMOTIONS)}")
    # cv2.imread crashes on names that are not valid text.
    content = np.fromfile(path, np.uint8)
    picture = cv2.imdecode(content, cv2.IMREAD_GRAYSCALE) if len(content) else None
    if picture is None:
        raise DataError(f"{path}: not a picture that can be read; repair or remove it")
    if picture.shape != (INPUT_PX, INPUT_PX):
        picture = cv2.resize(picture, (INPUT_PX, INPUT_PX), interpolation=cv2.INTER_AREA)
    return picture.astype(np.uint8), EMOTIONS.index(path.parent.name)
