"""What a video file says of itself, read from its headers and packets without decoding."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream
from numpy.typing import NDArray

from batchemo.errors import MediaError, typed

MAX_PIXELS = 200_000_000
"""Largest picture or frame that is decoded: 600 MB of RGB. More is taken for a mistake or an attack."""

_FORMATS = frozenset(
    """
    3g2 3gp asf avi dv flv gif gxf h264 hevc ivf m4v matroska mj2 mjpeg mov mp4 mpeg mpegts mpegvideo mxf nut ogg rm vob webm wtv
    yuv4mpegpipe
    """.split()
)
"""FFmpeg's containers of video. Play lists, scripts and text are not among them: they make FFmpeg open other files."""


@dataclasses.dataclass(frozen=True, slots=True)
class Index:
    """Presentation times of all frames that the packets announce: `times_s` float64, increasing, the first is 0."""

    times_s: NDArray[np.float64]
    width: int
    height: int

    @property
    def rate_fps(self) -> float:
        """Average frames a second; 0 where there are fewer than two."""
        return (len(self.times_s) - 1) / float(self.times_s[-1]) if len(self.times_s) > 1 and self.times_s[-1] > 0 else 0.0

    def __repr__(self) -> str:
        return f"Index({len(self.times_s)} frames, {self.width}x{self.height})"


@contextlib.contextmanager
def open_video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its first video stream. Raises MediaError where there is none or the file cannot be read."""
    with contextlib.ExitStack() as stack:
        try:
            file: BinaryIO = stack.enter_context(path.open("rb"))
            if not file.read(1):
                raise MediaError("empty", f"{path} is empty (0 bytes); copy it again from its source")
            file.seek(0)
            # Read through a file object: FFmpeg never sees the name, which could look like an address to it.
            container = stack.enter_context(av.open(file, mode="r", options={"protocol_whitelist": "file"}))
        except av.error.FFmpegError as error:
            message = f"{path} is not a video, or is cut off before its index ({error.strerror}); look at it with: ffprobe {typed(path)}"
            raise MediaError("not_media", message) from error
        except OSError as error:
            message = f"{path} cannot be read: {error.strerror}; check its permissions with: ls -l {typed(path)}"
            raise MediaError("unreadable", message) from error
        if not _FORMATS.intersection(container.format.name.split(",")):
            kind = container.format.long_name
            raise MediaError("not_media", f"{path} is not a video but {kind}; convert it, or leave it out with --exclude")
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
    """Reads all packets. Raises MediaError like `open_video`, or where the packets carry no times."""
    with open_video(path) as (container, stream):
        stamps = []
        try:
            for packet in container.demux(stream):
                if packet.size and not packet.is_discard:
                    stamps.append(packet.pts)
        except av.error.FFmpegError as error:
            raise MediaError("damaged", f"{path} is damaged after frame {len(stamps)} ({error.strerror})") from error
        if not stamps or None in stamps or stream.time_base is None:
            raise MediaError("no_times", f"{path} gives its frames no times")
        ordered = np.array(sorted(stamp for stamp in stamps if stamp is not None), np.int64)
        context = stream.codec_context
        # One rounding only, so that the times are those of exact fractions.
        times_s = (ordered - ordered[0]) * stream.time_base.numerator / stream.time_base.denominator
        return Index(times_s, context.width, context.height)
