"""Many media: in this process, or spread over worker processes that a broken medium may take down with it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from pathlib import Path
from typing import Protocol

from batchemo.options import RunOptions
from batchemo.pulse import Pulse, read_pulses
from batchemo.records import MediaRow, Medium


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """What is done to each medium; sent to the workers, which load the networks themselves."""

    results: Path
    options: RunOptions
    run_id: str
    pulses: Path

    def __call__(self, medium: Medium) -> MediaRow:
        from batchemo.pipeline import analyse  # noqa: PLC0415 (loads torch, which the parent of workers does not need)

        pulse = Pulse(self.pulses, medium.output)
        pulse.start()
        row = analyse(
            medium, self.results, options=self.options, run_id=self.run_id, beat=lambda n, share: pulse.beat(frames=n, share=share)
        )
        pulse.end()
        return row


class Engine(Protocol):
    """Runs a task on media and yields their rows as they are done, in any order."""

    def run(self, task: Task, media: Sequence[Medium]) -> Iterator[MediaRow]: ...


class InProcess:
    """One medium after the other, here: what debuggers want, and best for a single medium."""

    def run(self, task: Task, media: Sequence[Medium]) -> Iterator[MediaRow]:
        for medium in media:
            with _one_thread():
                row = task(medium)
            yield row


class Workers:
    """`count` processes with one thread each, by joblib's loky.

    When a worker dies, the media that were being analysed then are tried once more, each alone; one that kills its worker
    again becomes a failed row, and the run goes on.
    """

    def __init__(self, count: int) -> None:
        self._count = count

    def run(self, task: Task, media: Sequence[Medium]) -> Iterator[MediaRow]:
        waiting = {medium.output: medium for medium in media}
        while waiting:
            yield from self._until_crash(task, waiting, self._count)
            if not waiting:
                return
            suspects = [waiting[output] for _, _, output in read_pulses(task.pulses) if output in waiting]
            _clear(task.pulses)
            for medium in suspects or list(waiting.values())[:1]:
                yield from self._alone(task, waiting, medium)

    def _alone(self, task: Task, waiting: dict[str, Medium], medium: Medium) -> Iterator[MediaRow]:
        logging.getLogger("batchemo").warning("a worker died; trying %s again, alone", medium.name)
        single = {medium.output: medium}
        yield from self._until_crash(task, single, 1)
        if single:
            message = f"{medium.path} killed its worker twice (a defect of a decoder, or no memory left); leave it out with --exclude"
            yield MediaRow(
                media=medium.name,
                path=str(medium.path.resolve()),
                kind=medium.kind,
                status="failed",
                error="crashed",
                message=message,
                run_id=task.run_id,
            )
        waiting.pop(medium.output, None)

    @staticmethod
    def _until_crash(task: Task, waiting: dict[str, Medium], count: int) -> Iterator[MediaRow]:
        """Yields rows and takes their media out of `waiting`; ends when all are done or a worker has died."""
        from joblib.externals.loky import ProcessPoolExecutor  # noqa: PLC0415
        from joblib.externals.loky.process_executor import BrokenProcessPool  # noqa: PLC0415

        executor = ProcessPoolExecutor(max_workers=count, initializer=_become_worker, env=_WORKER_ENVIRONMENT)
        finished = False
        try:
            futures = {executor.submit(task, medium): output for output, medium in waiting.items()}
            for future in as_completed(futures):
                try:
                    row = future.result()
                except BrokenProcessPool:
                    return
                del waiting[futures[future]]
                yield row
            finished = True
        finally:
            executor.shutdown(wait=True, kill_workers=not finished)


def choose_engine(workers: int | None, media: int, *, device: str) -> Engine:
    """As many workers as asked for; otherwise one a core, but no more than media, and one only where a GPU is shared."""
    count = workers or (1 if device.startswith("cuda") else usable_cores())
    count = min(count, media)
    return Workers(count) if count > 1 else InProcess()


@functools.cache
def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_WORKER_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def _become_worker() -> None:
    # Ctrl-C reaches the whole group of processes; the parent decides what becomes of its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _set_threads(1, 1)


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
