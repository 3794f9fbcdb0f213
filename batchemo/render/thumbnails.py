"""Writes a thumbnail of each track's best frame for the report page."""

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
from batchemo.media.decode import pictures_at
from batchemo.media.resize import downsample2x
from batchemo.records import Faces, Medium
from batchemo.render.jpeg import write_jpeg
from batchemo.results.paths import table_path, thumbnails_folder
from batchemo.results.schema import BATCH_ROWS, BOX

SIDE_PX = 96
MAX_THUMBNAILS = 50
"""Per medium: the longest tracks, which limits the seeks in a long video of a crowd."""

_MARGIN = 1.4
"""Side of the cropped square, in longer sides of the bounding box, to include hair and chin."""
_JPEG_QUALITY = 82


class _BestFrame(NamedTuple):
    """The best frame of a track; `box` in pixels of the upright picture."""

    time_s: float
    track_id: int
    box: tuple[float, ...]


def write_thumbnails(medium: Medium, results: Path, *, heartbeat: Callable[[], None] = lambda: None) -> int:
    """Writes JPEGs of `SIDE_PX` pixels per side for the longest tracks of `medium`, and returns their number; calls `heartbeat` after each.

    A face whose frame cannot be decoded again is left out, which is logged and no failure.
    """
    best_frames = _read_best_frames(results, medium.output)
    thumbnails = ((best.track_id, _crop_square(pixels, best.box)) for best, pixels in _with_pictures(medium, best_frames))
    return _write_thumbnails(medium, results, thumbnails, heartbeat)


def crop_thumbnails(pixels: NDArray[np.uint8], faces: Faces) -> list[NDArray[np.uint8]]:
    """Thumbnails of the faces of a picture (RGB H x W x 3), each `SIDE_PX` x `SIDE_PX` x 3; at most `MAX_THUMBNAILS`."""
    return [_crop_square(pixels, box) for box in faces.boxes[:MAX_THUMBNAILS].tolist()]


def write_picture_thumbnails(
    medium: Medium, results: Path, thumbnails: Sequence[NDArray[np.uint8]], *, heartbeat: Callable[[], None]
) -> int:
    """As `write_thumbnails`, with `thumbnails` cropped before: each face of a picture is a track, in this order."""
    return _write_thumbnails(medium, results, enumerate(thumbnails, start=1), heartbeat)


def _write_thumbnails(
    medium: Medium, results: Path, thumbnails: Iterable[tuple[int, NDArray[np.uint8]]], heartbeat: Callable[[], None]
) -> int:
    folder = thumbnails_folder(results, medium.output)
    written = 0
    try:
        for track_id, pixels in thumbnails:
            write_jpeg(folder / f"{track_id}.jpg", pixels, quality=_JPEG_QUALITY)
            written += 1
            heartbeat()
    except (MediaError, av.FFmpegError, OSError) as error:
        logging.getLogger("batchemo").info("%s: no more thumbnails (%s)", medium.name, error)
    return written


def _read_best_frames(results: Path, output: str) -> list[_BestFrame]:
    """Sorted by time."""
    tracks = pq.ParquetFile(table_path(results, "tracks", output)).read(columns=["track_id", "n_frames", "best_frame_index"])
    tracks = tracks.sort_by([("n_frames", "descending")]).slice(0, MAX_THUMBNAILS)
    best_indices = dict(zip(tracks["track_id"].to_pylist(), tracks["best_frame_index"].to_pylist(), strict=True))
    wanted = tracks["best_frame_index"].combine_chunks()
    best_frames = []
    with pq.ParquetFile(table_path(results, "faces", output)) as file:
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=["frame_index", "time_s", "track_id", *BOX]):
            best_frames += [
                _BestFrame(face["time_s"], face["track_id"], tuple(face[side] for side in BOX))
                for face in batch.filter(pc.is_in(batch["frame_index"], value_set=wanted)).to_pylist()
                if best_indices.get(face["track_id"]) == face["frame_index"]
            ]
    return sorted(best_frames)


def _with_pictures(medium: Medium, best_frames: Sequence[_BestFrame]) -> Iterator[tuple[_BestFrame, NDArray[np.uint8]]]:
    """Each best frame with its decoded picture."""
    by_time = {time_s: list(group) for time_s, group in itertools.groupby(best_frames, key=lambda best: best.time_s)}
    for time_s, pixels in pictures_at(medium, list(by_time)):
        yield from ((best, pixels) for best in by_time[time_s])


def _crop_square(pixels: NDArray[np.uint8], box: Sequence[float]) -> NDArray[np.uint8]:
    """The square around `box`, shifted to lie inside the picture, and scaled to `SIDE_PX`."""
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
