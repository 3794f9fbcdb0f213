"""Decides what a run has to do for a medium that has results, and removes those that may not stay."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Literal

from batchemo.media.file_identity import is_same_file
from batchemo.pipeline.context import RunContext
from batchemo.records import MediaRow, Medium
from batchemo.results.catalog import MediumResults, read_medium_results
from batchemo.results.paths import annotated_path, table_path, thumbnails_folder
from batchemo.results.schema import SCHEMA_VERSION, rewrite_row
from batchemo.results.unblurred_faces import without_faces_left

PendingWork = Literal["all", "copy", "nothing"]
"""`copy`: the tables are kept; the annotated copy and the thumbnails are made again."""


def pending_work(medium: Medium, entry: MediumResults | None, context: RunContext) -> PendingWork:
    """What is left to do. Tables are kept if content, weights and options are the same, and annotated copies if the style is the same."""
    options = context.options
    if entry is None or options.force or not _has_tables(medium, entry, context):
        return "all"
    failed = entry.row.status == "failed"
    if failed and options.retry_failed:
        return "all"
    copied = annotated_path(context.results, medium.output, medium.kind).is_file()
    if options.annotate and (not _has_style(entry, options.style().as_dict()) if copied else not failed):
        return "copy"
    return "copy" if options.blur_faces and shows_faces(entry, context.results) else "nothing"


def lacks_only_copy(medium: Medium, context: RunContext) -> MediumResults | None:
    """The catalog entry of a medium whose tables stay while its annotated copy is made again; None of any other."""
    entry = read_medium_results(context.results, medium.output)
    return entry if pending_work(medium, entry, context) == "copy" else None


def shows_faces(entry: MediumResults, results: Path) -> bool:
    """Whether a person can be recognized in the annotated copy or the thumbnails of a medium."""
    if thumbnails_folder(results, entry.output).exists():
        return True
    copy = results / "annotated" / f"{entry.output}{'.jpg' if entry.row.kind == 'image' else '.mp4'}"
    return copy.is_file() and not (entry.style or {}).get("blur_faces")


def forget_style(medium: Medium, entry: MediumResults | None, results: Path, *, hides: bool) -> None:
    """Removes the style from the tables of a medium before its copy is drawn again: if the run is killed, no copy counts as blurred by
    mistake. `hides`: removes a copy and thumbnails that show faces, too. Raises OSError."""
    if entry is None:
        return
    if hides and shows_faces(entry, results):
        annotated_path(results, medium.output, medium.kind).unlink(missing_ok=True)
        shutil.rmtree(thumbnails_folder(results, medium.output), ignore_errors=True)
    if entry.style is not None:
        rewrite_row(table_path(results, "frames", medium.output), without_faces_left(entry.row), style=None)


def _has_style(entry: MediumResults, wanted: dict[str, object]) -> bool:
    known = entry.style or {}
    if entry.row.kind == "image":  # has neither a codec nor a timeline
        return bool(known) and all(known.get(name) == wanted.get(name) for name in ("blur_faces", "blur_style"))
    return known == wanted


def _has_tables(medium: Medium, entry: MediumResults, context: RunContext) -> bool:
    metadata = entry.metadata
    return (
        metadata.get("schema_version") == SCHEMA_VERSION
        and metadata["weights_sha256"] == context.weights_sha256
        and metadata["options"] == context.options.shaping()
        and all(table_path(context.results, table, medium.output).is_file() for table in ("faces", "tracks", "episodes"))
        and is_same_file(medium.path, metadata["fingerprint"])
    )


@dataclasses.dataclass(frozen=True, slots=True)
class PreviousCopy:
    """An annotated copy as it was before a run. `sha256` is that of the medium it was drawn from, empty where weights or options have
    changed since. `identity` is its inode and time of change."""

    path: Path
    identity: tuple[int, int] | None
    sha256: str

    @classmethod
    def of(cls, medium: Medium, context: RunContext) -> PreviousCopy:
        results, options = context.results, context.options
        path, entry = annotated_path(results, medium.output, medium.kind), read_medium_results(results, medium.output)
        made_of = {"options": options.shaping(), "weights_sha256": context.weights_sha256}
        same = entry is not None and all(entry.metadata.get(key) == value for key, value in made_of.items())
        same = same and not (options.blur_faces and entry is not None and shows_faces(entry, results))
        return cls(path, _identity(path), entry.row.sha256 if entry is not None and same else "")

    def remove_if_outdated(self, row: MediaRow) -> None:
        """Removes the copy if it does not fit the new `row` of its medium and no new one was drawn."""
        fits = row.status == "done" and row.sha256 == self.sha256
        if self.identity is not None and not fits and _identity(self.path) == self.identity:
            self.path.unlink(missing_ok=True)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns
