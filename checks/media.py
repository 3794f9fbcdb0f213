"""Makes small good media with faces, in every container and codec at hand, from the samples."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

SAMPLES = Path(__file__).parents[1] / "sample_media"
SIDE = 112
"""Side of all media in pixels: a face fills half of it, and is found."""

PICTURES = ("jpg", "png", "webp", "bmp", "tiff", "gif", "avif")
CLIPS = (
    ("mp4", "libx264", 25),
    ("mp4", "mpeg4", 25),
    ("mov", "libx265", 25),
    ("mkv", "libx264", 1000),
    ("webm", "libvpx", 1000),
    ("webm", "libvpx-vp9", 1000),
    ("avi", "mpeg4", 25),
    ("avi", "mjpeg", 25),
    ("ts", "libx264", 90_000),
    ("mpg", "mpeg2video", 25),
    ("flv", "flv", 1000),
    ("mxf", "mpeg2video", 25),
    ("ogv", "libvpx", 1000),
    ("asf", "wmv2", 1000),
)
"""Extension, codec, and ticks a second."""


def faces() -> list[NDArray[np.uint8]]:
    """RGB pictures of SIDE x SIDE pixels with one face each."""
    found = []
    for name, box in (("eileen_collins.jpg", (40, 130, 260, 260)), ("grace_hopper.jpg", (20, 90, 280, 280))):
        picture = cv2.imread(str(SAMPLES / name))
        if picture is None:
            raise FileNotFoundError(SAMPLES / name)
        top, left, height, width = box
        part = picture[top : top + height, left : left + width]
        found.append(np.asarray(cv2.cvtColor(cv2.resize(part, (SIDE, SIDE), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB), np.uint8))
    return found


def write_good(folder: Path, count: int) -> list[Path]:
    """Writes `count` media below `folder`, of all kinds in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for index, (kind, codec, ticks) in zip(range(count), _kinds(), strict=False):
        face = faces()[index % 2]
        path = folder / f"{index:03d}-{codec or 'still'}.{kind}"
        if codec:
            write_clip(path, face, codec=codec, ticks=ticks, frames=6 + index % 7, sound=kind in ("mp4", "mkv") and index % 2 == 0)
        else:
            Image.fromarray(np.roll(face, index, axis=1)).save(path)
        written.append(path)
    return written


def write_clip(path: Path, face: NDArray[np.uint8], *, codec: str, ticks: int, frames: int, rate: int = 25, sound: bool = False) -> None:
    """`frames` frames, `rate` a second, of a face that moves to the right and comes back at the left."""
    options = {"movflags": "+faststart"} if frames % 2 and path.suffix in (".mp4", ".mov") else {}
    quiet = {"x265-params": "log-level=error"} if codec == "libx265" else {}
    with av.open(str(path), "w", options=options) as output:
        stream = output.add_stream(codec, rate=rate, options=quiet)
        if not isinstance(stream, av.VideoStream):
            raise TypeError(f"{codec} is no codec of videos")
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size = 4
        stream.time_base = stream.codec_context.time_base = Fraction(1, ticks)
        heard = output.add_stream("aac", rate=16_000, layout="mono") if sound else None
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(np.roll(face, 2 * index, axis=1), "rgb24")
            frame.pts, frame.time_base = index * ticks // rate, Fraction(1, ticks)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if isinstance(heard, av.AudioStream):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
            silence.sample_rate = 16_000
            output.mux([*heard.encode(silence), *heard.encode(None)])


def _kinds() -> Iterator[tuple[str, str, int]]:
    there = [each for each in CLIPS if each[1] in av.codecs_available]
    stills = [(kind, "", 0) for kind in PICTURES]
    while True:
        for clip, still in zip(there, stills * 2, strict=False):
            yield clip
            yield still
