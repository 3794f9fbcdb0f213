"""Draws test pictures that state their frame number, track and orientation, and reads them.

In the middle is a white square of 5 x 5 black or white cells. Six of them are fixed and identify the eight orientations; the other 19
encode frame number, track and a checksum. The corners have different colours; an arrow points up, and the number is also written in digits,
for people.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
"""RGB, H x W x 3."""

Orientation = Literal["upright", "turn_right", "turn_over", "turn_left", "mirror", "mirror_down", "transpose", "transverse"]

MATRICES: dict[Orientation, tuple[int, int, int, int]] = {
    "upright": (1, 0, 0, 1),
    "turn_right": (0, 1, -1, 0),
    "turn_over": (-1, 0, 0, -1),
    "turn_left": (0, -1, 1, 0),
    "mirror": (-1, 0, 0, 1),
    "mirror_down": (1, 0, 0, -1),
    "transpose": (0, 1, 1, 0),
    "transverse": (0, -1, -1, 0),
}
"""a, b, c, d of the display matrix (ISO/IEC 14496-12, 8.3.2): the stored point (p, q) is presented at (a p + c q, b p + d q)."""

CORNERS = {"top_left": (190, 40, 40), "top_right": (40, 150, 40), "bottom_left": (50, 50, 200), "bottom_right": (180, 165, 40)}
GREY, WHITE, BLACK = 110, 235, 20
HIDDEN = (220, 0, 220)
"""Colour of areas that a crop hides."""

MOST_NUMBER, MOST_TRACK = 1023, 3
_CELLS = 5
_SQUARE = 0.78
"""Side of the white square, as a fraction of the picture's shorter side."""
_QUIET = 0.1
"""White margin around the cells, as a fraction of the square's side."""
_CORNER = 0.1
"""Side of the coloured corners, as a fraction of the picture's shorter side."""
_FIXED = {(0, 0): 1, (0, 4): 0, (4, 0): 0, (4, 4): 0, (0, 2): 1, (2, 0): 0}
"""Cells (row, column) that are black (1) or white (0) in every picture; all eight orientations of them differ."""
_FREE = [(row, column) for row in range(_CELLS) for column in range(_CELLS) if (row, column) not in _FIXED]
_FINER = 4
"""Supersampling factor."""


class UnreadableError(Exception):
    """The picture does not state its number."""


@dataclasses.dataclass(frozen=True, slots=True)
class Read:
    """What a picture states. `orientation` is what was done to the upright picture, `aspect` the width of the square by its height,
    `box` its left, top, width and height in px."""

    number: int
    track: int
    orientation: Orientation
    aspect: float
    box: tuple[float, float, float, float]


def draw(number: int, width: int, height: int, *, track: int = 0) -> Picture:
    """The upright picture of frame `number` of `track`, with square pixels."""
    if not (0 <= number <= MOST_NUMBER and 0 <= track <= MOST_TRACK):
        raise ValueError(f"number {number}, track {track}")
    canvas = np.full((height * _FINER, width * _FINER, 3), GREY, np.uint8)
    high, wide = canvas.shape[:2]
    side, corner = (int(share * min(high, wide)) for share in (_SQUARE, _CORNER))
    for name, colour in CORNERS.items():
        rows = slice(0, corner) if name.startswith("top") else slice(high - corner, high)
        columns = slice(0, corner) if name.endswith("left") else slice(wide - corner, wide)
        canvas[rows, columns] = colour
    left, top = (wide - side) // 2, (high - side) // 2
    canvas[top : top + side, left : left + side] = WHITE
    _draw_cells(canvas[top : top + side, left : left + side], _cells(number, track))
    _draw_for_people(canvas, number, left, top)
    return np.asarray(cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def show(stored: Picture, orientation: Orientation) -> Picture:
    """What a player presents of a stored picture with the display matrix of `orientation`."""
    a, b, c, d = MATRICES[orientation]
    turned = stored if a else stored.transpose(1, 0, 2)
    down, right = (d, a) if a else (b, c)
    return np.ascontiguousarray(turned[::down, ::right])


def store(shown: Picture, orientation: Orientation) -> Picture:
    """The stored picture from which `show` makes `shown`."""
    a, b, c, d = MATRICES[orientation]
    down, right = (d, a) if a else (b, c)
    flipped = shown[::down, ::right]
    return np.ascontiguousarray(flipped if a else flipped.transpose(1, 0, 2))


def read(pixels: Picture) -> Read:
    """Raises UnreadableError where the picture has no readable cells, or the checksum is wrong."""
    grey = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.float64)
    left, top, width, height = _find_square(grey)
    seen = _see_cells(grey, left, top, width, height)
    for orientation in MATRICES:
        cells = store(np.repeat(seen[:, :, None], 3, axis=2).astype(np.uint8), orientation)[:, :, 0]
        if all(cells[place] == black for place, black in _FIXED.items()):
            number, track = _decode(cells)
            return Read(number, track, orientation, width / height, (left, top, width, height))
    raise UnreadableError("the cells that are always the same are in no orientation what they should be")


def _cells(number: int, track: int) -> Picture:
    cells = np.zeros((_CELLS, _CELLS), np.uint8)
    for place, black in _FIXED.items():
        cells[place] = black
    value = number | track << 10 | _check(number, track) << 12
    for bit, place in enumerate(_FREE):
        cells[place] = value >> bit & 1
    return cells


def _check(number: int, track: int) -> int:
    return (number * 37 + track * 53 + 11) % 127


def _decode(cells: Picture) -> tuple[int, int]:
    value = sum(int(cells[place]) << bit for bit, place in enumerate(_FREE))
    number, track, check = value & 1023, value >> 10 & 3, value >> 12
    if check != _check(number, track):
        raise UnreadableError(f"the number {number} of track {track} does not agree with its sum")
    return number, track


def _draw_cells(square: Picture, cells: Picture) -> None:
    side = len(square)
    edges = [round(side * (_QUIET + (1 - 2 * _QUIET) * step / _CELLS)) for step in range(_CELLS + 1)]
    for row, column in np.argwhere(cells):
        square[edges[row] : edges[row + 1], edges[column] : edges[column + 1]] = BLACK


def _draw_for_people(canvas: Picture, number: int, left: int, top: int) -> None:
    """The arrow and the number, in the wider margins beside the square."""
    high, wide = canvas.shape[:2]
    room = max(left, top)
    arrow, text = (
        ((room // 2, high // 2), (wide - room // 2, high // 2)) if left >= top else ((wide // 2, room // 2), (wide // 2, high - room // 2))
    )
    reach = max(4, int(room * 0.35))
    tip, foot = (arrow[0], arrow[1] - reach), (arrow[0], arrow[1] + reach)
    cv2.arrowedLine(canvas, foot, tip, (30, 30, 120), max(2, room // 10), tipLength=0.5)
    scale = room / 70
    (across, up), _ = cv2.getTextSize(str(number), cv2.FONT_HERSHEY_SIMPLEX, scale, max(1, room // 16))
    place = (text[0] - across // 2, text[1] + up // 2)
    cv2.putText(canvas, str(number), place, cv2.FONT_HERSHEY_SIMPLEX, scale, (20, 20, 20), max(1, room // 16))


def _find_square(grey: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Left, top, width and height of the white square, with subpixel accuracy."""
    bright = (grey > grey.max() * (GREY + WHITE) / 2 / WHITE).astype(np.uint8)
    count, _, boxes, _ = cv2.connectedComponentsWithStats(bright)
    if count < 2:
        raise UnreadableError("no white square")
    left, top, width, height = (int(value) for value in boxes[1 + int(np.argmax(boxes[1:, 2] * boxes[1:, 3])), :4])
    if min(width, height) < 20:
        raise UnreadableError(f"the white square has {width} x {height} pixels")
    rows, columns = (slice(start + size // 10, start + size - size // 10) for start, size in ((top, height), (left, width)))
    across, down = grey[rows].mean(axis=0), grey[:, columns].mean(axis=1)
    first_x, last_x = _edge(across, left), len(across) - _edge(across[::-1], len(across) - left - width)
    first_y, last_y = _edge(down, top), len(down) - _edge(down[::-1], len(down) - top - height)
    return first_x, first_y, last_x - first_x, last_y - first_y


def _edge(profile: NDArray[np.float64], place: int) -> float:
    """Position of the edge between grey and white near `place`, interpolated from the pixels around it."""
    start, stop = max(0, place - 2), min(len(profile), place + 3)
    around = profile[start:stop]
    outside, inside = around[0], around[-1]
    if inside - outside < 10:
        return float(place)
    return float(stop - ((around - outside) / (inside - outside)).clip(0, 1).sum())


def _see_cells(grey: NDArray[np.float64], left: float, top: float, width: float, height: float) -> Picture:
    seen = np.zeros((_CELLS, _CELLS), np.uint8)
    # Between the white around the cells and the black of those that are always there.
    middle = (grey[round(top + height * 0.05), round(left + width * 0.5)] + grey.min()) / 2
    for row in range(_CELLS):
        for column in range(_CELLS):
            y, x = (
                start + size * (_QUIET + (1 - 2 * _QUIET) * (cell + 0.5) / _CELLS)
                for start, size, cell in ((top, height, row), (left, width, column))
            )
            reach_y, reach_x = height * 0.04, width * 0.04
            part = grey[
                round(y - reach_y) : max(round(y - reach_y) + 1, round(y + reach_y)),
                round(x - reach_x) : max(round(x - reach_x) + 1, round(x + reach_x)),
            ]
            seen[row, column] = part.mean() < middle
    return seen
