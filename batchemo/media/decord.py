"""Decodes short videos with decord: faster than PyAV there, but it buffers decoded frames without limit (dmlc/decord #157)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from batchemo.errors import MediaError
from batchemo.media.packet_index import PacketIndex, read_packet_index
from batchemo.media.presentation import is_same_picture
from batchemo.media.source import ReadReport, Sampler
from batchemo.records import Frame

MAX_DECODED_BYTES = 256 * 2**20
"""Limit for the decoded frames of a clip that decord may read, since it may hold all of them in memory."""

_MAX_STATED_FRAMES = 1_000_000
"""Limit for the number of frames in the header: decord allocates memory for each of them, and aborts the process where it runs out."""

_BATCH_BYTES = 32 * 2**20

_SAME_TIME_S = 1e-3
"""Tolerance when decord's times are compared with the container's: decord uses 32-bit floats, accurate to this up to two hours."""


class DecordSource:
    """Frames of a video in presentation order; see `batchemo.media.source.FrameSource`.

    Raises MediaError of kind `decord`, at any frame, for whatever decord cannot do.
    """

    decoder = "decord"

    def __init__(self, path: Path, index: PacketIndex | None = None) -> None:
        self._path = path
        self._index = index
        self.report = ReadReport()

    def frames(self, *, sample_fps: float | None = None, start_index: int = 0) -> Iterator[Frame]:
        index = self._index or read_packet_index(self._path)
        times = index.times_s
        reader = self._open(index)
        self.report.length_s = index.duration_s
        sampler = Sampler(sample_fps)
        batch_size = max(1, min(16, _BATCH_BYTES // index.first_frame.nbytes))
        # All frames are decoded, because decord's seeks are inexact (dmlc/decord #54, #91, #365).
        for start in range(0, len(times), batch_size):
            indices = range(start, min(start + batch_size, len(times)))
            with _as_media_error(self._path):
                pictures = reader.get_batch(list(indices)).asnumpy()
            if start == 0 and not is_same_picture(pictures[0], index.first_frame):
                raise MediaError("decord", f"{self._path}: decord shows another picture than a player would; read it with --decoder pyav")
            for position, pixels in zip(indices, pictures, strict=True):
                if sampler.accepts(float(times[position])) and position >= start_index:
                    self.report.height, self.report.width = pixels.shape[:2]
                    yield Frame(position, float(times[position]), pixels)
        self.report.decoded = len(times)
        self.report.duration_s = index.duration_s

    def _open(self, index: PacketIndex) -> Any:
        """decord's reader. Raises MediaError where its frames or times are not those of the packets."""
        if not index.decord_safe:
            raise MediaError("decord", f"{self._path}: decord would not show it as a player does; read it with --decoder pyav")
        if index.stated_frames > _MAX_STATED_FRAMES:
            message = f"{self._path} claims {index.stated_frames} frames, too many for decord; read it with --decoder pyav"
            raise MediaError("decord", message)
        times = index.times_s
        with _as_media_error(self._path):
            import decord  # noqa: PLC0415 (not there on every platform, and slow to load)

            decord.logging.set_level(decord.logging.QUIET)  # its lines on stderr name no file
            with self._path.open("rb") as file:
                reader = decord.VideoReader(file, ctx=decord.cpu(0), num_threads=1)
            if len(reader) != len(times):
                raise MediaError("decord", f"{self._path}: decord finds {len(reader)} frames, the container has {len(times)}")
            starts_s = reader.get_frame_timestamp(range(len(times)))[:, 0]
            if (np.abs(starts_s - starts_s[0] - times) > _SAME_TIME_S).any():
                # For example where fragments overlap in time: decord loses frames of them.
                raise MediaError("decord", f"{self._path}: decord shows frames at other times; read it with --decoder pyav")
        return reader


@contextlib.contextmanager
def _as_media_error(path: Path) -> Iterator[None]:
    try:
        yield
    except (MediaError, MemoryError):
        raise
    except Exception as error:  # decord raises its own error types, RuntimeError, TypeError and more, by file
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MediaError("decord", f"{path}: decord cannot read it ({first_line}); try --decoder pyav") from error
