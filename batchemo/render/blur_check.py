"""Proves that blurred frames show no face: each is searched once more, before anything is drawn onto it."""

from __future__ import annotations

import dataclasses
import functools
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from batchemo.devices import choose_device
from batchemo.faces.detector import MtcnnDetector
from batchemo.media.resize import halved
from batchemo.options import BlurStyle
from batchemo.records import Faces, Frame, OverlayData
from batchemo.render.blur import blur, blurred_area

CHECK_MIN_FACE_PX = 20
"""Smallest face that is searched for: MTCNN is not trained on smaller ones."""

PADDING = 0.25
"""Of the shorter side of the picture, by which its mirror image continues it. So 94 % of 128 faces were found of which the edge cuts 30 to
60 % (13 real pictures), 70 % with black around, 31 % with nothing (training/RESULTS.md)."""

_WHOLE_PIXELS = 2_500_000
"""Larger pictures are searched in tiles, and halved for faces larger than the overlap of these: a whole one of 24 megapixels would take
3.5 GB."""
_TILE_PX, _TILE_OVERLAP_PX = 1024, 160

_ROUNDS = 4
"""Searches of a frame at most: what one of them has blurred is searched once more."""

_COVERED = 0.9
"""Share of a box that is blurred already where the blur itself was taken for a face, or nobody could be known by the rest."""

_NEAR_EDGE = 0.1
"""Of a box's longer side: how near to the picture's edge a face counts as cut by it."""

_TWICE_FOUND = 0.4
"""IoU from which on two boxes are of one face that two tiles have."""

_SAME_FACE = 0.2
"""IoU from which on a box in the picture as it was is that of the same face: of blurred heads above shoulders, that the edge cuts, it was
.07 at most."""

_HELD_FRAMES, _HELD_SECONDS = 8, 1.0
"""How many frames before and after a frame in which the check has blurred more, and how far away at most, that is blurred as well: a face
that the edge cuts is not found in every frame. So many pictures wait in memory."""


class _Seen(NamedTuple):
    """A frame of that `shape` (H, W) that was searched: `more` are boxes to blur beyond what its marks hide, `left` those of faces that may
    be left, N x 4."""

    frame: Frame
    shape: tuple[int, ...]
    marks: OverlayData
    more: NDArray[np.float32]
    left: NDArray[np.float32]


class BlurCheck:
    """Searches the frames of one medium, or of a segment of it. `left` holds the time of each face that may be left in the clear.

    What is found beside the blurred areas is blurred as well where it overlaps one of them or the picture's edge cuts it; anything else
    may be a false alarm, and is left for people to look at. At the edge a blurred head with its shoulders, and their mirror image, may look
    like a face, so that one must be there in the picture as it was, too. `alive` is called amid the search of a large picture.
    """

    def __init__(self, *, style: BlurStyle, device: str, alive: Callable[[], None] = lambda: None) -> None:
        self._style: BlurStyle = style
        self._alive = alive
        self._detector = _detector(device)
        self.left: list[float] = []

    def complete(self, marked: Iterator[tuple[Frame, OverlayData]]) -> Iterator[tuple[Frame, OverlayData]]:
        """The same frames in the same order, their marks with all that is to be hidden; reads `_HELD_FRAMES` ahead."""
        waiting: deque[_Seen] = deque()
        before: deque[tuple[float, NDArray[np.float32]]] = deque(maxlen=_HELD_FRAMES)
        for frame, marks in marked:
            waiting.append(self._search(frame, marks))
            if len(waiting) > _HELD_FRAMES:
                yield self._settle(waiting, before)
        while waiting:
            yield self._settle(waiting, before)

    def _settle(self, waiting: deque[_Seen], before: deque[tuple[float, NDArray[np.float32]]]) -> tuple[Frame, OverlayData]:
        """The first of the `waiting`, by what was found in those around it."""
        now_s = waiting[0].frame.time_s
        around = [*before, *((each.frame.time_s, each.more) for each in waiting)]
        held = [more for time_s, more in around if abs(time_s - now_s) <= _HELD_SECONDS]
        hidden = np.concatenate([waiting[0].marks.hidden, *held])
        seen = waiting.popleft()
        before.append((now_s, seen.more))
        if len(seen.left):
            area = _mask(hidden, seen.shape)
            self.left += [now_s for box in seen.left if _share(area, box) < _COVERED]
        return seen.frame, dataclasses.replace(seen.marks, hidden=hidden)

    def _search(self, frame: Frame, marks: OverlayData) -> _Seen:
        pixels = frame.pixels.copy()
        hidden = marks.hidden
        left = more = np.empty((0, 4), np.float32)
        blur(pixels, hidden, style=self._style)
        for _ in range(_ROUNDS):
            area = _mask(hidden, pixels.shape[:2])
            found = self._find(pixels)
            found = found.subset(np.array([_share(area, box) < _COVERED for box in found.boxes], np.bool_))
            cut = np.array([_is_cut(box, pixels.shape[:2]) for box in found.boxes], np.bool_)
            if cut.any():
                real = ~cut | (found.iou(self._find(frame.pixels)).max(axis=1, initial=0) > _SAME_FACE)
                found, cut = found.subset(real), cut[real]
            known = cut | np.array([_share(area, box) > 0 for box in found.boxes], np.bool_)
            new, left = found.boxes[known], found.boxes[~known]
            if not len(new):
                break
            blur(pixels, new, style=self._style)
            hidden, more = np.concatenate([hidden, new]), np.concatenate([more, new])
        return _Seen(frame, pixels.shape[:2], marks, more, left)

    def _find(self, pixels: NDArray[np.uint8]) -> Faces:
        """The faces that lie at least in part in a picture."""
        height, width = pixels.shape[:2]
        found = _detect(self._detector, pixels, self._alive)
        return found.subset((found.boxes[:, 2:] > 0).all(axis=1) & (found.boxes[:, 0] < width) & (found.boxes[:, 1] < height))


@functools.cache
def _detector(device: str) -> MtcnnDetector:
    return MtcnnDetector(min_face_px=CHECK_MIN_FACE_PX, kind="exact", device=choose_device(device))


def _detect(detector: MtcnnDetector, pixels: NDArray[np.uint8], alive: Callable[[], None]) -> Faces:
    """The faces of a picture of any size, in memory that hardly grows with it. Mirrored at its edges, half a face is nearly a whole one."""
    height, width = pixels.shape[:2]
    if height * width <= _WHOLE_PIXELS:
        side = round(PADDING * min(height, width))
        return detector.detect([_mirrored(pixels, side)])[0].shifted(-side, -side)
    half = _detect(detector, halved(pixels), alive)
    parts = [Faces(2 * half.boxes, 2 * half.landmarks, half.scores)]
    padded, side = _mirrored(pixels, _TILE_OVERLAP_PX), _TILE_OVERLAP_PX
    for top, bottom in _spans(height + 2 * side):
        for left, right in _spans(width + 2 * side):
            found = detector.detect([padded[top:bottom, left:right]])[0].shifted(left, top)
            # What a tile's border cuts is whole in another one, or in the half picture.
            whole = (found.boxes[:, :2] > (left, top)).all(axis=1) & (found.boxes[:, 2:] < (right, bottom)).all(axis=1)
            parts.append(found.subset(np.asarray(whole)).shifted(-side, -side))
            alive()
    return _once(Faces.joined(parts))


def _mirrored(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.copyMakeBorder(pixels, side, side, side, side, cv2.BORDER_REFLECT), np.uint8)


def _spans(length: int) -> list[tuple[int, int]]:
    """Where tiles begin and end on one side of a picture."""
    starts = range(0, max(1, length - _TILE_OVERLAP_PX), _TILE_PX - _TILE_OVERLAP_PX)
    return [(start, min(start + _TILE_PX, length)) for start in starts]


def _once(faces: Faces) -> Faces:
    """Of boxes of the same face the one with the best score."""
    best = faces.subset(np.argsort(-faces.scores, kind="stable"))
    same = np.triu(best.iou(best) > _TWICE_FOUND, k=1)
    kept = np.ones(len(best), np.bool_)
    for index in range(len(best)):
        if kept[index]:
            kept &= ~same[index]
    return best.subset(kept)


def _mask(boxes: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """What is blurred for `boxes` of a picture of that `shape` (H, W), H x W."""
    height, width = shape
    area = np.zeros((height, width), np.bool_)
    for box in boxes:
        x1, y1, x2, y2 = blurred_area(box, width=width, height=height)
        area[y1:y2, x1:x2] = True
    return area


def _share(area: NDArray[np.bool_], box: NDArray[np.float32]) -> float:
    """How much of the part of a box that lies in the picture is in `area`, 0 to 1."""
    (left, top), (right, bottom) = np.floor(box[:2]).clip(0).astype(int), np.ceil(box[2:]).clip(0).astype(int)
    part = area[top:bottom, left:right]
    return float(part.mean()) if part.size else 1.0


def _is_cut(box: NDArray[np.float32], shape: tuple[int, ...]) -> bool:
    """Whether a face reaches to the edge of a picture of that `shape` (H, W)."""
    height, width = shape
    left, top, right, bottom = box.tolist()
    near = _NEAR_EDGE * max(right - left, bottom - top)
    return bool(min(left, top, width - right, height - bottom) < near)
