"""The clock of a copy: when its frames are shown, exactly as in its source, and beside the same sound."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
from av.container import InputContainer
from av.stream import Stream
from av.video.stream import VideoStream

from batchemo.errors import cause, unreadable
from batchemo.media.animation import read_animation_times
from batchemo.media.container import MediaFile
from batchemo.media.presentation import choose_track
from batchemo.render.audio import LOCAL_FILES_ONLY

_LOG = logging.getLogger("batchemo")

_FALLBACK_RATE, _FALLBACK_TICK = Fraction(25), Fraction(1, 90_000)
_FEWEST_TICKS, _MOST_TICKS = 10_000, 1_000_000
"""A second, of the output's video."""

_LONGEST_LAST_FRAME = Fraction(10)
"""Seconds. A cut-off file announces an end that its pictures never reach."""


@dataclasses.dataclass(frozen=True, slots=True)
class OutputClock:
    """How times become those of the output, whose 0 is `zero` on the source's clock: as for players, where sound or pictures begin.

    `first` and `end` are the first frame that can be shown and the end of the pictures in seconds of the output.
    """

    tick: Fraction = _FALLBACK_TICK
    zero: Fraction = Fraction(0)
    first: Fraction = Fraction(0)
    end: Fraction | None = None
    rate: Fraction = _FALLBACK_RATE

    @property
    def length_s(self) -> float:
        """Of the pictures, 0 where the source does not say."""
        return float(self.end - self.first) if self.end is not None else 0.0

    @property
    def starts_s(self) -> float:
        """When the first frame is shown."""
        return float(self.first)

    def stamp(self, time_s: float) -> int:
        return round(self.first / self.tick) + round(time_s / self.tick)

    def last_duration(self, stamp: int, *, step: int) -> int:
        """Ticks from the last frame to the source's end, or the last step where the source does not say."""
        rest = self.end - stamp * self.tick if self.end is not None else Fraction(0)
        if 0 < rest <= _LONGEST_LAST_FRAME:
            return max(1, round(rest / self.tick))
        return min(step, int(_LONGEST_LAST_FRAME / self.tick)) or max(1, round(1 / self.rate / self.tick))


def read_output_clock(source: Path) -> OutputClock:
    """That of a copy of `source`; one of round numbers, with a warning, where the file does not tell. Raises MediaError where it cannot be
    opened."""
    times = read_animation_times(source)
    if times is not None:
        return OutputClock(end=times.duration_s, rate=len(times.durations) / times.duration_s)
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(MediaFile(source))
        except OSError as error:
            raise unreadable(source, error) from error
        return _clock_of(source, file)


def _clock_of(source: Path, file: BinaryIO) -> OutputClock:
    why = "no video stream"
    try:
        with av.open(file, "r", options=LOCAL_FILES_ONLY, metadata_errors="replace") as container:
            video = choose_track(container.streams.video)
            if video is not None:
                return _clock(container, video)
    except av.FFmpegError as error:
        why = cause(error)
    _LOG.warning("%s: its clock cannot be read (%s); its first frame is taken to be at 0", source, why)
    return OutputClock()


def _clock(container: InputContainer, video: VideoStream) -> OutputClock:
    base = video.time_base or _FALLBACK_TICK
    first = _first_frame_time(container, video)
    starts = [_start(stream) for stream in (video, choose_track(container.streams.audio)) if stream is not None]
    zero = min([first, *(start for start in starts if start is not None)])
    end = (_start(video) or 0) + video.duration * base - zero if video.duration else None
    return OutputClock(_fine(base), zero, first - zero, end, video.average_rate or _FALLBACK_RATE)


def _first_frame_time(container: InputContainer, video: VideoStream) -> Fraction:
    """Of the first frame that can be decoded: packets before it show nothing."""
    for packet in container.demux(video):
        with contextlib.suppress(av.FFmpegError):
            for frame in packet.decode():
                if frame.pts is not None and frame.time_base is not None:
                    return frame.pts * frame.time_base
                return _start(video) or Fraction(0)
    return _start(video) or Fraction(0)


def _start(stream: Stream) -> Fraction | None:
    return None if stream.start_time is None or stream.time_base is None else stream.start_time * stream.time_base


def _fine(base: Fraction) -> Fraction:
    """A tick that divides `base` and is at most .1 ms, so that frames and sound of any other base fit in too."""
    if base.denominator > _MOST_TICKS:
        return _FALLBACK_TICK
    return Fraction(1, base.denominator * math.ceil(_FEWEST_TICKS / base.denominator))
