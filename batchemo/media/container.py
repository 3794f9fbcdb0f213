"""Opens video files with FFmpeg, and reads from their headers what a decoder needs."""

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
from batchemo.media.headers import NO_CROP, Edit, is_truncated, read_crops, read_edits
from batchemo.media.presentation import FramePresenter, choose_track, is_cover

MAX_PIXELS = 200_000_000
"""Largest picture or frame that is decoded (600 MB of RGB). A larger one is a mistake or a decompression bomb."""

_FORMATS = frozenset(
    """
    3g2 3gp asf avi dv flv gif gxf h264 hevc ivf m4v matroska mj2 mjpeg mov mp4 mpeg mpegts mpegvideo mxf nut ogg rm vob webm wtv
    yuv4mpegpipe
    """.split()
)
"""FFmpeg's names of video containers. Playlists, scripts and text are excluded, since they make FFmpeg open other files."""

_OPEN_OPTIONS = {"format_whitelist": ",".join(sorted(_FORMATS)), "protocol_whitelist": ""}

SEEKABLE_FORMATS = ("mov", "matroska")
"""Containers that state a PTS for each packet and have an index for seeking."""

_FALLBACK_FRAME_S = 1 / 25
"""Duration of a frame where neither its packet nor the stream states one."""

_TRUNCATED_BY_S = 1.0
"""A file that ends this much before its stated end is truncated; less is the containers' rounding."""


class MediaFile(io.BufferedReader):
    """A file that FFmpeg reads through Python, so that it never sees the name, which it could take for a URL.

    Raises OSError where the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path.open("rb", buffering=0))

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """The new position, or -1, FFmpeg's error code: damaged files make FFmpeg seek to impossible positions, and PyAV would print
        what Python raises."""
        try:
            return super().seek(offset, whence)
        except (OSError, ValueError):
            return -1


@dataclasses.dataclass(frozen=True, slots=True)
class PacketCount:
    """The frames that a file announces: `times_s` float64, sorted, of the packets with a timestamp, in the container's time.

    `untimed` more packets have no timestamp; `missing` frames are announced by the header alone. `retimed`: the times are not those that
    FFmpeg reports, because files were concatenated or there are several edits.
    """

    times_s: NDArray[np.float64]
    untimed: int
    missing: int
    retimed: bool = False

    @property
    def total(self) -> int:
        return len(self.times_s) + self.untimed + self.missing

    @property
    def has_duplicate_times(self) -> bool:
        """Whether two frames have, or may have, the same time: a frame without a timestamp gets a calculated one."""
        return self.untimed > 0 or bool((np.diff(self.times_s) == 0).any())

    @property
    def has_exact_times(self) -> bool:
        """Whether each frame has a timestamp of its own from the container, which other readers report as well."""
        return not self.retimed and not self.has_duplicate_times


@contextlib.contextmanager
def open_video(path: Path, *, apply_edit_list: bool = True) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Opens the container and the video track that a player shows; `apply_edit_list=False` keeps the samples that its edit list cuts.

    Raises MediaError where there is no video track or the file cannot be read.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(MediaFile(path))
            if not file.read(1):
                raise MediaError("empty", f"{path} is empty (0 bytes); copy it again from its source")
            file.seek(0)
            options = _OPEN_OPTIONS if apply_edit_list else {**_OPEN_OPTIONS, "ignore_editlist": "1"}
            container = stack.enter_context(av.open(file, mode="r", options=options, metadata_errors="replace"))
        except av.error.FFmpegError as error:
            message = f"{path} is no video, or is truncated before its index; inspect it with: ffprobe {typed(path)}"
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
    """The presenter of the frames of `stream`, with the crop that the container states. Raises OSError."""
    with path.open("rb") as file:
        crops = read_crops(file, container.format.name)
    number = _track_number(container, stream)
    return FramePresenter(stream, crop=crops[number] if number < len(crops) else NO_CROP, size=size)


def read_edit_list(path: Path, container: InputContainer, stream: VideoStream) -> list[Edit]:
    """The edit list of `stream` if it presents several parts of the media; empty for one edit, which FFmpeg applies well. Raises
    OSError."""
    with path.open("rb") as file:
        edits = read_edits(file, container.format.name)
    number = _track_number(container, stream)
    own = edits[number] if number < len(edits) else []
    return own if sum(edit.start_s is not None for edit in own) > 1 else []


def _track_number(container: InputContainer, stream: VideoStream) -> int:
    """Position of `stream` among the video tracks of its file, without cover pictures."""
    return [each.index for each in container.streams.video if not is_cover(each)].index(stream.index)


def check_size(path: Path, width: int, height: int) -> None:
    """Raises MediaError for a picture that is too large to decode."""
    if width * height > MAX_PIXELS:
        raise MediaError(
            "too_large",
            f"{path} is {width} x {height} pixels; at most {MAX_PIXELS // 1_000_000} million are analysed. Make it smaller first",
        )


def count_missing_frames(path: Path, container: InputContainer, stream: VideoStream, *, seen: int, end_s: float) -> int:
    """How many frames the header announces beyond the `seen` ones, the last of which ends at `end_s` (container time).

    A header alone proves nothing: tools that cut videos copy it from longer ones. If the container states its file size, the file must be
    truncated, too.
    """
    if "mov" in container.format.name:
        # Not `stream.frames`: that also counts the samples that the edit list cuts.
        return max(0, len(stream.index_entries) - seen)
    missing_s = _stated_end_s(container, stream) - end_s
    if missing_s < _TRUNCATED_BY_S or end_s <= 0:
        return 0
    with path.open("rb") as file:
        return round(missing_s * seen / end_s) if is_truncated(file, container.format.name) else 0


def _stated_end_s(container: InputContainer, stream: VideoStream) -> float:
    """End of the video by its header; 0 where that is not stated."""
    if container.format.name == "avi":
        # AVI states a number of frames, dropped ones included; FFmpeg shortens the duration of a truncated AVI.
        return float(stream.frames * (stream.time_base or 0))
    # Matroska's Duration is that of the longest track; most muxers write the tag DURATION for each track.
    hours, _, rest = stream.metadata.get("DURATION", "").partition(":")
    minutes, _, seconds = rest.partition(":")
    try:
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return 0.0


def frame_duration_s(duration: int | None, stream: VideoStream) -> float:
    """How long a frame is shown: the packet's `duration` in ticks if stated, or else the stream's average."""
    if duration and stream.time_base:
        return float(duration * stream.time_base)
    return float(1 / stream.average_rate) if stream.average_rate else _FALLBACK_FRAME_S
