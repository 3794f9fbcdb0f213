"""What is drawn onto each frame, read from the table of faces: steady, and with what is seen shortly before and after."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batchemo.records import OverlayData
from batchemo.results.episodes import SMOOTH_SECONDS
from batchemo.results.schema import BOX

REACH_SECONDS = 2.0
"""How far around a frame the table is read."""

_BOX_SECONDS = 0.2
"""Width of the average of boxes: enough that they do not tremble, too little to fall behind anybody."""

_SAME_PLACE = 0.5
"""Of a box's longer side: how far apart boxes may be that are averaged. What moves more in a tenth of a second is a cut."""

_HOLD_SECONDS = 1.0
"""How long before it is first seen and after it is last seen a face is hidden, too: it may be there, turned or blurred, and not found."""

_ROWS_AT_ONCE = 8192

_INDEX, _TIME, _TRACK, _SIDES, _SHARES = 0, 1, 2, slice(3, 7), slice(7, None)
"""Columns of the rows in memory."""


class OverlayReader:
    """The marks of frames that come in their order, by the table `faces`; those of before `start_s` are not needed, but for a few seconds.

    Probabilities are averages over half a second, as `batchemo.smooth` makes them. `hides`: marks tell where faces are to be hidden.
    """

    def __init__(self, faces: Path, labels: Sequence[str], *, uncertain_below: float, hides: bool, start_s: float = 0.0) -> None:
        self._uncertain_below = uncertain_below
        self._hides = hides
        names = ["frame_index", "time_s", "track_id", *BOX, *(f"p_{label}" for label in labels)]
        self._batches = _batches(faces, names, from_s=start_s - REACH_SECONDS)
        self._rows = np.empty((0, len(names)))
        self._ended = False

    def of(self, index: int, time_s: float) -> OverlayData:
        """What is drawn onto the frame with that index and time."""
        self._read_around(time_s)
        first, last = np.searchsorted(self._rows[:, _INDEX], [index, index + 1]).tolist()
        own = self._rows[first:last]
        near, nearer = self._within(time_s, SMOOTH_SECONDS), self._within(time_s, _BOX_SECONDS)
        shares = np.empty((len(own), own.shape[1] - _SHARES.start), np.float32)
        boxes = np.empty((len(own), 4), np.float32)
        for at, row in enumerate(own):
            shares[at] = near[near[:, _TRACK] == row[_TRACK], _SHARES].mean(axis=0)
            boxes[at] = _mean_box(row[_SIDES], nearer[nearer[:, _TRACK] == row[_TRACK], _SIDES])
        uncertain = shares.max(axis=1, initial=0) < self._uncertain_below
        hidden = self._hidden(first, last, time_s) if self._hides else np.empty((0, 4), np.float32)
        return OverlayData(boxes, own[:, _TRACK].astype(np.int32), shares, uncertain, hidden)

    def before(self, time_s: float, *, since_s: float) -> list[tuple[int, float]]:
        """Indices and times of the frames with faces that are shown from `since_s` until before `time_s`, at most `REACH_SECONDS`."""
        self._read_around(time_s)
        first, last = np.searchsorted(self._rows[:, _TIME], [since_s, time_s]).tolist()
        return [(int(index), float(shown)) for index, shown in np.unique(self._rows[first:last, : _TIME + 1], axis=0)]

    def _within(self, time_s: float, seconds: float) -> NDArray[np.float64]:
        """The rows of `seconds` around a time."""
        half = seconds / 2 + 1e-9
        first, last = np.searchsorted(self._rows[:, _TIME], [time_s - half, time_s + half]).tolist()
        return self._rows[first:last]

    def _hidden(self, first: int, last: int, time_s: float) -> NDArray[np.float32]:
        """The boxes of this frame; of tracks that are not in it but shortly before or after, where they were, will be, and between."""
        hidden = [self._rows[first:last, _SIDES]]
        earlier, later = np.searchsorted(self._rows[:, _TIME], [time_s - REACH_SECONDS, time_s + REACH_SECONDS]).tolist()
        before, after = self._rows[earlier:first], self._rows[last:later]
        present = set(self._rows[first:last, _TRACK].tolist())
        for track in sorted({*before[:, _TRACK].tolist(), *after[:, _TRACK].tolist()} - present):
            ends = np.concatenate([before[before[:, _TRACK] == track][-1:], after[after[:, _TRACK] == track][:1]])
            if len(ends) > 1 or abs(ends[0, _TIME] - time_s) <= _HOLD_SECONDS:
                sides = ends[:, _SIDES]
                hidden.append(np.concatenate([sides[:, :2].min(axis=0), sides[:, 2:].max(axis=0)])[None])
        return np.concatenate(hidden).astype(np.float32)

    def _read_around(self, time_s: float) -> None:
        """Sees to it that all rows within reach of `time_s` are in memory, and few others."""
        while not self._ended and (not len(self._rows) or self._rows[-1, _TIME] <= time_s + REACH_SECONDS):
            batch = next(self._batches, None)
            if batch is None:
                self._ended = True
                return
            keep = int(np.searchsorted(self._rows[:, _TIME], time_s - REACH_SECONDS))
            self._rows = np.concatenate([self._rows[keep:], batch])


def _mean_box(own: NDArray[np.float64], near: NDArray[np.float64]) -> NDArray[np.float64]:
    farthest = _SAME_PLACE * max(own[2] - own[0], own[3] - own[1])
    return np.asarray(near[np.abs(near - own).max(axis=1) <= farthest].mean(axis=0))


def _batches(faces: Path, names: list[str], *, from_s: float) -> Iterator[NDArray[np.float64]]:
    file = pq.ParquetFile(faces)
    groups = [group for group in range(file.num_row_groups) if _last_s(file, group) >= from_s]
    for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, row_groups=groups, columns=names):
        yield np.stack([batch.column(name).to_numpy() for name in names], axis=1).astype(np.float64)


def _last_s(file: pq.ParquetFile, group: int) -> float:
    column = file.metadata.row_group(group).column(file.schema_arrow.names.index("time_s"))
    return float(column.statistics.max)
