"""Finds the media below the INPUTs of a run, and names them."""

from __future__ import annotations

import dataclasses
import fnmatch
import itertools
import logging
import os
import shlex
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from batchemo.errors import UsageError
from batchemo.media.output_names import output_name
from batchemo.media.sniff import kind_of
from batchemo.media.unsupported import UnsupportedFormat
from batchemo.records import Medium

_log = logging.getLogger("batchemo")


@dataclasses.dataclass(frozen=True, slots=True)
class SkippedFile:
    """A picture in an unsupported format; `name` is the one that a medium would have."""

    path: Path
    name: str
    format: UnsupportedFormat


def find_media(
    inputs: Sequence[Path],
    *,
    out: Path,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    follow_symlinks: bool = False,
    passed_over: list[SkippedFile] | None = None,
) -> list[Medium]:
    """The media among `inputs` (files, and folders with everything below them), always in the same order.

    Order and scope:

    - The files of a folder come first, by name, then its sub-folders.
    - Skipped: hidden files and folders (leading `.`), symbolic links (unless `follow_symlinks`), special files, the results folder `out`
      and other results folders, and files that are no pictures or videos by content or extension.
    - Pictures in unsupported formats are skipped, and added to `passed_over`.
    - An INPUT itself may be hidden or a link, and a file given as INPUT always is a medium.
    - A file reached twice is listed once, under its first name. A sub-folder that cannot be read is logged as a warning.

    Names are paths relative to the INPUT. With several INPUTs they start with the INPUT's own name, made unique (`videos/a.mp4`,
    `videos-2/a.mp4`). Bytes that are not UTF-8 are written `\\xff`.

    `include` (default: everything) and `exclude` (takes precedence) are case-sensitive shell patterns in which `*` matches `/`, too. A
    pattern matches a whole name or any trailing part of it: `a/b/c.mp4` is matched by `c.mp4`, `*.mp4`, `b/*` and `a/*.mp4`. It also
    matches what is below a matching folder (`b`, `a/b/`), and `**/` stands for any number of folders.

    Raises UsageError, before the search starts, where an INPUT does not exist, cannot be listed, is neither file nor folder, or is a
    results folder.
    """
    for path in inputs:
        _check_input(path, out=out)
    media: dict[str, Medium] = {}
    names: set[str] = set()
    seen: set[str] = set()
    for root, label in _name_inputs(inputs):
        for path, identity in _files_below(root, out=out, follow_symlinks=follow_symlinks):
            raw_name = PurePosixPath(label, path.relative_to(root).as_posix()).as_posix()
            if identity in media or not _is_wanted(_printable_name(raw_name), include=include, exclude=exclude):
                continue
            kind = kind_of(path, is_input=path == root)
            if kind is None:
                _log.debug("%s: neither picture nor video", _for_message(path))
                continue
            if isinstance(kind, UnsupportedFormat):
                if passed_over is not None and identity not in seen:
                    passed_over.append(SkippedFile(path, _printable_name(raw_name), kind))
                seen.add(identity)
                continue
            name = _unique(_printable_name(raw_name), taken=names, suffix=path.suffix)
            names.add(name)
            media[identity] = Medium(path=path, name=name, output=output_name(raw_name), kind=kind)
    return list(media.values())


def _check_input(path: Path, *, out: Path) -> None:
    try:
        mode = path.stat().st_mode
        entries = [entry.name for entry in path.iterdir()] if stat.S_ISDIR(mode) else []
    except FileNotFoundError:
        raise UsageError(
            f"{_for_message(path)} does not exist; list what is there with: ls {shlex.quote(_for_message(path.parent))}"
        ) from None
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or error
        raise UsageError(f"{_for_message(path)} cannot be read ({cause}); change its permissions or leave it out") from error
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise UsageError(f"{_for_message(path)} is neither a file nor a folder; record it into a file and give that")
    if os.path.realpath(path) == os.path.realpath(out):
        raise UsageError(f"{_for_message(path)} is both INPUT and results folder; give another results folder with --out DIR")
    if _is_results_folder(path, entries):
        raise UsageError(f"{_for_message(path)} is a results folder; give the folder of its media instead")


def _name_inputs(inputs: Sequence[Path]) -> list[tuple[Path, str]]:
    """The distinct INPUTs, each with the prefix of its names: the first keeps its own name, later ones get a number."""
    distinct: dict[str, Path] = {}
    for path in inputs:
        distinct.setdefault(os.path.realpath(path), path)
    roots = list(distinct.values())
    if len(roots) == 1 and roots[0].is_dir():
        return [(roots[0], "")]
    base_names = [_base_name(root) for root in roots]
    labels: list[str] = []
    for root, base_name in zip(roots, base_names, strict=True):
        suffix = "" if root.is_dir() else root.suffix
        labels.append(base_name if base_name not in labels else _unique(base_name, taken={*labels, *base_names}, suffix=suffix))
    return list(zip(roots, labels, strict=True))


def _base_name(path: Path) -> str:
    if path.name not in ("", ".."):
        return path.name
    return Path(os.path.realpath(path)).name or "root"


def _unique(name: str, *, taken: set[str], suffix: str) -> str:
    """`name`, or the first free one of `name-2`, `name-3`, ..., with the number before `suffix`."""
    stem = name.removesuffix(suffix)
    numbered = (f"{stem}-{number}{name[len(stem) :]}" for number in itertools.count(2))
    return next(candidate for candidate in itertools.chain([name], numbered) if candidate not in taken)


def _files_below(root: Path, *, out: Path, follow_symlinks: bool) -> Iterator[tuple[Path, str]]:
    """`root`, or the files below it, each with its resolved path. Iterative, since trees can be deeper than Python's stack."""
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
    """`folder` is resolved already: resolving every path from the root takes minutes in deep trees."""
    return os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(folder, entry.name)  # noqa: PTH118


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of `folder`, by name; none where it cannot be read or is a results folder."""
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        _log.warning("%s: folder skipped: %s", _for_message(folder), error.strerror)
        return []
    if _is_results_folder(folder, [entry.name for entry in entries]):
        _log.info("%s: results folder skipped", _for_message(folder))
        return []
    return entries


def _is_results_folder(folder: Path, entries: Sequence[str]) -> bool:
    return "media.parquet" in entries and "frames" in entries and (folder / "frames").is_dir()


def _is_repeated(folder: Path, visited: set[tuple[int, int]]) -> bool:
    """Whether the folder was visited before: links can form cycles."""
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
    """A dangling link counts as a file: it fails later, with a row that says so."""
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


def _printable_name(raw_name: str) -> str:
    return raw_name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _for_message(path: Path) -> str:
    """The path on one line, without escape sequences that a terminal would execute."""
    text = _printable_name(str(path))
    return text if text.isprintable() else repr(text)
