"""Reads pictures as a viewer shows them. Pillow is the reference; faster decoders give the same pixels."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import logging
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from batchemo.errors import MediaError, typed, unreadable
from batchemo.media import tiff
from batchemo.media.container import check_size
from batchemo.media.pillow import allow_truncated, exif_orientation, flatten_on_white, open_picture, to_8_bits, to_rgb, turn_upright
from batchemo.media.source import ReadReport
from batchemo.media.unsupported import HEAD_BYTES, detect_by_content, detect_by_extension
from batchemo.records import Frame

# What OpenCV writes to stderr about damaged pictures, our messages say, too.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

_CACHE_BYTES = 64 * 2**20
"""Limit for the decoded pictures that stay in memory."""

_END_OF_JPEG = b"\xff\xd9"
_EXTRANEOUS = re.compile("(\\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
_MARKERS_AFTER_SCAN = frozenset((0xC4, *range(0xD0, 0xDB)))
"""Markers that follow image data: extraneous bytes before them are damaged image data."""
_UNREAD_JPEG = 128
"""Value that libjpeg gives to pixels it could not read; other readers leave them 0."""
_MENTIONED_LOSS, _MAX_LOSS = 0.005, 0.95
"""Lost fractions of a picture: from the first on the loss is reported as a number; beyond the second the picture fails."""
_UNSUPPORTED_WORDS = re.compile("unsupported|not supported|cannot handle|unknown|not implemented", re.IGNORECASE)
_JPEG_FRAME = re.compile(rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf]..(.)", re.DOTALL)
"""Marker, length and bits per channel of a JPEG's frame header (ITU-T T.81, B.2.2)."""
_WEBP_ANIMATION = 2
"""Flag in VP8X."""
_STDERR = 2
_stderr_lock = threading.Lock()


@dataclasses.dataclass(frozen=True, slots=True)
class _Decoded:
    """RGB uint8 H x W x 3, not to be changed; `note` says what was lost or not read."""

    pixels: NDArray[np.uint8]
    decoder: str
    note: str = ""


class PictureSource:
    """The single frame of a picture; see `batchemo.media.source.FrameSource`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.decoder = "pillow"
        self.report = ReadReport()

    def frames(self, *, sample_fps: float | None = None, start_index: int = 0) -> Iterator[Frame]:  # noqa: ARG002 (one frame)
        read = _read(self._path)
        self.decoder = read.decoder
        self.report = ReadReport(decoded=1, height=read.pixels.shape[0], width=read.pixels.shape[1], note=read.note, starts_s=0.0)
        if start_index == 0:
            yield Frame(0, 0.0, read.pixels)


def read_picture(path: Path) -> NDArray[np.uint8]:
    """RGB uint8 H x W x 3, not to be changed. Raises MediaError where the file is no picture, too large, or not readable at all.

    The latest pictures are cached: several are analysed together, and drawn on one by one afterwards.
    """
    return _read(path).pixels


def _read(path: Path) -> _Decoded:
    try:
        known = path.stat()
        identity = path, known.st_mtime_ns, known.st_size, known.st_ino
        read = _cache.pop(identity, None)
        if read is None:
            read = _decode(path, path.read_bytes())
            read.pixels.flags.writeable = False
    except OSError as error:
        raise unreadable(path, error) from error
    _cache[identity] = read
    while sum(each.pixels.nbytes for each in _cache.values()) > _CACHE_BYTES:
        _cache.popitem(last=False)
    return read


_cache: collections.OrderedDict[tuple[Path, int, int, int], _Decoded] = collections.OrderedDict()


def _decode(path: Path, content: bytes) -> _Decoded:
    if not content:
        raise MediaError("empty", f"{path} is empty (0 bytes); copy it again from its source")
    foreign = detect_by_content(BytesIO(content), content[:HEAD_BYTES], path)
    if foreign is not None:
        raise foreign.error(path)
    try:
        with open_picture(content) as picture:
            width, height = picture.size
            if width <= 0 or height <= 0:
                raise MediaError("damaged", f"{path} is {width} x {height} pixels: it is empty")
            check_size(path, width, height)
            return _decode_opened(path, content, picture)
    except (MediaError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise MediaError("too_large", f"{path} has far too many pixels to be analysed ({error}). Make it smaller first") from error
    except UnidentifiedImageError:
        return _decode_without_pillow(path, content)
    except Exception as error:  # Pillow raises whatever its readers of formats do: OSError, SyntaxError, RuntimeError, struct.error
        raise _pillow_error(path, error) from error


def _decode_opened(path: Path, content: bytes, picture: Image.Image) -> _Decoded:
    fast = _FAST_DECODERS.get((picture.format or "", picture.mode))
    decoded = fast(content) if fast is not None else None
    if decoded is not None:
        return dataclasses.replace(decoded, pixels=turn_upright(decoded.pixels, exif_orientation(picture)))
    try:
        with _logged_stderr(path) if picture.format == "TIFF" else contextlib.nullcontext():
            picture.load()
    except Exception as error:
        return _decode_damaged(path, content, error)
    pixels = turn_upright(to_rgb(picture), exif_orientation(picture))
    return _Decoded(pixels, "pillow", _page_note(path, content))


def _decode_jpeg(content: bytes) -> _Decoded | None:
    """A JPEG, even a damaged one; None where Pillow must decide. Faster than Pillow, with the same pixels (see docs/benchmarks.md).
    Raises ValueError where nothing is left of it."""
    why, whole = "", content
    while True:
        try:
            return _Decoded(simplejpeg.decode_jpeg(whole, colorspace="RGB", strict=True), "simplejpeg")
        except ValueError as error:
            why = str(error)
        repaired = _repair_jpeg(whole, why)
        if repaired is None:
            break
        whole = repaired
    extraneous = _EXTRANEOUS.search(why)
    if extraneous and int(extraneous[2], 16) not in _MARKERS_AFTER_SCAN:
        return None
    try:
        pixels = simplejpeg.decode_jpeg(content, colorspace="RGB", strict=False)
    except ValueError:
        return None
    decoded = _incomplete(pixels, "simplejpeg", why, unread=_UNREAD_JPEG)
    if decoded is None:
        raise ValueError(why)
    return decoded


def _repair_jpeg(content: bytes, why: str) -> bytes | None:
    """The JPEG without harmless faults: only its end marker is missing, or equal bytes fill it up before the end, as some cameras write
    it. None for anything else."""
    if "Premature end" in why and not content.endswith(_END_OF_JPEG):
        return content + _END_OF_JPEG
    extraneous = _EXTRANEOUS.search(why)
    if extraneous is None or int(extraneous[2], 16) != _END_OF_JPEG[1]:
        return None
    count, end = int(extraneous[1]), content.rfind(_END_OF_JPEG)
    while end > count:
        if len(set(content[end - count : end])) == 1:
            return content[: end - count] + content[end:]
        end = content.rfind(_END_OF_JPEG, 0, end)
    return None


def _decode_webp(content: bytes) -> _Decoded | None:
    """A still WebP: faster than Pillow, with the same pixels (see docs/benchmarks.md); None for an animation."""
    if content[12:16] == b"VP8X" and content[20] & _WEBP_ANIMATION:
        return None
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.ndim != 3:
        return None
    if decoded.shape[2] == 4:
        return _Decoded(flatten_on_white(np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGRA2RGBA), np.uint8)), "opencv")
    return _Decoded(np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8), "opencv")


_FAST_DECODERS: dict[tuple[str, str], Callable[[bytes], _Decoded | None]] = {
    **{(form, mode): _decode_jpeg for form in ("JPEG", "MPO") for mode in ("L", "RGB")},
    **{("WEBP", mode): _decode_webp for mode in ("RGB", "RGBA")},
}
"""By format and mode of Pillow."""


def _decode_damaged(path: Path, content: bytes, why: Exception) -> _Decoded:
    """What Pillow can read of a damaged or truncated picture. Raises MediaError where that is nothing."""
    try:
        with allow_truncated(), _logged_stderr(path), open_picture(content) as picture:
            picture.load()
            unread = _UNREAD_JPEG if picture.format in ("JPEG", "MPO") else 0
            decoded = _incomplete(to_rgb(picture), "pillow", str(why), unread=unread)
            orientation = exif_orientation(picture)
    except MemoryError:
        raise
    except Exception as error:
        raise _pillow_error(path, why) from error
    if decoded is None:
        raise _pillow_error(path, why)
    return dataclasses.replace(decoded, pixels=turn_upright(decoded.pixels, orientation))


def _incomplete(pixels: NDArray[np.uint8], decoder: str, why: str, *, unread: int) -> _Decoded | None:
    """Pixels as stored, of which unreadable ones have the value `unread`; None where nearly all are."""
    there = np.flatnonzero((pixels != unread).any(axis=(1, 2)))
    lost = 1 - int(there[-1] - there[0] + 1) / len(pixels) if len(there) else 1.0
    if lost > _MAX_LOSS:
        return None
    what = f"about {lost:.0%} of it is missing" if lost >= _MENTIONED_LOSS else "some of it may be missing"
    return _Decoded(pixels, decoder, f"damaged or cut off ({why}): {what}; what could be read was analysed")


def _decode_without_pillow(path: Path, content: bytes) -> _Decoded:
    """Pictures that Pillow does not know: OpenCV reads some more TIFFs. OpenCV allocates whatever size a header claims, so that the size
    is checked first."""
    foreign = detect_by_extension(path)
    if foreign is not None:
        raise foreign.error(path)
    if content.startswith(b"\xff\xd8\xff") and (found := _JPEG_FRAME.search(content)) and found[1] != b"\x08":
        raise _unsupported_error(path, f"a JPEG with {found[1][0]} bits per channel")
    if not content.startswith(tiff.SIGNATURES):
        raise _damaged_error(path, "its format is not recognized")
    first = next(tiff.directories(BytesIO(content)), {})
    width, height = first.get(tiff.WIDTH, 0), first.get(tiff.HEIGHT, 0)
    if not width or not height:
        raise _damaged_error(path, "its directory cannot be read")
    check_size(path, width, height)
    try:
        with _logged_stderr(path):
            decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        decoded = None
    if decoded is None or decoded.ndim != 3 or decoded.shape[2] != 3:
        raise _unsupported_error(path, "an unusual TIFF")
    # It has turned the picture upright.
    return _Decoded(to_8_bits(np.ascontiguousarray(decoded[:, :, ::-1])), "opencv", _page_note(path, content))


def _page_note(path: Path, content: bytes) -> str:
    pages = tiff.count_pages(BytesIO(content)) if content.startswith(tiff.SIGNATURES) else 1
    return f"only page 1 of {pages} was analysed; split them with: tiffsplit {typed(path)}" if pages > 1 else ""


def _pillow_error(path: Path, error: Exception) -> MediaError:
    """The error for a picture that Pillow recognizes but cannot read: unsupported if its message says so, damaged otherwise."""
    why = " ".join(str(error).split())
    return _unsupported_error(path, why) if _UNSUPPORTED_WORDS.search(why) else _damaged_error(path, why)


def _unsupported_error(path: Path, what: str) -> MediaError:
    message = f"{path} cannot be read here ({what}); convert it first, for example with: magick {typed(path)} converted.png"
    return MediaError("unsupported", message)


def _damaged_error(path: Path, why: str) -> MediaError:
    message = f"{path} is a damaged picture, or none ({why}); copy it again, or open it in a viewer and save it as PNG"
    return MediaError("damaged", message)


@contextlib.contextmanager
def _logged_stderr(path: Path) -> Iterator[None]:
    """Logs, with the name of `path`, what libraries of this process write to stderr meanwhile. libtiff has no other way to report
    errors."""
    with _stderr_lock, tempfile.TemporaryFile() as kept:
        if sys.stderr is not None:
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.flush()
        before = os.dup(_STDERR)
        os.dup2(kept.fileno(), _STDERR)
        try:
            yield
        finally:
            os.dup2(before, _STDERR)
            os.close(before)
            kept.seek(0)
            for line in sorted(set(kept.read().decode(errors="replace").splitlines())):
                logging.getLogger("batchemo").info("%s: %s", path, line)
