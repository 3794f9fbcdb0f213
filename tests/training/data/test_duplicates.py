"""Duplicates are found within and across splits."""

from __future__ import annotations

import numpy as np
import torch

from batchemo.records import EMOTIONS
from tests.patterns import pattern
from training.data.duplicates import count_duplicates, find_duplicates
from training.data.fer2013 import FaceSet

HAPPY, SAD = EMOTIONS.index("happy"), EMOTIONS.index("sad")


def faces(*pictures: tuple[int, int]) -> FaceSet:
    """Of (what is drawn, label)."""
    pixels = torch.from_numpy(np.stack([pattern(drawn, 0) for drawn, _ in pictures])[:, None])
    return FaceSet(pixels, torch.tensor([label for _, label in pictures]))


def test_duplicates_are_found_within_and_across_splits_and_under_other_labels() -> None:
    splits = {
        "Training": faces((0, HAPPY), (1, SAD), (0, HAPPY), (2, SAD)),
        "PublicTest": faces((0, SAD), (2, SAD), (3, SAD), (4, SAD), (4, SAD)),
    }
    groups = find_duplicates(splits)
    assert [[(place.split, place.number) for place in group] for group in groups] == [
        [("Training", 0), ("Training", 2), ("PublicTest", 0)],
        [("Training", 3), ("PublicTest", 1)],
        [("PublicTest", 3), ("PublicTest", 4)],
    ]
    assert count_duplicates(groups, splits) == {
        "groups": 3,
        "pictures": 7,
        "conflicting": 1,
        "within": {"Training": 1, "PublicTest": 1},
        "across": [{"first": "Training", "second": "PublicTest", "pictures": 2, "labelled_otherwise": 1}],
    }
    assert find_duplicates({"Training": faces((0, HAPPY), (1, HAPPY))}) == []
