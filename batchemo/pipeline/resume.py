"""How a medium stands with the results that are there: what a run still has to do for it, and what may not stay."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Literal

from batchemo.media.identity import is_same_file
from batchemo.options import RunOptions
from batchemo.records import MediaRow, Medium
from batchemo.results.catalog import CatalogEntry, read_catalog_entry
from batchemo.results.faces_left import without_faces_left
from batchemo.results.schema import SCHEMA_VERSION, annotated_path, rewrite_row, table_path, thumbnails_folder

PendingWork = Literal["all", "copy", "nothing"]
"""All of it, or its pictures alone: the annotated copy and the thumbnails, by tables that stay as they are."""


def pending_work(medium: Medium, entry: CatalogEntry | None, results: Path, *, options: RunOptions, weights_sha256: str) -> PendingWork:
    """Tables count where they were made of the same content, with the same weights and options; pictures where they look as asked for."""
    if entry is None or options.force or not _has_tables(medium, entry, results, options, weights_sha256):
        return "all"
    failed = entry.row.status == "failed"
    if failed and options.retry_failed:
        return "all"
    copied = annotated_path(results, medium).is_file()
    if options.annotate and (not _is_in_style(entry, options) if copied else not failed):
        return "copy"
    return "copy" if options.blur_faces and shows_faces(entry, results) else "nothing"


def lacks_only_copy(medium: Medium, results: Path, *, options: RunOptions, weights_sha256: str) -> CatalogEntry | None:
    """What is known of a medium that lacks nothing but its pictures; None of any other."""
    entry = read_catalog_entry(results, medium.output)
    left = pending_work(medium, entry, results, options=options, weights_sha256=weights_sha256)
    return entry if left == "copy" else None


def shows_faces(entry: CatalogEntry, results: Path) -> bool:
    """Whether people can be recognized in what stands in `results` of a medium."""
    if thumbnails_folder(results, entry.output).exists():
        return True
    copy = results / "annotated" / f"{entry.output}{'.jpg' if entry.row.kind == 'image' else '.mp4'}"
    return copy.is_file() and not (entry.style or {}).get("blur_faces")


def forget_style(medium: Medium, results: Path, *, hides: bool) -> None:
    """Before a medium is drawn: its tables say nothing of a look any more, so that a run that is killed leaves no copy with faces that
    counts as blurred. Where faces are to be hidden, what shows them goes. Raises OSError."""
    entry = read_catalog_entry(results, medium.output)
    if entry is None:
        return
    if hides and shows_faces(entry, results):
        annotated_path(results, medium).unlink(missing_ok=True)
        shutil.rmtree(thumbnails_folder(results, medium.output), ignore_errors=True)
    if entry.style is not None:
        rewrite_row(table_path(results, "frames", medium.output), without_faces_left(entry.row), style=None)


def _is_in_style(entry: CatalogEntry, options: RunOptions) -> bool:
    wanted, known = options.style().as_dict(), entry.style or {}
    if entry.row.kind == "image":  # has neither a codec nor a timeline
        return bool(known) and all(known.get(name) == wanted.get(name) for name in ("blur_faces", "blur_style"))
    return known == wanted


def _has_tables(medium: Medium, entry: CatalogEntry, results: Path, options: RunOptions, weights_sha256: str) -> bool:
    metadata = entry.metadata
    return (
        metadata.get("schema_version") == SCHEMA_VERSION
        and metadata["weights_sha256"] == weights_sha256
        and metadata["options"] == options.shaping()
        and all(table_path(results, table, medium.output).is_file() for table in ("faces", "tracks", "episodes"))
        and is_same_file(medium.path, metadata["fingerprint"])
    )


@dataclasses.dataclass(frozen=True, slots=True)
class PreviousCopy:
    """An annotated copy as it was before a run, and the hash of what it was drawn from, if with the same options and weights."""

    path: Path
    identity: tuple[int, int] | None
    sha256: str

    @classmethod
    def of(cls, medium: Medium, out: Path, options: RunOptions, *, weights_sha256: str) -> PreviousCopy:
        path, entry = annotated_path(out, medium), read_catalog_entry(out, medium.output)
        made_of = {"options": options.shaping(), "weights_sha256": weights_sha256}
        same = entry is not None and all(entry.metadata.get(key) == value for key, value in made_of.items())
        same = same and not (options.blur_faces and entry is not None and shows_faces(entry, out))
        return cls(path, _identity(path), entry.row.sha256 if entry is not None and same else "")

    def remove_if_it_does_not_fit(self, row: MediaRow) -> None:
        """A medium that was analysed anew, and otherwise, without a new copy, because it failed or none was asked for, keeps none."""
        fits = row.status == "done" and row.sha256 == self.sha256
        if self.identity is not None and not fits and _identity(self.path) == self.identity:
            self.path.unlink(missing_ok=True)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns
