"""What stands in a results folder: each medium, whether done or failed, with its labels and its annotated copy."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from batchemo.errors import no_results
from batchemo.results.catalog import ANNOTATED_SUFFIXES, read_catalog, row_from
from batchemo.records import MediaRow
from batchemo.results.schema import table_path


@dataclasses.dataclass(frozen=True, slots=True)
class MediumResults:
    """One medium. `output` and `labels` are empty where it has no tables, because it killed whatever read it.

    `min_face_px` is the smallest face that was searched for. `annotated` is its annotated copy as a path below the results folder,
    empty where there is none.
    """

    row: MediaRow
    output: str = ""
    labels: tuple[str, ...] = ()
    uncertain_below: float = 0.5
    min_face_px: int = 40
    annotated: str = ""


def has_results(results: Path) -> bool:
    """Whether `results` looks like a results folder at all."""
    return (results / "frames").is_dir() or table_path(results, "media").is_file()


def read_medium_results(results: Path) -> list[MediumResults]:
    """All media by name. Raises UsageError where `results` holds none."""
    entries = {row.media: MediumResults(row) for row in _media_rows(results)}
    for found in read_catalog(results):
        name = found.row.media
        # A medium that killed whatever read it has a row in `media.parquet` alone, perhaps beside tables from before.
        rows = [found.row, *([entries[name].row] if name in entries else [])]
        options = found.metadata.get("options", {})
        entries[name] = MediumResults(
            row=max(rows, key=lambda row: row.run_id),
            output=found.output,
            labels=tuple(found.metadata.get("labels", ())),
            uncertain_below=float(options.get("uncertain_below", 0.5)),
            min_face_px=int(options.get("min_face_px", 40)),
            annotated=_annotated(results, found.output),
        )
    if not entries:
        raise no_results(results)
    return [entries[name] for name in sorted(entries)]


def _media_rows(results: Path) -> Iterator[MediaRow]:
    try:
        rows = pq.ParquetFile(table_path(results, "media")).read().to_pylist()
    except (OSError, pa.ArrowException):
        return
    yield from (row for row in map(row_from, rows) if row is not None)


def _annotated(results: Path, output: str) -> str:
    for suffix in ANNOTATED_SUFFIXES:
        if (results / "annotated" / f"{output}{suffix}").is_file():
            return f"annotated/{output}{suffix}"
    return ""
