"""Videos by PyAV (FFmpeg's libraries): reads nearly everything, in constant memory."""

from __future__ import annotations

import bisect
import contextlib
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from batchemo.errors import MediaError, typed
from batchemo.media.container import (
    SEEKABLE_FORMATS,
    PacketCount,
    check_size,
    frame_duration_s,
    missing_frames,
    open_presenter,
    open_video,
    read_edit_list,
)
from batchemo.media.edits import EditedPackets
from batchemo.media.key_frames import packets_from
from batchemo.media.presentation import FramePresenter, is_shown
from batchemo.media.source import ReadReport, Sampler, decode_pictures_at
from batchemo.records import Frame, Segment

_FALLBACK_BASE = Fraction(1, 1_000_000)

_JUMP_SECONDS = 2.0
"""Frames nearer than this are reached by decoding on, which costs less than going back to the key frame before them."""
_BACK_SECONDS = (0, 2, 10, 60)
"""How far before a frame its key frame is looked for: transport streams have no index, and seeking in them lands too late."""

_LONGEST_STEP = 2**32
"""Ticks from one packet to the next. Transport streams count to 2**33, and FFmpeg takes a step back by more than a minute for the end of
that."""

_SHORTEST_GIF, _INSTEAD_GIF = 2, 10
"""Hundredths of a second: what is shown for less than the first, browsers show for the second; FFmpeg 8 only where it is nothing."""

_MOST_BEYOND = 100
"""Packets after the end of a segment that are decoded in the search of its last frames: more than any decoder reorders."""


class PyAVSource:
    """Frames of a video, or of one `segment` of it, in presentation order; see `batchemo.media.source.FrameSource`.

    Indices count from the segment's first frame, times from the medium's. A segment of which nothing can be decoded is not an error.
    """

    decoder = "pyav"

    def __init__(self, path: Path, segment: Segment | None = None) -> None:
        self._path = path
        self._segment = segment or Segment()
        self._edited: EditedPackets | None = None
        self.found = ReadReport()

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        self._edited = None
        with open_video(self._path) as (container, stream):
            edits = read_edit_list(self._path, container, stream)
            if not edits:
                yield container, stream
                return
        with open_video(self._path, edited=False) as (container, stream):
            self._edited = EditedPackets(container, stream, edits)
            yield container, stream

    def frames(self, *, sample_fps: float | None = None, start_index: int = 0) -> Iterator[Frame]:
        with self._opened() as (container, stream):
            # FFmpeg's frame threads lose frames at a damaged end, and a run has one process a core already.
            stream.codec_context.thread_count = 1
            screen = open_presenter(self._path, container, stream, self._segment.size)
            sampler = Sampler(sample_fps, before_s=self._segment.before_s)
            yield from self._decode(container, stream, screen, sampler, start_index)

    def count(self) -> PacketCount:
        """The frames that the packets announce, without decoding any. Raises MediaError where the file cannot be opened."""
        with self._opened() as (container, stream):
            stamps = array("q")
            untimed = 0
            for packet in self._packets(container, stream):
                if packet.size and self._shows(packet):
                    untimed += packet.pts is None
                    if packet.pts is not None:
                        stamps.append(packet.pts)
            base = stream.time_base or _FALLBACK_BASE
            times_s = np.sort(np.array(stamps, np.int64)) * base.numerator / base.denominator
            seen = len(stamps) + untimed + self._hidden
            return PacketCount(times_s, untimed, self._missing(container, stream, seen), self._moved)

    def pictures_at(self, times_s: Sequence[float]) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        """The frames shown at exactly `times_s`, which increase, each with its time and as RGB uint8 H x W x 3; those far apart are sought
        where the container's clock allows it, and as long as that leads there. Raises MediaError where the file cannot be opened."""
        waiting = deque(times_s)
        for time_s, pixels in self._sought(times_s) if waiting and self._is_timed() else ():
            while waiting.popleft() != time_s:
                pass
            yield time_s, pixels
        yield from decode_pictures_at(self, waiting)

    def _is_timed(self) -> bool:
        """Whether frames come at the times that the container gives their packets, so that they are found by them: all have one, and no
        times go back. Reads all packets where the container's format does not promise it."""
        with self._opened() as (container, stream):
            if container.format.name.startswith(SEEKABLE_FORMATS):
                return self._edited is None
            if _is_reordered(container, stream):
                return False
            timed = all(packet.pts is not None for packet in self._packets(container, stream) if packet.size)
            return timed and not self._moved

    def _sought(self, times_s: Sequence[float]) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        with open_video(self._path) as (container, stream), contextlib.suppress(StopIteration, av.error.FFmpegError):
            stream.codec_context.thread_count = 1
            screen = open_presenter(self._path, container, stream)
            decoded = _decoded_from(container, stream, screen)
            frame = next(decoded)
            first, base = frame.pts, stream.time_base
            if first is None or base is None:
                return
            screen.follow(frame)
            for time_s in times_s:
                wanted = first + round(time_s / base)
                if wanted - (frame.pts or 0) > _JUMP_SECONDS / base:
                    decoded, frame = _jump(container, stream, screen, wanted, base)
                while frame.pts is not None and frame.pts < wanted:
                    frame = next(decoded)
                if frame.pts == wanted:
                    picture = screen.show(frame)
                    yield time_s, picture if isinstance(picture, np.ndarray) else picture.rgb()

    def _decode(
        self, container: InputContainer, stream: VideoStream, screen: FramePresenter, sampler: Sampler, start_index: int
    ) -> Iterator[Frame]:
        time_base = stream.time_base or _FALLBACK_BASE
        self.found.length_s = self._edited.lasts_s if self._edited else (container.duration or 0) / av.time_base
        reordered = _is_reordered(container, stream)
        awaited: list[int] = []  # presentation times of packets whose frame has not come yet, sorted
        first = self._segment.zero
        last = None if self._segment.start is None else self._segment.start - 1
        for frame in self._decoded(container, stream, screen, awaited):
            stamp = awaited[0] if reordered and awaited else frame.pts
            timed = stamp is not None
            if stamp is None:
                stamp = (first or 0) + round(self.found.duration_s / time_base)
            first = stamp if first is None else first
            if self._segment.stop is not None and stamp >= self._segment.stop:
                break
            if last is not None and stamp <= last:
                # Of the segment before, or damage has upset the order, or two frames have one time: its packet becomes a row of its own.
                continue
            last = stamp
            lost = bisect.bisect_left(awaited, stamp)
            for missing in awaited[:lost]:
                # The medium's time starts with the first frame that can be shown; what is lost before has a negative one.
                yield self._undecodable(float((missing - first) * time_base))
            # A frame without a time takes that which follows; the packet of that time, if there is one, is another's.
            del awaited[: lost + (timed and lost < len(awaited) and awaited[lost] == stamp)]
            time_s = float((stamp - first) * time_base)
            check_size(self._path, frame.width, frame.height)
            if sampler.wants(time_s) and self.found.decoded >= start_index:
                picture = screen.show(frame)
                self.found.width, self.found.height = screen.size or (0, 0)
                yield Frame(self.found.decoded, time_s, picture)
            else:
                screen.follow(frame)
            self.found.decoded += 1
            self.found.duration_s = float((stamp - first + round(frame_duration_s(frame.duration, stream) / time_base)) * time_base)
        if first is None:
            raise MediaError("no_frames", f"{self._path}: not one frame can be decoded; look at it with: ffprobe {typed(self._path)}")
        for missing in awaited:
            yield self._undecodable(float((missing - first) * time_base))
        if self._segment.is_whole:
            seen = self.found.decoded + self.found.undecodable + self._hidden
            self.found.missing = self._missing(container, stream, seen)

    def _decoded(self, container: InputContainer, stream: VideoStream, screen: FramePresenter, awaited: list[int]) -> Iterator[VideoFrame]:
        """Frames as the decoder gives them; the presentation times of their packets are put into `awaited` first."""
        beyond = 0
        for packet in self._packets(container, stream):
            if packet.size and packet.pts is not None and self._shows(packet) and self._segment.holds(packet.pts):
                bisect.insort(awaited, packet.pts)
            yield from self._frames_of(packet, screen)
            stop = self._segment.stop
            if stop is not None and packet.dts is not None and packet.dts >= stop:
                beyond += 1
                if beyond > _MOST_BEYOND:
                    return

    def _packets(self, container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
        self._hidden = 0
        self._moved = self._edited is not None
        self._end_s = 0.0
        shift, last, lasts = 0, None, 0
        usual = round(frame_duration_s(None, stream) / (stream.time_base or _FALLBACK_BASE))
        # Where decoding times go back, files were strung together, and the second follows on the first; edit lists make them go back, too.
        strung_together = "mov" not in container.format.name
        shortest = _SHORTEST_GIF if container.format.name == "gif" else 0
        for packet in self._demuxed(container, stream):
            self._hidden += bool(packet.size and not self._shows(packet))
            if packet.dts is not None and strung_together:
                late = 0 if last is None else packet.dts + shift - last - (lasts or 1)
                if last is not None and (late < -(packet.duration or 0) or late > _LONGEST_STEP):
                    shift = last + (lasts or usual) - packet.dts
                    self._moved = True
                packet.dts += shift
                packet.pts = None if packet.pts is None else packet.pts + shift
                if packet.size and packet.duration and packet.duration < shortest:
                    shift += _INSTEAD_GIF - packet.duration
                    packet.duration = _INSTEAD_GIF
                    self._moved = True
                last, lasts = packet.dts, packet.duration or 0
            if packet.pts is not None and packet.time_base is not None:
                self._end_s = max(self._end_s, float(packet.pts * packet.time_base) + frame_duration_s(packet.duration, stream))
            yield packet

    def _demuxed(self, container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
        """Packets from the segment's key frame on, or from the first one."""
        seek, start = self._segment.seek, self._segment.start
        if self._edited is not None:
            packets = iter(self._edited)
        else:
            packets = container.demux(stream) if seek is None or start is None else packets_from(container, stream, start, seek)
        while True:
            try:
                yield next(packets)
            except (StopIteration, av.error.EOFError):
                return
            except (av.error.FFmpegError, OSError) as error:  # the system, too, may refuse to read on
                self.found.trouble = error.strerror or str(error)
                return

    def _frames_of(self, packet: Packet[VideoStream], screen: FramePresenter) -> list[VideoFrame]:
        """Nobody holds them longer than needed: one frame more in memory makes decoding a tenth slower."""
        try:
            return [frame for frame in packet.decode() if self._edited is None or self._edited.shows(frame.pts)]
        except av.error.EOFError:
            return []
        except av.error.FFmpegError as error:
            self.found.trouble = error.strerror or str(error)
            return []
        finally:
            screen.notice(packet)

    def _shows(self, packet: Packet[VideoStream]) -> bool:
        return is_shown(packet) and (self._edited is None or self._edited.shows(packet.pts))

    def _missing(self, container: InputContainer, stream: VideoStream, seen: int) -> int:
        if self._edited is not None:
            return self._edited.missing
        return missing_frames(self._path, container, stream, seen=seen, end_s=self._end_s)

    def _undecodable(self, time_s: float) -> Frame:
        self.found.undecodable += 1
        return Frame(-1, time_s, None)


def _is_reordered(container: InputContainer, stream: VideoStream) -> bool:
    """Whether the times of packets are those of decoding, as AVI alone has them, and frames are shown in another order: at those times all
    the same, the first at the first."""
    return container.format.name == "avi" and bool(stream.codec_context.has_b_frames)


def _decoded_from(container: InputContainer, stream: VideoStream, screen: FramePresenter) -> Iterator[VideoFrame]:
    """Frames from where the container stands; those that cannot be decoded are left out."""
    for packet in container.demux(stream):
        with contextlib.suppress(av.error.FFmpegError):
            frames = packet.decode()
            screen.notice(packet)
            yield from frames


def _jump(
    container: InputContainer, stream: VideoStream, screen: FramePresenter, wanted: int, base: Fraction
) -> tuple[Iterator[VideoFrame], VideoFrame]:
    """Frames from one on that is not after `wanted`, and the first of them. Raises StopIteration where there is none."""
    start = stream.start_time or 0
    for target in (*(wanted - round(seconds / base) for seconds in _BACK_SECONDS), start):
        container.seek(max(start, target), stream=stream)
        decoded = _decoded_from(container, stream, screen)
        frame = next(decoded, None)
        if frame is not None and frame.pts is not None and frame.pts <= wanted:
            return decoded, frame
    raise StopIteration
