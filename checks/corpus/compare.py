"""Compares the frames that batchemo and the `ffmpeg` command present of a clip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from batchemo.media import decode as opening
from batchemo.media.decode import Decoder, open_source, split_into_segments
from batchemo.records import Frame, Medium, Segment
from checks.corpus.clips import WANTED, Recipe
from checks.corpus.drawn import Picture, Read, UnreadableError, read
from checks.corpus.truth import Truth

SEGMENT_SECONDS = 0.2
"""Five frames of most clips: the distance of their key frames."""
SAMPLE_FPS = 7.0

_DECODERS: tuple[Decoder, ...] = ("pyav", "auto")
_MAX_TIME_ERROR_S = 1e-6
_MAX_TICK_ERROR_S = 1.2e-5
"""For containers with a time base of 1/90,000 s where some frames have no timestamp: one tick."""
_SLACK = Fraction(1, 2_000_000)
"""Seconds by which rounding may move a time below the border of an interval."""
_MAX_ASPECT_ERROR = 0.03
_MAX_DIFFERENCE = 2.5
"""Maximum mean absolute difference to ffmpeg's frame, of 255: above what two colour conversions differ by, far below the difference of
another frame (see docs/benchmarks.md)."""
_MAX_HDR_DIFFERENCE = 9.0
"""The same for tone-mapped HDR, for which there is more than one curve."""
_MAX_DECODER_DIFFERENCE = 0.5


class Shown:
    """All frames that batchemo decodes of one medium, in one way."""

    def __init__(self, medium: Medium, *, decoder: Decoder, sample_fps: float | None = None, segments: Sequence[Segment] = ()) -> None:
        self.indices: list[int] = []
        self.times: list[float] = []
        self.pictures: list[Picture] = []
        self.undecodable = self.missing = 0
        self.decoder = ""
        parts: Sequence[Segment | None] = segments or (None,)
        for segment in parts:
            source = open_source(medium, decoder=decoder, segment=segment)
            before = len(self.indices)
            for frame in source.frames(sample_fps=sample_fps):
                self._take(frame, before)
            self.decoder = source.decoder
            self.size = source.report.width, source.report.height
            self.undecodable += source.report.undecodable
            self.missing += source.report.missing

    def _take(self, frame: Frame, before: int) -> None:
        if frame.is_decoded:
            self.indices.append(before + frame.index)
            self.times.append(frame.time_s)
            self.pictures.append(frame.pixels)


def differences(recipe: Recipe, path: Path, truth: Truth) -> list[str]:
    """One line for each difference; empty where the clip is right."""
    whole, auto = shown_by(path, "pyav"), shown_by(path, "auto")
    found = [f"pyav: {line}" for line in against_truth(recipe, whole, truth)]
    found += [f"auto ({auto.decoder}): {line}" for line in alone(auto, whole)]
    for decoder in _DECODERS:
        found += in_segments(path, decoder, whole) + sampled(path, decoder, truth)
    return found


def shown_by(path: Path, decoder: Decoder, *, sample_fps: float | None = None, segments: Sequence[Segment] = ()) -> Shown:
    return Shown(Medium(path, path.name, path.name, "video"), decoder=decoder, sample_fps=sample_fps, segments=segments)


def against_truth(recipe: Recipe, shown: Shown, truth: Truth) -> list[str]:
    """Differences of `shown` to ffmpeg's frames and to what was drawn."""
    return list(_against_truth(recipe, shown, truth))


def alone(shown: Shown, whole: Shown, most: float = _MAX_DECODER_DIFFERENCE) -> list[str]:
    """Differences between two ways of decoding one medium."""
    return list(_against_another(shown, whole, most))


def in_segments(path: Path, decoder: Decoder, whole: Shown) -> list[str]:
    """Differences between the segments of a medium, one after the other, and the `whole`."""
    segments = _short_segments(Medium(path, path.name, path.name, "video"), decoder)
    if len(segments) < 2:
        return []
    shown = shown_by(path, decoder, segments=segments)
    return [f"{decoder} in {len(segments)} segments: {line}" for line in _against_another(shown, whole, 0)]


def sampled(path: Path, decoder: Decoder, truth: Truth) -> list[str]:
    """Differences between sampled frames and ffmpeg's frames at their times."""
    shown = shown_by(path, decoder, sample_fps=SAMPLE_FPS)
    return [f"{decoder} with {SAMPLE_FPS:g} frames a second: {line}" for line in _against_sample(shown, truth)]


def _short_segments(medium: Medium, decoder: Decoder) -> list[Segment]:
    usual = opening.SEGMENT_SECONDS
    opening.SEGMENT_SECONDS = SEGMENT_SECONDS
    try:
        return split_into_segments(medium, decoder=decoder)
    finally:
        opening.SEGMENT_SECONDS = usual


def _against_truth(recipe: Recipe, shown: Shown, truth: Truth) -> Iterator[str]:
    if shown.undecodable or shown.missing:
        yield f"{shown.undecodable} frames undecodable, {shown.missing} missing"
    if shown.indices != list(range(len(truth.times))):
        yield f"{len(shown.indices)} frames with indices {shown.indices}, ffmpeg shows {len(truth.times)}"
    off = _MAX_TICK_ERROR_S if recipe.container in ("ts", "mpg") else _MAX_TIME_ERROR_S
    both = zip(shown.times, truth.times, strict=False)
    wrong = [(index, time, float(true)) for index, (time, true) in enumerate(both) if abs(time - true) > off]
    if wrong:
        yield f"{len(wrong)} times are others, frame {wrong[0][0]} comes at {wrong[0][1]:.6f} instead of {wrong[0][2]:.6f} s"
    if any(abs(side - true) > 1 for side, true in zip(shown.size, recipe.shown_size, strict=True)):
        yield f"{shown.size[0]} x {shown.size[1]} pixels instead of {recipe.shown_size[0]} x {recipe.shown_size[1]}"
    yield from _against_drawn(shown, truth)
    most = _MAX_HDR_DIFFERENCE if recipe.colours in ("pq", "hlg") else _MAX_DIFFERENCE
    yield from _pixels(shown.pictures, truth.pictures, most)


def _against_drawn(shown: Shown, truth: Truth) -> Iterator[str]:
    """Frame numbers must be those of ffmpeg's frames, and all frames upright, of the wanted track, and with square pixels."""
    numbers, true = _numbers(shown.pictures), _numbers(truth.pictures)
    if numbers != true:
        yield f"shows {numbers} instead of {true}"
    found: set[str] = set()
    for picture, number in zip(shown.pictures, numbers, strict=True):
        if number is not None:
            found |= _faults(read(picture))
    if found:
        yield f"pictures are {', '.join(sorted(found))}"


def _faults(said: Read) -> set[str]:
    faults = {
        f"of track {said.track}": said.track != WANTED,
        said.orientation: said.orientation != "upright",
        f"squeezed to {said.aspect:.1f}": abs(said.aspect - 1) > _MAX_ASPECT_ERROR,
    }
    return {fault for fault, found in faults.items() if found}


def _pixels(pictures: Sequence[Picture], others: Sequence[Picture], most: float) -> Iterator[str]:
    """Compares all frames that both have."""
    far = [(mean_difference(picture, other), index) for index, (picture, other) in enumerate(zip(pictures, others, strict=False))]
    worst, index = max(far, default=(0.0, 0))
    if worst > most:
        yield f"pixels of frame {index} differ by {worst:.1f}"


def mean_difference(picture: Picture, other: Picture) -> float:
    """Mean absolute difference, of 255; the first picture is scaled to the size of the other."""
    if picture.shape != other.shape:
        picture = np.asarray(cv2.resize(picture, (other.shape[1], other.shape[0]), interpolation=cv2.INTER_LINEAR), np.uint8)
    return float(np.abs(picture.astype(np.int16) - other).mean())


def _against_another(shown: Shown, whole: Shown, most: float) -> Iterator[str]:
    if shown.indices != whole.indices:
        yield f"indices {shown.indices}, whole {whole.indices}"
    elif shown.times != whole.times:
        yield f"times {shown.times}, whole {whole.times}"
    if (shown.undecodable, shown.missing) != (whole.undecodable, whole.missing):
        yield f"{shown.undecodable} undecodable, {shown.missing} missing; whole {whole.undecodable}, {whole.missing}"
    if shown.size != whole.size:
        yield f"{shown.size} pixels, whole {whole.size}"
    yield from _pixels(shown.pictures, whole.pictures, most)


def _against_sample(shown: Shown, truth: Truth) -> Iterator[str]:
    """The first frame of each interval, calculated with fractions from ffmpeg's times."""
    wanted, last = [], -1
    for index, time in enumerate(truth.times):
        interval = int((time + _SLACK) * Fraction(SAMPLE_FPS))
        if interval > last:
            wanted.append(index)
            last = interval
    if shown.indices != wanted:
        yield f"indices {shown.indices} instead of {wanted}"
        return
    if any(abs(time - truth.times[index]) > _MAX_TICK_ERROR_S for time, index in zip(shown.times, wanted, strict=True)):
        yield f"times {shown.times}"
    said, true = _numbers(shown.pictures), _numbers([truth.pictures[index] for index in wanted])
    if said != true:
        yield f"shows {said} instead of {true}"


def _numbers(pictures: Sequence[Picture]) -> list[int | None]:
    """The number in each picture; None where it is unreadable."""
    numbers: list[int | None] = []
    for picture in pictures:
        try:
            numbers.append(read(picture).number)
        except UnreadableError:
            numbers.append(None)
    return numbers
