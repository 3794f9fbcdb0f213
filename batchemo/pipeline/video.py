"""One medium, or pictures together, from files to tables and annotated copies: chains the stages."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchemo.errors import MediaError, blaming
from batchemo.faces.align import align_faces
from batchemo.faces.reid import ReidSampler
from batchemo.media.decode import open_source, segments_of
from batchemo.media.shots import ShotFinder
from batchemo.media.source import ReadReport
from batchemo.options import RunOptions
from batchemo.pipeline.assemble import TableAssembler
from batchemo.pipeline.frames import (
    DetectedPicture,
    Models,
    PictureBatch,
    batch_by_size,
    detect_picture,
    embed_frame,
    infer_frames,
    models_of,
)
from batchemo.pipeline.resume import forget_style, lacks_only_copy
from batchemo.pipeline.segments import (
    AnalyseTask,
    RenderTask,
    SegmentResult,
    SegmentTask,
    SegmentTaskResult,
    SplitTask,
    ThumbnailTask,
    load_segment,
    remove_segments,
    save_segment,
    segment_path,
)
from batchemo.records import Medium, MediumOutcome, Segment, failed_row
from batchemo.render.annotated_copy import annotate
from batchemo.render.thumbnails import write_picture_thumbnails, write_thumbnails
from batchemo.render.timestamps import read_output_clock
from batchemo.results.catalog import MediumResults
from batchemo.results.faces_left import with_faces_left, without_faces_left
from batchemo.results.paths import annotated_path, table_path, thumbnails_folder
from batchemo.results.schema import rewrite_row
from batchemo.timing import Stopwatch

ReportProgress = Callable[[int, float], None]
"""Called with frames that have just been analysed, and the share of the medium that is behind us (0 to 1)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Analyst:
    """Analyses media and writes the files of each below `results`; the annotated copy alone of one whose tables are there. A medium that
    cannot be analysed gives a row that says why.

    Its tables are written all the same, with whatever could be read.
    """

    results: Path
    options: RunOptions
    weights_sha256: str
    run_id: str
    beat: ReportProgress

    def film(self, medium: Medium) -> MediumOutcome:
        """Analyses a video."""
        entry = self._with_tables(medium)
        if entry is not None:
            return _draw_again(medium, entry, self.results, options=self.options, beat=self.beat)
        watch = Stopwatch()
        with watch.stage("start"):
            models = models_of(self.options)
        read = functools.partial(_read_medium, medium, self.results, models=models, options=self.options, beat=self.beat, watch=watch)
        return self._write(medium, read, labels=models.classifier.labels, watch=watch)

    def pictures(self, media: Sequence[Medium]) -> Iterator[MediumOutcome]:
        """Analyses pictures, each for itself, but that the faces of several are classified at once."""
        fresh = []
        for medium in media:
            entry = self._with_tables(medium)
            if entry is None:
                fresh.append(medium)
            else:
                yield _draw_again(medium, entry, self.results, options=self.options, beat=self.beat)
        seen = (self._glimpse(medium) for medium in fresh)
        for together in batch_by_size(seen, lambda each: each.nbytes):
            models = models_of(self.options)
            album = PictureBatch(together, models)
            for index, each in enumerate(together):
                read = functools.partial(self._show, album, index, each)
                yield self._write(
                    each.medium, read, labels=models.classifier.labels, watch=each.watch, spent_s=each.seconds, portraits=each.portraits
                )

    def _with_tables(self, medium: Medium) -> MediumResults | None:
        return lacks_only_copy(medium, self.results, options=self.options, weights_sha256=self.weights_sha256)

    def _glimpse(self, medium: Medium) -> DetectedPicture:
        watch = Stopwatch()
        with watch.stage("start"):
            models = models_of(self.options)
        seen = detect_picture(medium, models, self.options, watch)
        self.beat(0, 0.5)
        return seen

    def _show(self, album: PictureBatch, index: int, seen: DetectedPicture, assembly: TableAssembler) -> None:
        assembly.tell(seen.found, seen.decoder)
        for _ in assembly.add([album.read(index)]):
            self.beat(1, 1.0)

    def _write(
        self,
        medium: Medium,
        read: Callable[[TableAssembler], None],
        *,
        labels: tuple[str, ...],
        watch: Stopwatch,
        spent_s: float = 0.0,
        portraits: Sequence[NDArray[np.uint8]] | None = None,
    ) -> MediumOutcome:
        """The files of a medium, whose readings `read` puts into its tables; `spent_s` seconds were spent on it before, in which its
        `portraits` may have been cut."""
        options, results = self.options, self.results
        with TableAssembler(
            medium,
            results,
            options=options,
            labels=labels,
            weights_sha256=self.weights_sha256,
            run_id=self.run_id,
            watch=watch,
            spent_s=spent_s,
        ) as assembly:
            if assembly.readable:
                try:
                    with blaming(medium.path):
                        read(assembly)
                        if options.annotate:
                            faces = assembly.faces_path()
                            left_s = _annotate(medium, results, faces, options=options, labels=labels, beat=self._done, watch=watch)
                            assembly.tell_left(left_s)
                except MediaError as error:
                    assembly.fail(error)
            row = assembly.finish()
        remove_segments(results, medium)
        if options.portrays and row.n_faces:
            _portray(medium, results, self._done, watch, portraits)
        return MediumOutcome(row, dict(watch.seconds))

    def _done(self) -> None:
        self.beat(0, 1.0)


def _draw_again(medium: Medium, entry: MediumResults, results: Path, *, options: RunOptions, beat: ReportProgress) -> MediumOutcome:
    """Pictures by the tables that are there. What shows faces goes first, so that nothing is left of it whatever happens."""
    watch = Stopwatch()
    thumbnails = thumbnails_folder(results, medium.output)
    annotated_path(results, medium.output, medium.kind).unlink(missing_ok=True)
    forget_style(medium, results, hides=bool(options.blur_faces))
    row, faces = without_faces_left(entry.row), table_path(results, "faces", medium.output)
    shares = (min(1.0, count / max(1, entry.row.n_frames_analysed)) for count in itertools.count(1))
    share = 0.0
    labels = entry.metadata["labels"]
    try:
        if options.annotate:

            def tell() -> None:
                nonlocal share
                share = next(shares)
                beat(0, share)

            def stay() -> None:
                beat(0, share)

            with blaming(medium.path):
                left_s = _annotate(medium, results, faces, options=options, labels=labels, beat=tell, alive=stay, watch=watch)
            row = with_faces_left(row, left_s)
    except MediaError as error:
        row = failed_row(row, error)
    rewrite_row(table_path(results, "frames", medium.output), row, style=options.style().as_dict() if options.annotate else None)
    if options.portrays and row.n_faces and not thumbnails.exists():
        _portray(medium, results, lambda: beat(0, 1.0), watch)
    return MediumOutcome(row, dict(watch.seconds))


def _annotate(
    medium: Medium,
    results: Path,
    faces: Path,
    *,
    options: RunOptions,
    labels: Sequence[str],
    beat: Callable[[], None],
    watch: Stopwatch,
    alive: Callable[[], None] | None = None,
    draw: RenderTask | None = None,
) -> tuple[float, ...]:
    """The annotated copy of a medium, or the stretch of it that `draw` asks for; gives when faces may be left in it."""
    style = options.style()
    if draw is not None and options.engine == "dask":  # stretches of one film must be of one encoder, and machines differ
        style = dataclasses.replace(style, hardware=False)
    return annotate(
        medium,
        draw.path if draw else annotated_path(results, medium.output, medium.kind),
        faces,
        labels=labels,
        decoder=options.decoder,
        sample_fps=options.sample_fps,
        style=style,
        uncertain_below=options.uncertain_below,
        device=options.device,
        beat=beat,
        alive=alive or beat,
        watch=watch,
        segment=draw.segment if draw else None,
        index_offset=draw.index_offset if draw else 0,
    )


def run_segment_task(
    medium: Medium, step: SegmentTask, results: Path, *, options: RunOptions, labels: tuple[str, ...], beat: Callable[[int], None]
) -> SegmentTaskResult:
    """One step of a video that several workers share. Raises MediaError where the video is to blame."""
    watch = Stopwatch()
    if isinstance(step, SplitTask):
        with watch.stage("divide"):
            return SegmentTaskResult(None, {}, tuple(segments_of(medium, decoder=options.decoder)))
    if isinstance(step, AnalyseTask):
        with watch.stage("start"):
            models_of(options)
        with blaming(medium.path):
            part = _part(medium, step.segment, results, options, step.origin, lambda frames, _: beat(frames), watch)
        return SegmentTaskResult(part, dict(watch.seconds))
    if isinstance(step, ThumbnailTask):
        _portray(medium, results, lambda: beat(0), watch)
        return SegmentTaskResult(None, dict(watch.seconds))
    with blaming(medium.path):
        left_s = _annotate(medium, results, step.faces, options=options, labels=labels, beat=lambda: beat(0), watch=watch, draw=step)
    return SegmentTaskResult(None, dict(watch.seconds), left_s=left_s)


def _portray(
    medium: Medium,
    results: Path,
    beat: Callable[[], None],
    watch: Stopwatch,
    portraits: Sequence[NDArray[np.uint8]] | None = None,
) -> None:
    with watch.stage("thumbnails"):
        if portraits is None:
            write_thumbnails(medium, results, beat=beat)
        else:
            write_picture_thumbnails(medium, results, portraits, beat=beat)


def _part(
    medium: Medium, segment: Segment, results: Path, options: RunOptions, origin: dict[str, Any], beat: ReportProgress, watch: Stopwatch
) -> SegmentResult:
    """The readings of a segment: those that an earlier run has left, or new ones, which are kept for a later run."""
    path = segment_path(results, medium, segment)
    part = load_segment(path, segment, origin=origin)
    if part is not None:
        return _with_embeddings(part, medium, options, watch) if options.appearance else part
    part = _read_segment(medium, segment, models_of(options), options, beat, watch)
    save_segment(path, part, origin=origin)
    return part


def _read_medium(
    medium: Medium, results: Path, assembly: TableAssembler, *, models: Models, options: RunOptions, beat: ReportProgress, watch: Stopwatch
) -> None:
    with watch.stage("divide"):
        segments = segments_of(medium, decoder=options.decoder)
    if len(segments) == 1:
        source = open_source(medium, decoder=options.decoder)
        frames = source.frames(sample_fps=options.sample_fps)
        try:
            for reading in assembly.add(infer_frames(frames, models, ShotFinder(), watch, appearance=options.appearance)):
                length_s = source.found.length_s
                beat(1, min(1.0, reading.time_s / length_s) if length_s > 0 else 0.0)
        finally:
            assembly.tell(_with_start(source.found, medium, Segment()), source.decoder)
        return
    for segment in segments:
        assembly.add_part(_part(medium, segment, results, options, assembly.origin, _within(beat, segment.number, len(segments)), watch))


def _within(beat: ReportProgress, number: int, count: int) -> ReportProgress:
    """A beat of the `number`th of `count` segments, as one of the whole."""
    return lambda frames, share: beat(frames, (number + share) / count)


def _read_segment(
    medium: Medium, segment: Segment, models: Models, options: RunOptions, beat: ReportProgress, watch: Stopwatch
) -> SegmentResult:
    source = open_source(medium, decoder=options.decoder, segment=segment)
    shots = ShotFinder()
    readings = []
    frames = source.frames(sample_fps=options.sample_fps)
    for reading in infer_frames(frames, models, shots, watch, appearance=options.appearance, search_last=True):
        readings.append(reading)
        beat(1, min(1.0, len(readings) / max(1, segment.frames)))
    return SegmentResult(segment, tuple(readings), _with_start(source.found, medium, segment), source.decoder, shots.first, shots.last)


def _with_start(found: ReadReport, medium: Medium, segment: Segment) -> ReadReport:
    """What was found in the first segment of a video, with the time when a player shows its first frame."""
    if segment.start is not None or (segment.is_whole and not found.decoded):
        return found
    return dataclasses.replace(found, starts_s=read_output_clock(medium.path).starts_s)


def _with_embeddings(part: SegmentResult, medium: Medium, options: RunOptions, watch: Stopwatch) -> SegmentResult:
    """The part with embeddings of its faces: they are not stored, so they are computed again."""
    source = open_source(medium, decoder=options.decoder, segment=part.segment)
    sampler = ReidSampler()
    decoded = [reading for reading in part.readings if reading.index >= 0]
    known = {reading.index: reading.faces for reading in decoded if sampler.is_needed(reading.faces, reading.time_s) and len(reading.faces)}
    embeddings = {}
    for frame in watch.each("decode", source.frames(sample_fps=options.sample_fps)):
        faces = known.get(frame.index)
        if faces is not None and frame.is_decoded:
            with watch.stage("crop"):
                embeddings[frame.index] = embed_frame(frame, faces, align_faces(frame.grey, faces))
    readings = tuple(dataclasses.replace(reading, embeddings=embeddings.get(reading.index)) for reading in part.readings)
    return dataclasses.replace(part, readings=readings)
