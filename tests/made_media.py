"""Small videos that carry their truth: what each frame shows, and when."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal, cast

import av
import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
"""RGB, H x W x 3."""

SAMPLES = Path(__file__).parents[1] / "sample_media"


@dataclasses.dataclass(frozen=True, slots=True)
class MadeClip:
    """`pictures` are what a player shows, upright, at `times_s` on the container's clock."""

    path: Path
    pictures: tuple[Picture, ...]
    times_s: tuple[float, ...]


def write_clip(
    path: Path,
    pictures: Iterable[Picture],
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    rate: int = 25,
    stamps: Sequence[int] | None = None,
    tick: Fraction | None = None,
    rotation: int = 0,
    sound: Sequence[av.AudioFrame] = (),
    sound_codec: str = "aac",
    container: str | None = None,
    options: Mapping[str, str] | None = None,
    muxer: Mapping[str, str] | None = None,
    convert: Callable[[av.VideoFrame], av.VideoFrame] = lambda frame: frame,
    **context: object,
) -> MadeClip:
    """Writes `pictures`, `rate` a second or at `stamps` of `tick` seconds, and `sound`; without pictures, that alone.

    `options` are the encoder's, `muxer` the container's, `context` attributes of the encoder's context, as `gop_size` and `max_b_frames`.
    `rotation` (degrees, anti-clockwise) is what a player does to the pictures.
    """
    stored = tuple(pictures)
    stamps = range(len(stored)) if stamps is None else stamps
    tick = tick or Fraction(1, rate)
    with av.open(str(path), "w", format=container, options=dict(muxer or {})) as output:
        if stored:
            stream = cast("av.VideoStream", output.add_stream(codec, rate=rate, options=dict(options or {})))
            stream.height, stream.width = stored[0].shape[:2]
            stream.pix_fmt = pixel_format
            stream.time_base = stream.codec_context.time_base = tick
            for name, value in context.items():
                setattr(stream.codec_context, name, value)
            if rotation:
                stream.set_display_rotation(rotation)
        if sound:
            heard = cast("av.AudioStream", output.add_stream(sound_codec, rate=sound[0].sample_rate, layout=sound[0].layout.name))
        for picture, stamp in zip(stored, stamps, strict=True):
            frame = convert(av.VideoFrame.from_ndarray(picture, "rgb24"))
            frame.pts, frame.time_base = stamp, tick
            output.mux(stream.encode(frame))
        if stored:
            output.mux(stream.encode(None))
        for samples in (*sound, None) if sound else ():
            output.mux(heard.encode(samples))
    upright = tuple(np.rot90(picture, rotation // 90) for picture in stored)
    return MadeClip(path, upright, tuple(float(stamp * tick) for stamp in stamps))


def silence(seconds: float, *, rate: int = 16_000, layout: Literal["mono", "stereo"] = "mono") -> list[av.AudioFrame]:
    samples = np.zeros((1 if layout == "mono" else 2, round(seconds * rate)), np.float32)
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
    frame.sample_rate = rate
    return [frame]


def shades(count: int, size: tuple[int, int], *, step: int, first: int = 0) -> list[Picture]:
    """Grey pictures of width x height, each brighter by `step` than the one before; white is followed by black."""
    return [np.full((size[1], size[0], 3), (first + step * index) % 256, np.uint8) for index in range(count)]


def read_pixels(path: Path, flags: int = cv2.IMREAD_COLOR_BGR) -> Picture:
    """What OpenCV decodes: BGR, or what `flags` ask for."""
    pixels = cv2.imread(str(path), flags)
    assert pixels is not None, path
    return np.asarray(pixels, np.uint8)


@functools.cache
def face(side: int = 160) -> Picture:
    """A portrait, pressed into a square of `side` pixels; not to be written to."""
    picture = cv2.resize(read_pixels(SAMPLES / "eileen_collins.jpg"), (side, side))
    found = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)
    found.flags.writeable = False
    return found


def write_face_clip(
    path: Path, *, frames: int = 6, sound: Sequence[av.AudioFrame] = (), muxer: Mapping[str, str] | None = None
) -> MadeClip:
    """An MP4 of 10 frames a second, of a face that moves to the right by a pixel a frame."""
    pictures = [np.roll(face(), index, axis=1) for index in range(frames)]
    return write_clip(path, pictures, rate=10, sound=sound, container="mp4", muxer=muxer)
