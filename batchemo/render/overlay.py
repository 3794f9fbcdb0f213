"""Draws what is known of a frame onto it: boxes, names and a small chart of probabilities for each face."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from batchemo.options import BlurStyle
from batchemo.palette import PANEL, QUIET, TROUGH, WHITE, Colour, colours, ink_on
from batchemo.records import OverlayData
from batchemo.render.blur import blur, blur_region
from batchemo.render.layout import BAR_EMS, Layout, PixelBox, PlacedFace, Sizes, chart_size, label_padding
from batchemo.render.text import blend, render_text
from batchemo.yuv import Planes

_PANEL_OPACITY = 0.76
_DASHES = 5
"""Along each side of the box of a face whose reading is uncertain."""


def draw_overlay(
    pixels: NDArray[np.uint8],
    faces: OverlayData,
    *,
    labels: Sequence[str],
    layout: Layout | None = None,
    time_s: float = 0.0,
    blur_style: BlurStyle = "pixels",
) -> NDArray[np.uint8]:
    """Returns a copy of `pixels` (RGB uint8 H x W x 3) with a box, a name and a chart for each of `faces`, and nobody to be recognized at
    the places that are `hidden`.

    `labels` name the columns of `faces.probabilities`. The name is the most probable label, its probability in percent and the
    number of the track; box and name have that label's colour, and each bar of the chart has its own. Where a face is uncertain, the box
    is dashed, and the name has a question mark and no ground of that colour. Charts keep clear of every face and of each other; a face
    beside which the picture has no room goes without one, and a picture smaller than a word gets boxes only. Frames of a video, at
    `time_s`, share a `layout`.

    Raises ValueError where `labels` and probabilities differ in number.
    """
    layout = layout or Layout(labels, width=pixels.shape[1], height=pixels.shape[0])
    marks = _place(faces, labels, layout, time_s)
    canvas = pixels.copy()
    blur(canvas, faces.hidden, style=blur_style)
    _paint(canvas, marks, colours(labels), layout)
    return canvas


class OverlayPainter:
    """Draws the same onto the planes of a video's frames, which share a `layout`; only what is drawn on is turned into colours and back."""

    def __init__(self, labels: Sequence[str], layout: Layout, *, blur_style: BlurStyle = "pixels") -> None:
        self._labels = labels
        self._layout = layout
        self._blur_style: BlurStyle = blur_style
        _, _, width, height = layout.picture
        self._canvas = np.empty((height + height % 2, width + width % 2, 3), np.uint8)

    def draw(self, planes: Planes, faces: OverlayData, *, time_s: float) -> None:
        """Onto `planes`, which may be larger than the layout's picture at the right and below. Raises ValueError as `draw_overlay` does."""
        marks = _place(faces, self._labels, self._layout, time_s)
        areas = [_even(area) for area in _drawn_on(faces.hidden, marks, self._layout) if area.size]
        for area in areas:
            _part(self._canvas, area)[:] = planes.rgb(*area)
        _, _, width, height = self._layout.picture
        picture = self._canvas[:height, :width]
        blur(picture, faces.hidden, style=self._blur_style)
        _paint(picture, marks, colours(self._labels), self._layout)
        self._canvas[height:], self._canvas[:, width:] = self._canvas[height - 1], self._canvas[:, width - 1 : width]
        for area in areas:
            planes.put(_part(self._canvas, area), area.left, area.top)


def _place(faces: OverlayData, labels: Sequence[str], layout: Layout, time_s: float) -> list[PlacedFace]:
    if len(faces) and faces.probabilities.shape[1] != len(labels):
        raise ValueError(f"{len(labels)} labels for {faces.probabilities.shape[1]} probabilities")
    return layout.place(faces, time_s=time_s)


def _drawn_on(hidden: NDArray[np.float32], marks: Sequence[PlacedFace], layout: Layout) -> Iterator[PixelBox]:
    """Where anything is changed."""
    _, _, width, height = layout.picture
    for box in hidden:
        yield PixelBox(*blur_region(box, width=width, height=height))
    line = layout.sizes.frame
    for mark in marks:
        left, top, right, bottom = mark.box
        yield PixelBox(left, top, right, min(bottom, top + line))
        yield PixelBox(left, max(top, bottom - line), right, bottom)
        yield PixelBox(left, top, min(right, left + line), bottom)
        yield PixelBox(max(left, right - line), top, right, bottom)
        yield from (area for area in (mark.chart, mark.chip) if area is not None)


def _even(area: PixelBox) -> PixelBox:
    """The smallest around it whose corners are even."""
    return PixelBox(area.left // 2 * 2, area.top // 2 * 2, -(-area.right // 2) * 2, -(-area.bottom // 2) * 2)


def _part(canvas: NDArray[np.uint8], area: PixelBox) -> NDArray[np.uint8]:
    return canvas[area.top : area.bottom, area.left : area.right]


def _paint(canvas: NDArray[np.uint8], marks: Sequence[PlacedFace], palette: Sequence[Colour], layout: Layout) -> None:
    for mark in marks:
        _draw_box(canvas, mark, palette[mark.best], layout.sizes)
    for mark in marks:
        if mark.chart is not None:
            _draw_chart(canvas, mark.chart, mark, palette, layout.names, layout.sizes)
    for mark in marks:
        if mark.chip is not None:
            _draw_chip(canvas, mark.chip, mark, palette[mark.best], layout.sizes)


def _draw_box(canvas: NDArray[np.uint8], mark: PlacedFace, colour: Colour, sizes: Sizes) -> None:
    _frame(canvas, mark.box, sizes.frame, PANEL)
    inner = PixelBox(mark.box.left + sizes.edge, mark.box.top + sizes.edge, mark.box.right - sizes.edge, mark.box.bottom - sizes.edge)
    inner = inner if inner.size else mark.box
    if mark.uncertain:
        _dashes(canvas, inner, sizes.line, colour)
    else:
        _frame(canvas, inner, sizes.line, colour)


def _frame(canvas: NDArray[np.uint8], area: PixelBox, line: int, colour: Colour) -> None:
    region = _part(canvas, area)
    region[:line] = region[-line:] = colour
    region[:, :line] = region[:, -line:] = colour


def _dashes(canvas: NDArray[np.uint8], area: PixelBox, line: int, colour: Colour) -> None:
    """A frame of `_DASHES` pieces a side, which begin and end at its corners."""
    region = _part(canvas, area)
    for sides in (region, region.swapaxes(0, 1)):
        borders = np.linspace(0, sides.shape[1], 2 * _DASHES).round().astype(int).tolist()
        for start, end in zip(borders[::2], borders[1::2], strict=True):
            sides[:line, start:end] = sides[-line:, start:end] = colour


def _draw_chip(canvas: NDArray[np.uint8], chip: PixelBox, mark: PlacedFace, colour: Colour, sizes: Sizes) -> None:
    region = _part(canvas, chip)
    pad = label_padding(mark.chip_size)
    if mark.uncertain:
        region[:] = PANEL
        region[-max(1, sizes.line // 2) :] = colour
    else:
        region[:] = colour
    ground, ink = (PANEL, WHITE) if mark.uncertain else (colour, ink_on(colour))
    left = pad
    for word in mark.chip_words:
        text = _on_ground(word, mark.chip_size, ground, ink)
        region[pad // 4 : pad // 4 + text.shape[0], left : left + text.shape[1]] = text
        left += text.shape[1] + pad


@functools.lru_cache(maxsize=1024)
def _on_ground(word: str, size: int, ground: Colour, ink: Colour) -> NDArray[np.uint8]:
    """A word on one colour, ready to be laid down: names change less often than frames."""
    mask = render_text(word, size)
    patch = np.empty((*mask.shape, 3), np.uint8)
    patch[:] = ground
    blend(patch, mask, 0, 0, ink)
    patch.setflags(write=False)
    return patch


def _draw_chart(
    canvas: NDArray[np.uint8], chart: PixelBox, mark: PlacedFace, palette: Sequence[Colour], names: tuple[str, ...], sizes: Sizes
) -> None:
    best = mark.best
    keep, add = _backdrop(names, best, sizes)
    region = _part(canvas, chart)
    region[:] = cv2.add(cv2.multiply(region, keep, scale=1 / 255), add)
    region[:, : sizes.stripe] = palette[best]
    for index, probability in enumerate(mark.probabilities.tolist()):
        trough = _trough(names, index, sizes)
        if index == best:
            trough = trough._replace(top=trough.top - sizes.edge, bottom=trough.bottom + sizes.edge)
        _draw_bar(region, trough, min(max(probability, 0.0), 1.0), palette[index])


def _draw_bar(region: NDArray[np.uint8], trough: PixelBox, share: float, colour: Colour) -> None:
    """Its end covers a pixel in part, so that a running chart glides rather than jumps."""
    length = share * (trough.right - trough.left)
    end = trough.left + int(length)
    region[trough.top : trough.bottom, trough.left : end] = colour
    if end < trough.right:
        tip = region[trough.top : trough.bottom, end]
        tip[:] = tip + (np.asarray(colour, np.float32) - tip) * (length % 1)


@functools.lru_cache(maxsize=64)
def _backdrop(names: tuple[str, ...], best: int, sizes: Sizes) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A chart without its bars, the name of the `best` brighter, as `keep` and `add` (uint8 H x W x 3): the picture times `keep` / 255,
    plus `add`."""
    width, height = chart_size(names, sizes)
    opacity = np.full((height, width, 1), _PANEL_OPACITY)
    colour = np.full((height, width, 3), PANEL, np.float64)
    for index, name in enumerate(names):
        trough = _trough(names, index, sizes)
        colour[trough.top : trough.bottom, trough.left : trough.right] = TROUGH
        left, top = _text_place(names, index, sizes)
        text = render_text(name, sizes.chart_text)[: height - top, :, None] / 255
        here = slice(top, top + text.shape[0]), slice(left, left + text.shape[1])
        colour[here] += (np.array(WHITE if index == best else QUIET) - colour[here]) * text
        opacity[here] += (1 - opacity[here]) * text
    keep = np.rint(255 * (1 - opacity)).astype(np.uint8).repeat(3, axis=2)
    add = np.rint(colour * opacity).astype(np.uint8)
    keep.setflags(write=False)
    add.setflags(write=False)
    return keep, add


def _text_place(names: tuple[str, ...], index: int, sizes: Sizes) -> tuple[int, int]:
    pad, row = sizes.chart_pad, sizes.row
    spare = row - render_text(names[index], sizes.chart_text).shape[0]
    return sizes.stripe + pad, max(0, pad + index * row + spare // 2)


@functools.lru_cache(maxsize=256)
def _trough(names: tuple[str, ...], index: int, sizes: Sizes) -> PixelBox:
    """Where the bar of a label lies within its chart."""
    pad, row = sizes.chart_pad, sizes.row
    width, _ = chart_size(names, sizes)
    thickness = max(3, round(sizes.chart_text * 0.4))
    top = pad + index * row + (row - thickness) // 2
    return PixelBox(width - pad - round(sizes.chart_text * BAR_EMS), top, width - pad, top + thickness)
