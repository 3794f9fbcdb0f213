"""Aggregates the rows of `faces` into tracks and episodes, batch by batch: memory does not grow with the number of rows."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchemo.results.episodes import Episode, EpisodeFinder, EpisodeRules

_STEP_DECIMALS = 10
"""Decimals that steps between rows are rounded to: float64 times of a video of many hours are exact to these."""

_COLUMNS = ("frame_index", "time_s", "confidence", "sharpness")

Batches = Iterable[pa.RecordBatch]


class MediumAggregates(NamedTuple):
    """Rows of the tables `tracks` (by track) and `episodes` (by track and start)."""

    tracks: list[dict[str, Any]]
    episodes: list[dict[str, Any]]


def columns_needed(labels: Sequence[str]) -> list[str]:
    """The columns of `faces` that `aggregate_medium` reads."""
    return ["track_id", *_COLUMNS, *(f"p_{label}" for label in labels)]


def aggregate_medium(read: Callable[[], Batches], *, media: str, labels: Sequence[str]) -> MediumAggregates:
    """The tracks and episodes of one medium, in some 2 kB of memory a track.

    `read` yields all rows of `faces` in their order; it is called twice. The best frame of a track is the one with the sharpest face
    among those at least as confident as the track's mean.
    """
    tracks: dict[int, _TrackSums] = {}
    for rows in _split_by_track(read(), labels):
        tracks.setdefault(rows.track_id, _TrackSums(len(labels))).add(rows)
    finders: dict[int, EpisodeFinder] = {}
    episodes: list[Episode] = []
    rules = EpisodeRules()
    for rows in _split_by_track(read(), labels):
        track = tracks[rows.track_id]
        track.find_best(rows)
        if rows.track_id not in finders:
            finders[rows.track_id] = EpisodeFinder(rows.track_id, labels, rules, step_s=track.step_s)
        episodes += finders[rows.track_id].add(rows.times, rows.values)
        for ended in [track_id for track_id, finder in finders.items() if rows.is_last and finder.is_over(rows.now_s)]:
            episodes += finders.pop(ended).close()
    for finder in finders.values():
        episodes += finder.close()
    episodes.sort(key=lambda episode: (episode.track_id, episode.start_s))
    return MediumAggregates(
        [{"media": media, "track_id": track_id, **tracks[track_id].row(labels)} for track_id in sorted(tracks)],
        [{"media": media, **dataclasses.asdict(episode)} for episode in episodes],
    )


class _TrackRows(NamedTuple):
    """The N rows of one track in a batch.

    - `values`: probabilities, N x labels.
    - `now_s`: the time at which the batch ends.
    - `is_last`: whether this is the last track of the batch.
    """

    track_id: int
    indices: NDArray[np.int32]
    times: NDArray[np.float64]
    confidence: NDArray[np.float32]
    sharpness: NDArray[np.float32]
    values: NDArray[np.float64]
    now_s: float
    is_last: bool


def _split_by_track(batches: Batches, labels: Sequence[str]) -> Iterator[_TrackRows]:
    for batch in batches:
        if not len(batch):
            continue
        ids, *columns = (batch[name].to_numpy(zero_copy_only=False) for name in ("track_id", *_COLUMNS))
        values = np.stack([batch[f"p_{label}"].to_numpy(zero_copy_only=False) for label in labels], axis=1).astype(np.float64)
        order = np.argsort(ids, kind="stable")
        borders = [0, *(np.flatnonzero(np.diff(ids[order])) + 1).tolist(), len(ids)]
        now_s = float(columns[1][-1])
        for start, end in itertools.pairwise(borders):
            rows = order[start:end]
            indices, times, confidence, sharpness = (column[rows] for column in columns)
            yield _TrackRows(int(ids[rows[0]]), indices, times, confidence, sharpness, values[rows], now_s, end == len(ids))


class _TrackSums:
    """The sums of one track's rows."""

    def __init__(self, labels: int) -> None:
        self._count = 0
        self._first_s = self._last_s = 0.0
        self._sums = np.zeros(labels)
        self._leading = np.zeros(labels, np.int64)
        self._confidence_sum = self._most_confident = 0.0
        self._steps: Counter[float] = Counter()
        self._best: tuple[float, int] = (-np.inf, -1)

    def add(self, rows: _TrackRows) -> None:
        """The first pass."""
        self._first_s = self._first_s if self._count else float(rows.times[0])
        steps = np.diff(rows.times, prepend=self._last_s) if self._count else np.diff(rows.times)
        for step_s, count in zip(*np.unique(np.round(steps, _STEP_DECIMALS), return_counts=True), strict=True):
            self._steps[float(step_s)] += int(count)
        self._count += len(rows.times)
        self._last_s = float(rows.times[-1])
        self._sums += rows.values.sum(axis=0)
        self._leading += np.bincount(rows.values.argmax(axis=1), minlength=len(self._leading))
        self._confidence_sum += float(rows.confidence.sum(dtype=np.float64))
        self._most_confident = max(self._most_confident, float(rows.confidence.max()))

    def find_best(self, rows: _TrackRows) -> None:
        """The second pass."""
        least = min(self._confidence_sum / self._count, self._most_confident)
        sharpness = np.where(rows.confidence >= least, rows.sharpness, -np.inf)
        best = int(sharpness.argmax())
        if sharpness[best] > self._best[0]:
            self._best = float(sharpness[best]), int(rows.indices[best])

    @property
    def step_s(self) -> float:
        """The median step from row to row; infinite for a single row, so that a still image is long enough for an episode."""
        if not self._steps:
            return float("inf")
        steps = np.array(sorted(self._steps.items()))
        ends = np.cumsum(steps[:, 1])
        middle = [(ends[-1] - 1) // 2, ends[-1] // 2]
        return float(steps[np.searchsorted(ends, middle, side="right"), 0].mean())

    def row(self, labels: Sequence[str]) -> dict[str, Any]:
        """The row of `tracks`, without `media` and `track_id`."""
        mean = self._sums / self._count
        shares = self._leading / self._count
        return {
            "first_s": self._first_s,
            "last_s": self._last_s,
            "n_frames": self._count,
            "emotion": labels[int(mean.argmax())],
            "confidence": float(mean.max()),
            **{f"share_{label}": float(share) for label, share in zip(labels, shares, strict=True)},
            "best_frame_index": self._best[1],
        }
