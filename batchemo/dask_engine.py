"""Many media on the workers of a Dask cluster, on other machines or on this one."""

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
from typing import Any

import distributed

from batchemo import __version__
from batchemo.engine import Guard, count_workers, settle
from batchemo.errors import ClusterError, MediaError, typed
from batchemo.parts import Done
from batchemo.pulse import HOST, Beat, Pulse, forget, read_pulses
from batchemo.records import Medium, Outcome
from batchemo.work import Board, Job, Task

_CONNECT_SECONDS = 20
_LOOK_SECONDS = 2.0
_IN_FLIGHT = 2
"""Jobs a worker: one in work, and one that waits there, so that no worker waits for this process."""

_RETRIES = 2
"""Of what is not the medium's fault, such as a shared folder that was away for a moment."""

_INNOCENT_DEATHS = 3
"""How often workers may die with a job that has not begun, before it is taken for what ends them as it begins."""


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """A task as workers get it. What the medium is to blame for is a result: an error would be tried again."""

    task: Task
    device: str
    version: str = __version__

    def __call__(self, job: Job) -> Outcome | Done | MediaError:
        # A worker with several threads would mix up their pulses, and networks are not made for two at once.
        with _one_at_a_time:
            if self.version != __version__:
                raise ClusterError(f"{HOST} has batchemo {__version__}, but {self.version} asks; install the same on both")
            for path in (self.task.pulses, job.medium.path):
                if not path.exists():
                    raise _UnseenError(HOST, path)
            settle(self.device)
            _keep_memory()
            try:
                return self.task(job)
            except MediaError as error:
                return error


_one_at_a_time = threading.Lock()


@functools.cache
def _keep_memory() -> None:
    """Lets malloc keep the memory of a frame for the next one, as it does elsewhere.

    Dask sets MALLOC_TRIM_THRESHOLD_ for its workers, with which malloc asks the system for each frame's anew: a film of 1280 x 720
    took 31 s so, and 20 s with these thresholds, which are the largest that malloc chooses by itself.
    """
    with contextlib.suppress(OSError, AttributeError):  # only glibc has it
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(_MALLOC_MMAP_THRESHOLD, 32 * 2**20)
        mallopt(_MALLOC_TRIM_THRESHOLD, 64 * 2**20)


_MALLOC_TRIM_THRESHOLD, _MALLOC_MMAP_THRESHOLD = -1, -3  # of malloc.h


class _UnseenError(Exception):
    """A machine does not see a file."""


class Dask:
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

    def run(self, task: Task, media: Sequence[Medium]) -> Iterator[Outcome]:
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
        self._task = task
        self._call = Call(task, device)
        self._resources = _resources(device)
        self._board = Board(task, media, workers=1)
        self._guard = Guard(task.pulses, self._board, timeout_s=timeout_s, max_memory_mb=max_memory_mb, end=self._end)
        self._jobs: dict[distributed.Future, Job] = {}
        self._back: queue.SimpleQueue[distributed.Future] = queue.SimpleQueue()
        self._deaths: Counter[tuple[str, str]] = Counter()
        self._again: set[tuple[str, str]] = set()
        self._given_up: list[tuple[Job, MediaError]] = []
        self._warned: set[str] = set()

    def outcomes(self) -> Iterator[Outcome]:
        looked = -_LOOK_SECONDS
        try:
            while self._board.unfinished:
                if time.monotonic() - looked >= _LOOK_SECONDS:
                    yield from self._look()
                    looked = time.monotonic()
                while len(self._jobs) < _IN_FLIGHT * self._board.workers and (job := self._board.next_job()) is not None:
                    self._submit(job)
                with contextlib.suppress(queue.Empty):
                    outcome = self._take(self._back.get(timeout=_LOOK_SECONDS))
                    if outcome is not None:
                        yield outcome
        finally:
            self._board.abandon()

    def _look(self) -> Iterator[Outcome]:
        with self._reaching():
            workers = self._client.scheduler_info()["workers"].values()
            able = [worker for worker in workers if not self._resources or worker["resources"].get("GPU", 0) >= 1]
            self._board.workers = max(1, len(able))
            for output, share in self._board.films():
                Pulse(self._task.pulses, output, joint=True).start(share)
            self._guard.look()
        options = " --resources GPU=1" if self._resources else ""
        how = f"dask worker {self._address} --nthreads 1{options}"
        if not able:
            self._warn(f"the cluster has no workers for this; waiting. Start one on each core or GPU with: {how}")
        elif any(worker["nthreads"] > 1 for worker in able):
            self._warn(f"workers of the cluster have several threads, of which batchemo uses one; better start as many workers with: {how}")
        while self._given_up:
            job, error = self._given_up.pop()
            outcome = self._board.fail(job, MediaError(error.kind, f"{error}, or leave it out with --exclude"))
            if outcome is not None:
                yield outcome

    def _submit(self, job: Job) -> None:
        wanted = dataclasses.replace(job, again=job.key in self._again)
        with self._reaching():
            future = self._client.submit(self._call, wanted, resources=self._resources, retries=_RETRIES, pure=False)
        self._jobs[future] = job
        future.add_done_callback(self._back.put)

    def _take(self, future: distributed.Future) -> Outcome | None:
        job = self._jobs.pop(future, None)
        if job is None:  # given up meanwhile
            return None
        try:
            with self._reaching():
                result = future.result()
        except distributed.scheduler.KilledWorker:
            return self._killed(job)
        except _UnseenError as error:
            host, path = error.args
            if job.medium.path.exists():
                message = f"{host} does not see {path}; every worker needs the folders of media and results, in the same place"
                raise ClusterError(message) from error
            result = MediaError("unreadable", f"{job.medium.path} is gone; look for it with: ls {typed(job.medium.path.parent)}")
        except (ImportError, RuntimeError) as error:
            missing = error if isinstance(error, ImportError) else error.__cause__  # where the scheduler lacks it
            if not isinstance(missing, ImportError):
                raise
            message = (
                f"the cluster cannot import batchemo ({missing}); install version {__version__} on the scheduler's machine and all others"
            )
            raise ClusterError(message) from error
        return self._board.fail(job, result) if isinstance(result, MediaError) else self._board.take(job, result)

    def _killed(self, job: Job) -> Outcome | None:
        """Workers that had `job` have died, as often as the scheduler allows; but perhaps it only waited there for its turn."""
        died_at_it = [beat for beat in read_pulses(self._task.pulses) if (beat.output, beat.part) == job.key]
        for beat in died_at_it:
            forget(self._task.pulses, beat)
        self._deaths[job.key] += 1
        if not died_at_it and self._deaths[job.key] < _INNOCENT_DEATHS:
            self._board.put_back([job])
            return None
        if job.key not in self._again:
            self._once_more(job)
            return None
        message = f"{job.medium.path} killed its worker twice (a defect of a decoder, or no memory left); leave it out with --exclude"
        return self._board.fail(job, MediaError("crashed", message))

    def _once_more(self, job: Job) -> None:
        logging.getLogger("batchemo").warning("a worker died; trying %s again", job.medium.name)
        self._again.add(job.key)
        self._board.put_back([job])

    def _end(self, beat: Beat) -> None:
        """Ends the worker of a beat, if it has not died already; its job is tried once more, and then given up."""
        forget(self._task.pulses, beat)
        processes = self._client.run(_this_process, on_error="ignore")
        found = [address for address, process in processes.items() if process == (beat.host, beat.pid)]
        if not found:
            return
        for future, job in list(self._jobs.items()):
            if job.key == (beat.output, beat.part):
                del self._jobs[future]
                future.cancel()  # before its worker ends, or the next one gets it
                if job.key not in self._again:
                    self._once_more(job)
                elif self._guard.reason is not None:
                    self._given_up.append((job, self._guard.reason))
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
