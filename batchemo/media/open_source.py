"""Frames of a medium, whatever it is: chooses the decoder that suits it."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from batchemo.errors import MediaError, UsageError
from batchemo.media.animation import AnimationSource, read_animation_times
from batchemo.media.decord import MAX_DECODED_BYTES, DecordSource
from batchemo.media.packet_index import PacketIndex, read_packet_index, split_at_key_frames
from batchemo.media.picture import PictureSource, read_picture
from batchemo.media.pyav import PyAVSource
from batchemo.media.source import FrameSource, ReadReport
from batchemo.records import Frame, Medium, Segment

Decoder = Literal["auto", "decord", "pyav"]

_DECORD_READS = ("mov", "matroska")
"""Containers that `auto` gives to decord. A damaged AVI makes it end the process (segmentation fault, decord 0.6.0)."""


SEGMENT_SECONDS = 8.0
"""Least length of the segments that a video is divided into: what a killed run repeats, what one worker takes at a time, and a hundred
times what it costs to jump to a key frame."""


def split_into_segments(medium: Medium, *, decoder: Decoder = "auto") -> list[Segment]:
    """The segments that `medium` is analysed in, a function of the file and `decoder` alone: one for pictures, for short clips,
    and wherever the file is not whole or its container does not tell when its frames are shown."""
    if medium.kind == "image" or decoder == "decord" or _is_animation(medium):
        return [Segment()]
    try:
        index = read_packet_index(medium.path)
    except (MediaError, OSError):
        return [Segment()]
    if decoder == "auto" and _suits_decord(index) and _decord_installed():
        return [Segment()]
    return split_at_key_frames(medium.path, index, seconds=SEGMENT_SECONDS)


def open_source(medium: Medium, *, decoder: Decoder = "auto", segment: Segment | None = None) -> FrameSource:
    """The source that suits `medium`, or the `segment` of it, best. Raises UsageError where `decoder` is asked for but not installed.

    `auto` takes decord for clips whose frames all fit into its bound of memory (on one thread it read a clip of 640 x 360
    in .38 s, PyAV in .61 s), and PyAV for everything else and for whatever decord cannot read.
    """
    if medium.kind == "image":
        return PictureSource(medium.path)
    if _is_animation(medium):
        return AnimationSource(medium.path)
    if decoder == "pyav" or (segment is not None and not segment.is_whole):
        return PyAVSource(medium.path, segment)
    if decoder == "decord":
        if not _decord_installed():
            raise UsageError("decord is not installed here; use --decoder pyav")
        return DecordSource(medium.path)
    return _AutoSource(medium)


def pictures_at(medium: Medium, times_s: Sequence[float]) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """The frames of `medium` that are shown at exactly `times_s`, in their order, each with its time and as RGB uint8 H x W x 3.

    Where a frame cannot be had again, it is left out. Raises MediaError where the medium cannot be opened.
    """
    if medium.kind == "image":
        yield from ((time_s, read_picture(medium.path)) for time_s in times_s)
    else:
        yield from open_sequential_source(medium.path).pictures_at(times_s)


def open_sequential_source(path: Path) -> AnimationSource | PyAVSource:
    """The source that reads any video, in order. Raises MediaError where the file cannot be read."""
    return PyAVSource(path) if read_animation_times(path) is None else AnimationSource(path)


def _is_animation(medium: Medium) -> bool:
    """False for a file that cannot be read, which its decoder tells."""
    try:
        return read_animation_times(medium.path) is not None
    except MediaError:
        return False


def may_use_decord(medium: Medium) -> bool:
    """Whether `auto` may give `medium` to decord, as far as can be told without looking into its file: one of more bytes than a short clip
    has when decoded is none."""
    try:
        return medium.kind == "video" and _decord_installed() and medium.path.stat().st_size <= MAX_DECODED_BYTES
    except OSError:
        return False


def _decord_installed() -> bool:
    return importlib.util.find_spec("decord") is not None


def _suits_decord(index: PacketIndex) -> bool:
    return index.plain and index.container.startswith(_DECORD_READS) and len(index.times_s) * index.first.nbytes <= MAX_DECODED_BYTES


class _AutoSource:
    """decord where it suits and while it can, then PyAV from the same frame on."""

    def __init__(self, medium: Medium) -> None:
        self._medium = medium
        self._source: FrameSource = PyAVSource(medium.path)

    @property
    def decoder(self) -> str:
        return self._source.decoder

    @property
    def found(self) -> ReadReport:
        return self._source.found

    def frames(self, *, sample_fps: float | None = None, start_index: int = 0) -> Iterator[Frame]:
        following = start_index
        # Where few frames are wanted, PyAV makes pictures of those alone.
        index = _index_of_short_clip(self._medium) if sample_fps is None and _decord_installed() else None
        if index is not None and _suits_decord(index):
            pyav, self._source = self._source, DecordSource(self._medium.path, index)
            try:
                for frame in self._source.frames(start_index=start_index):
                    yield frame
                    following = frame.index + 1
            except MediaError as error:
                logging.getLogger("batchemo").info("%s; going on with PyAV", error)
                self._source = pyav
            else:
                return
        yield from self._source.frames(sample_fps=sample_fps, start_index=following)


def _index_of_short_clip(medium: Medium) -> PacketIndex | None:
    """None for what PyAV had better read; a file of more bytes than a short clip has when decoded is not read for that."""
    try:
        return read_packet_index(medium.path) if medium.path.stat().st_size <= MAX_DECODED_BYTES else None
    except (MediaError, OSError):
        return None
