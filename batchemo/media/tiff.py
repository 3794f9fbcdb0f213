"""Reads the directories of TIFF files: pages, and the thumbnails and metadata of raw photographs."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""TIFF and BigTIFF, in either byte order."""

WIDTH, HEIGHT = 256, 257
PHOTOMETRIC = 262
_SUBFILE_TYPE = 254
_DNG_VERSION = 50706
_REDUCED, _MASK = 1, 4
"""Bits of NewSubfileType (TIFF 6.0, section 8): reduced-resolution version of another image, and transparency mask."""

_INTEGERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
_MOST_DIRECTORIES = 10_000

Directory = dict[int, int]
"""The first value of each tag with an integer type; 0 where the value is stored outside the directory."""


def directories(file: BinaryIO) -> Iterator[Directory]:
    """The directories of a file that begins with one of `SIGNATURES`, in order. Ends where the file is truncated, or a directory
    repeats."""
    file.seek(0)
    head = file.read(16)
    order = "<" if head[:1] == b"I" else ">"
    big = head[2:4] in (b"+\0", b"\0+")
    number, counter, value_bytes = ("Q", "Q", 8) if big else ("I", "H", 4)
    entry_bytes = 4 + 2 * value_bytes
    visited = {0}
    try:
        (place,) = struct.unpack_from(order + number, head, 8 if big else 4)
        while place not in visited and len(visited) <= _MOST_DIRECTORIES:
            visited.add(place)
            file.seek(place)
            (count,) = struct.unpack(order + counter, file.read(struct.calcsize(counter)))
            if count > 0xFFFF:
                return
            entries = file.read(count * entry_bytes)
            yield {tag: value for at in range(count) for tag, value in [_entry(entries, at * entry_bytes, order, number)]}
            (place,) = struct.unpack(order + number, file.read(value_bytes))
    except (struct.error, OSError, OverflowError):
        return


def _entry(entries: bytes, at: int, order: str, number: str) -> tuple[int, int]:
    tag, kind, count = struct.unpack_from(f"{order}HH{number}", entries, at)
    value_at = at + 4 + struct.calcsize(number)
    form = _INTEGERS.get(kind, "")
    if not form or not 0 < count * struct.calcsize(form) <= struct.calcsize(number):
        return tag, 0
    (value,) = struct.unpack_from(order + form, entries, value_at)
    return tag, value


def is_raw(file: BinaryIO) -> bool:
    """Whether a TIFF is a raw photograph: its first directory is a thumbnail's, or it states DNG or CR2."""
    file.seek(8)
    if file.read(2) == b"CR":
        return True
    first = next(directories(file), {})
    return bool(first.get(_SUBFILE_TYPE, 0) & _REDUCED) or _DNG_VERSION in first


def count_pages(file: BinaryIO) -> int:
    """Number of pages: all images except reduced versions and masks of others."""
    return sum(not directory.get(_SUBFILE_TYPE, 0) & (_REDUCED | _MASK) for directory in directories(file))
