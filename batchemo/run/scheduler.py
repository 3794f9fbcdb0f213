"""The queue of a run's jobs: chooses the next one, and retries or fails those whose worker dies."""

from __future__ import annotations

import dataclasses
import enum
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from batchemo.errors import MediaError
from batchemo.pipeline.segments import SegmentTaskResult, SplitTask
from batchemo.records import Medium, MediumOutcome, Segment
from batchemo.run.heartbeat import HeartbeatWriter, mark_cancelled
from batchemo.run.tasks import Job, Outcomes, Task

if TYPE_CHECKING:
    from batchemo.pipeline.segmented_video import SegmentedVideo

_LOG = logging.getLogger("batchemo")

_MOST_SEGMENTED = 16
"""Videos are segmented once no more media than this are left. One process assembles them, at 1/28 of the cost of inference (SCALING.md):
with more at once, workers would wait for it."""

_PICTURES_TOGETHER = 16
"""Most pictures in a job; a batch of 8 faces is classified as fast per face as one of 64."""
_TURNS = 4
"""Pictures are grouped so that each worker gets at least this many jobs, and all end at about the same time."""


class JobState(enum.Enum):
    """The life of a job::

    WAITING -> RUNNING -> DONE | FAILED | CANCELLED
       ^          |
       |          +-> RETRY -> RUNNING     its worker died; it counts one more death
       +----------+                        its worker died, or it failed together with other pictures: it is not to blame
    """

    WAITING = "waiting"
    RUNNING = "running"
    RETRY = "retry"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


def group_jobs(media: Sequence[Medium]) -> Iterator[Job]:
    """Jobs for one process: the media in their order, pictures that follow each other together."""
    rest = deque(media)
    while rest:
        yield _first_job(rest, pictures=_PICTURES_TOGETHER)


def _first_job(rest: deque[Medium], *, pictures: int) -> Job:
    """Takes the first medium, and if it is a picture those that follow it, as many as `pictures` in all."""
    medium = rest.popleft()
    others: list[Medium] = []
    while medium.kind == "image" and rest and rest[0].kind == "image" and len(others) + 1 < pictures:
        others.append(rest.popleft())
    return Job(medium, others=tuple(others))


class JobQueue:
    """The jobs of a run, of which `workers` may run at once; that number may change.

    - While there are more media than workers, media are handed out whole: the largest first, several pictures together.
    - Then videos are split into segments, which several workers analyse.
    - Pictures that fail together are tried again, each by itself.
    """

    def __init__(self, task: Task, media: Sequence[Medium], *, workers: int) -> None:
        self._task = task
        self.workers = workers
        self._media = deque(sorted(media, key=lambda medium: -medium.size_bytes()))
        self._videos: dict[str, SegmentedVideo] = {}
        self._failed_videos: dict[str, SegmentedVideo] = {}
        self._queues: dict[JobState, deque[Job]] = {JobState.WAITING: deque(), JobState.RETRY: deque()}
        self._running: dict[tuple[str, str], Job] = {}

    @property
    def unfinished(self) -> bool:
        return bool(self._media or self._videos or any(self._queues.values()) or self._running)

    @property
    def running(self) -> tuple[Job, ...]:
        return tuple(self._running.values())

    def next_job(self) -> Job | None:
        """Hands out a job, which is RUNNING from now on; None if no job can run now."""
        return self.next_retry() or self._started(self._next_queued(JobState.WAITING) or self._next_step() or self._next_medium())

    def next_retry(self) -> Job | None:
        """Hands out a job whose worker died, which is RUNNING from now on; None if there is none."""
        return self._started(self._next_queued(JobState.RETRY))

    def complete(self, job: Job, result: Outcomes | SegmentTaskResult) -> Outcomes:
        """Takes back a job with its result; gives the outcomes of the media that are complete now."""
        if self.is_cancelled(job):
            return self.discard(job)
        self._move(job, JobState.DONE)
        if not isinstance(result, SegmentTaskResult):
            return result
        if job.step is None:
            raise ValueError(f"{job!r} gave no outcome")
        if isinstance(job.step, SplitTask):
            self._begin(job.medium, result.segments)
            return ()
        video = self._videos[job.medium.output]
        try:
            outcome = video.take(job.step, result)
        except MediaError as error:
            outcome = video.fail(error)
        return self._closed(video, outcome)

    def fail(self, job: Job, error: MediaError) -> Outcomes:
        """Takes back a job that cannot be done: its medium has failed, unless it ran together with others."""
        if self.is_cancelled(job):
            return self.discard(job)
        if job.others:
            return self.requeue(job, *map(Job, job.media))
        self._move(job, JobState.FAILED)
        if isinstance(job.step, SplitTask | None):
            return (self._task.write_failure(job.medium, error),)
        video = self._videos[job.medium.output]
        return self._closed(video, video.fail(error))

    def on_worker_death(self, job: Job, cause: MediaError | None = None) -> Outcomes:
        """Takes back a job that has ended its worker, or whose worker was ended for `cause`: it is tried again, or its medium fails."""
        if self.is_cancelled(job):
            return self.discard(job)
        if job.others:
            _LOG.warning("a worker died; trying %s and the %d pictures with it again, each by itself", job.medium.name, len(job.others))
            return self.requeue(job, *map(Job, job.media))
        if job.deaths + 1 < self._task.max_attempts(job):
            _LOG.warning("a worker died; trying %s again", job.medium.name)
            return self._move(job, JobState.RETRY, dataclasses.replace(job, deaths=job.deaths + 1))
        error = cause or MediaError(
            "crashed", f"{job.medium.path} killed its worker at each try (a defect of a decoder, or no memory left)"
        )
        joint = ";" if cause is None else ", or"
        return self.fail(job, MediaError(error.kind, f"{error}{joint} leave it out with --exclude"))

    def requeue(self, job: Job, *instead: Job) -> Outcomes:
        """Takes back a job that is not to blame for what happened: it waits again, or others `instead` of it do."""
        return self._move(job, JobState.WAITING, *(instead or (job,)))

    def is_cancelled(self, job: Job) -> bool:
        """Whether its video has failed meanwhile, so that its result is not needed."""
        return not isinstance(job.step, SplitTask | None) and job.medium.output not in self._videos

    def discard(self, job: Job) -> Outcomes:
        """Takes back a job that is cancelled, whatever its result."""
        video = self._failed_videos.get(job.medium.output)
        if video is not None:
            video.remove_segments()  # the job may have saved one
        return self._move(job, JobState.CANCELLED)

    def report_progress(self) -> None:
        """Writes a heartbeat for each segmented video, with the share of it that is done."""
        for output, video in self._videos.items():
            HeartbeatWriter(self._task.heartbeats, output, joint=True).start(video.share)

    def abandon(self) -> None:
        """Ends the run early: nothing half-written is left."""
        for video in self._videos.values():
            video.abandon()
        self._videos = {}

    def _started(self, job: Job | None) -> Job | None:
        """The one way into RUNNING."""
        if job is not None:
            self._running[job.key] = job
            _LOG.debug("%s %s: %s", *job.key, JobState.RUNNING.value)
        return job

    def _move(self, job: Job, state: JobState, *queued: Job) -> Outcomes:
        """The one way out of RUNNING, into `state`; where that is a queue, `queued` jobs are added to it. Gives no outcomes."""
        _LOG.debug("%s %s: %s", *job.key, state.value)
        if self._running.pop(job.key, None) is not None and queued:
            self._queues[state].extend(queued)
        return ()

    def _next_queued(self, state: JobState) -> Job | None:
        queue = self._queues[state]
        while queue:
            job = queue.popleft()
            if not self.is_cancelled(job):
                return job
        return None

    def _next_step(self) -> Job | None:
        for video in self._videos.values():
            step = video.next_task()
            if step is not None:
                return Job(video.medium, step)
        return None

    def _next_medium(self) -> Job | None:
        if not self._media:
            return None
        job = _first_job(self._media, pictures=min(_PICTURES_TOGETHER, len(self._media) // (_TURNS * self.workers)))
        # A worker finds the segments: a damaged file may crash the process that opens it, and the packet index of ten hours takes 80 MB.
        segmented = len(self._media) < min(self.workers, _MOST_SEGMENTED) - 1 and job.medium.kind == "video"
        return dataclasses.replace(job, step=SplitTask()) if segmented else job

    def _begin(self, medium: Medium, segments: Sequence[Segment]) -> None:
        if len(segments) > 1:
            self._videos[medium.output] = self._task.segmented_video(medium, segments, ahead=2 * self.workers)
        else:
            self._queues[JobState.WAITING].append(Job(medium))

    def _closed(self, video: SegmentedVideo, outcome: MediumOutcome | None) -> Outcomes:
        if outcome is None:
            return ()
        del self._videos[video.medium.output]
        if video.failed:
            self._failed_videos[video.medium.output] = video
            mark_cancelled(self._task.heartbeats, video.medium.output)
        return (outcome,)
