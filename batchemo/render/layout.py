"""Places the label and the probability chart of each face: clear of all faces and of each other, and steady from frame to frame."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from batchemo.records import OverlayData
from batchemo.render.text import readable_label, render_text

KEEP_PLACES_SECONDS = 2
"""Labels and charts keep their side of a face for this long, unless they hide something there. All places are chosen anew at each
multiple of it, so that a worker that starts in the middle of a video needs to look back no further."""

BAR_EMS = 5.2
_MIN_TEXT_PX = 10
_MAX_SELF_OVERLAP = 0.1
"""Fraction of its own face's box that a chart may hide where there is no other place, as in a close-up."""
_LABEL_HYSTERESIS = 0.1
"""A label changes sides when it hides this fraction of its own area more than at the best place."""


class PixelBox(NamedTuple):
    """Integer pixel coordinates; right and bottom are exclusive."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def area(self) -> int:
        return max(self.right - self.left, 0) * max(self.bottom - self.top, 0)

    def is_inside(self, other: PixelBox) -> bool:
        return self.left >= other.left and self.top >= other.top and self.right <= other.right and self.bottom <= other.bottom


@dataclasses.dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of drawn elements in px, proportional to the picture's shorter side, which is the height of most videos."""

    text: int
    chart_text: int
    line: int
    edge: int
    gap: int

    @classmethod
    def from_picture(cls, picture: PixelBox) -> Sizes:
        unit = min(picture.right, picture.bottom) / 360
        return cls(
            text=max(_MIN_TEXT_PX, round(12 * unit)),
            chart_text=max(_MIN_TEXT_PX, round(11 * unit)),
            line=max(1, round(2 * unit)),
            edge=max(1, round(0.6 * unit)),
            gap=max(2, round(5 * unit)),
        )

    @property
    def smaller(self) -> Sizes:
        """For the timeline strip, which has much text and should stay small."""
        return dataclasses.replace(self, chart_text=max(_MIN_TEXT_PX, round(0.8 * self.chart_text)))

    @property
    def frame(self) -> int:
        """Thickness of the frame around a face, with its edges."""
        return self.line + 2 * self.edge

    @property
    def stripe(self) -> int:
        return self.line + self.edge

    @property
    def chart_pad(self) -> int:
        return max(2, round(self.chart_text * 0.5))

    @property
    def row(self) -> int:
        return round(self.chart_text * 1.22)

    def name_text(self, box: PixelBox) -> int:
        """Text size of a label: down to 0.6 of the usual for small faces, so that labels do not hide a crowd."""
        return max(_MIN_TEXT_PX, round(0.6 * self.text), min(self.text, round(0.3 * (box.right - box.left))))


@dataclasses.dataclass(frozen=True, slots=True)
class PlacedFace:
    """One face as it will be drawn. `label_box` and `chart_box` are None where the picture has no room for them."""

    box: PixelBox
    track_id: int
    probabilities: NDArray[np.float32]
    uncertain: bool
    label_words: tuple[str, ...] = ()
    label_px: int = 0
    label_box: PixelBox | None = None
    chart_box: PixelBox | None = None

    @property
    def best(self) -> int:
        return int(self.probabilities.argmax())


class Layout:
    """Places the overlays of consecutive frames of one size; `labels` name the columns of the probabilities."""

    def __init__(self, labels: Sequence[str], *, width: int, height: int) -> None:
        self.picture = PixelBox(0, 0, width, height)
        self.sizes = Sizes.from_picture(self.picture)
        self.names = tuple(readable_label(label) for label in labels)
        self._period = 0
        self._labels: dict[int, tuple[int, int]] = {}
        self._charts: dict[int, int] = {}

    def place(self, faces: OverlayData, *, time_s: float = 0.0) -> list[PlacedFace]:
        """The faces of the frame at `time_s` with the places of label and chart; faces outside the picture are left out."""
        period = int(time_s // KEEP_PLACES_SECONDS)
        if period != self._period:
            self._period = period
            self._labels, self._charts = {}, {}
        placed = []
        for index, corners in enumerate(faces.boxes):
            box = _to_pixel_box(corners, self.picture)
            if box.area:
                placed.append(PlacedFace(box, int(faces.track_ids[index]), faces.probabilities[index], bool(faces.uncertain[index])))
        # Faces that have a chart keep it; of the others, larger ones choose first.
        placed.sort(key=lambda face: (face.track_id not in self._charts, -face.box.area))
        return self._with_charts(self._with_labels(placed))

    def _with_labels(self, faces: list[PlacedFace]) -> list[PlacedFace]:
        boxes = [face.box for face in faces]
        taken: list[PixelBox] = []
        placed = []
        for index, face in enumerate(faces):
            words, label_box = self._place_label(face, [*boxes[:index], *boxes[index + 1 :], *taken])
            taken += [] if label_box is None else [label_box]
            placed.append(dataclasses.replace(face, label_words=words, label_px=self.sizes.name_text(face.box), label_box=label_box))
        return placed

    def _place_label(self, face: PlacedFace, taken: list[PixelBox]) -> tuple[tuple[str, ...], PixelBox | None]:
        """The place that hides least, with as many of the words "happy 87% #2" as possible; None where the picture is too small for one
        word."""
        name = self.names[face.best]
        words = (f"{name}?" if face.uncertain else name, f"{face.probabilities[face.best]:.0%}", f"#{face.track_id}")
        choices, kinds = [], []
        for count in range(len(words), 0, -1):
            width, height = label_size(words[:count], self.sizes.name_text(face.box))
            if width <= self.picture.right and height <= self.picture.bottom:
                for side, place in _label_places(face.box, width, height, self.picture):
                    choices.append((words[:count], place))
                    kinds.append((count, side))
        if not choices:
            return (), None
        hidden = _overlaps([place for _, place in choices], taken).sum(axis=1)
        chosen = int(hidden.argmin())
        known = self._labels.get(face.track_id)
        if known in kinds:
            kept = kinds.index(known)
            if hidden[kept] <= hidden[chosen] + _LABEL_HYSTERESIS * choices[kept][1].area:
                chosen = kept
        self._labels[face.track_id] = kinds[chosen]
        return choices[chosen]

    def _with_charts(self, faces: list[PlacedFace]) -> list[PlacedFace]:
        shape = chart_size(self.names, self.sizes)
        boxes = [face.box for face in faces]
        taken = [face.label_box for face in faces if face.label_box is not None]
        placed = []
        for index, face in enumerate(faces):
            chart_box = self._place_chart(face, index, shape, boxes, taken)
            taken += [] if chart_box is None else [chart_box]
            placed.append(dataclasses.replace(face, chart_box=chart_box))
        return placed

    def _place_chart(
        self, face: PlacedFace, index: int, shape: tuple[int, int], boxes: list[PixelBox], taken: list[PixelBox]
    ) -> PixelBox | None:
        """The first place that hides nothing, or a little of its own face alone; None where there is none.

        A chart that is nearer to another face than to its own would be taken for the other's.
        """
        kinds = [(kind, place) for kind, place in enumerate(_chart_places(face, shape, self.picture, self.sizes.gap))]
        kinds = [(kind, place) for kind, place in kinds if place.is_inside(self.picture)]
        places = [place for _, place in kinds]
        gaps = _gaps(places, boxes)
        others = [*boxes[:index], *boxes[index + 1 :], *taken]
        hidden = _overlaps(places, [boxes[index]])[:, 0]
        good = (gaps[:, index] == gaps.min(axis=1)) & (_overlaps(places, others).sum(axis=1) == 0)
        good &= hidden <= _MAX_SELF_OVERLAP * boxes[index].area
        known = self._charts.pop(face.track_id, None)
        best = min(np.flatnonzero(good).tolist(), key=lambda at: (kinds[at][0] != known, hidden[at]), default=None)
        if best is None:
            return None
        self._charts[face.track_id] = kinds[best][0]
        return places[best]


@functools.lru_cache(maxsize=1024)
def label_size(words: tuple[str, ...], size: int) -> tuple[int, int]:
    """Width and height of a label with text of `size` px."""
    pad = label_padding(size)
    return sum(int(render_text(word, size).shape[1]) + pad for word in words) + pad, int(render_text(words[0], size).shape[0]) + 2 * (
        pad // 4
    )


def label_padding(size: int) -> int:
    return max(2, round(0.3 * int(render_text("", size).shape[0])))


@functools.lru_cache(maxsize=16)
def chart_size(names: tuple[str, ...], sizes: Sizes) -> tuple[int, int]:
    """Width and height of a chart."""
    column = max(render_text(name, sizes.chart_text).shape[1] for name in names)
    return sizes.stripe + column + round(sizes.chart_text * BAR_EMS) + 3 * sizes.chart_pad, len(names) * sizes.row + 2 * sizes.chart_pad


def _to_pixel_box(box: NDArray[np.float32], picture: PixelBox) -> PixelBox:
    left, right = np.clip(np.rint(box[[0, 2]]), 0, picture.right).astype(int).tolist()
    top, bottom = np.clip(np.rint(box[[1, 3]]), 0, picture.bottom).astype(int).tolist()
    return PixelBox(left, top, right, bottom)


def _label_places(box: PixelBox, width: int, height: int, picture: PixelBox) -> list[tuple[int, PixelBox]]:
    """Above, below, and inside the box at its top and bottom, where the picture has room; numbered."""
    left = min(box.left, picture.right - width)
    places = [PixelBox(left, top, left + width, top + height) for top in (box.top - height, box.bottom, box.top, box.bottom - height)]
    clamped = min(box.top, picture.bottom - height)
    inside = [(side, place) for side, place in enumerate(places) if place.is_inside(picture)]
    return inside or [(len(places), PixelBox(left, clamped, left + width, clamped + height))]


def _chart_places(face: PlacedFace, shape: tuple[int, int], picture: PixelBox, gap: int) -> Iterator[PixelBox]:
    """Candidate places, best first: right, left, below and above the face, then along the picture's edges."""
    width, height = shape
    right_edge, bottom_edge = picture.right - width, picture.bottom - height
    box = face.box
    label_box = face.label_box or box
    tops = [min(max(top, 0), bottom_edge) for top in (box.top, box.bottom - height)]
    lefts = [min(max(left, 0), right_edge) for left in (box.left, box.right - width)]
    beside = [(left, top) for left in (box.right + gap, box.left - gap - width) for top in tops]
    beyond = [
        (left, top) for top in (max(box.bottom, label_box.bottom) + gap, min(box.top, label_box.top) - gap - height) for left in lefts
    ]
    edges = [(left, top) for left in (right_edge - gap, gap) for top in (*tops, bottom_edge - gap, gap)]
    for left, top in (*beside, *beyond, *edges):
        yield PixelBox(left, top, left + width, top + height)


def _overlaps(places: list[PixelBox], others: list[PixelBox]) -> NDArray[np.int64]:
    """Shared pixels of each of N places and each of M other boxes, N x M."""
    one, other = _corners(places)[:, None], _corners(others)[None]
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    return np.asarray(sides.clip(min=0).prod(axis=2))


def _gaps(places: list[PixelBox], others: list[PixelBox]) -> NDArray[np.int64]:
    """Distance of each of N places to each of M other boxes along the axis where they are farther apart, 0 where they touch; N x M."""
    one, other = _corners(places)[:, None], _corners(others)[None]
    return np.asarray(np.maximum(one[..., :2] - other[..., 2:], other[..., :2] - one[..., 2:]).max(axis=2).clip(min=0))


def _corners(areas: list[PixelBox]) -> NDArray[np.int64]:
    return np.array(areas, np.int64).reshape(-1, 4)
