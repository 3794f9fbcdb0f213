"""Engines on this machine: jobs run in this process, or in worker processes that a broken medium may crash."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import Protocol

from batchemo.errors import MediaError
from batchemo.pipeline.segments import SegmentTaskResult
from batchemo.records import Medium, MediumOutcome
from batchemo.run.heartbeat import read_heartbeats
from batchemo.run.scheduler import JobQueue, group_jobs
from batchemo.run.tasks import Job, Outcomes, Task
from batchemo.run.watchdog import Watchdog

_POLL_SECONDS = 0.5
_SEGMENT_BYTES = 250_000
"""Least size of a segment of a video: 20 seconds at 100 kbit/s. The file is not opened to count them, as it may be damaged."""


class Engine(Protocol):
    """Runs a task on media and yields the outcome of each when it is done, in any order.

    All engines share `JobQueue`, which knows what is next and what is retried, and `Watchdog`, which ends workers that hang.
    """

    @property
    def processes(self) -> int | None:
        """How many processes on this machine work; None where they are on others."""
        ...

    def run(self, task: Task, media: Sequence[Medium]) -> Iterator[MediumOutcome]: ...


class InProcessEngine:
    """Runs one job after the other in this process: for debuggers, and where there is little to do."""

    processes = 1

    def run(self, task: Task, media: Sequence[Medium]) -> Iterator[MediumOutcome]:
        for job in group_jobs(media):
            with _one_thread():
                outcomes = task(job)
            if not isinstance(outcomes, SegmentTaskResult):
                yield from outcomes


class ProcessEngine:
    """Runs jobs in `count` processes with one thread each (joblib's loky).

    When a worker dies, or is ended because it made no progress for `timeout_s` seconds or uses more than `max_memory_mb`, the jobs that
    were running are retried, each alone. A medium that ends its worker at each attempt has failed, and the run goes on.
    """

    def __init__(self, count: int, *, device: str = "auto", timeout_s: float, max_memory_mb: int | None) -> None:
        self.processes = count
        self._device = device
        self._timeout_s = timeout_s
        self._max_memory_mb = max_memory_mb

    def run(self, task: Task, media: Sequence[Medium]) -> Iterator[MediumOutcome]:
        queue = JobQueue(task, media, workers=self.processes)
        try:
            while queue.unfinished:
                retry = queue.next_retry()
                if retry is None:
                    cause = yield from self._until_crash(task, queue, queue.next_job, self.processes)
                else:  # alone: if its worker dies again, no other job can be to blame
                    cause = yield from self._until_crash(task, queue, functools.partial(next, iter([retry]), None), 1)
                suspects = _suspects(task, queue)
                for job in queue.running:
                    yield from queue.on_worker_death(job, cause) if job.key in suspects else queue.requeue(job)
        finally:
            queue.abandon()

    def _until_crash(
        self, task: Task, queue: JobQueue, next_job: Callable[[], Job | None], count: int
    ) -> Generator[MediumOutcome, None, MediaError | None]:
        """Yields outcomes until there is nothing left to do, or a worker has died; returns the reason where the watchdog ended it."""
        from joblib.externals.loky import ProcessPoolExecutor  # noqa: PLC0415
        from joblib.externals.loky.process_executor import BrokenProcessPool  # noqa: PLC0415

        _clear(task.heartbeats)
        watchdog = Watchdog(task.heartbeats, queue, timeout_s=self._timeout_s, max_memory_mb=self._max_memory_mb)
        start = (os.getpid(), self._device)
        executor = ProcessPoolExecutor(max_workers=count, initializer=_become_worker, initargs=start, env=_WORKER_ENVIRONMENT)
        futures: dict[Future[Outcomes | SegmentTaskResult], Job] = {}
        finished = False
        try:
            while True:
                # One more each than they run, so that no worker waits for this process.
                while len(futures) < 2 * count and (job := next_job()) is not None:
                    futures[executor.submit(task, job)] = job
                if not futures:
                    finished = True
                    return None
                for future in wait(futures, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED).done:
                    job = futures.pop(future)
                    try:
                        outcomes = queue.complete(job, future.result())
                    except BrokenProcessPool:
                        return watchdog.reason
                    except MediaError as error:
                        outcomes = queue.fail(job, error)
                    except OSError:  # the files that the steps of a failed video need have been removed
                        if not queue.is_cancelled(job):
                            raise
                        outcomes = queue.discard(job)
                    yield from outcomes
                queue.report_progress()
                watchdog.check()
        finally:
            executor.shutdown(wait=True, kill_workers=not finished)


def _suspects(task: Task, queue: JobQueue) -> set[tuple[str, str]]:
    """The keys of the jobs that may have ended a worker: those that heartbeats say were running, or the first one."""
    if not queue.running:
        return set()
    beating = {(beat.output, beat.step) for beat in read_heartbeats(task.heartbeats)}
    return {job.key for job in queue.running if job.key in beating} or {queue.running[0].key}


def choose_engine(workers: int | None, media: Sequence[Medium], *, device: str, timeout_s: float, max_memory_mb: int | None) -> Engine:
    """This process for one worker, otherwise worker processes, because a decoder that crashes ends its process."""
    if workers == 1:
        return InProcessEngine()
    count = count_workers(workers, media, device=device)
    return ProcessEngine(count, device=device, timeout_s=timeout_s, max_memory_mb=max_memory_mb)


def count_workers(workers: int | None, media: Sequence[Medium], *, device: str) -> int:
    """As many as asked for, otherwise one for each GPU or core; no more than media and segments of videos can keep busy."""
    count = workers or _count_gpus(device) or usable_cores()
    if len(media) < count:
        count = min(count, sum(1 + (medium.kind == "video") * medium.size_bytes() // _SEGMENT_BYTES for medium in media))
    return count


def _count_gpus(device: str) -> int:
    """Those that `device` names: all for `cuda` and `auto`, one for `cuda:N`."""
    if device == "cpu" or (device == "auto" and not _may_have_gpus()):
        return 0
    from batchemo.devices import count_gpus  # noqa: PLC0415 (loads torch)

    return min(1, count_gpus()) if device.startswith("cuda:") else count_gpus()


_DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/dxg"), Path("/dev/kfd"))
"""Device files of NVIDIA, of NVIDIA in WSL, and of AMD. Without one, torch, which takes seconds to load, need not be asked for GPUs."""


def _may_have_gpus() -> bool:
    return sys.platform != "linux" or any(path.exists() for path in _DRIVERS)


@functools.cache
def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_WORKER_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def _become_worker(parent: int, device: str) -> None:
    # Ctrl-C reaches the whole process group; the parent ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    set_up_worker(device)


def set_up_worker(device: str) -> None:
    """Makes this process one of several workers: with one thread, and with a GPU of its own where `device` is any and there are enough."""
    _set_threads(1, 1)
    if device in {"auto", "cuda"} and _may_have_gpus():
        from batchemo.devices import claim_gpu  # noqa: PLC0415 (loads torch)

        claim_gpu()


def _end_with(parent: int) -> None:
    """Ends this process when its parent has gone, as it would wait for jobs for ever."""
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os._exit(1)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Uses one thread, as workers do: sums over several threads differ in their last bits, and two threads are slower than one wherever
    anything else runs (see docs/benchmarks.md)."""
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
