"""Writes the tables of one medium: frames and faces as they come, tracks and episodes at the end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batchemo.atomic import replacing
from batchemo.records import LANDMARKS, FrameResult, MediaRow, Medium
from batchemo.results.aggregate import aggregate_medium, columns_needed
from batchemo.results.paths import table_path
from batchemo.results.schema import (
    BATCH_ROWS,
    BOX,
    EPISODES,
    FRAMES,
    ROW_GROUP_ROWS,
    faces_schema,
    file_format,
    row_metadata,
    tracks_schema,
    with_metadata,
    write_table,
)

_PACKED_ROWS = 1024


class TimelineWriter:
    """Writes the four tables of `medium` below `results`. Nothing is visible until the `with` block ends without an error.

    `frames` appears last: a medium is done when its file is there. Call `finish` with the medium's row before the block ends.
    """

    def __init__(self, results: Path, medium: Medium, *, labels: Sequence[str], metadata: dict[str, Any], uncertain_below: float) -> None:
        self._results = results
        self._medium = medium
        self._labels = tuple(labels)
        self._metadata = metadata
        self._uncertain_below = uncertain_below
        self._stack = contextlib.ExitStack()
        self.n_faces = 0
        self.n_frames_analysed = 0

    def __enter__(self) -> TimelineWriter:
        # Left in the reverse order, so that `frames` is renamed last.
        self._frames = self._open(FRAMES, "frames")
        self._episodes_path = self._stack.enter_context(replacing(table_path(self._results, "episodes", self._medium.output)))
        self._tracks_path = self._stack.enter_context(replacing(table_path(self._results, "tracks", self._medium.output)))
        self._faces = self._open(faces_schema(self._labels), "faces")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, trace)

    def write(self, result: FrameResult, track_ids: NDArray[np.int32], *, index: int) -> None:
        """Adds the analysed frame number `index` with its N faces; `track_ids` is int32 N."""
        faces, count = result.faces, len(result.faces)
        self._add_frame(result, index=index, status="ok")
        self.n_frames_analysed += 1
        if not count:
            return
        self.n_faces += count
        best = result.probabilities.argmax(axis=1)
        confidence = result.probabilities[np.arange(count), best]
        columns: dict[str, Any] = {
            "frame_index": [index] * count,
            "time_s": [result.time_s] * count,
            "face_index": range(count),
            "track_id": track_ids,
            "detection_score": faces.scores,
            "box_source": ["tracked" if faces.propagated else "detected"] * count,
            "face_px": result.face_px,
            "sharpness": result.sharpness,
            "emotion": [self._labels[i] for i in best],
            "confidence": confidence,
            "uncertain": confidence < self._uncertain_below,
        }
        columns |= {name: faces.boxes[:, i] for i, name in enumerate(BOX)}
        for i, landmark in enumerate(LANDMARKS):
            columns |= {f"{landmark}_{axis}": faces.landmarks[:, i, j] for j, axis in enumerate("xy")}
        columns |= {f"p_{label}": result.probabilities[:, i] for i, label in enumerate(self._labels)}
        self._faces.append(columns, count)

    def write_undecodable(self, result: FrameResult) -> None:
        """Adds a frame that no decoder could read."""
        self._add_frame(result, index=-1, status="undecodable")

    def _add_frame(self, result: FrameResult, *, index: int, status: str) -> None:
        values = {
            "frame_index": index,
            "time_s": result.time_s,
            "n_faces": len(result.faces),
            "status": status,
            "fingerprint": result.fingerprint,
        }
        self._frames.append({name: [value] for name, value in values.items()}, 1)

    def close_faces(self) -> Path:
        """Completes the table `faces` and returns its temporary path; no more faces can be added."""
        return self._faces.close()

    def finish(self, row: MediaRow, *, style: dict[str, Any] | None = None, processors: Sequence[str] = ()) -> None:
        """Completes the tables. The file of `frames` stores `row`, from which `media.parquet` can be rebuilt, the `style` of the annotated
        copy if there is one, and the `processors` that computed the probabilities."""
        faces = self.close_faces()
        rows = self._faces.all_rows
        read = (lambda: _batches(faces, self._labels)) if rows is None else (lambda: iter(rows))
        aggregates = aggregate_medium(read, media=self._medium.name, labels=self._labels)
        self._write(aggregates.tracks, tracks_schema(self._labels), self._tracks_path)
        self._write(aggregates.episodes, EPISODES, self._episodes_path)
        self._frames.close(row_metadata(row, style, processors))

    def _open(self, schema: pa.Schema, table: Any) -> _TableFile:
        path = self._stack.enter_context(replacing(table_path(self._results, table, self._medium.output)))
        return self._stack.enter_context(_TableFile(path, with_metadata(schema, self._metadata), self._medium.name))

    def _write(self, rows: list[dict[str, Any]], schema: pa.Schema, path: Path) -> None:
        write_table(pa.Table.from_pylist(rows, schema=with_metadata(schema, self._metadata)), path)


class _TableFile:
    """A Parquet file that rows are added to. Holds at most one row group in memory."""

    def __init__(self, path: Path, schema: pa.Schema, media: str) -> None:
        self._path = path
        self._schema = schema
        self._media = media
        self._writer = pq.ParquetWriter(path, schema, **file_format(schema))
        self._columns: dict[str, list[Any]] = {name: [] for name in schema.names if name != "media"}
        self._unpacked_rows = 0
        self._batches: list[pa.RecordBatch] = []
        self._unwritten_rows = 0
        self.all_rows: list[pa.RecordBatch] | None = []
        """Once the file is closed: all its rows, if there are at most BATCH_ROWS; otherwise None."""

    def __enter__(self) -> _TableFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def append(self, columns: dict[str, Any], count: int) -> None:
        for name, column in self._columns.items():
            column.extend(columns[name])
        self._unpacked_rows += count
        self._unwritten_rows += count
        if self._unpacked_rows >= _PACKED_ROWS:
            self._pack()
        if self._unwritten_rows >= ROW_GROUP_ROWS:
            self._flush()

    def close(self, extra: dict[bytes, bytes] | None = None) -> Path:
        self._flush()
        if extra:
            self._writer.add_key_value_metadata(extra)
        self._writer.close()
        return self._path

    def _pack(self) -> None:
        """Moves rows from Python lists, which take ten times the memory, into an Arrow batch."""
        columns = {"media": [self._media] * self._unpacked_rows, **self._columns}
        self._batches.append(pa.RecordBatch.from_pydict(columns, schema=self._schema))
        for column in self._columns.values():
            column.clear()
        self._unpacked_rows = 0

    def _flush(self) -> None:
        if self._unpacked_rows:
            self._pack()
        if self._batches:
            self._writer.write_table(pa.Table.from_batches(self._batches), row_group_size=ROW_GROUP_ROWS)
            self.all_rows = self._batches if self.all_rows == [] and self._unwritten_rows <= BATCH_ROWS else None
            self._batches = []
            self._unwritten_rows = 0


def _batches(faces: Path, labels: Sequence[str]) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(faces) as file:
        yield from file.iter_batches(batch_size=BATCH_ROWS, columns=columns_needed(labels))
