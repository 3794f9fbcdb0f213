"""Errors, sorted by who must act. Each message names the file or option, the cause and the next thing to type."""

from __future__ import annotations

import contextlib
import difflib
import shlex
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path


def typed(path: Path) -> str:
    """`path` as it is typed in a shell: for the commands that messages suggest."""
    return shlex.quote(str(path))


def suggestion(name: str, choices: Sequence[str]) -> str:
    """What the writer of an unknown `name` may have meant: the nearest of `choices`, or all of them."""
    close = difflib.get_close_matches(name, choices, n=2)
    if close:
        return f"did you mean {' or '.join(map(repr, close))}?"
    return f"choose from {', '.join(choices)}" if choices else "there is none"


class BatchemoError(Exception):
    """Anything that batchemo raises on purpose; its message is meant for people."""


class UsageError(BatchemoError):
    """The command, its options or a file of options is wrong: the caller must change what they typed (exit 2)."""


_A_TYPO = 0.8
"""How alike, from 0 to 1, names of folders are that one meant the other."""


def no_results(place: Path) -> UsageError:
    """For a `place` that is no results folder; names the one that was perhaps meant."""
    told = f"{place} holds no results" if place.exists() else f"{place} does not exist, so that it holds no results"
    near = _results_near(place)
    return UsageError(
        f"{told}; did you mean {typed(near)}?" if near else f"{told}; make some with: batchemo run INPUT --out {typed(place)}"
    )


def _results_near(place: Path) -> Path | None:
    """A results folder that `place` is a part of, that lies in it, or whose name is much like its own."""
    with contextlib.suppress(OSError):
        for above in place.parents:
            if _has_results(above):
                return above
        inside = sorted(path for path in place.iterdir() if _has_results(path)) if place.is_dir() else []
        beside = {path.name: path for path in place.parent.iterdir() if _has_results(path)} if place.name else {}
        close = [beside[name] for name in difflib.get_close_matches(place.name, beside, n=1, cutoff=_A_TYPO)]
        return next(iter([*inside, *close]), None)
    return None


def _has_results(path: Path) -> bool:
    return (path / "media.parquet").is_file()


class MediaError(BatchemoError):
    """One medium cannot be analysed: its owner must repair it. In a run this is a row of `media.parquet` (exit 3).

    `kind` is a stable word for scripts, such as `empty`, `unreadable`, `no_video` or `too_large`.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[type[MediaError], tuple[str, str]]:
        return type(self), (self.kind, str(self))


def defect(path: Path, error: Exception) -> MediaError:
    """For what must not happen: it costs the medium at `path`, not the run."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    message = f"{path}: a defect of batchemo ({type(error).__name__}: {error}{place}); report it, and leave the file out with --exclude"
    return MediaError("defect", message)


def too_greedy(path: Path) -> MediaError:
    """For a medium that there is not enough memory for."""
    return MediaError("memory", f"{path}: there is not enough memory for it; use fewer --workers, or leave it out with --exclude")


@contextlib.contextmanager
def blaming(path: Path) -> Iterator[None]:
    """What goes wrong in it is a MediaError of the medium at `path`, but for what the results folder refuses."""
    try:
        yield
    except (MediaError, OSError):
        raise
    except MemoryError as error:
        raise too_greedy(path) from error
    except Exception as error:
        raise defect(path, error) from error


def unreadable(path: Path, error: OSError) -> MediaError:
    """What is said of a medium whose file cannot be opened."""
    if isinstance(error, FileNotFoundError):
        return MediaError(
            "unreadable", f"{path} is not there any more; was it moved, or a drive taken away? Look with: ls {typed(path.parent)}"
        )
    return MediaError("unreadable", f"{path} cannot be read: {error.strerror}; check its permissions with: ls -l {typed(path)}")


class WeightsError(BatchemoError):
    """A weights file is missing, damaged or not one of ours (exit 2)."""


class DeviceError(BatchemoError):
    """The asked device cannot be used on this machine (exit 2)."""


class LockedError(BatchemoError):
    """Another run holds the results folder (exit 75)."""


class StorageError(BatchemoError):
    """The results folder cannot be written any more: disk full, permissions changed, device gone (exit 74)."""


class ClusterError(BatchemoError):
    """Scheduler or workers of a cluster cannot do the work; what is done is kept (exit 1)."""


class DataError(BatchemoError):
    """A data set for training is incomplete or broken (exit 2)."""


def cause(error: Exception) -> str:
    """What FFmpeg or the system says of it, in a few words."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
