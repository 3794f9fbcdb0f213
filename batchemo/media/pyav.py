"""Decodes videos with PyAV (FFmpeg's libraries): nearly every format, in constant memory."""

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
    count_missing_frames,
    frame_duration_s,
    open_presenter,
    open_video,
    read_edit_list,
)
from batchemo.media.edit_lists import EditedPackets
from batchemo.media.key_frames import packets_from
from batchemo.media.presentation import FramePresenter, is_shown
from batchemo.media.source import ReadReport, Sampler, decode_pictures_at
from batchemo.records import Frame, Segment

_FALLBACK_BASE = Fraction(1, 1_000_000)

_JUMP_SECONDS = 2.0
"""Frames nearer than this are reached by decoding on, which is cheaper than seeking back to the previous key frame."""
_SEEK_BACK_SECONDS = (0, 2, 10, 60)
"""How far before a frame its key frame is searched: MPEG-TS has no index, and seeking in it lands too late."""

_MAX_DTS_STEP = 2**32
"""Maximum step between two packets, in ticks. MPEG-TS timestamps wrap around at 2**33, and FFmpeg takes a step back by more than a
minute for such a wrap."""

_GIF_MIN_CS, _GIF_DEFAULT_CS = 2, 10
"""Hundredths of a second. Browsers show a GIF frame whose duration is below the first value for the second; FFmpeg 8 does so only for 0."""

_MAX_PACKETS_BEYOND = 100
"""Packets after the end of a segment that are decoded to get its last frames: more than any codec reorders."""


class PyAVSource:
    """Frames of a video, or of one `segment` of it, in presentation order; see `batchemo.media.source.FrameSource`.

    Frame indices count from the segment's first frame, times from the medium's first frame. It is no error if no frame of a segment can be
    decoded.
    """

    decoder = "pyav"

    def __init__(self, path: Path, segment: Segment | None = None) -> None:
        self._path = path
        self._segment = segment or Segment()
        self._edited: EditedPackets | None = None
        self.report = ReadReport()

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        """Opens the video; where its edit list has several edits, without it, as FFmpeg misplaces frames then (see
        `batchemo.media.edit_lists`)."""
        self._edited = None
        with open_video(self._path) as (container, stream):
            edits = read_edit_list(self._path, container, stream)
            if not edits:
                yield container, stream
                return
        with open_video(self._path, apply_edit_list=False) as (container, stream):
            self._edited = EditedPackets(container, stream, edits)
            yield container, stream

    def frames(self, *, sample_fps: float | None = None, start_index: int = 0) -> Iterator[Frame]:
        with self._opened() as (container, stream):
            # FFmpeg's frame threads lose frames at a damaged end, and a run has one process per core anyway.
            stream.codec_context.thread_count = 1
            presenter = open_presenter(self._path, container, stream, self._segment.size)
            sampler = Sampler(sample_fps, before_s=self._segment.before_s)
            yield from self._decode(container, stream, presenter, sampler, start_index)

    def count(self) -> PacketCount:
        """Counts the frames by their packets, without decoding. Raises MediaError where the file cannot be opened."""
        with self._opened() as (container, stream):
            pts = array("q")
            untimed = 0
            for packet in self._packets(container, stream):
                if packet.size and self._is_presented(packet):
                    untimed += packet.pts is None
                    if packet.pts is not None:
                        pts.append(packet.pts)
            base = stream.time_base or _FALLBACK_BASE
            times_s = np.sort(np.array(pts, np.int64)) * base.numerator / base.denominator
            seen = len(pts) + untimed + self._hidden_packets
            return PacketCount(times_s, untimed, self._missing(container, stream, seen), self._retimed)

    def pictures_at(self, times_s: Sequence[float]) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        """Yields the frames presented at exactly `times_s` (increasing), each as its time and RGB uint8 H x W x 3.

        Seeks to frames that are far apart where the container's timestamps can be relied upon, and decodes in order otherwise. Raises
        MediaError where the file cannot be opened.
        """
        remaining = deque(times_s)
        for time_s, pixels in self._seek_pictures(times_s) if remaining and self._can_seek_by_time() else ():
            while remaining.popleft() != time_s:
                pass
            yield time_s, pixels
        yield from decode_pictures_at(self, remaining)

    def _can_seek_by_time(self) -> bool:
        """Whether each frame has the timestamp of its packet: all packets have one, and times never go back. Reads all packets where the
        container format does not guarantee that."""
        with self._opened() as (container, stream):
            if container.format.name.startswith(SEEKABLE_FORMATS):
                return self._edited is None
            if _is_reordered(container, stream):
                return False
            timed = all(packet.pts is not None for packet in self._packets(container, stream) if packet.size)
            return timed and not self._retimed

    def _seek_pictures(self, times_s: Sequence[float]) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        """Ends at the first frame that cannot be decoded or found."""
        with open_video(self._path) as (container, stream), contextlib.suppress(StopIteration, av.error.FFmpegError):
            stream.codec_context.thread_count = 1
            presenter = open_presenter(self._path, container, stream)
            decoded = _decode_onwards(container, stream, presenter)
            frame = next(decoded)
            first, base = frame.pts, stream.time_base
            if first is None or base is None:
                return
            presenter.update_from_frame(frame)
            for time_s in times_s:
                target_pts = first + round(time_s / base)
                if target_pts - (frame.pts or 0) > _JUMP_SECONDS / base:
                    decoded, frame = _jump(container, stream, presenter, target_pts, base)
                while frame.pts is not None and frame.pts < target_pts:
                    frame = next(decoded)
                if frame.pts == target_pts:
                    picture = presenter.present(frame)
                    yield time_s, picture if isinstance(picture, np.ndarray) else picture.rgb()

    def _decode(
        self, container: InputContainer, stream: VideoStream, presenter: FramePresenter, sampler: Sampler, start_index: int
    ) -> Iterator[Frame]:
        """Assigns each decoded frame its time, and reports packets without a frame as undecodable frames."""
        time_base = stream.time_base or _FALLBACK_BASE
        self.report.length_s = self._edited.duration_s if self._edited else (container.duration or 0) / av.time_base
        reordered = _is_reordered(container, stream)
        pending_pts: list[int] = []  # of packets whose frame has not been decoded yet, sorted
        first = self._segment.zero
        last = None if self._segment.start is None else self._segment.start - 1
        for frame in self._decode_packets(container, stream, presenter, pending_pts):
            pts = pending_pts[0] if reordered and pending_pts else frame.pts
            has_pts = pts is not None
            if pts is None:
                pts = (first or 0) + round(self.report.duration_s / time_base)
            first = pts if first is None else first
            if self._segment.stop is not None and pts >= self._segment.stop:
                break
            if last is not None and pts <= last:
                # Of the previous segment, out of order through damage, or with another frame's PTS: its packet becomes undecodable.
                continue
            last = pts
            lost = bisect.bisect_left(pending_pts, pts)
            if lost:
                yield from self._undecodable(pending_pts[:lost], first, time_base)
            # A frame without a PTS got the next free time; a packet with that very PTS belongs to another frame.
            del pending_pts[: lost + (has_pts and lost < len(pending_pts) and pending_pts[lost] == pts)]
            time_s = float((pts - first) * time_base)
            check_size(self._path, frame.width, frame.height)
            if sampler.accepts(time_s) and self.report.decoded >= start_index:
                picture = presenter.present(frame)
                self.report.width, self.report.height = presenter.size or (0, 0)
                yield Frame(self.report.decoded, time_s, picture)
            else:
                presenter.update_from_frame(frame)
            self.report.decoded += 1
            self.report.duration_s = float((pts - first + round(frame_duration_s(frame.duration, stream) / time_base)) * time_base)
        if first is None:
            raise MediaError("no_frames", f"{self._path}: no frame can be decoded; inspect it with: ffprobe {typed(self._path)}")
        yield from self._undecodable(pending_pts, first, time_base)
        if self._segment.is_whole:
            self.report.missing = self._missing(container, stream, self.report.decoded + self.report.undecodable + self._hidden_packets)

    def _decode_packets(
        self, container: InputContainer, stream: VideoStream, presenter: FramePresenter, pending_pts: list[int]
    ) -> Iterator[VideoFrame]:
        """Frames in the order of the decoder. The PTS of each presented packet is inserted into `pending_pts` before its frame comes."""
        beyond = 0
        for packet in self._packets(container, stream):
            if packet.size and packet.pts is not None and self._is_presented(packet) and self._segment.holds(packet.pts):
                bisect.insort(pending_pts, packet.pts)
            yield from self._decode_packet(packet, presenter)
            stop = self._segment.stop
            if stop is not None and packet.dts is not None and packet.dts >= stop:
                beyond += 1
                if beyond > _MAX_PACKETS_BEYOND:
                    return

    def _packets(self, container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
        """Packets with continuous timestamps: those of concatenated files are shifted, and GIF frames last as long as in browsers."""
        self._hidden_packets = 0
        self._retimed = self._edited is not None
        self._end_s = 0.0
        shift, last_dts, last_duration = 0, None, 0
        default_duration = round(frame_duration_s(None, stream) / (stream.time_base or _FALLBACK_BASE))
        # DTS that go back mean concatenated files: the second one continues the first. In MOV and MP4, edit lists do the same.
        may_be_concatenated = "mov" not in container.format.name
        min_duration = _GIF_MIN_CS if container.format.name == "gif" else 0
        for packet in self._demux(container, stream):
            self._hidden_packets += bool(packet.size and not self._is_presented(packet))
            if packet.dts is not None and may_be_concatenated:
                gap = 0 if last_dts is None else packet.dts + shift - last_dts - (last_duration or 1)
                if last_dts is not None and (gap < -(packet.duration or 0) or gap > _MAX_DTS_STEP):
                    shift = last_dts + (last_duration or default_duration) - packet.dts
                    self._retimed = True
                packet.dts += shift
                packet.pts = None if packet.pts is None else packet.pts + shift
                if packet.size and packet.duration and packet.duration < min_duration:
                    shift += _GIF_DEFAULT_CS - packet.duration
                    packet.duration = _GIF_DEFAULT_CS
                    self._retimed = True
                last_dts, last_duration = packet.dts, packet.duration or 0
            if packet.pts is not None and packet.time_base is not None:
                self._end_s = max(self._end_s, float(packet.pts * packet.time_base) + frame_duration_s(packet.duration, stream))
            yield packet

    def _demux(self, container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
        """Packets from the segment's key frame on, or all."""
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
            except (av.error.FFmpegError, OSError) as error:  # OSError: the file system may fail, too
                self.report.trouble = error.strerror or str(error)
                return

    def _decode_packet(self, packet: Packet[VideoStream], presenter: FramePresenter) -> list[VideoFrame]:
        """A list, whose frames are released soon: each additional frame in memory slows decoding down (see docs/benchmarks.md)."""
        try:
            return [frame for frame in packet.decode() if self._edited is None or self._edited.is_presented(frame.pts)]
        except av.error.EOFError:
            return []
        except av.error.FFmpegError as error:
            self.report.trouble = error.strerror or str(error)
            return []
        finally:
            presenter.update_from_packet(packet)

    def _is_presented(self, packet: Packet[VideoStream]) -> bool:
        return is_shown(packet) and (self._edited is None or self._edited.is_presented(packet.pts))

    def _missing(self, container: InputContainer, stream: VideoStream, seen: int) -> int:
        if self._edited is not None:
            return self._edited.missing
        return count_missing_frames(self._path, container, stream, seen=seen, end_s=self._end_s)

    def _undecodable(self, lost_pts: Sequence[int], first: int, time_base: Fraction) -> Iterator[Frame]:
        """Frames lost before the `first` decoded one have negative times."""
        for pts in lost_pts:
            self.report.undecodable += 1
            yield Frame(-1, float((pts - first) * time_base), None)


def _is_reordered(container: InputContainer, stream: VideoStream) -> bool:
    """Whether packets have decoding times only, as in AVI, while frames are presented in another order. The sorted times are right; the
    first frame in presentation order has the first of them."""
    return container.format.name == "avi" and bool(stream.codec_context.has_b_frames)


def _decode_onwards(container: InputContainer, stream: VideoStream, presenter: FramePresenter) -> Iterator[VideoFrame]:
    """Frames from the container's current position on; those that cannot be decoded are left out."""
    for packet in container.demux(stream):
        with contextlib.suppress(av.error.FFmpegError):
            frames = packet.decode()
            presenter.update_from_packet(packet)
            yield from frames


def _jump(
    container: InputContainer, stream: VideoStream, presenter: FramePresenter, target_pts: int, base: Fraction
) -> tuple[Iterator[VideoFrame], VideoFrame]:
    """Seeks to a frame at or before the PTS `target_pts`: the frames from there on, and the first of them. Raises StopIteration where there
    is none."""
    start = stream.start_time or 0
    for seek_pts in (*(target_pts - round(seconds / base) for seconds in _SEEK_BACK_SECONDS), start):
        container.seek(max(start, seek_pts), stream=stream)
        decoded = _decode_onwards(container, stream, presenter)
        frame = next(decoded, None)
        if frame is not None and frame.pts is not None and frame.pts <= target_pts:
            return decoded, frame
    raise StopIteration
