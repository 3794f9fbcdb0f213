"""`media.parquet`, the index of a results folder: kept by several runs at once."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from batchemo.atomic import replacing
from batchemo.inventory import row_from
from batchemo.records import MediaRow
from batchemo.tables import MEDIA, table_path, write_table

_LOCK = ".media.lock"
_PATIENCE_SECONDS = 120.0
"""Others hold the lock for as long as reading and writing one file takes."""


def merge_into_index(out: Path, rows: Iterable[MediaRow], *, without: Collection[str] = ()) -> None:
    """Puts `rows` in the place of those of the same media, drops those of the media `without`, and keeps all others, those that another run
    has added meanwhile too.

    Readers see the index before or after, never half of it. Raises OSError.
    """
    try:
        with FileLock(out / _LOCK, timeout=_PATIENCE_SECONDS):
            _merge(out, rows, without)
    except Timeout:
        logging.getLogger("batchemo").warning("%s is held by another process; the next run completes it", table_path(out, "media"))


def _merge(out: Path, rows: Iterable[MediaRow], without: Collection[str]) -> None:
    known = read_index(out) | {row.media: row for row in rows}
    table = pa.Table.from_pylist([known[name].as_dict() for name in sorted(known) if name not in without], schema=MEDIA)
    with replacing(table_path(out, "media")) as temporary:
        write_table(table, temporary)


def read_index(out: Path) -> dict[str, MediaRow]:
    """The rows by the names of their media; none where the index is missing or damaged."""
    try:
        rows = map(row_from, pq.ParquetFile(table_path(out, "media")).read().to_pylist())
        return {row.media: row for row in rows if row is not None}
    except (OSError, pa.ArrowException):
        return {}
