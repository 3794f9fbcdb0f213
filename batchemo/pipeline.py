"""One medium from file to tables and annotated copy: chains the stages."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from batchemo.annotation import annotate
from batchemo.appearance import Lookout, describe
from batchemo.assembly import Assembly
from batchemo.classify import Classifier
from batchemo.crops import cut_crops
from batchemo.decode import open_source, segments_of
from batchemo.detect import Detector
from batchemo.detect import Kind as DetectorKind
from batchemo.devices import choose_device
from batchemo.errors import MediaError, defect, too_greedy
from batchemo.follow import follow
from batchemo.inventory import Entry, read_entry
from batchemo.options import RunOptions
from batchemo.parts import Divide, Done, Draw, Part, Portray, Read, Step, load_part, part_path, remove_parts, save_part
from batchemo.records import FaceCrops, Faces, Frame, Medium, Outcome, Reading, Segment, Sighting, failed
from batchemo.shots import ShotFinder
from batchemo.standing import left_to_do
from batchemo.stopwatch import Stopwatch
from batchemo.tables import annotated_path, rewrite_row, table_path, thumbnails_folder
from batchemo.thumbnails import write_thumbnails
from batchemo.weights import SHIPPED, load_weights

_BATCH_FRAMES = 16
_BATCH_BYTES = 64 * 2**20
"""Frames that wait for their crops to be classified together: bounded, whatever their size."""

_COLOURS_PX = 320
"""Least longer side of the picture that colours are read from."""

_Item = TypeVar("_Item")

Beat = Callable[[int, float], None]
"""Called with frames that have just been analysed, and the share of the medium that is behind us (0 to 1)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Models:
    """The networks, loaded once a process; `follows`: faces need not be searched for in every frame."""

    detector: Detector
    follows: bool
    classifier: Classifier


@functools.lru_cache(maxsize=2)
def load_models(*, device: str, weights: Path | None, detector: DetectorKind, min_face_px: int, batch_size: int) -> Models:
    """Raises DeviceError or WeightsError."""
    place = choose_device(device)
    loaded = load_weights(weights or SHIPPED)
    return Models(
        Detector(min_face_px=min_face_px, kind=detector, device=place),
        detector == "fast" and place.type == "cpu",
        Classifier(loaded, device=place, batch_size=batch_size),
    )


def analyse(medium: Medium, results: Path, *, options: RunOptions, weights_sha256: str, run_id: str, beat: Beat) -> Outcome:
    """Analyses `medium` and writes its files below `results`; its pictures alone where its tables are there. A medium that cannot be
    analysed gives a row that says why.

    Its tables are written all the same, with whatever could be read.
    """
    entry = read_entry(results, medium.output)
    if entry is not None and left_to_do(medium, entry, results, options=options, weights_sha256=weights_sha256) == "copy":
        return _draw_again(medium, entry, results, options=options, beat=beat)
    watch = Stopwatch()
    with watch.stage("start"):
        models = models_of(options)
    labels = models.classifier.labels
    with Assembly(medium, results, options=options, labels=labels, weights_sha256=weights_sha256, run_id=run_id, watch=watch) as assembly:
        if assembly.readable:
            try:
                with _blaming(medium):
                    _read_medium(medium, results, assembly, models, options, beat, watch)
                    if options.annotate:
                        _annotate(
                            medium, results, assembly.faces_path(), options=options, labels=labels, beat=lambda: beat(0, 1.0), watch=watch
                        )
            except MediaError as error:
                assembly.fail(error)
        row = assembly.finish()
    remove_parts(results, medium)
    if options.portrays and row.n_faces:
        _portray(medium, results, lambda: beat(0, 1.0), watch)
    return Outcome(row, dict(watch.seconds))


def _draw_again(medium: Medium, entry: Entry, results: Path, *, options: RunOptions, beat: Beat) -> Outcome:
    """Pictures by the tables that are there. What shows faces goes first, so that nothing is left of it whatever happens."""
    watch = Stopwatch()
    thumbnails = thumbnails_folder(results, medium.output)
    if options.blur_faces:
        shutil.rmtree(thumbnails, ignore_errors=True)
    annotated_path(results, medium).unlink(missing_ok=True)
    row, faces = entry.row, table_path(results, "faces", medium.output)
    drawn, frames = itertools.count(1), max(1, entry.row.n_frames_analysed)
    labels = entry.metadata["labels"]
    try:
        if options.annotate:

            def tell() -> None:
                beat(0, min(1.0, next(drawn) / frames))

            with _blaming(medium):
                _annotate(medium, results, faces, options=options, labels=labels, beat=tell, watch=watch)
    except MediaError as error:
        row = failed(row, error)
    rewrite_row(table_path(results, "frames", medium.output), row, style=options.style().as_dict() if options.annotate else None)
    if options.portrays and row.n_faces and not thumbnails.exists():
        _portray(medium, results, lambda: beat(0, 1.0), watch)
    return Outcome(row, dict(watch.seconds))


def _annotate(
    medium: Medium,
    results: Path,
    faces: Path,
    *,
    options: RunOptions,
    labels: Sequence[str],
    beat: Callable[[], None],
    watch: Stopwatch,
    draw: Draw | None = None,
) -> None:
    """The annotated copy of a medium, or the stretch of it that `draw` asks for."""
    style = options.style()
    if draw is not None and options.engine == "dask":  # stretches of one film must be of one encoder, and machines differ
        style = dataclasses.replace(style, hardware=False)
    annotate(
        medium,
        draw.path if draw else annotated_path(results, medium),
        faces,
        labels=labels,
        decoder=options.decoder,
        sample_fps=options.sample_fps,
        style=style,
        uncertain_below=options.uncertain_below,
        beat=beat,
        watch=watch,
        segment=draw.segment if draw else None,
        index_offset=draw.index_offset if draw else 0,
    )


def take_step(
    medium: Medium, step: Step, results: Path, *, options: RunOptions, labels: tuple[str, ...], beat: Callable[[int], None]
) -> Done:
    """One step of a video that several workers share. Raises MediaError where the video is to blame."""
    watch = Stopwatch()
    if isinstance(step, Divide):
        with watch.stage("divide"):
            return Done(None, {}, tuple(segments_of(medium, decoder=options.decoder)))
    if isinstance(step, Read):
        with watch.stage("start"):
            models_of(options)
        with _blaming(medium):
            part = _part(medium, step.segment, results, options, step.origin, lambda frames, _: beat(frames), watch)
        return Done(part, dict(watch.seconds))
    if isinstance(step, Portray):
        _portray(medium, results, lambda: beat(0), watch)
        return Done(None, dict(watch.seconds))
    with _blaming(medium):
        _annotate(medium, results, step.faces, options=options, labels=labels, beat=lambda: beat(0), watch=watch, draw=step)
    return Done(None, dict(watch.seconds))


@contextlib.contextmanager
def _blaming(medium: Medium) -> Iterator[None]:
    """What goes wrong in it is a MediaError of `medium`, but for what the results folder refuses."""
    try:
        yield
    except (MediaError, OSError):
        raise
    except MemoryError as error:
        raise too_greedy(medium.path) from error
    except Exception as error:
        raise defect(medium.path, error) from error


def _portray(medium: Medium, results: Path, beat: Callable[[], None], watch: Stopwatch) -> None:
    with watch.stage("thumbnails"):
        write_thumbnails(medium, results, beat=beat)


def _part(
    medium: Medium, segment: Segment, results: Path, options: RunOptions, origin: dict[str, Any], beat: Beat, watch: Stopwatch
) -> Part:
    """The readings of a segment: those that an earlier run has left, or new ones, which are kept for a later run."""
    path = part_path(results, medium, segment)
    part = load_part(path, segment, origin=origin)
    if part is not None:
        return _with_looks(part, medium, options, watch) if options.appearance else part
    part = _read_segment(medium, segment, models_of(options), options, beat, watch)
    save_part(path, part, origin=origin)
    return part


def models_of(options: RunOptions) -> Models:
    """The networks that `options` ask for, loaded once a process. Raises DeviceError or WeightsError."""
    return load_models(
        device=options.device,
        weights=options.weights,
        detector=options.detector,
        min_face_px=options.min_face_px,
        batch_size=options.batch_size,
    )


def _read_medium(
    medium: Medium, results: Path, assembly: Assembly, models: Models, options: RunOptions, beat: Beat, watch: Stopwatch
) -> None:
    with watch.stage("divide"):
        segments = segments_of(medium, decoder=options.decoder)
    if len(segments) == 1:
        source = open_source(medium, decoder=options.decoder)
        frames = source.frames(sample_fps=options.sample_fps)
        try:
            for reading in assembly.add(_readings(frames, models, ShotFinder(), watch, appearance=options.appearance)):
                length_s = source.found.length_s
                beat(1, min(1.0, reading.time_s / length_s) if length_s > 0 else 0.0)
        finally:
            assembly.tell(source.found, source.decoder)
        return
    for segment in segments:
        assembly.add_part(_part(medium, segment, results, options, assembly.origin, _within(beat, segment.number, len(segments)), watch))


def _within(beat: Beat, number: int, count: int) -> Beat:
    """A beat of the `number`th of `count` segments, as one of the whole."""
    return lambda frames, share: beat(frames, (number + share) / count)


def _read_segment(medium: Medium, segment: Segment, models: Models, options: RunOptions, beat: Beat, watch: Stopwatch) -> Part:
    source = open_source(medium, decoder=options.decoder, segment=segment)
    shots = ShotFinder()
    readings = []
    frames = source.frames(sample_fps=options.sample_fps)
    for reading in _readings(frames, models, shots, watch, appearance=options.appearance, search_last=True):
        readings.append(reading)
        beat(1, min(1.0, len(readings) / max(1, segment.frames)))
    return Part(segment, tuple(readings), source.found, source.decoder, shots.first, shots.last)


def _with_looks(part: Part, medium: Medium, options: RunOptions, watch: Stopwatch) -> Part:
    """The part with the looks of its faces: they are not stored, so they are seen once more."""
    source = open_source(medium, decoder=options.decoder, segment=part.segment)
    lookout = Lookout()
    decoded = [reading for reading in part.readings if reading.index >= 0]
    known = {reading.index: reading.faces for reading in decoded if lookout.wants(reading.faces, reading.time_s) and len(reading.faces)}
    looks = {}
    for frame in watch.each("decode", source.frames(sample_fps=options.sample_fps)):
        faces = known.get(frame.index)
        if faces is not None and frame.is_decoded:
            with watch.stage("crop"):
                looks[frame.index] = _looks(frame, faces, cut_crops(frame.grey, faces))
    readings = tuple(dataclasses.replace(reading, looks=looks.get(reading.index)) for reading in part.readings)
    return dataclasses.replace(part, readings=readings)


def _readings(
    frames: Iterable[Frame], models: Models, shots: ShotFinder, watch: Stopwatch, *, appearance: bool, search_last: bool = False
) -> Iterator[Reading]:
    """What is seen in each frame, those that cannot be decoded in their places between the others."""
    lost: list[Frame] = []
    lookout = Lookout() if appearance else None
    seen = _faces(_decodable(watch.each("decode", frames), lost), models, shots, search_last=search_last)
    for batch in _batches(watch.each("search and follow", seen), lambda each: each.frame):
        for reading in _read(batch, models, lookout, watch):
            while lost and lost[0].time_s < reading.time_s:
                yield _nothing(lost.pop(0), models)
            yield reading
    for frame in lost:
        yield _nothing(frame, models)


def _decodable(frames: Iterable[Frame], lost: list[Frame]) -> Iterator[Frame]:
    for frame in frames:
        if frame.is_decoded:
            yield frame
        else:
            lost.append(frame)


def _faces(frames: Iterable[Frame], models: Models, shots: ShotFinder, *, search_last: bool) -> Iterator[Sighting]:
    """The faces of frames. On a CPU most are carried over from a few searches; a GPU searches every frame, many at once."""
    marked = ((frame, shots.is_cut(frame.grey)) for frame in frames)
    if models.follows:
        yield from follow(marked, models.detector, search_last=search_last)
        return
    for batch in _batches(marked, lambda each: each[0]):
        found = models.detector.detect([frame.pixels for frame, _ in batch])
        for (frame, cut), faces in zip(batch, found, strict=True):
            yield Sighting(frame, faces, cut)


def _read(batch: Sequence[Sighting], models: Models, lookout: Lookout | None, watch: Stopwatch) -> Iterator[Reading]:
    """Expressions and, where `lookout` wants them, looks; the faces of all frames of the batch are classified together."""
    with watch.stage("crop"):
        crops = [cut_crops(seen.frame.grey, seen.faces) for seen in batch]
        looks = [
            _looks(seen.frame, seen.faces, crop) if lookout is not None and lookout.wants(seen.faces, seen.frame.time_s) else None
            for seen, crop in zip(batch, crops, strict=True)
        ]
    with watch.stage("classify"):
        probabilities = models.classifier.classify(np.concatenate([crop.pixels for crop in crops]))
    start = 0
    for seen, crop, look in zip(batch, crops, looks, strict=True):
        own = probabilities[start : start + len(crop)]
        yield Reading(seen.frame.index, seen.frame.time_s, seen.faces, crop.face_px, crop.sharpness, own, look, seen.cut)
        start += len(crop)


def _looks(frame: Frame, faces: Faces, crops: FaceCrops) -> NDArray[np.float32] | None:
    if not len(faces):
        return None
    # Colours of clothes need no fine picture.
    height, width = frame.grey.shape
    shrink = max(1, max(height, width) // _COLOURS_PX)
    return describe(frame.small(shrink), dataclasses.replace(faces, boxes=faces.boxes / shrink), crops)


def _nothing(frame: Frame, models: Models) -> Reading:
    """Of a frame that cannot be decoded."""
    none = np.empty(0, np.float32)
    probabilities = np.empty((0, len(models.classifier.labels)), np.float32)
    return Reading(-1, frame.time_s, Faces.none(), none, none, probabilities, None, False)


def _batches(items: Iterable[_Item], frame_of: Callable[[_Item], Frame]) -> Iterator[list[_Item]]:
    waiting: list[_Item] = []
    for item in items:
        waiting.append(item)
        if len(waiting) >= _BATCH_FRAMES or len(waiting) * frame_of(item).nbytes >= _BATCH_BYTES:
            yield waiting
            waiting = []
    if waiting:
        yield waiting
