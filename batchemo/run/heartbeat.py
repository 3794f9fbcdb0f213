"""How far each worker is: a small file per process that the run can look at, and that outlives a crash."""

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
"""Of this machine: its processes can be looked at and ended by their number, those of others cannot."""


IsWanted = Callable[[], bool]
"""Whether whoever asked for a piece of work still wants it."""


class CancelledError(BaseException):
    """Nobody wants what this process works on any more. Not an Exception: it is no fault of the medium, and nothing may go on after it."""


class Heartbeat(NamedTuple):
    """What a process has said last: `frames` it has analysed in all, the `share` (0 to 1) of the medium that is behind us, how many `beats`
    there were, and which `part` of the medium with which `output` name it works on (empty between media). `host` and `pid` tell processes
    apart."""

    host: str
    pid: int
    frames: int
    share: float
    beats: int
    part: str
    output: str


class HeartbeatWriter:
    """Says in `folder` which medium, or which part of it, this process works on, and how many frames it has analysed in all.

    `joint`: it is a video that several processes work on, of which this one tells beside its own pulse and those of others.

    A beat ends work in vain: it raises UnwantedError where `wanted` says so, a MediaError where another part of the video has failed
    meanwhile, and FileNotFoundError where the folder has gone, and with it the run that asked.
    """

    _frames_before = 0  # of earlier media in this process

    def __init__(self, folder: Path, output: str, part: str = "", *, wanted: IsWanted = lambda: True, joint: bool = False) -> None:
        self._path = folder / f"{HOST}-{os.getpid()}{f'.{_digest(output)}' if joint else ''}"
        self._mark = _mark(folder, output)
        self._output = output
        self._part = part
        self._wanted = wanted
        self._share = 0.0
        self._beats = 0
        self._last = 0.0

    def beat(self, *, frames: int = 0, share: float = 0.0) -> None:
        """`frames` more are analysed; `share` (0 to 1) of the medium is behind us."""
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
        self._output, self._part, self._share = "", "", 0.0
        self._write()

    def _write(self) -> None:
        if self._part and self._mark.exists():
            raise MediaError("given_up", f"{self._output}: another part of it has failed")
        temporary = self._path.with_name(f".{self._path.name}")
        lines = (HeartbeatWriter._frames_before, f"{self._share:.4f}", self._beats, self._part, self._output)
        temporary.write_text("\n".join(map(str, lines)), encoding="utf-8")
        temporary.replace(self._path)


def mark_cancelled(folder: Path, output: str) -> None:
    """Tells all who work on a part of that video that it has failed."""
    _mark(folder, output).touch()


def _mark(folder: Path, output: str) -> Path:
    return folder / f".given-up-{_digest(output)}"


def _digest(output: str) -> str:
    return hashlib.sha256(output.encode()).hexdigest()[:16]


def remove_heartbeat(folder: Path, beat: Heartbeat) -> None:
    """Removes the pulse of a process that has died."""
    (folder / f"{beat.host}-{beat.pid}").unlink(missing_ok=True)


def read_heartbeats(folder: Path) -> Iterator[Heartbeat]:
    """The last beat of each process, and of each video that several work on."""
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        try:
            frames, share, beats, part, output = path.read_text(encoding="utf-8").split("\n", 4)
            host, _, process = path.name.rpartition("-")
            pid, _, _ = process.partition(".")
            yield Heartbeat(host, int(pid), int(frames), float(share), int(beats), part, output)
        except (OSError, ValueError):
            continue
