"""The interface of all decoders, frame sampling, and decoding ahead in a thread."""

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
    """What a decoder knows about a medium so far; complete once its frames are exhausted.

    - `decoded`, `undecodable`, `missing`: numbers of frames. An undecodable frame has a packet that cannot be decoded, or the timestamp of
      another frame. A missing frame is announced by the header, but has no packet (estimated from durations, except in MP4).
    - `trouble`: the decoder's own error message; empty where there was none.
    - `width`, `height`: size of the presented frames in px, upright.
    - `length_s`: about how long the medium is by its header, known from the start; 0 where unknown. `duration_s`: what was decoded.
    - `note`: for the medium's row where it was analysed, but not completely.
    - `starts_s`: presentation time of the first frame, counted from where audio or video begins; None until it is computed.
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
    """Decodes one medium, once."""

    @property
    def decoder(self) -> str:
        """Name of the decoder in use."""
        ...

    @property
    def report(self) -> ReadReport:
        """What is known about the medium so far."""
        ...

    def frames(self, *, sample_fps: float | None = None, start_index: int = 0) -> Iterator[Frame]:
        """Yields frames in presentation order, with increasing times: all of them, or `sample_fps` per second, from index `start_index` on.

        A frame that cannot be decoded is yielded as soon as that is known, which may be a few frames late. Memory does not grow with the
        medium. Raises MediaError where nothing at all can be read.
        """
        ...


def decode_pictures_at(source: FrameSource, times_s: Iterable[float]) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """Yields the frames of `source` presented at exactly `times_s` (increasing), each as its time and RGB uint8 H x W x 3.

    Decodes every frame up to the last of them. Raises MediaError as `source` does.
    """
    pending = deque(times_s)
    for frame in source.frames() if pending else ():
        if pending[0] == frame.time_s and frame.is_decoded:
            yield pending.popleft(), frame.pixels
        if not pending:
            return


class Sampler:
    """Selects the first frame of each interval of 1 / `fps` seconds; every frame where `fps` is None.

    The selection depends on times alone, so that all decoders select the same frames.
    """

    def __init__(self, fps: float | None, *, before_s: float | None = None) -> None:
        """`before_s`: time of the frame before the first one passed to `accepts`, if there is one."""
        self._fps = fps
        self._last_interval = -1
        if before_s is not None:
            self.accepts(before_s)

    def accepts(self, time_s: float) -> bool:
        """Whether the frame at `time_s` is selected. Call it once for each frame, in order."""
        if self._fps is None:
            return True
        # Half a microsecond of slack, so that a time exactly on the border does not fall short of it by rounding.
        interval = math.floor((time_s + 5e-7) * self._fps)
        if interval <= self._last_interval:
            return False
        self._last_interval = interval
        return True


def prefetch(items: Iterable[_Item], *, max_ahead: int) -> Iterator[_Item]:
    """Yields `items` in order, while a thread computes up to `max_ahead` of them in advance. An exception in an item is raised in its
    place."""
    iterator = iter(items)
    with ThreadPoolExecutor(1) as thread:
        pending = deque(thread.submit(next, iterator, _END) for _ in range(max_ahead))
        try:
            while (item := pending.popleft().result()) is not _END:
                pending.append(thread.submit(next, iterator, _END))
                yield item  # type: ignore[misc]
        finally:
            for future in pending:
                future.cancel()
