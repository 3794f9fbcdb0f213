"""What a video file says of itself, read from its headers and packets without decoding."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
from array import array
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from batchemo.errors import MediaError, typed, unreadable
from batchemo.records import Segment

MAX_PIXELS = 200_000_000
"""Largest picture or frame that is decoded: 600 MB of RGB. More is taken for a mistake or an attack."""

_FORMATS = frozenset(
    """
    3g2 3gp asf avi dv flv gif gxf h264 hevc ivf m4v matroska mj2 mjpeg mov mp4 mpeg mpegts mpegvideo mxf nut ogg rm vob webm wtv
    yuv4mpegpipe
    """.split()
)
"""FFmpeg's containers of video. Play lists, scripts and text are not among them: they make FFmpeg open other files."""

_OPENING = {"format_whitelist": ",".join(sorted(_FORMATS)), "protocol_whitelist": ""}

_DIVIDED = ("mov", "matroska")
"""Containers that say for each packet when it is shown, and find their way to it."""

_MATRICES = frozenset({0, 1, 2, 4, 5, 6, 7, 9})
"""Of colours (ITU-T H.273, table 4), those that FFmpeg 8 converts; with any other it refuses."""
_UNSPECIFIED = 2

_FALLBACK_STEP_S = 1 / 25
"""Time to the next frame where neither the container nor the stream knows."""

_CUT_OFF_S = 1.0
"""A file that ends this much before the end that it states is cut off; less is the rounding of containers."""


class MediaFile(io.BufferedReader):
    """`path`, open to be read by FFmpeg through Python, so that FFmpeg never sees the name, which could look like an address to it.

    Raises OSError where the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path.open("rb", buffering=0))

    def seek(self, place: int, whence: int = io.SEEK_SET, /) -> int:
        """The new place, or -1, which FFmpeg takes for an error: damaged files send it to places that are none, and what Python raises
        there, PyAV prints."""
        try:
            return super().seek(place, whence)
        except (OSError, ValueError):
            return -1


@dataclasses.dataclass(frozen=True, slots=True)
class Index:
    """Presentation times of all frames that the packets announce: `times_s` float64, strictly increasing, the first is 0.

    `duration_s` reaches to the end of the last frame; `container` is FFmpeg's name of the file's format. `ticks` int64 are the same times
    as the container counts them, `keys` int64 K x 2 when the key frames are shown and when they are decoded. `stated` is how many frames
    the header claims, which may be any number.
    """

    ticks: NDArray[np.int64]
    keys: NDArray[np.int64]
    times_s: NDArray[np.float64]
    duration_s: float
    width: int
    height: int
    container: str
    stated: int

    def __repr__(self) -> str:
        return f"Index({len(self.times_s)} frames, {self.width}x{self.height})"


@dataclasses.dataclass(frozen=True, slots=True)
class Count:
    """The frames that a file has packets of: `times_s` float64, sorted, of those with a time, in the container's own time.

    `untimed` more have none; `missing` ones are announced by the header alone.
    """

    times_s: NDArray[np.float64]
    untimed: int
    missing: int

    @property
    def total(self) -> int:
        return len(self.times_s) + self.untimed + self.missing

    @property
    def repeats(self) -> bool:
        """Whether two frames have one time, or may have, since a frame without one takes that which follows."""
        return self.untimed > 0 or bool((np.diff(self.times_s) == 0).any())


@contextlib.contextmanager
def open_video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its first video stream. Raises MediaError where there is none or the file cannot be read."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(MediaFile(path))
            if not file.read(1):
                raise MediaError("empty", f"{path} is empty (0 bytes); copy it again from its source")
            file.seek(0)
            container = stack.enter_context(av.open(file, mode="r", options=_OPENING, metadata_errors="replace"))
        except av.error.FFmpegError as error:
            message = f"{path} is not a video, or is cut off before its index; look at it with: ffprobe {typed(path)}"
            raise MediaError("not_media", message) from error
        except OSError as error:
            raise unreadable(path, error) from error
        streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
        if not streams:
            raise MediaError("no_video", f"{path} has no video stream; list its streams with: ffprobe {typed(path)}")
        stream = streams[0]
        context = stream.codec_context
        if context is None:
            raise MediaError("no_decoder", f"{path}: no decoder for its video; convert it with: ffmpeg -i {typed(path)} converted.mp4")
        check_size(path, context.width, context.height)
        yield container, stream


def check_size(path: Path, width: int, height: int) -> None:
    """Raises MediaError for a picture that is too large to decode."""
    if width * height > MAX_PIXELS:
        raise MediaError(
            "too_large",
            f"{path} is {width} x {height} pixels; at most {MAX_PIXELS // 1_000_000} million are analysed. Make it smaller first",
        )


def read_index(path: Path) -> Index:
    """Reads all packets. Raises MediaError like `open_video`, or where the packets carry no times or not all are there."""
    with open_video(path) as (container, stream):
        stamps = array("q")
        keys: list[tuple[int, int]] = []
        seen = end = 0
        last_dts: int | None = None
        time_base = stream.time_base
        try:
            for packet in container.demux(stream):
                if not packet.size:
                    continue
                if packet.pts is None or time_base is None:
                    raise MediaError("no_times", f"{path} gives its frames no times")
                if packet.dts is not None:
                    if last_dts is not None and packet.dts < last_dts:
                        raise MediaError("no_times", f"{path} has times that go back")
                    last_dts = packet.dts
                seen += 1
                end = max(end, packet.pts + round(step_s(packet.duration, stream) / time_base))
                if not packet.is_discard:
                    stamps.append(packet.pts)
                    if packet.is_keyframe and packet.dts is not None:
                        keys.append((packet.pts, packet.dts))
        except (av.error.FFmpegError, OSError) as error:
            raise MediaError("damaged", f"{path} is damaged after frame {len(stamps)} ({error.strerror})") from error
        if not stamps or time_base is None:
            raise MediaError("no_frames", f"{path} has no frames")
        if missing_frames(container, stream, seen=seen, end_s=float(end * time_base)):
            raise MediaError("truncated", f"{path} is cut off; read what there is with --decoder pyav")
        # In place, here and below: ten hours have a million frames.
        ordered = np.frombuffer(stamps, np.int64)
        ordered.sort()
        if (ordered[1:] == ordered[:-1]).any():
            raise MediaError("no_times", f"{path} has two frames of one time; read it with --decoder pyav")
        # One rounding only, so that the times are those of exact fractions.
        elapsed = ordered - ordered[0]
        elapsed *= time_base.numerator
        times_s = elapsed / time_base.denominator
        context = stream.codec_context
        shown = np.array(keys, np.int64).reshape(-1, 2)
        lasts_s = float((end - int(ordered[0])) * time_base)
        stated = max(stream.frames, round((container.duration or 0) / av.time_base * float(stream.average_rate or 0)))
        return Index(ordered, shown, times_s, lasts_s, context.width, context.height, container.format.name, stated)


def divide(index: Index, *, seconds: float) -> list[Segment]:
    """The segments of a video: each begins with a key frame and is, but for the last, at least `seconds` long.

    They depend on the file alone. A container whose times or key frames cannot be relied upon for jumping into it is one segment.
    """
    if not index.container.startswith(_DIVIDED):
        return [Segment()]
    starts = [0]
    for shown, _ in index.keys:
        position = int(np.searchsorted(index.ticks, shown))
        if index.times_s[position] - index.times_s[starts[-1]] >= seconds:
            starts.append(position)
    if len(starts) == 1:
        return [Segment()]
    seeks = dict(index.keys.tolist())
    size = index.width, index.height
    zero = int(index.ticks[0])
    segments = []
    for number, (first, last) in enumerate(itertools.pairwise([*starts, len(index.ticks)])):
        start = int(index.ticks[first]) if first else None
        stop = int(index.ticks[last]) if last < len(index.ticks) else None
        seek = None if start is None else seeks[start]
        before_s = float(index.times_s[first - 1]) if first else None
        segments.append(Segment(number, start, stop, seek, zero, before_s, last - first, size))
    return segments


def missing_frames(container: InputContainer, stream: VideoStream, *, seen: int, end_s: float) -> int:
    """How many frames the header promises beyond the `seen` ones, whose last ends at `end_s` of the container's time."""
    if "mov" in container.format.name:
        # Not `stream.frames`, which counts what an edit list leaves out, too.
        return max(0, len(stream.index_entries) - seen)
    lacking_s = _stated_end_s(container, stream) - end_s
    return round(lacking_s * seen / end_s) if lacking_s >= _CUT_OFF_S and end_s > 0 else 0


def _stated_end_s(container: InputContainer, stream: VideoStream) -> float:
    """When the video ends by its header; 0 where that is not said."""
    if container.format.name == "avi":
        # AVI counts in frames, dropped ones included, and FFmpeg shortens the duration of a file that is cut off.
        return float(stream.frames * (stream.time_base or 0))
    # Matroska's own duration is that of the longest stream; most writers tag each stream with its own.
    hours, _, rest = stream.metadata.get("DURATION", "").partition(":")
    minutes, _, seconds = rest.partition(":")
    try:
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return 0.0


def convertible(frame: VideoFrame) -> VideoFrame:
    """`frame`, taken for one that does not say what its colours mean where FFmpeg could not make RGB of those that it says."""
    if frame.colorspace not in _MATRICES:
        frame.colorspace = _UNSPECIFIED
    return frame


def step_s(duration: int | None, stream: VideoStream) -> float:
    """How long a frame is shown, from the `duration` that its packet states, if any."""
    if duration and stream.time_base:
        return float(duration * stream.time_base)
    return float(1 / stream.average_rate) if stream.average_rate else _FALLBACK_STEP_S
