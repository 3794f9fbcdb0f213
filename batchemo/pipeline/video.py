"""Analyses videos: frame inference of a whole video or of its segments, in one process or as tasks of several workers."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchemo.errors import blaming
from batchemo.faces.align import align_faces
from batchemo.faces.reid import ReidSampler
from batchemo.media.decode import Decoder, open_source, split_into_segments
from batchemo.media.shots import ShotFinder
from batchemo.media.source import ReadReport
from batchemo.pipeline.assemble import TableAssembler
from batchemo.pipeline.context import RunContext
from batchemo.pipeline.inference import embed_frame, infer_frames, models_of
from batchemo.pipeline.medium import analyse_medium, annotate_medium, make_thumbnails
from batchemo.pipeline.segments import (
    AnalyseTask,
    FrameResults,
    SegmentResult,
    SegmentTask,
    SegmentTaskResult,
    SplitTask,
    ThumbnailTask,
    load_segment,
    save_segment,
    segment_path,
)
from batchemo.records import FrameResult, Medium, MediumOutcome, Segment
from batchemo.render.timestamps import read_output_clock
from batchemo.timing import Stopwatch


def analyse_video(medium: Medium, context: RunContext) -> MediumOutcome:
    """Analyses a video in this process, and writes its results."""
    watch = Stopwatch()
    with watch.stage("start"):
        models_of(context)
    segments = functools.partial(_analyse_segments, medium, context=context, watch=watch)
    return analyse_medium(medium, context, TableAssembler(medium, context, watch), segments, watch)


def run_segment_task(medium: Medium, task: SegmentTask, context: RunContext) -> SegmentTaskResult:
    """Runs one task of a segmented video. Raises MediaError where the video is to blame."""
    watch = Stopwatch()
    if isinstance(task, SplitTask):
        return SegmentTaskResult(None, {}, tuple(split_into_segments(medium, decoder=context.options.decoder)))
    if isinstance(task, ThumbnailTask):
        make_thumbnails(medium, context, watch)
        return SegmentTaskResult(None, dict(watch.seconds))
    with blaming(medium.path):
        if isinstance(task, AnalyseTask):
            with watch.stage("start"):
                models_of(context)
            return SegmentTaskResult(_analyse_segment(medium, task.segment, task.origin, context, watch), dict(watch.seconds))
        left_s = annotate_medium(medium, task.faces, context, watch, task=task)
    return SegmentTaskResult(None, dict(watch.seconds), left_s=left_s)


class SegmentInference:
    """Frame inference of a segment while it is decoded, one frame at a time in memory (see `FrameResults`)."""

    def __init__(self, medium: Medium, segment: Segment, context: RunContext, watch: Stopwatch) -> None:
        self._medium = medium
        self._segment = segment
        self._context = context
        self._watch = watch
        self._shots = ShotFinder()
        self._source = open_source(medium, decoder=context.options.decoder, segment=segment)
        self.processor = models_of(context).processor

    def __iter__(self) -> Iterator[FrameResult]:
        options, source, whole = self._context.options, self._source, self._segment.is_whole
        frames = source.frames(sample_fps=options.sample_fps)
        models, appearance = models_of(self._context), options.appearance
        results = infer_frames(frames, models, self._shots, self._watch, appearance=appearance, detect_last=not whole)
        for count, result in enumerate(results, start=1):
            yield result
            done, total = (result.time_s, source.report.length_s) if whole else (count, self._segment.frames)
            self._context.report_progress(1, min(1.0, done / total) if total > 0 else 0.0)

    @property
    def report(self) -> ReadReport:
        """The decoder's report; that of the first segment has `starts_s`, too."""
        found, segment = self._source.report, self._segment
        if segment.start is not None or (segment.is_whole and not found.decoded):
            return found
        return dataclasses.replace(found, starts_s=read_output_clock(self._medium.path).starts_s)

    @property
    def decoder(self) -> str:
        return self._source.decoder

    @property
    def first(self) -> NDArray[np.uint8] | None:
        return self._shots.first

    @property
    def last(self) -> NDArray[np.uint8] | None:
        return self._shots.last

    def read_all(self) -> SegmentResult:
        """All results of the segment, in memory."""
        results = tuple(self)
        return SegmentResult(self._segment, results, self.report, self.decoder, self.first, self.last, self.processor)


def _analyse_segments(medium: Medium, origin: dict[str, Any], context: RunContext, watch: Stopwatch) -> Iterator[FrameResults]:
    with watch.stage("divide"):
        segments = split_into_segments(medium, decoder=context.options.decoder)
    if len(segments) == 1:
        yield SegmentInference(medium, Segment(), context, watch)
        return
    for segment in segments:
        yield _analyse_segment(medium, segment, origin, context.in_segment(segment.number, len(segments)), watch)


def _analyse_segment(medium: Medium, segment: Segment, origin: dict[str, Any], context: RunContext, watch: Stopwatch) -> SegmentResult:
    """The results of a segment: those that an earlier run has saved, or new ones, which are saved for a later run."""
    path = segment_path(context.results, medium, segment)
    found = load_segment(path, segment, origin=origin)
    if found is None:
        found = SegmentInference(medium, segment, context, watch).read_all()
        save_segment(path, found, origin=origin)
    elif context.options.appearance:
        decoder, sample_fps = context.options.decoder, context.options.sample_fps
        return _with_embeddings(found, medium, watch, decoder=decoder, sample_fps=sample_fps)
    return found


def _with_embeddings(
    result: SegmentResult, medium: Medium, watch: Stopwatch, *, decoder: Decoder, sample_fps: float | None
) -> SegmentResult:
    """The result with the embeddings of its faces: they are never stored, so they are computed again."""
    source = open_source(medium, decoder=decoder, segment=result.segment)
    sampler = ReidSampler()
    decoded = [each for each in result if each.index >= 0]
    known = {each.index: each.faces for each in decoded if sampler.is_needed(each.faces, each.time_s) and len(each.faces)}
    embeddings = {}
    for frame in watch.each("decode", source.frames(sample_fps=sample_fps)):
        faces = known.get(frame.index)
        if faces is not None and frame.is_decoded:
            with watch.stage("crop"):
                embeddings[frame.index] = embed_frame(frame, faces, align_faces(frame.grey, faces))
    frames = tuple(dataclasses.replace(each, embeddings=embeddings.get(each.index)) for each in result)
    return dataclasses.replace(result, frames=frames)
