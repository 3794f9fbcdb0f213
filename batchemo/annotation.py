"""The annotated copy of a medium, made from it and its table of faces."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batchemo.annotate import VideoWriter, write_picture
from batchemo.clock import read_clock
from batchemo.decode import Decoder, open_source
from batchemo.drawing import draw
from batchemo.encoders import encoder_of
from batchemo.layout import KEEP_SECONDS, Layout
from batchemo.marking import Marking
from batchemo.records import Medium, Segment
from batchemo.stopwatch import Stopwatch
from batchemo.strip import Strip, read_courses
from batchemo.style import Style

_MOST_BINS = 600
_BIN_SECONDS = 0.25
"""Of the strip's timeline, at least; 1.5 frames where they are sparse, so that it has no holes."""


def annotate(
    medium: Medium,
    path: Path,
    faces: Path,
    *,
    labels: Sequence[str],
    decoder: Decoder,
    sample_fps: float | None,
    style: Style,
    uncertain_below: float,
    beat: Callable[[], None],
    watch: Stopwatch,
    segment: Segment | None = None,
    index_offset: int = 0,
) -> None:
    """Writes to `path` the frames of `medium`, or of its `segment`, whose first frame is the `index_offset`th, with what its table `faces`
    says of them.

    `beat` is called after each frame. Raises MediaError where the medium or the copy defies its codec.
    """
    source = open_source(medium, decoder=decoder, segment=segment)
    start_s = segment.before_s or 0.0 if segment is not None else 0.0
    marking = Marking(faces, labels, uncertain_below=uncertain_below, hides=style.blur_faces, start_s=start_s)
    artist: _Artist | None = None
    with contextlib.ExitStack() as stack:
        video: VideoWriter | None = None
        for frame in watch.each("decode", source.frames(sample_fps=sample_fps)):
            if not frame.is_decoded:
                continue
            with watch.stage("decode"):
                pixels = frame.pixels
            with watch.stage("draw"):
                if artist is None:
                    strip = _strip(medium, faces, pixels, labels, sample_fps, uncertain_below) if style.timeline else None
                    artist = _Artist(labels, marking, Layout(labels, width=pixels.shape[1], height=pixels.shape[0]), strip)
                    artist.look_back(frame.time_s)
                drawn = artist.draw(pixels, frame.index + index_offset, frame.time_s)
            with watch.stage("encode"):
                if medium.kind == "image":
                    write_picture(path, drawn)
                    continue
                if video is None:
                    video = stack.enter_context(_writer(medium, path, drawn, style, whole=segment is None))
                video.write(drawn, frame.time_s)
            beat()


class _Artist:
    """Draws frames of one size."""

    def __init__(self, labels: Sequence[str], marking: Marking, layout: Layout, strip: Strip | None) -> None:
        self._labels = labels
        self._marking = marking
        self._layout = layout
        self._strip = strip

    def look_back(self, time_s: float) -> None:
        """Places what whoever drew the frames just before `time_s` has placed."""
        for index, shown_s in self._marking.before(time_s, since_s=time_s // KEEP_SECONDS * KEEP_SECONDS):
            self._layout.place(self._marking.of(index, shown_s), time_s=shown_s)

    def draw(self, pixels: NDArray[np.uint8], index: int, time_s: float) -> NDArray[np.uint8]:
        marks = self._marking.of(index, time_s)
        if not len(marks) and not len(marks.hidden) and self._strip is None:
            return pixels
        return draw(pixels, marks, labels=self._labels, layout=self._layout, strip=self._strip, time_s=time_s)


def _writer(medium: Medium, path: Path, drawn: NDArray[np.uint8], style: Style, *, whole: bool) -> VideoWriter:
    encoder = encoder_of(style.codec, quality=style.quality, hardware=style.hardware)
    height, width = drawn.shape[:2]
    return VideoWriter(path, source=medium.path, width=width, height=height, encoder=encoder, whole=whole)


def _strip(
    medium: Medium, faces: Path, pixels: NDArray[np.uint8], labels: Sequence[str], sample_fps: float | None, uncertain_below: float
) -> Strip | None:
    """None for a picture, which has no time."""
    if medium.kind == "image":
        return None
    end_s = read_clock(medium.path).length_s or _last_s(faces)
    step_s = max(_BIN_SECONDS, 1.5 / sample_fps if sample_fps else 0.0)
    courses = read_courses(faces, labels, bins=min(_MOST_BINS, max(1, int(end_s / step_s))), end_s=end_s)
    height, width = pixels.shape[:2]
    return Strip(courses, labels, width=width, height=height, end_s=end_s, uncertain_below=uncertain_below)


def _last_s(faces: Path) -> float:
    return float(pc.max(pq.read_table(faces, columns=["time_s"], partitioning=None)["time_s"]).as_py() or 0.0)
