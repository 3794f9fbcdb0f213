"""Streams that common encoders do not write: H.264 frames coded as two fields, and VP8 with hidden frames."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from checks.corpus.drawn import Picture

_START = b"\0\0\0\1"
_SPS, _PPS, _IDR, _SLICE = 7, 8, 5, 1
_REFERENCE = 3
_MACROBLOCK = 16
_PCM = 25
"""mb_type I_PCM in an I slice: samples are stored uncompressed (ISO/IEC 14496-10, table 7-11)."""
_FRAME_NUM_BITS, _ORDER_BITS = 4, 6

_IVF_HEADER, _IVF_FRAME = 32, 12
_VP8_SHOWN = 0x10
"""show_frame bit in the first byte of a VP8 frame (RFC 6386, 9.1)."""


class Coded(NamedTuple):
    """One packet: its bytes, presentation time, and whether it is a key frame."""

    content: bytes
    time: Fraction
    key: bool


def field_coded(pictures: Iterable[Picture], moments: Iterable[Fraction], *, key_every: int) -> list[Coded]:
    """Codes each RGB picture losslessly as a top and a bottom field in one packet."""
    packets: list[Coded] = []
    for index, (picture, time) in enumerate(zip(pictures, moments, strict=False)):
        height, width = picture.shape[:2]
        headers = _START + _parameter_set(width, height) + _START + _picture_parameter_set()
        since_key = index % key_every
        fields = b"".join(_START + _field(picture[bottom::2], bottom, since_key, index // key_every) for bottom in (0, 1))
        packets.append(Coded((headers if since_key == 0 else b"") + fields, time, since_key == 0))
    return packets


def hide(ivf: bytes, hidden: Sequence[int], moments: Iterable[Fraction]) -> list[Coded]:
    """The frames of a VP8 file in IVF. Those at the positions `hidden` become hidden frames, with the time of the next shown one."""
    frames = list(_ivf_frames(ivf))
    shown = iter(moments)
    times: dict[int, Fraction] = {}
    for place in range(len(frames)):
        if place not in hidden:
            times[place] = next(shown)
    packets = []
    for place, frame in enumerate(frames):
        first = frame[0] & ~_VP8_SHOWN if place in hidden else frame[0]
        following = min(each for each in times if each >= place)
        packets.append(Coded(bytes([first]) + frame[1:], times[following], not first & 1))
    return packets


def mux(template: Path, packets: Sequence[Coded], path: Path, *, last_s: Fraction) -> None:
    """Writes `packets` to `path` as a stream like that of `template`; the last frame is presented for `last_s`."""
    with av.open(str(template)) as source, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        base = Fraction(1, 1000)
        ends = [*(each.time for each in packets[1:]), packets[-1].time + last_s]
        for each, end in zip(packets, ends, strict=True):
            packet = av.Packet(each.content)
            packet.stream, packet.time_base, packet.is_keyframe = stream, base, each.key
            packet.pts = packet.dts = round(each.time / base)
            packet.duration = round(end / base) - packet.pts
            output.mux(packet)


def _ivf_frames(ivf: bytes) -> Iterator[bytes]:
    place = _IVF_HEADER
    while place < len(ivf):
        (size,) = struct.unpack("<I", ivf[place : place + 4])
        yield ivf[place + _IVF_FRAME : place + _IVF_FRAME + size]
        place += _IVF_FRAME + size


class _Bits:
    """Writes the bit syntax of H.264."""

    def __init__(self) -> None:
        self._bits: list[str] = []
        self._length = 0

    def fixed(self, value: int, count: int) -> None:
        self._bits.append(f"{value:0{count}b}")
        self._length += count

    def golomb(self, *values: int) -> None:
        for value in values:
            code = f"{value + 1:b}"
            self.fixed(value + 1, 2 * len(code) - 1)

    def align(self) -> None:
        if self._length % 8:
            self.fixed(0, 8 - self._length % 8)

    def samples(self, samples: NDArray[np.uint8]) -> None:
        self.fixed(int.from_bytes(samples.tobytes(), "big"), 8 * samples.size)

    def unit(self, kind: int, importance: int) -> bytes:
        """The NAL unit, with emulation prevention bytes."""
        self.fixed(1, 1)
        self.align()
        content = int("".join(self._bits), 2).to_bytes(self._length // 8, "big")
        return bytes([importance << 5 | kind]) + re.sub(rb"\0\0(?=[\0-\3])", b"\0\0\3", content)


def _parameter_set(width: int, height: int) -> bytes:
    across, down = -(-width // _MACROBLOCK), -(-height // (2 * _MACROBLOCK))
    bits = _Bits()
    for value in (77, 0, 40):  # main profile, level 4
        bits.fixed(value, 8)
    bits.golomb(0, _FRAME_NUM_BITS - 4, 0, _ORDER_BITS - 4, 1)
    bits.fixed(0, 1)
    bits.golomb(across - 1, down - 1)
    bits.fixed(0b001, 3)  # not frames alone; no macroblock decides for itself; direct inference
    bits.fixed(1, 1)
    bits.golomb(0, (across * _MACROBLOCK - width) // 2, 0, (down * 2 * _MACROBLOCK - height) // 4)
    bits.fixed(1, 1)
    bits.fixed(0b0000_0_0, 4)  # no aspect, overscan, signal type, chroma place
    bits.fixed(1, 1)
    bits.fixed(1, 32)
    bits.fixed(50, 32)
    bits.fixed(0b1_0_0_0, 4)  # fixed rate; no decoder models; no structure
    bits.fixed(1, 1)
    bits.fixed(1, 1)
    bits.golomb(0, 0, 16, 16, 0, 1)  # nothing is reordered
    return bits.unit(_SPS, _REFERENCE)


def _picture_parameter_set() -> bytes:
    bits = _Bits()
    bits.golomb(0, 0)
    bits.fixed(0b00, 2)
    bits.golomb(0, 0, 0)
    bits.fixed(0b000, 3)
    bits.golomb(0, 0, 0)
    bits.fixed(0b100, 3)  # slices say whether they are deblocked
    return bits.unit(_PPS, _REFERENCE)


def _field(lines: Picture, bottom: int, since_key: int, keys: int) -> bytes:
    kind = _IDR if since_key == 0 and not bottom else _SLICE
    bits = _Bits()
    bits.golomb(0, 7, 0)
    bits.fixed(since_key, _FRAME_NUM_BITS)
    bits.fixed(1, 1)
    bits.fixed(bottom, 1)
    if kind == _IDR:
        bits.golomb(keys % 2)
    bits.fixed(2 * since_key + bottom, _ORDER_BITS)
    bits.fixed(0, 2 if kind == _IDR else 1)
    bits.golomb(0, 1)
    for block in _macroblocks(lines):
        bits.golomb(_PCM)
        bits.align()
        bits.samples(block)
    return bits.unit(kind, _REFERENCE)


def _macroblocks(lines: Picture) -> Iterator[NDArray[np.uint8]]:
    """Luma and chroma samples of each macroblock of a field's RGB lines, in limited range, BT.601."""
    height, width = lines.shape[:2]
    padding = ((0, -height % _MACROBLOCK), (0, -width % _MACROBLOCK), (0, 0))
    padded = np.ascontiguousarray(np.pad(lines, padding, mode="edge"))
    tall, wide = padded.shape[:2]
    planes = np.asarray(cv2.cvtColor(padded, cv2.COLOR_RGB2YUV_I420), np.uint8)
    luma = planes[:tall]
    blue, red = planes[tall:].reshape(2, tall // 2, wide // 2)
    for row in range(0, tall, _MACROBLOCK):
        for column in range(0, wide, _MACROBLOCK):
            half = slice(row // 2, row // 2 + 8), slice(column // 2, column // 2 + 8)
            parts = luma[row : row + 16, column : column + 16], blue[half], red[half]
            yield np.concatenate([part.ravel() for part in parts])
