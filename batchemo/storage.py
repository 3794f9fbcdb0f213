"""A results folder that cannot be written any more: what is told instead of a traceback."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from batchemo.errors import StorageError, typed


@contextlib.contextmanager
def storage(out: Path) -> Iterator[None]:
    """Within the block only `out` is written to, and media that cannot be read are rows: what the system refuses is about `out`."""
    try:
        yield
    except OSError as error:
        place = Path(os.fsdecode(error.filename)) if error.filename else out
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = f"no space is left for {out} (look with: df -h {typed(out)}); free some, and the same command goes on"
        else:
            message = f"{place} cannot be written ({error.strerror or error}); look with: ls -ld {typed(place)}. The same command goes on"
        raise StorageError(message) from error
