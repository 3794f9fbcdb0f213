"""The annotated copy of a medium, made from it and its table of faces."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchemo.media.decode import Decoder, open_source
from batchemo.planes import Planes
from batchemo.records import Frame, Medium, Segment
from batchemo.render.encoders import encoder_of
from batchemo.render.layout import KEEP_SECONDS, Layout
from batchemo.render.overlay import Brush, draw
from batchemo.render.overlay_data import Marking
from batchemo.render.timeline_strip import Strip, read_courses
from batchemo.render.timestamps import read_clock
from batchemo.render.video_writer import VideoWriter, write_picture
from batchemo.stopwatch import Stopwatch
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
            if medium.kind == "image":
                _annotate_picture(frame, path, marking, labels, watch)
                continue
            with watch.stage("draw"):
                planes = frame.planes
                if artist is None:
                    width, height = source.found.width, source.found.height
                    strip = _strip(medium, faces, (width, height), labels, sample_fps, uncertain_below) if style.timeline else None
                    artist = _Artist(labels, marking, Layout(labels, width=width, height=height), strip)
                    artist.look_back(frame.time_s)
                drawn = artist.draw(planes, frame.index + index_offset, frame.time_s)
            with watch.stage("encode"):
                if video is None:
                    video = stack.enter_context(_writer(medium, path, drawn, style, whole=segment is None))
                video.write(drawn, frame.time_s)
            beat()


def _annotate_picture(frame: Frame, path: Path, marking: Marking, labels: Sequence[str], watch: Stopwatch) -> None:
    with watch.stage("draw"):
        drawn = draw(frame.pixels, marking.of(frame.index, frame.time_s), labels=labels)
    with watch.stage("encode"):
        write_picture(path, drawn)


class _Artist:
    """Draws frames of one size."""

    def __init__(self, labels: Sequence[str], marking: Marking, layout: Layout, strip: Strip | None) -> None:
        self._brush = Brush(labels, layout)
        self._marking = marking
        self._layout = layout
        self._strip = strip

    def look_back(self, time_s: float) -> None:
        """Places what whoever drew the frames just before `time_s` has placed."""
        for index, shown_s in self._marking.before(time_s, since_s=time_s // KEEP_SECONDS * KEEP_SECONDS):
            self._layout.place(self._marking.of(index, shown_s), time_s=shown_s)

    def draw(self, planes: Planes, index: int, time_s: float) -> Planes:
        """A copy with what is known of the frame, and the strip below it."""
        drawn = planes.copy(rows=0 if self._strip is None else self._strip.height)
        self._brush.draw(drawn, self._marking.of(index, time_s), time_s=time_s)
        if self._strip is not None:
            drawn.put(self._strip.at(time_s), 0, planes.size[1])
        return drawn


def _writer(medium: Medium, path: Path, drawn: Planes, style: Style, *, whole: bool) -> VideoWriter:
    encoder = encoder_of(style.codec, quality=style.quality, hardware=style.hardware)
    width, height = drawn.size
    return VideoWriter(path, source=medium.path, width=width, height=height, colours=drawn.colours, encoder=encoder, whole=whole)


def _strip(
    medium: Medium, faces: Path, size: tuple[int, int], labels: Sequence[str], sample_fps: float | None, uncertain_below: float
) -> Strip:
    end_s = read_clock(medium.path).length_s or _last_s(faces)
    step_s = max(_BIN_SECONDS, 1.5 / sample_fps if sample_fps else 0.0)
    courses = read_courses(faces, labels, bins=min(_MOST_BINS, max(1, int(end_s / step_s))), end_s=end_s)
    width, height = size
    return Strip(courses, labels, width=width, height=height, end_s=end_s, uncertain_below=uncertain_below)


def _last_s(faces: Path) -> float:
    return float(pc.max(pq.read_table(faces, columns=["time_s"], partitioning=None)["time_s"]).as_py() or 0.0)
