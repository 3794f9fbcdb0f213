"""Recognizes files by their content: picture, video or neither."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from batchemo.media import frame_times, tiff, unsupported
from batchemo.media.unsupported import HEAD_BYTES, UnsupportedFormat
from batchemo.records import MediaKind

_IMAGE_EXTENSIONS = frozenset(
    ".avif .bmp .dib .gif .heic .heif .hif .jfif .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split()
)
_VIDEO_EXTENSIONS = frozenset(
    (
        ".264 .265 .3g2 .3gp .asf .avi .divx .dv .f4v .flv .h264 .h265 .hevc .ivf .m1v .m2ts .m2v .m4v .mjpeg .mjpg .mkv .mov "
        ".mp4 .mpe .mpeg .mpg .mxf .ogv .qt .rm .rmvb .vob .webm .wmv .wtv .y4m"
    ).split()
)
"""Unambiguous extensions only: `.ts`, `.mts` (TypeScript), `.dat` and `.ogg` (mostly audio) count by their content alone."""

_AUDIO_EXTENSIONS = frozenset(".aac .aax .flac .m4a .m4b .m4p .m4r .mka .mp3 .oga .opus .wav .weba .wma".split())
"""Audio files, several of which use containers of video."""

_IMAGE_SIGNATURES = (
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG\r\n\x1a\n",
    *tiff.SIGNATURES,
)
_VIDEO_SIGNATURES = (
    b"\x1a\x45\xdf\xa3",  # EBML: Matroska and WebM
    b"FLV\x01",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c",  # ASF, WMV
    *(b"\0\0\x01\xba", b"\0\0\x01\xb3"),  # MPEG program stream, bare MPEG-1/2 video
    b".RMF\0\0\0",  # RealMedia
    b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02",  # MXF
    b"YUV4MPEG2 ",
    b"DKIF\0\0",  # IVF
)
_OGG_VIDEO_MARKS = (b"\x80theora", b"OVP80", b"BBCD\0", b"\x01video\0")
"""Start of the first packet of a Theora, VP8, Dirac or OGM stream."""

_IMAGE_BRANDS = frozenset((b"avif", b"avis", b"heic", b"heim", b"heis", b"heix", b"hevc", b"hevx", b"miaf", b"mif1", b"msf1"))
_OTHER_BRANDS = frozenset((b"M4A ", b"M4B ", b"M4P ", b"F4A ", b"F4B ", b"aax ", b"crx "))
"""ISO base media files that are neither picture nor video: audio, and Canon's raw photographs."""

_MOV_ATOMS = frozenset((b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"))
"""First atoms of old QuickTime files, which have no `ftyp`."""

_BITMAP_HEADER_SIZES = (12, 16, 40, 52, 56, 64, 108, 124)


def kind_of(path: Path, *, is_input: bool) -> MediaKind | UnsupportedFormat | None:
    """What a run takes `path` for: by its content, or else by its extension. An INPUT (`is_input`) always is a medium, and fails as one
    if it cannot be read."""
    if not is_input and path.suffix.lower() in _AUDIO_EXTENSIONS:
        return None
    kind = sniff(path) or _extension_kind(path)
    if is_input and not isinstance(kind, str):
        return "video" if kind is None else "image"
    return kind


def sniff(path: Path) -> MediaKind | UnsupportedFormat | None:
    """What the content of `path` is, whatever its extension; None for anything unknown, unreadable or not a file.

    A GIF, WebP, PNG or AVIF with several frames is a video. Reads 4 KiB, and the headers of frames; never opens pipes or devices.
    """
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            return unsupported.detect_by_content(file, head, path) or _content_kind(file, head)
    except OSError:
        return None


def _extension_kind(path: Path) -> MediaKind | UnsupportedFormat | None:
    extension = path.suffix.lower()
    if extension in _IMAGE_EXTENSIONS:
        return "image"
    return "video" if extension in _VIDEO_EXTENSIONS else unsupported.detect_by_extension(path)


def _content_kind(file: BinaryIO, head: bytes) -> MediaKind | None:
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "video" if _has_second_picture(file) else "image"
    if head.startswith(_IMAGE_SIGNATURES) or _riff_form(head) == b"WEBP" or _is_bitmap(head):
        return "video" if _is_animated(file, head) else "image"
    if head[4:8] == b"ftyp":
        return _brand_kind(file, head)
    if head.startswith(_VIDEO_SIGNATURES) or _riff_form(head) == b"AVI " or _is_transport_stream(head):
        return "video"
    if _is_ogg_video(head) or _is_old_mov(head, size_bytes=file.seek(0, os.SEEK_END)):
        return "video"
    return None


def _brand_kind(file: BinaryIO, head: bytes) -> MediaKind | None:
    brand = head[8:12]
    if brand in _IMAGE_BRANDS:
        return "video" if _is_animated(file, head) else "image"
    return None if brand in _OTHER_BRANDS else "video"


def _is_animated(file: BinaryIO, head: bytes) -> bool:
    times = frame_times.parse_frame_times(file, head)
    return times is not None and times.is_animated


def _riff_form(head: bytes) -> bytes:
    return head[8:12] if head.startswith(b"RIFF") else b""


def _is_bitmap(head: bytes) -> bool:
    """The two letters "BM" alone would match many texts."""
    return head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BITMAP_HEADER_SIZES


def _is_transport_stream(head: bytes) -> bool:
    """A sync byte at each of the first three packets, of 188 bytes, or of 192 with a timestamp of 4 in front (M2TS)."""
    return any(
        len(head) > first + stride and all(byte == 0x47 for byte in head[first : first + 3 * stride : stride])
        for first, stride in ((0, 188), (4, 192))
    )


def _is_ogg_video(head: bytes) -> bool:
    return head.startswith(b"OggS") and any(mark in head for mark in _OGG_VIDEO_MARKS)


def _is_old_mov(head: bytes, *, size_bytes: int) -> bool:
    """The size of the first atom must be plausible: "The free world" has the name of an atom at the right place."""
    atom_bytes = int.from_bytes(head[:4], "big")
    fits = atom_bytes in (0, 1) or 8 <= atom_bytes <= size_bytes  # 0: up to the end of the file; 1: a 64-bit size follows
    return head[4:8] in _MOV_ATOMS and fits


def _has_second_picture(file: BinaryIO) -> bool:
    """Walks the blocks of a GIF up to its second image descriptor. Truncation or damage counts as the end."""
    file.seek(10)
    _skip_colours(file)
    file.seek(2, os.SEEK_CUR)
    pictures = 0
    while introducer := file.read(1):
        if introducer == b"\x2c":
            pictures += 1
            if pictures == 2:
                return True
            file.seek(8, os.SEEK_CUR)
            _skip_colours(file)
            file.seek(1, os.SEEK_CUR)
            _skip_sub_blocks(file)
        elif introducer == b"\x21":
            file.seek(1, os.SEEK_CUR)
            _skip_sub_blocks(file)
        elif introducer != b"\0":  # some writers pad with zeros
            break
    return False


def _skip_colours(file: BinaryIO) -> None:
    flags = int.from_bytes(file.read(1), "little")
    if flags & 0x80:
        file.seek(3 << ((flags & 7) + 1), os.SEEK_CUR)


def _skip_sub_blocks(file: BinaryIO) -> None:
    while length := int.from_bytes(file.read(1), "little"):
        file.seek(length, os.SEEK_CUR)
