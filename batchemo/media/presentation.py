"""Presents a video as a player does: which track, which packets, and each frame upright, with square pixels, in SDR colours.

mpv and the ffmpeg command are the reference. All readers of videos use this module, so that they cannot disagree.
"""

from __future__ import annotations

import collections
import struct
from collections.abc import Iterable
from fractions import Fraction
from typing import Any, NamedTuple, TypeVar, cast

import cv2
import numpy as np
from av.audio.stream import AudioStream
from av.buffer import Buffer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from batchemo.media.headers import NO_CROP, Crop
from batchemo.media.tone_mapping import HIGH_DYNAMIC_RANGE, to_sdr
from batchemo.records import Picture
from batchemo.yuv import Colours, Planes

Stream = TypeVar("Stream", VideoStream, AudioStream)

_SQUARE_PIXELS = Fraction(1)
_FULL_RANGE = 2
_WITH_LUMA = frozenset("yuv420p yuvj420p yuv422p yuvj422p yuv444p yuvj444p nv12 nv21 gray".split())
"""Pixel formats whose first plane is luma, one byte per pixel."""
_LUMA_BLACK, _LUMA_RANGE = 16, 219
"""Black level and range of luma in limited range (ITU-R BT.601)."""
_GAIN = 255 / _LUMA_RANGE
_MAX_BITS = 8
"""Per channel. Frames with more bits are converted at once, because consumers need 8 and about 20 frames stay in memory (see
docs/benchmarks.md)."""
_TO_8_BITS = 0
"""Key of the converter for that; the keys of the others are their downscaling factors."""
_KNOWN_MATRICES = frozenset({0, 1, 2, 4, 5, 6, 7, 9})
"""Colour matrices (ITU-T H.273, table 4) that FFmpeg 8 converts; it refuses any other."""
_UNSPECIFIED = 2
_ROUNDING_ERROR = 0.1
"""Mean difference, of 255, that is still rounding: FFmpeg 4 and 8 convert 8-bit colours identically."""

_Converters = collections.defaultdict[int, VideoReformatter]


class Orientation(NamedTuple):
    """How a stored frame becomes upright: transpose (`transposed`), then mirror left and right (`mirrored`), then top and bottom
    (`flipped`)."""

    transposed: bool = False
    mirrored: bool = False
    flipped: bool = False

    def apply(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """H x W or H x W x C, upright and contiguous."""
        if self == UPRIGHT:
            return pixels
        turned = pixels.swapaxes(0, 1) if self.transposed else pixels
        return np.ascontiguousarray(turned[:: -1 if self.flipped else 1, :: -1 if self.mirrored else 1])

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the upright picture."""
        return (height, width) if self.transposed else (width, height)

    def crop(self, crop: Crop) -> Crop:
        """The crop of the upright picture that equals `crop` of the stored one."""
        left, top, right, bottom = (crop.top, crop.left, crop.bottom, crop.right) if self.transposed else crop
        left, right = (right, left) if self.mirrored else (left, right)
        return Crop(left, bottom, right, top) if self.flipped else Crop(left, top, right, bottom)


UPRIGHT = Orientation()


def orientation_of(frame: VideoFrame) -> Orientation | None:
    """The orientation nearest to the display matrix of `frame`; None where it has none.

    A matrix in the container applies to every frame. H.264 may state one with single frames (SEI), for these and the frames that follow.
    """
    matrix = cast("Buffer | None", frame.side_data.get("DISPLAYMATRIX"))
    if matrix is None:
        return None
    # x' = a x + c y, y' = b x + d y (libavutil/display.h)
    a, b, _, c, d = struct.unpack_from("=5i", matrix)
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, a < 0, d < 0)
    return Orientation(True, c < 0, b < 0)


def choose_track(streams: Iterable[Stream]) -> Stream | None:
    """The track that a player plays: the first one with the default flag, or else the first; None where there is none.

    Cover pictures, and tracks without a decoder, are left out.
    """
    playable = [stream for stream in streams if not is_cover(stream) and stream.codec_context is not None]
    return next((stream for stream in playable if stream.disposition & Disposition.default), next(iter(playable), None))


def is_cover(stream: VideoStream | AudioStream) -> bool:
    """Whether a track is an attached cover picture."""
    return bool(stream.disposition & Disposition.attached_pic)


def is_shown(packet: Packet[VideoStream]) -> bool:
    """Whether a packet holds a frame that is presented.

    Not presented: what an edit list cuts, and frames that only serve as references (VP8's alternate reference frames; VP9 and AV1 pack
    theirs together with a presented frame).
    """
    if packet.is_discard:
        return False
    codec = packet.stream.codec_context.name
    if codec in ("vp8", "vp9") and packet.size:
        first = memoryview(packet)[0]
        return _vp8_is_shown(first) if codec == "vp8" else _vp9_is_shown(packet, first)
    return True


def _vp8_is_shown(first: int) -> bool:
    """RFC 6386, section 9.1: bit 4 is show_frame."""
    return bool(first & 0x10)


def _vp9_is_shown(packet: Packet[VideoStream], first: int) -> bool:
    """VP9 bitstream, section 6.2: marker (2 bits), profile (2, and 1 reserved in profile 3), show_existing_frame, frame_type, show_frame.

    A superframe (annex B) ends with a byte 110xxxxx, and contains one presented frame.
    """
    if memoryview(packet)[packet.size - 1] & 0xE0 == 0xC0:
        return True
    bits = f"{first:08b}"
    rest = bits[5:] if bits[2:4] == "11" else bits[4:]
    return rest[0] == "1" or rest[2] == "1"


class FramePresenter:
    """Turns decoded frames into presented ones: cropped, upright, with square pixels, and in SDR.

    `size` (width, height) is that of the first presented frame. Frames that have another size, after a change within the stream, are
    letterboxed into it. `crop` is the container's, in stored pixels.
    """

    def __init__(self, stream: VideoStream, *, crop: Crop = NO_CROP, size: tuple[int, int] | None = None) -> None:
        self.size = size
        self.crop = crop
        self._stream = stream
        self._orientation = UPRIGHT
        self._rotation: int | None = None
        stated = stream.sample_aspect_ratio
        self._aspects: list[tuple[int, Fraction]] = []
        self._coded_aspect = stream.codec_context.sample_aspect_ratio
        self._aspect = stated or _SQUARE_PIXELS
        self._follows_codec = stated is None or stated == self._coded_aspect
        self._coded_size, self._display_size = (0, 0), (0, 0)
        self._converters: _Converters = collections.defaultdict(VideoReformatter)

    def update_from_packet(self, packet: Packet[VideoStream]) -> None:
        """Call after each decoded packet: the sample aspect ratio may change with a key frame, and decoded frames do not carry it."""
        coded = self._stream.codec_context.sample_aspect_ratio if packet.is_keyframe else self._coded_aspect
        if coded != self._coded_aspect and packet.pts is not None:
            self._coded_aspect = coded
            if self._follows_codec:
                self._aspects.append((packet.pts, coded or _SQUARE_PIXELS))

    def update_from_frame(self, frame: VideoFrame) -> None:
        """Call for each frame that is not presented, in presentation order: the first one defines `size`, and its display matrix applies
        to later frames as well."""
        # Not for each frame: side data and frame refer to each other, and stay in memory until Python collects cycles.
        if frame.key_frame or frame.rotation != self._rotation:
            self._rotation = frame.rotation
            self._orientation = orientation_of(frame) or self._orientation
        while self._aspects and frame.pts is not None and frame.pts >= self._aspects[0][0]:
            self._aspect = self._aspects.pop(0)[1]
            self._coded_size = (0, 0)
        if self._coded_size != (frame.width, frame.height):
            self._coded_size = frame.width, frame.height
            left, top, right, bottom = self.crop.within(*self._coded_size)
            self._display_size = _square_pixel_size(frame.width - left - right, frame.height - top - bottom, self._aspect)
        self.size = self.size or self._orientation.size(*self._display_size)

    def present(self, frame: VideoFrame) -> Picture | NDArray[np.uint8]:
        """The frame as a player shows it: a lazily converted `Picture`, or RGB uint8 H x W x 3 where pixels had to be computed at once.
        Includes `update_from_frame`."""
        self.update_from_frame(frame)
        size = self.size or (0, 0)
        convertible, orientation, is_hdr = with_known_matrix(frame), self._orientation, frame.color_trc in HIGH_DYNAMIC_RANGE
        # FFmpeg scales the two fields of an interlaced frame separately, so that their lines no longer match.
        splits_fields = frame.interlaced_frame and self._display_size[1] != frame.height
        if orientation.size(*self._display_size) == size and self.crop == NO_CROP and not is_hdr and not splits_fields:
            return _Picture(convertible, self._display_size, orientation, self._converters)
        converted = self._converters[1].reformat(convertible, format="rgb24", interpolation="BILINEAR", threads=1)
        pixels = self.crop.within(*self._coded_size).apply(np.asarray(converted.to_ndarray(), np.uint8))
        if is_hdr:
            pixels = to_sdr(pixels, transfer=int(frame.color_trc))
        return letterbox(orientation.apply(_resize(pixels, self._display_size)), size)


def letterbox(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """RGB uint8 H x W x 3, scaled to fit into `size` (width, height), centred on black."""
    width, height = size
    rows, columns = pixels.shape[:2]
    if (columns, rows) == size:
        return pixels
    scale = min(width / columns, height / rows)
    inner = _resize(pixels, (min(width, max(1, round(columns * scale))), min(height, max(1, round(rows * scale)))))
    made = np.zeros((height, width, 3), np.uint8)
    top, left = (height - inner.shape[0]) // 2, (width - inner.shape[1]) // 2
    made[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return made


def with_known_matrix(frame: VideoFrame) -> VideoFrame:
    """`frame`, with its colour matrix set to unspecified where FFmpeg could not convert it."""
    if frame.colorspace not in _KNOWN_MATRICES:
        frame.colorspace = _UNSPECIFIED
    return frame


def has_high_bit_depth(frame: VideoFrame) -> bool:
    """Whether the frame has more than 8 bits per channel."""
    return any(component.bits > _MAX_BITS for component in frame.format.components)


def _square_pixel_size(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """Size in square pixels of `width` x `height` pixels with sample aspect ratio `aspect`. One side is enlarged, as in mpv and VLC, so
    that no detail is lost."""
    if aspect >= 1:
        return max(1, round(width * aspect)), height
    return width, max(1, round(height / aspect))


def _resize(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    if pixels.shape[1::-1] == size:
        return pixels
    shrinks = size[0] < pixels.shape[1] or size[1] < pixels.shape[0]
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR), np.uint8)


class _Picture:
    """A decoded frame that is converted on demand, at `size` (width, height) before it is turned upright.

    `converters` are shared by all frames, one for each downscaling factor, because their setup is expensive.
    """

    def __init__(self, frame: VideoFrame, size: tuple[int, int], orientation: Orientation, converters: _Converters) -> None:
        self._frame = _to_8_bits_and_size(frame, size, converters[_TO_8_BITS])
        self._is_converted = self._frame is not frame
        self._size = size
        self._converters = converters
        self._orientation = orientation
        self.nbytes = size[0] * size[1] * 5 // 2
        self._grey: NDArray[np.uint8] | None = None

    def rgb(self, shrink: int = 1) -> NDArray[np.uint8]:
        width, height = (max(1, side // shrink) for side in self._size)
        how = "BILINEAR" if shrink == 1 else "AREA"
        # By default FFmpeg starts a thread per core for each frame, which costs more than the conversion.
        converted = self._converters[shrink].reformat(self._frame, width, height, "rgb24", interpolation=how, threads=1)
        return self._orientation.apply(np.asarray(converted.to_ndarray(), np.uint8))

    def grey(self) -> NDArray[np.uint8]:
        if self._grey is None:
            self._grey = self._read_grey()
        return self._grey

    def planes(self) -> Planes | None:
        frame = self._frame
        colours = Colours(int(frame.colorspace), int(frame.color_primaries), int(frame.color_trc))
        if self._is_converted or frame.format.name != "yuv420p" or frame.color_range == _FULL_RANGE:
            return None
        if any(side % 2 for side in self._size) or not colours.is_supported:
            return None
        luma, blue, red = (self._orientation.apply(_read_plane(frame, index)) for index in range(3))
        return Planes(luma, blue, red, colours)

    def _read_grey(self) -> NDArray[np.uint8]:
        frame = self._frame
        if frame.format.name not in _WITH_LUMA:
            return np.asarray(cv2.cvtColor(self.rgb(), cv2.COLOR_RGB2GRAY), np.uint8)
        luma = _read_plane(frame, 0)
        if frame.format.name.startswith("yuvj") or frame.color_range == _FULL_RANGE:
            return self._orientation.apply(luma)
        return self._orientation.apply(np.asarray(cv2.addWeighted(luma, _GAIN, luma, 0, -_LUMA_BLACK * _GAIN), np.uint8))


def _read_plane(frame: VideoFrame, index: int) -> NDArray[np.uint8]:
    plane = frame.planes[index]
    return np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]


def _to_8_bits_and_size(frame: VideoFrame, size: tuple[int, int], converter: VideoReformatter) -> VideoFrame:
    """The frame with at most 8 bits per channel, at `size` (width, height)."""
    deep = has_high_bit_depth(frame)
    if not deep and (frame.width, frame.height) == size:
        return frame
    kind = "rgb24" if frame.format.is_rgb else "yuv420p" if deep else frame.format.name
    return converter.reformat(frame, *size, format=kind, interpolation="BILINEAR", threads=1)


def is_same_picture(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    """Whether two RGB uint8 H x W x 3 pictures are equal except for rounding."""
    return one.shape == other.shape and float(cv2.absdiff(one, other).mean()) <= _ROUNDING_ERROR
