"""The engine for Dask clusters, on other machines or on this one."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import logging
import os
import queue
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import distributed

from batchemo import __version__
from batchemo.errors import ClusterError, MediaError, typed
from batchemo.pipeline.segments import SegmentTaskResult
from batchemo.records import Medium, MediumOutcome
from batchemo.run.heartbeat import HOST, Heartbeat, IsWanted, read_heartbeats, remove_heartbeat
from batchemo.run.processes import count_workers, set_up_worker
from batchemo.run.scheduler import JobQueue
from batchemo.run.tasks import Job, Outcomes, Task
from batchemo.run.watchdog import Watchdog

_CONNECT_SECONDS = 20
_POLL_SECONDS = 2.0
_IN_FLIGHT = 2
"""Jobs per worker: one runs, and one waits there, so that no worker waits for this process."""

_RETRIES = 2
"""Retries by Dask after errors that are not the medium's fault, such as a shared folder that was unreachable for a moment."""

_INNOCENT_DEATHS = 3
"""Deaths of its worker before a job has begun, after which the job is blamed: it may end workers as it begins."""


class DaskEngine:
    """Runs jobs on the workers of the scheduler at `address`; without one, on a cluster on this machine that lives as long as the run.

    The jobs of a worker that dies are retried on another one. A medium that keeps ending its workers, or makes no progress for `timeout_s`
    seconds at each attempt, has failed. `max_memory_mb` holds for workers on this machine. Raises ClusterError.
    """

    processes = None

    def __init__(self, address: str | None, *, workers: int | None, device: str, timeout_s: float, max_memory_mb: int | None) -> None:
        self._address = address
        self._workers = workers
        self._device = device
        self._timeout_s = timeout_s
        self._max_memory_mb = max_memory_mb

    def run(self, task: Task, media: Sequence[Medium]) -> Iterator[MediumOutcome]:
        if not media:
            return
        # Workers have other working folders.
        media = [dataclasses.replace(medium, path=medium.path.absolute()) for medium in media]
        with _quiet(), self._connected(media) as client:
            run = _ClusterRun(client, task, media, device=self._device, timeout_s=self._timeout_s, max_memory_mb=self._max_memory_mb)
            yield from run.outcomes()

    @contextlib.contextmanager
    def _connected(self, media: Sequence[Medium]) -> Iterator[distributed.Client]:
        with contextlib.ExitStack() as stack:
            place: Any = self._address
            if place is None:
                count = count_workers(self._workers, media, device=self._device)
                place = stack.enter_context(_local_cluster(count, self._device))
            try:
                client = distributed.Client(place, timeout=_CONNECT_SECONDS, set_as_default=False)
            except (OSError, ValueError) as error:
                message = f"no scheduler answers at {self._address}; start one there with: dask scheduler"
                raise ClusterError(message) from error
            with client:
                if self._address is None:
                    client.register_worker_callbacks(setup=_ignore_interrupts)
                yield client


class _ClusterRun:
    """The jobs of one run on the workers that `client` reaches."""

    def __init__(
        self, client: distributed.Client, task: Task, media: Sequence[Medium], *, device: str, timeout_s: float, max_memory_mb: int | None
    ) -> None:
        self._client = client
        self._address = client.scheduler.address
        self._heartbeats = task.heartbeats
        self._call = RemoteCall(task, device)
        self._resources = _resources(device)
        self._queue = JobQueue(task, media, workers=1)
        self._watchdog = Watchdog(task.heartbeats, self._queue, timeout_s=timeout_s, max_memory_mb=max_memory_mb, end=self._end_worker)
        self._jobs: dict[distributed.Future, Job] = {}
        self._returned: queue.SimpleQueue[distributed.Future] = queue.SimpleQueue()
        self._ended: list[tuple[Job, MediaError | None]] = []
        self._deaths: Counter[tuple[str, str]] = Counter()
        self._warned: set[str] = set()

    def outcomes(self) -> Iterator[MediumOutcome]:
        polled = -_POLL_SECONDS
        try:
            while self._queue.unfinished:
                if time.monotonic() - polled >= _POLL_SECONDS:
                    self._poll()
                    polled = time.monotonic()
                while self._ended:
                    yield from self._queue.on_worker_death(*self._ended.pop())
                while len(self._jobs) < _IN_FLIGHT * self._queue.workers and (job := self._queue.next_job()) is not None:
                    self._submit(job)
                with contextlib.suppress(queue.Empty):
                    yield from self._take(self._returned.get(timeout=_POLL_SECONDS))
        finally:
            self._queue.abandon()

    def _poll(self) -> None:
        """Counts the workers, and ends those that hang."""
        with self._reaching():
            workers = self._client.scheduler_info()["workers"].values()
            able = [worker for worker in workers if not self._resources or worker["resources"].get("GPU", 0) >= 1]
            self._queue.workers = max(1, len(able))
            self._queue.report_progress()
            self._watchdog.check()
        options = " --resources GPU=1" if self._resources else ""
        how = f"dask worker {self._address} --nthreads 1{options}"
        if not able:
            self._warn(f"the cluster has no workers for this; waiting. Start one on each core or GPU with: {how}")
        elif any(worker["nthreads"] > 1 for worker in able):
            self._warn(f"workers of the cluster have several threads, of which batchemo uses one; better start as many workers with: {how}")

    def _submit(self, job: Job) -> None:
        with self._reaching():
            future = self._client.submit(self._call, job, resources=self._resources, retries=_RETRIES, pure=False)
        self._jobs[future] = job
        future.add_done_callback(self._returned.put)

    def _take(self, future: distributed.Future) -> Outcomes:
        job = self._jobs.pop(future, None)
        if job is None:  # its worker was ended meanwhile
            return ()
        try:
            with self._reaching():
                result = future.result()
        except distributed.scheduler.KilledWorker:
            return self._on_killed_worker(job)
        except FileNotVisibleError as error:
            result = error.explained(job)
        except (ImportError, RuntimeError) as error:
            missing = error if isinstance(error, ImportError) else error.__cause__  # where the scheduler lacks it
            if not isinstance(missing, ImportError):
                raise
            message = (
                f"the cluster cannot import batchemo ({missing}); install version {__version__} on the scheduler's machine and all others"
            )
            raise ClusterError(message) from error
        return self._queue.fail(job, result) if isinstance(result, MediaError) else self._queue.complete(job, result)

    def _on_killed_worker(self, job: Job) -> Outcomes:
        """A worker that had `job` has died; the job may only have waited there for its turn."""
        running = [beat for beat in read_heartbeats(self._heartbeats) if (beat.output, beat.step) == job.key]
        for beat in running:
            remove_heartbeat(self._heartbeats, beat)
        self._deaths[job.key] += 1
        if running or self._deaths[job.key] >= _INNOCENT_DEATHS:
            return self._queue.on_worker_death(job)
        return self._queue.requeue(job)

    def _end_worker(self, beat: Heartbeat) -> None:
        """Ends the worker of a heartbeat, if it has not died already."""
        remove_heartbeat(self._heartbeats, beat)
        processes = self._client.run(_this_process, on_error="ignore")
        found = [address for address, process in processes.items() if process == (beat.host, beat.pid)]
        if not found:
            return
        for future, job in list(self._jobs.items()):
            if job.key == (beat.output, beat.step):
                del self._jobs[future]
                future.cancel()  # before its worker ends, or the next one gets it
                self._ended.append((job, self._watchdog.reason))
        self._client.run(os._exit, 1, workers=found, on_error="ignore")

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[None]:
        """Raises ClusterError for any error within the block once the scheduler has gone."""
        try:
            yield
        except (MediaError, ClusterError):
            raise
        except (Exception, CancelledError) as error:
            if self._client.status == "running" and not isinstance(error, CancelledError):
                raise
            message = (
                f"the scheduler at {self._address} has gone; start it and its workers again: the same command goes on where it stopped"
            )
            raise ClusterError(message) from error

    def _warn(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            logging.getLogger("batchemo").warning(message)


@dataclasses.dataclass(frozen=True, slots=True)
class RemoteCall:
    """Runs one job at a time on a remote worker.

    A MediaError is a result, because Dask would retry an error. Raises ClusterError where the worker has another version of batchemo,
    FileNotVisibleError where it does not see the folders.
    """

    task: Task
    device: str
    version: str = __version__

    def __call__(self, job: Job) -> Outcomes | SegmentTaskResult | MediaError:
        # A worker with several threads would mix up their heartbeats, and the networks are not thread-safe.
        with _one_at_a_time:
            if self.version != __version__:
                raise ClusterError(f"{HOST} has batchemo {__version__}, but {self.version} asks; install the same on both")
            for path in (self.task.heartbeats, *(medium.path for medium in job.media)):
                if not path.exists():
                    raise FileNotVisibleError(HOST, path)
            set_up_worker(self.device)
            _keep_memory()
            try:
                return self.task(job, wanted=_is_wanted())
            except MediaError as error:
                return error


class FileNotVisibleError(Exception):
    """The machine `host` does not see the file `path`."""

    def __init__(self, host: str, path: Path) -> None:
        super().__init__(host, path)
        self.host, self.path = host, path

    def explained(self, job: Job) -> MediaError:
        """The error of `job`, if one of its media is gone. Raises ClusterError if it is there, and only `host` does not see it."""
        if all(medium.path.exists() for medium in job.media):
            message = f"{self.host} does not see {self.path}; every worker needs the folders of media and results, in the same place"
            raise ClusterError(message) from self
        return MediaError("unreadable", f"{job.medium.path} is gone; look for it with: ls {typed(job.medium.path.parent)}")


_one_at_a_time = threading.Lock()


def _is_wanted() -> IsWanted:
    """Whether the task of this thread is still wanted: Dask cannot stop it, but marks it as cancelled when its client has gone."""
    worker = distributed.get_worker()
    task = worker.state.tasks[worker.get_current_task()]
    return lambda: task.state != "cancelled"


@functools.cache
def _keep_memory() -> None:
    """Lets malloc reuse the memory of a frame for the next one: Dask sets MALLOC_TRIM_THRESHOLD_ for its workers, with which decoding takes
    half as long again (see docs/benchmarks.md). The thresholds are the largest that malloc chooses by itself."""
    with contextlib.suppress(OSError, AttributeError):  # only glibc has it
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(_MALLOC_MMAP_THRESHOLD, 32 * 2**20)
        mallopt(_MALLOC_TRIM_THRESHOLD, 64 * 2**20)


_MALLOC_TRIM_THRESHOLD, _MALLOC_MMAP_THRESHOLD = -1, -3  # of malloc.h


@contextlib.contextmanager
def _local_cluster(count: int, device: str) -> Iterator[distributed.LocalCluster]:
    with distributed.LocalCluster(
        n_workers=count,
        threads_per_worker=1,
        dashboard_address=None,
        memory_limit=0,  # the watchdog limits it
        resources=_resources(device),
        silence_logs=logging.CRITICAL,
        scheduler_kwargs={"allowed_failures": 0},
    ) as cluster:
        yield cluster


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences Dask, which logs each worker that comes, goes or is late."""
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.split(".")[0] == "distributed"]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _resources(device: str) -> dict[str, float] | None:
    return {"GPU": 1} if device.startswith("cuda") else None


def _ignore_interrupts() -> None:
    # Ctrl-C reaches the whole process group; the client ends its own workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _this_process() -> tuple[str, int]:
    return HOST, os.getpid()
