"""Writes HEIC files: a key frame of HEVC by FFmpeg's encoder, in the boxes of ISO/IEC 23008-12."""

from __future__ import annotations

import functools
import struct
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.made_media import write_clip


def box(name: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), name) + body


def full_box(name: bytes, *parts: bytes, version: int = 0) -> bytes:
    return box(name, bytes([version, 0, 0, 0]), *parts)


def rotated(quarter_turns: int) -> bytes:
    """Anti-clockwise."""
    return box(b"irot", bytes([quarter_turns]))


def mirrored(axis: int) -> bytes:
    """0: top and bottom change places, 1: left and right."""
    return box(b"imir", bytes([axis]))


def heic_of(pixels: NDArray[np.uint8], *properties: bytes) -> bytes:
    """A HEIC file of RGB H x W x 3, whose sides are multiples of 8, with transformative `properties`, to be applied in their order."""
    height, width = pixels.shape[:2]
    video = _video_of(pixels.tobytes(), width, height)
    configuration, data = _box_in(video, b"hvcC"), _box_in(video, b"mdat")[8:]
    extent = full_box(b"ispe", struct.pack(">II", width, height))
    count = 2 + len(properties)
    associations = struct.pack(">IHB", 1, 1, count) + bytes(0x80 | number for number in range(1, count + 1))

    def meta(data_at: int) -> bytes:
        return full_box(
            b"meta",
            full_box(b"hdlr", bytes(4), b"pict", bytes(13)),
            full_box(b"pitm", struct.pack(">H", 1)),
            full_box(b"iloc", struct.pack(">BBHHHHII", 0x44, 0, 1, 1, 0, 1, data_at, len(data))),
            full_box(b"iinf", struct.pack(">H", 1), full_box(b"infe", struct.pack(">HH4sB", 1, 0, b"hvc1", 0), version=2)),
            box(b"iprp", box(b"ipco", configuration, extent, *properties), full_box(b"ipma", associations)),
        )

    kind = box(b"ftyp", b"heic", bytes(4), b"mif1heic")
    return kind + meta(len(kind) + len(meta(0)) + 8) + box(b"mdat", data)


@functools.cache
def _video_of(rgb: bytes, width: int, height: int) -> bytes:
    pixels = np.frombuffer(rgb, np.uint8).reshape(height, width, 3)
    options = {"crf": "4", "x265-params": "log-level=none:pools=none:frame-threads=1:bframes=0"}
    with tempfile.TemporaryDirectory() as folder:
        clip = write_clip(
            Path(folder) / "a.mp4", [pixels], codec="libx265", pixel_format="yuv444p", rate=1, options=options, codec_tag="hvc1"
        )
        return clip.path.read_bytes()


def _box_in(content: bytes, name: bytes) -> bytes:
    at = content.index(name) - 4
    return content[at : at + struct.unpack(">I", content[at : at + 4])[0]]
