"""A video in parts: the steps of its analysis, and what has been read of a segment, which stays on the disk until the medium is done."""

from __future__ import annotations

import dataclasses
import json
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchemo.atomic import replacing
from batchemo.media.source import ReadReport
from batchemo.records import Faces, FrameResult, Medium, Segment

FOLDER = ".parts"

RENDERED_SUFFIX = ".nut"
"""Of the annotated copy of a segment, which waits beside its part for the others."""

_ATTEMPTS = 10
"""To write a part: whoever is done with a medium removes the folders above it that are empty, as this one's are at first."""


@dataclasses.dataclass(frozen=True, slots=True)
class SegmentResult:
    """The readings of a segment; their indices count from its first frame. `first` and `last` are its thumbnails (see `shots`)."""

    segment: Segment
    readings: tuple[FrameResult, ...]
    found: ReadReport
    decoder: str
    first: NDArray[np.uint8] | None
    last: NDArray[np.uint8] | None


@dataclasses.dataclass(frozen=True, slots=True)
class SplitTask:
    """Find the segments of a video, none of which is known yet."""

    segment: Segment = dataclasses.field(default_factory=Segment)


@dataclasses.dataclass(frozen=True, slots=True)
class AnalyseTask:
    """Read a segment: gives a `SegmentResult`. `origin` is what its medium's tables are made of."""

    segment: Segment
    origin: dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class RenderTask:
    """Write the annotated copy of a segment to `path`, by the table `faces`, in which its first frame is the `index_offset`th."""

    segment: Segment
    path: Path
    faces: Path
    index_offset: int


@dataclasses.dataclass(frozen=True, slots=True)
class ThumbnailTask:
    """Cut the thumbnails, of all segments, out of a medium whose tables are there."""

    segment: Segment


SegmentTask = SplitTask | AnalyseTask | RenderTask | ThumbnailTask


@dataclasses.dataclass(frozen=True, slots=True)
class SegmentTaskResult:
    """What comes of a step: the part that was read, if one was, processor seconds by stage, the segments, if they were to be found, and
    when faces may be left in a blurred copy."""

    part: SegmentResult | None
    seconds: Mapping[str, float]
    segments: tuple[Segment, ...] = ()
    left_s: tuple[float, ...] = ()


def segment_path(results: Path, medium: Medium, segment: Segment) -> Path:
    return results / FOLDER / medium.output / f"{segment.number:05}.npz"


def save_segment(path: Path, part: SegmentResult, *, origin: dict[str, Any]) -> None:
    """Writes all but the embeddings of faces, which are never stored. `origin` is what the part was made of."""
    readings = part.readings
    empty = np.empty((1, 32, 64), np.uint8)
    facts = {
        "origin": origin,
        "segment": dataclasses.asdict(part.segment),
        "found": dataclasses.asdict(part.found),
        "decoder": part.decoder,
    }
    arrays: dict[str, Any] = {
        "facts": np.frombuffer(json.dumps(facts, sort_keys=True).encode(), np.uint8),
        "first": empty[:0] if part.first is None else part.first[None],
        "last": empty[:0] if part.last is None else part.last[None],
        "index": np.array([reading.index for reading in readings], np.int32),
        "time_s": np.array([reading.time_s for reading in readings], np.float64),
        "fingerprint": np.array([reading.fingerprint for reading in readings], np.int64),
        "cut": np.array([reading.cut for reading in readings], np.bool_),
        "followed": np.array([reading.faces.propagated for reading in readings], np.bool_),
        "count": np.array([len(reading.faces) for reading in readings], np.int32),
    }
    of_faces = {
        "boxes": [reading.faces.boxes for reading in readings],
        "landmarks": [reading.faces.landmarks for reading in readings],
        "scores": [reading.faces.scores for reading in readings],
        "face_px": [reading.face_px for reading in readings],
        "sharpness": [reading.sharpness for reading in readings],
        "probabilities": [reading.probabilities for reading in readings],
    }
    arrays |= {name: np.concatenate(each) if each else np.empty(0, np.float32) for name, each in of_faces.items()}
    for attempt in range(_ATTEMPTS):
        try:
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, **arrays)
        except FileNotFoundError:
            if attempt == _ATTEMPTS - 1:
                raise
        else:
            return


def load_segment(path: Path, segment: Segment, *, origin: dict[str, Any]) -> SegmentResult | None:
    """The part at `path`, without embeddings, where it is whole and was made of the same; otherwise None."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = dict(stored)
        facts = json.loads(arrays["facts"].tobytes())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if facts["origin"] != json.loads(json.dumps(origin)) or facts["segment"] != json.loads(json.dumps(dataclasses.asdict(segment))):
        return None
    first, last = (arrays[name][0] if len(arrays[name]) else None for name in ("first", "last"))
    return SegmentResult(segment, tuple(_readings(arrays)), ReadReport(**facts["found"]), facts["decoder"], first, last)


def remove_rendered(folder: Path) -> None:
    """Removes what a killed run has drawn of segments below `folder`: the next one draws all again, perhaps without faces."""
    for path in list(folder.rglob(f"*{RENDERED_SUFFIX}")):
        path.unlink(missing_ok=True)


def remove_segments(results: Path, medium: Medium) -> None:
    """Removes what is kept of `medium`, and the folders that are empty then."""
    folder = results / FOLDER / medium.output
    shutil.rmtree(folder, ignore_errors=True)
    for parent in folder.parents:
        if parent == results:
            return
        try:
            parent.rmdir()
        except OSError:  # something else is in it
            return


def _readings(arrays: dict[str, NDArray[Any]]) -> Sequence[FrameResult]:
    ends = np.cumsum(arrays["count"]).tolist()
    readings = []
    for row, (count, end) in enumerate(zip(arrays["count"].tolist(), ends, strict=True)):
        of = slice(end - count, end)
        faces = Faces(arrays["boxes"][of], arrays["landmarks"][of], arrays["scores"][of], bool(arrays["followed"][row]))
        readings.append(
            FrameResult(
                int(arrays["index"][row]),
                float(arrays["time_s"][row]),
                faces,
                arrays["face_px"][of],
                arrays["sharpness"][of],
                arrays["probabilities"][of],
                None,
                bool(arrays["cut"][row]),
                int(arrays["fingerprint"][row]),
            )
        )
    return readings
