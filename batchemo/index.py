"""`media.parquet`, the index of a results folder: kept by several runs at once, and made again from the tables if it is lost."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from batchemo.atomic import replacing
from batchemo.records import MediaRow
from batchemo.tables import MEDIA, read_metadata, table_path, write_table

_LOCK = ".media.lock"
_PATIENCE_SECONDS = 120.0
"""Others hold the lock for as long as reading and writing one file takes."""


def merge_into_index(out: Path, rows: Iterable[MediaRow]) -> None:
    """Puts `rows` in the place of those of the same media, and keeps all others, those that another run has added meanwhile too.

    Readers see the index before or after, never half of it. Raises OSError.
    """
    try:
        with FileLock(out / _LOCK, timeout=_PATIENCE_SECONDS):
            _merge(out, rows)
    except Timeout:
        logging.getLogger("batchemo").warning("%s is held by another process; the next run completes it", table_path(out, "media"))


def _merge(out: Path, rows: Iterable[MediaRow]) -> None:
    known = _known(out) | {row.media: row.as_dict() for row in rows}
    table = pa.Table.from_pylist([known[name] for name in sorted(known)], schema=MEDIA)
    with replacing(table_path(out, "media")) as temporary:
        write_table(table, temporary)


def _known(out: Path) -> dict[str, dict[str, Any]]:
    """The rows of the index by name; those that the tables carry where it is missing or damaged."""
    try:
        return {row["media"]: row for row in pq.ParquetFile(table_path(out, "media")).read().to_pylist()}
    except (OSError, pa.ArrowException):
        found = (read_metadata(path)[1] for path in sorted((out / "frames").rglob("*.parquet")))
        return {row["media"]: row for row in found if row}
