"""Many media: in this process, or spread over worker processes that a broken medium may take down with it."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import Protocol

import psutil

from batchemo.errors import MediaError
from batchemo.pipeline.segments import SegmentTaskResult
from batchemo.records import Medium, MediumOutcome
from batchemo.run.heartbeat import HOST, Heartbeat, read_heartbeats
from batchemo.run.scheduler import Job, JobQueue, Outcomes, Task, group_jobs, size_of

_LOOK_SECONDS = 0.5
_MEGABYTE = 2**20
_SEGMENT_BYTES = 250_000
"""Least size of a segment of a video, 20 seconds at 100 kilobits: what the file says itself is not asked for here, as it may be damaged."""


class Engine(Protocol):
    """Runs a task on media and yields what becomes of each as it is done, in any order.

    What all of them share is in `JobQueue` (which job is next, what becomes of one whose worker has died), `Watchdog` (which ones hang),
    for other machines, `remote.Call`.
    """

    def run(self, task: Task, media: Sequence[Medium]) -> Iterator[MediumOutcome]: ...


class InProcessEngine:
    """One job after the other, here: what debuggers want, and best for little work."""

    def run(self, task: Task, media: Sequence[Medium]) -> Iterator[MediumOutcome]:
        for job in group_jobs(media):
            with _one_thread():
                outcomes = task(job)
            if not isinstance(outcomes, SegmentTaskResult):
                yield from outcomes


class ProcessEngine:
    """`count` processes with one thread each, by joblib's loky; long videos are shared among them where there are few media.

    When a worker dies, or is ended because it has made no progress for `timeout_s` seconds or uses more than `max_memory_mb`, the jobs that
    were in work are tried again, each alone; the medium of one that ends its worker at each try has failed, and the run goes on.
    """

    def __init__(self, count: int, *, device: str = "auto", timeout_s: float, max_memory_mb: int | None) -> None:
        self._count = count
        self._device = device
        self._timeout_s = timeout_s
        self._max_memory_mb = max_memory_mb

    def run(self, task: Task, media: Sequence[Medium]) -> Iterator[MediumOutcome]:
        board = JobQueue(task, media, workers=self._count)
        try:
            while board.unfinished:
                yield from self._until_crash(task, board, board.next_job, self._count)
                if not board.running:
                    continue
                in_work = {(beat.output, beat.part) for beat in read_heartbeats(task.pulses)}
                suspects = [job for job in board.running if job.key in in_work] or list(board.running[:1])
                board.put_back([job for job in board.running if job not in suspects])
                for job in suspects:
                    if board.is_vain(job):
                        board.drop(job)
                    elif job.others:
                        yield from board.died(job)
                    else:
                        yield from self._alone(task, board, job)
        finally:
            board.abandon()

    def _alone(self, task: Task, board: JobQueue, job: Job) -> Iterator[MediumOutcome]:
        following = board.after_death(job)
        cause = None
        while following is not None:
            logging.getLogger("batchemo").warning("a worker died; trying %s again, alone", job.medium.name)
            job = following
            cause = yield from self._until_crash(task, board, functools.partial(next, iter([job]), None), 1)
            if job.key not in {each.key for each in board.running}:
                return
            following = board.after_death(job)
        yield from board.died(job, cause)

    def _until_crash(
        self, task: Task, board: JobQueue, next_job: Callable[[], Job | None], count: int
    ) -> Generator[MediumOutcome, None, MediaError | None]:
        """Yields outcomes until there is nothing left to do, or a worker has died; gives the reason where it was ended."""
        from joblib.externals.loky import ProcessPoolExecutor  # noqa: PLC0415
        from joblib.externals.loky.process_executor import BrokenProcessPool  # noqa: PLC0415

        _clear(task.pulses)
        guard = Watchdog(task.pulses, board, timeout_s=self._timeout_s, max_memory_mb=self._max_memory_mb)
        start = (os.getpid(), self._device)
        executor = ProcessPoolExecutor(max_workers=count, initializer=_become_worker, initargs=start, env=_WORKER_ENVIRONMENT)
        futures: dict[Future[Outcomes | SegmentTaskResult], Job] = {}
        finished = False
        try:
            while True:
                # One more each than they work on, so that nobody waits for this process.
                while len(futures) < 2 * count and (job := next_job()) is not None:
                    futures[executor.submit(task, job)] = job
                if not futures:
                    finished = True
                    return None
                for future in wait(futures, timeout=_LOOK_SECONDS, return_when=FIRST_COMPLETED).done:
                    job = futures.pop(future)
                    try:
                        outcomes = board.take(job, future.result())
                    except BrokenProcessPool:
                        return guard.reason
                    except MediaError as error:
                        outcomes = board.fail(job, error)
                    except OSError:  # of a video that has failed, the files that its steps need have gone
                        if not board.is_vain(job):
                            raise
                        board.drop(job)
                        outcomes = ()
                    yield from outcomes
                board.beat()
                guard.look()
        finally:
            executor.shutdown(wait=True, kill_workers=not finished)


def _end(beat: Heartbeat) -> None:
    if beat.host == HOST:
        with contextlib.suppress(psutil.Error):
            psutil.Process(beat.pid).kill()


class Watchdog:
    """Ends workers that hang or take too much memory, by `end`; `reason` says of the last one why, as the error of its medium."""

    def __init__(
        self, pulses: Path, board: JobQueue, *, timeout_s: float, max_memory_mb: int | None, end: Callable[[Heartbeat], None] = _end
    ) -> None:
        self._pulses = pulses
        self._board = board
        self._timeout_s = timeout_s
        self._max_memory_mb = max_memory_mb
        self._end = end
        self._seen: dict[tuple[str, int], tuple[Heartbeat, float]] = {}
        self.reason: MediaError | None = None

    def look(self) -> None:
        paths = {job.key: job.medium.path for job in self._board.running}
        now = time.monotonic()
        for beat in read_heartbeats(self._pulses):
            process = beat.host, beat.pid
            before = self._seen.get(process)
            if before is None or before[0] != beat:
                self._seen[process] = beat, now
            path = paths.get((beat.output, beat.part))
            if path is None:
                continue
            reason = self._reason(beat, path, idle_s=now - self._seen[process][1])
            if reason is not None:
                self.reason = reason
                self._end(beat)

    def _reason(self, beat: Heartbeat, path: Path, *, idle_s: float) -> MediaError | None:
        if idle_s > self._timeout_s:
            return MediaError("timeout", f"{path}: no progress within {self._timeout_s:g} s, at each try; allow more with --timeout-s")
        if self._max_memory_mb is None or beat.host != HOST:
            return None
        try:
            used_mb = psutil.Process(beat.pid).memory_info().rss // _MEGABYTE
        except psutil.Error:
            return None
        if used_mb <= self._max_memory_mb:
            return None
        return MediaError(
            "memory", f"{path}: takes more than {self._max_memory_mb} MB of memory, at each try; allow more with --max-memory-mb"
        )


def choose_engine(workers: int | None, media: Sequence[Medium], *, device: str, timeout_s: float, max_memory_mb: int | None) -> Engine:
    """Worker processes, or this one where one worker is asked for or needed."""
    # In this process only where that is asked for: a decoder that crashes takes its process along, also with the last medium of a run.
    if workers == 1:
        return InProcessEngine()
    count = count_workers(workers, media, device=device)
    return ProcessEngine(count, device=device, timeout_s=timeout_s, max_memory_mb=max_memory_mb)


def count_workers(workers: int | None, media: Sequence[Medium], *, device: str) -> int:
    """As many as asked for, otherwise one a core, or one a GPU; no more than there may be media and segments of videos to keep busy."""
    count = workers or _count_gpus(device) or usable_cores()
    if len(media) < count:
        count = min(count, sum(1 + (medium.kind == "video") * size_of(medium.path) // _SEGMENT_BYTES for medium in media))
    return count


def _count_gpus(device: str) -> int:
    """Those that `device` may mean: all for `cuda` and `auto`, one for `cuda:N`."""
    if device == "cpu" or (device == "auto" and not _may_have_gpus()):
        return 0
    from batchemo.devices import count_gpus  # noqa: PLC0415 (loads torch)

    return min(1, count_gpus()) if device.startswith("cuda:") else count_gpus()


_DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/dxg"), Path("/dev/kfd"))
"""Of NVIDIA's GPUs, the same below Windows, and AMD's: without one there is no need to load torch, which takes seconds, to ask it."""


def _may_have_gpus() -> bool:
    return sys.platform != "linux" or any(path.exists() for path in _DRIVERS)


@functools.cache
def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_WORKER_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def _become_worker(parent: int, device: str) -> None:
    # Ctrl-C reaches the whole group of processes; the parent decides what becomes of its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    set_up_worker(device)


def set_up_worker(device: str) -> None:
    """This process works as one of several: with one thread, and where `device` is any GPU, with one of its own if there are enough."""
    _set_threads(1, 1)
    if device in {"auto", "cuda"} and _may_have_gpus():
        from batchemo.devices import claim_gpu  # noqa: PLC0415 (loads torch)

        claim_gpu()


def _end_with(parent: int) -> None:
    """Ends this process when its parent has gone: one that waits for work would do so for ever."""
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os._exit(1)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """As a worker has it. Sums over several threads differ in their last bits, so that results would tell in which process they
    were made; and two threads read a film of 1280 x 720 six times as slowly as one wherever anything else was running."""
    import cv2  # noqa: PLC0415
    import torch  # noqa: PLC0415

    before = torch.get_num_threads(), cv2.getNumThreads()
    _set_threads(1, 1)
    try:
        yield
    finally:
        _set_threads(*before)


def _set_threads(of_torch: int, of_opencv: int) -> None:
    import cv2  # noqa: PLC0415
    import torch  # noqa: PLC0415

    torch.set_num_threads(of_torch)
    cv2.setNumThreads(of_opencv)


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink(missing_ok=True)
