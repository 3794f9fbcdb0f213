"""The tables that sum up a medium's faces, tracks and episodes, made of batches of its rows: memory does not grow with these."""

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
"""Steps between rows that differ by less than rounding does in a film of many hours are one."""

_COLUMNS = ("frame_index", "time_s", "confidence", "sharpness")

Batches = Iterable[pa.RecordBatch]


class TrackAggregator(NamedTuple):
    """Rows of the tables `tracks` and `episodes`, sorted."""

    tracks: list[dict[str, Any]]
    episodes: list[dict[str, Any]]


def columns_for(labels: Sequence[str]) -> list[str]:
    """The columns of `faces` that are needed."""
    return ["track_id", *_COLUMNS, *(f"p_{label}" for label in labels)]


def aggregate_medium(read: Callable[[], Batches], *, media: str, labels: Sequence[str]) -> TrackAggregator:
    """`read` gives the rows of `faces` from the first on each time, in their order; they are read twice. Holds some 2 kB for each track.

    Where a track is seen best, the face is sharpest among those whose expression is surer than that of its mean.
    """
    tracks: dict[int, _Track] = {}
    for rows in _by_track(read(), labels):
        tracks.setdefault(rows.track_id, _Track(len(labels))).add(rows)
    finders: dict[int, EpisodeFinder] = {}
    episodes: list[Episode] = []
    rules = EpisodeRules()
    for rows in _by_track(read(), labels):
        track = tracks[rows.track_id]
        track.look(rows)
        if rows.track_id not in finders:
            finders[rows.track_id] = EpisodeFinder(rows.track_id, labels, rules, step_s=track.step_s)
        episodes += finders[rows.track_id].add(rows.times, rows.values)
        for over in [track_id for track_id, finder in finders.items() if rows.is_last and finder.is_over(rows.now_s)]:
            episodes += finders.pop(over).close()
    for finder in finders.values():
        episodes += finder.close()
    episodes.sort(key=lambda episode: (episode.track_id, episode.start_s))
    return TrackAggregator(
        [{"media": media, "track_id": track_id, **tracks[track_id].row(labels)} for track_id in sorted(tracks)],
        [{"media": media, **dataclasses.asdict(episode)} for episode in episodes],
    )


class _Rows(NamedTuple):
    """Those of one track in a batch: `indices`, `times`, `confidence` and `sharpness` N, `values` N x labels; the batch ends at `now_s`,
    and `is_last` of its tracks."""

    track_id: int
    indices: NDArray[np.int32]
    times: NDArray[np.float64]
    confidence: NDArray[np.float32]
    sharpness: NDArray[np.float32]
    values: NDArray[np.float64]
    now_s: float
    is_last: bool


def _by_track(batches: Batches, labels: Sequence[str]) -> Iterator[_Rows]:
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
            yield _Rows(int(ids[rows[0]]), indices, times, confidence, sharpness, values[rows], now_s, end == len(ids))


class _Track:
    """What is known of a track so far."""

    def __init__(self, labels: int) -> None:
        self._count = 0
        self._first_s = self._last_s = 0.0
        self._sums = np.zeros(labels)
        self._leading = np.zeros(labels, np.int64)
        self._confidence_sum = self._most_confident = 0.0
        self._steps: Counter[float] = Counter()
        self._best: tuple[float, int] = (-np.inf, -1)

    def add(self, rows: _Rows) -> None:
        """The first time that rows are read."""
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

    def look(self, rows: _Rows) -> None:
        """The second time that rows are read."""
        least = min(self._confidence_sum / self._count, self._most_confident)
        sharpness = np.where(rows.confidence >= least, rows.sharpness, -np.inf)
        best = int(sharpness.argmax())
        if sharpness[best] > self._best[0]:
            self._best = float(sharpness[best]), int(rows.indices[best])

    @property
    def step_s(self) -> float:
        """The median of the steps from row to row; infinite where there is none: a single picture is long enough for an episode."""
        if not self._steps:
            return float("inf")
        steps = np.array(sorted(self._steps.items()))
        ends = np.cumsum(steps[:, 1])
        middle = [(ends[-1] - 1) // 2, ends[-1] // 2]
        return float(steps[np.searchsorted(ends, middle, side="right"), 0].mean())

    def row(self, labels: Sequence[str]) -> dict[str, Any]:
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
