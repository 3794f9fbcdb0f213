"""Which media there are: walks the INPUTs, tells pictures from videos by their content, and names each medium's outputs."""

from __future__ import annotations

import fnmatch
import hashlib
import itertools
import logging
import os
import shlex
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import unquote_to_bytes

from batchemo.errors import UsageError
from batchemo.records import Kind, Medium

_log = logging.getLogger("batchemo")

_IMAGE_EXTENSIONS = frozenset(
    ".avif .bmp .dib .gif .heic .heif .hif .jfif .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split()
)
_VIDEO_EXTENSIONS = frozenset(
    (
        ".264 .265 .3g2 .3gp .asf .avi .divx .dv .f4v .flv .h264 .h265 .hevc .ivf .m1v .m2ts .m2v .m4v .mjpeg .mjpg .mkv .mov "
        ".mp4 .mpe .mpeg .mpg .mxf .ogv .qt .rm .rmvb .vob .webm .wmv .wtv .y4m"
    ).split()
)
"""Only those that mean nothing else: `.ts`, `.mts` (TypeScript), `.dat` or `.ogg` (mostly sound) need the content to say so."""

_AUDIO_EXTENSIONS = frozenset(".aac .aax .flac .m4a .m4b .m4p .m4r .mka .mp3 .oga .opus .wav .weba .wma".split())
"""Sound; several of these live in containers that video uses too."""

_IMAGE_SIGNATURES = (
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG\r\n\x1a\n",
    *(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),  # TIFF and BigTIFF
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
"""How the first packet of a Theora, VP8, Dirac or OGM stream begins."""

_IMAGE_BRANDS = frozenset((b"avif", b"avis", b"heic", b"heim", b"heis", b"heix", b"hevc", b"hevx", b"miaf", b"mif1", b"msf1"))
_OTHER_BRANDS = frozenset((b"M4A ", b"M4B ", b"M4P ", b"F4A ", b"F4B ", b"aax ", b"crx "))
"""ISO base media files that are neither: sound, and Canon's raw pictures."""

_MOV_ATOMS = frozenset((b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"))
"""What QuickTime files from before `ftyp` begin with."""

_BITMAP_HEADER_SIZES = (12, 16, 40, 52, 56, 64, 108, 124)

_HEAD_BYTES = 4096

_UNSAFE = frozenset('%~\\<>:"|?*=')
"""Encoded wherever they stand: our own marks, what Windows forbids, and `=` (pandas reads a folder `a=b` as a partition)."""

_COMPONENT_BYTES = 180
"""File systems allow 255; the rest is for suffixes and the decoration of temporary names."""

_OUTPUT_SUFFIXES = frozenset((".parquet", ".mp4", ".jpg", ".csv", ".vtt", ".eaf", ".txt", ".json"))
"""What outputs append: a folder `a.mp4.parquet` must not stand where the output of `a.mp4` belongs."""


def find_media(
    inputs: Sequence[Path],
    *,
    out: Path,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    follow_symlinks: bool = False,
) -> list[Medium]:
    """The media among `inputs` (files, and folders with all that is below them), always in the same order.

    A folder's files come first, by name, then its sub-folders. Hidden files and folders (leading `.`), symbolic links
    (unless `follow_symlinks`), special files, the results folder `out` and any other results folder are passed over; so is
    what neither content nor extension tells to be a picture or video. An INPUT itself may be hidden or a link, and a
    file given as INPUT always is a medium. A file reached twice is listed once, under the name it had first. A
    sub-folder that cannot be read is logged as a warning.

    Names are paths below the INPUT; where there are several INPUTs, with the INPUT's own name in front, made unique
    (`videos/a.mp4`, `videos-2/a.mp4`). Bytes that are not UTF-8 show as `\\xff` in a name.

    `include` (none: everything) and `exclude` (it wins) are shell patterns, case-sensitive, in which `*` matches `/` too.
    A pattern is compared with the whole name and with every trailing part of it: `a/b/c.mp4` is met by `c.mp4`, `*.mp4`,
    `b/*` and `a/*.mp4`. It is met, too, where it fits a folder on the way (`b`, `a/b/`), and `**/` stands for any
    folders or none.

    Raises UsageError, before anything is walked, where an INPUT does not exist, cannot be listed, is neither file nor
    folder, or is a results folder.
    """
    for path in inputs:
        _check_input(path, out=out)
    media: dict[str, Medium] = {}
    names: set[str] = set()
    for root, label in _labelled(inputs):
        for path, identity in _files_below(root, out=out, follow_symlinks=follow_symlinks):
            raw_name = PurePosixPath(label, path.relative_to(root).as_posix()).as_posix()
            if identity in media or not _is_wanted(_readable(raw_name), include=include, exclude=exclude):
                continue
            kind = _kind(path, is_input=path == root)
            if kind is None:
                _log.debug("%s: neither picture nor video", _shown(path))
                continue
            name = _unique(_readable(raw_name), taken=names, suffix=path.suffix)
            names.add(name)
            media[identity] = Medium(path=path, name=name, output=output_name(raw_name), kind=kind)
    return list(media.values())


def sniff(path: Path) -> Kind | None:
    """What the content of `path` is, whatever its extension says; None for anything unknown, unreadable or not a file.

    A GIF with more than one picture is a video. Reads 4 KiB, of a GIF as much as its first picture takes; never opens
    pipes or devices.
    """
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return _content_kind(file)
    except OSError:
        return None


def output_name(name: str) -> str:
    """`name`, a relative path as the file system gave it, as one that every file system and Parquet reader takes.

    Percent-encoded, as upper-case hexadecimal of the UTF-8 or raw bytes: `%` and `~`, control characters, bytes that
    are not UTF-8, what Windows forbids, `=`, a leading `.` or `_` and a trailing space or dot of a component, and the last dot
    of a folder that ends like an output (`.parquet`). Components of more than 180 bytes are cut, and get `~`, 12
    digits of the SHA-256 of the original, and their extension. Different names give different outputs.

    Raises ValueError for an absolute path or one with an empty component.
    """
    *folders, file = name.split("/")
    if not all((*folders, file)):
        raise ValueError(f"not a relative path: {name!r}")
    return "/".join((*(_output_component(folder, is_folder=True) for folder in folders), _output_component(file, is_folder=False)))


def decode_output_name(output: str) -> str:
    """The name that `output_name` made `output` from. Raises ValueError where a component was cut."""
    if "~" in output:
        raise ValueError(f"{output!r} was cut; its whole name is in the column `media`")
    return unquote_to_bytes(output).decode("utf-8", "surrogateescape")


def _check_input(path: Path, *, out: Path) -> None:
    try:
        mode = path.stat().st_mode
        entries = [entry.name for entry in path.iterdir()] if stat.S_ISDIR(mode) else []
    except FileNotFoundError:
        raise UsageError(f"{_shown(path)} does not exist; look at what there is with: ls {shlex.quote(_shown(path.parent))}") from None
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or error
        raise UsageError(f"{_shown(path)} cannot be read ({cause}); change its permissions or leave it out") from error
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise UsageError(f"{_shown(path)} is neither a file nor a folder; record it into a file and give that")
    if os.path.realpath(path) == os.path.realpath(out):
        raise UsageError(f"{_shown(path)} is both INPUT and results folder; give another results folder with --out DIR")
    if _is_results_folder(path, entries):
        raise UsageError(f"{_shown(path)} is a results folder; give the folder of its media instead")


def _labelled(inputs: Sequence[Path]) -> list[tuple[Path, str]]:
    """The different INPUTs, each with what names begin with: whoever comes first keeps its own name, nobody takes another's."""
    distinct: dict[str, Path] = {}
    for path in inputs:
        distinct.setdefault(os.path.realpath(path), path)
    roots = list(distinct.values())
    if len(roots) == 1 and roots[0].is_dir():
        return [(roots[0], "")]
    own_names = [_own_name(root) for root in roots]
    labels: list[str] = []
    for root, own_name in zip(roots, own_names, strict=True):
        suffix = "" if root.is_dir() else root.suffix
        labels.append(own_name if own_name not in labels else _unique(own_name, taken={*labels, *own_names}, suffix=suffix))
    return list(zip(roots, labels, strict=True))


def _own_name(path: Path) -> str:
    if path.name not in ("", ".."):
        return path.name
    return Path(os.path.realpath(path)).name or "root"


def _unique(name: str, *, taken: set[str], suffix: str) -> str:
    """`name`, or the first of `name-2`, `name-3`, ... that is free, the number in front of `suffix`."""
    stem = name.removesuffix(suffix)
    numbered = (f"{stem}-{number}{name[len(stem) :]}" for number in itertools.count(2))
    return next(candidate for candidate in itertools.chain([name], numbered) if candidate not in taken)


def _files_below(root: Path, *, out: Path, follow_symlinks: bool) -> Iterator[tuple[Path, str]]:
    """`root`, or the files below it, each with its resolved path. No recursion: trees can be deeper than Python's stack."""
    if not root.is_dir():
        yield root, os.path.realpath(root)
        return
    results = os.path.realpath(out)
    visited: set[tuple[int, int]] = set()
    folders = [(root, os.path.realpath(root))]
    while folders:
        folder, resolved = folders.pop()
        if resolved == results or (follow_symlinks and _is_repeated(folder, visited)):
            continue
        entries = _entries(folder)
        kept = [entry for entry in entries if not entry.name.startswith(".") and (follow_symlinks or not entry.is_symlink())]
        yield from ((folder / entry.name, _resolved(entry, resolved)) for entry in kept if _is_file(entry))
        folders += [(folder / entry.name, _resolved(entry, resolved)) for entry in reversed(kept) if _is_folder(entry)]


def _resolved(entry: os.DirEntry[str], folder: str) -> str:
    """`folder` is the resolved one: resolving every path from its start takes minutes in deep trees."""
    return os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(folder, entry.name)  # noqa: PTH118


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in `folder`, by name; nothing where it cannot be read or is a results folder."""
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        _log.warning("%s: folder skipped: %s", _shown(folder), error.strerror)
        return []
    if _is_results_folder(folder, [entry.name for entry in entries]):
        _log.info("%s: results folder skipped", _shown(folder))
        return []
    return entries


def _is_results_folder(folder: Path, entries: Sequence[str]) -> bool:
    return "media.parquet" in entries and "frames" in entries and (folder / "frames").is_dir()


def _is_repeated(folder: Path, visited: set[tuple[int, int]]) -> bool:
    """Whether the walk was here before; links can lead in circles."""
    try:
        status = folder.stat()
    except OSError:
        return False
    identity = (status.st_dev, status.st_ino)
    if identity in visited:
        return True
    visited.add(identity)
    return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    """A link that leads nowhere counts as one: it fails later, with a row that says so."""
    try:
        return entry.is_file() or (entry.is_symlink() and not Path(entry).exists())
    except OSError:
        return True


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_wanted(name: str, *, include: Sequence[str], exclude: Sequence[str]) -> bool:
    return (not include or _matches(name, include)) and not _matches(name, exclude)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    parts = name.split("/")
    tails = ["/".join(parts[start:]) for start in range(len(parts))]
    return any(fnmatch.fnmatchcase(tail, form) for pattern in patterns for form in _forms(pattern) for tail in tails)


def _forms(pattern: str) -> Iterator[str]:
    base = pattern.rstrip("/")
    for form in (base, base.replace("**/", "")):
        yield form
        yield f"{form}/*"


def _kind(path: Path, *, is_input: bool) -> Kind | None:
    if is_input:
        return sniff(path) or _extension_kind(path) or "video"
    return None if path.suffix.lower() in _AUDIO_EXTENSIONS else sniff(path) or _extension_kind(path)


def _extension_kind(path: Path) -> Kind | None:
    extension = path.suffix.lower()
    if extension in _IMAGE_EXTENSIONS:
        return "image"
    return "video" if extension in _VIDEO_EXTENSIONS else None


def _content_kind(file: BinaryIO) -> Kind | None:
    head = file.read(_HEAD_BYTES)
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "video" if _has_second_picture(file) else "image"
    if head.startswith(_IMAGE_SIGNATURES) or _riff_form(head) == b"WEBP" or _is_bitmap(head):
        return "image"
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        return "image" if brand in _IMAGE_BRANDS else None if brand in _OTHER_BRANDS else "video"
    if head.startswith(_VIDEO_SIGNATURES) or _riff_form(head) == b"AVI " or _is_transport_stream(head):
        return "video"
    if _is_ogg_video(head) or _is_old_mov(head, size_bytes=file.seek(0, os.SEEK_END)):
        return "video"
    return None


def _riff_form(head: bytes) -> bytes:
    return head[8:12] if head.startswith(b"RIFF") else b""


def _is_bitmap(head: bytes) -> bool:
    """Two letters alone would make pictures of many texts."""
    return head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BITMAP_HEADER_SIZES


def _is_transport_stream(head: bytes) -> bool:
    """A sync byte at each of the first three packets, of 188 bytes, or of 192 with a time stamp of 4 in front (m2ts)."""
    return any(
        len(head) > first + stride and all(byte == 0x47 for byte in head[first : first + 3 * stride : stride])
        for first, stride in ((0, 188), (4, 192))
    )


def _is_ogg_video(head: bytes) -> bool:
    return head.startswith(b"OggS") and any(mark in head for mark in _OGG_VIDEO_MARKS)


def _is_old_mov(head: bytes, *, size_bytes: int) -> bool:
    """The size of the first atom must fit: "The free world" has the name of an atom at the right place, too."""
    atom_bytes = int.from_bytes(head[:4], "big")
    fits = atom_bytes in (0, 1) or 8 <= atom_bytes <= size_bytes  # 0: up to the end of the file; 1: a 64-bit size follows
    return head[4:8] in _MOV_ATOMS and fits


def _has_second_picture(file: BinaryIO) -> bool:
    """Walks the blocks of a GIF, up to its second image descriptor. What is cut off or damaged counts as its end."""
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


def _output_component(component: str, *, is_folder: bool) -> str:
    suffix = PurePosixPath(component).suffix
    tokens = [_percent(char) if _is_unsafe(char) else char for char in component]
    if component[0] in "._":
        tokens[0] = _percent(component[0])
    if component[-1] in " .":
        tokens[-1] = _percent(component[-1])
    if is_folder and suffix.lower() in _OUTPUT_SUFFIXES:
        tokens[-len(suffix)] = _percent(".")
    encoded = "".join(tokens)
    return encoded if len(encoded.encode()) <= _COMPONENT_BYTES else _cut(component, tokens, suffix=suffix)


def _cut(component: str, tokens: list[str], *, suffix: str) -> str:
    digest = hashlib.sha256(component.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    extension = "".join(tokens[-len(suffix) :]) if 0 < len(suffix) <= 8 else ""
    end = f"~{digest}{extension}"
    room = _COMPONENT_BYTES - len(end.encode())
    head = ""
    for token in tokens:
        room -= len(token.encode())
        if room < 0:
            break
        head += token
    return head + end


def _is_unsafe(char: str) -> bool:
    return char in _UNSAFE or unicodedata.category(char) in ("Cc", "Cs")


def _percent(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogateescape"))


def _readable(raw_name: str) -> str:
    return raw_name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _shown(path: Path) -> str:
    """For messages: on one line, without escape sequences that a terminal would obey."""
    text = _readable(str(path))
    return text if text.isprintable() else repr(text)
