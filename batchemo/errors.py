"""Errors, sorted by who must act. Each message names the file or option, the cause and the next thing to type."""

from __future__ import annotations

import contextlib
import difflib
import shlex
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path


def typed(path: Path) -> str:
    """`path` quoted for a shell, for the commands that messages suggest."""
    return shlex.quote(str(path))


def suggestion(name: str, choices: Sequence[str], *, spelled: Callable[[str], str] = str) -> str:
    """A hint for an unknown `name`: the most similar of `choices`, or all of them, each as it is `spelled` where the user typed it."""
    close = difflib.get_close_matches(name, choices, n=2)
    if close:
        return f"did you mean {' or '.join(repr(spelled(each)) for each in close)}?"
    return f"choose from {', '.join(map(spelled, choices))}" if choices else "there are none"


class BatchemoError(Exception):
    """An error that batchemo raises on purpose; its message is meant for users."""


class UsageError(BatchemoError):
    """The command, its options or a file of options is wrong: the user must change them (exit 2)."""


_SIMILAR = 0.8
"""Similarity of two names of folders, from 0 to 1, from which on one is taken for a typing error of the other."""


def no_results(place: Path) -> UsageError:
    """The error for a `place` that is no results folder; suggests a similar one."""
    problem = f"{place} holds no results" if place.exists() else f"{place} does not exist, so that it holds no results"
    near = _results_near(place)
    return UsageError(
        f"{problem}; did you mean {typed(near)}?" if near else f"{problem}; make some with: batchemo run INPUT --out {typed(place)}"
    )


def _results_near(place: Path) -> Path | None:
    """A results folder above `place`, in it, or next to it under a similar name."""
    with contextlib.suppress(OSError):
        for above in place.parents:
            if _has_results(above):
                return above
        inside = sorted(path for path in place.iterdir() if _has_results(path)) if place.is_dir() else []
        siblings = {path.name: path for path in place.parent.iterdir() if _has_results(path)} if place.name else {}
        close = [siblings[name] for name in difflib.get_close_matches(place.name, siblings, n=1, cutoff=_SIMILAR)]
        return next(iter([*inside, *close]), None)
    return None


def _has_results(path: Path) -> bool:
    return (path / "media.parquet").is_file()


class MediaError(BatchemoError):
    """One medium cannot be analysed: the user must repair it. In a run it is a row of `media.parquet` (exit 3).

    `kind` is a stable word for scripts, such as `empty`, `unreadable`, `no_video` or `too_large`.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[type[MediaError], tuple[str, str]]:
        return type(self), (self.kind, str(self))


def defect(path: Path, error: Exception) -> MediaError:
    """The error for a defect of batchemo: the medium at `path` fails, and the run goes on."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    message = f"{path}: a defect of batchemo ({type(error).__name__}: {error}{place}); report it, and leave the file out with --exclude"
    return MediaError("defect", message)


def too_greedy(path: Path) -> MediaError:
    """The error for a medium that needs more memory than there is."""
    return MediaError("memory", f"{path}: not enough memory; use fewer --workers, or leave the file out with --exclude")


@contextlib.contextmanager
def blaming(path: Path) -> Iterator[None]:
    """Turns errors of the block into a MediaError of the medium at `path`, except OSError, which comes from the results folder."""
    try:
        yield
    except (MediaError, OSError):
        raise
    except MemoryError as error:
        raise too_greedy(path) from error
    except Exception as error:
        raise defect(path, error) from error


def unreadable(path: Path, error: OSError) -> MediaError:
    """The error for a medium whose file cannot be opened."""
    if isinstance(error, FileNotFoundError):
        return MediaError(
            "unreadable", f"{path} is not there any more; was it moved, or its drive removed? Look with: ls {typed(path.parent)}"
        )
    return MediaError("unreadable", f"{path} cannot be read: {error.strerror}; check its permissions with: ls -l {typed(path)}")


class WeightsError(BatchemoError):
    """A weights file is missing, damaged or of another network (exit 2)."""


class DeviceError(BatchemoError):
    """The device cannot be used on this machine (exit 2)."""


class LockedError(BatchemoError):
    """Another run is writing to the results folder (exit 75)."""


class StorageError(BatchemoError):
    """The results folder cannot be written any more: disk full, permissions changed, device removed (exit 74)."""


class ClusterError(BatchemoError):
    """The scheduler or the workers of a cluster failed; finished media are kept (exit 1)."""


class DataError(BatchemoError):
    """A data set for training is incomplete or broken (exit 2)."""


def cause(error: Exception) -> str:
    """The cause of `error` in a few words, as FFmpeg or the system gives it."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
