"""Propagates faces over the frames of a video by optical flow, so that the detector need not search every frame.

Slow faces skip frames: motion is measured over several frames at once, and interpolated in between. Wherever a face is doubtful,
a search follows at once.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from batchemo.faces.optical_flow import downsample_for_flow, move_faces
from batchemo.faces.regions import Region, RegionFinder
from batchemo.records import DetectedFrame, Faces, Frame

SEARCH_SECONDS = 0.48
"""Longest time between two searches; half of it finds .1 % more faces for 1.4 times the time (see docs/benchmarks.md). At 3 frames a
second or fewer every frame is searched."""

CONFIRM_SECONDS = 0.24
"""Longest time for which faces are propagated without confirmation: it ends false detections early (see docs/benchmarks.md)."""

FLOW_SECONDS = 0.145
"""Longest time over which small motion is measured at once and taken to be uniform (see docs/benchmarks.md). It lies between the frame
times of usual rates, so that rounding decides nothing."""

SEARCH_FRAMES = 16
"""Most frames from one search to the next, which are in memory together."""

_SAME_PLACE = 0.3
"""Intersection, as a share of the smaller box, from which two boxes are of one face."""
_SAME_FACE = 0.5
"""IoU from which a propagated and a detected face are the same."""
_MAX_DISPLACEMENT = 0.15
"""Share of its size that a face may move within `FLOW_SECONDS`; beyond it, faces are propagated frame by frame."""
_PATCH_PX = 12
_MIN_CORRELATION = 0.85
"""Least correlation of an interpolated face (in so many pixels a side) with its patch at one of both ends. Visible faces reach it, partly
covered ones do not (see docs/benchmarks.md)."""


class FaceDetector(Protocol):
    """A detector as `batchemo.faces.detector.MtcnnDetector` is one."""

    def search(self, frame: NDArray[np.uint8], regions: Sequence[Region] | None, *, thorough: bool) -> Faces:
        """The faces of a frame, or of disjoint regions of it; not `thorough` if other searches follow soon."""
        ...

    def confirm(self, frame: NDArray[np.uint8], faces: Faces) -> bool:
        """Whether all `faces` (one or more) are still faces."""
        ...


@dataclasses.dataclass
class _BufferedFrame:
    """A frame, `step_s` after the previous one, and its faces as far as they are known."""

    frame: Frame
    cut: bool
    step_s: float
    faces: Faces = dataclasses.field(default_factory=Faces.none)

    @property
    def grey(self) -> NDArray[np.uint8]:
        """The picture for optical flow, downsampled if the frame is large."""
        return self._grey_and_scale[0]

    @property
    def scale(self) -> float:
        """Width of `grey` as a share of the frame's."""
        return self._grey_and_scale[1]

    @property
    def is_isolated(self) -> bool:
        """Whether a face missed here may be missed for good: a shot, perhaps a short one, begins, or the next search is not soon."""
        return self.cut or self.step_s > SEARCH_SECONDS / 2

    @functools.cached_property
    def _grey_and_scale(self) -> tuple[NDArray[np.uint8], float]:
        full = self.frame.grey
        small = downsample_for_flow(full)
        return small, small.shape[1] / full.shape[1]

    def detected(self) -> DetectedFrame:
        return DetectedFrame(self.frame, self.faces, self.cut)


def propagate_faces(frames: Iterable[tuple[Frame, bool]], detector: FaceDetector, *, search_last: bool = False) -> Iterator[DetectedFrame]:
    """The faces of all frames (each with whether a shot begins with it): detected in some, propagated in the others.

    Each search corrects the frames since the one before:
    - Propagated faces move towards where the search finds them, in proportion to the time.
    - New faces are propagated backward, so that none appears late.

    With `search_last` the last frame is searched too, for a segment that others continue. At most `SEARCH_FRAMES` frames are in memory.
    """
    propagator = _Propagator(detector)
    before_s = -math.inf
    for frame, cut in frames:
        yield from propagator.push(_BufferedFrame(frame, cut, frame.time_s - before_s))
        before_s = frame.time_s
    yield from propagator.flush(search_last=search_last)


class _Propagator:
    """Buffers two groups of frames.

    - `_resolved`: frames since the last search; their faces are known, and the next search corrects them.
    - `_pending`: later frames, whose faces may be interpolated once those of the last one are known.

    `_is_slow`: whether faces moved so little lately that their motion over several frames can be interpolated.
    """

    def __init__(self, detector: FaceDetector) -> None:
        self._detector = detector
        self._region_finder = RegionFinder()
        self._resolved: list[_BufferedFrame] = []
        self._pending: list[_BufferedFrame] = []
        self._searched_s = self._confirmed_s = 0.0
        self._is_slow = True

    def push(self, current: _BufferedFrame) -> Iterator[DetectedFrame]:
        """Adds a frame; yields the frames whose faces are final."""
        if self._pending and (current.cut or current.frame.time_s - self._resolved[-1].frame.time_s > FLOW_SECONDS):
            yield from self._resolve_pending()
        self._pending.append(current)
        if not self._can_wait(current):
            yield from self._resolve_pending()

    def flush(self, *, search_last: bool) -> Iterator[DetectedFrame]:
        """Yields the remaining frames at the end of the video or segment."""
        yield from self._resolve_pending()
        if search_last and len(self._resolved) > 1:
            last = self._resolved.pop()
            propagated = last.faces
            last.faces = self._detector.search(last.frame.pixels, None, thorough=last.is_isolated)
            _correct(self._resolved, propagated, last)
            self._resolved.append(last)
        for each in self._resolved:
            yield each.detected()

    def _can_wait(self, current: _BufferedFrame) -> bool:
        """Whether the faces of this frame may be interpolated from a later one."""
        if current.cut or not self._resolved or not self._is_slow:
            return False
        if self._is_search_due(current, len(self._pending) - 1) or self._is_confirmation_due(current):
            return False
        return current.frame.time_s - self._resolved[-1].frame.time_s + current.step_s <= FLOW_SECONDS

    def _is_search_due(self, current: _BufferedFrame, pending: int = 0) -> bool:
        # Half a step of slack, so that rounded times decide nothing.
        late = current.frame.time_s - self._searched_s > SEARCH_SECONDS - current.step_s / 2
        return late or len(self._resolved) + pending >= SEARCH_FRAMES

    def _is_confirmation_due(self, current: _BufferedFrame) -> bool:
        return current.frame.time_s - self._confirmed_s > CONFIRM_SECONDS - current.step_s / 2

    def _resolve_pending(self) -> Iterator[DetectedFrame]:
        """Interpolates the pending frames from the last of them if faces moved little, and propagates frame by frame otherwise."""
        pending, self._pending = self._pending, []
        if len(pending) > 1:
            *between, end = pending
            propagated = self._propagate(self._resolved[-1], end)
            if propagated is not None and _interpolate(between, self._resolved[-1], end, propagated):
                self._resolved += between
                yield from self._resolve(end, propagated)
                return
        for current in pending:
            yield from self._resolve(current, self._propagate(self._resolved[-1], current) if self._resolved and not current.cut else None)

    def _resolve(self, current: _BufferedFrame, propagated: Faces | None) -> Iterator[DetectedFrame]:
        """Takes the `propagated` faces, or searches."""
        search_due = self._is_search_due(current)
        if propagated is not None and not search_due and self._is_confirmation_due(current):
            self._confirmed_s = current.frame.time_s
            if len(propagated) and not self._detector.confirm(current.frame.pixels, propagated):
                propagated = None
        if propagated is not None and not search_due:
            current.faces = propagated
        else:
            current.faces = self._search(current, propagated)
            self._searched_s = self._confirmed_s = current.frame.time_s
            if not current.cut:
                _correct(self._resolved, propagated, current)
            for each in self._resolved:
                yield each.detected()
            self._resolved = []
        self._resolved.append(current)

    def _propagate(self, start: _BufferedFrame, end: _BufferedFrame) -> Faces | None:
        """The faces of `start` in `end`; None if one is doubtful."""
        propagated = move_faces(start.faces, start.grey, end.grey, scale=start.scale)
        elapsed_s = end.frame.time_s - start.frame.time_s
        self._is_slow = propagated is not None and _displacement(start.faces, propagated) * FLOW_SECONDS <= _MAX_DISPLACEMENT * elapsed_s
        return propagated

    def _search(self, current: _BufferedFrame, propagated: Faces | None) -> Faces:
        """Searches the changed regions and those of `propagated` faces; the whole frame if they are in doubt."""
        found = None
        if propagated is None:
            self._region_finder.reset(current.grey)
        else:
            found = self._region_finder.find(current.grey, propagated.boxes * current.scale)
        regions = None if found is None else [_to_full_size(region, current) for region in found]
        return self._detector.search(current.frame.pixels, regions, thorough=current.is_isolated)


def _to_full_size(region: Region, current: _BufferedFrame) -> Region:
    """A region of the downsampled picture in pixels of the frame."""
    left, top, right, bottom = (side / current.scale for side in region)
    height, width = current.frame.grey.shape
    return int(left), int(top), min(width, math.ceil(right)), min(height, math.ceil(bottom))


def _interpolate(between: Sequence[_BufferedFrame], start: _BufferedFrame, end: _BufferedFrame, propagated: Faces) -> bool:
    """Fills the frames between from the faces of `start`, which are `propagated` to `end`. False if that is doubtful."""
    if _displacement(start.faces, propagated) > _MAX_DISPLACEMENT:
        return False
    references = [_patches(start, start.faces), _patches(end, propagated)]
    times = [start.frame.time_s, end.frame.time_s]
    for each in between:
        each.faces = _blend(start.faces, propagated, float(np.interp(each.frame.time_s, times, [0, 1])))
        patches = _patches(each, each.faces)
        if not (np.maximum(*((patches * reference).sum(axis=1) for reference in references)) >= _MIN_CORRELATION).all():
            return False
    return True


def _blend(start: Faces, end: Faces, share: float) -> Faces:
    """Faces at a `share` of their way (0 to 1)."""
    part = np.float32(share)
    boxes, landmarks = start.boxes + part * (end.boxes - start.boxes), start.landmarks + part * (end.landmarks - start.landmarks)
    return Faces(boxes, landmarks, start.scores, propagated=True)


def _patches(buffered: _BufferedFrame, faces: Faces) -> NDArray[np.float32]:
    """The N faces as 12 x 12 patches of zero mean and unit norm, N x 144: their product is the correlation."""
    grey = buffered.frame.grey
    found = np.zeros((len(faces), _PATCH_PX**2), np.float32)
    corners = np.rint(np.clip(faces.boxes, 0, np.tile(grey.shape[::-1], 2))).astype(int).tolist()
    for patch, (left, top, right, bottom) in zip(found, corners, strict=True):
        step = max(1, min(right - left, bottom - top) // (4 * _PATCH_PX))
        part = np.ascontiguousarray(grey[top:bottom:step, left:right:step])
        if part.size:
            patch[:] = cv2.resize(part, (_PATCH_PX, _PATCH_PX), interpolation=cv2.INTER_AREA).ravel()
    found -= found.mean(axis=1, keepdims=True)
    return np.asarray(found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-6), np.float32)


def _displacement(faces: Faces, moved: Faces) -> float:
    """The largest displacement of a corner, as a share of its face's size."""
    if not len(faces):
        return 0.0
    sizes = (faces.boxes[:, 2:] - faces.boxes[:, :2]).mean(axis=1)
    return float((np.abs(moved.boxes - faces.boxes).max(axis=1) / sizes).max())


def _correct(resolved: list[_BufferedFrame], propagated: Faces | None, searched: _BufferedFrame) -> None:
    """Corrects the frames after the previous search (the first of `resolved`) by what the next search found."""
    if propagated is not None:
        _correct_drift(resolved, propagated, searched)
    _propagate_backward(resolved, searched)


def _correct_drift(resolved: list[_BufferedFrame], propagated: Faces, searched: _BufferedFrame) -> None:
    """Distributes the distance of each propagated face from its detection over the resolved frames, whose faces have the same order."""
    found = searched.faces
    iou = propagated.iou(found)
    times = [resolved[0].frame.time_s, searched.frame.time_s]
    shares = np.interp([each.frame.time_s for each in resolved], times, [0, 1]).astype(np.float32)
    for index in range(len(propagated)):
        other = int(iou[index].argmax()) if len(found) else -1
        if other < 0 or iou[index, other] < _SAME_FACE or iou[:, other].argmax() != index:
            continue
        for each, share in zip(resolved[1:], shares[1:], strict=True):
            each.faces.boxes[index] += share * (found.boxes[other] - propagated.boxes[index])
            each.faces.landmarks[index] += share * (found.landmarks[other] - propagated.landmarks[index])


def _propagate_backward(resolved: list[_BufferedFrame], searched: _BufferedFrame) -> None:
    """Adds the new faces of a search to the resolved frames after the previous search."""
    if len(resolved) < 2 or resolved[-1].grey.shape != searched.grey.shape:
        return
    fresh = searched.faces.subset(~_is_known(searched.faces, resolved[-1].faces))
    after = searched
    for each in resolved[:0:-1]:
        single = [fresh.subset(np.arange(len(fresh)) == index) for index in range(len(fresh))]
        moved = [move_faces(face, after.grey, each.grey, scale=after.scale) for face in single]
        fresh = Faces.joined([face for face in moved if face is not None])
        fresh = fresh.subset(~_is_known(fresh, each.faces))
        if not len(fresh):
            return
        each.faces = dataclasses.replace(Faces.joined([each.faces, fresh]).largest_first(), propagated=True)
        after = each


def _is_known(faces: Faces, others: Faces) -> NDArray[np.bool_]:
    """Which of N faces share their place with one of `others`."""
    if not len(others):
        return np.zeros(len(faces), np.bool_)
    intersection, areas, other_areas = faces.intersection(others)
    return np.asarray((intersection / np.minimum(areas, other_areas)).max(axis=1) > _SAME_PLACE)
