"""Videos by decord: quicker than PyAV on short clips, but it decodes ahead without bound (dmlc/decord #157)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from batchemo.errors import MediaError
from batchemo.media.container import Index, check_size, read_index
from batchemo.media.source import Found, Sampler
from batchemo.records import Frame

MAX_DECODED_BYTES = 256 * 2**20
"""A clip whose frames together are smaller than this may be read by decord, however far it reads ahead."""

_MOST_STATED = 1_000_000
"""Frames that a header may claim: decord sets memory aside for each of them, and ends the process where there is not enough."""

_BATCH_BYTES = 32 * 2**20


class DecordSource:
    """Frames of a video in presentation order; see `batchemo.media.source.FrameSource`.

    Raises MediaError of kind `decord` for what decord cannot do, wherever in the file that is.
    """

    decoder = "decord"

    def __init__(self, path: Path, index: Index | None = None) -> None:
        self._path = path
        self._index = index
        self.found = Found()

    def frames(self, *, sample_fps: float | None = None, start_index: int = 0) -> Iterator[Frame]:
        index = self._index or read_index(self._path)
        check_size(self._path, index.width, index.height)
        if index.stated > _MOST_STATED:
            raise MediaError("decord", f"{self._path} claims {index.stated} frames, too many for decord; read it with --decoder pyav")
        times = index.times_s
        self.found.length_s = index.duration_s
        sampler = Sampler(sample_fps)
        chosen = [i for i, time_s in enumerate(times) if sampler.wants(float(time_s)) and i >= start_index]
        batch_size = max(1, min(16, _BATCH_BYTES // max(1, index.width * index.height * 3)))
        with _as_media_error(self._path):
            import decord  # noqa: PLC0415 (not there on every platform, and slow to load)

            with self._path.open("rb") as file:
                reader = decord.VideoReader(file, ctx=decord.cpu(0), num_threads=1)
            if len(reader) != len(times):
                raise MediaError("decord", f"{self._path}: decord finds {len(reader)} frames, the container has {len(times)}")
        for start in range(0, len(chosen), batch_size):
            indices = chosen[start : start + batch_size]
            with _as_media_error(self._path):
                pictures = reader.get_batch(indices).asnumpy()
            self.found.height, self.found.width = pictures.shape[1:3]
            for position, pixels in zip(indices, pictures, strict=True):
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
