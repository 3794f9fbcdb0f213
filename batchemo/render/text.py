"""Renders text as masks in Pillow's own font, and blends them into pictures."""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from batchemo.palette import Colour

_MAX_EMS = 8


def readable_label(label: str) -> str:
    """Replaces unprintable characters: labels come with the weights, and line breaks or lone surrogates would upset layout or Pillow."""
    return "".join(character if character.isprintable() else "?" for character in label)


@functools.lru_cache(maxsize=1024)
def render_text(words: str, size: int) -> NDArray[np.uint8]:
    """Mask of `words` on one line, uint8 H x W, 255 is opaque. H is the line height of the font at `size` px; text wider than eight
    times `size` is cut, and ends with dots."""
    font = _font(size)
    widest = _MAX_EMS * size
    if font.getlength(words) > widest:
        while words and font.getlength(words + "...") > widest:
            words = words[:-1]
        words += "..."
    ascent, descent = font.getmetrics()
    left, _, right, _ = font.getbbox(words, anchor="ls")
    picture = Image.new("L", (max(1, math.ceil(right) - math.floor(min(left, 0))), ascent + descent))
    ImageDraw.Draw(picture).text((-math.floor(min(left, 0)), ascent), words, fill=255, font=font, anchor="ls")
    mask = np.array(picture)
    mask.setflags(write=False)
    return mask


def blend(canvas: NDArray[np.uint8], mask: NDArray[np.uint8], left: int, top: int, colour: Colour) -> None:
    """Blends `colour` into `canvas` by `mask` (H x W, 255 is opaque); parts outside the canvas are cut off."""
    region = canvas[top : top + mask.shape[0], left : left + mask.shape[1]]
    alpha = mask[: region.shape[0], : region.shape[1], None].astype(np.uint16)
    alpha += alpha >> 7  # 0 to 256, so that a shift divides
    region[:] = (region * (256 - alpha) + np.asarray(colour, np.uint16) * alpha) >> 8


@functools.lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow lacks FreeType, so no text can be drawn; install it again with: pip install --force-reinstall pillow")
    return font
