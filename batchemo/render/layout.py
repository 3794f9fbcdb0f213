"""Where the names and charts of faces stand in a picture: clear of all faces and of each other, and steady from frame to frame."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from batchemo.records import OverlayData
from batchemo.render.text import readable_label, render_text

KEEP_SECONDS = 2
"""Names and charts stay on their side of a face so long, while they hide nothing there. The choice is free again at each multiple of it,
so that whoever draws a stretch of a film comes to the same places by looking back so far."""

BAR_EMS = 5.2
_SMALLEST_TEXT = 10
_SELF_COVER = 0.1
"""Share of its own face's box that a chart may hide where the picture has no other place, as in a close-up."""
_MORE_HIDDEN = 0.1
"""Of its own size that a name may hide before it changes sides, more than where it hides least."""


class PixelBox(NamedTuple):
    """Whole pixels, right and bottom excluded."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def size(self) -> int:
        return max(self.right - self.left, 0) * max(self.bottom - self.top, 0)

    def inside(self, other: PixelBox) -> bool:
        return self.left >= other.left and self.top >= other.top and self.right <= other.right and self.bottom <= other.bottom


@dataclasses.dataclass(frozen=True, slots=True)
class Sizes:
    """Everything in pixels, derived from the picture's shorter side, which is the height of most videos."""

    text: int
    chart_text: int
    line: int
    edge: int
    gap: int

    @classmethod
    def of(cls, picture: PixelBox) -> Sizes:
        unit = min(picture.right, picture.bottom) / 360
        return cls(
            text=max(_SMALLEST_TEXT, round(12 * unit)),
            chart_text=max(_SMALLEST_TEXT, round(11 * unit)),
            line=max(1, round(2 * unit)),
            edge=max(1, round(0.6 * unit)),
            gap=max(2, round(5 * unit)),
        )

    @property
    def smaller(self) -> Sizes:
        """Where there is much to write and the picture should stay the larger part."""
        return dataclasses.replace(self, chart_text=max(_SMALLEST_TEXT, round(0.8 * self.chart_text)))

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
        """Names of small faces are smaller, down to .6, or those of a crowd would hide it."""
        return max(_SMALLEST_TEXT, round(0.6 * self.text), min(self.text, round(0.3 * (box.right - box.left))))


@dataclasses.dataclass(frozen=True, slots=True)
class PlacedFace:
    """One face as it will be drawn. `chip` and `chart` are None where the picture has no room for them."""

    box: PixelBox
    track_id: int
    probabilities: NDArray[np.float32]
    uncertain: bool
    chip_words: tuple[str, ...] = ()
    chip_size: int = 0
    chip: PixelBox | None = None
    chart: PixelBox | None = None

    @property
    def best(self) -> int:
        return int(self.probabilities.argmax())


class Layout:
    """Places what is drawn into frames of one size that come in their order; `labels` name the columns of probabilities."""

    def __init__(self, labels: Sequence[str], *, width: int, height: int) -> None:
        self.picture = PixelBox(0, 0, width, height)
        self.sizes = Sizes.of(self.picture)
        self.names = tuple(readable_label(label) for label in labels)
        self._period = 0
        self._chips: dict[int, tuple[int, int]] = {}
        self._charts: dict[int, int] = {}

    def place(self, faces: OverlayData, *, time_s: float = 0.0) -> list[PlacedFace]:
        """The faces of the frame that is shown at `time_s`, those outside the picture left out."""
        period = int(time_s // KEEP_SECONDS)
        if period != self._period:
            self._period = period
            self._chips, self._charts = {}, {}
        marks = []
        for index, corners in enumerate(faces.boxes):
            box = _pixels_of(corners, self.picture)
            if box.size:
                marks.append(PlacedFace(box, int(faces.track_ids[index]), faces.probabilities[index], bool(faces.uncertain[index])))
        # Who has a place keeps it; of the others the larger ones choose first.
        marks.sort(key=lambda mark: (mark.track_id not in self._charts, -mark.box.size))
        return self._with_charts(self._with_chips(marks))

    def _with_chips(self, marks: list[PlacedFace]) -> list[PlacedFace]:
        boxes = [mark.box for mark in marks]
        taken: list[PixelBox] = []
        placed = []
        for index, mark in enumerate(marks):
            words, chip = self._place_chip(mark, [*boxes[:index], *boxes[index + 1 :], *taken])
            taken += [] if chip is None else [chip]
            placed.append(dataclasses.replace(mark, chip_words=words, chip_size=self.sizes.name_text(mark.box), chip=chip))
        return placed

    def _place_chip(self, mark: PlacedFace, taken: list[PixelBox]) -> tuple[tuple[str, ...], PixelBox | None]:
        """Where least is hidden, with as many of "happy 87% #2" as that allows; no chip where the picture is too small for a word."""
        name = self.names[mark.best]
        words = (f"{name}?" if mark.uncertain else name, f"{mark.probabilities[mark.best]:.0%}", f"#{mark.track_id}")
        choices, kinds = [], []
        for count in range(len(words), 0, -1):
            width, height = label_size(words[:count], self.sizes.name_text(mark.box))
            if width <= self.picture.right and height <= self.picture.bottom:
                for side, place in _chip_places(mark.box, width, height, self.picture):
                    choices.append((words[:count], place))
                    kinds.append((count, side))
        if not choices:
            return (), None
        hidden = _overlaps([place for _, place in choices], taken).sum(axis=1)
        chosen = int(hidden.argmin())
        known = self._chips.get(mark.track_id)
        if known in kinds:
            kept = kinds.index(known)
            if hidden[kept] <= hidden[chosen] + _MORE_HIDDEN * choices[kept][1].size:
                chosen = kept
        self._chips[mark.track_id] = kinds[chosen]
        return choices[chosen]

    def _with_charts(self, marks: list[PlacedFace]) -> list[PlacedFace]:
        shape = chart_size(self.names, self.sizes)
        boxes = [mark.box for mark in marks]
        taken = [mark.chip for mark in marks if mark.chip is not None]
        placed = []
        for index, mark in enumerate(marks):
            chart = self._place_chart(mark, index, shape, boxes, taken)
            taken += [] if chart is None else [chart]
            placed.append(dataclasses.replace(mark, chart=chart))
        return placed

    def _place_chart(
        self, mark: PlacedFace, index: int, shape: tuple[int, int], boxes: list[PixelBox], taken: list[PixelBox]
    ) -> PixelBox | None:
        """The first place that hides nothing, or else little of its own face alone; None where there is none.

        A chart nearer to another face than to its own would be read as the other's.
        """
        kinds = [(kind, place) for kind, place in enumerate(_chart_places(mark, shape, self.picture, self.sizes.gap))]
        kinds = [(kind, place) for kind, place in kinds if place.inside(self.picture)]
        places = [place for _, place in kinds]
        gaps = _gaps(places, boxes)
        others = [*boxes[:index], *boxes[index + 1 :], *taken]
        hidden = _overlaps(places, [boxes[index]])[:, 0]
        good = (gaps[:, index] == gaps.min(axis=1)) & (_overlaps(places, others).sum(axis=1) == 0)
        good &= hidden <= _SELF_COVER * boxes[index].size
        known = self._charts.pop(mark.track_id, None)
        best = min(np.flatnonzero(good).tolist(), key=lambda at: (kinds[at][0] != known, hidden[at]), default=None)
        if best is None:
            return None
        self._charts[mark.track_id] = kinds[best][0]
        return places[best]


@functools.lru_cache(maxsize=1024)
def label_size(words: tuple[str, ...], size: int) -> tuple[int, int]:
    """Width and height of a name in letters of `size` px."""
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


def _pixels_of(box: NDArray[np.float32], picture: PixelBox) -> PixelBox:
    left, right = np.clip(np.rint(box[[0, 2]]), 0, picture.right).astype(int).tolist()
    top, bottom = np.clip(np.rint(box[[1, 3]]), 0, picture.bottom).astype(int).tolist()
    return PixelBox(left, top, right, bottom)


def _chip_places(box: PixelBox, width: int, height: int, picture: PixelBox) -> list[tuple[int, PixelBox]]:
    """Above, below, and inside the box at its top and bottom, as far as they lie in the picture; numbered."""
    left = min(box.left, picture.right - width)
    places = [PixelBox(left, top, left + width, top + height) for top in (box.top - height, box.bottom, box.top, box.bottom - height)]
    clamped = min(box.top, picture.bottom - height)
    inside = [(side, place) for side, place in enumerate(places) if place.inside(picture)]
    return inside or [(len(places), PixelBox(left, clamped, left + width, clamped + height))]


def _chart_places(mark: PlacedFace, shape: tuple[int, int], picture: PixelBox, gap: int) -> Iterator[PixelBox]:
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
        yield PixelBox(left, top, left + width, top + height)


def _overlaps(places: list[PixelBox], others: list[PixelBox]) -> NDArray[np.int64]:
    """Pixels that each of N places shares with each of M others, N x M."""
    one, other = _corners(places)[:, None], _corners(others)[None]
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    return np.asarray(sides.clip(min=0).prod(axis=2))


def _gaps(places: list[PixelBox], others: list[PixelBox]) -> NDArray[np.int64]:
    """Distance of each of N places to each of M others along the farther axis, 0 where they touch; N x M."""
    one, other = _corners(places)[:, None], _corners(others)[None]
    return np.asarray(np.maximum(one[..., :2] - other[..., 2:], other[..., :2] - one[..., 2:]).max(axis=2).clip(min=0))


def _corners(areas: list[PixelBox]) -> NDArray[np.int64]:
    return np.array(areas, np.int64).reshape(-1, 4)
