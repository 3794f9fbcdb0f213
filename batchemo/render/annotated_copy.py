"""Writes the annotated copy of a medium, from the medium and its faces table."""

from __future__ import annotations

import bisect
import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchemo.media.decode import Decoder, open_source, split_into_segments
from batchemo.options import Style
from batchemo.records import Frame, Medium, OverlayData, Segment
from batchemo.render.blur_check import BlurCheck
from batchemo.render.encoders import encoder_of
from batchemo.render.jpeg import write_jpeg
from batchemo.render.layout import KEEP_PLACES_SECONDS, Layout
from batchemo.render.overlay import OverlayPainter, draw_overlay
from batchemo.render.overlay_data import OverlayReader
from batchemo.render.timeline_strip import TimelineStrip, read_track_timelines
from batchemo.render.timestamps import read_output_clock
from batchemo.render.video_writer import VideoWriter
from batchemo.timing import Stopwatch
from batchemo.yuv import Planes

_MAX_BINS = 600
_MIN_BIN_SECONDS = 0.25
"""Of the timeline strip. Where sampling is sparse, bins last 1.5 frames, so that none is empty."""

_OverlaidFrame = tuple[Frame, OverlayData]


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
    on_frame: Callable[[], None],
    heartbeat: Callable[[], None] = lambda: None,
    watch: Stopwatch,
    segment: Segment | None = None,
    index_offset: int = 0,
) -> tuple[float, ...]:
    """Writes the annotated copy of `medium`, or of one `segment` of it, to `path`. `faces` is its faces table, `index_offset` the index of
    the segment's first frame.

    Returns the times of faces that may be left unblurred, where faces are to be blurred (see `BlurCheck`, which runs on `device`).
    `on_frame` is called after each frame, `heartbeat` also within one that takes long. Raises MediaError where the medium cannot be decoded
    or the copy cannot be encoded.
    """
    source = open_source(medium, decoder=decoder, segment=segment)
    decoded = (frame for frame in watch.each("decode", source.frames(sample_fps=sample_fps)) if frame.is_decoded)
    first = next(decoded, None)
    if first is None:
        return ()
    start_s = segment.before_s or 0.0 if segment is not None else 0.0
    overlays = OverlayReader(faces, labels, uncertain_below=uncertain_below, blur_faces=style.blur_faces, start_s=start_s)
    layout = Layout(labels, width=source.report.width, height=source.report.height)
    _restore_places(layout, overlays, first.time_s)
    frames = _with_overlays(itertools.chain([first], decoded), overlays, index_offset, on_frame, watch)
    check = BlurCheck(style=style.blur_style, device=device, heartbeat=heartbeat) if style.blur_faces else None
    if check is not None:
        segments = _split_by_segment(frames, medium, decoder) if segment is None else [frames]
        frames = watch.each("check blur", itertools.chain.from_iterable(map(check.check, segments)))
    if medium.kind == "image":
        for frame, overlay in frames:
            _annotate_picture(frame, overlay, path, labels, style, watch)
    else:
        with watch.stage("draw"):
            strip = _read_strip(medium, faces, layout, labels, sample_fps, uncertain_below) if style.timeline else None
            painter = _FramePainter(OverlayPainter(labels, layout, blur_style=style.blur_style), strip)
        _annotate_video(medium, path, frames, painter, style, watch, whole=segment is None)
    return tuple(check.possible_faces_s) if check is not None else ()


def _restore_places(layout: Layout, overlays: OverlayReader, time_s: float) -> None:
    """Places the overlays of the frames just before `time_s` as the worker of the previous segment does: labels must not jump."""
    for index, shown_s in overlays.frames_before(time_s, since_s=time_s // KEEP_PLACES_SECONDS * KEEP_PLACES_SECONDS):
        layout.place(overlays.overlay_at(index, shown_s), time_s=shown_s)


def _with_overlays(
    frames: Iterator[Frame], overlays: OverlayReader, index_offset: int, on_frame: Callable[[], None], watch: Stopwatch
) -> Iterator[_OverlaidFrame]:
    for frame in frames:
        with watch.stage("draw"):
            overlay = overlays.overlay_at(frame.index + index_offset, frame.time_s)
        yield frame, overlay
        on_frame()


def _split_by_segment(frames: Iterator[_OverlaidFrame], medium: Medium, decoder: Decoder) -> Iterator[Iterator[_OverlaidFrame]]:
    """The frames of a whole medium by segment, so that the blur check gives the same result however the work is divided."""
    ends_s = [segment.before_s for segment in split_into_segments(medium, decoder=decoder) if segment.before_s is not None]
    for _, segment_frames in itertools.groupby(frames, key=lambda each: bisect.bisect_left(ends_s, each[0].time_s)):
        yield segment_frames


def _annotate_picture(frame: Frame, overlay: OverlayData, path: Path, labels: Sequence[str], style: Style, watch: Stopwatch) -> None:
    with watch.stage("draw"):
        drawn = draw_overlay(frame.pixels, overlay, labels=labels, blur_style=style.blur_style)
    with watch.stage("encode"):
        write_jpeg(path, drawn)


def _annotate_video(
    medium: Medium, path: Path, frames: Iterator[_OverlaidFrame], painter: _FramePainter, style: Style, watch: Stopwatch, *, whole: bool
) -> None:
    with contextlib.ExitStack() as stack:
        video: VideoWriter | None = None
        for frame, overlay in frames:
            with watch.stage("draw"):
                drawn = painter.draw(frame.planes, overlay, frame.time_s)
            with watch.stage("encode"):
                if video is None:
                    video = stack.enter_context(_open_writer(medium, path, drawn, style, whole=whole))
                video.write(drawn, frame.time_s)


class _FramePainter:
    """Draws the overlay and the timeline strip of frames of one size."""

    def __init__(self, painter: OverlayPainter, strip: TimelineStrip | None) -> None:
        self._painter = painter
        self._strip = strip

    def draw(self, planes: Planes, overlay: OverlayData, time_s: float) -> Planes:
        """A copy of the frame with its overlay, and the strip below it."""
        drawn = planes.copy(rows=0 if self._strip is None else self._strip.height)
        self._painter.draw(drawn, overlay, time_s=time_s)
        if self._strip is not None:
            drawn.set_rgb(self._strip.render_at(time_s), 0, planes.size[1])
        return drawn


def _open_writer(medium: Medium, path: Path, drawn: Planes, style: Style, *, whole: bool) -> VideoWriter:
    encoder = encoder_of(style.codec, quality=style.quality, hardware=style.hardware)
    width, height = drawn.size
    return VideoWriter(path, source=medium.path, width=width, height=height, colours=drawn.colours, encoder=encoder, whole=whole)


def _read_strip(
    medium: Medium, faces: Path, layout: Layout, labels: Sequence[str], sample_fps: float | None, uncertain_below: float
) -> TimelineStrip:
    end_s = read_output_clock(medium.path).duration_s or _last_time_s(faces)
    bin_s = max(_MIN_BIN_SECONDS, 1.5 / sample_fps if sample_fps else 0.0)
    timelines = read_track_timelines(faces, labels, bins=min(_MAX_BINS, max(1, int(end_s / bin_s))), end_s=end_s)
    _, _, width, height = layout.picture
    return TimelineStrip(timelines, labels, width=width, height=height, end_s=end_s, uncertain_below=uncertain_below)


def _last_time_s(faces: Path) -> float:
    return float(pc.max(pq.read_table(faces, columns=["time_s"], partitioning=None)["time_s"]).as_py() or 0.0)
