"""Do the four tables of a medium agree with each other, with its row, and with what such tables may hold?"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batchemo import __version__
from batchemo.records import MediaRow
from batchemo.results.aggregate import aggregate_medium, columns_for
from batchemo.results.catalog import CatalogEntry
from batchemo.results.schema import (
    BATCH_ROWS,
    PER_MEDIUM,
    SCHEMA_VERSION,
    Table,
    read_metadata,
    schema_of,
    table_path,
)

_SUM_ERROR = 1e-4
"""How far seven float32 probabilities may be from adding up to 1."""

_FLOW_PX = 640
"""A face that is followed is placed on a picture whose longer side is at most this, so its middle is known to a pixel of that one."""


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """Something that is off in a results folder: in `file` (relative to it), of `media`; `kind` is a stable word for scripts."""

    media: str
    file: str
    kind: str
    message: str


@dataclasses.dataclass(frozen=True, slots=True)
class FrameRows:
    """The table `frames` of a medium: `indices` int32, `times_s` float64, `n_faces` int16 and `fingerprints` int64 of the frames that were
    analysed, `lost_s` the times of those that no decoder could read; 22 bytes a frame."""

    indices: NDArray[np.int32]
    times_s: NDArray[np.float64]
    n_faces: NDArray[np.int16]
    fingerprints: NDArray[np.int64]
    lost_s: NDArray[np.float64]


class TableError(Exception):
    """A table is missing, damaged, or lacks columns: it cannot be looked at further."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def check_tables(results: Path, entry: CatalogEntry, frames: FrameRows, *, repeats: bool = False) -> Iterator[Problem]:
    """All that is off within the tables of a medium; `repeats`: its file has frames of one time, of which only one can be analysed.

    Holds one batch of rows of a table at a time. Raises TableError.
    """
    for table in PER_MEDIUM:
        _opened(results, entry, table).close()
    yield from _check_metadata(results, entry)
    yield from _named(entry, "frames", _check_frames(frames, entry, repeats=repeats))
    seen = _Faces(frames, entry)
    for batch in _batches(results, entry, "faces"):
        yield from _named(entry, "faces", seen.check(batch))
    yield from _named(entry, "faces", seen.conclude())
    tracks = [row for batch in _batches(results, entry, "tracks") for row in batch.to_pylist()]
    found = list(_named(entry, "tracks", _check_tracks(tracks, seen, entry.row)))
    episodes = [row for batch in _batches(results, entry, "episodes") for row in batch.to_pylist()]
    found += _named(entry, "episodes", _check_episodes(episodes, tracks))
    yield from found
    # Another version may have summed up in another way; and what does not even fit needs no closer look.
    if not found and not seen.is_off and entry.metadata.get("batchemo_version") == __version__:
        labels = entry.metadata.get("labels", ())
        recap = aggregate_medium(lambda: _batches(results, entry, "faces", columns_for(labels)), media=entry.row.media, labels=labels)
        yield from _named(entry, "tracks", _compare(recap.tracks, tracks, ("track_id",)))
        yield from _named(entry, "episodes", _compare(recap.episodes, episodes, ("track_id", "start_s")))


def read_frame_rows(results: Path, entry: CatalogEntry) -> FrameRows:
    """Raises TableError."""
    parts: list[FrameRows] = []
    for batch in _batches(results, entry, "frames"):
        lost = np.array(batch["status"]) == "undecodable"
        times = batch["time_s"].to_numpy()
        index, count, fingerprint = (batch[name].to_numpy()[~lost] for name in ("frame_index", "n_faces", "fingerprint"))
        parts.append(FrameRows(index, times[~lost], count, fingerprint, times[lost]))
    empty = FrameRows(np.empty(0, np.int32), np.empty(0), np.empty(0, np.int16), np.empty(0, np.int64), np.empty(0))
    names = [field.name for field in dataclasses.fields(FrameRows)]
    return FrameRows(*(np.concatenate([getattr(part, name) for part in (empty, *parts)]) for name in names))


def _opened(results: Path, entry: CatalogEntry, table: Table) -> pq.ParquetFile:
    path = table_path(results, table, entry.output)
    labels = entry.metadata.get("labels", ())
    promised = schema_of(table, labels)
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        lacking = [field.name for field in promised if field not in list(file.schema_arrow)]
    except FileNotFoundError:
        raise _table_error(entry, table, "missing", "is not there; make it again with --force") from None
    except (OSError, pa.ArrowException) as error:
        raise _table_error(entry, table, "damaged", f"cannot be read ({_first_line(error)}); remove it and run again") from error
    if lacking and _is_of_other_schema(entry):
        raise _table_error(entry, "frames", "metadata", _schema_told(entry))
    if lacking:
        raise _table_error(entry, table, "columns", f"lacks {', '.join(lacking)}, or has them in another type; remove it and run again")
    return file


def _batches(results: Path, entry: CatalogEntry, table: Table, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    with _opened(results, entry, table) as file:
        try:
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns):
                empty = [name for name, column in zip(batch.schema.names, batch.columns, strict=True) if column.null_count]
                if empty:
                    raise _table_error(entry, table, "empty", f"has rows without {', '.join(empty)}; make it again with --force")
                yield batch
        except (OSError, pa.ArrowException) as error:
            raise _table_error(entry, table, "damaged", f"is damaged ({_first_line(error)}); remove it and run again") from error


def _table_error(entry: CatalogEntry, table: Table, kind: str, message: str) -> TableError:
    (problem,) = _named(entry, table, iter([(kind, message)]))
    return TableError(problem)


def _named(entry: CatalogEntry, table: Table, found: Iterator[tuple[str, str]]) -> Iterator[Problem]:
    for kind, message in found:
        file = table_path(Path(), table, entry.output).as_posix()
        yield Problem(entry.row.media, file, kind, f"{file} {message}")


def _is_of_other_schema(entry: CatalogEntry) -> bool:
    return bool(entry.metadata.get("schema_version") != SCHEMA_VERSION)


def _schema_told(entry: CatalogEntry) -> str:
    return f"is of schema {entry.metadata.get('schema_version')}, and this batchemo writes {SCHEMA_VERSION}; run again"


def _check_metadata(results: Path, entry: CatalogEntry) -> Iterator[Problem]:
    if _is_of_other_schema(entry):
        yield from _named(entry, "frames", iter([("metadata", _schema_told(entry))]))
    if entry.metadata.get("fingerprint", {}).get("sha256", "") != entry.row.sha256:
        yield from _named(entry, "frames", iter([("metadata", "has another hash of the medium in its row than in its metadata")]))
    for table in ("faces", "tracks", "episodes"):
        metadata, _ = read_metadata(table_path(results, table, entry.output))
        differing = sorted(key for key in metadata | entry.metadata if metadata.get(key) != entry.metadata.get(key))
        if differing:
            message = f"is of another analysis than frames/ (they differ in {', '.join(differing)}); make it again with --force"
            yield from _named(entry, table, iter([("metadata", message)]))


def _check_frames(frames: FrameRows, entry: CatalogEntry, *, repeats: bool) -> Iterator[tuple[str, str]]:
    row, indices, times = entry.row, frames.indices, frames.times_s
    at = _first(np.diff(indices) <= 0)
    if at is not None:
        again = indices[at + 1] in indices[: at + 1]
        yield "repeated" if again else "order", f"has frame {indices[at + 1]} {'twice' if again else f'after frame {indices[at]}'}"
    elif entry.metadata.get("options", {}).get("sample_fps") is None:
        at = _first(indices != np.arange(len(indices)))
        if at is not None:
            yield "gap", f"lacks frame {at}"
    at = _first(np.diff(times) <= 0)
    if at is not None:
        yield "times", f"has times that do not increase: {times[at]:.6f} s, then {times[at + 1]:.6f} s"
    if not np.isfinite(times).all() or not np.isfinite(frames.lost_s).all():
        yield "times", "has times that are no numbers"
    every = np.sort(np.concatenate([times, frames.lost_s]))
    # Time begins with the first frame that can be shown, or with the first of all.
    if len(times) and indices[0] == 0 and np.isfinite(every).all() and not (every == 0).any():
        yield "times", f"begins at {times[0]:.6f} s instead of 0"
    at = _first(np.diff(every) == 0)
    if at is not None and every[at] in frames.lost_s and not repeats:
        yield "repeated", f"has the frame at {every[at]:.6f} s twice"
    if len(indices) != row.n_frames_analysed:
        yield "count", f"has {len(indices)} analysed frames, its row says {row.n_frames_analysed}"
    if frames.n_faces.sum() != row.n_faces:
        yield "count", f"counts {frames.n_faces.sum()} faces, its row says {row.n_faces}"
    accounted = len(indices) + len(frames.lost_s)
    whole = row.status == "done" and entry.metadata.get("options", {}).get("sample_fps") is None
    if row.n_frames and (accounted > row.n_frames or (whole and accounted < row.n_frames)):
        yield "count", f"accounts for {accounted} frames, its row says {row.n_frames}"


class _Faces:
    """What has been seen of the table `faces`, batch by batch: how many faces each frame has, and each track's first, last and number."""

    def __init__(self, frames: FrameRows, entry: CatalogEntry) -> None:
        order = np.argsort(frames.indices, kind="stable")
        self._frames = dataclasses.replace(
            frames, indices=frames.indices[order], times_s=frames.times_s[order], n_faces=frames.n_faces[order]
        )
        self._row = entry.row
        self._labels: Sequence[str] = entry.metadata.get("labels", ())
        self._exact = entry.metadata.get("options", {}).get("detector") == "exact"
        self._uncertain_below: float | None = entry.metadata.get("options", {}).get("uncertain_below")
        self._counts = np.zeros(len(frames.indices), np.int32)
        self._said: set[str] = set()
        self._last: tuple[int, int] = (-1, -1)
        self.tracks: dict[int, tuple[float, float, int]] = {}

    def check(self, batch: pa.RecordBatch) -> Iterator[tuple[str, str]]:
        """One complaint of each kind is enough: what is off is mostly off a thousand times."""
        for kind, message in self._check(batch):
            if kind not in self._said:
                self._said.add(kind)
                yield kind, message

    @property
    def is_off(self) -> bool:
        """Whether there was anything to complain of."""
        return bool(self._said)

    def conclude(self) -> Iterator[tuple[str, str]]:
        at = _first(self._counts != self._frames.n_faces)
        if at is not None and "orphan" not in self._said:
            self._said.add("count")
            yield "count", f"has {self._counts[at]} faces of frame {self._frames.indices[at]}, frames/ says {self._frames.n_faces[at]}"

    def _check(self, batch: pa.RecordBatch) -> Iterator[tuple[str, str]]:
        if not len(batch):
            return
        index, number, time = (batch[name].to_numpy() for name in ("frame_index", "face_index", "time_s"))
        at = _first(np.array(pc.not_equal(batch["media"], self._row.media)))
        if at is not None:
            yield "foreign", f"has rows of {batch['media'][at]}"
        places = np.minimum(np.searchsorted(self._frames.indices, index), max(0, len(self._frames.indices) - 1))
        known = self._frames.indices[places] == index if len(self._frames.indices) else np.zeros(len(index), np.bool_)
        at = _first(~known)
        if at is not None:
            yield "orphan", f"has a face of frame {index[at]}, which frames/ lacks"
        np.add.at(self._counts, places[known], 1)
        at = _first(known & (self._frames.times_s[places] != time)) if known.any() else None
        if at is not None:
            yield "times", f"has frame {index[at]} at {time[at]:.6f} s, frames/ at {self._frames.times_s[places[at]]:.6f} s"
        yield from self._check_order(index, number)
        yield from self._check_values(batch, index)
        self._add_tracks(batch["track_id"].to_numpy(), time)

    def _check_order(self, index: NDArray[np.int32], number: NDArray[np.int16]) -> Iterator[tuple[str, str]]:
        before_index = np.concatenate([[self._last[0]], index[:-1]])
        before_number = np.concatenate([[self._last[1]], number[:-1]])
        good = np.where(index == before_index, number == before_number + 1, (index > before_index) & (number == 0))
        at = _first(~good)
        if at is not None:
            again = index[at] == before_index[at] and number[at] <= before_number[at]
            yield "repeated" if again else "order", f"has face {number[at]} of frame {index[at]} {'twice' if again else 'out of its order'}"
        self._last = int(index[-1]), int(number[-1])

    def _check_values(self, batch: pa.RecordBatch, index: NDArray[np.int32]) -> Iterator[tuple[str, str]]:
        shares = np.stack([batch[f"p_{label}"].to_numpy(zero_copy_only=False) for label in self._labels])
        sums = shares.sum(axis=0, dtype=np.float64)
        at = _first(~((np.abs(sums - 1) <= _SUM_ERROR) & ((shares >= 0) & (shares <= 1)).all(axis=0)))
        if at is not None:
            yield "probabilities", f"has probabilities in frame {index[at]} that add up to {sums[at]:.4f} or lie outside of 0 to 1"
        elif (at := _first(self._misread(batch, shares))) is not None:
            told = f"{batch['emotion'][at]} with {batch['confidence'][at].as_py():.4f}"
            yield "emotion", f"has {told} in frame {index[at]}, which is not what its probabilities say"
        names = ("box_x1", "box_y1", "box_x2", "box_y2")
        boxes = np.stack([batch[name].to_numpy(zero_copy_only=False) for name in names], axis=1).astype(np.float64)
        at = _first(~_possible(boxes, self._row, exact=self._exact))
        if at is not None:
            told = ", ".join(f"{value:.1f}" for value in boxes[at])
            yield "box", f"has the box {told} in frame {index[at]} of {self._row.width} x {self._row.height} pixels"

    def _misread(self, batch: pa.RecordBatch, shares: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Where emotion, confidence and doubt are not those of the most probable emotion; `shares` labels x N."""
        confidence = shares.max(axis=0)
        emotion = np.array(self._labels, object)[shares.argmax(axis=0)]
        wrong = (batch["emotion"].to_numpy(zero_copy_only=False) != emotion) | (batch["confidence"].to_numpy() != confidence)
        if self._uncertain_below is None:
            return np.asarray(wrong, np.bool_)
        return np.asarray(wrong | (batch["uncertain"].to_numpy(zero_copy_only=False) != (confidence < self._uncertain_below)), np.bool_)

    def _add_tracks(self, ids: NDArray[np.int32], times: NDArray[np.float64]) -> None:
        for track in np.unique(ids).tolist():
            mine = times[ids == track]
            first, _, count = self.tracks.get(track, (float(mine[0]), 0.0, 0))
            self.tracks[track] = first, float(mine[-1]), count + len(mine)


def _possible(boxes: NDArray[np.float64], row: MediaRow, *, exact: bool) -> NDArray[np.bool_]:
    """Which of N x 4 boxes can be of faces in the medium's picture.

    A head that is half in view has a box that stands out of the picture, but its middle is in it; with `--detector exact`, which keeps
    whatever MTCNN finds, a part of the box is.
    """
    low, high = boxes[:, :2], boxes[:, 2:]
    good = np.isfinite(boxes).all(axis=1) & (low < high).all(axis=1)
    if row.width <= 0 or row.height <= 0:
        return np.asarray(good)
    size = np.array([row.width, row.height])
    slack = max(1.0, max(row.width, row.height) / _FLOW_PX)
    first, last = (high, low) if exact else ((low + high) / 2,) * 2
    return np.asarray(good & (first >= -slack).all(axis=1) & (last <= size + slack).all(axis=1))


def _check_tracks(tracks: list[dict[str, Any]], seen: _Faces, row: MediaRow) -> Iterator[tuple[str, str]]:
    found = {track["track_id"]: (track["first_s"], track["last_s"], track["n_frames"]) for track in tracks}
    if len(found) != len(tracks):
        yield "repeated", "has a track twice"
    if len(found) != row.n_tracks:
        yield "count", f"has {len(found)} tracks, the medium's row says {row.n_tracks}"
    differing = sorted(track for track in found | seen.tracks if found.get(track) != seen.tracks.get(track))
    if differing:
        track = differing[0]
        told = " and ".join(f"{place}/ {_span(spans.get(track))}" for place, spans in (("tracks", found), ("faces", seen.tracks)))
        yield "count", f"does not agree with faces/ on {len(differing)} tracks: of track {track}, {told}"


def _span(span: tuple[float, float, int] | None) -> str:
    return f"has {span[2]} frames from {span[0]:.3f} to {span[1]:.3f} s" if span else "has none"


def _check_episodes(episodes: list[dict[str, Any]], tracks: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    known = {track["track_id"]: track for track in tracks}
    frames: dict[int, int] = dict.fromkeys(known, 0)
    for episode in episodes:
        track = known.get(episode["track_id"])
        if track is None:
            yield "orphan", f"has an episode of track {episode['track_id']}, which tracks/ lacks"
            return
        times = [track["first_s"], episode["start_s"], episode["apex_s"], episode["end_s"], track["last_s"]]
        if times != sorted(times):
            yield "times", f"has an episode of track {episode['track_id']} from {times[1]:.3f} to {times[3]:.3f} s, outside of its track"
            return
        frames[episode["track_id"]] += episode["n_frames"]
    for track_id, count in frames.items():
        # Fewer there may be: what shows no emotion clearly is in no episode.
        if count > known[track_id]["n_frames"]:
            yield "count", f"has {count} frames of track {track_id}, tracks/ has {known[track_id]['n_frames']}"
            return


def _compare(expected: list[dict[str, Any]], told: list[dict[str, Any]], keys: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Rows that faces/ give against those that are there, both sorted by `keys`; names the first difference."""
    for right, row in itertools.zip_longest(expected, told):
        if right is not None and row is not None and all(_agree(value, row[name]) for name, value in right.items()):
            continue
        missing = row is None or (right is not None and [right[key] for key in keys] < [row[key] for key in keys])
        culprit = right if missing else row
        where = ", ".join(f"{key} {culprit[key]:g}" for key in keys)
        differing = [] if row is None or right is None else [name for name, value in right.items() if not _agree(value, row[name])]
        if differing and not any(key in differing for key in keys):
            yield "recap", f"has another {', '.join(differing)} than follows from faces/, at {where}; make it again with --force"
        elif missing:
            yield "recap", f"lacks a row that follows from faces/, at {where}; make it again with --force"
        else:
            yield "recap", f"has a row that does not follow from faces/, at {where}; make it again with --force"
        return


def _agree(one: Any, other: Any) -> bool:
    return abs(one - other) <= _SUM_ERROR if isinstance(one, float) else bool(one == other)


def _first(wrong: NDArray[np.bool_]) -> int | None:
    return int(wrong.argmax()) if wrong.any() else None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
