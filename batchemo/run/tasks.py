"""Jobs, which a run hands out to its workers, and the task that runs a job in any process."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from batchemo.errors import MediaError
from batchemo.pipeline.context import RunContext
from batchemo.pipeline.resume import lacks_only_copy
from batchemo.pipeline.segments import SegmentTask, SegmentTaskResult, SplitTask
from batchemo.records import Medium, MediumOutcome, Segment
from batchemo.run.heartbeat import HeartbeatWriter, IsWanted

if TYPE_CHECKING:
    from batchemo.pipeline.segmented_video import SegmentedVideo

Outcomes = tuple[MediumOutcome, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """A whole medium, or one `step` of a segmented video.

    `others` are pictures that are analysed together with a picture. `deaths` counts the workers that died while the job
    was running, or may have been.
    """

    medium: Medium
    step: SegmentTask | None = None
    deaths: int = 0
    others: tuple[Medium, ...] = ()

    @property
    def media(self) -> tuple[Medium, ...]:
        return self.medium, *self.others

    @property
    def step_name(self) -> str:
        """The step and its segment, as heartbeats name them; empty for a whole medium."""
        return "" if self.step is None else f"{type(self.step).__name__.lower()} {self.step.segment.number}"

    @property
    def key(self) -> tuple[str, str]:
        """Identifies the job within its run, also in heartbeats."""
        return self.medium.output, self.step_name


class Task(Protocol):
    """Runs jobs in any process. A whole medium gives an outcome, a step its result. Raises MediaError where the medium is to blame,
    CancelledError soon after a job is not `wanted` any more."""

    @property
    def heartbeats(self) -> Path: ...

    def __call__(self, job: Job, *, wanted: IsWanted = ...) -> Outcomes | SegmentTaskResult: ...

    def max_attempts(self, job: Job) -> int:
        """How often a job is handed out at most."""
        ...

    def segmented_video(self, medium: Medium, segments: Sequence[Segment], *, ahead: int) -> SegmentedVideo:
        """`medium`, to be analysed in these segments."""
        ...

    def write_failure(self, medium: Medium, error: MediaError) -> MediumOutcome:
        """Writes the results of a medium that no process can analyse."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class AnalysisTask:
    """The task of `batchemo run`. It is sent to the workers, which load the networks themselves."""

    context: RunContext
    heartbeats: Path

    def __call__(self, job: Job, *, wanted: IsWanted = lambda: True) -> Outcomes | SegmentTaskResult:
        heartbeat = HeartbeatWriter(self.heartbeats, job.medium.output, job.step_name, wanted=wanted)
        heartbeat.start()
        try:
            return _run(job, self._context_for(job, heartbeat))
        finally:
            heartbeat.end()

    def max_attempts(self, job: Job) -> int:
        """Twice in the same way, as a worker may have died of another job; then by PyAV what decord may have crashed on."""
        from batchemo.media.decode import may_use_decord  # noqa: PLC0415 (loads the decoders)

        return 3 if self.context.options.decoder == "auto" and job.step is None and may_use_decord(job.medium) else 2

    def segmented_video(self, medium: Medium, segments: Sequence[Segment], *, ahead: int) -> SegmentedVideo:
        from batchemo.pipeline.segmented_video import SegmentedVideo  # noqa: PLC0415 (loads OpenCV)

        return SegmentedVideo(medium, segments, self.context, ahead=ahead)

    def write_failure(self, medium: Medium, error: MediaError) -> MediumOutcome:
        from batchemo.pipeline.assemble import write_failure  # noqa: PLC0415 (loads OpenCV)

        return write_failure(medium, error, self.context)

    def _context_for(self, job: Job, heartbeat: HeartbeatWriter) -> RunContext:
        options = self.context.options
        if job.deaths > 1 and options.decoder == "auto":
            options = options.model_copy(update={"decoder": "pyav"})

        def report_progress(frames: int, share: float) -> None:
            # The share of a segmented video is reported by the process that assembles it.
            heartbeat.beat(frames=frames, share=share if job.step is None else 0.0)

        return dataclasses.replace(self.context, options=options, report_progress=report_progress)


def _run(job: Job, context: RunContext) -> Outcomes | SegmentTaskResult:
    # These load torch, which the parent of workers does not need.
    from batchemo.pipeline.medium import redraw_medium  # noqa: PLC0415
    from batchemo.pipeline.pictures import analyse_pictures  # noqa: PLC0415
    from batchemo.pipeline.video import analyse_video, run_segment_task  # noqa: PLC0415

    if isinstance(job.step, SplitTask) and lacks_only_copy(job.medium, context):
        return SegmentTaskResult(None, {}, (Segment(),))  # one process draws its copy
    if job.step is not None:
        return run_segment_task(job.medium, job.step, context)
    kept = {medium: entry for medium in job.media if (entry := lacks_only_copy(medium, context))}
    redrawn = [redraw_medium(medium, entry, context) for medium, entry in kept.items()]
    fresh = [medium for medium in job.media if medium not in kept]
    analysed = map(analyse_video, fresh, [context]) if job.medium.kind == "video" else analyse_pictures(fresh, context)
    return (*redrawn, *analysed)
