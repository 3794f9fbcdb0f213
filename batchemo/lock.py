"""One run a folder, or one a shard: a lock that ends with its process, and a word on who holds it."""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import logging
import os
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from batchemo.errors import LockedError, UsageError, typed
from batchemo.options import Shard

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_LOG = logging.getLogger("batchemo")


_ASKED_SECONDS = 0.2
"""Who only asks whether a lock is held has it for much less."""


def lock_path(out: Path, shard: Shard | None = None) -> Path:
    """The file that a run which writes to `out` holds: of all media, or of its shard."""
    return out / (".batchemo.lock" if shard is None else f".batchemo.{shard.index}-of-{shard.count}.lock")


@contextlib.contextmanager
def locked(out: Path, *, shard: Shard | None = None, wait_seconds: float = 0.0) -> Iterator[None]:
    """Holds `out`, which is made if missing, for as long as the block lasts. Shards of one division may hold it side by side; a run
    of all media, or of another division, has it alone.

    The system frees the lock when its process ends, however that comes. Raises LockedError where another process holds it for
    longer than `wait_seconds`, UsageError where nothing can be written.
    """
    path = lock_path(out, shard)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        _acquire(lock, out, shard, wait_seconds=wait_seconds)
    except OSError as error:
        raise UsageError(
            f"--out {out}: cannot write there ({error.strerror}); give another folder, or look at: ls -ld {typed(out)}"
        ) from error
    try:
        with contextlib.suppress(OSError):  # a full disk must not say so here, of all places
            _holder_path(path).write_text(json.dumps(_myself()), encoding="utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):
            _holder_path(path).unlink()
        lock.release()


def is_held(out: Path) -> bool:
    """Whether a process on this machine, or on another that shares the file system, is writing to `out`."""
    return any(map(_is_taken, _locks(out)))


def holder(out: Path) -> str:
    """Who holds `out`: process, host and since when, as far as that is known."""
    return _holder_of(next(filter(_is_taken, _locks(out)), lock_path(out)))


def _acquire(lock: FileLock, out: Path, shard: Shard | None, *, wait_seconds: float) -> None:
    """Each takes its own lock before it looks at others': of two that start at once, one at least sees the other. Who sees one lets
    go of its own, so that two that wait do not wait for each other."""
    path = lock_path(out, shard)
    deadline = time.monotonic() + wait_seconds
    if wait_seconds and (taken := next(filter(_is_taken, (path, *_rivals(out, shard))), None)):
        _LOG.warning("waiting up to %g s for another run, %s", wait_seconds, _holder_of(taken))
    while True:
        try:
            lock.acquire(timeout=max(_ASKED_SECONDS, deadline - time.monotonic()))
        except Timeout as error:
            raise LockedError(_told(out, path)) from error
        rival = next(filter(_is_taken, _rivals(out, shard)), None)
        if rival is None:
            return
        lock.release()
        if time.monotonic() >= deadline:
            raise LockedError(_told(out, rival))
        time.sleep(random.uniform(0.1, 0.5))  # noqa: S311 (any number does that another does not have)


def _locks(out: Path) -> list[Path]:
    return [lock_path(out), *sorted(out.glob(".batchemo.*-of-*.lock"))]


def _rivals(out: Path, shard: Shard | None) -> list[Path]:
    """The locks of runs that could touch the same media: those that divide them otherwise, or not at all."""
    if shard is None:
        return _locks(out)[1:]
    return [path for path in _locks(out) if not path.name.endswith(f"-of-{shard.count}.lock")]


def _is_taken(lock: Path) -> bool:
    """Asks by a shared lock, so that several may ask at once without seeing each other. Windows has no such lock: there the asker takes it
    for a moment, and others that ask or `_acquire` wait for it."""
    if fcntl is None:
        return lock.exists() and not _is_free(lock)
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno == errno.EAGAIN  # whoever may not read it cannot ask
    return False


def _is_free(lock: Path) -> bool:
    try:
        with FileLock(lock, timeout=_ASKED_SECONDS):
            return True
    except Timeout:
        return False
    except OSError:  # without the right to open it one cannot ask
        return True


def _holder_of(lock: Path) -> str:
    try:
        facts = json.loads(_holder_path(lock).read_text(encoding="utf-8"))
        return f"process {facts['pid']} on {facts['host']} since {facts['started']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "a process that has just begun"


def _told(out: Path, lock: Path) -> str:
    return f"another run is writing to {out} ({_holder_of(lock)}); wait for it with --wait-s SECONDS, or give another folder with --out"


def _holder_path(path: Path) -> Path:
    return path.with_suffix(".holder")


def _myself() -> dict[str, str | int]:
    started = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": started}
