"""One run a folder: a lock that ends with its process, and a word on who holds it."""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from batchemo.errors import LockedError, UsageError, typed

_LOG = logging.getLogger("batchemo")


def lock_path(out: Path) -> Path:
    """The file that a run which writes to `out` holds."""
    return out / ".batchemo.lock"


@contextlib.contextmanager
def locked(out: Path, *, wait_seconds: float = 0.0) -> Iterator[None]:
    """Holds `out`, which is made if missing, for as long as the block lasts.

    The system frees the lock when its process ends, however that comes. Raises LockedError where another process holds it for
    longer than `wait_seconds`, UsageError where nothing can be written.
    """
    path = lock_path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        if wait_seconds and is_held(out):
            _LOG.warning("waiting up to %g s for another run, %s", wait_seconds, holder(out))
        lock.acquire(timeout=wait_seconds)
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


def is_held(out: Path) -> bool:
    """Whether a process on this machine, or on another that shares the file system, is writing to `out`."""
    path = lock_path(out)
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:
        return False  # we may not write there, and then cannot ask
    lock.release()
    return False


def holder(out: Path) -> str:
    """Who holds `out`: process, host and since when, as far as that is known."""
    try:
        facts = json.loads(_holder_path(lock_path(out)).read_text(encoding="utf-8"))
        return f"process {facts['pid']} on {facts['host']} since {facts['started']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "a process that has just begun"


def _told(out: Path) -> str:
    return f"another run is writing to {out} ({holder(out)}); wait for it with --wait SECONDS, or give another folder with --out"


def _holder_path(path: Path) -> Path:
    return path.with_suffix(".holder")


def _myself() -> dict[str, str | int]:
    started = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": started}
