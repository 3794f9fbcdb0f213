"""Converts the path of a medium to an output name that is valid on every file system and in Parquet readers."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from pathlib import PurePosixPath
from urllib.parse import unquote_to_bytes

_UNSAFE = frozenset('%~\\<>:"|?*=')
"""Always encoded: our own escape characters, what Windows forbids, and `=` (pandas reads a folder `a=b` as a partition)."""

_IS_WINDOWS = os.name == "nt"
_PORTS = (f"{port}{number}" for port in ("COM", "LPT") for number in "123456789¹²³")
_DEVICE_NAMES = frozenset(("CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$", *_PORTS))
"""Windows opens a device by these names, whatever their case and suffixes. Elsewhere they are ordinary names, and stay as they are."""

_COMPONENT_BYTES = 180
"""File systems allow 255 bytes; the rest is for suffixes and temporary names."""

_OUTPUT_SUFFIXES = frozenset((".parquet", ".mp4", ".jpg", ".csv", ".vtt", ".eaf", ".txt", ".json"))
"""Suffixes of outputs: a folder `a.mp4.parquet` must not collide with the output of `a.mp4`."""


def output_name(name: str) -> str:
    """Converts a relative path, as the file system has it, to a name that is valid on every file system. Different paths give different
    names.

    - Percent-encoded (upper-case hexadecimal of the UTF-8 or raw bytes): `%` and `~`, control characters, bytes that are not UTF-8, what
      Windows forbids, `=`, a leading `.` or `_` and a trailing space or dot of a component, and the last dot of a folder that ends like an
      output (`.parquet`); on Windows also the first character of a device name, such as `aux.jpg`.
    - A component of more than 180 bytes is cut, and gets `~`, 12 digits of the SHA-256 of the original, and its extension.

    Raises ValueError for an absolute path or one with an empty component.
    """
    *folders, file = name.split("/")
    if not all((*folders, file)):
        raise ValueError(f"not a relative path: {name!r}")
    return "/".join((*(_output_component(folder, is_folder=True) for folder in folders), _output_component(file, is_folder=False)))


def decode_output_name(output: str) -> str:
    """The path from which `output_name` made `output`. Raises ValueError where a component was cut."""
    if "~" in output:
        raise ValueError(f"{output!r} was cut; its whole name is in the column `media`")
    return unquote_to_bytes(output).decode("utf-8", "surrogateescape")


def _output_component(component: str, *, is_folder: bool) -> str:
    suffix = PurePosixPath(component).suffix
    tokens = [_percent(char) if _is_unsafe(char) else char for char in component]
    if component[0] in "._" or (_IS_WINDOWS and component.partition(".")[0].rstrip(" ").upper() in _DEVICE_NAMES):
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
