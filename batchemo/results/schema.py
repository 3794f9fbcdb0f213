"""Columns, metadata and file format of the Parquet tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from batchemo.atomic import replacing
from batchemo.records import LANDMARKS, MediaRow

SCHEMA_VERSION = 2
"""2 added `starts_s` to `media`. Columns that older files lack are read as missing values."""
METADATA_KEY = b"batchemo"
ROW_KEY = b"batchemo.media"
"""Key in files of `frames`: the medium's row of `media.parquet`, the `style` of its annotated copy, and the `processors` that
computed its probabilities (older versions did not store these)."""

ROW_GROUP_ROWS = 128 * 1024
"""Rows of a Parquet row group, which is held in memory until it is full: some 60 MB of `faces`."""
BATCH_ROWS = 16 * 1024
"""Rows of a batch, where a table is read in batches."""

Table = Literal["faces", "frames", "tracks", "episodes", "media"]
PER_MEDIUM: tuple[Table, ...] = ("faces", "frames", "tracks", "episodes")

BOX = ("box_x1", "box_y1", "box_x2", "box_y2")

_text, _flag = pa.string(), pa.bool_()
_int16, _int32, _int64 = pa.int16(), pa.int32(), pa.int64()
_float, _double = pa.float32(), pa.float64()

_FACES_COLUMNS = [
    ("media", _text),
    ("frame_index", _int32),
    ("time_s", _double),
    ("face_index", _int16),
    ("track_id", _int32),
    *((name, _float) for name in BOX),
    ("detection_score", _float),
    ("box_source", _text),
    *((f"{landmark}_{axis}", _float) for landmark in LANDMARKS for axis in "xy"),
    ("face_px", _float),
    ("sharpness", _float),
    ("emotion", _text),
    ("confidence", _float),
    ("uncertain", _flag),
]

FRAMES = pa.schema(
    [("media", _text), ("frame_index", _int32), ("time_s", _double), ("n_faces", _int16), ("status", _text), ("fingerprint", _int64)]
)

EPISODES = pa.schema(
    [
        ("media", _text),
        ("track_id", _int32),
        ("emotion", _text),
        ("start_s", _double),
        ("apex_s", _double),
        ("end_s", _double),
        ("peak_probability", _float),
        ("n_frames", _int32),
    ]
)

MEDIA = pa.schema(
    [
        ("media", _text),
        ("path", _text),
        ("kind", _text),
        ("status", _text),
        ("error", _text),
        ("message", _text),
        ("decoder", _text),
        ("width", _int32),
        ("height", _int32),
        ("duration_s", _double),
        ("starts_s", _double),
        ("n_frames", _int64),
        ("n_frames_analysed", _int64),
        ("n_faces", _int64),
        ("n_tracks", _int64),
        ("sha256", _text),
        ("seconds_taken", _double),
        ("run_id", _text),
    ]
)


def faces_schema(labels: Sequence[str]) -> pa.Schema:
    """A row for each face of each analysed frame, with a probability for each of `labels`."""
    return pa.schema([*_FACES_COLUMNS, *((f"p_{label}", _float) for label in labels)])


def tracks_schema(labels: Sequence[str]) -> pa.Schema:
    """A row for each track; `share_*` is the share of its frames with that emotion."""
    return pa.schema(
        [
            ("media", _text),
            ("track_id", _int32),
            ("first_s", _double),
            ("last_s", _double),
            ("n_frames", _int32),
            ("emotion", _text),
            ("confidence", _float),
            *((f"share_{label}", _float) for label in labels),
            ("best_frame_index", _int32),
        ]
    )


def schema_of(table: Table, labels: Sequence[str] = ()) -> pa.Schema:
    """The schema of a table; `labels` are those of the weights."""
    match table:
        case "faces":
            return faces_schema(labels)
        case "frames":
            return FRAMES
        case "tracks":
            return tracks_schema(labels)
        case "episodes":
            return EPISODES
        case "media":
            return MEDIA


def with_missing_columns(schema: pa.Schema, table: Table) -> pa.Schema:
    """`schema`, of files of `table` that an older version wrote, with the missing columns in their places."""
    current = schema_of(table)
    for at, field in enumerate(current):
        if field.name not in schema.names:
            schema = schema.insert(schema.get_field_index(current.names[at - 1]) + 1 if at else 0, field)
    return schema


def with_metadata(schema: pa.Schema, metadata: dict[str, Any]) -> pa.Schema:
    """`schema` with `metadata`, which every file carries as a JSON object."""
    return schema.with_metadata({METADATA_KEY: json.dumps(metadata, sort_keys=True).encode()})


def write_table(table: pa.Table, path: Path) -> None:
    """Writes a whole table in the format of `file_format`."""
    pq.write_table(table, path, row_group_size=ROW_GROUP_ROWS, **file_format(table.schema))


def file_format(schema: pa.Schema) -> dict[str, Any]:
    """Arguments of pyarrow's Parquet writer. Only texts get dictionaries, because numbers hardly repeat; see docs/benchmarks.md."""
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    return {"compression": "zstd", "use_dictionary": texts, "write_page_checksum": True}


def row_metadata(row: MediaRow, style: dict[str, Any] | None, processors: Sequence[str]) -> dict[bytes, bytes]:
    """The metadata of `frames` that hold the medium's row, the `style` of its annotated copy, and the `processors` that were used."""
    return {ROW_KEY: json.dumps({**row.as_dict(), "style": style, "processors": list(processors)}).encode()}


def rewrite_row(path: Path, row: MediaRow, *, style: dict[str, Any] | None) -> None:
    """Rewrites a file of `frames` with another row of its medium. Raises OSError."""
    table = pq.ParquetFile(path).read()
    metadata = dict(table.schema.metadata or {})
    processors = json.loads(metadata.pop(ROW_KEY, b"{}")).get("processors", ())
    with replacing(path) as temporary:
        write_table(table.replace_schema_metadata({**metadata, **row_metadata(row, style, processors)}), temporary)


def read_metadata(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The metadata of a file, and the medium's row if it is one of `frames`; empty where the file is missing or damaged."""
    try:
        found = pq.read_metadata(path).metadata or {}
        return json.loads(found.get(METADATA_KEY, b"{}")), json.loads(found.get(ROW_KEY, b"{}"))
    except (OSError, pa.ArrowException, ValueError):
        return {}, {}
