"""A video whose segments several workers analyse at once, while the process that hands them out assembles the tables."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from batchemo.errors import MediaError
from batchemo.pipeline.assemble import TableAssembler
from batchemo.pipeline.context import RunContext
from batchemo.pipeline.segments import (
    RENDERED_SUFFIX,
    AnalyseTask,
    RenderTask,
    SegmentResult,
    SegmentTask,
    SegmentTaskResult,
    ThumbnailTask,
    remove_segments,
    segment_path,
)
from batchemo.records import Medium, MediumOutcome, Segment
from batchemo.render.video_writer import join_videos
from batchemo.results.paths import annotated_path
from batchemo.timing import Stopwatch


class SegmentedVideo:
    """Runs the stages of `analyse_medium` as tasks: analyse each segment, then render each segment, then crop the thumbnails.

    Tasks come back in any order; at most `ahead` segments wait in memory. Files have hidden names until the last task is back.
    """

    def __init__(self, medium: Medium, segments: Sequence[Segment], context: RunContext, *, ahead: int) -> None:
        self.medium = medium
        self._segments = tuple(segments)
        self._results = context.results
        self._annotates, self._portrays = context.options.annotate, context.options.portrays
        self._ahead = ahead
        self._stack = contextlib.ExitStack()
        self._watch = Stopwatch()
        self._seconds: Counter[str] = Counter()
        self._tables = self._stack.enter_context(TableAssembler(medium, context, self._watch))
        self._outcome: MediumOutcome | None = None
        self._handed_out = 0
        self._waiting: dict[int, SegmentResult] = {}
        self._offsets: list[int] = [0]  # index of the first frame of each assembled segment, and of the one that follows them
        self._render_tasks: list[RenderTask] = []
        self._rendered: set[int] = set()

    @property
    def share(self) -> float:
        """The share of its segments that are assembled, 0 to 1."""
        return (len(self._offsets) - 1) / len(self._segments)

    @property
    def failed(self) -> bool:
        return self._tables.failed

    def next_task(self) -> SegmentTask | None:
        """A task that can run now; None while everything left needs the results of running tasks."""
        if self._outcome is not None:
            portrays, self._portrays = self._portrays, False
            return ThumbnailTask() if portrays else None
        if self._render_tasks:
            return self._render_tasks.pop(0)
        assembled = len(self._offsets) - 1
        if self._handed_out < min(len(self._segments), assembled + self._ahead):
            self._handed_out += 1
            return AnalyseTask(self._segments[self._handed_out - 1], self._tables.origin)
        return None

    def take(self, task: SegmentTask, result: SegmentTaskResult) -> MediumOutcome | None:
        """Takes the result of a task. Returns the outcome of the medium after the last task, otherwise None."""
        self._seconds.update(result.seconds)
        if isinstance(task, ThumbnailTask):
            return self._outcome
        if isinstance(task, RenderTask):
            self._rendered.add(task.segment.number)
            self._tables.add_faces_left(result.left_s)
            return self._finish() if len(self._rendered) == len(self._segments) else None
        if result.result is None:
            raise ValueError(f"{task!r} gave nothing")
        self._waiting[task.segment.number] = result.result
        while (segment := self._waiting.pop(len(self._offsets) - 1, None)) is not None:
            self._tables.add(segment)
            self._offsets.append(self._offsets[-1] + segment.report.decoded)
        if len(self._offsets) <= len(self._segments):
            return None
        if not self._annotates or self._offsets[-1] == 0:
            return self._finish()
        faces = self._tables.faces_path()
        self._render_tasks = [
            RenderTask(segment, self._rendered_path(segment), faces, offset)
            for segment, offset in zip(self._segments, self._offsets, strict=False)
        ]
        return None

    def fail(self, error: MediaError) -> MediumOutcome:
        """The medium has failed; its tables keep the segments that were assembled. Missing thumbnails alone are no failure."""
        if self._outcome is not None:
            return self._outcome
        self._tables.fail(error)
        self._waiting.clear()
        return self._close()

    def remove_segments(self) -> None:
        """Removes the segment results that tasks have saved."""
        remove_segments(self._results, self.medium)

    def abandon(self) -> None:
        """Discards the tables; saved segments stay for a later run."""
        with contextlib.suppress(_AbandonedError):
            self._stack.__exit__(_AbandonedError, _AbandonedError(), None)

    def _finish(self) -> MediumOutcome | None:
        """The outcome of the medium; None if its thumbnails must be cropped first."""
        outcome = self._close()
        if not self._portrays or not outcome.row.n_faces:
            return outcome
        self._outcome = outcome
        return None

    def _close(self) -> MediumOutcome:
        try:
            if self._rendered and not self._tables.failed:
                videos = [path for segment in self._segments if (path := self._rendered_path(segment)).exists()]
                with self._watch.stage("encode"):
                    join_videos(videos, annotated_path(self._results, self.medium.output, self.medium.kind), source=self.medium.path)
        except MediaError as error:
            self._tables.fail(error)
        row = self._tables.finish()
        self._stack.close()
        self.remove_segments()
        self._seconds.update(self._watch.seconds)
        return MediumOutcome(row, dict(self._seconds), self._tables.processors)

    def _rendered_path(self, segment: Segment) -> Path:
        return segment_path(self._results, self.medium, segment).with_suffix(RENDERED_SUFFIX)


class _AbandonedError(Exception):
    """Makes contexts discard what they have written."""
