"""What batchemo shows of a clip that the `ffmpeg` command does not, and the other way round."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from batchemo.media import open_source as opening
from batchemo.media.open_source import Decoder, open_source, split_into_segments
from batchemo.records import Frame, Medium, Segment
from checks.corpus.clips import WANTED, Recipe
from checks.corpus.drawn import Picture, Read, UnreadableError, read
from checks.corpus.truth import Truth

SEGMENT_SECONDS = 0.2
"""Five frames of most clips: as many as there are from one key frame to the next."""
SAMPLE_FPS = 7.0

_DECODERS: tuple[Decoder, ...] = ("pyav", "auto")
_SECONDS_OFF = 1e-6
_TICK_OFF = 1.2e-5
"""The same for containers that count 90,000 ticks a second and leave some frames without a time: one tick."""
_SLACK = Fraction(1, 2_000_000)
"""Seconds that a time may fall short of the border of an interval by rounding."""
_MOST_ASPECT = 0.03
_MOST_DIFFERENCE = 2.5
"""Mean of the absolute differences to what ffmpeg shows, of 255. Two ways to convert the same colours came to .6 (measured on all codecs),
another frame to 13 and more."""
_MOST_DIFFERENCE_OF_LIGHT = 9.0
"""The same where light of a high dynamic range became that of a screen, for which there is more than one curve."""
_MOST_BETWEEN_DECODERS = 0.5


class Shown:
    """All frames that the product gives of one medium, in one way."""

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
            self.size = source.found.width, source.found.height
            self.undecodable += source.found.undecodable
            self.missing += source.found.missing

    def _take(self, frame: Frame, before: int) -> None:
        if frame.is_decoded:
            self.indices.append(before + frame.index)
            self.times.append(frame.time_s)
            self.pictures.append(frame.pixels)


def differences(recipe: Recipe, path: Path, truth: Truth) -> list[str]:
    """One line for each thing that is not as it must be; none where all is well."""
    whole, auto = shown_by(path, "pyav"), shown_by(path, "auto")
    found = [f"pyav: {line}" for line in against_truth(recipe, whole, truth)]
    found += [f"auto ({auto.decoder}): {line}" for line in alone(auto, whole)]
    for decoder in _DECODERS:
        found += in_segments(path, decoder, whole) + sampled(path, decoder, truth)
    return found


def shown_by(path: Path, decoder: Decoder, *, sample_fps: float | None = None, segments: Sequence[Segment] = ()) -> Shown:
    return Shown(Medium(path, path.name, path.name, "video"), decoder=decoder, sample_fps=sample_fps, segments=segments)


def against_truth(recipe: Recipe, shown: Shown, truth: Truth) -> list[str]:
    """Where `shown` is not what ffmpeg shows, or not what is drawn."""
    return list(_against_truth(recipe, shown, truth))


def alone(shown: Shown, whole: Shown, most: float = _MOST_BETWEEN_DECODERS) -> list[str]:
    """Where two ways to read one medium disagree."""
    return list(_against_another(shown, whole, most))


def in_segments(path: Path, decoder: Decoder, whole: Shown) -> list[str]:
    """Where the segments of a medium, one after the other, are not the `whole`."""
    segments = _short_segments(Medium(path, path.name, path.name, "video"), decoder)
    if len(segments) < 2:
        return []
    shown = shown_by(path, decoder, segments=segments)
    return [f"{decoder} in {len(segments)} segments: {line}" for line in _against_another(shown, whole, 0)]


def sampled(path: Path, decoder: Decoder, truth: Truth) -> list[str]:
    """Where some frames a second are not those that ffmpeg shows at their times."""
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
    off = _TICK_OFF if recipe.container in ("ts", "mpg") else _SECONDS_OFF
    both = zip(shown.times, truth.times, strict=False)
    wrong = [(index, time, float(true)) for index, (time, true) in enumerate(both) if abs(time - true) > off]
    if wrong:
        yield f"{len(wrong)} times are others, frame {wrong[0][0]} comes at {wrong[0][1]:.6f} instead of {wrong[0][2]:.6f} s"
    if any(abs(side - true) > 1 for side, true in zip(shown.size, recipe.shown_size, strict=True)):
        yield f"{shown.size[0]} x {shown.size[1]} pixels instead of {recipe.shown_size[0]} x {recipe.shown_size[1]}"
    yield from _against_drawn(shown, truth)
    most = _MOST_DIFFERENCE_OF_LIGHT if recipe.colours in ("pq", "hlg") else _MOST_DIFFERENCE
    yield from _pixels(shown.pictures, truth.pictures, most)


def _against_drawn(shown: Shown, truth: Truth) -> Iterator[str]:
    """The numbers are those that ffmpeg shows, all upright and of the wanted track, and squares are square."""
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
        f"squeezed to {said.aspect:.1f}": abs(said.aspect - 1) > _MOST_ASPECT,
    }
    return {fault for fault, found in faults.items() if found}


def _pixels(pictures: Sequence[Picture], others: Sequence[Picture], most: float) -> Iterator[str]:
    """Of all frames that both have."""
    far = [(mean_difference(picture, other), index) for index, (picture, other) in enumerate(zip(pictures, others, strict=False))]
    worst, index = max(far, default=(0.0, 0))
    if worst > most:
        yield f"pixels of frame {index} differ by {worst:.1f}"


def mean_difference(picture: Picture, other: Picture) -> float:
    """Of 255; pictures of two sizes are made equal first."""
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
    """The first frame of each interval, reckoned in fractions from the times that ffmpeg gives."""
    wanted, last = [], -1
    for index, time in enumerate(truth.times):
        interval = int((time + _SLACK) * Fraction(SAMPLE_FPS))
        if interval > last:
            wanted.append(index)
            last = interval
    if shown.indices != wanted:
        yield f"indices {shown.indices} instead of {wanted}"
        return
    if any(abs(time - truth.times[index]) > _TICK_OFF for time, index in zip(shown.times, wanted, strict=True)):
        yield f"times {shown.times}"
    said, true = _numbers(shown.pictures), _numbers([truth.pictures[index] for index in wanted])
    if said != true:
        yield f"shows {said} instead of {true}"


def _numbers(pictures: Sequence[Picture]) -> list[int | None]:
    """None for a picture that says nothing."""
    numbers: list[int | None] = []
    for picture in pictures:
        try:
            numbers.append(read(picture).number)
        except UnreadableError:
            numbers.append(None)
    return numbers
