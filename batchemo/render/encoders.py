"""Chooses FFmpeg's encoder for annotated videos, and its settings."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Mapping
from fractions import Fraction

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext

from batchemo.options import Codec, Quality

CODEC_NAMES: Mapping[Codec, str] = {"h264": "H.264", "hevc": "H.265", "av1": "AV1", "vp9": "VP9"}

APPLE_HEVC_TAG = "hvc1"
"""Tag of H.265 in MP4; Apple's players accept no other."""

_QUALITY_LEVELS: tuple[Quality, ...] = ("low", "medium", "high")

_PROBE_PX = 256
"""Side of the test frame; some hardware refuses smaller ones."""


@dataclasses.dataclass(frozen=True, slots=True)
class Encoder:
    """FFmpeg's name of an encoder, its options and pixel format, and the codec tag for MP4."""

    name: str
    options: Mapping[str, str]
    pixel_format: str = "yuv420p"
    tag: str = ""


def encoder_of(codec: Codec, *, quality: Quality, hardware: bool) -> Encoder:
    """The hardware encoder where `hardware` is set and one works, or else the software encoder.

    None of them reorders frames, so that segments of a video can be joined, and MP4 states the correct end.
    """
    encoder = (find_hardware(codec, quality=quality) if hardware else None) or _software(codec, _QUALITY_LEVELS.index(quality))
    return dataclasses.replace(encoder, tag=APPLE_HEVC_TAG if codec == "hevc" else "")


def _software(codec: Codec, quality: int) -> Encoder:
    """Presets are chosen for similar SSIM at the same quality level, and for speed (see docs/benchmarks.md)."""
    if codec == "h264":
        options = {"preset": "superfast", "crf": ("30", "25", "20")[quality], "bf": "0", "x264-params": "partitions=none"}
        return Encoder("libx264", options)
    if codec == "hevc":
        quiet = "log-level=none:pools=none:frame-threads=1:bframes=0"
        return Encoder("libx265", {"preset": "ultrafast", "crf": ("28", "23", "18")[quality], "x265-params": quiet})
    if codec == "av1":
        os.environ.setdefault("SVT_LOG", "1")  # errors only: it writes to the terminal itself
        return Encoder("libsvtav1", {"preset": "9", "crf": ("45", "35", "26")[quality], "svtav1-params": "lp=1"})
    return Encoder("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "crf": ("40", "34", "24")[quality], "b": "0"})


@functools.lru_cache(maxsize=16)
def find_hardware(codec: Codec, *, quality: Quality = "medium") -> Encoder | None:
    """The first hardware encoder (NVIDIA, Intel, AMD, Apple) that encodes a frame on this machine."""
    level = ("31", "26", "21")[_QUALITY_LEVELS.index(quality)]
    for encoder in (
        Encoder(f"{codec}_nvenc", {"preset": "p4", "rc": "vbr", "cq": level, "b": "0", "bf": "0"}),
        Encoder(f"{codec}_qsv", {"global_quality": level, "bf": "0"}, pixel_format="nv12"),
        Encoder(f"{codec}_amf", {"rc": "cqp", "qp_i": level, "qp_p": level}),
        Encoder(f"{codec}_videotoolbox", {"bf": "0"}),
    ):
        if encoder.name in av.codecs_available and _can_encode(encoder):
            return encoder
    return None


def _can_encode(encoder: Encoder) -> bool:
    with contextlib.suppress(av.FFmpegError, OSError, ValueError):
        context = av.CodecContext.create(encoder.name, "w")
        if isinstance(context, VideoCodecContext):
            context.width = context.height = _PROBE_PX
            context.pix_fmt, context.framerate, context.options = encoder.pixel_format, Fraction(25), dict(encoder.options)
            grey = av.VideoFrame.from_ndarray(np.full((_PROBE_PX * 3 // 2, _PROBE_PX), 128, np.uint8), format="yuv420p")
            grey.pts = 0
            return bool([*context.encode(grey), *context.encode(None)])
    return False
