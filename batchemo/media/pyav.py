"""Videos by PyAV (FFmpeg's libraries): reads nearly everything, in constant memory."""

from __future__ import annotations

import bisect
import collections
import contextlib
from array import array
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from batchemo.errors import MediaError, typed
from batchemo.media.container import Count, check_size, convertible, missing_frames, open_video, step_s
from batchemo.media.source import Found, Sampler
from batchemo.planes import Colours, Planes
from batchemo.records import Frame, Segment

_RIGHT_ANGLE = 90
_FALLBACK_BASE = Fraction(1, 1_000_000)
_WITH_LUMA = frozenset("yuv420p yuvj420p yuv422p yuvj422p yuv444p yuvj444p nv12 nv21 gray".split())
"""Formats whose first plane is the grey picture, one byte a pixel."""
_FULL_RANGE = 2
_HIGH_DYNAMIC_RANGE = frozenset({16, 18})
"""Transfers PQ and HLG (ITU-T H.273), whose values mean light that a copy of 8 bits does not show."""
_LUMA_BLACK, _LUMA_STEPS = 16, 219
"""Where luma begins, and how far it goes, in most videos (ITU-R BT.601)."""
_GAIN = 255 / _LUMA_STEPS
_Converters = collections.defaultdict[int, VideoReformatter]
_MOST_BITS = 8
"""Of a channel: nobody who looks at a picture asks for more, and some 20 are held. At 3840 x 2160, 60 frames, 4:4:4 with 10 bits, this took
1845 MB with deeper frames, and 1501 MB without them."""
_FLATTENING = 0
"""Whose converter it is that takes bits away; those of others are known by how far they shrink."""

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
        self._converters: _Converters = collections.defaultdict(VideoReformatter)
        self.found = Found()

    def frames(self, *, sample_fps: float | None = None, start_index: int = 0) -> Iterator[Frame]:
        with open_video(self._path) as (container, stream):
            # FFmpeg's frame threads lose frames at a damaged end, and a run has one process a core already.
            stream.codec_context.thread_count = 1
            sampler = Sampler(sample_fps, before_s=self._segment.before_s)
            yield from self._decode(container, stream, sampler, start_index)

    def count(self) -> Count:
        """The frames that the packets announce, without decoding any. Raises MediaError where the file cannot be opened."""
        with open_video(self._path) as (container, stream):
            stamps = array("q")
            untimed = 0
            for packet in self._packets(container, stream):
                if packet.size and not packet.is_discard:
                    untimed += packet.pts is None
                    if packet.pts is not None:
                        stamps.append(packet.pts)
            base = stream.time_base or _FALLBACK_BASE
            times_s = np.sort(np.array(stamps, np.int64)) * base.numerator / base.denominator
            seen = len(stamps) + untimed + self._discarded
            return Count(times_s, untimed, missing_frames(container, stream, seen=seen, end_s=self._end_s))

    def _decode(self, container: InputContainer, stream: VideoStream, sampler: Sampler, start_index: int) -> Iterator[Frame]:
        time_base = stream.time_base or _FALLBACK_BASE
        self.found.length_s = container.duration / av.time_base if container.duration else 0.0
        # AVI has decoding times only: where frames are reordered, they are shown in the order of those times all the same.
        reordered = container.format.name == "avi" and stream.codec_context.has_b_frames
        awaited: list[int] = []  # presentation times of packets whose frame has not come yet, sorted
        first, size = self._segment.zero, self._segment.size
        last = None if self._segment.start is None else self._segment.start - 1
        for frame in self._decoded(container, stream, awaited):
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
            size = size or (frame.width, frame.height)
            if sampler.wants(time_s) and self.found.decoded >= start_index:
                picture = _Picture(frame, size, self._converters)
                self.found.width, self.found.height = picture.size
                yield Frame(self.found.decoded, time_s, picture)
            self.found.decoded += 1
            self.found.duration_s = float((stamp - first + round(step_s(frame.duration, stream) / time_base)) * time_base)
        if first is None:
            raise MediaError("no_frames", f"{self._path}: not one frame can be decoded; look at it with: ffprobe {typed(self._path)}")
        for missing in awaited:
            yield self._undecodable(float((missing - first) * time_base))
        if self._segment.is_whole:
            seen = self.found.decoded + self.found.undecodable + self._discarded
            self.found.missing = missing_frames(container, stream, seen=seen, end_s=self._end_s)

    def _decoded(self, container: InputContainer, stream: VideoStream, awaited: list[int]) -> Iterator[VideoFrame]:
        """Frames as the decoder gives them; the presentation times of their packets are put into `awaited` first."""
        beyond = 0
        for packet in self._packets(container, stream):
            if packet.size and packet.pts is not None and not packet.is_discard and self._segment.holds(packet.pts):
                bisect.insort(awaited, packet.pts)
            yield from self._frames_of(packet)
            stop = self._segment.stop
            if stop is not None and packet.dts is not None and packet.dts >= stop:
                beyond += 1
                if beyond > _MOST_BEYOND:
                    return

    def _packets(self, container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
        self._discarded = 0
        self._end_s = 0.0
        shift, following = 0, None
        for packet in self._demuxed(container, stream):
            self._discarded += bool(packet.size and packet.is_discard)
            if packet.dts is not None:
                # Decoding times that go back are those of files that were strung together: the second follows on the first.
                if following is not None and packet.dts + shift < following - (packet.duration or 0):
                    shift = following - packet.dts
                packet.dts += shift
                packet.pts = None if packet.pts is None else packet.pts + shift
                following = packet.dts + (packet.duration or 1)
            if packet.pts is not None and packet.time_base is not None:
                self._end_s = max(self._end_s, float(packet.pts * packet.time_base) + step_s(packet.duration, stream))
            yield packet

    def _demuxed(self, container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
        """Packets from the segment's key frame on, or from the first one."""
        seek, start = self._segment.seek, self._segment.start
        if seek is not None:
            with contextlib.suppress(av.error.FFmpegError, OSError):
                container.seek(seek, stream=stream)
        begun = seek is None
        demuxer = container.demux(stream)
        while True:
            try:
                packet = next(demuxer)
            except (StopIteration, av.error.EOFError):
                return
            except (av.error.FFmpegError, OSError) as error:  # the system, too, may refuse to read on
                self.found.trouble = error.strerror or str(error)
                return
            begun = begun or (packet.dts == seek and packet.pts == start)
            if begun:
                yield packet

    def _frames_of(self, packet: Packet[VideoStream]) -> list[VideoFrame]:
        try:
            return [convertible(frame) for frame in packet.decode() if isinstance(frame, VideoFrame)]
        except av.error.EOFError:
            return []
        except av.error.FFmpegError as error:
            self.found.trouble = error.strerror or str(error)
            return []

    def _undecodable(self, time_s: float) -> Frame:
        self.found.undecodable += 1
        return Frame(-1, time_s, None)


class _Picture:
    """A decoded frame, brought to the medium's first `size` (width, height; streams may change theirs) and turned as the container says.

    `converters` are those of all frames, by how far they shrink: preparing to shrink takes a third of the time that shrinking does.
    """

    def __init__(self, frame: VideoFrame, size: tuple[int, int], converters: _Converters) -> None:
        self._frame = _flat(frame, converters[_FLATTENING])
        self._flattened = self._frame is not frame
        self._size = size
        self._converters = converters
        self._quarter_turns = round(frame.rotation / _RIGHT_ANGLE) % 4
        self.size = size if self._quarter_turns % 2 == 0 else size[::-1]
        self.nbytes = size[0] * size[1] * 5 // 2
        self._grey: NDArray[np.uint8] | None = None

    def rgb(self, shrink: int = 1) -> NDArray[np.uint8]:
        width, height = (max(1, side // shrink) for side in self._size)
        how = "BILINEAR" if shrink == 1 else "AREA"
        # By default FFmpeg starts a thread a core for each frame, which costs five times the conversion.
        converted = self._converters[shrink].reformat(self._frame, width, height, "rgb24", interpolation=how, threads=1)
        return self._upright(np.asarray(converted.to_ndarray(), np.uint8))

    def grey(self) -> NDArray[np.uint8]:
        if self._grey is None:
            self._grey = self._read_grey()
        return self._grey

    def planes(self) -> Planes | None:
        frame = self._frame
        colours = Colours(int(frame.colorspace), int(frame.color_primaries), int(frame.color_trc))
        if self._flattened or frame.format.name != "yuv420p" or frame.color_range == _FULL_RANGE:
            return None
        if (frame.width, frame.height) != self._size or any(side % 2 for side in self._size):
            return None
        if not colours.known or colours.transfer in _HIGH_DYNAMIC_RANGE:
            return None
        luma, blue, red = (self._upright(_read_plane(frame, index)) for index in range(3))
        return Planes(luma, blue, red, colours)

    def _read_grey(self) -> NDArray[np.uint8]:
        frame = self._frame
        if frame.format.name not in _WITH_LUMA or (frame.width, frame.height) != self._size:
            return np.asarray(cv2.cvtColor(self.rgb(), cv2.COLOR_RGB2GRAY), np.uint8)
        luma = _read_plane(frame, 0)
        if frame.format.name.startswith("yuvj") or frame.color_range == _FULL_RANGE:
            return self._upright(luma)
        return self._upright(np.asarray(cv2.addWeighted(luma, _GAIN, luma, 0, -_LUMA_BLACK * _GAIN), np.uint8))

    def _upright(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.ascontiguousarray(np.rot90(pixels, self._quarter_turns)) if self._quarter_turns else pixels


def _read_plane(frame: VideoFrame, index: int) -> NDArray[np.uint8]:
    plane = frame.planes[index]
    return np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]


def _flat(frame: VideoFrame, converter: VideoReformatter) -> VideoFrame:
    """The frame with at most 8 bits a channel."""
    if all(component.bits <= _MOST_BITS for component in frame.format.components):
        return frame
    return converter.reformat(frame, format="rgb24" if frame.format.is_rgb else "yuv420p", interpolation="BILINEAR", threads=1)
