"""One medium from file to tables and annotated copy: chains the stages."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from batchemo import __version__
from batchemo.annotate import VideoWriter, write_picture
from batchemo.classify import Classifier
from batchemo.crops import cut_crops
from batchemo.decode import open_source
from batchemo.decoders.source import Found, FrameSource
from batchemo.detect import Detector
from batchemo.detect import Kind as DetectorKind
from batchemo.devices import choose_device
from batchemo.drawing import draw
from batchemo.errors import MediaError, typed
from batchemo.fingerprint import fingerprint_of
from batchemo.follow import follow
from batchemo.options import RunOptions
from batchemo.records import Frame, MediaRow, Medium, Reading, Sighting
from batchemo.shots import ShotFinder
from batchemo.tables import SCHEMA_VERSION, annotated_path
from batchemo.timeline import TimelineWriter
from batchemo.track import Tracker
from batchemo.weights import SHIPPED, load_weights

_BATCH_FRAMES = 16
_BATCH_BYTES = 64 * 2**20
"""Frames that wait for their crops to be classified together: bounded, whatever their size."""

_Item = TypeVar("_Item")

Beat = Callable[[int, float], None]
"""Called with frames that have just been analysed, and the share of the medium that is behind us (0 to 1)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Models:
    """The networks, loaded once a process; `follows`: faces need not be searched for in every frame."""

    detector: Detector
    follows: bool
    classifier: Classifier
    weights_sha256: str


@functools.lru_cache(maxsize=2)
def load_models(*, device: str, weights: Path | None, detector: DetectorKind, min_face_px: int, batch_size: int) -> Models:
    """Raises DeviceError or WeightsError."""
    place = choose_device(device)
    loaded = load_weights(weights or SHIPPED)
    return Models(
        Detector(min_face_px=min_face_px, kind=detector, device=place),
        detector == "fast" and place.type == "cpu",
        Classifier(loaded, device=place, batch_size=batch_size),
        loaded.sha256,
    )


def analyse(medium: Medium, results: Path, *, options: RunOptions, run_id: str, beat: Beat) -> MediaRow:
    """Analyses `medium` and writes its files below `results`. A medium that cannot be analysed gives a row that says why.

    Its tables are written all the same, with whatever could be read.
    """
    started = time.monotonic()
    models = load_models(
        device=options.device,
        weights=options.weights,
        detector=options.detector,
        min_face_px=options.min_face_px,
        batch_size=options.batch_size,
    )
    row = MediaRow(media=medium.name, path=str(medium.path.resolve()), kind=medium.kind, status="done", run_id=run_id)
    row = _storable(row)
    try:
        fingerprint = fingerprint_of(medium.path)
    except OSError as error:
        fingerprint = {}
        message = f"{medium.path} cannot be read: {error.strerror}; check its permissions with: ls -l {typed(medium.path)}"
        row = _failed(row, MediaError("unreadable", message))
    metadata = {
        "schema_version": SCHEMA_VERSION,
        "batchemo_version": __version__,
        "weights_sha256": models.weights_sha256,
        "labels": list(models.classifier.labels),
        "options": options.shaping(),
        "path": row.path,
        "fingerprint": fingerprint,
    }
    row = dataclasses.replace(row, sha256=str(fingerprint.get("sha256", "")))
    tables = TimelineWriter(results, medium, labels=models.classifier.labels, metadata=metadata, uncertain_below=options.uncertain_below)
    with tables as timeline:
        if row.status == "done":
            row = _analyse_frames(medium, results, timeline, row, models, options, beat)
        row = dataclasses.replace(row, seconds_taken=time.monotonic() - started)
        timeline.finish(row)
    return row


def _analyse_frames(
    medium: Medium, results: Path, timeline: TimelineWriter, row: MediaRow, models: Models, options: RunOptions, beat: Beat
) -> MediaRow:
    tracker = Tracker()
    try:
        source = open_source(medium, decoder=options.decoder)
        frames = source.frames(sample_fps=options.sample_fps)
        with _Annotator(medium, annotated_path(results, medium) if options.annotate else None, models.classifier.labels) as annotator:
            for reading in _read(_faces(_reported(frames, timeline), models), models, tracker):
                timeline.write(reading)
                annotator.write(reading)
                beat(1, _share(source, reading.frame))
    except MediaError as error:
        row = _failed(row, error)
        return dataclasses.replace(row, n_faces=timeline.n_faces, n_frames_analysed=timeline.n_frames_analysed, n_tracks=tracker.count)
    found = source.found
    row = dataclasses.replace(
        row,
        decoder=source.decoder,
        width=found.width,
        height=found.height,
        duration_s=found.duration_s,
        n_frames=found.decoded + found.undecodable + found.missing,
        n_frames_analysed=timeline.n_frames_analysed,
        n_faces=timeline.n_faces,
        n_tracks=tracker.count,
    )
    return _with_losses(row, medium, found)


def _reported(frames: Iterable[Frame], timeline: TimelineWriter) -> Iterator[Frame]:
    """The frames that can be seen; the others become rows at once."""
    for frame in frames:
        if frame.pixels is None:
            timeline.write_undecodable(frame)
        else:
            yield frame


def _faces(frames: Iterable[Frame], models: Models) -> Iterator[Sighting]:
    """The faces of frames. On a CPU most are carried over from a few searches; a GPU searches every frame, many at once."""
    shots = ShotFinder()
    marked = ((frame, shots.is_cut(frame.pixels)) for frame in frames if frame.pixels is not None)
    if models.follows:
        yield from follow(marked, models.detector.detect)
        return
    for batch in _batches(marked, lambda each: each[0]):
        found = models.detector.detect([frame.pixels for frame, _ in batch if frame.pixels is not None])
        for (frame, cut), faces in zip(batch, found, strict=True):
            yield Sighting(frame, faces, cut)


def _read(sightings: Iterable[Sighting], models: Models, tracker: Tracker) -> Iterator[Reading]:
    """Identities and expressions, classified in batches over frames."""
    for batch in _batches(sightings, lambda seen: seen.frame):
        crops = [cut_crops(seen.frame.pixels, seen.faces) for seen in batch if seen.frame.pixels is not None]
        probabilities = models.classifier.classify(np.concatenate([crop.pixels for crop in crops]))
        start = 0
        for seen, crop in zip(batch, crops, strict=True):
            ids = tracker.update(seen.frame.time_s, seen.faces, crop, cut=seen.cut)
            yield Reading(seen.frame, seen.faces, crop, ids, probabilities[start : start + len(crop)])
            start += len(crop)


def _batches(items: Iterable[_Item], frame_of: Callable[[_Item], Frame]) -> Iterator[list[_Item]]:
    waiting: list[_Item] = []
    for item in items:
        waiting.append(item)
        pixels = frame_of(item).pixels
        if len(waiting) >= _BATCH_FRAMES or len(waiting) * (pixels.nbytes if pixels is not None else 0) >= _BATCH_BYTES:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


class _Annotator:
    """Writes the annotated copy, if there is to be one."""

    def __init__(self, medium: Medium, path: Path | None, labels: tuple[str, ...]) -> None:
        self._medium = medium
        self._path = path
        self._labels = labels
        self._stack = contextlib.ExitStack()
        self._video: VideoWriter | None = None

    def __enter__(self) -> _Annotator:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def write(self, reading: Reading) -> None:
        pixels = reading.frame.pixels
        if self._path is None or pixels is None:
            return
        annotated = draw(pixels, reading, labels=self._labels)
        if self._medium.kind == "image":
            write_picture(self._path, annotated)
            return
        if self._video is None:
            height, width = annotated.shape[:2]
            self._video = self._stack.enter_context(VideoWriter(self._path, source=self._medium.path, width=width, height=height))
        self._video.write(annotated, reading.frame.time_s)


def _share(source: FrameSource, frame: Frame) -> float:
    length = source.found.length_s
    return min(1.0, frame.time_s / length) if length > 0 else 0.0


def _failed(row: MediaRow, error: MediaError) -> MediaRow:
    return _storable(dataclasses.replace(row, status="failed", error=error.kind, message=str(error)))


def _with_losses(row: MediaRow, medium: Medium, found: Found) -> MediaRow:
    """The row with a word on frames that could not be had; a file that ends too early has failed, though its tables hold the rest."""
    if found.missing:
        kept = f"{found.decoded} of {row.n_frames} frames could be read; the tables hold those"
        message = f"{medium.path} is cut off: only {kept}. Copy it again from its source"
        return _failed(row, MediaError("truncated", message))
    if found.undecodable:
        message = f"{found.undecodable} of {row.n_frames} frames cannot be decoded ({found.trouble or 'damaged'})"
        return _storable(dataclasses.replace(row, message=message))
    return row


def _storable(row: MediaRow) -> MediaRow:
    """The row with texts that UTF-8 can hold: names of files may be any bytes."""
    texts = {name: getattr(row, name) for name in ("media", "path", "message")}
    return dataclasses.replace(
        row, **{name: text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") for name, text in texts.items()}
    )
