"""What commands print: messages on stderr, JSON on stdout, and nothing that the console cannot encode."""

from __future__ import annotations

import io
import json
import logging
import sys
from typing import Any, TextIO

import typer


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
