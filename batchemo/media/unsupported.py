"""Picture formats that are recognized but not read, and the commands that convert them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import BinaryIO

from batchemo.errors import MediaError, typed
from batchemo.media import tiff

RAW = "raw photograph"

HEAD_BYTES = 4096
"""Bytes from the start of a file that suffice to recognize its format."""

_SIGNATURES = (
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"II\xbc\x01", "JPEG XR"),
    (b"8BPS", "Photoshop picture"),
    (b"gimp xcf", "GIMP picture"),
    (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"#?RGBE", "Radiance HDR"),
    (b"qoif", "QOI"),
    (b"BPG\xfb", "BPG"),
    (b"FLIF", "FLIF"),
    *((magic, RAW) for magic in (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb", b"\0MRM")),
)
_RAW_BRAND = b"crx "
"""Brand of CR3, an ISO base media file."""

_RAW_EXTENSIONS = frozenset(
    (
        ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .gpr .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .rw2 .rwl .sr2 .srf .srw .x3f"
    ).split()
)
_EXTENSIONS = {
    **dict.fromkeys(_RAW_EXTENSIONS, RAW),
    ".jxl": "JPEG XL",
    **dict.fromkeys(".j2c .j2k .jp2 .jpc .jpf .jph .jpm .jpx".split(), "JPEG 2000"),
    **dict.fromkeys(".hdp .jxr .wdp".split(), "JPEG XR"),
    **dict.fromkeys(".psb .psd".split(), "Photoshop picture"),
    ".xcf": "GIMP picture",
    ".exr": "OpenEXR",
    ".pcx": "PCX",
    ".qoi": "QOI",
    ".tga": "Targa",
    ".bpg": "BPG",
    ".flif": "FLIF",
    ".dcm": "DICOM",
}
_COMMANDS = {
    "JPEG XL": "djxl {source} {target}.png",
    "JPEG 2000": "opj_decompress -i {source} -o {target}.png",
    "JPEG XR": "JxrDecApp -i {source} -o {target}.tif",
    "BPG": "bpgdec -o {target}.png {source}",
    "FLIF": "flif -d {source} {target}.png",
    "DICOM": "dcmj2pnm --write-png {source} {target}.png",
    RAW: "darktable-cli {source} {target}.jpg",
}
_ANY_COMMAND = "magick {source} {target}.png"


@dataclasses.dataclass(frozen=True, slots=True)
class UnsupportedFormat:
    """A picture format that is not read here; `kind` is its common name."""

    kind: str

    def conversion_command(self, path: Path) -> str:
        """The command that converts `path` into a picture that is read here."""
        return _COMMANDS.get(self.kind, _ANY_COMMAND).format(source=typed(path), target=typed(path.with_suffix("")))

    def error(self, path: Path) -> MediaError:
        message = f"{path} cannot be read here ({self.kind}); convert it first, for example with: {self.conversion_command(path)}"
        return MediaError("unsupported", message)


def detect_by_content(file: BinaryIO, head: bytes, path: Path) -> UnsupportedFormat | None:
    """The unsupported format of `file`, which starts with `head`; None for any other content."""
    kind = next((kind for magic, kind in _SIGNATURES if head.startswith(magic)), None)
    if kind is None and head[4:12] == b"ftyp" + _RAW_BRAND:
        kind = RAW
    if kind is None and head[128:132] == b"DICM":
        kind = "DICOM"
    if kind is None and head.startswith(tiff.SIGNATURES) and (path.suffix.lower() in _RAW_EXTENSIONS or tiff.is_raw(file)):
        kind = RAW
    return None if kind is None else UnsupportedFormat(kind)


def detect_by_extension(path: Path) -> UnsupportedFormat | None:
    """For files whose content is not recognized."""
    kind = _EXTENSIONS.get(path.suffix.lower())
    return None if kind is None else UnsupportedFormat(kind)
