"""Opens any medium with the decoder that suits it."""

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

_DECORD_FORMATS = ("mov", "matroska")
"""Containers that `auto` reads with decord. A damaged AVI crashes the process (segmentation fault, decord 0.6.0)."""


SEGMENT_SECONDS = 8.0
"""Minimum length of a segment. A killed run repeats at most one segment, and a worker takes one at a time; it is long enough to make the
cost of seeking to its key frame negligible."""


def split_into_segments(medium: Medium, *, decoder: Decoder = "auto") -> list[Segment]:
    """The segments in which `medium` is analysed. They depend on the file and `decoder` alone.

    A medium is one segment if it is a picture, an animation, a short clip that decord reads, damaged, or in a container without reliable
    timestamps.
    """
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
    """Opens `medium`, or one `segment` of it. Raises UsageError where `decoder` is not installed.

    `auto` uses decord for clips whose decoded frames fit into its memory limit, because it is faster there (see docs/benchmarks.md), and
    PyAV for everything else and for whatever decord cannot read.
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
    """Yields the frames of `medium` presented at exactly `times_s` (increasing), each as its time and RGB uint8 H x W x 3.

    A frame that cannot be decoded again is left out. Raises MediaError where the medium cannot be opened.
    """
    if medium.kind == "image":
        yield from ((time_s, read_picture(medium.path)) for time_s in times_s)
    else:
        yield from open_sequential_source(medium.path).pictures_at(times_s)


def open_sequential_source(path: Path) -> AnimationSource | PyAVSource:
    """The source that reads any video in order, without segments or decord. Raises MediaError where the file cannot be read."""
    return PyAVSource(path) if read_animation_times(path) is None else AnimationSource(path)


def _is_animation(medium: Medium) -> bool:
    """False for a file that cannot be read: its decoder will raise the error."""
    try:
        return read_animation_times(medium.path) is not None
    except MediaError:
        return False


def may_use_decord(medium: Medium) -> bool:
    """Whether `auto` might read `medium` with decord, judged without opening the file: a file larger than the limit for decoded frames
    is no short clip."""
    try:
        return medium.kind == "video" and _decord_installed() and medium.path.stat().st_size <= MAX_DECODED_BYTES
    except OSError:
        return False


def _decord_installed() -> bool:
    return importlib.util.find_spec("decord") is not None


def _suits_decord(index: PacketIndex) -> bool:
    return (
        index.decord_safe
        and index.container.startswith(_DECORD_FORMATS)
        and len(index.times_s) * index.first_frame.nbytes <= MAX_DECODED_BYTES
    )


class _AutoSource:
    """Reads with decord where it is suitable and as long as it works, then with PyAV from the same frame on."""

    def __init__(self, medium: Medium) -> None:
        self._medium = medium
        self._source: FrameSource = PyAVSource(medium.path)

    @property
    def decoder(self) -> str:
        return self._source.decoder

    @property
    def report(self) -> ReadReport:
        return self._source.report

    def frames(self, *, sample_fps: float | None = None, start_index: int = 0) -> Iterator[Frame]:
        next_index = start_index
        # With sampling PyAV is better: it converts only the sampled frames to RGB.
        index = _read_short_clip_index(self._medium) if sample_fps is None and _decord_installed() else None
        if index is not None and _suits_decord(index):
            pyav, self._source = self._source, DecordSource(self._medium.path, index)
            try:
                for frame in self._source.frames(start_index=start_index):
                    yield frame
                    next_index = frame.index + 1
            except MediaError as error:
                logging.getLogger("batchemo").info("%s; continuing with PyAV", error)
                self._source = pyav
            else:
                return
        yield from self._source.frames(sample_fps=sample_fps, start_index=next_index)


def _read_short_clip_index(medium: Medium) -> PacketIndex | None:
    """None where PyAV should read the medium. A file larger than the limit for decoded frames is not even opened."""
    try:
        return read_packet_index(medium.path) if medium.path.stat().st_size <= MAX_DECODED_BYTES else None
    except (MediaError, OSError):
        return None
