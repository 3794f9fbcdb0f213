"""One run a folder: a lock that ends with its process, and a word on who holds it."""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from batchemo.errors import LockedError, UsageError, typed
from batchemo.shard import Shard, lock_name, rival_locks

_LOG = logging.getLogger("batchemo")


_ASK_SECONDS = 0.5


def lock_path(out: Path, shard: Shard | None = None) -> Path:
    """The file that a run which writes to `out`, or to the `shard`'s part of it, holds."""
    return out / lock_name(shard)


@contextlib.contextmanager
def locked(out: Path, *, shard: Shard | None = None, wait_seconds: float = 0.0) -> Iterator[None]:
    """Holds `out`, which is made if missing, for as long as the block lasts.

    Shards of one division share the folder; a run of all media, or of another division, has it alone. The system frees the lock when its
    process ends, however that comes. Raises LockedError where another process holds it for longer than `wait_seconds`, UsageError where
    nothing can be written.
    """
    path = lock_path(out, shard)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        if wait_seconds and any(_is_held(each) for each in (path, *rival_locks(out, shard))):
            _LOG.warning("waiting up to %g s for another run, %s", wait_seconds, holder(out))
        _acquire(lock, out, shard, wait_seconds)
    except Timeout as error:
        raise LockedError(_told(out)) from error
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


def _acquire(lock: BaseFileLock, out: Path, shard: Shard | None, wait_seconds: float) -> None:
    """Each takes its own lock before it looks at others': of two that start at once, one at least sees the other."""
    deadline = time.monotonic() + wait_seconds
    while True:
        lock.acquire(timeout=max(0.0, deadline - time.monotonic()))
        if not any(_is_held(path) for path in rival_locks(out, shard)):
            return
        lock.release()
        if time.monotonic() >= deadline:
            raise Timeout(str(lock.lock_file))
        time.sleep(_ASK_SECONDS)


def is_held(out: Path) -> bool:
    """Whether a process on this machine, or on another that shares the file system, is writing to `out`."""
    return any(_is_held(path) for path in _lock_paths(out))


def _lock_paths(out: Path) -> list[Path]:
    return sorted(out.glob(".batchemo*.lock"))


def _is_held(path: Path) -> bool:
    if sys.platform == "win32":
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        return False
    import fcntl  # noqa: PLC0415 (there is none on Windows)

    try:
        # A shared lock, so that several may ask at once without seeing each other.
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError as error:
        return error.errno in (errno.EACCES, errno.EAGAIN)
    return False


def holder(out: Path) -> str:
    """Who holds `out`: process, host and since when, as far as that is known."""
    paths = _lock_paths(out)
    for path in [path for path in paths if _is_held(path)] or paths:
        try:
            facts = json.loads(_holder_path(path).read_text(encoding="utf-8"))
            return f"process {facts['pid']} on {facts['host']} since {facts['started']}"
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return "a process that has just begun"


def _told(out: Path) -> str:
    return f"another run is writing to {out} ({holder(out)}); wait for it with --wait SECONDS, or give another folder with --out"


def _holder_path(path: Path) -> Path:
    return path.with_suffix(".holder")


def _myself() -> dict[str, str | int]:
    started = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": started}
