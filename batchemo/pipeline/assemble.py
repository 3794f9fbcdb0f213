"""Assembles the tables of one medium: joins the faces of its frames to tracks, and writes what is known of each."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchemo import __version__
from batchemo.atomic import remove_temporaries_of
from batchemo.errors import MediaError, typed, unreadable
from batchemo.faces.tracker import Tracker
from batchemo.media.file_identity import identity_of
from batchemo.media.shots import is_cut
from batchemo.media.source import ReadReport
from batchemo.pipeline.context import RunContext
from batchemo.pipeline.resume import forget_style, lacks_only_copy
from batchemo.pipeline.segments import FrameResults
from batchemo.records import MediaRow, Medium, MediumOutcome, failed_row
from batchemo.results.catalog import MediumResults, read_medium_results
from batchemo.results.paths import annotated_path, files_of, table_path, thumbnails_folder
from batchemo.results.schema import SCHEMA_VERSION, rewrite_row
from batchemo.results.unblurred_faces import with_faces_left, with_faces_left_of, without_faces_left
from batchemo.results.writer import TimelineWriter
from batchemo.timing import Stopwatch

_STAGE = "track and write"


class TableAssembler:
    """Writes the tables of `medium` from the frame results of its segments, which come in order. A context manager: the tables appear when
    it is left without an error.

    - `origin`: what the tables are made of, which is the file, the weights, and the options that shape them.
    - `readable`: False where the file cannot be read at all.
    - `spent_s`: seconds that were spent on the medium before.
    """

    kept_frames = 0
    has_thumbnails = False

    def __init__(self, medium: Medium, context: RunContext, watch: Stopwatch, *, spent_s: float = 0.0) -> None:
        options, results = context.options, context.results
        self._medium = medium
        self._watch = watch
        self._results = results
        self._annotates, self._hides = options.annotate, bool(options.blur_faces)
        self._started = time.monotonic() - spent_s
        self._tracker = Tracker(appearance=options.appearance)
        self._report = ReadReport()
        row = MediaRow(media=medium.name, path=str(medium.path.resolve()), kind=medium.kind, status="done", run_id=context.run_id)
        self._row = row.storable()
        fingerprint: dict[str, Any] = {}
        try:
            with watch.stage("hash"):
                fingerprint = identity_of(medium.path)
        except OSError as error:
            self.fail(unreadable(medium.path, error))
        self.readable = bool(fingerprint)
        self.origin: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "batchemo_version": __version__,
            "weights_sha256": context.weights_sha256,
            "labels": list(context.labels),
            "options": options.shaping(),
            "path": self._row.path,
            "fingerprint": fingerprint,
        }
        self._row = dataclasses.replace(self._row, sha256=str(fingerprint.get("sha256", "")))
        uncertain_below = options.uncertain_below
        self._timeline = TimelineWriter(results, medium, labels=context.labels, metadata=self.origin, uncertain_below=uncertain_below)
        self._before = read_medium_results(results, medium.output)
        # Where no copy is drawn, the earlier one may stay.
        kept = None if self._annotates or self._before is None else self._before.style
        self._style = options.style().as_dict() if self._annotates else kept
        self._last: NDArray[np.uint8] | None = None  # thumbnail of the last frame
        self._left_s: tuple[float, ...] = ()
        self._processors: set[str] = set()

    def __enter__(self) -> TableAssembler:
        with self._watch.stage(_STAGE):
            if self._annotates:
                forget_style(self._medium, self._before, self._results, hides=self._hides)
            self._timeline.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._watch.stage(_STAGE):
            self._timeline.__exit__(kind, error, trace)

    def add(self, segment: FrameResults) -> None:
        """Writes the frame results of the next segment. If they end in an error, the results before it are kept."""
        offset = self._report.decoded
        cut = is_cut(self._last, segment.first)
        try:
            for result in segment:
                with self._watch.stage(_STAGE):
                    if result.index < 0:
                        self._timeline.write_undecodable(result)
                    else:
                        track_ids = self._tracker.update(result.time_s, result.faces, result.embeddings, cut=result.cut or cut)
                        cut = False
                        self._timeline.write(result, track_ids, index=result.index + offset)
        finally:
            self._add_report(segment.report, segment.decoder)
            self._processors |= {segment.processor} - {""}
        if segment.last is not None:
            self._last = segment.last

    def add_faces_left(self, times_s: tuple[float, ...]) -> None:
        """Adds the times at which faces may be left in the blurred copy, or in a segment of it."""
        self._left_s += times_s

    def fail(self, error: MediaError) -> None:
        """The medium has failed; its tables keep what has been written."""
        self._row = failed_row(self._row, error)

    @property
    def failed(self) -> bool:
        return self._row.status == "failed"

    @property
    def processors(self) -> tuple[str, ...]:
        """What the probabilities were computed on; several where workers on different machines share the segments of a video."""
        return tuple(sorted(self._processors))

    def faces_path(self) -> Path:
        """Completes the table of faces, and returns its temporary path. No more faces can be added."""
        with self._watch.stage(_STAGE):
            return self._timeline.close_faces()

    def finish(self) -> MediaRow:
        """Completes the tables, which appear when the context is left."""
        report = self._report
        row = dataclasses.replace(
            self._row,
            n_frames=report.decoded + report.undecodable + report.missing,
            n_frames_analysed=self._timeline.n_frames_analysed,
            n_faces=self._timeline.n_faces,
            n_tracks=self._tracker.count,
        )
        if row.status == "done":
            row = _with_losses(row, self._medium, report)
            row = with_faces_left(row, self._left_s)
            if not self._annotates and self._before is not None and self._before.row.sha256 == row.sha256:
                row = with_faces_left_of(row, self._before.row)
        row = dataclasses.replace(row, seconds_taken=time.monotonic() - self._started)
        with self._watch.stage(_STAGE):
            self._timeline.finish(row, style=self._style, processors=self.processors)
        return row

    def _add_report(self, added: ReadReport, decoder: str) -> None:
        known = self._report
        self._report = dataclasses.replace(
            added,
            decoded=known.decoded + added.decoded,
            undecodable=known.undecodable + added.undecodable,
            missing=known.missing + added.missing,
            trouble=known.trouble or added.trouble,
            note=known.note or added.note,
            width=known.width or added.width,
            height=known.height or added.height,
            duration_s=max(known.duration_s, added.duration_s),
            starts_s=added.starts_s if known.starts_s is None else known.starts_s,
        )
        of_medium = {name: getattr(self._report, name) for name in ("width", "height", "duration_s", "starts_s")}
        self._row = dataclasses.replace(self._row, decoder=decoder, **of_medium)


class KeptTables:
    """The tables of an earlier run, which are kept while the annotated copy is drawn again. Has the interface of `TableAssembler`.

    As a context manager it first removes the old copy, and with `--blur-faces` the thumbnails, so that a killed run leaves none.
    """

    readable = True

    def __init__(self, medium: Medium, entry: MediumResults, context: RunContext, watch: Stopwatch) -> None:
        self._medium = medium
        self._entry = entry
        self._results = context.results
        self._style = context.options.style().as_dict() if context.options.annotate else None
        self._hides = bool(context.options.blur_faces)
        self._watch = watch
        self._row = without_faces_left(entry.row)
        self.origin = entry.metadata
        self.processors = entry.processors
        self.kept_frames = entry.row.n_frames_analysed
        self.has_thumbnails = thumbnails_folder(context.results, medium.output).exists()

    def __enter__(self) -> KeptTables:
        annotated_path(self._results, self._medium.output, self._medium.kind).unlink(missing_ok=True)
        forget_style(self._medium, self._entry, self._results, hides=self._hides)
        return self

    def __exit__(self, *_: object) -> None:
        """The tables are complete at any time."""

    def add(self, _segment: FrameResults) -> None:
        raise ValueError(f"{self._medium.name} is not analysed again")

    def add_faces_left(self, times_s: tuple[float, ...]) -> None:
        """See `TableAssembler`."""
        self._row = with_faces_left(self._row, times_s)

    def fail(self, error: MediaError) -> None:
        """The copy cannot be drawn; the tables keep their rows."""
        self._row = failed_row(self._row, error)

    def faces_path(self) -> Path:
        """The table of faces."""
        return table_path(self._results, "faces", self._medium.output)

    def finish(self) -> MediaRow:
        """Writes the style of the copy to the tables."""
        rewrite_row(table_path(self._results, "frames", self._medium.output), self._row, style=self._style)
        return self._row


def write_failure(medium: Medium, error: MediaError, context: RunContext) -> MediumOutcome:
    """Writes empty tables for a medium that no process can analyse, so that it is not tried again before its file changes. Complete
    tables of an earlier run are kept."""
    remove_temporaries_of(files_of(context.results, medium))  # of the worker that died
    entry = lacks_only_copy(medium, context)
    if entry is not None:
        row = failed_row(entry.row, error)
        rewrite_row(table_path(context.results, "frames", medium.output), row, style=None)
        return MediumOutcome(row, {}, entry.processors)
    watch = Stopwatch()
    with TableAssembler(medium, context, watch) as tables:
        tables.fail(error)
        row = tables.finish()
    return MediumOutcome(row, dict(watch.seconds))


def _with_losses(row: MediaRow, medium: Medium, report: ReadReport) -> MediaRow:
    """The row with a message about unreadable frames. A file that ends too early has failed, though its tables hold the rest."""
    if report.missing:
        kept = f"{report.decoded} of {row.n_frames} frames could be read; the tables hold those"
        message = f"{medium.path} is cut off: only {kept}. Copy it again from its source"
        return dataclasses.replace(row, status="failed", error="truncated", message=message).storable()
    if not report.decoded and report.undecodable:
        message = f"{medium.path}: not one frame can be decoded; look at it with: ffprobe {typed(medium.path)}"
        return dataclasses.replace(row, status="failed", error="no_frames", message=message).storable()
    lost = f"{report.undecodable} of {row.n_frames} frames cannot be decoded ({report.trouble or 'damaged'})" if report.undecodable else ""
    return dataclasses.replace(row, message="; ".join(filter(None, (report.note, lost)))).storable()
