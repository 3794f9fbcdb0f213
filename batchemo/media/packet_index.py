"""All packets of a video, read without decoding: when each frame is presented, and where decoding can start."""

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
from av.packet import Packet
from av.video.stream import VideoStream
from numpy.typing import NDArray

from batchemo.errors import MediaError, typed
from batchemo.media.container import SEEKABLE_FORMATS, frame_duration_s, missing_frames, open_presenter, open_video, read_edit_list
from batchemo.media.key_frames import decode_key_frame
from batchemo.media.presentation import Orientation, has_high_bit_depth, is_shown, orientation_of
from batchemo.records import Segment

_PARAMETER_SETS: dict[str, tuple[int, Callable[[int], int], frozenset[int]]] = {
    "h264": (4, lambda first: first & 0x1F, frozenset({7, 13, 15})),
    "hevc": (21, lambda first: first >> 1 & 0x3F, frozenset({32, 33})),
}
"""Of codecs whose packets are units with their length in front: where the header says how long lengths are, how a unit tells its kind, and
which kinds are parameters of the whole sequence (ISO/IEC 14496-15)."""


@dataclasses.dataclass(frozen=True, slots=True)
class PacketIndex:
    """Presentation times of all frames that the packets announce: `times_s` float64, strictly increasing, the first is 0.

    `duration_s` reaches to the end of the last frame; `container` is FFmpeg's name of the file's format. `ticks` int64 are the same times
    as the container counts them, `keys` int64 K x 2 when the key frames are shown and when they are decoded. `first` is the first picture,
    RGB uint8 H x W x 3, and `orientation` what it says of how it was turned. `stated` is how many frames the header claims, any
    number. `plain`: H.264 or HEVC of one size and 8 bits a channel, all of whose packets are shown.
    """

    ticks: NDArray[np.int64]
    keys: NDArray[np.int64]
    times_s: NDArray[np.float64]
    duration_s: float
    first: NDArray[np.uint8]
    orientation: Orientation | None
    container: str
    stated: int
    plain: bool

    def __repr__(self) -> str:
        return f"Index({len(self.times_s)} frames, {self.size[0]}x{self.size[1]})"

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as presented."""
        return self.first.shape[1], self.first.shape[0]


def read_packet_index(path: Path) -> PacketIndex:
    """Reads all packets, and the first frame. Raises MediaError like `open_video`, or where the packets carry no times or not all are
    there."""
    with open_video(path) as (container, stream):
        if read_edit_list(path, container, stream):
            raise MediaError("no_times", f"{path} has several edits; read it with --decoder pyav")
        packets = _Packets(path, stream)
        try:
            for packet in container.demux(stream):
                packets.add(packet)
        except (av.error.FFmpegError, OSError) as error:
            raise MediaError("damaged", f"{path} is damaged after frame {len(packets.stamps)} ({error.strerror})") from error
        base = packets.base
        if not packets.stamps:
            raise MediaError("no_frames", f"{path} has no frames")
        if missing_frames(path, container, stream, seen=packets.seen, end_s=float(packets.end * base)):
            raise MediaError("truncated", f"{path} is cut off; read what there is with --decoder pyav")
        # In place, here and below: ten hours have a million frames.
        ordered = np.frombuffer(packets.stamps, np.int64)
        ordered.sort()
        if (ordered[1:] == ordered[:-1]).any():
            raise MediaError("no_times", f"{path} has two frames of one time; read it with --decoder pyav")
        # One rounding only, so that the times are those of exact fractions.
        elapsed = ordered - ordered[0]
        elapsed *= base.numerator
        times_s = elapsed / base.denominator
        lasts_s = float((packets.end - int(ordered[0])) * base)
        stated = max(stream.frames, round((container.duration or 0) / av.time_base * float(stream.average_rate or 0)))
        first = _first_frame(path)
        if first.stamp != ordered[0]:
            raise MediaError("damaged", f"{path}: its first frame cannot be decoded")
        plain = packets.plain and not first.is_deep
        keys = np.array(packets.keys, np.int64).reshape(-1, 2)
        return PacketIndex(ordered, keys, times_s, lasts_s, first.pixels, first.orientation, container.format.name, stated, plain)


class _Packets:
    """What the packets of a stream say: when frames are shown (`stamps`), when key frames are shown and decoded (`keys`), how many there
    are, hidden ones among them (`seen`), and the `end` of the last frame, in ticks of `base`. `plain` is that of `PacketIndex`."""

    def __init__(self, path: Path, stream: VideoStream) -> None:
        self._path = path
        self._stream = stream
        self._last_dts: int | None = None
        self._last_pts = np.iinfo(np.int64).min
        self.base = stream.time_base or Fraction(0)
        self.stamps = array("q")
        self.keys: list[tuple[int, int]] = []
        self.seen = self.end = 0
        self.plain = stream.codec_context.name in _PARAMETER_SETS

    def add(self, packet: Packet[VideoStream]) -> None:
        """Raises MediaError where the packet has no time, or one that goes back."""
        if not packet.size:
            return
        if packet.pts is None or not self.base:
            raise MediaError("no_times", f"{self._path} gives its frames no times")
        if packet.dts is not None:
            if self._last_dts is not None and packet.dts < self._last_dts:
                raise MediaError("no_times", f"{self._path} has times that go back")
            self._last_dts = packet.dts
        self.seen += 1
        if not is_shown(packet):
            self.plain = False
            return
        if packet.pts >= self._last_pts:
            self._last_pts = packet.pts
            self.end = packet.pts + round(frame_duration_s(packet.duration, self._stream) / self.base)
        self.stamps.append(packet.pts)
        if packet.is_keyframe:
            self.plain = self.plain and not _has_new_parameters(packet)
            if packet.dts is not None:
                self.keys.append((packet.pts, packet.dts))


class _First(NamedTuple):
    """The first frame that can be decoded: its tick, RGB uint8 H x W x 3, how it was turned, and whether it has more than 8 bits a
    channel."""

    stamp: int | None
    pixels: NDArray[np.uint8]
    orientation: Orientation | None
    is_deep: bool


def _first_frame(path: Path) -> _First:
    """Raises MediaError where not one can be decoded."""
    with open_video(path) as (container, stream):
        stream.codec_context.thread_count = 1
        screen = open_presenter(path, container, stream)
        for packet in container.demux(stream):
            with contextlib.suppress(av.error.FFmpegError):
                for frame in packet.decode():
                    screen.notice(packet)
                    picture = screen.show(frame)
                    pixels = picture if isinstance(picture, np.ndarray) else picture.rgb()
                    return _First(frame.pts, pixels, orientation_of(frame), has_high_bit_depth(frame))
    raise MediaError("no_frames", f"{path}: not one frame can be decoded; look at it with: ffprobe {typed(path)}")


def _has_new_parameters(packet: Packet[VideoStream]) -> bool:
    """Whether a key frame brings parameter sets that the header lacks: with them the size of frames may change."""
    context = packet.stream.codec_context
    extradata, content = context.extradata or b"", memoryview(packet)
    length_at, kind_of, kinds = _PARAMETER_SETS[context.name]
    if packet.has_sidedata("new_extradata") or len(extradata) <= length_at or extradata[0] != 1:
        return True
    width = (extradata[length_at] & 3) + 1
    place = 0
    while place + width < len(content):
        size = int.from_bytes(content[place : place + width], "big")
        place += width
        if kind_of(content[place]) in kinds and bytes(content[place : place + size]) not in extradata:
            return True
        place += size
    return False


def split_at_key_frames(path: Path, index: PacketIndex, *, seconds: float) -> list[Segment]:
    """The segments of a video: each begins where decoding can begin, and is, but for the last, at least `seconds` long.

    They depend on the file alone. A container whose times or key frames cannot be relied upon for jumping into it is one segment.
    """
    if not index.container.startswith(SEEKABLE_FORMATS):
        return [Segment()]
    starts = _starts(path, index, seconds)
    if len(starts) == 1:
        return [Segment()]
    seeks = dict(index.keys.tolist())
    zero = int(index.ticks[0])
    segments = []
    for number, (first, last) in enumerate(itertools.pairwise([*starts, len(index.ticks)])):
        start = int(index.ticks[first]) if first else None
        stop = int(index.ticks[last]) if last < len(index.ticks) else None
        seek = None if start is None else seeks[start]
        before_s = float(index.times_s[first - 1]) if first else None
        segments.append(Segment(number, start, stop, seek, zero, before_s, last - first, index.size))
    return segments


def _starts(path: Path, index: PacketIndex, seconds: float) -> list[int]:
    """Which frames, counted as they are shown, begin segments."""
    starts = [0]
    with open_video(path) as (container, stream):
        stream.codec_context.thread_count = 1
        for shown, decoded in index.keys.tolist():
            position = int(np.searchsorted(index.ticks, shown))
            if index.times_s[position] - index.times_s[starts[-1]] < seconds:
                continue
            frame = decode_key_frame(container, stream, shown, decoded)
            if frame is not None and orientation_of(frame) == index.orientation:
                starts.append(position)
    return starts
