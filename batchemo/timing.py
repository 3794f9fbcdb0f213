"""Where the processor's time goes: seconds of each stage of an analysis."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

_Item = TypeVar("_Item")


class Stopwatch:
    """Adds up the processor time of this thread by stage; time in a stage that another one calls is the inner one's alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._running: list[str] = []
        self._since = 0.0

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Within the block time counts for `name`."""
        self._settle()
        self._running.append(name)
        try:
            yield
        finally:
            self._settle()
            self._running.pop()

    def each(self, name: str, items: Iterable[_Item]) -> Iterator[_Item]:
        """`items`, the making of which counts for `name`."""
        making = iter(items)
        while True:
            with self.stage(name):
                try:
                    item = next(making)
                except StopIteration:
                    return
            yield item

    def add(self, other: Stopwatch) -> None:
        """Adds what another one, of another thread, has measured."""
        for name, seconds in other.seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def _settle(self) -> None:
        now = time.thread_time()
        if self._running:
            stage = self._running[-1]
            self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._since
        self._since = now
