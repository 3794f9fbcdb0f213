"""Reads the frame durations of animated WebP, PNG and AVIF from their headers, without decoding."""

from __future__ import annotations

import dataclasses
import os
import struct
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from batchemo.media.isobmff import find_box, iterate_boxes

_MIN_S, _DEFAULT_S = Fraction(1, 100), Fraction(1, 10)
"""A frame with at most the first duration is shown for the second, as in Chromium and Firefox (GIF, WebP, APNG, AVIF)."""
_MAX_FRAMES = 1_000_000
_HEAD_BYTES = 4096
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclasses.dataclass(frozen=True, slots=True)
class FrameTimes:
    """`durations` in seconds of the frames that are complete in the file, as browsers show them; `missing` more are announced or
    incomplete.

    `complete_bytes`: offset of the first incomplete data. `default_image`: the file starts with a still image that is no frame.
    """

    format: Literal["webp", "png", "avif"]
    durations: tuple[Fraction, ...]
    missing: int = 0
    complete_bytes: int = 0
    default_image: bool = False

    @property
    def is_animated(self) -> bool:
        return len(self.durations) + self.missing > 1

    @property
    def duration_s(self) -> Fraction:
        return sum(self.durations, Fraction(0))

    @property
    def starts_s(self) -> NDArray[np.float64]:
        """Float64 N, starting with 0; sums are exact, and rounded once each."""
        starts, passed = [], Fraction(0)
        for duration in self.durations:
            starts.append(float(passed))
            passed += duration
        return np.array(starts, np.float64)


def read_frame_times(path: Path) -> FrameTimes | None:
    """None unless the file is an animation of several frames. Raises OSError where it cannot be read."""
    with path.open("rb") as file:
        times = parse_frame_times(file, file.read(_HEAD_BYTES))
    return times if times is not None and times.is_animated else None


def parse_frame_times(file: BinaryIO, head: bytes) -> FrameTimes | None:
    """Times of an open file that starts with `head`, even of a single frame; None for other formats."""
    size = file.seek(0, os.SEEK_END)
    try:
        if head.startswith(b"RIFF") and head[8:16] == b"WEBPVP8X" and head[20] & 2:
            return _parse_webp(file, size)
        if head.startswith(_PNG):
            return _parse_apng(file, size)
        if head[4:8] == b"ftyp" and b"avis" in head[8 : int.from_bytes(head[:4], "big")]:
            return _parse_avif(file, size)
    except (struct.error, IndexError):
        return None
    return None


def _as_in_browsers(seconds: Fraction) -> Fraction:
    return seconds if seconds > _MIN_S else _DEFAULT_S


def _parse_webp(file: BinaryIO, size: int) -> FrameTimes:
    """WebP container specification: RIFF chunks, one ANMF for each frame."""
    file.seek(4)
    end = struct.unpack("<I", file.read(4))[0] + 8
    at, durations, missing = 12, [], 0
    while at + 8 <= min(end, size):
        file.seek(at)
        name, length = struct.unpack("<4sI", file.read(8))
        if at + 8 + length > size:
            missing += name == b"ANMF"
            break
        if name == b"ANMF":
            file.seek(12, os.SEEK_CUR)
            durations.append(_as_in_browsers(Fraction(int.from_bytes(file.read(3), "little"), 1000)))
        at += 8 + length + length % 2
    if end > size and not missing:
        missing = 1  # at least
    return FrameTimes("webp", tuple(durations), missing, min(at, size))


def _parse_apng(file: BinaryIO, size: int) -> FrameTimes | None:
    """APNG (PNG, third edition): acTL states the number of frames, and an fcTL precedes the data of each."""
    announced, default_image = 0, False
    durations: list[Fraction] = []
    at = len(_PNG)
    while at + 12 <= size:
        file.seek(at)
        length, name = struct.unpack(">I4s", file.read(8))
        if at + 12 + length > size or name == b"IEND":
            break
        if name == b"acTL":
            announced = struct.unpack(">I", file.read(4))[0]
        elif name == b"IDAT" and not announced:
            return None
        elif name == b"IDAT" and not durations:
            default_image = True
        elif name == b"fcTL":
            file.seek(20, os.SEEK_CUR)
            numerator, denominator = struct.unpack(">HH", file.read(4))
            durations.append(_as_in_browsers(Fraction(numerator, denominator or 100)))
        at += 12 + length
    if not announced:
        return None
    whole = durations[: min(announced, _MAX_FRAMES)]
    return FrameTimes("png", tuple(whole), max(0, announced - len(whole)), at, default_image)


def _parse_avif(file: BinaryIO, size: int) -> FrameTimes | None:
    """ISO base media file format: `stts` of the first picture track."""
    for track in _tracks(file, size):
        if _content(file, track, (b"mdia", b"hdlr"))[8:12] != b"pict":
            continue
        header = _content(file, track, (b"mdia", b"mdhd"))
        scale = struct.unpack_from(">I", header, 20 if header[0] else 12)[0]
        table = _content(file, track, (b"mdia", b"minf", b"stbl", b"stts"))
        durations: list[Fraction] = []
        for entry in range(struct.unpack_from(">I", table, 4)[0]):
            count, ticks = struct.unpack_from(">II", table, 8 + 8 * entry)
            if len(durations) + count > _MAX_FRAMES:
                return None
            durations += [_as_in_browsers(Fraction(ticks, scale or 1))] * count
        return FrameTimes("avif", tuple(durations), 0, size)
    return None


def _tracks(file: BinaryIO, size: int) -> Iterator[tuple[int, int]]:
    for kind, start, end in iterate_boxes(file, 0, size):
        if kind == b"moov":
            yield from ((first, last) for inner, first, last in iterate_boxes(file, start, end) if inner == b"trak")


def _content(file: BinaryIO, track: tuple[int, int], path: Sequence[bytes]) -> bytes:
    """The content of the box at `path` in a track; empty where there is none."""
    found = find_box(file, *track, path)
    if found is None:
        return b""
    file.seek(found[0])
    return file.read(found[1] - found[0])
