"""From frames to readings: which faces are in them and how they look, before anybody knows whose they are."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from batchemo.devices import choose_device
from batchemo.emotion.classifier import Classifier
from batchemo.emotion.weights import SHIPPED, load_weights
from batchemo.errors import MediaError, blaming
from batchemo.faces.align import align_faces
from batchemo.faces.detector import DetectorKind, MtcnnDetector
from batchemo.faces.propagate import propagate_faces
from batchemo.faces.reid import ReidSampler, embed_faces
from batchemo.media.ahead import prefetch
from batchemo.media.decode import open_source
from batchemo.media.fingerprint import fingerprint_of
from batchemo.media.shots import ShotFinder
from batchemo.media.source import ReadReport
from batchemo.options import RunOptions
from batchemo.records import AlignedCrops, DetectedFrame, Faces, Frame, FrameResult, Medium
from batchemo.render.thumbnails import crop_thumbnails
from batchemo.timing import Stopwatch

_BATCH_FRAMES = 16
_BATCH_BYTES = 64 * 2**20
"""Frames that wait for their crops to be classified together: bounded, whatever their size."""

_COLOURS_PX = 320
"""Least longer side of the picture that colours are read from."""

_Item = TypeVar("_Item")


@dataclasses.dataclass(frozen=True, slots=True)
class Models:
    """The networks, loaded once a process. `follows`: faces need not be searched for in every frame. `waits`: they calculate elsewhere, so
    that this processor may decode meanwhile."""

    detector: MtcnnDetector
    follows: bool
    waits: bool
    classifier: Classifier


def models_of(options: RunOptions) -> Models:
    """The networks that `options` ask for, loaded once a process. Raises DeviceError or WeightsError."""
    return load_models(
        device=options.device,
        weights=options.weights,
        detector=options.detector,
        min_face_px=options.min_face_px,
        batch_size=options.batch_size,
    )


@functools.lru_cache(maxsize=2)
def load_models(*, device: str, weights: Path | None, detector: DetectorKind, min_face_px: int, batch_size: int) -> Models:
    """Raises DeviceError or WeightsError."""
    place = choose_device(device)
    loaded = load_weights(weights or SHIPPED)
    return Models(
        MtcnnDetector(min_face_px=min_face_px, kind=detector, device=place),
        detector == "fast" and place.type == "cpu",
        place.type != "cpu",
        Classifier(loaded, device=place, batch_size=batch_size),
    )


def infer_frames(
    frames: Iterable[Frame], models: Models, shots: ShotFinder, watch: Stopwatch, *, appearance: bool, search_last: bool = False
) -> Iterator[FrameResult]:
    """What is seen in each frame of a film, those that cannot be decoded in their places between the others."""
    lost: list[Frame] = []
    sampler = ReidSampler() if appearance else None
    decoded = _decoded_ahead(frames, watch) if models.waits else watch.each("decode", frames)
    seen = _faces(_decodable(decoded, lost), models, shots, search_last=search_last)
    for batch in batch_by_size(watch.each("search and follow", seen), lambda each: each.frame.nbytes):
        for reading in _read(batch, models, sampler, watch):
            while lost and lost[0].time_s < reading.time_s:
                yield _nothing(lost.pop(0), models)
            yield reading
    for frame in lost:
        yield _nothing(frame, models)


def embed_frame(frame: Frame, faces: Faces, crops: AlignedCrops) -> NDArray[np.float32] | None:
    """Embeddings of the N faces of a frame, float32 N x D; None without faces."""
    if not len(faces):
        return None
    # Colours of clothes need no fine picture.
    height, width = frame.grey.shape
    shrink = max(1, max(height, width) // _COLOURS_PX)
    return embed_faces(frame.small(shrink), dataclasses.replace(faces, boxes=faces.boxes / shrink), crops)


@dataclasses.dataclass(frozen=True, slots=True)
class DetectedPicture:
    """The faces of a picture, whose expressions are not read yet, or the `error` that came in between; `portraits` are thumbnails of the
    faces, where the page is to show them; `seconds` by the clock, and those of the processor on the `watch`."""

    medium: Medium
    found: ReadReport
    decoder: str
    faces: Faces
    crops: AlignedCrops
    portraits: Sequence[NDArray[np.uint8]]
    nbytes: int
    seconds: float
    watch: Stopwatch
    error: MediaError | None
    fingerprint: int = 0


def detect_picture(medium: Medium, models: Models, options: RunOptions, watch: Stopwatch) -> DetectedPicture:
    """Searches a picture for faces. Nobody is followed in it, so nobody is looked at to be known again."""
    began = time.monotonic()
    source = open_source(medium, decoder=options.decoder)
    faces, error, nbytes, fingerprint = Faces.none(), None, 0, 0
    crops = align_faces(np.empty((1, 1), np.uint8), faces)
    portraits: list[NDArray[np.uint8]] = []
    try:
        with blaming(medium.path):
            for frame in watch.each("decode", source.frames(sample_fps=options.sample_fps)):
                nbytes = frame.nbytes
                with watch.stage("search and follow"):
                    (faces,) = models.detector.detect([frame.pixels])
                with watch.stage("crop"):
                    crops = align_faces(frame.pixels, faces)
                    fingerprint = fingerprint_of(frame)
                if options.portrays:
                    with watch.stage("thumbnails"):
                        portraits = crop_thumbnails(frame.pixels, faces)
    except MediaError as found:
        error = found
    return DetectedPicture(
        medium, source.found, source.decoder, faces, crops, portraits, nbytes, time.monotonic() - began, watch, error, fingerprint
    )


class PictureBatch:
    """Pictures whose faces are classified together, once the first of them is asked for."""

    def __init__(self, glimpses: Sequence[DetectedPicture], models: Models) -> None:
        self._glimpses = glimpses
        self._classifier = models.classifier
        self._probabilities: list[NDArray[np.float32]] = []

    def read(self, index: int) -> FrameResult:
        """What the `index`th picture shows. Raises the error of its glimpse, if that has one."""
        glimpse = self._glimpses[index]
        if glimpse.error is not None:
            raise glimpse.error
        if not self._probabilities:
            with glimpse.watch.stage("classify"):
                found = self._classifier.classify(np.concatenate([each.crops.pixels for each in self._glimpses]))
            self._probabilities = np.split(found, np.cumsum([len(each.crops) for each in self._glimpses])[:-1])
        crops = glimpse.crops
        return FrameResult(
            0, 0.0, glimpse.faces, crops.face_px, crops.sharpness, self._probabilities[index], None, False, glimpse.fingerprint
        )


def batch_by_size(items: Iterable[_Item], size_of: Callable[[_Item], int]) -> Iterator[list[_Item]]:
    """`items` in groups that are small, and smaller where they are large (`size_of`, bytes)."""
    waiting: list[_Item] = []
    for item in items:
        waiting.append(item)
        if len(waiting) >= _BATCH_FRAMES or len(waiting) * size_of(item) >= _BATCH_BYTES:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def _decoded_ahead(frames: Iterable[Frame], watch: Stopwatch) -> Iterator[Frame]:
    own = Stopwatch()  # they tell the time of one thread
    yield from prefetch(own.each("decode", frames), most=_BATCH_FRAMES)
    watch.add(own)


def _decodable(frames: Iterable[Frame], lost: list[Frame]) -> Iterator[Frame]:
    for frame in frames:
        if frame.is_decoded:
            yield frame
        else:
            lost.append(frame)


def _faces(frames: Iterable[Frame], models: Models, shots: ShotFinder, *, search_last: bool) -> Iterator[DetectedFrame]:
    """The faces of frames. On a CPU most are carried over from a few searches; a GPU searches every frame, many at once."""
    marked = ((frame, shots.is_cut(frame.grey)) for frame in frames)
    if models.follows:
        yield from propagate_faces(marked, models.detector, search_last=search_last)
        return
    for batch in batch_by_size(marked, lambda each: each[0].nbytes):
        found = models.detector.detect([frame.pixels for frame, _ in batch])
        for (frame, cut), faces in zip(batch, found, strict=True):
            yield DetectedFrame(frame, faces, cut)


def _read(batch: Sequence[DetectedFrame], models: Models, sampler: ReidSampler | None, watch: Stopwatch) -> Iterator[FrameResult]:
    """Expressions and, where `sampler` needs them, embeddings; the faces of all frames of the batch are classified together."""
    with watch.stage("crop"):
        crops = [align_faces(seen.frame.grey, seen.faces) for seen in batch]
        embeddings = [
            embed_frame(seen.frame, seen.faces, crop) if sampler is not None and sampler.is_needed(seen.faces, seen.frame.time_s) else None
            for seen, crop in zip(batch, crops, strict=True)
        ]
    with watch.stage("classify"):
        probabilities = models.classifier.classify(np.concatenate([crop.pixels for crop in crops]))
    start = 0
    for seen, crop, embedded in zip(batch, crops, embeddings, strict=True):
        frame, own = seen.frame, probabilities[start : start + len(crop)]
        yield FrameResult(
            frame.index, frame.time_s, seen.faces, crop.face_px, crop.sharpness, own, embedded, seen.cut, fingerprint_of(frame)
        )
        start += len(crop)


def _nothing(frame: Frame, models: Models) -> FrameResult:
    """Of a frame that cannot be decoded."""
    none = np.empty(0, np.float32)
    probabilities = np.empty((0, len(models.classifier.labels)), np.float32)
    return FrameResult(-1, frame.time_s, Faces.none(), none, none, probabilities, None, False, 0)
