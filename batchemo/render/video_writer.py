"""Encodes annotated videos: MP4 that browsers play, with the source's timestamps and audio."""

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
from batchemo.render.audio import AudioPackets, open_audio
from batchemo.render.encoders import APPLE_HEVC_TAG, Encoder, encoder_of
from batchemo.render.timestamps import OutputClock, read_output_clock
from batchemo.yuv import SRGB, Colours, Planes

_LOG = logging.getLogger("batchemo")

_MP4 = {"movflags": "+faststart", "movie_timescale": "90000"}
"""The index first, for playback while loading; and start times of streams exact to 11 us, instead of the default 1 ms."""

_SEGMENT_FORMAT = "nut"
"""Container of a segment; NUT keeps any time base exactly."""

_RANGE_LIMITED = 1


class VideoWriter:
    """Writes drawn frames as an MP4 at `path`, with the times and the audio track of `source`.

    A context manager: `path` appears, complete, when the block ends without an exception, and not at all when it raises or writes no frame.

    - Frames are upright, `width` x `height` px, both even because of chroma subsampling. `colours` are written into the video's headers.
    - Times are exact in the time base of the source. Audio stays in sync: AAC, MP3 and Opus are copied, anything else becomes AAC. Broken
      audio ends early, with a warning.
    - A video that is not `whole` is a segment without audio, for `join_videos`.
    - `encoder` defaults to H.264. `threads` are the encoder's: one, because each process of batchemo uses one core.

    Raises MediaError where the encoder fails, OSError where the disk does.
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
        self._size = (width, height)
        self._size_text = f"{width} x {height} pixels"
        self._colours = colours
        self._encoder = encoder or encoder_of("h264", quality="medium", hardware=False)
        self._threads = threads
        self._whole = whole
        self._clock = OutputClock()
        self._files = contextlib.ExitStack()
        self._audio: AudioPackets | None = None
        self._pending: tuple[int, VideoFrame] | None = None
        self._durations: dict[int, int] = {}
        self._last_step = 0

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._clock = read_output_clock(self._source)
            with _encoding_errors(self._path, self._size_text, self._encoder.name):
                self._container, self._video = self._new_container()
                audio_stream = open_audio(self._source, self._files) if self._whole else None
                if audio_stream is not None:
                    self._audio = AudioPackets(audio_stream, self._container, origin=self._clock.origin)
                self._container.start_encoding()
        except BaseException:
            self._discard()
            raise
        return self

    def write(self, planes: Planes, time_s: float) -> None:
        """Adds a frame, presented `time_s` seconds after the first frame of the source.

        Raises ValueError where the size differs from the writer's, or the time does not increase.
        """
        if planes.size != self._size:
            raise ValueError(f"{self._path}: a frame of {planes.size} in a video of {self._size}")
        pts = self._clock.pts(time_s)
        if self._pending is not None and pts <= self._pending[0]:
            raise ValueError(f"{self._path}: the time {time_s} s does not come after the previous frame")
        with _encoding_errors(self._path, self._size_text, self._encoder.name):
            if self._pending is not None:
                self._last_step = pts - self._pending[0]
                self._encode_pending(self._last_step)
            self._pending = (pts, self._to_frame(planes))
            self._mux_audio(until=pts * self._clock.time_base)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None and self._pending is not None:
                with _encoding_errors(self._path, self._size_text, self._encoder.name):
                    self._finish(self._pending[0])
                publish(self._temporary, self._path)
        finally:
            self._discard()

    def _new_container(self) -> tuple[OutputContainer, VideoStream]:
        # The absolute path, because FFmpeg takes "a:b" for a URL.
        kind, options = ("mp4", _MP4) if self._whole else (_SEGMENT_FORMAT, {})
        container = av.open(str(self._temporary.absolute()), "w", format=kind, container_options=options)
        self._files.callback(_close_quietly, container)
        stream = container.add_stream(self._encoder.name, rate=self._clock.frame_rate, options=dict(self._encoder.options))
        if not isinstance(stream, VideoStream):
            raise ValueError(f"{self._encoder.name} encodes no videos")
        video = stream
        video.width, video.height = self._size
        video.pix_fmt = self._encoder.pixel_format
        video.time_base = self._clock.time_base
        context = video.codec_context
        if self._whole and self._encoder.tag:
            context.codec_tag = self._encoder.tag
        context.time_base = self._clock.time_base
        context.thread_count = self._threads
        context.color_range = _RANGE_LIMITED
        context.colorspace, context.color_primaries, context.color_trc = self._colours
        return container, video

    def _to_frame(self, planes: Planes) -> VideoFrame:
        # Not `from_numpy_buffer`: it misplaces the chroma planes unless the height is a multiple of four (PyAV 18.1).
        frame = VideoFrame.from_ndarray(planes.converted_to(self._colours).as_i420(), format="yuv420p")
        frame.time_base, frame.color_range = self._clock.time_base, _RANGE_LIMITED
        frame.colorspace, frame.color_primaries, frame.color_trc = self._colours
        return frame

    def _encode_pending(self, duration: int) -> None:
        if self._pending is None:
            return
        pts, frame = self._pending
        frame.pts = pts
        self._durations[pts] = duration
        self._mux_video(self._video.encode(frame))

    def _mux_video(self, packets: list[Packet[VideoStream]]) -> None:
        for packet in packets:
            if packet.pts is not None:
                packet.duration = self._durations.pop(packet.pts, self._last_step)
            self._container.mux(packet)

    def _finish(self, last_pts: int) -> None:
        self._encode_pending(self._clock.last_duration(last_pts, step=self._last_step))
        self._mux_video(self._video.encode(None))
        self._mux_audio(until=None)
        self._container.close()

    def _mux_audio(self, *, until: Fraction | None) -> None:
        if self._audio is not None:
            self._audio = _mux_audio_until(self._container, self._audio, self._source, until=until)

    def _discard(self) -> None:
        self._files.close()
        self._temporary.unlink(missing_ok=True)


def join_videos(segments: Sequence[Path], path: Path, *, source: Path) -> None:
    """Joins `segments` of one video, in order, and the audio of `source` to an MP4 at `path`, which appears complete or not at all.

    Raises MediaError where MP4 cannot hold them, OSError where the disk fails.
    """
    clock = read_output_clock(source)
    with replacing(path) as temporary, contextlib.ExitStack() as files, _encoding_errors(path, "its segments", "MP4"):
        inputs = [files.enter_context(av.open(str(segment.absolute()))) for segment in segments[:1]]
        output = av.open(str(temporary.absolute()), "w", format="mp4", container_options=_MP4)
        files.callback(_close_quietly, output)
        drawn = inputs[0].streams.video[0]
        # PyAV looks for an encoder of the decoder's name, and dav1d has none.
        video = output.add_stream_from_template(drawn, opaque=drawn.codec_context.name == "libdav1d")
        if drawn.codec_context.name == "hevc":
            video.codec_context.codec_tag = APPLE_HEVC_TAG
        video.time_base = clock.time_base
        audio_stream = open_audio(source, files)
        audio = AudioPackets(audio_stream, output, origin=clock.origin) if audio_stream is not None else None
        output.start_encoding()
        for packet in _segment_packets(segments, clock):
            if audio is not None and packet.dts is not None:
                audio = _mux_audio_until(output, audio, source, until=packet.dts * packet.time_base)
            packet.stream = video
            output.mux(packet)
        if audio is not None:
            _mux_audio_until(output, audio, source, until=None)
        output.close()


def _segment_packets(segments: Sequence[Path], clock: OutputClock) -> Iterator[Packet[VideoStream]]:
    """All packets, each with the duration of its frame; one segment is in memory at a time."""
    pending: list[Packet[VideoStream]] = []
    for segment in segments:
        with av.open(str(segment.absolute())) as container:
            packets = [packet for packet in container.demux(container.streams.video[0]) if packet.pts is not None]
        if pending and packets:
            yield from _with_durations(pending, end=min(packet.pts or 0 for packet in packets))
        pending = packets or pending
    if pending:
        shown = sorted(packet.pts or 0 for packet in pending)
        step = shown[-1] - shown[-2] if len(shown) > 1 else 0
        yield from _with_durations(pending, end=shown[-1] + clock.last_duration(shown[-1], step=step))


def _with_durations(packets: Sequence[Packet[VideoStream]], *, end: int) -> Iterator[Packet[VideoStream]]:
    shown = sorted(packet.pts or 0 for packet in packets)
    durations = {start: stop - start for start, stop in itertools.pairwise([*shown, end])}
    for packet in packets:
        packet.duration = durations[packet.pts or 0]
        yield packet


def _mux_audio_until(output: OutputContainer, audio: AudioPackets, source: Path, *, until: Fraction | None) -> AudioPackets | None:
    """Muxes audio up to `until` seconds, so that neither stream is buffered for long; None where the audio is broken."""
    try:
        for packet in audio.packets(until=until):
            output.mux(packet)
    except (av.FFmpegError, ValueError) as error:
        if isinstance(error, OSError):
            raise
        _LOG.warning("%s: its audio is broken (%s); the annotated video continues without it", source, cause(error))
        return None
    return audio


@contextlib.contextmanager
def _encoding_errors(path: Path, what: str, encoder: str) -> Iterator[None]:
    """Raises MediaError in place of FFmpeg's errors, except those of the disk."""
    try:
        yield
    except av.FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise MediaError(
            "not_encodable",
            f"{path}: {what} cannot be encoded by {encoder} ({cause(error)}); omit the copy with --no-annotate, or choose another --codec",
        ) from error


def _close_quietly(container: OutputContainer) -> None:
    with contextlib.suppress(av.FFmpegError):
        container.close()
