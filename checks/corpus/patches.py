"""Patches containers with what FFmpeg cannot write: boxes of MP4 and MOV, elements of Matroska.

Both are trees, which are parsed, changed and written again; stored file offsets are adjusted.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

_WITH_BOXES = {b"moov", b"trak", b"edts", b"mdia", b"minf", b"stbl", b"udta"}
_UNITY, _FIXED_POINT = 1 << 30, 1 << 16
_MATRIX_AT = {0: 40, 1: 52}
"""Offset of the display matrix in `tkhd`, by version of the box."""
_SAMPLE_ENTRY = 8 + 78
"""Size of a visual sample entry with its header, up to its child boxes."""


class Edit(NamedTuple):
    """Presents the media from `media_time` (ticks of the track) on for `duration` (ticks of the movie); an empty edit where `media_time`
    is -1."""

    duration: int
    media_time: int


@dataclasses.dataclass(slots=True)
class Box:
    kind: bytes
    payload: bytes = b""
    boxes: list[Box] = dataclasses.field(default_factory=list)

    def find(self, *path: bytes) -> Box:
        """The first box at `path` below this one. Raises KeyError where there is none."""
        if not path:
            return self
        for box in self.boxes:
            if box.kind == path[0]:
                return box.find(*path[1:])
        raise KeyError(path)

    def tracks(self) -> list[Box]:
        return [box for box in self.boxes if box.kind == b"trak"]

    def written(self) -> bytes:
        content = self.payload + b"".join(box.written() for box in self.boxes)
        return struct.pack(">I", 8 + len(content)) + self.kind + content


class Movie:
    """An MP4 or MOV file with an editable `moov`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._boxes = list(_boxes(path.read_bytes()))
        self.moov = next(box for box in self._boxes if box.kind == b"moov")
        self._moov_first = b"mdat" not in [box.kind for box in self._boxes[: self._boxes.index(self.moov)]]
        self._size = len(self.moov.written())
        if self._moov_first and not any(box.kind == b"moof" for box in self._boxes):
            raise ValueError(f"{path}: moov must come last, or the places of all samples change")

    def write(self) -> None:
        self._path.write_bytes(b"".join(box.written() for box in self._boxes))

    def set_matrix(self, matrix: tuple[int, int, int, int], width: int, height: int, *, track: int = 0) -> None:
        """Sets the display matrix a, b, c, d of a track of `width` x `height` px, with the translation that keeps the whole picture
        visible."""
        a, b, c, d = matrix
        x, y = width * (a < 0) + height * (c < 0), width * (b < 0) + height * (d < 0)
        header = self.moov.tracks()[track].find(b"tkhd")
        at = _MATRIX_AT[header.payload[0]]
        fixed = [value * _FIXED_POINT for value in (a, b, 0, c, d, 0, x, y)]
        header.payload = header.payload[:at] + struct.pack(">9i", *fixed, _UNITY) + header.payload[at + 36 :]

    def set_enabled(self, enabled: Sequence[bool]) -> None:
        """Sets the track_enabled flag in each track's `tkhd`."""
        for track, on in zip(self.moov.tracks(), enabled, strict=False):
            header = track.find(b"tkhd")
            header.payload = header.payload[:3] + bytes([header.payload[3] & ~1 | on]) + header.payload[4:]

    def edits(self, *, track: int = 0) -> list[Edit]:
        try:
            payload = self.moov.tracks()[track].find(b"edts", b"elst").payload
        except KeyError:
            return []
        wide = payload[0] == 1
        (count,) = struct.unpack(">I", payload[4:8])
        entries = struct.iter_unpack(">QqHH" if wide else ">IiHH", payload[8 : 8 + count * (20 if wide else 12)])
        return [Edit(duration, media_time) for duration, media_time, _, _ in entries]

    def set_edits(self, edits: Sequence[Edit], *, track: int = 0) -> None:
        """Sets the edit list of a track, and the durations of track and movie."""
        entries = b"".join(struct.pack(">IiHH", edit.duration, edit.media_time, 1, 0) for edit in edits)
        elst = Box(b"elst", struct.pack(">II", 0, len(edits)) + entries)
        trak = self.moov.tracks()[track]
        trak.boxes = [box for box in trak.boxes if box.kind != b"edts"]
        trak.boxes.insert(1, Box(b"edts", boxes=[elst]))
        duration = sum(edit.duration for edit in edits)
        for header, at in ((trak.find(b"tkhd"), 20), (self.moov.find(b"mvhd"), 16)):
            if header.payload[0] == 0:
                header.payload = header.payload[:at] + struct.pack(">I", duration) + header.payload[at + 4 :]

    def timescales(self, *, track: int = 0) -> tuple[int, int]:
        """Ticks per second of the movie and of the track."""
        found = []
        for header in (self.moov.find(b"mvhd"), self.moov.tracks()[track].find(b"mdia", b"mdhd")):
            at = 20 if header.payload[0] == 1 else 12
            found.append(struct.unpack(">I", header.payload[at : at + 4])[0])
        return found[0], found[1]

    def add_to_sample_entry(self, box: Box, *, track: int = 0, instead: bool = True) -> None:
        """Adds `box` to the sample entry of a track, in place of one of the same type."""
        stsd = self.moov.tracks()[track].find(b"mdia", b"minf", b"stbl", b"stsd")
        size = struct.unpack(">I", stsd.payload[8:12])[0]
        entry, rest = stsd.payload[8 : 8 + size], stsd.payload[8 + size :]
        inner = [each for each in _boxes(entry[_SAMPLE_ENTRY:], deep=False) if not (instead and each.kind == box.kind)]
        content = entry[4:_SAMPLE_ENTRY] + b"".join(each.written() for each in [*inner, box])
        stsd.payload = stsd.payload[:8] + struct.pack(">I", 4 + len(content)) + content + rest

    def set_clean_aperture(self, width: int, height: int, crop: tuple[int, int, int, int], *, track: int = 0) -> None:
        """Adds a `clap` box that crops `width` x `height` px by `crop` (left, top, right, bottom; ISO/IEC 14496-12, 12.1.4)."""
        left, top, right, bottom = crop
        values = (width - left - right, 1, height - top - bottom, 1, left - right, 2, top - bottom, 2)
        self.add_to_sample_entry(Box(b"clap", struct.pack(">IIIIiIiI", *values)), track=track)

    def set_pixel_aspect(self, across: int, down: int, *, track: int = 0) -> None:
        self.add_to_sample_entry(Box(b"pasp", struct.pack(">II", across, down)), track=track)

    def put_header_first(self) -> None:
        """Moves `moov` before the media data (fast start)."""
        self._boxes.remove(self.moov)
        self._boxes.insert(1, self.moov)
        for track in self.moov.tracks():
            places = track.find(b"mdia", b"minf", b"stbl", b"stco")
            count = len(places.payload) // 4 - 2
            moved = [place + len(self.moov.written()) for place in struct.unpack(f">{count}I", places.payload[8:])]
            places.payload = places.payload[:8] + struct.pack(f">{count}I", *moved)

    def put_metadata_first(self) -> None:
        """Moves `udta` before the tracks, so that a cover picture becomes the first stream."""
        metadata = self.moov.find(b"udta")
        self.moov.boxes.remove(metadata)
        self.moov.boxes.insert(1, metadata)


def _boxes(content: bytes, *, deep: bool = True) -> Iterator[Box]:
    place = 0
    while place + 8 <= len(content):
        size, kind = struct.unpack(">I4s", content[place : place + 8])
        start = place + 8
        if size == 1:
            (size,), start = struct.unpack(">Q", content[start : start + 8]), start + 8
        payload = content[start : place + size] if size else content[start:]
        if deep and kind in _WITH_BOXES:
            yield Box(kind, boxes=list(_boxes(payload)))
        else:
            yield Box(kind, payload)
        place += size or len(content)


SEGMENT, SEEK_HEAD, SEEK, SEEK_ID, SEEK_POSITION, VOID = 0x18538067, 0x114D9B74, 0x4DBB, 0x53AB, 0x53AC, 0xEC
INFO, TRACKS, TRACK_ENTRY, VIDEO, CLUSTER, CRC_32 = 0x1549A966, 0x1654AE6B, 0xAE, 0xE0, 0x1F43B675, 0xBF
CUES, CUE_POINT, CUE_TRACK_POSITIONS, CUE_CLUSTER_POSITION = 0x1C53BB6B, 0xBB, 0xB7, 0xF1
TAGS, TAG, SIMPLE_TAG, TAG_STRING = 0x1254C367, 0x7373, 0x67C8, 0x4487
FLAG_DEFAULT, TRACK_TYPE, SEGMENT_DURATION = 0x88, 0x83, 0x4489
PIXEL_CROP_BOTTOM, PIXEL_CROP_TOP, PIXEL_CROP_LEFT, PIXEL_CROP_RIGHT = 0x54AA, 0x54BB, 0x54CC, 0x54DD
DISPLAY_WIDTH, DISPLAY_HEIGHT, DISPLAY_UNIT = 0x54B0, 0x54BA, 0x54B2
PROJECTION, PROJECTION_TYPE, POSE_YAW, POSE_PITCH, POSE_ROLL = 0x7670, 0x7671, 0x7673, 0x7674, 0x7675
_MASTERS = {
    SEGMENT,
    SEEK_HEAD,
    SEEK,
    INFO,
    TRACKS,
    TRACK_ENTRY,
    VIDEO,
    PROJECTION,
    CUES,
    CUE_POINT,
    CUE_TRACK_POSITIONS,
    TAGS,
    TAG,
    SIMPLE_TAG,
}


@dataclasses.dataclass(slots=True)
class Element:
    """An EBML element (RFC 8794); `place` is its former offset in the file."""

    id: int
    payload: bytes = b""
    elements: list[Element] = dataclasses.field(default_factory=list)
    place: int = -1

    def find(self, *path: int) -> Element:
        """The first element at `path` below this one. Raises KeyError where there is none."""
        if not path:
            return self
        for element in self.elements:
            if element.id == path[0]:
                return element.find(*path[1:])
        raise KeyError(path)

    def all(self, ident: int) -> list[Element]:
        return [element for element in self.elements if element.id == ident]

    def set(self, ident: int, payload: bytes) -> None:
        self.elements = [element for element in self.elements if element.id != ident] + [Element(ident, payload)]

    def set_number(self, ident: int, value: int) -> None:
        self.set(ident, value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big"))

    def written(self) -> bytes:
        content = self.payload + b"".join(element.written() for element in self.elements)
        return _bytes_of_id(self.id) + (len(content) | 1 << 56).to_bytes(8, "big") + content


class Matroska:
    """A Matroska or WebM file with editable headers; clusters are unchanged."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._top = list(_elements(path.read_bytes(), 0))
        self.segment = next(element for element in self._top if element.id == SEGMENT)
        self._prepare_for_changes(self.segment)
        self._old_start = self.segment.place

    def video_tracks(self) -> list[Element]:
        return [entry for entry in self.segment.find(TRACKS).all(TRACK_ENTRY) if entry.find(TRACK_TYPE).payload == b"\x01"]

    def set_crop(self, crop: tuple[int, int, int, int], *, track: int = 0) -> None:
        """Sets the PixelCrop elements: left, top, right, bottom."""
        video = self.video_tracks()[track].find(VIDEO)
        for ident, value in zip((PIXEL_CROP_LEFT, PIXEL_CROP_TOP, PIXEL_CROP_RIGHT, PIXEL_CROP_BOTTOM), crop, strict=True):
            video.set_number(ident, value)

    def set_display_size(self, width: int, height: int, *, track: int = 0) -> None:
        """Sets DisplayWidth and DisplayHeight of the cropped frame, in px."""
        video = self.video_tracks()[track].find(VIDEO)
        video.elements = [element for element in video.elements if element.id != DISPLAY_UNIT]
        video.set_number(DISPLAY_WIDTH, width)
        video.set_number(DISPLAY_HEIGHT, height)

    def set_projection(self, *, roll: float, yaw: float = 0.0, track: int = 0) -> None:
        """Adds a rectangular projection, rolled counterclockwise (degrees), and mirrored where `yaw` is 180 (RFC 9559, 5.1.4.1.28)."""
        kind = Element(PROJECTION_TYPE, b"\0")
        poses = [Element(ident, struct.pack(">d", value)) for ident, value in ((POSE_YAW, yaw), (POSE_PITCH, 0.0), (POSE_ROLL, roll))]
        video = self.video_tracks()[track].find(VIDEO)
        video.elements.append(Element(PROJECTION, elements=[kind, *poses]))

    def set_default(self, flags: Sequence[bool]) -> None:
        for entry, flag in zip(self.video_tracks(), flags, strict=True):
            entry.set_number(FLAG_DEFAULT, int(flag))

    def set_duration_tags(self, text: str) -> None:
        """Overwrites every `DURATION` tag, as tools do that cut a file but copy its tags."""
        for tag in self.segment.find(TAGS).all(TAG):
            for simple in tag.all(SIMPLE_TAG):
                if simple.elements[0].payload == b"DURATION":
                    simple.set(TAG_STRING, text.encode())

    def write(self) -> None:
        starts, place = {}, 0
        for element in self.segment.elements:
            starts[element.place - self._old_start] = place
            place += len(element.written())
        for cue in _walk(self.segment, CUE_CLUSTER_POSITION):
            cue.payload = starts[int.from_bytes(cue.payload, "big")].to_bytes(8, "big")
        for seek in _walk(self.segment, SEEK_POSITION):
            seek.payload = starts[int.from_bytes(seek.payload, "big")].to_bytes(8, "big")
        self._path.write_bytes(b"".join(element.written() for element in self._top))

    def _prepare_for_changes(self, element: Element) -> None:
        """Drops checksums, and widens file offsets to eight bytes, so that changing them changes no size."""
        element.elements = [each for each in element.elements if each.id != CRC_32]
        for each in element.elements:
            if each.id in (SEEK_POSITION, CUE_CLUSTER_POSITION):
                each.payload = each.payload.rjust(8, b"\0")
            self._prepare_for_changes(each)


def _walk(element: Element, ident: int) -> Iterator[Element]:
    for each in element.elements:
        if each.id == ident:
            yield each
        yield from _walk(each, ident)


def _elements(content: bytes, offset: int) -> Iterator[Element]:
    """`place` of the segment is the offset of its content; of other elements, their own offset."""
    place = 0
    while place < len(content):
        length = 9 - content[place].bit_length()
        ident = int.from_bytes(content[place : place + length], "big")
        start = place + length
        wide = 9 - content[start].bit_length()
        size = int.from_bytes(content[start : start + wide], "big") & (1 << 7 * wide) - 1
        start += wide
        stop = len(content) if size == (1 << 7 * wide) - 1 else start + size
        payload = content[start:stop]
        if ident in _MASTERS:
            inner = list(_elements(payload, offset + start))
            yield Element(ident, elements=inner, place=offset + start if ident == SEGMENT else offset + place)
        else:
            yield Element(ident, payload, place=offset + place)
        place = stop


def _bytes_of_id(ident: int) -> bytes:
    return ident.to_bytes((ident.bit_length() + 7) // 8, "big")
