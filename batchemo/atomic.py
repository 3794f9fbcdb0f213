"""Atomic writes: files appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from batchemo.errors import StorageError, typed

TEMPORARY_SUFFIX = ".part"
_TEMPORARY = re.compile(rf"\.([0-9a-f]{{16}})(-\d+)?{re.escape(TEMPORARY_SUFFIX)}")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to. When the block ends, the file is synced and renamed to `path`; where it raises, nothing
    is left.

    The name is hidden and does not end in `.parquet`, so that readers of folders of Parquet files skip it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        yield temporary
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_name(path: Path) -> Path:
    """A hidden path of this process, short however long the name of `path` is. The pid is in it because a worker may outlive its killed
    parent for a moment, and must not share a file with the next run."""
    return path.with_name(f".{_digest(path)}-{os.getpid()}{TEMPORARY_SUFFIX}")


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]


def publish(temporary: Path, path: Path) -> None:
    """Renames a complete file to `path` after its content is on the disk.

    The folder is not synced, which would double the time on the disk (see docs/benchmarks.md): if the power fails within seconds, the file
    may be missing, and is made again.
    """
    _sync(temporary)
    temporary.replace(path)


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def find_temporaries(folder: Path) -> Iterator[Path]:
    """The temporary files below `folder` that killed processes left, also where a sub-folder is a link to another file system."""
    if not folder.is_dir():
        return
    roots = [folder, *(path for path in folder.iterdir() if path.is_symlink() and path.is_dir())]
    for path in (path for root in roots for path in root.rglob(f".*{TEMPORARY_SUFFIX}")):
        if _TEMPORARY.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            yield path


def remove_temporaries(folder: Path) -> None:
    """Removes the files that `find_temporaries` finds."""
    for path in list(find_temporaries(folder)):
        path.unlink(missing_ok=True)


def remove_temporaries_of(paths: Iterable[Path]) -> None:
    """Removes the temporary files of `paths` alone, as another process may be writing to those of other files."""
    digests: defaultdict[Path, set[str]] = defaultdict(set)
    for path in paths:
        digests[path.parent].add(_digest(path))
    for folder, ours in digests.items():
        for path in list(folder.glob(f".*{TEMPORARY_SUFFIX}")):
            found = _TEMPORARY.fullmatch(path.name)
            if found and found[1] in ours and not path.is_symlink():
                path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)  # Windows syncs no file that is open for reading only
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def storage(out: Path) -> Iterator[None]:
    """Raises StorageError for any OSError within the block, in which only `out` is written to and unreadable media raise MediaError."""
    try:
        yield
    except OSError as error:
        place = Path(os.fsdecode(error.filename)) if error.filename else out
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = f"no space is left for {out} (look with: df -h {typed(out)}); free some, and the same command goes on"
        else:
            message = f"{place} cannot be written ({error.strerror or error}); look with: ls -ld {typed(place)}. The same command goes on"
        raise StorageError(message) from error
