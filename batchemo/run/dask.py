"""Many media on the workers of a Dask cluster, on other machines or on this one."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import queue
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from typing import Any

import distributed

from batchemo import __version__
from batchemo.errors import ClusterError, MediaError
from batchemo.records import Medium, MediumOutcome
from batchemo.run.heartbeat import HOST, Heartbeat, IsWanted, read_heartbeats, remove_heartbeat
from batchemo.run.local import Watchdog, count_workers
from batchemo.run.remote import FileNotVisibleError, RemoteCall
from batchemo.run.scheduler import Job, JobQueue, Outcomes, Task

_CONNECT_SECONDS = 20
_LOOK_SECONDS = 2.0
_IN_FLIGHT = 2
"""Jobs a worker: one in work, and one that waits there, so that no worker waits for this process."""

_RETRIES = 2
"""Of what is not the medium's fault, such as a shared folder that was away for a moment."""

_INNOCENT_DEATHS = 3
"""How often workers may die with a job that has not begun, before it is taken for what ends them as it begins."""


def _wanted() -> IsWanted:
    """Of the task that runs in this thread: Dask cannot stop it, but marks it when its client has gone."""
    worker = distributed.get_worker()
    task = worker.state.tasks[worker.get_current_task()]
    return lambda: task.state != "cancelled"


class DaskEngine:
    """The workers of the scheduler at `address`; without one, those of a cluster on this machine that lives as long as the run.

    Long videos are shared among workers where there are few media. What a worker that dies had to do is tried again elsewhere; the medium
    of a job that keeps ending its workers, or makes no progress for `timeout_s` seconds twice, has failed. `max_memory_mb` holds for
    workers on this machine. Raises ClusterError.
    """

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
            crew = _Crew(client, task, media, device=self._device, timeout_s=self._timeout_s, max_memory_mb=self._max_memory_mb)
            yield from crew.outcomes()

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


class _Crew:
    """The workers that a client reaches, at one run's work."""

    def __init__(
        self, client: distributed.Client, task: Task, media: Sequence[Medium], *, device: str, timeout_s: float, max_memory_mb: int | None
    ) -> None:
        self._client = client
        self._address = client.scheduler.address
        self._pulses = task.pulses
        self._call = RemoteCall(task, device, _wanted)
        self._resources = _resources(device)
        self._board = JobQueue(task, media, workers=1)
        self._guard = Watchdog(task.pulses, self._board, timeout_s=timeout_s, max_memory_mb=max_memory_mb, end=self._end)
        self._jobs: dict[distributed.Future, Job] = {}
        self._back: queue.SimpleQueue[distributed.Future] = queue.SimpleQueue()
        self._ended: list[tuple[Job, MediaError | None]] = []
        self._deaths: Counter[tuple[str, str]] = Counter()
        self._warned: set[str] = set()

    def outcomes(self) -> Iterator[MediumOutcome]:
        looked = -_LOOK_SECONDS
        try:
            while self._board.unfinished:
                if time.monotonic() - looked >= _LOOK_SECONDS:
                    self._look()
                    looked = time.monotonic()
                while self._ended:
                    yield from self._board.died(*self._ended.pop())
                while len(self._jobs) < _IN_FLIGHT * self._board.workers and (job := self._board.next_job()) is not None:
                    self._submit(job)
                with contextlib.suppress(queue.Empty):
                    yield from self._take(self._back.get(timeout=_LOOK_SECONDS))
        finally:
            self._board.abandon()

    def _look(self) -> None:
        with self._reaching():
            workers = self._client.scheduler_info()["workers"].values()
            able = [worker for worker in workers if not self._resources or worker["resources"].get("GPU", 0) >= 1]
            self._board.workers = max(1, len(able))
            self._board.beat()
            self._guard.look()
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
        future.add_done_callback(self._back.put)

    def _take(self, future: distributed.Future) -> Outcomes:
        job = self._jobs.pop(future, None)
        if job is None:  # its worker was ended meanwhile
            return ()
        try:
            with self._reaching():
                result = future.result()
        except distributed.scheduler.KilledWorker:
            return self._killed(job)
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
        return self._board.take(job, result)

    def _killed(self, job: Job) -> Outcomes:
        """Workers that had `job` have died, as often as the scheduler allows; but perhaps it only waited there for its turn."""
        died_at_it = [beat for beat in read_heartbeats(self._pulses) if (beat.output, beat.part) == job.key]
        for beat in died_at_it:
            remove_heartbeat(self._pulses, beat)
        self._deaths[job.key] += 1
        if died_at_it or self._deaths[job.key] >= _INNOCENT_DEATHS:
            return self._board.died(job)
        self._board.put_back([job])
        return ()

    def _end(self, beat: Heartbeat) -> None:
        """Ends the worker of a beat, if it has not died already."""
        remove_heartbeat(self._pulses, beat)
        processes = self._client.run(_this_process, on_error="ignore")
        found = [address for address, process in processes.items() if process == (beat.host, beat.pid)]
        if not found:
            return
        for future, job in list(self._jobs.items()):
            if job.key == (beat.output, beat.part):
                del self._jobs[future]
                future.cancel()  # before its worker ends, or the next one gets it
                self._ended.append((job, self._guard.reason))
        self._client.run(os._exit, 1, workers=found, on_error="ignore")

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[None]:
        """What goes wrong in it once the scheduler has gone is that it has gone."""
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


@contextlib.contextmanager
def _local_cluster(count: int, device: str) -> Iterator[distributed.LocalCluster]:
    with distributed.LocalCluster(
        n_workers=count,
        threads_per_worker=1,
        dashboard_address=None,
        memory_limit=0,  # the guard looks after it
        resources=_resources(device),
        silence_logs=logging.CRITICAL,
        scheduler_kwargs={"allowed_failures": 0},
    ) as cluster:
        yield cluster


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Dask logs each worker that comes, goes or is late; what matters of that is said here."""
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
    # Ctrl-C reaches the whole group of processes; the client decides what becomes of its own workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _this_process() -> tuple[str, int]:
    return HOST, os.getpid()
