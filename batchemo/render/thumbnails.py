"""A small picture of each track's face at its best for the page of results: cut out of a video when its tables are done, of a picture at
once."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batchemo.errors import MediaError
from batchemo.media.open_source import pictures_at
from batchemo.media.resize import downsample2x
from batchemo.records import Faces, Medium
from batchemo.render.jpeg import write_jpeg
from batchemo.results.schema import BATCH_ROWS, table_path, thumbnails_folder

SIDE_PX = 96
MAX_THUMBNAILS = 50
"""A medium: the longest ones, so that a crowd filmed for hours costs no more than that many jumps in the file."""

_MARGIN = 1.4
"""Side of the square that is cut, in longer sides of the face's box: hair and chin lie outside that."""
_JPEG_QUALITY = 82
_BOX = ("box_x1", "box_y1", "box_x2", "box_y2")


class _View(NamedTuple):
    """Where a track is seen best; `box` in pixels of the upright picture."""

    time_s: float
    track_id: int
    box: tuple[float, ...]


def write_thumbnails(medium: Medium, results: Path, *, beat: Callable[[], None] = lambda: None) -> int:
    """Writes JPEGs of `SIDE_PX` pixels a side for the longest tracks in `medium`'s tables, and returns how many; calls `beat` after each.

    A face whose frame cannot be had again is left out; that is logged and no failure.
    """
    views = _best_views(results, medium.output)
    return _write(medium, results, ((view.track_id, _cut(pixels, view.box)) for view, pixels in _seen(medium, views)), beat)


def crop_thumbnails(pixels: NDArray[np.uint8], faces: Faces) -> list[NDArray[np.uint8]]:
    """Thumbnails of the faces of a picture (RGB H x W x 3), as many as are shown of a medium, each `SIDE_PX` x `SIDE_PX` x 3."""
    return [_cut(pixels, box) for box in faces.boxes[:MAX_THUMBNAILS].tolist()]


def write_picture_thumbnails(medium: Medium, results: Path, portraits: Sequence[NDArray[np.uint8]], *, beat: Callable[[], None]) -> int:
    """As `write_thumbnails`, of a picture that need not be read again: each of its faces is a track of its own, in their order."""
    return _write(medium, results, enumerate(portraits, start=1), beat)


def _write(medium: Medium, results: Path, thumbnails: Iterable[tuple[int, NDArray[np.uint8]]], beat: Callable[[], None]) -> int:
    folder = thumbnails_folder(results, medium.output)
    written = 0
    try:
        for track_id, pixels in thumbnails:
            write_jpeg(folder / f"{track_id}.jpg", pixels, quality=_JPEG_QUALITY)
            written += 1
            beat()
    except (MediaError, av.FFmpegError, OSError) as error:
        logging.getLogger("batchemo").info("%s: no more thumbnails (%s)", medium.name, error)
    return written


def _best_views(results: Path, output: str) -> list[_View]:
    """In the order of their times."""
    tracks = pq.ParquetFile(table_path(results, "tracks", output)).read(columns=["track_id", "n_frames", "best_frame_index"])
    tracks = tracks.sort_by([("n_frames", "descending")]).slice(0, MAX_THUMBNAILS)
    best = dict(zip(tracks["track_id"].to_pylist(), tracks["best_frame_index"].to_pylist(), strict=True))
    wanted = tracks["best_frame_index"].combine_chunks()
    views = []
    with pq.ParquetFile(table_path(results, "faces", output)) as file:
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=["frame_index", "time_s", "track_id", *_BOX]):
            views += [
                _View(face["time_s"], face["track_id"], tuple(face[side] for side in _BOX))
                for face in batch.filter(pc.is_in(batch["frame_index"], value_set=wanted)).to_pylist()
                if best.get(face["track_id"]) == face["frame_index"]
            ]
    return sorted(views)


def _seen(medium: Medium, views: Sequence[_View]) -> Iterator[tuple[_View, NDArray[np.uint8]]]:
    """Each view with the picture it is in."""
    at = itertools.groupby(views, key=lambda view: view.time_s)
    together = {time_s: list(group) for time_s, group in at}
    for time_s, pixels in pictures_at(medium, list(together)):
        yield from ((view, pixels) for view in together[time_s])


def _cut(pixels: NDArray[np.uint8], box: Sequence[float]) -> NDArray[np.uint8]:
    """The square around `box`, moved into the picture and made `SIDE_PX` wide."""
    height, width = pixels.shape[:2]
    left, top, right, bottom = box
    side = max(1, min(height, width, round(_MARGIN * max(right - left, bottom - top))))
    x = min(max(round((left + right - side) / 2), 0), width - side)
    y = min(max(round((top + bottom - side) / 2), 0), height - side)
    square = np.ascontiguousarray(pixels[y : y + side, x : x + side])
    while len(square) >= 2 * SIDE_PX:
        square = downsample2x(square)
    side = len(square)
    return np.asarray(cv2.resize(square, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA if side > SIDE_PX else cv2.INTER_CUBIC), np.uint8)
