"""Which frames are analysed when not all of them are."""

from __future__ import annotations

import math


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
