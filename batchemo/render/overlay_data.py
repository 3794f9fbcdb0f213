"""Reads the overlay of each frame from the faces table, smoothed over time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batchemo.records import OverlayData
from batchemo.results.episodes import SMOOTH_SECONDS
from batchemo.results.schema import BOX

WINDOW_SECONDS = 2.0
"""Rows this far around the current frame are in memory."""

_BOX_SECONDS = 0.2
"""Averaging window of bounding boxes: long enough to suppress jitter, short enough not to lag behind."""

_MAX_BOX_STEP = 0.5
"""Fraction of a box's longer side: boxes that are farther apart are not averaged, because such a jump within a tenth of a second is a
cut."""

_HOLD_SECONDS = 1.0
"""A face is blurred this long before its first and after its last detection, too, since it may be there undetected, turned away or out
of focus."""

_BATCH_ROWS = 8192

_INDEX, _TIME, _TRACK, _BOX_COLUMNS, _PROBABILITY_COLUMNS = 0, 1, 2, slice(3, 7), slice(7, None)
"""Columns of the rows in memory."""


class OverlayReader:
    """The overlays of consecutive frames, from the table `faces`. Rows from before `start_s` are skipped, except for the last seconds.

    Probabilities are averaged over half a second, as `batchemo.smooth` does. `blur_faces`: overlays include the boxes to blur.
    """

    def __init__(self, faces: Path, labels: Sequence[str], *, uncertain_below: float, blur_faces: bool, start_s: float = 0.0) -> None:
        self._uncertain_below = uncertain_below
        self._blur_faces = blur_faces
        names = ["frame_index", "time_s", "track_id", *BOX, *(f"p_{label}" for label in labels)]
        self._batches = _read_batches(faces, names, from_s=start_s - WINDOW_SECONDS)
        self._rows = np.empty((0, len(names)))
        self._exhausted = False

    def overlay_at(self, index: int, time_s: float) -> OverlayData:
        """The overlay of the frame with that index and time."""
        self._load_around(time_s)
        first, last = np.searchsorted(self._rows[:, _INDEX], [index, index + 1]).tolist()
        own = self._rows[first:last]
        smoothing_rows, box_rows = self._within(time_s, SMOOTH_SECONDS), self._within(time_s, _BOX_SECONDS)
        probabilities = np.empty((len(own), own.shape[1] - _PROBABILITY_COLUMNS.start), np.float32)
        boxes = np.empty((len(own), 4), np.float32)
        for at, row in enumerate(own):
            probabilities[at] = smoothing_rows[smoothing_rows[:, _TRACK] == row[_TRACK], _PROBABILITY_COLUMNS].mean(axis=0)
            boxes[at] = _mean_box(row[_BOX_COLUMNS], box_rows[box_rows[:, _TRACK] == row[_TRACK], _BOX_COLUMNS])
        uncertain = probabilities.max(axis=1, initial=0) < self._uncertain_below
        hidden = self._boxes_to_blur(first, last, time_s) if self._blur_faces else np.empty((0, 4), np.float32)
        return OverlayData(boxes, own[:, _TRACK].astype(np.int32), probabilities, uncertain, hidden)

    def frames_before(self, time_s: float, *, since_s: float) -> list[tuple[int, float]]:
        """Indices and times of frames with faces, presented from `since_s` until before `time_s`; at most `WINDOW_SECONDS` back."""
        self._load_around(time_s)
        first, last = np.searchsorted(self._rows[:, _TIME], [since_s, time_s]).tolist()
        return [(int(index), float(shown)) for index, shown in np.unique(self._rows[first:last, : _TIME + 1], axis=0)]

    def _within(self, time_s: float, seconds: float) -> NDArray[np.float64]:
        """The rows in a window of `seconds` around a time."""
        half = seconds / 2 + 1e-9
        first, last = np.searchsorted(self._rows[:, _TIME], [time_s - half, time_s + half]).tolist()
        return self._rows[first:last]

    def _boxes_to_blur(self, first: int, last: int, time_s: float) -> NDArray[np.float32]:
        """The boxes of this frame; for each track that is absent now but present shortly before or after, the box that encloses its
        nearest positions."""
        hidden = [self._rows[first:last, _BOX_COLUMNS]]
        earlier, later = np.searchsorted(self._rows[:, _TIME], [time_s - WINDOW_SECONDS, time_s + WINDOW_SECONDS]).tolist()
        before, after = self._rows[earlier:first], self._rows[last:later]
        present = set(self._rows[first:last, _TRACK].tolist())
        for track in sorted({*before[:, _TRACK].tolist(), *after[:, _TRACK].tolist()} - present):
            ends = np.concatenate([before[before[:, _TRACK] == track][-1:], after[after[:, _TRACK] == track][:1]])
            if len(ends) > 1 or abs(ends[0, _TIME] - time_s) <= _HOLD_SECONDS:
                sides = ends[:, _BOX_COLUMNS]
                hidden.append(np.concatenate([sides[:, :2].min(axis=0), sides[:, 2:].max(axis=0)])[None])
        return np.concatenate(hidden).astype(np.float32)

    def _load_around(self, time_s: float) -> None:
        """Loads the rows within `WINDOW_SECONDS` of `time_s`, and drops older ones."""
        while not self._exhausted and (not len(self._rows) or self._rows[-1, _TIME] <= time_s + WINDOW_SECONDS):
            batch = next(self._batches, None)
            if batch is None:
                self._exhausted = True
                return
            keep = int(np.searchsorted(self._rows[:, _TIME], time_s - WINDOW_SECONDS))
            self._rows = np.concatenate([self._rows[keep:], batch])


def _mean_box(own: NDArray[np.float64], near: NDArray[np.float64]) -> NDArray[np.float64]:
    max_distance = _MAX_BOX_STEP * max(own[2] - own[0], own[3] - own[1])
    return np.asarray(near[np.abs(near - own).max(axis=1) <= max_distance].mean(axis=0))


def _read_batches(faces: Path, names: list[str], *, from_s: float) -> Iterator[NDArray[np.float64]]:
    file = pq.ParquetFile(faces)
    groups = [group for group in range(file.num_row_groups) if _last_time_s(file, group) >= from_s]
    for batch in file.iter_batches(batch_size=_BATCH_ROWS, row_groups=groups, columns=names):
        yield np.stack([batch.column(name).to_numpy() for name in names], axis=1).astype(np.float64)


def _last_time_s(file: pq.ParquetFile, group: int) -> float:
    column = file.metadata.row_group(group).column(file.schema_arrow.names.index("time_s"))
    return float(column.statistics.max)
