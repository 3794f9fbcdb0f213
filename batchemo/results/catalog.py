"""Lists the media that a results folder has results of, and keeps their index, `media.parquet`."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from batchemo.atomic import replacing
from batchemo.errors import no_results
from batchemo.records import MediaRow
from batchemo.results.paths import annotated_path, output_names, table_path, thumbnails_folder
from batchemo.results.schema import MEDIA, PER_MEDIUM, read_metadata, write_table

_LOCK = ".media.lock"
_LOCK_TIMEOUT_S = 120.0
"""Other runs hold the lock for as long as reading and writing one file takes."""

Rows = Mapping[str, MediaRow]
"""Rows of `media` by the names of their media."""


@dataclasses.dataclass(frozen=True, slots=True)
class MediumResults:
    """The results of one medium.

    - `row`: its row of `media`.
    - `output`: its output name, empty where it has no tables, because it killed the worker process.
    - `metadata`: that of its table `frames`: labels, options, fingerprint and so on.
    - `style`: how its annotated copy was drawn; None where none was.
    - `processors`: that computed its probabilities; empty where an older version did not store them.
    """

    row: MediaRow
    output: str = ""
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)
    style: dict[str, Any] | None = None
    processors: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the weights; empty where there are no tables."""
        return tuple(self.metadata.get("labels", ()))

    @property
    def options(self) -> dict[str, Any]:
        """Those that shaped the tables, by name."""
        options: dict[str, Any] = self.metadata.get("options", {})
        return options


def has_results(results: Path) -> bool:
    """Whether `results` is a results folder."""
    return (results / "frames").is_dir() or table_path(results, "media").is_file()


def read_medium_results(results: Path, output: str) -> MediumResults | None:
    """The results of the medium with that output name; None where its table `frames` is missing or damaged."""
    metadata, values = read_metadata(table_path(results, "frames", output))
    row = _row_from(values)
    return None if row is None else MediumResults(row, output, metadata, values.get("style"), tuple(values.get("processors", ())))


def read_catalog(results: Path) -> Iterator[MediumResults]:
    """All media with tables, failed ones too, by output name; those whose table `frames` is damaged are left out."""
    for output in output_names(results, "frames"):
        found = read_medium_results(results, output)
        if found is not None:
            yield found


def read_all_media(results: Path) -> list[MediumResults]:
    """All media by name, those without tables too. Raises UsageError where `results` holds none."""
    media = {name: MediumResults(row) for name, row in read_media_rows(results).items()}
    for found in read_catalog(results):
        name = found.row.media
        # A medium that killed its worker in the last run has a new row in `media.parquet` alone, perhaps together with older tables.
        rows = [found.row, *([media[name].row] if name in media else [])]
        media[name] = dataclasses.replace(found, row=max(rows, key=lambda row: row.run_id))
    if not media:
        raise no_results(results)
    return [media[name] for name in sorted(media)]


def read_media_rows(results: Path) -> dict[str, MediaRow]:
    """The rows of `media.parquet`; none where it is missing or damaged."""
    try:
        rows = map(_row_from, pq.ParquetFile(table_path(results, "media")).read().to_pylist())
        return {row.media: row for row in rows if row is not None}
    except (OSError, pa.ArrowException):
        return {}


def merge_media_rows(results: Path, rows: Rows, *, lacking: Rows, without: Collection[str] = ()) -> None:
    """Puts `rows` into `media.parquet` in place of those of the same media, and keeps all others, so that several runs can write at once.

    `lacking` are added only where the file has no row of that medium; the media `without` a place in it are removed. Readers see the
    file before or after, never half of it. Raises OSError.
    """
    path = table_path(results, "media")
    try:
        with FileLock(results / _LOCK, timeout=_LOCK_TIMEOUT_S):
            known = {**lacking, **read_media_rows(results), **rows}
            table = pa.Table.from_pylist([known[name].as_dict() for name in sorted(known.keys() - set(without))], schema=MEDIA)
            with replacing(path) as temporary:
                write_table(table, temporary)
    except Timeout:
        logging.getLogger("batchemo").warning("%s is locked by another process; the next run completes it", path)


def remove_results(results: Path, output: str) -> None:
    """Removes the tables, the annotated copy and the thumbnails of a medium, and folders that are then empty.

    `frames` goes first: without it the medium counts as not analysed.
    """
    tables = [table_path(results, table, output) for table in ("frames", *PER_MEDIUM)]
    for path in [*tables, annotated_path(results, output, "video"), annotated_path(results, output, "image")]:
        path.unlink(missing_ok=True)
        for folder in path.parents[: len(Path(output).parts) - 1]:
            with contextlib.suppress(OSError):
                folder.rmdir()
    shutil.rmtree(thumbnails_folder(results, output), ignore_errors=True)


def is_vanished(row: MediaRow, inputs: Sequence[Path]) -> bool:
    """Whether a medium below one of the folders `inputs` no longer exists."""
    path = source_of(row)
    return not os.path.lexists(path) and any(path.is_relative_to(os.path.realpath(root)) for root in inputs)


def is_perhaps_unmounted(row: MediaRow) -> bool:
    """Whether the nearest existing folder above a vanished medium is empty, like the mount point of a drive that is not mounted."""
    folder = next(folder for folder in source_of(row).parents if folder.is_dir())
    return not any(folder.iterdir())


def source_of(row: MediaRow) -> Path:
    """The medium's file. Tables store its path as text, with `\\xff` for bytes that are not UTF-8."""
    written = Path(row.path)
    if os.path.lexists(written):
        return written
    raw = Path(re.sub(r"\\x([89a-f][0-9a-f])", lambda found: chr(0xDC00 + int(found[1], 16)), row.path))
    return raw if os.path.lexists(raw) else written


def _row_from(values: dict[str, Any]) -> MediaRow | None:
    """A row as any version stored it: unknown fields are left out. None where it is no row."""
    known = {field.name: values[field.name] for field in dataclasses.fields(MediaRow) if field.name in values}
    try:
        return MediaRow(**known)
    except TypeError:
        return None
