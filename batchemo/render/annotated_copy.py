"""The annotated copy of a medium, made from it and its table of faces."""

from __future__ import annotations

import bisect
import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchemo.media.open_source import Decoder, open_source, split_into_segments
from batchemo.options import Style
from batchemo.records import Frame, Medium, OverlayData, Segment
from batchemo.render.blur_check import BlurCheck
from batchemo.render.encoders import encoder_of
from batchemo.render.jpeg import write_jpeg
from batchemo.render.layout import KEEP_SECONDS, Layout
from batchemo.render.overlay import OverlayPainter, draw_overlay
from batchemo.render.overlay_data import OverlayReader
from batchemo.render.timeline_strip import TimelineStrip, read_track_timelines
from batchemo.render.timestamps import read_output_clock
from batchemo.render.video_writer import VideoWriter
from batchemo.timing import Stopwatch
from batchemo.yuv import Planes

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
    device: str = "cpu",
    beat: Callable[[], None],
    alive: Callable[[], None] = lambda: None,
    watch: Stopwatch,
    segment: Segment | None = None,
    index_offset: int = 0,
) -> tuple[float, ...]:
    """Writes to `path` the frames of `medium`, or of its `segment`, whose first frame is the `index_offset`th, with what its table `faces`
    says of them. Where faces are hidden, gives the time of each that may be left (see `BlurCheck`, which runs on `device`).

    `beat` is called for each frame, `alive` amid one that takes long. Raises MediaError where the medium or the copy defies its codec.
    """
    source = open_source(medium, decoder=decoder, segment=segment)
    frames = (frame for frame in watch.each("decode", source.frames(sample_fps=sample_fps)) if frame.is_decoded)
    first = next(frames, None)
    if first is None:
        return ()
    start_s = segment.before_s or 0.0 if segment is not None else 0.0
    marking = OverlayReader(faces, labels, uncertain_below=uncertain_below, hides=style.blur_faces, start_s=start_s)
    layout = Layout(labels, width=source.found.width, height=source.found.height)
    _look_back(marking, layout, first.time_s)
    marked = _marked(itertools.chain([first], frames), marking, index_offset, beat, watch)
    check = BlurCheck(style=style.blur_style, device=device, alive=alive) if style.blur_faces else None
    if check is not None:
        stretches = _stretches(marked, medium, decoder) if segment is None else [marked]
        marked = watch.each("check blur", itertools.chain.from_iterable(map(check.complete, stretches)))
    if medium.kind == "image":
        for frame, marks in marked:
            _annotate_picture(frame, marks, path, labels, style, watch)
    else:
        with watch.stage("draw"):
            size = source.found.width, source.found.height
            strip = _strip(medium, faces, size, labels, sample_fps, uncertain_below) if style.timeline else None
            artist = _Artist(OverlayPainter(labels, layout, blur_style=style.blur_style), strip)
        _annotate_video(medium, path, marked, artist, style, watch, whole=segment is None)
    return tuple(check.left) if check is not None else ()


def _look_back(marking: OverlayReader, layout: Layout, time_s: float) -> None:
    """Places what whoever drew the frames just before `time_s` has placed."""
    for index, shown_s in marking.before(time_s, since_s=time_s // KEEP_SECONDS * KEEP_SECONDS):
        layout.place(marking.of(index, shown_s), time_s=shown_s)


def _marked(
    frames: Iterator[Frame], marking: OverlayReader, index_offset: int, beat: Callable[[], None], watch: Stopwatch
) -> Iterator[tuple[Frame, OverlayData]]:
    """Each frame with what is drawn onto it."""
    for frame in frames:
        with watch.stage("draw"):
            marks = marking.of(frame.index + index_offset, frame.time_s)
        yield frame, marks
        beat()


def _stretches(
    marked: Iterator[tuple[Frame, OverlayData]], medium: Medium, decoder: Decoder
) -> Iterator[Iterator[tuple[Frame, OverlayData]]]:
    """The frames of each segment of a whole medium: what is blurred must not depend on who draws it."""
    ends_s = [segment.before_s for segment in split_into_segments(medium, decoder=decoder) if segment.before_s is not None]
    for _, stretch in itertools.groupby(marked, key=lambda each: bisect.bisect_left(ends_s, each[0].time_s)):
        yield stretch


def _annotate_picture(frame: Frame, marks: OverlayData, path: Path, labels: Sequence[str], style: Style, watch: Stopwatch) -> None:
    with watch.stage("draw"):
        drawn = draw_overlay(frame.pixels, marks, labels=labels, blur_style=style.blur_style)
    with watch.stage("encode"):
        write_jpeg(path, drawn)


def _annotate_video(
    medium: Medium, path: Path, marked: Iterator[tuple[Frame, OverlayData]], artist: _Artist, style: Style, watch: Stopwatch, *, whole: bool
) -> None:
    with contextlib.ExitStack() as stack:
        video: VideoWriter | None = None
        for frame, marks in marked:
            with watch.stage("draw"):
                drawn = artist.draw(frame.planes, marks, frame.time_s)
            with watch.stage("encode"):
                if video is None:
                    video = stack.enter_context(_writer(medium, path, drawn, style, whole=whole))
                video.write(drawn, frame.time_s)


class _Artist:
    """Draws frames of one size."""

    def __init__(self, brush: OverlayPainter, strip: TimelineStrip | None) -> None:
        self._brush = brush
        self._strip = strip

    def draw(self, planes: Planes, marks: OverlayData, time_s: float) -> Planes:
        """A copy with what is known of the frame, and the strip below it."""
        drawn = planes.copy(rows=0 if self._strip is None else self._strip.height)
        self._brush.draw(drawn, marks, time_s=time_s)
        if self._strip is not None:
            drawn.put(self._strip.at(time_s), 0, planes.size[1])
        return drawn


def _writer(medium: Medium, path: Path, drawn: Planes, style: Style, *, whole: bool) -> VideoWriter:
    encoder = encoder_of(style.codec, quality=style.quality, hardware=style.hardware)
    width, height = drawn.size
    return VideoWriter(path, source=medium.path, width=width, height=height, colours=drawn.colours, encoder=encoder, whole=whole)


def _strip(
    medium: Medium, faces: Path, size: tuple[int, int], labels: Sequence[str], sample_fps: float | None, uncertain_below: float
) -> TimelineStrip:
    end_s = read_output_clock(medium.path).length_s or _last_s(faces)
    step_s = max(_BIN_SECONDS, 1.5 / sample_fps if sample_fps else 0.0)
    courses = read_track_timelines(faces, labels, bins=min(_MOST_BINS, max(1, int(end_s / step_s))), end_s=end_s)
    width, height = size
    return TimelineStrip(courses, labels, width=width, height=height, end_s=end_s, uncertain_below=uncertain_below)


def _last_s(faces: Path) -> float:
    return float(pc.max(pq.read_table(faces, columns=["time_s"], partitioning=None)["time_s"]).as_py() or 0.0)
