"""The lock of a results folder: one run at a time, or one a shard. It ends with its process."""

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

_PROBE_SECONDS = 0.2
"""A process that only checks whether a lock is held has it for much less."""


def lock_path(out: Path, shard: Shard | None = None) -> Path:
    """The lock file of a run that writes to `out`: of all media, or of its shard."""
    return out / (".batchemo.lock" if shard is None else f".batchemo.{shard.index}-of-{shard.count}.lock")


@contextlib.contextmanager
def locked(out: Path, *, shard: Shard | None = None, wait_seconds: float = 0.0) -> Iterator[None]:
    """Holds `out`, which is made if missing, for as long as the block lasts.

    Shards of the same count may hold it at once; a run of all media, or of shards of another count, holds it alone. The system releases
    the lock when the process ends in any way. Raises LockedError where another process holds it for longer than `wait_seconds`, UsageError
    where `out` cannot be written.
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
        with contextlib.suppress(OSError):  # on a full disk, a later write raises the error that explains it
            _holder_path(path).write_text(json.dumps(_own_facts()), encoding="utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):
            _holder_path(path).unlink()
        lock.release()


def is_held(out: Path) -> bool:
    """Whether a process, on this machine or another that shares the file system, is writing to `out`."""
    return any(map(_is_taken, _locks(out)))


def holder(out: Path) -> str:
    """The pid, host and start of the process that holds `out`, as far as they are known."""
    return _holder_of(next(filter(_is_taken, _locks(out)), lock_path(out)))


def _acquire(lock: FileLock, out: Path, shard: Shard | None, *, wait_seconds: float) -> None:
    """Takes its own lock, then checks the conflicting ones: of two runs that start at once, at least one sees the other. A run that sees
    one releases its own lock before it waits, so that two do not wait for each other."""
    path = lock_path(out, shard)
    deadline = time.monotonic() + wait_seconds
    if wait_seconds and (taken := next(filter(_is_taken, (path, *_conflicting(out, shard))), None)):
        _LOG.warning("waiting up to %g s for another run, %s", wait_seconds, _holder_of(taken))
    while True:
        try:
            lock.acquire(timeout=max(_PROBE_SECONDS, deadline - time.monotonic()))
        except Timeout as error:
            raise LockedError(_message(out, path)) from error
        conflict = next(filter(_is_taken, _conflicting(out, shard)), None)
        if conflict is None:
            return
        lock.release()
        if time.monotonic() >= deadline:
            raise LockedError(_message(out, conflict))
        time.sleep(random.uniform(0.1, 0.5))  # noqa: S311 (no secret)


def _locks(out: Path) -> list[Path]:
    return [lock_path(out), *sorted(out.glob(".batchemo.*-of-*.lock"))]


def _conflicting(out: Path, shard: Shard | None) -> list[Path]:
    """The locks of runs that may write the same media: of all media, or of shards of another count."""
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
        return error.errno == errno.EAGAIN  # without the right to read it, it cannot be checked
    return False


def _is_free(lock: Path) -> bool:
    try:
        with FileLock(lock, timeout=_PROBE_SECONDS):
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


def _message(out: Path, lock: Path) -> str:
    return f"another run is writing to {out} ({_holder_of(lock)}); wait for it with --wait-s SECONDS, or give another folder with --out"


def _holder_path(path: Path) -> Path:
    return path.with_suffix(".holder")


def _own_facts() -> dict[str, str | int]:
    started = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": started}
