"""A task as workers on other machines get it, whatever brings it there."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import threading
from collections.abc import Callable
from pathlib import Path

from batchemo import __version__
from batchemo.errors import ClusterError, MediaError, typed
from batchemo.pipeline.segments import SegmentTaskResult
from batchemo.run.heartbeat import HOST, IsWanted
from batchemo.run.local import set_up_worker
from batchemo.run.scheduler import Job, Outcomes, Task


@dataclasses.dataclass(frozen=True, slots=True)
class RemoteCall:
    """Does jobs there, one at a time; `wanted` gives, on the worker, what tells whether the one that has just begun still is.

    What the medium is to blame for is a result: an error would be tried again. Raises ClusterError where the machine has another batchemo,
    UnseenError where it does not see the folders.
    """

    task: Task
    device: str
    wanted: Callable[[], IsWanted]
    version: str = __version__

    def __call__(self, job: Job) -> Outcomes | SegmentTaskResult | MediaError:
        # A worker with several threads would mix up their pulses, and networks are not made for two at once.
        with _one_at_a_time:
            if self.version != __version__:
                raise ClusterError(f"{HOST} has batchemo {__version__}, but {self.version} asks; install the same on both")
            for path in (self.task.pulses, *(medium.path for medium in job.media)):
                if not path.exists():
                    raise FileNotVisibleError(HOST, path)
            set_up_worker(self.device)
            _keep_memory()
            try:
                return self.task(job, wanted=self.wanted())
            except MediaError as error:
                return error


class FileNotVisibleError(Exception):
    """A machine (its name) does not see a file (its path)."""

    def __init__(self, host: str, path: Path) -> None:
        super().__init__(host, path)
        self.host, self.path = host, path

    def explained(self, job: Job) -> MediaError:
        """Of a `job`'s media one of which has gone everywhere. Raises ClusterError where only that machine does not see it."""
        if all(medium.path.exists() for medium in job.media):
            message = f"{self.host} does not see {self.path}; every worker needs the folders of media and results, in the same place"
            raise ClusterError(message) from self
        return MediaError("unreadable", f"{job.medium.path} is gone; look for it with: ls {typed(job.medium.path.parent)}")


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
