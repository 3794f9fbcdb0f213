"""Notifications: a program of the user gets the run record on stdin. Its failure does not change the run."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import IO

from batchemo.jobs.file import Notification
from batchemo.jobs.history import RunFacts

_MAX_ERROR_BYTES = 2000


def notify(notification: Notification, facts: RunFacts, *, folder: Path) -> str:
    """Runs the command in `folder` with `facts` as JSON on stdin. Returns what went wrong, or an empty text.

    After `timeout_seconds` it is killed, with all processes that it started. Its stdout is not read.
    """
    content = json.dumps(facts, indent=2, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"
    # A file instead of a pipe: a background process of the program would keep a pipe open, and us waiting.
    with tempfile.TemporaryFile() as errors:
        try:
            returncode = _run(notification, content, folder, errors)
        except subprocess.TimeoutExpired:
            limit = f"{notification.timeout_seconds:g} s"
            return f"{notification.command[0]}: killed, as it had not ended after {limit}; allow more with notification.timeout_seconds"
        except (OSError, ValueError) as error:
            return f"{notification.command[0]}: {getattr(error, 'strerror', None) or error}"
        if returncode == 0:
            return ""
        errors.seek(0)
        message = errors.read(_MAX_ERROR_BYTES).decode("utf-8", "replace").strip()
        return f"{notification.command[0]}: exit code {returncode}{': ' if message else ''}{message}"


def _run(notification: Notification, content: bytes, folder: Path, errors: IO[bytes]) -> int:
    command = subprocess.Popen(  # noqa: S603 (the user's own command, without a shell)
        notification.command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True
    )
    with command as process:
        try:
            process.communicate(content, timeout=notification.timeout_seconds)
        finally:
            _end(process)
        return process.returncode


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kills the program and its children if it still runs: on a timeout, or where we are interrupted ourselves."""
    if process.poll() is None:
        if not hasattr(os, "killpg"):  # Windows has no process groups of this kind
            process.kill()
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
