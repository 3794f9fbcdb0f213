"""Draws what is known of a frame onto its pixels: boxes, names and a small chart of probabilities for each face."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from batchemo.palette import Colour, colours
from batchemo.records import Marks

_BLACK: Colour = (0, 0, 0)
_WHITE: Colour = (255, 255, 255)
_QUIET: Colour = (214, 214, 214)
_PANEL: Colour = (18, 20, 24)
_PANEL_OPACITY = 0.76
_TROUGH: Colour = (44, 46, 50)
_SMALLEST_TEXT = 10
_LONGEST_LABEL_EMS = 8
_BAR_EMS = 5.2
_SELF_COVER = 0.1
"""Share of its own face's box that a chart may hide where the picture has no other place, as in a close-up."""


class _Area(NamedTuple):
    """Whole pixels, right and bottom excluded."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def size(self) -> int:
        return max(self.right - self.left, 0) * max(self.bottom - self.top, 0)

    def inside(self, other: _Area) -> bool:
        return self.left >= other.left and self.top >= other.top and self.right <= other.right and self.bottom <= other.bottom


@dataclasses.dataclass(frozen=True, slots=True)
class _Sizes:
    """Everything in pixels, derived from the picture's shorter side, which is the height of most videos."""

    text: int
    chart_text: int
    line: int
    edge: int
    gap: int

    @classmethod
    def of(cls, picture: _Area) -> _Sizes:
        unit = min(picture.right, picture.bottom) / 360
        return cls(
            text=max(_SMALLEST_TEXT, round(12 * unit)),
            chart_text=max(_SMALLEST_TEXT, round(11 * unit)),
            line=max(1, round(2 * unit)),
            edge=max(1, round(0.6 * unit)),
            gap=max(2, round(5 * unit)),
        )

    def name_text(self, box: _Area) -> int:
        """Names of small faces are smaller, down to .6, or those of a crowd would hide it."""
        return max(_SMALLEST_TEXT, round(0.6 * self.text), min(self.text, round(0.3 * (box.right - box.left))))


@dataclasses.dataclass(frozen=True, slots=True)
class _Mark:
    """One face as it will be drawn. `chip` and `chart` are None where the picture has no room for them."""

    box: _Area
    colour: Colour
    probabilities: NDArray[np.float32]
    chip_texts: tuple[NDArray[np.uint8], ...]
    chip: _Area | None
    chart: _Area | None = None


def draw(pixels: NDArray[np.uint8], faces: Marks, *, labels: Sequence[str]) -> NDArray[np.uint8]:
    """Returns a copy of `pixels` (RGB uint8 H x W x 3) with a box, a name and a chart for each of `faces`.

    `labels` name the columns of `faces.probabilities`. The name is the most probable label, its probability in percent and the
    number of the track; box and name have that label's colour, and each bar of the chart has its own. Charts keep clear of every face
    and of each other; a face beside which the picture has no room goes without one, and a picture smaller than a word gets boxes only.

    Raises ValueError where `labels` and probabilities differ in number.
    """
    if len(faces) and faces.probabilities.shape[1] != len(labels):
        raise ValueError(f"{len(labels)} labels for {faces.probabilities.shape[1]} probabilities")
    canvas = pixels.copy()
    picture = _Area(0, 0, canvas.shape[1], canvas.shape[0])
    sizes = _Sizes.of(picture)
    names = tuple(_readable(label) for label in labels)
    marks = _with_charts(_with_chips(faces, names, picture, sizes), names, picture, sizes)
    for mark in marks:
        _draw_box(canvas, mark, sizes)
    for mark in marks:
        if mark.chart is not None:
            _draw_chart(canvas, mark.chart, mark, names, sizes)
    for mark in marks:
        if mark.chip is not None:
            _draw_chip(canvas, mark.chip, mark)
    return canvas


# Placing


def _with_chips(faces: Marks, names: tuple[str, ...], picture: _Area, sizes: _Sizes) -> list[_Mark]:
    boxes = [_pixels_of(box, picture) for box in faces.boxes]
    palette = colours(names)
    marks: list[_Mark] = []
    for index, box in enumerate(boxes):
        if not box.size:
            continue
        probabilities, track_id = faces.probabilities[index], int(faces.track_ids[index])
        best = int(probabilities.argmax())
        words = (names[best], f"{probabilities[best]:.0%}", f"#{track_id}")
        taken = [*boxes[:index], *boxes[index + 1 :], *(mark.chip for mark in marks if mark.chip is not None)]
        texts, chip = _place_chip(box, words, picture, taken, sizes.name_text(box))
        marks.append(_Mark(box, palette[best], probabilities, texts, chip))
    return marks


def _pixels_of(box: NDArray[np.float32], picture: _Area) -> _Area:
    left, right = np.clip(np.rint(box[[0, 2]]), 0, picture.right).astype(int).tolist()
    top, bottom = np.clip(np.rint(box[[1, 3]]), 0, picture.bottom).astype(int).tolist()
    return _Area(left, top, right, bottom)


def _place_chip(
    box: _Area, words: tuple[str, ...], picture: _Area, taken: list[_Area], size: int
) -> tuple[tuple[NDArray[np.uint8], ...], _Area | None]:
    """Where least is hidden, with as many of "happy 87% #2" as that allows; no chip where the picture is too small for a word."""
    choices = []
    for count in range(len(words), 0, -1):
        texts = tuple(_text(word, size) for word in words[:count])
        width, height = _chip_shape(texts)
        if width <= picture.right and height <= picture.bottom:
            choices += [(texts, place) for place in _chip_places(box, width, height, picture)]
    if not choices:
        return (), None
    return choices[int(_overlaps([place for _, place in choices], taken).sum(axis=1).argmin())]


def _chip_places(box: _Area, width: int, height: int, picture: _Area) -> list[_Area]:
    """Above, below, and inside the box at its top and bottom, as far as they lie in the picture."""
    left = min(box.left, picture.right - width)
    places = [_Area(left, top, left + width, top + height) for top in (box.top - height, box.bottom, box.top, box.bottom - height)]
    clamped = min(box.top, picture.bottom - height)
    return [place for place in places if place.inside(picture)] or [_Area(left, clamped, left + width, clamped + height)]


def _chip_shape(texts: tuple[NDArray[np.uint8], ...]) -> tuple[int, int]:
    pad = _chip_pad(texts)
    return sum(int(text.shape[1]) + pad for text in texts) + pad, int(texts[0].shape[0]) + 2 * (pad // 4)


def _chip_pad(texts: tuple[NDArray[np.uint8], ...]) -> int:
    return max(2, round(0.3 * int(texts[0].shape[0])))


def _with_charts(marks: list[_Mark], names: tuple[str, ...], picture: _Area, sizes: _Sizes) -> list[_Mark]:
    if not marks:
        return marks
    shape = _chart_shape(names, sizes)
    boxes = [mark.box for mark in marks]
    taken = [mark.chip for mark in marks if mark.chip is not None]
    placed = []
    for index, mark in enumerate(marks):
        places = [place for place in _chart_places(mark, shape, picture, sizes.gap) if place.inside(picture)]
        chart = _place_chart(places, index, boxes, taken)
        if chart is not None:
            taken.append(chart)
        placed.append(dataclasses.replace(mark, chart=chart))
    return placed


def _place_chart(places: list[_Area], index: int, boxes: list[_Area], taken: list[_Area]) -> _Area | None:
    """The first place that hides nothing, or else little of its own face alone; None where there is none.

    A chart nearer to another face than to its own would be read as the other's.
    """
    gaps = _gaps(places, boxes)
    others = [*boxes[:index], *boxes[index + 1 :], *taken]
    good = (gaps[:, index] == gaps.min(axis=1)) & (_overlaps(places, others).sum(axis=1) == 0)
    hidden = _overlaps(places, [boxes[index]])[:, 0]
    least = min(np.flatnonzero(good).tolist(), key=hidden.tolist().__getitem__, default=None)
    return places[least] if least is not None and hidden[least] <= _SELF_COVER * boxes[index].size else None


def _overlaps(places: list[_Area], others: list[_Area]) -> NDArray[np.int64]:
    """Pixels that each of N places shares with each of M others, N x M."""
    one, other = _corners(places)[:, None], _corners(others)[None]
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    return np.asarray(sides.clip(min=0).prod(axis=2))


def _gaps(places: list[_Area], others: list[_Area]) -> NDArray[np.int64]:
    """Distance of each of N places to each of M others along the farther axis, 0 where they touch; N x M."""
    one, other = _corners(places)[:, None], _corners(others)[None]
    return np.asarray(np.maximum(one[..., :2] - other[..., 2:], other[..., :2] - one[..., 2:]).max(axis=2).clip(min=0))


def _corners(areas: list[_Area]) -> NDArray[np.int64]:
    return np.array(areas, np.int64).reshape(-1, 4)


def _chart_places(mark: _Mark, shape: tuple[int, int], picture: _Area, gap: int) -> Iterator[_Area]:
    """Places to try, best first: right, left, below and above the face, then along the picture's edge."""
    width, height = shape
    right_edge, bottom_edge = picture.right - width, picture.bottom - height
    box = mark.box
    chip = mark.chip or box
    tops = [min(max(top, 0), bottom_edge) for top in (box.top, box.bottom - height)]
    lefts = [min(max(left, 0), right_edge) for left in (box.left, box.right - width)]
    beside = [(left, top) for left in (box.right + gap, box.left - gap - width) for top in tops]
    beyond = [(left, top) for top in (max(box.bottom, chip.bottom) + gap, min(box.top, chip.top) - gap - height) for left in lefts]
    edges = [(left, top) for left in (right_edge - gap, gap) for top in (*tops, bottom_edge - gap, gap)]
    for left, top in (*beside, *beyond, *edges):
        yield _Area(left, top, left + width, top + height)


# Drawing


def _draw_box(canvas: NDArray[np.uint8], mark: _Mark, sizes: _Sizes) -> None:
    _frame(canvas, mark.box, sizes.line + 2 * sizes.edge, _PANEL)
    inner = _Area(mark.box.left + sizes.edge, mark.box.top + sizes.edge, mark.box.right - sizes.edge, mark.box.bottom - sizes.edge)
    _frame(canvas, inner if inner.size else mark.box, sizes.line, mark.colour)


def _frame(canvas: NDArray[np.uint8], area: _Area, line: int, colour: Colour) -> None:
    region = canvas[area.top : area.bottom, area.left : area.right]
    region[:line] = region[-line:] = colour
    region[:, :line] = region[:, -line:] = colour


def _draw_chip(canvas: NDArray[np.uint8], chip: _Area, mark: _Mark) -> None:
    canvas[chip.top : chip.bottom, chip.left : chip.right] = mark.colour
    ink = _ink_on(mark.colour)
    pad = _chip_pad(mark.chip_texts)
    left = chip.left + pad
    for text in mark.chip_texts:
        _blend(canvas, text, left, chip.top + pad // 4, ink)
        left += text.shape[1] + pad


def _ink_on(colour: Colour) -> Colour:
    """Black or white, whichever has more contrast (relative luminance and ratio of WCAG 2.2)."""
    linear = [(value / 255 / 12.92) if value <= 10 else ((value / 255 + 0.055) / 1.055) ** 2.4 for value in colour]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return _BLACK if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else _WHITE


@functools.lru_cache(maxsize=16)
def _chart_shape(names: tuple[str, ...], sizes: _Sizes) -> tuple[int, int]:
    column = max(_text(name, sizes.chart_text).shape[1] for name in names)
    pad = _chart_pad(sizes)
    return _stripe(sizes) + column + round(sizes.chart_text * _BAR_EMS) + 3 * pad, len(names) * _row(sizes) + 2 * pad


def _stripe(sizes: _Sizes) -> int:
    return sizes.line + sizes.edge


def _chart_pad(sizes: _Sizes) -> int:
    return max(2, round(sizes.chart_text * 0.5))


def _row(sizes: _Sizes) -> int:
    return round(sizes.chart_text * 1.22)


def _draw_chart(canvas: NDArray[np.uint8], chart: _Area, mark: _Mark, names: tuple[str, ...], sizes: _Sizes) -> None:
    keep, add = _backdrop(names, sizes)
    region = canvas[chart.top : chart.bottom, chart.left : chart.right]
    region[:] = cv2.add(cv2.multiply(region, keep, scale=1 / 255), add)
    region[:, : _stripe(sizes)] = mark.colour
    best, palette = int(mark.probabilities.argmax()), colours(names)
    _blend(region, _text(names[best], sizes.chart_text), *_text_place(names, best, sizes), _WHITE)
    for index, probability in enumerate(mark.probabilities.tolist()):
        trough = _trough(names, index, sizes)
        if index == best:
            trough = trough._replace(top=trough.top - sizes.edge, bottom=trough.bottom + sizes.edge)
        _draw_bar(region, trough, min(max(probability, 0.0), 1.0), palette[index])


def _draw_bar(region: NDArray[np.uint8], trough: _Area, share: float, colour: Colour) -> None:
    """Its end covers a pixel in part, so that a running chart glides rather than jumps."""
    length = share * (trough.right - trough.left)
    end = trough.left + int(length)
    region[trough.top : trough.bottom, trough.left : end] = colour
    if end < trough.right:
        tip = np.full((trough.bottom - trough.top, 1), round(255 * (length % 1)), np.uint8)
        _blend(region, tip, end, trough.top, colour)


@functools.lru_cache(maxsize=16)
def _backdrop(names: tuple[str, ...], sizes: _Sizes) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A chart without its bars, as `keep` and `add` (uint8 H x W x 3): the picture times `keep` / 255, plus `add`."""
    width, height = _chart_shape(names, sizes)
    opacity = np.full((height, width, 1), _PANEL_OPACITY)
    colour = np.full((height, width, 3), _PANEL, np.float64)
    for index, name in enumerate(names):
        trough = _trough(names, index, sizes)
        colour[trough.top : trough.bottom, trough.left : trough.right] = _TROUGH
        left, top = _text_place(names, index, sizes)
        text = _text(name, sizes.chart_text)[: height - top, :, None] / 255
        here = slice(top, top + text.shape[0]), slice(left, left + text.shape[1])
        colour[here] += (np.array(_QUIET) - colour[here]) * text
        opacity[here] += (1 - opacity[here]) * text
    keep = np.rint(255 * (1 - opacity)).astype(np.uint8).repeat(3, axis=2)
    add = np.rint(colour * opacity).astype(np.uint8)
    keep.setflags(write=False)
    add.setflags(write=False)
    return keep, add


def _text_place(names: tuple[str, ...], index: int, sizes: _Sizes) -> tuple[int, int]:
    pad, row = _chart_pad(sizes), _row(sizes)
    spare = row - _text(names[index], sizes.chart_text).shape[0]
    return _stripe(sizes) + pad, max(0, pad + index * row + spare // 2)


def _trough(names: tuple[str, ...], index: int, sizes: _Sizes) -> _Area:
    """Where the bar of a label lies within its chart."""
    pad, row = _chart_pad(sizes), _row(sizes)
    width, _ = _chart_shape(names, sizes)
    thickness = max(3, round(sizes.chart_text * 0.4))
    top = pad + index * row + (row - thickness) // 2
    return _Area(width - pad - round(sizes.chart_text * _BAR_EMS), top, width - pad, top + thickness)


def _blend(canvas: NDArray[np.uint8], mask: NDArray[np.uint8], left: int, top: int, colour: Colour) -> None:
    """Lays `colour` over `canvas` as far as `mask` (H x W, 255 is opaque) says; what lies outside is cut off."""
    region = canvas[top : top + mask.shape[0], left : left + mask.shape[1]]
    alpha = mask[: region.shape[0], : region.shape[1], None].astype(np.uint16)
    alpha += alpha >> 7  # 0 to 256, so that a shift divides
    region[:] = (region * (256 - alpha) + np.asarray(colour, np.uint16) * alpha) >> 8


# Text


def _readable(label: str) -> str:
    """Labels come with weights: line breaks, control characters and lone surrogates would upset layout or Pillow."""
    return "".join(character if character.isprintable() else "?" for character in label)


@functools.lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow lacks FreeType, so no text can be drawn; install it again with: pip install --force-reinstall pillow")
    return font


@functools.lru_cache(maxsize=1024)
def _text(words: str, size: int) -> NDArray[np.uint8]:
    """Coverage of `words` on one line, uint8, as high as the font's line; cut with dots where wider than a label may be."""
    font = _font(size)
    widest = _LONGEST_LABEL_EMS * size
    if font.getlength(words) > widest:
        while words and font.getlength(words + "...") > widest:
            words = words[:-1]
        words += "..."
    ascent, descent = font.getmetrics()
    left, _, right, _ = font.getbbox(words, anchor="ls")
    picture = Image.new("L", (max(1, math.ceil(right) - math.floor(min(left, 0))), ascent + descent))
    ImageDraw.Draw(picture).text((-math.floor(min(left, 0)), ascent), words, fill=255, font=font, anchor="ls")
    mask = np.array(picture)
    mask.setflags(write=False)
    return mask
