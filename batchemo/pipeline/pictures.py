"""Analyses pictures: each is searched by itself, and the faces of up to 16 are classified as one batch."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchemo.errors import MediaError, blaming
from batchemo.faces.align import align_faces
from batchemo.media.decode import Decoder, open_source
from batchemo.media.fingerprint import fingerprint_of
from batchemo.media.source import ReadReport
from batchemo.pipeline.assemble import TableAssembler
from batchemo.pipeline.context import RunContext
from batchemo.pipeline.inference import Models, batch_by_size, models_of
from batchemo.pipeline.medium import analyse_medium
from batchemo.records import AlignedCrops, Faces, FrameResult, Medium, MediumOutcome
from batchemo.render.thumbnails import crop_thumbnails
from batchemo.timing import Stopwatch


def analyse_pictures(media: Sequence[Medium], context: RunContext) -> Iterator[MediumOutcome]:
    """Detects faces in each picture, classifies those of a batch of pictures at once, and writes the results of each."""
    detected = (_detected(medium, context) for medium in media)
    for pictures in batch_by_size(detected, lambda each: each.nbytes):
        batch = PictureBatch(pictures, models_of(context))
        for index, picture in enumerate(pictures):
            tables = TableAssembler(picture.medium, context, picture.watch, spent_s=picture.seconds)
            segments = functools.partial(batch.segments, index, context)
            yield analyse_medium(picture.medium, context, tables, segments, picture.watch, thumbnails=picture.thumbnails)


@dataclasses.dataclass(frozen=True, slots=True)
class DetectedPicture:
    """A picture whose faces are detected and not classified yet, or the `error` that prevented it.

    `thumbnails`: of its faces, for the page. `seconds`: elapsed time; the `watch` holds processor time.
    """

    medium: Medium
    report: ReadReport
    decoder: str
    faces: Faces
    crops: AlignedCrops
    thumbnails: Sequence[NDArray[np.uint8]]
    nbytes: int
    seconds: float
    watch: Stopwatch
    error: MediaError | None
    fingerprint: int = 0


def detect_picture(
    medium: Medium, models: Models, watch: Stopwatch, *, decoder: Decoder, sample_fps: float | None, thumbnails: bool
) -> DetectedPicture:
    """Decode -> detect -> align. A picture has no embeddings, as its faces are in no other frame."""
    began = time.monotonic()
    source = open_source(medium, decoder=decoder)
    faces, error, nbytes, fingerprint = Faces.none(), None, 0, 0
    crops = align_faces(np.empty((1, 1), np.uint8), faces)
    cropped: list[NDArray[np.uint8]] = []
    try:
        with blaming(medium.path):
            for frame in watch.each("decode", source.frames(sample_fps=sample_fps)):
                nbytes = frame.nbytes
                with watch.stage("search and follow"):
                    (faces,) = models.detector.detect([frame.pixels])
                with watch.stage("crop"):
                    crops = align_faces(frame.pixels, faces)
                    fingerprint = fingerprint_of(frame)
                if thumbnails:
                    with watch.stage("thumbnails"):
                        cropped = crop_thumbnails(frame.pixels, faces)
    except MediaError as found:
        error = found
    seconds = time.monotonic() - began
    return DetectedPicture(medium, source.report, source.decoder, faces, crops, cropped, nbytes, seconds, watch, error, fingerprint)


class PictureBatch:
    """Pictures whose faces are classified together, when the result of the first one is asked for."""

    def __init__(self, pictures: Sequence[DetectedPicture], models: Models) -> None:
        self.pictures = pictures
        self.processor = models.processor
        self._classifier = models.classifier
        self._probabilities: list[NDArray[np.float32]] = []

    def classify(self, index: int) -> FrameResult:
        """The result of the `index`th picture. Raises its `error`, if it has one."""
        picture = self.pictures[index]
        if picture.error is not None:
            raise picture.error
        if not self._probabilities:
            with picture.watch.stage("classify"):
                found = self._classifier.classify(np.concatenate([each.crops.pixels for each in self.pictures]))
            self._probabilities = np.split(found, np.cumsum([len(each.crops) for each in self.pictures])[:-1])
        crops, own = picture.crops, self._probabilities[index]
        return FrameResult(0, 0.0, picture.faces, crops.face_px, crops.sharpness, own, None, False, picture.fingerprint)

    def segments(self, index: int, context: RunContext, _origin: dict[str, Any]) -> list[PictureInference]:
        """The one segment of the `index`th picture."""
        return [PictureInference(self, index, context)]


class PictureInference:
    """The `index`th picture of a batch, as the one segment of its medium (see `FrameResults`)."""

    first = last = None  # a picture has no shots

    def __init__(self, batch: PictureBatch, index: int, context: RunContext) -> None:
        self._batch = batch
        self._index = index
        self._context = context
        self.report = batch.pictures[index].report
        self.decoder = batch.pictures[index].decoder
        self.processor = batch.processor

    def __iter__(self) -> Iterator[FrameResult]:
        yield self._batch.classify(self._index)
        self._context.report_progress(1, 1.0)


def _detected(medium: Medium, context: RunContext) -> DetectedPicture:
    watch, options = Stopwatch(), context.options
    with watch.stage("start"):
        models = models_of(context)
    picture = detect_picture(medium, models, watch, decoder=options.decoder, sample_fps=options.sample_fps, thumbnails=options.portrays)
    context.report_progress(0, 0.5)
    return picture
