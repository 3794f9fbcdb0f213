"""Converts pictures opened by Pillow to what a viewer shows: upright, RGB, 8 bits per channel, transparency on white."""

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
"""Pillow reads more formats, but its other readers have not been checked against malicious files."""

_WHITE = 255
_TRANSFORMS: dict[int, Callable[[Any], Any]] = {
    2: lambda p: cv2.flip(p, 1),
    3: lambda p: cv2.rotate(p, cv2.ROTATE_180),
    4: lambda p: cv2.flip(p, 0),
    5: cv2.transpose,
    6: lambda p: cv2.rotate(p, cv2.ROTATE_90_CLOCKWISE),
    7: lambda p: cv2.rotate(cv2.transpose(p), cv2.ROTATE_180),
    8: lambda p: cv2.rotate(p, cv2.ROTATE_90_COUNTERCLOCKWISE),
}
"""Operation that makes a picture upright, by EXIF orientation (EXIF 2.32, tag 0x0112)."""

_LIKELY_WHITES = (255, 65_535)
"""Possible white levels of integer or float pictures that state none."""
_MAX_FRACTION_OF_WHITE = 2.0
"""Float values up to here are fractions of white; brighter light is clipped, as in viewers."""

_UNSIGNED, _MIN_IS_WHITE = 1, 0
"""Values of the TIFF tags SampleFormat and PhotometricInterpretation."""

_truncated_lock = threading.Lock()


@contextlib.contextmanager
def open_picture(content: bytes) -> Iterator[Image.Image]:
    """Opens a picture without decoding it, and without warnings. Raises whatever Pillow's readers raise, and UnidentifiedImageError for
    unknown formats."""
    with warnings.catch_warnings():
        # Of strange tags, and of sizes, which are checked against our own bound.
        warnings.simplefilter("ignore")
        with Image.open(BytesIO(content), formats=_FORMATS) as picture:
            yield picture


@contextlib.contextmanager
def allow_truncated() -> Iterator[None]:
    """Within it, Pillow decodes what it can of truncated or damaged pictures (a setting of the process; one thread at a time)."""
    with _truncated_lock:
        before = ImageFile.LOAD_TRUNCATED_IMAGES
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


def exif_orientation(picture: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 where there is none or it is invalid. Ask for a TIFF's after `load`, since Pillow turns TIFFs itself."""
    try:
        orientation = int(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF raises whatever its reader does
        return 1
    return orientation if orientation in _TRANSFORMS else 1


def turn_upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """H x W x C, upright and contiguous."""
    return np.asarray(_TRANSFORMS[orientation](pixels), np.uint8) if orientation in _TRANSFORMS else pixels


def to_rgb(picture: Image.Image) -> NDArray[np.uint8]:
    """RGB uint8 H x W x 3 of a picture of any mode, as stored (not upright)."""
    if picture.mode in ("F", "I") or picture.mode.startswith("I;"):
        grey = _flatten_named_grey(_to_grey(picture), picture)
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
    """RGBA to RGB on white, rounded once."""
    alpha = pixels[:, :, 3:].astype(np.uint16)
    white = (_WHITE - alpha) * _WHITE + _WHITE // 2
    return ((pixels[:, :, :3] * alpha + white) // _WHITE).astype(np.uint8)


def _premultiplied_on_white(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey or RGB with premultiplied alpha to RGB on white."""
    mixed = pixels[:, :, :-1] + (_WHITE - pixels[:, :, -1:].astype(np.uint16))
    colours = np.minimum(mixed, _WHITE).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(colours, (*colours.shape[:2], 3)))


def to_8_bits(values: NDArray[Any], *, white: float = 0.0) -> NDArray[np.uint8]:
    """Converts integers or floats of any size and shape to uint8; `white` is the white level, guessed from the values where it is 0."""
    real = np.nan_to_num(values.astype(np.float64), posinf=0.0)
    white = white or _likely_white(values.dtype, float(real.max()))
    return np.clip(real / white * _WHITE + 0.5, 0, _WHITE).astype(np.uint8)


def _likely_white(dtype: np.dtype[Any], highest: float) -> float:
    if dtype.kind == "f" and highest <= _MAX_FRACTION_OF_WHITE:
        return 1.0
    largest = float(np.iinfo(dtype).max) if dtype.kind in "iu" else highest
    return next((float(white) for white in _LIKELY_WHITES if highest <= white), max(largest, 1.0))


def _to_grey(picture: Image.Image) -> NDArray[np.uint8]:
    """Pictures with one channel of more than 8 bits."""
    values, tags = np.asarray(picture), _tags(picture)
    if tags is None:
        return to_8_bits(values, white=65_535.0 if picture.mode != "F" else 0.0)
    bits = int(tags.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0])
    signed = tags.get(TiffImagePlugin.SAMPLEFORMAT, (_UNSIGNED,))[0] != _UNSIGNED
    if picture.mode == "I" and bits == 32 and not signed:
        values = values.view(np.uint32)
    grey = to_8_bits(values, white=2.0 ** (bits - signed) - 1 if bits <= 16 else 0.0)
    return _WHITE - grey if tags.get(tiff.PHOTOMETRIC) == _MIN_IS_WHITE and picture.mode != "F" else grey


def _tags(picture: Image.Image) -> TiffImagePlugin.ImageFileDirectory_v2 | None:
    return picture.tag_v2 if isinstance(picture, TiffImagePlugin.TiffImageFile) else None


def _flatten_named_grey(grey: NDArray[np.uint8], picture: Image.Image) -> NDArray[np.uint8]:
    """A PNG may declare one value of 16-bit grey transparent."""
    named = picture.info.get("transparency")
    return np.where(np.asarray(picture) == named, _WHITE, grey).astype(np.uint8) if isinstance(named, int) else grey


@functools.cache
def _lab_to_srgb() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
