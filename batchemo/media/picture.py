"""Pictures by OpenCV, as a viewer shows them: upright, 8 bits a channel, transparency on white."""

from __future__ import annotations

import collections
import warnings
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from batchemo.errors import MediaError, unreadable
from batchemo.media.container import check_size
from batchemo.media.source import Found
from batchemo.records import Frame

# What OpenCV writes to stderr about damaged pictures, its exceptions and our messages say, too.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

_ORIENTATION = 0x0112
_WHITE = 255
_MOST_KEPT_BYTES = 64 * 2**20
"""Of all pictures that stay in memory after they were read."""
_TURNS = {
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
    8: lambda p: np.rot90(p, 1),
}
"""What makes a picture upright, by its EXIF orientation (EXIF 2.32, tag 0x0112)."""


class PictureSource:
    """The one frame of a picture; see `batchemo.media.source.FrameSource`."""

    decoder = "opencv"

    def __init__(self, path: Path) -> None:
        self._path = path
        self.found = Found()

    def frames(self, *, sample_fps: float | None = None, start_index: int = 0) -> Iterator[Frame]:  # noqa: ARG002 (one frame)
        pixels = read_picture(self._path)
        self.found = Found(decoded=1, height=pixels.shape[0], width=pixels.shape[1], starts_s=0.0)
        if start_index == 0:
            yield Frame(0, 0.0, pixels)


def read_picture(path: Path) -> NDArray[np.uint8]:
    """RGB uint8 H x W x 3, not to be changed. Raises MediaError where the file is no picture, broken, or too large.

    The pictures that were read last stay in memory: several are analysed together, then drawn on one by one.
    """
    try:
        known = path.stat()
        identity = path, known.st_mtime_ns, known.st_size, known.st_ino
        pixels = _kept.pop(identity, None)
        if pixels is None:
            pixels = _decode(path, path.read_bytes())
            pixels.flags.writeable = False
    except OSError as error:
        raise unreadable(path, error) from error
    _kept[identity] = pixels
    while sum(each.nbytes for each in _kept.values()) > _MOST_KEPT_BYTES:
        _kept.popitem(last=False)
    return pixels


_kept: collections.OrderedDict[tuple[Path, int, int, int], NDArray[np.uint8]] = collections.OrderedDict()


def _decode(path: Path, content: bytes) -> NDArray[np.uint8]:
    if not content:
        raise MediaError("empty", f"{path} is empty (0 bytes); copy it again from its source")
    transparent, orientation = _header(path)
    encoded = np.frombuffer(content, np.uint8)
    flags = cv2.IMREAD_UNCHANGED if transparent else cv2.IMREAD_COLOR
    try:
        decoded = cv2.imdecode(encoded, flags)
    except cv2.error as error:
        raise _damaged(path, error.err) from error
    if decoded is None or decoded.size == 0:
        raise _damaged(path, "it ends too early, or its content is not what its header says")
    if not transparent:  # IMREAD_COLOR has turned it upright already
        return cv2.cvtColor(decoded.astype(np.uint8, copy=False), cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
    upright = _TURNS[orientation](decoded) if orientation in _TURNS else decoded
    return _on_white(np.ascontiguousarray(upright))


def _header(path: Path) -> tuple[bool, int]:
    """Whether the picture is transparent, and its EXIF orientation, read without decoding; checks its size."""
    try:
        with warnings.catch_warnings():
            # Pillow warns and then refuses by its own bound on the size; ours is checked below.
            warnings.simplefilter("ignore")
            with Image.open(path) as picture:
                width, height = picture.size
                transparent = "A" in picture.getbands() or "transparency" in picture.info
                orientation = int(picture.getexif().get(_ORIENTATION, 1))
    except Image.DecompressionBombError as error:
        raise MediaError("too_large", f"{path} has far too many pixels to be analysed ({error}). Make it smaller first") from error
    except UnidentifiedImageError as error:
        # OpenCV knows some more formats, but sets memory aside for whatever size their headers claim.
        raise _damaged(path, "nothing in it says what it is") from error
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises whatever its readers of formats do: OSError, SyntaxError, RuntimeError, struct.error
        raise _damaged(path, str(error)) from error
    if width <= 0 or height <= 0:
        raise MediaError("damaged", f"{path} is {width} x {height} pixels: nothing to see")
    check_size(path, width, height)
    return transparent, orientation


def _damaged(path: Path, why: str) -> MediaError:
    message = f"{path} is a damaged picture, or none ({why}); copy it again, or open it in a viewer and save it as PNG"
    return MediaError("damaged", message)


def _on_white(decoded: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Grey, grey with alpha, BGR or BGRA of 8 or 16 bits -> RGB uint8."""
    pixels = decoded.astype(np.float32) / (257 if decoded.dtype == np.uint16 else 1)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.shape[2] in (2, 4):
        alpha = pixels[:, :, -1:] / _WHITE
        pixels = pixels[:, :, :-1] * alpha + _WHITE * (1 - alpha)
    rounded = np.clip(pixels + 0.5, 0, _WHITE).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(rounded[:, :, ::-1], (*rounded.shape[:2], 3)))
