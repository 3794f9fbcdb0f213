"""Draws the overlay of a frame: bounding boxes, labels and probability charts of its faces."""

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
_DASHES_PER_SIDE = 5
"""Of the box of a face whose emotion is uncertain."""


def draw_overlay(
    pixels: NDArray[np.uint8],
    faces: OverlayData,
    *,
    labels: Sequence[str],
    layout: Layout | None = None,
    time_s: float = 0.0,
    blur_style: BlurStyle = "pixels",
) -> NDArray[np.uint8]:
    """Returns a copy of `pixels` (RGB uint8 H x W x 3) with a box, a label and a chart for each of `faces`, and with `faces.hidden`
    blurred.

    - `labels` name the columns of `faces.probabilities`. A label shows the most probable of them, its probability in percent and the
      track's number. Box and label have its colour; each bar of the chart has its own.
    - Where the emotion is uncertain, the box is dashed, and the label has a question mark and a neutral background.
    - Charts keep clear of all faces and of each other. A face without room beside it gets none; a picture smaller than a word gets boxes
      only.
    - The frames of a video share a `layout`; `time_s` is the frame's time.

    Raises ValueError where `labels` and probabilities differ in number.
    """
    layout = layout or Layout(labels, width=pixels.shape[1], height=pixels.shape[0])
    placed = _place(faces, labels, layout, time_s)
    canvas = pixels.copy()
    blur(canvas, faces.hidden, style=blur_style)
    _paint(canvas, placed, colours(labels), layout)
    return canvas


class OverlayPainter:
    """Draws the same onto the YUV planes of a video's frames, which share a `layout`. Only the changed areas are converted to RGB and
    back."""

    def __init__(self, labels: Sequence[str], layout: Layout, *, blur_style: BlurStyle = "pixels") -> None:
        self._labels = labels
        self._layout = layout
        self._blur_style: BlurStyle = blur_style
        _, _, width, height = layout.picture
        self._canvas = np.empty((height + height % 2, width + width % 2, 3), np.uint8)

    def draw(self, planes: Planes, faces: OverlayData, *, time_s: float) -> None:
        """Draws onto `planes`, which may extend beyond the layout's picture at the right and bottom. Raises ValueError as `draw_overlay`
        does."""
        placed = _place(faces, self._labels, self._layout, time_s)
        areas = [_with_even_corners(area) for area in _changed_areas(faces.hidden, placed, self._layout) if area.area]
        for area in areas:
            _region(self._canvas, area)[:] = planes.get_rgb(*area)
        _, _, width, height = self._layout.picture
        picture = self._canvas[:height, :width]
        blur(picture, faces.hidden, style=self._blur_style)
        _paint(picture, placed, colours(self._labels), self._layout)
        self._canvas[height:], self._canvas[:, width:] = self._canvas[height - 1], self._canvas[:, width - 1 : width]
        for area in areas:
            planes.set_rgb(_region(self._canvas, area), area.left, area.top)


def _place(faces: OverlayData, labels: Sequence[str], layout: Layout, time_s: float) -> list[PlacedFace]:
    if len(faces) and faces.probabilities.shape[1] != len(labels):
        raise ValueError(f"{len(labels)} labels for {faces.probabilities.shape[1]} probabilities")
    return layout.place(faces, time_s=time_s)


def _changed_areas(hidden: NDArray[np.float32], placed: Sequence[PlacedFace], layout: Layout) -> Iterator[PixelBox]:
    """All areas that are blurred or drawn on."""
    _, _, width, height = layout.picture
    for box in hidden:
        yield PixelBox(*blur_region(box, width=width, height=height))
    line = layout.sizes.frame
    for face in placed:
        left, top, right, bottom = face.box
        yield PixelBox(left, top, right, min(bottom, top + line))
        yield PixelBox(left, max(top, bottom - line), right, bottom)
        yield PixelBox(left, top, min(right, left + line), bottom)
        yield PixelBox(max(left, right - line), top, right, bottom)
        yield from (area for area in (face.chart_box, face.label_box) if area is not None)


def _with_even_corners(area: PixelBox) -> PixelBox:
    """The smallest area around it with even corners."""
    return PixelBox(area.left // 2 * 2, area.top // 2 * 2, -(-area.right // 2) * 2, -(-area.bottom // 2) * 2)


def _region(canvas: NDArray[np.uint8], area: PixelBox) -> NDArray[np.uint8]:
    return canvas[area.top : area.bottom, area.left : area.right]


def _paint(canvas: NDArray[np.uint8], placed: Sequence[PlacedFace], palette: Sequence[Colour], layout: Layout) -> None:
    for face in placed:
        _draw_box(canvas, face, palette[face.best], layout.sizes)
    for face in placed:
        if face.chart_box is not None:
            _draw_chart(canvas, face.chart_box, face, palette, layout.names, layout.sizes)
    for face in placed:
        if face.label_box is not None:
            _draw_label(canvas, face.label_box, face, palette[face.best], layout.sizes)


def _draw_box(canvas: NDArray[np.uint8], face: PlacedFace, colour: Colour, sizes: Sizes) -> None:
    _draw_frame(canvas, face.box, sizes.frame, PANEL)
    inner = PixelBox(face.box.left + sizes.edge, face.box.top + sizes.edge, face.box.right - sizes.edge, face.box.bottom - sizes.edge)
    inner = inner if inner.area else face.box
    if face.uncertain:
        _draw_dashes(canvas, inner, sizes.line, colour)
    else:
        _draw_frame(canvas, inner, sizes.line, colour)


def _draw_frame(canvas: NDArray[np.uint8], area: PixelBox, line: int, colour: Colour) -> None:
    region = _region(canvas, area)
    region[:line] = region[-line:] = colour
    region[:, :line] = region[:, -line:] = colour


def _draw_dashes(canvas: NDArray[np.uint8], area: PixelBox, line: int, colour: Colour) -> None:
    """A frame of `_DASHES_PER_SIDE` pieces per side, which start and end at its corners."""
    region = _region(canvas, area)
    for sides in (region, region.swapaxes(0, 1)):
        borders = np.linspace(0, sides.shape[1], 2 * _DASHES_PER_SIDE).round().astype(int).tolist()
        for start, end in zip(borders[::2], borders[1::2], strict=True):
            sides[:line, start:end] = sides[-line:, start:end] = colour


def _draw_label(canvas: NDArray[np.uint8], label_box: PixelBox, face: PlacedFace, colour: Colour, sizes: Sizes) -> None:
    region = _region(canvas, label_box)
    pad = label_padding(face.label_px)
    if face.uncertain:
        region[:] = PANEL
        region[-max(1, sizes.line // 2) :] = colour
    else:
        region[:] = colour
    ground, ink = (PANEL, WHITE) if face.uncertain else (colour, ink_on(colour))
    left = pad
    for word in face.label_words:
        text = _text_patch(word, face.label_px, ground, ink)
        region[pad // 4 : pad // 4 + text.shape[0], left : left + text.shape[1]] = text
        left += text.shape[1] + pad


@functools.lru_cache(maxsize=1024)
def _text_patch(word: str, size: int, ground: Colour, ink: Colour) -> NDArray[np.uint8]:
    """A word rendered on one colour; cached, since labels change less often than frames."""
    mask = render_text(word, size)
    patch = np.empty((*mask.shape, 3), np.uint8)
    patch[:] = ground
    blend(patch, mask, 0, 0, ink)
    patch.setflags(write=False)
    return patch


def _draw_chart(
    canvas: NDArray[np.uint8], chart_box: PixelBox, face: PlacedFace, palette: Sequence[Colour], names: tuple[str, ...], sizes: Sizes
) -> None:
    best = face.best
    keep, add = _chart_background(names, best, sizes)
    region = _region(canvas, chart_box)
    region[:] = cv2.add(cv2.multiply(region, keep, scale=1 / 255), add)
    region[:, : sizes.stripe] = palette[best]
    for index, probability in enumerate(face.probabilities.tolist()):
        bar = _bar_area(names, index, sizes)
        if index == best:
            bar = bar._replace(top=bar.top - sizes.edge, bottom=bar.bottom + sizes.edge)
        _draw_bar(region, bar, min(max(probability, 0.0), 1.0), palette[index])


def _draw_bar(region: NDArray[np.uint8], bar: PixelBox, share: float, colour: Colour) -> None:
    """The end of the bar covers a pixel partly, so that it moves smoothly from frame to frame."""
    length = share * (bar.right - bar.left)
    end = bar.left + int(length)
    region[bar.top : bar.bottom, bar.left : end] = colour
    if end < bar.right:
        tip = region[bar.top : bar.bottom, end]
        tip[:] = tip + (np.asarray(colour, np.float32) - tip) * (length % 1)


@functools.lru_cache(maxsize=64)
def _chart_background(names: tuple[str, ...], best: int, sizes: Sizes) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A chart without bars, the name of the `best` label highlighted, as `keep` and `add` (uint8 H x W x 3): the result is the picture
    times `keep` / 255, plus `add`."""
    width, height = chart_size(names, sizes)
    opacity = np.full((height, width, 1), _PANEL_OPACITY)
    colour = np.full((height, width, 3), PANEL, np.float64)
    for index, name in enumerate(names):
        bar = _bar_area(names, index, sizes)
        colour[bar.top : bar.bottom, bar.left : bar.right] = TROUGH
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
def _bar_area(names: tuple[str, ...], index: int, sizes: Sizes) -> PixelBox:
    """The area of a label's bar within its chart."""
    pad, row = sizes.chart_pad, sizes.row
    width, _ = chart_size(names, sizes)
    thickness = max(3, round(sizes.chart_text * 0.4))
    top = pad + index * row + (row - thickness) // 2
    return PixelBox(width - pad - round(sizes.chart_text * BAR_EMS), top, width - pad, top + thickness)
