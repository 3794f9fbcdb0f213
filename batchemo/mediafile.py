"""A medium's file as FFmpeg reads it: through Python, so that FFmpeg never sees the name, which could look like an address to it."""

from __future__ import annotations

import io
from pathlib import Path


class MediaFile(io.BufferedReader):
    """`path`, open to be read. Raises OSError where that cannot be."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.open("rb", buffering=0))

    def seek(self, place: int, whence: int = io.SEEK_SET, /) -> int:
        """The new place, or -1, which FFmpeg takes for an error: damaged files send it to places that are none, and what Python raises
        there, PyAV prints."""
        try:
            return super().seek(place, whence)
        except (OSError, ValueError):
            return -1
