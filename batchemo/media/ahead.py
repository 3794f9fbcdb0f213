"""Work in a thread of its own, a little ahead of whoever needs it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_END = object()


def prefetch(items: Iterable[_Item], *, most: int) -> Iterator[_Item]:
    """`items` in their order, of which another thread makes up to `most` before they are asked for. What goes wrong in making one is raised
    in its place."""
    making = iter(items)
    with ThreadPoolExecutor(1) as thread:
        waiting = deque(thread.submit(next, making, _END) for _ in range(most))
        try:
            while (item := waiting.popleft().result()) is not _END:
                waiting.append(thread.submit(next, making, _END))
                yield item  # type: ignore[misc]
        finally:
            for future in waiting:
                future.cancel()
