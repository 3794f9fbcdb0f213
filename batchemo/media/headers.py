"""Reads what FFmpeg's demuxers do not report: cropping, edit lists, and whether a file is truncated."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from batchemo.media.isobmff import find_box, iterate_boxes


class Crop(NamedTuple):
    """Pixels cut off each side of a stored frame."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0

    def within(self, width: int, height: int) -> Crop:
        """This crop; none where nothing of a frame of that size would be left."""
        fits = min(self) >= 0 and self.left + self.right < width and self.top + self.bottom < height
        return self if fits else NO_CROP

    def apply(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = pixels.shape[:2]
        return pixels[self.top : height - self.bottom, self.left : width - self.right]


NO_CROP = Crop()


class Edit(NamedTuple):
    """An entry of an edit list: presents the media from `start_s` on for `duration_s`; an empty edit where `start_s` is None."""

    start_s: Fraction | None
    duration_s: Fraction


_MAX_HEADER_BYTES = 64 * 2**20
"""Largest `moov` box that is read."""

_SEGMENT, _TRACKS, _TRACK, _CLUSTER = 0x18538067, 0x1654AE6B, 0xAE, 0x1F43B675
_TRACK_TYPE, _VIDEO = 0x83, 0xE0
_PIXEL_CROP = {0x54CC: "left", 0x54BB: "top", 0x54DD: "right", 0x54AA: "bottom"}
"""Matroska elements (RFC 9559, section 5)."""
_VIDEO_TRACK = 1


def read_crops(file: BinaryIO, container: str) -> list[Crop]:
    """The crop of each video track, in order; empty where the file states none. `container` is FFmpeg's name of the format."""
    try:
        if "matroska" in container:
            return _matroska_crops(file)
        return _mov_crops(file) if "mov" in container else []
    except (OSError, ValueError, IndexError, OverflowError):  # FFmpeg judges the file
        return []


def read_edits(file: BinaryIO, container: str) -> list[list[Edit]]:
    """The edit list of each video track, in order; empty where there is none, and for fragmented MP4. `container` is FFmpeg's name."""
    try:
        return [_edit_list(file, track) for track in _video_tracks(file)] if "mov" in container else []
    except (OSError, ValueError, IndexError, OverflowError, struct.error):  # FFmpeg judges the file
        return []


def is_truncated(file: BinaryIO, container: str) -> bool:
    """Whether a Matroska or AVI file is shorter than its header states."""
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    try:
        if "matroska" in container:
            return any(name == _SEGMENT and end > length for name, _, end in _elements(file, 0, length))
        head = file.read(12)
        return head.startswith(b"RIFF") and int.from_bytes(head[4:8], "little") + 8 > length
    except (OSError, ValueError):
        return False


def _matroska_crops(file: BinaryIO) -> list[Crop]:
    length = file.seek(0, os.SEEK_END)
    crops: list[Crop] = []
    for name, start, end in _elements(file, 0, length):
        if name != _SEGMENT:
            continue
        for inner, first, last in _elements(file, start, min(end, length)):
            if inner == _CLUSTER:
                break
            if inner == _TRACKS:
                tracks = [_children(file, a, b) for kind, a, b in _elements(file, first, last) if kind == _TRACK]
                crops += [_crop_of(file, track) for track in tracks if _unsigned(file, track.get(_TRACK_TYPE)) == _VIDEO_TRACK]
    return crops


def _crop_of(file: BinaryIO, track: dict[int, tuple[int, int]]) -> Crop:
    video = _children(file, *track[_VIDEO]) if _VIDEO in track else {}
    return Crop(**{side: _unsigned(file, video.get(element)) for element, side in _PIXEL_CROP.items()})


def _children(file: BinaryIO, start: int, end: int) -> dict[int, tuple[int, int]]:
    return {name: (first, last) for name, first, last in _elements(file, start, end)}


def _unsigned(file: BinaryIO, place: tuple[int, int] | None) -> int:
    if place is None or place[1] - place[0] > 8:
        return 0
    file.seek(place[0])
    return int.from_bytes(file.read(place[1] - place[0]), "big")


def _elements(file: BinaryIO, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The EBML elements (RFC 8794) between two offsets: identifier, start and end of the content (`end` where the size is unknown)."""
    while start < end:
        file.seek(start)
        name, _ = _vint(file, keep_marker=True)
        size, unknown = _vint(file, keep_marker=False)
        first = file.tell()
        last = end if unknown else first + size
        yield name, first, last
        start = last


def _vint(file: BinaryIO, *, keep_marker: bool) -> tuple[int, bool]:
    """An EBML variable-size integer, and whether all its data bits are 1, which means "unknown"."""
    lead = file.read(1)
    if not lead or not lead[0]:
        raise ValueError("no EBML")
    extra = 8 - lead[0].bit_length()
    value = int.from_bytes(lead + file.read(extra), "big")
    data = value & ((1 << 7 * (extra + 1)) - 1)
    return (value if keep_marker else data), data == (1 << 7 * (extra + 1)) - 1


def _mov_crops(file: BinaryIO) -> list[Crop]:
    return [_track_crop(file, track) for track in _video_tracks(file)]


class _Track(NamedTuple):
    """Offsets of the content of a `trak` box, and of the `moov` box around it."""

    start: int
    end: int
    movie: tuple[int, int]


def _video_tracks(file: BinaryIO) -> Iterator[_Track]:
    length = file.seek(0, os.SEEK_END)
    for kind, start, end in iterate_boxes(file, 0, length):
        if kind != b"moov" or end - start > _MAX_HEADER_BYTES:
            continue
        for inner, first, last in iterate_boxes(file, start, end):
            handler = find_box(file, first, last, (b"mdia", b"hdlr")) if inner == b"trak" else None
            if handler is None:
                continue
            file.seek(handler[0] + 8)
            if file.read(4) == b"vide":
                yield _Track(first, last, (start, end))


def _edit_list(file: BinaryIO, track: _Track) -> list[Edit]:
    """The `elst` box (ISO/IEC 14496-12, section 8.6.6)."""
    table = find_box(file, track.start, track.end, (b"edts", b"elst"))
    timescales = _timescale(file, *track.movie, (b"mvhd",)), _timescale(file, track.start, track.end, (b"mdia", b"mdhd"))
    if table is None or not all(timescales) or find_box(file, *track.movie, (b"mvex",)) is not None:
        return []
    file.seek(table[0])
    content = file.read(table[1] - table[0])
    form = ">QqHH" if content[0] == 1 else ">IiHH"
    (count,) = struct.unpack_from(">I", content, 4)
    fitting = min(count, (len(content) - 8) // struct.calcsize(form))
    entries = (struct.unpack_from(form, content, 8 + number * struct.calcsize(form)) for number in range(fitting))
    return [
        Edit(None if start < 0 else Fraction(start, timescales[1]), Fraction(duration, timescales[0])) for duration, start, _, _ in entries
    ]


def _timescale(file: BinaryIO, start: int, end: int, path: Sequence[bytes]) -> int:
    """Ticks per second that an `mvhd` or `mdhd` box states; 0 where there is none."""
    header = find_box(file, start, end, path)
    if header is None:
        return 0
    file.seek(header[0])
    content = file.read(24)
    return int(struct.unpack_from(">I", content, 20 if content[0] == 1 else 12)[0])


def _track_crop(file: BinaryIO, track: _Track) -> Crop:
    """The crop by the `clap` box of the first sample entry."""
    description = find_box(file, track.start, track.end, (b"mdia", b"minf", b"stbl", b"stsd"))
    if description is None:
        return NO_CROP
    for _, first, last in iterate_boxes(file, description[0] + 8, description[1]):
        file.seek(first + 24)
        width, height = (int.from_bytes(file.read(2), "big") for _ in range(2))
        # The fields of a VisualSampleEntry take 78 bytes (ISO/IEC 14496-12, section 12.1.3).
        aperture = next(((a, b) for kind, a, b in iterate_boxes(file, first + 78, last) if kind == b"clap"), None)
        if aperture is None:
            return NO_CROP
        file.seek(aperture[0])
        return _clean_aperture([int.from_bytes(file.read(4), "big", signed=True) for _ in range(8)], width, height)
    return NO_CROP


def _clean_aperture(values: Sequence[int], width: int, height: int) -> Crop:
    """The crop by a `clap` box (ISO/IEC 14496-12, section 12.1.4): fractions of its width and height, and the offset of its centre from
    the frame's."""
    if not all(values[1::2]):
        return NO_CROP
    clean_width, clean_height, right, down = (Fraction(values[i], values[i + 1]) for i in range(0, 8, 2))
    left, top = (width - clean_width) / 2 + right, (height - clean_height) / 2 + down
    crop = Crop(round(left), round(top), round(width - clean_width - left), round(height - clean_height - top))
    return crop.within(width, height)
