"""Writes annotated pictures and videos: JPEG, and MP4 with the source's times and sound, as browsers play it."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
from av.container import OutputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from batchemo.atomic import publish, replacing, temporary_name
from batchemo.errors import MediaError, cause
from batchemo.render.audio import AudioWriter, open_audio
from batchemo.render.encoders import APPLE_HEVC_TAG, Encoder, encoder_of
from batchemo.render.timestamps import OutputClock, read_output_clock
from batchemo.yuv import SRGB, Colours, Planes

_LOG = logging.getLogger("batchemo")

_MP4 = {"movflags": "+faststart", "movie_timescale": "90000"}
"""The index first, so that browsers start at once; and starts of streams to 11 us, which by default are rounded to 1 ms."""

_STRETCH = "nut"
"""Container of a part of a video: it keeps any clock exactly."""

_RANGE_LIMITED = 1


class VideoWriter:
    """Writes an MP4 of frames drawn from `source`, which lends it the times and the sound track that players choose.

    A context manager: `path` appears, complete, when the block ends without an exception, and not at all when it raises or
    writes no frame. Frames come by `write`, upright and `width` x `height`, which are even since colours of videos come in pairs; the video
    says that their `colours` are meant. Times are exact in the ticks of the source's container. Sound
    keeps its place relative to the pictures: AAC, MP3 and Opus are copied, anything else becomes AAC; where it is broken the video
    goes on without the rest of it, with a warning. A video that is not `whole` is a stretch without sound, for `join_videos`. The
    `encoder` is H.264's where none is given. `threads` are its own: one, because each of batchemo's processes owns one core.

    Raises MediaError where the encoder refuses, OSError where the disk does.
    """

    def __init__(
        self,
        path: Path,
        *,
        source: Path,
        width: int,
        height: int,
        colours: Colours = SRGB,
        encoder: Encoder | None = None,
        threads: int = 1,
        whole: bool = True,
    ) -> None:
        self._path = path
        self._temporary = temporary_name(path)
        self._source = source
        self._sides = (width, height)
        self._size = f"{width} x {height} pixels"
        self._colours = colours
        self._encoder = encoder or encoder_of("h264", quality="medium", hardware=False)
        self._threads = threads
        self._whole = whole
        self._clock = OutputClock()
        self._files = contextlib.ExitStack()
        self._sound: AudioWriter | None = None
        self._waiting: tuple[int, VideoFrame] | None = None
        self._durations: dict[int, int] = {}
        self._last_step = 0

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._clock = read_output_clock(self._source)
            with _explained(self._path, self._size, self._encoder.name):
                self._container, self._video = self._new_container()
                heard = open_audio(self._source, self._files) if self._whole else None
                if heard is not None:
                    self._sound = AudioWriter(heard, self._container, zero=self._clock.zero)
                self._container.start_encoding()
        except BaseException:
            self._discard()
            raise
        return self

    def write(self, planes: Planes, time_s: float) -> None:
        """Adds a frame, shown from `time_s` seconds after the first frame of the source.

        Raises ValueError where the size is another than the writer's or the time does not come after the last one.
        """
        if planes.size != self._sides:
            raise ValueError(f"{self._path}: a frame of {planes.size} in a video of {self._sides}")
        stamp = self._clock.stamp(time_s)
        if self._waiting is not None and stamp <= self._waiting[0]:
            raise ValueError(f"{self._path}: a frame at {time_s} s does not come after the one before it")
        with _explained(self._path, self._size, self._encoder.name):
            if self._waiting is not None:
                self._last_step = stamp - self._waiting[0]
                self._encode_waiting(self._last_step)
            self._waiting = (stamp, self._framed(planes))
            self._mux_sound(until=stamp * self._clock.tick)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None and self._waiting is not None:
                with _explained(self._path, self._size, self._encoder.name):
                    self._finish(self._waiting[0])
                publish(self._temporary, self._path)
        finally:
            self._discard()

    def _new_container(self) -> tuple[OutputContainer, VideoStream]:
        # The absolute name, because FFmpeg takes "a:b" for an address.
        kind, options = ("mp4", _MP4) if self._whole else (_STRETCH, {})
        container = av.open(str(self._temporary.absolute()), "w", format=kind, container_options=options)
        self._files.callback(_close_quietly, container)
        stream = container.add_stream(self._encoder.name, rate=self._clock.rate, options=dict(self._encoder.options))
        if not isinstance(stream, VideoStream):
            raise ValueError(f"{self._encoder.name} encodes no videos")
        video = stream
        video.width, video.height = self._sides
        video.pix_fmt = self._encoder.pixel_format
        video.time_base = self._clock.tick
        context = video.codec_context
        if self._whole and self._encoder.tag:
            context.codec_tag = self._encoder.tag
        context.time_base = self._clock.tick
        context.thread_count = self._threads
        context.color_range = _RANGE_LIMITED
        context.colorspace, context.color_primaries, context.color_trc = self._colours
        return container, video

    def _framed(self, planes: Planes) -> VideoFrame:
        # Not `from_numpy_buffer`, which is wrong about where colours lie unless the height is a multiple of four (PyAV 18.1).
        frame = VideoFrame.from_ndarray(planes.converted_to(self._colours).packed(), format="yuv420p")
        frame.time_base, frame.color_range = self._clock.tick, _RANGE_LIMITED
        frame.colorspace, frame.color_primaries, frame.color_trc = self._colours
        return frame

    def _encode_waiting(self, duration: int) -> None:
        if self._waiting is None:
            return
        stamp, frame = self._waiting
        frame.pts = stamp
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
    clock = read_output_clock(source)
    with replacing(path) as temporary, contextlib.ExitStack() as files, _explained(path, "its stretches", "MP4"):
        inputs = [files.enter_context(av.open(str(stretch.absolute()))) for stretch in stretches[:1]]
        output = av.open(str(temporary.absolute()), "w", format="mp4", container_options=_MP4)
        files.callback(_close_quietly, output)
        drawn = inputs[0].streams.video[0]
        # PyAV looks for an encoder of the decoder's name, and dav1d has none.
        video = output.add_stream_from_template(drawn, opaque=drawn.codec_context.name == "libdav1d")
        if drawn.codec_context.name == "hevc":
            video.codec_context.codec_tag = APPLE_HEVC_TAG
        video.time_base = clock.tick
        heard = open_audio(source, files)
        sound = AudioWriter(heard, output, zero=clock.zero) if heard is not None else None
        output.start_encoding()
        for packet in _packets(stretches, clock):
            if sound is not None and packet.dts is not None:
                sound = _with_sound(output, sound, source, until=packet.dts * packet.time_base)
            packet.stream = video
            output.mux(packet)
        if sound is not None:
            _with_sound(output, sound, source, until=None)
        output.close()


def _packets(stretches: Sequence[Path], clock: OutputClock) -> Iterator[Packet[VideoStream]]:
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


def _with_sound(output: OutputContainer, sound: AudioWriter, source: Path, *, until: Fraction | None) -> AudioWriter | None:
    """Muxes sound up to `until` seconds, so that neither stream has to wait in memory for the other; None where it is broken."""
    try:
        for packet in sound.packets(until=until):
            output.mux(packet)
    except (av.FFmpegError, ValueError) as error:
        if isinstance(error, OSError):
            raise
        _LOG.warning("%s: its sound is broken (%s); the annotated video goes on without it", source, cause(error))
        return None
    return sound


@contextlib.contextmanager
def _explained(path: Path, what: str, encoder: str) -> Iterator[None]:
    try:
        yield
    except av.FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise MediaError(
            "not_encodable",
            f"{path}: {what} cannot be encoded by {encoder} ({cause(error)}); do without with --no-annotate, or choose another --codec",
        ) from error


def _close_quietly(container: OutputContainer) -> None:
    with contextlib.suppress(av.FFmpegError):
        container.close()
