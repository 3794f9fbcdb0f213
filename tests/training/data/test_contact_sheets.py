"""Contact sheets show every picture and every augmentation."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from batchemo.records import EMOTIONS
from tests.patterns import pattern
from training.data.contact_sheets import augmentation_rows, contact_sheet, sample_rows
from training.data.fer2013 import FaceSet
from training.recipe import RECIPES, Augmentation, read_recipe

HAPPY, SAD = EMOTIONS.index("happy"), EMOTIONS.index("sad")


def faces(*pictures: tuple[int, int]) -> FaceSet:
    """Of (what is drawn, label)."""
    pixels = torch.from_numpy(np.stack([pattern(drawn, 0) for drawn, _ in pictures])[:, None])
    return FaceSet(pixels, torch.tensor([label for _, label in pictures]))


def test_a_contact_sheet_shows_every_picture_where_its_label_is() -> None:
    some = faces((0, HAPPY), (1, SAD), (2, HAPPY))
    rows = sample_rows(some, each=5, seed=0)
    assert [(row.label, len(row.pictures)) for row in rows] == [("happy (2)", 2), ("sad (1)", 1)]
    sheet = np.asarray(contact_sheet(rows, title="Samples"))
    found = [find(sheet, picture) for row in rows for picture in row.pictures]
    assert found[0][0] == found[1][0] < found[2][0]
    assert found[0][1] == found[2][1] < found[1][1]


def find(sheet: np.ndarray, picture: np.ndarray) -> tuple[int, int]:
    """Row and column of the picture, enlarged, in the sheet."""
    matches = cv2.matchTemplate(sheet, cv2.resize(picture, (96, 96), interpolation=cv2.INTER_CUBIC), cv2.TM_CCOEFF_NORMED)
    _, best, _, (column, row) = cv2.minMaxLoc(matches)
    assert best > 0.9
    return row, column


def test_the_changes_of_a_recipe_are_shown_one_by_one() -> None:
    some = faces(*((label, label) for label in range(7)))
    settings = read_recipe(RECIPES / "polish.toml").augmentation
    rows = {row.label: row.pictures for row in augmentation_rows(some, settings, each=7, seed=0)}
    original = rows["as it is"]
    assert {picture.tobytes() for picture in original} == {picture.numpy().tobytes() for picture in some.pixels}
    assert np.abs(rows["flip 0.5"].astype(int) - original[:, :, ::-1]).max() <= 1  # shown on every picture, whatever its share is
    assert "rotation_degrees 8" in rows
    assert "mixup_alpha 0" not in rows
    assert all(np.abs(pictures.astype(int) - original).max() > 10 for label, pictures in rows.items() if label != "as it is")
    still = Augmentation(0, 0, 0, 0, 0, 0, 0, 0, low_resolution=0, mixup_alpha=0.0)
    assert [row.label for row in augmentation_rows(some, still, each=7, seed=0)] == ["as it is", *["all of them"] * 3]
