"""The timeline of one medium as the page needs it: what stands in its tables, by track."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batchemo.results.schema import Table, table_path, thumbnails_folder

CONFIDENCE_STEPS = 10
"""Faces are counted by tenths of confidence, which is what the page's filter can be set to."""

STRIP_CELLS = 48
"""Pieces of a medium's length in its small strip."""


@dataclasses.dataclass(frozen=True, slots=True)
class Track:
    """The N faces of one track by time: `times_s` float64 N, `probabilities` float32 N x K; `thumbnail` is a JPEG or empty.

    `episodes` are (index of the label, start, apex and end in seconds, peak probability).
    """

    track_id: int
    times_s: NDArray[np.float64]
    probabilities: NDArray[np.float32]
    episodes: tuple[tuple[int, float, float, float, float], ...]
    best_s: float
    thumbnail: bytes

    def every(self, step_s: float) -> Track:
        """The same with probabilities and times averaged over `step_s` seconds; 0 changes nothing."""
        if not step_s or not len(self.times_s):
            return self
        starts = np.flatnonzero(np.diff(np.floor(self.times_s / step_s), prepend=-1.0))
        counts = np.diff(starts, append=len(self.times_s))
        times = np.add.reduceat(self.times_s, starts) / counts
        means = np.add.reduceat(self.probabilities, starts, axis=0) / counts[:, None]
        return dataclasses.replace(self, times_s=times, probabilities=means.astype(np.float32))


@dataclasses.dataclass(frozen=True, slots=True)
class Timeline:
    """All tracks of one medium, the longest first; `labels` name the K columns of their probabilities."""

    labels: tuple[str, ...]
    tracks: tuple[Track, ...]

    def counts(self) -> NDArray[np.int64]:
        """Faces by label and tenth of confidence, K x `CONFIDENCE_STEPS`."""
        found = np.zeros((len(self.labels), CONFIDENCE_STEPS), np.int64)
        for track in self.tracks:
            np.add.at(found, (track.probabilities.argmax(axis=1), confidence_steps(track.probabilities)), 1)
        return found

    def strip(self, duration_s: float) -> list[int]:
        """For each of `STRIP_CELLS` equal parts of the medium the label with most probability in it, times `CONFIDENCE_STEPS`, plus
        the step that the confidence of its faces reaches at most; -1 where nobody is seen."""
        sums = np.zeros((STRIP_CELLS, len(self.labels)))
        steps = np.zeros((STRIP_CELLS, len(self.labels)), int)
        for track in self.tracks:
            cells = (track.times_s / max(duration_s, 1e-9) * STRIP_CELLS).astype(int).clip(0, STRIP_CELLS - 1)
            np.add.at(sums, cells, track.probabilities)
            np.maximum.at(steps, (cells, track.probabilities.argmax(axis=1)), confidence_steps(track.probabilities))
        leading = sums.argmax(axis=1)
        return [
            int(label * CONFIDENCE_STEPS + cell_steps[label]) if cell.any() else -1
            for label, cell, cell_steps in zip(leading, sums, steps, strict=True)
        ]


def confidence_steps(probabilities: NDArray[np.float32]) -> NDArray[np.int64]:
    """Which of `CONFIDENCE_STEPS` the greatest of each row's probabilities (N x K) reaches, N."""
    reached: NDArray[np.int64] = (probabilities.max(axis=1) * CONFIDENCE_STEPS + 1e-6).astype(np.int64)
    return reached.clip(max=CONFIDENCE_STEPS - 1)


def read_timeline(results: Path, output: str, labels: Sequence[str]) -> Timeline:
    """Raises OSError or pyarrow's ArrowException where the tables cannot be read."""
    probabilities = [f"p_{label}" for label in labels]
    faces = _columns(results, "faces", output, ["track_id", "frame_index", "time_s", *probabilities])
    episodes = _episodes(results, output, labels)
    tracks = _columns(results, "tracks", output, ["track_id", "best_frame_index"])
    best = dict(zip(tracks["track_id"].tolist(), tracks["best_frame_index"].tolist(), strict=True))
    values = np.stack([faces[name] for name in probabilities], axis=1).astype(np.float32)
    # Stable, so that the rows of each track stay in the order of their times.
    order = np.argsort(faces["track_id"], kind="stable")
    ids, starts = np.unique(faces["track_id"][order], return_index=True)
    found = []
    for track_id, rows in zip(ids.tolist(), np.split(order, starts[1:]), strict=False):
        times = faces["time_s"][rows]
        at = np.flatnonzero(faces["frame_index"][rows] == best.get(track_id, -1))
        best_s = float(times[at[0] if len(at) else 0])
        thumbnail = _thumbnail(thumbnails_folder(results, output) / f"{track_id}.jpg")
        found.append(Track(track_id, times, values[rows], tuple(episodes.get(track_id, ())), best_s, thumbnail))
    return Timeline(tuple(labels), tuple(sorted(found, key=lambda track: (-len(track.times_s), track.track_id))))


def _episodes(results: Path, output: str, labels: Sequence[str]) -> dict[int, list[tuple[int, float, float, float, float]]]:
    names = ["track_id", "emotion", "start_s", "apex_s", "end_s", "peak_probability"]
    found: dict[int, list[tuple[int, float, float, float, float]]] = {}
    columns = _columns(results, "episodes", output, names)
    for track_id, emotion, start, apex, end, peak in zip(*(columns[name].tolist() for name in names), strict=True):
        if emotion in labels:
            found.setdefault(track_id, []).append((labels.index(emotion), start, apex, end, peak))
    return found


def _columns(results: Path, table: Table, output: str, names: list[str]) -> dict[str, NDArray[Any]]:
    found: pa.Table = pq.ParquetFile(table_path(results, table, output)).read(columns=names)
    return {name: found[name].to_numpy() for name in names}


def _thumbnail(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
