"""Draws contact sheets: labelled rows of face pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from batchemo.emotion.model import INPUT_PX
from batchemo.records import EMOTIONS
from training.data.augmentation import augment, mixup
from training.data.fer2013 import FaceSet
from training.recipe import Augmentation

_SCALE = 2
_GAP_PX = 4
_TEXT_PX = 15
_PAPER, _INK = 255, 25
_EACH_ALONE = {"flip", "erase", "low_resolution", "jpeg"}
"""Changes whose strength is a probability. Their rows show the change on every picture."""


class Row(NamedTuple):
    """`pictures`: uint8 N x 48 x 48."""

    label: str
    pictures: NDArray[np.uint8]


def contact_sheet(rows: Sequence[Row], *, title: str) -> Image.Image:
    """The rows one below the other, at twice the size of the pictures, with their labels on the left."""
    font = ImageFont.load_default(_TEXT_PX)
    margin = round(max(font.getlength(row.label) for row in rows)) + 3 * _GAP_PX
    step = _SCALE * INPUT_PX + _GAP_PX
    width = max(margin + step * max(len(row.pictures) for row in rows), round(font.getlength(title))) + 2 * _GAP_PX
    top = _TEXT_PX + 4 * _GAP_PX
    sheet = Image.new("L", (width, top + step * len(rows)), _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((2 * _GAP_PX, _GAP_PX), title, _INK, font)
    for line, row in enumerate(rows):
        pen.text((2 * _GAP_PX, top + step * line + step // 2), row.label, _INK, font, anchor="lm")
        for column, picture in enumerate(row.pictures):
            enlarged = Image.fromarray(picture).resize((_SCALE * INPUT_PX,) * 2, Image.Resampling.BICUBIC)
            sheet.paste(enlarged, (margin + step * column, top + step * line))
    return sheet


def sample_rows(faces: FaceSet, *, each: int, seed: int) -> list[Row]:
    """`each` random pictures of every emotion present."""
    random = np.random.default_rng(seed)
    rows = []
    for label, emotion in enumerate(EMOTIONS):
        members = np.flatnonzero(faces.labels.numpy() == label)
        if len(members):
            drawn = random.permutation(members)[:each]
            rows.append(Row(f"{emotion} ({len(members):,})", faces.pixels.numpy()[drawn, 0]))
    return rows


def augmentation_rows(faces: FaceSet, settings: Augmentation, *, each: int, seed: int) -> list[Row]:
    """`each` pictures without augmentation, with each change of `settings` alone, and three times with all changes."""
    generator = torch.Generator().manual_seed(seed)
    pictures = faces.pixels[torch.randperm(len(faces), generator=generator)[:each]]
    rows = [Row("as it is", pictures.numpy()[:, 0])]
    strengths = {name: value for name, value in dataclasses.asdict(settings).items() if isinstance(value, float) and name != "mixup_alpha"}
    for name, strength in strengths.items():
        if strength:
            only: dict[str, Any] = dict.fromkeys(strengths, 0.0) | {name: 1.0 if name in _EACH_ALONE else strength}
            rows.append(Row(f"{name} {strength:g}", _as_bytes(augment(pictures, dataclasses.replace(settings, **only), generator))))
    if settings.mixup_alpha:
        (mixed,) = mixup(pictures.float() / 255, alpha=settings.mixup_alpha, generator=generator)
        rows.append(Row(f"mixup_alpha {settings.mixup_alpha:g}", _as_bytes(mixed)))
    return rows + [Row("all of them", _as_bytes(augment(pictures, settings, generator))) for _ in range(3)]


def _as_bytes(pictures: Tensor) -> NDArray[np.uint8]:
    return (pictures[:, 0].clamp(0, 1) * 255).round().to(torch.uint8).numpy()
