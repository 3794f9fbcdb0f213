"""Writes AVI files with DivX's packed bitstream: a P-frame and the B-frame presented before it share a packet, and an empty packet later
keeps the count right."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

_VOP, _USER_DATA = b"\0\0\1\xb6", b"\0\0\1\xb2"
_DIVX_PACKED = b"DivX503b1393p"
"""User data by which decoders recognize a packed bitstream (its last letter)."""
_B_FRAME = 2
_KEY = 0x10


def write_packed(stream: bytes, path: Path, *, width: int, height: int, rate: int = 25) -> None:
    """Writes `stream`, raw MPEG-4 part 2 with B-frames whose time resolution is `rate` ticks per second."""
    header, frames = _split(stream)
    packets = list(_packed(frames, header + _USER_DATA + _DIVX_PACKED, rate))
    path.write_bytes(_avi(packets, width, height, rate))


def _split(stream: bytes) -> tuple[bytes, list[bytes]]:
    """The headers before the first frame, and the frames in coding order, each with its own headers."""
    parts = stream.split(_VOP)
    return parts[0], [_VOP + part for part in parts[1:]]


def _kind(frame: bytes) -> int:
    """0 for I, 1 for P, 2 for B."""
    return frame[4] >> 6


def _packed(frames: Sequence[bytes], header: bytes, rate: int) -> Iterator[bytes]:
    """As many packets as there are frames."""
    place = 0
    while place < len(frames):
        following = list(itertools.takewhile(lambda frame: _kind(frame) == _B_FRAME, frames[place + 1 :]))
        reference = (header if place == 0 else b"") + frames[place]
        if following:
            yield reference + following[0]
            yield from following[1:]
            yield _not_coded(frames[place], rate)
        else:
            yield reference
        place += 1 + len(following)


def _not_coded(reference: bytes, rate: int) -> bytes:
    """A P-frame at the time of `reference` that codes nothing (vop_coded = 0; ISO/IEC 14496-2, 6.2.5)."""
    bits = f"{int.from_bytes(reference[4:12], 'big'):064b}"
    wide = max(1, (rate - 1).bit_length())
    seconds = bits.index("0", 2)
    time = bits[2 : seconds + 2 + wide + 1]  # seconds in unary, a marker, ticks, a marker
    said = "01" + time + "0"
    said += "0".ljust(8 - len(said) % 8, "1")
    return _VOP + int(said, 2).to_bytes(len(said) // 8, "big")


def _avi(packets: Sequence[bytes], width: int, height: int, rate: int) -> bytes:
    largest = max(map(len, packets))
    main = struct.pack("<14I", 1_000_000 // rate, 0, 0, _KEY, len(packets), 0, 1, largest, width, height, 0, 0, 0, 0)
    stream = struct.pack("<4s4sIHHIIIIIIIIHHHH", b"vids", b"DX50", 0, 0, 0, 0, 1, rate, 0, len(packets), largest, 0, 0, 0, 0, width, height)
    format_ = struct.pack("<IiiHH4sIiiII", 40, width, height, 1, 24, b"DX50", width * height * 3, 0, 0, 0, 0)
    headers = _list(b"hdrl", _chunk(b"avih", main) + _list(b"strl", _chunk(b"strh", stream) + _chunk(b"strf", format_)))
    chunks = [_chunk(b"00dc", packet) for packet in packets]
    places = itertools.accumulate(map(len, chunks), initial=4)
    index = b"".join(
        struct.pack("<4sIII", b"00dc", _KEY if packet[:3] == b"\0\0\1" and _holds_key(packet) else 0, place, len(packet))
        for packet, place in zip(packets, places, strict=False)
    )
    content = b"AVI " + headers + _list(b"movi", b"".join(chunks)) + _chunk(b"idx1", index)
    return _chunk(b"RIFF", content)


def _holds_key(packet: bytes) -> bool:
    return packet[packet.index(_VOP) + 4] >> 6 == 0


def _chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def _list(kind: bytes, content: bytes) -> bytes:
    return _chunk(b"LIST", kind + content)
