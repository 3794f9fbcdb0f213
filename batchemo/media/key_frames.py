"""Seeks to key frames, and checks whether decoding can start there."""

from __future__ import annotations

from collections.abc import Iterator

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream


def decode_key_frame(container: InputContainer, stream: VideoStream, pts: int, dts: int) -> VideoFrame | None:
    """The key frame with that PTS and DTS; None where it cannot be decoded alone, such as recovery points of intra refresh, which are
    flagged as key frames, too."""
    try:
        for packet in packets_from(container, stream, pts, dts):
            frames = [*packet.decode(), *stream.codec_context.decode(None)]
            whole = [frame for frame in frames if frame.key_frame and not frame.is_corrupt and frame.pts == pts]
            return whole[0] if len(frames) == len(whole) == 1 else None
    except (av.error.FFmpegError, OSError):
        pass
    return None


def packets_from(container: InputContainer, stream: VideoStream, pts: int, dts: int) -> Iterator[Packet[VideoStream]]:
    """Packets from the key frame with that PTS and DTS on; none where it is not found."""
    # The second attempt, from the start, is for files with a wrong index.
    for target in (dts, stream.start_time or 0):
        container.seek(target, stream=stream)
        packets = container.demux(stream)
        for packet in packets:
            if packet.dts == dts and packet.pts == pts:
                yield packet
                yield from packets
                return
            if packet.dts is not None and packet.dts > dts:
                break
