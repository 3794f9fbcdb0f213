"""What a run has to do: jobs, handed out to whoever has time, and taken back."""

from __future__ import annotations

import dataclasses
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from batchemo.atomic import remove_temporaries_of
from batchemo.errors import MediaError
from batchemo.options import RunOptions
from batchemo.pipeline.resume import lacks_only_copy
from batchemo.pipeline.segments import SegmentTask, SegmentTaskResult, SplitTask
from batchemo.records import Medium, MediumOutcome, Segment, failed_row
from batchemo.results.catalog import MediumResults
from batchemo.results.paths import files_of, table_path
from batchemo.results.schema import rewrite_row
from batchemo.run.heartbeat import HeartbeatWriter, IsWanted, mark_cancelled
from batchemo.timing import Stopwatch

if TYPE_CHECKING:
    from batchemo.pipeline.segmented_video import SegmentedVideo


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """All of a medium, or one `step` of it; `deaths`: how many workers have died when it was, or may have been, in work.

    `others` are pictures that are analysed together with a picture.
    """

    medium: Medium
    step: SegmentTask | None = None
    deaths: int = 0
    others: tuple[Medium, ...] = ()

    @property
    def media(self) -> tuple[Medium, ...]:
        return self.medium, *self.others

    @property
    def part(self) -> str:
        """Which part of the medium it is about; empty for all of it."""
        return "" if self.step is None else f"{type(self.step).__name__.lower()} {self.step.segment.number}"

    @property
    def key(self) -> tuple[str, str]:
        return self.medium.output, self.part


Outcomes = tuple[MediumOutcome, ...]


class Task(Protocol):
    """Does jobs, in any process: whole media give an Outcome each, a step what comes of it. Raises MediaError where the medium is to
    blame, UnwantedError soon after a job is not `wanted` any more."""

    @property
    def pulses(self) -> Path: ...

    @property
    def run_id(self) -> str: ...

    def __call__(self, job: Job, *, wanted: IsWanted = ...) -> Outcomes | SegmentTaskResult: ...

    def tries(self, job: Job) -> int:
        """How often at most a job is handed out."""
        ...

    def film(self, medium: Medium, segments: Sequence[Segment], *, ahead: int) -> SegmentedVideo:
        """`medium` to be read in these parts."""
        ...

    def give_up(self, medium: Medium, error: MediaError) -> MediumOutcome:
        """What is left to do for a medium that cannot be analysed in any process."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Analysis:
    """The task of `batchemo run`; sent to the workers, which load the networks themselves."""

    results: Path
    options: RunOptions
    run_id: str
    pulses: Path
    labels: tuple[str, ...]
    weights_sha256: str

    def __call__(self, job: Job, *, wanted: IsWanted = lambda: True) -> Outcomes | SegmentTaskResult:
        pulse = HeartbeatWriter(self.pulses, job.medium.output, job.part, wanted=wanted)
        pulse.start()
        try:
            return self._do(job, pulse)
        finally:
            pulse.end()

    def tries(self, job: Job) -> int:
        """Twice in the same way, as whoever died beside it must not change its rows; then by PyAV what decord may have had."""
        from batchemo.media.open_source import may_use_decord  # noqa: PLC0415 (loads the decoders)

        return 3 if self.options.decoder == "auto" and job.step is None and may_use_decord(job.medium) else 2

    def film(self, medium: Medium, segments: Sequence[Segment], *, ahead: int) -> SegmentedVideo:
        from batchemo.pipeline.segmented_video import SegmentedVideo  # noqa: PLC0415

        return SegmentedVideo(
            medium,
            segments,
            self.results,
            options=self.options,
            labels=self.labels,
            weights_sha256=self.weights_sha256,
            run_id=self.run_id,
            ahead=ahead,
        )

    def give_up(self, medium: Medium, error: MediaError) -> MediumOutcome:
        """Its tables are written, empty, so that it is not tried again before it changes; those that are complete stay."""
        from batchemo.pipeline.assemble import TableAssembler  # noqa: PLC0415 (loads OpenCV)

        watch = Stopwatch()
        remove_temporaries_of(files_of(self.results, medium))  # of the worker that died
        entry = self._with_tables(medium)
        if entry is not None:
            row = failed_row(entry.row, error)
            rewrite_row(table_path(self.results, "frames", medium.output), row, style=None)
            return MediumOutcome(row, {})
        with TableAssembler(
            medium,
            self.results,
            options=self.options,
            labels=self.labels,
            weights_sha256=self.weights_sha256,
            run_id=self.run_id,
            watch=watch,
        ) as assembly:
            assembly.fail(error)
            row = assembly.finish()
        return MediumOutcome(row, dict(watch.seconds))

    def _with_tables(self, medium: Medium) -> MediumResults | None:
        return lacks_only_copy(medium, self.results, options=self.options, weights_sha256=self.weights_sha256)

    def _do(self, job: Job, pulse: HeartbeatWriter) -> Outcomes | SegmentTaskResult:
        from batchemo.pipeline import video  # noqa: PLC0415 (loads torch, which the parent of workers does not need)

        options = self.options
        if isinstance(job.step, SplitTask) and self._with_tables(job.medium) is not None:
            return SegmentTaskResult(None, {}, (Segment(),))  # its copy is drawn by one process
        if job.deaths > 1 and options.decoder == "auto":
            options = options.model_copy(update={"decoder": "pyav"})
        if job.step is None:
            analyst = video.Analyst(
                self.results, options, self.weights_sha256, self.run_id, lambda frames, share: pulse.beat(frames=frames, share=share)
            )
            return (analyst.film(job.medium),) if job.medium.kind == "video" else tuple(analyst.pictures(job.media))
        return video.run_segment_task(
            job.medium, job.step, self.results, options=options, labels=self.labels, beat=lambda frames: pulse.beat(frames=frames)
        )


_MOST_SHARED = 16
"""Media that are left when videos begin to be handed out in parts, at most. The process that hands them out assembles them, which takes
it 1/33 of what reading takes a worker (SCALING.md): more of them would wait for that longer than for workers that do them whole."""


_PICTURES_TOGETHER = 16
"""At most: what is read of 8 faces at once takes as long a face as of 64."""
_TURNS = 4
"""In how many turns at least the rest of the media is handed out, so that all workers end at about the same time."""


def group_jobs(media: Sequence[Medium]) -> Iterator[Job]:
    """Jobs for one process: the media in their order, pictures that follow each other together."""
    rest = deque(media)
    while rest:
        yield _first(rest, pictures=_PICTURES_TOGETHER)


def _first(rest: deque[Medium], *, pictures: int) -> Job:
    """Takes the first medium, and if it is a picture those that follow it, as many as `pictures` in all."""
    medium = rest.popleft()
    others: list[Medium] = []
    while medium.kind == "image" and rest and rest[0].kind == "image" and len(others) + 1 < pictures:
        others.append(rest.popleft())
    return Job(medium, others=tuple(others))


class JobQueue:
    """The jobs of a run. `workers` many may be in work at once; media are handed out whole while there are enough of them, the largest
    first and pictures several together, and in parts when there are fewer than workers. `workers` may change as they come and go.

    What goes wrong with pictures together is tried again with each alone.
    """

    def __init__(self, task: Task, media: Sequence[Medium], *, workers: int) -> None:
        self._task = task
        self.workers = workers
        self._waiting = deque(sorted(media, key=lambda medium: -size_of(medium.path)))
        self._films: dict[str, SegmentedVideo] = {}
        self._failed: dict[str, SegmentedVideo] = {}
        self._returned: deque[Job] = deque()
        self._running: dict[tuple[str, str], Job] = {}

    @property
    def unfinished(self) -> bool:
        return bool(self._waiting or self._films or self._returned or self._running)

    @property
    def running(self) -> tuple[Job, ...]:
        return tuple(self._running.values())

    def beat(self) -> None:
        """Says how much is behind us of each video that is read in parts."""
        for output, film in self._films.items():
            HeartbeatWriter(self._task.pulses, output, joint=True).start(film.share)

    def next_job(self) -> Job | None:
        """A job, which counts as running from now on; None where there is none at the moment."""
        job = self._find_job()
        if job is not None:
            self._running[job.key] = job
        return job

    def is_vain(self, job: Job) -> bool:
        """Whether its video has failed meanwhile, so that nobody asks what comes of it."""
        return not isinstance(job.step, SplitTask | None) and job.medium.output not in self._films

    def drop(self, job: Job) -> None:
        """Takes back a job that was in vain, whatever came of it."""
        self._running.pop(job.key, None)
        film = self._failed.get(job.medium.output)
        if film is not None:
            film.remove_parts()  # the job may have left one

    def take(self, job: Job, result: Outcomes | SegmentTaskResult | MediaError) -> Outcomes:
        """Takes back a job with what came of it; gives the outcomes of the media that this completes."""
        if self.is_vain(job):
            self.drop(job)
            return ()
        if isinstance(result, MediaError):
            return self.fail(job, result)
        del self._running[job.key]
        if not isinstance(result, SegmentTaskResult):
            return result
        if job.step is None:
            raise ValueError(f"{job!r} gave no outcome")
        if isinstance(job.step, SplitTask):
            self._begin(job.medium, result.segments)
            return ()
        film = self._films[job.medium.output]
        try:
            outcome = film.take(job.step, result)
        except MediaError as error:
            outcome = film.fail(error)
        return self._closed(film, outcome)

    def fail(self, job: Job, error: MediaError) -> Outcomes:
        """Takes back a job that cannot be done; its medium has failed."""
        if self.is_vain(job):
            self.drop(job)
            return ()
        if job.others:
            self._split(job)
            return ()
        self._running.pop(job.key, None)
        if isinstance(job.step, SplitTask | None):
            return (self._task.give_up(job.medium, error),)
        film = self._films[job.medium.output]
        return self._closed(film, film.fail(error))

    def died(self, job: Job, cause: MediaError | None = None) -> Outcomes:
        """Takes back a job that has ended its worker, or whose worker was ended for `cause`: it is handed out again, or its medium has
        failed."""
        if job.others:
            message = "a worker died; trying %s and the %d pictures with it again, each by itself"
            logging.getLogger("batchemo").warning(message, job.medium.name, len(job.others))
            self._split(job)
            return ()
        following = self.after_death(job)
        if following is not None:
            logging.getLogger("batchemo").warning("a worker died; trying %s again", job.medium.name)
            self.put_back([following])
            return ()
        error = cause or MediaError(
            "crashed", f"{job.medium.path} killed its worker at each try (a defect of a decoder, or no memory left)"
        )
        joint = ";" if cause is None else ", or"
        return self.fail(job, MediaError(error.kind, f"{error}{joint} leave it out with --exclude"))

    def after_death(self, job: Job) -> Job | None:
        """The job as it is tried after a worker has died; None where it has been tried often enough."""
        return dataclasses.replace(job, deaths=job.deaths + 1) if job.deaths + 1 < self._task.tries(job) else None

    def put_back(self, jobs: Sequence[Job]) -> None:
        """Jobs that were running and have not been done are handed out again."""
        for job in jobs:
            if self._running.pop(job.key, None) is not None:
                self._returned.append(job)

    def abandon(self) -> None:
        """Ends before the time: leaves nothing half-written."""
        for film in self._films.values():
            film.abandon()
        self._films = {}

    def _split(self, job: Job) -> None:
        """Takes back pictures that came to nothing together; each is handed out by itself, as if it had never been."""
        if self._running.pop(job.key, None) is not None:
            self._returned.extend(Job(medium) for medium in job.media)

    def _find_job(self) -> Job | None:
        while self._returned:
            job = self._returned.popleft()
            if not self.is_vain(job):
                return job
        for job in self._steps():
            return job
        if not self._waiting:
            return None
        job = _first(self._waiting, pictures=min(_PICTURES_TOGETHER, len(self._waiting) // (_TURNS * self.workers)))
        # Not here: a damaged file may end the process that looks into it, and the index of a film of ten hours takes 80 MB.
        shared = len(self._waiting) < min(self.workers, _MOST_SHARED) - 1 and job.medium.kind == "video"
        return dataclasses.replace(job, step=SplitTask()) if shared else job

    def _begin(self, medium: Medium, segments: Sequence[Segment]) -> None:
        if len(segments) > 1:
            self._films[medium.output] = self._task.film(medium, segments, ahead=2 * self.workers)
        else:
            self._returned.append(Job(medium))

    def _steps(self) -> Iterator[Job]:
        for film in self._films.values():
            step = film.next_step()
            if step is not None:
                yield Job(film.medium, step)

    def _closed(self, film: SegmentedVideo, outcome: MediumOutcome | None) -> Outcomes:
        if outcome is None:
            return ()
        del self._films[film.medium.output]
        if film.failed:
            self._failed[film.medium.output] = film
            mark_cancelled(self._task.pulses, film.medium.output)
        return (outcome,)


def size_of(path: Path) -> int:
    """In bytes; 0 of what is not there."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
