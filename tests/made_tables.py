"""Tables of made-up frame results, written without analysing anything."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from batchemo.records import EMOTIONS, Faces, FrameResult, MediaRow, Medium
from batchemo.results.schema import SCHEMA_VERSION
from batchemo.results.writer import TimelineWriter

METADATA = {"schema_version": SCHEMA_VERSION, "labels": list(EMOTIONS), "path": "/videos/ä.mp4"}


def frame_result(index: int, probabilities: list[list[float]], *, sharpness: float = 1.0) -> FrameResult:
    """A frame at 25 a second with a face for each row of `probabilities`."""
    count = len(probabilities)
    boxes = np.arange(4 * count, dtype=np.float32).reshape(count, 4)
    faces = Faces(boxes, np.arange(10 * count, dtype=np.float32).reshape(count, 5, 2), np.full(count, 0.9, np.float32))
    of_classes = np.array(probabilities, np.float32).reshape(count, len(probabilities[0]) if count else len(EMOTIONS))
    return FrameResult(
        index, index / 25, faces, np.full(count, 50, np.float32), np.full(count, sharpness, np.float32), of_classes, None, False, 0
    )


def lost_frame(time_s: float) -> FrameResult:
    """A frame that no decoder could read."""
    return dataclasses.replace(frame_result(-1, []), time_s=time_s)


def put(writer: TimelineWriter, result: FrameResult) -> None:
    """Writes a frame whose faces are on tracks 1, 2, and so on."""
    writer.write(result, np.arange(1, len(result.faces) + 1, dtype=np.int32), index=result.index)


def probabilities_of(emotion: str, share: float = 0.7, labels: tuple[str, ...] = EMOTIONS) -> list[float]:
    """Probabilities with `share` for `emotion`, and equal ones for the other labels."""
    return [share if label == emotion else (1 - share) / (len(labels) - 1) for label in labels]


def write_tables(
    results: Path, name: str = "a.mp4", *, frames: list[FrameResult] | None = None, labels: tuple[str, ...] = EMOTIONS
) -> Medium:
    """Writes tables of a video `name`: by default 20 frames with a happy face and an uncertain sad one, and one without faces."""
    medium = Medium(Path(name), name, name, "video")
    if frames is None:
        frames = [frame_result(i, [probabilities_of("happy"), probabilities_of("sad", 0.4)]) for i in range(20)] + [frame_result(20, [])]
    with TimelineWriter(results, medium, labels=labels, metadata=METADATA, uncertain_below=0.5) as writer:
        for result in frames:
            put(writer, result)
        writer.write_undecodable(lost_frame(0.84))
        writer.finish(MediaRow(media=name, path=f"/{name}", kind="video", status="done", n_faces=writer.n_faces))
    return medium
