"""Heartbeats: a small file for each worker process that says how far it is, and that outlives a crash."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from batchemo.errors import MediaError

_EVERY_SECONDS = 0.3

HOST = socket.gethostname()
"""The name of this machine, whose processes can be inspected and ended by their pid."""


IsWanted = Callable[[], bool]
"""Whether the result of a job is still needed."""


class CancelledError(BaseException):
    """The job of this process is not needed any more. Not an Exception: the medium is not to blame, and nothing may go on after it."""


class Heartbeat(NamedTuple):
    """The last heartbeat of a process: `frames` it has analysed in all, the `share` (0 to 1) of the medium that is done, how many `beats`
    there were, and which `step` of the medium with which `output` name it works on (empty between media). `host` and `pid` identify the
    process."""

    host: str
    pid: int
    frames: int
    share: float
    beats: int
    step: str
    output: str


class HeartbeatWriter:
    """Writes to `folder` what this process works on, a medium or a `step` of a segmented video, and how many frames it has analysed in all.

    `joint`: the heartbeat is that of a whole segmented video, which this process writes in addition to its own.

    `beat` ends work that is not needed: it raises CancelledError where the job is not `wanted` any more, MediaError where another step of
    the video has failed, and FileNotFoundError where the folder is gone, as the run has ended.
    """

    _frames_before = 0  # of earlier media in this process

    def __init__(self, folder: Path, output: str, step: str = "", *, wanted: IsWanted = lambda: True, joint: bool = False) -> None:
        self._path = folder / f"{HOST}-{os.getpid()}{f'.{_digest(output)}' if joint else ''}"
        self._cancelled = _cancelled_marker(folder, output)
        self._output = output
        self._step = step
        self._wanted = wanted
        self._share = 0.0
        self._beats = 0
        self._last = 0.0

    def beat(self, *, frames: int = 0, share: float = 0.0) -> None:
        """`frames` more are analysed; `share` (0 to 1) of the medium is done."""
        HeartbeatWriter._frames_before += frames
        self._share = share
        self._beats += 1
        now = time.monotonic()
        if now - self._last >= _EVERY_SECONDS:
            self._last = now
            if not self._wanted():
                raise CancelledError
            self._write()

    def start(self, share: float = 0.0) -> None:
        self._share = share
        self._write()

    def end(self) -> None:
        self._output, self._step, self._share = "", "", 0.0
        self._write()

    def _write(self) -> None:
        if self._step and self._cancelled.exists():
            raise MediaError("cancelled", f"{self._output}: another step of it has failed")
        temporary = self._path.with_name(f".{self._path.name}")
        lines = (HeartbeatWriter._frames_before, f"{self._share:.4f}", self._beats, self._step, self._output)
        temporary.write_text("\n".join(map(str, lines)), encoding="utf-8")
        temporary.replace(self._path)


def mark_cancelled(folder: Path, output: str) -> None:
    """Cancels all jobs of that video, which has failed."""
    _cancelled_marker(folder, output).touch()


def _cancelled_marker(folder: Path, output: str) -> Path:
    return folder / f".cancelled-{_digest(output)}"


def _digest(output: str) -> str:
    return hashlib.sha256(output.encode()).hexdigest()[:16]


def remove_heartbeat(folder: Path, beat: Heartbeat) -> None:
    """Removes the heartbeat of a process that has died."""
    (folder / f"{beat.host}-{beat.pid}").unlink(missing_ok=True)


def read_heartbeats(folder: Path) -> Iterator[Heartbeat]:
    """The last heartbeat of each process, and of each segmented video."""
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        try:
            frames, share, beats, step, output = path.read_text(encoding="utf-8").split("\n", 4)
            host, _, process = path.name.rpartition("-")
            pid, _, _ = process.partition(".")
            yield Heartbeat(host, int(pid), int(frames), float(share), int(beats), step, output)
        except (OSError, ValueError):
            continue
