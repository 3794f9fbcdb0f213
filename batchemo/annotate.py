"""Writes annotated pictures and videos: JPEG, and H.264 with the source's times and sound, as any browser plays it."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import av
import cv2
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream
from numpy.typing import NDArray

from batchemo.atomic import publish, replacing, temporary_name
from batchemo.errors import MediaError, unreadable
from batchemo.mediafile import MediaFile
from batchemo.sound import LOCAL_ONLY, Sound, open_sound

_LOG = logging.getLogger("batchemo")

_JPEG_QUALITY = 92
_MP4 = {"movflags": "+faststart", "movie_timescale": "90000"}
"""The index first, so that browsers start at once; and starts of streams to 11 us, which by default are rounded to 1 ms."""

_STRETCH = "nut"
"""Container of a part of a video: it keeps any clock exactly."""

_FALLBACK_RATE, _FALLBACK_TICK = Fraction(25), Fraction(1, 90_000)
_FEWEST_TICKS, _MOST_TICKS = 10_000, 1_000_000
"""A second, of the output's video."""

_LONGEST_LAST_FRAME = Fraction(10)
"""Seconds. A cut-off file announces an end that its pictures never reach."""

# ITU-T H.273: what cv2's COLOR_RGB2YUV_I420 makes of sRGB pixels.
_MATRIX_SMPTE170M = 6
_PRIMARIES_BT709 = 1
_TRANSFER_SRGB = 13
_RANGE_LIMITED = 1


def write_picture(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Writes `pixels` (RGB uint8 H x W x 3) as JPEG to `path`, which appears complete or not at all.

    Raises MediaError where JPEG cannot hold the picture (more than 65,500 pixels a side), OSError where the disk refuses.
    """
    try:
        good, content = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    except cv2.error:
        good = False
    if not good:
        height, width = pixels.shape[:2]
        raise MediaError("too_large", f"{path}: JPEG cannot hold {width} x {height} pixels; leave the pictures out with --no-annotate")
    with replacing(path) as temporary:
        temporary.write_bytes(content.tobytes())


class VideoWriter:
    """Writes an H.264 MP4 of frames drawn from `source`, which lends it the times and the first audio stream.

    A context manager: `path` appears, complete, when the block ends without an exception, and not at all when it raises or
    writes no frame. Frames come by `write`, upright and `width` x `height`; odd sides gain one pixel, the last one repeated at
    the right or bottom, since H.264's colours come in pairs. Times are exact in the ticks of the source's container. Sound
    keeps its place relative to the pictures: AAC, MP3 and Opus are copied, anything else becomes AAC; where it is broken the video
    goes on without the rest of it, with a warning. A video that is not `whole` is a stretch without sound, for `join_videos`. `crf` and
    `preset` are x264's. `threads` are the encoder's: one, because each of batchemo's processes owns one core.

    Raises MediaError where x264 refuses, OSError where the disk does.
    """

    def __init__(
        self,
        path: Path,
        *,
        source: Path,
        width: int,
        height: int,
        crf: int = 23,
        preset: str = "veryfast",
        threads: int = 1,
        whole: bool = True,
    ) -> None:
        self._path = path
        self._temporary = temporary_name(path)
        self._source = source
        self._shape = (height, width, 3)
        self._size = f"{width} x {height} pixels"
        # Without frames that are shown before what they are coded from, the decoding times of stretches follow each other.
        self._options = {"crf": str(crf), "preset": preset} | ({} if whole else {"bf": "0"})
        self._threads = threads
        self._whole = whole
        self._clock = _Clock()
        self._files = contextlib.ExitStack()
        self._sound: Sound | None = None
        self._waiting: tuple[int, NDArray[np.uint8]] | None = None
        self._durations: dict[int, int] = {}
        self._last_step = 0

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._clock = _read_clock(self._source)
            with _explained(self._path, self._size):
                self._container, self._video = self._new_container()
                heard = open_sound(self._source, self._files) if self._whole else None
                if heard is not None:
                    self._sound = Sound(heard, self._container, zero=self._clock.zero)
                self._container.start_encoding()
        except BaseException:
            self._discard()
            raise
        return self

    def write(self, pixels: NDArray[np.uint8], time_s: float) -> None:
        """Adds a frame, RGB uint8 H x W x 3, shown from `time_s` seconds after the first frame of the source.

        Raises ValueError where the shape is another than the writer's or the time does not come after the last one.
        """
        if pixels.shape != self._shape:
            raise ValueError(f"{self._path}: a frame of {pixels.shape} in a video of {self._shape}")
        stamp = self._clock.stamp(time_s)
        if self._waiting is not None and stamp <= self._waiting[0]:
            raise ValueError(f"{self._path}: a frame at {time_s} s does not come after the one before it")
        with _explained(self._path, self._size):
            if self._waiting is not None:
                self._last_step = stamp - self._waiting[0]
                self._encode_waiting(self._last_step)
            self._waiting = (stamp, _yuv(pixels))
            self._mux_sound(until=stamp * self._clock.tick)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None and self._waiting is not None:
                with _explained(self._path, self._size):
                    self._finish(self._waiting[0])
                publish(self._temporary, self._path)
        finally:
            self._discard()

    def _new_container(self) -> tuple[OutputContainer, VideoStream]:
        # The absolute name, because FFmpeg takes "a:b" for an address.
        kind, options = ("mp4", _MP4) if self._whole else (_STRETCH, {})
        container = av.open(str(self._temporary.absolute()), "w", format=kind, container_options=options)
        self._files.callback(_close_quietly, container)
        height, width = self._shape[:2]
        video = container.add_stream("libx264", rate=self._clock.rate, options=self._options)
        video.width, video.height = width + width % 2, height + height % 2
        video.pix_fmt = "yuv420p"
        video.time_base = self._clock.tick
        context = video.codec_context
        context.time_base = self._clock.tick
        context.thread_count = self._threads
        context.color_range, context.colorspace = _RANGE_LIMITED, _MATRIX_SMPTE170M
        context.color_primaries, context.color_trc = _PRIMARIES_BT709, _TRANSFER_SRGB
        return container, video

    def _encode_waiting(self, duration: int) -> None:
        if self._waiting is None:
            return
        stamp, yuv = self._waiting
        frame = av.VideoFrame.from_ndarray(yuv, format="yuv420p")
        frame.pts, frame.time_base = stamp, self._clock.tick
        frame.color_range, frame.colorspace = _RANGE_LIMITED, _MATRIX_SMPTE170M
        frame.color_primaries, frame.color_trc = _PRIMARIES_BT709, _TRANSFER_SRGB
        self._durations[stamp] = duration
        self._mux_video(self._video.encode(frame))

    def _mux_video(self, packets: list[Packet[VideoStream]]) -> None:
        for packet in packets:
            if packet.pts is not None:
                packet.duration = self._durations.pop(packet.pts, self._last_step)
            self._container.mux(packet)

    def _finish(self, last_stamp: int) -> None:
        self._encode_waiting(self._clock.last_duration(last_stamp, step=self._last_step))
        self._mux_video(self._video.encode(None))
        self._mux_sound(until=None)
        self._container.close()

    def _mux_sound(self, *, until: Fraction | None) -> None:
        if self._sound is not None:
            self._sound = _with_sound(self._container, self._sound, self._source, until=until)

    def _discard(self) -> None:
        self._files.close()
        self._temporary.unlink(missing_ok=True)


def join_videos(stretches: Sequence[Path], path: Path, *, source: Path) -> None:
    """Joins stretches of one video, in order, and the sound of `source` to an MP4 at `path`, which appears complete or not at all.

    Raises MediaError where MP4 cannot hold them, OSError where the disk refuses.
    """
    clock = _read_clock(source)
    with replacing(path) as temporary, contextlib.ExitStack() as files, _explained(path, "its stretches"):
        inputs = [files.enter_context(av.open(str(stretch.absolute()))) for stretch in stretches[:1]]
        output = av.open(str(temporary.absolute()), "w", format="mp4", container_options=_MP4)
        files.callback(_close_quietly, output)
        video = output.add_stream_from_template(inputs[0].streams.video[0])
        video.time_base = clock.tick
        heard = open_sound(source, files)
        sound = Sound(heard, output, zero=clock.zero) if heard is not None else None
        output.start_encoding()
        for packet in _packets(stretches, clock):
            if sound is not None and packet.dts is not None:
                sound = _with_sound(output, sound, source, until=packet.dts * packet.time_base)
            packet.stream = video
            output.mux(packet)
        if sound is not None:
            _with_sound(output, sound, source, until=None)
        output.close()


def _packets(stretches: Sequence[Path], clock: _Clock) -> Iterator[Packet[VideoStream]]:
    """All packets, each with how long its frame is shown; one stretch of them is in memory."""
    waiting: list[Packet[VideoStream]] = []
    for stretch in stretches:
        with av.open(str(stretch.absolute())) as container:
            packets = [packet for packet in container.demux(container.streams.video[0]) if packet.pts is not None]
        if waiting and packets:
            yield from _timed(waiting, end=min(packet.pts or 0 for packet in packets))
        waiting = packets or waiting
    if waiting:
        shown = sorted(packet.pts or 0 for packet in waiting)
        step = shown[-1] - shown[-2] if len(shown) > 1 else 0
        yield from _timed(waiting, end=shown[-1] + clock.last_duration(shown[-1], step=step))


def _timed(packets: Sequence[Packet[VideoStream]], *, end: int) -> Iterator[Packet[VideoStream]]:
    shown = sorted(packet.pts or 0 for packet in packets)
    durations = {start: stop - start for start, stop in itertools.pairwise([*shown, end])}
    for packet in packets:
        packet.duration = durations[packet.pts or 0]
        yield packet


def _with_sound(output: OutputContainer, sound: Sound, source: Path, *, until: Fraction | None) -> Sound | None:
    """Muxes sound up to `until` seconds, so that neither stream has to wait in memory for the other; None where it is broken."""
    try:
        for packet in sound.packets(until=until):
            output.mux(packet)
    except (av.FFmpegError, ValueError) as error:
        if isinstance(error, OSError):
            raise
        _LOG.warning("%s: its sound is broken (%s); the annotated video goes on without it", source, _cause(error))
        return None
    return sound


@contextlib.contextmanager
def _explained(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except av.FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise MediaError(
            "not_encodable", f"{path}: {what} cannot be encoded as H.264 ({_cause(error)}); do without with --no-annotate"
        ) from error


@dataclasses.dataclass(frozen=True, slots=True)
class _Clock:
    """How times become those of the output, whose 0 is `zero` on the source's clock: where its sound or its pictures begin.

    `first` and `end` are the first frame and the end of the pictures in seconds of the output.
    """

    tick: Fraction = _FALLBACK_TICK
    zero: Fraction = Fraction(0)
    first: Fraction = Fraction(0)
    end: Fraction | None = None
    rate: Fraction = _FALLBACK_RATE

    def stamp(self, time_s: float) -> int:
        return round(self.first / self.tick) + round(time_s / self.tick)

    def last_duration(self, stamp: int, *, step: int) -> int:
        """Ticks from the last frame to the source's end, or the last step where the source does not say."""
        rest = self.end - stamp * self.tick if self.end is not None else Fraction(0)
        if 0 < rest <= _LONGEST_LAST_FRAME:
            return max(1, round(rest / self.tick))
        return min(step, int(_LONGEST_LAST_FRAME / self.tick)) or max(1, round(1 / self.rate / self.tick))


def _read_clock(source: Path) -> _Clock:
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(MediaFile(source))
        except OSError as error:
            raise unreadable(source, error) from error
        return _clock_of(source, file)


def _clock_of(source: Path, file: BinaryIO) -> _Clock:
    try:
        with av.open(file, "r", options=LOCAL_ONLY, metadata_errors="replace") as container:
            video = next(stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic)
            base = video.time_base or _FALLBACK_TICK
            first = _first_frame_time(container, video)
            zero = min([first, *(_start(stream) for stream in container.streams.audio[:1] if stream.start_time is not None)])
            end = _start(video) + video.duration * base - zero if video.duration else None
            return _Clock(_fine(base), zero, first - zero, end, video.average_rate or _FALLBACK_RATE)
    except (av.FFmpegError, StopIteration) as error:
        _LOG.warning("%s: its clock cannot be read (%s); the annotated video counts from 0", source, _cause(error))
        return _Clock()


def _first_frame_time(container: InputContainer, video: VideoStream) -> Fraction:
    """Of the first frame that can be decoded: packets before it show nothing."""
    for packet in container.demux(video):
        with contextlib.suppress(av.FFmpegError):
            for frame in packet.decode():
                if frame.pts is not None and frame.time_base is not None:
                    return frame.pts * frame.time_base
    return _start(video)


def _start(stream: VideoStream | AudioStream) -> Fraction:
    return (stream.start_time or 0) * (stream.time_base or Fraction(0))


def _fine(base: Fraction) -> Fraction:
    """A tick that divides `base` and is at most .1 ms, so that frames and sound of any other base fit in too."""
    if base.denominator > _MOST_TICKS:
        return _FALLBACK_TICK
    return Fraction(1, base.denominator * math.ceil(_FEWEST_TICKS / base.denominator))


def _yuv(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge") if height % 2 or width % 2 else pixels
    return cv2.cvtColor(even, cv2.COLOR_RGB2YUV_I420).astype(np.uint8, copy=False)


def _cause(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _close_quietly(container: OutputContainer) -> None:
    with contextlib.suppress(av.FFmpegError):
        container.close()
