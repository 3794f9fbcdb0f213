"""Chains the stages of one medium: decode -> detect or propagate -> align -> classify -> assemble -> annotate -> thumbnails."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchemo.errors import MediaError, blaming
from batchemo.pipeline.assemble import KeptTables, TableAssembler
from batchemo.pipeline.context import RenderProgress, RunContext
from batchemo.pipeline.segments import FrameResults, RenderTask, remove_segments
from batchemo.records import Medium, MediumOutcome
from batchemo.render.annotated_copy import annotate
from batchemo.render.thumbnails import write_picture_thumbnails, write_thumbnails
from batchemo.results.catalog import MediumResults
from batchemo.results.paths import annotated_path
from batchemo.timing import Stopwatch


def analyse_medium(
    medium: Medium,
    context: RunContext,
    tables: TableAssembler | KeptTables,
    segments: Callable[[dict[str, Any]], Iterable[FrameResults]],
    watch: Stopwatch,
    *,
    thumbnails: Sequence[NDArray[np.uint8]] | None = None,
) -> MediumOutcome:
    """Runs all stages, and returns the row of the medium. If it cannot be analysed, the row says why; the tables hold what was read.

    - `segments` gives the frame results by segment, for the `origin` of `tables`; iterating over them runs frame inference.
    - With `KeptTables` there are no segments: the copy is drawn from the tables of an earlier run.
    - `thumbnails`: those of a picture, which are cropped while it is in memory.
    """
    options = context.options
    with tables:
        if tables.readable:
            try:
                with blaming(medium.path):
                    for segment in segments(tables.origin):
                        tables.add(segment)
                    if options.annotate:
                        faces, frames = tables.faces_path(), tables.kept_frames
                        tables.add_faces_left(annotate_medium(medium, faces, context, watch, frames=frames))
            except MediaError as error:
                tables.fail(error)
        row = tables.finish()
    remove_segments(context.results, medium)
    if options.portrays and row.n_faces and not tables.has_thumbnails:
        make_thumbnails(medium, context, watch, thumbnails)
    return MediumOutcome(row, dict(watch.seconds), tables.processors)


def redraw_medium(medium: Medium, entry: MediumResults, context: RunContext) -> MediumOutcome:
    """Annotate -> thumbnails, from the tables of an earlier run."""
    watch = Stopwatch()
    return analyse_medium(medium, context, KeptTables(medium, entry, context, watch), lambda _origin: (), watch)


def annotate_medium(
    medium: Medium,
    faces: Path,
    context: RunContext,
    watch: Stopwatch,
    *,
    task: RenderTask | None = None,
    frames: int = 0,
) -> tuple[float, ...]:
    """Writes the annotated copy of a medium, or of the segment of `task`, from the table `faces`. Returns the times (s) at which faces may
    be left in a blurred copy. `frames`: see `RenderProgress`. Raises MediaError."""
    options, progress = context.options, RenderProgress(context, frames=frames)
    style = options.style()
    if task is not None and options.engine == "dask":  # segments of one video need one encoder, and machines differ
        style = dataclasses.replace(style, hardware=False)
    return annotate(
        medium,
        task.path if task else annotated_path(context.results, medium.output, medium.kind),
        faces,
        labels=context.labels,
        decoder=options.decoder,
        sample_fps=options.sample_fps,
        style=style,
        uncertain_below=options.uncertain_below,
        device=options.device,
        on_frame=progress.next_frame,
        heartbeat=progress.keep_alive,
        watch=watch,
        segment=task.segment if task else None,
        index_offset=task.index_offset if task else 0,
    )


def make_thumbnails(medium: Medium, context: RunContext, watch: Stopwatch, cropped: Sequence[NDArray[np.uint8]] | None = None) -> None:
    """Writes the thumbnails of a medium whose tables are complete; those of a picture may be `cropped` already."""
    with watch.stage("thumbnails"):
        if cropped is None:
            write_thumbnails(medium, context.results, heartbeat=context.keep_alive)
        else:
            write_picture_thumbnails(medium, context.results, cropped, heartbeat=context.keep_alive)
