"""Finds boxes in files of the ISO base media file format (MP4, MOV, AVIF)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO


def find_box(file: BinaryIO, start: int, end: int, path: Sequence[bytes]) -> tuple[int, int] | None:
    """Offsets of the content of the first box at `path`, one type per level; None where there is none."""
    for wanted in path:
        found = next(((first, last) for kind, first, last in iterate_boxes(file, start, end) if kind == wanted), None)
        if found is None:
            return None
        start, end = found
    return start, end


def iterate_boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The boxes (ISO/IEC 14496-12, section 4.2) between two offsets: type, start and end of the content."""
    while start + 8 <= end:
        file.seek(start)
        size, kind, head = int.from_bytes(file.read(4), "big"), file.read(4), 8
        if size == 1:
            size, head = int.from_bytes(file.read(8), "big"), 16
        last = end if size == 0 else start + size
        if last < start + head:
            return
        yield kind, start + head, min(last, end)
        start = last
