"""The message and error of a medium whose blurred copy may still show a face."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

from batchemo.records import MediaRow

FACES_LEFT = "faces_left"
"""`error` of a medium that is done, but whose copy must be checked before it is published."""

_BEGIN = "after blurring "
"""The beginning of the message, by which it is found and removed when the copy is drawn again."""

_JOINED_SECONDS = 1.0
"""Frames no further apart are reported as one time range."""

_MAX_RANGES = 6


def with_faces_left(row: MediaRow, times_s: Sequence[float]) -> MediaRow:
    """The row of a medium whose copy may show a face at each of `times_s` (one entry a face). A failed medium keeps its error."""
    row = without_faces_left(row)
    if not times_s:
        return row
    message = "; ".join(filter(None, [row.message, _message(row, times_s)]))
    return dataclasses.replace(row, message=message, error=FACES_LEFT if row.status == "done" else row.error)


def with_faces_left_of(row: MediaRow, other: MediaRow) -> MediaRow:
    """The row with the message of `other`, whose copy is kept."""
    _, found, rest = other.message.partition(_BEGIN)
    if not found:
        return row
    message = "; ".join(filter(None, [row.message, found + rest]))
    return dataclasses.replace(row, message=message, error=FACES_LEFT if row.status == "done" else row.error)


def without_faces_left(row: MediaRow) -> MediaRow:
    """The row without that message and error."""
    message = row.message.partition(_BEGIN)[0].removesuffix("; ")
    return dataclasses.replace(row, message=message, error="" if row.error == FACES_LEFT else row.error)


def _message(row: MediaRow, times_s: Sequence[float]) -> str:
    if row.kind == "image":
        faces = "a face" if len(times_s) == 1 else f"{len(times_s)} faces"
        return f"{_BEGIN}{faces} may be left in the picture; look at it before you publish"
    shown = sorted(set(times_s))
    frames = "one frame" if len(shown) == 1 else f"{len(shown)} frames"
    return f"{_BEGIN}a face may be left in {frames}, {_listed(_ranges(shown))}; look there before you publish"


def _ranges(shown_s: Sequence[float]) -> list[tuple[float, float]]:
    """First and last time of each range; the nearest ones are joined, so that there are at most `_MAX_RANGES`."""
    gaps = [later - earlier for earlier, later in itertools.pairwise(shown_s)]
    widest = sorted(range(len(gaps)), key=lambda index: -gaps[index])[: _MAX_RANGES - 1]
    ends = sorted(index for index in widest if gaps[index] > _JOINED_SECONDS)
    firsts, lasts = [0, *(index + 1 for index in ends)], [*ends, len(gaps)]
    return [(shown_s[first], shown_s[last]) for first, last in zip(firsts, lasts, strict=True)]


def _listed(ranges: Sequence[tuple[float, float]]) -> str:
    texts = [f"at {first:.2f} s" if f"{first:.2f}" == f"{last:.2f}" else f"at {first:.2f} to {last:.2f} s" for first, last in ranges]
    return " and ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))
