"""Decodes a medium a second time, in another way than its run did: frame by frame with PyAV, or with the `ffmpeg` command."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import subprocess
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from batchemo.errors import MediaError, UsageError, typed
from batchemo.media.container import open_presenter, open_video
from batchemo.media.decode import open_sequential_source
from batchemo.media.fingerprint import fingerprint_of, fingerprint_of_grey
from batchemo.media.headers import NO_CROP
from batchemo.media.picture import read_picture
from batchemo.media.presentation import UPRIGHT, orientation_of
from batchemo.media.pyav import PyAVSource
from batchemo.media.source import Sampler
from batchemo.records import Frame, Medium

Reader = Literal["pyav", "ffmpeg"]
"""Choices of `--reader`."""

UsedReader = Literal["pyav", "ffmpeg", "pillow"]
"""What decodes a medium, whichever reader was asked for."""

_SQUARE = "scale=w='if(gte(sar,1),round(iw*sar),iw)':h='if(gte(sar,1),ih,round(ih/sar))':flags=bilinear,setsar=1"
"""FFmpeg's filter for square pixels; the command applies the orientation before it."""


@dataclasses.dataclass(frozen=True, slots=True)
class RedecodedMedium:
    """The frames of a medium.

    - `indices` (int32), `times_s` (float64), `fingerprints` (int64): of the frames that a run would analyse.
    - `lost_s`: times of the frames that cannot be decoded; None where the reader does not report them.
    - `size`: width and height in pixels.
    """

    indices: NDArray[np.int32]
    times_s: NDArray[np.float64]
    fingerprints: NDArray[np.int64]
    lost_s: NDArray[np.float64] | None
    size: tuple[int, int]

    def __repr__(self) -> str:
        return f"RedecodedMedium({len(self.times_s)} frames, {self.size[0]}x{self.size[1]})"


def check_reader(reader: Reader) -> None:
    """Raises UsageError where `reader` is not installed."""
    if reader == "ffmpeg" and shutil.which("ffmpeg") is None:
        raise UsageError("--reader ffmpeg needs the ffmpeg command; on Debian: sudo apt-get install ffmpeg")


def choose_reader(medium: Medium, wanted: Reader, *, has_clock: bool) -> UsedReader:
    """What decodes `medium` again: Pillow for pictures and animated pictures, otherwise `wanted`.

    `has_clock`: the container gives each frame its own time. Without it PyAV decodes, because the ffmpeg command makes times up.
    """
    if medium.kind == "image":
        return "pillow"
    with contextlib.suppress(MediaError):  # `redecode` raises it
        if not isinstance(open_sequential_source(medium.path), PyAVSource):
            return "pillow"
    return wanted if has_clock else "pyav"


def redecode(medium: Medium, *, reader: UsedReader, sample_fps: float | None) -> RedecodedMedium:
    """Decodes all frames of `medium` with the `reader` that `choose_reader` gave, sampled as in a run. Raises MediaError."""
    if medium.kind == "image":
        pixels = _by_pillow(medium.path)
        return _of([(0, 0.0, fingerprint_of(Frame(0, 0.0, pixels)))], np.empty(0), (pixels.shape[1], pixels.shape[0]))
    if reader == "ffmpeg":
        return _by_ffmpeg(medium.path, sample_fps)
    source = open_sequential_source(medium.path)
    seen: list[tuple[int, float, int]] = []
    lost: list[float] = []
    for frame in source.frames(sample_fps=sample_fps):
        if frame.is_decoded:
            seen.append((frame.index, frame.time_s, fingerprint_of(frame)))
        else:
            lost.append(frame.time_s)
    return _of(seen, np.sort(np.array(lost)), (source.report.width, source.report.height))


def _by_pillow(path: Path) -> NDArray[np.uint8]:
    """RGB uint8 H x W x 3, by Pillow alone; a picture with transparency, or partly damaged, is read as in a run."""
    with contextlib.suppress(Exception), Image.open(path) as picture:  # Pillow lets errors of its format plugins through
        if picture.mode in ("RGB", "L"):
            return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"), np.uint8)
    return read_picture(path)


def _of(seen: list[tuple[int, float, int]], lost_s: NDArray[np.float64] | None, size: tuple[int, int]) -> RedecodedMedium:
    indices, times_s, fingerprints = zip(*seen, strict=True) if seen else ((), (), ())
    return RedecodedMedium(np.array(indices, np.int32), np.array(times_s, np.float64), np.array(fingerprints, np.int64), lost_s, size)


def _by_ffmpeg(path: Path, sample_fps: float | None) -> RedecodedMedium:
    """Frames and times as the ffmpeg command outputs them; the size of the first one is that of the medium."""
    index, chain = _chain(path)
    width, height = next(((pixels.shape[1], pixels.shape[0]) for _, pixels in _frames(path, index, chain)), (0, 0))
    if not width:
        raise MediaError("no_frames", f"{path}: the ffmpeg command decodes no frame of it; look at it with: ffprobe {typed(path)}")
    letterbox = f"scale={width}:{height}:force_original_aspect_ratio=decrease:flags=bilinear,pad={width}:{height}:-1:-1"
    sampler, first, seen = Sampler(sample_fps), None, []
    for number, (time, pixels) in enumerate(_frames(path, index, f"{chain},{letterbox}")):
        first = time if first is None else first
        time_s = float(time - first)
        if sampler.accepts(time_s):
            seen.append((number, time_s, fingerprint_of_grey(pixels)))
    return _of(seen, None, (width, height))


def _chain(path: Path) -> tuple[int, str]:
    """Index of the stream that a player shows, and the filter chain that presents it; the command applies the orientation itself."""
    with open_video(path) as (container, stream):
        index, presenter, frame = stream.index, open_presenter(path, container, stream), None
        with contextlib.suppress(StopIteration, av.FFmpegError):
            frame = next(container.decode(stream)) if presenter.crop != NO_CROP else None
        if frame is None:
            return index, _SQUARE
        presenter.present(frame)
        orientation = orientation_of(frame) or UPRIGHT
        left, top, right, bottom = orientation.crop(presenter.crop)
        width, height = orientation.size(frame.width, frame.height)
    width, height = width - left - right, height - top - bottom
    # From release 7.1 on, ffmpeg crops by itself; before, it reads the pixel aspect ratio before the crop.
    crop = f"crop='min(iw,{width})':'min(ih,{height})':'if(gt(iw,{width}),{left})':'if(gt(ih,{height}),{top})':exact=1"
    shown = presenter.size or (width, height)
    return index, f"{crop},scale={shown[0]}:{shown[1]}:flags=bilinear,setsar=1"


def _frames(path: Path, index: int, chain: str) -> Iterator[tuple[Fraction, NDArray[np.uint8]]]:
    """The frames of the stream `index` after the filters of `chain`: time in seconds of the file's clock, and luma, uint8 H x W."""
    # fmt: off
    command = [
        "ffmpeg", "-nostdin", "-v", "quiet", "-i", f"file:{path.absolute()}", "-map", f"0:{index}",
        "-fps_mode", "passthrough", "-copyts",
        "-enc_time_base", "-1",
        "-vf", chain, "-pix_fmt", "gray", "-c:v", "rawvideo", "-f", "nut", "pipe:1",
    ]
    # fmt: on
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)  # noqa: S603
    with process, contextlib.suppress(av.FFmpegError):
        try:
            with av.open(process.stdout, "r", format="nut") as container:
                stream = container.streams.video[0]
                size = stream.codec_context.height, stream.codec_context.width
                for packet in container.demux(stream):
                    if packet.pts is not None and packet.size == size[0] * size[1]:
                        yield packet.pts * packet.time_base, np.frombuffer(memoryview(packet), np.uint8).reshape(size)
        finally:
            process.kill()
