"""Turns errors of commands into messages on stderr and exit codes, and finds what users can type to call batchemo again."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import typer

from batchemo.cli.streams import say
from batchemo.errors import BatchemoError, ClusterError, LockedError, StorageError, typed

EXIT_DEFECT, EXIT_USAGE, EXIT_FAILED_MEDIA, EXIT_STORAGE, EXIT_LOCKED, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 2, 3, 74, 75, 130, 143

_CODES: dict[type[BatchemoError], int] = {LockedError: EXIT_LOCKED, StorageError: EXIT_STORAGE, ClusterError: EXIT_DEFECT}
"""Other errors of ours are errors of usage."""


class Terminated(BaseException):
    """Raised where SIGTERM arrives."""


@contextlib.contextmanager
def exits(*, verbose: bool = False) -> Iterator[None]:
    """Turns errors into messages on stderr and exit codes; `verbose` prints the traceback of a defect."""

    def terminate(_signal: int, _frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except (KeyboardInterrupt, Terminated) as error:
        say("Stopped before the end; the same command continues where it stopped.")
        raise typer.Exit(EXIT_INTERRUPTED if isinstance(error, KeyboardInterrupt) else EXIT_TERMINATED) from None
    except BatchemoError as error:
        say(str(error))
        raise typer.Exit(_CODES.get(type(error), EXIT_USAGE)) from error
    except BrokenPipeError:
        # The reader of our output is gone: Python must not fail when it flushes the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(EXIT_DEFECT) from None
    except typer.Exit:
        raise
    except Exception as error:
        if verbose:
            traceback.print_exc()
        say(f"a defect of batchemo: {type(error).__name__}: {error}. The end of runs/*/log.jsonl has details; so has --verbose")
        raise typer.Exit(EXIT_DEFECT) from error
    finally:
        signal.signal(signal.SIGTERM, before)


def python() -> str:
    """What the user can type to call the Python that batchemo is installed for."""
    found = shutil.which("python")
    if found and Path(found).samefile(sys.executable) and sys.prefix == sys.base_prefix:
        return "python"
    same_folder = Path(sys.argv[0]).with_name("python")
    return typed(same_folder) if same_folder.exists() else typed(Path(sys.executable))


def program() -> str:
    """What the user can type to call batchemo again: its name where the shell finds it, otherwise its path."""
    called = Path(sys.argv[0])
    found = shutil.which("batchemo")
    if found and Path(found).resolve() == called.resolve():
        return "batchemo"
    return typed(called) if called.name == "batchemo" else f"{shlex.quote(sys.executable)} -m batchemo"
