"""Keeps what libraries write to stderr of a medium, without its name, for the log, with its name."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

_STDERR = 2
_one_at_a_time = threading.Lock()


@contextlib.contextmanager
def logged_stderr(path: Path) -> Iterator[None]:
    """What any library of this process writes to stderr within it is logged as said of `path`. libtiff has no other way to be asked."""
    with _one_at_a_time, tempfile.TemporaryFile() as kept:
        if sys.stderr is not None:
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.flush()
        before = os.dup(_STDERR)
        os.dup2(kept.fileno(), _STDERR)
        try:
            yield
        finally:
            os.dup2(before, _STDERR)
            os.close(before)
            kept.seek(0)
            for line in sorted(set(kept.read().decode(errors="replace").splitlines())):
                logging.getLogger("batchemo").info("%s: %s", path, line)
