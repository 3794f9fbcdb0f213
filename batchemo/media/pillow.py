"""What a viewer shows of a picture that Pillow has opened: upright, RGB, 8 bits a channel, transparency on white."""

from __future__ import annotations

import contextlib
import functools
import threading
import warnings
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import cv2
import numpy as np
import pi_heif
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageCms,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from batchemo.media import tiff

pi_heif.register_heif_opener(thumbnails=False, decode_threads=1)
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # each of batchemo's processes owns one core

_READERS = (
    AvifImagePlugin.AvifImageFile,
    BmpImagePlugin.BmpImageFile,
    BmpImagePlugin.DibImageFile,
    GifImagePlugin.GifImageFile,
    JpegImagePlugin.JpegImageFile,
    PngImagePlugin.PngImageFile,
    PpmImagePlugin.PpmImageFile,
    TiffImagePlugin.TiffImageFile,
    WebPImagePlugin.WebPImageFile,
)
_FORMATS = (*(reader.format for reader in _READERS), "HEIF")
"""Pillow reads more, but nobody has looked at what its other readers make of a file that means them ill."""

_WHITE = 255
_TURNS: dict[int, Callable[[Any], Any]] = {
    2: lambda p: cv2.flip(p, 1),
    3: lambda p: cv2.rotate(p, cv2.ROTATE_180),
    4: lambda p: cv2.flip(p, 0),
    5: cv2.transpose,
    6: lambda p: cv2.rotate(p, cv2.ROTATE_90_CLOCKWISE),
    7: lambda p: cv2.rotate(cv2.transpose(p), cv2.ROTATE_180),
    8: lambda p: cv2.rotate(p, cv2.ROTATE_90_COUNTERCLOCKWISE),
}
"""What makes a picture upright, by its orientation (EXIF 2.32, tag 0x0112)."""

_TOPS = (255, 65_535)
"""What white may be in pictures of whole or real numbers that do not say it."""
_MOST_ABOVE_ONE = 2.0
"""Real numbers up to here are taken for shares of white: light that is brighter than that is cut off, as viewers do."""

_UNSIGNED, _MIN_IS_WHITE = 1, 0
"""Values of a TIFF's SampleFormat and PhotometricInterpretation."""

_lenience = threading.Lock()


@contextlib.contextmanager
def open_picture(content: bytes) -> Iterator[Image.Image]:
    """The picture, not decoded yet, silently. Raises whatever Pillow's readers do, UnidentifiedImageError where none knows it."""
    with warnings.catch_warnings():
        # Of strange tags, and of sizes, which are checked against our own bound.
        warnings.simplefilter("ignore")
        with Image.open(BytesIO(content), formats=_FORMATS) as picture:
            yield picture


@contextlib.contextmanager
def allow_truncated() -> Iterator[None]:
    """Within it Pillow gives what it can of pictures that are cut off or damaged, in this process, whoever asks."""
    with _lenience:
        before = ImageFile.LOAD_TRUNCATED_IMAGES
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


def exif_orientation(picture: Image.Image) -> int:
    """1 to 8 of EXIF, wherever the format keeps it; 1 where it says nothing that makes sense. Of a TIFF to be asked once it is loaded, as
    Pillow turns those itself."""
    try:
        orientation = int(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF raises whatever its reader does
        return 1
    return orientation if orientation in _TURNS else 1


def turn_upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """H x W x C as it is to be seen, contiguous."""
    return np.asarray(_TURNS[orientation](pixels), np.uint8) if orientation in _TURNS else pixels


def to_rgb(picture: Image.Image) -> NDArray[np.uint8]:
    """RGB uint8 H x W x 3 of any mode, as it is stored, not upright."""
    if picture.mode in ("F", "I") or picture.mode.startswith("I;"):
        grey = _on_white_where_named(_grey(picture), picture)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if picture.mode == "LAB":
        transformed = ImageCms.applyTransform(picture, _lab_to_srgb())
        return np.asarray(transformed, np.uint8)
    if picture.mode in ("La", "RGBa"):
        return _premultiplied_on_white(np.asarray(picture))
    if picture.has_transparency_data:
        return flatten_on_white(np.asarray(picture if picture.mode == "RGBA" else picture.convert("RGBA")))
    return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))


def flatten_on_white(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGBA -> RGB, rounded once."""
    alpha = pixels[:, :, 3:].astype(np.uint16)
    white = (_WHITE - alpha) * _WHITE + _WHITE // 2
    return ((pixels[:, :, :3] * alpha + white) // _WHITE).astype(np.uint8)


def _premultiplied_on_white(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey or RGB that is multiplied by the alpha behind it already -> RGB."""
    mixed = pixels[:, :, :-1] + (_WHITE - pixels[:, :, -1:].astype(np.uint16))
    colours = np.minimum(mixed, _WHITE).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(colours, (*colours.shape[:2], 3)))


def to_8_bits(values: NDArray[Any], *, top: float = 0.0) -> NDArray[np.uint8]:
    """Whole or real numbers of any size and shape -> uint8, `top` being white: of 0 what the values look like."""
    real = np.nan_to_num(values.astype(np.float64), posinf=0.0)
    top = top or _likely_top(values.dtype, float(real.max()))
    return np.clip(real / top * _WHITE + 0.5, 0, _WHITE).astype(np.uint8)


def _likely_top(dtype: np.dtype[Any], highest: float) -> float:
    if dtype.kind == "f" and highest <= _MOST_ABOVE_ONE:
        return 1.0
    largest = float(np.iinfo(dtype).max) if dtype.kind in "iu" else highest
    return next((float(top) for top in _TOPS if highest <= top), max(largest, 1.0))


def _grey(picture: Image.Image) -> NDArray[np.uint8]:
    """Pictures of one channel with more than 8 bits."""
    values, tags = np.asarray(picture), _tags(picture)
    if tags is None:
        return to_8_bits(values, top=65_535.0 if picture.mode != "F" else 0.0)
    bits = int(tags.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0])
    signed = tags.get(TiffImagePlugin.SAMPLEFORMAT, (_UNSIGNED,))[0] != _UNSIGNED
    if picture.mode == "I" and bits == 32 and not signed:
        values = values.view(np.uint32)
    grey = to_8_bits(values, top=2.0 ** (bits - signed) - 1 if bits <= 16 else 0.0)
    return _WHITE - grey if tags.get(tiff.PHOTOMETRIC) == _MIN_IS_WHITE and picture.mode != "F" else grey


def _tags(picture: Image.Image) -> TiffImagePlugin.ImageFileDirectory_v2 | None:
    return picture.tag_v2 if isinstance(picture, TiffImagePlugin.TiffImageFile) else None


def _on_white_where_named(grey: NDArray[np.uint8], picture: Image.Image) -> NDArray[np.uint8]:
    """PNG may name one value of deep grey that is transparent."""
    named = picture.info.get("transparency")
    return np.where(np.asarray(picture) == named, _WHITE, grey).astype(np.uint8) if isinstance(named, int) else grey


@functools.cache
def _lab_to_srgb() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
