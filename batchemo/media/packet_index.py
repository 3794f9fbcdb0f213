"""Reads all packets of a video without decoding: when each frame is presented, and where decoding can start."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from array import array
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream
from numpy.typing import NDArray

from batchemo.errors import MediaError, typed
from batchemo.media.container import SEEKABLE_FORMATS, count_missing_frames, frame_duration_s, open_presenter, open_video, read_edit_list
from batchemo.media.key_frames import decode_key_frame
from batchemo.media.presentation import Orientation, has_high_bit_depth, is_shown, orientation_of
from batchemo.records import Segment

_PARAMETER_SETS: dict[str, tuple[int, Callable[[int], int], frozenset[int]]] = {
    "h264": (4, lambda first: first & 0x1F, frozenset({7, 13, 15})),
    "hevc": (21, lambda first: first >> 1 & 0x3F, frozenset({32, 33})),
}
"""For codecs whose packets are length-prefixed NAL units (ISO/IEC 14496-15): offset of the length size in the extradata, how to get the
NAL unit type from its first byte, and which types are sequence parameter sets."""


@dataclasses.dataclass(frozen=True, slots=True)
class PacketIndex:
    """Timestamps of all N frames that the packets announce, and the first frame.

    - `pts` int64 N: presentation timestamps in the stream's time base, strictly increasing. `times_s` float64 N: the same in seconds since
      the first frame.
    - `key_frames` int64 K x 2: PTS and DTS of each key frame.
    - `duration_s`: up to the end of the last frame.
    - `first_frame` RGB uint8 H x W x 3, as presented; `orientation` by its display matrix.
    - `container`: FFmpeg's name of the format. `stated_frames`: the header's claim, which may be any number.
    - `decord_safe`: H.264 or HEVC of one size, with 8 bits per channel, all of whose packets are presented.
    """

    pts: NDArray[np.int64]
    key_frames: NDArray[np.int64]
    times_s: NDArray[np.float64]
    duration_s: float
    first_frame: NDArray[np.uint8]
    orientation: Orientation | None
    container: str
    stated_frames: int
    decord_safe: bool

    def __repr__(self) -> str:
        return f"PacketIndex({len(self.times_s)} frames, {self.size[0]}x{self.size[1]})"

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in px, as presented."""
        return self.first_frame.shape[1], self.first_frame.shape[0]


def read_packet_index(path: Path) -> PacketIndex:
    """Reads all packets, and decodes the first frame.

    Raises MediaError as `open_video` does, and where packets lack timestamps, are missing or damaged, or the video has several edits.
    """
    with open_video(path) as (container, stream):
        scan = _scan_packets(path, container, stream)
        pts = _sorted_pts(path, scan)
        # One rounding only, so that the times are those of exact fractions.
        elapsed = pts - pts[0]
        elapsed *= scan.base.numerator
        first = _first_frame(path)
        if first.pts != pts[0]:
            raise MediaError("damaged", f"{path}: its first frame cannot be decoded")
        return PacketIndex(
            pts=pts,
            key_frames=np.array(scan.key_frames, np.int64).reshape(-1, 2),
            times_s=elapsed / scan.base.denominator,
            duration_s=float((scan.end - int(pts[0])) * scan.base),
            first_frame=first.pixels,
            orientation=first.orientation,
            container=container.format.name,
            stated_frames=max(stream.frames, round((container.duration or 0) / av.time_base * float(stream.average_rate or 0))),
            decord_safe=scan.decord_safe and not first.is_deep,
        )


def _scan_packets(path: Path, container: InputContainer, stream: VideoStream) -> _PacketScan:
    """Raises MediaError where several edits, missing times or damage rule an index out."""
    if read_edit_list(path, container, stream):
        raise MediaError("no_times", f"{path} has several edits; read it with --decoder pyav")
    scan = _PacketScan(path, stream)
    try:
        for packet in container.demux(stream):
            scan.add(packet)
    except (av.error.FFmpegError, OSError) as error:
        raise MediaError("damaged", f"{path} is damaged after frame {len(scan.pts)} ({error.strerror})") from error
    if not scan.pts:
        raise MediaError("no_frames", f"{path} has no frames")
    if count_missing_frames(path, container, stream, seen=scan.seen, end_s=float(scan.end * scan.base)):
        raise MediaError("truncated", f"{path} is cut off; read what there is with --decoder pyav")
    return scan


def _sorted_pts(path: Path, scan: _PacketScan) -> NDArray[np.int64]:
    """Raises MediaError where two frames have the same timestamp."""
    pts = np.frombuffer(scan.pts, np.int64)
    pts.sort()  # in place: ten hours have a million frames
    if (pts[1:] == pts[:-1]).any():
        raise MediaError("no_times", f"{path} has two frames with the same timestamp; read it with --decoder pyav")
    return pts


class _PacketScan:
    """Collects from the packets of a stream what `PacketIndex` needs; `seen` counts all frames, hidden ones too, and `end` is the end of
    the last one in ticks of `base`."""

    def __init__(self, path: Path, stream: VideoStream) -> None:
        self._path = path
        self._stream = stream
        self._last_dts: int | None = None
        self._last_pts = np.iinfo(np.int64).min
        self.base = stream.time_base or Fraction(0)
        self.pts = array("q")
        self.key_frames: list[tuple[int, int]] = []
        self.seen = self.end = 0
        self.decord_safe = stream.codec_context.name in _PARAMETER_SETS

    def add(self, packet: Packet[VideoStream]) -> None:
        """Raises MediaError where the packet has no timestamp, or one that goes back."""
        if not packet.size:
            return
        if packet.pts is None or not self.base:
            raise MediaError("no_times", f"{self._path} has no timestamps")
        if packet.dts is not None:
            if self._last_dts is not None and packet.dts < self._last_dts:
                raise MediaError("no_times", f"{self._path} has timestamps that go back")
            self._last_dts = packet.dts
        self.seen += 1
        if not is_shown(packet):
            self.decord_safe = False
            return
        if packet.pts >= self._last_pts:
            self._last_pts = packet.pts
            self.end = packet.pts + round(frame_duration_s(packet.duration, self._stream) / self.base)
        self.pts.append(packet.pts)
        if packet.is_keyframe:
            self.decord_safe = self.decord_safe and not _has_new_parameters(packet)
            if packet.dts is not None:
                self.key_frames.append((packet.pts, packet.dts))


class _FirstFrame(NamedTuple):
    """The first frame that can be decoded: RGB uint8 H x W x 3 as presented, and what was known before it was converted."""

    pts: int | None
    pixels: NDArray[np.uint8]
    orientation: Orientation | None
    is_deep: bool


def _first_frame(path: Path) -> _FirstFrame:
    """Raises MediaError where no frame can be decoded."""
    with open_video(path) as (container, stream):
        stream.codec_context.thread_count = 1
        presenter = open_presenter(path, container, stream)
        for packet in container.demux(stream):
            with contextlib.suppress(av.error.FFmpegError):
                for frame in packet.decode():
                    presenter.update_from_packet(packet)
                    picture = presenter.present(frame)
                    pixels = picture if isinstance(picture, np.ndarray) else picture.rgb()
                    return _FirstFrame(frame.pts, pixels, orientation_of(frame), has_high_bit_depth(frame))
    raise MediaError("no_frames", f"{path}: no frame can be decoded; inspect it with: ffprobe {typed(path)}")


def _has_new_parameters(packet: Packet[VideoStream]) -> bool:
    """Whether a key frame brings parameter sets that the extradata lack: the frame size may change with them."""
    context = packet.stream.codec_context
    extradata, content = context.extradata or b"", memoryview(packet)
    length_at, type_of, parameter_sets = _PARAMETER_SETS[context.name]
    if packet.has_sidedata("new_extradata") or len(extradata) <= length_at or extradata[0] != 1:
        return True
    width = (extradata[length_at] & 3) + 1
    place = 0
    while place + width < len(content):
        size = int.from_bytes(content[place : place + width], "big")
        place += width
        if type_of(content[place]) in parameter_sets and bytes(content[place : place + size]) not in extradata:
            return True
        place += size
    return False


def split_at_key_frames(path: Path, index: PacketIndex, *, seconds: float) -> list[Segment]:
    """The segments of a video: each starts at a key frame from which decoding can start, and is at least `seconds` long, except the last.

    They depend on the file alone. A video in a container without reliable timestamps or key frames is one segment.
    """
    if not index.container.startswith(SEEKABLE_FORMATS):
        return [Segment()]
    starts = _segment_starts(path, index, seconds)
    if len(starts) == 1:
        return [Segment()]
    seeks = dict(index.key_frames.tolist())
    zero = int(index.pts[0])
    segments = []
    for number, (first, last) in enumerate(itertools.pairwise([*starts, len(index.pts)])):
        start = int(index.pts[first]) if first else None
        stop = int(index.pts[last]) if last < len(index.pts) else None
        seek = None if start is None else seeks[start]
        before_s = float(index.times_s[first - 1]) if first else None
        segments.append(Segment(number, start, stop, seek, zero, before_s, last - first, index.size))
    return segments


def _segment_starts(path: Path, index: PacketIndex, seconds: float) -> list[int]:
    """Positions, in presentation order, of the frames with which segments start."""
    starts = [0]
    with open_video(path) as (container, stream):
        stream.codec_context.thread_count = 1
        for pts, dts in index.key_frames.tolist():
            position = int(np.searchsorted(index.pts, pts))
            if index.times_s[position] - index.times_s[starts[-1]] < seconds:
                continue
            frame = decode_key_frame(container, stream, pts, dts)
            if frame is not None and orientation_of(frame) == index.orientation:
                starts.append(position)
    return starts
