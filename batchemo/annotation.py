"""The annotated copy of a medium, made from it and its table of faces."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from batchemo.annotate import VideoWriter, write_picture
from batchemo.decode import Decoder, open_source
from batchemo.drawing import draw
from batchemo.records import Frame, Marks, Medium, Segment
from batchemo.stopwatch import Stopwatch
from batchemo.tables import BOX

_ROWS_AT_ONCE = 8192


def annotate(
    medium: Medium,
    path: Path,
    faces: Path,
    *,
    labels: Sequence[str],
    decoder: Decoder,
    sample_fps: float | None,
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
    frames = watch.each("decode", source.frames(sample_fps=sample_fps))
    marked = _marked(frames, _marks(faces, labels, first_index=index_offset), index_offset)
    with contextlib.ExitStack() as stack:
        video: VideoWriter | None = None
        for frame, marks in marked:
            if not frame.is_decoded:
                continue
            with watch.stage("decode"):
                pixels = frame.pixels
            with watch.stage("draw"):
                drawn = pixels if marks is None else draw(pixels, marks, labels=labels)
            with watch.stage("encode"):
                if medium.kind == "image":
                    write_picture(path, drawn)
                    continue
                if video is None:
                    height, width = drawn.shape[:2]
                    video = stack.enter_context(VideoWriter(path, source=medium.path, width=width, height=height, whole=segment is None))
                video.write(drawn, frame.time_s)
            beat()


def _marked(frames: Iterable[Frame], marks: Iterator[tuple[int, Marks]], index_offset: int) -> Iterator[tuple[Frame, Marks | None]]:
    """Each frame with its marks; both come in the order of their indices."""
    following = next(marks, None)
    for frame in frames:
        index = frame.index + index_offset
        while following is not None and following[0] < index:
            following = next(marks, None)
        yield frame, following[1] if following is not None and following[0] == index else None


def _marks(faces: Path, labels: Sequence[str], *, first_index: int) -> Iterator[tuple[int, Marks]]:
    """What to draw by frame, from the frame with `first_index` on; a few thousand rows are in memory at once."""
    file = pq.ParquetFile(faces)
    columns = ["frame_index", "track_id", *BOX, *(f"p_{label}" for label in labels)]
    groups = [i for i in range(file.num_row_groups) if _last_index(file, i) >= first_index]
    rest = {name: np.empty(0, np.float32) for name in columns}
    for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, row_groups=groups, columns=columns):
        rows = {name: np.concatenate([rest[name], batch.column(name).to_numpy()]) for name in columns}
        indices = rows["frame_index"]
        # The last frame of a batch may go on in the next one.
        whole = int(np.searchsorted(indices, indices[-1]))
        yield from _by_frame({name: column[:whole] for name, column in rows.items()}, labels)
        rest = {name: column[whole:] for name, column in rows.items()}
    yield from _by_frame(rest, labels)


def _by_frame(rows: dict[str, np.ndarray], labels: Sequence[str]) -> Iterator[tuple[int, Marks]]:
    indices = rows["frame_index"].astype(np.int64)
    boxes = np.stack([rows[name] for name in BOX], axis=1).astype(np.float32)
    probabilities = np.stack([rows[f"p_{label}"] for label in labels], axis=1).astype(np.float32)
    ids = rows["track_id"].astype(np.int32)
    borders = [0, *(np.flatnonzero(np.diff(indices)) + 1).tolist(), len(indices)]
    for start, end in itertools.pairwise(borders):
        if start < end:
            yield int(indices[start]), Marks(boxes[start:end], ids[start:end], probabilities[start:end])


def _last_index(file: pq.ParquetFile, group: int) -> int:
    found = file.metadata.row_group(group)
    position = file.schema_arrow.names.index("frame_index")
    return int(found.column(position).statistics.max)
