"""Who is who over the frames of a medium: faces joined to tracks by where they should be and by their look.

Tracking by detection, online: all pairs of tracks and faces are scored by motion and look, and the best assignment is taken. As in
OC-SORT (Cao et al. 2023), motion is read off what was seen, over several frames, and not off a filter that drifts while nothing is.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from batchemo.faces.reid import EMBEDDING_SIZE
from batchemo.records import Faces

TRACK_GAP_SECONDS = 0.5
"""Longest time out of view that a track outlives by its motion alone; with fewer than two frames in it, one and a half steps of them."""

GALLERY_SIZE = 64
"""Tracks that are remembered: when more have been seen, the one out of view for longest is forgotten."""

_GAP_STEPS = 1.5
_VELOCITY_SECONDS = 0.12
"""Time over which motion is averaged: a few frames, since edges of boxes jitter more than faces move."""
_COAST_SECONDS = 0.25
"""A motion that is not seen any more fades within this time."""

_SPREAD, _SPREAD_PER_SECOND = 0.16, 1.1
"""Standard deviation of a face's place about the predicted one, in sizes of the face, at once and by seconds of not being seen."""
_SPREAD_SECONDS = 2.0
"""Time after which it does not grow any more: people stay where they are, too."""
_SCALE_SPREAD = 0.2
"""The same for the logarithm of its size."""
_LOOK_WEIGHT = 14.0
_LOOK_EVEN = 0.55
"""Similarity of looks that speaks neither for nor against the same person, and how many nats a difference of 1 from it is worth."""
_MOST_AGAINST = 4.0
"""Most that a look speaks against: hair, hands and turning away change it at once."""
_LEAST_SCORE = -7.0
"""Score below which a face rather begins a new track."""

_VIEWS = 6
"""Looks that are remembered of each track."""
_NEW_VIEW = 0.8
"""Similarity to all known views below which a look is a view of its own."""
_VIEW_RATE = 0.1
_DOUBTFUL_VIEW = 0.45
"""Similarity below which a look is not remembered: it may be of somebody else, or of a hand."""
_CROWDED = 0.1
"""Overlap with another face beyond which a look may be partly of that one, and is not remembered."""

_ANYWHERE = -7.7
"""Score of the place of a track that was lost, and may be anywhere: only a look of .6 or more makes up for it. On held-out drawn faces
97 % of first views after a cut or a return reach that, and of people who have not been seen before none."""
_MARGIN = 0.06
"""How much more similar such a look must be than to any other track, unless it is `_UNMISTAKABLE`."""
_UNMISTAKABLE = 0.8
_HIDDEN_SECONDS = 6.0
"""As `TRACK_GAP_SECONDS`, where the look has a say."""
_COVERED, _COVERED_WEIGHT = 0.6, 0.15
"""Overlap with another face at which a look has least weight, and which."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Tracks:
    """What is known of T tracks, in the order of their beginning.

    `boxes` T x 4 (px), `velocity` T x 2 (px a second), `seen_s` T, `here`: last seen in this shot, `awake`: and lately,
    `views` T x V x `EMBEDDING_SIZE`: looks, of which `n_views` T are there.
    """

    ids: NDArray[np.int32]
    boxes: NDArray[np.float64]
    velocity: NDArray[np.float64]
    seen_s: NDArray[np.float64]
    here: NDArray[np.bool_]
    awake: NDArray[np.bool_]
    views: NDArray[np.float32]
    n_views: NDArray[np.intp]

    @classmethod
    def begun(cls, ids: NDArray[np.int32], boxes: NDArray[np.float64], time_s: float) -> _Tracks:
        """Tracks without any view."""
        count = len(ids)
        there = np.ones(count, np.bool_)
        views = np.zeros((count, _VIEWS, EMBEDDING_SIZE), np.float32)
        return cls(ids, boxes, np.zeros((count, 2)), np.full(count, time_s), there, there.copy(), views, np.zeros(count, np.intp))

    def __len__(self) -> int:
        return len(self.ids)

    def subset(self, chosen: NDArray[np.bool_]) -> _Tracks:
        return _Tracks(*(getattr(self, field.name)[chosen] for field in dataclasses.fields(self)))

    def joined(self, others: _Tracks) -> _Tracks:
        return _Tracks(*(np.concatenate([getattr(part, field.name) for part in (self, others)]) for field in dataclasses.fields(self)))


class Tracker:
    """Gives faces their `track_id`, counted from 1 within a medium, frame by frame, in memory that does not grow.

    A track ends at a cut, and where motion and look cannot say any more where it went on. It is taken up again later where the look
    is sure. Without `appearance` looks are not read: a track then ends at a cut, and after `TRACK_GAP_SECONDS` out of view, for good.
    """

    def __init__(self, *, appearance: bool = True) -> None:
        self.appearance = appearance
        self._begun = 0
        self._time_s: float | None = None
        self._tracks: _Tracks | None = None

    @property
    def count(self) -> int:
        """Tracks begun so far."""
        return self._begun

    def update(self, time_s: float, faces: Faces, looks: NDArray[np.float32] | None, *, cut: bool) -> NDArray[np.int32]:
        """Track ids, int32 N, of the N faces of the next frame, with which a shot may begin; times must not decrease.

        `looks` float32 N x `EMBEDDING_SIZE`, of unit length, as `embed_faces` gives them, or None where nobody has looked: there motion
        decides.
        """
        step = time_s - self._time_s if self._time_s is not None else 0.0
        self._time_s = time_s
        boxes = faces.boxes.astype(np.float64)
        if not self.appearance:
            looks = None
        tracks = self._tracks
        if tracks is None:
            return self._begin(boxes, looks, time_s)
        if cut:
            tracks.here[:] = False
        gap = _HIDDEN_SECONDS if self.appearance else TRACK_GAP_SECONDS
        tracks.awake[:] = tracks.here & (time_s - tracks.seen_s <= max(gap, _GAP_STEPS * step) + 1e-6)
        if not len(boxes):
            return np.empty(0, np.int32)
        crowding = _crowding(boxes)
        owners = self._owners(tracks, boxes, looks, crowding, time_s, step)
        ids = np.zeros(len(boxes), np.int32)
        known = owners >= 0
        ids[known] = tracks.ids[owners[known]]
        _see(tracks, owners, boxes, time_s)
        if looks is not None:
            clear = known & (crowding < _CROWDED)
            _remember(tracks, owners[clear], looks[clear])
        if not known.all():
            ids[~known] = self._begin(boxes[~known], None if looks is None else looks[~known], time_s)
        return ids

    def _owners(
        self,
        tracks: _Tracks,
        boxes: NDArray[np.float64],
        looks: NDArray[np.float32] | None,
        crowding: NDArray[np.float64],
        time_s: float,
        step: float,
    ) -> NDArray[np.intp]:
        """For each of N boxes the row of the track that goes on with it, or -1."""
        owners = np.full(len(boxes), -1, np.intp)
        score = _motion_score(tracks.boxes, tracks.velocity, time_s - tracks.seen_s, boxes, step)
        score[~tracks.awake] = -np.inf
        if looks is not None:
            lost = score <= _ANYWHERE
            similar = _similarity(tracks, looks)
            weight = _LOOK_WEIGHT * np.clip(1 - crowding / _COVERED, _COVERED_WEIGHT, 1)
            score = np.maximum(score, _ANYWHERE) + np.maximum(weight * (similar - _LOOK_EVEN), -_MOST_AGAINST)
            unsure = (similar < _rivals(similar) + _MARGIN) & (similar < _UNMISTAKABLE)
            score[lost & unsure] = _LEAST_SCORE
        rows, columns = linear_sum_assignment(np.maximum(score, _LEAST_SCORE), maximize=True)
        possible = score[rows, columns] > _LEAST_SCORE
        owners[columns[possible]] = rows[possible]
        return owners

    def _begin(self, boxes: NDArray[np.float64], looks: NDArray[np.float32] | None, time_s: float) -> NDArray[np.int32]:
        if not len(boxes):
            return np.empty(0, np.int32)
        ids = np.arange(self._begun + 1, self._begun + len(boxes) + 1, dtype=np.int32)
        self._begun += len(boxes)
        fresh = _Tracks.begun(ids, boxes, time_s)
        if looks is not None:
            fresh.views[:, 0] = looks
            fresh.n_views[:] = 1
        if self._tracks is None:
            self._tracks = fresh
            return ids
        kept = self._tracks if self.appearance else self._tracks.subset(self._tracks.awake)
        excess = len(kept) + len(fresh) - GALLERY_SIZE
        if excess > 0:
            age = np.where(kept.awake, -np.inf, time_s - kept.seen_s)
            oldest = np.argsort(-age, kind="stable")[:excess]
            forgotten = np.zeros(len(kept), np.bool_)
            forgotten[oldest] = True
            kept = kept.subset(kept.awake | ~forgotten)
        self._tracks = kept.joined(fresh)
        return ids


def _motion_score(
    before: NDArray[np.float64], velocity: NDArray[np.float64], unseen_s: NDArray[np.float64], boxes: NDArray[np.float64], step: float
) -> NDArray[np.float64]:
    """Logarithm of how likely T tracks are to be where N boxes are, T x N, up to a constant."""
    # Fades beyond the next frame: whoever is hidden may have stopped.
    coasted = step + _COAST_SECONDS * (1 - np.exp(-np.maximum(unseen_s - step, 0) / _COAST_SECONDS))
    predicted = before + np.tile(velocity * coasted[:, None], 2)
    spread = (_SPREAD + _SPREAD_PER_SECOND * np.minimum(unseen_s, _SPREAD_SECONDS))[:, None]
    growth = np.log(_sizes(boxes)[None] / _sizes(before)[:, None])
    score = -((_distance(predicted, boxes) / spread) ** 2 + (growth / _SCALE_SPREAD) ** 2) / 2 - 2 * np.log(spread / _SPREAD)
    return np.asarray(score)


def _see(tracks: _Tracks, owners: NDArray[np.intp], boxes: NDArray[np.float64], time_s: float) -> None:
    """Tells tracks what has been seen of them: `owners` N are rows of `tracks`, or -1."""
    (seen,) = np.nonzero(owners >= 0)
    rows, boxes_seen = owners[seen], boxes[seen]
    elapsed = time_s - tracks.seen_s[rows]
    moved = (boxes_seen - tracks.boxes[rows]).reshape(-1, 2, 2).mean(axis=1) / np.maximum(elapsed, 1e-6)[:, None]
    share = np.where(elapsed > 0, 1 - np.exp(-elapsed / _VELOCITY_SECONDS), 0.0)[:, None]
    velocity = (1 - share) * tracks.velocity[rows] + share * moved
    tracks.velocity[rows] = np.where(tracks.awake[rows, None], velocity, 0.0)
    tracks.boxes[rows], tracks.seen_s[rows], tracks.here[rows], tracks.awake[rows] = boxes_seen, time_s, True, True


def _crowding(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each of N boxes the largest overlap with another one, 0 to 1."""
    overlap = _overlap(boxes, boxes)
    np.fill_diagonal(overlap, 0)
    return np.asarray(overlap.max(axis=1))


def _rivals(similar: NDArray[np.float32]) -> NDArray[np.float32]:
    """For each track and face, T x N, how similar the face is to the other track that it is most similar to."""
    if len(similar) < 2:
        return np.full_like(similar, -1)
    second, best = np.partition(similar, -2, axis=0)[-2:]
    return np.asarray(np.where(similar >= best, second, best))


def _remember(tracks: _Tracks, rows: NDArray[np.intp], looks: NDArray[np.float32]) -> None:
    """Adds looks, N x `EMBEDDING_SIZE`, to the views of the tracks `rows`, N: as a new view, or blended into the one most alike."""
    similar = np.einsum("nvd,nd->nv", tracks.views[rows], looks)
    nearest = similar.argmax(axis=1)
    close = similar[np.arange(len(rows)), nearest]
    fresh = (close < _NEW_VIEW) & (close >= _DOUBTFUL_VIEW) & (tracks.n_views[rows] < _VIEWS)
    fresh |= tracks.n_views[rows] == 0
    place = np.where(fresh, tracks.n_views[rows], nearest)
    rate = np.where(fresh, 1.0, np.where(close >= _DOUBTFUL_VIEW, _VIEW_RATE, 0.0))[:, None].astype(np.float32)
    blended = (1 - rate) * tracks.views[rows, place] + rate * looks
    tracks.views[rows, place] = blended / np.maximum(np.linalg.norm(blended, axis=1, keepdims=True), 1e-6)
    tracks.n_views[rows] += fresh


def _similarity(tracks: _Tracks, looks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of N looks to the most alike view of each of T tracks, T x N; to one that has none, what speaks neither for it nor against it."""
    count, kept, size = tracks.views.shape
    similar = (tracks.views.reshape(-1, size) @ looks.T).reshape(count, kept, len(looks)).max(axis=1)
    similar[tracks.n_views == 0] = _LOOK_EVEN
    return np.asarray(similar)


def _sizes(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.maximum((boxes[:, 2:] - boxes[:, :2]).mean(axis=1), 1.0))


def _distance(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the centres, N x M, as a share of the mean size of the two boxes."""
    centres = [(boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (first, second)]
    apart = np.sqrt(((centres[0][:, None] - centres[1][None]) ** 2).sum(axis=2))
    return np.asarray(2 * apart / (_sizes(first)[:, None] + _sizes(second)[None]))


def _overlap(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shared area as a share of the smaller box, N x M."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.maximum(high - low, 0).prod(axis=2)
    areas = [np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1) for boxes in (first, second)]
    return np.asarray(shared / np.maximum(np.minimum(areas[0][:, None], areas[1][None]), 1e-9))
