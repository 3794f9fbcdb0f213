"""How far each worker is: a small file per process that the run can look at, and that outlives a crash."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

_EVERY_SECONDS = 0.3


class Pulse:
    """Says in `folder` which medium this process works on, and how many frames it has analysed in all.

    A worker whose parent has gone ends itself at the next beat.
    """

    _frames_before = 0  # of earlier media in this process

    def __init__(self, folder: Path, output: str) -> None:
        self._path = folder / str(os.getpid())
        self._output = output
        self._frames = 0
        self._share = 0.0
        self._last = 0.0
        self._parent = os.getppid()

    def beat(self, *, frames: int = 0, share: float = 0.0) -> None:
        """`frames` more are analysed; `share` (0 to 1) of the medium is behind us."""
        self._frames += frames
        Pulse._frames_before += frames
        self._share = share
        now = time.monotonic()
        if now - self._last >= _EVERY_SECONDS:
            self._last = now
            if os.getppid() != self._parent:
                os._exit(1)
            self._write()

    def start(self) -> None:
        self._write()

    def end(self) -> None:
        self._output, self._share = "", 0.0
        self._write()

    def _write(self) -> None:
        temporary = self._path.with_name(f".{self._path.name}")
        temporary.write_text(f"{Pulse._frames_before}\n{self._share:.4f}\n{self._output}", encoding="utf-8")
        temporary.replace(self._path)


def read_pulses(folder: Path) -> Iterator[tuple[int, float, str]]:
    """Frames analysed, share of the present medium, and its output name (empty between media), of each process."""
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        try:
            frames, share, output = path.read_text(encoding="utf-8").split("\n", 2)
            yield int(frames), float(share), output
        except (OSError, ValueError):
            continue
