"""Ends workers that hang or use too much memory."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from batchemo.errors import MediaError
from batchemo.run.heartbeat import HOST, Heartbeat, read_heartbeats
from batchemo.run.scheduler import JobQueue

_MEGABYTE = 2**20


def _kill(beat: Heartbeat) -> None:
    if beat.host == HOST:
        with contextlib.suppress(psutil.Error):
            psutil.Process(beat.pid).kill()


class Watchdog:
    """Checks the heartbeats of the jobs that run, and ends a worker by `end`. `reason` is the error of the last medium whose worker was
    ended; None where there is none."""

    def __init__(
        self, heartbeats: Path, queue: JobQueue, *, timeout_s: float, max_memory_mb: int | None, end: Callable[[Heartbeat], None] = _kill
    ) -> None:
        self._heartbeats = heartbeats
        self._queue = queue
        self._timeout_s = timeout_s
        self._max_memory_mb = max_memory_mb
        self._end = end
        self._seen: dict[tuple[str, int], tuple[Heartbeat, float]] = {}
        self.reason: MediaError | None = None

    def check(self) -> None:
        """Ends the workers that went beyond a limit since the last call."""
        paths = {job.key: job.medium.path for job in self._queue.running}
        now = time.monotonic()
        for beat in read_heartbeats(self._heartbeats):
            process = beat.host, beat.pid
            before = self._seen.get(process)
            if before is None or before[0] != beat:
                self._seen[process] = beat, now
            path = paths.get((beat.output, beat.step))
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
