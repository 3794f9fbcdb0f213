"""What a video file says of itself, read from its headers and packets without decoding."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from batchemo.errors import MediaError, typed, unreadable
from batchemo.media.headers import NO_CROP, Edit, is_cut_off, read_crops, read_edits
from batchemo.media.presentation import FramePresenter, choose_track, is_cover

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

SEEKABLE_FORMATS = ("mov", "matroska")
"""Containers that say for each packet when it is shown, and find their way to it."""

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
class PacketCount:
    """The frames that a file has packets of: `times_s` float64, sorted, of those with a time, in the container's own time.

    `untimed` more have none; `missing` ones are announced by the header alone. `moved`: files were strung together or there are several
    edits, and times are not those that FFmpeg gives.
    """

    times_s: NDArray[np.float64]
    untimed: int
    missing: int
    moved: bool = False

    @property
    def total(self) -> int:
        return len(self.times_s) + self.untimed + self.missing

    @property
    def repeats(self) -> bool:
        """Whether two frames have one time, or may have, since a frame without one takes that which follows."""
        return self.untimed > 0 or bool((np.diff(self.times_s) == 0).any())

    @property
    def has_clock(self) -> bool:
        """Whether each frame has a time of its own that the container gives, so that other readers give it, too."""
        return not self.moved and not self.repeats


@contextlib.contextmanager
def open_video(path: Path, *, edited: bool = True) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and the video track that a player shows; all of the track where it is not to be `edited`. Raises MediaError where there
    is none or the file cannot be read."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(MediaFile(path))
            if not file.read(1):
                raise MediaError("empty", f"{path} is empty (0 bytes); copy it again from its source")
            file.seek(0)
            options = _OPENING if edited else {**_OPENING, "ignore_editlist": "1"}
            container = stack.enter_context(av.open(file, mode="r", options=options, metadata_errors="replace"))
        except av.error.FFmpegError as error:
            message = f"{path} is not a video, or is cut off before its index; look at it with: ffprobe {typed(path)}"
            raise MediaError("not_media", message) from error
        except OSError as error:
            raise unreadable(path, error) from error
        stream = choose_track(container.streams.video)
        if stream is None:
            if any(not is_cover(each) for each in container.streams.video):
                raise MediaError("no_decoder", f"{path}: no decoder for its video; convert it with: ffmpeg -i {typed(path)} converted.mp4")
            raise MediaError("no_video", f"{path} has no video stream; list its streams with: ffprobe {typed(path)}")
        check_size(path, stream.codec_context.width, stream.codec_context.height)
        yield container, stream


def open_presenter(path: Path, container: InputContainer, stream: VideoStream, size: tuple[int, int] | None = None) -> FramePresenter:
    """Where the frames of `stream` are presented. Raises OSError."""
    with path.open("rb") as file:
        crops = read_crops(file, container.format.name)
    place = _place(container, stream)
    return FramePresenter(stream, crop=crops[place] if place < len(crops) else NO_CROP, size=size)


def read_edit_list(path: Path, container: InputContainer, stream: VideoStream) -> list[Edit]:
    """The edits of a film that is shown in pieces; empty where it is shown in one. Raises OSError."""
    with path.open("rb") as file:
        edits = read_edits(file, container.format.name)
    place = _place(container, stream)
    own = edits[place] if place < len(edits) else []
    return own if sum(edit.start_s is not None for edit in own) > 1 else []


def _place(container: InputContainer, stream: VideoStream) -> int:
    """Of `stream` among the video tracks of its file."""
    return [each.index for each in container.streams.video if not is_cover(each)].index(stream.index)


def check_size(path: Path, width: int, height: int) -> None:
    """Raises MediaError for a picture that is too large to decode."""
    if width * height > MAX_PIXELS:
        raise MediaError(
            "too_large",
            f"{path} is {width} x {height} pixels; at most {MAX_PIXELS // 1_000_000} million are analysed. Make it smaller first",
        )


def missing_frames(path: Path, container: InputContainer, stream: VideoStream, *, seen: int, end_s: float) -> int:
    """How many frames the header promises beyond the `seen` ones, whose last ends at `end_s` of the container's time.

    A header alone proves nothing: writers copy it from longer films. Of containers that tell their size, it must be lacking, too.
    """
    if "mov" in container.format.name:
        # Not `stream.frames`, which counts what an edit list leaves out, too.
        return max(0, len(stream.index_entries) - seen)
    lacking_s = _stated_end_s(container, stream) - end_s
    if lacking_s < _CUT_OFF_S or end_s <= 0:
        return 0
    with path.open("rb") as file:
        return round(lacking_s * seen / end_s) if is_cut_off(file, container.format.name) else 0


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


def frame_duration_s(duration: int | None, stream: VideoStream) -> float:
    """How long a frame is shown, from the `duration` that its packet states, if any."""
    if duration and stream.time_base:
        return float(duration * stream.time_base)
    return float(1 / stream.average_rate) if stream.average_rate else _FALLBACK_STEP_S
