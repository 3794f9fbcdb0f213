"""Frame inference: decoded frames -> faces, aligned crops, probabilities and embeddings, before faces are joined to tracks."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from batchemo.devices import choose_device
from batchemo.emotion.classifier import Classifier
from batchemo.emotion.weights import SHIPPED, load_weights
from batchemo.faces.align import align_faces
from batchemo.faces.detector import DetectorKind, MtcnnDetector
from batchemo.faces.propagate import propagate_faces
from batchemo.faces.reid import ReidSampler, embed_faces
from batchemo.media.fingerprint import fingerprint_of
from batchemo.media.shots import ShotFinder
from batchemo.media.source import prefetch
from batchemo.pipeline.context import RunContext
from batchemo.records import AlignedCrops, DetectedFrame, Faces, Frame, FrameResult
from batchemo.timing import Stopwatch

_BATCH_FRAMES = 16
_BATCH_BYTES = 64 * 2**20
"""Limits of a batch for the classifier: number of frames, and their size in memory."""

_COLOURS_PX = 320
"""The colours of clothes are read from a downsampled frame, whose longer side is at least this."""

_Item = TypeVar("_Item")


@dataclasses.dataclass(frozen=True, slots=True)
class Models:
    """The networks of a process.

    - `propagates`: faces are detected in a few frames and propagated to the others, which is faster on a CPU.
    - `decodes_ahead`: a thread decodes while the GPU computes.
    - `processor`: what the probabilities were computed on, such as `AVX512 int8`; other processors differ in their last digits.
    """

    detector: MtcnnDetector
    classifier: Classifier
    propagates: bool
    decodes_ahead: bool
    processor: str


def models_of(context: RunContext) -> Models:
    """The networks that the options ask for, loaded once a process. Raises DeviceError or WeightsError."""
    options = context.options
    return load_models(
        device=options.device,
        weights=options.weights,
        detector=options.detector,
        min_face_px=options.min_face_px,
        batch_size=options.batch_size,
    )


@functools.lru_cache(maxsize=2)
def load_models(*, device: str, weights: Path | None, detector: DetectorKind, min_face_px: int, batch_size: int) -> Models:
    """Loads the detector and the classifier. Raises DeviceError or WeightsError."""
    place = choose_device(device)
    on_cpu = place.type == "cpu"
    classifier = Classifier(load_weights(weights or SHIPPED), device=place, batch_size=batch_size)
    kind = torch.backends.cpu.get_cpu_capability() if on_cpu else torch.cuda.get_device_name(place)
    return Models(
        MtcnnDetector(min_face_px=min_face_px, kind=detector, device=place),
        classifier,
        propagates=detector == "fast" and on_cpu,
        decodes_ahead=not on_cpu,
        processor=f"{kind} {classifier.precision}",
    )


def infer_frames(
    frames: Iterable[Frame], models: Models, shots: ShotFinder, watch: Stopwatch, *, appearance: bool, detect_last: bool = False
) -> Iterator[FrameResult]:
    """Decode -> detect or propagate -> align -> classify. One result a frame, in order; undecodable frames keep their places.

    `appearance`: embeddings are computed too. `detect_last`: faces are detected in the last frame, not propagated to it.
    """
    undecodable: list[Frame] = []
    sampler = ReidSampler() if appearance else None
    decoded = _decoded_ahead(frames, watch) if models.decodes_ahead else watch.each("decode", frames)
    detected = _detect(_only_decoded(decoded, undecodable), models, shots, detect_last=detect_last)
    for batch in batch_by_size(watch.each("search and follow", detected), lambda each: each.frame.nbytes):
        for result in _classify(batch, models, sampler, watch):
            while undecodable and undecodable[0].time_s < result.time_s:
                yield _undecodable_result(undecodable.pop(0), models)
            yield result
    for frame in undecodable:
        yield _undecodable_result(frame, models)


def embed_frame(frame: Frame, faces: Faces, crops: AlignedCrops) -> NDArray[np.float32] | None:
    """The embeddings of the N faces of a frame, float32 N x D; None where there are none."""
    if not len(faces):
        return None
    height, width = frame.grey.shape
    shrink = max(1, max(height, width) // _COLOURS_PX)
    return embed_faces(frame.small(shrink), dataclasses.replace(faces, boxes=faces.boxes / shrink), crops)


def batch_by_size(items: Iterable[_Item], size_of: Callable[[_Item], int]) -> Iterator[list[_Item]]:
    """`items` in batches of up to 16, and smaller ones where items are large; `size_of` gives bytes."""
    batch: list[_Item] = []
    for item in items:
        batch.append(item)
        if len(batch) >= _BATCH_FRAMES or len(batch) * size_of(item) >= _BATCH_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch


def _decoded_ahead(frames: Iterable[Frame], watch: Stopwatch) -> Iterator[Frame]:
    own = Stopwatch()  # a stopwatch measures one thread
    yield from prefetch(own.each("decode", frames), max_ahead=_BATCH_FRAMES)
    watch.add(own)


def _only_decoded(frames: Iterable[Frame], undecodable: list[Frame]) -> Iterator[Frame]:
    for frame in frames:
        if frame.is_decoded:
            yield frame
        else:
            undecodable.append(frame)


def _detect(frames: Iterable[Frame], models: Models, shots: ShotFinder, *, detect_last: bool) -> Iterator[DetectedFrame]:
    marked = ((frame, shots.is_cut(frame.grey)) for frame in frames)
    if models.propagates:
        yield from propagate_faces(marked, models.detector, search_last=detect_last)
        return
    for batch in batch_by_size(marked, lambda each: each[0].nbytes):
        found = models.detector.detect([frame.pixels for frame, _ in batch])
        for (frame, cut), faces in zip(batch, found, strict=True):
            yield DetectedFrame(frame, faces, cut)


def _classify(batch: Sequence[DetectedFrame], models: Models, sampler: ReidSampler | None, watch: Stopwatch) -> Iterator[FrameResult]:
    """Classifies the faces of all frames of the batch at once, and embeds those that `sampler` wants."""
    with watch.stage("crop"):
        crops = [align_faces(each.frame.grey, each.faces) for each in batch]
        embeddings = [
            embed_frame(each.frame, each.faces, crop) if sampler is not None and sampler.is_needed(each.faces, each.frame.time_s) else None
            for each, crop in zip(batch, crops, strict=True)
        ]
    with watch.stage("classify"):
        probabilities = models.classifier.classify(np.concatenate([crop.pixels for crop in crops]))
    start = 0
    for each, crop, embedding in zip(batch, crops, embeddings, strict=True):
        frame, own = each.frame, probabilities[start : start + len(crop)]
        yield FrameResult(
            frame.index, frame.time_s, each.faces, crop.face_px, crop.sharpness, own, embedding, each.cut, fingerprint_of(frame)
        )
        start += len(crop)


def _undecodable_result(frame: Frame, models: Models) -> FrameResult:
    none = np.empty(0, np.float32)
    probabilities = np.empty((0, len(models.classifier.labels)), np.float32)
    return FrameResult(-1, frame.time_s, Faces.none(), none, none, probabilities, None, False, 0)
