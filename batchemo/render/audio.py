"""The sound of an annotated video: the track that players choose, on the output's clock."""

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
"""Keeps FFmpeg from opening anything but files, whatever a container refers to."""

_COPIED_SOUND = frozenset({"aac", "mp3", "opus"})
"""Codecs that browsers play inside MP4 and that are therefore copied; any other sound becomes AAC."""

_AAC_RATES = frozenset({8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000})


def open_audio(source: Path, files: contextlib.ExitStack) -> AudioStream | None:
    """The sound track, if there is one; `source` stays open until `files` are closed."""
    try:
        file = files.enter_context(MediaFile(source))
        container = files.enter_context(av.open(file, "r", options=LOCAL_FILES_ONLY, metadata_errors="replace"))
    except (av.FFmpegError, OSError):  # whoever reads its pictures says so
        return None
    return choose_track(container.streams.audio)


def _copyable(heard: AudioStream) -> bool:
    """Whether MP4 takes the stream as it is: some, such as MP3 below 16 kHz, it refuses only when it writes its header."""
    if heard.codec_context.codec.canonical_name not in _COPIED_SOUND:
        return False
    try:
        with av.open(io.BytesIO(), "w", format="mp4") as trial:
            trial.add_stream_from_template(heard)
            trial.start_encoding()
    except (av.FFmpegError, ValueError):
        return False
    return True


class AudioWriter:
    """An audio stream on its way into `output`, on the output's clock."""

    def __init__(self, heard: AudioStream, output: OutputContainer, *, zero: Fraction) -> None:
        self._heard = heard
        self._copied = _copyable(heard)
        if self._copied:
            self._target = output.add_stream_from_template(heard)
        else:
            rate = heard.codec_context.sample_rate
            self._target = output.add_stream("aac", rate=rate if rate in _AAC_RATES else 48_000)
            self._target.codec_context.layout = "mono" if heard.codec_context.channels == 1 else "stereo"
        self._coming = self._shifted(zero)
        self._next: Packet[AudioStream] | None = None

    def packets(self, *, until: Fraction | None) -> Iterator[Packet[AudioStream]]:
        """What comes up to `until` seconds and has not come before; all the rest where that is None."""
        while (packet := next(self._coming, None) if self._next is None else self._next) is not None:
            self._next = packet
            if until is not None and packet.dts is not None and packet.dts * packet.time_base > until:
                return
            self._next = None
            yield packet

    def _shifted(self, zero: Fraction) -> Iterator[Packet[AudioStream]]:
        latest: int | None = None
        for packet in self._packets_of_source() if self._copied else self._encoded():
            if packet.dts is None:  # the mark that a demuxer puts at the end
                continue
            shift = round(zero / packet.time_base)
            packet.pts = (packet.dts if packet.pts is None else packet.pts) - shift
            packet.dts -= shift
            if latest is not None and packet.dts <= latest:
                continue
            latest = packet.dts
            packet.stream = self._target
            yield packet

    def _packets_of_source(self) -> Iterator[Packet[AudioStream]]:
        container = self._heard.container
        if isinstance(container, InputContainer):
            yield from container.demux(self._heard)

    def _encoded(self) -> Iterator[Packet[AudioStream]]:
        for packet in self._packets_of_source():
            for frame in packet.decode():
                yield from self._target.encode(frame)
        yield from self._target.encode(None)
