"""Identifies a file by size, modification time and hash, to notice changes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any


def identity_of(path: Path) -> dict[str, Any]:
    """Size, modification time and SHA-256 of a file. Raises OSError."""
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": _sha256(path)}


def is_same_file(path: Path, known: dict[str, Any]) -> bool:
    """Whether `path` still has the content of the identity `known`; equal size and modification time suffice.

    The identity of a file that could not be read is empty; it matches as long as the file cannot be read.
    """
    try:
        status = path.stat()
        if (status.st_size, status.st_mtime_ns) == (known.get("size"), known.get("mtime_ns")):
            return True
        if known and status.st_size != known["size"]:
            return False
        return _sha256(path) == known.get("sha256")
    except OSError:
        return not known


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
