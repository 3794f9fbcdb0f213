"""Animated WebP, PNG and AVIF by Pillow: whole frames, one after the other, on white, shown as long as browsers show them."""

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
    """Frames of an animation; see `batchemo.media.source.FrameSource`. The file is in memory, of its frames one or two."""

    decoder = "pillow"

    def __init__(self, path: Path) -> None:
        self._path = path
        self.found = ReadReport(starts_s=0.0)

    def frames(self, *, sample_fps: float | None = None, start_index: int = 0) -> Iterator[Frame]:
        times = read_animation_times(self._path)
        if times is None:
            raise MediaError("not_media", f"{self._path} is no animation any more; run again")
        self.found.length_s = float(times.duration_s)
        self.found.missing = times.missing
        sampler = Sampler(sample_fps)
        starts_s = times.starts_s.tolist()
        for number, (start_s, pixels) in enumerate(zip(starts_s, self._decoded(times), strict=True)):
            if pixels is None:
                self.found.undecodable += 1
                yield Frame(-1, start_s, None)
                continue
            self.found.height, self.found.width = pixels.shape[:2]
            if sampler.wants(start_s) and number >= start_index:
                yield Frame(number, start_s, pixels)
            self.found.decoded += 1
            self.found.duration_s = starts_s[number + 1] if number + 1 < len(starts_s) else float(times.duration_s)

    def pictures_at(self, times_s: Sequence[float]) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        """The frames shown at exactly `times_s`, which increase, each with its time and as RGB uint8 H x W x 3. One cannot jump: each frame
        is drawn onto the one before. Raises MediaError as `frames` does."""
        return decode_pictures_at(self, times_s)

    def count(self) -> PacketCount:
        """The frames that the headers announce, without decoding any. Raises MediaError where there are none."""
        times = read_animation_times(self._path)
        if times is None:
            raise MediaError("not_media", f"{self._path} is no animation any more; run again")
        return PacketCount(times.starts_s, 0, times.missing)

    def _decoded(self, times: FrameTimes) -> Iterator[NDArray[np.uint8] | None]:
        """The upright frames; None for each from the first on that cannot be decoded, since those that follow are drawn onto it."""
        given = 0
        try:
            content = _whole(self._path.read_bytes(), times)
            with open_picture(content) as picture:
                check_size(self._path, *picture.size)
                orientation = 1
                for number in range(len(times.durations)):
                    picture.seek(number + times.default_image)
                    picture.load()
                    # Pillow loads a PNG to find it, and what is wrong with the pixels would be taken for a matter of EXIF.
                    orientation = orientation if given else exif_orientation(picture)
                    pixels = turn_upright(to_rgb(picture), orientation)
                    given += 1
                    yield pixels
        except (MediaError, MemoryError):
            raise
        except Image.DecompressionBombError as error:
            raise MediaError(
                "too_large", f"{self._path} has far too many pixels to be analysed ({error}). Make it smaller first"
            ) from error
        except Exception as error:  # Pillow raises whatever its readers of formats do
            self.found.trouble = str(error)
            if not given:
                message = f"{self._path}: not one frame can be decoded ({error}); look at it in a browser, or copy it again from its source"
                raise MediaError("no_frames", message) from error
        for _ in range(len(times.durations) - given):
            yield None


def read_animation_times(path: Path) -> FrameTimes | None:
    """When the frames of an animation are shown; None for what is none. Raises MediaError where the file cannot be read."""
    try:
        return read_frame_times(path)
    except OSError as error:
        raise unreadable(path, error) from error


def _whole(content: bytes, times: FrameTimes) -> bytes:
    """A WebP that is cut off, without what is not whole: its reader refuses it otherwise."""
    if times.form != "webp" or not times.missing:
        return content
    size = times.whole_bytes - _RIFF_HEAD_BYTES
    return content[:4] + size.to_bytes(4, "little") + content[_RIFF_HEAD_BYTES : times.whole_bytes]
