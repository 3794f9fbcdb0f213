"""Who is who over the frames of a medium: detections joined to tracks by predicted place and look."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from batchemo.records import Faces

GAP_SECONDS = 0.5
"""Longest time out of view that a track outlives; with fewer than two frames in it, one and a half steps of the frames."""

_GAP_STEPS = 1.5
_MIN_OVERLAP = 0.15
_REACH = 0.6
"""Farthest jump from the predicted place, as a share of the face's size, where the look alone may decide."""
_SURE_LOOK = 0.6
_LOOK_WEIGHT = 0.6
_LOOK_MEMORY = 0.8
_VELOCITY_MEMORY = 0.6
_IMPOSSIBLE = -1e6


@dataclasses.dataclass(slots=True)
class _Track:
    track_id: int
    box: NDArray[np.float64]
    velocity: NDArray[np.float64]  # of the four coordinates, px a second
    seen_s: float
    look: NDArray[np.floating]

    def predicted(self, time_s: float) -> NDArray[np.float64]:
        return self.box + self.velocity * (time_s - self.seen_s)

    def see(self, box: NDArray[np.float64], look: NDArray[np.float32], time_s: float) -> None:
        elapsed = time_s - self.seen_s
        if elapsed > 0:
            # One motion for the whole box: edges jitter more than faces move.
            shift = (box - self.box).reshape(2, 2).mean(axis=0) / elapsed
            self.velocity = _VELOCITY_MEMORY * self.velocity + (1 - _VELOCITY_MEMORY) * np.tile(shift, 2)
        self.box, self.seen_s = box, time_s
        blended = _LOOK_MEMORY * self.look + (1 - _LOOK_MEMORY) * look
        self.look = blended / max(float(np.linalg.norm(blended)), 1e-6)


class Tracker:
    """Gives faces their `track_id`, counted from 1 within a medium, frame by frame, in memory that does not grow.

    A track ends at a cut, and after `GAP_SECONDS` out of view. Looks are kept while a track lives and never written.
    """

    def __init__(self) -> None:
        self._tracks: list[_Track] = []
        self._next_id = 1
        self._time_s: float | None = None

    @property
    def count(self) -> int:
        """Tracks begun so far."""
        return self._next_id - 1

    def update(self, time_s: float, faces: Faces, looks: NDArray[np.float32], *, cut: bool) -> NDArray[np.int32]:
        """Track ids, int32 N, of the N faces of the next frame, with which a shot may begin; times must not decrease.

        `looks` float32 N x D are those of `batchemo.appearance`.
        """
        if cut:
            self._tracks = []
        step = time_s - self._time_s if self._time_s is not None else 0.0
        self._time_s = time_s
        longest_gap = max(GAP_SECONDS, _GAP_STEPS * step) + 1e-6
        self._tracks = [track for track in self._tracks if time_s - track.seen_s <= longest_gap]
        boxes = faces.boxes.astype(np.float64)
        ids = np.zeros(len(faces), np.int32)
        for row, column in self._assign(boxes, looks, time_s):
            self._tracks[row].see(boxes[column], looks[column], time_s)
            ids[column] = self._tracks[row].track_id
        for column in np.flatnonzero(ids == 0).tolist():
            self._tracks.append(_Track(self._next_id, boxes[column], np.zeros(4), time_s, looks[column]))
            ids[column] = self._next_id
            self._next_id += 1
        return ids

    def _assign(self, boxes: NDArray[np.float64], looks: NDArray[np.float32], time_s: float) -> list[tuple[int, int]]:
        if not self._tracks or not len(boxes):
            return []
        predicted = np.stack([track.predicted(time_s) for track in self._tracks])
        similarity = np.stack([track.look for track in self._tracks]) @ looks.T
        overlap = _overlaps(predicted, boxes)
        near = _distances(predicted, boxes) < _REACH
        possible = (overlap >= _MIN_OVERLAP) | (near & (similarity >= _SURE_LOOK))
        affinity = np.where(possible, overlap + _LOOK_WEIGHT * similarity, _IMPOSSIBLE)
        rows, columns = linear_sum_assignment(affinity, maximize=True)
        return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if possible[r, c]]


def _overlaps(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union, N x M, of N x 4 and M x 4 boxes."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1) for boxes in (first, second)]
    return np.asarray(shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-9))


def _distances(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of the centres, N x M, as a share of the mean size of the two boxes."""
    centres = [(boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (first, second)]
    sizes = [(boxes[:, 2:] - boxes[:, :2]).mean(axis=1) for boxes in (first, second)]
    apart = np.linalg.norm(centres[0][:, None] - centres[1][None], axis=2)
    return np.asarray(apart / np.maximum((sizes[0][:, None] + sizes[1][None]) / 2, 1e-9))
