"""The interface of all decoders, and which frames are asked of them when not all are."""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from batchemo.records import Frame

_Item = TypeVar("_Item")
_END = object()


@dataclasses.dataclass(slots=True)
class ReadReport:
    """What a decoder has found in a medium so far; complete when its frames are exhausted.

    `undecodable` frames have a packet but cannot be decoded, or have the time of another frame and cannot be shown; `missing`
    ones are announced by the header but are not in the file (estimated from durations but for MP4). `trouble` is the decoder's own
    word for what went wrong. `width` and `height` are upright. `length_s` is about how long the medium is, known from the start, 0
    where it is not; `duration_s` what was really found. `note` is what the medium's row says of one that was read all the same.
    `starts_s` is when a player shows the first frame, counted from where sound or pictures begin; None until somebody has asked.
    """

    decoded: int = 0
    undecodable: int = 0
    missing: int = 0
    trouble: str = ""
    width: int = 0
    height: int = 0
    duration_s: float = 0.0
    length_s: float = 0.0
    note: str = ""
    starts_s: float | None = None


class FrameSource(Protocol):
    """One medium, to be decoded once."""

    @property
    def decoder(self) -> str:
        """Name of the decoder in use."""
        ...

    @property
    def found(self) -> ReadReport:
        """What has been found so far."""
        ...

    def frames(self, *, sample_fps: float | None = None, start_index: int = 0) -> Iterator[Frame]:
        """Frames in presentation order, at times that increase: all, or `sample_fps` a second; only those with an index of at
        least `start_index`.

        Undecodable ones come as soon as they are known to be that, which may be a few frames late.

        Memory does not grow with the medium. Raises MediaError where nothing at all can be read.
        """
        ...


def decode_pictures_at(source: FrameSource, times_s: Iterable[float]) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """The frames of `source` that are shown at exactly `times_s`, which increase, each with its time and as RGB uint8 H x W x 3: all up to
    the last one are decoded. Raises MediaError as `source` does."""
    waiting = deque(times_s)
    for frame in source.frames() if waiting else ():
        if waiting[0] == frame.time_s and frame.is_decoded:
            yield waiting.popleft(), frame.pixels
        if not waiting:
            return


class Sampler:
    """Picks the first frame of each interval of 1 / `fps` seconds; every frame where `fps` is None.

    Fed with times in order; the choice depends on times alone, so every decoder gives the same frames.
    """

    def __init__(self, fps: float | None, *, before_s: float | None = None) -> None:
        """`before_s`: time of the frame that came before the first one it will be fed with, if any."""
        self._fps = fps
        self._last_interval = -1
        if before_s is not None:
            self.wants(before_s)

    def wants(self, time_s: float) -> bool:
        if self._fps is None:
            return True
        # Half a microsecond of slack: a time that is exactly on the border must not fall short of it by rounding.
        interval = math.floor((time_s + 5e-7) * self._fps)
        if interval <= self._last_interval:
            return False
        self._last_interval = interval
        return True


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
