"""Writes the tables of one medium: faces and frames as they come, tracks and episodes at the end."""

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
from batchemo.results.aggregate import columns_for, aggregate_medium
from batchemo.records import LANDMARKS, MediaRow, Medium, FrameResult
from batchemo.results.schema import (
    BATCH_ROWS,
    BOX,
    EPISODES,
    FRAMES,
    ROW_GROUP_ROWS,
    faces_schema,
    file_format,
    row_metadata,
    table_path,
    tracks_schema,
    with_metadata,
    write_table,
)

_PACKED_ROWS = 1024


class TimelineWriter:
    """The four tables of `medium` below `results`; nothing is visible before the `with` block has ended well.

    `frames` appears last: a medium is done when its file is there. Call `finish` with the medium's row before leaving.
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

    def write(self, reading: FrameResult, track_ids: NDArray[np.int32], *, index: int) -> None:
        """One analysed frame, the `index`th of the medium, with its faces and their `track_ids` (int32 N)."""
        faces, count = reading.faces, len(reading.faces)
        self._add_frame(reading, index=index, status="ok")
        self.n_frames_analysed += 1
        if not count:
            return
        self.n_faces += count
        best = reading.probabilities.argmax(axis=1)
        confidence = reading.probabilities[np.arange(count), best]
        columns: dict[str, Any] = {
            "frame_index": [index] * count,
            "time_s": [reading.time_s] * count,
            "face_index": range(count),
            "track_id": track_ids,
            "detection_score": faces.scores,
            "box_source": ["tracked" if faces.followed else "detected"] * count,
            "face_px": reading.face_px,
            "sharpness": reading.sharpness,
            "emotion": [self._labels[i] for i in best],
            "confidence": confidence,
            "uncertain": confidence < self._uncertain_below,
        }
        columns |= {name: faces.boxes[:, i] for i, name in enumerate(BOX)}
        for i, landmark in enumerate(LANDMARKS):
            columns |= {f"{landmark}_{axis}": faces.landmarks[:, i, j] for j, axis in enumerate("xy")}
        columns |= {f"p_{label}": reading.probabilities[:, i] for i, label in enumerate(self._labels)}
        self._faces.append(columns, count)

    def write_undecodable(self, reading: FrameResult) -> None:
        """A frame that the container has but no decoder can read."""
        self._add_frame(reading, index=-1, status="undecodable")

    def _add_frame(self, reading: FrameResult, *, index: int, status: str) -> None:
        values = {
            "frame_index": index,
            "time_s": reading.time_s,
            "n_faces": len(reading.faces),
            "status": status,
            "fingerprint": reading.fingerprint,
        }
        self._frames.append({name: [value] for name, value in values.items()}, 1)

    def close_faces(self) -> Path:
        """The finished table of faces under its temporary name; nothing can be written to it any more."""
        return self._faces.close()

    def finish(self, row: MediaRow, *, style: dict[str, Any] | None = None, processors: Sequence[str] = ()) -> None:
        """Completes the tables. The file of `frames` stores `row`, from which `media.parquet` can be made again, the `style` of the annotated
        copy, if there is one, and the `processors` that the probabilities were computed on."""
        faces = self.close_faces()
        rows = self._faces.only
        read = (lambda: _batches(faces, self._labels)) if rows is None else (lambda: iter(rows))
        recap = aggregate_medium(read, media=self._medium.name, labels=self._labels)
        self._write(recap.tracks, tracks_schema(self._labels), self._tracks_path)
        self._write(recap.episodes, EPISODES, self._episodes_path)
        self._frames.close(row_metadata(row, style, processors))

    def _open(self, schema: pa.Schema, table: Any) -> _Rows:
        path = self._stack.enter_context(replacing(table_path(self._results, table, self._medium.output)))
        return self._stack.enter_context(_Rows(path, with_metadata(schema, self._metadata), self._medium.name))

    def _write(self, rows: list[dict[str, Any]], schema: pa.Schema, path: Path) -> None:
        write_table(pa.Table.from_pylist(rows, schema=with_metadata(schema, self._metadata)), path)


class _Rows:
    """A Parquet file that rows are added to; at most one row group of them is in memory."""

    def __init__(self, path: Path, schema: pa.Schema, media: str) -> None:
        self._path = path
        self._schema = schema
        self._media = media
        self._writer = pq.ParquetWriter(path, schema, **file_format(schema))
        self._parts: dict[str, list[Any]] = {name: [] for name in schema.names if name != "media"}
        self._waiting = 0
        self._packed: list[pa.RecordBatch] = []
        self._rows = 0  # that are not written yet
        self.only: list[pa.RecordBatch] | None = []
        """All rows, once the file is closed, where they are so few that they may stay in memory."""

    def __enter__(self) -> _Rows:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def append(self, columns: dict[str, Any], count: int) -> None:
        for name, part in self._parts.items():
            part.extend(columns[name])
        self._waiting += count
        self._rows += count
        if self._waiting >= _PACKED_ROWS:
            self._pack()
        if self._rows >= ROW_GROUP_ROWS:
            self._flush()

    def close(self, extra: dict[bytes, bytes] | None = None) -> Path:
        self._flush()
        if extra:
            self._writer.add_key_value_metadata(extra)
        self._writer.close()
        return self._path

    def _pack(self) -> None:
        """Python's numbers take ten times the memory of Arrow's."""
        columns = {"media": [self._media] * self._waiting, **self._parts}
        self._packed.append(pa.RecordBatch.from_pydict(columns, schema=self._schema))
        for part in self._parts.values():
            part.clear()
        self._waiting = 0

    def _flush(self) -> None:
        if self._waiting:
            self._pack()
        if self._packed:
            self._writer.write_table(pa.Table.from_batches(self._packed), row_group_size=ROW_GROUP_ROWS)
            self.only = self._packed if self.only == [] and self._rows <= BATCH_ROWS else None
            self._packed = []
            self._rows = 0


def _batches(faces: Path, labels: Sequence[str]) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(faces) as file:
        yield from file.iter_batches(batch_size=BATCH_ROWS, columns=columns_for(labels))
