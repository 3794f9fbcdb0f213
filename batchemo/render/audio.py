"""The audio packets of an annotated video: the track that players choose, copied or transcoded, with the output's timestamps."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet

from batchemo.media.container import MediaFile
from batchemo.media.presentation import choose_track

LOCAL_FILES_ONLY = {"protocol_whitelist": "file"}
"""Keeps FFmpeg from opening URLs that a container refers to."""

_COPIED_CODECS = frozenset({"aac", "mp3", "opus"})
"""Codecs that browsers play in MP4, and that are therefore copied; anything else is transcoded to AAC."""

_AAC_RATES = frozenset({8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000})


def open_audio(source: Path, files: contextlib.ExitStack) -> AudioStream | None:
    """The audio track that players choose, if there is one; `source` stays open until `files` is closed."""
    try:
        file = files.enter_context(MediaFile(source))
        container = files.enter_context(av.open(file, "r", options=LOCAL_FILES_ONLY, metadata_errors="replace"))
    except (av.FFmpegError, OSError):  # the decoder of its video reports that
        return None
    return choose_track(container.streams.audio)


def _can_copy(stream: AudioStream) -> bool:
    """Whether MP4 accepts the stream unchanged: it refuses some, such as MP3 below 16 kHz, only when it writes its header."""
    if stream.codec_context.codec.canonical_name not in _COPIED_CODECS:
        return False
    try:
        with av.open(io.BytesIO(), "w", format="mp4") as trial:
            trial.add_stream_from_template(stream)
            trial.start_encoding()
    except (av.FFmpegError, ValueError):
        return False
    return True


class AudioPackets:
    """The packets of an audio stream for `output`, copied or transcoded. `origin` is the source time that becomes 0."""

    def __init__(self, stream: AudioStream, output: OutputContainer, *, origin: Fraction) -> None:
        self._source = stream
        self._copied = _can_copy(stream)
        if self._copied:
            self._target = output.add_stream_from_template(stream)
        else:
            rate = stream.codec_context.sample_rate
            self._target = output.add_stream("aac", rate=rate if rate in _AAC_RATES else 48_000)
            self._target.codec_context.layout = "mono" if stream.codec_context.channels == 1 else "stereo"
        self._shifted_packets = self._shift(origin)
        self._next: Packet[AudioStream] | None = None

    def packets(self, *, until: Fraction | None) -> Iterator[Packet[AudioStream]]:
        """Packets up to `until` seconds that were not returned before; all remaining ones where it is None."""
        while (packet := next(self._shifted_packets, None) if self._next is None else self._next) is not None:
            self._next = packet
            if until is not None and packet.dts is not None and packet.dts * packet.time_base > until:
                return
            self._next = None
            yield packet

    def _shift(self, origin: Fraction) -> Iterator[Packet[AudioStream]]:
        latest: int | None = None
        for packet in self._demux() if self._copied else self._encode():
            if packet.dts is None:  # the flush packet at the end
                continue
            shift = round(origin / packet.time_base)
            packet.pts = (packet.dts if packet.pts is None else packet.pts) - shift
            packet.dts -= shift
            if latest is not None and packet.dts <= latest:
                continue
            latest = packet.dts
            packet.stream = self._target
            yield packet

    def _demux(self) -> Iterator[Packet[AudioStream]]:
        container = self._source.container
        if isinstance(container, InputContainer):
            yield from container.demux(self._source)

    def _encode(self) -> Iterator[Packet[AudioStream]]:
        for packet in self._demux():
            for frame in packet.decode():
                yield from self._target.encode(frame)
        yield from self._target.encode(None)
