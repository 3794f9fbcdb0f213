"""From readings to the tables of one medium: who is who, and what became of it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from batchemo import __version__
from batchemo.errors import MediaError, typed, unreadable
from batchemo.faces.tracker import Tracker
from batchemo.media.identity import identity_of
from batchemo.media.shots import is_cut
from batchemo.media.source import ReadReport
from batchemo.options import RunOptions
from batchemo.pipeline.resume import forget_style
from batchemo.pipeline.segments import SegmentResult
from batchemo.records import FrameResult, MediaRow, Medium, failed_row
from batchemo.results.catalog import MediumResults, read_medium_results
from batchemo.results.faces_left import with_faces_left, with_faces_left_of
from batchemo.results.schema import SCHEMA_VERSION
from batchemo.results.writer import TimelineWriter
from batchemo.timing import Stopwatch

_STAGE = "track and write"


class TableAssembler:
    """The tables of `medium` below `results`, out of readings that come in order; a context manager, in which nothing is visible yet.

    `origin` tells what the tables are made of: the file, the weights, and the options that shape them. `readable` is False where the file
    is not to be had at all. `spent_s` seconds were spent on the medium before.
    """

    def __init__(
        self,
        medium: Medium,
        results: Path,
        *,
        options: RunOptions,
        labels: tuple[str, ...],
        weights_sha256: str,
        run_id: str,
        watch: Stopwatch,
        spent_s: float = 0.0,
    ) -> None:
        self._medium = medium
        self._watch = watch
        self._started = time.monotonic() - spent_s
        self._tracker = Tracker(appearance=options.appearance)
        self._found = ReadReport()
        row = MediaRow(media=medium.name, path=str(medium.path.resolve()), kind=medium.kind, status="done", run_id=run_id)
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
            "weights_sha256": weights_sha256,
            "labels": list(labels),
            "options": options.shaping(),
            "path": self._row.path,
            "fingerprint": fingerprint,
        }
        self._row = dataclasses.replace(self._row, sha256=str(fingerprint.get("sha256", "")))
        self._timeline = TimelineWriter(results, medium, labels=labels, metadata=self.origin, uncertain_below=options.uncertain_below)
        self._kept = None if options.annotate else read_medium_results(results, medium.output)
        self._style = options.style().as_dict() if options.annotate else _style_of(self._kept)
        self._results, self._options = results, options
        self._last: SegmentResult | None = None
        self._left_s: tuple[float, ...] = ()

    def __enter__(self) -> TableAssembler:
        with self._watch.stage(_STAGE):
            if self._options.annotate:
                forget_style(self._medium, self._results, hides=bool(self._options.blur_faces))
            self._timeline.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._watch.stage(_STAGE):
            self._timeline.__exit__(kind, error, trace)

    def add(self, readings: Iterable[FrameResult], *, index_offset: int = 0, cut: bool = False) -> Iterator[FrameResult]:
        """Writes readings and gives them on; `cut`: a shot begins with the first of them."""
        for reading in readings:
            with self._watch.stage(_STAGE):
                if reading.index < 0:
                    self._timeline.write_undecodable(reading)
                else:
                    ids = self._tracker.update(reading.time_s, reading.faces, reading.embeddings, cut=reading.cut or cut)
                    cut = False
                    self._timeline.write(reading, ids, index=reading.index + index_offset)
            yield reading

    def add_part(self, part: SegmentResult) -> None:
        """Writes the next segment of a video."""
        cut = self._last is not None and is_cut(self._last.last, part.first)
        for _ in self.add(part.readings, index_offset=self._found.decoded, cut=cut):
            pass
        # Only the edge is needed of the one before.
        self._last = dataclasses.replace(part, readings=()) if part.last is not None else self._last
        self._tell(part.found, part.decoder)

    def tell(self, found: ReadReport, decoder: str) -> None:
        """What was found in a medium that is not read in parts."""
        self._found = ReadReport()
        self._tell(found, decoder)

    def tell_left(self, times_s: tuple[float, ...]) -> None:
        """When faces may be left in the blurred copy, or a stretch of it."""
        self._left_s += times_s

    def fail(self, error: MediaError) -> None:
        """The medium has failed; its tables keep what has been written."""
        self._row = failed_row(self._row, error)

    @property
    def failed(self) -> bool:
        return self._row.status == "failed"

    def faces_path(self) -> Path:
        """The table of faces, complete, under its temporary name; nothing can be added any more."""
        with self._watch.stage(_STAGE):
            return self._timeline.close_faces()

    def finish(self) -> MediaRow:
        """Completes the tables, which appear when the context is left."""
        row = dataclasses.replace(
            self._row,
            n_frames=self._found.decoded + self._found.undecodable + self._found.missing,
            n_frames_analysed=self._timeline.n_frames_analysed,
            n_faces=self._timeline.n_faces,
            n_tracks=self._tracker.count,
        )
        if row.status == "done":
            row = with_faces_left(_with_losses(row, self._medium, self._found), self._left_s)
            if self._kept is not None and self._kept.row.sha256 == row.sha256:
                row = with_faces_left_of(row, self._kept.row)
        row = dataclasses.replace(row, seconds_taken=time.monotonic() - self._started)
        with self._watch.stage(_STAGE):
            self._timeline.finish(row, style=self._style)
        return row

    def _tell(self, found: ReadReport, decoder: str) -> None:
        known = self._found
        self._found = dataclasses.replace(
            found,
            decoded=known.decoded + found.decoded,
            undecodable=known.undecodable + found.undecodable,
            missing=known.missing + found.missing,
            trouble=known.trouble or found.trouble,
            note=known.note or found.note,
            width=known.width or found.width,
            height=known.height or found.height,
            duration_s=max(known.duration_s, found.duration_s),
            starts_s=found.starts_s if known.starts_s is None else known.starts_s,
        )
        of_medium = {name: getattr(self._found, name) for name in ("width", "height", "duration_s", "starts_s")}
        self._row = dataclasses.replace(self._row, decoder=decoder, **of_medium)


def _style_of(entry: MediumResults | None) -> dict[str, Any] | None:
    """Of the annotated copy that is there, which may stay."""
    return None if entry is None else entry.style


def _with_losses(row: MediaRow, medium: Medium, found: ReadReport) -> MediaRow:
    """The row with a word on what could not be had or was not looked at. A file that ends too early has failed, though its tables hold the
    rest."""
    if found.missing:
        kept = f"{found.decoded} of {row.n_frames} frames could be read; the tables hold those"
        message = f"{medium.path} is cut off: only {kept}. Copy it again from its source"
        return dataclasses.replace(row, status="failed", error="truncated", message=message).storable()
    if not found.decoded and found.undecodable:
        message = f"{medium.path}: not one frame can be decoded; look at it with: ffprobe {typed(medium.path)}"
        return dataclasses.replace(row, status="failed", error="no_frames", message=message).storable()
    lost = f"{found.undecodable} of {row.n_frames} frames cannot be decoded ({found.trouble or 'damaged'})" if found.undecodable else ""
    return dataclasses.replace(row, message="; ".join(filter(None, (found.note, lost)))).storable()
