"""`media.parquet`, the index of a results folder, which several runs may keep at once."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from batchemo.atomic import replacing
from batchemo.results.catalog import row_from
from batchemo.records import MediaRow
from batchemo.results.schema import MEDIA, table_path, write_table

_LOCK = ".media.lock"
_PATIENCE_SECONDS = 120.0
"""Others hold the lock for as long as reading and writing one file takes."""

Rows = Mapping[str, MediaRow]
"""Rows by the names of their media."""


def read_media_rows(out: Path) -> dict[str, MediaRow]:
    """The rows of the index; none where it is missing or damaged."""
    try:
        rows = map(row_from, pq.ParquetFile(table_path(out, "media")).read().to_pylist())
        return {row.media: row for row in rows if row is not None}
    except (OSError, pa.ArrowException):
        return {}


def merge_media_rows(out: Path, rows: Rows, *, lacking: Rows, without: Collection[str] = ()) -> None:
    """Puts `rows` in the place of those of the same media, and keeps all others: those that another run has added meanwhile too.

    Rows that are `lacking` are added only where the index has none; media `without` a place in it are taken out. Readers see the index
    before or after, never half of it. Raises OSError.
    """
    try:
        with FileLock(out / _LOCK, timeout=_PATIENCE_SECONDS):
            known = {**lacking, **read_media_rows(out), **rows}
            table = pa.Table.from_pylist([known[name].as_dict() for name in sorted(known.keys() - set(without))], schema=MEDIA)
            with replacing(table_path(out, "media")) as temporary:
                write_table(table, temporary)
    except Timeout:
        logging.getLogger("batchemo").warning("%s is held by another process; the next run completes it", table_path(out, "media"))
