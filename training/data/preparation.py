"""Checks of a data set: counts against the published ones, missing, duplicate and blank pictures. Also writes data sets."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
from PIL import Image, UnidentifiedImageError

from batchemo.atomic import replacing, write_text
from batchemo.emotion.model import INPUT_PX
from batchemo.errors import DataError
from batchemo.records import EMOTIONS
from training.data.contact_sheets import augmentation_rows, contact_sheet, sample_rows
from training.data.duplicates import Group, count_duplicates, find_duplicates, write_duplicates
from training.data.fer2013 import PUBLISHED_CLASS_COUNTS, PUBLISHED_COUNTS, SPLITS, FaceSet, hold_out, picture_files
from training.data.votes import PUBLISHED_MAJORITY, majority_emotion
from training.recipe import Augmentation

_FOLDERS = {"Training": "train", "PublicTest": "test", "PrivateTest": "test"}
_COLUMNS = 12
"""Pictures per row of the contact sheets."""


def describe_splits(splits: Mapping[str, FaceSet], path: Path) -> tuple[dict[str, Any], list[Group]]:
    """Statistics of the data at `path`, ready for JSON, and its groups of identical pictures.

    Keys: `data`; `splits` (by name: `n`, `published`, `per_class` with `n` and `published`, `mean` and `std` of the pixels as fractions of
    full scale, `blank` pictures, and `votes` if known); `missing` splits; `duplicates` as in `count_duplicates`; `sizes` of the files in a
    folder; `remarks`, one sentence each: differences from FER2013 as published, and what the user should check.
    """
    groups = find_duplicates(splits)
    facts: dict[str, Any] = {
        "data": str(path),
        "splits": {split: _describe_split(split, faces) for split, faces in splits.items()},
        "missing": [split for split in SPLITS if split not in splits],
        "duplicates": count_duplicates(groups, splits),
        "sizes": _sizes(path) if path.is_dir() else {f"{INPUT_PX}x{INPUT_PX}": sum(map(len, splits.values()))},
    }
    return facts | {"remarks": _remarks(facts)}, groups


def split_off(splits: Mapping[str, FaceSet], *, share: float, seed: int) -> dict[str, FaceSet]:
    """Moves `share` of each emotion's Training pictures to a new PublicTest, on which `fit` calibrates.

    It does not keep identical pictures together: see `count_duplicates`. Raises DataError if there is a PublicTest already, or if a part
    would be empty.
    """
    if "PublicTest" in splits:
        raise DataError("--validation: the data have a PublicTest already; leave the option out, or give data without test/")
    if "Training" not in splits:
        raise DataError("--validation: the data have no pictures of the split Training to take a part of")
    training, held_back = hold_out(splits["Training"], share=share, seed=seed)
    if not len(training) or not len(held_back):
        raise DataError(f"--validation {share}: one of the parts would be empty, of {len(splits['Training'])} pictures; give another share")
    return {"Training": training, "PublicTest": held_back, **{name: faces for name, faces in splits.items() if name != "Training"}}


def write_pictures(path: Path, splits: Mapping[str, FaceSet]) -> None:
    """Writes a csv if `path` ends in .csv, and folders otherwise, for `read_splits`. Raises DataError if something is there already."""
    if path.suffix.lower() == ".csv":
        _write_csv(path, splits)
    else:
        _write_folders(path, splits)


def write_statistics(
    folder: Path,
    splits: Mapping[str, FaceSet],
    facts: dict[str, Any],
    groups: list[Group],
    *,
    augmentation: Augmentation,
    recipe: str,
    seed: int,
) -> None:
    """Writes the results of `describe_splits`, and contact sheets of the first split without and with `augmentation`."""
    write_text(folder / "statistics.json", json.dumps(facts, indent=1) + "\n")
    write_duplicates(folder / "duplicates.csv", groups)
    split, faces = next(iter(splits.items()))
    samples = contact_sheet(sample_rows(faces, each=_COLUMNS, seed=seed), title=f"{split}: pictures of each emotion")
    changed = augmentation_rows(faces, augmentation, each=_COLUMNS, seed=seed)
    for name, sheet in (("samples.png", samples), ("augmentations.png", contact_sheet(changed, title=f"What {recipe} does to pictures"))):
        with replacing(folder / name) as temporary:
            sheet.save(temporary, format="png")


def _write_csv(path: Path, splits: Mapping[str, FaceSet]) -> None:
    if path.exists():
        raise DataError(f"{path} exists already; give another name with --write, or remove it")
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["emotion", "pixels", "Usage"])
        for split, faces in splits.items():
            for picture, label in zip(faces.pixels.numpy(), faces.labels.tolist(), strict=True):
                writer.writerow([label, " ".join(map(str, picture.ravel().tolist())), split])


def _write_folders(root: Path, splits: Mapping[str, FaceSet]) -> None:
    """Grey PNG files of 48 px, with names by which `read_splits` recognises their split."""
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(f"{root} exists already and is not an empty folder; give another one with --write")
    for split, faces in splits.items():
        for index, (picture, label) in enumerate(zip(faces.pixels.numpy(), faces.labels.tolist(), strict=True)):
            target = root / _FOLDERS[split] / EMOTIONS[label] / f"{split}_{index:05}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            if not cv2.imwrite(str(target), picture[0]):
                raise DataError(f"{target} cannot be written; is the disk full?")


def _describe_split(split: str, faces: FaceSet) -> dict[str, Any]:
    pixels = faces.pixels.numpy()
    counts = faces.labels.bincount(minlength=len(EMOTIONS)).tolist()
    facts: dict[str, Any] = {
        "n": len(faces),
        "published": PUBLISHED_COUNTS[split],
        "per_class": {
            emotion: {"n": count, "published": published}
            for emotion, count, published in zip(EMOTIONS, counts, PUBLISHED_CLASS_COUNTS[split], strict=True)
        },
        "mean": float(pixels.mean() / 255),
        "std": float(pixels.std() / 255),
        "blank": int((pixels.max(axis=(1, 2, 3)) == pixels.min(axis=(1, 2, 3))).sum()),
    }
    return facts if faces.votes is None else facts | {"votes": _describe_votes(split, faces)}


def _describe_votes(split: str, faces: FaceSet) -> dict[str, Any]:
    if faces.votes is None:
        raise ValueError("no votes to describe")
    emotions = majority_emotion(faces.votes)
    agreed = emotions >= 0
    same = emotions == faces.labels
    return {
        "majority": int(agreed.sum()),
        "published": PUBLISHED_MAJORITY[split],
        "contempt": int((emotions == len(EMOTIONS)).sum()),
        "majority_is_label": {
            emotion: float(same[agreed & (faces.labels == label)].float().mean())
            for label, emotion in enumerate(EMOTIONS)
            if (agreed & (faces.labels == label)).any()
        },
    }


def _sizes(root: Path) -> dict[str, int]:
    """The number of files of each `width`x`height`, the most frequent first. Only headers are read."""
    counts: dict[str, int] = {}
    for path in (path for paths in picture_files(root).values() for path in paths):
        try:
            with Image.open(path) as picture:
                size = "{}x{}".format(*picture.size)
        except (UnidentifiedImageError, OSError) as error:
            raise DataError(f"{path}: not a picture that can be read; repair or remove it") from error
        counts[size] = counts.get(size, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _remarks(facts: dict[str, Any]) -> list[str]:
    remarks = [f"no pictures of the split {split}; FER2013 as published has {PUBLISHED_COUNTS[split]:,}" for split in facts["missing"]]
    splits: dict[str, dict[str, Any]] = facts["splits"]
    for split, part in splits.items():
        remarks += _remarks_on_split(split, part)
    if splits.get("PublicTest", {}).get("n") == PUBLISHED_COUNTS["PublicTest"] + PUBLISHED_COUNTS["PrivateTest"]:
        remarks.append("PublicTest and PrivateTest are one folder here: figures on it can be compared with neither")
    other = {size: count for size, count in facts["sizes"].items() if size != f"{INPUT_PX}x{INPUT_PX}"}
    if other:
        remarks.append(
            f"{sum(other.values()):,} pictures are of another size ({', '.join(list(other)[:3])}): read as {INPUT_PX} x {INPUT_PX}"
        )
    stretched = sum(count for size, count in other.items() if len(set(size.split("x"))) > 1)
    if stretched:
        remarks.append(f"{stretched:,} of them are not square, so their faces are stretched; cut them square first")
    return remarks + _remarks_on_duplicates(facts["duplicates"])


def _remarks_on_split(split: str, part: dict[str, Any]) -> list[str]:
    remarks = []
    if part["n"] != part["published"]:
        remarks.append(f"{split} has {part['n']:,} pictures, {part['published']:,} in FER2013 as published")
    wrong = {emotion: counts for emotion, counts in part["per_class"].items() if counts["n"] != counts["published"]}
    if wrong and part["n"] == part["published"]:
        listed = ", ".join(f"{emotion} {counts['n']:,} for {counts['published']:,}" for emotion, counts in wrong.items())
        remarks.append(f"{split} has other labels than FER2013 as published: {listed}")
    none = [emotion for emotion, counts in part["per_class"].items() if not counts["n"]]
    if none:
        remarks.append(f"{split} has no pictures of {', '.join(none)}")
    if part["blank"]:
        remarks.append(f"{split} has {part['blank']} pictures of one grey, with nothing on them")
    votes = part.get("votes")
    if votes and part["n"] == part["published"] and votes["majority"] != votes["published"]:
        remarks.append(
            f"{split}: FER+'s annotators agree on {votes['majority']:,} pictures, on {votes['published']:,} in FER+ as published"
        )
    return remarks


def _remarks_on_duplicates(duplicates: dict[str, Any]) -> list[str]:
    remarks = [
        f"{pair['pictures']:,} pictures of {pair['second']} have a copy in {pair['first']}, "
        f"{pair['labelled_otherwise']:,} of them under another label: evaluate reports the clean part separately"
        for pair in duplicates["across"]
        if pair["pictures"]
    ]
    if duplicates["conflicting"]:
        remarks.append(f"{duplicates['conflicting']:,} pictures that are repeated have labels that disagree")
    return remarks
