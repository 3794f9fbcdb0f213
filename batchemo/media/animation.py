"""Decodes animated WebP, PNG and AVIF with Pillow: complete frames on white, with the durations that browsers use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from batchemo.errors import MediaError, unreadable
from batchemo.media.container import PacketCount, check_size
from batchemo.media.frame_times import FrameTimes, read_frame_times
from batchemo.media.pillow import exif_orientation, open_picture, to_rgb, turn_upright
from batchemo.media.source import ReadReport, Sampler, decode_pictures_at
from batchemo.records import Frame

_RIFF_HEAD_BYTES = 8


class AnimationSource:
    """Frames of an animation; see `batchemo.media.source.FrameSource`. The whole file is in memory, and one or two decoded frames."""

    decoder = "pillow"

    def __init__(self, path: Path) -> None:
        self._path = path
        self.report = ReadReport(starts_s=0.0)

    def frames(self, *, sample_fps: float | None = None, start_index: int = 0) -> Iterator[Frame]:
        times = read_animation_times(self._path)
        if times is None:
            raise MediaError("not_media", f"{self._path} is no longer an animation; run again")
        self.report.length_s = float(times.duration_s)
        self.report.missing = times.missing
        sampler = Sampler(sample_fps)
        starts_s = times.starts_s.tolist()
        for number, (start_s, pixels) in enumerate(zip(starts_s, self._decode(times), strict=True)):
            if pixels is None:
                self.report.undecodable += 1
                yield Frame(-1, start_s, None)
                continue
            self.report.height, self.report.width = pixels.shape[:2]
            if sampler.accepts(start_s) and number >= start_index:
                yield Frame(number, start_s, pixels)
            self.report.decoded += 1
            self.report.duration_s = starts_s[number + 1] if number + 1 < len(starts_s) else float(times.duration_s)

    def pictures_at(self, times_s: Sequence[float]) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        """Yields the frames presented at exactly `times_s` (increasing), each as its time and RGB uint8 H x W x 3.

        All frames before are decoded, since each is drawn onto the previous one. Raises MediaError as `frames` does.
        """
        return decode_pictures_at(self, times_s)

    def count(self) -> PacketCount:
        """Counts the frames by the headers, without decoding. Raises MediaError where there are none."""
        times = read_animation_times(self._path)
        if times is None:
            raise MediaError("not_media", f"{self._path} is no longer an animation; run again")
        return PacketCount(times.starts_s, 0, times.missing)

    def _decode(self, times: FrameTimes) -> Iterator[NDArray[np.uint8] | None]:
        """The upright frames; None for each from the first damaged one on, since later frames are drawn onto it."""
        decoded = 0
        try:
            content = _complete_part(self._path.read_bytes(), times)
            with open_picture(content) as picture:
                check_size(self._path, *picture.size)
                orientation = 1
                for number in range(len(times.durations)):
                    picture.seek(number + times.default_image)
                    picture.load()
                    # After `load`: to find the EXIF of a PNG Pillow decodes it, and would report damaged pixels as damaged EXIF.
                    orientation = orientation if decoded else exif_orientation(picture)
                    pixels = turn_upright(to_rgb(picture), orientation)
                    decoded += 1
                    yield pixels
        except (MediaError, MemoryError):
            raise
        except Image.DecompressionBombError as error:
            raise MediaError(
                "too_large", f"{self._path} has far too many pixels to be analysed ({error}). Make it smaller first"
            ) from error
        except Exception as error:  # Pillow raises whatever its readers of formats do
            self.report.trouble = str(error)
            if not decoded:
                message = f"{self._path}: no frame can be decoded ({error}); open it in a browser, or copy it again from its source"
                raise MediaError("no_frames", message) from error
        for _ in range(len(times.durations) - decoded):
            yield None


def read_animation_times(path: Path) -> FrameTimes | None:
    """Frame times of an animation; None for any other file. Raises MediaError where the file cannot be read."""
    try:
        return read_frame_times(path)
    except OSError as error:
        raise unreadable(path, error) from error


def _complete_part(content: bytes, times: FrameTimes) -> bytes:
    """A truncated WebP without its incomplete last chunk, which Pillow would refuse."""
    if times.format != "webp" or not times.missing:
        return content
    size = times.complete_bytes - _RIFF_HEAD_BYTES
    return content[:4] + size.to_bytes(4, "little") + content[_RIFF_HEAD_BYTES : times.complete_bytes]
