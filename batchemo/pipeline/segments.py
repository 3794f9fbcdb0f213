"""Segments of a video: the tasks that workers share, and the results of a segment, which stay on disk until the medium is done."""

from __future__ import annotations

import dataclasses
import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from batchemo.atomic import replacing
from batchemo.media.source import ReadReport
from batchemo.records import Faces, FrameResult, Medium, Segment

SEGMENTS_FOLDER = ".parts"
"""In the results folder; older versions use the same name, so that their segments are found."""

RENDERED_SUFFIX = ".nut"
"""Of the annotated copy of a segment, which is kept with the segment's result until all segments are rendered."""

_ATTEMPTS = 10
"""Attempts to save a segment: another worker may remove the folder while it is still empty."""


class FrameResults(Protocol):
    """The results of the frames of a segment, in order; indices count from its first frame.

    The attributes are complete once the results have been iterated. `first` and `last` are thumbnails of frames (see `ShotFinder`);
    `processor` is what the probabilities were computed on.
    """

    def __iter__(self) -> Iterator[FrameResult]: ...
    @property
    def report(self) -> ReadReport: ...
    @property
    def decoder(self) -> str: ...
    @property
    def first(self) -> NDArray[np.uint8] | None: ...
    @property
    def last(self) -> NDArray[np.uint8] | None: ...
    @property
    def processor(self) -> str: ...


@dataclasses.dataclass(frozen=True, slots=True)
class SegmentResult:
    """The `FrameResults` of a segment, in memory."""

    segment: Segment
    frames: tuple[FrameResult, ...]
    report: ReadReport
    decoder: str
    first: NDArray[np.uint8] | None
    last: NDArray[np.uint8] | None
    processor: str

    def __iter__(self) -> Iterator[FrameResult]:
        return iter(self.frames)


@dataclasses.dataclass(frozen=True, slots=True)
class SplitTask:
    """Find the segments of a video."""

    segment: Segment = dataclasses.field(default_factory=Segment)


@dataclasses.dataclass(frozen=True, slots=True)
class AnalyseTask:
    """Run inference on a segment: gives a `SegmentResult`. `origin` is what the medium's tables are made of."""

    segment: Segment
    origin: dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class RenderTask:
    """Write the annotated copy of a segment to `path`, by the table `faces`, in which its first frame has the index `index_offset`."""

    segment: Segment
    path: Path
    faces: Path
    index_offset: int


@dataclasses.dataclass(frozen=True, slots=True)
class ThumbnailTask:
    """Crop the thumbnails of a whole video whose tables are complete."""

    segment: Segment = dataclasses.field(default_factory=Segment)


SegmentTask = SplitTask | AnalyseTask | RenderTask | ThumbnailTask


@dataclasses.dataclass(frozen=True, slots=True)
class SegmentTaskResult:
    """The result of a task.

    - `result`: of an `AnalyseTask`.
    - `segments`: of a `SplitTask`.
    - `left_s`: of a `RenderTask`, the times at which faces may be left in a blurred copy.
    - `seconds`: processor seconds by stage."""

    result: SegmentResult | None
    seconds: Mapping[str, float]
    segments: tuple[Segment, ...] = ()
    left_s: tuple[float, ...] = ()


def segment_path(results: Path, medium: Medium, segment: Segment) -> Path:
    """Where the result of a segment is saved."""
    return results / SEGMENTS_FOLDER / medium.output / f"{segment.number:05}.npz"


def save_segment(path: Path, result: SegmentResult, *, origin: dict[str, Any]) -> None:
    """Writes everything but embeddings of faces, which are never stored. `origin` is what the result was made of."""
    frames = result.frames
    empty = np.empty((1, 32, 64), np.uint8)
    facts = {
        "origin": origin,
        "segment": dataclasses.asdict(result.segment),
        "found": dataclasses.asdict(result.report),
        "decoder": result.decoder,
        "processor": result.processor,
    }
    arrays: dict[str, Any] = {
        "facts": np.frombuffer(json.dumps(facts, sort_keys=True).encode(), np.uint8),
        "first": empty[:0] if result.first is None else result.first[None],
        "last": empty[:0] if result.last is None else result.last[None],
        "index": np.array([each.index for each in frames], np.int32),
        "time_s": np.array([each.time_s for each in frames], np.float64),
        "fingerprint": np.array([each.fingerprint for each in frames], np.int64),
        "cut": np.array([each.cut for each in frames], np.bool_),
        "followed": np.array([each.faces.propagated for each in frames], np.bool_),
        "count": np.array([len(each.faces) for each in frames], np.int32),
    }
    of_faces = {
        "boxes": [each.faces.boxes for each in frames],
        "landmarks": [each.faces.landmarks for each in frames],
        "scores": [each.faces.scores for each in frames],
        "face_px": [each.face_px for each in frames],
        "sharpness": [each.sharpness for each in frames],
        "probabilities": [each.probabilities for each in frames],
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
    """The result at `path`, without embeddings; None where the file is not whole, or was made of another `origin`."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = dict(stored)
        facts = json.loads(arrays["facts"].tobytes())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if facts["origin"] != json.loads(json.dumps(origin)) or facts["segment"] != json.loads(json.dumps(dataclasses.asdict(segment))):
        return None
    first, last = (arrays[name][0] if len(arrays[name]) else None for name in ("first", "last"))
    report, processor = ReadReport(**facts["found"]), facts.get("processor", "")  # older versions did not save it
    return SegmentResult(segment, tuple(_frames(arrays)), report, facts["decoder"], first, last, processor)


def remove_rendered(folder: Path) -> None:
    """Removes the annotated copies of segments below `folder` that a killed run left: the next run draws them again, perhaps blurred."""
    for path in list(folder.rglob(f"*{RENDERED_SUFFIX}")):
        path.unlink(missing_ok=True)


def remove_segments(results: Path, medium: Medium) -> None:
    """Removes the saved segments of `medium`, and folders that are empty then."""
    folder = results / SEGMENTS_FOLDER / medium.output
    shutil.rmtree(folder, ignore_errors=True)
    for parent in folder.parents:
        if parent == results:
            return
        try:
            parent.rmdir()
        except OSError:  # something else is in it
            return


def _frames(arrays: dict[str, NDArray[Any]]) -> Iterator[FrameResult]:
    ends = np.cumsum(arrays["count"]).tolist()
    for row, (count, end) in enumerate(zip(arrays["count"].tolist(), ends, strict=True)):
        of = slice(end - count, end)
        faces = Faces(arrays["boxes"][of], arrays["landmarks"][of], arrays["scores"][of], bool(arrays["followed"][row]))
        yield FrameResult(
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
