"""Checks that blurred frames show no face: searches each once more, before anything else is drawn onto it."""

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
from batchemo.media.resize import downsample2x
from batchemo.options import BlurStyle
from batchemo.records import Faces, Frame, OverlayData
from batchemo.render.blur import blur, blur_region

CHECK_MIN_FACE_PX = 20
"""Smallest face that is searched for; MTCNN is not trained on smaller ones."""

PADDING = 0.25
"""Mirrored border, as a fraction of the picture's shorter side. It makes most faces detectable that the edge cuts (see
docs/benchmarks.md)."""

_WHOLE_PIXELS = 2_500_000
"""Larger pictures are searched in tiles, and downsampled for faces larger than the tiles' overlap, to limit memory (see
docs/benchmarks.md)."""
_TILE_PX, _TILE_OVERLAP_PX = 1024, 160

_MAX_SEARCHES = 4
"""Per frame: a frame is searched again after more was blurred."""

_COVERED_FRACTION = 0.9
"""From this blurred fraction on, a box counts as blurred: either the blur looks like a face, or too little is visible to recognize
anyone."""

_NEAR_EDGE = 0.1
"""Distance to the picture's edge, as a fraction of a box's longer side, within which the edge may cut the face."""

_DUPLICATE_IOU = 0.4
"""IoU from which on boxes of two tiles are the same face."""

_SAME_FACE_IOU = 0.2
"""IoU from which on a box in the original picture is the same face. Blurred heads above shoulders at the edge reach less (see
docs/benchmarks.md)."""

_HOLD_FRAMES, _HOLD_SECONDS = 8, 1.0
"""What is blurred additionally in one frame is blurred in this many frames before and after it, too, within this time: a face cut by the
edge is not detected in every frame. So many frames wait in memory."""


class _CheckedFrame(NamedTuple):
    """A searched frame of `shape` (H, W): `extra` boxes to blur beyond its overlay's, and `possible` faces that may be left, each
    float32 N x 4."""

    frame: Frame
    shape: tuple[int, ...]
    overlay: OverlayData
    extra: NDArray[np.float32]
    possible: NDArray[np.float32]


class BlurCheck:
    """Checks the frames of one medium, or of one segment. `possible_faces_s` are the times of faces that may be left unblurred.

    A face found outside the blurred areas is blurred as well if it overlaps one of them or the edge cuts it. Anything else may be a false
    alarm, and is reported for people to check. Near the edge, a blurred head with shoulders and their mirror image can look like a face, so
    that there the original picture must contain the face, too. `heartbeat` is called during the search of a large picture.
    """

    def __init__(self, *, style: BlurStyle, device: str, heartbeat: Callable[[], None] = lambda: None) -> None:
        self._style: BlurStyle = style
        self._heartbeat = heartbeat
        self._detector = _detector(device)
        self.possible_faces_s: list[float] = []

    def check(self, frames: Iterator[tuple[Frame, OverlayData]]) -> Iterator[tuple[Frame, OverlayData]]:
        """The same frames in the same order, with all boxes to blur in their overlays; reads `_HOLD_FRAMES` ahead."""
        pending: deque[_CheckedFrame] = deque()
        before: deque[tuple[float, NDArray[np.float32]]] = deque(maxlen=_HOLD_FRAMES)
        for frame, overlay in frames:
            pending.append(self._search(frame, overlay))
            if len(pending) > _HOLD_FRAMES:
                yield self._finish_first(pending, before)
        while pending:
            yield self._finish_first(pending, before)

    def _finish_first(self, pending: deque[_CheckedFrame], before: deque[tuple[float, NDArray[np.float32]]]) -> tuple[Frame, OverlayData]:
        """The first of the `pending` frames, with what was found in the frames around it."""
        now_s = pending[0].frame.time_s
        around = [*before, *((each.frame.time_s, each.extra) for each in pending)]
        held = [boxes for time_s, boxes in around if abs(time_s - now_s) <= _HOLD_SECONDS]
        hidden = np.concatenate([pending[0].overlay.hidden, *held])
        checked = pending.popleft()
        before.append((now_s, checked.extra))
        if len(checked.possible):
            area = _mask(hidden, checked.shape)
            self.possible_faces_s += [now_s for box in checked.possible if _covered_fraction(area, box) < _COVERED_FRACTION]
        return checked.frame, dataclasses.replace(checked.overlay, hidden=hidden)

    def _search(self, frame: Frame, overlay: OverlayData) -> _CheckedFrame:
        pixels = frame.pixels.copy()
        hidden = overlay.hidden
        possible = extra = np.empty((0, 4), np.float32)
        blur(pixels, hidden, style=self._style)
        for _ in range(_MAX_SEARCHES):
            area = _mask(hidden, pixels.shape[:2])
            found = self._find(pixels)
            found = found.subset(np.array([_covered_fraction(area, box) < _COVERED_FRACTION for box in found.boxes], np.bool_))
            cut = np.array([_touches_edge(box, pixels.shape[:2]) for box in found.boxes], np.bool_)
            if cut.any():
                real = ~cut | (found.iou(self._find(frame.pixels)).max(axis=1, initial=0) > _SAME_FACE_IOU)
                found, cut = found.subset(real), cut[real]
            known = cut | np.array([_covered_fraction(area, box) > 0 for box in found.boxes], np.bool_)
            new, possible = found.boxes[known], found.boxes[~known]
            if not len(new):
                break
            blur(pixels, new, style=self._style)
            hidden, extra = np.concatenate([hidden, new]), np.concatenate([extra, new])
        return _CheckedFrame(frame, pixels.shape[:2], overlay, extra, possible)

    def _find(self, pixels: NDArray[np.uint8]) -> Faces:
        """Faces that lie at least partly inside the picture."""
        height, width = pixels.shape[:2]
        found = _detect(self._detector, pixels, self._heartbeat)
        return found.subset((found.boxes[:, 2:] > 0).all(axis=1) & (found.boxes[:, 0] < width) & (found.boxes[:, 1] < height))


@functools.cache
def _detector(device: str) -> MtcnnDetector:
    return MtcnnDetector(min_face_px=CHECK_MIN_FACE_PX, kind="exact", device=choose_device(device))


def _detect(detector: MtcnnDetector, pixels: NDArray[np.uint8], heartbeat: Callable[[], None]) -> Faces:
    """Faces of a picture of any size, in nearly constant memory. Mirroring at the edges makes half a face nearly a whole one."""
    height, width = pixels.shape[:2]
    if height * width <= _WHOLE_PIXELS:
        side = round(PADDING * min(height, width))
        return detector.detect([_mirrored(pixels, side)])[0].shifted(-side, -side)
    half = _detect(detector, downsample2x(pixels), heartbeat)
    parts = [Faces(2 * half.boxes, 2 * half.landmarks, half.scores)]
    padded, side = _mirrored(pixels, _TILE_OVERLAP_PX), _TILE_OVERLAP_PX
    for top, bottom in _tile_spans(height + 2 * side):
        for left, right in _tile_spans(width + 2 * side):
            found = detector.detect([padded[top:bottom, left:right]])[0].shifted(left, top)
            # A face cut by the tile's border is complete in another tile, or in the downsampled picture.
            whole = (found.boxes[:, :2] > (left, top)).all(axis=1) & (found.boxes[:, 2:] < (right, bottom)).all(axis=1)
            parts.append(found.subset(np.asarray(whole)).shifted(-side, -side))
            heartbeat()
    return _remove_duplicates(Faces.joined(parts))


def _mirrored(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.copyMakeBorder(pixels, side, side, side, side, cv2.BORDER_REFLECT), np.uint8)


def _tile_spans(length: int) -> list[tuple[int, int]]:
    """Start and end of the tiles along one side."""
    starts = range(0, max(1, length - _TILE_OVERLAP_PX), _TILE_PX - _TILE_OVERLAP_PX)
    return [(start, min(start + _TILE_PX, length)) for start in starts]


def _remove_duplicates(faces: Faces) -> Faces:
    """Greedy NMS: of boxes of the same face, the one with the best score."""
    best = faces.subset(np.argsort(-faces.scores, kind="stable"))
    same = np.triu(best.iou(best) > _DUPLICATE_IOU, k=1)
    kept = np.ones(len(best), np.bool_)
    for index in range(len(best)):
        if kept[index]:
            kept &= ~same[index]
    return best.subset(kept)


def _mask(boxes: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Bool H x W: what is blurred for `boxes` in a picture of `shape` (H, W)."""
    height, width = shape
    area = np.zeros((height, width), np.bool_)
    for box in boxes:
        x1, y1, x2, y2 = blur_region(box, width=width, height=height)
        area[y1:y2, x1:x2] = True
    return area


def _covered_fraction(area: NDArray[np.bool_], box: NDArray[np.float32]) -> float:
    """Fraction, 0 to 1, of a box's part inside the picture that lies in `area`."""
    (left, top), (right, bottom) = np.floor(box[:2]).clip(0).astype(int), np.ceil(box[2:]).clip(0).astype(int)
    part = area[top:bottom, left:right]
    return float(part.mean()) if part.size else 1.0


def _touches_edge(box: NDArray[np.float32], shape: tuple[int, ...]) -> bool:
    """Whether a face is near the edge of a picture of `shape` (H, W)."""
    height, width = shape
    left, top, right, bottom = box.tolist()
    near = _NEAR_EDGE * max(right - left, bottom - top)
    return bool(min(left, top, width - right, height - bottom) < near)
