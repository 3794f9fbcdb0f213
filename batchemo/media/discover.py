"""Which media there are: walks the INPUTs and names what they hold."""

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
    """A picture that is not analysed because it is not read here; `name` as a medium would have it."""

    path: Path
    name: str
    foreign: UnsupportedFormat


def find_media(
    inputs: Sequence[Path],
    *,
    out: Path,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    follow_symlinks: bool = False,
    passed_over: list[SkippedFile] | None = None,
) -> list[Medium]:
    """The media among `inputs` (files, and folders with all that is below them), always in the same order.

    A folder's files come first, by name, then its sub-folders. Hidden files and folders (leading `.`), symbolic links
    (unless `follow_symlinks`), special files, the results folder `out` and any other results folder are passed over; so is
    what neither content nor extension tells to be a picture or video. Pictures of kinds that are not read here are passed over, too, and
    added to `passed_over`. An INPUT itself may be hidden or a link, and a
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
    seen: set[str] = set()
    for root, label in _labelled(inputs):
        for path, identity in _files_below(root, out=out, follow_symlinks=follow_symlinks):
            raw_name = PurePosixPath(label, path.relative_to(root).as_posix()).as_posix()
            if identity in media or not _is_wanted(_readable(raw_name), include=include, exclude=exclude):
                continue
            kind = kind_of(path, is_input=path == root)
            if kind is None:
                _log.debug("%s: neither picture nor video", _shown(path))
                continue
            if isinstance(kind, UnsupportedFormat):
                if passed_over is not None and identity not in seen:
                    passed_over.append(SkippedFile(path, _readable(raw_name), kind))
                seen.add(identity)
                continue
            name = _unique(_readable(raw_name), taken=names, suffix=path.suffix)
            names.add(name)
            media[identity] = Medium(path=path, name=name, output=output_name(raw_name), kind=kind)
    return list(media.values())


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


def _readable(raw_name: str) -> str:
    return raw_name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _shown(path: Path) -> str:
    """For messages: on one line, without escape sequences that a terminal would obey."""
    text = _readable(str(path))
    return text if text.isprintable() else repr(text)
