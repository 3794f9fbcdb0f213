"""How a medium stands with the results that are there: what a run still has to do for it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from batchemo.fingerprint import is_same
from batchemo.inventory import Entry
from batchemo.options import RunOptions
from batchemo.records import Medium
from batchemo.tables import SCHEMA_VERSION, annotated_path, table_path, thumbnails_folder

Left = Literal["all", "copy", "nothing"]
"""All of it, or its pictures alone: the annotated copy and the thumbnails, by tables that stay as they are."""


def left_to_do(medium: Medium, entry: Entry | None, results: Path, *, options: RunOptions, weights_sha256: str) -> Left:
    """Tables count where they were made of the same content, with the same weights and options; pictures where they look as asked for."""
    if entry is None or options.force or not _has_tables(medium, entry, results, options, weights_sha256):
        return "all"
    failed = entry.row.status == "failed"
    if failed and options.retry_failed:
        return "all"
    copied = annotated_path(results, medium).is_file()
    if options.annotate and (entry.style != options.style().as_dict() if copied else not failed):
        return "copy"
    return "copy" if options.blur_faces and shows_faces(entry, results) else "nothing"


def shows_faces(entry: Entry, results: Path) -> bool:
    """Whether people can be recognized in what stands in `results` of a medium."""
    if thumbnails_folder(results, entry.output).exists():
        return True
    copy = results / "annotated" / f"{entry.output}{'.jpg' if entry.row.kind == 'image' else '.mp4'}"
    return copy.is_file() and not (entry.style or {}).get("blur_faces")


def _has_tables(medium: Medium, entry: Entry, results: Path, options: RunOptions, weights_sha256: str) -> bool:
    metadata = entry.metadata
    return (
        metadata.get("schema_version") == SCHEMA_VERSION
        and metadata["weights_sha256"] == weights_sha256
        and metadata["options"] == options.shaping()
        and all(table_path(results, table, medium.output).is_file() for table in ("faces", "tracks", "episodes"))
        and is_same(medium.path, metadata["fingerprint"])
    )
