"""Faces carried over frames by optical flow, so that they need not be searched for in each.

Pyramidal Lucas-Kanade flow (Bouguet 2001) of points on a face, back and forth (Kalal et al. 2010), gives one similarity
transform, which moves its box and landmarks, over several frames where it moves little. A search comes at once where anything is doubtful.
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

from batchemo.faces.regions import Region, RegionFinder
from batchemo.records import DetectedFrame, Faces, Frame

SEARCH_SECONDS = 0.48
"""Longest time between two searches. Of 1,460 faces that the exact detector finds in every frame of seven clips 99.5 % are there, at a
mean overlap (IoU) of .929, and no others. With .24 s they were 99.6 % at .929 in 1.4 times the processor time, with .64 s 99.5 %
at .925. At 3 frames a second or fewer every frame is searched. (With flow from each frame to the next, and searches at all scales.)"""

CONFIRM_SECONDS = 0.24
"""Longest time for which faces are followed unseen. Without this look at each of them a false face once stayed for 13 frames."""

FLOW_SECONDS = 0.145
"""Longest time over which motion is seen at once, if it is small, and the face looks the same in between; there it is taken to be even.
(training/RESULTS.md tells what that costs and spares.) Between the times of frames at usual rates, so that rounding decides nothing."""

SEARCH_FRAMES = 16
"""Most frames from one search to the next, which are in memory together."""

_LONGEST_SIDE_PX = 640
_GRID = np.stack(np.meshgrid(np.linspace(0.2, 0.8, 4), np.linspace(0.25, 0.85, 4)), axis=-1).reshape(-1, 2).astype(np.float32)
"""Points that are followed besides the landmarks, as shares of the box."""
_POINTS = len(_GRID) + 5

_WINDOW_PX, _LEVELS = 15, 3
_MAX_RETURN_ERROR = 0.03
"""Distance from where a point started to where the flow brings it back, as a share of the face's size, beyond which it is lost."""
_MAX_RESIDUAL = 0.04
"""The same for the distance from where the face's transform brings it."""
_MIN_SHARE = 0.6
"""Share of the points that must agree."""
_SAME_PLACE = 0.3
"""Share of the smaller of two boxes that they have in common if they are of one face."""
_SAME_FACE = 0.5
"""Overlap (IoU) of where a face was followed to and where a search finds it."""
_MAX_SCALE = 1.15
"""Most that a face grows or shrinks from where its motion is seen to where it leads."""
_NEAR = 0.15
"""Share of its size that a face may go within `FLOW_SECONDS`; else it is followed from each frame to the next."""
_PATCH_PX = 12
_LIKE = 0.85
"""Correlation of a face in between, in so many pixels a side, with what it was before or is afterwards, from which it is there. In eight
clips it was .89 or more (in all but one of a thousand .92); with a fifth of the face covered it is about .6."""


class FaceDetector(Protocol):
    """What looks at pictures: see `batchemo.detect.Detector`."""

    def search(self, frame: NDArray[np.uint8], areas: Sequence[Region] | None, *, thorough: bool) -> Faces:
        """The faces of a frame, or of parts of it; not `thorough` where others soon follow that are searched."""
        ...

    def confirms(self, frame: NDArray[np.uint8], faces: Faces) -> bool:
        """Whether all `faces` (one or more) are where they are said to be."""
        ...


@dataclasses.dataclass
class _Seen:
    """A frame, `step_s` after the one before it, with what is known of its faces so far."""

    frame: Frame
    cut: bool
    step_s: float
    faces: Faces = dataclasses.field(default_factory=Faces.none)

    @property
    def grey(self) -> NDArray[np.uint8]:
        """The picture in which motion is seen, smaller than the frame if that is large."""
        return self._grey_and_scale[0]

    @property
    def scale(self) -> float:
        """Of `grey`: its width, the frame's being 1."""
        return self._grey_and_scale[1]

    @functools.cached_property
    def _grey_and_scale(self) -> tuple[NDArray[np.uint8], float]:
        full = self.frame.grey
        small = _small(full)
        return small, small.shape[1] / full.shape[1]


def propagate_faces(frames: Iterable[tuple[Frame, bool]], finder: FaceDetector, *, search_last: bool = False) -> Iterator[DetectedFrame]:
    """The faces of all frames, each with whether a shot begins with it: found by `finder` in some, carried over in the others.

    What a search finds corrects the frames since the search before: faces that were followed there are moved, in proportion to the time,
    towards where they have turned out to be, and those that are new are followed back, so that none is seen late. With
    `search_last` that holds for the last frames, too, after which others may follow elsewhere. At most `SEARCH_FRAMES` frames are held.
    """
    follower = _Follower(finder)
    before_s = -math.inf
    for frame, cut in frames:
        yield from follower.take(_Seen(frame, cut, frame.time_s - before_s))
        before_s = frame.time_s
    yield from follower.finish(search_last=search_last)


class _Follower:
    """Frames are `held` since the last search, and `waiting` for a later one by which the faces in them can be told as well. `calm`: no
    face has lately moved so quickly that waiting is in vain."""

    def __init__(self, finder: FaceDetector) -> None:
        self._finder = finder
        self._changes = RegionFinder()
        self._held: list[_Seen] = []
        self._waiting: list[_Seen] = []
        self._searched_s = self._looked_s = 0.0
        self._calm = True

    def take(self, seen: _Seen) -> Iterator[DetectedFrame]:
        """Adds a frame; gives those that are done."""
        if self._waiting and (seen.cut or seen.frame.time_s - self._held[-1].frame.time_s > FLOW_SECONDS):
            yield from self._place_waiting()
        self._waiting.append(seen)
        if not self._may_wait(seen):
            yield from self._place_waiting()

    def finish(self, *, search_last: bool) -> Iterator[DetectedFrame]:
        """The frames that are left."""
        yield from self._place_waiting()
        if search_last and len(self._held) > 1:
            last = self._held.pop()
            carried = last.faces
            last.faces = self._finder.search(last.frame.pixels, None, thorough=_stands_alone(last))
            _correct(self._held, carried, last)
            self._held.append(last)
        yield from map(_sighting, self._held)

    def _may_wait(self, seen: _Seen) -> bool:
        if seen.cut or not self._held or not self._calm or self._search_is_due(seen, len(self._waiting) - 1) or self._look_is_due(seen):
            return False
        return seen.frame.time_s - self._held[-1].frame.time_s + seen.step_s <= FLOW_SECONDS

    def _search_is_due(self, seen: _Seen, waiting: int = 0) -> bool:
        # Half a step of slack, so that times that are rounded do not decide.
        return seen.frame.time_s - self._searched_s > SEARCH_SECONDS - seen.step_s / 2 or len(self._held) + waiting >= SEARCH_FRAMES

    def _look_is_due(self, seen: _Seen) -> bool:
        return seen.frame.time_s - self._looked_s > CONFIRM_SECONDS - seen.step_s / 2

    def _place_waiting(self) -> Iterator[DetectedFrame]:
        """Tells the faces of the waiting frames by those of the last one, if they are near there, and else of each by the one before."""
        waiting, self._waiting = self._waiting, []
        if len(waiting) > 1:
            *between, end = waiting
            carried = self._lead(self._held[-1], end)
            if carried is not None and _fill(between, self._held[-1], end, carried):
                self._held += between
                yield from self._place(end, carried)
                return
        for seen in waiting:
            yield from self._place(seen, self._lead(self._held[-1], seen) if self._held and not seen.cut else None)

    def _place(self, seen: _Seen, carried: Faces | None) -> Iterator[DetectedFrame]:
        """Takes the `carried` faces, or searches."""
        due = self._search_is_due(seen)
        if carried is not None and not due and self._look_is_due(seen):
            self._looked_s = seen.frame.time_s
            if len(carried) and not self._finder.confirms(seen.frame.pixels, carried):
                carried = None
        if carried is not None and not due:
            seen.faces = carried
        else:
            seen.faces = _searched(seen, carried, self._finder, self._changes)
            self._searched_s = self._looked_s = seen.frame.time_s
            if not seen.cut:
                _correct(self._held, carried, seen)
            yield from map(_sighting, self._held)
            self._held = []
        self._held.append(seen)

    def _lead(self, start: _Seen, end: _Seen) -> Faces | None:
        """The faces of `start` in `end`, None where one is doubtful, and whether they are calm."""
        carried = _carried(start.faces, start, end)
        elapsed_s = end.frame.time_s - start.frame.time_s
        self._calm = carried is not None and _distance(start.faces, carried) * FLOW_SECONDS <= _NEAR * elapsed_s
        return carried


def _stands_alone(seen: _Seen) -> bool:
    """Whether what a search misses here may be missed for good: where a shot begins, which may be short, or the next search is not soon."""
    return seen.cut or seen.step_s > SEARCH_SECONDS / 2


def _fill(between: Sequence[_Seen], start: _Seen, end: _Seen, carried: Faces) -> bool:
    """Puts the faces of `start`, which are `carried` to `end`, into the frames between. False where that cannot be told."""
    if _distance(start.faces, carried) > _NEAR:
        return False
    known = [_patches(start, start.faces), _patches(end, carried)]
    times = [start.frame.time_s, end.frame.time_s]
    for seen in between:
        seen.faces = _between(start.faces, carried, float(np.interp(seen.frame.time_s, times, [0, 1])))
        patches = _patches(seen, seen.faces)
        if not (np.maximum(*((patches * each).sum(axis=1) for each in known)) >= _LIKE).all():
            return False
    return True


def _patches(seen: _Seen, faces: Faces) -> NDArray[np.float32]:
    """The N faces at their boxes, whatever their brightness and contrast: unit vectors, N x 144."""
    grey = seen.frame.grey
    found = np.zeros((len(faces), _PATCH_PX**2), np.float32)
    corners = np.rint(np.clip(faces.boxes, 0, np.tile(grey.shape[::-1], 2))).astype(int).tolist()
    for patch, (left, top, right, bottom) in zip(found, corners, strict=True):
        step = max(1, min(right - left, bottom - top) // (4 * _PATCH_PX))
        part = np.ascontiguousarray(grey[top:bottom:step, left:right:step])
        if part.size:
            patch[:] = cv2.resize(part, (_PATCH_PX, _PATCH_PX), interpolation=cv2.INTER_AREA).ravel()
    found -= found.mean(axis=1, keepdims=True)
    return np.asarray(found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-6), np.float32)


def _searched(seen: _Seen, carried: Faces | None, finder: FaceDetector, changes: RegionFinder) -> Faces:
    """What a search finds where `carried` faces are and something has changed; anywhere, where these are in doubt."""
    areas = None
    if carried is None:
        changes.restart(seen.grey)
    else:
        areas = changes.areas(seen.grey, carried.boxes * seen.scale)
    places = None if areas is None else [_enlarged(area, seen) for area in areas]
    return finder.search(seen.frame.pixels, places, thorough=_stands_alone(seen))


def _enlarged(area: Region, seen: _Seen) -> Region:
    """An area of the small picture in the frame."""
    left, top, right, bottom = (side / seen.scale for side in area)
    height, width = seen.frame.grey.shape
    return int(left), int(top), min(width, math.ceil(right)), min(height, math.ceil(bottom))


def _correct(held: list[_Seen], carried: Faces | None, found: _Seen) -> None:
    """Of the held frames, but of the first, which has been searched, what a search shows that `carried` faces did not."""
    if carried is not None:
        _draw_towards(held, carried, found)
    _follow_back(held, found)


def _draw_towards(held: list[_Seen], carried: Faces, end: _Seen) -> None:
    """Shares the distance of each carried face from where it is found at the `end` among the held frames, whose faces are those, in their
    order."""
    found = end.faces
    overlap = carried.overlap(found)
    shares = np.interp([seen.frame.time_s for seen in held], [held[0].frame.time_s, end.frame.time_s], [0, 1]).astype(np.float32)
    for index in range(len(carried)):
        other = int(overlap[index].argmax()) if len(found) else -1
        if other < 0 or overlap[index, other] < _SAME_FACE or overlap[:, other].argmax() != index:
            continue
        for seen, share in zip(held[1:], shares[1:], strict=True):
            seen.faces.boxes[index] += share * (found.boxes[other] - carried.boxes[index])
            seen.faces.landmarks[index] += share * (found.landmarks[other] - carried.landmarks[index])


def _follow_back(held: list[_Seen], found: _Seen) -> None:
    """Adds to the held frames, but to the first, which has been searched, those faces of `found` that nobody has followed there."""
    if len(held) < 2 or held[-1].grey.shape != found.grey.shape:
        return
    fresh = found.faces.subset(~_known(found.faces, held[-1].faces))
    after = found
    for seen in held[:0:-1]:
        moved = [_carried(fresh.subset(np.arange(len(fresh)) == index), after, seen) for index in range(len(fresh))]
        fresh = Faces.joined([each for each in moved if each is not None])
        fresh = fresh.subset(~_known(fresh, seen.faces))
        if not len(fresh):
            return
        seen.faces = dataclasses.replace(Faces.joined([seen.faces, fresh]).largest_first(), followed=True)
        after = seen


def _known(faces: Faces, others: Faces) -> NDArray[np.bool_]:
    """Which faces share their place with one of `others`."""
    if not len(others):
        return np.zeros(len(faces), np.bool_)
    shared, own, theirs = faces.shared(others)
    return np.asarray((shared / np.minimum(own, theirs)).max(axis=1) > _SAME_PLACE)


def _distance(faces: Faces, moved: Faces) -> float:
    """How far a corner of one of `faces` has gone, as a share of the face's size."""
    if not len(faces):
        return 0.0
    sizes = (faces.boxes[:, 2:] - faces.boxes[:, :2]).mean(axis=1)
    return float((np.abs(moved.boxes - faces.boxes).max(axis=1) / sizes).max())


def _between(start: Faces, end: Faces, share: float) -> Faces:
    """Faces at a `share` of their way (0 to 1)."""
    part = np.float32(share)
    boxes, landmarks = start.boxes + part * (end.boxes - start.boxes), start.landmarks + part * (end.landmarks - start.landmarks)
    return Faces(boxes, landmarks, start.scores, followed=True)


def _sighting(seen: _Seen) -> DetectedFrame:
    return DetectedFrame(seen.frame, seen.faces, seen.cut)


def _small(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = grey.shape
    longest = max(height, width)
    if longest > _LONGEST_SIDE_PX:
        scale = _LONGEST_SIDE_PX / longest
        size = max(1, round(width * scale)), max(1, round(height * scale))
        # OpenCV is quick at exact halves only; elsewhere the blur of an area mean is not worth twenty times the time.
        exact = size[0] * 2 == width and size[1] * 2 == height
        grey = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA if exact else cv2.INTER_LINEAR), np.uint8)
    return grey


def _carried(faces: Faces, start: _Seen, end: _Seen) -> Faces | None:
    """`faces`, which are those of `start` or some of them, where they are in `end`; None where one of them is doubtful."""
    if start.grey.shape != end.grey.shape:
        return None
    if not len(faces):
        return dataclasses.replace(faces, followed=True)
    scale = start.scale
    sizes = (faces.boxes[:, 2:] - faces.boxes[:, :2]).mean(axis=1)
    grid = faces.boxes[:, None, :2] + _GRID * (faces.boxes[:, None, 2:] - faces.boxes[:, None, :2])
    points = np.concatenate([faces.landmarks, grid], axis=1) * scale
    moved, known = _flow(start.grey, end.grey, points.reshape(-1, 2), np.repeat(sizes * scale, _POINTS))
    boxes, landmarks = faces.boxes.copy(), faces.landmarks.copy()
    for index, (begin, stop, sure) in enumerate(zip(points, moved.reshape(points.shape), known.reshape(-1, _POINTS), strict=True)):
        transform = _similarity(begin, stop, sure, tolerance=_MAX_RESIDUAL * float(sizes[index]) * scale)
        if transform is None:
            return None
        landmarks[index] = _moved(landmarks[index] * scale, transform) / scale
        low, high = faces.boxes[index].reshape(2, 2)
        (centre,) = _moved((low + high)[None] / 2 * scale, transform) / scale
        half = (high - low) / 2 * float(np.hypot(transform[0, 0], transform[1, 0]))
        boxes[index] = np.concatenate([centre - half, centre + half])
        if (centre < 0).any() or (centre * scale >= end.grey.shape[::-1]).any():
            return None
    return Faces(boxes, landmarks, faces.scores, followed=True)


def _flow(
    before: NDArray[np.uint8], after: NDArray[np.uint8], points: NDArray[np.floating], sizes: NDArray[np.floating]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Where N points (N x 2, px) have gone, and which of them come back to within a share of their face's size (N, px)."""
    window = (_WINDOW_PX, _WINDOW_PX)
    start = np.ascontiguousarray(points[:, None], np.float32)
    moved, found, _ = cv2.calcOpticalFlowPyrLK(before, after, start, np.empty_like(start), winSize=window, maxLevel=_LEVELS)
    returned, back, _ = cv2.calcOpticalFlowPyrLK(after, before, moved, np.empty_like(start), winSize=window, maxLevel=_LEVELS)
    error = np.hypot(*(returned - start)[:, 0].T)
    sure = (found[:, 0] > 0) & (back[:, 0] > 0) & (error <= _MAX_RETURN_ERROR * sizes)
    return moved[:, 0].astype(np.float32), np.asarray(sure, np.bool_)


def _similarity(
    start: NDArray[np.float32], end: NDArray[np.float32], sure: NDArray[np.bool_], *, tolerance: float
) -> NDArray[np.float64] | None:
    """The 2 x 3 similarity transform that most points agree on, within `tolerance` px; None where too few of them do."""
    least = _MIN_SHARE * len(start)
    if sure.sum() < least:
        return None
    transform = _fitted(start[sure], end[sure])
    near = sure & (np.hypot(*(_moved(start, transform) - end).T) <= tolerance)
    if near.sum() < least:
        return None
    transform = _fitted(start[near], end[near])
    growth = float(np.hypot(transform[0, 0], transform[1, 0]))
    return transform if 1 / _MAX_SCALE <= growth <= _MAX_SCALE else None


def _fitted(start: NDArray[np.float32], end: NDArray[np.float32]) -> NDArray[np.float64]:
    """By least squares, with points as complex numbers, where such a transform is z -> a z + b."""
    z, w = (points[:, 0].astype(np.float64) + 1j * points[:, 1] for points in (start, end))
    centred = z - z.mean()
    a = complex((centred.conj() @ (w - w.mean())) / max(float((centred.conj() @ centred).real), 1e-12))
    b = complex(w.mean() - a * z.mean())
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def _moved(points: NDArray[np.float32], transform: NDArray[np.float64]) -> NDArray[np.float32]:
    return (points @ transform[:, :2].T + transform[:, 2]).astype(np.float32)
