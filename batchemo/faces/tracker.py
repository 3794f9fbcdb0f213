"""Tracking: assigns the faces of a video to tracks, online, by motion and appearance embeddings.

All pairs of tracks and faces are scored, and the best assignment is taken (Hungarian algorithm). As in OC-SORT (Cao et al. 2023), velocity
comes from observations over several frames, not from a filter that drifts during occlusions.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from batchemo.faces.reid import EMBEDDING_SIZE
from batchemo.records import Faces

TRACK_GAP_SECONDS = 0.5
"""Longest time out of view that a track survives by motion alone; at low frame rates, one and a half frame intervals."""

GALLERY_SIZE = 64
"""Most tracks in memory: beyond it the one out of view for longest is forgotten."""

_GAP_STEPS = 1.5
_VELOCITY_SECONDS = 0.12
"""Time constant of the average velocity: a few frames, because boxes jitter more than faces move."""
_COAST_SECONDS = 0.25
"""Time constant with which the velocity of a hidden face fades."""

_SPREAD, _SPREAD_PER_SECOND = 0.16, 1.1
"""Standard deviation of a face's distance from its predicted place, in sizes of the face, and its growth per second out of view."""
_SPREAD_SECONDS = 2.0
"""Time after which it grows no more: people also stay where they are."""
_SCALE_SPREAD = 0.2
"""Standard deviation of the logarithm of its size."""
_SIMILARITY_WEIGHT = 14.0
_NEUTRAL_SIMILARITY = 0.55
"""Similarity of embeddings that speaks neither for nor against the same person, and the nats that a difference of 1 from it is worth."""
_MAX_PENALTY = 4.0
"""Most nats that an embedding counts against a track: hair, hands and turning away change it at once."""
_MIN_SCORE = -7.0
"""Score below which a face starts a new track."""

_MAX_VIEWS = 6
"""Embeddings kept per track: views of the person."""
_NEW_VIEW = 0.8
"""Similarity to all known views below which an embedding becomes a new view."""
_VIEW_RATE = 0.1
"""Weight of an embedding that updates a view."""
_DOUBTFUL_VIEW = 0.45
"""Similarity below which an embedding is not kept: it may be of another person, or of a hand."""
_MAX_VIEW_OCCLUSION = 0.1
"""Overlap with another face beyond which an embedding is not kept: it may be partly of that face."""

_LOST_SCORE = -7.7
"""Motion score of a lost track, which may be anywhere: only a similarity of .6 or more makes up for it. Nearly all people who return reach
that, and no strangers (see docs/benchmarks.md)."""
_MIN_MARGIN = 0.06
"""Least lead in similarity with which a lost track takes a face from all other tracks, unless it is `_UNMISTAKABLE`."""
_UNMISTAKABLE = 0.8
_REID_GAP_SECONDS = 6.0
"""As `TRACK_GAP_SECONDS`, with embeddings."""
_FULL_OCCLUSION, _OCCLUDED_WEIGHT = 0.6, 0.15
"""Overlap with another face from which an embedding has its least weight, and that weight as a share."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Tracks:
    """The state of T tracks, in the order in which they started.

    - `boxes` T x 4 (px), `velocity` T x 2 (px per second) and `last_seen_s` T: of the last observation.
    - `in_shot` T: last seen in the current shot; `active` T: and recently, so that motion predicts where they are.
    - `views` T x `_MAX_VIEWS` x `EMBEDDING_SIZE`, of which the first `n_views` T are filled.
    """

    ids: NDArray[np.int32]
    boxes: NDArray[np.float64]
    velocity: NDArray[np.float64]
    last_seen_s: NDArray[np.float64]
    in_shot: NDArray[np.bool_]
    active: NDArray[np.bool_]
    views: NDArray[np.float32]
    n_views: NDArray[np.intp]

    @classmethod
    def start(cls, ids: NDArray[np.int32], boxes: NDArray[np.float64], time_s: float) -> _Tracks:
        """New tracks, without views."""
        count = len(ids)
        true = np.ones(count, np.bool_)
        views = np.zeros((count, _MAX_VIEWS, EMBEDDING_SIZE), np.float32)
        return cls(ids, boxes, np.zeros((count, 2)), np.full(count, time_s), true, true.copy(), views, np.zeros(count, np.intp))

    def __len__(self) -> int:
        return len(self.ids)

    def subset(self, chosen: NDArray[np.bool_]) -> _Tracks:
        return _Tracks(*(getattr(self, field.name)[chosen] for field in dataclasses.fields(self)))

    def joined(self, others: _Tracks) -> _Tracks:
        return _Tracks(*(np.concatenate([getattr(part, field.name) for part in (self, others)]) for field in dataclasses.fields(self)))


class Tracker:
    """Assigns `track_id`s, counted from 1 within a medium, frame by frame, in bounded memory.

    - With `appearance` a track that ended, at a cut or out of view, continues when a face is similar enough to it (re-identification).
    - Without, embeddings are ignored: a track ends for good at a cut, and after `TRACK_GAP_SECONDS` out of view.
    """

    def __init__(self, *, appearance: bool = True) -> None:
        self.appearance = appearance
        self._count = 0
        self._time_s: float | None = None
        self._tracks: _Tracks | None = None

    @property
    def count(self) -> int:
        """Tracks started so far."""
        return self._count

    def update(self, time_s: float, faces: Faces, embeddings: NDArray[np.float32] | None, *, cut: bool) -> NDArray[np.int32]:
        """Track ids, int32 N, of the N faces of the next frame; times must not decrease.

        - `embeddings`: float32 N x `EMBEDDING_SIZE`, of unit norm, from `embed_faces`; None: motion alone decides.
        - `cut`: a shot begins with this frame.
        """
        step = time_s - self._time_s if self._time_s is not None else 0.0
        self._time_s = time_s
        boxes = faces.boxes.astype(np.float64)
        if not self.appearance:
            embeddings = None
        tracks = self._tracks
        if tracks is None:
            return self._start(boxes, embeddings, time_s)
        if cut:
            tracks.in_shot[:] = False
        gap = _REID_GAP_SECONDS if self.appearance else TRACK_GAP_SECONDS
        tracks.active[:] = tracks.in_shot & (time_s - tracks.last_seen_s <= max(gap, _GAP_STEPS * step) + 1e-6)
        if not len(boxes):
            return np.empty(0, np.int32)
        occlusion = _occlusion(boxes)
        assigned = self._assign(tracks, boxes, embeddings, occlusion, time_s, step)
        ids = np.zeros(len(boxes), np.int32)
        known = assigned >= 0
        ids[known] = tracks.ids[assigned[known]]
        _update_motion(tracks, assigned, boxes, time_s)
        if embeddings is not None:
            unoccluded = known & (occlusion < _MAX_VIEW_OCCLUSION)
            _update_views(tracks, assigned[unoccluded], embeddings[unoccluded])
        if not known.all():
            ids[~known] = self._start(boxes[~known], None if embeddings is None else embeddings[~known], time_s)
        return ids

    def _assign(
        self,
        tracks: _Tracks,
        boxes: NDArray[np.float64],
        embeddings: NDArray[np.float32] | None,
        occlusion: NDArray[np.float64],
        time_s: float,
        step: float,
    ) -> NDArray[np.intp]:
        """For each of N boxes the row of the track that continues with it, or -1."""
        assigned = np.full(len(boxes), -1, np.intp)
        score = _motion_score(tracks.boxes, tracks.velocity, time_s - tracks.last_seen_s, boxes, step)
        score[~tracks.active] = -np.inf
        if embeddings is not None:
            lost = score <= _LOST_SCORE
            similarity = _similarity(tracks, embeddings)
            weight = _SIMILARITY_WEIGHT * np.clip(1 - occlusion / _FULL_OCCLUSION, _OCCLUDED_WEIGHT, 1)
            score = np.maximum(score, _LOST_SCORE) + np.maximum(weight * (similarity - _NEUTRAL_SIMILARITY), -_MAX_PENALTY)
            unsure = (similarity < _best_other(similarity) + _MIN_MARGIN) & (similarity < _UNMISTAKABLE)
            score[lost & unsure] = _MIN_SCORE
        rows, columns = linear_sum_assignment(np.maximum(score, _MIN_SCORE), maximize=True)
        possible = score[rows, columns] > _MIN_SCORE
        assigned[columns[possible]] = rows[possible]
        return assigned

    def _start(self, boxes: NDArray[np.float64], embeddings: NDArray[np.float32] | None, time_s: float) -> NDArray[np.int32]:
        if not len(boxes):
            return np.empty(0, np.int32)
        ids = np.arange(self._count + 1, self._count + len(boxes) + 1, dtype=np.int32)
        self._count += len(boxes)
        fresh = _Tracks.start(ids, boxes, time_s)
        if embeddings is not None:
            fresh.views[:, 0] = embeddings
            fresh.n_views[:] = 1
        if self._tracks is None:
            self._tracks = fresh
            return ids
        kept = self._tracks if self.appearance else self._tracks.subset(self._tracks.active)
        excess = len(kept) + len(fresh) - GALLERY_SIZE
        if excess > 0:
            age = np.where(kept.active, -np.inf, time_s - kept.last_seen_s)
            oldest = np.argsort(-age, kind="stable")[:excess]
            forgotten = np.zeros(len(kept), np.bool_)
            forgotten[oldest] = True
            kept = kept.subset(kept.active | ~forgotten)
        self._tracks = kept.joined(fresh)
        return ids


def _motion_score(
    last: NDArray[np.float64], velocity: NDArray[np.float64], unseen_s: NDArray[np.float64], boxes: NDArray[np.float64], step: float
) -> NDArray[np.float64]:
    """Log-likelihood of T tracks at the places of N boxes, T x N, up to a constant."""
    # The velocity fades beyond the next frame: a hidden person may have stopped.
    coasted = step + _COAST_SECONDS * (1 - np.exp(-np.maximum(unseen_s - step, 0) / _COAST_SECONDS))
    predicted = last + np.tile(velocity * coasted[:, None], 2)
    spread = (_SPREAD + _SPREAD_PER_SECOND * np.minimum(unseen_s, _SPREAD_SECONDS))[:, None]
    growth = np.log(_sizes(boxes)[None] / _sizes(last)[:, None])
    score = -((_distance(predicted, boxes) / spread) ** 2 + (growth / _SCALE_SPREAD) ** 2) / 2 - 2 * np.log(spread / _SPREAD)
    return np.asarray(score)


def _update_motion(tracks: _Tracks, assigned: NDArray[np.intp], boxes: NDArray[np.float64], time_s: float) -> None:
    """Updates boxes and velocities of the tracks that N boxes are `assigned` to (rows of `tracks`, or -1)."""
    (seen,) = np.nonzero(assigned >= 0)
    rows, boxes_seen = assigned[seen], boxes[seen]
    elapsed = time_s - tracks.last_seen_s[rows]
    moved = (boxes_seen - tracks.boxes[rows]).reshape(-1, 2, 2).mean(axis=1) / np.maximum(elapsed, 1e-6)[:, None]
    share = np.where(elapsed > 0, 1 - np.exp(-elapsed / _VELOCITY_SECONDS), 0.0)[:, None]
    velocity = (1 - share) * tracks.velocity[rows] + share * moved
    tracks.velocity[rows] = np.where(tracks.active[rows, None], velocity, 0.0)
    tracks.boxes[rows], tracks.last_seen_s[rows], tracks.in_shot[rows], tracks.active[rows] = boxes_seen, time_s, True, True


def _occlusion(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest overlap of each of N boxes with another one, 0 to 1."""
    overlap = _overlap(boxes, boxes)
    np.fill_diagonal(overlap, 0)
    return np.asarray(overlap.max(axis=1))


def _best_other(similar: NDArray[np.float32]) -> NDArray[np.float32]:
    """For each track and face, T x N, the face's largest similarity to any other track."""
    if len(similar) < 2:
        return np.full_like(similar, -1)
    second, best = np.partition(similar, -2, axis=0)[-2:]
    return np.asarray(np.where(similar >= best, second, best))


def _update_views(tracks: _Tracks, rows: NDArray[np.intp], embeddings: NDArray[np.float32]) -> None:
    """Adds embeddings, N x `EMBEDDING_SIZE`, to the tracks `rows`, N: as a new view, or averaged into the most similar one."""
    similar = np.einsum("nvd,nd->nv", tracks.views[rows], embeddings)
    nearest = similar.argmax(axis=1)
    close = similar[np.arange(len(rows)), nearest]
    fresh = (close < _NEW_VIEW) & (close >= _DOUBTFUL_VIEW) & (tracks.n_views[rows] < _MAX_VIEWS)
    fresh |= tracks.n_views[rows] == 0
    place = np.where(fresh, tracks.n_views[rows], nearest)
    rate = np.where(fresh, 1.0, np.where(close >= _DOUBTFUL_VIEW, _VIEW_RATE, 0.0))[:, None].astype(np.float32)
    blended = (1 - rate) * tracks.views[rows, place] + rate * embeddings
    tracks.views[rows, place] = blended / np.maximum(np.linalg.norm(blended, axis=1, keepdims=True), 1e-6)
    tracks.n_views[rows] += fresh


def _similarity(tracks: _Tracks, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Similarity of N embeddings to the most similar view of each of T tracks, T x N; neutral for tracks without views."""
    count, kept, size = tracks.views.shape
    similar = (tracks.views.reshape(-1, size) @ embeddings.T).reshape(count, kept, len(embeddings)).max(axis=1)
    similar[tracks.n_views == 0] = _NEUTRAL_SIMILARITY
    return np.asarray(similar)


def _sizes(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.maximum((boxes[:, 2:] - boxes[:, :2]).mean(axis=1), 1.0))


def _distance(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of the centres, N x M, as a share of the mean size of both boxes."""
    centres = [(boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (first, second)]
    apart = np.sqrt(((centres[0][:, None] - centres[1][None]) ** 2).sum(axis=2))
    return np.asarray(2 * apart / (_sizes(first)[:, None] + _sizes(second)[None]))


def _overlap(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection as a share of the smaller box, N x M."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.maximum(high - low, 0).prod(axis=2)
    areas = [np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1) for boxes in (first, second)]
    return np.asarray(shared / np.maximum(np.minimum(areas[0][:, None], areas[1][None]), 1e-9))
