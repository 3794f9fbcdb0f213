"""Finds duplicate pictures in a data set, within and across splits."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn import functional

from batchemo.atomic import replacing
from batchemo.records import EMOTIONS
from training.data.fer2013 import FaceSet


class Place(NamedTuple):
    """One picture of a data set: its `number` in the `split` (from 0), its `name` for the user, and its label."""

    split: str
    number: int
    name: str
    emotion: str


Group = tuple[Place, ...]
"""The two or more places of one picture, in the order of the splits."""

_SMALL_PX = 16
_SIMILAR = 0.95
"""Correlation of two pictures at 16 x 16 px above which they are copies. All of 50 such pairs of FER2013 were copies, by eye."""
_FAINT = 1.0
"""Contrast (standard deviation in grey levels) below which a picture counts as blank."""
_AT_ONCE = 1024


def find_duplicates(splits: Mapping[str, FaceSet]) -> list[Group]:
    """Groups of pictures with identical pixels. Copies that were recompressed or cropped are not found."""
    places: dict[bytes, list[Place]] = {}
    for split, faces in splits.items():
        names = [str(number) for number in range(len(faces))] if faces.names is None else faces.names.tolist()
        for number, (picture, label, name) in enumerate(zip(faces.pixels.numpy(), faces.labels.tolist(), names, strict=True)):
            places.setdefault(picture.tobytes(), []).append(Place(split, number, name, EMOTIONS[label]))
    return [tuple(group) for group in places.values() if len(group) > 1]


def group_similar(pixels: Tensor) -> Tensor:
    """The group of each picture (uint8 N x 1 x S x S), int64 N. Copies share a group, even if they were recompressed or slightly cropped.

    FER2013's Training has 2,271 pictures with identical copies, and 1,747 more with such near copies.
    """
    small = functional.interpolate(pixels.float(), size=(_SMALL_PX, _SMALL_PX), mode="area").flatten(1)
    centred = small - small.mean(dim=1, keepdim=True)
    vectors = functional.normalize(functional.pad(centred, (0, 1), value=_FAINT * _SMALL_PX))
    pairs = [torch.empty(0, 2, dtype=torch.int64)]
    for first in range(0, len(vectors), _AT_ONCE):
        near = vectors[first : first + _AT_ONCE] @ vectors[first:].T > _SIMILAR
        pairs.append(near.nonzero() + first)
    one, other = torch.cat(pairs).T.numpy()
    _, groups = connected_components(coo_matrix((np.ones(len(one), np.bool_), (one, other)), shape=(len(vectors),) * 2), directed=False)
    return torch.from_numpy(groups).long()


def conflicting(group: Group) -> bool:
    """Whether the copies have different labels."""
    return len({place.emotion for place in group}) > 1


def count_duplicates(groups: list[Group], splits: Mapping[str, FaceSet]) -> dict[str, Any]:
    """Counts: `groups`, `pictures` in them, `conflicting` groups, `within` and `across`.

    `within` is the number of copies beyond the first, by split. `across` has an entry for each two splits: the pictures of the second that
    are in the first too, and how many of these have none of the labels they have there.
    """
    return {
        "groups": len(groups),
        "pictures": sum(map(len, groups)),
        "conflicting": sum(map(conflicting, groups)),
        "within": {split: sum(max(0, len(_of(group, split)) - 1) for group in groups) for split in splits},
        "across": [_across(groups, first, second) for first, second in itertools.combinations(splits, 2)],
    }


def write_duplicates(path: Path, groups: list[Group]) -> None:
    """Writes a csv with one row per picture: `group` (from 1), `split`, `picture`, `emotion`, `conflicting`."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["group", "split", "picture", "emotion", "conflicting"])
        for number, group in enumerate(groups, 1):
            writer.writerows([number, place.split, place.name, place.emotion, conflicting(group)] for place in group)


def _across(groups: list[Group], first: str, second: str) -> dict[str, Any]:
    shared = [(_of(group, first), _of(group, second)) for group in groups]
    shared = [(ours, theirs) for ours, theirs in shared if ours and theirs]
    return {
        "first": first,
        "second": second,
        "pictures": sum(len(theirs) for _, theirs in shared),
        "labelled_otherwise": sum(place.emotion not in {known.emotion for known in ours} for ours, theirs in shared for place in theirs),
    }


def _of(group: Group, split: str) -> list[Place]:
    return [place for place in group if place.split == split]
