"""A long video whose segments several workers read at once; its tables are assembled here, in order."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from batchemo.errors import MediaError
from batchemo.options import RunOptions
from batchemo.pipeline.assemble import TableAssembler
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
from batchemo.results.schema import annotated_path
from batchemo.timing import Stopwatch


class SegmentedVideo:
    """Hands out the steps of `medium` and takes back what comes of them, in any order; at most `ahead` parts wait in memory.

    Everything is written to hidden names until the last step is back.
    """

    def __init__(
        self,
        medium: Medium,
        segments: Sequence[Segment],
        results: Path,
        *,
        options: RunOptions,
        labels: tuple[str, ...],
        weights_sha256: str,
        run_id: str,
        ahead: int,
    ) -> None:
        self.medium = medium
        self._segments = tuple(segments)
        self._results = results
        self._annotates, self._portrays = options.annotate, options.portrays
        self._ahead = ahead
        self._stack = contextlib.ExitStack()
        self._watch = Stopwatch()
        self._seconds: Counter[str] = Counter()
        self._assembly = self._stack.enter_context(
            TableAssembler(medium, results, options=options, labels=labels, weights_sha256=weights_sha256, run_id=run_id, watch=self._watch)
        )
        self._outcome: MediumOutcome | None = None
        self._handed_out = 0
        self._waiting: dict[int, SegmentResult] = {}
        self._offsets: list[int] = [0]  # of the parts that have been assembled, and the end of the last one
        self._drawings: list[RenderTask] = []
        self._drawn: set[int] = set()

    @property
    def share(self) -> float:
        """How much of it is behind us, 0 to 1."""
        return (len(self._offsets) - 1) / len(self._segments)

    @property
    def failed(self) -> bool:
        return self._assembly.failed

    def next_step(self) -> SegmentTask | None:
        """What can be done now; None where that depends on steps that are not back yet."""
        if self._outcome is not None:
            portrays, self._portrays = self._portrays, False
            return ThumbnailTask(Segment()) if portrays else None
        if self._drawings:
            return self._drawings.pop(0)
        assembled = len(self._offsets) - 1
        if self._handed_out < min(len(self._segments), assembled + self._ahead):
            self._handed_out += 1
            return AnalyseTask(self._segments[self._handed_out - 1], self._assembly.origin)
        return None

    def take(self, step: SegmentTask, done: SegmentTaskResult) -> MediumOutcome | None:
        """Takes back a step; the last one gives the outcome."""
        self._seconds.update(done.seconds)
        if isinstance(step, ThumbnailTask):
            return self._outcome
        if isinstance(step, RenderTask):
            self._drawn.add(step.segment.number)
            self._assembly.tell_left(done.left_s)
            return self._finish() if len(self._drawn) == len(self._segments) else None
        if done.part is None:
            raise ValueError(f"{step!r} gave nothing")
        self._waiting[step.segment.number] = done.part
        while (part := self._waiting.pop(len(self._offsets) - 1, None)) is not None:
            self._assembly.add_part(part)
            self._offsets.append(self._offsets[-1] + part.found.decoded)
        if len(self._offsets) <= len(self._segments):
            return None
        if not self._annotates or self._offsets[-1] == 0:
            return self._finish()
        faces = self._assembly.faces_path()
        self._drawings = [
            RenderTask(segment, self._video_path(segment), faces, offset)
            for segment, offset in zip(self._segments, self._offsets, strict=False)
        ]
        return None

    def fail(self, error: MediaError) -> MediumOutcome:
        """The medium has failed; its tables keep the parts that were assembled. Thumbnails alone are no failure."""
        if self._outcome is not None:
            return self._outcome
        self._assembly.fail(error)
        self._waiting.clear()
        return self._close()

    def remove_parts(self) -> None:
        """Removes what its steps have left for a later run."""
        remove_segments(self._results, self.medium)

    def abandon(self) -> None:
        """Leaves nothing behind but the parts, for a later run."""
        with contextlib.suppress(_AbandonedError):
            self._stack.__exit__(_AbandonedError, _AbandonedError(), None)

    def _finish(self) -> MediumOutcome | None:
        """None where there are thumbnails to be cut before its time is up."""
        outcome = self._close()
        if not self._portrays or not outcome.row.n_faces:
            return outcome
        self._outcome = outcome
        return None

    def _close(self) -> MediumOutcome:
        try:
            if self._drawn and not self._assembly.failed:
                videos = [path for segment in self._segments if (path := self._video_path(segment)).exists()]
                with self._watch.stage("encode"):
                    join_videos(videos, annotated_path(self._results, self.medium), source=self.medium.path)
        except MediaError as error:
            self._assembly.fail(error)
        row = self._assembly.finish()
        self._stack.close()
        self.remove_parts()
        self._seconds.update(self._watch.seconds)
        return MediumOutcome(row, dict(self._seconds))

    def _video_path(self, segment: Segment) -> Path:
        return segment_path(self._results, self.medium, segment).with_suffix(RENDERED_SUFFIX)


class _AbandonedError(Exception):
    """Makes contexts discard what they have written."""
