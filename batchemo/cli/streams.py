"""Prints in the encoding of the console: messages on stderr, JSON on stdout."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from typing import Any, TextIO

import typer


def ensure_utf8_paths() -> None:
    """Restarts this process in Python's UTF-8 mode where the locale has another encoding for names of files, such as the C locale.

    Names in tables are UTF-8, and Arrow takes no other paths. The console keeps its encoding.
    """
    if sys.getfilesystemencoding() == "utf-8" or sys.flags.utf8_mode:
        return
    environment = {"PYTHONIOENCODING": sys.stdout.encoding if sys.stdout else "ascii", **os.environ, "PYTHONUTF8": "1"}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)  # noqa: S606 (the same command)


def prepare_streams() -> None:
    """Lets stdout and stderr replace characters that they cannot encode, such as those in names of files, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace" if is_unicode(stream) else "replace")


def is_unicode(stream: TextIO) -> bool:
    """Whether `stream` takes every character. Consoles of Windows and the C locale do not."""
    return (getattr(stream, "encoding", None) or "utf-8").lower().startswith("utf")


def say(message: str) -> None:
    """Prints a message on stderr."""
    typer.echo(f"batchemo: {message}", err=True)


def print_json(data: Any) -> None:
    """Prints `data` on one line of stdout: JSON in any encoding, also where names of files are no valid text."""
    text = json.dumps(data, ensure_ascii=not is_unicode(sys.stdout))
    typer.echo(text.encode(errors="backslashreplace").decode())


def set_up_logging(*, quiet: bool, verbose: bool) -> None:
    """Sends log messages to stderr: errors only where `quiet`, everything where `verbose`, otherwise warnings."""
    level = logging.ERROR if quiet else logging.DEBUG if verbose else logging.WARNING
    logging.basicConfig(format="batchemo: %(message)s", stream=sys.stderr)
    logging.getLogger("batchemo").setLevel(level)
