"""What a player presents of a video: which tracks, which of their packets, and each frame upright, in square pixels and colours of SDR.

mpv and FFmpeg's command line are the reference. Whoever looks at a video asks here, so that no two can disagree.
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

_SQUARE = Fraction(1)
_FULL_RANGE = 2
_WITH_LUMA = frozenset("yuv420p yuvj420p yuv422p yuvj422p yuv444p yuvj444p nv12 nv21 gray".split())
"""Formats whose first plane is the grey picture, one byte a pixel."""
_LUMA_BLACK, _LUMA_STEPS = 16, 219
"""Where luma begins, and how far it goes, in most videos (ITU-R BT.601)."""
_GAIN = 255 / _LUMA_STEPS
_MOST_BITS = 8
"""Of a channel: nobody who looks at a picture asks for more, and some 20 are held. At 3840 x 2160, 60 frames, 4:4:4 with 10 bits, this took
1845 MB with deeper frames, and 1501 MB without them."""
_FLATTENING = 0
"""Whose converter it is that takes bits away; those of others are known by how far they shrink."""
_MATRICES = frozenset({0, 1, 2, 4, 5, 6, 7, 9})
"""Of colours (ITU-T H.273, table 4), those that FFmpeg 8 converts; with any other it refuses."""
_UNSPECIFIED = 2
_ROUNDING = 0.1
"""Of 255: FFmpeg 4 and 8 convert colours of 8 bits to the same values, to the last bit; more than this is another picture."""

_Converters = collections.defaultdict[int, VideoReformatter]


class Orientation(NamedTuple):
    """How a stored picture becomes upright: rows and columns are exchanged (`transposed`), then left and right (`mirrored`), then top and
    bottom (`flipped`)."""

    transposed: bool = False
    mirrored: bool = False
    flipped: bool = False

    def apply(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """H x W or H x W x C, upright, in one piece of memory."""
        if self == UPRIGHT:
            return pixels
        turned = pixels.swapaxes(0, 1) if self.transposed else pixels
        return np.ascontiguousarray(turned[:: -1 if self.flipped else 1, :: -1 if self.mirrored else 1])

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the upright picture."""
        return (height, width) if self.transposed else (width, height)

    def crop(self, crop: Crop) -> Crop:
        """What is cut off the upright picture, of what is cut off the stored one."""
        left, top, right, bottom = (crop.top, crop.left, crop.bottom, crop.right) if self.transposed else crop
        left, right = (right, left) if self.mirrored else (left, right)
        return Crop(left, bottom, right, top) if self.flipped else Crop(left, top, right, bottom)


UPRIGHT = Orientation()


def orientation_of(frame: VideoFrame) -> Orientation | None:
    """The nearest of the eight orientations to the display matrix of `frame`, None where it has none.

    Where the container has one, every frame has it. H.264 may say it as well, with some frames, and means those that follow, too.
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
    """The track that a player plays: the first with the default flag, or else the first; never a cover picture, nor what nothing decodes.

    None where there is none.
    """
    playable = [stream for stream in streams if not is_cover(stream) and stream.codec_context is not None]
    return next((stream for stream in playable if stream.disposition & Disposition.default), next(iter(playable), None))


def is_cover(stream: VideoStream | AudioStream) -> bool:
    """Whether a track is but a picture of the cover."""
    return bool(stream.disposition & Disposition.attached_pic)


def is_shown(packet: Packet[VideoStream]) -> bool:
    """Whether a packet of a video holds a frame that is presented: not what an edit list cuts, nor a picture that others only refer to
    (VP8's alternate reference frames; those of VP9 and AV1 travel inside the packets of others)."""
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
    """The VP9 bitstream, section 6.2: marker (2), profile (2, and 1 reserved in profile 3), show_existing_frame, frame_type, show_frame.

    A superframe (annex B) ends with a byte 110xxxxx and holds one frame that is shown.
    """
    if memoryview(packet)[packet.size - 1] & 0xE0 == 0xC0:
        return True
    bits = f"{first:08b}"
    rest = bits[5:] if bits[2:4] == "11" else bits[4:]
    return rest[0] == "1" or rest[2] == "1"


class FramePresenter:
    """Where the frames of a video are presented: `size` (width, height) is that of its first frame, upright and in square pixels.

    Frames of another size, after a change inside the film, are letterboxed into it. `crop` is what the container cuts off stored frames.
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
        self._aspect = stated or _SQUARE
        self._follows_codec = stated is None or stated == self._coded_aspect
        self._stored, self._shape = (0, 0), (0, 0)
        self._converters: _Converters = collections.defaultdict(VideoReformatter)

    def notice(self, packet: Packet[VideoStream]) -> None:
        """Tells that `packet` has been decoded: the shape of pixels may change with a key frame, and frames do not carry it."""
        coded = self._stream.codec_context.sample_aspect_ratio if packet.is_keyframe else self._coded_aspect
        if coded != self._coded_aspect and packet.pts is not None:
            self._coded_aspect = coded
            if self._follows_codec:
                self._aspects.append((packet.pts, coded or _SQUARE))

    def follow(self, frame: VideoFrame) -> None:
        """Tells of a frame, shown or not, in the order in which they are shown: the first one gives the size, and others say how those that
        come after them are turned."""
        # Not for each of them: side data hold their frame, and it them, until Python's collector of cycles comes.
        if frame.key_frame or frame.rotation != self._rotation:
            self._rotation = frame.rotation
            self._orientation = orientation_of(frame) or self._orientation
        while self._aspects and frame.pts is not None and frame.pts >= self._aspects[0][0]:
            self._aspect = self._aspects.pop(0)[1]
            self._stored = (0, 0)
        if self._stored != (frame.width, frame.height):
            self._stored = frame.width, frame.height
            left, top, right, bottom = self.crop.within(*self._stored)
            self._shape = _square(frame.width - left - right, frame.height - top - bottom, self._aspect)
        self.size = self.size or self._orientation.size(*self._shape)

    def show(self, frame: VideoFrame) -> Picture | NDArray[np.uint8]:
        """The frame as it is presented; uint8 H x W x 3 where its pixels had to be made anew. Follows it as well."""
        self.follow(frame)
        size = self.size or (0, 0)
        known, orientation, is_bright = with_known_matrix(frame), self._orientation, frame.color_trc in HIGH_DYNAMIC_RANGE
        # FFmpeg stretches the two fields of such a frame apart, and their lines do not meet any more.
        is_woven = frame.interlaced_frame and self._shape[1] != frame.height
        if orientation.size(*self._shape) == size and self.crop == NO_CROP and not is_bright and not is_woven:
            return _Picture(known, self._shape, orientation, self._converters)
        converted = self._converters[1].reformat(known, format="rgb24", interpolation="BILINEAR", threads=1)
        pixels = self.crop.within(*self._stored).apply(np.asarray(converted.to_ndarray(), np.uint8))
        if is_bright:
            pixels = to_sdr(pixels, transfer=int(frame.color_trc))
        return letterbox(orientation.apply(_resized(pixels, self._shape)), size)


def letterbox(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """RGB uint8 H x W x 3 as large as it fits into `size` (width, height), in the middle of black."""
    width, height = size
    rows, columns = pixels.shape[:2]
    if (columns, rows) == size:
        return pixels
    scale = min(width / columns, height / rows)
    inner = _resized(pixels, (min(width, max(1, round(columns * scale))), min(height, max(1, round(rows * scale)))))
    made = np.zeros((height, width, 3), np.uint8)
    top, left = (height - inner.shape[0]) // 2, (width - inner.shape[1]) // 2
    made[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return made


def with_known_matrix(frame: VideoFrame) -> VideoFrame:
    """`frame`, taken for one that does not say what its colours mean where FFmpeg could not make RGB of those that it says."""
    if frame.colorspace not in _MATRICES:
        frame.colorspace = _UNSPECIFIED
    return frame


def has_high_bit_depth(frame: VideoFrame) -> bool:
    """Whether the frame has more than 8 bits a channel."""
    return any(component.bits > _MOST_BITS for component in frame.format.components)


def _square(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """The size in square pixels of `width` x `height` pixels that are `aspect` times as wide as high: one side grows, as in mpv and VLC, so
    that nothing is lost."""
    if aspect >= 1:
        return max(1, round(width * aspect)), height
    return width, max(1, round(height / aspect))


def _resized(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    if pixels.shape[1::-1] == size:
        return pixels
    shrinks = size[0] < pixels.shape[1] or size[1] < pixels.shape[0]
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR), np.uint8)


class _Picture:
    """A decoded frame whose pixels are made when somebody asks for them, at `size` (width, height) before it is turned upright.

    `converters` are those of all frames, by how far they shrink: preparing to shrink takes a third of the time that shrinking does.
    """

    def __init__(self, frame: VideoFrame, size: tuple[int, int], orientation: Orientation, converters: _Converters) -> None:
        self._frame = _flat(frame, size, converters[_FLATTENING])
        self._flattened = self._frame is not frame
        self._size = size
        self._converters = converters
        self._orientation = orientation
        self.nbytes = size[0] * size[1] * 5 // 2
        self._grey: NDArray[np.uint8] | None = None

    def rgb(self, shrink: int = 1) -> NDArray[np.uint8]:
        width, height = (max(1, side // shrink) for side in self._size)
        how = "BILINEAR" if shrink == 1 else "AREA"
        # By default FFmpeg starts a thread a core for each frame, which costs five times the conversion.
        converted = self._converters[shrink].reformat(self._frame, width, height, "rgb24", interpolation=how, threads=1)
        return self._orientation.apply(np.asarray(converted.to_ndarray(), np.uint8))

    def grey(self) -> NDArray[np.uint8]:
        if self._grey is None:
            self._grey = self._read_grey()
        return self._grey

    def planes(self) -> Planes | None:
        frame = self._frame
        colours = Colours(int(frame.colorspace), int(frame.color_primaries), int(frame.color_trc))
        if self._flattened or frame.format.name != "yuv420p" or frame.color_range == _FULL_RANGE:
            return None
        if any(side % 2 for side in self._size) or not colours.known:
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


def _flat(frame: VideoFrame, size: tuple[int, int], converter: VideoReformatter) -> VideoFrame:
    """The frame with at most 8 bits a channel, and of `size` (width, height)."""
    deep = has_high_bit_depth(frame)
    if not deep and (frame.width, frame.height) == size:
        return frame
    kind = "rgb24" if frame.format.is_rgb else "yuv420p" if deep else frame.format.name
    return converter.reformat(frame, *size, format=kind, interpolation="BILINEAR", threads=1)


def is_same_picture(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    """Whether two readers show the same, but for rounding: RGB uint8 H x W x 3."""
    return one.shape == other.shape and float(cv2.absdiff(one, other).mean()) <= _ROUNDING
