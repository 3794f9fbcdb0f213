"""Videos by decord: quicker than PyAV on short clips, but it decodes ahead without bound (dmlc/decord #157)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from batchemo.errors import MediaError
from batchemo.media.packet_index import PacketIndex, read_packet_index
from batchemo.media.presentation import is_same_picture
from batchemo.media.source import ReadReport, Sampler
from batchemo.records import Frame

MAX_DECODED_BYTES = 256 * 2**20
"""A clip whose frames together are smaller than this may be read by decord, however far it reads ahead."""

_MOST_STATED = 1_000_000
"""Frames that a header may claim: decord sets memory aside for each of them, and ends the process where there is not enough."""

_BATCH_BYTES = 32 * 2**20

_SAME_S = 1e-3
"""Times closer than this are one: decord counts in 32 bits, which are as fine up to two hours."""


class DecordSource:
    """Frames of a video in presentation order; see `batchemo.media.source.FrameSource`.

    Raises MediaError of kind `decord` for what decord cannot do, wherever in the file that is.
    """

    decoder = "decord"

    def __init__(self, path: Path, index: PacketIndex | None = None) -> None:
        self._path = path
        self._index = index
        self.found = ReadReport()

    def frames(self, *, sample_fps: float | None = None, start_index: int = 0) -> Iterator[Frame]:
        index = self._index or read_packet_index(self._path)
        if not index.plain:
            raise MediaError("decord", f"{self._path}: decord would not show it as a player does; read it with --decoder pyav")
        if index.stated > _MOST_STATED:
            raise MediaError("decord", f"{self._path} claims {index.stated} frames, too many for decord; read it with --decoder pyav")
        times = index.times_s
        self.found.length_s = index.duration_s
        sampler = Sampler(sample_fps)
        batch_size = max(1, min(16, _BATCH_BYTES // index.first.nbytes))
        with _as_media_error(self._path):
            import decord  # noqa: PLC0415 (not there on every platform, and slow to load)

            decord.logging.set_level(decord.logging.QUIET)  # its lines on stderr name no file
            with self._path.open("rb") as file:
                reader = decord.VideoReader(file, ctx=decord.cpu(0), num_threads=1)
            if len(reader) != len(times):
                raise MediaError("decord", f"{self._path}: decord finds {len(reader)} frames, the container has {len(times)}")
            starts_s = reader.get_frame_timestamp(range(len(times)))[:, 0]
            if (np.abs(starts_s - starts_s[0] - times) > _SAME_S).any():
                # As of fragments that begin before those that precede them have been shown, of which it loses frames.
                raise MediaError("decord", f"{self._path}: decord shows frames at other times; read it with --decoder pyav")
        # All of them, since its seeks are inexact (dmlc/decord #54, #91, #365).
        for start in range(0, len(times), batch_size):
            indices = range(start, min(start + batch_size, len(times)))
            with _as_media_error(self._path):
                pictures = reader.get_batch(list(indices)).asnumpy()
            if start == 0 and not is_same_picture(pictures[0], index.first):
                raise MediaError("decord", f"{self._path}: decord shows another picture than a player; read it with --decoder pyav")
            for position, pixels in zip(indices, pictures, strict=True):
                if sampler.wants(float(times[position])) and position >= start_index:
                    self.found.height, self.found.width = pixels.shape[:2]
                    yield Frame(position, float(times[position]), pixels)
        self.found.decoded = len(times)
        self.found.duration_s = index.duration_s


@contextlib.contextmanager
def _as_media_error(path: Path) -> Iterator[None]:
    try:
        yield
    except (MediaError, MemoryError):
        raise
    except Exception as error:  # decord raises its own error types, RuntimeError, TypeError and more, by file
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MediaError("decord", f"{path}: decord cannot read it ({first_line}); try --decoder pyav") from error
