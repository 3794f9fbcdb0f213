"""Videos by PyAV (FFmpeg's libraries): reads nearly everything, in constant memory."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from batchemo.decoders.container import check_size, open_video
from batchemo.decoders.sampling import Sampler
from batchemo.decoders.source import Found
from batchemo.errors import MediaError, typed
from batchemo.records import Frame

_RIGHT_ANGLE = 90
_FALLBACK_STEP_S = 1 / 25
"""Time to the next frame where neither the container nor the stream knows."""


class PyAVSource:
    """Frames of a video in presentation order; see `batchemo.decoders.source.FrameSource`."""

    decoder = "pyav"

    def __init__(self, path: Path) -> None:
        self._path = path
        self.found = Found()

    def frames(self, *, sample_fps: float | None = None, start_index: int = 0) -> Iterator[Frame]:
        with open_video(self._path) as (container, stream):
            stream.thread_type = "AUTO"
            yield from self._decode(container, stream, Sampler(sample_fps), start_index)

    def _decode(self, container: InputContainer, stream: VideoStream, sampler: Sampler, start_index: int) -> Iterator[Frame]:
        time_base = stream.time_base or Fraction(1, 1_000_000)
        self.found.length_s = container.duration / av.time_base if container.duration else 0.0
        awaited: list[int] = []  # presentation times of packets whose frame has not come yet, sorted
        first: int | None = None
        end = 0.0
        size: tuple[int, int] | None = None
        decoded = 0
        for packet in self._packets(container, stream):
            if packet.size and packet.pts is not None and not packet.is_discard:
                bisect.insort(awaited, packet.pts)
            for frame in self._frames_of(packet):
                stamp = frame.pts if frame.pts is not None else round((first or 0) + end / time_base)
                first = stamp if first is None else first
                lost = bisect.bisect_left(awaited, stamp)
                for missing in awaited[:lost]:
                    # Before the first decoded frame nothing could be shown, so the medium's time starts there.
                    if missing >= first:
                        yield self._undecodable(float((missing - first) * time_base))
                    else:
                        self.found.undecodable += 1
                del awaited[: lost + (lost < len(awaited) and awaited[lost] == stamp)]
                time_s = float((stamp - first) * time_base)
                end = time_s + self._step_s(frame, stream)
                if size is None:
                    size = (frame.width, frame.height)
                    check_size(self._path, *size)
                if sampler.wants(time_s) and decoded >= start_index:
                    pixels = _upright(frame, size)
                    self.found.height, self.found.width = pixels.shape[:2]
                    yield Frame(decoded, time_s, pixels)
                decoded += 1
                self.found.decoded = decoded
                self.found.duration_s = end
        if first is None:
            raise MediaError("no_frames", f"{self._path}: not one frame can be decoded; look at it with: ffprobe {typed(self._path)}")
        for missing in awaited:
            yield self._undecodable(float((missing - first) * time_base))
        announced = stream.frames
        self.found.missing = max(0, announced - self.found.decoded - self.found.undecodable - self._discarded)

    def _packets(self, container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
        self._discarded = 0
        demuxer = container.demux(stream)
        while True:
            try:
                packet = next(demuxer)
            except (StopIteration, av.error.EOFError):
                return
            except av.error.FFmpegError as error:
                self.found.trouble = error.strerror or str(error)
                return
            self._discarded += bool(packet.size and packet.is_discard)
            yield packet

    def _frames_of(self, packet: Packet[VideoStream]) -> list[VideoFrame]:
        try:
            return [frame for frame in packet.decode() if isinstance(frame, VideoFrame)]
        except av.error.EOFError:
            return []
        except av.error.FFmpegError as error:
            self.found.trouble = error.strerror or str(error)
            return []

    def _undecodable(self, time_s: float) -> Frame:
        self.found.undecodable += 1
        return Frame(-1, time_s, None)

    @staticmethod
    def _step_s(frame: VideoFrame, stream: VideoStream) -> float:
        if frame.duration and frame.time_base:
            return float(frame.duration * frame.time_base)
        return float(1 / stream.average_rate) if stream.average_rate else _FALLBACK_STEP_S


def _upright(frame: VideoFrame, size: tuple[int, int]) -> NDArray[np.uint8]:
    """RGB of a frame, brought to the medium's first size (streams may change theirs) and turned as the container says."""
    pixels = np.asarray(frame.to_ndarray(format="rgb24", width=size[0], height=size[1]), np.uint8)
    quarter_turns = round(frame.rotation / _RIGHT_ANGLE)
    return np.ascontiguousarray(np.rot90(pixels, quarter_turns)) if quarter_turns else pixels
