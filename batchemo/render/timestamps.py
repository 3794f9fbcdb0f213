"""Converts times to the timestamps of an annotated copy, which match the source's, in sync with the audio."""

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

_FALLBACK_RATE, _FALLBACK_TIME_BASE = Fraction(25), Fraction(1, 90_000)
_MIN_TICKS_PER_S, _MAX_TICKS_PER_S = 10_000, 1_000_000
"""Of the output's video time base."""

_MAX_LAST_FRAME_S = Fraction(10)
"""Longest plausible duration of the last frame: a truncated file states an end that its frames never reach."""


@dataclasses.dataclass(frozen=True, slots=True)
class OutputClock:
    """How source times become output timestamps. Output time 0 is `origin` in source time: as in players, where audio or video begins.

    `first_frame` and `end`: presentation time of the first decodable frame, and end of the video, in seconds of the output.
    """

    time_base: Fraction = _FALLBACK_TIME_BASE
    origin: Fraction = Fraction(0)
    first_frame: Fraction = Fraction(0)
    end: Fraction | None = None
    frame_rate: Fraction = _FALLBACK_RATE

    @property
    def duration_s(self) -> float:
        """Of the video, by the source; 0 where unknown."""
        return float(self.end - self.first_frame) if self.end is not None else 0.0

    @property
    def starts_s(self) -> float:
        """Presentation time of the first frame."""
        return float(self.first_frame)

    def pts(self, time_s: float) -> int:
        """The timestamp, in ticks, of a frame `time_s` after the first one."""
        return round(self.first_frame / self.time_base) + round(time_s / self.time_base)

    def last_duration(self, pts: int, *, step: int) -> int:
        """Ticks from the last frame to the source's end; the previous `step` where the source states no plausible end."""
        rest = self.end - pts * self.time_base if self.end is not None else Fraction(0)
        if 0 < rest <= _MAX_LAST_FRAME_S:
            return max(1, round(rest / self.time_base))
        return min(step, int(_MAX_LAST_FRAME_S / self.time_base)) or max(1, round(1 / self.frame_rate / self.time_base))


def read_output_clock(source: Path) -> OutputClock:
    """The clock for a copy of `source`; a default, with a warning, where the container cannot be read. Raises MediaError where the file
    cannot be opened."""
    times = read_animation_times(source)
    if times is not None:
        return OutputClock(end=times.duration_s, frame_rate=len(times.durations) / times.duration_s)
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(MediaFile(source))
        except OSError as error:
            raise unreadable(source, error) from error
        return _read_container_clock(source, file)


def _read_container_clock(source: Path, file: BinaryIO) -> OutputClock:
    why = "no video stream"
    try:
        with av.open(file, "r", options=LOCAL_FILES_ONLY, metadata_errors="replace") as container:
            video = choose_track(container.streams.video)
            if video is not None:
                return _compute_clock(container, video)
    except av.FFmpegError as error:
        why = cause(error)
    _LOG.warning("%s: its timestamps cannot be read (%s); the copy starts at 0", source, why)
    return OutputClock()


def _compute_clock(container: InputContainer, video: VideoStream) -> OutputClock:
    base = video.time_base or _FALLBACK_TIME_BASE
    first = _first_frame_time(container, video)
    starts = [_start(stream) for stream in (video, choose_track(container.streams.audio)) if stream is not None]
    origin = min([first, *(start for start in starts if start is not None)])
    end = (_start(video) or 0) + video.duration * base - origin if video.duration else None
    return OutputClock(_fine_time_base(base), origin, first - origin, end, video.average_rate or _FALLBACK_RATE)


def _first_frame_time(container: InputContainer, video: VideoStream) -> Fraction:
    """Of the first frame that can be decoded; packets before it show nothing."""
    for packet in container.demux(video):
        with contextlib.suppress(av.FFmpegError):
            for frame in packet.decode():
                if frame.pts is not None and frame.time_base is not None:
                    return frame.pts * frame.time_base
                return _start(video) or Fraction(0)
    return _start(video) or Fraction(0)


def _start(stream: Stream) -> Fraction | None:
    return None if stream.start_time is None or stream.time_base is None else stream.start_time * stream.time_base


def _fine_time_base(base: Fraction) -> Fraction:
    """A time base that divides `base` with ticks of at most 0.1 ms, so that frames and audio of any other time base fit in."""
    if base.denominator > _MAX_TICKS_PER_S:
        return _FALLBACK_TIME_BASE
    return Fraction(1, base.denominator * math.ceil(_MIN_TICKS_PER_S / base.denominator))
