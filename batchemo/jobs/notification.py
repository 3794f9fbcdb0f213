"""Telling someone how a run went: a program of theirs gets the account on stdin. Whatever it does, the run stays what it was."""

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

_TOLD_BYTES = 2000


def notify(notification: Notification, facts: RunFacts, *, folder: Path) -> str:
    """Runs the command in `folder` with `facts` as JSON on stdin. Returns what went wrong with that, or nothing.

    It gets `timeout_seconds`; then it is killed, with all that it started. Its stdout is not read.
    """
    content = json.dumps(facts, indent=2, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"
    # A file and no pipe: a program that leaves another behind would keep a pipe open, and us waiting.
    with tempfile.TemporaryFile() as errors:
        try:
            returncode = _run(notification, content, folder, errors)
        except subprocess.TimeoutExpired:
            return f"{notification.command[0]}: killed, it had not ended after {notification.timeout_seconds:g} s"
        except (OSError, ValueError) as error:
            return f"{notification.command[0]}: {getattr(error, 'strerror', None) or error}"
        if returncode == 0:
            return ""
        errors.seek(0)
        told = errors.read(_TOLD_BYTES).decode("utf-8", "replace").strip()
        return f"{notification.command[0]}: exit code {returncode}{': ' if told else ''}{told}"


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
    """Kills what still runs, on a timeout or where we are interrupted ourselves."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
